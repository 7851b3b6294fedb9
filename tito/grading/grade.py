"""nbgrader's steps, one assignment or submission at a time, so that a broken notebook costs only itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from tito.course import Module
from tito.errors import TitoError
from tito.grading.directory import Directory
from tito.grading.findings import Findings
from tito.grading.graders import Outcome
from tito.grading.journal import Ear
from tito.grading.running import run, secret_of
from tito.grading.submission import mend, read_submission, with_tests
from tito.rules import require_rules
from tito.source import grade_info, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from tito.outcome import RunResult


def generate(directory: Directory, modules: list[Module]) -> None:
    """Write the assignments ``modules`` into ``source/`` and, for students, into ``release/``.

    Raises
    ------
    TitoError
        If one of them breaks a rule, would lose grades already given, or is refused by nbgrader; nothing is written in
        the first two cases.
    """
    from nbgrader.converters import GenerateAssignment

    for module in modules:
        require_rules(directory.course, module, read_notebook(module))
        _refuse_to_lose_grades(directory, module)
    for module in modules:
        directory.refresh(module)
        problem, _ = _convert(directory, GenerateAssignment, module)
        if problem:
            raise TitoError(f"nbgrader cannot release {module.slug}: {problem}", place=str(module.source))


def _refuse_to_lose_grades(directory: Directory, module: Module) -> None:
    from nbgrader.api import MissingEntry

    after = _cells(read_notebook(module))
    with directory.gradebook() as gradebook:
        try:
            recorded = gradebook.find_notebook(module.name, module.slug)
        except MissingEntry:
            return
        submissions = len(recorded.submissions)
        points = {cell.name: float(cell.max_score) for cell in recorded.grade_cells}
        before = {cell.name: points.get(cell.name, 0.0) for cell in recorded.source_cells}
    changes = [f"{name} is gone" for name in before.keys() - after.keys()]
    changes += [f"{name} is new" for name in after.keys() - before.keys()]
    changes += [
        f"{name} had {before[name]:g} points and has {after[name]:g}"
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    ]
    if submissions and changes:
        raise TitoError(
            f"{module.slug} has {submissions} submissions, and generating it again would lose grades: "
            + "; ".join(sorted(changes)),
            place=str(module.source),
            next_step="use a new course directory, or give up the grades: "
            f"nbgrader db assignment remove {module.slug} --force",
        )


def _cells(notebook: NotebookNode) -> dict[str, float]:
    """The cells that nbgrader records, and the points of each."""
    marked = (grade_info(cell) for cell in notebook.cells if grade_info(cell))
    return {
        info["grade_id"]: float(info.get("points") or 0)
        for info in marked
        if info.get("grade") or info.get("solution") or info.get("locked")
    }


def validate(directory: Directory, module: Module, student: str | None, *, isolation: bool = True) -> RunResult:
    """Run the author's notebook of ``module``, or what ``student`` handed in, as grading would; nothing is recorded.

    Raises
    ------
    TitoError
        If the submission is missing or cannot be graded.
    """
    source = directory.source(module)
    notebook = source
    if student is not None:
        path = directory.submission(module, student) / module.notebook.name
        notebook, _ = mend(read_submission(path), directory.release(module))
        with_tests(notebook, source)
    return run(directory.course, module, source, notebook, secret_of(directory.root), isolation=isolation)


def record(directory: Directory, module: Module, student: str, outcome: Outcome) -> tuple[str, Findings]:
    """Write what running a submission gave to the gradebook and to ``autograded/``, in place of an earlier grading.

    A submission that cannot be graded is recorded with no points. Gives the reason, or else an empty string, and what
    befell the submission. In the gradebook all of this happens at once or, if the process is ended, not at all.

    Raises
    ------
    TitoError
        If the assignment was never generated, or the gradebook cannot be used.
    """
    from tito.grading.converters import Grading
    from tito.grading.preprocessors import AHEAD

    problem, found = outcome.problem, Findings()
    shutil.rmtree(directory.graded(module, student), ignore_errors=True)
    with directory.transaction():
        if outcome.result:
            AHEAD[outcome.digest] = outcome.result
            problem, found = _convert(directory, Grading, module, student, notebook_id=module.name)
            AHEAD.clear()
        if problem:
            _clear_grades(directory, module, student)
    return problem, found


def feedback(directory: Directory, module: Module, student: str) -> str:
    """Write the feedback for ``student``'s graded notebook of ``module``; the reason if it cannot be, else empty."""
    from tito.grading.converters import Feedback

    if not directory.graded(module, student).is_dir():
        return f"not graded yet: tito nbgrader autograde {module.nn} --student {student}"
    problem, _ = _convert(directory, Feedback, module, student, notebook_id=module.name)
    return problem


def _convert(
    directory: Directory, step: type, module: Module, student: str = "*", **traits: Any
) -> tuple[str, Findings]:
    """Run one of nbgrader's converters; why it failed (empty if it did not), and what it found."""
    where = directory.coursedir(assignment_id=module.slug, student_id=student, **traits)
    converter: Any = step(coursedir=where, config=directory.config, force=True)
    with Ear() as ear:
        try:
            converter.start()
        except (Exception, SystemExit) as error:  # nbgrader logs what really happened, and raises that it did
            return ear.problem or str(error), ear.findings
    return "", ear.findings


def _clear_grades(directory: Directory, module: Module, student: str) -> None:
    """Record the submission with no points by tests, so that nothing of an earlier grading stays; grades by hand do.

    Raises
    ------
    TitoError
        If the assignment was never generated.
    """
    from nbgrader.api import MissingEntry

    with directory.gradebook() as gradebook:
        gradebook.update_or_create_student(student)
        try:
            submission = gradebook.update_or_create_submission(module.slug, student)
        except MissingEntry:
            raise TitoError(
                f"the assignment {module.slug} is not in the gradebook",
                place=str(directory.root),
                next_step=f"tito nbgrader generate {module.nn}",
            ) from None
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                grade.auto_score, grade.needs_manual_grade = 0.0, False
        gradebook.db.commit()
