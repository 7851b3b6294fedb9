"""A proxy: what a test holds in place of an object of the student's. All that is done with it is done over there.

It looks like the object as far as Python's syntax goes. What it says of itself in the place of plain data is not
believed: an object that says that it equals something, or that it is true, is refused.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

_Kind = TypeVar("_Kind")

if TYPE_CHECKING:
    from tito.grading.isolated.session import Session

_HIDDEN = ("__array", "__buffer__", "_repr_", "_ipython_", "__reduce", "__getstate__")  # asked for by libraries


class DistrustError(AssertionError):
    """An object of the student's says, or is, what a test may not believe."""


class _Remote:
    """Which object a proxy stands for."""

    __slots__ = ("is_callable", "is_suspect", "kind", "number", "session")

    def __init__(self, session: Session, number: int, kind: str, is_callable: bool) -> None:
        self.session = session
        self.number = number
        self.kind = kind
        self.is_callable = is_callable
        self.is_suspect = False


class Proxy:
    """An object of the student's."""

    __slots__ = ("__weakref__", "_remote")

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__mro_entries__"):
            return object.__getattribute__(self, name)
        if name.startswith(_HIDDEN):
            raise AttributeError(f"{name} of a {_remote(self).kind} is not used in grading: take its plain data")
        return _ask(self, getattr, self, name, state=True)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, setattr, self, name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, delattr, self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask(self, self, *args, named=kwargs)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, operator.getitem, self, key, state=True)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, operator.setitem, self, key, value)

    def __delitem__(self, key: Any) -> None:
        _ask(self, operator.delitem, self, key)

    def __iter__(self) -> Iterator[Any]:
        session = _remote(self).session
        return _items(session, session.call(iter, self))

    def __next__(self) -> Any:
        return next(_items(_remote(self).session, self))

    def __len__(self) -> int:
        return _a(int, _remote(self).session.call(len, self))

    def __contains__(self, item: Any) -> bool:
        return _a(bool, _ask(self, operator.contains, self, item))

    def __enter__(self) -> Any:
        return _ask(self, self.__enter__)

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        stops = _remote(self).session.call(bool, _ask(self, self.__exit__, kind, error, None)) is True
        is_verdict = kind is not None and issubclass(kind, AssertionError)  # which is not a student's to stop
        return stops and not is_verdict

    def __bool__(self) -> bool:
        raise DistrustError(f"whether a {_remote(self).kind} is true is not believed: compare plain data")

    def __hash__(self) -> int:
        return hash(_remote(self).number)

    def __repr__(self) -> str:
        return _a(str, _remote(self).session.call(repr, self))

    def __str__(self) -> str:
        return _a(str, _remote(self).session.call(str, self))

    def __format__(self, spec: str) -> str:
        return _a(str, _remote(self).session.call(format, self, spec))

    def __int__(self) -> int:
        return _a(int, _ask(self, int, self))

    def __float__(self) -> float:
        return _a(float, _ask(self, float, self))

    def __index__(self) -> int:
        return _a(int, _ask(self, operator.index, self))

    def __instancecheck__(self, instance: Any) -> bool:
        return _a(bool, _ask(self, isinstance, instance, self))

    def __subclasscheck__(self, kind: Any) -> bool:
        return _a(bool, _ask(self, issubclass, kind, self))

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        raise TypeError(
            f"a test cell cannot derive a class from {_remote(self).kind} {self.__name__}: "
            "define the class in a cell of its own before the test"
        )


def _binary(name: str, function: Callable[..., Any]) -> None:
    def forward(self: Proxy, other: Any) -> Any:
        return _no_verdict(_ask(self, function, self, other), self, name)

    def reflected(self: Proxy, other: Any) -> Any:
        return _no_verdict(_ask(self, function, other, self), self, name)

    setattr(Proxy, f"__{name}__", forward)
    if name not in _COMPARISONS:
        setattr(Proxy, f"__r{name}__", reflected)


def _unary(name: str, function: Callable[..., Any]) -> None:
    setattr(Proxy, f"__{name}__", lambda self, *args: _ask(self, function, self, *args))


def _in_place(name: str) -> None:
    function = getattr(operator, f"i{name}")
    setattr(Proxy, f"__i{name}__", lambda self, other: _ask(self, function, self, other))


_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow", "lshift", "rshift")
for _name in (*_COMPARISONS, *_ARITHMETIC):
    _binary(_name, getattr(operator, _name))
for _name in ("and", "or", "xor"):
    _binary(_name, getattr(operator, f"__{_name}__"))
_binary("divmod", divmod)
for _name in (*_ARITHMETIC, "and", "or", "xor"):
    _in_place(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name, getattr(operator, _name))
_unary("round", round)


def _no_verdict(value: Any, proxy: Proxy, name: str) -> Any:
    """``value``, unless it is a student's object saying `True` of a comparison."""
    if name in _COMPARISONS and isinstance(value, bool | np.bool_) and value:
        raise DistrustError(f"what a {_remote(proxy).kind} says to a comparison is not believed: compare plain data")
    return value


def _items(session: Session, iterator: Any) -> Iterator[Any]:
    if not isinstance(iterator, Proxy):
        yield from iterator
        return
    end = session.call(object)
    while (item := session.call(next, iterator, end)) is not end:
        yield item


def _a(kind: type[_Kind], value: Any) -> _Kind:
    """``value``, which Python's rules want to be a ``kind``."""
    if type(value) is not kind:
        raise DistrustError(f"expected a {kind.__name__}, got a {kind_of(value)}")
    return value


def _remote(proxy: Proxy) -> _Remote:
    return object.__getattribute__(proxy, "_remote")  # type: ignore[no-any-return]


def _ask(proxy: Proxy, function: Any, *args: Any, named: dict[str, Any] | None = None, state: bool = False) -> Any:
    remote = _remote(proxy)
    if remote.is_suspect:
        raise DistrustError(f"expected plain data here, got an object of the class {remote.kind}")
    return remote.session.call(function, *args, named=named, state=state)


def make_proxy(session: Session, number: int, kind: str, is_callable: bool) -> Proxy:
    proxy = object.__new__(Proxy)
    object.__setattr__(proxy, "_remote", _Remote(session, number, kind, is_callable))
    return proxy


def number_of(proxy: Proxy, session: Session) -> int | None:
    """The number of the proxy's object; None if it is not one of this session."""
    remote = _remote(proxy)
    return remote.number if remote.session is session else None


def suspect(proxy: Proxy) -> None:
    """Let the proxy be iterated over and shown, and nothing else."""
    _remote(proxy).is_suspect = True


def kind_of(value: Any) -> str:
    """The name of the value's class, as a message says it."""
    return _remote(value).kind if type(value) is Proxy else type(value).__name__


def is_callable(value: Any) -> bool:
    return _remote(value).is_callable if type(value) is Proxy else builtins.callable(value)


def class_of(value: Any) -> Any:
    """What ``type(value)`` is in a plain kernel."""
    return _remote(value).session.call(type, value) if type(value) is Proxy else type(value)
