"""split(x, [3, -1, 3]) added up to the length of the axis, and gave pieces that overlap."""

import numpy as np
import pytest

from tinytorch.core.tensor import Tensor


@pytest.mark.parametrize("lengths", [[3, -1, 3], [-1, 6], [6, -1]])
def test_a_negative_length_is_refused(lengths):
    with pytest.raises(ValueError, match="split"):
        Tensor(np.arange(5.0)).split(lengths)


def test_lengths_of_zero_are_fine():
    pieces = Tensor(np.arange(5.0)).split([0, 2, 0, 3])
    assert [piece.shape for piece in pieces] == [(0,), (2,), (0,), (3,)]
