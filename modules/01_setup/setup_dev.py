# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Setup
#
# > What this machine is, and what a function costs on it: seconds, how much they vary, and peak memory.
#
# In this course you build a deep-learning framework, and at every step you will ask two things of your code: is it
# right, and what does it cost? The tests answer the first. The second needs an instrument, and it comes first because
# every later module uses it:
#
# ```
#    measure(function, x)
#         |
#         +--> call it once, unmeasured      (caches fill, modules load)
#         +--> call it again, with a clock   --> median and spread
#         +--> call it once more, counting   --> peak memory
# ```
#
# Along the way you see how work on a module goes: edit, run, test, hand in. Plan for about an hour.

# %%
#| default_exp core.setup
#| export
from __future__ import annotations

import gc
import importlib.util
import itertools
import os
import platform
import sys
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# %%
import math

# %% [markdown]
# ## 1. How the work goes
#
# Run a cell with Shift+Enter. An exercise is a function with a hole in it: a `TODO` says what belongs there, `APPROACH`
# says how to get there, `EXAMPLE` what comes out, `HINT` what people miss. Right below it stands its test.
#
# ### Exercise: `array_bytes`
#
# Later in this notebook you predict what a calculation needs in memory. An array's numbers lie side by side, each as
# large as the last, so the sum is short.
#
# Run the next *two* cells as they are: the first defines the function, the second tests it and fails, because nothing
# is written yet. Then fill the hole: delete the two lines, write yours, and run both cells again.

# %% nbgrader={"grade": false, "grade_id": "setup-array-bytes", "locked": false, "schema_version": 3, "solution": true, "task": false}
def array_bytes(shape, itemsize):
    """The bytes that the numbers of an array of ``shape`` take, at ``itemsize`` bytes each.

    TODO: Multiply the lengths of all axes with each other and with `itemsize`.

    APPROACH:
    1. `math.prod(shape)` is how many numbers there are.
    2. Each of them takes `itemsize` bytes.

    EXAMPLE:
    >>> array_bytes((256, 784), 4)
    802816

    HINT: Shape () is a single number, and `math.prod(())` is 1, so it needs no case of its own.
    """
    ### BEGIN SOLUTION
    return math.prod(shape) * itemsize
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-array-bytes", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_array_bytes():
    close(array_bytes((256, 784), 4), 802816, what="array_bytes((256, 784), 4)", why="256 * 784 numbers of 4 bytes")
    close(array_bytes((5,), 8), 40, what="array_bytes((5,), 8)", why="five numbers of 8 bytes")
    close(array_bytes((), 4), 4, what="array_bytes((), 4)", why="shape () holds one number")
    close(array_bytes((3, 0, 2), 4), 0, what="array_bytes((3, 0, 2), 4)", why="an axis of length 0: no numbers at all")
    ### BEGIN HIDDEN TESTS
    for axes in range(5):
        lengths = tuple(int(n) for n in np.random.default_rng().integers(2, 9, size=axes))
        for kind in (np.float64, np.float32, np.uint8):
            there = np.zeros(lengths, kind)
            close(array_bytes(lengths, there.itemsize), there.nbytes, what=f"array_bytes({lengths}, {there.itemsize})")
    ### END HIDDEN TESTS


test_array_bytes()

# %% [markdown]
# No message means that the test passed. That was one turn of the wheel; the others are like it. When all exercises are
# done, or whenever you want to know where you stand, go to a terminal in the course folder:
#
# | command | what it does |
# |---|---|
# | `tito module test 01` | runs the saved notebook in a fresh kernel and names the first cell that fails |
# | `tito module hint 01` | gives a hint for that cell |
# | `tito module complete 01` | tests, and if all is well adds your work to the package `tinytorch` |
# | `tito module reset 01` | gives you the fresh notebook back and keeps yours as a dated backup |
#
# `complete` writes the cells that begin with `#| export` to `tinytorch/core/setup.py`, unless a test fails: then it
# writes nothing. Afterwards the next module unlocks, and `tinytorch.core.setup.measure` is *your* function in every
# later notebook: the framework you import is the one you wrote.
#
# Two habits save hours. Save before you test in the terminal: `tito` reads the file, not the browser. And a notebook
# remembers what you have deleted: if it behaves strangely, choose *Kernel > Restart Kernel and Run All Cells*.
#
# ## 2. Where are we?
#
# A time without its machine says nothing, so a report of measurements begins with what they depend on. It also
# answers a common question of first days, "why is my change not there?": the last line tells which `tinytorch` is
# imported.

# %%
#| export
def environment_report() -> dict[str, str]:
    """What the measurements of this session depend on: versions, hardware, and which ``tinytorch`` is imported.

    Returns
    -------
    dict[str, str]
        ``Python``, ``interpreter``, ``NumPy``, ``BLAS`` (the library that multiplies NumPy's matrices), ``platform``,
        ``CPUs`` (those this process may use), ``memory`` (of the machine) and ``tinytorch``. What cannot be found out
        is "unknown".
    """
    return {
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "interpreter": sys.executable or "unknown",
        "NumPy": np.__version__,
        "BLAS": _blas(),
        "platform": platform.platform(),
        "CPUs": str(_usable_cpus() or "unknown"),
        "memory": _machine_memory(),
        "tinytorch": _imported_tinytorch(),
    }


