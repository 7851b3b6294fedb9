"""The sandbox: a worker process that sees Python, NumPy and the modules before its own, and can reach nothing else.

bubblewrap makes the walls: namespaces of its own, a read-only system of a few files, and no network. Loading Python and
NumPy takes longer than most submissions, so a process does it once, the zygote, and copies itself for each worker:
``launch.py``, the first code inside. A copy gets a private folder and sees no other process; it sets its limits, gives
up every right and refuses system calls before it runs the student's code. It may have threads but no children, so that
its memory and processor time are all that the code uses.
"""

from __future__ import annotations

import compileall
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from struct import Struct
from typing import IO, TYPE_CHECKING, Any, Self

from tito.course import Course, Limits, Module
from tito.errors import TitoError
from tito.staging import stage_package

if TYPE_CHECKING:
    import psutil

INSTALL_BUBBLEWRAP = "apt-get install bubblewrap (or your system's way), and allow it user namespaces"
INSIDE = Path(__file__).with_name("inside")

_HOME = "/tmp/work"  # of a worker, in its private folder; launch.py makes it
_LOADER_CACHE = "/etc/ld.so.cache"
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
_MB = 1 << 20
_OPEN_FILES = 64
_FILES = 2000
_CREDENTIALS = Struct("3i")  # a process, its user and its group, as the system tells them
_PREFIX = "tito-sandbox-"
_NEW_SECONDS = 60  # a folder this new may be someone's who has not locked it yet
_START_SECONDS = 60.0  # for the first worker to load what it needs
_GRACE_SECONDS = 1.0  # for a worker that has hung up to end by itself
_UIDS_A_PROCESS = 256  # workers of one grading process that can run at a time, each as a user of its own
_ENDINGS = {
    signal.SIGKILL: "SIGKILL: it probably used up the memory or its processor time",
    signal.SIGXCPU: "SIGXCPU: it used up its processor time",
}


class Sandbox:
    """Where submissions of one module are run: prepared once, starts a fresh worker for each.

    A context manager; to be made in the process that uses it, not before a fork. Leaving it ends its workers.

    Raises
    ------
    TitoError
        On entering it, if isolation is wanted and this machine cannot isolate.
    """

    def __init__(self, course: Course, module: Module, *, isolation: bool = True) -> None:
        self.course = course
        self.module = module
        self.isolation = isolation
        self._limits = course.limits
        self._workers: set[Worker] = set()
        self._zygote: _Zygote | None = None

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._stage = _Stage(resources.enter_context(_private_folder()))
            self._stage.add_worker(INSIDE)
            self._stage.add_package(self.course, self.module)
            # bwrap ends when the thread ends that started it, so one thread starts all and stays
            self._starter = resources.enter_context(ThreadPoolExecutor(1))
            resources.callback(self._end)
            if self.isolation:
                self._stage.add_system()
                if problem := self._starter.submit(_why_not, self._living_zygote).result():
                    raise TitoError(
                        f"submissions cannot be isolated on this machine: {problem}",
                        next_step=f"{INSTALL_BUBBLEWRAP}; or grade without it: --no-isolation",
                    )
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def start(self) -> Worker:
        """A fresh process in the sandbox, which runs ``worker.py``; it is not waited for."""
        return self._starter.submit(self._start).result()

    def _start(self) -> Worker:
        self._workers = {worker for worker in self._workers if not worker.ended}
        worker = _IsolatedWorker(self._living_zygote()) if self.isolation else _OpenWorker(self._stage, self._limits)
        self._workers.add(worker)
        return worker

    def _living_zygote(self) -> _Zygote:
        """The process that workers are copies of; a new one if it has ended."""
        if self._zygote is None or not self._zygote.alive():
            if self._zygote:
                self._zygote.close()
            self._zygote = _Zygote(self._stage, self._limits)
        return self._zygote

    def _end(self) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.kill()
        if self._zygote:
            self._zygote.close()


class Worker(ABC):
    """A process that runs a student's code; ``connection`` is our end of the socket that it serves."""

    isolated: bool
    connection: socket.socket

    def __init__(self) -> None:
        self._ending: str | None = None
        self._lock = threading.Lock()

    def alive(self) -> bool:
        return self._wait(0) is None

    @property
    def ended(self) -> bool:
        """True after ``kill``."""
        return self._ending is not None

    def kill(self) -> str:
        """End everything in it; say how it had ended before, or nothing if it still ran. Again, it says the same."""
        with self._lock:
            if self._ending is None:
                code = self._wait(_GRACE_SECONDS if _hung_up(self.connection) else 0)
                self._end()
                self.connection.close()
                self._ending = _words(code)
            return self._ending

    @abstractmethod
    def cpu_seconds(self) -> float:
        """The processor time of everything in it so far, as the system counts it; 0.0 where that is not known."""

    @abstractmethod
    def _wait(self, seconds: float) -> int | None:
        """Its exit status, negative of a signal; None if it has not ended after ``seconds``."""

    @abstractmethod
    def _end(self) -> None:
        """End every process of it, and leave nothing behind."""


