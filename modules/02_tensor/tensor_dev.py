# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tensor
#
# > Tensors: arrays that know their dtype rules, name their errors, and pass every operation through one door.
#
# A neural network is arithmetic on tables of numbers: a picture is a table of brightness, a sentence is a table of
# word vectors, the network's knowledge is a pile of tables called weights. NumPy already multiplies tables, so why
# does every framework begin by wrapping the array in a class of its own?
#
# Three reasons, and this module builds all three:
#
# 1. **One number format.** NumPy silently doubles your memory when you type `0.5`. Training wants 4-byte floats.
# 2. **Errors that help.** `operands could not be broadcast together` is no message at 2 a.m. in layer 37.
# 3. **One door.** If every operation passes through a single function, then that function can take notes. In
#    module 06 these notes become gradients, and not a line of this module will have to change.
#
# ```
#    you write          the door            the arithmetic
#    x * w + b   --->   apply(MUL, x, w)  --->  np.multiply
#                       apply(ADD, .., b) --->  np.add
#                            |
#                            +--> takes notes, from module 06 on
# ```
#
# Plan for about five hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.tensor
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate, pairwise
from operator import index
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None

# %%
from tinytorch.core.setup import measure

# %% [markdown]
# ## 1. What is in the box?
#
# Before you run the next cell, write down your prediction: which dtype does each of these arrays get, and how many
# bytes does one of its numbers take?

# %%
for label, array in {
    "np.array([1, 2, 3])": np.array([1, 2, 3]),
    "np.array([1, 2, 3]) / 2": np.array([1, 2, 3]) / 2,
    "np.array([0.5])": np.array([0.5]),
    "np.float32 array * 0.5": np.ones(3, np.float32) * 0.5,
    "np.float32 array * np.array(0.5)": np.ones(3, np.float32) * np.array(0.5),
}.items():
    print(f"{label:34} {array.dtype!s:8} {array.itemsize} bytes")

# %% [markdown]
# The last two lines differ by nothing but a wrapper around `0.5`, and one of them has doubled. A Python number adapts
# to the array it meets; an array never does. One careless `np.array(0.5)` in a model turns all that follows it into
# float64: twice the memory, and about half the speed.
#
# So our tensors follow PyTorch's rule:
#
# | what you give | what the tensor holds |
# |---|---|
# | Python floats, float64 arrays | `float32` |
# | integers | `int64` (token ids and labels are counted, never rounded) |
# | booleans; arrays of float16, float32 or uint8 | as they are |
# | anything, with `dtype=...` | that dtype |
#
# ### Exercise: `as_array`

# %% nbgrader={"grade": false, "grade_id": "tensor-as-array", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def as_array(data: Any, dtype: DTypeLike | None = None) -> Array:
    """Copy ``data`` into a new NumPy array under the tensor's dtype rule.

    Parameters
    ----------
    data
        A number, a (nested) list or tuple of numbers, an array or a Tensor.
    dtype
        The dtype to use. By default float64 becomes float32, every signed integer type becomes int64, and all else
        (booleans, float16, uint8) stays.

    Raises
    ------
    ValueError
        If the rows of a nested list differ in length.
    TypeError
        If ``data`` is not made of numbers or booleans.

    TODO: Apply the rule to `array` and return the result, which must not share memory with `data`.

    APPROACH:
    1. If a dtype is given, use it.
    2. Otherwise look at `array.dtype`: np.float64 gives np.float32; a signed integer type (`array.dtype.kind == "i"`)
       gives np.int64; anything else keeps its dtype.
    3. Convert with `array.astype(...)`, which copies.

    EXAMPLE:
    >>> as_array([1.5, 2]).dtype, as_array([1, 2]).dtype, as_array([1, 2], np.float64).dtype
    (dtype('float32'), dtype('int64'), dtype('float64'))

    HINT: np.asarray on an array returns that very array, so "nothing to convert" still needs a copy.
    """
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"Tensor: the rows differ in length, so this is no table of numbers ({error})") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: expected numbers, got {type(data).__name__} with dtype {array.dtype}")
    ### BEGIN SOLUTION
    if dtype is None and array.dtype == np.float64:
        dtype = np.float32
    elif dtype is None and array.dtype.kind == "i":
        dtype = np.int64
    return array.astype(array.dtype if dtype is None else dtype)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-as-array", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_as_array():
    for data, want in [
        (1.5, np.float32),
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        (np.ones(2, np.float64), np.float32),
        (np.ones(2, np.float16), np.float16),
        (np.ones(2, np.int32), np.int64),
        (np.ones(2, np.uint8), np.uint8),
    ]:
        got = as_array(data)
        close(got, np.asarray(data), dtype=want, what=f"as_array({data!r})", why="check the table of the dtype rule")
    close(as_array([1, 2], np.float64), [1, 2], dtype=np.float64, why="a dtype that is given wins over the rule")
    close(as_array(np.ones(2), np.float64), [1, 1], dtype=np.float64, why="a dtype that is given wins over the rule")
    mine = np.zeros(3, np.float32)
    copy = as_array(mine)
    mine[0] = 7
    close(copy, [0, 0, 0], why="the array changed together with the caller's: copy, do not share")
    with raises(ValueError, "length"):
        as_array([[1, 2], [3]])
    with raises(TypeError, "numbers"):
        as_array("three")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().normal(size=(2, 3, 4))
    close(as_array(drawn), drawn, dtype=np.float32)
    close(as_array(drawn.tolist()), drawn, dtype=np.float32)
    close(as_array(drawn, np.float64), drawn, dtype=np.float64, rtol=0, atol=0)
    same = drawn.astype(np.int64)
    held = as_array(same)
    same += 1
    close(held, drawn.astype(np.int64), dtype=np.int64)
    ### END HIDDEN TESTS


test_as_array()

# %% [markdown]
# ## 2. The class, as a table of contents
#
# Here is the whole `Tensor`. Read it as a table of contents: nearly every method is one line that says which
# *operation* it is, and the operations are what the rest of this module builds. (The lines name things that do not
# exist yet. Python looks a name up when the line runs, not when it is written.)
#
# Three things to notice on the way:
#
# - `__slots__` lists the only attributes a tensor has: its numbers, whether a gradient is wanted, the gradient, and a
#   place for the notes of module 06. A typo such as `t.grda = 0` is an error, not a mystery.
# - `__array_ufunc__ = None` tells NumPy to keep its hands off: in `array * tensor` it is the tensor that answers.
# - Comparisons and `argmax` do not pass the door. Their answers are True, False and whole numbers; nothing can flow
#   back through those, so there is nothing to take notes of.
#
# ### Exercise: the constructor and `item`
#
# Two blanks, in `__init__` and in `item`.

# %% nbgrader={"grade": false, "grade_id": "tensor-class", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
_new = object.__new__  # makes an object, and leaves __init__ out


