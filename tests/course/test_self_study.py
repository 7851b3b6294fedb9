"""``tito release --self-study`` and ``tito module solution``: our solutions for those who learn alone, for no class."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tito.atomic import write_atomically
from tito.course import Course
from tito.errors import TitoError
from tito.grading.students import solved
from tito.leaks import find_leaks
from tito.progress import Completed, Progress, digest, dump_progress, progress_file
from tito.solutions import read_solutions
from tito.source import split_secret

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.xdist_group("self-study")

REPOSITORY = Path(__file__).parents[2]
PACK = ".tito/solutions.zip"
ADD = "    added_values = left.data + right.data\n    return Tensor(added_values)"


def contents(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` by path; the lock's file is no content."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


# ---- what is released, of the real course


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, run_tito: RunTito) -> dict[str, Path]:
    """The workspaces of this repository's course: for a ``class``, and for one who learns ``alone``."""
    root = tmp_path_factory.mktemp("releases")
    for name, options in (("class", []), ("alone", ["--self-study"])):
        done = run_tito(REPOSITORY, "release", root / name, *options)
        assert done.returncode == 0, done.stderr
        assert (PACK in done.stdout) == (name == "alone")
    return {name: root / name for name in ("class", "alone")}


def test_the_pack_and_a_section_of_the_readme_are_all_that_self_study_adds(releases: dict[str, Path]) -> None:
    of_class, alone = contents(releases["class"]), contents(releases["alone"])
    assert alone.keys() - of_class.keys() == {PACK} and of_class.keys() <= alone.keys()
    assert [name for name in of_class if of_class[name] != alone[name]] == ["README.md"]
    before, after = of_class["README.md"].decode(), alone["README.md"].decode()
    assert after.startswith(before)
    assert "tito module solution 01" in after.removeprefix(before) and "$" not in after
    assert "solution" not in before.lower()


def secrets(course: Course, *regions: str) -> set[str]:
    """The lines inside ``regions`` of the sources that stand nowhere else in their source and are not too plain."""
    found: set[str] = set()
    for module in course.modules:
        hidden, public = split_secret(module.source.read_text(encoding="utf-8"))
        known = {plain(line) for line in public} | {plain(line.text) for line in hidden if line.region not in regions}
        found |= {plain(line.text) for line in hidden if line.region in regions} - known
    return {line for line in found if len(line) > 20}


def plain(line: str) -> str:
    return line.strip().removeprefix("# ").strip()


def lines_in(content: bytes) -> set[str]:
    """Every line in a file: also in the strings of JSON, and in the files of an archive."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {line for name in archive.namelist() for line in lines_in(archive.read(name))}
    text = content.decode("utf-8", errors="replace")
    with suppress(ValueError):
        text = "\n".join(strings(json.loads(text)))
    return {plain(line) for line in text.splitlines()}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def test_the_solutions_stand_in_the_pack_alone_and_hidden_tests_nowhere(releases: dict[str, Path]) -> None:
    course = Course(REPOSITORY)
    answers, hidden = secrets(course, "SOLUTION", "MARK SCHEME"), secrets(course, "HIDDEN TESTS")
    assert min(len(answers), len(hidden)) > 20 * len(course.modules)
    for name, content in contents(releases["class"]).items():
        assert not lines_in(content) & (answers | hidden), name
    for name, content in contents(releases["alone"]).items():
        assert lines_in(content) & (answers | hidden) == (answers if name == PACK else set()), name


def test_nobody_meets_a_solution_by_a_search(releases: dict[str, Path]) -> None:
    packed = (releases["alone"] / PACK).read_bytes()
    assert not [line for line in secrets(Course(REPOSITORY), "SOLUTION") if line.encode() in packed]


# ---- of the tiny course


@pytest.fixture(scope="module")
def author(_released: Path) -> Course:
    """The author's tree that the class's workspace was released from."""
    return Course(_released.parent / "author")


@pytest.fixture(scope="module")
def _finished(author: Course, tmp_path_factory: pytest.TempPathFactory, run_tito: RunTito) -> Path:
    root = tmp_path_factory.mktemp("alone") / "workspace"
    done = run_tito(author.root, "release", root, "--self-study")
    assert done.returncode == 0, done.stderr
    course = Course(root)
    module = course.module("02")
    nbformat.write(solved(author.module("02")), module.notebook)
    course.exported(module).write_text("exported = True\n")
    record = {module.slug: Completed("2026-01-01T00:00:00+00:00", digest(b"exported = True\n"))}
    write_atomically(progress_file(course), dump_progress(course, Progress(record)))
    return root


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A workspace with solutions, in which module 02 is complete: its notebook holds our solutions."""
    root = tmp_path / "workspace"
    shutil.copytree(_finished, root)
    return root


