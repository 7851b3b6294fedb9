"""What nbgrader says while it works: kept in a file, off the screen, and searched for what befell a submission."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tito.grading.findings import Findings, Kind, collect

LOG_FILE = "nbgrader.log"
FINDING = "finding"  # the attribute of a log record that tells an instructor what befell a submission, and its kind

_RAISED = re.compile(r"(?m)^[A-Za-z_][\w.]*: (.+)$")  # the end of a traceback


@contextmanager
def quietly(root: Path) -> Iterator[Path]:
    """Append all that is logged to ``nbgrader.log`` in ``root`` instead of showing it; gives the file's path."""
    path = root / LOG_FILE
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    everything, traitlets = logging.getLogger(), logging.getLogger("traitlets")
    level = traitlets.level
    everything.addHandler(handler)
    traitlets.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield path
    finally:
        logging.captureWarnings(False)
        traitlets.setLevel(level)
        everything.removeHandler(handler)
        handler.close()


class Ear(logging.Handler):
    """Hears, while it is entered, what an instructor should know of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.problem = ""
        self._found: list[tuple[Kind, str]] = []

    @property
    def findings(self) -> Findings:
        return collect(self._found)

    def emit(self, record: logging.LogRecord) -> None:
        self._found += filter(None, [getattr(record, FINDING, None)])
        message = record.getMessage()
        if record.levelno >= logging.ERROR and message.startswith("Traceback"):
            self.problem = (_RAISED.findall(message) or [message.splitlines()[-1]])[-1]

    def __enter__(self) -> Ear:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
