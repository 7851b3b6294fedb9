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
# # DataLoader
#
# > Data: samples by number, batches in an order that can be repeated, augmented whole and read ahead by a thread.
#
# Between the file with 50,000 photographs and the network stands a part that nobody puts into the diagram. It picks
# 128 of them in a new order each epoch, shifts and mirrors them at random, makes small floats of their bytes, and has
# the next batch ready before the network has finished with this one. Written carelessly, it takes longer than the
# training does. Written a little wrong, it trains on data that nobody chose, and no error is ever shown.
#
# ```
#    Dataset             DataLoader                                           the training loop
#    sample 0            order: 3 0 5 | 1 4 2     (from seed and epoch)
#    sample 1   ------>  fetch  3 0 5 --> transform --> Tensors  --->  for inputs, targets in loader:
#    ...                        a thread reads ahead: | 1 4 2 |
# ```
#
# Plan for about five hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.dataloader
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index as whole
from queue import Queue
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinytorch.core.tensor import Array, as_array, default_generator, from_numpy

# %%
import time

import matplotlib.pyplot as plt

from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import cross_entropy
from tinytorch.core.setup import measure, peak_memory
from tinytorch.core.tensor import Tensor, manual_seed

# %% [markdown]
# ## 1. What it costs to do it image by image
#
# Pictures as in CIFAR-10: 3 colours, 32 x 32, one byte each. Ours are drawn: the letter F on a coloured ground, since
# with an F you see at once whether it was mirrored.

# %%
def letters(count, rng):
    """Pictures of the letter F, uint8 of shape (count, 3, 32, 32)."""
    shade = np.linspace(0.4, 1, 32)
    pictures = np.empty((count, 3, 32, 32), np.uint8)
    pictures[:] = rng.integers(40, 200, (count, 3, 1, 1)) * shade
    ink = rng.integers(200, 256, (count, 3, 1, 1))
    for rows, columns in [((6, 26), (10, 14)), ((6, 10), (10, 24)), ((14, 18), (10, 20))]:
        pictures[:, :, slice(*rows), slice(*columns)] = ink
    return pictures


MEAN, STD = np.array([0.49, 0.48, 0.45]), np.array([0.25, 0.24, 0.26])
rng = np.random.default_rng(0)
pictures, classes = letters(5000, rng), rng.integers(0, 10, 5000)
pictures.shape, pictures.dtype, f"{pictures.nbytes / 1e6:.1f} MB"

# %% [markdown]
# The usual recipe for such pictures: pad with 4 black pixels all around, cut out 32 x 32 at a random place, mirror
# every other picture, then subtract the mean of each colour and divide by its deviation. The usual program does this
# picture by picture, when a picture is asked for.
#
# Predict: which takes longer for 128 pictures, to prepare them like this, or to train a network with a hidden layer of
# 128 on them?

# %%
def prepare_one(image, rng):
    image = np.pad(image / 255, ((0, 0), (4, 4), (4, 4)))
    top, left = rng.integers(0, 9, size=2)
    image = image[:, top : top + 32, left : left + 32]
    if rng.random() < 0.5:
        image = image[:, :, ::-1]
    return (image - MEAN[:, None, None]) / STD[:, None, None]


def prepare_one_by_one(images, rng):
    return np.stack([prepare_one(image, rng) for image in images]).astype(np.float32)


manual_seed(0)
network = Sequential(Linear(3072, 128), lambda x: x.maximum(0), Linear(128, 10))


def train_on(images, labels):
    network.zero_grad()
    cross_entropy(network(Tensor(images.reshape(len(images), -1))), labels).backward()


naive = measure(prepare_one_by_one, pictures[:128], rng, repeats=3)
step = measure(train_on, naive.result, classes[:128], repeats=3)
print(f"prepare 128 pictures: {naive.median_s * 1e3:5.1f} ms, {128 / naive.median_s:,.0f} pictures a second")
print(f"forward and backward: {step.median_s * 1e3:5.1f} ms")

# %% [markdown]
# On the machine this was written on (NumPy 2.4, one thread, other programs at work): 12 ms to prepare and 8 ms to train,
# and in all of several runs 1.2 to 2.5 times as long to prepare as to train. More than half of the time the network
# would wait. The goal of this module: at least 20,000 prepared pictures a second, and none of that time in the way of
# the training.
#
# ## 2. Samples by number
#
# What do a folder of files, a table and an array have in common? One can ask how many samples there are, and for
# sample number i. That is all that a **dataset** promises: `len(dataset)` and `dataset[i]`. A sample is an array, a
# number, or a tuple of such, most often `(input, target)`.
#
# The base class adds one thing to PyTorch's. A dataset that can answer for *many numbers at once* says so by
# `batched = True`: then `dataset[array_of_numbers]` gives the whole batch, `(inputs, targets)` with a row for each
# number, and the loader asks once a batch instead of once a sample.

# %%
#| export
class Dataset:
    """Samples that are asked for by number: a subclass defines ``__len__`` and ``__getitem__``.

    ``dataset[i]`` gives sample i: an array, a number, or a tuple of such. It raises IndexError outside of its range.

    Attributes
    ----------
    batched
        Whether ``dataset[numbers]``, with an int64 array, gives the samples of all those numbers at once: arrays of its
        own with a row for each number, in the form of a sample. The loader then asks once for a batch.
    """

    batched: bool = False

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")


def in_range(owner: str, index: Any, count: int) -> Any:
    """``index``, a number, a slice or a list of numbers, as NumPy takes it; negative ones count from the end.

    Raises
    ------
    IndexError
        If a number lies outside of -count ... count - 1; it names ``owner`` and the number.
    TypeError
        If they are no whole numbers.
    """
    if isinstance(index, slice):
        return index
    numbers = np.asarray(index)
    if numbers.size > 0 and numbers.dtype.kind not in "iu":
        raise TypeError(f"{owner}: an index should be a whole number or a list of them, got {index!r}")
    numbers = numbers.astype(np.int64)
    outside = (numbers < -count) | (numbers >= count)
    if outside.any():
        raise IndexError(f"{owner}: index {numbers[outside][0]} is out of range for {count} samples")
    return numbers

# %% [markdown]
# ### Exercise: `TensorDataset`
#
# The dataset for all that is an array already. It must hold *the arrays themselves*: one that stays in a file of 100 GB
# (section 10) would not survive a copy.

# %% nbgrader={"grade": false, "grade_id": "dataloader-tensor-dataset", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TensorDataset(Dataset):
    """Arrays of equal length as a dataset: sample i is the tuple of their rows i.

    Parameters
    ----------
    arrays
        Arrays, Tensors or lists, each with a row for every sample. Arrays are not copied, so one that is mapped from a
        file (``numpy.load(path, mmap_mode="r")``) stays there, and only the rows that are asked for are read.

    ``dataset[i]`` gives NumPy values, and an array of numbers or a slice gives many rows at once. The loader makes
    Tensors, once for a batch.

    Raises
    ------
    ValueError
        If there is no array, or if their lengths differ; it names the lengths.
    IndexError
        If an index is out of range; it names it.

    TODO: Fill in the two blanks: keep the arrays, and give rows of each.

    APPROACH:
    1. `__init__`: `self.arrays`, a tuple of `np.asarray(...)` of each. It makes arrays of lists and Tensors, and does not
       copy what is an array.
    2. The list of their lengths. If these are not all equal, or if there are none, raise ValueError
       `f"TensorDataset: the arrays must have the same length, got {lengths}"`.
    3. `__getitem__`: `in_range("TensorDataset", index, len(self))` checks the index. Return a tuple with those rows of
       each.

    EXAMPLE:
    >>> dataset = TensorDataset([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [7, 8, 9])
    >>> dataset[[0, 2]]
    (array([[1., 2.],
           [5., 6.]]), array([7, 9]))

    HINT: NumPy gives many rows at once by itself: `array[numbers]`. No loop over samples is needed anywhere.
    """

    batched = True

    def __init__(self, *arrays: Any) -> None:
        ### BEGIN SOLUTION
        self.arrays = tuple(np.asarray(given) for given in arrays)
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) != 1:
            raise ValueError(f"TensorDataset: the arrays must have the same length, got {lengths}")
        ### END SOLUTION

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        ### BEGIN SOLUTION
        rows = in_range("TensorDataset", index, len(self))
        return tuple(array[rows] for array in self.arrays)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-tensor-dataset", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_tensor_dataset():
    x, y = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([3, 2, 1, 0])
    dataset = TensorDataset(x, y)
    sample = dataset[1]
    assert type(sample) is tuple and len(sample) == 2, f"a sample of two arrays is a tuple of two, got {sample!r}"
    close(sample[0], [2, 3], dtype=np.float32, what="dataset[1][0]", why="row 1 of the first array")
    close(sample[1], 2, what="dataset[1][1]", why="row 1 of the second array")
    assert len(dataset) == 4, "it holds as many samples as the arrays have rows"
    close(dataset[-1][1], 0, why="-1 is the last sample")
    for numbers in ([2, 0, 2], np.array([2, 0, 2])):
        inputs, targets = dataset[numbers]
        close(inputs, [[4, 5], [0, 1], [4, 5]], what="inputs", why="a row for each number, in their order")
        close(targets, [1, 3, 1], what="targets")
    close(dataset[1:3][1], [2, 1], why="a slice gives rows, too")
    close(dataset[[]][0], np.zeros((0, 2)), why="no numbers, no rows")
    for given in (Tensor(x), x.tolist()):
        close(TensorDataset(given)[[3, 0]][0], [[6, 7], [0, 1]], why="Tensors and lists become arrays")
    for wrong in (4, -5, [0, 7]):
        with raises(IndexError, "TensorDataset", str(wrong if type(wrong) is int else 7), "4 samples"):
            dataset[wrong]
    for arrays in ([x, y[:3]], [y, y, x[1:]], []):
        with raises(ValueError, "same length", str([len(array) for array in arrays])):
            TensorDataset(*arrays)
    x[0] = 50
    close(dataset[0][0], [50, 50], why="hold the array itself, not a copy: it may be a file of 100 GB")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng()
    parts = [drawn.normal(size=(6, *rest)) for rest in [(), (2,), (3, 1, 2)]]
    wanted_rows = drawn.integers(-6, 6, size=9)
    for got, part in zip(TensorDataset(*parts)[wanted_rows], parts, strict=True):
        close(got, part[wanted_rows], dtype=np.float64)
    bytes_held = TensorDataset(drawn.integers(0, 255, size=5).astype(np.uint8))
    assert bytes_held[2:][0].dtype == np.uint8, "a dataset does not change dtypes"
    ### END HIDDEN TESTS


test_tensor_dataset()

# %% [markdown]
# ## 3. Some of the samples
#
# A part of a dataset is a dataset and a list of numbers: number i of the part is number `indices[i]` of the whole.
# Nothing is copied. And a part of a part is a part, so this composes.
#
# ### Exercise: `Subset`

