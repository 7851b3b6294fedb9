"""``close`` took a list of tensors for numbers in a kernel, where NumPy can ask them, but not where it is graded."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import Tensor
from tito.testing import close


@pytest.mark.parametrize("given", [[Tensor(2.0)], [[1.0], [Tensor(2.0)]], (1.0, Tensor(2.0))])
def test_a_tensor_in_a_list_is_no_number(given: object) -> None:
    with pytest.raises(AssertionError, match=r"losses: expected numbers, got a (list|tuple) with Tensor"):
        close(given, [2.0], what="losses")


def test_lists_of_plain_numbers_are() -> None:
    close([[1, 2.0], (True, np.float32(4))], np.array([[1, 2], [1, 4]]))
    close([np.array([1.0, 2.0]), [3, 4]], [[1, 2], [3, 4]])
