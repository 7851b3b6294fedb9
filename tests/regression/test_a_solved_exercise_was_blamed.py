"""An exercise called an earlier, solved one wrongly: the student was told to mend, and hinted at, the earlier one."""

from pathlib import Path

import nbformat.v4 as nbv4
import pytest

from tito.course import Course
from tito.judge import Failure, judge
from tito.outcome import CellResult, Place, RunResult

COURSE = Course(Path(__file__).parents[2])
SOURCES = {
    "first": "def first(x):\n    return x.size",
    "test-first": "assert first(array) == 3",
    "second": "def second(x):\n    return first(None)",
    "test-second": "assert second(array) == 3",
}


def blamed(monkeypatch: pytest.MonkeyPatch, first_passes: bool) -> Failure:
    """What is said of test-second, whose error comes from the cell ``first``."""
    cells = []
    for name, source in SOURCES.items():
        is_test = name.startswith("test-")
        mark = {"grade_id": name, "grade": is_test, "solution": not is_test}
        cells.append(nbv4.new_code_cell(source, id=name, metadata={"nbgrader": mark}))
    notebook = nbv4.new_notebook(cells=cells)
    error = {"status": "error", "ename": "AttributeError", "line": 1, "raised_at": Place("first", 2)}
    results = [
        CellResult("first", "first", False, 0, "ok"),
        CellResult("test-first", "test-first", True, 5, **({"status": "ok"} if first_passes else error)),
        CellResult("second", "second", False, 0, "ok"),
        CellResult("test-second", "test-second", True, 5, **error),
    ]
    monkeypatch.setattr("tito.runner.run_notebook", lambda *_, **__: RunResult(tuple(results), notebook, 0.0))
    return judge(COURSE, COURSE.modules[0], notebook, []).failures[-1]


def test_the_exercise_that_the_test_is_for_is_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = blamed(monkeypatch, first_passes=True)
    assert (failure.exercise, failure.function) == ("second", "second")
    assert (failure.cell, failure.line.strip()) == ("first", "return x.size"), "where it was raised is still said"


def test_an_earlier_exercise_that_fails_its_own_test_is_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = blamed(monkeypatch, first_passes=False)
    assert (failure.exercise, failure.function) == ("first", "first")
