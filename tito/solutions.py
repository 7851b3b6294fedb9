"""Solutions for people who teach themselves: packed into their workspace, and read back for a module they completed.

The pack is a zip file that holds ``NN_name.json`` for each module. It keeps people from meeting a solution by accident,
when they search the workspace or look around in it; it is no lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import digest, read_progress, state
from tito.source import grade_info, read_notebook, split_secret, strip_markers

if TYPE_CHECKING:
    from nbformat import NotebookNode

_COPY = "copy this file from the workspace that you were given, or make a new one: tito release DIR --self-study"


@dataclass(frozen=True)
class Answer:
    """The model answer to a reflection question, and what such an answer earns its points by."""

    text: str
    scheme: str


@dataclass(frozen=True)
class Solutions:
    """A module's exercises, solved, and the answers to its questions: by ``grade_id``, in the notebook's order.

    ``release`` is the digest of the notebook that they belong to, as it was released.
    """

    release: str
    exercises: dict[str, str]
    answers: dict[str, Answer]


def pack_of(course: Course) -> Path:
    """Where a workspace has its solutions, if it was made for someone who learns alone."""
    return course.root / ".tito" / "solutions.zip"


def write_pack(course: Course, workspace: Course) -> None:
    """Pack the solutions of ``course`` into ``workspace``, which was released from it; equal ones give equal bytes."""
    with ZipFile(pack_of(workspace), "w") as pack:
        for module, released in zip(course.modules, workspace.modules, strict=True):
            solutions = _solutions(read_notebook(module), digest(released.pristine.read_bytes()))
            entry = ZipInfo(_entry(module))  # dated 1980, not now
            entry.compress_type = ZIP_DEFLATED
            pack.writestr(entry, json.dumps(asdict(solutions)))


def _entry(module: Module) -> str:
    return f"{module.slug}.json"


def _solutions(notebook: NotebookNode, release: str) -> Solutions:
    cells = {info["grade_id"]: cell for cell in notebook.cells if (info := grade_info(cell)).get("grade_id")}
    solved = {name: cell for name, cell in cells.items() if grade_info(cell).get("solution")}
    schemes = {
        name: "\n".join(_mark_scheme(cells[f"{name}-question"])) for name in solved if f"{name}-question" in cells
    }
    return Solutions(
        release=release,
        exercises={name: strip_markers(cell.source) for name, cell in solved.items() if cell.cell_type == "code"},
        answers={
            name: Answer(strip_markers(cell.source), schemes.get(name, ""))
            for name, cell in solved.items()
            if cell.cell_type != "code"
        },
    )


def _mark_scheme(question: NotebookNode) -> Iterator[str]:
    return (line.text for line in split_secret(question.source)[0] if line.region == "MARK SCHEME")


def require_solutions(course: Course, module: Module) -> None:
    """Refuse to go on if the solutions of ``module`` are not here to be shown, or not yet.

    Raises
    ------
    TitoError
        In the author's tree, in a workspace without solutions, and before the module is complete.
    """
    if not course.is_workspace:
        raise TitoError(
            "only a workspace keeps its solutions apart; here they stand in the module's source",
            place=str(module.source),
            next_step="read them there",
        )
    if not pack_of(course).is_file():
        raise TitoError(
            "this workspace came without solutions",
            place=str(course.root),
            next_step=f"ask your instructor; when you are stuck: tito module hint {module.nn}",
        )
    value = state(course, module, read_progress(course))
    if value == "changed":
        raise TitoError(
            f"{module.slug} was complete, but its file in the package is missing or not what was exported",
            place=str(course.exported(module)),
            next_step=f"export your notebook again: tito module complete {module.nn}",
        )
    if value != "complete":
        raise TitoError(
            f"{module.slug} is not complete yet; its solutions are shown when it is",
            next_step=f"tito module complete {module.nn}, when its tests pass; "
            f"when you are stuck: tito module hint {module.nn}",
        )


def read_solutions(course: Course, module: Module) -> Solutions:
    """The solutions of ``module`` in the workspace ``course``.

    Raises
    ------
    TitoError
        If the pack is broken, or was made for another version of the notebook.
    """
    path = pack_of(course)
    try:
        with ZipFile(path) as pack:
            fields: dict[str, Any] = json.loads(pack.read(_entry(module)))
        answers = {str(name): Answer(**answer) for name, answer in fields["answers"].items()}
        solutions = Solutions(str(fields["release"]), dict(fields["exercises"]), answers)
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and json find many things wrong, each with its own type
        raise TitoError(
            f"the solutions of {module.slug} cannot be read: {error}", place=str(path), next_step=_COPY
        ) from None
    if solutions.release != digest(module.pristine.read_bytes()):
        raise TitoError(
            f"these are the solutions of another version of {module.slug}", place=str(path), next_step=_COPY
        )
    return solutions
