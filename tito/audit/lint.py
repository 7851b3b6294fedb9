"""The lint: what a graded cell must not do, whatever the student wrote.

A graded cell makes its own inputs, sends them in, takes plain data out and compares it here. Whoever is sent the
expected value can hand it back, and an object can claim to equal anything.

Whether a value is an object of the course or plain data, and whether it is the right answer, is seen best while the
cell runs. So ``watch`` runs the graded cells with the solution and tells an ``Event`` for each step in which a value of
the cell can meet the course's code; every rule below looks at each. A rule is a function from an event to what is wrong
and what to do about it, or None; adding one is writing one. A line that does not run with the solution is not seen.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from typing import Any, Literal

import numpy as np

Rule = Callable[["Event", "Known"], str | None]
Step = Literal["call", "operation", "comparison", "condition", "assignment", "class"]

RULES: list[Rule] = []

_COMPARE_HERE = "take plain data out and compare it in the test, with close"
_EXPECTED = re.compile(r"(\w+_)?(want|wanted|expect|expected)(_\w+)?")
_LONGEST_LIST = 10_000  # longer ones are not compared
_TEXT = 3  # shorter texts are equal by chance
_SMALL = 3  # whole numbers up to this are everywhere
_WITHOUT_SHAPE = {"allclose", "array_equal", "array_equiv", "isclose"}


@dataclass(frozen=True)
class Finding:
    """A place in a graded cell that breaks a rule; ``code`` is the place as Python's ``ast.unparse`` writes it."""

    cell: str
    line: int
    code: str
    problem: str


@dataclass(frozen=True)
class Event:
    """A step of a graded cell.

    ``values`` are what meets there: the operands; the arguments of a call, after the object whose method it is; the
    object whose attribute is assigned, and what is assigned; a condition's value; or a class that was defined.
    ``node`` is the step as the author wrote it, and ``around`` are the nodes that it stands in, the innermost first.
    """

    step: Step
    node: Any
    around: tuple[ast.AST, ...]
    values: tuple[Any, ...]
    function: Any = None  # of a call
    result: Any = None  # of a comparison


@dataclass
class Known:
    """What is known of values: which are the course's objects, and which the course's code has computed."""

    tests: set[str] = field(default_factory=set)  # the graded cells, which are file names of their functions
    classes: set[type] = field(default_factory=set)  # those of graded cells
    computed: dict[int, Any] = field(default_factory=dict)  # plain data by its id; held, so that no id is used again
    wrapped: dict[int, Any] = field(default_factory=dict)  # objects that hold what the test put in

    def is_class(self, value: object) -> bool:
        """Is it a class of the course?"""
        return isinstance(value, type) and value not in self.classes and _in_course(value)

    def is_object(self, value: object) -> bool:
        """Is it an object of a class of the course, or of one derived from it?"""
        return any(self.is_class(one) for one in type(value).__mro__)

    def runs_course(self, function: Any) -> bool:
        """Does a call of ``function`` run the course's code?"""
        if isinstance(function, partial):
            return self.runs_course(function.func)
        code = getattr(function, "__code__", None)
        if code is not None:
            return code.co_filename not in self.tests and _in_course(function)
        return self.is_class(function) or self.is_object(function) or self.is_object(owner(function))

    def is_computed(self, value: Any) -> bool:
        """Has the course's code computed ``value``, rather than the test?"""
        if self.is_object(value):
            return id(value) not in self.wrapped
        return id(value) in self.computed or (isinstance(value, np.ndarray) and self.is_computed(value.base))

    def learn(self, result: Any, inputs: Iterable[Any]) -> None:
        """Note that the course's code made ``result`` of ``inputs``."""
        given = [content for leaf, content in _leaves(inputs, self) if not self.is_computed(leaf)]
        for leaf, content in _leaves([result], self):
            is_object = self.is_object(leaf)
            if is_object or isinstance(leaf, np.ndarray | np.generic | list | tuple | float):
                passed_on = any(_equal(content, other) for other in given)
                if is_object == passed_on:
                    (self.wrapped if is_object else self.computed)[id(leaf)] = leaf


