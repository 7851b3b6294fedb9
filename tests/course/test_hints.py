"""The ladders of hints: what they say in every module, and how a student climbs one."""

from __future__ import annotations

import ast
import json
import keyword
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tito.course import Course, Module
from tito.errors import TitoError
from tito.hints import FILE, Hint, next_hint, read_ladders
from tito.judge import Failure
from tito.leaks import find_leaks
from tito.outcome import is_exercise
from tito.source import is_marker, read_notebook, split_secret

COURSE = Course(Path(__file__).parents[2])
EVERY_MODULE = pytest.mark.parametrize("module", COURSE.modules, ids=lambda module: module.slug)


# what every module's ladders say


def exercises(module: Module) -> dict[str, str]:
    """The source of each exercise, solutions included, by ``grade_id``."""
    return {cell.id: cell.source for cell in read_notebook(module).cells if is_exercise(cell)}


def holes(source: str) -> list[str]:
    """The qualified names of the functions in ``source`` that hold a solution."""
    starts = [number for number, line in enumerate(source.split("\n"), start=1) if is_marker(line) and "BEGIN" in line]
    spans = [
        (name, node)
        for name, node in definitions(ast.parse(source))
        if any(node.lineno <= start <= (node.end_lineno or 0) for start in starts)
    ]
    return [name for name, node in spans if not isinstance(node, ast.ClassDef)]


def definitions(tree: ast.Module | ast.ClassDef, inside: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Functions and classes with their qualified names; not those inside of functions."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield inside + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{inside}{node.name}.")


def secret_statements(source: str) -> set[str]:
    """The statements of the solutions in ``source``, as ``statements`` gives them."""
    secret = {line.number for line in split_secret(source)[0]}
    return set(statements(node for node in ast.walk(ast.parse(source)) if getattr(node, "lineno", 0) in secret))


def statements(nodes: Any) -> Iterator[str]:
    """Each statement as Python writes it, of a compound one its first line; and what it assigns or returns, alone."""
    for node in nodes:
        if isinstance(node, ast.stmt):
            yield ast.unparse(node).split("\n")[0]
        value = getattr(node, "value", None)
        if (
            isinstance(node, ast.stmt)
            and isinstance(value, ast.expr)
            and not isinstance(value, ast.Name | ast.Constant)
        ):
            yield ast.unparse(value)


def tells(text: str) -> bool:
    """False for what is the same in everybody's code: ``else:``, ``)``, ``return out``."""
    words = [word for word in re.findall(r"[A-Za-z_]\w*", text) if not keyword.iskeyword(word)]
    return bool(words) and not re.fullmatch(r"return \w+", text.strip())


def collapsed(text: str) -> str:
    return " ".join(text.split())


def blanks(tree: ast.AST) -> int:
    """How many ``...`` are left to fill in; those of an index such as ``x[..., 0]`` are not."""
    indices = [index for node in ast.walk(tree) if isinstance(node, ast.Subscript) for index in ast.walk(node.slice)]
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is ...]
    return sum(not any(node is index for index in indices) for node in found)


@EVERY_MODULE
def test_every_exercise_and_each_of_its_functions_has_a_ladder(module: Module) -> None:
    ladders = read_ladders(module)  # which sees to the three rungs of each
    assert list(ladders) == list(exercises(module)), "the exercises in the notebook's order"
    for name, source in exercises(module).items():
        functions = holes(source)
        assert list(ladders[name]) == (functions if len(functions) > 1 else [""]), name


@EVERY_MODULE
def test_no_rung_tells_a_line_of_the_solution(module: Module) -> None:
    ladders = read_ladders(module)
    for name, source in exercises(module).items():
        lines = {collapsed(line.text) for line in split_secret(source)[0] if tells(line.text)}
        secrets = {text for text in secret_statements(source) if tells(text)}
        for function, (question, method, code) in ladders[name].items():
            where = f"{module.slug}: {name} {function}"
            for rung in (question, method):
                told = [line for line in lines if line in collapsed(rung.text)]
                assert not told, f"{where}: the {rung.name} tells {told}"
            told = [line for line in map(collapsed, code.text.split("\n")) if line in lines]
            told += [text for text in statements(ast.walk(ast.parse(code.text))) if text in secrets]
            assert not told, f"{where}: the code tells {told}"


