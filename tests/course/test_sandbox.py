"""The walls and limits of the sandbox, each tried from inside: as root, and as an ordinary user whom root becomes.

Run as a program, this file is the grader of the tests, which starts the workers; see ``serve``.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from inspect import cleandoc
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from tito.course import Course
from tito.errors import TitoError
from tito.grading.isolated import sandbox

MEMORY_MB, THREADS, FILE_MB, SECONDS = 300, 6, 4, 1
MB = 1 << 20
PATIENCE = 30.0
PACKAGES = Path(psutil.__file__).parents[1]
REPOSITORY = Path(__file__).parents[2]
USERS = ["root", "ordinary user"] if os.geteuid() == 0 else ["ordinary user"]
NOBODY = "65534"

# stands for worker.py: it runs the source that it is sent, which answers with `say`
WORKER = """
import ctypes, errno, json, os, signal, socket, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def say(value):
    connection.sendall((json.dumps(value) + "\\n").encode())

def refusal(action, *args):
    "The name of the error that the action gave; empty if it succeeded."
    try:
        action(*args)
    except BaseException as error:
        return type(error).__name__
    return ""

def main(number):
    global connection
    connection = socket.socket(fileno=number)
    exec(connection.makefile().read(), globals())
"""


class Grader:
    """This file as a program: it starts a worker for each source, and tells what became of it."""

    def __init__(self, course: Path, user: str) -> None:
        self.user = user
        self.folder = Path(tempfile.mkdtemp(dir=course.parent))
        self.folder.chmod(0o1777)
        start = as_nobody([Path(sys.base_prefix), PACKAGES, REPOSITORY]) if user != "root" and os.geteuid() == 0 else []
        path = os.pathsep.join([str(course), str(PACKAGES)])
        self.process = subprocess.Popen(
            [*start, os.path.realpath(sys.executable), "-B", __file__, str(course)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(self.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, source: str, **options: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"source": cleandoc(source)} | options) + "\n")
        self.process.stdin.flush()

    def run(self, source: str, **options: Any) -> dict[str, Any]:
        """What a worker ``said`` that ran ``source``, its ``ending`` and so on; see ``serve``."""
        assert self.process.stdout
        self.tell(source, **options)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def said(self, source: str, *, isolation: bool = True) -> Any:
        """The one thing that a worker said that ran ``source``."""
        outcome = self.run(source, isolation=isolation)
        assert len(outcome["said"]) == 1, outcome
        return outcome["said"][0]

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def serve(root: Path) -> None:
    """Answer each question on standard input with what became of a worker, or of several that run ``together``.

    ``said``: what it said, in ``seconds``; ``running``: whether it was alive then, with ``cpu_seconds`` used;
    ``ending`` and ``again``: what killing it twice said; and what this process holds after that.
    """
    with sandbox_of(root) as walled, sandbox_of(root, isolation=False) as plain:
        for line in sys.stdin:
            question = json.loads(line)
            begin = time.monotonic()
            with ThreadPoolExecutor(1) as pool:  # its thread ends at once, and that must not end the workers
                start = walled.start if question.get("isolation", True) else plain.start
                workers = [pool.submit(start).result() for _ in range(question.get("together", 1))]
            for worker in workers:
                worker.connection.settimeout(question.get("seconds", PATIENCE))
                worker.connection.sendall(question["source"].encode())
                worker.connection.shutdown(1)
            said = []
            for worker in workers:
                with suppress(TimeoutError):
                    for answer in worker.connection.makefile():
                        said.append(json.loads(answer))
            outcome = {"said": said, "running": worker.alive(), "cpu_seconds": worker.cpu_seconds()}
            outcome["seconds"] = time.monotonic() - begin
            if not question.get("keep"):
                outcome |= {"ending": worker.kill(), "again": worker.kill()}
            for other in workers[:-1]:
                other.kill()
            print(json.dumps(outcome | holds()), flush=True)


def holds() -> dict[str, Any]:
    """What this process has: open files, children, threads, mounts, and everything in its temporary folder."""
    me = psutil.Process()
    return {
        "pid": me.pid,
        "files": me.num_fds(),
        "children": sorted(children()),
        "threads": me.num_threads(),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "temporary": sorted(str(path) for path in Path(tempfile.gettempdir()).rglob("*")),
    }


def children() -> set[int]:
    """The processes that this one has started, and those in turn."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def sandbox_of(root: Path, *, isolation: bool = True) -> sandbox.Sandbox:
    sandbox.INSIDE = root / "inside"
    course = Course(root)
    return sandbox.Sandbox(course, course.module("02"), isolation=isolation)


