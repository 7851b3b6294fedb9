"""A private copy of the package that stops before a module: what a notebook may import while it is judged."""

from __future__ import annotations

import shutil
from pathlib import Path

from tito.course import Course, Module

_IGNORE = shutil.ignore_patterns("__pycache__", "*.pyc", "_modidx.py")


def stage_package(course: Course, module: Module, into: Path) -> Path:
    """Copy ``tinytorch`` with the core modules before ``module`` only, and return the folder to put on the path.

    In the author's tree these are the reference modules; in a workspace they are the student's own.
    """
    target = into / course.library.name
    shutil.copytree(course.library, target, ignore=_IGNORE)
    allowed = {course.exported(other).name for other in course.before(module)} | {"__init__.py"}
    for path in (target / "core").iterdir():
        if path.is_dir():  # .ipynb_checkpoints, which JupyterLab makes where it saves a file
            shutil.rmtree(path)
        elif path.name not in allowed:
            path.unlink()
    return into
