"""Reading a student's notebook, whatever happened to it, and putting back what it must have to be judged."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tito.course import Course, Module
from tito.errors import TitoError
from tito.source import grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode


_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what nbformat takes for a cell's id


def read_own_notebook(course: Course, module: Module) -> tuple[NotebookNode, list[str]]:
    """The student's notebook as it is judged, and what had to be put back for that; the file stays as it is.

    Raises
    ------
    TitoError
        If the notebook is missing, cannot be read, or is another module's.
    """
    pristine = read_pristine(module)
    again = f"tito module reset {module.nn} puts a fresh one there and keeps this one as a backup"
    own = read_file(module.notebook, missing=f"put it there: tito module start {module.nn}", broken=again)
    ids = names_in(own)
    if not ids & set(_grade_ids(pristine)):
        whose = next((m.slug for m in course.modules if m.pristine.is_file() and ids & set(_grade_ids_of(m))), "")
        raise TitoError(
            f"this is not the notebook of {module.slug}: "
            + (f"it is that of {whose}" if whose else "it has none of the module's cells"),
            place=str(module.notebook),
            next_step=f"put the right notebook there, or: {again}",
        )
    return repair(own, pristine)


def read_pristine(module: Module) -> NotebookNode:
    """The module's notebook as it was released.

    Raises
    ------
    TitoError
        If the workspace has lost it.
    """
    advice = "copy this file, or the whole folder .tito/release, from the workspace you were given"
    return read_file(module.pristine, missing=advice, broken=advice)


def read_file(path: Path, *, missing: str, broken: str) -> NotebookNode:
    """The notebook in the file ``path``.

    Raises
    ------
    TitoError
        If it is missing, with the next step ``missing``, or cannot be read as a notebook, with ``broken``.
    """
    import nbformat

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TitoError("the notebook is missing", place=str(path), next_step=missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TitoError(f"the notebook cannot be read: {error}", place=str(path), next_step=broken) from None
    try:
        text = json.dumps(_without_odd_ids(json.loads(text)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an id that stands twice it warns at length, and replaces it
            notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
            if notebook.nbformat != 4:
                notebook = nbformat.convert(notebook, 4)
            nbformat.validate(notebook)
    except json.JSONDecodeError as error:
        raise TitoError(
            f"the notebook is not JSON: {error.msg}", place=f"{path}, line {error.lineno}", next_step=broken
        ) from None
    except Exception as error:  # nbformat and jsonschema find many things wrong, each with its own type
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TitoError(f"the file is not a notebook: {reason}", place=str(path), next_step=broken) from None
    return notebook


def _without_odd_ids(data: Any) -> Any:
    """The JSON of a notebook without the cell ids that nbformat refuses; what is no notebook stays as it is."""
    cells = data.get("cells") if isinstance(data, dict) else None
    for place, cell in enumerate(cells if isinstance(cells, list) else ()):
        if isinstance(cell, dict) and "id" in cell and not _is_id(cell["id"]):
            cell["id"] = f"odd-{place}"
    return data


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(_ID.fullmatch(value))


def names_in(notebook: NotebookNode) -> set[str]:
    """What its cells can be known by: their ``grade_id``, or, where nbgrader's metadata is lost, their id."""
    return {*_grade_ids(notebook), *(cell.id for cell in notebook.cells if cell.get("id"))}


def _grade_ids(notebook: NotebookNode) -> Iterator[str]:
    return (str(info["grade_id"]) for cell in notebook.cells if (info := grade_info(cell)).get("grade_id"))


def _grade_ids_of(module: Module) -> Iterator[str]:
    return _grade_ids(read_pristine(module))


