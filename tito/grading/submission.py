"""A submission as it is run: what the student handed in, mended against the release, with the author's tests in it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tito.errors import TitoError
from tito.outcome import is_test
from tito.repair import names_in, read_file, repair
from tito.source import code_cells, grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode

_MOST_BYTES = 100_000_000  # of a notebook; what students hand in by mistake, outputs included, stays far below


def read_submission(path: Path) -> NotebookNode:
    """The notebook ``submitted/STUDENT/MODULE/name.ipynb``; nbgrader says of a missing or broken one too little.

    Raises
    ------
    TitoError
        If there is none that can be read, or a link stands in its place.
    """
    refuse_links(path)
    others = ", ".join(sorted(other.name for other in path.parent.glob("*.ipynb") if other.is_file()))
    if others and not path.is_file():
        raise TitoError(f"{path.name} is missing; the folder has {others}", place=str(path.parent))
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise TitoError(f"{path.name} is larger than {_MOST_BYTES:,} bytes", place=str(path))
    return read_file(path, missing="collect it", broken="collect it again")


def refuse_links(path: Path) -> None:
    """See that reading the notebook ``path`` of a submission stays inside it.

    Raises
    ------
    TitoError
        If the notebook, its folder, the student's folder or the time of handing in is a link, or a file of no kind
        that can be handed in.
    """
    for part in (path.parents[1], path.parent, path, path.with_name("timestamp.txt")):
        try:
            mode = part.lstat().st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            raise TitoError(
                f"{part.name} is a link: what it leads to is not graded",
                place=str(part),
                next_step="put the file itself there",
            )
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise TitoError(f"{part.name} is not a file", place=str(part))


def own_files(folder: Path) -> Iterator[Path]:
    """The files below ``folder``, by name; links, and whatever they lead to, are left out."""
    for where, folders, names in os.walk(folder) if not folder.is_symlink() else ():
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def mend(submitted: NotebookNode, released: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The submitted notebook as it can be graded, and what was put back.

    Raises
    ------
    TitoError
        If it is another notebook altogether.
    """
    if not names_in(submitted) & set(grade_ids(released)):
        raise TitoError("this is not the notebook of the assignment: it has none of its cells")
    return repair(submitted, released)


def with_tests(notebook: NotebookNode, source: NotebookNode) -> NotebookNode:
    """``notebook`` with the tests of the author's ``source``, hidden ones included; it is changed in place."""
    tests = {grade_info(cell)["grade_id"]: cell.source for cell in source.cells if is_test(cell)}
    for cell in notebook.cells:
        cell.source = tests.get(grade_info(cell).get("grade_id"), cell.source)
    return notebook


def grade_ids(notebook: NotebookNode) -> list[str]:
    """The ids of the cells that nbgrader knows, in the notebook's order."""
    return [info["grade_id"] for cell in notebook.cells if "grade_id" in (info := grade_info(cell))]


def digest(notebook: NotebookNode) -> str:
    """A digest of all in ``notebook`` that decides what running it gives: its code cells, and what they are for."""
    marks = ("grade_id", "grade", "solution")
    cells = [
        [cell.source, float(info.get("points") or 0), cell.metadata.get("tags"), *(info.get(mark) for mark in marks)]
        for cell in code_cells(notebook)
        for info in [grade_info(cell)]
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
