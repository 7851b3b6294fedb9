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
# A wrong student: mean and deviation are constants on the way back, and the block normalises the stream instead of what is
# read from it. Both train.

# %% nbgrader={"grade": false, "grade_id": "transformers-gradients", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def layer_norm_gradients(g: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array, Array]:
    """The gradients, if mean and deviation did not depend on x."""
    last = tuple(range(x.ndim - weight.ndim, x.ndim))
    first = tuple(range(x.ndim - weight.ndim))
    deviation = np.sqrt(x.var(axis=last, keepdims=True) + eps)
    z = (x - x.mean(axis=last, keepdims=True)) / deviation
    return g * weight / deviation, (g * z).sum(axis=first), g.sum(axis=first)

# %% nbgrader={"grade": false, "grade_id": "transformers-block", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class TransformerBlock(Module):
    """The order of 2017."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.feed_forward = PositionwiseFeedForward(embed_dim, hidden_dim, dropout)
        self.norm1, self.norm2 = LayerNorm(embed_dim), LayerNorm(embed_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        z = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm2(z + self.feed_forward(z))
