"""One run of a milestone's program: what has to be there before it begins, and what it leaves behind."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from tito.atomic import write_atomically
from tito.course import Course
from tito.data.store import ready
from tito.errors import TitoError
from tito.milestones.catalogue import Milestone, find
from tito.milestones.results import FILE, FORMAT, read_result
from tito.progress import read_progress, require_prerequisites
from tito.terminal import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_T = TypeVar("_T")
_STYLE = Path(__file__).with_name("figures.mplstyle")


def at_least(least: int) -> Callable[[str], int]:
    """For a parser's ``type``: what reads a whole number that is not smaller than ``least``."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return whole


def begin(program: str, parser: argparse.ArgumentParser) -> Run:
    """Begin a run of the milestone whose program is the file ``program``, with the arguments that ``parser`` knows.

    From here on ``import tinytorch`` gives the package of the course that the program lies in, figures are drawn into
    files, in the milestones' style, and a ``TitoError`` or Ctrl-C ends the program in words.

    Raises
    ------
    TitoError
        If a module that the milestone needs is not complete, data that it needs is not on this machine, or no results
        can be written.
    """
    settings = parser.parse_args()
    sys.excepthook = _tell
    folder = Path(program).resolve().parent
    course = Course.locate(folder)
    milestone = find(course, folder.name)
    require_prerequisites(course, milestone, read_progress(course))
    for name in milestone.data:
        ready(name)
    _make_folder(milestone.results)
    sys.path.insert(0, str(course.root))
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(_STYLE)}  # both are read when matplotlib is imported
    click.secho(f"{milestone.year}: {milestone.title}", bold=True)
    return Run(milestone, settings)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show what a person can mend without a traceback; what is wrong in their code, with it."""
    if isinstance(error, TitoError):
        click.echo(click.style("Error: ", fg="red", bold=True) + visible(str(error)), err=True)
    elif isinstance(error, KeyboardInterrupt):
        click.echo("\nStopped. No result was written.", err=True)
    else:
        sys.__excepthook__(kind, error, trace)


class Run:
    """What a milestone's program measures, draws and claims; ``finish`` writes it down.

    Attributes
    ----------
    settings
        The program's arguments, as its parser read them.
    folder
        Where the results go, ``results/01_1957_perceptron`` in the course. A program may keep more there, such as a
        checkpoint.
    """

    def __init__(self, milestone: Milestone, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.folder = milestone.results
        self._milestone = milestone
        self._measured: dict[str, Any] = {}
        self._goals: list[tuple[str, bool]] = []
        self._figures: list[str] = []
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the run has taken up to now."""
        return time.perf_counter() - self._began

    def progress(self, items: Iterable[_T], what: str) -> Iterator[_T]:
        """The ``items`` one by one, with a bar on the terminal that counts them; ``what`` stands before it."""
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(items, what, console=console, transient=True, disable=not console.is_terminal)

    def record(self, **measured: Any) -> None:
        """Keep measured figures, numbers or lists or arrays of them, for the result file."""
        self._measured |= measured

    def goal(self, text: str, met: bool) -> None:
        """Say, and keep, whether a goal was met."""
        self._goals.append((text, bool(met)))

    def save(self, figure: Figure, name: str) -> None:
        """Write a matplotlib figure to the file ``name`` in the results' folder."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format=Path(name).suffix.removeprefix("."))
        self._write(name, drawn.getvalue())
        self._figures.append(name)

    def finish(self) -> NoReturn:
        """Write ``result.json``, say which goals were met, and end: with status 0 if all were, and 1 otherwise."""
        met = all(reached for _, reached in self._goals)
        self._write(FILE, json.dumps(self._fields(met), indent=2, default=_plain) + "\n")
        click.echo()
        for text, reached in self._goals:
            click.echo(click.style("met    " if reached else "missed ", fg="green" if reached else "red") + text)
        shown = [self.folder / name for name in (*self._figures, FILE)]
        click.echo(f"\n{self.seconds:.1f} s. Look at " + ", ".join(os.path.relpath(path) for path in shown))
        sys.exit(0 if met else 1)

    def _fields(self, met: bool) -> dict[str, Any]:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        before = read_result(self.folder)
        return {
            "format": FORMAT,
            "milestone": self._milestone.slug,
            "at": now,
            "met": met,
            "reached_at": (before and before.reached_at) or (now if met else None),
            "goals": [{"goal": text, "met": reached} for text, reached in self._goals],
            "measured": self._measured,
            "settings": vars(self.settings),
            "seconds": round(self.seconds, 2),
            "figures": self._figures,
            "versions": _versions(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        }

    def _write(self, name: str, content: str | bytes) -> None:
        try:
            write_atomically(self.folder / name, content)
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> TitoError:
    return TitoError(
        f"the results cannot be written: {error.strerror or error}",
        place=str(folder),
        next_step="look at the folder's permissions and at the free space (df -h), then run it again",
    )


def _plain(value: Any) -> Any:
    """A NumPy array or number as JSON can hold it."""
    return value.tolist()


def _versions() -> dict[str, str]:
    import numpy as np

    import tinytorch

    return {"python": platform.python_version(), "numpy": np.__version__, "tinytorch": tinytorch.__version__}
