"""What this course puts into nbgrader's chains: how a submission is mended and run, and what feedback does not show.

Importing this file loads nbgrader, which takes two seconds: import it inside functions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import nbformat.v4 as nbv4
from nbformat import NotebookNode
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests, NbGraderPreprocessor
from traitlets import Bool, Unicode

from tito.course import Course
from tito.grading.findings import of_run
from tito.grading.journal import FINDING
from tito.grading.running import run, secret_of
from tito.grading.submission import digest, mend, refuse_links
from tito.outcome import CellResult, RunResult
from tito.source import code_cells, is_marker, split_secret

# what running a notebook gave, by its digest: whoever grades a class runs it ahead, elsewhere
AHEAD: dict[str, RunResult] = {}

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HIDDEN = "[in a hidden test]"
_TOO_PLAIN = 6  # a hidden line shorter than this, such as `)`, tells nothing, and stands everywhere


class RepairNotebook(NbGraderPreprocessor):  # type: ignore[misc]
    """Give the submission back the cells that the released notebook has, before nbgrader looks at it."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        here, ids = CourseDirectory(parent=self), resources["nbgrader"]
        name = f"{ids['notebook']}.ipynb"
        refuse_links(Path(here.format_path(here.submitted_directory, ids["student"], ids["assignment"]), name))
        folder = here.format_path(here.release_directory, ".", ids["assignment"])
        notebook, repairs = mend(nb, nbformat.read(Path(folder) / name, as_version=4))
        for repair in repairs:
            self.log.warning("%s", repair, extra={FINDING: ("repairs", repair)})
        return notebook, resources


class RunNotebook(NbGraderPreprocessor):  # type: ignore[misc]
    """Run the submission in place of nbgrader's ``Execute``: against the modules before its own, within the limits.

    This is the one place where student code is executed for a grade; whatever replaces it keeps its promise: every
    test that did not pass has an error output, and no test that passed has anything nbgrader takes points for.
    """

    course_tree = Unicode(help="The folder of the course, with settings.ini and modules/.").tag(config=True)
    isolation = Bool(True, help="Run student code in a sandbox, and the tests outside it.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        result = AHEAD.pop(digest(nb), None) or self._run(nb, resources["nbgrader"])
        for cell, ran, outcome in zip(code_cells(nb), code_cells(result.notebook), result.cells, strict=True):
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            if outcome.is_test:
                settle(cell, outcome)
        for kind, finding in of_run(result):
            self.log.warning("%s", finding, extra={FINDING: (kind, finding)})
        return nb, resources

    def _run(self, notebook: NotebookNode, ids: dict[str, str]) -> RunResult:
        course, here = Course(Path(self.course_tree)), CourseDirectory(parent=self)
        folder = here.format_path(here.source_directory, ".", ids["assignment"])
        source = nbformat.read(Path(folder) / f"{ids['notebook']}.ipynb", as_version=4)
        secret = secret_of(Path(here.root))
        return run(course, course.module(ids["assignment"]), source, notebook, secret, isolation=self.isolation)


def settle(cell: NotebookNode, outcome: CellResult) -> None:
    """Make nbgrader see of a test what counts: whether it passed.

    nbgrader gives no points to a test that writes to stderr, takes a number that a test shows for a partial grade, and
    gives all points where it sees no error output.
    """
    for output in cell.outputs:
        if output.output_type == "stream":
            output.name = "stdout"
        elif output.output_type == "execute_result":
            output.output_type = "display_data"
            del output["execution_count"]
    if outcome.ename and not any(output.output_type == "error" for output in cell.outputs):
        message = f"{outcome.ename}: {outcome.evalue}"
        cell.outputs.append(nbv4.new_output("error", ename=outcome.ename, evalue=outcome.evalue, traceback=[message]))


class HideHiddenTests(ClearHiddenTests):  # type: ignore[misc]
    """Take hidden tests out of what students get back: out of the cells, and out of tracebacks and other outputs."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        hidden = _hidden_lines(nb)
        nb, resources = super().preprocess(nb, resources)
        for cell in code_cells(nb):
            for output in cell.outputs:
                _hide(output, hidden)
        return nb, resources


def _hidden_lines(notebook: NotebookNode) -> set[str]:
    hidden: set[str] = set()
    visible: set[str] = set()
    for cell in notebook.cells:
        secret, public = split_secret(cell.source)
        hidden |= {line.text.strip() for line in secret if line.region == "HIDDEN TESTS"}
        visible |= {line.strip() for line in public}
    return {line for line in hidden - visible if len(line) >= _TOO_PLAIN}


def _hide(output: NotebookNode, hidden: set[str]) -> None:
    match output.output_type:
        case "stream":
            output.text = _without(output.text, hidden)
        case "error":
            output.evalue = _without(output.evalue, hidden)
            output.traceback = [_without(part, hidden) for part in output.traceback]
        case _:
            for kind, value in output.data.items():
                if isinstance(value, str):
                    output.data[kind] = _without(value, hidden)


def _without(text: str, hidden: set[str]) -> str:
    """``text`` with the lines that quote a line of ``hidden`` replaced."""
    lines: list[str] = []
    for line in text.split("\n"):
        bare = _ANSI.sub("", line)
        if not is_marker(bare) and not any(secret in bare for secret in hidden):
            lines.append(line)
        elif not lines or lines[-1] != _HIDDEN:
            lines.append(_HIDDEN)
    return "\n".join(lines)
