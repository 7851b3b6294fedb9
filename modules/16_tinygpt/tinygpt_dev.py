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
# # TinyGPT
#
# > TinyGPT: a language model with its loss, its trainer and its voice, almost all of which was there already.
#
# You have a network that writes like nobody, and a text that took a life. This module brings them together: at its end
# you train a GPT on Shakespeare and read what it writes.
#
# What is missing? Less than one would think:
#
# ```
#    text --> ids --> windows --> TinyGPT --> LanguageModelLoss --> AdamW, clipping, cosine
#             11       10, here    14, here    05, here              07
#                                     |        `------ LanguageModelTrainer: 08, here ------'
#                                     v
#                       ids one by one --> TextGenerator --> text
#                                15               here
# ```
#
# Predict, and write it down: of all lines of *your* package that run while a GPT is made, trained and writes, which
# share did you write before this course said a word about language? In section 7 we count.
#
# The pieces of this module are short, and most of them exist because of a mistake that gives no error: a target that
# is off by one, a mean over the wrong things, half a character on the screen.
#
# Plan for about five hours. The first test is ten minutes away.

# %%
#| default_exp core.tinygpt
#| export
from __future__ import annotations

import codecs
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinytorch.core.dataloader import DataLoader, Dataset, in_range
from tinytorch.core.generation import Sampling, stream
from tinytorch.core.layers import Module, whole_size
from tinytorch.core.losses import cross_entropy, perplexity
from tinytorch.core.optimizers import AdamW, CosineWarmupLR
from tinytorch.core.tensor import Array, Tensor
from tinytorch.core.training import (
    Average,
    Batch,
    Callback,
    Trainer,
    at_epoch,
    read_checkpoint,
    write_checkpoint,
)
from tinytorch.core.transformers import Transformer, count_by_part

# %%
import time
from itertools import pairwise

import matplotlib.pyplot as plt

from tinytorch.core.setup import peak_memory
from tinytorch.core.tensor import manual_seed
from tinytorch.core.tokenization import BPETokenizer, CharTokenizer
from tinytorch.core.transformers import transformer_size

