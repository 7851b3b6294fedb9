"""The instructor's commands, and nbgrader's own, on a class whose notebooks are right, wrong and broken."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.preloaded import PRELOADED
from tito.course import Course, Module
from tito.grading.directory import Directory
from tito.grading.scores import read_scores
from tito.grading.students import blank, solved
from tito.leaks import find_leaks

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.xdist_group("nbgrader")
CELL_SECONDS = 4

RIGHT = {"test-tensor-class": 40.0, "test-tensor-add": 40.0, "tensor-memory": None}
CLASS_ONLY = {"test-tensor-class": 40.0, "test-tensor-add": 0.0, "tensor-memory": None}
NOTHING = {"test-tensor-class": 0.0, "test-tensor-add": 0.0, "tensor-memory": 0.0}


def adding(line: str) -> Callable[[Module], NotebookNode]:
    """A solved notebook with ``line`` before the last step of the exercise tensor-add."""

    def make(module: Module) -> NotebookNode:
        notebook = solved(module)
        cell = cell_named(notebook, "tensor-add")
        assert "    added_values =" in cell.source
        cell.source = cell.source.replace("    added_values =", f"    {line}\n    added_values =")
        return notebook

    return make


def cell_named(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == grade_id)


def with_an_edited_test(module: Module) -> NotebookNode:
    notebook = adding("return left")(module)
    cell_named(notebook, "test-tensor-add").source = "pass"
    return notebook


def with_a_test_gone_and_one_twice(module: Module) -> NotebookNode:
    notebook = solved(module)
    notebook.cells.remove(cell_named(notebook, "test-tensor-class"))
    notebook.cells.append(NotebookNode(cell_named(notebook, "test-tensor-add"), id="copied"))
    return notebook


def of_older_programs(module: Module) -> NotebookNode:
    """Without cell ids, as Jupyter wrote it before 2021, and with nbgrader's metadata of before 2018."""
    notebook = solved(module)
    notebook.nbformat_minor = 2
    for cell in notebook.cells:
        del cell["id"]
        cell.metadata.get("nbgrader", {}).pop("schema_version", None)
    return notebook


def importing_the_answer(module: Module) -> NotebookNode:
    notebook = blank(module)
    cell_named(notebook, "tensor-class").source = "#| export\nfrom tinytorch.core.tensor import Tensor"
    return notebook


