"""Mutants: copies of a solution with one small mistake each.

An operator is a function from a node of the syntax tree to the nodes that may stand in its place. Its name is what it
does; adding one is writing one.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from difflib import ndiff, unified_diff
from itertools import chain, pairwise
from typing import Any

from tito.source import split_secret

Operator = Callable[[Any], Iterator[ast.AST]]

_OPERATORS: list[tuple[tuple[type[ast.AST], ...], Operator]] = []
_ANNOTATIONS = {"annotation", "returns"}
_CONTEXT_LINES = 2

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.Div),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
_SYMMETRIC = {"min", "max", "minimum", "maximum", "allclose", "array_equal", "add", "multiply", "hypot"}
_PAIRS = ("float32 float64", "int64 int32", "max min", "argmax argmin", "sum mean", "zeros ones", "sin cos", "any all")
_NAMES = {a: b for pair in map(str.split, _PAIRS) for a, b in (pair, pair[::-1])} | {"prod": "sum", "empty": "ones"}


@dataclass(frozen=True)
class Mutant:
    """A solution with one mistake: ``before`` and ``after`` are the lines that differ, in normal form.

    ``source`` is the whole cell, and ``line`` the line of the author's cell where the mistake stands.
    """

    operator: str
    line: int
    before: str
    after: str
    diff: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of the solution regions in the cell ``source``, none twice."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    inside = {line.number for line in split_secret(source)[0] if line.region == "SOLUTION"}
    tensor_returns = set(_tensor_returns(tree))
    seen = {original}
    for node in _nodes(tree):
        if getattr(node, "lineno", None) not in inside:
            continue
        for name, replacement in chain(_variants(node), _detached(node) if node in tensor_returns else ()):
            mutated = _with(tree, node, replacement)
            if mutated not in seen and _compiles(mutated):
                seen.add(mutated)
                yield _mutant(name, node, original, mutated)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of ``tree`` in order, without annotations, which change nothing when code runs."""
    yield tree
    for field, value in ast.iter_fields(tree):
        if field not in _ANNOTATIONS:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _nodes(child)


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for kinds, operator in _OPERATORS:
        if isinstance(node, kinds):
            for replacement in operator(node):
                yield operator.__name__.replace("_", " "), replacement


def _tensor_returns(tree: ast.AST) -> Iterator[ast.AST]:
    """The ``return`` statements of functions that are annotated to return a Tensor."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.returns and ast.unparse(function.returns) == "Tensor":
            yield from (node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value)


def _detached(node: Any) -> Iterator[tuple[str, ast.AST]]:
    """``return y`` becomes ``return Tensor(y.data)``: the same numbers, but no gradient flows back."""
    data = ast.Attribute(node.value, "data")
    yield "gradient cut off", ast.Return(ast.Call(ast.Name("Tensor"), [data], []))


class _Replace(ast.NodeTransformer):
    """Puts ``new`` where ``old`` stands."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def _with(tree: ast.AST, node: ast.AST, replacement: ast.AST) -> str:
    """The source of ``tree`` with ``replacement`` in the place of ``node``; the tree stays as it is."""
    copies: dict[int, Any] = {}
    copied = deepcopy(tree, copies)
    return ast.unparse(ast.fix_missing_locations(_Replace(copies[id(node)], replacement).visit(copied)))


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _mutant(operator: str, node: ast.AST, original: str, mutated: str) -> Mutant:
    old, new = original.splitlines(), mutated.splitlines()
    changes = list(ndiff(old, new))
    before, after = ("\n".join(line[2:].strip() for line in changes if line.startswith(sign)) for sign in ("- ", "+ "))
    diff = list(unified_diff(old, new, "solution", "mutant", lineterm="", n=_CONTEXT_LINES))
    return Mutant(operator, node.lineno, before, after, "\n".join(diff), mutated)  # type: ignore[attr-defined]


def _operator(*kinds: type[ast.AST]) -> Callable[[Operator], Operator]:
    """Enter the function below it as an operator on nodes of these kinds."""

    def enter(operator: Operator) -> Operator:
        _OPERATORS.append((kinds, operator))
        return operator

    return enter


def _changed(node: ast.AST, **fields: Any) -> ast.AST:
    """A copy of ``node`` with other values in some of its fields."""
    copied = deepcopy(node)
    for name, value in fields.items():
        setattr(copied, name, value)
    return copied


def _without(items: list[Any], position: int) -> list[Any]:
    return items[:position] + items[position + 1 :]


@_operator(ast.Compare)
def another_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for position, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            yield _changed(node, ops=[*node.ops[:position], other(), *node.ops[position + 1 :]])


@_operator(ast.BinOp, ast.AugAssign)
def another_arithmetic(node: ast.BinOp | ast.AugAssign) -> Iterator[ast.AST]:
    for other in _ARITHMETIC.get(type(node.op), ()):
        yield _changed(node, op=other())


@_operator(ast.BinOp)
def operands_swapped(node: ast.BinOp) -> Iterator[ast.AST]:
    if isinstance(node.op, _ORDERED):
        yield _changed(node, left=node.right, right=node.left)


