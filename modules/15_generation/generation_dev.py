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
# 2. **At which price?** In a causal model, what was computed for earlier tokens never changes. Whoever keeps it pays for
#    one token instead of for the whole text.
#
# By the end you will have `Sampling`, `KVCache`, and `generate` and `stream`, which write from any of your transformers,
# for several texts at once, as long as you like.
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
from tinytorch.core.layers import Linear, Module, whole_size
from tinytorch.core.tensor import Array, Tensor, default_generator, from_numpy
from tinytorch.core.training import evaluating
from tinytorch.core.transformers import LayerNorm, PositionwiseFeedForward, Transformer, layer_norm_forward, token_ids

# %%
from itertools import islice

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
axes.set_ylim(0, 1.25)
axes.legend(ncols=2, fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# (prose)
#
# ## 2. Draw one
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

# %% [markdown]
# ## 3. top-k
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

# %% [markdown]
# ## 4. top-p
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

# %% [markdown]
# ## 5. penalty
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

# %% [markdown]
# ## 6. Sampling
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

# %% [markdown]
# ## 7. The price
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

# %% [markdown]
# ## 8. What to keep
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
        sizes = {
            "num_layers": num_layers,
            "batch_size": batch_size,
            "num_heads": num_heads,
            "max_seq_length": max_seq_length,
            "head_dim": head_dim,
        }
        shape = tuple(whole_size("KVCache", name, size) for name, size in sizes.items())
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

# %% [markdown]
# ## 9. Attention from the cache
#
# ### Exercise: `cached_attention`

# %% nbgrader={"grade": false, "grade_id": "generation-attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def affine(x: Array, weight: Array, bias: Array | None) -> Array:
    """``x @ weight.T + bias`` for an array x (..., E) and weight (F, E), in a new array (..., F)."""
    rows: Array = x.reshape(-1, x.shape[-1]) @ weight.T
    if bias is not None:
        rows += bias
    return rows.reshape(*x.shape[:-1], len(weight))


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
    1. `affine` with `in_proj_weight` and `in_proj_bias` gives (B, T, 3E). As (B, T, 3, H, D), with the axes in the order
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
    thirds = affine(x, attention.in_proj_weight.data, in_bias).reshape(*x.shape[:2], 3, attention.num_heads, -1)
    asked, k, v = thirds.transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
    k, v = cache.append(layer, k, v)
    found = attention_weights(asked, k, mask, 1 / math.sqrt(k.shape[-1])) @ v
    return affine(found.swapaxes(1, 2).reshape(x.shape), attention.out_proj.weight.data, out_bias)
    ### END SOLUTION

# %% [markdown]
# ## 10. Texts of different lengths
#
# ### Exercise: `pad_rows`, `places_of` and `mask_of`

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

    TODO: ...

    EXAMPLE:
    >>> places_of(np.array([0, 2]), 1, 3)
    array([[1, 2, 3],
           [0, 0, 1]])
    """
    ### BEGIN SOLUTION
    columns = np.arange(start, start + new)
    return np.maximum(columns - padding[:, None], 0)
    ### END SOLUTION


def mask_of(padding: Array, start: int, new: int) -> Array | None:
    """Which of the ``start + new`` columns each of the ``new`` queries may attend to: boolean (B, 1, new, start + new).

    None, if it may attend to all: a single new token without padding.

    TODO: ...

    EXAMPLE:
    >>> mask_of(np.array([0, 2]), 2, 1)
    array([[[[ True,  True,  True]]], [[[False, False,  True]]]])
    """
    ### BEGIN SOLUTION
    if new == 1 and not padding.any():
        return None
    is_token = np.arange(start + new) >= padding[:, None, None, None]
    return is_token & causal_mask(new, start + new)
    ### END SOLUTION

# %% [markdown]
# ## 11. Whole
#
# ### Exercise: `cached_features`

# %%
#| export
def plain_linear(layer: Linear, x: Array) -> Array:
    """A Linear of arrays."""
    return affine(x, layer.weight.data, None if layer.bias is None else layer.bias.data)


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


PLAIN: dict[type[Module], Callable[[Any, Array], Array]] = {
    Linear: plain_linear,
    LayerNorm: plain_norm,
    PositionwiseFeedForward: plain_feed_forward,
}


def plain(layer: Module, x: Array) -> Array:
    """``layer`` of an array, as an array: by the function in ``PLAIN`` for its class, or else by calling it."""
    return PLAIN.get(type(layer), through_tensors)(layer, x)

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
        It grows by T.

    TODO: ...

    APPROACH:
    1. ...

    HINT: ...
    """
    new = ids.shape[1]
    cache.whole_span(new)
    places, mask = places_of(cache.padding, cache.length, new), mask_of(cache.padding, cache.length, new)
    ### BEGIN SOLUTION
    stream_of = model.token_embedding.weight.data[ids] + model.position_embedding.weight.data[places]
    for layer, block in enumerate(model.blocks):
        stream_of += cached_attention(block.attention, plain(block.norm1, stream_of), cache, layer, mask)
        stream_of += plain(block.feed_forward, plain(block.norm2, stream_of))
    return plain(model.norm, stream_of)
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

# %% [markdown]
# ## 12. Longer than the window
#
# ### Exercise: `window_start`

# %% nbgrader={"grade": false, "grade_id": "generation-window", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def window_start(length: int, max_seq_length: int) -> int:
    """Where the part of a text of ``length`` tokens begins that the model looks at.

    Up to ``max_seq_length`` tokens it is all. From then on the beginning moves in steps of half a window (rounded up),
    and only when it must: the model looks at more than half a window, and at no more than one.

    TODO: ...

    EXAMPLE:
    >>> [window_start(length, 8) for length in (8, 9, 12, 13, 100)]
    [0, 4, 4, 8, 92]
    """
    ### BEGIN SOLUTION
    half = max_seq_length - max_seq_length // 2
    excess = max(length - max_seq_length, 0)
    return -(-excess // half) * half
    ### END SOLUTION

# %% [markdown]
# ## 13. Write
#
# ### Exercise: `fresh_logits` and `kept_logits`

# %% nbgrader={"grade": false, "grade_id": "generation-next", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def visible_parts(texts: Sequence[Sequence[int]], max_seq_length: int) -> list[Sequence[int]]:
    """Of each text the part that the model looks at; see ``window_start``."""
    return [text[window_start(len(text), max_seq_length) :] for text in texts]


def fresh_logits(model: Transformer, texts: Sequence[Sequence[int]], pad_id: int) -> Array:
    """The logits (B, V) for the next token of each text, computed from the whole text.

    TODO: ...
    """
    ### BEGIN SOLUTION
    padded, missing = pad_rows(visible_parts(texts, model.max_seq_length), pad_id, left=False)
    ends = padded.shape[1] - 1 - missing
    last_vectors = model.features(padded)[np.arange(len(texts)), ends]
    return model.head(last_vectors).data
    ### END SOLUTION


def kept_logits(model: Transformer, texts: Sequence[Sequence[int]], cache: KVCache, pad_id: int) -> Array:
    """The same, computed from the last token of each text and what the cache holds of those before.

    If that is not the part that is to be looked at, the cache is filled anew.

    TODO: ...
    """
    parts = visible_parts(texts, model.max_seq_length)
    ### BEGIN SOLUTION
    held = cache.length - cache.padding
    if all(len(part) == there + 1 for part, there in zip(parts, held, strict=True)):
        unread = np.array([part[-1:] for part in parts])
    else:
        unread, padding = pad_rows(parts, pad_id, left=True)
        cache.clear(padding)
    last_vectors = cached_features(model, unread, cache)[:, -1]
    return plain(model.head, last_vectors)
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "generation-generate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def steps(
    model: Transformer, texts: list[list[int]], max_new_tokens: int, sampling: Sampling, use_cache: bool, pad_id: int
) -> Iterator[Array]:
    """Choose a token for each text, append it, and give the tokens (B,); ``max_new_tokens`` times.

    TODO: ...
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
    sampling: Sampling = Sampling(),  # noqa: B008
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


def cut_at(text: list[int], begin: int, stops: list[int]) -> list[int]:
    """``text`` up to the first of ``stops`` at or after the place ``begin``, that one included."""
    ends = (place + 1 for place in range(begin, len(text)) if text[place] in stops)
    return text[: next(ends, None)]


def stream(
    model: Transformer,
    prompt: Any,
    max_new_tokens: int,
    *,
    sampling: Sampling = Sampling(),  # noqa: B008
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
