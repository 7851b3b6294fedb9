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
# # Generation
#
# > Generation: tokens chosen well from a model's logits, and keys and values kept, so that nothing is computed twice.
#
# Module 14 ended with a model that wrote "I the the the", and with a loop that computed the whole text again for every
# new token. These are two problems, and this module solves both.
#
# ```
#   text --> model --> logits (V,) --> penalty --> temperature --> top-k --> top-p --> draw --> token
#             ^  |                                                                               |
#             |  +--> keys and values of every layer: kept                                       |
#             +----------------------------------------------- only the new token <--------------+
# ```
#
# 1. **Which token?** A model gives probabilities, not a text. Always taking the likeliest token is one way to choose,
#    and a bad one. Five small functions on plain arrays make the ways that are in use.
# 2. **At which price?** In a causal model, what was computed for earlier tokens never changes. Whoever keeps it pays
#    for one token instead of for the whole text.
#
# By the end you will have `Sampling`, `KVCache`, and `generate` and `stream`, which write from any of your
# transformers, for several texts at once, as long as you like.
#
# Plan for about six hours. The first test is ten minutes away.

# %%
#| default_exp core.generation
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.core.attention import MultiHeadAttention, attention_weights, causal_mask
from tinytorch.core.embeddings import check_ids
from tinytorch.core.layers import Linear, Module, linear_forward, whole_size
from tinytorch.core.tensor import Array, Tensor, default_generator, from_numpy
from tinytorch.core.training import evaluating
from tinytorch.core.transformers import LayerNorm, PositionwiseFeedForward, Transformer, layer_norm_forward, token_ids

# %%
import matplotlib.pyplot as plt

from tinytorch.core.losses import cross_entropy
from tinytorch.core.optimizers import AdamW
from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed
from tinytorch.core.tokenization import CharTokenizer

from tito import data

# %% [markdown]
# ## 1. Something to choose from
#
# The model of module 14 again: 64 wide, 2 layers, 4 heads, 64 characters of context, trained on Shakespeare for some
# seconds. And its greedy text. Predict: how many different lines will it write?

