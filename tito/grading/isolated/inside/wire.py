"""What crosses the border between a test and the student's code: plain data, in frames of bounded size.

A frame is the length of its header and of its body (two unsigned 32-bit numbers), the header in JSON, and the body: the
raw bytes of all arrays, one after the other. Neither code nor a pickle ever crosses. Everything that is not plain data
stays on its side, and a number, its handle, goes in its place.

In JSON, None, booleans, numbers and strings stand for themselves; all else is a list that begins with its kind.
"""

from __future__ import annotations

import builtins
import json
import math
import operator
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

MOST_HEADER = 4 << 20  # bytes; in Python's memory JSON can become sixty times as large
MOST_BODY = 64 << 20
MOST_FOLLOWED = 256 << 10  # bytes of an array that is kept in step with its copy on the other side
MOST_DEPTH = 40
MOST_AXES = 32
MOST_NUMBERS = 20_000  # as keys of a dict or items of a set: those of text cannot be made to collide there
MOST_TEXT = 20_000  # characters of an error's message that cross

_LENGTHS = struct.Struct("!II")
_PLAIN_KINDS = "biufc"  # of dtypes: booleans, whole numbers, floats, complex numbers
_TEXT_KINDS = "US"

# objects that both sides know by name, and that may be named to the worker; the grader takes only `TYPES` from it
MODULES = {"builtins": builtins, "math": math, "numpy": np, "operator": operator}
TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type(None)),
        *(np.ndarray, np.generic, np.number, np.integer, np.floating, np.bool_),
        *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, np.float32, np.float64, np.complex64, np.complex128),
    )
}
_NAME_OF_TYPE = {kind: name for name, kind in TYPES.items()}


class MalformedError(Exception):
    """The other side sent what no honest side sends."""


class UnsendableError(TypeError):
    """This value cannot cross the border."""


