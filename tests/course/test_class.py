"""Grading a class at once: killed and started again, two runs at a time, graders that die, links, odd names."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from tito.course import Course
from tito.grading.directory import Directory
from tito.grading.students import blank, solved

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.xdist_group("class")
CELL_SECONDS = 20

# student -> (the line put into the exercise tensor-add, or None for a blank notebook; the score)
CLASS = {
    "[x]": ("pass", 80.0),
    "bo {b}": ("raise ValueError", 40.0),
    "çé ñ": (None, 0.0),
    "slow": ("import time; time.sleep(0.5)", 80.0),
    "sulks": ("import os; os._exit(3)", 40.0),
    "zoë": ("import time; time.sleep(0.5); return left", 40.0),
}
SCORES = {student: score for student, (_, score) in CLASS.items()}


@pytest.fixture
def handed_in(tree: Path, assigned: Path, tmp_path: Path) -> Path:
    """A course directory with the class's notebooks, not graded yet."""
    root = tmp_path / "grading"
    shutil.copytree(assigned, root)
    for student, (line, _) in CLASS.items():
        hand_in(root, student, notebook_with(tree, line))
    return root


@pytest.fixture(scope="module")
def _graded(tree: Path, assigned: Path, run_tito: RunTito) -> Path:
    root = tree.parent / "graded"
    shutil.copytree(assigned, root)
    for student, (line, _) in CLASS.items():
        hand_in(root, student, notebook_with(tree, line))
    told, said, status = grade(run_tito, tree, root)
    assert (scores_of(told), recorded(root), status) == (SCORES, SCORES, 0)
    assert "graded already" not in said
    return root


@pytest.fixture
def graded(_graded: Path, tmp_path: Path) -> Path:
    """A course directory with the class's notebooks, graded."""
    root = tmp_path / "graded"
    shutil.copytree(_graded, root)
    return root


def notebook_with(tree: Path, line: str | None) -> NotebookNode:
    module = Course(tree).module("02")
    if line is None:
        return blank(module)
    notebook = solved(module)
    cell = next(cell for cell in notebook.cells if cell.id == "tensor-add")
    cell.source = cell.source.replace("    added_values =", f"    {line}\n    added_values =")
    return notebook


def hand_in(root: Path, student: str, notebook: NotebookNode) -> Path:
    path = root / "submitted" / student / "02_tensor" / "tensor.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def grade(run_tito: RunTito, tree: Path, root: Path, *options: str) -> tuple[dict[str, dict[str, object]], str, int]:
    """Grade the class; what the JSON says of each student, what was said besides, and the exit status."""
    done = run_tito(tree, "nbgrader", "autograde", "02", "--json", "--course", root, *options)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)["submissions"]
    return {one["student"]: one for one in told}, done.stderr, done.returncode


def scores_of(told: dict[str, dict[str, object]]) -> dict[str, object]:
    return {student: one["score"] for student, one in told.items()}


def recorded(root: Path) -> dict[str, float]:
    """The scores in the gradebook."""
    with Directory.open(root).gradebook() as gradebook:
        return {one.student_id: float(one.score) for one in gradebook.find_assignment("02_tensor").submissions}


