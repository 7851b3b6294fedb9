"""With PYTHONOPTIMIZE set, Python left out the assertions of test cells, and every test passed."""

from pathlib import Path

import nbformat.v4 as nbv4
import pytest

from tito.course import Course
from tito.runner import run_notebook


def test_assertions_count_whatever_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    course = Course(Path(__file__).parents[2])
    cell = nbv4.new_code_cell("assert False")
    result = run_notebook(course, course.modules[0], nbv4.new_notebook(cells=[cell]))
    assert result.cells[0].ename == "AssertionError"
