"""The benchmarks' peak memory of an embedding was that of drawing its weights in float64, four times the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks ask Linux how much memory a process holds")
def test_the_peak_is_that_of_the_steps() -> None:
    code = "import peer; p = peer.Peer('tinytorch', 'wall'); p.build('W4f'); p.turn(1); print(p.peak()['bytes'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    table, vectors = 4 * 50_000 * 512, 4 * 8192 * 512
    assert table + vectors < int(done.stdout) < 2 * table, done.stderr
