"""A tiny course for the tests of the tool: this repository's own tool and faces, with three modules of a few lines."""

from __future__ import annotations

import compileall
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

from tests.preloaded import PRELOADED

# what a script runs in the background ignores Ctrl-C, and so would the commands that the tests stop
signal.signal(signal.SIGINT, signal.default_int_handler)
# what a command leaves in a tree is compared with what was there before
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

REPOSITORY = Path(__file__).parents[2]
FILES = ("settings.ini", "pyproject.toml", "constraints.txt", "LICENSE", "README.md")
RunTito = Callable[..., "subprocess.CompletedProcess[str]"]

HEADER = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---
"""


def _mark(grade_id: str, points: int | None, solution: bool) -> str:
    """The nbgrader metadata of a cell, as it stands on the cell's first line."""
    if not grade_id:
        return ""
    fields = {"grade": points is not None, "grade_id": grade_id, "locked": not solution}
    fields |= {"points": points} if points is not None else {}
    return " nbgrader=" + json.dumps(fields | {"schema_version": 3, "solution": solution, "task": False})


def code(source: str, grade_id: str = "", *, points: int | None = None, solution: bool = False) -> str:
    """A code cell in percent format."""
    return f"# %%{_mark(grade_id, points, solution)}\n{dedent(source).strip()}\n"


def prose(text: str, grade_id: str = "", *, points: int | None = None) -> str:
    """A markdown cell in percent format; with points it is a reflection question."""
    lines = indent(dedent(text).strip(), "# ", lambda line: True).replace("# \n", "#\n")
    return f"# %% [markdown]{_mark(grade_id, points, points is not None)}\n{lines}\n"


SETUP = [
    prose("""
        # Setup

        > The machine, and a first function.

        Welcome to the tiny course.
        """),
    code("""
        #| default_exp core.setup
        #| export
        import platform
        """),
    code(
        '''
        #| export
        def environment_report() -> dict[str, str]:
            """What this machine is.

            TODO: return the name of the operating system.

            APPROACH:
            1. ask `platform`

            EXAMPLE:
            >>> environment_report()
            {'system': 'Linux'}

            HINT: `platform.system` is a function.
            """
            ### BEGIN SOLUTION
            kernel_name = platform.system()
            return {"system": kernel_name}
            ### END SOLUTION
        ''',
        "setup-report",
        solution=True,
    ),
    code(
        """
        def test_environment_report():
            report = environment_report()
            assert type(report) is dict, f"expected a dict, got {type(report).__name__}"
            ### BEGIN HIDDEN TESTS
            hidden_expected_system = platform.system()
            assert report["system"] == hidden_expected_system, "the system is wrong"
            ### END HIDDEN TESTS

        test_environment_report()
        """,
        "test-setup-report",
        points=100,
    ),
]

TENSOR = [
    prose("""
        # Tensor

        > An array with the operations that networks are made of.

        A tensor wraps a NumPy array.
        """),
    code("""
        #| default_exp core.tensor
        #| export
        import numpy as np
        """),
    code(
        '''
        #| export
        class Tensor:
            """An array of float32.

            TODO: keep `values` as a float32 array in `data`.

            APPROACH:
            1. convert
            2. store

            EXAMPLE:
            >>> Tensor([1, 2]).data
            array([1., 2.], dtype=float32)

            HINT: `np.asarray` takes a dtype.
            """

            def __init__(self, values) -> None:
                ### BEGIN SOLUTION
                self.data = np.asarray(values, dtype=np.float32)
                ### END SOLUTION

            def __repr__(self) -> str:
                return f"Tensor({self.data.tolist()})"
        ''',
        "tensor-class",
        solution=True,
    ),
    code(
        """
        from tito.testing import close

        def test_tensor():
            close(Tensor([1, 2]).data, [1.0, 2.0], "keep the values in .data", dtype=np.float32)
            ### BEGIN HIDDEN TESTS
            hidden_draw = np.random.default_rng().normal(size=(3, 2))
            close(Tensor(hidden_draw).data, hidden_draw, "any shape", rtol=1e-4)
            ### END HIDDEN TESTS

        test_tensor()
        """,
        "test-tensor-class",
        points=40,
    ),
    prose("Tensors add up value by value."),
    code(
        '''
        #| export
        def add(left: Tensor, right: Tensor) -> Tensor:
            """The sum of two tensors, value by value.

            TODO: add the arrays and wrap the result.

            APPROACH:
            1. take `.data` of both
            2. add

            EXAMPLE:
            >>> add(Tensor([1]), Tensor([2]))
            Tensor([3.0])

            HINT: NumPy's `+` broadcasts.
            """
            ### BEGIN SOLUTION
            added_values = left.data + right.data
            return Tensor(added_values)
            ### END SOLUTION
        ''',
        "tensor-add",
        solution=True,
    ),
    code(
        """
        def test_add():
            close(add(Tensor([1]), Tensor([2])).data, [3.0], "add the arrays")
            ### BEGIN HIDDEN TESTS
            hidden_pair = np.random.default_rng().normal(size=(2, 4)).astype(np.float32)
            close(add(Tensor(hidden_pair[0]), Tensor(hidden_pair[1])).data, hidden_pair.sum(axis=0), "any values")
            ### END HIDDEN TESTS

        test_add()
        """,
        "test-tensor-add",
        points=40,
    ),
    prose(
        """
        How much memory do a million values take?

        === BEGIN MARK SCHEME ===
        Full marks for four megabytes with the reason.
        === END MARK SCHEME ===
        """,
        "tensor-memory-question",
    ),
    prose(
        """
        ### BEGIN SOLUTION
        Each float32 takes four bytes, so four megabytes.
        ### END SOLUTION
        """,
        "tensor-memory",
        points=20,
    ),
]

