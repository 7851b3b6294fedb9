"""What ``tinytorch.core.optimizers`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinytorch
from tinytorch.core.layers import Linear, Parameter, Sequential
from tinytorch.core.losses import cross_entropy, mse_loss
from tinytorch.core.optimizers import (
    SGD,
    Adam,
    AdamW,
    CosineWarmupLR,
    LRScheduler,
    OneCycleLR,
    Optimizer,
    StepLR,
    clip_grad_norm,
)
from tinytorch.core.tensor import Tensor, manual_seed

MAKERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": lambda params: SGD(params, 0.05),
    "momentum": lambda params: SGD(params, 0.05, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda params: SGD(params, 0.05, momentum=0.9, nesterov=True),
    "Adam": lambda params: Adam(params, 0.05, weight_decay=0.01),
    "AdamW": lambda params: AdamW(params, 0.05),
}
EVERY = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_gradient(data: Any, gradient: Any, dtype: Any = None) -> Parameter:
    parameter = Parameter(data, dtype)
    parameter.grad = Tensor(gradient, parameter.dtype)
    return parameter


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


# what is given


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        ([], ValueError, "empty"),
        (iter(()), ValueError, "empty"),
        ([{"params": []}], ValueError, "group 0.*empty"),
        (Parameter([1.0]), TypeError, "Parameter"),
        ({"params": [Parameter([1.0])]}, TypeError, "dict"),
        (3, TypeError, "int"),
        ([np.ones(2)], TypeError, "parameter 0.*ndarray"),
        ([Parameter([1.0]), "bias"], TypeError, "parameter 1.*str"),
        ([("weight", Parameter([1.0]))], TypeError, "parameter 0.*tuple"),
        ([{"params": {Parameter([1.0])}}], TypeError, "set"),
        ([Parameter([1.0]) * 2.0], ValueError, "parameter 0.*operation"),
        ([Tensor([1.0])], ValueError, "parameter 0.*gradient"),
        ([{"lr": 0.1}], TypeError, "group 0.*params"),
        ([{"params": [Parameter([1.0])]}, [Parameter([1.0])]], TypeError, "group 1.*list"),
        ([{"params": [Parameter([1.0])], "learning_rate": 1.0}], TypeError, "group 0.*learning_rate"),
        ([{"params": [Parameter([1.0])], "lr": -0.5}], ValueError, "group 0.*lr.*-0.5"),
    ],
)
def test_what_cannot_be_trained_is_named(params: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=rf"(?s)^SGD.*{says}"):
        SGD(params, 0.1)


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [(SGD, "lr", bad) for bad in (0, 0.0, -1e-3, math.nan, math.inf)]
    + [(SGD, "momentum", -0.1), (SGD, "weight_decay", -1.0), (SGD, "momentum", math.nan), (SGD, "dampening", math.nan)]
    + [(Adam, "betas", bad) for bad in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan), (0.9,), (0.9, 0.9, 0.9))]
    + [(Adam, "eps", -1e-8), (AdamW, "weight_decay", -0.1)],
)
def test_options_out_of_range_are_named(make: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        make([Parameter([1.0])], **{option: value})
    assert make.__name__ in str(caught.value) and str(value) in str(caught.value)


@pytest.mark.parametrize(("make", "option", "value"), [(SGD, "lr", "0.1"), (SGD, "lr", None), (Adam, "betas", 0.9)])
def test_options_that_are_no_numbers_are_named(make: Any, option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"{option}.*{value!r}"):
        make([Parameter([1.0])], **{option: value})


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.5}])
def test_nesterov_needs_a_momentum_and_no_dampening(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="nesterov"):
        SGD([Parameter([1.0])], 0.1, nesterov=True, **options)
    with pytest.raises(ValueError, match=r"group 1.*nesterov"):
        good = {"params": [Parameter([1.0])], "momentum": 0.5, "dampening": 0.0}
        SGD([good, {"params": [Parameter([1.0])], **options}], 0.1, nesterov=True)


def test_an_iterator_is_empty_the_second_time() -> None:
    parameters = Linear(2, 2).parameters()
    SGD(parameters, 0.1)
    with pytest.raises(ValueError, match=r"empty.*used"):
        Adam(parameters)


def test_a_parameter_belongs_to_one_group_once() -> None:
    a, b = Parameter([1.0]), Parameter([1.0])
    with pytest.raises(ValueError, match="parameter 2"):
        SGD([a, b, a], 0.1)
    with pytest.raises(ValueError, match=r"group 1: parameter 1.*group 0"):
        SGD([{"params": [a]}, {"params": [b, a]}], 0.1)
    optimizer = SGD([a], 0.1)
    with pytest.raises(ValueError, match=r"group 1.*group 0"):
        optimizer.add_param_group({"params": a})
    optimizer.add_param_group({"params": b, "lr": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
    with pytest.raises(TypeError, match="group 2"):
        optimizer.add_param_group([Parameter([1.0])])  # type: ignore[arg-type]
    assert len(optimizer.param_groups) == 2


def test_a_frozen_parameter_and_a_tensor_that_wants_a_gradient_are_taken() -> None:
    frozen, loose = Parameter([1.0]), Tensor([1.0], requires_grad=True)
    frozen.requires_grad = False
    optimizer = SGD([frozen, loose], 0.5)
    (loose * 2.0).sum().backward()
    optimizer.step()
    assert frozen.data.tolist() == [1.0] and loose.data.tolist() == [0.0]


def test_the_caller_keeps_what_was_given() -> None:
    a, b = Parameter([1.0]), Parameter([2.0])
    listed = [a, b]
    group = {"params": listed, "lr": 0.5}
    optimizer = SGD([group], 0.1, momentum=0.9)
    assert group == {"params": listed, "lr": 0.5}
    listed.clear()
    assert len(optimizer.param_groups[0]["params"]) == 2


def test_repr_shows_the_options() -> None:
    shown = repr(Adam([{"params": [Parameter([1.0])]}, {"params": Linear(2, 2).parameters(), "lr": 0.5}]))
    for part in ("Adam(", "1 parameters", "2 parameters", "lr=0.001", "lr=0.5", "betas=(0.9, 0.999)"):
        assert part in shown


# steps


@EVERY
def test_a_step_changes_numbers_and_nothing_else(make: Callable[..., Optimizer]) -> None:
    for dtype in (np.float32, np.float64):
        a, b, idle = (Parameter(drawn(3, 2), dtype) for _ in range(3))
        before, array, view = a.data.copy(), a.data, a.data[1:]
        optimizer = make([a, b, idle])
        slope = drawn(3, 2, seed=1).astype(dtype)
        for _ in range(3):
            a.grad, b.grad = Tensor(slope, dtype), Tensor(slope, dtype)
            optimizer.step()
            np.testing.assert_array_equal(a.grad.data, slope)
        assert a.data is array and a.dtype == dtype and a.requires_grad and a._node is None
        assert not np.any(a.data == before)
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(view, a.data[1:])
        np.testing.assert_array_equal(idle.data, drawn(3, 2).astype(dtype))
        for entry in optimizer.state.values():
            for value in entry.values():
                assert isinstance(value, int) or value.dtype == dtype
        optimizer.zero_grad()
        assert a.grad is None and b.grad is None


@EVERY
def test_a_step_goes_down(make: Callable[..., Optimizer]) -> None:
    manual_seed(0)
    model = Sequential(Linear(4, 8), lambda x: x.tanh(), Linear(8, 3))
    x, ids = Tensor(drawn(30, 4)), np.argmax(drawn(30, 4)[:, :3], axis=1)
    optimizer = make(model.parameters())
    losses = []
    for _ in range(150):
        loss = cross_entropy(model(x), ids)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]


@EVERY
def test_a_tied_parameter_takes_one_step(make: Callable[..., Optimizer]) -> None:
    tied, alone = Linear(3, 3, bias=False), Linear(3, 3, bias=False)
    alone.weight.data[...] = tied.weight.data
    net = Sequential(tied, Linear(3, 3, bias=False))
    net[1].weight = tied.weight
    slope = drawn(3, 3)
    for parameters, weight in ((net.parameters(), tied.weight), (alone.parameters(), alone.weight)):
        optimizer = make(parameters)
        weight.grad = Tensor(slope)
        optimizer.step()
    np.testing.assert_array_equal(tied.weight.data, alone.weight.data)
    assert net[1].weight is tied.weight


def test_a_parameter_that_skips_steps_has_a_count_of_its_own() -> None:
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = Adam([a, b], 0.1)
    for step in range(4):
        a.grad, b.grad = Tensor([1.0]), Tensor([1.0]) if step == 3 else None
        optimizer.step()
    assert optimizer.state[a]["step"] == 4 and optimizer.state[b]["step"] == 1
    np.testing.assert_allclose(b.data, [0.9], rtol=1e-6)


def test_a_gradient_of_another_shape_is_refused() -> None:
    odd = with_gradient([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        SGD([odd], 0.1).step()
    assert odd.data.tolist() == [1.0, 2.0]


def test_a_closure_is_called_before_the_step() -> None:
    w = Parameter([3.0])
    optimizer = SGD([w], 0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return float(loss)

    assert optimizer.step(closure) == 9.0 and w.data.tolist() == [0.0]


def test_nothing_of_a_step_is_recorded() -> None:
    w = Parameter([1.0, 2.0])
    optimizer = AdamW([w], 0.1)
    for _ in range(2):
        ((w * 3.0) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    (w * w).sum().backward()
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.data, 2 * w.data, rtol=1e-6)


@pytest.mark.parametrize(("make", "share"), [("SGD", 0), ("momentum", 1), ("Nesterov", 1), ("Adam", 2), ("AdamW", 2)])
def test_memory(make: str, share: int) -> None:
    w = with_gradient(np.ones((500, 400)), np.ones((500, 400)))
    optimizer = MAKERS[make]([w])
    optimizer.step()
    held = sum(value.nbytes for entry in optimizer.state.values() for value in entry.values() if np.ndim(value))
    assert held == share * w.data.nbytes
    tracemalloc.start()
    try:
        optimizer.step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.1 * w.data.nbytes, "a step needs a few arrays of the parameter's size at most"


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_needs_one_scratch_array(kind: Any) -> None:
    w = with_gradient(np.ones((500, 400)), np.ones((500, 400)))
    optimizer = kind([w], weight_decay=0.0)
    optimizer.step()
    tracemalloc.start()
    try:
        optimizer.step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * w.data.nbytes


def test_the_first_step_of_adam_is_one_rate_long_for_gradients_of_any_size() -> None:
    slopes = [1e-3, -1.0, 1e6, -1e12]
    w = with_gradient(np.zeros(4), slopes)
    Adam([w], 0.5).step()
    np.testing.assert_allclose(w.data, [-0.5, 0.5, -0.5, 0.5], rtol=1e-4)
    still = with_gradient([1.0], [0.0])
    Adam([still], 0.5).step()
    assert still.data.tolist() == [1.0]


def test_decoupled_decay_does_not_depend_on_the_gradients() -> None:
    left = {}
    for kind in (Adam, AdamW):
        w = Parameter([1.0, 1.0], np.float64)
        optimizer = kind([w], 0.001, weight_decay=0.5)
        for step in range(200):
            w.grad = Tensor(np.array([100.0, 0.01]) * (-1) ** step, np.float64)
            optimizer.step()
        left[kind] = 1 - w.data
    np.testing.assert_allclose(left[AdamW][0], left[AdamW][1], rtol=1e-2)
    assert left[Adam][1] > 5 * left[Adam][0]


# clipping


def test_clipping_scales_all_by_one_factor_in_place() -> None:
    a, b, c = with_gradient([0.0, 0.0], [3.0, 0.0]), with_gradient(0.0, 4.0), Parameter([1.0])
    held = a.grad.data  # type: ignore[union-attr]
    assert clip_grad_norm(iter([a, b, c]), 1.0) == pytest.approx(5)
    np.testing.assert_allclose(held, [0.6, 0], rtol=1e-5)
    assert b.grad is not None and float(b.grad.data) == pytest.approx(0.8, rel=1e-5)
    assert b.grad.dtype == np.float32 and b.grad.shape == ()
    assert clip_grad_norm([a, b], 10.0) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(held, [0.6, 0], rtol=1e-5)
    assert clip_grad_norm([], 1.0) == clip_grad_norm([c], 1.0) == 0.0
    assert type(clip_grad_norm([c], 1.0)) is float and tinytorch.nn.utils.clip_grad_norm_ is clip_grad_norm


def test_clipping_at_the_norm_and_at_zero() -> None:
    w = with_gradient([0.0, 0.0], [0.6, 0.8])
    clip_grad_norm(w, 0.0)
    assert w.grad is not None and w.grad.data.tolist() == [0, 0]
    with pytest.raises(ValueError, match="-1"):
        clip_grad_norm(w, -1.0)


@pytest.mark.parametrize(("bad", "others"), [(math.inf, 0.0), (math.nan, math.nan)])
def test_what_is_not_finite_shows(bad: float, others: float) -> None:
    a, b = with_gradient([0.0, 0.0], [bad, 1.0]), with_gradient([0.0], [2.0])
    with pytest.raises(RuntimeError, match=str(bad)):
        clip_grad_norm([a, b], 1.0, error_if_nonfinite=True)
    assert b.grad is not None and a.grad is not None and b.grad.data.tolist() == [2.0]
    np.testing.assert_equal(clip_grad_norm([a, b], 1.0), bad)
    np.testing.assert_equal([*a.grad.data.tolist(), *b.grad.data.tolist()], [math.nan, others, others])


# state


def model_and_data() -> tuple[Sequential, Tensor, np.ndarray]:
    manual_seed(3)
    return Sequential(Linear(3, 5), lambda x: x.tanh(), Linear(5, 1)), Tensor(drawn(16, 3)), drawn(16, 1)


def run(model: Sequential, optimizer: Optimizer, x: Tensor, y: np.ndarray, steps: int) -> None:
    for _ in range(steps):
        mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What arrives of ``state`` that goes through an .npz file of its arrays and JSON of the rest."""
    arrays, numbers = {}, {}
    for position, entry in state["state"].items():
        for name, value in entry.items():
            (arrays if isinstance(value, np.ndarray) else numbers)[f"{position}/{name}"] = value
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    plain = json.loads(json.dumps({"numbers": numbers, "param_groups": state["param_groups"]}))
    entries: dict[str, dict[str, Any]] = {}
    with np.load(file, allow_pickle=False) as loaded:
        for key, value in [*loaded.items(), *plain["numbers"].items()]:
            position, _, name = key.partition("/")
            entries.setdefault(position, {})[name] = value
    return {"state": entries, "param_groups": plain["param_groups"]}


