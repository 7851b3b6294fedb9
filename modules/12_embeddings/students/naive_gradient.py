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
# A wrong student: gradients of repeated ids overwrite each other instead of adding up.

# %% nbgrader={"grade": false, "grade_id": "embeddings-scatter-add", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def scatter_add(gradient: Array, ids: Array, vocab_size: int) -> Array:
    """Rows of the gradient put into their places."""
    grad = np.zeros((vocab_size, gradient.shape[-1]), dtype=gradient.dtype)
    grad[ids] += gradient
    return grad

# %% nbgrader={"grade": false, "grade_id": "embeddings-gradient", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def embedding_gradient(gradient: Array, ids: Array, vocab_size: int, padding_idx: int | None = None) -> Array:
    """The gradient of the table, padding left out."""
    grad = scatter_add(gradient, ids, vocab_size)
    if padding_idx is not None:
        grad[padding_idx] = 0
    return grad
