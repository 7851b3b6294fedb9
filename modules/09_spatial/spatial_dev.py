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
# # Spatial
#
# > Convolution, pooling and batch normalisation: layers that know where things are, as a few large matrix products.
#
# A linear layer takes a picture as a row of numbers. Shuffle the pixels of all your pictures, each in the same way, and
# it learns exactly as well as before: it never knew which pixels are neighbours. And it pays for that. From 3 x 32 x 32
# numbers to 24 such planes, it needs 75 million weights, one for every pair of numbers.
#
# Two things are true of pictures. What belongs together lies together. And an edge is an edge, wherever it is. So let
# a small window of weights slide over the picture: it looks at 3 x 3 neighbours only, and has the same weights
# everywhere.
#
# ```
#    picture                 window          one number
#    .  .  .  .  .  .
#    . [a  b  c] .  .       w0 w1 w2
#    . [d  e  f] .  .   x   w3 w4 w5   -->   a·w0 + b·w1 + ... + i·w8
#    . [g  h  i] .  .       w6 w7 w8
#    .  .  .  .  .  .
# ```
#
# That is a convolution, and the same task now takes 672 weights and biases. You write it three times: as loops, where
# it is obvious and takes hours; as one matrix product; and as a few products that copy less. Then come its gradients,
# pooling, and batch normalisation: all that a network needs to tell cats from dogs.
#
# Plan for about seven hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.spatial
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import index
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinytorch.core.autograd import defvjp
from tinytorch.core.layers import Module, Parameter, uniform_parameter, whole_size
from tinytorch.core.tensor import Array, Op, Tensor, apply, axis_in_range, concatenate, from_numpy

Pair = tuple[int, int]

# %%
import time

import matplotlib.pyplot as plt

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed, randn

# %% [markdown]
# ## 1. Where the windows stand
#
# First along a line of 7 numbers. The window has 3 weights and moves 2 places at a time, its **stride**:
#
# ```
#     x0 x1 x2 x3 x4 x5 x6
#    [w0 w1 w2]                  output 0        w0 meets x0 x2 x4  =  x[0:5:2]
#          [w0 w1 w2]            output 1        w1 meets x1 x3 x5  =  x[1:6:2]
#                [w0 w1 w2]      output 2        w2 meets x2 x4 x6  =  x[2:7:2]
# ```
#
# On the left is how one thinks of it: window after window. On the right is how this module computes: **weight after
# weight**. All that one weight ever meets is a slice, which NumPy multiplies at once. A kernel of 3 x 3 takes nine
# slices, however large the picture is. We call a slice a *tap*.
#
# Two more words. **Padding** puts p zeros at both ends, so that the border can stand in the middle of a window too.
# **Dilation** d leaves gaps: the weights stand d places apart, and the window reaches d(k − 1) + 1 places. So
#
# $$\text{out} = \left\lfloor \frac{L + 2p - d\,(k - 1) - 1}{s} \right\rfloor + 1$$
#
# Predict: a picture 224 wide, a window of 7, stride 2, padding 3. How wide is the result?
#
# ### Exercise: `output_size` and `taps`

