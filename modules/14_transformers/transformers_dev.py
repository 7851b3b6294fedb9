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
# # Transformers
#
# > Transformers: attention and small networks, stacked on one stream of vectors that nothing may block.
#
# Module 13 let tokens look at each other. One layer of it finds something; to find something *in what was found*, you
# need a second layer, and a tenth. But a stack of ten layers as you know them does not train: what goes in grows or
# fades on its way up, and the gradient on its way down. GPT-2 has 48 of them.
#
# Three things make it work, and they are this module:
#
# ```
#   ids (B, T) --> token + position vectors
#                          |
#                          x (B, T, E) -----------------------+  the stream: a sum that only grows
#                          |--> LayerNorm --> attention ------+
#                          x <--------------------------------+     x = x + attention(norm(x))
#                          |--> LayerNorm --> feed-forward ---+
#                          x <--------------------------------+     x = x + feed_forward(norm(x))
#                          |         ... and again, N times
#                      LayerNorm --> Linear --> logits (B, T, V)
# ```
#
# 1. **Residuals**: a layer does not replace the vectors, it adds to them.
# 2. **LayerNorm**: a layer reads the vectors at a size that it can rely on.
# 3. **A start** that keeps the sum small.
#
# By the end you will have `Transformer`, GPT-2's network to the last parameter, and will have watched a small one learn
# to spell.
#
# Plan for about six hours. The first test is ten minutes away.

# %%
#| default_exp core.transformers
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import index
from typing import Any

import numpy as np

from tinytorch.core.activations import GELU, floating
from tinytorch.core.attention import MultiHeadAttention, causal_mask, check_mask
from tinytorch.core.autograd import defvjp
from tinytorch.core.embeddings import Embedding, check_ids
from tinytorch.core.layers import Dropout, Linear, Module, ModuleList, Parameter, whole_size
from tinytorch.core.tensor import Array, Op, Tensor, apply, default_generator
from tinytorch.core.training import evaluating

# %%
import matplotlib.pyplot as plt

from tinytorch.core.autograd import backward_order, no_grad
from tinytorch.core.losses import cross_entropy
from tinytorch.core.optimizers import AdamW
from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed, randn

# %% [markdown]
# ## 1. Vectors of a known size
#
# Layer normalisation (Ba, Kiros and Hinton 2016) takes each token's vector by itself: subtract its mean, divide by its
# standard deviation. Whatever came in, numbers around 0 of size 1 go out. Then each feature is multiplied by a trained
# weight and gets a trained bias, so that the layer can undo what is not wanted.
#
# $$y = \frac{x - \text{mean}(x)}{\sqrt{\text{var}(x) + \varepsilon}} \cdot w + b$$
#
# The variance divides by n, not by n - 1, and ε = 0.00001 keeps a vector of equal numbers from a division by zero.
# Note what it does *not* look at: other tokens, and other sequences. A batch of one is as good as a batch of a hundred.
#
# Predict: what becomes of [1, 2, 3, 6]? And of [100, 200, 300, 600]?
#
# ### Exercise: `normalise_by_hand`

# %% nbgrader={"grade": false, "grade_id": "transformers-by-hand", "locked": false, "schema_version": 3, "solution": true, "task": false}
def normalise_by_hand(x, weight, bias, eps=1e-5):
    """The layer normalisation of an array x (..., E), with weight and bias (E,).

    TODO: Write the formula down.

    APPROACH:
    1. Mean and variance over the last axis; keep it as an axis of length 1.
    2. The formula above.

    EXAMPLE:
    >>> normalise_by_hand(np.array([1.0, 2.0, 3.0, 6.0]), np.ones(4), np.zeros(4)).round(2)
    array([-1.07, -0.53,  0.  ,  1.6 ])

    HINT: NumPy's `var` divides by n. ε stands under the root.
    """
    ### BEGIN SOLUTION
    middle = x.mean(axis=-1, keepdims=True)
    squared = x.var(axis=-1, keepdims=True)
    return (x - middle) / np.sqrt(squared + eps) * weight + bias
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-by-hand", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_by_hand():
    one, zero = np.ones(4), np.zeros(4)
    want = np.array([-2, -1, 0, 3]) / math.sqrt(3.5)
    close(normalise_by_hand(np.array([1.0, 2.0, 3.0, 6.0]), one, zero, 0.0), want, why="mean 3, variance 14 / 4")
    close(normalise_by_hand(np.full((2, 4), 7.0), one, zero), np.zeros((2, 4)), why="equal numbers: 0, thanks to ε")
    small = np.array([[0.001, -0.001]])
    close(normalise_by_hand(small, np.ones(2), np.zeros(2), 3e-6), small / 0.002, why="ε is added to the variance")
    ### BEGIN HIDDEN TESTS
    sample = np.random.default_rng().normal(2, 3, size=(2, 3, 6))
    gains, shifts = np.random.default_rng().normal(size=(2, 6))
    got = normalise_by_hand(sample, gains, shifts)
    for place in np.ndindex(2, 3):
        vector = sample[place]
        spread = math.sqrt(sum((number - sum(vector) / 6) ** 2 for number in vector) / 6 + 1e-5)
        close(got[place], [(number - sum(vector) / 6) / spread * w + b for number, w, b in zip(vector, gains, shifts, strict=True)])
    ### END HIDDEN TESTS


test_by_hand()

# %%
for row in ([1.0, 2.0, 3.0, 6.0], [100.0, 200.0, 300.0, 600.0]):
    print(row, "->", normalise_by_hand(np.array(row), np.ones(4), np.zeros(4)).round(4))

# %% [markdown]
# The same, to four digits: the size of the vector is gone, its direction stays.
#
# ### The same, faster
#
# A transformer normalises twice a layer, all its vectors, so this formula matters. `mean` and `var` walk along rows of
# E numbers with Python's and NumPy's care for every case. A sum over a row is also a dot product with ones, and a sum of
# squares is the dot product of a row with itself, and dot products are what processors are best at.
#
# And the statistics may go over several last axes: PyTorch's `normalized_shape`. So we flatten: rows of `features`
# numbers, whatever axes they came from.
#
# ### Exercise: `standardised` and `layer_norm_forward`

# %% nbgrader={"grade": false, "grade_id": "transformers-standardised", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def standardised(rows: Array, eps: float) -> tuple[Array, Array]:
    """Each row (N, F) with mean 0 and deviation 1, in a new array; and what each was multiplied by, of shape (N,).

    TODO: Mean, centred rows, scale.

    APPROACH:
    1. The mean of each row: the product of `rows` with a vector of ones, in the dtype of the rows, divided by F.
    2. The centred rows: a new array. `mean[:, None]` has the shape (N, 1).
    3. `np.vecdot(a, a)` gives the sum of squares of each row; the scale is one over the root of their mean plus eps.
    4. Multiply the centred rows by the scale, in place, and return both.

    EXAMPLE:
    >>> standardised(np.array([[1.0, 3.0], [10.0, 50.0]]), eps=0.0)
    (array([[-1.,  1.],
           [-1.,  1.]]), array([1.  , 0.05]))

    HINT: `np.ones(n)` is float64, and times float32 that is float64: give it a dtype.
    """
    ### BEGIN SOLUTION
    features = rows.shape[1]
    mean = rows @ np.ones(features, rows.dtype) / features
    centred = rows - mean[:, None]
    scale = 1 / np.sqrt(np.vecdot(centred, centred) / features + eps)
    centred *= scale[:, None]
    return centred, scale
    ### END SOLUTION


