"""What ``tinytorch.core.layers`` must do, whoever wrote it: the course's solution or a student's export."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

from tinytorch.core.layers import Dense, Dropout, Linear, Module, ModuleList, Parameter, Sequential
from tinytorch.core.tensor import Tensor, manual_seed


class Shift(Module):
    """Adds a parameter and counts its calls in a buffer."""

    def __init__(self, amount: float = 1.0) -> None:
        super().__init__()
        self.amount = Parameter([amount])
        self.calls: Any
        self.register_buffer("calls", 0)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.amount


class Net(Module):
    """Parameters and modules in mixed order, one of them shared."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Parameter([2.0])
        self.body = Sequential(Linear(3, 4), Dropout(0.5), Linear(4, 2))
        self.shift = Shift()
        self.again = self.shift

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.again(self.body(x)) * self.scale
        return out


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias", "shift.amount"]
KEYS = [*NAMES, "shift.calls", "again.amount", "again.calls"]


def ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape))


def snapshot(module: Module) -> dict[str, list[float]]:
    return {name: np.asarray(array).ravel().tolist() for name, array in module.state_dict().items()}


# parameters and names


def test_a_parameter_is_a_tensor_of_its_own_that_wants_a_gradient() -> None:
    numbers = np.zeros(2, np.float32)
    parameter = Parameter(numbers)
    numbers += 1
    assert isinstance(parameter, Tensor) and parameter.requires_grad and parameter.grad is None
    assert parameter.data.tolist() == [0, 0]
    assert Parameter(numbers, dtype=np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="int64"):
        Parameter([1, 2])


def test_parameters_are_named_by_their_paths_in_order_and_once() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert all(p is q for p, (_, q) in zip(net.parameters(), net.named_parameters(), strict=True))
    assert sum(p.size for p in net.parameters()) == 1 + 3 * 4 + 4 + 4 * 2 + 2 + 1


def test_modules_are_named_by_their_paths_and_once() -> None:
    assert [name for name, _ in Net().named_modules()] == ["", "body", "body.0", "body.1", "body.2", "shift"]


def test_what_is_taken_away_or_put_in_later_is_no_longer_or_newly_found() -> None:
    net = Net()
    del net.body
    net.shift = net.again = Shift(3.0)
    net.extra = Parameter([1.0])
    assert [name for name, _ in net.named_parameters()] == ["scale", "extra", "shift.amount"]


def test_a_forgotten_super_init_is_named() -> None:
    class Forgetful(Module):
        def __init__(self) -> None:
            self.layer = Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Forgetful\.layer.*super\(\).__init__\(\)"):
        Forgetful()


def test_a_parameter_cannot_be_replaced_by_a_plain_tensor() -> None:
    layer = Linear(2, 2)
    before = layer.weight
    with pytest.raises(TypeError, match=r"Linear\.weight"):
        layer.weight = layer.weight - 1.0  # type: ignore[assignment]
    assert layer.weight is before
    layer.weight = Parameter(np.eye(2))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_zero_grad_forgets_every_gradient() -> None:
    net = Net()
    for parameter in net.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape))
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Module"):
        Module()(ones(1))


# buffers


def test_a_buffer_stays_an_array_of_the_state() -> None:
    shift = Shift()
    shift(ones(2))
    shift(ones(2))
    assert isinstance(shift.calls, np.ndarray) and shift.calls.dtype == np.int64
    assert shift.state_dict()["calls"].tolist() == 2
    shift.calls = Tensor(7)
    assert isinstance(shift.calls, np.ndarray) and shift.state_dict()["calls"].tolist() == 7
    assert Shift().calls.tolist() == 0


@pytest.mark.parametrize("name", ["forward", "training", "amount", "calls", "a.b", "", "two words"])
def test_a_buffer_needs_a_free_name(name: str) -> None:
    shift = Shift()
    with pytest.raises(KeyError, match=repr(name).replace(".", r"\.")):
        shift.register_buffer(name, [1.0])
    assert list(shift.state_dict()) == ["amount", "calls"]


# state


def test_the_state_holds_copies_under_every_name() -> None:
    net = Net()
    state = net.state_dict()
    assert sorted(state) == sorted(KEYS)
    assert all(type(array) is np.ndarray for array in state.values())
    state["scale"][...] = -1
    net.shift.amount.data[...] = 9
    assert net.scale.item() == 2 and state["shift.amount"].tolist() == [1] == state["again.amount"].tolist()


def test_a_state_goes_from_one_module_to_another() -> None:
    manual_seed(0)
    one, two = Net().eval(), Net().eval()
    kept = list(two.parameters())
    assert np.any(one(ones(4, 3)).data != two(ones(4, 3)).data)
    outcome = two.load_state_dict(one.state_dict())
    assert (outcome.missing_keys, outcome.unexpected_keys) == ([], [])
    assert all(p is q for p, q in zip(kept, two.parameters(), strict=True))
    assert snapshot(one) == snapshot(two)
    assert np.array_equal(one(ones(4, 3)).data, two(ones(4, 3)).data)
    one.scale.data[...] = 0
    assert two.scale.item() == 2


