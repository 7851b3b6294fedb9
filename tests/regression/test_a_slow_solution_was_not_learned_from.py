"""Where the solution's own cells ran into the limit, as on a busy machine, tests believed a student's objects."""

from dataclasses import replace
from pathlib import Path

import nbformat.v4 as nbv4

from tito.course import Course
from tito.grading.isolated.run import Isolated

SOLUTION = "import numpy as np, time\ndef ones(n):\n    time.sleep(1.5)\n    return np.ones(n)"
LIAR = """class Fake:
    def __sub__(self, other): return self
    def __abs__(self): return self
    def max(self): return 0.0
def ones(n): return Fake()"""
TEST = {"grade_id": "test", "grade": True, "solution": False, "locked": True, "points": 1}


def notebook(student):
    test = nbv4.new_code_cell("assert abs(ones(3) - 1).max() < 1e-6", id="test", metadata={"nbgrader": TEST})
    return nbv4.new_notebook(cells=[nbv4.new_code_cell(f"#| export\n{student}", id="ones"), test])


def test_a_solution_may_take_longer_than_a_cell():
    course = Course(Path(__file__).parents[2])
    limits = course.limits
    with Isolated(course, course.module("2"), notebook(SOLUTION)) as isolated:
        course.__dict__["limits"] = replace(limits, cell_seconds=1)
        isolated.run(notebook(SOLUTION))
        course.__dict__["limits"] = limits
        assert isolated.run(notebook(LIAR)).cells[-1].ename == "DistrustError"
