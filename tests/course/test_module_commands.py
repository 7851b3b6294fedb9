"""A student's loop, as a student does it: list, start, test, hint, complete, reset, and everything that goes wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tito.atomic import write_together
from tito.course import Course
from tito.source import read_notebook, strip_markers

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


class Student:
    """Someone at work in a workspace, with the author's solutions at hand."""

    def __init__(self, root: Path, author: Path, run_tito: RunTito) -> None:
        self.root = root
        self.author = Course(author)
        self.course = Course(root)
        self.run_tito = run_tito

    def tito(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = self.run_tito(self.root, *args, **NO_DISPLAY, **env)
        assert "Traceback" not in done.stderr
        return done

    def path(self, query: str) -> Path:
        return self.course.module(query).notebook

    def read(self, query: str) -> dict[str, Any]:
        notebook: dict[str, Any] = json.loads(self.path(query).read_text())
        return notebook

    def write(self, query: str, notebook: dict[str, Any]) -> None:
        self.path(query).write_text(json.dumps(notebook, indent=1))

    def solve(self, query: str, **instead: str) -> None:
        """Fill in every exercise; ``tensor_add="..."`` appends this text to that cell's solution."""
        solved = {cell.id: strip_markers(cell.source) for cell in read_notebook(self.author.module(query)).cells}
        notebook = self.read(query)
        for cell in notebook["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("solution") and cell["cell_type"] == "code":
                cell["source"] = solved[cell["id"]] + "\n" + instead.get(cell["id"].replace("-", "_"), "")
        self.write(query, notebook)

    def complete(self, *queries: str) -> None:
        for query in queries:
            self.solve(query)
            done = self.tito("module", "complete", query)
            assert done.returncode == 0, done.stdout + done.stderr

    def states(self) -> dict[str, str]:
        modules = json.loads(self.tito("module", "list", "--json").stdout)
        return {module["name"]: module["state"] for module in modules}

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the workspace that a student or tito writes, by path; the lock's file is no state."""
        files = (path for path in self.root.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture
def student(workspace: Path, author_tree: Path, run_tito: RunTito) -> Student:
    return Student(workspace, author_tree, run_tito)


@pytest.fixture(scope="session")
def _with_01(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first workspace in which module 01 was completed is kept."""
    return tmp_path_factory.mktemp("with-01") / "class"


@pytest.fixture
def second(student: Student, _with_01: Path) -> Student:
    """A student who has completed module 01."""
    if not _with_01.exists():
        student.complete("01")
        shutil.copytree(student.root, _with_01)
    shutil.copytree(_with_01, student.root, dirs_exist_ok=True)
    return student


def set_limit(student: Student, key: str, value: int) -> None:
    settings = student.root / "settings.ini"
    settings.write_text(re.sub(rf"{key} = \d+", f"{key} = {value}", settings.read_text()))


# the way through


def test_a_student_works_through_the_course(student: Student) -> None:
    assert student.states() == {"setup": "ready", "tensor": "locked", "autograd": "locked"}
    assert "Next: tito module start 01" in student.tito().stdout

    done = student.tito("module", "test", "01")
    assert done.returncode == 1
    assert "0 of 1 tests pass" in done.stdout
    assert "not written yet: environment_report" in done.stdout
    assert "the cell setup-report, line 17" in done.stdout and "tito module hint 01" in done.stdout

    student.solve("01")
    assert student.states()["setup"] == "started"
    assert "Next: tito module complete 01" in student.tito("module", "test", "setup").stdout
    assert not student.course.exported(student.course.module("01")).exists()

    done = student.tito("module", "complete", "01_setup")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from tinytorch.core.setup import environment_report" in done.stdout
    assert "Unlocked: 02_tensor" in done.stdout and "Next: tito module start 02" in done.stdout
    assert "solution" not in done.stdout
    assert student.states() == {"setup": "complete", "tensor": "ready", "autograd": "locked"}

    student.complete("02", "06")
    assert set(student.states().values()) == {"complete"}
    use = "from tinytorch.core.autograd import slope; print(round(slope(lambda x: x, 0.0), 3))"
    done = subprocess.run([sys.executable, "-c", use], cwd=student.root, capture_output=True, text=True)
    assert done.stdout == "1.0\n", done.stderr

    before = student.snapshot()  # completing again changes nothing; a new version does, and later modules stay
    assert "is as it was" in student.tito("module", "complete", "01").stdout
    assert student.snapshot() == before
    student.solve("01", setup_report="\nGREETING = 'hello'")
    assert student.tito("module", "complete", "01").returncode == 0
    assert "GREETING" in (student.root / "tinytorch/core/setup.py").read_text()
    assert set(student.states().values()) == {"complete"}


def test_package_file_edited_by_hand_must_be_completed_again(second: Student) -> None:
    exported = second.root / "tinytorch/core/setup.py"
    original = exported.read_bytes()
    exported.write_text("cheat = True\n")
    assert second.states() == {"setup": "changed", "tensor": "locked", "autograd": "locked"}
    refused = second.tito("module", "start", "02")
    assert refused.returncode == 1 and "tito module complete 01" in refused.stderr
    assert second.tito("module", "complete", "01").returncode == 0
    assert exported.read_bytes() == original


def test_what_jupyterlab_leaves_in_the_package_is_no_trouble(second: Student) -> None:
    copy = second.root / "tinytorch/core/.ipynb_checkpoints/setup-checkpoint.py"
    copy.parent.mkdir()
    copy.touch()
    second.complete("02")
    assert copy.is_file()


def test_the_first_failing_cell_is_named_with_its_cause(second: Student) -> None:
    second.solve("02", tensor_add="\n\ndef add(left, right):\n    return Tensor(left.data - right.data)")
    done = second.tito("module", "test", "02")
    assert "1 of 2 tests pass, 40 of 80 points" in done.stdout
    first = done.stdout[done.stdout.index("First to mend: test-tensor-add") :]
    assert "expected 3, got -1" in first and "add the arrays" in first
    assert "the cell test-tensor-add, line 2" in first and "close(add(" in first
    assert "mend the cell tensor-add" in first

    second.solve("02", tensor_class="\nthis is no Python")
    result = json.loads(second.tito("module", "test", "02", "--json").stdout)
    assert result["passed"] is False and result["points"] == 0
    for test in result["tests"]:  # the broken class is what stops both
        assert test["failure"]["cell"] == "tensor-class" and "SyntaxError" in test["failure"]["problem"]
        assert test["failure"]["line"] == "this is no Python" and test["failure"]["cause"]


# what students do to notebooks


def test_cells_deleted_edited_and_repeated_are_put_right(second: Student) -> None:
    second.solve("02", tensor_add="\n\ndef add(left, right):\n    return Tensor(left.data - right.data)")
    notebook = second.read("02")
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    cells["test-tensor-class"]["source"] = "print('passed, honestly')"
    cells["test-tensor-class"]["metadata"]["nbgrader"]["points"] = 1000
    notebook["cells"].remove(cells["test-tensor-add"])
    cells["tensor-add"]["source"] = cells["tensor-add"]["source"].removeprefix("#| export\n")
    notebook["cells"].insert(0, {**cells["tensor-class"], "id": "copied", "source": "1 / 0"})
    second.write("02", notebook)
    before = second.snapshot()

    done = second.tito("module", "test", "02")
    assert "1 of 2 tests pass, 40 of 80 points" in done.stdout
    assert "First to mend: test-tensor-add" in done.stdout
    assert "test-tensor-class was edited" in done.stdout and "test-tensor-add was deleted" in done.stdout
    assert "tensor-class stands more than once" in done.stdout
    assert second.snapshot() == before

    cells["tensor-add"]["source"] = cells["tensor-add"]["source"].replace(
        "left.data - right.data", "left.data + right.data"
    )
    second.write("02", notebook)
    assert second.tito("module", "complete", "02").returncode == 0
    assert "def add" in (second.root / "tinytorch/core/tensor.py").read_text()


EMPTY = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


@pytest.mark.parametrize(
    ("command", "content", "says"),
    [
        ("test", None, "missing"),
        ("hint", '{"cells": [', "not JSON"),
        ("complete", '{"answer": 42}', "not a notebook"),
        ("complete", EMPTY, "has none of the module's cells"),
        ("complete", "06", "it is that of 06_autograd"),
    ],
)
def test_notebook_that_cannot_be_judged(student: Student, command: str, content: str | None, says: str) -> None:
    path = student.path("01")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(student.path("06").read_bytes() if content == "06" else content.encode())
    before = student.snapshot()
    done = student.tito("module", command, "01")
    assert done.returncode == 1
    assert says in done.stderr and str(path) in done.stderr
    assert ("tito module start 01" if content is None else "tito module reset 01") in done.stderr
    assert student.snapshot() == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("while True: pass", "cell_seconds"),
        ("import os; os._exit(1)", "the kernel ended"),
        ("print('x' * 30_000_000)", "printed more than"),
    ],
)
def test_cell_that_goes_wrong_is_named(student: Student, line: str, says: str) -> None:
    if says == "cell_seconds":  # the others may take their time on a busy machine
        set_limit(student, "cell_seconds", 2)
    student.solve("01", setup_report=f"\n{line}")
    before = student.snapshot()
    done = student.tito("module", "complete", "01")
    assert done.returncode == 1
    assert says in done.stdout and "the cell setup-report" in done.stdout and "Nothing was exported" in done.stdout
    assert student.snapshot() == before


# all or nothing


def test_file_that_fails_the_modules_own_tests_is_not_exported(second: Student) -> None:
    narrow = "\n\ndef add(left, right):\n    return Tensor([a + b for a, b in zip(left.data.flat, right.data.flat)])"
    second.solve("02", tensor_add=narrow)
    assert second.tito("module", "test", "02").returncode == 0
    before = second.snapshot()
    done = second.tito("module", "complete", "02")
    assert done.returncode == 1
    assert "test_addition_broadcasts" in done.stderr and "tests/modules/test_02_tensor.py" in done.stderr
    assert second.snapshot() == before


@pytest.mark.parametrize(
    ("before", "solution", "says"),
    [
        ("def helper(a):\n    return a.data", "return Tensor(helper(left) + helper(right))", "'helper' is not defined"),
        ("", "raise NotImplementedError()", "NotImplementedError"),
    ],
)
def test_code_that_is_not_exported_is_the_likely_reason(second: Student, before: str, solution: str, says: str) -> None:
    """Helpers, or the whole solution, in cells that the student added."""
    second.solve("02")
    notebook = second.read("02")
    place = next(n for n, cell in enumerate(notebook["cells"]) if cell["id"] == "tensor-add")
    extra = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    right = notebook["cells"][place]["source"].replace("#| export\n", "")
    notebook["cells"][place]["source"] = f"#| export\ndef add(left, right):\n    {solution}\n"
    notebook["cells"].insert(place + 1, {**extra, "id": "after", "source": "" if before else right})
    notebook["cells"].insert(place, {**extra, "id": "before", "source": before})
    second.write("02", notebook)
    done = second.tito("module", "complete", "02")
    assert done.returncode == 1
    assert says in done.stderr and "with `#| export`" in done.stderr


def test_jupyters_own_commands_in_an_exercise(second: Student) -> None:
    second.solve("02", tensor_add="%matplotlib inline")
    done = second.tito("module", "complete", "02")
    assert done.returncode == 1
    assert "not valid Python" in done.stderr and "begin with % or !" in done.stderr


def test_ids_that_stand_twice_are_no_trouble(student: Student) -> None:
    student.solve("01")
    notebook = student.read("01")
    for cell in notebook["cells"]:
        cell["id"] = "same"
    student.write("01", notebook)
    done = student.tito("module", "test", "01")
    assert (done.returncode, done.stderr) == (0, "")


def start_and_wait(student: Student, marker: Path, temporary: Path, *args: str) -> subprocess.Popen[str]:
    """Start ``tito`` and return once the file ``marker`` is written."""
    temporary.mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": str(student.root), "MARKER": str(marker), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "tito", *args]
    process = subprocess.Popen(
        command,
        cwd=student.root,
        env=env,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup has it ignore, as it should
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if marker.exists() and marker.read_text():  # there is a moment between making a file and writing it
            return process
        time.sleep(0.05)
    raise AssertionError(process.communicate())


WAIT = "import os, pathlib, time; pathlib.Path(os.environ['MARKER']).write_text(str(os.getpid())); time.sleep(600)"


@pytest.mark.parametrize(
    ("request_to_end", "when"),
    [
        (signal.SIGINT, "in the notebook"),
        (signal.SIGINT, "in the module's tests"),
        (signal.SIGTERM, "in the notebook"),
        (signal.SIGHUP, "in the module's tests"),
    ],
)
def test_being_stopped_leaves_everything_as_it_was(
    student: Student, tmp_path: Path, request_to_end: signal.Signals, when: str
) -> None:
    if when == "in the notebook":
        student.solve("01", setup_report=f"\n{WAIT}")
    else:
        student.solve("01")
        (student.root / "tests/modules/test_01_setup.py").write_text(f"def test_slow():\n    {WAIT}\n")
    before = student.snapshot()
    marker, temporary = tmp_path / "marker", tmp_path / "temporary"
    process = start_and_wait(student, marker, temporary, "module", "complete", "01")
    process.send_signal(request_to_end)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Nothing was changed" in said and "Traceback" not in said
    assert student.snapshot() == before
    assert list(temporary.iterdir()) == []
    waiting = int(marker.read_text())
    psutil.wait_procs([psutil.Process(waiting)] if psutil.pid_exists(waiting) else [], 60)
    assert not psutil.pid_exists(waiting)


def test_second_complete_is_refused_and_a_killed_one_does_not_block(second: Student, tmp_path: Path) -> None:
    second.solve("01", setup_report=f"\n{WAIT}")
    process = start_and_wait(second, tmp_path / "marker", tmp_path / "temporary", "module", "complete", "01")
    refused = second.tito("module", "complete", "01")
    assert refused.returncode == 1
    assert f"tito module complete 01 (process {process.pid})" in refused.stderr
    process.kill()
    process.communicate()


def test_full_disk_changes_nothing(second: Student) -> None:
    second.solve("01", setup_report=f"\nBIG = '''{'x' * 400_000}'''")
    before = second.snapshot()
    command = [sys.executable, "-m", "tito", "module", "complete", "01"]
    done = subprocess.run(
        command,
        cwd=second.root,
        env=os.environ | {"PYTHONPATH": str(second.root)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cannot be read or written: File too large" in done.stderr and "free space" in done.stderr
    assert second.snapshot() == before


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_text("old")
    with pytest.raises(FileNotFoundError):
        write_together({first: "new", tmp_path / "nowhere" / "second": "new"})
    assert first.read_text() == "old" and list(tmp_path.iterdir()) == [first]
    write_together({first: "new", tmp_path / "second": b"bytes"})
    assert first.read_text() == "new" and (tmp_path / "second").read_bytes() == b"bytes"
    assert len(list(tmp_path.iterdir())) == 2


NO_DATE = '{"format": 1, "course": "tinytorch", "completed": {"01_setup": {"at": "now", "sha256": ""}}, "hints": {}}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 99}', '{"format": 1, "course": "another", "completed": {}, "hints": {}}', NO_DATE],
)
def test_unusable_record_is_refused_and_left_alone(student: Student, content: str) -> None:
    record = student.root / ".tito" / "progress.json"
    record.write_text(content)
    for command in ([], ["module", "list"], ["module", "complete", "01"]):
        done = student.tito(*command)
        assert done.returncode == 1
        assert "record of your progress" in done.stderr and f"mv {record}" in done.stderr
    assert record.read_text() == content


# calls that are refused


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["module", "test", "99"], 1, "there is no module '99'"),
        (["module", "complete", "tensr"], 1, "did you mean tensor?"),
        (["module", "test", "²"], 1, "there is no module '²'"),
        (["module", "start", "06"], 1, "needs 01_setup"),
        (["module", "test", "02"], 1, "tito module complete 01"),
        (["module", "hint", "02"], 1, "needs 01_setup"),
        (["module", "complete", "02"], 1, "needs 01_setup"),
        (["module", "complete"], 2, "Missing argument"),
        (["module", "destroy", "01"], 2, "No such command"),
    ],
)
def test_refusals(student: Student, args: list[str], status: int, says: str) -> None:
    before = student.snapshot()
    done = student.tito(*args)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert student.snapshot() == before


def test_a_copy_of_a_modules_folder_is_refused(student: Student) -> None:
    shutil.copytree(student.path("01").parent, student.root / "modules" / "01_copy")
    done = student.tito("module", "test", "01")
    assert done.returncode == 1
    assert "two modules have the number 01: 01_copy and 01_setup" in done.stderr and "move it out" in done.stderr


@pytest.mark.parametrize(
    ("line", "says"), [("cell_seconds = 60", "60² % in [limits] is not"), ("course_id = tinytorch", "")]
)
def test_odd_signs_in_the_settings(student: Student, line: str, says: str) -> None:
    settings = student.root / "settings.ini"
    settings.write_text(settings.read_text().replace(line, f"{line}² %"))
    done = student.tito("module", "hint", "01")  # which reads the limits and records the course
    assert done.returncode == bool(says), done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("command", ["module list", "export"])
def test_folder_that_was_deleted(student: Student, command: str) -> None:
    gone = student.root / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "{sys.executable}" -m tito {command}'
    done = subprocess.run(
        ["sh", "-c", script], env=os.environ | {"PYTHONPATH": str(student.root)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "the current folder has been deleted" in done.stderr and "Traceback" not in done.stderr


def test_folder_that_is_not_a_course(student: Student, tmp_path: Path) -> None:
    for args in ([], ["module", "list"], ["module", "complete", "01"], ["doctor"]):
        done = student.run_tito(student.root, *args, cwd=tmp_path)
        assert done.returncode == 1
        assert "not a TinyTorch course" in done.stderr and "cd into" in done.stderr


# start and reset


def test_start_without_display_says_what_to_type(student: Student) -> None:
    student.path("01").unlink()
    done = student.tito("module", "start", "01")
    assert done.returncode == 0
    assert "-m jupyterlab --no-browser --LabApp.default_url=/lab/tree/modules/01_setup/setup.ipynb" in done.stdout
    assert student.path("01").read_bytes() == student.course.module("01").pristine.read_bytes()


def test_what_to_type_can_be_typed_where_paths_have_spaces(student: Student) -> None:
    root = student.root.rename(student.root.with_name("my class"))
    done = student.run_tito(root, "module", "start", "01", **NO_DISPLAY)
    words = shlex.split(next(line for line in done.stdout.splitlines() if line.startswith("  cd ")))
    assert words[:3] == ["cd", str(root), "&&"]


# where the words go


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters_of_a_message(student: Student, encoding: str) -> None:
    student.solve("01", setup_report='\nraise ValueError("→ ∂")')
    done = student.tito("module", "test", "01", PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    assert "ValueError: ? ?" in done.stdout


@pytest.mark.parametrize("call", ["module list | true", "module list >&-", "--help > /dev/full"])
def test_words_that_nobody_takes(student: Student, call: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(student.root)}
    command = ["sh", "-c", f'"{sys.executable}" -m tito {call}']
    done = subprocess.run(command, cwd=student.root, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert ("No space left" in done.stderr) == call.endswith("/dev/full")


def test_start_opens_jupyterlab(student: Student) -> None:
    (student.root / "jupyterlab.py").write_text("import os, sys; print('LAB', sys.argv[1:], os.getcwd())")
    student.solve("01")
    before = student.snapshot()
    done = student.run_tito(student.root, "module", "start", "01", cwd=student.root / "modules", DISPLAY=":0")
    assert f"LAB ['modules/01_setup/setup.ipynb'] {student.root}" in done.stdout
    assert student.snapshot() == before


def test_reset_keeps_every_old_notebook(student: Student) -> None:
    path, fresh = student.path("01"), student.path("01").read_bytes()
    works = ["first", "second", "third"]
    for work in works:
        path.write_text(work)
        done = student.tito("module", "reset", "01", "--yes")
        assert done.returncode == 0 and "Yours is kept" in done.stdout
        assert path.read_bytes() == fresh
    backups = sorted(path.parent.glob("setup.backup-*.ipynb"))
    assert sorted(backup.read_text() for backup in backups) == sorted(works)
    assert all(re.fullmatch(r"setup\.backup-\d{8}-\d{6}(-\d)?\.ipynb", backup.name) for backup in backups)
    assert "nothing to reset" in student.tito("module", "reset", "01", "--yes").stdout


def test_reset_asks_first(student: Student) -> None:
    student.path("01").write_text("work")
    done = student.run_tito(student.root, "module", "reset", "01")  # no answer: the input is empty
    assert done.returncode != 0 and student.path("01").read_text() == "work"


def test_reset_keeps_what_was_exported(second: Student) -> None:
    done = second.tito("module", "reset", "01", "--yes")
    assert "tinytorch/core/setup.py, stays" in done.stdout
    assert second.states()["setup"] == "complete"


# in the author's tree


def test_author_tests_and_completes_the_sources(author_tree: Path, run_tito: RunTito) -> None:
    refused = run_tito(author_tree, "module", "test", "02")
    assert refused.returncode == 1 and "tito export 01" in refused.stderr
    assert run_tito(author_tree, "module", "complete", "01").returncode == 0
    done = run_tito(author_tree, "module", "complete", "02")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exported to tinytorch/core/tensor.py" in done.stdout
    assert run_tito(author_tree, "export", "--check", "01", "02").returncode == 0
    assert "2 of 3 modules exported" in run_tito(author_tree).stdout
    assert "tensor_dev.py" in run_tito(author_tree, "module", "start", "02").stdout
    refused = run_tito(author_tree, "module", "reset", "02", "--yes")
    assert refused.returncode == 1 and "the source is the only copy" in refused.stderr

    source = author_tree / "modules/02_tensor/tensor_dev.py"
    source.write_text(source.read_text().replace("left.data + right.data", "left.data - right.data"))
    done = run_tito(author_tree, "module", "test", "02")
    assert done.returncode == 1 and "First to mend: test-tensor-add" in done.stdout
    assert "return Tensor(... + ...)" in run_tito(author_tree, "module", "hint", "02").stdout


# how it feels


def test_heavy_libraries_wait_until_they_are_needed(workspace: Path) -> None:
    heavy = {"jupytext", "nbclient", "nbdev", "nbformat", "nbgrader", "numpy", "rich", "yaml"}
    code = (
        "import sys; from tito.cli.main import cli\n"
        "for args in (['--help'], ['module', '--help'], ['module', 'list']):\n"
        "    cli(args, standalone_mode=False)\n"
        f"    print(args[0], sorted({heavy!r} & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": str(workspace)}
    done = subprocess.run([sys.executable, "-c", code], cwd=workspace, env=env, capture_output=True, text=True)
    loaded = [line for line in done.stdout.splitlines() if line.endswith("]")]
    assert loaded == ["--help []", "module []", "module ['rich', 'yaml']"], done.stdout + done.stderr


@pytest.mark.parametrize("command", ["list", "start", "test", "hint", "complete", "solution", "reset"])
def test_every_command_has_an_example(workspace: Path, run_tito: RunTito, command: str) -> None:
    shown = run_tito(workspace, "module", command, "--help").stdout
    assert f"Example: tito module {command}" in shown
