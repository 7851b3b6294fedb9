"""Processes that run submissions side by side: they read, mend and run; recording is left to who started them.

A grader imports neither nbgrader nor the gradebook. One that dies, hangs or wants too much memory costs the submission
that it had in hand, and another takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tito.course import Course, Limits
from tito.errors import TitoError
from tito.grading.running import NEEDED, Runner, runner
from tito.grading.submission import digest, mend, read_submission, with_tests
from tito.outcome import RunResult

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from nbformat import NotebookNode

_MARGIN_SECONDS = 60  # besides notebook_seconds: to read and mend a notebook, to start and stop what runs it
_SECONDS_TO_TIDY = 5.0
_GRADER_BYTES = 2**30  # of memory that one grader may fill

_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Task:
    """A submission to run: its module, and where the notebooks are."""

    module: str
    notebook: Path
    release: Path
    source: Path


@dataclass(frozen=True)
class Outcome:
    """What running a submission gave, and the digest of what was run; or ``problem``, why it was not.

    ``fault`` is true of a problem of this machine, which another try may not have.
    """

    digest: str = ""
    result: RunResult | None = None
    problem: str = ""
    fault: bool = False


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def warm_up() -> None:
    """Begin to load in the background what graders need."""
    from multiprocessing import forkserver

    _context.set_forkserver_preload([__name__, *NEEDED])
    forkserver.ensure_running()


def run_ahead(
    course: Course, tasks: Sequence[Task], secret: bytes, *, jobs: int, isolation: bool
) -> Iterator[tuple[Task, Outcome]]:
    """Run ``tasks`` in ``jobs`` processes, and give each with its outcome as soon as that is known.

    Raises
    ------
    TitoError
        If this machine cannot run any of them as asked for.
    """
    warm_up()
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    done: queue.Queue[tuple[Task, Outcome | TitoError]] = queue.Queue(2 * jobs)  # or they would fill the memory
    about = (course.root, secret, isolation)
    desks = [_Desk(about, number, course.limits, waiting, done) for number in range(min(jobs, len(tasks)))]
    try:
        for desk in desks:
            desk.start()
        for _ in tasks:
            task, outcome = done.get()
            if isinstance(outcome, TitoError):
                raise outcome
            yield task, outcome
    finally:
        for desk in desks:
            desk.close()
        for desk in desks:
            desk.join()


class _Desk(threading.Thread):
    """Hands tasks to one grader after the other, and replaces it when it ends or hangs."""

    def __init__(
        self,
        about: tuple[Path, bytes, bool],
        number: int,
        limits: Limits,
        waiting: queue.SimpleQueue[Task],
        done: queue.Queue[tuple[Task, Outcome | TitoError]],
    ) -> None:
        super().__init__(daemon=True)
        self.about = about
        self.number = number
        self.seconds = limits.notebook_seconds + _MARGIN_SECONDS
        self.waiting = waiting
        self.done = done
        self.closed = False
        self.process: ForkServerProcess | None = None

    def run(self) -> None:
        with suppress(queue.Empty):
            while not self.closed:
                task = self.waiting.get_nowait()
                self._put((task, self._answer(task)))
        self.close()
        self._end(_SECONDS_TO_TIDY)

    def close(self) -> None:
        """Let the grader tidy up and end, whatever it is doing."""
        self.closed = True
        process = self.process
        if process:
            process.terminate()

    def _put(self, answered: tuple[Task, Outcome | TitoError]) -> None:
        while not self.closed:
            try:
                self.done.put(answered, timeout=1)
            except queue.Full:
                continue
            return

    def _answer(self, task: Task) -> Outcome | TitoError:
        try:
            if not (self.process and self.process.is_alive()):
                self._open()
        except Exception as error:
            return TitoError(f"no grader can be started: {str(error) or self._ending()}")
        try:
            answer = self._ask(task)
        except (EOFError, OSError):
            answer = Outcome(problem=f"the grader ended: {self._ending()}", fault=True)
        except Exception as error:
            answer = Outcome(problem=f"the grader's answer cannot be read: {error}", fault=True)
        if isinstance(answer, Outcome) and answer.fault:
            self._end()
        return answer

    def _ask(self, task: Task) -> Outcome | TitoError:
        self.connection.send(task)
        if not self.connection.poll(self.seconds):
            return Outcome(problem=f"the grader took more than {self.seconds} s and was ended", fault=True)
        answer: Outcome | TitoError = self.connection.recv()
        return answer

    def _open(self) -> None:
        self.connection, theirs = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(theirs, self.number, *self.about), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()  # it is there

    def _ending(self) -> str:
        """How the process ended by itself."""
        assert self.process
        self.process.join(5)
        code = self.process.exitcode
        if code is None:
            return "it answers no more"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _end(self, patience: float = 0) -> None:
        if self.process:
            self.process.join(patience)
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def _serve(connection: Connection, number: int, tree: Path, secret: bytes, isolation: bool) -> None:
    """What a grader does: it answers tasks with outcomes until nobody hands it any."""
    _stay_on_a_core(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    course = Course(tree)
    _limit_memory(course.limits)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with ExitStack() as stack, suppress(EOFError, OSError):
        grader = _Grader(course, secret, isolation, stack)
        connection.send(None)
        while True:
            connection.send(grader.grade(connection.recv()))


def _stay_on_a_core(number: int) -> None:
    """Keep the grader and what it starts on one core: they take turns, and so wake each other faster."""
    own = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {own[number % len(own)]})


def _limit_memory(limits: Limits) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    own = max(_GRADER_BYTES, limits.memory_mb * 2**20)  # what it starts for the student inherits it
    resource.setrlimit(resource.RLIMIT_DATA, (own, most))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_TIDY)
    os._exit(1)


def _leave(*_: object) -> NoReturn:
    """End from wherever the grader is, so that what was only half made is tidied up as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


class _Grader:
    """Runs submissions, and keeps in ``stack`` what those of one module have in common."""

    def __init__(self, course: Course, secret: bytes, isolation: bool, stack: ExitStack) -> None:
        self.course = course
        self.secret = secret
        self.isolation = isolation
        self.stack = stack
        self.module = ""

    def grade(self, task: Task) -> Outcome | TitoError:
        try:
            self._turn_to(task)
        except TitoError as error:
            return error
        try:
            notebook, _ = mend(read_submission(task.notebook), self.release)
            with_tests(notebook, self.source)
        except TitoError as error:
            return Outcome(problem=error.problem)
        except Exception as error:
            return Outcome(problem=f"the notebook cannot be mended: {_words(error)}")
        try:
            return Outcome(digest(notebook), self.run(notebook))
        except Exception as error:  # of the grader's own, or of the machine; the next submission must not feel it
            return Outcome(problem=f"the grader failed: {_words(error)}", fault=True)

    def _turn_to(self, task: Task) -> None:
        if task.module == self.module:
            return
        import nbformat

        self.stack.close()
        self.release: NotebookNode = nbformat.read(task.release, as_version=4)
        self.source: NotebookNode = nbformat.read(task.source, as_version=4)
        module = self.course.module(task.module)
        door = runner(self.course, module, self.source, self.secret, isolation=self.isolation)
        self.run: Runner = self.stack.enter_context(door)
        self.module = task.module