def as_nobody(readable: list[Path]) -> list[str]:
    """The start of a command that runs as an ordinary user who can reach these folders.

    Where a folder above is closed to others, as /root is, an open one stands in its place with just that below.
    """
    words = ["bwrap", "--dev-bind", "/", "/"]
    for path in readable:
        way = [*reversed(path.parents), path]
        closed = next((folder for folder in way if not folder.stat().st_mode & 0o001), None)
        if closed and str(closed) not in words:
            words += ["--perms", "0755", "--tmpfs", str(closed)]
        if closed:
            words += [
                word for folder in way[way.index(closed) + 1 :] for word in ("--perms", "0755", "--dir", str(folder))
            ]
            words += ["--bind", str(path), str(path)]
    return [*words, "--", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


@pytest.fixture(scope="module")
def course_root(tmp_path_factory: pytest.TempPathFactory, _exported: Path) -> Iterator[Path]:
    """The tiny course with small limits and the worker of these tests, in a folder that everyone can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "course"
        shutil.copytree(_exported, root)
        settings = root / "settings.ini"
        text = settings.read_text()
        limits = {"memory_mb": MEMORY_MB, "threads": THREADS, "file_mb": FILE_MB, "notebook_seconds": SECONDS}
        for key, value in limits.items():
            text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.MULTILINE)
        settings.write_text(text)
        (root / "gradebook.db").write_text("grades")
        genuine = sandbox.INSIDE
        shutil.copytree(genuine, root / "inside")
        (root / "inside" / "worker.py").write_text(WORKER)
        yield root
        sandbox.INSIDE = genuine  # other tests may follow in this process


@pytest.fixture(scope="module", params=USERS)
def grader(request: pytest.FixtureRequest, course_root: Path) -> Iterator[Grader]:
    grader = Grader(course_root, request.param)
    yield grader
    grader.close()


@pytest.fixture(params=[True, False], ids=["isolated", "not isolated"])
def isolation(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_only_what_a_worker_needs_is_there(grader: Grader) -> None:
    seen = grader.said("""
        numbers = [n for n in range(4096) if not refusal(os.fstat, n)]
        say({
            "cwd": [os.getcwd(), os.listdir()],
            "environment": sorted(os.environ),
            "files": [n for n in numbers if n != connection.fileno()],
            "processes": [name for name in os.listdir("/proc") if name.isdigit()],
            "devices": sorted(os.listdir("/dev")),
            "etc": os.listdir("/etc"),
            "host": os.uname().nodename,
            "links": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
        })
    """)
    threads = ["MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    assert seen == {
        "cwd": ["/tmp/work", []],
        "environment": ["HOME", "LANG", *threads, "PATH", "PWD"],
        "files": [0, 1, 2],
        "processes": ["1"],
        "devices": ["null", "random", "urandom"],
        "etc": ["ld.so.cache"],
        "host": "sandbox",
        "links": ["lo"],
    }


def test_earlier_modules_and_numpy_can_be_imported_and_nothing_else(grader: Grader, isolation: bool) -> None:
    source = """
        import importlib, numpy, tinytorch.core.setup
        import sqlite3, ssl  # which load libraries of the machine
        names = ["tinytorch.core.tensor", "tito", "nbgrader", "matplotlib", "yaml", "pip"]
        say([numpy.ones(3).dot(numpy.ones(3)), [refusal(importlib.import_module, name) for name in names]])
        """
    assert grader.said(source, isolation=isolation) == [3.0, ["ModuleNotFoundError"] * 6]


def test_files_of_the_machine_are_out_of_reach(grader: Grader, course_root: Path) -> None:
    """Neither by their paths, nor through links, nor through what /proc tells of processes."""
    paths = [course_root / "gradebook.db", __file__, PACKAGES / "yaml", "/etc/passwd", "/usr", "/home", "/var", "/sys"]
    assert all(os.path.exists(path) for path in paths)
    found = grader.said(f"""
        found = []
        for path in {[str(path) for path in paths]}:
            os.symlink(path, "link")
            ways = [path, "link", "/proc/1/root" + path, "/proc/self/cwd/../.." + path]
            found += [way for way in ways if os.path.exists(way)]
            os.unlink("link")
        import sysconfig
        found += os.listdir(sysconfig.get_path("stdlib") + "/site-packages")
        say(found)
    """)
    assert found == []


def test_nothing_but_the_private_folder_can_be_written(grader: Grader) -> None:
    written = grader.said("""
        written = []
        for folder, _, files in os.walk("/"):
            if folder.startswith(("/proc", "/tmp", "/dev")):
                continue
            files = [folder + "/" + name for name in files[:3]]
            ways = [(open, folder + "/new", "w"), (os.chmod, folder, 0o777), (os.rename, folder, "/x")]
            ways += [(open, file, "a") for file in files] + [(os.unlink, file) for file in files]
            written += [way[1] for way in ways if not refusal(*way)]
        open("/tmp/free", "w").close()
        open("mine", "w").close()
        say(written)
    """)
    assert written == []


def test_no_network(grader: Grader) -> None:
    """Of all families only pairs of local sockets are left: some, like vsock's 40, are the same in all namespaces."""
    refused, pair = grader.said("""
        families = [socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40]
        say([[refusal(socket.socket, family, socket.SOCK_DGRAM) for family in families], refusal(socket.socketpair)])
    """)
    assert refused == ["PermissionError"] * 6
    assert pair == ""


def test_no_other_process_can_be_made_or_reached(grader: Grader) -> None:
    made, reached = grader.said(f"""
        import multiprocessing, subprocess
        child = [sys.executable, "-c", "import time; time.sleep(60)"]
        made = [
            refusal(os.fork), refusal(os.posix_spawn, child[0], child, {{}}), refusal(subprocess.Popen, child),
            refusal(multiprocessing.get_context("fork").Process(target=int).start),
        ]
        reached = [refusal(os.kill, pid, 0) for pid in (3, {os.getpid()}, {grader.process.pid}, -1)]
        say([made, reached])
    """)
    assert made == ["PermissionError"] * 4
    assert reached == ["ProcessLookupError"] * 4


def test_rights_are_given_up_and_cannot_be_had_again(grader: Grader) -> None:
    status, refused, limits = grader.said("""
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        keys = ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp", "Groups", "Uid")
        tried = [(os.setuid, 0), (os.setgroups, [0]), (os.chroot, "/tmp"), (os.nice, -5)]
        import resource
        kinds = (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE)
        limits = [resource.getrlimit(kind) for kind in kinds]
        say([{key: status[key].strip() for key in keys}, [refusal(*way) for way in tried], limits])
    """)
    assert all(refused)
    assert limits == [[0, 0]] * 3
    assert int(status.pop("CapEff"), 16) == int(status.pop("CapPrm"), 16) == 0
    uids = set(status.pop("Uid").split())
    assert len(uids) == 1 and "0" not in uids
    assert status == {"NoNewPrivs": "1", "Seccomp": "2", "Groups": ""}


def test_system_calls_that_lead_out_are_refused(grader: Grader) -> None:
    """Asked of the kernel by number, as x86-64 and then 64-bit ARM has them; no name of the C library is in between."""
    calls = {
        "unshare user": ((272, 97), 0x10000000),
        "clone user": ((56, 220), 0x10000000 | signal.SIGCHLD),
        "setns": ((308, 268), 0, 0),
        "mount": ((165, 40), "none", "/tmp/work", "tmpfs", 0, 0),
        "ptrace traceme": ((101, 117), 0),
        "keyctl": ((250, 219), 0, -3, 0),
        "bpf": ((321, 280), 0, 0, 0),
        "perf_event_open": ((298, 241), 0, 0, -1, -1, 0),
        "userfaultfd": ((323, 282), 0),
        "io_uring_setup": ((425, 425), 1, 0),
        "prctl: outlive the grader": ((157, 167), 1, 0, 0, 0, 0),
        "memfd_create": ((319, 279), "name", 0),
        "shmget": ((29, 194), 0, 1 << 30, 0o1600),
        "msgget": ((68, 186), 0, 0o1600),
        "semget": ((64, 190), 0, 1, 0o1600),
        "clone3": ((435, 435), 0, 0),
    }
    column = ["x86_64", "aarch64"].index(os.uname().machine)
    asked = {name: [numbers[column], *arguments] for name, (numbers, *arguments) in calls.items()}
    answers = grader.said(f"""
        answers = {{}}
        for name, arguments in {asked}.items():
            words = [word.encode() if isinstance(word, str) else ctypes.c_long(word) for word in arguments]
            answers[name] = "" if libc.syscall(*words) != -1 else errno.errorcode[ctypes.get_errno()]
        say(answers)
    """)
    assert answers == dict.fromkeys(asked, "EPERM") | {"clone3": "ENOSYS"}


if os.uname().machine == "x86_64":

    def test_second_set_of_system_calls_ends_the_worker(grader: Grader) -> None:
        outcome = grader.run("libc.syscall(0x40000000 | 39); say('still here')")
        assert outcome["said"] == [] and outcome["ending"] == "SIGSYS"


def test_threads_are_limited_for_each_worker(grader: Grader) -> None:
    """Their limit is the worker's own: two at a time have it each."""
    source = """
        def more():
            threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
            return more()
        threading.stack_size(65536)
        refusal(more)
        say(threading.active_count())
    """
    both = grader.run(source, together=2)
    assert both["said"] == [THREADS, THREADS]


def test_memory_is_limited(grader: Grader, isolation: bool) -> None:
    """What is asked for at once and bit by bit; afterwards the worker goes on."""
    source = """
        kept = []
        def fill():
            while True:
                kept.append(bytearray(10_000_000))
        at_once, bit_by_bit = refusal(bytearray, 1 << 40), refusal(fill)
        most = len(kept) * 10
        kept.clear()
        say([at_once, bit_by_bit, most])
    """
    at_once, bit_by_bit, most = grader.said(source, isolation=isolation)
    assert at_once == bit_by_bit == "MemoryError"
    assert MEMORY_MB / 3 < most < MEMORY_MB


def test_files_are_limited(grader: Grader) -> None:
    """A file, all files together, and how many there are and are open."""
    one, full, opened, empty = grader.said("""
        def fill(size, prefix):
            for number in range(1000):
                with open(f"/tmp/{prefix}{number}", "wb", buffering=0) as file:
                    while os.path.getsize(file.name) < size:
                        if not file.write(bytes(min(100_000, size - os.path.getsize(file.name)))):
                            raise OSError("full")
        def total():
            return sum(os.path.getsize(f"/tmp/{name}") for name in os.listdir("/tmp") if name != "work")
        refusal(fill, 1 << 40, "a")
        one = total()
        os.unlink("/tmp/a0")
        refusal(fill, 1_000_000, "b")
        full = total()
        kept = []
        refusal(lambda: [kept.append(open("/dev/null")) for _ in range(1000)])
        opened = len(kept)
        kept.clear()
        refusal(lambda: [os.mknod(f"/tmp/c{number}") for number in range(10_000)])
        say([one, full, opened, len(os.listdir("/tmp"))])
    """)
    assert all(FILE_MB * MB - 200_000 < size <= FILE_MB * MB for size in (one, full))
    assert 10 < opened < 100 and 1000 < empty < 3000


def test_file_size_is_limited_without_walls(grader: Grader) -> None:
    source = 'say([refusal(lambda: open("big", "wb").write(bytes(10_000_000))), os.path.getsize("big")])'
    assert grader.said(source, isolation=False) == ["OSError", FILE_MB * MB]


def test_processor_time_is_limited_and_told_by_the_system(grader: Grader, isolation: bool) -> None:
    """The worker ends by itself, whatever it does about signals; and its name is no number for us to read."""
    source = """
        name = ctypes.create_string_buffer(b") 9 9 9 9 9 9 9 9")
        libc.prctl(15, name, 0, 0, 0)
        for number in {*signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP}:
            refusal(signal.signal, number, signal.SIG_IGN)
        while time.process_time() < 0.6:
            pass
        say(time.process_time())
        """
    told = grader.run(source + "connection.shutdown(1); time.sleep(60)", isolation=isolation)
    assert told["running"] and abs(told["cpu_seconds"] - told["said"][0]) < 0.2
    spent = grader.run(source + "while True: pass", isolation=isolation)
    assert "processor time" in spent["ending"]


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("os._exit(3)", "exit status 3"),
        ("raise SystemExit(4)", "exit status 4"),
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("connection.shutdown(2); connection.close(); time.sleep(60)", ""),
        ("say(1); connection.shutdown(1); time.sleep(60)", ""),
    ],
)
def test_how_a_worker_ended_is_told(grader: Grader, isolation: bool, source: str, ending: str) -> None:
    outcome = grader.run(source, isolation=isolation)
    assert (outcome["ending"], outcome["again"]) == (ending, ending)
    assert outcome["seconds"] < 5


