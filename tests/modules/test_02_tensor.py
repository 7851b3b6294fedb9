"""What a tensor.py exported from module 02 must do: the reference's, or a student's."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tinytorch.core import tensor as module
from tinytorch.core.tensor import (
    Op,
    Tensor,
    apply,
    arange,
    as_array,
    broadcast_shape,
    c_strides,
    concatenate,
    default_generator,
    expanded_shape,
    from_numpy,
    full,
    manual_seed,
    maximum,
    mean,
    ones,
    rand,
    randn,
    reduced_size,
    set_recorder,
    split,
    squeezed_shape,
    stack,
    swapped_axes,
    var,
    where,
    zeros,
)

MATRIX = np.array([[1.0, -2.0, 3.0], [4.0, 0.5, -6.0]], np.float32)
CUBE = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)


@contextmanager
def recording() -> Iterator[list[tuple[Any, ...]]]:
    """What the recorder is told inside the block."""
    notes: list[tuple[Any, ...]] = []
    before = set_recorder(lambda *note: notes.append(note))
    try:
        yield notes
    finally:
        set_recorder(before)


def check(tensor: Tensor, want: Any, dtype: Any = np.float32, rtol: float = 1e-6) -> None:
    """``tensor`` is a plain Tensor with this shape, these values and this dtype."""
    assert type(tensor) is Tensor
    assert type(tensor.data) is np.ndarray
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor.data, want, rtol=rtol, atol=1e-6)
    assert tensor.shape == np.shape(want)


# making a tensor


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        (3, np.int64),
        (True, np.bool_),
        ([[1.0, 2], [3, 4]], np.float32),
        ((1, 2), np.int64),
        ([], np.float32),
        (np.float64(2.5), np.float32),
        (np.ones(2, np.float64), np.float32),
        (np.ones(2, np.float16), np.float16),
        (np.ones(2, np.int32), np.int64),
        (np.ones(2, np.uint8), np.uint8),
        (np.ones((2, 0, 3)), np.float32),
    ],
)
def test_dtype_rule(data: Any, dtype: Any) -> None:
    check(Tensor(data), np.asarray(data), dtype)
    assert as_array(data).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, "int64", bool])
def test_given_dtype_wins(dtype: Any) -> None:
    check(Tensor([1.0, 0.0], dtype=dtype), [1, 0], np.dtype(dtype))


def test_tensor_of_tensors() -> None:
    check(Tensor(Tensor(MATRIX)), MATRIX)
    check(Tensor([Tensor([1.0]), Tensor([2.0])]), [[1], [2]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_tensor_owns_its_numbers(dtype: Any) -> None:
    mine = np.zeros(3, dtype)
    tensor = Tensor(mine)
    mine[:] = 7
    check(tensor, [0, 0, 0], np.int64 if dtype is np.int64 else np.float32)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([[1, 2], [3]], ValueError, "differ in length"),
        ("three", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (1j, TypeError, "complex"),
    ],
)
def test_no_table_of_numbers(data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Tensor(data)


def test_attributes() -> None:
    tensor = Tensor(CUBE)
    assert (tensor.shape, tensor.ndim, tensor.size, tensor.dtype) == ((2, 3, 4), 3, 24, np.float32)
    assert tensor.grad is None
    assert tensor.requires_grad is False
    with pytest.raises(AttributeError):
        tensor.grda = 0  # type: ignore[attr-defined]


def test_requires_grad_needs_floats() -> None:
    assert Tensor([1.0], requires_grad=True).requires_grad is True
    tensor = Tensor([1.0])
    tensor.requires_grad = True
    assert tensor.requires_grad is True
    with pytest.raises(TypeError, match="int64"):
        Tensor([1], requires_grad=True)
    with pytest.raises(TypeError, match="bool"):
        Tensor([True]).requires_grad = True


@pytest.mark.parametrize(
    ("make", "want", "dtype"),
    [
        (lambda: zeros(2, 3), np.zeros((2, 3)), np.float32),
        (lambda: zeros((2, 3), dtype=np.int64), np.zeros((2, 3)), np.int64),
        (lambda: zeros(), 0.0, np.float32),
        (lambda: ones([2]), np.ones(2), np.float32),
        (lambda: full((2, 1), 7), [[7], [7]], np.int64),
        (lambda: full((2,), 0.25, dtype=np.float64), [0.25, 0.25], np.float64),
        (lambda: arange(3), [0, 1, 2], np.int64),
        (lambda: arange(1, 2, 0.25), [1, 1.25, 1.5, 1.75], np.float32),
        (lambda: arange(3, 0, -1), [3, 2, 1], np.int64),
        (lambda: arange(2, dtype=np.float32), [0, 1], np.float32),
    ],
)
def test_constructors(make: Callable[[], Tensor], want: Any, dtype: Any) -> None:
    check(make(), want, dtype)


@pytest.mark.parametrize("make", [zeros, ones, randn, rand])
def test_a_shape_is_made_of_whole_numbers(make: Callable[..., Tensor]) -> None:
    assert make(np.int64(2), 3).shape == make((2, 3)).shape == (2, 3)
    assert make(2, requires_grad=True).requires_grad
    assert make(2, dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="float"):
        make(2.5)


def test_from_numpy_shares() -> None:
    mine = np.zeros(3)
    shared = from_numpy(mine)
    mine[1] = 5
    check(shared, [0, 5, 0], np.float64)
    with pytest.raises(TypeError, match="list"):
        from_numpy([1.0])  # type: ignore[arg-type]


# random numbers


@pytest.mark.parametrize("draw", [randn, rand])
def test_the_seed_repeats_the_numbers(draw: Callable[..., Tensor]) -> None:
    assert manual_seed(5) is default_generator()
    one, following = draw(4, 2), draw(4, 2)
    manual_seed(5)
    np.testing.assert_array_equal(draw((4, 2)).data, one.data)
    assert not np.array_equal(one.data, following.data)
    own = draw(4, 2, generator=np.random.default_rng(5))
    np.testing.assert_array_equal(own.data, one.data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_randn_draws_in_double_precision(dtype: Any) -> None:
    got = randn(3, generator=np.random.default_rng(5), dtype=dtype)
    check(got, np.random.default_rng(5).standard_normal(3), dtype, rtol=1e-12 if dtype is np.float64 else 1e-6)


def test_distributions() -> None:
    manual_seed(1)
    normal, even = randn(300, 300).data, rand(300, 300).data
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    assert even.min() >= 0 and even.max() <= 1 and abs(even.mean() - 0.5) < 0.02


# out of the tensor


@pytest.mark.parametrize(("data", "want"), [(2.5, 2.5), ([[3]], 3), ([True], True)])
def test_item(data: Any, want: Any) -> None:
    number = Tensor(data).item()
    assert type(number) is type(want) and number == want


def test_python_numbers() -> None:
    assert float(Tensor([2.5])) == 2.5
    assert int(Tensor(3.9)) == 3
    assert bool(Tensor(0.0)) is False and bool(Tensor([[2]])) is True


@pytest.mark.parametrize("convert", [Tensor.item, bool, float, int])
@pytest.mark.parametrize("shape", [(2, 3), (0,)])
def test_only_one_number_converts(convert: Callable[[Tensor], Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        convert(zeros(shape))


def test_numpy_and_detach_share_memory() -> None:
    tensor = Tensor(MATRIX, requires_grad=True)
    loose = tensor.detach()
    assert loose.requires_grad is False and tensor.requires_grad is True
    loose[0, 0] = 50.0
    tensor.numpy()[0, 1] = 60.0
    assert tensor.data[0].tolist() == loose.data[0].tolist() == [50.0, 60.0, 3.0]


def test_as_a_numpy_array() -> None:
    tensor = Tensor(MATRIX)
    assert np.asarray(tensor) is tensor.data or np.shares_memory(np.asarray(tensor), tensor.data)
    assert not np.shares_memory(np.array(tensor), tensor.data)
    assert np.asarray(tensor, dtype=np.float64).dtype == np.float64
    assert tensor.tolist() == MATRIX.tolist()


def test_numpy_functions_are_refused() -> None:
    with pytest.raises(TypeError, match="Tensor"):
        np.exp(Tensor([1.0]))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Tensor([1.0, 2.5]), "Tensor([1. , 2.5])"),
        (lambda: Tensor([[1], [2]]), "Tensor([[1],\n        [2]])"),
        (lambda: Tensor(True), "Tensor(True)"),
        (lambda: Tensor([1.0], np.float64), "Tensor([1.], dtype=float64)"),
        (lambda: Tensor([1.0], requires_grad=True), "Tensor([1.], requires_grad=True)"),
    ],
)
def test_repr(make: Callable[[], Tensor], text: str) -> None:
    assert repr(make()) == text


def test_length_and_iteration() -> None:
    tensor = Tensor(MATRIX)
    assert len(tensor) == 2
    for row, want in zip(tensor, MATRIX, strict=True):
        check(row, want)
    for refused in (len, iter):
        with pytest.raises(TypeError, match="length"):
            refused(Tensor(1.0))


def test_hash_is_identity() -> None:
    one, same = Tensor([1.0]), Tensor([1.0])
    assert {one: "one", same: "same"}[same] == "same"


@pytest.mark.parametrize("clone", [copy.deepcopy, copy.copy, lambda tensor: pickle.loads(pickle.dumps(tensor))])
def test_copies_and_pickles(clone: Callable[[Tensor], Tensor]) -> None:
    tensor = Tensor(MATRIX, requires_grad=True)
    tensor.grad = ones(2, 3)
    twin = clone(tensor)
    check(twin, MATRIX)
    assert twin is not tensor and twin.requires_grad is True
    check(twin.grad, np.ones((2, 3)))
    assert np.shares_memory(twin.data, tensor.data) == (clone is copy.copy)
    check(twin * 2, MATRIX * 2)


# arithmetic and comparison

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
OTHERS: list[Any] = [
    2,
    0.5,
    np.float64(1.5),
    np.float32(3),
    np.array(2.5),
    [1.0, 2.0, 3.0],
    np.array([[2.0], [3.0]]),
    np.array([1, 2, 3]),
]


@pytest.mark.parametrize("wrap", [Tensor, lambda value: value], ids=["tensor", "plain"])
@pytest.mark.parametrize("other", OTHERS, ids=lambda other: f"{type(other).__name__}{np.shape(other)}")
@pytest.mark.parametrize("operate", OPERATORS)
def test_arithmetic_on_both_sides(operate: Callable[[Any, Any], Any], other: Any, wrap: Callable[[Any], Any]) -> None:
    positive, plain = np.abs(MATRIX), np.asarray(other, np.float64)
    check(operate(Tensor(positive), wrap(other)), operate(positive, plain), rtol=1e-5)
    check(operate(wrap(other), Tensor(positive)), operate(plain, positive), rtol=1e-5)


@pytest.mark.parametrize(
    ("compute", "dtype"),
    [
        (lambda: Tensor([1, 2]) + 1, np.int64),
        (lambda: Tensor([1, 2]) ** 2, np.int64),
        (lambda: Tensor([1, 2]) / 2, np.float32),
        (lambda: Tensor([1, 2]) * 0.5, np.float32),
        (lambda: Tensor([1, 2]) * Tensor([0.5]), np.float32),
        (lambda: Tensor([1.0], np.float64) * Tensor([1.0]), np.float64),
        (lambda: 1 - Tensor([1.0], np.float64), np.float64),
        (lambda: Tensor([1.0], np.float16) * 2.0, np.float16),
        (lambda: Tensor([4]).sqrt(), np.float32),
        (lambda: Tensor([1, 2]).mean(), np.float32),
        (lambda: Tensor([1, 2]).sum(), np.int64),
        (lambda: Tensor([1.0], np.float64).exp(), np.float64),
    ],
)
def test_dtype_of_results(compute: Callable[[], Tensor], dtype: Any) -> None:
    assert compute().dtype == dtype


def test_operations_make_new_memory() -> None:
    tensor = Tensor(MATRIX)
    before = tensor
    tensor += 1
    assert tensor is not before
    check(before, MATRIX)
    check(tensor, MATRIX + 1)


@pytest.mark.parametrize(
    ("operate", "words"),
    [
        (lambda x: x + ones(2), r"add: shapes \(2, 3\) and \(2,\) do not broadcast: lengths 3 and 2 differ"),
        (lambda x: np.ones(4) - x, r"sub: shapes \(4,\) and \(2, 3\) .* lengths 4 and 3 differ"),
        (lambda x: x * np.ones((3, 3)), "mul: .* lengths 2 and 3 differ"),
        (lambda x: x / ones(2, 2), "div: .* 3 and 2"),
        (lambda x: x ** ones(2), "pow: .* 3 and 2"),
        (lambda x: x.maximum(ones(2)), "maximum: .* 3 and 2"),
        (lambda x: x < ones(2), "less: .* 3 and 2"),
        (lambda x: where(x > 0, x, ones(2)), r"where: shapes \(2, 3\) and \(2,\)"),
        (lambda x: Tensor([1, 2]) ** -1, "negative"),
    ],
)
def test_errors_of_arithmetic(operate: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        operate(Tensor(MATRIX))


@pytest.mark.parametrize("other", ["a", None])
def test_no_number_no_arithmetic(other: Any) -> None:
    with pytest.raises(TypeError):
        Tensor([1.0]) * other


@pytest.mark.parametrize("wrap", [Tensor, lambda value: value], ids=["tensor", "plain"])
@pytest.mark.parametrize("other", [1.0, 4, MATRIX[0], MATRIX[:, :1], np.float64(0.5)], ids=str)
@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparison(compare: Callable[[Any, Any], Any], other: Any, wrap: Callable[[Any], Any]) -> None:
    check(compare(Tensor(MATRIX), wrap(other)), compare(MATRIX, np.asarray(other)), np.bool_)
    check(compare(wrap(other), Tensor(MATRIX)), compare(np.asarray(other), MATRIX), np.bool_)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "abs"])
def test_number_by_number(name: str) -> None:
    positive = np.abs(MATRIX)
    check(getattr(Tensor(positive), name)(), getattr(np, name)(positive))


def test_signs_maximum_where() -> None:
    tensor = Tensor(MATRIX)
    check(-tensor, -MATRIX)
    check(abs(tensor), np.abs(MATRIX))
    check(tensor.maximum(0), np.maximum(MATRIX, 0))
    check(maximum(np.zeros(3), tensor), np.maximum(MATRIX, 0))
    check(where(tensor > 0, tensor, 0), np.where(MATRIX > 0, MATRIX, 0))
    check(where([True, False, True], 1.0, tensor), np.where([True, False, True], 1, MATRIX))
    check(where(Tensor([[True], [False]]), arange(3), Tensor([7])), [[0, 1, 2], [7, 7, 7]], np.int64)


@pytest.mark.parametrize("dtype", [np.float64, "float16", int, np.uint8])
def test_astype(dtype: Any) -> None:
    tensor = Tensor([1.0, 2.0])
    check(tensor.astype(dtype), [1, 2], np.dtype(dtype))
    assert not np.shares_memory(tensor.astype(np.float32).data, tensor.data)


@pytest.mark.parametrize(
    ("left", "right"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (6, 3, 4))],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=left), rng.normal(size=right)
    check(Tensor(x) @ Tensor(y), x @ y, rtol=1e-4)
    check(x @ Tensor(y), x @ y, rtol=1e-4)
    check(Tensor(x, np.float64) @ y, x @ y, np.float64, rtol=1e-12)


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ((2, 3), (4, 5), r"matmul: \(2, 3\) @ \(4, 5\): inner dimensions 3 and 4 differ"),
        ((2, 3), (2,), "inner dimensions 3 and 2 differ"),
        ((), (2, 3), "axis"),
        ((2, 3), (), "axis"),
        ((2, 4, 5), (3, 5, 4), "batch .* lengths 2 and 3 differ"),
    ],
)
def test_errors_of_matmul(left: tuple[int, ...], right: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ones(left) @ ones(right)


# reductions


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (-1, 1), ()])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    want = getattr(np, name)(CUBE.astype(np.float64), axis=axis, keepdims=keepdims)
    check(getattr(Tensor(CUBE), name)(axis=axis, keepdims=keepdims), want, rtol=1e-5)


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("axis", [None, 1, (0, -1)])
def test_variance(axis: Any, correction: int) -> None:
    want = CUBE.astype(np.float64).var(axis=axis, ddof=correction, keepdims=True)
    check(Tensor(CUBE).var(axis, keepdims=True, correction=correction), want, rtol=1e-5)
    check(var(Tensor(CUBE), axis, True, correction), want, rtol=1e-5)


def test_variance_of_large_numbers() -> None:
    check(Tensor([10000.0, 10001.0, 10002.0]).var(), 1.0)


@pytest.mark.parametrize(("axis", "keepdims"), [(None, False), (0, False), (-1, True)])
def test_argmax(axis: Any, keepdims: bool) -> None:
    check(Tensor(CUBE).argmax(axis, keepdims), np.argmax(CUBE, axis=axis, keepdims=keepdims), np.int64)


@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_errors_of_reductions(name: str) -> None:
    with pytest.raises(IndexError, match=rf"{name}: shape \(2, 3\): axis 2 "):
        getattr(Tensor(MATRIX), name)(axis=2)
    if name != "sum":
        with pytest.raises(ValueError, match=rf"{name}: shape \(0,\)"):
            getattr(zeros(0), name)()


@pytest.mark.parametrize(("axis", "want"), [(None, 24), (0, 2), (-1, 4), ((0, -1), 8), ((), 1)])
def test_reduced_size(axis: Any, want: int) -> None:
    assert reduced_size((2, 3, 4), axis) == want


# shapes


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (lambda x: x.reshape(4, 6), CUBE.reshape(4, 6)),
        (lambda x: x.reshape((6, -1)), CUBE.reshape(6, 4)),
        (lambda x: x.T, CUBE.T),
        (lambda x: x.transpose(), CUBE.swapaxes(1, 2)),
        (lambda x: x.transpose(0, -1), CUBE.swapaxes(0, 2)),
        (lambda x: x.permute(2, 0, 1), CUBE.transpose(2, 0, 1)),
        (lambda x: x.permute((-1, 0, 1)), CUBE.transpose(2, 0, 1)),
        (lambda x: x.expand_dims(1), CUBE[:, None]),
        (lambda x: x.expand_dims(-1), CUBE[..., None]),
        (lambda x: x.expand_dims(0).squeeze(0), CUBE),
        (lambda x: x[:1, :, :1].squeeze(), CUBE[0, :, 0]),
        (lambda x: x[:1, :, :1].squeeze((0, -1)), CUBE[0, :, 0]),
    ],
)
def test_new_shapes_are_views(change: Callable[[Tensor], Tensor], want: Any) -> None:
    tensor = Tensor(CUBE)
    changed = change(tensor)
    check(changed, want)
    assert np.shares_memory(changed.data, tensor.data)


def test_reshape_of_a_transposed_tensor_copies() -> None:
    tensor = Tensor(MATRIX)
    flat = tensor.T.reshape(-1)
    check(flat, MATRIX.T.reshape(-1))
    assert not np.shares_memory(flat.data, tensor.data)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x.reshape(4, 2), ValueError, r"reshape: \(2, 3\) holds 6 numbers and cannot become \(4, 2\)"),
        (lambda x: x.permute(0, 0), ValueError, r"permute: \(0, 0\)"),
        (lambda x: x.permute(0, 2), ValueError, r"permute: \(0, 2\)"),
        (lambda x: x.transpose(0, 2), IndexError, "transpose: axis 2"),
        (lambda x: x.squeeze(1), ValueError, r"squeeze: axis 1 of shape \(2, 3\) has length 3, not 1"),
        (lambda x: x.squeeze(2), IndexError, "squeeze: axis 2"),
        (lambda x: x.expand_dims(-4), IndexError, "expand_dims: axis -4"),
    ],
)
def test_errors_of_shapes(change: Callable[[Tensor], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        change(Tensor(MATRIX))


def test_functions_on_shapes() -> None:
    assert tuple(broadcast_shape("add", (8, 1, 6, 1), (7, 1, 5))) == (8, 7, 6, 5)
    assert tuple(broadcast_shape("add", (1,), (0,))) == (0,)
    assert list(swapped_axes(3, 0, -1)) == [2, 1, 0]
    assert tuple(squeezed_shape((1, 2, 1), -1)) == (1, 2)
    assert tuple(squeezed_shape((1, 0))) == (0,)
    assert tuple(expanded_shape((), 0)) == (1,)
    assert tuple(c_strides((2, 3, 4), 4)) == CUBE.strides
    assert tuple(c_strides((3, 2), 8)) == (16, 8)


# indexing


@pytest.mark.parametrize(
    ("key", "shares"),
    [
        (1, True),
        (-1, True),
        (slice(None, None, 2), True),
        ((slice(None), 1), True),
        ((..., 0), True),
        (None, True),
        ([1, 0, 1], False),
        (np.array([[0], [1]]), False),
        ((np.array([0, 1]), slice(None), np.array([2, 2])), False),
        (CUBE > 0, False),
    ],
    ids=lambda value: str(value).replace("\n", ""),
)
def test_indexing(key: Any, shares: bool) -> None:
    tensor = Tensor(CUBE)
    check(tensor[key], CUBE[key])
    assert np.shares_memory(tensor[key].data, tensor.data) == shares


def test_indexing_with_tensors() -> None:
    tensor = Tensor(CUBE)
    check(tensor[Tensor([1, 0])], CUBE[[1, 0]])
    check(tensor[:, Tensor([2, 2])], CUBE[:, [2, 2]])
    check(tensor[tensor > 0], CUBE[CUBE > 0])


@pytest.mark.parametrize(("key", "words"), [(2, "index 2"), ((0, 0, 0, 0), "too many"), ([0.5], "integer")])
def test_errors_of_indexing(key: Any, words: str) -> None:
    with pytest.raises(IndexError, match=rf"getitem: shape \(2, 3, 4\): .*{words}"):
        Tensor(CUBE)[key]


def test_writing() -> None:
    tensor = Tensor(MATRIX)
    tensor[0] = 1
    tensor[1, Tensor([0, 1])] = Tensor([5.0, 6.0])
    check(tensor, [[1, 1, 1], [5, 6, -6]])
    tensor.requires_grad = True
    with pytest.raises(RuntimeError, match="requires a gradient"):
        tensor[0] = 0
    tensor.detach()[0] = 9.0
    check(tensor, [[9, 9, 9], [5, 6, -6]])


# joining and splitting


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_split_and_concatenate(axis: int) -> None:
    pieces = Tensor(CUBE).split(2, axis)
    assert [piece.shape[axis] for piece in pieces[:-1]] == [2] * (len(pieces) - 1)
    assert all(np.shares_memory(piece.data, pieces[0].data.base) for piece in pieces)
    check(concatenate(pieces, axis), CUBE)


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_stack(axis: int) -> None:
    check(stack([Tensor(MATRIX), Tensor(MATRIX + 1)], axis), np.stack([MATRIX, MATRIX + 1], axis))


def test_concatenate_takes_arrays_and_dtypes() -> None:
    check(concatenate([Tensor([1]), np.array([2])]), [1, 2], np.int64)
    check(concatenate([Tensor([1]), Tensor([0.5])]), [1, 0.5])


def test_split_by_a_list() -> None:
    sizes = [piece.shape for piece in split(Tensor(CUBE), [1, 0, 2], axis=1)]
    assert sizes == [(2, 1, 4), (2, 0, 4), (2, 2, 4)]


@pytest.mark.parametrize(
    ("join", "error", "words"),
    [
        (lambda x: concatenate([]), ValueError, "at least one"),
        (lambda x: concatenate([x, ones(2, 2)]), ValueError, r"concatenate: shapes \(2, 3\), \(2, 2\)"),
        (lambda x: concatenate([x, x], axis=2), IndexError, "concatenate: axis 2"),
        (lambda x: concatenate([Tensor(1.0)]), IndexError, "concatenate: axis 0"),
        (lambda x: stack([]), ValueError, "at least one"),
        (lambda x: stack([x, ones(2, 2)]), ValueError, "stack: shapes differ"),
        (lambda x: stack([x, x], axis=3), IndexError, "axis 3"),
        (lambda x: split(x, 0), ValueError, "split: .* 0"),
        (lambda x: split(x, [1, 1, 1]), ValueError, r"split: lengths \[1, 1, 1\] .* axis 0 of length 2"),
        (lambda x: split(x, [3, -1]), ValueError, r"split: lengths \[3, -1\]"),
        (lambda x: split(x, 1, axis=2), IndexError, "split: axis 2"),
    ],
)
def test_errors_of_joining(join: Callable[[Tensor], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        join(Tensor(MATRIX))


# the door


def test_the_recorder_is_told_of_every_operation() -> None:
    tensor = Tensor(MATRIX)
    with recording() as notes:
        result = apply(Op("scale", lambda x, y, by: x * y * by), tensor, 2.0, by=3)
    ((op, inputs, arrays, attrs, out),) = notes
    assert op.name == "scale" and attrs == {"by": 3}
    assert inputs[0] is tensor and inputs[1] == 2.0
    assert arrays[0] is tensor.data and type(arrays[1]) is float
    assert out is result
    check(out, MATRIX * 6)


@pytest.mark.parametrize(
    ("compute", "names"),
    [
        (lambda x: 2 * x - 1, ["mul", "sub"]),
        (lambda x: (x / 3) ** 2, ["div", "pow"]),
        (lambda x: -abs(x), ["abs", "neg"]),
        (lambda x: x @ x.T, ["permute", "matmul"]),
        (lambda x: x.exp().log().sqrt().tanh(), ["exp", "log", "sqrt", "tanh"]),
        (lambda x: x.max(0) + x.min(0), ["max", "min", "add"]),
        (lambda x: where(x > 0, x.maximum(0), 0), ["maximum", "where"]),
        (lambda x: x.astype(np.float64), ["cast"]),
        (lambda x: x.expand_dims(0).squeeze(0), ["reshape", "reshape"]),
        (lambda x: x.split(1), ["getitem", "getitem"]),
        (lambda x: stack([x, x]), ["reshape", "reshape", "concatenate"]),
        (lambda x: mean(x, axis=0), ["sum", "div"]),
        (lambda x: (x == x, x.argmax(), x.detach()), []),
    ],
)
def test_what_passes_the_door(compute: Callable[[Tensor], Any], names: list[str]) -> None:
    with recording() as notes:
        compute(ones(2, 3))
    assert [note[0].name for note in notes] == names


def test_variance_passes_the_door_in_parts() -> None:
    with recording() as notes:
        Tensor(MATRIX).var(axis=0)
    assert {"sub", "sum", "div"} <= {note[0].name for note in notes}


def test_set_recorder_returns_the_one_before() -> None:
    def mine(*note: Any) -> None: ...

    before = set_recorder(mine)
    assert set_recorder(before) is mine


def test_backward_without_notes_says_so() -> None:
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        Tensor([1.0]).backward()
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        (Tensor([1.0]) * 2).backward()


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [value.name for value in vars(module).values() if isinstance(value, Op)]
    assert len(names) == len(set(names)) >= 20
