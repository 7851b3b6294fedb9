"""nbgrader's converters for a submission that was handed in by anybody, named in any way, a class one by one.

Importing this file loads nbgrader, which takes two seconds: import it inside functions.
"""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Comment, Grade, Gradebook, GradeCell, TaskCell
from nbgrader.converters import Autograde, BaseConverter, GenerateFeedback
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import CheckCellMetadata, OverwriteCells, SaveAutoGrades
from sqlalchemy.orm import joinedload

from tito.grading.submission import own_files, read_submission


class _Submission(BaseConverter):  # type: ignore[misc]
    """Converts one notebook of one student, whose name is not a pattern; does not follow links."""

    def init_notebooks(self) -> None:
        here = self.coursedir
        folder = self._format_source(here.assignment_id, here.student_id)
        self.notebooks: list[str] = []
        self.assignments = {folder: [str(Path(folder, f"{here.notebook_id}.ipynb"))]}

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        source = Path(self._format_source(assignment_id, student_id))
        target = Path(self._format_dest(assignment_id, student_id))
        for path in own_files(source):
            inside = path.relative_to(source)
            ignored = [*self.coursedir.ignore, "*.ipynb"]
            if not any(fnmatch(part, pattern) for part in inside.parts for pattern in ignored):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / inside)


class _Validator(MetadataValidator):  # type: ignore[misc]
    """Checks each cell's metadata once: all submissions have those of the released notebook."""

    valid: ClassVar[set[str]] = set()

    def validate_cell(self, cell: NotebookNode) -> None:
        checked = json.dumps([cell.cell_type, cell.metadata.get("nbgrader")], sort_keys=True)
        if checked not in self.valid:
            super().validate_cell(cell)
            self.valid.add(checked)


class _CheckMetadata(CheckCellMetadata):  # type: ignore[misc]
    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        _Validator().validate_nb(nb)
        return nb, resources


class _NotebookGradebook:
    """A gradebook as nbgrader's steps use it, which ask it for each cell, and commit each: here it is once a notebook.

    Raises
    ------
    MissingEntry
        Where the gradebook itself would.
    """

    def __init__(self, gradebook: Gradebook) -> None:
        self.gradebook = gradebook
        self.db = self  # whose `commit` is ours
        self._source_cells, self._graded_cells, self._of_student = (
            cache(partial(fetch, gradebook)) for fetch in (_source_cells, _graded_cells, _of_student)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gradebook, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.gradebook.db.commit()
        self.gradebook.close()

    def commit(self) -> None:
        """Leave it to the end."""

    def find_source_cell(self, name: str, *where: str) -> Any:
        return self._source_cells(*where).get(name) or self.gradebook.find_source_cell(name, *where)

    def find_graded_cell(self, name: str, *where: str) -> Any:
        return self._graded_cells(*where).get(name) or self.gradebook.find_graded_cell(name, *where)

    def find_grade(self, name: str, *where: str) -> Any:
        return self._of_student(Grade, *where).get(name) or self.gradebook.find_grade(name, *where)

    def find_comment(self, name: str, *where: str) -> Any:
        return self._of_student(Comment, *where).get(name) or self.gradebook.find_comment(name, *where)


def _source_cells(gradebook: Gradebook, *where: str) -> dict[str, Any]:
    return {cell.name: cell for cell in gradebook.find_notebook(*where).source_cells}


def _graded_cells(gradebook: Gradebook, *where: str) -> dict[str, Any]:
    notebook = gradebook.find_notebook(*where).id
    found = (gradebook.db.query(kind).filter_by(notebook_id=notebook) for kind in (TaskCell, GradeCell))
    return {cell.name: cell for cells in found for cell in cells}


def _of_student(gradebook: Gradebook, kind: type[Grade] | type[Comment], *where: str) -> dict[str, Any]:
    """Each grade or comment of a student's notebook by the name of its cell."""
    notebook = gradebook.find_submission_notebook(*where).id
    found = gradebook.db.query(kind).filter_by(notebook_id=notebook).options(joinedload(kind.cell))
    return {one.name: one for one in found}


class _AtOnce:
    """Makes a step use the gradebook notebook by notebook."""

    @property
    def gradebook(self) -> _NotebookGradebook:
        return self._gradebook

    @gradebook.setter
    def gradebook(self, opened: Gradebook) -> None:
        self._gradebook = _NotebookGradebook(opened)


class _OverwriteCells(_AtOnce, OverwriteCells):  # type: ignore[misc]
    pass


class _SaveAutoGrades(_AtOnce, SaveAutoGrades):  # type: ignore[misc]
    pass


_FASTER = {CheckCellMetadata: _CheckMetadata, OverwriteCells: _OverwriteCells, SaveAutoGrades: _SaveAutoGrades}


class Grading(Autograde, _Submission):  # type: ignore[misc]
    """What ``nbgrader autograde`` does, without writing and reading the notebook between its two chains."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        for chain in ("sanitize_preprocessors", "autograde_preprocessors"):
            setattr(self, chain, [_FASTER.get(step, step) for step in getattr(self, chain)])

    def convert_single_notebook(self, notebook_filename: str) -> None:
        resources = self.init_single_notebook_resources(notebook_filename)
        resources["output_extension"] = self.exporter.file_extension
        notebook = read_submission(Path(notebook_filename))
        for self._sanitizing in (True, False):
            self._init_preprocessors()
            for step in self.exporter._preprocessors:
                notebook, resources = step(notebook, resources)
        self._sanitizing = True
        self.write_single_notebook(nbformat.writes(notebook), resources)


class Feedback(GenerateFeedback, _Submission):  # type: ignore[misc]
    """What ``nbgrader generate_feedback`` does, for the page alone."""

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Return none of the files beside the notebook."""
