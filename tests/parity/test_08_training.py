"""Module 08, training: whole trainings, accumulated gradients and metrics equal PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import cross_entropy
from tinytorch.core.optimizers import SGD, AdamW, OneCycleLR, StepLR
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Batches, Trainer, accumulate_gradients, accuracy, confusion_matrix, top_k_accuracy

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
TOLERANCE = {np.float32: {"rtol": 1e-3, "atol": 1e-5}, np.float64: {"rtol": 1e-9, "atol": 1e-11}}

SIZES = (5, 16, 3)
COUNT = 53  # 53 samples in batches of 8 are six batches and 5 samples


def data(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return draw.normal(size=(COUNT, SIZES[0])).astype(dtype), draw.integers(0, SIZES[-1], size=COUNT)


def pair_of_models(dtype: Any) -> tuple[Sequential, torch.nn.Sequential]:
    """The same network twice, with the same weights."""
    ours = Sequential(Linear(SIZES[0], SIZES[1]), ReLU(), Linear(SIZES[1], SIZES[2]))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(SIZES[0], SIZES[1]), torch.nn.ReLU(), torch.nn.Linear(SIZES[1], SIZES[2])
    ).to(torch.from_numpy(np.zeros(1, dtype)).dtype)
    draw = np.random.default_rng(2)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data = draw.normal(0, 0.4, size=mine.shape).astype(dtype)
        with torch.no_grad():
            other.copy_(torch.from_numpy(mine.data))
    return ours, theirs


class Float64(Batches):
    """Batches whose inputs stay float64."""

    def __init__(self, inputs: np.ndarray, *arguments: Any, **options: Any) -> None:
        super().__init__(inputs, *arguments, **options)
        self.inputs = inputs


def loader(dtype: Any, batch_size: int = 8) -> Batches:
    x, y = data(dtype)
    return (Float64 if dtype == np.float64 else Batches)(x, y, batch_size, shuffle=True, seed=4)


@DTYPES
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts: int, dtype: Any) -> None:
    ours, theirs = pair_of_models(dtype)
    x, y = data(dtype)
    pieces = np.array_split(np.arange(COUNT), parts)
    results = accumulate_gradients(ours, cross_entropy, [(Tensor(x[rows], dtype), y[rows]) for rows in pieces])
    loss = functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    loss.backward()
    mean = sum(value * len(rows) for (_, value), rows in zip(results, pieces, strict=True)) / COUNT
    np.testing.assert_allclose(mean, loss.item(), rtol=1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        np.testing.assert_allclose(mine.grad.data, other.grad.numpy(), **TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("way", ["sgd", "adamw"])
def test_a_training_of_four_epochs(way: str, accumulate: int, dtype: Any) -> None:
    ours, theirs = pair_of_models(dtype)
    steps = 4 * -(-7 // accumulate)
    if way == "sgd":
        mine, other = SGD(ours.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), 0.1, 0.9)
        plan, their_plan = StepLR(mine, 2, 0.5), torch.optim.lr_scheduler.StepLR(other, 2, 0.5)
    else:
        mine, other = AdamW(ours.parameters(), lr=0.01), torch.optim.AdamW(theirs.parameters(), 0.01)  # type: ignore[assignment]
        plan = OneCycleLR(mine, 0.05, total_steps=steps + 1)  # type: ignore[assignment]
        their_plan = torch.optim.lr_scheduler.OneCycleLR(other, 0.05, total_steps=steps + 1)  # type: ignore[assignment]
    trainer = Trainer(
        ours,
        cross_entropy,
        mine,
        scheduler=plan,
        scheduler_interval="epoch" if way == "sgd" else "step",
        max_grad_norm=0.8,
        accumulate=accumulate,
    )
    history = trainer.fit(loader(dtype), epochs=4, validation=loader(dtype, 20))
    assert trainer.step == steps

    losses = []
    for epoch in range(4):
        batches = loader(dtype)
        batches.set_epoch(epoch)
        listed = [(torch.from_numpy(x.data), torch.from_numpy(y.data)) for x, y in batches]
        total = 0.0
        for first in range(0, len(listed), accumulate):
            group = listed[first : first + accumulate]
            other.zero_grad()
            samples = sum(len(y) for _, y in group)
            for x, y in group:
                loss = functional.cross_entropy(theirs(x), y, reduction="sum")
                (loss / samples).backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.8)
            other.step()
            if way == "adamw":
                their_plan.step()
        losses.append(total / COUNT)
        if way == "sgd":
            their_plan.step()
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), **TOLERANCE[dtype])
    x, y = data(dtype)
    with torch.no_grad():
        loss = functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    np.testing.assert_allclose(history["val_loss"][-1], loss.item(), rtol=1e-4)


def test_metrics() -> None:
    draw = np.random.default_rng(3)
    logits, targets = draw.normal(size=(4, 50, 9)), draw.integers(0, 9, size=(4, 50))
    scores, ids = torch.from_numpy(logits), torch.from_numpy(targets)
    assert accuracy(Tensor(logits), targets) == pytest.approx((scores.argmax(-1) == ids).double().mean().item())
    for k in (1, 2, 5, 9):
        best = (scores.topk(k, dim=-1).indices == ids[..., None]).any(-1)
        assert top_k_accuracy(logits, targets, k) == pytest.approx(best.double().mean().item())
    cells = (9 * ids + scores.argmax(-1)).flatten()
    table = torch.bincount(cells, minlength=81).reshape(9, 9).numpy()
    np.testing.assert_array_equal(confusion_matrix(logits.argmax(-1), targets, 9), table)
