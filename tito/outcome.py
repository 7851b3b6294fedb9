"""What became of a notebook that was run, cell by cell; whoever ran it tells it in these words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tito.source import grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode

Status = Literal["ok", "error", "timeout", "output limit", "died", "not run"]


@dataclass(frozen=True)
class Place:
    """A line of a notebook's cell, counted from 1."""

    cell_id: str
    line: int


@dataclass(frozen=True)
class CellResult:
    """What became of one code cell.

    ``line`` is the line of this cell that failed, and ``raised_at`` the innermost line of the notebook: where a test
    calls an exercise that raises, the line in the exercise. Both are None where the traceback does not say.
    """

    id: str
    grade_id: str
    is_test: bool
    points: float
    status: Status
    ename: str = ""
    evalue: str = ""
    line: int | None = None
    raised_at: Place | None = None
    seconds: float = 0.0
    outputs: tuple[NotebookNode, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def not_run(cell: NotebookNode) -> CellResult:
    """What is known of a cell before it runs."""
    info = grade_info(cell)
    return CellResult(cell.id, info.get("grade_id", ""), is_test(cell), float(info.get("points") or 0), "not run")


@dataclass(frozen=True)
class RunResult:
    """The outcome of every code cell, in order, and the notebook with its outputs.

    In the notebook, a cell that did not end by itself (too long, too much output, dead kernel, not run) has an error
    output that says so.
    """

    cells: tuple[CellResult, ...]
    notebook: NotebookNode
    seconds: float


def is_exercise(cell: NotebookNode) -> bool:
    """True for a code cell that a student writes a solution in."""
    info = grade_info(cell)
    return bool(cell.cell_type == "code" and info.get("solution") and not info.get("grade"))


def is_test(cell: NotebookNode) -> bool:
    """True for a cell that earns its points by running without an error; nbgrader calls it autograded."""
    info = grade_info(cell)
    return bool(cell.cell_type == "code" and info.get("grade") and not info.get("solution"))