# %%
play = data.text("shakespeare")
tokenizer = CharTokenizer().fit(play)
ids = np.array(tokenizer.encode(play))
manual_seed(1)
writer = Transformer(tokenizer.vocab_size, 64, 4, 2, 256, 64, tie_weights=True)
dice, optimizer = np.random.default_rng(0), AdamW(writer.parameters(), lr=4e-3, weight_decay=0.1)
for step in range(300):
    optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 40, (300 - step) / 200)
    window = ids[dice.integers(0, len(ids) - 65, size=(16, 1)) + np.arange(65)]  # (16, 65)
    loss = cross_entropy(writer(window[:, :-1]), window[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
prompt = tokenizer.encode("ROMEO:\n")
with evaluating(writer):
    greedy = writer.generate(prompt, 300).data
print(tokenizer.decode(greedy))

# %% [markdown]
# It goes round in a circle, and it cannot get out: the model is a function, the window holds 64 characters, and once
# the same 64 have come again, everything after them comes again too. A larger model takes longer to fall into
# its circle, and falls into it all the same (Holtzman et al. 2020).
#
# How does that fit a model that was trained to be *likely*? Look at what it gives to the characters of its own text,
# and to those of a piece of Shakespeare.

# %%
def given_probabilities(model, text):
    """What the model gave to each of the last 64 characters of text, knowing those before them."""
    with evaluating(model):
        logits = model(text[-65:-1]).data
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (raised / raised.sum(axis=-1, keepdims=True))[np.arange(64), text[-64:]]


human = ids[500_000:500_065]
figure, axes = plt.subplots(figsize=(9, 2.8))
for text, label in ((greedy, "greedy"), (human, "Shakespeare")):
    chances = given_probabilities(writer, text)
    axes.plot(chances, linewidth=1, label=f"{label}: mean {chances.mean():.2f}, lowest {chances.min():.3f}")
axes.set_xlabel("character")
axes.set_ylabel("probability it was given")
axes.set_ylim(0, 0.85)
axes.legend(ncols=2, fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# The mean probability of a character is 0.36 in the greedy text, and 0.18 in Shakespeare's, whose least expected
# character got 0.004. The numbers are those of this model and these 64 characters; the picture is that of Holtzman et
# al., who looked at GPT-2. People do not write what is likeliest. Who reads wants to be told something, and what
# everyone could have guessed tells nothing. A good text is not at the top of the distribution: it is *drawn* from it.
#
# ## 2. Draw one
#
# Each token gets its probability, softmax(logits). Two questions: how sharp shall the distribution be, and how is a
# token drawn from it?
#
# **Sharp**: divide the logits by a *temperature* first. At 0.5 the differences between logits are twice as large, so
# the likely tokens become likelier; at 2 they are half as large, and everything becomes possible.
#
# **Draw**: lay the probabilities side by side on a line, throw a point on it, and see in whose part it lies.
#
# ```
#   probabilities   0.5      0.2  0.3
#                 |--------|----|------|
#   bounds                 0.5  0.7    1.0
#   point 0.62                ^            --> token 1, the first whose bound is greater
# ```
#
# The line need not have the length 1: throw the point on a line of any length, and no division is needed.
#
# Module 14 had another way: a random number of Gumbel's distribution for *each* logit, and the largest sum wins.
# Predict: for GPT-2's 50,257 tokens, how much time does one random number save against 50,257?
#
# ### Exercise: `scale_temperature` and `sample`

# %% nbgrader={"grade": false, "grade_id": "generation-sample", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def finite_peaks(logits: Array) -> Array:
    """The largest of each row of ``logits`` (..., V), as (..., 1).

    Raises
    ------
    ValueError
        If one of them is no finite number: a logit is NaN or infinite, or every token is excluded.
    """
    peaks: Array = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(peaks).all():
        raise ValueError("generation: the largest logit should be a finite number; one is NaN or infinite, or all are -inf")
    return peaks


@np.errstate(over="ignore")
def scale_temperature(logits: Array, temperature: float) -> Array:
    """``logits`` divided by ``temperature``: below 1 the likely tokens become likelier, above 1 the unlikely ones.

    Raises
    ------
    ValueError
        If the temperature is not a number above 0.

    TODO: Refuse what is no temperature, divide.

    APPROACH:
    1. A temperature that is not greater than 0 and finite: ValueError that names it.

    EXAMPLE:
    >>> scale_temperature(np.array([2.0, 0.0, -2.0]), 0.5)
    array([ 4.,  0., -4.])

    HINT: NaN is neither greater nor less than 0: ask for what is right, `not 0 < temperature < math.inf`.
    """
    ### BEGIN SOLUTION
    if not 0 < temperature < math.inf:
        raise ValueError(f"scale_temperature: temperature should be a number above 0, got {temperature}")
    return logits / temperature
    ### END SOLUTION


def sample(logits: Array, generator: np.random.Generator) -> Array:
    """A token for each row of ``logits`` (..., V), drawn with the probabilities softmax(logits); integers (...).

    A logit of -inf is never drawn. Each row takes one number from the generator, whatever V is.

    Raises
    ------
    ValueError
        See ``finite_peaks``.

    TODO: Probabilities as parts of a line, a point on the line, the part that it lies in.

    APPROACH:
    1. e to the power of logits minus `finite_peaks(logits)`: lengths of the parts.
    2. `bounds`: where each part ends, by `cumsum` along the last axis. The last bound is the length of the line.
    3. For each row a point: a random number from 0 to 1 times the length of the line.
    4. The first bound that is greater than the point.

    EXAMPLE:
    >>> sample(np.array([[0.0, -np.inf, -np.inf], [-np.inf, -np.inf, 3.0]]), np.random.default_rng(0))
    array([0, 2])

    HINT: `generator.random(shape)` gives numbers in [0, 1). Of booleans, `argmax` gives the place of the first True.
    """
    ### BEGIN SOLUTION
    bounds = np.exp(logits - finite_peaks(logits)).cumsum(axis=-1)
    points = generator.random(logits.shape[:-1])[..., None] * bounds[..., -1:]
    drawn: Array = (bounds > points).argmax(axis=-1)
    return drawn
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "generation-lowest", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Lowest:
    """In the place of a generator: its random numbers are all 0, the lowest that there is."""

    def random(self, shape):
        return np.zeros(shape)

# %% nbgrader={"grade": true, "grade_id": "test-generation-sample", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def shares_by_the_book(logits):
    """Softmax in float64."""
    raised = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def drawn_by_the_book(logits, numbers):
    """For each row the first token at which the probabilities so far are more than the row's random number."""
    flat = zip(shares_by_the_book(logits).reshape(-1, logits.shape[-1]), numbers.ravel(), strict=True)
    chosen = [next(token for token in range(len(row)) if row[: token + 1].sum() > number) for row, number in flat]
    return np.reshape(chosen, logits.shape[:-1])


def test_sample():
    for temperature in (0.5, 2.0):
        close(scale_temperature(np.array([[2.0, -3.0]]), temperature), [[2 / temperature, -3 / temperature]])
    for bad in (0, -1.0, math.nan, math.inf):
        with raises(ValueError, str(bad), why="refuse everything but finite numbers above 0, and name it"):
            scale_temperature(np.zeros(3), bad)
    rng = np.random.default_rng(1)
    why = "the first bound that is greater than the point; one random number for each row"
    for shape in [(30, 4), (2, 3, 50), (5,)]:
        logits = rng.normal(0, 2, size=shape)
        want = drawn_by_the_book(logits, np.random.default_rng(7).random(shape[:-1]))
        close(sample(logits, np.random.default_rng(7)), want, what=f"tokens for logits {shape}", why=why)
    alone = np.full((6, 6), -np.inf)
    alone[range(6), range(6)] = rng.normal(size=6)
    close(sample(alone, np.random.default_rng(0)), list(range(6)), why="a logit of -inf has probability 0")
    close(sample(np.array([-1e4, 0.0, 1e4]), np.random.default_rng(0)), 2, why="logits of any size: subtract the largest")
    picked = sample(np.tile([1.0, 0.0, 2.0], (20_000, 1)), np.random.default_rng(2))
    shares = [float((picked == token).mean()) for token in range(3)]
    close(shares, shares_by_the_book([1.0, 0.0, 2.0]), atol=0.02, rtol=0, what="shares of 20,000 draws")
    lowest = sample(np.array([[-np.inf, 0.0, 1.0]]), Lowest())
    close(lowest, [1], why="if the point is 0, a part of length 0 does not hold it: greater than, not equal")
    with raises(ValueError, "-inf", why="finite_peaks refuses a row without a token"):
        sample(np.full((1, 3), -np.inf), np.random.default_rng(0))
    ### BEGIN HIDDEN TESTS
    seed, table = int(np.random.default_rng().integers(1000)), np.random.default_rng().normal(size=(20, 7))
    close(sample(table, np.random.default_rng(seed)), drawn_by_the_book(table, np.random.default_rng(seed).random(20)))
    warmth = float(np.random.default_rng().uniform(0.1, 4))
    close(scale_temperature(table, warmth), table / warmth)
    ### END HIDDEN TESTS


test_sample()

# %%
vocabulary = np.random.default_rng(0).normal(size=(1, 50_257)).astype(np.float32)
dice = np.random.default_rng(0)
by_gumbel = measure(lambda: np.argmax(vocabulary + dice.gumbel(size=vocabulary.shape), axis=-1))
by_line = measure(lambda: sample(vocabulary, dice))
print(f"Gumbel noise {by_gumbel.median_s * 1e6:.0f} µs, one point on a line {by_line.median_s * 1e6:.0f} µs: "
      f"{by_gumbel.median_s / by_line.median_s:.1f} times as fast")

# %% [markdown]
# Measured here, on one thread: 3 times as fast. Not 50,257 times, since both must still turn every logit into an
# exponential or a logarithm and look at each of them.
#
# How the temperature sounds:

# %%
for temperature in (0.3, 0.8, 1.5):
    manual_seed(3)
    text = list(prompt)
    with evaluating(writer):
        for _ in range(80):
            logits = writer(text[-64:]).data[-1]
            text.append(int(sample(scale_temperature(logits, temperature), default_generator())))
    print(f"{temperature}: {tokenizer.decode(text[len(prompt):])!r}")

# %% [markdown]
# At 0.3 it repeats itself, at 1.5 it does not spell any more. The reason for the latter is the *tail*: each of the
# nearly sixty unlikely characters has a small probability, but there are many of them. Outside the ten likeliest lies
# 11 % at a temperature of 0.8, and 32 % at 1.5 (means over 1,280 places of the play). One of them is drawn, and the
# model has to go on from there.
#
# ## 3. Only the best k
#
# The simplest way to cut the tail: keep the k likeliest tokens, exclude all others. To exclude is to set the logit to
# -inf: e to that power is 0, so `sample` never draws it, and the others share what is left.
#
# The naive way sorts all V logits and takes the k-th. But who asks only *which* is the k-th largest does not need the
# rest in order: `np.partition` puts this one in its place, larger ones behind it, and stops.
#
# ### Exercise: `keep_top_k`

# %% nbgrader={"grade": false, "grade_id": "generation-top-k", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def keep_top_k(logits: Array, k: int) -> Array:
    """``logits`` (..., V) with -inf in the place of all but the ``k`` largest of each row.

    Those equal to the k-th largest stay as well. If there are no more than k, all stay.

    Source: Fan, Lewis and Dauphin 2018, "Hierarchical neural story generation".

    Raises
    ------
    TypeError, ValueError
        If ``k`` is no whole number, or less than 1.

    TODO: The k-th largest of each row, and -inf where a logit is less.

    APPROACH:
    1. `whole_size("keep_top_k", "k", k)` is k, checked. More than V is as good as V.
    2. The k-th largest of each row, as (..., 1).
    3. A new array: -inf where the logit is less, else the logit.

    EXAMPLE:
    >>> keep_top_k(np.array([[1.0, 5.0, 3.0]]), 2)
    array([[-inf,   5.,   3.]])

    HINT: Nothing needs to be sorted: `np.partition(x, -k, axis=-1)` puts the k-th largest at the place -k.
    """
    ### BEGIN SOLUTION
    count = min(whole_size("keep_top_k", "k", k), logits.shape[-1])
    smallest = np.partition(logits, -count, axis=-1)[..., -count, None]
    return np.where(logits < smallest, -math.inf, logits)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-top-k", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_top_k():
    logits = np.array([[1.0, 5.0, 3.0, 4.0], [9.0, 2.0, 2.0, 1.0]])
    kept, off = logits.copy(), -np.inf
    close(keep_top_k(logits, 1), [[off, 5, off, off], [9, off, off, off]])
    close(keep_top_k(logits, 2), [[off, 5, off, 4], [9, 2, 2, off]], why="equal to the k-th largest stays as well")
    close(keep_top_k(logits, 3), [[off, 5, 3, 4], [9, 2, 2, off]])
    for k in (4, 5, 100):
        close(keep_top_k(logits, k), logits, why="there are no more than k")
    close(logits, kept, what="the logits afterwards", why="keep_top_k must not write into them")
    close(keep_top_k(logits.astype(np.float32), 2)[0], [off, 5, off, 4], dtype=np.float32, why="float32 stays float32")
    close(keep_top_k(logits[0], 2), [off, 5, off, 4], what="of a single row")
    for bad, kind in [(0, ValueError), (-2, ValueError), (1.5, TypeError)]:
        with raises(kind, "keep_top_k: k ", str(bad)):
            keep_top_k(logits, bad)
    ### BEGIN HIDDEN TESTS
    table, count = np.random.default_rng().normal(size=(2, 3, 30)), int(np.random.default_rng().integers(2, 29))
    best = [[sorted(row)[-count:] for row in rows] for rows in table.tolist()]
    left = keep_top_k(table, count)
    close(np.isfinite(left).sum(axis=-1), np.full((2, 3), count), what="how many are kept")
    close(np.sort(left, axis=-1)[..., -count:], best)
    close(np.where(np.isfinite(left), left, table), table)
    ### END HIDDEN TESTS


test_top_k()

# %% [markdown]
# ## 4. Only what is likely together
#
# How large should k be? After "q" there is one sensible character, and at the beginning of a line there are twenty. A
# fixed k is too large for the one and too small for the other. Holtzman et al. keep a fixed *probability* instead: the
# likeliest tokens until they have p together, say 0.9. They call it the nucleus.
#
# ```
#   probabilities, ranked     0.6   0.2   0.1   0.06  0.04          p = 0.75
#   what comes before         0     0.6   0.8   0.9   0.96
#   less than p?              keep  keep  -     -     -
# ```
#
# "What comes before" is the safe way to ask: the likeliest token has 0 before it, so it stays for any p. Who compares
# the running sum itself with p excludes the very token that reaches it, and for p = 0.5 here all of them.
#
# ### Exercise: `keep_top_p`

# %% nbgrader={"grade": false, "grade_id": "generation-top-p", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def keep_top_p(logits: Array, p: float) -> Array:
    """``logits`` (..., V) with -inf in the place of all but the likeliest tokens that together have probability ``p``.

    A token stays if those before it, from the likeliest on, have less than ``p`` together: the likeliest always stays,
    and so does the one with which ``p`` is reached. Of equal ones the first comes first.

    Source: Holtzman et al. 2020, "The curious case of neural text degeneration" (nucleus sampling).

    Raises
    ------
    ValueError
        If ``p`` is not above 0 and at most 1; see also ``finite_peaks``.

    TODO: Rank, add up, exclude, and put back in place.

    APPROACH:
    1. A p that is not above 0 and at most 1: ValueError that names it.
    2. `order`: a stable argsort of the negative logits: the likeliest first. The logits in that order.
    3. Their probabilities, in float64; what comes before each: the sum up to it, without itself.
    4. -inf where that is p or more; then each back to where it came from, in a new array.

    EXAMPLE:
    >>> keep_top_p(np.log([0.1, 0.6, 0.3]), 0.7).round(2)
    array([ -inf, -0.51, -1.2 ])

    HINT: `np.take_along_axis(x, order, -1)` sorts, `np.put_along_axis(new, order, sorted, -1)` undoes it.
    """
    ### BEGIN SOLUTION
    if not 0 < p <= 1:
        raise ValueError(f"keep_top_p: p should be above 0 and at most 1, got {p}")
    order = np.argsort(-logits, axis=-1, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=-1)
    shares = np.exp((ranked - finite_peaks(ranked)).astype(np.float64))
    shares /= shares.sum(axis=-1, keepdims=True)
    ranked[shares.cumsum(axis=-1) - shares >= p] = -math.inf
    nucleus = np.empty_like(logits)
    np.put_along_axis(nucleus, order, ranked, axis=-1)
    return nucleus
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-top-p", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def nucleus_by_the_book(logits, p):
    """One row: from the likeliest on, as long as those before have less than p."""
    shares, before = shares_by_the_book(logits), 0.0
    kept = np.full(len(logits), -np.inf)
    for token in sorted(range(len(logits)), key=lambda token: -logits[token]):
        if before < p:
            kept[token] = logits[token]
        before += shares[token]
    return kept


def test_top_p():
    off, logits = -np.inf, np.log([[0.2, 0.06, 0.6, 0.1, 0.04]])
    kept = logits.copy()
    for p, stay in [(0.01, [2]), (0.59, [2]), (0.61, [0, 2]), (0.75, [0, 2]), (0.85, [0, 2, 3]), (0.99, [0, 1, 2, 3, 4]), (1, range(5))]:
        want = np.full((1, 5), off)
        want[0, stay] = logits[0, stay]
        close(keep_top_p(logits, p), want, what=f"p = {p}", why="keep what has less than p before it, and put it back in place")
    close(logits, kept, what="the logits afterwards", why="keep_top_p must not write into them")
    pairs = np.tile([0.0, 1.0], 32)
    close(keep_top_p(pairs, 0.4), nucleus_by_the_book(pairs, 0.4), why="of equal ones the first come first: a stable sort")
    even = keep_top_p(np.zeros((2, 64)), 0.5)
    close(even, [[0.0] * 32 + [off] * 32] * 2, why="half of 64 equal ones have p together")
    close(keep_top_p(np.array([1e4, 0.0, off], np.float32), 0.5), [1e4, off, off], dtype=np.float32, why="any size; float32 stays")
    close(keep_top_p(np.array([0.0, off, 0.0]), 1), [0, off, 0], why="what is excluded stays so")
    many = np.random.default_rng(3).normal(0, 1e-3, size=60_000).astype(np.float32)
    count = int(np.isfinite(keep_top_p(many, 0.9)).sum())
    right = int(np.isfinite(nucleus_by_the_book(many.astype(np.float64), 0.9)).sum())
    assert count == right, f"of 60,000 nearly equal ones {right} have 0.9 together, got {count}: add up in float64"
    for bad in (0, -0.5, 1.01, math.nan):
        with raises(ValueError, str(bad)):
            keep_top_p(logits, bad)
    ### BEGIN HIDDEN TESTS
    table, share = np.random.default_rng().normal(0, 2, size=(2, 3, 9)), float(np.random.default_rng().uniform(0.2, 0.95))
    want = [[nucleus_by_the_book(row, share) for row in rows] for rows in table]
    close(keep_top_p(table, share), want)
    ### END HIDDEN TESTS


test_top_p()

# %% [markdown]
# Two places in a text: after "the q", and at the beginning of a line. Predict how many of the 67 tokens each of the
# four rules keeps at each place.

# %%
RULES = {
    "as it is": lambda logits: logits,
    "temperature 0.5": lambda logits: scale_temperature(logits, 0.5),
    "top-k, k = 8": lambda logits: keep_top_k(logits, 8),
    "top-p, p = 0.9": lambda logits: keep_top_p(logits, 0.9),
}
places = {"ROMEO:\nBut the q": 8, "ROMEO:\nI love thee.\n": 24}
figure, grid = plt.subplots(2, 4, figsize=(11, 4.4), sharey="row")
for row, (context, shown) in zip(grid, places.items(), strict=True):
    with evaluating(writer):
        logits = writer(tokenizer.encode(context)).data[-1]
    order = np.argsort(-logits)[:shown]
    labels = [tokenizer.decode([token]).replace("\n", "\\n").replace(" ", "_") for token in order]
    for axes, (name, rule) in zip(row, RULES.items(), strict=True):
        left = rule(logits)
        raised = np.exp(left - left.max())
        axes.bar(range(shown), (raised / raised.sum())[order], color="steelblue")
        axes.set_xticks(range(shown), labels, fontsize=7)
        axes.set_title(f"{name}: {np.isfinite(left).sum()} kept", fontsize=9)
    row[0].set_ylabel(repr(context[-6:]))
plt.tight_layout()
plt.show()

# %% [markdown]
# After "the q", p = 0.9 keeps 5 characters, and k = 8 keeps three more that nobody needs. At the beginning of a line
# top-p keeps 17, and k = 8 forbids nine of those. The temperature keeps all, in both.
#
# ## 5. Not again
#
# A third idea works on what stands there already: make the tokens less likely that were written before. CTRL's rule
# divides their logits by a penalty such as 1.2.
#
# There is a trap. Dividing a *negative* logit by 1.2 makes it larger, and the token likelier. So negative ones are
# multiplied. Another trap is for those who go over the text token by token: a token that occurs three times is
# penalised three times. The rule says once.
#
# ### Exercise: `penalize_repetition`

# %% nbgrader={"grade": false, "grade_id": "generation-penalty", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def penalize_repetition(logits: Array, ids: Any, penalty: float) -> Array:
    """``logits`` (B, V), less for the tokens that are in the text already.

    A positive logit is divided by ``penalty``, a negative one multiplied with it, however often the token occurs.

    Source: Keskar et al. 2019, "CTRL: a conditional transformer language model", section 4.1.

    Parameters
    ----------
    logits
        One row for each text.
    ids
        The tokens of each text: an array (B, T), or B lists or arrays, which may differ in length.
    penalty
        1 changes nothing; the source recommends 1.2. Below 1, repetition is rewarded.

    Raises
    ------
    ValueError
        If ``penalty`` is not a number above 0, or there are not as many texts as rows.

    TODO: Row by row, for the tokens of its text.

    APPROACH:
    1. A penalty that is not greater than 0 and finite: ValueError that names it.
    2. A copy of the logits. Go over its rows and the texts side by side, with `strict=True`.
    3. The row's logits of its text's tokens: divided where they are greater than 0, else multiplied.

    EXAMPLE:
    >>> penalize_repetition(np.array([[3.0, -1.0, 3.0]]), [[0, 1, 0]], 2.0)
    array([[ 1.5, -2. ,  3. ]])

    HINT: `row[text]` picks the logits of a list of tokens, a token twice if it is there twice; so is what you assign.
    """
    ### BEGIN SOLUTION
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalize_repetition: penalty should be a number above 0, got {penalty}")
    penalized = logits.copy()
    for row, text in zip(penalized, ids, strict=True):
        told = row[text]
        row[text] = np.where(told > 0, told / penalty, told * penalty)
    return penalized
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-penalty", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def penalized_by_the_book(logits, texts, penalty):
    """Token by token, each once."""
    rated = np.array(logits, np.float64)
    for row, text in enumerate(texts):
        for token in {int(token) for token in text}:
            rated[row, token] *= 1 / penalty if rated[row, token] > 0 else penalty
    return rated


def test_penalty():
    logits = np.array([[3.0, -1.0, 3.0, -2.0], [0.0, 4.0, -4.0, 1.0]])
    kept = logits.copy()
    for penalty in (2.0, 0.5, 1.0):
        for texts in ([[0, 1], [1, 2]], [[0, 1, 0, 0], [2]], np.array([[3, 3], [0, 1]]), [[], [1]]):
            got = penalize_repetition(logits, texts, penalty)
            why = "divide what is positive, multiply what is negative, each token once, each row by its own text"
            close(got, penalized_by_the_book(logits, texts, penalty), what=f"penalty {penalty}, texts {texts}", why=why)
    close(logits, kept, what="the logits afterwards", why="penalize_repetition must not write into them")
    close(penalize_repetition(logits.astype(np.float32), [[0], [2]], 2.0)[1], [0, 4, -8, 1], dtype=np.float32)
    close(penalize_repetition(np.array([[-np.inf, 1.0]]), [[0]], 2.0), [[-np.inf, 1]], why="what is excluded stays so")
    for bad in (0, -1.2, math.nan, math.inf):
        with raises(ValueError, str(bad)):
            penalize_repetition(logits, [[0], [0]], bad)
    with raises(ValueError, why="two rows and one text: zip with strict=True"):
        penalize_repetition(logits, [[0]], 2.0)
    ### BEGIN HIDDEN TESTS
    table, stories = np.random.default_rng().normal(size=(3, 9)), np.random.default_rng().integers(0, 9, size=(3, 5))
    close(penalize_repetition(table, stories, 1.7), penalized_by_the_book(table, stories, 1.7))
    ### END HIDDEN TESTS


test_penalty()

# %% [markdown]
# Softmax does not care what is added to all logits. Predict: does this rule care? Two tokens, the first of which was
# written before; then the same with 10 added to both logits.

# %%
for logits in ([[2.0, 1.0]], [[12.0, 11.0]]):
    before, after = (shares_by_the_book(x) for x in (logits, penalize_repetition(np.array(logits), [[0]], 1.2)))
    print(f"logits {logits[0]}: probability of the first {before[0, 0]:.2f}, with the penalty {after[0, 0]:.2f}")

# %% [markdown]
# The same distribution, 0.73 and 0.27; after the penalty 0.66 in one case and 0.27 in the other. A model may add any
# number to its logits without being another model, and yet the penalty means something else. The rule is in use
# everywhere all the same. Now you know why 1.2 is strong for one model and weak for the next, and why it stands first:
# it is for the logits as the model gives them.
#
# ## 6. All rules in one
#
# The rules in the order in which they are usually applied: penalty, temperature, top-k, top-p. A frozen dataclass holds
# what was chosen. It refuses nonsense when it is made, not at the first token.
#
# One detail is about size. Somebody will ask for temperature 10⁻³²⁰, and 5 divided by that is infinity. If the largest
# logit is 0, only the others become infinite, and minus infinity is what they should be.
#
# ### Exercise: `Sampling`

# %% nbgrader={"grade": false, "grade_id": "generation-sampling", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the rules in the order in which they apply.

    Parameters
    ----------
    repetition_penalty
        See ``penalize_repetition``; 1 changes nothing.
    temperature
        See ``scale_temperature``; 0 takes the likeliest token.
    top_k, top_p
        See ``keep_top_k`` and ``keep_top_p``; None keeps all.
    seed
        Starts a generator of its own for each text or batch; None takes from the default generator.

    Raises
    ------
    TypeError, ValueError
        When it is made: if a value is none that its rule takes, if ``seed`` is no whole number or negative, or if
        top_k or top_p is given with temperature 0, where it would change nothing.

    TODO: Fill in the blanks: `rate`, which applies the rules, and `choose`.

    APPROACH:
    1. `rate`: float64 first, `logits.astype(np.float64)`. Then penalty, temperature, top_k, top_p, each only if
       it changes something. With temperature 0, only the penalty.
    2. Between penalty and temperature subtract `finite_peaks`, so that the division cannot make an infinity.
    3. `choose`: rate, then the largest if the temperature is 0, else `sample`.

    EXAMPLE:
    >>> Sampling(temperature=0).choose(np.array([[1.0, 3.0, 2.0]]), [[0]], np.random.default_rng(0))
    array([1])

    HINT: `self.top_k is not None`, since a number may be false.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"Sampling: temperature should be a number from 0 up, got {self.temperature}")
        if self.top_k is not None:
            whole_size("Sampling", "top_k", self.top_k)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling: top_p should be above 0 and at most 1, got {self.top_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"Sampling: repetition_penalty should be a number above 0, got {self.repetition_penalty}")
        if self.seed is not None and index(self.seed) < 0:
            raise ValueError(f"Sampling: seed should be 0 or more, got {self.seed}")
        for name, value in (("top_k", self.top_k), ("top_p", self.top_p)):
            if self.temperature == 0 and value is not None:
                raise ValueError(f"Sampling: temperature 0 takes the likeliest token, so leave {name}={value} out")

    def generator(self) -> np.random.Generator:
        """Where the random numbers come from: a new generator from the seed, or the default one."""
        return default_generator() if self.seed is None else np.random.default_rng(self.seed)

    def rate(self, logits: Array, texts: Any) -> Array:
        """The logits (B, V) in float64 after all rules, given what was written so far; see ``penalize_repetition``."""
        ### BEGIN SOLUTION
        rated = logits.astype(np.float64)
        if self.repetition_penalty != 1:
            rated = penalize_repetition(rated, texts, self.repetition_penalty)
        rated = rated - finite_peaks(rated)
        if self.temperature > 0:
            rated = scale_temperature(rated, self.temperature)
        if self.top_k is not None:
            rated = keep_top_k(rated, self.top_k)
        if self.top_p is not None:
            rated = keep_top_p(rated, self.top_p)
        return rated
        ### END SOLUTION

    def choose(self, logits: Array, texts: Any, generator: np.random.Generator) -> Array:
        """A token for each row of the logits (B, V): integers (B,)."""
        ### BEGIN SOLUTION
        rated = self.rate(logits, texts)
        return sample(rated, generator) if self.temperature > 0 else rated.argmax(axis=-1)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-sampling", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def rated_by_the_book(logits, texts, temperature, k, p, penalty):
    """The rules in their order, row by row."""
    rated = penalized_by_the_book(logits, texts, penalty)
    rated = (rated - rated.max(axis=-1, keepdims=True)) / (temperature or 1)
    if k is not None:
        rated = np.where(rated < np.sort(rated, axis=-1)[:, -k, None], -np.inf, rated)
    return rated if p is None else np.array([nucleus_by_the_book(row, p) for row in rated])


def test_sampling():
    rng = np.random.default_rng(4)
    logits, texts = rng.normal(0, 2, size=(12, 9)), rng.integers(0, 9, size=(12, 3))
    for temperature, k, p, penalty in [
        (1.0, None, None, 1.0), (0.7, None, None, 1.0), (2.0, 4, None, 1.0), (1.5, None, 0.6, 1.0), (1.0, None, None, 1.6),
        (2.0, 5, 0.7, 1.4), (0, None, None, 1.0), (0, None, None, 3.0), (1.0, None, None, 2.0),
    ]:  # fmt: skip
        chosen_way = Sampling(temperature=temperature, top_k=k, top_p=p, repetition_penalty=penalty)
        want = rated_by_the_book(logits, texts, temperature, k, p, penalty)
        name = f"temperature {temperature}, top_k {k}, top_p {p}, penalty {penalty}"
        why = "penalty, minus the largest, temperature, top_k, top_p, in this order"
        close(chosen_way.rate(logits, texts), want, what=f"rate, {name}", why=why)
        tokens = drawn_by_the_book(want, np.random.default_rng(8).random(12)) if temperature else want.argmax(axis=-1)
        close(chosen_way.choose(logits, texts, np.random.default_rng(8)), tokens, what=f"choose, {name}")
    rated = Sampling().rate(logits.astype(np.float32), texts)
    assert rated.dtype == np.float64, f"rate works in float64, got {rated.dtype}"
    with np.errstate(all="raise", under="ignore"):
        cold = Sampling(temperature=1e-320).choose(logits, texts, np.random.default_rng(0))
    close(cold, logits.argmax(axis=-1), what="at temperature 1e-320", why="subtract finite_peaks before you divide")
    with raises(ValueError, "NaN", why="finite_peaks refuses what a broken model gives, with temperature 0 as well"):
        Sampling(temperature=0).choose(np.array([[1.0, math.nan]]), [[0]], np.random.default_rng(0))
    ### BEGIN HIDDEN TESTS
    heat, least = (float(x) for x in np.random.default_rng().uniform(0.5, 0.9, size=2))
    table = np.random.default_rng().normal(0, 2, size=(6, 9))
    answer = rated_by_the_book(table, texts[:6], heat, 6, least, 1.3)
    close(Sampling(heat, 6, least, 1.3).rate(table, texts[:6]), answer)
    ### END HIDDEN TESTS


test_sampling()

# %% [markdown]
# ## 7. The price
#
# Now the second problem. To write the next token, module 14 runs the model over the whole text. Then the text is one
# token longer, and everything is computed again.
#
# But look at the mask. Token 5 attends to tokens 0 to 5, in every layer. Whatever comes later, its vectors stay what
# they are. What do *later* tokens need of it? Only what they attend to: its key and its value, in each layer. So keep
# these, and run the model on the new token alone.
#
# How much is saved? Count before you build: 200 tokens after a prompt of one. Predict the ratio.
#
# ### Exercise: `generation_work`

# %% nbgrader={"grade": false, "grade_id": "generation-work", "locked": false, "schema_version": 3, "solution": true, "task": false}
def generation_work(prompt_length, new_tokens, use_cache):
    """What a model computes to write `new_tokens` (1 or more) after a prompt, within its window.

    Returns two numbers: how many vectors go through its layers, and how many pairs of a query and a key are compared
    in one head of one layer.

    TODO: Count, without a cache and with one.

    APPROACH:
    1. The model runs once for each new token. The lengths of the text before each: from prompt_length up.
    2. Without a cache each run computes a vector for each token of the text, and compares all with all.
    3. With a cache the first run does so for the prompt. After it each run has one vector, which is compared with all.

    EXAMPLE:
    >>> generation_work(3, 2, use_cache=False), generation_work(3, 2, use_cache=True)
    ((7, 25), (4, 13))

    HINT: 3 + 4 and 9 + 16 without; 3 + 1 and 9 + 4 with. The last token that is written goes through no layer.
    """
    ### BEGIN SOLUTION
    texts = range(prompt_length, prompt_length + new_tokens)
    if not use_cache:
        return sum(texts), sum(length**2 for length in texts)
    return prompt_length + new_tokens - 1, prompt_length**2 + sum(texts[1:])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-work", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_work():
    for given, (prompt_length, new) in [((7, 25), (3, 2)), ((5, 25), (5, 1)), ((1, 1), (1, 1))]:
        got = generation_work(prompt_length, new, use_cache=False)
        close(list(got), given, what=f"without a cache, {new} after {prompt_length}", why="a run for each new token, over all before it")
    for given, (prompt_length, new) in [((4, 13), (3, 2)), ((5, 25), (5, 1)), ((4, 10), (1, 4))]:
        got = generation_work(prompt_length, new, use_cache=True)
        close(list(got), given, what=f"with a cache, {new} after {prompt_length}", why="the prompt once, then one vector a run")
    ### BEGIN HIDDEN TESTS
    head, tail = (int(n) for n in np.random.default_rng().integers(2, 30, size=2))
    pairs = sum(1 for end in range(head, head + tail) for _ in range(end) for _ in range(end))
    close(list(generation_work(head, tail, False)), [sum(end for end in range(head, head + tail)), pairs])
    pairs = sum(1 for _ in range(head) for _ in range(head)) + sum(1 for end in range(head + 1, head + tail) for _ in range(end))
    close(list(generation_work(head, tail, True)), [sum(1 for _ in range(head + tail - 1)), pairs])
    ### END HIDDEN TESTS


test_work()

# %%
for name, without, kept in zip(("vectors", "pairs"), *(generation_work(1, 200, use) for use in (False, True)), strict=True):
    print(f"{name:8} {without:10,} without, {kept:7,} with a cache: {without / kept:.0f} times as many")

# %% [markdown]
# A hundred times as many vectors. Remember this number: you will measure the time in section 11.
#
# ## 8. What to keep
#
# The naive cache is a list that grows: `np.concatenate([keys, new])` for each token. It copies everything that is there
# to make room for one row, so T tokens copy T²/2 rows, and the old enemy is back. We know the largest length
# beforehand: make the arrays once, and write each row into its place. What attention gets is a *view* of the part that
# is filled.
#
# ```
#   keys[layer]  (B, H, max_seq_length, D)
#                 [ k0 | k1 | k2 | k3 | .. | .. | .. ]
#                 <----- length ----->
#                 append writes here  ^     and returns a view from the left to here
# ```
#
# ### Exercise: `KVCache`

# %% nbgrader={"grade": false, "grade_id": "generation-cache", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class KVCache:
    """The keys and values of all layers for what a model has read so far.

    Parameters
    ----------
    num_layers, batch_size, num_heads, max_seq_length, head_dim
        How many layers, texts, heads, tokens of each text, and numbers in a key.
    dtype
        That of keys and values.

    Attributes
    ----------
    keys, values
        Arrays of shape (num_layers, batch_size, num_heads, max_seq_length, head_dim), made once.
    length
        How many tokens of each text are in, padding included.
    padding
        For each text, how many of these are padding, at its beginning: integers (batch_size,), 0 at first.

    Raises
    ------
    TypeError, ValueError
        If a size is no whole number, or less than 1.

    TODO: Fill in the blanks: the arrays, `append` and `nbytes`.

    APPROACH:
    1. Two arrays of zeros of that shape and dtype.
    2. `append`: the new ones go behind the `length` tokens that are there. `whole_span` checks and says from where to
       where. The last layer's append makes the cache longer.
    3. Return what this layer has so far: views of the arrays, without copying.
    4. `nbytes`: what both arrays take.

    EXAMPLE:
    >>> cache = KVCache(num_layers=1, batch_size=2, num_heads=4, max_seq_length=16, head_dim=8)
    >>> k, v = cache.append(0, np.ones((2, 4, 3, 8)), np.ones((2, 4, 3, 8)))
    >>> k.shape, cache.length
    ((2, 4, 3, 8), 3)

    HINT: While the layers append one after the other, `length` must stay: all of them write to the same places.
    """

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        max_seq_length: int,
        head_dim: int,
        dtype: DTypeLike = np.float32,
    ) -> None:
        sizes = (
            ("num_layers", num_layers),
            ("batch_size", batch_size),
            ("num_heads", num_heads),
            ("max_seq_length", max_seq_length),
            ("head_dim", head_dim),
        )
        shape = tuple(whole_size("KVCache", name, size) for name, size in sizes)
        self.max_seq_length = max_seq_length
        self.length = 0
        self.padding: Array = np.zeros(batch_size, np.int64)
        self.keys: Array
        self.values: Array
        ### BEGIN SOLUTION
        self.keys = np.zeros(shape, dtype)
        self.values = np.zeros(shape, dtype)
        ### END SOLUTION

    @classmethod
    def for_model(cls, model: Transformer, batch_size: int = 1) -> KVCache:
        """An empty cache for ``batch_size`` texts that fits ``model``: its sizes, its window, its dtype."""
        table = model.token_embedding.weight.data
        head_dim = table.shape[1] // model.num_heads
        return cls(len(model.blocks), batch_size, model.num_heads, model.max_seq_length, head_dim, table.dtype)

    def clear(self, padding: Array | None = None) -> None:
        """Forget everything. The arrays stay; ``padding`` is that of the texts to come, by default 0."""
        self.length = 0
        self.padding = np.zeros_like(self.padding) if padding is None else padding

    def whole_span(self, new: int) -> slice:
        """The places of the next ``new`` tokens; ValueError if there are not as many left."""
        end = self.length + new
        if end > self.max_seq_length:
            raise ValueError(
                f"KVCache: {self.length} of {self.max_seq_length} places are taken, so {new} more tokens do not fit; "
                "clear() it and begin with the last tokens of the text"
            )
        return slice(self.length, end)

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Keep what ``layer`` computed for new tokens, and return all that it has so far.

        Parameters
        ----------
        layer
            Which one, from 0. Each layer appends once, in order; with the last one, ``length`` grows.
        k, v
            Keys and values of shape (batch_size, num_heads, new, head_dim).

        Returns
        -------
        tuple of Array
            Views of shape (batch_size, num_heads, length + new, head_dim).

        Raises
        ------
        ValueError
            If the shape is another one, or the places do not suffice.
        """
        expected = (*self.keys.shape[1:3], *k.shape[-2:-1], self.keys.shape[4])
        if k.shape != expected or v.shape != expected:
            raise ValueError(f"KVCache: keys {k.shape} and values {v.shape} should both have the shape {expected}")
        span = self.whole_span(k.shape[-2])
        ### BEGIN SOLUTION
        self.keys[layer, :, :, span] = k
        self.values[layer, :, :, span] = v
        if layer == len(self.keys) - 1:
            self.length = span.stop
        return self.keys[layer, :, :, : span.stop], self.values[layer, :, :, : span.stop]
        ### END SOLUTION

    @property
    def nbytes(self) -> int:
        """The memory of keys and values together, in bytes; it does not depend on ``length``."""
        ### BEGIN SOLUTION
        return self.keys.nbytes + self.values.nbytes
        ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "generation-cache-views", "locked": true, "schema_version": 3, "solution": false, "task": false}
def shares_memory_with_cache(cache, layer, k, v):
    """Whether what your append returns are views of the cache's own arrays."""
    keys, values = cache.append(layer, k, v)
    return bool(np.shares_memory(keys, cache.keys) and np.shares_memory(values, cache.values))

# %% nbgrader={"grade": true, "grade_id": "test-generation-cache", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_cache():
    rng = np.random.default_rng(5)
    cache = KVCache(3, 2, 4, 7, 5)
    for name, array in (("keys", cache.keys), ("values", cache.values)):
        close(array, np.zeros((3, 2, 4, 7, 5)), dtype=np.float32, what=name, why="(layers, batch, heads, length, head_dim)")
    close(cache.nbytes, 2 * 3 * 2 * 4 * 7 * 5 * 4, what="nbytes", why="keys and values, 4 bytes a number")
    close(KVCache(3, 2, 4, 7, 5, np.float64).nbytes, 2 * 3 * 2 * 4 * 7 * 5 * 8, what="nbytes in float64", why="mind the dtype")
    numbers = rng.normal(size=(2, 3, 2, 4, 7, 5))  # keys and values, layers
    begin = 0
    for new in (3, 1, 1, 2):
        end = begin + new
        for layer in range(3):
            close(cache.length, begin, what=f"length before layer {layer} appends", why="it grows with the last layer only")
            k, v = cache.append(layer, *(part[layer, :, :, begin:end] for part in numbers))
            close(k, numbers[0, layer, :, :, :end], rtol=1e-4, dtype=np.float32, what=f"keys of layer {layer}, {new} after {begin}")
            close(v, numbers[1, layer, :, :, :end], rtol=1e-4, dtype=np.float32, what=f"values of layer {layer}, {new} after {begin}")
        close(cache.length, end, what="length after the last layer")
        begin = end
    close(cache.keys, numbers[0], rtol=1e-4, what="keys", why="each layer has its own")
    close(cache.values, numbers[1], rtol=1e-4, what="values")
    with raises(ValueError, "7", why="there are 7 places, and they are taken"):
        cache.append(0, numbers[0, 0, :, :, :1], numbers[1, 0, :, :, :1])
    cache.clear()
    views = shares_memory_with_cache(cache, 1, *(part[1, :, :, :2] for part in numbers))
    assert views is True, "append should return views of the arrays, not copies"
    ### BEGIN HIDDEN TESTS
    count, texts, heads, depth = (int(n) for n in np.random.default_rng().integers(1, 5, size=4))
    store = KVCache(count, texts, heads, 6, depth, np.float64)
    fresh = np.random.default_rng().normal(size=(2, count, texts, heads, 6, depth))
    for number in range(count):
        store.append(number, *fresh[:, number, :, :, :4])
    for number in range(count):
        longer = store.append(number, *fresh[:, number, :, :, 4:])
        close(longer[0], fresh[0, number])
        close(longer[1], fresh[1, number])
    close(store.nbytes, fresh.nbytes)
    ### END HIDDEN TESTS


test_cache()

# %% [markdown]
# What a token costs: a key and a value of E numbers in every layer. Predict how much memory a text of 2,048 tokens
# takes in the largest GPT-3 (96 layers, E = 12,288, two bytes a number). And what does the list that grows cost here?

# %%
one = np.ones((1, 4, 1, 32), np.float32)


def growing_list():
    keys = values = one
    for _ in range(1023):
        keys, values = np.concatenate([keys, one], axis=2), np.concatenate([values, one], axis=2)


def prepared_array():
    cache = KVCache(1, 1, 4, 1024, 32)
    for _ in range(1024):
        cache.append(0, one, one)


growing, prepared = measure(growing_list, repeats=3), measure(prepared_array, repeats=3)
print(f"1,024 tokens: concatenated {growing.median_s * 1e3:.0f} ms, appended {prepared.median_s * 1e3:.1f} ms: "
      f"{growing.median_s / prepared.median_s:.0f} times as fast")
small = KVCache(4, 1, 4, 256, 32)
print(f"4 layers, E = 128, 256 tokens: {small.nbytes:,} bytes = {2 * 4 * 128 * 256 * 4:,}")
for name, layers, width, length, size in (("GPT-2 small", 12, 768, 1024, 4), ("GPT-3", 96, 12_288, 2048, 2)):
    token = 2 * layers * width * size
    print(f"{name}: {token / 1e3:,.0f} kB a token, {token * length / 1e9:.2f} GB for a text of {length:,}")

# %% [markdown]
# Measured here, on one thread: 5 to 7 times as fast for 1,024 tokens of one layer, and the ratio grows with the length.
# A token of GPT-3 takes 4.7 MB, and a text of 2,048 tokens 9.66 GB. The weights are there once for everybody; this is
# for each person who has a text open. In services it is this memory that runs out first.
#
# ## 9. Attention from the cache
#
# One layer: the new tokens are projected to queries, keys and values; the keys and values join those that are there;
# the *new* queries attend to *all* keys. With a mask that module 13 made for this: `causal_mask(new, all)`.
#
# We work on plain arrays. Nobody will ask for a gradient here, and for a single token the arithmetic is so little that
# what a Tensor does for each operation would take longer than the operation. What a module does to an array is
# in the forward functions that you wrote: `linear_forward` in module 04, the others in modules 13 and 14.
#
# ### Exercise: `cached_attention`

# %% nbgrader={"grade": false, "grade_id": "generation-attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def cached_attention(
    attention: MultiHeadAttention, x: Array, cache: KVCache, layer: int, mask: Array | None = None
) -> Array:
    """What new tokens find in the text so far, themselves included; their keys and values go into the cache.

    Parameters
    ----------
    attention
        The attention of this layer.
    x
        An array (B, T, E): the new tokens' vectors, normalised.
    cache, layer
        What was kept, and which of its layers this is.
    mask
        Boolean, True where a query may attend; it broadcasts to (B, H, T, S), S being all tokens so far. None allows
        everything.

    Returns
    -------
    Array
        Of shape (B, T, E).

    TODO: Project, append, weigh, join.

    APPROACH:
    1. `linear_forward` with `in_proj_weight` and `in_proj_bias` gives (B, T, 3E). As (B, T, 3, H, D), with the axes in the order
       (3, B, H, T, D), it is three arrays: queries, keys, values.
    2. The cache takes the new keys and values, and gives all of them.
    3. `attention_weights(q, k, mask, scale)` of module 13, with the scale 1/√D; times the values: (B, H, T, D).
    4. Heads behind positions, as (B, T, E), and through `attention.out_proj`.

    EXAMPLE:
    >>> model = Transformer(65, 8, 2, 1, 32, 16)
    >>> x = np.ones((1, 3, 8), np.float32)
    >>> cached_attention(model.blocks[0].attention, x, KVCache.for_model(model), 0, causal_mask(3)).shape
    (1, 3, 8)

    HINT: The biases are Parameters, or None: `in_proj_bias.data`. `a, b, c = array` unpacks the first axis.
    """
    projection, joining = attention.in_proj_bias, attention.out_proj.bias
    in_bias = None if projection is None else projection.data
    out_bias = None if joining is None else joining.data
    ### BEGIN SOLUTION
    thirds = linear_forward(x, attention.in_proj_weight.data, in_bias).reshape(*x.shape[:2], 3, attention.num_heads, -1)
    asked, k, v = thirds.transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
    k, v = cache.append(layer, k, v)
    found = attention_weights(asked, k, mask, 1 / math.sqrt(k.shape[-1])) @ v
    return linear_forward(found.swapaxes(1, 2).reshape(x.shape), attention.out_proj.weight.data, out_bias)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-attention", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def drawn_model(rng, *sizes, size=0.9):
    """A transformer with new numbers under which each text goes its own way; and the numbers, by name."""
    model = Transformer(*sizes)
    state = {name: rng.normal(0, size, size=array.shape).round(3) for name, array in model.state_dict().items()}
    state["norm.bias"] *= 0
    model.load_state_dict(state)
    return model, state