# %% nbgrader={"grade": false, "grade_id": "spatial-taps", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def output_size(name: str, length: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many places a window has along an axis.

    Parameters
    ----------
    name
        The operation, for the message.
    length
        Of the axis, without its padding.
    kernel, stride, padding, dilation
        How many weights the window has, how far it moves each time, how many places are added at *both* ends, and how
        far apart its weights stand.

    Raises
    ------
    ValueError
        If the window does not fit even once; it shows the formula with its numbers.

    TODO: Compute the size here, and in `taps` the slices.

    APPROACH:
    1. The formula; `//` rounds down.
    2. If the size is less than 1, raise ValueError with the text `f"{name}: ({length} + 2*{padding} -
       {dilation}*({kernel}-1) - 1)//{stride} + 1 = {size}: the window is too large"`.
    3. `taps`: tap i begins at `i * dilation` and takes `out` places, `stride` apart. It ends just after the last of
       them.

    EXAMPLE:
    >>> output_size("demo", 7, 3, stride=2)
    3
    >>> taps(3, 2, 1, 3)
    [slice(0, 5, 2), slice(1, 6, 2), slice(2, 7, 2)]

    HINT: The last of `out` places is the first plus stride times (out - 1).
    """
    ### BEGIN SOLUTION
    size = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if size < 1:
        formula = f"({length} + 2*{padding} - {dilation}*({kernel}-1) - 1)//{stride} + 1"
        raise ValueError(f"{name}: {formula} = {size}: the window is too large")
    return size
    ### END SOLUTION


def taps(kernel: int, stride: int, dilation: int, out: int) -> list[slice]:
    """For each of the ``kernel`` places of a window: what it meets, along the padded axis, in ``out`` windows."""
    ### BEGIN SOLUTION
    firsts = range(0, kernel * dilation, dilation)
    return [slice(first, first + stride * (out - 1) + 1, stride) for first in firsts]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-spatial-taps", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_taps():
    for arguments, want in [
        ((7, 3), 5),
        ((7, 3, 2), 3),
        ((8, 3, 2), 3),
        ((5, 5), 1),
        ((32, 3, 1, 1), 32),
        ((9, 3, 1, 0, 2), 5),
        ((10, 3, 3, 2, 4), 2),
        ((1, 1, 4), 1),
    ]:
        got = output_size("demo", *arguments)
        assert type(got) is int and got == want, f"output_size of {arguments}: expected {want}, got {got}"
    with raises(ValueError, "demo", "(3 + 2*0 - 1*(5-1) - 1)//1 + 1 = -1", why="say the formula with its numbers"):
        output_size("demo", 3, 5)
    with raises(ValueError, "(4 + 2*1 - 3*(3-1) - 1)//2 + 1 = 0"):
        output_size("demo", 4, 3, 2, 1, 3)
    line = np.arange(20)
    for kernel, stride, dilation, out in [(3, 2, 1, 3), (2, 1, 3, 4), (1, 4, 1, 5), (4, 3, 2, 1)]:
        slices = taps(kernel, stride, dilation, out)
        assert len(slices) == kernel, f"taps of a kernel of {kernel}: expected {kernel} slices, got {len(slices)}"
        met = [line[one] for one in slices]
        want = [[stride * window + dilation * i for window in range(out)] for i in range(kernel)]
        for i in range(kernel):
            close(met[i], want[i], what=f"what tap {i} of taps({kernel}, {stride}, {dilation}, {out}) meets")
    ### BEGIN HIDDEN TESTS
    length, kernel, stride, padding, dilation = (int(n) for n in np.random.default_rng().integers(2, 6, size=5))
    length += 25
    starts = [a for a in range(-padding, length + padding, stride) if a + dilation * (kernel - 1) < length + padding]
    got = output_size("demo", length, kernel, stride, padding, dilation)
    assert got == len(starts), f"output_size{(length, kernel, stride, padding, dilation)}: got {got}"
    ends = [one.stop for one in taps(kernel, stride, dilation, len(starts))]
    assert max(ends) <= length + 2 * padding, "no tap may end beyond the padded axis"
    ### END HIDDEN TESTS


test_taps()

# %%
output_size("demo", 224, 7, stride=2, padding=3)

# %% [markdown]
# Half the width: with k = 7 and p = 3 the padding makes up for the window, and the stride halves what is left.
#
# ## 2. The loops
#
# Pictures come in batches of shape (N, C, H, W): N pictures of C channels (red, green, blue; later on whatever the
# network made of them), H rows and W columns. A convolution has O kernels, each of shape (C, kh, kw), and makes O
# channels out of C:
#
# $$\text{out}[n, o, r, c] = b[o] + \sum_{ch} \sum_{i} \sum_{j} \text{weight}[o, ch, i, j] \cdot x[n, ch, s r + i, s c + j]$$
#
# Seven indices, so seven loops; the three sums are one `np.sum` over a window.
#
# ### Exercise: `conv2d_loops`

# %% nbgrader={"grade": false, "grade_id": "spatial-loops", "locked": false, "schema_version": 3, "solution": true, "task": false}
def conv2d_loops(x, weight, bias, stride=1, padding=0):
    """A convolution by its definition.

    x: array (N, C, H, W). weight: (O, C, kh, kw). bias: (O,). Returns an array (N, O, out_h, out_w).

    TODO: Pad, then fill `out`, one number at a time.

    APPROACH:
    1. `np.pad(x, ...)` takes a pair (before, after) for each of the four axes; only the last two get zeros.
    2. For each n, o, row and column: the window is all channels of picture n, kh rows from `stride * row` on, and kw
       columns from `stride * column` on.
    3. Its product with kernel o, summed, plus the bias of o.

    EXAMPLE:
    >>> conv2d_loops(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([10.0]))
    array([[[[14., 14.],
             [14., 14.]]]])

    HINT: `for n, o, row, column in np.ndindex(out.shape)` is four loops in one line.
    """
    count, _, height, width = x.shape
    outputs, _, kh, kw = weight.shape
    out_h = output_size("conv2d", height, kh, stride, padding)
    out_w = output_size("conv2d", width, kw, stride, padding)
    out = np.zeros((count, outputs, out_h, out_w), x.dtype)
    ### BEGIN SOLUTION
    framed = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for n, o, row, column in np.ndindex(out.shape):
        top, left = stride * row, stride * column
        window = framed[n, :, top : top + kh, left : left + kw]  # (C, kh, kw)
        out[n, o, row, column] = np.sum(window * weight[o]) + bias[o]
    ### END SOLUTION
    return out

# %% nbgrader={"grade": true, "grade_id": "test-spatial-loops", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_conv2d_loops():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    corner = np.array([[[[1.0, 0.0], [0.0, 100.0]]]])
    close(
        conv2d_loops(x, corner, np.zeros(1)),
        [[[[500, 601, 702], [904, 1005, 1106], [1308, 1409, 1510]]]],
        why="weight [0, 0] meets the top left number of each window, [1, 1] the bottom right one",
    )
    close(conv2d_loops(x, corner, np.array([0.5]), stride=2), [[[[500.5, 702.5], [1308.5, 1510.5]]]], why="stride 2")
    close(conv2d_loops(x, corner, np.zeros(1), stride=3, padding=1), [[[[0, 300], [1200, 1510]]]], why="zeros around")
    two_in = np.stack([np.full((3, 3), 1.0), np.full((3, 3), 10.0)])[None]
    weight = np.array([[[[1.0]], [[0.0]]], [[[2.0]], [[3.0]]]])
    got = conv2d_loops(two_in, weight, np.array([0.0, 5.0]))
    close(got[0, :, 0, 0], [1, 37], why="each of the two kernels sums over both channels, and has its own bias")
    wide = conv2d_loops(np.ones((2, 1, 2, 5)), np.ones((1, 1, 1, 3)), np.zeros(1))
    close(wide, np.full((2, 1, 2, 3), 3.0), why="height and width differ, and so do the two sides of the kernel")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    pictures, kernels, shifts = dice.normal(size=(2, 3, 6, 5)), dice.normal(size=(4, 3, 3, 2)), dice.normal(size=4)
    for step, frame in [(1, 0), (2, 1), (1, 2), (3, 1)]:
        answer = conv2d_loops(pictures, kernels, shifts, step, frame)
        high, wide = (6 + 2 * frame - 3) // step + 1, (5 + 2 * frame - 2) // step + 1
        assert answer.shape == (2, 4, high, wide), f"expected shape {(2, 4, high, wide)}, got {answer.shape}"
        bordered = np.zeros((2, 3, 6 + 2 * frame, 5 + 2 * frame))
        bordered[:, :, frame : frame + 6, frame : frame + 5] = pictures
        for r, c in [(0, 0), (high - 1, wide - 1), (0, wide - 1), (high - 1, 0), (high // 2, wide // 2)]:
            seen = bordered[:, None, :, step * r : step * r + 3, step * c : step * c + 2]
            close(answer[:, :, r, c], (seen * kernels).sum((2, 3, 4)) + shifts)
    ### END HIDDEN TESTS


test_conv2d_loops()

# %% [markdown]
# What can nine weights see? Here is a handwritten zero, 8 x 8, as it was scanned, and a kernel that has −1 on the left
# and 1 on the right. Before you run: where will its output be bright, where dark, and what happens on the empty
# background?

# %%
zero = np.array(
    [
        [0, 0, 5, 12, 0, 0, 0, 0],
        [0, 0, 14, 10, 14, 12, 0, 0],
        [0, 2, 16, 16, 8, 11, 2, 0],
        [0, 3, 16, 11, 0, 9, 3, 0],
        [0, 5, 12, 2, 0, 12, 4, 0],
        [0, 1, 12, 0, 0, 13, 3, 0],
        [0, 0, 13, 6, 8, 13, 0, 0],
        [0, 0, 3, 14, 12, 3, 0, 0],
    ],
    np.float32,
)
to_the_right = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
edges = conv2d_loops(zero[None, None], np.stack([to_the_right, to_the_right.T])[:, None], np.zeros(2), padding=1)[0]
figure, panels = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
panels[0].imshow(zero, cmap="gray")
panels[0].set_title("A digit, as scanned")
for panel, plane, title in zip(panels[1:], edges, ("brighter to the right", "brighter further down"), strict=True):
    drawn = panel.imshow(plane, cmap="RdBu", vmin=-64, vmax=64)
    panel.set_title(title)
figure.colorbar(drawn, ax=panels)
for panel in panels:
    panel.axis("off")
plt.show()

# %% [markdown]
# Blue where it gets brighter in that direction, red where darker, white (zero) where nothing changes, however bright it
# is. Sobel and Feldman drew these kernels by hand in 1968. A network finds its own, since each weight has a gradient;
# and the first layers of trained networks look much like these.
#
# And what does it cost? One layer, 3 channels to 16, on 32 pictures of 32 x 32. Predict the time.

# %%
manual_seed(0)
pictures, kernels, shifts = randn(32, 3, 32, 32).data, randn(16, 3, 3, 3).data, np.zeros(16, np.float32)
begin = time.perf_counter()
few = conv2d_loops(pictures[:1], kernels, shifts, padding=1)
one_picture_s = time.perf_counter() - begin
hours = one_picture_s * 50_000 / 3600
print(f"one picture {one_picture_s * 1e3:.0f} ms; an epoch of 50,000, this layer alone: {hours:.1f} h")

# %% [markdown]
# Here it was 104 ms, so an hour and a half for an epoch of CIFAR-10: one layer, forward only. (All times in this module
# are medians, measured with NumPy 2.4 whose products ran on one thread.) There are 16,384 turns a picture. Each
# multiplies 27 pairs of numbers, and spends nearly all of its time on being Python.
#
# ## 3. One matrix product
#
# Every number of the result is a sum of products, and sums of products are what matrix multiplication is fast at. Lay
# each window down as a *column* of numbers, side by side, and all kernels meet all windows in one product:
#
# ```
#    weight (O, C·kh·kw)       columns (C·kh·kw, N·out_h·out_w)
#
#    [ kernel 0 ------ ]       [ |     |     |           ]
#    [ kernel 1 ------ ]   @   [ window window window .. ]   =   (O, N·out_h·out_w)
#    [ ...             ]       [ |     |     |           ]
# ```
#
# This is called *im2col*. To fill the table window by window would be the loops again. Fill it by rows: row (ch, i, j)
# holds what weight [ch, i, j] meets in all windows. That is a tap along the height, and one along the width.
#
# Padding comes first, with a function that is given:

# %%
#| export
def padded(x: Array, padding: Pair, value: float = 0.0) -> Array:
    """``x`` of shape (N, C, H, W) with a frame of ``value``; ``x`` itself if there is no padding."""
    (ph, pw), (count, channels, height, width) = padding, x.shape
    if ph == pw == 0:
        return x
    framed = np.full_like(x, value, shape=(count, channels, height + 2 * ph, width + 2 * pw))
    framed[:, :, ph : ph + height, pw : pw + width] = x
    return framed


def cropped(x: Array, padding: Pair) -> Array:
    """What is inside a frame of ``padding``: the inverse of ``padded``."""
    ph, pw = padding
    return x[:, :, ph : x.shape[2] - ph, pw : x.shape[3] - pw]


def window_taps(
    name: str, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[list[slice], list[slice], Pair]:
    """The taps along the height and the width of pictures of ``size`` (H, W), and the size of the result."""
    heights, widths = zip(size, kernel, stride, padding, dilation, strict=True)
    out = output_size(name, *heights), output_size(name, *widths)
    return taps(kernel[0], stride[0], dilation[0], out[0]), taps(kernel[1], stride[1], dilation[1], out[1]), out

# %% [markdown]
# ### Exercise: `im2col`

# %% nbgrader={"grade": false, "grade_id": "spatial-im2col", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def im2col(x: Array, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> Array:
    """The windows of ``x`` as the columns of a matrix.

    Parameters
    ----------
    x
        Of shape (N, C, H, W).
    kernel, stride, padding, dilation
        Pairs: for the height, for the width.

    Returns
    -------
    Array
        Of shape (C * kh * kw, N * out_h * out_w): a row for each place of the window, the channel changing slowest; a
        column for each window, the picture changing slowest.

    TODO: Fill `columns`, one place of the window at a time.

    APPROACH:
    1. `down` and `across` are the taps along the height and the width.
    2. For each place (i, j): the padded pictures at rows `down[i]` and columns `across[j]` are of shape
       (N, C, out_h, out_w), and belong into `columns[:, i, j]`.

    EXAMPLE:
    >>> im2col(np.arange(6.0).reshape(1, 1, 2, 3), kernel=(2, 2))
    array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]])

    HINT: In `columns` the channels stand before the pictures: `swapaxes(0, 1)`.
    """
    count, channels, *size = x.shape
    down, across, (out_h, out_w) = window_taps("im2col", size, kernel, stride, padding, dilation)
    framed = padded(x, padding)
    columns = np.empty((channels, *kernel, count, out_h, out_w), x.dtype)
    ### BEGIN SOLUTION
    for i, rows in enumerate(down):
        for j, places in enumerate(across):
            columns[:, i, j] = framed[:, :, rows, places].swapaxes(0, 1)
    ### END SOLUTION
    return columns.reshape(channels * kernel[0] * kernel[1], count * out_h * out_w)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-im2col", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_im2col():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    got = im2col(x, (2, 2))
    close(got[:, 0], [0, 1, 4, 5, 12, 13, 16, 17], what="the first column", why="channel by channel, row by row")
    close(got[1], [1, 2, 3, 5, 6, 7], what="row 1", why="what the place (0, 1) of channel 0 meets in all six windows")
    close(im2col(x, (1, 3), stride=(2, 1))[:, 2], [8, 9, 10, 20, 21, 22], what="with stride 2 down, the third window")
    framed = im2col(x, (3, 3), padding=(1, 0))
    close(framed[:3, 0], [0, 0, 0], why="one row of zeros above, none at the sides")
    close(im2col(x, (2, 2), dilation=(2, 3)), [[0], [3], [8], [11], [12], [15], [20], [23]], why="gaps: the corners")
    two = np.stack([np.zeros((1, 2, 2)), np.ones((1, 2, 2))])
    close(im2col(two, (1, 1)), [[0, 0, 0, 0, 1, 1, 1, 1]], why="all windows of picture 0, then those of picture 1")
    assert im2col(two.astype(np.float32), (1, 1)).dtype == np.float32, "float32 stays float32"
    ### BEGIN HIDDEN TESTS
    scene = np.random.default_rng().normal(size=(3, 2, 6, 7))
    for stride, padding, dilation in [((1, 2), (0, 1), (1, 1)), ((2, 1), (1, 0), (1, 2)), ((1, 1), (2, 2), (2, 1))]:
        table = im2col(scene, (3, 2), stride, padding, dilation)
        bordered = np.pad(scene, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
        starts = [range(0, bordered.shape[2 + a] - dilation[a] * ((3, 2)[a] - 1), stride[a]) for a in (0, 1)]
        want = [
            bordered[n, :, r : r + 2 * dilation[0] + 1 : dilation[0], c : c + dilation[1] + 1 : dilation[1]].ravel()
            for n in range(3) for r in starts[0] for c in starts[1]
        ]
        close(table, np.array(want).T)
    ### END HIDDEN TESTS


test_im2col()

# %% [markdown]
# With it a convolution is three lines, and agrees with the loops:

# %%
def conv2d_columns(x, weight, bias, padding):
    outputs, _, *kernel = weight.shape
    flat = weight.reshape(outputs, -1) @ im2col(x, kernel, padding=(padding, padding))  # (O, N * out_h * out_w)
    size = [length + 2 * padding - k + 1 for length, k in zip(x.shape[2:], kernel, strict=True)]
    return flat.reshape(outputs, len(x), *size).swapaxes(0, 1) + bias[:, None, None]


by_columns = measure(conv2d_columns, pictures, kernels, shifts, 1)
print("largest difference:", float(np.abs(by_columns.result[:1] - few).max()))
print(f"32 pictures: {by_columns}; {32 * one_picture_s / by_columns.median_s:,.0f} times as fast as the loops")

# %% [markdown]
# 1.1 ms for all 32 pictures: 2,900 times as fast. The multiplications are the same ones; what is gone is Python between
# them.
#
# ## 4. Shift, do not copy
#
# im2col writes each number nine times, once for every place of the window. For 128 pictures of 48 channels, 16 x 16,
# the table takes 57 MB, and to write it takes nearly as long as to multiply it (31 ms and 37 ms). How many of the nine
# copies are needed?
#
# **Channels last.** Nobody says that memory must have the order of the shape. Let the numbers of all channels at one
# place lie side by side, so in memory (N, H, W, C), and hand out the view `transpose(0, 3, 1, 2)`, whose shape is
# (N, C, H, W) as before. PyTorch calls this memory format the same. Now kw neighbouring places are *one* piece of
# memory, of kw · C numbers, and the windows of a picture are the rows of a table instead of its columns.
#
# **The height is a shift.** What the second row of a kernel meets in one window, its first row meets in the window
# below. So cut each row of the picture into windows along the width, once: kw copies of each number and not kh · kw.
# The rest is to begin one row further down, and a slice of consecutive rows is a *view*: nothing moves.
#
# ```
#    a picture's rows, cut along the width          kernel row 0 reads here  [0   1   2   3]  4   5
#    (rows, places, kw·C)                           kernel row 1              0  [1   2   3   4]  5
#     row    0    1    2    3    4    5              kernel row 2              0   1  [2   3   4   5]
#          [----|----|----|----|----|----]
#                                                    out  =  [0..3] @ K0  +  [1..4] @ K1  +  [2..5] @ K2
# ```
#
# Three products in the place of one, each with a third of the weights, (kw·C, O): as many multiplications, a third of
# the copies. (With a stride along the height the rows are not consecutive. Then `reshape` copies them, and the result
# is the same.)
#
# A product of a table of windows, (4096, 48), with the weights of 32 kernels, (48, 32), does the same multiplications as
# the kernels times windows that stand as columns, (32, 48) @ (48, 4096). And the gradient of the weights will be the
# product of the windows with what comes from above, (4096, 32), one of them turned. Predict: does it matter which way
# round they lie in memory?

# %%
as_rows, weights, above = randn(4096, 48).data, randn(48, 32).data, randn(4096, 32).data
as_columns, weights_turned, above_turned = (array.T.copy() for array in (as_rows, weights, above))
ways = {
    "forward, windows as rows": (as_rows, weights),
    "forward, windows as columns": (weights_turned, as_columns),
    "gradient, windows as rows": (above.T, as_rows),
    "gradient, windows as columns": (above_turned, as_columns.T),
}
for label, factors in ways.items():
    print(f"{label:30}{measure(np.matmul, *factors, repeats=25)}")

# %% [markdown]
# Here 160 µs against 220 µs forward, and 180 µs against 255 µs for the gradient: windows as columns take 1.4 times as
# long. And nothing is lost behind the convolution: NumPy's operations keep the memory order of what they get, so
# everything up to the last layer stays channels last.
#
# Two more things are taken care of in the given lines:
#
# - **Blocks.** A few pictures at a time, so that what was copied is still in the processor's cache when the product
#   reads it. Blocks do not depend on each other, so several threads may share them out; `for_blocks` below takes care
#   of both.
# - **Groups.** With `groups=G`, channels and kernels are dealt into G parts that never meet, as if there were G
#   convolutions side by side. `groups=C` gives each channel its own window: a *depthwise* convolution. `np.matmul` does
#   n · G products at once if n and G are the first axes.
#
# And how does one cut rows into windows? First as a view, which costs nothing. An array is a piece of memory and, for
# each axis, the distance from one number to the next, its strides. Distances may be chosen so that windows overlap: then
# the same number stands in several of them. NumPy lets you, in `as_strided`, and checks nothing, so it is done for you
# in `width_windows`.

# %%
#| export
_threads = 1
_others = ThreadPoolExecutor(1)  # beside the thread that calls; it starts threads when it gets work


def set_num_threads(threads: int) -> None:
    """Let the operations of this module work on so many blocks at once; at first it is one.

    NumPy's matrix products use all processors by themselves, and two kinds of threads get in each other's way. So start
    Python with the environment variable ``OPENBLAS_NUM_THREADS=1`` if you give this module more than one thread. The
    results are the same to the last bit, however many there are.

    Raises
    ------
    TypeError, ValueError
        If ``threads`` is no whole number of at least 1.
    """
    global _threads, _others
    _threads = whole_size("set_num_threads", "threads", threads)
    _others = ThreadPoolExecutor(max(1, _threads - 1))


CACHED = 400_000  # numbers of a block that stay in the cache while they are worked on


def blocks(count: int, each: int) -> list[slice]:
    """Slices that cut ``count`` pictures of ``each`` numbers into blocks of about ``CACHED`` numbers, or of one."""
    step = math.ceil(count / max(1, math.ceil(count * each / CACHED)))
    return [slice(start, start + step) for start in range(0, count, max(1, step))]


def for_blocks(work: Callable[[slice], Any], count: int, each: int) -> list[Any]:
    """What ``work(block)`` returns for each of the ``blocks``, in their order; each thread takes a share of them."""
    cut = blocks(count, each)
    bounds = [len(cut) * i // _threads for i in range(_threads + 1)]

    def share(i: int) -> list[Any]:
        return [work(block) for block in cut[bounds[i] : bounds[i + 1]]]

    later = [_others.submit(share, i) for i in range(1, _threads)]
    return share(0) + [result for one in later for result in one.result()]


def width_windows(rows: Array, kernel: int, stride: int, dilation: int, groups: int) -> Array:
    """The windows along the width of ``rows`` (n, H, W, C), as a view (n, G, H, out_w, kernel, C/G)."""
    count, height, width, channels = rows.shape
    to_picture, to_row, to_place, to_channel = rows.strides
    out_w, share = output_size("conv2d", width, kernel, stride, 0, dilation), channels // groups
    strides = to_picture, share * to_channel, to_row, stride * to_place, dilation * to_place, to_channel
    return as_strided(rows, (count, groups, height, out_w, kernel, share), strides)

# %% [markdown]
# ### Exercise: `spread_width` and `conv2d_forward`
#
# If you would rather stay with `im2col`, do: fill the second blank with it (mind the groups, and the order of its
# columns), and every test will pass, only slower.

# %% nbgrader={"grade": false, "grade_id": "spatial-conv-forward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def spread_width(x: Array, padding: Pair, kernel: int, stride: int, dilation: int, groups: int = 1) -> Array:
    """The rows of the padded pictures, cut into windows along the width, channels last.

    Parameters
    ----------
    x
        Of shape (n, C, H, W).
    padding
        How many zeros stand above and below, and at both sides.
    kernel, stride, dilation
        Those along the width: how many weights, how far the window moves, how far apart the weights stand.
    groups
        G, into how many parts the channels are dealt.

    Returns
    -------
    Array
        Of shape (n, G, H + 2 * ph, out_w, kernel, C/G), in C order.

    TODO: Fill the blank here and the one in `conv2d_forward`.

    APPROACH:
    1. `spread_width`: `rows` is an array of zeros (n, H + 2 ph, W + 2 pw, C). Put x, with its axes in this order, into
       the middle of it.
    2. `width_windows` of them is a view; `np.ascontiguousarray` makes the copy that the products can read.
    3. `conv2d_forward`: spread the pictures of the block, `x[block]`. Then `tap_rows(rows, tap)` is what a row of the
       kernel meets, of shape (n, G, places, kw * C/G). Add its product with that row of `kernels`, of shape
       (G, kw * C/G, O/G), to `total`; so for all rows of the kernel and the taps of `down`.

    EXAMPLE:
    >>> spread_width(np.arange(6.0).reshape(1, 1, 2, 3), (0, 0), 2, 1, 1).reshape(2, 2, 2)
    array([[[0., 1.],
            [1., 2.]],
    <BLANKLINE>
           [[3., 4.],
            [4., 5.]]])

    HINT: (n, C, H, W) becomes (n, H, W, C) by `transpose(0, 2, 3, 1)`. `total` is a view of the result and holds the
    bias: `total += ...` writes there, `total = total + ...` would not.
    """
    ### BEGIN SOLUTION
    (ph, pw), (count, channels, height, width) = padding, x.shape
    rows = np.zeros((count, height + 2 * ph, width + 2 * pw, channels), x.dtype)
    rows[:, ph : ph + height, pw : pw + width] = x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(width_windows(rows, kernel, stride, dilation, groups))
    ### END SOLUTION


def spread_size(x: Array, windows: int, kernel: int, padding: Pair) -> int:
    """How many numbers ``spread_width`` makes of each picture, for so many windows along the width."""
    channels, height = x.shape[1:3]
    size: int = (height + 2 * padding[0]) * windows * kernel * channels
    return size


def tap_rows(rows: Array, tap: slice) -> Array:
    """What one row of the kernel meets: the ``tap`` of ``spread_width``'s rows as (n, G, places, kw * C/G)."""
    count, groups, high, wide, kw, share = rows[:, :, tap].shape
    return rows[:, :, tap].reshape(count, groups, high * wide, kw * share)


