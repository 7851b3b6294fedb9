"""The worker: runs a student's cells in the sandbox, and does with their objects what a test asks for.

``launch.py`` has seen to the limits and to where modules come from, and calls ``main``. The worker serves requests, one
frame each, and answers each with one frame; in between it may send calls of functions that a test handed over.
Nothing that it says is believed on the other side, since the student's code can do here whatever it likes.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import gc
import io
import linecache
import re
import socket
import sys
import threading
import traceback
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from importlib.machinery import ModuleSpec
from operator import or_
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.random  # it would be loaded when it is first used, by each worker anew

if TYPE_CHECKING:
    from tito.grading.isolated.inside.wire import (
        MODULES,
        MOST_FOLLOWED,
        MOST_TEXT,
        Channel,
        Packer,
        Unpacker,
        UnsendableError,
    )
else:
    from wire import MODULES, MOST_FOLLOWED, MOST_TEXT, Channel, Packer, Unpacker, UnsendableError

MOST_NESTED = 2000  # lists and dicts in one value that can be written through
LISTED: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()), deque)
DICTS = (dict, Counter, OrderedDict, defaultdict)
MUTABLE = (list, set, bytearray, *DICTS)
MOST_ECHO = 2000  # characters of a cell's last value
# compiler flags of `from __future__ import ...`; the first is also that of any nested function
FUTURES = reduce(or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[1:]))


class Handles:
    """The objects that the other side knows by number.

    ``sent`` counts how often a number went out: the other side drops an object only with the count that it has seen, so
    that a number on its way back to it stays good. Arrays, lists and dicts are also watched for changes.
    """

    def __init__(self) -> None:
        self.objects: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.watched: dict[int, Any] = {}
        self.last = 0

    def number(self, value: Any) -> int:
        found = self.numbers.get(id(value))
        if found is None:
            self.last += 1
            found = self.keep(self.last, value)
        self.sent[found] = self.sent.get(found, 0) + 1
        return found

    def keep(self, number: int, value: Any) -> int:
        self.objects[number] = value
        self.numbers[id(value)] = number
        return number

    def drop(self, number: int, seen: int) -> None:
        if number in self.objects and self.sent.get(number, 0) <= seen:
            del self.numbers[id(self.objects.pop(number))]
            self.sent.pop(number, None)
            self.watched.pop(number, None)


class Callback:
    """A function of the test: calling it asks the other side to."""

    def __init__(self, worker: Worker, number: int, name: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__number = number
        self.__worker = worker

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__worker.call_back(self.__number, args, kwargs)

    def __repr__(self) -> str:
        return f"<function {self.__name__}>"


class WorkerPacker(Packer):
    """Sends what is no plain data as a handle; of ``state``, which a test may change, lists and dicts have one too."""

    def __init__(self, worker: Worker, state: bool = False) -> None:
        super().__init__()
        self.worker = worker
        self.handles = worker.handles
        self.room = MOST_NESTED if state else 0

    def pack_list(self, value: list[Any], depth: int) -> Any:
        form = super().pack_list(value, depth)
        return form if not self._takes(value) else ["L", self._watch(value), form[1]]

    def pack_dict(self, value: dict[Any, Any], depth: int) -> Any:
        form = super().pack_dict(value, depth)
        return form if not self._takes(value) else ["D", self._watch(value), form[1]]

    def _takes(self, value: object) -> bool:
        self.room -= 1
        return self.room >= 0 or id(value) in self.handles.numbers

    def _watch(self, value: Any) -> int:
        number = self.handles.number(value)
        self.handles.watched[number] = snapshot(value)
        return number

    def pack_array(self, value: np.ndarray[Any, Any]) -> Any:
        if value.dtype == object:
            return self.pack_object(value)
        number = self.handles.numbers.get(id(value))
        if number is not None and number < 0:  # the test's own array
            return ["h", number]
        form = self.raw_array(value)
        number = self.handles.number(value)
        if value.nbytes <= MOST_FOLLOWED:
            self.handles.watched[number] = self.body[-1]
        return ["a", number, *form]

    def pack_object(self, value: Any) -> Any:
        if type(value) in LISTED:
            return self.pack(list(value))
        if type(value) in DICTS:
            return self.pack_dict(value, 0)
        if type(value) is Callback:
            return ["k", value._Callback__number]  # type: ignore[attr-defined]
        if isinstance(value, BaseException):
            return ["x", *self.worker.describe(value)]
        kind = type(value)
        nature = "E" if isinstance(value, type) and issubclass(value, BaseException) else ""
        lineage = _names(value) if nature else []
        return ["o", self.handles.number(value), f"{kind.__name__}"[:200], nature + "C" * callable(value), lineage]


class WorkerUnpacker(Unpacker):
    def __init__(self, worker: Worker, body: memoryview) -> None:
        super().__init__(body)
        self.worker = worker
        self.makers |= {
            "h": lambda number: worker.handles.objects[number],
            "k": self._callback,
            "g": lambda module, name: getattr(MODULES[module], name),
            "x": worker.exception,
            "G": self._generator,
            "O": self._array_of_objects,
        }

    def _callback(self, number: int, name: str) -> Callback:
        return self.worker.callbacks.setdefault(number, Callback(self.worker, number, name))

    def _array_of_objects(self, items: list[Any], shape: list[int]) -> np.ndarray[Any, Any]:
        array = np.empty(len(items), object)
        array[:] = [self.unpack(item) for item in items]
        return array.reshape(shape)

    def _generator(self, state: Any) -> np.random.Generator:
        copied = np.random.default_rng()
        copied.bit_generator.state = self.unpack(state)
        return copied

    def unpack_array(self, handle: int, dtype: str, shape: list[int]) -> Any:
        array = self.raw_array(dtype, shape).copy()  # owns its memory, as an array that was just made does
        if handle:
            self.worker.handles.keep(handle, array)
            if array.nbytes <= MOST_FOLLOWED:
                self.worker.handles.watched[handle] = array.tobytes()
        return array


class Output(io.TextIOBase):
    """What a cell prints: the first of it is kept, the rest counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[str] = []
        self.kept = 0
        self.came = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.came += len(text)
        if self.kept < self.most:
            part = text[: self.most - self.kept]
            self.parts.append(part)
            self.kept += len(part)
        return len(text)

    def take(self) -> list[Any]:
        """What was printed since the last time, and how many characters more were not kept."""
        text, lost = "".join(self.parts), self.came - self.kept
        self.parts, self.kept, self.came = [], 0, 0
        return [text, lost]


