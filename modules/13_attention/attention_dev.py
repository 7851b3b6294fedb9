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
# # Attention
#
# > Attention: vectors look at each other, and each takes from the others what it asks for.
#
# Module 12 gave each token a vector. But "bank" has the same vector in "river bank" and in "bank account", and nothing
# that you have built so far can let "river" have a say: a linear layer works on each position alone, and a mean over
# all positions treats every word alike. What is missing is a way for a position to fetch something from *certain*
# other positions, chosen by what stands there.
#
# ```
#   x (T, E) --+--> query  "what am I looking for?"   (T, D) --+
#              +--> key    "what am I?"               (T, D) --+--> weights (T, T) --+
#              +--> value  "what do I tell?"          (T, D) ------------------------+--> (T, D)
# ```
#
# That is attention (Bahdanau et al. 2014; Vaswani et al. 2017), and everything that is called GPT is made of it. By
# the end you will have a `MultiHeadAttention` that loads PyTorch's weights, will have seen what its heads look at in a
# play by Shakespeare, and will have met, measured and got around the wall that it runs into: T² numbers.
#
# Plan for about six hours. The first test is ten minutes away.

# %%
#| default_exp core.attention
#| export
from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.core.activations import floating
from tinytorch.core.autograd import defvjp, is_grad_enabled
from tinytorch.core.layers import Dropout, Linear, Module, Parameter, by_columns, linear, uniform_parameter, whole_size
from tinytorch.core.tensor import Array, Op, Tensor, apply, broadcast_shape, from_numpy

# %%
import matplotlib.pyplot as plt

from tinytorch.core.losses import cross_entropy
from tinytorch.core.autograd import no_grad
from tinytorch.core.setup import measure, peak_memory
from tinytorch.core.tensor import manual_seed, randn

# %% [markdown]
# ## 1. One question, six answers
#
# Think of a dictionary. You come with a *query*, find the *key* that matches, and take its *value*. A Python dictionary
# wants an exact match, and an exact match has no gradient. So we make it soft: compare the query with every key, turn
# the six scores into six shares that add up to 1, and take that mixture of the values.
#
# 1. score: the dot product of the query with each key (large if they point the same way)
# 2. share: the softmax of the scores; from now on these are called **weights**
# 3. answer: the values, each multiplied by its weight, added up
#
# Here are six vectors in the plane, and a query that points to the right. Predict: which two vectors get the most?

# %%
six = np.array([[2.0, 0.2], [1.6, -1.2], [0.3, 1.5], [-0.5, 0.4], [-1.8, -0.3], [0.2, -1.7]])
question = np.array([1.5, -0.2])
print("scores:", six @ question)

# %% [markdown]
# ### Exercise: `attend`

# %% nbgrader={"grade": false, "grade_id": "attention-one", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attend(query, keys, values):
    """One query's answer: the mixture of `values` (n, m), by how well the `keys` (n, d) match the `query` (d,).

    Returns the answer, of shape (m,), and the weights, of shape (n,).

    TODO: Scores, weights, mixture.

    APPROACH:
    1. The score of each key: its dot product with the query.
    2. The softmax of the scores. Module 03 told what to subtract first, and why.
    3. The sum of the values, each times its weight, is a product as well.

    EXAMPLE:
    >>> attend(np.array([1.0, 0.0]), np.array([[0.0, 5.0], [0.0, -5.0]]), np.array([[10.0], [20.0]]))
    (array([15.]), array([0.5, 0.5]))

    HINT: Return two things: `return answer, weights`.
    """
    ### BEGIN SOLUTION
    scores = keys @ query
    raised = np.exp(scores - scores.max())
    shares = raised / raised.sum()
    return shares @ values, shares
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-one", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_attend():
    keys, values = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    answer, weights = attend(np.array([math.log(2), 0.0]), keys, values)
    close(weights, [0.5, 0.25, 0.25], what="weights", why="e to the scores is 2, 1, 1, of 4 in all")
    close(answer, [2.5, 3.5], what="answer", why="half of the first value, a quarter of each other")
    answer, weights = attend(np.array([0.0, 1000.0]), keys, values)
    close(weights, [0, 1, 0], what="weights", why="a score of 1000: subtract the largest score first")
    close(answer, [3, 4], what="answer")
    ### BEGIN HIDDEN TESTS
    draw = np.random.default_rng()
    ask, labels, contents = draw.normal(size=3), draw.normal(size=(5, 3)), draw.normal(size=(5, 4))
    powers = np.exp([sum(a * b for a, b in zip(label, ask, strict=True)) for label in labels])
    reply, portions = attend(ask, labels, contents)
    close(portions, powers / powers.sum())
    close(reply, sum(p * c for p, c in zip(powers / powers.sum(), contents, strict=True)))
    ### END HIDDEN TESTS


test_attend()

# %%
answer, weights = attend(question, six, six)  # keys and values are the same vectors here
figure, axes = plt.subplots(figsize=(5.5, 4))
axes.axhline(0, color="lightgrey", linewidth=0.8, zorder=0)
axes.axvline(0, color="lightgrey", linewidth=0.8, zorder=0)
axes.scatter(*six.T, s=60 + 900 * weights, color="steelblue", alpha=0.6)
for (x, y), weight in zip(six, weights, strict=True):
    axes.text(x, y + 0.28, f"{weight:.0%}", ha="center")