def _blas() -> str:
    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{library.get('name', 'unknown')} {library.get('version', '')}".strip()


def _usable_cpus() -> int | None:
    """The CPUs that this process may use: fewer than the machine has where it is confined to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _machine_memory() -> str:
    try:
        return _readable_bytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # no sysconf on Windows, not these names everywhere
        return "unknown"


def _imported_tinytorch() -> str:
    """Where ``import tinytorch`` finds the package, and whether that is the one of the course folder we are in."""
    found = importlib.util.find_spec("tinytorch")
    if found is None or found.origin is None:
        return "not found: start Jupyter in the environment of the course"
    package = Path(found.origin).resolve().parent
    here = Path.cwd().resolve()
    beside = [folder / "tinytorch" for folder in (here, *here.parents) if (folder / "tinytorch/__init__.py").is_file()]
    if beside and beside[0] != package:
        return f"{package}, which is not the one beside this notebook ({beside[0]})"
    return f"{package}{' (beside this notebook)' if beside else ''}"


def _readable_bytes(count: int) -> str:
    size, unit = _unit(count, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))
    return f"{count / size:.{0 if unit == 'B' else 1}f} {unit}"


def _unit(value: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The first of ``units``, from large to small, that ``value`` reaches, or else the last."""
    return next((unit for unit in units if value >= unit[0]), units[-1])

# %%
for item, value in environment_report().items():
    print(f"{item:12} {value}")

# %% [markdown]
# ## 3. How long does it take?
#
# Predict, then run: the next cell times the same multiplication ten times. Will the ten times be equal? Which of them
# stands out, and why?

# %%
matrix = np.random.default_rng(0).normal(size=(300, 300))


def multiply():
    return matrix @ matrix


for _ in range(10):
    begin = time.perf_counter()
    multiply()
    print(f"{(time.perf_counter() - begin) * 1e6:8.0f} µs")

# %% [markdown]
# The first call is usually the slowest: code and data are not in the caches yet, and libraries set themselves up when
# they are first used. Among the others there are stragglers, whenever the computer had something else to do.
#
# So one reading is not enough, and the mean of many is a poor summary: a single hiccup drags it along.

# %%
times = [1.1, 1.0, 1.2, 1.0, 9.7]  # milliseconds; the last call had bad luck
print(f"mean {sum(times) / len(times):.1f} ms, median {sorted(times)[2]:.1f} ms")

# %% [markdown]
# The **median** stays: half of the calls are faster, half are slower. How much the calls differ is told by the
# **spread**, the distance between the quarter points: one quarter of the calls lies below the lower one, three
# quarters lie below the upper one (the *interquartile range*). One hiccup among five calls hardly moves either number.
#
# All of these are *quantiles*: sort the values and walk the fraction `q` of the way from the first to the last.
#
# ```
#    sorted:       1.0   1.0   1.1   1.2   9.7
#    index:         0     1     2     3     4
#    q = 0.5  -> position 0.5 * 4 = 2      -> 1.1
#    q = 0.6  -> position 0.6 * 4 = 2.4    -> 1.1 + 0.4 * (1.2 - 1.1) = 1.14
# ```
#
# ### Exercise: `quantile`

# %% nbgrader={"grade": false, "grade_id": "setup-quantile", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def quantile(values: Sequence[float], q: float) -> float:
    """The value at the fraction ``q`` of the sorted ``values``, interpolated linearly, as ``numpy.quantile``.

    Raises
    ------
    ValueError
        If there are no values, or ``q`` is not between 0 and 1.

    TODO: Sort, find the position, interpolate between its two neighbours. `values` stays as it is.

    APPROACH:
    1. A sorted copy.
    2. The position is `q` times the last index; its whole part is the index of the lower neighbour.
    3. The lower neighbour, plus the rest of the position times the step to the upper neighbour.

    EXAMPLE:
    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.5

    HINT: At q = 1 the lower neighbour is the last value, and there is no upper one: use the last value twice.
    """
    if len(values) == 0:
        raise ValueError("quantile: there are no values")
    if not 0 <= q <= 1:
        raise ValueError(f"quantile: q is a fraction from 0 to 1, got {q}")
    ### BEGIN SOLUTION
    ranked = sorted(values)
    position = q * (len(ranked) - 1)
    below = int(position)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (position - below) * (ranked[above] - ranked[below])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-quantile", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
