"""Running a graded cell so that the lint sees what meets the course's code.

Calls, operations, comparisons, conditions, assignments to attributes and classes of the cell are rewritten so that a
``Watch`` does them, as they would be done without it, and tells the lint's rules what it saw.
"""

from __future__ import annotations
import __future__

import ast
import json
import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from tito.audit.lint import RULES, Event, Finding, Known, Step, owner

_UNSEEN = {"super", "locals", "globals", "vars", "eval", "exec"}  # they look at the frame that calls them

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.MatMult: operator.matmul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}

_known = Known()


def watched(cell_id: str, source: str, findings: Path) -> str:
    """The source of a cell that runs ``source``, and appends to the file ``findings`` what breaks the lint's rules."""
    arguments = f"{cell_id!r}, {source!r}, {str(findings)!r}"
    return f"import {__name__} as __watch__\n__watch__.play({arguments}, globals())"


def play(cell_id: str, source: str, findings: str, namespace: dict[str, Any]) -> None:
    """Run the graded cell ``source`` in ``namespace``, watched."""
    tree = ast.parse(source)
    numbers = {id(node): number for number, (node, _) in enumerate(_with_surroundings(tree))}
    name = f"__watch_{len(_known.tests)}__"  # Python does not mangle such a name in a class
    _known.tests.add(cell_id)
    namespace[name] = Watch(cell_id, list(_with_surroundings(ast.parse(source))), Path(findings))
    rewritten = ast.fix_missing_locations(_Rewrite(name, numbers).visit(tree))
    flags = __future__.annotations.compiler_flag
    exec(compile(rewritten, cell_id, "exec", flags, dont_inherit=True), namespace)


def _with_surroundings(
    node: ast.AST, around: tuple[ast.AST, ...] = ()
) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """``node`` and all below it, always in the same order, each with the nodes that it stands in, innermost first."""
    yield node, around
    for child in ast.iter_child_nodes(node):
        yield from _with_surroundings(child, (node, *around))


class Watch:
    """Does what the nodes of a cell say, by their numbers, and tells the rules of it."""

    def __init__(self, cell_id: str, nodes: list[tuple[Any, tuple[ast.AST, ...]]], findings: Path) -> None:
        self.cell_id = cell_id
        self.nodes = nodes
        self.findings = findings
        self.found: set[Finding] = set()

    def call(self, number: int, function: Any, /, *args: Any, **options: Any) -> Any:
        object_ = function if _known.is_object(function) else owner(function)
        values = (*([object_] if _known.is_object(object_) else []), *args, *options.values())
        self._tell("call", number, values, function=function)
        result = function(*args, **options)
        if _known.runs_course(function):
            _known.learn(result, values)
        return result

    def operation(self, number: int, left: Any, right: Any) -> Any:
        self._tell("operation", number, (left, right))
        result = _OPERATORS[type(self.nodes[number][0].op)](left, right)
        if _known.is_object(left) or _known.is_object(right):
            _known.learn(result, (left, right))
        return result

    def comparison(self, number: int, *values: Any) -> Any:
        result: Any = True
        for op, (left, right) in zip(self.nodes[number][0].ops, pairwise(values), strict=True):
            result = _OPERATORS[type(op)](left, right)
            if len(values) > 2 and not result:
                break
        self._tell("comparison", number, values, result=result)
        return result

    def condition(self, number: int, value: Any) -> Any:
        self._tell("condition", number, (value,))
        return value

    def attribute(self, _: int, object_: Any, name: str) -> Any:
        result = getattr(object_, name)
        if _known.is_object(object_):
            _known.learn(result, [object_])
        return result

    def assignment(self, number: int, value: Any, *objects: Any) -> None:
        for object_ in objects:
            self._tell("assignment", number, (object_, value))

    def defined(self, number: int, made: type) -> None:
        _known.classes.add(made)
        self._tell("class", number, (made,))

    def _tell(self, step: Step, number: int, values: tuple[Any, ...], **more: Any) -> None:
        node, around = self.nodes[number]
        event = Event(step, node, around, values, **more)
        for problem in filter(None, (rule(event, _known) for rule in RULES)):
            self._report(Finding(self.cell_id, node.lineno, _text(node), problem))

    def _report(self, finding: Finding) -> None:
        if finding not in self.found:
            self.found.add(finding)
            with self.findings.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(finding)) + "\n")


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    return ast.unparse(node)


class _Rewrite(ast.NodeTransformer):
    """Lets the Watch of this ``name`` do what the nodes say; ``numbers`` are theirs, by id."""

    def __init__(self, name: str, numbers: dict[int, int]) -> None:
        self.name = name
        self.numbers = numbers

    def _watch(self, method: str, node: ast.AST, *values: ast.expr, **fields: list[ast.keyword]) -> ast.Call:
        function = ast.Attribute(ast.Name(self.name, ast.Load()), method, ast.Load())
        return ast.Call(function, [ast.Constant(self.numbers[id(node)]), *values], fields.get("keywords", []))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in _UNSEEN:
            return node
        return self._watch("call", node, node.func, *node.args, keywords=node.keywords)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._watch("operation", node, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return self._watch("comparison", node, node.left, *node.comparators)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or node.attr.startswith("__"):
            return node
        return self._watch("attribute", node, node.value, ast.Constant(node.attr))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not):
            node.operand = self._condition(node.operand)
            return node
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        node.values = [*map(self._condition, node.values[:-1]), self.visit(node.values[-1])]
        return node

    def visit_If(self, node: ast.If | ast.While | ast.Assert | ast.IfExp) -> ast.AST:
        node.test, test = ast.Constant(True), node.test
        self.generic_visit(node)
        node.test = self._condition(test)
        return node

    visit_While = visit_Assert = visit_IfExp = visit_If  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.ifs, conditions = [], node.ifs
        self.generic_visit(node)
        node.ifs = [*map(self._condition, conditions)]
        return node

    def _condition(self, node: ast.expr) -> ast.Call:
        return self._watch("condition", node, self.visit(node))

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> Any:
        """``a.b = value`` becomes ``__value__ = value; watch.assignment(number, __value__, a); a.b = __value__``."""
        objects = list(_assigned_to(node))
        self.generic_visit(node)
        if not objects or node.value is None:
            return node
        value, node.value = node.value, ast.Name("__value__", ast.Load())
        keep = ast.Assign([ast.Name("__value__", ast.Store())], value)
        return [keep, ast.Expr(self._watch("assignment", node, node.value, *objects)), node]

    visit_AnnAssign = visit_AugAssign = visit_Assign  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self.generic_visit(node)
        return [node, ast.Expr(self._watch("defined", node, ast.Name(node.name, ast.Load())))]


def _assigned_to(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> Iterator[ast.expr]:
    """``a.b`` and ``a`` of ``a.b[0] = value``, and ``a`` of ``a += value``; nothing that calls, since calls count."""
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, ast.Name) and isinstance(node, ast.AugAssign):
            yield ast.Name(target.id, ast.Load())
        for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
            while isinstance(part, ast.Attribute | ast.Subscript):
                part = part.value
                if not any(isinstance(below, ast.Call) for below in ast.walk(part)):
                    yield deepcopy(part)
