"""``python benchmarks/speed.py``: tinytorch and PyTorch side by side, on the workloads of ``workloads.py``.

Each framework works in a process of its own, with two threads, and they take turns: while one takes its steps, the
other sleeps. (In one process, the threads that NumPy's and PyTorch's libraries keep awake take the processors from each
other.) Both are built with the same weights and data, and their first step must give the same. A ratio is the median,
over the rounds, of our median step by theirs.

What others do with the machine meanwhile is measured too. If it is more than a little, there is no result.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median, quantiles
from typing import Any

import click
import psutil
from growth import GROWTH
from rich.console import Console
from rich.table import Table
from workloads import WORKLOADS

HERE = Path(__file__).parent
THREADS = 2
FRAMEWORKS = ("tinytorch", "torch")
ROUNDS = 12
TURN_S = 0.4  # how long a turn takes, after a step that is not timed
REST_S = 0.08  # before a turn: libraries keep their threads awake for some hundredths of a second after their work
OTHERS = 0.05  # of the processors' time, what others may take
TRIES = 3
SAME = 1e-5  # by how much the first steps may differ, in proportion


@dataclass
class Result:
    """What a workload took: medians in ms, their ratio with its quartiles, and the most memory held, in MB."""

    name: str
    title: str
    goal: float
    tinytorch_ms: float
    torch_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    tinytorch_mb: float
    torch_mb: float


class BusyError(Exception):
    """Others took so much of the machine that times mean nothing."""


class Process:
    """A framework at work in a process of its own; see ``peer.py`` for what can be asked of it."""

    def __init__(self, framework: str, clock: str, threads: int) -> None:
        self.framework = framework
        counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.popen = subprocess.Popen(
            [sys.executable, str(HERE / "peer.py"), framework, str(threads), clock],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **counts},
        )  # fmt: skip

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Let it do something, and wait for the answer."""
        assert self.popen.stdin and self.popen.stdout
        print(json.dumps({"do": what, **details}), file=self.popen.stdin, flush=True)
        answer = self.popen.stdout.readline()
        if not answer:
            raise click.ClickException(f"{self.framework} ended while it should {what} {details}")
        return dict(json.loads(answer))

    def seconds(self) -> float:
        """The processor time that it used so far."""
        used = psutil.Process(self.popen.pid).cpu_times()
        return float(used.user + used.system)


@contextmanager
def processes(clock: str, threads: int) -> Iterator[dict[str, Process]]:
    """A process for each framework, which end with the block."""
    pair = {framework: Process(framework, clock, threads) for framework in FRAMEWORKS}
    try:
        yield pair
    finally:
        for one in pair.values():
            one.popen.stdin.close()  # type: ignore[union-attr]
        for one in pair.values():
            one.popen.wait()


def total_busy() -> float:
    """The processor time, of all processors, in which they were not idle."""
    times = psutil.cpu_times()._asdict()
    inside = ("idle", "iowait", "guest", "guest_nice")  # what guests take is in the user's time already
    return float(sum(seconds for kind, seconds in times.items() if kind not in inside))


class Watch:
    """How much of the processors' time others take from when it is made: neither we nor ``pair``."""

    def __init__(self, pair: dict[str, Process]) -> None:
        self.pair = pair
        self.begin, self.busy, self.own = time.perf_counter(), total_busy(), self.used()

    def used(self) -> float:
        return sum(one.seconds() for one in self.pair.values()) + time.process_time()

    def others(self) -> float:
        """The share so far, from 0 to 1."""
        passed = (time.perf_counter() - self.begin) * (psutil.cpu_count() or 1)
        return max(0.0, (total_busy() - self.busy) - (self.used() - self.own)) / passed


def measured(name: str, clock: str, threads: int) -> tuple[Result, float]:
    """A workload in both frameworks, by turns; and what others took of the processors' time meanwhile."""
    workload = WORKLOADS[name]
    with processes(clock, threads) as pair:
        first = {one: pair[one].ask("build", workload=name)["first"] for one in FRAMEWORKS}
        check_same(name, **first)
        steps = {one: steps_in_a_turn(pair[one]) for one in FRAMEWORKS}
        rounds: list[dict[str, float]] = []
        watch = Watch(pair)
        for turn in range(ROUNDS):
            taken = {}
            for one in FRAMEWORKS if turn % 2 else FRAMEWORKS[::-1]:
                time.sleep(REST_S)
                taken[one] = median(pair[one].ask("turn", steps=steps[one])["seconds"])
            rounds.append(taken)
        others = watch.others()
        megabytes = {one: pair[one].ask("peak")["bytes"] / 1e6 for one in FRAMEWORKS}
    low, middle, high = quantiles([taken["tinytorch"] / taken["torch"] for taken in rounds])
    ours, theirs = (median(taken[one] for taken in rounds) * 1e3 for one in FRAMEWORKS)
    memory = megabytes["tinytorch"], megabytes["torch"]
    return Result(name, workload.title, workload.goal, ours, theirs, middle, low, high, *memory), others


def check_same(name: str, tinytorch: float, torch: float) -> None:
    """Refuse to compare two programs that do not compute the same."""
    if abs(tinytorch - torch) > SAME * abs(torch):
        raise click.ClickException(f"{name}: the first step gives {tinytorch} in tinytorch and {torch} in PyTorch")