# %% nbgrader={"grade": false, "grade_id": "dataloader-subset", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Subset(Dataset):
    """The samples of ``dataset`` whose numbers are ``indices``, in that order; nothing is copied.

    It is ``batched`` if the dataset is.

    Raises
    ------
    IndexError
        If one of ``indices`` is out of the dataset's range, or an index out of the subset's; it names it.

    TODO: Fill in the blank of `__getitem__`.

    APPROACH:
    1. `in_range("Subset", index, len(self))` checks the index against the length of the *subset*.
    2. `self.indices[...]` translates it, whether it is one number, many or a slice.
    3. Ask the dataset for what comes out.

    EXAMPLE:
    >>> Subset(["a", "b", "c", "d"], [3, 1])[0]
    'd'

    HINT: One expression serves one number and many: it is the dataset that knows what it can answer.
    """

    def __init__(self, dataset: Any, indices: Any) -> None:
        self.dataset = dataset
        self.indices: Array = in_range("Subset", indices, len(dataset))
        self.batched = getattr(dataset, "batched", False)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        ### BEGIN SOLUTION
        return self.dataset[self.indices[in_range("Subset", index, len(self))]]
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-subset", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_subset():
    part = Subset(["a", "b", "c", "d"], [3, 1])
    letters_found = [part[0], part[1], part[-1]]
    assert letters_found == ["d", "b", "b"], f"expected 'd', 'b', 'b' for 0, 1, -1; got {letters_found}"
    assert len(part) == 2 and part.batched is False, "a list answers one number at a time"
    for wrong in (2, -3):
        with raises(IndexError, "Subset", str(wrong), "2 samples", why="compare with the subset's length, not the whole's"):
            part[wrong]
    with raises(IndexError, "4"):
        Subset(["a", "b", "c", "d"], [0, 4])
    squares = TensorDataset(np.arange(10), np.arange(10) ** 2)
    odd = Subset(squares, np.arange(1, 10, 2))
    assert odd.batched is True, "a subset of a batched dataset is batched"
    numbers, seconds = odd[np.array([4, 0])]
    close(numbers, [9, 1], why="numbers 4 and 0 of the subset are 9 and 1 of the whole")
    close(seconds, [81, 1])
    inner = Subset(odd, [3, 2])
    close(inner[0][0], 7, why="a subset of a subset translates twice")
    close(inner[:][1], [49, 25])
    ### BEGIN HIDDEN TESTS
    shuffled = np.random.default_rng().permutation(50)
    chosen = shuffled[:20]
    held = Subset(TensorDataset(np.arange(50) * 3), chosen)
    close(held[5:9][0], chosen[5:9] * 3)
    close([int(held[place][0]) for place in range(20)], chosen * 3)
    ### END HIDDEN TESTS


test_subset()

# %% [markdown]
# ### Lengths that add up
#
# To judge a network, keep a part of the data away from it: 71 % to train on, 29 % to judge by, drawn at random. Of 100
# samples, that is 71 and 29. Here is how the shares are usually worked out: multiply, cut off what follows the point,
# and hand out what is missing, beginning with the first. Predict the two lengths.

# %%
shares = [0.71, 0.29]
cut = [math.floor(100 * share) for share in shares]
for place in range(100 - sum(cut)):
    cut[place] += 1
cut

# %% [markdown]
# 72 and 28: `100 * 0.29` is 28.999999999999996 in floats, so 29 became 28, and the sample that was missing went to the
# wrong part. (PyTorch 2.13's `random_split` gives these two lengths, too.) One sample more or less does no harm; two
# programs that disagree about which samples are test samples do.
#
# The fair rule is that of a parliament: seats by the whole part first, and what is left to the **largest remainders**.
#
# ### Exercise: `split_lengths` and `random_split`

# %% nbgrader={"grade": false, "grade_id": "dataloader-split", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def split_lengths(count: int, lengths: Sequence[float]) -> list[int]:
    """How many of ``count`` samples each part gets.

    Parameters
    ----------
    lengths
        Whole numbers that add up to ``count``; or fractions that add up to 1. Of these each part gets the whole part
        of count times fraction, and those with the largest remainders one more, the earlier one if they are equal.

    Raises
    ------
    ValueError
        If the lengths do not add up to ``count``, the fractions not to 1, or one of them is negative.

    TODO: The case of whole numbers is given. Write that of fractions.

    APPROACH:
    1. If one is negative or their sum is not 1 (`math.isclose`), raise ValueError
       `f"random_split: fractions {lengths} add up to {sum(lengths)}, not to 1"`.
    2. `exact`, count times each fraction; `parts`, the whole part of each, by `int`.
    3. The positions, sorted by remainder, the largest first. As many of them as samples are missing get one more.

    EXAMPLE:
    >>> split_lengths(100, [0.71, 0.29]), split_lengths(10, [0.33, 0.33, 0.34])
    ([71, 29], [3, 3, 4])

    HINT: `sorted(range(n), key=...)` sorts positions, the smallest key first, and leaves equal ones in their order: so
    the key is the remainder with a minus sign.
    """
    if all(isinstance(length, int | np.integer) for length in lengths):
        if min(lengths, default=0) < 0 or sum(lengths) != count:
            raise ValueError(f"random_split: lengths {lengths} do not make up {count} samples")
        return [int(length) for length in lengths]
    ### BEGIN SOLUTION
    if min(lengths) < 0 or not math.isclose(sum(lengths), 1):
        raise ValueError(f"random_split: fractions {lengths} add up to {sum(lengths)}, not to 1")
    exact = [count * fraction for fraction in lengths]
    parts = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: parts[place] - exact[place])
    for place in by_remainder[: count - sum(parts)]:
        parts[place] += 1
    return parts
    ### END SOLUTION


def random_split(
    dataset: Any, lengths: Sequence[float], generator: np.random.Generator | None = None
) -> list[Subset]:
    """``dataset`` in parts that are drawn at random and share no sample.

    Parameters
    ----------
    lengths
        How many samples each part gets, or which fraction; see ``split_lengths``.
    generator
        What the order is drawn from; ``numpy.random.default_rng(seed)`` gives the same parts each time. By default
        the one that ``manual_seed`` sets.

    Raises
    ------
    ValueError
        If ``lengths`` do not make up the dataset.

    TODO: Cut a random order of all numbers into pieces, and make a Subset of each.

    APPROACH:
    1. The lengths by `split_lengths`, the order by the generator's `permutation(len(dataset))`.
    2. The first piece begins at 0, each other one where the one before it ends.

    EXAMPLE:
    >>> [len(part) for part in random_split(range(10), [0.8, 0.2])]
    [8, 2]

    HINT: `default_generator()` is asked for inside the function, when no generator is given.
    """
    ### BEGIN SOLUTION
    sizes = split_lengths(len(dataset), lengths)
    drawer = generator if generator is not None else default_generator()
    stops = np.cumsum([0, *sizes])
    mixed = drawer.permutation(len(dataset))
    return [Subset(dataset, mixed[start:stop]) for start, stop in pairwise(stops)]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-split", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_split():
    for count, lengths, want in [
        (100, [0.71, 0.29], [71, 29]),
        (10, [0.33, 0.33, 0.34], [3, 3, 4]),
        (7, [0.5, 0.5], [4, 3]),
        (11, [0.25, 0.25, 0.25, 0.25], [3, 3, 3, 2]),
        (5, [0.0, 1.0], [0, 5]),
        (0, [0.5, 0.5], [0, 0]),
        (2, [0.15, 0.15, 0.3, 0.4], [0, 0, 1, 1]),
        (10, [7, 0, 3], [7, 0, 3]),
    ]:
        got = split_lengths(count, lengths)
        assert list(got) == want, f"{count} samples, {lengths}: expected {want}, got {got}; largest remainders first"
    for lengths in ([0.5, 0.4], [0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0]):
        with raises(ValueError, "random_split", str(lengths), str(sum(lengths))):
            split_lengths(10, lengths)
    with raises(ValueError, "[7, 2]", "10"):
        split_lengths(10, [7, 2])
    parts = random_split(range(100, 120), [0.25, 0.5, 0.25], generator=np.random.default_rng(3))
    found = [[part[place] for place in range(len(part))] for part in parts]
    assert [len(numbers) for numbers in found] == [5, 10, 5], [len(numbers) for numbers in found]
    together = [number for numbers in found for number in numbers]
    assert sorted(together) == list(range(100, 120)), f"each sample goes to exactly one part; got {together}"
    order = (100 + np.random.default_rng(3).permutation(20)).tolist()
    assert together == order, "one permutation by the generator, cut into pieces from the left"
    manual_seed(8)
    first = random_split(range(30), [29, 1])[1][0]
    manual_seed(8)
    assert random_split(range(30), [29, 1])[1][0] == first, "without a generator, use default_generator()"
    ### BEGIN HIDDEN TESTS
    draw = np.random.default_rng()
    for _ in range(20):
        weights, n = draw.integers(1, 50, size=4), int(draw.integers(1, 500))
        fractions = (weights / weights.sum()).tolist()
        sizes = split_lengths(n, fractions)
        off = [abs(size - n * fraction) for size, fraction in zip(sizes, fractions, strict=True)]
        assert sum(sizes) == n and max(off) < 1, (n, fractions, sizes)
    manual_seed(int(draw.integers(1 << 30)))
    draws = {tuple(random_split(range(12), [12])[0].indices.tolist()) for _ in range(5)}
    assert len(draws) == 5, "every call draws another order"
    ### END HIDDEN TESTS


test_split()

# %% [markdown]
# ## 4. An order that can be repeated
#
# Each epoch visits the samples in a new random order. The obvious program has a generator that goes on from epoch to
# epoch. Then the order of epoch 7 depends on all that was drawn before. Training that is interrupted in epoch 7 and
# resumed from a file must have saved the generator's state at the right moment; an experiment with one more
# augmentation sees other orders from there on; and a thread that reads ahead has drawn more than anybody has used.
#
# All three go away if nothing goes on: **whatever is random in a batch is a function of (seed, epoch, batch)**. To make
# a generator takes 10 to 30 µs, so there can be a fresh one for each batch. Now, how to make one number out of three?
#
# Predict: do these two generators, for epoch 3, and for batch 0 of epoch 3, draw the same or different numbers?

# %%
epoch_3, batch_0 = np.random.default_rng([7, 3]), np.random.default_rng([7, 3, 0])
print(epoch_3.random(3))
print(batch_0.random(3))

# %% [markdown]
# The same: NumPy fills a list of seeds up with zeros, so `[7, 3]` *is* `[7, 3, 0]`. The first batch of every epoch
# would be augmented by the very numbers that its order was drawn from. What is meant for this is a `SeedSequence` with
# a `spawn_key`: the key is kept apart from the seed, and its length counts.
#
# ### Exercise: `generator_for` and `epoch_order`

# %% nbgrader={"grade": false, "grade_id": "dataloader-order", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def generator_for(seed: int, *key: int) -> np.random.Generator:
    """A fresh generator that depends on ``seed`` and ``key`` alone, independent of those of all other keys.

    Source: NumPy's manual, "Parallel random number generation".

    TODO: Make a generator from a SeedSequence with a spawn_key.

    APPROACH:
    1. `np.random.SeedSequence(seed, spawn_key=...)`, then `np.random.default_rng(...)` of it.

    EXAMPLE:
    >>> one, same, other = generator_for(7, 3), generator_for(7, 3), generator_for(7, 3, 0)
    >>> one.random() == same.random(), one.random() == other.random()
    (True, False)

    HINT: The key is a tuple already.
    """
    ### BEGIN SOLUTION
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    ### END SOLUTION


def epoch_order(count: int, shuffle: bool, seed: int, epoch: int) -> Array:
    """The numbers of ``count`` samples in the order in which ``epoch`` visits them, int64.

    TODO: 0, 1, 2, ... without shuffling, otherwise a permutation that depends on seed and epoch.

    APPROACH:
    1. Without shuffling: `np.arange`.
    2. With: `permutation` of the generator for this seed and this epoch.

    EXAMPLE:
    >>> epoch_order(4, False, 0, 5)
    array([0, 1, 2, 3])

    HINT: No generator is kept anywhere. Asked twice, the function answers the same.
    """
    ### BEGIN SOLUTION
    return generator_for(seed, epoch).permutation(count) if shuffle else np.arange(count)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-order", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_order():
    keys = [(7,), (7, 3), (7, 3, 0), (7, 3, 1), (7, 4, 0), (8, 3, 0), (3, 7)]
    drawn = {key: generator_for(*key).random(4).tolist() for key in keys}
    for one in keys:
        close(generator_for(*one).random(4), drawn[one], why=f"the key {one} must give the same numbers each time")
        for other in keys:
            assert one == other or drawn[one] != drawn[other], f"{one} and {other} give the same numbers: use spawn_key"
    close(epoch_order(5, False, 1, 2), [0, 1, 2, 3, 4], dtype=np.int64, why="without shuffling: 0, 1, 2, ...")
    orders = {(seed, epoch): epoch_order(40, True, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1, 2)}
    for key, order in orders.items():
        assert sorted(order) == list(range(40)), f"each sample comes once; got {order}"
        again = epoch_order(40, True, *key).tolist()
        assert again == order, f"seed and epoch {key} must give the same order each time"
    assert len({tuple(order) for order in orders.values()}) == 6, "other seed or other epoch: another order"
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    root, leaf, twig = (int(n) for n in fresh.integers(1 << 20, size=3))
    sequence = np.random.SeedSequence(root, spawn_key=(leaf, twig))
    close(generator_for(root, leaf, twig).random(5), np.random.default_rng(sequence).random(5))
    sequence = np.random.SeedSequence(root, spawn_key=(leaf,))
    close(epoch_order(60, True, root, leaf), np.random.default_rng(sequence).permutation(60), dtype=np.int64)
    ### END HIDDEN TESTS


