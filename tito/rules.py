"""What holds of every module's source and can be seen without running it: its points, and what it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from tito.course import Course, Module
from tito.errors import TitoError
from tito.outcome import is_test
from tito.source import code_cells, grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode

POINTS = 100


def broken_rules(course: Course, module: Module, notebook: NotebookNode) -> list[str]:
    """What is wrong in ``notebook``, which the source of ``module`` describes, in words for its author."""
    return [*_wrong_sum(notebook), *_wrong_imports(course, module, notebook)]


def require_rules(course: Course, module: Module, notebook: NotebookNode) -> None:
    """Refuse to hand out a notebook in which a rule is broken.

    Raises
    ------
    TitoError
        Naming every one.
    """
    problems = broken_rules(course, module, notebook)
    if problems:
        raise TitoError(
            "\n".join([f"{module.slug} cannot be released yet:", *(f"  {problem}" for problem in problems)]),
            place=str(module.source),
            next_step="mend the source; see CONTRIBUTING.md, 'The cells'",
        )


def _wrong_sum(notebook: NotebookNode) -> Iterator[str]:
    graded = [info for cell in notebook.cells if (info := grade_info(cell)).get("grade")]
    points = [info["points"] for info in graded if isinstance(info.get("points"), int | float)]
    if sum(points) != POINTS:
        yield f"the points of its cells add up to {sum(points):g}, not {POINTS}"


def _wrong_imports(course: Course, module: Module, notebook: NotebookNode) -> Iterator[str]:
    """The package's modules that are not before this one, and parts of this tool that the cell does not need."""
    earlier = {other.import_name for other in course.before(module)}
    for cell in code_cells(notebook):
        for name in _imported(cell.source):
            if name.startswith("tinytorch.core.") and name not in earlier:
                yield f"the cell {cell.id} imports {name}, which is no module before this one"
            if name.partition(".")[0] == "tito" and name != _part_for(cell):
                yield f"the cell {cell.id} imports {name}; of this tool it may import {_part_for(cell) or 'nothing'}"


def _part_for(cell: NotebookNode) -> str:
    """What the cell may import from this tool."""
    if is_test(cell):
        return "tito.testing"
    only_shows = not (grade_info(cell) or "#| export" in cell.source)
    return "tito.data" if only_shows else ""


def _imported(source: str) -> Iterator[str]:
    """The full names of the modules that ``source`` imports; none if Python cannot read it."""
    with suppress(SyntaxError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from _imported_from(node)


def _imported_from(node: ast.ImportFrom) -> Iterator[str]:
    package = ".".join(filter(None, ["tinytorch.core" if node.level else "", node.module]))
    if package in ("tinytorch.core", "tito"):
        yield from (f"{package}.{alias.name}" for alias in node.names)
    else:
        yield package