def attention_by_the_book(state, heads, x, allowed, prefix):
    """Multi-head attention of one text (T, E) to itself, head by head, from plain arrays."""
    thirds = np.split(x @ state[f"{prefix}in_proj_weight"].T + state[f"{prefix}in_proj_bias"], 3, axis=-1)
    found = []
    for q, k, v in zip(*(np.split(third, heads, axis=-1) for third in thirds), strict=True):
        found.append(shares_by_the_book(np.where(allowed, q @ k.T / math.sqrt(k.shape[1]), -1e30)) @ v)
    return np.concatenate(found, axis=-1) @ state[f"{prefix}out_proj.weight"].T + state[f"{prefix}out_proj.bias"]


def check_attention(rng, heads, depth, parts):
    width, length = heads * depth, sum(parts)
    model, state = drawn_model(rng, 5, width, heads, 2, 4, length)
    cache, x, begin = KVCache(2, 2, heads, length, depth), rng.normal(size=(2, length, width)).astype(np.float32), 0
    want = [attention_by_the_book(state, heads, text, np.tri(length, dtype=bool), "blocks.0.attention.") for text in x]
    for new in parts:
        end = begin + new
        mask = np.tri(new, end, begin, dtype=bool)
        got = cached_attention(model.blocks[0].attention, x[:, begin:end], cache, 0, mask)
        why = "new queries, all keys and values so far, the mask as it comes"
        name = f"tokens {begin} to {end - 1}"
        close(got, np.array(want)[:, begin:end], rtol=1e-3, atol=1e-3, dtype=np.float32, what=name, why=why)
        cache.length = begin = end