def owner(function: Any) -> Any:
    """The object whose method ``function`` is; None if it is none."""
    return getattr(function, "__self__", None)


def _in_course(thing: Any) -> bool:
    """Was a class or function defined in the notebook or in the package?"""
    module = getattr(thing, "__module__", None) or ""
    return module == "__main__" or module.partition(".")[0] == "tinytorch"


def _leaves(values: Iterable[Any], known: Known) -> Iterator[tuple[Any, Any]]:
    """The values, and what is in lists and dictionaries of them, that hold numbers or text; each with its content."""
    for value in values:
        content = _content(value, known)
        if content is not None:
            yield value, content
        elif isinstance(value, Mapping):
            yield from _leaves(value.values(), known)
        elif isinstance(value, list | tuple) and not known.is_object(value) and len(value) <= _LONGEST_LIST:
            yield from _leaves(value, known)


def _content(value: Any, known: Known) -> Any:
    """The numbers of ``value`` as an array, or its text; None if it has neither."""
    if known.is_object(value):
        value = next((held for name in ("data", "value") if (held := getattr(value, name, None)) is not None), None)
    if isinstance(value, str | bytes):
        return value if len(value) >= _TEXT else None
    if not _numeric(value):
        return None
    try:
        array = np.squeeze(np.asarray(value))
    except ValueError:  # rows of several lengths
        return None
    return array if array.size and array.dtype.kind in "iufc" else None


def _numeric(value: Any) -> bool:
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return 0 < len(value) <= _LONGEST_LIST and all(map(_numeric, value))
    return isinstance(value, np.ndarray | np.number | int | float)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-4, equal_nan=True)
    return type(one) is type(other) and bool(one == other)


def _commonplace(content: Any) -> bool:
    """True for a small whole number, or many times the same: equal to another by chance."""
    if not isinstance(content, np.ndarray):
        return False
    first = content.flat[0]
    return bool(abs(first) <= _SMALL and first == np.round(first) and np.all(content == first))


def _rule(rule: Rule) -> Rule:
    """Enter the function below it as a rule."""
    RULES.append(rule)
    return rule


def _goes_in(event: Event, known: Known) -> bool:
    """Does the course's code get the event's values?"""
    if event.step == "assignment" or event.function is setattr:
        return known.is_object(event.values[0])
    if event.step == "call":
        return known.runs_course(event.function)
    return event.step in ("operation", "comparison") and any(map(known.is_object, event.values))


@_rule
def expected_by_name(event: Event, known: Known) -> str | None:
    """``layer.check(want)``: a name that says so."""
    if not _goes_in(event, known):
        return None
    names = [name for part in _sent(event.node) for name in _names(part) if _EXPECTED.fullmatch(name)]
    return f"student code gets the expected value {names[0]}: {_COMPARE_HERE}" if names else None


def _sent(node: ast.AST) -> list[ast.expr]:
    """The parts of ``node`` whose values go to the course's code."""
    match node:
        case ast.Call():
            return [*node.args, *(keyword.value for keyword in node.keywords)]
        case ast.BinOp():
            return [node.left, node.right]
        case ast.Compare():
            return [node.left, *node.comparators]
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign() if node.value:
            return [node.value]
    return []


def _names(node: ast.expr | None) -> Iterator[str]:
    """The variables whose numbers an expression hands on; a shape or a length is not among them."""
    parts: list[ast.expr | None] = []
    match node:
        case ast.Name():
            yield node.id
        case ast.Tuple() | ast.List():
            parts = [*node.elts]
        case ast.Dict():
            parts = [*node.values]
        case ast.Starred() | ast.Subscript():
            parts = [node.value]
        case ast.BinOp():
            parts = [node.left, node.right]
        case ast.UnaryOp():
            parts = [node.operand]
        case ast.Lambda():
            parts = [node.body]
        case ast.Call(func=ast.Attribute(value=value)):  # want.copy(), np.asarray(want)
            parts = [value, *node.args]
    for part in parts:
        yield from _names(part)


