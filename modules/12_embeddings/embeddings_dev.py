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
# # Embeddings
#
# > Embeddings: token ids become vectors that can be trained, and positions become visible.
#
# Module 11 turned text into whole numbers. A network cannot compute with these: token 262 is not twice token 131, and
# no gradient can flow through a 262. What we want for each token is a *vector* of its own, a row of numbers that
# training can push about until tokens that behave alike lie close together.
#
# ```
#   "the cat" --tokenizer--> [83, 262] --embedding--> [[ 0.1, -0.3, ...],   + positions
#                                                      [ 0.7,  0.2, ...]]   --> attention (13)
# ```
#
# That is a table with a row for each token, and a lookup. It sounds too simple for a module. But the table is often
# the largest array of a model, its gradient hides the most famous bug of home-made frameworks, and a lookup alone
# cannot tell "dog bites man" from "man bites dog". By the end you will have met, measured and solved all three.
#
# Plan for about six hours. The first test is ten minutes away.

# %%
#| default_exp core.embeddings
#| export
from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import defvjp, no_grad
from tinytorch.core.layers import Dropout, Module, Parameter
from tinytorch.core.setup import measure, write_atomically
from tinytorch.core.tensor import Op, Tensor, apply, default_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]

# %% [markdown]
# ## 1. A lookup is a matrix product, in disguise
#
# The textbook says: write token `i` as a **one-hot** vector (all zeros, a single 1 at place `i`) and multiply by the
# weight matrix. The product of a one-hot vector with a matrix is row `i` of that matrix:
#
# ```
#                        [ w00 w01 ]
#   [ 0   1   0 ]   @    [ w10 w11 ]   =   [ w10 w11 ]
#                        [ w20 w21 ]
# ```
#
# Predict: for GPT-2's vocabulary of 50,257 tokens, how many multiplications does one token cost this way, with
# vectors of length 768? How many of them matter?
#
# ### Exercise: `one_hot_lookup`

# %% nbgrader={"grade": false, "grade_id": "embeddings-one-hot", "locked": false, "schema_version": 3, "solution": true, "task": false}
def one_hot_lookup(weight, ids):
    """Look up rows by multiplying with one-hot vectors.

    `weight` has shape (V, d), `ids` is a 1-D integer array of length n; the result has shape (n, d).

    TODO: Build the (n, V) matrix of one-hot rows and multiply.

    APPROACH:
    1. Start from `np.zeros((len(ids), V), dtype=weight.dtype)`.
    2. Set one 1 in each row: row k at column ids[k].
    3. One matrix product.

    EXAMPLE:
    >>> one_hot_lookup(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1, 0]))
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])

    HINT: `hot[np.arange(len(ids)), ids]` names one place in each row.
    """
    ### BEGIN SOLUTION
    hot = np.zeros((len(ids), weight.shape[0]), dtype=weight.dtype)
    hot[np.arange(len(ids)), ids] = 1
    return hot @ weight
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-one-hot", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_one_hot_lookup():
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    close(one_hot_lookup(weight, np.array([1, 1, 0])), [[3, 4], [3, 4], [1, 2]], why="row k should be weight[ids[k]]")
    ### BEGIN HIDDEN TESTS
    table = np.random.default_rng().normal(size=(7, 3))
    chosen = np.random.default_rng().integers(0, 7, size=11)
    close(one_hot_lookup(table, chosen), table[chosen], dtype=np.float64)
    close(one_hot_lookup(table.astype(np.float32), chosen), table[chosen], dtype=np.float32, why="keep weight's dtype")
    ### END HIDDEN TESTS


test_one_hot_lookup()

# %% [markdown]
# 50,257 x 768 = 38.6 million multiplications, and 768 of them by something other than zero. Taking the row directly
# gives the same numbers and multiplies nothing:

# %%
table = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
some_ids = np.random.default_rng(1).integers(0, 1000, size=256)
print("same rows:", np.allclose(one_hot_lookup(table, some_ids), np.take(table, some_ids, axis=0)))
by_product, by_lookup = measure(one_hot_lookup, table, some_ids), measure(np.take, table, some_ids, axis=0)
print(f"one-hot {by_product.median_s * 1e6:8.1f} µs   {by_product.peak_bytes / 1e6:5.2f} MB")
print(f"lookup  {by_lookup.median_s * 1e6:8.1f} µs   {by_lookup.peak_bytes / 1e6:5.2f} MB")

# %% [markdown]
# Section 7 measures this for three vocabularies. So why bother with the product at all? Because it tells us the
# gradient: an embedding *is* a linear layer on one-hot vectors, and everything you know about linear layers holds.
# Keep that in mind for section 4.
#
# ## 2. Ids, and everything that can be wrong with them
#
# Ids come from tokenizers, files and other people's code, and the mistakes are always the same: an id that the table
# does not have (a tokenizer with a larger vocabulary), a negative id (NumPy takes it silently, from the end: the
# worst of all), floats (ids that went through a tensor of floats). Each deserves an error that says what, where and
# what range.
#
# ### Exercise: `check_ids`

# %% nbgrader={"grade": false, "grade_id": "embeddings-check-ids", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def check_ids(ids: Any, vocab_size: int) -> Array:
    """Token ids as an integer array, every one of them between 0 and ``vocab_size`` - 1.

    Parameters
    ----------
    ids
        An int, a (nested) list, an array or a Tensor of whole numbers, of any shape; it may be empty.
    vocab_size
        How many rows the table has.

    Returns
    -------
    Array
        An integer array of the same shape.

    Raises
    ------
    TypeError
        If the ids are not whole numbers.
    IndexError
        If an id is out of range; it names the id, where it stands and the range.
    ValueError
        If the rows of a nested list differ in length.

    TODO: Refuse everything that is not an integer array within range.

    APPROACH:
    1. `tokens.dtype.kind` is "i" or "u" for whole numbers; anything else (floats, booleans) is a TypeError that
       names the dtype and says how to get ids: `.astype(np.int64)`. An empty list has no dtype worth looking at: let it
       pass, as int64.
    2. Find the ids that are below 0 or not below `vocab_size`.
    3. If there are any: IndexError that names the first such id, its position as a list, and the range.

    EXAMPLE:
    >>> check_ids([[1, 2], [7, 3]], 5)
    IndexError: embedding: id 7 at position [1, 0] is out of range; ids go from 0 to 4

    HINT: `np.argwhere(mask)[0].tolist()` is the position of the first True of a mask of any shape.
    """
    try:
        tokens = np.asarray(ids)
    except ValueError:
        raise ValueError("embedding: the rows of ids differ in length; pad them to one length first") from None
    ### BEGIN SOLUTION
    if tokens.size == 0:
        return tokens.astype(np.int64)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be whole numbers, got {tokens.dtype}; convert with .astype(np.int64)")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        spot = np.argwhere((tokens < 0) | (tokens >= vocab_size))[0].tolist()
        culprit = tokens[tuple(spot)]
        allowed = f"ids go from 0 to {vocab_size - 1}"
        raise IndexError(f"embedding: id {culprit} at position {spot} is out of range; {allowed}")
    return tokens
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-check-ids", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_check_ids():
    for ids in (3, [1, 2], [[1], [2]], np.zeros((2, 3), np.int32), []):
        try:
            got = check_ids(ids, 5)
        except (IndexError, TypeError, ValueError) as error:
            raise AssertionError(f"check_ids({ids!r}, 5): these ids are fine, but it raised {error!r}") from None
        assert type(got) is np.ndarray and got.dtype.kind in "iu", f"check_ids({ids!r}) should give an integer array"
        close(got, np.asarray(ids), what=f"check_ids({ids!r})")
    close(check_ids(Tensor([0, 4]), 5), [0, 4], why="ids 0 and vocab_size - 1 are both fine")
    with raises(IndexError, "id 7", "[1, 0]", "0 to 4"):
        check_ids([[1, 2], [7, 3]], 5)
    with raises(IndexError, "id 5", "[2]", why="the last id is vocab_size - 1, and the first wrong one is named"):
        check_ids([0, 1, 5, 9], 5)
    with raises(IndexError, "id -1", "[0]", why="NumPy would take row -1 from the end without a word"):
        check_ids([-1, 2], 5)
    with raises(TypeError, "float", why="name the dtype; floats are no ids, even if they are whole"):
        check_ids([1.0, 2.0], 5)
    with raises(TypeError, "bool", why="name the dtype; True and False are no ids"):
        check_ids(np.array([True, False]), 5)
    ### BEGIN HIDDEN TESTS
    sample = np.random.default_rng()
    good = sample.integers(0, 50, size=(3, 4, 5))
    close(check_ids(good.tolist(), 50), good)
    where_bad = tuple(int(n) for n in sample.integers(0, (3, 4, 5)))
    for wrong_id in (50, -3):
        broken = good.copy()
        broken[where_bad] = wrong_id
        with raises(IndexError, f"id {wrong_id}", str(list(where_bad)), "0 to 49", why="ids end at vocab_size - 1"):
            check_ids(broken, 50)
    with raises(TypeError, "float32"):
        check_ids(Tensor([0.0]), 5)
    close(check_ids([[]], 5), np.zeros((1, 0)), dtype=np.int64)
    ### END HIDDEN TESTS


test_check_ids()

# %% [markdown]
# ## 3. How the table begins
#
# Training starts from random rows, and their size matters: too small, and all tokens look alike to the layers above;
# too large, and the first gradients throw everything about. Four recipes are in use:
#
# | `init_type` | numbers drawn from | used by |
# |---|---|---|
# | `uniform` | evenly from ±1/√d | a common default: rows of length about 0.58 whatever d is |
# | `normal` | normal, σ = 1/√d | the same idea: rows of length about 1 |
# | `xavier` | evenly from ±√(6/(V + d)) | Glorot and Bengio, 2010, who had linear layers in mind |
# | `gpt2` | normal, σ = 0.02 | GPT-2 |
#
# Predict: xavier looks at V. What happens to the rows when the vocabulary is 50,000?
#
# ### Exercise: `initial_weight`

# %% nbgrader={"grade": false, "grade_id": "embeddings-init", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
INIT_TYPES = ("uniform", "normal", "xavier", "gpt2")