def kernel_rows(weight: Array, groups: int) -> Array:
    """The rows of the kernels, (kh, G, kw * C/G, O/G), from a weight (O, C/G, kh, kw)."""
    outputs, channels, kh, kw = weight.shape
    parted = weight.reshape(groups, outputs // groups, channels, kh, kw).transpose(3, 0, 4, 2, 1)
    return parted.reshape(kh, groups, kw * channels, outputs // groups)


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """The convolution of ``x`` (N, C, H, W) with ``weight`` (O, C / groups, kh, kw): an array (N, O, out_h, out_w)."""
    outputs, _, *kernel = weight.shape
    count, _, *size = x.shape
    down, _, (out_h, out_w) = window_taps("conv2d", size, (kernel[0], kernel[1]), stride, padding, dilation)
    kernels = kernel_rows(weight, groups)
    out = np.empty((count, groups, out_h * out_w, outputs // groups), np.result_type(x, weight))

    def convolve(block: slice) -> None:
        total = out[block]
        total[...] = 0 if bias is None else bias.reshape(groups, 1, -1)
        ### BEGIN SOLUTION
        rows = spread_width(x[block], padding, kernel[1], stride[1], dilation[1], groups)
        for kernel_row, tap in zip(kernels, down, strict=True):
            total += tap_rows(rows, tap) @ kernel_row
        ### END SOLUTION

    for_blocks(convolve, count, spread_size(x, out_w, kernel[1], padding))
    return out.swapaxes(1, 2).reshape(count, out_h, out_w, outputs).transpose(0, 3, 1, 2)


CONV2D = Op("conv2d", conv2d_forward)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-conv-forward", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
WINDOWS = [
    ((1, 1), (0, 0), (1, 1), 1),
    ((1, 1), (1, 1), (1, 1), 1),
    ((2, 1), (1, 0), (1, 1), 1),
    ((1, 3), (2, 1), (2, 1), 1),
    ((1, 2), (0, 2), (1, 2), 2),
    ((2, 2), (1, 1), (1, 1), 4),
]


def by_definition(x, weight, slope=None, *, stride, padding, dilation, groups):
    """The convolution and, for a gradient of the result, those of x and weight: one weight after the other."""
    framed = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    out_h, out_w = (
        (framed.shape[2 + a] - dilation[a] * (weight.shape[2 + a] - 1) - 1) // stride[a] + 1 for a in (0, 1)
    )
    out, to_x, to_weight = np.zeros((len(x), len(weight), out_h, out_w)), np.zeros(framed.shape), np.zeros(weight.shape)
    for o, ch, i, j in np.ndindex(weight.shape):
        meets = o // (len(weight) // groups) * weight.shape[1] + ch
        top, left = dilation[0] * i, dilation[1] * j
        spot = np.s_[:, meets, top : top + stride[0] * out_h : stride[0], left : left + stride[1] * out_w : stride[1]]
        out[:, o] += weight[o, ch, i, j] * framed[spot]
        if slope is not None:
            to_x[spot] += weight[o, ch, i, j] * slope[:, o]
            to_weight[o, ch, i, j] = np.sum(framed[spot] * slope[:, o])
    height, width = x.shape[2:]
    return out, to_x[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width], to_weight


def named(window):
    return dict(zip(("stride", "padding", "dilation", "groups"), window, strict=True))


def test_conv2d_forward():
    numbers = np.random.default_rng(0)
    for window in WINDOWS:
        options = named(window)
        x = numbers.normal(size=(2, 4, 5, 4))
        weight, bias = numbers.normal(size=(4, 4 // options["groups"], 3, 2)), numbers.normal(size=4)
        want = by_definition(x, weight, **options)[0]
        close(conv2d_forward(x, weight, **options), want, what=f"conv2d with {options}")
        close(conv2d_forward(x, weight, bias, **options), want + bias[:, None, None], what=f"with a bias, {options}")
    many = numbers.normal(size=(5, 2, 40, 30)).astype(np.float32)
    kernel = numbers.normal(size=(3, 2, 1, 1)).astype(np.float32)
    want = (kernel[:, :, 0, 0] @ many.reshape(5, 2, -1)).reshape(5, 3, 40, 30)
    close(conv2d_forward(many, kernel), want, dtype=np.float32, rtol=1e-4, atol=1e-5, why="several blocks")
    close(conv2d_forward(many[:0], kernel), np.zeros((0, 3, 40, 30)), why="an empty batch is a batch")
    with raises(ValueError, "conv2d", "(2 + 2*0 - 1*(3-1) - 1)//1 + 1 = 0"):
        conv2d_forward(np.zeros((1, 1, 2, 9)), np.zeros((1, 1, 3, 3)))
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    for stride, padding, dilation, groups in [((1, 1), (1, 2), (1, 1), 1), ((2, 3), (0, 1), (1, 2), 3)]:
        options = named((stride, padding, dilation, groups))
        scene, probe = dice.normal(size=(2, 3, 6, 7)), dice.normal(size=(6, 3 // groups, 2, 3))
        kept = scene.copy()
        close(conv2d_forward(scene, probe, **options), by_definition(scene, probe, **options)[0], what=f"{options}")
        close(scene, kept, why="the pictures must stay as they were")
    ### END HIDDEN TESTS


test_conv2d_forward()

# %% [markdown]
# Now the same layer in three ways, and a larger one from the middle of a network.

# %%
middle = randn(32, 48, 16, 16).data, randn(48, 48, 3, 3).data
contest = {"3 -> 16, 32 x 32": (pictures, kernels), "48 -> 48, 16 x 16": middle}
for label, (x, weight) in contest.items():
    bias = np.zeros(len(weight), np.float32)
    begin = time.perf_counter()
    conv2d_loops(x[:1], weight, bias, padding=1)
    loops_s = (time.perf_counter() - begin) * len(x)
    columns = measure(conv2d_columns, x, weight, bias, 1, repeats=9)
    by_shifts = measure(conv2d_forward, x, weight, bias, padding=(1, 1), repeats=9)
    print(f"{label}: loops {loops_s:.2f} s")
    print(f"   columns {columns}")
    print(f"   shifts  {by_shifts}")

# %% [markdown]
# Measured, the middle one of three runs: loops 2.7 s and 2.5 s; columns 1.2 ms and 8.3 ms; shifts 1.2 ms and 5.3 ms. Peak
# memory: 5.6 MB against 5.5 MB, and 16.1 MB against 3.5 MB. With 48 channels the shifts save a third of the time and
# three quarters of the memory. With 3 channels they save nothing: a row of the kernel has 3 · 3 weights, too few to keep
# a product busy, and there are three such products. In a network all layers but the first have many channels, so this is
# the form we keep.
#
# ## 5. The gradient of the weights
#
# A weight is used at every window of every picture, and its gradients add up:
#
# $$\frac{\partial L}{\partial \text{weight}[o, ch, i, j]} = \sum_{n, r, c} g[n, o, r, c] \cdot x[n, ch, s r + d i - p, s c + d j - p]$$
#
# For a fixed i that is again a product of matrices. Forward, `out = rows @ K`, so to K goes `rowsᵀ @ g`, or with the
# outputs first `gᵀ @ rows`, as you know from `matmul`. That is a product for each picture and each group; what the
# pictures want is added up.
#
# ### Exercise: `conv2d_weight_gradient`

# %% nbgrader={"grade": false, "grade_id": "spatial-weight-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def conv2d_weight_gradient(
    g: Array, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """The gradient by the weight of ``conv2d_forward``, of shape (O, C / groups, kh, kw).

    Parameters
    ----------
    g
        The gradient by the result, of shape (N, O, out_h, out_w).
    x
        The pictures, of shape (N, C, H, W).

    TODO: For a block, return the gradient of the rows of the kernels, of shape (kh, G, O/G, kw * C/G).

    APPROACH:
    1. `rows` as in `conv2d_forward`.
    2. `turned` is given: g of the block as (n, G, O/G, places).
    3. For each row of the kernel: `turned` times `tap_rows(...)`, summed over the pictures. `np.stack` puts them into
       one array.

    EXAMPLE:
    >>> pixels, g = np.array([[[[1.0, 10.0, 100.0]]]]), np.ones((1, 1, 1, 2))
    >>> conv2d_weight_gradient(g, pixels, (1, 2), (1, 1), (0, 0), (1, 1), 1)
    array([[[[ 11., 110.]]]])

    HINT: `@` multiplies the last two axes and leaves those before them alone: what is left is (n, G, O/G, kw * C/G).
    """
    (count, channels, *size), outputs = x.shape, g.shape[1]
    down, _, (out_h, out_w) = window_taps("conv2d", size, kernel, stride, padding, dilation)
    kh, kw = kernel

    def slopes(block: slice) -> Array:
        parts_g = g[block].transpose(0, 2, 3, 1).reshape(-1, out_h * out_w, groups, outputs // groups)
        turned = parts_g.transpose(0, 2, 3, 1)
        ### BEGIN SOLUTION
        rows = spread_width(x[block], padding, kw, stride[1], dilation[1], groups)
        return np.stack([(turned @ tap_rows(rows, tap)).sum(axis=0) for tap in down])
        ### END SOLUTION

    nothing = np.zeros((kh, groups, outputs // groups, kw * channels // groups), np.result_type(g, x))
    added = sum(for_blocks(slopes, count, spread_size(x, out_w, kw, padding)), start=nothing)
    return added.reshape(kh, outputs, kw, channels // groups).transpose(1, 3, 0, 2)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-weight-gradient", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_weight_gradient():
    numbers = np.random.default_rng(1)
    for window in WINDOWS:
        options = named(window)
        x, weight = numbers.normal(size=(2, 4, 5, 4)), numbers.normal(size=(4, 4 // options["groups"], 3, 2))
        g = numbers.normal(size=by_definition(x, weight, **options)[0].shape)
        got = conv2d_weight_gradient(g, x, (3, 2), **options)
        close(got, by_definition(x, weight, g, **options)[2], what=f"gradient of the weight with {options}")
    ones = np.ones((40, 1, 8, 8), np.float32)
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    got = conv2d_weight_gradient(ones, ones, (1, 1), **plain)
    close(got, [[[[2560]]]], dtype=np.float32, why="add over all blocks: each picture counts")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    for stride, padding, dilation, groups in [((1, 1), (1, 1), (1, 1), 1), ((3, 2), (2, 0), (2, 1), 3)]:
        options = named((stride, padding, dilation, groups))
        scene, probe = dice.normal(size=(2, 3, 6, 5)), dice.normal(size=(3, 3 // groups, 3, 3))
        top = dice.normal(size=by_definition(scene, probe, **options)[0].shape)
        kept_g, kept_x = top.copy(), scene.copy()
        slope = conv2d_weight_gradient(top, scene, (3, 3), **options)
        close(slope, by_definition(scene, probe, top, **options)[2])
        close(top, kept_g, why="a rule must not write into g")
        close(scene, kept_x, why="a rule must not write into x")
    ### END HIDDEN TESTS


test_weight_gradient()

# %% [markdown]
# ## 6. The gradient of the picture
#
# Where does the gradient of a *pixel* come from? From all windows that saw it. Along a line, kernel of 3, stride 1:
#
# ```
#    out[0] = w0 x0 + w1 x1 + w2 x2
#    out[1] =         w0 x1 + w1 x2 + w2 x3            to x2:  w2 g0 + w1 g1 + w0 g2
#    out[2] =                 w0 x2 + w1 x3 + w2 x4
# ```
#
# Window after window over g, the weights in reverse order: **the gradient of a convolution is a convolution**, with the
# kernel turned upside down and left to right, and with the roles of inputs and outputs exchanged: O channels of g come
# in, C go out. The function that you have does it, fast.
#
# What about the border? x0 was seen by one window only, so g needs zeros around it. The kernel reaches d(k − 1) beyond
# its first weight; with so much padding everything fits. If the forward pass had padding p, then p places less. And
# with a stride s, g stands s places apart, zeros between:
#
# ```
#    stride 2, k = 3, p = 1, picture of 5 (out 3)       zeros in front: d(k-1) - p = 1
#
#    g0 g1 g2    -->    0  g0  0  g1  0  g2  0          5 + d(k-1) = 7 places, then stride 1
# ```
#
# ### Exercise: `spread_gradient` and `conv2d_input_gradient`

# %% nbgrader={"grade": false, "grade_id": "spatial-input-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def spread_gradient(g: Array, size: Sequence[int], stride: Pair, padding: Pair, reach: Pair) -> Array:
    """``g`` among zeros, so that a convolution of stride 1 over it gives the gradient of pictures of ``size`` (H, W).

    Parameters
    ----------
    g
        Of shape (N, O, out_h, out_w).
    reach
        How far a kernel reaches beyond its first weight, d(k - 1), along the height and the width.

    Returns
    -------
    Array
        Of shape (N, O, H + reach, W + reach). Number r of g stands at reach - padding + stride * r; one that would
        stand outside has met nothing but padding, and is left out.

    TODO: Fill the blanks, here and in the next function.

    APPROACH:
    1. `spread_gradient`, along each axis: the places are reach - padding + stride * `np.arange(...)`, and those count
       that are at least 0 and less than size + reach.
    2. Put g into `wide` at the places of both axes, leaving out those that do not count.
    3. `conv2d_input_gradient`: `flipped` is the weight as (G, O/G, C/G, kh, kw), reversed along its last two axes,
       with O/G and C/G exchanged, and then as (C, O/G, kh, kw).

    EXAMPLE:
    >>> spread_gradient(np.array([[[[1.0, 2.0, 3.0]]]]), (1, 5), (1, 2), (0, 1), (0, 2))
    array([[[[0., 1., 0., 2., 0., 3., 0.]]]])

    HINT: `wide[:, :, rows[:, None], columns] = ...` writes to each row of `rows` at each column of `columns`.
    """
    wide = np.zeros((*g.shape[:2], size[0] + reach[0], size[1] + reach[1]), g.dtype)
    ### BEGIN SOLUTION
    rows, columns = (reach[a] - padding[a] + stride[a] * np.arange(g.shape[2 + a]) for a in (0, 1))
    high, across = ((at >= 0) & (at < wide.shape[2 + a]) for a, at in enumerate((rows, columns)))
    wide[:, :, rows[high, None], columns[across]] = g[:, :, high][..., across]
    return wide
    ### END SOLUTION


def conv2d_input_gradient(
    g: Array, weight: Array, size: Sequence[int], stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """The gradient by the pictures of ``conv2d_forward``, of shape (N, C, *size)."""
    outputs, channels, kh, kw = weight.shape
    ### BEGIN SOLUTION
    parted = weight.reshape(groups, outputs // groups, channels, kh, kw)[..., ::-1, ::-1]
    flipped = parted.swapaxes(1, 2).reshape(groups * channels, outputs // groups, kh, kw)
    ### END SOLUTION
    reach = dilation[0] * (kh - 1), dilation[1] * (kw - 1)
    frame = reach[0] - padding[0], reach[1] - padding[1]
    if stride != (1, 1) or min(frame) < 0:
        g, frame = spread_gradient(g, size, stride, padding, reach), (0, 0)
    return conv2d_forward(g, flipped, padding=frame, dilation=dilation, groups=groups)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-input-gradient", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_input_gradient():
    g = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    got = spread_gradient(g, (3, 4), (2, 3), (0, 0), (1, 0))
    want = np.zeros((4, 4))
    want[1::2, ::3] = [[1, 2], [3, 4]]
    close(got, want[None, None], why="place r stands at reach - padding + stride * r")
    close(spread_gradient(g, (1, 1), (2, 2), (1, 1), (0, 0)), [[[[0]]]], why="all four stand outside")
    close(spread_gradient(g, (2, 1), (1, 1), (1, 1), (0, 1)), [[[[3, 4], [0, 0]]]], why="the first row stands outside")
    numbers = np.random.default_rng(2)
    for window in [*WINDOWS, ((1, 1), (3, 2), (1, 1), 2), ((2, 1), (4, 2), (1, 1), 2)]:
        options = named(window)
        x, weight = numbers.normal(size=(2, 4, 5, 4)), numbers.normal(size=(4, 4 // options["groups"], 3, 2))
        g = numbers.normal(size=by_definition(x, weight, **options)[0].shape)
        got = conv2d_input_gradient(g, weight, (5, 4), **options)
        close(got, by_definition(x, weight, g, **options)[1], what=f"gradient of the pictures with {options}")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    fresh_windows = [((1, 1), (1, 1), (1, 1), 1), ((3, 2), (2, 0), (2, 1), 3), ((2, 2), (2, 2), (2, 2), 1)]
    for stride, padding, dilation, groups in fresh_windows:
        options = named((stride, padding, dilation, groups))
        scene, probe = dice.normal(size=(2, 3, 6, 5)), dice.normal(size=(6, 3 // groups, 2, 3))
        top = dice.normal(size=by_definition(scene, probe, **options)[0].shape)
        kept = top.copy(), probe.copy()
        close(conv2d_input_gradient(top, probe, (6, 5), **options), by_definition(scene, probe, top, **options)[1])
        close(top, kept[0], why="a rule must not write into g")
        close(probe, kept[1], why="a rule must not write into the weight")
    ### END HIDDEN TESTS


test_input_gradient()

# %% [markdown]
# The rule stands beside its operation. All three gradients are handed over as functions: the first layer of a network
# never computes that of its pictures, since nobody wants it.

# %%
#| export
def picture_rows(x: Array) -> Array:
    """``x`` (N, C, ...) with a row for each picture, channels last: (N, places * C); a view if memory is so already."""
    return np.moveaxis(x, 1, -1).reshape(len(x), math.prod(x.shape[1:]))


def channel_sums(row: Array, channels: int) -> Array:
    """The sum of each channel of a row (places * C,), of shape (C,); added in float64, as there are many places."""
    sums: Array = row.reshape(len(row) // channels, channels).sum(axis=0, dtype=np.float64)
    return sums.astype(row.dtype)


@defvjp(CONV2D)
def _conv2d(
    g: Array,
    out: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Any:
    def to_x() -> Array:
        return conv2d_input_gradient(g, weight, x.shape[2:], stride, padding, dilation, groups)

    def to_weight() -> Array:
        return conv2d_weight_gradient(g, x, weight.shape[2:], stride, padding, dilation, groups)

    def to_bias() -> Array:
        return channel_sums(picture_rows(g).sum(axis=0), len(weight))

    return (to_x, to_weight) if bias is None else (to_x, to_weight, to_bias)

# %% [markdown]
# ## 7. The layer
#
# The function checks, so that a mistake is named; the layer owns the weights. Two things need a thought.
#
# **"same" padding** means: the result is as large as the picture (stride 1). The window takes away d(k − 1), so that
# much has to be added, half in front. If it is odd, PyTorch puts the one that is left over behind, and so do we.
#
# **The start.** A linear layer draws its weights from ±1/√(in_features). What are the in_features of a window? All that
# one output listens to: C/groups channels times kh x kw places.
#
# ### Exercise: `same_padding` and `Conv2d`

# %% nbgrader={"grade": false, "grade_id": "spatial-conv2d", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pair(name: str, what: str, value: Any, least: int = 1) -> Pair:
    """``value``, a whole number or a pair of them, as a pair (for the height, for the width).

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If a number is less than ``least``.
    """
    try:
        first, second = map(index, value if isinstance(value, tuple | list) else (value, value))
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {what} should be a whole number or a pair of them, got {value!r}") from None
    if min(first, second) < least:
        raise ValueError(f"{name}: {what} should be at least {least}, got {value}")
    return first, second


def check_pictures(name: str, x: Tensor) -> None:
    """Refuse what is no batch of pictures: TypeError and ValueError that name the operation and what came."""
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point numbers, got {x.dtype}; pixels: x.astype(np.float32) / 255")
    if x.ndim != 4:
        hint = "; for a single picture: x.expand_dims(0)" if x.ndim == 3 else ""
        raise ValueError(f"{name}: expected pictures of shape (N, C, H, W), got {x.shape}{hint}")


def same_padding(kernel: int, dilation: int) -> Pair:
    """How many zeros keep a length as it is at stride 1: (in front, behind); behind is one more if they are odd.

    TODO: Fill the blank here and the one in `Conv2d`.

    APPROACH:
    1. `same_padding`: the window takes away d(k - 1) places. Half of them, rounded down, in front, the others behind.
    2. `Conv2d.__init__`: the bound is 1 over the root of how many numbers one output listens to.
    3. `self.weight` of shape (out_channels, in_channels / groups, kh, kw) and `self.bias` of shape (out_channels,), by
       `uniform_parameter(shape, bound)`; without a bias, None.

    EXAMPLE:
    >>> same_padding(3, 1), same_padding(4, 1), same_padding(3, 2)
    ((1, 1), (1, 2), (2, 2))
    >>> Conv2d(3, 16, 3).weight.shape
    (16, 3, 3, 3)

    HINT: With groups, a kernel has fewer channels than the pictures; the bound knows.
    """
    ### BEGIN SOLUTION
    missing = dilation * (kernel - 1)
    return missing // 2, missing - missing // 2
    ### END SOLUTION


class Conv2d(Module):
    """A convolution of pictures (N, in_channels, H, W) to (N, out_channels, out_h, out_w).

    Parameters
    ----------
    in_channels, out_channels
        How many planes come in and go out; both are multiples of ``groups``.
    kernel_size, stride, dilation
        A number, or a pair for height and width.
    padding
        How many zeros on each side: a number, a pair, "valid" (none) or "same" (the result is as large as the picture;
        with stride 1 alone).
    groups
        Into how many parts the channels are dealt; outputs of a part see the inputs of that part only.
    bias
        Whether a number is added to each plane.

    Attributes
    ----------
    weight
        Parameter of shape (out_channels, in_channels / groups, kh, kw).
    bias
        Parameter of shape (out_channels,), or None. Both begin evenly distributed over ±1/sqrt(in_channels / groups *
        kh * kw), as PyTorch's do, drawn by the default generator.

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number or out of range, and as ``conv2d`` when called.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = whole_size("Conv2d", "in_channels", in_channels)
        self.out_channels = whole_size("Conv2d", "out_channels", out_channels)
        self.groups = whole_size("Conv2d", "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: {in_channels} and {out_channels} channels cannot be dealt into {groups} groups")
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.dilation = pair("Conv2d", "dilation", dilation)
        self.padding = padding if isinstance(padding, str) else pair("Conv2d", "padding", padding, least=0)
        self.weight: Parameter
        self.bias: Parameter | None
        ### BEGIN SOLUTION
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = uniform_parameter(shape, bound)
        self.bias = uniform_parameter((self.out_channels,), bound) if bias else None
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x``; see ``conv2d``."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """``3, 16, kernel_size=(3, 3), stride=(1, 1)``, and what is not as by default."""
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        shown += [f"padding={self.padding}"] * (self.padding != (0, 0))
        shown += [f"dilation={self.dilation}"] * (self.dilation != (1, 1))
        shown += [f"groups={self.groups}"] * (self.groups != 1) + ["bias=False"] * (self.bias is None)
        return ", ".join(shown)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """The convolution of pictures ``x`` (N, C, H, W) with ``weight`` (O, C / groups, kh, kw).

    What is called so is a cross-correlation: the kernel is not turned round, as in PyTorch.

    Parameters
    ----------
    stride, padding, dilation, groups
        See ``Conv2d``.

    Raises
    ------
    TypeError
        If the pictures are not floating-point.
    ValueError
        If the channels do not fit, or the window does not; the latter shows the formula with its numbers.
    """
    check_pictures("conv2d", x)
    outputs, share, *kernel = weight.shape
    if x.shape[1] != share * groups or outputs % groups:
        raise ValueError(
            f"conv2d: a weight of shape {weight.shape} with groups={groups} wants {share * groups} channels, the "
            f"pictures {x.shape} have {x.shape[1]}"
        )
    apart, gaps = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    x, frame = _framed(x, (kernel[0], kernel[1]), apart, gaps, padding)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return apply(CONV2D, *inputs, stride=apart, padding=frame, dilation=gaps, groups=groups)


def _framed(x: Tensor, kernel: Pair, stride: Pair, dilation: Pair, padding: Any) -> tuple[Tensor, Pair]:
    """``x`` and the padding as a pair; for "same", ``x`` already has what is needed behind and not in front."""
    if not isinstance(padding, str):
        return x, pair("conv2d", "padding", padding, least=0)
    if padding == "valid":
        return x, (0, 0)
    if padding != "same" or stride != (1, 1):
        raise ValueError(f"conv2d: padding {padding!r}, stride {stride}: 'same' goes with stride 1, 'valid' with any")
    front, behind = zip(*map(same_padding, kernel, dilation), strict=True)
    for axis in (2, 3):
        extra = behind[axis - 2] - front[axis - 2]
        if extra:
            rim = (*x.shape[:axis], extra, *x.shape[axis + 1 :])
            x = concatenate([x, np.zeros(rim, x.dtype)], axis=axis)
    return x, front

# %% nbgrader={"grade": true, "grade_id": "test-spatial-conv2d", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_conv2d_layer():
    for arguments, want in [((3, 1), (1, 1)), ((4, 1), (1, 2)), ((3, 2), (2, 2)), ((1, 5), (0, 0)), ((2, 3), (1, 2))]:
        close(same_padding(*arguments), want, what=f"same_padding{arguments}", why="the one left over goes behind")
    layer = Conv2d(2, 3, (1, 2))
    shapes = layer.weight.shape, layer.bias.shape
    assert shapes == ((3, 2, 1, 2), (3,)), f"Conv2d(2, 3, (1, 2)): expected (3, 2, 1, 2) and (3,), got {shapes}"
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"], "both are Parameters, the weight first"
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 5)).astype(np.float32)
    weight, bias = layer.weight.data, layer.bias.data
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    want = by_definition(x, weight, **plain)[0] + bias[:, None, None]
    close(layer(Tensor(x)).data, want, dtype=np.float32, rtol=1e-4)
    for kernel, dilation in [(3, 1), (2, 1), ((4, 3), 1), (2, 3)]:
        shape = Conv2d(2, 3, kernel, padding="same", dilation=dilation)(Tensor(x)).shape
        assert shape == (2, 3, 4, 5), f"padding='same', kernel {kernel}, dilation {dilation}: got shape {shape}"
    manual_seed(5)
    wide = Conv2d(16, 64, 5, groups=4)
    assert wide.weight.shape == (64, 4, 5, 5), f"4 groups of 16: expected (64, 4, 5, 5), got {wide.weight.shape}"
    for name, p in wide.named_parameters():
        largest = float(np.abs(p.data).max())
        assert 0.09 < largest <= 0.1, f"{name}: drawn from ±1/sqrt(4 * 5 * 5) = ±0.1, but the largest is {largest:.3f}"
    bare = Conv2d(2, 3, 1, bias=False)
    assert bare.bias is None and len(list(bare.parameters())) == 1, "bias=False leaves the bias away"
    close(bare(Tensor(x * 0)).data, np.zeros((2, 3, 4, 5)), why="without a bias nothing is added")
    with raises(ValueError, "groups=1 wants 2 channels", "(2, 3, 4, 5)"):
        layer(Tensor(np.zeros((2, 3, 4, 5))))
    ### BEGIN HIDDEN TESTS
    manual_seed(int(np.random.default_rng().integers(1 << 30)))
    fresh = Conv2d(3, 200, (2, 6))
    assert abs(float(fresh.weight.data.std()) * 6 * 3**0.5 - 1) < 0.03, "an even draw from ±1/6"
    assert 0.16 < float(np.abs(fresh.bias.data).max()) <= 1 / 6, "the bias is drawn from the same bound"
    scene = Tensor(np.random.default_rng().normal(size=(1, 3, 5, 7)))
    even = Conv2d(3, 1, 2, padding="same", bias=False)
    behind = np.pad(scene.data, ((0, 0), (0, 0), (0, 1), (0, 1)))
    close(even(scene).data, by_definition(behind, even.weight.data, **plain)[0], rtol=1e-4, atol=1e-5)
    ### END HIDDEN TESTS


test_conv2d_layer()

# %%
layer = Conv2d(3, 24, 3, padding=1)
weights = sum(parameter.size for parameter in layer.parameters())
print(layer, f"{weights:,} numbers")
print(f"a Linear layer for the same: {3072 * 24 * 1024 + 24 * 1024:,} numbers, {4 * 3072 * 24 * 1024 / 1e6:,.0f} MB")

# %% [markdown]
# 672 against 75,522,048: the window of 27 weights is used 1,024 times over, on each of 24 planes.
#
# ## 8. Pooling
#
# Is there an eye? It is enough to know that there is one about here. **Max pooling** keeps the largest number of each
# window of 2 x 2, and throws away where it was. Height and width halve, and the next window sees twice as far.
#
# Predict: which is faster, for (32, 16, 32, 32)? Both are right.

# %%
planes = randn(32, 16, 32, 32).data


def by_reshape(x):
    count, channels, height, width = x.shape
    return x.reshape(count, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def by_slices(x):
    rows = np.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return np.maximum(rows[..., 0::2], rows[..., 1::2])


assert np.array_equal(by_reshape(planes), by_slices(planes))
reshaped, sliced = measure(by_reshape, planes, repeats=15), measure(by_slices, planes, repeats=15)
print(f"reshape and max: {reshaped}")
print(f"maximum of slices: {sliced}; {reshaped.median_s / sliced.median_s:.0f} times as fast")

# %% [markdown]
# 0.6 ms against 11 ms here. The comparisons are the same. But `max` over an axis of length 2 is a loop of two turns,
# begun again for every window, while the maximum of two slices runs through whole rows.
#
# The largest of a window is the largest of its rows' largest. So fold the rows first, and then the columns of what is
# left: kh + kw taps instead of kh · kw. The same is true of sums, and average pooling will want them.
#
# A frame around a picture must never win: it is −∞.
#
# ### Exercise: `fold_windows` and `max_pool2d_forward`

# %% nbgrader={"grade": false, "grade_id": "spatial-max-pool", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def fold_windows(
    combine: Callable[[Array, Array], Array], x: Array, down: Sequence[slice], across: Sequence[slice]
) -> Array:
    """Every window of ``x`` (N, C, H, W) folded into one number by ``combine``, such as ``np.maximum`` or ``np.add``.

    ``down`` and ``across`` are the taps along the height and the width. Of windows of one place the result is a view.

    TODO: Fill the blank here and the one in `max_pool2d_forward`.

    APPROACH:
    1. Begin with the first tap of `down`, and combine it with one after the other of those that remain.
    2. The same with the taps of `across`, on the result.
    3. `max_pool2d_forward`: fold the padded pictures of the block into `out[block]`. What fills the frame?

    EXAMPLE:
    >>> fold_windows(np.add, np.arange(6.0).reshape(1, 1, 2, 3), [slice(0, 1), slice(1, 2)], [slice(0, 2), slice(1, 3)])
    array([[[[ 8., 12.]]]])

    HINT: What begins as `x[:, :, down[0]]` must not be changed in place: it is a view of x.
    """
    ### BEGIN SOLUTION
    folded = x[:, :, down[0]]
    for tap in down[1:]:
        folded = combine(folded, x[:, :, tap])
    out = folded[..., across[0]]
    for tap in across[1:]:
        out = combine(out, folded[..., tap])
    return out
    ### END SOLUTION


def max_pool2d_forward(
    x: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Array:
    """The largest number of each window of ``x`` (N, C, H, W), of shape (N, C, out_h, out_w)."""
    down, across, size = window_taps("max_pool2d", x.shape[2:], kernel, stride, padding, dilation)
    out = np.empty_like(x, shape=(*x.shape[:2], *size))

    def pool(block: slice) -> None:
        ### BEGIN SOLUTION
        out[block] = fold_windows(np.maximum, padded(x[block], padding, -np.inf), down, across)
        ### END SOLUTION

    for_blocks(pool, len(x), x[:1].size)
    return out


MAX_POOL2D = Op("max_pool2d", max_pool2d_forward)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-max-pool", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_max_pool_forward():
    x = np.array([[[[1.0, 5.0, 2.0], [4.0, 3.0, 9.0], [7.0, 8.0, 6.0]]]])
    close(fold_windows(np.add, x, taps(2, 1, 1, 2), taps(2, 1, 1, 2)), [[[[13, 19], [22, 26]]]], what="sums of 2 x 2")
    close(fold_windows(np.maximum, x, taps(3, 1, 1, 1), taps(1, 2, 1, 2)), [[[[7, 9]]]], what="3 x 1, stride 2 across")
    close(fold_windows(np.maximum, x, [slice(0, 3)], [slice(0, 3)]), x, what="windows of one place")
    close(x[0, 0], [[1, 5, 2], [4, 3, 9], [7, 8, 6]], why="x must stay as it was")
    close(max_pool2d_forward(x, (2, 2), (1, 1)), [[[[5, 9], [8, 9]]]])
    got = max_pool2d_forward(-x, (2, 2), (2, 2), (1, 1))
    close(got, [[[[-1, -2], [-4, -3]]]], why="the frame must never win, also against negative numbers")
    close(max_pool2d_forward(x, (2, 2), (1, 1), (0, 0), (2, 2)), [[[[7]]]], why="dilation 2: the corners")
    odd = max_pool2d_forward(np.arange(35.0).reshape(1, 1, 5, 7), (2, 3), (2, 2))
    close(odd, [[[[9, 11, 13], [23, 25, 27]]]], why="what does not fill a window is left out")
    ### BEGIN HIDDEN TESTS
    scene = np.random.default_rng().normal(size=(3, 2, 7, 6)).astype(np.float32)
    kept = scene.copy()
    for kernel, stride, padding, dilation in [((3, 3), (2, 2), (1, 1), (1, 1)), ((3, 2), (1, 2), (1, 0), (2, 1))]:
        got = max_pool2d_forward(scene, kernel, stride, padding, dilation)
        wide = np.pad(scene, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=-99)
        for r, c in np.ndindex(got.shape[2:]):
            top, left = stride[0] * r, stride[1] * c
            seen = wide[:, :, top:, left:][:, :, :: dilation[0], :: dilation[1]][:, :, : kernel[0], : kernel[1]]
            close(got[:, :, r, c], seen.max(axis=(2, 3)), dtype=np.float32)
    close(scene, kept, why="the pictures must stay as they were")
    ### END HIDDEN TESTS


test_max_pool_forward()

# %% [markdown]
# Backward, g goes to the winner of each window. In a tie PyTorch takes the first one, row by row, and so do we. Ties
# are common: after ReLU a quarter of all windows may be nothing but zeros.
#
# Go through the places of the window in that order, for all windows at once, and keep what each window has left to give.
# Whoever comes second finds nothing left:
#
# ```
#    window   2 5      place       (0, 0)  (0, 1)  (1, 0)  (1, 1)
#             5 1      equals 5      no      yes     yes     no
#                      left          g       g       0       0
#    g = 10            gets          0       10      0       0
# ```
#
# If windows overlap, a number may win in several, and its gradients add up: that is done for you.
#
# ### Exercise: `winner_shares`

# %% nbgrader={"grade": false, "grade_id": "spatial-max-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def winner_shares(g: Array, largest: Array, met: Iterable[Array]) -> Iterator[Array]:
    """What each place of the window gets of ``g``, for all windows at once: the first that is the largest gets it all.

    Parameters
    ----------
    g, largest
        For each window the gradient of its result, and the result.
    met
        For each place of the window, row by row: what it meets in all windows. Each is of the shape of ``g``.

    Returns
    -------
    Iterator of Array
        For each place an array of the shape of ``g``.

    TODO: Go through the places, and yield what each gets.

    APPROACH:
    1. `left`, what a window has not given away yet, is given: at first it is a copy of g.
    2. For each place, in the order of `met`: where it meets the largest number, it gets what is left; elsewhere 0.
    3. Take that away from `left`, and `yield` it.

    EXAMPLE:
    >>> met = [np.array([2.0, 7.0]), np.array([5.0, 1.0]), np.array([5.0, 7.0])]
    >>> list(winner_shares(np.array([10.0, 20.0]), np.array([5.0, 7.0]), met))
    [array([ 0., 20.]), array([10.,  0.]), array([0., 0.])]

    HINT: `left * won` is left where `won` is true and 0 elsewhere.
    """
    left = np.empty_like(largest, g.dtype)
    left[...] = g
    ### BEGIN SOLUTION
    for numbers in met:
        share = left * (numbers == largest)
        left -= share
        yield share
    ### END SOLUTION


def max_pool2d_gradient(
    g: Array, out: Array, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """The gradient by ``x`` of ``max_pool2d_forward``, whose result is ``out``; a window's first winner gets it all."""
    down, across, _ = window_taps("max_pool2d", x.shape[2:], kernel, stride, padding, dilation)
    (ph, pw), (count, channels, height, width) = padding, x.shape
    slopes = np.zeros_like(x, g.dtype, shape=(count, channels, height + 2 * ph, width + 2 * pw))
    places = [np.s_[:, :, rows, columns] for rows in down for columns in across]
    overlap = any(d * (k - 1) >= s for k, s, d in zip(kernel, stride, dilation, strict=True))

    def share_out(block: slice) -> None:
        inside, part = padded(x[block], padding, -np.inf), slopes[block]
        shares = winner_shares(g[block], out[block], (inside[place] for place in places))
        for place, share in zip(places, shares, strict=True):
            if overlap:
                part[place] += share
            else:
                part[place] = share

    for_blocks(share_out, count, channels * height * width)
    return cropped(slopes, padding)


@defvjp(MAX_POOL2D)
def _max_pool2d(g: Array, out: Array, x: Array, **window: Any) -> Any:
    return max_pool2d_gradient(g, out, x, **window)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-max-gradient", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def pool_slopes(g, x, kernel, stride, padding=(0, 0), dilation=(1, 1)):
    out = max_pool2d_forward(x, kernel, stride, padding, dilation)
    return max_pool2d_gradient(g, out, x, kernel, stride, padding, dilation)


def test_max_pool_gradient():
    x = np.array([[[[1.0, 5.0, 2.0, 0.0], [4.0, 3.0, 9.0, 0.0]]]])
    got = pool_slopes(np.array([[[[10.0, 20.0]]]]), x, (2, 2), (2, 2))
    close(got, [[[[0, 10, 0, 0], [0, 0, 20, 0]]]], why="g goes to the winner of each window")
    tied = np.array([[[[2.0, 5.0], [5.0, 5.0]]]])
    got = pool_slopes(np.array([[[[10.0]]]]), tied, (2, 2), (2, 2))
    close(got, [[[[0, 10], [0, 0]]]], why="in a tie, the first one in row-by-row order gets everything")
    zeros = pool_slopes(np.full((1, 1, 2, 2), 3.0), np.zeros((1, 1, 4, 4)), (2, 2), (2, 2))
    close(zeros[0, 0], [[3, 0, 3, 0], [0, 0, 0, 0]] * 2, why="each window has one winner")
    line = np.array([[[[1.0, 7.0, 3.0]]]])
    got = pool_slopes(np.array([[[[10.0, 20.0]]]]), line, (1, 2), (1, 1))
    close(got, [[[[0, 30, 0]]]], why="it won in two windows: gradients add up")
    got = pool_slopes(np.ones((1, 1, 2, 2)), np.full((1, 1, 2, 2), -4.0), (2, 2), (2, 2), (1, 1))
    close(got, np.ones((1, 1, 2, 2)), why="the frame never wins, and is cropped at the end")
    far = pool_slopes(np.ones((1, 1, 1, 1)), np.arange(9.0).reshape(1, 1, 3, 3), (2, 2), (1, 1), (0, 0), (2, 2))
    close(far[0, 0, 2], [0, 0, 1], why="dilation 2: the corners")
    many = np.arange(2 * 300 * 400, dtype=np.float32).reshape(2, 1, 300, 400)
    got = pool_slopes(np.ones((2, 1, 150, 200), np.float32), many, (2, 2), (2, 2))
    close(got, np.tile([[0, 0], [0, 1]], (2, 1, 150, 200)), dtype=np.float32, why="each block by itself")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    scene, top = dice.integers(0, 4, size=(3, 2, 7, 6)).astype(float), dice.normal(size=(3, 2, 4, 2))
    kept = scene.copy(), top.copy()
    slopes = pool_slopes(top, scene, (3, 2), (2, 3), (1, 0))
    want = np.zeros((3, 2, 9, 6))
    wide = np.pad(scene, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=-9)
    for n, ch, r, c in np.ndindex(top.shape):
        window = wide[n, ch, 2 * r : 2 * r + 3, 3 * c : 3 * c + 2]
        down, right = divmod(int(np.argmax(window)), 2)
        want[n, ch, 2 * r + down, 3 * c + right] += top[n, ch, r, c]
    close(slopes, want[:, :, 1:8])
    close(scene, kept[0], why="a rule must not write into x")
    close(top, kept[1], why="a rule must not write into g")
    ### END HIDDEN TESTS


test_max_pool_gradient()

# %% [markdown]
# ### Averages
#
# Average pooling is a sum over each window, divided by its size. One question is left to taste: does the frame count?
# By default PyTorch divides by kh · kw everywhere, so the border gets darker; with `count_include_pad=False` it divides
# by how many numbers of the picture the window holds.
#
# Backward, every place of a window gets the same share of its g.
#
# ### Exercise: `avg_pool2d_forward` and its gradient

# %% nbgrader={"grade": false, "grade_id": "spatial-avg-pool", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def window_counts(
    size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool, dtype: Any
) -> Array:
    """What the sum of each window is divided by: of shape (1, 1, 1, 1), or (1, 1, out_h, out_w) without the frame.

    TODO: Fill the three blanks.

    APPROACH:
    1. `window_counts`: with the frame, kh · kw. Without, count: a picture of ones (1, 1, H, W) in a frame of zeros, its
       windows summed.
    2. `avg_pool2d_forward`: the sums of the windows of the padded pictures, divided by the counts.
    3. `avg_pool2d_gradient`: `share` is g divided by the counts; add it to `slopes` at each place of the window.

    EXAMPLE:
    >>> window_counts((2, 2), (2, 2), (1, 1), (1, 1), False, np.float32)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)

    HINT: `fold_windows(np.add, ...)` sums, the picture as well as the ones.
    """
    down, across, _ = window_taps("avg_pool2d", size, kernel, stride, padding, (1, 1))
    ### BEGIN SOLUTION
    if count_include_pad:
        return np.full((1, 1, 1, 1), kernel[0] * kernel[1], dtype)
    return fold_windows(np.add, padded(np.ones((1, 1, *size), dtype), padding), down, across)
    ### END SOLUTION


def avg_pool2d_forward(
    x: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0), count_include_pad: bool = True
) -> Array:
    """The mean of each window of ``x`` (N, C, H, W), of shape (N, C, out_h, out_w)."""
    down, across, _ = window_taps("avg_pool2d", x.shape[2:], kernel, stride, padding, (1, 1))
    counts = window_counts(x.shape[2:], kernel, stride, padding, count_include_pad, x.dtype)
    ### BEGIN SOLUTION
    means: Array = fold_windows(np.add, padded(x, padding), down, across) / counts
    return means
    ### END SOLUTION


def avg_pool2d_gradient(
    g: Array, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """The gradient by the pictures of ``avg_pool2d_forward``, of shape (N, C, *size)."""
    down, across, _ = window_taps("avg_pool2d", size, kernel, stride, padding, (1, 1))
    counts = window_counts(size, kernel, stride, padding, count_include_pad, g.dtype)
    slopes = np.zeros_like(g, shape=(*g.shape[:2], size[0] + 2 * padding[0], size[1] + 2 * padding[1]))
    ### BEGIN SOLUTION
    share = g / counts
    for rows in down:
        for places in across:
            slopes[:, :, rows, places] += share
    ### END SOLUTION
    return cropped(slopes, padding)


AVG_POOL2D = Op("avg_pool2d", avg_pool2d_forward)


@defvjp(AVG_POOL2D)
def _avg_pool2d(
    g: Array, out: Array, x: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0), count_include_pad: bool = True
) -> Any:
    return avg_pool2d_gradient(g, x.shape[2:], kernel, stride, padding, count_include_pad)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-avg-pool", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_avg_pool():
    x = np.array([[[[1.0, 5.0, 2.0], [4.0, 2.0, 9.0]]]])
    close(avg_pool2d_forward(x, (2, 2), (1, 1)), [[[[3, 4.5]]]])
    close(window_counts((2, 3), (2, 3), (1, 1), (0, 0), True, np.float32), [[[[6]]]], dtype=np.float32)
    close(avg_pool2d_forward(x, (2, 2), (2, 2), (1, 1)), [[[[0.25, 1.75], [1, 2.75]]]], why="the frame counts: over 4")
    got = avg_pool2d_forward(x, (2, 2), (2, 2), (1, 1), False)
    close(got, [[[[1, 3.5], [4, 5.5]]]], why="without the frame, divide by how many numbers there are")
    g = np.array([[[[4.0, 8.0]]]])
    got = avg_pool2d_gradient(g, (2, 3), (2, 2), (1, 1), (0, 0), True)
    close(got, [[[[1, 3, 2], [1, 3, 2]]]], why="each place gets a quarter of g of every window that it is in")
    got = avg_pool2d_gradient(np.full((1, 1, 2, 2), 12.0), (2, 3), (2, 2), (2, 2), (1, 1), False)
    close(got, [[[[12, 6, 6], [12, 6, 6]]]], why="the share is g over the count of its window")
    half = x.astype(np.float32)
    for counted in (True, False):
        there = avg_pool2d_forward(half, (2, 2), (1, 1), (1, 1), counted)
        back = avg_pool2d_gradient(there, (2, 3), (2, 2), (1, 1), (1, 1), counted)
        assert there.dtype == back.dtype == np.float32, f"float32 stays float32, got {there.dtype} and {back.dtype}"
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    scene = dice.normal(size=(2, 3, 7, 6))
    for kernel, stride, padding in [((3, 2), (2, 1), (1, 1)), ((2, 3), (1, 3), (0, 1)), ((2, 2), (2, 2), (0, 0))]:
        for counted in (True, False):
            means = avg_pool2d_forward(scene, kernel, stride, padding, counted)
            top = dice.normal(size=means.shape)
            want_means, want_slopes = np.zeros(means.shape), np.zeros((2, 3, 7 + 2 * padding[0], 6 + 2 * padding[1]))
            rims = (0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2
            wide, ones = np.pad(scene, rims), np.pad(scene * 0 + 1, rims)
            for r, c in np.ndindex(means.shape[2:]):
                spot = np.s_[:, :, stride[0] * r : stride[0] * r + kernel[0], stride[1] * c : stride[1] * c + kernel[1]]
                size = kernel[0] * kernel[1] if counted else ones[spot][0, 0].sum()
                want_means[:, :, r, c] = wide[spot].sum(axis=(2, 3)) / size
                want_slopes[spot] += top[:, :, r, c, None, None] / size
            close(means, want_means)
            inner = want_slopes[:, :, padding[0] : padding[0] + 7, padding[1] : padding[1] + 6]
            close(avg_pool2d_gradient(top, (7, 6), kernel, stride, padding, counted), inner)
    ### END HIDDEN TESTS


test_avg_pool()

# %% [markdown]
# The functions and layers are given. `AdaptiveAvgPool2d` is told the size of the *result*, and so serves pictures of
# any size: `AdaptiveAvgPool2d(1)` is the mean of each plane, which often stands before the last linear layer. If the
# sizes divide, it is average pooling. Else bin i goes from ⌊iL/B⌋ to ⌈(i + 1)L/B⌉, so that neighbours overlap, and a
# mean over bins is a product with a matrix: no new rule is needed.

# %%
#| export
def _pool_window(name: str, kernel_size: Any, stride: Any, padding: Any) -> dict[str, Pair]:
    """Kernel, stride (by default the kernel) and padding as pairs; ValueError if padding is over half the kernel."""
    kernel = pair(name, "kernel_size", kernel_size)
    apart = kernel if stride is None else pair(name, "stride", stride)
    frame = pair(name, "padding", padding, least=0)
    if any(2 * p > k for p, k in zip(frame, kernel, strict=True)):
        raise ValueError(f"{name}: padding {frame} is more than half of the kernel {kernel}: windows of nothing but it")
    return {"kernel": kernel, "stride": apart, "padding": frame}


def max_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
) -> Tensor:
    """The largest number of each window of ``x`` (N, C, H, W); the stride is that of the kernel if it is not given.

    In a tie the gradient goes to the first of the winners, row by row.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is no batch of pictures, a number is out of range, or the window does not fit.
    """
    check_pictures("max_pool2d", x)
    gaps = pair("max_pool2d", "dilation", dilation)
    return apply(MAX_POOL2D, x, **_pool_window("max_pool2d", kernel_size, stride, padding), dilation=gaps)


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of ``x`` (N, C, H, W); the stride is that of the kernel if it is not given.

    With ``count_include_pad=False`` the zeros of the padding do not count.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is no batch of pictures, a number is out of range, or the window does not fit.
    """
    check_pictures("avg_pool2d", x)
    window = _pool_window("avg_pool2d", kernel_size, stride, padding)
    return apply(AVG_POOL2D, x, **window, count_include_pad=count_include_pad)


def adaptive_avg_pool2d(x: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """The mean of each of ``output_size`` bins of ``x`` (N, C, H, W); None leaves that axis as it is.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is no batch of pictures, or a size is no whole number of at least 1.
    """
    check_pictures("adaptive_avg_pool2d", x)
    asked = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    wanted = [length if bins is None else bins for bins, length in zip(asked, x.shape[2:], strict=True)]
    down, across = pair("adaptive_avg_pool2d", "output_size", wanted)
    height, width = x.shape[2:]
    if height % down == 0 and width % across == 0:
        return avg_pool2d(x, (height // down, width // across))
    return from_numpy(bin_means(height, down, x.dtype)) @ (x @ bin_means(width, across, x.dtype).T)


def bin_means(length: int, bins: int, dtype: Any) -> Array:
    """The matrix (bins, length) whose product with an axis is the mean of each bin."""
    means = np.zeros((bins, length), dtype)
    for i in range(bins):
        first, end = i * length // bins, -(-(i + 1) * length // bins)
        means[i, first:end] = 1 / (end - first)
    return means


class MaxPool2d(Module):
    """``max_pool2d`` as a module."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
    ) -> None:
        super().__init__()
        _pool_window("MaxPool2d", kernel_size, stride, padding)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        """The largest number of each window of ``x``."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        """``kernel_size=2, stride=2, padding=0, dilation=1``"""
        window = f"kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{window}, padding={self.padding}, dilation={self.dilation}"


class AvgPool2d(Module):
    """``avg_pool2d`` as a module."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        *,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        _pool_window("AvgPool2d", kernel_size, stride, padding)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.count_include_pad = padding, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window of ``x``."""
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)

    def extra_repr(self) -> str:
        """``kernel_size=2, stride=2, padding=0``"""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """``adaptive_avg_pool2d`` as a module."""

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each bin of ``x``."""
        return adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """``output_size=1``"""
        return f"output_size={self.output_size}"

# %% [markdown]
# ### How far does it see?
#
# One output of a 3 x 3 convolution depends on 3 x 3 pixels. And after three of them? You need no formula: ask backward.
# The gradient of *one* output by the picture is zero wherever it cannot see. Predict the width of what the middle
# output sees for each of these stacks.

# %%
def seen_by_the_middle(layers, side=33):
    """How strongly each pixel moves the middle number of what the layers make of a picture, all weights being equal."""
    x = Tensor(np.zeros((1, 1, side, side)), requires_grad=True)
    for one in layers:
        one.weight.data[...] = 1 / one.weight.size
    out = Sequential(*layers)(x)
    upstream = np.zeros(out.shape)
    upstream[0, 0, out.shape[2] // 2, out.shape[3] // 2] = 1
    out.backward(upstream)
    return x.grad.data[0, 0]


stacks = {
    "one 3 x 3": [Conv2d(1, 1, 3, padding=1)],
    "four 3 x 3": [Conv2d(1, 1, 3, padding=1) for _ in range(4)],
    "four, strides 1, 2, 1, 2": [Conv2d(1, 1, 3, stride=s, padding=1) for s in (1, 2, 1, 2)],
    "four, dilations 1, 2, 4, 8": [Conv2d(1, 1, 3, dilation=d, padding=d) for d in (1, 2, 4, 8)],
}
figure, panels = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for panel, (title, layers) in zip(panels, stacks.items(), strict=True):
    seen = seen_by_the_middle(layers)
    panel.imshow(np.where(seen > 0, seen / seen.max(), np.nan), cmap="viridis", vmin=0)
    panel.set_facecolor("0.9")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(f"{title}\n{np.count_nonzero(seen.any(axis=0))} pixels wide", fontsize="medium")
plt.show()

# %% [markdown]
# Each window of 3 adds two pixels: 3, and after four of them 9. A stride (and pooling too) makes all steps behind it
# twice as long: 3, 5, 9, 13. Dilations that double reach 31. All but the first stack have the same 40 numbers. And the
# middle counts most: from there many paths lead to the output, from the border a single one.
#
# ## 9. Batch normalisation
#
# In a deep network every layer sees numbers that the layers before it keep changing while they learn. Ioffe and Szegedy
# (2015) proposed: after each convolution, bring every channel to mean 0 and variance 1, over the whole batch, and let
# the network choose a new scale and shift by itself:
#
# $$\hat{x} = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \qquad y = \gamma \hat{x} + \beta$$
#
# One μ and one σ² for each channel, over N, H and W. The variance as mean of squares minus square of mean would need
# one pass only. Predict, in float32, for numbers around 1,000 with variance 1: what does that give?

# %%
manual_seed(0)
for far in (1000 + randn(4, 64, 16, 16)).data:
    in_one_pass, in_two = (far * far).mean() - far.mean() ** 2, np.square(far - far.mean()).mean()
    print(f"mean of squares minus square of mean: {in_one_pass:.4f}     mean of squared deviations: {in_two:.4f}")

# %% [markdown]
# All of the first are multiples of 0.0625. The squares are around 1,000,000, and there float32 numbers stand 0.0625
# apart: nothing finer is left when one is taken from the other. Subtract first, then square. It takes a second pass.
#
# ### Exercise: `channel_moments` and `batch_norm_forward`
#
# Work in blocks, so that what was subtracted is still in the cache when it is squared. And as memory is channels last,
# take each picture as one row, places · C long: what a channel needs is `np.tile`d along it, C numbers again and again,
# so that NumPy's loops are long. `picture_rows` and `channel_sums` are those of section 6.

# %% nbgrader={"grade": false, "grade_id": "spatial-norm-forward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
Moments = tuple[Array, Array]


def from_picture_rows(rows: Array, shape: Sequence[int]) -> Array:
    """``rows`` (N, places * C) as a view of ``shape`` (N, C, ...): the inverse of ``picture_rows``."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def channel_moments(x: Array) -> Moments:
    """Mean and variance (the mean of squared deviations) of each channel of ``x`` (N, C, ...), both of shape (C,).

    TODO: Fill the two blanks here and the one in `batch_norm_forward`.

    APPROACH:
    1. `rows` is (N, places * C). Its sum over the pictures is one row; `channel_sums` adds up its places. Divided by n,
       how many numbers a channel has, that is the `mean`, of shape (C,). `middle` is the mean, tiled along a row.
    2. `squares` of a block: the deviations from the middle, squared, and summed over the pictures: a row.
    3. `batch_norm_forward`: in each block, (x - middle) * factor + shift, written to `out[block]`.

    EXAMPLE:
    >>> channel_moments(np.array([[[1.0, 3.0], [5.0, 5.0]]]))
    (array([2., 5.]), array([1., 0.]))

    HINT: `np.tile(numbers, times)`. `np.einsum("nl,nl->l", a, b)` multiplies a and b and sums over the first axis,
    without an array in between.
    """
    rows, channels = picture_rows(x), x.shape[1]
    n = x.size // channels
    ### BEGIN SOLUTION
    mean = channel_sums(rows.sum(axis=0), channels) / n
    middle = np.tile(mean, rows.shape[1] // channels)
    ### END SOLUTION

    def squares(block: slice) -> Array:
        ### BEGIN SOLUTION
        deviations = rows[block] - middle
        summed: Array = np.einsum("nl,nl->l", deviations, deviations)
        return summed
        ### END SOLUTION

    added = sum(for_blocks(squares, *rows.shape), start=np.zeros_like(rows[0]))
    return mean, channel_sums(added, channels) / n


def batch_norm_forward(x: Array, weight: Array, bias: Array, eps: float, moments: Moments | None = None) -> Array:
    """Each channel of ``x`` (N, C, ...) at mean 0 and variance 1, times ``weight`` (C,), plus ``bias`` (C,).

    Source: Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training".

    Parameters
    ----------
    eps
        Added to the variance, so that nothing is divided by zero.
    moments
        Those of ``x``, if the caller has them already.
    """
    mean, variance = channel_moments(x) if moments is None else moments
    rows, scale = picture_rows(x), weight / np.sqrt(variance + eps)
    middle, factor, shift = (np.tile(one, rows.shape[1] // x.shape[1]) for one in (mean, scale, bias))
    out = np.empty_like(rows)

    def normalise(block: slice) -> None:
        ### BEGIN SOLUTION
        part = np.subtract(rows[block], middle, out=out[block])
        part *= factor
        part += shift
        ### END SOLUTION

    for_blocks(normalise, *rows.shape)
    return from_picture_rows(out, x.shape)


BATCH_NORM = Op("batch_norm", batch_norm_forward)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-norm-forward", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_batch_norm_forward():
    x = np.array([[[1.0, 3.0], [5.0, 5.0]], [[5.0, 7.0], [1.0, 1.0]]])
    mean, variance = channel_moments(x)
    close(mean, [4, 3], what="mean", why="over the pictures and the places, one for each channel")
    close(variance, [5, 4], what="variance", why="the mean of squared deviations, over n, not n - 1")
    far = (1000 + np.random.default_rng(0).normal(size=(8, 2, 9, 11))).astype(np.float32)
    mean, variance = channel_moments(far)
    close(mean, far.mean(axis=(0, 2, 3), dtype=np.float64), dtype=np.float32, what="mean far from zero")
    why = "subtract the mean first, then square"
    close(variance, far.var(axis=(0, 2, 3), dtype=np.float64), rtol=1e-3, dtype=np.float32, what="variance", why=why)
    got = batch_norm_forward(x, np.array([2.0, 1.0]), np.array([10.0, 0.0]), 4.0)
    close(got, [[[8, 10 - 2 / 3], [1 / 2**0.5] * 2], [[10 + 2 / 3, 12], [-1 / 2**0.5] * 2]], why="gamma * x_hat + beta")
    given = np.array([1.0, 1.0]), np.array([4.0, 0.25])
    close(batch_norm_forward(x, np.ones(2), np.zeros(2), 0.0, given)[0, :, 0], [0, 8], why="take the moments if given")
    many = np.random.default_rng(1).normal(3, 5, size=(6, 3, 160, 160)).astype(np.float32)
    normal = batch_norm_forward(many, np.ones(3, np.float32), np.zeros(3, np.float32), 1e-5)
    assert normal.dtype == np.float32 and normal.shape == many.shape, "the shape and the dtype of x"
    close(normal.mean(axis=(0, 2, 3), dtype=np.float64), np.zeros(3), atol=1e-4, what="mean of the result")
    close(normal.var(axis=(0, 2, 3), dtype=np.float64), np.ones(3), rtol=1e-3, what="variance of the result")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    scene, gain, offset = dice.normal(2, 3, size=(5, 3, 4, 2)), dice.normal(size=3), dice.normal(size=3)
    kept = scene.copy()
    column = np.s_[:, None, None]
    middle, spread = scene.mean(axis=(0, 2, 3)), scene.var(axis=(0, 2, 3))
    close(channel_moments(scene)[1], spread)
    want = gain[column] * (scene - middle[column]) / (spread + 0.1)[column] ** 0.5 + offset[column]
    close(batch_norm_forward(scene, gain, offset, 0.1), want)
    close(scene, kept, why="the pictures must stay as they were")
    alone, with_axes = (batch_norm_forward(a, gain, offset, 0.1) for a in (scene[:, :, 0, 0], scene[:, :, :1, :1]))
    close(alone, with_axes[:, :, 0, 0], why="a shape (N, C) is normalised too")
    ### END HIDDEN TESTS


test_batch_norm_forward()

# %% [markdown]
# ### Backward through the statistics
#
# Change one pixel, and the mean and the variance of its channel change, so every number of the channel does. With n
# numbers a channel, the sums over N, H and W, and $\hat{x}$ as above, the algebra ends in three lines:
#
# $$\frac{\partial L}{\partial \beta} = \sum g \qquad \frac{\partial L}{\partial \gamma} = \sum g\,\hat{x} \qquad
#   \frac{\partial L}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}}
#   \Big( g - \frac{1}{n} \sum g - \frac{\hat{x}}{n} \sum g\,\hat{x} \Big)$$
#
# The last one can be read: of g is taken away what would only shift the channel (its mean), and what would only stretch
# it (its share along $\hat{x}$). For both would be undone by the normalisation.
#
# ### Exercise: `batch_norm_gradients`

# %% nbgrader={"grade": false, "grade_id": "spatial-norm-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def batch_norm_gradients(
    g: Array, x: Array, weight: Array, eps: float, moments: Moments | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of ``batch_norm_forward`` by ``x``, ``weight`` and ``bias``.

    TODO: Fill the three blanks: a first pass over the blocks, three numbers for each channel, and a second pass.

    APPROACH:
    1. `stretch` of a block: with d = x - middle, the sum of g * d over the pictures, a row. All of it, times `inverse`,
       is the gradient of the weight, since x_hat is d * inverse.
    2. `along`, `shift` and `scale`, (C,) each: what d is multiplied by to give x_hat * to_weight / n; the mean of g; and
       weight * inverse. Then they are tiled for you.
    3. `finish` a block: (g - (d * along + shift)) * scale, written into `to_x[block]`.

    EXAMPLE:
    >>> batch_norm_gradients(np.array([[[1.0]], [[0.0]]]), np.array([[[0.0]], [[2.0]]]), np.ones(1), 0.0)[1:]
    (array([-1.]), array([1.]))

    HINT: n is how many numbers a channel has, and `rows_g` is g as rows, as `rows` is x.
    """
    mean, variance = channel_moments(x) if moments is None else moments
    rows, rows_g = picture_rows(x), picture_rows(g)
    inverse, channels = 1 / np.sqrt(variance + eps), x.shape[1]
    n, places = x.size // channels, rows.shape[1] // channels
    to_bias, to_x = channel_sums(rows_g.sum(axis=0), channels), np.empty_like(rows)
    middle = np.tile(mean, places)

    def stretch(block: slice) -> Any:
        ### BEGIN SOLUTION
        return np.einsum("nl,nl->l", rows[block] - middle, rows_g[block])
        ### END SOLUTION

    added = sum(for_blocks(stretch, *rows.shape), start=np.zeros_like(rows[0]))
    to_weight = inverse * channel_sums(added, channels)
    ### BEGIN SOLUTION
    along, shift, scale = inverse * to_weight / n, to_bias / n, weight * inverse
    ### END SOLUTION
    along, shift, scale = (np.tile(one, places) for one in (along, shift, scale))

    def finish(block: slice) -> None:
        ### BEGIN SOLUTION
        taken = rows[block] - middle
        taken *= along
        taken += shift
        part = np.subtract(rows_g[block], taken, out=to_x[block])
        part *= scale
        ### END SOLUTION

    for_blocks(finish, *rows.shape)
    return from_picture_rows(to_x, x.shape), to_weight, to_bias


@defvjp(BATCH_NORM)
def _batch_norm(
    g: Array, out: Array, x: Array, weight: Array, bias: Array, eps: float, moments: Moments | None = None
) -> Any:
    return batch_norm_gradients(g, x, weight, eps, moments)

# %% nbgrader={"grade": true, "grade_id": "test-spatial-norm-gradient", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def slope_of(function, x, place):
    """By how much function(x) grows with the number of x at place, from both sides."""
    step = np.zeros(x.shape)
    step[place] = 1e-5
    return (function(x + step) - function(x - step)) / 2e-5


def test_batch_norm_gradients():
    numbers = np.random.default_rng(3)
    x, gamma, beta = numbers.normal(2, 3, size=(3, 2, 2, 2)), np.array([2.0, -0.5]), np.array([1.0, 0.0])
    g = numbers.normal(size=x.shape)
    to_x, to_weight, to_bias = batch_norm_gradients(g, x, gamma, 0.1)
    close(to_bias, g.sum(axis=(0, 2, 3)), what="gradient of the bias")
    for c in range(2):
        want = slope_of(lambda w: float(np.sum(g * batch_norm_forward(x, w, beta, 0.1))), gamma, c)
        close(to_weight[c], want, rtol=1e-4, what=f"gradient of the weight at [{c}]", why="the sum of g * x_hat")
    for place in [(0, 0, 0, 0), (1, 1, 0, 1), (2, 0, 1, 1), (0, 1, 1, 0)]:
        want = slope_of(lambda a: float(np.sum(g * batch_norm_forward(a, gamma, beta, 0.1))), x, place)
        close(to_x[place], want, rtol=1e-4, what=f"gradient of x at {list(place)}", why="mean and variance move with x")
    close(to_x.sum(axis=(0, 2, 3)), [0, 0], what="sum of a channel's gradients", why="a shift of x changes nothing")
    many, top = numbers.normal(size=(2, 5, 1, 150, 200)).astype(np.float32)
    got = batch_norm_gradients(top, many, np.ones(1, np.float32), 1e-5)
    assert [a.dtype for a in got] == [np.float32] * 3, f"float32 stays float32, got {[a.dtype for a in got]}"
    flat = (many - many.mean()) / many.std()
    close(got[1], [np.sum(top.astype(np.float64) * flat)], rtol=1e-3, atol=1e-2, why="add over all blocks")
    want = (top - top.mean() - flat * np.mean(top.astype(np.float64) * flat)) / many.std()
    close(got[0], want, rtol=1e-3, atol=1e-4, why="n counts all blocks")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    scene, gain, top = dice.normal(1, 2, size=(4, 3, 2, 3)), dice.normal(size=3), dice.normal(size=(4, 3, 2, 3))
    kept = scene.copy(), top.copy()
    got = batch_norm_gradients(top, scene, gain, 0.3)
    close(scene, kept[0], why="a rule must not write into x")
    close(top, kept[1], why="a rule must not write into g")
    root = np.sqrt(scene.var(axis=(0, 2, 3), keepdims=True) + 0.3)
    level = (scene - scene.mean(axis=(0, 2, 3), keepdims=True)) / root
    close(got[1], (top * level).sum(axis=(0, 2, 3)))
    for place in [(3, 2, 1, 2), (0, 1, 0, 0), (2, 0, 1, 1)]:
        want = slope_of(lambda a: float(np.sum(top * batch_norm_forward(a, gain, gain, 0.3))), scene, place)
        close(got[0][place], want, rtol=1e-4)
    ### END HIDDEN TESTS


test_batch_norm_gradients()

# %% [markdown]
# ### In use there is no batch
#
# One picture comes, and shall be classified. Its own mean would wipe out how bright it is; and an answer that depends
# on which other pictures happen to be in the batch is no answer. So while training the layer keeps a **running** mean
# and variance of each channel, and in evaluation mode it normalises by those:
#
# $$\text{running} \leftarrow (1 - m) \cdot \text{running} + m \cdot \text{batch} \qquad m = 0.1$$
#
# One detail that is easy to miss, and that PyTorch has too: the batch is normalised by the variance over n, but it is
# the *unbiased* one, over n − 1, that goes into the running variance.
#
# ### Exercise: `update_running` and `batch_norm`

# %% nbgrader={"grade": false, "grade_id": "spatial-norm-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def update_running(running: Array, batch: Array, momentum: float) -> None:
    """Move ``running``, in place, by the share ``momentum`` of the way to ``batch``.

    TODO: Fill the blank here and the two in `batch_norm`.

    APPROACH:
    1. In place: `running += ...`, so that whoever has the array sees it.
    2. `batch_norm`, in training: `moments` of `x.data`. If there is a running mean, move it towards the batch's mean,
       and the running variance towards the batch's variance times n / (n - 1).
    3. In evaluation: `scale` (C,) is 1 over the root of the running variance plus eps, times the weight if there is
       one; `shift` (C,) is minus the running mean times scale, plus the bias if there is one.

    EXAMPLE:
    >>> running = np.array([1.0]); update_running(running, np.array([2.0]), 0.25); running
    array([1.25])

    HINT: `weight` and `bias` are tensors, and stay tensors in evaluation mode: somebody may train them there.
    """
    ### BEGIN SOLUTION
    running += momentum * (batch - running)
    ### END SOLUTION


def batch_norm(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel of ``x`` (N, C, ...) normalised, in training by the batch's statistics, else by the running ones.

    Parameters
    ----------
    running_mean, running_var
        Arrays of shape (C,), or None. In training they are moved, in place, towards those of the batch: the variance
        towards the unbiased one. Without training they must be there.
    weight, bias
        Tensors of shape (C,), by default 1 and 0.
    training
        Whether the statistics are those of the batch.
    momentum
        The share of the batch in the running statistics.
    eps
        Added to the variance.

    Raises
    ------
    ValueError
        If ``x`` has no channels, a channel holds less than two numbers in training, or running statistics are missing.
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm: expected a shape (N, C, ...), got {x.shape}")
    channels = x.shape[1]
    n = x.size // channels if channels else 0
    if training and n < 2:
        raise ValueError(f"batch_norm: in training a channel needs at least two numbers, the shape {x.shape} has {n}")
    if training:
        gamma = np.ones(channels, x.dtype) if weight is None else weight
        beta = np.zeros(channels, x.dtype) if bias is None else bias
        ### BEGIN SOLUTION
        moments = channel_moments(x.data)
        if running_mean is not None:
            update_running(running_mean, moments[0], momentum)
        if running_var is not None:
            update_running(running_var, moments[1] * (n / (n - 1)), momentum)
        ### END SOLUTION
        return apply(BATCH_NORM, x, gamma, beta, eps=eps, moments=moments)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: without training, running_mean and running_var must be given")
    ### BEGIN SOLUTION
    inverse = 1 / np.sqrt(running_var + eps)
    scale: Any = inverse if weight is None else weight * inverse
    shift: Any = -running_mean * scale if bias is None else bias - running_mean * scale
    ### END SOLUTION
    column = (channels,) + (1,) * (x.ndim - 2)
    normal: Tensor = x * scale.reshape(column) + shift.reshape(column)
    return normal

# %% nbgrader={"grade": true, "grade_id": "test-spatial-norm-layer", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_batch_norm():
    running = np.array([1.0, 10.0], np.float32)
    update_running(running, np.array([2.0, 0.0], np.float32), 0.25)
    close(running, [1.25, 7.5], dtype=np.float32, why="a quarter of the way to the batch")
    x = np.array([[[1.0, 3.0], [5.0, 5.0]], [[5.0, 7.0], [1.0, 1.0]]])
    mean, variance = np.zeros(2), np.ones(2)
    gamma, beta = Tensor([2.0, 1.0], np.float64), Tensor([10.0, 0.0], np.float64)
    got = batch_norm(Tensor(x, np.float64), None, None, gamma, beta, True, eps=4.0).data
    close(got[0, 0], [8, 10 - 2 / 3], why="no running statistics: none are moved")
    out = batch_norm(Tensor(x, np.float64), mean, variance, gamma, beta, training=True, momentum=0.5, eps=4.0)
    close(out.data[1, 0], [10 + 2 / 3, 12], why="in training, by the statistics of the batch")
    close(mean, [2, 1.5], what="running mean", why="half of the way from 0 to the batch's mean")
    close(variance, [0.5 + 10 / 3, 0.5 + 8 / 3], what="running variance", why="towards the unbiased one, n / (n - 1)")
    mean, variance = np.array([1.0, 2.0]), np.array([5.0, 0.0])
    got = batch_norm(Tensor(x, np.float64), mean, variance, gamma, beta, eps=4.0).data
    close(got, [[[10, 10 + 4 / 3], [1.5, 1.5]], [[10 + 8 / 3, 14], [-0.5, -0.5]]], why="else by the running ones")
    got = batch_norm(Tensor(x, np.float64), mean, variance, eps=4.0).data
    close(got[0, 1], [1.5, 1.5], why="weight 1 and bias 0 if not given")
    close([*mean, *variance], [1, 2, 5, 0], why="in evaluation the running statistics stay as they are")
    gamma.requires_grad = beta.requires_grad = True
    batch_norm(Tensor(x, np.float64), mean, variance, gamma, beta, eps=4.0).sum().backward()
    close(gamma.grad.data, [4, 2], what="gradient of the weight in evaluation", why="no .data of weight on the way")
    close(beta.grad.data, [4, 4], what="gradient of the bias in evaluation")
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    scene, gain, offset = dice.normal(2, 3, size=(5, 3, 4, 2)), dice.normal(size=3), dice.normal(size=3)
    middle, spread = dice.normal(size=3), dice.uniform(1, 2, size=3)
    moved = middle.copy(), spread.copy()
    batch_norm(Tensor(scene, np.float64), *moved, training=True)
    close(moved[0], 0.9 * middle + 0.1 * scene.mean(axis=(0, 2, 3)))
    close(moved[1], 0.9 * spread + 0.1 * scene.var(axis=(0, 2, 3), ddof=1))
    gains, offsets = Tensor(gain, np.float64), Tensor(offset, np.float64)
    got = batch_norm(Tensor(scene, np.float64), middle, spread, gains, offsets, eps=0.2)
    level = (scene - middle[:, None, None]) / np.sqrt(spread + 0.2)[:, None, None]
    close(got.data, level * gain[:, None, None] + offset[:, None, None])
    only = batch_norm(Tensor(scene, np.float64), middle, spread, None, Tensor(offset, np.float64), eps=0.2)
    close(only.data, level + offset[:, None, None])
    ### END HIDDEN TESTS


test_batch_norm()

# %% [markdown]
# The layer is given: it owns weight and bias, and the running statistics as buffers, which are saved with the weights.

# %%
#| export
class BatchNorm2d(Module):
    """Batch normalisation of pictures (N, num_features, H, W), channel by channel.

    Source: Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training".

    Parameters
    ----------
    num_features
        How many channels.
    eps
        Added to the variance.
    momentum
        The share of a batch in the running statistics; None makes them the plain mean over all batches so far.
    affine
        Whether there are a weight and a bias.
    track_running_stats
        Whether running statistics are kept; without, those of the batch are used in evaluation too.

    Attributes
    ----------
    weight, bias
        Parameters of shape (num_features,), 1 and 0 at first; or None.
    running_mean, running_var, num_batches_tracked
        Buffers of shape (num_features,) and (), 0, 1 and 0 at first; or None.

    Raises
    ------
    TypeError, ValueError
        If ``num_features`` is no whole number of at least 1; when called, if what comes is no batch of pictures of so
        many channels.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = whole_size("BatchNorm2d", "num_features", num_features)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features)) if affine else None
        self.bias = Parameter(np.zeros(num_features)) if affine else None
        self.running_mean: Array | None
        self.running_var: Array | None
        self.num_batches_tracked: Array | None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features))
            self.register_buffer("running_var", np.ones(num_features))
            self.register_buffer("num_batches_tracked", 0)
        else:
            self.running_mean = self.running_var = self.num_batches_tracked = None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` normalised; in training the running statistics move."""
        check_pictures("BatchNorm2d", x)
        if x.shape[1] != self.num_features:
            raise ValueError(f"{self!r}: expected {self.num_features} channels, got shape {x.shape}")
        share = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            if self.momentum is None:
                share = 1 / int(self.num_batches_tracked)
        by_batch = self.training or self.running_mean is None
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, share, self.eps)

    def extra_repr(self) -> str:
        """``16, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True``"""
        given = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return f"{given}, affine={self.affine}, track_running_stats={self.track_running_stats}"

# %% [markdown]
# ## 10. Flatten
#
# The last layer is linear, and wants a row for each picture: (N, C, H, W) becomes (N, C · H · W). One axis must stay
# what it was: the first.
#
# ### Exercise: `flatten`

# %% nbgrader={"grade": false, "grade_id": "spatial-flatten", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """``x`` with the axes from ``start_dim`` to ``end_dim``, both included, as one.

    Raises
    ------
    IndexError
        If an axis is out of range.
    ValueError
        If the last one comes before the first.

    TODO: Reshape.

    APPROACH:
    1. `first` and `last` are the axes as numbers from 0 on (given). If last is less than first, raise ValueError with
       the text `f"flatten: axis {end_dim} comes before axis {start_dim} of shape {x.shape}"`.
    2. The new shape: what stands before them, the product of their lengths, what stands behind them.

    EXAMPLE:
    >>> flatten(Tensor(np.zeros((2, 3, 4, 5))), start_dim=1).shape
    (2, 60)

    HINT: `math.prod` of the lengths rather than -1, which cannot be told from an empty batch.
    """
    if x.ndim == 0:
        return x.reshape(1)
    first, last = axis_in_range("flatten", start_dim, x.ndim), axis_in_range("flatten", end_dim, x.ndim)
    ### BEGIN SOLUTION
    if last < first:
        raise ValueError(f"flatten: axis {end_dim} comes before axis {start_dim} of shape {x.shape}")
    return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    ### END SOLUTION


class Flatten(Module):
    """``flatten`` as a module; by default all axes but the first, that of the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with those axes as one."""
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """``start_dim=1, end_dim=-1``"""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"

# %% nbgrader={"grade": true, "grade_id": "test-spatial-flatten", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_flatten():
    x = Tensor(np.arange(120.0).reshape(2, 3, 4, 5))
    close(Flatten()(x).data, x.data.reshape(2, 60), dtype=np.float32, why="all axes but the first")
    for (start, end), shape in [((0, -1), (120,)), ((1, 2), (2, 12, 5)), ((-2, 3), (2, 3, 20)), ((2, 2), (2, 3, 4, 5))]:
        close(flatten(x, start, end).data, x.data.reshape(shape), what=f"flatten from {start} to {end}")
    assert flatten(Tensor(np.zeros((0, 3, 4))), 1).shape == (0, 12), "an empty batch keeps its features"
    with raises(ValueError, "flatten", "axis 1", "axis 2", "(2, 3, 4, 5)"):
        flatten(x, 2, 1)
    x.requires_grad = True
    flatten(x, 1).sum().backward()
    assert x.grad is not None, "reshape the tensor itself, or no gradient will flow back"
    close(x.grad.data, np.ones((2, 3, 4, 5)), what="gradient of x")
    ### BEGIN HIDDEN TESTS
    lengths = tuple(int(n) for n in np.random.default_rng().integers(2, 6, size=5))
    brick = Tensor(np.random.default_rng().normal(size=lengths))
    for start, end in [(0, 1), (1, 3), (2, -1), (3, 4)]:
        want = brick.data.reshape(*lengths[:start], -1, *lengths[(end % 5) + 1 :])
        close(flatten(brick, start, end).data, want)
    ### END HIDDEN TESTS


test_flatten()

# %% [markdown]
# And how many features does the linear layer get? Work it out on paper, or let the error tell you:

# %%
body = Sequential(Conv2d(3, 16, 5), ReLU(), MaxPool2d(2), Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2), Flatten())
try:
    Sequential(*body, Linear(32 * 8 * 8, 10))(randn(4, 3, 32, 32))
except ValueError as error:
    print(error)
print("in_features:", body(randn(1, 3, 32, 32)).shape[1])

# %% [markdown]
# 32 → 28 by the window of 5, → 14 → 14 → 7: so 32 · 7 · 7 = 1,568. Whoever does not want to count sends one picture
# through.
#
# ## 11. All of it together
#
# Here is a network for pictures of CIFAR-10, and what each layer holds for a batch of 128. Predict: which layer has the
# most weights, and which makes the largest array?

# %%
manual_seed(0)


def stage(inputs, outputs):
    return [Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs), ReLU()]


cifar_net = Sequential(
    *stage(3, 24),
    MaxPool2d(2),
    *stage(24, 48),
    *stage(48, 48),
    MaxPool2d(2),
    *stage(48, 96),
    MaxPool2d(2),
    Flatten(),
    Linear(1536, 10),
)
names, weight_mb, array_mb = [], [], []
x = randn(128, 3, 32, 32)
for one in cifar_net:
    x = one(x)
    if type(one) is not Flatten:
        names.append(repr(one).partition("(")[0])
        weight_mb.append(sum(p.data.nbytes for p in one.parameters()) / 1e6)
        array_mb.append(x.data.nbytes / 1e6)
figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
spots = np.arange(len(names))
axes.bar(spots - 0.2, array_mb, width=0.4, label="result, batch of 128")
axes.bar(spots + 0.2, weight_mb, width=0.4, label="weights")
axes.set_xticks(spots, names, rotation=40, ha="right", fontsize="small")
axes.set_yscale("log")
axes.set_ylabel("MB")
axes.set_title("A convolutional network is small, and what it remembers is large")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
axes.grid(axis="y", alpha=0.3)
plt.show()
print(f"weights {sum(weight_mb):.2f} MB, results {sum(array_mb):.0f} MB")

# %% [markdown]
# A third of a megabyte of weights, 89,026 numbers, and 90 MB of results, most of which backward needs. The weights are
# where the channels are many: nearly half of them in the last convolution. The results are where the pictures are
# large: the first stage, with 2.6 kB of weights, makes 12.6 MB three times over.
#
# And does knowing the neighbours pay? Only 100 handwritten digits of 8 x 8 to learn from, and 360 others to be tested
# on. Two networks with about as many weights: one with convolutions, one of linear layers only. Each is trained twice:
# on the digits as they are, and on digits whose pixels have been shuffled, all in the same way. Predict the four shares
# of test digits that come out right.

# %%
from tito import data

digits = data.load("digits")


def train_and_test(make, order, seed):
    """The share of test digits that a network of make() gets right, trained by 30 epochs of gradient descent."""
    manual_seed(seed)
    dice = np.random.default_rng(seed)
    few = dice.permutation(len(digits["train_labels"]))[:100]
    images, tests = (
        digits[f"{name}_images"].reshape(-1, 64)[:, order].reshape(-1, 1, 8, 8) / 16 for name in ("train", "test")
    )
    net, criterion = make(), CrossEntropyLoss()
    velocities = [np.zeros_like(p.data) for p in net.parameters()]
    for _ in range(30):
        for chosen in np.split(dice.permutation(few), 4):
            net.zero_grad()
            criterion(net(Tensor(images[chosen])), digits["train_labels"][chosen].astype(np.int64)).backward()
            for p, velocity in zip(net.parameters(), velocities, strict=True):
                velocity *= 0.9  # momentum: module 07 tells why
                velocity -= 0.05 * p.grad.data
                p.data += velocity
    answers = net.eval()(Tensor(tests)).argmax(axis=1).data
    return float((answers == digits["test_labels"]).mean())


def convolutional():
    return Sequential(*stage(1, 12), MaxPool2d(2), *stage(12, 24), MaxPool2d(2), Flatten(), Linear(96, 10))


def linear_only():
    return Sequential(Flatten(), Linear(64, 48), ReLU(), Linear(48, 10))


orders = {"as they are": np.arange(64), "shuffled": np.random.default_rng(0).permutation(64)}
for label, make in {"convolutions": convolutional, "linear layers": linear_only}.items():
    weights = sum(parameter.size for parameter in make().parameters())
    print(f"{label:13} ({weights:,} numbers):", end="")
    for name, order in orders.items():
        print(f"  {np.mean([train_and_test(make, order, seed) for seed in range(3)]):.1%} {name}", end="")
    print()

# %% [markdown]
# Here, as the mean of three starts: convolutions 93.1 % and 87.7 %, linear layers 88.0 % and 88.5 %. To linear layers
# the order of the pixels means nothing; their two numbers differ by chance. Convolutions gain five points, without a
# weight more; and with wrong neighbours they are no better than the others. What is built into a network helps as far
# as it is true.
#
# ## What you have built
#
# `Conv2d` with stride, padding, dilation and groups, `MaxPool2d`, `AvgPool2d`, `AdaptiveAvgPool2d`, `BatchNorm2d` and
# `Flatten`; as functions `conv2d`, `max_pool2d`, `avg_pool2d`, `adaptive_avg_pool2d`, `batch_norm` and `flatten`; and
# the rules of four new operations, each beside its forward. `im2col` remains as the plain way to the same result.
#
# In the terminal: `tito module complete 09`. Then module 10 brings the pictures: batches, shuffled and augmented,
# faster than this network can eat them.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "spatial-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Where the memory goes.** The network of section 11 is to be trained on pictures of 64 x 64 instead of 32 x 32, batch
# 128. How do weights, results kept for backward, and the time of a step change? Name two ways to make it fit into half
# the memory, and what each costs. (The last linear layer may be left out.)
#
# === BEGIN MARK SCHEME ===
# 1 point: the convolutions' weights stay. 1 point: results and time both four times. 2 points: two ways, each with its
# cost: a smaller batch (noisier batch statistics, less efficient products), an earlier pooling or stride (loses
# detail), recomputing (about a third more time), fewer channels (less accurate), float16 (less precision).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "spatial-reflect-memory", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The windows are the same, so the weights of the convolutions do not change. Every result has four times as many
# places, so the memory kept for backward and the time of a step are four times as large. Half the batch halves the
# memory; the statistics of batch normalisation get noisier and an epoch has twice as many steps. A stride of 2 in the
# first layer makes everything behind it four times smaller, and throws fine detail away that nothing has looked at.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "spatial-reflect-factor-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Small windows, split windows.** Compare, for C channels in and C out: one 5 x 5 convolution; two of 3 x 3, one after
# the other; a depthwise 3 x 3 (`groups=C`) followed by a 1 x 1. Give the weights of each and how far each sees. Why can
# the third, with so many fewer multiplications, still be slow on your machine?
#
# === BEGIN MARK SCHEME ===
# 1 point: 25 C², 18 C², 9 C + C². 1 point: they see 5, 5 and 3 pixels. 2 points: the depthwise part is many tiny
# products (one row of 9 for each channel), which read much memory for few multiplications: limited by memory and by
# call overhead, not by arithmetic.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "spatial-reflect-factor", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# 5 x 5: 25 C² weights, sees 5 x 5. Two 3 x 3: 18 C², also 5 x 5, with a ReLU between. Depthwise and 1 x 1: 9 C + C²,
# sees 3 x 3. In the depthwise part each number that is loaded is multiplied 9 times, and not 9 C times, so the
# processor waits for memory; and it is C separate products with a single row each, which no matrix library does at full
# speed.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "spatial-reflect-norm-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Batch normalisation in trouble.** (a) A network with batch normalisation is right 99 % of the time in training and
# 60 % in use, on the same pictures. Name two causes. (b) Why is the bias of a convolution in front of it of no use? (c)
# What goes wrong with batches of 2 pictures?
#
# === BEGIN MARK SCHEME ===
# 2 points for (a): eval() forgotten or train() left on; running statistics not settled or from other data; weights
# saved without buffers. 1 point for (b): the mean is subtracted, so any constant vanishes, and its gradient is zero. 1
# point for (c): statistics of few numbers are noisy, and differ from the running ones.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "spatial-reflect-norm", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# (a) eval() was forgotten, and pictures come one by one, so each is normalised by its own statistics; or the running
# statistics are wrong: too few steps with this momentum, or they were not saved and loaded with the weights. (b) A
# constant added to a channel moves its mean by as much, and the mean is subtracted; the gradient of that bias is zero,
# up to rounding. (c) Mean and variance of two pictures are guesses: each picture's result depends on its chance
# neighbour, and the running averages used later do not agree with what the network was trained with.
# ### END SOLUTION