def steps_in_a_turn(process: Process) -> int:
    """How many steps take ``TURN_S``, at least one; the first ones warm up."""
    each = median(process.ask("turn", steps=3)["seconds"])
    return max(1, round(TURN_S / each))


def quietly(measure: Callable[..., tuple[Any, float]], name: str, clock: str, threads: int, noisy: bool) -> Any:
    """What ``measure`` gives; again if others used the machine meanwhile, and ``BusyError`` if they do not stop."""
    for _ in range(TRIES):
        result, others = measure(name, clock, threads)
        if noisy or others <= OTHERS:
            return result
    raise BusyError(f"{name}: others took {others:.0%} of the processors' time. {seen()}")


def wait_for_quiet() -> None:
    """Look at the machine for two seconds; ``BusyError`` if others use it."""
    watch = Watch({})
    time.sleep(2)
    others = watch.others()
    if others > OTHERS:
        raise BusyError(f"Others take {others:.0%} of the processors' time. {seen()}")


def seen() -> str:
    """The three programs that use most of the processors now."""
    running = list(psutil.process_iter(["name", "pid"]))
    for process in running:
        _percent(process)
    time.sleep(0.5)
    shares = sorted(((_percent(process), process.info) for process in running), key=lambda pair: -pair[0])
    return "Seen: " + ", ".join(f"{info['name']} ({info['pid']}) {percent:.0f} %" for percent, info in shares[:3])


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def grown(name: str, clock: str, threads: int) -> tuple[dict[str, list[float]], float]:
    """The points of each line of a figure, by turns; and what others took of the processors' time meanwhile."""
    figure = GROWTH[name]
    with processes(clock, threads) as pair:
        points: dict[str, list[float]] = {label: [] for label in figure.lines}
        watch = Watch(pair)
        for x in figure.xs:
            for label, line in figure.lines.items():
                time.sleep(REST_S)
                points[label].append(pair[line.framework].ask("grow", figure=name, label=label, x=x)["y"])
        return points, watch.others()


def machine() -> dict[str, Any]:
    """What it was measured on."""
    import numpy as np
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = models[0] if models else model
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    return {"processor": model, "processors": psutil.cpu_count(), **versions}


def show(results: list[Result], remark: str) -> None:
    """Print the table of ratios."""
    table = Table(title=f"tinytorch against PyTorch{remark}", caption="ratio: our time by theirs, and its quartiles")
    for heading in ("", "", "tinytorch ms", "PyTorch ms", "ratio", "", "goal", "peak MB", "PyTorch's"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in results:
        colour = "green" if one.ratio <= one.goal else "yellow"
        table.add_row(
            *(one.name, one.title, f"{one.tinytorch_ms:.2f}", f"{one.torch_ms:.2f}"),
            *(f"[{colour}]{one.ratio:.2f}[/]", f"{one.ratio_low:.2f} to {one.ratio_high:.2f}", f"{one.goal}"),
            *(f"{one.tinytorch_mb:.0f}", f"{one.torch_mb:.0f}"),
        )
    if len(results) > 1:
        table.add_row("", "geometric mean", "", "", f"{geometric_mean(one.ratio for one in results):.2f}")
    Console(width=110).print(table)


@click.command()
@click.argument("names", nargs=-1, metavar="[W1 W3 ...]")
@click.option(
    "--noisy", is_flag=True, help="Measure processor time of one thread on a busy machine; the output says so."
)
@click.option("--threads", type=int, help=f"Threads of each framework: {THREADS} by default.")
@click.option("--growth/--no-growth", default=True, help="Measure how time and memory grow, too.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE.parent / "build" / "speed", show_default=False)
def main(names: tuple[str, ...], noisy: bool, threads: int | None, growth: bool, out: Path) -> None:
    """Time the workloads (all by default) in tinytorch and PyTorch; print a table, write speed.json and speed.png."""
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise click.ClickException(f"no workload {unknown[0]}; there are {', '.join(WORKLOADS)}")
    clock = "processor" if noisy else "wall"
    threads = threads or (1 if noisy else THREADS)  # threads that wait for each other count as work on a busy machine
    remark = " (processor time on a busy machine: for development only)" if noisy else ""
    try:
        if not noisy:
            wait_for_quiet()
        results = [quietly(measured, name, clock, threads, noisy) for name in names or WORKLOADS]
        show(results, remark)
        lines = {name: quietly(grown, name, clock, threads, noisy) for name in GROWTH if growth}
    except BusyError as error:
        raise click.ClickException(f"too noisy to measure. {error}") from None
    out.mkdir(parents=True, exist_ok=True)
    report = {"noisy": noisy, "clock": clock, "machine": {**machine(), "threads": threads}}
    report |= {"workloads": [asdict(one) for one in results], "growth": lines}
    (out / "speed.json").write_text(json.dumps(report, indent=1) + "\n")
    from figure import draw

    draw(results, lines, remark, out / "speed.png")
    print(f"{out / 'speed.json'}, {out / 'speed.png'}")


if __name__ == "__main__":
    main()
