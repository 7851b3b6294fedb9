"""What HIPS autograd leaves to its users, as one would write it there: networks, a loss and Adam.

A network is a function of its weights, a dictionary of arrays whose names are those of the same network in PyTorch.
All is float32, and stays so: ``np.mean`` and ``np.maximum``, whose gradients are float64 in autograd, are avoided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as np
from autograd import value_and_grad
from autograd.tracer import getval

Array = Any
Weights = dict[str, Array]
Shapes = dict[str, tuple[int, ...]]


def adam_step(weights: Weights, loss: Callable[[Weights], Array]) -> Callable[[], Array]:
    """A step of training: the gradients of ``loss(weights)``, and Adam, which changes the weights; returns the loss.

    Adam is that of ``autograd.misc.optimizers``, which runs all its steps in one call and in float64.
    """
    rate, b1, b2, eps = 1e-3, 0.9, 0.999, 1e-8
    differentiated = value_and_grad(loss)
    state = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
    steps = 0

    def step() -> Array:
        nonlocal steps
        steps += 1
        value, gradients = differentiated(weights)
        for name, g in gradients.items():
            m, v = state[name]
            m, v = state[name] = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)
            weights[name] = weights[name] - rate * (m / (1 - b1**steps)) / (np.sqrt(v / (1 - b2**steps)) + eps)
        return value

    return step


def cross_entropy(logits: Array, classes: Array) -> Array:
    """The mean loss of logits (N, K) whose right answers are ``classes`` (N,)."""
    shifted = logits - getval(logits).max(axis=1, keepdims=True)
    right = shifted[np.arange(len(classes)), classes]
    return np.sum(np.log(np.sum(np.exp(shifted), axis=1)) - right) / len(classes)


def linear_shapes(layers: Shapes) -> Shapes:
    """The shapes of the weights and biases of linear layers, given how many numbers (out, in) each has."""
    matrices = {f"{name}.weight": shape for name, shape in layers.items()}
    return matrices | {f"{name}.bias": shape[:1] for name, shape in layers.items()}


def relu(x: Array) -> Array:
    return x * (x > 0)


def linear(x: Array, weights: Weights, name: str) -> Array:
    return np.dot(x, weights[f"{name}.weight"].T) + weights[f"{name}.bias"]


# a network on flat pictures


MLP_SHAPES = linear_shapes({"0": (128, 784), "2": (64, 128), "4": (10, 64)})


def mlp(weights: Weights, x: Array) -> Array:
    """From pictures (N, 784) to logits (N, 10)."""
    for layer in "02":
        x = relu(linear(x, weights, layer))
    return linear(x, weights, "4")


# the network of module 14


def gpt_shapes(vocab_size: int, embed_dim: int, num_layers: int, hidden_dim: int, max_seq_length: int) -> Shapes:
    e = embed_dim
    layers = {
        "attention.out_proj": (e, e),
        "feed_forward.linear1": (hidden_dim, e),
        "feed_forward.linear2": (e, hidden_dim),
    }
    block = {"attention.in_proj_weight": (3 * e, e), "attention.in_proj_bias": (3 * e,), **linear_shapes(layers)}
    norms = ["norm", *(f"blocks.{i}.norm{n}" for i in range(num_layers) for n in (1, 2))]
    return {
        "token_embedding.weight": (vocab_size, e),
        "position_embedding.weight": (max_seq_length, e),
        "head.weight": (vocab_size, e),
        **{f"{norm}.{name}": (e,) for norm in norms for name in ("weight", "bias")},
        **{f"blocks.{i}.{name}": shape for i in range(num_layers) for name, shape in block.items()},
    }


def gpt(weights: Weights, ids: Array, num_heads: int) -> Array:
    """From token ids (B, T) to logits (B * T, V)."""
    x = weights["token_embedding.weight"][ids] + weights["position_embedding.weight"][: ids.shape[1]]
    for i in range(sum(name.endswith("in_proj_weight") for name in weights)):
        x = x + attention(normalised(x, weights, f"blocks.{i}.norm1"), weights, f"blocks.{i}.attention", num_heads)
        hidden = linear(normalised(x, weights, f"blocks.{i}.norm2"), weights, f"blocks.{i}.feed_forward.linear1")
        x = x + linear(gelu(hidden), weights, f"blocks.{i}.feed_forward.linear2")
    x = normalised(x, weights, "norm")
    return np.dot(np.reshape(x, (-1, x.shape[-1])), weights["head.weight"].T)


def normalised(x: Array, weights: Weights, name: str) -> Array:
    """Layer norm over the last axis."""
    features = x.shape[-1]
    centred = x - np.sum(x, axis=-1, keepdims=True) / features
    variance = np.sum(centred * centred, axis=-1, keepdims=True) / features
    return centred / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def attention(x: Array, weights: Weights, name: str, num_heads: int) -> Array:
    """Causal self-attention by several heads."""
    b, t, e = x.shape
    projected = np.dot(x, weights[f"{name}.in_proj_weight"].T) + weights[f"{name}.in_proj_bias"]
    parts = np.reshape(projected, (b, t, 3, num_heads, e // num_heads))
    q, k, v = (np.transpose(parts[:, :, i], (0, 2, 1, 3)) for i in range(3))  # (B, H, T, D)
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) / math.sqrt(e // num_heads)
    scores = scores + np.triu(np.full((t, t), -np.inf, np.float32), 1)
    raised = np.exp(scores - getval(scores).max(axis=-1, keepdims=True))
    found = np.matmul(raised / np.sum(raised, axis=-1, keepdims=True), v)
    return linear(np.reshape(np.transpose(found, (0, 2, 1, 3)), (b, t, e)), weights, f"{name}.out_proj")