def test_nothing_is_left_behind(grader: Grader, isolation: bool) -> None:
    grader.run("say(1)", isolation=isolation)
    before = grader.run("say(1)", isolation=isolation)
    for source in ("os._exit(1)", "import tempfile; tempfile.mkstemp(); os.mkdir('x')", "raise SystemExit") * 2:
        after = grader.run(source, isolation=isolation)
    for kind in ("files", "threads", "mounts", "temporary"):
        assert after[kind] == before[kind], kind
    left = set(after["children"]) - set(before["children"])
    if isolation:
        assert_ended(left)  # its keeper tells of the end before its own
    assert isolation or not left


def assert_ended(pids: Iterable[int]) -> None:
    """The processes end within some seconds."""
    deadline = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_left_behind_when_the_sandbox_is_left(course_root: Path) -> None:
    others = children()
    with sandbox_of(course_root) as walled:
        workers = [walled.start() for _ in range(2)]
        assert all(worker.alive() for worker in workers)
        own = children() - others
        assert len(own) >= 3
    assert not any(worker.alive() for worker in workers)
    assert_ended(own)


def test_a_worker_finds_nothing_of_those_before_or_beside_it(grader: Grader) -> None:
    """They are copies of one process, which none of them has changed; each draws random numbers of its own."""
    source = """
        import builtins, random, tempfile
        import numpy as np
        say([
            os.listdir("/tmp"), os.listdir(), sorted(os.environ), hasattr(builtins, "mark"), np.pi,
            [name for name in os.listdir("/proc") if name.isdigit()],
            [np.random.random(), np.random.default_rng().random(), random.random()],
        ])
        open("/tmp/mark", "w").close()
        open("mark", "w").close()
        os.environ["MARK"] = "1"
        builtins.mark, np.pi = 1, 3
        time.sleep(0.2)
    """
    found = [*grader.run(source, together=2)["said"], grader.said(source)]
    *seen, drawn = zip(*found, strict=True)
    assert all(one == first for first, *others in seen for one in others)
    assert found[0][:2] == [["work"], []] and found[0][3:6] == [False, math.pi, ["1"]]
    assert len({number for numbers in drawn for number in numbers}) == 9