def layer_norm_forward(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """``x``, standardised over its last axes, times ``weight`` plus ``bias``; of the shape and dtype of ``x``.

    Parameters
    ----------
    x
        Of shape (..., *weight.shape): the last axes are those of the weight.
    weight, bias
        Of one shape, that of one vector.
    eps
        What is added to the variance; a Python float, so that float32 stays float32.

    TODO: Rows, standardised, weighted, shifted, and back in shape.

    APPROACH:
    1. `x.reshape(-1, weight.size)` makes rows of what is normalised together.
    2. `standardised` gives a new array: multiply and add in place. Weight and bias become rows by `.ravel()`.

    EXAMPLE:
    >>> layer_norm_forward(np.array([[1.0, 3.0]]), np.array([10.0, 10.0]), np.array([0.0, 1.0]), 0.0)
    array([[-10.,  11.]])

    HINT: Do not write into `x`.
    """
    ### BEGIN SOLUTION
    vectors, _ = standardised(x.reshape(-1, weight.size), eps)
    vectors *= weight.ravel()
    vectors += bias.ravel()
    return vectors.reshape(x.shape)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-standardised", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def normalised(x, weight, bias, eps):
    """The formula in float64, over the last axes."""
    axes = tuple(range(-weight.ndim, 0))
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * weight + bias


def test_layer_norm_forward():
    rng = np.random.default_rng(1)
    rows = rng.normal(3, 2, size=(5, 4))
    unit, scale = standardised(rows, 0.1)
    close(scale, 1 / np.sqrt(rows.var(axis=1) + 0.1), what="scale of standardised", why="one over the root of variance + eps")
    close(unit, normalised(rows, np.ones(4), np.zeros(4), 0.1), what="rows of standardised")
    for shape, last in [((5, 4), (4,)), ((2, 3, 4), (4,)), ((2, 3, 4), (3, 4)), ((4,), (4,)), ((0, 4), (4,))]:
        x, weight, bias = rng.normal(1, 2, size=shape), rng.normal(size=last), rng.normal(size=last)
        kept = x.copy()
        got = layer_norm_forward(x, weight, bias, 1e-5)
        why = "flatten into rows of weight.size numbers, and give back the shape of x"
        close(got, normalised(x, weight, bias, 1e-5), what=f"layer_norm_forward of {shape} over {last}", why=why)
        close(x, kept, what="x afterwards", why="layer_norm_forward must not write into x")
        small = [array.astype(np.float32) for array in (x, weight, bias)]
        close(layer_norm_forward(*small, 1e-5), got, rtol=1e-3, atol=1e-5, dtype=np.float32, what="in float32")
    unit, scale = standardised(np.ones((2, 3), np.float32), 1e-5)
    assert unit.dtype == scale.dtype == np.float32, f"standardised: float32 stays float32, got {unit.dtype}, {scale.dtype}"
    far = 1000 + rng.normal(size=(3, 64)).astype(np.float32)
    want = normalised(far, np.ones(64), np.zeros(64), 1e-5)
    close(standardised(far, 1e-5)[0], want, atol=1e-3, what="rows far from 0", why="the squares of centred numbers")
    ### BEGIN HIDDEN TESTS
    inputs, gain, shift = (np.random.default_rng().normal(size=size) for size in [(3, 2, 5), (2, 5), (2, 5)])
    close(layer_norm_forward(inputs, gain, shift, 0.3), normalised(inputs, gain, shift, 0.3))
    ### END HIDDEN TESTS


test_layer_norm_forward()

# %%
many = np.random.default_rng(0).normal(size=(16, 64, 128)).astype(np.float32)  # W3's: 16 texts of 64 tokens
gain, shift = np.ones(128, np.float32), np.zeros(128, np.float32)
by_hand, by_products = (
    measure(function, many, gain, shift, 1e-5) for function in (normalise_by_hand, layer_norm_forward)
)
print(f"mean and var {by_hand.median_s * 1e6:.0f} µs, dot products {by_products.median_s * 1e6:.0f} µs: "
      f"{by_hand.median_s / by_products.median_s:.1f} times as fast")

# %% [markdown]
# Measured here on one thread, 150 runs in turns: 2.2 times as fast, medians. The numbers are the same; NumPy's `mean` and
# `var` make more passes, and each large array that is made anew must travel to memory.
#
# ## 2. The way back
#
# A trap lies in the derivative, and many who wrote a layer norm by hand fell into it: the mean and the
# deviation *depend on x*. Move one number of a row, and all outputs of this row move. Who takes mean and deviation for
# constants gets a gradient that looks right and points elsewhere.
#
# Call the standardised row $\hat x$, the scale $s = 1/\sqrt{\text{var} + \varepsilon}$, and the gradient by $\hat x$
# (which is that of the output times the weight) $a$. Then
#
# $$\frac{\partial L}{\partial x} = s \, \big(a - \text{mean}(a) - \hat x \cdot \text{mean}(a \cdot \hat x)\big)$$
#
# Read it: from $a$ are taken away the part that would shift the whole row, and the part that would stretch it. Both
# are without effect, since the normalisation undoes them. So two checks without any calculation: the gradient of each
# row adds up to 0, and (but for ε) it is at right angles to the row.
#
# The weight gets $\sum g \, \hat x$ over all rows, the bias gets $\sum g$.
#
# ### Exercise: `layer_norm_gradients`

# %% nbgrader={"grade": false, "grade_id": "transformers-gradients", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def layer_norm_gradients(g: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array, Array]:
    """The gradients of the loss by x, weight and bias, given ``g``, that by the result of ``layer_norm_forward``.

    Source: Ba, Kiros and Hinton 2016, "Layer normalization", differentiated.

    Parameters
    ----------
    g
        Of the shape of ``x``. It is not written into.
    x, weight, eps
        What ``layer_norm_forward`` was given.

    Returns
    -------
    tuple of Array
        For x, in its shape; for weight and bias, in the weight's.

    TODO: The three gradients.

    APPROACH:
    1. g and x as rows; `standardised` gives x̂ and s again. (Twice computed is cheaper than kept.)
    2. For weight and bias: a vector of ones, in the dtype of g, times `g * x̂` and times g: that sums over the rows.
    3. `a`: g times the weight, a new array. Its mean over the row, and that of `a * x̂`: as in `standardised`.
    4. The bracket, then s, in place.

    EXAMPLE:
    >>> for_x, *_ = layer_norm_gradients(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 2.0]]), np.ones(3), 0.0)
    >>> for_x.round(3)
    array([[ 0.204, -0.408,  0.204]])

    HINT: `np.vecdot(a, b)` multiplies row by row and adds up each row: shape (N,).
    """
    ### BEGIN SOLUTION
    count = weight.size
    rows = g.reshape(-1, count)
    unit, scale = standardised(x.reshape(-1, count), eps)
    every = np.ones(len(rows), g.dtype)
    for_weight, for_bias = every @ (rows * unit), every @ rows
    slopes = rows * weight.ravel()
    unit *= np.vecdot(slopes, unit)[:, None] / count
    slopes -= (slopes @ np.ones(count, g.dtype) / count)[:, None]
    slopes -= unit
    slopes *= scale[:, None]
    return slopes.reshape(x.shape), for_weight.reshape(weight.shape), for_bias.reshape(weight.shape)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-gradients", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def slope_at(function, array, place, step=1e-6):
    """How fast function(array) grows with the number at place: a central difference."""
    above, below = array.copy(), array.copy()
    above[place] += step
    below[place] -= step
    return (function(above) - function(below)) / (2 * step)


def check_gradients(g, x, weight, bias, eps):
    copies = [array.copy() for array in (g, x, weight)]
    found = layer_norm_gradients(g, x, weight, eps)
    for array, copy in zip((g, x, weight), copies, strict=True):
        close(array, copy, what="an argument afterwards", why="write into arrays of your own only")
    loss = [
        lambda x: float((normalised(x, weight, bias, eps) * g).sum()),
        lambda weight: float((normalised(x, weight, bias, eps) * g).sum()),
        lambda bias: float((normalised(x, weight, bias, eps) * g).sum()),
    ]
    for name, gradient, function, array in zip(("x", "weight", "bias"), found, loss, (x, weight, bias), strict=True):
        want = [slope_at(function, array, place) for place in np.ndindex(array.shape)]
        why = "mean and deviation depend on x, too" if name == "x" else "sum over all rows"
        close(gradient, np.reshape(want, array.shape), rtol=1e-4, atol=1e-6, what=f"gradient by {name}", why=why)


def test_gradients():
    rng = np.random.default_rng(2)
    for shape, last in [((3, 4), (4,)), ((2, 3, 2), (3, 2)), ((2, 2, 3), (3,)), ((5,), (5,))]:
        weight, bias = rng.normal(size=(2, *last))
        check_gradients(rng.normal(size=shape), rng.normal(1, 2, size=shape), weight, bias, 0.01)
    small = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (3, 4), (4,)]]
    for name, gradient in zip(("x", "weight", "bias"), layer_norm_gradients(*small, 1e-5), strict=True):
        assert gradient.dtype == np.float32, f"gradient by {name}: float32 stays float32, got {gradient.dtype}"
    ### BEGIN HIDDEN TESTS
    chosen = np.random.default_rng()
    top, below, gains, shifts = (chosen.normal(size=size) for size in [(2, 2, 3), (2, 2, 3), (2, 3), (2, 3)])
    check_gradients(top, below, gains, shifts, 0.2)
    ### END HIDDEN TESTS


test_gradients()

# %% [markdown]
# The operation and its rule, side by side. `layer_norm` has PyTorch's name and arguments and checks what it is given.

# %%
#| export
LAYER_NORM = Op("layer_norm", layer_norm_forward)


@defvjp(LAYER_NORM)
def _layer_norm(g: Array, out: Array, x: Array, weight: Array, bias: Array, eps: float) -> Any:
    return layer_norm_gradients(g, x, weight, eps)


def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """``x`` with mean 0 and deviation 1 over its last axes, times ``weight``, plus ``bias``.

    Source: Ba, Kiros and Hinton 2016, "Layer normalization".

    Parameters
    ----------
    x
        Floating-point numbers of shape (..., *normalized_shape).
    normalized_shape
        The lengths of the axes that are normalised together: a number for the last axis alone, or a tuple.
    weight, bias
        Of that shape; by default 1 and 0.
    eps
        What is added to the variance.

    Raises
    ------
    ValueError
        If the last axes of ``x``, or those of weight or bias, have other lengths; it names both.
    """
    x = floating(x)
    shape = as_normalized_shape("layer_norm", normalized_shape)
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: the last axes of shape {x.shape} should be {shape}, which are normalised")
    gain: Any = np.ones(shape, x.dtype) if weight is None else weight
    shift: Any = np.zeros(shape, x.dtype) if bias is None else bias
    for name, parameter in (("weight", gain), ("bias", shift)):
        if np.shape(parameter) != shape:
            raise ValueError(f"layer_norm: {name} has shape {np.shape(parameter)}, expected {shape}")
    return apply(LAYER_NORM, x, gain, shift, eps=float(eps))


def as_normalized_shape(owner: str, shape: Any) -> tuple[int, ...]:
    """``shape``, a number or several, as a tuple of lengths; TypeError or ValueError if they are none."""
    lengths = shape if isinstance(shape, tuple | list) else (shape,)
    if len(lengths) == 0:
        raise ValueError(f"{owner}: normalized_shape needs at least one axis, got {shape!r}")
    return tuple(whole_size(owner, "normalized_shape", length) for length in lengths)

# %% [markdown]
# ### Exercise: `LayerNorm`

