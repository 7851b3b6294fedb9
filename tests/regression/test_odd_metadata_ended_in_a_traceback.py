"""nbgrader metadata that is no dictionary, or a grade_id that is no text, ended tito with a traceback."""

import nbformat.v4 as nbv4
import pytest

from tito.repair import repair

TEST = {"grade": True, "solution": False, "locked": True, "grade_id": "test-it", "points": 1}


@pytest.mark.parametrize("odd", ["text", None, [1], {"grade_id": [1]}, {"grade_id": {"a": 1}}, {"grade_id": 5}])
def test_a_cell_with_odd_metadata_is_a_cell_of_the_students_own(odd: object) -> None:
    released = nbv4.new_notebook(cells=[nbv4.new_code_cell("assert True", metadata={"nbgrader": TEST}, id="test-it")])
    own = nbv4.new_notebook(cells=[nbv4.new_code_cell("x = 1", metadata={"nbgrader": odd}), *released.cells])
    repaired, notes = repair(own, released)
    assert [cell.source for cell in repaired.cells] == ["x = 1", "assert True"]
    assert notes == []
