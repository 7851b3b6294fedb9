"""Running notebooks in real kernels: what they may import, their limits, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat.v4 as nbv4
import psutil
import pytest
from nbformat import NotebookNode

from tito.course import Course
from tito.outcome import CellResult, RunResult
from tito.runner import run_notebook

TEST = {"grade": True, "solution": False, "locked": True, "points": 5, "schema_version": 3}


def notebook_of(*sources: str) -> NotebookNode:
    """A notebook whose code cells are all tests, named cell-0, cell-1, ..."""
    cells = [
        nbv4.new_code_cell(source, id=f"cell-{n}", metadata={"nbgrader": {**TEST, "grade_id": f"cell-{n}"}})
        for n, source in enumerate(sources)
    ]
    return nbv4.new_notebook(cells=cells)


@pytest.fixture
def course(author_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    """The tiny course with small limits, all its modules exported by hand, and a temporary folder of its own."""
    settings = author_tree / "settings.ini"
    text = re.sub(r"cell_seconds = \d+", "cell_seconds = 2", settings.read_text())
    text = re.sub(r"cell_output_bytes = \d+", "cell_output_bytes = 5000", text)
    settings.write_text(re.sub(r"notebook_output_bytes = \d+", "notebook_output_bytes = 12000", text))
    for name in ("setup", "tensor", "autograd"):
        (author_tree / "tinytorch" / "core" / f"{name}.py").write_text("__all__ = []\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return Course(author_tree)


def run(course: Course, *sources: str, first_only: bool = False) -> RunResult:
    before = set(psutil.Process().children(recursive=True))
    result = run_notebook(course, course.module("02"), notebook_of(*sources), stop_at_first_failure=first_only)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    assert set(psutil.Process().children(recursive=True)) <= before
    return result


def statuses(result: RunResult) -> list[str]:
    return [cell.status for cell in result.cells]


def printed(cell: CellResult) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_only_the_modules_before_can_be_imported(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(course.root))
    result = run(
        course, "import tinytorch.core.setup", "import tinytorch.core.tensor", "import tinytorch.core.autograd"
    )
    assert [cell.ename for cell in result.cells] == ["", "ModuleNotFoundError", "ModuleNotFoundError"]


def test_kernel_is_of_this_python_whatever_is_installed(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "other", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    result = run(course, "import os, sys; print(sys.executable, os.listdir())")
    assert printed(result.cells[0]) == f"{sys.executable} []\n"


def test_failing_line_is_found_in_the_test_and_in_the_exercise(course: Course) -> None:
    exercise = "def f(x):\n    y = x\n    return y / 0"
    test = "def test_f():\n    f(1)\n\ntest_f()"
    result = run(course, exercise, test, "x ==", "raise SystemExit(3)")
    assert statuses(result) == ["ok", "error", "error", "error"]
    failed = result.cells[1]
    assert (failed.ename, failed.evalue, failed.line) == ("ZeroDivisionError", "division by zero", 2)
    assert failed.raised_at is not None and (failed.raised_at.cell_id, failed.raised_at.line) == ("cell-0", 3)
    assert (result.cells[2].ename, result.cells[2].line) == ("SyntaxError", 1)


def test_endless_cell_is_interrupted_and_the_next_runs(course: Course) -> None:
    result = run(course, "print('before')\nwhile True:\n    pass", "print('after')")
    assert statuses(result) == ["timeout", "ok"]
    assert "cell_seconds" in result.cells[0].evalue and result.cells[0].line in (2, 3)
    assert printed(result.cells[0]) == "before\n" and printed(result.cells[1]) == "after\n"
    assert result.notebook.cells[0].outputs[-1].ename == "TimeLimit"


def test_cell_that_cannot_be_interrupted_is_killed(course: Course) -> None:
    stubborn = "import contextlib\nwhile True:\n    with contextlib.suppress(BaseException):\n        while True: pass"
    result = run(course, stubborn, "1")
    assert statuses(result) == ["timeout", "not run"]
    assert result.seconds < 60
    assert result.notebook.cells[1].outputs[-1].ename == "NotRun"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
        ("import os\nos.kill(os.getpid(), 9)", "memory"),
        ("exit()", "exit()"),
    ],
)
def test_kernel_that_dies_costs_its_cell_and_those_after(course: Course, source: str, says: str) -> None:
    result = run(course, "print(1)", source, "print(2)")
    assert statuses(result) == ["ok", "died", "not run"]
    assert says in result.cells[1].evalue
    assert "cell-1" in result.cells[2].evalue


def test_processes_of_a_cell_end_with_the_run(course: Course) -> None:
    start = "import os, subprocess\nprint(subprocess.Popen(['sleep', '60']).pid)"
    result = run(course, start, "os._exit(0)")
    pid = int(printed(result.cells[0]))
    deadline = time.monotonic() + 60  # the system takes a moment to bury it
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("source", ["print('x' * 30_000_000)", "while True:\n    print('x' * 1000)"])
def test_flood_of_output_is_cut_and_stopped(course: Course, source: str) -> None:
    result = run(course, source, "print('after')")
    assert statuses(result) == ["output limit", "ok"]
    assert "cell_output_bytes" in result.cells[0].evalue
    assert len(json.dumps(result.notebook)) < 20_000


def test_output_over_the_limit_is_cut_but_errors_stay(course: Course) -> None:
    much = "print('y' * 4500)"
    result = run(course, "print('x' * 6000)", much, much, "raise ValueError('z' * 50_000)", "1 / 0")
    assert statuses(result) == ["ok", "ok", "ok", "error", "error"]
    assert "output cut here" in printed(result.cells[0]) and "output cut here" not in printed(result.cells[1])
    assert "output cut here" in printed(result.cells[2])  # the notebook's limit
    assert [cell.outputs[-1].ename for cell in result.cells[3:]] == ["ValueError", "ZeroDivisionError"]
    assert len(json.dumps(result.notebook)) < 40_000


def test_long_line_is_handled_in_linear_time(course: Course) -> None:
    settings = course.root / "settings.ini"
    settings.write_text(settings.read_text().replace("_output_bytes = 5000", "_output_bytes = 200000"))
    result = run(
        course, "for n in range(3):\n    print('\\r', n, end='', flush=True)\nprint('.')\nprint('x' * 100_000)"
    )
    assert statuses(result) == ["ok"] and result.seconds < 60
    assert printed(result.cells[0])[:8] == " 2.\nxxxx"


def test_notebook_limit_ends_the_run(course: Course) -> None:
    settings = course.root / "settings.ini"
    text = re.sub(r"notebook_seconds = \d+", "notebook_seconds = 3", settings.read_text())
    settings.write_text(text.replace("cell_seconds = 2", "cell_seconds = 60"))
    result = run(course, *["import time; time.sleep(1.5)"] * 4)
    assert statuses(result) in (["ok", "timeout", "not run", "not run"], ["timeout", *["not run"] * 3])
    assert "notebook_seconds" in result.cells[1].evalue


def test_stop_at_first_failure_and_stale_outputs(course: Course) -> None:
    notebook = notebook_of("assert 1 + 1 == 3", "print('from an earlier run')")
    notebook.cells[1].outputs = [nbv4.new_output("stream", text="from an earlier run\n")]
    seen: list[CellResult] = []
    result = run_notebook(course, course.module("02"), notebook, stop_at_first_failure=True, on_cell=seen.append)
    assert statuses(result) == ["error", "not run"]
    assert printed(result.cells[1]) == ""
    assert tuple(seen) == result.cells
    assert notebook.cells[1].outputs[0].text == "from an earlier run\n"


def test_expected_errors_are_no_failures_except_in_a_test(course: Course) -> None:
    notebook = notebook_of("1 / 0", "1 / 0", "input()")
    del notebook.cells[0].metadata["nbgrader"]
    for cell in notebook.cells[:2]:
        cell.metadata["tags"] = ["raises-exception"]
    result = run_notebook(course, course.module("02"), notebook)
    assert statuses(result) == ["ok", "error", "error"]
    assert result.cells[2].ename == "StdinNotImplementedError"


def test_runs_where_an_event_loop_runs(course: Course) -> None:
    async def inside() -> RunResult:
        return run(course, "print(1)")

    assert statuses(asyncio.run(inside())) == ["ok"]