AUTOGRAD = [
    prose("""
        # Autograd

        > Slopes, by finite differences.
        """),
    code("""
        #| default_exp core.autograd
        #| export
        from collections.abc import Callable

        from tinytorch.core.tensor import Tensor
        """),
    code(
        '''
        #| export
        def slope(function: Callable[[Tensor], Tensor], at: float, step: float = 1e-2) -> float:
            """The slope of `function` at a point.

            TODO: the difference of two values, divided by the distance between them.

            APPROACH:
            1. one step to each side
            2. divide

            EXAMPLE:
            >>> slope(lambda x: x, 0.0)
            1.0

            HINT: the distance is two steps.
            """
            ### BEGIN SOLUTION
            rise = function(Tensor(at + step)).data - function(Tensor(at - step)).data
            return float(rise / (2 * step))
            ### END SOLUTION
        ''',
        "autograd-slope",
        solution=True,
    ),
    code(
        """
        from tito.testing import close

        def test_slope():
            close(slope(lambda x: x, 0.0), 1.0, "divide by two steps", rtol=1e-3)
            ### BEGIN HIDDEN TESTS
            close(slope(lambda x: Tensor(x.data * x.data), 3.0), 6.0, "hidden square", rtol=1e-3)
            ### END HIDDEN TESTS

        test_slope()
        """,
        "test-autograd-slope",
        points=100,
    ),
]

# folder -> (prerequisites, exported names, cells, the module's tests of the exported file)
MODULES: dict[str, tuple[list[int], list[str], list[str], str]] = {
    "01_setup": (
        [],
        ["environment_report"],
        SETUP,
        """
        from tinytorch.core.setup import environment_report


        def test_report_has_the_system():
            assert environment_report()["system"]
        """,
    ),
    "02_tensor": (
        [1],
        ["Tensor", "add"],
        TENSOR,
        """
        import numpy as np

        from tinytorch.core.tensor import Tensor, add


        def test_addition_broadcasts():
            assert add(Tensor([[1], [2]]), Tensor([10, 20])).data.shape == (2, 2)


        def test_float32():
            assert Tensor([1]).data.dtype == np.float32
        """,
    ),
    "06_autograd": (
        [1, 2],
        ["slope"],
        AUTOGRAD,
        """
        from tinytorch.core.autograd import slope


        def test_a_constant_is_flat():
            assert slope(lambda x: type(x)(1.0), 2.0) == 0.0
        """,
    ),
}

HINTS = {
    "01_setup": """
        setup-report:
          question: Which module of Python's own knows the name of the system?
          method: Ask it, and put the answer under its key.
          code: |
            name = ...
            return {"system": ...}
        """,
    "02_tensor": """
        tensor-class:
          question: Of what dtype is an array made of a list of whole numbers?
          method: Convert once, on the way in.
          code: |
            self.data = np.asarray(values, ...)
        tensor-add:
          question: What does `add` return, an array or a Tensor?
          method: Add the arrays, then wrap.
          code: |
            return Tensor(... + ...)
        """,
    "06_autograd": """
        autograd-slope:
          question: How far apart are the two points?
          method: Divide the difference by that.
          code: |
            rise = ...
            return float(rise / ...)
        """,
}


