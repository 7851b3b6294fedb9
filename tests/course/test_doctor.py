"""``tito doctor``: it finds what is well, and says how to mend what is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tito.course import Course
from tito.doctor import folders

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_machine_that_is_well(author_tree: Path, run_tito: RunTito) -> None:
    done = run_tito(author_tree, "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks: list[dict[str, Any]] = json.loads(done.stdout)
    assert [check["name"] for check in checks if not check["ok"]] == []
    for requirement in map(Requirement, metadata.requires("tinytorch") or []):
        in_course = requirement.marker is None or requirement.marker.evaluate({"extra": "course"})
        assert in_course == any(check["name"] == requirement.name for check in checks)
    assert "Example: tito doctor" in run_tito(author_tree, "doctor", "--help").stdout


def test_what_is_missing_is_named_with_its_cure(author_tree: Path, run_tito: RunTito, tmp_path: Path) -> None:
    """An old NumPy, another folder's tinytorch, another Python's kernel, and no bubblewrap."""
    first = tmp_path / "first"
    (first / "numpy-1.26.4.dist-info").mkdir(parents=True)
    (first / "numpy-1.26.4.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
    shutil.copytree(author_tree / "tinytorch", first / "tinytorch")
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/gone/bin/python"], "display_name": "other", "language": "python"}))
    env = {
        "PYTHONPATH": os.pathsep.join([str(first), str(author_tree)]),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "PATH": str(Path(sys.executable).parent),
    }
    done = run_tito(author_tree, "doctor", **env)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    cures = {line[8:30].strip(): (line, next_line) for line, next_line in pairwise(lines) if "mend: " in next_line}
    assert set(cures) == {"numpy", "import tinytorch", "kernel in JupyterLab", "isolated grading"}
    assert "1.26.4, but the course needs <3,>=2.0" in cures["numpy"][0] and "pip install" in cures["numpy"][1]
    assert str(first) in cures["import tinytorch"][0]
    assert "/gone/bin/python" in cures["kernel in JupyterLab"][0]
    assert "kernelspec remove python3" in cures["kernel in JupyterLab"][1]
    assert cures["isolated grading"][0].startswith("absent") and cures["numpy"][0].startswith("missing")
    assert "bubblewrap is not installed" in cures["isolated grading"][0]
    assert "apt-get install bubblewrap" in cures["isolated grading"][1]
    assert "Missing: numpy, import tinytorch, kernel in JupyterLab." in lines[-1]


def test_students_need_no_isolation(workspace: Path, run_tito: RunTito) -> None:
    names = [check["name"] for check in json.loads(run_tito(workspace, "doctor", "--json").stdout)]
    assert "kernel" in names and "isolated grading" not in names


@pytest.mark.parametrize(
    ("there", "missing"), [([], "tito's own packages are not installed"), (["click"], "yaml is not installed")]
)
def test_environment_without_the_course(author_tree: Path, tmp_path: Path, there: list[str], missing: str) -> None:
    """As after `pip install .` without the extra, or in the wrong environment."""
    for name in there:
        spec = find_spec(name)
        assert spec and spec.origin
        (tmp_path / name).symlink_to(Path(spec.origin).parent)
    path = os.pathsep.join([str(author_tree), str(tmp_path)])
    command = [sys.executable, "-S", "-m", "tito", "module", "list"]
    done = subprocess.run(
        command, cwd=author_tree, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert missing in done.stderr and "-m pip install" in done.stderr and "Traceback" not in done.stderr


def test_folder_that_cannot_be_written(author_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = author_tree / "modules"
    real = tempfile.TemporaryFile

    def refuse(*args: Any, **options: Any) -> Any:
        if options.get("dir") == locked:
            raise PermissionError(13, "Permission denied", str(locked))
        return real(*args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    checks = list(folders(Course(author_tree)))
    assert [check.ok for check in checks] == [False, True, True, True]
    assert f"{locked}: Permission denied" in checks[0].found and "chmod" in checks[0].mend
