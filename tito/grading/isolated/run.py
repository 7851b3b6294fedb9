"""Running a submission for a grade: its own cells in a sandbox, the released tests here."""

from __future__ import annotations

import ast
import os
import textwrap
import time
from copy import deepcopy
from functools import cached_property, lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import nbformat.v4 as nbv4

from tito.course import Course, Module
from tito.grading.isolated.inside.wire import Channel
from tito.grading.isolated.plan import names_of, needed
from tito.grading.isolated.sandbox import Sandbox, Worker
from tito.grading.isolated.session import Session, Trace, WorkerLostError
from tito.grading.isolated.testcells import Failure, TestCells, failure, file_of
from tito.outcome import CellResult, RunResult, Status, is_test
from tito.source import code_cells, grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode

_MOST_WORKERS = 8  # a notebook that ends more of them is given up
_EXPORTED = "#|"
_MOST_LINES = 8  # of a statement that is shown


class Isolated:
    """Where submissions of one module are graded, one after the other; a context manager.

    Raises
    ------
    TitoError
        On entering it, if there can be no sandbox here, and ``isolation`` is wanted.
    """

    def __init__(self, course: Course, module: Module, source: NotebookNode, *, isolation: bool = True) -> None:
        """
        Parameters
        ----------
        source
            The author's notebook as it was released, with its solutions and hidden tests.
        """
        self.course = course
        self.source = source
        self.sandbox = Sandbox(course, module, isolation=isolation)
        self.trace: Trace | None = None

    def __enter__(self) -> Self:
        self.sandbox.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sandbox.__exit__(kind, error, at)

    def run(self, notebook: NotebookNode, seed: bytes | None = None) -> RunResult:
        """Run ``notebook``, whose tests are those of the release; the argument stays as it is.

        Parameters
        ----------
        seed
            What the tests draw their random numbers from, so that grading again gives the same; None for chance.
        """
        if self.trace is None:
            trace = Trace(learning=True)
            _Run(self, self.source, trace, os.urandom(16)).play()
            trace.learning = False  # only then is it ours: it must not learn from a student
            self.trace = trace
        return _Run(self, notebook, self.trace, seed or os.urandom(16)).play()

    @cached_property
    def demonstrations(self) -> frozenset[str]:
        """The ids and texts of the release's cells that neither make up the module nor are graded."""
        cells = [cell for cell in code_cells(self.source) if not grade_info(cell)]
        return frozenset(
            name for cell in cells if not cell.source.startswith(_EXPORTED) for name in (cell.id, cell.source.strip())
        )

    @cached_property
    def given(self) -> list[str]:
        """The cells of the release that students do not write."""
        return [cell.source for cell in code_cells(self.source) if not grade_info(cell).get("solution")]

    @cached_property
    def course_names(self) -> frozenset[str]:
        """The names that the module's own cells bind."""
        cells = (cell for cell in code_cells(self.source) if not is_test(cell))
        return frozenset().union(*(names_of(cell.source).binds for cell in cells))


