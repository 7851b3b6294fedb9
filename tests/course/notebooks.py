"""Notebooks made shorter, for tests of more than what each of their cells does."""

from __future__ import annotations

from copy import deepcopy

from nbformat import NotebookNode

from tito.source import grade_info


def without_demonstrations(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what takes long and is not graded: cells that draw, or measure and print."""
    shorter = deepcopy(notebook)
    shorter.cells = [
        cell for cell in shorter.cells if grade_info(cell) or (cell.cell_type == "code" and _is_needed(cell.source))
    ]
    return shorter


def _is_needed(source: str) -> bool:
    return source.startswith(("#|", "import ", "from ")) and "subplots" not in source
