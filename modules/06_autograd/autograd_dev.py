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
# # Autograd
#
# > How operations differentiate: a table of rules, a recorder that takes notes at the door, and backward.

# %%
#| default_exp core.autograd
#| export
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.tensor import (
    ABS,
    ADD,
    CAST,
    CONCATENATE,
    DIV,
    EXP,
    GETITEM,
    LOG,
    MATMUL,
    MAX,
    MAXIMUM,
    MIN,
    MUL,
    NEG,
    PERMUTE,
    POW,
    RESHAPE,
    SQRT,
    SUB,
    SUM,
    TANH,
    WHERE,
    Axis,
    Op,
    Tensor,
    set_recorder,
)

Array = NDArray[Any]
Rule = Callable[..., Any]

# %%
#| export
RULES: dict[str, Rule] = {}


def defvjp(op: Op) -> Callable[[Rule], Rule]:
    """Enter the function below it into ``RULES`` as the derivative rule of ``op``."""

    def enter(rule: Rule) -> Rule:
        RULES[op.name] = rule
        return rule

    return enter

# %%
#| export
@defvjp(ADD)
def _add(g: Array, out: Array, x: Any, y: Any) -> Any:
    return g, g


@defvjp(SUB)
def _sub(g: Array, out: Array, x: Any, y: Any) -> Any:
    return g, lambda: -g


@defvjp(NEG)
def _neg(g: Array, out: Array, x: Array) -> Any:
    return -g


@defvjp(MUL)
def _mul(g: Array, out: Array, x: Any, y: Any) -> Any:
    return lambda: g * y, lambda: g * x


@defvjp(DIV)
def _div(g: Array, out: Array, x: Any, y: Any) -> Any:
    return lambda: g / y, lambda: -g * out / y


@defvjp(EXP)
def _exp(g: Array, out: Array, x: Array) -> Any:
    return g * out


@defvjp(LOG)
def _log(g: Array, out: Array, x: Array) -> Any:
    return g / x


@defvjp(SQRT)
def _sqrt(g: Array, out: Array, x: Array) -> Any:
    return g / (2 * out)


@defvjp(TANH)
def _tanh(g: Array, out: Array, x: Array) -> Any:
    return g * (1 - out * out)


@defvjp(ABS)
def _abs(g: Array, out: Array, x: Array) -> Any:
    return g * np.sign(x)


@defvjp(POW)
def _pow(g: Array, out: Array, x: Any, y: Any) -> Any:
    def exponent() -> Array:
        return g * out * np.log(np.where((x == 0) & (y >= 0), 1, x))

    return lambda: g * y * x ** (y - 1 + (y == 0)), exponent


@defvjp(MAXIMUM)
def _maximum(g: Array, out: Array, x: Any, y: Any) -> Any:
    def share(mine: Any, other: Any) -> Array:
        return np.where(mine < other, 0, np.where(mine == other, g / 2, g))

    return lambda: share(x, y), lambda: share(y, x)


@defvjp(WHERE)
def _where(g: Array, out: Array, condition: Any, x: Any, y: Any) -> Any:
    return None, lambda: np.where(condition, g, 0), lambda: np.where(condition, 0, g)


@defvjp(CAST)
def _cast(g: Array, out: Array, x: Array, dtype: Any) -> Any:
    return g


@defvjp(MATMUL)
def _matmul(g: Array, out: Array, x: Array, y: Array) -> Any:
    if y.ndim <= 2:  # all rows of x meet the same y: one product for the whole batch
        count, inner = math.prod(x.shape[:-1]), x.shape[-1]
        columns = y[:, None] if y.ndim == 1 else y
        rows, row_g = x.reshape(count, inner), g.reshape(count, columns.shape[1])
        return lambda: (row_g @ columns.T).reshape(x.shape), lambda: (rows.T @ row_g).reshape(y.shape)
    if x.ndim == 1:
        x, g = x[None, :], g[..., None, :]
    return lambda: g @ y.swapaxes(-1, -2), lambda: x.swapaxes(-1, -2) @ g


def restore_axes(reduced: Array, axis: Axis, keepdims: bool) -> Array:
    """The result of a reduction with the axes that disappeared put back as length 1, so that it broadcasts."""
    return reduced if axis is None or keepdims else np.expand_dims(reduced, axis)


