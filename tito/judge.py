"""Judging a module's notebook: which tests pass, and of the others what is wrong, where, and why it may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tito.course import Course, Module
from tito.outcome import CellResult, is_exercise, not_run
from tito.repair import cell_label, read_own_notebook
from tito.source import code_cells, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

_STOPPED = ("timeout", "output limit", "died")
_STUB = "raise NotImplementedError()"  # what nbgrader leaves of a solution
_MESSAGE_LINES = 12

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CELL_FILE = re.compile(r" \(\d+\.py, line \d+\)$")  # the file that IPython says a cell is

# by the error's name: the likely cause, where the message itself does not tell it
_CAUSES = {
    "AttributeError": "the object is of another type than the line expects, or the name is misspelt",
    "ImportError": "a module before this one does not have the name, or it is misspelt",
    "IndentationError": "the lines of a block are not indented alike",
    "IndexError": "a position lies outside of the list or array: print its length or shape",
    "KernelDied": "the memory ran out, or something ended Python itself, such as exit()",
    "NameError": "the name is misspelt, or the cell that defines it stands further down",
    "OutputLimit": "a print in a loop",
    "RecursionError": "a function that calls itself, directly or through another, and never stops",
    "SyntaxError": "Python cannot read this cell: look at the line and at the one above it",
    "TimeLimit": "a loop that never ends, or one over single numbers where NumPy could take the whole array",
    "TypeError": "a value of another type, or another number of arguments, than the line expects; "
    "a function without `return` gives None",
    "ValueError": "an array of another shape, or a value outside of what is allowed",
}


@dataclass(frozen=True)
class Failure:
    """Why a cell fails, in words for the person who can mend it: a test, or a cell that the others build on.

    ``failed`` is the cell that fails, and ``failed_line`` the number of its line that does. ``cell`` is what people
    call the cell to look at, ``line_number`` and ``line`` the line in it; 0 and empty if they are not known.
    ``error`` is the error's name (``NameError``), or that of what stopped the cell.
    ``exercise`` is the exercise to work on, and ``function`` what to mend in it, where they are known; ``unwritten`` if
    nothing has been written there yet.
    """

    failed: str
    failed_line: int
    problem: str
    error: str
    cause: str
    cell: str
    line_number: int
    line: str
    exercise: str
    function: str
    unwritten: bool


@dataclass(frozen=True)
class Verdict:
    """How a module's notebook did. ``tests`` are in the notebook's order, ``failures`` too.

    ``notebook`` is what was run: the student's with its tests as released, or the author's.
    """

    module: Module
    notebook: NotebookNode
    repairs: tuple[str, ...]
    tests: tuple[CellResult, ...]
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.failures and all(test.ok for test in self.tests)

    @property
    def points(self) -> float:
        return sum(test.points for test in self.tests if test.ok)

    @property
    def max_points(self) -> float:
        return sum(test.points for test in self.tests)


def notebook_to_judge(course: Course, module: Module) -> tuple[NotebookNode, list[str]]:
    """In a workspace the student's notebook, repaired, with what was repaired; else the one the source makes."""
    return read_own_notebook(course, module) if course.is_workspace else (read_notebook(module), [])


def judge(
    course: Course,
    module: Module,
    notebook: NotebookNode,
    repairs: list[str],
    *,
    stop_at_first_failure: bool = False,
    on_cell: Callable[[CellResult], None] | None = None,
) -> Verdict:
    """Run the notebook in a real kernel, against the modules before this one, and explain each test that fails."""
    from tito.runner import run_notebook

    run = run_notebook(course, module, notebook, stop_at_first_failure=stop_at_first_failure, on_cell=on_cell)
    return verdict_on(module, notebook, repairs, run.cells, run.seconds)


def verdict_on(
    module: Module, notebook: NotebookNode, repairs: list[str], cells: Sequence[CellResult], seconds: float
) -> Verdict:
    """What the results so far, those of the first cells, say. Cells that run later add failures, and change none."""
    failures = tuple(_Explainer(notebook, cells).failures())
    known = [*cells, *map(not_run, islice(code_cells(notebook), len(cells), None))]
    tests = tuple(cell for cell in known if cell.is_test)
    return Verdict(module, notebook, tuple(repairs), tests, failures, seconds)