# %% nbgrader={"grade": false, "grade_id": "transformers-layer-norm", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class LayerNorm(Module):
    """Brings each vector to mean 0 and deviation 1, then stretches and shifts each feature as it was trained to.

    Source: Ba, Kiros and Hinton 2016, "Layer normalization". It does the same in training and in use.

    Parameters
    ----------
    normalized_shape
        The lengths of the last axes, which are normalised together: a number or a tuple.
    eps
        What is added to the variance.
    elementwise_affine
        Whether there are a weight and a bias; if not, both are None.
    bias
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias
        Parameters of shape ``normalized_shape``; they begin as 1 and 0.

    Raises
    ------
    TypeError, ValueError
        If a length is no whole number or less than 1. When called: see ``layer_norm``.

    TODO: Fill in the two blanks: the parameters, and `forward`.

    APPROACH:
    1. `weight`: a Parameter of ones if `elementwise_affine`, else None.
    2. `bias`: a Parameter of zeros if `elementwise_affine` and `bias`, else None.
    3. `forward`: the function `layer_norm`, with everything that the layer knows.

    EXAMPLE:
    >>> LayerNorm(4)(Tensor([[1.0, 2.0, 3.0, 6.0]]))
    Tensor([[-1.0690434, -0.5345217,  0.       ,  1.6035651]])

    HINT: `self.normalized_shape` is a tuple already: what `np.ones` wants.
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape = as_normalized_shape("LayerNorm", normalized_shape)
        self.eps = eps
        self.weight: Parameter | None
        self.bias: Parameter | None
        ### BEGIN SOLUTION
        self.weight = Parameter(np.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape)) if elementwise_affine and bias else None
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., *normalized_shape), normalised, of the same shape."""
        ### BEGIN SOLUTION
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        ### END SOLUTION

    def extra_repr(self) -> str:
        """``(128,), eps=1e-05, elementwise_affine=True``"""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"

# %% nbgrader={"grade": true, "grade_id": "test-transformers-layer-norm", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_layer_norm():
    rng = np.random.default_rng(3)
    layer = LayerNorm((3, 4), eps=0.1)
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    assert shapes == {"weight": (3, 4), "bias": (3, 4)}, f"expected weight and bias of shape (3, 4), got {shapes}"
    assert all(isinstance(p, Parameter) for p in (layer.weight, layer.bias)), "weight and bias are Parameters"
    close(layer.weight.data, np.ones((3, 4)), what="weight at first", dtype=np.float32)
    close(layer.bias.data, np.zeros((3, 4)), what="bias at first", dtype=np.float32)
    state = {"weight": rng.normal(size=(3, 4)), "bias": rng.normal(size=(3, 4))}
    layer.load_state_dict(state)
    x = rng.normal(size=(2, 3, 4))
    want = normalised(x, state["weight"], state["bias"], 0.1)
    close(layer(Tensor(x)).data, want, rtol=1e-4, atol=1e-5, why="hand over shape, weight, bias and eps")
    leaf = Tensor(x, requires_grad=True)
    layer(leaf).sum().backward()
    missing = [name for name, tensor in (("x", leaf), *layer.named_parameters()) if tensor.grad is None]
    assert not missing, f"no gradient came to {', '.join(missing)}"
    plain, weighted = LayerNorm(4, elementwise_affine=False), LayerNorm(4, bias=False)
    assert plain.weight is None and plain.bias is None, "elementwise_affine=False: neither weight nor bias"
    names = [name for name, _ in weighted.named_parameters()]
    assert names == ["weight"], f"bias=False: a weight alone, got {names}"
    for one in (plain, weighted):
        close(one(Tensor(x)).data, normalised(x, np.ones(4), np.zeros(4), 1e-5), rtol=1e-4, atol=1e-5)
    ### BEGIN HIDDEN TESTS
    width = int(np.random.default_rng().integers(2, 9))
    numbers = np.random.default_rng().normal(size=(3, width))
    bench = LayerNorm(width)
    gains, shifts = np.random.default_rng().normal(size=(2, width))
    bench.load_state_dict({"weight": gains, "bias": shifts})
    close(bench(Tensor(numbers)).data, normalised(numbers, gains, shifts, 1e-5), rtol=1e-3, atol=1e-4)
    ### END HIDDEN TESTS


test_layer_norm()

# %% [markdown]
# One operation, or composed of the ones that you have? Both are right, so the question is what they cost: time for
# both ways, and what is kept in between.

# %%
def composed(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / (x.var(axis=-1, keepdims=True, correction=0) + 1e-5).sqrt() * weight + bias


def kept_bytes(result):
    """The memory of all arrays that the notes behind a result hold for the way back."""
    held = {}
    for node in backward_order(result._node):
        for array in (node.out, *node.arrays):
            if isinstance(array, np.ndarray):
                owner = array if array.base is None else array.base
                held[id(owner)] = owner.nbytes
    return sum(held.values())


def there_and_back(function, *inputs):
    function(*inputs).sum().backward()


inputs = Tensor(many, requires_grad=True), Parameter(gain), Parameter(shift)
fused = lambda x, weight, bias: layer_norm(x, 128, weight, bias)  # noqa: E731
for name, function in (("composed", composed), ("one operation", fused)):
    cost = measure(there_and_back, function, *inputs)
    print(f"{name:13}: {cost.median_s * 1e3:5.2f} ms, {kept_bytes(function(*inputs)) / 1e6:4.1f} MB kept")

# %% [markdown]
# Measured here: 3.2 times as fast there and back (150 runs in turns, one thread), with 1.0 MB kept instead of 3.7. The
# one operation keeps its input and its result. What else its rule needs, it computes again from the input.
#
# ## 3. The network between
#
# Attention mixes vectors of different positions, and it is nearly linear in them: the values are only averaged. The
# *thinking* in between is a small network of two layers that works on each position alone: from E features to four
# times as many, GELU, and back. Of a transformer's parameters, two thirds stand here.
#
# ```
#   (B, T, E) --> linear1 --> (B, T, hidden) --> GELU --> linear2 --> (B, T, E) --> dropout
# ```
#
# ### Exercise: `PositionwiseFeedForward`

# %% nbgrader={"grade": false, "grade_id": "transformers-feed-forward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class PositionwiseFeedForward(Module):
    """Two linear layers with an activation between them, which work on each position alone.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.3; with GELU as in GPT-2.

    Parameters
    ----------
    embed_dim, hidden_dim
        The length of the vectors outside and between; usually hidden_dim is four times embed_dim.
    dropout
        The probability with which a number of the result is dropped in training.
    activation
        What stands between: a function of a Tensor. By default GELU by the formula with tanh, as in GPT-2.

    Attributes
    ----------
    linear1, linear2
        Linear layers from ``embed_dim`` to ``hidden_dim`` and back.

    TODO: Fill in the two blanks: the layers, and `forward`.

    APPROACH:
    1. `linear1`, `linear2`, and `dropout`, a Dropout.
    2. Through all four, in order.

    EXAMPLE:
    >>> PositionwiseFeedForward(8, 32)(randn(2, 5, 8)).shape
    (2, 5, 8)

    HINT: `self.activation` is called like a function.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        dropout: float = 0.0,
        activation: Callable[[Any], Tensor] = GELU("tanh"),  # noqa: B008
    ) -> None:
        super().__init__()
        self.activation = activation
        ### BEGIN SOLUTION
        self.linear1 = Linear(embed_dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, embed_dim)
        self.dropout = Dropout(dropout)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., embed_dim) as (..., embed_dim)."""
        ### BEGIN SOLUTION
        inner = self.activation(self.linear1(x))  # (..., hidden_dim)
        shortened: Tensor = self.dropout(self.linear2(inner))
        return shortened
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-feed-forward", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def feed_forward_by_the_book(state, x, prefix=""):
    """Two products and GELU by the formula with tanh, from plain arrays."""
    part = {name: state[f"{prefix}linear{name}"] for name in ("1.weight", "1.bias", "2.weight", "2.bias")}
    z = x @ part["1.weight"].T + part["1.bias"]
    return z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) @ part["2.weight"].T + part["2.bias"]


def drawn_state(module, rng, size=0.4):
    """New numbers for all of a module's parameters, which are put into it; as float64 arrays by name."""
    state = {name: rng.normal(0, size, size=array.shape).round(3) for name, array in module.state_dict().items()}
    module.load_state_dict(state)
    return state


def test_feed_forward():
    rng = np.random.default_rng(4)
    layer = PositionwiseFeedForward(3, 7)
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    want = {"linear1.weight": (7, 3), "linear1.bias": (7,), "linear2.weight": (3, 7), "linear2.bias": (3,)}
    assert shapes == want, f"expected {want}, got {shapes}"
    state, x = drawn_state(layer, rng), rng.normal(size=(2, 5, 3))
    close(layer(Tensor(x)).data, feed_forward_by_the_book(state, x), rtol=1e-3, atol=1e-4)
    other = PositionwiseFeedForward(3, 7, activation=lambda x: x)
    state = drawn_state(other, rng)
    straight = (x @ state["linear1.weight"].T + state["linear1.bias"]) @ state["linear2.weight"].T + state["linear2.bias"]
    close(other(Tensor(x)).data, straight, rtol=1e-3, atol=1e-4, why="use self.activation")
    moody = PositionwiseFeedForward(3, 7, dropout=0.5)
    share = float((moody(Tensor(rng.normal(size=(500, 3)))).data == 0).mean())
    assert 0.4 < share < 0.6, f"dropout=0.5 should drop half of the result in training, it dropped {share:.0%}"
    state = drawn_state(moody.eval(), rng)
    close(moody(Tensor(x)).data, feed_forward_by_the_book(state, x), rtol=1e-3, atol=1e-4, why="in use nothing is dropped")
    ### BEGIN HIDDEN TESTS
    wide, narrow = (int(n) for n in np.random.default_rng().integers(2, 9, size=2))
    bench = PositionwiseFeedForward(narrow, wide)
    numbers, vectors = drawn_state(bench, np.random.default_rng()), np.random.default_rng().normal(size=(4, narrow))
    close(bench(Tensor(vectors)).data, feed_forward_by_the_book(numbers, vectors), rtol=1e-3, atol=1e-4)
    ### END HIDDEN TESTS


test_feed_forward()

# %% [markdown]
# ## 4. A stream that nothing blocks
#
# Now stack them. Four ways to do it, where f is attention or a feed-forward network:
#
# | | each step | |
# |---|---|---|
# | plain | `x = f(x)` | as in module 04 |
# | residual | `x = x + f(x)` | He et al. 2015 |
# | post-norm | `x = norm(x + f(x))` | the transformer of 2017 |
# | pre-norm | `x = x + f(norm(x))` | GPT-2 and nearly all since |
#
# Below, each is built 24 blocks deep, untrained. Predict: how large is the gradient in the first block, compared with
# that in the last one, for each of the four?

