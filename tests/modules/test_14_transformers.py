"""Module 14, transformers: what the exported file must do."""

from __future__ import annotations

import math
import time
import weakref

import numpy as np
import pytest

from tinytorch import nn
from tinytorch.core.activations import GELU, relu
from tinytorch.core.attention import causal_mask, padding_mask
from tinytorch.core.autograd import gradcheck, no_grad
from tinytorch.core.layers import Linear, Module, Parameter, Sequential
from tinytorch.core.losses import cross_entropy
from tinytorch.core.tensor import Tensor, manual_seed, randn
from tinytorch.core.transformers import (
    LayerNorm,
    PositionwiseFeedForward,
    Transformer,
    TransformerBlock,
    count_by_part,
    from_gpt2,
    gpt2_initial,
    layer_norm,
    next_ids,
    transformer_size,
)


def drawn(*shapes, dtype=np.float64):
    numbers = np.random.default_rng(14)
    return [numbers.normal(1, 2, size=shape).astype(dtype) for shape in shapes]


def tiny(**changes):
    manual_seed(0)
    sizes = {"vocab_size": 13, "embed_dim": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 12, "max_seq_length": 6}
    return Transformer(**{**sizes, **changes})


def lively(model):
    """The model with weights large enough that its texts and logits depend on what it reads."""
    numbers = np.random.default_rng(5)
    for name, parameter in model.named_parameters():
        parameter.data[...] = numbers.normal(0, 0.8, size=parameter.shape) if name != "norm.bias" else 0
    return model


