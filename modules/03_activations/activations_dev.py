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
# # Activations
#
# > Activations: the bends between layers, as functions and as objects, safe from -10,000 to 10,000.
#
# A layer of a network multiplies by weights and adds a bias. Stack a hundred of them, and what have you got? This
# module begins with the disappointing answer, and then brings what has to stand between the layers: a function that
# is applied to each number and is *not* a straight line.
#
# ```
#      step          ReLU          sigmoid         tanh           GELU
#
#         ┌───           /           ╭───            ╭───            /
#         │             /           ╱               ╱               ╱
#      ───┘         ───┘         ──╯             ──╯             ──-╯
# ```
#
# Each is one line of mathematics. As a program, the line can overflow, lose all its digits, or take hundreds of times as
# long as it has to. So every exercise here asks three questions: is it right, is it right *everywhere*, and what
# does it cost?
#
# Plan for about four hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.activations
#| export
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.core.tensor import TANH, Array, Op, Tensor, apply, axis_in_range

# %%
import matplotlib.pyplot as plt

from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed, randn, set_recorder, where

# %% [markdown]
# ## 1. Two layers that are one
#
# Here are two layers in a row, with 2,000 weights between 40 inputs and 10 outputs, and nothing between them. Predict:
# how many weights does a *single* layer need to compute exactly the same?

# %%
manual_seed(0)
w1, b1, w2, b2 = randn(40, 40), randn(40), randn(40, 10), randn(10)
x = randn(5, 40)
print("two layers:", w1.size + w2.size, "weights and", b1.size + b2.size, "biases")
((x @ w1 + b1) @ w2 + b2).shape

# %% [markdown]
# ### Exercise: `one_layer`
#
# Multiply `(x @ w1 + b1) @ w2 + b2` out, and collect what stands with x and what does not.

# %% nbgrader={"grade": false, "grade_id": "activations-one-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
def one_layer(w1, b1, w2, b2):
    """The weight and the bias of the one layer that computes what two layers compute.

    TODO: Find w and b such that `x @ w + b` equals `(x @ w1 + b1) @ w2 + b2` for every x.

    APPROACH:
    1. A product with a sum in it is the sum of two products.
    2. What x is multiplied by is the weight; the rest is the bias.
    3. Return the two as a tuple, the weight first.

    EXAMPLE:
    >>> w, b = one_layer(Tensor([[2.0]]), Tensor([1.0]), Tensor([[3.0]]), Tensor([5.0]))
    >>> w, b
    (Tensor([[6.]]), Tensor([8.]))

    HINT: Matrix products may be grouped as you like, but the order of the factors stays.
    """
    ### BEGIN SOLUTION
    return w1 @ w2, b1 @ w2 + b2
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-one-layer", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_one_layer():
    w, b = one_layer(Tensor([[2.0]]), Tensor([1.0]), Tensor([[3.0]]), Tensor([5.0]))
    close(w.data, [[6]], what="weight", why="x goes through both weights: 2 * 3")
    close(b.data, [8], what="bias", why="the first bias goes through the second layer: 1 * 3 + 5")
    swap, stretch = Tensor([[0.0, 1.0], [1.0, 0.0]]), Tensor([[1.0, 0.0], [0.0, 10.0]])
    w, b = one_layer(swap, Tensor([1.0, 2.0]), stretch, Tensor([0.0, 0.0]))
    close(w.data, [[0, 10], [1, 0]], what="weight", why="first w1, then w2: the order of the factors matters")
    close(b.data, [1, 20], what="bias")
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    first, second = fresh.normal(size=(3, 4)), fresh.normal(size=(4, 2))
    shift, offset, rows = fresh.normal(size=4), fresh.normal(size=2), fresh.normal(size=(6, 3))
    w, b = one_layer(*(Tensor(part, dtype=np.float64) for part in (first, shift, second, offset)))
    close(rows @ w.data + b.data, (rows @ first + shift) @ second + offset, rtol=1e-10)
    ### END HIDDEN TESTS


test_one_layer()

# %%
w, b = one_layer(w1, b1, w2, b2)
print("one layer: ", w.size, "weights and", b.size, "biases")
print("largest difference:", np.abs(((x @ w1 + b1) @ w2 + b2 - (x @ w + b)).data).max())

# %% [markdown]
# 400 weights do the work of 2,000, and the same argument melts a hundred layers into one. Without something between
# them that is not linear, depth buys nothing.
#
# ## 2. The step, and why it does not learn
#
# The first artificial neuron (McCulloch and Pitts, 1943) and Rosenblatt's perceptron (1957) put a *step* there: the
# output is 1 if the sum is not negative, else 0. A neuron fires or it does not.
#
# Learning asks of every weight: *if I turn it a little, does the result get better?* That is a question about the
# **slope** of what the number passes through. Predict: what is the slope of the step at -1, at 2, and at 0?
#
# ### Exercise: `heaviside` and `slopes`
#
# We shall want to see the slope of each activation, so measure it: go a small step to both sides, and look how far the
# value went. It takes float64: a difference of two float32 numbers that agree in five digits has two digits left.

# %% nbgrader={"grade": false, "grade_id": "activations-slopes", "locked": false, "schema_version": 3, "solution": true, "task": false}
def heaviside(x):
    """1 where the Tensor x is not negative, else 0.

    TODO: Choose between 1.0 and 0.0, number by number.

    APPROACH:
    1. `where(condition, a, b)` of module 02 takes a where the condition holds, b elsewhere.

    EXAMPLE:
    >>> heaviside(Tensor([-2.0, 0.0, 3.0]))
    Tensor([0., 1., 1.])

    HINT: `x >= 0` is a Tensor of booleans.
    """
    ### BEGIN SOLUTION
    return where(x >= 0, 1.0, 0.0)
    ### END SOLUTION


def slopes(function, points, step=1e-4):
    """The slope of a function of Tensors at each of ``points``, an array; as a float64 array.

    TODO: How far the value goes between `step` below and `step` above each point, divided by the way between.

    APPROACH:
    1. Two Tensors of float64, for the points above and the points below: `Tensor(..., dtype=np.float64)`.
    2. Call the function on both, take the difference of their `.data`, and divide.

    EXAMPLE:
    >>> slopes(lambda t: t * t, np.array([1.0, 3.0])).round(6)
    array([2., 6.])

    HINT: From one side to the other it is two steps.
    """
    ### BEGIN SOLUTION
    above, below = (Tensor(points + side, dtype=np.float64) for side in (step, -step))
    return (function(above).data - function(below).data) / (2 * step)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-slopes", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_slopes():
    step = heaviside(Tensor([[-2.0, -0.001], [0.0, 3.0]]))
    close(step.data, [[0, 0], [1, 1]], dtype=np.float32, why="1.0 where the condition holds, at 0 too, else 0.0")
    points = np.array([[-1.0, 0.0], [0.5, 3.0]])
    close(slopes(lambda t: t * 3.0 + 1.0, points), np.full((2, 2), 3.0), why="a straight line has one slope")
    close(slopes(lambda t: t * t, points), 2 * points, why="over two steps, so divide by 2 * step")
    close(slopes(lambda t: t * t * t, points, step=0.5), 3 * points**2 + 0.25, why="use the step that is given")
    fine = slopes(lambda t: t + 1000.0, points)
    close(fine, np.ones((2, 2)), dtype=np.float64, rtol=1e-7, why="float64: float32 has 7 digits, and 1000.0001 takes 8")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().normal(size=7)
    close(slopes(lambda t: t.exp(), drawn), np.exp(drawn), rtol=1e-6)
    close(heaviside(Tensor(drawn)).data, (drawn >= 0) * 1.0)
    ### END HIDDEN TESTS