def _words(code: int | None) -> str:
    """How a process ended."""
    if code is None:
        return ""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        number = signal.Signals(-code)
        return _ENDINGS.get(number, number.name)
    return f"signal {-code}"


class _Zygote:
    """A process behind the walls of bubblewrap that has loaded what workers need, and copies itself; see launch.py."""

    def __init__(self, stage: _Stage, limits: Limits) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._errors = stage.folder / "errors"
        with theirs, self._errors.open("wb") as errors, ExitStack() as undo:
            undo.callback(self._requests.close)
            python = _interpreter(
                "/inside", _confinement(limits, isolated=True), theirs.fileno(), "/course", "/libraries"
            )
            self._process = _spawn(
                [*_walls(stage), "--", *python], _environment(_HOME), keep=(theirs.fileno(),), errors=errors
            )
            undo.pop_all()

    def alive(self) -> bool:
        return self._process.poll() is None

    def copy(self, connection: socket.socket, report: socket.socket) -> None:
        """Ask for a worker; if that is in vain, its sockets are closed."""
        request = json.dumps({"uid": _worker_uid()}).encode()
        with suppress(ConnectionError):
            socket.send_fds(self._requests, [request], [connection.fileno(), report.fileno()])

    def close(self) -> None:
        """End it, and what is inside with it."""
        self._process.kill()
        self._process.wait()
        self._requests.close()

    def last_error(self) -> str:
        """The last thing that it, bubblewrap or a worker that was not ready yet had to complain about."""
        return (self._errors.read_text(errors="replace").strip().splitlines() or [""])[-1]


