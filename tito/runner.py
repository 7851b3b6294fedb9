"""Running a notebook in a real Jupyter kernel: private folder, the package before a module, limits, outcome by cell.

Importing this file loads nbclient, which takes half a second: import it inside functions.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat.v4 as nbv4
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

import tito
from tito.course import Course, Limits, Module
from tito.errors import TitoError
from tito.outcome import CellResult, Place, RunResult, Status, is_test, not_run
from tito.source import code_cells
from tito.staging import stage_package

# what the executed notebook shows as the error's name where the kernel could not say it itself
_MARKS: dict[Status, str] = {
    "timeout": "TimeLimit",
    "output limit": "OutputLimit",
    "died": "KernelDied",
    "not run": "NotRun",
}
_START_SECONDS = 60
_GRACE_SECONDS = 2.0  # between the interrupt of a cell and the end of its kernel
_FLOOD = 10  # a cell that prints this many times its limit is stopped; less than that is cut only
_MESSAGE_BYTES = 100  # what an output costs besides its text, so that a million empty ones are too many
_ERROR_BYTES = 4000  # of an error, this much is kept even if the cell has used up its room

_SIZED = {"stream", "display_data", "update_display_data", "execute_result", "error"}

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"Cell In\[(\d+)\], line (\d+)")


def run_notebook(
    course: Course,
    module: Module,
    notebook: NotebookNode,
    *,
    stop_at_first_failure: bool = False,
    on_cell: Callable[[CellResult], None] | None = None,
) -> RunResult:
    """Run ``notebook`` against the modules before ``module``, within the course's limits; the argument stays as it is.

    A cell that takes too long or prints far too much is interrupted, and the next cells run. If it cannot be
    interrupted, or the kernel dies, or the notebook's time is up, the cells after it are "not run".

    Parameters
    ----------
    stop_at_first_failure
        Do not run the cells after the first test that fails.
    on_cell
        Called with each cell's result as soon as it is known.

    Raises
    ------
    TitoError
        If the kernel does not start.
    """

    async def play() -> RunResult:
        begin = time.monotonic()
        async with fresh_kernel(course, module) as kernel:
            run = await kernel.run(notebook, stop_at_first_failure=stop_at_first_failure, on_cell=on_cell)
        return replace(run, seconds=time.monotonic() - begin)

    return _wait_for(play())


def _wait_for(work: Coroutine[Any, Any, RunResult]) -> RunResult:
    """The result of ``work``, also where an event loop runs already (formgrader calls us from one)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@asynccontextmanager