def _write_module(root: Path, slug: str) -> None:
    prerequisites, exports, cells, tests = MODULES[slug]
    number, _, name = slug.partition("_")
    folder = root / "modules" / slug
    folder.mkdir(parents=True)
    (folder / f"{name}_dev.py").write_text(HEADER + "\n" + "\n".join(cells), encoding="utf-8")
    (folder / "README.md").write_text(f"# {name.capitalize()}\n\nA module of the tiny course.\n", encoding="utf-8")
    (folder / "module.yaml").write_text(
        f"number: {int(number)}\ntitle: {name.capitalize()}\npart: Foundations\n"
        f"prerequisites: {prerequisites}\nexports: [{', '.join(exports)}]\nhours: 2\n",
        encoding="utf-8",
    )
    (folder / "hints.yaml").write_text(dedent(HINTS[slug]).lstrip(), encoding="utf-8")
    test_file = root / "tests" / "modules" / f"test_{slug}.py"
    test_file.parent.mkdir(parents=True, exist_ok=True)
    test_file.write_text(dedent(tests).lstrip(), encoding="utf-8")


def _write_author_tree(root: Path) -> None:
    root.mkdir(parents=True)
    for name in FILES:
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, root / name)
    for name in ("tito", "tinytorch"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tinytorch" / "_modidx.py").unlink(missing_ok=True)
    for generated in (root / "tinytorch" / "core").glob("*.py"):
        if generated.name != "__init__.py":
            generated.unlink()
    for slug in MODULES:
        _write_module(root, slug)
    _compile(root)


def _compile(root: Path) -> None:
    """Make the bytecode of the tool in a tree that is to be copied, or each command in a copy would make its own."""
    compileall.compile_dir(root / "tito", quiet=1)


def _run_tito(
    root: Path, *args: str | Path, cwd: Path | None = None, timeout: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    words, own = [str(arg) for arg in args], {"PYTHONPATH": str(root), "COLUMNS": "120"}
    if any(name.startswith("PYTHON") for name in env):  # Python reads it when it starts
        command = [sys.executable, "-m", "tito", *words]
        return subprocess.run(
            command, cwd=cwd or root, env=os.environ | own | env, capture_output=True, text=True, timeout=timeout
        )
    return PRELOADED.run("tito", words, cwd=cwd or root, env=os.environ | own | env, timeout=timeout)


@pytest.fixture(scope="session")
def run_tito() -> RunTito:
    """``run_tito(root, "export", "02", NAME="value")``: the ``tito`` of the tree ``root``, run in it as a person would.

    ``cwd=`` runs it from another folder; other keywords become environment variables. Its process has the libraries
    already: see preloaded.py.
    """
    return _run_tito


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written") / "author"
    _write_author_tree(root)
    return root


@pytest.fixture
def author_tree(_written: Path, tmp_path: Path) -> Path:
    """A fresh author's tree with the modules 01_setup, 02_tensor and 06_autograd, none of them exported."""
    return shutil.copytree(_written, tmp_path / "author")


@pytest.fixture(scope="session")
def _exported(_written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(_written, tmp_path_factory.mktemp("exported") / "author")
    done = _run_tito(root, "export")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def exported_tree(_exported: Path, tmp_path: Path) -> Path:
    """A fresh author's tree whose modules are exported."""
    root = tmp_path / "exported"
    shutil.copytree(_exported, root)
    return root


@pytest.fixture(scope="session")
def _released(_written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    shutil.copytree(_written, folder / "author")
    done = _run_tito(folder / "author", "release", folder / "class")
    assert done.returncode == 0, done.stderr
    _compile(folder / "class")
    return folder / "class"


@pytest.fixture
def workspace(_released: Path, tmp_path: Path) -> Path:
    """A fresh student's workspace: the release of the tiny course."""
    root = tmp_path / "class"
    shutil.copytree(_released, root, symlinks=True)
    return root


@pytest.fixture(scope="module")
def tree(_exported: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The author's tree of the tiny course, exported; its cells may run for the CELL_SECONDS of the test's module."""
    root = tmp_path_factory.mktemp("grading") / "author"
    shutil.copytree(_exported, root)
    settings = root / "settings.ini"
    seconds = f"cell_seconds = {request.module.CELL_SECONDS}"
    settings.write_text(re.sub(r"(?m)^cell_seconds = .*", seconds, settings.read_text(encoding="utf-8")))
    return root


@pytest.fixture(scope="module")
def assigned(tree: Path, run_tito: RunTito) -> Path:
    """A course directory with an assignment, module 02, that nobody has handed in."""
    root = tree.parent / "assigned"
    for command in (["init", root], ["generate", "02", "--course", root]):
        done = run_tito(tree, "nbgrader", *command)
        assert done.returncode == 0, done.stderr
    return root