def test_quantile():
    times = [5.0, 1.0, 4.0, 2.0]
    close(quantile(times, 0.5), 3.0, what="the median of 5, 1, 4, 2", why="half-way from 2 to 4: sort, interpolate")
    close(times, [5, 1, 4, 2], what="the caller's list", why="it was sorted: use sorted(values), which makes a copy")
    close(quantile(times, 0.25), 1.75, what="q = 0.25 of 5, 1, 4, 2", why="position 0.25 * 3 = 0.75, from 1 towards 2")
    close(quantile([3.0, 1.0, 2.0], 0.5), 2.0, what="the median of 3, 1, 2")
    close(quantile(times, 0.0), 1.0, what="q = 0 of 5, 1, 4, 2", why="q = 0 is the smallest value")
    close(quantile(times, 1.0), 5.0, what="q = 1 of 5, 1, 4, 2", why="q = 1 is the largest value")
    close(quantile([7.0], 0.3), 7.0, what="any quantile of one value")
    ### BEGIN HIDDEN TESTS
    generator = np.random.default_rng()
    for count in (2, 5, 8, 31):
        drawn = generator.exponential(size=count).tolist()
        for fraction in (0.25, 0.75, *generator.random(4).tolist()):
            close(quantile(drawn, fraction), np.quantile(drawn, fraction), what=f"quantile {fraction:.3f} of {drawn}")
    ### END HIDDEN TESTS


test_quantile()

# %% [markdown]
# ## 4. A fair clock
#
# Two things are left to do. The **garbage collector** looks for unreachable objects now and then, and whichever call is
# running pays for it; so it rests while we measure. What is switched off must be switched on again even if the
# measured function raises an error: that is what `finally` is for.

# %%
#| export
@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running in this block; afterwards it is as it was, after an error too."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

# %% [markdown]
# And the **clock** itself takes time to read. Predict, then run: how long does it take to call a function that does
# nothing? Does it matter how many calls you time together? (With 0 calls, what is timed is the clock.)

# %%
#| export
SHORTEST_SAMPLE_S = 50e-6


def elapsed(function: Callable[[], Any], calls: int) -> float:
    """The seconds that ``calls`` calls of ``function`` in a row take together."""
    begin = time.perf_counter()
    for _ in itertools.repeat(None, calls):
        function()
    return time.perf_counter() - begin

# %%
def nothing():
    pass


for calls in (0, 1, 10, 100, 1000, 10_000):
    seconds = min(elapsed(nothing, calls) for _ in range(5))
    print(f"{calls:6} calls: {seconds * 1e6:8.2f} µs" + (f", {seconds / calls * 1e9:6.1f} ns a call" if calls else ""))

# %% [markdown]
# On a 2-core machine, by the cell above: a call of a function that does nothing takes 28 ns, but a single one seems to
# take 190 ns, nearly all of it the clock. With 1,000 calls in a row the clock no longer shows.
#
# So one reading of the clock, a *sample*, has to last a while: 50 µs at the least, some 250 times what the clock
# takes. A function that is faster than that is called many times in a sample.
#
# ### Exercise: `call_times`

# %% nbgrader={"grade": false, "grade_id": "setup-call-times", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def call_times(function: Callable[[], Any], repeats: int) -> list[float]:
    """The seconds that a call of ``function`` takes, measured ``repeats`` times, after one call that is not measured.

    A sample that would be shorter than ``SHORTEST_SAMPLE_S`` is made of many calls, and gives their mean. The garbage
    collector is off meanwhile.

    TODO: Warm up, find how many calls make a sample, take the samples, and return seconds per call.

    APPROACH:
    1. Call the function once, unmeasured; the rest goes into `with collector_off():`.
    2. Time one call with `elapsed`. While that is shorter than SHORTEST_SAMPLE_S, double the calls and time again.
    3. The sample that was long enough is your first: take `repeats - 1` more with as many calls.
    4. Divide each by the number of calls.

    EXAMPLE:
    >>> len(call_times(lambda: 1 + 1, repeats=3))
    3

    HINT: A slow function must be called `1 + repeats` times and not once more, so do not throw the first sample away.
    """
    ### BEGIN SOLUTION
    function()
    with collector_off():
        calls, sample = 1, elapsed(function, 1)
        while sample < SHORTEST_SAMPLE_S:
            calls *= 2
            sample = elapsed(function, calls)
        samples = [sample, *(elapsed(function, calls) for _ in range(repeats - 1))]
    return [total / calls for total in samples]
    ### END SOLUTION

# %% [markdown]
# The next tests need a function that takes next to no time, and some whose memory is known.

# %% nbgrader={"grade": false, "grade_id": "setup-examples", "locked": true, "schema_version": 3, "solution": false, "task": false}
def counting():
    """A function that returns how often it was called before."""
    return itertools.count().__next__


class Allocating:
    """A function that needs so many bytes, then so many, ...; it returns the last of them, and counts its calls."""

    def __init__(self, *amounts):
        self.amounts = amounts
        self.calls = 0

    def __call__(self):
        self.calls += 1
        for amount in self.amounts[:-1]:
            len(bytearray(amount))
        return bytearray(self.amounts[-1])


def filling(count, value):
    """A function that returns an array of ``count`` numbers, all equal to ``value``."""
    return lambda: np.full(count, value)

# %% nbgrader={"grade": true, "grade_id": "test-setup-call-times", "locked": true, "points": 18, "schema_version": 3, "solution": false, "task": false}
class Planned:
    """A function whose calls sleep as long as the plan says (then no more), and note whether the collector is on."""

    def __init__(self, *plan):
        self.plan = plan
        self.collector = []

    def __call__(self, answer=None):
        turn = len(self.collector)
        self.collector.append(gc.isenabled())
        time.sleep(self.plan[turn] if turn < len(self.plan) else 0)
        return answer