@contextmanager
def grading(tree: Path, root: Path, *options: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A run of autograde that goes on; its standard error has a line for each submission when it is done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tito", "nbgrader", "autograde", "02", "--course", str(root), *options],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_lines(process: subprocess.Popen[str], count: int) -> None:
    assert process.stderr
    seen = 0
    while seen < count:
        line = process.stderr.readline()
        assert line, f"the run ended after {seen} submissions"
        seen += bool(re.match(r"\d+ of \d+: 02_tensor", line))


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_killed_again_and_again_it_does_the_rest_and_ends_with_the_same_scores(
    tree: Path, handed_in: Path, run_tito: RunTito
) -> None:
    for lines, way in ((1, signal.SIGKILL), (2, signal.SIGINT)):
        temporary = tempfile.mkdtemp(prefix="t-")  # not below tmp_path: a socket's path must be short
        with grading(tree, handed_in, "--jobs", "2", TMPDIR=temporary) as process:
            wait_for_lines(process, lines)
            begun = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(way)
            _, last_words = process.communicate(timeout=120)
        assert process.returncode == (-way if way == signal.SIGKILL else 130)
        assert way == signal.SIGKILL or "run the command again: it does the rest" in last_words
        _, alive = psutil.wait_procs(begun, timeout=30)
        assert begun and not alive, "a run that is stopped leaves nothing running"
        assert not list(Path(temporary).glob("tito-*")), "and no folder"
        shutil.rmtree(temporary)
    assert recorded(handed_in).items() <= SCORES.items()
    told, said, status = grade(run_tito, tree, handed_in)
    known = re.search(r"(\d) of 6 are graded already", said)
    assert known and 3 <= int(known[1]) < 6
    assert len(re.findall(r"(?m)^\d+ of \d+: 02_tensor", said)) == 6 - int(known[1])
    assert (scores_of(told), recorded(handed_in), status) == (SCORES, SCORES, 0)


def test_what_has_not_changed_is_not_graded_again(tree: Path, graded: Path, run_tito: RunTito) -> None:
    hand_in(graded, "zoë", notebook_with(tree, "pass"))
    shutil.rmtree(graded / "autograded" / "slow")
    told, said, _ = grade(run_tito, tree, graded)
    assert "4 of 6 are graded already; --force grades them again" in said
    assert set(re.findall(r"(?m)^\d of 2: 02_tensor, (.*): graded$", said)) == {"slow", "zoë"}
    assert scores_of(told) == {**SCORES, "zoë": 80.0}
    assert told["sulks"]["findings"]["crashes"], "what was found earlier is told again"
    report = run_tito(tree, "nbgrader", "report", "02", "--student", "sulks", "--course", graded)
    assert f"sulks: {told['sulks']['findings']['crashes'][0]}" in report.stdout

    _, said, _ = grade(run_tito, tree, graded, "--student", "slow", "--force")
    assert said == "1 of 1: 02_tensor, slow: graded\n"


def test_feedback_reaches_whoever_is_named_like_a_pattern(tree: Path, graded: Path, run_tito: RunTito) -> None:
    done = run_tito(tree, "nbgrader", "feedback", "02", "--course", graded)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parts[-3] for path in (graded / "feedback").rglob("tensor.html")}
    assert pages == CLASS.keys()


def test_another_assignment_is_another_grading(tree: Path, graded: Path, tmp_path: Path, run_tito: RunTito) -> None:
    own = tmp_path / "author"
    shutil.copytree(tree, own)
    config = graded / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8").replace(str(tree), str(own)), encoding="utf-8")
    source = own / "modules" / "02_tensor" / "tensor_dev.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("def test_add():", "def test_add():\n    assert False, 'no'"), encoding="utf-8")
    done = run_tito(own, "nbgrader", "generate", "02", "--course", graded)
    assert done.returncode == 0, done.stderr
    told, _, _ = grade(run_tito, own, graded, "--student", "slow")
    assert told["slow"]["score"] == 40.0


def test_a_second_run_is_refused_and_told_who_is_at_work(tree: Path, handed_in: Path, run_tito: RunTito) -> None:
    with grading(tree, handed_in, "--jobs", "1") as first:
        wait_for_lines(first, 1)
        first.send_signal(signal.SIGSTOP)
        for command in ("autograde", "generate"):
            second = run_tito(tree, "nbgrader", command, "--course", handed_in)
            assert second.returncode == 1
            assert "another run is at work in this course directory" in second.stderr
            assert re.search(rf"process {first.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d", second.stderr)
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=300)
        assert first.returncode == 0
    assert "6 of 6 graded" in out
    assert recorded(handed_in) == SCORES


def test_a_grader_that_dies_costs_the_submission_in_its_hands_until_the_next_run(
    tree: Path, handed_in: Path, run_tito: RunTito
) -> None:
    hand_in(handed_in, "[x]", notebook_with(tree, "import time; time.sleep(15)"))
    with grading(tree, handed_in, "--jobs", "1", "--json") as process:
        wait_until(lambda: [grader.kill() for grader in busy_graders(process.pid)], "no grader went to work")
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 1
    told = {one["student"]: one for one in json.loads(out)["submissions"]}
    assert told["[x]"]["problem"] == "the grader ended: SIGKILL"
    assert scores_of(told) == {**SCORES, "[x]": 0.0}
    hand_in(handed_in, "[x]", notebook_with(tree, "pass"))
    told, said, status = grade(run_tito, tree, handed_in)
    assert "5 of 6 are graded already" in said
    assert (scores_of(told), status) == (SCORES, 0)


