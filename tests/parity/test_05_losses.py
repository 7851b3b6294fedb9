"""Module 05, losses: values, gradients and corner cases equal PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinytorch.core import losses
from tinytorch.core.tensor import Tensor

TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-6}, np.float64: {"rtol": 1e-11, "atol": 1e-13}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

Loss = Callable[..., Any]


def agree(ours: Loss, theirs: Loss, array: np.ndarray, dtype: Any, slope_rtol: float = 0.0) -> None:
    """Both losses of ``array`` are equal, and so are the gradients of a weighted sum of their numbers."""
    tolerance = TOLERANCE[dtype]
    x, u = Tensor(array, dtype, requires_grad=True), torch.tensor(array.astype(dtype), requires_grad=True)
    got, want = ours(x), theirs(u)
    np.testing.assert_allclose(got.data, want.detach().numpy(), **tolerance)
    assert (got.shape, got.dtype) == (tuple(want.shape), dtype)
    upstream = np.random.default_rng(7).normal(size=got.shape).astype(dtype)
    got.backward(upstream)
    want.backward(torch.tensor(upstream))
    assert x.grad is not None and u.grad is not None
    rtol = max(tolerance["rtol"], slope_rtol)
    np.testing.assert_allclose(x.grad.data, u.grad.numpy(), rtol=rtol, atol=tolerance["atol"])
    assert (x.grad.shape, x.grad.dtype) == (array.shape, dtype)


def channels_second(logits: Any) -> Any:
    """Our (..., C) in PyTorch's order, (N, C, ...)."""
    return logits.movedim(-1, 1) if logits.ndim > 2 else logits