def in_double(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    return model


def differences(parameter, loss, places, step=1e-6):
    """The central differences of ``loss()`` by the numbers of a parameter at these places."""
    slopes = []
    for place in places:
        middle, ends = parameter.data[place], []
        for one in (step, -step):
            parameter.data[place] = middle + one
            ends.append(loss())
        parameter.data[place] = middle
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return slopes


# LayerNorm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "last"), [((3, 5), 5), ((2, 3, 4), (4,)), ((2, 3, 4), (3, 4)), ((6,), 6)])
def test_layer_norm_standardises_the_last_axes(dtype, shape, last):
    (x,) = drawn(shape, dtype=dtype)
    out = LayerNorm(last)(Tensor(x, dtype))
    axes = tuple(range(-len(np.atleast_1d(last)), 0))
    assert out.dtype == dtype and out.shape == shape
    np.testing.assert_allclose(out.data.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(out.data.var(axes), 1, rtol=1e-3)


@pytest.mark.parametrize(("shape", "last"), [((3, 4), (4,)), ((2, 2, 3), (2, 3)), ((5,), (5,))])
def test_layer_norms_gradients_are_those_of_finite_differences(shape, last):
    assert gradcheck(lambda *a: layer_norm(a[0], last, *a[1:]), drawn(shape, last, last), atol=1e-8, rtol=1e-6)


def test_a_row_of_equal_numbers_gives_the_bias_and_a_finite_gradient():
    x = Tensor(np.full((2, 4), 3.0), requires_grad=True)
    with np.errstate(all="raise"):
        out = layer_norm(x, 4, bias=np.arange(4.0))
        out.sum().backward()
    np.testing.assert_array_equal(out.data, [[0, 1, 2, 3]] * 2)
    assert np.isfinite(x.grad.data).all()


def test_numbers_far_from_zero_lose_little():
    (x,) = drawn((4, 128))
    out = layer_norm(Tensor(1000 + x), 128).data
    np.testing.assert_allclose(out, (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True), atol=1e-3)


def test_layer_norm_keeps_only_its_input_and_writes_into_nothing():
    x = randn(8, 64, requires_grad=True)
    before = x.data.copy()
    out = layer_norm(x, 64)
    assert [array.shape for array in out._node.arrays] == [(8, 64), (64,), (64,)]
    assert out._node.arrays[0] is x.data
    gradient = np.ones((8, 64), np.float32)
    out.backward(gradient)
    np.testing.assert_array_equal(x.data, before)
    np.testing.assert_array_equal(gradient, 1)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: LayerNorm(4)(randn(2, 5)), ValueError, r"\(2, 5\).*\(4,\)"),
        (lambda: LayerNorm((2, 3))(randn(3)), ValueError, r"\(3,\).*\(2, 3\)"),
        (lambda: layer_norm(randn(2, 4), 4, np.ones(3)), ValueError, r"weight.*\(3,\).*\(4,\)"),
        (lambda: layer_norm(randn(2, 4), 4, None, np.ones((1, 4))), ValueError, r"bias.*\(1, 4\)"),
        (lambda: LayerNorm(2.5), TypeError, "2.5"),
        (lambda: LayerNorm(0), ValueError, "0"),
        (lambda: LayerNorm(()), ValueError, "at least one axis"),
    ],
)
def test_what_layer_norm_refuses(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_layer_norms_options():
    assert [name for name, _ in LayerNorm(4).named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in LayerNorm(4, bias=False).named_parameters()] == ["weight"]
    assert not list(LayerNorm(4, elementwise_affine=False).parameters())
    assert repr(LayerNorm(4)) == "LayerNorm((4,), eps=1e-05, elementwise_affine=True)"
    assert nn.LayerNorm is LayerNorm and nn.functional.layer_norm is layer_norm


# blocks


def test_the_feed_forward_network_is_two_layers_with_gelu():
    layer = PositionwiseFeedForward(6, 10)
    (x,) = drawn((2, 3, 6), dtype=np.float32)
    want = Sequential(layer.linear1, GELU("tanh"), layer.linear2)(Tensor(x))
    np.testing.assert_allclose(layer(Tensor(x)).data, want.data, rtol=1e-5, atol=1e-6)
    layer = PositionwiseFeedForward(6, 10, activation=relu)
    want = Sequential(layer.linear1, relu, layer.linear2)(Tensor(x))
    np.testing.assert_allclose(layer(Tensor(x)).data, want.data, rtol=1e-5, atol=1e-6)


def test_a_block_adds_to_the_stream():
    block = TransformerBlock(8, 2, 12)
    (x,) = drawn((2, 5, 8), dtype=np.float32)
    mask = causal_mask(5)
    first = Tensor(x) + block.attention(block.norm1(Tensor(x)), mask=mask)
    want = first + block.feed_forward(block.norm2(first))
    np.testing.assert_allclose(block(Tensor(x), mask).data, want.data, rtol=1e-5, atol=1e-5)
    for layer in (block.attention.out_proj, block.feed_forward.linear2):
        for parameter in layer.parameters():
            parameter.data *= 0
    np.testing.assert_array_equal(block(Tensor(x), mask).data, x)


def test_dropout_drops_both_branches_in_training_only():
    block = lively(TransformerBlock(8, 2, 12, dropout=1.0))
    (x,) = drawn((2, 5, 8), dtype=np.float32)
    np.testing.assert_array_equal(block(Tensor(x)).data, x)
    assert np.abs(block.eval()(Tensor(x)).data - x).max() > 0.1


def test_a_blocks_gradients_are_those_of_finite_differences():
    block = in_double(lively(TransformerBlock(4, 2, 6)))
    x, top = (np.random.default_rng(n).normal(size=(2, 3, 4)) for n in (1, 2))
    leaf = Tensor(x, np.float64, requires_grad=True)
    block(leaf, causal_mask(3)).backward(top)

    @no_grad()
    def loss():
        return float((block(leaf, causal_mask(3)).data * top).sum())

    for name, tensor in (("x", leaf), *block.named_parameters()):
        places = list(np.ndindex(tensor.shape))[::5]
        got = [tensor.grad.data[place] for place in places]
        np.testing.assert_allclose(got, differences(tensor, loss, places), rtol=1e-5, atol=1e-6, err_msg=name)


# the model


def test_usage_as_the_course_promises_it():
    transformer = Transformer(
        vocab_size=10000, embed_dim=512, num_heads=8, num_layers=6, hidden_dim=2048, max_seq_length=512
    )
    input_ids = np.array([[1, 2, 9999]])
    logits = transformer(input_ids)
    assert logits.shape == (1, 3, 10000) and logits.dtype == np.float32
    generated = transformer.generate(input_ids, max_new_tokens=2)
    assert generated.shape == (1, 5) and generated.dtype == np.int64
    assert sum(count_by_part(transformer).values()) == 29_417_472
    assert abs(cross_entropy(logits[:, :-1], input_ids[:, 1:]).item() - math.log(10000)) < 1


@pytest.mark.parametrize("tied", [False, True])
def test_sizes_on_paper_are_those_of_the_model(tied):
    model = tiny(tie_weights=tied)
    assert count_by_part(model) == transformer_size(13, 8, 2, 12, 6, tied)
    assert sum(count_by_part(model).values()) == sum(p.size for p in model.parameters())
    assert sum(transformer_size(50_257, 768, 12, 3072, 1024, True).values()) == 124_439_808


def test_ids_of_every_kind_with_and_without_a_batch():
    model, ids = lively(tiny()), np.array([[1, 2, 3, 4], [12, 0, 5, 5]])
    want = model(ids).data
    assert want.shape == (2, 4, 13)
    for given in (ids.tolist(), Tensor(ids), ids.astype(np.int32), ids.astype(np.uint8)):
        np.testing.assert_array_equal(model(given).data, want)
    np.testing.assert_allclose(model(ids[0]).data, want[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model([12, 0, 5, 5]).data, want[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "kind", "words"),
    [
        ([1, 13], IndexError, r"13 .*0 to 12"),
        ([-1], IndexError, "-1"),
        ([0.5], TypeError, "whole numbers"),
        ([], ValueError, r"\(0,\)"),
        (3, ValueError, r"\(\)"),
        (np.zeros((1, 1, 1), int), ValueError, r"\(1, 1, 1\)"),
        ([0] * 7, ValueError, r"7 tokens .*max_seq_length 6"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids, kind, words):
    with pytest.raises(kind, match=words):
        tiny()(ids)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size"),
        ({"num_layers": 1.5}, TypeError, "num_layers"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"num_heads": 3}, ValueError, r"embed_dim 8 .*num_heads 3"),
        ({"max_seq_length": -1}, ValueError, "max_seq_length"),
        ({"dropout": 1.5}, ValueError, r"1\.5"),
    ],
)
def test_models_that_cannot_be_are_refused(changes, kind, words):
    with pytest.raises(kind, match=words):
        tiny(**changes)


def test_later_tokens_change_no_earlier_logits():
    model, ids = lively(tiny()), np.array([[1, 2, 3, 4, 5, 6]])
    changed = ids.copy()
    changed[0, 3:] = [9, 8, 7]
    before, after = model(ids).data, model(changed).data
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert (np.abs(after[:, 3:] - before[:, 3:]).max(axis=-1) > 1e-3).all()
    moved = model([[4, 2, 3, 1, 5, 6]]).data
    assert np.abs(moved[:, 5] - before[:, 5]).max() > 1e-3, "positions matter"


def test_padding_changes_nothing_for_the_others():
    model = lively(tiny())
    padded = model([[5, 6, 0, 7]], padding_mask([[5, 6, 0, 7]], pad_id=0)).data
    other = model([[5, 6, 0, 7]]).data
    np.testing.assert_allclose(padded[:, :2], other[:, :2], rtol=1e-4, atol=1e-5)
    assert np.abs(padded[:, 3] - other[:, 3]).max() > 1e-3


def test_the_start_is_gpt2s():
    model = Transformer(200, 64, 4, 8, 256, 32)
    for name, array in model.state_dict().items():
        if "norm" in name or name.endswith("bias"):
            assert np.unique(array).tolist() == [1.0 if name.endswith("weight") else 0.0], name
        else:
            narrow = name.endswith(("out_proj.weight", "linear2.weight"))
            assert array.std() == pytest.approx(0.02 / (4 if narrow else 1), rel=0.1), name
    ids = np.random.default_rng(0).integers(0, 200, size=(4, 33))
    assert cross_entropy(model(ids[:, :-1]), ids[:, 1:]).item() == pytest.approx(math.log(200), abs=0.05)


def test_a_start_of_ones_own_module():
    layer = Linear(50, 60)
    manual_seed(3)
    gpt2_initial(layer, 4)
    first = layer.weight.data.copy()
    manual_seed(3)
    gpt2_initial(layer, 4)
    np.testing.assert_array_equal(layer.weight.data, first)
    assert not layer.bias.data.any() and first.dtype == np.float32


def test_tied_weights_stay_one_parameter_through_training_and_loading():
    model = tiny(tie_weights=True)
    assert model.head.weight is model.token_embedding.weight
    assert "head.weight" not in dict(model.named_parameters())
    state = model.state_dict()
    np.testing.assert_array_equal(state["head.weight"], state["token_embedding.weight"])
    other = tiny(tie_weights=True, dropout=0.1)
    other.load_state_dict({name: 2 * array for name, array in state.items()})
    assert other.head.weight is other.token_embedding.weight
    np.testing.assert_array_equal(other.head.weight.data, 2 * state["head.weight"])


@pytest.mark.parametrize("tied", [False, True])
def test_the_models_gradients_are_those_of_finite_differences(tied):
    model = in_double(lively(tiny(tie_weights=tied, num_layers=1)))
    ids = np.array([[1, 2, 3, 1], [4, 4, 5, 0]])
    cross_entropy(model(ids[:, :-1]), ids[:, 1:]).backward()

    @no_grad()
    def loss():
        return cross_entropy(model(ids[:, :-1]), ids[:, 1:]).item()

    for name, parameter in model.named_parameters():
        places = list(np.ndindex(parameter.shape))[::11]
        got = [parameter.grad.data[place] for place in places]
        np.testing.assert_allclose(got, differences(parameter, loss, places), rtol=1e-4, atol=1e-7, err_msg=name)


def test_it_learns_a_text_by_heart():
    manual_seed(1)
    model = Transformer(10, 32, 2, 2, 64, 16)
    text = np.random.default_rng(1).integers(0, 10, size=17)
    means = {}
    for _ in range(120):
        loss = cross_entropy(model(text[:-1]), text[1:])
        model.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            means[name] = 0.9 * means.get(name, 0.0) + 0.1 * parameter.grad.data
            parameter.data -= np.float32(0.003) * np.sign(means[name])
    assert loss.item() < 0.1
    np.testing.assert_array_equal(model.generate(text[:1], 16).data, text)


def seconds_of_backward(layers):
    manual_seed(0)
    model = Transformer(20, 32, 2, layers, 64, 32)
    ids = np.random.default_rng(0).integers(0, 20, size=(4, 33))
    times = []
    for _ in range(4):
        loss = cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        begin = time.process_time()
        loss.backward()
        times.append(time.process_time() - begin)
    return min(times)


def test_backward_is_linear_in_the_number_of_layers():
    few, many = seconds_of_backward(4), seconds_of_backward(32)
    assert many < 24 * few, f"8 times as many layers took {many / few:.0f} times as long"


def test_backward_lets_go_of_what_was_kept():
    model = tiny()
    loss = cross_entropy(model([[1, 2, 3]]), [[2, 3, 4]])
    note = loss._node
    while isinstance(note.parents[0], type(note)):
        note = note.parents[0]
    kept = weakref.ref(note.out)
    del note
    assert kept() is not None
    loss.backward()
    assert kept() is None


# writing


def test_greedy_text_is_that_of_the_largest_logits_and_the_window_slides():
    model, ids = lively(tiny()), np.array([[1, 2, 3], [7, 7, 0]])
    want = ids
    for _ in range(8):
        following = model(want[:, -6:]).data[:, -1].argmax(axis=-1)
        want = np.concatenate([want, following[:, None]], axis=1)
    assert len(np.unique(want[:, 3:])) > 2
    for given in (ids, ids.tolist(), Tensor(ids)):
        got = model.generate(given, max_new_tokens=8)
        assert isinstance(got, Tensor) and got.dtype == np.int64
        np.testing.assert_array_equal(got.data, want)
    np.testing.assert_array_equal(model.generate(ids[0], 8).data, want[0])
    long = np.tile(ids, (1, 5))
    assert model.generate(long, 2).shape == (2, 17)


def test_generating_leaves_the_model_as_it_was():
    model = lively(tiny(dropout=0.5))
    model.blocks[0].eval()
    one, two = (model.generate([1, 2], 6).tolist() for _ in range(2))
    assert one == two, "nothing is dropped while it writes"
    assert model.training and not model.blocks[0].training and model.blocks[1].training
    assert not model.generate([1, 2], 2).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drawn_tokens_have_the_models_probabilities(temperature):
    manual_seed(4)
    logits = np.array([0.0, 1.0, -1.0, 0.5])
    shares = np.bincount(next_ids(np.tile(logits, (40_000, 1)), temperature), minlength=4) / 40_000
    want = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(shares, want, atol=0.015)


def test_a_seed_repeats_a_drawn_text():
    model, texts = lively(tiny()), []
    for seed in (1, 1, 2):
        manual_seed(seed)
        texts.append(model.generate([1], 12, temperature=3.0).tolist())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (([], 3), ValueError, r"\(0,\)"),
        (([13], 3), IndexError, "13"),
        (([1], -1), ValueError, "max_new_tokens .*-1"),
        (([1], 2.5), TypeError, "float"),
        (([1], 3, -0.1), ValueError, "temperature .*-0.1"),
        (([1], 3, float("nan")), ValueError, "nan"),
    ],
)
def test_what_generate_refuses(arguments, kind, words):
    with pytest.raises(kind, match=words):
        tiny().generate(*arguments)


def test_names_of_gpt2_become_ours():
    model = tiny()
    names = {name: array.shape for name, array in model.state_dict().items()}
    pairs = {
        "wte.weight": (13, 8), "wpe.weight": (6, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)
    }  # fmt: skip
    for n in range(2):
        for part, shape in [
            ("ln_1", (8,)), ("ln_2", (8,)), ("attn.c_attn", (8, 24)), ("attn.c_proj", (8, 8)),
            ("mlp.c_fc", (8, 12)), ("mlp.c_proj", (12, 8)),
        ]:  # fmt: skip
            pairs[f"h.{n}.{part}.weight"], pairs[f"h.{n}.{part}.bias"] = shape, shape[-1:]
        pairs[f"h.{n}.attn.bias"] = (1, 1, 6, 6)
    theirs = {f"transformer.{name}": np.ones(shape) for name, shape in pairs.items()}
    assert {name: array.shape for name, array in from_gpt2(theirs).items()} == names
    model.load_state_dict(from_gpt2(theirs))
    assert isinstance(model, Module) and all(isinstance(p, Parameter) for p in model.parameters())
