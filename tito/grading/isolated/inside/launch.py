"""The first code that runs in the sandbox. Once it has loaded what a worker needs, it copies itself for each worker.

Called as ``launch.py CONFINEMENT SOCKET FOLDER ...``, with folders to import from. CONFINEMENT is JSON: ``limits`` and
``own_limits`` in bytes, seconds and pieces by the names of :mod:`resource`, ``folder``, the options of the private
folder's file system, and whether we are ``isolated``. If we are not, SOCKET is the worker's own, and this process
becomes the worker. If we are, it is where workers are asked for: a message is the user to become, in JSON, and brings
two sockets, the worker's own and one for reports of it.

A worker has namespaces of its own for processes, mounts and what processes share; walls that are the same for all
workers, to files and network, are the sandbox's. Above each stands a keeper, a copy of us too, which ends the worker
when nobody listens to its reports any more. There are two reports: that the worker is ready, which the system signs
with the number of its process; and, when it has ended, its exit status, negative of a signal, and its processor time.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # which python -I keeps out
from confine import call, confine, limit  # type: ignore[import-not-found]

_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PROCESSES = 0x20000, 0x8000000, 0x10000000, 0x20000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8


def main() -> None:
    gc.disable()  # until all is imported; nothing of that is garbage
    sys.modules["_hashlib"] = None  # type: ignore[assignment]  # OpenSSL loads slowly; Python's own hashes serve as well
    confinement, number = json.loads(sys.argv[1]), int(sys.argv[2])
    sys.path += sys.argv[3:]
    sys.argv = [""]
    if not confinement["isolated"]:
        limit(confinement["limits"])
    import worker  # type: ignore[import-not-found]

    if confinement["isolated"]:
        number = _copied(confinement, number)
    worker.main(number)


def _copied(confinement: dict[str, Any], number: int) -> int:
    """Make workers as they are asked for; this returns in each of them, with the number of its socket."""
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with socket.socket(fileno=number) as requests:
        while True:
            request, sockets, *_ = socket.recv_fds(requests, 100, 2)
            if not request:
                os._exit(0)
            if os.fork() == 0:
                break
            for one in sockets:
                os.close(one)
    own, report = sockets
    _keep(json.loads(request)["uid"], own, report, confinement)
    return own


def _keep(uid: int | None, own: int, report: int, confinement: dict[str, Any]) -> None:
    """Stay as a keeper until the worker has ended; this returns in the worker, when it is confined."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _part(_NEW_PROCESSES | _NEW_MOUNTS | _NEW_IPC, new_user=uid is None)
    pid = os.fork()
    if pid:
        os.close(own)
        _wait(pid, report)
        os._exit(0)
    os.setsid()  # a signal to its own group must reach none of us
    if uid is None:
        confinement["own_limits"]["RLIMIT_NPROC"] += 1  # the keeper is of the same user
    _mount(b"proc", b"/proc", _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_PROGRAMS, "")
    _mount(b"tmpfs", b"/tmp", _NO_SUID | _NO_DEVICES, confinement["folder"])
    home = os.environ["PWD"] = os.environ["HOME"]
    os.mkdir(home)
    os.chmod(home, 0o777)
    os.chdir(home)
    confine(confinement, uid)
    os.write(report, b".")
    os.close(report)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _part(namespaces: int, *, new_user: bool) -> None:
    """Enter new namespaces; an ordinary user needs one of users too, in which the limit of processes counts anew."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", namespaces | new_user * _NEW_USER)
    if new_user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _mount(kind: bytes, where: bytes, flags: int, options: str) -> None:
    call("mount", kind, where, kind, ctypes.c_ulong(flags), options.encode())


def _wait(pid: int, report: int) -> None:
    """Report how the worker ended, and end it if nobody listens."""
    watch = select.poll()
    watch.register(report, select.POLLIN)
    worker = os.pidfd_open(pid)
    watch.register(worker, select.POLLIN)
    if worker not in [number for number, _ in watch.poll()]:
        os.kill(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    ended = {"code": os.waitstatus_to_exitcode(status), "cpu_seconds": used.ru_utime + used.ru_stime}
    os.write(report, json.dumps(ended).encode())


if __name__ == "__main__":
    main()
