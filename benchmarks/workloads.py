"""The workloads: what is timed, in each framework, one below the other.

Each function makes everything that one step needs, and returns the step: a function without arguments that returns a
tensor, or an array. Weights and data are drawn by NumPy from fixed seeds, so that all compute the same. What is written
alike in tinytorch and PyTorch stands here once. A framework is imported where it is used, since each works in a process
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Step = Callable[[], Any]

FRAMEWORKS = ("tinytorch", "torch", "autograd")


class Workload(NamedTuple):
    """Something to time: what it is, and for each framework a function that makes its step.

    ``goal`` is the ratio of our time to PyTorch's that we aim at. Not everything can be done in HIPS autograd.
    """

    title: str
    goal: float
    tinytorch: Callable[[], Step]
    torch: Callable[[], Step]
    autograd: Callable[[], Step] | None = None

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Those that it is written in, by the names of their packages."""
        return tuple(name for name in FRAMEWORKS if getattr(self, name))


def weights(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers for every parameter of a model, drawn name by name, so that both frameworks' models get the same."""
    draw = np.random.default_rng(0)
    drawn = {}
    for name, shape in sorted(shapes.items()):
        spread = 1 / np.sqrt(shape[-1])
        middle = 1 if "norm" in name and name.endswith("weight") else 0
        drawn[name] = draw.uniform(middle - spread, middle + spread, tuple(shape)).astype(np.float32)
    return drawn


def load_tinytorch(model: Any) -> Any:
    """The model with the drawn weights."""
    model.load_state_dict(weights({name: p.shape for name, p in model.named_parameters()}))
    return model


def load_torch(model: Any) -> Any:
    """The model with the drawn weights."""
    import torch

    drawn = weights({name: p.shape for name, p in model.named_parameters()})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in drawn.items()})
    return model


def training_step(optimizer: Any, forward: Callable[[], Any]) -> Step:
    """A step of training on the loss that ``forward`` computes, in tinytorch as in PyTorch; it returns the loss."""

    def step() -> Any:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss

    return step


# W1: a small network on flat pictures


def digits() -> tuple[Any, Any]:
    """64 pictures of 28 x 28, flat, and their classes."""
    draw = np.random.default_rng(1)
    return draw.random((64, 784), np.float32), draw.integers(0, 10, 64)


def mlp_tinytorch() -> Step:
    from tinytorch import Tensor, nn, optim

    model = load_tinytorch(
        nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = map(Tensor, digits())
    return training_step(optimizer, lambda: nn.functional.cross_entropy(model(pictures), classes))


def mlp_torch() -> Step:
    import torch
    from torch import nn

    model = load_torch(nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = map(torch.from_numpy, digits())
    return training_step(optimizer, lambda: nn.functional.cross_entropy(model(pictures), classes))


def mlp_autograd() -> Step:
    from autograd_nets import MLP_SHAPES, adam_step, cross_entropy, mlp

    pictures, classes = digits()
    return adam_step(weights(MLP_SHAPES), lambda w: cross_entropy(mlp(w, pictures), classes))


# W2: a small convolutional network; HIPS autograd convolves with SciPy alone, and slowly


def photographs() -> tuple[Any, Any]:
    """32 pictures of 3 x 32 x 32, and their classes."""
    draw = np.random.default_rng(2)
    return draw.random((32, 3, 32, 32), np.float32), draw.integers(0, 10, 32)


def cnn_tinytorch() -> Step:
    from tinytorch import Tensor, nn, optim

    model = load_tinytorch(
        nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(2048, 10)),
        )
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = map(Tensor, photographs())
    return training_step(optimizer, lambda: nn.functional.cross_entropy(model(pictures), classes))


def cnn_torch() -> Step:
    import torch
    from torch import nn

    model = load_torch(
        nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(2048, 10)),
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = map(torch.from_numpy, photographs())
    return training_step(optimizer, lambda: nn.functional.cross_entropy(model(pictures), classes))


# W3: a GPT as in nanoGPT's settings for a CPU


def text() -> tuple[Any, Any]:
    """16 pieces of 64 characters (of 65), and what follows each character."""
    ids = np.random.default_rng(3).integers(0, 65, (16, 65))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def model_tinytorch(context: int = 64, layers: int = 4) -> Any:
    """The GPT of W3, or one of another context or depth, with the drawn weights."""
    from tinytorch import nn

    model = nn.Transformer(65, 128, num_heads=4, num_layers=layers, hidden_dim=512, max_seq_length=context)
    return load_tinytorch(model)


def model_torch(context: int = 64, layers: int = 4) -> Any:
    """The GPT of W3, or one of another context or depth, with the drawn weights."""
    from torch_gpt import GPT

    return load_torch(GPT(65, 128, num_heads=4, num_layers=layers, hidden_dim=512, max_seq_length=context))


def gpt_tinytorch() -> Step:
    from tinytorch import Tensor, nn, optim

    model = model_tinytorch()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    ids, following = map(Tensor, text())
    return training_step(optimizer, lambda: nn.functional.cross_entropy(model(ids), following))


def gpt_torch() -> Step:
    import torch

    model = model_torch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ids, following = map(torch.from_numpy, text())

    cross_entropy = torch.nn.functional.cross_entropy
    return training_step(optimizer, lambda: cross_entropy(model(ids).flatten(0, 1), following.flatten()))


def gpt_autograd() -> Step:
    from autograd_nets import adam_step, cross_entropy, gpt, gpt_shapes

    ids, following = text()
    shapes = gpt_shapes(65, 128, num_layers=4, hidden_dim=512, max_seq_length=64)
    return adam_step(weights(shapes), lambda w: cross_entropy(gpt(w, ids, num_heads=4), following.reshape(-1)))


# W4: a large embedding, looked up, and with its gradient


def tokens() -> tuple[Any, Any]:
    """32 sequences of 256 ids below 50,000, and a gradient for each number of their vectors."""
    draw = np.random.default_rng(4)
    return draw.integers(0, 50_000, (32, 256)), draw.random((32, 256, 512), np.float32)


def lookup_tinytorch() -> Step:
    from tinytorch import Tensor, nn

    table = load_tinytorch(nn.Embedding(50_000, 512))
    ids = Tensor(tokens()[0])
    return lambda: table(ids)


def lookup_torch() -> Step:
    import torch

    table = load_torch(torch.nn.Embedding(50_000, 512))
    ids = torch.from_numpy(tokens()[0])
    return lambda: table(ids)


def lookup_autograd() -> Step:
    from autograd import make_vjp

    table, ids = weights({"weight": (50_000, 512)})["weight"], tokens()[0]
    looked_up = make_vjp(lambda table: table[ids])  # gives how to go back, and the vectors
    return lambda: looked_up(table)[1]


def lookup_gradient(table: Any, ids: Any, gradient: Any) -> Step:
    """Look up, and go back, in tinytorch as in PyTorch."""

    def step() -> Any:
        table.zero_grad()
        table(ids).backward(gradient)
        return table.weight.grad

    return step


def lookup_gradient_tinytorch() -> Step:
    from tinytorch import Tensor, nn

    table = load_tinytorch(nn.Embedding(50_000, 512))
    ids, gradient = map(Tensor, tokens())
    return lookup_gradient(table, ids, gradient)


def lookup_gradient_torch() -> Step:
    import torch

    table = load_torch(torch.nn.Embedding(50_000, 512))
    ids, gradient = map(torch.from_numpy, tokens())
    return lookup_gradient(table, ids, gradient)


def lookup_gradient_autograd() -> Step:
    from autograd import make_vjp

    table, (ids, gradient) = weights({"weight": (50_000, 512)})["weight"], tokens()
    looked_up = make_vjp(lambda table: table[ids])
    return lambda: looked_up(table)[0](gradient)


# W5: 200 tokens from the GPT of W3 with a context of 256, greedily, without and with a cache of keys and values

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]
NEW_TOKENS = 200


