"""Shows the figures of the corpus below the tests' summary."""

from __future__ import annotations

import pytest

FIGURES = "figures of the attacks"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, ())]
    for name, value in (item for one in reports for item in one.user_properties):
        if name == FIGURES:
            terminalreporter.write_line(f"attacks: {value}")