axes.annotate("", xy=question, xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": "crimson", "linewidth": 2})
axes.text(0.55, 0.08, "query", color="crimson")
axes.plot(*answer, "k*", markersize=13)
axes.text(answer[0] - 0.12, answer[1] - 0.1, "answer", ha="right", va="top")
axes.set_xlim(-2.5, 2.8)
axes.set_ylim(-2.3, 2.3)
axes.set_aspect("equal")
axes.set_title("Six vectors, a query, and the mixture that it gets")
plt.show()

# %% [markdown]
# 52 % and 38 %: the two that point the query's way. The answer lies between them. And each step of it has a slope, so
# training can turn the query, the keys and the values until the right things are fetched.
#
# ## 2. All questions at once
#
# In a text, every position asks. T queries make T times T scores. In a loop over the queries, or as one matrix
# product; predict the ratio for T = 128.

# %%
def attend_all(queries, keys, values):
    return np.stack([attend(query, keys, values)[0] for query in queries])


def attend_as_matrices(queries, keys, values):
    scores = queries @ keys.T  # (T, S)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True) @ values  # (T, S) @ (S, D)


some = np.random.default_rng(0).normal(size=(3, 128, 32)).astype(np.float32)
print("same answers:", np.allclose(attend_all(*some), attend_as_matrices(*some), atol=1e-5))
in_a_loop, by_matrices = measure(attend_all, *some), measure(attend_as_matrices, *some)
print(f"loop {in_a_loop.median_s * 1e6:.0f} µs, matrices {by_matrices.median_s * 1e6:.0f} µs: "
      f"{in_a_loop.median_s / by_matrices.median_s:.0f} times as fast")

# %% [markdown]
# Measured here, on one thread: 14 times as fast. Nothing was saved but Python's loop, 128 calls of small functions.
#
# ### Why the scores are scaled
#
# The formula of the paper has one thing more, and it looks like an afterthought:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{QK^\top}{\sqrt{d}}\right) V$$
#
# A dot product of two random vectors of length d is a sum of d terms, so its spread grows like √d: with d = 512 the
# scores lie about ±23. Predict: 64 keys, d = 512, everything random. How much does the largest of the 64 weights get
# on average, without the division? Evenly shared it would be 1/64 = 0.016.

# %%
widths = [2, 8, 32, 128, 512]
largest = {"scores": [], "scores / √d": []}
slopes = {"scores": [], "scores / √d": []}
for d in widths:
    queries, keys = np.random.default_rng(d).normal(size=(2, 40, 64, d))
    for name, factor in (("scores", 1.0), ("scores / √d", 1 / math.sqrt(d))):
        scores = queries @ keys.swapaxes(-1, -2) * factor
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = raised / raised.sum(axis=-1, keepdims=True)
        largest[name].append(shares.max(axis=-1).mean())
        slopes[name].append((shares * (1 - shares)).sum(axis=-1).mean())
figure, both = plt.subplots(1, 2, figsize=(9, 3.2))
for axes, curves, label in zip(both, (largest, slopes), ("largest of 64 weights", "slopes p (1 - p), summed"), strict=True):
    for name, curve in curves.items():
        axes.plot(widths, curve, "o-", markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, widths)
    axes.set_xlabel("d, the length of queries and keys")
    axes.set_title(label)
    axes.set_ylim(0, 1.05)
    axes.grid(alpha=0.3)
both[0].legend()
plt.show()
print(f"d = 512: largest weight {largest['scores'][-1]:.2f} unscaled, {largest['scores / √d'][-1]:.2f} scaled; "
      f"slopes {slopes['scores'][-1]:.2f} and {slopes['scores / √d'][-1]:.2f}")

# %% [markdown]
# Measured: 0.93 of the whole goes to one key, unscaled, before anything was learned; and the slopes, which are what
# training can use, are down to 0.10, from 0.96 with the scaling. The division by √d keeps the spread of the scores at
# 1, whatever d is.
#
# ## 3. Who may look where
#
# Two kinds of places must not be looked at:
#
# - **The future.** A model that predicts the next token and may look at it learns to copy, and nothing else.
# - **Padding.** Sequences of different lengths stand in one table, filled up with tokens that mean nothing.
#
# A mask says so: boolean, **True where a query may attend**, as in PyTorch's `scaled_dot_product_attention`. (Its older
# `MultiheadAttention` means the opposite by True. People have lost days to this.) Rows are queries, columns are keys.
#
# ```
#   causal_mask(4)          causal_mask(2, 4)            padding_mask([[5, 8, 0, 0]], 0)
#   T . . .                 the last two queries          T T . .    for every query
#   T T . .                 of four keys:
#   T T T .                 T T T .
#   T T T T                 T T T T
# ```
#
# The middle one is for a text that goes on: keys and values of earlier tokens are there already, and only the new
# tokens ask. Module 15 lives by it.
#
# Scores have the shape (B, H, T, S): batch, heads, queries, keys. (Heads come in section 7.) A padding mask is
# different for each sequence and the same for all heads and queries: (B, 1, 1, S), and broadcasting does the rest.
#
# ### Exercise: `causal_mask` and `padding_mask`

# %% nbgrader={"grade": false, "grade_id": "attention-masks", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def causal_mask(size: int, keys: int | None = None) -> Array:
    """Which keys each query may attend to if it must not see the future: a boolean array of shape (size, keys).

    Parameters
    ----------
    size
        The number of queries. They are the last ``size`` positions of the text.
    keys
        The number of keys, from the beginning of the text; ``size`` by default.

    Raises
    ------
    ValueError
        If there are fewer keys than queries.

    TODO: True where the key stands at the query's position or before it.

    APPROACH:
    1. `keys` is `size` if it is None. If it is smaller than `size`: ValueError that names both.
    2. Query i stands at position `i + keys - size`; the last query may attend to all keys.

    EXAMPLE:
    >>> causal_mask(2, 3)
    array([[ True,  True, False],
           [ True,  True,  True]])

    HINT: `np.tri(rows, columns, k, dtype=bool)` is True at and below the k-th diagonal. Or compare two `np.arange`.
    """
    ### BEGIN SOLUTION
    keys = size if keys is None else keys
    if keys < size:
        raise ValueError(f"causal_mask: {size} queries are the last of the keys, but there are only {keys} keys")
    return np.tri(size, keys, keys - size, dtype=bool)
    ### END SOLUTION


def padding_mask(ids: Any, pad_id: int) -> Array:
    """Which keys are no padding: a boolean array of shape (..., 1, 1, S), for all heads and queries alike.

    Parameters
    ----------
    ids
        Token ids of shape (..., S): a (nested) list, an array or a Tensor.
    pad_id
        The id of the token that means nothing.

    TODO: True where the id is not `pad_id`, with two axes of length 1 put in before the last one.

    APPROACH:
    1. `np.asarray(ids)` makes an array of all three kinds.
    2. An index with None puts an axis in.

    EXAMPLE:
    >>> padding_mask([[5, 8, 0], [7, 0, 0]], pad_id=0).shape
    (2, 1, 1, 3)

    HINT: `array[..., None, :]` puts in one axis before the last.
    """
    ### BEGIN SOLUTION
    is_token: Array = np.asarray(ids) != pad_id
    return is_token[..., None, None, :]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-masks", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_masks():
    close(causal_mask(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=bool, why="query 0 sees key 0, the last one all")
    close(causal_mask(2, 4), [[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool, why="the queries are the last positions")
    close(causal_mask(1, 5), [[1, 1, 1, 1, 1]], dtype=bool, why="a single new token sees everything before it")
    with raises(ValueError, "4", "3", why="the last 4 of 3 positions: name both numbers"):
        causal_mask(4, 3)
    for ids in ([[5, 8, 0, 0], [0, 7, 7, 7]], np.array([[5, 8, 0, 0], [0, 7, 7, 7]]), Tensor([[5, 8, 0, 0], [0, 7, 7, 7]])):
        close(padding_mask(ids, 0), [[[[1, 1, 0, 0]]], [[[0, 1, 1, 1]]]], dtype=bool, why="True where there is a token")
    close(padding_mask([3, 1, 3], 3), [[[0, 1, 0]]], dtype=bool, why="one sequence gives (1, 1, S)")
    ### BEGIN HIDDEN TESTS
    new, old = (int(n) for n in np.random.default_rng().integers(2, 9, size=2))
    grid = causal_mask(new, new + old)
    close(grid, [[seen <= asking + old for seen in range(new + old)] for asking in range(new)], dtype=bool)
    tokens = np.random.default_rng().integers(0, 4, size=(3, 2, 6))
    close(padding_mask(tokens, 2).reshape(3, 2, 6), tokens != 2, dtype=bool)
    assert padding_mask(tokens, 2).shape == (3, 2, 1, 1, 6), "two new axes, right before the last"
    ### END HIDDEN TESTS


test_masks()

# %% [markdown]
# Both at once is `&`. Two sequences of six and four tokens, in a table of six columns:

# %%
both_masks = causal_mask(6) & padding_mask([[9, 9, 9, 9, 9, 9], [9, 9, 9, 9, 0, 0]], pad_id=0)  # (2, 1, 6, 6)
figure, pair = plt.subplots(1, 2, figsize=(6, 2.8))
for axes, one, name in zip(pair, both_masks[:, 0], ("6 tokens", "4 tokens, 2 of padding"), strict=True):
    axes.pcolormesh(one, cmap="Blues", vmin=0, vmax=1.6, edgecolors="white")
    axes.invert_yaxis()
    axes.set_xticks(np.arange(6) + 0.5, range(6))
    axes.set_yticks(np.arange(6) + 0.5, range(6))
    axes.set_xlabel("key")
    axes.set_ylabel("query")
    axes.set_title(name)
plt.tight_layout()
plt.show()

# %% [markdown]
# ### Exercise: `check_mask`
#
# A wrong mask is the bug that trains. Take one of ones and zeros, as floats: libraries that allow floats *add* them to
# the scores, so a forbidden key gets 1/e of what it would get if it were allowed, 37 % instead of nothing. No error,
# and the loss goes down. So masks of another dtype, or of a shape that does not fit, are refused, with the remedy.

# %% nbgrader={"grade": false, "grade_id": "attention-check-mask", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def check_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    """``mask`` as a boolean array that broadcasts to scores of ``shape`` (..., T, S).

    Raises
    ------
    TypeError
        If the mask is not boolean; it names the dtype, and says how to make it so.
    ValueError
        If it does not broadcast to the scores; it names both shapes.

    TODO: Refuse what is not boolean, then what does not fit.

    APPROACH:
    1. `np.asarray(mask)`; a dtype other than bool is a TypeError that names it and offers `mask != 0`.
    2. It fits if it has no more axes than the scores, and if each of its lengths, counted from the last axis, is 1 or
       equal to that of the scores. If not: ValueError that names both shapes.

    EXAMPLE:
    >>> check_mask([[True, False]], (2, 4, 3, 2)).shape
    (1, 2)

    HINT: The mask may be stretched to the scores, the scores never to the mask: (2, 3, 3) does not fit (3, 3).
    """
    allowed = np.asarray(mask)
    ### BEGIN SOLUTION
    if allowed.dtype != np.bool_:
        remedy = "for a mask of ones and zeros write mask != 0; for one that is added to the scores, mask == 0"
        raise TypeError(f"attention: a mask is boolean, True where a query may attend, not {allowed.dtype}; {remedy}")
    pairs = zip(reversed(allowed.shape), reversed(shape), strict=False)
    if allowed.ndim > len(shape) or any(length not in (1, wanted) for length, wanted in pairs):
        fitting = "(T, S) if it is the same for all, (B, 1, 1, S) for padding, (B, 1, T, S) for one of each sequence"
        raise ValueError(f"attention: a mask {allowed.shape} does not fit scores of shape {shape}; make it {fitting}")
    return allowed
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-check-mask", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_check_mask():
    shape = (2, 4, 3, 5)
    for fits in [(3, 5), (2, 1, 1, 5), (2, 4, 3, 5), (5,), (4, 3, 5), (1, 1), ()]:
        got = check_mask(np.ones(fits, bool), shape)
        close(got, np.ones(fits), dtype=bool, what=f"a mask of shape {fits}", why="a mask that fits goes out as it came")
    close(check_mask([[True, False]], (1, 2)), [[1, 0]], dtype=bool, why="True and False stay where they are")
    close(check_mask(Tensor([True, False]), (1, 2)), [1, 0], dtype=bool)
    for wrong in [(3, 4), (4, 5), (2, 5), (2, 3, 5), (3, 1, 3, 5), (1, 2, 4, 3, 5), (0, 5)]:
        with raises(ValueError, str(wrong), str(shape), why="name both shapes"):
            check_mask(np.ones(wrong, bool), shape)
    with raises(ValueError, "(2, 1)", "(1, 1)", why="the scores are never stretched to the mask"):
        check_mask(np.ones((2, 1), bool), (1, 1))
    for kind in ("float32", "int64", "uint8"):
        with raises(TypeError, kind, "!= 0", why="name the dtype and the remedy"):
            check_mask(np.ones((3, 5), kind), shape)
    ### BEGIN HIDDEN TESTS
    sides = tuple(int(n) for n in np.random.default_rng().permutation([2, 3, 5, 7]))
    pattern = np.random.default_rng().random((sides[0], 1, 1, sides[3])) < 0.5
    close(check_mask(pattern, sides), pattern, dtype=bool)
    with raises(ValueError, str(sides)):
        check_mask(np.ones(sides[::-1], bool), sides)
    ### END HIDDEN TESTS


test_check_mask()

# %% [markdown]
# ## 4. The weights
#
# Now the heart, made to be fast and safe. Three things can go wrong.
#
# **Where to mask.** A weight must be exactly 0 at a forbidden place, and the others must still add up to 1. So the
# *score* becomes minus infinity before the softmax: e to the minus infinity is 0.
#
# **A row with nothing.** A sequence that is all padding has rows in which nothing is allowed. Predict what the formula
# gives:

# %%
nothing = np.full(4, -np.inf)
with np.errstate(all="ignore"):
    raised = np.exp(nothing - nothing.max())
    print(raised / raised.sum())

# %% [markdown]
# NaN, and it would not stay in its row: the loss becomes NaN, then all gradients, then all weights of the model. Who
# may attend to nothing gets nothing: zeros. Two small changes do it:
#
# - the largest score counts as at least the most negative float, `np.finfo(dtype).min`, so that minus infinity minus
#   it stays minus infinity, and its exponential 0;
# - the sum counts as at least 1. With anything allowed it *is* at least 1, since the largest score contributes e⁰.
#
# **Memory.** The scores are the largest array of the whole model. Each `a = f(a)` makes another one. `a -= b` and
# `np.exp(a, out=a)` do not. And the scaling is cheaper on the queries, (T, D), than on the scores, (T, S).
#
# ### Exercise: `attention_weights`

# %% nbgrader={"grade": false, "grade_id": "attention-weights", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@np.errstate(under="ignore")
def attention_weights(q: Array, k: Array, mask: Array | None, scale: float) -> Array:
    """The softmax, over the keys, of ``scale`` times the dot products of queries and keys.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2.1.

    Parameters
    ----------
    q, k
        Queries (..., T, D) and keys (..., S, D).
    mask
        Boolean, True where a query may attend; it broadcasts to (..., T, S).
    scale
        What the scores are multiplied by; a Python float, so that float32 stays float32.

    Returns
    -------
    Array
        Of shape (..., T, S). Each row adds up to 1, or is all zeros if it may attend to nothing.

    TODO: Scores, mask, softmax: in one array.

    APPROACH:
    1. Scores: `scale` times the queries, times the keys with their last two axes swapped.
    2. `np.copyto(scores, value, where=...)` writes minus infinity where the mask is False.
    3. Subtract each row's maximum in place. `max` takes `initial=`, a number that counts as one more element: the most
       negative float of the scores' dtype.
    4. Exponential in place; divide by each row's sum in place, which counts as at least 1. (A sum over the last axis is
       also a product with a vector of ones, `scores @ np.ones(...)`: four times as fast, if you like.)

    EXAMPLE:
    >>> q = k = np.zeros((2, 3))
    >>> attention_weights(q, k, np.array([[True, True], [False, False]]), scale=1.0)
    array([[0.5, 0.5],
           [0. , 0. ]])

    HINT: `swapaxes(-1, -2)` turns keys (..., S, D) into (..., D, S). `.T` would turn round all four axes.
    """
    ### BEGIN SOLUTION
    scores = (q * scale) @ k.swapaxes(-1, -2)  # (..., T, S)
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    scores -= scores.max(axis=-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    np.exp(scores, out=scores)
    totals = scores @ np.ones(scores.shape[-1], scores.dtype)  # (..., T)
    scores /= np.maximum(totals, 1)[..., None]
    return scores
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "attention-weights-memory", "locked": true, "schema_version": 3, "solution": false, "task": false}
def arrays_at_once(*inputs):
    """The peak memory of your attention_weights, in arrays of the size of its result."""
    result, most = peak_memory(lambda: attention_weights(*inputs))
    return most / result.nbytes

# %% nbgrader={"grade": true, "grade_id": "test-attention-weights", "locked": true, "points": 11, "schema_version": 3, "solution": false, "task": false}
def weights_by_the_book(q, k, mask, scale):
    """Row by row, in float64."""
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    q, k = (np.broadcast_to(a, (*lead, *a.shape[-2:])).astype(np.float64) for a in (q, k))
    shape = (*lead, q.shape[-2], k.shape[-2])
    allowed = np.broadcast_to(True if mask is None else mask, shape)
    table = np.zeros(shape)
    for place in np.ndindex(shape[:-1]):
        keys = k[place[:-1]][allowed[place]]
        if len(keys):
            scores = keys @ q[place] * scale
            powers = np.exp(scores - scores.max())
            table[place][allowed[place]] = powers / powers.sum()
    return table


def test_attention_weights():
    q, k = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    close(attention_weights(q, k, None, 0.5), weights_by_the_book(q, k, None, 0.5), why="softmax of scale * q @ k.T over the keys")
    allowed = np.array([[True, False, True], [False, True, False]])
    got = attention_weights(q, k, allowed, 0.5)
    close(got, weights_by_the_book(q, k, allowed, 0.5), why="minus infinity where the mask is False, before the softmax")
    close(got[1], [0, 1, 0], what="row 1", why="the only key that is allowed gets everything")
    close(q, [[1, 0], [0, 2]], what="q after the call", why="the caller's arrays stay as they were")
    close(allowed[0], [1, 0, 1], what="the mask after the call")
    with np.errstate(all="raise", under="ignore"):
        empty = attention_weights(q, k, np.array([[False, False, False], [True, True, True]]), 1.0)
    close(empty[0], [0, 0, 0], what="a row with nothing allowed", why="zeros, not NaN")
    close(empty[1].sum(), 1.0, what="sum of the other row")
    with np.errstate(all="raise", under="ignore"):
        far = attention_weights(np.array([[1e4], [-1e4]]), np.array([[1.0], [0.0], [-1.0]]), np.array([False, True, True]), 1.0)
    close(far, [[0, 1, 0], [0, 0, 1]], why="a forbidden score is not the largest, and scores of any size are safe")
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), rng.normal(size=(2, 3, 6, 5)).astype(np.float32)
    for mask in (None, rng.random((4, 6)) < 0.5, rng.random((2, 1, 1, 6)) < 0.5, rng.random((2, 3, 4, 6)) < 0.5):
        want = weights_by_the_book(q, k, mask, 0.3)
        why = "each head of each sequence has scores of its own, from its own queries and keys"
        close(attention_weights(q, k, mask, 0.3), want, dtype=np.float32, why=why)
    q, k = rng.normal(size=(2, 1, 128, 8)).astype(np.float32)
    peak = arrays_at_once(q, k, causal_mask(128), 0.3)
    assert peak < 1.9, f"at its peak your function holds {peak:.1f} arrays of the size of its result: one will do, in place"
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    asks, tags = dice.normal(size=(2, 1, 5, 3)), dice.normal(size=(1, 4, 7, 3))
    window = dice.random((2, 4, 5, 7)) < 0.3
    factor = float(dice.uniform(0.2, 2))
    close(attention_weights(asks, tags, window, factor), weights_by_the_book(asks, tags, window, factor), dtype=np.float64)
    close(attention_weights(asks[0, 0], tags[0, 0], None, factor).sum(axis=-1), np.ones(5))
    ### END HIDDEN TESTS


test_attention_weights()

# %% [markdown]
# ## 5. The way back
#
# Autograd could differentiate this step by step. It would keep the scores, the masked scores, the shifted ones, the
# exponentials and the weights: arrays of T² numbers each, when the weights alone are enough. So the weights become one
# operation with a rule of its own. Let W be the weights, and G the gradient of the loss by them.
#
# 1. W is a softmax of the scores $Z$. You know its rule: each weight times its own gradient minus the row's average,
#    $dZ = W \odot (G - \text{average})$, where the average is $\sum_j W_j\, G_j$, one number for each row.
# 2. $Z = \text{scale} \cdot Q K^\top$, so $dQ = \text{scale} \cdot dZ\, K$ and $dK = \text{scale} \cdot dZ^\top Q$.
#
# And the mask? Nothing. Where W is 0, dZ is 0: what was not looked at gets no gradient. The mixture $WV$ is a plain
# matrix product; its rule is there, and what it keeps of T² numbers is the same W.
#
# ### Exercise: `attention_gradients`

# %% nbgrader={"grade": false, "grade_id": "attention-gradients", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def attention_gradients(g: Array, weights: Array, q: Array, k: Array, scale: float) -> tuple[Array, Array]:
    """The gradients of the loss by q and k, given that by the ``weights``, the result of ``attention_weights``.

    Parameters
    ----------
    g
        The gradient by the weights, of their shape (..., T, S).
    weights, q, k, scale
        What ``attention_weights`` gave, and what it was given.

    Returns
    -------
    tuple of Array
        For q and k. Where one of them was broadcast, its gradient has the larger shape.

    TODO: The two steps of the text.

    APPROACH:
    1. The average of each row is the sum of W times G along the last axis: `np.vecdot` does it without making W times G.
    2. G minus the average, as a column, is an array of your own: multiply it by W and by scale, in place.
    3. dZ times k; dZ with its last two axes swapped, times q.

    EXAMPLE:
    >>> g, weights, q, k = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), np.array([[2.0]]), np.array([[3.0], [1.0]])
    >>> attention_gradients(g, weights, q, k, scale=1.0)
    (array([[0.5]]), array([[ 0.5],
           [-0.5]]))

    HINT: For k, dZ is *swapped*: key j collects from all queries i that looked at it.
    """
    ### BEGIN SOLUTION
    slopes = g - np.vecdot(weights, g)[..., None]  # (..., T, S)
    slopes *= weights
    slopes *= scale
    return slopes @ k, slopes.swapaxes(-1, -2) @ q
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-gradients", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def slopes_by_nudging(loss, *arrays):
    """The gradients of `loss()` by each of the arrays, which it looks at, by central differences."""
    result = []
    for array in arrays:
        slopes = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            middle = array[place]
            array[place] = middle + 1e-6
            above = loss()
            array[place] = middle - 1e-6
            slopes[place] = (above - loss()) / 2e-6
            array[place] = middle
        result.append(slopes)
    return result


def test_attention_gradients():
    rng = np.random.default_rng(1)
    q, k, g = (rng.normal(size=(2, *shape)) for shape in [(3, 2), (4, 2), (3, 4)])
    windows = np.array([[True, True, False, True], [False, False, False, False], [True, False, True, True]])
    for name, mask in [("without a mask", None), ("with a mask", windows)]:
        weights = weights_by_the_book(q, k, mask, 0.6)
        kept = weights.copy(), g.copy()
        got = attention_gradients(g, weights, q, k, 0.6)
        want = slopes_by_nudging(lambda mask=mask: float((weights_by_the_book(q, k, mask, 0.6) * g).sum()), q, k)
        for label, mine, right in zip(("q", "k"), got, want, strict=True):
            close(mine, right, rtol=1e-4, atol=1e-6, what=f"gradient by {label}, {name}")
        close(weights, kept[0], what="weights after the call", why="a rule must not write into what it is given")
        close(g, kept[1], what="g after the call", why="a rule must not write into what it is given")
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    asks, tags, push = (fresh.normal(size=(1, 2, *shape)) for shape in [(2, 3), (4, 3), (2, 4)])
    table = weights_by_the_book(asks, tags, None, 0.8)
    found = attention_gradients(push, table, asks, tags, 0.8)
    wanted = slopes_by_nudging(lambda: float((weights_by_the_book(asks, tags, None, 0.8) * push).sum()), asks, tags)
    for mine, right in zip(found, wanted, strict=True):
        close(mine, right, rtol=1e-4, atol=1e-6)
    small = [a.astype(np.float32) for a in (push, table, asks, tags)]
    assert all(a.dtype == np.float32 for a in attention_gradients(*small, 0.8)), "float32 stays float32"
    ### END HIDDEN TESTS


test_attention_gradients()

# %% [markdown]
# The operation and its rule. `out`, the result, is what the rule needs most, and autograd keeps it anyway.

# %%
#| export
ATTENTION = Op("attention", attention_weights)


@defvjp(ATTENTION)
def _attention(g: Array, out: Array, q: Array, k: Array, mask: Array | None, scale: float) -> Any:
    return attention_gradients(g, out, q, k, scale)


def scores_shape(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (..., T, S) of the scores of queries, keys and values of these shapes.

    Raises
    ------
    ValueError
        If they do not fit; it names what differs.
    """
    shapes = f"attention: q {q}, k {k}, v {v}"
    if min(len(q), len(k), len(v)) < 2:
        raise ValueError(f"{shapes}: each needs at least two axes, positions and features")
    if q[-1] != k[-1] or q[-1] == 0:
        raise ValueError(f"{shapes}: queries and keys have {q[-1]} and {k[-1]} features, and must have the same number")
    if k[-2] != v[-2]:
        raise ValueError(f"{shapes}: there are {k[-2]} keys and {v[-2]} values; each key has one value")
    lead = broadcast_shape("attention (batch axes)", q[:-2], k[:-2])
    return *broadcast_shape("attention (batch axes)", lead, v[:-2]), q[-2], k[-2]

# %% [markdown]
# ### When nobody goes back
#
# The rule needs all weights at once. A model that only answers does not: each query can be done with before the next
# one begins. Under a causal mask that saves more than memory. Take the queries 64 at a time: the first 64 see no key
# after the 64th, so the other scores need not even be computed. Predict what part of them is left for 256 tokens.

# %%
#| export
QUERY_BLOCK = 64


def attend_in_blocks(q: Array, k: Array, v: Array, mask: Array | None, scale: float) -> Array:
    """``attention_weights(q, k, mask, scale) @ v`` for arrays, of which never all weights are there at once.

    ``QUERY_BLOCK`` queries or a few more are taken at a time, and no key behind the last that one of them may attend to.

    EXAMPLE:
    >>> x = np.ones((1, 2, 200, 4), np.float32)
    >>> attend_in_blocks(x, x, x, causal_mask(200), 0.5).shape
    (1, 2, 200, 4)
    """
    queries, keys = q.shape[-2], k.shape[-2]
    if queries < 2 * QUERY_BLOCK:
        return attention_weights(q, k, mask, scale) @ v
    allowed = np.asarray(True if mask is None else mask)
    allowed = np.broadcast_to(allowed, np.broadcast_shapes(allowed.shape, (queries, keys)))
    size = math.ceil(queries / (queries // QUERY_BLOCK))
    found = []
    for start in range(0, queries, size):
        rows = allowed[..., start : start + size, :]
        seen = np.flatnonzero(rows.any(axis=tuple(range(rows.ndim - 1))))
        end = int(seen.max(initial=0)) + 1
        weights = attention_weights(q[..., start : start + size, :], k[..., :end, :], rows[..., :end], scale)
        found.append(weights @ v[..., :end, :])
    return np.concatenate(found, axis=-2)


# %%
asking, offering, telling = np.random.default_rng(0).normal(size=(3, 1, 4, 256, 32)).astype(np.float32)
at_once = measure(lambda: attention_weights(asking, offering, causal_mask(256), 0.2) @ telling, repeats=20)
in_blocks = measure(attend_in_blocks, asking, offering, telling, causal_mask(256), 0.2, repeats=20)
for name, cost in (("at once", at_once), ("in blocks", in_blocks)):
    print(f"{name:9} {cost.median_s * 1e6:5.0f} µs, peak {cost.peak_bytes / 1e6:.1f} MB")
print("largest difference:", float(np.abs(at_once.result - in_blocks.result).max()))

# %% [markdown]
# Five eighths: the blocks look at 64, 128, 192 and 256 keys. Measured here, on one thread, medians of 60 by turns: 0.74 ms
# against 0.91, with half the memory at the peak. With fewer than 128 queries, the calls cost more than they save.
#
# ### Exercise: `scaled_dot_product_attention`
#
# Everything is there but dropout, which is usual on the weights in training: now and then a token does not see what it
# would look at, and learns not to depend on it. Put it together.

# %% nbgrader={"grade": false, "grade_id": "attention-sdpa", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def scaled_dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    return_weights: bool = False,
) -> Any:
    """For each query the mixture of the values, by how well their keys match the query.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2.1.

    Parameters
    ----------
    q, k, v
        Queries (..., T, D), keys (..., S, D) and values (..., S, Dv), floating-point. The axes in front broadcast.
    mask
        Boolean, True where a query may attend; it broadcasts to (..., T, S). None allows everything.
    dropout_p
        The probability with which a weight is dropped, whether in training or not; see ``Dropout``.
    scale
        What the scores are multiplied by; 1/sqrt(D) by default.
    return_weights
        Return the weights (..., T, S) as well, before dropout.

    Returns
    -------
    Tensor, or a tuple of two
        Of shape (..., T, Dv). A query that may attend to nothing gets zeros.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``dropout_p`` is not between 0 and 1.
    TypeError
        If the mask is not boolean.

    TODO: Weights, dropout, mixture.

    APPROACH:
    1. `scale`, if it is None, is one over the square root of D. But 0.0 is a scale like any other.
    2. A mask that is not None goes through `check_mask` with `shape`.
    3. The weights: `apply(ATTENTION, q, k, mask=..., scale=...)`.
    4. `Dropout(dropout_p)(...)` drops some of them; then a matrix product with v.
    5. For speed alone, so leave it out at first: if nothing is dropped, nobody asks for the weights and `is_grad_enabled()`
       says that nothing is recorded, `attend_in_blocks` of the arrays, wrapped by `from_numpy`, is all.

    EXAMPLE:
    >>> x = randn(2, 5, 8)
    >>> scaled_dot_product_attention(x, x, x, causal_mask(5)).shape
    (2, 5, 8)

    HINT: `attention_weights` itself takes arrays and leaves no note. q and k go through the door, as Tensors.
    """
    q, k, v = floating(q), floating(k), floating(v)
    shape = scores_shape(q.shape, k.shape, v.shape)
    ### BEGIN SOLUTION
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    allowed = None if mask is None else check_mask(mask, shape)
    if not (dropout_p or return_weights or is_grad_enabled()):
        return from_numpy(attend_in_blocks(q.data, k.data, v.data, allowed, scale))
    weights = apply(ATTENTION, q, k, mask=allowed, scale=scale)
    out = Dropout(dropout_p)(weights) @ v
    return (out, weights) if return_weights else out
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-sdpa", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_scaled_dot_product_attention():
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)]]
    q, k, v = (Tensor(a, requires_grad=True) for a in arrays)
    mask = rng.random((2, 1, 4, 6)) < 0.6
    mask[0, 0, 1] = False
    for given, allowed in ((None, None), (mask, mask), (Tensor(mask), mask)):
        want = weights_by_the_book(arrays[0], arrays[1], allowed, 5**-0.5)
        out, weights = scaled_dot_product_attention(q, k, v, given, return_weights=True)
        close(weights.data, want, dtype=np.float32, what="weights", why="scale is 1/sqrt(D), D the length of a query")
        close(out.data, want @ arrays[2], rtol=1e-4, dtype=np.float32, what="output")
    close(out.data[0, :, 1], np.zeros((3, 2)), what="a query that may attend to nothing")
    close(scaled_dot_product_attention(*arrays, scale=0.0).data[0, 0, 0], arrays[2][0, 0].mean(axis=0), why="scale=0.0 shares evenly")
    top = rng.normal(size=out.shape)
    scaled_dot_product_attention(q, k, v, mask).backward(top)
    one = [a[0, 0].astype(float) for a in arrays]
    slopes = slopes_by_nudging(lambda: float((weights_by_the_book(*one[:2], mask[0, 0], 5**-0.5) @ one[2] * top[0, 0]).sum()), *one)
    for label, tensor, want in zip(("q", "k", "v"), (q, k, v), slopes, strict=True):
        why = "q and k go through apply as Tensors, and so does v through @"
        assert tensor.grad is not None, f"{label} got no gradient: {why}"
        close(tensor.grad.data[0, 0], want, rtol=1e-3, atol=1e-5, dtype=np.float32, what=f"gradient by {label}", why=why)
    eye = Tensor(np.eye(400))
    manual_seed(5)
    evenly, before = scaled_dot_product_attention(eye, eye, eye, dropout_p=0.25, scale=0.0, return_weights=True)
    close(before.data, np.full((400, 400), 1 / 400), what="weights", why="they are returned as they were before dropout")
    close(np.unique(evenly.data), [0, 1 / 300], atol=1e-8, why="a weight is dropped, or multiplied by 1/(1 - p)")
    close(float((evenly.data == 0).mean()), 0.25, rtol=0, atol=0.01, why="dropout_p is the probability of dropping")
    with no_grad():
        maps = scaled_dot_product_attention(q, k, v, mask, return_weights=True)[1]
        close(maps.data, weights_by_the_book(arrays[0], arrays[1], mask, 5**-0.5), what="weights under no_grad")
        some_zero = scaled_dot_product_attention(eye, eye, eye, dropout_p=0.25, scale=0.0)
        close(float((some_zero.data == 0).mean()), 0.25, rtol=0, atol=0.01, why="dropout_p counts under no_grad too")
        long = rng.normal(size=(3, 150, 4)).astype(np.float32)
        for allowed in (None, causal_mask(150)):
            want = weights_by_the_book(long[0], long[1], allowed, 0.5) @ long[2]
            got = scaled_dot_product_attention(*long, allowed)
            close(got.data, want, rtol=1e-4, atol=1e-6, dtype=np.float32, what="150 queries under no_grad")
    with raises(TypeError, "float32", why="check_mask first"):
        scaled_dot_product_attention(q, k, v, mask.astype(np.float32))
    with raises(ValueError, "(4, 5)", "(2, 3, 4, 6)", why="check_mask with the shape of the scores"):
        scaled_dot_product_attention(q, k, v, np.ones((4, 5), bool))
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    one, many = fresh.normal(size=(3, 4)), fresh.normal(size=(2, 5, 4))
    wide = Tensor(one, np.float64, requires_grad=True)
    mixed = scaled_dot_product_attention(wide, many, many, scale=0.7)
    close(mixed.data, weights_by_the_book(one, many, None, 0.7) @ many, dtype=np.float64)
    mixed.sum().backward()
    slopes = slopes_by_nudging(lambda: float((weights_by_the_book(one, many, None, 0.7) @ many).sum()), one)[0]
    close(wide.grad.data, slopes, rtol=1e-4, atol=1e-6, what="gradient by a query that was broadcast")
    few = Tensor(fresh.normal(size=(6, 4)), np.float64, requires_grad=True)
    tells = Tensor(np.eye(6), np.float64, requires_grad=True)
    parts = scaled_dot_product_attention(few, few.data, tells, dropout_p=0.5)
    push = fresh.normal(size=(6, 6))
    parts.backward(push)
    close(tells.grad.data, parts.data.T @ push, what="gradient by v after dropout: the dropped weights count")
    table = weights_by_the_book(few.data, few.data, None, 0.5)
    curve = parts.data * push - table * (push * parts.data).sum(axis=-1, keepdims=True)
    close(few.grad.data, curve @ few.data / 2, what="gradient by q after dropout")
    ### END HIDDEN TESTS


