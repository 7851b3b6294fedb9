"""Module 15, generation: what the exported file must do."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tinytorch.core.autograd import is_grad_enabled
from tinytorch.core.generation import (
    PLAIN,
    KVCache,
    Sampling,
    cached_logits,
    generate,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    sample,
    scale_temperature,
    stream,
    window_start,
)
from tinytorch.core.layers import Linear
from tinytorch.core.tensor import Tensor, default_generator, manual_seed
from tinytorch.core.transformers import Transformer

GREEDY = Sampling(temperature=0)
LIVELY = Sampling(temperature=1.5, top_k=11, top_p=0.95, repetition_penalty=1.1, seed=3)


def tiny(**changes):
    """A transformer with weights large enough that its texts depend on what it reads."""
    manual_seed(0)
    sizes = {"vocab_size": 13, "embed_dim": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 12, "max_seq_length": 6}
    model, numbers = Transformer(**{**sizes, **changes}), np.random.default_rng(5)
    for name, parameter in model.named_parameters():
        parameter.data[...] = numbers.normal(0, 0.8, size=parameter.shape) if name != "norm.bias" else 0
    return model


def lists(arrays):
    return [array.tolist() for array in arrays]


# the rules


def probabilities(logits):
    raised = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return raised / raised.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_drawn_tokens_have_the_models_probabilities(temperature):
    logits = np.array([0.0, 1.0, -1.0, -np.inf, 0.5])
    tokens = sample(scale_temperature(np.tile(logits, (40_000, 1)), temperature), np.random.default_rng(4))
    shares = np.bincount(tokens, minlength=5) / 40_000
    np.testing.assert_allclose(shares, probabilities(logits / temperature), atol=0.015)
    assert shares[3] == 0


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7)])
def test_the_rules_work_on_the_last_axis_and_leave_the_logits_alone(shape):
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    before = logits.copy()
    flat = logits.reshape(-1, 7)
    for rule, value in ((scale_temperature, 0.7), (keep_top_k, 3), (keep_top_p, 0.6)):
        got = rule(logits, value)
        assert got.dtype == np.float32 and got.shape == shape
        np.testing.assert_array_equal(got.reshape(-1, 7), [rule(row, value) for row in flat])
    assert sample(logits, np.random.default_rng(0)).shape == shape[:-1]
    penalize_repetition(flat, [[1, 2]] * len(flat), 1.5)
    np.testing.assert_array_equal(logits, before)


def test_top_k_keeps_k():
    logits = np.random.default_rng(2).permutation(50).astype(np.float64)
    for k in (1, 7, 49, 50, 1000):
        kept = keep_top_k(logits, k)
        assert (kept > -np.inf).sum() == min(k, 50)
        assert kept[kept > -np.inf].min() == max(50 - k, 0)


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = np.random.default_rng(3).normal(0, 2, size=200)
    shares = probabilities(logits)
    for p in (0.05, 0.5, 0.9, 0.999):
        kept = keep_top_p(logits, p) > -np.inf
        assert shares[kept].sum() >= p > shares[kept].sum() - shares[kept].min()
        assert shares[kept].min() > shares[~kept].max()


def test_a_repeated_token_is_penalised_once_and_becomes_less_likely():
    logits = np.array([[2.0, -2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(penalize_repetition(logits, [[0, 0, 1, 2]], 2.0), [[1.0, -4.0, 0.0, 1.0]])
    np.testing.assert_array_equal(penalize_repetition(logits, np.array([[0, 3]]), 1.0), logits)


@pytest.mark.parametrize(
    ("rule", "value", "kind"),
    [
        (scale_temperature, 0, ValueError),
        (scale_temperature, -1, ValueError),
        (scale_temperature, math.nan, ValueError),
        (keep_top_k, 0, ValueError),
        (keep_top_k, 2.5, TypeError),
        (keep_top_p, 0, ValueError),
        (keep_top_p, 1.1, ValueError),
        (keep_top_p, math.nan, ValueError),
        (lambda logits, value: penalize_repetition(logits, [[0]], value), 0, ValueError),
    ],
)
def test_what_the_rules_refuse(rule, value, kind):
    with pytest.raises(kind, match=str(value)):
        rule(np.zeros((1, 3)), value)


@pytest.mark.parametrize("row", [[-np.inf] * 3, [0, np.nan, 1], [np.inf, 0, 0]])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_logits_of_a_broken_model_are_refused(row, sampling):
    with pytest.raises(ValueError, match="finite"):
        sampling.choose(np.array([[1.0, 2.0, 3.0], row]), [[0], [0]], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"temperature": -0.1}, ValueError),
        ({"temperature": math.nan}, ValueError),
        ({"temperature": math.inf}, ValueError),
        ({"top_k": 0}, ValueError),
        ({"top_k": 1.5}, TypeError),
        ({"top_p": 0.0}, ValueError),
        ({"top_p": 1.5}, ValueError),
        ({"repetition_penalty": 0}, ValueError),
        ({"repetition_penalty": math.nan}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 0.5}, TypeError),
        ({"temperature": 0, "top_k": 5}, ValueError),
        ({"temperature": 0, "top_p": 0.9}, ValueError),
    ],
)
def test_sampling_refuses_nonsense_when_it_is_made(options, kind):
    with pytest.raises(kind):
        Sampling(**options)


def test_sampling_is_frozen_and_compares_by_value():
    assert Sampling(top_k=3) == Sampling(top_k=3) != Sampling()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling().temperature = 2.0


def test_extreme_temperatures_neither_warn_nor_fail():
    logits = np.array([[3.0, 9.0, -5.0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert Sampling(temperature=1e-320).choose(logits, [[0]], np.random.default_rng(0)) == [1]
        Sampling(temperature=1e300).choose(logits, [[0]], np.random.default_rng(0))


# the cache


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parts", [[6], [1] * 6, [4, 1, 1], [2, 3, 1]])
def test_cached_logits_are_those_of_the_whole_text_at_every_step(parts, dtype, tied):
    model = tiny(tie_weights=tied, dropout=0.5)
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(dtype)
    ids = np.random.default_rng(1).integers(0, 13, size=(3, 6))
    model.train(False)
    cache, begin = KVCache.for_model(model, 3), 0
    for new in parts:
        got = cached_logits(model, ids[:, begin : begin + new], cache)
        begin += new
        assert got.dtype == cache.keys.dtype == dtype and got.shape == (3, new, 13) and cache.length == begin
        np.testing.assert_allclose(got, model(ids[:, :begin]).data[:, -new:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1, 5], [4, 2, 3], [3, 3]])
def test_padded_prompts_have_the_logits_that_they_have_alone(lengths):
    model, rng = tiny(max_seq_length=9), np.random.default_rng(2)
    longest = max(lengths)
    table = rng.integers(0, 13, size=(len(lengths), longest + 3))
    cache = KVCache.for_model(model, len(lengths))
    cache.clear(np.array([longest - length for length in lengths]))
    cached_logits(model, table[:, :longest], cache)
    for end in range(longest + 1, longest + 4):
        got = cached_logits(model, table[:, end - 1 : end], cache)
        for row, missing in enumerate(cache.padding):
            np.testing.assert_allclose(got[row, 0], model(table[row, missing:end]).data[-1], rtol=1e-5, atol=1e-5)


def test_ids_of_every_kind():
    model = tiny()
    want = model([1, 2, 3]).data
    for ids in ([1, 2, 3], [[1, 2, 3]], np.array([1, 2, 3]), Tensor([[1, 2, 3]])):
        np.testing.assert_allclose(cached_logits(model, ids, KVCache.for_model(model))[0], want, rtol=1e-5, atol=1e-5)


def test_a_cleared_cache_is_as_new():
    model, cache = tiny(), KVCache.for_model(tiny())
    cached_logits(model, [9, 8, 7], cache)
    cache.clear()
    assert cache.length == 0
    np.testing.assert_allclose(cached_logits(model, [1, 2], cache)[0], model([1, 2]).data, rtol=1e-5, atol=1e-5)


def test_the_memory_of_a_cache_is_that_of_the_formula():
    cache = KVCache(num_layers=3, batch_size=2, num_heads=4, max_seq_length=10, head_dim=5, dtype=np.float64)
    assert cache.nbytes == 2 * 3 * 2 * 4 * 10 * 5 * 8 == cache.keys.nbytes + cache.values.nbytes
    assert KVCache.for_model(tiny(), 7).nbytes == 2 * 2 * 7 * 8 * 6 * 4


def test_appending_copies_nothing_but_what_is_new():
    cache = KVCache(2, 1, 2, 5, 3)
    keys, values = cache.append(0, np.ones((1, 2, 4, 3)), np.ones((1, 2, 4, 3)))
    assert np.shares_memory(keys, cache.keys) and np.shares_memory(values, cache.values)
    assert cache.length == 0
    cache.append(1, np.ones((1, 2, 4, 3)), np.ones((1, 2, 4, 3)))
    assert cache.length == 4


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 2, 6, 3), "5 places"), ((2, 2, 1, 3), r"\(1, 2, 1, 3\)"), ((1, 2, 1, 4), r"\(1, 2, 1, 3\)")],
)
def test_what_a_cache_refuses(shape, words):
    with pytest.raises(ValueError, match=words):
        KVCache(2, 1, 2, 5, 3).append(0, np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize(("size", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_sizes_that_a_cache_refuses(size, kind):
    with pytest.raises(kind, match="num_heads"):
        KVCache(2, 1, size, 5, 3)


def test_what_cached_logits_refuses():
    model, cache = tiny(), KVCache.for_model(tiny())
    with pytest.raises(IndexError, match="13"):
        cached_logits(model, [13], cache)
    with pytest.raises(ValueError, match="2 texts"):
        cached_logits(model, [[1], [2]], cache)
    with pytest.raises(ValueError, match="clear"):
        cached_logits(model, [1] * 7, cache)
    assert cache.length == 0
    cached_logits(model, [1] * 6, cache)
    with pytest.raises(ValueError, match="6 of 6 places"):
        cached_logits(model, [1], cache)


class Doubled(Linear):
    """A layer that the table of plain functions does not know."""

    def forward(self, x):
        return super().forward(x) * 2


def test_a_layer_of_another_kind_is_called():
    model = tiny()
    layer = model.blocks[0].feed_forward.linear2
    other = Doubled(12, 8)
    other.load_state_dict(layer.state_dict())
    model.blocks[0].feed_forward.linear2 = other
    assert Doubled not in PLAIN
    got = cached_logits(model, [1, 2, 3], KVCache.for_model(model))
    np.testing.assert_allclose(got[0], model([1, 2, 3]).data, rtol=1e-5, atol=1e-5)


# writing


PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 0, 1], [0, 0]]


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY, Sampling(temperature=0, repetition_penalty=1.5)])
@pytest.mark.parametrize("window", [1, 5, 64])
def test_texts_are_the_same_with_and_without_a_cache(window, sampling):
    model = tiny(max_seq_length=window)
    kept, fresh = (generate(model, PROMPTS, 12, sampling=sampling, use_cache=use) for use in (True, False))
    assert lists(kept) == lists(fresh)
    assert [len(text) for text in kept] == [15, 13, 22, 14]


@pytest.mark.parametrize("window", [1, 6])
def test_each_text_is_the_one_that_its_prompt_gives_alone(window):
    model = tiny(max_seq_length=window)
    together = generate(model, PROMPTS, 12, sampling=GREEDY)
    for prompt, text in zip(PROMPTS, together, strict=True):
        assert generate(model, prompt, 12, sampling=GREEDY)[0].tolist() == text.tolist()
        assert generate(model, text[:-7], 7, sampling=GREEDY)[0].tolist() == text.tolist(), "continued later"


def test_within_the_window_greedy_text_is_that_of_the_transformer():
    model, ids = tiny(max_seq_length=24), np.array([[1, 2, 3], [7, 7, 0]])
    want = model.generate(ids, 20).data
    assert len(np.unique(want)) > 4
    for given in (ids, ids.tolist(), Tensor(ids), list(ids)):
        got = generate(model, given, 20, sampling=GREEDY)
        assert all(text.dtype == np.int64 for text in got)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("window", [1, 2, 7, 8])
def test_beyond_the_window_it_sees_what_window_start_says(window):
    model, text = tiny(max_seq_length=window), [3]
    for _ in range(30):
        begin = window_start(len(text), window)
        assert min(len(text), window // 2 + 1) <= len(text) - begin <= window
        text.append(int(model(text[begin:]).data[-1].argmax()))
    assert generate(model, [3], 30, sampling=GREEDY)[0].tolist() == text


def test_a_window_moves_in_steps():
    assert [window_start(length, 8) for length in (1, 8, 9, 12, 13, 16, 17)] == [0, 0, 4, 4, 8, 8, 12]
    assert [window_start(length, 5) for length in (5, 6, 8, 9)] == [0, 3, 3, 6]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_text_ends_with_its_stop_token(use_cache):
    model = tiny()
    free = lists(generate(model, PROMPTS, 20, sampling=GREEDY))
    stop = free[0][6]
    got = lists(generate(model, PROMPTS, 20, sampling=GREEDY, stop_tokens=[stop], use_cache=use_cache))
    for prompt, text, whole in zip(PROMPTS, got, free, strict=True):
        begin = len(prompt)
        end = whole.index(stop, begin) + 1 if stop in whole[begin:] else len(whole)
        assert text == whole[:end]
    assert len(got[0]) <= 7


def test_a_stop_token_in_the_prompt_stops_nothing():
    model, prompt = tiny(), [1, 2, 3, 4, 5]
    whole = generate(model, prompt, 3, sampling=GREEDY)[0].tolist()
    stop = next(token for token in prompt if token not in whole[5:])
    assert generate(model, prompt, 3, sampling=GREEDY, stop_tokens=[stop])[0].tolist() == whole


def test_nothing_is_computed_after_the_last_text_has_stopped():
    model, runs = tiny(), []
    features, whole = model.features, generate(tiny(), [1, 2], 1, sampling=GREEDY)[0]
    model.features = lambda ids: runs.append(1) or features(ids)
    generate(model, [1, 2], 50, sampling=GREEDY, stop_tokens=[whole[-1]], use_cache=False)
    assert len(runs) == 1


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_stream_is_the_text_token_by_token(sampling, use_cache):
    model = tiny()
    whole = generate(model, [1, 2], 15, sampling=sampling)[0].tolist()
    got = list(stream(model, [1, 2], 15, sampling=sampling, use_cache=use_cache))
    assert got == whole[2:] and {type(token) for token in got} == {int}
    end = got.index(got[4]) + 1
    assert list(stream(model, [1, 2], 15, sampling=sampling, stop_tokens=[got[4]])) == got[:end]


def test_seeds():
    model = tiny()
    seeded = Sampling(temperature=3.0, seed=7)
    assert lists(generate(model, PROMPTS, 12, sampling=seeded)) == lists(generate(model, PROMPTS, 12, sampling=seeded))
    texts = []
    for seed in (1, 1, 2):
        manual_seed(seed)
        texts.append(generate(model, [1], 12, sampling=Sampling(temperature=3.0))[0].tolist())
    assert texts[0] == texts[1] != texts[2]
    manual_seed(1)
    before = default_generator().bit_generator.state
    generate(model, [1], 12, sampling=seeded)
    assert default_generator().bit_generator.state == before, "a seed has a generator of its own"


def test_equal_prompts_get_different_texts():
    texts = lists(generate(tiny(), [[1, 2]] * 4, 12, sampling=Sampling(temperature=3.0, seed=0)))
    assert len({tuple(text) for text in texts}) == 4


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_model_is_as_before(use_cache):
    model = tiny(dropout=0.5)
    model.blocks[0].eval()
    modes = [module.training for _, module in model.named_modules()]
    one, two = (lists(generate(model, PROMPTS, 8, sampling=GREEDY, use_cache=use_cache)) for _ in range(2))
    assert one == two, "nothing is dropped while it writes"
    tokens = stream(model, [1, 2], 5, sampling=GREEDY, use_cache=use_cache)
    for _ in range(2):
        next(tokens)
        assert [module.training for _, module in model.named_modules()] == modes and is_grad_enabled()
    with pytest.raises(ValueError):
        generate(model, [[1], []], 2)
    assert [module.training for _, module in model.named_modules()] == modes and is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_new_tokens():
    assert lists(generate(tiny(), PROMPTS, 0)) == PROMPTS
    assert list(stream(tiny(), [1], 0)) == []


@pytest.mark.parametrize("function", [generate, stream])
@pytest.mark.parametrize(
    ("prompt", "count", "options", "kind", "words"),
    [
        ([], 3, {}, ValueError, "at least one token"),
        ([13], 3, {}, IndexError, "13"),
        ([1.5], 3, {}, TypeError, "float"),
        ([1], -1, {}, ValueError, "max_new_tokens .*-1"),
        ([1], 2.5, {}, TypeError, "float"),
        ([1], 3, {"stop_tokens": [99]}, IndexError, "99"),
    ],
)
def test_what_is_refused_at_once(function, prompt, count, options, kind, words):
    with pytest.raises(kind, match=words):
        function(tiny(), prompt, count, **options)


def test_padding_needs_a_token_of_the_model():
    with pytest.raises(IndexError, match="13"):
        generate(tiny(), PROMPTS, 2, pad_id=13)
    assert lists(generate(tiny(), PROMPTS, 9, sampling=LIVELY, pad_id=12)) == lists(
        generate(tiny(), PROMPTS, 9, sampling=LIVELY)
    )
