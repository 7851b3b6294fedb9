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
# # Losses
#
# > Losses: one number that says how wrong a network is, computed so that neither it nor its slope ever overflows.
#
# The network of module 04 gives ten numbers for a picture of a digit. Nine out of ten times the largest of them stands
# at the right place. Is that good, and which way should the weights turn to make it better?
#
# Counting mistakes does not help. Turn a weight by a little, and the count stays what it was, until suddenly it jumps
# by one: a staircase, whose slope is zero nearly everywhere. Training needs a hill without steps. A **loss** is such a
# hill: one number, small if the answers are good, with a slope at every place that says which way is down.
#
# ```
#    mistakes                            loss
#      |‾‾‾‾|                              \
#      |    |____                           \
#      |         |__________                 `-._
#      +----------------------> weight           `-------___ > weight
#       slope 0, 0, 0: no hint             a slope at every place
# ```
#
# Two lines of algebra make a loss. Making it so that it survives a logit of 10,000 in float32, a padded batch and a
# vocabulary of 50,000 words takes the rest of this module.
#
# Plan for about five hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.losses
#| export
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinytorch.core.layers import Module
from tinytorch.core.tensor import Array, Op, Tensor, apply, where

# %%
from collections import Counter
from itertools import pairwise

import matplotlib.pyplot as plt

from tinytorch.core.layers import Linear
from tinytorch.core.setup import measure
from tinytorch.core.tensor import from_numpy, manual_seed, randn, set_recorder

# %% [markdown]
# ## 1. From many losses to one
#
# Whatever the loss, it is first computed for each answer of a batch, and then folded into one number, or not:
#
# | `reduction` | what comes | when |
# |---|---|---|
# | `"mean"` | their mean | training: the size of the batch does not change the size of a step |
# | `"sum"` | their sum | adding up over batches of different sizes |
# | `"none"` | all of them | finding out *which* answers are bad |
#
# The mean has a trap for later. Where some answers do not count (padding), it is the sum divided by how many *do*
# count. So the function takes a `count`. And if nothing counts? A mean of nothing is no number: NaN, as in PyTorch. It
# is made by adding NaN to the sum, not by dividing by zero, so that there is no warning, and so that the gradient,
# which does not care for what is added, stays zero.
#
# ### Exercise: `reduce_losses`

# %% nbgrader={"grade": false, "grade_id": "losses-reduce", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def reduce_losses(losses: Tensor, reduction: str, count: float | None = None) -> Tensor:
    """Fold the losses of single answers into one number.

    Parameters
    ----------
    losses
        One loss for each answer, of any shape.
    reduction
        "mean", "sum" or "none".
    count
        What the mean divides by; by default how many numbers ``losses`` holds. With 0 the mean is NaN, and its
        gradient is that of the sum.

    Raises
    ------
    ValueError
        If ``reduction`` is none of the three; it names it.

    TODO: Return the losses themselves, their sum, or their sum divided by the count.

    APPROACH:
    1. A reduction that is none of the three: ValueError
       `f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}"`.
    2. "none" and "sum": return what is asked for.
    3. "mean": if no count is given, it is `losses.size`. Divide by it, or add `math.nan` if it is 0.

    EXAMPLE:
    >>> reduce_losses(Tensor([1.0, 3.0, 0.0]), "mean", count=2)
    Tensor(2.)

    HINT: A count of 0 is a count: compare with `is None`, since `count or losses.size` would replace it.
    """
    ### BEGIN SOLUTION
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "none":
        return losses
    loss_sum = losses.sum()
    if reduction == "sum":
        return loss_sum
    count = losses.size if count is None else count
    return loss_sum / count if count else loss_sum + math.nan
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-reduce", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def flows_from(x, function):
    """Whether the result of function() was computed from x, as far as the door saw it."""
    notes = []
    before = set_recorder(lambda op, inputs, arrays, attrs, out: notes.append((inputs, out)))
    try:
        behind = [function()]
    finally:
        set_recorder(before)
    for inputs, out in reversed(notes):
        if any(out is one for one in behind):
            behind.extend(inputs)
    return any(one is x for one in behind)


def test_reduce_losses():
    losses = Tensor([[1.0, 2.0], [3.0, 6.0]])
    close(reduce_losses(losses, "none").data, [[1, 2], [3, 6]], why='"none" leaves the losses as they are')
    close(reduce_losses(losses, "sum").data, 12.0, dtype=np.float32)
    close(reduce_losses(losses, "mean").data, 3.0, dtype=np.float32, why="without a count, divide by losses.size")
    close(reduce_losses(losses, "mean", 2).data, 6.0, dtype=np.float32, why="divide by the count that is given")
    close(reduce_losses(losses, "sum", 2).data, 12.0, why="a sum is not divided")
    with np.errstate(all="raise"):
        nothing = reduce_losses(losses, "mean", 0).data
        close(nothing, np.nan, dtype=np.float32, why="a count of 0 is a count; the mean of nothing is NaN")
        close(reduce_losses(Tensor(np.zeros((0, 3))), "mean").data, np.nan, why="no losses, so no mean")
    close(reduce_losses(Tensor(np.zeros((0, 3))), "sum").data, 0.0)
    for wrong in ("average", "", None):
        with raises(ValueError, repr(wrong)):
            reduce_losses(losses, wrong)
    for reduction in ("mean", "sum", "none"):
        linked = flows_from(losses, lambda: reduce_losses(losses * 2.0, reduction))  # noqa: B023
        assert linked, f"{reduction}: use tensor operations, or no gradient will flow back"
    assert flows_from(losses, lambda: reduce_losses(losses, "mean", 0)), "also if nothing counts"
    ### BEGIN HIDDEN TESTS
    drawn_losses = np.random.default_rng().uniform(1, 2, size=(3, 4, 2))
    close(reduce_losses(Tensor(drawn_losses), "mean").data, drawn_losses.mean())
    close(reduce_losses(Tensor(drawn_losses), "mean", 2.5).data, drawn_losses.sum() / 2.5)
    close(reduce_losses(Tensor(drawn_losses), "none").data, drawn_losses)
    close(reduce_losses(Tensor(drawn_losses, dtype=np.float64), "sum").data, drawn_losses.sum(), dtype=np.float64)
    ### END HIDDEN TESTS


test_reduce_losses()

# %% [markdown]
# ## 2. The table nobody asked for
#
# The oldest loss is the squared error, $(\text{prediction} - \text{target})^2$, from Legendre's orbits of comets (1805)
# to today's regressions. It is one line, and this line has ruined weeks of work. A linear layer with one output gives
# predictions of shape (200, 1). Targets, read from a file, have shape (200,). Here are *perfect* predictions.
#
# Predict: what is the loss of perfect predictions? And what is it if every prediction is simply the mean?

# %%
targets = np.random.default_rng(0).normal(size=200).astype(np.float32)
perfect, mean_only = Tensor(targets[:, None]), Tensor(np.full((200, 1), targets.mean()))
for label, prediction in {"perfect": perfect, "always the mean": mean_only}.items():
    table = (prediction - targets) ** 2
    print(f"{label:16} loss {table.mean().item():.3f}, over a table of shape {table.shape}")

# %% [markdown]
# The perfect model loses 1.848, and a model that has learned nothing loses half of that, 0.924. The 200 predictions met
# all 200 targets, so each is pulled towards all of them, and the place in the middle is the best one. Training on
# this loss runs smoothly, the loss falls, and what comes out is the mean.
#
# Broadcasting serves weights and biases well. Between answers and targets it is always a mistake. So a loss refuses it.
#
# ### Exercise: `check_same_shape` and `mse_loss`

# %% nbgrader={"grade": false, "grade_id": "losses-mse", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def check_same_shape(name: str, prediction: Any, target: Any) -> None:
    """Refuse a target whose shape is not that of the prediction, even if the two would broadcast.

    Raises
    ------
    ValueError
        Naming the loss ``name`` and both shapes.

    TODO: Compare the shapes; if they differ, raise ValueError
    `f"{name}: the prediction has shape {...}, the target {...}; they must be equal, nothing is broadcast"`.

    APPROACH:
    1. `np.shape(x)` gives the shape of a tensor, an array, a list or a number.

    EXAMPLE:
    >>> check_same_shape("mse_loss", Tensor([[1.0], [2.0]]), [1.0, 2.0])
    Traceback (most recent call last):
    ...
    ValueError: mse_loss: the prediction has shape (2, 1), the target (2,); they must be equal, nothing is broadcast

    HINT: (1,) and () hold one number each, and differ all the same.
    """
    ### BEGIN SOLUTION
    if np.shape(prediction) != np.shape(target):
        both = f"the prediction has shape {np.shape(prediction)}, the target {np.shape(target)}"
        raise ValueError(f"{name}: {both}; they must be equal, nothing is broadcast")
    ### END SOLUTION