test_scaled_dot_product_attention()

# %% [markdown]
# Composed of the operations of module 02, it would look like this. Both give the same gradients. Predict how much
# memory the notes keep, in arrays of T² numbers.

# %%
from tinytorch.core.tensor import set_recorder, where


def composed(q, k, v, mask):
    scores = q @ k.transpose() * (1 / math.sqrt(q.shape[-1]))
    scores = where(mask, scores, -1e9)
    raised = (scores - scores.max(axis=-1, keepdims=True)).exp()
    return raised / raised.sum(axis=-1, keepdims=True) @ v


def large_arrays_kept(function, q, k, v, mask):
    """How many arrays of at least T² numbers the notes hold on to."""
    held = {}

    def watch(op, inputs, arrays, attrs, out):
        held.update({id(a): a for a in [*arrays, out.data] if isinstance(a, np.ndarray) and a.base is None})

    before = set_recorder(watch)
    try:
        function(q, k, v, mask)
    finally:
        set_recorder(before)
    return sum(a.size >= q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] for a in held.values())


manual_seed(0)
q, k, v = (randn(16, 4, 64, 32, requires_grad=True) for _ in range(3))


def there_and_back(function):
    function(q, k, v, causal_mask(64)).sum().backward()
    slopes = [x.grad.data for x in (q, k, v)]
    q.grad = k.grad = v.grad = None
    return slopes


