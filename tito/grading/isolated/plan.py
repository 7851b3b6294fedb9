"""Which cells of a notebook run at all: tests and exercises do, demonstrations only if a later cell needs them."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Names:
    """The global names that a cell binds, and those that it uses without binding them first."""

    binds: frozenset[str]
    uses: frozenset[str]


def names_of(source: str) -> Names:
    """What a cell binds and uses; of one that Python cannot read, it uses every word in it."""
    try:
        tree = ast.parse(source)
        table = symtable.symtable(source, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return Names(frozenset(), frozenset(_NAME.findall(source)))
    binds = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    binds |= {one.get_name() for table in _inner(table) for one in table.get_symbols() if one.is_declared_global()}
    used = {one.get_name() for one in table.get_symbols() if one.is_referenced()}
    used |= {one.get_name() for inner in _inner(table) for one in inner.get_symbols() if one.is_global()}
    changed = used & set(_changed(tree))
    return Names(frozenset(binds | changed), frozenset((used - binds) | changed))


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)


def _changed(tree: ast.Module) -> Iterator[str]:
    """What a cell may write into although it was there: ``x += 1``, ``Tensor.colour = ...``, ``d[k] = ...``."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            while isinstance(target, ast.Attribute | ast.Subscript):
                target = target.value
                if isinstance(target, ast.Name):
                    yield target.id
            if isinstance(node, ast.AugAssign) and isinstance(target, ast.Name):
                yield target.id


def needed(sources: Sequence[str], optional: Sequence[bool]) -> list[bool]:
    """For each cell, whether it runs: all that are not optional, and of those what a cell that runs needs from them."""
    known = [names_of(source) for source in sources]
    runs = [not may_rest for may_rest in optional]
    for place in reversed(range(len(known))):
        if runs[place]:
            for name in known[place].uses:
                _wake(name, place, known, optional, runs)
    return runs


def _wake(name: str, before: int, known: list[Names], optional: Sequence[bool], runs: list[bool]) -> None:
    """Let the optional cells run that bind ``name`` last before the cell ``before``."""
    if hasattr(builtins, name) and not any(name in one.binds for one in known[:before]):
        return
    for place in reversed(range(before)):
        if name in known[place].binds:
            runs[place] = True
            if not (optional[place] and name in known[place].uses):
                return
