"""The benchmarks compare programs that compute the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click import ClickException

pytest.importorskip("torch")
pytest.importorskip("autograd")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W6"])
def test_all_frameworks_compute_the_same(name):
    from workloads import WORKLOADS

    workload = WORKLOADS[name]
    assert ("autograd" in workload.frameworks) == (name != "W2")
    steps = {framework: getattr(workload, framework)() for framework in workload.frameworks}
    for _ in range(2):  # the second step sees what Adam made of the first
        given = {framework: abs(step()).sum().item() for framework, step in steps.items()}
        for number in given.values():
            assert number == pytest.approx(given["torch"], rel=1e-5)


@pytest.mark.parametrize("framework", ["tinytorch", "autograd"])
def test_a_framework_that_computes_something_else_is_refused(framework):
    from speed import check_same

    first = {"tinytorch": 2.0, "torch": 2.0, "autograd": 2.0}
    check_same("W1", first | {framework: 2.00001})
    with pytest.raises(ClickException, match=rf"W1: .* 2.0001 in {framework} and 2.0 in PyTorch"):
        check_same("W1", first | {framework: 2.0001})


def test_ratios_are_taken_within_a_round():
    from speed import summed_up

    rounds = [{"tinytorch": 0.1 * speed, "torch": 0.2 * speed} for speed in (1, 5, 2, 9)]  # a machine of changing speed
    taken = summed_up(rounds, "tinytorch", megabytes=3.0)
    assert (taken.ratio_low, taken.ratio, taken.ratio_high) == pytest.approx((0.5, 0.5, 0.5))
    assert taken.ms == pytest.approx(350)


def test_what_autograd_computes_stays_float32():
    import autograd_nets
    from autograd import grad
    from workloads import text, weights

    ids, following = text()
    drawn = weights(autograd_nets.gpt_shapes(65, 32, num_layers=1, hidden_dim=64, max_seq_length=64))
    gradients = grad(lambda w: autograd_nets.cross_entropy(autograd_nets.gpt(w, ids, 4), following.reshape(-1)))(drawn)
    assert {gradient.dtype.name for gradient in gradients.values()} == {"float32"}


@pytest.mark.parametrize("length", [9, 40])
def test_the_same_tokens_follow_with_and_without_a_cache(length):
    from growth import WRITTEN, writing_tinytorch, writing_torch

    written = [write(length, cached)()() for write in (writing_tinytorch, writing_torch) for cached in (True, False)]
    assert len(written[0]) == WRITTEN and all(tokens == written[0] for tokens in written)
