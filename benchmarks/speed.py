"""``python benchmarks/speed.py``: tinytorch, PyTorch and HIPS autograd side by side, on what ``workloads.py`` has.

Each framework works in a process of its own, with two threads, and they take turns: while one takes its steps, the
others sleep. (In one process, the threads that NumPy's and PyTorch's libraries keep awake take the processors from each
other.) All are built with the same weights and data, and their first step must give the same. A ratio is the median,
over the rounds, of a framework's median step by PyTorch's.

What others do with the machine meanwhile is measured too. If it is more than a little, there is no result.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean, median, quantiles
from typing import Any

import click
import psutil
from growth import GROWTH, SCALES
from rich.console import Console
from rich.table import Table
from workloads import FRAMEWORKS, WORKLOADS

HERE = Path(__file__).parent
THREADS = 2
ROUNDS = 12
TURN_S = 0.4  # how long a turn takes, after a step that is not timed
REST_S = 0.08  # before a turn: libraries keep their threads awake for some hundredths of a second after their work
OTHERS = 0.05  # of the processors' time, what others may take
TRIES = 3
SAME = 1e-5  # by how much the first steps may differ, in proportion


@dataclass
class Taken:
    """What a framework took: ms a step, their ratio to PyTorch's with its quartiles, the most memory held in MB."""

    ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    mb: float


@dataclass
class Result:
    """What a workload took in each framework that has it."""

    name: str
    title: str
    goal: float
    frameworks: dict[str, Taken]

    @property
    def ratio(self) -> float:
        """Our time by PyTorch's."""
        return self.frameworks["tinytorch"].ratio


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
def processes(frameworks: Iterable[str], clock: str, threads: int) -> Iterator[dict[str, Process]]:
    """A process for each framework, all of them loaded, which end with the block."""
    peers = {framework: Process(framework, clock, threads) for framework in frameworks}
    try:
        for one in peers.values():
            one.ask("begin")
        yield peers
    finally:
        for one in peers.values():
            one.popen.stdin.close()  # type: ignore[union-attr]
        for one in peers.values():
            one.popen.wait()


def total_busy() -> float:
    """The processor time, of all processors, in which they were not idle."""
    times = psutil.cpu_times()._asdict()
    inside = ("idle", "iowait", "guest", "guest_nice")  # what guests take is in the user's time already
    return float(sum(seconds for kind, seconds in times.items() if kind not in inside))


class Watch:
    """How much of the processors' time others take from when it is made: neither we nor the ``peers``."""

    def __init__(self, peers: dict[str, Process]) -> None:
        self.peers = peers
        self.begin, self.busy, self.own = time.perf_counter(), total_busy(), self.used()

    def used(self) -> float:
        return sum(one.seconds() for one in self.peers.values()) + time.process_time()

    def others(self) -> float:
        """The share so far, from 0 to 1."""
        passed = (time.perf_counter() - self.begin) * (psutil.cpu_count() or 1)
        return max(0.0, (total_busy() - self.busy) - (self.used() - self.own)) / passed


def measured(name: str, clock: str, threads: int) -> tuple[Result, float]:
    """A workload in each framework, by turns; and what others took of the processors' time meanwhile."""
    workload = WORKLOADS[name]
    with processes(workload.frameworks, clock, threads) as peers:
        check_same(name, {one: peer.ask("build", workload=name)["first"] for one, peer in peers.items()})
        steps = {one: steps_in_a_turn(peer) for one, peer in peers.items()}
        rounds: list[dict[str, float]] = []
        watch = Watch(peers)
        for turn in range(ROUNDS):
            taken = {}
            for one in workload.frameworks[:: 1 if turn % 2 else -1]:
                time.sleep(REST_S)
                taken[one] = median(peers[one].ask("turn", steps=steps[one])["seconds"])
            rounds.append(taken)
        others = watch.others()
        megabytes = {one: peer.ask("peak")["bytes"] / 1e6 for one, peer in peers.items()}
    frameworks = {one: summed_up(rounds, one, megabytes[one]) for one in workload.frameworks}
    return Result(name, workload.title, workload.goal, frameworks), others


def summed_up(rounds: list[dict[str, float]], framework: str, megabytes: float) -> Taken:
    """What a framework took, given the seconds of a step in each round, by framework."""
    low, middle, high = quantiles([taken[framework] / taken["torch"] for taken in rounds])
    return Taken(median(taken[framework] for taken in rounds) * 1e3, middle, low, high, megabytes)


