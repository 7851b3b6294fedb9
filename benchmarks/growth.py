"""How time and memory grow with depth and length: the lines of the figure, and the points that they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from workloads import chain_autograd, chain_tinytorch, chain_torch, model_tinytorch, model_torch, text

Work = Callable[[], Any]
Prepared = Callable[[], Work]

WRITTEN = 8  # tokens after each context


class Line(NamedTuple):
    """A line of a figure: ``make(x)`` gives a function that prepares, and returns the work that is measured."""

    framework: str
    make: Callable[[int], Prepared]


class Growth(NamedTuple):
    """A figure: what is measured (``"s"``, ``"bytes"`` or ``"tokens/s"``) at which ``xs``, a line for each label."""

    title: str
    x_label: str
    unit: str
    xs: tuple[int, ...]
    lines: dict[str, Line]


SCALES = {"s": (1e3, "ms"), "bytes": (1e-6, "MB"), "tokens/s": (1.0, "tokens a second")}  # as people read them


def layers_tinytorch(layers: int) -> Prepared:
    """Backward through a GPT as in W3, of so many layers."""
    from tinytorch import Tensor, nn

    model = model_tinytorch(layers=layers)
    ids, following = map(Tensor, text())

    def forward() -> Work:
        model.zero_grad()
        return nn.functional.cross_entropy(model(ids), following).backward  # type: ignore[no-any-return]

    return forward


def layers_torch(layers: int) -> Prepared:
    """Backward through a GPT as in W3, of so many layers."""
    import torch

    model = model_torch(layers=layers)
    ids, following = map(torch.from_numpy, text())

    def forward() -> Work:
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), following.flatten())
        return loss.backward  # type: ignore[no-any-return]

    return forward


def heads(length: int) -> tuple[Any, ...]:
    """Queries, keys and values of 4 heads for so many tokens, and a gradient for each of them."""
    draw = np.random.default_rng(5)
    return tuple(draw.normal(size=(1, 4, length, 32)).astype(np.float32) for _ in range(4))


def attention_tinytorch(length: int) -> Prepared:
    """Causal attention over so many tokens, and back."""
    from tinytorch import Tensor, nn
    from tinytorch.nn.functional import causal_mask

    q, k, v = (Tensor(array, requires_grad=True) for array in heads(length)[:3])
    mask, gradient = causal_mask(length), heads(length)[3]
    return lambda: lambda: nn.functional.scaled_dot_product_attention(q, k, v, mask).backward(gradient)


def attention_chunked(length: int) -> Prepared:
    """The same, in chunks and forward only."""
    from tinytorch.nn.functional import chunked_attention

    q, k, v, _ = heads(length)
    return lambda: lambda: chunked_attention(q, k, v, causal=True)


def attention_torch(length: int) -> Prepared:
    """Causal attention over so many tokens, and back."""
    import torch

    q, k, v, gradient = map(torch.from_numpy, heads(length))
    for x in (q, k, v):
        x.requires_grad_()
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: lambda: attend(q, k, v, is_causal=True).backward(gradient)


def context(length: int) -> list[int]:
    """So many characters (of 65)."""
    return np.random.default_rng(7).integers(0, 65, length).tolist()  # type: ignore[no-any-return]


def writing_tinytorch(length: int, use_cache: bool) -> Prepared:
    """``WRITTEN`` tokens from the GPT of W3, after so many that it has read, and one that it has written."""
    from tinytorch.core.generation import Sampling, stream

    model = model_tinytorch(WINDOW)
    greedy = Sampling(temperature=0)

    def read() -> Work:
        tokens = stream(model, context(length), WRITTEN + 1, sampling=greedy, use_cache=use_cache)
        next(tokens)
        return lambda: list(tokens)

    return read


def writing_torch(length: int, use_cache: bool) -> Prepared:
    """``WRITTEN`` tokens from the GPT of W3, after so many that it has read, and one that it has written."""
    import torch
    from torch_gpt import generate

    model = model_torch(WINDOW).eval()
    start = length if use_cache else 0

    def read() -> Work:
        caches = model.new_caches() if use_cache else None
        ids = generate(model, torch.tensor([context(length)]), 1, caches)[None]
        return lambda: generate(model, ids, WRITTEN, caches, start)[-WRITTEN:].tolist()

    return read


def ready(step: Work) -> Prepared:
    """A step that needs no preparation."""
    return lambda: step


CONTEXTS = (32, 64, 128, 256, 512, 1024)
WINDOW = max(CONTEXTS) + WRITTEN + 1

GROWTH = {
    "layers": Growth(
        "Backward through a GPT",
        "layers",
        "s",
        (1, 2, 4, 8, 16),
        {"tinytorch": Line("tinytorch", layers_tinytorch), "PyTorch": Line("torch", layers_torch)},
    ),
    "chain": Growth(
        "A chain of operations on 4x4, and back",
        "operations",
        "s",
        (200, 1000, 5000, 20_000),
        {
            "tinytorch": Line("tinytorch", lambda n: ready(chain_tinytorch(n))),
            "PyTorch": Line("torch", lambda n: ready(chain_torch(n))),
            "HIPS autograd": Line("autograd", lambda n: ready(chain_autograd(n))),
        },
    ),
    "attention": Growth(
        "Memory of attention, 4 heads of 32",
        "tokens",
        "bytes",
        (128, 256, 512, 1024, 2048),
        {
            "tinytorch": Line("tinytorch", attention_tinytorch),
            "tinytorch in chunks (forward alone)": Line("tinytorch", attention_chunked),
            "PyTorch": Line("torch", attention_torch),
        },
    ),
    "tokens": Growth(
        "Writing, as the text grows",
        "tokens read before",
        "tokens/s",
        CONTEXTS,
        {
            "tinytorch": Line("tinytorch", lambda n: writing_tinytorch(n, use_cache=True)),
            "tinytorch without a cache": Line("tinytorch", lambda n: writing_tinytorch(n, use_cache=False)),
            "PyTorch": Line("torch", lambda n: writing_torch(n, use_cache=True)),
            "PyTorch without a cache": Line("torch", lambda n: writing_torch(n, use_cache=False)),
        },
    ),
}