def test_call_times():
    gc.enable()  # an earlier attempt may have left it off
    planned = Planned(0.4, 0.002, 0.3, 0.002)
    times = call_times(planned, 3)
    assert len(times) == 3, f"repeats=3 must give 3 times, got {len(times)}"
    assert len(planned.collector) == 4, (
        f"a slow function was called {len(planned.collector)} times, expected 4: a warm-up and 3 samples of one call"
    )
    assert times[0] < 0.25, f"the first time is {times[0]:.3f} s, the warm-up's: call once before the clock runs"
    assert times[1] > 0.29, f"the second call slept 0.3 s, and its time is {times[1]:.3f} s: one sample, one time"
    assert times[2] < 0.25, f"the third call slept 0.002 s, and its time is {times[2]:.3f} s: time each call by itself"
    assert not any(planned.collector[1:]), "the garbage collector was on while the clock ran: with collector_off():"
    assert gc.isenabled(), "the garbage collector is off afterwards: leave it as it was"

    totals = []
    for _ in range(3):  # another program may hold one of them up
        ticks = counting()
        times = call_times(ticks, 4)
        totals.append(ticks())
        assert len(times) == 4, f"repeats=4 must give 4 times, got {len(times)}"
        assert 2e-9 < min(times) < 5e-6, (
            f"counting takes longer than 2 ns and less than 5 µs, got {min(times) * 1e6:.4f} µs: "
            "divide each sample by the number of calls in it"
        )
    assert max(totals) > 300, f"a fast function was called {max(totals)} times: double the calls until it takes 50 µs"
    ### BEGIN HIDDEN TESTS
    for count in np.random.default_rng().integers(1, 8, size=3).tolist():
        once_each = Planned(*[0.001] * (count + 1))
        assert len(call_times(once_each, count)) == count and len(once_each.collector) == count + 1, (
            f"repeats={count} of a slow function: {len(once_each.collector)} calls, expected {count + 1}"
        )

    with raises(TypeError):
        call_times(Planned(0.001, 0.001, 0.001, None), 9)  # nobody can sleep None seconds
    assert gc.isenabled(), "after an error the garbage collector is off: use with collector_off():"
    with collector_off():
        call_times(Planned(0.001, 0.001), 1)
        assert not gc.isenabled(), "the collector was off before, and is on afterwards: leave it as it was"
    ### END HIDDEN TESTS


test_call_times()

# %% [markdown]
# ## 5. How much memory?
#
# Predict, then run. The function below makes an array of 8 MB, and from it another one, and returns a single number.
# How many bytes does it hold when it returns, and how many did the machine need to have?

# %%
def mean_square(count):
    numbers = np.ones(count)
    return (numbers * numbers).mean()


tracemalloc.start()
mean_square(1_000_000)
held, peak = tracemalloc.get_traced_memory()
tracemalloc.stop()
print(f"held afterwards: {held:,} bytes, at the peak: {peak:,} bytes; predicted: {2 * array_bytes((1_000_000,), 8):,}")

# %% [markdown]
# What a program holds at the end is not what it needs. The **peak** is: if it does not fit, the program dies there.
# Python's `tracemalloc` counts every allocation of Python and of NumPy while it is on, and remembers the highest
# total.
#
# It slows a program down, so memory is measured in a call of its own. And like the collector it has to be left as it
# was found, also if the measured function itself measures something. That part is done for you:

# %%
#| export
@contextmanager
def tracing() -> Iterator[None]:
    """Let ``tracemalloc`` count memory in this block, its peak beginning here; afterwards it is as it was.

    If it was counting already, then its peak as seen from outside is that of the whole, this block included.
    """
    outer_peak = None
    if tracemalloc.is_tracing():
        _, outer_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
    else:
        tracemalloc.start()
    try:
        yield
    finally:
        if outer_peak is None:
            tracemalloc.stop()
        else:  # no function sets the peak, but an array that nobody writes to lifts it back, at no cost
            np.empty(max(0, outer_peak - tracemalloc.get_traced_memory()[0]), np.uint8)

# %% [markdown]
# ### Exercise: `peak_memory`

# %% nbgrader={"grade": false, "grade_id": "setup-peak-memory", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def peak_memory(function: Callable[[], Any]) -> tuple[Any, int]:
    """Call ``function`` once; its result, and the most bytes it held at any time beyond what was there before.

    Counted is what Python and NumPy allocate; buffers that compiled libraries take for themselves are not seen.

    TODO: Look at the memory before and after the call, inside `with tracing():`.

    APPROACH:
    1. `tracemalloc.get_traced_memory()` returns two numbers: the bytes held now, and the most since tracing began.
    2. Before the call the first number matters, after it the second.
    3. Return the result of the call and the difference.

    EXAMPLE:
    >>> result, peak = peak_memory(lambda: np.ones(1_000_000)); peak // 1_000_000
    8

    HINT: Tracing may have been on before you came, so what is held before the call need not be 0.
    """
    ### BEGIN SOLUTION
    with tracing():
        held, _ = tracemalloc.get_traced_memory()
        outcome = function()
        _, highest = tracemalloc.get_traced_memory()
    return outcome, highest - held
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-peak-memory", "locked": true, "points": 16, "schema_version": 3, "solution": false, "task": false}
def about(peak, expected, what, why):
    assert expected <= peak <= expected + 100_000, f"{what}: expected {expected:,} bytes, got {peak:,}. {why}"