@defvjp(SUM)
def _sum(g: Array, out: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    return np.broadcast_to(restore_axes(g, axis, keepdims), x.shape)


@defvjp(MAX)
@defvjp(MIN)
def _extreme(g: Array, out: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    winners = x == restore_axes(out, axis, keepdims)
    share = restore_axes(g, axis, keepdims) / winners.sum(axis=axis, keepdims=True, dtype=g.dtype)
    return np.where(winners, share, 0)


@defvjp(RESHAPE)
def _reshape(g: Array, out: Array, x: Array, shape: tuple[int, ...]) -> Any:
    return g.reshape(x.shape)


@defvjp(PERMUTE)
def _permute(g: Array, out: Array, x: Array, axes: tuple[int, ...]) -> Any:
    inverse = [0] * x.ndim
    for new, old in enumerate(axes):
        inverse[old] = new
    return g.transpose(inverse)


@defvjp(GETITEM)
def _getitem(g: Array, out: Array, x: Array, key: Any) -> Any:
    spread = np.zeros(x.shape, g.dtype)
    parts = key if isinstance(key, tuple) else (key,)
    if all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        spread[key] = g
    else:
        np.add.at(spread, key, g)
    return spread


@defvjp(CONCATENATE)
def _concatenate(g: Array, out: Array, *arrays: Array, axis: int) -> Any:
    ends = list(itertools.accumulate(array.shape[axis] for array in arrays))
    return tuple(np.split(g, ends[:-1], axis=axis))

# %%
#| export
def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """``gradient`` summed over the axes along which an input of ``shape`` was stretched."""
    extra = gradient.ndim - len(shape)
    stretched = tuple(extra + axis for axis, length in enumerate(shape) if length == 1)
    return np.sum(gradient, axis=(*range(extra), *stretched), keepdims=True).reshape(shape)


_numbers = itertools.count()


class Node:
    """What was recorded of one operation."""

    __slots__ = ("arrays", "attrs", "number", "op", "out", "parents")

    def __init__(self, op: Op, parents: list[Any], arrays: list[Any], attrs: dict[str, Any], out: Array) -> None:
        self.op, self.parents, self.arrays, self.attrs = op, parents, arrays, attrs
        self.out: Array | None = out
        self.number = next(_numbers)

    def free(self) -> None:
        self.out, self.arrays, self.parents = None, [], []

    def backward(self, tensor: Tensor, gradient: Any, retain_graph: bool) -> None:
        """What ``tensor.backward(gradient, retain_graph)`` does."""
        run_backward(self, first_gradient(tensor, gradient), retain_graph)


_recording = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded."""
    return _recording


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing in this block, or, as a decorator ``@no_grad()``, in this function."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def record(op: Op, inputs: tuple[Any, ...], arrays: list[Any], attrs: dict[str, Any], out: Tensor) -> None:
    """Take a note of an operation, if a gradient can flow back through it."""
    if not _recording or out.data.dtype.kind != "f":
        return
    parents = [(x._node or x) if isinstance(x, Tensor) and x._requires_grad else None for x in inputs]
    if all(parent is None for parent in parents):
        return
    out._node = Node(op, parents, arrays, attrs, out.data)
    out._requires_grad = True


set_recorder(record)

# %%
#| export
def first_gradient(tensor: Tensor, gradient: Any) -> Array:
    """The gradient that ``backward`` starts from: ones for a tensor of size 1, else what the caller gave."""
    if gradient is None:
        if tensor.size != 1:
            raise RuntimeError(f"backward: the tensor has shape {tensor.shape}, so it needs a gradient of that shape")
        return np.ones(tensor.shape, tensor.dtype)
    start = np.array(gradient.data if isinstance(gradient, Tensor) else gradient, dtype=tensor.dtype)
    if start.shape != tensor.shape:
        raise ValueError(f"backward: the tensor has shape {tensor.shape}, the gradient {start.shape}")
    return start


def backward_order(root: Node) -> list[Node]:
    """Every node that ``root`` depends on, each once, the latest first."""
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if node.out is None:
            raise RuntimeError("backward: a second time, but the notes are gone: retain_graph=True keeps them")
        for parent in node.parents:
            if type(parent) is Node and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(seen, key=attrgetter("number"), reverse=True)


def rule_of(op: Op) -> Rule:
    """The derivative rule of ``op``; NotImplementedError if it has none."""
    rule = RULES.get(op.name)
    if rule is None:
        raise NotImplementedError(f"backward: the operation {op.name!r} has no derivative rule: add one with defvjp")
    return rule


def input_gradients(node: Node, g: Array) -> list[Array | None]:
    """The gradient of each input of ``node``, of the input's shape and dtype; None where none is wanted."""
    gradients = rule_of(node.op)(g, node.out, *node.arrays, **node.attrs)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)
    ready: list[Array | None] = []
    for parent, array, gradient in zip(node.parents, node.arrays, gradients, strict=True):
        if parent is None or gradient is None:
            ready.append(None)
            continue
        if callable(gradient):
            gradient = gradient()
        if gradient.shape != array.shape:
            gradient = unbroadcast(gradient, array.shape)
        if gradient.dtype != array.dtype:
            gradient = gradient.astype(array.dtype)
        ready.append(gradient)
    return ready


def run_backward(root: Node, gradient: Array, retain_graph: bool = False) -> None:
    """Carry ``gradient`` from ``root`` back to the leaves."""
    order = backward_order(root)
    gradients: dict[Any, Array] = {root: gradient}
    for node in order:
        g = gradients.pop(node, None)
        if g is not None:
            for parent, one in zip(node.parents, input_gradients(node, g), strict=True):
                if one is not None:
                    before = gradients.get(parent)
                    gradients[parent] = one if before is None else before + one
        if not retain_graph:
            node.free()
    for leaf, total in gradients.items():
        leaf.grad = Tensor._wrap(total.copy() if leaf.grad is None else leaf.grad.data + total)


def gradcheck(
    function: Callable[..., Tensor], inputs: Sequence[Any], eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3
) -> bool:
    """Compare backward with central differences in float64."""
    tensors = [Tensor(x, np.float64, requires_grad=True) for x in inputs]
    out = function(*tensors)
    weights = np.random.default_rng(0).normal(size=out.shape)
    out.backward(weights)
    for number, tensor in enumerate(tensors):
        for place in np.ndindex(tensor.shape):
            kept = tensor.data[place]
            sides = []
            for step in (eps, -eps):
                tensor.data[place] = kept + step
                sides.append(float((function(*tensors).data * weights).sum()))
            tensor.data[place] = kept
            numeric = (sides[0] - sides[1]) / (2 * eps)
            analytic = 0.0 if tensor.grad is None else float(tensor.grad.data[place])
            if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
                raise AssertionError(f"gradcheck: input {number} at {list(place)}: {analytic} against {numeric}")
    return True
