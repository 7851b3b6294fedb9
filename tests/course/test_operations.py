"""Every operation of every built module has a derivative rule, and the rule is right."""

from __future__ import annotations

import gc
import pkgutil
import time
import weakref
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import tinytorch.core
from tinytorch.core.autograd import RULES, defvjp, gradcheck
from tinytorch.core.tensor import Op, Tensor, apply

Case = tuple[tuple[Any, ...], dict[str, Any]]


def operations() -> dict[str, list[Op]]:
    """Every Op that a built core module holds, by name."""
    found: dict[str, list[Op]] = {}
    for part in pkgutil.iter_modules(tinytorch.core.__path__):
        for value in vars(import_module(f"tinytorch.core.{part.name}")).values():
            same_name = found.setdefault(value.name, []) if isinstance(value, Op) else None
            if same_name is not None and not any(value is known for known in same_name):
                same_name.append(value)
    return found


OPERATIONS = operations()


def case(*inputs: Any, **attrs: Any) -> Case:
    return inputs, attrs


def numbers(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Float64 numbers that are the same every time and far from each other, so that no tie is near."""
    count = int(np.prod(shape))
    spread = np.linspace(low, high, count + 2)[1:-1]
    return np.random.default_rng(count).permutation(spread).reshape(shape)


def positive(*shape: int) -> np.ndarray:
    return numbers(*shape, low=0.5, high=2.0)


# inputs of floats are differentiated, others are passed as they are
CASES: dict[str, list[Case]] = {
    "add": [case(numbers(2, 3), numbers(3)), case(numbers(2, 1), 1.5), case(2, numbers(3))],
    "sub": [case(numbers(2, 3), numbers(2, 1)), case(1.5, numbers(2))],
    "mul": [case(numbers(2, 3), numbers(4, 1, 3)), case(numbers(), numbers(2))],
    "div": [case(numbers(2, 3), positive(3)), case(numbers(3), positive(2, 1)), case(1, positive(2))],
    "pow": [
        case(positive(2, 3), numbers(3)),
        case(numbers(2, 3), 2),
        case(numbers(3) - 3, np.array(-1)),
        case(2.5, numbers(2, 2)),
        case(numbers(2), np.array([0, 3])),
    ],
    "maximum": [case(numbers(2, 3), numbers(3) + 0.1), case(numbers(4), np.array(0))],
    "neg": [case(numbers(2, 3))],
    "abs": [case(numbers(2, 3))],
    "exp": [case(numbers(2, 3)), case(numbers())],
    "log": [case(positive(2, 3))],
    "sqrt": [case(positive(2, 3))],
    "tanh": [case(numbers(2, 3))],
    "where": [
        case(np.array([[True], [False]]), numbers(2, 3), numbers(3)),
        case(np.array([True, False, True]), numbers(2, 1), 4.0),
        case(True, numbers(2), numbers(2, 2)),
    ],
    "cast": [case(numbers(2, 3), dtype=np.dtype(np.float64))],
    "matmul": [
        case(numbers(2, 3), numbers(3, 4)),
        case(numbers(3), numbers(3)),
        case(numbers(2, 3), numbers(3)),
        case(numbers(3), numbers(3, 2)),
        case(numbers(5, 2, 3), numbers(3)),
        case(numbers(5, 2, 3), numbers(3, 2)),
        case(numbers(5, 2, 3), numbers(5, 3, 2)),
        case(numbers(2, 1, 2, 3), numbers(5, 3, 2)),
        case(numbers(2, 3), numbers(5, 3, 2)),
        case(numbers(3), numbers(5, 3, 2)),
        case(numbers(0, 3), numbers(3, 2)),
        case(numbers(2, 0), numbers(0, 3)),
        case(numbers(2, 3), numbers(3, 0)),
    ],
    "linear": [
        case(numbers(2, 3), numbers(4, 3), numbers(4)),
        case(numbers(3), numbers(4, 3), numbers(4)),
        case(numbers(2, 5, 3), numbers(4, 3)),
        case(numbers(0, 3), numbers(4, 3), numbers(4)),
    ],
    "reshape": [case(numbers(2, 3), shape=(3, -1)), case(numbers(1), shape=())],
    "permute": [case(numbers(2, 3, 4), axes=(2, 0, 1)), case(numbers(2, 3, 4), axes=(-2, -1, 0))],
    "getitem": [
        case(numbers(4, 3), key=2),
        case(numbers(4, 3), key=(slice(None, None, -2), None, 1)),
        case(numbers(4, 3), key=(..., slice(1, 1))),
        case(numbers(4, 3), key=[1, 1, -3]),
        case(numbers(4, 3), key=np.array([[0, 1], [1, 0]])),
        case(numbers(4, 3), key=(np.array([0, 0]), np.array([2, 2]))),
        case(numbers(4, 3), key=(slice(1, 3), [0, 0])),
        case(numbers(4, 3), key=numbers(4, 3) > 0),
        case(numbers(4, 3), key=(np.int64(1), np.array(2))),
        case(numbers(4, 3), key=True),
    ],
    "concatenate": [
        case(numbers(2, 3), numbers(1, 3), numbers(2, 3), axis=0),
        case(numbers(2, 1), numbers(2, 3), axis=-1),
        case(numbers(2, 3), axis=1),
    ],
    "relu": [case(numbers(2, 3)), case(numbers() + 1)],
    "leaky_relu": [case(numbers(2, 3), negative_slope=slope) for slope in (0.01, 2.0, -0.5)],
    "sigmoid": [case(numbers(2, 3)), case(numbers())],
    "gelu": [case(numbers(2, 3)), case(numbers(3) * 3), case(numbers())],
    "gelu_tanh": [case(numbers(2, 3)), case(numbers(3) * 3), case(numbers())],
    "softmax": [case(numbers(2, 3, 2), axis=axis) for axis in (0, 1, -1)],
    "embedding": [case(numbers(4, 2), np.array([[3, 0], [3, 3]]))],
    "attention": [
        case(numbers(2, 3, 2), numbers(2, 4, 2), mask=None, scale=0.7),
        case(numbers(2, 1, 3, 2), numbers(2, 4, 2), mask=numbers(2, 1, 3, 4) > 0, scale=1.5),
        case(numbers(2, 3), numbers(3, 3), mask=np.zeros((2, 3), bool), scale=1.0),
    ],
    "layer_norm": [
        case(numbers(2, 3, 4), numbers(4), numbers(4), eps=1e-5),
        case(numbers(2, 3, 4), numbers(3, 4), numbers(3, 4), eps=0.1),
        case(numbers(5), numbers(5), numbers(5), eps=1e-5),
        case(numbers(0, 3), numbers(3), numbers(3), eps=1e-5),
    ],
}
REDUCTIONS = [
    case(numbers(2, 3, 2), axis=axis, keepdims=keepdims)
    for axis in (None, 1, -1, (0, -1), (-3,), ())
    for keepdims in (False, True)
]
CASES |= {name: [*REDUCTIONS, case(numbers())] for name in ("sum", "max", "min")}

CASES |= {
    "log_softmax": [case(numbers(2, 3)), case(numbers(2, 3, 2), axis=1), case(numbers(3), axis=-1)],
    "cross_entropy": [
        case(numbers(2, 3), np.array([2, 0]), weight=np.ones(3)),
        case(numbers(2, 2, 3), np.array([[1, -100], [0, 2]]), weight=np.array([1.0, 2.0, 0.5]), label_smoothing=0.2),
        case(numbers(4), np.array(3), weight=np.ones(4), ignore_index=0),
        case(numbers(0, 3), np.zeros(0, int), weight=np.ones(3)),
    ],
    "binary_cross_entropy": [case(numbers(2, 3, low=0.1, high=0.9), numbers(2, 3, low=0.1, high=0.9))],
    "binary_cross_entropy_with_logits": [case(numbers(2, 3), numbers(2, 3, low=0.1, high=0.9))],
}

CASES |= {
    "conv2d": [
        case(numbers(2, 2, 4, 5), numbers(3, 2, 2, 3), numbers(3)),
        case(numbers(2, 4, 5, 4), numbers(4, 2, 2, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        case(numbers(1, 2, 3, 3), numbers(2, 1, 1, 1), padding=(2, 1), groups=2),
        case(numbers(0, 1, 3, 3), numbers(2, 1, 2, 2)),
    ],
    "max_pool2d": [
        case(numbers(2, 2, 4, 5), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
        case(numbers(1, 2, 5, 5), kernel=(3, 2), stride=(1, 2), padding=(1, 1), dilation=(1, 2)),
    ],
    "avg_pool2d": [
        case(numbers(2, 2, 4, 5), kernel=(2, 2), stride=(2, 2)),
        case(numbers(1, 2, 5, 5), kernel=(3, 2), stride=(1, 2), padding=(1, 1), count_include_pad=False),
    ],
    "batch_norm": [
        case(numbers(3, 2, 2, 2), numbers(2), numbers(2), eps=0.1),
        case(numbers(4, 3), numbers(3), numbers(3), eps=0.1),
    ],
}


def test_operations_are_found_and_their_names_are_unique():
    assert len(OPERATIONS) >= 28
    assert [name for name, same in OPERATIONS.items() if len(same) > 1] == [], "two operations share a name and a rule"


def test_every_operation_has_a_rule():
    assert sorted(OPERATIONS.keys() - RULES.keys()) == []


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_rule_agrees_with_finite_differences(name):
    assert name in CASES, f"add a case for {name!r} to CASES in {__file__}"
    for inputs, attrs in CASES[name]:
        assert gradcheck(lambda *tensors, attrs=attrs: apply(OPERATIONS[name][0], *tensors, **attrs), inputs)


@pytest.mark.parametrize("name", sorted(CASES.keys() & OPERATIONS.keys()))
def test_float32_inputs_get_float32_gradients(name):
    inputs, attrs = CASES[name][0]
    tensors = [Tensor(x, requires_grad=np.asarray(x).dtype.kind == "f") for x in inputs]
    apply(OPERATIONS[name][0], *tensors, **attrs).sum().backward()
    assert {t.grad.dtype for t in tensors if t.requires_grad} == {np.dtype(np.float32)}


def seconds_of_backward(depth: int) -> float:
    x = Tensor([1.0], requires_grad=True)
    deep = x
    for _ in range(depth):
        deep = deep * 1.0
    begin = time.process_time()
    deep.backward()
    assert x.grad is not None and x.grad.item() == 1.0
    return time.process_time() - begin


def test_backward_is_linear_in_depth():
    short, long = (min(seconds_of_backward(depth) for _ in range(3)) for depth in (2_000, 20_000))
    assert long < 40 * short, f"ten times the depth took {long / short:.0f} times as long"


def test_each_value_is_visited_once():
    x = Tensor([1.0], requires_grad=True)
    doubled = x
    for _ in range(60):
        doubled = doubled + doubled
    doubled.backward()
    assert x.grad is not None and x.grad.item() == 2.0**60


@pytest.fixture
def no_collector():
    was_on = gc.isenabled()
    gc.disable()
    yield
    if was_on:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", sorted(CASES.keys() & OPERATIONS.keys()))
def test_no_reference_cycles(name):
    inputs, attrs = CASES[name][0]
    tensors = [Tensor(x, requires_grad=np.asarray(x).dtype.kind == "f") for x in inputs]
    gc.collect()  # what others left, the test's own runner among them
    for walked in (False, True):
        hidden = apply(OPERATIONS[name][0], *tensors, **attrs)
        died = weakref.ref(hidden.data if hidden.data.base is None else hidden)
        loss = (hidden * hidden).sum()
        del hidden
        if walked:
            loss.backward()
        del loss
        assert died() is None
    assert gc.collect() == 0


@pytest.mark.usefixtures("no_collector")
def test_saved_arrays_go_as_soon_as_their_rule_has_run():
    alive = []

    def look(g, out, x):
        alive.append(later() is not None)
        return g

    spy = Op("spy", np.copy)
    defvjp(spy)(look)
    try:
        first = apply(spy, Tensor([1.0, 2.0], requires_grad=True))
        hidden = (first * 2.0).exp()
        later = weakref.ref(hidden.data)
        loss = (hidden * hidden).sum()
        del hidden
        loss.backward()
    finally:
        del RULES["spy"]
    assert alive == [False], "the arrays of later operations were still there when the first rule ran"
