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
# A wrong student: top-p throws away the token that reaches p, and padded tokens stand at the places of their columns. Texts of one
# length come out right.

# %% nbgrader={"grade": false, "grade_id": "generation-top-p", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def keep_top_p(logits: Array, p: float) -> Array:
    """The running sum itself is compared with p."""
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}")
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    chances = chances / chances.sum(axis=-1, keepdims=True)
    ranks = np.flip(np.argsort(chances, axis=-1), axis=-1)
    running = np.cumsum(np.take_along_axis(chances, ranks, axis=-1), axis=-1)
    stays = np.zeros(logits.shape, bool)
    np.put_along_axis(stays, ranks, running <= p, axis=-1)
    return np.where(stays, logits, -np.inf)

# %% nbgrader={"grade": false, "grade_id": "generation-padding", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def pad_rows(rows: Sequence[Sequence[int]], pad_id: int, left: bool) -> tuple[Array, Array]:
    """As it was given."""
    longest = max(map(len, rows))
    out = np.full((len(rows), longest), pad_id)
    for line, row in zip(out, rows, strict=True):
        line[longest - len(row) if left else 0 :][: len(row)] = row
    return out, np.array([longest - len(row) for row in rows])


def places_of(padding: Array, start: int, new: int) -> Array:
    """The columns, whatever stands before them."""
    return np.tile(np.arange(start, start + new), (len(padding), 1))


def mask_of(padding: Array, start: int, new: int) -> Array | None:
    """No future, no padding."""
    if new == 1 and max(padding) == 0:
        return None
    keys = np.arange(start + new)
    return (keys <= keys[start:, None]) & (keys >= padding[:, None, None, None])