test_order()

# %% [markdown]
# ## 5. Batches of numbers
#
# The order is cut into batches. 50,000 samples make 390 batches of 128, and 80 samples are left: a smaller batch, or
# none (`drop_last`), since a batch of 1 upsets layers that take statistics over the batch (module 09), and a gradient
# over few samples is a noisy one.
#
# ### Exercise: `batch_count` and `index_batches`

# %% nbgrader={"grade": false, "grade_id": "dataloader-batches", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def batch_count(count: int, batch_size: int, drop_last: bool) -> int:
    """How many batches ``count`` samples make; with ``drop_last`` an incomplete one does not count.

    TODO: Divide, rounding down or up.

    APPROACH:
    1. With drop_last: how often batch_size goes into count.
    2. Without: one more, if something is left.

    EXAMPLE:
    >>> batch_count(50_000, 128, True), batch_count(50_000, 128, False)
    (390, 391)

    HINT: `-(-a // b)` rounds up: floor division rounds down, and -3.5 down is -4.
    """
    ### BEGIN SOLUTION
    return count // batch_size if drop_last else -(-count // batch_size)
    ### END SOLUTION


def index_batches(order: Array, batch_size: int, drop_last: bool) -> Iterator[Array]:
    """``order`` cut into batches, one after the other; the last may be shorter, or is left out with ``drop_last``.

    TODO: Yield one slice of `order` for each batch.

    APPROACH:
    1. Number the batches with `batch_count`.
    2. Batch k begins at k * batch_size.

    EXAMPLE:
    >>> [batch.tolist() for batch in index_batches(np.arange(5), 2, False)]
    [[0, 1], [2, 3], [4]]

    HINT: A slice may run past the end, so the last batch needs no care.
    """
    ### BEGIN SOLUTION
    for number in range(batch_count(len(order), batch_size, drop_last)):
        yield order[number * batch_size : (number + 1) * batch_size]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-batches", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_batches():
    for count, size, drop_last, want in [
        (6, 2, False, [[0, 1], [2, 3], [4, 5]]),
        (6, 2, True, [[0, 1], [2, 3], [4, 5]]),
        (5, 2, False, [[0, 1], [2, 3], [4]]),
        (5, 2, True, [[0, 1], [2, 3]]),
        (2, 3, False, [[0, 1]]),
        (2, 3, True, []),
        (0, 4, False, []),
        (3, 1, True, [[0], [1], [2]]),
    ]:
        told = f"{count} samples, batches of {size}, drop_last={drop_last}"
        got = batch_count(count, size, drop_last)
        assert got == len(want), f"batch_count of {told}: expected {len(want)}, got {got}"
        pieces = [piece.tolist() for piece in index_batches(np.arange(count), size, drop_last)]
        assert pieces == want, f"{told}: expected {want}, got {pieces}"
    assert type(batch_count(7, 2, False)) is int, "a number of batches is an int: divide by //"
    ### BEGIN HIDDEN TESTS
    mixed = np.random.default_rng().permutation(101)
    for size in (1, 7, 100, 101, 102):
        kept = list(index_batches(mixed, size, False))
        close(np.concatenate(kept), mixed, dtype=np.int64, why="all samples, in the order given")
        whole_ones = list(index_batches(mixed, size, True))
        assert [len(piece) for piece in whole_ones] == [size] * (101 // size)
        assert len(kept) == batch_count(101, size, False)
    ### END HIDDEN TESTS


test_batches()

# %% [markdown]
# ### Why shuffle at all?
#
# Files often come sorted: all zeros, then all ones. Here are the handwritten digits of the course, sorted by class, and
# a single linear layer, trained for five epochs in three ways: as they are sorted; in one random order, the same in
# each epoch; and in a new order each epoch. Predict the share of test digits that each gets right.

# %%
from tito import data

digits = data.load("digits")
by_class = np.argsort(digits["train_labels"], kind="stable")
digit_inputs = digits["train_images"][by_class].reshape(-1, 64) / np.float32(16)
digit_labels = digits["train_labels"][by_class].astype(np.int64)
test_inputs = Tensor(digits["test_images"].reshape(-1, 64) / 16)


def accuracy_after(order_in, epochs=5, rate=0.3):
    manual_seed(0)
    layer = Linear(64, 10)
    for epoch in range(epochs):
        for numbers in index_batches(order_in(epoch), 32, drop_last=False):
            layer.zero_grad()
            cross_entropy(layer(Tensor(digit_inputs[numbers])), digit_labels[numbers]).backward()
            for parameter in layer.parameters():
                parameter.data -= rate * parameter.grad.data
    return float((layer(test_inputs).argmax(axis=1).data == digits["test_labels"]).mean())


count = len(digit_labels)
for label, order_in in {
    "sorted by class": lambda epoch: epoch_order(count, False, 0, epoch),
    "one random order": lambda epoch: epoch_order(count, True, 0, 0),
    "a new order each epoch": lambda epoch: epoch_order(count, True, 0, epoch),
}.items():
    print(f"{label:24} {accuracy_after(order_in):.1%}")

# %% [markdown]
# 53.3 %, 94.7 % and 95.0 %. While only zeros come, every step says "answer zero more often"; then only ones come, and
# so on. The class that came last has won: trained in order, the layer calls 155 of the 360 test digits a nine (there
# are
# 41), and not one of them a one or a three. A batch should be a small sample of the whole, and a batch of one class is
# none. That the order is *new* in each epoch made a difference of one digit here, which proves nothing; but it costs
# nothing, and batches that are always the same give a larger network one thing more to learn by heart.

# %% [markdown]
# ## 6. From samples to a batch
#
# A dataset that answers one number at a time gives a list of samples: `[(x0, y0), (x1, y1), ...]`. A batch is the other
# way round: all the inputs in one array, all the targets in another. PyTorch calls this **collating**.
#
# It can fail in one way that everybody meets: photographs differ in size, sentences in length. NumPy says then that
# all input arrays must have the same shape. Of which of your 50,000 files it speaks, it does not know.

# %%
#| export
def check_alike(what: str, found: Sequence[Any]) -> None:
    """ValueError if what the samples of a batch have for ``what`` (a shape, say) differs; it names the first two."""
    for place, value in enumerate(found):
        if value != found[0]:
            raise ValueError(
                f"default_collate: sample 0 of the batch has {what} {found[0]}, sample {place} has {value}; make them "
                "alike in the dataset, or give the DataLoader a collate_fn that does"
            )

# %% [markdown]
# And where a single sample fails, because its file is damaged, the error should say which one it was. Since Python 3.11
# an exception takes **notes**: `error.add_note(...)` adds a line below its message, and the exception stays of the
# class that it was.
#
# ### Exercise: `default_collate` and `fetch`

# %% nbgrader={"grade": false, "grade_id": "dataloader-collate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def default_collate(samples: Sequence[Any]) -> Any:
    """A list of samples as one batch: an array with a new first axis, or a tuple of such for samples that are tuples.

    Parameters
    ----------
    samples
        At least one; all of them numbers, arrays or Tensors of one shape, or tuples (also nested) of such.

    Raises
    ------
    ValueError
        If shapes, or lengths of tuples, differ; it names the positions in the batch, both values and ``collate_fn``.
    TypeError
        If a sample is something else; it names its position and its class.

    TODO: Collate tuples field by field, and stack everything else.

    APPROACH:
    1. If the first sample is a tuple: `check_alike("length", ...)` of the samples' lengths. Then collate each field by
       itself, by this very function, and return the tuple of what comes.
    2. Otherwise make an array of each sample. If the `dtype.kind` of one is not in "biuf" (the letters of booleans,
       whole numbers and floats), raise TypeError
       `f"default_collate: sample {place} of the batch is of type {type(sample).__name__}; use a collate_fn"`.
    3. `check_alike("shape", ...)`, and `np.stack`.

    EXAMPLE:
    >>> default_collate([(np.array([1.0, 2.0]), 7), (np.array([3.0, 4.0]), 8)])
    (array([[1., 2.],
           [3., 4.]]), array([7, 8]))

    HINT: `zip(*samples)` turns a list of samples into a list of fields.
    """
    ### BEGIN SOLUTION
    if isinstance(samples[0], tuple):
        check_alike("length", [len(sample) for sample in samples])
        return tuple(default_collate(field) for field in zip(*samples, strict=True))
    arrays = [np.asarray(sample) for sample in samples]
    for place, single in enumerate(arrays):
        if single.dtype.kind not in "biuf":
            told = type(samples[place]).__name__
            raise TypeError(f"default_collate: sample {place} of the batch is of type {told}; use a collate_fn")
    check_alike("shape", [array.shape for array in arrays])
    return np.stack(arrays)
    ### END SOLUTION


def fetch(dataset: Any, numbers: Array, collate_fn: Callable[[list[Any]], Any] | None = None) -> Any:
    """The samples ``numbers`` of ``dataset`` as one batch.

    A dataset that is ``batched`` is asked once, unless there is a ``collate_fn``, which wants a list of samples. An
    error in ``dataset[i]`` goes on as it is, with a note that names i.

    TODO: Ask once if you can, else one by one, and collate.

    APPROACH:
    1. Without a collate_fn, and if `getattr(dataset, "batched", False)`: `dataset[numbers]` is the batch.
    2. Otherwise a list of `dataset[number]` for each number of `numbers.tolist()`.
    3. Around this: catch an Exception, call its `add_note(f"in dataset[{number}]")`, and raise it again.
    4. Collate the list, by `default_collate` if no other function is given.

    EXAMPLE:
    >>> fetch(["a", "bb", "ccc"], np.array([2, 0]), collate_fn=lambda samples: [len(text) for text in samples])
    [3, 1]

    HINT: A `raise` with nothing behind it raises the exception that is being handled, with its traceback.
    """
    ### BEGIN SOLUTION
    if collate_fn is None and getattr(dataset, "batched", False):
        return dataset[numbers]
    samples = []
    for number in numbers.tolist():
        try:
            samples.append(dataset[number])
        except Exception as error:
            error.add_note(f"in dataset[{number}]")
            raise
    return default_collate(samples) if collate_fn is None else collate_fn(samples)
    ### END SOLUTION

# %% [markdown]
# The tests of this notebook use a dataset of the plain kind, one of whose samples may be damaged, and one that counts.

# %% nbgrader={"grade": false, "grade_id": "dataloader-examples", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Squares(Dataset):
    """Sample i is (an array of i and i + 0.5, i * i), and it is noted that it was asked for."""

    def __init__(self, count, damaged=None):
        self.count, self.damaged, self.asked = count, damaged, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        if index == self.damaged:
            raise OSError("this file is damaged")
        return np.array([index, index + 0.5], np.float32), index * index


class Watched(TensorDataset):
    """It counts how often it was asked for something."""

    times = 0

    def __getitem__(self, index):
        self.times += 1
        return super().__getitem__(index)


def notes_of(function, *arguments):
    """The class of the error that a call raises, its message, and the notes below it."""
    try:
        function(*arguments)
    except Exception as error:
        return [type(error).__name__, str(error), *getattr(error, "__notes__", [])]
    return []

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-collate", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_collate():
    inputs, targets = default_collate([(np.float32([1, 2]), 7), (np.float32([3, 4]), 8), (np.float32([5, 6]), 9)])
    close(inputs, [[1, 2], [3, 4], [5, 6]], dtype=np.float32, what="inputs", why="the first fields, stacked")
    close(targets, [7, 8, 9], dtype=np.int64, what="targets", why="numbers become an array with one axis")
    close(default_collate([np.ones((2, 3))] * 4), np.ones((4, 2, 3)), why="samples that are no tuples are stacked")
    close(default_collate([Tensor([1.0]), Tensor([2.0])]), [[1], [2]], why="np.asarray takes Tensors, too")
    (first, second), third = default_collate([((1, 2.5), True), ((3, 4.5), False)])
    close(first, [1, 3])
    close(second, [2.5, 4.5], why="a tuple within a tuple is collated in the same way")
    close(third, [True, False], dtype=np.bool_)
    with raises(ValueError, "sample 0", "(3,)", "sample 2", "(4,)", "collate_fn"):
        default_collate([np.ones(3), np.ones(3), np.ones(4)])
    with raises(ValueError, "sample 1", "2", "3", why="tuples of two and of three make no batch"):
        default_collate([(1, 2), (1, 2, 3)])
    for sample in ("text", {"x": 1}, None):
        with raises(TypeError, "sample 2", type(sample).__name__, "collate_fn", why=f"{sample!r} is no number"):
            default_collate([1.0, 2.0, sample])
    close(default_collate([(1, 2.5)])[1], [2.5], why="one sample makes a batch of one")
    close(default_collate([np.ones(3)]), np.ones((1, 3)), why="one sample makes a batch of one")


def test_fetch():
    squares = Squares(10, damaged=6)
    inputs, targets = fetch(squares, np.array([3, 1, 9]))
    close(inputs, [[3, 3.5], [1, 1.5], [9, 9.5]], what="inputs", why="the samples in the order of the numbers")
    close(targets, [9, 1, 81], what="targets")
    assert squares.asked == [3, 1, 9], f"each number should be asked for once, in order; asked for were {squares.asked}"
    assert [type(number) for number in squares.asked] == [int] * 3, "ask for Python's ints: numbers.tolist()"
    assert notes_of(fetch, squares, np.array([5, 6, 7])) == ["OSError", "this file is damaged", "in dataset[6]"], (
        f"the error goes on with a note of the number; got {notes_of(fetch, squares, np.array([5, 6, 7]))}"
    )
    close(fetch([1.5, 2.5, 3.5], np.array([2, 0])), [3.5, 1.5], why="a list is a dataset that is asked one by one")
    table = Watched(np.arange(5) * 2, np.arange(5) * 3)
    close(fetch(table, np.array([4, 0]))[1], [12, 0], why="a batched dataset gives the batch itself")
    assert table.times == 1, f"a batched dataset should be asked once for a batch, it was asked {table.times} times"
    got = fetch(table, np.array([4, 0]), lambda samples: [int(one) + int(two) for one, two in samples])
    close(got, [20, 0], why="a collate_fn gets a list with one sample for each number, and its answer is the batch")
    ### BEGIN HIDDEN TESTS
    several = np.random.default_rng().integers(0, 30, size=12)
    stacked, squared = fetch(Squares(30), several)
    close(stacked[:, 1], several + 0.5)
    close(squared, several**2, dtype=np.int64)
    columns = np.random.default_rng().normal(size=(30, 3, 2)).astype(np.float32)
    close(fetch(columns, several), columns[several], dtype=np.float32, why="an array is a dataset, too")
    close(fetch(Subset(TensorDataset(columns), several), np.array([1, 1, 2]))[0], columns[several][[1, 1, 2]])
    ### END HIDDEN TESTS


test_collate()
test_fetch()

# %% [markdown]
# What does it cost to be asked one by one? The same numbers from the same array, with nothing else to do. Predict the
# factor.

# %%
table = TensorDataset(pictures, classes)
numbers = np.random.default_rng(0).permutation(5000)[:128]
one_by_one = measure(fetch, table, numbers, default_collate)
at_once = measure(fetch, table, numbers)
print(f"one by one {one_by_one.median_s * 1e3:6.3f} ms")
print(f"at once    {at_once.median_s * 1e3:6.3f} ms   {one_by_one.median_s / at_once.median_s:.0f}x")

# %% [markdown]
# On that machine some 1 ms one by one and 20 to 60 µs at once, in most runs a factor between 20 and 60. What took so long
# is no work on pictures: it is 128 times the check of an index, two rows, a tuple and an append, and then a `np.stack` of
# many small arrays.
#
# ## 7. Transforms of whole batches
#
# In PyTorch a transform belongs to the *dataset*, and changes one sample. Ours belongs to the *loader*, and changes a
# whole batch: a function of `(images, generator)`, with images of shape (N, C, H, W). Three reasons:
#
# - **Speed.** 128 small steps in Python become one large one in NumPy.
# - **Chance that can be repeated.** The loader knows seed, epoch and batch, and hands over the right generator. A
#   dataset knows none of them.
# - **Two views of the same data.** Parts of `random_split` share one dataset. If that one augments, then the samples
#   that you judge by are augmented, too, and your score is wrong. With the loader, one part is augmented and the
#   other is not.
#
# ### What is the mean of 50,000 pictures?
#
# Normalised inputs have mean 0 and deviation 1 in each colour. For that we need the two numbers of the whole data.
# One line finds them, `(pictures / 255).std(axis=(0, 2, 3))`. Predict how much memory it takes for our 15.4 MB of
# bytes.
#
# It can be done in pieces, and in one pass: the variance is the mean of the squares minus the square of the mean.
#
# ### Exercise: `channel_statistics`

# %% nbgrader={"grade": false, "grade_id": "dataloader-statistics", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pixel_scale(images: Array) -> float:
    """What a pixel counts as 1: 255 for bytes, 1 for floats; TypeError for any other dtype."""
    if images.dtype == np.uint8:
        return 255.0
    if images.dtype.kind != "f":
        raise TypeError(f"images should be uint8 (0 to 255) or floating-point, got {images.dtype}")
    return 1.0


def channel_statistics(images: Array, chunk: int = 256) -> tuple[Array, Array]:
    """The mean and the standard deviation of each channel of ``images``, of shape (N, C, H, W), in float64.

    Bytes count as pixel / 255. ``chunk`` images are looked at at once, so that this works on a file of any size that
    is mapped into memory.

    TODO: Walk over the images in chunks and add up; then work out both.

    APPROACH:
    1. Two arrays of zeros, with a number for each channel: the sum of the pixels, and that of their squares.
    2. For each chunk: `images[start : start + chunk]` in float64, divided by `pixel_scale(images)`. Add up over all axes
       but the channels'.
    3. A channel has `images[:, 0].size` pixels. The mean is sum / count; the deviation is the root of (sum of squares /
       count - mean²).

    EXAMPLE:
    >>> mean, std = channel_statistics(np.array([[[[0, 255]]]], np.uint8)); mean.tolist(), std.tolist()
    ([0.5], [0.5])

    HINT: Make floats first, then square: a byte of 200 times itself is 64, since bytes count modulo 256.
    """
    ### BEGIN SOLUTION
    pixel_sum, square_sum = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk].astype(np.float64) / pixel_scale(images)
        pixel_sum += part.sum(axis=(0, 2, 3))
        square_sum += (part * part).sum(axis=(0, 2, 3))
    count = images[:, 0].size
    mean = pixel_sum / count
    return mean, np.sqrt(square_sum / count - mean * mean)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-statistics", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_statistics():
    flat = np.array([[[[0, 255]], [[51, 51]]], [[[255, 0]], [[204, 204]]]], np.uint8)  # (2, 2, 1, 2)
    mean, std = channel_statistics(flat)
    close(mean, [0.5, 0.5], dtype=np.float64, what="mean", why="bytes count as pixel / 255, and each channel by itself")
    close(std, [0.5, 0.3], dtype=np.float64, what="std", why="the root of the mean square minus the squared mean")
    for chunk in (1, 2, 3):
        close(channel_statistics(flat, chunk)[1], [0.5, 0.3], what=f"std with chunk={chunk}")
    floats = np.array([-1.0, 1.0, 3.0, 5.0], np.float32).reshape(4, 1, 1, 1)
    close(channel_statistics(floats, chunk=3)[0], [2], what="mean of floats", why="floats count as they are")
    ### BEGIN HIDDEN TESTS
    bytes_drawn = np.random.default_rng().integers(0, 256, (7, 3, 4, 5)).astype(np.uint8)
    for chunk in (2, 7, 100):
        middle, spread = channel_statistics(bytes_drawn, chunk)
        close(middle, (bytes_drawn / 255).mean(axis=(0, 2, 3)), rtol=1e-12, atol=0, why="work in float64")
        close(spread, (bytes_drawn / 255).std(axis=(0, 2, 3)), rtol=1e-9, atol=0, why="work in float64")
    shifted = np.random.default_rng().normal(3, 2, size=(9, 2, 3, 3))
    close(channel_statistics(shifted, 4)[1], shifted.std(axis=(0, 2, 3)), rtol=1e-9)
    ### END HIDDEN TESTS


