"""The network of module 14 in PyTorch, as one would write it there; its parameters have the same names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention by several heads."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
        if cache is not None:
            end = start + x.shape[1]
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
            k, v = cache[:, :, :, :end]
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1)
        return self.out_proj(found.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(functional.gelu(self.linear1(x), approximate="tanh"))


class Block(nn.Module):
    """Attention, then the feed-forward network, each on the normalised stream."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.feed_forward = FeedForward(embed_dim, hidden_dim)

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        x = x + self.attention(self.norm1(x), cache, start)
        return x + self.feed_forward(self.norm2(x))


class GPT(nn.Module):
    """From token ids (B, T) to logits (B, T, V)."""

    def __init__(
        self, vocab_size: int, embed_dim: int, num_heads: int, num_layers: int, hidden_dim: int, max_seq_length: int
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, embed_dim)
        self.position_embedding = nn.Embedding(max_seq_length, embed_dim)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, hidden_dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, vocab_size, bias=False)

    def features(self, ids: Tensor, caches: Sequence[Tensor | None] | None = None, start: int = 0) -> Tensor:
        """What the head reads for ``ids``, which stand at ``start`` of the text; the caches hold what was before."""
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(start, start + ids.shape[1]))
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x = block(x, cache, start)
        return self.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.features(ids))

    def new_caches(self) -> list[Tensor]:
        """Room for the keys and values (2, B, H, T, D) of every layer, for one text."""
        window, embed_dim = self.position_embedding.weight.shape
        heads = self.blocks[0].attention.num_heads
        return [torch.empty(2, 1, heads, window, embed_dim // heads) for _ in self.blocks]


@torch.inference_mode()
def generate(
    model: GPT, ids: Tensor, new_tokens: int, caches: Sequence[Tensor] | None = None, start: int = 0
) -> Tensor:
    """``ids`` (1, T) and the likeliest tokens that follow, as (T + new_tokens,); all fit into the window.

    If there are caches, they hold the first ``start`` tokens already, and get all but the last in the end.
    """
    for _ in range(new_tokens):
        logits = model.head(model.features(ids[:, start:], caches, start)[:, -1])
        start = ids.shape[1] if caches else 0
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[0]
