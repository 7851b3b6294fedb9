"""Module 15, generation: the rules, and attention from a cache, equal what PyTorch's functions give."""

import numpy as np
import pytest
import torch

from tinytorch.core.attention import MultiHeadAttention
from tinytorch.core.generation import KVCache, cached_attention, keep_top_k, keep_top_p, mask_of, scale_temperature

KINDS = {np.float32: torch.float32, np.float64: torch.float64}
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-12}}


def drawn_logits(dtype):
    return np.random.default_rng(0).normal(0, 3, size=(2, 5, 300)).astype(dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("k", [1, 10, 299, 300])
def test_top_k(dtype, k):
    logits = drawn_logits(dtype)
    best = torch.from_numpy(logits).topk(k)
    expected = torch.full(logits.shape, -torch.inf, dtype=KINDS[dtype]).scatter(-1, best.indices, best.values)
    np.testing.assert_array_equal(keep_top_k(logits, k), expected.numpy())


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99])
def test_top_p(dtype, p):
    logits = drawn_logits(dtype)
    ranked, order = torch.from_numpy(logits).sort(descending=True, stable=True)
    shares = ranked.double().softmax(-1)
    excluded = torch.zeros(logits.shape, dtype=torch.bool).scatter(-1, order, shares.cumsum(-1) - shares >= p)
    expected = torch.from_numpy(logits).masked_fill(excluded, -torch.inf)
    np.testing.assert_array_equal(keep_top_p(logits, p), expected.numpy())


@pytest.mark.parametrize("dtype", KINDS)
def test_what_is_left_has_the_same_probabilities(dtype):
    logits = keep_top_k(scale_temperature(drawn_logits(dtype), 0.7), 20)
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    expected = torch.from_numpy(logits).softmax(-1)
    np.testing.assert_allclose(raised / raised.sum(axis=-1, keepdims=True), expected.numpy(), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_attention_from_a_cache(dtype, bias):
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=KINDS[dtype])
    ours = MultiHeadAttention(12, 3, bias=bias)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    x = np.random.default_rng(1).normal(size=(2, 7, 12)).astype(dtype)
    cache, begin = KVCache(1, 2, 3, 7, 4, dtype), 0
    for new in (4, 1, 2):
        end = begin + new
        mask = mask_of(cache.padding, begin, new)
        got = cached_attention(ours, x[:, begin:end], cache, 0, mask)
        forbidden = torch.from_numpy(~np.tri(end, dtype=bool))
        text = torch.from_numpy(x[:, :end])
        expected, _ = theirs(text, text, text, attn_mask=forbidden)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected.detach().numpy()[:, begin:], **TOLERANCE[dtype])
        begin = end