test_statistics()

# %%
for label, action in {
    "all at once": lambda: (pictures / 255).std(axis=(0, 2, 3)),
    "in pieces": lambda: channel_statistics(pictures)[1],
}.items():
    deviation, peak_bytes = peak_memory(action)
    print(f"{label:12} {peak_bytes / 1e6:6.1f} MB", deviation.round(3))

# %% [markdown]
# 246 MB against 13 MB. Float64 takes eight bytes for each byte, and `std` makes a second array of that size for the
# deviations. With CIFAR-10 that would be 2.5 GB, and in pieces still 13 MB.
#
# ### Exercise: `Normalize`
#
# `(images / 255 - mean) / std` is right, and slow: bytes divided by 255 are float64, and each of the three steps
# makes a new array. The same in two steps, in place, in float32: with $a = 1 / (255\,\sigma)$ and $b = \mu / \sigma$
# it is $x \cdot a - b$.

# %% nbgrader={"grade": false, "grade_id": "dataloader-normalize", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass
class Normalize:
    """Transform: ``(images - mean) / std`` for each channel; bytes count as pixel / 255, and become float32.

    Parameters
    ----------
    mean, std
        A number for each channel, or one for all. For bytes they are those of pixel / 255; see ``channel_statistics``.

    Raises
    ------
    ValueError
        If ``std`` is not positive; when called, if there is not one number for each channel of the images.
    TypeError
        When called on images that are neither bytes nor floating-point.

    TODO: Fill in the blank of `__call__`: one multiplication and one subtraction.

    APPROACH:
    1. `kind`: the dtype of the images if they are floating-point, else float32.
    2. `mean` and `std` in the right shape come from `per_channel`, in float64.
    3. `images.astype(kind)` is a copy, ours to write into: `*=` the factor, `-=` the shift, both in `kind`.

    EXAMPLE:
    >>> Normalize(0.5, 0.25)(np.array([0, 255], np.uint8))
    array([-2.,  2.], dtype=float32)

    HINT: The factor is 1 / (pixel_scale * std), the shift is mean / std: without the scale.
    """

    mean: Any
    std: Any

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.std) > 0):
            raise ValueError(f"Normalize: std should be positive, got {self.std}")

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """``images`` of shape (..., C, H, W) normalised; nothing is random, so the generator is not used."""
        mean, std = per_channel(self.mean, images), per_channel(self.std, images)
        ### BEGIN SOLUTION
        kind: Any = images.dtype if images.dtype.kind == "f" else np.float32
        scaled = images.astype(kind)
        scaled *= (1 / (pixel_scale(images) * std)).astype(kind)
        scaled -= (mean / std).astype(kind)
        return scaled
        ### END SOLUTION