async def fresh_kernel(course: Course, module: Module) -> AsyncIterator[Kernel]:
    """A kernel in a private folder, with the modules before ``module`` as they are now; gone when the block ends.

    Raises
    ------
    TitoError
        If it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="tito-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        package = stage_package(course, module, folder / "package")
        client = _Client(course.limits, folder)
        try:
            await client.start(package)
            yield Kernel(client, course.limits)
        finally:
            await client.stop()


class Kernel:
    """A kernel that has run nothing yet, for one notebook."""

    def __init__(self, client: _Client, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    async def is_alive(self) -> bool:
        """False if its process has ended."""
        return bool(await self._client.km.is_alive())

    async def run(
        self,
        notebook: NotebookNode,
        *,
        stop_at_first_failure: bool = False,
        on_cell: Callable[[CellResult], None] | None = None,
    ) -> RunResult:
        """Run ``notebook`` as ``run_notebook`` does; the seconds are those of its cells."""
        return await _Run(self._client, self._limits, deepcopy(notebook), stop_at_first_failure, on_cell).play()


class _Run:
    """One notebook being run, cell by cell."""

    def __init__(
        self,
        client: _Client,
        limits: Limits,
        notebook: NotebookNode,
        stop_at_first_failure: bool,
        on_cell: Callable[[CellResult], None] | None,
    ) -> None:
        self.client = client
        self.limits = limits
        self.notebook = notebook
        self.stop_at_first_failure = stop_at_first_failure
        self.on_cell = on_cell
        self.over = ""  # why the cells that are left are not run
        self.cell_ids: dict[int, str] = {}  # by the execution count that tracebacks quote

    async def play(self) -> RunResult:
        for cell in code_cells(self.notebook):
            cell.outputs, cell.execution_count = [], None
        self.client.nb = self.notebook
        begin = time.monotonic()
        self.deadline = begin + self.limits.notebook_seconds
        cells = [
            await self._step(index, cell) for index, cell in enumerate(self.notebook.cells) if cell.cell_type == "code"
        ]
        return RunResult(tuple(cells), self.notebook, time.monotonic() - begin)

    async def _step(self, index: int, cell: NotebookNode) -> CellResult:
        begin = time.monotonic()
        status: Status = "not run"
        if not self.over:
            status = await self.client.run_cell(cell, index, min(self.limits.cell_seconds, self.deadline - begin))
            self.cell_ids[self.client.count] = cell.id
        result = self._result(cell, status, time.monotonic() - begin)
        self.over = self.over or self._reason_to_end(result)
        if self.on_cell:
            self.on_cell(result)
        return result

    def _reason_to_end(self, result: CellResult) -> str:
        if self.client.dead:
            return f"the kernel ended in the cell {result.id}"
        if time.monotonic() > self.deadline:
            return f"the notebook's {self.limits.notebook_seconds} s are used up (notebook_seconds in settings.ini)"
        if self.stop_at_first_failure and result.is_test and not result.ok:
            return f"the test {result.id} failed"
        return ""

    def _result(self, cell: NotebookNode, status: Status, seconds: float) -> CellResult:
        cell.outputs = _merged(cell.outputs)
        error = self.client.error if status != "not run" else {}
        frames = _FRAME.findall(_ANSI.sub("", "\n".join(error.get("traceback", []))))
        places = [Place(self.cell_ids[int(n)], int(line)) for n, line in frames if int(n) in self.cell_ids]
        here = [place.line for place in places if place.cell_id == cell.id]
        ename, evalue = str(error.get("ename", "")), str(error.get("evalue", ""))
        if status in _MARKS:
            ename, evalue = _MARKS[status], self._explain(status)
            cell.outputs.append(nbv4.new_output("error", ename=ename, evalue=evalue, traceback=[f"{ename}: {evalue}"]))
        return replace(
            not_run(cell),
            status=status,
            ename=ename,
            evalue=evalue,
            line=here[-1] if here else None,
            raised_at=places[-1] if places else None,
            seconds=seconds,
            outputs=tuple(cell.outputs),
        )

    def _explain(self, status: Status) -> str:
        match status:
            case "timeout" if time.monotonic() > self.deadline:
                return (
                    f"the notebook ran longer than {self.limits.notebook_seconds} s (notebook_seconds in settings.ini)"
                )
            case "timeout":
                return f"the cell ran longer than {self.limits.cell_seconds} s (cell_seconds in settings.ini)"
            case "output limit":
                most = self.limits.cell_output_bytes * _FLOOD
                return f"the cell printed more than {most:,} bytes ({_FLOOD} times cell_output_bytes in settings.ini)"
            case "died":
                return f"the kernel ended while it ran this cell ({self.client.ending})"
            case _:
                return self.over


class _Client(NotebookClient):  # type: ignore[misc]
    """A kernel of this interpreter in a private folder, whose cells are stopped when they go over the limits."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        specs = KernelSpecManager(kernel_dirs=[])  # without folders to search, `python3` is ipykernel of this Python
        manager = AsyncKernelManager(kernel_spec_manager=specs, connection_file=str(folder / "kernel.json"))
        super().__init__(
            nbv4.new_notebook(),
            km=manager,
            allow_errors=True,
            startup_timeout=_START_SECONDS,
            on_cell_executed=self._on_cell_executed,
        )
        self.folder = folder
        self.meter = _Meter(limits)
        self.reply: dict[str, Any] = {}
        self.stopped_for: Status | None = None
        self.stopping: asyncio.Task[None] | None = None
        self.dead = False

    @property
    def count(self) -> int:
        """The execution count of the last cell, as tracebacks quote it."""
        return int(self.reply.get("execution_count", 0))

    @property
    def error(self) -> dict[str, Any]:
        """``ename``, ``evalue`` and ``traceback`` of the last cell; empty if it raised nothing."""
        return self.reply if self.reply.get("status") == "error" else {}

    @property
    def ending(self) -> str:
        """How the kernel's process ended."""
        process = self.km.provisioner.process if self.km.provisioner else None
        code = process.returncode if process else None
        if self._asked_to_exit:
            return "the cell called exit() or quit()"
        if code == -signal.SIGKILL:
            return "SIGKILL: it probably used up the memory"
        return signal.Signals(-code).name if code and code < 0 else f"exit status {code}"

    @property
    def _asked_to_exit(self) -> bool:
        return any(item.get("source") == "ask_exit" for item in self.reply.get("payload", []))

    async def start(self, package: Path) -> None:
        work = self.folder / "work"
        work.mkdir()
        log = self.folder / "kernel.log"
        with log.open("wb") as file:
            try:
                await self.async_start_new_kernel(
                    cwd=str(work), env=_environment(package, self.folder), stdout=file, stderr=file
                )
                await self.async_start_new_kernel_client()
            except (RuntimeError, OSError) as error:
                said = log.read_text(errors="replace").strip().splitlines()
                raise TitoError(
                    f"the Jupyter kernel does not start: {said[-1] if said else error}",
                    place=sys.executable,
                    next_step="see what is missing: tito doctor",
                ) from None

    async def stop(self) -> None:
        """End the kernel and every process that it started, also if we are cancelled meanwhile."""
        group = self.km.provisioner.pgid if self.km.provisioner else None
        try:
            if self.km.has_kernel:
                await self.km.shutdown_kernel(now=True)
        finally:
            if self.kc is not None:
                self.kc.stop_channels()
            if group:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)

    async def run_cell(self, cell: NotebookNode, index: int, seconds: float) -> Status:
        """Run one cell; stop it after ``seconds`` or when its output is a flood."""
        self.reply, self.stopped_for, self.stopping = {}, None, None
        timer = asyncio.get_running_loop().call_later(seconds, self._stop_cell, "timeout")
        try:
            await self.async_execute_cell(cell, index)
        except DeadKernelError:
            task = asyncio.current_task()
            if task and task.cancelling():  # nbclient takes a Ctrl-C for the kernel's death
                raise asyncio.CancelledError from None
            self.dead = True
        finally:
            timer.cancel()
            if self.stopping:
                self.stopping.cancel()
        self.dead = self.dead or self._asked_to_exit
        if self.stopped_for:
            return self.stopped_for
        if self.dead:
            return "died"
        expected = "raises-exception" in cell.metadata.get("tags", []) and not is_test(cell)
        return "error" if self.error and not expected else "ok"

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        if msg["msg_type"] == "clear_output":
            self.meter.clear(cell.id)
        elif msg["msg_type"] in _SIZED and not self.meter.admit(cell, msg):
            if self.meter.is_flood(cell.id):
                self._stop_cell("output limit")
            return None
        return super().process_message(msg, cell, cell_index)

    def _on_cell_executed(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        self.reply = execute_reply["content"]

    def _stop_cell(self, reason: Status) -> None:
        if self.stopping is None:
            self.stopped_for = reason
            self.stopping = asyncio.ensure_future(self._interrupt_then_kill())

    async def _interrupt_then_kill(self) -> None:
        await self.km.interrupt_kernel()
        await asyncio.sleep(_GRACE_SECONDS)
        await self.km.shutdown_kernel(now=True)


def _environment(package: Path, folder: Path) -> dict[str, str]:
    """The kernel's environment: the staged package first, then the ``tito`` that runs here, no personal settings."""
    path = [str(package), str(Path(tito.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONOPTIMIZE": "",  # a test's assertions count, whatever the person's settings are
        "IPYTHONDIR": str(folder / "ipython"),
    }
    return {**os.environ, **own}


class _Meter:
    """Counts what cells print, and cuts what is over the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.kept: dict[str, int] = {}
        self.came: dict[str, int] = {}

    def clear(self, cell_id: str) -> None:
        self.kept[cell_id] = 0

    def is_flood(self, cell_id: str) -> bool:
        return self.came[cell_id] > _FLOOD * self.limits.cell_output_bytes

    def admit(self, cell: NotebookNode, message: dict[str, Any]) -> bool:
        """True if the output fits; of the first that does not, what fits is appended to the cell here.

        An error is always let through, cut to what fits.
        """
        kept = self.kept.setdefault(cell.id, 0)
        room = min(self.limits.cell_output_bytes - kept, self.limits.notebook_output_bytes - sum(self.kept.values()))
        content = message["content"]
        size = _MESSAGE_BYTES + _size(content)
        self.came[cell.id] = self.came.get(cell.id, 0) + size
        if size <= room:
            self.kept[cell.id] += size
            return True
        if message["msg_type"] == "error":
            room = max(room, _ERROR_BYTES)
            content["evalue"] = _clip(content["evalue"], room)
            content["traceback"] = [_clip("\n".join(content["traceback"]), room)]
            return True
        if room > 0:
            self.kept[cell.id] += room
            text = _clip(content.get("text", ""), room)
            note = f"\n[output cut here: over {self.limits.cell_output_bytes:,} bytes]\n"
            cell.outputs.append(nbv4.new_output("stream", name=content.get("name", "stdout"), text=text + note))
        return False


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Each of stdout and stderr as one output; of what carriage returns overwrite, a progress bar say, only the end.

    nbclient's own ``coalesce_streams`` takes minutes for a line of 200,000 characters: its patterns are quadratic.
    """
    merged: list[NotebookNode] = []
    pieces: dict[str, list[str]] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged.append(output)
        elif output.name in pieces:
            pieces[output.name].append(output.text)
        else:
            pieces[output.name] = [output.text]
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            lines = "".join(pieces[output.name]).split("\n")
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return merged


def _size(content: dict[str, Any]) -> int:
    parts = [content.get("text", ""), content.get("evalue", ""), *content.get("traceback", [])]
    parts += content.get("data", {}).values()
    return sum(len(str(part).encode(errors="replace")) for part in parts)


def _clip(text: str, room: int) -> str:
    return text.encode(errors="replace")[:room].decode(errors="ignore")
