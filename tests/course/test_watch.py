"""``tito watch`` as a student sees it, in a terminal of its own; and what it does with files that are being written."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_server.services.contents.fileio import atomic_writing
from nbformat import NotebookNode

import tito.watch
from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import only_one, read_progress
from tito.watch import Run, Watch

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]
DEADLINE = 60  # seconds that anything may take on a busy machine

SOLVED = 'return {"system": platform.system()}'
WRONG = "return []"
STUB = "raise NotImplementedError()"

_TOKEN = re.compile(r"\x1b\[(?P<numbers>\??[\d;]*)(?P<letter>[A-Za-z])|(?P<sign>[\r\n])|(?P<text>[^\x1b\r\n]+)")


class Pane:
    """A terminal with a command in it, and a reader for its screen that knows what the command writes."""

    def __init__(self, root: Path, *command: str, columns: int = 80, rows: int = 24, **env: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.modes = termios.tcgetattr(self.slave)
        self.lines: dict[int, str] = {}
        self.row = 0
        self.private: dict[str, bool] = {}  # the modes of a screen: the other one (1049), a cursor (25)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._rest = ""
        own = {"PYTHONPATH": str(root), "PYTHON": sys.executable, "TERM": "xterm", "PS1": "ready: ", **env}
        self.process = subprocess.Popen(
            command or (sys.executable, "-m", "tito", "watch"),
            cwd=root,
            env=os.environ | own,
            preexec_fn=lambda: os.login_tty(os.dup(self.slave)),
        )

    @property
    def screen(self) -> str:
        return "\n".join(self.lines.get(row, "").rstrip() for row in range(self.rows))

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, *texts: str) -> str:
        """The screen, as soon as it shows all of ``texts``, and nothing that is out of it."""
        deadline = time.monotonic() + DEADLINE
        while not all(text in self.screen for text in texts) or not self._fits():
            has_ended = self.process.poll() is not None
            came = self._read()
            late = time.monotonic() > deadline or (has_ended and not came)
            assert not late, f"{texts} did not come:\n{self.screen}"
        return self.screen

    def end(self) -> int:
        """The exit status, once the command has ended and all that it wrote is read."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end:\n{self.screen}"
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def is_given_back(self) -> bool:
        """True if the terminal is as it was before the command."""
        return (
            termios.tcgetattr(self.slave) == self.modes
            and not self.private.get("1049")
            and self.private.get("25", True)
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for end in (self.master, self.slave):
            os.close(end)

    def _fits(self) -> bool:
        """True unless the other screen, which does not scroll, is written to beyond its edges."""
        lines = {row: line for row, line in self.lines.items() if line.strip()}
        fits = max(map(len, lines.values()), default=0) <= self.columns and max(lines, default=0) < self.rows
        return fits or not self.private.get("1049")

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 0.1)[0]:
            return False
        text, at = self._rest + self._decode(os.read(self.master, 65536)), 0
        while token := _TOKEN.match(text, at):
            at = token.end()
            self._obey(token)
        self._rest = text[at:]
        return True

    def _obey(self, token: re.Match[str]) -> None:
        if token["text"]:
            self.lines[self.row] = self.lines.get(self.row, "") + token["text"]
        elif token["sign"] == "\n":
            self.row += 1
        elif (token["numbers"], token["letter"]) == ("", "H"):
            self.row = 0
            self.lines = {row: line for row, line in self.lines.items() if row < self.rows}  # it may have shrunk
        elif token["letter"] == "K":
            self.lines.pop(self.row, None)
        elif token["numbers"] and token["numbers"].startswith("?"):
            self.private[token["numbers"][1:]] = token["letter"] == "h"
            if token["numbers"] == "?1049":
                self.lines, self.row = {}, 0


@pytest.fixture
def open_pane() -> Iterator[Callable[..., Pane]]:
    panes: list[Pane] = []

    def start(*args: Any, **options: Any) -> Pane:
        panes.append(Pane(*args, **options))
        return panes[-1]

    yield start
    for pane in panes:
        pane.close()


def notebook_of(root: Path, solution: str, *, more: str = "", prose: str = "") -> str:
    """The text of module 01's notebook with ``solution`` in its exercise, ``more`` in a cell at the end."""
    notebook = json.loads((root / ".tito/release/01_setup.ipynb").read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["id"] == "setup-report":
            cell["source"] = cell["source"].replace(STUB, solution)
        if cell["cell_type"] == "markdown":
            cell["source"] += prose
    if more:
        new = {"cell_type": "code", "id": "more", "metadata": {}, "outputs": [], "execution_count": None}
        notebook["cells"].append({**new, "source": more})
    return json.dumps(notebook, indent=1)


def save(root: Path, text: str) -> None:
    """Save module 01's notebook as JupyterLab does."""
    with atomic_writing(str(root / "modules/01_setup/setup.ipynb")) as file:
        file.write(text)


def save_by_rename(root: Path, text: str) -> None:
    """Save it as many editors do."""
    path = root / "modules/01_setup/setup.ipynb"
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)


