"""What a notebook's test cells use to compare plain data, and to say clearly what differs.

A test makes its own inputs and weights, sends them in, takes plain arrays out and compares them here: shape first,
then values. Nothing here calls a method of a student's object, and no expected value is ever handed to student code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Where the student's code runs in another process, grading puts here what brings an array or list up to date.
look: Callable[[object], object] = lambda value: value  # noqa: E731

_LONGEST_MESSAGE = 600  # characters in which an error can say what is wrong

_PLAIN = (np.ndarray, int, float, bool, list, tuple)


def _plain_array(value: object, what: str) -> np.ndarray[Any, Any]:
    """``value`` as an array; anything but an array, a number or a (nested) list of numbers fails the test."""
    if value is None:
        raise AssertionError(
            f"{what}: expected a NumPy array or a number, got None; a function without `return` gives None"
        )
    if type(value) not in _PLAIN and not isinstance(value, np.generic):
        raise AssertionError(
            f"{what}: expected a NumPy array or a number, got {type(value).__name__}. "
            "Compare plain data: for a Tensor, its .data"
        )
    stranger = _stranger(value)
    if stranger is not None:
        raise AssertionError(f"{what}: expected numbers, got a {type(value).__name__} with {type(stranger).__name__}")
    array = np.asarray(value)
    if array.dtype == object:
        raise AssertionError(f"{what}: expected numbers, got an array of Python objects")
    return array


def _stranger(value: object) -> object:
    """The first thing in a (nested) list or tuple that is no plain data, such as a Tensor; None if there is none."""
    if type(value) in (list, tuple):
        found = (_stranger(one) for one in value)  # type: ignore[attr-defined]
        return next((one for one in found if one is not None), None)
    return None if type(value) in _PLAIN or isinstance(value, np.generic) else value


def close(
    actual: object,
    expected: object,
    why: str = "",
    *,
    what: str = "result",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    dtype: Any = None,
) -> None:
    """Fail unless ``actual`` has the shape and, within tolerance, the values of ``expected``.

    Parameters
    ----------
    actual, expected
        Arrays, numbers or (nested) lists of numbers; a Tensor's ``.data``, not the Tensor.
    why
        The likely cause, shown at the end of the message.
    what
        What is being compared, shown at its start.
    rtol, atol
        ``|actual - expected| <= atol + rtol * |expected|``, as in ``numpy.isclose``; NaN equals NaN.
    dtype
        If given, the dtype that ``actual`` must have.

    Raises
    ------
    AssertionError
        Naming the first place that differs, what was expected there and what came.
    """
    got, want = _plain_array(look(actual), what), _plain_array(expected, what)
    tail = f": {why}" if why else ""
    if got.shape != want.shape:
        raise AssertionError(f"{what}: expected shape {want.shape}, got {got.shape}{tail}")
    if dtype is not None and got.dtype != np.dtype(dtype):
        raise AssertionError(f"{what}: expected dtype {np.dtype(dtype)}, got {got.dtype}{tail}")
    if got.dtype.kind not in "biufc":
        raise AssertionError(f"{what}: expected numbers, got dtype {got.dtype}{tail}")
    wrong = ~np.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = f" at {list(place)}" if place else ""
        count = f" ({int(wrong.sum())} of {wrong.size} values differ)" if wrong.size > 1 else ""
        raise AssertionError(f"{what}{at}: expected {_show(want[place])}, got {_show(got[place])}{count}{tail}")


def _show(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


@contextmanager
def raises(exception: type[BaseException], *mentions: str, why: str = "") -> Iterator[None]:
    """Fail unless the block raises ``exception`` with every one of ``mentions`` in its message.

    Raises
    ------
    AssertionError
        If nothing is raised, something else is, or the message leaves out one of ``mentions``.
    """
    tail = f": {why}" if why else ""
    try:
        yield
    except exception as error:
        if exception is not NotImplementedError and isinstance(error, NotImplementedError):
            raise
        if len(str(error)) > _LONGEST_MESSAGE:
            raise AssertionError(
                f"the {exception.__name__} says what is wrong in {len(str(error)):,} characters, and should in a few"
            ) from None
        for part in mentions:
            if part not in str(error):
                raise AssertionError(
                    f"the {exception.__name__} should mention {part!r}; it says: {error}{tail}"
                ) from None
    except Exception as error:
        raise AssertionError(f"expected {exception.__name__}, got {type(error).__name__}: {error}{tail}") from None
    else:
        raise AssertionError(f"expected {exception.__name__}, but nothing was raised{tail}")