class Shell:
    """What a cell finds as ``get_ipython()``: magics that time code run it, the others say that they do nothing."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def run_cell_magic(self, name: str, line: str, body: str) -> None:
        if name in ("time", "timeit", "capture", "prun"):
            exec(compile(body, f"<%%{name}>", "exec"), self.worker.names)
        else:
            print(f"%%{name} does nothing here")

    def run_line_magic(self, name: str, line: str, *_: Any, **__: Any) -> None:
        if name in ("time", "prun"):
            exec(compile(line, f"<%{name}>", "exec"), self.worker.names)
        else:
            print(f"%{name} does nothing here")

    def system(self, command: str) -> None:
        print("! does nothing here")

    def getoutput(self, command: str, *_: Any, **__: Any) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Nothing:
    """What a library that draws gives here: all can be done with it, and nothing comes of it."""

    def __getattr__(self, name: str) -> Nothing:
        return Nothing()

    def __call__(self, *_: Any, **__: Any) -> Nothing:
        return Nothing()

    def __getitem__(self, _: Any) -> Nothing:
        return Nothing()

    def __iter__(self) -> Iterator[Nothing]:
        return iter((Nothing(), Nothing()))  # figure, axes = plt.subplots()


class NoFigures:
    """Lets cells import matplotlib, which is not in the sandbox: nobody looks at figures there.

    It finds and loads the library as the classes of importlib.abc do, whose import takes longer than all of ours.
    """

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name.split(".")[0] != "matplotlib":
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda name: Nothing()  # type: ignore[method-assign]


class Worker:
    def __init__(self, connection: socket.socket) -> None:
        self.channel = Channel(connection)
        self.handles = Handles()
        self.output = Output(0)
        self.futures = 0
        self.serving = threading.get_ident()
        self.callbacks: dict[int, Callback] = {}
        self.turn = 0
        sys.modules["__main__"] = ModuleType("__main__")
        self.names: dict[str, Any] = sys.modules["__main__"].__dict__
        self.names |= {"display": self._display, "get_ipython": lambda: Shell(self)}
        sys.displayhook = self._display

    def serve(self, until: int = 0) -> Any:
        """Answer requests: forever, or until what the test's function returned comes, for the call ``until``."""
        while True:
            header, body = self.channel.receive()
            unpacker = WorkerUnpacker(self, body)
            if "returns" in header and header["returns"] == until:
                self._prepare(header, unpacker)
                if "raises" in header:
                    raise unpacker.unpack(header["raises"])
                return unpacker.unpack(header["value"])
            self._answer(header, unpacker)

    def _answer(self, header: dict[str, Any], unpacker: WorkerUnpacker) -> None:
        state = bool(header.get("state"))
        packer, answer = WorkerPacker(self, state), {"id": header["id"]}
        arguments: list[Any] = []
        try:
            self._prepare(header, unpacker)
            function, positional, named = (unpacker.unpack(part) for part in header["call"])
            arguments = [*positional, *named.values()]
            before = [snapshot(value) for value in arguments]
            value = self._do(function, positional, named)
            answer["value"] = packer.pack(value)
            answer["touched"] = self._touched(packer, arguments, before)
        except BaseException as error:
            packer = WorkerPacker(self)
            answer = {"id": header["id"], "error": packer.pack(error)}
        self._send(packer, answer)

    def _prepare(self, header: dict[str, Any], unpacker: WorkerUnpacker) -> None:
        for number, form in header.get("write", ()):
            self._write(number, unpacker.unpack(form))
        for number, seen in header.get("drop", ()):
            self.handles.drop(number, seen)
        if "errors" in header:
            np.seterr(**header["errors"])

    def _do(self, function: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        match function if type(function) is str else None:
            case "cell":
                return self.run_cell(*positional)
            case "global":
                return self.names[positional[0]]
            case "import":
                __import__(positional[0])
                return sys.modules[positional[0]]
            case "printed":
                return self.output.take()
            case "sync":
                return None
        return function(*positional, **named)

    def _write(self, number: int, value: Any) -> None:
        target = self.handles.objects[number]
        if isinstance(target, np.ndarray):
            target[...] = value
            if number in self.handles.watched:
                self.handles.watched[number] = target.tobytes()
        elif isinstance(target, dict):
            target.clear()
            target.update(value)
        else:
            target[:] = value

    def _touched(self, packer: WorkerPacker, arguments: list[Any], before: list[Any]) -> list[Any]:
        """Which of the call's own lists and dicts have changed, by position, with what they are now."""
        return [
            [place, packer.pack(value)]
            for place, (value, was) in enumerate(zip(arguments, before, strict=True))
            if type(value) in MUTABLE and id(value) not in self.handles.numbers and not is_as_it_was(value, was)
        ]

    def _send(self, packer: WorkerPacker, message: dict[str, Any]) -> None:
        try:
            self._note_changes(packer, message)
            self.channel.send(message, packer.body)
        except UnsendableError as error:
            packer = WorkerPacker(self)
            failure = TypeError(f"what came of it cannot be looked at: {error}")
            if "id" not in message:
                raise failure from None
            self.channel.send({"id": message["id"], "error": packer.pack(failure)}, packer.body)

    def _note_changes(self, packer: WorkerPacker, message: dict[str, Any]) -> None:
        """Tell of every watched array, list and dict that is not what the other side last saw."""
        changed = []
        for number, was in list(self.handles.watched.items()):
            value = self.handles.objects[number]
            if isinstance(value, np.ndarray):
                if (now := value.tobytes()) != was:
                    self.handles.watched[number] = now
                    changed.append([number, ["a", 0, *packer.raw_array(value)]])
            elif not is_as_it_was(value, was):
                changed.append([number, packer.pack(value)])
        if changed:
            message["changed"] = changed

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the test's function ``number`` returns."""
        if threading.get_ident() != self.serving:
            raise RuntimeError("a function of a test was called from another thread")
        self.turn = turn = self.turn + 1
        packer = WorkerPacker(self)
        message = {"calls": number, "turn": turn, "args": packer.pack(list(args)), "kwargs": packer.pack(dict(kwargs))}
        self._send(packer, message)
        return self.serve(until=turn)

    def run_cell(self, source: str, name: str, most: int) -> Any:
        """Run a cell; None, or the error that it raised."""
        self.output.most = most
        sys.stdout = sys.stderr = self.output
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            for code in self._compile(source, name):
                exec(code, self.names)
        except BaseException as error:
            return error
        return None

    def _compile(self, source: str, name: str) -> list[CodeType]:
        tree = compile(source, name, "exec", self.futures | ast.PyCF_ONLY_AST, dont_inherit=True)
        shown = tree.body[-1:] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
        if shown and not source.rstrip().endswith(";"):
            tree.body = tree.body[:-1]
        else:
            shown = []
        parts = [(tree, "exec"), *((ast.Interactive(shown), "single") for _ in shown)]
        made = []
        for part, mode in parts:
            made.append(compile(part, name, mode, self.futures, dont_inherit=True))
            self.futures |= made[-1].co_flags & FUTURES
        return made

    def _display(self, *values: Any) -> None:
        for value in values:
            if value is not None:
                print(repr(value)[:MOST_ECHO])

    def describe(self, error: BaseException) -> list[Any]:
        """An exception: its class's names, its class, its text, the test's own number for it, where it came from."""
        kind = type(error)
        handle = None if kind.__module__ == "builtins" else self.handles.number(kind)
        return [_names(kind), handle, _text(error), getattr(error, "_tests_own", None), _places(error)]

    def exception(self, names: list[str], text: str, number: int) -> BaseException:
        """The exception that a function of the test raised."""
        kind = next((k for name in names if isinstance(k := getattr(builtins, name, None), type)), RuntimeError)
        try:
            error: BaseException = kind(text)
            error._tests_own = number  # type: ignore[attr-defined]
        except Exception:
            error = RuntimeError(text)
        return error


def _names(kind: type) -> list[str]:
    return [one.__name__ for one in kind.__mro__[:20]]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MOST_TEXT]
    except BaseException as other:
        return f"(its text cannot be had: {type(other).__name__})"