# in a terminal


def test_a_student_saves_until_everything_passes(
    workspace: Path, tmp_path: Path, open_pane: Callable[..., Pane]
) -> None:
    pane = open_pane(workspace, TMPDIR=str(tmp_path))
    seen = pane.wait_for("0 of 1 tests pass, 0 of 100 points", "the run took", "h hint   l list   q quit")
    assert "First to mend: test-setup-report\n  not written yet: environment_report" in seen
    assert "the cell setup-report, line 17" in seen and "write environment_report in the cell setup-report, and" in seen

    save(workspace, notebook_of(workspace, STUB, prose="\n\nMy notes."))
    pane.wait_for("saved, nothing new", "not written yet")

    pane.type("\x1bOq\x1b[Axh")  # a key of the keypad, an arrow, a letter that means nothing, and one that does
    pane.wait_for("1 of 3: a question\n  Which module of Python", "First to mend")
    assert read_progress(Course(workspace)).hints == {"setup-report": 1}
    pane.type("l")
    assert "First to mend" not in pane.wait_for("  test-setup-report  100  not written yet", "l back")
    pane.type("l")
    pane.resize(40, 15)
    narrow = pane.wait_for("more lines\n", "1 of 3: a question", "h hint   l list   q quit")
    assert narrow.startswith("01_setup: 0 of 1 tests pass, 0 of 100\npoints")
    pane.resize(100, 30)

    save_by_rename(workspace, notebook_of(workspace, r'raise ValueError("\x1b[?25h odd")'))
    assert "a question" not in pane.wait_for("ValueError: \N{REPLACEMENT CHARACTER}[?25h odd", "the run took")
    assert not pane.private["25"]  # what terminals obey is shown, not obeyed
    save(workspace, notebook_of(workspace, SOLVED))
    seen = pane.wait_for("1 of 1 tests pass, 100 of 100 points", "Every test passes.\n  next:  tito module complete 01")
    assert "First to mend" not in seen
    pane.type("h")
    pane.wait_for("nothing to hint at")
    children = psutil.Process(pane.process.pid).children(recursive=True)
    pane.type("q")
    assert pane.end() == 0 and pane.is_given_back()
    assert "01_setup: 1 of 1 tests pass" in pane.screen
    assert read_progress(Course(workspace)).completed == {}
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.glob("tito-*")) == []


WAIT = """
import os, pathlib, time
pathlib.Path(os.environ["MARKER"]).write_text(str(os.getpid()))
time.sleep(600)
"""


def kernel_of(marker: Path) -> psutil.Process:
    """The kernel that has written its number to the file ``marker``."""
    deadline = time.monotonic() + DEADLINE
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(int(marker.read_text()))


def test_a_save_while_a_run_goes_on_begins_anew(
    workspace: Path, tmp_path: Path, open_pane: Callable[..., Pane]
) -> None:
    marker = tmp_path / "marker"
    save(workspace, notebook_of(workspace, WRONG, more=WAIT))
    pane = open_pane(workspace, MARKER=str(marker))
    pane.wait_for("First to mend: test-setup-report", "expected a dict, got list", "running cell 4 of 4")
    with only_one(Course(workspace), "another tito"):  # a run takes no lock
        kernel = kernel_of(marker)
        save(workspace, notebook_of(workspace, SOLVED))
        pane.wait_for("Every test passes.")
    assert not kernel.is_running()
    pane.type("\x03")
    assert pane.end() == 130 and pane.is_given_back()


@pytest.mark.parametrize("ending", ["SIGTERM", "hang-up", "SIGKILL"])
def test_however_it_ends_nothing_is_left(
    workspace: Path, tmp_path: Path, open_pane: Callable[..., Pane], ending: str
) -> None:
    marker, temporary = tmp_path / "marker", tmp_path / "temporary"
    temporary.mkdir()
    save(workspace, notebook_of(workspace, SOLVED, more=WAIT))
    pane = open_pane(workspace, MARKER=str(marker), TMPDIR=str(temporary))
    pane.wait_for("running cell 4 of 4")
    kernel = kernel_of(marker)
    match ending:
        case "SIGTERM":
            pane.process.send_signal(signal.SIGTERM)
        case "hang-up":
            os.close(pane.master)
            pane.process.wait(DEADLINE)
            pane.master = os.dup(pane.slave)
        case "SIGKILL":
            pane.process.kill()
    if ending == "SIGTERM":
        assert pane.end() == 130 and pane.is_given_back()
        assert "Stopped." in pane.screen and "Traceback" not in pane.screen
    psutil.wait_procs([kernel], DEADLINE)
    assert not kernel.is_running()
    assert ending == "SIGKILL" or list(temporary.glob("tito-*")) == []