def test_a_state_survives_an_npz_file(tmp_path: Any) -> None:
    one, two = Net(), Net()
    state: dict[str, Any] = one.state_dict()
    np.savez(tmp_path / "net.npz", **state)
    with np.load(tmp_path / "net.npz") as saved:
        two.load_state_dict(saved)
    assert snapshot(one) == snapshot(two)


def test_loading_keeps_the_dtype_and_every_digit_of_it() -> None:
    module: Any = Module()
    module.fine = Parameter([0.0], dtype=np.float64)
    module.load_state_dict({"fine": np.array([1 / 3])})
    assert module.fine.dtype == np.float64 and module.fine.item() == 1 / 3
    module.load_state_dict({"fine": np.array([0.5], np.float32)})
    assert module.fine.dtype == np.float64 and module.fine.item() == 0.5


def test_one_error_names_all_that_does_not_fit_and_nothing_changes() -> None:
    net = Net()
    before = snapshot(net)
    state = {name: array + 1 for name, array in net.state_dict().items()}
    del state["scale"], state["body.2.bias"]
    state |= {"stray": np.zeros(1), "other": np.zeros(1)}
    state |= {"body.0.weight": np.zeros((3, 4)), "shift.amount": np.zeros(())}
    with pytest.raises(RuntimeError) as raised:
        net.load_state_dict(state)
    for part in ("Net", "scale", "body.2.bias", "stray", "other", "body.0.weight", "(4, 3)", "(3, 4)", "shift.amount"):
        assert part in str(raised.value)
    assert "body.0.bias" not in str(raised.value)
    assert snapshot(net) == before


def test_loading_without_strict_passes_over_names_but_not_shapes() -> None:
    net = Net()
    outcome = net.load_state_dict({"scale": [5.0], "stray": [0.0]}, strict=False)
    assert net.scale.item() == 5 and outcome.unexpected_keys == ["stray"]
    assert sorted(outcome.missing_keys) == sorted(set(KEYS) - {"scale"})
    with pytest.raises(RuntimeError, match="scale"):
        net.load_state_dict({"scale": [5.0, 6.0], "shift.amount": [3.0]}, strict=False)
    assert net.shift.amount.item() == 1


def test_what_is_no_state_is_refused() -> None:
    layer = Linear(1, 1)
    before = snapshot(layer)
    with pytest.raises(TypeError, match="str"):
        layer.load_state_dict("model.npz")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bias"):
        layer.load_state_dict({"weight": [[1.0]], "bias": ["one"]})
    assert snapshot(layer) == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_share_nothing_with_the_original(duplicate: Any) -> None:
    net = Net().eval()
    twin = duplicate(net)
    assert snapshot(twin) == snapshot(net) and not twin.body[1].training
    assert twin.again is twin.shift, "what was shared stays shared, within the copy"
    assert [name for name, _ in twin.named_parameters()] == NAMES
    assert all(parameter.requires_grad for parameter in twin.parameters())
    twin.scale.data[...] = 0
    twin.shift.calls = 5
    assert net.scale.item() == 2 and net.shift.calls.tolist() == 0
    twin.body[0].bias = None
    assert net.body[0].bias is not None


# modes


def test_modes_reach_every_module_and_the_module_comes_back() -> None:
    net = Net()
    assert net.training and net.body[1].training
    assert net.eval() is net
    assert not any(module.training for _, module in net.named_modules())
    assert net.train() is net
    assert all(module.training for _, module in net.named_modules())
    net.train(False)
    assert not net.body[1].training


# repr


def test_the_repr_shows_the_tree() -> None:
    net = Net()
    assert repr(net) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "    (1): Dropout(p=0.5)\n"
        "    (2): Linear(in_features=4, out_features=2, bias=True)\n"
        "  )\n"
        "  (shift): Shift()\n"
        "  (again): Shift()\n"
        ")"
    )
    assert repr(Sequential()) == "Sequential()"


# Linear


def test_dense_is_linear() -> None:
    assert Dense is Linear


@pytest.mark.parametrize("lead", [(), (5,), (1,), (0,), (2, 3), (2, 0, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_maps_the_last_axis(lead: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(0)
    layer = Linear(3, 4, bias=bias)
    x = rng.normal(size=(*lead, 3)).astype(np.float32)
    want = x @ layer.weight.data.T + (layer.bias.data if layer.bias is not None else 0)
    got = layer(Tensor(x))
    assert got.shape == (*lead, 4) and got.dtype == np.float32
    np.testing.assert_allclose(got.data, want, rtol=1e-5, atol=1e-6)
    assert (layer.bias is not None) is bias


def test_linear_starts_evenly_within_its_bound_and_repeats_with_the_seed() -> None:
    manual_seed(1)
    layer = Linear(64, 2000)
    for parameter in layer.parameters():
        assert np.abs(parameter.data).max() <= 0.125
        assert parameter.data.std() == pytest.approx(0.125 / math.sqrt(3), rel=0.05)
        assert abs(parameter.data.mean()) < 0.01
    manual_seed(1)
    assert snapshot(Linear(64, 2000)) == snapshot(layer)
    assert snapshot(Linear(64, 2000)) != snapshot(layer)


def test_a_weight_is_stored_in_the_order_in_which_it_is_read() -> None:
    layer = Linear(3, 4)
    layer.load_state_dict({name: np.ascontiguousarray(array) for name, array in layer.state_dict().items()})
    assert layer.weight.shape == (4, 3)
    assert layer.weight.data.T.flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 3), (3,), (), (4, 1), (2, 2, 5), (0, 3)])
def test_linear_refuses_another_width_and_names_itself(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as raised:
        Linear(4, 8)(ones(*shape))
    for part in ("Linear(in_features=4, out_features=8, bias=True)", "4 features", str(shape)):
        assert part in str(raised.value)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError)])
