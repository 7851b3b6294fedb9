"""What ``tinytorch.core.losses`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinytorch._face import is_built
from tinytorch.core.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    MSELoss,
    NLLLoss,
    bce_with_logits_gradient,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    cross_entropy_gradient,
    log_softmax,
    mse_loss,
    nll_loss,
    perplexity,
)
from tinytorch.core.tensor import Tensor

needs_autograd = pytest.mark.skipif(not is_built("autograd"), reason="module 06 is not built")


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, scale, size=shape)


def differences(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """The slope of ``function`` by each number of ``x``, from both sides."""
    steps = 1e-6 * np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([(function(x + step) - function(x - step)) / 2e-6 for step in steps]).reshape(x.shape)


# reductions and shapes


@pytest.mark.parametrize(
    "loss", [mse_loss, binary_cross_entropy, binary_cross_entropy_with_logits], ids=lambda loss: loss.__name__
)
def test_elementwise_losses_reduce_and_refuse_to_broadcast(loss: Callable[..., Tensor]) -> None:
    x, target = np.random.default_rng(0).random((2, 4, 3))
    each = loss(Tensor(x), target, reduction="none").data
    assert each.shape == (4, 3) and each.dtype == np.float32
    np.testing.assert_allclose(loss(Tensor(x), target).item(), each.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss(Tensor(x), Tensor(target), "sum").item(), each.sum(), rtol=1e-6)
    assert loss(Tensor(x, np.float64), Tensor(target, np.float64)).dtype == np.float64
    for shape in [(4, 1), (3,), (1, 4, 3), (), (12,)]:
        with pytest.raises(ValueError, match=r"\(4, 3\)") as caught:
            loss(Tensor(x), np.zeros(shape))
        assert str(shape) in str(caught.value) and loss.__name__ in str(caught.value)
    with pytest.raises(ValueError, match="'average'"):
        loss(Tensor(x), target, "average")
    assert math.isnan(loss(Tensor(np.zeros((0, 3))), np.zeros((0, 3))).item())


def test_a_prediction_that_is_a_column_is_not_taken_for_a_table() -> None:
    with pytest.raises(ValueError, match=r"mse_loss.*\(5, 1\).*\(5,\)"):
        mse_loss(Tensor(np.zeros((5, 1))), Tensor(np.zeros(5)))


# binary cross-entropy


def test_bce_with_logits_is_exact_for_logits_of_any_size() -> None:
    z = np.array([-1e4, -100, -20, -1, 0, 1, 20, 100, 1e4])
    for target in (0.0, 1.0, 0.3):
        t = np.full(z.shape, target)
        exact = [math.log1p(math.exp(-abs(x))) + max(x, 0) - x * target for x in z.tolist()]
        got = binary_cross_entropy_with_logits(Tensor(z), t, "none").data
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-12)
        belief = [1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in z.tolist()]
        np.testing.assert_allclose(bce_with_logits_gradient(z, t), np.array(belief) - target, atol=1e-15)


def test_bce_of_certain_probabilities_is_finite() -> None:
    got = binary_cross_entropy(Tensor([0.0, 1.0, 0.0, 1.0, 0.5]), [1, 0, 0, 1, 1], "none").data
    np.testing.assert_allclose(got, [100, 100, 0, 0, math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("wrong", [-0.25, 1.5, float("nan"), float("inf")])
def test_what_is_no_probability_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"{wrong} at \[1, 0\]"):
        binary_cross_entropy(Tensor([[0.5], [wrong]]), [[0.0], [1.0]])


# log-softmax and cross-entropy


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_log_softmax_is_a_distribution_along_any_axis(axis: int) -> None:
    x = normal(3, 4, 5, scale=1e3)
    log_p = log_softmax(Tensor(x, np.float64), axis).data
    np.testing.assert_allclose(np.exp(log_p).sum(axis=axis), 1)
    np.testing.assert_allclose(log_p - log_p.max(axis, keepdims=True), x - x.max(axis, keepdims=True))


@pytest.mark.parametrize("lead", [(), (1,), (6,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 2}, {"label_smoothing": 0.2}, {"weight": [1, 2, 0.5, 3]}])
def test_fused_agrees_with_its_definition(lead: tuple[int, ...], options: dict[str, Any]) -> None:
    logits, ids = normal(*lead, 4), np.random.default_rng(1).integers(0, 4, size=lead)
    weight = np.array(options.get("weight", np.ones(4)))
    smoothing = options.get("label_smoothing", 0.0)
    shares = (1 - smoothing) * np.eye(4)[ids] + smoothing / 4
    want = -(shares * weight * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    counts = ids != options.get("ignore_index", -100)
    want = np.where(counts, want, 0)
    x = Tensor(logits, np.float64)
    np.testing.assert_allclose(cross_entropy(x, ids, reduction="none", **options).data, want, atol=1e-12)
    np.testing.assert_allclose(cross_entropy(x, ids, reduction="sum", **options).data, want.sum(), atol=1e-12)
    if counts.any():
        mean = want.sum() / weight[ids][counts].sum()
        np.testing.assert_allclose(cross_entropy(x, Tensor(ids), **options).data, mean)
    if not smoothing:
        for reduction in ("none", "sum"):
            in_steps = nll_loss(log_softmax(x), ids, reduction=reduction, **options)
            fused = cross_entropy(x, ids, reduction=reduction, **options)
            np.testing.assert_allclose(in_steps.data, fused.data, atol=1e-12)


def test_far_apart_logits_keep_their_digits_in_float32() -> None:
    logits = Tensor([[1e4, 1e4 - 1], [-1e4, 1e4], [1e4, -1e4]])
    got = cross_entropy(logits, [0, 0, 0], reduction="none").data
    np.testing.assert_allclose(got, [math.log1p(math.exp(-1)), 2e4, 0], rtol=1e-6)
    got = cross_entropy(logits, [0, 1, 0], reduction="none", label_smoothing=0.5).data
    np.testing.assert_allclose(got, [math.log1p(math.exp(-1)) + 0.25, 5e3, 5e3], rtol=1e-6)


def test_impossible_classes_and_rows_that_do_not_count_spoil_nothing() -> None:
    logits = Tensor([[0.0, 0.0, -np.inf], [np.nan, 1.0, 2.0]])
    np.testing.assert_allclose(cross_entropy(logits, [0, -100]).item(), math.log(2), rtol=1e-6)
    assert cross_entropy(logits, [2, -100], reduction="none").data.tolist() == [math.inf, 0]
    gradient = cross_entropy_gradient(logits.data, np.array([0, -100]), np.ones(3, np.float32))
    np.testing.assert_allclose(gradient, [[-0.5, 0.5, 0], [0, 0, 0]])


@pytest.mark.parametrize("loss", [cross_entropy, nll_loss], ids=lambda loss: loss.__name__)
def test_targets_are_checked(loss: Callable[..., Tensor]) -> None:
    x = Tensor(np.zeros((2, 3, 5)))
    ids = np.ones((2, 3), int)
    for wrong in (5, -1, 99, -100):
        ids[1, 2] = wrong
        with pytest.raises(IndexError, match=rf"{loss.__name__}: target {wrong} at \[1, 2\].*0 to 4"):
            loss(x, ids, ignore_index=77)
        assert loss(x, ids, ignore_index=wrong).shape == ()
    for targets in (np.ones((2, 3)), np.ones((2, 3), bool)):
        with pytest.raises(TypeError, match=str(targets.dtype)):
            loss(x, targets)
    for shape in [(2,), (3, 2), (2, 3, 1), (6,), (2, 3, 5)]:
        with pytest.raises(ValueError, match=r"\(2, 3, 5\)") as caught:
            loss(x, np.ones(shape, int))
        assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=r"permute\(0, 2, 1\)"):
        loss(x, np.ones((2, 5), int))
    with pytest.raises(ValueError, match=r"\(4,\).*5 classes"):
        loss(x, np.ones((2, 3), int), weight=np.ones(4))
    assert loss(x, np.ones((2, 3), np.uint8)).shape == ()


def test_swapped_or_senseless_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="int64"):
        cross_entropy(Tensor([1, 2]), Tensor(np.zeros((2, 3))))
    for smoothing in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=str(smoothing)):
            cross_entropy(Tensor([[0.0]]), [0], label_smoothing=smoothing)
    with pytest.raises(ValueError, match=r"\(\)"):
        cross_entropy(Tensor(0.0), 0)


@pytest.mark.parametrize("lead", [(3,), (0,)])
def test_where_nothing_counts_the_mean_is_nan_and_the_sum_is_zero(lead: tuple[int, ...]) -> None:
    x, ids = Tensor(np.zeros((*lead, 4))), np.full(lead, -100)
    for loss in (cross_entropy, nll_loss):
        assert math.isnan(loss(x, ids).item())
        assert loss(x, ids, reduction="sum").item() == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_the_gradient_agrees_with_finite_differences(smoothing: float, ignore_index: int) -> None:
    logits, ids, weight = normal(2, 3, 4), np.array([[0, 1, 2], [3, 1, 0]]), np.array([1.0, 2.0, 0.5, 3.0])

    def total(x: np.ndarray) -> float:
        options = {"ignore_index": ignore_index, "label_smoothing": smoothing}
        return cross_entropy(Tensor(x, np.float64), ids, weight, reduction="sum", **options).item()  # type: ignore[arg-type, return-value]

    got = cross_entropy_gradient(logits, ids, weight, ignore_index, smoothing)
    np.testing.assert_allclose(got, differences(total, logits), atol=1e-8)
    assert cross_entropy_gradient(logits.astype(np.float32), ids, weight.astype(np.float32)).dtype == np.float32


def test_cross_entropy_needs_one_array_of_the_size_of_the_logits() -> None:
    logits, ids = Tensor(np.zeros((100, 2000))), np.zeros(100, int)
    cross_entropy(logits, ids)
    tracemalloc.start()
    cross_entropy(logits, ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * logits.data.nbytes


def test_inputs_stay_as_they_were() -> None:
    logits, ids, weight = normal(3, 4).astype(np.float32), np.array([0, -100, 3]), np.ones(4)
    kept = logits.copy()
    cross_entropy(Tensor(logits), ids, weight, label_smoothing=0.1)
    cross_entropy_gradient(logits, ids, weight.astype(np.float32))
    np.testing.assert_array_equal(logits, kept)
    assert ids.tolist() == [0, -100, 3] and weight.tolist() == [1] * 4


# modules


def test_modules_pass_their_options_on() -> None:
    x, p = Tensor(normal(3, 4)), Tensor(np.random.default_rng(0).random((3, 4)))
    target, ids, weight = np.random.default_rng(1).random((3, 4)), np.array([0, 3, 2]), [1.0, 2.0, 3.0, 4.0]
    for reduction in ("mean", "sum", "none"):
        pairs = [
            (MSELoss(reduction)(x, target), mse_loss(x, target, reduction)),
            (BCELoss(reduction)(p, target), binary_cross_entropy(p, target, reduction)),
            (BCEWithLogitsLoss(reduction)(x, target), binary_cross_entropy_with_logits(x, target, reduction)),
            (NLLLoss(weight, 3, reduction)(x, ids), nll_loss(x, ids, weight, 3, reduction)),
            (CrossEntropyLoss(weight, 3, reduction, 0.1)(x, ids), cross_entropy(x, ids, weight, 3, reduction, 0.1)),
        ]
        for got, want in pairs:
            np.testing.assert_array_equal(got.data, want.data)


def test_a_class_weight_is_saved_and_nothing_is_trained() -> None:
    plain, weighted = CrossEntropyLoss(), CrossEntropyLoss(weight=[1.0, 2.0])
    assert repr(plain) == "CrossEntropyLoss()" and dict(plain.state_dict()) == {}
    assert list(weighted.state_dict()) == ["weight"] and weighted.state_dict()["weight"].dtype == np.float32
    assert list(weighted.parameters()) == []


def test_perplexity_counts_equally_likely_answers() -> None:
    assert perplexity(cross_entropy(Tensor(np.zeros((4, 27))), [0, 1, 2, 26])) == pytest.approx(27, rel=1e-5)
    assert perplexity(0) == 1.0 and perplexity(1e6) == math.inf


# through autograd


@needs_autograd
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("loss", "low", "high"),
    [(mse_loss, -2, 2), (binary_cross_entropy, 0.1, 0.9), (binary_cross_entropy_with_logits, -3, 3)],
    ids=["mse", "bce", "bce_with_logits"],
)
def test_gradients_of_elementwise_losses(loss: Callable[..., Tensor], low: float, high: float, reduction: str) -> None:
    from tinytorch.core.autograd import gradcheck

    numbers = np.random.default_rng(0)
    x, target = numbers.uniform(low, high, size=(2, 3)), numbers.uniform(0.1, 0.9, size=(2, 3))
    assert gradcheck(lambda x, t: loss(x, t, reduction), [x, target])


@needs_autograd
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2, "ignore_index": 1}, {"weight": [1, 2, 3, 4.0]}])
def test_gradients_of_cross_entropy(options: dict[str, Any]) -> None:
    from tinytorch.core.autograd import gradcheck

    ids = np.array([[0, 1, 2], [3, 1, 0]])
    for reduction in ("mean", "sum", "none"):
        assert gradcheck(lambda x: cross_entropy(x, ids, reduction=reduction, **options), [normal(2, 3, 4)])  # noqa: B023
    assert gradcheck(lambda x: nll_loss(log_softmax(x), ids), [normal(2, 3, 4)])


@needs_autograd
def test_where_nothing_counts_the_gradient_is_zero() -> None:
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    cross_entropy(x, [-100, -100]).backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, np.zeros((2, 3)))


@needs_autograd
def test_gradients_in_float32_survive_any_logit() -> None:
    x = Tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]], requires_grad=True)
    cross_entropy(x, [1, 1, 0], reduction="sum").backward()
    assert x.grad is not None and x.grad.dtype == np.float32
    np.testing.assert_allclose(x.grad.data, [[1, -1], [0, 0], [-0.5, 0.5]])
    z = Tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    binary_cross_entropy_with_logits(z, [0, 0, 1, 1], "sum").backward()
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.data, [1, 0, 0, -1])