# %%
WAYS = {
    "plain": lambda x, f, norm: f(x),
    "residual": lambda x, f, norm: x + f(x),
    "post-norm": lambda x, f, norm: norm(x + f(x)),
    "pre-norm": lambda x, f, norm: x + f(norm(x)),
}
DEPTH, WIDTH = 24, 64


def sizes_by_depth(way):
    """Size of the stream after each block, and of the gradient in each block."""
    manual_seed(0)
    parts = [(MultiHeadAttention(WIDTH, 4), PositionwiseFeedForward(WIDTH, 4 * WIDTH)) for _ in range(DEPTH)]
    for attention, feed_forward in parts:
        for layer in (attention.out_proj, feed_forward.linear1, feed_forward.linear2):
            layer.weight.data *= math.sqrt(3)  # module 04: with this a linear layer keeps the size
    norm, x, stream = LayerNorm(WIDTH), randn(4, 32, WIDTH), []
    for attention, feed_forward in parts:
        x = way(x, lambda x, attention=attention: attention(x, mask=causal_mask(32)), norm)
        x = way(x, feed_forward, norm)
        stream.append(float(x.data.std()))
    (norm(x) * randn(*x.shape)).mean().backward()
    return stream, [float(np.abs(feed_forward.linear2.weight.grad.data).mean()) for _, feed_forward in parts]


results = {name: sizes_by_depth(way) for name, way in WAYS.items()}
figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
for axes, which, title in zip(both, (0, 1), ("size of the stream", "mean size of a gradient"), strict=True):
    for name, sizes in results.items():
        axes.semilogy(range(1, DEPTH + 1), sizes[which], "o-", markersize=3, label=name)
    axes.set_xlabel("block")
    axes.set_title(title)
    axes.grid(alpha=0.3)
both[0].legend()
plt.tight_layout()
plt.show()
for name, (stream, gradient) in results.items():
    print(f"{name:9}: stream {stream[-1]:7.2g}; gradient in the first block {gradient[0]:8.2g}, in the last {gradient[-1]:8.2g}")

# %% [markdown]
# The numbers are those of this start and this seed; the weights are drawn as module 04 recommends.
#
# - **plain**: the first block gets 2·10⁻¹³, a third of a billionth of what the last one gets. It will never learn.
# - **residual**: the gradient arrives, but the stream grows to 19,000, since each step adds in proportion to what is
#   there. The first block's gradient is 4,000 times the last one's.
# - **post-norm** and **pre-norm**: all blocks get gradients of one size, within a factor of 4.
#
# The surprise may be that post-norm looks as good. Its trouble is at the other end: its last block gets 2.9 times the
# gradient that pre-norm's gets, which takes a careful warm-up of the learning rate (Xiong et al. 2020). In pre-norm the
# stream itself is never touched, only added to: it grows slowly, to 4.1 here, and one last norm before the head is enough.
#
# ### Exercise: `TransformerBlock`

