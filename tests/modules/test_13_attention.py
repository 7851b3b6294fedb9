"""Module 13, attention: what the exported file must do."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tinytorch.core.attention import (
    MultiHeadAttention,
    SelfAttention,
    attend_in_blocks,
    attention_weights,
    causal_mask,
    chunked_attention,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)
from tinytorch.core.autograd import gradcheck, no_grad
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.setup import peak_memory
from tinytorch.core.tensor import Tensor, manual_seed, randn
from tinytorch.nn import functional


def drawn(*shapes, dtype=np.float64):
    numbers = np.random.default_rng(13)
    return [numbers.normal(size=shape).astype(dtype) for shape in shapes]


def doubles(*arrays):
    return [Tensor(array, np.float64) for array in arrays]


def by_the_book(q, k, v, mask=None, scale=None):
    """The textbook's formula in float64; zeros for rows in which nothing is allowed."""
    scores = np.matmul(q, np.swapaxes(k, -1, -2), dtype=np.float64) * (q.shape[-1] ** -0.5 if scale is None else scale)
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    top = np.max(scores, axis=-1, keepdims=True, where=allowed, initial=-1e30)
    raised = np.where(allowed, np.exp(np.minimum(scores - top, 0)), 0)
    total = raised.sum(axis=-1, keepdims=True)
    return raised / np.where(total == 0, 1, total) @ v


MASKS = {
    "none": None,
    "(T, S)": causal_mask(3, 5),
    "(B, 1, 1, S)": padding_mask([[7, 7, 7, 0, 0], [7, 7, 7, 7, 7]], pad_id=0),
    "(B, H, T, S)": np.random.default_rng(1).random((2, 2, 3, 5)) < 0.5,
    "(B, 1, T, S) with empty rows": np.random.default_rng(2).random((2, 1, 3, 5)) < 0.25,
    "nothing": np.zeros((3, 5), bool),
}


# masks


def test_masks_show_who_may_look_where():
    np.testing.assert_array_equal(causal_mask(4), np.tril(np.ones((4, 4), bool)))
    np.testing.assert_array_equal(causal_mask(2, 5), [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert causal_mask(3).dtype == padding_mask([[1]], 0).dtype == bool
    np.testing.assert_array_equal(padding_mask(Tensor([[4, 0], [0, 4]]), 0), [[[[1, 0]]], [[[0, 1]]]])
    with pytest.raises(ValueError, match=r"causal_mask: 4 .* 3 keys"):
        causal_mask(4, 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
def test_a_mask_that_is_not_boolean_is_refused_with_the_remedy(kind):
    (x,) = drawn((2, 3, 4))
    with pytest.raises(TypeError, match=rf"{np.dtype(kind)}.*mask != 0"):
        scaled_dot_product_attention(x, x, x, np.ones((3, 3), kind))


@pytest.mark.parametrize("shape", [(4, 3), (3, 2), (5, 3, 3), (1, 2, 3, 3), (2, 1)])
def test_a_mask_that_does_not_fit_names_both_shapes(shape):
    (x,) = drawn((2, 3, 4))
    with pytest.raises(ValueError, match=r"a mask .* does not fit") as error:
        scaled_dot_product_attention(x, x, x, np.ones(shape, bool))
    assert str(shape) in str(error.value) and "(2, 3, 3)" in str(error.value)


def test_a_mask_that_could_mean_sequences_or_heads_is_refused_by_the_layer():
    layer = MultiHeadAttention(4, 2)
    with pytest.raises(ValueError, match=r"\(2, 3, 3\).*\(B, 1, T, S\)"):
        layer(randn(2, 3, 4), mask=np.ones((2, 3, 3), bool))
    assert layer(randn(3, 4), mask=np.ones((2, 3, 3), bool)).shape == (3, 4)


# attention


@pytest.mark.parametrize("name", MASKS)
def test_values_and_gradients_under_every_mask(name):
    q, k, v = drawn((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3))
    mask = MASKS[name]
    out, weights = scaled_dot_product_attention(*doubles(q, k, v), mask, return_weights=True)
    np.testing.assert_allclose(out.data, by_the_book(q, k, v, mask), rtol=1e-12, atol=1e-12)
    sums = weights.data.sum(axis=-1)
    np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-12)
    assert gradcheck(lambda *x: scaled_dot_product_attention(*x, mask), [q, k, v], atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (2, 5, 4), (5, 4)), ((2, 1, 3, 4), (3, 5, 4), (2, 3, 5, 1)), ((0, 4), (5, 4), (5, 4))]
)
def test_axes_in_front_broadcast_and_gradients_keep_their_shapes(shapes):
    q, k, v = drawn(*shapes)
    out = scaled_dot_product_attention(*doubles(q, k, v))
    np.testing.assert_allclose(out.data, by_the_book(q, k, v), rtol=1e-12)
    assert gradcheck(scaled_dot_product_attention, [q, k, v], atol=1e-7, rtol=1e-6)