def initial_weight(vocab_size: int, embedding_dim: int, init_type: str = "uniform") -> Array:
    """A float32 table of random rows, drawn from the default generator.

    Parameters
    ----------
    vocab_size, embedding_dim
        The shape (V, d) of the table.
    init_type
        ``uniform``: ±1/√d. ``normal``: σ = 1/√d. ``xavier``: ±√(6/(V + d)) (Glorot and Bengio, 2010).
        ``gpt2``: σ = 0.02.

    Raises
    ------
    ValueError
        If ``init_type`` is none of the four; it names them.

    TODO: Draw the table by the recipe, as float32.

    APPROACH:
    1. `generator = default_generator()`; `generator.uniform(-bound, bound, size)` and
       `generator.normal(0, sigma, size)` draw.
    2. Choose bound or sigma by the table above.
    3. An unknown recipe: ValueError that repeats `init_type` and lists INIT_TYPES.

    EXAMPLE:
    >>> initial_weight(1000, 64).shape, initial_weight(1000, 64).dtype
    ((1000, 64), dtype('float32'))

    HINT: `astype(np.float32)` at the end; NumPy draws in float64.
    """
    ### BEGIN SOLUTION
    generator = default_generator()
    size = (vocab_size, embedding_dim)
    bounds = {"uniform": 1 / math.sqrt(embedding_dim), "xavier": math.sqrt(6 / (vocab_size + embedding_dim))}
    sigmas = {"normal": 1 / math.sqrt(embedding_dim), "gpt2": 0.02}
    if init_type in bounds:
        return generator.uniform(-bounds[init_type], bounds[init_type], size).astype(np.float32)
    if init_type in sigmas:
        return generator.normal(0, sigmas[init_type], size).astype(np.float32)
    raise ValueError(f"embedding: init_type {init_type!r} is unknown; choose one of {', '.join(INIT_TYPES)}")
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-init", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_initial_weight():
    vocab, dim = 800, 50
    for kind, spread in {
        "uniform": 1 / math.sqrt(dim) / math.sqrt(3),
        "normal": 1 / math.sqrt(dim),
        "xavier": math.sqrt(6 / (vocab + dim)) / math.sqrt(3),
        "gpt2": 0.02,
    }.items():
        drawn = initial_weight(vocab, dim, kind)
        want, got = f"float32 of shape {(vocab, dim)}", f"{drawn.dtype} of shape {drawn.shape}"
        assert got == want, f"{kind}: expected {want}, got {got}"
        close(drawn.std(), spread, rtol=0.05, what=f"{kind}: standard deviation", why="check the recipe's formula")
        close(drawn.mean(), 0, atol=0.05 * spread, what=f"{kind}: mean", why="the numbers lie on both sides of 0")
    close(np.abs(initial_weight(vocab, dim)).max(), 1 / math.sqrt(dim), rtol=0.01, why="uniform is the default")
    with raises(ValueError, "magic", *INIT_TYPES):
        initial_weight(4, 4, "magic")
    ### BEGIN HIDDEN TESTS
    rows, width = (int(n) for n in np.random.default_rng().integers(300, 600, size=2))
    edge = math.sqrt(6 / (rows + width))
    close(np.abs(initial_weight(rows, width, "xavier")).max(), edge, rtol=0.01)
    assert np.abs(initial_weight(rows, width, "normal")).max() > 2.5 / math.sqrt(width), "normal has no bound"
    assert np.abs(initial_weight(rows, width, "gpt2")).max() > 0.05, "normal has no bound"
    from tinytorch.core.tensor import manual_seed as seed_again

    seed_again(3)
    once = initial_weight(5, 4)
    seed_again(3)
    close(initial_weight(5, 4), once, why="draw from default_generator(), so that a seed repeats the table")
    ### END HIDDEN TESTS


test_initial_weight()

# %%
for vocab in (100, 50_000):
    lengths = {kind: np.linalg.norm(initial_weight(vocab, 64, kind), axis=1).mean() for kind in INIT_TYPES}
    print(f"V = {vocab:6}: mean length of a row  ", {kind: round(float(length), 3) for kind, length in lengths.items()})

# %% [markdown]
# With 50,000 tokens xavier's rows have shrunk to length 0.05, a twelfth of `uniform`'s: it divides by V as if every row
# were added up in each output, which is so in a linear layer, but a lookup uses one row at a time.
#
# ## 4. The gradient, and the bug that everybody writes
#
# Backwards, each position hands its gradient to the row that it took. When the same token appears twice, its row was
# used twice, so **its two gradients add up**:
#
# ```
#   ids        [3, 5, 3]            gradient of the table (V = 6)
#   upstream   [g0, g1, g2]         row 3:  g0 + g2
#                                   row 5:  g1
#                                   other rows: 0
# ```
#
# NumPy seems to have just the thing: `grad[ids] += g`. Predict what it gives for ids `[3, 3]` with ones upstream,
# then run:

# %%
grad = np.zeros((6, 2))
repeated = np.array([3, 3])
grad[repeated] += np.ones((2, 2))
grad[3]

# %% [markdown]
# Row 3 got 1, not 2. `grad[ids] += g` means: take the rows out, add, put them back. Both copies of row 3 were taken
# out at 0, both became 1, and the second overwrote the first. Nothing crashes. The loss even goes down, since most
# of a batch's different tokens come once; only the frequent ones, "the" above all, learn too little.
# `np.add.at(grad, ids, g)` adds one at a time.
#
# ### Exercise: `scatter_add`

# %% nbgrader={"grade": false, "grade_id": "embeddings-scatter-add", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def scatter_add(gradient: Array, ids: Array, vocab_size: int) -> Array:
    """The table in which row v is the sum of the rows of ``gradient`` whose id is v.

    Parameters
    ----------
    gradient
        Of shape ``ids.shape + (d,)``.
    ids
        Integers from 0 to ``vocab_size`` - 1, of any shape.

    Returns
    -------
    Array
        Of shape (vocab_size, d), in the dtype of ``gradient``.

    TODO: Add every row to its place, repeated ids included.

    APPROACH:
    1. Flatten: ids to (n,), the gradient to (n, d).
    2. A table of zeros, with the gradient's dtype.
    3. `np.add.at(table, ids, rows)`.

    EXAMPLE:
    >>> scatter_add(np.ones((2, 1)), np.array([3, 3]), 5).ravel()
    array([0., 0., 0., 2., 0.])

    HINT: `gradient.reshape(-1, gradient.shape[-1])` flattens all axes but the last.
    """
    ### BEGIN SOLUTION
    summed = np.zeros((vocab_size, gradient.shape[-1]), dtype=gradient.dtype)
    np.add.at(summed, ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1]))
    return summed
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-scatter-add", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_scatter_add():
    got = scatter_add(np.ones((2, 4), np.float32), np.array([3, 3]), 6)
    want = np.zeros((6, 4))
    want[3] = 2
    close(
        got,
        want,
        what="gradient of the table",
        why="the id 3 appears twice, so its gradients must add up: np.add.at, not +=",
    )
    assert got.dtype == np.float32, f"the table should have the gradient's dtype, float32, got {got.dtype}"
    nested = np.array([[[1.0], [2.0]], [[4.0], [8.0]]])
    close(scatter_add(nested, np.array([[0, 1], [0, 2]]), 3), [[5], [2], [8]], why="ids may have any shape")
    ### BEGIN HIDDEN TESTS
    pull = np.random.default_rng()
    tokens, upstream = pull.integers(0, 5, size=(4, 6)), pull.normal(size=(4, 6, 3))
    by_hand = np.zeros((7, 3))
    for token, row in zip(tokens.ravel(), upstream.reshape(-1, 3), strict=True):
        by_hand[token] += row
    close(scatter_add(upstream, tokens, 7), by_hand, dtype=np.float64)
    ### END HIDDEN TESTS


test_scatter_add()

# %% [markdown]
# Right, and slow: `np.add.at` visits one row after the other. Frequent tokens are the common case, so let us bring
# equal ids together first and sum each group in one go:
#
# ```
#   ids             [3, 5, 3, 0, 5]
#   order           [3, 0, 2, 1, 4]      argsort: where the ids stand, in ascending order
#   ids[order]      [0, 3, 3, 5, 5]
#   starts          [0, 1,    3   ]      where a new id begins
#   np.add.reduceat(rows[order], starts)  ->  one sum a group, for the rows 0, 3 and 5
# ```
#
# ### Exercise: `embedding_gradient`
#
# The same result as `scatter_add`, faster. (If you get stuck, calling `scatter_add` passes the tests too; come back
# later.)

