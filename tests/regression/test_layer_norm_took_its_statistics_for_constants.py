"""LayerNorm's rule took mean and deviation for constants: a gradient that trained, and pointed elsewhere."""

import numpy as np
import pytest

from tinytorch.core.autograd import gradcheck
from tinytorch.core.tensor import Tensor
from tinytorch.core.transformers import layer_norm


@pytest.mark.parametrize(("shape", "last"), [((3, 5), (5,)), ((2, 3, 4), (3, 4))])
def test_the_gradient_neither_shifts_nor_stretches_what_is_normalised(shape, last):
    numbers = np.random.default_rng(0)
    x, g = numbers.normal(2, 3, size=(2, *shape))
    leaf = Tensor(x, np.float64, requires_grad=True)
    layer_norm(leaf, last, numbers.normal(size=last), eps=0.0).backward(g)
    axes = tuple(range(-len(last), 0))
    slopes, centred = leaf.grad.data, x - x.mean(axes, keepdims=True)
    np.testing.assert_allclose(slopes.sum(axes), 0, atol=1e-12)
    np.testing.assert_allclose((slopes * centred).sum(axes), 0, atol=1e-12)
    assert np.abs(slopes).max() > 0.01


def test_the_gradient_is_that_of_finite_differences():
    numbers = np.random.default_rng(1)
    inputs = numbers.normal(2, 3, size=(3, 5)), numbers.normal(size=5), numbers.normal(size=5)
    assert gradcheck(lambda x, weight, bias: layer_norm(x, 5, weight, bias), inputs, atol=1e-8, rtol=1e-6)
