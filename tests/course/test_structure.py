"""The house rules that hold between files of this course: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tito.course import Course, Module
from tito.rules import broken_rules
from tito.source import read_notebook

ROOT = Path(__file__).parents[2]
COURSE = Course(ROOT)


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that ``tree`` imports, relative imports of the package included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"tinytorch.core.{node.module}" if node.level else str(node.module)


@pytest.mark.parametrize("module", COURSE.modules, ids=lambda module: module.slug)
def test_a_source_has_100_points_and_imports_what_is_there_already(module: Module) -> None:
    assert broken_rules(COURSE, module, read_notebook(module)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tinytorch").rglob("*.py")), ids=lambda path: path.name)
def test_the_package_imports_the_standard_library_and_numpy_alone(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "tinytorch"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazily = {"matplotlib"}  # inside a function that draws
    for name in imported(tree):
        assert name.partition(".")[0] in allowed | lazily, name


def test_every_part_can_be_imported_where_there_is_numpy_alone() -> None:
    names = ", ".join(module.import_name for module in COURSE.modules)
    program = f"""
import sys
class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "tinytorch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked)
import {names}, tinytorch.nn, tinytorch.optim, tinytorch.utils.data
assert tinytorch.nn.Linear is tinytorch.core.layers.Linear
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, env=_with_numpy(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _with_numpy() -> dict[str, str]:
    """An environment in which Python started without its site folder finds NumPy."""
    import numpy

    return {"PYTHONPATH": f"{ROOT}:{Path(numpy.__file__).parents[1]}"}
