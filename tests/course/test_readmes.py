"""Each module's README: its parts are there, and its example runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tito.course import Course, Module

ROOT = Path(__file__).parents[2]
MODULES = Course(ROOT).modules


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.slug)
def test_the_usage_example_runs(module: Module, tmp_path: Path) -> None:
    text = (module.folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks, "there is no usage example"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.slug)
def test_the_parts_are_there(module: Module) -> None:
    text = (module.folder / "README.md").read_text(encoding="utf-8").lower()
    assert text.startswith(f"# {module.nn} {module.title.lower()}")
    for part in (
        "what you'll learn",
        "core implementations",
        "systems concepts",
        "performance",
        "usage",
        "prerequisites",
    ):
        assert part in text, part
    for heading in ("time", "next steps"):
        assert re.search(rf"^## .*{heading}", text, re.MULTILINE), heading
    assert f"tito module complete {module.nn}" in text


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.slug)
def test_links_lead_to_files_that_students_get_too(module: Module) -> None:
    text = (module.folder / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (module.folder / link).resolve().exists(), link
        assert Path(link).name in ("README.md", "module.yaml") or (module.folder / link).is_dir(), link
