"""The process in which a module's notebook runs, and from which its variants are forked.

It reads one job as JSON and writes one line of JSON for each outcome. The notebook's cells run here once, solved. At
an exercise that a variant changes, a forked child takes over, runs the variant's cell and those after it, and reports
which tests failed. So a variant costs only the cells after its change, and leaves nothing behind for the next.
"""

from __future__ import annotations

import codeop
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from tito.audit import lazy

_MEMORY_BYTES = 4 << 30
_SLOWER = 5  # a cell may take this many times as long as with the solution, and the seconds below
_EXTRA_SECONDS = 2.0
_SHOWN = 200  # characters of a failure's message


class _TimeLimit(BaseException):
    """A cell used up its processor time."""


@dataclass
class _Cell:
    id: str
    source: str
    is_test: bool
    seconds: float | None = None  # with the solution


@dataclass(frozen=True)
class _Variant:
    """``changes``: the source that stands in the place of a cell's, by its position."""

    id: int
    first: int
    last: int
    changes: dict[int, str]
    answer: str
    stop_at_failure: bool


@dataclass
class _Notebook:
    """The cells, and the namespace they run in."""

    cells: list[_Cell]
    main: ModuleType = field(default_factory=lambda: ModuleType("__main__"))
    compile: codeop.Compile = field(default_factory=codeop.Compile)  # remembers `from __future__` between cells

    def run(self, cell: _Cell, source: str, hard_seconds: int) -> str:
        """Run ``source`` as the cell; what went wrong in a line, or an empty text."""
        if cell.seconds is not None:
            signal.setitimer(signal.ITIMER_PROF, _EXTRA_SECONDS + _SLOWER * cell.seconds)
        signal.alarm(hard_seconds)  # not caught: for what sleeps, or never comes back from C
        try:
            exec(self.compile(source, cell.id, "exec"), vars(self.main))
        except BaseException as error:  # a student's code may raise anything, SystemExit too
            return f"{type(error).__name__}: {error}"[:_SHOWN]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        return ""


def _play(notebook: _Notebook, variant: _Variant, hard_seconds: int, report: IO[str]) -> None:
    """Run a variant's cells, and write a line for each test."""
    if variant.answer:
        vars(notebook.main)[lazy.CALL] = lazy.answer(variant.answer, vars(notebook.main))
    for position in range(variant.first, variant.last + 1):
        cell = notebook.cells[position]
        begin = time.process_time()
        problem = notebook.run(cell, variant.changes.get(position, cell.source), hard_seconds)
        line = {"position": position, "problem": problem, "seconds": time.process_time() - begin}
        report.write(json.dumps(line) + "\n")
        report.flush()
        if problem and cell.is_test and variant.stop_at_failure:
            return


class _Children:
    """The forked variants that run now, ``jobs`` of them at most."""

    def __init__(self, notebook: _Notebook, jobs: int, hard_seconds: int) -> None:
        self.notebook = notebook
        self.jobs = jobs
        self.hard_seconds = hard_seconds
        self.running: dict[int, tuple[_Variant, IO[str]]] = {}

    def start(self, variant: _Variant) -> None:
        report = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed when the child has ended)
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
                _play(self.notebook, variant, self.hard_seconds, report)
            os._exit(0)
        self.running[pid] = variant, report

    def finish(self, at_most: int) -> Iterator[dict[str, Any]]:
        """The outcomes of variants that ended, until no more than ``at_most`` run."""
        while len(self.running) > at_most:
            pid, status = os.wait()
            variant, report = self.running.pop(pid)
            with report:
                report.seek(0)
                lines = [json.loads(line) for line in report]
            yield {"variant": variant.id, "died": status != 0, "cells": lines}


def _outcomes(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The outcome of the solved notebook, and then, if all its tests pass, of every variant."""
    notebook = _Notebook([_Cell(**cell) for cell in job["cells"]])
    sys.modules["__main__"] = notebook.main
    hard_seconds = job["hard_seconds"]
    children = _Children(notebook, job["jobs"], hard_seconds)
    last = len(notebook.cells) - 1
    children.start(_Variant(-1, 0, last, {}, "", False))
    solved = next(children.finish(0))
    yield solved
    if solved["died"] or any(line["problem"] for line in solved["cells"]):
        return
    for line in solved["cells"]:
        notebook.cells[line["position"]].seconds = line["seconds"]
    waiting: dict[int, list[_Variant]] = {}
    for fields in job["variants"]:
        fields["changes"] = {int(position): source for position, source in fields["changes"].items()}
        waiting.setdefault(fields["first"], []).append(_Variant(**fields))
    for position, cell in enumerate(notebook.cells):
        gc.collect()
        gc.freeze()  # a child's collector then leaves the pages alone that it shares with its parent
        for variant in waiting.get(position, []):
            children.start(variant)
            yield from children.finish(children.jobs - 1)
        notebook.run(cell, cell.source, hard_seconds)
    yield from children.finish(0)


def _time_is_up(*_: object) -> None:
    raise _TimeLimit("the cell ran too long")


def main() -> None:
    """Do the job that stands on standard input; cells print to nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    job = json.load(sys.stdin)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _time_is_up)
    try:
        with tempfile.TemporaryDirectory(prefix="tito-audit-") as folder:
            os.chdir(folder)
            for outcome in _outcomes(job):
                out.write(json.dumps(outcome) + "\n")
                out.flush()
            os.chdir(Path(folder).parent)
    except BaseException:
        out.write(json.dumps({"error": traceback.format_exc()}) + "\n")
    out.close()


if __name__ == "__main__":
    main()