# %% nbgrader={"grade": false, "grade_id": "transformers-block", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TransformerBlock(Module):
    """Attention, then a feed-forward network, each reading the normalised stream and adding to it (pre-norm).

    Source: Radford et al. 2019 (GPT-2), section 2.3; Xiong et al. 2020, "On layer normalization in the transformer".

    Parameters
    ----------
    embed_dim
        E, the length of the vectors.
    num_heads
        How many heads attention has; E must be divisible by it.
    hidden_dim
        The length of the vectors inside the feed-forward network.
    dropout
        The probability of dropping in training: weights of attention, and numbers of what is added to the stream.

    Attributes
    ----------
    norm1, attention, norm2, feed_forward
        In the order in which they are used.

    TODO: Fill in the two blanks: the parts, and `forward`.

    APPROACH:
    1. `norm1`, `attention`, `norm2`, `feed_forward`: each with what it needs; attention and the network get `dropout`.
    2. `forward`: the stream plus the dropped attention of the stream normalised by `norm1`.
    3. Then that plus the feed-forward network of it, normalised by `norm2`. The network drops by itself.

    EXAMPLE:
    >>> TransformerBlock(8, 2, 32)(randn(2, 5, 8), causal_mask(5)).shape
    (2, 5, 8)

    HINT: The second step works on the result of the first. Nothing is done to the stream itself but adding.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        ### BEGIN SOLUTION
        self.norm1 = LayerNorm(embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.norm2 = LayerNorm(embed_dim)
        self.feed_forward = PositionwiseFeedForward(embed_dim, hidden_dim, dropout)
        ### END SOLUTION

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        """The stream ``x`` (..., T, E) with what this block adds; ``mask`` is that of ``MultiHeadAttention``."""
        ### BEGIN SOLUTION
        listened = x + self.dropout(self.attention(self.norm1(x), mask=mask))
        thought: Tensor = listened + self.feed_forward(self.norm2(listened))
        return thought
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-block", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def attention_by_the_book(state, heads, x, mask, prefix):
    """Multi-head attention of a sequence to itself, head by head, from plain arrays."""
    width = x.shape[-1]
    thirds = np.split(x @ state[f"{prefix}in_proj_weight"].T + state[f"{prefix}in_proj_bias"], 3, axis=-1)
    found = []
    for q, k, v in zip(*(np.split(third, heads, axis=-1) for third in thirds), strict=True):
        scores = np.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(width // heads), -np.inf)
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found.append(raised / raised.sum(axis=-1, keepdims=True) @ v)
    return np.concatenate(found, axis=-1) @ state[f"{prefix}out_proj.weight"].T + state[f"{prefix}out_proj.bias"]


def block_by_the_book(state, heads, x, mask, prefix=""):
    """A pre-norm block from plain arrays."""
    first, second = (
        [state[f"{prefix}norm{n}.weight"], state[f"{prefix}norm{n}.bias"], 1e-5] for n in (1, 2)
    )
    x = x + attention_by_the_book(state, heads, normalised(x, *first), mask, f"{prefix}attention.")
    return x + feed_forward_by_the_book(state, normalised(x, *second), f"{prefix}feed_forward.")


def test_block():
    rng = np.random.default_rng(5)
    block = TransformerBlock(6, 3, 10)
    sizes = sum(array.size for array in block.state_dict().values())
    assert sizes == 6 * 4 + 4 * 6 * 6 + 4 * 6 + 2 * 6 * 10 + 16, f"expected two norms, attention, network: 328 numbers, got {sizes}"
    state, x = drawn_state(block, rng), rng.normal(size=(2, 4, 6))
    for mask in (np.tri(4, dtype=bool), np.ones((4, 4), bool)):
        why = "x + attention(norm1(x)), and then that plus feed_forward(norm2(that)); hand the mask on"
        close(block(Tensor(x), mask).data, block_by_the_book(state, 3, x, mask), rtol=1e-3, atol=1e-3, why=why)
    close(block(Tensor(x)).data, block_by_the_book(state, 3, x, np.ones((4, 4), bool)), rtol=1e-3, atol=1e-3, what="without a mask")
    block(Tensor(x)).sum().backward()
    missing = [name for name, parameter in block.named_parameters() if parameter.grad is None]
    assert not missing, f"without a gradient: {', '.join(missing)}"
    silent = TransformerBlock(6, 3, 10, dropout=1.0)
    drawn_state(silent, rng)
    close(silent(Tensor(x)).data, x, rtol=1e-4, what="dropout=1.0 in training", why="both branches are dropped, the stream is not")
    probabilities = [silent.attention.dropout, silent.feed_forward.dropout.p]
    assert probabilities == [1.0, 1.0], f"attention and the network get the dropout as well: 1.0 each, got {probabilities}"
    state = drawn_state(silent.eval(), rng)
    want = block_by_the_book(state, 3, x, np.tri(4, dtype=bool))
    close(silent(Tensor(x), np.tri(4, dtype=bool)).data, want, rtol=1e-3, atol=1e-3, what="in use", why="nothing is dropped in use")
    ### BEGIN HIDDEN TESTS
    depth, heads, inside = (int(n) for n in np.random.default_rng().integers(2, 5, size=3))
    bench = TransformerBlock(depth * heads, heads, inside)
    numbers, stream = drawn_state(bench, np.random.default_rng()), np.random.default_rng().normal(size=(3, depth * heads))
    answer = block_by_the_book(numbers, heads, stream, np.tri(3, dtype=bool))
    close(bench(Tensor(stream), np.tri(3, dtype=bool)).data, answer, rtol=1e-3, atol=1e-3)
    ### END HIDDEN TESTS


test_block()

# %% [markdown]
# ## 5. Where the parameters are
#
# Count before you build. The whole network has six kinds of parts, each with an E, a V or a hidden length in it. GPT-2
# small: V = 50,257, E = 768, 12 layers, hidden 3,072, 1,024 positions. Predict: which part has the most, and how many
# are there in all?
#
# One thing more to know: the first layer turns ids into vectors, with a table (V, E), and the last one turns vectors
# into scores for ids, with a matrix (V, E). They may be the *same* matrix. That is called weight tying (Press and Wolf
# 2017), GPT-2 does it, and it saves a table.
#
# ### Exercise: `transformer_size`

# %% nbgrader={"grade": false, "grade_id": "transformers-size", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def transformer_size(
    vocab_size: int,
    embed_dim: int,
    num_layers: int,
    hidden_dim: int,
    max_seq_length: int,
    tie_weights: bool = False,
) -> dict[str, int]:
    """How many numbers a ``Transformer`` of these sizes is made of, by part.

    Returns
    -------
    dict
        ``token_embedding``, ``position_embedding``, ``attention`` and ``feed_forward`` (those of all layers), ``norms``
        (all, the last one as well) and ``head`` (0 if it shares the table of the tokens).

    TODO: Count.

    APPROACH:
    1. Attention has E to 3E and E to E, with biases; the network E to hidden and hidden to E, with biases.
    2. A norm has a weight and a bias. Each block has two, and one comes before the head.
    3. The head, from E to V, has no bias.

    EXAMPLE:
    >>> sum(transformer_size(65, 128, 4, 512, 64).values())
    818176

    HINT: For E = 2, attention has 2·6 + 6 + 2·2 + 2 = 24 numbers.
    """
    ### BEGIN SOLUTION
    return {
        "token_embedding": vocab_size * embed_dim,
        "position_embedding": max_seq_length * embed_dim,
        "attention": num_layers * 4 * (embed_dim**2 + embed_dim),
        "feed_forward": num_layers * (2 * embed_dim * hidden_dim + hidden_dim + embed_dim),
        "norms": (2 * num_layers + 1) * 2 * embed_dim,
        "head": 0 if tie_weights else vocab_size * embed_dim,
    }
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-size", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def check_size(found, want):
    assert sorted(found) == sorted(want), f"expected the parts {sorted(want)}, got {sorted(found)}"
    for part, number in want.items():
        assert type(found[part]) is int and found[part] == number, f"{part}: expected {number}, got {found[part]}"


def test_size():
    tiny = {"token_embedding": 14, "position_embedding": 6, "attention": 24, "feed_forward": 27, "norms": 12, "head": 14}
    check_size(transformer_size(7, 2, 1, 5, 3), tiny)
    check_size(transformer_size(7, 2, 1, 5, 3, tie_weights=True), tiny | {"head": 0})
    gpt2 = sum(transformer_size(50_257, 768, 12, 3072, 1024, True).values())
    assert gpt2 == 124_439_808, f"GPT-2 small has 124,439,808 parameters, this gives {gpt2:,}"
    ### BEGIN HIDDEN TESTS
    words, width, layers, inside, places = (int(n) for n in np.random.default_rng().integers(2, 40, size=5))
    maps = [(width, 3 * width), (width, width), (width, inside), (inside, width)]
    counted = [layers * (m * n + n) for m, n in maps]
    parts = transformer_size(words, width, layers, inside, places)
    check_size({"attention": parts["attention"]}, {"attention": counted[0] + counted[1]})
    check_size({"feed_forward": parts["feed_forward"]}, {"feed_forward": counted[2] + counted[3]})
    check_size({"norms": parts["norms"]}, {"norms": sum(2 * width for _ in range(layers)) * 2 + width + width})
    ### END HIDDEN TESTS


test_size()

# %%
MODELS = {
    "module 14's small one": (65, 128, 4, 512, 64, False),
    "512 wide, 6 layers": (10_000, 512, 6, 2048, 512, False),
    "GPT-2 small": (50_257, 768, 12, 3072, 1024, True),
    "GPT-2 XL": (50_257, 1600, 48, 6400, 1024, True),
}
figure, axes = plt.subplots(figsize=(9, 2.8))
for row, sizes in enumerate(MODELS.values()):
    counts = transformer_size(*sizes)
    total, left = sum(counts.values()), 0.0
    for colour, (part, count) in enumerate(counts.items()):
        axes.barh(row, count / total, left=left, color=f"C{colour}", label=part if row == 0 else None)
        if count / total > 0.05:
            axes.text(left + count / total / 2, row, f"{count / total:.0%}", ha="center", va="center", color="white")
        left += count / total
    axes.text(1.01, row, f"{total / 1e6:,.1f} M", va="center")
axes.set_yticks(range(len(MODELS)), MODELS)
axes.invert_yaxis()
axes.set_xlim(0, 1)
axes.set_xticks([])
axes.legend(ncols=6, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.45, -0.22), frameon=False)
axes.spines[["top", "right", "bottom"]].set_visible(False)
plt.tight_layout()
plt.show()

# %% [markdown]
# GPT-2 small has 124,439,808, and the largest part is the feed-forward networks: 46 %. Between them and attention it is
# always 2 to 1, since 4E² stand against 8E² a layer (for hidden = 4E). In small models with many words the table weighs:
# 31 % in GPT-2 small, 35 % in the second row, where it is there twice. With depth and width it fades: 5 % in GPT-2 XL.
#
# ## 6. A start that stays small
#
# In module 04 each layer's start was chosen so that it keeps the size of what goes through. Here every layer *adds*, so
# the sizes add up: 2 · N additions of the same spread make a stream √(2N) times as wide. GPT-2's remedy: all weights
# start with a spread of 0.02, but those that write to the stream, the last matrix of each branch, with 0.02/√(2N).
# Biases start at 0. And logits near 0 mean that all tokens are equally likely, which is the honest answer of a network
# that has seen nothing: its loss is ln V.
#
# ### Exercise: `gpt2_initial`

# %% nbgrader={"grade": false, "grade_id": "transformers-initial", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
RESIDUAL_PROJECTIONS = ("attention.out_proj.weight", "feed_forward.linear2.weight")


def gpt2_initial(model: Module, num_layers: int) -> None:
    """Draw new numbers for all parameters of ``model`` as GPT-2 does, by the default generator.

    Source: Radford et al. 2019 (GPT-2), section 2.3.

    Biases become 0. Matrices (parameters with two axes or more) become normally distributed with deviation 0.02; those
    whose names end as in ``RESIDUAL_PROJECTIONS``, with 0.02 / sqrt(2 * num_layers). Weights of norms are left alone.

    TODO: Go over the parameters by name.

    APPROACH:
    1. A name that ends in "bias": all 0.
    2. Else, with two axes or more: the spread, times `default_generator().standard_normal(shape)`.

    EXAMPLE:
    >>> layer = Linear(100, 200); gpt2_initial(layer, 4); float(layer.weight.data.std()).__round__(3)
    0.02

    HINT: Write into the array that is there, `parameter.data[...] = `, so that it stays float32. `name.endswith(...)`
    takes a tuple of endings as well.
    """
    ### BEGIN SOLUTION
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data[...] = 0
        elif parameter.ndim >= 2:
            spread = 0.02 / math.sqrt(2 * num_layers) if name.endswith(RESIDUAL_PROJECTIONS) else 0.02
            parameter.data[...] = spread * default_generator().standard_normal(parameter.shape)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-transformers-initial", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def check_start(module, num_layers):
    gpt2_initial(module, num_layers)
    for name, array in module.state_dict().items():
        assert array.dtype == np.float32, f"{name}: write into the float32 array that is there, this is {array.dtype}"
        if "norm" in name:
            close(array, np.full(array.shape, 1.0 if name.endswith("weight") else 0.0), what=name, why="norms start at 1 and 0")
        elif name.endswith("bias"):
            close(array, np.zeros(array.shape), what=name)
        else:
            want = 0.02
            if name.endswith(("out_proj.weight", "linear2.weight")):
                want = 0.02 / math.sqrt(num_layers * 2)
            close(float(array.std()), want, rtol=0.1, what=f"spread of {name}")
            close(float(array.mean()), 0, atol=want / 10, what=f"mean of {name}")
            assert np.abs(array).max() > 2.5 * want, f"{name}: normally distributed has tails, this ends at {np.abs(array).max():.3f}"


def test_initial():
    block = TransformerBlock(48, 4, 64)
    manual_seed(1)
    check_start(block, 8)
    first = block.state_dict()["attention.out_proj.weight"]
    manual_seed(1)
    gpt2_initial(block, 8)
    close(block.state_dict()["attention.out_proj.weight"], first, why="draw from default_generator(): a seed repeats it")
    check_start(ModuleList([TransformerBlock(48, 4, 64), Linear(64, 64), Embedding(50, 48)]), 2)
    ### BEGIN HIDDEN TESTS
    deep = int(np.random.default_rng().integers(3, 60))
    check_start(ModuleList([TransformerBlock(64, 2, 48), TransformerBlock(64, 2, 48)]), deep)
    ### END HIDDEN TESTS


test_initial()

# %% [markdown]
# ## 7. The whole network
#
# ### Exercise: `Transformer`

# %% nbgrader={"grade": false, "grade_id": "transformers-model", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Transformer(Module):
    """A language model: from token ids to logits for each next token. Its parameters are those of GPT-2.

    Source: Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2).

    Parameters
    ----------
    vocab_size
        V, how many tokens there are.
    embed_dim
        E, the length of the vectors; divisible by ``num_heads``.
    num_heads, num_layers
        Heads in a block, and blocks.
    hidden_dim
        The length inside the feed-forward networks; usually 4 E.
    max_seq_length
        How many tokens the model can look at: its context window.
    dropout
        The probability of dropping in training: in the sum of the embeddings, and in every block.
    tie_weights
        Let the head and the token embedding share one table.

    Attributes
    ----------
    token_embedding, position_embedding
        Tables of shape (V, E) and (max_seq_length, E).
    blocks
        A list of ``TransformerBlock``.
    norm, head
        The last LayerNorm, and a Linear from E to V without bias.

    Raises
    ------
    TypeError, ValueError
        If a size is no whole number or less than 1, or ``embed_dim`` is not divisible by ``num_heads``.

    TODO: Fill in the blanks: the parts, `features` and `forward`.

    APPROACH:
    1. `blocks`: a ModuleList of `num_layers` blocks, each a new one. Then `norm`, and `head` without bias.
    2. If `tie_weights`, the head's weight is the token embedding's: the same Parameter.
    3. `features`: `embed`, then each block with the mask, then the last norm.
    4. The mask: causal, for as many positions as there are ids. If the caller has one too: both (`&`), after
       `check_mask(mask, shape)`; the scores' shape is (..., num_heads, T, T).
    5. `forward`: the head of the features.

    EXAMPLE:
    >>> model = Transformer(vocab_size=65, embed_dim=32, num_heads=4, num_layers=2, hidden_dim=128, max_seq_length=16)
    >>> model([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3, 65)

    HINT: `token_ids(...)` gives ids of shape (T,) or (B, T): the axes in front of the heads are `ids.shape[:-1]`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_heads: int,
        num_layers: int,
        hidden_dim: int,
        max_seq_length: int,
        dropout: float = 0.0,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = whole_size("Transformer", "vocab_size", vocab_size)
        self.num_heads = whole_size("Transformer", "num_heads", num_heads)
        self.max_seq_length = whole_size("Transformer", "max_seq_length", max_seq_length)
        self.tie_weights = tie_weights
        num_layers = whole_size("Transformer", "num_layers", num_layers)
        self.token_embedding = Embedding(self.vocab_size, embed_dim)
        self.position_embedding = Embedding(self.max_seq_length, embed_dim)
        self.dropout = Dropout(dropout)
        ### BEGIN SOLUTION
        self.blocks = ModuleList(
            TransformerBlock(embed_dim, num_heads, hidden_dim, dropout) for _ in range(num_layers)
        )
        self.norm = LayerNorm(embed_dim)
        self.head = Linear(embed_dim, vocab_size, bias=False)
        if tie_weights:
            self.head.weight = self.token_embedding.weight
        ### END SOLUTION
        gpt2_initial(self, num_layers)

    def embed(self, ids: Array, start: int = 0) -> Tensor:
        """The vectors (..., T, E) of ``ids`` (..., T), the first of which stands at position ``start`` of the text."""
        places: Tensor = self.position_embedding(np.arange(start, start + ids.shape[-1]))
        return self.dropout(self.token_embedding(ids) + places)  # type: ignore[no-any-return]

    def features(self, input_ids: Any, mask: Any = None) -> Tensor:
        """What the head reads: (..., T, E); see ``forward``."""
        ids = token_ids(input_ids, self.vocab_size, self.max_seq_length)
        ### BEGIN SOLUTION
        length = ids.shape[-1]
        allowed = causal_mask(length)
        if mask is not None:
            allowed = allowed & check_mask(mask, (*ids.shape[:-1], self.num_heads, length, length))
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, allowed)
        normed: Tensor = self.norm(x)
        return normed
        ### END SOLUTION

    def forward(self, input_ids: Any, mask: Any = None) -> Tensor:
        """The logits for the token that follows each position, which sees itself and what came before.

        Parameters
        ----------
        input_ids
            Whole numbers of shape (T,) or (B, T): a (nested) list, an array or a Tensor.
        mask
            Boolean, True where a query may attend, beside the causal mask: (B, 1, 1, T) for padding.

        Returns
        -------
        Tensor
            Of shape (T, V) or (B, T, V).

        Raises
        ------
        TypeError, IndexError, ValueError
            See ``token_ids``, and ``check_mask`` for the mask.
        """
        ### BEGIN SOLUTION
        logits: Tensor = self.head(self.features(input_ids, mask))
        return logits
        ### END SOLUTION

    def generate(self, input_ids: Any, max_new_tokens: int, temperature: float = 0.0) -> Tensor:
        """``input_ids`` with ``max_new_tokens`` more tokens; see the function ``generate``."""
        return generate(self, input_ids, max_new_tokens, temperature)

    def extra_repr(self) -> str:
        """``max_seq_length=64, tie_weights=False``"""
        return f"max_seq_length={self.max_seq_length}, tie_weights={self.tie_weights}"