def test_a_row_that_may_attend_to_nothing_is_zero_and_sends_zero_back():
    q, k, v = (Tensor(x, requires_grad=True) for x in drawn((3, 4), (5, 4), (5, 4)))
    mask = np.ones((3, 5), bool)
    mask[1] = False
    with np.errstate(all="raise"):
        out = scaled_dot_product_attention(q, k, v, mask)
        out.backward(np.ones((3, 4)))
    assert not out.data[1].any() and not q.grad.data[1].any() and q.grad.data[[0, 2]].all()
    assert all(np.isfinite(x.grad.data).all() for x in (q, k, v))
    with np.errstate(all="raise"):
        scaled_dot_product_attention(q, k, v, np.zeros((3, 5), bool)).sum().backward()
    assert scaled_dot_product_attention(q, k[:0], v[:0]).data.tolist() == np.zeros((3, 4)).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_any_size_are_safe_and_the_dtype_stays(dtype):
    far = Tensor([[100.0], [-100.0]], dtype, requires_grad=True)
    with np.errstate(all="raise"):
        out = scaled_dot_product_attention(far, far, far)
        out.sum().backward()
    np.testing.assert_array_equal(out.data, far.data)
    assert out.dtype == far.grad.dtype == dtype and np.isfinite(far.grad.data).all()


def test_a_forbidden_score_does_not_push_the_others_down():
    q, k = np.array([[1.0]]), np.array([[1e4], [0.0], [0.0]])
    np.testing.assert_array_equal(attention_weights(q, k, np.array([False, True, True]), 1.0), [[0, 0.5, 0.5]])


def test_scale_and_dropout():
    q, k, v = drawn((3, 4), (5, 4), (5, 4))
    np.testing.assert_allclose(
        scaled_dot_product_attention(q, k, v, scale=0.0).data, np.broadcast_to(v.mean(axis=0), (3, 4)), rtol=1e-5
    )
    eye = Tensor(np.eye(200), np.float64, requires_grad=True)
    manual_seed(1)
    out = scaled_dot_product_attention(eye, eye, eye, dropout_p=0.3)
    assert (out.data == 0).mean() == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ValueError, match=r"1\.5"):
        scaled_dot_product_attention(q, k, v, dropout_p=1.5)

    def repeated(*x):
        manual_seed(7)
        return scaled_dot_product_attention(*x, dropout_p=0.4)

    assert gradcheck(repeated, [q, k, v], atol=1e-7, rtol=1e-6)
    with np.errstate(all="raise"):
        assert not scaled_dot_product_attention(q, k, v, dropout_p=1.0).data.any()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((3, 4), (5, 3), (5, 4)), "4 and 3 features"),
        (((3, 4), (5, 4), (6, 4)), "5 keys and 6 values"),
        (((4,), (5, 4), (5, 4)), "two axes"),
        (((2, 3, 4), (3, 5, 4), (5, 4)), "lengths 2 and 3"),
        (((3, 0), (5, 0), (5, 4)), "features"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, words):
    with pytest.raises(ValueError, match=words):
        scaled_dot_product_attention(*drawn(*shapes))


def test_only_the_weights_are_kept_for_the_way_back_and_freed_by_it():
    q, k, v = (randn(2, 3, 40, 4, requires_grad=True) for _ in range(3))
    out = scaled_dot_product_attention(q, k, v, causal_mask(40))
    product = out._node
    notes = [product, product.parents[0]]
    arrays = [array for note in notes for array in [note.out, *note.arrays] if array.size >= 2 * 3 * 40 * 40]
    large = {id(array): array for array in arrays}
    assert len(large) == 1
    arrays.clear()
    kept = weakref.ref(*large.values())
    large.clear()
    notes.clear()
    out.sum().backward()
    gc.collect()
    assert kept() is None


LONG_MASKS = {
    "none": None,
    "causal": causal_mask(150, 170),
    "(B, 1, 1, S)": np.arange(170) < np.array([170, 40])[:, None, None, None],
    "(B, H, T, S) with empty rows": np.random.default_rng(3).random((2, 3, 150, 170)) < 0.02,
    "rows that end early": np.arange(170) < np.arange(150)[:, None] % 9,
    "(S,)": np.arange(170) > 100,
    "nothing": np.zeros((150, 170), bool),
}


