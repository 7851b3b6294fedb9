"""What a test and the student's code both know by number, and how each learns what the other made of it.

- A proxy stands for an object of the student's.
- A mirror is a real array, list or dict that is kept in step with the student's own, both ways, at every request.
- An array that the test made goes to the student's side as a copy. What the test changes in it later is sent after it;
  what student code changes there is only noted, so that nobody can change what expected values are computed from.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tito.grading.isolated.inside.wire import MOST_FOLLOWED, Packer


class ArrayMirror:
    """The student's array, as the test holds it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.dtype, self.shape = array.dtype, array.shape
        self.raw: bytearray = array.base  # type: ignore[assignment]  # stays when the test has dropped the array
        self.last = bytes(self.raw)

    def is_changed(self) -> bool:
        return len(self.last) <= MOST_FOLLOWED and self.raw != self.last

    def pack(self, packer: Packer) -> Any:
        self.last = bytes(self.raw)
        packer.body.append(self.last)
        return ["a", 0, self.dtype.str, list(self.shape)]

    def take(self, value: Any) -> bool:
        """Make the array equal to ``value``; False if it cannot be."""
        if type(value) is not np.ndarray or (value.dtype, value.shape) != (self.dtype, self.shape):
            return False
        self.last = value.tobytes()
        self.raw[:] = self.last
        return True


class OwnArray:
    """An array of the test, and what student code made of its copy (``theirs``; None if nothing)."""

    def __init__(self, array: np.ndarray[Any, Any], raw: bytes) -> None:
        self.reference = weakref.ref(array)
        self.last = raw
        self.theirs: np.ndarray[Any, Any] | None = None

    def is_changed(self) -> bool:
        array = self.reference()
        return array is not None and array.nbytes <= MOST_FOLLOWED and array.tobytes() != self.last

    def pack(self, packer: Packer) -> Any:
        array = self.reference()
        form = packer.raw_array(array)  # type: ignore[arg-type]
        self.last, self.theirs = packer.body[-1], None
        return ["a", 0, *form]

    def take(self, value: Any) -> bool:
        self.theirs = value
        return True


class MirrorList(list[Any]):
    """The student's list, as the test holds it."""

    when_changed: Callable[[], None]


class MirrorDict(dict[Any, Any]):
    """The student's dict, as the test holds it."""

    when_changed: Callable[[], None]


def _tell(kind: type, name: str) -> None:
    original = getattr(kind, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.when_changed()
        return original(self, *args, **kwargs)

    setattr(kind, name, method)


_CHANGING = {
    MirrorList: "append extend insert remove pop clear sort reverse __setitem__ __delitem__ __iadd__ __imul__",
    MirrorDict: "clear pop popitem setdefault update __setitem__ __delitem__ __ior__",
}
for _kind, _names in _CHANGING.items():
    for _name in _names.split():
        _tell(_kind, _name)


class Ledger:
    """The numbers of a session. The student's side gives positive ones, this side negative ones."""

    def __init__(self) -> None:
        self.living: dict[int, weakref.ref[Any]] = {}
        self.numbers: dict[int, int] = {}  # of what is no proxy, by id
        self.arrays: dict[int, ArrayMirror | OwnArray] = {}
        self.changed: dict[int, MirrorList | MirrorDict] = {}
        # how often a number came: the other side drops it if it never sent it more often
        self.seen: dict[int, int] = {}
        self.gone: list[int] = []
        self.fresh = itertools.count(-1, -1)

    def holder(self, number: int) -> Any:
        """What the test holds under ``number``; None if nothing."""
        reference = self.living.get(number)
        return reference() if reference else None

    def number(self, value: Any) -> int | None:
        """The number of an array, list or dict that the other side knows too; None if it does not."""
        number = self.numbers.get(id(value))
        return number if number is not None and self.holder(number) is value else None

    def keep(self, number: int, value: Any) -> None:
        gone = self.gone

        def when_gone(_: object) -> None:
            gone.append(number)

        self.living[number] = weakref.ref(value, when_gone)

    def keep_own(self, array: np.ndarray[Any, Any], raw: bytes) -> int:
        """The number of an array of the test that is sent for the first time."""
        number = next(self.fresh)
        self.keep(number, array)
        self.numbers[id(array)] = number
        self.arrays[number] = OwnArray(array, raw)
        return number

    def array(self, number: int, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The mirror of the student's array ``number``, which is now as ``array``."""
        self.came(number)
        held = self.holder(number)
        if held is not None and self.arrays[number].take(array):
            return held  # type: ignore[no-any-return]
        self.keep(number, array)
        self.numbers[id(array)] = number
        self.arrays[number] = ArrayMirror(array)
        return array

    def container(self, number: int, value: list[Any] | dict[Any, Any]) -> MirrorList | MirrorDict:
        """The mirror of the student's list or dict ``number``, which now holds what ``value`` does."""
        self.came(number)
        held = self.holder(number)
        if type(held) is not (MirrorList if isinstance(value, list) else MirrorDict):
            held = MirrorList() if isinstance(value, list) else MirrorDict()
            self.keep(number, held)
            self.numbers[id(held)] = number
            held.when_changed = lambda: self.changed.__setitem__(number, self.holder(number))
        _fill(held, value)
        return held

    def came(self, number: int) -> None:
        self.seen[number] = self.seen.get(number, 0) + 1

    def take_change(self, number: int, value: Any) -> None:
        """The student's side has changed the array ``number`` into ``value``."""
        if number in self.arrays:
            self.arrays[number].take(value)

    def writes(self, packer: Packer) -> list[list[Any]]:
        """What the test has changed since the last request, packed."""
        changed, self.changed = self.changed, {}
        found = [[number, one.pack(packer)] for number, one in self.arrays.items() if one.is_changed()]
        for number, one in changed.items():
            found.append([number, packer.pack(list(one) if isinstance(one, list) else dict(one))])
        return found

    def has_news(self) -> bool:
        return bool(self.changed) or any(one.is_changed() for one in self.arrays.values())

    def drops(self) -> list[tuple[int, int]]:
        """The numbers that the test does not hold any more, and how often each came; they are forgotten here."""
        gone = [number for number in dict.fromkeys(self.gone) if self.holder(number) is None]
        self.gone.clear()
        for number in gone:
            self.living.pop(number, None)
            self.arrays.pop(number, None)
        if len(self.numbers) > 4 * len(self.living) + 100:
            self.numbers = {known: number for known, number in self.numbers.items() if number in self.living}
        return [(number, self.seen.get(number, 0)) for number in gone]


def _fill(held: MirrorList | MirrorDict, value: Any) -> None:
    if isinstance(held, MirrorList):
        list.__setitem__(held, slice(None), value)
    else:
        dict.clear(held)
        dict.update(held, value)