test_slopes()

# %%
print("slope of the step at -1 and 2:", slopes(heaviside, np.array([-1.0, 2.0])))
for step in (1e-1, 1e-2, 1e-3):
    print(f"at 0, measured with a step of {step}:", slopes(heaviside, np.array([0.0]), step))

# %% [markdown]
# Zero nearly everywhere, and at 0 whatever you like: it grows without end as the step shrinks. Turn a weight a little,
# and nothing happens; turn it a little more, and the output jumps. The answer "does it get better?" is always "no
# difference". Rosenblatt had a rule that trained the last layer all the same, but none for a layer before it.
#
# So: not a straight line, and with a slope that says something.
#
# ## 3. ReLU: the cheapest bend
#
# The **rectified linear unit** lets positive numbers through and makes the others 0. One bend, at 0, and it is enough.
# Its slope is 1 on one side and 0 on the other; *at* 0 there is none, and everybody agrees to take 0.
#
# A unit whose input is negative for every example has slope 0 for every example: it can never come back. It is called
# **dead**. The *leaky* ReLU leaves negative numbers a small slope, 0.01 by default, so that nothing dies.
#
# Sources: Nair and Hinton 2010, "Rectified linear units improve restricted Boltzmann machines"; Maas, Hannun and Ng
# 2013, "Rectifier nonlinearities improve neural network acoustic models".
#
# ### Exercise: `relu_forward` and `leaky_relu_forward`
#
# These two get arrays. Below them stand the operations that take them through the door of module 02, and the functions
# for Tensors.

# %% nbgrader={"grade": false, "grade_id": "activations-relu", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def relu_forward(x: Array) -> Array:
    """``x`` where it is positive, else 0.

    TODO: The larger of the number and 0.

    APPROACH:
    1. `np.maximum` compares number by number.

    EXAMPLE:
    >>> relu_forward(np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 3.])

    HINT: `np.max` is another function: it looks for the largest of all.
    """
    ### BEGIN SOLUTION
    return np.maximum(x, 0)
    ### END SOLUTION


def leaky_relu_forward(x: Array, negative_slope: float) -> Array:
    """``x`` where it is positive, else ``negative_slope * x``.

    TODO: The positive part of x, plus its negative part times the slope.

    APPROACH:
    1. The positive part is what ReLU gives.
    2. The negative part is the smaller of the number and 0.

    EXAMPLE:
    >>> leaky_relu_forward(np.array([-2.0, 0.0, 3.0]), 0.1)
    array([-0.2,  0. ,  3. ])

    HINT: The larger of x and `negative_slope * x` is the same for slopes below 1, and wrong above.
    """
    ### BEGIN SOLUTION
    return relu_forward(x) + negative_slope * np.minimum(x, 0)
    ### END SOLUTION


RELU = Op("relu", relu_forward)
LEAKY_RELU = Op("leaky_relu", leaky_relu_forward)


def relu(x: Any) -> Tensor:
    """``x`` where it is positive, else 0; of the same shape and dtype."""
    return apply(RELU, x)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """``x`` where it is positive, else ``negative_slope * x``; of the same shape and, for floats, dtype."""
    return apply(LEAKY_RELU, x, negative_slope=float(negative_slope))

# %% nbgrader={"grade": true, "grade_id": "test-activations-relu", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_relu():
    x = np.array([[-2.0, -0.5, 0.0], [0.5, 1.0, 10_000.0]], np.float32)
    close(relu_forward(x), [[0, 0, 0], [0.5, 1, 10_000]], dtype=np.float32, why="np.maximum of x and 0")
    close(relu(Tensor(x)).data, [[0, 0, 0], [0.5, 1, 10_000]], dtype=np.float32)
    close(leaky_relu_forward(x, 0.1), [[-0.2, -0.05, 0], [0.5, 1, 10_000]], dtype=np.float32)
    close(leaky_relu(Tensor(x)).data, [[-0.02, -0.005, 0], [0.5, 1, 10_000]], why="pass negative_slope on")
    close(leaky_relu_forward(x, 2.0), [[-4, -1, 0], [0.5, 1, 10_000]], why="a slope above 1 is a slope, too")
    close(leaky_relu_forward(x, -1.0), [[2, 0.5, 0], [0.5, 1, 10_000]], why="with slope -1 it is the absolute value")
    close(x, [[-2, -0.5, 0], [0.5, 1, 10_000]], why="the input stays as it was")
    ### BEGIN HIDDEN TESTS
    secret = np.random.default_rng()
    drawn, tilt = secret.normal(size=(3, 5)), float(secret.uniform(0.05, 0.9))
    close(relu(Tensor(drawn, dtype=np.float64)).data, (drawn > 0) * drawn, dtype=np.float64, rtol=1e-12)
    close(leaky_relu(Tensor(drawn), tilt).data, np.where(drawn > 0, drawn, tilt * drawn), dtype=np.float32)
    close(slopes(lambda t: leaky_relu(t, tilt), np.array([-3.0, 3.0])), [tilt, 1])
    ### END HIDDEN TESTS


test_relu()

# %% [markdown]
# ### Four ways to cut off what is negative
#
# All four lines below give the same array. Two of them give it to the same numbers in another order. Predict which is
# the fastest, and by how much it differs from the slowest.

# %%
numbers = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
in_order = np.sort(numbers)
for label, cut in {
    "np.maximum(x, 0)": lambda: np.maximum(numbers, 0),
    "x * (x > 0)": lambda: numbers * (numbers > 0),
    "np.where(x > 0, x, 0)": lambda: np.where(numbers > 0, numbers, 0),
    "np.where, numbers sorted": lambda: np.where(in_order > 0, in_order, 0),
}.items():
    print(f"{label:26} {measure(cut, repeats=9).median_s * 1e3:6.2f} ms")

# %% [markdown]
# Measured on 2 cores with NumPy 2.4, the best of 40 runs: 0.5 ms for `np.maximum`, 0.4 ms for the product, 6.9 ms for
# `np.where`, and 1.3 ms for the same `np.where` on the same numbers in order. `np.where` decides number by number, and
# the processor guesses every decision in advance. Where the signs come at random, every second guess is wrong, and what
# was begun is thrown away. `np.maximum` decides nothing: one instruction takes the larger of 8 or 16 pairs.
#
# ### A bend is enough
#
# In 1969 Minsky and Papert showed what a perceptron cannot compute: *one or the other, but not both*. No line separates
# the two corners that are 1 from the two that are 0. Two ReLU units and an output can do it. No training: choose the
# eight numbers by hand.
#
# ```
#      (0,1) 1 ──── 0 (1,1)        hidden units:  h = relu(x @ w1 + b1)      w1 (2, 2), b1 (2,)
#            │      │              output:        y = h @ w2                 w2 (2, 1)
#      (0,0) 0 ──── 1 (1,0)
# ```
#
# ### Exercise: `xor_weights`