def edit(root: Path, name: str, change: Callable[[str], str]) -> None:
    """Change the source of a cell of the notebook of module 02."""
    path = root / "modules/02_tensor/tensor.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == name)
    before, cell.source = cell.source, change(cell.source)
    assert cell.source != before
    nbformat.write(notebook, path)


def test_the_check_exempts_nothing_but_the_pack(author: Course, finished: Path) -> None:
    leaks = find_leaks(author, finished)
    assert {leak.place for leak in leaks if leak.place.startswith(PACK)} == {
        f"{PACK}!{name}.json" for name in ("01_setup", "02_tensor", "06_autograd")
    }
    rest = [leak.place for leak in leaks if not leak.place.startswith(PACK)]
    assert all(place.startswith("modules/02_tensor/tensor.ipynb") for place in rest), rest  # where it was solved


def test_the_pack_does_not_tell_when_it_was_made(finished: Path) -> None:
    with zipfile.ZipFile(finished / PACK) as pack:
        assert {entry.date_time for entry in pack.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_leak_stops_a_release_for_self_study_too(author_tree: Path, run_tito: RunTito, tmp_path: Path) -> None:
    with (author_tree / "modules/01_setup/README.md").open("a") as readme:
        readme.write(ADD)
    done = run_tito(author_tree, "release", tmp_path / "alone", "--self-study")
    assert done.returncode == 1 and "modules/01_setup/README.md" in done.stderr and PACK not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["author"]


def test_a_completed_module_is_shown_beside_ours(finished: Path, run_tito: RunTito) -> None:
    own = "    return Tensor(left.data[:] - -right.data[:end:2])"
    edit(finished, "tensor-add", lambda source: source.replace(ADD, own))
    edit(finished, "tensor-class", lambda source: source.replace("\n    ", " \r\n    ") + "\n\n")  # an editor's doing
    edit(finished, "tensor-memory", lambda _: "A million times\tfour.")
    before = contents(finished)
    done = run_tito(finished, "module", "solution", "02")
    assert done.returncode == 0, done.stderr
    same, diff, answer = re.split(r"\n\n(?=---|tensor-memory)", done.stdout)
    assert same == "tensor-class: yours is the same as ours"
    lines = diff.splitlines()
    assert lines[:2] == ["--- tensor-add, yours", "+++ tensor-add, ours"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [f"-{own}", *(f"+{line}" for line in ADD.split("\n"))]
    order = (
        "How much memory do a million values take?",
        "yours:\n    A million times four.",
        "ours:\n    Each float32 takes four bytes, so four megabytes.",
        "Full marks for four megabytes with the reason.",
    )
    places = [answer.find(words) for words in order]
    assert -1 not in places and places == sorted(places), answer
    assert "BEGIN" not in done.stdout and "END" not in done.stdout and "hidden_" not in done.stdout
    assert "\x1b" not in done.stdout
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("name", "shown", "absent"),
    [
        ("tensor-class", "tensor-class: yours is the same as ours\n", "tensor-add"),
        ("tensor-memory", "Full marks for four megabytes", "tensor-class"),
    ],
)
def test_one_exercise_or_question_alone(finished: Path, run_tito: RunTito, name: str, shown: str, absent: str) -> None:
    done = run_tito(finished, "module", "solution", "tensor", "--exercise", name)
    assert done.returncode == 0 and shown in done.stdout and absent not in done.stdout


def test_what_a_notebook_holds_is_no_order_to_the_terminal(finished: Path, run_tito: RunTito) -> None:
    edit(finished, "tensor-add", lambda source: f"{source}\n# \x1b[2J\x9b2J\x07\n")
    edit(finished, "tensor-memory", lambda _: "&#27;[2J \x1b]0;title\x07")
    done = run_tito(finished, "module", "solution", "02")
    assert done.returncode == 0
    assert "-# \ufffd[2J\ufffd2J\ufffd" in done.stdout and "&#27;[2J \ufffd]0;title\ufffd" in done.stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)


def test_a_deleted_exercise_is_shown_as_it_was_released_and_that_is_said(finished: Path, run_tito: RunTito) -> None:
    path = finished / "modules/02_tensor/tensor.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "tensor-add"]
    nbformat.write(notebook, path)
    done = run_tito(finished, "module", "solution", "02")
    assert done.stdout.startswith("note: the cell tensor-add was deleted")
    assert "-    raise NotImplementedError()" in done.stdout.splitlines()


