"""A process that has loaded the libraries that ``tito`` needs, and becomes ``python -m tito`` or nbgrader by a fork.

Most commands take longer to load them than for what they do. A command that is run here is a process of its own, with
the ``tito`` and the ``tinytorch`` of its own tree, as any other; but what Python itself reads when it starts, such as
``PYTHONIOENCODING``, is that of the process that was there before.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

LIBRARIES = (
    "click",
    "jupytext",
    "nbclient",
    "nbformat",
    "nbgrader.api",
    "nbgrader.apps",
    "nbgrader.converters",
    "numpy",
    "psutil",
    "rich.console",
    "rich.progress",
    "rich.table",
    "yaml",
)
_START_SECONDS = 300  # for the process itself, on a busy machine


class Preloaded:
    """The process, which the first command starts, and which ends with us."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, program: str, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m program *args`` in the folder ``cwd``, with no input.

        Raises
        ------
        subprocess.TimeoutExpired
            If it takes more than ``timeout`` seconds; then it was killed.
        """
        line = self._line if self._process else self._start()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            order = json.dumps({"argv": [program, *args], "cwd": str(cwd), "env": dict(env)}).encode()
            line.settimeout(_START_SECONDS)
            socket.send_fds(line, [len(order).to_bytes(4, "big")], [out.fileno(), err.fileno()])
            line.sendall(order)
            pid = _receive(line)
            try:
                line.settimeout(timeout)
                status = _receive(line)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                line.settimeout(_START_SECONDS)
                _receive(line)
                raise subprocess.TimeoutExpired(list(args), timeout) from None
            return subprocess.CompletedProcess(list(args), status, _text(out), _text(err))

    def _start(self) -> socket.socket:
        self._line, theirs = socket.socketpair()
        with theirs:
            handle = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(handle)],
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # a process that forks should have no threads
                stdin=subprocess.DEVNULL,
                pass_fds=[handle],
            )
        atexit.register(self._end)
        return self._line

    def _end(self) -> None:
        assert self._process
        self._line.close()
        self._process.wait()


PRELOADED = Preloaded()  # for all tests that share a process


def _receive(line: socket.socket) -> int:
    """A number, of eight bytes."""
    return int.from_bytes(_exactly(line, 8), "big", signed=True)


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = line.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _serve(line: socket.socket) -> list[str] | None:
    """Begin one process after the other; in each of them, what it is to run; None when nobody wants any more."""
    while True:
        size, handles, _, _ = socket.recv_fds(line, 4, 2)
        if not size:
            return None
        order = json.loads(_exactly(line, int.from_bytes(size, "big")))
        pid = os.fork()
        if pid == 0:
            line.close()
            _become(order["cwd"], order["env"], handles)
            return list(order["argv"])
        for handle in handles:
            os.close(handle)
        line.sendall(pid.to_bytes(8, "big"))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        line.sendall(status.to_bytes(8, "big", signed=True))


def _become(cwd: str, env: dict[str, str], handles: list[int]) -> None:
    """Take the place of a process that Python has just started as ``python -m``."""
    for place, handle in enumerate(handles, start=1):
        os.dup2(handle, place)
        os.close(handle)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]


def _leave(status: int) -> None:
    """End as Python does, but for taking apart what is shared with the other processes, which takes long."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def main() -> None:
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()
    argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    if argv is None:
        return
    sys.argv = argv
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        _leave(end.code or 0)


if __name__ == "__main__":
    main()