def repair(own: NotebookNode, pristine: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """A copy of ``own`` with every cell that the released notebook needs, and what was done, in words.

    Tests are as released; exercises and answers are the student's. Of a cell that stands twice the last one counts, as
    for nbgrader. Cells that the student added stay. Whatever nbgrader's metadata became, it is the released one.
    """
    notebook = deepcopy(own)
    originals = {info["grade_id"]: cell for cell in pristine.cells if (info := grade_info(cell)).get("grade_id")}
    notes = _recognise(notebook, originals)
    notes += _drop_repeated(notebook, originals)
    for cell in notebook.cells:
        original = originals.get(grade_info(cell).get("grade_id"))
        if original is not None:
            notes += _restore(cell, original)
    notes += _put_back(notebook, pristine)
    _name_cells(notebook)
    return notebook, notes


def cell_label(cell: NotebookNode) -> str:
    """What a person calls the cell: its ``grade_id``, or how it begins."""
    lines = [line.strip() for line in cell.source.split("\n") if line.strip() and not line.startswith("#|")]
    return str(grade_info(cell).get("grade_id") or f"that begins `{lines[0][:40] if lines else ''}`")


def _name_cells(notebook: NotebookNode) -> None:
    """Give marked cells their ``grade_id`` as id, and see that each of the others has one of its own."""
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    taken = set(_grade_ids(notebook))
    for position, cell in enumerate(notebook.cells):
        mark = grade_info(cell).get("grade_id")
        if mark or cell.get("id") in (None, *taken):
            cell["id"] = mark or f"cell-{position}"
        taken.add(cell.id)


def _recognise(notebook: NotebookNode, originals: dict[str, NotebookNode]) -> list[str]:
    """Mark the cells that have lost nbgrader's mark, and still have the id that goes with it."""
    marked = set(_grade_ids(notebook))
    lost = [cell for cell in notebook.cells if not grade_info(cell) and cell.get("id") in originals.keys() - marked]
    for cell in lost:
        cell.metadata["nbgrader"] = deepcopy(originals[cell.id].metadata["nbgrader"])
    return [f"the cell {cell.id} has lost its metadata: it is known by its id" for cell in lost]


def _drop_repeated(notebook: NotebookNode, originals: dict[str, NotebookNode]) -> list[str]:
    """Take the mark off cells that repeat a later one, and off those that are no cells of this module."""
    notes: list[str] = []
    seen: set[str] = set()
    for cell in reversed(notebook.cells):
        name = grade_info(cell).get("grade_id")
        if name in seen or name not in originals:
            cell.metadata.pop("nbgrader", None)
        if name in seen:
            notes.insert(0, f"the cell {name} stands more than once: the last one counts")
        elif name in originals:
            seen.add(name)
    return notes


def _restore(cell: NotebookNode, original: NotebookNode) -> list[str]:
    """Make ``cell`` what it must be: a test as released, an exercise with the directive that exports it."""
    name = grade_info(original)["grade_id"]
    cell.metadata["nbgrader"] = deepcopy(original.metadata["nbgrader"])
    is_students = grade_info(original).get("solution") and cell.cell_type == original.cell_type
    if not is_students:
        if cell.cell_type == original.cell_type and cell.source.rstrip() == original.source.rstrip():
            return []
        cell.clear()
        cell.update(deepcopy(original))
        return [f"the cell {name} was edited: the released one is used"]
    directive = original.source.split("\n")[0]
    if not directive.startswith("#|") or directive in cell.source.split("\n"):
        return []
    cell.source = f"{directive}\n{cell.source}"
    return [f"the cell {name} has lost its first line: it is read as if `{directive}` still stood there"]


def _put_back(notebook: NotebookNode, pristine: NotebookNode) -> list[str]:
    """Insert the marked and the exporting cells that are gone, each after the cell that it came after."""
    notes: list[str] = []
    missing: dict[int, list[NotebookNode]] = {}  # by the number of the student's cells before them
    places = _places(notebook)
    place = 0
    for original in pristine.cells:
        found = [places[key] for key in _keys(original) if key in places]
        if found:
            place = min(found) + 1
        elif grade_info(original) or original.source.startswith("#|"):
            missing.setdefault(place, []).append(deepcopy(original))
            notes.append(f"the cell {cell_label(original)} was deleted: the released one is used")
    own = [*notebook.cells]
    notebook.cells = [cell for i in range(len(own) + 1) for cell in (*missing.get(i, ()), *own[i : i + 1])]
    return notes


def _places(notebook: NotebookNode) -> dict[tuple[str, str], int]:
    """Where a cell that answers to a key stands first."""
    places: dict[tuple[str, str], int] = {}
    for place, cell in enumerate(notebook.cells):
        for key in _keys(cell):
            places.setdefault(key, place)
    return places


def _keys(cell: NotebookNode) -> list[tuple[str, str]]:
    """By what a cell is known again: its ``grade_id``; one without any by its id, or by what it says."""
    if name := grade_info(cell).get("grade_id"):
        return [("grade_id", name)]
    text = cell.source.strip()
    return [("id", cell.get("id", "")), *([("source", text)] if text else [])]
