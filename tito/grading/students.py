"""Students made from a module's source, to grade: one who solved it all, one who wrote nothing, and the wrong ones.

A wrong student is a file ``modules/NN_name/students/<name>.py`` in percent format. Each of its cells carries the
``grade_id`` of an exercise of the module, and stands in that exercise's place; all else is as in the solution.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tito.course import Module
from tito.errors import TitoError
from tito.source import grade_info, read_notebook, strip_markers
from tito.student import student_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode


def blank(module: Module) -> NotebookNode:
    """The notebook as it is released, untouched."""
    return student_notebook(read_notebook(module))


def solved(module: Module) -> NotebookNode:
    """The released notebook with every exercise solved and every question answered, as the author would."""
    answers = {
        info["grade_id"]: strip_markers(cell.source)
        for cell in read_notebook(module).cells
        if (info := grade_info(cell)).get("solution")
    }
    return _fill(blank(module), answers)


def wrong(module: Module, name: str) -> NotebookNode:
    """The solved notebook with the exercises that ``students/<name>.py`` gets wrong.

    Raises
    ------
    TitoError
        If there is no such student, or a cell of the file belongs to no exercise of the module.
    """
    import jupytext

    path = students_folder(module) / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.py"))) or "none"
        raise TitoError(f"there is no student {name!r} of {module.slug}", place=str(path), next_step=f"known: {known}")
    notebook = solved(module)
    exercises = {info["grade_id"] for cell in notebook.cells if (info := grade_info(cell)).get("solution")}
    answers = {
        str(grade_id): cell.source
        for cell in jupytext.read(path, fmt="py:percent").cells
        if (grade_id := grade_info(cell).get("grade_id"))
    }
    strangers = sorted(answers.keys() - exercises)
    if strangers or not answers:
        raise TitoError(
            f"{module.slug} has no exercise {strangers[0]!r}" if strangers else "no cell has a grade_id",
            place=str(path),
            next_step=f"give each cell the grade_id of an exercise: {', '.join(sorted(exercises))}",
        )
    return _fill(notebook, answers)


def students_folder(module: Module) -> Path:
    """Where the module's wrong students are; never part of a release."""
    return module.folder / "students"


def _fill(notebook: NotebookNode, answers: dict[str, str]) -> NotebookNode:
    for cell in notebook.cells:
        grade_id = grade_info(cell).get("grade_id")
        if grade_id in answers:
            cell.source = answers[grade_id]
    return notebook
