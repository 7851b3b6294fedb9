"""Module 03 against PyTorch: values, and the gradients that module 06 adds; functions and objects."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import tinytorch
from tinytorch.core.tensor import Tensor

ours, theirs = tinytorch.nn.functional, torch.nn.functional

TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-6}, np.float64: {"rtol": 1e-12, "atol": 1e-13}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float64"])
FAR = np.array([-10_000.0, -100.0, -30.0, -5.0, -1.0, -0.0, 0.0, 1e-8, 0.3, 5.0, 30.0, 100.0, 10_000.0])

PAIRS = {
    "relu": (ours.relu, theirs.relu),
    "leaky_relu": (ours.leaky_relu, theirs.leaky_relu),
    "leaky_relu 0.3": (lambda x: ours.leaky_relu(x, 0.3), lambda x: theirs.leaky_relu(x, 0.3)),
    "leaky_relu 2": (lambda x: ours.leaky_relu(x, 2), lambda x: theirs.leaky_relu(x, 2)),
    "leaky_relu -0.5": (lambda x: ours.leaky_relu(x, -0.5), lambda x: theirs.leaky_relu(x, -0.5)),
    "sigmoid": (ours.sigmoid, torch.sigmoid),
    "tanh": (ours.tanh, torch.tanh),
    "gelu": (ours.gelu, theirs.gelu),
    "gelu tanh": (lambda x: ours.gelu(x, approximate="tanh"), lambda x: theirs.gelu(x, approximate="tanh")),
    "softmax": (ours.softmax, lambda x: theirs.softmax(x, dim=-1)),
    "softmax 0": (lambda x: ours.softmax(x, axis=0), lambda x: theirs.softmax(x, dim=0)),
}
EVERY = pytest.mark.parametrize("name", list(PAIRS))


def agree(name, array, dtype):
    """The value and, for a random upstream gradient, the gradient of both libraries' function."""
    mine, other = PAIRS[name]
    x, u = Tensor(array, dtype, requires_grad=True), torch.tensor(array.astype(dtype), requires_grad=True)
    value, want = mine(x), other(u)
    np.testing.assert_allclose(value.data, want.detach().numpy(), **TOLERANCE[dtype])
    assert (value.shape, value.dtype) == (tuple(want.shape), dtype)
    upstream = np.random.default_rng(array.size).normal(size=array.shape).astype(dtype)
    value.backward(upstream)
    want.backward(torch.tensor(upstream))
    assert (x.grad.shape, x.grad.dtype) == (array.shape, dtype)
    np.testing.assert_allclose(x.grad.data, u.grad.numpy(), **TOLERANCE[dtype], err_msg="gradient")


@EVERY
@DTYPES
@pytest.mark.parametrize("shape", [(7,), (4, 5), (2, 3, 4), (0, 3), (1,)], ids=str)
def test_values_and_gradients(name, dtype, shape):
    agree(name, np.random.default_rng(1).normal(0, 3, size=shape), dtype)


@EVERY
@DTYPES
def test_far_out_and_at_0(name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(name, FAR, dtype)


@EVERY
def test_on_a_fine_grid(name):
    agree(name, np.linspace(-15, 15, 3001), np.float64)


@DTYPES
def test_a_mask_of_infinities_in_softmax(dtype):
    agree("softmax", np.array([[0.5, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]]), dtype)


@pytest.mark.parametrize(
    "made",
    [
        lambda nn: nn.ReLU(),
        lambda nn: nn.LeakyReLU(),
        lambda nn: nn.LeakyReLU(0.2),
        lambda nn: nn.Sigmoid(),
        lambda nn: nn.Tanh(),
        lambda nn: nn.GELU(),
        lambda nn: nn.GELU("tanh"),
        lambda nn: nn.Softmax(1),
    ],
)
def test_objects_and_how_they_show_themselves(made):
    x = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    mine, other = made(tinytorch.nn), made(torch.nn)
    np.testing.assert_allclose(mine(Tensor(x)).data, other(torch.from_numpy(x)).numpy(), **TOLERANCE[np.float32])
    assert repr(mine).replace("axis=", "dim=") == repr(other)


def test_a_sequential_takes_them_and_shows_them_as_pytorch_does():
    def network(nn):
        return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.LeakyReLU(0.1), nn.Linear(8, 2), nn.ReLU())

    mine, other = network(tinytorch.nn), network(torch.nn)
    mine.load_state_dict({name: array.numpy() for name, array in other.state_dict().items()})
    assert repr(mine) == repr(other)
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    got, want = mine(Tensor(x)), other(torch.from_numpy(x))
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=1e-4, atol=1e-6)
    got.sum().backward()
    want.sum().backward()
    for ours_, theirs_ in zip(mine.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(ours_.grad.data, theirs_.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("nn", "tensor"), [(tinytorch.nn, Tensor), (torch.nn, torch.tensor)])
def test_the_same_calls_are_refused(nn, tensor):
    with pytest.raises(IndexError):
        nn.functional.softmax(tensor([[1.0]]), 2)
    with pytest.raises((ValueError, RuntimeError)):
        nn.functional.gelu(tensor([1.0]), approximate="erf")