class _Run:
    """One submission being run."""

    def __init__(self, isolated: Isolated, notebook: NotebookNode, trace: Trace, seed: bytes) -> None:
        self.isolated = isolated
        self.limits = isolated.course.limits
        self.notebook = deepcopy(notebook)
        self.trace = trace
        self.begin = time.monotonic()
        self.deadline = self.begin + self.limits.notebook_seconds
        self.worker: Worker | None = None
        self.session: Session | None = None
        self.started = 0
        self.spent = 0.0  # CPU seconds of the workers that are gone
        self.ran: list[NotebookNode] = []  # in the worker; in the next one they run again
        self.room = self.limits.notebook_output_bytes
        self.tests = TestCells(isolated.course_names, seed, self._cpu_seconds)

    def play(self) -> RunResult:
        cells = list(code_cells(self.notebook))
        optional = [not grade_info(cell) and self._is_demonstration(cell) for cell in cells]
        runs = needed([_readable(cell.source) for cell in cells], optional)
        for cell in cells:
            cell.outputs, cell.execution_count = [], None
        for source in self.isolated.given:
            self.tests.run_imports(source)
        self._start()
        try:
            outcomes = [self._cell(cell, runs[place]) for place, cell in enumerate(cells)]
        finally:
            self._end()
        return RunResult(tuple(outcomes), self.notebook, time.monotonic() - self.begin)

    def _is_demonstration(self, cell: NotebookNode) -> bool:
        return bool({cell.id, cell.source.strip()} & self.isolated.demonstrations)

    def _cell(self, cell: NotebookNode, runs: bool) -> CellResult:
        begin = time.monotonic()
        status: Status
        if is_test(cell):
            self.tests.withhold(cell.source)
        status, failed = self._guarded(cell) if runs else ("ok", None)
        return self._result(cell, status, failed, time.monotonic() - begin)

    def _guarded(self, cell: NotebookNode) -> tuple[Status, Failure | None]:
        """Run a cell; what became of it, whatever it does to the worker."""
        if self.started >= _MOST_WORKERS or time.monotonic() > self.deadline:
            why = f"the notebook's {self.limits.notebook_seconds} s are used up (notebook_seconds in settings.ini)"
            if self.started >= _MOST_WORKERS:
                why = f"its cells ended the process {_MOST_WORKERS} times"
            return "not run", Failure("NotRun", why, ())
        try:
            session = self._ready()
            session.deadline = min(time.monotonic() + self._most_seconds(), self.deadline)
            failed = self._test(cell) if is_test(cell) else self._own(session, cell)
        except WorkerLostError as lost:
            return self._lost(lost)
        return ("error" if failed else "ok"), failed

    def _most_seconds(self) -> float:
        """How long a cell may run; the solution may take longer, since what is not learned from it is believed."""
        return self.limits.notebook_seconds if self.trace.learning else self.limits.cell_seconds

    def _test(self, cell: NotebookNode) -> Failure | None:
        failed = self.tests.run(cell.id, cell.source)
        self._print(cell)
        return failed

    def _own(self, session: Session, cell: NotebookNode) -> Failure | None:
        """Run a cell that is no test where the student's code is."""
        error = _run_there(session, cell, self.limits.cell_output_bytes)
        self.ran.append(cell)
        self._print(cell)
        return failure(error) if isinstance(error, BaseException) else None

    def _print(self, cell: NotebookNode) -> None:
        assert self.session is not None
        printed = self.session.call("printed")
        if type(printed) is not list or [type(part) for part in printed] != [str, int]:
            raise self.session.lose("malformed", "an output that is none")
        text, lost = printed
        kept = text.encode(errors="replace")[: self.room].decode(errors="ignore")
        self.room -= len(kept.encode(errors="replace"))
        if lost or len(kept) < len(text):
            kept += f"\n[output cut here: over {self.limits.cell_output_bytes:,} bytes]\n"
        if kept:
            cell.outputs.append(nbv4.new_output("stream", name="stdout", text=kept))

    def _ready(self) -> Session:
        """The session with a worker in which all cells before this one have run."""
        if self.session is None:
            self._start()
            session = self._session()
            for cell in self.ran:
                session.deadline = min(time.monotonic() + self.limits.cell_seconds, self.deadline)
                _run_there(session, cell, 0)
        return self._session()

    def _session(self) -> Session:
        assert self.session is not None
        return self.session

    def _start(self) -> None:
        self.worker = self.isolated.sandbox.start()
        self.started += 1
        self.session = self.tests.session = Session(Channel(self.worker.connection), self.trace)

    def _end(self) -> str:
        """End the worker; how it had ended by itself."""
        if self.worker is None:
            return ""
        self.spent += self.worker.cpu_seconds()
        ending = self.worker.kill()
        self.worker = self.session = self.tests.session = None
        return ending

    def _cpu_seconds(self) -> float:
        return self.spent + (self.worker.cpu_seconds() if self.worker else 0.0)

    def _lost(self, lost: WorkerLostError) -> tuple[Status, Failure]:
        used_up = time.monotonic() > self.deadline
        ending = self._end()
        if lost.kind == "timeout":
            limit = self.limits.notebook_seconds if used_up else self.limits.cell_seconds
            key = "notebook_seconds" if used_up else "cell_seconds"
            what = "notebook" if used_up else "cell"
            return "timeout", Failure("TimeLimit", f"the {what} ran longer than {limit} s ({key} in settings.ini)", ())
        if lost.kind == "died":
            return "died", Failure("ProcessEnded", f"the student's process ended in this cell ({ending})", ())
        return "died", Failure("BadMessage", f"the student's process sent what no test asks for: {lost}", ())

    def _result(self, cell: NotebookNode, status: Status, failed: Failure | None, seconds: float) -> CellResult:
        info = grade_info(cell)
        places = failed.places if failed else ()
        here = [place.line for place in places if place.cell_id == cell.id]
        if failed:
            cell.outputs.append(_error_output(self.notebook, failed))
        return CellResult(
            id=cell.id,
            grade_id=info.get("grade_id", ""),
            is_test=is_test(cell),
            points=float(info.get("points") or 0),
            status=status,
            ename=failed.ename if failed else "",
            evalue=failed.evalue if failed else "",
            line=here[-1] if here else None,
            raised_at=places[-1] if places else None,
            seconds=seconds,
            outputs=tuple(cell.outputs),
        )