# %% nbgrader={"grade": false, "grade_id": "activations-xor", "locked": false, "schema_version": 3, "solution": true, "task": false}
def xor_weights():
    """Tensors w1 (2, 2), b1 (2,) and w2 (2, 1) with which `relu(x @ w1 + b1) @ w2` is the exclusive or.

    TODO: Choose the numbers.

    APPROACH:
    1. Let both units add up their two inputs: the four corners give 0, 1, 1 and 2.
    2. Give the second unit a bias, so that it is 0 for all corners but the last.
    3. The output is the first unit, minus as much of the second as is needed to bring the last corner down to 0.

    EXAMPLE:
    >>> w1, b1, w2 = xor_weights()
    >>> (relu(Tensor([[1.0, 0.0], [1.0, 1.0]]) @ w1 + b1) @ w2).tolist()
    [[1.0], [0.0]]

    HINT: There are other solutions; the test takes any that works.
    """
    ### BEGIN SOLUTION
    adding = Tensor([[1.0, 1.0], [1.0, 1.0]])
    thresholds = Tensor([0.0, -1.0])
    return adding, thresholds, Tensor([[1.0], [-2.0]])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-xor", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_xor_weights():
    w1, b1, w2 = xor_weights()
    shapes = w1.shape, b1.shape, w2.shape
    assert tuple(map(tuple, shapes)) == ((2, 2), (2,), (2, 1)), f"expected (2, 2), (2,) and (2, 1), got {shapes}"
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    hidden = np.maximum(corners @ w1.data + b1.data, 0)
    close(hidden @ w2.data, [[0], [1], [1], [0]], what="output at (0,0), (0,1), (1,0), (1,1)")
    close((relu(Tensor(corners) @ w1 + b1) @ w2).data, [[0], [1], [1], [0]], what="output with your relu")


test_xor_weights()

# %% [markdown]
# What does this network say *between* the corners? Predict the picture: where is it 1, and what does it do on the way?

# %%
w1, b1, w2 = xor_weights()
side = np.linspace(-0.5, 1.5, 81)
plane = np.stack(np.meshgrid(side, side), axis=-1)  # (81, 81, 2)
heights = (relu(Tensor(plane) @ w1 + b1) @ w2).data[..., 0]
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
drawn = axes.contourf(side, side, heights, levels=np.linspace(-1, 1, 9), cmap="RdBu_r", vmin=-1.5, vmax=1.5)
figure.colorbar(drawn, label="output")
axes.plot([0, 1], [0, 1], "o", markerfacecolor="white", color="k", label="should be 0")
axes.plot([0, 1], [1, 0], "o", color="k", label="should be 1")
axes.legend(loc="upper center", ncols=2, fontsize="small")
axes.set_aspect("equal")
axes.set_title("XOR by two ReLU units")
plt.show()

# %% [markdown]
# Flat, up, down: straight pieces, joined where a unit bends. A network of ReLU units never computes anything else; with
# enough units the pieces follow any curve.
#
# ## 4. Sigmoid: a probability, if it survives
#
# The **sigmoid** $\sigma(x) = 1 / (1 + e^{-x})$ bends smoothly from 0 to 1, so its result can be read as a probability.
# Typed in as it stands, it works for years. Then one day an input is -1,000. Predict what `1 / (1 + np.exp(-x))` gives,
# and what its slope $e^{-x} / (1 + e^{-x})^2$ gives.

# %%
far = np.array([-1000.0], np.float32)
try:
    with np.errstate(over="raise"):
        1 / (1 + np.exp(-far))
except FloatingPointError as error:
    print("FloatingPointError:", error)
with np.errstate(over="ignore", invalid="ignore"):
    print("value:", 1 / (1 + np.exp(-far)), " slope:", np.exp(-far) / (1 + np.exp(-far)) ** 2)

# %% [markdown]
# The value is right by luck: $1/\infty$ is 0. The slope is $\infty/\infty$: not a number, and one step of training later
# no weight is.
#
# The cure is to let $e$ only ever have a power that is not positive. For positive x the formula does already. For
# negative x multiply above and below by $e^x$: $\sigma(x) = e^x / (1 + e^x)$. One line serves both:
#
# $$\sigma(x) = \frac{e^{\min(x, 0)}}{1 + e^{-|x|}}$$
#
# Then $e^{-1000}$ becomes 0, too small for any float. That is *underflow*, and here it is simply the nearest number.
# The line `@np.errstate(under="ignore")` says so to NumPy, for those who made it complain.
#
# ### Exercise: `sigmoid_forward`

