"""``tinytorch.core.layers`` against PyTorch: values, gradients, names, shapes and starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinytorch  # plugs autograd in where it is built
from tinytorch._face import is_built
from tinytorch.core import layers
from tinytorch.core.tensor import Tensor, manual_seed

torch = pytest.importorskip("torch")


def mlp(nn: Any, activation: Any, dropout: float = 0.0, bias: bool = True) -> Any:
    """The same network of either library."""
    hidden = nn.Sequential(nn.Linear(6, 8, bias=bias), activation(), nn.Dropout(dropout))
    return nn.Sequential(hidden, nn.Linear(8, 3, bias=bias))


class Tanh(layers.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


def pair(**options: Any) -> tuple[Any, Any]:
    """Our network and PyTorch's, with PyTorch's numbers in both."""
    theirs = mlp(torch.nn, torch.nn.Tanh, **options)
    ours = mlp(layers, Tanh, **options)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    return ours, theirs


def modules_of(network: Any) -> list[str]:
    return [f"{name}: {type(module).__name__}" for name, module in network.named_modules()]


@pytest.mark.parametrize("bias", [True, False])
def test_names_shapes_and_order(bias: bool) -> None:
    ours, theirs = pair(bias=bias)
    named = [(name, p.shape) for name, p in ours.named_parameters()]
    assert named == [(name, tuple(p.shape)) for name, p in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert modules_of(ours) == modules_of(theirs)
    assert repr(ours) == repr(theirs).replace(", inplace=False", "")


def test_our_state_loads_into_pytorch() -> None:
    ours, theirs = pair()
    fresh = mlp(torch.nn, torch.nn.Tanh)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    assert all(torch.equal(p, q) for p, q in zip(fresh.parameters(), theirs.parameters(), strict=True))


def test_shared_modules_and_buffers_are_listed_alike() -> None:
    def build(nn: Any, buffer: Any, parameter: Any) -> Any:
        net = nn.Module()
        net.first = nn.Linear(2, 2)
        net.second = net.first
        net.own = parameter
        net.register_buffer("mean", buffer)
        net.blocks = nn.ModuleList([nn.Linear(2, 2), net.first])
        return net

    ours = build(layers, np.zeros(2), layers.Parameter([1.0]))
    theirs = build(torch.nn, torch.zeros(2), torch.nn.Parameter(torch.ones(1)))
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert modules_of(ours) == modules_of(theirs)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 5, 6), (0, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_values(shape: tuple[int, ...], bias: bool) -> None:
    ours, theirs = pair(bias=bias)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    got, want = ours(Tensor(x)), theirs(torch.from_numpy(x)).detach().numpy()
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got.data, want, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not is_built("autograd"), reason="module 06 is not built")
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 5, 6)])
def test_gradients(shape: tuple[int, ...]) -> None:
    assert tinytorch.core.autograd
    ours, theirs = pair()
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    upstream = np.random.default_rng(2).normal(size=(*shape[:-1], 3)).astype(np.float32)
    here, there = Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
    ours(here).backward(Tensor(upstream))
    theirs(there).backward(torch.from_numpy(upstream))
    assert here.grad is not None
    np.testing.assert_allclose(here.grad.data, there.grad.numpy(), rtol=1e-4, atol=1e-5)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.skipif(not is_built("autograd"), reason="module 06 is not built")
def test_dropout_lets_the_gradient_through_where_it_kept_the_number() -> None:
    x = Tensor(np.ones((50, 50)), requires_grad=True)
    out = layers.Dropout(0.25)(x)
    out.sum().backward()
    assert x.grad is not None
    assert np.array_equal(x.grad.data, out.data)  # the input is 1 everywhere, so the output is the mask
    assert layers.Dropout(0.25).eval()(x) is x


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_has_the_same_distribution(p: float) -> None:
    ours = layers.Dropout(p)(Tensor(np.full(200_000, 3.0))).data
    theirs = torch.nn.Dropout(p)(torch.full((200_000,), 3.0)).numpy()
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)
    assert (ours == 0).mean() == pytest.approx((theirs == 0).mean(), abs=0.01)


@pytest.mark.parametrize(("m", "n"), [(1, 4000), (16, 4000), (400, 4000)])
def test_linear_starts_with_the_same_distribution(m: int, n: int) -> None:
    manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = layers.Linear(m, n), torch.nn.Linear(m, n)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q = q.detach().numpy()
        assert p.data.dtype == q.dtype
        levels = np.linspace(0, 1, 11)
        np.testing.assert_allclose(np.quantile(p.data, levels), np.quantile(q, levels), atol=0.15 / np.sqrt(m))


def test_loading_refuses_what_pytorch_refuses() -> None:
    good = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}
    bad: list[dict[str, Any]] = [
        {"weight": good["weight"]},
        {**good, "other": np.ones(1, np.float32)},
        {**good, "weight": np.ones((2, 3), np.float32)},
        {**good, "bias": np.ones((1, 3), np.float32)},
        {},
    ]
    for state in [good, *bad]:
        for strict in (True, False):
            outcomes: list[Any] = []
            for layer, given in (
                (layers.Linear(2, 3), state),
                (torch.nn.Linear(2, 3), {name: torch.from_numpy(array) for name, array in state.items()}),
            ):
                try:
                    keys = layer.load_state_dict(given, strict=strict)
                    outcomes.append((list(keys.missing_keys), list(keys.unexpected_keys)))
                except RuntimeError:
                    outcomes.append("RuntimeError")
            assert outcomes[0] == outcomes[1], (sorted(state), strict)
