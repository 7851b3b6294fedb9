"""The scores in a gradebook, cell by cell, and the table that shows them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tito.atomic import write_atomically
from tito.course import Module
from tito.errors import TitoError
from tito.grading.directory import Directory
from tito.grading.submission import grade_ids
from tito.terminal import visible

if TYPE_CHECKING:
    from nbgrader.api import Grade
    from rich.table import Table

_ACROSS = 6  # students side by side in one table


@dataclass(frozen=True)
class CellScore:
    """What one graded cell earned; ``score`` is None where a person has yet to grade it."""

    grade_id: str
    score: float | None
    max_score: float


@dataclass(frozen=True)
class Scores:
    """What one submission earned, in all and by cell, in the notebook's order."""

    module: str
    student: str
    score: float
    max_score: float
    cells: tuple[CellScore, ...]


def read_scores(directory: Directory, module: Module, student: str | None = None) -> list[Scores]:
    """What the gradebook holds for ``module``: of every student, or of one; by the students' names."""
    from nbgrader.api import MissingEntry

    order = {grade_id: place for place, grade_id in enumerate(grade_ids(directory.source(module)))}
    with directory.gradebook() as gradebook:
        try:
            submissions = gradebook.find_assignment(module.slug).submissions
        except MissingEntry:
            return []
        found = [
            Scores(
                module=module.slug,
                student=submission.student_id,
                score=float(submission.score),
                max_score=float(submission.max_score),
                cells=tuple(
                    CellScore(grade.name, None if _is_open(grade) else float(grade.score), grade.max_score)
                    for notebook in submission.notebooks
                    for grade in sorted(notebook.grades, key=lambda grade: order.get(grade.name, len(order)))
                ),
            )
            for submission in submissions
            if student in (None, submission.student_id)
        ]
    return sorted(found, key=lambda scores: scores.student)


def _is_open(grade: Grade) -> bool:
    """True if a person has yet to grade it; after another autograding nbgrader asks again, and keeps the old score."""
    return bool(grade.needs_manual_grade and grade.manual_score is None)


def score_tables(title: str, scores: Sequence[Scores]) -> Iterator[Table]:
    """Tables of ``scores`` of one module: a row for each graded cell, a column for each of a few students."""
    for start in range(0, len(scores), _ACROSS):
        yield _table(title, scores[start : start + _ACROSS])


def _table(title: str, scores: Sequence[Scores]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("graded cell", "total", overflow="fold")
    table.add_column("points", f"{scores[0].max_score:g}", justify="right")
    for one in scores:
        table.add_column(visible(one.student), f"{one.score:g}", justify="right")
    for row in zip(*(one.cells for one in scores), strict=True):
        table.add_row(row[0].grade_id, f"{row[0].max_score:g}", *(_show(cell) for cell in row))
    return table


def _show(cell: CellScore) -> str:
    return "manual" if cell.score is None else f"{cell.score:g}"


def export_csv(directory: Directory, target: Path, modules: Sequence[str], student: str | None) -> None:
    """Write nbgrader's own table of totals to ``target``.

    Raises
    ------
    TitoError
        If it cannot be written there.
    """
    from nbgrader.plugins import CsvExportPlugin

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grades.csv"
        exporter = CsvExportPlugin(config=directory.config, to=str(path), assignment=list(modules))
        exporter.student = [student] if student else []
        with directory.gradebook() as gradebook:
            exporter.export(gradebook)
        try:
            write_atomically(target, path.read_bytes())
        except OSError as error:
            raise TitoError(f"the table cannot be written: {error.strerror}", place=str(target)) from None
