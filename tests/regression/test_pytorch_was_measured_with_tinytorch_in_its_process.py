"""The benchmarks loaded tinytorch, which changes how the C library keeps memory, into PyTorch's process too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_peer_loads_no_framework_that_it_was_not_asked_for() -> None:
    code = "import peer, sys; print(*{'tinytorch', 'torch', 'autograd'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
