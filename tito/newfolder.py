"""Making a whole folder from the course: out of sight beside its place, and renamed when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from tito.course import Course
from tito.errors import TitoError


def full_path(folder: Path) -> Path:
    """``folder`` from the root on, with ``~`` and links followed.

    Raises
    ------
    TitoError
        If it begins with the home of a user who does not exist.
    """
    try:
        return folder.expanduser().resolve()
    except RuntimeError:
        raise TitoError(f"nobody here is called {folder.parts[0][1:]!r}", place=str(folder)) from None


@contextmanager
def new_folder(course: Course, target: Path, what: str) -> Iterator[Path]:
    """A folder to fill: it becomes ``target`` when the block ends, and is gone if the block fails or is stopped.

    ``what`` is what people call it.

    Raises
    ------
    TitoError
        If ``target`` cannot be used or written, or ``course`` is a student's workspace, which has nothing to give.
    """
    _check(course, target, what)
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            folder = temporary / target.name
            folder.mkdir()
            yield folder
            os.replace(folder, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise TitoError(
            f"cannot write the {what}: {error.strerror or error}",
            place=str(error.filename or target),
            next_step="choose a folder that you may write to, on a disk with room",
        ) from None


def _check(course: Course, target: Path, what: str) -> None:
    if course.is_workspace:
        raise TitoError(
            f"this is a student's workspace: it has no sources to make a {what} of",
            place=str(course.root),
            next_step="run this in the author's tree",
        )
    inside = target.relative_to(course.root).parts[:1] if target.is_relative_to(course.root) else ()
    if inside and inside[0] in _own_folders(course):
        raise TitoError(
            f"a {what} cannot lie inside {inside[0]}/ of the course itself",
            place=str(target),
            next_step="choose a folder outside the course, such as ~/class",
        )
    if target.exists() and not target.is_dir():
        raise TitoError("this is a file, not a folder", place=str(target), next_step="choose a new folder")
    if target.exists() and any(target.iterdir()):
        raise TitoError(
            f"the folder is not empty; a {what} never writes over anything",
            place=str(target),
            next_step="choose a new or empty folder",
        )
    if not target.parent.is_dir():
        raise TitoError(
            f"there is no folder {target.parent}",
            place=str(target),
            next_step=f"create it: mkdir -p {quote(str(target.parent))}",
        )


def _own_folders(course: Course) -> set[str]:
    """The folders at the root of the course that it is made of."""
    set_ones = (course.setting("course", "modules_path"), course.setting("nbdev", "lib_path"))
    return {Path(folder).parts[0] for folder in (*set_ones, "tito", "tests", "milestones", "datasets")}
