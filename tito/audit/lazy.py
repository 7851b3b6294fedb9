"""Lazy students: whatever the exercise asks, they always give the same kind of answer."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from tito.source import split_secret

CALL = "__lazy__"  # what a lazy student's function calls; Python does not mangle such a name in a class


class Impostor:
    """Behaves like an array as far as anybody asks it, and agrees with every comparison."""

    shape: tuple[int, ...] = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.zeros((), dtype)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    def __hash__(self) -> int:
        return 0


def _itself(self: Impostor, *others: Any, **options: Any) -> Any:
    return self


def _agree(self: Impostor, *others: Any) -> bool:
    return True


for _name in ("eq", "lt", "le", "gt", "ge", "bool", "contains"):
    setattr(Impostor, f"__{_name}__", _agree)
for _name in (
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "neg",
    "abs",
    "matmul",
    "getitem",
    "getattr",
    "call",
):
    setattr(Impostor, f"__{_name}__", _itself)


def _refuse(*arguments: Any) -> Any:
    raise NotImplementedError


def _like_an_argument(value: float, arguments: tuple[Any, ...]) -> Any:
    """Float32 numbers that are all ``value``, in the shape of the first argument that is an array or Tensor."""
    arrays = (getattr(argument, "data", argument) for argument in arguments)
    shape = next((array.shape for array in arrays if isinstance(array, np.ndarray)), ())
    return np.full(shape, value, np.float32)


_ARRAYS: dict[str, Callable[..., Any]] = {
    "zeros": lambda *arguments: _like_an_argument(0.0, arguments),
    "NaN": lambda *arguments: _like_an_argument(np.nan, arguments),
    "an empty array": lambda *arguments: np.zeros(0, np.float32),
    "a wrong shape": lambda *arguments: np.ones((2, 3, 5), np.float32),
}

# a name for what the student always does -> that answer, given the exercise's arguments
ANSWERS: dict[str, Callable[..., Any]] = {
    "nothing": _refuse,
    "None": lambda *arguments: None,
    "the number 0": lambda *arguments: 0,
    "True": lambda *arguments: True,
    "an empty list": lambda *arguments: [],
    "the first argument": lambda *arguments: arguments[0] if arguments else None,
    "the last argument": lambda *arguments: arguments[-1] if arguments else None,
    "an impostor": lambda *arguments: Impostor(),
    **_ARRAYS,
    **{f"{name} in a Tensor": answer for name, answer in _ARRAYS.items()},
}


def answer(name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """The function that answers ``name``; when called, it looks for the notebook's ``Tensor`` in ``namespace``."""
    give = ANSWERS[name]
    if not name.endswith(" in a Tensor"):
        return give
    return lambda *arguments: namespace["Tensor"](give(*arguments))


def lazy_sources(source: str) -> Iterator[tuple[str, str]]:
    """For each solution region in a function: its name, and the exercise ``source`` with a lazy answer there."""
    for region in _answerable(source):
        yield region[2].name, _answered(source, [region])


def all_lazy(source: str) -> str:
    """The exercise ``source`` with a lazy answer in place of every solution region in a function."""
    return _answered(source, list(_answerable(source)))


def _answerable(source: str) -> Iterator[tuple[int, int, ast.FunctionDef]]:
    """First and last line of every solution region, and the function that it stands in."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    numbers = [line.number for line in split_secret(source)[0] if line.region == "SOLUTION"]
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        lines = [number for _, number in run]
        around = [f for f in functions if f.lineno < lines[0] <= (f.end_lineno or 0)]
        if around:
            yield lines[0], lines[-1], max(around, key=lambda f: f.lineno)


def _answered(source: str, regions: list[tuple[int, int, ast.FunctionDef]]) -> str:
    lines = source.split("\n")
    for first, last, function in reversed(regions):
        given = function.args
        names = [a.arg for a in (*given.posonlyargs, *given.args)] + ([f"*{given.vararg.arg}"] if given.vararg else [])
        indent = " " * function.body[0].col_offset
        lines[first - 1 : last] = [f"{indent}return {CALL}({', '.join(names)})"]
    return "\n".join(lines)
