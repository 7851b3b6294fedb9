"""Part I from its first module to its last milestone, as a student goes through it in a released workspace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat

from tests.course.notebooks import without_demonstrations
from tito.course import Course
from tito.grading.students import solved
from tito.milestones.catalogue import milestones

ROOT = Path(__file__).parents[2]
LAST = 8
RunTito = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_student_completes_part_one_and_reaches_its_milestones(tmp_path: Path, run_tito: RunTito) -> None:
    def tito(root: Path, *args: str | Path) -> str:
        done = run_tito(root, *args, timeout=600, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tito(ROOT, "release", tmp_path / "class")
    course = Course(tmp_path / "class")
    part_one = [module for module in course.modules if module.number <= LAST]
    offered = set()
    for module in part_one:
        notebook = without_demonstrations(solved(Course(ROOT).by_number(module.number)))
        nbformat.write(notebook, module.notebook)
        said = tito(course.root, "module", "complete", module.nn)
        assert f"{module.slug} is complete" in said
        offered |= {module.nn} if "Milestone: The perceptron (1957)" in said else set()
    assert min(offered) == "04"  # its tensors and layers are enough

    built = {path.stem for path in (course.library / "core").glob("[!_]*.py")}
    assert built == {module.name for module in part_one}
    for item in (item for item in milestones(course) if max(item.prerequisites) <= LAST):
        said = tito(course.root, "milestone", "run", item.nn)
        assert "met    " in said and "missed " not in said
    listed = json.loads(tito(course.root, "milestone", "list", "--json"))
    assert [item["state"] for item in listed[:3]] == ["reached"] * 3
