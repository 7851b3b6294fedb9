"""Grading out of process comes to the verdict, test by test, to which a plain kernel comes.

The students here have solved everything, nothing, or most: in each of the last, two exercises have a mistake or are
left blank, by chance but the same for everyone who runs this. `make verdicts` tries many more of them.

The verdict on a mistake may be chance: a hidden test draws numbers, and not all of them show it. So where the two
differ, both are asked again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tests.course.notebooks import without_demonstrations
from tito.audit.mutants import Mutant, mutants
from tito.course import Course, Module
from tito.grading.isolated.plan import names_of
from tito.grading.isolated.run import Isolated
from tito.grading.students import blank, solved
from tito.grading.submission import with_tests
from tito.outcome import RunResult, is_exercise, is_test
from tito.runner import run_notebook
from tito.source import code_cells, read_notebook, strip_markers

COURSE = Course(Path(__file__).parents[2])
PARTLY_RIGHT = int(os.environ.get("TINYTORCH_STUDENTS", "1"))  # of each module
MISTAKES = 2
ASKED_AGAIN = 4  # times, where verdicts differ

STUDENTS = [
    pytest.param(module, student, id=f"{module.slug}/{student}", marks=pytest.mark.xdist_group(module.slug))
    for module in COURSE.modules
    for student in ("solved", "blank", *range(PARTLY_RIGHT))
]


@pytest.fixture(scope="module")
def isolated() -> Iterator[object]:
    opened: dict[str, Isolated] = {}

    def of(module: Module) -> Isolated:
        if module.slug not in opened:
            opened[module.slug] = Isolated(COURSE, module, read_notebook(module)).__enter__()
        return opened[module.slug]

    yield of
    for one in opened.values():
        one.__exit__(None, None, None)


@pytest.mark.parametrize(("module", "student"), STUDENTS)
def test_verdicts_are_those_of_a_plain_kernel(isolated, module: Module, student: str | int) -> None:
    notebook, mistakes = made(module, student)
    here = [verdicts(isolated(module).run(notebook))]
    there = [in_a_kernel(module, notebook, student)]
    chance = isinstance(student, int)  # who solved all or nothing has one verdict, every time
    while chance and difference(here, there) and len(here) <= ASKED_AGAIN:
        here.append(verdicts(isolated(module).run(notebook)))
        there.append(in_a_kernel(module, notebook, student))
    assert not difference(here, there), f"{mistakes}: isolated, then in a kernel: {difference(here, there)}"


def in_a_kernel(module: Module, notebook: NotebookNode, student: str | int) -> dict[str, str]:
    """The verdicts of a plain kernel; of those who solved all or nothing, test_graded_cells.py runs it."""
    if student in ("solved", "blank"):
        return {cell.id: "" if student == "solved" else "fails" for cell in notebook.cells if is_test(cell)}
    return verdicts(run_notebook(COURSE, module, without_demonstrations(notebook)))


def made(module: Module, student: str | int) -> tuple[NotebookNode, list[str]]:
    """The notebook of a student, with the tests in it, and what is wrong with it."""
    source = read_notebook(module)
    if student == "blank":
        return with_tests(blank(module), source), []
    notebook = with_tests(solved(module), source)
    if student == "solved":
        return notebook, []
    chance = random.Random(f"{module.slug} {student}")
    wrong = chance.sample(exercises(source), MISTAKES)
    mistakes = []
    for cell in notebook.cells:
        original = next((one for one in wrong if one.id == cell.id), None)
        if original is not None:
            cell.source, mistake = mistaken(module, original, chance)
            mistakes.append(f"{cell.id}: {mistake}")
    return notebook, mistakes


def exercises(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if is_exercise(cell)]


def mistaken(module: Module, cell: NotebookNode, chance: random.Random) -> tuple[str, str]:
    """An exercise got wrong: its source, and how."""
    found = [one for one in mutants(cell.source) if _has_a_verdict(module, cell, one)]
    if not found or chance.random() < 0.1:
        return next(one.source for one in unsolved(module).cells if one.id == cell.id), "left blank"
    mutant = chance.choice(found)
    return strip_markers(mutant.source), mutant.diff


def _has_a_verdict(module: Module, cell: NotebookNode, mutant: Mutant) -> bool:
    """Whether the mistake does the same everywhere: it does not loop, read stray memory or use another cell's name."""
    needs = names_of(strip_markers(mutant.source)).uses - names_of(strip_markers(cell.source)).uses
    return mutant.operator != "break_for_continue" and "np.empty" not in cell.source and not needs & _bound(module)


@cache
def _bound(module: Module) -> frozenset[str]:
    """The names that the cells of a module bind, demonstrations included."""
    return frozenset().union(*(names_of(cell.source).binds for cell in code_cells(read_notebook(module))))


@cache
def unsolved(module: Module) -> NotebookNode:
    return blank(module)


def verdicts(result: RunResult) -> dict[str, str]:
    return {cell.id: f"{cell.ename}: {cell.evalue}" if cell.ename else "" for cell in result.cells if cell.is_test}


def difference(here: list[dict[str, str]], there: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """The tests that always passed on one side and always failed on the other."""
    return [
        (name, here[0][name], there[0][name])
        for name in here[0]
        if not {bool(one[name]) for one in here} & {bool(one[name]) for one in there}
    ]
