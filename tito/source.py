"""A module's source as a notebook: the percent-format file, read by jupytext, with cell ids that never change.

Also the marked regions of a source (solutions, hidden tests, marking schemes), which students must not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tito.course import Module
from tito.errors import TitoError

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

# nbgrader's default delimiters (nbgrader.preprocessors.ClearSolutions, ClearHiddenTests, ClearMarkScheme)
_REGIONS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
# a paragraph, with the blank line before it, up to the next blank line or the end of the docstring
_INSTRUCTIONS = re.compile(r'\n*\n[ \t]+(?:TODO|APPROACH|HINT)\b.*(?:\n(?![ \t]*(?:"""|$)).*)*', re.MULTILINE)
_MARKER = re.compile(rf"\b(BEGIN|END) ({'|'.join(_REGIONS)})\b")


@dataclass(frozen=True)
class SecretLine:
    """A line of a source that students must not see."""

    region: str
    number: int
    text: str


def read_notebook(module: Module) -> NotebookNode:
    """The notebook that ``module``'s source describes, solutions and hidden tests included.

    Cell ids come from the ``grade_id`` where a cell has one and from the cell's position elsewhere, so that the same
    source always gives the same notebook.

    Raises
    ------
    TitoError
        If the source is missing or cannot be read as a notebook, or if two cells have the same ``grade_id``.
    """
    try:
        notebook = deepcopy(_parsed(module.source.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TitoError(f"module {module.slug} has no source", place=str(module.source)) from None
    except Exception as error:  # jupytext raises its own and its parsers' many types
        raise TitoError(f"the source cannot be read: {error}", place=str(module.source)) from None
    notebook.metadata.clear()
    notebook.metadata.update({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    seen: set[str] = set()
    for position, cell in enumerate(notebook.cells):
        cell.metadata.pop("lines_to_next_cell", None)
        grade_id = grade_info(cell).get("grade_id")
        cell["id"] = str(grade_id) if grade_id else f"{module.name}-{position:03d}"
        if cell["id"] in seen:
            raise TitoError(
                f"two cells have the grade_id {cell['id']!r}",
                place=str(module.source),
                next_step="give each cell a grade_id of its own",
            )
        seen.add(cell["id"])
    return notebook


@lru_cache(maxsize=32)
def _parsed(text: str) -> NotebookNode:
    """The notebook that a source holds; to parse it takes a fifth of a second, and a command may want it twice."""
    import jupytext

    return jupytext.reads(text, fmt="py:percent")


def grade_info(cell: NotebookNode) -> dict[str, Any]:
    """The cell's nbgrader metadata; empty if it has none, or none that nbgrader could use."""
    info = cell.metadata.get("nbgrader")
    return dict(info) if isinstance(info, dict) and isinstance(info.get("grade_id", ""), str) else {}


def is_marker(line: str) -> bool:
    """True if ``line`` begins or ends a region, as nbgrader sees it: anywhere in the line."""
    return bool(_MARKER.search(line))


def strip_markers(text: str) -> str:
    """``text`` without the lines that begin or end a region; what is between them stays."""
    return "\n".join(line for line in text.split("\n") if not is_marker(line))


def strip_instructions(text: str) -> str:
    """``text`` without what docstrings say to the student alone: the paragraphs TODO, APPROACH and HINT."""
    return _INSTRUCTIONS.sub("", text)


def split_secret(text: str) -> tuple[list[SecretLine], list[str]]:
    """The lines of ``text`` inside marked regions, and those outside (the marker lines are in neither)."""
    secret: list[SecretLine] = []
    public: list[str] = []
    regions: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        marker = _MARKER.search(line)
        if marker and marker[1] == "BEGIN":
            regions.append(marker[2])
        elif marker:
            regions = [region for region in regions if region != marker[2]]
        elif regions:
            secret.append(SecretLine(regions[-1], number, line))
        else:
            public.append(line)
    return secret, public


def code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The notebook's code cells, in order."""
    return (cell for cell in notebook.cells if cell.cell_type == "code")