def token_ids(input_ids: Any, vocab_size: int, max_seq_length: int | None = None) -> Array:
    """``input_ids``, a (nested) list, an array or a Tensor, as an integer array of shape (T,) or (B, T), T at least 1.

    Raises
    ------
    TypeError, IndexError
        If they are no whole numbers from 0 to ``vocab_size`` - 1; see ``check_ids``.
    ValueError
        If the shape is another one, or there are more than ``max_seq_length`` tokens.
    """
    ids = check_ids(input_ids, vocab_size)
    if ids.ndim not in (1, 2) or ids.shape[-1] == 0:
        raise ValueError(f"Transformer: ids have the shape (T,) or (B, T) with at least one token, got {ids.shape}")
    if max_seq_length is not None and ids.shape[-1] > max_seq_length:
        raise ValueError(
            f"Transformer: {ids.shape[-1]} tokens do not fit into the context window, max_seq_length {max_seq_length}; "
            f"take the last ones: ids[..., -{max_seq_length}:]"
        )
    return ids

# %% nbgrader={"grade": true, "grade_id": "test-transformers-model", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
def transformer_by_the_book(state, layers, heads, ids, mask):
    """The features and the logits of a transformer, from plain arrays."""
    x = state["token_embedding.weight"][ids] + state["position_embedding.weight"][: ids.shape[-1]]
    for layer in range(layers):
        x = block_by_the_book(state, heads, x, mask, f"blocks.{layer}.")
    x = normalised(x, state["norm.weight"], state["norm.bias"], 1e-5)
    return x, x @ state["head.weight"].T


def test_transformer():
    rng = np.random.default_rng(6)
    model = Transformer(11, 6, 3, 2, 10, 8)
    count = sum(p.size for p in model.parameters())
    want = sum(transformer_size(11, 6, 2, 10, 8).values())
    assert count == want, f"expected {want} parameters, got {count}"
    spread = float(model.blocks[0].feed_forward.linear1.weight.data.std())
    assert 0.01 < spread < 0.03, f"gpt2_initial comes last and draws all weights: spread 0.02, got {spread:.3f}"
    state = drawn_state(model, rng)
    ids = rng.integers(0, 11, size=(2, 5))
    features, logits = transformer_by_the_book(state, 2, 3, ids, np.tri(5, dtype=bool))
    close(model.features(ids).data, features, rtol=1e-3, atol=1e-3, what="features", why="embed, blocks with a causal mask, norm")
    for name, given in [("an array", ids), ("a Tensor", Tensor(ids)), ("a list", ids.tolist())]:
        close(model(given).data, logits, rtol=1e-3, atol=2e-3, what=f"logits of {name}")
    close(model(ids[1]).data, logits[1], rtol=1e-3, atol=2e-3, what="logits without a batch")
    seen = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    both = np.tri(5, dtype=bool) & seen[:, None, :]
    _, hidden = transformer_by_the_book(state, 2, 3, ids, both)
    got = model(ids, seen[:, None, None, :]).data
    close(got, hidden, rtol=1e-3, atol=2e-3, what="logits with padding", why="causal_mask & the mask that came, in every block")
    close(model.features(ids, seen[:, None, None, :]).data, transformer_by_the_book(state, 2, 3, ids, both)[0], rtol=1e-3, atol=1e-3)
    with raises(TypeError, "mask != 0", why="check_mask says what is wrong with a mask of numbers"):
        model(ids, np.ones((5, 5)))
    with raises(ValueError, "(2, 3, 5, 5)", why="scores have the shape (B, H, T, T)"):
        model(ids, np.ones((4, 5), bool))
    with raises(ValueError, "scores of shape (3, 5, 5)", why="without a batch, scores have the shape (H, T, T)"):
        model(ids[0], np.ones((2, 1, 5, 5), bool))
    with raises(ValueError, "9", "8"):
        model(np.zeros(9, int))
    model(ids).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing, f"without a gradient: {', '.join(missing)}"
    model.zero_grad()
    model.features(ids).sum().backward()
    assert model.norm.weight.grad is not None, "features: no gradient came through, return the Tensor itself"
    tied = Transformer(11, 6, 3, 2, 10, 8, tie_weights=True)
    tied_count = sum(p.size for p in tied.parameters())
    assert tied_count == count - 66, f"tied, there are 66 parameters less than {count}; got {tied_count}"
    drawn_state(tied, rng)
    state = tied.state_dict()
    close(state["head.weight"], state["token_embedding.weight"], why="one table for both")
    silent = Transformer(11, 6, 3, 2, 10, 8, dropout=1.0)
    close(silent.features(ids).data, np.zeros((2, 5, 6)), what="dropout=1.0", why="embeddings and all branches are dropped")
    probabilities = [block.feed_forward.dropout.p for block in silent.blocks]
    assert probabilities == [1.0, 1.0], f"every block gets the dropout: two times 1.0, got {probabilities}"
    ### BEGIN HIDDEN TESTS
    deep, heads = (int(n) for n in np.random.default_rng().integers(1, 4, size=2))
    bench = Transformer(9, 4 * heads, heads, deep, 5, 7)
    numbers, text = drawn_state(bench, np.random.default_rng()), np.random.default_rng().integers(0, 9, size=(3, 7))
    _, answer = transformer_by_the_book(numbers, deep, heads, text, np.tri(7, dtype=bool))
    close(bench(text).data, answer, rtol=1e-3, atol=3e-3)
    ### END HIDDEN TESTS


test_transformer()

# %% [markdown]
# A model that you may count yourself, by the names of its parameters:

# %%
#| export
PARTS = ("token_embedding", "position_embedding", "attention", "feed_forward", "norms", "head")