def test_cached_attention():
    rng = np.random.default_rng(6)
    check_attention(rng, 1, 4, [3])
    check_attention(rng, 3, 2, [3, 1, 2, 1])
    check_attention(rng, 2, 3, [1, 1, 4])
    layer, x = MultiHeadAttention(4, 2, bias=False), rng.normal(size=(1, 2, 4)).astype(np.float32)
    state = {f"a.{name}": array for name, array in layer.state_dict().items()}
    state |= {"a.in_proj_bias": 0, "a.out_proj.bias": 0}
    want = attention_by_the_book(state, 2, x[0], np.ones((2, 2), bool), "a.")
    close(cached_attention(layer, x, KVCache(1, 1, 2, 4, 2), 0)[0], want, rtol=1e-3, atol=1e-4, what="no bias, no mask")
    second = KVCache(2, 1, 2, 4, 2)
    cached_attention(layer, x, second, 1)
    assert second.keys[1].any() and not second.keys[0].any(), "the second layer's keys belong to the second layer"
    ### BEGIN HIDDEN TESTS
    heads, depth = (int(n) for n in np.random.default_rng().integers(2, 5, size=2))
    check_attention(np.random.default_rng(), heads, depth, [2, 1, 3])
    ### END HIDDEN TESTS


test_cached_attention()