def test_peak_memory():
    tracemalloc.stop()  # an earlier attempt may have left it on
    answer, peak = peak_memory(filling(250_000, 1.5))
    close(answer, np.full(250_000, 1.5), what="the first of the two values", why="return what the function returned")
    about(peak, 2_000_000, "an array of 250,000 float64", "call once, and look at the peak inside with tracing():")

    _, peak = peak_memory(Allocating(5_000_000, 3_000_000, 1_000_000))
    about(peak, 5_000_000, "5 MB, then 3 MB, then 1 MB", "the most held at any one time, not the last and not the sum")
    assert not tracemalloc.is_tracing(), "tracemalloc is still on afterwards: call the function inside with tracing():"

    tracemalloc.start()
    try:
        kept = filling(875_000, 0.0)()
        _, peak = peak_memory(Allocating(2_000_000))
        about(peak, 2_000_000, "2 MB while 7 MB were held before", "subtract what was held before the call")
        assert tracemalloc.is_tracing(), "tracemalloc was on before, and is off afterwards: leave it as it was"
    finally:
        tracemalloc.stop()
    assert kept.nbytes == 7_000_000
    ### BEGIN HIDDEN TESTS
    for amount in np.random.default_rng().integers(1_000_000, 20_000_000, size=3).tolist():
        work = Allocating(amount, 10)
        answer, peak = peak_memory(work)
        assert answer == bytearray(10), f"the first of the two values: expected bytearray(10), got {answer!r}"
        close(work.calls, 1, what="what a counter saw", why="call the function exactly once")
        about(peak, amount, f"a call that needs {amount:,} bytes", "")
    with raises(ZeroDivisionError):
        peak_memory(lambda: 1 / 0)
    assert not tracemalloc.is_tracing(), "after an error tracemalloc is still on: use with tracing():"
    ### END HIDDEN TESTS


test_peak_memory()

# %% [markdown]
# ## 6. The instrument
#
# A `Measurement` holds the four numbers worth reporting, and prints itself in units that people read.