def mse_loss(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """The squared error of each prediction, reduced.

    Parameters
    ----------
    prediction
        Floating-point numbers of any shape.
    target
        A tensor or array of the same shape.
    reduction
        "mean", "sum" or "none"; see ``reduce_losses``.

    Raises
    ------
    ValueError
        If the shapes differ, or ``reduction`` is unknown.

    TODO: Check the shapes, square the differences, reduce.

    APPROACH:
    1. The name for `check_same_shape` is "mse_loss".
    2. Compute the difference once, and multiply it by itself.

    EXAMPLE:
    >>> mse_loss(Tensor([1.0, 2.0]), [0.0, 4.0])
    Tensor(2.5)

    HINT: Tensor operations all the way: with them the gradient comes by itself in module 06.
    """
    ### BEGIN SOLUTION
    check_same_shape("mse_loss", prediction, target)
    difference = prediction - target
    return reduce_losses(difference * difference, reduction)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-mse", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_mse_loss():
    assert check_same_shape("demo", np.zeros((2, 3)), Tensor(np.zeros((2, 3)))) is None, "equal shapes: nothing happens"
    for one, two in [((2, 1), (2,)), ((2, 3), (3,)), ((1,), ()), ((2, 3), (3, 2)), ((0,), (1,))]:
        with raises(ValueError, "demo", str(one), str(two), why="name the loss and both shapes"):
            check_same_shape("demo", np.zeros(one), np.zeros(two))
    x = Tensor([[1.0, 2.0], [3.0, -1.0]])
    target = np.array([[0.0, 4.0], [3.0, 1.0]], np.float32)
    close(mse_loss(x, target, "none").data, [[1, 4], [0, 4]], dtype=np.float32)
    close(mse_loss(x, Tensor(target)).data, 2.25, dtype=np.float32, why='the default reduction is "mean"')
    close(mse_loss(x, target, reduction="sum").data, 9.0)
    with raises(ValueError, "mse_loss", "prediction has shape (2, 2)", "target (2,)"):
        mse_loss(x, target[0])
    assert flows_from(x, lambda: mse_loss(x, target)), "no .data on the way, or no gradient will flow back"
    ### BEGIN HIDDEN TESTS
    guesses, truths = np.random.default_rng().normal(size=(2, 3, 2, 4))
    squares = np.square(guesses - truths)
    close(mse_loss(Tensor(guesses), truths, "none").data, squares, dtype=np.float32, rtol=1e-4)
    close(mse_loss(Tensor(guesses, np.float64), Tensor(truths, np.float64)).data, squares.mean(), dtype=np.float64)
    with raises(ValueError, "'max'"):
        mse_loss(Tensor(guesses), truths, "max")
    ### END HIDDEN TESTS


test_mse_loss()

# %% [markdown]
# ## 3. The slope is what trains
#
# Nobody is trained by a loss; what trains is its **slope**: by how much does the loss grow if this number grows? All
# slopes together are the gradient. Module 06 computes it with rules. Until then there is a way that needs no rules and
# no thought: nudge a number to both sides, and look.
#
# $$\text{slope} \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# ### Exercise: `numerical_gradient`
#
# It will check every formula of this module.

# %% nbgrader={"grade": false, "grade_id": "losses-differences", "locked": false, "schema_version": 3, "solution": true, "task": false}
def numerical_gradient(function, x, h=1e-6):
    """The slope of function(x), which is one number, by each number of the float64 array x.

    TODO: Nudge one number after the other to both sides.

    APPROACH:
    1. An array of zeros in the shape of x collects the slopes.
    2. For each place of `np.ndindex(x.shape)`: an array of zeros but for h at this place is the nudge.
    3. The slope is the difference of the function at x plus and x minus the nudge, over 2h.

    EXAMPLE:
    >>> numerical_gradient(lambda x: float((x * x).sum()), np.array([1.0, 3.0]))
    array([2., 6.])

    HINT: `x + nudge` is a new array; x itself stays as it was.
    """
    ### BEGIN SOLUTION
    slopes = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[place] = h
        slopes[place] = (function(x + nudge) - function(x - nudge)) / (2 * h)
    return slopes
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-differences", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_numerical_gradient():
    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 4.0]])
    factors = np.array([[1.0, 10.0, 100.0], [-1.0, 5.0, 0.0]])
    got = numerical_gradient(lambda a: float((a * factors).sum()), x)
    close(got, factors, why="each number has a slope of its own, at its own place")
    close(x, [[1, -2, 0.5], [3, 0, 4]], why="x must stay as it was")
    why = "of x³ the slope over 2h is 3x² + h²: nudge to both sides, by the h that is given"
    close(numerical_gradient(lambda a: float((a**3).sum()), x, h=0.5), 3 * x * x + 0.25, why=why)
    close(numerical_gradient(lambda a: float(a) * 7.0, np.array(2.0)), 7.0, why="a single number, shape ()")
    ### BEGIN HIDDEN TESTS
    spot = np.random.default_rng().uniform(-1, 1, size=(2, 2, 3))
    close(numerical_gradient(lambda a: float(np.sin(a).sum()), spot), np.cos(spot), rtol=1e-4)
    ### END HIDDEN TESTS


test_numerical_gradient()

# %% [markdown]
# ## 4. Confidently wrong
#
# Is this picture a cat? A network answers with a **logit**, any number from −∞ to ∞, and the sigmoid turns it into a
# probability: $p = 1 / (1 + e^{-z})$. The target t is 1 (cat) or 0. Squared error would do, would it not? It is 0 for
# the right answer, 1 for the worst.
#
# Predict, for a cat with the logit −10 (the network is sure that there is none): is the slope of the squared error
# steep, because the answer is as wrong as can be, or flat?

# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def squared(z):
    return (sigmoid(z) - 1) ** 2


def surprise(z):
    return -np.log(sigmoid(z))