# %% [markdown]
# ## 10. Texts of different lengths
#
# Several texts at once cost much less than one after the other, as you will measure. But they are of different lengths,
# and the new tokens of all of them have to go to the same column of the cache. So the shorter ones get their padding on
# the *left*:
#
# ```
#   table (B, T)            padding   places           who may attend to what (the last query)
#   [ 11  12  13  14 ]         0      [ 0 1 2 3 ]      [ T T T T ]
#   [  0   0  21  22 ]         2      [ 0 0 0 1 ]      [ . . T T ]
# ```
#
# Two things must not see the padding: attention, which needs a mask, and the positions. Token 21 is the first of its
# text, so it gets the position vector of place 0, not that of column 2. What padding itself gets does not matter: place
# 0.
#
# In module 13 a query that may attend to nothing got zeros and not NaN. Here is where: a query that is padding.
#
# Padding cannot be told by its id: 0 may well be a token of the text. So we carry the count for each text.
#
# ### Exercise: `places_of` and `mask_of`

# %% nbgrader={"grade": false, "grade_id": "generation-padding", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pad_rows(rows: Sequence[Sequence[int]], pad_id: int, left: bool) -> tuple[Array, Array]:
    """Rows of different lengths as one table, filled up with ``pad_id`` on the left or on the right.

    Returns
    -------
    tuple of Array
        Integers (B, T), T being the longest row's length; and for each row how many were filled up: (B,).

    EXAMPLE:
    >>> pad_rows([[5, 6, 7], [8]], pad_id=0, left=True)
    (array([[5, 6, 7],
           [0, 0, 8]]), array([0, 2]))
    """
    missing = max(len(row) for row in rows) - np.array([len(row) for row in rows])
    fill = [[pad_id] * n for n in missing]
    table = [[*pad, *row] if left else [*row, *pad] for pad, row in zip(fill, rows, strict=True)]
    return np.array(table), missing


def places_of(padding: Array, start: int, new: int) -> Array:
    """Where in its text each of ``new`` tokens stands, from column ``start`` of the table on: integers (B, new).

    Parameters
    ----------
    padding
        For each text, how many columns are padding, at its beginning: integers (B,).
    start, new
        The first column, and how many.

    TODO: Columns, less the padding.

    APPROACH:
    1. The columns: start to start + new.
    2. For each text, the columns minus its padding; 0 where that is negative.

    EXAMPLE:
    >>> places_of(np.array([0, 2]), 1, 3)
    array([[1, 2, 3],
           [0, 0, 1]])

    HINT: `padding[:, None]` has the shape (B, 1).
    """
    ### BEGIN SOLUTION
    columns = np.arange(start, start + new)
    return np.maximum(columns - padding[:, None], 0)
    ### END SOLUTION


def mask_of(padding: Array, start: int, new: int) -> Array | None:
    """Which of the ``start + new`` columns each of the ``new`` queries may attend to: boolean (B, 1, new, start + new).

    None, if it may attend to all: a single new token without padding.

    TODO: No future, no padding; and nothing to forbid for a single token without padding.

    APPROACH:
    1. If there is one new token, and no text has padding: None.
    2. Which columns are tokens: those from the padding on, as (B, 1, 1, start + new).
    3. That, and the causal mask of `new` queries and `start + new` keys.

    EXAMPLE:
    >>> mask_of(np.array([0, 2]), 2, 1)[:, 0, 0]
    array([[ True,  True,  True],
           [False, False,  True]])

    HINT: Both at once is `&`. With None, attention saves the work of a mask that forbids nothing.
    """
    ### BEGIN SOLUTION
    if new == 1 and not padding.any():
        return None
    is_token = np.arange(start + new) >= padding[:, None, None, None]
    return is_token & causal_mask(new, start + new)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-padding", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def check_columns(padding, start, new):
    where, mask = places_of(np.array(padding), start, new), mask_of(np.array(padding), start, new)
    name = f"padding {padding}, {new} after {start}"
    for text, missing in enumerate(padding):
        want = [max(0, column - missing) for column in range(start, start + new)]
        close(where[text], want, what=f"places_of, text {text}, {name}", why="counted from the text's first token")
    if new == 1 and not any(padding):
        assert mask is None, f"mask_of: a single token without padding may attend to all: None, got {type(mask).__name__}"
        return
    want = [[[missing <= key <= query for key in range(start + new)] for query in range(start, start + new)] for missing in padding]
    why = "True from the padding to the query's own column; shape (B, 1, new, all)"
    close(mask, np.array(want)[:, None], dtype=bool, what=f"mask_of, {name}", why=why)


def test_columns():
    for padding in ([0, 2], [3, 0, 1], [0], [1], [0, 0]):
        for start, new in [(0, 4), (0, 1), (4, 1), (4, 3), (2, 2)]:
            check_columns(padding, start, new)
    ### BEGIN HIDDEN TESTS
    check_columns(np.random.default_rng().integers(0, 5, size=4).tolist(), 5, 2)
    check_columns(np.random.default_rng().integers(1, 5, size=3).tolist(), 6, 1)
    ### END HIDDEN TESTS