@EVERY
def test_resumed_from_a_file_is_bit_equal(make: Callable[..., Optimizer]) -> None:
    steady, x, y = model_and_data()
    optimizer = make(steady.parameters())
    run(steady, optimizer, x, y, 5)
    weights, saved = steady.state_dict(), through_a_file(optimizer.state_dict())
    run(steady, optimizer, x, y, 5)

    resumed, _, _ = model_and_data()
    resumed.load_state_dict(weights)
    again = make(resumed.parameters())
    again.load_state_dict(saved)
    run(resumed, again, x, y, 5)
    for mine, other in zip(resumed.parameters(), steady.parameters(), strict=True):
        np.testing.assert_array_equal(mine.data, other.data)
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_a_state_is_a_copy_both_ways() -> None:
    w = with_gradient([1.0], [1.0])
    optimizer = Adam([w], 0.1)
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.step()
    assert state["state"][0]["step"] == 1 and state["state"][0]["exp_avg"].tolist() == pytest.approx([0.1])
    state["param_groups"][0]["lr"] = 7.0
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[0]["params"] == [w]
    optimizer.load_state_dict(state)
    optimizer.step()
    assert state["state"][0]["exp_avg"].tolist() == pytest.approx([0.1])
    assert optimizer.param_groups[0]["lr"] == 7.0


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    a, b = with_gradient([1.0, 2.0], [1.0, 2.0]), with_gradient([[3.0]], [[1.0]])
    source = Adam([{"params": [a]}, {"params": [b], "lr": 0.5}], 0.25)
    source.step()
    state = source.state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["param_groups"].pop(), r"\[1, 1\].*\[1\]"),
        (lambda s: s["param_groups"][1]["params"].append(2), r"\[1, 1\].*\[1, 2\]"),
        (lambda s: s["param_groups"][1].pop("eps"), "group 1.*missing: eps"),
        (lambda s: s["param_groups"][0].update(momentum=0.9), "group 0.*unexpected: momentum"),
        (lambda s: s["state"][1].pop("exp_avg"), "state 1.*missing: exp_avg"),
        (lambda s: s["state"][0].update(sum=1.0), "state 0.*unexpected: sum"),
        (lambda s: s["state"].update({2: s["state"][0]}), "state 2"),
        (lambda s: s["state"].update({-1: s["state"][0]}), "state -1"),
        (lambda s: s["state"].update(weight=s["state"][0]), "state weight"),
        (lambda s: s["state"][0].update(exp_avg=np.zeros(3)), r"state 0.*exp_avg.*\(3,\).*\(2,\)"),
        (lambda s: s["state"][1].update(exp_avg_sq=np.zeros(1)), r"state 1.*exp_avg_sq.*\(1,\).*\(1, 1\)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(change: Callable[..., Any], says: str) -> None:
    a, b = with_gradient([1.0, 2.0], [1.0, 2.0]), with_gradient([[3.0]], [[1.0]])
    target = Adam([{"params": [a]}, {"params": [b], "lr": 0.125}], 0.0625)
    target.step()
    before = target.state_dict()
    with pytest.raises(RuntimeError, match=rf"(?s)Adam.*{says}"):
        target.load_state_dict(broken(change))
    after = target.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["state"].keys() == before["state"].keys()
    for position, entry in before["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(after["state"][position][name], value)


@pytest.mark.parametrize(
    "state", [None, [], {}, {"state": {}}, {"param_groups": []}, {"state": {}, "param_groups": [{}]}]
)
def test_what_is_no_state_is_a_type_error(state: Any) -> None:
    with pytest.raises(TypeError, match="state_dict"):
        SGD([Parameter([1.0])], 0.1).load_state_dict(state)


def test_a_state_before_any_step_is_empty() -> None:
    source, target = Adam([Parameter([1.0])], 0.5), Adam([with_gradient([1.0], [1.0])], 0.1)
    target.step()
    target.load_state_dict(source.state_dict())
    group = {**source.defaults, "params": [0]}
    assert target.state_dict() == source.state_dict() == {"state": {}, "param_groups": [group]}


# schedules


def rates(scheduler: LRScheduler, steps: int) -> list[list[float]]:
    rows = [scheduler.get_last_lr()]
    for _ in range(steps):
        scheduler.step()
        rows.append(scheduler.get_last_lr())
    assert [group["lr"] for group in scheduler.optimizer.param_groups] == rows[-1]
    return rows


def optimizer_of(*lrs: float, kind: Any = SGD, **options: Any) -> Optimizer:
    return kind([{"params": [Parameter([1.0])], "lr": lr} for lr in lrs], **options)  # type: ignore[no-any-return]


PLANS: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "step": lambda o: StepLR(o, 3, 0.5),
    "cosine": lambda o: CosineWarmupLR(o, 4, 12, 0.01),
    "one cycle": lambda o: OneCycleLR(o, 0.5, 15),
    "three phases": lambda o: OneCycleLR(o, 0.5, 15, three_phase=True, anneal_strategy="linear"),
}


def test_the_first_rate_is_set_when_the_plan_is_made() -> None:
    optimizer = optimizer_of(0.8, 0.4)
    plan = CosineWarmupLR(optimizer, 3, 7)
    assert plan.last_epoch == 0 and [group["lr"] for group in optimizer.param_groups] == [0.2, 0.1]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.8, 0.4]
    falling = [0.4 + 0.4 * math.cos(quarter * math.pi / 4) for quarter in range(5)]
    np.testing.assert_allclose(np.array(rates(plan, 8))[:, 0], [0.2, 0.4, 0.6, *falling, 0], atol=1e-15)