def test_the_shell_gets_its_terminal_back_while_it_is_stopped(workspace: Path, open_pane: Callable[..., Pane]) -> None:
    pane = open_pane(workspace, "sh", "-i")
    pane.wait_for("ready:")
    pane.type('"$PYTHON" -m tito watch 01\n')
    pane.wait_for("First to mend", "q quit")
    pane.type("\x1a")
    pane.wait_for("Stopped")
    assert not pane.private["1049"] and pane.private["25"]
    pane.type("echo raw: $(stty -a | grep -c -- -icanon)\n")
    pane.wait_for("raw: 0")
    pane.type("fg\n")
    pane.wait_for("First to mend", "q quit")
    assert pane.private["1049"] and not pane.private["25"]
    pane.type("q")
    pane.wait_for("0 of 1 tests pass", "ready:")
    pane.type("exit\n")
    assert pane.end() == 0


# without a terminal


def test_lines_where_there_is_no_terminal(workspace: Path) -> None:
    command = [sys.executable, "-m", "tito", "watch"]
    environment = os.environ | {"PYTHONPATH": str(workspace)}
    with subprocess.Popen(
        command, cwd=workspace, env=environment, stdin=-3, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout and process.stderr
        said = read_until(process, "and save")
        assert re.search(r"^\d\d:\d\d:\d\d  testing 01_setup\n01_setup: 0 of 1 tests pass", said)
        assert "First to mend: test-setup-report" in said and "\x1b" not in said and "quit" not in said
        save(workspace, notebook_of(workspace, STUB, prose="!"))
        assert "First" not in read_until(process, "saved, nothing new")
        save(workspace, notebook_of(workspace, SOLVED))
        assert "1 of 1 tests pass" in read_until(process, "next:  tito module complete 01")
        (workspace / "modules/01_setup/setup.ipynb").write_text("{")
        assert "the notebook is not JSON" in read_until(process, "tito module reset 01")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert "Traceback" not in process.stderr.read()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it prints, up to the line that holds ``text``."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def test_authors_watch_their_source(author_tree: Path) -> None:
    source = author_tree / "modules/01_setup/setup_dev.py"
    command = [sys.executable, "-m", "tito", "watch", "setup"]
    environment = os.environ | {"PYTHONPATH": str(author_tree)}
    with subprocess.Popen(command, cwd=author_tree, env=environment, stdout=-1, text=True) as process:
        assert "1 of 1 tests pass" in read_until(process, "next:")
        source.write_text(source.read_text().replace('{"system": kernel_name}', '{"system": "Oberon"}'))
        assert "the system is wrong" in read_until(process, "and save")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 130


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [(["02"], 1, "needs 01_setup"), (["9"], 1, "no module '9'"), (["01", "02"], 2, "unexpected extra argument")],
)
def test_refusals(workspace: Path, run_tito: RunTito, args: list[str], status: int, says: str) -> None:
    done = run_tito(workspace, "watch", *args)
    assert (done.returncode, done.stdout) == (status, "") and says in done.stderr


def test_authors_name_what_to_watch(author_tree: Path, run_tito: RunTito) -> None:
    done = run_tito(author_tree, "watch")
    assert done.returncode == 2 and "tito watch NN" in done.stderr


# files that are being written, and kernels that wait: with kernels that only count


class Kernels:
    """In place of ``tito.runner.fresh_kernel``: remembers which kernel a notebook was run in, by its number."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None  # of the next one
        self.begun = 0
        self.ended = 0
        self.dead: set[int] = set()
        self.used: list[int] = []

    @asynccontextmanager
    async def __call__(self, course: Course, module: Module) -> AsyncIterator[Kernels.One]:
        trouble, self.trouble = self.trouble, None
        if trouble:
            raise trouble
        self.begun += 1
        try:
            yield self.One(self, self.begun)
        finally:
            self.ended += 1

    class One:
        def __init__(self, all_of_them: Kernels, number: int) -> None:
            self.all = all_of_them
            self.number = number

        async def is_alive(self) -> bool:
            return self.number not in self.all.dead

        async def run(self, notebook: NotebookNode, **_: object) -> None:
            self.all.used.append(self.number)


class Story:
    """A view that plays a story: each of its steps yields what to wait for before the next."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begins(self, run: Run) -> None:
        self.told.append("begins")

    def goes_on(self, run: Run) -> None: ...

    def ends(self, run: Run) -> None:
        self.told.append("ends")

    def nothing_new(self) -> None:
        self.told.append("nothing new")

    def trouble(self, problem: TitoError) -> None:
        self.told.append(problem.problem)

    def tick(self) -> None:
        while self.is_time():
            self.is_time = next(self.steps, self.end)

    def end(self) -> bool:
        raise EOFError

    def play(self, root: Path, steps: Iterator[Callable[[], bool]]) -> None:
        self.steps = steps
        self.is_time = next(steps)
        course = Course(root)

        async def watch() -> None:
            async with asyncio.timeout(DEADLINE):
                await Watch(course, course.module("01"), self).follow()

        with pytest.raises(EOFError):
            asyncio.run(watch())


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    kernels = Kernels()
    monkeypatch.setattr("tito.runner.fresh_kernel", kernels)
    return kernels