class _IsolatedWorker(Worker):
    """A worker behind the walls of bubblewrap, which its keeper reports of; see launch.py."""

    isolated = True

    def __init__(self, zygote: _Zygote) -> None:
        super().__init__()
        self._zygote = zygote
        self._pid: int | None = None
        self._code: int | None = None
        self._cpu_seconds = 0.0
        self.connection, theirs = socket.socketpair()
        self._reports, report = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._reports.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs, report:
            zygote.copy(theirs, report)

    def kill(self) -> str:
        """See ``Worker.kill``.

        Raises
        ------
        OSError
            If it ended before it was ready; that is no fault of the code that it was to run.
        """
        ending = super().kill()
        if ending and self._pid is None:
            raise OSError(f"no worker can be started in the sandbox: {self._zygote.last_error() or ending}")
        return ending

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait until it can run code, or has ended, or ``seconds`` are over; whether it can."""
        deadline = time.monotonic() + seconds
        while self._pid is None and self._code is None and self._hear(max(deadline - time.monotonic(), 0)):
            pass
        return self._pid is not None

    def cpu_seconds(self) -> float:
        with suppress(OSError):
            if self._wait(0) is None and self._pid:
                stat = Path(f"/proc/{self._pid}/stat").read_text(errors="replace")
                user, system = stat.rpartition(")")[2].split()[11:13]  # the name before it is the student's to choose
                seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
                if self._wait(0) is None:  # so that the number was the worker's still
                    self._cpu_seconds = seconds
        return self._cpu_seconds

    def _wait(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while self._code is None and self._hear(max(deadline - time.monotonic(), 0)):
            pass
        return self._code

    def _hear(self, seconds: float) -> bool:
        """Take note of the next report, for which ``seconds`` are waited; False if there is none."""
        if not _polled(self._reports, select.POLLIN, seconds):
            return False
        said, added, *_ = self._reports.recvmsg(200, socket.CMSG_SPACE(_CREDENTIALS.size))
        if said == b".":
            self._pid = _CREDENTIALS.unpack(added[0][2])[0]  # as it is out here; the system adds it
        elif said:
            ended = json.loads(said)
            self._code, self._cpu_seconds = ended["code"], ended["cpu_seconds"]
        else:
            self._code = -signal.SIGKILL  # with its keeper
        return True

    def _end(self) -> None:
        self._reports.shutdown(socket.SHUT_WR)  # its keeper hears that
        if self._wait(_GRACE_SECONDS) is None:
            self._zygote.close()
        self._reports.close()


class _OpenWorker(Worker):
    """A plain process with limits, where there are no walls; what it leaves behind is found by its home folder."""

    isolated = False

    def __init__(self, stage: _Stage, limits: Limits) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="work-", dir=stage.folder))
        self._home = str(self._folder / "home")
        temporary = str(self._folder / "tmp")
        os.mkdir(self._home)
        os.mkdir(temporary)
        self.connection, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(self.connection.close)
            folders = str(stage.course), str(stage.libraries)
            self._process = _spawn(
                _interpreter(str(stage.inside), _confinement(limits, isolated=False), theirs.fileno(), *folders),
                _environment(self._home) | {"TMPDIR": temporary},
                keep=(theirs.fileno(),),
                folder=self._home,
            )
            undo.pop_all()

    def cpu_seconds(self) -> float:
        import psutil

        seconds = 0.0
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    seconds += times.user + times.system
        return seconds

    def _wait(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll()

    def _end(self) -> None:
        import psutil

        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + _GRACE_SECONDS
        while left := self._left_behind():  # again, since each of them could start another
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            if time.monotonic() > deadline:
                break
        shutil.rmtree(self._folder, ignore_errors=True)

    def _left_behind(self) -> list[psutil.Process]:
        """The processes that have the worker's home folder in their environment."""
        import psutil

        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == self._home and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class _Stage:
    """The files that workers of one module share: below ``root`` as they stand in the sandbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.inside = self.root / "inside"
        self.course = self.root / "course"
        self.inside.mkdir(parents=True)
        self.course.mkdir()
        self.libraries = folder / "libraries"
        self.libraries.mkdir()
        for path in _numpy():
            (self.libraries / path.name).symlink_to(path)

    def add_worker(self, source: Path) -> None:
        shutil.copytree(source, self.inside, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        self._compile(self.inside)

    def add_package(self, course: Course, module: Module) -> None:
        self._compile(stage_package(course, module, self.course))

    def _compile(self, folder: Path) -> None:
        """Make the bytecode, since workers cannot keep theirs."""
        compileall.compile_dir(folder, quiet=2)

    def add_system(self) -> None:
        """The interpreter with the libraries that it loads, and empty places for what ``_walls`` mounts."""
        for file in (str(_python()), *_shared_libraries(), _LOADER_CACHE):
            if os.path.exists(file):
                self._place(file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self._place(file))
        for folder in ("/proc", "/tmp", "/dev", *_mounted().values()):
            self._place(folder).mkdir(parents=True, exist_ok=True)
        for device in _DEVICES:
            self._place(device).touch()
        for path in (self.root, *self.root.rglob("*")):  # the user inside is another one where root grades
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")


@cache
def why_not() -> str:
    """Why this machine cannot isolate a worker; empty if it can, which is tried."""
    with _private_folder() as folder, ExitStack() as resources:
        stage = _Stage(folder)
        stage.add_worker(INSIDE)
        stage.add_system()
        limits = Limits(10, 10, 1, 1, memory_mb=2048, threads=16, file_mb=1)
        return _why_not(lambda: resources.enter_context(closing(_Zygote(stage, limits))))


def _why_not(start: Callable[[], _Zygote]) -> str:
    """Why no worker can come of the process that ``start`` gives; empty if one can, which is tried."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    zygote = start()
    worker = _IsolatedWorker(zygote)
    ready = worker.wait_until_ready(_START_SECONDS)
    with suppress(OSError):
        worker.kill()
    return "" if ready else zygote.last_error() or f"no worker is ready after {_START_SECONDS:g} s"


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A temporary folder that we hold a lock on; it goes away at the end, or when someone next needs one."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or in use
            if time.time() - folder.stat().st_mtime > _NEW_SECONDS:
                with _locked(folder):
                    shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name, _locked(Path(name)):
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, which the system takes from us when we die; OSError if someone else has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _spawn(
    command: list[str],
    environment: dict[str, str],
    *,
    keep: tuple[int, ...],
    folder: str | None = None,
    errors: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=keep,
        start_new_session=True,  # a Ctrl-C is for the grader
    )


def _walls(stage: _Stage) -> list[str]:
    """The call of bwrap."""
    if os.geteuid() == 0:  # root makes the mounts, and ends what has become a user without rights
        privileges = ["--cap-drop", "ALL"]
        privileges += [word for name in ("SETUID", "SETGID", "KILL") for word in ("--cap-add", f"CAP_{name}")]
    else:  # bwrap leaves no process inside
        privileges = ["--unshare-user", "--as-pid-1"]
    return [
        shutil.which("bwrap") or "bwrap",
        *privileges,
        *("--cap-add", "CAP_SYS_ADMIN"),  # for the workers' own namespaces and folders
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session"),
        *("--ro-bind", str(stage.root), "/"),
        *(word for source, place in _mounted().items() for word in ("--ro-bind", source, place)),
        *(word for path in _installed() for word in ("--ro-bind", str(stage.root / "tmp"), path)),
        *("--proc", "/proc"),
        *(word for device in _DEVICES for word in ("--dev-bind", device, device)),
    ]