def test_step_lr() -> None:
    assert rates(StepLR(optimizer_of(0.8), 2, 0.5), 5) == [[0.8], [0.8], [0.4], [0.4], [0.2], [0.2]]


def test_a_plan_counts_from_the_first_rate_however_often_it_is_made() -> None:
    optimizer = optimizer_of(0.8)
    rates(StepLR(optimizer, 1, 0.5), 3)
    assert rates(StepLR(optimizer, 1, 0.5), 1) == [[0.8], [0.4]]


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_plan_resumes_from_json(make: Callable[[Optimizer], LRScheduler], kind: Any) -> None:
    one = optimizer_of(0.3, 0.1, kind=kind)
    plan = make(one)
    rates(plan, 6)
    saved = json.loads(json.dumps([plan.state_dict(), one.state_dict()]))
    for optimizer_first in (True, False):
        two = optimizer_of(0.9, 0.9, kind=kind)
        again = make(two)
        if optimizer_first:
            two.load_state_dict(saved[1])
            again.load_state_dict(saved[0])
        else:
            again.load_state_dict(saved[0])
            two.load_state_dict(saved[1])
        assert again.last_epoch == 6 and again.get_last_lr() == plan.get_last_lr()
        assert two.state_dict()["param_groups"] == one.state_dict()["param_groups"]
        fresh = make(optimizer_of(0.3, 0.1, kind=kind))
        assert rates(again, 5) == rates(fresh, 11)[6:]


