"""Hints: what the docstring of an exercise holds under HINT and APPROACH, one rung at a time."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tito.source import code_cells

if TYPE_CHECKING:
    from nbformat import NotebookNode

_LADDER = ("HINT", "APPROACH")
_SECTION = re.compile(r"^(TODO|APPROACH|EXAMPLE|HINT)S?:[ \t]*", re.MULTILINE)


def rungs(pristine: NotebookNode, exercise: str, function: str) -> list[str]:
    """The hints for an exercise, the smallest first: those of ``function``, or else the first ones in the cell."""
    source = next((cell.source for cell in code_cells(pristine) if cell.id == exercise), "")
    documented = _docstrings(ast.parse(source))
    for text in (documented.get(function, ""), *documented.values()):
        sections = _sections(text)
        if "HINT" in sections:
            return [f"{name}\n{sections[name]}" for name in _LADDER if name in sections]
    return []


def _docstrings(node: ast.Module | ast.ClassDef, inside: str = "") -> dict[str, str]:
    """Every docstring of the functions and classes in ``node``, by name: ``Tensor``, ``Tensor.__init__``."""
    found: dict[str, str] = {}
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[inside + child.name] = ast.get_docstring(child) or ""
        if isinstance(child, ast.ClassDef):
            found |= _docstrings(child, f"{inside}{child.name}.")
    return found


def _sections(docstring: str) -> dict[str, str]:
    """The text under each of TODO, APPROACH, EXAMPLE and HINT."""
    marks = list(_SECTION.finditer(docstring))
    ends = [*(mark.start() for mark in marks[1:]), len(docstring)]
    return {mark[1]: docstring[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=False)}