def count_by_part(model: Module) -> dict[str, int]:
    """How many parameters a ``Transformer`` has, by part, in the order of ``PARTS``; a shared table counts once."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[next(part for part in PARTS if part.rstrip("s") in name)] += parameter.size
    return counts

# %%
manual_seed(0)
small = Transformer(vocab_size=65, embed_dim=128, num_heads=4, num_layers=4, hidden_dim=512, max_seq_length=64)
print(count_by_part(small) == transformer_size(65, 128, 4, 512, 64), f"{sum(count_by_part(small).values()):,}")

# %% [markdown]
# ### What a good start is worth
#
# Predict the loss of the untrained network on 65 characters. And what if the token table, tied to the head, began with
# a spread of 1, as PyTorch's Embedding does? Then: how does the stream grow over 24 blocks, with the factor 1/√(2N) and
# without?

# %%
tokens = np.random.default_rng(0).integers(0, 65, size=(16, 65))


def loss_of(model):
    with no_grad():
        return cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).item()


manual_seed(0)
tied = Transformer(65, 128, 4, 4, 512, 64, tie_weights=True)
print(f"ln 65 = {math.log(65):.3f}; untrained {loss_of(small):.3f}, tied {loss_of(tied):.3f}", end="; ")
tied.token_embedding.weight.data *= 50
print(f"tied, with a table of spread 1: {loss_of(tied):.1f}")


def growth(factor):
    manual_seed(0)
    model = Transformer(65, 128, 4, 24, 512, 64)
    for name, parameter in model.named_parameters():
        if name.endswith(RESIDUAL_PROJECTIONS):
            parameter.data *= factor
    with no_grad():
        x = model.embed(tokens[:4, :64])
        begin = x.data.std()
        for block in model.blocks:
            x = block(x, causal_mask(64))
    return x.data.std() / begin


print(f"stream after 24 blocks: {growth(1):.2f} times as wide with the factor, {growth(math.sqrt(48)):.2f} without")

# %% [markdown]
# 4.205 and 4.221, where ln 65 is 4.174: the network says "I do not know", with a little noise. With the large table the
# loss is 126. The stream then is nearly the token's own vector, so the tied head gives *that* token the largest
# score, some 128: the model is quite sure that every character is doubled.
#
# And the stream: 24 blocks make it 1.7 times as wide with the factor, 11 times without.

#
# ### What training has to keep
#
# Parameters are only one part of the memory. For the way back every operation keeps its inputs, and those grow with the
# number of tokens. For the small model: with how many texts of 64 characters do the kept arrays outgrow weights,
# gradients and Adam's two averages together?

# %%
batches = [1, 2, 4, 8, 16, 32]
kept = []
for size in batches:
    rows = np.random.default_rng(0).integers(0, 65, size=(size, 65))
    loss = cross_entropy(small(rows[:, :-1]), rows[:, 1:])
    kept.append((kept_bytes(loss) - sum(p.data.nbytes for p in small.parameters())) / 1e6)
    loss.backward()  # lets go of them
    small.zero_grad()
weights = sum(p.data.nbytes for p in small.parameters()) / 1e6
figure, axes = plt.subplots(figsize=(6, 3.4))
axes.loglog(batches, kept, "o-", base=2, label="kept for the way back")
axes.axhline(weights, color="C1", label="weights")
axes.axhline(4 * weights, color="C3", label="weights, gradients, Adam's averages")
axes.set_xticks(batches, batches)
axes.set_yticks([4, 8, 16, 32, 64, 128, 256], [4, 8, 16, 32, 64, 128, 256])
axes.set_xlabel("texts of 64 tokens in a batch")
axes.set_ylabel("MB")
axes.grid(alpha=0.3)
axes.legend(fontsize=8)
plt.tight_layout()
plt.show()
print(f"weights {weights:.1f} MB; kept {kept[0]:.1f} MB for one text, {kept[4]:.0f} MB for 16: {kept[4] / 1024 * 1e3:.0f} kB a token")

# %% [markdown]
# With four texts already. (The weights themselves are not counted among what is kept.) It is 63 kB for each token: 63,000
# bytes to learn from one character. In the reflection you say what of this grows with width, and what with depth.
#
# ## 8. It writes
#
# Generation is a loop: logits for the last position, choose a token, append it, again. Two ways to choose:
#
# - **greedy**: the largest logit. Always the same text, and soon going in circles.
# - **sampling**: token i with probability softmax(logits / temperature). A low temperature prefers the likely ones.
#
# There is a trick that does both in one line (Gumbel 1954). Add to each logit a random number from Gumbel's
# distribution, times the temperature, and take the largest: token i wins with just the probability above. With
# temperature 0 the noise is gone, and the largest logit wins.
#
# The text may grow longer than the context window. Then the window slides: the model sees the last `max_seq_length`
# tokens.
#
# ### Exercise: `next_ids` and `generate`

# %% nbgrader={"grade": false, "grade_id": "transformers-generate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def next_ids(logits: Array, temperature: float = 0.0) -> Array:
    """A token for each row of ``logits`` (..., V), as integers (...).

    Token i is drawn by the default generator with probability softmax(logits / temperature); for temperature 0 it is
    the one with the largest logit.

    Raises
    ------
    ValueError
        If the temperature is negative.

    TODO: The largest of logits and noise.

    APPROACH:
    1. Noise of the shape of the logits: `default_generator().gumbel(size=...)`.
    2. The index of the largest sum, along the last axis.

    EXAMPLE:
    >>> next_ids(np.array([[0.0, 5.0, 1.0], [2.0, 0.0, 1.0]]))
    array([1, 0])

    HINT: The temperature multiplies the noise.
    """
    if not temperature >= 0:
        raise ValueError(f"generate: temperature should be 0 or more, got {temperature}")
    ### BEGIN SOLUTION
    noise = default_generator().gumbel(size=logits.shape)
    winners: Array = np.argmax(logits + temperature * noise, axis=-1)
    return winners
    ### END SOLUTION


def generate(model: Transformer, input_ids: Any, max_new_tokens: int, temperature: float = 0.0) -> Tensor:
    """``input_ids`` with ``max_new_tokens`` more tokens, each chosen by ``next_ids`` from the model's logits.

    The model is in evaluation mode meanwhile, nothing is recorded. A text longer than the context window is cut: each
    token is chosen from the last ``max_seq_length`` ones.

    Parameters
    ----------
    input_ids
        Whole numbers of shape (T,) or (B, T), T at least 1: a (nested) list, an array or a Tensor.
    max_new_tokens
        How many tokens are added.
    temperature
        0 takes the likeliest token; 1 draws from the model's probabilities.

    Returns
    -------
    Tensor
        int64, of shape (T + max_new_tokens,) or (B, T + max_new_tokens).

    Raises
    ------
    TypeError, IndexError, ValueError
        See ``token_ids`` and ``next_ids``; or if ``max_new_tokens`` is no whole number, or negative.

    TODO: The loop.

    APPROACH:
    1. As often as tokens are wanted (the model is in evaluation mode already):
    2. Look at the last `max_seq_length` ids. The features of the last position go through `model.head`: the other
       positions' logits need not be computed.
    3. `next_ids`, and `np.concatenate` along the last axis.

    EXAMPLE:
    >>> model = Transformer(65, 32, 4, 2, 128, 16)
    >>> generate(model, [1, 2, 3], max_new_tokens=20).shape
    (23,)

    HINT: `ids[..., -n:]` and `features[..., -1, :]` work with a batch and without. `chosen[..., None]` adds an axis.
    """
    ids = token_ids(input_ids, model.vocab_size)
    if index(max_new_tokens) < 0:
        raise ValueError(f"generate: max_new_tokens should be 0 or more, got {max_new_tokens}")
    with evaluating(model):
        ### BEGIN SOLUTION
        for _ in range(max_new_tokens):
            last = model.features(ids[..., -model.max_seq_length :])[..., -1, :]
            chosen = next_ids(model.head(last).data, temperature)
            ids = np.concatenate([ids, chosen[..., None]], axis=-1)
        ### END SOLUTION
    return Tensor(ids)

# %% nbgrader={"grade": true, "grade_id": "test-transformers-generate", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def lively_state(module, rng):
    """New numbers for a transformer under which each text goes its own way."""
    state = drawn_state(module, rng, 0.9)
    state["norm.bias"] *= 0
    module.load_state_dict(state)
    return state


def written_by_the_book(state, layers, heads, ids, count, window):
    """The greedy continuation of ids (B, T), from plain arrays."""
    for _ in range(count):
        seen = ids[:, -window:]
        _, logits = transformer_by_the_book(state, layers, heads, seen, np.tri(seen.shape[1], dtype=bool))
        ids = np.concatenate([ids, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    return ids


def check_shares(temperature):
    logits = np.array([1.0, 0.0, -1.0, 2.0])
    want = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    picked = next_ids(np.tile(logits, (20_000, 1)), temperature)
    shares = [float((picked == token).mean()) for token in range(4)]
    close(shares, want, atol=0.02, rtol=0, what=f"shares at temperature {temperature}", why="temperature times Gumbel noise")


def test_generate():
    close(next_ids(np.array([[0.0, 5.0, 1.0], [2.0, 0.0, 1.0]])), [1, 0], why="the largest logit of each row")
    close(next_ids(np.zeros((2, 3, 5))).shape, (2, 3), what="shape of next_ids")
    manual_seed(0)
    check_shares(1.0)
    check_shares(3.0)
    check_shares(0.5)
    manual_seed(5)
    first = next_ids(np.zeros((40, 9)), 1.0)
    manual_seed(5)
    close(next_ids(np.zeros((40, 9)), 1.0), first, why="draw from default_generator(): a seed repeats it")
    with raises(ValueError, "-0.5"):
        next_ids(np.zeros(3), -0.5)
    rng = np.random.default_rng(7)
    model = Transformer(11, 6, 3, 2, 10, 5, dropout=0.5)
    state, prompt = lively_state(model, rng), rng.integers(0, 11, size=(3, 3))
    want = written_by_the_book(state, 2, 3, prompt, 8, 5)
    got = generate(model, prompt, 8)
    assert isinstance(got, Tensor), f"expected a Tensor, got {type(got).__name__}"
    why = "greedy, in evaluation mode, from the last 5 tokens once the text is longer than the window"
    close(got.data, want, dtype=np.int64, what="8 more tokens", why=why)
    assert model.training, "the model is in training again afterwards"
    for name, given in [("a Tensor", Tensor(prompt)), ("a list", prompt.tolist())]:
        close(generate(model, given, 2).data, want[:, :5], what=f"2 more tokens of {name}")
    close(generate(model, prompt[1], 8).data, want[1], what="without a batch")
    close(generate(model, prompt, 0).data, prompt, what="no more tokens")
    close(model.generate(prompt, max_new_tokens=3).data, want[:, :6], what="Transformer.generate")
    manual_seed(9)
    drawn = {tuple(generate(model, [1, 2], 6, temperature=50.0).tolist()) for _ in range(5)}
    assert len(drawn) == 5, "at a high temperature five texts differ: hand the temperature on"
    ### BEGIN HIDDEN TESTS
    check_shares(float(np.random.default_rng().uniform(0.5, 3)))
    bench = Transformer(9, 8, 2, 1, 5, 4)
    numbers, begun = lively_state(bench, np.random.default_rng()), np.random.default_rng().integers(0, 9, size=(2, 6))
    close(generate(bench, begun, 5).data, written_by_the_book(numbers, 1, 2, begun, 5, 4))
    ### END HIDDEN TESTS


test_generate()

# %% [markdown]
# ### Before and after
#
# A small one: 64 wide, 2 layers, 4 heads, 64 characters of context. First what it writes untrained, then after
# 300 steps of 16 texts each. Two lines to compare the loss with: knowing nothing (ln of the number of characters), and
# knowing only how frequent each character is.

# %%
from tinytorch.core.tokenization import CharTokenizer

from tito import data

play = data.text("shakespeare")
tokenizer = CharTokenizer().fit(play)
ids = np.array(tokenizer.encode(play))
manual_seed(1)
writer = Transformer(tokenizer.vocab_size, 64, 4, 2, 256, 64, tie_weights=True)
prompt = tokenizer.encode("ROMEO:\n")
print("untrained:", repr(tokenizer.decode(writer.generate(prompt, 60, temperature=1.0).data)))

dice, losses = np.random.default_rng(0), []
optimizer = AdamW(writer.parameters(), lr=4e-3, weight_decay=0.1)
for step in range(300):
    optimizer.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 40, (300 - step) / 200)
    window = ids[dice.integers(0, len(ids) - 65, size=(16, 1)) + np.arange(65)]  # (16, 65)
    loss = cross_entropy(writer(window[:, :-1]), window[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

frequencies = np.bincount(ids) / len(ids)
frequencies = frequencies[frequencies > 0]
by_frequency = float(-(frequencies * np.log(frequencies)).sum())
figure, axes = plt.subplots(figsize=(6.5, 3.2))
axes.plot(losses, linewidth=0.8)
for level, label in ((math.log(tokenizer.vocab_size), "knows nothing"), (by_frequency, "knows how frequent characters are")):
    axes.axhline(level, color="grey", linestyle="--", linewidth=1)
    axes.text(300, level + 0.04, label, ha="right", fontsize=8)
axes.set_ylim(2, 4.5)
axes.set_xlabel("step")
axes.set_ylabel("cross-entropy")
plt.tight_layout()
plt.show()
print(f"loss {losses[0]:.3f} at first (ln {tokenizer.vocab_size} = {math.log(tokenizer.vocab_size):.3f}), "
      f"by frequency {by_frequency:.2f}, last 20 steps {np.mean(losses[-20:]):.2f}")

# %%
manual_seed(2)
print(tokenizer.decode(writer.generate(prompt, 250, temperature=0.8).data))
print("\ngreedy:", repr(tokenizer.decode(writer.generate(prompt, 100).data)))

# %% [markdown]
# After 300 steps, some seconds, the loss is 2.39 (last 20 steps), from 4.21. Knowing how frequent characters are would be
# 3.32. It has learned how long words are, where lines break, that a name stands in capitals with a colon behind. Greedy
# writing shows what a model of this size takes for the likeliest thing, and why nobody writes greedily: "I the the the".
# Module 16 trains the larger one, for minutes instead of seconds.
#
# ## 9. Other people's weights
#
# The network is GPT-2's, so GPT-2's weights fit, once their names are translated. And once some matrices are turned:
# the published file holds the layers' weights as (in, out), and ours are (out, in).
#
# | GPT-2 | here |
# |---|---|
# | `wte.weight`, `wpe.weight` | `token_embedding.weight`, `position_embedding.weight` |
# | `h.0.ln_1.weight`, `h.0.ln_2.weight` | `blocks.0.norm1.weight`, `blocks.0.norm2.weight` |
# | `h.0.attn.c_attn.weight` | `blocks.0.attention.in_proj_weight` |
# | `h.0.attn.c_proj.weight` | `blocks.0.attention.out_proj.weight` |
# | `h.0.mlp.c_fc.weight`, `h.0.mlp.c_proj.weight` | `blocks.0.feed_forward.linear1.weight`, `... linear2.weight` |
# | `ln_f.weight`, `lm_head.weight` | `norm.weight`, `head.weight` |

# %%
#| export
GPT2_NAMES = (
    ("wte.", "token_embedding."),
    ("wpe.", "position_embedding."),
    ("h.", "blocks."),
    (".ln_1.", ".norm1."),
    (".attn.c_attn.", ".attention.in_proj_"),
    (".attn.c_proj.", ".attention.out_proj."),
    (".ln_2.", ".norm2."),
    (".mlp.c_fc.", ".feed_forward.linear1."),
    (".mlp.c_proj.", ".feed_forward.linear2."),
    ("ln_f.", "norm."),
    ("lm_head.", "head."),
)


def from_gpt2(state: Mapping[str, Any], transposed: bool = True) -> dict[str, Array]:
    """The weights of a GPT-2 under the names that ``Transformer.load_state_dict`` wants.

    Parameters
    ----------
    state
        Arrays by GPT-2's names, with "transformer." in front or without. Its masks are left out. Without a head of
        its own, the head gets the table of the tokens.
    transposed
        Whether the layers' matrices are (in, out), as in the published files; in nanoGPT they are not.
    """
    translated: dict[str, Array] = {}
    for full_name, value in state.items():
        name = full_name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        array = np.asarray(value)
        is_turned = transposed and ".c_" in name and name.endswith("weight")
        for theirs, ours in GPT2_NAMES:
            if theirs.startswith(".") or name.startswith(theirs):
                name = name.replace(theirs, ours, 1)
        translated[name] = array.T if is_turned else array
    if "token_embedding.weight" in translated:
        translated.setdefault("head.weight", translated["token_embedding.weight"])
    return translated

# %%
names = {"h.0.ln_1.weight": np.ones(8), "h.0.attn.c_attn.weight": np.ones((8, 24)), "wte.weight": np.ones((65, 8))}
{name: array.shape for name, array in from_gpt2(names).items()}

# %% [markdown]
# A `torch.nn.TransformerEncoderLayer(..., norm_first=True)` fits as well: rename `self_attn.` to `attention.`, and put
# `feed_forward.` before `linear1.` and `linear2.`; its norms have our names already.
#
# ## What you have built
#
# `LayerNorm`, one operation with a rule that you derived; `PositionwiseFeedForward`, `TransformerBlock` and
# `Transformer`, with GPT-2's start, tied weights, `generate`, and GPT-2's weights if you have them; `transformer_size`
# and `count_by_part`.
#
# In the terminal: `tito module complete 14`. Each new token still computes the whole text again; module 15 keeps what it
# has, and chooses tokens better.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "transformers-reflect-norm-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Which norm where.** Use your figure of section 4. Why does the stream grow by a factor in each block with residuals
# alone, and only like a root of the depth with pre-norm? What does pre-norm need at the very end that post-norm does
# not? And why does LayerNorm suit text better than a normalisation over the batch?
#
# === BEGIN MARK SCHEME ===
# 1 point: f(x) alone is proportional to x, so each sum multiplies the size; f(norm(x)) has a fixed size, and variances of
# independent terms add up. 1 point: a last norm, since nobody normalises the stream itself. 1 point: a batch mixes texts,
# lengths and padding, and is different when one text is written; LayerNorm looks at one vector alone.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "transformers-reflect-norm", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# A linear layer's output is proportional to its input. With residuals alone a stream that is twice as large gets twice as
# large an addition, so every step multiplies it: exponential growth. With pre-norm f reads vectors of size 1, whatever the
# stream is, so each addition has the same size; the variances of 2 N nearly independent terms add up to 2 N, and the size
# is its root. Nobody normalises pre-norm's stream, so the head needs a norm before it. Statistics over a batch would mix
# texts, positions and padding, and differ for a batch of one that writes; LayerNorm depends on one vector alone.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "transformers-reflect-size-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A model twice as wide.** You double embed_dim and hidden_dim of the small model (V = 65) and leave the rest. By how
# much do the parameters, the multiplications for one token, and the memory kept for the way back grow? Same question for
# twice as many layers. For which of the two would you worry about the learning rate, or about the start, and why?
#
# === BEGIN MARK SCHEME ===
# 1 point: width: parameters and multiplications about 4 times, kept memory about 2 times (weights of attention unchanged).
# 1 point: layers: all three about 2 times. 1 point: more layers need the factor 1/sqrt(2N); wider layers sum more terms.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "transformers-reflect-size", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The blocks are nearly everything here, and their matrices are E x E and E x hidden: 4 times the parameters and
# multiplications. What is kept is mainly vectors of length E and hidden for each token, so twice; the T x T weights of the
# heads do not change. Twice the layers: twice everything. Depth adds to the stream more often, so the start must shrink by
# 1/sqrt(2N), which gpt2_initial does; in wide layers each output sums more terms, so a fixed 0.02 makes larger outputs and
# each step of Adam changes the output more: a smaller learning rate.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "transformers-reflect-gradient-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A gradient that looks right.** A library's LayerNorm treated mean and deviation as constants on the way back. Models
# trained all the same, only worse, and nobody noticed for months. Why did the loss still go down? Give two tests that find
# the mistake, one of them without finite differences and without another library.
#
# === BEGIN MARK SCHEME ===
# 1 point: the wrong gradient is the right one plus parts along (1, ..., 1) and along the row, so it still points downhill
# on the whole; weights' gradients are right. 1 point: finite differences in float64. 1 point: the gradient of each row sums
# to 0 and is (nearly) orthogonal to the row.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "transformers-reflect-gradient", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The wrong gradient, s times a, contains the right one and two parts more, along a constant shift of the row and along the
# row itself, which the layer undoes. So it still has a positive product with the right one, steps go down, only with
# useless movement in them; weight and bias of the norm get right gradients anyway. Tests: central differences in float64
# for random rows; or, since shifting or stretching a row changes nothing, the gradient of every row must add up to 0 and
# its product with the centred row must be about 0 (exactly, for eps = 0).
# ### END SOLUTION