def test_on_a_terminal_it_is_coloured_and_paged(finished: Path, tmp_path: Path) -> None:
    edit(finished, "tensor-add", lambda source: source.replace(ADD, "    return left"))
    pager, page = tmp_path / "bin" / "less", tmp_path / "page"
    pager.parent.mkdir()
    pager.write_text(f"#!/bin/sh\ncat > '{page}'\n")
    pager.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(finished), "PAGER": str(pager), "TERM": "xterm", "LESS": ""}
    environment.pop("NO_COLOR", None)
    terminal, end = os.openpty()
    try:
        command = [sys.executable, "-m", "tito", "module", "solution", "02"]
        done = subprocess.run(command, cwd=finished, env=environment, stdin=end, stdout=end, stderr=-1, timeout=300)
    finally:
        os.close(terminal)
        os.close(end)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = page.read_text()
    assert "\x1b[31m-    return left\x1b[0m" in shown and f"\x1b[32m+{ADD.splitlines()[0]}\x1b[0m" in shown


# ---- when there is nothing to show


def repack(root: Path, change: Callable[[str], str]) -> None:
    with zipfile.ZipFile(root / PACK) as pack:
        texts = {name: pack.read(name).decode() for name in pack.namelist()}
    with zipfile.ZipFile(root / PACK, "w") as pack:
        for name, text in texts.items():
            pack.writestr(name, change(text))


def write(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


REFUSALS: dict[str, tuple[Callable[[Path], object], list[str], list[str]]] = {
    "not begun": (lambda root: None, ["06"], ["06_autograd is not complete yet", "tito module complete 06"]),
    "changed": (
        lambda root: write(root, "tinytorch/core/tensor.py", "cheat = True\n"),
        ["02"],
        ["02_tensor was complete, but its file", "tinytorch/core/tensor.py", "tito module complete 02"],
    ),
    "deleted": (lambda root: (root / "tinytorch/core/tensor.py").unlink(), ["02"], ["is missing or not what was"]),
    "no pack": (lambda root: (root / PACK).unlink(), ["02"], ["came without solutions", "tito module hint 02"]),
    "half": (lambda root: os.truncate(root / PACK, 700), ["02"], ["cannot be read", PACK, "--self-study"]),
    "another version": (
        lambda root: repack(root, lambda text: re.sub(r'"release": "\w+"', '"release": "0"', text)),
        ["02"],
        ["the solutions of another version of 02_tensor", PACK, "--self-study"],
    ),
    "no such exercise": (
        lambda root: None,
        ["02", "--exercise", "tensor-ad"],
        ["no exercise 'tensor-ad'", "did you mean tensor-add?", "tensor-class, tensor-add, tensor-memory"],
    ),
    "no notebook": (
        lambda root: (root / "modules/02_tensor/tensor.ipynb").unlink(),
        ["02"],
        ["the notebook is missing", "tito module start 02"],
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_refusals(finished: Path, run_tito: RunTito, why: str) -> None:
    spoil, args, words = REFUSALS[why]
    spoil(finished)
    before = contents(finished)
    done = run_tito(finished, "module", "solution", *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert all(word in done.stderr for word in [*words, "next:"]) and "Traceback" not in done.stderr, done.stderr
    assert contents(finished) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: write(root, PACK, "{}"),
        lambda root: repack(root, lambda text: text[:-1]),
        lambda root: repack(root, lambda text: "[]"),
        lambda root: repack(root, lambda text: text.replace('"scheme"', '"rubric"')),
        lambda root: (root / PACK).write_bytes(b"PK\5\6" + bytes(18)),  # an archive with nothing in it
    ],
)
def test_a_broken_pack_is_named(finished: Path, spoil: Callable[[Path], object]) -> None:
    spoil(finished)
    course = Course(finished)
    with pytest.raises(TitoError, match=r"the solutions of 02_tensor cannot be read") as refusal:
        read_solutions(course, course.module("02"))
    assert refusal.value.place == str(finished / PACK)


def test_in_the_authors_tree_the_source_is_named(author: Course, run_tito: RunTito) -> None:
    done = run_tito(author.root, "module", "solution", "02")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(author.module("02").source) in done.stderr


# ---- the way there


def test_who_completes_a_module_is_told_and_can_look(author: Course, finished: Path, run_tito: RunTito) -> None:
    nbformat.write(solved(author.module("01")), finished / "modules/01_setup/setup.ipynb")
    refused = run_tito(finished, "module", "solution", "01")
    assert refused.returncode == 1 and "01_setup is not complete yet" in refused.stderr
    done = run_tito(finished, "module", "complete", "01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tito module solution 01" in done.stdout
    assert run_tito(finished, "module", "solution", "01").stdout == "setup-report: yours is the same as ours\n"
