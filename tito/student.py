"""What a student gets of a notebook: nbgrader's own steps from source to release, without its database."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from tito.errors import TitoError

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from nbgrader.preprocessors import NbGraderPreprocessor


# nbgrader allows a mark scheme in "task" cells alone; ours stand in the locked cell of a reflection question, where
# autograding puts them back for whoever grades the answer below.
# Whoever runs nbgrader's own generate_assignment on the course needs the same settings.
NBGRADER_SETTINGS = {"ClearMarkScheme": {"enforce_metadata": False}}


def student_notebook(notebook: NotebookNode) -> NotebookNode:
    """A copy of ``notebook`` without solutions, hidden tests, mark schemes and outputs, its cells locked and signed.

    It is what ``nbgrader generate_assignment``, with ``NBGRADER_SETTINGS``, makes of the notebook.

    Raises
    ------
    TitoError
        If nbgrader refuses the notebook: a region without an end, a solution in a cell not marked as one,
        broken nbgrader metadata.
    """
    from nbgrader import preprocessors as steps
    from traitlets.config import Config

    # nbgrader.converters.GenerateAssignment's list, less what needs a course directory (header and footer), a kernel
    # (autotests) or the database (saving cells)
    pipeline = (
        steps.LockCells,
        steps.ClearSolutions,
        steps.ClearOutput,
        steps.CheckCellMetadata,
        steps.ClearHiddenTests,
        steps.ClearMarkScheme,
        steps.ComputeChecksums,
        steps.CheckCellMetadata,
    )
    config = Config(NBGRADER_SETTINGS)
    released = deepcopy(notebook)
    for step in (make(config=config) for make in pipeline):
        try:
            released, _ = step.preprocess(released, {})
        except Exception as error:  # RuntimeError, ValueError and jsonschema's and nbgrader's ValidationError
            raise TitoError(
                f"nbgrader cannot make a student's notebook of this: {error}",
                place=_culprit(notebook, step),
                next_step="see CONTRIBUTING.md, 'The cells', for how cells and regions are marked",
            ) from None
    return released


def _culprit(notebook: NotebookNode, step: NbGraderPreprocessor) -> str:
    """The first cell that ``step`` refuses by itself; empty if only the notebook as a whole is refused."""
    for cell in notebook.cells:
        alone = deepcopy(notebook)
        alone.cells = [deepcopy(cell)]
        try:
            step.preprocess(alone, {})
        except Exception:
            return f"cell {cell.get('id', '')}"
    return ""
