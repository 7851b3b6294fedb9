"""Module 02 against PyTorch: values, and the gradients that module 06 adds, of everything a Tensor can do."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

import tinytorch.core.autograd  # noqa: F401  (plugs the recorder in)
from tinytorch.core.tensor import Tensor, arange, concatenate, maximum, split, stack, where

TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-12, "atol": 1e-12}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])


def numbers(*shape, low=-2.0, high=2.0):
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, size=shape)


def agree(ours, theirs, inputs, dtype):
    """The value of both functions, and the gradient of each input for a random upstream gradient."""
    mine = [Tensor(x, dtype, requires_grad=True) for x in inputs]
    other = [torch.tensor(x.astype(dtype), requires_grad=True) for x in inputs]
    value, want = ours(*mine), theirs(*other)
    np.testing.assert_allclose(value.data, want.detach().numpy(), **TOLERANCE[dtype])
    assert (value.shape, value.dtype) == (tuple(want.shape), want.detach().numpy().dtype)
    upstream = numbers(*want.shape).astype(want.detach().numpy().dtype)
    value.backward(upstream)
    want.backward(torch.tensor(upstream))
    for position, (x, y) in enumerate(zip(mine, other, strict=True)):
        got = np.zeros_like(x.data) if x.grad is None else x.grad.data
        wanted = torch.zeros_like(y) if y.grad is None else y.grad
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted.numpy(), **TOLERANCE[dtype], err_msg=f"gradient of input {position}")


SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((), (2, 3)),
    ((4, 1, 3), (2, 1)),
    ((1,), ()),
    ((0, 3), (3,)),
]


@DTYPES
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "pow"])
def test_arithmetic_with_broadcasting(symbol, shapes, dtype):
    low = 0.5 if symbol in ("truediv", "pow") else -2.0
    operation = getattr(operator, symbol)
    agree(operation, operation, [numbers(*shape, low=low) for shape in shapes], dtype)


@DTYPES
@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "pow"])
@pytest.mark.parametrize("constant", [2, 2.5, 1])
def test_arithmetic_with_python_numbers_on_either_side(symbol, constant, dtype):
    operation = getattr(operator, symbol)
    for function in (lambda x: operation(x, constant), lambda x: operation(constant, x)):
        agree(function, function, [numbers(2, 3, low=0.5)], dtype)


@DTYPES
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2])
def test_powers_of_negative_numbers(exponent, dtype):
    agree(lambda x: x**exponent, lambda x: x**exponent, [np.array([-2.0, -0.5, 1.0, 3.0])], dtype)


@DTYPES
@pytest.mark.parametrize("exponent", [0, 0.5, 1, 2, 3.5])
def test_powers_of_zero(exponent, dtype):
    with np.errstate(divide="ignore"):
        agree(lambda x: x**exponent, lambda x: x**exponent, [np.array([0.0, 2.0])], dtype)


@DTYPES
def test_tensor_exponents_at_the_edges(dtype):
    base, exponent = np.array([0.0, 0.0, 0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.5, -3.0, 0.0])
    agree(operator.pow, operator.pow, [base, exponent], dtype)


def method(name):
    return lambda x: getattr(x, name)()


@DTYPES
@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "abs", "__neg__", "__abs__"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)], ids=str)
def test_number_by_number(name, shape, dtype):
    low = 0.1 if name in ("log", "sqrt") else -2.0
    function = method(name)
    agree(function, function, [numbers(*shape, low=low)], dtype)


@DTYPES
@pytest.mark.parametrize("name", ["log", "sqrt", "abs", "tanh"])
def test_number_by_number_at_the_edges(name, dtype):
    function = method(name)
    edge = np.array([0.0, 1.0] if name in ("log", "sqrt") else [0.0, -0.0, 50.0, -50.0])
    with np.errstate(divide="ignore"):
        agree(function, function, [edge], dtype)


@DTYPES
def test_division_by_zero(dtype):
    with np.errstate(divide="ignore", invalid="ignore"):
        agree(operator.truediv, operator.truediv, [np.array([1.0, -1.0]), np.array([0.0, 2.0])], dtype)


@DTYPES
def test_maximum_with_ties_and_broadcasting(dtype):
    x, y = np.array([[1.0, 5.0, 3.0], [2.0, 2.0, -1.0]]), np.array([4.0, 2.0, 3.0])
    agree(maximum, torch.maximum, [x, y], dtype)
    agree(lambda x, y: x.maximum(y), torch.maximum, [y, x], dtype)
    agree(lambda x: x.maximum(0), lambda x: torch.maximum(x, torch.zeros_like(x)), [np.array([0.0, -1.0, 2.0])], dtype)
    with_nan = np.array([1.0, np.nan, 3.0])
    agree(maximum, torch.maximum, [with_nan, y], dtype)


@DTYPES
def test_where_with_broadcasting(dtype):
    condition = np.array([[True], [False]])
    for shapes in [((2, 3), (2, 3)), ((3,), (2, 1)), ((), (3,))]:
        agree(
            lambda x, y: where(condition, x, y),
            lambda x, y: torch.where(torch.tensor(condition), x, y),
            [numbers(*shape) for shape in shapes],
            dtype,
        )


PAIRS = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((2, 3), (5, 3, 2)),
    ((5, 2, 3), (5, 3, 2)),
    ((4, 1, 2, 3), (5, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
]


@DTYPES
@pytest.mark.parametrize("shapes", PAIRS, ids=str)
def test_matmul(shapes, dtype):
    agree(operator.matmul, operator.matmul, [numbers(*shape) for shape in shapes], dtype)


AXES = [None, 0, 1, -1, (0, 2), (-1, -3), (0, 1, 2)]


@DTYPES
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions(name, axis, keepdims, dtype):
    torch_name = {"max": "amax", "min": "amin"}.get(name, name)
    dim = (0, 1, 2) if axis is None else axis
    agree(
        lambda x: getattr(x, name)(axis=axis, keepdims=keepdims),
        lambda x: getattr(torch, torch_name)(x, dim=dim, keepdim=keepdims),
        [numbers(2, 3, 4)],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_variance(axis, correction, dtype):
    dim = (0, 1, 2) if axis is None else axis
    for keepdims in (False, True):
        agree(
            lambda x, keepdims=keepdims: x.var(axis, keepdims, correction),
            lambda x, keepdims=keepdims: x.var(dim, correction=correction, keepdim=keepdims),
            [numbers(2, 3, 4)],
            dtype,
        )


@DTYPES
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize(("name", "torch_name"), [("max", "amax"), ("min", "amin")])
def test_ties_in_max_and_min_share_evenly(name, torch_name, axis, dtype):
    tied = np.array([[1.0, 3.0, 3.0], [3.0, 1.0, 1.0]])
    agree(
        lambda x: getattr(x, name)(axis=axis),
        lambda x: getattr(torch, torch_name)(x, dim=(0, 1) if axis is None else axis),
        [tied],
        dtype,
    )


@DTYPES
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
        (lambda x: x.reshape((-1,)), lambda x: x.reshape(-1)),
        (lambda x: x.reshape(6, -1, 2), lambda x: x.reshape(6, -1, 2)),
        (lambda x: x.permute(2, 0, 3, 1), lambda x: x.permute(2, 0, 3, 1)),
        (lambda x: x.permute(-1, 0, -2, 1), lambda x: x.permute(-1, 0, -2, 1)),
        (lambda x: x.transpose(0, 2), lambda x: x.transpose(0, 2)),
        (lambda x: x.transpose(), lambda x: x.transpose(-2, -1)),
        (lambda x: x.transpose(-1, 0).reshape(-1), lambda x: x.transpose(-1, 0).reshape(-1)),
        (lambda x: x.T, lambda x: x.permute(3, 2, 1, 0)),
        (lambda x: x.squeeze(), lambda x: x.squeeze()),
        (lambda x: x.squeeze(-3), lambda x: x.squeeze(-3)),
        (lambda x: x.expand_dims(2), lambda x: x.unsqueeze(2)),
        (lambda x: x.expand_dims(-1), lambda x: x.unsqueeze(-1)),
        (lambda x: x.astype(np.float64), lambda x: x.to(torch.float64)),
        (lambda x: x.astype(np.float32), lambda x: x.to(torch.float32)),
    ],
)
def test_shapes(ours, theirs, dtype):
    exact = numbers(2, 1, 3, 4).astype(np.float32)  # so that no change of dtype rounds
    agree(ours, theirs, [exact], dtype)


KEYS = [
    1,
    -1,
    slice(None, None, 2),
    (slice(1, None), slice(None, 2)),
    (..., 0),
    (0, None, slice(1, 3)),
    (slice(3, 3),),
    [0, 2, 2],
    [-1, 0],
    np.array([[0, 1], [1, 1]]),
    ([0, 0, 1], [1, 1, 2]),
    (slice(None), [2, 2]),
    (np.array([1, 1]), slice(None), np.array([0, 0])),
    (None, [1, 1], ..., slice(2)),
]


@DTYPES
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing(key, dtype):
    agree(operator.itemgetter(key), operator.itemgetter(key), [numbers(3, 4, 5)], dtype)


@DTYPES
def test_indexing_with_masks_and_tensors(dtype):
    x = numbers(3, 4)
    agree(lambda t: t[Tensor(x > 0)], lambda t: t[torch.tensor(x > 0)], [x], dtype)
    agree(lambda t: t[t > 0.5], lambda t: t[t > 0.5], [x], dtype)
    agree(lambda t: t[x.sum(1) > 0], lambda t: t[torch.tensor(x.sum(1) > 0)], [x], dtype)
    ids = np.array([2, 2, 0])
    agree(lambda t: t[Tensor(ids)], lambda t: t[torch.tensor(ids)], [x], dtype)
    agree(lambda t: t[arange(3), Tensor(ids)], lambda t: t[torch.arange(3), torch.tensor(ids)], [x], dtype)


@DTYPES
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joining_and_splitting(axis, dtype):
    inputs = [numbers(2, 3), numbers(2, 3) + 1, numbers(2, 3) * 2]
    agree(lambda *t: concatenate(t, axis=axis), lambda *t: torch.cat(t, dim=axis), inputs, dtype)
    agree(lambda *t: stack(t, axis=axis), lambda *t: torch.stack(t, dim=axis), inputs, dtype)
    uneven = [np.moveaxis(numbers(n, 2), 0, axis) for n in (1, 3, 2)]
    agree(lambda *t: concatenate(t, axis=axis), lambda *t: torch.cat(t, dim=axis), uneven, dtype)
    ruler = np.moveaxis(numbers(5, 2), 0, axis)
    for size in (1, 2, 5, [1, 3, 1], [0, 5]):
        for piece in (0, -1):
            agree(
                lambda t, size=size, piece=piece: split(t, size, axis)[piece] * 2,
                lambda t, size=size, piece=piece: torch.split(t, size, axis)[piece] * 2,
                [ruler],
                dtype,
            )


@DTYPES
@pytest.mark.parametrize("symbol", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(symbol, dtype):
    x, y = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, np.nan]]).astype(dtype), np.array([1.0, 2.0, 2.0]).astype(dtype)
    compare = getattr(operator, symbol)
    for other, torch_other in [(Tensor(y, dtype), torch.tensor(y)), (2, 2), (2.0, 2.0)]:
        got, want = compare(Tensor(x, dtype), other), compare(torch.tensor(x), torch_other)
        np.testing.assert_array_equal(got.data, want.numpy())
        assert got.dtype == bool


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_argmax(axis, keepdims):
    x = np.array([[1.0, 7.0, 7.0], [9.0, 2.0, 7.0]], np.float32)
    got, want = Tensor(x).argmax(axis, keepdims), torch.argmax(torch.tensor(x), dim=axis, keepdim=keepdims)
    np.testing.assert_array_equal(got.data, want.numpy())
    assert (got.shape, got.dtype) == (tuple(want.shape), np.int64)


@pytest.mark.parametrize("values", [[1, 2], [1.0, 2.0], [True, False], 3, 2.5])
def test_dtypes_of_python_values(values):
    assert str(Tensor(values).dtype) == str(torch.tensor(values).dtype).removeprefix("torch.")


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv"])
def test_dtypes_of_mixed_arithmetic(symbol):
    operation = getattr(operator, symbol)
    whole, short, long = np.array([1, 2]), np.array([1.5, 2.5], np.float32), np.array([0.5, 3.0])
    for x, y in [
        (whole, short),
        (short, whole),
        (whole, whole),
        (short, long),
        (whole, long),
        (short, 2),
        (whole, 2.5),
    ]:
        dtypes = [v.dtype if isinstance(v, np.ndarray) else None for v in (x, y)]
        mine = [Tensor(v, d) if d else v for v, d in zip((x, y), dtypes, strict=True)]
        other = [torch.tensor(v) if d else v for v, d in zip((x, y), dtypes, strict=True)]
        got, want = operation(*mine), operation(*other).numpy()
        assert got.dtype == want.dtype, (symbol, dtypes)
        np.testing.assert_allclose(got.data, want, rtol=1e-6)
