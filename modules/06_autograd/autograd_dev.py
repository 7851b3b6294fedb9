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
# # Autograd
#
# > Derivatives: a rule for each operation, a recorder at the door, and backward, which walks the notes in reverse.
#
# A network with a million weights makes an error. Each weight is a little to blame, and training means turning every
# one of them a little the other way. For that we need one number per weight: *by how much does the error grow if this
# weight grows?* That number is a derivative, all of them together are the **gradient**, and this module computes a
# million of them for about the price of two forward passes.
#
# ```
#   forward   x --> [mul w] --> [add b] --> [tanh] --> [sum] --> loss  (each leaves a note)
#                      |           |           |          |
#   backward        dw <-- rule <-- rule <-- rule <-- rule <-- 1     (the notes, from the end)
# ```
#
# You build it three times over: on plain numbers, where it fits on a page; as a table of rules for arrays, one for
# each operation of modules 02, 03 and 05; and as the recorder and the walk that join them. Not a line of those modules
# has to change.
#
# Plan for about six hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.autograd
#| export
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.activations import GELU_EXACT, GELU_TANH, LEAKY_RELU, RELU, SIGMOID, SOFTMAX
from tinytorch.core.layers import LINEAR
from tinytorch.core.losses import (
    BCE,
    BCE_WITH_LOGITS,
    CROSS_ENTROPY,
    LOG_SOFTMAX,
    bce_forward,
    bce_with_logits_gradient,
    cross_entropy_gradient,
)
from tinytorch.core.tensor import (
    ABS,
    ADD,
    CAST,
    CONCATENATE,
    DIV,
    EXP,
    GETITEM,
    LOG,
    MATMUL,
    MAX,
    MAXIMUM,
    MIN,
    MUL,
    NEG,
    PERMUTE,
    POW,
    RESHAPE,
    SQRT,
    SUB,
    SUM,
    TANH,
    WHERE,
    Axis,
    Op,
    Tensor,
    set_recorder,
)

Array = NDArray[Any]
Rule = Callable[..., Any]

# %%
import time

import matplotlib.pyplot as plt

from tinytorch.core.activations import softmax
from tinytorch.core.setup import measure
from tinytorch.core.tensor import concatenate, manual_seed, randn, where

# %% [markdown]
# ## 1. By hand, once
#
# The smallest model there is: multiply an input by a weight, compare with a target, square the error.
#
# ```
#    w = 3 --\
#             (*)--> p = 6 --\
#    x = 2 --/                (-)--> e = 1 --(e * e)--> loss = 1
#                    y = 5 --/
# ```
#
# If `w` grows by a tiny 0.001, then `p` grows by twice that, since x = 2. `e` grows as `p` does. And `e * e` grows by
# 2e = 2 times that. **Along a path the derivatives multiply**: 2 · 1 · 2 = 4, so the loss grows by 0.004. That is the
# chain rule, and there is no more to it.
#
# We can ask the computer whether it is true: nudge the weight to both sides and look. Predict what it prints.

# %%
def loss_of(w, x=2.0, y=5.0):
    error = w * x - y
    return error * error


h = 1e-6
(loss_of(3.0 + h) - loss_of(3.0 - h)) / (2 * h)

# %% [markdown]
# This is called a *finite difference*. It needs no thought, so it will check every rule of this module. But it takes
# two forward passes for each weight: two million for our million weights, and that for a single step of training.
#
# ## 2. A number that remembers
#
# Going through the picture from right to left, each step needs two things: where the number came from, and the
# derivative of the step. Both are known while we compute forward. So let a number keep them.
#
# ### Exercise: `Scalar`
#
# Three blanks. This class is thrown away afterwards; the idea stays.

# %% nbgrader={"grade": false, "grade_id": "autograd-scalar", "locked": false, "schema_version": 3, "solution": true, "task": false}
counter = itertools.count()


class Scalar:
    """A number that remembers how it was computed.

    `parents` holds a pair (scalar, derivative) for each number that it was computed from: the derivative of this number
    by that one.

    TODO: Fill in `__add__`, `__mul__` and `backward`.

    APPROACH:
    1. `__add__`: a new Scalar of the sum. If self grows by a little, the sum grows by as much: the derivative is 1.0,
       and the same for other.
    2. `__mul__`: if self grows by a little, the product grows by `other.value` times that; and the other way round.
    3. `backward(g)`, where g is the derivative of the final result by this number: add g to `self.gradient`, then let
       each parent go backward with g times its derivative.

    EXAMPLE:
    >>> a, b = Scalar(2.0), Scalar(3.0)
    >>> (a * b + a).backward(); a.gradient, b.gradient
    (4.0, 2.0)

    HINT: In the example `a` is used twice, and both uses count: `+=`, not `=`.
    """

    def __init__(self, value, parents=()):
        self.value, self.parents, self.gradient = value, parents, 0.0
        self.number = next(counter)  # later results have greater numbers

    def __add__(self, other):
        ### BEGIN SOLUTION
        return Scalar(self.value + other.value, [(self, 1.0), (other, 1.0)])
        ### END SOLUTION

    def __mul__(self, other):
        ### BEGIN SOLUTION
        return Scalar(self.value * other.value, [(self, other.value), (other, self.value)])
        ### END SOLUTION

    def backward(self, g=1.0):
        ### BEGIN SOLUTION
        self.gradient += g
        for parent, derivative in self.parents:
            parent.backward(g * derivative)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-scalar", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_scalar():
    a, b = Scalar(2.0), Scalar(3.0)
    total, product = a + b, a * b
    close(total.value, 5.0)
    close(product.value, 6.0)
    product.backward()
    close([a.gradient, b.gradient], [3, 2], why="in a * b the derivative by a is b, and by b it is a")
    a, b = Scalar(2.0), Scalar(3.0)
    (a * b + a).backward()
    close([a.gradient, b.gradient], [4, 2], why="a is used twice, so its two gradients add up")
    e = Scalar(1.5)
    (e * e).backward()
    close(e.gradient, 3.0, why="the derivative of e * e is 2e: both factors are e")
    w, x, y = Scalar(3.0), Scalar(2.0), Scalar(-4.0)
    error = w * x + y
    (error * error).backward()
    close([w.gradient, x.gradient, error.gradient], [8, 12, 4], why="along a path the derivatives multiply")
    ### BEGIN HIDDEN TESTS
    p, q, r = (float(v) for v in np.random.default_rng().uniform(1, 2, size=3))
    one, two, three = Scalar(p), Scalar(q), Scalar(r)
    (one * two * one + three * one + three).backward()
    close([one.gradient, two.gradient, three.gradient], [2 * p * q + r, p * p, p + 1])
    again = Scalar(q)
    (again + again).backward(r)
    close(again.gradient, 2 * r)
    ### END HIDDEN TESTS


test_scalar()

# %% [markdown]
# ## 3. The diamond
#
# `e * e` used `e` twice, and the two paths met again. Let us chain that: `x = x + x`, again and again.
#
# ```
#              /---\   /---\   /---\
#      loss --+     x3      x2      x1      three diamonds: 2 · 2 · 2 = 8 paths to x1
#              \---/   \---/   \---/
# ```
#
# Your `backward` calls itself once for every *path*. Predict: 18 additions, so 19 numbers; how many calls?

# %%
def doublings(n):
    """A Scalar 1.0, and the result of doubling it n times by adding it to itself."""
    start = x = Scalar(1.0)
    for _ in range(n):
        x = x + x
    return start, x


def seconds(action, *args):
    begin = time.perf_counter()
    action(*args)
    return time.perf_counter() - begin


depths = list(range(2, 19, 2))
naive_seconds = [seconds(doublings(n)[1].backward) for n in depths]
figure, axes = plt.subplots(figsize=(6, 3))
axes.semilogy(depths, naive_seconds, "o-")
axes.set_xlabel("additions x = x + x")
axes.set_ylabel("seconds for backward")
axes.set_title("Recursion: each addition doubles the time")
axes.grid(alpha=0.3)
plt.show()
years = naive_seconds[-1] * 2**42 / 3.15e7
print(f"18 additions: {2**19 - 1:,} calls, {naive_seconds[-1]:.2f} s; at this pace 60 additions take {years:,.0f} years")

# %% [markdown]
# Two additions more take four times as long. A network of today has hundreds of such meeting points, one for each
# residual connection.
#
# The cure: visit each **number** once, and only when its gradient is complete, that is, when everybody who used it
# has been visited before. Who used it was computed later than it was. So the order is simply: *the latest first*.
# That is what `number` is for.
#
# ```
#    a --+--(a*a)--> b --+--(a+b)--> c --(b*c)--> d        numbers: a 0, b 1, c 2, d 3
#        |               |     ^            ^
#        |               +-----|------------+
#        +---------------------+
#
#    right:  d c b a     wrong:  d b c a (b passes its gradient on before c added its part)
# ```
#
# ### Exercise: `backward_once`

# %% nbgrader={"grade": false, "grade_id": "autograd-once", "locked": false, "schema_version": 3, "solution": true, "task": false}
def backward_once(root):
    """Add to `gradient` of every Scalar behind `root` the derivative of root by it, visiting each exactly once.

    TODO: Collect everything behind root, sort it, latest first, and let each pass its gradient on.

    APPROACH:
    1. Collect: a set of what was seen and a list of what waits, both holding root at first. Take one from the list, and
       put each of its parents that was not seen yet into both.
    2. `root.gradient = 1.0`.
    3. For each, sorted by `number`, the greatest first: add its gradient times the derivative to each parent's.

    EXAMPLE:
    >>> start, x = doublings(60)
    >>> backward_once(x); start.gradient == 2.0**60
    True

    HINT: No function here calls itself, so a chain of 20,000 is no problem either.
    """
    ### BEGIN SOLUTION
    found, unasked = {root}, [root]
    while unasked:
        for parent, _ in unasked.pop().parents:
            if parent not in found:
                found.add(parent)
                unasked.append(parent)
    root.gradient = 1.0
    for scalar in sorted(found, key=attrgetter("number"), reverse=True):
        for parent, derivative in scalar.parents:
            parent.gradient += scalar.gradient * derivative
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-once", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_backward_once():
    start = x = Scalar(1.0)
    for _ in range(3000):
        x = Scalar(x.value, [(x, 1.0)])
    backward_once(x)
    close(start.gradient, 1.0, what="a chain of 3000", why="begin with 1.0 at root, and visit the latest first")
    start = x = Scalar(1.0)
    for _ in range(50):
        x = Scalar(2 * x.value, [(x, 1.0), (x, 1.0)])
    backward_once(x)
    close(start.gradient, 2.0**50, what="50 doublings", why="each number must be visited once")
    for swap in (False, True):
        a = Scalar(3.0)
        b = Scalar(9.0, [(a, 6.0)])
        c = Scalar(12.0, [(a, 1.0), (b, 1.0)])
        d = Scalar(108.0, [(b, 12.0), (c, 9.0)][:: -1 if swap else 1])
        backward_once(d)
        why = "d = (a + a*a) * (a*a): b must wait until c has added its part"
        close([d.gradient, c.gradient, b.gradient, a.gradient], [1, 9, 21, 135], why=why)
    ### BEGIN HIDDEN TESTS
    steps = np.random.default_rng()
    nodes = [Scalar(1.0)]
    wanted = np.zeros(13)
    chosen = [steps.integers(0, count, size=3) for count in range(1, 13)]
    slopes = steps.uniform(-1, 1, size=(12, 3))
    for picks, slope in zip(chosen, slopes, strict=True):
        nodes.append(Scalar(0.0, [(nodes[p], float(s)) for p, s in zip(picks, slope, strict=True)]))
    backward_once(nodes[-1])
    wanted[-1] = 1
    for at in range(12, 0, -1):
        np.add.at(wanted, chosen[at - 1], wanted[at] * slopes[at - 1])
    close([node.gradient for node in nodes], wanted)
    ### END HIDDEN TESTS