for name, function in (("composed", composed), ("fused", scaled_dot_product_attention)):
    taken = measure(there_and_back, function)
    print(f"{name:8} {large_arrays_kept(function, q, k, v, causal_mask(64))} arrays of T² numbers kept, "
          f"{taken.median_s * 1e3:5.1f} ms, peak {taken.peak_bytes / 1e6:4.1f} MB")
print("same gradients:", all(np.allclose(a, b, atol=1e-4) for a, b in zip(
    there_and_back(composed), there_and_back(scaled_dot_product_attention), strict=True)))

# %% [markdown]
# Six arrays, and one. With 64 tokens one of them is 1 MB; section 9 says what it is with more. Ours took 2.6 ms and the
# composed one 4.6 (medians of 31, taken in turns, one thread), and peaked at 4.7 MB against 11.1.
#
# ## 6. Self-attention
#
# Where do queries, keys and values come from? From the same vectors, by three linear layers: what a token looks for
# ("a noun before me"), what it offers ("I am a noun") and what it tells are different things, and training finds them.
#
# ### Exercise: `SelfAttention`

# %% nbgrader={"grade": false, "grade_id": "attention-self", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class SelfAttention(Module):
    """One head of attention of a sequence to itself.

    Parameters
    ----------
    embed_dim
        The length of the vectors that come in.
    head_dim
        The length of queries, keys and values, and of what goes out; ``embed_dim`` by default.

    Attributes
    ----------
    query, key, value
        Linear layers from ``embed_dim`` to ``head_dim``, without bias.

    TODO: Three layers in `__init__`, and their use in `forward`.

    APPROACH:
    1. `__init__`: `self.query`, `self.key` and `self.value`, in this order. `head_dim` is `embed_dim` if it is None.
    2. `forward`: the three layers on x, then `scaled_dot_product_attention`, which takes mask and return_weights.

    EXAMPLE:
    >>> SelfAttention(8, 4)(randn(2, 5, 8), causal_mask(5)).shape
    (2, 5, 4)

    HINT: `Linear(..., bias=False)`.
    """

    def __init__(self, embed_dim: int, head_dim: int | None = None) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        width = embed_dim if head_dim is None else head_dim
        self.query = Linear(embed_dim, width, bias=False)
        self.key = Linear(embed_dim, width, bias=False)
        self.value = Linear(embed_dim, width, bias=False)
        ### END SOLUTION

    def forward(self, x: Tensor, mask: Any = None, return_weights: bool = False) -> Any:
        """``x`` (..., T, embed_dim) as (..., T, head_dim), and the weights (..., T, T) if they are asked for."""
        ### BEGIN SOLUTION
        asked, offered, told = self.query(x), self.key(x), self.value(x)
        return scaled_dot_product_attention(asked, offered, told, mask, return_weights=return_weights)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-self", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_self_attention():
    layer = SelfAttention(6, 4)
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    want = {"query.weight": (4, 6), "key.weight": (4, 6), "value.weight": (4, 6)}
    assert shapes == want, f"expected the parameters {want}, got {shapes}"
    square = [parameter.shape for parameter in SelfAttention(5).parameters()]
    assert square == [(5, 5)] * 3, f"head_dim is embed_dim by default: expected three of (5, 5), got {square}"
    rng = np.random.default_rng(3)
    matrices = rng.normal(size=(3, 4, 6)).astype(np.float32)
    layer.query.weight.data, layer.key.weight.data, layer.value.weight.data = (m.copy() for m in matrices)
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    asked, offered, told = (x @ m.T for m in matrices)
    for mask in (None, causal_mask(5)):
        want = weights_by_the_book(asked, offered, mask, 0.5)
        out, weights = layer(Tensor(x), mask, return_weights=True)
        close(weights.data, want, rtol=1e-4, what="weights", why="queries from query, keys from key; hand the mask on")
        close(out.data, want @ told, rtol=1e-3, atol=1e-5, what="output", why="the mixture of what value gives")
    close(layer(Tensor(x), mask).data, want @ told, rtol=1e-3, atol=1e-5, what="output alone")
    ### BEGIN HIDDEN TESTS
    other = SelfAttention(3, 2)
    text = np.random.default_rng().normal(size=(4, 3))
    wq, wk, wv = (getattr(other, part).weight.data.astype(float) for part in ("query", "key", "value"))
    table = weights_by_the_book(text @ wq.T, text @ wk.T, None, 2**-0.5)
    close(other(Tensor(text)).data, table @ (text @ wv.T), rtol=1e-3, atol=1e-5)
    other(Tensor(text)).sum().backward()
    assert all(parameter.grad is not None for parameter in other.parameters()), "all three are trained"
    ### END HIDDEN TESTS