def test_a_plan_may_be_made_for_an_optimizer_that_was_loaded() -> None:
    one = optimizer_of(0.8)
    plan = StepLR(one, 2, 0.5)
    rates(plan, 4)
    two = optimizer_of(0.1)
    two.load_state_dict(one.state_dict())
    again = StepLR(two, 2, 0.5, last_epoch=plan.last_epoch)
    assert again.last_epoch == 5 and rates(again, 2) == rates(plan, 3)[1:]


def test_a_state_of_another_plan_is_refused() -> None:
    plan = StepLR(optimizer_of(0.8), 2)
    for state in (CosineWarmupLR(optimizer_of(0.8), 1, 5).state_dict(), StepLR(optimizer_of(0.8, 0.4), 3).state_dict()):
        with pytest.raises(RuntimeError, match="StepLR"):
            plan.load_state_dict(state)
    assert plan.state_dict() == StepLR(optimizer_of(0.8), 2).state_dict()


def test_one_cycle_moves_rate_and_momentum_in_opposite_directions() -> None:
    for kind, momentum in ((SGD, lambda g: g["momentum"]), (Adam, lambda g: g["betas"][0])):
        optimizer = optimizer_of(0.1, kind=kind)
        plan = OneCycleLR(optimizer, 1.0, total_steps=21, pct_start=0.5)
        rows = []
        for _ in range(21):
            rows.append((plan.get_last_lr()[0], momentum(optimizer.param_groups[0])))
            plan.step()
        rate, mu = np.array(rows).T
        np.testing.assert_allclose([rate[0], mu[0], rate[20], mu[20]], [0.04, 0.95, 4e-6, 0.95], rtol=1e-9)
        assert rate.argmax() == mu.argmin() in (9, 10) and np.all(np.diff(rate) * np.diff(mu) <= 0)
        with pytest.raises(ValueError, match="21"):
            plan.step()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "total_steps"),
        ({"epochs": 3}, "steps_per_epoch"),
        ({"total_steps": 0}, "0"),
        ({"total_steps": 5, "pct_start": 1.5}, "1.5"),
        ({"total_steps": 5, "anneal_strategy": "cosine"}, "cosine"),
        ({"total_steps": 5, "base_momentum": [0.8, 0.9]}, "base_momentum"),
    ],
)
def test_a_cycle_that_cannot_be_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"OneCycleLR.*{says}"):
        OneCycleLR(optimizer_of(0.1), 1.0, **arguments)


