"""settings.ini, which tito reads, and pyproject.toml, which nbdev and pip read, say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tito.course import Course

REPOSITORY = Path(__file__).parents[2]


def test_nbdev_paths_agree():
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert dict(Course(REPOSITORY).settings["nbdev"]) == pyproject["tool"]["nbdev"]


def test_the_settings_can_be_used():
    course = Course(REPOSITORY)
    assert not course.is_workspace
    assert course.library == REPOSITORY / "tinytorch"
    assert course.limits.cell_seconds <= course.limits.notebook_seconds
    assert course.limits.cell_output_bytes <= course.limits.notebook_output_bytes
