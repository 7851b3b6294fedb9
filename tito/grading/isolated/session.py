"""A conversation with one worker: the tests ask, and believe nothing but plain data of bounded size."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from tito.grading.isolated.inside.wire import (
    MODULES,
    Channel,
    MalformedError,
    Packer,
    Unpacker,
    UnsendableError,
)
from tito.grading.isolated.ledger import Ledger, MirrorDict, MirrorList
from tito.grading.isolated.proxy import Proxy, make_proxy, number_of, suspect

_MOST_NESTED = 24  # requests within callbacks within requests
# raised here, the first two would end a loop of ours without a word; the others cannot be made of a text alone
_NOT_MIMICKED = (StopIteration, StopAsyncIteration, MemoryError, BaseExceptionGroup)
_MOST_NAME = 100  # characters of a class's name


class StudentError(Exception):
    """What a test gets for an exception of student code; it is also an instance of the built-in class it had there."""

    text = ""
    places: tuple[tuple[str, int], ...] = ()  # the notebook's lines that it came through: cell, line
    handle: int | None = None

    def __str__(self) -> str:
        return self.text


class WorkerLostError(BaseException):
    """The worker cannot be asked any more. It is no Exception, so that no test swallows it.

    ``kind`` is "timeout", "died" or "malformed".
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass
class Trace:
    """Where in the tests the reference solution gave plain data, and where objects.

    An object at a place where the reference gives plain data is not trusted: it may only be iterated over. A place is
    known by the cell's text, so that what was learned of one text is never said of another.
    """

    learning: bool
    texts: dict[str, str] = field(default_factory=dict)  # of the test cells, by the names of their files
    plain: dict[object, set[bool]] = field(default_factory=dict)

    def allows_object(self, frame: FrameType | None, value: Any) -> bool:
        place = self._place(frame)
        if self.learning:
            self.plain.setdefault(place, set()).add(not isinstance(value, Proxy))
        return self.plain.get(place) != {True}

    def _place(self, frame: FrameType | None) -> object:
        while frame is not None and frame.f_code.co_filename not in self.texts:
            frame = frame.f_back
        return frame and (self.texts[frame.f_code.co_filename], frame.f_code.co_firstlineno, frame.f_lasti)