@pytest.fixture
def failed_reads(monkeypatch: pytest.MonkeyPatch) -> list[TitoError]:
    """Every refusal to read a notebook."""
    refusals: list[TitoError] = []
    read = tito.watch.notebook_to_judge

    def recorded(course: Course, module: Module) -> tuple[NotebookNode, list[str]]:
        try:
            return read(course, module)
        except TitoError as problem:
            refusals.append(problem)
            raise

    monkeypatch.setattr("tito.watch.notebook_to_judge", recorded)
    return refusals


def test_half_written_and_away_for_a_moment_is_no_trouble(
    workspace: Path, kernels: Kernels, failed_reads: list[TitoError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tito.watch._PATIENCE", DEADLINE)
    path = workspace / "modules/01_setup/setup.ipynb"
    story = Story()

    def steps() -> Iterator[Callable[[], bool]]:
        yield lambda: story.told == ["begins", "ends"]
        text = notebook_of(workspace, SOLVED)
        path.write_text(text[: len(text) // 2])
        yield lambda: len(failed_reads) == 1
        path.write_text(text)
        yield lambda: story.told == ["begins", "ends"] * 2
        path.unlink()
        yield lambda: len(failed_reads) == 2
        path.write_text(text)
        yield lambda: story.told[4:] == ["nothing new"]

    story.play(workspace, steps())
    assert kernels.begun == kernels.ended


def test_what_stays_unreadable_is_told_and_the_next_save_is_judged(
    workspace: Path, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tito.watch._PATIENCE", 0.1)
    path = workspace / "modules/01_setup/setup.ipynb"
    text = path.read_text()
    path.unlink()
    story = Story()

    def steps() -> Iterator[Callable[[], bool]]:
        yield lambda: story.told == ["the notebook is missing"]
        path.write_text(text)
        yield lambda: story.told[1:] == ["begins", "ends"]
        path.write_text("[]")
        yield lambda: story.told[3:] == [story.told[-1]] and "not a notebook" in story.told[-1]
        path.write_text(text)
        yield lambda: story.told[4:] == ["begins", "ends"]

    story.play(workspace, steps())


def test_a_kernel_waits_for_the_next_save_unless_it_is_out_of_date(workspace: Path, kernels: Kernels) -> None:
    story = Story()

    def steps() -> Iterator[Callable[[], bool]]:
        yield lambda: story.told == ["begins", "ends"] and kernels.begun == 2
        save(workspace, notebook_of(workspace, SOLVED))
        yield lambda: kernels.used == [1, 2] and kernels.begun == 3
        (workspace / "tinytorch/core/more.py").write_text("")
        save(workspace, notebook_of(workspace, SOLVED, prose="on another package"))
        yield lambda: kernels.used == [1, 2, 4] and kernels.begun == 5
        kernels.dead.add(5)
        save(workspace, notebook_of(workspace, WRONG))
        yield lambda: kernels.used == [1, 2, 4, 6]

    story.play(workspace, steps())
    assert "nothing new" not in story.told
    assert kernels.begun == kernels.ended


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (TitoError("the Jupyter kernel does not start"), "the Jupyter kernel does not start"),
        (OSError(28, "No space left on device"), "a file cannot be read or written: No space left on device"),
    ],
)
def test_a_kernel_that_does_not_start_is_told_and_tried_again(
    workspace: Path, kernels: Kernels, trouble: Exception, says: str
) -> None:
    story = Story()

    def steps() -> Iterator[Callable[[], bool]]:
        kernels.trouble = trouble
        yield lambda: story.told == ["begins", says]
        os.utime(workspace / "modules/01_setup/setup.ipynb")
        yield lambda: story.told[2:] == ["begins", "ends"]

    story.play(workspace, steps())
    assert kernels.begun == kernels.ended