test_self_attention()

# %% [markdown]
# ### It is blind to order
#
# Predict: reverse the words of a sentence, without positions and without a mask. What happens to the outputs?

# %%
manual_seed(2)
layer, sentence = SelfAttention(16), randn(6, 16)
forwards, backwards = layer(sentence).data, layer(sentence[::-1]).data
print("largest difference, once put back in order:", float(np.abs(forwards - backwards[::-1]).max()))

# %% [markdown]
# The same vectors in reverse order, but for rounding. To attention a sentence is a bag, and "dog bites man" is "man
# bites dog": each word asks the same questions and gets the same answers, wherever it stands. That is why module 12
# added positions. (A causal mask breaks the symmetry, too.)
#
# ## 7. Several heads
#
# One head takes *one* mixture: its weights add up to 1, so looking at the verb takes away from looking at the subject.
# So E features are cut into H heads of D = E / H, each of them does its own attention, and a linear layer joins what
# they found. The products cost the same, since H · D = E.
#
# In memory it is a matter of order. Every token's vector holds all heads, side by side:
#
# ```
#   (B, T, E)         token 0:  [ head 0 | head 1 ]      (B, T, H, D)    cut each vector
#                     token 1:  [ head 0 | head 1 ]
#
#   (B, H, T, D)      head 0:   [ token 0 ; token 1 ]    swap the axes: a matrix (T, D) for each head
#                     head 1:   [ token 0 ; token 1 ]
# ```
#
# Here lies one of the most frequent bugs of home-made transformers: `x.reshape(B, H, T, D)` directly. The shape is
# right, everything runs, and it even trains. But look at what is in it:

# %%
tokens = np.array([[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33], [40, 41, 42, 43]])  # T = 4, E = 4
print("head 0, reshaped directly:\n", tokens.reshape(2, 4, 2)[0])
print("head 0, cut, then swapped:\n", tokens.reshape(4, 2, 2).swapaxes(0, 1)[0])

# %% [markdown]
# Directly, head 0 gets the first half of the *text*, and what it calls its token 1 is the rest of token 0. No head can
# look from one half to the other. And if only the way back is right, what was found for token 2 is put into the row of
# token 0, causal mask or not, and the model sees the future. Cut the last axis, then swap.
#
# ### Exercise: `split_heads` and `merge_heads`