test_backward_once()

# %%
for n in (18, 1000):
    _, x = doublings(n)
    print(f"{n:5} additions: {seconds(backward_once, x) * 1e3:.2f} ms")

# %% [markdown]
# That was all of automatic differentiation: **notes on the way forward, and one walk back, the latest first.** The
# rest of this module is the same with arrays in the place of numbers.
#
# ## 4. From numbers to arrays
#
# The derivative of one number by another is a number. The derivative of an array by an array is a table with a
# derivative for every pair: for a product of two 1,000 x 1,000 matrices, 10¹² numbers. Nobody builds it, because
# nobody needs it. What the walk needs of each operation is a single step:
#
# > given **g**, the gradient of the loss by the operation's *result*, what is the gradient of the loss by its *inputs*?
#
# `g` has the shape of the result; what comes back has the shape of each input. This function is called the
# *vector-Jacobian product*, or **vjp**, and we call it the operation's rule. The table of all rules is a dictionary.

# %%
#| export
RULES: dict[str, Rule] = {}


def defvjp(op: Op) -> Callable[[Rule], Rule]:
    """Enter the function below it into ``RULES`` as the derivative rule of ``op``.

    ``rule(g, out, *inputs, **attrs)`` gets the gradient of the final result by the operation's result, the result,
    the inputs as the operation saw them (arrays; constants may be plain numbers) and its attributes. It returns a
    tuple with one entry for each input (for a single input, the entry alone will do):

    - an array: the gradient by this input, of the input's shape or a shape that it was broadcast to;
    - a function without arguments that computes it, called only if this input wants a gradient;
    - None, if nothing flows back to this input.

    The rule must not write into what it is given.
    """

    def enter(rule: Rule) -> Rule:
        RULES[op.name] = rule
        return rule

    return enter


@defvjp(ADD)
def _add(g: Array, out: Array, x: Any, y: Any) -> Any:
    return g, g


@defvjp(MUL)
def _mul(g: Array, out: Array, x: Any, y: Any) -> Any:
    if g.size <= 256:  # a product of so few numbers takes less time than a function that puts it off
        return g * y, g * x
    return lambda: g * y, lambda: g * x

# %% [markdown]
# Compare `_mul` with your `Scalar.__mul__`: the same two derivatives, each times `g`, number by number. In
# `pictures * 0.5` nobody wants the gradient of 0.5, so products are handed over as functions (`lambda: ...`), and
# those that nobody wants are never computed. For `_add` there is nothing to save.
#
# `out` is there because a derivative is often cheapest in terms of the result: the derivative of eˣ is eˣ, which has
# been computed already.
#
# | operation | result | derivative by x | by y |
# |---|---|---|---|
# | `sub` | x − y | 1 | −1 |
# | `div` | x / y | 1 / y | −x / y² |
# | `neg` | −x | −1 | |
# | `exp` | eˣ | eˣ | |
# | `log` | ln x | 1 / x | |
# | `sqrt` | √x | 1 / (2 √x) | |
# | `tanh` | tanh x | 1 − tanh² x | |
# | `abs` | \|x\| | the sign of x; 0 at 0 | |
#
# ### Exercise: rules, number by number

# %% nbgrader={"grade": false, "grade_id": "autograd-elementwise", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(SUB)
def _sub(g: Array, out: Array, x: Any, y: Any) -> Any:
    """x - y.

    TODO: Write the rules of this cell: g times each derivative of the table.

    APPROACH:
    1. Two inputs: a tuple with two entries, as in `_mul`. One input: its gradient alone.
    2. Where the derivative holds the result, take `out`; nothing has to be computed twice.

    EXAMPLE:
    >>> RULES["sqrt"](np.array([1.0]), np.array([2.0]), np.array([4.0]))
    array([0.25])

    HINT: In x / y the derivative by y is -(x / y) / y, and x / y is `out`. np.sign gives -1, 0 or 1.
    """
    ### BEGIN SOLUTION
    return g, lambda: -g
    ### END SOLUTION


@defvjp(DIV)
def _div(g: Array, out: Array, x: Any, y: Any) -> Any:
    ### BEGIN SOLUTION
    return lambda: g / y, lambda: -g * out / y
    ### END SOLUTION