@pytest.mark.parametrize("name", LONG_MASKS)
def test_blocks_of_queries_give_what_all_give_at_once(name):
    q, k, v = drawn((2, 3, 150, 4), (3, 170, 4), (2, 1, 170, 5))
    want = by_the_book(q, k, v, LONG_MASKS[name])
    with no_grad():
        got = scaled_dot_product_attention(*doubles(q, k, v), LONG_MASKS[name])
    np.testing.assert_allclose(got.data, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("queries", [0, 1, 127, 128, 129, 191, 192, 300])
def test_blocks_cover_every_query_once(queries):
    q, k = drawn((queries, 4), (max(queries, 1), 4))
    mask = causal_mask(queries, len(k))
    np.testing.assert_allclose(attend_in_blocks(q, k, k, mask, 0.5), by_the_book(q, k, k, mask), rtol=1e-10, atol=1e-12)
    small = [array.astype(np.float32) for array in (q, k, k)]
    assert attend_in_blocks(*small, mask, 0.5).dtype == np.float32


def test_blocks_need_memory_like_the_length_and_not_like_its_square():
    def peak(length: int) -> int:
        x, mask = np.zeros((length, 8), np.float32), causal_mask(length)
        return peak_memory(lambda: attend_in_blocks(x, x, x, mask, 0.5))[1]

    assert peak(2048) < 6 * peak(512)


def test_no_block_looks_at_keys_that_none_of_its_queries_may_see():
    q, k, v = drawn((128, 4), (128, 4), (128, 4))
    v[64:] = k[64:] = np.nan
    assert np.isfinite(attend_in_blocks(q, k, v, causal_mask(128), 0.5)[:64]).all()


def test_the_face_has_attention():
    assert functional.scaled_dot_product_attention is scaled_dot_product_attention


# heads and layers


def test_heads_are_parts_of_each_tokens_vector():
    (x,) = drawn((2, 3, 12), dtype=np.float32)
    heads = split_heads(Tensor(x), 4)
    assert heads.shape == (2, 4, 3, 3)
    for h in range(4):
        np.testing.assert_array_equal(heads.data[:, h], x[:, :, 3 * h : 3 * h + 3])
    np.testing.assert_array_equal(merge_heads(heads).data, x)


def test_the_layers_parameters_are_named_and_begin_as_in_pytorch():
    manual_seed(0)
    layer = MultiHeadAttention(64, 4)
    assert isinstance(layer, Module) and all(isinstance(p, Parameter) for p in layer.parameters())
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    assert shapes == {
        "in_proj_weight": (192, 64), "in_proj_bias": (192,), "out_proj.weight": (64, 64), "out_proj.bias": (64,)
    }  # fmt: skip
    for weight, bound in ((layer.in_proj_weight, (6 / 256) ** 0.5), (layer.out_proj.weight, 1 / 8)):
        assert 0.99 * bound < np.abs(weight.data).max() <= bound and weight.dtype == np.float32
    assert not layer.in_proj_bias.data.any() and not layer.out_proj.bias.data.any()
    assert [name for name, _ in MultiHeadAttention(8, 2, bias=False).named_parameters()] == [
        "in_proj_weight",
        "out_proj.weight",
    ]
    assert "embed_dim=64, num_heads=4, dropout=0.0" in repr(layer)


def test_cross_attention_broadcasts_nothing_it_should_not_and_reaches_every_input():
    layer = MultiHeadAttention(6, 3)
    x, y, z = (Tensor(a, requires_grad=True) for a in drawn((2, 4, 6), (2, 5, 6), (2, 5, 6)))
    out, weights = layer(x, y, z, mask=causal_mask(4, 5), return_weights=True)
    assert out.shape == (2, 4, 6) and weights.shape == (2, 3, 4, 5)
    out.sum().backward()
    assert all(leaf.grad is not None for leaf in (x, y, z, *layer.parameters()))
    np.testing.assert_allclose(layer(x, x, x).data, layer(x).data, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x, x.detach()).data, layer(x).data, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x[0]).data, layer(x).data[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("several_inputs", [False, True])
def test_the_layers_gradients_are_those_of_finite_differences(several_inputs):
    layer = MultiHeadAttention(4, 2)
    parameters = dict(layer.named_parameters())
    arrays = drawn(*(p.shape for p in parameters.values()), (2, 3, 4), (2, 3, 4))

    def forward(in_weight, in_bias, out_weight, out_bias, x, y):
        layer.in_proj_weight.data, layer.in_proj_bias.data = in_weight.data, in_bias.data
        q, k, v = layer.project(x, y, y) if several_inputs else layer.project(x, x, x)
        return layer.out_proj(merge_heads(scaled_dot_product_attention(q, k, v, causal_mask(3))))

    for parameter, array in zip(parameters.values(), arrays, strict=False):
        parameter.data = array
    inputs = arrays[-2:]
    assert gradcheck(lambda x, y: forward(*parameters.values(), x, y), inputs, atol=1e-7, rtol=1e-6)
    layer.zero_grad()
    x, y = doubles(*inputs)
    top = np.random.default_rng(0).normal(size=(2, 3, 4))
    forward(*parameters.values(), x, y).backward(top)
    for parameter in parameters.values():
        for place in list(np.ndindex(parameter.shape))[::5]:
            middle = parameter.data[place]
            ends = []
            for step in (1e-6, -1e-6):
                parameter.data[place] = middle + step
                with no_grad():
                    ends.append((forward(*parameters.values(), x, y).data * top).sum())
            parameter.data[place] = middle
            assert parameter.grad.data[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_later_tokens_do_not_change_earlier_outputs_under_a_causal_mask():
    layer = MultiHeadAttention(8, 4)
    (x,) = drawn((2, 6, 8), dtype=np.float32)
    changed = x.copy()
    changed[:, 4:] += 1
    before, after = (layer(Tensor(a), mask=causal_mask(6)).data for a in (x, changed))
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=1e-6)
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-3


def test_new_tokens_may_ask_keys_and_values_that_were_projected_before():
    layer = MultiHeadAttention(8, 2)
    x = randn(2, 5, 8)
    whole = layer(x, mask=causal_mask(5)).data
    _, k, v = layer.project(x, x, x)
    q, _, _ = layer.project(x[:, 3:], x[:, 3:], x[:, 3:])
    np.testing.assert_allclose(layer.attend(q, k, v, causal_mask(2, 5)).data, whole[:, 3:], rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing_for_the_others():
    layer = MultiHeadAttention(8, 2)
    (x,) = drawn((1, 6, 8), dtype=np.float32)
    padded = layer(Tensor(x), mask=padding_mask([[5, 5, 5, 5, 0, 0]], pad_id=0)).data
    np.testing.assert_allclose(padded[:, :4], layer(Tensor(x[:, :4])).data, rtol=1e-4, atol=1e-6)


def test_dropout_is_for_training_only():
    layer = MultiHeadAttention(8, 2, dropout=0.5)
    x = randn(3, 8)
    assert np.abs(layer(x).data - layer(x).data).max() > 1e-4
    np.testing.assert_array_equal(layer.eval()(x).data, layer(x).data)


@pytest.mark.parametrize(
    ("sizes", "kind", "words"),
    [
        ((7, 3), ValueError, r"embed_dim 7 .* num_heads 3"),
        ((8, 0), ValueError, r"num_heads"),
        ((8.5, 2), TypeError, r"embed_dim"),
        ((8, 2, 1.5), ValueError, r"1\.5"),
    ],
)
def test_layers_that_cannot_be_are_refused(sizes, kind, words):
    with pytest.raises(kind, match=words):
        MultiHeadAttention(*sizes)


def test_an_input_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"expected 8 features .* \(2, 3, 4\)"):
        MultiHeadAttention(8, 2)(randn(2, 3, 4))


def test_self_attention_is_one_head():
    layer = SelfAttention(6, 4)
    (x,) = drawn((2, 5, 6), dtype=np.float32)
    q, k, v = (x @ part.weight.data.T for part in (layer.query, layer.key, layer.value))
    np.testing.assert_allclose(
        layer(Tensor(x), causal_mask(5)).data, by_the_book(q, k, v, causal_mask(5)), rtol=1e-4, atol=1e-6
    )
    assert layer(Tensor(x), return_weights=True)[1].shape == (2, 5, 5)
    assert SelfAttention(6)(Tensor(x)).shape == (2, 5, 6)


# chunks


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 3, 8, 100])
def test_chunks_give_the_same(causal, chunk_size):
    q, k, v = drawn((2, 3, 5, 4), (2, 3, 8, 4), (2, 3, 8, 2))
    want = by_the_book(3 * q, k, v, causal_mask(5, 8) if causal else None)
    np.testing.assert_allclose(chunked_attention(3 * q, k, v, causal, chunk_size), want, rtol=1e-10, atol=1e-12)
    small = [a.astype(np.float32) for a in (3 * q, k, v)]
    got = chunked_attention(*small, causal, chunk_size)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