def test_no_rung_tells_a_line_of_another_module(tmp_path: Path) -> None:
    for module in COURSE.modules:
        shutil.copyfile(module.folder / FILE, tmp_path / f"{module.slug}.yaml")
    assert find_leaks(COURSE, tmp_path) == []


@EVERY_MODULE
def test_near_code_is_python_with_blanks_and_prose_is_short(module: Module) -> None:
    for name, ladders in read_ladders(module).items():
        for function, (question, method, code) in ladders.items():
            where = f"{name} {function}"
            assert blanks(ast.parse(code.text)), f"{where}: the near-code leaves nothing to think"
            assert "?" in question.text, f"{where}: the first rung is a question"
            assert len(question.text) <= 400 and len(method.text) <= 500, f"{where}: nobody stuck reads that much"
            assert max(map(len, code.text.split("\n"))) <= 100, f"{where}: the code does not fit a screen"


# how a student climbs

REPORT = Failure(
    failed="test-setup-report",
    failed_line=2,
    problem="not written yet: environment_report",
    error="NotImplementedError",
    cause="",
    cell="setup-report",
    line_number=17,
    line="    raise NotImplementedError()",
    exercise="setup-report",
    function="environment_report",
    unwritten=True,
)
RUNG = "{question: 'What is it?', method: Look., code: x = ...}"
BOTH = f"setup-report:\n  one: {RUNG}\n  Box.__init__: {RUNG}\n  Box.size: {RUNG}\n"


def failure(**fields: Any) -> Failure:
    return Failure(**(REPORT.__dict__ | fields))


def climb(workspace: Path, failed: Failure = REPORT) -> Hint:
    course = Course(workspace)
    climbed = next_hint(course, course.module("01"), failed)
    assert climbed is not None
    return climbed


def write_hints(workspace: Path, text: str) -> Path:
    path = workspace / "modules/01_setup/hints.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_three_calls_climb_and_a_solved_module_needs_none(
    workspace: Path, run_tito: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first, second, third, fourth = (run_tito(workspace, "module", "hint", "01").stdout for _ in range(4))
    for text in (first, second, third, fourth):
        assert "not written yet: environment_report" in text and "1 of 3: a question" in text
    assert "2 of 3" not in first and "for more: tito module hint 01" in first
    assert "2 of 3: the method\n  Ask it" in second and "3 of 3" not in second
    assert '3 of 3: near-code\n  name = ...\n  return {"system": ...}' in third and "the last hint" in third
    assert "3 of 3" in fourth and "that is every hint there is" in fourth

    notebook = workspace / "modules/01_setup/setup.ipynb"
    text = notebook.read_text(encoding="utf-8")
    solved = text.replace("raise NotImplementedError()", "return {'system': platform.system()}")
    notebook.write_text(solved, encoding="utf-8")
    assert "nothing to hint at" in run_tito(workspace, "module", "hint", "01").stdout
    notebook.write_text(text.replace("raise NotImplementedError()", "return platform.sys tem"), encoding="utf-8")
    done = run_tito(workspace, "module", "hint", "01")
    assert done.returncode == 1
    assert "SyntaxError" in done.stdout and "1 of 3" not in done.stdout and "for a hint" not in done.stdout


