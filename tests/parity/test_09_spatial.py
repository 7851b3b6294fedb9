"""Module 09, spatial: values, gradients, running statistics and corner cases equal PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinytorch.core import spatial
from tinytorch.core.tensor import Tensor

TOLERANCE = {np.float32: {"rtol": 2e-4, "atol": 2e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-11}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def agree(ours: Callable[..., Any], theirs: Callable[..., Any], arrays: list[np.ndarray], dtype: Any) -> None:
    """Both functions of ``arrays`` are equal, and so are the gradients of a weighted sum by every array."""
    mine = [Tensor(array, dtype, requires_grad=True) for array in arrays]
    other = [torch.tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    got, want = ours(*mine), theirs(*other)
    assert (got.shape, got.dtype) == (tuple(want.shape), dtype)
    np.testing.assert_allclose(got.data, want.detach().numpy(), **TOLERANCE[dtype])
    upstream = np.random.default_rng(9).normal(size=got.shape).astype(dtype)
    got.backward(upstream)
    want.backward(torch.tensor(upstream))
    for x, u in zip(mine, other, strict=True):
        assert x.grad is not None and u.grad is not None and x.grad.dtype == dtype
        np.testing.assert_allclose(x.grad.data, u.grad.numpy(), **TOLERANCE[dtype])


CONVOLUTIONS = [
    {},
    {"padding": 1},
    {"stride": 2},
    {"stride": 2, "padding": 1},
    {"stride": (3, 1), "padding": (0, 2)},
    {"stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
    {"dilation": 2, "padding": 2},
    {"dilation": (1, 3), "stride": 3, "padding": 4},
    {"groups": 2, "padding": 1},
    {"groups": 4},
    {"groups": 4, "stride": 2, "padding": (1, 2), "dilation": (2, 1)},
    {"padding": "same"},
    {"padding": "valid", "stride": 2},
    {"padding": "same", "dilation": (1, 2), "groups": 2},
    {"padding": 5},
]


@DTYPES
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3), (4, 2)], ids=str)
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv2d(options: dict[str, Any], kernel: tuple[int, int], dtype: Any) -> None:
    x, weight, bias = drawn(3, 4, 9, 11), drawn(8, 4 // options.get("groups", 1), *kernel), drawn(8)
    agree(
        lambda *tensors: spatial.conv2d(*tensors, **options),
        lambda *tensors: functional.conv2d(*tensors, **options),
        [x, weight, bias],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 5, 4), (70, 2, 8, 8), (2, 3, 40, 65)], ids=str)
def test_conv2d_of_any_shape_without_a_bias(shape: tuple[int, ...], dtype: Any) -> None:
    weight = drawn(5, shape[1], 3, 3)
    agree(
        lambda x, w: spatial.conv2d(x, w, padding=1),
        lambda x, w: functional.conv2d(x, w, padding=1),
        [drawn(*shape), weight],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("values", ["different", "tied"])
@pytest.mark.parametrize("size", [(7, 6), (8, 8), (5, 9)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0)},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
        {"kernel_size": (3, 2), "stride": 2, "padding": 1, "dilation": (1, 3)},
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_max_pool2d(options: dict[str, Any], size: tuple[int, int], values: str, dtype: Any) -> None:
    x = drawn(3, 2, *size)
    x = np.round(x) if values == "tied" else x
    agree(lambda t: spatial.max_pool2d(t, **options), lambda t: functional.max_pool2d(t, **options), [x], dtype)


@DTYPES
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("size", [(7, 6), (8, 8)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0)},
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_avg_pool2d(options: dict[str, Any], size: tuple[int, int], count_include_pad: bool, dtype: Any) -> None:
    agree(
        lambda t: spatial.avg_pool2d(t, **options, count_include_pad=count_include_pad),
        lambda t: functional.avg_pool2d(t, **options, count_include_pad=count_include_pad),
        [drawn(2, 3, *size)],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("output_size", [1, 2, 3, (3, 5), (None, 2), (7, None), 9], ids=str)
def test_adaptive_avg_pool2d(output_size: Any, dtype: Any) -> None:
    agree(
        lambda t: spatial.adaptive_avg_pool2d(t, output_size),
        lambda t: functional.adaptive_avg_pool2d(t, output_size),
        [drawn(2, 3, 7, 10)],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (2, 3, 1, 1), (70, 3), (5, 3, 7)], ids=str)
def test_batch_norm(shape: tuple[int, ...], training: bool, dtype: Any) -> None:
    mean, variance = drawn(3).astype(dtype), np.array([0.5, 1, 2], dtype)
    theirs = torch.tensor(mean), torch.tensor(variance)
    agree(
        lambda x, w, b: spatial.batch_norm(x, mean, variance, w, b, training, 0.3, 1e-3),
        lambda x, w, b: functional.batch_norm(x, *theirs, w, b, training, 0.3, 1e-3),
        [drawn(*shape), drawn(3, seed=1), drawn(3, seed=2)],
        dtype,
    )
    np.testing.assert_allclose(mean, theirs[0].numpy(), **TOLERANCE[dtype])
    np.testing.assert_allclose(variance, theirs[1].numpy(), **TOLERANCE[dtype])


def test_batch_norm_of_numbers_far_from_zero() -> None:
    x = (1e4 + drawn(8, 3, 40, 50)).astype(np.float32)
    got = spatial.batch_norm(Tensor(x), None, None, training=True).data
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(
        exact.var(axis=(0, 2, 3), keepdims=True) + 1e-5
    )
    assert np.abs(got - exact).max() < 5e-3
    theirs = functional.batch_norm(torch.tensor(x), None, None, training=True).numpy()
    assert np.abs(got - exact).max() < 3 * np.abs(theirs - exact).max() + 1e-3


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.5, "eps": 0.1}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
def test_batch_norm_layers_stay_together(options: dict[str, Any]) -> None:
    mine, other = spatial.BatchNorm2d(3, **options), torch.nn.BatchNorm2d(3, **options)
    assert list(mine.state_dict()) == list(other.state_dict())
    for step, training in enumerate([True, True, False, True, False]):
        mine.train(training)
        other.train(training)
        x = drawn(4, 3, 5, 2, seed=step) * (step + 1) + step
        got, want = mine(Tensor(x)), other(torch.tensor(x.astype(np.float32)))
        np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, array in mine.state_dict().items():
        np.testing.assert_allclose(array, other.state_dict()[name].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv2d", ((3, 16, 3), {})),
        ("Conv2d", ((4, 8, (3, 5)), {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": 4, "bias": False})),
        ("Conv2d", ((3, 16, 3), {"padding": "same"})),
        ("AvgPool2d", ((2,), {})),
        ("AvgPool2d", ((3,), {"stride": 2, "padding": 1})),
        ("AdaptiveAvgPool2d", ((1,), {})),
        ("AdaptiveAvgPool2d", (((3, None),), {})),
        ("BatchNorm2d", ((16,), {"momentum": 0.2})),
        ("Flatten", ((), {})),
    ],
    ids=str,
)
def test_modules_look_alike(name: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    ours, theirs = (getattr(place, name)(*arguments[0], **arguments[1]) for place in (spatial, torch.nn))
    shown = repr(theirs).replace("affine=True, bias=True", "affine=True")  # a later PyTorch's, and always true here
    assert repr(ours) == shown and list(ours.state_dict()) == list(theirs.state_dict())
    for key, array in ours.state_dict().items():
        assert array.shape == tuple(theirs.state_dict()[key].shape)


def test_max_pool_looks_alike_but_for_what_is_not_there() -> None:
    ours, theirs = repr(spatial.MaxPool2d(3, 2, padding=1)), repr(torch.nn.MaxPool2d(3, 2, padding=1))
    assert ours == theirs.replace(", ceil_mode=False", "")


def test_weights_begin_alike() -> None:
    ours, theirs = spatial.Conv2d(6, 300, 5, groups=2), torch.nn.Conv2d(6, 300, 5, groups=2)
    for name, array in ours.state_dict().items():
        reference = theirs.state_dict()[name].numpy()
        assert (
            abs(array.std() / reference.std() - 1) < 0.15
            and abs(np.abs(array).max() / np.abs(reference).max() - 1) < 0.05
        )


@pytest.mark.parametrize("dims", [(0, -1), (1, -1), (1, 2), (-2, -1), (2, 2)], ids=str)
def test_flatten(dims: tuple[int, int]) -> None:
    x = drawn(2, 3, 4, 5)
    np.testing.assert_array_equal(
        spatial.flatten(Tensor(x, np.float64), *dims).data, torch.flatten(torch.tensor(x), *dims).numpy()
    )
    assert spatial.flatten(Tensor(1.0)).shape == tuple(torch.flatten(torch.tensor(1.0)).shape)


def test_a_whole_network_trains_alike() -> None:
    torch.manual_seed(0)
    mine = [spatial.Conv2d(3, 8, 3, padding=1), spatial.BatchNorm2d(8), spatial.Conv2d(8, 4, 3, stride=2, bias=False)]
    other = [
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 4, 3, stride=2, bias=False),
    ]
    for ours, theirs in zip(mine, other, strict=True):
        ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    for step in range(5):
        x = drawn(6, 3, 12, 12, seed=step).astype(np.float32)
        a = mine[2](spatial.max_pool2d(mine[1](mine[0](Tensor(x))), 2))
        b = other[2](functional.max_pool2d(other[1](other[0](torch.tensor(x))), 2))
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-3, atol=1e-4)
        assert np.abs(a.data).max() < 10  # it does not run away, where nothing could be compared
        (a * a).mean().backward()
        (b * b).mean().backward()
        for ours, theirs in zip(mine, other, strict=True):
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                p.data -= 0.05 * p.grad.data  # type: ignore[union-attr]
                q.data -= 0.05 * q.grad  # type: ignore[operator]
                p.grad = q.grad = None
