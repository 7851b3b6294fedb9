"""What `make course` runs: a whole course played once, with a class that is graded."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tito.course import Course
from tito.errors import TitoError
from tito.grading.students import wrong

CARELESS = """\
# %% nbgrader={"grade_id": "tensor-add", "solution": true}
def add(left, right):
    careless_result = left
    return careless_result
"""


def play(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tito.grading.demo", *args],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def add_student(tree: Path, text: str) -> None:
    folder = tree / "modules" / "02_tensor" / "students"
    folder.mkdir()
    (folder / "careless.py").write_text(text, encoding="utf-8")


def test_the_course_is_played_from_source_to_scores(author_tree: Path) -> None:
    add_student(author_tree, CARELESS)
    root = author_tree / "build" / "course"
    root.mkdir(parents=True)
    (root / ".made-by-tito").touch()
    (root / "of_an_earlier_run").touch()

    done = play(author_tree, "02")

    assert done.returncode == 0, done.stderr
    rows = [[part.strip() for part in re.split("[│┃]", line)[1:-1]] for line in done.stdout.splitlines()]
    assert [row for row in rows if row] == [
        ["graded cell", "points", "ada", "blank", "careless"],
        ["test-tensor-class", "40", "40", "0", "40"],
        ["test-tensor-add", "40", "40", "0", "0"],
        ["tensor-memory", "20", "manual", "0", "manual"],
        ["total", "100", "80", "0", "40"],
    ]
    paths = re.findall(r"(?m)^(?:release|gradebook|feedback) +(.+)$", done.stdout)
    assert len(paths) == 5
    assert all((author_tree / path).exists() for path in paths)
    assert not (root / "of_an_earlier_run").exists()
    assert (author_tree / "tinytorch" / "core" / "tensor.py").is_file()
    with sqlite3.connect(root / "grading" / "gradebook.db") as gradebook:
        assert gradebook.execute("select count(*) from submitted_assignment").fetchone() == (3,)
    handed_in = (root / "grading/submitted/careless/02_tensor/tensor.ipynb").read_text(encoding="utf-8")
    assert "careless_result" in handed_in
    assert "AssertionError" in handed_in  # played in a kernel: it holds its outputs

    released = [path for path in (root / "release").rglob("*") if path.is_file()]
    assert not any("students" in path.parts for path in released)
    assert not any(b"careless_result" in path.read_bytes() for path in released)


def test_a_folder_of_someone_else_is_not_replaced(author_tree: Path) -> None:
    mine = author_tree / "build" / "course" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious", encoding="utf-8")
    done = play(author_tree, "02")
    assert done.returncode == 1
    assert "not made by this program" in done.stderr
    assert mine.read_text(encoding="utf-8") == "precious"


def test_a_student_of_no_exercise_is_refused(author_tree: Path) -> None:
    add_student(author_tree, CARELESS.replace("tensor-add", "tensor-addition"))
    with pytest.raises(TitoError, match="02_tensor has no exercise 'tensor-addition'"):
        wrong(Course(author_tree).module("02"), "careless")