@defvjp(NEG)
def _neg(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return -g
    ### END SOLUTION


@defvjp(EXP)
def _exp(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g * out
    ### END SOLUTION


@defvjp(LOG)
def _log(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g / x
    ### END SOLUTION


@defvjp(SQRT)
def _sqrt(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g / (2 * out)
    ### END SOLUTION


@defvjp(TANH)
def _tanh(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g * (1 - out * out)
    ### END SOLUTION


@defvjp(ABS)
def _abs(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g * np.sign(x)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-elementwise", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def rule_gradients(op, g, *arrays, **attrs):
    """What the rule of op returns for these inputs: one entry for each, with functions called."""
    parts = RULES[op.name](g, np.asarray(op.forward(*arrays, **attrs)), *arrays, **attrs)
    parts = parts if isinstance(parts, tuple) else (parts,)
    assert len(parts) == len(arrays), f"{op.name}: expected {len(arrays)} gradients, got {len(parts)}"
    return [part() if callable(part) else part for part in parts]


def check_rule(op, *inputs, **attrs):
    """Compare the rule of op with finite differences of its forward, for every number of every float array."""
    arrays = [np.asarray(x) for x in inputs]
    g = np.random.default_rng(0).uniform(0.5, 1.5, size=np.shape(op.forward(*arrays, **attrs)))
    for position, (array, part) in enumerate(zip(arrays, rule_gradients(op, g, *arrays, **attrs), strict=True)):
        if array.dtype.kind != "f":
            continue
        what = f"{op.name}: gradient of input {position}"
        lead = np.ndim(part) - array.ndim  # axes that a broadcast put in front
        fits = lead >= 0 and all(n in (1, m) for n, m in zip(array.shape, np.shape(part)[lead:], strict=True))
        assert fits, f"{what}: expected shape {array.shape}, or one it broadcasts to, got {np.shape(part)}"
        for place in np.ndindex(array.shape):
            nudge = np.zeros(array.shape)
            nudge[place] = 1e-6
            above, below = (
                op.forward(*arrays[:position], nudged, *arrays[position + 1 :], **attrs)
                for nudged in (array + nudge, array - nudge)
            )
            slope = np.sum((above - below) * g) / 2e-6
            close(np.sum(part * nudge) / 1e-6, slope, what=f"{what} at {list(place)}", rtol=1e-4, atol=1e-5)


def test_elementwise_rules():
    x, y = np.array([[0.5, 1.0, 2.0], [1.5, 3.0, 0.25]]), np.array([[2.0, -1.0, 0.5], [4.0, 1.0, -2.0]])
    check_rule(SUB, x, y)
    check_rule(DIV, x, y)
    for op in (NEG, EXP, TANH, ABS):
        check_rule(op, y)
    for op in (LOG, SQRT):
        check_rule(op, x)
    g = np.array([1.0, 10.0, 100.0])
    close(rule_gradients(ABS, g, np.array([-2.0, 0.0, 3.0]))[0], [-1, 0, 100], why="the gradient of abs at 0 is 0")
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    p, q = fresh.uniform(0.5, 2, size=(2, 3, 2))
    for op in (SUB, DIV):
        check_rule(op, p, -q)
    for op in (NEG, EXP, TANH, ABS, LOG, SQRT):
        check_rule(op, p)
    close(rule_gradients(DIV, g, np.array([1.0, 2.0, 3.0]), 4.0)[0], g / 4)
    ### END HIDDEN TESTS


test_elementwise_rules()

# %% [markdown]
# The test asks the same question as the first cell of this module: it nudges every number of every input to both
# sides and looks what happens to the result.
#
# ## 5. Powers and choices
#
# `pow` is x**y: its derivative by x is y · x^(y−1), and by y it is x^y · ln x. Two places need care:
#
# - y = 0: the derivative by x is 0, also at x = 0, where x^(−1) would be infinite, and 0 times infinity is no number.
# - x = 0: ln 0 is −infinity, but 0^y does not move when a positive y does: 0 again. For x < 0 there is no logarithm,
#   and for `x ** 2` nobody asks: another reason to hand over a function.
#
# A *choice* passes on what it chose: `where` sends `g` to x where the condition is true and to y elsewhere, and
# `maximum` to the larger of its two. In a tie PyTorch gives each half, and so do we.
#
# ```
#    x    [ 1   5   3 ]       maximum  [ 4   5   3 ]      g  [ 10  20  30 ]
#    y    [ 4   2   3 ]
#                             to x     [ 0  20  15 ]      to y  [ 10   0  15 ]
# ```
#
# ### Exercise: `pow`, `maximum`, `where`

# %% nbgrader={"grade": false, "grade_id": "autograd-choices", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(POW)
def _pow(g: Array, out: Array, x: Any, y: Any) -> Any:
    """x ** y. Where y is 0 the gradient of x is 0; where x is 0 and y is not negative, so is that of y.

    TODO: Write the rules of this cell.

    APPROACH:
    1. `_pow`, base: `y - 1 + (y == 0)` is an exponent that never gives 0 ** -1, and the factor y does the rest.
    2. `_pow`, exponent: g times out times the logarithm of x, with x replaced by 1 where it is 0 (and y >= 0).
    3. `_where`: three inputs. Nothing flows to the condition; np.where with 0 on the other side does the rest.
    4. `_maximum`: 0 where mine is the smaller, half of g where both are equal, else g. The same for the other.

    EXAMPLE:
    >>> to_x, to_y = RULES["maximum"](np.array([10.0]), np.array([3.0]), np.array([3.0]), np.array([3.0]))
    >>> to_x(), to_y()
    (array([5.]), array([5.]))

    HINT: Wrap each in `lambda: ...`, as in `_mul`; a small inner function does for what `_maximum` needs twice.
    """
    ### BEGIN SOLUTION
    def to_exponent() -> Array:
        return g * out * np.log(np.where((x == 0) & (y >= 0), 1, x))

    return lambda: g * y * x ** (y - 1 + (y == 0)), to_exponent
    ### END SOLUTION


@defvjp(WHERE)
def _where(g: Array, out: Array, condition: Any, x: Any, y: Any) -> Any:
    ### BEGIN SOLUTION
    return None, lambda: np.where(condition, g, 0), lambda: np.where(condition, 0, g)
    ### END SOLUTION


@defvjp(MAXIMUM)
def _maximum(g: Array, out: Array, x: Any, y: Any) -> Any:
    ### BEGIN SOLUTION
    def share(mine: Any, others: Any) -> Array:
        return np.where(mine < others, 0, np.where(mine == others, g / 2, g))

    return lambda: share(x, y), lambda: share(y, x)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-choices", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_choice_rules():
    x, y = np.array([0.5, 2.0, 3.0, 1.0]), np.array([2.0, -1.0, 0.5, 0.0])
    check_rule(POW, x, y)
    check_rule(WHERE, np.array([True, False, False, True]), x, y)
    check_rule(MAXIMUM, x, y)
    g = np.array([10.0, 20.0, 30.0])
    with np.errstate(all="raise"):
        squared = RULES["pow"](g, np.array([4.0, 0.0, 9.0]), np.array([-2.0, 0.0, 3.0]), 2)
        squared = squared[0]() if callable(squared[0]) else squared[0]
        close(squared, [-40, 0, 180], why="x ** 2 with x < 0: hand the exponent's gradient over as a function")
        base, exponent = rule_gradients(POW, g, np.zeros(3), np.array([0.0, 1.0, 2.0]))
        close(base, [0, 20, 0], why="0 ** 0: the exponent y - 1 is -1 there")
        close(exponent, [0, 0, 0], why="0 ** y does not move with y: take ln 1 in the place of ln 0")
    to_x, to_y = rule_gradients(MAXIMUM, g, np.array([1.0, 5.0, 3.0]), np.array([4.0, 2.0, 3.0]))
    close(to_x, [0, 20, 15], why="a tie gives half to each")
    close(to_y, [10, 0, 15], why="a tie gives half to each")
    close(rule_gradients(MAXIMUM, g, np.array([-1.0, 0.5, 2.0]), 0)[0], [0, 20, 30], why="y may be a plain number")
    nothing = rule_gradients(WHERE, g, np.array([True, False, True]), x[:3], 1.0)[0]
    assert nothing is None, f"nothing flows to a condition: expected None, got {nothing!r}"
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    p, q = fresh.uniform(0.5, 2, size=(2, 2, 3))
    check_rule(POW, p, -q)
    check_rule(MAXIMUM, p, q)
    check_rule(WHERE, p > q, p, -q)
    third = RULES["pow"](p, (-q) ** 3, -q, 3)[0]
    close(third() if callable(third) else third, p * 3 * q * q)
    close(rule_gradients(POW, p, 2.0, q)[1], p * 2**q * math.log(2))
    ### END HIDDEN TESTS


test_choice_rules()

# %% [markdown]
# ## 6. Matrix product
#
# `out = x @ y`, with x of shape (n, k), y of shape (k, m). The number x[i, j] is a factor in every out[i, c]: it
# meets y[j, c] there. So its gradient is the sum over c of g[i, c] · y[j, c], which is a matrix product again. The
# shapes alone tell how: there is one way to make (n, k) out of `g` and `y`, and one to make (k, m) out of `x` and
# `g`.
#
# ```
#      x (n, k)  @  y (k, m)   ->  out (n, m)      g (n, m)
#
#      to x:   g (n, m)  @  yᵀ (m, k)   ->  (n, k)
#      to y:   xᵀ (k, n) @  g (n, m)    ->  (k, m)
# ```
#
# In a network x is often a whole batch of matrices, (batch, n, k), and y one weight matrix, (k, m). Then all rows of
# the batch meet the same weights: it is *one* product of batch · n rows, and the gradient of y sums over all of them.
# Making a gradient per matrix, and adding those up, would take batch times the memory.
#
# ### Exercise: `matmul`

# %% nbgrader={"grade": false, "grade_id": "autograd-matmul", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(MATMUL)
def _matmul(g: Array, out: Array, x: Array, y: Array) -> Any:
    """x @ y, for x and y with one axis or more; a gradient may have more batch axes than its input.

    TODO: The two products, in both cases; as functions, since they are costly.

    APPROACH:
    1. y with one or two axes (the first case): `rows` (count, k), `columns` (k, m) and `row_g` (count, m) are all
       matrices. Make the two products of the drawing, and give them the shapes of x and y with `reshape`.
    2. y with more axes: the same two products, batch by batch. A transposed batch is `y.swapaxes(-1, -2)`.

    EXAMPLE:
    >>> x, y = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    >>> to_x, to_y = RULES["matmul"](np.ones((1, 1)), x @ y, x, y)
    >>> to_x(), to_y()
    (array([[3., 4.]]), array([[1.],
           [2.]]))

    HINT: In the second case nothing has to be summed or reshaped: that is done for all rules in one place, see below.
    """
    if y.ndim <= 2:  # all rows of x meet the same y
        count, inner = math.prod(x.shape[:-1]), x.shape[-1]
        columns = y[:, None] if y.ndim == 1 else y
        rows, row_g = x.reshape(count, inner), g.reshape(count, columns.shape[1])
        ### BEGIN SOLUTION
        return lambda: (row_g @ columns.T).reshape(x.shape), lambda: (rows.T @ row_g).reshape(y.shape)
        ### END SOLUTION
    if x.ndim == 1:  # a row against a batch
        x, g = x[None, :], g[..., None, :]
    ### BEGIN SOLUTION
    return lambda: g @ y.swapaxes(-1, -2), lambda: x.swapaxes(-1, -2) @ g
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-matmul", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_matmul_rule():
    x, y = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([[1.0, -1.0], [0.5, 2.0], [3.0, 0.0]])
    g = np.array([[1.0, 10.0], [100.0, 1000.0]])
    to_x, to_y = rule_gradients(MATMUL, g, x, y)
    close(to_x, [[-9, 20.5, 3], [-900, 2050, 300]], what="matmul: gradient of x", why="g @ y.T")
    close(to_y, [[401, 4010], [502, 5020], [603, 6030]], what="matmul: gradient of y", why="x.T @ g")
    numbers = np.random.default_rng(1)
    for left, right in [((2, 3), (3, 4)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((4, 2, 3), (3, 2))]:
        check_rule(MATMUL, numbers.normal(size=left), numbers.normal(size=right))
    for left, right in [((4, 2, 3), (4, 3, 2)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 3), (4, 3, 2)), ((3,), (4, 3, 2))]:
        check_rule(MATMUL, numbers.normal(size=left), numbers.normal(size=right))
    stacks = numbers.normal(size=(4, 2, 3)), numbers.normal(size=(4, 3, 2))
    for one, two in [(x, y), stacks]:
        parts = RULES["matmul"](np.ones_like(one @ two), one @ two, one, two)
        assert all(callable(part) for part in parts), "products are costly: hand both over as functions, lambda: ..."
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    pairs = [((1, 4), (4, 3)), ((2, 2, 3), (3,)), ((3, 1, 2), (3, 2, 2)), ((2, 2), (2, 2, 2)), ((2, 3, 2, 2), (2, 3))]
    for left, right in pairs:
        check_rule(MATMUL, fresh.normal(size=left), fresh.normal(size=right))
    batch, weights = fresh.normal(size=(5, 2, 3)), fresh.normal(size=(3, 4))
    close(rule_gradients(MATMUL, np.ones((5, 2, 4)), batch, weights)[1], np.tile(batch.sum((0, 1))[:, None], 4))
    ### END HIDDEN TESTS


test_matmul_rule()

# %% [markdown]
# ## 7. Undoing a broadcast
#
# A bias of shape (3,) is added to a batch of shape (2, 3): it was used twice, once in every row. *A value used twice:
# gradients add up.* The rule of `add` just returned `g`, of shape (2, 3); what is left to do is the sum.
#
# ```
#      bias (3,)           stretched (2, 3)         g (2, 3)            gradient of bias (3,)
#
#                          [ b0  b1  b2 ]           [ 1   2   3 ]
#    [ b0  b1  b2 ]  --->  [ b0  b1  b2 ]           [ 4   5   6 ]  --->  [ 5   7   9 ]
#                                                    summed down the axis that was not there
#
#      c (2, 1)            stretched (2, 3)         g (2, 3)            gradient of c (2, 1)
#
#    [ c0 ]                [ c0  c0  c0 ]           [ 1   2   3 ]        [  6 ]
#    [ c1 ]          --->  [ c1  c1  c1 ]           [ 4   5   6 ]  --->  [ 15 ]
#                                                    summed along the axis that had length 1
# ```
#
# Predict: an input of shape (1, 3) met one of shape (4, 2, 3). Over which axes of its gradient do we sum?
#
# ### Exercise: `unbroadcast`
#
# Written once, it serves every rule, which is why the rules need not care.

# %% nbgrader={"grade": false, "grade_id": "autograd-unbroadcast", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an input of ``shape`` that was broadcast: ``gradient``, summed where the input was stretched.

    Parameters
    ----------
    gradient
        Of a shape that ``shape`` broadcasts to.

    Raises
    ------
    ValueError
        If ``shape`` does not broadcast to the gradient's shape.

    TODO: Sum over two kinds of axes, keeping them (with length 1) in `summed`.

    APPROACH:
    1. Axes that were not there: the first `gradient.ndim - len(shape)` axes of the gradient.
    2. Axes that were stretched: where `shape` has length 1. In the gradient they stand that many places further right.
    3. One `np.sum` over all of them with `keepdims=True`; the lines below then drop the axes that were not there.

    EXAMPLE:
    >>> unbroadcast(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), (3,))
    array([5., 7., 9.])

    HINT: `np.sum(..., axis=(0, 1))` takes a tuple of axes; a sum over an axis of length 1 changes nothing.
    """
    ### BEGIN SOLUTION
    extra = gradient.ndim - len(shape)
    stretched = [extra + axis for axis, length in enumerate(shape) if length == 1]
    summed = np.sum(gradient, axis=(*range(extra), *stretched), keepdims=True)
    ### END SOLUTION
    fitted: Array = summed.reshape(summed.shape[summed.ndim - len(shape) :])
    if fitted.shape != shape:
        raise ValueError(f"unbroadcast: {gradient.shape} summed for an input of shape {shape} gives {fitted.shape}")
    return fitted

# %% nbgrader={"grade": true, "grade_id": "test-autograd-unbroadcast", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_unbroadcast():
    g = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    close(unbroadcast(g, (3,)), [5, 7, 9], why="sum over the axis that was not there")
    close(unbroadcast(g, (2, 1)), [[6], [15]], why="sum over the axis of length 1, and keep it")
    close(unbroadcast(g, (1, 3)), [[5, 7, 9]])
    close(unbroadcast(g, ()), 21.0, why="a number was used at every place")
    close(unbroadcast(g, (2, 3)), g, why="nothing was stretched")
    close(unbroadcast(np.ones((4, 2, 3)), (1, 3)), [[8, 8, 8]], why="axes 0 and 1: one was missing, one had length 1")
    for wrong in [(2,), (3, 2)]:
        with raises(ValueError, str(wrong), "(2, 3)"):
            unbroadcast(g, wrong)
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    big = fresh.normal(size=(2, 3, 4, 5))
    for axes, small in [((0,), (1, 3, 4, 5)), ((1, 3), (2, 1, 4, 1)), ((2,), (2, 3, 1, 5))]:
        close(unbroadcast(big, small), big.sum(axis=axes, keepdims=True))
    close(unbroadcast(big, (4, 1)), big.sum((0, 1)).sum(-1, keepdims=True))
    close(unbroadcast(big, (1, 1, 1)), [[[big.sum()]]])
    close(unbroadcast(np.ones((3, 1)), (1,)), [3])
    ### END HIDDEN TESTS


test_unbroadcast()

# %% [markdown]
# ### All three at once: `linear`
#
# The operation `linear` of module 04 is a product and a stretched bias in one, `x @ weight.T + bias`. You have worked out
# all that its rule needs: two products and a sum over the rows. The sum is written as a product too, with a row of
# ones: a matrix product reads `g` once, with all processors.

# %%
#| export
@defvjp(LINEAR)
def _linear(g: Array, out: Array, x: Array, weight: Array, bias: Array | None = None) -> Any:
    """x @ weight.T + bias, for x with any number of axes in front of its features."""
    rows, row_g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])

    def to_x() -> Array:
        return (row_g @ weight).reshape(x.shape)

    def to_weight() -> Array:
        return np.matmul(row_g.T, rows, out=np.empty_like(weight))  # in the order of memory that the weight has

    def to_bias() -> Array:
        return np.ones(len(rows), g.dtype) @ row_g

    return (to_x, to_weight) if bias is None else (to_x, to_weight, to_bias)

# %% [markdown]
# ## 8. Reductions
#
# A sum is the mirror image of a broadcast: every number of a row went into one number, with derivative 1, so every
# one gets that number's `g`. **What was broadcast is summed; what was summed is broadcast.**
#
# `max` and `min` pass `g` on to the winner. If several are equally large, they share it evenly, as in PyTorch's
# `amax`.
#
# ```
#    x (2, 3)       max over axis 1     g          to x
#    [ 1  5  2 ]    [ 5 ]             [ 10 ]     [  0  10   0 ]
#    [ 4  4  3 ]    [ 4 ]             [ 20 ]     [ 10  10   0 ]      two winners: half each
# ```
#
# `g` lacks the axis that was folded away, and (2,) does not line up with (2, 3). `restore_axes` puts it back.
#
# ### Exercise: `sum`, `max`, `min`

# %% nbgrader={"grade": false, "grade_id": "autograd-reductions", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def restore_axes(reduced: Array, axis: Axis, keepdims: bool) -> Array:
    """The result of a reduction over ``axis`` with the folded axes put back as length 1, so that it broadcasts."""
    return reduced if axis is None or keepdims else np.expand_dims(reduced, axis)


@defvjp(SUM)
def _sum(g: Array, out: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum of x over axis.

    TODO: Write the rules of this cell.

    APPROACH:
    1. `_sum`: `np.broadcast_to` stretches the restored g to the shape of x without copying a number.
    2. `_extreme`, for max and min: find where x equals the restored `out`, and count these winners along the same axis,
       with keepdims=True.
    3. Each winner gets the restored g, divided by the count; all others 0.

    EXAMPLE:
    >>> RULES["max"](np.array([10.0, 20.0]), np.array([5.0, 4.0]), np.array([[1.0, 5.0], [4.0, 4.0]]), axis=1)
    array([[ 0., 10.],
           [10., 10.]])

    HINT: `winners.sum(..., dtype=g.dtype)` counts in g's own number format, so that float32 stays float32.
    """
    ### BEGIN SOLUTION
    return np.broadcast_to(restore_axes(g, axis, keepdims), x.shape)
    ### END SOLUTION


@defvjp(MAX)
@defvjp(MIN)
def _extreme(g: Array, out: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    ### BEGIN SOLUTION
    winners = x == restore_axes(out, axis, keepdims)
    each = restore_axes(g, axis, keepdims) / winners.sum(axis=axis, keepdims=True, dtype=g.dtype)
    return np.where(winners, each, 0)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-reductions", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_reduction_rules():
    x = np.array([[1.0, 5.0, 2.0], [4.0, 4.5, 3.0]])
    for op in (SUM, MAX, MIN):
        for axis in (None, 0, 1, -1, (0, 1), (1,)):
            for keepdims in (False, True):
                check_rule(op, x, axis=axis, keepdims=keepdims)
    g = np.array([10.0, 20.0])
    tied = np.array([[1.0, 5.0, 2.0], [4.0, 4.0, 3.0]])
    close(rule_gradients(MAX, g, tied, axis=1)[0], [[0, 10, 0], [10, 10, 0]], why="winners that are equal share evenly")
    close(rule_gradients(MIN, np.array(6.0), np.array([2.0, 1.0, 1.0, 1.0]))[0], [0, 2, 2, 2], why="three winners")
    short = rule_gradients(MAX, g.astype(np.float32), tied.astype(np.float32), axis=1)[0]
    close(short, [[0, 10, 0], [10, 10, 0]], dtype=np.float32, why="count with dtype=g.dtype")
    ### BEGIN HIDDEN TESTS
    cube = np.random.default_rng().permutation(24).reshape(2, 3, 4) / 4
    for op in (SUM, MAX, MIN):
        for axis in (None, 1, -2, (0, -1)):
            check_rule(op, cube, axis=axis, keepdims=False)
            check_rule(op, cube, axis=axis, keepdims=True)
    even = rule_gradients(MAX, np.ones((2, 1)), np.zeros((2, 4)), axis=-1, keepdims=True)[0]
    close(even, np.full((2, 4), 0.25))
    ### END HIDDEN TESTS


test_reduction_rules()

# %% [markdown]
# ## 9. Moving numbers about
#
# These operations compute nothing; they move numbers to other places. Their rules move `g` back.
#
# - `reshape`: reshape back. `permute`: undo the permutation. `cast` (from `astype`): pass `g` on; that it must come
#   back in the input's own format is seen to in one place.
# - `concatenate`: cut `g` where the pieces met.
# - `x[key]`: zeros of the shape of x, with `g` put where it was taken. And if a place was taken twice? *A value used
#   twice: gradients add up.*
#
# ```
#    x [ a  b  c ]     x[[1, 1, 2]] = [ b  b  c ]      g  [ 10  20  30 ]
#
#    zeros[[1, 1, 2]]  = g             [ 0  20  30 ]   the second b overwrites the first
#    zeros[[1, 1, 2]] += g             [ 0  20  30 ]   NumPy reads, adds and writes: the same
#    np.add.at(zeros, [1, 1, 2], g)    [ 0  30  30 ]   right
# ```
#
# `np.add.at` goes one by one and is slower, and a slice or a single position cannot take a place twice. So the rule
# uses it for lists and arrays of positions only.
#
# ### Exercise: `permute`, `getitem`, `concatenate`

# %% nbgrader={"grade": false, "grade_id": "autograd-moves", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(RESHAPE)
def _reshape(g: Array, out: Array, x: Array, shape: tuple[int, ...]) -> Any:
    return g.reshape(x.shape)


@defvjp(CAST)
def _cast(g: Array, out: Array, x: Array, dtype: Any) -> Any:
    return g


@defvjp(PERMUTE)
def _permute(g: Array, out: Array, x: Array, axes: tuple[int, ...]) -> Any:
    """The axes of x in another order; axes may be negative.

    TODO: Write the three rules that are missing.

    APPROACH:
    1. `_permute`: axis `i` of the result was axis `axes[i]` of x. So the inverse order holds i at place axes[i]; the
       last line turns g back by it.
    2. `_getitem`: an array of zeros in the shape of x and the dtype of g. If `is_plain`, assign g at the key, else
       np.add.at.
    3. `_concatenate`: piece i begins where piece i - 1 ended. np.split cuts at a list of positions; return a tuple.

    EXAMPLE:
    >>> RULES["permute"](np.zeros((4, 2, 3)), np.zeros((4, 2, 3)), np.zeros((2, 3, 4)), axes=(2, 0, 1)).shape
    (2, 3, 4)

    HINT: `inverse[-1] = ...` understands negative axes. `itertools.accumulate` gives the running sums of the lengths,
    and the last of them is the end, not a place to cut.
    """
    inverse = [0] * x.ndim
    ### BEGIN SOLUTION
    for place, axis in enumerate(axes):
        inverse[axis] = place
    ### END SOLUTION
    return g.transpose(inverse)


@defvjp(GETITEM)
def _getitem(g: Array, out: Array, x: Array, key: Any) -> Any:
    parts = key if isinstance(key, tuple) else (key,)
    is_plain = all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)
    ### BEGIN SOLUTION
    scattered = np.zeros(x.shape, g.dtype)
    if is_plain:
        scattered[key] = g
    else:
        np.add.at(scattered, key, g)
    return scattered
    ### END SOLUTION


@defvjp(CONCATENATE)
def _concatenate(g: Array, out: Array, *arrays: Array, axis: int) -> Any:
    ### BEGIN SOLUTION
    ends = list(itertools.accumulate(array.shape[axis] for array in arrays))
    return tuple(np.split(g, ends[:-1], axis=axis))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-moves", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_moving_rules():
    x = np.arange(24.0).reshape(2, 3, 4)
    for axes in [(2, 0, 1), (1, 2, 0), (0, 2, 1), (-1, 0, 1), (-2, -1, 0)]:
        check_rule(PERMUTE, x, axes=axes)
    for key in [1, -1, slice(None, None, 2), (slice(None), 1), (..., slice(0, 4, 3)), (0, None, slice(2))]:
        check_rule(GETITEM, x, key=key)
    g = np.array([10.0, 20.0, 30.0])
    close(
        rule_gradients(GETITEM, g, np.zeros(4), key=[1, 1, 2])[0],
        [0, 30, 30, 0],
        why="position 1 was taken twice, so its gradients add up: np.add.at",
    )
    close(rule_gradients(GETITEM, g, np.zeros(4), key=np.array([0, 3, 3]))[0], [10, 0, 0, 50])
    check_rule(GETITEM, x, key=(np.array([1, 1]), slice(None), np.array([3, 3])))
    check_rule(GETITEM, x, key=x > 10)
    check_rule(CONCATENATE, x[:, :1], x[:, 1:], x, axis=1)
    check_rule(CONCATENATE, x[..., :3], x[..., 3:], axis=-1)
    whole = rule_gradients(CONCATENATE, g, g, axis=0)
    assert len(whole) == 1, "one piece comes back as one piece"
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    turn = tuple(int(n) for n in fresh.permutation(4))
    check_rule(PERMUTE, fresh.normal(size=(2, 1, 3, 2)), axes=turn)
    ids = fresh.integers(0, 3, size=(4, 5))
    upstream = fresh.normal(size=(4, 5, 2))
    want = np.stack([upstream[ids == row].sum(0) for row in range(3)])
    close(rule_gradients(GETITEM, upstream, np.zeros((3, 2)), key=ids)[0], want)
    short = rule_gradients(GETITEM, upstream.astype(np.float32), np.zeros((3, 2)), key=ids)[0]
    close(short, want, rtol=1e-4, atol=1e-4, dtype=np.float32, why="the zeros have the dtype of g")
    check_rule(CONCATENATE, *(fresh.normal(size=(2, n)) for n in (1, 4, 2, 3)), axis=1)
    ### END HIDDEN TESTS


test_moving_rules()

# %% [markdown]
# ## 10. Bends
#
# The activations of module 03 are operations too. Each could have been composed of those above, and then it would need
# no rule. A rule for the whole is called **fused**: one note in the place of five, and a short formula in terms of the
# result, which is never infinite where the parts would be.
#
# | operation | result | derivative by x |
# |---|---|---|
# | `relu` | the larger of x and 0 | 1 where x > 0, else 0, also at 0 |
# | `leaky_relu` | x, or a·x where x is negative | 1 where x > 0, else a |
# | `sigmoid` | s = 1 / (1 + e⁻ˣ) | s · (1 − s) |
#
# `softmax` is different: each result depends on *every* number of its row. The derivative of pᵢ by xᵢ is pᵢ − pᵢ·pᵢ, and
# by any other xⱼ it is −pᵢ·pⱼ. Multiply by `g` and add up over all i; what is left is short:
#
# ```
#    to x  =  p · (g − s),   where s is the sum of g · p along the row
#
#    p  [ 0.1  0.2  0.7 ]      g  [ 0  0  1 ]      s = 0.7      to x  [ -0.07  -0.14  0.21 ]
# ```
#
# Predict what the gradient of a row adds up to. Think of what softmax does when all its inputs grow by the same number.
#
# ### Exercise: `relu`, `leaky_relu`, `sigmoid`, `softmax`

# %% nbgrader={"grade": false, "grade_id": "autograd-activations", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(RELU)
def _relu(g: Array, out: Array, x: Array) -> Any:
    """x where it is positive, else 0.

    TODO: Write the rules of this cell.

    APPROACH:
    1. `_relu`: an array of booleans counts as 0 and 1 in a product.
    2. `_leaky_relu`: choose between g and the slope times g, number by number.
    3. `_sigmoid`: the table's formula, in terms of the result.
    4. `_softmax`: the sum of g times the result along the axis, kept as length 1; then the formula of the drawing.

    EXAMPLE:
    >>> p = np.array([0.1, 0.2, 0.7])
    >>> RULES["softmax"](np.array([0.0, 0.0, 1.0]), p, np.log(p), axis=-1).round(2)
    array([-0.07, -0.14,  0.21])

    HINT: Not every result of leaky_relu is positive where x is: a slope may be negative. Ask x.
    """
    ### BEGIN SOLUTION
    return g * (x > 0)
    ### END SOLUTION


@defvjp(LEAKY_RELU)
def _leaky_relu(g: Array, out: Array, x: Array, negative_slope: float) -> Any:
    ### BEGIN SOLUTION
    return np.where(x > 0, g, negative_slope * g)
    ### END SOLUTION


@defvjp(SIGMOID)
def _sigmoid(g: Array, out: Array, x: Array) -> Any:
    ### BEGIN SOLUTION
    return g * out * (1 - out)
    ### END SOLUTION


@defvjp(SOFTMAX)
def _softmax(g: Array, out: Array, x: Array, axis: int) -> Any:
    ### BEGIN SOLUTION
    average = np.sum(g * out, axis=axis, keepdims=True)
    return out * (g - average)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-activations", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_activation_rules():
    x = np.array([[0.5, -1.0, 2.0], [-3.0, 1.5, -0.25]])
    check_rule(RELU, x)
    check_rule(SIGMOID, x)
    for slope in (0.01, -0.5, 2.0):
        check_rule(LEAKY_RELU, x, negative_slope=slope)
    for axis in (0, 1, -1):
        check_rule(SOFTMAX, x, axis=axis)
    g, edge = np.array([10.0, 20.0, 30.0]), np.array([-1.0, 0.0, 2.0])
    close(rule_gradients(RELU, g, edge)[0], [0, 0, 30], why="at 0 the slope of relu is 0")
    close(rule_gradients(LEAKY_RELU, g, edge, negative_slope=0.1)[0], [1, 2, 30], why="at 0 it is the negative slope")
    far, short = np.array([-10_000.0, 0.0, 10_000.0], np.float32), g.astype(np.float32)
    with np.errstate(all="raise"):
        close(rule_gradients(SIGMOID, short, far)[0], [0, 5, 0], dtype=np.float32, why="in terms of the result alone")
        close(rule_gradients(SOFTMAX, short, far, axis=0)[0], [0, 0, 0], dtype=np.float32)
    for op, attrs in [(RELU, {}), (LEAKY_RELU, {"negative_slope": 0.1})]:
        assert rule_gradients(op, short, far, **attrs)[0].dtype == np.float32, f"{op.name}: float32 stays float32"
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    cube = fresh.normal(size=(2, 3, 2))
    check_rule(SIGMOID, cube)
    check_rule(RELU, cube)
    check_rule(LEAKY_RELU, cube, negative_slope=float(fresh.uniform(0.1, 0.9)))
    for axis in (0, 1, -1):
        check_rule(SOFTMAX, cube, axis=axis)
        rows = rule_gradients(SOFTMAX, fresh.normal(size=cube.shape), cube, axis=axis)[0]
        close(rows.sum(axis=axis), np.zeros_like(cube.sum(axis=axis)), why="a shift of a whole row changes nothing")
    ### END HIDDEN TESTS


test_activation_rules()

# %% [markdown]
# A row's gradient adds up to 0: a shift of the whole row changes nothing, so there is no slope in that direction.
#
# At 0 our `relu` differs from `maximum(x, 0)`, where a tie gives each side half. Both are right, and PyTorch does the
# same.
#
# GELU is x times a *gate*: the normal distribution's share, or the formula in its place. As in every product, there are
# two terms: the gate itself, and x times the gate's slope. The gate has been computed already, at some cost. It hides in
# the result: `out / x`. Read how both rules use it; the second, which a GPT spends much time in, works in a single array
# (module 03, section 9).
#
# | | gate | its slope |
# |---|---|---|
# | exact | Φ(x) | the normal density, $e^{-x^2/2} / \sqrt{2\pi}$ |
# | formula | σ(2u) | 2 · σ(2u) · (1 − σ(2u)) · u′ |

# %%
#| export
@np.errstate(invalid="ignore")
def gelu_gate(out: Array, x: Array) -> Array:
    """What GELU multiplied ``x`` by: ``out / x``, and one half where x is 0."""
    gate = np.divide(out, x, out=np.empty_like(out))
    gate[x == 0] = 0.5
    return gate


@defvjp(GELU_EXACT)
@np.errstate(under="ignore")
def _gelu(g: Array, out: Array, x: Array) -> Any:
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return g * (gelu_gate(out, x) + x * density)


@defvjp(GELU_TANH)
@np.errstate(under="ignore")
def _gelu_tanh(g: Array, out: Array, x: Array) -> Any:
    gate, twice = gelu_gate(out, x), 2 * math.sqrt(2 / math.pi)
    slopes = x * x
    slopes *= 3 * 0.044715 * twice
    slopes += twice  # 2 u′
    slopes *= x
    slopes *= 1 - gate
    slopes += 1
    slopes *= gate
    slopes *= g
    return slopes

# %%
points = np.array([-10_000.0, -1.0, 0.0, 1.0, 10_000.0])
for op in (GELU_EXACT, GELU_TANH):
    check_rule(op, points[1:-1])
    print(f"{op.name:10}", rule_gradients(op, np.ones(5), points)[0].round(4))

# %% [markdown]
# ## 11. Losses
#
# Module 05 left four operations without rules, and the hard half of two of them: `cross_entropy_gradient` and
# `bce_with_logits_gradient` are the slopes of a loss by its own logits. What is missing is what every rule does: carry
# on what came from above. Here `g` has one number for each *row*, and each row has a slope for every logit:
#
# ```
#    g (B, T)          slopes (B, T, C)         gradient of the logits (B, T, C)
#    [ 10  1 ]    *    one row of C for each    the row of [0, 0] times 10, that of [0, 1] times 1
# ```
#
# `log_softmax` gives numbers that depend on all logits of their row: $\log p_i = z_i - \log \sum_j e^{z_j}$. By its
# own logit it grows by 1, and by every logit $z_j$ it shrinks by $p_j$. So logit j gets $g_j$, minus $p_j$ times
# *everything* that arrives in the row. And $p$ is the exponential of the result, which is at hand.
#
# `binary_cross_entropy`, $-(t \log p + (1 - t) \log(1 - p))$, has the slope $(p - t) / (p\,(1 - p))$ by p, which is
# infinite at 0 and 1. As in PyTorch, the denominator never falls below 10⁻¹². By t both cross-entropies are straight
# lines: the slope is the loss at t = 1 minus the loss at t = 0; from logits that is −z.
#
# ### Exercise: the rules of the losses

# %% nbgrader={"grade": false, "grade_id": "autograd-losses", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@defvjp(LOG_SOFTMAX)
def _log_softmax(g: Array, out: Array, x: Array, axis: int = -1) -> Any:
    """Each logit gets its own gradient, minus its probability times the sum of the gradients along the axis.

    TODO: Write the four rules of this cell.

    APPROACH:
    1. `_log_softmax`: g, minus e to the `out` times the sum of g along the axis, which is kept.
    2. `_cross_entropy`: `slopes` times g, with an axis more. Nothing flows to the ids: None.
    3. `_bce_with_logits` and `_bce`: two inputs, so two functions. For the slope of `_bce` by the target use
       `bce_forward(p, ...)` at ones and at zeros of the target's shape.

    EXAMPLE:
    >>> RULES["log_softmax"](np.array([1.0, 0.0]), np.log([0.25, 0.75]), np.zeros(2))
    array([ 0.75, -0.75])

    HINT: `g[..., None]` has shape (..., 1) and stretches over the classes.
    """
    ### BEGIN SOLUTION
    return g - np.exp(out) * g.sum(axis=axis, keepdims=True)
    ### END SOLUTION


@defvjp(CROSS_ENTROPY)
def _cross_entropy(g: Array, out: Array, logits: Array, ids: Array, **options: Any) -> Any:
    slopes = cross_entropy_gradient(logits, ids, **options)
    ### BEGIN SOLUTION
    slopes *= g[..., None]
    return slopes, None
    ### END SOLUTION


@defvjp(BCE_WITH_LOGITS)
def _bce_with_logits(g: Array, out: Array, logits: Any, target: Any) -> Any:
    ### BEGIN SOLUTION
    return lambda: g * bce_with_logits_gradient(logits, target), lambda: -g * logits
    ### END SOLUTION


@defvjp(BCE)
def _bce(g: Array, out: Array, p: Any, target: Any) -> Any:
    ### BEGIN SOLUTION
    def to_target() -> Any:
        yes, no = np.ones(np.shape(target)), np.zeros(np.shape(target))
        return g * (bce_forward(p, yes) - bce_forward(p, no))

    return lambda: g * (p - target) / np.maximum(p * (1 - p), 1e-12), to_target
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-losses", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_loss_rules():
    x = np.array([[2.0, 1.0, 0.5], [0.0, 3.0, -1.0]])
    for axis in (0, 1, -1):
        check_rule(LOG_SOFTMAX, x, axis=axis)
    check_rule(LOG_SOFTMAX, x)
    ids, plain = np.array([2, 0]), {"weight": np.ones(3), "ignore_index": -100, "label_smoothing": 0.0}
    check_rule(CROSS_ENTROPY, x, ids, **plain)
    heavier = {"weight": np.arange(1.0, 4.0), "ignore_index": 0, "label_smoothing": 0.2}
    check_rule(CROSS_ENTROPY, x.reshape(1, 2, 3), ids[None], **heavier)
    nothing = rule_gradients(CROSS_ENTROPY, np.ones(2), x, ids, **plain)[1]
    assert nothing is None, f"nothing flows to ids: expected None, got {nothing!r}"
    t, p = np.array([[1.0, 0.0, 0.25], [0.0, 1.0, 0.5]]), np.array([[0.9, 0.2, 0.5], [0.75, 0.1, 0.4]])
    check_rule(BCE_WITH_LOGITS, x + 0.1, t)
    check_rule(BCE, p, t)
    g = np.array([1.0, 10.0, 100.0, 1000.0])
    edges, sure = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        to_p, to_t = rule_gradients(BCE, g, edges, sure)
        close(to_p, [-1e12, 1e13, 0, 0], why="p (1 - p) is 0 at the edges: take 1e-12 at least")
        close(to_t, [100, -1000, 1e4, -1e5], why="the loss at t = 1 minus that at t = 0")
        far = rule_gradients(BCE_WITH_LOGITS, g, np.array([1e4, -1e4, 1e4, -1e4]), sure)[0]
        close(far, [0, 0, 100, -1000], why="use bce_with_logits_gradient, which cannot overflow")
    for op in (BCE, BCE_WITH_LOGITS):
        parts = RULES[op.name](p, p, p, t)
        assert all(callable(part) for part in parts), f"{op.name}: targets rarely want a gradient: hand over functions"
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    weather = fresh.normal(0, 2, size=(2, 3, 4))
    for way in (0, 1, 2, -2):
        check_rule(LOG_SOFTMAX, weather, axis=way)
    spots, mass = fresh.integers(0, 4, size=(2, 3)), fresh.uniform(1, 2, size=4)
    check_rule(CROSS_ENTROPY, weather, spots, weight=mass, ignore_index=int(spots[0, 0]), label_smoothing=0.1)
    chance, fact = fresh.uniform(0.1, 0.9, size=(2, 3, 2))
    check_rule(BCE, chance, fact)
    check_rule(BCE_WITH_LOGITS, weather[..., 0] * 2, fact.reshape(2, 3))
    ### END HIDDEN TESTS


test_loss_rules()

# %% [markdown]
# ## 12. The recorder
#
# The table is complete. What is missing are the notes: which operation, on which arrays, and where its inputs came
# from. For each operation the recorder makes a **node**:
#
# ```
#   loss --_node--> Node sum --parents--> Node mul --parents-+-> w     (a leaf: not computed)
#                   arrays [p]            arrays [w, x]      +-> None  (x wants no gradient)
#                   out    loss.data      out    p
#                   number 1              number 0
# ```
#
# A node knows its parents and the arrays, never its own tensor. So the arrows run in one direction only, from results
# to inputs; there is no circle, and when the last name for the loss goes, Python frees the whole chain at once,
# without waiting for its garbage collector.

# %%
#| export
_numbers = itertools.count()


class Node:
    """The note of one operation: what ``backward`` needs to know of it. ``record`` makes it and fills it in.

    Attributes
    ----------
    op, arrays, attrs
        The operation, the inputs as it saw them, and its attributes.
    parents
        Where a gradient goes, for each input: the Node that the input came from, the input itself if it is a leaf (a
        tensor that was not computed), None if it requires no gradient.
    out
        The array of the result; None once the node has been freed.
    number
        Later results have greater numbers.
    """

    __slots__ = ("arrays", "attrs", "number", "op", "out", "parents")

    op: Op
    parents: Sequence[Any]
    arrays: Sequence[Any]
    attrs: dict[str, Any]
    out: Any
    number: int

    def free(self) -> None:
        """Let go of the arrays and of what came before."""
        self.out, self.arrays, self.parents = None, (), ()

    def backward(self, tensor: Tensor, gradient: Any, retain_graph: bool) -> None:
        """What ``tensor.backward(gradient, retain_graph)`` does, where this is the node of ``tensor``."""
        run_backward(self, first_gradient(tensor, gradient), retain_graph)

# %% [markdown]
# ### Exercise: `record`
#
# The door of module 02 calls this with every operation, so it had better be quick to say "not of interest".

# %% nbgrader={"grade": false, "grade_id": "autograd-record", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
FLOAT32 = np.dtype(np.float32)

_recording = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded; see ``no_grad``."""
    return _recording


def record(op: Op, inputs: tuple[Any, ...], arrays: list[Any], attrs: dict[str, Any], out: Tensor) -> None:
    """Take a note of an operation, if a gradient can flow back through it.

    The result ``out`` then requires a gradient itself, and its ``_node`` is the note.

    TODO: Find the parents; if there is none, return. The lines below make the node and hang it on `out`.

    APPROACH:
    1. `parents`, a list with one for each input: None unless it is a Tensor with `requires_grad`; its `_node` if it has
       one; else itself.
    2. If all are None, return: nothing can flow back.

    EXAMPLE:
    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> y = x * 3; y._node.op.name, y._node.parents[0] is x, y._node.parents[1] is None
    ('mul', True, True)

    HINT: `any(parents)` would ask a tensor whether it is true, which a tensor of several numbers refuses to say:
    compare with `is None`.
    """
    dtype = out.data.dtype
    if not _recording or (dtype is not FLOAT32 and dtype.kind != "f"):
        return
    ### BEGIN SOLUTION
    parents: list[Any] = []
    nobody = True
    for x in inputs:
        if isinstance(x, Tensor) and x._requires_grad:
            parents.append(x._node or x)
            nobody = False
        else:
            parents.append(None)
    if nobody:
        return
    ### END SOLUTION
    node = Node()
    node.op = op
    node.parents = parents
    node.arrays = arrays
    node.attrs = attrs
    node.out = out.data
    node.number = next(_numbers)
    out._node = node
    out._requires_grad = True


set_recorder(record)

# %% nbgrader={"grade": true, "grade_id": "test-autograd-record", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_record():
    w, x = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    plain = x * x
    assert plain._node is None and not plain.requires_grad, "no input requires a gradient: nothing to record"
    p = w * x
    assert p.requires_grad, "the result of a recorded operation requires a gradient"
    assert p._node.op.name == "mul", f"expected a node of 'mul', got {p._node.op.name!r}"
    assert p._node.parents[0] is w, "w is a leaf: it is its own parent"
    assert p._node.parents[1] is None, "x requires no gradient: its parent is None"
    close(p._node.arrays[1], [3, 4], why="the node keeps the arrays")
    close(p._node.out, [3, 8], why="the node keeps the result's array")
    s = p.sum(axis=0)
    assert s._node.parents[0] is p._node, "p was computed: the parent is its node, not the tensor"
    assert s._node.attrs["axis"] == 0, "the node keeps the attributes"
    assert s._node.number > p._node.number, "later results have greater numbers"
    assert not (w > 1).requires_grad and not w.astype(int).requires_grad, "whole numbers and booleans have no gradient"
    twice = w + w
    assert twice._node.parents[0] is w and twice._node.parents[1] is w, "one parent for each input, also for the same"
    ### BEGIN HIDDEN TESTS
    size = int(np.random.default_rng().integers(2, 9))
    leaf = Tensor(np.ones(size), requires_grad=True)
    chain = 2.0 - (leaf + 1)
    assert chain._node.parents[0] is None and chain._node.parents[1].op.name == "add"
    assert chain._node.parents[1].parents[0] is leaf
    close(chain._node.arrays[1], np.full(size, 2.0))
    assert chain.detach()._node is None and not (chain.detach() * 2).requires_grad
    mixed = where(leaf > 0, x[:1], leaf)
    assert mixed._node.parents[0] is None and mixed._node.parents[2] is leaf
    ### END HIDDEN TESTS


test_record()

# %% [markdown]
# ## 13. Backward
#
# Four helpers first; read them, each is an idea you know.
#
# - `first_gradient`: where it starts. The derivative of a number by itself is 1; of a whole array there is no such
#   thing, so the caller has to say what it wants.
# - `backward_order`: your `backward_once`, first half. Here are the two checks that must come before anything
#   happens.
# - `one_for_each`: a rule may return its only gradient without a tuple around it. Here it gets one.
# - `hand_over`: puts the gradients into `.grad`, in the leaf's dtype. A rule may have returned `g` itself for two
#   inputs, or a view of it. Two leaves that share memory would be a trap: halve one's gradient, and you halve the
#   other's.

# %%
#| export
def first_gradient(tensor: Tensor, gradient: Any = None) -> Array:
    """The array that ``tensor.backward(gradient)`` starts from, in memory of its own.

    Raises
    ------
    RuntimeError
        If no gradient is given and ``tensor`` has more than one number.
    ValueError
        If the shape of the gradient is not that of ``tensor``.
    """
    if gradient is None:
        if tensor.size != 1:
            raise RuntimeError(
                f"backward: the tensor has shape {tensor.shape}; only a tensor of one number goes backward by itself. "
                "Reduce it, say by .sum() or .mean(), or give the gradient, of the same shape"
            )
        return np.ones(tensor.shape, tensor.dtype)
    start = np.array(gradient.data if isinstance(gradient, Tensor) else gradient, tensor.dtype)
    if start.shape != tensor.shape:
        raise ValueError(f"backward: the tensor has shape {tensor.shape}, the gradient has {start.shape}")
    return start


def backward_order(root: Node) -> list[Node]:
    """Every node behind ``root``, each once, the latest first.

    Raises
    ------
    RuntimeError
        If a node has been freed by an earlier ``backward``.
    NotImplementedError
        If an operation has no derivative rule.
    """
    seen, waiting = {root}, [root]  # the list grows while we walk along it
    for node in waiting:
        if node.out is None:
            raise RuntimeError(
                f"backward: an earlier backward has freed the notes of {node.op.name!r}. To go backward twice through "
                "the same computation, call the first one with retain_graph=True"
            )
        if node.op.name not in RULES:
            raise NotImplementedError(
                f"backward: the operation {node.op.name!r} has no derivative rule. Add one: @defvjp(...) above a "
                "function (g, out, *inputs, **attrs) that returns a gradient for each input"
            )
        for parent in node.parents:
            if type(parent) is Node and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(waiting, key=attrgetter("number"), reverse=True)


def one_for_each(node: Node, parts: Any) -> tuple[Any, ...]:
    """What the rule of ``node`` returned, as a tuple with an entry for each input.

    Raises
    ------
    ValueError
        If it returned too few or too many gradients.
    """
    given: tuple[Any, ...] = parts if type(parts) is tuple else (parts,)
    if len(given) != len(node.parents):
        raise ValueError(
            f"backward: {node.op.name!r} has {len(node.parents)} inputs, its rule returned {len(given)} gradients"
        )
    return given


def hand_over(gradients: Iterable[tuple[Tensor, Array]]) -> None:
    """Add each leaf's gradient to its ``grad``, which shares memory with nothing else."""
    taken: set[int] = set()
    for leaf, total in gradients:
        gradient = total.astype(leaf.dtype, copy=False)
        if leaf.grad is not None:
            gradient = leaf.grad.data + gradient
        elif gradient.base is not None or id(gradient) in taken:
            gradient = gradient.copy()
        taken.add(id(gradient))
        leaf.grad = Tensor._wrap(np.asarray(gradient))

# %% [markdown]
# ### Exercise: `run_backward`
#
# The walk itself: your `backward_once`, second half. One dictionary holds the gradients on their way, by node or
# leaf. A node takes its own out when its turn comes; so at the end, nothing is left in it but the leaves. In between, the
# rule is asked, the functions of those who want their gradient are called, and broadcasts are undone.

# %% nbgrader={"grade": false, "grade_id": "autograd-backward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def run_backward(root: Node, gradient: Array, retain_graph: bool = False) -> None:
    """Carry ``gradient``, that of the final result by the result of ``root``, back to the ``grad`` of every leaf.

    The gradients of leaves are added to what is there. Nothing is added if a rule fails.

    TODO: Fill the three blanks: what a node starts with, what it passes on, and what it leaves behind.

    APPROACH:
    1. `g = gradients.pop(node, None)`. None means that nothing flowed to it: no rule to ask.
    2. If the parent has a gradient in the dictionary already, put the sum of that and `part` there, else `part`.
    3. In any case: `node.free()`, as soon as the node is done, unless `retain_graph`.

    EXAMPLE:
    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward(); x.grad
    Tensor([2., 4.])

    HINT: Make a new array for the sum. `gradients[parent] += part` writes into an array that others may be holding.
    """
    order = backward_order(root)
    gradients: dict[Any, Array] = {root: gradient}
    for node in order:
        ### BEGIN SOLUTION
        g = gradients.pop(node, None)
        ### END SOLUTION
        if g is not None:
            arrays, out, attrs = node.arrays, node.out, node.attrs
            if g.dtype is not out.dtype:  # a dtype such as float32 is one object, wherever it is used
                g = g.astype(out.dtype)
            rule = RULES[node.op.name]
            parts = rule(g, out, *arrays, **attrs) if attrs else rule(g, out, *arrays)
            if type(parts) is not tuple or len(parts) != len(arrays):
                parts = one_for_each(node, parts)
            for parent, array, part in zip(node.parents, arrays, parts):  # noqa: B905
                if parent is None or part is None:
                    continue
                if callable(part):
                    part = part()
                if part.shape != array.shape:
                    part = unbroadcast(part, array.shape)
                ### BEGIN SOLUTION
                total = gradients.get(parent)
                gradients[parent] = part if total is None else total + part
                ### END SOLUTION
        ### BEGIN SOLUTION
        if not retain_graph:
            node.free()
        ### END SOLUTION
    hand_over(gradients.items())

# %% nbgrader={"grade": true, "grade_id": "test-autograd-backward", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_backward():
    w, x = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    product = w * x
    loss = product.sum()
    loss.backward()
    close(w.grad.data, [3, 4], dtype=np.float32)
    assert x.grad is None and loss.grad is None, "only leaves that ask for it get a gradient"
    (w * x).sum().backward()
    close(w.grad.data, [6, 8], why="gradients add up from one backward to the next, until grad is set to None")
    with raises(RuntimeError, "retain_graph=True", why="free each node after its turn"):
        loss.backward()
    with raises(RuntimeError, "retain_graph=True", why="free every node after its turn, not only the last"):
        product.sum().backward()
    w.grad = None
    kept = (w * x).sum()
    kept.backward(retain_graph=True)
    kept.backward()
    close(w.grad.data, [6, 8], why="with retain_graph, backward works twice")
    a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    (a + b + a).backward([1.0, 10.0])
    close(a.grad.data, [2, 20], what="gradient of a in a + b + a", why="a is used twice: its gradients add up")
    close(b.grad.data, [1, 10], what="gradient of b in a + b + a", why="do not write into a gradient that others hold")
    bias = Tensor([0.0, 0.0, 0.0], requires_grad=True)
    ((bias + np.ones((2, 3))) * np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    close(bias.grad.data, [5, 7, 9], why="a bias is used in each row: unbroadcast")
    e = deep = Tensor([1.0], requires_grad=True)
    for _ in range(3000):
        deep = deep + 0.0
    deep.backward()
    close(e.grad.data, [1], why="no recursion: a long chain must work")
    d = doubled = Tensor([1.0], requires_grad=True)
    for _ in range(50):
        doubled = doubled + doubled
    doubled.backward()
    close(d.grad.data, [2.0**50], why="each node must be visited once, after everyone who used it")
    chosen = Tensor([5.0, 6.0], requires_grad=True)
    where(chosen * 0, chosen, 0.0).sum().backward()
    close(chosen.grad.data, [0, 0], why="nothing flows to a condition: its node has no g, and no rule to ask")
    with raises(RuntimeError, "(2,)"):
        (a * 2).backward()
    with raises(ValueError, "(2,)", "(3,)"):
        (a * 2).backward([1.0, 1.0, 1.0])
    with raises(NotImplementedError, "mystery"):
        from tinytorch.core.tensor import apply

        apply(Op("mystery", np.sin), a).sum().backward()
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    u, v, c = fresh.normal(size=(4, 3)), fresh.normal(size=(3, 2)), fresh.normal(size=2)
    left, right, shift = (Tensor(data, np.float64, requires_grad=True) for data in (u, v, c))
    hidden = (left @ right + shift).tanh()
    (hidden * hidden).mean().backward()
    t = np.tanh(u @ v + c)
    upstream = 2 * t * (1 - t * t) / t.size
    close(left.grad.data, upstream @ v.T, dtype=np.float64, rtol=1e-10)
    close(right.grad.data, u.T @ upstream, rtol=1e-10)
    close(shift.grad.data, upstream.sum(0), rtol=1e-10)
    p, q = Tensor(u, requires_grad=True), Tensor(u, requires_grad=True)
    (p + q).backward(u)
    p.grad.data[:] = 0
    close(q.grad.data, u, dtype=np.float32)
    picked = Tensor(c, np.float64, requires_grad=True)
    (concatenate([picked[[0, 0, 1]], picked]) ** 2).sum().backward()
    close(picked.grad.data, 2 * c * np.array([3, 2]))
    twin = Tensor(c, requires_grad=True)
    branch = twin * 2
    (branch * branch + branch).sum().backward()
    close(twin.grad.data, 8 * c + 2, rtol=1e-4)
    ### END HIDDEN TESTS


test_backward()

# %% [markdown]
# The example of section 1 once more, now with arrays, a bias and a thousand inputs at a time. Predict the shape of
# each gradient before you run it.

# %%
manual_seed(0)
inputs, targets = randn(1000, 20), randn(1000, 1)
weight, offset = randn(20, 1, requires_grad=True), randn(1, requires_grad=True)
((inputs @ weight + offset - targets) ** 2).mean().backward()
weight.grad.shape, offset.grad.shape

# %% [markdown]
# ## 14. In place: a rule uses what was saved
#
# A node keeps the *arrays* of its inputs, not copies. What if somebody changes one between forward and backward? The
# gradient of w · w is 2w, so [4, 6] below. Predict both results.

# %%
def gradient_after(change):
    w = Tensor([2.0, 3.0], requires_grad=True)
    loss = (w * w).sum()
    change(w)
    loss.backward()
    return w.grad


def rebind(w):
    w.data = w.data - 1  # a new array; the saved one stays as it was


def write(w):
    w.data -= 1  # writes into the saved array


print("w.data = w.data - 1   ", gradient_after(rebind))
print("w.data -= 1           ", gradient_after(write))

# %% [markdown]
# The second is wrong, and nothing said so: the rule multiplied by numbers that were not there when the loss was
# computed. PyTorch counts the writes through a tensor's methods and refuses (though not those through `.data`, which
# bypass it there too); we keep the door simple, and you keep the rule:
#
# > Between forward and backward, do not write into an array. Bind a new one, or wait until backward is done.
#
# In a training loop the weights change after backward, when the notes are gone, so there `w.data -= ...` is right,
# and it spares an array. `tensor[...] = value` refuses for tensors that require a gradient, for this very reason.
#
# ## 15. Not recording
#
# Notes keep arrays alive. In training that is the point; when a trained network only predicts, it is waste. So there
# is a switch.
#
# ### Exercise: `no_grad`

# %% nbgrader={"grade": false, "grade_id": "autograd-no-grad", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing in this block; as a decorator, ``@no_grad()``, nothing in this function.

    Afterwards it is as it was before, also after an exception and in nested blocks.

    TODO: Switch `_recording` off, yield, and put back what was there before.

    APPROACH:
    1. `global _recording`, and keep the old value.
    2. `yield` is where the block runs. If the block raises, so does the yield: `try: ... finally: ...`.

    EXAMPLE:
    >>> with no_grad(): print(is_grad_enabled())
    False

    HINT: "As it was before" is not always True: in a nested block it was False.
    """
    ### BEGIN SOLUTION
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-autograd-no-grad", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_no_grad():
    w = Tensor([1.0, 2.0], requires_grad=True)
    with no_grad():
        assert not is_grad_enabled(), "inside the block nothing is recorded"
        assert not (w * 2).requires_grad, "inside the block nothing is recorded"
        with no_grad():
            pass
        assert not is_grad_enabled(), "after an inner block we are still in the outer one: put back what was before"
    assert is_grad_enabled() and (w * 2).requires_grad, "after the block recording goes on"
    try:
        with no_grad():
            raise KeyError("on purpose")
    except KeyError:
        pass
    assert is_grad_enabled(), "after an exception recording goes on: try ... finally"

    @no_grad()
    def double(t):
        return t * 2

    assert not double(w).requires_grad and (w * 2).requires_grad, "@no_grad() works for a function"
    assert not double(w).requires_grad, "@no_grad() works each time the function is called"
    ### BEGIN HIDDEN TESTS
    levels = int(np.random.default_rng().integers(2, 5))

    @no_grad()
    def dive(depth):
        return (w * 1, is_grad_enabled()) if depth == 0 else dive(depth - 1)

    deepest, enabled = dive(levels)
    assert not deepest.requires_grad and not enabled and is_grad_enabled()
    ### END HIDDEN TESTS


test_no_grad()

# %% [markdown]
# What do the notes weigh? A chain of layers, each `tanh` of a sum, on 256 x 256 numbers (262 kB an array). Predict
# the two curves before you look.

# %%
def chain(layers, signal, step):
    for _ in range(layers):
        signal = (signal + step).tanh()
    return signal


@no_grad()
def chain_without_notes(layers, signal, step):
    return chain(layers, signal, step)


signal, step = randn(256, 256), randn(256, 256, requires_grad=True)
depths = [1, 4, 8, 12, 16]
megabytes = {
    "recorded": [measure(chain, n, signal, step, repeats=1).peak_bytes / 1e6 for n in depths],
    "under no_grad": [measure(chain_without_notes, n, signal, step, repeats=1).peak_bytes / 1e6 for n in depths],
}
figure, axes = plt.subplots(figsize=(6, 3))
for label, values in megabytes.items():
    axes.plot(depths, values, "o-", label=label)
axes.set_xlabel("layers")
axes.set_ylabel("peak memory (MB)")
axes.set_ylim(bottom=0)
axes.set_title("Saved arrays grow with depth")
axes.legend()
plt.show()
{label: [round(value, 2) for value in values] for label, values in megabytes.items()}

# %% [markdown]
# Measured here: with notes 0.52 MB for each layer, which is two arrays of 262 kB, the sum and its tanh. Without, 0.79
# MB however deep, from two layers on: what the layer got, the sum, and its tanh. Backward frees the notes of each
# node as soon as its rule has run. That is why a second backward through the same notes is refused, unless the first
# one was told to keep them.
#
# ## 16. Trust, but verify
#
# Your tests compared each rule with finite differences. Put that into a function, for every layer and every rule that
# you will ever write. A few decisions:
#
# - **float64.** A step h makes an error of about h² from the curvature, and one of about ε/h from rounding, where ε
#   is the precision of the numbers: 10⁻¹⁶ in float64, 10⁻⁷ in float32. With h = 10⁻⁶ the second is 10⁻¹⁰ in one, and
#   0.1 in the other, which checks nothing.
# - **Random weights.** If the result is an array, reduce it with a random weight for each number. A plain sum would
#   not notice a rule that sends gradients to the wrong places.
#
# ### Exercise: `gradcheck`

# %% nbgrader={"grade": false, "grade_id": "autograd-gradcheck", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def gradcheck(
    function: Callable[..., Tensor], inputs: Sequence[Any], eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3
) -> bool:
    """Compare the gradients of ``function(*inputs)`` with central differences, in float64.

    Parameters
    ----------
    function
        Takes as many tensors as there are inputs and returns a tensor. It must give the same result each time.
    inputs
        Tensors, arrays or numbers; they are copied. Those of floats become float64 and are checked, others are passed.
    eps
        The step to both sides.
    atol, rtol
        ``|backward - difference| <= atol + rtol * |difference|`` must hold for every number.

    Returns
    -------
    bool
        True; if a gradient is wrong, there is no return.

    Raises
    ------
    AssertionError
        If a gradient is wrong; it names the input, the place and both numbers.

    TODO: For each place of each checked input, nudge its number to both sides and compare.

    APPROACH:
    1. `by_backward` is the gradient of the tensor, or zeros if nothing flowed to it.
    2. For each place of `np.ndindex(tensor.shape)`: keep the number, write it plus eps, take `weighted()`, write it
       minus eps, take `weighted()` again, and put the number back.
    3. The difference over 2 eps must be close; else raise AssertionError with the text
       `f"gradcheck: input {position} at {list(place)}: backward gives {...:.6g}, finite differences give {...:.6g}"`.

    EXAMPLE:
    >>> gradcheck(lambda x, y: x * y, [Tensor([1.0, 2.0]), Tensor([3.0, 4.0])])
    True

    HINT: Write the condition as `if not abs(...) <= ...`: NaN is neither smaller nor greater than anything.
    """
    arrays = [np.array(x.data if isinstance(x, Tensor) else x) for x in inputs]
    tensors = [Tensor(a, np.float64, requires_grad=True) if a.dtype.kind == "f" else Tensor(a) for a in arrays]
    result = function(*tensors)
    weights = np.random.default_rng(0).normal(size=result.shape)
    result.backward(weights)

    @no_grad()
    def weighted() -> float:
        return float((function(*tensors).data * weights).sum())

    for position, tensor in enumerate(tensors):
        if not tensor.requires_grad:
            continue
        ### BEGIN SOLUTION
        by_backward = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.data
        for place in np.ndindex(tensor.shape):
            middle = tensor.data[place]
            tensor.data[place] = middle + eps
            above = weighted()
            tensor.data[place] = middle - eps
            slope = (above - weighted()) / (2 * eps)
            tensor.data[place] = middle
            if not abs(by_backward[place] - slope) <= atol + rtol * abs(slope):
                both = f"backward gives {by_backward[place]:.6g}, finite differences give {slope:.6g}"
                raise AssertionError(f"gradcheck: input {position} at {list(place)}: {both}")
        ### END SOLUTION
    return True

# %% nbgrader={"grade": true, "grade_id": "test-autograd-gradcheck", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_gradcheck():
    from tinytorch.core.tensor import apply

    x, y = Tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]]), Tensor([0.5, -1.0, 2.0])
    assert gradcheck(lambda a, b: (a * b).tanh() + a.exp(), [x, y]) is True, "right gradients: the answer is True"
    constant = Tensor([1.0], requires_grad=True)
    assert gradcheck(lambda a: a.detach() * 0 + constant, [x]) is True, "nothing flows to a: take zeros"
    assert gradcheck(lambda a, ids: a[ids], [x, np.array([1, 1, 0])]) is True, "whole numbers are passed, not checked"
    close(x.data, [[1, 2, 3], [-1, 0.5, 2]], dtype=np.float32, why="the caller's tensors stay as they are")
    spoiled = Op("spoiled", lambda a, b: a * b)
    for name, rule, mentions in [
        ("a sign", lambda g, out, a, b: (g * b, -g * a), ("input 1 at [0]",)),
        ("a place", lambda g, out, a, b: (g * b, g * a + np.array([0, 0, 0.1])), ("input 1 at [2]",)),
        ("a factor of the first", lambda g, out, a, b: (1.01 * g * b, g * a), ("input 0 at [0]",)),
        ("no number", lambda g, out, a, b: (g * b * np.nan, g * a), ("input 0 at [0]", "nan")),
    ]:
        defvjp(spoiled)(rule)
        with raises(AssertionError, *mentions, why=f"the rule is wrong in {name}"):
            gradcheck(lambda a, b: apply(spoiled, a, b), [Tensor([1.0, 2.0, 3.0]), Tensor([3.0, 2.0, 0.5])])
    del RULES["spoiled"]
    ### BEGIN HIDDEN TESTS
    fresh = np.random.default_rng()
    p, q = fresh.uniform(0.5, 2, size=(2, 2, 3))
    assert gradcheck(lambda a, b: (a / b).log() @ b.T, [p, q]) is True
    assert gradcheck(lambda a: a[0] * a[1], [p], eps=0.5) is True, "put the number back after the nudge"
    off = Op("off", np.sin)
    where_wrong = (int(fresh.integers(2)), int(fresh.integers(3)))
    spoil = np.ones((2, 3))
    spoil[where_wrong] = 1.1
    defvjp(off)(lambda g, out, a: g * np.cos(a) * spoil)
    with raises(AssertionError, f"input 0 at {list(where_wrong)}"):
        gradcheck(lambda a: apply(off, a), [p / 2])
    assert gradcheck(lambda a: apply(off, a), [p / 2], rtol=0.2) is True
    swapped = Op("swapped", lambda a: a.copy())
    defvjp(swapped)(lambda g, out, a: g[::-1])
    with raises(AssertionError, "input 0"):
        gradcheck(lambda a: apply(swapped, a), [p])
    del RULES["off"], RULES["swapped"]
    ### END HIDDEN TESTS


test_gradcheck()

# %% [markdown]
# ## 17. What does backward cost?
#
# For `x @ w` backward makes two products of the same size: one for x, one for w. Predict: how long does backward take
# compared with forward? And if x is the data, which needs no gradient?

# %%
size = 256
upstream = np.ones((size, size), np.float32)
w, constant, variable = randn(size, size, requires_grad=True), randn(size, size), randn(size, size, requires_grad=True)
for label, x in {"x requires no gradient": constant, "x requires one": variable}.items():
    forth = measure(lambda x=x: x @ w, repeats=30)
    back = measure(forth.result.backward, upstream, retain_graph=True, repeats=30)
    print(f"{label:24} forward  {forth}\n{'':24} backward {back}: {back.median_s / forth.median_s:.1f}x")

# %% [markdown]
# Measured here (NumPy 2.4 on one thread): forward 0.36 ms, backward 1.1 times as long if only w wants a gradient, and
# 2.1 times if both do. The product that nobody wants is not computed: the rule handed over functions, and one of them
# was never called. In a network every layer but the first wants both, so a step of training costs about three forward
# passes: one forward, two back.
#
# ### And a small one?
#
# There, nearly all the time was NumPy's. Now 500 times `x * factor + term` with 4 x 4 numbers. NumPy multiplies two such
# tables in 0.3 µs. Predict: how many times as long does one of the 1,000 operations take, forward and back?

# %%
start, factor, term = (Tensor(np.full((4, 4), value), requires_grad=True) for value in (1.0, 0.9, 0.1))


def small_chain():
    x = start
    for _ in range(500):
        x = x * factor + term
    return x.sum()


alone = measure(lambda: start.data * factor.data)
forth = measure(small_chain, repeats=15)
back = measure(forth.result.backward, retain_graph=True, repeats=15)
print(f"NumPy's product alone {alone}")
for label, cost in {"forward": forth, "backward": back}.items():
    one = cost.median_s / 1000
    print(f"{label:8} {one * 1e6:.1f} µs an operation, {one / alone.median_s:.1f} times the product alone")

# %% [markdown]
# Measured here: forward about 4 times as long as NumPy's product alone, backward about 6 times, where it does 1.5
# products or sums of its own. The rest is Python's: calls, attributes, small objects. Timed one by one, on the same
# machine: to call a function, 55 ns; with an empty `**attrs`, 25 more; to compare two shapes, 95, since NumPy makes a
# tuple whenever it is asked for one; `strict=True` in `zip`, 100; to make the two functions of `_mul` and call them, 450
# more than to compute both products. So `_mul` computes both while they are small, `run_backward` lets `zip` check
# nothing that was checked already, attributes are passed on only where there are any, and the solution of `apply` does
# without calling `_wrap`. Such savings took off a sixth of the time of this chain, measured by turns with the version
# before. In a large product nobody would notice.
#
# ### And fused rules?
#
# What do they buy? Here is softmax as one operation with one rule, and as five with five, forward and back,
# for 256 rows of 1,000 classes (1 MB an array). Predict both ratios.

# %%
def softmax_in_parts(x):
    raised = (x - x.max(axis=-1, keepdims=True)).exp()
    return raised / raised.sum(axis=-1, keepdims=True)


scores, upstream = randn(256, 1000, requires_grad=True), randn(256, 1000).data
for label, function in {"fused": softmax, "in parts": softmax_in_parts}.items():
    cost = measure(lambda function=function: function(scores).backward(upstream), repeats=15)
    print(f"{label:9} {cost.median_s * 1e3:5.1f} ms, at most {cost.peak_bytes / 1e6:.1f} MB at once")

# %% [markdown]
# Measured here, the best of 60: 0.5 ms and 4.1 MB fused, 4.0 ms and 7.2 MB in parts. Both do about the same sums; the
# parts leave a note and a new array for each step, and as many gradients on the way back. So the rule is: compose what is
# rarely used, and fuse what every network does in every step.
#
# ### Memory that comes and goes
#
# The notes of a step are some hundred arrays, and backward lets go of all of them. Where does their memory go? On Linux
# the C library gives it back to the system as soon as a few MB are free, and the next step has to ask for it anew: the
# system finds a page for every 4 kB, and fills it with zeros first. `resource.getrusage` counts these page faults. In a
# training step of a small GPT (module 14) there were 15,000, and they took 49 of 197 ms.
#
# The C library learns how much to keep from the largest block that it saw come back, up to 32 MB; it keeps twice that. So
# show it one. Nobody writes into the block, so it costs neither time nor memory.

# %%
#| export
def keep_freed_memory() -> None:
    """Let the C library keep up to 64 MB of what arrays gave back, for the next ones. Other systems do not mind."""
    np.empty(2**25 - 2**16, np.uint8)


keep_freed_memory()

# %% [markdown]
# The same step then had no page faults, and took 145 ms. (Processor time of one thread, on a busy machine.) What was
# measured above, before this cell, was measured without.
#
# ## 18. All of it together: a network, by hand
#
# Two layers, 16 hidden numbers, 49 weights, and a curve to follow. Forward, backward, a small step against the
# gradient: that is training, and these lines are all there is.

# %%
manual_seed(2)
grid = np.linspace(-3, 3, 120)[:, None]
inputs, targets = Tensor(grid), Tensor(np.sin(2 * grid))
w1, b1 = randn(1, 16, requires_grad=True), randn(16, requires_grad=True)
w2, b2 = Tensor(randn(16, 1).data * 0.25, requires_grad=True), Tensor([0.0], requires_grad=True)
parameters = [w1, b1, w2, b2]


def predict(x):
    return (x @ w1 + b1).tanh() @ w2 + b2  # (N, 1)


before = predict(inputs).data
losses = []
for _ in range(2500):
    loss = ((predict(inputs) - targets) ** 2).mean()
    loss.backward()
    for parameter in parameters:
        parameter.data -= 0.1 * parameter.grad.data  # after backward, so writing in place is right
        parameter.grad = None
    losses.append(loss.item())

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(grid, targets.data, "k", label="target")
left.plot(grid, before, ":", label="before")
left.plot(grid, predict(inputs).data, "--", label="after 2,500 steps")
left.set_ylim(-1.2, 1.6)
left.legend(loc="upper center", ncols=3, fontsize="small")
left.set_title("The curve and the network")
right.semilogy(losses)
right.set_xlabel("step")
right.set_title("Mean squared error")
plt.show()
print(f"loss {losses[0]:.3f} -> {losses[-1]:.5f}")

# %% [markdown]
# ## What you have built
#
# The table `RULES` with a rule for each operation of modules 02, 03 and 05, filled by `defvjp`; `unbroadcast`; `Node` and
# `record`, plugged into the seam of module 02; `run_backward`, which `Tensor.backward` calls; `no_grad`,
# `is_grad_enabled`, and `gradcheck`. From here on a new operation and its rule stand side by side.
#
# In the terminal: `tito module complete 06`. Then `backward()` works on every tensor you make, and module 07 turns
# the loop of section 18 into optimizers.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "autograd-reflect-saved-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **What must be saved?** Our recorder keeps all inputs and the result of every operation. Look at the rules of `add`,
# `mul`, `tanh` and `matmul`: which of the arrays does each really use? In the chain of section 15,
# `signal = (signal + step).tanh()`, how many arrays a layer does our recorder keep alive, how many would do, and what
# would you change in the design to get there?
#
# === BEGIN MARK SCHEME ===
# 2 points: right for add (none), tanh (result), mul and matmul (inputs). 2 points: two kept, one needed, so half. 1
# point: a way for rules to declare what they use, with shapes kept apart.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "autograd-reflect-saved", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# add uses none (its shapes are enough), mul both inputs, tanh only its result, matmul both inputs. A layer of the
# chain makes two new arrays, the sum and its tanh, and both are kept (the sum as the result of add and the input of
# tanh). The tanh alone would do: half the memory. Each operation would have to declare what its rule uses, for
# instance a tuple of names beside the rule, and the recorder would keep that and the shapes and dtypes of the others.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "autograd-reflect-direction-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Forward or backward?** One can also carry derivatives forward: along with each value, how fast it changes with
# *one* input. Compare the cost of both directions for (a) a network with a million weights and one loss, (b) a
# simulation with 3 parameters and a million outputs, all of whose derivatives are wanted. What does each direction
# need in memory?
#
# === BEGIN MARK SCHEME ===
# 2 points: what one pass of each direction gives. 2 points: backward for (a), forward for (b), with the counts. 1
# point: only backward must save, in proportion to depth.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "autograd-reflect-direction", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Going backward gives the derivatives of one output by all inputs in one walk, about two forward passes; going
# forward gives those of all outputs by one input, for about one extra pass. (a) One walk backward against a million
# passes forward. (b) Three passes forward against a million walks back. Forward needs nothing saved, since derivative
# and value travel together; backward needs the arrays of the whole computation until it has passed them.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "autograd-reflect-checkpoint-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Memory for time.** A network has 100 equal layers, and each saves 50 MB for backward. Your machine has 2 GB.
# Someone proposes to save only the input (10 MB) of every tenth layer, and to compute the other notes again when
# backward needs them. What is the peak memory, and what does a training step cost in time compared with before? Is
# every tenth a good choice?
#
# === BEGIN MARK SCHEME ===
# 2 points: about 600 MB (100 + 500) against 5 GB. 2 points: one more forward pass, about a third more time. 1 point:
# the trade between stored inputs and segment length, with an optimum near the square root, or an argument that ten
# fits.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "autograd-reflect-checkpoint", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Saved are 10 inputs of 10 MB, 100 MB in all. Backward takes ten layers at a time: it runs them forward once more,
# with notes of 10 times 50 MB = 500 MB, and frees them. So the peak is about 600 MB instead of 5 GB. Each layer runs
# forward twice: 1 + 1 + 2 instead of 1 + 2 units, one third more. With a segment every k layers the memory is 1000 MB
# / k + 50 MB k, smallest at k = sqrt(20), about 4 or 5, some 450 MB; ten is fine, since it fits and the time does not
# depend on k.
# ### END SOLUTION
