"""zeros(2.7) made a tensor of shape (2,): lengths were cut to whole numbers without a word."""

import pytest

from tinytorch.core.tensor import Tensor, randn, zeros


@pytest.mark.parametrize(
    "make", [lambda: zeros(2.7), lambda: randn(2.0, 3), lambda: Tensor([1.0, 2.0]).reshape(1.0, 2)]
)
def test_a_length_that_is_no_whole_number_is_refused(make):
    with pytest.raises(TypeError):
        make()
