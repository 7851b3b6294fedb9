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
# A wrong student: types formulas in as they stand in the textbook, so that large inputs overflow.

# %% nbgrader={"grade": false, "grade_id": "activations-sigmoid", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def sigmoid_forward(x: Array) -> Array:
    """One divided by one plus e to the minus x."""
    return 1 / (1 + np.exp(-x))


SIGMOID = Op("sigmoid", sigmoid_forward)


def floating(x: Any) -> Tensor:
    """A Tensor of floats."""
    tensor = x if isinstance(x, Tensor) else Tensor(x)
    return tensor if tensor.dtype.kind == "f" else tensor.astype(np.float32)


def sigmoid(x: Any) -> Tensor:
    """The sigmoid of a Tensor."""
    return apply(SIGMOID, floating(x))

# %% nbgrader={"grade": false, "grade_id": "activations-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def softmax_forward(x: Array, axis: int) -> Array:
    """e to the scores, divided by the sum."""
    axis_in_range("softmax", axis, np.ndim(x))
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


SOFTMAX = Op("softmax", softmax_forward)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """The softmax of a Tensor."""
    return apply(SOFTMAX, floating(x), axis=axis)
