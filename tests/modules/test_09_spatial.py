"""What ``tinytorch.core.spatial`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinytorch.core.activations import ReLU
from tinytorch.core.autograd import gradcheck, no_grad
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.spatial import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    MaxPool2d,
    adaptive_avg_pool2d,
    avg_pool2d,
    batch_norm,
    conv2d,
    flatten,
    im2col,
    max_pool2d,
    max_pool2d_forward,
    max_pool2d_gradient,
    set_num_threads,
)
from tinytorch.core.tensor import Tensor, manual_seed


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def apart(*shape: int) -> np.ndarray:
    """Numbers that are far from each other, so that a small nudge changes no maximum."""
    count = int(np.prod(shape))
    return np.random.default_rng(count).permutation(np.linspace(-2, 2, count)).reshape(shape)


# convolution


def one_number(x: np.ndarray, weight: np.ndarray, place: tuple[int, ...], options: dict[str, Any]) -> float:
    """The convolution at one place (n, o, row, column), by its definition."""
    n, o, row, column = place
    stride, padding, dilation = (
        options.get(key, start) for key, start in [("stride", 1), ("padding", 0), ("dilation", 1)]
    )
    share = weight.shape[1]
    first = o // (len(weight) // options.get("groups", 1)) * share
    total = 0.0
    for ch, i, j in np.ndindex(weight.shape[1:]):
        down, right = stride * row + dilation * i - padding, stride * column + dilation * j - padding
        if 0 <= down < x.shape[2] and 0 <= right < x.shape[3]:
            total += weight[o, ch, i, j] * x[n, first + ch, down, right]
    return total


OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 3},
    {"stride": 2, "padding": 3, "dilation": 2, "groups": 2},
]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_conv2d_agrees_with_its_definition(options: dict[str, Any], kernel: tuple[int, int]) -> None:
    x, weight, bias = normal(3, 4, 8, 7), normal(4, 4 // options.get("groups", 1), *kernel), normal(4)
    got = conv2d(Tensor(x, np.float64), Tensor(weight, np.float64), Tensor(bias, np.float64), **options)
    for place in np.ndindex(got.shape):
        assert abs(got.data[place] - one_number(x, weight, place, options) - bias[place[1]]) < 1e-9, place


@pytest.mark.parametrize("options", [*OPTIONS, {"padding": "same"}, {"padding": 4}], ids=str)
def test_gradients_of_conv2d(options: dict[str, Any]) -> None:
    x, weight = normal(2, 4, 6, 7), normal(4, 4 // options.get("groups", 1), 2, 3)
    assert gradcheck(lambda x, w, b: conv2d(x, w, b, **options), [x, weight, normal(4)])
    assert gradcheck(lambda w: conv2d(Tensor(x, np.float64), w, **options), [weight])


def test_what_needs_no_gradient_gets_none() -> None:
    x, layer = Tensor(normal(2, 3, 8, 8)), Conv2d(3, 4, 3)
    layer(x).sum().backward()
    assert x.grad is None and layer.weight.grad is not None and layer.weight.grad.shape == (4, 3, 3, 3)
    with no_grad():
        assert not layer(x).requires_grad


@pytest.mark.parametrize("batch", [0, 1, 37])
def test_any_batch_gives_what_its_pictures_give_one_by_one(batch: int) -> None:
    manual_seed(0)
    net = Sequential(
        Conv2d(3, 5, 3, padding=1), MaxPool2d(2), Conv2d(5, 2, 3, stride=2), AvgPool2d(2), Flatten()
    ).eval()
    x = normal(batch, 3, 20, 16)
    got = net(Tensor(x)).data
    assert got.shape == (batch, 4) and got.dtype == np.float32
    for picture, row in zip(x, got, strict=True):
        np.testing.assert_allclose(net(Tensor(picture[None])).data[0], row, rtol=1e-4, atol=1e-5)


def test_memory_stays_channels_last_both_ways() -> None:
    def is_channels_last(array: np.ndarray) -> bool:
        return array.transpose(0, 2, 3, 1).flags.c_contiguous

    manual_seed(0)
    x = Tensor(normal(2, 3, 8, 10), requires_grad=True)
    for layer in (Conv2d(3, 4, 3, padding=1), BatchNorm2d(4), ReLU(), MaxPool2d(2, padding=1), AvgPool2d(2)):
        x = layer(x)
        assert is_channels_last(x.data), layer
    seen, window = normal(2, 8, 10, 3).transpose(0, 3, 1, 2), ((2, 2), (2, 2), (0, 0), (1, 1))
    slopes = max_pool2d_gradient(normal(2, 3, 4, 5), max_pool2d_forward(seen, *window), seen, *window)
    assert is_channels_last(slopes), "also if what comes from above is not"


def test_threads_change_nothing() -> None:
    def step() -> list[np.ndarray]:
        manual_seed(0)
        net = Sequential(Conv2d(3, 8, 3, padding=1), BatchNorm2d(8), MaxPool2d(2), Conv2d(8, 4, 3, stride=2), Flatten())
        x = Tensor(normal(100, 3, 32, 32), requires_grad=True)
        out = net(x)
        (out * out).sum().backward()
        return [out.data, x.grad.data, *(p.grad.data for p in net.parameters())]  # type: ignore[union-attr]

    alone = step()
    set_num_threads(3)
    try:
        together = step()
    finally:
        set_num_threads(1)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="threads"):
        set_num_threads(0)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 5)])
def test_same_padding_keeps_the_size(kernel: Any, dilation: int) -> None:
    assert Conv2d(2, 3, kernel, padding="same", dilation=dilation)(Tensor(normal(2, 2, 6, 9))).shape == (2, 3, 6, 9)


@pytest.mark.parametrize(
    ("size", "options", "formula"),
    [
        ((3, 9), {}, "(3 + 2*0 - 1*(5-1) - 1)//1 + 1 = -1"),
        ((9, 2), {"stride": 2, "padding": 1}, "(2 + 2*1 - 1*(5-1) - 1)//2 + 1 = 0"),
        ((8, 20), {"dilation": 2}, "(8 + 2*0 - 2*(5-1) - 1)//1 + 1 = 0"),
    ],
)
def test_a_window_that_does_not_fit_shows_the_formula(size: Any, options: dict[str, Any], formula: str) -> None:
    with pytest.raises(ValueError) as caught:
        Conv2d(1, 1, 5, **options)(Tensor(np.zeros((1, 1, *size))))
    assert formula in str(caught.value) and "conv2d" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "mentions"),
    [
        (lambda: Conv2d(3, 4, 3)(Tensor(np.zeros((2, 4, 8, 8)))), ValueError, ["3 channels", "(2, 4, 8, 8)"]),
        (lambda: Conv2d(3, 4, 3)(Tensor(np.zeros((3, 8, 8)))), ValueError, ["(3, 8, 8)", "expand_dims"]),
        (lambda: Conv2d(3, 4, 3)(Tensor(np.zeros((1, 3, 8, 8), np.uint8))), TypeError, ["uint8"]),
        (lambda: Conv2d(3, 4, 3, groups=2), ValueError, ["groups"]),
        (lambda: Conv2d(3, 4, 0), ValueError, ["kernel_size", "0"]),
        (lambda: Conv2d(3, 4, 3, padding=-1), ValueError, ["padding", "-1"]),
        (lambda: Conv2d(3, 4, (3, 3, 3)), TypeError, ["(3, 3, 3)"]),
        (lambda: Conv2d(3, 4, 1.5), TypeError, ["1.5"]),
        (lambda: Conv2d(3, 4, 3, stride=2, padding="same")(Tensor(np.zeros((1, 3, 8, 8)))), ValueError, ["same"]),
        (lambda: Conv2d(3, 4, 3, padding="full")(Tensor(np.zeros((1, 3, 8, 8)))), ValueError, ["full"]),
        (lambda: max_pool2d(Tensor(np.zeros((1, 1, 8, 8))), 2, padding=2), ValueError, ["padding", "half"]),
        (lambda: max_pool2d(Tensor(np.zeros((8, 8))), 2), ValueError, ["(8, 8)"]),
        (
            lambda: MaxPool2d(9)(Tensor(np.zeros((1, 1, 8, 8)))),
            ValueError,
            ["max_pool2d", "(8 + 2*0 - 1*(9-1) - 1)//9"],
        ),
        (lambda: avg_pool2d(Tensor(np.zeros((1, 1, 2, 2))), 3), ValueError, ["avg_pool2d", "window"]),
        (lambda: AdaptiveAvgPool2d(0)(Tensor(np.zeros((1, 1, 2, 2)))), ValueError, ["output_size"]),
        (lambda: BatchNorm2d(3)(Tensor(np.zeros((2, 4, 1, 1)))), ValueError, ["3 channels", "(2, 4, 1, 1)"]),
        (lambda: BatchNorm2d(3)(Tensor(np.zeros((1, 3, 1, 1)))), ValueError, ["at least two"]),
        (lambda: flatten(Tensor(np.zeros((2, 3))), 2), IndexError, ["axis 2"]),
        (lambda: flatten(Tensor(np.zeros((2, 3))), 1, 0), ValueError, ["axis 0", "axis 1"]),
    ],
)
def test_mistakes_are_named(call: Callable[[], Any], error: type[Exception], mentions: list[str]) -> None:
    with pytest.raises(error) as caught:
        call()
    for mention in mentions:
        assert mention in str(caught.value), str(caught.value)


def test_im2col_turns_a_convolution_into_one_product() -> None:
    x, weight = normal(2, 3, 6, 5), normal(4, 3, 3, 2)
    table = weight.reshape(4, -1) @ im2col(x, (3, 2), (2, 1), (1, 0), (1, 2))
    want = conv2d(Tensor(x, np.float64), Tensor(weight, np.float64), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    np.testing.assert_allclose(table.reshape(4, 2, *want.shape[2:]).swapaxes(0, 1), want.data)


# pooling


@pytest.mark.parametrize("size", [(4, 4), (5, 7)], ids=str)
def test_max_pool_takes_the_largest_of_each_window(size: tuple[int, int]) -> None:
    x = normal(2, 3, *size) - 5
    got = max_pool2d(Tensor(x, np.float64), 3, 2, padding=1).data
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    for row, column in np.ndindex(got.shape[2:]):
        window = wide[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        np.testing.assert_array_equal(got[:, :, row, column], window.max(axis=(2, 3)))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: max_pool2d(x, 2),
        lambda x: max_pool2d(x, 3, 1, 1),
        lambda x: max_pool2d(x, 2, (1, 2), 1, (2, 1)),
        lambda x: avg_pool2d(x, 2),
        lambda x: avg_pool2d(x, 3, 2, 1),
        lambda x: avg_pool2d(x, (3, 2), 1, 1, count_include_pad=False),
        lambda x: adaptive_avg_pool2d(x, 1),
        lambda x: adaptive_avg_pool2d(x, (4, 2)),
        lambda x: adaptive_avg_pool2d(x, (None, 5)),
    ],
)
def test_gradients_of_pooling(pool: Callable[[Tensor], Tensor]) -> None:
    assert gradcheck(pool, [apart(2, 2, 6, 7)])


def test_ties_go_to_the_first_winner_of_each_window() -> None:
    x = Tensor([[[[2.0, 5.0, 0.0, 0.0], [5.0, 5.0, 0.0, 0.0]]]], requires_grad=True)
    max_pool2d(x, 2).sum().backward()
    assert x.grad is not None and x.grad.data.tolist() == [[[[0, 1, 1, 0], [0, 0, 0, 0]]]]


def test_a_number_that_wins_twice_gets_both_gradients() -> None:
    x = Tensor([[[[1.0, 7.0, 3.0]]]], requires_grad=True)
    max_pool2d(x, (1, 2), 1).sum().backward()
    assert x.grad is not None and x.grad.data.tolist() == [[[[0, 2, 0]]]]


def test_averages_with_and_without_the_frame() -> None:
    ones = Tensor(np.ones((1, 1, 4, 4)))
    assert avg_pool2d(ones, 2, 2, 1).data[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    assert avg_pool2d(ones, 2, 2, 1, count_include_pad=False).data.tolist() == np.ones((1, 1, 3, 3)).tolist()
    np.testing.assert_allclose(adaptive_avg_pool2d(ones, 3).data, np.ones((1, 1, 3, 3)), rtol=1e-6)


# batch normalisation


def test_a_normalised_batch_has_mean_0_and_variance_1() -> None:
    x = Tensor(100 + 3 * normal(16, 4, 9, 9), np.float64)
    out = BatchNorm2d(4)(x).data
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), 0, atol=1e-9)
    np.testing.assert_allclose(out.var(axis=(0, 2, 3)), 1, rtol=1e-4)


@pytest.mark.parametrize("shape", [(4, 3, 2, 3), (5, 3), (2, 3, 1, 1)], ids=str)
def test_gradients_of_batch_norm(shape: tuple[int, ...]) -> None:
    inputs = [normal(*shape), normal(3, seed=1), normal(3, seed=2)]
    assert gradcheck(lambda x, w, b: batch_norm(x, None, None, w, b, True, eps=0.1), inputs)
    mean, variance = normal(3, seed=3), np.array([0.5, 1, 2])
    assert gradcheck(lambda x, w, b: batch_norm(x, mean, variance, w, b, eps=0.1), inputs)
    np.testing.assert_array_equal(mean, normal(3, seed=3))


def test_running_statistics_are_those_of_the_unbiased_variance_and_saved() -> None:
    layer, x = BatchNorm2d(2, momentum=0.25), normal(3, 2, 4, 5)
    layer(Tensor(x))
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    np.testing.assert_allclose(state["running_mean"], 0.25 * x.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(state["running_var"], 0.75 + 0.25 * x.var(axis=(0, 2, 3), ddof=1), rtol=1e-5)
    assert state["num_batches_tracked"] == 1 and state["num_batches_tracked"].dtype == np.int64
    fresh = BatchNorm2d(2)
    fresh.load_state_dict(state)
    np.testing.assert_array_equal(fresh.eval()(Tensor(x)).data, layer.eval()(Tensor(x)).data)


def test_in_evaluation_a_picture_does_not_depend_on_its_batch_and_nothing_moves() -> None:
    layer, x = BatchNorm2d(2), normal(6, 2, 4, 5)
    for _ in range(3):
        layer(Tensor(x))
    before = layer.eval().state_dict()
    together = layer(Tensor(x)).data
    np.testing.assert_allclose(layer(Tensor(x[2:3])).data[0], together[2], rtol=1e-5, atol=1e-6)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_momentum_none_is_the_mean_over_all_batches() -> None:
    layer = BatchNorm2d(1, momentum=None)
    batches = [normal(4, 1, 3, 3, seed=seed) for seed in range(3)]
    for batch in batches:
        layer(Tensor(batch))
    assert layer.running_mean is not None
    np.testing.assert_allclose(layer.running_mean, np.mean([batch.mean() for batch in batches]), rtol=1e-4, atol=1e-6)


# all together


def test_inputs_stay_as_they_were() -> None:
    x = normal(2, 3, 8, 8).astype(np.float32)
    kept, net = x.copy(), Sequential(Conv2d(3, 4, 3, padding=1), BatchNorm2d(4), MaxPool2d(2), AvgPool2d(2), Flatten())
    net(Tensor(x)).sum().backward()
    np.testing.assert_array_equal(x, kept)


def test_a_small_network_learns_to_tell_stripes_apart() -> None:
    manual_seed(0)
    stripes = np.zeros((40, 1, 8, 8), np.float32)
    labels = np.arange(40) % 2
    shifts = np.random.default_rng(0).integers(0, 2, size=40)
    for picture, label, shift in zip(stripes, labels, shifts, strict=True):
        (picture[0] if label else picture[0].T)[shift::2] = 1
    net = Sequential(Conv2d(1, 4, 3, padding=1), BatchNorm2d(4), MaxPool2d(2), Flatten(), Linear(64, 1))
    for _ in range(60):
        net.zero_grad()
        error = net(Tensor(stripes)) - Tensor(labels[:, None].astype(np.float32))
        (error * error).mean().backward()
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter.data -= 0.01 * parameter.grad.data
    assert ((net(Tensor(stripes)).data[:, 0] > 0.5) == labels).all()
