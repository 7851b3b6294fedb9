"""``tito milestone``, and the programs in ``milestones/``: their goals, and everything that can stand in their way.

They run on copies of this course: as an author's tree, whose package is complete, or as a workspace with a record of
some modules.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tito.course import Course
from tito.milestones import training
from tito.milestones.catalogue import milestones
from tito.milestones.results import read_result
from tito.progress import Completed, Progress, digest, dump_progress, progress_file

ROOT = Path(__file__).parents[2]
MILESTONES = milestones(Course(ROOT))
RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # two threads wait for each other on a busy machine


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fresh author's tree with this course's package, milestones and data; of the modules, what describes them.

    What Python has compiled is copied too, since many short programs are run here.
    """
    root = tmp_path / "course"
    for name in ("tito", "tinytorch", "milestones", "datasets"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copytree(ROOT / "modules", root / "modules", ignore=shutil.ignore_patterns("*.py", "*.md", "students"))
    shutil.copy(ROOT / "settings.ini", root / "settings.ini")
    return root


def as_workspace(tree: Path, *completed: str) -> Course:
    """Make ``tree`` a workspace in which these modules are complete, and others not begun."""
    settings = tree / "settings.ini"
    settings.write_text(settings.read_text().replace("kind = author", "kind = workspace"))
    course = Course(tree)
    progress = Progress()
    for module in course.modules:
        exported = course.exported(module)
        if module.name in completed:
            progress.completed[module.slug] = Completed("2026-11-22T06:00:00+00:00", digest(exported.read_bytes()))
        else:
            exported.unlink()
    progress_file(course).parent.mkdir()
    progress_file(course).write_text(dump_progress(course, progress))
    return course


def listed(run_tito: RunTito, tree: Path, **env: str) -> dict[str, dict[str, Any]]:
    done = run_tito(tree, "milestone", "list", "--json", **env)
    assert done.returncode == 0, done.stderr
    return {item["name"]: item for item in json.loads(done.stdout)}


def python(
    tree: Path, program: str, *args: str, cwd: Path, finds: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The program of ``tree`` as plain ``python`` runs it; Python finds the packages of ``finds``, or of ``tree``."""
    env = os.environ | ALONE | {"PYTHONPATH": str(finds or tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(tree / "milestones" / program), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    assert done.stdout == "" and done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    return done.stderr


# ---- the programs


@pytest.mark.parametrize("item", MILESTONES, ids=lambda item: item.slug)
def test_the_goals_are_met(item, tree: Path, run_tito: RunTito) -> None:
    done = run_tito(tree, "milestone", "run", item.nn, **ALONE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{item.year}: {item.title}\n") and "missed" not in done.stdout
    assert done.stderr == ""  # a bar is for terminals
    folder = tree / "results" / item.slug
    kept = {path.name for path in folder.iterdir() if path.suffix != ".npz"}  # but for checkpoints
    assert kept == {*item.figures, "result.json"}
    for name in item.figures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"results/{item.slug}/{name}" in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert result["met"] and result["goals"] and all(goal["met"] for goal in result["goals"])
    assert result["settings"]["seed"] == 0 and result["seconds"] > 0 and result["versions"]["numpy"]
    found = listed(run_tito, tree)
    assert found.pop(item.name)["result"] == result and {other["state"] for other in found.values()} == {"ready"}


@pytest.mark.parametrize("item", MILESTONES, ids=lambda item: item.slug)
def test_a_program_imports_what_it_needs_and_no_more(item) -> None:
    course = Course(ROOT)
    needed: set[int] = set()
    waiting = list(item.prerequisites)
    while waiting:
        number = waiting.pop()
        needed.add(number)
        waiting += course.by_number(number).prerequisites
    imported = {
        node.module.removeprefix("tinytorch.core.")
        for node in ast.walk(ast.parse(item.program.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tinytorch.")
    }
    assert imported <= {course.by_number(number).name for number in needed}
    needless = {course.by_number(number).name for number in item.prerequisites} - imported
    assert needless <= {"autograd"}  # which needs no import to be used
    assert (item.folder / "README.md").is_file()


# ---- what is kept of a run


def test_what_was_reached_stays_reached_and_plain_python_does_the_same(tree: Path, run_tito: RunTito, tmp_path) -> None:
    def result() -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((tree / "results/01_1957_perceptron/result.json").read_text())
        return fields

    short = ("--epochs", "2", "--seed", "1")
    done = run_tito(tree, "milestone", "run", "perceptron", *short, **ALONE)
    assert done.returncode == 1
    assert "met    setosa or versicolor" in done.stdout and "missed a 1 or an 8" in done.stdout
    first = result()
    assert not first["met"] and first["reached_at"] is None and first["settings"] == {"epochs": 2, "seed": 1}
    assert listed(run_tito, tree)["perceptron"]["state"] == "missed"
    assert "goal missed, " in run_tito(tree, "milestone", "list").stdout

    assert run_tito(tree, "milestone", "run", "1", cwd=tree / "modules", **ALONE).returncode == 0
    second = result()
    assert second["met"] and second["reached_at"] == second["at"]
    mistakes = [fields["measured"]["mistakes"]["a 1 or an 8"][:2] for fields in (first, second)]
    assert mistakes[0] != mistakes[1]  # another seed

    assert python(tree, "01_1957_perceptron/perceptron.py", *short, cwd=tmp_path).returncode == 1
    third = result()
    assert third["measured"] == first["measured"] and not third["met"]
    assert third["reached_at"] == second["at"] and listed(run_tito, tree)["perceptron"]["state"] == "reached"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "met": true, "reached_at": "now"}']
)
def test_a_broken_result_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    assert read_result(tmp_path) is None


def test_results_that_cannot_be_written_are_refused_before_the_work(tree: Path, run_tito: RunTito) -> None:
    (tree / "results").write_text("a file in the way")
    says = refused(run_tito(tree, "milestone", "run", "01", **ALONE))
    assert "results cannot be written" in says and str(tree / "results") in says


def stop_at(line: str, tree: Path, *args: str) -> tuple[int, str]:
    """Run ``tito``, and press Ctrl-C at the first line that begins with ``line``: its status and what it says then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tito", *args],
        cwd=tree,
        env=os.environ | ALONE | {"PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(written.startswith(line) for written in process.stdout)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


def test_ctrl_c_ends_the_program(tree: Path) -> None:
    status, said = stop_at("epoch 1/100000", tree, "milestone", "run", "03", "--epochs", "100000")
    assert status == -signal.SIGINT  # a shell makes 130 of it
    assert "Stopped. No result was written." in said and "Traceback" not in said
    assert list((tree / "results/03_1986_mlp").iterdir()) == []


def test_a_stopped_run_goes_on_where_it_was(tree: Path, run_tito: RunTito) -> None:
    run = ("milestone", "run", "04", "--epochs", "4")
    folder = tree / "results/04_1998_cnn"

    def measured() -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((folder / "result.json").read_text())["measured"]
        return fields

    says = refused_after_the_title(run_tito(tree, *run, "--resume", **ALONE))
    assert "no run with these settings was stopped" in says and "leave out --resume" in says
    run_tito(tree, *run, **ALONE)
    whole = measured()
    (checkpoint,) = folder.glob("*.npz")

    stop_at("epoch 2/4", tree, *run)  # then the one before is kept
    assert checkpoint.with_suffix(".npz.bak").is_file(), "a new run does not overwrite an older one"
    resumed = run_tito(tree, *run, "--resume", **ALONE)
    assert re.search(r"Going on after epoch [12], ", resumed.stdout), resumed.stdout + resumed.stderr
    again = measured()
    assert (again["history"], again["confusion"]) == (whole["history"], whole["confusion"])


def test_a_stopwatch_goes_on_from_what_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 103.0, 104.0, 200.0, 205.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    trainer: Any = None  # it does not ask
    watch = training.Stopwatch()
    watch.on_fit_start(trainer)
    watch.on_epoch_end(trainer)
    watch.on_epoch_end(trainer)
    resumed = training.Stopwatch()
    resumed.load_state_dict(watch.state_dict())
    resumed.on_fit_start(trainer)
    resumed.on_epoch_end(trainer)
    assert (watch.seconds, resumed.seconds) == (4.0, 9.0)


def test_a_new_run_keeps_all_that_an_older_one_left(tmp_path: Path) -> None:
    checkpoint, samples, missing = (tmp_path / name for name in ("a.npz", "a.txt", "b.txt"))
    trainer: Any = None
    for content in ("first run", "second run"):
        checkpoint.write_text(content)
        samples.write_text(content)
        assert not training.begin_or_resume(trainer, checkpoint, samples, missing, resume=False)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "a.npz.bak": content,
            "a.txt.bak": content,
        }


def test_what_learns_shakespeare_can_be_stopped_resumed_and_talked_to(tree: Path, run_tito: RunTito) -> None:
    plays, table = tree / "datasets/shakespeare/shakespeare.txt", tree / "tito/data/datasets.toml"
    table.write_text(table.read_text().replace(f"bytes = {plays.stat().st_size}", "bytes = 6000"))
    plays.write_bytes(plays.read_bytes()[:6000])
    folder, run = tree / "results/05_2017_transformer", ("milestone", "run", "05")
    says = refused_after_the_title(run_tito(tree, *run, "--prompt", "HAMLET:", **ALONE))
    assert "nothing has learned Shakespeare here yet" in says and "run 05 --task shakespeare" in says

    stop_at("step    4", tree, *run, "--task", "shakespeare", "--steps", "20")  # then step 3 is kept
    resumed = run_tito(tree, *run, "--resume", "--steps", "20", timeout=300, **ALONE)
    went_on = re.search(r"Going on after step (\d+), ", resumed.stdout)
    assert went_on and int(went_on[1]) in range(3, 20), resumed.stdout + resumed.stderr
    steps = [int(step) for step in re.findall(r"^step +(\d+)", resumed.stdout, re.MULTILINE)]
    assert steps == list(range(int(went_on[1]) + 1, 21))
    assert resumed.returncode == 1 and "missed loss on unseen plays" in resumed.stdout
    assert len(json.loads((folder / "result.json").read_text())["measured"]["history"]["val_loss"]) == 20
    kept = {path.name.removeprefix("shakespeare_") for path in folder.iterdir()}
    assert kept == {"learning.png", "attention.png", "20_steps_seed_0.npz", "20_steps_seed_0.txt", "result.json"}

    said = run_tito(tree, *run, "--prompt", "HAMLET: ", "--seed", "1", **ALONE)
    assert said.returncode == 0, said.stderr
    _, _, text = said.stdout.partition("\n")
    assert text.startswith("HAMLET: ") and len(text) > 400
    says = refused_after_the_title(run_tito(tree, *run, "--prompt", "caf\xe9", **ALONE))
    assert "does not know '\xe9'" in says


# ---- what is missing


def test_modules_that_are_not_complete(tree: Path, run_tito: RunTito, tmp_path: Path) -> None:
    course = as_workspace(tree)
    before = listed(run_tito, tree)
    assert {item["state"] for item in before.values()} == {"locked"} and before["xor"]["waits_for"] == "01_setup"
    assert "locked: complete 01 first" in run_tito(tree, "milestone", "list").stdout
    says = refused(run_tito(tree, "milestone", "run", "01"))
    assert "01_1957_perceptron needs 01_setup, which is not complete yet" in says
    assert "tito module start 01" in says and "tito module complete 01" in says
    assert refused(python(tree, "01_1957_perceptron/perceptron.py", cwd=tmp_path)) == says
    assert "Milestone" not in run_tito(tree).stdout
    assert not (course.root / "results").exists()


def test_a_workspace_goes_by_the_record(tree: Path, run_tito: RunTito) -> None:
    course = as_workspace(tree, "setup", "tensor", "layers")
    first, *others = [item["state"] for item in listed(run_tito, tree).values()]
    assert first == "ready" and set(others) == {"locked"}
    said = run_tito(tree).stdout
    assert said.endswith("Milestone: The perceptron (1957) runs on what you have built: tito milestone run 01\n")
    folder = tree / "results/01_1957_perceptron"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"format": 1, "met": false, "reached_at": null}')
    assert "Milestone" not in run_tito(tree).stdout

    exported = course.exported(course.module("layers"))
    exported.write_text(exported.read_text() + "\nCHANGED = True\n")
    says = refused(run_tito(tree, "milestone", "run", "01"))
    assert "needs 04_layers, whose file in the package is missing or not what was exported" in says
    assert "tito module complete 04" in says


def test_an_authors_tree_goes_by_the_package(tree: Path, run_tito: RunTito) -> None:
    assert "Milestone" not in run_tito(tree).stdout
    (tree / "tinytorch/core/layers.py").unlink()
    says = refused(run_tito(tree, "milestone", "run", "01"))
    assert "needs 04_layers, which is not exported" in says and "tito export 04" in says


def test_data_that_is_not_here(tree: Path, run_tito: RunTito, tmp_path: Path) -> None:
    empty = {"TINYTORCH_DATA": str(tmp_path / "nowhere")}
    says = refused_after_the_title(run_tito(tree, "milestone", "run", "03", "--data", "mnist", **empty, **ALONE))
    assert "the data set mnist is not on this machine" in says and "tito data get mnist" in says
    shutil.rmtree(tree / "datasets/iris")
    assert "tito data get iris" in refused(run_tito(tree, "milestone", "run", "01", **empty))
    found = listed(run_tito, tree, **empty)
    assert found["perceptron"]["state"] == "no data" and found["perceptron"]["missing_data"] == "iris"
    assert "needs data: tito data get iris" in run_tito(tree, "milestone", "list", **empty).stdout


def refused_after_the_title(done: subprocess.CompletedProcess[str]) -> str:
    title, _, rest = done.stdout.partition("\n")
    assert re.fullmatch(r"\d{4}: .+", title)
    done.stdout = rest
    return refused(done)


def test_the_package_is_that_of_the_programs_own_course_and_its_bugs_are_shown(tree: Path, tmp_path: Path) -> None:
    """Also where Python would find another tinytorch first."""
    layers = tree / "tinytorch/core/layers.py"
    layers.write_text(layers.read_text().replace("return linear(x, self.weight, self.bias)", "return x @ self.weight"))
    done = python(tree, "01_1957_perceptron/perceptron.py", cwd=tmp_path, finds=ROOT)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and str(layers) in done.stderr and "matmul" in done.stderr


# ---- wrong calls, and a catalogue that is not right


def test_arguments_go_to_the_program(tree: Path, run_tito: RunTito) -> None:
    as_workspace(tree)
    done = run_tito(tree, "milestone", "run", "03", "--help")
    assert done.returncode == 0 and "--data {digits,mnist}" in done.stdout
    done = run_tito(tree, "milestone", "run", "01", "--epochs", "0")
    assert done.returncode == 2 and "'0' is not a whole number from 1 on" in done.stderr
    assert "Example: tito milestone run 02" in run_tito(tree, "milestone", "run", "--help").stdout


def test_a_milestone_that_is_not_there(tree: Path, run_tito: RunTito) -> None:
    says = refused(run_tito(tree, "milestone", "run", "cnn3"))
    assert "there is no milestone 'cnn3'" in says and "01_1957_perceptron, 02_1969_xor, 03_1986_mlp" in says
    (tree / "milestones/02_1969_xor/xor.py").unlink()
    says = refused(run_tito(tree, "milestone", "run", "02"))
    assert "the program of 02_1969_xor is missing" in says and str(tree / "milestones/02_1969_xor/xor.py") in says
    shutil.rmtree(tree / "milestones")
    assert listed(run_tito, tree) == {}
    assert "none in this course" in refused(run_tito(tree, "milestone", "run", "01"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("year: 1969", "year: 1970", "says 2 and 1970, the folder 02 and 1969"),
        ("title: XOR\n", "", "has no 'title'"),
        ("data: []", "data: [", "cannot be read"),
    ],
)
def test_a_description_that_is_not_right(tree: Path, run_tito: RunTito, old: str, new: str, says: str) -> None:
    path = tree / "milestones/02_1969_xor/milestone.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    shown = refused(run_tito(tree, "milestone", "list"))
    assert says in shown and str(path) in shown
