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
# A wrong student: tried it on square pictures alone, so height and width are mixed up; and lets every winner of a window
# have the gradient, also in a tie.

# %% nbgrader={"grade": false, "grade_id": "spatial-im2col", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def im2col(x: Array, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> Array:
    """The windows of ``x`` as the columns of a matrix, if height and width are treated alike."""
    count, channels, *size = x.shape
    down, _, (out_h, out_w) = window_taps("im2col", size, kernel, stride, padding, dilation)
    square = padded(x, (padding[0], padding[0]))
    columns = np.empty((channels, *kernel, count, out_h, out_w), x.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            columns[:, i, j] = square[:, :, down[i], down[j]].transpose(1, 0, 2, 3)
    return columns.reshape(channels * kernel[0] * kernel[1], count * out_h * out_w)

# %% nbgrader={"grade": false, "grade_id": "spatial-max-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def max_pool2d_gradient(
    g: Array, out: Array, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """The gradient of max pooling, to everybody who is as large as the largest."""
    down, across, _ = window_taps("max_pool2d", x.shape[2:], kernel, stride, padding, dilation)
    inside = padded(x, padding, -np.inf)
    slopes = np.zeros(inside.shape, g.dtype)
    for vertical in down:
        for horizontal in across:
            slopes[:, :, vertical, horizontal] += np.where(inside[:, :, vertical, horizontal] == out, g, 0)
    return cropped(slopes, padding)


@defvjp(MAX_POOL2D)
def _max_pool2d(g: Array, out: Array, x: Array, **window: Any) -> Any:
    return max_pool2d_gradient(g, out, x, **window)