def busy_graders(pid: int) -> list[psutil.Process]:
    """The graders of a run that have started a process for a student."""
    try:
        servers = [child for child in psutil.Process(pid).children() if "forkserver" in " ".join(child.cmdline())]
        return [grader for server in servers for grader in server.children() if grader.children()]
    except psutil.NoSuchProcess:
        return []


def test_links_lead_nowhere(tree: Path, handed_in: Path, run_tito: RunTito) -> None:
    answer = handed_in / "source" / "02_tensor" / "tensor.ipynb"
    for student in set(CLASS) - {"slow"}:
        shutil.rmtree(handed_in / "submitted" / student)
    notebook = handed_in / "submitted" / "file" / "02_tensor" / "tensor.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.symlink_to(answer)
    (handed_in / "submitted" / "folder").mkdir()
    (handed_in / "submitted" / "folder" / "02_tensor").symlink_to(answer.parent)
    (handed_in / "submitted" / "pipe" / "02_tensor").mkdir(parents=True)
    os.mkfifo(handed_in / "submitted" / "pipe" / "02_tensor" / "tensor.ipynb")
    beside = handed_in / "submitted" / "slow" / "02_tensor"
    (beside / "data.csv").symlink_to(handed_in / "gradebook.db")
    (beside / "plot.png").write_bytes(b"a picture")

    told, _, status = grade(run_tito, tree, handed_in)
    assert status == 1
    assert scores_of(told) == {"file": 0.0, "folder": 0.0, "pipe": 0.0, "slow": 80.0}
    assert told["file"]["problem"] == "tensor.ipynb is a link: what it leads to is not graded"
    assert told["folder"]["problem"] == "02_tensor is a link: what it leads to is not graded"
    assert told["pipe"]["problem"] == "tensor.ipynb is not a file"
    kept = sorted(path.name for path in (handed_in / "autograded" / "slow" / "02_tensor").iterdir())
    assert kept == ["plot.png", "tensor.ipynb"]


def test_nbgrader_itself_does_not_grade_a_link(tree: Path, handed_in: Path) -> None:
    notebook = handed_in / "submitted" / "slow" / "02_tensor" / "tensor.ipynb"
    notebook.unlink()
    notebook.symlink_to(handed_in / "source" / "02_tensor" / "tensor.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", "autograde", "02_tensor", "--student", "slow"],
        cwd=handed_in,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "tensor.ipynb is a link" in done.stderr
    assert recorded(handed_in)["slow"] == 0.0


def test_a_run_without_isolation_is_another_one_and_says_so(tree: Path, graded: Path, run_tito: RunTito) -> None:
    command = ("nbgrader", "autograde", "02", "--student", "slow", "--course", graded)
    done = run_tito(tree, *command, "--no-isolation")
    assert "graded already" not in done.stderr
    assert "not isolated: all of them" in done.stdout
    report = run_tito(tree, "nbgrader", "report", "02", "--student", "slow", "--course", graded)
    assert "slow: not isolated" in report.stdout
    done = run_tito(tree, *command, "--no-isolation", "--json")
    assert "1 of 1 are graded already" in done.stderr
    assert json.loads(done.stdout)["isolated"] is False
    assert json.loads(done.stdout)["submissions"][0]["isolated"] is False
    assert recorded(graded) == SCORES


def test_the_gradebook_gets_all_of_a_grading_or_nothing(handed_in: Path) -> None:
    directory = Directory.open(handed_in)
    with pytest.raises(ZeroDivisionError), directory.transaction():
        with directory.gradebook() as gradebook:
            gradebook.update_or_create_student("ghost")  # which commits
        raise ZeroDivisionError
    with directory.gradebook() as gradebook:
        assert "ghost" not in [student.id for student in gradebook.students]
    with directory.transaction(), directory.gradebook() as gradebook:
        gradebook.update_or_create_student("guest")
    with directory.gradebook() as gradebook:
        assert "guest" in [student.id for student in gradebook.students]