# %% nbgrader={"grade": false, "grade_id": "activations-sigmoid", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@np.errstate(under="ignore")
def sigmoid_forward(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, without overflow: 0 and 1 far from 0, and exact in both tails.

    TODO: The formula above.

    APPROACH:
    1. `np.minimum` and `np.abs` work number by number.

    EXAMPLE:
    >>> sigmoid_forward(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])

    HINT: Check each of the two powers: can it be positive, for any x?
    """
    ### BEGIN SOLUTION
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # type: ignore[no-any-return]
    ### END SOLUTION


SIGMOID = Op("sigmoid", sigmoid_forward)


def floating(x: Any) -> Tensor:
    """``x`` as a Tensor of floats: whole numbers and booleans become float32; a Tensor of floats is itself."""
    tensor = x if isinstance(x, Tensor) else Tensor(x)
    return tensor if tensor.dtype.kind == "f" else tensor.astype(np.float32)


def sigmoid(x: Any) -> Tensor:
    """``1 / (1 + exp(-x))``: between 0 and 1; of the same shape and, for floats, dtype."""
    return apply(SIGMOID, floating(x))

# %% nbgrader={"grade": true, "grade_id": "test-activations-sigmoid", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_sigmoid():
    x = np.array([-math.log(3), 0.0, math.log(3)], np.float32)
    close(sigmoid_forward(x), [0.25, 0.5, 0.75], dtype=np.float32)
    with np.errstate(all="raise"):
        far = sigmoid_forward(np.array([[-10_000.0, -100.0], [100.0, 10_000.0]], np.float32))
        close(far, [[0, 0], [1, 1]], dtype=np.float32, why="the power of e must not be positive, for any x")
    tail = sigmoid_forward(np.array([-20.0, -50.0]))
    close(tail, [2.0611536e-9, 1.9287498e-22], rtol=1e-6, atol=0, why="far below 0 it is e to the x, not 0")
    close(sigmoid(Tensor([-1000, 0, 1000])).data, [0, 0.5, 1], dtype=np.float32, why="whole numbers become floats")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().normal(0, 3, size=(3, 4))
    close(sigmoid(Tensor(drawn, dtype=np.float64)).data, 1 / (1 + np.exp(-drawn)), dtype=np.float64, rtol=1e-12)
    close(slopes(sigmoid, drawn), np.exp(-drawn) / (1 + np.exp(-drawn)) ** 2, rtol=1e-4)
    ### END HIDDEN TESTS


test_sigmoid()

# %% [markdown]
# ## 5. Tanh: the same curve, centred
#
# `tanh` runs from -1 to 1, so its results are balanced around 0. It is a sigmoid, stretched:
# $\tanh x = 2\,\sigma(2x) - 1$. We have a sigmoid that nothing can upset. Do we need a tanh of its own?
#
# ### Exercise: `tanh_from_sigmoid`

# %% nbgrader={"grade": false, "grade_id": "activations-tanh", "locked": false, "schema_version": 3, "solution": true, "task": false}
def tanh_from_sigmoid(x):
    """tanh of a Tensor, by your sigmoid.

    TODO: Write the formula.

    APPROACH:
    1. Tensor operations, and `sigmoid`.

    EXAMPLE:
    >>> tanh_from_sigmoid(Tensor([-1000.0, 0.0, 1000.0]))
    Tensor([-1.,  0.,  1.])

    HINT: Both the input and the result are doubled.
    """
    ### BEGIN SOLUTION
    return 2 * sigmoid(2 * x) - 1
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-tanh", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_tanh_from_sigmoid():
    why = "tanh is 2 * sigmoid(2 * x) - 1"
    close(tanh_from_sigmoid(Tensor([-10_000.0, -1.0, 0.0, 10_000.0])).data, [-1, -0.76159416, 0, 1], why=why)
    close(tanh_from_sigmoid(Tensor([[0.5]])).data, [[0.46211716]], dtype=np.float32, why=why)
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().normal(size=(2, 3))
    close(tanh_from_sigmoid(Tensor(drawn, dtype=np.float64)).data, np.tanh(drawn), dtype=np.float64, rtol=1e-9)
    ### END HIDDEN TESTS


test_tanh_from_sigmoid()

# %% [markdown]
# The tests pass: the formula is right. Near 0, tanh x is x, to many digits. Predict what float32 makes of a tenth, a
# millionth, and a hundred-millionth.

# %%
for small in (1e-1, 1e-3, 1e-5, 1e-6, 1e-8):
    ours, numpys = tanh_from_sigmoid(Tensor([small])).item(), Tensor([small]).tanh().item()
    print(f"x = {small:.0e}   by sigmoid {ours:.6e}   by np.tanh {numpys:.6e}   off by {abs(ours / numpys - 1):.2%}")

# %% [markdown]
# At a millionth the result is wrong by 7 %, and at a hundred-millionth it is 0. The sigmoid is near 1/2 there, and
# float32 has seven digits for it: 0.5000005. Take the half away, and one digit is left, which is mostly rounding. This
# is called **cancellation**, and it is as common as overflow, but never gives a warning.
#
# Equal on paper is not equal in a machine. So tanh stays the operation that module 02 has, and only gets its name here.

# %%
#| export
def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent: between -1 and 1; of the same shape and, for floats, dtype."""
    return apply(TANH, x)

# %% [markdown]
# ## 6. GELU: ReLU with a soft knee
#
# Transformers use the **Gaussian error linear unit**: $x \cdot \Phi(x)$, where $\Phi(x)$ is the share of a normal
# distribution that lies below x. Far to the right it is x, far to the left 0, like ReLU; in between it bends softly,
# and dips a little below 0. Source: Hendrycks and Gimpel 2016, "Gaussian error linear units (GELUs)".
#
# NumPy has no $\Phi$. There is no formula for it either, only good approximations: two quotients of polynomials, one
# for the middle and one for the tails. Read how it works; the numbers are somebody else's life work.

# %%
#| export
# Cephes Mathematical Library, release 2.8 (S. L. Moshier), ndtr.c: erf(t) / t = MIDDLE(t²) for t < 1, and
# erfc(t) * exp(t²) = TAIL(t) from there on, each a quotient of two polynomials, the highest power first.
MIDDLE = (
    (9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3, 7.00332514112805075473e3,
     5.55923013010394962768e4),
    (1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3, 2.26290000613890934246e4,
     4.92673942608635921086e4),
)  # fmt: skip
TAIL = (
    (2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0, 4.86371970985681366614e1,
     1.96520832956077098242e2, 5.26445194995477358631e2, 9.34528527171957607540e2, 1.02755188689515710272e3,
     5.57535335369399327526e2),
    (1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2, 9.75708501743205489753e2,
     1.82390916687909736289e3, 2.24633760818710981792e3, 1.65666309194161350182e3, 5.57535340817727675546e2),
)  # fmt: skip


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """The polynomial with these coefficients, the highest power first, by Horner's rule."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total


@np.errstate(under="ignore")
def normal_cdf(x: Array) -> Array:
    """The share of the standard normal distribution below ``x``; computed in float32 or, for float64, in float64.

    Measured against ``math.erfc`` on 200,001 points from -12 to 12: wrong by at most 3e-16 in float64 and 1e-7 in
    float32. In float64, the share below -8 still has 14 right digits.
    """
    wide = np.asarray(x, np.result_type(x, np.float32))
    t = np.minimum(np.abs(wide) / math.sqrt(2), 40)  # where exp(-t²) is 0 in any format
    square = t * t
    middle = 1 - t * (polynomial(MIDDLE[0], square) / polynomial(MIDDLE[1], square))
    tail = np.exp(-square) * (polynomial(TAIL[0], t) / polynomial(TAIL[1], t))
    beyond = np.where(t < 1, middle, tail) / 2  # the share further out than x, on its side of 0
    return np.asarray(np.where(wide < 0, beyond, 1 - beyond), x.dtype)

# %% [markdown]
# The paper also gives a formula with what was at hand in 2016:
# $\tfrac{1}{2} x\,(1 + \tanh u)$ with $u = \sqrt{2/\pi}\,(x + 0.044715\,x^3)$. GPT-2 was trained with it, BERT with the
# exact one, and weights work with *their* GELU only. So there are two, under the names PyTorch has for them:
# `approximate="none"` and `approximate="tanh"`.
#
# You know half of a tanh plus one: $\tfrac{1}{2}(1 + \tanh u) = \sigma(2u)$. And you know which of the two keeps its
# digits where they are small.
#
# ### Exercise: `gelu_forward` and `gelu_tanh_forward`

# %% nbgrader={"grade": false, "grade_id": "activations-gelu", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@np.errstate(under="ignore")
def gelu_forward(x: Array) -> Array:
    """``x`` times the share of the standard normal distribution below it.

    TODO: The formula.

    APPROACH:
    1. `normal_cdf` of the cell above is what you need.

    EXAMPLE:
    >>> gelu_forward(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])

    HINT: 84.13 % of a normal distribution lie below 1.
    """
    ### BEGIN SOLUTION
    return x * normal_cdf(x)
    ### END SOLUTION


@np.errstate(under="ignore")
def gelu_tanh_forward(x: Array) -> Array:
    """GELU with a formula in the place of the normal distribution: ``x / 2 * (1 + tanh(u))``.

    Here ``u`` is ``sqrt(2 / pi) * (x + 0.044715 * x**3)``.

    TODO: x times the sigmoid of 2u.

    APPROACH:
    1. Work out u, with products: `x * x * x`, not `x**3`.
    2. `sigmoid_forward`, which you wrote for arrays.

    EXAMPLE:
    >>> gelu_tanh_forward(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1588,  0.    ,  0.8412])

    HINT: `math.sqrt(2 / math.pi)` is a Python number, so it adapts to the dtype of x.
    """
    ### BEGIN SOLUTION
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return x * sigmoid_forward(2 * u)
    ### END SOLUTION


GELU_EXACT = Op("gelu", gelu_forward)
GELU_TANH = Op("gelu_tanh", gelu_tanh_forward)


def gelu_named(approximate: str) -> Op:
    """The operation for ``approximate``: "none" or "tanh"; ValueError for anything else."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate should be 'none' or 'tanh', got {approximate!r}")
    return GELU_TANH if approximate == "tanh" else GELU_EXACT


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """``x`` times the share of the standard normal distribution below it; of the same shape and, for floats, dtype.

    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units (GELUs)".

    Parameters
    ----------
    approximate
        "none" for the distribution itself, "tanh" for the formula that GPT-2 uses; they differ by less than 0.0005.

    Raises
    ------
    ValueError
        If ``approximate`` is neither.
    """
    return apply(gelu_named(approximate), floating(x))