def test_signals_to_everybody_reach_the_worker_alone(grader: Grader) -> None:
    """Neither its keeper nor the process that it is a copy of: the one beside it goes on, and so do those after it."""
    lasting = {*grader.run("say(1)")["children"]} & {*grader.run("say(1)")["children"]}
    source = """
        say("here")
        time.sleep(0.3)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for target in (0, -1, os.getppid(), 2, 3):
                refusal(os.kill, target, number)
            refusal(os.killpg, 0, number)
        say("still here")
    """
    assert "here" in grader.run(source, together=2)["said"]
    after = grader.run("say(1)")
    assert after["said"] == [1]
    assert lasting <= {*after["children"]}


def test_a_worker_ends_with_its_keeper(course_root: Path) -> None:
    name = f"kept-{os.getpid()}"
    with sandbox_of(course_root) as walled:
        worker = walled.start()
        worker.connection.sendall(f"libc.prctl(15, b'{name}', 0, 0, 0); say('here'); time.sleep(60)".encode())
        worker.connection.shutdown(1)
        said = worker.connection.makefile()
        assert said.readline() == '"here"\n'
        (process,) = (one for one in psutil.process_iter(["name"]) if one.info["name"] == name)
        process.parent().kill()
        worker.connection.settimeout(PATIENCE / 2)
        assert said.read() == ""
        assert not worker.alive()