def _run_there(session: Session, cell: NotebookNode, most: int) -> Any:
    """Run a cell on the student's side, and keep ``most`` characters of what it prints; the error that it raised."""
    return session.call("cell", _readable(cell.source), file_of(cell.id), most)


def _error_output(notebook: NotebookNode, failed: Failure) -> NotebookNode:
    """The error as feedback shows it: the statement of the test, the lines of the student's cells, what is wrong.

    Lines of tests have no numbers here: with hidden tests taken out, the student's are others.
    """
    cells = {cell.id: cell for cell in code_cells(notebook)}
    known = [(cells[place.cell_id], place.line) for place in failed.places if place.cell_id in cells]
    tests = [(cell, line) for cell, line in known if is_test(cell)]
    lines = [text for cell, line in tests[-1:] for text in ("in the test:", *_statement(cell.source, line))]
    for cell, line in known:
        if not is_test(cell):
            lines += [f"in {cell.id}, line {line}:", *_statement(cell.source, line)]
    message = f"{failed.ename}: {failed.evalue}" if failed.evalue else failed.ename
    return nbv4.new_output("error", ename=failed.ename, evalue=failed.evalue, traceback=[*lines, message])


def _statement(source: str, line: int) -> list[str]:
    """The lines of the statement that stands at ``line``, if it is a simple one, else that line."""
    around = [(first, last) for first, last in _simple_statements(source) if first <= line <= last]
    first, last = max(around, default=(line, line))
    found = source.split("\n")[first - 1 : min(last, first + _MOST_LINES)]
    return [f"    {text}" for text in textwrap.dedent("\n".join(found)).split("\n") if text.strip()]


@lru_cache(1000)
def _simple_statements(source: str) -> list[tuple[int, int]]:
    """The first and the last line of each statement that holds no others; none if Python cannot read the cell."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    simple = (node for node in nodes if isinstance(node, ast.stmt) and not hasattr(node, "body"))
    return [(node.lineno, node.end_lineno or node.lineno) for node in simple]


@lru_cache(1000)
def _readable(source: str) -> str:
    """``source`` as Python, where IPython's magics stand in it."""
    if not any(line.lstrip().startswith(("%", "!", "?")) or line.rstrip().endswith("?") for line in source.split("\n")):
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    return str(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]
