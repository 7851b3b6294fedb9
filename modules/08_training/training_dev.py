# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# > Training: batches, metrics and a loop that can be watched, stopped by itself, killed and resumed to the same bit.
#
# You have layers, losses, gradients and optimizers. What is missing looks like eight lines:
#
# ```python
# for epoch in range(epochs):
#     for inputs, targets in batches:
#         optimizer.zero_grad()
#         loss = cross_entropy(model(inputs), targets)
#         loss.backward()
#         optimizer.step()
#     print(loss)
# ```
#
# They run, and they learn. Every line has a way of going wrong that shows no error:
#
# - `batches` come in the same order in each epoch, or in another order after a restart;
# - `print(loss)` shows the last batch, not the epoch; and the usual average over the batches is wrong, too;
# - somebody asks for the validation loss in the middle, with dropout still on;
# - the loss becomes NaN at three in the morning, and the loop goes on until nine;
# - at nine, the power fails, and the weights of the night were in memory.
#
# This module writes the loop once, with an answer for each of these. Each answer is a function of a few lines with a
# test below it; the loop comes near the end, and is short.
#
# ```
#   loader ──> groups of batches ──> accumulate_gradients ──> clip ──> optimizer.step ──> scheduler.step
#                                          │ loss, outputs
#                                          ▼
#              history <── epoch's averages, evaluate(validation) ──> callbacks: early stopping, checkpoint, bar
# ```
#
# Plan for about six hours.

# %%
#| default_exp core.training
#| export
from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import islice
from operator import index
from typing import Any, NamedTuple, TextIO

import numpy as np

from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Module
from tinytorch.core.losses import class_ids
from tinytorch.core.optimizers import clip_grad_norm
from tinytorch.core.setup import write_atomically
from tinytorch.core.tensor import Array, Tensor, as_array, default_generator, from_numpy

# %%
import matplotlib.pyplot as plt

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Dropout, Linear, Parameter, Sequential
from tinytorch.core.losses import cross_entropy, mse_loss
from tinytorch.core.optimizers import SGD, Adam, CosineWarmupLR
from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed

# %% [markdown]
# The data of this module are real: 1,797 digits that 13 people wrote, 8 x 8 pixels each, with values from 0 to 16.
# 1,437 of them are for training, 360 are kept apart.

# %%
from tito import data

digits = data.load("digits")
train_images, test_images = (digits[f"{part}_images"].reshape(-1, 64) / 16 for part in ("train", "test"))
train_labels, test_labels = digits["train_labels"], digits["test_labels"]

figure, grid = plt.subplots(2, 10, figsize=(8, 2.1), layout="constrained")
for axes, image, label in zip(grid.flat, train_images, train_labels, strict=False):
    axes.imshow(image.reshape(8, 8), cmap="gray_r")
    axes.set_title(label, fontsize="small")
    axes.axis("off")
plt.show()
train_images.shape, test_images.shape

# %% [markdown]
# ## 1. The order of an epoch
#
# An epoch is one walk through the data, in batches, in a new random order each time. The obvious way is to keep a
# generator of random numbers and shuffle with it at every epoch. Then the order of epoch 12 depends on all that was
# drawn in epochs 0 to 11, and a program that is started again at epoch 12 trains in an order that nobody has seen
# before.
#
# So let the order be a *function*: of a seed, and of the number of the epoch, and of nothing else. NumPy's
# `default_rng` takes a list of whole numbers as its seed and mixes them well.
#
# Predict: with `default_rng(seed + epoch)` in its place, what would be wrong about running the experiment with the
# seeds 0, 1 and 2, to see how much the results differ by chance?
#
# ### Exercise: `epoch_order` and `batch_slices`

# %% nbgrader={"grade": false, "grade_id": "training-order", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def epoch_order(count: int, seed: int, epoch: int) -> Array:
    """The numbers 0 to ``count`` - 1 in the random order that belongs to this seed and epoch, as int64.

    TODO: Make a generator from the seed and the epoch, and let it permute.

    APPROACH:
    1. `np.random.default_rng` of the list of both numbers.
    2. Its `permutation(count)`.

    EXAMPLE:
    >>> epoch_order(5, seed=0, epoch=0)
    array([2, 4, 3, 0, 1])

    HINT: A sum of the two would give seed 0 in epoch 1 the order of seed 1 in epoch 0.
    """
    ### BEGIN SOLUTION
    return np.random.default_rng([seed, epoch]).permutation(count)
    ### END SOLUTION