# %% [markdown]
# ## 1. One description
#
# A trained model is two things: its weights, and the eight numbers that say how it was built. Lose the second, and the
# first are only numbers. Worse: some of the eight leave no trace in the weights. A model of 4 heads and one of 8 have
# the same parameters with the same shapes; load the one's weights into the other, and there is no error, only nonsense.
#
# So the eight stand together in one object that can be printed, compared, saved and not changed: a frozen dataclass.
# It refuses what cannot be *when it is made*, not an hour later.
#
# ### Exercise: `TinyGPTConfig`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-config", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass(frozen=True)
class TinyGPTConfig:
    """What a ``TinyGPT`` is built from; it cannot be changed, and two that say the same are equal.

    Attributes
    ----------
    vocab_size
        V, how many tokens there are.
    max_seq_length
        How many tokens the model can look at: its context window.
    num_layers, num_heads
        Blocks, and heads in each.
    embed_dim
        E, the length of the vectors; divisible by ``num_heads``.
    hidden_dim
        The length inside the feed-forward networks; None for four times E.
    dropout
        The probability of dropping in training, from 0 up to, not including, 1. 0 suits a model that sees each text
        only once or twice.
    tie_weights
        Let the head and the token embedding share one table, as in GPT-2: a table less to store and to learn.

    Raises
    ------
    TypeError
        If a size is no whole number; it names the size.
    ValueError
        If a size is less than 1, ``embed_dim`` is not divisible by ``num_heads``, or ``dropout`` is out of its range.

    TODO: Fill in the two blanks: the length inside, and what is refused.

    APPROACH:
    1. `feed_forward_dim`: `hidden_dim` if it is given, else four times `embed_dim`.
    2. `__post_init__` runs when all fields are set. `whole_size("TinyGPTConfig", name, value)` checks a size: the five
       sizes, and `feed_forward_dim` under the name hidden_dim.
    3. ValueError f"TinyGPTConfig: embed_dim {E} is not divisible by num_heads {H}".
    4. ValueError f"TinyGPTConfig: dropout should be from 0 up to, not including, 1, got {dropout}".

    EXAMPLE:
    >>> TinyGPTConfig(vocab_size=65, embed_dim=100, num_heads=3)
    ValueError: TinyGPTConfig: embed_dim 100 is not divisible by num_heads 3

    HINT: `getattr(self, name)` reads a field by its name. And a NaN is never less than anything: ask what *should* hold,
    and refuse if it does not.
    """

    vocab_size: int
    max_seq_length: int = 64
    num_layers: int = 4
    num_heads: int = 4
    embed_dim: int = 128
    hidden_dim: int | None = None
    dropout: float = 0.0
    tie_weights: bool = True

    @property
    def feed_forward_dim(self) -> int:
        """The length inside the feed-forward networks."""
        ### BEGIN SOLUTION
        return 4 * self.embed_dim if self.hidden_dim is None else self.hidden_dim
        ### END SOLUTION

    def __post_init__(self) -> None:
        ### BEGIN SOLUTION
        for name in ("vocab_size", "max_seq_length", "num_layers", "num_heads", "embed_dim"):
            whole_size("TinyGPTConfig", name, getattr(self, name))
        whole_size("TinyGPTConfig", "hidden_dim", self.feed_forward_dim)
        if self.embed_dim % self.num_heads != 0:
            both = f"embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}"
            raise ValueError(f"TinyGPTConfig: {both}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"TinyGPTConfig: dropout should be from 0 up to, not including, 1, got {self.dropout}")
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-config", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_config():
    config = TinyGPTConfig(vocab_size=65)
    numbers = [config.vocab_size, config.max_seq_length, config.num_layers, config.num_heads, config.embed_dim]
    close(numbers, [65, 64, 4, 4, 128], what="vocab_size and the defaults of the sizes")
    assert config.feed_forward_dim == 512, f"without hidden_dim it is 4 times embed_dim: 512, got {config.feed_forward_dim}"
    inside = TinyGPTConfig(65, hidden_dim=100).feed_forward_dim
    assert inside == 100, f"hidden_dim=100 is what the caller wants, got {inside}"
    with raises(AttributeError, "embed_dim", why="a frozen dataclass cannot be changed"):
        config.embed_dim = 256
    for name in ("vocab_size", "max_seq_length", "num_layers", "num_heads", "embed_dim", "hidden_dim"):
        sizes = {"vocab_size": 65}
        for wrong in (0, -4):
            with raises(ValueError, f"TinyGPTConfig: {name} ", str(wrong), why=f"{name}={wrong}"):
                TinyGPTConfig(**(sizes | {name: wrong}))
        with raises(TypeError, name, "2.5", why=f"{name}=2.5 is no whole number"):
            TinyGPTConfig(**(sizes | {name: 2.5}))
    for width, heads in [(100, 3), (4, 8), (9, 6)]:
        with raises(ValueError, f"embed_dim {width}", f"num_heads {heads}"):
            TinyGPTConfig(65, embed_dim=width, num_heads=heads)
    for wrong in (-0.1, 1.0, 1.5, float("nan")):
        with raises(ValueError, "dropout", str(wrong)):
            TinyGPTConfig(65, dropout=wrong)
    smallest = TinyGPTConfig(1, 1, 1, 1, 1, 1, 0.99, False)
    assert smallest.feed_forward_dim == 1 and smallest.tie_weights is False, "sizes of 1 and a dropout of 0.99 can be"
    ### BEGIN HIDDEN TESTS
    heads, width = (int(n) for n in np.random.default_rng().integers(2, 9, size=2))
    assert TinyGPTConfig(7, embed_dim=heads * width, num_heads=heads).feed_forward_dim == 4 * heads * width
    with raises(ValueError, f"num_heads {heads}"):
        TinyGPTConfig(7, embed_dim=heads * width + 1, num_heads=heads)
    ### END HIDDEN TESTS


test_config()

# %%
SMALL = TinyGPTConfig(vocab_size=67)
SMALL

# %% [markdown]
# `hidden_dim` stays None in there, on purpose: `dataclasses.replace(SMALL, embed_dim=256)` then gives a network that is
# wider inside, too.
#
# ### Exercise: `TinyGPT`
#
# The model is module 14's, built from a description and carrying it along. So it can be written to a file and made
# again without knowing anything else; `save` and `load` use module 08's format, in which nothing can be run.

# %% nbgrader={"grade": false, "grade_id": "tinygpt-model", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TinyGPT(Transformer):
    """A ``Transformer`` that knows what it was built from. Its parameters have the names and shapes of that one's.

    So ``load_state_dict`` takes the weights of any ``Transformer`` of these sizes, and with ``from_gpt2`` those of GPT-2
    and its relatives; see there for the names.

    Parameters
    ----------
    config
        The sizes.

    Attributes
    ----------
    config
        As given.

    Raises
    ------
    TypeError
        If ``config`` is no TinyGPTConfig.

    TODO: Fill in the blank: build the transformer, and keep the config.

    APPROACH:
    1. `asdict(config)` is a dictionary of the eight, by the names that `Transformer` has for them. One of them may be None,
       and should be the length inside.
    2. `super().__init__(...)` with all eight: `**` hands over a dictionary by names.
    3. `self.config`.

    EXAMPLE:
    >>> TinyGPT(TinyGPTConfig(vocab_size=65, embed_dim=32))([[1, 2, 3]]).shape
    (1, 3, 65)

    HINT: A Module must be initialised before it gets attributes. `{"a": 1, "b": 2} | {"b": 3}` is `{"a": 1, "b": 3}`.
    """

    def __init__(self, config: TinyGPTConfig) -> None:
        if not isinstance(config, TinyGPTConfig):
            raise TypeError(f"TinyGPT: expected a TinyGPTConfig, got {type(config).__name__}")
        ### BEGIN SOLUTION
        sizes = asdict(config) | {"hidden_dim": config.feed_forward_dim}
        super().__init__(**sizes)
        self.config = config
        ### END SOLUTION

    def parameters_by_part(self) -> dict[str, int]:
        """How many parameters each part has; see ``count_by_part``."""
        return count_by_part(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write config and weights to one ``.npz`` file; see ``write_checkpoint``."""
        write_checkpoint(path, {"config": asdict(self.config), "model": self.state_dict()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model that ``save``, or a ``LanguageModelTrainer``'s checkpoint, wrote to ``path``.

        Raises
        ------
        OSError, ValueError
            As ``read_checkpoint``; ValueError as well if there is no TinyGPT in it.
        """
        state = read_checkpoint(path)
        try:
            model = cls(TinyGPTConfig(**state["config"]))
            model.load_state_dict(state["model"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{os.fspath(path)} holds no TinyGPT: {type(error).__name__}: {error}") from error
        return model

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-model", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_model():
    import tempfile
    from pathlib import Path

    model = TinyGPT(TinyGPTConfig(11, 7, 3, 2, 6, hidden_dim=5, dropout=0.25, tie_weights=False))
    shapes = {name: array.shape for name, array in model.state_dict().items()}
    for name, shape in {
        "token_embedding.weight": (11, 6),
        "position_embedding.weight": (7, 6),
        "blocks.2.feed_forward.linear1.weight": (5, 6),
        "head.weight": (11, 6),
    }.items():
        assert shapes.get(name) == shape, f"{name}: expected the shape {shape}, got {shapes.get(name)}"
    assert len(model.blocks) == 3, f"num_layers=3, got {len(model.blocks)} blocks"
    assert model.num_heads == 2, f"num_heads=2, got {model.num_heads}"
    close([model.dropout.p, model.blocks[0].feed_forward.dropout.p], [0.25, 0.25], what="dropout")
    assert model.config.num_layers == 3 and model.config.hidden_dim == 5, "model.config is what it was built from"
    wide = TinyGPT(TinyGPTConfig(11, embed_dim=8, num_layers=1)).blocks[0].feed_forward.linear1.weight.shape
    assert wide == (32, 8), f"without hidden_dim, 4 times embed_dim: expected (32, 8), got {wide}"
    untied = sum(model.parameters_by_part().values())
    tied = sum(TinyGPT(TinyGPTConfig(11, 7, 3, 2, 6, hidden_dim=5)).parameters_by_part().values())
    assert untied - tied == 66, f"tied weights, the default, save a table of 11 x 6 numbers; got {untied - tied}"
    with raises(TypeError, "TinyGPTConfig", "int"):
        TinyGPT(65)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.npz")
        model.save(path)
        again = TinyGPT.load(path)
        assert again.config.num_heads == 2 and again.config.dropout == 0.25, "the file holds the config, too"
        for name, array in model.state_dict().items():
            close(again.state_dict()[name], array, rtol=0, atol=0, what=name, why="saved and loaded")
    ### BEGIN HIDDEN TESTS
    heads, layers, words, places = (int(n) for n in np.random.default_rng().integers(1, 5, size=4))
    bench = TinyGPT(TinyGPTConfig(words, places, layers, heads, 3 * heads))
    wanted = 3 * heads * (words + places) + layers * (12 * (3 * heads) ** 2 + 13 * 3 * heads) + 6 * heads
    assert sum(bench.parameters_by_part().values()) == wanted, f"{bench.config}: expected {wanted} parameters"
    ### END HIDDEN TESTS


test_model()

# %% [markdown]
# ### What it takes to train it
#
# Four things lie in memory: the weights, a gradient for each, Adam's two averages for each, and all that the forward
# pass leaves for the way back, which grows with the batch. Predict for `SMALL`, in MB, with 16 texts of 64 tokens.

# %%
manual_seed(0)
model = TinyGPT(SMALL)
weights_mb = sum(parameter.data.nbytes for parameter in model.parameters()) / 1e6
batches = [1, 4, 16, 32]
kept = []
for size in batches:
    rows = np.random.default_rng(0).integers(0, 67, size=(size, 65))
    loss_and_peak = peak_memory(lambda rows=rows: cross_entropy(model(rows[:, :-1]), rows[:, 1:]))
    kept.append(loss_and_peak[1] / 1e6)

figure, axes = plt.subplots(figsize=(7, 2.6))
left = np.zeros(len(batches))
for label, amounts in {
    "weights": [weights_mb] * 4, "gradients": [weights_mb] * 4, "Adam's averages": [2 * weights_mb] * 4, "the way back": kept,
}.items():
    axes.barh(range(len(batches)), amounts, left=left, label=label)
    left += amounts
for row, total in enumerate(left):
    axes.text(total + 3, row, f"{total:.0f} MB", va="center", fontsize=8)
axes.set_yticks(range(len(batches)), [f"{size} x 64" for size in batches])
axes.invert_yaxis()
axes.set_xlim(0, 1.12 * max(left))
axes.set_xlabel("MB")
axes.set_ylabel("tokens in a batch")
axes.legend(fontsize=8)
axes.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()
print(f"{sum(model.parameters_by_part().values()):,} parameters, {weights_mb:.1f} MB; peak of the forward pass: "
      + ", ".join(f"{amount:.0f} MB" for amount in kept))

# %% [markdown]
# Weights, gradients and averages are 13 MB, whatever the batch. With 16 texts, the way back takes 71 MB beside them,
# 69 kB for each token, and with 32 texts 142. (Measured as the peak of the forward pass.) So whoever runs out of memory
# takes a smaller batch, and adds up the gradients of several: section 4.
#
# ## 2. The next token
#
# At each position the model answers: which token comes next? The answers for a text are in the text itself, one place
# further. So the ids are input and target at once, and all that the loss does is to compare position t with token t + 1:
#
# ```
#   ids      F   i   r   s   t   _   C
#   logits   l0  l1  l2  l3  l4  l5  l6       l0 is the answer to "F", l1 to "Fi", ...
#   targets  i   r   s   t   _   C   -        nobody knows what follows the last one
# ```
#
# It is easy to be off by one here, to both sides: no shift at all, and one too many, when loader *and* loss shift. Here
# the loss does it, and nobody else.
#
# Predict: if you forget the shift, and train on that, does the loss go down more slowly, or faster? To what?
#
# Two kinds of positions have no target: the last one, and those whose next token is padding. Module 05's cross-entropy
# leaves out what carries a certain number, -100. So write this number there, instead of cutting pieces out of the
# logits, which with 50,000 tokens are the largest array of all.
#
# ### Exercise: `next_token_targets`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-targets", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
IGNORED = -100
"""The target of positions that do not count."""


def next_token_targets(ids: Any, length: int, pad_id: int | None = None) -> Array:
    """For each of the first ``length`` positions of ``ids`` the token that follows, or ``IGNORED`` if none does.

    Parameters
    ----------
    ids
        Whole numbers of shape (..., T) or (..., T + 1), where T is ``length``: the texts themselves, or with one token
        more, so that the last position has a target as well.
    length
        How many positions the model answers for.
    pad_id
        The id of the padding; where it would be the target, nothing is. None if there is no padding.

    Returns
    -------
    Array
        int64, of shape (..., length).

    TODO: Shift, fill up, and take the padding out.

    APPROACH:
    1. An int64 array of the right shape, full of IGNORED.
    2. What follows position 0 is `ids[..., 1]`. Write all that is there into the beginning of the array.
    3. If there is padding: IGNORED wherever the target is pad_id.

    EXAMPLE:
    >>> next_token_targets([[5, 6, 7, 0]], length=4, pad_id=0)
    array([[   6,    7, -100, -100]])
    >>> next_token_targets([5, 6, 7, 8], length=3)
    array([6, 7, 8])

    HINT: `ids[..., 1:]` has T - 1 or T numbers in its last axis: ask it for its shape.
    """
    ### BEGIN SOLUTION
    following = np.asarray(ids)[..., 1:]
    targets = np.full((*following.shape[:-1], length), IGNORED)
    targets[..., : following.shape[-1]] = following
    if pad_id is not None:
        targets[targets == pad_id] = IGNORED
    return targets
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-targets", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_targets():
    why = "position t gets token t + 1; the last one has none"
    close(next_token_targets([5, 6, 7], 3), [6, 7, -100], dtype=np.int64, what="targets of [5, 6, 7]", why=why)
    close(next_token_targets([5, 6, 7, 8], 3), [6, 7, 8], dtype=np.int64, what="with one token more", why="all have a target then")
    rows = np.array([[5, 6, 7, 0], [9, 0, 0, 0]])
    why = "where the next token is padding, there is no target"
    close(next_token_targets(rows, 4, pad_id=0), [[6, 7, -100, -100], [-100] * 4], what="targets with padding", why=why)
    close(next_token_targets(rows, 4), [[6, 7, 0, -100], [0, 0, 0, -100]], why="without pad_id, 0 is a token like all others")
    close(rows, [[5, 6, 7, 0], [9, 0, 0, 0]], what="ids afterwards", why="do not write into them")
    left = next_token_targets([[0, 0, 5, 6]], 4, 0)
    close(left, [[-100, 5, 6, -100]], what="padding on the left", why="it is the target that counts, not the position")
    close(next_token_targets(Tensor(rows), 4, 7), [[6, -100, 0, -100], [0, 0, 0, -100]], what="of a Tensor, padding 7")
    close(next_token_targets(rows.astype(np.uint8), 4, 0)[1], [-100] * 4, dtype=np.int64, why="-100 is no uint8: make int64")
    close(next_token_targets([[4]], 1), [[-100]], why="a single token is followed by nothing")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(0, 5, size=(3, 2, 9))
    for extra in (0, 1):
        got = next_token_targets(drawn, 9 - extra, 3)
        want = [[[row[t + 1] if t + 1 < 9 and row[t + 1] != 3 else -100 for t in range(9 - extra)] for row in rows] for rows in drawn]
        close(got, want)
    ### END HIDDEN TESTS


test_targets()

# %% [markdown]
# ### Exercise: `LanguageModelLoss`
#
# The rest is module 05's. Beside the loss itself we ask how many targets *count*: whoever averages over batches needs
# it, since a batch with much padding says less than one without.

# %% nbgrader={"grade": false, "grade_id": "tinygpt-loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class LanguageModelLoss(Module):
    """The mean cross-entropy (in nats) of each position's logits with the token that follows it.

    It shifts by itself: give it the logits and the *unshifted* ids.

    Parameters
    ----------
    pad_id
        The id of the padding, which is never a target; None if there is none. If texts end with a token that is also
        their padding, the model does not learn to end them.

    TODO: Fill in the three blanks: the targets, `count` and `forward`.

    APPROACH:
    1. `targets`: `next_token_targets` with this loss's padding.
    2. `count`: how many of them are not IGNORED, as an int.
    3. `forward`: the targets for as many positions as there are logits. If none counts, ValueError "LanguageModelLoss: no
       position has a target: every text is padding, or a single token". Else `cross_entropy` with IGNORED as its
       ignore_index.

    EXAMPLE:
    >>> loss = LanguageModelLoss(pad_id=0)
    >>> float(loss(Tensor(np.zeros((1, 4, 10))), [[5, 6, 7, 0]])), loss.count([[5, 6, 7, 0]], 4)
    (2.3025851249694824, 2)

    HINT: Logits have the shape (..., T, V).
    """

    def __init__(self, pad_id: int | None = None) -> None:
        super().__init__()
        self.pad_id = pad_id

    def targets(self, ids: Any, length: int) -> Array:
        """What each of ``length`` positions should have said; see ``next_token_targets``."""
        ### BEGIN SOLUTION
        return next_token_targets(ids, length, self.pad_id)
        ### END SOLUTION

    def count(self, ids: Any, length: int) -> int:
        """How many of ``length`` positions have a target that counts."""
        ### BEGIN SOLUTION
        return int((self.targets(ids, length) != IGNORED).sum())
        ### END SOLUTION

    def forward(self, logits: Tensor, ids: Any) -> Tensor:
        """The loss, one number.

        Parameters
        ----------
        logits
            Of shape (..., T, V): what the model gave for the first T tokens.
        ids
            Whole numbers of shape (..., T), the same texts, or (..., T + 1), with the token that follows them.

        Raises
        ------
        TypeError, IndexError
            If the ids are no classes; see ``cross_entropy``.
        ValueError
            If the shapes do not belong together, or if no target counts.
        """
        length, tokens = logits.shape[-2], np.shape(ids)
        if tokens not in ((*logits.shape[:-2], length), (*logits.shape[:-2], length + 1)):
            fitting = f"{(*logits.shape[:-2], length)}, or one token more"
            raise ValueError(f"LanguageModelLoss: logits {logits.shape} want ids of shape {fitting}; got {tokens}")
        ### BEGIN SOLUTION
        targets = self.targets(ids, length)
        if np.all(targets == IGNORED):
            everywhere = "every text is padding, or a single token"
            raise ValueError(f"LanguageModelLoss: no position has a target: {everywhere}")
        return cross_entropy(logits, targets, ignore_index=IGNORED)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-loss", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def losses_by_hand(logits, ids, pad_id=None):
    """The losses of all positions that have a target, one by one, from plain arrays (B, T, V) and (B, T) or (B, T + 1)."""
    found = []
    for row in range(len(ids)):
        for t in range(min(logits.shape[1], ids.shape[1] - 1)):
            if ids[row, t + 1] != pad_id:
                raised = np.exp(logits[row, t])
                found.append(-math.log(raised[ids[row, t + 1]] / raised.sum()))
    return np.array(found)


def test_loss():
    rng = np.random.default_rng(1)
    logits, ids = rng.normal(size=(2, 4, 6)), np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    more = np.concatenate([ids, [[5], [0]]], axis=1)
    for pad_id, texts, counted in [(None, ids, 6), (0, ids, 2), (None, more, 8), (0, more, 3)]:
        loss = LanguageModelLoss(pad_id)
        want = losses_by_hand(logits, texts, pad_id)
        what = f"pad_id={pad_id}, ids of shape {texts.shape}"
        got = loss.count(texts, 4)
        assert type(got) is int and got == counted, f"count with {what}: expected {counted}, got {got}"
        why = "the mean over the positions that count"
        close(loss(Tensor(logits), texts).item(), want.mean(), rtol=1e-4, what=f"loss with {what}", why=why)
    leaf = Tensor(logits, requires_grad=True)
    LanguageModelLoss(0)(leaf, Tensor(ids)).backward()
    moved = np.abs(leaf.grad.data).sum(axis=-1) > 0
    close(moved, [[True, True, False, False], [False] * 4], what="positions with a gradient", why="padding teaches nothing")
    sharp = np.full((1, 3, 5), -50.0)
    sharp[0, [0, 1], [2, 3]] = 50
    close(LanguageModelLoss()(Tensor(sharp), [[1, 2, 3]]).item(), 0, why="logits that know the next token have no loss")
    for texts in ([[0, 0, 0, 0], [0, 0, 0, 0]], [[3, 0, 0, 0], [4, 0, 0, 0]]):
        with raises(ValueError, "LanguageModelLoss", "padding", why="no target counts: say so, the mean would be NaN"):
            LanguageModelLoss(0)(Tensor(logits), texts)
    with raises(ValueError, "single token"):
        LanguageModelLoss()(Tensor(logits[:, :1]), [[1], [2]])
    with raises(ValueError, "(2, 4, 6)", "(2, 3)", why="ids are not shifted by the caller"):
        LanguageModelLoss()(Tensor(logits), ids[:, 1:])
    ### BEGIN HIDDEN TESTS
    scores, texts = np.random.default_rng().normal(size=(3, 5, 7)), np.random.default_rng().integers(0, 7, size=(3, 6))
    one = LanguageModelLoss(4)
    close(one(Tensor(scores), texts).item(), losses_by_hand(scores, texts, 4).mean(), rtol=1e-4)
    assert one.count(texts, 5) == len(losses_by_hand(scores, texts, 4))
    close(one(Tensor(scores[0]), texts[0]).item(), losses_by_hand(scores[:1], texts[:1], 4).mean(), rtol=1e-4, what="without a batch")
    ### END HIDDEN TESTS


test_loss()

# %% [markdown]
# Padding on the right needs no mask besides: the mask is causal, so no token looks at what comes after it, and what the
# padded positions themselves say is not asked.
#
# ### Off by one
#
# Now the prediction from above. Three small models, the same start, the same batches of Shakespeare: one is asked for
# the next token, one for the token that it has just read (the shift forgotten), one for the token after the next (the
# shift done twice).

# %%
from tito import data

play = data.text("shakespeare")
tokenizer = CharTokenizer().fit(play)
ids = np.array(tokenizer.encode(play), np.uint8)
TINY = TinyGPTConfig(tokenizer.vocab_size, num_layers=2, embed_dim=64)


def trained_with(shift, steps=80):
    """The losses of a small model that is asked for the token ``shift`` places further, and what it writes."""
    manual_seed(0)
    model, dice, losses = TinyGPT(TINY), np.random.default_rng(0), []
    optimizer = AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for _ in range(steps):
        window = ids[dice.integers(0, len(ids) - 66, size=(12, 1)) + np.arange(66)].astype(np.int64)
        loss = cross_entropy(model(window[:, :64]), window[:, shift : shift + 64])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    manual_seed(1)
    return losses, tokenizer.decode(model.generate(tokenizer.encode("ROMEO:"), 40, temperature=0.7))


figure, axes = plt.subplots(figsize=(6.5, 3))
for shift, label in ((1, "the next token"), (0, "the same token: no shift"), (2, "the one after the next: two shifts")):
    losses, written = trained_with(shift)
    axes.plot(losses, label=label)
    print(f"{label:35} {losses[-1]:6.3f}  {written!r}")
axes.set_ylim(0, None)
axes.set_xlabel("step")
axes.set_ylabel("loss")
axes.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.33))
plt.tight_layout()
plt.show()

# %% [markdown]
# Without the shift the loss falls to 0.01: the best training run of your life. The model copies what it reads, which is
# easy, since the stream begins as the token's own vector; and asked to write, it repeats its last character for
# ever. A loss far below what the text allows is no success but an alarm.
#
# With two shifts nothing is conspicuous at all. The curve falls, 3.16 instead of 2.61 after 80 steps; it is just worse,
# for ever. What it writes has the letters of English, and none of its words. (One seed; the numbers are those of the
# cell.)
#
# ## 3. Windows of a long text
#
# A million characters are one long row of ids, and any place in it is a good place to begin a lesson of 65 tokens: 64
# to read, and one more, so that the last position has a target. There are a million such windows, and they overlap. Cut
# out and laid side by side they take 65 times the memory of the text. But a window is only a place to look from:
# NumPy's `sliding_window_view` gives all of them as an array (N - 64, 65) that owns nothing.
#
# ```
#   text      F i r s t _ C i t i z e n         length 4
#   window 0 [F i r s t]                        inputs F i r s, and t follows
#   window 1   [i r s t _]
#   window 2     [r s t _ C]                    with stride 4, window 1 begins where the t stands:
#                                               each token is a target once
# ```
#
# ### Exercise: `TextWindows`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-windows", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TextWindows(Dataset):
    """Windows of a long row of ids as a dataset: sample i is ``(inputs, ids)``, of ``length`` and ``length + 1`` tokens.

    ``ids`` begins with the inputs and has the token that follows them: what ``LanguageModelLoss`` wants. The text is not
    copied, so it may stay in a file (``numpy.load(path, mmap_mode="r")``), and may be of a small dtype.

    Parameters
    ----------
    ids
        Whole numbers of shape (N,), N greater than ``length``.
    length
        How many tokens the model reads at once; at most its ``max_seq_length``.
    stride
        How far the next window begins: 1 for every place of the text, ``length`` for windows in a row, in which every
        token is a target at most once. What is too short for a last window is left out.

    ``dataset[i]`` gives int64 arrays of shape (length,) and (length + 1,); with many numbers there is a row for each.

    Raises
    ------
    TypeError
        If the ids or the sizes are no whole numbers.
    ValueError
        If a size is less than 1, or the ids are no row of at least ``length + 1``.

    TODO: Fill in the blanks: the windows, and `__getitem__`.

    APPROACH:
    1. `self.windows`: `sliding_window_view(text, ...)`, then every stride-th of its rows.
    2. `__getitem__`: `in_range("TextWindows", index, len(self))` checks the index. Take these rows, as int64.
    3. Return the rows without their last token, and the rows.

    EXAMPLE:
    >>> inputs, texts = TextWindows(np.arange(10), length=4)[[0, 2]]
    >>> inputs.tolist(), texts.tolist()
    ([[0, 1, 2, 3], [2, 3, 4, 5]], [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])

    HINT: One token more than the model reads. `rows[..., :-1]` is right for one window and for many.
    """

    batched = True

    def __init__(self, ids: Any, length: int, stride: int = 1) -> None:
        length, stride = whole_size("TextWindows", "length", length), whole_size("TextWindows", "stride", stride)
        text = np.asarray(ids)
        if text.dtype.kind not in "iu":
            raise TypeError(f"TextWindows: ids are whole numbers, got {text.dtype}")
        if text.ndim != 1 or len(text) <= length:
            least = f"a row of at least {length + 1} ids"
            raise ValueError(f"TextWindows: a window of {length} needs {least}, got the shape {text.shape}")
        ### BEGIN SOLUTION
        self.windows = sliding_window_view(text, length + 1)[::stride]
        ### END SOLUTION

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> tuple[Array, Array]:
        ### BEGIN SOLUTION
        rows = self.windows[in_range("TextWindows", index, len(self))].astype(np.int64)
        return rows[..., :-1], rows
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-windows", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def check_windows(text, length, stride):
    dataset = TextWindows(text, length, stride)
    starts = range(0, len(text) - length, stride)
    what = f"windows of {length} in {len(text)} ids, stride {stride}"
    assert len(dataset) == len(starts), f"{what}: expected {len(starts)}, got {len(dataset)}"
    inputs, texts = dataset[list(range(len(starts)))]
    close(inputs, [text[s : s + length] for s in starts], dtype=np.int64, what=f"inputs: {what}")
    close(texts, [text[s : s + length + 1] for s in starts], dtype=np.int64, what=f"ids: {what}", why="one token more")


def test_windows():
    for length, stride in [(4, 1), (4, 4), (4, 3), (9, 1), (9, 9), (1, 1)]:
        check_windows(np.arange(10) * 3, length, stride)
    sample = TextWindows([7, 8, 9, 10], 2)[1]
    assert type(sample) is tuple and len(sample) == 2, "a sample is (inputs, ids)"
    close(sample[0], [8, 9], what="inputs of window 1")
    close(sample[1], [8, 9, 10], what="ids of window 1")
    close(TextWindows([7, 8, 9, 10], 2)[-1][1], [8, 9, 10], what="window -1")
    small = np.array([250, 251, 252, 253], np.uint8)
    close(TextWindows(small, 2)[0][0], [250, 251], dtype=np.int64, why="a small dtype saves memory; batches are int64")
    numbers = np.arange(50)
    far = TextWindows(numbers, 8)
    assert far.batched is True
    numbers[3] = 99
    close(far[0][0][3], 99, why="windows are views: a text of gigabytes is not copied")
    with raises(IndexError, "TextWindows", "42"):
        far[42]
    for wrong in (np.arange(4), np.zeros((3, 9), int)):
        with raises(ValueError, "TextWindows", "5 ids", str(wrong.shape)):
            TextWindows(wrong, 4)
    with raises(TypeError, "float64"):
        TextWindows(np.zeros(9), 4)
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(0, 900, size=30)
    check_windows(drawn, int(drawn[0] % 20) + 1, int(drawn[1] % 7) + 1)
    ### END HIDDEN TESTS


test_windows()

# %%
windows = TextWindows(ids, length=64)
cut_out = len(windows) * 65 * ids.itemsize
f"{len(windows):,} windows: the text has {ids.nbytes / 1e6:.1f} MB, the windows cut out would have {cut_out / 1e6:.0f} MB"

# %% [markdown]
# ### Epochs of a million windows
#
# Module 10's `DataLoader` shuffles them and makes batches. But an epoch of it is now 69,000 batches of 16, in which each
# character is seen 64 times. Nobody waits that long to hear how things stand. So "epoch" gets another meaning, and
# language models are trained in *steps*: take the first 250 batches of each shuffled epoch, evaluate, and begin a new
# one, with a new order. Seed and epoch still decide everything, so a run can be resumed.
#
# ### Exercise: `FirstBatches`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-first-batches", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class FirstBatches:
    """A loader that gives the first ``batches`` batches of each epoch of another one, or fewer if it has no more.

    Parameters
    ----------
    loader
        Has a length and can be iterated in each epoch anew.
    batches
        How many; at least 1.

    TODO: Fill in `__len__` and `__iter__`.

    APPROACH:
    1. `__len__`: the smaller of the two numbers.
    2. `__iter__`: `islice(iterable, n)` gives the first n of anything, without asking for one more.

    EXAMPLE:
    >>> list(FirstBatches(["a", "b", "c"], 2))
    ['a', 'b']

    HINT: The loader counts its epochs itself: begin a new iteration of it each time.
    """

    def __init__(self, loader: Any, batches: int) -> None:
        self.loader, self.batches = loader, whole_size("FirstBatches", "batches", batches)

    def set_epoch(self, epoch: int) -> None:
        """Tell the loader which epoch is coming, if it wants to know."""
        at_epoch(self.loader, epoch)

    def __len__(self) -> int:
        ### BEGIN SOLUTION
        return min(self.batches, len(self.loader))
        ### END SOLUTION

    def __iter__(self) -> Iterator[Any]:
        ### BEGIN SOLUTION
        return islice(self.loader, self.batches)
        ### END SOLUTION


def training_windows(ids: Any, length: int, batch_size: int, batches: int, seed: int = 0) -> FirstBatches:
    """A loader of random windows: in each epoch other ones, ``batches`` times ``batch_size`` of them.

    Every place of the text can begin a window. Which ones come depends on seed and epoch alone.
    """
    loader = DataLoader(TextWindows(ids, length), batch_size, shuffle=True, seed=seed)
    return FirstBatches(loader, batches)


def validation_windows(ids: Any, length: int, batch_size: int = 64) -> DataLoader:
    """A loader of all windows in a row, in which each token but the first is a target once; always the same ones."""
    return DataLoader(TextWindows(ids, length, stride=length), batch_size)

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-first-batches", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def starts_of(loader):
    """The first token of every window of an epoch, whose ids count upwards."""
    return [int(row[0]) for inputs, _ in loader for row in inputs.tolist()]


def test_first_batches():
    for batches, want in [(2, 2), (5, 5), (9, 5)]:
        part = FirstBatches([10, 11, 12, 13, 14], batches)
        assert len(part) == want, f"the first {batches} of 5: expected a length of {want}, got {len(part)}"
        close(list(part), list(range(10, 10 + want)), what=f"the first {batches} of 5")
        close(list(part), list(range(10, 10 + want)), what="the next epoch of a list", why="begin anew each time")
    text = np.arange(200)
    loader = training_windows(text, 8, batch_size=4, batches=6, seed=1)
    epochs = [starts_of(loader) for _ in range(3)]
    assert all(len(set(epoch)) == 24 for epoch in epochs), "24 different windows in an epoch"
    assert epochs[0] != epochs[1] != epochs[2], "each epoch has other windows: iterate over the loader anew"
    loader.set_epoch(1)
    assert starts_of(loader) == epochs[1], "set_epoch(1) brings epoch 1 again"
    in_a_row = starts_of(validation_windows(text, 8, batch_size=5))
    close(in_a_row, np.arange(0, 192, 8), what="validation windows", why="one after the other")
    ### BEGIN HIDDEN TESTS
    count = int(np.random.default_rng().integers(1, 9))
    again = [starts_of(training_windows(text, 8, 4, count, seed=count)) for _ in range(2)]
    assert again[0] == again[1] and len(again[0]) == 4 * count
    ### END HIDDEN TESTS


test_first_batches()

# %% [markdown]
# ## 4. The trainer
#
# Module 08's `Trainer` does nearly all of it: the loop, clipping, the schedule, evaluation, checkpoints. What is
# special about language are three decisions.
#
# ### Who decays?
#
# Weight decay pulls weights to zero. For a matrix that is a wish for simple answers. The weight of a LayerNorm has to
# be near 1, and a bias costs nothing: pulling them to zero only harms. Since GPT-2 the rule of thumb is: what has two
# axes decays, what has one does not. AdamW's parameter groups (module 07) are made for that.
#
# ### Exercise: `decay_groups`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-decay", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of ``model`` as two groups for an optimizer: matrices and tables decay, all else does not.

    Returns
    -------
    list[dict]
        Two dictionaries with "params" and "weight_decay": parameters with two axes or more, and ``weight_decay``; those
        with fewer, and 0.0. Each parameter once, in the model's order.

    TODO: Divide the parameters by their number of axes.

    APPROACH:
    1. Two lists from `model.parameters()`, by `ndim`.
    2. A dictionary for each.

    EXAMPLE:
    >>> [len(group["params"]) for group in decay_groups(Linear(2, 3), 0.1)]
    [1, 1]

    HINT: `model.parameters()` gives a shared table once, and an iterator can be used only once.
    """
    ### BEGIN SOLUTION
    everyone = list(model.parameters())
    matrices = [parameter for parameter in everyone if parameter.ndim >= 2]
    vectors = [parameter for parameter in everyone if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-decay", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_decay():
    model = TinyGPT(TinyGPTConfig(11, 7, 2, 2, 6))
    groups = decay_groups(model, 0.3)
    assert len(groups) == 2, f"expected two groups, got {len(groups)}"
    close([group["weight_decay"] for group in groups], [0.3, 0.0], what="weight_decay of the groups")
    shapes = [[parameter.shape for parameter in group["params"]] for group in groups]
    want = [[parameter.shape for parameter in model.parameters() if (parameter.ndim > 1) is big] for big in (True, False)]
    for number, (got, right) in enumerate(zip(shapes, want, strict=True)):
        assert got == right, f"group {number}: expected parameters of the shapes {right}, got {got}"
    AdamW(groups, lr=0.1)  # takes no parameter twice
    before = [[parameter.data.copy() for parameter in group["params"]] for group in groups]
    optimizer = AdamW(decay_groups(model, 0.5), lr=0.1)
    model(np.zeros((1, 3), int)).sum().backward()
    for parameter in model.parameters():
        parameter.grad.data[...] = 0
    optimizer.step()
    for group, old, factor in zip(groups, before, (0.95, 1.0), strict=True):
        for parameter, numbers in zip(group["params"], old, strict=True):
            close(parameter.data, factor * numbers, why=f"with gradients of 0, a step multiplies by {factor}")
    ### BEGIN HIDDEN TESTS
    rate = float(np.random.default_rng().random())
    drawn = decay_groups(TinyGPT(TinyGPTConfig(5, 3, 1, 1, 4, tie_weights=False)), rate)
    close(drawn[0]["weight_decay"], rate)
    assert [len(group["params"]) for group in drawn] == [7, 10]
    ### END HIDDEN TESTS


test_decay()

# %% [markdown]
# ### What is the mean of?
#
# When a batch does not fit into memory, module 08 takes it in pieces and weighs each piece with the number of its
# samples. For texts with padding that is wrong: the loss is a mean over *tokens*, and two pieces of 8 texts can have
# 500 and 50 tokens that count. Then a token of the short texts weighs as much as ten of the others. For years this stood
# in a much-used library, until in 2024 somebody compared the losses with those of one large batch.
#
# Predict for the two pieces: one has 500 tokens and a loss of 2.0, the other 50 and a loss of 4.0. What is the loss of
# both together, and what does the mean of the two say?
#
# ### Exercise: `accumulate_by_tokens`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-accumulate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def accumulate_by_tokens(model: Module, loss: LanguageModelLoss, group: Sequence[Batch]) -> list[tuple[Any, float]]:
    """Add to the parameters' ``grad`` the gradient of the mean loss over all *targets that count* in a group of batches.

    Parameters
    ----------
    model, loss
        ``loss(model(inputs), ids)`` is the mean over the targets of a batch.
    group
        ``(inputs, ids)`` batches, Tensors of shape (B, T) and (B, T) or (B, T + 1).

    Returns
    -------
    list[tuple[Any, float]]
        For each batch the logits, and its own loss.

    TODO: Count first, then weigh.

    APPROACH:
    1. For each batch how many targets count, for as many positions as its inputs have.
    2. For each batch: logits, loss, and backward with the batch's share of all targets as the first gradient.
    3. Keep the logits and the loss as a float.

    EXAMPLE:
    >>> group = [(Tensor([[1, 2, 3]]), Tensor([[1, 2, 3, 4]])), (Tensor([[1, 2, 3]]), Tensor([[1, 2, 0, 0]]))]
    >>> # with LanguageModelLoss(pad_id=0) the first batch counts 3/4 and the second 1/4

    HINT: `backward(number)` begins with that number instead of 1.
    """
    ### BEGIN SOLUTION
    counts = [loss.count(ids, inputs.shape[-1]) for inputs, ids in group]
    done = []
    for (inputs, ids), counted in zip(group, counts, strict=True):
        logits = model(inputs)
        mean = loss(logits, ids)
        mean.backward(counted / sum(counts))
        done.append((logits, float(mean)))
    return done
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-accumulate", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def check_accumulated(texts, cut, size=0.3):
    """The gradients of texts (B, T + 1), padded with 0 and taken in two pieces, against those of one batch."""
    model = TinyGPT(TinyGPTConfig(9, 8, 1, 2, 4))
    rng = np.random.default_rng(len(texts))
    model.load_state_dict({name: rng.normal(0, size, array.shape) for name, array in model.state_dict().items()})
    together = cross_entropy(model(texts[:, :-1]), np.where(texts[:, 1:] == 0, -100, texts[:, 1:]))
    together.backward()
    want = [parameter.grad.data.copy() for parameter in model.parameters()]
    model.zero_grad()
    pieces = [(Tensor(part[:, :-1]), Tensor(part)) for part in (texts[:cut], texts[cut:])]
    got = accumulate_by_tokens(model, LanguageModelLoss(0), pieces)
    for (name, parameter), right in zip(model.named_parameters(), want, strict=True):
        why = "each piece with its share of the targets that count, not of the texts"
        close(parameter.grad.data, right, rtol=1e-3, atol=1e-5, what=f"gradient of {name}", why=why)
    assert len(got) == 2, f"two pieces, expected two results, got {len(got)}"
    for (logits, value), part in zip(got, (texts[:cut], texts[cut:]), strict=True):
        by_hand = losses_by_hand(logits.data, part, 0).mean()
        assert type(value) is float, f"the loss of a piece should be a float, got {type(value).__name__}"
        close(value, by_hand, rtol=1e-3, what="loss of a piece", why="its own mean")


def test_accumulate():
    texts = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 1, 3, 2, 4], [5, 4, 0, 0, 0, 0], [6, 1, 0, 0, 0, 0]])
    check_accumulated(texts, 2)
    check_accumulated(texts, 1)
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().integers(1, 9, size=(5, 7))
    drawn[3:, 3:] = 0
    check_accumulated(drawn, 3)
    ### END HIDDEN TESTS


test_accumulate()

# %%
tokens, means = np.array([500, 50]), np.array([2.0, 4.0])
print(f"of all tokens {(tokens * means).sum() / tokens.sum():.3f}, mean of the two {means.mean():.3f}")

# %% [markdown]
# 2.182 and 3.000.
#
# ### Perplexity
#
# A loss of 2.182 nats says little to most people. Its exponential does: the **perplexity** (module 05) is how
# many equally likely tokens the model hesitates between. You can check it: a model that knows nothing of 67 tokens has
# a loss of ln 67 and a perplexity of 67; one that always hesitates between heads and tails has 2.
#
# And again the mean is a trap: exp is not linear. The perplexity of a text is exp of the mean loss, not the mean of the
# batches' exp. For the two pieces above: exp(2.182) = 8.9; the mean of exp(2.0) and exp(4.0), even when weighted by
# tokens, is 11.7. So it cannot be one of the trainer's metrics, which are averaged; it is computed from the average.
#
# ### Exercise: `LanguageModelTrainer`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-trainer", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class LanguageModelTrainer(Trainer):
    """A ``Trainer`` with what language models are trained with; see there for all that it can do.

    AdamW with decay for matrices only, gradients clipped, the rate up during the warm-up and then down along a cosine.
    All means are over targets that count. The history has "perplexity" and "val_perplexity" besides the losses; checkpoints
    hold the model's config, so that ``TinyGPT.load`` can read them.

    Parameters
    ----------
    model
        What is trained.
    total_steps
        How many optimizer steps the cosine is for.
    lr, min_lr
        The largest rate, and the one at the end; by default a tenth of it.
    warmup_steps
        How many steps have a smaller rate at first; by default a twentieth of all.
    weight_decay, betas
        See ``AdamW``.
    max_grad_norm, accumulate, callbacks
        See ``Trainer``.
    pad_id
        See ``LanguageModelLoss``.

    Raises
    ------
    TypeError, ValueError
        If an option makes no sense.

    TODO: Fill in the blanks: what the trainer is made of, the weight of a batch in the averages, and the perplexity.

    APPROACH:
    1. `__init__`: AdamW of the `decay_groups`, a CosineWarmupLR, and `super().__init__(...)` with both and with a
       LanguageModelLoss. `total_steps // 20` and `lr / 10` are the defaults.
    2. `note`: add the loss to `averages["loss"]`, an Average, with the number of targets that count.
    3. `with_perplexity`: `values` and the perplexity of its loss. Before the first batch there is no loss, and no
       perplexity.

    EXAMPLE:
    >>> trainer = LanguageModelTrainer(model, total_steps=2000)
    >>> trainer.fit(training_windows(ids, 64, batch_size=12, batches=250), validation=validation_windows(others, 64))

    HINT: Outputs have the shape (B, T, V), and `self.loss.count(ids, T)` counts. `setdefault(name, Average())` makes what
    is not there yet.
    """

    loss: LanguageModelLoss
    model: TinyGPT

    def __init__(
        self,
        model: TinyGPT,
        total_steps: int,
        *,
        lr: float = 1e-3,
        min_lr: float | None = None,
        warmup_steps: int | None = None,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99),
        max_grad_norm: float | None = 1.0,
        accumulate: int = 1,
        pad_id: int | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.total_steps = whole_size("LanguageModelTrainer", "total_steps", total_steps)
        ### BEGIN SOLUTION
        optimizer = AdamW(decay_groups(model, weight_decay), lr=lr, betas=betas)
        rising = total_steps // 20 if warmup_steps is None else warmup_steps
        rates = CosineWarmupLR(optimizer, rising, total_steps, lr / 10 if min_lr is None else min_lr)
        rest: dict[str, Any] = {"max_grad_norm": max_grad_norm, "accumulate": accumulate, "callbacks": callbacks}
        super().__init__(model, LanguageModelLoss(pad_id), optimizer, scheduler=rates, **rest)
        ### END SOLUTION

    def fit(
        self, loader: Iterable[Batch], epochs: int | None = None, validation: Iterable[Batch] | None = None
    ) -> dict[str, list[float]]:
        """As ``Trainer.fit``; without ``epochs``, as many as ``total_steps`` take, for which the loader has a length."""
        if epochs is None:
            if not isinstance(loader, Sized):
                raise ValueError("fit: this loader has no length, so say how many epochs")
            epochs = math.ceil(self.total_steps / math.ceil(len(loader) / self.accumulate))
        return super().fit(loader, epochs, validation)

    def train_step(self, group: Sequence[Batch]) -> None:
        """One optimizer step on the batches of ``group``, in which every target weighs the same."""
        self.model.zero_grad()
        self.watch(group, accumulate_by_tokens(self.model, self.loss, group))
        super().update()

    def note(self, averages: dict[str, Average], outputs: Any, targets: Any, loss: float) -> None:
        """Add the loss of a batch to the averages, with the number of targets that count as its weight."""
        ### BEGIN SOLUTION
        averages.setdefault("loss", Average()).add(loss, self.loss.count(targets, outputs.shape[-2]))
        ### END SOLUTION

    def averages_so_far(self) -> dict[str, float]:
        """The means of the epoch that runs: "loss" and "perplexity", and the rate of its last step as "lr"."""
        return self.with_perplexity(super().averages_so_far())

    def evaluate(self, loader: Iterable[Batch]) -> dict[str, float]:
        """"loss" and "perplexity" over all targets of ``loader``, in evaluation mode; see ``Trainer.evaluate``."""
        return self.with_perplexity(super().evaluate(loader))

    def with_perplexity(self, values: dict[str, float]) -> dict[str, float]:
        """``values`` with the perplexity that belongs to its "loss"."""
        ### BEGIN SOLUTION
        return values | {"perplexity": perplexity(values["loss"])} if "loss" in values else values
        ### END SOLUTION

    def state_dict(self) -> dict[str, Any]:
        """As ``Trainer.state_dict``, with the model's config."""
        return super().state_dict() | {"config": asdict(self.model.config)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``Trainer.load_state_dict``; ValueError as well if the state is that of a model with another config."""
        ours = asdict(self.model.config)
        theirs = state.get("config", ours)
        other = [f"{name} {theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value]
        if other:
            raise ValueError(f"the state does not fit this trainer: it is of a model with {', '.join(other)}")
        super().load_state_dict(state)

# %% [markdown]
# The test needs to look into each step, so a callback notes the rates:

# %% nbgrader={"grade": false, "grade_id": "tinygpt-rates", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_batch_end(self, trainer):
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-trainer", "locked": true, "points": 11, "schema_version": 3, "solution": false, "task": false}
def language_trainer(total_steps=20, **options):
    manual_seed(3)
    return LanguageModelTrainer(TinyGPT(TinyGPTConfig(9, 12, 1, 2, 4)), total_steps, **options)


def cosine_rates(top, bottom, warmup, total, steps):
    """The rate after each of these steps."""
    rising = [top * (t + 1) / (warmup + 1) for t in range(warmup)]
    falling = [bottom + (top - bottom) * (1 + math.cos(math.pi * t / (total - warmup))) / 2 for t in range(total - warmup + 1)]
    return (rising + falling)[1 : steps + 1]


def test_trainer():
    text = np.random.default_rng(0).integers(1, 9, size=300)
    windows = training_windows(text, 12, batch_size=2, batches=5)
    for options, rates in [
        ({}, cosine_rates(1e-3, 1e-4, 1, 20, 20)),
        ({"lr": 0.5, "min_lr": 0.2, "warmup_steps": 7}, cosine_rates(0.5, 0.2, 7, 20, 20)),
        ({"lr": 0.5, "min_lr": 0.0, "warmup_steps": 0}, cosine_rates(0.5, 0.0, 0, 20, 20)),
    ]:
        watch = Rates()
        trainer = language_trainer(callbacks=[watch], **options)
        trainer.fit(windows)
        assert trainer.step == 20, f"without epochs, fit takes total_steps, 20 here; it took {trainer.step}"
        why = f"warm-up, then a cosine, with {options}"
        close(watch.rates, rates, rtol=1e-4, atol=1e-9, what="rates after each step", why=why)
    trainer = language_trainer(410)
    groups = trainer.optimizer.param_groups
    close(groups[0]["lr"], 1e-3 / 21, rtol=1e-4, atol=0, what="first rate of 410 steps", why="by default 20 of them warm up")
    close([group["weight_decay"] for group in groups], [0.1, 0.0], what="weight_decay", why="matrices decay, vectors do not")
    assert type(trainer.optimizer).__name__ == "AdamW", f"expected AdamW, got {type(trainer.optimizer).__name__}"
    close([list(group["betas"]) for group in groups], [[0.9, 0.99]] * 2, what="betas")
    told = language_trainer(weight_decay=0.3, betas=(0.8, 0.9), max_grad_norm=0.25, accumulate=3, pad_id=7)
    close(told.optimizer.param_groups[0]["weight_decay"], 0.3, what="weight_decay=0.3")
    close(list(told.optimizer.param_groups[0]["betas"]), [0.8, 0.9], what="betas=(0.8, 0.9)")
    close([trainer.max_grad_norm, told.max_grad_norm], [1.0, 0.25], what="max_grad_norm, by default and given")
    assert told.loss.pad_id == 7 and told.accumulate == 3, "hand pad_id to the loss and accumulate to the trainer"

    padded = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 1, 2], [3, 4, 0, 0, 0], [5, 6, 0, 0, 0], [2, 0, 0, 0, 0], [8, 1, 2, 0, 0]])
    batches = [(Tensor(part[:, :-1]), Tensor(part)) for part in (padded[:2], padded[2:4], padded[4:])]
    trainer = language_trainer(pad_id=0)
    rng = np.random.default_rng(4)
    state = trainer.model.state_dict()
    trainer.model.load_state_dict({name: rng.normal(size=array.shape) for name, array in state.items()})
    each = np.concatenate([losses_by_hand(trainer.model(x).data, np.array(ids.tolist()), 0) for x, ids in batches])
    found = trainer.evaluate(batches)
    assert sorted(found) == ["loss", "perplexity"], f"expected loss and perplexity, got {sorted(found)}"
    close(found["loss"], each.mean(), rtol=1e-4, what="loss of three batches", why="the mean over the targets that count")
    why = "exp of the mean loss, not the mean of exps"
    close(found["perplexity"], math.exp(each.mean()), rtol=1e-3, what="perplexity of three batches", why=why)
    assert trainer.averages_so_far() == {}, "before the first batch there is nothing to tell"
    history = trainer.fit(batches, epochs=2, validation=batches)
    for name in ("", "val_"):
        want = np.exp(history[f"{name}loss"])
        close(history[f"{name}perplexity"], want, rtol=1e-4, what=f"{name}perplexity", why=why)
    ### BEGIN HIDDEN TESTS
    top, low = (float(rate) for rate in np.random.default_rng().uniform(0.1, 1, size=2) * [1, 0.1])
    notes = Rates()
    bench = language_trainer(30, lr=top, min_lr=low, warmup_steps=4, callbacks=[notes])
    bench.fit(windows, epochs=2)
    close(notes.rates, cosine_rates(top, low, 4, 30, 10), rtol=1e-4)
    close(bench.with_perplexity({"loss": top, "lr": low})["perplexity"], math.exp(top))
    ### END HIDDEN TESTS


test_trainer()

# %% [markdown]
# ## 5. From tokens to text
#
# Module 15 gives tokens one by one. To read along, they have to become text as they come, and two things go wrong
# there.
#
# The first: a token need not be whole characters. Byte-level tokens may end in the middle of one: "é" is two bytes, a
# rabbit four. Who decodes each token by itself shows `��`. So half a character has to wait until its rest has come.
#
# ### Exercise: `whole_characters`
#
# (`Faucet` is for the tests: it counts how many pieces were asked for.)

# %% nbgrader={"grade": false, "grade_id": "tinygpt-faucet", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Faucet:
    def __init__(self, pieces):
        self.pieces, self.asked = pieces, 0

    def __iter__(self):
        for piece in self.pieces:
            self.asked += 1
            yield piece

# %%
spelled = BPETokenizer().encode("café 🐇")
print("".join(BPETokenizer().decode([token]) for token in spelled))

# %% nbgrader={"grade": false, "grade_id": "tinygpt-characters", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def whole_characters(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text of ``chunks`` of UTF-8, piece by piece as they come; a character is given when its last byte is there.

    Bytes that are no UTF-8 become U+FFFD, also what is left of a character at the end. No piece is empty.

    TODO: Feed the chunks to a decoder that remembers half characters.

    APPROACH:
    1. `codecs.getincrementaldecoder("utf-8")(errors="replace")` makes one.
    2. `decoder.decode(chunk)` gives what is complete by now, maybe nothing.
    3. After the last chunk, `decoder.decode(b"", final=True)` gives what is left.

    EXAMPLE:
    >>> list(whole_characters([b"caf", b"\\xc3", b"\\xa9 "]))
    ['caf', 'é ']

    HINT: Yield at once what there is: whoever reads along does not want to wait for the end.
    """
    ### BEGIN SOLUTION
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for chunk in chunks:
        if complete := decoder.decode(chunk):
            yield complete
    if rest := decoder.decode(b"", final=True):
        yield rest
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-characters", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_characters():
    for chunks, want in [
        ([b"caf", b"\xc3", b"\xa9 "], ["caf", "é "]),
        ([bytes([b]) for b in "né🐇!".encode()], ["n", "é", "🐇", "!"]),
        ([b"a", b"", b"b"], ["a", "b"]),
        ([b"\xc3\xa9\xc3", b"\xa9"], ["é", "é"]),
        ([b"x\xf0\x9f"], ["x", "\ufffd"]),
        ([b"\xff", b"y"], ["\ufffd", "y"]),
        ([], []),
    ]:
        got = list(whole_characters(chunks))
        assert got == want, f"{chunks}: expected {want}, got {got}"
    slow = Faucet([b"o", b"n", b"e"])
    first = next(iter(whole_characters(slow)))
    assert first == "o" and slow.asked == 1, f"the first piece comes after the first chunk; {slow.asked} were asked for"
    ### BEGIN HIDDEN TESTS
    text = "".join(chr(int(code)) for code in np.random.default_rng().integers(0x20, 0xD7FF, size=40))
    places = [0, *sorted(np.random.default_rng().integers(0, len(text.encode()), size=15).tolist()), None]
    pieces = [text.encode()[a:b] for a, b in pairwise(places)]
    told = list(whole_characters(pieces))
    assert "".join(told) == text and all(told), f"expected {text!r} in pieces that are not empty, got {told!r}"
    ### END HIDDEN TESTS


test_characters()

# %% [markdown]
# The second: where to stop. "Until the speech is over" means until an empty line, that is two line breaks, which may be
# two tokens or three. When one line break has come, it may be the first half of a stop, and must not be shown yet. So
# hold back the longest ending that could still become a stop, and show all before it.
#
# ### Exercise: `until_stop`

# %% nbgrader={"grade": false, "grade_id": "tinygpt-stop", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of one of ``stops``.

    EXAMPLE:
    >>> held_back("the end\\n", ["\\n\\n", "\\nKING"])
    1
    """
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max(lengths, default=0)


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The text of ``pieces`` up to the first of ``stops``, which is not given; nothing more is asked for then.

    What can no longer become part of a stop is given at once. No piece is empty.

    TODO: Collect, cut at a stop, and give what is safe.

    APPROACH:
    1. Add each piece to what was held back before.
    2. If a stop is in it: give what stands before the first one, and return.
    3. Else give all but the last `held_back(text, stops)` characters, and hold those back.
    4. After the last piece, give what is still held.

    EXAMPLE:
    >>> list(until_stop(["Exit", ".\\n", "\\n", "KING"], ["\\n\\n"]))
    ['Exit', '.']

    HINT: `text.find(stop)` is -1 if it is not there. With several stops, the one that begins first counts.
    """
    ### BEGIN SOLUTION
    waiting = ""
    for arrived in pieces:
        waiting += arrived
        stopped_at = [waiting.find(stop) for stop in stops if stop in waiting]
        safe = min(stopped_at) if stopped_at else len(waiting) - held_back(waiting, stops)
        if safe:
            yield waiting[:safe]
        if stopped_at:
            return
        waiting = waiting[safe:]
    if waiting:
        yield waiting
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-stop", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_until_stop():
    for pieces, stops, want in [
        (["Exit", ".\n", "\n", "KING"], ["\n\n"], ["Exit", "."]),
        (["a\n", "b\n", "\nc"], ["\n\n"], ["a", "\nb"]),
        (["a\n"], ["\n\n"], ["a", "\n"]),
        (["abc", "def"], [], ["abc", "def"]),
        (["abcdef"], ["ef", "cd", "x"], ["ab"]),
        (["ab", "ab", "abc", "d"], ["ababc"], ["ab"]),
        (["stop"], ["stop"], []),
        (["x", "", "y"], ["z"], ["x", "y"]),
        (["one K", "I", "TE"], ["KING", "KID"], ["one ", "KITE"]),
    ]:
        got = list(until_stop(pieces, stops))
        assert got == want, f"{pieces} until {stops}: expected {want}, got {got}"
    long = Faucet(["ab"] * 50)
    assert list(until_stop(long, ["ba"])) == ["a"], "abab until ba is a"
    assert long.asked == 2, f"after a stop nothing more is asked for; 2 pieces were needed, {long.asked} were asked for"
    ### BEGIN HIDDEN TESTS
    drawn = "".join("ab\n"[int(n)] for n in np.random.default_rng().integers(0, 3, size=60))
    stop = drawn[40:44]
    parts = [drawn[i : i + 3] for i in range(0, 60, 3)]
    told = list(until_stop(parts, [stop]))
    assert "".join(told) == drawn[: drawn.find(stop)] and all(told), f"{parts} until {stop!r}: got {told}"
    ### END HIDDEN TESTS


test_until_stop()

# %% [markdown]
# ### Exercise: `TextGenerator`
#
# Text in, text out. The prompt is checked before anything is computed: an empty one gives the model nothing to go on,
# and a character that the tokenizer does not know would become the token "unknown", about which the model has learned
# nothing; without a word, it would write on after another prompt than yours.

# %% nbgrader={"grade": false, "grade_id": "tinygpt-generator", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TextGenerator:
    """Writes text with a model and the tokenizer whose ids it was trained on.

    Parameters
    ----------
    model
        A ``Transformer``, such as ``TinyGPT``.
    tokenizer
        A ``CharTokenizer`` or ``BPETokenizer``, or what has their ``encode``, ``decode`` and ``vocab_size``.

    Raises
    ------
    ValueError
        If the two differ in their number of tokens.

    TODO: Fill in the blanks: `prompt_ids`, `stream` and `generate`.

    APPROACH:
    1. `prompt_ids`: encode. If there are no ids, ValueError "TextGenerator: the prompt is empty; begin with something, if
       only a line break".
    2. The characters of the prompt that do not come back if they are encoded and decoded alone; if there are any,
       ValueError f"TextGenerator: the tokenizer does not know {...}", with the repr of each, once, in sorted order.
    3. `stream`: the ids of the prompt, then the tokens of module 15's `stream`, whose last one may be a stop token, which is
       no text; `token_bytes` of each, `whole_characters`, `until_stop`.
    4. `generate`: all pieces joined.

    EXAMPLE:
    >>> writer = TextGenerator(model, tokenizer)
    >>> writer.generate("ROMEO:", 200, sampling=Sampling(temperature=0.8, seed=1), stop="\\n\\n")

    HINT: `stream` is an ordinary function that *returns* an iterator, so a bad prompt fails when it is called.
    `(f(x) for x in xs)` is an iterator, too.
    """

    def __init__(self, model: Transformer, tokenizer: Any) -> None:
        if tokenizer.vocab_size != model.vocab_size:
            both = f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.vocab_size}"
            raise ValueError(f"TextGenerator: {both}; a model reads only the ids it was trained on")
        self.model, self.tokenizer = model, tokenizer

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 of one token, which may be a part of a character."""
        if hasattr(self.tokenizer, "decode_bytes"):
            return bytes(self.tokenizer.decode_bytes([token]))
        return str(self.tokenizer.decode([token])).encode()

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids of ``prompt``; ValueError if it is empty or has characters that the tokenizer does not know."""
        ### BEGIN SOLUTION
        begun: list[int] = self.tokenizer.encode(prompt)
        if not begun:
            raise ValueError("TextGenerator: the prompt is empty; begin with something, if only a line break")
        there_and_back = {mark: self.tokenizer.decode(self.tokenizer.encode(mark)) for mark in prompt}
        strange = sorted(mark for mark, back in there_and_back.items() if back != mark)
        if strange:
            raise ValueError(f"TextGenerator: the tokenizer does not know {', '.join(map(repr, strange))}")
        return begun
        ### END SOLUTION

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 200,
        *,
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
    ) -> Iterator[str]:
        """What follows ``prompt``, piece by piece as it is written; the pieces joined are what ``generate`` gives.

        Parameters
        ----------
        prompt
            What the text begins with; it is not repeated.
        max_new_tokens
            How many tokens are written at most.
        sampling
            How tokens are chosen.
        stop
            A text, or several, at the first of which writing ends; it is not given.
        stop_tokens
            Ids at which writing ends.

        Raises
        ------
        TypeError, ValueError
            If the prompt is no text, empty or not known; and see module 15's ``stream``.
        """
        stops = [stop] if isinstance(stop, str) else list(stop)
        ### BEGIN SOLUTION
        tokens = stream(self.model, self.prompt_ids(prompt), max_new_tokens, sampling=sampling, stop_tokens=stop_tokens)
        spoken = (self.token_bytes(token) for token in tokens if token not in stop_tokens)
        return until_stop(whole_characters(spoken), stops)
        ### END SOLUTION

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 200,
        *,
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
    ) -> str:
        """What follows ``prompt``; see ``stream``."""
        ### BEGIN SOLUTION
        return "".join(self.stream(prompt, max_new_tokens, sampling=sampling, stop=stop, stop_tokens=stop_tokens))
        ### END SOLUTION

