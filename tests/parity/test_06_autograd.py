"""Module 06 against PyTorch: how gradients run through whole computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinytorch.core.activations import gelu, leaky_relu, relu, sigmoid, softmax
from tinytorch.core.autograd import is_grad_enabled, no_grad
from tinytorch.core.tensor import Tensor, concatenate, maximum, where

TOLERANCE = {np.float32: {"rtol": 2e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-12}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def pair(array, dtype):
    """The same numbers as a leaf of ours and of PyTorch's."""
    return Tensor(array, dtype, requires_grad=True), torch.tensor(array.astype(dtype), requires_grad=True)


def same_gradients(mine, other, dtype):
    for position, (x, y) in enumerate(zip(mine, other, strict=True)):
        np.testing.assert_allclose(x.grad.data, y.grad.numpy(), **TOLERANCE[dtype], err_msg=f"leaf {position}")
        assert (x.grad.shape, x.grad.dtype) == (tuple(y.shape), dtype)


@DTYPES
def test_training_a_two_layer_network(dtype):
    inputs, targets = numbers(64, 5), numbers(64, 2, seed=1)
    start = [numbers(5, 8), numbers(8), numbers(8, 2, seed=2), numbers(2)]
    mine, other = zip(*(pair(array, dtype) for array in start), strict=True)
    x, y = Tensor(inputs, dtype), Tensor(targets, dtype)
    u, v = torch.tensor(inputs.astype(dtype)), torch.tensor(targets.astype(dtype))
    for _ in range(20):
        loss = (((x @ mine[0] + mine[1]).tanh() @ mine[2] + mine[3] - y) ** 2).mean()
        want = (((u @ other[0] + other[1]).tanh() @ other[2] + other[3] - v) ** 2).mean()
        loss.backward()
        want.backward()
        np.testing.assert_allclose(loss.item(), want.item(), **TOLERANCE[dtype])
        same_gradients(mine, other, dtype)
        for parameter in mine:
            parameter.data -= 0.1 * parameter.grad.data
            parameter.grad = None
        with torch.no_grad():
            for parameter in other:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    for parameter, want in zip(mine, other, strict=True):
        np.testing.assert_allclose(parameter.data, want.detach().numpy(), **TOLERANCE[dtype])


@DTYPES
def test_softmax_cross_entropy_by_hand(dtype):
    x, u = pair(numbers(6, 4) * 3, dtype)
    ids = np.array([0, 3, 1, 1, 2, 0])
    shifted = x - x.max(axis=1, keepdims=True)
    loss = -(shifted - shifted.exp().sum(axis=1, keepdims=True).log())[np.arange(6), ids].mean()
    loss.backward()
    want = torch.nn.functional.cross_entropy(u, torch.tensor(ids))
    want.backward()
    np.testing.assert_allclose(loss.item(), want.item(), **TOLERANCE[dtype])
    same_gradients([x], [u], dtype)


@DTYPES
def test_layer_norm_by_hand(dtype):
    x, u = pair(numbers(3, 4, 8), dtype)
    scale, torch_scale = pair(numbers(8), dtype)
    shift, torch_shift = pair(numbers(8, seed=1), dtype)
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = centred / (x.var(axis=-1, keepdims=True, correction=0) + 1e-5).sqrt() * scale + shift
    upstream = numbers(3, 4, 8, seed=2).astype(dtype)
    normed.backward(upstream)
    torch.nn.functional.layer_norm(u, (8,), torch_scale, torch_shift).backward(torch.tensor(upstream))
    same_gradients([x, scale, shift], [u, torch_scale, torch_shift], dtype)


@DTYPES
def test_attention_by_hand(dtype):
    names = [pair(numbers(2, 3, 5, 4, seed=seed), dtype) for seed in range(3)]
    (q, k, v), others = [ours for ours, _ in names], [theirs for _, theirs in names]
    mask = np.triu(np.ones((5, 5), bool), 1)
    scores = where(mask, -1e9, q @ k.transpose() * 0.5)
    weights = (scores - scores.max(axis=-1, keepdims=True)).exp()
    out = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    upstream = numbers(2, 3, 5, 4, seed=9).astype(dtype)
    out.backward(upstream)
    want = torch.nn.functional.scaled_dot_product_attention(*others, is_causal=True)
    np.testing.assert_allclose(out.data, want.detach().numpy(), **TOLERANCE[dtype])
    want.backward(torch.tensor(upstream))
    same_gradients([q, k, v], others, dtype)


@DTYPES
def test_a_network_with_a_different_bend_in_each_layer(dtype):
    x, u = pair(numbers(6, 5), dtype)
    weights = [pair(numbers(5, 5, seed=seed), dtype) for seed in range(5)]
    functional = torch.nn.functional
    bends = [
        (relu, torch.relu),
        (leaky_relu, functional.leaky_relu),
        (gelu, functional.gelu),
        (lambda t: gelu(t, "tanh"), lambda t: functional.gelu(t, approximate="tanh")),
        (sigmoid, torch.sigmoid),
    ]
    out, want = x, u
    for (ours, theirs), (mine, other) in zip(weights, bends, strict=True):
        out, want = mine(out @ ours), other(want @ theirs)
    upstream = numbers(6, 5, seed=9).astype(dtype)
    softmax(out).backward(upstream)
    functional.softmax(want, dim=-1).backward(torch.tensor(upstream))
    same_gradients([x, *(ours for ours, _ in weights)], [u, *(theirs for _, theirs in weights)], dtype)


@DTYPES
def test_values_used_many_times(dtype):
    x, u = pair(numbers(4, 3), dtype)
    y, v = pair(numbers(3), dtype)

    def tangle(a, b, join, larger):
        first = a * b
        second = first + a
        joined = join([first, second * first, a])
        return (larger(joined, b) * joined + joined[1:2]).sum() + (first @ b).sum() * second.mean()

    tangle(x, y, concatenate, maximum).backward()
    tangle(u, v, torch.cat, torch.maximum).backward()
    same_gradients([x, y], [u, v], dtype)


@DTYPES
def test_accumulation_and_retain_graph(dtype):
    x, u = pair(numbers(3), dtype)
    for t in (x, u):
        loss = (t.exp() * t).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        (t * 2).sum().backward()
        with pytest.raises(RuntimeError, match="retain_graph"):
            loss.backward()
    same_gradients([x], [u], dtype)


@DTYPES
def test_through_changes_of_dtype(dtype):
    x, u = pair(np.array([1.5, -2.0]), dtype)
    (x.astype(np.float64) * np.array([2.0, 3.0])).astype(np.float32).sum().backward()
    (u.to(torch.float64) * torch.tensor([2.0, 3.0])).to(torch.float32).sum().backward()
    same_gradients([x], [u], dtype)


def test_detach_stops_the_gradient():
    x, u = pair(np.array([2.0, 3.0]), np.float32)
    for t in (x, u):
        (t * t.detach()).sum().backward()
    same_gradients([x], [u], np.float32)


def test_the_same_calls_are_refused():
    for t in pair(np.array([2.0, 3.0]), np.float32):
        with pytest.raises(RuntimeError):
            (t * 2).backward()
        with pytest.raises(RuntimeError):
            t.detach().sum().backward()
        (t * 2).sum().reshape(1, 1).backward()


def test_no_grad_nests_and_decorates():
    for switch, enabled in [(no_grad, is_grad_enabled), (torch.no_grad, torch.is_grad_enabled)]:
        assert enabled()
        with switch():
            with switch():
                assert not enabled()
            assert not enabled()
        assert enabled()
        assert switch()(enabled)() is False
        assert enabled()
