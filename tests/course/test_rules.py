"""The rules for sources: an author hears of a broken one wherever it matters."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tito.course import Course
from tito.rules import broken_rules
from tito.source import read_notebook

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]

SUM = "02_tensor: the points of its cells add up to 105, not 100"
TEST = "from tito.testing import close"  # the first line of a test of 02_tensor
EXERCISE = "class Tensor:"


def edit(root: Path, old: str, new: str) -> None:
    path = root / "modules" / "02_tensor" / "tensor_dev.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_points_that_do_not_add_up_are_told_and_not_released(author_tree: Path, run_tito: RunTito) -> None:
    edit(author_tree, '"points": 40', '"points": 45')
    written = run_tito(author_tree, "export")
    assert (written.returncode, written.stderr) == (0, f"note: {SUM}\n")
    assert "Wrote tinytorch/core/tensor.py" in written.stdout
    checked = run_tito(author_tree, "export", "--check")
    assert checked.returncode == 1 and SUM in checked.stderr and "next:" in checked.stderr
    linted = run_tito(author_tree, "audit", "--lint", "02")
    assert linted.returncode == 1 and SUM in linted.stdout
    target = author_tree.parent / "class"
    refused = run_tito(author_tree, "release", target)
    assert refused.returncode == 1 and "add up to 105, not 100" in refused.stderr and not target.exists()
    assert str(author_tree / "modules/02_tensor/tensor_dev.py") in refused.stderr
    directory = author_tree.parent / "grading"
    run_tito(author_tree, "nbgrader", "init", directory)
    generated = run_tito(directory, "nbgrader", "generate", "02")
    assert generated.returncode == 1 and "add up to 105, not 100" in generated.stderr
    assert not (directory / "release").exists()


@pytest.mark.parametrize("points", ['"40"', "null"])
def test_points_that_are_no_numbers_do_not_count(author_tree: Path, points: str) -> None:
    edit(author_tree, '"points": 40', f'"points": {points}')
    assert said_of(author_tree) == ["the points of its cells add up to 60, not 100"]


def said_of(root: Path) -> list[str]:
    course = Course(root)
    module = course.module("02")
    return broken_rules(course, module, read_notebook(module))


@pytest.mark.parametrize(
    ("line", "place", "name"),
    [
        ("from tinytorch.core.autograd import slope", EXERCISE, "tinytorch.core.autograd"),
        ("import tinytorch.core.tensor", TEST, "tinytorch.core.tensor"),
        ("from tinytorch.core import autograd", TEST, "tinytorch.core.autograd"),
        ("from .autograd import slope", EXERCISE, "tinytorch.core.autograd"),
        ("from . import autograd", EXERCISE, "tinytorch.core.autograd"),
        ("from tinytorch.core.attention import mask", EXERCISE, "tinytorch.core.attention"),
        ("import tito", TEST, "tito"),
        ("from tito.source import read_notebook", TEST, "tito.source"),
        ("from tito import data", TEST, "tito.data"),
        ("from tito import data", EXERCISE, "tito.data"),
        ("from tito.testing import close", EXERCISE, "tito.testing"),
    ],
)
def test_an_import_that_does_not_belong_there(author_tree: Path, line: str, place: str, name: str) -> None:
    edit(author_tree, place, f"{line}\n{place}")
    (said,) = said_of(author_tree)
    cell = "test-tensor-class" if place == TEST else "tensor-class"
    assert said.startswith(f"the cell {cell} imports {name}")


def test_a_cell_that_only_shows_something_may_look_at_real_data(author_tree: Path) -> None:
    edit(
        author_tree,
        "# %% [markdown]\n# Tensors add up",
        "# %%\nfrom tito import data\n\n# %% [markdown]\n# Tensors add up",
    )
    assert said_of(author_tree) == []


@pytest.mark.parametrize(
    "line",
    ["from tinytorch.core.setup import environment_report", "import titovka, tinytorch", "%matplotlib inline"],
)
def test_what_may_stand_in_a_cell(author_tree: Path, line: str) -> None:
    edit(author_tree, TEST, f"{line}\n{TEST}")
    assert said_of(author_tree) == []