# %% [markdown]
# For the test, a model with a fixed mind: after each token of a round comes the next one. All its weights are 0 but the
# two tables, so what it reads last is all that counts.

# %% nbgrader={"grade": false, "grade_id": "tinygpt-parrot", "locked": true, "schema_version": 3, "solution": false, "task": false}
def parrot(tokenizer, text):
    """A model that goes through ``text`` over and over; each of its tokens occurs there once."""
    size, ids = tokenizer.vocab_size, tokenizer.encode(text)
    model = TinyGPT(TinyGPTConfig(size, 16, 1, 1, size, hidden_dim=1, tie_weights=False))
    state = {name: np.zeros(array.shape) for name, array in model.state_dict().items()}
    state["norm.weight"] += 1
    state["token_embedding.weight"] += np.eye(size)
    state["head.weight"][np.roll(ids, -1), ids] = 1
    model.load_state_dict(state)
    return model

# %% nbgrader={"grade": true, "grade_id": "test-tinygpt-generator", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_generator():
    letters = CharTokenizer("abcd\n")
    greedy = Sampling(temperature=0)
    writer = TextGenerator(parrot(letters, "abc\nd"), letters)
    for prompt, count, options, want in [
        ("a", 7, {}, "bc\ndabc"),
        ("dac", 3, {}, "\nda"),
        ("a", 0, {}, ""),
        ("a", 7, {"stop": "\n"}, "bc"),
        ("a", 7, {"stop": ["da", "\nx"]}, "bc\n"),
        ("a", 40, {"stop": "aa"}, ("bc\nda" * 8)),
        ("a", 8, {"stop": "zz", "stop_tokens": letters.encode("d")}, "bc\n"),
    ]:
        got = writer.generate(prompt, count, sampling=greedy, **options)
        assert got == want, f"generate({prompt!r}, {count}, {options}): expected {want!r}, got {got!r}"
    pieces = list(writer.stream("a", 4, sampling=greedy))
    assert pieces == ["b", "c", "\n", "d"], f"stream gives a piece for each token here, got {pieces}"
    pieces = list(writer.stream("a", 6, sampling=greedy, stop=["da", "x"]))
    assert pieces == ["b", "c", "\n"], f"with a stop, what may belong to it is held back; got {pieces}"
    assert len(writer.generate("a", sampling=greedy)) == 200, "by default 200 tokens"
    bare = BPETokenizer()
    rabbit = TextGenerator(parrot(bare, "é🐇!"), bare)
    pieces = list(rabbit.stream("é", 7, sampling=greedy))
    assert pieces == ["🐇", "!", "é"], f"bytes wait until their character is complete, got {pieces}"
    half = rabbit.generate("é", 2, sampling=greedy)
    assert half == "\ufffd", f"half a rabbit at the end is one U+FFFD, got {half!r}"
    drawn = [writer.generate("a", 30, sampling=Sampling(temperature=50.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2], "hand the sampling on: a seed repeats a text, another gives another"
    for call in (writer.generate, writer.stream):
        with raises(ValueError, "empty", "line break"):
            call("", 5)
        with raises(ValueError, "does not know", "'?', 'é'", why="name each character once, sorted; before writing begins"):
            call("ab?é?", 5)
    with raises(TypeError, "str"):
        writer.generate(5)
    with raises(ValueError, "260", "256"):
        TextGenerator(parrot(bare, "x"), BPETokenizer(special_tokens=["a", "b", "c", "d"]))
    ### BEGIN HIDDEN TESTS
    order = "".join(np.random.default_rng().permutation(list("abcd\n")).tolist())
    teller = TextGenerator(parrot(letters, order), letters)
    told = teller.generate(order[2], 9, sampling=greedy)
    assert told == (order * 3)[3:12], f"a round of {order!r}, from {order[2]!r}: expected {(order * 3)[3:12]!r}, got {told!r}"
    assert teller.generate(order[0], 9, sampling=greedy, stop=[order[3:]]) == order[1:3]
    ### END HIDDEN TESTS


test_generator()

# %% [markdown]
# ### Samples while training
#
# The loss tells how a model is doing, a sample tells what. This callback writes one every so often. It draws from a
# generator of its own (`Sampling(seed=...)`), so that a run with samples trains the same model as one without.

# %%
#| export
class SampleWriter(Callback):
    """Writes a sample at the start, and then every so many epochs or steps; training is not disturbed by it.

    Parameters
    ----------
    generator
        What writes.
    prompt, max_new_tokens, sampling
        See ``TextGenerator.stream``. With a seed in ``sampling`` all samples are drawn alike; without, they take numbers
        from the default generator, and training goes on with others.
    every_epochs, every_steps
        How often; None for not at all.
    show
        Called with each text that is to be shown.

    Attributes
    ----------
    samples
        Pairs of the number of steps, and the text after the prompt.
    """

    def __init__(
        self,
        generator: TextGenerator,
        prompt: str = "\n",
        max_new_tokens: int = 100,
        sampling: Sampling = Sampling(temperature=0.8, seed=0),  # noqa: B008
        *,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        show: Callable[[str], object] = print,
    ) -> None:
        for name, number in (("every_epochs", every_epochs), ("every_steps", every_steps)):
            if number is not None:
                whole_size("SampleWriter", name, number)
        self.generator, self.prompt, self.max_new_tokens, self.sampling = generator, prompt, max_new_tokens, sampling
        self.every_epochs, self.every_steps, self.show = every_epochs, every_steps, show
        self.samples: list[tuple[int, str]] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        """The sample to compare with."""
        self.write(trainer)

    def on_batch_end(self, trainer: Trainer) -> None:
        """Write one, if it is time."""
        if self.every_steps is not None and trainer.step % self.every_steps == 0:
            self.write(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write one, if it is time."""
        if self.every_epochs is not None and trainer.epoch % self.every_epochs == 0:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """One sample."""
        text = self.generator.generate(self.prompt, self.max_new_tokens, sampling=self.sampling)
        self.samples.append((trainer.step, text))
        self.show(f"--- step {trainer.step}\n{self.prompt}{text}")

# %% [markdown]
# ## 6. Shakespeare
#
# Eight plays, 1.1 million characters. The last tenth is kept for validation: another part of the text, not windows in
# between, since windows overlap.
#
# The model is a small one, so that it fits into your evening: 64 wide, two layers. Three lines to compare with, all
# counted from the training text: knowing nothing, knowing how frequent each character is, and knowing how
# frequent each character is *after the one before it*.

# %%
border = len(ids) * 9 // 10
train_ids, test_ids = ids[:border], ids[border:]
singles = np.bincount(train_ids, minlength=67) + 0.01
pairs = np.bincount(train_ids[:-1].astype(int) * 67 + train_ids[1:], minlength=67 * 67).reshape(67, 67) + 0.01
by_frequency = -np.log((singles / singles.sum())[test_ids]).mean()
by_pair = -np.log((pairs / pairs.sum(axis=1, keepdims=True))[test_ids[:-1], test_ids[1:]]).mean()
levels = {"knows nothing": math.log(67), "knows frequencies": by_frequency, "knows pairs": by_pair}
for label, level in levels.items():
    print(f"{label:18} loss {level:.3f}, perplexity {math.exp(level):5.1f}")

# %%
STEPS, EPOCHS = 400, 4
manual_seed(1)
model = TinyGPT(TINY)
writer = TextGenerator(model, tokenizer)
samples = SampleWriter(writer, "ROMEO:\n", 70, every_epochs=1)
trainer = LanguageModelTrainer(model, STEPS, lr=4e-3, callbacks=[samples])
begin = time.perf_counter()
history = trainer.fit(
    training_windows(train_ids, 64, batch_size=12, batches=STEPS // EPOCHS),
    validation=validation_windows(test_ids[:10_000], 64),
)
print(f"{time.perf_counter() - begin:.1f} s")

# %%
figure, axes = plt.subplots(figsize=(6.5, 3.2))
steps = np.arange(1, EPOCHS + 1) * STEPS // EPOCHS
axes.plot(steps, history["loss"], "o-", label="training, mean over the epoch")
axes.plot(steps, history["val_loss"], "o-", label="validation")
for label, level in levels.items():
    axes.axhline(level, color="grey", linestyle="--", linewidth=1)
    axes.text(STEPS, level + 0.03, f"{label}: perplexity {math.exp(level):.0f}", ha="right", fontsize=8)
axes.set_xlim(0, STEPS + 10)
axes.set_ylim(2.2, 4.5)
axes.set_xlabel("step")
axes.set_ylabel("loss")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.02, 0.68))
plt.tight_layout()
plt.show()
print("perplexity on validation:", ", ".join(f"{value:.1f}" for value in history["val_perplexity"]))

# %%
for piece in writer.stream("KING LEAR:\n", 300, sampling=Sampling(temperature=0.7, seed=4), stop="\n\n"):
    print(piece, end="", flush=True)

# %% [markdown]
# From a perplexity of 67 to 10.0 on text that it has never seen. The model passes the line of the pairs (11.7), so it
# uses more than the last character. Look at the samples: at first any sign of the keyboard (a � is the token
# "unknown"); after 100 steps letters and spaces in their right shares; after 400, capitals and a colon where a speaker
# is named, and words that could be English. The model would fit on a floppy disk, three times.
#
# The validation loss is *below* that of training. Module 08 asked why: the training loss is a mean over an epoch, at
# whose beginning the model was worse.
#
# What it cannot do yet is spell, let alone mean anything. The fifth milestone trains four layers, 128 wide, for 2,000
# steps.
#
# ## 7. Where it came from
#
# Now the prediction from the beginning. Python can tell which lines run (`sys.settrace`). We have a TinyGPT made,
# trained for two steps and evaluated, let it write ten characters, and note every line of `tinytorch`, and of this notebook,
# that runs inside a function. The head of each file of the package names its module: 1 to 8 are Part I, 9 and 10
# vision.

# %%
import re
import sys
from collections import Counter
from pathlib import Path


def file_number(path):
    """The number of the module that a file of the package was made from; 16 for a cell of this notebook."""
    if Path(path).parts[-3:-1] != ("tinytorch", "core"):
        return 16
    return int(re.search(r"modules/(\d+)_", Path(path).read_text(encoding="utf-8"))[1])


def lines_run(action):
    """The lines, as pairs (file, number), that ``action()`` runs in functions of tinytorch and of this notebook."""
    met = set()

    def follow(frame, event, _):
        if not frame.f_globals["__name__"].startswith(("tinytorch.core", "__main__")):
            return None
        met.add((frame.f_code.co_filename, frame.f_lineno))
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        action()
    finally:
        sys.settrace(before)
    return met


def train():
    model = TinyGPT(TINY)
    LanguageModelTrainer(model, 2).fit(
        training_windows(train_ids, 64, 4, 2), validation=validation_windows(test_ids[:300], 64)
    )


def write():
    TextGenerator(TinyGPT(TINY), tokenizer).generate("A", 10)


def by_module(lines):
    numbers = {path: file_number(path) for path in {path for path, _ in lines}}
    return Counter(numbers[path] for path, _ in lines)


in_training, in_writing = lines_run(train), lines_run(write)
training, all_lines = by_module(in_training), by_module(in_training | in_writing)
names = {file_number(path): Path(path).stem for path, _ in in_training | in_writing} | {16: "tinygpt"}
figure, axes = plt.subplots(figsize=(7, 3.4))
for part, first, last in (("Part I", 1, 8), ("Part II", 9, 10), ("Part III", 11, 16)):
    rows = [number for number in sorted(all_lines) if first <= number <= last]
    axes.barh([f"{n:02} {names[n]}" for n in rows], [all_lines[n] for n in rows], label=part)
axes.invert_yaxis()
axes.set_xlabel("lines that run")
axes.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.42))
axes.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()
for label, counts in (("training", training), ("training and writing", all_lines)):
    old = sum(count for number, count in counts.items() if number <= 10)
    total = sum(counts.values())
    print(f"{label:21} {total} lines, {old / total:.0%} of them from Parts I and II; "
          f"without this module's {old / (total - counts[16]):.0%}")

# %% [markdown]
# Of the lines that run in training, 69 % are from Parts I and II, three quarters if this module is not counted: two
# thirds of a language model were ready before the first word about language. The same `Linear`, `Module`, `AdamW`,
# `Trainer` and `DataLoader` that read digits now read Shakespeare. With writing it is 57 %, since choosing tokens and
# keeping keys and values is of no use to pictures.
#
# ## 8. Other people's weights
#
# `TinyGPT` has the parameters of `Transformer`, so what fits that one fits this: `from_gpt2` of module 14 translates
# the names of GPT-2's weights, the README there lists them, and TinyTorch's tests move the weights of networks built in
# PyTorch and get the same logits. GPT-2 small is a config of one line, and needs half a gigabyte:

# %%
GPT2 = TinyGPTConfig(vocab_size=50_257, max_seq_length=1024, num_layers=12, num_heads=12, embed_dim=768)
# TinyGPT(GPT2).load_state_dict(from_gpt2(arrays_by_name)), with `arrays_by_name` from the published file

sizes = transformer_size(50_257, GPT2.embed_dim, GPT2.num_layers, GPT2.feed_forward_dim, GPT2.max_seq_length, True)
f"{sum(sizes.values()):,} parameters, {sum(sizes.values()) * 4 / 1e6:.0f} MB"

# %% [markdown]
# ## What you have built
#
# `TinyGPTConfig` and `TinyGPT`, with `save` and `load`; `LanguageModelLoss`, which shifts and leaves out padding;
# `TextWindows`, `FirstBatches` and the loaders made of them; `LanguageModelTrainer` with `decay_groups`,
# `accumulate_by_tokens` and perplexity; `TextGenerator`, `whole_characters`, `until_stop` and `SampleWriter`.
#
# In the terminal: `tito module complete 16`, then `tito milestone list`: the fifth milestone trains a larger model.
# This is the end of Part III. Your framework began with adding two arrays, and now it writes.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "tinygpt-reflect-perplexity-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Two perplexities.** A model over 67 characters reports a validation perplexity of 5.0; another one, over 4,000
# byte-pair tokens of about 3.2 characters each, reports 60 on the same text. Which one predicts the text better? Show
# the calculation. Then say why 5.0 measured on windows of 64 and on windows of 256 of the same text need not agree.
#
# === BEGIN MARK SCHEME ===
# 1 point: compares per character (or bits): ln 5 = 1.609 against ln 60 / 3.2 = 1.279 nats. 1 point: so the second, 3.6
# per character. 1 point: the first tokens of each window have little context; longer windows have fewer such positions.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tinygpt-reflect-perplexity", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Perplexity is per token, and tokens differ, so both must be brought to characters. The first has ln 5 = 1.61 nats a
# character. The second has ln 60 = 4.09 nats a token, and a token is 3.2 characters: 1.28 nats a character, a
# perplexity of 3.6. The second predicts the text better. In each window the first positions are predicted from almost
# nothing; in windows of 64 that is a larger share of all positions than in windows of 256, so the longer ones give a
# lower number.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "tinygpt-reflect-too-good-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Too good.** A colleague's character model reaches a training and validation loss of 0.01 within an hour, and writes
# "the the" forever, or the same letter. Name three different mistakes in data, loss or model that would explain such a
# loss, and for each a check that takes a minute. Which loss would you take for good news instead?
#
# === BEGIN MARK SCHEME ===
# 2 points: three of: no shift; no causal mask; validation text contained in the training text or overlapping windows;
# the mean divided by all positions with most of them padding; each with a check. 1 point: below the pair statistics
# (2.4) but above about 1 nat a character, with samples that read accordingly.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tinygpt-reflect-too-good", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The shift is missing, so the model copies what it reads: print the first inputs beside the first targets. The mask is
# not causal, so it reads the answer: change the last token and see whether logits before it change. The validation
# windows lie in the training text: look for them there. (Or the loss is divided by padded positions: count the
# targets.) Good news is a loss below that of pair statistics, 2.46 here, and still well above 0: English is not that
# predictable, and even large models stay near one bit a character.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "tinygpt-reflect-budget-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **One night.** You have eight hours, one million characters, and the timings of your own run. Would you train the
# small model for longer, or a model of four times the parameters? Estimate with your own numbers how many steps each
# can do, how often each sees every character, and say what you would watch to notice that you chose wrongly.
#
# === BEGIN MARK SCHEME ===
# 1 point: steps from the measured seconds a step; the larger model about 4 times slower. 1 point: tokens a step times
# steps over the length of the text. 1 point: training against validation loss: a gap means too many passes (smaller
# model, dropout), both still falling together means the model or the time is too small.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "tinygpt-reflect-budget", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# My run took about 20 ms a step: eight hours are 1.4 million steps of 12 x 64 tokens, so each character would be a
# target about 1,100 times. A model with four times the parameters does a quarter of the steps and still sees each one
# 270 times. The text is what is scarce: both would learn it by heart. So I take the larger model with dropout, stop
# when the validation loss has not improved for some epochs, and look at the gap between training and validation: if it
# opens, less model or more dropout; if both still fall together in the morning, more time or more model.
# ### END SOLUTION