def test_a_plan_needs_an_optimizer_and_sound_numbers() -> None:
    for make in (lambda o: StepLR(o, 3), lambda o: CosineWarmupLR(o, 1, 3), lambda o: OneCycleLR(o, 1.0, 3)):
        with pytest.raises(TypeError, match="Optimizer"):
            make([Parameter([1.0])])
    for arguments in ((5, 5), (-1, 5), (1, 5, -0.1)):
        with pytest.raises(ValueError, match="CosineWarmupLR"):
            CosineWarmupLR(optimizer_of(0.1), *arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step_size"):
        StepLR(optimizer_of(0.1), 0)
    with pytest.raises(KeyError, match="initial_lr"):
        StepLR(optimizer_of(0.1), 3, last_epoch=2)


def test_a_group_that_comes_later_is_not_forgotten_silently() -> None:
    optimizer = optimizer_of(0.8)
    plan = StepLR(optimizer, 2)
    optimizer.add_param_group({"params": Parameter([1.0])})
    with pytest.raises(RuntimeError, match=r"StepLR.*1 groups.*2"):
        plan.step()


def test_an_optimizer_of_one_s_own() -> None:
    class SignDescent(Optimizer):
        array_names = ("last",)

        def update(self, data: Any, gradient: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
            state["last"] = np.sign(gradient)
            data -= group["lr"] * state["last"]

    w = with_gradient([1.0, 1.0], [5.0, -3.0])
    optimizer = SignDescent([w], {"lr": 0.5})
    optimizer.step()
    assert w.data.tolist() == [0.5, 1.5]
    other = SignDescent([Parameter([0.0, 0.0])], {"lr": 0.1})
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["state"][0]["last"].tolist() == [1, -1]
    with pytest.raises(NotImplementedError, match="update"):
        Optimizer([w], {}).step()