def test_a_lost_zygote_is_replaced_and_costs_no_student(course_root: Path) -> None:
    """One that the system ended; and one that cannot make a worker, which is told as what it is."""
    others = children()
    with sandbox_of(course_root) as walled:
        first = walled.start()
        first.connection.sendall(b"say('here'); time.sleep(60)")
        first.connection.shutdown(1)
        said = first.connection.makefile()
        assert said.readline() == '"here"\n'
        for pid in children() - others:
            with suppress(ProcessLookupError):  # it ended with one before it
                os.kill(pid, signal.SIGKILL)
        assert said.read() == ""
        assert "SIGKILL" in first.kill()
        second = walled.start()
        second.connection.sendall(b"say('here')")
        second.connection.shutdown(1)
        assert second.connection.makefile().read() == '"here"\n'
        with mock.patch.object(sandbox, "_worker_uid", lambda: "nobody"):
            lost = walled.start()
            assert lost.connection.makefile().read() == ""
            with pytest.raises(OSError, match="no worker can be started in the sandbox: TypeError"):
                lost.kill()


def test_daemons_end_where_there_are_no_walls(grader: Grader) -> None:
    """One in a session of its own, whose parent has gone; one that runs another program; and one that is stopped."""
    outcome = grader.run(
        """
        import subprocess
        heard, told = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            say(os.getpid())
            os.write(told, b".")
            time.sleep(60)
        os.wait()
        os.read(heard, 1)
        say(subprocess.Popen(["sleep", "60"]).pid)
        stopped = subprocess.Popen(["sleep", "60"])
        stopped.send_signal(signal.SIGSTOP)
        say(stopped.pid)
        connection.shutdown(1)
        os._exit(0)
        """,
        isolation=False,
    )
    assert len(outcome["said"]) == 3
    assert not any(alive(pid) for pid in outcome["said"])


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("user", USERS)
def test_nothing_outlives_a_grader_that_is_killed(
    course_root: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither bwrap and the worker, nor the folder once another grader comes by."""
    grader = Grader(course_root, user)
    source = """
        libc.prctl(1, 0, 0, 0, 0)
        for number in {*signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP}:
            refusal(signal.signal, number, signal.SIG_IGN)
        say(1)
        connection.shutdown(1)
        time.sleep(60)
    """
    outcome = grader.run(source, keep=True)
    assert outcome["said"] == [1] and len(outcome["children"]) >= 2
    os.kill(outcome["pid"], signal.SIGKILL)
    assert_ended(outcome["children"])
    grader.close()
    monkeypatch.setattr(tempfile, "tempdir", str(grader.folder))
    with sandbox_of(course_root, isolation=False) as mine:
        (own,) = set(grader.folder.iterdir()) - set(map(Path, outcome["temporary"]))
        for folder in grader.folder.iterdir():
            os.utime(folder, (0, 0))
        with sandbox_of(course_root, isolation=False):
            assert mine.start().alive()
            others = set(grader.folder.iterdir()) - {own}
            assert own.exists() and len(others) == 1 and not others & set(map(Path, outcome["temporary"]))


def test_machine_without_bubblewrap_is_told(course_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, and installed but forbidden to make namespaces; without isolation a worker starts all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for problem in ("bubblewrap is not installed", "No permissions to create new namespace"):
        sandbox.why_not.cache_clear()
        with pytest.raises(TitoError, match=problem) as refusal, sandbox_of(course_root):
            pass
        assert "apt-get install bubblewrap" in refusal.value.next_step and "--no-isolation" in refusal.value.next_step
        bwrap = tmp_path / "bwrap"
        bwrap.write_text("#!/bin/sh\necho bwrap: No permissions to create new namespace >&2\nexit 1\n")
        bwrap.chmod(0o755)
    sandbox.why_not.cache_clear()
    with sandbox_of(course_root, isolation=False) as plain:
        worker = plain.start()
        assert worker.alive() and not worker.isolated


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