z = np.linspace(-10, 10, 201)
slopes = {
    name: numerical_gradient(lambda z, f=f: float(f(z).sum()), z)
    for name, f in {"squared error of p": squared, "-log p": surprise}.items()
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for f, name in ((squared, "squared error of p"), (surprise, "-log p")):
    left.plot(z, f(z), label=name)
    right.plot(z, slopes[name], label=name)
left.set_title("Loss, where the target is 1")
right.set_title("Its slope")
left.legend()
for axes in (left, right):
    axes.set_xlabel("logit")
    axes.grid(alpha=0.3)
plt.show()
for name, slope in slopes.items():
    print(f"{name:20} slope at logit -10: {slope[0]:.7f}")

# %% [markdown]
# −0.00009 against −1: eleven thousand times flatter. Where the network is most wrong, squared error teaches it next to
# nothing, since the sigmoid is flat there. The other curve, $-\log p$, undoes the sigmoid's exponential, and
# stays steep for as long as the answer is wrong. It has a meaning, too: how surprised is somebody who believed p, when
# the cat is there? Not at all if p = 1, infinitely if p = 0.
#
# For a target of either kind this is the **binary cross-entropy**: $-\big(t \log p + (1 - t) \log (1 - p)\big)$.
#
# One thing is left to decide: log 0 is −∞, and one such answer would make the mean of the whole batch infinite. PyTorch
# lets no logarithm fall below −100, and so do we.
#
# ### Exercise: `bce_forward`

# %% nbgrader={"grade": false, "grade_id": "losses-bce", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
SMALLEST_LOG = -100.0


def bce_forward(p: Any, target: Any) -> Any:
    """The binary cross-entropy of each probability, with no logarithm below ``SMALLEST_LOG``.

    Parameters
    ----------
    p
        Probabilities that the answer is yes.
    target
        What the answer is, of the same shape: 1 for yes, 0 for no, or a probability.

    Raises
    ------
    ValueError
        If the shapes differ, or a number of ``p`` is not between 0 and 1; it names the number and its place.

    TODO: Compute both logarithms, lift what is below SMALLEST_LOG, and weigh them by the target.

    APPROACH:
    1. log p is `np.log(p)`; log (1 - p) is `np.log1p(-p)`, which keeps its digits for tiny p.
    2. `np.maximum` with SMALLEST_LOG lifts what is below.
    3. Minus the sum of target times the first, and (1 - target) times the second.

    EXAMPLE:
    >>> bce_forward(np.array([0.5, 1.0]), np.array([1.0, 0.0]))
    array([  0.69314718, 100.        ])

    HINT: The block `with np.errstate(...)` keeps NumPy from warning of log 0; both logarithms belong in it.
    """
    check_same_shape("binary_cross_entropy", p, target)
    outside = np.argwhere(~((np.asarray(p) >= 0) & (np.asarray(p) <= 1)))
    if len(outside):
        place = tuple(outside[0].tolist())
        why = "is no probability; for logits there is binary_cross_entropy_with_logits"
        raise ValueError(f"binary_cross_entropy: {p[place]} at {list(place)} {why}")
    with np.errstate(divide="ignore"):
        ### BEGIN SOLUTION
        log_yes = np.maximum(np.log(p), SMALLEST_LOG)
        log_no = np.maximum(np.log1p(-p), SMALLEST_LOG)
        ### END SOLUTION
    ### BEGIN SOLUTION
    return -(target * log_yes + (1 - target) * log_no)
    ### END SOLUTION


BCE = Op("binary_cross_entropy", bce_forward)


def binary_cross_entropy(p: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """The binary cross-entropy of the probabilities ``p``, reduced; see ``bce_forward`` and ``reduce_losses``.

    Where ``p`` comes from a sigmoid, ``binary_cross_entropy_with_logits`` is exact and cheaper.
    """
    return reduce_losses(apply(BCE, p, target), reduction)

# %% nbgrader={"grade": true, "grade_id": "test-losses-bce", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_bce():
    half = math.log(2)
    close(bce_forward(np.array([0.5, 0.5]), np.array([1.0, 0.0])), [half, half], why="-log 0.5 for either target")
    want = [-math.log(0.9), -math.log(0.1), -(0.25 * math.log(0.9) + 0.75 * math.log(0.1))]
    close(bce_forward(np.full(3, 0.9), np.array([1.0, 0.0, 0.25])), want, why="t log p + (1 - t) log (1 - p), negated")
    with np.errstate(all="raise"):
        edges = binary_cross_entropy(Tensor([0.0, 1.0, 0.0, 1.0]), [1.0, 0.0, 0.0, 1.0], "none").data
    close(edges, [100, 100, 0, 0], dtype=np.float32, why="no logarithm below -100, and no warning")
    close(bce_forward(np.array([1e-12]), np.array([0.0])), [1e-12], atol=1e-15, why="np.log1p(-p) keeps the digits")
    for wrong in (-0.1, 1.5, float("nan")):
        with raises(ValueError, str(wrong), "[1, 0]"):
            bce_forward(np.array([[0.5], [wrong]]), np.array([[1.0], [1.0]]))
    with raises(ValueError, "(2, 1)", "(2,)"):
        binary_cross_entropy(Tensor([[0.5], [0.5]]), [1.0, 0.0])
    ### BEGIN HIDDEN TESTS
    chances = np.random.default_rng().uniform(0.05, 0.95, size=(3, 4))
    facts = np.random.default_rng().integers(0, 2, size=(3, 4))
    believed = np.where(facts == 1, chances, 1 - chances)
    close(bce_forward(chances, facts), -np.log(believed))
    close(binary_cross_entropy(Tensor(chances), facts).data, -np.log(believed).mean(), dtype=np.float32)
    ### END HIDDEN TESTS


test_bce()

# %% [markdown]
# ## 5. Leave out the middle
#
# A logit goes through a sigmoid, and its probability through a logarithm. Two right steps, in float32. Predict: from
# which logit on does a network that is wrong (t = 0) get a wrong loss?

# %%
logits = np.linspace(0, 40, 401, dtype=np.float32)
through_p = bce_forward(1 / (1 + np.exp(-logits)), np.zeros_like(logits))
first = logits[np.argmax(through_p > logits + 1)]

figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(logits, through_p, label="sigmoid, then log")
axes.plot(logits, np.logaddexp(0, logits), "--", label="exact")
axes.set_xlabel("logit, where the target is 0")
axes.set_ylabel("loss")
axes.set_title("float32 has no number between 1 - 6e-8 and 1")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
print(f"from logit {first:.1f} on the loss is {through_p[-1]:.0f}")

# %% [markdown]
# From logit 16.7 on the sigmoid is exactly 1, so 1 − p is 0, and the loss jumps to 100: six times too much, and flat,
# so that nobody learns. Yet the exact loss of a logit of 17 is simply 17. The information was lost in the middle, and
# the cure is never to go there. Put the sigmoid into the formula, and let algebra do it:
#
# $$-t \log \sigma(z) - (1 - t) \log (1 - \sigma(z)) \;=\; \log(1 + e^{z}) - t z$$
#
# That overflows for z = 1000. But $\log(1 + e^z) = z + \log(1 + e^{-z})$, so for a positive z we may flip the sign of
# the exponent. For both signs at once:
#
# $$\max(z, 0) - t z + \log(1 + e^{-|z|})$$
#
# The exponent is never positive: nothing can overflow. And the slope is the simplest formula there is,
# $\sigma(z) - t$: what was believed, minus what is true. For it the sigmoid itself must not overflow. With
# $e = e^{-|z|}$ it is $1/(1 + e)$ for a positive z, and $e/(1 + e)$ for a negative one.
#
# ### Exercise: `bce_with_logits_forward` and its gradient

# %% nbgrader={"grade": false, "grade_id": "losses-bce-logits", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def bce_with_logits_forward(logits: Any, target: Any) -> Any:
    """The binary cross-entropy of the sigmoid of each logit, exact for logits of any size.

    Parameters
    ----------
    logits
        Numbers of any shape.
    target
        Of the same shape: 1 for yes, 0 for no, or a probability.

    Raises
    ------
    ValueError
        If the shapes differ.

    TODO: Write the formula in this function, and its slope in the next.

    APPROACH:
    1. max(z, 0) - t z + log(1 + e), where e is e to the minus |z|.
    2. The slope is the sigmoid minus the target, with the sigmoid of the text: one of two numerators over 1 + e.

    EXAMPLE:
    >>> bce_with_logits_forward(np.array([0.0, 1000.0]), np.array([1.0, 0.0]))
    array([6.93147181e-01, 1.00000000e+03])
    >>> bce_with_logits_gradient(np.array([0.0, 1000.0]), np.array([1.0, 0.0]))
    array([-0.5,  1. ])

    HINT: `np.log1p(e)` is log(1 + e), and keeps its digits where 1 + e would be rounded to 1.
    """
    check_same_shape("binary_cross_entropy_with_logits", logits, target)
    ### BEGIN SOLUTION
    return np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
    ### END SOLUTION


def bce_with_logits_gradient(logits: Any, target: Any) -> Any:
    """The slope of ``bce_with_logits_forward`` by each logit: its sigmoid minus its target."""
    ### BEGIN SOLUTION
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, decay) / (1 + decay) - target
    ### END SOLUTION


BCE_WITH_LOGITS = Op("binary_cross_entropy_with_logits", bce_with_logits_forward)


def binary_cross_entropy_with_logits(logits: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """The binary cross-entropy of ``logits``, reduced; see ``bce_with_logits_forward`` and ``reduce_losses``."""
    return reduce_losses(apply(BCE_WITH_LOGITS, logits, target), reduction)

# %% nbgrader={"grade": true, "grade_id": "test-losses-bce-logits", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_bce_with_logits():
    z, t = np.array([[0.0, 2.0, -2.0], [3.0, -1.0, 0.5]]), np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.25]])
    p = 1 / (1 + np.exp(-z))
    close(bce_with_logits_forward(z, t), -(t * np.log(p) + (1 - t) * np.log(1 - p)), what="loss")
    close(bce_with_logits_gradient(z, t), p - t, what="gradient", why="the sigmoid minus the target")
    far, yes, no = np.array([-1e4, -30.0, 30.0, 1e4], np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        tiny = math.exp(-30)
        for target, want in ((yes, [1e4, 30, tiny, 0]), (no, [0, tiny, 30, 1e4])):
            got = bce_with_logits_forward(far, target)
            close(got, want, dtype=np.float32, atol=1e-18, what="loss", why="the exponent must never be positive")
        slope = bce_with_logits_gradient(far, no)
        close(slope, [0, tiny, 1, 1], dtype=np.float32, atol=1e-18, what="gradient", why="e/(1 + e) for z < 0")
        close(bce_with_logits_gradient(far, yes), [-1, -1, 0, 0], atol=1e-18, what="gradient")
    close(binary_cross_entropy_with_logits(Tensor([0.0, 0.0]), [1.0, 0.0]).data, math.log(2), dtype=np.float32)
    with raises(ValueError, "(2, 1)", "(2,)"):
        binary_cross_entropy_with_logits(Tensor([[0.5], [0.5]]), [1.0, 0.0])
    ### BEGIN HIDDEN TESTS
    pulses, answers = np.random.default_rng().normal(0, 3, size=(4, 3)), np.random.default_rng().random((4, 3))
    close(bce_with_logits_forward(pulses, answers), np.logaddexp(0, pulses) - pulses * answers)
    middle = (bce_with_logits_forward(pulses + 1e-5, answers) - bce_with_logits_forward(pulses - 1e-5, answers)) / 2e-5
    close(bce_with_logits_gradient(pulses, answers), middle, rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_bce_with_logits()

# %% [markdown]
# ## 6. Many classes, and the logarithm of a sum
#
# With ten classes there are ten logits, and softmax turns them into probabilities that add up to 1. The loss will be
# $-\log p$ of the right class, so it is the logarithm of the softmax that we need:
#
# $$\log p_i = z_i - \log \sum_j e^{z_j}$$
#
# Predict: what is the largest whole logit whose exponential float32 can hold? And the smallest that is not rounded to
# zero?

# %%
with np.errstate(over="ignore", under="ignore"):
    powers = np.exp(np.arange(-200, 200, dtype=np.float32))
whole = np.arange(-200, 200)
print(f"above {whole[np.isfinite(powers)].max()}: inf     below {whole[powers > 0].min()}: 0")

# %% [markdown]
# A logit of 89 is nothing special: a fresh linear layer on pixels from 0 to 255 reaches it untrained. The cure is that
# of `softmax_by_hand`. Pull out the largest logit m:
#
# $$\log \sum_j e^{z_j} \;=\; \log \Big( e^{m} \sum_j e^{z_j - m} \Big) \;=\; m + \log \sum_j e^{z_j - m}$$
#
# ```
#    z            1000   1001    990
#    z - m          -1      0    -11      no exponent is positive: no overflow
#    exp          0.37   1.00  0.00002    one of them is 1: the sum is at least 1, so its log is at least 0
# ```
#
# Taking the log of a finished softmax is not the same. There 0.00002 may have become 0 already, and its log −∞.
#
# ### Exercise: `log_softmax_forward`

# %% nbgrader={"grade": false, "grade_id": "losses-log-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def log_softmax_forward(x: Array, axis: int = -1) -> Array:
    """The logarithm of the softmax along ``axis``, of the shape of ``x``; exact for logits of any size.

    TODO: Shift, so that the largest number along the axis is 0, then subtract the logarithm of the sum.

    APPROACH:
    1. `shifted` is x minus its maximum along the axis.
    2. Subtract the log of the sum of the exponentials of `shifted`.

    EXAMPLE:
    >>> log_softmax_forward(np.array([1000.0, 1000.0]))
    array([-0.69314718, -0.69314718])

    HINT: `keepdims=True`, both times. Compute m + log(...) nowhere: 10000 + 0.69 has lost its digits in float32.
    """
    ### BEGIN SOLUTION
    shifted = x - x.max(axis=axis, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return log_p
    ### END SOLUTION


LOG_SOFTMAX = Op("log_softmax", log_softmax_forward)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of the softmax of ``x`` along ``axis``; see ``log_softmax_forward``."""
    return apply(LOG_SOFTMAX, x, axis=axis)

# %% nbgrader={"grade": true, "grade_id": "test-losses-log-softmax", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_log_softmax():
    x = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [-1.0, 5.0, 2.0]])
    for axis in (0, 1, -1):
        want = np.log(np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True))
        close(log_softmax_forward(x, axis), want, what=f"axis {axis}", why="keepdims=True, and the axis that is asked")
    close(log_softmax_forward(x), np.log(np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)), what="the default axis")
    far = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 + 1, -1e4 - 50]], np.float32)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        got = log_softmax_forward(far)
    bottom = math.log(1 + math.exp(-1))
    want = [[-bottom, -1 - bottom, -2e4 - bottom], [-1 - bottom, -bottom, -51 - bottom]]
    close(got, want, dtype=np.float32, rtol=1e-6, why="subtract the row's largest first, and keep it subtracted")
    close(x[0], [1, 2, 3], why="the input must stay as it was")
    ### BEGIN HIDDEN TESTS
    heights = np.random.default_rng().normal(0, 5, size=(2, 3, 4))
    for way in (0, 1, 2, -2):
        levels = log_softmax(Tensor(heights), axis=way).data
        close(np.exp(levels).sum(axis=way), np.ones(np.delete(heights.shape, way)), dtype=np.float32, rtol=1e-4)
        close(levels - levels.max(way, keepdims=True), heights - heights.max(way, keepdims=True), rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_log_softmax()

# %% [markdown]
# ## 7. Which class was right?
#
# Targets are class numbers, whole numbers from 0 to C − 1, one for each row of logits. "Row" means whatever stands
# before the last axis:
#
# ```
#    logits (N, C)       targets (N,)        pictures
#    logits (B, T, C)    targets (B, T)      text: B sentences of T tokens each, C words in the vocabulary
#    logits (C,)         targets ()          one answer
# ```
#
# **The classes are always on the last axis.** PyTorch agrees for (N, C), and for more axes wants (N, C, d) with targets
# (N, d), a habit that it has from pictures. On the last axis the logits of one answer lie side by side in
# memory, a linear layer puts them there by itself, and a shape has one meaning only. Whoever has PyTorch's order writes
# `logits.permute(0, 2, 1)`.
#
# Some targets do not count: sentences of a batch differ in length, and the short ones are padded. A target that equals
# `ignore_index` (−100 by default, since no class has that number) is left out of the loss, the mean and the gradient.
#
# A negative number is a fine index for NumPy: without a check, a target of −1 quietly trains the *last* class.
#
# ### Exercise: `class_ids`

# %% nbgrader={"grade": false, "grade_id": "losses-class-ids", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def class_ids(name: str, shape: tuple[int, ...], targets: Any, ignore_index: int = -100) -> Array:
    """The targets for logits of ``shape`` as an int64 array, every one of them a class or ``ignore_index``.

    Parameters
    ----------
    name
        The loss, for the messages.
    shape
        The shape (..., C) of the logits; the classes are on the last axis.
    targets
        A tensor, array or (nested) list of whole numbers, of shape (...).
    ignore_index
        The number of targets that do not count; it need not be a class.

    Raises
    ------
    TypeError
        If the targets are not whole numbers.
    ValueError
        If their shape is not that of the logits without the last axis; it names both.
    IndexError
        If a target is no class; it names the target, its place and the classes.

    TODO: Fill in the blank: the TypeError and the IndexError.

    APPROACH:
    1. `ids.dtype.kind` must be "i" or "u", whole numbers with or without a sign. Else TypeError
       `f"{name}: targets are class numbers, so whole numbers; got {ids.dtype}"`.
    2. A target is wrong if it is not `ignore_index`, and negative or at least C. `np.argwhere` finds the wrong ones.
    3. The first of them goes into the IndexError
       `f"{name}: target {ids[place]} at {list(place)} is no class; classes go from 0 to {classes - 1}"`.

    EXAMPLE:
    >>> class_ids("cross_entropy", (2, 5), [3, 7])
    Traceback (most recent call last):
    ...
    IndexError: cross_entropy: target 7 at [1] is no class; classes go from 0 to 4

    HINT: `ids[tuple(place)]` is one number; `ids[place]`, with an array or list as place, would be many.
    """
    ids = np.asarray(targets)
    if ids.size == 0:
        ids = ids.astype(np.int64)  # an empty list has no kind of number
    classes = shape[-1]
    ### BEGIN SOLUTION
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: targets are class numbers, so whole numbers; got {ids.dtype}")
    ### END SOLUTION
    if ids.shape != shape[:-1]:
        both = f"logits of shape {shape} want targets of shape {shape[:-1]}, got {ids.shape}"
        raise ValueError(f"{name}: {both}{_layout_hint(shape, ids.shape)}")
    ### BEGIN SOLUTION
    wrong = np.argwhere((ids != ignore_index) & ((ids < 0) | (ids >= classes)))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        stray = f"target {ids[place]} at {list(place)}"
        raise IndexError(f"{name}: {stray} is no class; classes go from 0 to {classes - 1}")
    ### END SOLUTION
    return ids.astype(np.int64)


def _layout_hint(shape: tuple[int, ...], targets: tuple[int, ...]) -> str:
    """What to do if the logits come in PyTorch's order, (N, C, ...) with targets (N, ...)."""
    if len(shape) < 3 or shape[:1] + shape[2:] != targets:
        return ""
    order = (0, *range(2, len(shape)), 1)
    return f". Here the classes are on the last axis, in PyTorch on the second: logits.permute{order}"

# %% nbgrader={"grade": true, "grade_id": "test-losses-class-ids", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_class_ids():
    close(class_ids("demo", (3, 5), [4, 0, -100]), [4, 0, -100], dtype=np.int64, why="-100 does not count")
    close(class_ids("demo", (2, 2, 5), np.array([[1, 2], [3, 4]], np.uint8)), [[1, 2], [3, 4]], dtype=np.int64)
    close(class_ids("demo", (5,), Tensor(3)), 3, dtype=np.int64)
    close(class_ids("demo", (0, 5), []), np.zeros(0), dtype=np.int64)
    close(class_ids("demo", (2, 5), [-1, 2], ignore_index=-1), [-1, 2], why="ignore_index is any number")
    for wrong in ([0.0, 1.0], [True, False]):
        with raises(TypeError, "demo", str(np.asarray(wrong).dtype)):
            class_ids("demo", (2, 5), wrong)
    for targets, value, place in [([0, 5], 5, [1]), ([-1, 0], -1, [0]), ([1, -100], -100, [1]), ([8, 9], 8, [0])]:
        with raises(IndexError, "demo", f"target {value}", str(place), "0 to 4"):
            class_ids("demo", (2, 5), targets, ignore_index=3)
    with raises(IndexError, "target 7", "[1, 0]"):
        class_ids("demo", (2, 2, 5), [[0, 1], [7, 9]])
    for targets in ([0, 1, 2], [[0], [1]], 0):
        with raises(ValueError, "demo", "(2, 5)", str(np.shape(targets))):
            class_ids("demo", (2, 5), targets)
    with raises(ValueError, "permute(0, 2, 1)"):
        class_ids("demo", (2, 5, 3), np.zeros((2, 3), int))
    ### BEGIN HIDDEN TESTS
    many = np.random.default_rng().integers(0, 9, size=(4, 6))
    close(class_ids("demo", (4, 6, 9), many), many, dtype=np.int64)
    row_bad, column_bad = (int(n) for n in np.random.default_rng().integers(0, 4, size=2))
    for stray in (9, 12, -3):
        strayed = many.copy()
        strayed[row_bad, column_bad] = stray
        with raises(IndexError, f"target {stray} at [{row_bad}, {column_bad}]", "0 to 8"):
            class_ids("demo", (4, 6, 9), strayed)
        close(class_ids("demo", (4, 6, 9), strayed, stray), strayed)
    ### END HIDDEN TESTS


test_class_ids()

# %% [markdown]
# ### Picking by number
#
# Given log-probabilities, the loss of a row is minus the one at its target. Textbooks write this as a product with a
# *one-hot* vector: 50,000 multiplications by zero, and one by 1. An index does the same.
#
# Rare classes may weigh more: with `weight`, one number a class, the loss of a row is multiplied by the weight of its
# target, and the mean divides by the weights that were used. That is all that `weight=None`, each weighs 1, says.
#
# Here are the two helpers for it; read them, each is a line or two.

# %%
#| export
def class_weights(name: str, weight: Any, classes: int, dtype: Any) -> Array:
    """One weight a class, as an array of ``dtype``: those given, or 1 for each if ``weight`` is None.

    Raises
    ------
    ValueError
        If there is not one weight for each class.
    """
    weights = np.ones(classes, dtype) if weight is None else np.asarray(weight).astype(dtype)
    if weights.shape != (classes,):
        raise ValueError(f"{name}: weight has shape {weights.shape}, but there are {classes} classes")
    return weights


def counted_weight(ids: Array, weights: Array, ignore_index: int) -> float:
    """The weights of all targets that count, added up: what a mean divides by."""
    return float(weights[ids[ids != ignore_index]].sum(dtype=np.float64))

# %% [markdown]
# ### Exercise: `nll_loss`
#
# The *negative log-likelihood*. Mind the rows that do not count: their target is no index, so pick at 0 and
# throw the result away. Multiplying it by zero is not enough, since zero times infinity is no number: choose, with
# `where`.

# %% nbgrader={"grade": false, "grade_id": "losses-nll", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def nll_loss(
    log_probs: Tensor, targets: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Minus the log-probability of each target, reduced.

    Parameters
    ----------
    log_probs
        Logarithms of probabilities, of shape (..., C), as ``log_softmax`` gives them.
    targets
        Class numbers of shape (...); see ``class_ids``.
    weight
        A weight for each class, of shape (C,); by default 1.
    ignore_index
        The number of targets that do not count: loss 0, and left out of the mean.
    reduction
        "mean" divides by the weights of the targets that count; if none counts, the mean is NaN.

    Raises
    ------
    TypeError, ValueError, IndexError
        See ``class_ids``, ``class_weights`` and ``reduce_losses``.

    TODO: Fill in the blank: the losses of all rows.

    APPROACH:
    1. Lay out `log_probs` as a table of `ids.size` rows and `classes` columns.
    2. `safe` holds the targets, and 0 where one does not count.
    3. Pick one number a row: index the table by `np.arange(ids.size)` and the flattened `safe`. Give the result the
       shape of ids.
    4. The loss is minus that, times the weight of the class, where the target counts, and 0.0 elsewhere.

    EXAMPLE:
    >>> nll_loss(Tensor([[-1.0, -2.0], [-3.0, -4.0]]), [1, 0])
    Tensor(2.5)

    HINT: `where` of module 02 is an operation: it passes the door. `np.where` is right for ids, which are an array.
    """
    ids = class_ids("nll_loss", log_probs.shape, targets, ignore_index)
    classes = log_probs.shape[-1]
    weights = class_weights("nll_loss", weight, classes, log_probs.dtype)
    ### BEGIN SOLUTION
    counts = ids != ignore_index
    safe = np.where(counts, ids, 0)
    table = log_probs.reshape(ids.size, classes)
    picked = table[np.arange(ids.size), safe.ravel()].reshape(ids.shape)
    losses = where(counts, -picked * weights[safe], 0.0)
    ### END SOLUTION
    return reduce_losses(losses, reduction, counted_weight(ids, weights, ignore_index))

# %% nbgrader={"grade": true, "grade_id": "test-losses-nll", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_nll_loss():
    x = Tensor([[-1.0, -2.0, -5.0], [-3.0, -4.0, -6.0], [-7.0, -8.0, -9.0]])
    got = nll_loss(x, [2, 0, 1], reduction="none").data
    close(got, [5, 3, 8], dtype=np.float32, why="row i is -log_probs[i, targets[i]]")
    close(nll_loss(x, [2, -100, 1], reduction="none").data, [5, 0, 8], why="a target that does not count has loss 0")
    close(nll_loss(x, [2, -100, 1]).data, 6.5, why="the mean is over the two that count")
    close(nll_loss(x, [2, 0, 1], ignore_index=0).data, 6.5, why="ignore_index may be a class")
    weight = [1.0, 10.0, 0.5]
    close(nll_loss(x, [2, 0, 1], weight, reduction="none").data, [2.5, 3, 80], why="times the weight of the target")
    close(nll_loss(x, [2, 0, 1], weight).data, 85.5 / 11.5, why="the mean divides by the weights that were used")
    close(nll_loss(Tensor([[[-1.0, -2.0]], [[-3.0, -4.0]]]), [[1], [0]], reduction="none").data, [[2], [3]])
    close(nll_loss(Tensor([-1.0, -2.0]), 1).data, 2.0, why="one answer: logits (C,), target ()")
    with np.errstate(all="raise"):
        endless = Tensor([[-np.inf, 0.0], [-1.0, -np.inf]])
        close(nll_loss(endless, [-100, 0], reduction="none").data, [0, 1], why="choose with where: 0 times inf is NaN")
        close(nll_loss(x, [-100] * 3).data, np.nan, why="if nothing counts there is no mean")
        close(nll_loss(Tensor([[-2.0], [-3.0]]), [0, -100]).data, 2.0, why="pick at 0, which is a class in any case")
    close(nll_loss(Tensor(np.zeros((0, 3))), [], reduction="sum").data, 0.0)
    batch = Tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    assert flows_from(batch, lambda: nll_loss(batch * 2.0, [[0, 1]])), "tensor operations, or no gradient flows back"
    assert nll_loss(Tensor([[-1.0]], np.float64), [0]).dtype == np.float64, "float64 stays float64"
    ### BEGIN HIDDEN TESTS
    beliefs = np.random.default_rng().uniform(-9, -1, size=(3, 4, 5))
    chosen_class = np.random.default_rng().integers(0, 5, size=(3, 4))
    alone = -np.take_along_axis(beliefs, chosen_class[..., None], axis=-1)[..., 0]
    close(nll_loss(Tensor(beliefs), chosen_class, reduction="none").data, alone, dtype=np.float32)
    skipped = int(chosen_class[0, 0])
    left_over = alone[chosen_class != skipped]
    if left_over.size:
        close(nll_loss(Tensor(beliefs), chosen_class, ignore_index=skipped).data, left_over.mean())
    ### END HIDDEN TESTS


test_nll_loss()

# %% [markdown]
# ## 8. Shares: who gets how much of the target?
#
# `log_softmax`, then `nll_loss`: that is the cross-entropy, and it is right. Two things remain: to make it cheap, and
# to teach it modesty. A network trained on hard targets is never done: $-\log p$ still falls a little if the logit of
# the right class goes from 20 to 40, so the logits grow for ever. **Label smoothing** (Szegedy et al. 2016) hands a
# small part s of the target to all classes evenly:
#
# ```
#    target 2 of 4 classes          0      0      1      0
#    smoothed with s = 0.2        0.05   0.05   0.85   0.05      share of the target 0.8, and 0.2/4 for everybody
# ```
#
# With the share $q_c$ of each class, and its weight $w_c$, every variant is one formula, $-\sum_c q_c w_c \log p_c$. We
# never build that table. Two small arrays say it all: what the *target* gets beyond the others (`share`, a number for
# each row), and what *every* class gets (`rest`, a number for each class).
#
# ### Exercise: `target_shares`

# %% nbgrader={"grade": false, "grade_id": "losses-shares", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Shares(NamedTuple):
    """How the loss of each row is shared out among the classes.

    ``counts`` (...): whether the row counts at all. ``ids`` (...): its target, 0 where it does not count. ``share``
    (...): what its target gets beyond the others. ``rest`` (C,): what each class of every row gets.
    """

    counts: Array
    ids: Array
    share: Array
    rest: Array


def target_shares(ids: Array, weight: Array, ignore_index: int, label_smoothing: float) -> Shares:
    """The shares of targets ``ids`` (...) with class weights (C,); the shares have the dtype of the weights.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7.

    TODO: Compute the four arrays.

    APPROACH:
    1. `counts` and `safe`: as in `nll_loss`.
    2. `share`: 1 minus the smoothing, times the weight of the target.
    3. `rest`: the smoothing, divided by the number of classes, times each weight.

    EXAMPLE:
    >>> target_shares(np.array([1, -100]), np.ones(2), -100, 0.2)
    Shares(counts=array([ True, False]), ids=array([1, 0]), share=array([0.8, 0.8]), rest=array([0.1, 0.1]))

    HINT: `len(weight)` is the number of classes.
    """
    ### BEGIN SOLUTION
    counts = ids != ignore_index
    safe = np.where(counts, ids, 0)
    return Shares(counts, safe, (1 - label_smoothing) * weight[safe], label_smoothing / len(weight) * weight)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-shares", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_target_shares():
    counts, ids, share, rest = target_shares(np.array([2, -100, 0]), np.array([1.0, 2.0, 4.0, 1.0]), -100, 0.2)
    close(counts, [True, False, True], what="counts")
    close(ids, [2, 0, 0], what="ids", why="0 where a target does not count")
    close([share[0], share[2]], [3.2, 0.8], what="share", why="(1 - smoothing) times the weight of the target")
    close(rest, [0.05, 0.1, 0.2, 0.05], what="rest", why="smoothing / C times the weight of each class")
    plain = target_shares(np.array([[1], [1]]), np.ones(3, np.float32), 1, 0.0)
    close(plain.counts, [[False], [False]], what="counts", why="compare with the ignore_index that is given")
    close(plain.share.shape, [2, 1], what="the shape of share")
    close(plain.rest, [0, 0, 0], dtype=np.float32, what="rest", why="no smoothing: nothing for the others")
    ### BEGIN HIDDEN TESTS
    heavy, part = np.random.default_rng().uniform(1, 2, size=6), float(np.random.default_rng().uniform(0.1, 0.5))
    drawn_ids = np.random.default_rng().integers(0, 6, size=(5, 2))
    shared_out = target_shares(drawn_ids, heavy, -100, part)
    table = np.zeros((5, 2, 6)) + shared_out.rest
    for spot in np.ndindex(5, 2):
        table[(*spot, drawn_ids[spot])] += shared_out.share[spot]
    evenly = part / 6 + (1 - part) * (np.arange(6) == drawn_ids[..., None])
    close(table, evenly * heavy)
    ### END HIDDEN TESTS


test_target_shares()

# %% [markdown]
# ## 9. All in one
#
# For one row, with `shifted` $= z - m$ and `log_sum` $= \log \sum_j e^{z_j - m}$, every $\log p_c$ is shifted minus
# log_sum. Put that into $-\sum_c q_c w_c \log p_c$, and sort:
#
# $$\text{loss} = (\text{share} + \textstyle\sum \text{rest}) \cdot \text{log\_sum}
#   \;-\; \text{share} \cdot \text{shifted}_{\text{target}} \;-\; \sum_c \text{rest}_c \cdot \text{shifted}_c$$
#
# One pass over the logits, and a single array of their size: `shifted`, which is overwritten by its own exponential
# once it has been read. For B x T = 8,192 tokens and GPT-2's 50,257 words this array takes 1.6 GB, so each one that is
# not made counts.
#
# ### Exercise: `cross_entropy_forward`

# %% nbgrader={"grade": false, "grade_id": "losses-cross-entropy", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def cross_entropy_forward(
    logits: Array, ids: Array, weight: Array, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Array:
    """The cross-entropy of each row of ``logits`` with its target, from the logits directly.

    Parameters
    ----------
    logits
        Of shape (..., C), of any size; -inf for a class that is impossible.
    ids
        Class numbers of shape (...), checked by ``class_ids``.
    weight
        A weight for each class, of shape (C,) and the dtype of the logits.
    ignore_index, label_smoothing
        See ``cross_entropy``.

    Returns
    -------
    Array
        Of shape (...); 0 where a target does not count.

    TODO: Write the formula above, with one array of the size of the logits.

    APPROACH:
    1. `shifted`, as in `log_softmax_forward`.
    2. `wanted` is share times shifted at the target: `np.take_along_axis` wants the index with an axis more,
       `ids[..., None]`, and gives one back, to be taken off. If there is smoothing, add `shifted @ rest`.
    3. `log_sum`: only now overwrite, `np.exp(shifted, out=shifted)`, then sum and take the logarithm.
    4. The formula where the row counts, else 0.

    EXAMPLE:
    >>> cross_entropy_forward(np.array([[0.0, 0.0], [1000.0, 0.0]]), np.array([0, 1]), np.ones(2))
    array([6.93147181e-01, 1.00000000e+03])

    HINT: Without smoothing `shifted @ rest` is all zeros, unless a logit is -inf: zero times infinity is NaN.
    """
    counts, ids, share, rest = target_shares(ids, weight, ignore_index, label_smoothing)
    ### BEGIN SOLUTION
    shifted = logits - logits.max(axis=-1, keepdims=True)
    wanted = share * np.take_along_axis(shifted, ids[..., None], axis=-1)[..., 0]
    if label_smoothing:
        wanted = wanted + shifted @ rest
    log_sum = np.log(np.exp(shifted, out=shifted).sum(axis=-1))
    return np.where(counts, (share + rest.sum()) * log_sum - wanted, 0)
    ### END SOLUTION


CROSS_ENTROPY = Op("cross_entropy", cross_entropy_forward)

# %% nbgrader={"grade": false, "grade_id": "losses-cross-entropy-memory", "locked": true, "schema_version": 3, "solution": false, "task": false}
def arrays_at_once():
    """How many arrays of the size of the logits cross_entropy_forward needs at most, besides the logits."""
    logits, ids, weight = np.zeros((50, 2000), np.float32), np.zeros(50, np.int64), np.ones(2000, np.float32)
    return measure(cross_entropy_forward, logits, ids, weight, repeats=1).peak_bytes / logits.nbytes

# %% nbgrader={"grade": true, "grade_id": "test-losses-cross-entropy", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def by_the_book(logits, ids, weight, ignore_index=-100, label_smoothing=0.0):
    """The cross-entropy of each row, from the table of all shares, in float64."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classes = logits.shape[-1]
    q = (1 - label_smoothing) * (np.arange(classes) == ids[..., None]) + label_smoothing / classes
    return np.where(ids == ignore_index, 0, -(q * weight * log_p).sum(-1))


def test_cross_entropy_forward():
    x = np.array([[2.0, 1.0, 0.5], [0.0, 3.0, -1.0], [1.0, 1.0, 1.0], [4.0, -2.0, 0.0]])
    ids, even = np.array([0, 2, 1, -100]), np.ones(3)
    close(cross_entropy_forward(x, ids, even), by_the_book(x, ids, even), why="log_sum minus shifted at the target")
    close(x[0], [2, 1, 0.5], why="the logits must stay as they were: overwrite `shifted` only")
    weight = np.array([1.0, 2.0, 5.0])
    got = cross_entropy_forward(x, ids, weight, label_smoothing=0.3)
    close(got, by_the_book(x, ids, weight, label_smoothing=0.3), what="with weights and smoothing")
    got = cross_entropy_forward(x, np.array([0, 2, 1, 1]), even, ignore_index=1)
    close(got[2:], [0, 0], why="0 where a target does not count")
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        far = np.array([[1e4, 0.0], [1e4, 1e4], [-1e4, 1e4]], np.float32)
        got = cross_entropy_forward(far, np.array([1, 0, 1]), np.ones(2, np.float32))
        close(got, [1e4, math.log(2), 0], dtype=np.float32, why="subtract the row's largest first")
        masked = np.array([[0.0, 0.0, -np.inf]])
        why = "add `shifted @ rest` only if there is smoothing"
        close(cross_entropy_forward(masked, np.array([0]), even), [math.log(2)], why=why)
    close(cross_entropy_forward(np.zeros(4), np.array(2), np.ones(4)), math.log(4), why="one answer: shape ()")
    close(cross_entropy_forward(np.zeros((0, 4)), np.zeros(0, int), np.ones(4)), np.zeros(0))
    made = arrays_at_once()
    assert made < 1.5, f"expected one array of the size of the logits, got {made:.1f}: np.exp(shifted, out=shifted)"
    ### BEGIN HIDDEN TESTS
    scene, goals = np.random.default_rng().normal(0, 2, size=(2, 3, 5)), np.random.default_rng().integers(0, 5, (2, 3))
    loads, blur = np.random.default_rng().uniform(1, 2, size=5), float(np.random.default_rng().uniform(0.1, 0.6))
    for dim in (0.0, blur, 1.0):
        close(cross_entropy_forward(scene, goals, loads, -100, dim), by_the_book(scene, goals, loads, -100, dim))
    first_goal = int(goals[0, 0])
    thinner = cross_entropy_forward(scene.astype(np.float32), goals, loads.astype(np.float32), first_goal, blur)
    close(thinner, by_the_book(scene, goals, loads, first_goal, blur), dtype=np.float32, rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_cross_entropy_forward()

# %% [markdown]
# The function that everybody calls only checks, applies and reduces:

# %%
#| export
def cross_entropy(
    logits: Tensor,
    targets: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of ``logits`` with class numbers as targets, reduced.

    Equal to ``nll_loss(log_softmax(logits), targets)``, with one array of the size of the logits instead of several.

    Parameters
    ----------
    logits
        Floating-point numbers of shape (..., C). The classes are on the last axis; PyTorch wants them on the second,
        (N, C, ...), which for (N, C) is the same. For other shapes ``permute`` first.
    targets
        Whole numbers of shape (...), from 0 to C - 1.
    weight
        A weight for each class, of shape (C,); by default 1.
    ignore_index
        The number of targets that do not count: their loss and gradient are 0, and they are left out of the mean.
    reduction
        "mean" divides by the weights of the targets that count, so without weights by how many count. If none does, the
        mean is NaN and the gradient 0, as in PyTorch.
    label_smoothing
        The part of each target that is shared out evenly among all classes, from 0 to 1.

    Raises
    ------
    TypeError
        If the logits are not floating-point, or the targets not whole numbers.
    ValueError
        If shapes do not fit, or ``reduction`` or ``label_smoothing`` is out of its range.
    IndexError
        If a target is no class; it names the target and its place.
    """
    if logits.dtype.kind != "f":
        raise TypeError(f"cross_entropy: logits are floating-point, got {logits.dtype}; they come before the targets")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing is a part from 0 to 1, got {label_smoothing}")
    if logits.ndim == 0:
        raise ValueError("cross_entropy: logits need an axis of classes, got shape ()")
    ids = class_ids("cross_entropy", logits.shape, targets, ignore_index)
    weights = class_weights("cross_entropy", weight, logits.shape[-1], logits.dtype)
    losses = apply(
        CROSS_ENTROPY, logits, ids, weight=weights, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    return reduce_losses(losses, reduction, counted_weight(ids, weights, ignore_index))

# %% [markdown]
# Predict: a fresh network with small random weights, ten classes. What is its loss before any training, about?

# %%
manual_seed(0)
pictures, digits = randn(1000, 64), np.random.default_rng(0).integers(0, 10, size=1000)
print(f"loss {cross_entropy(Linear(64, 10)(pictures), digits).item():.3f}, and ln 10 = {math.log(10):.3f}")
print(f"with weights a hundred times as large: {cross_entropy(Linear(64, 10)(pictures) * 100.0, digits).item():.1f}")

# %% [markdown]
# 2.415: a little above ln C, the loss of somebody who finds all classes equally likely. Remember ln C. A first loss far
# above it, 86.7 for the large weights, says that the network is not ignorant but *convinced*, of nonsense. That is
# the cheapest bug report there is: look at the first loss.
#
# What smoothing does shows in the next picture: ten classes, the right one ahead of the nine others by a gap.

# %%
gaps = np.linspace(0, 20, 201)
rows = np.zeros((201, 10))
rows[:, 3] = gaps
figure, axes = plt.subplots(figsize=(6, 3))
for smoothing in (0.0, 0.1):
    curve = cross_entropy_forward(rows, np.full(201, 3), np.ones(10), label_smoothing=smoothing)
    axes.plot(gaps, curve, label=f"label smoothing {smoothing}")
    print(f"smoothing {smoothing}: smallest loss {curve.min():.3f}, at a gap of {gaps[curve.argmin()]:.1f}")
axes.set_xlabel("logit of the right class minus that of the others")
axes.set_ylabel("cross-entropy")
axes.set_title("With smoothing, enough is enough")
axes.legend()
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# Without smoothing the loss falls as far as the picture goes. With 0.1 it is smallest at a gap of 4.5, which is
# ln(0.91 / 0.01), and rises beyond: too sure is wrong, too. Its smallest value is 0.500, not 0. So losses with and
# without smoothing cannot be compared; report the one without.
#
# ## 10. The gradient
#
# By a logit $z_c$ grow two things: log_sum, by $p_c$, and, if c is the target, what we wanted. So
#
# $$\frac{\partial\,\text{loss}}{\partial z_c} = \big(\text{share} + \textstyle\sum \text{rest}\big)\, p_c
#   \;-\; \text{rest}_c \;-\; (\text{share, if } c \text{ is the target})$$
#
# Without weights and smoothing that is **softmax minus one-hot**: what was believed, minus what is true, just as in
# section 5. No logarithm and no division is left in it. It lies between −1 and 1 and cannot explode, however wrong the
# network is. This is the reason why softmax and logarithm belong in one operation: apart, one multiplies by 1/p and the
# other by p, and for a small p in float32 the two do not cancel.
#
# ### Exercise: `cross_entropy_gradient`
#
# Module 06 will make this the rule of `CROSS_ENTROPY`.

# %% nbgrader={"grade": false, "grade_id": "losses-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def cross_entropy_gradient(
    logits: Array, ids: Array, weight: Array, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Array:
    """The slope of each row's loss in ``cross_entropy_forward`` by each of its logits, of the shape (..., C).

    Rows that do not count have zeros, whatever their logits are.

    TODO: Write the formula above, with one array of the size of the logits for the result.

    APPROACH:
    1. `gradient` begins as the log-softmax of the logits. Overwrite it by its exponential: the probabilities.
    2. Multiply it by share plus the sum of rest (with an axis more), and subtract rest.
    3. At each target subtract share. `np.put_along_axis(gradient, places, values, axis=-1)` writes values at places
       that `np.take_along_axis` reads.
    4. Write 0 into the rows that do not count.

    EXAMPLE:
    >>> cross_entropy_gradient(np.array([[0.0, 0.0, 0.0, 0.0]]), np.array([1]), np.ones(4))
    array([[ 0.25, -0.75,  0.25,  0.25]])

    HINT: `gradient[~counts] = 0` writes into whole rows. Multiplying by 0 would leave NaN where a logit was NaN.
    """
    counts, ids, share, rest = target_shares(ids, weight, ignore_index, label_smoothing)
    places = ids[..., None]
    gradient = log_softmax_forward(logits)
    ### BEGIN SOLUTION
    np.exp(gradient, out=gradient)
    gradient *= (share + rest.sum())[..., None]
    gradient -= rest
    at_target = np.take_along_axis(gradient, places, axis=-1)
    np.put_along_axis(gradient, places, at_target - share[..., None], axis=-1)
    gradient[~counts] = 0
    return gradient
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-gradient", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def slope_of_rows(logits, ids, weight, *options):
    """What the gradient must be, by nudging each logit of by_the_book to both sides."""
    slopes = np.zeros(logits.shape)
    for place in np.ndindex(logits.shape):
        nudge = np.zeros(logits.shape)
        nudge[place] = 1e-6
        above, below = (by_the_book(moved, ids, weight, *options).sum() for moved in (logits + nudge, logits - nudge))
        slopes[place] = (above - below) / 2e-6
    return slopes


def test_cross_entropy_gradient():
    close(cross_entropy_gradient(np.zeros((1, 4)), np.array([1]), np.ones(4)), [[0.25, -0.75, 0.25, 0.25]])
    x = np.array([[2.0, 1.0, 0.5], [0.0, 3.0, -1.0], [4.0, -2.0, 0.0]])
    ids, weight = np.array([0, 2, -100]), np.array([1.0, 2.0, 5.0])
    got = cross_entropy_gradient(x, ids, np.ones(3))
    close(got, slope_of_rows(x, ids, np.ones(3)), rtol=1e-4, why="softmax minus one-hot")
    why = "(share + sum of rest) p - rest, and - share at the target"
    got = cross_entropy_gradient(x, ids, weight, label_smoothing=0.3)
    slopes = slope_of_rows(x, ids, weight, -100, 0.3)
    close(got, slopes, rtol=1e-4, atol=1e-5, what="with weights and smoothing", why=why)
    close(x[0], [2, 1, 0.5], why="the logits must stay as they were")
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        far = np.array([[1e4, -1e4], [1e4, 1e4], [np.nan, 0.0]], np.float32)
        got = cross_entropy_gradient(far, np.array([1, 0, -100]), np.ones(2, np.float32))
    close(got, [[1, -1], [-0.5, 0.5], [0, 0]], dtype=np.float32, why="rows that do not count are 0, even of NaN")
    close(cross_entropy_gradient(np.zeros(4), np.array(2), np.ones(4)), [0.25, 0.25, -0.75, 0.25])
    ### BEGIN HIDDEN TESTS
    hills, peaks = np.random.default_rng().normal(0, 2, size=(2, 3, 4)), np.random.default_rng().integers(0, 4, (2, 3))
    ballast = np.random.default_rng().uniform(1, 2, size=4)
    for fog, skip in [(0.0, -100), (0.25, -100), (0.1, int(peaks[0, 0]))]:
        wanted_slopes = slope_of_rows(hills, peaks, ballast, skip, fog)
        close(cross_entropy_gradient(hills, peaks, ballast, skip, fog), wanted_slopes, rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_cross_entropy_gradient()

# %% [markdown]
# Your `numerical_gradient` agrees, on the function that everybody calls. Each row of the gradient adds up to zero:
# what one class gains in probability, the others lose.

# %%
numbers = np.random.default_rng(3)
some_logits, some_ids = numbers.normal(size=(2, 4)), np.array([3, 0])


def total_loss(x):
    return cross_entropy(Tensor(x, np.float64), some_ids, reduction="sum").item()


by_nudging = numerical_gradient(total_loss, some_logits)
by_formula = cross_entropy_gradient(some_logits, some_ids, np.ones(4))
print(np.round(by_formula, 3), f"\nlargest difference {np.abs(by_formula - by_nudging).max():.0e}")
print("sums of the rows:", np.round(by_formula.sum(axis=1), 12) + 0.0)

# %% [markdown]
# ## 11. Losses as modules
#
# PyTorch has every loss twice, as a function and as a module that keeps the options. A module can be printed, stored
# beside the model and handed to a trainer. These have nothing to train.

# %%
#| export
class MSELoss(Module):
    """The squared error as a module; see ``mse_loss``."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, prediction: Tensor, target: Any) -> Tensor:
        """The loss of ``prediction`` against a ``target`` of the same shape."""
        return mse_loss(prediction, target, self.reduction)


class BCELoss(Module):
    """The binary cross-entropy of probabilities as a module; see ``binary_cross_entropy``."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, p: Tensor, target: Any) -> Tensor:
        """The loss of the probabilities ``p`` against a ``target`` of the same shape."""
        return binary_cross_entropy(p, target, self.reduction)


class BCEWithLogitsLoss(Module):
    """The binary cross-entropy of logits as a module; see ``binary_cross_entropy_with_logits``."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        """The loss of ``logits`` against a ``target`` of the same shape."""
        return binary_cross_entropy_with_logits(logits, target, self.reduction)


class NLLLoss(Module):
    """The negative log-likelihood as a module; see ``nll_loss``. A ``weight`` is a buffer, saved with it."""

    weight: Array | None

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        keep_weight(self, weight)
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, log_probs: Tensor, targets: Any) -> Tensor:
        """The loss of ``log_probs`` (..., C) against class numbers (...)."""
        return nll_loss(log_probs, targets, self.weight, self.ignore_index, self.reduction)


class CrossEntropyLoss(Module):
    """The cross-entropy of logits as a module; see ``cross_entropy``. A ``weight`` is a buffer, saved with it."""

    weight: Array | None

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        keep_weight(self, weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, logits: Tensor, targets: Any) -> Tensor:
        """The loss of ``logits`` (..., C) against class numbers (...)."""
        return cross_entropy(logits, targets, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


def keep_weight(module: Module, weight: Any) -> None:
    """Make ``weight`` a buffer of ``module``, or None if there is none."""
    if weight is None:
        module.weight = None
    else:
        module.register_buffer("weight", weight)

# %%
criterion = CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
manual_seed(1)
sentences = randn(2, 5, 100)  # (B, T, V)
words = np.array([[17, 4, 99, 0, 0], [3, 3, 8, 61, 2]])  # (B, T), padded with 0
print(criterion, criterion(sentences, words))

# %% [markdown]
# ## 12. What fusing saves
#
# Three ways to the same number: the textbook's, with a one-hot table; `log_softmax` and an index; and your fused
# operation. There are 256 rows. Predict the ratio of their memory at 8,192 classes.
#
# And one more figure matters. In training the *notes* keep alive what every operation made, until the way back has
# used it. You know the seam: a recorder can add that up today.

# %%
def textbook(logits, ids):
    one_hot = np.zeros(logits.shape, np.float32)
    one_hot[np.arange(len(ids)), ids] = 1
    shifted = (logits - logits.max(axis=-1, keepdims=True)).exp()
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    return -(one_hot * probabilities.log()).sum(axis=-1).mean()


def in_two_steps(logits, ids):
    return nll_loss(log_softmax(logits), ids)


def bytes_kept(function, *args):
    """What the results of all operations take together, of those that own their memory."""
    made = []
    before = set_recorder(lambda op, inputs, arrays, attrs, out: made.append(out.data))
    try:
        function(*args)
    finally:
        set_recorder(before)
    return sum(array.nbytes for array in made if array.base is None)


ways = {"textbook": textbook, "log_softmax, nll_loss": in_two_steps, "cross_entropy": cross_entropy}
widths = [512, 1024, 2048, 4096, 8192]
peaks = {name: [] for name in ways}
for classes in widths:
    batch = from_numpy(np.random.default_rng(0).normal(size=(256, classes)).astype(np.float32))
    ids = np.random.default_rng(1).integers(0, classes, size=256)
    for name, way in ways.items():
        taken = measure(way, batch, ids, repeats=3)
        peaks[name].append(taken.peak_bytes / 1e6)
        if classes == 8192:
            peak, kept = taken.peak_bytes / 1e6, bytes_kept(way, batch, ids) / 1e6
            print(f"{name:22} peak {peak:5.1f} MB, kept {kept:5.1f} MB, {taken.median_s * 1e3:5.1f} ms")

figure, axes = plt.subplots(figsize=(6, 3))
for name, values in peaks.items():
    axes.plot(widths, values, "o-", markersize=4, label=name)
axes.set_xlabel("classes")
axes.set_ylabel("peak memory (MB)")
axes.set_title("256 rows of logits")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
print(f"the logits themselves, with 8,192 classes: {256 * 8192 * 4 / 1e6:.1f} MB")

# %% [markdown]
# Measured here with 8,192 classes, where the logits take 8.4 MB: the textbook needs 41.9 MB at once, two steps 16.8,
# the fused operation 8.5. That is five, two and one arrays of the size of the logits. The notes would keep 41.9 MB,
# 8.4 MB and next to nothing: on its way back the fused operation needs the logits, which are there anyway, and
# computes the probabilities once more. Less memory is less to fill as well: 2.4 ms against 3 and 15 (medians of 15
# calls).
#
# ## 13. Perplexity: a loss that one can picture
#
# A language model guesses the next letter; its loss is 2.7. Is that good? Take the exponential: $e^{2.7} \approx 15$.
# The model is as unsure as somebody who guesses among 15 equally likely letters. This is the **perplexity**, and a
# die with six sides has one of 6.
#
# ### Exercise: `perplexity`

# %% nbgrader={"grade": false, "grade_id": "losses-perplexity", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def perplexity(loss: Any) -> float:
    """How many equally likely answers a mean cross-entropy ``loss`` (in nats) corresponds to; inf from about 710 on.

    TODO: The exponential of the loss, as a Python float.

    APPROACH:
    1. `math.exp(loss)` takes a number, or a tensor of one number, which it asks for its float.
    2. It raises OverflowError where the result is too large: then the answer is `math.inf`.

    EXAMPLE:
    >>> round(perplexity(math.log(6)), 6)
    6.0

    HINT: `try: ... except OverflowError: ...`
    """
    ### BEGIN SOLUTION
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-losses-perplexity", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_perplexity():
    for loss, want in [(0.0, 1.0), (math.log(6), 6.0), (np.float32(1.0), math.e), (Tensor([[2.0]]), math.exp(2))]:
        got = perplexity(loss)
        assert type(got) is float, f"expected a Python float, got {type(got).__name__}"
        close(got, want, rtol=1e-6, why="the exponential of the loss")
    close(perplexity(1e4), np.inf, why="too large for a float: infinity, not an error")
    close(perplexity(float("nan")), np.nan)
    ### BEGIN HIDDEN TESTS
    sides = int(np.random.default_rng().integers(2, 100))
    fair = cross_entropy(Tensor(np.zeros((3, sides))), [0, 1, sides - 1])
    close(perplexity(fair), sides, rtol=1e-4)
    ### END HIDDEN TESTS


test_perplexity()

# %% [markdown]
# Here is a text. Three models guess each letter: one knows nothing, one knows how often each letter comes, one knows
# which letter tends to follow which. All of them counted on the very text on which they are tested. Predict their
# perplexities.

# %%
text = (
    "alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, and "
    "what is the use of a book, thought alice, without pictures or conversations?"
)
letters = sorted(set(text))
number = {letter: place for place, letter in enumerate(letters)}
ids = np.array([number[letter] for letter in text])
after = np.zeros((len(letters), len(letters)))
for (one, two), times in Counter(pairwise(ids)).items():
    after[one, two] = times

with np.errstate(divide="ignore"):
    models = {
        "knows nothing": np.zeros((len(ids) - 1, len(letters))),
        "counts letters": np.log(np.tile(np.bincount(ids), (len(ids) - 1, 1))),
        "counts pairs": np.log(after[ids[:-1]]),
    }
for name, rows in models.items():
    loss = cross_entropy(Tensor(rows), ids[1:])
    print(f"{name:15} loss {loss.item():.3f}   perplexity {perplexity(loss):.1f}")
print(f"{len(text)} letters, {len(letters)} different ones, {np.count_nonzero(after)} different pairs")

# %% [markdown]
# 25, 16.5 and 5.7. How often each letter comes helps less than most people guess; the one letter before helps three
# times over. But the last number flatters. 118 different pairs were counted from 298 of them, and 46 came only once:
# such an answer was learned by heart. On another text a single pair that was never seen has the logit −∞, and the
# loss is infinite. A loss is worth something on data that the model has not seen.
#
# ## What you have built
#
# `mse_loss`, `binary_cross_entropy`, `binary_cross_entropy_with_logits`, `log_softmax`, `nll_loss` and `cross_entropy`
# with `weight`, `ignore_index`, `reduction` and `label_smoothing`; the modules `MSELoss`, `BCELoss`,
# `BCEWithLogitsLoss`, `NLLLoss` and `CrossEntropyLoss`; `perplexity`; and the gradients of the fused losses as plain
# functions, checked by nudging.
#
# In the terminal: `tito module complete 05`. Then module 06 makes those gradients the rules of your operations, and
# `loss.backward()` sends them through the whole network.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "losses-reflect-first-loss-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **The first loss.** You train three classifiers with 100 classes. Before the first step their losses are (a) 4.6, (b)
# 4.6 as well, but after 500 steps still 4.6, and (c) 37. What does each tell you? For (c), name a likely cause and what
# you would look at. Would squared error of the probabilities have shown the same?
#
# === BEGIN MARK SCHEME ===
# 1 point: ln 100 = 4.6, ignorance, as it should be. 1 point: (b) nothing reaches the weights or the inputs say nothing.
# 2 points: (c) convinced of nonsense, logits too large, with a cause and a check. 1 point: squared error is bounded, so
# it hides (c), and is flat there.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "losses-reflect-first-loss", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 4.6 = ln 100 is the loss of equal probabilities: (a) is healthy. (b) starts well but learns nothing: no gradient gets
# to the weights (step size 0, a detached result, wrong parameters) or the targets do not belong to the inputs. (c) is
# sure of wrong answers: the logits are tens apart, since inputs are not scaled (pixels 0 to 255) or weights start too
# large; I would print the spread of inputs and logits. Squared error of probabilities is at most 2 a row, so (c)
# would look like an ordinary number, and its slope there is nearly zero: it would stay.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "losses-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **The most expensive line.** A language model has a vocabulary of 50,257, a batch of 8 sequences of 1,024 tokens, and
# float32. How large are the logits? How many arrays of that size exist at the worst moment of a training step, forward
# and backward, with `cross_entropy`, and with `nll_loss(log_softmax(...))`? The batch does not fit. Give a way
# to compute the same loss and gradient with a quarter of this memory.
#
# === BEGIN MARK SCHEME ===
# 1 point: 8 * 1024 * 50257 * 4 bytes = 1.65 GB. 2 points: a count with reasons: fused about two (logits and their
# gradient, or one temporary), in two steps at least one more that the notes keep. 2 points: rows in pieces, with sums
# of loss and gradient weighted by the count (or gradient in place, or half precision argued properly).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "losses-reflect-memory", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 8 * 1024 * 50,257 * 4 bytes = 1.65 GB. Fused: forward the logits and one temporary; backward the logits, the gradient
# and, for a moment, an exponential: two to three. In two steps the log-probabilities are kept as well, and the gradient
# of the picking is an array of its own: four or so. Rows are independent, so compute logits, loss and gradient for a
# quarter of the rows at a time from the hidden states, add up reduction="sum" and the gradients of weights and
# hidden states, and divide by the number of targets that count in the whole batch, not in the piece.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "losses-reflect-mean-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A mean of what?** Sentences of 5 and of 50 words are padded to 50 and put into batches. Compare (1) the mean over
# all words that count in the batch, and (2) the mean over sentences of each sentence's own mean. Which words weigh more
# in each? Two machines each take half of a batch, and their two means are averaged: is that (1)? And what should come
# if a batch holds padding only: an error, 0 or NaN? Argue.
#
# === BEGIN MARK SCHEME ===
# 2 points: (1) each word weighs the same, long sentences dominate; (2) a word of a short sentence weighs ten times as
# much. 2 points: the average of means is (1) only for equal counts; add sums and counts. 1 point: any choice with a
# reason (NaN is seen, 0 hides, an error stops a run for a harmless batch).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "losses-reflect-mean", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# (1) gives every word the same weight, so the long sentence has ten times the say of the short one. (2) gives every
# sentence the same say, so a word of the short one weighs ten times as much. The average of two means is the mean only
# if both halves count equally many words; else each machine should send its sum and its count. An empty batch has no
# mean: 0 looks like a perfect score and hides a broken loader; NaN shows in the curve, and with a gradient of zero
# nothing is destroyed; an error is the loudest, but stops a long run for a batch that does no harm.
# ### END SOLUTION
