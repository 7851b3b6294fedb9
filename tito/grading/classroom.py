"""Grading a class: run side by side, recorded one by one, so that it can be stopped at any moment."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tito.course import Module
from tito.errors import TitoError
from tito.grading import records
from tito.grading.directory import Directory
from tito.grading.findings import Findings
from tito.grading.grade import record
from tito.grading.graders import Task, run_ahead
from tito.grading.records import Record
from tito.grading.running import secret_of


@dataclass(frozen=True)
class Submission:
    """What a student handed in, and the digest of all that decides its scores."""

    module: Module
    student: str
    key: str


@dataclass(frozen=True)
class Graded:
    """What grading a submission came to.

    ``problem`` says why it could not be graded; it is empty if it was. ``fault`` is true if that was no fault of the
    submission.
    """

    module: str
    student: str
    score: float
    max_score: float
    problem: str
    fault: bool
    findings: Findings
    isolated: bool


def submissions(
    directory: Directory, work: Sequence[tuple[Module, str]], *, isolation: bool
) -> tuple[list[Submission], list[Submission]]:
    """Of ``work``, the submissions to grade, and those that were graded as they are, as would be done now.

    Raises
    ------
    TitoError
        If an assignment was never generated, or the gradebook cannot be used.
    """
    stale: list[Submission] = []
    fresh: list[Submission] = []
    for module in dict.fromkeys(module for module, _ in work):
        scored = _scored(directory, module)
        directory.source(module), directory.release(module)  # or there is nothing to grade against
        conditions = records.conditions(directory, module, isolation)
        for student in (student for other, student in work if other == module):
            one = Submission(module, student, records.key(directory, module, student, conditions))
            (fresh if student in scored and _is_graded(directory, one) else stale).append(one)
    return stale, fresh


def _scored(directory: Directory, module: Module) -> dict[str, tuple[float, float]]:
    """The score that the gradebook holds for each student, and the points there are."""
    from nbgrader.api import MissingEntry

    with directory.gradebook() as gradebook:
        try:
            found = gradebook.find_assignment(module.slug).submissions
        except MissingEntry:
            raise TitoError(
                f"the assignment {module.slug} is not in the gradebook",
                place=str(directory.root),
                next_step=f"tito nbgrader generate {module.nn}",
            ) from None
        return {one.student_id: (float(one.score), float(one.max_score)) for one in found}


def _is_graded(directory: Directory, one: Submission) -> bool:
    kept = records.read(directory, one.module, one.student)
    if kept is None or kept.fault or kept.key != one.key:
        return False
    return bool(kept.problem) or (directory.graded(one.module, one.student) / one.module.notebook.name).is_file()


def grade_class(
    directory: Directory, work: Sequence[Submission], *, jobs: int, isolation: bool
) -> Iterator[tuple[Submission, Record]]:
    """Grade ``work`` with ``jobs`` processes, and give each submission, when it is in the gradebook, with its record.

    Raises
    ------
    TitoError
        If this machine cannot run student code as asked for, an assignment is missing, or the gradebook cannot be used.
    """

    gc.freeze()  # what nbgrader consists of is no garbage, and takes long to look through
    directory.config.RunNotebook.isolation = isolation
    tasks = {_task(directory, one): one for one in work}
    secret = secret_of(directory.root)
    for task, outcome in run_ahead(directory.course, list(tasks), secret, jobs=jobs, isolation=isolation):
        one = tasks[task]
        records.forget(directory, one.module, one.student)
        problem, findings = record(directory, one.module, one.student, outcome)
        kept = Record(one.key, isolation, problem, outcome.fault, findings)
        records.write(directory, one.module, one.student, kept)
        yield one, kept


def _task(directory: Directory, one: Submission) -> Task:
    name = one.module.notebook.name
    return Task(
        module=one.module.slug,
        notebook=directory.submission(one.module, one.student) / name,
        release=directory.root / "release" / one.module.slug / name,
        source=directory.root / "source" / one.module.slug / name,
    )


def read_graded(directory: Directory, work: Sequence[Submission]) -> list[Graded]:
    """What the grading of ``work`` came to, today or earlier, by module and student."""
    found: list[Graded] = []
    for module in dict.fromkeys(one.module for one in work):
        scored = _scored(directory, module)
        for student in sorted(one.student for one in work if one.module == module):
            kept = records.read(directory, module, student)
            if kept and student in scored:
                score, points = scored[student]
                graded = Graded(
                    module.slug, student, score, points, kept.problem, kept.fault, kept.findings, kept.isolated
                )
                found.append(graded)
    return found