test_columns()

# %% [markdown]
# ## 11. The whole model
#
# What a block does around attention, on arrays: a small table says for each class of layer how. A layer that is not in
# the table is simply called, so a model with other layers works as well, only slower.

# %%
#| export
def plain_linear(layer: Linear, x: Array) -> Array:
    """A Linear of arrays."""
    return linear_forward(x, layer.weight.data, None if layer.bias is None else layer.bias.data)


def plain_norm(layer: LayerNorm, x: Array) -> Array:
    """A LayerNorm of arrays."""
    if layer.weight is None or layer.bias is None:
        return through_tensors(layer, x)
    return layer_norm_forward(x, layer.weight.data, layer.bias.data, layer.eps)


def plain_feed_forward(layer: PositionwiseFeedForward, x: Array) -> Array:
    """A PositionwiseFeedForward of arrays, in use: without dropout."""
    inner = layer.activation(from_numpy(plain(layer.linear1, x))).data
    return plain(layer.linear2, inner)


def through_tensors(layer: Module, x: Array) -> Array:
    """Any layer."""
    return layer(from_numpy(x)).data  # type: ignore[no-any-return]


# for each class of layer, what does to an array what the layer does to a Tensor when it is not trained
PLAIN: dict[type[Module], Callable[[Any, Array], Array]] = {
    Linear: plain_linear,
    LayerNorm: plain_norm,
    PositionwiseFeedForward: plain_feed_forward,
}


def plain(layer: Module, x: Array) -> Array:
    """``layer`` of an array, as an array: by the function in ``PLAIN`` for its class, or else by calling it."""
    return PLAIN.get(type(layer), through_tensors)(layer, x)

# %% [markdown]
# ### Exercise: `cached_features`

# %% nbgrader={"grade": false, "grade_id": "generation-features", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def cached_features(model: Transformer, ids: Array, cache: KVCache) -> Array:
    """What the head reads for new tokens: (B, T, E), given what the cache holds of the text before them.

    Parameters
    ----------
    model
        In evaluation mode, and nothing is to be recorded.
    ids
        Integers (B, T), valid ones.
    cache
        It grows by T, for which there must be places.

    TODO: The transformer of module 14, from the new tokens to the last norm.

    APPROACH:
    1. Rows of the token table for the ids, plus rows of the position table for `places`: a new array, the stream.
    2. Each block adds what its attention finds in the stream as `norm1` gives it, from the cache; then what its
       network makes of the stream as `norm2` gives it.
    3. The last norm.

    EXAMPLE:
    >>> model = Transformer(65, 8, 2, 1, 32, 16)
    >>> cached_features(model, np.array([[5, 3, 9]]), KVCache.for_model(model)).shape
    (1, 3, 8)

    HINT: `plain(layer, x)` runs a layer on an array. `enumerate(blocks)` counts the layers.
    """
    words, positions = model.token_embedding.weight.data, model.position_embedding.weight.data
    blocks: Any = model.blocks
    new = cache.whole_span(ids.shape[1])
    places = places_of(cache.padding, new.start, ids.shape[1])
    mask = mask_of(cache.padding, new.start, ids.shape[1])
    ### BEGIN SOLUTION
    flow: Array = words[ids] + positions[places]
    for layer, block in enumerate(blocks):
        flow += cached_attention(block.attention, plain(block.norm1, flow), cache, layer, mask)
        flow += plain(block.feed_forward, plain(block.norm2, flow))
    return plain(model.norm, flow)
    ### END SOLUTION


def cached_logits(model: Transformer, ids: Any, cache: KVCache) -> Array:
    """The logits for the token after each new one, as ``model`` gives them for the whole text.

    Parameters
    ----------
    model
        A Transformer. Dropout is off meanwhile, and nothing is recorded.
    ids
        The new tokens: whole numbers of shape (B, T) or, for a batch of one, (T,): the prompt first, then one or more.
    cache
        What was kept of the tokens before; it grows by T.

    Returns
    -------
    Array
        Of shape (B, T, V).

    Raises
    ------
    TypeError, IndexError, ValueError
        See ``token_ids``; or if the cache is for another number of texts, or the window is full.
    """
    tokens = np.atleast_2d(token_ids(ids, model.vocab_size))
    if len(tokens) != len(cache.padding):
        raise ValueError(f"cached_logits: ids of {len(tokens)} texts do not fit a cache for {len(cache.padding)}")
    with evaluating(model):
        return plain(model.head, cached_features(model, tokens, cache))

