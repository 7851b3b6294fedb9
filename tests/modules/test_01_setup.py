"""Module 01, setup: what the exported file must do."""

import gc
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import tinytorch
from tinytorch.core import setup
from tinytorch.core.setup import (
    Measurement,
    call_times,
    environment_report,
    measure,
    peak_memory,
    quantile,
    write_atomically,
)

SLACK = 100_000  # bytes of bookkeeping that a peak may show on top


class Scripted:
    """A function whose calls sleep the given seconds in turn, and note whether the garbage collector is on."""

    def __init__(self, *pauses):
        self.pauses = pauses
        self.collector = []

    def __call__(self):
        self.collector.append(gc.isenabled())
        time.sleep(self.pauses[len(self.collector) - 1])
        return len(self.collector)


def fail():
    raise LookupError("not here")


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_a_slow_function_is_called_once_to_warm_up_once_a_repeat_and_once_for_its_memory(repeats):
    function = Scripted(*[0.001] * (repeats + 2))
    taken = measure(function, repeats=repeats)
    assert len(function.collector) == repeats + 2
    assert taken.result == repeats + 2  # of the last call
    assert not any(function.collector[1 : repeats + 1])
    assert function.collector[-1] and gc.isenabled()


def test_median_and_spread_are_over_the_timed_calls():
    taken = measure(Scripted(0.5, 0.2, 0.001, 0.2, 0.2, 0.001, 0.5), repeats=5)
    assert 0.19 < taken.median_s < 0.4
    assert 0.13 < taken.spread_s < 0.4
    assert measure(Scripted(0.001, 0.001, 0.001), repeats=1).spread_s == 0


def test_a_fast_function_is_timed_without_the_clock():
    taken = [measure(int) for _ in range(3)]  # one of them without a disturbance is enough
    assert 0 < min(one.median_s for one in taken) < 2e-6


def test_arguments_reach_the_function_and_its_result_comes_back():
    taken = measure(sorted, [2, 3, 1], reverse=True, repeats=2)
    assert taken.result == [3, 2, 1]
    assert measure(dict, a=1).result == {"a": 1}


def test_peak_memory_counts_numpy_arrays_and_what_was_freed_before_the_end():
    def two_at_a_time():
        first = np.ones(300_000)
        (first + 1).sum()
        return np.ones(10)

    peak = measure(two_at_a_time).peak_bytes
    assert 4_800_000 <= peak <= 4_800_000 + SLACK


def test_memory_from_before_the_call_does_not_count():
    kept = np.ones(1_000_000)
    assert measure(kept.sum).peak_bytes < SLACK


def test_a_measurement_inside_a_measured_function_hides_nothing_of_its_peak():
    inner = []

    def outer():
        np.ones(1_000_000)
        inner.append(measure(np.ones, 250_000, repeats=1).peak_bytes)

    taken = measure(outer, repeats=1)
    assert 8_000_000 <= taken.peak_bytes <= 8_000_000 + SLACK
    assert all(2_000_000 <= peak <= 2_000_000 + SLACK for peak in inner)
    assert not tracemalloc.is_tracing() and gc.isenabled()


def test_tracing_that_was_on_stays_on_with_its_peak():
    tracemalloc.start()
    try:
        np.ones(1_000_000)
        kept = np.ones(500_000)
        peak = measure(np.ones, 100_000).peak_bytes
        assert tracemalloc.is_tracing()
        assert 8_000_000 <= tracemalloc.get_traced_memory()[1] <= 8_000_000 + SLACK
    finally:
        tracemalloc.stop()
    assert kept.size == 500_000
    assert 800_000 <= peak <= 800_000 + SLACK


@pytest.mark.parametrize("at_call", [1, 2, 4])
def test_an_error_passes_through_and_leaves_collector_and_tracing_as_they_were(at_call):
    function = Scripted(*[0.001] * at_call)  # and no pause for the call after these
    with pytest.raises(IndexError):
        measure(function, repeats=3)
    assert gc.isenabled() and not tracemalloc.is_tracing()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        measure(int)
        assert not gc.isenabled()
        with pytest.raises(LookupError):
            measure(fail)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_wrong_calls_are_named():
    with pytest.raises(TypeError, match=r"expected a function, got ndarray; write measure\(f, x\)"):
        measure(np.ones(3))
    for repeats in (0, -1):
        with pytest.raises(ValueError, match=f"repeats must be at least 1, got {repeats}"):
            measure(fail, repeats=repeats)


@pytest.mark.parametrize(
    ("median_s", "spread_s", "peak_bytes", "text"),
    [
        (0.00123, 0.00004, 1_200_000, "1.23 ms (spread 0.04 ms), peak 1.2 MB"),
        (2.5, 0.125, 3_210_000_000, "2.50 s (spread 0.12 s), peak 3.2 GB"),
        (0.148, 0.003, 48, "148 ms (spread 3 ms), peak 48 B"),
        (12.34e-6, 0.4e-6, 4_100, "12.3 µs (spread 0.4 µs), peak 4.1 kB"),
        (28e-9, 0.2e-9, 0, "28.0 ns (spread 0.2 ns), peak 0 B"),
    ],
)
def test_a_measurement_prints_itself_in_readable_units(median_s, spread_s, peak_bytes, text):
    assert str(Measurement(None, median_s, spread_s, peak_bytes)) == text


def test_parts():
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert len(call_times(fail_never, 3)) == 3
    assert peak_memory(fail_never)[0] == "fine"
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            quantile([1.0], wrong)
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def fail_never():
    return "fine"


def test_environment_report_says_what_is_there():
    report = environment_report()
    assert list(report) == ["Python", "interpreter", "NumPy", "BLAS", "platform", "CPUs", "memory", "tinytorch"]
    assert all(type(value) is str and value for value in report.values())
    assert report["Python"].startswith(sys.version.split()[0])
    assert report["interpreter"] == sys.executable
    assert report["NumPy"] == np.__version__
    assert 1 <= int(report["CPUs"]) <= (os.cpu_count() or 1)
    assert report["memory"] == "unknown" or float(report["memory"].split()[0]) > 0


def tinytorch_seen_from(folder):
    """What the report says of tinytorch to a Python that is started in ``folder``, importing the one tested here."""
    code = "from tinytorch.core.setup import environment_report; print(environment_report()['tinytorch'])"
    path = str(Path(tinytorch.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_environment_report_tells_whether_tinytorch_is_the_one_beside_the_notebook(tmp_path):
    package = Path(tinytorch.__file__).resolve().parent
    assert tinytorch_seen_from(package.parent) == f"{package} (beside this notebook)"
    assert tinytorch_seen_from(tmp_path) == str(package)
    other = tmp_path / "course" / "tinytorch"
    notebooks = tmp_path / "course" / "modules" / "01_setup"
    for folder in (other, notebooks):
        folder.mkdir(parents=True)
    (other / "__init__.py").touch()
    assert tinytorch_seen_from(notebooks) == f"{package}, which is not the one beside this notebook ({other})"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.bin"
    write_atomically(path, b"old")
    write_atomically(str(path), b"newer")
    assert path.read_bytes() == b"newer"

    def fail(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(setup.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"half")
    assert path.read_bytes() == b"newer" and list(tmp_path.iterdir()) == [path]
