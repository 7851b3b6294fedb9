"""The door turned every float64 result of a float32 tensor into float32, and with it the one of astype(np.float64)."""

import numpy as np

from tinytorch.core.tensor import Tensor


def test_astype_float64_gives_float64():
    wide = Tensor([1.0, 2.0]).astype(np.float64)
    assert wide.dtype == np.float64
    assert (wide * 0.1).dtype == np.float64, "a float64 tensor stays float64 when it meets a number"


def test_the_door_still_keeps_float64_out_elsewhere():
    assert (Tensor([1, 2]) / 3).dtype == np.float32
    assert (Tensor([1.0]) * np.array([0.5])).dtype == np.float32