class Tensor:
    """An n-dimensional array with dtype rules, named errors and room for a gradient.

    Parameters
    ----------
    data
        A number, a (nested) list, an array or a Tensor. It is copied; ``from_numpy`` shares instead.
    dtype
        By default floats become float32 and integers int64; see ``as_array``.
    requires_grad
        Whether module 06 shall compute ``grad`` for this tensor. Only floating-point tensors can.

    Raises
    ------
    ValueError, TypeError
        If ``data`` is not a table of numbers.
    TypeError
        If ``requires_grad`` is set and the numbers are not floating-point.

    TODO: Fill in the two blanks: `__init__` sets four attributes, `item` returns a Python number.

    APPROACH:
    1. `__init__`: `data` by the dtype rule; `requires_grad` through its setter below (which checks it); `grad` None.
    2. `item`: a tensor of any shape with exactly one number returns it (NumPy's `.item()` does that); any other size
       raises a ValueError that names the shape.

    EXAMPLE:
    >>> t = Tensor([[1.5, 2.0]]); t.shape, t.dtype, t.size
    ((1, 2), dtype('float32'), 2)
    >>> Tensor([[3.0]]).item()
    3.0

    HINT: The setter of `requires_grad` looks at `self.data`, so set `data` first.
    """

    __slots__ = ("__weakref__", "_node", "_requires_grad", "data", "grad")
    __array_ufunc__ = None

    data: Array
    grad: Tensor | None

    def __init__(self, data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> None:
        self._node: Any = None  # the notes of module 06: how this tensor was computed
        ### BEGIN SOLUTION
        self.data = as_array(data, dtype)
        self.grad = None
        self.requires_grad = requires_grad
        ### END SOLUTION

    @staticmethod
    def _wrap(array: Array) -> Tensor:
        """A tensor around ``array`` itself, unconverted: how the door makes its results."""
        tensor = _new(Tensor)
        tensor.data = array
        tensor.grad = tensor._node = None
        tensor._requires_grad = False
        return tensor

    # what it is

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted for this tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted and self.data.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floating-point tensors have gradients, this one is {self.dtype}")
        self._requires_grad = bool(wanted)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""
        return self.data.dtype

    @property
    def T(self) -> Tensor:  # noqa: N802
        """The tensor with its axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    # out of the tensor

    def item(self) -> int | float | bool:
        """The only number of a tensor of size 1, as a Python number; ValueError for any other size."""
        ### BEGIN SOLUTION
        if self.size != 1:
            raise ValueError(f"item: the tensor has shape {self.shape}, so {self.size} numbers; it needs exactly one")
        return self.data.item()  # type: ignore[no-any-return]
        ### END SOLUTION

    def numpy(self) -> Array:
        """The tensor's own array, shared: writing into it changes the tensor."""
        return self.data

    def tolist(self) -> Any:
        """The numbers as nested Python lists."""
        return self.data.tolist()

    def detach(self) -> Tensor:
        """A tensor on the same memory that no gradient flows through."""
        return Tensor._wrap(self.data)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        numbers = np.array2string(self.data, separator=", ", prefix="Tensor(")
        kind = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        return f"Tensor({numbers}{kind}{', requires_grad=True' if self.requires_grad else ''})"

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a tensor of shape () has no length")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    # arithmetic: on either side a tensor, an array or a number

    def __add__(self, other: Any) -> Tensor:
        return apply(ADD, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(ADD, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(SUB, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(SUB, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(MUL, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(MUL, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(DIV, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(DIV, other, self)

    def __pow__(self, other: Any) -> Tensor:
        return apply(POW, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return apply(POW, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return apply(MATMUL, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply(MATMUL, other, self)

    def __neg__(self) -> Tensor:
        return apply(NEG, self)

    def __abs__(self) -> Tensor:
        return apply(ABS, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return compare(np.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return compare(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return compare(np.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return compare(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return compare(np.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return compare(np.greater_equal, self, other)

    __hash__ = object.__hash__

    # number by number

    def exp(self) -> Tensor:
        """e to the power of each number."""
        return apply(EXP, self)

    def log(self) -> Tensor:
        """The natural logarithm of each number."""
        return apply(LOG, self)

    def sqrt(self) -> Tensor:
        """The square root of each number."""
        return apply(SQRT, self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent of each number."""
        return apply(TANH, self)

    def abs(self) -> Tensor:
        """The absolute value of each number."""
        return apply(ABS, self)

    def maximum(self, other: Any) -> Tensor:
        """The larger of the two at each place; see the function ``maximum``."""
        return maximum(self, other)

    def astype(self, dtype: DTypeLike) -> Tensor:
        """The numbers as another dtype (a copy)."""
        return apply(CAST, self, dtype=np.dtype(dtype))

    # reductions

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over ``axis`` (all axes by default)."""
        return apply(SUM, self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over ``axis``; see the function ``mean``."""
        return mean(self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
        """The variance over ``axis``; see the function ``var``."""
        return var(self, axis, keepdims, correction)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The largest number along ``axis`` (of all by default)."""
        return apply(MAX, self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The smallest number along ``axis`` (of all by default)."""
        return apply(MIN, self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the largest number stands along ``axis`` (in the flattened tensor by default), as int64."""
        return Tensor._wrap(np.asarray(np.argmax(self.data, axis=axis, keepdims=keepdims)))

    # shapes

    def reshape(self, *shape: Any) -> Tensor:
        """The same numbers in another shape; one length may be -1."""
        return apply(RESHAPE, self, shape=_as_shape(shape))

    def permute(self, *axes: Any) -> Tensor:
        """The axes in another order."""
        return apply(PERMUTE, self, axes=_as_shape(axes))

    def transpose(self, axis0: int = -2, axis1: int = -1) -> Tensor:
        """The tensor with two axes swapped (by default the last two)."""
        return self.permute(*swapped_axes(self.ndim, axis0, axis1))

    def squeeze(self, axis: Axis = None) -> Tensor:
        """The tensor without its axes of length 1, or without just those in ``axis``."""
        return self.reshape(squeezed_shape(self.shape, axis))

    def expand_dims(self, axis: int) -> Tensor:
        """The tensor with a new axis of length 1 at position ``axis``."""
        return self.reshape(expanded_shape(self.shape, axis))

    def split(self, size: int | Sequence[int], axis: int = 0) -> list[Tensor]:
        """The tensor in pieces; see the function ``split``."""
        return split(self, size, axis)

    def __getitem__(self, key: Any) -> Tensor:
        return apply(GETITEM, self, key=_as_key(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.requires_grad:
            raise RuntimeError("tensor[...] = value: this tensor requires a gradient; write to its .data instead")
        self.data[_as_key(key)] = value.data if isinstance(value, Tensor) else value

    # gradients: the notes come with module 06

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Compute the gradient of this tensor with respect to every tensor that it was computed from.

        Parameters
        ----------
        gradient
            The gradient of the final result with respect to this tensor, of its shape; may be left out for size 1.
        retain_graph
            Keep the notes, so that ``backward`` can be called again.

        Raises
        ------
        RuntimeError
            If nothing was recorded: no input required a gradient, recording was off, or module 06 is not built.
        """
        if self._node is None:
            raise RuntimeError(
                "backward: nothing was recorded for this tensor. Either no tensor in its computation has "
                "requires_grad=True, or it was computed under no_grad, or module 06_autograd is not there yet"
            )
        self._node.backward(self, gradient, retain_graph)


def _as_shape(lengths: tuple[Any, ...]) -> tuple[int, ...]:
    """Let ``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    if len(lengths) == 1 and isinstance(lengths[0], (tuple, list)):
        lengths = tuple(lengths[0])
    return tuple(index(length) for length in lengths)


def _as_key(key: Any) -> Any:
    """An index with its tensors replaced by their arrays, since NumPy indexes with arrays."""
    if isinstance(key, tuple):
        return tuple(_as_key(part) for part in key)
    return key.data if isinstance(key, Tensor) else key

# %% nbgrader={"grade": true, "grade_id": "test-tensor-class", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_tensor_class():
    t = Tensor([[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]])
    close(t.data, [[1.5, 2, 3], [4, 5, 6]], dtype=np.float32)
    assert (t.shape, t.ndim, t.size) == ((2, 3), 2, 6), "shape, ndim and size come from the array in .data"
    assert t.grad is None and t.requires_grad is False, "a fresh tensor has no gradient and wants none"
    close(Tensor([1, 2]).data, [1, 2], dtype=np.int64, why="use as_array, which knows the dtype rule")
    close(Tensor([1, 2], dtype=np.float64).data, [1, 2], dtype=np.float64, why="pass the dtype on to as_array")
    assert Tensor([1.0], requires_grad=True).requires_grad is True, "keep what the caller asked for"
    with raises(TypeError, "floating-point", why="set requires_grad through the property, which checks the dtype"):
        Tensor([1, 2], requires_grad=True)
    with raises(AttributeError):
        t.colour = "red"
    number = Tensor([[3.0]]).item()
    assert type(number) is float and number == 3.0, f"item() should be the Python float 3.0, got {number!r}"
    with raises(ValueError, "(2, 3)", why="item() of six numbers has no answer: name the shape"):
        t.item()
    ### BEGIN HIDDEN TESTS
    with raises(ValueError, "(0,)"):
        Tensor([]).item()
    whole = int(np.random.default_rng().integers(1000))
    assert type(Tensor(whole).item()) is int and Tensor(whole).item() == whole
    assert Tensor([[True]]).item() is True
    outside = np.zeros(2, np.float32)
    inside = Tensor(outside)
    outside += 1
    close(inside.data, [0, 0])
    ### END HIDDEN TESTS


test_tensor_class()

# %% [markdown]
# ## 3. The one door
#
# An **operation** is a name and a function on arrays. That is all:
#
# ```python
# @dataclass
# class Op:
#     name: str
#     forward: Callable
# ```
#
# (The one below has a third field, for errors in better words than NumPy's. Section 4 uses it.)
#
# `apply` is the door. It takes the arrays out of the tensors, lets the operation compute, wraps the result, and, if
# somebody asked to be told, tells them. Nobody has asked yet: `_recorder` is `None` until module 06 sets it. Such a
# place, where a later part can be plugged in without cutting anything open, is called a **seam**.
#
# One more duty: NumPy gives float64 whenever integers are divided, or an int64 array meets a float32 one. The door is
# where we stop that: **a float64 result is kept only if a float64 tensor went in**, or if the operation was asked for a
# dtype, as `astype` asks.
#
# ### Exercise: `apply`

# %% nbgrader={"grade": false, "grade_id": "tensor-apply", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass(frozen=True, slots=True)
class Op:
    """An operation: what it is called, and how it computes arrays from arrays.

    If ``forward`` raises ValueError, ``explain(name, *arrays)`` may raise one that says it better than NumPy does.
    """

    name: str
    forward: Callable[..., Any]
    explain: Callable[..., Any] | None = None


FLOAT64 = np.dtype(np.float64)

Recorder = Callable[[Op, tuple[Any, ...], list[Any], dict[str, Any], Tensor], None]

_recorder: Recorder | None = None


def set_recorder(recorder: Recorder | None) -> Recorder | None:
    """Let ``recorder(op, inputs, arrays, attrs, out)`` be told of every operation; returns the one before."""
    global _recorder
    previous, _recorder = _recorder, recorder
    return previous


def apply(op: Op, *inputs: Any, **attrs: Any) -> Tensor:
    """Carry out ``op`` on ``inputs``: the one door that every operation passes.

    Parameters
    ----------
    op
        The operation; ``op.forward(*arrays, **attrs)`` computes the result.
    inputs
        Tensors, arrays, lists or numbers. Plain numbers reach ``forward`` as they are, so that they adapt to the
        dtype of the arrays they meet.
    attrs
        What else the operation needs: an axis, a shape.

    Returns
    -------
    Tensor
        The result; float64 only if one of the input tensors is, or if ``attrs`` holds a ``dtype``.

    TODO: Make `arrays`, keep float64 out of the result, wrap it and tell the recorder.

    APPROACH:
    1. `arrays`: for each input its `.data` if it is a Tensor, else `_plain(x)`.
    2. The operation computes `result`; that is here already.
    3. If the result is float64, but no input is a *Tensor* of float64 and there is no "dtype" in `attrs`, make it
       float32. (`result.dtype == FLOAT64`: two dtypes are compared faster than a dtype and the type np.float64.)
    4. `out = Tensor._wrap(result)`; if `_recorder` is set, call it with (op, inputs, arrays, attrs, out).

    EXAMPLE:
    >>> apply(Op("double", lambda x: x + x), Tensor([1.0, 2.0]))
    Tensor([2., 4.])

    HINT: `inputs` holds what the caller passed, tensors included; `arrays` is what the operation saw. The recorder
    wants both.
    """
    ### BEGIN SOLUTION
    arrays = []
    for x in inputs:
        arrays.append(x.data if isinstance(x, Tensor) else _plain(x))
    ### END SOLUTION
    try:
        result = op.forward(*arrays, **attrs) if attrs else op.forward(*arrays)
    except ValueError:
        if op.explain is not None:
            op.explain(op.name, *arrays)
        raise
    if type(result) is not ndarray:
        result = np.asarray(result)
    ### BEGIN SOLUTION
    if result.dtype == FLOAT64 and not (
        "dtype" in attrs or any(isinstance(x, Tensor) and x.data.dtype == FLOAT64 for x in inputs)
    ):
        result = result.astype(np.float32)
    out = _new(Tensor)  # these four lines: Tensor._wrap(result), without the call
    out.data = result
    out.grad = out._node = None
    out._requires_grad = False
    if _recorder is not None:
        _recorder(op, inputs, arrays, attrs, out)
    return out
    ### END SOLUTION


def _plain(value: Any) -> Any:
    """A Python number as it is, anything else as an array."""
    return value if type(value) in (int, float, bool) else np.asarray(value)

# %% nbgrader={"grade": true, "grade_id": "test-tensor-apply", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def noted(function, *args, **kwargs):
    """The result of a call, and what the recorder was told meanwhile."""
    notes = []
    before = set_recorder(lambda *note: notes.append(note))
    try:
        return function(*args, **kwargs), notes
    finally:
        set_recorder(before)


def test_apply():
    scale = Op("scale", lambda x, by=1: x * by)
    plus = Op("plus", lambda x, y: x + y)
    divide = Op("divide", lambda x, y: x / y)
    close(apply(scale, Tensor([1.0, 2.0]), by=3).data, [3, 6], dtype=np.float32, why="pass **attrs to op.forward")
    close(apply(plus, Tensor([1.0]), 0.5).data, [1.5], dtype=np.float32)
    close(apply(plus, Tensor([1.0]), [0.5]).data, [1.5], dtype=np.float32, why="a list or float64 array is no tensor")
    close(apply(divide, Tensor([1, 2]), 2).data, [0.5, 1], dtype=np.float32, why="int / int is float64 in NumPy")
    close(apply(plus, Tensor([1]), Tensor([0.5])).data, [1.5], dtype=np.float32, why="int64 + float32 is float64")
    close(apply(plus, Tensor([1.0], dtype=np.float64), 1).data, [2], dtype=np.float64, why="a float64 tensor went in")
    cast = Op("cast", lambda x, dtype: x.astype(dtype))
    close(apply(cast, Tensor([1.0]), dtype=np.float64).data, [1], dtype=np.float64, why='attrs asks for a "dtype"')
    close(apply(plus, Tensor([1]), 1).data, [2], dtype=np.int64)
    half = Tensor(np.ones(1, np.float16))
    close(apply(plus, half, 0.5).data, [1.5], dtype=np.float16, why="plain numbers reach op.forward as they are")
    x = Tensor([1.0, 2.0])
    out, notes = noted(apply, scale, x, by=3)
    assert len(notes) == 1, f"the recorder should be told once, it was told {len(notes)} times"
    op, inputs, arrays, attrs, told = notes[0]
    assert op is scale and inputs[0] is x and told is out, "the recorder gets (op, inputs, arrays, attrs, out)"
    assert attrs == {"by": 3}
    close(arrays[0], [1, 2], why="arrays holds what op.forward saw")
    assert out.grad is None and out._node is None, "the result has no gradient yet, and no notes"
    assert out.requires_grad is False, "whether the result requires a gradient is for the recorder to say"
    apply(scale, x)
    assert len(notes) == 1, "with no recorder set, nobody is told"
    ### BEGIN HIDDEN TESTS
    _, notes = noted(apply, plus, x, [1.0, 2.0])
    assert notes[0][2][1].shape == (2,), "a list reaches op.forward as an array"
    left, right = np.random.default_rng().normal(size=(2, 5))
    close(apply(plus, left, Tensor(right)).data, left + right, dtype=np.float32)
    close(apply(plus, left, Tensor(right, dtype=np.float64)).data, left + right, dtype=np.float64, rtol=1e-12)
    total = apply(Op("total", np.sum), Tensor(left))
    assert type(total.data) is np.ndarray and total.shape == (), "a single number is an array of shape ()"
    ### END HIDDEN TESTS


test_apply()

# %% [markdown]
# ## 4. Arithmetic, and what happens when shapes differ
#
# Adding a bias of shape (3,) to a batch of shape (2, 3) works because NumPy *broadcasts*: it lines the shapes up at
# the right, and an axis of length 1 (or a missing one) stretches to fit, without copying.
#
# ```
#       x    (2, 3)         x    (2, 3)         x   (2, 3)
#       b       (3,)        c    (2, 1)         d      (2,)
#            ------              ------             ------
#            (2, 3)              (2, 3)             3 against 2: error
# ```
#
# Predict before you run: what is the shape of `(8, 1, 6, 1)` with `(7, 1, 5)`? And of `(3,)` with `(3, 1)`?

# %%
print(np.broadcast_shapes((8, 1, 6, 1), (7, 1, 5)), np.broadcast_shapes((3,), (3, 1)))

# %% [markdown]
# The second one is the famous trap: targets of shape (3,) minus predictions of shape (3, 1) give a 3 x 3 table. Its
# mean square looks like a loss and falls like one, while every prediction is pulled towards all three targets at once.
#
# ### Exercise: `broadcast_shape`
#
# Write the rule yourself, with an error that says which operation, which shapes and which lengths clash.

# %% nbgrader={"grade": false, "grade_id": "tensor-broadcast-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def broadcast_shape(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that two shapes broadcast to.

    Source: the rule of NumPy's manual, "Broadcasting".

    Raises
    ------
    ValueError
        If two lengths differ and neither is 1; it names the operation, the shapes and the lengths.

    TODO: Walk both shapes from the right and collect the length of each axis of the result.

    APPROACH:
    1. Pad the shorter shape with 1s on the left, so that both have the same number of axes.
    2. For each pair of lengths: equal, take it; one of them is 1, take the other; else raise ValueError
       `f"{name}: shapes {a} and {b} do not broadcast: lengths {m} and {n} differ"`.

    EXAMPLE:
    >>> broadcast_shape("add", (2, 1), (3,))
    (2, 3)

    HINT: A length of 0 is a length: (1,) with (0,) gives (0,), so max() is not the answer.
    """
    ### BEGIN SOLUTION
    axes = max(len(a), len(b))
    padded_a, padded_b = (1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b
    joined = []
    for m, n in zip(padded_a, padded_b, strict=True):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{name}: shapes {a} and {b} do not broadcast: lengths {m} and {n} differ")
        joined.append(n if m == 1 else m)
    return tuple(joined)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-broadcast-shape", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_broadcast_shape():
    for a, b, want in [
        ((2, 3), (3,), (2, 3)),
        ((3,), (2, 3), (2, 3)),
        ((2, 1), (3,), (2, 3)),
        ((8, 1, 6, 1), (7, 1, 5), (8, 7, 6, 5)),
        ((), (4,), (4,)),
        ((1,), (0,), (0,)),
    ]:
        got = broadcast_shape("add", a, b)
        assert type(got) is tuple and got == want, f"{a} with {b}: expected the tuple {want}, got {got}"
    with raises(ValueError, "add", "(2, 3)", "(2,)", "3 and 2"):
        broadcast_shape("add", (2, 3), (2,))
    ### BEGIN HIDDEN TESTS
    lengths = np.random.default_rng()
    for _pair in range(50):
        full = lengths.integers(1, 5, size=4)
        left = tuple(int(n) for n in np.where(lengths.random(4) < 0.4, 1, full))[int(lengths.integers(0, 4)) :]
        right = tuple(int(n) for n in np.where(lengths.random(4) < 0.4, 1, full))
        assert tuple(broadcast_shape("mul", left, right)) == np.broadcast_shapes(left, right), (left, right)
    with raises(ValueError, "mul", "(4, 1, 3)", "(4,)", "3 and 4", why="only lengths of 1 stretch"):
        broadcast_shape("mul", (4, 1, 3), (4,))
    ### END HIDDEN TESTS


test_broadcast_shape()

# %% [markdown]
# NumPy's own code broadcasts faster than ours could; we call it first, and only when it fails does our function
# explain why. With that, arithmetic is a table.

# %%
#| export
def check_broadcast(name: str, *arrays: Any) -> None:
    """Raise ValueError, in our words, if the shapes of ``arrays`` do not broadcast."""
    reduce(partial(broadcast_shape, name), map(np.shape, arrays))


def elementwise(name: str, function: Callable[..., Any]) -> Op:
    """The operation that applies ``function`` place by place to inputs that broadcast."""
    return Op(name, function, check_broadcast)


ADD = elementwise("add", np.add)
SUB = elementwise("sub", np.subtract)
MUL = elementwise("mul", np.multiply)
DIV = elementwise("div", np.divide)
POW = elementwise("pow", np.power)
MAXIMUM = elementwise("maximum", np.maximum)
WHERE = elementwise("where", np.where)
NEG = Op("neg", np.negative)
ABS = Op("abs", np.abs)
EXP = Op("exp", np.exp)
LOG = Op("log", np.log)
SQRT = Op("sqrt", np.sqrt)
TANH = Op("tanh", np.tanh)
CAST = Op("cast", lambda x, dtype: x.astype(dtype))


def compare(ufunc: Callable[..., Any], x: Any, y: Any) -> Tensor:
    """The boolean tensor of ``ufunc(x, y)``; it passes no door, since nothing flows back through True and False."""
    arrays = _data(x), _data(y)
    try:
        return Tensor._wrap(np.asarray(ufunc(*arrays)))
    except ValueError:
        check_broadcast(ufunc.__name__, *arrays)
        raise


def _data(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else _plain(value)


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of ``x`` and ``y`` at each place, broadcast."""
    return apply(MAXIMUM, x, y)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """``x`` where ``condition`` is true and ``y`` elsewhere, broadcast."""
    return apply(WHERE, condition, x, y)

# %%
x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
bias = np.array([10.0, 20.0, 30.0])
print(x + bias)
print(bias - x)
print(2 ** x > 7)

# %% [markdown]
# ## 5. Matrix product: three loops, then one call
#
# Most of the time of a network is spent in `@`. Each number of the result is a row of the left times a column of the
# right, multiplied place by place and added up:
#
# ```
#        (2, 3)   @   (3, 4)   ->   (2, 4)
#           |          |
#           +-- inner -+  must agree: that is the sum
# ```
#
# ### Exercise: `matmul_loops`
#
# Write it once with loops, so that you have seen what happens. Then we measure what that costs.

# %% nbgrader={"grade": false, "grade_id": "tensor-matmul-loops", "locked": false, "schema_version": 3, "solution": true, "task": false}
def matmul_loops(x, y):
    """The matrix product of two 2-D arrays, number by number.

    TODO: Fill `out[i, j]` with the sum over k of `x[i, k] * y[k, j]`.

    APPROACH:
    1. Three nested loops: rows of x, columns of y, the inner length.
    2. Add up into `out[i, j]`.

    EXAMPLE:
    >>> matmul_loops(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])

    HINT: x has shape (rows, inner), y has shape (inner, columns).
    """
    out = np.zeros((x.shape[0], y.shape[1]))
    ### BEGIN SOLUTION
    for i in range(x.shape[0]):
        for j in range(y.shape[1]):
            for k in range(x.shape[1]):
                out[i, j] += x[i, k] * y[k, j]
    ### END SOLUTION
    return out

# %% nbgrader={"grade": true, "grade_id": "test-tensor-matmul-loops", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_matmul_loops():
    close(matmul_loops(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])), [[11]])
    close(
        matmul_loops(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])),
        [[2, 1], [4, 3]],
        why="the right matrix swaps columns; if rows were swapped, the indices of x and y are mixed up",
    )
    ### BEGIN HIDDEN TESTS
    factors = np.random.default_rng()
    for rows, inner, columns in [(2, 3, 4), (4, 1, 2), (1, 5, 1)]:
        p, q = factors.normal(size=(rows, inner)), factors.normal(size=(inner, columns))
        close(matmul_loops(p, q), p @ q)
    ### END HIDDEN TESTS


test_matmul_loops()

# %% [markdown]
# Predict: two matrices of 64 x 64 need 64³ = 262,144 multiplications. By which factor is NumPy's `@` faster than your
# loops: 10, 100 or more?

# %%
square = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
loops, blas = measure(matmul_loops, square, square, repeats=3), measure(np.matmul, square, square, repeats=20)
print(f"loops {loops.median_s * 1e3:8.1f} ms")
print(f"@     {blas.median_s * 1e3:8.4f} ms   {loops.median_s / blas.median_s:,.0f}x")

# %% [markdown]
# On the machine this was written on (2 cores, NumPy 2.4) the loops took 150 ms and `@` took 0.006 ms: a factor of some
# 25,000. The loops pay Python's bookkeeping 262,144 times; `@` multiplies 8 or 16 pairs with one instruction, and takes
# the numbers in an order in which they are in the cache when they are needed.
#
# So vectorised code it is, from here to the end of the course. What is left for us is the message.
#
# ### Exercise: `matmul_forward`

# %% nbgrader={"grade": false, "grade_id": "tensor-matmul", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def matmul_forward(x: Array, y: Array) -> Array:
    """The matrix product over the last two axes, batched over the axes before them, as ``numpy.matmul``.

    Parameters
    ----------
    x, y
        Arrays of shape (..., n, k) and (..., k, m); a 1-D array is a row on the left and a column on the right.

    Returns
    -------
    Array
        Of shape (..., n, m); the axis of a 1-D input is left out.

    Raises
    ------
    ValueError
        If an input has no axes, if the inner dimensions differ, or if the batch axes do not broadcast.

    TODO: Check, with clear errors, then call np.matmul.

    APPROACH:
    1. An input of shape () (`np.ndim(...) == 0`): ValueError that says matmul needs at least one axis and suggests `*`.
    2. The inner dimensions are `x.shape[-1]` and `y.shape[-2]` (for a 1-D y: `y.shape[0]`). If they differ, raise
       `f"matmul: {x.shape} @ {y.shape}: inner dimensions {k} and {n} differ"`.
    3. `broadcast_shape` on all but the last two axes explains batches that do not fit.

    EXAMPLE:
    >>> matmul_forward(np.ones((2, 3)), np.ones((4, 5)))
    Traceback (most recent call last):
    ...
    ValueError: matmul: (2, 3) @ (4, 5): inner dimensions 3 and 4 differ

    HINT: `y.shape[-2:][0]` is the inner length for 1-D and 2-D alike.
    """
    ### BEGIN SOLUTION
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        raise ValueError(f"matmul: {np.shape(x)} @ {np.shape(y)}: each side needs at least one axis; to scale, use *")
    k, n = x.shape[-1], y.shape[-2:][0]
    if k != n:
        raise ValueError(f"matmul: {x.shape} @ {y.shape}: inner dimensions {k} and {n} differ")
    broadcast_shape("matmul (batch axes)", x.shape[:-2], y.shape[:-2])
    return np.matmul(x, y)  # type: ignore[no-any-return]
    ### END SOLUTION


MATMUL = Op("matmul", matmul_forward)

# %% nbgrader={"grade": true, "grade_id": "test-tensor-matmul", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_matmul():
    a = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    close((a @ a.data.T).data, [[14, 32], [32, 77]], dtype=np.float32)
    with raises(ValueError, "matmul: (2, 3) @ (4, 5): inner dimensions 3 and 4 differ"):
        a @ Tensor(np.ones((4, 5)))
    with raises(ValueError, "matmul", "axis"):
        a @ 2.0
    with raises(ValueError, "batch", "2 and 3"):
        Tensor(np.ones((2, 4, 5))) @ Tensor(np.ones((3, 5, 4)))
    ### BEGIN HIDDEN TESTS
    draw = np.random.default_rng()
    for one, two in [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (6, 3, 4))]:
        p, q = draw.normal(size=one), draw.normal(size=two)
        close(matmul_forward(p, q), p @ q)
    with raises(ValueError, "inner dimensions 3 and 2 differ"):
        matmul_forward(np.ones(3), np.ones((2, 3)))
    with raises(ValueError, "inner dimensions 3 and 2 differ"):
        matmul_forward(np.ones((2, 3)), np.ones(2))
    with raises(ValueError, "()", "(2, 3)"):
        3.0 @ a
    ### END HIDDEN TESTS


test_matmul()

# %% [markdown]
# ## 6. Reductions
#
# `sum`, `mean`, `max` and friends fold an axis away. Which one? The axis that you name is the one that disappears.
# With `keepdims=True` it stays behind with length 1, so that the result still broadcasts against what it came from.
#
# ```
#   x (2, 3)                x.sum(axis=0)  -> (3,)      x.sum(axis=1)  -> (2,)
#   [[1, 2, 3],             [5, 7, 9]                   [6, 15]
#    [4, 5, 6]]                                         keepdims: (2, 1)
# ```
#
# `sum`, `max` and `min` are operations; the cell below begins with them. `mean` and `var` need none of their own: they
# are made of sums and divisions, so they pass the door in parts, and module 06 will differentiate them for free.
#
# ### Exercise: `reduced_size`, `mean` and `var`
#
# The variance with `correction=1` divides by n - 1 (what PyTorch does by default: the unbiased estimate from a sample);
# with `correction=0` by n (what NumPy does by default, and what normalisation layers want).

# %% nbgrader={"grade": false, "grade_id": "tensor-mean-var", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def reduction(name: str, function: Callable[..., Any]) -> Op:
    """The operation that folds axes by ``function``; its errors name the operation and the shape."""

    def forward(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
        try:
            return function(x, axis=axis, keepdims=keepdims)
        except ValueError as error:  # an axis that is not there (AxisError), or no numbers to take the largest of
            raise type(error)(f"{name}: shape {x.shape}: {error}") from None

    return Op(name, forward)


SUM = reduction("sum", np.sum)
MAX = reduction("max", np.max)
MIN = reduction("min", np.min)


def reduced_size(shape: tuple[int, ...], axis: Axis) -> int:
    """How many numbers of a tensor of this shape are folded into one by reducing over ``axis``.

    TODO: Multiply the lengths of the axes that disappear.

    APPROACH:
    1. `axis` None means all axes; a single int means that one; else it is a tuple. Negative axes count from the end.
    2. `math.prod` multiplies; the product of nothing is 1.

    EXAMPLE:
    >>> reduced_size((2, 3, 4), (0, -1))
    8

    HINT: `shape[-1]` already understands negative axes.
    """
    ### BEGIN SOLUTION
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[one] for one in ((axis,) if isinstance(axis, int) else axis))
    ### END SOLUTION


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean of ``x`` over ``axis`` (all axes by default).

    TODO: The sum over the axis, divided by how many numbers went into it.

    APPROACH:
    1. `x.sum(...)` with both arguments passed on.
    2. Divide by `reduced_size`.

    EXAMPLE:
    >>> mean(Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    Tensor([2., 3.])

    HINT: Stay with tensors: `.data` would leave by the window, and nobody could take notes.
    """
    ### BEGIN SOLUTION
    return x.sum(axis, keepdims) / reduced_size(x.shape, axis)
    ### END SOLUTION


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """The variance of ``x`` over ``axis``: mean squared deviation, divided by n - ``correction``.

    TODO: Sum the squared deviations from the mean and divide.

    APPROACH:
    1. `deviation = x - mean`, where the mean keeps its axes so that it broadcasts.
    2. The sum of `deviation * deviation` over the axis, divided by `reduced_size - correction`.

    EXAMPLE:
    >>> var(Tensor([1.0, 2.0, 3.0])), var(Tensor([1.0, 2.0, 3.0]), correction=0)
    (Tensor(1.), Tensor(0.6666667))

    HINT: Without keepdims the mean of (2, 3) over axis 1 is (2,), which does not line up with (2, 3).
    """
    ### BEGIN SOLUTION
    deviation = x - mean(x, axis, keepdims=True)
    return (deviation * deviation).sum(axis, keepdims) / (reduced_size(x.shape, axis) - correction)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-mean-var", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_mean_var():
    for shape, axis, want in [((2, 3, 4), None, 24), ((2, 3, 4), 1, 3), ((2, 3, 4), (0, -1), 8), ((2, 3), (), 1)]:
        got = reduced_size(shape, axis)
        assert got == want, f"reduced_size({shape}, {axis}): expected {want}, got {got}"
    table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]])
    x = Tensor(table)
    close(x.mean().data, 4.0, dtype=np.float32)
    close(x.mean(axis=0).data, [2.5, 3.5, 6.0])
    close(x.mean(axis=-1, keepdims=True).data, [[2], [6]], why="pass keepdims on to sum")
    close(x.var(axis=1).data, [1, 7], why="the default divides by n - 1")
    close(x.var(axis=1, correction=0).data, [2 / 3, 14 / 3])
    close(x.var(axis=0, keepdims=True).data, [[4.5, 4.5, 18]])
    far = Tensor([10000.0, 10001.0, 10002.0])
    close(far.var().data, 1.0, why="subtract the mean before you square: the squares alone eat up float32's 7 digits")
    for name, function in [("mean", mean), ("var", var)]:
        names = [note[0].name for note in noted(function, x)[1]]
        assert "sum" in names and "div" in names, f"{name}: use tensor operations alone; the door saw only {names}"
    ### BEGIN HIDDEN TESTS
    cube = np.random.default_rng().normal(3, 2, size=(3, 4, 5))
    for over in (None, 0, 1, -1, (0, 2), (1, -1)):
        for kept in (False, True):
            close(Tensor(cube).mean(over, kept).data, cube.mean(axis=over, keepdims=kept), rtol=1e-4, dtype=np.float32)
            for ddof in (0, 1):
                spread = Tensor(cube).var(over, kept, correction=ddof)
                close(spread.data, cube.var(axis=over, keepdims=kept, ddof=ddof), rtol=1e-4, dtype=np.float32)
    close(Tensor([1, 2, 4]).mean().data, 7 / 3, dtype=np.float32)
    ### END HIDDEN TESTS


test_mean_var()

# %% [markdown]
# ## 7. Shapes, strides, views and copies
#
# Memory has no rows and columns; it is one long line of bytes. A shape is a way of reading that line, and **strides**
# say how: how many bytes to jump for one step along each axis. In C order, in which NumPy makes new arrays, the
# neighbours along the last axis lie next to each other.
#
# ```
#   shape (2, 3), float32:   memory   | 1 | 2 | 3 | 4 | 5 | 6 |      4 bytes each
#   strides (12, 4):         one row down: jump 12 bytes; one column right: jump 4
#   transposed, (3, 2):      strides (4, 12): the same memory, read the other way round
# ```
#
# ### Exercise: `c_strides`

# %% nbgrader={"grade": false, "grade_id": "tensor-strides", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides, in bytes, of an array of this shape in C order: neighbours along the last axis lie together.

    TODO: Work from the last axis to the first.

    APPROACH:
    1. The last axis jumps `itemsize` bytes.
    2. Each axis before jumps the stride of the next axis times that axis' length.

    EXAMPLE:
    >>> c_strides((2, 3, 4), 4)
    (48, 16, 4)

    HINT: The stride of an axis is `itemsize` times the product of the lengths to its right.
    """
    ### BEGIN SOLUTION
    return tuple(itemsize * math.prod(shape[place + 1 :]) for place in range(len(shape)))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-strides", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_strides():
    for shape, itemsize in [((2, 3), 4), ((2, 3, 4), 4), ((5,), 8), ((), 4)]:
        want = np.zeros(shape, dtype=f"f{itemsize}").strides
        got = tuple(c_strides(shape, itemsize))
        assert got == want, f"c_strides({shape}, {itemsize}): expected {want}, got {got}"
    ### BEGIN HIDDEN TESTS
    sizes = tuple(int(n) for n in np.random.default_rng().integers(2, 6, size=4))
    assert tuple(c_strides(sizes, 2)) == np.zeros(sizes, np.float16).strides, sizes
    ### END HIDDEN TESTS


test_strides()

# %% [markdown]
# A transposition only writes new strides, and so does a reshape where it can: no number moves. Predict: how much longer
# does it take to transpose a matrix of 4,096 x 4,096 (67 MB) than one of 4 x 4? And how long does it take to really
# move its numbers into the new order?

# %%
small, large = np.ones((4, 4), np.float32), np.ones((4096, 4096), np.float32)
for label, action in {
    "transpose 4 x 4": lambda: small.T,
    "transpose 4096 x 4096": lambda: large.T,
    "copy 4096 x 4096, as it lies": lambda: large.copy(),
    "copy 4096 x 4096, transposed": lambda: np.ascontiguousarray(large.T),
}.items():
    taken = measure(action, repeats=5)
    print(f"{label:30} {taken.median_s * 1e6:12.1f} µs   {taken.peak_bytes / 1e6:6.1f} MB")

# %% [markdown]
# Measured on that machine: 0.1 µs for either transposition, large or small, and no memory to speak of. The copy took
# some 20 ms when it could read the matrix as it lies, and some 200 ms when it had to read it the other way round: ten
# times as long for the same bytes.
#
# The picture below reads 262,144 numbers out of a line of 67 MB, with growing steps between them: the same count of
# numbers each time, only further apart. The processor fetches 64 bytes (16 numbers) at once; what you skip was fetched
# for nothing. At which step will the time for one number begin to rise?

# %%
import matplotlib.pyplot as plt

line = np.ones(1 << 24, np.float32)
steps = [1, 2, 4, 8, 16, 32, 64]
count = line.size // steps[-1]
nanoseconds = [measure(lambda s=s: line[: count * s : s].sum(), repeats=9).median_s / count * 1e9 for s in steps]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(steps, nanoseconds, "o-")
axes.set_xscale("log", base=2)
axes.set_xticks(steps, labels=[str(step) for step in steps])
axes.set_xlabel("step between the numbers read (1 = neighbours)")
axes.set_ylabel("time for one number (ns)")
axes.set_ylim(bottom=0)
axes.set_title("262,144 numbers added up, further and further apart")
plt.show()

# %% [markdown]
# Measured on that machine: 0.2 ns for each number up to a step of 4, and 8 ns at 64, forty times as long. Below a step
# of 16, several numbers share a fetch; from there on each costs a fetch of its own. Wider steps still cost more: the
# processor guesses what comes next only within a page of 4,096 bytes, and such a page holds ever fewer of your numbers.
# That is why the innermost loop should run along the axis that lies together in memory.
#
# The other side of sharing: a view is a second name for the same numbers. Here are the two operations that make views,
# and what happens to someone who forgets it.

# %%
#| export
def reshape_forward(x: Array, shape: tuple[int, ...]) -> Array:
    """``x`` in another shape; ValueError naming both shapes if the counts differ."""
    try:
        return np.reshape(x, shape)
    except ValueError:
        raise ValueError(f"reshape: {x.shape} holds {x.size} numbers and cannot become {shape}") from None


def permute_forward(x: Array, axes: tuple[int, ...]) -> Array:
    """``x`` with its axes in another order; ValueError if they are not a permutation."""
    try:
        return np.transpose(x, axes)
    except ValueError:
        raise ValueError(f"permute: {axes} is not an order of the {x.ndim} axes of shape {x.shape}") from None


RESHAPE = Op("reshape", reshape_forward)
PERMUTE = Op("permute", permute_forward)

# %%
original = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
flipped = original.T
flipped.data[0, 1] = 99
original  # changed, through its transpose

# %% [markdown]
# ### Exercise: `swapped_axes`, `squeezed_shape`, `expanded_shape`
#
# Three small functions on shapes; `Tensor.transpose`, `squeeze` and `expand_dims` use them. They only work out numbers,
# so they are easy to test, and the operations stay two: reshape and permute.

# %% nbgrader={"grade": false, "grade_id": "tensor-shapes", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def axis_in_range(name: str, axis: int, ndim: int) -> int:
    """``axis`` as a number from 0 to ndim - 1; IndexError naming the operation if it is out of range."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"{name}: axis {axis} is out of range for {ndim} axes")
    return axis % ndim


def swapped_axes(ndim: int, axis0: int, axis1: int) -> list[int]:
    """The order of axes in which two have changed places.

    TODO: Start from 0, 1, 2, ... and swap two entries.

    APPROACH:
    1. Make both axes non-negative with `axis_in_range("transpose", ...)`.
    2. Swap the two entries of `list(range(ndim))`.

    EXAMPLE:
    >>> swapped_axes(4, 1, -1)
    [0, 3, 2, 1]

    HINT: `a[i], a[j] = a[j], a[i]` swaps.
    """
    ### BEGIN SOLUTION
    first, second = axis_in_range("transpose", axis0, ndim), axis_in_range("transpose", axis1, ndim)
    order = list(range(ndim))
    order[first], order[second] = order[second], order[first]
    return order
    ### END SOLUTION


def squeezed_shape(shape: tuple[int, ...], axis: Axis = None) -> tuple[int, ...]:
    """``shape`` without its lengths of 1, or without just those at ``axis``.

    Raises
    ------
    ValueError
        If an axis that is named has a length other than 1.

    TODO: Decide which axes go, check them, and leave them out.

    APPROACH:
    1. `axis` None: every axis of length 1. An int or a tuple: those, made non-negative by `axis_in_range`.
    2. If a named axis has another length, raise ValueError
       `f"squeeze: axis {one} of shape {shape} has length {n}, not 1"`.

    EXAMPLE:
    >>> squeezed_shape((1, 3, 1)), squeezed_shape((1, 3, 1), -1)
    ((3,), (1, 3))

    HINT: Build the result in one go from the axes that stay.
    """
    ### BEGIN SOLUTION
    if axis is None:
        return tuple(length for length in shape if length != 1)
    leaving = [axis_in_range("squeeze", one, len(shape)) for one in ((axis,) if isinstance(axis, int) else axis)]
    for one in leaving:
        if shape[one] != 1:
            raise ValueError(f"squeeze: axis {one} of shape {shape} has length {shape[one]}, not 1")
    return tuple(length for place, length in enumerate(shape) if place not in leaving)
    ### END SOLUTION


def expanded_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """``shape`` with a length of 1 put in, so that it stands at ``axis`` of the result.

    TODO: Put a 1 at the right place.

    APPROACH:
    1. The result has `len(shape) + 1` axes; make `axis` non-negative with `axis_in_range("expand_dims", ...)` for that.
    2. What stands before it, the 1, what stands after it.

    EXAMPLE:
    >>> expanded_shape((2, 3), 0), expanded_shape((2, 3), -1)
    ((1, 2, 3), (2, 3, 1))

    HINT: -1 means the last axis of the *result*.
    """
    ### BEGIN SOLUTION
    spot = axis_in_range("expand_dims", axis, len(shape) + 1)
    return (*shape[:spot], 1, *shape[spot:])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-shapes", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_shapes():
    assert list(swapped_axes(4, 1, -1)) == [0, 3, 2, 1], "negative axes count from the end"
    assert list(swapped_axes(3, 0, 0)) == [0, 1, 2]
    with raises(IndexError, "transpose", "2"):
        swapped_axes(2, 0, 2)
    for shape, axis, want in [
        ((1, 3, 1), None, (3,)),
        ((1, 3, 1), 0, (3, 1)),
        ((1, 3, 1), -1, (1, 3)),
        ((1, 3, 1), (0, -1), (3,)),
        ((2, 0), None, (2, 0)),
    ]:
        got = tuple(squeezed_shape(shape, axis))
        assert got == want, f"squeezed_shape({shape}, {axis}): expected {want}, got {got}"
    with raises(ValueError, "squeeze", "(1, 3, 1)", "length 3"):
        squeezed_shape((1, 3, 1), 1)
    for axis, want in [(0, (1, 2, 3)), (1, (2, 1, 3)), (2, (2, 3, 1)), (-1, (2, 3, 1)), (-3, (1, 2, 3))]:
        got = tuple(expanded_shape((2, 3), axis))
        assert got == want, f"expanded_shape((2, 3), {axis}): expected {want}, got {got}"
    with raises(IndexError, "expand_dims", "3"):
        expanded_shape((2, 3), 3)
    with raises(ValueError, "reshape", "6", "(4, 2)"):
        Tensor(np.zeros((2, 3))).reshape(4, 2)
    ### BEGIN HIDDEN TESTS
    block = np.random.default_rng().normal(size=(2, 1, 3, 4)).astype(np.float32)
    b = Tensor(block)
    close(b.transpose(0, 2).data, block.swapaxes(0, 2))
    close(b.transpose().data, block.swapaxes(-1, -2))
    close(b.squeeze().data, block.squeeze())
    close(b.squeeze(1).data, block.squeeze(1))
    close(b.expand_dims(-2).data, np.expand_dims(block, -2))
    close(b.permute(3, 0, 2, 1).data, block.transpose(3, 0, 2, 1))
    with raises(ValueError, "axis 2"):
        squeezed_shape((1, 1, 4), -1)
    with raises(IndexError, "squeeze"):
        squeezed_shape((1, 1), 2)
    with raises(IndexError, "transpose"):
        swapped_axes(2, -3, 0)
    with raises(IndexError, "expand_dims"):
        expanded_shape((2, 3), -4)
    ### END HIDDEN TESTS


test_shapes()

# %% [markdown]
# ## 8. Taking apart and putting together
#
# Indexing follows NumPy: slices give views, lists of positions give copies. `concatenate` joins along an axis that is
# there, `stack` along a new one; `split` is `concatenate` backwards.
#
# ```
#   concatenate: (2, 3) + (1, 3)  ->  (3, 3)        stack: (2, 3), (2, 3)  ->  (2, 2, 3)
# ```
#
# ### Exercise: `stack` and `split`

# %% nbgrader={"grade": false, "grade_id": "tensor-stack-split", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def getitem_forward(x: Array, key: Any) -> Array:
    """``x[key]``; IndexError naming the shape if the key does not fit."""
    try:
        return x[key]  # type: ignore[no-any-return]
    except IndexError as error:
        raise IndexError(f"getitem: shape {x.shape}: {error}") from None


def concatenate_forward(*arrays: Array, axis: int) -> Array:
    """The arrays joined along ``axis``; ValueError naming the shapes if they do not fit."""
    axis_in_range("concatenate", axis, np.ndim(arrays[0]))
    try:
        return np.concatenate(arrays, axis=axis)
    except ValueError:
        shapes = ", ".join(str(np.shape(array)) for array in arrays)
        raise ValueError(f"concatenate: shapes {shapes} differ in more than axis {axis}") from None


GETITEM = Op("getitem", getitem_forward)
CONCATENATE = Op("concatenate", concatenate_forward)


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors joined along an axis that they have; they agree in all other lengths."""
    if len(tensors) == 0:
        raise ValueError("concatenate: needs at least one tensor, got an empty list")
    return apply(CONCATENATE, *tensors, axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis, which stands at ``axis`` of the result.

    Raises
    ------
    ValueError
        If there are none, or if their shapes differ; it names them.

    TODO: Give every tensor the new axis, then join along it.

    APPROACH:
    1. If the shapes differ, raise ValueError `f"stack: shapes differ: {shapes}"`, with the list of shapes.
    2. `expand_dims(axis)` on each, then `concatenate` along that axis.

    EXAMPLE:
    >>> stack([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])], axis=1)
    Tensor([[1., 3.],
            [2., 4.]])

    HINT: `len(set(shapes)) > 1` tells whether they differ.
    """
    ### BEGIN SOLUTION
    shapes = [tensor.shape for tensor in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(f"stack: shapes differ: {shapes}")
    return concatenate([tensor.expand_dims(axis) for tensor in tensors], axis=axis)
    ### END SOLUTION


def split(x: Tensor, size: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """``x`` cut along ``axis`` into pieces.

    Parameters
    ----------
    size
        The length of each piece (the last may be shorter), or a list with the length of every piece.

    Raises
    ------
    ValueError
        If the lengths in the list do not make up the axis, or a single length is not positive.

    TODO: Work out the lengths, then slice.

    APPROACH:
    1. `length = x.shape[axis_in_range("split", axis, x.ndim)]`.
    2. An int: pieces of that length until the axis is used up; not positive: ValueError that names it.
       A list: if one is negative, or they do not add up to the axis, raise ValueError
       `f"split: lengths {list(size)} do not make up axis {axis} of length {length}"`.
    3. Each piece is `x[(slice(None),) * axis + (slice(start, stop),)]`, with `axis` non-negative.

    EXAMPLE:
    >>> [piece.shape for piece in split(Tensor(np.zeros((5, 2))), 2)]
    [(2, 2), (2, 2), (1, 2)]

    HINT: Slices may run past the end, so the last, shorter piece needs no care. For a list, `itertools.accumulate`
    gives the places where the pieces end, and `pairwise` walks over neighbours.
    """
    ### BEGIN SOLUTION
    place = axis_in_range("split", axis, x.ndim)
    length = x.shape[place]
    if isinstance(size, int):
        if size < 1:
            raise ValueError(f"split: a piece of length {size} is not possible; give a positive length")
        bounds = [*range(0, length, size), length]
    else:
        if min(size, default=0) < 0 or sum(size) != length:
            raise ValueError(f"split: lengths {list(size)} do not make up axis {axis} of length {length}")
        bounds = [0, *accumulate(size)]
    before = (slice(None),) * place
    return [x[(*before, slice(start, stop))] for start, stop in pairwise(bounds)]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-stack-split", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_stack_split():
    one, two = Tensor([[1.0, 2.0, 3.0]]), Tensor([[4.0, 5.0, 6.0]])
    close(concatenate([one, two]).data, [[1, 2, 3], [4, 5, 6]])
    close(stack([one, two]).data, [[[1, 2, 3]], [[4, 5, 6]]])
    close(stack([one, two], axis=-1).data, [[[1, 4], [2, 5], [3, 6]]], why="axis -1 is the last axis of the result")
    with raises(ValueError, "stack", "(1, 3)", "(3,)"):
        stack([one, Tensor([1.0, 2.0, 3.0])])
    ruler = Tensor(np.arange(10.0).reshape(2, 5))
    pieces = split(ruler, 2, axis=1)
    assert [p.shape for p in pieces] == [(2, 2), (2, 2), (2, 1)], [p.shape for p in pieces]
    close(pieces[1].data, [[2, 3], [7, 8]])
    assert len(split(ruler, 1, axis=1)) == 5, "pieces of length 1 are pieces"
    first, second = split(ruler, [1, 4], axis=-1)
    close(first.data, [[0], [5]], why="the first piece begins at 0")
    close(second.data, [[1, 2, 3, 4], [6, 7, 8, 9]])
    with raises(ValueError, "split", "[2, 2]", "axis 1", "5"):
        split(ruler, [2, 2], axis=1)
    with raises(ValueError, "split", "-1", why="3 - 1 + 3 is 5, but no piece has length -1"):
        split(ruler, [3, -1, 3], axis=1)
    with raises(ValueError, "split", "0"):
        split(ruler, 0)
    for name, function in [("getitem", lambda: split(ruler, 1)), ("concatenate", lambda: stack([one, two]))]:
        names = [note[0].name for note in noted(function)[1]]
        assert name in names, f"use tensor operations, such as {name}; the door saw only {names}"
    ### BEGIN HIDDEN TESTS
    brick = np.random.default_rng().normal(size=(6, 4, 3)).astype(np.float32)
    for way in (0, 1, 2, -1, -3):
        parts = split(Tensor(brick), 2, axis=way)
        close(concatenate(parts, axis=way).data, brick)
        for part, want in zip(parts, np.split(brick, range(2, brick.shape[way], 2), axis=way), strict=True):
            close(part.data, want)
    for way in (0, 1, -1):
        close(stack(list(Tensor(brick)), axis=way).data, np.stack(list(brick), axis=way))
    cuts = split(Tensor(brick), [3, 2, 1])
    close(cuts[2].data, brick[5:])
    assert len(cuts) == 3 and len(split(Tensor(brick), 3)) == 2
    none, everything = split(Tensor(brick), [0, 6])
    close(none.data, brick[:0], why="a length of 0 is allowed in a list")
    close(everything.data, brick)
    assert split(Tensor(brick[:0]), []) == [], "no lengths make up a length of 0: no pieces"
    with raises(ValueError):
        stack([])
    with raises(ValueError, "-1"):
        split(Tensor(brick), -1)
    ### END HIDDEN TESTS


test_stack_split()

# %% [markdown]
# ## 9. Making tensors
#
# Networks begin with random weights, and a random start that cannot be repeated is a bug that cannot be found. So there
# is one generator, `manual_seed` sets it, and every function that draws takes `generator=` to use another.
#
# ### Exercise: `manual_seed` and `randn`

# %% nbgrader={"grade": false, "grade_id": "tensor-random", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
_generator = np.random.default_rng()


def default_generator() -> np.random.Generator:
    """The generator that is used where none is given."""
    return _generator


def manual_seed(seed: int) -> np.random.Generator:
    """Start the default generator anew, so that what follows can be repeated; returns it.

    TODO: Put a new generator with this seed in the place of `_generator`.

    APPROACH:
    1. `global _generator`, since a function that assigns makes a local name otherwise.
    2. `np.random.default_rng(seed)`, kept and returned.

    EXAMPLE:
    >>> a = manual_seed(1).normal(); b = manual_seed(1).normal(); a == b
    True

    HINT: `default_generator()` must return the new one afterwards.
    """
    ### BEGIN SOLUTION
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator
    ### END SOLUTION


def randn(
    *shape: Any,
    generator: np.random.Generator | None = None,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of numbers drawn from the normal distribution with mean 0 and variance 1, float32 by default.

    TODO: Draw from the generator that is given, else from the default one.

    APPROACH:
    1. `_as_shape(shape)` lets `randn(2, 3)` and `randn((2, 3))` mean the same.
    2. `standard_normal(...)` of the generator, then `Tensor` with dtype and requires_grad.

    EXAMPLE:
    >>> _ = manual_seed(0); randn(2, 3).shape
    (2, 3)

    HINT: Ask `default_generator()` inside the function: a default argument would keep the generator of long ago.
    """
    ### BEGIN SOLUTION
    source = generator if generator is not None else default_generator()
    return Tensor(source.standard_normal(_as_shape(shape)), dtype, requires_grad)
    ### END SOLUTION


def rand(
    *shape: Any,
    generator: np.random.Generator | None = None,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of numbers drawn evenly from [0, 1), float32 by default."""
    return Tensor((generator or default_generator()).random(_as_shape(shape)), dtype, requires_grad)


def zeros(*shape: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros, float32 by default."""
    return full(_as_shape(shape), 0.0, dtype, requires_grad)


def ones(*shape: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones, float32 by default."""
    return full(_as_shape(shape), 1.0, dtype, requires_grad)


def full(shape: tuple[int, ...], value: float, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of one number everywhere."""
    return Tensor(np.full(shape, value), dtype, requires_grad)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers from ``start`` (or 0) up to, not including, ``stop``; int64 if all three are whole."""
    first, last = (0, start) if stop is None else (start, stop)
    return Tensor(np.arange(first, last, step), dtype, requires_grad)


def from_numpy(array: Array) -> Tensor:
    """A tensor on the memory of ``array``, which must be a NumPy array: neither dtype nor numbers are copied."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}; Tensor(...) takes anything")
    return Tensor._wrap(array)

# %% nbgrader={"grade": true, "grade_id": "test-tensor-random", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_random():
    again = manual_seed(7)
    assert default_generator() is again, "manual_seed must replace the default generator"
    first = randn(2, 3)
    manual_seed(7)
    second = randn((2, 3))
    close(first.data, second.data, dtype=np.float32, why="the same seed must give the same numbers")
    close(randn(2, 3, generator=np.random.default_rng(7)).data, first.data, why="use the generator that is given")
    assert np.any(randn(2, 3).data != first.data), "without a new seed the numbers go on"
    assert randn(2, dtype=np.float64).dtype == np.float64 and randn(2, requires_grad=True).requires_grad
    ### BEGIN HIDDEN TESTS
    secret = int(np.random.default_rng().integers(1 << 30))
    manual_seed(secret)
    close(randn(50).data, np.random.default_rng(secret).standard_normal(50), dtype=np.float32)
    drawn = randn((3, 2), generator=np.random.default_rng(secret), dtype=np.float64)
    close(drawn.data, np.random.default_rng(secret).standard_normal((3, 2)), dtype=np.float64, rtol=0, atol=0)
    many = randn(200, 200).data
    assert abs(float(many.mean())) < 0.05 and abs(float(many.std()) - 1) < 0.05, "mean 0 and variance 1"
    ### END HIDDEN TESTS


test_random()

# %% [markdown]
# ## 10. All of it together: a layer by hand
#
# A linear layer is `x @ w + b`. Here is a batch of 256 pictures of 28 x 28 numbers through two of them, by nothing but
# what you have built, and the memory of each step.

# %%
manual_seed(0)
pictures = rand(256, 28, 28)
w1, b1, w2, b2 = randn(784, 128), zeros(128), randn(128, 10), zeros(10)


def forward(x):
    hidden = (x.reshape(256, 784) @ w1 + b1).maximum(0)  # (256, 128)
    return hidden @ w2 + b2  # (256, 10)


logits = forward(pictures)
taken = measure(forward, pictures, repeats=20)
print(f"{taken.median_s * 1e3:.2f} ms, at most {taken.peak_bytes / 1e3:,.0f} kB at once")
print(f"logits {logits.shape} {logits.dtype}")
print("predicted classes of the first ten:", logits.argmax(axis=1)[:10].tolist())

# %% [markdown]
# The hidden layer holds 256 x 128 x 4 bytes = 131 kB, and yet the peak was 296 kB, more than twice that: `x @ w1`,
# `+ b1` and `.maximum(0)` each make a new array before the old one goes (and NumPy takes a buffer of 33 kB to stretch
# the bias). Fusing such steps is what module 18 is about.
#
# ### Exercise: `softmax_by_hand`
#
# Turn logits into probabilities with tensor operations alone: $\;p_i = e^{z_i - m} / \sum_j e^{z_j - m}$, where $m$ is
# the largest logit of the row. Without $m$ the formula is right and useless: the cell below the test shows why.

# %% nbgrader={"grade": false, "grade_id": "tensor-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
def softmax_by_hand(logits):
    """Probabilities of each row of ``logits``, a Tensor of shape (..., classes).

    TODO: Subtract the row's largest number, exponentiate, divide by the row's sum.

    APPROACH:
    1. `logits.max(...)` over the last axis, keeping it.
    2. `exp`, then the sum over the last axis, keeping it.

    EXAMPLE:
    >>> softmax_by_hand(Tensor([[0.0, 0.0], [1000.0, 0.0]]))
    Tensor([[0.5, 0.5],
            [1. , 0. ]])

    HINT: Without keepdims, (2, 3) minus (2,) does not broadcast; and (3, 3) minus (3,) does, wrongly.
    """
    ### BEGIN SOLUTION
    scores = (logits - logits.max(axis=-1, keepdims=True)).exp()
    return scores / scores.sum(axis=-1, keepdims=True)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tensor-softmax", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_softmax_by_hand():
    even, notes = noted(softmax_by_hand, Tensor([[0.0, 0.0]]))
    close(even.data, [[0.5, 0.5]], dtype=np.float32)
    names = [note[0].name for note in notes]
    assert "exp" in names and "div" in names, f"use tensor operations alone; the door saw only {names}"
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        close(
            softmax_by_hand(Tensor([[1000.0, 0.0], [-1000.0, -1000.0]])).data,
            [[1, 0], [0.5, 0.5]],
            why="e to the 1000 is infinite: subtract the row's largest logit first",
        )
    ### BEGIN HIDDEN TESTS
    scores = np.random.default_rng().normal(0, 3, size=(4, 4, 4))
    powers = np.exp(scores)
    close(softmax_by_hand(Tensor(scores)).data, powers / powers.sum(-1, keepdims=True), rtol=1e-4, dtype=np.float32)
    ### END HIDDEN TESTS


test_softmax_by_hand()

# %%
with np.errstate(over="ignore", invalid="ignore"):
    large = Tensor([[1000.0, 0.0]])
    print("naive: ", large.exp() / large.exp().sum(axis=-1, keepdims=True))
print("stable:", softmax_by_hand(large))

# %% [markdown]
# ## What you have built
#
# `Tensor`, with arithmetic, comparisons, `@`, reductions, shapes and indexing; the door `apply` with its seam
# `set_recorder`; `concatenate`, `stack`, `split`, `where`, `maximum`, `mean`, `var`; `zeros`, `ones`, `full`, `arange`,
# `rand`, `randn`, `from_numpy` and `manual_seed`. It is forward-only, and it stays as it is: when module 06 brings
# gradients, it plugs into the seam.
#
# In the terminal: `tito module complete 02`. Then `from tinytorch.core.tensor import Tensor` is your class, in every
# notebook from here on.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "tensor-reflect-views-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Views and copies.** A colleague centres a batch of shape (1000, 64000) with `flat = batch.reshape(-1)` and
# `flat.data -= flat.data.mean()`, and finds that `batch` has changed too; in another place the same code, applied to
# `batch.T`, leaves `batch` as it was. Explain both, and say how much extra memory each takes for these 256 MB.
#
# === BEGIN MARK SCHEME ===
# 2 points: reshape of contiguous memory is a view, and in-place writing shows through. 2 points: the transposed tensor
# cannot be flattened without a copy, because its strides do not fit one line. 1 point: 0 against 256 MB extra.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tensor-reflect-views", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# `reshape(-1)` of a tensor in C order is a view: new strides on the same memory, so `-=` writes into the batch, at no
# extra memory (the mean is one number). The transpose is not in C order, so its numbers cannot be read as one line with
# a single stride: reshape has to copy, which costs another 256 MB, and the batch stays as it was.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "tensor-reflect-dtype-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Number formats.** Your model has 100 million weights. What does one float64 constant, as in `x * np.array(0.5)`,
# cost if the framework lets it through, in memory for weights and activations and in time? Why does our door allow
# float64 when a float64 *tensor* goes in, instead of forbidding it?
#
# === BEGIN MARK SCHEME ===
# 2 points: activations (and what meets them) double, with the figures 400 and 800 MB or the like. 1 point: about half
# the speed, with a reason. 2 points: a deliberate use of float64, such as gradient checks.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tensor-reflect-dtype", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Weights stay 400 MB, but every activation after the constant is float64: twice the bytes, about half the speed of
# matrix products, since half as many numbers fit a vector register and a cache line. If the weights are converted to
# match, 400 MB become 800 MB. Float64 must remain possible on purpose: checking gradients by finite differences needs
# its 16 digits.
# ### END SOLUTION
