"""Module 06: gradients through the exported package."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref

import numpy as np
import pytest

from tinytorch.core import activations, layers, losses, tensor
from tinytorch.core.activations import gelu, leaky_relu, relu, sigmoid, softmax, tanh
from tinytorch.core.autograd import RULES, defvjp, gradcheck, is_grad_enabled, no_grad, unbroadcast
from tinytorch.core.layers import linear
from tinytorch.core.tensor import Op, Tensor, apply, concatenate, maximum, stack, where


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype=float), dtype, requires_grad=True)


@pytest.fixture
def make_op():
    """``make_op(name, forward, rule)``: an operation with a rule, which is gone after the test."""
    before = dict(RULES)

    def make(name, forward, rule):
        op = Op(name, forward)
        defvjp(op)(rule)
        return op

    yield make
    RULES.clear()
    RULES.update(before)


def test_every_operation_of_the_modules_before_has_a_rule():
    parts = (tensor, activations, layers, losses)
    operations = {value.name for part in parts for value in vars(part).values() if isinstance(value, Op)}
    assert operations <= set(RULES), f"without a rule: {sorted(operations - set(RULES))}"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y - x * y / (y * y + 1.0),
        lambda x, y: (x * x + 1.0) ** y,
        lambda x, y: 2.0 - x**3 + 2.0**y,
        lambda x, y: (x @ y.T).exp().sum(axis=0),
        lambda x, y: maximum(x, y) + where(x.data > 0, x, y).abs(),
        lambda x, y: (x - x.max(axis=1, keepdims=True)) / (1.0 + y.min().abs()),
        lambda x, y: x.mean(axis=0) + y.var(axis=0) + (x * x + 1.0).sqrt().log().sum(axis=(0, -1)),
        lambda x, y: concatenate([x[:, ::2], y[1:, [0, 0]].reshape(-1, 2)[:2]]).tanh(),
        lambda x, y: stack([x.permute(1, 0)[0], y.T[-1, :2]], axis=1) @ x,
        lambda x, y: linear(x, y, y[:, 0]) - linear(x[0], y) + linear(x.reshape(2, 1, 3), y).sum(axis=0),
        lambda x, y: sum(piece.sum() * n for n, piece in enumerate(x.split(1, axis=1))) + y,
    ],
)
def test_composed_functions_pass_the_gradient_check(function):
    numbers = np.random.default_rng(6)
    x, y = numbers.normal(size=(2, 3)), numbers.normal(size=(2, 3))
    assert gradcheck(function, [x, y])


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_gradient_of_a_weight_lies_in_memory_as_the_weight_does(order):
    weight = Tensor(np.ones((4, 3), order=order), requires_grad=True)
    linear(Tensor(np.ones((2, 5, 3))), weight).sum().backward()
    assert weight.grad is not None and weight.grad.data.strides == weight.data.strides


ACTIVATIONS = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "leaky_relu, slope 2": lambda x: leaky_relu(x, 2.0),
    "leaky_relu, slope -0.5": lambda x: leaky_relu(x, -0.5),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "gelu": gelu,
    "gelu, tanh": lambda x: gelu(x, "tanh"),
    "softmax": softmax,
    "softmax, axis 0": lambda x: softmax(x, axis=0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_the_gradient_check(name):
    function = ACTIVATIONS[name]
    numbers = np.random.default_rng(8).normal(0, 2, size=(3, 4))
    assert gradcheck(function, [numbers], atol=1e-7, rtol=1e-6)
    assert gradcheck(lambda x: function(function(x) * 2.0 - 0.3), [numbers])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_far_out_have_the_slope_of_their_flat_or_straight_part(name):
    far = np.array([[-10_000.0, -300.0, 300.0, 10_000.0]])
    below = {"leaky_relu": 0.01, "leaky_relu, slope 2": 2.0, "leaky_relu, slope -0.5": -0.5}.get(name, 0.0)
    above = 0.0 if name.startswith(("sigmoid", "tanh", "softmax")) else 1.0
    x = leaf(*far, dtype=np.float32)
    with np.errstate(all="raise"):
        ACTIVATIONS[name](x).sum().backward()
    np.testing.assert_allclose(x.grad.data, [[below, below, above, above]], rtol=1e-6, atol=1e-12)
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "slope"),
    [("relu", 0.0), ("leaky_relu", 0.01), ("sigmoid", 0.25), ("tanh", 1.0), ("gelu", 0.5), ("gelu, tanh", 0.5)],
)
def test_slopes_at_0(name, slope):
    x = leaf(0.0, -0.0)
    with np.errstate(all="raise"):
        ACTIVATIONS[name](x).sum().backward()
    np.testing.assert_allclose(x.grad.data, [slope, slope], rtol=1e-12)


def test_broadcast_inputs_get_gradients_of_their_own_shape_and_dtype():
    numbers = np.random.default_rng(7)
    for shape in [(), (1,), (4,), (3, 1), (1, 3, 4), (2, 1, 1)]:
        x = Tensor(numbers.normal(size=shape), requires_grad=True)
        (x * numbers.normal(size=(2, 3, 4))).sum().backward()
        assert (x.grad.shape, x.grad.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(unbroadcast(np.ones((2, 3)), (3,)), [2, 2, 2])
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        unbroadcast(np.ones((2, 3)), (3, 2))


def test_a_float64_constant_does_not_change_the_dtype_of_a_gradient():
    x = leaf(1.0, 2.0, dtype=np.float32)
    (x * np.array([3.0, 4.0])).astype(np.float64).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.data, [3, 4])


def test_gradients_accumulate_over_backwards_and_only_in_leaves():
    x = leaf(1.0, 2.0)
    hidden = x * 3.0
    (hidden + hidden).sum().backward()
    (x * 5.0).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [11, 11])
    assert hidden.grad is None


def test_gradients_share_memory_with_nothing():
    x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    given = np.array([1.0, 10.0])
    out = x + (y + z.reshape(2, 1).reshape(2))
    out.backward(given, retain_graph=True)
    x.grad.data[:] = 7
    y.grad.data[:] = 8
    np.testing.assert_array_equal(z.grad.data, [1, 10])
    np.testing.assert_array_equal(given, [1, 10])
    z.grad.data[:] = 9
    out.backward(given)
    np.testing.assert_array_equal(x.grad.data, [8, 17])
    np.testing.assert_array_equal(y.grad.data, [9, 18])
    np.testing.assert_array_equal(z.grad.data, [10, 19])


def test_a_summed_gradient_can_be_written_to():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    x.grad.data *= 2.0
    np.testing.assert_array_equal(x.grad.data, [2, 2])


def test_a_rule_that_returns_one_array_twice(make_op):
    double_use = make_op("double_use", np.add, lambda g, out, x, y: (h := g * 2, h))
    x, y = leaf(1.0), leaf(2.0)
    apply(double_use, x, y).backward()
    x.grad.data += 1
    assert y.grad.item() == 2.0


def test_a_gradient_that_nobody_wants_is_not_computed(make_op):
    def refuse():
        raise AssertionError("computed for a constant")

    pick = make_op("pick", np.multiply, lambda g, out, x, y: (lambda: g * y, refuse))
    x = leaf(1.0, 2.0)
    apply(pick, x, np.array([3.0, 4.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [3, 4])


def test_a_second_backward_needs_retain_graph():
    x = leaf(1.0, 2.0)
    hidden = x * x
    loss = hidden.sum()
    loss.backward(retain_graph=True)
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, [4, 8])
    for freed in (loss, hidden.sum()):
        with pytest.raises(RuntimeError, match="retain_graph=True"):
            freed.backward()
    np.testing.assert_array_equal(x.grad.data, [4, 8])


def test_wrong_calls_are_explained():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"\(2,\).*one number"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"tensor has shape \(2,\), the gradient has \(2, 1\)"):
        (x * 2).backward(np.ones((2, 1)))
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        (x.detach() * 2).sum().backward()
    (x * 2).sum().reshape(1, 1).backward()
    (x * 2).backward(Tensor([1, 1]))
    np.testing.assert_array_equal(x.grad.data, [4, 4])


def test_a_missing_rule_is_named_before_anything_happens():
    x = leaf(1.0, 2.0)
    hidden = apply(Op("mystery", np.sin), x)
    loss = (hidden * hidden).sum()
    with pytest.raises(NotImplementedError, match=r"'mystery'.*@defvjp"):
        loss.backward()
    assert x.grad is None
    with pytest.raises(NotImplementedError, match="mystery"):
        loss.backward()


def test_a_rule_that_fails_leaves_every_grad_as_it_was(make_op):
    def fail(g, out, x):
        raise ZeroDivisionError

    broken = make_op("broken", np.sin, fail)
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(ZeroDivisionError):
        (apply(broken, x) * y).backward()
    assert x.grad is None and y.grad is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda g, out, x, y: (g,), "'clumsy' has 2 inputs, its rule returned 1 gradients"),
        (lambda g, out, x, y: (np.ones(3), g), r"\(2,\).*\(3,\)"),
    ],
)
def test_a_clumsy_rule_is_named(make_op, rule, message):
    clumsy = make_op("clumsy", np.add, rule)
    with pytest.raises(ValueError, match=message):
        apply(clumsy, leaf(1.0, 2.0), leaf(1.0, 2.0)).sum().backward()


def test_rules_use_what_was_saved():
    x = leaf(2.0, 3.0)
    loss = (x * x).sum()
    x.data = x.data - 1
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, [4, 6])


def test_no_grad_as_block_and_decorator():
    x = leaf(1.0)

    @no_grad()
    def quiet(depth):
        assert not is_grad_enabled()
        return (x * 2) if depth == 0 else quiet(depth - 1)

    assert not quiet(2).requires_grad and is_grad_enabled()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    with no_grad():
        with no_grad():
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_whole_numbers_and_booleans_are_not_recorded():
    x = leaf(1.0, 2.0)
    assert not x.astype(np.int64).requires_grad
    assert not (x > 1).requires_grad
    assert (x[x > 1] * 2).requires_grad


def test_gradcheck_names_the_input_the_place_and_both_numbers(make_op):
    wrong = make_op("wrong", np.multiply, lambda g, out, x, y: (g * y, g * x * [1, 1, 2]))
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])
    with pytest.raises(AssertionError, match=r"input 1 at \[2\]: backward gives \S+, finite differences give \S+"):
        gradcheck(lambda a, b: apply(wrong, a, b), [x, y])
    np.testing.assert_array_equal(x, [1, 2, 3])


def test_the_notes_go_with_the_last_name_for_the_result():
    was_on = gc.isenabled()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        hidden = x.exp()
        saved = weakref.ref(hidden.data)
        loss = (hidden * hidden).sum()
        del hidden
        assert saved() is not None, "the notes should keep the array that a rule needs"
        del loss
        assert saved() is None, "a circle of references keeps the notes alive"
    finally:
        if was_on:
            gc.enable()


def test_a_long_chain_needs_no_recursion():
    x = leaf(1.0, dtype=np.float32)
    deep = x
    for _ in range(20_000):
        deep = deep + 1.0
    deep.backward()
    assert x.grad.item() == 1.0
    deep = x
    for _ in range(20_000):
        deep = deep * 1.0
    del deep  # freeing a chain that was never walked must not recurse either


def test_backward_works_whichever_part_is_imported_first():
    program = (
        "from tinytorch.core.tensor import Tensor; import tinytorch\n"
        "x = Tensor([3.0], requires_grad=True); (x * x).backward()\n"
        "print(x.grad.item(), tinytorch.is_grad_enabled())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "6.0 True\n", done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_memory_that_arrays_gave_back_is_kept_for_the_next_ones():
    program = (
        "import resource, numpy as np, tinytorch\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(2): before, many = faults(), [np.ones(500_000, np.float32) for _ in range(20)]; del many\n"
        "print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) < 1000, f"{done.stdout} page faults for 40 MB that were there a moment ago{done.stderr}"
