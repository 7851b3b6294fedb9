"""Which cells of a notebook run at all: tests and exercises do, demonstrations only if a later cell needs them."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Names:
    """The global names that a cell binds, those whose objects it may write into, and those that it needs for it all."""

    binds: frozenset[str]
    changes: frozenset[str]
    uses: frozenset[str]

    @property
    def makes(self) -> frozenset[str]:
        """The names that are not the same after the cell."""
        return self.binds | self.changes


@lru_cache(1000)  # most cells are the same in all submissions
def names_of(source: str) -> Names:
    """What a cell binds and uses: nothing if Python cannot read it, since then it does not run."""
    try:
        tree = ast.parse(source)
        table = symtable.symtable(source, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return Names(frozenset(), frozenset(), frozenset())
    binds = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    binds |= {one.get_name() for table in _inner(table) for one in table.get_symbols() if one.is_declared_global()}
    used = {one.get_name() for one in table.get_symbols() if one.is_referenced()}
    used |= {one.get_name() for inner in _inner(table) for one in inner.get_symbols() if one.is_global()}
    changed = (used | binds) & set(_changed(tree))
    return Names(frozenset(binds), frozenset(changed), frozenset((used - binds) | changed))


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


def _wake(name: str, user: int, known: list[Names], optional: Sequence[bool], runs: list[bool]) -> None:
    """Let the optional cell run that binds ``name`` last before the cell ``user``, or first after it."""
    for place in reversed(range(user)):
        if name in known[place].makes:
            runs[place] = True
            if not (optional[place] and name in known[place].uses):
                return
    after = (place for place in range(user + 1, len(known)) if name in known[place].makes)
    first = None if hasattr(builtins, name) else next(after, None)
    if first is not None:
        runs[first] = True