def generation_tinytorch(use_cache: bool) -> Step:
    from tinytorch import Tensor
    from tinytorch.core.generation import Sampling, generate

    model = model_tinytorch(context=256)
    greedy = Sampling(temperature=0)
    return lambda: Tensor(generate(model, [PROMPT], NEW_TOKENS, sampling=greedy, use_cache=use_cache)[0])


def generation_torch(use_cache: bool) -> Step:
    import torch
    from torch_gpt import generate

    model = model_torch(context=256).eval()
    return lambda: generate(model, torch.tensor([PROMPT]), NEW_TOKENS, model.new_caches() if use_cache else None)


# W6: many small operations


def small() -> tuple[Any, Any, Any]:
    """Three tables of 4 x 4: a start, a factor and a term."""
    draw = np.random.default_rng(6)
    return tuple(draw.uniform(0.9, 1, (4, 4)).astype(np.float32) for _ in range(3))  # type: ignore[return-value]


def chain(start: Any, factor: Any, term: Any, operations: int) -> Step:
    """Through so many operations and back, in tinytorch as in PyTorch."""

    def step() -> Any:
        start.grad = factor.grad = term.grad = None
        x = start
        for _ in range(operations // 2):
            x = x * factor + term
        x.sum().backward()
        return start.grad + factor.grad + term.grad

    return step


def chain_tinytorch(operations: int = 1000) -> Step:
    from tinytorch import Tensor

    start, factor, term = (Tensor(array, requires_grad=True) for array in small())
    return chain(start, factor, term, operations)


def chain_torch(operations: int = 1000) -> Step:
    import torch

    start, factor, term = (torch.from_numpy(array).requires_grad_() for array in small())
    return chain(start, factor, term, operations)


def chain_autograd(operations: int = 1000) -> Step:
    import autograd.numpy as anp
    from autograd import grad

    def total(start: Any, factor: Any, term: Any) -> Any:
        x = start
        for _ in range(operations // 2):
            x = x * factor + term
        return anp.sum(x)

    leaves, gradients = small(), grad(total, argnum=(0, 1, 2))
    return lambda: sum(gradients(*leaves))


WORKLOADS = {
    "W1": Workload("MLP 784-128-64-10, batch 64: a step", 1.0, mlp_tinytorch, mlp_torch, mlp_autograd),
    "W2": Workload("CNN on 3x32x32, batch 32: a step", 1.4, cnn_tinytorch, cnn_torch),
    "W3": Workload("GPT 4 x 128, 64 tokens, batch 16: a step", 1.2, gpt_tinytorch, gpt_torch, gpt_autograd),
    "W4f": Workload("embedding 50,000 x 512: look up 8,192", 1.2, lookup_tinytorch, lookup_torch, lookup_autograd),
    "W4fb": Workload(
        "the same, with its gradient", 0.9, lookup_gradient_tinytorch, lookup_gradient_torch, lookup_gradient_autograd
    ),
    "W5": Workload(
        "the same GPT, 200 tokens without a cache",
        1.5,
        lambda: generation_tinytorch(use_cache=False),
        lambda: generation_torch(use_cache=False),
    ),
    "W5c": Workload(
        "the same GPT, 200 tokens with a cache",
        0.9,
        lambda: generation_tinytorch(use_cache=True),
        lambda: generation_torch(use_cache=True),
    ),
    "W6": Workload("1,000 operations on 4x4, and back", 0.7, chain_tinytorch, chain_torch, chain_autograd),
}