def batch_slices(count: int, batch_size: int, drop_last: bool = False) -> list[slice]:
    """Where each batch begins and ends; the last one is shorter, or left out with ``drop_last``.

    TODO: Make a slice for each start 0, batch_size, 2 * batch_size, ...

    APPROACH:
    1. With `drop_last`, only the first `count - count % batch_size` samples are used.
    2. A slice goes from its start to the next start, but not beyond the samples that are used.

    EXAMPLE:
    >>> batch_slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]

    HINT: If nothing is left over, nothing is dropped.
    """
    ### BEGIN SOLUTION
    used = count - count % batch_size if drop_last else count
    return [slice(first, min(first + batch_size, used)) for first in range(0, used, batch_size)]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-order", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_order():
    first = epoch_order(100, 0, 0)
    close(np.sort(first), np.arange(100), dtype=np.int64, why="every sample comes once")
    close(epoch_order(100, 0, 0), first, why="the same seed and epoch give the same order, whatever was drawn since")
    orders = {tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16, f"4 seeds and 4 epochs are 16 orders, got {len(orders)}: mix seed and epoch, do not add"
    before = np.random.get_state()[1].tolist()
    epoch_order(10, 1, 2)
    assert np.random.get_state()[1].tolist() == before, "leave NumPy's global generator alone"
    for count, size, drop, want in [
        (5, 2, False, [(0, 2), (2, 4), (4, 5)]),
        (5, 2, True, [(0, 2), (2, 4)]),
        (4, 2, False, [(0, 2), (2, 4)]),
        (4, 2, True, [(0, 2), (2, 4)]),
        (3, 8, False, [(0, 3)]),
        (3, 8, True, []),
        (0, 8, False, []),
    ]:
        got = [(part.start, part.stop) for part in batch_slices(count, size, drop)]
        assert got == want, f"batch_slices({count}, {size}, {drop}): expected {want}, got {got}"
    assert len(batch_slices(5, 2)) == 3, "by default the last batch is kept"
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    samples, width = (int(n) for n in dice.integers(20, 60, size=2))
    cut = [np.arange(samples)[part] for part in batch_slices(samples, width % 7 + 2)]
    close(np.concatenate(cut), np.arange(samples))
    moved = epoch_order(samples, width, 3)
    close(np.sort(moved), np.arange(samples))
    assert np.any(moved != np.arange(samples))
    ### END HIDDEN TESTS


test_order()

# %% [markdown]
# With these two, a loader is a short class. Anything will do as a loader for the trainer below, as long as a `for` loop
# can go through it again and again and gets pairs `(inputs, targets)`. If it has `set_epoch`, the trainer says
# which epoch is coming; module 10 builds one that loads, changes and collects images on the way.

# %%
#| export
def sharing(values: Any) -> Array:
    """``values`` as an array under the tensor's dtype rule; an array that has its dtype already is not copied."""
    array = values.data if isinstance(values, Tensor) else np.asarray(values)
    return array if as_array(array[:0]).dtype == array.dtype else as_array(array)


class Batches:
    """Arrays as a loader: each iteration is an epoch of ``(inputs, targets)`` batches, a pair of tensors each.

    Parameters
    ----------
    inputs, targets
        Arrays or tensors whose first axis counts the samples. Float64 becomes float32.
    batch_size
        How many samples a batch has; the last one of an epoch may have fewer.
    shuffle
        Whether each epoch has an order of its own, a function of ``seed`` and the epoch alone.
    drop_last
        Whether a last batch that is too small is left out.

    Raises
    ------
    ValueError
        If inputs and targets differ in length, or the batch size is less than 1.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.inputs, self.targets = sharing(inputs), sharing(targets)
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"Batches: {len(self.inputs)} inputs, but {len(self.targets)} targets")
        if index(batch_size) < 1:
            raise ValueError(f"Batches: batch_size should be at least 1, got {batch_size}")
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be that of ``epoch``; without, each is the one after the last."""
        self.epoch = epoch

    def _parts(self) -> list[slice]:
        return batch_slices(len(self.inputs), self.batch_size, self.drop_last)

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_order(len(self.inputs), self.seed, self.epoch) if self.shuffle else None
        self.epoch += 1
        for part in self._parts():
            if order is None:
                inputs, targets = self.inputs[part], self.targets[part]
            else:
                inputs, targets = self.inputs.take(order[part], axis=0), self.targets.take(order[part], axis=0)
            yield from_numpy(inputs), from_numpy(targets)

# %%
loader = Batches(train_images, train_labels, batch_size=64, shuffle=True)
sizes = [len(targets) for _, targets in loader]
print(f"{len(loader)} batches: {sizes[0]}, {sizes[1]}, ..., {sizes[-1]}")

# %% [markdown]
# ## 2. The mean of the means
#
# 1,437 is not a multiple of 64, so the last batch holds 29 digits. Take a smaller case: 65 samples in batches of 64. A
# network answers the first 64 rightly and the last one wrongly. Predict: what is its accuracy, and what is the mean of
# the accuracies of the two batches?

# %%
right = np.array([True] * 64 + [False])
of_batches = [right[part].mean() for part in batch_slices(65, 64)]
print(f"accuracy {right.mean():.1%}, mean over batches {np.mean(of_batches):.1%}")

# %% [markdown]
# 98.5 % against 50 %: one sample weighed as much as 64. With shuffled data and larger last batches the error is small,
# and that is what keeps it alive: it moves a result by half a percent, and by another half with another batch size.
#
# The cure is old: keep the sum and the weight, and divide once, at the end.
#
# ### Exercise: `Average`

# %% nbgrader={"grade": false, "grade_id": "training-average", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Average:
    """The mean of numbers of different weight, which come one after the other.

    ``total`` is the sum of all numbers times their weights, ``weight`` the sum of the weights: Python floats, which can
    be written down and read again to the last bit.

    TODO: Fill in `add` and `value`.

    APPROACH:
    1. `add`: the value counts `weight` times in the total, and the weights add up.
    2. `value`: total over weight, or `math.nan` where nothing has a weight: a mean of nothing.

    EXAMPLE:
    >>> loss = Average(); loss.add(2.0, 64); loss.add(5.0, 32); loss.value
    3.0

    HINT: 2.0 * 64 and 5.0 * 32 are what the samples of each batch have together.
    """

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight

    def add(self, value: float, weight: float = 1.0) -> None:
        """Let ``value`` count ``weight`` times, say the mean of a batch once for each of its samples."""
        ### BEGIN SOLUTION
        self.total += value * weight
        self.weight += weight
        ### END SOLUTION

    @property
    def value(self) -> float:
        """The mean of what was added so far; NaN if nothing was."""
        ### BEGIN SOLUTION
        return self.total / self.weight if self.weight else math.nan
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-average", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_average():
    mean = Average()
    close(mean.value, np.nan, why="nothing was added: no mean, and no ZeroDivisionError")
    mean.add(1.0, 64)
    mean.add(0.0, 1)
    close(mean.value, 64 / 65, why="64 right ones and a wrong one: each sample weighs the same")
    close([mean.total, mean.weight], [64, 65])
    mean.add(1.0)
    close(mean.value, 65 / 66, why="without a weight, a number counts once")
    other = Average(10.0, 4.0)
    close(other.value, 2.5, why="it can begin with what was written down before")
    other.add(0.0, 0.0)
    close(other.value, 2.5)
    ### BEGIN HIDDEN TESTS
    losses, counts = np.random.default_rng().normal(size=20), np.random.default_rng().integers(1, 9, size=20)
    grown = Average()
    for one, times in zip(losses.tolist(), counts.tolist(), strict=True):
        grown.add(one, times)
    close(grown.value, np.repeat(losses, counts).mean(), rtol=1e-9, atol=1e-12)
    ### END HIDDEN TESTS


test_average()

# %% [markdown]
# ## 3. How good is it?
#
# The loss trains; people want to know how many answers are right. Two counts of that kind:
#
# - **accuracy**: the class with the largest logit is the right one;
# - **top-k accuracy**: the right one is among the k largest. ImageNet was fought over with k = 5.
#
# For the second there is no need to sort. The target is among the k best if at most k classes, itself included, are at
# least as good as it is.
#
# Predict: a broken network answers NaN for every class. How many of its answers are then "at least as good" as the
# right one, if you write `scores >= own`? And what top-1 accuracy does that make?
#
# ### Exercise: `accuracy` and `top_k_accuracy`
#
# `class_ids` of module 05 checks that the targets are whole numbers, in range, and of the right shape.

# %% nbgrader={"grade": false, "grade_id": "training-accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def accuracy(logits: Any, targets: Any) -> float:
    """The share of answers whose largest logit is that of the target.

    Parameters
    ----------
    logits
        A tensor or array of shape (..., C).
    targets
        Class numbers of shape (...); see ``class_ids`` of module 05 for the errors raised.

    TODO: Compare the position of the largest logit with the target.

    APPROACH:
    1. `argmax` over the last axis; the mean of the comparison with `ids`, as a Python float.

    EXAMPLE:
    >>> accuracy(Tensor([[1.0, 2.0], [4.0, 3.0]]), [1, 1])
    0.5

    HINT: The result is a `float`: a history of arrays cannot be written as JSON.
    """
    scores, ids = np.asarray(logits), class_ids("accuracy", np.shape(logits), targets)
    ### BEGIN SOLUTION
    return float((scores.argmax(axis=-1) == ids).mean())
    ### END SOLUTION


def top_k_accuracy(logits: Any, targets: Any, k: int = 5) -> float:
    """The share of answers in which fewer than ``k`` other classes have a logit as large as the target's.

    Arguments as for ``accuracy``. A tie counts against the target, and so does a NaN, so a network that gives the same
    logit to every class gets no point.

    Raises
    ------
    ValueError
        If ``k`` is less than 1.

    TODO: Count, for each answer, the classes that are *not* smaller than the target.

    APPROACH:
    1. `own`: the logit of each target, with a last axis of length 1. `np.take_along_axis` picks it by `ids[..., None]`.
    2. Count along the last axis where `scores < own` does not hold; the target itself is among those.
    3. The share of answers for which the count is at most k, as a Python float.

    EXAMPLE:
    >>> top_k_accuracy(Tensor([[1.0, 2.0, 3.0], [4.0, 3.0, 1.0]]), [1, 2], k=2)
    0.5

    HINT: Every comparison with NaN is False. Write the condition so that this speaks against the network.
    """
    scores, ids = np.asarray(logits), class_ids("top_k_accuracy", np.shape(logits), targets)
    if k < 1:
        raise ValueError(f"top_k_accuracy: k should be at least 1, got {k}")
    ### BEGIN SOLUTION
    own = np.take_along_axis(scores, ids[..., None], axis=-1)  # (..., 1)
    not_smaller = (~(scores < own)).sum(axis=-1)
    return float((not_smaller <= k).mean())
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-accuracy", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_accuracy():
    logits = np.array([[5.0, 1.0, 2.0], [0.0, 3.0, 1.0], [9.0, 8.0, 7.0], [1.0, 2.0, 6.0]])
    got = accuracy(Tensor(logits), [0, 1, 1, 0])
    assert type(got) is float, f"accuracy: expected a Python float, got {type(got).__name__}"
    close(got, 0.5, why="rows 0 and 1 are right")
    for k, want in [(1, 0.5), (2, 0.75), (3, 1.0)]:
        got = top_k_accuracy(Tensor(logits), [0, 1, 1, 0], k)
        assert type(got) is float, f"top_k_accuracy: expected a Python float, got {type(got).__name__}"
        close(got, want, what=f"top-{k}", why="row 2 has its target in second place, row 3 in the third")
    close(accuracy(logits.reshape(2, 2, 3), [[0, 1], [1, 0]]), 0.5, why="classes on the last axis, any shape before it")
    close(top_k_accuracy(logits.reshape(2, 2, 3), [[0, 1], [1, 0]], k=2), 0.75)
    broken = np.full((3, 4), np.nan)
    close(top_k_accuracy(broken, [0, 1, 2], k=3), 0.0, why="a network that answers NaN is never right")
    close(top_k_accuracy(np.zeros((2, 4)), [0, 1], k=3), 0.0, why="a tie counts against the target")
    close(top_k_accuracy(np.arange(7.0)[None], [2]), 1.0, why="by default k is 5")
    close(top_k_accuracy(np.arange(7.0)[None], [1]), 0.0, why="by default k is 5")
    with raises(ValueError, "k", "0"):
        top_k_accuracy(logits, [0, 1, 1, 0], k=0)
    for metric in (accuracy, top_k_accuracy):
        with raises(ValueError, "(4, 3)", "(4, 1)", why="let class_ids check the shapes"):
            metric(logits, [[0], [1], [1], [0]])
    ### BEGIN HIDDEN TESTS
    scored = np.random.default_rng().normal(size=(60, 8))
    labels = np.random.default_rng().integers(0, 8, size=60)
    places = [int(np.argsort(-row).tolist().index(label)) for row, label in zip(scored, labels, strict=True)]
    close(accuracy(scored, labels), np.mean([place == 0 for place in places]))
    for k in (1, 3, 8):
        close(top_k_accuracy(scored, labels, k), np.mean([place < k for place in places]))
    ### END HIDDEN TESTS


test_accuracy()

# %% [markdown]
# With `scores >= own`, nothing is as good as NaN, itself included. None is at most 1, so the broken network would have a
# top-1 accuracy of 100 %.
#
# ### Which mistakes?
#
# An accuracy of 95 % does not say whether all the mistakes are eights. The **confusion matrix** does: row t, column p
# counts how often the class t was taken for p. The diagonal is what was right.
#
# ```
#                predicted                precision of 1: of 5 that were called 1, 4 were     column
#                0    1    2              recall of 1:    of 6 that are 1, 4 were found       row
#    true   0  [ 5    1    0 ]            F1 of 1:        2 * 4 / (5 + 6), between the two
#           1  [ 0    4    2 ]
#           2  [ 0    0    7 ]
# ```
#
# Counting in a loop is slow, as always. And `matrix[targets, predictions] += 1` counts every pair once only, however
# often it comes. Give each cell of the table a number instead, `classes * t + p`, and let `np.bincount` count those.
#
# ### Exercise: `confusion_matrix` and `precision_recall_f1`

# %% nbgrader={"grade": false, "grade_id": "training-confusion", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class ClassScores(NamedTuple):
    """How well each class is told from the others; three arrays of shape (classes,), float64."""

    precision: Array
    """Of the answers that name the class, the share that is right; 0 if there are none."""
    recall: Array
    """Of the samples of the class, the share that is found; 0 if there are none."""
    f1: Array
    """The harmonic mean of both; 0 if nothing is right."""


def confusion_matrix(predictions: Any, targets: Any, classes: int) -> Array:
    """How often each class was taken for each: row ``t``, column ``p`` counts targets ``t`` with the prediction ``p``.

    Parameters
    ----------
    predictions, targets
        Class numbers, of the same shape; for logits, ``logits.argmax(axis=-1)``.
    classes
        How many classes there are.

    Returns
    -------
    Array
        Of shape (classes, classes), int64.

    Raises
    ------
    TypeError, ValueError, IndexError
        If they are no whole numbers, their shapes differ, or one of them is no class; see ``class_ids``.

    TODO: Number the cells of the table, and count the numbers.

    APPROACH:
    1. The number of a cell is `classes * true + predicted`.
    2. `np.bincount` with a `minlength`, so that cells nobody meets are there as well; then give it the table's shape.

    EXAMPLE:
    >>> confusion_matrix([0, 1, 1], [0, 0, 1], classes=2)
    array([[1, 1],
           [0, 1]])

    HINT: `np.bincount` wants one axis: `.ravel()`.
    """
    shape = (*np.shape(targets), classes)
    predicted = class_ids("confusion_matrix: predictions", shape, predictions, ignore_index=0)
    true = class_ids("confusion_matrix: targets", shape, targets, ignore_index=0)
    ### BEGIN SOLUTION
    cells = (classes * true + predicted).ravel()
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    ### END SOLUTION


def precision_recall_f1(matrix: Array) -> ClassScores:
    """The scores of each class, from a confusion matrix.

    TODO: Divide the diagonal by the sums of columns, of rows, and twice the diagonal by both together.

    APPROACH:
    1. `called`: how often each class was predicted; `there`: how often it was true.
    2. `_share(a, b)` below divides, and gives 0 where there is nothing to divide by.

    EXAMPLE:
    >>> precision_recall_f1(np.array([[1, 1], [0, 1]])).precision
    array([1. , 0.5])

    HINT: Rows are true classes, so the sum over axis 0 goes down a column: all that was *called* this class.
    """
    ### BEGIN SOLUTION
    hits, called, there = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return ClassScores(_share(hits, called), _share(hits, there), _share(2 * hits, called + there))
    ### END SOLUTION


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

# %% nbgrader={"grade": true, "grade_id": "test-training-confusion", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_confusion():
    table = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 2, 1], classes=4)
    why = "row: the true class, column: the prediction; a pair counts as often as it comes"
    close(table, [[2, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=np.int64, why=why)
    close(confusion_matrix(np.array([[1, 0], [1, 1]]), np.array([[1, 1], [0, 1]]), 2), [[0, 1], [1, 2]])
    for bad in (3, -1):
        with raises(IndexError, "predictions", f"{bad} at [1]"):
            confusion_matrix([0, bad], [0, 1], 3)
        with raises(IndexError, "targets", f"{bad} at [0]"):
            confusion_matrix([0, 1], [bad, 1], 3)
    with raises(ValueError, "(2,)", "(3,)"):
        confusion_matrix([0, 1, 1], [0, 1], 3)
    with np.errstate(all="raise"):
        scores = precision_recall_f1(np.array([[5, 1, 0], [0, 4, 2], [0, 0, 0]]))
    close(scores.precision, [1, 0.8, 0], what="precision", why="down the columns: of those that were called so")
    close(scores.recall, [5 / 6, 4 / 6, 0], what="recall", why="along the rows: of those that are so; none is 0")
    close(scores.f1, [10 / 11, 8 / 11, 0], what="F1", why="2 * hits / (called + there)")
    ### BEGIN HIDDEN TESTS
    answers, facts = np.random.default_rng().integers(0, 5, size=(2, 300))
    tally = np.zeros((5, 5), np.int64)
    for fact, answer in zip(facts, answers, strict=True):
        tally[fact, answer] += 1
    close(confusion_matrix(answers, facts, 5), tally, dtype=np.int64)
    drawn = precision_recall_f1(tally)
    close(drawn.precision, [(facts[answers == c] == c).mean() for c in range(5)])
    close(drawn.recall, [(answers[facts == c] == c).mean() for c in range(5)])
    close(drawn.f1, 2 * drawn.precision * drawn.recall / (drawn.precision + drawn.recall))
    ### END HIDDEN TESTS


test_confusion()

# %%
def confusion_by_loop(predictions, targets, classes):
    table = np.zeros((classes, classes), np.int64)
    for true, predicted in zip(targets, predictions, strict=True):
        table[true, predicted] += 1
    return table


answers, facts = np.random.default_rng(0).integers(0, 10, size=(2, 100_000))
loop, counted = measure(confusion_by_loop, answers, facts, 10, repeats=3), measure(confusion_matrix, answers, facts, 10)
ratio = loop.median_s / counted.median_s
print(f"loop {loop.median_s * 1e3:.1f} ms, bincount {counted.median_s * 1e3:.2f} ms: {ratio:.0f}x")

# %% [markdown]
# Measured here: counting is 17 times as fast as the loop.
#
# Counts of a table add up over batches; F1 does not average, no more than the means did. Predict over 20 classes,
# evenly drawn, in batches of 32: is the mean F1 of the batches too low, or too high?

# %%
rng = np.random.default_rng(0)
facts = rng.integers(0, 20, size=3200)
answers = np.where(rng.random(3200) < 0.8, facts, rng.integers(0, 20, size=3200))
whole = precision_recall_f1(confusion_matrix(answers, facts, 20)).f1.mean()
by_batch = [
    precision_recall_f1(confusion_matrix(answers[part], facts[part], 20)).f1.mean() for part in batch_slices(3200, 32)
]
print(f"F1, the mean of all classes: {whole:.3f} of the whole, {np.mean(by_batch):.3f} as a mean over batches")

# %% [markdown]
# 0.64 in the place of 0.81: in a batch of 32, some of the 20 classes do not come at all, and count as 0. So metrics that
# are not plain means are computed from all predictions at once, and the trainer gets a `predict` for that.
#
# ## 4. In use, and back
#
# Whoever asks for a validation loss in the middle of training has to switch the model to evaluation mode, record
# nothing, and afterwards put back what was. Each of the three is forgotten regularly, and the third in a way that
# deserves a thought. People write `model.eval()`, then `model.train()`. But a part may have been in evaluation mode all
# along: frozen layers, whose dropout is off on purpose. `train()` wakes them.
#
# And if there is an error in between, say a bad label in the last batch? In a notebook one corrects it and trains on,
# with dropout off for the rest of the day.
#
# ### Exercise: `evaluating`

# %% nbgrader={"grade": false, "grade_id": "training-evaluating", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """In this block ``model`` is in evaluation mode and nothing is recorded; then each part is as it was before.

    TODO: Note the mode of every module, switch, yield, and put each one back.

    APPROACH:
    1. `model.named_modules()` gives every module of the tree, with its name; `training` is its mode.
    2. `model.eval()`, then yield under `no_grad()`.
    3. Whatever happens in the block: set `training` of each module to what it was.

    EXAMPLE:
    >>> layer = Dropout(0.5)
    >>> with evaluating(layer): print(layer.training)
    False

    HINT: `model.train()` sets all parts to the same mode. Set the attribute of each module instead.
    """
    ### BEGIN SOLUTION
    modes = [(module, module.training) for _, module in model.named_modules()]
    without_notes = no_grad()
    model.eval()
    try:
        with without_notes:
            yield
    finally:
        for module, mode in modes:
            module.training = mode
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-evaluating", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_evaluating():
    frozen, active, head = Dropout(0.5), Dropout(0.5), Linear(2, 1)
    net = Sequential(frozen, Sequential(active), head)
    frozen.eval()
    x = Tensor(np.ones((4, 2)))
    with evaluating(net):
        modes = [module.training for _, module in net.named_modules()]
        assert modes == [False] * 5, f"inside, every module is in evaluation mode, got {modes}"
        assert not net(x).requires_grad, "inside, nothing is recorded: no_grad"
    modes = frozen.training, active.training, net.training
    assert modes == (False, True, True), f"each module gets its own mode back; expected False, True, True, got {modes}"
    assert net(x).requires_grad, "afterwards, recording goes on"
    try:
        with evaluating(net):
            raise KeyError("on purpose")
    except KeyError:
        pass
    else:
        raise AssertionError("an error in the block goes on after it")
    modes = frozen.training, active.training, net.training
    assert modes == (False, True, True), f"after an error too: expected False, True, True, got {modes}; try ... finally"
    assert net(x).requires_grad, "after an error, recording goes on"
    ### BEGIN HIDDEN TESTS
    wanted_modes = [bool(bit) for bit in np.random.default_rng().integers(0, 2, size=6)]
    row = Sequential(*[Dropout(0.1) for _ in range(6)])
    for part, mode in zip(row, wanted_modes, strict=True):
        part.train(mode)
    row.training = False
    with evaluating(row), evaluating(row):
        pass
    assert [part.training for part in row] == wanted_modes and row.training is False
    ### END HIDDEN TESTS


test_evaluating()

# %% [markdown]
# What does it matter? Train a small network with dropout for ten epochs, by the loop of the beginning, and ask for the
# loss on the test digits with and without. Predict the two ratios: of the losses, and of the memory.

# %%
def digit_model(dropout=0.5):
    return Sequential(Linear(64, 128), ReLU(), Dropout(dropout), Linear(128, 10))


manual_seed(0)
model = digit_model()
optimizer = Adam(model.parameters(), lr=2e-3)
for _ in range(10):
    for inputs, targets in loader:
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def test_loss():
    logits = model(Tensor(test_images))
    return cross_entropy(logits, test_labels).item(), accuracy(logits, test_labels)


def proper_test_loss():
    with evaluating(model):
        return test_loss()


for label, function in {"as it stands": test_loss, "evaluating": proper_test_loss}.items():
    cost = measure(function)
    loss, share = cost.result
    print(f"{label:14} loss {loss:.3f}, accuracy {share:.1%}, {cost.peak_bytes / 1e3:.0f} kB")

# %% [markdown]
# Measured here: a loss of 0.276 as it stands and 0.190 when it is evaluated, one and a half times as much, and 93.3 %
# of the answers right instead of 96.7 %. Nothing says which of the two is on the screen. The notes of autograd, which
# nobody reads, made up 0.7 of the 1.2 MB.
#
# ## 5. One step
#
# A step of the optimizer wants the gradient of a whole batch. If the batch does not fit into memory, take it in parts:
# as gradients add up from one `backward` to the next, the parts can come one after the other, and only one part's
# activations exist at a time. This is **gradient accumulation**.
#
# ```
#   batch of 64                   loss.backward()                          step
#   4 batches of 16      forward, backward   x 4: gradients add up         step
# ```
#
# Most programs divide each part's loss by 4. Predict: for parts of 16, 16 and 5 samples (the end of an epoch), what do
# a sample of the first part and one of the last count in the gradient then? And if fewer than 4 parts are left?
#
# A part's loss is a mean over its own samples. For the mean over all of them, each part has to count by its share of
# the samples: `len(targets)` of the part over the sum of all. Multiplying a loss by a number multiplies all gradients;
# `loss.backward(share)` does just that, without a node for it.
#
# ### Exercise: `accumulate_gradients`

# %% nbgrader={"grade": false, "grade_id": "training-accumulate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]


def accumulate_gradients(model: Module, loss: Loss, group: Sequence[Batch]) -> list[tuple[Any, float]]:
    """Add to the parameters' ``grad`` the gradient of the mean loss over all samples of a group of batches.

    Parameters
    ----------
    model, loss
        ``loss(model(inputs), targets)`` gives one number, the mean over the samples of a batch.
    group
        ``(inputs, targets)`` batches; the length of ``targets`` is the number of samples.

    Returns
    -------
    list[tuple[Any, float]]
        For each batch what the model gave, and its own loss.

    TODO: For each batch: forward, backward with its share, and a note of outputs and loss.

    APPROACH:
    1. Count the samples of the whole group.
    2. For each batch: outputs, the loss of outputs and targets, `backward(share of the samples)`.
    3. Collect (outputs, the loss as a Python number) in a list.

    EXAMPLE:
    >>> line = Linear(1, 1); line.weight.data[...] = 2.0; line.bias.data[...] = 0.0
    >>> group = [(Tensor([[1.0]]), Tensor([[0.0]])), (Tensor([[3.0]]), Tensor([[0.0]]))]
    >>> [value for _, value in accumulate_gradients(line, mse_loss, group)]
    [4.0, 36.0]

    HINT: Backward belongs into the loop. After it the notes are gone, so at no time do those of two batches exist.
    """
    ### BEGIN SOLUTION
    samples = sum(len(targets) for _, targets in group)
    results = []
    for inputs, targets in group:
        outputs = model(inputs)
        batch_loss = loss(outputs, targets)
        batch_loss.backward(len(targets) / samples)
        results.append((outputs, float(batch_loss)))
    return results
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-accumulate", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_accumulate():
    x, y = np.random.default_rng(0).normal(size=(2, 37, 3))

    def grads(parts):
        manual_seed(1)
        net = Sequential(Linear(3, 4), ReLU(), Linear(4, 3))
        group = [(Tensor(x[part], np.float64), Tensor(y[part], np.float64)) for part in parts]
        results = accumulate_gradients(net, mse_loss, group)
        return net, results, [p.grad.data for p in net.parameters()]

    net, results, at_once = grads([slice(0, 37)])
    close(results[0][1], float(((results[0][0].data - y) ** 2).mean()), what="loss", rtol=1e-4)
    assert type(results[0][1]) is float, f"the loss should be a Python float, got {type(results[0][1]).__name__}"
    for parts in ([slice(0, 16), slice(16, 32), slice(32, 37)], [slice(0, 1), slice(1, 37)]):
        net, results, in_parts = grads(parts)
        why = "each batch counts by its share of the samples of the group"
        for one, two in zip(in_parts, at_once, strict=True):
            close(one, two, rtol=1e-4, what="gradient", why=why)
        assert len(results) == len(parts), f"expected {len(parts)} results, one for each batch, got {len(results)}"
        for part, (outputs, value) in zip(parts, results, strict=True):
            own = float(((outputs.data - y[part]) ** 2).mean())
            close(value, own, what="loss", rtol=1e-4, why="each batch has its own outputs and its own mean loss")
            with raises(RuntimeError, "freed", why="call backward for each batch, and keep no notes"):
                outputs.sum().backward()
    before = [p.grad.data.copy() for p in net.parameters()]
    accumulate_gradients(net, mse_loss, [(Tensor(x, np.float64), Tensor(y, np.float64))])
    for p, old in zip(net.parameters(), before, strict=True):
        close(p.grad.data, 2 * old, rtol=1e-4, why="gradients add up to what is there: zero_grad is the caller's")
    ### BEGIN HIDDEN TESTS
    ends = np.cumsum(np.random.default_rng().integers(1, 7, size=5))
    x, y = np.random.default_rng().normal(size=(2, int(ends[-1]), 3))
    cuts = [slice(int(start), int(stop)) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    for one, two in zip(grads(cuts)[2], grads([slice(0, len(x))])[2], strict=True):
        close(one, two, rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_accumulate()

# %% [markdown]
# How wrong is dividing by the number of parts? One group of digits, 16 + 16 + 5, against the batch of 37:

# %%
def gradient_of(parts, share):
    manual_seed(0)
    net = digit_model(dropout=0.0)
    for part in parts:
        cross_entropy(net(Tensor(train_images[part])), train_labels[part]).backward(share(part))
    return np.concatenate([p.grad.data.ravel() for p in net.parameters()])


thirds = [slice(0, 16), slice(16, 32), slice(32, 37)]
exact = gradient_of([slice(0, 37)], lambda part: 1.0)
for label, share in {
    "by share of samples": lambda part: (part.stop - part.start) / 37,
    "divided by 3": lambda part: 1 / 3,
    "divided by 4, as always": lambda part: 1 / 4,
}.items():
    off = np.linalg.norm(gradient_of(thirds, share) - exact) / np.linalg.norm(exact)
    print(f"{label:24} off by {off:.1e} of the gradient's length")

# %% [markdown]
# By share of samples, the parts give the gradient of the whole, but for the last digit of float32. Divided by 3, or by
# 4 as always, half of the gradient is something else (0.48 and 0.49 of its length, measured): the five samples of the
# last part count more than three times as much as the others, and which classes these five happen to show decides where
# the step goes. As long as all parts are of equal size, dividing by their number is right, so nobody notices until the
# end of the epoch.
#
# ## 6. When numbers break
#
# NaN is contagious: what it touches becomes NaN. One infinite gradient makes infinite weights, and in the next step the
# loss is NaN, and everything after it. For NumPy all this is arithmetic: it warns, once, and goes on.
#
# It has a good side: the loss is a single number through which nearly all of it passes, so it is enough to look at that
# number, and that costs nothing. Only when it is not finite, somebody has to look for the place; then time does not
# matter.
#
# ### Exercise: `first_not_finite`

# %% nbgrader={"grade": false, "grade_id": "training-finite", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Flaw(NamedTuple):
    """An array that holds NaN or infinity: its name, how many of its numbers, and of how many."""

    name: str
    bad: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}: {self.bad:,} of {self.size:,} numbers"


def first_not_finite(arrays: Iterable[tuple[str, Array]]) -> Flaw | None:
    """The first of the named arrays that holds a NaN or an infinity; None if all numbers are finite.

    TODO: Count, for one array after the other, what is not finite; stop at the first that has some.

    APPROACH:
    1. `np.isfinite(array)` is True for each number that is neither NaN nor infinite.
    2. If there are others, return a Flaw of the name, their number (a Python int) and the array's size.

    EXAMPLE:
    >>> print(first_not_finite([("weight", np.ones(3)), ("bias", np.array([0.0, np.nan, -np.inf]))]))
    bias: 2 of 3 numbers

    HINT: `np.count_nonzero` counts what is True.
    """
    ### BEGIN SOLUTION
    for name, array in arrays:
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            return Flaw(name, bad, array.size)
    return None
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-finite", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_first_not_finite():
    fine = np.ones((2, 3), np.float32)
    assert first_not_finite([("a", fine), ("ids", np.arange(3))]) is None, "nothing is wrong: None"
    assert first_not_finite([]) is None
    for value in (np.nan, np.inf, -np.inf):
        spoiled = fine.copy()
        spoiled[1, 2] = value
        found = first_not_finite([("a", fine), ("b", spoiled), ("c", spoiled * np.nan)])
        got = (found.name, found.bad, found.size)
        assert got == ("b", 1, 6), f"{value} in b: expected ('b', 1, 6), got {got}"
        assert type(found.bad) is int, f"the number should be a Python int, got {type(found.bad).__name__}"
    assert str(first_not_finite([("w", np.full((50, 40), np.nan))])) == "w: 2,000 of 2,000 numbers"
    found = first_not_finite([("x", spoiled), ("y", "no array at all")])
    assert found.name == "x", "stop at the first: the others need not be looked at"
    ### BEGIN HIDDEN TESTS
    noise = np.random.default_rng().normal(size=(9, 7))
    holes = np.random.default_rng().random((9, 7)) < 0.3
    holes[0, 0] = True
    noise[holes] = np.nan
    counted = first_not_finite([("noise", noise)])
    assert (counted.bad, counted.size) == (int(holes.sum()), 63)
    ### END HIDDEN TESTS


test_first_not_finite()

# %% [markdown]
# Where it is tells why it came. NaN in the data, in a weight, or only in a gradient: three different mistakes. The
# function below looks in this order; the trainer puts the number of the step before what it says.

# %%
#| export
CAUSES = {
    "the inputs": "values are missing in the data, or were divided by zero",
    "a parameter": "an earlier step was too long: a smaller learning rate, a warm-up, or max_grad_norm",
    "a gradient": (
        "the slope of log, sqrt or a division at zero; an exponential of a large number (take losses that start from "
        "logits); inputs that are not scaled"
    ),
    "": "an overflow between model and loss: inputs that are not scaled, log of zero, targets that are no numbers",
}


def why_not_finite(model: Module, inputs: Iterable[Any]) -> str:
    """Where the first NaN or infinity stands, in the inputs, the parameters or their gradients, and what causes it."""
    named = list(model.named_parameters())
    for place, arrays in {
        "the inputs": ((f"input of batch {number}", np.asarray(x)) for number, x in enumerate(inputs, 1)),
        "a parameter": ((name, p.data) for name, p in named),
        "a gradient": ((f"gradient of {name}", p.grad.data) for name, p in named if p.grad is not None),
    }.items():
        flaw = first_not_finite(arrays)
        if flaw is not None:
            return f"not finite in {flaw}. Likely cause: {CAUSES[place]}"
    return f"inputs, parameters and gradients are finite. Likely cause: {CAUSES['']}"

# %% [markdown]
# ## 7. When to stop
#
# Trained for long enough, a network learns its training data by heart: the training loss goes on falling, the
# validation loss turns and rises. **Early stopping** waits for that: if the validation loss has not improved for
# `patience` epochs in a row, training ends, and the weights of the best epoch come back.
#
# Who watches while the loop runs? The loop cannot know everything that people want done at the end of an epoch. So it
# calls hooks, and whoever wants something is a **callback**:

# %%
#| export
class Callback:
    """What wants to know how a ``Trainer`` is getting on: a subclass overrides the hooks that it needs.

    A callback that has to remember something over a stop and a resume names those attributes in ``saved``: numbers,
    text, arrays, and lists, tuples and dictionaries of them. They go into the checkpoint.
    """

    saved: tuple[str, ...] = ()

    def on_fit_start(self, trainer: Trainer) -> None:
        """``fit`` begins."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """An epoch begins, or goes on after a resume: ``trainer.epoch`` are done."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """An optimizer step is done: ``trainer.step`` in all, ``trainer.batch`` batches of this epoch."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """An epoch is done, ``trainer.epoch`` in all, and its numbers stand in ``trainer.history``."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """``fit`` ends without an error."""

    def on_exception(self, trainer: Trainer) -> None:
        """``fit`` ends by an error, or because somebody pressed Ctrl-C."""

    def state_dict(self) -> dict[str, Any]:
        """The attributes that ``saved`` names."""
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave; KeyError if something is missing."""
        for name, value in [(name, state[name]) for name in self.saved]:
            setattr(self, name, value)


def latest(history: Mapping[str, Sequence[float]], monitor: str) -> float:
    """The last entry of ``monitor`` in a history; ValueError that lists the names there are."""
    if monitor not in history:
        advice = "; give fit a validation loader" if monitor.startswith("val_") else ""
        raise ValueError(f"monitor: there is no {monitor!r} in the history, only {', '.join(history)}{advice}")
    return history[monitor][-1]


def checked_mode(name: str, mode: str) -> str:
    """``mode`` if it is "min" or "max"; else ValueError naming the callback ``name``."""
    if mode not in ("min", "max"):
        raise ValueError(f"{name}: mode is 'min' (a loss) or 'max' (an accuracy), got {mode!r}")
    return mode

# %% [markdown]
# ### Exercise: `improved` and `EarlyStopping.on_epoch_end`

# %% nbgrader={"grade": false, "grade_id": "training-early-stopping", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def improved(value: float, best: float | None, mode: str = "min", min_delta: float = 0.0) -> bool:
    """Whether ``value`` is better than ``best`` by more than ``min_delta``; the first one is, a NaN never.

    TODO: Compare in the direction of `mode`.

    APPROACH:
    1. If there is no best yet (None), any number that is not NaN is an improvement.
    2. "min": value below best minus min_delta. "max": value above best plus min_delta.

    EXAMPLE:
    >>> improved(0.5, 0.6), improved(0.5, 0.6, "max"), improved(0.5, 0.6, min_delta=0.2)
    (True, False, False)

    HINT: A comparison with NaN is False; only the first epoch needs `math.isnan`.
    """
    ### BEGIN SOLUTION
    if best is None:
        return not math.isnan(value)
    return value < best - min_delta if mode == "min" else value > best + min_delta
    ### END SOLUTION


class EarlyStopping(Callback):
    """Stop when ``monitor`` has not improved for ``patience`` epochs in a row.

    Parameters
    ----------
    monitor
        A name of the history, such as "val_loss".
    patience
        How many epochs without improvement end the training; at least 1.
    min_delta
        By how much a number has to be better to count as an improvement.
    mode
        "min" for a loss, "max" for an accuracy.
    restore_best
        Whether the model gets the weights of its best epoch back when ``fit`` ends.

    Attributes
    ----------
    best, best_epoch
        The best number so far, and the epoch that it came from; None and 0 before the first.
    waited
        How many epochs there have been since then.

    Raises
    ------
    ValueError
        If ``patience`` or ``mode`` makes no sense, or at the end of an epoch that has no number for ``monitor``.

    TODO: Fill in the blank of `on_epoch_end`: after an epoch with the number `value`, be pleased or wait.

    APPROACH:
    1. If it has improved: keep `best` and `best_epoch` (that is `trainer.epoch`), and begin to wait from 0. With
       `restore_best`, keep `trainer.model.state_dict()` in `best_weights`.
    2. Otherwise one epoch more was waited. From `patience` on, set `trainer.should_stop` to True.

    EXAMPLE:
    >>> stopper = EarlyStopping(patience=2)
    >>> # validation losses 0.9, 0.7, 0.8, 0.75: stops after the fourth epoch, and the best one is 2

    HINT: `state_dict` copies. Without a copy, the weights that are kept would go on learning.
    """

    saved = ("best", "best_epoch", "waited", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best: bool = False,
    ) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience should be at least 1, got {patience}")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.mode, self.restore_best = checked_mode("EarlyStopping", mode), restore_best
        self.best: float | None = None
        self.best_epoch = self.waited = 0
        self.best_weights: dict[str, Array] | None = None

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Note an improvement, or wait one epoch more."""
        value = latest(trainer.history, self.monitor)
        ### BEGIN SOLUTION
        if improved(value, self.best, self.mode, self.min_delta):
            self.best, self.best_epoch, self.waited = value, trainer.epoch, 0
            if self.restore_best:
                self.best_weights = trainer.model.state_dict()
        else:
            self.waited += 1
            if self.waited >= self.patience:
                trainer.should_stop = True
        ### END SOLUTION

    def on_fit_end(self, trainer: Trainer) -> None:
        """Give the model its best weights back, if that was asked for."""
        if self.best_weights is not None:
            trainer.model.load_state_dict(self.best_weights)

# %% [markdown]
# The test plays the trainer: an object with the four attributes that a stopper looks at.

# %% nbgrader={"grade": false, "grade_id": "training-played", "locked": true, "schema_version": 3, "solution": false, "task": false}
class PlayedTrainer:
    def __init__(self):
        self.model = Sequential(Linear(1, 1))
        self.history, self.epoch, self.should_stop = {"val_loss": []}, 0, False


def epochs_until_stop(stopper, values):
    """Play epochs whose numbers are values; how many there were, and the trainer. Epoch n leaves the weight n."""
    trainer = PlayedTrainer()
    for value in values:
        trainer.epoch += 1
        trainer.history["val_loss"].append(value)
        trainer.model[0].weight.data[...] = trainer.epoch
        stopper.on_epoch_end(trainer)
        if trainer.should_stop:
            break
    stopper.on_fit_end(trainer)
    return trainer.epoch, trainer

# %% nbgrader={"grade": true, "grade_id": "test-training-early-stopping", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_early_stopping():
    nan = float("nan")
    for value, best, mode, delta, want in [
        (0.5, None, "min", 0.0, True),
        (nan, None, "min", 0.0, False),
        (0.5, 0.6, "min", 0.0, True),
        (0.6, 0.6, "min", 0.0, False),
        (0.7, 0.6, "min", 0.0, False),
        (0.5, 0.6, "min", 0.2, False),
        (0.3, 0.6, "min", 0.2, True),
        (0.7, 0.6, "max", 0.0, True),
        (0.6, 0.6, "max", 0.0, False),
        (0.5, 0.6, "max", 0.0, False),
        (0.7, 0.6, "max", 0.2, False),
        (nan, 0.6, "min", 0.0, False),
        (nan, 0.6, "max", 0.0, False),
        (1.0, 0.0, "max", 0.0, True),
    ]:
        got = improved(value, best, mode, delta)
        assert got is want, f"improved({value}, {best}, {mode!r}, {delta}): expected {want}, got {got}"
    stopper = EarlyStopping(patience=2)
    epochs, trainer = epochs_until_stop(stopper, [0.9, 0.7, 0.8, 0.75, 0.1])
    assert epochs == 4, f"patience 2, best epoch 2: expected to stop after 4, got {epochs}"
    assert trainer.should_stop is True
    told = (stopper.best, stopper.best_epoch, stopper.waited)
    assert told == (0.7, 2, 2), f"expected best 0.7 of epoch 2, waited 2; got {told}"
    close(trainer.model[0].weight.data, [[4]], why="without restore_best the weights stay as they are")
    assert stopper.best_weights is None, "without restore_best no weights are kept"
    epochs, _ = epochs_until_stop(EarlyStopping(patience=2), [0.9, 1.0, 0.8, 0.9, 0.7, 0.8])
    assert epochs == 6, "an improvement begins the wait anew"
    best = EarlyStopping(patience=2, restore_best=True, min_delta=0.05)
    epochs, trainer = epochs_until_stop(best, [0.9, 0.7, 0.69, 0.68])
    assert epochs == 4 and best.best == 0.7, "less than min_delta is no improvement"
    close(trainer.model[0].weight.data, [[2]], why="restore_best: the weights of the best epoch, a copy of them")
    epochs, _ = epochs_until_stop(EarlyStopping(patience=1, mode="max"), [0.5, 0.6, 0.6])
    assert epochs == 3, 'mode "max" waits for a larger number'
    with raises(ValueError, "val_f1", "val_loss"):
        epochs_until_stop(EarlyStopping("val_f1"), [0.5])
    with raises(ValueError, "'down'"):
        EarlyStopping(mode="down")
    ### BEGIN HIDDEN TESTS
    course = np.random.default_rng().random(40).tolist()
    wait = int(np.random.default_rng().integers(2, 6))
    lowest, since, last = math.inf, 0, len(course)
    for place, number in enumerate(course, 1):
        since = 0 if number < lowest else since + 1
        lowest = min(lowest, number)
        if since == wait:
            last = place
            break
    again = EarlyStopping(patience=wait)
    assert epochs_until_stop(again, course)[0] == last
    copied = EarlyStopping(patience=wait)
    copied.load_state_dict(again.state_dict())
    assert (copied.best, copied.waited) == (lowest, since)
    ### END HIDDEN TESTS


test_early_stopping()

# %% [markdown]
# ## 8. Watching
#
# A loop that says nothing for ten minutes may be working or hanging. What people want to see is one line: how far, how
# good, how fast, and how long it will take.
#
# ```
# epoch 3/10  [############........] 27/45  loss 0.4123  accuracy 0.885  412 batches/s  0:05 left
# ```
#
# Making the line is a pure function of a few numbers. It can be tested; writing it to a terminal ten times a second is
# another matter, and stands below.
#
# ### Exercise: `clock` and `progress_line`

# %% nbgrader={"grade": false, "grade_id": "training-progress", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, from an hour on hours:minutes:seconds.

    TODO: Round to whole seconds and divide by 60, twice if need be.

    APPROACH:
    1. `divmod(round(seconds), 60)` gives minutes and seconds; the same again gives hours and minutes.
    2. All but the first number have two digits: `f"{minutes:02}"`.

    EXAMPLE:
    >>> clock(65.4), clock(3600)
    ('1:05', '1:00:00')

    HINT: Round first. 59.7 seconds are one minute, not 60 seconds.
    """
    ### BEGIN SOLUTION
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    ### END SOLUTION


def progress_line(
    title: str, done: int, total: int | None, rate: float, values: Mapping[str, float], bar: int = 20
) -> str:
    """One line on how far an epoch is.

    Parameters
    ----------
    title
        What the line begins with.
    done, total
        How many batches are done, and how many there are; None if nobody knows.
    rate
        Batches a second; 0 if that is not known yet.
    values
        Numbers to show, by name.
    bar
        How many characters the bar has between its brackets; 0 for no bar.

    TODO: Collect the parts of the line in a list, and join them with two spaces.

    APPROACH:
    1. The title. Then, if there is a total, the bar `[####....] 2/4`, in which `bar * done // total` places are `#`;
       without a bar `2/4` alone. If there is no total, `2 batches`.
    2. Each value as `name 0.1235`, in the format `.4g`.
    3. If the rate is not 0: the rate, in the format `.4g`, and `batches/s`.
    4. If besides there is a total, and not all is done: the clock for what is left, and `left`.

    EXAMPLE:
    >>> progress_line("epoch 1/2", 2, 8, 4.0, {"loss": 0.123456})
    'epoch 1/2  [#####...............] 2/8  loss 0.1235  4 batches/s  0:02 left'

    HINT: What is left takes `(total - done) / rate` seconds. A total of 0 is a total, with a bar of `.` alone.
    """
    ### BEGIN SOLUTION
    parts = [title]
    if total is None:
        parts.append(f"{done} batches")
    else:
        filled = bar * done // max(total, 1)
        drawn = f"[{'#' * filled}{'.' * (bar - filled)}] " if bar else ""
        parts.append(f"{drawn}{done}/{total}")
    parts += [f"{name} {value:.4g}" for name, value in values.items()]
    if rate:
        parts.append(f"{rate:.4g} batches/s")
        if total is not None and done < total:
            parts.append(f"{clock((total - done) / rate)} left")
    return "  ".join(parts)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-training-progress", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_progress_line():
    for seconds, want in [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.7, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3600, "1:00:00"),
        (3725, "1:02:05"),
        (90061, "25:01:01"),
    ]:
        assert clock(seconds) == want, f"clock({seconds}): expected {want!r}, got {clock(seconds)!r}"
    bar = "[#####...............]"
    for arguments, want in [
        (("a", 2, 8, 4.0, {"loss": 0.123456}), f"a  {bar} 2/8  loss 0.1235  4 batches/s  0:02 left"),
        (("a", 2, 8, 0.01, {}), f"a  {bar} 2/8  0.01 batches/s  10:00 left"),
        (("a", 2, 8, 0.0, {"x": 1.0, "y": 20000.0}), f"a  {bar} 2/8  x 1  y 2e+04"),
        (("b c", 8, 8, 812.34, {}), f"b c  [{'#' * 20}] 8/8  812.3 batches/s"),
        (("a", 0, 3, 0.0, {}), f"a  [{'.' * 20}] 0/3"),
        (("a", 1, 3, 0.0, {}), f"a  [{'#' * 6}{'.' * 14}] 1/3"),
        (("a", 0, 0, 0.0, {}), f"a  [{'.' * 20}] 0/0"),
        (("a", 1, 1, 0.5, {}), f"a  [{'#' * 20}] 1/1  0.5 batches/s"),
        (("a", 7, None, 2.0, {"loss": 3.0}), "a  7 batches  loss 3  2 batches/s"),
        (("a", 2, 3, 2.0, {}, 4), "a  [##..] 2/3  2 batches/s  0:00 left"),
        (("a", 2, 3, 0.0, {}, 1), "a  [.] 2/3"),
        (("a", 2, 3, 0.0, {}, 0), "a  2/3"),
    ]:
        got = progress_line(*arguments)
        assert got == want, f"progress_line{arguments}:\nexpected {want!r}\n     got {got!r}"
    ### BEGIN HIDDEN TESTS
    drawn_total = int(np.random.default_rng().integers(50, 500))
    for drawn_done in np.random.default_rng().integers(0, drawn_total, size=10).tolist():
        shown = progress_line("t", drawn_done, drawn_total, 0.5, {})
        ticks = drawn_done * 20 // drawn_total
        begin = f"t  [{'#' * ticks:.<20}] {drawn_done}/{drawn_total}  0.5 batches/s  "
        assert shown.startswith(begin), shown
        spelled = [int(part) for part in shown.removeprefix(begin).removesuffix(" left").split(":")]
        left_s = sum(part * 60**power for power, part in enumerate(reversed(spelled)))
        assert left_s == 2 * (drawn_total - drawn_done), shown
    ### END HIDDEN TESTS


test_progress_line()

# %% [markdown]
# On a terminal the line is written over the one before: `\r` goes back to its beginning. In a file, and in a notebook
# that is read tomorrow, this would leave a thousand lines; there, one line at the end of each epoch is enough, and one
# every half minute if epochs are long.

# %%
#| export
class ProgressBar(Callback):
    """Shows a line on the epoch that runs: on a terminal a moving bar, anywhere else plain lines.

    Parameters
    ----------
    stream
        Where it is written; by default what ``sys.stdout`` is when ``fit`` begins.
    every_s
        On a terminal the line is written at most once in so many seconds.
    plain_every_s
        Elsewhere, besides the line at the end of each epoch.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 0.1, plain_every_s: float = 30.0) -> None:
        self.stream, self.every_s, self.plain_every_s = stream, every_s, plain_every_s
        self._open = 0  # the length of the line on the terminal that has no end yet

    def on_fit_start(self, trainer: Trainer) -> None:
        """Find out what kind of stream this is."""
        self._out = self.stream or sys.stdout
        self._moving = self._out.isatty()
        self._pause = self.every_s if self._moving else self.plain_every_s
        self._bar = 20

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._begin = self._shown = self._now = time.perf_counter()
        self._first = self._done = trainer.batch

    def on_batch_end(self, trainer: Trainer) -> None:
        """Write the line, if the last one is old enough."""
        self._now, self._done = time.perf_counter(), trainer.batch
        if self._now - self._shown >= self._pause:
            self._shown = self._now
            self._show(trainer, trainer.epoch + 1, trainer.averages_so_far(), last=not self._moving)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write the epoch's line, with all that the history says of it."""
        self._show(trainer, trainer.epoch, {name: numbers[-1] for name, numbers in trainer.history.items()}, last=True)

    def on_exception(self, trainer: Trainer) -> None:
        """End the line, so that the error begins on one of its own."""
        if self._open:
            self._out.write("\n")
            self._open = 0

    def _show(self, trainer: Trainer, epoch: int, values: Mapping[str, float], last: bool) -> None:
        seconds = self._now - self._begin
        rate = (self._done - self._first) / seconds if seconds > 0 else 0.0
        shown = {name: value for name, value in values.items() if name != "lr"}
        line = partial(progress_line, f"epoch {epoch}/{trainer.epochs}", self._done, trainer.batches, rate, shown)
        self._write(self._fitted(line) if self._moving and not last else line(), last)

    def _fitted(self, line: Callable[..., str]) -> str:
        """The line with as long a bar as the terminal has room for, but not longer than it was."""
        room = shutil.get_terminal_size().columns - 1
        self._bar = min(self._bar, max(0, room - len(line(bar=0)) - 3))
        return line(bar=self._bar)[:room]

    def _write(self, line: str, last: bool) -> None:
        """On a terminal over the line that is open, and spaces over the rest of it."""
        self._out.write((f"\r{line:<{self._open}}" if self._moving else line) + ("\n" if last else ""))
        self._out.flush()
        self._open = 0 if last else len(line)

# %% [markdown]
# ## 9. The trainer
#
# All parts are there. The class that puts them together keeps three counters, `epoch`, `batch` and `step`: how many are
# done. They are all that it has to know to stop at any place and go on from there, as the loader's order follows from
# the epoch.
#
# Four things to notice as you read:
#
# - `fit(loader, epochs=20)` trains *until* 20 epochs are done, counting those before. A program that was killed and is
#   started again says the same and does the rest.
# - A group is taken from the loader as a whole before it is used. So the last one, which may hold fewer batches, knows
#   its size, and no sample counts too much or too little.
# - Callbacks decide, the trainer saves: `save_after_hooks` notes a path, and the file is written once all callbacks
#   have done their work, so that it holds the state of each of them *after* the epoch.
# - A scheduler moves once an optimizer step, as warm-up and cosine expect. One that counts in epochs, such as `StepLR`
#   as most people use it, is given with `scheduler_interval="epoch"`.

# %%
#| export
def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches in lists of ``size``; the last list may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def skipping(loader: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The batches of ``loader`` after the first ``count``, with the default generator as it was before those."""
    iterator = iter(loader)
    if count:
        state = default_generator().bit_generator.state
        deque(islice(iterator, count), maxlen=0)
        default_generator().bit_generator.state = state
    return iterator


def at_epoch(loader: Iterable[Batch], epoch: int) -> Iterable[Batch]:
    """``loader``; if it has ``set_epoch``, then it was told that ``epoch`` is coming."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    return loader


def append_values(history: dict[str, list[float]], values: Mapping[str, float]) -> None:
    """Append an epoch's values to the lists of a history; an epoch that lacks one gets NaN there."""
    done = max(map(len, history.values()), default=0)
    for name in [*history, *(name for name in values if name not in history)]:
        numbers = history.setdefault(name, [math.nan] * done)
        numbers.append(values.get(name, math.nan))

# %% [markdown]
# ### Exercise: `Trainer.train_step`, `evaluate` and `fit`

# %% nbgrader={"grade": false, "grade_id": "training-trainer", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Trainer:
    """Trains a model, watches it, and can be stopped, saved and resumed at any step.

    Parameters
    ----------
    model, loss, optimizer
        ``loss(model(inputs), targets)`` is one number, the mean over the samples of a batch.
    scheduler
        Its ``step()`` is called after each optimizer step, or, with ``scheduler_interval="epoch"``, after each epoch.
    metrics
        Functions ``(outputs, targets) -> float`` by name, each a mean over the samples, such as ``accuracy``.
    max_grad_norm
        If given, gradients are scaled so that their norm is at most this; see ``clip_grad_norm``.
    accumulate
        How many batches make one optimizer step. The last step of an epoch may have fewer.
    callbacks
        See ``Callback``; their hooks are called in this order.

    Attributes
    ----------
    epoch, batch, step
        How many epochs are done, how many batches of the epoch after them, and how many optimizer steps in all.
    epochs, batches
        How many epochs ``fit`` shall reach, and how many batches an epoch has (None if the loader has no length).
    history
        A list for each of "loss", the metrics, "lr" (the rate of the epoch's last step), and "val_loss" and so on if
        there are validation data: one number an epoch. Losses and metrics of training are means over the epoch, taken
        while the weights changed and in training mode.
    should_stop
        Set by a callback to end training after the epoch that runs; it stays until somebody sets it to False.

    Raises
    ------
    ValueError
        If an option makes no sense.

    TODO: Fill in three blanks: a step, an evaluation, and the loop over epochs.

    APPROACH:
    1. `train_step`: zero the gradients, accumulate those of the group, `self.watch(group, results)`, which notes the
       numbers and stops if one is not finite, and `self.update()`, which clips and steps.
    2. `evaluate`: within `evaluating(self.model)`, for each batch: outputs, their loss as a float, and
       `self.note(averages, outputs, targets, value)`.
    3. `fit`: until `epochs` are done or `should_stop` is set: `train_epoch(loader)`, then `end_epoch(validation)`.

    EXAMPLE:
    >>> trainer = Trainer(model, cross_entropy, optimizer, metrics={"accuracy": accuracy})
    >>> history = trainer.fit(Batches(images, labels, 64, shuffle=True), epochs=10, validation=Batches(test, answers))

    HINT: Weights change between batches, so ask `should_stop` before each epoch, not once: a `while`, not a `for`.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Any,
        *,
        scheduler: Any = None,
        scheduler_interval: str = "step",
        metrics: Mapping[str, Callable[[Any, Any], float]] | None = None,
        max_grad_norm: float | None = None,
        accumulate: int = 1,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if index(accumulate) < 1:
            raise ValueError(f"Trainer: accumulate should be at least 1, got {accumulate}")
        if scheduler_interval not in ("step", "epoch"):
            raise ValueError(f"Trainer: scheduler_interval is 'step' or 'epoch', got {scheduler_interval!r}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.scheduler, self.scheduler_interval = scheduler, scheduler_interval
        self.metrics = dict(metrics or {})
        taken = {"loss", "lr"} & self.metrics.keys()
        if taken:
            raise ValueError(f"Trainer: a metric cannot be called {taken.pop()!r}, which the history has already")
        self.max_grad_norm, self.accumulate, self.callbacks = max_grad_norm, accumulate, list(callbacks)
        self.epoch = self.batch = self.step = self.epochs = 0
        self.batches: int | None = None
        self.history: dict[str, list[float]] = {}
        self.averages: dict[str, Average] = {}  # of the epoch that runs
        self.should_stop = False
        self._to_save: list[str | os.PathLike[str]] = []

    # training

    def fit(
        self, loader: Iterable[Batch], epochs: int, validation: Iterable[Batch] | None = None
    ) -> dict[str, list[float]]:
        """Train until ``epochs`` epochs are done, those of earlier calls and of a resumed checkpoint included.

        Parameters
        ----------
        loader, validation
            Can be iterated in each epoch anew, and give ``(inputs, targets)``; see ``Batches``. Those that have
            ``set_epoch`` are told the number of the epoch, from 0.

        Returns
        -------
        dict[str, list[float]]
            The history.

        Raises
        ------
        FloatingPointError
            If the loss, or the norm of the gradients if they are clipped, is not finite; see ``why_not_finite``. The
            weights are then as they were before this step.
        ValueError
            If a loader gives nothing.
        OSError
            If a checkpoint cannot be written.
        """
        self.epochs, self.batches = epochs, len(loader) if isinstance(loader, Sized) else None
        self.model.train()
        try:
            self.notify("on_fit_start")
            ### BEGIN SOLUTION
            while self.epoch < epochs and not self.should_stop:
                self.train_epoch(loader)
                self.end_epoch(validation)
            ### END SOLUTION
            self.notify("on_fit_end")
        except BaseException:
            self._to_save.clear()
            self.notify("on_exception")
            raise
        return self.history

    def train_epoch(self, loader: Iterable[Batch]) -> None:
        """The steps of an epoch, or the rest of one that was begun."""
        self.notify("on_epoch_start")
        for group in grouped(skipping(at_epoch(loader, self.epoch), self.batch), self.accumulate):
            self.train_step(group)
            self.batch += len(group)
            self.notify("on_batch_end")
        if not self.batch:
            raise ValueError(f"fit: the loader gave nothing in epoch {self.epoch + 1}; a generator gives its data once")

    def train_step(self, group: Sequence[Batch]) -> None:
        """One optimizer step on the batches of ``group``."""
        ### BEGIN SOLUTION
        self.optimizer.zero_grad()
        self.watch(group, accumulate_gradients(self.model, self.loss, group))
        self.update()
        ### END SOLUTION

    def watch(self, group: Sequence[Batch], results: Sequence[tuple[Any, float]]) -> None:
        """Note losses and metrics of a step; FloatingPointError if a loss, or a norm that is clipped, is not finite."""
        for _, value in results:
            if not math.isfinite(value):
                self._not_finite(group, f"the loss is {value}")
        if self.max_grad_norm is not None:
            try:
                clip_grad_norm(self.model.parameters(), self.max_grad_norm, error_if_nonfinite=True)
            except RuntimeError:
                self._not_finite(group, "the norm of the gradients is not finite")
        for (_, targets), (outputs, value) in zip(group, results, strict=True):
            self.note(self.averages, outputs, targets, value)

    def update(self) -> None:
        """Let optimizer and scheduler take their step."""
        self.optimizer.step()
        self.step += 1
        self.averages["lr"] = Average(float(self.optimizer.param_groups[0]["lr"]), 1.0)  # the last one counts
        if self.scheduler is not None and self.scheduler_interval == "step":
            self.scheduler.step()

    def end_epoch(self, validation: Iterable[Batch] | None = None) -> None:
        """Evaluate, write the history and begin a new epoch."""
        values = self.averages_so_far()
        if validation is not None:
            measured = self.evaluate(at_epoch(validation, self.epoch))
            values |= {f"val_{name}": value for name, value in measured.items()}
        append_values(self.history, values)
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            self.scheduler.step()
        self.epoch, self.batch, self.averages = self.epoch + 1, 0, {}
        self.notify("on_epoch_end")

    def _not_finite(self, group: Sequence[Batch], what: str) -> None:
        where = f"step {self.step + 1} (epoch {self.epoch + 1}, batch {self.batch + 1})"
        raise FloatingPointError(f"{where}: {what}; {why_not_finite(self.model, (inputs for inputs, _ in group))}")

    # in use

    def evaluate(self, loader: Iterable[Batch]) -> dict[str, float]:
        """Loss and metrics over all samples of ``loader``, in evaluation mode; "loss", then the metrics by name.

        Raises
        ------
        ValueError
            If the loader gives nothing.
        """
        averages: dict[str, Average] = {}
        ### BEGIN SOLUTION
        with evaluating(self.model):
            for inputs, targets in loader:
                outputs = self.model(inputs)
                self.note(averages, outputs, targets, float(self.loss(outputs, targets)))
        ### END SOLUTION
        if not averages:
            raise ValueError("evaluate: the loader gave nothing; a generator gives its data once")
        return {name: average.value for name, average in averages.items()}

    def predict(self, inputs: Any, batch_size: int = 256) -> Array:
        """What the model gives for ``inputs`` in evaluation mode, computed in batches, as one array."""
        array = sharing(inputs)
        with evaluating(self.model):
            parts = batch_slices(max(len(array), 1), batch_size)
            return np.concatenate([self.model(from_numpy(array[part])).data for part in parts])

    def note(self, averages: dict[str, Average], outputs: Any, targets: Any, loss: float) -> None:
        """Add a batch to the averages: its loss and its metrics, each with the number of samples as its weight."""
        samples = len(targets)
        averages.setdefault("loss", Average()).add(loss, samples)
        for name, metric in self.metrics.items():
            averages.setdefault(name, Average()).add(float(metric(outputs, targets)), samples)

    def averages_so_far(self) -> dict[str, float]:
        """The means of the epoch that runs, loss and metrics, and the rate of its last step as "lr"."""
        return {name: average.value for name, average in self.averages.items()}

    # callbacks

    def notify(self, hook: str) -> None:
        """Call the hook of this name of every callback, then write the checkpoints that they asked for."""
        for callback in self.callbacks:
            getattr(callback, hook)(self)
        while self._to_save:
            save_checkpoint(self._to_save.pop(0), self)

    def save_after_hooks(self, path: str | os.PathLike[str]) -> None:
        """Called by a callback: write a checkpoint to ``path`` as soon as all callbacks have done their work."""
        self._to_save.append(path)

    # stop and resume

    def state_dict(self) -> dict[str, Any]:
        """All that ``fit`` needs to go on as if it had never stopped; arrays are copies."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "callbacks": {name: deepcopy(callback.state_dict()) for name, callback in self._remembering().items()},
            "counters": {"epoch": self.epoch, "batch": self.batch, "step": self.step, "should_stop": self.should_stop},
            "averages": {name: (average.total, average.weight) for name, average in self.averages.items()},
            "history": deepcopy(self.history),
            "generator": default_generator().bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises
        ------
        ValueError
            If anything does not fit; nothing has changed then.
        """
        before = self.state_dict()
        try:
            self._load(state)
        except Exception as error:
            self._load(before)
            problem = f"there is no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"the state does not fit this trainer: {problem}") from error

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from the checkpoint at ``path``; see ``load_checkpoint``.

        What follows is the same to the bit on the same machine, with the same NumPy and as many threads: sums in
        another order are rounded in another way.
        """
        load_checkpoint(path, self)

    def _load(self, state: Mapping[str, Any]) -> None:
        callbacks = self._remembering()
        if state["callbacks"].keys() != callbacks.keys():
            both = f"its callbacks are {sorted(state['callbacks'])}, those of this trainer {sorted(callbacks)}"
            raise ValueError(both)
        if (state["scheduler"] is None) != (self.scheduler is None):
            ways = ("without a scheduler, this trainer has one", "with a scheduler, this trainer has none")
            raise ValueError(f"it was saved {ways[self.scheduler is None]}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, callback in callbacks.items():
            callback.load_state_dict(deepcopy(state["callbacks"][name]))
        counters = state["counters"]
        self.epoch, self.batch, self.step = counters["epoch"], counters["batch"], counters["step"]
        self.should_stop = counters["should_stop"]
        self.averages = {name: Average(*sums) for name, sums in state["averages"].items()}
        self.history = {name: list(numbers) for name, numbers in state["history"].items()}
        default_generator().bit_generator.state = state["generator"]

    def _remembering(self) -> dict[str, Callback]:
        """The callbacks that have something to save, by the name of their class, and numbered if there are several."""
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            if callback.state_dict():
                kind = type(callback).__name__
                same = sum(type(other).__name__ == kind for other in named.values())
                named[f"{kind}-{same + 1}" if same else kind] = callback
        return named

# %% [markdown]
# The tests use a model with one weight, which can be followed on paper, and a callback that notes what it is told.

# %% nbgrader={"grade": false, "grade_id": "training-examples", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Line(Module):
    """w * x, and in training mode 10 more: a model that shows its mode."""

    def __init__(self, w=0.0):
        super().__init__()
        self.w = Parameter([w])

    def forward(self, x):
        return x * self.w + (10.0 if self.training else 0.0)


class Diary(Callback):
    def __init__(self):
        self.pages = []

    def note(self, name, trainer):
        self.pages.append((name, trainer.epoch, trainer.batch, trainer.step))

    def on_fit_start(self, trainer):
        self.note("fit", trainer)

    def on_epoch_start(self, trainer):
        self.note("start", trainer)

    def on_batch_end(self, trainer):
        self.note("step", trainer)

    def on_epoch_end(self, trainer):
        self.note("end", trainer)

    def on_fit_end(self, trainer):
        self.note("done", trainer)

    def on_exception(self, trainer):
        self.note("error", trainer)


class Once:
    """A loader that gives its batches in the first epoch only, as a generator does."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        batches, self.batches = self.batches, []
        return iter(batches)


class StopAfter(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, trainer):
        trainer.should_stop = trainer.epoch >= self.epochs


def mean_output(outputs, targets):
    return outputs.mean()


def mean_error(outputs, targets):
    return float(np.abs(outputs.data - targets.data).mean())

# %% nbgrader={"grade": true, "grade_id": "test-training-trainer", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def line_trainer(**options):
    line = Line()
    return line, Trainer(line, mean_output, SGD(line.parameters(), lr=0.1), **options)


def pair(*numbers):
    return Tensor([float(number) for number in numbers]), Tensor([0.0 for _ in numbers])


def test_trainer():
    line, trainer = line_trainer()
    line.w.grad = Tensor([1000.0])
    trainer.train_step([pair(1, 2, 3)])
    close(line.w.data, [-0.2], why="a slope of 2, a learning rate of 0.1; gradients from before are zeroed")
    close(trainer.averages_so_far()["loss"], 10.0, why="the loss before the step, in training mode")
    trainer.train_step([pair(6), pair(1, 2)])
    close(line.w.data, [-0.5], why="one step on both batches: each sample counts the same")
    assert trainer.step == 2, f"two optimizer steps: expected step 2, got {trainer.step}"
    mean = (3 * 10 + (10 - 1.2) + 2 * (10 - 0.3)) / 6
    close(trainer.averages_so_far()["loss"], mean, why="watch the group's results")
    line, trainer = line_trainer(max_grad_norm=0.5)
    trainer.train_step([pair(3)])
    close(line.w.data, [-0.05], why="watch clips the gradient before update uses it")
    line.w.data[...] = 2.0
    with raises(FloatingPointError, "step 2", "epoch 1", "batch 1", "nan", "input of batch 2: 1 of 2 numbers", "data"):
        trainer.train_step([pair(1, 2), pair(1, math.nan)])
    close(line.w.data, [2], why="if the loss is not finite, there is no step")
    with raises(FloatingPointError, "w: 1 of 1 numbers", "learning rate"):
        line.w.data[...] = math.inf
        trainer.train_step([pair(1.0)])

    line, trainer = line_trainer(metrics={"error": mean_error})
    line.w.data[...] = 2.0
    got = trainer.evaluate([pair(1, 2, 3), pair(10)])
    assert sorted(got) == ["error", "loss"], f"expected loss and error, got {sorted(got)}"
    close(got["loss"], 8.0, why="evaluation mode, and each sample weighs the same: (2 + 4 + 6 + 20) / 4")
    close(got["error"], 8.0)
    assert all(type(value) is float for value in got.values()), "plain floats"
    assert line.training is True, "evaluate puts the mode back"
    assert trainer.averages_so_far() == {}, "an evaluation does not count for the training epoch"
    close(trainer.predict(np.array([1.0, 2.0, 3.0]), batch_size=2), [2, 4, 6], dtype=np.float32)
    with raises(ValueError, "evaluate", "nothing"):
        trainer.evaluate([])
    with raises(TypeError, "NoneType"):
        trainer.evaluate([pair(1), (Tensor([1.0]), None)])
    assert line.training is True, "after an error too"
    ### BEGIN HIDDEN TESTS
    width = np.random.default_rng().integers(1, 6, size=4)
    lots = [np.random.default_rng().normal(size=int(n)) for n in width]
    w = float(np.random.default_rng().uniform(1, 2))
    line.w.data[...] = w
    got = trainer.evaluate([(Tensor(lot), Tensor(np.zeros(len(lot)))) for lot in lots])
    close(got["loss"], float(np.concatenate(lots).mean() * w), rtol=1e-4, atol=1e-5)
    close(got["error"], float(np.abs(np.concatenate(lots)).mean() * w), rtol=1e-4, atol=1e-5)
    trainer.train_step([(Tensor(lot), Tensor(np.zeros(len(lot)))) for lot in lots])
    close(line.w.data, [w - 0.1 * np.concatenate(lots).mean()], rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_trainer()

# %% nbgrader={"grade": true, "grade_id": "test-training-fit", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_fit():
    diary = Diary()
    line, trainer = line_trainer(accumulate=2, callbacks=[diary])
    loader = [pair(1), pair(2), pair(3)]
    history = trainer.fit(loader, epochs=2, validation=[pair(1.0)])
    steps = [("step", 0, 2, 1), ("step", 0, 3, 2), ("step", 1, 2, 3), ("step", 1, 3, 4)]
    got = [tuple(page) for page in diary.pages if page[0] == "step"]
    assert got == steps, f"(name, epoch, batch, step) after each step: expected {steps}, got {got}"
    told = [page[0] for page in diary.pages]
    want = ["fit", "start", "step", "step", "end", "start", "step", "step", "end", "done"]
    assert told == want, f"the hooks, in order: expected {want}, got {told}"
    close(line.w.data, [-0.9], why="two steps an epoch, of slopes 1.5 and 3")
    close(history["loss"], [10 - 0.45 / 3, 10 - (0.45 * 3 + 0.6 * 3) / 3], why="the mean over the samples of an epoch")
    close(history["val_loss"], [-0.45, -0.9], why="after each epoch, in evaluation mode")
    close(history["lr"], [0.1, 0.1])
    trainer.fit(loader, epochs=2)
    assert trainer.epoch == 2 and len(history["loss"]) == 2, "two epochs are done already: nothing is left to do"
    trainer.fit(loader, epochs=3, validation=[pair(1.0)])
    assert trainer.epoch == 3, f"until 3 epochs are done in all: expected 3, got {trainer.epoch}"
    close(trainer.history["val_loss"], [-0.45, -0.9, -1.35], why="the history goes on")
    line, trainer = line_trainer(callbacks=[StopAfter(2)])
    trainer.fit(loader, epochs=5)
    assert trainer.epoch == 2, f"should_stop was set at the end of epoch 2, but epoch {trainer.epoch} came"
    trainer.fit(loader, epochs=5)
    assert trainer.epoch == 2, "should_stop stays, so nothing is done"
    diary = Diary()
    line, trainer = line_trainer(callbacks=[diary])
    with raises(ValueError, "nothing", "epoch 2"):
        trainer.fit(Once(loader), epochs=2)
    assert diary.pages[-1][0] == "error", "after an error, callbacks are told"
    ### BEGIN HIDDEN TESTS
    drawn_epochs = int(np.random.default_rng().integers(3, 8))
    values = np.random.default_rng().normal(size=(6, 2))
    line, trainer = line_trainer()
    trainer.fit(Batches(values[:, 0], values[:, 1], batch_size=4, shuffle=True), epochs=drawn_epochs)
    assert (trainer.epoch, trainer.batch, trainer.step) == (drawn_epochs, 0, 2 * drawn_epochs)
    halves = []
    line, trainer = line_trainer()
    for goal in (1, 2):
        trainer.fit([(Tensor(values[:, 0]), Tensor(values[:, 1]))], epochs=goal)
        halves.append(float(line.w.data[0]))
    close(halves, -0.1 * values[:, 0].mean() * np.array([1, 2]), rtol=1e-4)
    ### END HIDDEN TESTS


test_fit()

# %% [markdown]
# ## 10. It learns to read
#
# Here it is at work on the digits: Adam, a learning rate that warms up and falls again, half of the hidden numbers
# dropped, and a bar. Predict two things: the accuracy on the 360 digits that it has not seen, and which loss will be
# lower in the last epochs, that of training or that of validation.

# %%
#| export
def plot_history(history: Mapping[str, Sequence[float]]) -> Any:
    """Draw loss and metrics by epoch, training and validation in one picture each; returns the figure (matplotlib)."""
    import matplotlib.pyplot as plt

    names = [name for name in history if name != "lr" and not name.startswith("val_")]
    figure, grid = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3), layout="constrained", squeeze=False)
    for axes, name in zip(grid[0], names, strict=True):
        for label, numbers in (("training", history[name]), ("validation", history.get(f"val_{name}", ()))):
            axes.plot(range(1, len(numbers) + 1), numbers, label=label)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure

# %%
validation = Batches(test_images, test_labels, batch_size=120)


def digit_trainer(callbacks=(), dropout=0.5, epochs=12):
    manual_seed(0)
    model = digit_model(dropout)
    optimizer = Adam(model.parameters(), lr=5e-3)
    scheduler = CosineWarmupLR(optimizer, warmup_steps=20, total_steps=epochs * len(loader))
    scores = {"accuracy": accuracy}
    return Trainer(model, cross_entropy, optimizer, scheduler=scheduler, metrics=scores, callbacks=callbacks)


trainer = digit_trainer([ProgressBar()])
plot_history(trainer.fit(loader, epochs=12, validation=validation))
plt.show()

# %% [markdown]
# 97.2 % of the test digits are right, after less than a second. And the network does *better* on digits that it has
# never seen: a loss of 0.13, against 0.21 in training. Nothing is wrong. The training loss is taken with half of the
# hidden numbers dropped, and over an epoch at whose beginning the weights were worse. To compare like with like,
# evaluate both:

# %%
print("training", trainer.evaluate(loader))
print("test    ", trainer.evaluate(validation))

# %% [markdown]
# Evaluated, the two are the same, 0.13: with half of its hidden numbers dropped, this network has learned nothing by
# heart. Which mistakes are left? The diagonal is what was right.

# %%
answers = trainer.predict(test_images).argmax(axis=-1)
table = confusion_matrix(answers, test_labels, classes=10)
wrong = np.flatnonzero(answers != test_labels)[:12]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.imshow(np.where(np.eye(10), 0, table), cmap="Reds", vmax=5)
for (true, predicted), times in np.ndenumerate(table):
    if times:
        left.text(predicted, true, times, ha="center", va="center", fontsize="small")
left.set_xticks(range(10))
left.set_yticks(range(10))
left.set_xlabel("predicted")
left.set_ylabel("true")
left.set_title("What is taken for what")
right.axis("off")
right.set_title("Mistakes: true → predicted")
for place, number in enumerate(wrong):
    inset = right.inset_axes([place % 4 * 0.25, 0.67 - place // 4 * 0.33, 0.22, 0.25])
    inset.imshow(test_images[number].reshape(8, 8), cmap="gray_r")
    inset.set_title(f"{test_labels[number]} → {answers[number]}", fontsize="small")
    inset.axis("off")
plt.show()

# %% [markdown]
# ### By heart
#
# With only 100 digits to learn from, and no dropout, the same network soon knows them all. Predict: what happens to the
# test loss if it trains on for 150 epochs? And to the test accuracy?

# %%
few = Batches(train_images[:100], train_labels[:100], batch_size=20, shuffle=True)


def trained_on_few(callbacks=()):
    manual_seed(0)
    model = digit_model(dropout=0.0)
    few_trainer = Trainer(
        model, cross_entropy, Adam(model.parameters(), lr=1e-2), metrics={"accuracy": accuracy}, callbacks=callbacks
    )
    few_trainer.fit(few, epochs=150, validation=validation)
    return few_trainer


stopper = EarlyStopping(patience=15, restore_best=True)
stopped, carried_on = trained_on_few([stopper]), trained_on_few()
figure = plot_history(carried_on.history)
figure.axes[0].set_ylim(0, 0.8)
for axes in figure.axes:
    axes.axvline(stopper.best_epoch, color="grey", ls=":")
    axes.axvline(stopped.epoch, color="grey", ls="--")
plt.show()
print(f"stopped after epoch {stopped.epoch}, weights of {stopper.best_epoch}: {stopped.evaluate(validation)}")
print(f"after epoch {carried_on.epoch}: {carried_on.evaluate(validation)}")

# %% [markdown]
# Measured: the training loss falls to 0.0004. The test loss has its best epoch at 17 (dotted), 0.279, and rises to
# 0.351. Yet the accuracy does not fall; it even rises, from 90.6 % to 91.1 %. What grows is the conviction: the network
# becomes ever more sure of its answers, the wrong ones included, and those are what the loss counts. Early stopping
# gave up after epoch 32 (dashed) and brought back the weights of epoch 17. It stopped at the best *loss*; whoever wants
# the best accuracy monitors "val_accuracy" with mode "max".
#
# ## 11. Killed at hour seven
#
# The weights are in memory, and the power fails. A file would have saved them. Predict: what else has to be in that
# file, so that training goes on as if nothing had happened? Not about as well, but to the same bit?
#
# | what | without it |
# |---|---|
# | the weights and buffers | all is lost |
# | the optimizer's memory: momentum, Adam's averages, its step count | some hundred steps with wrong lengths |
# | the scheduler's position | the warm-up begins anew |
# | epoch, and batch within the epoch | some samples are seen twice, others never |
# | the state of the random generator | dropout throws other dice |
# | the sums of the epoch that runs, the history, the callbacks' counters | wrong curves, patience begins anew |
#
# `Trainer.state_dict` collects all that: dictionaries, lists and tuples, with numbers, text and arrays in them. How
# does such a tree get into a file?
#
# Python has an answer, `pickle`, and it is a bad one: to read a pickle is to run whatever program its author has put
# into it. So we use two formats that hold data and nothing else. Arrays go by name into an `.npz`, which is a zip file
# that NumPy reads. The tree goes into it as JSON, with the *name* of an array in each place where there was one.
#
# ```
#    {"w": array([1, 2]), "betas": (0.9, 0.99)}
#
#    JSON   {"dict": [["w", {"array": "state/w"}], ["betas", {"tuple": [0.9, 0.99]}]]}
#    .npz   state/w
# ```
#
# JSON has neither tuples nor keys that are numbers, so what stands in braces says what it was: a single entry
# `{kind: content}`. A float survives JSON: Python writes as many digits as are needed to read the same bits again.
#
# ### Exercise: `pack` and `unpack`

# %% nbgrader={"grade": false, "grade_id": "training-pack", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pack(tree: Any, arrays: dict[str, Array], path: str) -> Any:
    """``tree`` as what JSON can hold; the arrays in it are put into ``arrays``, and their names stand in their places.

    Parameters
    ----------
    tree
        None, a bool, number or text, an array, or a list, tuple or dictionary of such; keys are text or whole numbers.
    arrays
        Filled here: an array for each name.
    path
        Where ``tree`` stands in the whole, such as "state/model/0.weight"; it is the name of an array.

    Raises
    ------
    TypeError
        If there is something else in it; it names the path.

    TODO: One case for each kind of value.

    APPROACH:
    1. An array goes into `arrays` under its path, and `{"array": path}` is returned. The same for one of NumPy's
       numbers (`np.generic`), as `{"scalar": path}`, so that it keeps its dtype.
    2. A dictionary becomes `{"dict": [[key, packed value], ...]}`; the path of a value is `f"{path}/{key}"`.
    3. A tuple or list becomes `{"tuple": [...]}` or `{"list": [...]}`, with positions in the paths.
    4. None, text, bools and Python's numbers stay as they are.
    5. Anything else ends in the TypeError at the end.

    EXAMPLE:
    >>> found = {}
    >>> pack({"w": np.ones(2), "betas": (0.9, 0.99)}, found, "state"), list(found)
    ({'dict': [['w', {'array': 'state/w'}], ['betas', {'tuple': [0.9, 0.99]}]]}, ['state/w'])

    HINT: np.float64 is a kind of Python float, so ask for np.generic before you ask for float.
    """
    if isinstance(tree, np.ndarray | np.generic) and tree.dtype.kind not in "biufc":
        raise TypeError(f"checkpoint: {path} has dtype {tree.dtype}; only numbers and booleans can be saved")
    if isinstance(tree, dict) and not all(isinstance(key, str | int) for key in tree):
        raise TypeError(f"checkpoint: {path} has a key that is neither text nor a whole number")
    while path in arrays:  # {"a/b": ...} and {"a": {"b": ...}} meet here
        path += "'"
    ### BEGIN SOLUTION
    if isinstance(tree, np.ndarray | np.generic):
        arrays[path] = np.asarray(tree)
        return {"array" if isinstance(tree, np.ndarray) else "scalar": path}
    if isinstance(tree, dict):
        return {"dict": [[key, pack(held, arrays, f"{path}/{key}")] for key, held in tree.items()]}
    if isinstance(tree, tuple | list):
        items = [pack(held, arrays, f"{path}/{place}") for place, held in enumerate(tree)]
        return {"tuple" if isinstance(tree, tuple) else "list": items}
    if tree is None or isinstance(tree, str | int | float):
        return tree
    ### END SOLUTION
    raise TypeError(f"checkpoint: {path} is a {type(tree).__name__}, which cannot be saved as numbers and text")


def unpack(packed: Any, arrays: Mapping[str, Array]) -> Any:
    """What was packed, with the arrays back in their places.

    TODO: The reverse of each case.

    APPROACH:
    1. Whatever is no dictionary stands for itself.
    2. A dictionary has a single entry: `kind, content = next(iter(packed.items()))`.
    3. "array" and "scalar": look the name up. `array[()]` makes a NumPy number of an array of shape ().
    4. "dict", "tuple" and "list": unpack every value in it.

    EXAMPLE:
    >>> unpack({"tuple": [1, {"array": "w"}]}, {"w": np.ones(2)})
    (1, array([1., 1.]))

    HINT: An empty list stays an empty list, and an empty tuple an empty tuple.
    """
    ### BEGIN SOLUTION
    if not isinstance(packed, dict):
        return packed
    kind, content = next(iter(packed.items()))
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "dict":
        return {key: unpack(held, arrays) for key, held in content}
    items = [unpack(held, arrays) for held in content]
    return tuple(items) if kind == "tuple" else items
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "training-through-json", "locked": true, "schema_version": 3, "solution": false, "task": false}
def through_json(tree):
    """The tree after pack, JSON text and unpack; the packed form; and the names of the arrays."""
    arrays = {}
    packed = pack(tree, arrays, "state")
    return unpack(json.loads(json.dumps(packed)), arrays), packed, sorted(arrays)

# %% nbgrader={"grade": true, "grade_id": "test-training-pack", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def difference(got, want, path="state"):
    """Where and how got differs from want; empty if it is the same, types and bits included."""
    if type(got) is not type(want):
        return f"{path}: expected {type(want).__name__}, got {type(got).__name__}"
    if isinstance(want, np.ndarray | np.generic):
        same = got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()
        return "" if same else f"{path}: expected {want!r}, got {got!r}"
    if isinstance(want, dict):
        if list(got) != list(want):
            return f"{path}: expected the keys {list(want)}, got {list(got)}"
        return next(filter(None, (difference(got[key], want[key], f"{path}/{key}") for key in want)), "")
    if isinstance(want, tuple | list):
        if len(got) != len(want):
            return f"{path}: expected {len(want)} items, got {len(got)}"
        places = range(len(want))
        return next(filter(None, (difference(got[place], want[place], f"{path}/{place}") for place in places)), "")
    return "" if got == want or (got != got and want != want) else f"{path}: expected {want!r}, got {got!r}"


def test_pack():
    numbers = {"none": None, "yes": True, "whole": 10**30, "float": 0.1, "text": "ä", "nan": math.nan, "inf": -math.inf}
    kinds = {"list": [1, [2, []]], "tuple": (1, (2, ())), "dict": {}, 3: {0: "zero", "0": "text"}}
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"w": table, "n": np.array(3), "b": np.array([True]), "e": np.ones(0)}
    scalars = {"s": np.float32(0.1), "d": np.float64(0.1), "i": np.int64(7)}
    for name, tree in {"numbers": numbers, "kinds": kinds, "arrays": arrays, "NumPy's numbers": scalars}.items():
        wrong = difference(through_json(tree)[0], tree)
        assert not wrong, f"{name}: after pack, JSON and unpack, {wrong}"
    tree = {"model": {"0.weight": table}, "betas": (0.9, [np.float32(2.0)])}
    _, packed, names = through_json(tree)
    assert names == ["state/betas/1/0", "state/model/0.weight"], f"names are paths; got {names}"
    assert packed == {
        "dict": [
            ["model", {"dict": [["0.weight", {"array": "state/model/0.weight"}]]}],
            ["betas", {"tuple": [0.9, {"list": [{"scalar": "state/betas/1/0"}]}]}],
        ]
    }, f"not what the text shows: {packed}"
    twins = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}}
    assert not difference(through_json(twins)[0], twins), "two arrays on one path keep two names"
    for bad, where in [
        ({"f": [1, print]}, "state/f/1"),
        ({"o": np.array([None])}, "state/o"),
        ({"s": {1, 2}}, "state/s"),
        ({"k": {(1, 2): 3}}, "state/k"),
        ({"c": 1j}, "state/c"),
    ]:
        with raises(TypeError, where, why="name the path of what cannot be saved"):
            pack(bad, {}, "state")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()

    def grown(depth):
        leaves = [None, float(dice.normal()), dice.normal(size=(2, 1)), int(dice.integers(9)), "x", np.float32(0.1)]
        if depth == 0:
            return leaves[int(dice.integers(len(leaves)))]
        below = [grown(depth - 1) for _ in range(4)]
        return [below, tuple(below), dict(zip(("a", 1, "c", 0), below, strict=True))][int(dice.integers(3))]

    for _ in range(20):
        wild = {"tree": grown(3)}
        told = difference(through_json(wild)[0], wild)
        assert not told, told
    ### END HIDDEN TESTS


test_pack()

# %% [markdown]
# ### Never half a file
#
# A checkpoint is written while training runs, so it is written at the very time at which the program may be killed. If
# that happens half-way through, the new file is half, and the old one was overwritten. Module 01 knows the way out:
# write beside, then rename, and whoever reads meets the old file or the new one, whole.
#
# Reading needs the opposite virtue, distrust: the file may have been cut off by a full disk, may be a photograph, or
# may come from next year's version of this course. Each deserves a sentence that says so, before anything is changed.
#
# ### Exercise: `write_checkpoint` and `read_checkpoint`

# %% nbgrader={"grade": false, "grade_id": "training-checkpoint", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
FORMAT, VERSION = "tinytorch checkpoint", 1


def write_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write ``state``, a tree as for ``pack``, to one ``.npz`` file, at once or not at all.

    The arrays stand in it by name; "manifest" is JSON, as bytes: the format, its version, and the tree.

    Raises
    ------
    TypeError
        If there is something in it that cannot be saved.
    OSError
        If the file cannot be written; what was there before is still there.

    TODO: Pack, write arrays and manifest into a buffer in memory, and that to the file.

    APPROACH:
    1. `manifest` is a dictionary of "format", "version" and "state": the state, packed with the path "state".
    2. As bytes: `json.dumps(manifest).encode()`, and as an array of these: `np.frombuffer(..., np.uint8)`.
    3. `np.savez(buffer, manifest=..., **arrays)` writes into an `io.BytesIO()`, whose `getvalue()` is the file.
    4. `write_atomically` of module 01.

    EXAMPLE:
    >>> write_checkpoint("run.npz", {"step": 3, "w": np.ones(2)}); np.load("run.npz").files
    ['manifest', 'state/w']

    HINT: `np.savez(path)` would write into the file itself, and leave half of one if it is killed.
    """
    arrays: dict[str, Array] = {}
    ### BEGIN SOLUTION
    manifest = {"format": FORMAT, "version": VERSION, "state": pack(state, arrays, "state")}
    as_bytes = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    whole_file = io.BytesIO()
    np.savez(whole_file, manifest=as_bytes, **arrays)  # type: ignore[arg-type]
    write_atomically(path, whole_file.getvalue())
    ### END SOLUTION


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state in a file that ``write_checkpoint`` wrote. Nothing in the file is run.

    Raises
    ------
    OSError
        If the file cannot be read; FileNotFoundError if there is none.
    ValueError
        If it is broken, no checkpoint, or of another version.

    TODO: Fill in the blank within `try`: manifest and arrays.

    APPROACH:
    1. `manifest` is `file["manifest"]` as text (`.tobytes()`), read by `json.loads`.
    2. `arrays` holds all the others by name; `file.files` lists the names.

    EXAMPLE:
    >>> read_checkpoint("run.npz")
    {'step': 3, 'w': array([1., 1.])}

    HINT: The file is closed at the end of `with`, so read every array within it: `file[name]` does.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ### BEGIN SOLUTION
            manifest = json.loads(file["manifest"].tobytes())
            arrays = {name: file[name] for name in file.files if name != "manifest"}
            ### END SOLUTION
        if manifest["format"] == FORMAT and manifest["version"] == VERSION:
            return unpack(manifest["state"], arrays)
    except OSError:
        raise
    except Exception as error:  # a file that is not ours can be wrong in every way
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"read_checkpoint: {os.fspath(path)} is broken, or is no checkpoint ({problem})") from error
    kind = f"{manifest['format']!r}, version {manifest['version']}"
    raise ValueError(f"read_checkpoint: {os.fspath(path)} is {kind}; this program reads {FORMAT!r}, version {VERSION}")


def save_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Write all that ``trainer`` needs to go on from here to one file; see ``write_checkpoint`` for the errors."""
    write_checkpoint(path, trainer.state_dict())


def load_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Let ``trainer`` go on where the one stood that was saved to ``path``.

    Model, optimizer, scheduler and callbacks must be made as they were then. For the weights alone, and another
    optimizer: ``model.load_state_dict(read_checkpoint(path)["model"])``.

    Raises
    ------
    OSError, ValueError
        As ``read_checkpoint``; ValueError as well if the state does not fit the trainer. Nothing has changed then.
    """
    state = read_checkpoint(path)
    try:
        trainer.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"load_checkpoint: {os.fspath(path)}: {error}") from error

# %% [markdown]
# A callback saves while training runs. It only decides when; the trainer writes after all callbacks are done.

# %%
#| export
class Checkpoint(Callback):
    """Writes a checkpoint to ``path``, over the one before, while training runs.

    Parameters
    ----------
    path
        Where to; the folder must be there.
    every_epochs
        After how many epochs; None for not at the ends of epochs.
    every_steps
        After how many optimizer steps, also in the middle of an epoch; None for not then.
    monitor, mode
        If given, a name of the history, such as "val_loss", and whether it shall be small ("min") or large ("max"): at
        the end of an epoch the file is then only written if the epoch is the best so far.

    Raises
    ------
    ValueError
        If a number is less than 1, or nothing is ever to be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        if every_epochs is None and every_steps is None:
            raise ValueError("Checkpoint: every_epochs and every_steps are both None, so nothing would be written")
        for name, number in (("every_epochs", every_epochs), ("every_steps", every_steps)):
            if number is not None and number < 1:
                raise ValueError(f"Checkpoint: {name} should be at least 1, got {number}")
        self.path, self.every_epochs, self.every_steps = path, every_epochs, every_steps
        self.monitor, self.mode = monitor, checked_mode("Checkpoint", mode)
        self.best: float | None = None
        self.saved = () if monitor is None else ("best",)

    def on_batch_end(self, trainer: Trainer) -> None:
        """Ask for a file if it is time."""
        if self.every_steps is not None and trainer.step % self.every_steps == 0:
            trainer.save_after_hooks(self.path)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Ask for a file if it is time, and if the epoch is good enough."""
        if self.every_epochs is None or trainer.epoch % self.every_epochs:
            return
        if self.monitor is not None:
            value = latest(trainer.history, self.monitor)
            if not improved(value, self.best, self.mode):
                return
            self.best = value
        trainer.save_after_hooks(self.path)

# %% [markdown]
# For the test, a power cut: a callback that ends training with an error after a given step. And a few functions that
# look into files, and spoil them.

# %% nbgrader={"grade": false, "grade_id": "training-power-cut", "locked": true, "schema_version": 3, "solution": false, "task": false}
class PowerCut(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise ConnectionError("the power failed")


def names_in(path):
    with np.load(path, allow_pickle=False) as file:
        return file.files


def bytes_of(path):
    with open(path, "rb") as file:
        return file.read()


def overwrite(path, content):
    with open(path, "wb") as file:
        file.write(content)


def written(path, manifest, **arrays):
    np.savez(path, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)

# %% nbgrader={"grade": true, "grade_id": "test-training-checkpoint", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def training_run(path, callbacks=(), width=5, saving=True):
    """A trainer with everything that has a state: dropout, Adam, a scheduler, callbacks; and its data."""
    manual_seed(7)
    net = Sequential(Linear(3, width), ReLU(), Dropout(0.3), Linear(width, 2))
    adam = Adam(net.parameters(), lr=0.05)
    rates = CosineWarmupLR(adam, warmup_steps=5, total_steps=30)
    savers = [Checkpoint(path, every_steps=3)] if saving else []
    trainer = Trainer(
        net, mse_loss, adam, scheduler=rates, accumulate=2, callbacks=[*savers, EarlyStopping(patience=50), *callbacks]
    )
    x = np.random.default_rng(3).normal(size=(41, 3))
    return trainer, Batches(x, x[:, :2], batch_size=4, shuffle=True), Batches(x, x[:, :2], batch_size=10)


def test_checkpoint():
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "run.npz")
        state = {"step": 3, "w": np.arange(4, dtype=np.float32), "groups": [{"betas": (0.9, 0.99)}]}
        write_checkpoint(path, state)
        names = sorted(names_in(path))
        assert names == ["manifest", "state/w"], f"expected manifest and state/w in the file, got {names}"
        wrong = difference(read_checkpoint(path), state)
        assert not wrong, f"after writing and reading, {wrong}"
        whole = bytes_of(path)
        with raises(TypeError, "state/f"):
            write_checkpoint(path, {"f": print})
        assert bytes_of(path) == whole, "a state that cannot be saved leaves the old file as it was"
        spoiled = {"cut off": whole[: len(whole) // 2], "empty": b"", "a text": b"Dear diary, today"}
        for name, content in spoiled.items():
            overwrite(path, content)
            with raises(ValueError, "run.npz", "broken", why=f"the file is {name}"):
                read_checkpoint(path)
        written(path, {"format": "tinytorch checkpoint", "version": 9, "state": 0})
        with raises(ValueError, "version 9", "version 1"):
            read_checkpoint(path)
        with raises(FileNotFoundError):
            read_checkpoint(path + "-that-is-not-there")

        trainer, loader, check = training_run(path, saving=False)
        smooth = trainer.fit(loader, epochs=5, validation=check)
        for stop in (8, 12):
            killed, loader, check = training_run(path, [PowerCut(stop)])
            with raises(ConnectionError, "power"):
                killed.fit(loader, epochs=5, validation=check)
            resumed, loader, check = training_run(path)
            resumed.resume(path)
            told = (resumed.epoch, resumed.batch, resumed.step)
            assert told == {8: (1, 0, 6), 12: (1, 6, 9)}[stop], f"killed in step {stop}, resumed at {told}"
            resumed.fit(loader, epochs=5, validation=check)
            for name, parameter in resumed.model.named_parameters():
                alone = dict(trainer.model.named_parameters())[name]
                close(parameter.data, alone.data, rtol=0, atol=0, what=name, why="resumed, to the same bit")
            for name, numbers in smooth.items():
                close(resumed.history[name], numbers, rtol=0, atol=0, what=name, why="the same history")
        other, loader, check = training_run(path, width=6)
        before = [parameter.data.copy() for parameter in other.model.parameters()]
        with raises(ValueError, "run.npz", "0.weight", "(6, 3)", "(5, 3)"):
            other.resume(path)
        for parameter, old in zip(other.model.parameters(), before, strict=True):
            close(parameter.data, old, rtol=0, atol=0, why="a checkpoint that does not fit changes nothing")
        ### BEGIN HIDDEN TESTS
        drawn = {"x": np.random.default_rng().normal(size=(3, 2)), "y": [float(np.random.default_rng().normal())]}
        write_checkpoint(path, drawn)
        assert not difference(read_checkpoint(path), drawn)
        assert sorted(name.name for name in Path(folder).iterdir()) == ["run.npz"], "nothing else is left in the folder"
        written(path, {"format": "another", "version": 1, "state": 0})
        with raises(ValueError, "'another'"):
            read_checkpoint(path)
        np.random.default_rng().normal()
        ### END HIDDEN TESTS


test_checkpoint()

# %% [markdown]
# Now watch what each part of the state is worth. Four programs train the digits: one is never interrupted, three are
# killed in the fifth epoch and started again. One resumes from the whole checkpoint, one from all of it but Adam's
# memory, and one loads the weights alone; all else begins anew.
#
# Predict: which of them ends with the lowest loss?

# %%
import tempfile
from contextlib import suppress
from pathlib import Path


class TestLoss(Callback):
    """Notes the test loss after every other step, and cuts the power after one of them."""

    def __init__(self, cut_after=0):
        self.losses, self.cut_after = [], cut_after

    def on_batch_end(self, trainer):
        if trainer.step % 2 == 0:
            self.losses.append(trainer.evaluate(validation)["loss"])
        if trainer.step == self.cut_after:
            raise ConnectionError("the power failed")


def digit_run(recover=None, cut_after=0, savers=(), epochs=8):
    watch = TestLoss(cut_after)
    run = digit_trainer([*savers, watch], epochs=8)
    if recover is not None:
        recover(run)
    with suppress(ConnectionError):
        run.fit(loader, epochs)
    return run, watch.losses


smooth, smooth_losses = digit_run()
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "run.npz"
    digit_run(savers=[Checkpoint(path, every_steps=10)], cut_after=95)
    size, state = path.stat().st_size, read_checkpoint(path)

recoveries = {
    "whole checkpoint": lambda run: run.load_state_dict(state),
    "without Adam's memory": lambda run: run.load_state_dict(
        {**state, "optimizer": {**state["optimizer"], "state": {}}}
    ),
    "weights alone": lambda run: run.model.load_state_dict(state["model"]),
}
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(range(2, 2 * len(smooth_losses) + 1, 2), smooth_losses, "k", lw=4, alpha=0.25, label="never interrupted")
resumed_at = state["counters"]["step"]
for label, recover in recoveries.items():
    run, losses = digit_run(recover, epochs=4 if label == "weights alone" else 8)
    ours, theirs = run.model.state_dict(), smooth.model.state_dict()
    same = all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    axes.plot(range(resumed_at + 2, resumed_at + 2 * len(losses) + 1, 2), losses, lw=1.2, label=label)
    print(f"{label:22} final test loss {losses[-1]:.4f}, the same weights: {same}")
axes.axvline(resumed_at, color="grey", ls=":")
axes.set_xlim(60, 8 * len(loader))
axes.set_ylim(0.1, 0.32)
axes.set_xlabel("step")
axes.set_ylabel("test loss")
axes.set_title(f"Killed in step 95, resumed from what was saved in step {resumed_at}")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
weights_kb = sum(array.nbytes for array in state["model"].values()) / 1e3
print(f"the file has {size / 1e3:.0f} kB, {weights_kb:.0f} of them weights")

# %% [markdown]
# The whole checkpoint goes on exactly: the blue line lies on the grey one, and the weights are the same to the last bit.
# The other two are other trainings. They are not even worse; here the warm-up that began anew ended at a lower loss,
# 0.114 against 0.187. That is what makes such a bug hard to see: no error, a good result, and an experiment that is not
# the one described.
#
# The file holds three times the weights, since Adam keeps two numbers for each of them. And what is in it can be read
# anywhere: `np.load("run.npz")["state/model/0.weight"]` is all that it takes.
#
# ## 12. What does the trainer cost?
#
# All these services stand around a step that takes a millisecond or two. Predict: by how much is `trainer.train_step`
# slower than the five lines of the beginning, for a network 784 → 128 → 64 → 10 and batches of 64?

# %%
def mlp():
    manual_seed(0)
    return Sequential(Linear(784, 128), ReLU(), Linear(128, 64), ReLU(), Linear(64, 10))


rng = np.random.default_rng(0)
inputs, targets = Tensor(rng.random((64, 784))), Tensor(rng.integers(0, 10, size=64))
bare = mlp()
bare_optimizer = Adam(bare.parameters())
kept = mlp()
stepper = Trainer(kept, cross_entropy, Adam(kept.parameters()))


def by_hand():
    bare_optimizer.zero_grad()
    loss = cross_entropy(bare(inputs), targets)
    loss.backward()
    bare_optimizer.step()
    return loss.item()


def by_trainer():
    stepper.train_step([(inputs, targets)])


times = {by_hand: [], by_trainer: []}
for _ in range(200):
    for step, seconds in times.items():
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
hand_s, trainer_s = (float(np.median(seconds)) for seconds in times.values())
print(f"by hand {hand_s * 1e3:.3f} ms, by the trainer {trainer_s * 1e3:.3f} ms: {trainer_s / hand_s:.3f} times as long")

# %% [markdown]
# Measured in five runs of 600 steps each, taken in turn: 1.006 to 1.026 times as long. The trainer calls a few Python
# functions for each step, and adds two numbers; that is some ten microseconds beside a millisecond of arithmetic.
# Metrics cost what they cost, and a progress line is written ten times a second, not at every step.
#
# ## What you have built
#
# `Batches`, whose order follows from seed and epoch; `Average`, `accuracy`, `top_k_accuracy`, `confusion_matrix`,
# `precision_recall_f1`; `evaluating`; `accumulate_gradients`; `first_not_finite`; `Callback`, `EarlyStopping`,
# `ProgressBar`, `Checkpoint`; `Trainer` with `fit`, `evaluate`, `predict` and `resume`; `write_checkpoint` and
# `read_checkpoint`. This ends the first part of the course: with the eight modules one can train real networks, and the
# milestones do.
#
# In the terminal: `tito module complete 08`, then `tito milestone list`. Next comes Part II, and pictures larger than 8
# x 8.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "training-reflect-resume-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Not quite the same.** A colleague's run was killed in the middle of epoch 40 and resumed. The final weights differ
# from those of a second run that was never killed, though model, optimizer, scheduler and epoch were saved. Name three
# causes that this module knows, and for each say how you would find out. Does it matter for the accuracy? When does it
# matter all the same?
#
# === BEGIN MARK SCHEME ===
# 3 points: three different causes (state of the random generator, order of the samples, place within the epoch,
# gradients of a half group, buffers, float sums in another order), each with a check. 1 point: the accuracy is within
# the noise of seeds, but comparing experiments, finding bugs or publishing needs equality.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "training-reflect-resume", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Dropout draws other masks if the state of the generator was not saved: train without dropout and compare. The order of
# the samples changes if the loader shuffles with a generator that begins anew: print the first labels of the next batch
# in both runs. The resumed epoch begins at its first batch, so some samples count twice: count the optimizer steps. For
# the accuracy it hardly matters; two seeds differ by more. It matters if one wants to know whether a change of the
# program changed the result, or to look again at what happened in step 51,310.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "training-reflect-cost-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **How often to save?** A model of 1 billion float32 parameters trains with Adam; a step takes 2 seconds, and the disk
# writes 500 MB a second. How large is a checkpoint? You save every n steps, and the machine is killed once a day on
# average, at any time. Which n loses least, saving and repeating together? What would you change in this module's way
# of saving for such a model?
#
# === BEGIN MARK SCHEME ===
# 1 point: 12 GB, about 24 s. 2 points: overhead 24/(2n) of the time against n seconds lost a day on average, so n
# near 1,000 (any sound derivation from 500 to 2,000). 1 point: a sensible change (no copy in memory, a thread, pieces,
# several files with a manifest last).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "training-reflect-cost", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Weights 4 GB and Adam's two averages 8 GB: 12 GB, 24 s a file. Saving every n steps, there are 43,200 / n files a day,
# about 1,040,000 / n seconds. Being killed costs half an interval on average, n steps of 2 s, halved: n seconds. The
# sum is smallest where both are equal, n = 1,020 steps, about every half hour, and costs 2,000 s, 2 % of a day. This
# module copies the state, then writes a zip file in memory, then takes its bytes: three times 12 GB. I would copy once
# and let a thread write array by array to a file beside, renaming it last.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "training-reflect-stopping-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **What did the validation data see?** Early stopping looks at the validation loss after each of 100 epochs and keeps
# the best. A report then quotes the accuracy of this very epoch on this very data. What is wrong with the number, in
# which direction, and on what does the size of the error depend? How should the data have been divided? Is the training
# loss of an epoch, as our history has it, comparable with its validation loss?
#
# === BEGIN MARK SCHEME ===
# 2 points: the best of many looks is too good by chance, more for small sets and many looks. 1 point: a third,
# untouched set. 1 point: no: dropout, and weights that change during the epoch.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "training-reflect-stopping", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The epoch was chosen because it did well on these data, so part of what it did well was luck, and the number is too
# high. The fewer samples and the more epochs, seeds and settings were tried, the more. One needs three parts: to train,
# to choose, and one that is looked at once, for the report. The two losses are not comparable: that of training is
# taken with dropout on, and is a mean over an epoch in which the weights were worse at its beginning.
# ### END SOLUTION