# %%
#| export
class Measurement(NamedTuple):
    """What a call gave and what it cost; ``print`` shows the costs."""

    result: Any
    """What the function returned."""
    median_s: float
    """Seconds a call takes: half of the calls took less."""
    spread_s: float
    """Seconds between the quarter points of the times: the interquartile range."""
    peak_bytes: int
    """The most bytes held at any time in a call, beyond what was there before it."""

    def __str__(self) -> str:
        size, unit = _unit(self.median_s, ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")))
        median, spread = self.median_s / size, self.spread_s / size
        digits = 2 if median < 10 else 1 if median < 100 else 0
        peak = _readable_bytes(self.peak_bytes)
        return f"{median:.{digits}f} {unit} (spread {spread:.{digits}f} {unit}), peak {peak}"

# %%
print(Measurement(result=None, median_s=0.00123, spread_s=0.00004, peak_bytes=1_200_000))

# %% [markdown]
# ### Exercise: `measure`

# %% nbgrader={"grade": false, "grade_id": "setup-measure", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def measure(function: Callable[..., Any], *args: Any, repeats: int = 5, **kwargs: Any) -> Measurement:
    """What ``function(*args, **kwargs)`` gives, how long it takes, and how much memory it needs.

    Parameters
    ----------
    function
        It is called ``repeats + 2`` times: once to warm up, ``repeats`` times with the clock, once with its memory
        counted. One that takes less than 50 µs is called more often, so that the clock's resolution does not matter.
    repeats
        How many times are taken; the median and the spread are over these.

    Returns
    -------
    Measurement
        ``result`` (of the last call), ``median_s``, ``spread_s`` (the interquartile range), ``peak_bytes``.

    Raises
    ------
    TypeError
        If ``function`` cannot be called.
    ValueError
        If ``repeats`` is less than 1.
    Exception
        Whatever ``function`` raises; garbage collector and tracemalloc are as before then.

    TODO: Put the parts together.

    APPROACH:
    1. `partial(function, *args, **kwargs)` is a function without arguments, as your parts want it.
    2. Times first, memory in a call of its own: counting memory slows a function down.
    3. The spread is the distance between the quantiles at 0.75 and 0.25.

    EXAMPLE:
    >>> print(measure(np.ones, 1_000_000))
    150 µs (spread 16 µs), peak 8.0 MB

    HINT: `Measurement(...)` takes the four values in the order of its fields.
    """
    if not callable(function):
        raise TypeError(
            f"measure: expected a function, got {type(function).__name__}; write measure(f, x), not measure(f(x))"
        )
    if repeats < 1:
        raise ValueError(f"measure: repeats must be at least 1, got {repeats}")
    ### BEGIN SOLUTION
    call = partial(function, *args, **kwargs)
    durations = call_times(call, repeats)
    outcome, most = peak_memory(call)
    quarters = [quantile(durations, quarter / 4) for quarter in (1, 2, 3)]
    return Measurement(outcome, quarters[1], quarters[2] - quarters[0], most)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-measure", "locked": true, "points": 16, "schema_version": 3, "solution": false, "task": false}
def test_measure():
    gc.enable()  # an earlier attempt may have left it off, and the other on
    tracemalloc.stop()
    for _attempt in range(3):  # another program may disturb one, and hardly three
        planned = Planned(0.002, 0.3, 0.1, 0.5, 0.2, 0.4)
        taken = measure(planned, answer=42, repeats=5)
        if 0.29 < taken.median_s < 0.35 and 0.15 < taken.spread_s < 0.25:
            break
    close(taken.result, 42, what="result", why="keyword arguments go to the function, and what it returns into result")
    assert len(planned.collector) == 7, (
        f"repeats=5 called the function {len(planned.collector)} times, expected 7: warm-up, 5 samples, memory"
    )
    slept = "the samples slept 0.3, 0.1, 0.5, 0.2 and 0.4 s"
    assert 0.29 < taken.median_s < 0.35, f"{slept}: median_s should be 0.3, not {taken.median_s:.3f}"
    assert 0.15 < taken.spread_s < 0.25, f"{slept}: spread_s should be 0.4 - 0.2 = 0.2, not {taken.spread_s:.3f}"

    ones = measure(np.ones, (1000, 250))
    close(ones.result, np.ones((1000, 250)), what="measure(np.ones, (1000, 250)).result", why="arguments go on")
    about(int(ones.peak_bytes), 2_000_000, "peak_bytes of np.ones((1000, 250))", "")
    assert 0 < ones.median_s < 1, f"np.ones of 2 MB takes milliseconds, median_s says {ones.median_s} s"
    with raises(ValueError, "repeats", "0"):
        measure(int, repeats=0)
    with raises(TypeError, "function", "int"):
        measure(8)
    ### BEGIN HIDDEN TESTS
    straggler = Planned(0.001, 0.002, 0.002, 0.4, 0.002, 0.002)
    calm = measure(straggler)
    assert len(straggler.collector) == 7, f"five repeats by default: 7 calls, not {len(straggler.collector)}"
    assert calm.median_s < 0.2, "four of five calls slept 0.002 s, so the median is about that"
    assert calm.spread_s < 0.2, "four of five calls slept 0.002 s: the quarter points are equal, whatever the fifth did"
    few = Planned(0.001, 0.001, 0.001, 0.001)
    measure(few, repeats=2)
    assert len(few.collector) == 4, f"repeats=2 called the function {len(few.collector)} times, expected 4"
    size = int(np.random.default_rng().integers(200_000, 2_000_000))
    drawn = measure(bytearray, size, repeats=2)
    close(len(drawn.result), size, what="the length of bytearray(size)")
    about(int(drawn.peak_bytes), size, f"peak_bytes of bytearray({size})", "")
    with raises(ZeroDivisionError):
        measure(divmod, 1, 0)
    assert gc.isenabled() and not tracemalloc.is_tracing(), "an error must leave collector and tracemalloc as they were"
    ### END HIDDEN TESTS


test_measure()

# %%
print("sum of a list of a million numbers: ", measure(sum, [1.0] * 1_000_000))
print("sum of an array of a million numbers:", measure(np.sum, np.ones(1_000_000)))
print("sorted list of 100,000 numbers:      ", measure(sorted, np.random.default_rng(0).random(100_000).tolist()))

# %% [markdown]
# ## 7. Loops against arrays
#
# Here is a calculation that machine learning does all day: the squared distance of many points to a centre. The loop
# says exactly what happens.

# %%
def squared_distances_loop(points, centre):
    """The squared distance of each row of ``points`` (n, d) to ``centre`` (d,): n numbers."""
    distances = np.zeros(len(points))
    for row in range(len(points)):
        for column in range(len(centre)):
            distances[row] += (points[row, column] - centre[column]) ** 2
    return distances


squared_distances_loop(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([0.0, 0.0]))

# %% [markdown]
# *Vectorised* code says the same of whole arrays. NumPy then runs the loop, in compiled code: it looks at the types
# once and not at every number, and makes no Python object for each. Write down your prediction for 30,000 points of 3
# numbers: how many times faster?
#
# ### Exercise: `squared_distances`

# %% nbgrader={"grade": false, "grade_id": "setup-vectorised", "locked": false, "schema_version": 3, "solution": true, "task": false}
def squared_distances(points, centre):
    """The squared distance of each row of ``points`` (n, d) to ``centre`` (d,): n numbers, without a Python loop.

    TODO: Subtract, square, add up each row.

    APPROACH:
    1. `points - centre` subtracts the centre from every row: shapes (n, d) and (d,) give (n, d).
    2. Square each number.
    3. `.sum(axis=...)` adds along one axis and leaves the other.

    EXAMPLE:
    >>> squared_distances(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([0.0, 0.0]))
    array([ 0., 25.])

    HINT: axis=0 adds the rows together and leaves d numbers; you want n.
    """
    ### BEGIN SOLUTION
    offsets = points - centre  # (n, d)
    return (offsets * offsets).sum(axis=1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-vectorised", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_squared_distances():
    points, centre = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, -1.0]]), np.array([0.0, 1.0])
    close(squared_distances(points, centre), [1, 18, 5], why="subtract, square, add up each row")
    close(points, [[0, 0], [3, 4], [1, -1]], what="points after the call", why="the caller's array was changed")
    square = np.array([[1.0, 2.0], [3.0, 4.0]])
    close(squared_distances(square, np.zeros(2)), [5, 25], why="each row by itself: the sum goes along axis 1")
    many = np.ones((1_000_000, 2))
    begin = time.process_time()  # the processor's time for this process alone, whatever else is running
    squared_distances(many, centre)
    seconds = time.process_time() - begin
    assert seconds < 0.5, f"a million points take {seconds:.2f} s of the processor: is there a loop left?"
    ### BEGIN HIDDEN TESTS
    generator = np.random.default_rng()
    for rows, columns in ((1, 4), (6, 1), (5, 5), (40, 3)):
        cloud, middle = generator.normal(size=(rows, columns)), generator.normal(size=columns)
        expected = [sum((a - b) ** 2 for a, b in zip(row, middle, strict=True)) for row in cloud]
        close(squared_distances(cloud, middle), expected, what=f"{rows} points of {columns} numbers")
    ### END HIDDEN TESTS


