"""The one door through which student code is run for a grade."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tito.course import Course, Module
from tito.grading.submission import digest
from tito.outcome import RunResult

if TYPE_CHECKING:
    from nbformat import NotebookNode

Runner = Callable[["NotebookNode"], RunResult]

# what a process that shall run notebooks soon should have imported
NEEDED = ["nbformat", "numpy", "tito.grading.isolated.run"]


@contextmanager
def runner(course: Course, module: Module, source: NotebookNode, secret: bytes, *, isolation: bool) -> Iterator[Runner]:
    """What runs notebooks of ``module``, one after the other; ``source`` is the author's, as it was released.

    The random numbers of hidden tests come from ``secret`` and the notebook: grading again gives the same scores, and
    who does not know the secret cannot foresee them.

    Raises
    ------
    TitoError
        If this machine cannot isolate student code, and ``isolation`` is asked for.
    """
    from tito.grading.isolated.run import Isolated

    with Isolated(course, module, source, isolation=isolation) as isolated:
        yield lambda notebook: isolated.run(notebook, hmac.digest(secret, digest(notebook).encode(), hashlib.sha256))


def run(
    course: Course, module: Module, source: NotebookNode, notebook: NotebookNode, secret: bytes, *, isolation: bool
) -> RunResult:
    """Run one notebook; see ``runner``."""
    with runner(course, module, source, secret, isolation=isolation) as run_one:
        return run_one(notebook)


def secret_of(root: Path) -> bytes:
    """The secret of the course directory ``root``, which is made when it is first asked for."""
    path = root / ".tito" / "secret"
    path.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(32))
    return path.read_bytes()
