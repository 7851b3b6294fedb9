"""Every graded cell of every module fails on what students get and passes with the solution, and is well formed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from nbformat import NotebookNode

from tests.course.notebooks import without_demonstrations
from tito.audit.course import lint
from tito.course import Course, Module
from tito.errors import TitoError
from tito.grading.students import blank, students_folder, wrong
from tito.outcome import CellResult, is_exercise, is_test
from tito.runner import run_notebook
from tito.source import code_cells, grade_info, read_notebook

COURSE = Course(Path(__file__).parents[2])
DOCSTRING_PARTS = ("TODO", "APPROACH", "EXAMPLE", "HINT")


@cache
def notebook_of(module: Module) -> NotebookNode:
    """The author's notebook; an empty one where the source cannot be read, which a test of its own reports."""
    with suppress(TitoError):
        return read_notebook(module)
    return NotebookNode(cells=[])


def is_given(cell: NotebookNode) -> bool:
    """A cell that students get as it is and may not change: what tests need on the student's side."""
    info = grade_info(cell)
    return bool(info.get("locked") and not info.get("solution") and not info.get("grade"))


def parameters(name: str, module: Module, *values: object) -> ParameterSet:
    """``values`` under ``name``; under pytest-xdist one worker gets all of a module, and runs its notebooks once."""
    return pytest.param(*values, id=name, marks=pytest.mark.xdist_group(module.slug))


def modules() -> list[ParameterSet]:
    return [parameters(module.slug, module, module) for module in COURSE.modules]


def cells(wanted: Callable[[NotebookNode], bool]) -> list[ParameterSet]:
    return [
        parameters(f"{module.slug}/{cell.id}", module, module, cell)
        for module in COURSE.modules
        for cell in filter(wanted, notebook_of(module).cells)
    ]


def wrong_students() -> list[ParameterSet]:
    return [
        parameters(f"{module.slug}/{path.stem}", module, module, path.stem)
        for module in COURSE.modules
        for path in sorted(students_folder(module).glob("*.py"))
    ]


def blank_but_tests(module: Module) -> NotebookNode:
    return without_demonstrations(blank(module))


@cache
def run(make: Callable[[Module], NotebookNode], module: Module) -> dict[str, CellResult]:
    """The outcome of every cell of ``make(module)``, run against the reference of the modules before it."""
    return {result.id: result for result in run_notebook(COURSE, module, make(module)).cells}


@pytest.mark.parametrize(("module", "cell"), cells(is_test))
def test_passes_with_the_solution(module: Module, cell: NotebookNode) -> None:
    result = run(read_notebook, module)[cell.id]
    assert result.ok, f"{result.status}: {result.ename}: {result.evalue}"


@pytest.mark.parametrize("module", modules())
def test_no_other_cell_raises_with_the_solution(module: Module) -> None:
    results = run(read_notebook, module).values()
    assert {one.id: f"{one.ename}: {one.evalue}" for one in results if one.status == "error" and not one.is_test} == {}


@pytest.mark.parametrize(("module", "cell"), cells(is_test))
def test_fails_on_the_stripped_notebook(module: Module, cell: NotebookNode) -> None:
    result = run(blank_but_tests, module)[cell.id]
    assert result.status == "error", f"a student who writes nothing gets {result.points:g} points ({result.status})"


@pytest.mark.parametrize("module", modules())
def test_graded_cells_do_not_trust_student_code(module: Module) -> None:
    assert lint(COURSE, module) == ()


@pytest.mark.parametrize(("module", "name"), wrong_students())
def test_a_wrong_student_is_caught_and_not_at_once(module: Module, name: str) -> None:
    notebook = without_demonstrations(wrong(module, name))
    results = run_notebook(COURSE, module, notebook, stop_at_first_failure=True).cells
    tests = [cell for cell in results if cell.is_test]
    assert tests[0].ok
    assert any(cell.status == "error" for cell in tests)


@pytest.mark.parametrize(("module", "cell"), cells(is_test))
def test_is_locked(module: Module, cell: NotebookNode) -> None:
    assert grade_info(cell)["locked"] is True


@pytest.mark.parametrize(("module", "cell"), cells(is_test))
def test_calls_something(module: Module, cell: NotebookNode) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    done = [node for node in ast.parse(cell.source).body if not isinstance(node, definitions)]
    calls = [node for top in done for node in ast.walk(top) if isinstance(node, ast.Call | ast.Assert)]
    assert calls, "the cell only defines its test"


@pytest.mark.parametrize(("module", "cell"), cells(is_exercise))
def test_exercise_says_what_to_do(module: Module, cell: NotebookNode) -> None:
    holders = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docstrings = [
        ast.get_docstring(node) or "" for node in ast.walk(ast.parse(cell.source)) if isinstance(node, holders)
    ]
    missing = {part for part in DOCSTRING_PARTS if not any(f"{part}:" in text for text in docstrings)}
    assert not missing


@pytest.mark.parametrize("module", modules())
def test_marked_code_cells_are_exercises_or_tests_or_given(module: Module) -> None:
    marked = [cell for cell in code_cells(read_notebook(module)) if grade_info(cell)]
    assert [cell.id for cell in marked if not (is_test(cell) or is_exercise(cell) or is_given(cell))] == []


@pytest.mark.parametrize("module", modules())
def test_exports_are_in_the_package(module: Module) -> None:
    tree = ast.parse(COURSE.exported(module).read_text(encoding="utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert set(module.exports) <= set(listed[0])
