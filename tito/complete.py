"""The end of ``tito module complete``: the module's own tests on the candidate, then the package and the record."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from tito.atomic import write_together
from tito.course import Course, Module
from tito.errors import TitoError
from tito.export import export, render
from tito.judge import Verdict
from tito.progress import Completed, digest, dump_progress, progress_file, read_progress
from tito.staging import stage_package

_SHOWN_LINES = 8


def candidate(course: Course, verdict: Verdict) -> str:
    """The text that the module's file in the package would have, made from the notebook that was judged."""
    module = verdict.module
    origin = module.notebook if course.is_workspace else module.source
    return render(course, module, verdict.notebook, origin.relative_to(course.root).as_posix())


def check_candidate(course: Course, module: Module, text: str) -> None:
    """Run the module's tests in ``tests/modules`` on ``text`` and the modules before it.

    Raises
    ------
    TitoError
        With the first test that fails and what it says.
    """
    if not module.test_file.is_file():
        raise TitoError(
            f"the tests of {module.slug} are missing",
            place=str(module.test_file),
            next_step="copy the folder tests/modules from the workspace you were given",
        )
    with tempfile.TemporaryDirectory(prefix="tito-", ignore_cleanup_errors=True) as folder:
        package = stage_package(course, module, Path(folder) / "package")
        staged = package / course.exported(module).relative_to(course.root)
        staged.write_text(text, encoding="utf-8")
        failure = _first_failure(course, module, package)
    if failure:
        what = "your notebook passes, but the file it makes does not" if course.is_workspace else "the file"
        raise TitoError(
            f"{what} pass its tests\n{failure}",
            place=module.test_file.relative_to(course.root).as_posix(),
            next_step=f"{_mend(failure)}, then: tito module complete {module.nn}",
        )


def _mend(failure: str) -> str:
    if "NameError" in failure or "NotImplementedError" in failure:
        return "begin every cell whose code the package needs with `#| export`, and write the solution in its own cell"
    return "mend it in the notebook, whose tests miss this case"


def _first_failure(course: Course, module: Module, package: Path) -> str:
    """Run pytest on the module's tests with the staged package; what failed first, empty if all passed."""
    report = package / "report.xml"
    seconds = course.limits.notebook_seconds
    options = ["-x", "-q", "--no-header", "--tb=short", "--color=no", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={course.root}", f"--junitxml={report}"]
    paths = [str(package), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [*command, str(module.test_file)],
            cwd=package,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"the tests ran longer than {seconds} s (notebook_seconds in settings.ini)"
    return "" if done.returncode == 0 else _reported(report) or _tail(done.stdout + done.stderr)


def _reported(report: Path) -> str:
    """The first failure in pytest's report: the test's name and its message."""
    if not report.is_file():
        return ""
    for case in ElementTree.parse(report).iter("testcase"):
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                message = found.get("message", "") if kind == "failure" else _tail(found.text or "")
                return f"{case.get('name')}: {_tail(message)}"
    return ""


def _tail(text: str) -> str:
    return "\n".join(text.strip().split("\n")[-_SHOWN_LINES:])


def accept(course: Course, module: Module, text: str) -> bool:
    """Put the candidate into the package and record the module as complete; True if the package changed.

    Raises
    ------
    OSError
        If a file cannot be written; then none has changed.
    """
    if not course.is_workspace:
        return bool(export(course, [module]))
    path, content = course.exported(module), text.encode("utf-8")
    changed = not path.is_file() or path.read_bytes() != content
    progress = read_progress(course)
    before = progress.completed.get(module.slug)
    if changed or before is None or before.sha256 != digest(content):
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        progress.completed[module.slug] = Completed(now, digest(content))
        write_together({path: content, progress_file(course): dump_progress(course, progress)})
    return changed