class _Explainer:
    """Finds, for a test that fails, the cell and line to look at."""

    def __init__(self, notebook: NotebookNode, results: Sequence[CellResult]) -> None:
        self.results = results
        self.cells = {result.id: cell for result, cell in zip(results, code_cells(notebook), strict=False)}
        self.exercises = [name for name, cell in self.cells.items() if is_exercise(cell)]

    def failures(self) -> Iterator[Failure]:
        """One for each test that fails, each needed cell that raises an error, each cell that had to be stopped."""
        for result in self.results:
            if result.is_test and not result.ok:
                yield self._failure(result, self._culprit(result))
            elif result.status in _STOPPED or (result.status == "error" and self._is_needed(result)):
                yield self._failure(result, result)

    def _failure(self, failed: CellResult, culprit: CellResult) -> Failure:
        place = culprit.raised_at
        cell = self.cells[place.cell_id if place else culprit.id]
        line = _line(cell.source, place.line) if place else ""
        exercise = cell.id if cell.id in self.exercises else ""
        if culprit.is_test and (not exercise or self._is_solved(exercise, failed)):
            exercise = self._exercise(failed)
        function = _function_at(cell.source, place.line) if place and cell.id == exercise else ""
        if not function and exercise:
            function = _only_definition(self.cells[exercise].source)
        unwritten = culprit.ename == "NotImplementedError" and line.strip() == _STUB
        return Failure(
            failed=cell_label(self.cells[failed.id]),
            failed_line=failed.line or 0,
            problem=f"not written yet: {function or exercise}" if unwritten else _message(culprit),
            error=culprit.ename,
            cause="" if unwritten else _CAUSES.get(culprit.ename, ""),
            cell=cell_label(cell),
            line_number=place.line if place else 0,
            line=line,
            exercise=exercise,
            function=function,
            unwritten=unwritten,
        )

    def _culprit(self, test: CellResult) -> CellResult:
        """The cell to blame: an earlier one, if the test did not run, or lacks what a cell that failed should make."""
        before = self.results[: self.results.index(test)]
        if test.status == "not run":
            return next((cell for cell in reversed(before) if cell.status not in ("ok", "not run")), test)
        failed = [cell for cell in before if not cell.ok and self._is_needed(cell)]
        nearest = next((cell for cell in failed if cell.id == self._exercise(test)), test)
        if not failed or nearest.ename != "NameError":
            return nearest
        missing = re.search(r"'(\w+)'", nearest.evalue)
        name = missing[1] if missing else ""
        return next((cell for cell in failed if _defines(self.cells[cell.id].source, name)), failed[0])

    def _is_needed(self, result: CellResult) -> bool:
        """True for exercises, and for cells that are exported: what comes after builds on them."""
        return result.id in self.exercises or bool(self.cells[result.id].source.startswith("#|"))

    def _is_solved(self, exercise: str, failed: CellResult) -> bool:
        """True if tests of the exercise ran before, and passed: what raises in it was called wrongly by another."""
        before = self.results[: self.results.index(failed)]
        own = [result for result in before if result.is_test and self._exercise(result) == exercise]
        return bool(own) and all(result.ok for result in own)

    def _exercise(self, failed: CellResult) -> str:
        """The exercise that a test is for: the one it is named after, or the last one before it."""
        named = failed.grade_id.removeprefix("test-")
        order = list(self.cells)
        before = [name for name in order[: order.index(failed.id)] if name in self.exercises]
        return named if named in self.exercises else (before or [""])[-1]


def _defines(source: str, name: str) -> bool:
    """True if ``source``, which Python may not be able to read, seems to define ``name``."""
    return bool(re.search(rf"^(def|class) {name}\b|^{name}\b[^=\n]*=", source, re.MULTILINE))


def _line(source: str, number: int) -> str:
    lines = source.split("\n")
    return lines[number - 1] if number <= len(lines) else ""


def _message(result: CellResult) -> str:
    """The error in a few lines, without colours: an assertion's message says itself what it is."""
    text = _CELL_FILE.sub("", _ANSI.sub("", result.evalue)).strip()
    lines = text.split("\n")
    short = "\n".join([*lines[:_MESSAGE_LINES], *(["..."] if len(lines) > _MESSAGE_LINES else [])])
    if result.ename == "AssertionError":
        return short or "the condition in this line is false"
    return short if result.status in (*_STOPPED, "not run") else f"{result.ename}: {short}"


def _function_at(source: str, line: int) -> str:
    """The innermost function that holds ``line``, with its class: ``Tensor.__init__``; empty if there is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    names: list[str] = []
    body: list[ast.stmt] = tree.body
    while holders := [node for node in body if isinstance(node, _DEFINITIONS) and _holds(node, line)]:
        names.append(holders[0].name)
        body = holders[0].body
    return ".".join(names)


def _only_definition(source: str) -> str:
    """The function or class that ``source`` defines, if it is one."""
    try:
        names = [node.name for node in ast.parse(source).body if isinstance(node, _DEFINITIONS)]
    except SyntaxError:
        return ""
    return names[0] if len(names) == 1 else ""


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
