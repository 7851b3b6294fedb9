"""A grader told to end before its sandbox was ready tidied up only what was ready, and left the half-made folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path

from tito.course import Course
from tito.grading.graders import Task, run_ahead

root, notebook = map(Path, sys.argv[1:])
list(run_ahead(Course(root), [Task("02", notebook, notebook, notebook)], b"secret", jobs=1, isolation=True))
"""


def test_a_grader_ended_while_it_prepares_leaves_no_folder(tmp_path: Path) -> None:
    notebook = tmp_path / "tensor.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), notebook)
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:  # not below tmp_path: a socket's path must be short
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(ROOT), str(notebook)],
            env=os.environ | {"TMPDIR": temporary, "PYTHONPATH": str(ROOT)},
        )
        deadline = time.monotonic() + 60
        while not list(Path(temporary).glob("tito-sandbox-*/*")):
            assert process.poll() is None and time.monotonic() < deadline, "it prepares a folder"
            time.sleep(0.001)
        begun = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(begun, timeout=30)
        assert begun and not alive
        assert list(Path(temporary).glob("tito-*")) == []