def check_same(name: str, first: dict[str, float]) -> None:
    """Refuse to compare programs that do not compute the same."""
    for framework, number in first.items():
        if abs(number - first["torch"]) > SAME * abs(first["torch"]):
            told = f"the first step gives {number} in {framework} and {first['torch']} in PyTorch"
            raise click.ClickException(f"{name}: {told}")


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
    with processes({line.framework for line in figure.lines.values()}, clock, threads) as peers:
        points: dict[str, list[float]] = {label: [] for label in figure.lines}
        watch = Watch(peers)
        for x in figure.xs:
            for label, line in figure.lines.items():
                time.sleep(REST_S)
                points[label].append(peers[line.framework].ask("grow", figure=name, label=label, x=x)["y"])
        return points, watch.others()


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = models[0] if models else model
    versions = {package: version(package) for package in ("numpy", "torch", "autograd")}
    return {"processor": model, "processors": psutil.cpu_count(), "python": platform.python_version(), **versions}


def show(results: list[Result], remark: str) -> None:
    """Print the table of ratios."""
    table = Table("", "", title=f"Time and memory{remark}", caption="ratio: time by PyTorch's, and its quartiles")
    numbers = ("tinytorch ms", "PyTorch ms", "autograd ms", "ratio", "goal", "autograd's ratio", "MB, in this order")
    for heading in numbers:
        table.add_column(heading, justify="right")
    for one in results:
        taken = [one.frameworks.get(name) for name in FRAMEWORKS]
        ours, autograd = one.frameworks["tinytorch"], one.frameworks.get("autograd")
        colour = "green" if ours.ratio <= one.goal else "yellow"
        table.add_row(
            *(one.name, one.title, *(f"{each.ms:.2f}" if each else "" for each in taken)),
            *(f"[{colour}]{ours.ratio:.2f}[/] ({ours.ratio_low:.2f} to {ours.ratio_high:.2f})", f"{one.goal}"),
            f"{autograd.ratio:.2f}" if autograd else "",
            " / ".join(f"{each.mb:.0f}" for each in taken if each),
        )
    if len(results) > 1:
        table.add_row("", "geometric mean", "", "", "", f"{geometric_mean(one.ratio for one in results):.2f}")
    Console(width=160).print(table)


def show_growth(name: str, points: dict[str, list[float]]) -> None:
    """Print the table of a figure."""
    figure = GROWTH[name]
    scale, unit = SCALES[figure.unit]
    table = Table("", title=f"{figure.title}: {unit}, by {figure.x_label}")
    for x in figure.xs:
        table.add_column(f"{x:,}", justify="right")
    for label, ys in points.items():
        table.add_row(label, *(f"{y * scale:,.1f}" for y in ys))
    Console(width=160).print(table)


@click.command()
@click.argument("names", nargs=-1, metavar="[W1 W3 ...]")
@click.option(
    "--noisy", is_flag=True, help="Measure processor time of one thread on a busy machine; the output says so."
)
@click.option("--threads", type=int, help=f"Threads of each framework: {THREADS} by default.")
@click.option("--growth/--no-growth", default=True, help="Measure how time and memory grow, too.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE.parent / "build" / "speed", show_default=False)
def main(names: tuple[str, ...], noisy: bool, threads: int | None, growth: bool, out: Path) -> None:
    """Time the workloads (all by default) in tinytorch and its peers; print tables, write speed.json and speed.png."""
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
        for name, points in lines.items():
            show_growth(name, points)
    except BusyError as error:
        raise click.ClickException(f"too noisy to measure. {error}") from None
    out.mkdir(parents=True, exist_ok=True)
    report = {"noisy": noisy, "clock": clock, "machine": {**machine(), "threads": threads}}
    report |= {"workloads": [asdict(one) for one in results], "growth": {}}
    for name, points in lines.items():
        report["growth"][name] = {"unit": GROWTH[name].unit, "xs": GROWTH[name].xs, "lines": points}
    (out / "speed.json").write_text(json.dumps(report, indent=1) + "\n")
    from figure import draw

    draw(results, lines, remark, out / "speed.png")
    print(f"{out / 'speed.json'}, {out / 'speed.png'}")


if __name__ == "__main__":
    main()
