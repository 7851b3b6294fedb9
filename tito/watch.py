"""Watching a module's notebook: every save is judged, in a fresh kernel that was started ahead."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tito.course import SETTINGS, Course, Module
from tito.errors import TitoError, told
from tito.judge import Verdict, notebook_to_judge, verdict_on
from tito.outcome import CellResult
from tito.progress import read_progress, require_prerequisites
from tito.source import code_cells, grade_info

if TYPE_CHECKING:
    from nbformat import NotebookNode

_TICK = 0.1  # seconds between two looks at the file; what looks the same twice is not being written any more
_PATIENCE = 2.0  # seconds that a file may be away or half-written in the middle of a save

Stamp = tuple[int, int, int] | None
Ground = dict[Path, Stamp]


@dataclass(frozen=True)
class Saved:
    """A notebook as it was saved, with its tests as released, what was put right for that, and what it stands on."""

    notebook: NotebookNode
    repairs: list[str]
    ground: Ground

    def judges_like(self, other: Saved) -> bool:
        """True if nothing in it can change ``other``'s verdict: it is the same code on the same ground."""
        return (self.ground, self.repairs, _code(self.notebook)) == (other.ground, other.repairs, _code(other.notebook))


class Run:
    """One judgement of a saved notebook, as far as it has come.

    ``begin`` and ``end`` are times of ``time.monotonic``, in seconds; ``end`` is None until the verdict is complete.
    """

    def __init__(self, module: Module, saved: Saved) -> None:
        self.module = module
        self.saved = saved
        self.begin = time.monotonic()
        self.end: float | None = None
        self.cells: list[CellResult] = []
        self.total = sum(1 for _ in code_cells(saved.notebook))
        self.verdict = self._verdict()

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return (self.end or time.monotonic()) - self.begin

    def add(self, cell: CellResult) -> None:
        self.cells.append(cell)
        self.verdict = self._verdict()

    def _verdict(self) -> Verdict:
        return verdict_on(self.module, self.saved.notebook, self.saved.repairs, self.cells, self.seconds)


class View(Protocol):
    """Whoever shows people what is going on."""

    def begins(self, run: Run) -> None:
        """A save is judged from now on; what was judged before is out of date."""

    def goes_on(self, run: Run) -> None:
        """A cell has run."""

    def ends(self, run: Run) -> None:
        """The verdict is complete."""

    def nothing_new(self) -> None:
        """The notebook was saved with the same code; the verdict stands."""

    def trouble(self, problem: TitoError) -> None:
        """The notebook cannot be judged; the next save is waited for."""

    def tick(self) -> None:
        """Time has passed: about a tenth of a second."""


class Watch:
    """Judges a module now and at each save of its notebook (in the author's tree, of its source)."""

    def __init__(self, course: Course, module: Module, view: View) -> None:
        self.course = course
        self.module = module
        self.view = view
        self.path = module.notebook if course.is_workspace else module.source
        self.seen: Stamp | tuple[()] = ()  # no file looks like this, so that the first look finds something new
        self.judged: Saved | None = None
        self.task: asyncio.Task[bool] | None = None  # starts a kernel, waits for ``run``, and plays it
        self.run: asyncio.Future[Run]

    async def follow(self) -> None:
        """Go on until cancelled. No process is left behind then."""
        try:
            while True:
                saved = await self._next_save()
                if self.judged and saved.judges_like(self.judged):
                    self.view.nothing_new()
                else:
                    await self._judge(saved)
        finally:
            await self._drop()

    async def _next_save(self) -> Saved:
        """The notebook, once it has changed and can be read."""
        while True:
            stamp = await self._new_stamp()
            try:
                saved = self._read()
            except (TitoError, OSError) as problem:
                if await self._changes(stamp):
                    continue
                self.seen = stamp
                await self._stop_run()
                self._give_up(problem)
            else:
                self.seen = stamp
                return saved

    async def _new_stamp(self) -> Stamp:
        """Wait until the file is not what it was, and has stayed so for a moment."""
        stamp = _stamp(self.path)
        while True:
            await self._pause()
            before, stamp = stamp, _stamp(self.path)
            if before == stamp != self.seen:
                return stamp

    async def _changes(self, stamp: Stamp) -> bool:
        """True as soon as the file is not what it was: somebody was still writing it."""
        deadline = time.monotonic() + _PATIENCE
        while _stamp(self.path) == stamp:
            if time.monotonic() > deadline:
                return False
            await self._pause()
        return True

    def _read(self) -> Saved:
        course = Course(self.course.root)  # with the settings of now
        ground = _ground(course)
        require_prerequisites(course, self.module, read_progress(course))
        return Saved(*notebook_to_judge(course, self.module), ground)

    async def _pause(self) -> None:
        self.view.tick()
        await asyncio.sleep(_TICK)
        if self.task and self.task.done():
            if self.task.result():
                self._start_ahead()
            else:
                self.task = None

    async def _judge(self, saved: Saved) -> None:
        self.judged = saved
        run = Run(self.module, saved)
        await self._stop_run()
        self.view.begins(run)
        if self.task is None:
            self._start_ahead()
        self.run.set_result(run)

    def _start_ahead(self) -> None:
        self.run = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._play(self.run))

    async def _play(self, coming: asyncio.Future[Run]) -> bool:
        """Start a kernel, wait for a run and play it, in another kernel if this one is out of date by then.

        False if that cannot be.
        """
        from tito.runner import fresh_kernel

        try:
            while True:
                course = Course(self.course.root)
                ground, is_ahead = _ground(course), not coming.done()
                async with fresh_kernel(course, self.module) as kernel:
                    run = await coming
                    if is_ahead and not (ground == run.saved.ground and await kernel.is_alive()):
                        continue
                    await kernel.run(run.saved.notebook, on_cell=partial(self._add, run))
                    run.end = time.monotonic()
                    self.view.ends(run)
                    return True
        except (TitoError, OSError) as problem:
            self._give_up(problem)
            return False

    def _give_up(self, problem: TitoError | OSError) -> None:
        """Until the next save, whatever it holds."""
        self.judged = None
        self.view.trouble(problem if isinstance(problem, TitoError) else told(problem))

    def _add(self, run: Run, cell: CellResult) -> None:
        run.add(cell)
        self.view.goes_on(run)

    async def _stop_run(self) -> None:
        """Stop what is being judged, or was; a kernel that waits for a run goes on waiting."""
        if self.task and self.run.done():
            await self._drop()

    async def _drop(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait({self.task})
            if not self.task.cancelled():
                self.task.result()
            self.task = None


def _stamp(path: Path) -> Stamp:
    """What tells one save of a file from another; None if there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _ground(course: Course) -> Ground:
    """What a verdict depends on besides the notebook: the package and the settings."""
    return {path: _stamp(path) for path in (course.root / SETTINGS, *course.library.rglob("*.py"))}


def _code(notebook: NotebookNode) -> list[tuple[Any, ...]]:
    """What is judged of a notebook: not its prose, its outputs, or the notes that JupyterLab keeps in the metadata."""
    return [(cell.id, cell.source, grade_info(cell), cell.metadata.get("tags")) for cell in code_cells(notebook)]
