"""One framework's side of a measurement, in a process of its own; ``speed.py`` lets several take turns.

``peer.py FRAMEWORK THREADS [CLOCK]`` reads a line of JSON from stdin for each thing to do and answers with one.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from growth import GROWTH, WRITTEN
from workloads import WORKLOADS, Step

ENOUGH_S = 0.3  # how long a point of a figure is measured, what prepares it not counted
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Peer:
    """What one framework is asked to do; each method answers a request of its name with plain data."""

    def __init__(self, framework: str, clock: str) -> None:
        self.framework = framework
        self.clock = CLOCKS[clock]
        self.step: Step = lambda: None
        self.before = 0

    def begin(self) -> dict[str, float]:
        """Nothing but an answer, which comes once the framework is loaded."""
        return {}

    def build(self, workload: str) -> dict[str, float]:
        """Make a workload's step, and take the first one; returns the sum of the sizes of the numbers it gave."""
        self.before = _memory("VmRSS")
        self.step = getattr(WORKLOADS[workload], self.framework)()
        first = abs(self.step()).sum().item()
        _forget_peak()  # what it took to draw weights and to add up is no framework's
        return {"first": first}

    def turn(self, steps: int) -> dict[str, list[float]]:
        """Take one step to warm up, then ``steps`` with the clock; the garbage collector waits."""
        self.step()
        gc.collect()
        gc.disable()
        seconds = [self.seconds_of(self.step) for _ in range(steps)]
        gc.enable()
        return {"seconds": seconds}

    def peak(self) -> dict[str, int]:
        """The most bytes that the process held in its steps, beyond what it had before the workload was built."""
        return {"bytes": max(0, _memory("VmHWM") - self.before)}

    def grow(self, figure: str, label: str, x: int) -> dict[str, float]:
        """One point of a line of a figure: by the median of many times, at least five, or the most bytes held."""
        growth = GROWTH[figure]
        prepare = growth.lines[label].make(x)
        if growth.unit == "bytes":
            return {"y": _bytes_of(prepare())}
        prepare()()
        times: list[float] = []
        while len(times) < 5 or sum(times) < ENOUGH_S:
            times.append(self.seconds_of(prepare()))
        return {"y": WRITTEN / median(times) if growth.unit == "tokens/s" else median(times)}

    def seconds_of(self, work: Callable[[], Any]) -> float:
        """How long it takes, by the clock that was chosen."""
        begin = self.clock()
        work()
        return self.clock() - begin


def _bytes_of(work: Callable[[], Any]) -> int:
    """The most bytes that the process held at any time in ``work``, beyond what it held before."""
    _forget_peak()
    before = _memory("VmRSS")
    work()
    return _memory("VmHWM") - before


def _forget_peak() -> None:
    """Give free memory back to the system, and let it count anew what is the most that is held."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # of glibc
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    """``VmRSS``, the bytes that this process holds, or ``VmHWM``, the most it held."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def _load_all(framework: str) -> None:
    """Take a small step, so that whatever a framework loads late counts to no workload."""
    package = importlib.import_module(framework)
    if framework == "autograd":
        numpy = importlib.import_module("autograd.numpy")
        package.grad(lambda x: numpy.sum(numpy.dot(x, x)))(numpy.ones((2, 2)))
        return
    x = package.ones(2, 2, requires_grad=True)
    optimizer = package.optim.Adam([x])
    (x @ x).sum().backward()
    optimizer.step()


def main(framework: str, threads: str, clock: str = "wall") -> None:
    """Answer requests until there are no more."""
    if framework == "torch":
        importlib.import_module(framework).set_num_threads(int(threads))
    _load_all(framework)
    peer = Peer(framework, clock)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(peer, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