# %% nbgrader={"grade": false, "grade_id": "embeddings-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def embedding_gradient(gradient: Array, ids: Array, vocab_size: int, padding_idx: int | None = None) -> Array:
    """The gradient of an embedding table: rows of ``gradient`` added up by id, and zero for the padding id.

    Parameters
    ----------
    gradient
        Of shape ``ids.shape + (d,)``.
    ids
        Integers from 0 to ``vocab_size`` - 1, of any shape; there may be none.
    padding_idx
        The id whose row gets no gradient, if any.

    Returns
    -------
    Array
        Of shape (vocab_size, d), in the dtype of ``gradient``.

    TODO: Sum the groups of equal ids, put each sum into its row, clear the padding row.

    APPROACH:
    1. Flatten as before. No ids at all: a table of zeros.
    2. `order = np.argsort(ids, kind="stable")`; a group starts at 0 and wherever a sorted id differs from the one before.
    3. `np.add.reduceat(rows[order], starts, axis=0)` gives the sums, for the ids `sorted_ids[starts]`.
    4. If there is a padding_idx, its row is zero.

    EXAMPLE:
    >>> embedding_gradient(np.ones((3, 1)), np.array([2, 0, 2]), 3).ravel()
    array([1., 0., 2.])

    HINT: `np.flatnonzero(np.diff(sorted_ids)) + 1` are the starts after the first.
    """
    ### BEGIN SOLUTION
    flat_ids, rows = ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
    summed = np.zeros((vocab_size, rows.shape[-1]), dtype=rows.dtype)
    if flat_ids.size:
        order = np.argsort(flat_ids, kind="stable")
        sorted_ids = flat_ids[order]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(sorted_ids)) + 1))
        summed[sorted_ids[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    if padding_idx is not None:
        summed[padding_idx] = 0
    return summed
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-gradient", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_embedding_gradient():
    hint = "the id 3 appears twice, so its gradients must add up"
    close(embedding_gradient(np.ones((2, 1)), np.array([3, 3]), 5), [[0], [0], [0], [2], [0]], why=hint)
    rows = np.array([[1], [2], [4]], np.float32)
    order = "rows and ids in the same order; a group starts where a sorted id differs from the one before"
    got = embedding_gradient(rows, np.array([2, 0, 2]), 3)
    close(got, [[2], [0], [5]], why=order)
    assert got.dtype == np.float32, f"the table should have the gradient's dtype, float32, got {got.dtype}"
    close(embedding_gradient(np.ones((3, 1)), np.array([2, 0, 2]), 3, 2), [[1], [0], [0]], why="id 2 is padding")
    close(embedding_gradient(np.ones((3, 1)), np.array([2, 0, 2]), 3, 0), [[0], [0], [2]], why="0 is a padding_idx too")
    close(embedding_gradient(np.zeros((0, 2)), np.zeros(0, np.int64), 3), np.zeros((3, 2)), why="no ids, no gradient")
    ### BEGIN HIDDEN TESTS
    pull = np.random.default_rng()
    for top, skip in [(3, None), (40, None), (40, int(pull.integers(40)))]:
        batch, upstream = pull.integers(0, top, size=(5, 8)), pull.normal(size=(5, 8, 3))
        one_by_one = np.zeros((40, 3))
        for token, row in zip(batch.ravel(), upstream.reshape(-1, 3), strict=True):
            one_by_one[token] += row if token != skip else 0
        close(embedding_gradient(upstream, batch, 40, skip), one_by_one, dtype=np.float64, why=order)
    ### END HIDDEN TESTS


test_embedding_gradient()

# %% [markdown]
# How much faster? Text is not random ids: a few tokens make up most of it. Here are 8,192 ids drawn as words are (the
# k-th most frequent one about 1/k as often as the first), and 8,192 drawn evenly.

# %%
draw = np.random.default_rng(0)
upstream = draw.normal(size=(8192, 64)).astype(np.float32)
zipf = 1 / np.arange(1, 1025)
for label, ids in {
    "as in text": draw.choice(1024, size=8192, p=zipf / zipf.sum()),
    "evenly": draw.integers(0, 1024, size=8192),
}.items():
    slow, fast = measure(scatter_add, upstream, ids, 1024), measure(embedding_gradient, upstream, ids, 1024)
    print(f"{label:10}  np.add.at {slow.median_s * 1e3:5.2f} ms   by groups {fast.median_s * 1e3:5.2f} ms   "
          f"{slow.median_s / fast.median_s:.1f}x")

# %% [markdown]
# Measured here, on 2 cores with NumPy 2.4: 7 ms one by one, 2 to 3 ms by groups, so two to three times as fast for either
# kind of ids.
#
# And if hardly any id comes twice, as when ids from a large vocabulary are drawn evenly? Then there is nothing to group,
# and moving each row three times is a waste. Copy one row of each id to its place, and add the few that are left:

# %%
#| export
def table_gradient(gradient: Array, ids: Array, vocab_size: int, padding_idx: int | None = None) -> Array:
    """``embedding_gradient``, in the way that is faster for these ids."""
    flat_ids, rows = ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
    numbers, one_of = np.arange(flat_ids.size), np.empty(vocab_size, np.int64)
    one_of[flat_ids] = numbers  # of each id, the number of one row that has it
    is_one = one_of[flat_ids] == numbers
    if is_one.sum() < 0.75 * flat_ids.size:
        return embedding_gradient(gradient, ids, vocab_size, padding_idx)
    grown = np.zeros((vocab_size, rows.shape[-1]), dtype=rows.dtype)
    grown[flat_ids[is_one]] = rows[is_one]
    np.add.at(grown, flat_ids[~is_one], rows[~is_one])
    if padding_idx is not None:
        grown[padding_idx] = 0
    return grown

# %%
upstream, ids = draw.normal(size=(8192, 64)).astype(np.float32), draw.integers(0, 50_000, size=8192)
groups, copies = (measure(f, upstream, ids, 50_000) for f in (embedding_gradient, table_gradient))
print(f"of 50,000  by groups {groups.median_s * 1e3:5.2f} ms   by copies {copies.median_s * 1e3:5.2f} ms")

# %% [markdown]
# ## 5. The operation, the rule and the layer
#
# Now the two halves meet. The operation takes rows, and its rule stands right below it. The ids get no gradient:
# `None`.
#
# `take_rows` is `np.take`, but for one thing. A lookup of many megabytes does nothing but wait for memory, and NumPy lets
# other threads of Python work meanwhile. So a large one is cut in half, and a second thread copies one of the halves.

# %%
#| export
LARGE_LOOKUP = 2**23
"""Above how many bytes a lookup is worth two threads: to hand a half over, and to wait for it, costs time as well."""


_second_thread = ThreadPoolExecutor(1)


def take_rows(table: Array, ids: Array) -> Array:
    """``table[ids]``, for ids that ``check_ids`` has seen: of shape ``ids.shape + (d,)``; a large one by two threads."""
    if ids.size * table.shape[1] * table.itemsize <= LARGE_LOOKUP:
        return np.take(table, ids, axis=0)
    rows = np.empty((*ids.shape, table.shape[1]), table.dtype)
    flat_ids, flat_rows = ids.reshape(-1), rows.reshape(-1, table.shape[1])

    def copy(part: slice) -> None:  # "clip" spares the buffer that np.take needs if it may have to raise half-way
        np.take(table, flat_ids[part], axis=0, out=flat_rows[part], mode="clip")

    middle = ids.size // 2
    first_half = _second_thread.submit(copy, slice(middle))
    copy(slice(middle, None))
    if first_half.cancel():  # it has not begun, so do it here: the other core may be busy for long
        copy(slice(middle))
    else:
        first_half.result()
    return rows


EMBEDDING = Op("embedding", lambda weight, ids, padding_idx=None: take_rows(weight, ids))


@defvjp(EMBEDDING)
def _(g: Array, out: Array, weight: Array, ids: Array, padding_idx: int | None = None) -> tuple[Any, None]:
    return lambda: table_gradient(g, ids, weight.shape[0], padding_idx), None

# %% [markdown]
# A rule may hand back a function instead of an array, as here: it is called only if the table wants its gradient.
#
# Why `np.take`, and not `weight[ids]`? The rows are the same:

# %%
words = np.random.default_rng(0).integers(0, 1000, size=8192)
indexed, taken = measure(lambda: table[words], repeats=50), measure(np.take, table, words, axis=0, repeats=50)
print(f"table[ids] {indexed.median_s * 1e6:6.1f} µs   np.take {taken.median_s * 1e6:6.1f} µs   "
      f"{indexed.median_s / taken.median_s:.1f}x")

# %% [markdown]
# Measured here: 170 µs against 70 µs, a factor of 2.4. `np.take` leaves the general indexing machinery aside. It accepts
# negative ids, too, but `check_ids` has been there first.
#
# And the second thread? Predict the ratio of the two, for 8,192 rows of 2 kB each from a table of 102 MB.

# %%
wide, words = np.ones((50_000, 512), np.float32), np.random.default_rng(0).integers(0, 50_000, size=8192)
alone, shared = measure(np.take, wide, words, axis=0, repeats=50), measure(take_rows, wide, words, repeats=50)
print(f"one thread {alone.median_s * 1e3:.1f} ms   two {shared.median_s * 1e3:.1f} ms   "
      f"{alone.median_s / shared.median_s:.1f}x")

# %% [markdown]
# Measured here, on 2 cores, the best of 200 each: 2.9 ms against 1.7 ms, a factor of 1.7. The second thread makes nothing
# cheaper; it only keeps the other core busy. Where both have work already, nothing is gained, and `cancel` takes the half
# back from a thread that waits for a core.
#
# Saving comes with the layer. A table of 150 MB that took a week to train deserves three promises: a file is never
# half written (write beside it, then rename), a file that was damaged is refused (a checksum), and a file never runs
# code when it is read (`.npy` without pickle). The numbers go into `name.npy`; `name.json` beside it, the manifest,
# says what they are. Two files cannot be renamed at once, so until the new manifest is there the old numbers wait as
# `name.npy.old`.

# %%
#| export
FORMAT = "tinytorch.embedding"
FORMAT_VERSION = 1


def saved_paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The numbers' and the manifest's file for ``path``, which may be given with or without ``.npy``."""
    base = Path(path)
    base = base.with_suffix("") if base.suffix in (".npy", ".json") else base
    return base.with_name(base.name + ".npy"), base.with_name(base.name + ".json")


def npy_bytes(array: Array) -> bytes:
    """``array`` as the content of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

# %% [markdown]
# ### Exercise: `make_manifest` and `read_table`
#
# One function writes down what the numbers are, the other believes nothing that it has not checked.

# %% nbgrader={"grade": false, "grade_id": "embeddings-manifest", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def make_manifest(table: Array, data: bytes, padding_idx: int | None) -> dict[str, Any]:
    """What a reader must know to trust ``data``, the ``.npy`` content of ``table``.

    Returns
    -------
    dict
        ``format``, ``version``, ``shape`` (a list), ``dtype`` (such as ``"float32"``), ``padding_idx`` and ``sha256``,
        the SHA-256 checksum of ``data`` in hexadecimal.

    TODO: Fill the dictionary.

    APPROACH:
    1. FORMAT and FORMAT_VERSION are above.
    2. `hashlib.sha256(data).hexdigest()`.

    EXAMPLE:
    >>> make_manifest(np.zeros((2, 3), np.float32), b"...", None)["shape"]
    [2, 3]

    HINT: JSON knows lists and strings, not tuples and dtypes: `list(...)`, `str(...)`.
    """
    ### BEGIN SOLUTION
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "shape": list(table.shape),
        "dtype": str(table.dtype),
        "padding_idx": padding_idx,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    ### END SOLUTION


def read_table(data: bytes, manifest: Any) -> Array:
    """The table that ``data``, the content of a ``.npy`` file, holds, if ``manifest`` vouches for it.

    Raises
    ------
    ValueError
        With the reason: not a manifest of this format, a newer version, numbers that are damaged or belong to another
        manifest, a shape or dtype that is not the one promised.

    TODO: Check format, version and checksum, read the array, check shape and dtype.

    APPROACH:
    1. `manifest` may be any JSON value; if it is no dict, or its "format" is not FORMAT: ValueError that names FORMAT.
    2. A "version" other than FORMAT_VERSION: ValueError that names both.
    3. The checksum of `data` differs from "sha256": ValueError that says so; the file is truncated, edited or another.
    4. `np.load(io.BytesIO(data), allow_pickle=False)`, then compare shape and dtype with the manifest. If one differs:
       ValueError that names the shape and dtype that came.

    EXAMPLE:
    >>> read_table(b"x", {"format": "tinytorch.embedding", "version": 99})
    ValueError: embedding file: version 99, this program reads version 1

    HINT: `manifest.get("sha256")` is None where the key is missing, and None is no checksum.
    """
    ### BEGIN SOLUTION
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"embedding file: the manifest is not of the format {FORMAT}")
    if manifest.get("version") != FORMAT_VERSION:
        other = manifest.get("version")
        raise ValueError(f"embedding file: version {other}, this program reads version {FORMAT_VERSION}")
    if manifest.get("sha256") != hashlib.sha256(data).hexdigest():
        raise ValueError("embedding file: the checksum differs: the .npy file is truncated, edited or another one")
    read: Array = np.load(io.BytesIO(data), allow_pickle=False)
    if list(read.shape) != manifest.get("shape") or str(read.dtype) != manifest.get("dtype"):
        raise ValueError(f"embedding file: holds {read.dtype} {read.shape}, the manifest says otherwise")
    return read
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-manifest", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_manifest():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = npy_bytes(rows)
    manifest = make_manifest(rows, data, 1)
    for key, want in {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "shape": [2, 3],
        "dtype": "float32",
        "padding_idx": 1,
        "sha256": hashlib.sha256(data).hexdigest(),
    }.items():
        got = manifest.get(key)
        assert type(got) is type(want) and json.dumps(got) == json.dumps(want), (
            f"{key} of the manifest: expected {want!r}, got {got!r}"
        )
    manifest = json.loads(json.dumps(manifest))
    close(read_table(data, manifest), rows, dtype=np.float32, rtol=0, atol=0)
    with raises(ValueError, "checksum", why="a truncated file must be refused"):
        read_table(data[:-1], manifest)
    with raises(ValueError, "checksum", why="an edited file must be refused"):
        read_table(data[:-1] + b"\x01", manifest)
    with raises(ValueError, "version 99", f"version {FORMAT_VERSION}"):
        read_table(data, manifest | {"version": 99})
    with raises(ValueError, "format", FORMAT):
        read_table(data, [1, 2])
    with raises(ValueError, "format"):
        read_table(data, manifest | {"format": "other"})
    ### BEGIN HIDDEN TESTS
    with raises(ValueError, "(2, 3)", why="the shape must be the one promised"):
        read_table(data, manifest | {"shape": [3, 2]})
    with raises(ValueError, "float32", why="the dtype must be the one promised"):
        read_table(data, manifest | {"dtype": "float64"})
    trojan = io.BytesIO()
    np.save(trojan, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with raises(ValueError, "pickle", why="reading a pickle can run code"):
        read_table(trojan.getvalue(), make_manifest(np.array([{}], dtype=object), trojan.getvalue(), None))
    with raises(ValueError, "checksum"):
        read_table(data, {name: value for name, value in manifest.items() if name != "sha256"})
    wide = np.random.default_rng().normal(size=(4, 2))
    packed = npy_bytes(wide)
    promised = make_manifest(wide, packed, None)
    assert promised["padding_idx"] is None and promised["dtype"] == "float64" and promised["shape"] == [4, 2], promised
    close(read_table(packed, promised), wide, dtype=np.float64, rtol=0, atol=0)
    ### END HIDDEN TESTS


test_manifest()

# %% [markdown]
# ### Exercise: `Embedding`
#
# Three blanks: the constructor's table, `forward` and `get_memory_usage`. Before you start, a question on paper:
# GPT-2's table has 50,257 rows of 768 float32 numbers. How many megabytes is that?

# %% nbgrader={"grade": false, "grade_id": "embeddings-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
MEBIBYTE = 1024**2


class Embedding(Module):
    """A table with a trainable row of ``embedding_dim`` numbers for each of ``vocab_size`` tokens.

    Parameters
    ----------
    vocab_size
        How many tokens there are; ids go from 0 to ``vocab_size`` - 1.
    embedding_dim
        The length of a row.
    padding_idx
        The id of a token that means nothing. Its row is zero and gets no gradient, so it stays zero.
    init_type
        How the rows begin: ``uniform``, ``normal``, ``xavier`` or ``gpt2``; see ``initial_weight``.

    Attributes
    ----------
    weight : Parameter
        The table, of shape (vocab_size, embedding_dim), float32.

    Raises
    ------
    ValueError
        If a size is not a positive whole number, ``padding_idx`` is no id, or ``init_type`` is unknown.

    TODO: Fill in the three blanks.

    APPROACH:
    1. `__init__`: draw the table with `initial_weight`; if there is a padding_idx, set its row to zero; keep it all as
       `self.weight`, a Parameter.
    2. `forward`: `check_ids`, then the operation EMBEDDING through the door: `apply(EMBEDDING, self.weight, ids, ...)`.
    3. `get_memory_usage`: the five numbers of its docstring.

    EXAMPLE:
    >>> layer = Embedding(vocab_size=100, embedding_dim=8)
    >>> layer([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3, 8)

    HINT: `padding_idx` 0 is an id like any other: compare with None, not with truth.
    """

    def __init__(
        self, vocab_size: int, embedding_dim: int, padding_idx: int | None = None, init_type: str = "uniform"
    ) -> None:
        super().__init__()
        for label, number in {"vocab_size": vocab_size, "embedding_dim": embedding_dim}.items():
            if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 1:
                raise ValueError(f"Embedding: {label} must be a positive whole number, got {number!r}")
        if padding_idx is not None and not 0 <= padding_idx < vocab_size:
            raise ValueError(f"Embedding: padding_idx {padding_idx} is no id; ids go from 0 to {vocab_size - 1}")
        self.vocab_size = int(vocab_size)
        self.embedding_dim = int(embedding_dim)
        self.padding_idx = padding_idx
        self.init_type = init_type
        ### BEGIN SOLUTION
        beginning = initial_weight(self.vocab_size, self.embedding_dim, init_type)
        if padding_idx is not None:
            beginning[padding_idx] = 0
        self.weight = Parameter(beginning)
        ### END SOLUTION

    def forward(self, ids: Any) -> Tensor:
        """The rows of ``ids``, a tensor of shape ``ids.shape + (embedding_dim,)``; see ``check_ids`` for the errors."""
        ### BEGIN SOLUTION
        return apply(EMBEDDING, self.weight, check_ids(ids, self.vocab_size), padding_idx=self.padding_idx)
        ### END SOLUTION

    def get_memory_usage(self) -> dict[str, float]:
        """What the table takes: ``total_memory_mb`` (1 MB = 1024² bytes), ``memory_per_token_kb`` (one row; 1 kB = 1024
        bytes), ``total_parameters``, ``vocab_size`` and ``embedding_dim``.
        """
        ### BEGIN SOLUTION
        table = self.weight.data
        return {
            "total_memory_mb": table.nbytes / MEBIBYTE,
            "memory_per_token_kb": table[0].nbytes / 1024,
            "total_parameters": table.size,
            "vocab_size": self.vocab_size,
            "embedding_dim": self.embedding_dim,
        }
        ### END SOLUTION

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"vocab_size={self.vocab_size}, embedding_dim={self.embedding_dim}{padding}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to ``path`` (``name`` or ``name.npy``) and its manifest to ``name.json``, both atomically.

        Whenever the writing is cut off, ``load`` finds the complete old table or the complete new one.
        """
        numbers, description = saved_paths(path)
        data = npy_bytes(self.weight.data)
        manifest = make_manifest(self.weight.data, data, self.padding_idx)
        waiting = numbers.with_name(numbers.name + ".old")
        if numbers.exists() and description.exists():
            os.replace(numbers, waiting)
        write_atomically(numbers, data)
        write_atomically(description, json.dumps(manifest, indent=2).encode())
        waiting.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """The embedding that ``save`` wrote to ``path``, bit for bit.

        Raises
        ------
        FileNotFoundError
            If one of the two files is missing.
        ValueError
            If they are damaged or do not belong together; it names the file and the reason.
        """
        numbers, description = saved_paths(path)
        try:
            manifest = json.loads(description.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"embedding file: {description} is not JSON: {error}") from None
        waiting = numbers.with_name(numbers.name + ".old")
        candidates = [file for file in (numbers, waiting) if file.exists()]
        if not candidates:
            raise FileNotFoundError(f"embedding file: {numbers} is missing beside its manifest {description.name}")
        problem: ValueError | None = None
        for file in candidates:
            try:
                table = read_table(file.read_bytes(), manifest)
            except ValueError as error:
                problem = problem or ValueError(f"{error} ({file})")
                continue
            layer = cls(table.shape[0], table.shape[1], manifest.get("padding_idx"))
            layer.weight = Parameter(table, dtype=table.dtype)
            return layer
        assert problem is not None
        raise problem

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-layer", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
import tempfile


def test_embedding():
    layer = Embedding(10, 4, padding_idx=0)
    assert type(layer.weight) is Parameter, f"weight should be a Parameter, it is a {type(layer.weight).__name__}"
    assert layer.weight.shape == (10, 4), f"weight should have shape (V, d) = (10, 4), it has {layer.weight.shape}"
    close(layer.weight.data[0], np.zeros(4), why="the padding row begins at zero, also for padding_idx 0")
    assert np.all(layer.weight.data[1:] != 0), "only the padding row is zero"
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    layer.weight.data = table.copy()
    for plain in (3, [1, 2], [[1, 2, 3], [4, 5, 6]], [[[7]]], [9, 9], []):
        for ids in (plain, np.array(plain, dtype=np.int64), Tensor(np.array(plain, dtype=np.int64))):
            rows = table[np.array(plain, dtype=np.int64)]
            close(layer(ids).data, rows, what=f"rows of {ids!r}", dtype=np.float32)
    with raises(IndexError, "id 10", "0 to 9", why="check_ids first"):
        layer([10])
    with raises(TypeError, "float", why="check_ids first"):
        layer([1.5])
    layer([3, 0, 3]).sum().backward()
    want = np.zeros((10, 4))
    want[3] = 2
    close(layer.weight.grad.data, want, what="gradient", why="id 3 counts twice; id 0 is padding: pass padding_idx on")
    usage = layer.get_memory_usage()
    for key, number in {
        "total_memory_mb": 160 / 1024**2,
        "memory_per_token_kb": 16 / 1024,
        "total_parameters": 40,
        "vocab_size": 10,
        "embedding_dim": 4,
    }.items():
        assert key in usage, f"get_memory_usage has no {key!r}, it has {list(usage)}"
        close(usage[key], number, rtol=1e-9, atol=0, what=key, why="40 numbers of 4 bytes; 1 kB is 1024 bytes")
    ### BEGIN HIDDEN TESTS
    assert np.abs(Embedding(300, 25, init_type="gpt2").weight.data).std() < 0.03, "pass init_type on"
    with raises(ValueError, "xavier"):
        Embedding(3, 3, init_type="zeros")
    dice = np.random.default_rng()
    pick, top = dice.integers(0, 10, size=(3, 5)), dice.normal(size=(3, 5, 4)).astype(np.float32)
    fresh = Embedding(10, 4, padding_idx=6)
    close(fresh.weight.data[6], np.zeros(4))
    (fresh(pick) * top).sum().backward()
    expect = np.zeros((10, 4))
    for token, row in zip(pick.ravel(), top.reshape(-1, 4), strict=True):
        expect[token] += row if token != 6 else 0
    close(fresh.weight.grad.data, expect, rtol=1e-4, atol=1e-5)
    with tempfile.TemporaryDirectory() as drawer:
        fresh.save(Path(drawer) / "rows.npy")
        again = Embedding.load(Path(drawer) / "rows")
        close(again.weight.data, fresh.weight.data, rtol=0, atol=0, dtype=np.float32)
        assert again.padding_idx == 6 and type(again.weight) is Parameter and again.weight.requires_grad
    ### END HIDDEN TESTS


test_embedding()

# %%
gpt2 = Embedding(50_257, 768, init_type="gpt2")
print(gpt2)
print(gpt2.get_memory_usage())

# %% [markdown]
# 147 MB for the table alone, 38.6 of GPT-2 small's 124 million parameters. While training with Adam you pay four
# times: the weights, their gradient and Adam's two moments, 589 MB, although one batch touches a few hundred rows.
#
# ## 6. Positions
#
# To a lookup, and to the attention of the next module, a sentence is a bag: "dog bites man" and "man bites dog" give
# the same three vectors. So each position gets a vector too, and it is **added** to the token's.
#
# The vectors of "Attention Is All You Need" (Vaswani et al., 2017) are not trained. Dimension pairs are clocks of
# different speeds:
#
# $$PE_{pos,\,2i} = \sin\left(\frac{pos}{10000^{2i/d}}\right) \qquad PE_{pos,\,2i+1} = \cos\left(\frac{pos}{10000^{2i/d}}\right)$$
#
# The first pair turns once in 6.3 positions, the last one of a wide vector once in nearly 63,000: a hand for the
# seconds, one for the minutes, one for the hours.
#
# ### Exercise: `sinusoidal_positions`

# %% nbgrader={"grade": false, "grade_id": "embeddings-sinusoidal", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def sinusoidal_positions(max_seq_length: int, embedding_dim: int) -> Array:
    """The sinusoidal position table of Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

    Returns
    -------
    Array
        Of shape (max_seq_length, embedding_dim), float32: sine in the even columns, cosine in the odd ones. With an odd
        ``embedding_dim`` the last sine has no cosine beside it.

    TODO: Compute the angles, then fill even and odd columns.

    APPROACH:
    1. Positions as a column, (max_seq_length, 1); the even column numbers 0, 2, 4, ... as a row.
    2. `angles = positions / 10000 ** (even / embedding_dim)`, broadcast to (max_seq_length, number of even columns).
    3. Even columns: sine of all angles. Odd columns: cosine of as many angles as there are odd columns.

    EXAMPLE:
    >>> sinusoidal_positions(2, 4)
    array([[0.        , 1.        , 0.        , 1.        ],
           [0.84147096, 0.5403023 , 0.00999983, 0.99995   ]], dtype=float32)

    HINT: `table[:, 0::2]` are the even columns, `table[:, 1::2]` the odd ones; for odd d there is one odd column fewer.
    """
    ### BEGIN SOLUTION
    positions = np.arange(max_seq_length)[:, None]
    angles = positions / 10000.0 ** (np.arange(0, embedding_dim, 2) / embedding_dim)
    waves = np.empty((max_seq_length, embedding_dim), dtype=np.float32)
    waves[:, 0::2] = np.sin(angles)
    waves[:, 1::2] = np.cos(angles[:, : embedding_dim // 2])
    return waves
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-sinusoidal", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_sinusoidal_positions():
    waves = sinusoidal_positions(3, 4)
    close(waves[0], [0, 1, 0, 1], why="at position 0 every angle is 0; sine 0 in even columns, cosine 1 in odd ones")
    assert waves.dtype == np.float32, f"the table should be float32, got {waves.dtype}"
    close(waves[1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)], why="10000 ** (2 / 4) is 100")
    close(sinusoidal_positions(2, 5)[1], [0.8414710, 0.5403023, 0.0251162, 0.9996845, 0.0006310], rtol=1e-4)
    close(sinusoidal_positions(4, 1)[:, 0], np.sin(np.arange(4)), why="d = 1 is a single sine")
    ### BEGIN HIDDEN TESTS
    size = np.random.default_rng()
    for width in (int(size.integers(2, 20)) * 2, int(size.integers(2, 20)) * 2 + 1):
        chart = sinusoidal_positions(60, width)
        spot, column = int(size.integers(1, 60)), int(size.integers(0, width))
        wave = math.sin if column % 2 == 0 else math.cos
        close(chart[spot, column], wave(spot / 10000 ** ((column - column % 2) / width)), rtol=1e-3, atol=1e-5)
        assert chart.shape == (60, width) and chart.dtype == np.float32
    far = math.cos(1999 / 10000 ** (30 / 64))
    close(sinusoidal_positions(2000, 64)[1999, 31], far, atol=1e-4, why="the base is 10000")
    ### END HIDDEN TESTS


test_sinusoidal_positions()

# %% [markdown]
# ### Exercise: `PositionalEncoding`
#
# The layer adds the first T rows of the table to whatever it gets, checks that they fit, and, while training, drops
# some.

# %% nbgrader={"grade": false, "grade_id": "embeddings-positional", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def check_sequence(name: str, x: Any, max_seq_length: int, embedding_dim: int) -> Tensor:
    """``x`` as a tensor of shape (..., T, embedding_dim) with T at most ``max_seq_length``.

    Raises
    ------
    ValueError
        If it has another number of axes than 2 or 3, another width, or is too long; it names what came and what fits.
    TypeError
        If it holds whole numbers: ids go through an Embedding first.

    TODO: Three checks, each with its own message.

    APPROACH:
    1. Not 2 or 3 axes: ValueError that names the shape that came and the two that fit, such as (T, 4) and (B, T, 4).
    2. `sequence.shape[-1]` is not embedding_dim: ValueError that names both widths.
    3. `sequence.shape[-2]` is more than max_seq_length: ValueError that names both lengths.
    Each message begins with `name`.

    EXAMPLE:
    >>> check_sequence("PositionalEncoding", np.zeros((9, 4)), max_seq_length=8, embedding_dim=4)
    ValueError: PositionalEncoding: the sequence has length 9, at most 8 fit

    HINT: A sequence of exactly max_seq_length fits.
    """
    sequence: Tensor = x if isinstance(x, Tensor) else Tensor(x)
    if sequence.dtype.kind != "f":
        raise TypeError(f"{name}: got {sequence.dtype}; ids go through an Embedding first, and its result comes here")
    ### BEGIN SOLUTION
    if sequence.ndim not in (2, 3):
        raise ValueError(f"{name}: expected (T, {embedding_dim}) or (B, T, {embedding_dim}), got {sequence.shape}")
    length, width = sequence.shape[-2:]
    if width != embedding_dim:
        raise ValueError(f"{name}: the vectors have width {width}, expected embedding_dim {embedding_dim}")
    if length > max_seq_length:
        raise ValueError(f"{name}: the sequence has length {length}, at most {max_seq_length} fit")
    return sequence
    ### END SOLUTION


class PositionalEncoding(Module):
    """Adds sinusoidal positions to a sequence of vectors (Vaswani et al., 2017, section 3.5).

    Parameters
    ----------
    embedding_dim
        The width of the vectors.
    max_seq_length
        The longest sequence that can come.
    dropout
        The part of the sums that is dropped while training.

    Attributes
    ----------
    pe : array
        The table, of shape (max_seq_length, embedding_dim), float32. It is saved with the model and not trained.

    TODO: Fill in `forward`.

    APPROACH:
    1. `check_sequence`.
    2. Add the first T rows of `self.pe` (T is the second axis from the right).
    3. Send the sum through `self.dropout`.

    EXAMPLE:
    >>> PositionalEncoding(4)(np.zeros((2, 3, 4))).shape
    (2, 3, 4)

    HINT: (B, T, d) + (T, d) broadcasts by itself.
    """

    def __init__(self, embedding_dim: int, max_seq_length: int = 5000, dropout: float = 0.0) -> None:
        super().__init__()
        for label, number in {"embedding_dim": embedding_dim, "max_seq_length": max_seq_length}.items():
            if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 1:
                raise ValueError(f"PositionalEncoding: {label} must be a positive whole number, got {number!r}")
        self.embedding_dim = int(embedding_dim)
        self.max_seq_length = int(max_seq_length)
        self.pe: Array
        self.register_buffer("pe", sinusoidal_positions(self.max_seq_length, self.embedding_dim))
        self.dropout = Dropout(dropout)

    def forward(self, x: Any) -> Tensor:
        """``x``, of shape (T, d) or (B, T, d), plus the positions 0 to T - 1; see ``check_sequence`` for the errors."""
        ### BEGIN SOLUTION
        sequence = check_sequence("PositionalEncoding", x, self.max_seq_length, self.embedding_dim)
        dropped: Tensor = self.dropout(sequence + self.pe[: sequence.shape[-2]])
        return dropped
        ### END SOLUTION

    def extra_repr(self) -> str:
        return f"embedding_dim={self.embedding_dim}, max_seq_length={self.max_seq_length}"

    def visualize_encoding(self, positions: int = 100) -> Figure:
        """Draw the first ``positions`` rows of the table as a heat map, and return the figure. Needs matplotlib."""
        import matplotlib.pyplot as plt

        shown = self.pe[: min(positions, self.max_seq_length)]
        figure, axes = plt.subplots(figsize=(8, 4))
        image = axes.imshow(shown, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_xlabel("dimension (even: sine, odd: cosine)")
        axes.set_ylabel("position")
        axes.set_title(f"Sinusoidal positions, {shown.shape[0]} x {shown.shape[1]}")
        figure.colorbar(image, ax=axes)
        return figure

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-positional", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_positional_encoding():
    layer = PositionalEncoding(4, max_seq_length=8)
    assert layer.pe.shape == (8, 4), "pe has shape (max_seq_length, embedding_dim)"
    waves = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    layer.pe = waves.copy()
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    close(layer(Tensor(base)).data, base + waves[:3], dtype=np.float32, why="the first T rows of pe, as they are")
    pair = np.stack([base, base + 1])
    close(layer(Tensor(pair)).data, pair + waves[:3], why="both sequences start at position 0")
    assert layer(Tensor(np.zeros((8, 4)))).shape == (8, 4), "a sequence of exactly max_seq_length fits"
    with raises(ValueError, "PositionalEncoding", "9", "8"):
        layer(Tensor(np.zeros((9, 4))))
    with raises(ValueError, "PositionalEncoding", "3", "4"):
        layer(Tensor(np.zeros((2, 3))))
    with raises(ValueError, "PositionalEncoding", "(4,)", "(T, 4)", "(B, T, 4)"):
        layer(Tensor(np.zeros(4)))
    with raises(TypeError, "ids"):
        layer([[1, 2, 3, 4]])
    x = Tensor(np.ones((3, 4)), requires_grad=True)
    (layer(x) * 3.0).sum().backward()
    close(x.grad.data, np.full((3, 4), 3), what="gradient of the input")
    ### BEGIN HIDDEN TESTS
    noise = np.random.default_rng().normal(size=(2, 5, 6)).astype(np.float32)
    close(PositionalEncoding(6)(Tensor(noise)).data, noise + sinusoidal_positions(5, 6), rtol=1e-4)
    with raises(ValueError, "PositionalEncoding", "3", "2"):
        PositionalEncoding(6, max_seq_length=2)(Tensor(np.zeros((1, 3, 6))))
    with raises(ValueError):
        layer(Tensor(np.zeros((1, 1, 2, 4))))
    dropping = PositionalEncoding(50, max_seq_length=40, dropout=0.5)
    kept = float((dropping(Tensor(np.full((40, 50), 9.0))).data != 0).mean())
    assert 0.4 < kept < 0.6, f"dropout 0.5 keeps about half, got {kept:.2f}: send the sum through self.dropout"
    dropping.eval()
    assert np.all(dropping(Tensor(np.full((40, 50), 9.0))).data != 0), "in eval mode nothing is dropped"
    ### END HIDDEN TESTS


test_positional_encoding()

# %%
import matplotlib.pyplot as plt

PositionalEncoding(64).visualize_encoding()
plt.show()

# %% [markdown]
# Read it from left to right: fast stripes, slower stripes, and columns that hardly change within 100 positions. No
# two rows are alike. The picture below asks the question that matters to attention: how similar, as a dot product,
# are two positions at a given distance? Predict: will the answer depend on where the two stand, or on their distance
# alone?

# %%
waves = sinusoidal_positions(200, 64)
figure, axes = plt.subplots(figsize=(7, 3))
for start, linewidth in ((20, 8), (50, 4), (100, 1.5)):
    distance = np.arange(-20, 81)
    axes.plot(distance, waves[start + distance] @ waves[start], label=f"from position {start}", linewidth=linewidth)
axes.set_xlabel("distance")
axes.set_ylabel("dot product")
axes.set_title("How alike are two positions?")
axes.legend()
plt.show()

# %% [markdown]
# Three curves on one line (so they are drawn in three widths). For each pair of dimensions the dot product is
# sin a sin b + cos a cos b = cos(a - b): only the difference is left. That is why the encoding uses sine *and* cosine.
#
# GPT-2 does it differently: one trained row for each position, an embedding of the numbers 0, 1, 2, ...
#
# ### Exercise: `LearnedPositionalEmbedding`

# %% nbgrader={"grade": false, "grade_id": "embeddings-learned", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class LearnedPositionalEmbedding(Module):
    """Adds a trained vector for each position, as GPT-2 does (Radford et al., 2019).

    Parameters
    ----------
    max_seq_length
        The longest sequence that can come; beyond it there is nothing to look up.
    embedding_dim
        The width of the vectors.

    Attributes
    ----------
    position_embedding : Embedding
        The table of positions, begun as GPT-2's (σ = 0.02).

    TODO: Make the table in `__init__`, and use it in `forward`.

    APPROACH:
    1. An Embedding with max_seq_length rows, init_type "gpt2".
    2. `check_sequence`, then look up the positions 0 to T - 1 and add.

    EXAMPLE:
    >>> LearnedPositionalEmbedding(16, 4)(np.zeros((2, 3, 4))).shape
    (2, 3, 4)

    HINT: `np.arange(T)` are ids like any others.
    """

    def __init__(self, max_seq_length: int, embedding_dim: int) -> None:
        super().__init__()
        self.max_seq_length = max_seq_length
        self.embedding_dim = embedding_dim
        ### BEGIN SOLUTION
        self.position_embedding = Embedding(max_seq_length, embedding_dim, init_type="gpt2")
        ### END SOLUTION

    def forward(self, x: Any) -> Tensor:
        """``x``, of shape (T, d) or (B, T, d), plus the trained rows 0 to T - 1; ``check_sequence`` has the errors."""
        ### BEGIN SOLUTION
        sequence = check_sequence("LearnedPositionalEmbedding", x, self.max_seq_length, self.embedding_dim)
        places: Tensor = self.position_embedding(np.arange(sequence.shape[-2]))
        return sequence + places
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-learned", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_learned_positions():
    layer = LearnedPositionalEmbedding(6, 4)
    assert type(layer.position_embedding) is Embedding, "position_embedding is an Embedding"
    table = layer.position_embedding.weight
    assert table.shape == (6, 4), f"one row for each position: expected shape (6, 4), got {table.shape}"
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    table.data = rows.copy()
    close(layer(Tensor(np.ones((2, 3, 4)))).data, np.ones((2, 3, 4)) + rows[:3])
    layer(Tensor(np.ones((2, 3, 4)))).sum().backward()
    want = np.zeros((6, 4))
    want[:3] = 2
    close(table.grad.data, want, what="gradient of the positions", why="2 sequences share each of the first 3 rows")
    with raises(ValueError, "7", "6", why="check_sequence first"):
        layer(Tensor(np.zeros((7, 4))))
    ### BEGIN HIDDEN TESTS
    assert layer(Tensor(np.zeros((6, 4)))).shape == (6, 4)
    with raises(ValueError, "LearnedPositionalEmbedding", "5", "4"):
        layer(Tensor(np.zeros((2, 5))))
    begun = LearnedPositionalEmbedding(400, 30).position_embedding.weight.data
    close(begun.std(), 0.02, rtol=0.05, why="GPT-2 begins with a standard deviation of 0.02")
    given = np.random.default_rng().normal(size=(3, 30)).astype(np.float32)
    other = LearnedPositionalEmbedding(9, 30)
    learned = np.random.default_rng().normal(size=(9, 30)).astype(np.float32)
    other.position_embedding.weight.data = learned.copy()
    close(other(Tensor(given)).data, given + learned[:3], rtol=1e-4)
    ### END HIDDEN TESTS


test_learned_positions()

# %% [markdown]
# ## 7. Measuring: what a lookup costs
#
# A lookup multiplies nothing. It copies rows, so its speed is the speed of memory. A profiler tells how close we come.
#
# ### Exercise: `EmbeddingProfiler.measure_lookup_performance`

# %% nbgrader={"grade": false, "grade_id": "embeddings-profiler", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class EmbeddingProfiler:
    """Measures what embeddings cost in time and memory. 1 MB is 1024² bytes.

    TODO: Fill in the blank of `measure_lookup_performance`: the numbers for one batch and sequence length.

    APPROACH:
    1. `layer(ids)` is timed for you by `measure`: its `median_s` is in seconds, its `result` is the tensor.
    2. Memory of ids and result: their arrays' `nbytes`.
    3. The bandwidth counts what moves: the rows are read and written, so twice the output, by the time in seconds.

    EXAMPLE:
    >>> EmbeddingProfiler().measure_lookup_performance(Embedding(100, 8), [2], [4])["batch_2_seq_4"]["total_tokens"]
    8

    HINT: 1 s = 1e3 ms = 1e6 µs.
    """

    def __init__(self, repeats: int = 5) -> None:
        self.repeats = repeats

    def measure_lookup_performance(
        self, layer: Embedding, batch_sizes: Sequence[int], seq_lengths: Sequence[int]
    ) -> dict[str, dict[str, float]]:
        """Time lookups of random ids, one entry ``batch_8_seq_32`` for each pair of sizes.

        Each has ``batch_size``, ``seq_length``, ``total_tokens``, ``lookup_time_ms``, ``tokens_per_second``,
        ``input_memory_mb`` (the ids), ``output_memory_mb``, ``memory_bandwidth_mb_s`` (rows read and written, by the
        time) and ``time_per_token_us``.
        """
        generator = np.random.default_rng(0)
        report: dict[str, dict[str, float]] = {}
        for batch_size in batch_sizes:
            for seq_length in seq_lengths:
                ids = generator.integers(0, layer.vocab_size, size=(batch_size, seq_length))
                with no_grad():
                    measured = measure(layer, ids, repeats=self.repeats)
                ### BEGIN SOLUTION
                seconds, moved = measured.median_s, measured.result.data.nbytes
                report[f"batch_{batch_size}_seq_{seq_length}"] = {
                    "batch_size": batch_size,
                    "seq_length": seq_length,
                    "total_tokens": ids.size,
                    "lookup_time_ms": seconds * 1e3,
                    "tokens_per_second": ids.size / seconds,
                    "input_memory_mb": ids.nbytes / MEBIBYTE,
                    "output_memory_mb": moved / MEBIBYTE,
                    "memory_bandwidth_mb_s": 2 * moved / MEBIBYTE / seconds,
                    "time_per_token_us": seconds * 1e6 / ids.size,
                }
                ### END SOLUTION
        return report

    def analyze_memory_scaling(
        self, vocab_sizes: Sequence[int], embedding_dims: Sequence[int]
    ) -> dict[str, dict[str, float]]:
        """Tables of every size, one entry ``vocab_500_dim_64`` each: ``vocab_size``, ``embedding_dim``,
        ``total_parameters``, ``memory_mb`` and ``lookup_time_ms`` (of 32 x 32 random ids).
        """
        report: dict[str, dict[str, float]] = {}
        for vocab_size in vocab_sizes:
            for embedding_dim in embedding_dims:
                layer = Embedding(vocab_size, embedding_dim)
                usage = layer.get_memory_usage()
                lookup = self.measure_lookup_performance(layer, [32], [32])["batch_32_seq_32"]
                report[f"vocab_{vocab_size}_dim_{embedding_dim}"] = {
                    "vocab_size": vocab_size,
                    "embedding_dim": embedding_dim,
                    "total_parameters": usage["total_parameters"],
                    "memory_mb": usage["total_memory_mb"],
                    "lookup_time_ms": lookup["lookup_time_ms"],
                }
        return report

    def compare_positional_encodings(
        self, seq_length: int = 100, embedding_dim: int = 256
    ) -> dict[str, dict[str, float | bool]]:
        """``sinusoidal`` against ``learned``, each with ``computation_time_ms`` (one forward pass), ``memory_usage_mb``
        (the table), ``parameters`` (trained numbers), ``deterministic`` (the same table in every model) and
        ``extrapolation`` (defined beyond the training length).
        """
        x = Tensor(np.zeros((1, seq_length, embedding_dim)))
        sinusoidal = PositionalEncoding(embedding_dim, max_seq_length=seq_length)
        learned = LearnedPositionalEmbedding(seq_length, embedding_dim)
        report: dict[str, dict[str, float | bool]] = {}
        for name, layer, table in [
            ("sinusoidal", sinusoidal, sinusoidal.pe),
            ("learned", learned, learned.position_embedding.weight.data),
        ]:
            with no_grad():
                seconds = measure(layer, x, repeats=self.repeats).median_s
            report[name] = {
                "computation_time_ms": seconds * 1e3,
                "memory_usage_mb": table.nbytes / MEBIBYTE,
                "parameters": sum(parameter.size for parameter in layer.parameters()),
                "deterministic": name == "sinusoidal",
                "extrapolation": name == "sinusoidal",
            }
        return report

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-profiler", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_profiler():
    report = EmbeddingProfiler(repeats=3).measure_lookup_performance(Embedding(50, 16), [2, 4], [8])
    names = ["batch_2_seq_8", "batch_4_seq_8"]
    assert list(report) == names, f"one entry for each pair of sizes: expected {names}, got {list(report)}"
    entry = report["batch_4_seq_8"]
    sizes = (entry["batch_size"], entry["seq_length"], entry["total_tokens"])
    assert sizes == (4, 8, 32), f"batch_size, seq_length, total_tokens: expected (4, 8, 32), got {sizes}"
    close(entry["input_memory_mb"], 32 * 8 / 1024**2, what="input_memory_mb", why="32 ids of 8 bytes")
    close(entry["output_memory_mb"], 32 * 16 * 4 / 1024**2, what="output_memory_mb", why="32 rows of 16 float32")
    seconds = entry["lookup_time_ms"] / 1e3
    assert 0 < seconds < 1, "lookup_time_ms is in milliseconds"
    close(entry["tokens_per_second"] * seconds, 32, rtol=1e-9, what="tokens_per_second times seconds")
    all_tokens = entry["time_per_token_us"] * 32 / 1e6
    close(all_tokens / seconds, 1, rtol=1e-9, atol=0, what="32 times a token's time, by the lookup's", why="in µs")
    moved = entry["memory_bandwidth_mb_s"] * seconds
    close(moved, 2 * 32 * 16 * 4 / 1024**2, what="MB moved in one lookup", why="twice the output: read and written")
    ### BEGIN HIDDEN TESTS
    tall, wide_rows = (int(n) for n in np.random.default_rng().integers(3, 9, size=2))
    line = EmbeddingProfiler(2).measure_lookup_performance(Embedding(9, 5), [tall], [wide_rows])
    numbers = line[f"batch_{tall}_seq_{wide_rows}"]
    assert numbers["total_tokens"] == tall * wide_rows and numbers["batch_size"] == tall
    assert numbers["seq_length"] == wide_rows
    close(numbers["output_memory_mb"] * 1024**2, tall * wide_rows * 20)
    assert set(numbers) == set(entry) and len(numbers) == 9
    ### END HIDDEN TESTS


test_profiler()

# %%
profiler = EmbeddingProfiler()
for name, entry in profiler.measure_lookup_performance(Embedding(10_000, 256), [1, 8, 32], [32, 256]).items():
    print(f"{name:18} {entry['lookup_time_ms']:7.3f} ms {entry['time_per_token_us']:7.3f} µs a token "
          f"{entry['memory_bandwidth_mb_s']:8,.0f} MB/s")

# %%
for name, entry in profiler.analyze_memory_scaling([500, 50_000], [64, 512]).items():
    size, memory = entry["total_parameters"], entry["memory_mb"]
    print(f"{name:22} {size:12,} parameters {memory:8.2f} MB {entry['lookup_time_ms']:7.3f} ms")
profiler.compare_positional_encodings()

# %% [markdown]
# What we saw: a token costs 0.2 µs in a batch of 32 tokens, where calling the layer costs more than copying, and 0.04 µs
# in a batch of 2,048; with 8,192 tokens the 8 MB of output no longer stay in the fast caches, and a token costs twice
# that and more. A table with a hundred times as many rows is no slower (0.014 against 0.012 ms for 1,024 random ids of
# length 64); rows eight times as long are. Learned positions take twice the time of sinusoidal ones (0.025 against
# 0.011 ms), since they look their rows up first; in memory the two are equal.
#
# Now the race promised in section 1: lookup against one-hot times matrix, 8,192 ids, rows of 64 numbers, three
# vocabularies. The one-hot matrix for V = 50,000 would take 1.6 GB, so the product is done in slices. The
# result is written to `embedding_lookup.csv` beside this notebook. Predict the ratio for each vocabulary first.

# %%
#| export
def benchmark_lookup(
    vocab_sizes: Sequence[int] = (64, 1024, 50_000), tokens: int = 8192, embedding_dim: int = 64, repeats: int = 2
) -> list[dict[str, float]]:
    """Time ``np.take`` against one-hot @ table on the same random ids, one row of figures for each vocabulary.

    Each row has ``vocab_size``, ``tokens``, ``embedding_dim``, ``lookup_ms``, ``one_hot_ms`` and ``ratio``. The one-hot
    matrix is made and multiplied in slices of some 16 MB (256 ids at least): all of it may not fit into memory.
    """
    generator = np.random.default_rng(0)
    rows = []
    for vocab_size in vocab_sizes:
        table = generator.standard_normal((vocab_size, embedding_dim), dtype=np.float32)
        ids = generator.integers(0, vocab_size, size=tokens)

        def by_product(table: Array = table, ids: Array = ids) -> Array:
            out = np.empty((len(ids), table.shape[1]), np.float32)
            size = max(256, 2**22 // table.shape[0])
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                one_hot = np.zeros((len(part), table.shape[0]), np.float32)
                one_hot[np.arange(len(part)), part] = 1
                out[start : start + size] = one_hot @ table
            return out

        lookup, product = measure(np.take, table, ids, axis=0, repeats=repeats), measure(by_product, repeats=repeats)
        rows.append(
            {
                "vocab_size": vocab_size,
                "tokens": tokens,
                "embedding_dim": embedding_dim,
                "lookup_ms": lookup.median_s * 1e3,
                "one_hot_ms": product.median_s * 1e3,
                "ratio": product.median_s / lookup.median_s,
            }
        )
    return rows

# %%
import csv

race = benchmark_lookup()
with open("embedding_lookup.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, race[0].keys())
    writer.writeheader()
    writer.writerows(race)
figure, axes = plt.subplots(figsize=(6, 3))
sizes = [row["vocab_size"] for row in race]
axes.loglog(sizes, [row["one_hot_ms"] for row in race], "o-", label="one-hot @ table")
axes.loglog(sizes, [row["lookup_ms"] for row in race], "o-", label="lookup")
for row in race:
    above = (row["vocab_size"], row["one_hot_ms"])
    axes.annotate(f"{row['ratio']:,.0f}x", above, xytext=(0, 7), textcoords="offset points", ha="center")
axes.margins(x=0.1, y=0.2)
axes.set_xlabel("vocabulary")
axes.set_ylabel("time for 8,192 ids (ms)")
axes.set_title("Work that is multiplied by zero")
axes.legend(loc="upper left")
plt.show()

# %% [markdown]
# In the run that we kept (15 repeats, on 2 cores):
#
# | vocabulary | lookup | one-hot @ table | ratio |
# |---|---|---|---|
# | 64 | 0.06 ms | 1.7 ms | 28 |
# | 1,024 | 0.07 ms | 16 ms | 232 |
# | 50,000 | 0.08 ms | 631 ms | 7,587 |
#
# The cell above repeats only twice, while the memory is still cold: there we got 4 to 12, 150 to 330 and 1,200 to 3,400.
# The product's work grows with the vocabulary; a warm lookup hardly notices it.
#
# ## 8. The whole line: text in, vectors out
#
# Sentences differ in length and tensors do not, so short ones are padded, with an id whose vector stays zero.
#
# ### Exercise: `embed_texts`

# %% nbgrader={"grade": false, "grade_id": "embeddings-pipeline", "locked": false, "schema_version": 3, "solution": true, "task": false}
def embed_texts(texts, tokenizer, embedding, positions):
    """Text to vectors: tokenize, pad to the longest, embed, add positions.

    `texts` is a list of strings, `tokenizer` has `encode` and `pad_id`. Returns the ids, an int64 array of shape
    (B, T), and the vectors, a Tensor of shape (B, T, d).

    TODO: Four steps, in this order.

    APPROACH:
    1. `tokenizer.encode` each text.
    2. An array of shape (B, longest) full of `tokenizer.pad_id`; write each list of ids to the front of its row.
    3. `embedding(ids)`, then `positions(...)`.

    EXAMPLE:
    >>> ids, vectors = embed_texts(["abc", "a"], tokenizer, embedding, positions)
    >>> ids.shape, vectors.shape
    ((2, 3), (2, 3, 8))

    HINT: `np.full((rows, columns), value)` makes the padded table; or import your `pad_batch` of module 11.
    """
    ### BEGIN SOLUTION
    encoded = [tokenizer.encode(text) for text in texts]
    ids = np.full((len(encoded), max(len(one) for one in encoded)), tokenizer.pad_id, dtype=np.int64)
    for place, one in enumerate(encoded):
        ids[place, : len(one)] = one
    return ids, positions(embedding(ids))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-embeddings-pipeline", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tinytorch.core.tokenization import CharTokenizer


def test_embed_texts():
    tokenizer = CharTokenizer()
    embedding = Embedding(tokenizer.vocab_size, 8, padding_idx=tokenizer.pad_id)
    positions = PositionalEncoding(8, max_seq_length=64)
    lines = ["Alice was beginning to get very tired", "of sitting by her sister", "on the bank,"]
    rows = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8)).astype(np.float32)
    embedding.weight.data = rows.copy()
    ids, vectors = embed_texts(lines, tokenizer, embedding, positions)
    longest = len(lines[0])
    assert ids.shape == (3, longest), f"expected ids of shape (3, {longest}), got {ids.shape}"
    assert ids.dtype == np.int64, f"ids are int64, got {ids.dtype}"
    for row, line in zip(ids, lines, strict=True):
        close(row[: len(line)], tokenizer.encode(line), what=f"ids of {line!r}", why="ids at the front of the row")
        filler = np.full(longest - len(line), tokenizer.pad_id)
        close(row[len(line) :], filler, what="padding", why="pad with pad_id, at the end")
    want = rows[ids] + sinusoidal_positions(longest, 8)
    close(vectors.data, want, rtol=1e-4, what="vectors", why="the rows of the ids, plus the positions")
    vectors.sum().backward()
    counts = np.bincount(ids.ravel(), minlength=tokenizer.vocab_size).astype(float)
    counts[tokenizer.pad_id] = 0
    close(
        embedding.weight.grad.data,
        np.repeat(counts[:, None], 8, axis=1),
        what="gradient",
        why="with ones upstream, a row's gradient is how often its character stands in the texts",
    )
    ### BEGIN HIDDEN TESTS
    letters = np.random.default_rng().integers(97, 123, size=(4, 9))
    words = ["".join(map(chr, row[: 3 + place])) for place, row in enumerate(letters)]
    some, out = embed_texts(words, tokenizer, embedding, LearnedPositionalEmbedding(16, 8))
    assert some.shape == (4, 6) and out.shape == (4, 6, 8)
    assert tokenizer.decode(some[3].tolist()) == words[3]
    ### END HIDDEN TESTS


test_embed_texts()

# %% [markdown]
# And the opening promise, that training moves rows about until tokens that behave alike lie together? The smallest
# task that can show it: tell vowels from consonants, with two numbers for each letter and one linear step. The ids
# know nothing of vowels; a is 0, b is 1, e is 4. Whatever order appears, the gradients made it.

# %%
from tinytorch.core.layers import Linear
from tinytorch.core.tensor import manual_seed

manual_seed(1)
letters = "abcdefghijklmnopqrstuvwxyz"
vowel = np.array([[letter in "aeiou"] for letter in letters], dtype=np.float32)
points, judge = Embedding(26, 2), Linear(2, 1)
before = points.weight.data.copy()
for _ in range(300):
    error = judge(points(np.arange(26))).tanh() - (2 * vowel - 1)  # (26, 1): -1 for consonants, +1 for vowels
    loss = (error * error).mean()
    loss.backward()
    for parameter in [points.weight, *judge.parameters()]:
        parameter.data = parameter.data - 1.0 * parameter.grad.data
        parameter.grad = None
figure, both = plt.subplots(1, 2, figsize=(9, 3.5))
for axes, table, title in zip(both, (before, points.weight.data), ("before", "after 300 steps"), strict=True):
    for letter, (x, y), is_vowel in zip(letters, table, vowel[:, 0], strict=True):
        axes.text(x, y, letter, color="crimson" if is_vowel else "steelblue", ha="center", va="center")
    axes.set_xlim(table[:, 0].min() - 0.3, table[:, 0].max() + 0.3)
    axes.set_ylim(table[:, 1].min() - 0.3, table[:, 1].max() + 0.3)
    axes.set_title(title)
plt.show()
print(f"loss {loss.item():.4f}")

# %% [markdown]
# The vowels have gathered on one side, each by its own gradient. In a language model the task is the next token, and
# what gathers is whatever the next token depends on.
#
# ## 9. At the size of real models
#
# `analyze_embedding_system_design` puts your `Embedding`'s arithmetic to four published models. Predict before you
# run it: in which of them is the table more than a quarter of all parameters?

# %%
#| export
# vocabulary, width and all parameters, as their papers and model cards give them
PUBLISHED_MODELS = {
    "GPT-2 small (2019)": (50_257, 768, 124_000_000),
    "BERT base (2018)": (30_522, 768, 110_000_000),
    "GPT-3 (2020)": (50_257, 12_288, 175_000_000_000),
    "Llama 3 8B (2024)": (128_256, 4_096, 8_030_000_000),
}


def analyze_embedding_system_design(
    models: dict[str, tuple[int, int, int]] | None = None,
) -> dict[str, dict[str, float]]:
    """Print and return what the token table means in known models.

    Parameters
    ----------
    models
        Name to (vocabulary size, embedding width, all parameters); four published models by default.

    Returns
    -------
    dict
        For each model ``parameters`` of the table, ``memory_mb`` in float32, ``share`` of all parameters,
        ``training_memory_mb`` (weights, gradient and Adam's two moments, float32) and ``row_kb``. 1 MB is 1024² bytes.
    """
    report: dict[str, dict[str, float]] = {}
    print(f"{'model':20} {'table':>14} {'of all':>7} {'float32':>10} {'training':>10} {'a row':>8}")
    for name, (vocab_size, width, total) in (models or PUBLISHED_MODELS).items():
        parameters = vocab_size * width
        entry = report[name] = {
            "parameters": parameters,
            "memory_mb": parameters * 4 / MEBIBYTE,
            "share": parameters / total,
            "training_memory_mb": 4 * parameters * 4 / MEBIBYTE,
            "row_kb": width * 4 / 1024,
        }
        print(
            f"{name:20} {parameters:14,} {entry['share']:7.1%} {entry['memory_mb']:7,.0f} MB "
            f"{entry['training_memory_mb']:7,.0f} MB {entry['row_kb']:5.1f} kB"
        )
    return report

# %%
design = analyze_embedding_system_design()

# %% [markdown]
# Only in GPT-2 small. The table grows with the width d, the rest of a transformer with d² times the number of layers;
# in large models the table is small change in parameters, and still two gigabytes of memory.
#
# ## What you have built
#
# `Embedding` with four initialisations, padding, a gradient that adds up, and files that can be trusted;
# `PositionalEncoding` and `LearnedPositionalEmbedding`; `EmbeddingProfiler`, `benchmark_lookup` and
# `analyze_embedding_system_design`.
#
# In the terminal: `tito module complete 12`. Module 13 lets the vectors look at each other: attention.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "embeddings-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Memory at scale.** You are to serve a model with a vocabulary of 256,000 tokens and vectors of length 4,096 on a
# device with 3 GB for the token table. What does the table take in float32, and which two measures would you take?
# Say what each costs in quality or time. Why is the gradient of the table a larger problem in training than in
# serving, and what is special about it?
#
# === BEGIN MARK SCHEME ===
# 1 point: 4.2 GB (3.9 GiB). 2 points: two workable measures. 1 point: the cost of each. 1 point: the dense gradient
# (and Adam's moments) against few touched rows.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "embeddings-reflect-memory", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 256,000 x 4,096 x 4 bytes is 4.2 GB. Halve it with float16 or bfloat16 (2.1 GB, hardly any loss of quality), quarter
# it with int8 and a scale for each row (1.05 GB, a little loss, one multiplication a row). A smaller vocabulary
# (64,000 tokens) makes the table a quarter and texts longer, so more time in the layers; factorising (V x 512 times
# 512 x d, as ALBERT does) costs one small product. Sharing the table with the output layer saves its twin. In
# training the dense gradient is as large as the table, and Adam adds two more of that size, although a batch touches
# few rows: a sparse gradient (ids and rows) avoids most of it.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "embeddings-reflect-positions-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Positions to 32k.** Your model was trained on sequences of 2,048 tokens and is to read 32,768. What happens with
# learned positions, and what with sinusoidal ones? What does each table cost in memory at d = 4,096? Why is "the
# formula is defined there" not the same as "the model works there"?
#
# === BEGIN MARK SCHEME ===
# 2 points: learned fails or is untrained, sinusoidal is defined. 1 point: 512 MB, or computing on the fly. 2 points:
# unseen angles and distances, so the layers were never trained for them.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "embeddings-reflect-positions", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Learned positions have no row beyond 2,047: an error, or rows that were never trained. They have to be extended
# (interpolated, for instance) and trained again. Sinusoidal positions exist for every number, but the layers above
# have never seen the slow dimensions at these angles, nor distances beyond 2,048, so quality drops all the same.
# 32,768 x 4,096 x 4 bytes = 512 MB for either table (the sinusoidal one can be computed when needed, row by row).
# Relative schemes such as RoPE or ALiBi, or training briefly at the new length, are what is done.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "embeddings-reflect-pipeline-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Throughput of the line.** Take your measurements of this notebook and of module 11: how many tokens a second can
# your tokenizer, your lookup and your positions each deliver? Which one limits the line? Would a lookup twice as fast
# help a training step that takes 60 ms for 1,024 tokens? Name one change that would.
#
# === BEGIN MARK SCHEME ===
# 2 points: measured figures for the three stages. 1 point: the slowest is named with its ratio. 1 point: the share of
# the lookup in the step (Amdahl's argument). 1 point: a change that helps.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "embeddings-reflect-pipeline", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Lookups deliver ten to twenty million tokens a second (0.05 to 0.1 µs a token), positions are of the same order, and
# the tokenizer of module 11, in Python, one or two million once warm: it limits the line by a factor of about ten. In a
# step of 60 ms the lookup of 1,024 tokens takes about 0.1 ms, 0.2 %, so making it twice as fast changes nothing one
# could measure. Tokenizing once and storing the ids, or preparing the next batch while this one trains, removes the
# tokenizer from the step.
# ### END SOLUTION