def per_channel(values: Any, images: Array) -> Array:
    """``values``, one for all or one for each channel, as float64 that broadcast with images (..., C, H, W)."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return array
    if images.ndim < 3 or array.shape != (images.shape[-3],):
        raise ValueError(f"Normalize: {array.size} values do not fit images of shape {images.shape}, (..., C, H, W)")
    return array[:, None, None]

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-normalize", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_normalize():
    grey = np.array([0, 51, 255], np.uint8)
    why = "bytes count as pixel / 255, then (x - mean) / std"
    close(Normalize(0.5, 0.25)(grey), [-2, -1.2, 2], dtype=np.float32, why=why)
    images = np.zeros((2, 3, 1, 2), np.uint8)
    images[:, 1], images[1, 2] = 255, 51
    out = Normalize([0.0, 0.5, 0.1], [1.0, 0.5, 0.1])(images)
    close(out[0, :, 0, 0], [0, 1, -1], dtype=np.float32, what="first picture", why="each channel has its own numbers")
    close(out[1, :, 0, 1], [0, 1, 1], what="second picture")
    for kind in (np.float32, np.float64):
        x = np.array([1.0, 3.0], kind)
        close(Normalize(1.0, 4.0)(x), [0, 0.5], dtype=kind, why="floats count as they are, and keep their dtype")
        close(x, [1, 3], why="the images that came in must stay as they were: write into a copy")
    with raises(TypeError, "int64"):
        Normalize(0.5, 0.25)(np.array([1, 2]))
    with raises(ValueError, "std", "0.0"):
        Normalize(0.5, 0.0)
    with raises(ValueError, "3 values", "(2, 1, 4, 4)"):
        Normalize([0.5] * 3, [0.25] * 3)(np.zeros((2, 1, 4, 4), np.float32))
    ### BEGIN HIDDEN TESTS
    hidden_draw = np.random.default_rng()
    middle, spread = hidden_draw.uniform(0.2, 0.8, 4), hidden_draw.uniform(0.1, 0.5, 4)
    raw = hidden_draw.integers(0, 256, (3, 4, 5, 6)).astype(np.uint8)
    by_formula = (raw / 255 - middle[:, None, None]) / spread[:, None, None]
    close(Normalize(middle, spread)(raw), by_formula, dtype=np.float32, atol=1e-5)
    exact = Normalize(middle.tolist(), 0.3)(raw[0] / 255)
    close(exact, (raw[0] / 255 - middle[:, None, None]) / 0.3, dtype=np.float64, rtol=1e-10)
    ### END HIDDEN TESTS


test_normalize()

# %% [markdown]
# ### Exercise: `RandomHorizontalFlip` and `Compose`
#
# A transform that draws gets its generator from the loader. Called without one, as you may do to try it, it uses the
# default generator of module 02.

# %% nbgrader={"grade": false, "grade_id": "dataloader-flip", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass
class RandomHorizontalFlip:
    """Transform: each image is mirrored, left to right, with probability ``p``.

    Raises
    ------
    ValueError
        If ``p`` does not lie between 0 and 1.

    TODO: Fill in the blanks here and in Compose.

    APPROACH:
    1. `mirrored`: a draw from `generator.random(...)` for each image is smaller than p.
    2. A copy of the images. Write the mirrored ones into it: `images[mirrored]` picks them, `[..., ::-1]` turns the
       last axis round.
    3. `Compose`: each transform gets what the one before gave, and the generator.

    EXAMPLE:
    >>> RandomHorizontalFlip(p=1.0)(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])

    HINT: An image is mirrored as a whole, all of its channels and rows: one draw for each image.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p is a probability, from 0 to 1, got {self.p}")

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """``images`` of shape (N, ..., W), some of them mirrored; a new array."""
        draws = generator or default_generator()
        ### BEGIN SOLUTION
        mirrored = draws.random(len(images)) < self.p
        turned = images.copy()
        turned[mirrored] = images[mirrored][..., ::-1]
        return turned
        ### END SOLUTION


@dataclass
class Compose:
    """Transform: several of them, one after the other.

    Parameters
    ----------
    transforms
        Each is called with the images and the generator, and gives images. A plain function will do.
    """

    transforms: Sequence[Callable[..., Array]]

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """What comes out of the last transform; with none at all, the images themselves."""
        ### BEGIN SOLUTION
        for transform in self.transforms:
            images = transform(images, generator)
        return images
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-flip", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_flip():
    images = np.arange(24).reshape(2, 2, 2, 3)
    close(RandomHorizontalFlip(1.0)(images), images[..., ::-1], why="p=1 mirrors all, along the last axis only")
    close(RandomHorizontalFlip(0.0)(images), images, why="p=0 mirrors none")
    close(images, np.arange(24).reshape(2, 2, 2, 3), why="the images that came in must stay as they were")
    many = np.tile(np.array([0, 1], np.uint8), (4000, 2, 3, 1))
    out = RandomHorizontalFlip(0.25)(many, np.random.default_rng(5))
    mirrored = out[:, 0, 0, 0] == 1
    close(out[..., 0], np.broadcast_to(mirrored[:, None, None], (4000, 2, 3)), why="an image is mirrored as a whole")
    close(float(mirrored.mean()), 0.25, atol=0.03, rtol=0, what="share of mirrored images", why="p is the probability")
    close(mirrored, np.random.default_rng(5).random(4000) < 0.25, why="one draw an image, from the generator given")
    manual_seed(2)
    first = RandomHorizontalFlip()(many)
    manual_seed(2)
    close(RandomHorizontalFlip()(many), first, dtype=np.uint8, why="without a generator, the default one")
    with raises(ValueError, "1.5"):
        RandomHorizontalFlip(1.5)


def test_compose():
    steps = Compose([lambda x, g: x + 1, lambda x, g: x * 10, lambda x, g: x + g.integers(0, 1000)])
    number = np.random.default_rng(4).integers(0, 1000)
    out = steps(np.array([1, 2]), np.random.default_rng(4))
    close(out, [20 + number, 30 + number], why="in their order; each gets the generator")
    close(Compose([])(np.array([1, 2])), [1, 2], why="no transforms: what comes in goes out")


test_flip()
test_compose()
### BEGIN HIDDEN TESTS
seed_for_flips = int(np.random.default_rng().integers(1 << 30))
striped = np.random.default_rng(seed_for_flips).normal(size=(30, 2, 5))
turned_round = np.random.default_rng(seed_for_flips).random(30) < 0.5
half_turned = RandomHorizontalFlip()(striped, np.random.default_rng(seed_for_flips))
close(half_turned, np.where(turned_round[:, None, None], striped[..., ::-1], striped))
### END HIDDEN TESTS

# %% [markdown]
# ### Cutting out 128 windows at once
#
# After padding, a picture has 40 x 40 pixels, and each picture of the batch wants another window of 32 x 32. With a
# loop this is one slice a picture. Without a loop it takes two ideas:
#
# - **All windows are there already.** A window is a place in memory and strides (module 02, section 7), so *all*
#   9 x 9 windows of each picture can be looked at without copying one number: `sliding_window_view(images, (32, 32),
#   axis=(2, 3))` has the shape (N, C, 9, 9, 32, 32), and its last two axes run through the same memory as the first
#   ones.
# - **Indexing with several arrays picks pairs.** `windows[np.arange(N), :, tops, lefts]` takes for each n the window at
#   row `tops[n]` and column `lefts[n]`. Only here are numbers copied, and only those that are wanted.

# %%
padded_shape = (128, 3, 40, 40)
views = sliding_window_view(np.zeros(padded_shape, np.uint8), (32, 32), axis=(2, 3))
print(f"shape {views.shape}: {views.size:,} numbers to look at, {np.prod(padded_shape):,} in memory")
print("strides", views.strides)

# %% [markdown]
# ### Exercise: `crop_each` and `RandomCrop`

# %% nbgrader={"grade": false, "grade_id": "dataloader-crop", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def crop_each(images: Array, tops: Array, lefts: Array, size: tuple[int, int]) -> Array:
    """Of each image its own window.

    Parameters
    ----------
    images
        Of shape (N, C, H, W).
    tops, lefts
        Row and column of each window's upper left corner, of shape (N,).
    size
        Height and width of the windows.

    Returns
    -------
    Array
        A new array of shape (N, C, *size).

    TODO: The view of all windows, then one pick.

    APPROACH:
    1. `sliding_window_view(images, size, axis=...)` over the axes of height and width.
    2. Index it with four things: every image, all channels, its top, its left.

    EXAMPLE:
    >>> crop_each(np.arange(9).reshape(1, 1, 3, 3), np.array([1]), np.array([0]), (2, 2))
    array([[[[3, 4],
             [6, 7]]]])

    HINT: `np.arange(N)` for the images, not `:`, which would give every top to every image.
    """
    ### BEGIN SOLUTION
    windows = sliding_window_view(images, size, axis=(2, 3))  # (N, C, H - h + 1, W - w + 1, h, w)
    return windows[np.arange(len(images)), :, tops, lefts]
    ### END SOLUTION


@dataclass
class RandomCrop:
    """Transform: of each image a window of ``size`` at a random place, after ``padding`` pixels were put all around it.

    Parameters
    ----------
    size
        Height and width, or one number for both.
    padding
        How many pixels are added on each side.
    fill
        What they hold.

    Raises
    ------
    ValueError
        When called on images that are not (N, C, H, W), or that are smaller than ``size`` even with the padding.

    TODO: Fill in the blank of `__call__`: pad, draw, crop.

    APPROACH:
    1. `padded`: an array full of `fill`, in the images' dtype, of shape (N, C, H + 2 padding, W + 2 padding). Write the
       images into its middle.
    2. `tops` from `integers(..., size=N)` of the generator, then `lefts`. A top may be anything from 0 to `down`, and a
       left anything from 0 to `right`.
    3. `crop_each`.

    EXAMPLE:
    >>> RandomCrop(32, padding=4)(np.ones((128, 3, 32, 32), np.uint8)).shape
    (128, 3, 32, 32)

    HINT: The middle is `padding : padding + H`. With `padding : -padding` a padding of 0 would give an empty slice. And
    `integers(n)` never gives n.
    """

    size: int | tuple[int, int]
    padding: int = 0
    fill: float = 0

    def __call__(self, images: Array, generator: np.random.Generator | None = None) -> Array:
        """``images`` of shape (N, C, H, W) as (N, C, *size)."""
        draws = generator or default_generator()
        height, width = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        if images.ndim != 4:
            raise ValueError(f"{self}: expected images of shape (N, C, H, W), got {images.shape}")
        count, channels, rows, columns = images.shape
        down, right = rows + 2 * self.padding - height, columns + 2 * self.padding - width  # the last top and left
        if min(down, right) < 0:
            raise ValueError(f"{self}: images of {rows} x {columns} are too small")
        ### BEGIN SOLUTION
        padded = np.full((count, channels, down + height, right + width), self.fill, images.dtype)
        padded[:, :, self.padding : self.padding + rows, self.padding : self.padding + columns] = images
        tops = draws.integers(down + 1, size=count)
        lefts = draws.integers(right + 1, size=count)
        return crop_each(padded, tops, lefts, (height, width))
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-crop", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_crop():
    images = np.arange(2 * 2 * 4 * 5).reshape(2, 2, 4, 5)
    got = crop_each(images, np.array([1, 0]), np.array([2, 1]), (2, 3))
    close(got[0], images[0, :, 1:3, 2:5], what="first image", why="rows from its top, columns from its left")
    close(got[1], images[1, :, 0:2, 1:4], what="second image", why="each image has a window of its own")
    marked = np.ones((600, 1, 3, 4), np.uint8)
    marked[:, 0, 0, 0] = 9  # the upper left corner of each image
    out = RandomCrop((3, 4), padding=1, fill=5)(marked, np.random.default_rng(1))
    assert out.shape == (600, 1, 3, 4) and out.dtype == np.uint8, f"got {out.dtype} of shape {out.shape}"
    places = {tuple(np.argwhere(one[0] == 9)[0].tolist()) if 9 in one else None for one in out}
    corners = {(0, 0), (0, 1), (1, 0), (1, 1), None}
    assert places == corners, f"the corner should be at {corners} (None: cut off), it was at {places}: tops are 0 to 2"
    assert set(np.unique(out).tolist()) == {1, 5, 9}, "what was padded holds `fill`, all else is as it was"
    top, left = np.random.default_rng(1).integers(0, 3, size=600)[0], np.random.default_rng(1)
    left.integers(0, 3, size=600)
    left = left.integers(0, 3, size=600)[0]
    frame = np.pad(marked[0], ((0, 0), (1, 1), (1, 1)), constant_values=5)
    close(out[0], frame[:, top : top + 3, left : left + 4], what="image 0", why="draw the tops first, then the lefts")
    close(RandomCrop(3)(images[..., :3]).shape, (2, 2, 3, 3), why="without padding it only cuts")
    close(RandomCrop((4, 5))(images), images, why="a window as large as the image is the image")
    with raises(ValueError, "RandomCrop", "4 x 5"):
        RandomCrop(7, padding=1)(images)
    with raises(ValueError, "(2, 4, 5)"):
        RandomCrop(2)(images[0])
    ### BEGIN HIDDEN TESTS
    cropper = np.random.default_rng()
    secret_seed = int(cropper.integers(1 << 30))
    shapes = cropper.normal(size=(25, 3, 6, 7)).astype(np.float32)
    found = RandomCrop((5, 4), padding=2)(shapes, np.random.default_rng(secret_seed))
    again = np.random.default_rng(secret_seed)
    tops, lefts = again.integers(0, 6, size=25), again.integers(0, 8, size=25)
    around = np.pad(shapes, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for place in range(25):
        top, left = tops[place], lefts[place]
        close(found[place], around[place, :, top : top + 5, left : left + 4], what=f"image {place}", dtype=np.float32)
    manual_seed(secret_seed)
    unseen = RandomCrop((5, 4), padding=2)(shapes)
    close(unseen, found, why="without a generator, the default one")
    ### END HIDDEN TESTS


test_crop()

# %% [markdown]
# Eight times the same picture, as a network sees it in eight epochs:

# %%
augment = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip()])
seen = np.concatenate([pictures[:1], augment(np.repeat(pictures[:1], 7, axis=0), generator_for(0, 1))])
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for place, (ax, image) in enumerate(zip(axes, seen, strict=True)):
    ax.imshow(image.transpose(1, 2, 0))
    ax.set_title("original" if place == 0 else f"epoch {place}", fontsize=9)
    ax.axis("off")
