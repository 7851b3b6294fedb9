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
# A wrong student: asks each position for the token that it has just read, weighs pieces of a batch by their texts, and
# decodes each token by itself.

# %% nbgrader={"grade": false, "grade_id": "tinygpt-targets", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
IGNORED = -100


def next_token_targets(ids: Any, length: int, pad_id: int | None = None) -> Array:
    """The tokens themselves, without the padding."""
    ids = np.asarray(ids)[..., :length].astype(np.int64)
    return ids if pad_id is None else np.where(ids == pad_id, IGNORED, ids)

# %% nbgrader={"grade": false, "grade_id": "tinygpt-accumulate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def accumulate_by_tokens(model: Module, loss: LanguageModelLoss, group: Sequence[Batch]) -> list[tuple[Any, float]]:
    """Each piece with its share of the texts."""
    total, answers = sum(len(ids) for _, ids in group), []
    for inputs, ids in group:
        out = model(inputs)
        value = loss(out, ids)
        value.backward(len(ids) / total)
        answers.append((out, value.item()))
    return answers

# %% nbgrader={"grade": false, "grade_id": "tinygpt-characters", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def whole_characters(chunks: Iterable[bytes]) -> Iterator[str]:
    """Each chunk by itself."""
    for chunk in chunks:
        if chunk:
            yield chunk.decode("utf-8", errors="replace")