# %% nbgrader={"grade": true, "grade_id": "test-generation-features", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def normalised(x, weight, bias):
    """The formula of layer normalisation, over the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def features_by_the_book(state, layers, heads, ids):
    """What the head reads for one text (T,): (T, E), from plain arrays, all at once."""
    x = state["token_embedding.weight"][ids] + state["position_embedding.weight"][: len(ids)]
    for block in (f"blocks.{layer}." for layer in range(layers)):
        norms = [[state[f"{block}norm{n}.{part}"] for part in ("weight", "bias")] for n in (1, 2)]
        network = [state[f"{block}feed_forward.linear{part}"] for part in ("1.weight", "1.bias", "2.weight", "2.bias")]
        x = x + attention_by_the_book(state, heads, normalised(x, *norms[0]), np.tri(len(ids), dtype=bool), f"{block}attention.")
        z = normalised(x, *norms[1]) @ network[0].T + network[1]
        x = x + z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))) @ network[2].T + network[3]
    return normalised(x, state["norm.weight"], state["norm.bias"])


def check_features(rng, layers, heads, padding, parts):
    length = sum(parts)
    model, state = drawn_model(rng, 9, 2 * heads, heads, layers, 5, length)
    cache, table = KVCache(layers, len(padding), heads, length, 2), rng.integers(0, 9, size=(len(padding), length))
    cache.clear(np.array(padding))
    begin = 0
    for new in parts:
        end = begin + new
        got = cached_features(model, table[:, begin:end], cache)
        for text, missing in enumerate(padding):
            want = features_by_the_book(state, layers, heads, table[text, missing:end])[-new:]
            name = f"text {text} of {len(padding)}, the last of tokens {begin} to {end - 1}"
            why = "as if the text were alone and computed at once: embeddings, attention with norm1, network with norm2, norm"
            close(got[text, -len(want) :], want, rtol=2e-3, atol=2e-3, dtype=np.float32, what=name, why=why)
        close(cache.length, end, what="length of the cache")
        begin = end


def test_cached_features():
    rng = np.random.default_rng(7)
    check_features(rng, 1, 1, [0], [4])
    check_features(rng, 2, 2, [0, 0], [3, 1, 2, 1])
    check_features(rng, 3, 2, [0, 2, 1], [4, 1, 1])
    check_features(rng, 2, 3, [0], [1, 1, 1, 1])
    ### BEGIN HIDDEN TESTS
    layers, heads, begun = (int(n) for n in np.random.default_rng().integers(1, 4, size=3))
    check_features(np.random.default_rng(), layers, heads, [0, begun], [begun + 1, 1, 2])
    ### END HIDDEN TESTS


test_cached_features()

# %% [markdown]
# The promise, for the trained model: the same logits, token by token, as the model gives for the whole text at once.
# And then the measurement that you predicted in section 7: the time for the next token, against the length of the text,
# for 4 layers, E = 128, and a window of 512. Section 7 says that at T = 512 there is 512 times less to compute. How
# many times as fast will it be?

# %%
cache, text = KVCache.for_model(writer), ids[1000:1064]
in_parts = [cached_logits(writer, text[:20], cache), *(cached_logits(writer, text[n : n + 1], cache) for n in range(20, 64))]
with evaluating(writer):
    at_once = writer(text).data
print("largest difference of the logits:", float(np.abs(np.concatenate(in_parts, axis=1)[0] - at_once).max()))

# %%
manual_seed(0)
bench = Transformer(65, 128, 4, 4, 512, 512)
lengths, without, kept = [16, 32, 64, 128, 256, 511], [], []
for T in lengths:
    rows = np.random.default_rng(T).integers(0, 65, size=(1, T))
    cache = KVCache.for_model(bench)
    cached_features(bench, rows, cache)

    def next_token(cache=cache):
        vector = cached_features(bench, np.array([[1]]), cache)
        cache.length -= 1
        return vector

    with evaluating(bench):
        without.append(measure(bench.features, rows, repeats=5).median_s * 1e3)
        kept.append(measure(next_token, repeats=5).median_s * 1e3)
figure, both = plt.subplots(1, 2, figsize=(9, 3.2))
both[0].plot(lengths, without, "o-", label="the whole text again")
both[0].plot(lengths, kept, "o-", label="one token, from the cache")
both[0].set_ylabel("ms for the next token")
both[0].legend(fontsize=8)
both[1].loglog(lengths, lengths, "--", color="grey", base=2, label="vectors computed")
both[1].loglog(lengths, np.array(without) / kept, "o-", color="C2", base=2, label="time")
both[1].set_ylabel("without / with cache")
both[1].set_yticks([1, 4, 16, 64, 256], [1, 4, 16, 64, 256])
both[1].legend(fontsize=8)
for axes in both:
    axes.set_xlabel("T, tokens in the text")
    axes.grid(alpha=0.3)
both[1].set_xticks([*lengths[:-1], 512], [*lengths[:-1], 512])
plt.tight_layout()
plt.show()
print(f"T = 511: {without[-1]:.1f} ms without, {kept[-1]:.2f} ms with: {without[-1] / kept[-1]:.0f} times as fast; "
      f"T = 16: {without[0] / kept[0]:.1f} times")

# %% [markdown]
# Measured here, processor time of one thread, 15 runs in turns, medians, three times
# over: 3 times as fast at T = 16, 7 to 9 times at 128, 29 to 32 times at 511.
# That is much, and it is far from 511. One vector through the model takes as long as 17 of the 511 that go together:
# each weight is fetched from memory to be used once, and some hundred NumPy calls have their price, whether they work
# on one row or on many. Saved work is not saved time; it is the most that can be saved.
#
# What else the figure shows: with the cache, the time hardly grows with T. What grows is attention, one query against T
# keys, and at this size it is the smaller part.
#
# ## 12. Longer than the window
#
# The cache has max_seq_length places, and the model as many positions. What comes then? Drop the oldest token, and go
# on? Not with this model: a token's key was computed from its position vector, and when the beginning is dropped, every
# token stands at another place. All keys would have to be computed again, for each new token, which is what module 14
# does.
#
# So we let the window slide in steps: when it is full, begin anew with the last half of it. These tokens then stand at
# the places 0, 1, 2, ..., and the cache is filled again, in one run. Then there is room for half a window of tokens.
#
# ```
#   window 8, text of 9 tokens:      0 1 2 3 [ 4 5 6 7 8 . . . ]    the beginning moves to 4
#   ... of 12                        0 1 2 3 [ 4 5 6 7 8 9 10 11 ]
#   ... of 13                        0 1 2 3 4 5 6 7 [ 8 9 10 11 12 . . . ]
# ```
#
# Where the window begins depends on nothing but the length of the text. So a text is the same with cache and without,
# alone and in a batch, and if you continue it tomorrow. The price: shortly after a step the model looks at half a
# window only.
#
# ### Exercise: `window_start`

# %% nbgrader={"grade": false, "grade_id": "generation-window", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def window_start(length: int, max_seq_length: int) -> int:
    """Where the part of a text of ``length`` tokens begins that the model looks at.

    Up to ``max_seq_length`` tokens it is all. From then on the beginning moves in steps of half a window (rounded up),
    and only when it must: the model looks at more than half a window, and at no more than one.

    TODO: The smallest multiple of half a window after which no more than a window is left.

    APPROACH:
    1. A step: half of max_seq_length, rounded up.
    2. How many tokens are too many: 0 or more.
    3. As many steps as cover them.

    EXAMPLE:
    >>> [window_start(length, 8) for length in (8, 9, 12, 13, 100)]
    [0, 4, 4, 8, 92]

    HINT: `-(-a // b)` divides and rounds up.
    """
    ### BEGIN SOLUTION
    half = max_seq_length - max_seq_length // 2
    excess = max(length - max_seq_length, 0)
    return -(-excess // half) * half
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-window", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_window_start():
    for window in (1, 2, 5, 8):
        begin = 0
        for length in range(1, 40):
            while length - begin > window:
                begin += window - window // 2
            got = window_start(length, window)
            why = f"in steps of {window - window // 2}, and only when more than {window} are left"
            close(got, begin, what=f"beginning for {length} tokens and a window of {window}", why=why)
    ### BEGIN HIDDEN TESTS
    wide, long = (int(n) for n in np.random.default_rng().integers(10, 300, size=2))
    candidates = range(0, long + wide, wide - wide // 2)
    close(window_start(long, wide), next(begin for begin in candidates if long - begin <= wide))
    ### END HIDDEN TESTS


test_window_start()

# %% [markdown]
# ## 13. It writes
#
# Two functions give the logits for the next token of each text; one computes everything, the other uses the cache. Each
# can be tested by the other, and they use different ideas: without a cache the padding may stand on the *right*, where
# the causal mask hides it from everyone, and no position changes.
#
# When must the cache be filled anew? At the very beginning, and when a window has moved. Both can be seen from the
# cache alone: it should hold all of the visible part but its last token.
#
# ### Exercise: `fresh_logits` and `kept_logits`

# %% nbgrader={"grade": false, "grade_id": "generation-next", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def visible_parts(texts: Sequence[Sequence[int]], max_seq_length: int) -> list[Sequence[int]]:
    """Of each text the part that the model looks at; see ``window_start``."""
    return [text[window_start(len(text), max_seq_length) :] for text in texts]


def fresh_logits(model: Transformer, texts: Sequence[Sequence[int]], pad_id: int) -> Array:
    """The logits (B, V) for the next token of each text, computed from all that is visible of it.

    TODO: Pad on the right, run the model, take each text's last vector.

    APPROACH:
    1. `pad_rows` with `left=False` gives a table (B, T), and how much is missing in each row.
    2. The model's features (B, T, E). In each row, the vector of the last column that is no padding: (B, E).
    3. The head's logits, as an array.

    EXAMPLE:
    >>> fresh_logits(Transformer(65, 8, 2, 1, 32, 16), [[5, 3], [9]], pad_id=0).shape
    (2, 65)

    HINT: `tensor[np.arange(B), columns]` picks one vector of each row.
    """
    parts = visible_parts(texts, model.max_seq_length)
    ### BEGIN SOLUTION
    filled, missing = pad_rows(parts, pad_id, left=False)
    final = model.features(filled)[np.arange(len(parts)), filled.shape[1] - 1 - missing]
    logits: Array = model.head(final).data
    return logits
    ### END SOLUTION


def kept_logits(model: Transformer, texts: Sequence[Sequence[int]], cache: KVCache, pad_id: int) -> Array:
    """The same, computed from each text's last token, and from what the cache holds of the tokens before.

    If the cache holds something else than all visible tokens but the last one of each text, it is filled anew.

    TODO: Choose what is to be run, run it, and take the last column's logits.

    APPROACH:
    1. What the cache holds of each text: its length minus the padding.
    2. If that is one less than the visible part, for every text: run the last tokens, as a table (B, 1).
    3. Else pad the visible parts on the left, clear the cache with this padding, and run them all.
    4. `cached_features`, of which the last column goes through the head.

    EXAMPLE:
    >>> model = Transformer(65, 8, 2, 1, 32, 16)
    >>> kept_logits(model, [[5, 3], [9]], KVCache.for_model(model, 2), pad_id=0).shape
    (2, 65)

    HINT: Only the last column through the head: logits for V tokens are needed once. `plain(model.head, ...)`.
    """
    parts = visible_parts(texts, model.max_seq_length)
    ### BEGIN SOLUTION
    held = cache.length - cache.padding
    if all(len(part) == known + 1 for part, known in zip(parts, held, strict=True)):
        unread = np.array([part[-1:] for part in parts])
    else:
        unread, padding = pad_rows(parts, pad_id, left=True)
        cache.clear(padding)
    return plain(model.head, cached_features(model, unread, cache)[:, -1])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-generation-next", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def logits_by_the_book(state, layers, heads, texts, window):
    """The logits for the next token of each text, each by itself and computed at once."""
    rows = []
    for text in texts:
        begin = 0
        while len(text) - begin > window:
            begin += window - window // 2
        rows.append(features_by_the_book(state, layers, heads, np.array(text)[begin:])[-1] @ state["head.weight"].T)
    return np.array(rows)


def check_next(rng, layers, heads, lengths, window, count):
    model, state = drawn_model(rng, 9, 2 * heads, heads, layers, 5, window)
    texts, cache = [rng.integers(0, 9, size=length).tolist() for length in lengths], KVCache.for_model(model, len(lengths))
    with evaluating(model):
        for _ in range(count):
            want = logits_by_the_book(state, layers, heads, texts, window)
            name = f"for texts of {[len(text) for text in texts]} tokens and a window of {window}"
            for pad_id in (0, 7):
                got = fresh_logits(model, texts, pad_id)
                close(got, want, rtol=2e-3, atol=2e-3, what=f"fresh_logits {name}", why="each text's last vector; padding on the right")
            got = kept_logits(model, texts, cache, 3)
            close(got, want, rtol=2e-3, atol=2e-3, what=f"kept_logits {name}", why="fill anew when a window has moved, else the last token")
            for text in texts:
                text.append(int(rng.integers(0, 9)))
    return model, texts, cache, got


def test_next_logits():
    rng = np.random.default_rng(8)
    check_next(rng, 2, 2, [3], 5, 6)
    check_next(rng, 2, 1, [2, 5, 1], 4, 7)
    check_next(rng, 1, 2, [1, 1], 3, 5)
    model, texts, cache, _ = check_next(rng, 2, 2, [2, 4], 20, 3)
    forged = [[8 - token for token in text[:-1]] + text[-1:] for text in texts]
    with evaluating(model):
        got = kept_logits(model, forged, cache, 0)
        close(got, fresh_logits(model, texts, 0), rtol=2e-3, atol=2e-3, why="only the last token is new: the cache holds the others")
    ### BEGIN HIDDEN TESTS
    first, second, window = (int(n) for n in np.random.default_rng().integers(1, 9, size=3))
    check_next(np.random.default_rng(), 2, 2, [first, second], window, 6)
    ### END HIDDEN TESTS


test_next_logits()

# %% [markdown]
# Left: the loop. It is a generator function: it gives a token for each text at every `yield`, and waits. `generate`
# collects them, and `stream` hands them on while they come.
#
# ### Exercise: `steps` and `cut_at`

# %% nbgrader={"grade": false, "grade_id": "generation-generate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def steps(
    model: Transformer, texts: list[list[int]], max_new_tokens: int, sampling: Sampling, use_cache: bool, pad_id: int
) -> Iterator[Array]:
    """Choose a token for each text, append it, and give the tokens (B,); ``max_new_tokens`` times.

    ``texts`` grow while this goes on. The model should be in evaluation mode.

    TODO: The loop.

    APPROACH:
    1. Before it: the generator of `sampling`, and a cache for all texts, or None.
    2. In it: logits, from the cache if there is one; the tokens that `sampling` chooses, given the texts so far.
    3. Append each text's token to it, as an int, and `yield` the tokens.

    EXAMPLE:
    >>> texts = [[1, 2]]
    >>> for tokens in steps(Transformer(65, 8, 2, 1, 32, 16), texts, 3, Sampling(), True, 0): print(len(texts[0]), end=" ")
    3 4 5

    HINT: `chosen.tolist()` makes Python's ints.
    """
    ### BEGIN SOLUTION
    generator = sampling.generator()
    cache = KVCache.for_model(model, len(texts)) if use_cache else None
    for _ in range(max_new_tokens):
        logits = fresh_logits(model, texts, pad_id) if cache is None else kept_logits(model, texts, cache, pad_id)
        chosen = sampling.choose(logits, texts, generator)
        for text, token in zip(texts, chosen.tolist(), strict=True):
            text.append(token)
        yield chosen
    ### END SOLUTION


def cut_at(written: list[int], begin: int, stops: Sequence[int]) -> list[int]:
    """``written`` up to the first of ``stops`` at or after the place ``begin``, that one included; all if there is none.

    TODO: Look for the first stop, cut behind it.

    APPROACH:
    1. Go over the places from `begin` on. At the first that holds a stop, return what is there up to it.
    2. If there was none, return all.

    EXAMPLE:
    >>> cut_at([5, 1, 2, 5, 3], begin=1, stops=[5, 3])
    [5, 1, 2, 5]

    HINT: What stands before `begin` is the prompt; a stop token in there stops nothing.
    """
    ### BEGIN SOLUTION
    for place in range(begin, len(written)):
        if written[place] in stops:
            return written[: place + 1]
    return written
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "generation-walk", "locked": true, "schema_version": 3, "solution": false, "task": false}
def walked(model, begun, count, sampling, use_cache):
    """What your steps gives for texts that began so, the texts afterwards, and how often it ran the whole model."""
    texts, runs, features = [list(text) for text in begun], [], model.features
    model.features = lambda ids: runs.append(ids) or features(ids)
    with evaluating(model):
        given = [tokens.tolist() for tokens in steps(model, texts, count, sampling, use_cache, 0)]
    model.features = features
    return given, texts, len(runs)

# %% nbgrader={"grade": true, "grade_id": "test-generation-steps", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def check_steps(rng, sampling, lengths, window, count):
    model, state = drawn_model(rng, 9, 4, 2, 2, 5, window)
    begun = [rng.integers(0, 9, size=length).tolist() for length in lengths]
    want, dice = [list(text) for text in begun], np.random.default_rng(sampling.seed)
    for _ in range(count):
        rated = logits_by_the_book(state, 2, 2, want, window)
        rated = rated_by_the_book(rated, want, sampling.temperature, sampling.top_k, None, sampling.repetition_penalty)
        tokens = drawn_by_the_book(rated, dice.random(len(want))) if sampling.temperature else rated.argmax(axis=-1)
        for text, token in zip(want, tokens.tolist(), strict=True):
            text.append(token)
    for use_cache in (True, False):
        given, texts, runs = walked(model, begun, count, sampling, use_cache)
        name = f"{count} more tokens, temperature {sampling.temperature}, use_cache={use_cache}"
        assert len(given) == count, f"{name}: expected a yield for each, got {len(given)}"
        whole_runs = 0 if use_cache else count
        assert runs == whole_runs, f"{name}: fresh_logits should be called {whole_runs} times, it was {runs} times"
        for place, text in enumerate(want):
            kinds = {type(token).__name__ for token in texts[place]}
            assert kinds == {"int"}, f"{name}: texts are lists of Python's ints, got {', '.join(sorted(kinds))}"
            close(texts[place], text, what=f"text {place} afterwards, {name}", why="logits, choose, append to each text")
            close([tokens[place] for tokens in given], text[-count:], what=f"what is given for text {place}, {name}")


def test_steps():
    rng = np.random.default_rng(9)
    check_steps(rng, Sampling(temperature=0), [3, 1], 6, 8)
    check_steps(rng, Sampling(temperature=0, repetition_penalty=2.5), [2], 6, 8)
    check_steps(rng, Sampling(temperature=1.5, top_k=5, seed=11), [2, 4, 1], 20, 7)
    for text, begin, stops, want in [
        ([5, 1, 2, 5, 3], 1, [5, 3], [5, 1, 2, 5]), ([5, 1], 0, [5], [5]), ([5, 1], 1, [5], [5, 1]), ([1, 5], 1, [5], [1, 5]),
        ([1, 2], 0, [], [1, 2]), ([1, 2, 3, 2], 0, [2], [1, 2]), ([4, 4], 2, [4], [4, 4]),
    ]:  # fmt: skip
        close(cut_at(text, begin, stops), want, what=f"cut_at({text}, {begin}, {stops})", why="the stop itself stays, the prompt as well")
    ### BEGIN HIDDEN TESTS
    check_steps(np.random.default_rng(), Sampling(temperature=2.0, seed=int(np.random.default_rng().integers(99))), [1, 3], 4, 6)
    ### END HIDDEN TESTS


test_steps()

# %%
#| export
def as_texts(model: Transformer, prompts: Any) -> list[list[int]]:
    """``prompts`` as a list of lists of tokens, checked; a single prompt as a list of one.

    Raises
    ------
    TypeError, IndexError, ValueError
        If a prompt is none that ``token_ids`` takes, or there is none.
    """
    rows = list(prompts.data if isinstance(prompts, Tensor) else prompts)
    if not rows:
        raise ValueError("generate: there is no prompt; a text begins with at least one token")
    if np.ndim(rows[0]) == 0:
        rows = [rows]
    return [token_ids(row, model.vocab_size).tolist() for row in rows]


def generate(
    model: Transformer,
    prompts: Any,
    max_new_tokens: int,
    *,
    sampling: Sampling = Sampling(),
    stop_tokens: Iterable[int] = (),
    use_cache: bool = True,
    pad_id: int = 0,
) -> list[Array]:
    """Each prompt with up to ``max_new_tokens`` more tokens.

    Parameters
    ----------
    model
        In evaluation mode meanwhile, nothing is recorded, and afterwards it is as before.
    prompts
        Prompts of any lengths, at least one token each: a list of lists or arrays, or a table (B, T); or a single one.
    max_new_tokens
        How many tokens are added at most.
    sampling
        How they are chosen.
    stop_tokens
        A text ends with the first of these that is written; it is the text's last token.
    use_cache
        Whether keys and values are kept. The tokens are the same without, only later.
    pad_id
        What fills up shorter prompts; any valid id, since nothing looks at it.

    Returns
    -------
    list of Array
        For each prompt an integer array (T + n,), n up to ``max_new_tokens``.

    Raises
    ------
    TypeError, IndexError, ValueError
        If prompts, stop tokens or ``pad_id`` are no tokens of the model, or ``max_new_tokens`` is no whole number, or
        negative.
    """
    texts, stops = as_texts(model, prompts), checked_stops(model, max_new_tokens, stop_tokens)
    check_ids(pad_id, model.vocab_size)
    begins, going = [len(text) for text in texts], np.ones(len(texts), bool)
    with evaluating(model):
        for chosen in steps(model, texts, max_new_tokens, sampling, use_cache, pad_id):
            going &= ~np.isin(chosen, stops)
            if not going.any():
                break
    return [np.array(cut_at(text, begin, stops)) for text, begin in zip(texts, begins, strict=True)]


def checked_stops(model: Transformer, max_new_tokens: int, stop_tokens: Iterable[int]) -> list[int]:
    """The stop tokens as a list, they and ``max_new_tokens`` checked."""
    if index(max_new_tokens) < 0:
        raise ValueError(f"generate: max_new_tokens should be 0 or more, got {max_new_tokens}")
    return check_ids(list(stop_tokens), model.vocab_size).tolist()  # type: ignore[no-any-return]


def stream(
    model: Transformer,
    prompt: Any,
    max_new_tokens: int,
    *,
    sampling: Sampling = Sampling(),
    stop_tokens: Iterable[int] = (),
    use_cache: bool = True,
) -> Iterator[int]:
    """The new tokens of ``generate(model, prompt, ...)``, one by one, each as soon as it is chosen.

    Between two tokens the model is as it was before; so whoever takes them may train it, or stop at any time. Arguments
    and errors are those of ``generate``; they are checked at once.
    """
    texts, stops = as_texts(model, [prompt]), checked_stops(model, max_new_tokens, stop_tokens)
    return one_by_one(model, steps(model, texts, max_new_tokens, sampling, use_cache, 0), stops)


def one_by_one(model: Transformer, walk: Iterator[Array], stops: list[int]) -> Iterator[int]:
    """The tokens of a walk of one text, up to the first of ``stops``, that one included; see ``stream``."""
    token = None
    while token not in stops:
        with evaluating(model):
            chosen = next(walk, None)
        if chosen is None:
            return
        token = int(chosen[0])
        yield token

# %% [markdown]
# ### Several at once
#
# Predict: how many times as many tokens a second do 16 texts at once give, compared with one?

# %%
greedily = Sampling(temperature=0)
counts, speeds = [1, 2, 4, 8, 16], []
for count in counts:
    cost = measure(generate, bench, np.ones((count, 4), np.int64), 20, sampling=greedily, repeats=3)
    speeds.append(count * 20 / cost.median_s)
figure, axes = plt.subplots(figsize=(5, 3))
axes.loglog(counts, np.array(speeds) / speeds[0], "o-", base=2, label="measured")
axes.loglog(counts, counts, "--", color="grey", base=2, label="if texts were free")
axes.set_xticks(counts, counts)
axes.set_yticks(counts, counts)
axes.set_xlabel("texts at once")
axes.set_ylabel("tokens a second, relative")
axes.grid(alpha=0.3)
axes.legend(fontsize=8)
plt.tight_layout()
plt.show()
print(f"1 text: {speeds[0]:,.0f} tokens a second; 16 texts: {speeds[4]:,.0f}")

# %% [markdown]
# Measured as above: 16 texts give about 5 times as many tokens a second as one. It is the same reason from the other side:
# the weights that are fetched for one text serve the fifteen others as well. That is why services collect requests of
# several people before they run the model.
#
# ### How much it repeats itself
#
# Back to the beginning. Of each text of 600 characters, the share of its pieces of 12 characters that stood in it
# before:

# %%
def share_repeated(text, n=12):
    pieces = [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]
    return 1 - len(set(pieces)) / len(pieces)


ways = {
    "greedy": Sampling(temperature=0),
    "greedy, penalty 1.3": Sampling(temperature=0, repetition_penalty=1.3),
    "temperature 0.3": Sampling(temperature=0.3, seed=0),
    "temperature 0.8, top-k 10": Sampling(temperature=0.8, top_k=10, seed=0),
    "top-p 0.9": Sampling(top_p=0.9, seed=0),
}
written = {name: generate(writer, prompt, 600, sampling=way)[0] for name, way in ways.items()}
for name, text in {**written, "Shakespeare": ids[500_000:500_607]}.items():
    print(f"{name:26} {share_repeated(text.tolist()):4.0%}  {tokenizer.decode(text[7:60])!r}")

# %% [markdown]
# Shakespeare repeats 1 % of such pieces himself. Greedy text: 98 %. The surprise is the penalty: 92 %. It was made for
# words, of which a model knows fifty thousand. Here the tokens are characters; soon every letter has been written, all
# are penalised alike, and the circle is back. Rules have a size of vocabulary in mind. What makes this text sound like
# no language at all is not the sampling, but the model: 300 steps. Module 16 takes more.
#
# Last, one line as it is written, with `stream` and a stop token. Run it and watch:

# %%
print(tokenizer.decode(prompt), end="")
newline = tokenizer.encode("\n")[0]
for token in stream(writer, prompt, 200, sampling=Sampling(temperature=0.7, top_p=0.9, seed=5), stop_tokens=[newline]):
    print(tokenizer.decode([token]), end="", flush=True)

# %% [markdown]
# One character at a time, and it ended with its line.
#
# ## What you have built
#
# `scale_temperature`, `sample`, `keep_top_k`, `keep_top_p` and `penalize_repetition`, and `Sampling`, which puts them
# in order; `KVCache`, `cached_attention` and `cached_logits`, which compute nothing twice; padding, positions and masks
# for texts of different lengths; a window that moves in steps; `generate` for many texts, and `stream` for one.
#
# In the terminal: `tito module complete 15`. Module 16 puts everything together: a GPT of your own, trained for
# minutes.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "generation-reflect-choice-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Which rule for what.** Choose settings of `Sampling` for (a) an assistant that writes program code, (b) a game that
# invents names for villages, (c) a system that must give the same answer to the same question. Give a reason for each.
# Then explain why greedy text goes in circles, though the model was trained on texts that do not.
#
# === BEGIN MARK SCHEME ===
# 1 point: (a) low temperature or small p, no penalty, since code repeats names; (b) temperature near 1 or above with a cut
# tail; (c) greedy or a fixed seed. 1 point: the likeliest token is not typical; people's texts are drawn, with unlikely tokens
# in them. 1 point: a deterministic function of a bounded window must come to the same window again.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "generation-reflect-choice", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# (a) Temperature 0.2 with top-p 0.9, no penalty: one wrong token breaks a program, and names must be repeated. (b) Temperature
# 1 or 1.2 with top-p 0.95: surprises are wanted, the tail is not. (c) Temperature 0, or a seed, on the same machine. Training makes
# the model's distribution like that of texts; the likeliest token at each place is not like a sample of it, since real texts
# contain an unlikely token now and then, which leads elsewhere. Greedy has no such token. It is a function of the last tokens
# in the window, of which there are finitely many, so it must come to a window that was there before, and from there repeats.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "generation-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **The memory of a service.** A model of 32 layers, E = 4,096, with 16-bit numbers, shall serve 100 texts of 8,192
# tokens at the same time. How much memory do the keys and values take? The weights take 14 GB. Name two ways to need
# less, and what each costs. Why does a cache of fixed size, as ours, waste memory when texts are of different lengths?
#
# === BEGIN MARK SCHEME ===
# 1 point: 2 x 32 x 4096 x 2 bytes = 524 kB a token, 4.3 GB a text, 430 GB. 1 point: two of: fewer key heads (shared), fewer bits,
# a shorter window, computing again; with a cost. 1 point: each text gets the largest length, padding and unused places included.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "generation-reflect-memory", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 2 * 32 * 4096 * 2 bytes are 524 kB a token, 4.3 GB a text and 430 GB for all: thirty times the weights. Let several query heads
# share one key and value head (grouped queries): a little worse, needs training so. Store 8 bits a number: a little less exact.
# A shorter window: forgets earlier. Our arrays have max_seq_length places for each text from the beginning, so a text of 100
# tokens pays for 8,192, and padding takes places as well; pages of places that are given out as texts grow avoid it.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "generation-reflect-speed-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Where the time goes.** With the cache, there was hundreds of times less to compute at T = 511, and it was not
# hundreds of times as fast. And 16 texts at once cost much less than 16 times one text. Both have the same reason:
# explain it. When does the cache stop helping, or even harm?
#
# === BEGIN MARK SCHEME ===
# 1 point: for one vector every weight is read from memory and used once; many vectors use each weight many times, and the
# fixed costs of each operation are shared. 1 point: so a step costs about the same for one token or several, for one text or some.
# 1 point: very short texts or one token, memory full, a window that moves at each token.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "generation-reflect-speed", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# A product of a matrix with one vector reads each weight to use it once, so it takes as long as reading does, and each of some
# hundred NumPy calls has its fixed price. With 511 vectors, or 16 texts, the same weights are used 511 or 16 times while they are at
# hand, at the same fixed price. So the run without a cache is cheaper for each vector than the one with it, and a batch is cheaper
# for each text. A cache is useless if a single token is wanted, and it does harm where its memory is missed elsewhere, or if
# the window moved at every token, so that it were filled anew each time.
# ### END SOLUTION