plt.show()

# %% [markdown]
# A mirrored ship is a ship. A mirrored F is no F, and a mirrored digit is none either: which changes leave the answer
# as it is, the data decide, not the recipe.
#
# Now the whole recipe, for the same 128 pictures as in section 1, and once more with the normalisation first. Predict
# whether the order matters for the time.

# %%
last = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), Normalize(MEAN, STD)])
first = Compose([Normalize(MEAN, STD), RandomCrop(32, padding=4), RandomHorizontalFlip()])


def seconds_of(*actions, rounds=15):
    """The median time of each action, measured in turns, so that a busy machine is unfair to none."""
    times = [[] for _ in actions]
    for _ in range(rounds):
        for action, taken in zip(actions, times, strict=True):
            begin = time.perf_counter()
            action()
            taken.append(time.perf_counter() - begin)
    return [float(np.median(taken)) for taken in times]


batch = pictures[:128]
rates = {
    label: 128 / seconds
    for label, seconds in zip(
        ["one by one", "whole batch, normalised first", "whole batch, normalised last"],
        seconds_of(
            lambda: prepare_one_by_one(batch, rng),
            lambda: first(pictures[numbers], rng),
            lambda: last(pictures[numbers], rng),
        ),
        strict=True,
    )
}
figure, axes = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
bars = axes.barh(list(rates), list(rates.values()), color=["tab:orange", "tab:blue", "tab:blue"], height=0.6)
axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=4, backgroundcolor="white")
axes.axvline(20_000, color="0.4", linestyle=":", zorder=0)
axes.text(21_500, -0.62, "goal: 20,000", color="0.3", verticalalignment="center")
axes.set_ylim(2.5, -0.9)
axes.set_xlim(0, max(rates.values()) * 1.2)
axes.locator_params(axis="x", nbins=6)
axes.xaxis.set_major_formatter("{x:,.0f}")
axes.set_xlabel("pictures a second")
axes.set_title("Cropped, mirrored and normalised")
plt.show()

# %% [markdown]
# In several runs on a busy machine, measured in turns, whole batches were 11 to 34 times as fast as one by one, and
# gave 120,000 to 220,000 pictures a second with the normalisation last. What each step costs for a batch: 0.2 ms to
# crop, 0.1 ms to mirror, 0.2 ms to normalise. With the normalisation first, all the rest has to move floats, four bytes
# for each pixel in the place of one, and the whole takes 1.3 to 2 times as long. (The two orders differ in one thing
# besides: zeros that are padded before the normalisation are black, and those that are padded after it have the mean
# colour.)
#
# ## 8. Reading ahead
#
# So far everything happens in turns: the network waits while a batch is prepared, and the preparation waits while the
# network computes. A second **thread** can prepare the next batch meanwhile. Python lets only one thread run Python
# code at a time, but NumPy lets go of that lock while it copies and computes, and so does everything that waits for a
# disk.
#
# ```
#    thread     [batch 0][batch 1][batch 2][ waits: full ][batch 3] ...
#                        \         \        \
#    queue                ready     ready    ready          at most `depth` of them
#                              \
#    training            [ waits ][ step 0 ][ step 1 ][ step 2 ] ...
# ```
#
# A `Queue(depth)` between the two does nearly all of it: `put` waits while it is full, `get` waits while it is empty.
# It is the ends that are hard. Before you read on, think of three ways in which such a program can hang for ever.
#
# 1. **The thread is done, or has failed.** Nobody puts anything, and `get` waits for ever. So the thread's last word
#    must be a message: "end", or "error" with the exception.
# 2. **The consumer leaves half-way**, by `break`, an error or Ctrl-C. Nobody gets anything, and `put` waits for ever,
#    with the dataset in its hands. So the consumer's last act must be to say "stop" *and to make room* in the queue.
# 3. **The program ends.** Python waits for its threads, and this one may wait for a disk that never answers. So it is
#    a *daemon* thread, for which nobody waits.
#
# A generator's `finally` runs in all cases of 2: when it is used up, closed, when an exception goes through it, and
# when it is thrown away, since then Python closes it.
#
# ### Exercise: `fill` and `prefetched`

# %% nbgrader={"grade": false, "grade_id": "dataloader-prefetch", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def fill(source: Iterable[Any], ready: Queue[tuple[str, Any]], stop: Event) -> None:
    """What the thread does: put ``("item", x)`` into the queue for each x of ``source``, until ``stop`` is set.

    Its last message is ``("end", None)``, or ``("error", exception)`` whatever was raised; after a stop there is none.

    TODO: Put, look whether to stop, and see to it that the last word is said.

    APPROACH:
    1. For each item: put it, then return if `stop.is_set()`.
    2. When the source is used up, put the end.
    3. Around all of it: `except BaseException as error`, put the error.

    EXAMPLE:
    >>> ready = Queue(); fill([7], ready, Event()); ready.get(), ready.get()
    (('item', 7), ('end', None))

    HINT: Look at `stop` after each put: the put may have waited for a long time.
    """
    ### BEGIN SOLUTION
    try:
        for item in source:
            ready.put(("item", item))
            if stop.is_set():
                return
        ready.put(("end", None))
    except BaseException as error:
        ready.put(("error", error))
    ### END SOLUTION


def prefetched(source: Iterable[Any], depth: int) -> Iterator[Any]:
    """What ``source`` gives, worked out by a thread that is at most ``depth`` items ahead, and works on one more.

    An error in the source is raised here, with its own traceback, after the items before it. The thread ends when the
    source is used up, and as soon as it can when this iterator is closed, thrown away, or left by an exception.

    Raises
    ------
    ValueError
        If ``depth`` is less than 1.

    TODO: Start the thread, hand on what comes, and clean up in any case.

    APPROACH:
    1. A `Queue(depth)` and an `Event`.
    2. In a `try`: start a `Thread` with target `fill`, its arguments in `args`, and `daemon=True`. Then, for ever: get a
       message; return at the end, raise an error, yield an item.
    3. In its `finally`: set the event, then take out of the queue whatever is in it, without waiting.

    EXAMPLE:
    >>> list(prefetched(range(5), depth=2))
    [0, 1, 2, 3, 4]

    HINT: In this order: if you make room first and say stop second, the thread may fill the room in between.
    """
    if depth < 1:
        raise ValueError(f"prefetched: depth should be at least 1, got {depth}")
    ### BEGIN SOLUTION
    ready: Queue[tuple[str, Any]] = Queue(depth)
    stop = Event()
    try:
        Thread(target=fill, args=(source, ready, stop), daemon=True).start()
        while True:
            message, value = ready.get()
            if message == "end":
                return
            if message == "error":
                raise value
            yield value
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()
    ### END SOLUTION

# %% [markdown]
# What hangs cannot fail a test, so the tests let everything run in a thread of its own, and lose their patience after
# five seconds.

# %% nbgrader={"grade": false, "grade_id": "dataloader-scenarios", "locked": true, "schema_version": 3, "solution": false, "task": false}
import threading
from contextlib import suppress

PATIENCE = 5.0  # seconds


class Counter:
    """Counts from 0, remembers how far it was asked and by which thread, and fails at one number."""

    def __init__(self, stop, fails_at=None, error=ValueError):
        self.stop, self.fails_at, self.error = stop, fails_at, error
        self.given, self.thread = 0, None

    def __iter__(self):
        self.thread = threading.current_thread()
        for number in range(self.stop):
            if number == self.fails_at:
                raise self.error("cannot count further")
            self.given = number + 1
            yield number