test_squared_distances()

# %% [markdown]
# A fast wrong answer is no gain. So whoever compares two functions compares what they return first.
#
# ### Exercise: `speedup`

# %% nbgrader={"grade": false, "grade_id": "setup-speedup", "locked": false, "schema_version": 3, "solution": true, "task": false}
def speedup(slow, fast, *args):
    """How many times faster ``fast(*args)`` is than ``slow(*args)``, which must return the same array.

    Raises
    ------
    ValueError
        If the two results differ in shape, or in value by more than rounding explains.

    TODO: Measure both, compare their results, and return the ratio of their median times.

    APPROACH:
    1. `measure` each of them.
    2. Raise a ValueError that says that the results differ, unless the shapes are equal and `np.allclose` agrees.
    3. Divide the slow median by the fast one.

    EXAMPLE:
    >>> speedup(squared_distances_loop, squared_distances, np.ones((1000, 3)), np.ones(3)) > 1
    True

    HINT: np.allclose alone is not enough: it broadcasts, so it finds the number 1.0 close to an array of ones.
    """
    ### BEGIN SOLUTION
    old, new = measure(slow, *args), measure(fast, *args)
    if np.shape(old.result) != np.shape(new.result) or not np.allclose(old.result, new.result):
        raise ValueError("speedup: the results differ, so there is nothing to compare")
    return old.median_s / new.median_s
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-setup-speedup", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_speedup():
    def slow(values, factor):
        time.sleep(0.05)
        return values * factor

    def fast(values, factor):
        time.sleep(0.002)
        return values * factor * (1 + 1e-12)

    ratio = speedup(slow, fast, np.ones(3), 2.0)
    assert 2 < ratio < 30, f"50 ms against 2 ms: expected about 25, got {ratio:.3g}; slow time divided by fast time"
    with raises(ValueError, "differ", why="2 and 0: compare the results, and let the message say that they differ"):
        speedup(np.add, np.subtract, np.ones(3), np.ones(3))
    with raises(ValueError, "differ", why="1.0 and [1.0, 1.0] differ in shape: compare np.shape as well"):
        speedup(np.max, np.abs, np.ones(2))
    ### BEGIN HIDDEN TESTS
    ratio = speedup(fast, slow, np.ones((2, 2)), 3.0)
    assert 0 < ratio < 0.5, f"2 ms against 50 ms: a slower function gives a ratio under 1, got {ratio:.3g}"
    drawn = np.random.default_rng().uniform(1, 2, size=4)
    with raises(ValueError, "differ"):
        speedup(np.copy, lambda values: values * 1.001, drawn)
    with raises(ValueError, "differ", why="(4,) and (1, 4) differ in shape"):
        speedup(np.copy, np.atleast_2d, drawn)
    ### END HIDDEN TESTS


test_speedup()

# %%
cloud, middle = np.random.default_rng(0).normal(size=(30_000, 3)), np.zeros(3)
loop, vectorised = measure(squared_distances_loop, cloud, middle, repeats=3), measure(squared_distances, cloud, middle)
print(f"loop       {loop}")
print(f"vectorised {vectorised}")
print(f"ratio      {loop.median_s / vectorised.median_s:.0f}")

# %% [markdown]
# On a 2-core machine, by the cell above: 55 ms against 1.0 ms, a ratio of 55. Run the cell a few times: with other
# programs at work, ours gave ratios from 9 to 130, most of them between 30 and 100. The spread belongs to the answer:
# "30 to 100 times" is what can honestly be said here, and "55.3 times" is not.
#
# Memory hardly varies, and it is where the arrays pay. The loop holds nothing but its result, 30,000 numbers of 8
# bytes. The vectorised form holds the differences, their squares and the result at the same time:

