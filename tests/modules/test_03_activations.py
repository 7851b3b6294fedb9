"""What ``tinytorch.core.activations`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinytorch.core import activations
from tinytorch.core.activations import (
    GELU,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    gelu,
    leaky_relu,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from tinytorch.core.tensor import Op, Tensor, set_recorder

Function = Callable[..., Tensor]

FUNCTIONS: dict[str, Function] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "softmax": softmax,
}
EVERY = pytest.mark.parametrize("name", list(FUNCTIONS))


def reference(name: str, numbers: list[float]) -> list[float]:
    """The function of a row of moderate numbers, by the standard library."""
    if name == "softmax":
        total = math.fsum(map(math.exp, numbers))
        return [math.exp(number) / total for number in numbers]
    formulas: dict[str, Callable[[float], float]] = {
        "relu": lambda x: max(x, 0.0),
        "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "tanh": math.tanh,
        "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
        "gelu_tanh": lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    }
    return [formulas[name](number) for number in numbers]


@EVERY
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_values_shapes_and_dtypes(name: str, dtype: Any, rtol: float) -> None:
    table = np.random.default_rng(3).normal(0, 3, size=(2, 3, 5)).astype(dtype)
    got = FUNCTIONS[name](Tensor(table, dtype))
    assert (type(got), got.shape, got.dtype) == (Tensor, table.shape, dtype)
    for row, want in zip(got.data.reshape(6, 5), table.reshape(6, 5), strict=True):
        np.testing.assert_allclose(row, reference(name, want.tolist()), rtol=10 * rtol, atol=rtol)


FAR = [-10_000.0, -200.0, -90.0, -20.0, 20.0, 90.0, 200.0, 10_000.0]


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_it_is_exact_and_numpy_complains_of_nothing(name: str, dtype: Any) -> None:
    with np.errstate(all="raise"):
        got = FUNCTIONS[name](Tensor(FAR, dtype)).data
    flat = {"sigmoid": [0] * 4 + [1] * 4, "tanh": [-1] * 4 + [1] * 4, "softmax": [0] * 7 + [1]}
    below = 0.01 if name == "leaky_relu" else 0.0
    want = flat.get(name, [x if x > 0 else below * x for x in FAR])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
    assert got.dtype == dtype


@EVERY
def test_the_input_stays_as_it_was_and_is_not_shared(name: str) -> None:
    x = Tensor([-1.0, 0.5, 2.0])
    FUNCTIONS[name](x).data[:] = 7
    np.testing.assert_array_equal(x.data, np.array([-1.0, 0.5, 2.0], np.float32))


@EVERY
def test_it_is_one_operation_that_passes_the_door(name: str) -> None:
    notes: list[tuple[Any, ...]] = []
    x = Tensor([-1.0, 0.5])
    before = set_recorder(lambda *note: notes.append(note))
    try:
        out = FUNCTIONS[name](x)
    finally:
        set_recorder(before)
    assert [note[0].name for note in notes] == [name]
    assert notes[0][1][0] is x and notes[0][4] is out


@EVERY
def test_numbers_lists_arrays_and_single_values_are_taken_too(name: str) -> None:
    want = FUNCTIONS[name](Tensor([1.0, 2.0]))
    for given in ([1.0, 2.0], np.array([1.0, 2.0]), Tensor([1, 2])):
        got = FUNCTIONS[name](given)
        np.testing.assert_allclose(got.data, want.data, rtol=1e-6)
    if name != "softmax":
        assert FUNCTIONS[name](Tensor(2.0)).shape == ()
        assert FUNCTIONS[name](2.0).item() == pytest.approx(want.data[1])
    assert FUNCTIONS[name](Tensor(np.zeros((0, 3)))).shape == (0, 3)


@EVERY
def test_nan_is_not_hidden(name: str) -> None:
    assert np.isnan(FUNCTIONS[name](Tensor([np.nan, 1.0])).data[0])


@pytest.mark.parametrize("function", [sigmoid, gelu, softmax])
def test_whole_numbers_and_booleans_become_float32(function: Function) -> None:
    for given in (Tensor([0, 1]), Tensor(np.array([0, 1], np.uint8)), Tensor([False, True])):
        got = function(given)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got.data, function(Tensor([0.0, 1.0])).data)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, 3.0, -0.5])
def test_any_negative_slope(slope: float) -> None:
    np.testing.assert_allclose(leaky_relu(Tensor([-2.0, 0.0, 4.0]), slope).data, [-2 * slope, 0, 4], rtol=1e-6)
    assert leaky_relu(Tensor([1.0]), np.float64(slope)).dtype == np.float32


def test_the_sigmoid_keeps_its_digits_in_the_tail() -> None:
    got = sigmoid(Tensor([-80.0, -30.0, -10.0])).data
    np.testing.assert_allclose(got, [math.exp(-80), math.exp(-30), 1 / (1 + math.exp(10))], rtol=1e-6)


def test_tanh_keeps_its_digits_near_0() -> None:
    np.testing.assert_allclose(tanh(Tensor([1e-8, 1e-5])).data, [1e-8, 1e-5], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 3e-16), (np.float32, 1.2e-7)])
def test_the_normal_distribution_is_as_exact_as_it_says(dtype: Any, most: float) -> None:
    points = np.linspace(-12, 12, 20_001).astype(dtype)
    want = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in points.tolist()])
    got = activations.normal_cdf(points)
    assert got.dtype == dtype
    assert np.abs(got - want).max() <= most
    if dtype is np.float64:
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_the_two_gelus_differ_by_less_than_they_say() -> None:
    points = Tensor(np.linspace(-8, 8, 16_001), dtype=np.float64)
    apart = np.abs(gelu(points).data - gelu(points, "tanh").data).max()
    assert 0.0004 < apart < 0.0005


@pytest.mark.parametrize("wrong", ["erf", "", None, True])
def test_other_approximations_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"approximate.*{wrong}"):
        gelu(Tensor([1.0]), approximate=wrong)
    with pytest.raises(ValueError, match="'none' or 'tanh'"):
        GELU(wrong)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_adds_up_to_1_along_its_axis_and_does_not_see_a_shift(axis: int) -> None:
    cube = np.random.default_rng(4).normal(0, 2, size=(3, 4, 5))
    shares = softmax(Tensor(cube, np.float64), axis=axis).data
    np.testing.assert_allclose(shares.sum(axis=axis), 1.0, rtol=1e-12)
    shift = np.random.default_rng(5).normal(0, 300, size=cube.sum(axis=axis, keepdims=True).shape)
    np.testing.assert_allclose(softmax(Tensor(cube + shift, np.float64), axis).data, shares, rtol=1e-10)


def test_softmax_keeps_rows_apart() -> None:
    got = softmax(Tensor([[1000.0, 1000.0], [-1000.0, -1000.0]])).data
    np.testing.assert_array_equal(got, np.full((2, 2), 0.5, np.float32))
    masked = softmax(Tensor([[0.0, -np.inf, 0.0]])).data
    np.testing.assert_array_equal(masked, np.array([[0.5, 0.0, 0.5]], np.float32))


@pytest.mark.parametrize("axis", [2, -3])
def test_softmax_names_an_axis_that_is_not_there(axis: int) -> None:
    with pytest.raises(IndexError, match=f"softmax: axis {axis} .*2 axes"):
        softmax(Tensor([[1.0]]), axis=axis)


OBJECTS: list[tuple[Any, Function, str]] = [
    (ReLU(), relu, "ReLU()"),
    (LeakyReLU(), leaky_relu, "LeakyReLU(negative_slope=0.01)"),
    (LeakyReLU(0.3), lambda x: leaky_relu(x, 0.3), "LeakyReLU(negative_slope=0.3)"),
    (Sigmoid(), sigmoid, "Sigmoid()"),
    (Tanh(), tanh, "Tanh()"),
    (GELU(), gelu, "GELU(approximate='none')"),
    (GELU("tanh"), FUNCTIONS["gelu_tanh"], "GELU(approximate='tanh')"),
    (Softmax(), softmax, "Softmax(axis=-1)"),
    (Softmax(axis=0), lambda x: softmax(x, 0), "Softmax(axis=0)"),
]


@pytest.mark.parametrize(("made", "function", "shown"), OBJECTS, ids=[shown for _, _, shown in OBJECTS])
def test_objects_do_what_the_functions_do(made: Any, function: Function, shown: str) -> None:
    x = Tensor(np.random.default_rng(6).normal(size=(3, 4)))
    np.testing.assert_array_equal(made(x).data, function(x).data)
    assert repr(made) == shown
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert twin == made
        np.testing.assert_array_equal(twin(x).data, made(x).data)


def test_operations_have_names_of_their_own() -> None:
    names = [value.name for value in vars(activations).values() if isinstance(value, Op)]
    assert sorted(names) == ["gelu", "gelu_tanh", "leaky_relu", "relu", "sigmoid", "softmax", "tanh"]