# %% nbgrader={"grade": true, "grade_id": "test-activations-gelu", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def test_gelu():
    x = np.array([-3.0, -1.0, 0.0, 0.5, 2.0])
    exact = [-0.004049694, -0.158655254, 0, 0.345731231, 1.954499736]
    formula = [-0.003637392, -0.158808009, 0, 0.345714032, 1.954597694]
    close(gelu_forward(x), exact, dtype=np.float64, why="x times normal_cdf(x)")
    close(gelu_tanh_forward(x), formula, dtype=np.float64, why="x times sigmoid(2u): check the constants of u")
    close(gelu(Tensor(x)).data, exact, dtype=np.float32, rtol=1e-4, why='approximate="none" is the exact one')
    close(gelu(Tensor(x), "tanh").data, formula, dtype=np.float32, rtol=1e-4)
    with np.errstate(all="raise"):
        far = np.array([[-10_000.0, -50.0], [50.0, 10_000.0]], np.float32)
        for function in (gelu_forward, gelu_tanh_forward):
            close(function(far), [[0, 0], [50, 10_000]], dtype=np.float32, why="far out it is 0 and x, without a warning")
    with raises(ValueError, "approximate", "sigmoid"):
        gelu(Tensor(x), approximate="sigmoid")
    deep = gelu_tanh_forward(np.array([-6.0]))
    close(deep / -6, [1.40661e-11], rtol=1e-5, atol=0, why="1 + tanh loses all digits at -6: take the sigmoid of 2u")
    ### BEGIN HIDDEN TESTS
    drawn = np.random.default_rng().normal(0, 2, size=(2, 5))
    share = [[0.5 * math.erfc(-number / math.sqrt(2)) for number in row] for row in drawn.tolist()]
    close(gelu(Tensor(drawn, dtype=np.float64)).data, drawn * share, dtype=np.float64, rtol=1e-10)
    bent = np.tanh(np.sqrt(2 / np.pi) * (drawn + 0.044715 * drawn**3))
    close(gelu(Tensor(drawn, dtype=np.float64), "tanh").data, 0.5 * drawn * (1 + bent), dtype=np.float64, rtol=1e-8)
    ### END HIDDEN TESTS


test_gelu()

# %% [markdown]
# How far apart are the two, and where? And what is wrong with `x**3`?

# %%
grid = np.linspace(-6, 6, 12_001)
apart = np.abs(gelu_forward(grid) - gelu_tanh_forward(grid))
print(f"largest difference {apart.max():.6f}, at x = {grid[apart.argmax()]:.3f}")
cube, power = measure(lambda: numbers * numbers * numbers, repeats=5), measure(lambda: numbers**3, repeats=3)
print(f"x * x * x {cube.median_s * 1e3:6.2f} ms    x**3 {power.median_s * 1e3:6.2f} ms    for a million numbers")

# %% [markdown]
# They differ by at most 0.000473, near x = ±2.7 (seen on a grid of 0.001). And the cube: on 2 cores with NumPy 2.4, the
# best of 40 runs was 0.23 ms for the products and 173 ms for the power, which has to work for every exponent. Programs
# that copy the paper's formula as it is printed spend nearly all of their GELU in there.
#
# ## 7. Softmax: scores become shares
#
# All activations so far look at each number alone. **Softmax** looks at a whole row: it turns scores into positive
# numbers that add up to 1, and keeps their order.
#
# $$p_i = \frac{e^{z_i}}{\sum_j e^{z_j}}$$
#
# Predict, before you run: what happens to the result if every score of the row grows by 100?

# %%
scores = np.array([1.0, 2.0, 4.0], np.float32)
for shift in (0, 80, 100):
    with np.errstate(over="ignore", invalid="ignore"):
        print(shift, np.exp(scores + shift) / np.exp(scores + shift).sum())

# %% [markdown]
# Nothing happens: $e^{100}$ stands above and below and cancels, as long as it exists. So you are free to shift each row
# as you like *before* the exponential, and the best shift is the one that makes its largest score 0: then no power is
# positive, and at least one term of the sum is 1.
#
# The second decision is the **axis**: which numbers belong to one row? It is always the axis of the classes, and it is
# your decision alone. On a table of 3 x 3 the wrong axis gives no error, only other probabilities.
#
# ### Exercise: `softmax_forward`

# %% nbgrader={"grade": false, "grade_id": "activations-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@np.errstate(under="ignore")
def softmax_forward(x: Array, axis: int) -> Array:
    """``exp(x)``, divided by its sum along ``axis``; safe for scores of any size.

    Raises
    ------
    IndexError
        If there is no such axis.

    TODO: Subtract the largest score along the axis, exponentiate, divide by the sum along the axis.

    APPROACH:
    1. `np.max(x, axis=..., keepdims=True)` keeps the axis with length 1, so that it broadcasts.
    2. The same for the sum.

    EXAMPLE:
    >>> softmax_forward(np.array([[0.0, 0.0], [1000.0, 0.0]]), axis=-1)
    array([[0.5, 0.5],
           [1. , 0. ]])

    HINT: Each row has its own largest score. The largest of the whole table can be far above a row, which then becomes
    0 / 0.
    """
    axis_in_range("softmax", axis, np.ndim(x))
    if np.size(x) == 0:  # no scores, no shares
        return np.zeros_like(x)
    ### BEGIN SOLUTION
    raised = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return raised / np.sum(raised, axis=axis, keepdims=True)  # type: ignore[no-any-return]
    ### END SOLUTION


