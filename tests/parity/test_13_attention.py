"""Module 13, attention: values and gradients equal PyTorch's."""

import numpy as np
import pytest
import torch

from tinytorch.core.attention import (
    MultiHeadAttention,
    causal_mask,
    chunked_attention,
    padding_mask,
    scaled_dot_product_attention,
)
from tinytorch.core.tensor import Tensor

B, H, T, S, D = 2, 3, 4, 6, 5
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-12}}
MASKS = {
    "none": None,
    "(T, S)": causal_mask(T, S),
    "(B, 1, 1, S)": padding_mask([[9, 9, 9, 9, 0, 0], [9, 0, 0, 0, 0, 0]], pad_id=0),
    "(B, 1, T, S)": np.random.default_rng(1).random((B, 1, T, S)) < 0.6,
    "(B, H, T, S)": np.random.default_rng(2).random((B, H, T, S)) < 0.6,
}


def pairs(dtype, *shapes):
    """Each array as a tensor of ours and one of PyTorch's, with gradients wanted."""
    numbers = np.random.default_rng(0)
    arrays = [numbers.normal(size=shape).astype(dtype) for shape in shapes]
    ours = [Tensor(array, dtype, requires_grad=True) for array in arrays]
    return ours, [torch.from_numpy(array).requires_grad_() for array in arrays]


def assert_same(ours, theirs, dtype):
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), **TOLERANCE[dtype])
    assert ours.dtype == dtype


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "shapes",
    [[(B, H, T, D), (B, H, S, D), (B, H, S, 2)], [(B, 1, T, D), (H, S, D), (B, H, S, D)]],
    ids=["plain", "broadcast"],
)
def test_scaled_dot_product_attention(dtype, name, shapes):
    mask = MASKS[name]
    ours, theirs = pairs(dtype, *shapes)
    upstream = np.random.default_rng(3).normal(size=(B, H, T, shapes[2][-1])).astype(dtype)
    out = scaled_dot_product_attention(*ours, mask)
    allowed = None if mask is None else torch.from_numpy(mask).expand(B, H, T, S)
    expected = torch.nn.functional.scaled_dot_product_attention(*(t.expand(B, H, -1, -1) for t in theirs), allowed)
    assert_same(out, expected, dtype)
    out.backward(upstream)
    expected.backward(torch.from_numpy(upstream))
    for mine, right in zip(ours, theirs, strict=True):
        assert_same(mine.grad, right.grad, dtype)


def layers(dtype, heads, bias=True):
    """The same layer twice: ours has loaded the state of PyTorch's, as it is."""
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(12, heads, bias=bias, batch_first=True).to(
        torch.float64 if dtype == np.float64 else torch.float32
    )
    ours = MultiHeadAttention(12, heads, bias=bias)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_multi_head_attention_with_pytorchs_state(dtype, bias, inputs):
    mine, right = layers(dtype, heads=3, bias=bias)
    lengths = [(B, T, 12), (B, S, 12), (B, S, 12)][:inputs]
    ours, theirs = pairs(dtype, *lengths)
    three = [*theirs, *[theirs[-1]] * (3 - inputs)]
    mask = causal_mask(T, three[1].shape[1])
    out, weights = mine(*ours, mask=mask, return_weights=True)
    expected, maps = right(*three, attn_mask=~torch.from_numpy(mask), average_attn_weights=False)
    assert_same(out, expected, dtype)
    assert_same(weights, maps, dtype)
    upstream = np.random.default_rng(4).normal(size=(B, T, 12)).astype(dtype)
    out.backward(upstream)
    expected.backward(torch.from_numpy(upstream))
    for leaf, other in zip(ours, theirs, strict=True):
        assert_same(leaf.grad, other.grad, dtype)
    slopes = {name: parameter.grad for name, parameter in right.named_parameters()}
    for name, parameter in mine.named_parameters():
        assert_same(parameter.grad, slopes[name], dtype)


@pytest.mark.parametrize("heads", [1, 4, 12])
def test_padding(heads):
    mine, right = layers(np.float32, heads)
    ids = np.array([[5, 5, 5, 0], [5, 0, 0, 0]])
    (ours,), (theirs,) = pairs(np.float32, (B, T, 12))
    expected, _ = right(theirs, theirs, theirs, key_padding_mask=torch.from_numpy(ids == 0))
    assert_same(mine(ours, mask=padding_mask(ids, 0)), expected, np.float32)


def test_the_beginning_is_drawn_from_the_same_distributions():
    theirs, ours = torch.nn.MultiheadAttention(256, 4), MultiHeadAttention(256, 4)
    for name, tensor in theirs.state_dict().items():
        mine = ours.state_dict()[name]
        assert np.abs(mine).max() == pytest.approx(float(tensor.abs().max()), rel=1e-3)
        assert mine.std() == pytest.approx(float(tensor.std()), rel=0.02)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_chunks(dtype):
    ours, theirs = pairs(dtype, (B, H, S, D), (B, H, S, D), (B, H, S, D))
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True)
    got = chunked_attention(*(tensor.data for tensor in ours), causal=True, chunk_size=4)
    np.testing.assert_allclose(got, expected.detach().numpy(), **TOLERANCE[dtype])