def drawn(*shape: int, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng([5, *shape]).normal(0, scale, size=shape)


def classes_for(shape: tuple[int, ...], classes: int, ignored: int | None = None) -> np.ndarray:
    ids = np.random.default_rng([6, *shape]).integers(0, classes, size=shape)
    if ignored is not None and ids.size > 1:
        ids.flat[::3] = ignored
    return ids


@DTYPES
@REDUCTIONS
@pytest.mark.parametrize("shape", [(7,), (4, 3), (2, 3, 4), (), (5, 1)])
@pytest.mark.parametrize(
    ("ours", "theirs", "between_0_and_1"),
    [
        (losses.mse_loss, functional.mse_loss, False),
        (losses.binary_cross_entropy, functional.binary_cross_entropy, True),
        (losses.binary_cross_entropy_with_logits, functional.binary_cross_entropy_with_logits, False),
    ],
    ids=["mse", "bce", "bce_with_logits"],
)
def test_elementwise_losses(
    ours: Loss, theirs: Loss, between_0_and_1: bool, shape: tuple[int, ...], reduction: str, dtype: Any
) -> None:
    x = drawn(*shape)
    x = 1 / (1 + np.exp(-x)) if between_0_and_1 else x
    target = np.random.default_rng(8).random(shape).astype(dtype)
    agree(
        lambda x: ours(x, Tensor(target, dtype), reduction=reduction),
        lambda u: theirs(u, torch.tensor(target), reduction=reduction),
        x,
        dtype,
    )


@DTYPES
def test_bce_at_and_near_certainty(dtype: Any) -> None:
    p = np.array([0, 1, 0, 1, 1e-30, 1e-7, 1 - 1e-7, 0.5])
    for target in (np.zeros(8), np.ones(8), np.full(8, 0.3)):
        agree(
            lambda x: losses.binary_cross_entropy(x, target.astype(dtype), "none"),  # noqa: B023
            lambda u: functional.binary_cross_entropy(u, torch.tensor(target.astype(dtype)), reduction="none"),  # noqa: B023
            p,
            dtype,
            slope_rtol=1e-8,  # PyTorch's smallest denominator is 1e-12 in float32
        )


@DTYPES
def test_gradients_of_soft_targets(dtype: Any) -> None:
    p, t = np.random.default_rng(9).uniform(0.05, 0.95, size=(2, 4, 3))
    for ours, theirs in [
        (losses.mse_loss, functional.mse_loss),
        (losses.binary_cross_entropy, functional.binary_cross_entropy),
        (losses.binary_cross_entropy_with_logits, functional.binary_cross_entropy_with_logits),
    ]:
        mine, other = Tensor(t, dtype, requires_grad=True), torch.tensor(t.astype(dtype), requires_grad=True)
        ours(Tensor(p, dtype), mine).backward()
        theirs(torch.tensor(p.astype(dtype)), other).backward()
        assert mine.grad is not None and other.grad is not None
        np.testing.assert_allclose(mine.grad.data, other.grad.numpy(), **TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_log_softmax(axis: int, dtype: Any) -> None:
    for scale in (1.0, 1e4):
        array = drawn(2, 3, 4, scale=scale)
        agree(lambda x: losses.log_softmax(x, axis), lambda u: functional.log_softmax(u, axis), array, dtype)


@DTYPES
@REDUCTIONS
@pytest.mark.parametrize("lead", [(), (6,), (2, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_index": 1},
        {"label_smoothing": 0.1},
        {"weight": [0.5, 1, 2, 4]},
        {"weight": [0.5, 1, 2, 4], "label_smoothing": 0.3, "ignore_index": 2},
        {"label_smoothing": 1.0},
    ],
    ids=str,
)
def test_cross_entropy(options: dict[str, Any], lead: tuple[int, ...], reduction: str, dtype: Any) -> None:
    ids = classes_for(lead, 4, ignored=options.get("ignore_index", -100))
    theirs = dict(options, reduction=reduction)
    if "weight" in options:
        theirs["weight"] = torch.tensor(options["weight"], dtype=torch.tensor(np.zeros(1, dtype)).dtype)
    agree(
        lambda x: losses.CrossEntropyLoss(**options, reduction=reduction)(x, ids),
        lambda u: torch.nn.CrossEntropyLoss(**theirs)(channels_second(u), torch.tensor(ids)),
        drawn(*lead, 4),
        dtype,
    )


@DTYPES
@REDUCTIONS
@pytest.mark.parametrize("lead", [(), (6,), (2, 5)], ids=str)
@pytest.mark.parametrize("options", [{}, {"ignore_index": 1}, {"weight": [0.5, 1, 2, 4]}], ids=str)
def test_nll_loss(options: dict[str, Any], lead: tuple[int, ...], reduction: str, dtype: Any) -> None:
    ids = classes_for(lead, 4, ignored=options.get("ignore_index", -100))
    theirs = dict(options, reduction=reduction)
    if "weight" in options:
        theirs["weight"] = torch.tensor(options["weight"], dtype=torch.tensor(np.zeros(1, dtype)).dtype)
    agree(
        lambda x: losses.NLLLoss(**options, reduction=reduction)(x, ids),
        lambda u: torch.nn.NLLLoss(**theirs)(channels_second(u), torch.tensor(ids)),
        drawn(*lead, 4),
        dtype,
    )


@DTYPES
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_of_ten_thousand(smoothing: float, dtype: Any) -> None:
    logits = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4 - 1, 0], [0, 1e4, 1e4]])
    for ids in ([0, 1, 2, 2], [1, 0, 0, 0]):
        agree(
            lambda x: losses.cross_entropy(x, ids, label_smoothing=smoothing),  # noqa: B023
            lambda u: functional.cross_entropy(u, torch.tensor(ids), label_smoothing=smoothing),  # noqa: B023
            logits,
            dtype,
        )
    far = np.array([1e4, -1e4, 1e4, -1e4, 30, -30])
    target = np.array([0, 1, 1, 0, 1, 0], dtype)
    agree(
        lambda x: losses.binary_cross_entropy_with_logits(x, target, "none"),
        lambda u: functional.binary_cross_entropy_with_logits(u, torch.tensor(target), reduction="none"),
        far,
        dtype,
    )


@DTYPES
@REDUCTIONS
@pytest.mark.parametrize("rows", [0, 3])
def test_no_target_counts(rows: int, reduction: str, dtype: Any) -> None:
    ids = np.full(rows, -100)
    agree(
        lambda x: losses.cross_entropy(x, ids, reduction=reduction),
        lambda u: functional.cross_entropy(u, torch.tensor(ids), reduction=reduction),
        drawn(rows, 4),
        dtype,
    )


def test_modules_look_alike() -> None:
    for name in ("MSELoss", "BCELoss", "BCEWithLogitsLoss", "NLLLoss", "CrossEntropyLoss"):
        ours, theirs = getattr(losses, name)(), getattr(torch.nn, name)()
        assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    ours, theirs = (
        losses.CrossEntropyLoss(weight=[1.0, 2.0]),
        torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
    )
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