def within_patience(function, *arguments):
    """What a call returns or raises, in a thread of its own; TimeoutError if it takes too long."""
    outcome = []

    def run():
        try:
            outcome.append((function(*arguments), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not outcome:
        called = f"{function.__name__}({', '.join(map(str, arguments))})"
        raise TimeoutError(f"{called} hangs: nothing came within {PATIENCE:g} s")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def soon(condition, seconds=PATIENCE):
    """Whether condition() becomes true within some seconds."""
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.001)
    return condition()


def has_ended(counter):
    """Whether the thread that counted ends, while there is still patience to say so."""
    counter.thread.join(PATIENCE / 2)
    return not counter.thread.is_alive()


def take_and_leave(how, taken=3, depth=2):
    """Take some of 10,000 numbers and leave in one of three ways; what came, how many were counted, did the thread end."""
    counter, got = Counter(10_000), []

    def loop():
        iterator = prefetched(counter, depth)
        for number in iterator:
            got.append(number)
            if len(got) == taken:
                break
        soon(lambda: counter.given > taken + depth, seconds=1.0)  # the queue is full, and the thread waits
        if how == "close":
            iterator.close()
        elif how == "throw away":
            del iterator
        elif how == "error":
            raise KeyError("of the consumer")

    with suppress(KeyError):
        loop()
    return got, counter.given, has_ended(counter)


def read_all(count, depth):
    """What comes of counting to `count` when it is read ahead."""
    return list(prefetched(Counter(count), depth))


def look_ahead(depth, taken=1):
    """How many numbers are counted before the consumer has taken more than `taken`, and by which thread."""
    counter = Counter(10_000)
    iterator = prefetched(counter, depth)
    for _ in range(taken):
        next(iterator)
    ahead = soon(lambda: counter.given >= taken + depth)
    too_far = soon(lambda: counter.given > taken + depth + 1, seconds=0.1)
    other = counter.thread is not threading.current_thread()
    iterator.close()
    return ahead, too_far, other


def is_daemon():
    """Whether the thread is one that nobody waits for; asked from the main thread, since threads inherit it."""
    counter = Counter(1)
    list(prefetched(counter, 1))
    return counter.thread.daemon


def read_until_it_fails(error, fails_at=3):
    """The numbers before the error; its class, its message, and the functions in its traceback; did the thread end."""
    counter, got = Counter(10, fails_at, error), []
    try:
        for number in prefetched(counter, 2):
            got.append(number)
    except BaseException as caught:
        functions, trace = [], caught.__traceback__
        while trace is not None:
            functions.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        return got, type(caught).__name__, str(caught), functions, has_ended(counter)
    return got, None, None, [], has_ended(counter)

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-prefetch", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_prefetched():
    for count, depth in [(10, 1), (10, 3), (0, 2), (2, 5)]:
        got = within_patience(read_all, count, depth)
        assert got == list(range(count)), f"{count} items, depth {depth}: all of them, in their order; got {got}"
    for depth in (1, 4):
        ahead, too_far, other_thread = within_patience(look_ahead, depth)
        assert other_thread, "the source should be read by another thread"
        assert ahead, f"with depth {depth}, the thread should work out {depth} items ahead"
        assert not too_far, f"with depth {depth}, the thread ran on and on: give the Queue its size"
    for how in ("close", "throw away", "error"):
        got, counted, ended = within_patience(take_and_leave, how)
        assert got == [0, 1, 2], f"expected 0, 1, 2, got {got}"
        assert ended, f"the consumer left ({how}), and the thread is still there: set the event, then empty the queue"
        assert counted < 10, f"the consumer left after 3 items, and the thread went on to {counted}: look at the event"
    for error in (ValueError, SystemExit):
        got, name, message, functions, ended = within_patience(read_until_it_fails, error)
        assert got == [0, 1, 2], f"first the items before the error: expected 0, 1, 2, got {got}"
        assert name == error.__name__ and message == "cannot count further", f"expected {error.__name__}, got {name}"
        assert "__iter__" in functions, f"raise that very exception, whose traceback leads into the source: {functions}"
        assert ended, "after an error the thread is done"
    assert is_daemon(), "daemon=True, or the program cannot end while the thread waits for a disk"
    with raises(ValueError, "depth", "0"):
        next(prefetched(Counter(3), 0))
    ### BEGIN HIDDEN TESTS
    deep, far = (int(n) for n in np.random.default_rng().integers(3, 40, size=2))
    assert within_patience(read_all, far, deep) == list(range(far))
    got, counted, ended = within_patience(take_and_leave, "close", far, deep)
    assert len(got) == far and ended and counted <= far + deep + 2, (far, deep, counted)
    ### END HIDDEN TESTS


test_prefetched()

# %% [markdown]
# What is gained? Below, a batch takes 10 ms to come from a slow disk (the thread sleeps, as if it waited), and a step
# of training takes 10 ms (the processor computes). Predict the time for 8 batches, in turns and with reading ahead.

# %%
work = np.ones(20_000, np.float32)


def busy(seconds):
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        np.sqrt(work)


def slow_batches(spans):
    for number in range(8):
        begin = time.perf_counter()
        time.sleep(0.010)
        spans.append((begin, time.perf_counter() - begin))
        yield number


def timeline(depth):
    loading, training = [], []
    batches = slow_batches(loading)
    for _ in prefetched(batches, depth) if depth else batches:
        begin = time.perf_counter()
        busy(0.010)
        training.append((begin, time.perf_counter() - begin))
    return loading, training


figure, rows = plt.subplots(2, 1, figsize=(8, 3), layout="constrained", sharex=True)
for axes, (label, depth) in zip(rows, {"in turns": 0, "reading ahead, depth 2": 2}.items(), strict=True):
    loading, training = timeline(depth)
    start, end = loading[0][0], sum(training[-1])
    for height, spans, color in [(1, loading, "tab:orange"), (0, training, "tab:blue")]:
        bars = [((begin - start) * 1e3, length * 1e3) for begin, length in spans]
        axes.broken_barh(bars, (height - 0.4, 0.8), facecolors=color, edgecolor="white")
    axes.set_yticks([0, 1], ["training", "loading"])
    axes.set_title(f"{label}: {(end - start) * 1e3:.0f} ms", loc="left", fontsize=10)
rows[-1].set_xlabel("time (ms)")
plt.show()

# %% [markdown]
# Measured: 168 ms in turns, 95 ms with the thread, for 160 ms of waiting and computing. Only the first batch is waited
# for. Mind what it was that overlapped: *waiting* and computing. Where the loader computes, too, it needs a core of its
# own; if the training keeps all cores busy, the work has only moved.
#
# ## 9. The DataLoader
#
# All the parts are there; the loader joins them. One promise ties it together: **batch k of epoch e is a function of
# the seed, e and k alone.** So a thread may prepare it or not, now or later, in a program that ran from the beginning
# or in one that was resumed: it is the same batch. Whoever trains says `loader.set_epoch(e)` before each epoch; whoever
# does not gets epoch 0, then 1, then 2.
#
# What comes out are Tensors: inputs by the dtype rule of module 02, and targets the same, but that bytes become int64:
# labels are stored as bytes, and indices are not.

# %%
#| export
def as_tensors(fetched: Any, is_target: bool = False) -> Any:
    """The arrays of a batch as Tensors, with no copy where the dtype stays; what is no array stays as it is.

    Float64 becomes float32, signed integers become int64. In a tuple, what follows the first entry are targets: of
    these unsigned integers become int64, too, and bytes of the first entry stay bytes.
    """
    if isinstance(fetched, tuple):
        return tuple(as_tensors(part, is_target or place > 0) for place, part in enumerate(fetched))
    if not isinstance(fetched, np.ndarray):
        return fetched
    kind = as_array(fetched[:0]).dtype if fetched.ndim else as_array(fetched).dtype
    return from_numpy(fetched.astype(np.int64 if is_target and kind.kind == "u" else kind, copy=False))

# %% [markdown]
# ### Exercise: `DataLoader`
#
# Three blanks, of a few lines each.

# %% nbgrader={"grade": false, "grade_id": "dataloader-loader", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class DataLoader:
    """Batches of a dataset, as often as it is iterated over: once for each epoch.

    Parameters
    ----------
    dataset
        Anything with ``len(dataset)`` and ``dataset[i]``: a Dataset, a list, an array. One that is ``batched`` is asked
        once for each batch.
    batch_size
        How many samples a batch holds.
    shuffle
        Whether each epoch visits the samples in a random order of its own; else they come as they are numbered.
    drop_last
        Whether a last batch that is incomplete is left out.
    collate_fn
        What makes a batch of a list of samples, in place of ``default_collate``. The dataset is then asked one by one.
    seed
        What all that is random depends on: batch k of epoch e is a function of the data, seed, e and k alone.
    prefetch
        How many finished batches a thread is ahead at most; 0 for no thread. The thread uses dataset, collate_fn and
        transform while you use the batches before.
    transform
        ``transform(inputs, generator)`` changes the inputs of a *whole batch*, an array (N, ...): the batch itself, or
        its first entry if it is a tuple. In PyTorch transforms belong to the dataset and change single samples; to do
        so, write a dataset whose ``__getitem__`` does. The generator is fresh for each batch.

    Iterating gives Tensors, or tuples of them: ``for inputs, targets in loader``; see ``as_tensors``.

    Raises
    ------
    ValueError
        If ``batch_size`` is less than 1 or ``prefetch`` less than 0.

    TODO: Fill in `load`, `batches` and `__iter__`.

    APPROACH:
    1. `load`: `fetch` the batch, with the loader's collate_fn. If there is a transform, call it on the inputs with
       `generator_for(seed, epoch, batch)`: of a tuple, replace the first entry. Return `as_tensors` of it.
    2. `batches`: the order of the epoch by `epoch_order`, cut by `index_batches`, numbered by `enumerate`; yield what
       `load` makes of each.
    3. `__iter__`: take `self.epoch` for this round, and set it to the next one. Return `batches(...)` of it, and if
       prefetch is not 0, what `prefetched` makes of these.

    EXAMPLE:
    >>> loader = DataLoader(TensorDataset([[1.0], [2.0], [3.0]], [0, 1, 0]), batch_size=2)
    >>> [targets.tolist() for inputs, targets in loader]
    [[0, 1], [0]]

    HINT: `__iter__` must hold no `yield` itself, or the epoch would be counted when the first batch is asked for, and not
    when the round begins.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int = 0,
        prefetch: int = 0,
        transform: Callable[[Array, np.random.Generator], Array] | None = None,
    ) -> None:
        if whole(batch_size) < 1:
            raise ValueError(f"DataLoader: batch_size should be at least 1, got {batch_size}")
        if whole(prefetch) < 0:
            raise ValueError(f"DataLoader: prefetch should be at least 0, got {prefetch}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn, self.seed, self.prefetch, self.transform = collate_fn, seed, prefetch, transform
        self.epoch = 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return batch_count(len(self.dataset), self.batch_size, self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be that of ``epoch``, the one after it that of ``epoch + 1``, and so on."""
        self.epoch = epoch

    def load(self, epoch: int, batch: int, numbers: Array) -> Any:
        """Batch number ``batch`` of ``epoch``, which holds the samples ``numbers``, transformed and as Tensors."""
        ### BEGIN SOLUTION
        loaded = fetch(self.dataset, numbers, self.collate_fn)
        if self.transform is not None:
            generator = generator_for(self.seed, epoch, batch)
            if isinstance(loaded, tuple):
                loaded = (self.transform(loaded[0], generator), *loaded[1:])
            else:
                loaded = self.transform(loaded, generator)
        return as_tensors(loaded)
        ### END SOLUTION

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of ``epoch``, each made when it is asked for."""
        ### BEGIN SOLUTION
        order = epoch_order(len(self.dataset), self.shuffle, self.seed, epoch)
        for batch, numbers in enumerate(index_batches(order, self.batch_size, self.drop_last)):
            yield self.load(epoch, batch, numbers)
        ### END SOLUTION

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch, read ahead by a thread if so wished."""
        ### BEGIN SOLUTION
        epoch, self.epoch = self.epoch, self.epoch + 1
        current = self.batches(epoch)
        return prefetched(current, self.prefetch) if self.prefetch else current
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-loader", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def drawn_on(loader):
    """The inputs of each batch of a round, as lists."""
    return [inputs.data.tolist() for inputs, _ in loader]


def test_loader():
    x, y = np.arange(20, dtype=np.float64).reshape(10, 2), np.arange(10, dtype=np.uint8)
    table = TensorDataset(x, y)
    batches = list(DataLoader(table, batch_size=4))
    assert len(batches) == 3, f"10 samples make 3 batches of 4, got {len(batches)}"
    inputs, targets = batches[2]
    assert isinstance(inputs, Tensor) and isinstance(targets, Tensor), "a batch consists of Tensors"
    close(inputs.data, [[16, 17], [18, 19]], dtype=np.float32, what="last batch", why="in order, without shuffling")
    close(targets.data, [8, 9], dtype=np.int64, what="its targets", why="bytes that are targets become int64")
    assert len(list(DataLoader(table, 4, drop_last=True))) == len(DataLoader(table, 4, drop_last=True)) == 2
    shuffled = DataLoader(table, 4, shuffle=True, seed=5)
    rounds = [[label for _, labels in shuffled for label in labels.tolist()] for _ in range(3)]
    for epoch, found in enumerate(rounds):
        order = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(epoch,))).permutation(10).tolist()
        assert found == order, f"round {epoch}: expected the order of epoch {epoch}, {order}; got {found}"
    shuffled.set_epoch(1)
    again = [label for _, labels in shuffled for label in labels.tolist()]
    assert again == rounds[1], "after set_epoch(1), the round is that of epoch 1"
    started = [iter(shuffled), iter(shuffled)]
    heads = [next(one)[1].tolist() for one in reversed(started)]
    assert heads[1] == rounds[2][:4], "a round's epoch is counted when iter() is called, not at its first batch"
    squares = Squares(6, damaged=4)
    close(next(iter(DataLoader(squares, 3)))[1].data, [0, 1, 4], dtype=np.int64, why="a plain dataset will do, too")
    joined = list(DataLoader(table, 5, collate_fn=lambda samples: sum(int(label) for _, label in samples)))
    assert joined == [10, 35], f"what a collate_fn gives is the batch; expected [10, 35], got {joined}"
    noise = lambda images, generator: images + generator.random(len(images))[:, None]  # noqa: E731
    noisy = DataLoader(table, 4, shuffle=True, seed=5, transform=noise)
    first, second = drawn_on(noisy), drawn_on(noisy)
    for epoch, found in enumerate((first, second)):
        for number, rows in enumerate(found):
            order = rounds[epoch][4 * number : 4 * number + 4]
            draw = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(epoch, number))).random(len(order))
            told = f"epoch {epoch}, batch {number}"
            close(rows, x[order] + draw[:, None], what=told, why="generator_for(seed, epoch, batch)")
    plain = DataLoader(x, 4, transform=lambda images, generator: -images)
    close(next(iter(plain)).data, -x[:4], why="a batch that is no tuple is transformed itself")
    for size, prefetch, told in [(0, 0, "batch_size"), (2, -1, "prefetch")]:
        with raises(ValueError, told):
            DataLoader(table, size, prefetch=prefetch)