def test_each_function_has_a_count_of_its_own(workspace: Path) -> None:
    write_hints(workspace, BOTH)
    for count in (1, 2):
        climbed = climb(workspace, failure(function="Box.size"))
        assert (climbed.function, len(climbed.rungs), climbed.is_new) == ("Box.size", count, True)
    assert len(climb(workspace, failure(function="one")).rungs) == 1
    for _ in range(2):
        climbed = climb(workspace, failure(function="Box.size"))
    assert len(climbed.rungs) == 3 and climbed.is_all and not climbed.is_new
    counts = json.loads((workspace / ".tito/progress.json").read_text())["hints"]
    assert counts == {"setup-report Box.size": 3, "setup-report one": 1}


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ({"function": "Box.size.helper"}, "Box.size"),
        ({"function": "Box", "line": "close(Box(3).size(), 3)"}, "Box.size"),
        ({"function": "", "line": "assert made == 3", "problem": "Box(3) keeps 3"}, "Box.__init__"),
        ({"function": "", "line": "assert made == 3", "problem": "size of 3: got 4"}, "Box.size"),
        ({"function": "", "line": "close(RULES[ONE], 3)"}, "one"),
        ({"function": "", "line": "Box(one(size)).size()"}, "one"),
        ({"function": "", "line": "assert boxes == 3", "problem": "got 4"}, "one"),
    ],
)
def test_the_function_that_a_test_speaks_of_is_hinted_at(
    workspace: Path, fields: dict[str, str], function: str
) -> None:
    write_hints(workspace, BOTH)
    assert climb(workspace, failure(**fields)).function == function


@pytest.mark.parametrize(
    ("lines", "failed_line", "function"),
    [
        (["size()", "with raises(TypeError):", "    one()", "size()"], 2, "one"),
        (["one()", "made = size()", "for _ in made:", "    assert _", "one()"], 4, "Box.size"),
    ],
)
def test_a_test_that_names_the_function_elsewhere_is_read(
    workspace: Path, lines: list[str], failed_line: int, function: str
) -> None:
    write_hints(workspace, BOTH)
    path = Course(workspace).module("01").pristine
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "test-setup-report").source = "\n".join(lines)
    nbformat.write(notebook, path)
    failed = failure(function="", line="", problem="got 4", failed_line=failed_line)
    assert climb(workspace, failed).function == function


@pytest.mark.parametrize("error", ["SyntaxError", "NameError", "FileNotFoundError"])
def test_what_tells_itself_costs_no_hint(workspace: Path, error: str) -> None:
    course = Course(workspace)
    assert next_hint(course, course.module("01"), failure(error=error)) is None
    assert next_hint(course, course.module("01"), failure(exercise="")) is None
    assert len(climb(workspace).rungs) == 1


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        (None, "no hints.yaml", "01_setup"),
        ("setup-report: {question: [", "not YAML", "hints.yaml, line 1"),
        ("- setup-report", "expected keys and values", "hints.yaml"),
        ("setup-report: think", "expected keys and values, got 'think'", "hints.yaml, setup-report"),
        (f"other: {RUNG}", "no hint for setup-report", "hints.yaml"),
        ("setup-report: {question: 'What?', method: Look.}", "no text for 'code'", "hints.yaml, setup-report"),
        (f"setup-report: {RUNG[:-1]}, answer: x = 1}}", "'answer' is no rung", "hints.yaml, setup-report"),
        ("setup-report: {one: {question: 'What?'}}", "no text for 'method'", "hints.yaml, setup-report, one"),
    ],
)
def test_missing_and_broken_hints_are_named(workspace: Path, text: str | None, says: str, place: str) -> None:
    path = write_hints(workspace, text or "")
    if text is None:
        path.unlink()
    with pytest.raises(TitoError) as caught:
        climb(workspace)
    assert says in caught.value.problem and caught.value.place.endswith(place) and caught.value.next_step
    assert not (workspace / ".tito/progress.json").exists()


def test_a_hint_that_tells_a_solution_is_not_released(
    author_tree: Path, tmp_path: Path, run_tito: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    path = author_tree / "modules/02_tensor/hints.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("return Tensor(... + ...)", "added_values = left.data + right.data"), encoding="utf-8")
    done = run_tito(author_tree, "release", tmp_path / "class")
    assert done.returncode == 1 and "modules/02_tensor/hints.yaml:10" in done.stderr
    path.unlink()
    done = run_tito(author_tree, "release", tmp_path / "class")
    assert done.returncode == 1 and "module 02_tensor has no hints.yaml" in done.stderr