@cache
def _mounted() -> dict[str, str]:
    """The folders of this machine that stand in the sandbox, and where: the standard library and NumPy."""
    standard = sysconfig.get_path("stdlib")
    return {standard: standard} | {str(path): f"/libraries/{path.name}" for path in _numpy()}


def _installed() -> list[str]:
    """Folders of other packages in that of the standard library, to be covered."""
    found = [Path(sysconfig.get_path("stdlib")) / name for name in ("site-packages", "dist-packages")]
    return [str(path) for path in found if path.is_dir()]


def _python() -> Path:
    """The interpreter itself, not a virtual environment's link to it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _numpy() -> list[Path]:
    """NumPy's folder, and that of the libraries which its wheels bring, if they do."""
    spec = find_spec("numpy")
    assert spec and spec.origin
    folder = Path(spec.origin).parent
    return [path for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()]


@cache
def _shared_libraries() -> list[str]:
    """The paths that the system's loader finds for what the interpreter, its extensions and NumPy are linked to.

    The loader tells them in one go for extensions that it is to load first; links keep their paths free of spaces.
    """
    roots = [Path(sysconfig.get_path("stdlib")) / "lib-dynload", *_numpy()]
    extensions = [path for root in roots for path in root.rglob("*.so*") if not path.name.startswith("_tkinter")]
    with tempfile.TemporaryDirectory(prefix="tito-") as folder:
        links = [Path(folder) / f"{number}.so" for number in range(len(extensions))]
        for link, extension in zip(links, extensions, strict=True):
            link.symlink_to(extension)
        trace = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": ":".join(map(str, links))}
        python = [str(_python()), "-I", "-S", "-c", ""]
        done = subprocess.run(python, env=trace, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = re.findall(r"(/\S.*) \(0x[0-9a-f]+\)$", done.stdout, re.MULTILINE)
        own = tuple(f"{root}/" for root in (folder, *roots))
        return sorted(path for path in set(found) if not path.startswith(own))


def _interpreter(inside: str, confinement: dict[str, Any], connection: int, *folders: str) -> list[str]:
    """The call of Python with launch.py, which imports from ``folders``."""
    python = [str(_python()), "-I", "-S", "-B", "-X", "utf8", f"{inside}/launch.py"]
    return [*python, json.dumps(confinement), str(connection), *folders]


def _confinement(limits: Limits, *, isolated: bool) -> dict[str, Any]:
    return {
        "isolated": isolated,
        "limits": {
            "RLIMIT_AS": limits.memory_mb * _MB,
            "RLIMIT_CPU": limits.notebook_seconds,
            "RLIMIT_FSIZE": limits.file_mb * _MB,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_CORE": 0,
        },
        # only behind walls: elsewhere they are for all that the grader's user does; a namespace counts by itself
        # since Linux 5.14
        "own_limits": {"RLIMIT_NPROC": limits.threads, "RLIMIT_MSGQUEUE": 0, "RLIMIT_MEMLOCK": 0},
        "folder": f"size={limits.file_mb * _MB},nr_inodes={_FILES},mode=1777",
    }


_started = count()


def _worker_uid() -> int | None:
    """Where root grades, a user id for one worker that nobody has: the system counts threads by user."""
    if os.geteuid() != 0:
        return None
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [[int(field) for field in line.split()] for line in lines]
    first, _, length = max(ranges, key=lambda fields: fields[2])
    last = min(first + length, 1 << 31) - 1
    taken = os.getpid() * _UIDS_A_PROCESS + next(_started) % _UIDS_A_PROCESS
    return last - taken % max(1, (last - first) // 2)


def _environment(home: str) -> dict[str, str]:
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {"PATH": "/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8", **dict.fromkeys(threads, "1")}


def _hung_up(connection: socket.socket) -> bool:
    """True if the other side has closed its end."""
    return connection.fileno() >= 0 and _polled(connection, 0, 0)


def _polled(connection: socket.socket, events: int, seconds: float) -> bool:
    """Whether one of ``events``, or the other side's hanging up, comes within ``seconds``."""
    watch = select.poll()
    watch.register(connection, events)
    return bool(watch.poll(seconds * 1000))
