"""Module 07, optimizers: ten steps, norms, states and rates equal PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as their_schedulers

import tinytorch
from tinytorch.core import optimizers as ours
from tinytorch.core.layers import Parameter
from tinytorch.core.tensor import Tensor

TOLERANCE = {np.float32: {"rtol": 1e-6, "atol": 1e-6}, np.float64: {"rtol": 1e-12, "atol": 1e-12}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])
SHAPES = ((), (5,), (3, 4), (2, 1, 3))

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.3, "betas": (0.5, 0.7), "eps": 0.1}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.2}),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.0)}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 0.3}),
]
EVERY = pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda value: str(value))


class Pair:
    """The same parameters in both libraries, and the same gradients at every step."""

    def __init__(self, dtype: Any, seed: int = 0) -> None:
        self.dtype, self.draw = dtype, np.random.default_rng(seed)
        starts = [self.draw.normal(size=shape).astype(dtype) for shape in SHAPES]
        self.ours = [Parameter(start, dtype) for start in starts]
        self.theirs = [torch.nn.Parameter(torch.tensor(start)) for start in starts]

    def new_gradients(self, scale: float = 1.0, without: Iterable[int] = ()) -> None:
        for place, (mine, yours) in enumerate(zip(self.ours, self.theirs, strict=True)):
            drawn = np.asarray(self.draw.normal(0, scale, size=mine.shape)).astype(self.dtype)
            absent = place in without
            mine.grad = None if absent else Tensor(drawn, self.dtype)
            yours.grad = None if absent else torch.tensor(drawn)

    def agree(self) -> None:
        for mine, yours in zip(self.ours, self.theirs, strict=True):
            assert mine.dtype == self.dtype
            np.testing.assert_allclose(mine.data, yours.detach().numpy(), **TOLERANCE[self.dtype])


@DTYPES
@EVERY
def test_ten_steps(name: str, options: dict[str, Any], dtype: Any) -> None:
    pair = Pair(dtype)
    mine, yours = getattr(ours, name)(pair.ours, **options), getattr(torch.optim, name)(pair.theirs, **options)
    for step in range(10):
        pair.new_gradients(scale=10.0 ** (step % 3 - 1), without={step % 5})
        mine.step()
        yours.step()
        pair.agree()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_defaults_are_theirs(name: str) -> None:
    mine = getattr(ours, name)([Parameter([1.0])]).defaults
    yours = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))]).defaults
    assert mine == {option: yours[option] for option in mine}


@DTYPES
def test_groups_have_options_of_their_own(dtype: Any) -> None:
    pair = Pair(dtype)

    def grouped(parameters: list[Any]) -> list[dict[str, Any]]:
        return [{"params": parameters[:2], "lr": 0.3, "weight_decay": 0.0}, {"params": parameters[2]}]

    mine, yours = ours.AdamW(grouped(pair.ours), lr=0.1), torch.optim.AdamW(grouped(pair.theirs), lr=0.1)
    mine.add_param_group({"params": pair.ours[3:], "betas": (0.5, 0.5)})
    yours.add_param_group({"params": pair.theirs[3:], "betas": (0.5, 0.5)})
    for _ in range(10):
        pair.new_gradients()
        mine.step()
        yours.step()
    pair.agree()


@EVERY
def test_the_state_has_their_layout(name: str, options: dict[str, Any]) -> None:
    pair = Pair(np.float64)
    mine, yours = getattr(ours, name)(pair.ours, **options), getattr(torch.optim, name)(pair.theirs, **options)
    for _ in range(3):
        pair.new_gradients(without={1})
        mine.step()
        yours.step()
    got, want = mine.state_dict(), yours.state_dict()
    assert [group["params"] for group in got["param_groups"]] == [group["params"] for group in want["param_groups"]]
    for group, theirs in zip(got["param_groups"], want["param_groups"], strict=True):
        assert group == {option: theirs[option] for option in group}
    full = {position: entry for position, entry in want["state"].items() if entry}
    assert got["state"].keys() == full.keys()
    for position, entry in got["state"].items():
        assert entry.keys() == full[position].keys()
        for what, value in entry.items():
            np.testing.assert_allclose(value, full[position][what].numpy(), rtol=1e-12, atol=1e-12)


@EVERY
def test_their_state_is_continued(name: str, options: dict[str, Any]) -> None:
    pair = Pair(np.float64)
    yours = getattr(torch.optim, name)(pair.theirs, **options)
    for _ in range(3):
        pair.new_gradients()
        yours.step()
    mine = getattr(ours, name)(pair.ours, **options)
    for parameter, theirs in zip(pair.ours, pair.theirs, strict=True):
        parameter.data[...] = theirs.detach().numpy()
    known = mine.param_groups[0].keys()
    saved = yours.state_dict()
    groups = [{option: group[option] for option in known} for group in saved["param_groups"]]
    state = {place: {n: x.numpy() for n, x in entry.items()} for place, entry in saved["state"].items() if entry}
    mine.load_state_dict({"state": state, "param_groups": groups})
    for _ in range(3):
        pair.new_gradients()
        mine.step()
        yours.step()
    pair.agree()


@DTYPES
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3, math.inf])
def test_clipping(dtype: Any, norm_type: float, max_norm: float) -> None:
    pair = Pair(dtype)
    pair.new_gradients(scale=3.0, without={2})
    norm = tinytorch.nn.utils.clip_grad_norm_(pair.ours, max_norm, norm_type)
    want = torch.nn.utils.clip_grad_norm_(pair.theirs, max_norm, norm_type)
    assert type(norm) is float and norm == pytest.approx(want.item(), rel=1e-6 if dtype is np.float32 else 1e-12)
    for mine, yours in zip(pair.ours, pair.theirs, strict=True):
        if mine.grad is not None:
            np.testing.assert_allclose(mine.grad.data, yours.grad.numpy(), **TOLERANCE[dtype])
    assert pair.ours[2].grad is None


@DTYPES
@pytest.mark.parametrize("norm_type", [2.0, math.inf])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_clipping_what_is_not_finite(dtype: Any, norm_type: float, bad: float) -> None:
    pair = Pair(dtype)
    pair.new_gradients()
    pair.ours[2].grad.data[1, 2] = bad
    pair.theirs[2].grad[1, 2] = bad
    for library, parameters in ((tinytorch, pair.ours), (torch, pair.theirs)):
        with pytest.raises(RuntimeError):
            library.nn.utils.clip_grad_norm_(parameters, 1.0, norm_type, error_if_nonfinite=True)
    norm = ours.clip_grad_norm(pair.ours, 1.0, norm_type)
    np.testing.assert_equal(norm, torch.nn.utils.clip_grad_norm_(pair.theirs, 1.0, norm_type).item())
    for mine, yours in zip(pair.ours, pair.theirs, strict=True):
        np.testing.assert_array_equal(mine.grad.data, yours.grad.numpy())


def test_clipping_a_norm_that_overflows() -> None:
    parameter, theirs = Parameter(np.zeros(4)), torch.nn.Parameter(torch.zeros(4))
    parameter.grad, theirs.grad = Tensor(np.full(4, 1e25)), torch.full((4,), 1e25)
    norm = ours.clip_grad_norm(parameter, 1.0)
    np.testing.assert_allclose(norm, torch.nn.utils.clip_grad_norm_(theirs, 1.0).item(), rtol=1e-6)
    np.testing.assert_allclose(parameter.grad.data, theirs.grad.numpy(), rtol=1e-6)


# schedulers


def history(optimizer: Any, make: Callable[[Any], Any], steps: int) -> list[list[float]]:
    """For each step: the rates of all groups, then their momenta, then what get_last_lr says."""
    scheduler, rows = make(optimizer), []
    for _ in range(steps + 1):
        momenta = [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]
        rows.append([group["lr"] for group in optimizer.param_groups] + momenta + list(scheduler.get_last_lr()))
        if len(rows) <= steps:
            optimizer.step()
            scheduler.step()
    assert scheduler.last_epoch == steps
    return rows


def both(name: str, **options: Any) -> tuple[Any, Any]:
    """An optimizer of two groups with rates of their own, ours and theirs."""
    made = []
    for library, kind in ((ours, Parameter), (torch.optim, lambda x: torch.nn.Parameter(torch.tensor(x)))):
        groups = [{"params": [kind([1.0])]}, {"params": [kind([2.0])], "lr": 0.02}]  # type: ignore[operator]
        made.append(getattr(library, name)(groups, lr=0.3, **options))
    return made[0], made[1]


def same_history(mine: Any, yours: Any, our_plan: Callable[..., Any], their_plan: Callable[..., Any], n: int) -> None:
    np.testing.assert_allclose(history(mine, our_plan, n), history(yours, their_plan, n), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("options", [{"step_size": 3}, {"step_size": 1, "gamma": 0.9}, {"step_size": 50}])
def test_step_lr(options: dict[str, Any]) -> None:
    plans = [lambda o, s=s: s.StepLR(o, **options) for s in (tinytorch.optim.lr_scheduler, their_schedulers)]
    same_history(*both("SGD"), *plans, 20)


@pytest.mark.parametrize("warmup", [1, 4, 9])
@pytest.mark.parametrize("low", [0.0, 0.01])
def test_cosine_with_warmup_is_their_two_in_sequence(warmup: int, low: float) -> None:
    def theirs(optimizer: Any) -> Any:
        rise = their_schedulers.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        fall = their_schedulers.CosineAnnealingLR(optimizer, 20 - warmup, low)
        return their_schedulers.SequentialLR(optimizer, [rise, fall], [warmup])

    same_history(*both("SGD"), lambda o: ours.CosineWarmupLR(o, warmup, 20, low), theirs, 20)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_lr": 0.5, "total_steps": 20},
        {"max_lr": [0.5, 0.1], "total_steps": 20, "anneal_strategy": "linear"},
        {"max_lr": 0.5, "epochs": 4, "steps_per_epoch": 5, "pct_start": 0.45, "three_phase": True},
        {"max_lr": 0.5, "total_steps": 20, "div_factor": 3.0, "final_div_factor": 7.0, "pct_start": 0.0},
        {"max_lr": 0.5, "total_steps": 20, "pct_start": 1.0},
        {"max_lr": 0.5, "total_steps": 20, "base_momentum": [0.1, 0.2], "max_momentum": 0.6},
        {"max_lr": 0.5, "total_steps": 20, "cycle_momentum": False},
    ],
    ids=str,
)
def test_one_cycle(name: str, options: dict[str, Any]) -> None:
    mine, yours = both(name)
    plans = [lambda o, s=s: s.OneCycleLR(o, **options) for s in (ours, their_schedulers)]
    steps = 19 if options.get("pct_start") == 1.0 else 20  # there PyTorch divides by zero when asked for one more
    same_history(mine, yours, *plans, steps)


@pytest.mark.parametrize("library", [ours, their_schedulers], ids=["ours", "theirs"])
def test_a_cycle_that_is_over(library: Any) -> None:
    scheduler = library.OneCycleLR(both("SGD")[library is their_schedulers], 0.5, 20)
    for _ in range(20):
        scheduler.optimizer.step()
        scheduler.step()
    with pytest.raises(ValueError, match="21"):
        scheduler.step()


@pytest.mark.parametrize("library", [ours, their_schedulers], ids=["ours", "theirs"])
def test_resuming_at_an_epoch_needs_an_initial_rate(library: Any) -> None:
    mine, yours = both("SGD")
    optimizer = mine if library is ours else yours
    with pytest.raises(KeyError, match="initial_lr"):
        library.StepLR(optimizer, 3, last_epoch=4)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.5
    assert library.StepLR(optimizer, 5, last_epoch=4).last_epoch == 5
