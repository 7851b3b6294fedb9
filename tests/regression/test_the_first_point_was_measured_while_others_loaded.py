"""The first point of a figure of the benchmarks took twice as long as it should: PyTorch was still being loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

CODE = """
import io, speed

class Loading:
    def __init__(self, framework, *_):
        self.asked, self.popen = [], self
        self.stdin, self.wait = io.StringIO(), lambda: None
    def ask(self, what):
        self.asked.append(what)

speed.Process = Loading
with speed.processes(["tinytorch", "torch"], "wall", 2) as peers:
    print(*(one.asked for one in peers.values()))
"""


def test_every_process_has_answered_before_the_first_is_measured() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['begin'] ['begin']", done.stderr