@_rule
def expected_by_value(event: Event, known: Known) -> str | None:
    """``(t - right_answer).sum()``: the course's code gets what it computed once more, now from the test."""
    if not _goes_in(event, known):
        return None
    compares = event.step == "comparison" or isinstance(getattr(event.node, "op", None), ast.Sub)
    computed: list[Any] = []
    sent: list[Any] = []
    for leaf, content in _leaves(event.values, known):
        (computed if known.is_computed(leaf) else sent).append(content)
    for one, other in product(computed, sent):
        if _equal(one, other) and (compares or not _commonplace(one)):
            return f"student code gets what it should compute, as an expected value: {_COMPARE_HERE}"
    return None


@_rule
def believes_truth(event: Event, known: Known) -> str | None:
    """``assert layer``, ``bool(t)``."""
    asked = event.step == "condition" or event.function is bool
    if not asked or not any(map(known.is_object, event.values)):
        return None
    return "a student's object says by itself whether it is true: ask for plain data, or whether it `is` something"


@_rule
def believes_comparison(event: Event, known: Known) -> str | None:
    """``t == u`` with a plain answer, ``(t == u).all()``, ``[t] == [u]``."""
    if event.step != "comparison" or not _hold_object(event.values, known):
        return None
    if all(isinstance(op, ast.Is | ast.IsNot) for op in event.node.ops):
        return None
    plain = isinstance(event.result, bool | np.bool_)
    if plain or {"all", "any", "item"} & set(_attributes(event.around)):
        return f"a student's object says by itself how it compares: {_COMPARE_HERE}"
    return None


def _attributes(around: tuple[ast.AST, ...]) -> Iterator[str]:
    """``data``, ``all`` of ``(...).data.all()``: the attributes behind an expression."""
    for node in around:
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif not isinstance(node, ast.Call | ast.Subscript):
            return


@_rule
def believes_array(event: Event, known: Known) -> str | None:
    """``np.sum(t)``: NumPy calls the object's ``__array__`` or takes it for a number."""
    if event.step == "call" and _is_numerical(event.function) and _hold_object(event.values, known):
        return "NumPy would believe a student's object: give it plain data (for a Tensor, its .data)"
    return None


def _hold_object(values: Iterable[Any], known: Known) -> bool:
    """Is one of ``values`` an object of the course, or a list or tuple with one?"""
    return any(map(known.is_object, chain(values, *(value for value in values if type(value) in (list, tuple)))))


def _is_numerical(function: Any) -> bool:
    module = (getattr(function, "__module__", None) or "").partition(".")[0]
    return module in ("numpy", "math") or isinstance(function, np.ufunc) or isinstance(owner(function), np.ufunc)


@_rule
def forgets_shape(event: Event, known: Known) -> str | None:
    """``np.allclose([], 1)`` is True, and so is ``np.all(np.zeros((0, 3)) == want)``."""
    name = getattr(event.function, "__name__", "")
    module = getattr(event.function, "__module__", None) or ""
    if (_is_numerical(event.function) and name in _WITHOUT_SHAPE) or module.startswith("numpy.testing"):
        return "NumPy's comparison lets an empty array or another shape pass: use close"
    if name == "all" and (_is_numerical(event.function) or isinstance(owner(event.function), np.ndarray)):
        call = event.node
        compared = call.args[0] if call.args else getattr(call.func, "value", None)
        if isinstance(compared, ast.Compare) and any(isinstance(op, ast.Eq) for op in compared.ops):
            return "`==` of arrays lets an empty array or another shape pass: use close"
    return None


@_rule
def inherits(event: Event, known: Known) -> str | None:
    """``class Double(Module)``: made where the tests run, and ``Module`` may be somewhere else."""
    if event.step == "class" and any(map(known.is_class, event.values[0].__mro__[1:])):
        return "a class derived from the course's must stand in a cell above that is locked and not graded"
    return None
