"""An error whose text held every id and every place satisfied any test of what it mentions."""

import pytest

from tito.testing import raises


def test_a_message_that_says_everything_says_nothing():
    ids, places = range(100), [(row, column) for row in range(9) for column in range(9)]
    everything = " ".join([*(f"id {n}" for n in ids), *(f"[{row}, {column}]" for row, column in places)])
    with pytest.raises(AssertionError, match="in a few"), raises(IndexError, "id 7", "[1, 0]"):
        raise IndexError(everything)


def test_a_message_of_one_line_is_fine():
    with raises(IndexError, "id 7", "[1, 0]"):
        raise IndexError("id 7 at [1, 0] is no row of the table; ids go from 0 to 4")