# %% nbgrader={"grade": false, "grade_id": "attention-heads", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``x`` (..., T, E) as (..., H, T, E / H): head h has the h-th part of each token's vector.

    TODO: Cut the last axis into two, then swap.

    APPROACH:
    1. Reshape to (..., T, H, E / H): `*x.shape[:-1]` are the axes that stay.
    2. Swap T and H, the third and the second axis from the end.

    EXAMPLE:
    >>> split_heads(randn(2, 5, 12), 3).shape
    (2, 3, 5, 4)

    HINT: `reshape` may leave one length to -1.
    """
    ### BEGIN SOLUTION
    return x.reshape(*x.shape[:-1], num_heads, -1).transpose(-3, -2)
    ### END SOLUTION


def merge_heads(x: Tensor) -> Tensor:
    """``x`` (..., H, T, D) as (..., T, H * D): the way back from ``split_heads``.

    TODO: The same two steps, undone in reverse order.

    APPROACH:
    1. Swap H and T.
    2. Reshape the last two axes to one.

    EXAMPLE:
    >>> merge_heads(randn(2, 3, 5, 4)).shape
    (2, 5, 12)

    HINT: After the swap, `shape[:-2]` are the axes that stay.
    """
    ### BEGIN SOLUTION
    swapped = x.transpose(-3, -2)  # (..., T, H, D)
    return swapped.reshape(*swapped.shape[:-2], -1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-attention-heads", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_heads():
    x = np.arange(2 * 3 * 6, dtype=np.float32).reshape(2, 3, 6)
    halves = split_heads(Tensor(x), 2)
    want = np.stack([x[:, :, :3], x[:, :, 3:]], axis=1)  # (B, H, T, D)
    close(halves.data, want, what="two heads", why="head 0 has the first half of every token's vector: cut, then swap")
    close(merge_heads(halves).data, x, what="merged again", why="swap, then join: the way back")
    close(split_heads(Tensor(x[0]), 3).data, np.stack([x[0, :, :2], x[0, :, 2:4], x[0, :, 4:]]), what="without a batch")
    leaf = Tensor(x, requires_grad=True)
    merge_heads(split_heads(leaf, 3) * 2.0).sum().backward()
    assert leaf.grad is not None, "Tensor methods only: no .data on the way"
    close(leaf.grad.data, np.full(x.shape, 2), what="gradient")
    ### BEGIN HIDDEN TESTS
    batch, heads, length, depth = (int(n) for n in np.random.default_rng().permutation([2, 3, 4, 5]))
    pieces = np.random.default_rng().normal(size=(batch, heads, length, depth)).astype(np.float32)
    side_by_side = np.concatenate([pieces[:, h] for h in range(heads)], axis=-1)
    close(merge_heads(Tensor(pieces)).data, side_by_side)
    close(split_heads(Tensor(side_by_side), heads).data, pieces)
    close(split_heads(Tensor(np.stack([side_by_side] * 2)), heads).data, np.stack([pieces] * 2))
    ### END HIDDEN TESTS


test_heads()

# %% [markdown]
# ### The layer
#
# Queries, keys and values of all heads are one linear layer: 3E outputs, the rows for the queries first, then keys,
# then values. If all three come from the same `x`, one product does them all. Names and shapes are those of
# `torch.nn.MultiheadAttention`, so its state can be loaded as it is: `in_proj_weight` (3E, E), `in_proj_bias` (3E,),
# `out_proj.weight` (E, E), `out_proj.bias` (E,).
#
# Queries may come from another sequence than keys and values: a translation asks the original (*cross-attention*), or
# new tokens ask all that came before.
#
# ### Exercise: `MultiHeadAttention`

# %% nbgrader={"grade": false, "grade_id": "attention-multi-head", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class MultiHeadAttention(Module):
    """Attention by several heads side by side, whose findings a linear layer joins.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2.2.

    Parameters
    ----------
    embed_dim
        E, the length of the vectors that come in and go out.
    num_heads
        H, how many heads share it; E must be divisible by it.
    dropout
        The probability with which a weight is dropped in training.
    bias
        Whether the linear layers add something.

    Attributes
    ----------
    in_proj_weight, in_proj_bias
        Parameters of shape (3E, E) and (3E,): E rows for queries, then E for keys, then E for values. As in PyTorch
        they begin evenly distributed over ±sqrt(6 / (4E)) (Glorot and Bengio 2010), and at 0.
    out_proj
        Linear layer from E to E, whose bias begins at 0.

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number or is less than 1, if E is not divisible by H, or if ``dropout`` is not between
        0 and 1. When called: see ``scaled_dot_product_attention``.

    TODO: Fill in `project` and `attend`.

    APPROACH:
    1. `project`, if query, key and value are the same object: one `linear` with all of `in_proj_weight`. Its result is
       3H heads side by side: `split_heads`, then `split` along the heads' axis, as a tuple of three.
    2. If not: split weight and bias along their first axis instead, and a `linear` for each of the three. There
       may be no bias.
    3. Then `split_heads` for each of the three, returned as a tuple.
    4. `attend`: `scaled_dot_product_attention` with mask, and with weights if they are asked for; dropout only if
       `self.training`.
    5. Merge the heads, put them through `out_proj`, and return the weights as well if they are asked for.

    EXAMPLE:
    >>> layer = MultiHeadAttention(embed_dim=12, num_heads=3)
    >>> layer(randn(2, 5, 12), mask=causal_mask(5)).shape
    (2, 5, 12)

    HINT: `x.split(H, axis=-3)` gives a list of Tensors; `query is key` asks whether two names mean the same object.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.embed_dim = whole_size("MultiHeadAttention", "embed_dim", embed_dim)
        self.num_heads = whole_size("MultiHeadAttention", "num_heads", num_heads)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"MultiHeadAttention: embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        self.dropout = Dropout(dropout).p
        self.in_proj_weight = uniform_parameter((3 * self.embed_dim, self.embed_dim), math.sqrt(1.5 / self.embed_dim))
        self.in_proj_bias = Parameter(np.zeros(3 * self.embed_dim)) if bias else None
        by_columns(self.in_proj_weight)
        self.out_proj = Linear(self.embed_dim, self.embed_dim, bias=bias)
        if self.out_proj.bias is not None:
            self.out_proj.bias.data[:] = 0

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, mask: Any = None,
        return_weights: bool = False,
    ) -> Any:
        """What each position of ``query`` finds.

        Parameters
        ----------
        query
            Of shape (..., T, E).
        key, value
            Of shape (..., S, E); ``key`` is ``query`` by default, and ``value`` is ``key``.
        mask
            Boolean, True where a query may attend: (T, S) for all, (B, 1, 1, S) for padding, up to (B, H, T, S).
        return_weights
            Return the weights (..., H, T, S) of every head as well.

        Returns
        -------
        Tensor, or a tuple of two
            Of shape (..., T, E).
        """
        key = query if key is None else key
        q, k, v = self.project(query, key, key if value is None else value)
        return self.attend(q, k, v, mask, return_weights)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """The queries (..., H, T, D), keys and values (..., H, S, D) of all heads."""
        ### BEGIN SOLUTION
        if query is key and key is value:
            heads = split_heads(linear(query, self.in_proj_weight, self.in_proj_bias), 3 * self.num_heads)
            return tuple(heads.split(self.num_heads, axis=-3))
        weights = self.in_proj_weight.split(self.embed_dim)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split(self.embed_dim)
        parts = [linear(*each) for each in zip((query, key, value), weights, biases, strict=True)]
        return tuple(split_heads(part, self.num_heads) for part in parts)
        ### END SOLUTION

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Any = None, return_weights: bool = False) -> Any:
        """What the heads find, joined: (..., T, E), and their weights (..., H, T, S) if they are asked for."""
        if mask is not None and np.ndim(mask) == 3 and q.ndim == 4:
            raise ValueError(
                f"attention: does a mask of shape {np.shape(mask)} differ by sequence or by head? "
                "Make it (B, 1, T, S) or (1, H, T, S)"
            )
        ### BEGIN SOLUTION
        dropout_p = self.dropout if self.training else 0.0
        found = scaled_dot_product_attention(q, k, v, mask, dropout_p, return_weights=return_weights)
        if return_weights:
            return self.out_proj(merge_heads(found[0])), found[1]
        return self.out_proj(merge_heads(found))
        ### END SOLUTION

    def extra_repr(self) -> str:
        """``embed_dim=12, num_heads=3, dropout=0.0``"""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"

# %% nbgrader={"grade": true, "grade_id": "test-attention-multi-head", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def heads_by_the_book(state, heads, query, key, value, mask):
    """Multi-head attention head by head, from plain arrays; the output and the weights."""
    width = query.shape[-1]
    q, k, v = (
        x @ state["in_proj_weight"][i * width : (i + 1) * width].T + state["in_proj_bias"][i * width : (i + 1) * width]
        for i, x in enumerate((query, key, value))
    )
    depth = width // heads
    tables, found = [], []
    for h in range(heads):
        part = slice(h * depth, (h + 1) * depth)
        tables.append(weights_by_the_book(q[..., part], k[..., part], mask, depth**-0.5))
        found.append(tables[-1] @ v[..., part])
    out = np.concatenate(found, axis=-1) @ state["out_proj.weight"].T + state["out_proj.bias"]
    return out, np.stack(tables, axis=-3)


