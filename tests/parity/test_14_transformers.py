"""Module 14, transformers: values, and the gradient of every parameter, equal PyTorch's."""

import numpy as np
import pytest
import torch

from tinytorch.core.losses import cross_entropy
from tinytorch.core.tensor import Tensor
from tinytorch.core.transformers import LayerNorm, Transformer, TransformerBlock, from_gpt2, layer_norm

TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-12}}
LARGEST_ERROR = {np.float32: 1e-4, np.float64: 1e-8}
KINDS = {np.float32: torch.float32, np.float64: torch.float64}
V, E, HEADS, LAYERS, HIDDEN, CONTEXT = 65, 32, 4, 4, 128, 24


class GPT2Block(torch.nn.Module):
    """A block under GPT-2's names."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(E), torch.nn.LayerNorm(E)
        self.attn = torch.nn.ModuleDict({"c_attn": torch.nn.Linear(E, 3 * E), "c_proj": torch.nn.Linear(E, E)})
        self.mlp = torch.nn.ModuleDict({"c_fc": torch.nn.Linear(E, HIDDEN), "c_proj": torch.nn.Linear(HIDDEN, E)})

    def forward(self, x):
        parts = self.attn["c_attn"](self.ln_1(x)).split(E, dim=-1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](found.transpose(1, 2).flatten(-2))
        return x + self.mlp["c_proj"](torch.nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class GPT2(torch.nn.Module):
    """The network under GPT-2's names."""

    def __init__(self, tied):
        super().__init__()
        self.transformer = torch.nn.ModuleDict(
            {
                "wte": torch.nn.Embedding(V, E),
                "wpe": torch.nn.Embedding(CONTEXT, E),
                "h": torch.nn.ModuleList(GPT2Block() for _ in range(LAYERS)),
                "ln_f": torch.nn.LayerNorm(E),
            }
        )
        self.lm_head = torch.nn.Linear(E, V, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids):
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def models(dtype, tied):
    """The same network twice, with weights large enough that every part matters."""
    torch.manual_seed(0)
    theirs = GPT2(tied).to(KINDS[dtype])
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = Transformer(V, E, HEADS, LAYERS, HIDDEN, CONTEXT, tie_weights=tied)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.load_state_dict(from_gpt2({name: t.numpy() for name, t in theirs.state_dict().items()}, transposed=False))
    return ours, theirs


def relative_error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_every_parameters_gradient_in_four_layers(dtype, tied):
    ours, theirs = models(dtype, tied)
    ids = np.random.default_rng(1).integers(0, V, size=(3, CONTEXT + 1))
    logits, expected = ours(ids[:, :-1]), theirs(torch.from_numpy(ids[:, :-1]))
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits.data, expected.detach().numpy(), atol=LARGEST_ERROR[dtype])
    cross_entropy(logits, ids[:, 1:]).backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.from_numpy(ids[:, 1:].ravel())).backward()
    named = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    slopes = from_gpt2(named, transposed=False)
    compared = 0
    for name, parameter in ours.named_parameters():
        error = relative_error(parameter.grad.data, slopes[name])
        assert error < LARGEST_ERROR[dtype], f"{name}: {error}"
        compared += 1
    assert compared == len(named) == 12 * LAYERS + (4 if tied else 5)


def test_weights_in_the_published_layout_give_the_same_logits():
    ours, theirs = models(np.float32, tied=True)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items() if name != "lm_head.weight"}
    published = {
        name.removeprefix("transformer."): array.T if ".c_" in name and array.ndim == 2 else array
        for name, array in state.items()
    }
    published["h.0.attn.bias"] = np.tri(CONTEXT)[None, None]
    before = ours.state_dict()
    for parameter in ours.parameters():
        parameter.data[...] = 0
    ours.load_state_dict(from_gpt2(published))
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, before[name], name)
    ids = torch.arange(CONTEXT)[None]
    np.testing.assert_allclose(ours(ids.numpy()).data, theirs(ids).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("dtype", KINDS)
def test_a_block_is_pytorchs_encoder_layer_with_the_norm_first(dtype):
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, batch_first=True, norm_first=True,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ).to(KINDS[dtype])  # fmt: skip
    ours = TransformerBlock(12, 3, 20)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.load_state_dict(
        {
            name.replace("self_attn.", "attention.").replace("linear", "feed_forward.linear"): tensor.numpy()
            for name, tensor in theirs.state_dict().items()
        }
    )
    x = np.random.default_rng(2).normal(size=(2, 5, 12)).astype(dtype)
    mask = np.tri(5, dtype=bool)
    expected = theirs(torch.from_numpy(x), src_mask=~torch.from_numpy(mask))
    np.testing.assert_allclose(ours(Tensor(x, dtype), mask).data, expected.detach().numpy(), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    ("shape", "last"), [((4, 6), 6), ((2, 3, 5), (5,)), ((2, 3, 5), (3, 5)), ((7,), 7), ((2, 1), 1), ((0, 4), 4)]
)
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(dtype, shape, last, affine):
    numbers = np.random.default_rng(3)
    theirs = torch.nn.LayerNorm(last, eps=1e-3, elementwise_affine=affine).to(KINDS[dtype])
    ours = LayerNorm(last, eps=1e-3, elementwise_affine=affine)
    if affine:
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.copy_(torch.from_numpy(numbers.normal(size=tuple(parameter.shape))))
        for parameter in ours.parameters():
            parameter.data = parameter.data.astype(dtype)
        ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    x, g = numbers.normal(1, 2, size=(2, *shape)).astype(dtype)
    leaf, other = Tensor(x, dtype, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
    out, expected = ours(leaf), theirs(other)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.data, expected.detach().numpy(), **TOLERANCE[dtype])
    out.backward(g)
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(leaf.grad.data, other.grad.numpy(), **TOLERANCE[dtype])
    for mine, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad.data, right.grad.numpy(), **TOLERANCE[dtype])


def test_the_function_has_pytorchs_arguments():
    x, weight, bias = np.random.default_rng(4).normal(size=(3, 4, 4)).astype(np.float32)
    want = torch.nn.functional.layer_norm(torch.from_numpy(x), (4,), torch.from_numpy(weight[0]), eps=0.1)
    np.testing.assert_allclose(layer_norm(x, (4,), weight[0], eps=0.1).data, want.numpy(), **TOLERANCE[np.float32])
    want = torch.nn.functional.layer_norm(torch.from_numpy(x), (4,), None, torch.from_numpy(bias[0]))
    np.testing.assert_allclose(layer_norm(x, 4, bias=bias[0]).data, want.numpy(), **TOLERANCE[np.float32])
