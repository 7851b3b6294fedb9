"""What a script runs in the background ignores Ctrl-C, and then tito ignored the other requests to end as well."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_sigterm_ends_what_ignores_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tito", "watch", "01"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        assert process.stdout and "testing 01_setup" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in said
    finally:
        process.kill()
