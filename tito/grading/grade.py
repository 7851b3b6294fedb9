"""nbgrader's steps, one assignment or submission at a time, so that a broken notebook costs only itself."""

from __future__ import annotations

import glob
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tito.course import Module
from tito.errors import TitoError
from tito.grading.directory import Directory, grade_ids
from tito.grading.journal import Ear
from tito.source import grade_info, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from tito.runner import RunResult


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
        If the submission is missing or cannot be read.
    """
    from tito.runner import run_notebook

    if student is None:
        return run_notebook(directory.course, module, directory.source(module))
    folder = directory.submission(module, student)
    notebook, problem = _read_submission(folder, module, grade_ids(directory.source(module)))
    if notebook is None:
        raise TitoError(problem, place=str(folder))
    return run_notebook(directory.course, module, notebook)


def autograde(directory: Directory, module: Module, student: str) -> Graded:
    """Grade what ``student`` handed in for ``module``, anew if it was graded before.

    A submission that cannot be graded is recorded with no points and named in the result.
    """
    from nbgrader.converters import Autograde

    _clear_grades(directory, module, student)
    _, problem = _read_submission(directory.submission(module, student), module, grade_ids(directory.source(module)))
    findings: tuple[str, ...] = ()
    if not problem:
        problem, findings = _convert(directory, Autograde, module, student)
    with directory.gradebook() as gradebook:
        recorded = gradebook.find_submission(module.slug, student)
        return Graded(module, student, float(recorded.score), float(recorded.max_score), problem, findings)


def feedback(directory: Directory, module: Module, student: str) -> str:
    """Write the feedback for ``student``'s graded notebook of ``module``; the reason if it cannot be, else empty."""
    from nbgrader.converters import GenerateFeedback

    if not (directory.root / "autograded" / student / module.slug).is_dir():
        return f"not graded yet: tito nbgrader autograde {module.nn} --student {student}"
    problem, _ = _convert(directory, GenerateFeedback, module, student)
    return problem


def _convert(directory: Directory, step: type, module: Module, student: str = "*") -> tuple[str, tuple[str, ...]]:
    """Run one of nbgrader's converters; why it failed (empty if it did not), and what it found."""
    where = directory.coursedir(
        assignment_id=module.slug, student_id=student if student == "*" else glob.escape(student)
    )
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
    shutil.rmtree(directory.root / "autograded" / student / module.slug, ignore_errors=True)


def _read_submission(folder: Path, module: Module, known: list[str]) -> tuple[NotebookNode | None, str]:
    """The notebook in ``folder``, or None and the reason why it cannot be graded as ``module``'s."""
    import nbformat
    from nbgrader.nbgraderformat import SCHEMA_VERSION

    path = folder / module.notebook.name
    if not path.is_file():
        others = ", ".join(sorted(other.name for other in folder.glob("*.ipynb"))) or "no notebook"
        return None, f"{path.name} is missing; the folder has {others}"
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        ids = set(grade_ids(notebook))
    except nbformat.reader.NotJSONError:
        return None, f"{path.name} is not JSON, so not a notebook"
    except Exception as error:  # whatever nbformat and jsonschema find wrong with a file that anyone may have written
        return None, f"{path.name} is not a notebook: {str(error).splitlines()[0]}"
    if not ids & set(known):
        return None, f"{path.name} is not the notebook of {module.slug}: it has none of its cells"
    versions = {info.get("schema_version", 0) for cell in notebook.cells if (info := grade_info(cell))}
    if versions != {SCHEMA_VERSION}:
        return None, f"{path.name} has nbgrader metadata of another version: nbgrader update {path}"
    return notebook, ""
