"""A Linear behind Flatten failed with the shapes of a product, which named neither the layer nor its in_features."""

import re

import numpy as np
import pytest

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.spatial import Conv2d, Flatten, MaxPool2d, flatten
from tinytorch.core.tensor import Tensor


def body() -> list[Conv2d | ReLU | MaxPool2d | Flatten]:
    return [Conv2d(3, 16, 5), ReLU(), MaxPool2d(2), Conv2d(16, 32, 3, padding=1), MaxPool2d(2), Flatten()]


@pytest.mark.parametrize("batch", [1, 6])
def test_the_message_names_the_layer_and_the_features_that_came(batch: int) -> None:
    pictures = Tensor(np.zeros((batch, 3, 32, 32)))
    with pytest.raises(ValueError, match=r"Linear\(in_features=2048, .*expected 2048 features") as caught:
        Sequential(*body(), Linear(2048, 10))(pictures)
    shape = re.search(r"got shape \((\d+), (\d+)\)", str(caught.value))
    assert shape is not None and int(shape[1]) == batch
    in_features = int(shape[2])
    assert in_features == 32 * 7 * 7
    assert Sequential(*body(), Linear(in_features, 10))(pictures).shape == (batch, 10)


def test_flatten_leaves_the_batch_alone() -> None:
    x = Tensor(np.arange(48.0).reshape(2, 3, 2, 4))
    assert Flatten()(x).shape == (2, 24)
    np.testing.assert_array_equal(Flatten()(x).data[1], x.data[1].ravel())
    assert flatten(Tensor(np.zeros((0, 3, 2, 4))), 1).shape == (0, 24), "an empty batch has features all the same"
