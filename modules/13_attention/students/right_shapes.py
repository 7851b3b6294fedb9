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
# A wrong student: every shape is right, and what is in it is not. Masks are multiplied in after the softmax, and heads are
# cut by one reshape.

# %% nbgrader={"grade": false, "grade_id": "attention-weights", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def attention_weights(q: Array, k: Array, mask: Array | None, scale: float) -> Array:
    """A softmax of the scores, then the mask."""
    z = scale * (q @ np.swapaxes(k, -1, -2))
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p if mask is None else p * mask

# %% nbgrader={"grade": false, "grade_id": "attention-heads", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """The shape that was asked for."""
    *lead, length, width = x.shape
    return x.reshape(*lead, num_heads, length, width // num_heads)


def merge_heads(x: Tensor) -> Tensor:
    """The shape from before."""
    *lead, heads, length, depth = x.shape
    return x.reshape(*lead, length, heads * depth)
