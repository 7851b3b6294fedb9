"""What a process does to itself before it runs a student's code: limits, no rights, and few system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
from typing import Any

# kernel's numbers of the system calls that end in EPERM, on x86-64 and on 64-bit ARM
_REFUSED = {
    # a second process would have memory and processor time of its own; threads stay possible
    "fork": (57, None),
    "vfork": (58, None),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    # other namespaces, other processes, and the corners of the kernel that break-outs begin in
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
_CLONE, _CLONE3, _SOCKET, _PRCTL = (56, 220), (435, 435), (41, 198), (157, 167)
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000  # x86-64's second set of system calls, which the numbers above do not name

_CLONE_THREAD = 0x10000
_AF_UNIX = 1
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 22, 2
_CAPABILITY_VERSION = 0x20080522

# one instruction of the kernel's filter language is an operation, two jumps (if true, if false) and a number
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_Instruction = tuple[int, int, int, int]
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # where the kernel puts them for a filter
_ALLOW: _Instruction = (_RETURN, 0, 0, 0x7FFF0000)
_KILL: _Instruction = (_RETURN, 0, 0, 0x80000000)


def confine(confinement: dict[str, Any], uid: int | None) -> None:
    """Take up the limits, give up every right, and refuse system calls; ``uid`` is the user to become, if any."""
    limit(confinement["limits"])
    limit(confinement["own_limits"])
    if uid is not None:
        _become(uid)
    call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))  # which the kernel forgets when the user changes
    _give_up_capabilities()
    _filter_system_calls()


def limit(limits: dict[str, int]) -> None:
    """Set limits by their names in :mod:`resource`, here and in all that comes of this process, for good."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _give_up_capabilities() -> None:
    """Empty all three sets, of which the kernel takes two halves."""
    call("capset", struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(2 * 3 * 4))


def _filter_system_calls() -> None:
    instructions = _filter(os.uname().machine)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p))
    call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def call(function: str, *arguments: Any) -> None:
    """Call a function of the C library, which Python's own do not reach."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


def _filter(machine: str) -> list[_Instruction]:
    """A seccomp filter: it looks at the number of each system call, and of three at the first argument too."""
    if machine not in _AUDIT_ARCH:
        raise OSError(f"system calls of {machine} are not known, those of {' and '.join(_AUDIT_ARCH)} are")
    column = list(_AUDIT_ARCH).index(machine)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        _KILL,
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32_BIT),
        _KILL,
    ]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            program += [(_IF_EQUAL, 0, 1, number), _refuse(errno.EPERM)]
    program += [(_IF_EQUAL, 0, 1, _CLONE3[column]), _refuse(errno.ENOSYS)]  # its flags are out of sight: use clone
    program += _allow_if(_CLONE[column], (_IF_ANY_BIT, 0, 1, _CLONE_THREAD))
    program += _allow_if(_SOCKET[column], (_IF_EQUAL, 0, 1, _AF_UNIX))  # namespaces do not part all families: vsock
    program += _allow_if(_PRCTL[column], (_IF_EQUAL, 1, 0, _PR_SET_PDEATHSIG))
    return [*program, _ALLOW]


def _refuse(error: int) -> _Instruction:
    return (_RETURN, 0, 0, 0x00050000 | error)


def _allow_if(number: int, test: _Instruction) -> list[_Instruction]:
    """Of the system call ``number``, allow what ``test`` finds right in its first argument."""
    return [(_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT), test, _ALLOW, _refuse(errno.EPERM)]