@_operator(ast.BoolOp)
def and_for_or(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


@_operator(ast.BoolOp)
def condition_dropped(node: ast.BoolOp) -> Iterator[ast.AST]:
    for position in range(len(node.values)):
        rest = _without(node.values, position)
        yield rest[0] if len(rest) == 1 else _changed(node, values=rest)


@_operator(ast.UnaryOp)
def sign_or_not_dropped(node: ast.UnaryOp) -> Iterator[ast.AST]:
    yield node.operand


@_operator(ast.Constant)
def another_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)


@_operator(ast.Call)
def range_off_by_one(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        stop = min(1, len(node.args) - 1)
        for op in (ast.Add(), ast.Sub()):
            moved = ast.BinOp(node.args[stop], op, ast.Constant(1))
            yield _changed(node, args=[*node.args[:stop], moved, *node.args[stop + 1 :]])


@_operator(ast.Call)
def keyword_dropped(node: ast.Call) -> Iterator[ast.AST]:
    for position in range(len(node.keywords)):
        yield _changed(node, keywords=_without(node.keywords, position))


@_operator(ast.Call)
def argument_dropped(node: ast.Call) -> Iterator[ast.AST]:
    for position in range(len(node.args) if len(node.args) > 1 else 0):
        yield _changed(node, args=_without(node.args, position))


@_operator(ast.Call)
def arguments_swapped(node: ast.Call) -> Iterator[ast.AST]:
    if ast.unparse(node.func).rpartition(".")[2] in _SYMMETRIC:
        return
    for left, right in pairwise(range(len(node.args))):
        args = list(node.args)
        args[left], args[right] = args[right], args[left]
        yield _changed(node, args=args)


@_operator(ast.Call)
def call_left_out(node: ast.Call) -> Iterator[ast.AST]:
    """``np.exp(x)`` and ``x.copy()`` become ``x``."""
    if len(node.args) == 1 and not isinstance(node.args[0], ast.GeneratorExp | ast.Starred):
        yield node.args[0]
    elif isinstance(node.func, ast.Attribute) and not node.args:
        yield node.func.value


@_operator(ast.Expr)
def plain_addition_for_add_at(node: ast.Expr) -> Iterator[ast.AST]:
    """``np.add.at(total, ids, rows)`` becomes ``total[ids] += rows``, which counts a repeated id once."""
    match node.value:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="add"), attr="at"), args=[total, ids, rows]):
            yield ast.AugAssign(ast.Subscript(total, ids, ast.Store()), ast.Add(), rows)


@_operator(ast.Attribute, ast.Name)
def another_function(node: ast.Attribute | ast.Name) -> Iterator[ast.AST]:
    field = "attr" if isinstance(node, ast.Attribute) else "id"
    name = getattr(node, field)
    if isinstance(node.ctx, ast.Load) and name in _NAMES:
        yield _changed(node, **{field: _NAMES[name]})


@_operator(ast.IfExp)
def one_branch_always(node: ast.IfExp) -> Iterator[ast.AST]:
    yield node.body
    yield node.orelse


@_operator(ast.If)
def test_always_the_same(node: ast.If) -> Iterator[ast.AST]:
    for value in (True, False):
        yield _changed(node, test=ast.Constant(value))


@_operator(ast.Slice)
def slice_bound_moved_or_dropped(node: ast.Slice) -> Iterator[ast.AST]:
    for field in ("lower", "upper", "step"):
        bound = getattr(node, field)
        if bound is not None:
            yield _changed(node, **{field: None})
            if field != "step":
                yield _changed(node, **{field: ast.BinOp(bound, ast.Add(), ast.Constant(1))})


@_operator(ast.Tuple, ast.List)
def items_reversed(node: ast.Tuple | ast.List) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load):
        yield _changed(node, elts=node.elts[::-1])


@_operator(ast.Tuple, ast.List)
def item_dropped(node: ast.Tuple | ast.List) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for position in range(len(node.elts)):
            yield _changed(node, elts=_without(node.elts, position))


@_operator(ast.Assign, ast.AugAssign, ast.Expr, ast.If, ast.For, ast.While, ast.Raise, ast.Global, ast.Break)
def statement_dropped(node: ast.stmt) -> Iterator[ast.AST]:
    yield ast.Pass()


@_operator(ast.Continue)
def break_for_continue(node: ast.Continue) -> Iterator[ast.AST]:
    yield ast.Break()


@_operator(ast.Raise)
def another_exception(node: ast.Raise) -> Iterator[ast.AST]:
    if isinstance(node.exc, ast.Call):
        yield _changed(node, exc=_changed(node.exc, func=ast.Name("RuntimeError")))


@_operator(ast.Raise)
def message_lost(node: ast.Raise) -> Iterator[ast.AST]:
    if isinstance(node.exc, ast.Call):
        yield _changed(node, exc=_changed(node.exc, args=[ast.Constant("wrong")]))


@_operator(ast.JoinedStr)
def value_missing_in_text(node: ast.JoinedStr) -> Iterator[ast.AST]:
    for position, part in enumerate(node.values):
        if isinstance(part, ast.FormattedValue):
            yield _changed(node, values=[*node.values[:position], ast.Constant("?"), *node.values[position + 1 :]])


@_operator(ast.Return)
def nothing_returned(node: ast.Return) -> Iterator[ast.AST]:
    if node.value is not None:
        yield _changed(node, value=ast.Constant(None))