# student -> (notebook, scores by cell, words in the table)
GRADED: dict[str, tuple[Callable[[Module], NotebookNode], dict[str, float | None], str]] = {
    "ada": (solved, RIGHT, ""),
    "blank": (blank, NOTHING, ""),
    "warns": (adding("import warnings; warnings.warn('careful')"), RIGHT, ""),
    "shows_a_number": (adding("import sys; sys.displayhook(40.0); raise ValueError"), CLASS_ONLY, ""),
    "hides_errors": (adding("get_ipython()._showtraceback = print; raise ValueError"), CLASS_ONLY, ""),
    "imports": (importing_the_answer, NOTHING, ""),
    "edits": (with_an_edited_test, CLASS_ONLY, "test-tensor-add was edited"),
    "guesses": (adding("return Tensor([3.0])"), CLASS_ONLY, ""),
    "untidy": (with_a_test_gone_and_one_twice, RIGHT, "test-tensor-class was deleted"),
    "old": (of_older_programs, RIGHT, ""),
    "loops": (adding("import time; time.sleep(1000)"), CLASS_ONLY, "longer than 4 s"),
    "dies": (adding("import os; os._exit(3)"), CLASS_ONLY, "process ended"),
    "floods": (adding("print('x' * 3_000_000)"), RIGHT, ""),
}
REFUSED = {
    "no_json": ("<html>Sign in</html>", "not JSON"),
    "no_notebook": ('{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "is not a notebook"),
    "misnamed": (None, "tensor.ipynb is missing; the folder has tensor (1).ipynb"),
    "other": (None, "not the notebook of the assignment"),
}


@pytest.fixture(scope="module")
def handed_in(tree: Path, assigned: Path) -> Path:
    """A course directory with an assignment and the submissions of a class, not graded yet."""
    root = tree.parent / "handed_in"
    shutil.copytree(assigned, root)
    course = Course(tree)
    module = course.module("02")
    for student, (make, _, _) in GRADED.items():
        put(root, student, nbformat.writes(make(module)))
    for student, (text, _) in REFUSED.items():
        put(root, student, text or "")
    misnamed = put(root, "misnamed", nbformat.writes(solved(module)))
    misnamed.rename(misnamed.with_name("tensor (1).ipynb"))
    put(root, "other", nbformat.writes(solved(course.module("01"))))
    return root


def put(root: Path, student: str, text: str) -> Path:
    path = root / "submitted" / student / "02_tensor" / "tensor.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def graded(tree: Path, handed_in: Path, run_tito: RunTito) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The course directory after `tito nbgrader autograde`, and what that said."""
    root = tree.parent / "graded"
    shutil.copytree(handed_in, root)
    return root, run_tito(tree, "nbgrader", "autograde", "02", cwd=root, COLUMNS="300")


@pytest.fixture
def fresh(graded: tuple[Path, object], tmp_path: Path) -> Path:
    """A copy of the graded course directory, to change."""
    root = tmp_path / "grading"
    shutil.copytree(graded[0], root)
    return root


@pytest.fixture(scope="module")
def report(tree: Path, graded: tuple[Path, object], run_tito: RunTito) -> dict[str, dict[str, float | None]]:
    """What `tito nbgrader report --json` tells of each student, by cell."""
    done = run_tito(tree, "nbgrader", "report", "02", "--json", "--course", graded[0])
    assert done.returncode == 0, done.stderr
    return {
        one["student"]: {cell["grade_id"]: cell["score"] for cell in one["cells"]} for one in json.loads(done.stdout)
    }


def scores(root: Path) -> dict[str, dict[str, float | None]]:
    """The same, read without starting a program."""
    directory = Directory.open(root)
    found = read_scores(directory, directory.course.module("02"))
    return {one.student: {cell.grade_id: cell.score for cell in one.cells} for one in found}


def row_of(student: str, screen: str) -> str:
    """The row of a student in the table that autograde shows, of one line or more."""
    found = re.search(rf"^│ {student} +│.*?(?=^│ \S|^└)", screen, re.DOTALL | re.MULTILINE)
    assert found, screen
    return found[0]


@pytest.mark.parametrize("student", GRADED)
def test_each_submission_gets_the_points_of_its_tests(student: str, report: dict[str, dict[str, float]]) -> None:
    assert report[student] == GRADED[student][1]


@pytest.mark.parametrize("student", GRADED)
def test_what_befell_a_submission_is_in_the_table(student: str, graded: tuple[Path, object]) -> None:
    screen = graded[1].stdout
    row = row_of(student, screen)
    assert "not graded" not in row
    assert GRADED[student][2] in row
    if not GRADED[student][2]:
        assert [part.strip() for part in row.split("│")[3:7]] == ["", "", "", ""]


@pytest.mark.parametrize("student", REFUSED)
def test_a_broken_notebook_costs_itself_alone_and_is_named(
    student: str, graded: tuple[Path, object], report: dict[str, dict[str, float]]
) -> None:
    row = row_of(student, graded[1].stdout)
    assert "not graded" in row
    assert REFUSED[student][1] in row
    assert report[student] == NOTHING


def test_autograde_ends_with_the_count_the_log_and_a_bad_status(graded: tuple[Path, object]) -> None:
    root, done = graded
    assert done.returncode == 1
    assert f"{len(GRADED)} of {len(GRADED) + len(REFUSED)} graded" in done.stdout
    assert str(root / "nbgrader.log") in done.stdout
    assert "Converting notebook" in (root / "nbgrader.log").read_text(encoding="utf-8")
    assert "Converting" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_grading_again_gives_the_same_scores(tree: Path, fresh: Path, report: dict, run_tito: RunTito) -> None:
    done = run_tito(tree, "nbgrader", "autograde", "02", "--student", "edits", "--course", fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(fresh) == report


def test_points_of_an_earlier_grading_do_not_outlive_it(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    put(fresh, "ada", "{")
    done = run_tito(tree, "nbgrader", "autograde", "--student", "ada", "--course", fresh)
    assert done.returncode == 1
    assert scores(fresh)["ada"] == NOTHING
    assert not (fresh / "autograded" / "ada" / "02_tensor").exists()


def test_nbgraders_own_commands_work_and_give_the_same_scores(
    tree: Path, handed_in: Path, tmp_path: Path, graded: tuple[Path, object], report: dict, run_tito: RunTito
) -> None:
    students = ("ada", "blank", "edits")
    root = tmp_path / "plain"
    shutil.copytree(handed_in, root)
    for folder in (root / "submitted").iterdir():
        if folder.name not in students:
            shutil.rmtree(folder)
    run_nbgrader(tree, root, "generate_assignment", "02_tensor", "--force")
    run_nbgrader(tree, root, "autograde", "02_tensor")
    run_nbgrader(tree, root, "generate_feedback", "02_tensor")
    run_nbgrader(tree, root, "export")
    assert scores(root) == {student: report[student] for student in students}
    assert [recorded(root, student) for student in students] == [recorded(graded[0], student) for student in students]
    with (root / "grades.csv").open(encoding="utf-8") as file:
        totals = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert totals == {"ada": 80.0, "blank": 0.0, "edits": 40.0}
    for student in students:
        html = (root / "feedback" / student / "02_tensor" / "tensor.html").read_text(encoding="utf-8")
        assert "hidden_" not in html


def recorded(root: Path, student: str) -> list[object]:
    """All that grading wrote of a student: in the gradebook, and in the notebook but for its outputs."""
    notebook = nbformat.read(root / "autograded" / student / "02_tensor" / "tensor.ipynb", as_version=4)
    with Directory.open(root).gradebook() as gradebook:
        found = gradebook.find_submission_notebook("tensor", "02_tensor", student)
        grades = {grade.name: (grade.auto_score, grade.needs_manual_grade) for grade in found.grades}
        comments = {comment.name: comment.auto_comment for comment in found.comments}
    assert grades and ("No response." in comments.values()) == (student == "blank")
    return [grades, comments, [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]]


def test_settings_of_nbgraders_steps_are_heeded(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    with (fresh / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write("\nc.OverwriteCells.add_missing_cells = True\n")
    done = run_tito(tree, "nbgrader", "autograde", "--force", "--student", "shows_a_number", "--course", fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(fresh)["shows_a_number"] == CLASS_ONLY


def run_nbgrader(tree: Path, root: Path, *args: str) -> str:
    done = PRELOADED.run("nbgrader", args, cwd=root, env=os.environ | {"PYTHONPATH": str(tree)}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_nbgrader_validate_passes_on_the_solution(tree: Path, handed_in: Path) -> None:
    assert "Success!" in run_nbgrader(tree, handed_in, "validate", "source/02_tensor/tensor.ipynb")


def test_feedback_shows_what_failed_and_no_hidden_test(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    done = run_tito(tree, "nbgrader", "feedback", "--course", fresh)
    assert done.returncode == 1  # for those that could not be graded
    assert f"{len(GRADED)} of {len(GRADED) + len(REFUSED)} written" in done.stdout
    assert "no_json: not graded yet" in done.stdout
    pages = {
        path.parts[-3]: path.read_text(encoding="utf-8")
        for path in (fresh / "feedback").glob("*/02_tensor/tensor.html")
    }
    assert pages.keys() == GRADED.keys()
    for student, html in pages.items():
        assert not re.search("hidden_|any shape|HIDDEN TESTS", html), student
    assert "NotImplementedError" in pages["blank"]
    assert "in a hidden test" in pages["guesses"]
    assert "expected shape" in pages["guesses"]
    assert "longer than 4 s" in pages["loops"]


def test_feedback_returns_nothing_that_a_link_in_a_submission_leads_to(
    tree: Path, fresh: Path, run_tito: RunTito
) -> None:
    (fresh / "submitted" / "ada" / "02_tensor" / "data.csv").symlink_to(fresh / "gradebook.db")
    for command in ("autograde", "feedback"):
        done = run_tito(tree, "nbgrader", command, "02", "--student", "ada", "--course", fresh)
        assert done.returncode == 0, done.stdout + done.stderr
    returned = [path.name for path in (fresh / "feedback").rglob("*") if path.is_file()]
    assert returned == ["tensor.html"]


def test_a_grade_given_by_hand_outlives_another_autograding(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    with Directory.open(fresh).gradebook() as gradebook:
        grade = gradebook.find_grade("tensor-memory", "tensor", "02_tensor", "ada")
        grade.manual_score, grade.needs_manual_grade = 15.0, False
        gradebook.db.commit()
    done = run_tito(tree, "nbgrader", "autograde", "02", "--student", "ada", "--course", fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(fresh)["ada"] == {**RIGHT, "tensor-memory": 15.0}


def test_the_rubric_is_there_for_who_grades_and_for_nobody_else(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    rubric = "Full marks for four megabytes with the reason."
    for student in GRADED:
        notebook = nbformat.read(fresh / "autograded" / student / "02_tensor" / "tensor.ipynb", as_version=4)
        question = next(
            c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-question")
        )
        assert rubric in question.source, student
    run_tito(tree, "nbgrader", "feedback", "--course", fresh)
    for folder in ("release", "feedback"):
        texts = [path.read_text(encoding="utf-8") for path in (fresh / folder).rglob("*") if path.is_file()]
        assert texts and not any(rubric in text for text in texts), folder


def test_report_shows_cells_students_and_totals(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    target = fresh / "totals.csv"
    done = run_tito(tree, "nbgrader", "report", "02", "--student", "ada", "--csv", target, "--course", fresh)
    assert done.returncode == 0, done.stderr
    rows = [[part.strip() for part in re.split("[│┃]", line)[1:-1]] for line in done.stdout.splitlines()]
    rows = [row for row in rows if row]
    assert rows == [
        ["graded cell", "points", "ada"],
        ["test-tensor-class", "40", "40"],
        ["test-tensor-add", "40", "40"],
        ["tensor-memory", "20", "manual"],
        ["total", "100", "80"],
    ]
    with target.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["assignment"], row["student_id"], row["score"]) for row in table] == [("02_tensor", "ada", "80.0")]


def test_generate_refuses_to_lose_grades_and_changes_nothing(
    tree: Path, fresh: Path, tmp_path: Path, run_tito: RunTito
) -> None:
    moved = tmp_path / "author"
    shutil.copytree(tree, moved)
    point_to(fresh, tree, moved)
    source = moved / "modules" / "02_tensor" / "tensor_dev.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace('"test-tensor-add"', '"test-tensor-sum"'), encoding="utf-8")
    before = (fresh / "release" / "02_tensor" / "tensor.ipynb").read_bytes()
    done = run_tito(moved, "nbgrader", "generate", "--course", fresh)
    assert done.returncode == 1
    assert "would lose grades: test-tensor-add is gone; test-tensor-sum is new" in done.stderr
    assert (fresh / "release" / "02_tensor" / "tensor.ipynb").read_bytes() == before

    source.write_text(text.replace("Tensors add up value by value.", "Tensors add up."), encoding="utf-8")
    done = run_tito(moved, "nbgrader", "generate", "--course", fresh)
    assert done.returncode == 0, done.stderr
    assert "Tensors add up." in (fresh / "release" / "02_tensor" / "tensor.ipynb").read_text(encoding="utf-8")
    assert "ada" in scores(fresh)


def point_to(root: Path, old: Path, new: Path) -> None:
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8").replace(str(old), str(new)), encoding="utf-8")


def test_a_course_that_has_moved_is_said_so(tree: Path, fresh: Path, run_tito: RunTito) -> None:
    point_to(fresh, tree, fresh / "gone")
    done = run_tito(tree, "nbgrader", "autograde", cwd=fresh)
    assert done.returncode == 1
    assert f"the course is not at {fresh / 'gone'}" in done.stderr
    assert "COURSE_TREE" in done.stderr
    with pytest.raises(AssertionError, match="the course is not at"):
        run_nbgrader(tree, fresh, "autograde", "02_tensor")


def test_validate(tree: Path, handed_in: Path, run_tito: RunTito) -> None:
    done = run_tito(tree, "nbgrader", "validate", "02", cwd=handed_in)
    assert (done.returncode, done.stdout) == (0, "02_tensor: 2 of 2 tests pass\n")
    done = run_tito(tree, "nbgrader", "validate", "02", "--student", "edits", cwd=handed_in)
    assert done.returncode == 1
    assert "1 of 2 tests pass" in done.stdout
    assert "test-tensor-add: AssertionError" in done.stdout


def test_init_writes_nothing_but_notebooks_into_source(handed_in: Path) -> None:
    files = [path for path in (handed_in / "source").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["autograd.ipynb", "setup.ipynb", "tensor.ipynb"]
    released = [path.relative_to(handed_in).as_posix() for path in (handed_in / "release").rglob("*") if path.is_file()]
    assert released == ["release/02_tensor/tensor.ipynb"]


def test_generate_releases_no_secret_of_any_module(tree: Path, handed_in: Path) -> None:
    assert find_leaks(Course(tree), handed_in / "release") == []
    assert find_leaks(Course(tree), handed_in / "source") != []


def test_init_refuses_a_folder_with_something_in_it(tree: Path, tmp_path: Path, run_tito: RunTito) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    done = run_tito(tree, "nbgrader", "init", tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_init_refuses_in_a_workspace(workspace: Path, run_tito: RunTito) -> None:
    done = run_tito(workspace, "nbgrader", "init", workspace.parent / "grading")
    assert done.returncode == 1
    assert "workspace" in done.stderr
    assert not (workspace.parent / "grading").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["autograde", "02", "--student", "nobody"], "no submission of nobody for 02_tensor"),
        (["autograde", "01"], "next:  tito nbgrader generate 01"),
    ],
)
def test_a_wrong_call_says_what_to_do(
    command: list[str], words: str, tree: Path, fresh: Path, run_tito: RunTito
) -> None:
    (fresh / "submitted" / "ada" / "01_setup").mkdir()
    done = run_tito(tree, "nbgrader", *command, cwd=fresh)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_course_directory_is_left_alone(tree: Path, tmp_path: Path, run_tito: RunTito) -> None:
    done = run_tito(tree, "nbgrader", "report", cwd=tmp_path)
    assert done.returncode == 1
    assert "tito nbgrader init DIR" in done.stderr
    assert list(tmp_path.iterdir()) == []