test_loader()

# %% [markdown]
# With the thread the batches must be the same, and an error must arrive: with its note, and after the batches before
# it.

# %% nbgrader={"grade": false, "grade_id": "dataloader-threads", "locked": true, "schema_version": 3, "solution": false, "task": false}
def jitter(inputs, generator):
    return inputs + generator.random(inputs.shape)


def rounds_with(prefetch, epochs=2):
    """All that two epochs with a transform give, as lists, and whether a thread was at work."""
    seen = set()

    def spy(inputs, generator):
        seen.add(threading.current_thread())
        return jitter(inputs, generator)

    table = TensorDataset(np.arange(11.0), np.arange(11))
    loader = DataLoader(table, 3, shuffle=True, seed=9, prefetch=prefetch, transform=spy)
    got = [[(inputs.tolist(), targets.tolist()) for inputs, targets in loader] for _ in range(epochs)]
    return got, threading.current_thread() not in seen


def failing(prefetch):
    """The targets that came before the damaged sample, and the error."""
    got = []

    def read():
        for _, targets in DataLoader(Squares(9, damaged=5), 2, prefetch=prefetch):
            got.append(targets.tolist())

    return notes_of(read), got

# %% nbgrader={"grade": true, "grade_id": "test-dataloader-threads", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_threads():
    plain, in_thread = rounds_with(0)
    assert not in_thread, "with prefetch=0 there is no thread"
    for prefetch in (1, 4):
        ahead, in_thread = within_patience(rounds_with, prefetch)
        assert in_thread, f"with prefetch={prefetch} the batches should be made in another thread"
        assert ahead == plain, f"with prefetch={prefetch} the batches should be the same as without"
    for prefetch in (0, 2):
        notes, got = within_patience(failing, prefetch)
        assert notes == ["OSError", "this file is damaged", "in dataset[5]"], f"prefetch={prefetch}: {notes}"
        assert got == [[0, 1], [4, 9]], f"prefetch={prefetch}: two batches come before the error, got {got}"


test_threads()

# %% [markdown]
# All of it together, on 5,000 pictures: is the goal met? And what does it cost the loader to be asked for plain Python
# samples instead?

# %%
class OneByOne(Dataset):
    """The same samples, each prepared by itself, as in section 1."""

    def __len__(self):
        return len(pictures)

    def __getitem__(self, index):
        return prepare_one(pictures[index], rng).astype(np.float32), classes[index]


def epoch_of(loader):
    def run():
        for _ in loader:
            pass

    return run


def rates_of(**loaders):
    taken = seconds_of(*(epoch_of(loader) for loader in loaders.values()), rounds=3)
    return {name: round(len(loader.dataset) / s) for (name, loader), s in zip(loaders.items(), taken, strict=True)}


recipe = dict(batch_size=128, shuffle=True, transform=last)
rates_of(
    one_by_one=DataLoader(Subset(OneByOne(), np.arange(256)), 128, shuffle=True),
    batched=DataLoader(table, **recipe),
    batched_ahead=DataLoader(table, prefetch=2, **recipe),
)

# %% [markdown]
# In seven runs on a machine that had more or less other work to do: 3,000 to 15,000 pictures a second one by one, and
# eight to twelve times as many from the loader, order, fetching and Tensors included: 35,000 to 119,000. Reading ahead
# made no difference but by chance: nobody trained meanwhile, so there was nothing to hide behind.
#
# What does that make of an epoch? 50,000 pictures are loaded in about a second. A small convolutional network needs
# a minute for them. The loader has become what it should be: nothing to think about.
#
# ## 10. More data than memory
#
# Some data sets do not fit into memory. Then the array stays in its file, and the file is **mapped**: the operating
# system pretends that it is memory, and reads a page of it (4,096 bytes) when somebody looks there.
#
# ```python
# images = np.load("train_images.npy", mmap_mode="r")   # takes microseconds, whatever the size
# loader = DataLoader(TensorDataset(images, labels), batch_size=128, shuffle=True)
# ```
#
# Nothing in this module had to be written for that. `TensorDataset` kept the array, a Subset keeps numbers, and
# `array[numbers]` looks at nothing but the rows that it gives.
#
# Below, a file of 154 MB, as large as CIFAR-10, is thrown out of the system's memory. Then 500 of its 50,000 pictures
# are fetched, 1 %, or 1.5 MB: once in a row, once at random places, as a shuffling loader does. Predict how much the
# disk has to read in each case.

# %%
import mmap
import os
import resource
import tempfile
from pathlib import Path


def megabytes_read(images, numbers):
    """What the disk had to read to fetch some pictures of a mapped file, in MB, and the milliseconds it took."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_inblock, time.perf_counter()
    TensorDataset(images)[numbers]
    taken = time.perf_counter() - begin
    return (resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before) * 512 / 1e6, taken * 1e3


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "images.npy"
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(50_000, 3, 32, 32))
    file[:] = pictures[0]
    file.flush()
    del file
    scattered = np.random.default_rng(0).permutation(50_000)[:500]
    for label, numbers_wanted, advised in [
        ("in a row", np.arange(20_000, 20_500), False),
        ("at random", scattered, False),
        ("at random, and told so", scattered, True),
    ]:
        with path.open("rb") as opened:
            os.fsync(opened.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # forget what was read
        images = np.load(path, mmap_mode="r")
        if advised:
            images.base.madvise(mmap.MADV_RANDOM)
        read, milliseconds = megabytes_read(images, numbers_wanted)
        print(f"{label:24} {read:6.1f} MB read, {milliseconds:6.1f} ms")
        del images

# %% [markdown]
# Measured on that machine's disk (ext4; if your folder for temporary files lies in memory, there is nothing to read, and
# zeros are printed): 8.4 MB in a row, and at random **153.6 MB, the whole file**, for 1.5 MB of pictures. A system that
# has to fetch a page guesses that you will want its neighbours next, and fetches a stretch of them: up to 8 MB on this
# disk. (128 kB is more usual, so at most 64 MB for 500 pictures; on Linux, `/sys/block/*/queue/read_ahead_kb` says it.)
# In a row the guess is right. At random it is wrong, 500 times. `madvise(MADV_RANDOM)` tells the system not to guess:
# 3.6 MB, which is 1 or 2 pages of 4 kB for each picture.
#
# Which is better? If the file fits into memory, then the guessing is a gift: the whole file is there after a few
# batches, and each further epoch reads nothing. If it does not fit, every batch reads a hundred times what it needs,
# for ever: then say so. Your program holds one batch in either case.

# %% [markdown]
# ## What you have built
#
# `Dataset`, `TensorDataset`, `Subset`, `random_split` with `split_lengths`; `generator_for`, `epoch_order` and
# `index_batches`, which make every batch a function of seed, epoch and place; `default_collate` and `fetch`;
# `channel_statistics`, `Normalize`, `RandomHorizontalFlip`, `RandomCrop` and `Compose` on whole batches; `prefetched`,
# which reads ahead and never hangs; and the `DataLoader` that joins them.
#
# In the terminal: `tito module complete 10`. Then `from tinytorch.core.dataloader import DataLoader` is your class
# (`tinytorch.utils.data` shows the same names where PyTorch has them). The loader is what the `Trainer` of module 08
# takes, and with the convolutions of module 09 it reads photographs, in the milestone of 1998.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "dataloader-reflect-resume-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A run that was interrupted.** Training stopped in batch 200 of epoch 7, and is resumed from a file that holds the
# weights and these two numbers. Which batches does our loader give then, and why does it not matter whether a thread
# had read ahead? What would a loader have to save that keeps one generator for all, and what would go wrong in it
# with `prefetch=4`?
#
# === BEGIN MARK SCHEME ===
# 1 point: the same batches, order and augmentation, as they depend on (seed, epoch, batch) alone. 1 point: the thread
# only computes earlier, it changes nothing. 1 point: the other must save the generator's state, and that is already up
# to 5 batches (4 finished, one under way) ahead of what was trained on.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "dataloader-reflect-resume", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# After set_epoch(7) and 200 batches passed over, batch 200 has the same samples and the same flips and crops as before,
# because both come from generators made of seed, epoch and batch number. What the thread had worked out was never used
# up: it is simply worked out again. With a single generator its state must be saved at the moment when batch 199 has
# been drawn and batch 200 has not. With prefetch=4 the thread has drawn up to five batches more by then, so the saved
# state is too far on, and the resumed run skips their random numbers.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "dataloader-reflect-bottleneck-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Who waits for whom?** A step of training takes 20 ms on both cores, and a batch takes (a) 1 ms of computing, (b)
# 15 ms of waiting for a disk, (c) 15 ms of computing on one core, (d) 40 ms of waiting for a disk. About how long
# does a step take with `prefetch=2`, in each case? In which of them does a larger `prefetch` help?
#
# === BEGIN MARK SCHEME ===
# 1 point: (a) 20-21 ms, (b) about 20 ms. 1 point: (c) more than 20 ms, since the cores are taken: 27.5 ms at best (55 ms
# of work on two cores). 1 point: (d) 40 ms, and no depth helps on average; depth only evens out batches that vary.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "dataloader-reflect-bottleneck", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# (a) 20 to 21 ms; it hardly matters. (b) 20 ms: waiting takes no processor, so it disappears behind the step. (c) The
# work does not disappear: 40 ms of core time for the step and 15 for the batch, on two cores, are 27.5 ms at best.
# (d) 40 ms: the slower of the two sets the pace. A larger depth helps in none of these, on average. It evens out
# batches that take unequally long, and costs the memory of as many batches.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "dataloader-reflect-split-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A score that is too good.** 10,000 photographs of 500 dogs, 20 of each; the task is to name the breed.
# `random_split(photos, [0.8, 0.2])` and a network reach 97 %; in use it is 71 %. The mean and deviation for `Normalize`
# were computed over all 10,000. What is wrong, how would you split, and which of the two mistakes made the difference?
#
# === BEGIN MARK SCHEME ===
# 1 point: photographs of the same dog are in both parts; the network recognises dogs, not breeds. 1 point: split the
# 500 dogs, then take all photographs of each (Subset). 1 point: statistics over all are a leak in principle, but of
# two numbers a colour, of no weight here; they belong to the training part all the same.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "dataloader-reflect-split", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Drawn photograph by photograph, nearly every dog of the test part is in the training part, too, about 16 times. The
# network needs only to recognise the dog. Split the list of dogs at random, 400 and 100, and make two Subsets of the
# photographs of each. The statistics should come from the training part alone, but six numbers that hardly depend on
# the split explain none of the 26 points; the dogs do.
# ### END SOLUTION
