"""Jupyter's tag "raises-exception" on a test cell made `tito module test` count the test as passed."""

from pathlib import Path

import nbformat.v4 as nbv4

from tito.course import Course
from tito.runner import run_notebook

ROOT = Path(__file__).parents[2]
TAG = {"tags": ["raises-exception"]}
TEST = {"nbgrader": {"grade": True, "solution": False, "locked": True, "grade_id": "test-it", "points": 1}}


def test_a_tagged_test_that_fails_is_a_failure():
    cells = [
        nbv4.new_code_cell("1 / 0", metadata=TAG, id="shown"),
        nbv4.new_code_cell("assert False", metadata=TAG | TEST, id="test-it"),
    ]
    course = Course(ROOT)
    result = run_notebook(course, course.modules[0], nbv4.new_notebook(cells=cells))
    assert [cell.status for cell in result.cells] == ["ok", "error"]