SOFTMAX = Op("softmax", softmax_forward)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Positive numbers that add up to 1 along ``axis``, in the order of the scores ``x``; PyTorch calls it ``dim``.

    Of the same shape and, for floats, dtype.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    return apply(SOFTMAX, floating(x), axis=axis)

# %% nbgrader={"grade": true, "grade_id": "test-activations-softmax", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def test_softmax():
    z = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 4.0]]))
    rows, columns = [[0.125, 0.25, 0.625], [0.3, 0.3, 0.4]], [[1 / 4, 2 / 5, 5 / 9], [3 / 4, 3 / 5, 4 / 9]]
    close(softmax_forward(z, axis=-1), rows, dtype=np.float64, why="divide by the sum along the axis, with keepdims")
    close(softmax_forward(z, axis=0), columns, why="along axis 0 each column adds up to 1")
    close(softmax(Tensor(z)).data, rows, dtype=np.float32, why="the default is the last axis")
    close(softmax(Tensor(z), axis=0).data, columns, dtype=np.float32, why="pass the axis on")
    with np.errstate(all="raise"):
        far = np.array([[10_000.0, 0.0, -10_000.0], [-10_000.0, -10_000.0, -20_000.0]], np.float32)
        want = [[1, 0, 0], [0.5, 0.5, 0]]
        close(softmax_forward(far, axis=1), want, dtype=np.float32, why="subtract each row's own largest score first")
    close(far, [[10_000, 0, -10_000], [-10_000, -10_000, -20_000]], why="the input stays as it was")
    with raises(IndexError, "softmax", "axis 2"):
        softmax(Tensor(z), axis=2)
    ### BEGIN HIDDEN TESTS
    cube = np.random.default_rng().normal(0, 3, size=(3, 3, 3))
    for way in (0, 1, 2, -1, -2):
        weights = np.exp(cube)
        want = weights / weights.sum(way, keepdims=True)
        close(softmax(Tensor(cube, dtype=np.float64), axis=way).data, want, dtype=np.float64, rtol=1e-10)
        close(softmax_forward(cube + 700.0, way), want, rtol=1e-8)
    ### END HIDDEN TESTS


test_softmax()

# %% [markdown]
# Twice the scores do not give twice the shares: softmax sharpens. Dividing the scores by a *temperature* first makes it
# softer or sharper, which is what the slider of every chat program does:

# %%
words, scores = ["cat", "dog", "car"], Tensor([2.0, 1.0, 0.0])
for temperature in (0.25, 1.0, 4.0):
    shares = softmax(scores / temperature).tolist()
    print(f"temperature {temperature:4}: ", ", ".join(f"{w} {p:.1%}" for w, p in zip(words, shares, strict=True)))

# %% [markdown]
# ## 8. Where the slope is lost
#
# Here they are, and below each its slope. Look where the slopes are near 0.

# %%
curves = {"step": heaviside, "ReLU": relu, "sigmoid": sigmoid, "tanh": tanh, "GELU": gelu}
span = np.linspace(-5, 5, 501)
figure, axes = plt.subplots(2, 5, figsize=(11, 4), sharex=True, sharey="row", layout="constrained")
for column, (name, curve) in enumerate(curves.items()):
    axes[0, column].plot(span, curve(Tensor(span)).data)
    axes[1, column].plot(span, slopes(curve, span), color="C1")
    axes[0, column].set_title(name)
    for row in (0, 1):
        axes[row, column].grid(alpha=0.3)
axes[0, 0].set_ylim(-1.2, 2.2)
axes[1, 0].set_ylim(-0.2, 1.3)
axes[0, 0].set_ylabel("value")
axes[1, 0].set_ylabel("slope")
plt.show()

# %% [markdown]
# Where an input falls on the flat part, nothing can be learnt from it: the unit is **saturated**. How often that
# happens depends on how far the inputs are spread, which depends on the weights before.
#
# ### Exercise: `flat_share`

# %% nbgrader={"grade": false, "grade_id": "activations-flat", "locked": false, "schema_version": 3, "solution": true, "task": false}
def flat_share(function, points, limit=1e-3):
    """The share of ``points`` at which the slope of ``function`` is less than ``limit`` in size, from 0 to 1.

    TODO: Measure the slopes, and count.

    APPROACH:
    1. `slopes` of section 2.
    2. The mean of an array of booleans is the share of those that are true.
    3. Return a Python float.

    EXAMPLE:
    >>> flat_share(relu, np.array([-2.0, -1.0, 1.0, 3.0]))
    0.5

    HINT: A steep slope downwards is not flat.
    """
    ### BEGIN SOLUTION
    return float(np.mean(np.abs(slopes(function, points)) < limit))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-flat", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_flat_share():
    points = np.array([-2.0, -1.0, 1.0, 3.0, 4.0])
    got = flat_share(lambda t: t.maximum(0), points)
    assert type(got) is float and got == 0.4, f"2 of 5 points lie where the slope is 0: expected 0.4, got {got!r}"
    got = flat_share(lambda t: t * -1.0, points)
    assert got == 0.0, f"a slope of -1 is not flat: look at its size; expected 0.0, got {got!r}"
    got = flat_share(lambda t: t * t, np.array([[0.0, 0.05], [0.2, 0.3]]), limit=0.5)
    assert got == 0.75, f"slopes 0, 0.1, 0.4, 0.6 and a limit of 0.5: expected 0.75, got {got!r}"
    got = flat_share(lambda t: t * 0.0, points, limit=0.0)
    assert got == 0.0, f"no slope is less than 0 in size: expected 0.0, got {got!r}"
    ### BEGIN HIDDEN TESTS
    flat_count = int(np.random.default_rng().integers(1, 9))
    ramp = np.arange(10.0) - flat_count + 0.5
    got = flat_share(lambda t: t.maximum(0) + t * 0.0009, ramp)
    assert got == flat_count / 10, f"expected {flat_count / 10}, got {got!r}"
    assert flat_share(lambda t: t.maximum(0) + t * 0.0011, ramp) == 0.0, "the default limit is 0.001"
    ### END HIDDEN TESTS


test_flat_share()

# %% [markdown]
# Predict the five curves: inputs are drawn from a normal distribution around 0, and their deviation grows from 0.1 to
# 100. Where does each begin, and where does it end?

# %%
spreads = np.logspace(-1, 2, 25)
normal = np.random.default_rng(0).normal(size=4000)
candidates = {"ReLU": relu, "leaky ReLU": leaky_relu, "sigmoid": sigmoid, "tanh": tanh, "GELU": gelu}
shares = {name: [flat_share(f, spread * normal) for spread in spreads] for name, f in candidates.items()}
figure, axes = plt.subplots(figsize=(6.5, 3.5), layout="constrained")
for name, values in shares.items():
    axes.semilogx(spreads, values, label=name)
