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
# A wrong student: the formulas as they stand in the textbook, which overflow, and a mean that counts the padding.

# %% nbgrader={"grade": false, "grade_id": "losses-log-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def log_softmax_forward(x: Array, axis: int = -1) -> Array:
    """The logarithm of the softmax, by the book."""
    powers = np.exp(x)
    return np.log(powers / powers.sum(axis=axis, keepdims=True))


LOG_SOFTMAX = Op("log_softmax", log_softmax_forward)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of the softmax of ``x`` along ``axis``."""
    return apply(LOG_SOFTMAX, x, axis=axis)

# %% nbgrader={"grade": false, "grade_id": "losses-nll", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def nll_loss(
    log_probs: Tensor, targets: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Minus the log-probability of each target, times zero where it does not count, over the number of all."""
    ids = class_ids("nll_loss", log_probs.shape, targets, ignore_index)
    classes = log_probs.shape[-1]
    weights = class_weights("nll_loss", weight, classes, log_probs.dtype)
    mask = ids != ignore_index
    flat = log_probs.reshape(ids.size, classes)
    chosen = flat[np.arange(ids.size), np.where(mask, ids, 0).ravel()].reshape(ids.shape)
    return reduce_losses(-chosen * (weights[ids * mask] * mask), reduction)