def test_linear_refuses_sizes_that_are_none(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="in_features"):
        Linear(size, 1)
    with pytest.raises(error, match="out_features"):
        Linear(1, size)


# Dropout


def test_dropout_keeps_the_mean_and_drops_with_probability_p() -> None:
    manual_seed(2)
    dropped = Dropout(0.2)(ones(200, 500)).data
    assert dropped.dtype == np.float32
    assert np.unique(dropped).tolist() == [0.0, 1.25]
    assert (dropped == 0).mean() == pytest.approx(0.2, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    manual_seed(2)
    assert np.array_equal(Dropout(0.2)(ones(200, 500)).data, dropped)


def test_dropout_draws_for_each_number_and_each_call() -> None:
    layer = Dropout(0.5)
    one, two = layer(ones(64, 64)).data, layer(ones(64, 64)).data
    assert np.any(one != two)
    assert 0 < one[0].mean() < 2 and 0 < one[:, 0].mean() < 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dropout_keeps_the_dtype(dtype: Any) -> None:
    assert Dropout(0.3)(Tensor(np.ones(8), dtype=dtype)).dtype == dtype


def test_dropout_at_its_ends_and_in_evaluation() -> None:
    x = Tensor([1.0, -2.0, 3.0])
    with np.errstate(all="raise"):
        assert Dropout(1.0)(x).data.tolist() == [0, 0, 0]
    for layer in (Dropout(0.0), Dropout(0.9).eval(), Dropout(1.0).eval()):
        assert layer(x).data.tolist() == [1, -2, 3]


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_dropout_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match=str(p)):
        Dropout(p)


def test_dropout_refuses_whole_numbers() -> None:
    with pytest.raises(TypeError, match="int64"):
        Dropout(0.5)(Tensor([1, 2]))


# containers


def test_sequential_calls_in_order_and_an_empty_one_is_the_identity() -> None:
    first, second = Linear(1, 1), Shift(1.0)
    first.weight.data[...], first.bias.data[...] = 2, 0  # type: ignore[union-attr]
    assert Sequential(first, second)(Tensor([[3.0]])).data.tolist() == [[7]]
    assert Sequential(second, first)(Tensor([[3.0]])).data.tolist() == [[8]]
    assert Sequential()(Tensor([3.0])).data.tolist() == [3]


@pytest.mark.parametrize("build", [lambda *parts: Sequential(*parts), lambda *parts: ModuleList(parts)])
def test_containers_are_lists_of_modules(build: Any) -> None:
    parts = [Shift(float(number)) for number in range(12)]
    held = build(*parts)
    assert len(held) == 12 and all(one is other for one, other in zip(held, parts, strict=True))
    assert held[0] is parts[0] and held[-1] is parts[-1]
    tail = held[9:]
    assert type(tail) is type(held) and [part is parts[9 + place] for place, part in enumerate(tail)] == [True] * 3
    assert [name for name, _ in held.named_parameters()] == [f"{number}.amount" for number in range(12)]
    with pytest.raises(IndexError, match="12"):
        held[12]
    assert held.append(parts[0]) is held and len(held) == 13 and held[12] is parts[0]


def test_a_function_may_stand_in_a_sequential() -> None:
    net = Sequential(Shift(1.0), abs, Shift(2.0))
    assert net(Tensor([-4.0])).data.tolist() == [5]
    assert [name for name, _ in net.named_parameters()] == ["0.amount", "2.amount"]
    assert "(1): <built-in function abs>" in repr(net)
    assert net.append(abs) is net and len(net) == 4


@pytest.mark.parametrize("intruder", [Linear, [Linear(1, 1)], None, "relu"])
def test_containers_refuse_what_is_no_module_and_name_its_position(intruder: Any) -> None:
    with pytest.raises(TypeError, match=r"Sequential.*1"):
        Sequential(Shift(), intruder, Shift())
    held = ModuleList([Shift(), Shift()])
    with pytest.raises(TypeError, match=r"ModuleList.*2"):
        held.append(intruder)
    with pytest.raises(TypeError, match=r"ModuleList.*2"):
        held.append(abs)
    assert len(held) == 2