def test_multi_head_attention():
    rng = np.random.default_rng(4)
    layer = MultiHeadAttention(6, 2)
    state = {name: rng.normal(0, 0.5, size=array.shape) for name, array in layer.state_dict().items()}
    layer.load_state_dict(state)
    x, y, z = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3, 6))
    for name, inputs, mask in [
        ("x to itself", (x,), None),
        ("x to itself, causal", (x,), causal_mask(4)),
        ("x to y", (x, y), None),
        ("x to y with the values z", (x, y, z), None),
        ("x to itself with the values z", (y, y, z), None),
        ("x to y, masked", (x, y), causal_mask(4, 4)[:, 1:]),
    ]:
        full = [*inputs, *[inputs[-1]] * (3 - len(inputs))]
        given = {id(one): Tensor(one) for one in inputs}
        tensors = [given[id(one)] for one in inputs]
        want, tables = heads_by_the_book(state, 2, *full, mask)
        out, weights = layer(*tensors, mask=mask, return_weights=True)
        why = "rows of in_proj_weight: first queries, then keys, then values; head h has the h-th part of each"
        close(weights.data, tables, rtol=1e-3, atol=1e-5, what=f"weights, {name}", why=why)
        close(out.data, want, rtol=1e-3, atol=1e-4, what=f"output, {name}", why=why)
        close(layer(*tensors, mask=mask).data, want, rtol=1e-3, atol=1e-4, what=f"output alone, {name}")
    leaf = Tensor(x, np.float64, requires_grad=True)
    top = rng.normal(size=x.shape)
    layer(leaf, mask=causal_mask(4)).backward(top)
    slopes = slopes_by_nudging(lambda: float((heads_by_the_book(state, 2, x, x, x, causal_mask(4))[0] * top).sum()), x)[0]
    close(leaf.grad.data, slopes, rtol=1e-3, atol=1e-4, what="gradient by the input")
    missing = [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    assert not missing, f"without a gradient: {', '.join(missing)}"
    moody = MultiHeadAttention(6, 3, dropout=0.5)
    one, two = moody(Tensor(x)).data, moody(Tensor(x)).data
    assert np.abs(one - two).max() > 1e-3, "in training, dropout drops other weights at each call"
    want, _ = heads_by_the_book(moody.state_dict(), 3, x, x, x, None)
    close(moody.eval()(Tensor(x)).data, want, rtol=1e-3, atol=1e-4, what="in use", why="nothing is dropped in use")
    plain = MultiHeadAttention(6, 3, bias=False)
    close(plain(Tensor(x), Tensor(x)).data, plain(Tensor(x)).data, what="without bias, from a copy", why="there may be no bias")
    with raises(ValueError, "(2, 4, 4)", "(B, 1, T, S)"):
        layer(Tensor(x), mask=np.ones((2, 4, 4), bool))
    with raises(ValueError, "7", "3"):
        MultiHeadAttention(7, 3)
    ### BEGIN HIDDEN TESTS
    depth, count = (int(n) for n in np.random.default_rng().integers(2, 5, size=2))
    bench = MultiHeadAttention(depth * count, count)
    numbers = {name: np.random.default_rng().normal(0, 0.5, size=array.shape) for name, array in bench.state_dict().items()}
    bench.load_state_dict(numbers)
    text, context = np.random.default_rng().normal(size=(2, 1, 5, depth * count))
    answer, maps = heads_by_the_book(numbers, count, text, context, context, causal_mask(5))
    got, seen = bench(Tensor(text), Tensor(context), mask=causal_mask(5), return_weights=True)
    close(got.data, answer, rtol=1e-3, atol=1e-4)
    close(seen.data, maps, rtol=1e-3, atol=1e-5)
    flat = heads_by_the_book(numbers, count, text[0], text[0], text[0], None)[0]
    close(bench(Tensor(text[0])).data, flat, rtol=1e-3, atol=1e-4, what="without a batch")
    ### END HIDDEN TESTS


test_multi_head_attention()

# %% [markdown]
# What do heads cost? Predict time and memory of 1, 4 and 16 heads: E = 128, 16 sequences of 128 tokens.

# %%
manual_seed(0)
batch = randn(16, 128, 128)
for heads in (1, 4, 16):
    layer = MultiHeadAttention(128, heads)
    cost = measure(layer, batch, mask=causal_mask(128))
    print(f"{heads:2} heads: {sum(p.size for p in layer.parameters()):,} parameters, "
          f"{cost.median_s * 1e3:5.1f} ms, weights {heads * 16 * 128 * 128 * 4 / 1e6:5.1f} MB, peak {cost.peak_bytes / 1e6:5.1f} MB")

# %% [markdown]
# The parameters do not change, and neither does the number of multiplications. But H · T² weights have to be stored
# and to pass through the softmax: 23 MB at the peak for 16 heads against 6, and 20 ms against 6.6 (medians of
# 31, taken in turns, one thread). Exponentials are not counted in multiplications, and they are not free.
#
# ## 8. What the heads look at
#
# An untrained head looks at everything a little. So train a small model on Shakespeare, to predict the next character:
# a table for characters, a table for positions, one layer of attention with four heads, one linear layer. It sees 32
# characters. The optimizer is two lines: go a step of fixed size against the sign of a running mean of the gradients.

# %%
from tinytorch.core.embeddings import Embedding, LearnedPositionalEmbedding
from tinytorch.core.tensor import concatenate
from tinytorch.core.tokenization import CharTokenizer

from tito import data

play = data.text("shakespeare")
tokenizer = CharTokenizer()
ids = np.array(tokenizer.encode(play[:200_000]))


class OneLayer(Module):
    def __init__(self, vocab_size, embed_dim, num_heads, length):
        super().__init__()
        self.tokens, self.positions = Embedding(vocab_size, embed_dim), LearnedPositionalEmbedding(length, embed_dim)
        self.attention, self.head = MultiHeadAttention(embed_dim, num_heads), Linear(2 * embed_dim, vocab_size)

    def forward(self, ids, return_weights=False):
        x = self.positions(self.tokens(ids))
        found, weights = self.attention(x, mask=causal_mask(ids.shape[-1]), return_weights=True)
        logits = self.head(concatenate([x, found], axis=-1))  # its own vector, and what it found
        return (logits, weights) if return_weights else logits


manual_seed(0)
model = OneLayer(tokenizer.vocab_size, embed_dim=64, num_heads=4, length=32)
dice, means, losses = np.random.default_rng(0), {}, []
for step in range(400):
    starts = dice.integers(0, len(ids) - 33, size=(32, 1))
    window = ids[starts + np.arange(33)]  # (32, 33)
    loss = cross_entropy(model(window[:, :-1]), window[:, 1:])
    loss.backward()
    for name, parameter in model.named_parameters():
        means[name] = 0.9 * means.get(name, 0.0) + 0.1 * parameter.grad.data
        parameter.data -= 0.003 * (1 - step / 400) * np.sign(means[name])
    model.zero_grad()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} at first, {np.mean(losses[-50:]):.2f} at the end")

# %%
line = "To be, or not to be: that is the"
_, weights = model(np.array(tokenizer.encode(line))[None], return_weights=True)
figure, four = plt.subplots(2, 2, figsize=(9, 9.6))
for head, (axes, table) in enumerate(zip(four.flat, weights.data[0], strict=True)):
    axes.imshow(table**0.5, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(line)), line)
    axes.set_yticks(range(len(line)), line)
    axes.tick_params(length=0, labelsize=8)
    axes.set_title(f"head {head}")
four[1, 0].set_xlabel("looked at")
four[0, 0].set_ylabel("looks")
plt.tight_layout()
plt.show()
back = np.arange(32)[:, None] - np.arange(32)
for head, table in enumerate([*weights.data[0], causal_mask(32) / np.arange(1, 33)[:, None]]):
    name = f"head {head}" if head < 4 else "evenly"
    print(f"{name}: {(table * back)[8:].sum(axis=-1).mean():.1f} characters back, {table[20, 19]:.0%} from the space to the colon before it")

# %% [markdown]
# Each row is a character and shows what it looks at, the darker the more. Nobody told the heads what to do. What came
# out, with this seed:
#
# - All four look nearer than evenly shared: 4 to 7 characters back on average (from the ninth row on), not 9.8.
# - Head 1 found the colon: the space behind it gives it 91 %.
# - Head 2 looks at the first letters of its own word, and between the words at nothing in particular.
#
# With other seeds the heads share the work differently. And a map shows where a head looks, not why.
#
# ## 9. The wall
#
# Twice as long a text: twice as many queries, each with twice as many keys. Predict, for 4 heads and T = 2,048: how
# many megabytes are the weights? And for a book of 100,000 tokens?

# %%
lengths = [64, 128, 256, 512, 1024, 2048]


def sequence(length):
    return [np.random.default_rng(n).normal(size=(1, 4, length, 32)).astype(np.float32) for n in range(3)]


plain = [measure(scaled_dot_product_attention, *sequence(T), repeats=3) for T in lengths]
for T, cost in zip(lengths, plain, strict=True):
    print(f"T = {T:4}: {cost.median_s * 1e3:7.2f} ms   peak {cost.peak_bytes / 1e6:6.1f} MB")
print(f"T = 100,000: the weights alone {4 * 100_000**2 * 4 / 1e9:.0f} GB")

# %% [markdown]
# 67 MB for the weights of T = 2,048; from 1,024 to 2,048 the peak grew by 3.8. And 160 GB for the book, in one layer.
#
# But the answer needs only (T, D). Must all weights be there at once? The softmax seems to say so: to divide by the
# sum, one must have seen all scores. It is not so (Milakov and Gimelshein 2018; Rabe and Staats 2021; FlashAttention,
# Dao et al. 2022). Look at the keys in chunks, and keep three things for each query:
#
# - `best`: the largest score so far,
# - `total`: the sum of e^(score − best) so far,
# - `mixed`: the sum of e^(score − best) times value so far, not yet divided.
#
# A new chunk may bring a larger score. Then everything so far was measured against the wrong maximum: too large by
# e^(new − old). Multiply `total` and `mixed` by e^(old − new), and go on. That is the whole trick.
#
# ```
#   scores     2  1 | 3  0            best  2 -> 3
#   total      e⁰ + e⁻¹ = 1.37        1.37 · e^(2 - 3) + e⁰ + e⁻³ = 0.50 + 1.05 = 1.55
#   directly, with the maximum 3:     e⁻¹ + e⁻² + e⁰ + e⁻³ = 1.55
# ```
#
# ### Exercise: `add_chunk` and `chunked_attention`

# %% nbgrader={"grade": false, "grade_id": "attention-chunked", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@np.errstate(under="ignore")
def add_chunk(
    best: Array, total: Array, mixed: Array, scores: Array, values: Array
) -> tuple[Array, Array, Array]:
    """What a softmax-weighted sum has come to, after some more keys were looked at.

    Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".

    Parameters
    ----------
    best, total
        The largest score so far, and the sum of exp(score - best) so far, both of shape (..., T, 1).
    mixed
        The sum of exp(score - best) times value so far, of shape (..., T, D).
    scores, values
        Those of the new keys: (..., T, C) and (..., C, D). A score may be minus infinity. The scores are overwritten.

    Returns
    -------
    tuple of Array
        The new ``best``, ``total`` and ``mixed``.

    TODO: The new maximum, what is left of the old sums, what is added.

    APPROACH:
    1. `top`: the larger of `best` and each row's largest new score.
    2. `shrink`: e to the `best` minus `top`, for what was there before.
    3. The exponentials of the new scores minus `top`, in place.
    4. Return top, and the two sums: the old one times shrink, plus the new one.

    EXAMPLE:
    >>> row = np.array([[2.0, 1.0]])
    >>> best, total, mixed = add_chunk(np.array([[0.0]]), np.array([[1.0]]), np.array([[5.0]]), row, np.ones((2, 1)))
    >>> best, total.round(2)
    (array([[2.]]), array([[1.5]]))

    HINT: 1.5 is e⁻² for what was there, e⁰ and e⁻¹ for what is new.
    """
    ### BEGIN SOLUTION
    top = np.maximum(best, scores.max(axis=-1, keepdims=True))
    shrink = np.exp(best - top)
    scores -= top
    np.exp(scores, out=scores)
    return top, total * shrink + scores.sum(axis=-1, keepdims=True), mixed * shrink + scores @ values
    ### END SOLUTION