# %%
print("loop:       predicted", array_bytes((30_000,), 8), "measured", loop.peak_bytes)
print("vectorised: predicted", array_bytes((30_000, 3 + 3 + 1), 8), "measured", vectorised.peak_bytes)

# %% [markdown]
# Is the ratio the same at every size? Predict: what does it do as the number of points falls to 1?

# %%
import matplotlib.pyplot as plt

sizes = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000]
loop_times = [measure(squared_distances_loop, cloud[:n], middle, repeats=3).median_s for n in sizes]
array_times = [measure(squared_distances, cloud[:n], middle, repeats=15).median_s for n in sizes]

figure, axes = plt.subplots(figsize=(6, 3.6))
axes.loglog(sizes, loop_times, "o-", label="loop")
axes.loglog(sizes, array_times, "s-", label="vectorised")
axes.set_xlabel("points")
axes.set_ylabel("seconds a call (median)")
axes.set_title("Squared distances: time against size")
axes.grid(alpha=0.3)
axes.legend()
plt.show()
for n, slow_s, fast_s in zip(sizes, loop_times, array_times, strict=True):
    print(f"{n:7,} points: {slow_s * 1e6:10.1f} µs against {fast_s * 1e6:7.1f} µs, ratio {slow_s / fast_s:6.1f}")

# %% [markdown]
# Both axes are logarithmic, so a straight line that rises one decade for each decade to the right is time in
# proportion to the size. The loop is such a line from beginning to end: 1 to 2 µs a point.
#
# The vectorised form is flat at first: about 2.5 µs, whether for 1 point or for 10. That is what it costs to call
# NumPy three times, before any number is touched. Beyond some 100 points the work outweighs the calls, the two lines
# come to run in parallel, and the distance between them is the ratio. For a single point the loop is as fast, or
# faster.
#
# So vectorise over the *large* axis, and do much in each call. This is why networks are fed batches and not single
# examples.
#
# ## 8. One tool more
#
# From module 11 on you save things that took long to make: a tokenizer, a table of vectors, a half-trained network. A
# program that is stopped while it writes leaves half a file, and the old one is gone. The remedy is one line of
# thought: write beside it, then rename, since a rename happens at once or not at all. Nothing to do here but to read it.

# %%
#| export
def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to a new file beside ``path``, then rename it to ``path``.

    Whoever reads ``path`` meets the old file or the new one, never a part of it, whatever stops the program.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full; the old file is then as it was.
    """
    final = Path(path)
    beside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk, not only on its way there
        beside.replace(final)
    finally:
        beside.unlink(missing_ok=True)

# %% [markdown]
# ## What you have built
#
# `measure`, out of `quantile`, `call_times` and `peak_memory`: seconds, their spread, and peak memory of a call, in a
# form that can be printed or calculated with. `environment_report` says where the numbers come from. Every later
# module measures what it builds with these. `write_atomically` waits for the first thing worth saving.
#
# In the terminal: `tito module complete 01`. Next is module 02: the `Tensor`, on which everything else stands.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "setup-reflect-report-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A number to trust.** A colleague writes: "I timed my new layer once, in the cell that defines it: 41 ms. The old
# one took 52 ms last week, so mine is 21 % faster." Name three things that could be wrong with this comparison, and
# say how you would measure instead, and when you would believe a difference of 21 %.
#
# === BEGIN MARK SCHEME ===
# 3 points: one each for three different faults (single reading, no warm-up, other day or machine or load, other
# versions or inputs, results not compared). 1 point: both measured side by side with repeats, giving median and
# spread. 1 point: the difference is held against the spread.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "setup-reflect-report", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# One reading says nothing of the spread. It was a first call, so set-up and cold caches are in it. The old time is
# from another day: perhaps another machine or load, other versions, other inputs. Nobody says that the two give the
# same result. Better: both in one session on the same inputs, results compared, warmed up, several repeats taken in
# turn, median and spread reported with the environment. I would believe it if the medians lie apart by much more than
# the spreads, and again in a second run.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "setup-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Speed for memory.** `squared_distances` is to run on 10 million points of 768 float32 numbers each, on a machine
# with 64 GB. What does it need at its peak, and what would the loop need? Sketch a version that fits and is still
# fast.
#
# === BEGIN MARK SCHEME ===
# 2 points: about 31 GB for the points and 61 GB more for the two intermediate arrays (one of the two is worth 1
# point). 1 point: the loop needs hardly more than input and result. 2 points: blocks of rows, vectorised inside, with
# a reason why it is still fast.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "setup-reflect-memory", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The points take 10^7 * 768 * 4 bytes = 30.7 GB. The differences are as large again, and so are their squares: at the
# peak 92 GB with the points, so it does not fit. The loop adds only the result of 40 MB (80 MB in float64), and takes
# hours. In between: go through the points in blocks of some thousand rows and write each block's sums into the
# result. A block of 10,000 rows needs two arrays of 31 MB, and the thousand turns of the Python loop cost nothing
# beside the arithmetic.
# ### END SOLUTION