def _places(error: BaseException) -> list[list[Any]]:
    """The notebook's lines that the error came through: the name of a cell, and a line in it."""
    if isinstance(error, SyntaxError) and re.match(r"<cell ", error.filename or ""):
        return [[error.filename, error.lineno or 1]]
    frames = traceback.walk_tb(error.__traceback__)
    return [
        [frame.f_code.co_filename, line] for frame, line in frames if frame.f_code.co_filename.startswith("<cell ")
    ][-20:]


def snapshot(value: Any) -> Any:
    """What tells later whether a list or dict, or one in it, was changed: copies that hold the same objects."""
    if type(value) is list:
        return [snapshot(item) for item in value]
    if type(value) in DICTS:
        return {key: snapshot(item) for key, item in value.items()}
    return value.copy() if type(value) in (set, bytearray) else value


def is_as_it_was(value: Any, was: Any) -> bool:
    if type(value) is list:
        return len(value) == len(was) and all(map(is_as_it_was, value, was))
    if type(value) in DICTS:
        return [*value] == [*was] and all(map(is_as_it_was, value.values(), was.values()))
    return value == was if type(value) in (set, bytearray) else value is was


def main(number: int) -> None:
    """Serve the socket ``number`` until the grader has gone."""
    np.random.seed()  # other workers may be copies of the same process
    gc.freeze()
    gc.enable()
    sys.meta_path.append(NoFigures())
    with suppress(EOFError, ConnectionError):
        Worker(socket.socket(fileno=number)).serve()