axes.set_xlabel("deviation of the inputs")
axes.set_ylabel("share with a slope below 0.001")
axes.set_ylim(-0.03, 1.03)
axes.grid(alpha=0.3)
axes.legend()
axes.set_title("The wider the inputs, the fewer can learn")
plt.show()
{name: [round(flat_share(f, spread * normal), 2) for spread in (1, 5, 25)] for name, f in candidates.items()}

# %% [markdown]
# At a deviation of 1 only ReLU has flat units. At 5 the sigmoid has lost 17 % and tanh 41 %; at 25 they have lost 79 %
# and 88 %. ReLU loses half at once, and never more; GELU gets there slowly; the leaky ReLU loses nothing.
#
# The size of the slope matters as well. The sigmoid's is never more than 1/4. Layers in a row multiply their slopes, so
# ten sigmoids leave at most 0.25¹⁰, a millionth, of what should reach the first layer. Where a ReLU is not flat its
# slope is 1, and so is 1¹⁰. That is why networks became deep when ReLU came.
#
# ## 9. What a bend costs
#
# A network computes an activation for every number between its layers. GPT-2's smallest size, with 1,024 tokens in
# view, has 12 blocks of 1,024 x 3,072: 38 million. Predict the order of these seven before you run.

# %%
million = randn(1_000_000)
table = million.reshape(1000, 1000)
actions = {
    "ReLU": lambda: relu(million),
    "leaky ReLU": lambda: leaky_relu(million),
    "tanh": lambda: tanh(million),
    "sigmoid": lambda: sigmoid(million),
    "softmax (1000, 1000)": lambda: softmax(table),
    "GELU, tanh": lambda: gelu(million, "tanh"),
    "GELU, exact": lambda: gelu(million),
}
costs = {name: measure(action, repeats=5) for name, action in actions.items()}
milliseconds = [cost.median_s * 1e3 for cost in costs.values()]
figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
bars = axes.barh(list(costs), milliseconds)
axes.bar_label(bars, labels=[f"{cost.median_s * 1e3:.1f} ms, {cost.peak_bytes / 1e6:.0f} MB" for cost in costs.values()])
axes.set_xscale("log")
axes.set_xlim(right=max(milliseconds) * 12)
axes.invert_yaxis()
axes.set_xlabel("ms for a million float32 numbers (log scale)")
axes.set_title("Time, and the most memory in use at once")
plt.show()

# %% [markdown]
# Measured on 2 cores with NumPy 2.4, the best of 40 runs: ReLU and tanh 0.4 ms, leaky ReLU 1.5, softmax 2.3, sigmoid
# 2.6, GELU 55 by the formula and 81 exactly. Two surprises:
#
# - tanh, a transcendental function, costs no more than ReLU: NumPy computes it for 8 or 16 numbers at a time.
# - GELU's formula has fourteen operations, each about as cheap as ReLU, and yet it takes more than a hundred times as
#   long. Each makes a new array of 4 MB, and up to five of them are alive at once. In every call the system had to hand
#   out 4,851 pages of memory anew (`ru_minflt` of Python's `resource.getrusage` counts them), for ReLU not one. With
#   100,000 numbers, so a tenth of the memory, it took 3 to 10 ns a number instead of 55.
#
# It is not the arithmetic that is slow, but what it leaves lying about. So leave nothing: one new array, and every
# operation writes its result where it read. What is worked out is the same, $x\,\sigma(2u) = x / (1 + e^{-2u})$. Far to the
# left the power is infinite, and the quotient is the 0 that it should be.

# %%
#| export
@np.errstate(under="ignore", over="ignore")
def gelu_tanh_in_place(x: Array) -> Array:
    """``gelu_tanh_forward`` with a single array in the place of fourteen."""
    twice = 2 * math.sqrt(2 / math.pi)
    y = np.multiply(x, x, out=np.empty_like(x))
    y *= -0.044715 * twice
    y -= twice
    y *= x  # -2u
    np.exp(y, out=y)
    y += 1
    np.divide(x, y, out=y)
    return y


GELU_TANH = Op("gelu_tanh", gelu_tanh_in_place)  # from here on

# %%
apart = np.abs(gelu_tanh_in_place(million.data) - gelu_tanh_forward(million.data)).max()
steps, in_place = (measure(f, million.data, repeats=5) for f in (gelu_tanh_forward, gelu_tanh_in_place))
print(f"as you wrote it {steps}\nin place        {in_place}: {steps.median_s / in_place.median_s:.0f}x, apart by {apart:.0e}")

# %% [markdown]
# It is as easy to get wrong as it is hard to read, so it stands beside the formula that it must agree with. That is worth
# it only where every network spends its time. Module 18 does the operations of one formula together, piece by piece.
#
# ## 10. Objects
#
# A network is built from objects that remember their settings: `Sequential(Linear(4, 8), GELU(), Linear(8, 1))` of
# module 04. An activation has no weights, so all it needs is its settings, a `__call__`, and a name to show. Python's
# `dataclass` writes `__init__` and `__repr__` from the list of settings; `frozen=True` makes them final.
#
# One rule more: a wrong setting is refused when the object is *made*, not an hour later, when it is first used.
#
# ### Exercise: `LeakyReLU`, `GELU`, `Softmax`
#
# `ReLU`, `Sigmoid` and `Tanh` show how it goes. A dataclass calls `__post_init__` when the settings are in place.

# %% nbgrader={"grade": false, "grade_id": "activations-objects", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@dataclass(frozen=True)
class ReLU:
    """The function ``relu`` as an object."""

    def __call__(self, x: Any) -> Tensor:
        return relu(x)


@dataclass(frozen=True)
class Sigmoid:
    """The function ``sigmoid`` as an object."""

    def __call__(self, x: Any) -> Tensor:
        return sigmoid(x)


@dataclass(frozen=True)
class Tanh:
    """The function ``tanh`` as an object."""

    def __call__(self, x: Any) -> Tensor:
        return tanh(x)


@dataclass(frozen=True)
class LeakyReLU:
    """The function ``leaky_relu`` as an object.

    TODO: Fill in the blanks of the three classes of this cell that have settings.

    APPROACH:
    1. Each `__call__` hands x and the object's settings to the function of the same name.
    2. `GELU.__post_init__` lets `gelu_named` look at the setting, and drops what it gives.

    EXAMPLE:
    >>> LeakyReLU(0.5), LeakyReLU(0.5)(Tensor([-2.0, 2.0]))
    (LeakyReLU(negative_slope=0.5), Tensor([-1.,  2.]))

    HINT: The settings are attributes: `self.negative_slope`.
    """

    negative_slope: float = 0.01

    def __call__(self, x: Any) -> Tensor:
        ### BEGIN SOLUTION
        return leaky_relu(x, self.negative_slope)
        ### END SOLUTION


@dataclass(frozen=True)
class GELU:
    """The function ``gelu`` as an object; ValueError if ``approximate`` is neither "none" nor "tanh"."""

    approximate: str = "none"

    def __post_init__(self) -> None:
        ### BEGIN SOLUTION
        gelu_named(self.approximate)
        ### END SOLUTION

    def __call__(self, x: Any) -> Tensor:
        ### BEGIN SOLUTION
        return gelu(x, self.approximate)
        ### END SOLUTION