class Channel:
    """Frames over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, header: object, body: Iterable[bytes | memoryview] = ()) -> None:
        """Send one frame.

        Raises
        ------
        UnsendableError
            If it is too large or too deeply nested.
        OSError
            If the other side is gone.
        """
        try:
            text = json.dumps(header, separators=(",", ":")).encode()
        except (RecursionError, ValueError) as error:
            raise UnsendableError(f"it is nested too deeply, or holds itself: {error}") from None
        raw = b"".join(body)
        if len(text) > MOST_HEADER or len(raw) > MOST_BODY:
            raise UnsendableError(f"it is too large: {max(len(text), len(raw)):,} bytes")
        self.connection.sendall(_LENGTHS.pack(len(text), len(raw)) + text + raw)

    def receive(self, deadline: float | None = None) -> tuple[Any, memoryview]:
        """The header and the body of the next frame.

        Raises
        ------
        TimeoutError
            If it has not come by ``deadline``, by time.monotonic().
        EOFError
            If the other side is gone.
        MalformedError
            If it is too large or no JSON.
        """
        header_size, body_size = _LENGTHS.unpack(self._read(_LENGTHS.size, deadline))
        if header_size > MOST_HEADER or body_size > MOST_BODY:
            raise MalformedError(f"a frame of {header_size:,} + {body_size:,} bytes")
        raw = self._read(header_size + body_size, deadline)
        try:
            header = json.loads(bytes(raw[:header_size]))
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"a header that is no JSON: {str(error)[:100]}") from None
        return header, raw[header_size:]

    def _read(self, size: int, deadline: float | None) -> memoryview:
        raw = bytearray(min(size, 1 << 20))  # it grows as bytes come, so that a promise alone costs no memory
        got = 0
        while got < size:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.connection.settimeout(left)
            if got == len(raw):
                raw.extend(bytes(min(size - got, len(raw))))
            with memoryview(raw) as view:
                count = self.connection.recv_into(view[got:])
            if not count:
                raise EOFError
            got += count
        return memoryview(raw)


class Packer:
    """Turns values into a header's JSON and the parts of a body; a side says in a subclass what else it can send."""

    def __init__(self) -> None:
        self.body: list[bytes] = []

    def pack(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if depth > MOST_DEPTH:
            raise UnsendableError(f"it is nested more than {MOST_DEPTH} deep, or holds itself")
        if kind is tuple:
            return ["t", [self.pack(item, depth + 1) for item in value]]
        if kind is list:
            return self.pack_list(value, depth)
        if kind is dict:
            return self.pack_dict(value, depth)
        if kind is np.ndarray:
            return self.pack_array(value)
        if kind in (bytes, bytearray):
            self.body.append(bytes(value))
            return ["b" if kind is bytes else "B", len(value)]
        if kind in (set, frozenset):
            few(value)
            return ["s" if kind is set else "f", [self.pack(item, depth + 1) for item in value]]
        return self._pack_rare(value, depth)

    def _pack_rare(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is complex:
            return ["c", value.real, value.imag]
        if value is Ellipsis:
            return ["e"]
        if kind is slice or kind is range:
            return ["S" if kind is slice else "R", *(self.pack(part) for part in (value.start, value.stop, value.step))]
        if kind in _NAME_OF_TYPE and isinstance(value, np.generic):
            return ["n", *self.raw_array(np.asarray(value))[:1]]
        if isinstance(value, np.dtype) and value.kind in _PLAIN_KINDS:
            return ["y", value.str]
        if isinstance(value, type) and value in _NAME_OF_TYPE:
            return ["T", _NAME_OF_TYPE[value]]
        return self.pack_object(value)

    def raw_array(self, array: np.ndarray[Any, Any]) -> tuple[str, list[int]]:
        """Put an array's bytes into the body; its dtype and shape."""
        if array.dtype.kind not in _PLAIN_KINDS + _TEXT_KINDS:
            raise UnsendableError(f"an array of dtype {array.dtype} holds no plain numbers")
        self.body.append(array.tobytes())
        return array.dtype.str, list(array.shape)

    def pack_list(self, value: list[Any], depth: int) -> Any:
        return ["l", [self.pack(item, depth + 1) for item in value]]

    def pack_dict(self, value: dict[Any, Any], depth: int) -> Any:
        few(value)
        return ["d", [[self.pack(k, depth + 1), self.pack(v, depth + 1)] for k, v in value.items()]]

    def pack_array(self, value: np.ndarray[Any, Any]) -> Any:
        return ["a", 0, *self.raw_array(value)]

    def pack_object(self, value: Any) -> Any:
        raise UnsendableError(f"a {type(value).__name__} is no plain data")


class Unpacker:
    """Makes values of a header's JSON and a body, and believes nothing; a subclass says what else a side takes."""

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.place = 0
        self.depth = 0
        self.makers: dict[str, Callable[..., Any]] = {
            "t": lambda items: tuple(self._all(items)),
            "l": lambda items: self._all(items),
            "d": self.unpack_dict,
            "s": lambda items: set(self._few(items)),
            "f": lambda items: frozenset(self._few(items)),
            "a": self.unpack_array,
            "n": lambda dtype: self.raw_array(dtype, [])[()],
            "b": self._bytes,
            "B": lambda size: bytearray(self._bytes(size)),
            "c": lambda real, imag: complex(float(real), float(imag)),
            "e": lambda: Ellipsis,
            "S": lambda *parts: slice(*self._all(parts)),
            "R": lambda *parts: range(*self._all(parts)),
            "y": _dtype,
            "T": lambda name: TYPES[name],
        }

    def unpack(self, form: Any) -> Any:
        """The value that ``form`` stands for.

        Raises
        ------
        MalformedError
            If it stands for none.
        """
        if not isinstance(form, list):
            if isinstance(form, dict):
                raise MalformedError("an object where a value should be")
            return form
        self.depth += 1
        if self.depth > MOST_DEPTH + 10:
            raise MalformedError("values nested too deeply")
        try:
            return self.makers[form[0]](*form[1:])
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError) as error:
            raise MalformedError(f"{type(error).__name__}: {str(error)[:100]}") from None
        finally:
            self.depth -= 1

    def unpack_dict(self, pairs: list[list[Any]]) -> dict[Any, Any]:
        items = [(self.unpack(key), self.unpack(value)) for key, value in pairs]
        few(key for key, _ in items)
        return dict(items)

    def _all(self, forms: Iterable[Any]) -> list[Any]:
        return [self.unpack(form) for form in forms]

    def _few(self, forms: list[Any]) -> list[Any]:
        items = self._all(forms)
        few(items)
        return items

    def _bytes(self, size: int) -> bytes:
        if type(size) is not int or not 0 <= size <= len(self.body) - self.place:
            raise MalformedError(f"{size} bytes of {len(self.body) - self.place}")
        self.place += size
        return bytes(self.body[self.place - size : self.place])

    def raw_array(self, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        """The next array of the body; it can be written to."""
        kind = _dtype(dtype)
        if len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
            raise MalformedError(f"an array of shape {str(shape)[:100]}")
        raw = bytearray(self._bytes(math.prod(shape) * kind.itemsize))
        return np.ndarray(tuple(shape), kind, buffer=raw)

    def unpack_array(self, handle: int, dtype: str, shape: list[int]) -> Any:
        return self.raw_array(dtype, shape)


def few(keys: Iterable[Any]) -> None:
    """See that a dict or set of ``keys`` is quickly made, whatever they are.

    Raises
    ------
    UnsendableError
        If it may not be.
    """
    if sum(type(key) not in (str, bytes) for key in keys) > MOST_NUMBERS:
        raise UnsendableError(f"a dict or set of more than {MOST_NUMBERS:,} numbers")


def _dtype(name: str) -> np.dtype[Any]:
    if type(name) is not str or len(name) > 12:
        raise MalformedError("a dtype's name that is none")
    kind = np.dtype(name)
    if kind.kind not in _PLAIN_KINDS + _TEXT_KINDS or kind.fields is not None or kind.subdtype is not None:
        raise MalformedError(f"an array of dtype {name}")
    return kind
