"""A notebook whose cells had lost nbgrader's metadata, and nothing else, was refused as another assignment's."""

from copy import deepcopy

import nbformat.v4 as nbv4

from tito.grading.submission import mend


def test_cells_are_known_by_their_ids():
    mark = {"grade_id": "answer", "grade": False, "solution": True, "locked": False, "schema_version": 3, "task": False}
    released = nbv4.new_notebook(cells=[nbv4.new_code_cell("x = 0", id="answer", metadata={"nbgrader": mark})])
    submitted = deepcopy(released)
    submitted.cells[0].metadata, submitted.cells[0].source = {}, "x = 1"
    mended, repairs = mend(submitted, released)
    assert mended.cells[0].source == "x = 1" and mended.cells[0].metadata.nbgrader.grade_id == "answer"
    assert len(mended.cells) == 1 and "lost its metadata" in repairs[0]