@dataclass(frozen=True)
class Softmax:
    """The function ``softmax`` as an object."""

    axis: int = -1

    def __call__(self, x: Any) -> Tensor:
        ### BEGIN SOLUTION
        return softmax(x, self.axis)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-activations-objects", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
def operations_of(function, x):
    """The names of the operations that function(x) passed through the door, if its result is that of the last."""
    notes = []
    before = set_recorder(lambda *note: notes.append(note))
    try:
        result = function(x)
    finally:
        set_recorder(before)
    return [note[0].name for note in notes if notes[-1][-1] is result]


def test_objects():
    x = Tensor([[-2.0, 0.0], [1.0, 3.0]])
    for made, name in [(LeakyReLU(), "leaky_relu"), (GELU(), "gelu"), (GELU("tanh"), "gelu_tanh"), (Softmax(), "softmax")]:
        seen = operations_of(made, x)
        assert seen == [name], f"return what {name} gives, no .data on the way; the door saw {seen}"
    close(LeakyReLU()(x).data, [[-0.02, 0], [1, 3]], why="the default slope is 0.01")
    close(LeakyReLU(0.5)(x).data, [[-1, 0], [1, 3]], why="pass self.negative_slope on")
    close(GELU()(x).data, [[-0.04550026, 0], [0.84134475, 2.99595031]], why="the default is the exact one")
    close(GELU("tanh")(x).data, [[-0.04540231, 0], [0.84119199, 2.99636261]], why="pass self.approximate on")
    close(Softmax()(x).data, [[0.11920292, 0.88079708], [0.11920292, 0.88079708]], why="the default is the last axis")
    close(Softmax(axis=0)(x).data, [[0.04742587, 0.04742587], [0.95257413, 0.95257413]], why="pass self.axis on")
    with raises(ValueError, "approximate", "erf", why="a wrong setting is refused in __post_init__"):
        GELU("erf")
    for made, name in [(LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"), (GELU(), "GELU(approximate='none')")]:
        shown = repr(made)
        assert shown == name, f"expected {name}, got {shown}"
    ### BEGIN HIDDEN TESTS
    secret = np.random.default_rng()
    drawn, tilt = secret.normal(size=(3, 3)), float(secret.uniform(0.1, 0.9))
    close(LeakyReLU(tilt)(Tensor(drawn)).data, np.maximum(drawn, 0) + np.minimum(drawn, 0) * tilt)
    powers = np.exp(drawn)
    for way in (0, 1):
        close(Softmax(way)(Tensor(drawn)).data, powers / powers.sum(way, keepdims=True))
    ### END HIDDEN TESTS


test_objects()

# %%
ReLU(), LeakyReLU(0.1), Sigmoid(), Tanh(), GELU("tanh"), Softmax()

# %% [markdown]
# ## What you have built
#
# `relu`, `leaky_relu`, `sigmoid`, `tanh`, `gelu` and `softmax`, and the same as objects: `ReLU`, `LeakyReLU`, `Sigmoid`,
# `Tanh`, `GELU` and `Softmax`. Each is an operation that passes the door of module 02, so that module 06 can give it a
# rule: the slope of the *same* formula, in terms of the result where that is cheaper.
#
# In the terminal: `tito module complete 03`. Then `from tinytorch.core.activations import GELU` is your class, and
# module 04 puts it between layers that find their own weights.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "activations-reflect-formula-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Equal on paper.** You met four pairs of expressions that are equal in mathematics and not on the machine: two
# sigmoids, two tanhs, two softmaxes, and `x**3` against `x * x * x`. Sort them by *what* goes wrong. Then look at
# $\ln(1 + e^x)$, a smooth ReLU: what happens to it at x = 1000, what at x = -40 in float32, and how do you write it so
# that both are right?
#
# === BEGIN MARK SCHEME ===
# 2 points: sigmoid and softmax overflow, tanh cancels, the cube is only slow. 1 point: 1000 overflows; at -40 the sum
# rounds to 1 and the result to 0 instead of e**-40. 2 points: max(x, 0) + log1p(exp(-|x|)), or an equal split by sign.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "activations-reflect-formula", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Sigmoid and softmax overflow: an intermediate value is too large although the result is not. Tanh by the sigmoid
# cancels: two nearly equal numbers are subtracted, and only rounding is left. The cube is right both ways, but the power
# function takes hundreds of times as long. The smooth ReLU overflows at 1000, where the answer is 1000; at -40 the sum
# 1 + 4e-18 rounds to 1, and the logarithm gives 0 instead of 4e-18. Written as max(x, 0) plus log1p of exp(-|x|), no
# power is positive, and log1p keeps the small term.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "activations-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **What to keep.** To work out slopes later, something of the forward pass must be kept. For ReLU, sigmoid and exact
# GELU: is the input needed, is the result enough, or would less do? A network has 24 layers with 8 million activations
# each, in float32. What does each of the three choices cost at its smallest, and what would you gain by replacing GELU
# by ReLU?
#
# === BEGIN MARK SCHEME ===
# 2 points: ReLU one bit (the sign of input or result), sigmoid the result, GELU the input (its result does not tell x).
# 2 points: 24 MB for ReLU, 768 MB for the others. 1 point: a factor of 32, weighed against quality or against keeping
# nothing and computing again.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "activations-reflect-memory", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# ReLU needs to know where the input was positive: a bit for each number, and the result shows it too. The sigmoid's slope
# is s(1 - s), so its result alone will do. GELU dips below 0, so two inputs share a result, and the input must be kept.
# 24 * 8 million numbers are 192 million: 24 MB as bits, 768 MB as float32. ReLU in the place of GELU saves 744 MB here,
# if the network learns as well with it; or one keeps neither and computes the activation again when it is needed.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "activations-reflect-split-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A row on two machines.** A language model scores 256,000 words, and the scores of one row lie on two machines, half
# on each. They want the softmax of the whole row and must not send the scores themselves. What does each machine compute
# on its own, which numbers do they exchange, and how does each finish? What goes wrong if both use their own largest
# score and nobody corrects it?
#
# === BEGIN MARK SCHEME ===
# 2 points: each computes its own maximum and the sum of its shifted exponentials. 2 points: both numbers are exchanged;
# rescale by exp(own maximum - common maximum) before adding. 1 point: otherwise the two halves are on different scales,
# and the probabilities are wrong although they may add up to 1.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "activations-reflect-split", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Each machine finds its maximum m and the sum s of exp(z - m) over its half, and sends these two numbers. Both then know
# the common maximum M and the total: the sum over both of s * exp(m - M). Each divides its own exp(z - M) by that total.
# Two numbers each way, instead of 128,000. Without the factors exp(m - M) one half is too large by a constant factor: the
# shares within a half are right, those between the halves are not, and the sum does not show it.
# ### END SOLUTION