class Session:
    """One worker, and what is known of it here."""

    def __init__(self, channel: Channel, trace: Trace) -> None:
        self.channel = channel
        self.trace = trace
        self.ledger = Ledger()
        self.deadline = time.monotonic()
        self.lost: WorkerLostError | None = None
        self.requests = 0
        self.nested = 0
        self.functions: dict[int, Callable[..., Any]] = {}  # of the test in hand, by id: student code may call them
        self.raised: dict[int, BaseException] = {}  # by those functions, by id
        self.touched: dict[int, tuple[Any, Any]] = {}  # by id: a list or dict of the test, what student code made of it
        self.error_classes: dict[object, type[StudentError]] = {}
        self.numpy_errors = np.geterr()

    def call(self, function: Any, *args: Any, named: dict[str, Any] | None = None, state: bool = False) -> Any:
        """What ``function`` gives on the student's side: one of theirs, or one that both sides know.

        Parameters
        ----------
        named
            Its keyword arguments.
        state
            The value belongs to an object: a list or dict comes as a mirror, through which it can be changed.

        Raises
        ------
        StudentError
            If student code raised an exception.
        WorkerLostError
            If the worker ended, took too long, or sent what no honest worker sends.
        UnsendableError
            If an argument cannot cross.
        """
        if self.lost is not None:
            raise self.lost
        self.requests += 1
        request: dict[str, Any] = {"id": self.requests, "state": int(state)}
        packer = _SessionPacker(self)
        self._tell_changes(request, packer)
        request["call"] = [packer.pack(function), packer.pack(list(args)), packer.pack(named or {})]
        self._send(request, packer)
        header, unpacker = self._reply_to(self.requests)
        error, value = self._understood(lambda: self._outcome(header, unpacker, [*args, *(named or {}).values()]))
        if error is not None:
            raise error
        if not self.trace.allows_object(sys._getframe(1), value) and isinstance(value, Proxy):
            suspect(value)
        return value

    def look(self, value: Any) -> Any:
        """``value``; of an array, list or dict of the test that student code has changed: what it has become there."""
        if self.lost is None and self.ledger.has_news():
            self.call("sync")
        number = self.ledger.number(value)
        theirs = getattr(self.ledger.arrays.get(number or 0), "theirs", None)
        if theirs is not None:
            return theirs
        held, became = self.touched.get(id(value), (None, None))
        return became if held is value and value is not None else _plain(value)

    def forget_test(self) -> None:
        """Drop what belongs to one test alone."""
        self.functions.clear()
        self.raised.clear()
        self.touched.clear()

    def lose(self, kind: str, reason: str) -> WorkerLostError:
        """Never ask the worker again."""
        self.lost = self.lost or WorkerLostError(kind, reason)
        return self.lost

    def _send(self, header: dict[str, Any], packer: Packer) -> None:
        try:
            self.channel.connection.settimeout(max(self.deadline - time.monotonic(), 0.01))
            self.channel.send(header, packer.body)
        except TimeoutError:
            raise self.lose("timeout", "the student's code did not listen") from None
        except OSError:
            raise self.lose("died", "the student's process ended") from None

    def _tell_changes(self, header: dict[str, Any], packer: Packer) -> None:
        if writes := self.ledger.writes(packer):
            header["write"] = writes
        if drops := self.ledger.drops():
            header["drop"] = drops
        if (errors := np.geterr()) != self.numpy_errors:
            header["errors"] = self.numpy_errors = errors

    def _reply_to(self, request: int) -> tuple[dict[str, Any], _SessionUnpacker]:
        self.nested += 1
        try:
            if self.nested > _MOST_NESTED:
                raise self.lose("malformed", f"calls from the test to student code and back nest {_MOST_NESTED} deep")
            while "calls" in (message := self._receive())[0]:
                self._serve(*message)
        finally:
            self.nested -= 1
        if message[0].get("id") != request:
            raise self.lose("malformed", "an answer to nothing that was asked")
        return message

    def _receive(self) -> tuple[dict[str, Any], _SessionUnpacker]:
        try:
            header, body = self.channel.receive(self.deadline)
        except TimeoutError:
            raise self.lose("timeout", "the student's code took too long") from None
        except (EOFError, OSError):
            raise self.lose("died", "the student's process ended") from None
        except MalformedError as error:
            raise self.lose("malformed", str(error)) from None
        if type(header) is not dict:
            raise self.lose("malformed", "a message that is none")
        return header, _SessionUnpacker(self, body)

    def _understood(self, read: Callable[[], Any]) -> Any:
        """What ``read`` makes of a message; if it makes nothing of it, the worker is lost."""
        try:
            return read()
        except (MalformedError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self.lose("malformed", f"{type(error).__name__}: {str(error)[:200]}") from None

    def _outcome(
        self, header: dict[str, Any], unpacker: _SessionUnpacker, arguments: list[Any]
    ) -> tuple[BaseException | None, Any]:
        """The error or the value that a reply brings."""
        error = value = None
        if "error" in header:
            error = unpacker.unpack(header["error"])
            if not isinstance(error, BaseException):
                raise MalformedError("an error that is none")
        else:
            value = unpacker.unpack(header["value"])
            for place, form in header.get("touched", ()):
                self.touched[id(arguments[place])] = arguments[place], unpacker.unpack(form)
        self._take_changes(header, unpacker)
        return error, value

    def _take_changes(self, header: dict[str, Any], unpacker: _SessionUnpacker) -> None:
        for number, form in header.get("changed", ()):
            self.ledger.take_change(number, unpacker.unpack(form))

    def _serve(self, header: dict[str, Any], unpacker: _SessionUnpacker) -> None:
        """Call a function of the test, as student code asks, and send what it returns or raises."""
        function, args, kwargs = self._understood(lambda: self._called(header, unpacker))
        packer, answer = _SessionPacker(self, follow=False), {"returns": header.get("turn")}
        try:
            value = function(*args, **kwargs)
            self._tell_changes(answer, packer)
            answer["value"] = packer.pack(value)
        except Exception as error:
            packer = _SessionPacker(self)
            answer = {"returns": header.get("turn"), "raises": packer.pack(error)}
        self._send(answer, packer)

    def _called(self, header: dict[str, Any], unpacker: _SessionUnpacker) -> tuple[Any, list[Any], dict[str, Any]]:
        function = self.functions[header["calls"]]
        args, kwargs = unpacker.unpack(header["args"]), unpacker.unpack(header["kwargs"])
        if type(args) is not list or type(kwargs) is not dict or not all(type(name) is str for name in kwargs):
            raise MalformedError("arguments that are none")
        self._take_changes(header, unpacker)
        return function, args, kwargs


class _SessionPacker(Packer):
    """Sends what the student's side knows by number as its number, and functions of the test as theirs."""

    def __init__(self, session: Session, follow: bool = True) -> None:
        """``follow``: keep the arrays that are sent for the first time in step."""
        super().__init__()
        self.session = session
        self.follow = follow

    def pack_array(self, value: np.ndarray[Any, Any]) -> Any:
        number = self.session.ledger.number(value)
        if number is not None:
            return ["h", number]
        if value.dtype == object:
            return ["O", [self.pack(item) for item in value.ravel()], list(value.shape)]
        form = self.raw_array(value)
        return ["a", self.session.ledger.keep_own(value, self.body[-1]) if self.follow else 0, *form]

    def pack_object(self, value: Any) -> Any:
        if isinstance(value, Proxy):
            if number_of(value, self.session) is None:
                raise UnsendableError("it belongs to a run of the student's code that has ended")
            return ["h", number_of(value, self.session)]
        if isinstance(value, MirrorList | MirrorDict):
            number = self.session.ledger.number(value)
            return ["h", number] if number is not None else self.pack(_plain(value))
        if isinstance(value, type) and issubclass(value, StudentError):
            return ["h", value.handle] if value.handle is not None else ["g", "builtins", value.__bases__[-1].__name__]
        if isinstance(value, np.random.Generator):
            return ["G", self.pack(value.bit_generator.state)]
        if isinstance(value, BaseException):
            self.session.raised[id(value)] = value
            text = "a test failed" if isinstance(value, AssertionError) else str(value)  # it may say what was expected
            return ["x", [kind.__name__ for kind in type(value).__mro__], text, id(value)]
        if named := _well_known(value):
            return named
        if callable(value):
            self.session.functions[id(value)] = value
            return ["k", id(value), getattr(value, "__name__", type(value).__name__)]
        raise UnsendableError(
            f"a test cannot hand a {type(value).__name__} to student code: only plain data, "
            "functions, and what came from there"
        )


class _SessionUnpacker(Unpacker):
    """Believes of the student's side that it has objects, and nothing of them."""

    def __init__(self, session: Session, body: memoryview) -> None:
        super().__init__(body)
        self.session = session
        ledger = session.ledger
        self.makers |= {
            "h": self._own_array,
            "k": lambda number: session.functions[number],
            "o": self._object,
            "L": lambda number, items: ledger.container(_positive(number), [self.unpack(item) for item in items]),
            "D": lambda number, pairs: ledger.container(_positive(number), self.unpack_dict(pairs)),
            "x": self._error,
        }

    def unpack_array(self, handle: int, dtype: str, shape: list[int]) -> Any:
        array = self.raw_array(dtype, shape)
        return self.session.ledger.array(_positive(handle), array) if handle else array

    def _own_array(self, number: int) -> Any:
        array = self.session.ledger.holder(number) if number < 0 else None
        if array is None:
            raise MalformedError(f"an array that the test does not have: {number}")
        return array

    def _object(self, number: int, kind: str, nature: str, lineage: list[str]) -> Any:
        if "E" in nature:
            return self._error_class(lineage, _positive(number))
        ledger = self.session.ledger
        ledger.came(_positive(number))
        held = ledger.holder(number)
        if not isinstance(held, Proxy):
            held = make_proxy(self.session, number, printable(kind)[:_MOST_NAME], "C" in nature)
            ledger.keep(number, held)
        return held

    def _error(self, names: list[str], handle: int | None, text: str, own: int | None, places: list[Any]) -> Any:
        if own is not None and own in self.session.raised:
            return self.session.raised[own]
        kind = self._error_class(names, None if handle is None else _positive(handle))
        error = kind.__new__(kind)
        error.text = printable(text)
        error.args = (error.text,)
        error.places = tuple((str(cell), int(line)) for cell, line in places)
        return error

    def _error_class(self, names: list[str], handle: int | None) -> type[StudentError]:
        """The class here for an exception there: with its name, and the nearest built-in class as its base."""
        name = printable(names[0])[:_MOST_NAME]
        base = next((kind for one in names if (kind := getattr(builtins, str(one), None)) and _is_mimicked(kind)), None)
        key = (name, base) if handle is None else handle
        if key not in self.session.error_classes:
            self.session.error_classes[key] = type(name, (StudentError, base or Exception), {"handle": handle})
        return self.session.error_classes[key]


def printable(text: Any) -> str:
    """``text`` as it can be written to a file: half characters become question marks."""
    return str(text).encode(errors="replace").decode()


def _is_mimicked(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_MIMICKED)


def _positive(number: int) -> int:
    if type(number) is not int or number <= 0:
        raise MalformedError(f"the number {str(number)[:50]} for an object")
    return number


def _well_known(value: object) -> list[Any] | None:
    """How to name a function or class that both sides know: np.add, len, int."""
    name = getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    return next((["g", where, name] for where, module in MODULES.items() if getattr(module, name, None) is value), None)


def _plain(value: Any) -> Any:
    """A mirror's contents as the list or dict that it mirrors."""
    if isinstance(value, MirrorList):
        return [_plain(item) for item in value]
    if isinstance(value, MirrorDict):
        return {key: _plain(item) for key, item in value.items()}
    return value
