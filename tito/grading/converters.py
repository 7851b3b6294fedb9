"""nbgrader's converters for a submission that was handed in by anybody, named in any way, a class one by one.

Importing this file loads nbgrader, which takes two seconds: import it inside functions.
"""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import Autograde, BaseConverter, GenerateFeedback
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import CheckCellMetadata

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


class Grading(Autograde, _Submission):  # type: ignore[misc]
    """What ``nbgrader autograde`` does, without writing and reading the notebook between its two chains."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        for chain in ("sanitize_preprocessors", "autograde_preprocessors"):
            steps = [_CheckMetadata if step is CheckCellMetadata else step for step in getattr(self, chain)]
            setattr(self, chain, steps)

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
