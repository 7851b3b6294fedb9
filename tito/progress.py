"""What a student has completed: ``.tito/progress.json`` in the workspace, and what follows from it.

The file holds only what cannot be seen in the workspace itself: when a module was completed and which bytes were
exported then, and how many hints were given. Whether a module is complete, begun or locked is worked out from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any, Literal, Protocol

from tito.course import Course, Module
from tito.errors import TitoError

_FORMAT = 1

# changed: completed once, but its file in the package is not what was exported then
State = Literal["complete", "changed", "started", "ready", "locked"]


class Needs(Protocol):
    """What stands on modules: another module, or a milestone."""

    @property
    def slug(self) -> str: ...

    @property
    def prerequisites(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Completed:
    """When a module was completed, and the SHA-256 of the file it was exported to."""

    at: str
    sha256: str


@dataclass
class Progress:
    """The record: completed modules by slug, and by ``grade_id`` how many hints were given for an exercise."""

    completed: dict[str, Completed] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)


def digest(content: bytes) -> str:
    """What the record keeps of an exported file."""
    return hashlib.sha256(content).hexdigest()


def progress_file(course: Course) -> Path:
    """Where the record of this workspace is."""
    return course.root / ".tito" / "progress.json"


def read_progress(course: Course) -> Progress:
    """The record; an empty one if nothing has been recorded yet.

    Raises
    ------
    TitoError
        If the file is broken, of another course, or of a newer tito.
    """
    path = progress_file(course)
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        if fields["format"] != _FORMAT:
            raise _unusable(path, f"has the format {fields['format']!r}, this tito knows {_FORMAT}")
        if fields["course"] != course.course_id:
            raise _unusable(path, f"is of the course {fields['course']!r}, this is {course.course_id!r}")
        completed = {
            str(slug): Completed(datetime.fromisoformat(done["at"]).isoformat(), str(done["sha256"]))
            for slug, done in fields["completed"].items()
        }
        return Progress(completed, {str(name): int(count) for name, count in fields["hints"].items()})
    except FileNotFoundError:
        return Progress()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(path, f"is broken ({type(error).__name__}: {error})") from None


def _unusable(path: Path, why: str) -> TitoError:
    quoted = quote(str(path))
    return TitoError(
        f"the record of your progress {why}",
        place=str(path),
        next_step=f"move it away: mv {quoted} {quoted}.old   Then run `tito module complete NN` for each module that "
        "you had finished, in order; your notebooks are not touched by this",
    )


def dump_progress(course: Course, progress: Progress) -> str:
    """The text of the record's file."""
    fields = {"format": _FORMAT, "course": course.course_id, **asdict(progress)}
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def state(course: Course, module: Module, progress: Progress) -> State:
    """How far ``module`` is. In the author's tree it is complete if it is exported."""
    if not course.is_workspace:
        return "complete" if course.exported(module).is_file() else "ready"
    if module.slug in progress.completed:
        return "complete" if _is_as_exported(course, module, progress) else "changed"
    if missing_prerequisite(course, module, progress):
        return "locked"
    return "started" if _is_edited(module) else "ready"


def _is_as_exported(course: Course, module: Module, progress: Progress) -> bool:
    path = course.exported(module)
    return path.is_file() and digest(path.read_bytes()) == progress.completed[module.slug].sha256


def _is_edited(module: Module) -> bool:
    notebook, pristine = module.notebook, module.pristine
    return notebook.is_file() and pristine.is_file() and notebook.read_bytes() != pristine.read_bytes()


def missing_prerequisite(course: Course, item: Needs, progress: Progress) -> Module | None:
    """The first module that ``item`` needs, directly or through another, and that is not complete."""
    needed: set[int] = set()
    waiting = list(item.prerequisites)
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting += course.by_number(number).prerequisites
    for number in sorted(needed):
        other = course.by_number(number)
        path = course.exported(other)
        done = other.slug in progress.completed and _is_as_exported(course, other, progress)
        if not (done if course.is_workspace else path.is_file()):
            return other
    return None


def require_prerequisites(course: Course, item: Needs, progress: Progress) -> None:
    """Refuse to go on if a module that ``item`` needs is not complete.

    Raises
    ------
    TitoError
        Naming the first one, and the command that completes it.
    """
    missing = missing_prerequisite(course, item, progress)
    if missing is None:
        return
    if not course.is_workspace:
        raise TitoError(
            f"{item.slug} needs {missing.slug}, which is not exported", next_step=f"tito export {missing.nn}"
        )
    if missing.slug in progress.completed:
        raise TitoError(
            f"{item.slug} needs {missing.slug}, whose file in the package is missing or not what was exported",
            place=str(course.exported(missing)),
            next_step=f"export your notebook again: tito module complete {missing.nn}",
        )
    raise TitoError(
        f"{item.slug} needs {missing.slug}, which is not complete yet",
        next_step=f"tito module start {missing.nn}, and when its tests pass: tito module complete {missing.nn}",
    )


@contextmanager
def only_one(course: Course, doing: str) -> Iterator[None]:
    """Hold the workspace's lock while something is changed; the system frees it whenever and however we end.

    Raises
    ------
    TitoError
        If another process holds it; the lock file tells which.
    """
    path = progress_file(course).with_name("lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TitoError(
                f"another tito is at work in this folder: {file.read().strip() or 'it has just begun'}",
                place=str(course.root),
                next_step="wait until it is done (or stop it), then try again",
            ) from None
        file.truncate(0)
        file.write(f"{doing} (process {os.getpid()})\n")
        file.flush()
        yield
