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
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tito.course import Course
from tito.doctor import examine

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_machine_that_is_well(author_tree: Path, run_tito: RunTito) -> None:
    done = run_tito(author_tree, "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing" not in done.stdout and "Everything that the course needs is here." in done.stdout
    asked = [Requirement(line) for line in metadata.requires("tinytorch") or []]
    for requirement in asked:
        in_course = requirement.marker is None or requirement.marker.evaluate({"extra": "course"})
        assert in_course == any(line.split()[1] == requirement.name for line in done.stdout.splitlines()[:-2])
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
    done = run_tito(author_tree, "doctor", "--json", **env)
    assert done.returncode == 1, done.stdout + done.stderr
    bad: dict[str, dict[str, Any]] = {check["name"]: check for check in json.loads(done.stdout) if not check["ok"]}
    assert set(bad) == {"numpy", "import tinytorch", "kernel in JupyterLab", "bubblewrap"}
    assert "1.26.4, but the course needs <3,>=2.0" in bad["numpy"]["found"] and "pip install" in bad["numpy"]["mend"]
    assert str(first) in bad["import tinytorch"]["found"]
    assert "/gone/bin/python" in bad["kernel in JupyterLab"]["found"]
    assert "kernelspec remove python3" in bad["kernel in JupyterLab"]["mend"]
    assert bad["bubblewrap"]["needed"] is False and bad["numpy"]["needed"] is True

    shown = run_tito(author_tree, "doctor", **env)
    assert shown.returncode == 1
    assert "missing numpy" in shown.stdout and "absent  bubblewrap" in shown.stdout
    assert "Missing: numpy, import tinytorch, kernel in JupyterLab." in shown.stdout


def test_folder_that_cannot_be_written(author_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = author_tree / "modules"
    real = tempfile.TemporaryFile

    def refuse(*args: Any, **options: Any) -> Any:
        if options.get("dir") == locked:
            raise PermissionError(13, "Permission denied", str(locked))
        return real(*args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    checks = [check for check in examine(Course(author_tree)) if check.name == "write access"]
    assert [check.ok for check in checks] == [False, True, True, True]
    assert f"{locked}: Permission denied" in checks[0].found and "chmod" in checks[0].mend
