"""The benchmarks measured no memory at all where arrays found room in what earlier ones had left to the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks ask Linux how much memory a process holds")
def test_the_same_work_needs_as_much_memory_the_second_time() -> None:
    grow = "peer.Peer('tinytorch', 'wall').grow('attention', 'tinytorch', 512)['y']"
    code = f"import peer; print({grow}, {grow})"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    first, second = map(float, done.stdout.split())
    weights = 4 * 4 * 512 * 512  # of attention
    assert first > weights and second > weights, done.stderr
