"""nbgrader's steps, one assignment or submission at a time, so that a broken notebook costs only itself."""

from __future__ import annotations

import glob
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tito.course import Module
from tito.errors import TitoError
from tito.grading.directory import Directory
from tito.grading.journal import Ear
from tito.repair import read_file
from tito.source import grade_info, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from tito.outcome import RunResult


@dataclass(frozen=True)
class Graded:
    """What grading a submission came to. ``problem`` says why it could not be graded; it is empty if it was."""

    module: Module
    student: str
    score: float
    max_score: float
    problem: str
    findings: tuple[str, ...]


def generate(directory: Directory, modules: list[Module]) -> None:
    """Write the assignments ``modules`` into ``source/`` and, for students, into ``release/``.

    Raises
    ------
    TitoError
        If one of them would lose grades already given, or nbgrader refuses it; in the first case nothing is written.
    """
    from nbgrader.converters import GenerateAssignment

    for module in modules:
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


def validate(directory: Directory, module: Module, student: str | None) -> RunResult:
    """Run the author's notebook of ``module``, or what ``student`` handed in, as grading would; nothing is recorded.

    Raises
    ------
    TitoError
        If the submission is missing or cannot be graded.
    """
    from tito.grading.preprocessors import mend
    from tito.outcome import is_test
    from tito.runner import run_notebook

    source = directory.source(module)
    if student is None:
        return run_notebook(directory.course, module, source)
    try:
        notebook, _ = mend(_read_submission(directory, module, student), directory.release(module))
    except ValueError as error:
        raise TitoError(str(error), place=str(directory.submission(module, student))) from None
    tests = {grade_info(cell)["grade_id"]: cell.source for cell in source.cells if is_test(cell)}
    for cell in notebook.cells:
        cell.source = tests.get(grade_info(cell).get("grade_id"), cell.source)
    return run_notebook(directory.course, module, notebook)


def autograde(directory: Directory, module: Module, student: str) -> Graded:
    """Grade what ``student`` handed in for ``module``, anew if it was graded before.

    A submission that cannot be graded is recorded with no points and named in the result.
    """
    from nbgrader.converters import Autograde

    _clear_grades(directory, module, student)
    findings: tuple[str, ...] = ()
    try:
        _read_submission(directory, module, student)
    except TitoError as error:
        problem = error.problem
    else:
        problem, findings = _convert(directory, Autograde, module, student)
    with directory.gradebook() as gradebook:
        recorded = gradebook.find_submission(module.slug, student)
        return Graded(module, student, float(recorded.score), float(recorded.max_score), problem, findings)


def feedback(directory: Directory, module: Module, student: str) -> str:
    """Write the feedback for ``student``'s graded notebook of ``module``; the reason if it cannot be, else empty."""
    from nbgrader.converters import GenerateFeedback

    if not directory.graded(module, student).is_dir():
        return f"not graded yet: tito nbgrader autograde {module.nn} --student {student}"
    # the page alone: nbgrader would return the files beside the notebook too, and follow their links to anywhere
    problem, _ = _convert(directory, GenerateFeedback, module, student, ignore=["*"])
    return problem


def _convert(
    directory: Directory, step: type, module: Module, student: str = "*", **traits: Any
) -> tuple[str, tuple[str, ...]]:
    """Run one of nbgrader's converters; why it failed (empty if it did not), and what it found."""
    who = student if student == "*" else glob.escape(student)
    where = directory.coursedir(assignment_id=module.slug, student_id=who, **traits)
    converter: Any = step(coursedir=where, config=directory.config, force=True)
    with Ear() as ear:
        try:
            converter.start()
        except (Exception, SystemExit) as error:  # nbgrader logs what really happened, and raises that it did
            return ear.problem or str(error), tuple(ear.findings)
    return "", tuple(ear.findings)


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
    shutil.rmtree(directory.graded(module, student), ignore_errors=True)


def _read_submission(directory: Directory, module: Module, student: str) -> NotebookNode:
    """The notebook that ``student`` handed in; nbgrader says of a missing or broken one too little.

    Raises
    ------
    TitoError
        If there is none that can be read.
    """
    folder = directory.submission(module, student)
    path = folder / module.notebook.name
    others = ", ".join(sorted(other.name for other in folder.glob("*.ipynb") if other.is_file()))
    if others and not path.is_file():
        raise TitoError(f"{path.name} is missing; the folder has {others}", place=str(folder))
    return read_file(path, missing="collect it", broken="collect it again")