def chunked_attention(q: Array, k: Array, v: Array, causal: bool = False, chunk_size: int = 128) -> Array:
    """``scaled_dot_product_attention`` of arrays, forward only, in memory that grows like T instead of T².

    Source: Rabe and Staats 2021, "Self-attention does not need O(n²) memory".

    Parameters
    ----------
    q, k, v
        Arrays of shape (..., T, D), (..., S, D) and (..., S, Dv), of one dtype.
    causal
        Whether each query sees only keys up to its own position; the queries are the last T positions.
    chunk_size
        How many keys are looked at together.

    Returns
    -------
    Array
        Of shape (..., T, Dv).

    TODO: Go over the keys in chunks, and divide in the end.

    APPROACH:
    1. For each start from 0 to S in steps of chunk_size: the keys and values of this chunk (the last may be shorter).
    2. Scores: scale times q, times the chunk's keys swapped.
    3. If causal: minus infinity where the key's position is greater than the query's. The keys' positions begin at
       `start`, those of the queries at S - T.
    4. `add_chunk`. After the last chunk divide what was mixed by the total.

    EXAMPLE:
    >>> x = np.ones((1, 2, 5, 4), np.float32)
    >>> chunked_attention(x, x, x, causal=True, chunk_size=2).shape
    (1, 2, 5, 4)

    HINT: A mask of all T times S places would be the wall again. Make that of one chunk: compare `places[:, None]`, the
    positions of the queries, with those of the keys.
    """
    scale, keys = 1 / math.sqrt(q.shape[-1]), k.shape[-2]
    lead = scores_shape(q.shape, k.shape, v.shape)[:-1]
    places = np.arange(keys - q.shape[-2], keys)  # where the queries stand
    best = np.full((*lead, 1), np.finfo(q.dtype).min, q.dtype)
    total, mixed = np.zeros_like(best), np.zeros((*lead, v.shape[-1]), v.dtype)
    ### BEGIN SOLUTION
    for start in range(0, keys, chunk_size):
        chunk = slice(start, start + chunk_size)
        scores = (q * scale) @ k[..., chunk, :].swapaxes(-1, -2)  # (..., T, C)
        if causal:
            np.copyto(scores, -np.inf, where=np.arange(keys)[chunk] > places[:, None])
        best, total, mixed = add_chunk(best, total, mixed, scores, v[..., chunk, :])
    return mixed / total
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "attention-chunked-memory", "locked": true, "schema_version": 3, "solution": false, "task": false}
def chunked_peak(length, causal):
    """The peak memory of your chunked_attention, in bytes, for chunks of 16 keys."""
    x = np.random.default_rng(0).normal(size=(1, length, 8)).astype(np.float32)
    return peak_memory(lambda: chunked_attention(x, x, x, causal, chunk_size=16))[1]

# %% nbgrader={"grade": true, "grade_id": "test-attention-chunked", "locked": true, "points": 11, "schema_version": 3, "solution": false, "task": false}
def test_chunked_attention():
    best, total, mixed = add_chunk(
        np.array([[2.0], [2.0]]),
        np.array([[1.0], [3.0]]),
        np.array([[4.0], [8.0]]),
        np.array([[3.0, 0.0], [-np.inf, 1.0]]),
        np.array([[10.0], [20.0]]),
    )
    e = math.e
    close(best, [[3], [2]], what="best", why="the larger of what was and what is new")
    close(total, [[1 / e + 1 + e**-3], [3 + 1 / e]], what="total", why="the old sum times e^(old best - new best), plus the new")
    close(mixed, [[4 / e + 10 + 20 * e**-3], [8 + 20 / e]], what="mixed", why="it shrinks like total")
    rng = np.random.default_rng(6)
    q, k, v = (rng.normal(0, 3, size=shape).astype(np.float32) for shape in [(2, 5, 4), (2, 7, 4), (2, 7, 3)])
    for causal in (False, True):
        want = weights_by_the_book(q, k, causal_mask(5, 7) if causal else None, 0.5) @ v
        for size in (1, 2, 3, 7, 100):
            got = chunked_attention(q, k, v, causal, size)
            close(got, want, rtol=1e-4, atol=1e-5, dtype=np.float32, what=f"causal={causal}, chunks of {size}")
    far = np.array([[1e4], [-1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        close(chunked_attention(far, far, far, chunk_size=1), far, why="scores of any size are safe")
    for causal in (False, True):
        short, long = chunked_peak(256, causal), chunked_peak(1024, causal)
        assert long < 6 * short, f"4 times as long a text took {long / short:.0f} times the memory: never hold all T times T places"
    ### BEGIN HIDDEN TESTS
    length, step = (int(n) for n in np.random.default_rng().integers(3, 12, size=2))
    asks, tags, tells = np.random.default_rng().normal(0, 2, size=(3, 2, 3, length, 4))
    for causal in (False, True):
        table = weights_by_the_book(asks, tags, causal_mask(length) if causal else None, 0.5)
        close(chunked_attention(asks, tags, tells, causal, step), table @ tells, dtype=np.float64)
    ### END HIDDEN TESTS


test_chunked_attention()

# %%
thin = [measure(chunked_attention, *sequence(T), repeats=3) for T in lengths]
print("largest difference:", float(np.abs(thin[-1].result - plain[-1].result.data).max()))
figure, both = plt.subplots(1, 2, figsize=(9, 3.4))
for axes, unit, pick in zip(both, ("seconds", "peak memory (MB)"), ("median_s", "peak_bytes"), strict=True):
    divisor = 1e6 if pick == "peak_bytes" else 1
    axes.loglog(lengths, [getattr(cost, pick) / divisor for cost in plain], "o-", label="all weights at once", base=2)
    axes.loglog(lengths, [getattr(cost, pick) / divisor for cost in thin], "o-", label="in chunks of 128 keys", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, lengths)
    axes.set_xlabel("T, tokens in the sequence")
    axes.set_title(unit)
    axes.grid(alpha=0.3)
both[1].legend()
plt.tight_layout()
plt.show()
for name, costs in (("at once", plain), ("chunked", thin)):
    print(f"{name}: from T = 1,024 to 2,048 time x {costs[-1].median_s / costs[-2].median_s:.1f}, "
          f"memory x {costs[-1].peak_bytes / costs[-2].peak_bytes:.1f}; T = 2,048: {costs[-1].peak_bytes / 1e6:.1f} MB")

# %% [markdown]
# The same numbers, to 2e-7, with 10.6 MB instead of 71.3 at T = 2,048, and the memory doubles with T. The surprise is
# the time: 72 ms against 87 (one thread, medians of 5). There is more arithmetic in the chunks, but their
# scores take 4 MB, which can stay in the processor's cache, while 67 MB travel to memory and back at each step.
# FlashAttention is this idea on a GPU, with the way back included. What chunks do *not* change is the number of
# products: it still grows like T², and the curves on the left have the same slope.
#
# ## What you have built
#
# `scaled_dot_product_attention`, whose rule keeps the weights and nothing else of their size, and which takes queries in
# blocks where nothing is recorded;
# `causal_mask`, `padding_mask` and `check_mask`; `SelfAttention`; `split_heads`, `merge_heads` and
# `MultiHeadAttention`, which takes PyTorch's weights; and `chunked_attention`, the same in linear memory.
#
# In the terminal: `tito module complete 13`. Module 14 stacks attention into a transformer.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "attention-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **The long text.** A model of 24 layers with 16 heads reads texts of 8,192 tokens in float32. What do the weights of
# attention take in one layer, for one text? What must be there at once in training, and what when it only answers?
# What would chunks change in each case, and what would they not change?
#
# === BEGIN MARK SCHEME ===
# 1 point: 16 x 8192² x 4 bytes = 4.3 GB a layer. 1 point: training keeps those of all 24 layers (103 GB), use one at a
# time. 1 point: chunks make memory linear (in training by computing weights again on the way back), not the time.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "attention-reflect-memory", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 16 * 8192 * 8192 numbers of 4 bytes: 4.3 GB. In training the rule of each layer needs its weights, so 24 layers keep
# 103 GB until the way back; in use each layer's weights can go as soon as they were used, so 4.3 GB. Chunks need
# memory like T instead of T² in both cases, but in training the way back must compute the weights a second time, chunk
# by chunk, from q, k and two numbers a row. The number of multiplications stays T², and a little more.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "attention-reflect-mask-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A leak.** A colleague's language model reaches a training loss of 0.05 in an hour, and what it writes is nonsense.
# Explain how a mistake in the mask can do both. Describe a test of a few lines that finds such a leak in any model,
# without looking at its code.
#
# === BEGIN MARK SCHEME ===
# 1 point: each position sees the token that it is to predict and copies it. 1 point: when writing there is no future
# to copy from. 1 point: change a later token (or take the gradient by it): earlier outputs must not change.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "attention-reflect-mask", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Without a causal mask, or with one that is transposed or off by one, position t can attend to t + 1, which is just
# what it shall predict: copying gives a loss near 0. When the model writes, the next token is not there, so copying
# finds nothing, and nothing else was learned. Test: run the model on a sequence, change token t, run again: outputs at
# positions before t must not change. Or take the gradient of output t by all inputs: zero after t.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "attention-reflect-heads-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **How many heads?** E is 512. Compare 1, 8 and 512 heads: number of parameters, multiplications, memory of the
# weights, and what a single head can still tell apart. What is √d about, and what would happen without it in each case?
#
# === BEGIN MARK SCHEME ===
# 1 point: parameters and multiplications equal, memory of the weights times H. 1 point: one head gives one mixture;
# heads of one feature can only compare single numbers. 1 point: scores spread like √d, d = E / H, so scaling matters
# most for few wide heads (softmax saturates, slopes vanish).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "attention-reflect-heads", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The projections have 4 E² weights whatever H is, and the products cost T² E multiplications each in all three cases.
# The weights are H T² numbers: 8 or 512 times as many. One head has one mixture for each token; 8 heads have eight,
# with 64 features to compare; 512 heads have one feature each, and q · k is a product of two numbers, which can hardly
# tell keys apart. Scores spread like √d with d = 512, 64, 1: without the division one wide head begins saturated, on a
# single key with slopes near 0; for d = 1 the division does nothing.
# ### END SOLUTION
