"""The benchmarks compare two programs that compute the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W6"])
def test_both_frameworks_compute_the_same(name):
    from workloads import WORKLOADS

    ours, theirs = WORKLOADS[name].tinytorch(), WORKLOADS[name].torch()
    for _ in range(2):  # the second step sees what Adam made of the first
        mine, wanted = (float(abs(step().detach()).sum()) for step in (ours, theirs))
        assert mine == pytest.approx(wanted, rel=1e-5)
