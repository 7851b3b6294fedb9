# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Optimizers
#
# > Optimizers: from a gradient to a step, with memory, a size for each number, and a plan for the rate.
#
# Module 06 ended with these three lines, and they trained a network:
#
# ```python
# for parameter in parameters:
#     parameter.data -= 0.1 * parameter.grad.data
#     parameter.grad = None
# ```
#
# The gradient says which way is down *here*. It does not say how far to go, and 0.1 was found by trying. This module
# is about better answers:
#
# ```
#   gradient --> [ memory ] --> [ a size for each number ] --> [ rate ] --> step
#                 momentum         Adam's second average        schedule
# ```
#
# Each box is a few lines. Together they decide whether a network learns in an hour, in a week or never, and they need
# up to twice the memory of the network itself.
#
# Plan for about five hours. Each step is a few lines, with a test right below it.

# %%
#| default_exp core.optimizers
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tinytorch.core.layers import Parameter
from tinytorch.core.tensor import Array, Tensor

# %%
import matplotlib.pyplot as plt

from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import mse_loss
from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed

# %% [markdown]
# ## 1. A valley
#
# Two numbers instead of a million, so that we can look. The loss is $(x^2 + 30 y^2)/2$: a long valley, 30 times as
# curved across as along. Its gradient is $(x, 30 y)$, and the lowest point is (0, 0).
#
# A step of rate $\eta$ multiplies x by $1 - \eta$ and y by $1 - 30 \eta$. Predict: what is the largest rate at which y
# does not run away? And how many steps does x need at that rate to come within 1 % of where it started?
#
# ### Exercise: `descend`

# %% nbgrader={"grade": false, "grade_id": "optimizers-descend", "locked": false, "schema_version": 3, "solution": true, "task": false}
def descend(slope, start, lr, steps):
    """The path of plain gradient descent, an array (steps + 1, n) that begins with the start.

    TODO: Walk against the slope, and note every place.

    APPROACH:
    1. The path begins with the start, as an array of float64.
    2. The next place is the last one minus lr times `slope` of the last one.
    3. `np.array(list_of_arrays)` stacks them.

    EXAMPLE:
    >>> descend(lambda place: 2 * place, [1.0], lr=0.25, steps=2)
    array([[1.  ],
           [0.5 ],
           [0.25]])

    HINT: A new array for each place. `place -= ...` would change the places that were noted already.
    """
    ### BEGIN SOLUTION
    path = [np.array(start, np.float64)]
    for _ in range(steps):
        path.append(path[-1] - lr * slope(path[-1]))
    return np.array(path)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-descend", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_descend():
    path = descend(lambda place: place * np.array([1.0, 30.0]), [-10.0, 1.0], 0.05, 2)
    assert isinstance(path, np.ndarray), "np.array(...) makes one array of the list of places"
    close(path, [[-10, 1], [-9.5, -0.5], [-9.025, 0.25]], why="the start first, then each place minus lr * slope")
    close(descend(np.cos, [5, 7], 0.1, 0), [[5, 7]], dtype=np.float64, why="no steps: the start alone, as float64")
    ### BEGIN HIDDEN TESTS
    chooser = np.random.default_rng()
    start, factors, rate = chooser.normal(size=3), chooser.uniform(0.5, 2, size=3), float(chooser.uniform(0.1, 0.4))
    walked = descend(lambda place: place * factors, start, rate, 7)
    close(walked, start * (1 - rate * factors) ** np.arange(8)[:, None])
    ### END HIDDEN TESTS


test_descend()

# %%
CURVATURE = np.array([1.0, 30.0])
START = np.array([-10.0, 1.0])


def valley_slope(place):
    return CURVATURE * place


def draw_valley(axes, path, title, colour="C3"):
    x, y = np.meshgrid(np.linspace(-11, 4, 120), np.linspace(-2.3, 2.3, 80))
    axes.contour(x, y, np.sqrt((x * x + 30 * y * y) / 2), levels=12, colors="0.8", linewidths=0.8)
    axes.plot(*path.T, "o-", color=colour, markersize=2.5, linewidth=1)
    axes.plot(0, 0, "k+", markersize=10)
    axes.set_xlim(-11, 4)
    axes.set_ylim(-2.3, 2.3)
    axes.set_title(title)


figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True, layout="constrained")
for axes, rate in zip(panels, (0.01, 0.06, 0.068), strict=True):
    draw_valley(axes, descend(valley_slope, START, rate, 40), f"rate {rate}")
plt.show()
for rate in (0.01, 0.06, 0.066):
    away = np.abs(descend(valley_slope, START, rate, 1000)).max(axis=1) / 10
    print(f"rate {rate}: {int(np.argmax(away < 0.01))} steps to 1 %")

# %% [markdown]
# At 2/30 = 0.067 the steep direction jumps from wall to wall for ever; above, it leaves. The flat direction then
# needs about ln 100 / 0.067 = 69 steps, whatever else we do. **The steepest direction sets the rate, the flattest one
# sets the time.** Here one is 30 times as steep as the other; in a network it is far worse. And 0.066 takes longer
# than 0.06, since y jumps for so long.
#
# Two ways out: remember past slopes (sections 4 and 5), or give each number its own rate (6 to 8). First an object that
# holds what is to be remembered.
#
# ## 2. What may be optimized
#
# An optimizer gets `model.parameters()`, keeps the list, and changes these objects for hours. So it looks at them once,
# and closely. Four mistakes are common. Without a check they show no error, and train nothing, or the wrong thing:
#
# | what was given | what happens |
# |---|---|
# | `params = model.parameters()`, to two optimizers | an iterator is empty the second time |
# | `model.weight.data` | an array has no gradient |
# | `model.weight * 1.0` | it is the result of an operation; a step would change this copy |
# | a parameter twice | each step is taken twice |
#
# ### Exercise: `parameter_list`
#
# Three helpers for the tests first.

# %% nbgrader={"grade": false, "grade_id": "optimizers-helpers", "locked": true, "schema_version": 3, "solution": false, "task": false}
def with_gradient(data, gradient, dtype=None):
    parameter = Parameter(data, dtype)
    parameter.grad = Tensor(gradient, parameter.dtype)
    return parameter


def one_by_one(*things):
    return iter(things)


class Memory:
    def __init__(self):
        self.state = {}

# %% nbgrader={"grade": false, "grade_id": "optimizers-parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def check_parameter(place: str, parameter: Any) -> None:
    """Refuse what no optimizer can train; the errors begin with ``place``.

    Raises
    ------
    TypeError
        If ``parameter`` is no Tensor.
    ValueError
        If it is the result of an operation, or a plain Tensor that wants no gradient.
    """
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{place}: expected a Parameter, got {type(parameter).__name__}")
    if parameter._node is not None:
        raise ValueError(f"{place} is the result of an operation; only a tensor that was not computed can be trained")
    if not (parameter.requires_grad or isinstance(parameter, Parameter)):
        raise ValueError(f"{place} is a Tensor that wants no gradient; make it a Parameter, or set requires_grad")


def parameter_list(owner: str, params: Any) -> list[Tensor]:
    """The parameters in ``params`` as a list, each checked.

    Parameters
    ----------
    owner
        Who asks; errors begin with it.
    params
        One Parameter, or an iterable of them that keeps its order. A Tensor that was not computed and requires a
        gradient will do.

    Raises
    ------
    TypeError
        If something in it is no Tensor, or if it is a set, whose order changes from run to run.
    ValueError
        If it is empty, holds a parameter twice, or one that cannot be trained; it names the position.

    TODO: Make a list, refuse an empty one, and look at every parameter.

    APPROACH:
    1. A single Tensor is a list of one. For anything else, `list(params)`.
    2. If the list is empty, raise
       `ValueError(f"{owner}: the list of parameters is empty; an iterator that was used before gives none")`.
    3. For each position: `check_parameter(f"{owner}: parameter {position}", parameter)`.
    4. If this object came before, raise a ValueError that begins in the same way and says so.

    EXAMPLE:
    >>> w = Parameter([1.0]); parameter_list("SGD", [w])[0] is w
    True

    HINT: `w in list_of_tensors` asks with `==`, which compares the numbers of tensors. Compare `id(...)`.
    """
    if isinstance(params, set | frozenset):
        raise TypeError(f"{owner}: a set has no fixed order, so its state could not be saved; give a list")
    ### BEGIN SOLUTION
    listed = [params] if isinstance(params, Tensor) else list(params)
    if not listed:
        raise ValueError(f"{owner}: the list of parameters is empty; an iterator that was used before gives none")
    met: set[int] = set()
    for position, parameter in enumerate(listed):
        check_parameter(f"{owner}: parameter {position}", parameter)
        if id(parameter) in met:
            raise ValueError(f"{owner}: parameter {position} came before; each is given once")
        met.add(id(parameter))
    return listed
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-parameters", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_parameter_list():
    one, two, three = Parameter([1.0]), Parameter([1.0]), Tensor([1.0], requires_grad=True)
    got = parameter_list("SGD", one_by_one(two, one, three))
    assert type(got) is list and len(got) == 3, f"expected a list of the three parameters, got {got}"
    assert got[0] is two and got[1] is one and got[2] is three, "the same objects, in the order that was given"
    single = parameter_list("SGD", one)
    assert type(single) is list and len(single) == 1 and single[0] is one, "a single Parameter is a list of one"
    for nothing in ([], one_by_one(), {}):
        with raises(ValueError, "Adam: ", "empty", why="an optimizer without parameters trains nothing"):
            parameter_list("Adam", nothing)
    for wrong in (np.ones(2), 1.0, "weight", ("weight", one)):
        with raises(TypeError, "Adam: parameter 1", type(wrong).__name__, why="call check_parameter for each position"):
            parameter_list("Adam", [one, wrong])
    with raises(ValueError, "SGD: parameter 2", "operation", why="the third was computed"):
        parameter_list("SGD", [one, two, one * 2.0])
    with raises(ValueError, "SGD: parameter 0", why="a plain Tensor wants no gradient"):
        parameter_list("SGD", [Tensor([1.0])])
    with raises(ValueError, "SGD: parameter 2", why="the third is the first again; equal is not the same"):
        parameter_list("SGD", [one, two, one])
    ### BEGIN HIDDEN TESTS
    sources = [Parameter([0.0]) for _ in range(int(np.random.default_rng().integers(3, 9)))]
    kept = parameter_list("SGD", one_by_one(*sources))
    assert [a is b for a, b in zip(kept, sources, strict=True)] == [True] * len(sources)
    again = len(sources)
    with raises(ValueError, f"SGD: parameter {again}"):
        parameter_list("SGD", [*sources, sources[-1]])
    ### END HIDDEN TESTS


test_parameter_list()

# %% [markdown]
# ## 3. The optimizer, and its groups
#
# What all optimizers share is a loop: for each parameter that has a gradient, `update` its numbers. How one optimizer
# differs from another is the method `update` alone, and it sees plain arrays:
#
# ```
#   data       the parameter's numbers, to be changed in place
#   gradient   of the same shape; not ours to change
#   state      a dictionary for this parameter: what this optimizer remembers of it, empty at first
#   group      the options: lr, momentum, ...
# ```
#
# Options may differ between parameters: a smaller rate for layers that were trained before, no weight decay for
# biases. So parameters come in **groups**, each with its own options; what a group leaves out, it takes from the
# optimizer's defaults:
#
# ```python
# SGD([{"params": body.parameters(), "lr": 0.001}, {"params": head.parameters()}], lr=0.1)
# ```
#
# In PyTorch, `{"params": ..., "learning_rate": 0.001}` is accepted, and the rate stays 0.1. Here an option that nobody
# knows is an error.
#
# Why in place? Predict what this prints:

# %%
weight = Parameter([1.0, 2.0])
tied = weight.data[:1]  # somebody else looks at the same memory
weight.data = weight.data - 0.5
print("a new array:", weight.data, tied)

weight = Parameter([1.0, 2.0])
tied = weight.data[:1]
weight.data -= 0.5
print("in place:   ", weight.data, tied)

# %% [markdown]
# A new array leaves everybody behind who looks at the old one, and for a moment both are in memory. In place, nobody
# notices anything but new numbers.
#
# ### Exercise: `add_param_group`, `zero_grad` and `step`

# %% nbgrader={"grade": false, "grade_id": "optimizers-class", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
Group = dict[str, Any]

_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("a number greater than 0", lambda lr: 0 < lr < math.inf),
    "momentum": ("a number, 0 or greater", lambda momentum: 0 <= momentum < math.inf),
    "dampening": ("a number", lambda dampening: abs(dampening) < math.inf),
    "weight_decay": ("a number, 0 or greater", lambda decay: 0 <= decay < math.inf),
    "eps": ("a number, 0 or greater", lambda eps: 0 <= eps < math.inf),
    "betas": (
        "two numbers from 0 up to, not including, 1",
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    ),
}


def check_options(owner: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that is out of its range (ValueError) or no number at all (TypeError), naming both."""
    for name, (expected, is_right) in _RANGES.items():
        if name in options:
            told = f"{owner}: {name} should be {expected}, got {options[name]!r}"
            try:
                fits = is_right(options[name])
            except TypeError:
                raise TypeError(told) from None
            if not fits:
                raise ValueError(told)


def parameter_groups(owner: str, params: Any) -> list[Any]:
    """What an optimizer was given as a list of groups: parameters without a group make one."""
    if isinstance(params, Tensor | dict):
        raise TypeError(f"{owner}: expected a list of parameters or of groups, got one {type(params).__name__}")
    try:
        listed = list(params)
    except TypeError:
        raise TypeError(f"{owner}: expected a list of parameters or of groups, got {type(params).__name__}") from None
    return listed if listed and isinstance(listed[0], dict) else [{"params": listed}]


class Optimizer:
    """Changes parameters by their gradients; a subclass says in ``update`` how.

    Parameters
    ----------
    params
        The parameters, such as ``model.parameters()``, or a list of groups: dictionaries with "params" and options.
    defaults
        The options of the optimizer, for groups that leave them out.

    Attributes
    ----------
    param_groups
        A dictionary for each group: "params" and every option.
    state
        For each parameter that had a step, a dictionary of what is remembered of it.

    Raises
    ------
    TypeError
        If something that should be a parameter, a group or a number is none, or if a group has an unknown option.
    ValueError
        If there are no parameters, if one comes twice or cannot be trained, or if an option is out of its range.

    TODO: Fill in the three blanks.

    APPROACH:
    1. `add_param_group`: `parameters` is checked already. A parameter that an earlier group has: ValueError
       `f"{owner}: parameter {position} is in group {other} already"`.
    2. The new group is a new dictionary: the defaults, over them what was given, over that `"params": parameters`.
       Check it with `self.check_group(owner, options)`, then append it to `self.param_groups`.
    3. `zero_grad`: `grad` of every parameter of every group becomes None.
    4. `step`: call the closure, if there is one, and keep what it returns. Then for each parameter that has a gradient,
       call `self.update` with its data, the gradient's data, its state and its group. Return what the closure returned.
    5. A gradient of another shape than its parameter: ValueError that names the class and both shapes.

    EXAMPLE:
    >>> class Sign(Optimizer):
    ...     def update(self, data, gradient, state, group): data -= group["lr"] * np.sign(gradient)
    >>> w = Parameter([1.0, 2.0]); w.grad = Tensor([9.0, -9.0])
    >>> Sign([w], {"lr": 0.5}).step(); w.data
    array([0.5, 2.5], dtype=float32)

    HINT: `self.state.setdefault(parameter, {})` gives the parameter's own dictionary, a new one the first time.
    """

    array_names: tuple[str, ...] = ()
    """What the state of a parameter holds as arrays of its shape."""
    number_names: tuple[str, ...] = ()
    """What it holds as whole numbers."""

    def __init__(self, params: Any, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        for group in parameter_groups(type(self).__name__, params):
            self.add_param_group(group)

    def update(self, data: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """Change ``data``, the numbers of one parameter, in place; every optimizer defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def check_group(self, owner: str, group: Group) -> None:
        """Refuse options that are unknown, out of range or do not go together; the errors begin with ``owner``."""
        known = {"params", "initial_lr", *self.defaults}
        for name in group:
            if name not in known:
                raise TypeError(f"{owner}: unknown option {name!r}; there are {', '.join(self.defaults)}")
        check_options(owner, group)

    def add_param_group(self, param_group: Group) -> None:
        """Train the parameters of one more group, a dictionary with "params" and options.

        Raises
        ------
        TypeError, ValueError
            As when the optimizer is made; nothing is added then.
        """
        owner = f"{type(self).__name__}: group {len(self.param_groups)}"
        if not isinstance(param_group, dict) or "params" not in param_group:
            given = "one without" if isinstance(param_group, dict) else type(param_group).__name__
            raise TypeError(f'{owner}: expected a dictionary with "params", got {given}')
        parameters = parameter_list(owner, param_group["params"])
        ### BEGIN SOLUTION
        holders = {id(held): other for other, group in enumerate(self.param_groups) for held in group["params"]}
        for position, parameter in enumerate(parameters):
            if id(parameter) in holders:
                raise ValueError(f"{owner}: parameter {position} is in group {holders[id(parameter)]} already")
        options = {**self.defaults, **param_group, "params": parameters}
        self.check_group(owner, options)
        self.param_groups.append(options)
        ### END SOLUTION

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        ### BEGIN SOLUTION
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        ### END SOLUTION

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step: update every parameter that has a gradient, in place; the others stay as they are.

        Parameters
        ----------
        closure
            If given, it is called first; it computes the loss and the gradients, and what it returns is returned.

        Raises
        ------
        ValueError
            If a gradient has another shape than its parameter.
        """
        ### BEGIN SOLUTION
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.shape != parameter.shape:
                    both = f"a parameter has shape {parameter.shape}, its gradient {parameter.grad.shape}"
                    raise ValueError(f"{type(self).__name__}: {both}")
                memory = self.state.setdefault(parameter, {})
                self.update(parameter.data, parameter.grad.data, memory, group)
        return loss
        ### END SOLUTION

    # to a file and back

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered, and all options, in plain numbers and arrays; see ``optimizer_state``."""
        return optimizer_state(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the optimizer stood that gave this state; see ``load_optimizer_state``."""
        load_optimizer_state(self, state_dict)

    # on the screen

    def __repr__(self) -> str:
        groups = []
        for group in self.param_groups:
            options = ", ".join(f"{name}={value}" for name, value in group.items() if name != "params")
            groups.append(f"{len(group['params'])} parameters, {options}")
        return f"{type(self).__name__}(" + "; ".join(groups) + ")"

# %% [markdown]
# The test needs an optimizer of its own: one that writes down what it is told, and adds 1.

# %% nbgrader={"grade": false, "grade_id": "optimizers-notes", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Notes(Optimizer):
    def __init__(self, params, lr=0.1, momentum=0.0):
        self.told = []
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, data, gradient, state, group):
        state["calls"] = state.get("calls", 0) + 1
        self.told.append((gradient.tolist(), state["calls"], group["lr"], group["momentum"]))
        data += 1

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-class", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false}
def test_optimizer():
    a, b, c = with_gradient([1.0], [0.5]), with_gradient([2.0, 3.0], [0.25, 4.0]), Parameter([7.0])
    given = {"params": one_by_one(b), "lr": 0.01}
    optimizer = Notes([{"params": [a, c]}, given], momentum=0.5)
    shown = [(len(g["params"]), g["lr"], g["momentum"]) for g in optimizer.param_groups]
    told = f"two groups; what a group does not say comes from the defaults, got {shown}"
    assert shown == [(2, 0.1, 0.5), (1, 0.01, 0.5)], told
    assert optimizer.param_groups[1]["params"][0] is b
    assert sorted(given) == ["lr", "params"], "the caller's dictionary stays as it was: make a new one"
    array = a.data
    assert optimizer.step() is None, "without a closure there is nothing to return"
    close(array, [2], why="update gets the parameter's own array, parameter.data")
    close(b.data, [3, 4])
    close(c.data, [7], why="a parameter without a gradient is left alone")
    optimizer.step()
    want = [([0.5], 1, 0.1, 0.5), ([0.25, 4.0], 1, 0.01, 0.5), ([0.5], 2, 0.1, 0.5), ([0.25, 4.0], 2, 0.01, 0.5)]
    got = [tuple(note) for note in optimizer.told]
    assert got == want, f"update should be told (gradient, calls from the parameter's own state, lr, momentum): {got}"
    assert len(optimizer.state) == 2, "a parameter that had no step has no state"
    optimizer.zero_grad()
    assert a.grad is None and b.grad is None and c.grad is None, "zero_grad: grad of every parameter becomes None"

    def closure():
        a.grad = Tensor([1.5])
        return 42.0

    assert optimizer.step(closure) == 42.0, "step returns what the closure returned"
    close(a.data, [4], why="the closure is called first: it makes the gradients")
    with raises(ValueError, "Notes: group 2: parameter 1", "group 1", why="b is in group 1 already"):
        optimizer.add_param_group({"params": [Parameter([1.0]), b]})
    with raises(ValueError, "Notes: group 2", "lr", "-1", why="check the new group with self.check_group"):
        optimizer.add_param_group({"params": Parameter([1.0]), "lr": -1})
    with raises(TypeError, "Notes: group 2", "'rate'", why="nobody knows the option rate"):
        optimizer.add_param_group({"params": Parameter([1.0]), "rate": 1.0})
    assert len(optimizer.param_groups) == 2, "a group that is refused is not added"
    fresh = Parameter([1.0])
    optimizer.add_param_group({"params": fresh, "momentum": 0.75})
    assert optimizer.param_groups[2]["momentum"] == 0.75 and optimizer.param_groups[2]["params"][0] is fresh
    for shape in [(1,), (3, 1), (3,)]:
        odd = Parameter([[1.0, 2.0, 3.0]])
        odd.grad = Tensor(np.ones(shape))
        with raises(ValueError, "Notes", "(1, 3)", str(shape), why="such a gradient would be broadcast without a word"):
            Notes([odd]).step()
    ### BEGIN HIDDEN TESTS
    many = [with_gradient([float(place)], [float(place)]) for place in range(6)]
    cut = int(np.random.default_rng().integers(1, 5))
    both = Notes([{"params": many[:cut], "lr": 0.5}, {"params": many[cut:]}], lr=0.25)
    both.step()
    assert [tuple(note) for note in both.told] == [([float(k)], 1, 0.5 if k < cut else 0.25, 0.0) for k in range(6)]
    close(np.array([float(p.data[0]) for p in many]), np.arange(6) + 1.0)
    assert both.defaults == {"lr": 0.25, "momentum": 0.0}, "the defaults stay as they are"
    with raises(ValueError, "group 0"):
        Notes([many[0], many[0]])
    with raises(ValueError, "group 0"):
        Notes(one_by_one())
    ### END HIDDEN TESTS


test_optimizer()

# %% [markdown]
# The mistakes of section 2, as you would meet them:

# %%
layer = Linear(2, 3)
used = layer.parameters()
first = Notes(used)
for params in (used, [layer.weight.data], [layer.weight * 1.0], [{"params": layer.weight, "learning_rate": 1e-3}]):
    try:
        Notes(params)
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## 4. Momentum
#
# In the valley the slopes *across* change their sign at every step, and those *along* agree. So add them up. What
# agrees grows, and what contradicts itself cancels. A ball that rolls does the same: it has a velocity, every slope
# adds to it, and friction takes a part of it away.
#
# $$v \leftarrow \mu v + g \qquad w \leftarrow w - \eta v$$
#
# Predict: the slope is 1 for ever, and $\mu = 0.9$. How large does the velocity become?
#
# Two variants. **Dampening** adds only a part $1 - d$ of each new slope. **Nesterov** looks ahead: the ball is about to
# roll by $\mu v$ anyway, so the step is $g + \mu v$ with the new v, and not v.
#
# Sources: Polyak 1964, "Some methods of speeding up the convergence of iteration methods"; Sutskever et al. 2013, "On
# the importance of initialization and momentum in deep learning".
#
# ### Exercise: `momentum_direction`

# %% nbgrader={"grade": false, "grade_id": "optimizers-momentum", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def momentum_direction(
    gradient: Array, state: dict[str, Any], momentum: float, dampening: float = 0.0, nesterov: bool = False
) -> Array:
    """The direction of a step with momentum; what is remembered is ``state["momentum_buffer"]``.

    Parameters
    ----------
    gradient
        The slope at this step. It is not changed.
    state
        Empty at the first step, which remembers a copy of the gradient, whatever the dampening. Later the buffer
        becomes ``momentum * buffer + (1 - dampening) * gradient``, in place.
    nesterov
        The direction is ``gradient + momentum * buffer`` instead of the buffer itself.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".

    TODO: Update the buffer and return the direction.

    APPROACH:
    1. If `state` has no "momentum_buffer", put a copy of the gradient there.
    2. Otherwise multiply the buffer by the momentum and add the gradient times 1 - dampening, both in place.
    3. Return the buffer, or the look-ahead.

    EXAMPLE:
    >>> state = {}
    >>> [momentum_direction(np.array([1.0]), state, 0.5).tolist() for _ in range(3)]
    [[1.0], [1.5], [1.75]]

    HINT: The copy matters: without it, the buffer would be the parameter's own gradient.
    """
    ### BEGIN SOLUTION
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = np.array(gradient)
    else:
        state["momentum_buffer"] *= momentum
        state["momentum_buffer"] += (1 - dampening) * gradient if dampening else gradient
    velocity: Array = state["momentum_buffer"]
    return gradient + momentum * velocity if nesterov else velocity
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-momentum", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_momentum_direction():
    slopes = [np.array([1.0, -2.0], np.float32), np.array([3.0, 2.0], np.float32), np.array([0.5, 0.0], np.float32)]
    for options, want in [
        ((0.5,), [[1, -2], [3.5, 1], [2.25, 0.5]]),
        ((0.5, 0.25), [[1, -2], [2.75, 0.5], [1.75, 0.25]]),
        ((0.5, 0.0, True), [[1.5, -3], [4.75, 2.5], [1.625, 0.25]]),
    ]:
        state, got = Memory().state, []
        for slope in slopes:
            got.append(np.array(momentum_direction(slope, state, *options)))
        why = "the first buffer is a copy of the gradient; later momentum * buffer + (1 - dampening) * gradient"
        close(np.array(got), want, what=f"momentum, dampening, nesterov = {options}", dtype=np.float32, why=why)
    close(slopes[0], [1, -2], why="the gradient is not ours to change: copy it")
    close(slopes[2], [0.5, 0])
    state = Memory().state
    momentum_direction(slopes[0], state, 0.5)
    held = state["momentum_buffer"]
    momentum_direction(slopes[1], state, 0.5)
    assert list(state) == ["momentum_buffer"] and state["momentum_buffer"] is held, "change the buffer in place"
    state = Memory().state
    for _ in range(2):
        momentum_direction(np.array(2.0), state, 0.5)
    close(state["momentum_buffer"], 3.0, why="a parameter of a single number has a buffer of shape ()")
    ### BEGIN HIDDEN TESTS
    drawer = np.random.default_rng()
    mu, damp = drawer.uniform(0.3, 0.9, size=2).tolist()
    stream = drawer.normal(size=(6, 2, 3))
    ball, ahead, plain = stream[0].copy(), Memory().state, Memory().state
    for time, one in enumerate(stream):
        if time:
            ball = mu * ball + (1 - damp) * one
        close(momentum_direction(one, plain, mu, damp), ball)
        close(momentum_direction(one, ahead, mu, damp, True), one + mu * ball)
    ### END HIDDEN TESTS


test_momentum_direction()

# %%
memory = {}
velocities = [float(momentum_direction(np.ones(1), memory, 0.9)[0]) for _ in range(60)]
print("velocity after 1, 2, 10 and 60 equal slopes:", [round(velocities[n - 1], 2) for n in (1, 2, 10, 60)])

# %% [markdown]
# It approaches 1/(1 − 0.9) = 10. So switching momentum on multiplies the rate by ten wherever slopes agree. When you
# add momentum to a program that runs well, divide its rate first. And (1 − d) with d = 0.9 would make an average of it,
# which undoes that.
#
# ## 5. SGD
#
# *Stochastic* gradient descent: the slope comes from a few examples, a batch, and not from all. The rule is the same.
#
# One option is left. **Weight decay** pulls every weight towards zero, in proportion to its size: the gradient gets
# $\lambda w$ added. This is the slope of a penalty $\lambda w^2 / 2$ in the loss, without the need to compute that
# penalty. Predict: with rate 0.1, decay 0.5 and no gradient at all, how much of a weight is left after ten steps?
#
# ### Exercise: `SGD.update`

# %% nbgrader={"grade": false, "grade_id": "optimizers-sgd", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class SGD(Optimizer):
    """Gradient descent: ``data -= lr * direction``, with momentum and weight decay if wanted.

    Parameters
    ----------
    params
        Parameters, or groups of them.
    lr
        The rate, greater than 0.
    momentum, dampening, nesterov
        See ``momentum_direction``. Without momentum nothing is remembered.
    weight_decay
        This times the parameter is added to the gradient, before all else.

    Raises
    ------
    TypeError, ValueError
        See ``Optimizer``; and if ``nesterov`` is set without a momentum or with a dampening.

    TODO: Fill in `update`.

    APPROACH:
    1. The direction is the gradient; with weight decay, the gradient plus that times the data.
    2. With a momentum, the direction comes from `momentum_direction`, with the state and the group's options.
    3. Subtract lr times the direction from the data, in place.

    EXAMPLE:
    >>> w = Parameter([1.0]); w.grad = Tensor([2.0])
    >>> SGD([w], lr=0.1).step(); w.data
    array([0.8], dtype=float32)

    HINT: `data = data - ...` only gives a new array the name `data`; and `gradient += ...` would change the caller's.
    """

    array_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

    def check_group(self, owner: str, group: Group) -> None:
        """Refuse wrong options, and Nesterov's look-ahead without a momentum or with a dampening."""
        super().check_group(owner, group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            both = f"momentum={group['momentum']}, dampening={group['dampening']}"
            raise ValueError(f"{owner}: nesterov needs a momentum and no dampening, got {both}")

    def update(self, data: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step of a single parameter."""
        ### BEGIN SOLUTION
        direction = gradient
        if group["weight_decay"]:
            direction = gradient + group["weight_decay"] * data
        if group["momentum"]:
            options = group["momentum"], group["dampening"], group["nesterov"]
            direction = momentum_direction(direction, state, *options)
        data -= group["lr"] * direction
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-sgd", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
def test_sgd():
    w = with_gradient([1.0, 2.0], [2.0, -4.0])
    array = w.data
    SGD([w], lr=0.5).step()
    close(array, [0, 4], dtype=np.float32, why="data -= lr * gradient, in place")
    assert w.data is array, "the parameter keeps its array"
    close(w.grad.data, [2, -4], why="the gradient stays as it was")
    w = with_gradient([1.0, 2.0], [2.0, -4.0])
    SGD([w], lr=0.5, weight_decay=0.1).step()
    close(w.data, [-0.05, 3.9], why="the decay adds weight_decay * data to the gradient")
    close(w.grad.data, [2, -4], why="the decay must not be added to the parameter's own gradient")
    for options, want in [
        ({"momentum": 0.5}, [0.8, 0.5, 0.15]),
        ({"momentum": 0.5, "dampening": 0.5}, [0.8, 0.6, 0.4]),
        ({"momentum": 0.5, "nesterov": True}, [0.7, 0.35, -0.025]),
        ({"momentum": 0.5, "weight_decay": 1.0}, [0.7, 0.28, -0.158]),
    ]:
        w = with_gradient([1.0], [2.0])
        optimizer, got = SGD([w], lr=0.1, **options), []
        for _ in range(3):
            optimizer.step()
            got.append(float(w.data[0]))
        close(got, want, what=f"three steps with {options}", why="decay first, then momentum, then the rate")
    plain = with_gradient([1.0], [2.0])
    without = SGD([plain], lr=0.1)
    without.step()
    assert not any(without.state.values()), "without momentum nothing is remembered"
    for wrong in ({"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}):
        with raises(ValueError, "SGD", "nesterov"):
            SGD([w], lr=0.1, **wrong)
    ### BEGIN HIDDEN TESTS
    maker = np.random.default_rng()
    lr, mu, decay = maker.uniform(0.1, 0.5, size=3).tolist()
    begin, push = maker.normal(size=(2, 3, 2))
    tested = with_gradient(begin, push, np.float64)
    other = with_gradient(begin, push, np.float64)
    both = SGD([{"params": tested, "weight_decay": decay}, {"params": other, "lr": 2 * lr, "momentum": 0.0}], lr, mu)
    here, speed = begin.copy(), np.zeros((3, 2))
    for _turn in range(4):
        both.step()
        speed = mu * speed + push + decay * here
        here = here - lr * speed
    close(tested.data, here, rtol=1e-12, dtype=np.float64)
    close(other.data, begin - 8 * lr * push, rtol=1e-12, dtype=np.float64)
    single = with_gradient(2.0, 1.0)
    SGD([single], 0.5, 0.9).step()
    close(single.data, 1.5, dtype=np.float32, why="a parameter of shape () is one, too")
    ### END HIDDEN TESTS


test_sgd()

# %% [markdown]
# (1 − 0.1 · 0.5)¹⁰ = 0.6 of the weight is left. Now the valley again, the same number of steps for each:

# %%
def walk_down(make, steps=60, curvature=(1.0, 30.0), turn=None):
    """The path of an optimizer through the valley; `turn` is a matrix that turns the valley, and START with it."""
    turn = np.eye(2) if turn is None else turn
    place = Parameter(turn.T @ START, np.float64)
    optimizer = make([place])
    path = [place.data.copy()]
    for _ in range(steps):
        place.grad = Tensor(turn.T @ (np.array(curvature) * (turn @ place.data)), np.float64)
        optimizer.step()
        path.append(place.data.copy())
    return np.array(path) @ turn.T


def steps_to_rest(path):
    """The step from which on x and y stay below 0.1, which is 1 % of the first x."""
    return int(np.flatnonzero(np.abs(path).max(axis=1) > 0.1)[-1]) + 1


balls = {
    "SGD, rate 0.06": lambda p: SGD(p, 0.06),
    "momentum 0.7, rate 0.06": lambda p: SGD(p, 0.06, momentum=0.7),
    "Nesterov 0.7, rate 0.03": lambda p: SGD(p, 0.03, momentum=0.7, nesterov=True),
}
figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True, layout="constrained")
for number, (axes, (label, make)) in enumerate(zip(panels, balls.items(), strict=True)):
    draw_valley(axes, walk_down(make), label, f"C{number}")
plt.show()
print({label: steps_to_rest(walk_down(make, steps=400)) for label, make in balls.items()})

# %% [markdown]
# Steps until x and y stay below 0.1: 75 for SGD, 24 with a momentum of 0.7, and 35 with Nesterov's look-ahead at half
# the rate, which does not swing. With the best rate and momentum, the number of steps grows about as the root of the
# ratio of the slopes, no longer as the ratio; section 8 draws it.
#
# ### What a step costs
#
# A step touches every number of the network. How it is written decides how long that takes. Predict two ratios: of the
# loop to whole arrays, and of these to the same in place.

# %%
def step_by_number(data, gradient, lr):
    for place in range(len(data)):
        data[place] -= lr * gradient[place]


def step_with_new_array(data, gradient, lr):
    return data - lr * gradient


def step_in_place(data, gradient, lr, scratch):
    np.multiply(gradient, lr, out=scratch)
    np.subtract(data, scratch, out=data)


rng = np.random.default_rng(0)
numbers, slopes = rng.standard_normal((2, 1_000_000), np.float32)
scratch = np.empty_like(numbers)
costs = {
    "a loop over numbers": measure(step_by_number, numbers[:10_000], slopes[:10_000], 1e-3),
    "whole arrays": measure(step_with_new_array, numbers, slopes, 1e-3, repeats=20),
    "in place, with out=": measure(step_in_place, numbers, slopes, 1e-3, scratch, repeats=20),
}
per_million = [cost.median_s * (100 if "loop" in label else 1) * 1e3 for label, cost in costs.items()]
for (label, cost), milliseconds in zip(costs.items(), per_million, strict=True):
    print(f"{label:20} {milliseconds:8.2f} ms a million numbers, {cost.peak_bytes / 1e6:.1f} MB of new memory")

# %% [markdown]
# Measured here, median of 60, interleaved on a busy machine: 210 ms, 7 ms and 0.7 ms. The first ratio, 30, is what
# one expects. The second is about 10, for the same two operations. A new array of 4 MB is memory that the system must
# find and clear first, and this takes longer than the arithmetic; the scratch array is there already, and still in
# the cache.
#
# ## 6. An average that begins at zero
#
# Momentum helps, but one rate still serves all numbers. Suppose that a weight's gradients are about 100, and another's
# about 0.01. What rate suits both? We would like to divide each gradient by its usual size. The usual size is an
# average, and it should forget: a *moving average*.
#
# $$m \leftarrow \beta m + (1 - \beta) g$$
#
# It needs a first value, and the honest one, "nothing yet", is zero. Predict: the gradient is 1 at every step, and
# $\beta = 0.999$. What is the average after one step, and after 100?
#
# The weights of the values so far, $(1-\beta)(1 + \beta + ... + \beta^{t-1})$, add up to $1 - \beta^t$ and not to 1.
# So divide by that.
#
# ### Exercise: `moving_averages`

# %% nbgrader={"grade": false, "grade_id": "optimizers-averages", "locked": false, "schema_version": 3, "solution": true, "task": false}
def moving_averages(values, beta):
    """The moving average after each of ``values``, as it is and corrected: two arrays.

    TODO: Run through the values; note the average, and the average divided by 1 - beta**t.

    APPROACH:
    1. The average begins at 0.0.
    2. Each value: beta of the average, plus 1 - beta of the value.
    3. The correction after the t-th value, counted from 1.

    EXAMPLE:
    >>> moving_averages([4.0, 4.0], 0.5)
    (array([2., 3.]), array([4., 4.]))

    HINT: The correction is for the reader. The average that goes on to the next step is the plain one.
    """
    ### BEGIN SOLUTION
    average, plain, corrected = 0.0, [], []
    for count, value in enumerate(values, start=1):
        average = beta * average + (1 - beta) * value
        plain.append(average)
        corrected.append(average / (1 - beta**count))
    return np.array(plain), np.array(corrected)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-averages", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_moving_averages():
    plain, corrected = moving_averages([4.0, 0.0, 8.0], 0.5)
    assert isinstance(plain, np.ndarray) and isinstance(corrected, np.ndarray), "both lists become arrays"
    close(plain, [2, 1, 4.5], why="beta * average + (1 - beta) * value, from zero")
    close(corrected, [4, 4 / 3, 36 / 7], why="divide by 1 - beta**t, where t counts from 1")
    ### BEGIN HIDDEN TESTS
    beta = float(np.random.default_rng().uniform(0.6, 0.95))
    samples = np.random.default_rng().normal(size=9)
    shares = beta ** np.arange(8, -1, -1.0)
    smooth, fair = moving_averages(samples.tolist(), beta)
    close(float(smooth[-1]), float((1 - beta) * (shares * samples).sum()))
    close(float(fair[-1]), float((shares * samples).sum() / shares.sum()), why="a weighted mean of what came so far")
    close(moving_averages([3.0] * 5, beta)[1], [3] * 5)
    ### END HIDDEN TESTS


test_moving_averages()

# %% [markdown]
# Adam (section 7) divides an average of the gradients, with $\beta_1 = 0.9$, by the root of an average of their
# squares, with $\beta_2 = 0.999$. Both begin at zero, so both are too small at first. If you leave the corrections
# out, will the first steps be too small or too large? Predict, then run:

# %%
count = np.arange(1, 3001)
first_moment, second_moment = moving_averages(np.ones(3000), 0.9), moving_averages(np.ones(3000), 0.999)
step_sizes = {
    "both corrected": first_moment[1] / np.sqrt(second_moment[1]),
    "neither": first_moment[0] / np.sqrt(second_moment[0]),
    "only the squares corrected": first_moment[0] / np.sqrt(second_moment[1]),
}
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for label, sizes in step_sizes.items():
    axes.semilogx(count, sizes, label=label)
axes.set_xlabel("step")
axes.set_ylabel("size of a step, in rates")
axes.set_title("Every gradient is 1: every step should be 1 rate")
axes.legend()
plt.show()
neither = step_sizes["neither"]
print(f"neither corrected: {neither[0]:.2f} at first, {neither.max():.2f} at step {int(neither.argmax()) + 1}")
print(f"still {neither[999]:.2f} at step 1000")

# %% [markdown]
# Too large: 3.2 times at first, 6.6 times at step 12, and still 1.3 times at step 1,000, for the average below is the
# slower one, and stands under a root. The green curve is what one would guess. So the corrections are no detail:
# without them the first thousand steps run at a rate that nobody asked for.
#
# ## 7. Adam
#
# All of it together, from the paper (Kingma & Ba 2015, "Adam: a method for stochastic optimization"):
#
# $$m \leftarrow \beta_1 m + (1-\beta_1) g \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2 \qquad
# w \leftarrow w - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$
#
# In words: the average slope, in units of its usual size. Where the slopes agree, a step is about one rate long.
# Where they contradict each other, it is short. $\epsilon$ keeps zero from being divided by zero.
#
# For one parameter, straight from the paper, this is:

# %%
def adam_by_the_paper(data, gradient, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    """The new data, m and v after step t, counted from 1; every line makes new arrays."""
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return data - lr * m_hat / (np.sqrt(v_hat) + eps), m, v

# %% [markdown]
# Count the new arrays of the size of the parameter that these lines make: fourteen. The version of your package works
# in place, with one scratch array, and saves a pass by moving the corrections out of the arrays. With
# $c = \sqrt{1 - \beta_2^t}$, multiply numerator and denominator by c:
#
# $$\frac{m / (1 - \beta_1^t)}{\sqrt{v}/c + \epsilon} = \frac{c}{1 - \beta_1^t} \cdot \frac{m}{\sqrt{v} + c\,\epsilon}$$
#
# The first factor is a plain number: it joins the rate.
#
# ### Exercise: `adam_update`

# %% nbgrader={"grade": false, "grade_id": "optimizers-adam-update", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def adam_update(
    data: Array,
    gradient: Array,
    state: dict[str, Any],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step of Adam for one parameter, in place, with one scratch array of the parameter's size.

    Parameters
    ----------
    data
        The numbers that are changed.
    gradient
        Their gradient; it is not changed.
    state
        Empty at first; then "step" (how many there were), "exp_avg" and "exp_avg_sq", the moving averages of the
        gradient and of its square, of the shape and dtype of ``data``.
    lr, betas, eps
        The rate, the two averages' memories, and what is added to the denominator.

    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.

    TODO: Update both averages, then take the step.

    APPROACH:
    1. If `state` is empty, put step 0 and two arrays of zeros into it. Then count this step.
    2. `exp_avg` times beta1, plus (1 - beta1) times the gradient, which the scratch array holds on the way.
    3. `exp_avg_sq` times beta2, plus (1 - beta2) times the gradient's square, in the same manner.
    4. The root of `exp_avg_sq` into the scratch array; add `c * eps`; divide `exp_avg` by it, into the scratch array.
    5. Multiply by lr * c / (1 - beta1**step), and subtract from the data.

    EXAMPLE:
    >>> w, state = np.array([1.0, 1.0]), {}
    >>> adam_update(w, np.array([100.0, -0.01]), state, lr=0.1); w
    array([0.9, 1.1])

    HINT: `np.multiply(a, b, out=scratch)` and `scratch *= 2` write into the array that is there. `state["step"] += 1`
    changes the state; `step = state["step"] + 1` alone would not.
    """
    if not state:
        state.update(step=0, exp_avg=np.zeros_like(data), exp_avg_sq=np.zeros_like(data))
    scratch = np.empty_like(data)
    ### BEGIN SOLUTION
    state["step"] += 1
    mean, square, (beta1, beta2) = state["exp_avg"], state["exp_avg_sq"], betas
    mean *= beta1
    np.multiply(gradient, 1 - beta1, out=scratch)
    mean += scratch
    square *= beta2
    np.multiply(gradient, gradient, out=scratch)
    scratch *= 1 - beta2
    square += scratch
    shrink = math.sqrt(1 - beta2 ** state["step"])
    np.sqrt(square, out=scratch)
    scratch += shrink * eps
    np.divide(mean, scratch, out=scratch)
    scratch *= lr * shrink / (1 - beta1 ** state["step"])
    data -= scratch
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-adam-update", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_adam_update():
    data, state = np.array([1.0, 1.0, 1.0]), Memory().state
    gradient = np.array([100.0, -0.01, 0.0])
    adam_update(data, gradient, state, lr=0.1)
    close(data, [0.9, 1.1, 1.0], why="the first step is one rate long, whatever the size of the gradient, if corrected")
    close(gradient, [100, -0.01, 0], why="the gradient is not ours to change")
    assert sorted(state) == ["exp_avg", "exp_avg_sq", "step"] and state["step"] == 1, "the state counts this step"
    close(state["exp_avg"], [10, -0.001, 0], rtol=1e-12, atol=0, why="(1 - beta1) of the gradient")
    close(state["exp_avg_sq"], [10, 1e-7, 0], rtol=1e-12, atol=0, why="(1 - beta2) of the gradient's square")
    held = state["exp_avg"], state["exp_avg_sq"]
    adam_update(data, np.array([-100.0, 0.03, 0.0]), state, lr=0.1)
    assert state["step"] == 2, f"after two steps the state counts {state['step']}"
    assert state["exp_avg"] is held[0] and state["exp_avg_sq"] is held[1], "the averages change in place"
    close(state["exp_avg"], [-1, 0.0021, 0], why="beta1 of the average, plus 1 - beta1 of the new gradient")
    close(state["exp_avg_sq"], [19.99, 9.999e-7, 0], why="beta2 of the average, plus 1 - beta2 of the new square")
    close(data, [0.9 + 0.1 / 19 / 1.0, 1.1 - 0.04943, 1.0], atol=1e-5, why="both corrections, for step 2")
    for eps, want in ((1.0, 1 - 0.1 * 2 / 3), (0.0, 0.9)):
        w = np.array([1.0])
        adam_update(w, np.array([2.0]), Memory().state, 0.1, (0.5, 0.75), eps)
        close(w, [want], what=f"eps = {eps}", why="eps is added to the root of the corrected average: c * eps here")
    small = np.ones((2, 3), np.float32)
    kept = Memory().state
    adam_update(small, np.ones((2, 3), np.float32), kept)
    close(small, np.full((2, 3), 0.999), dtype=np.float32)
    close(kept["exp_avg_sq"], np.full((2, 3), 0.001), dtype=np.float32, why="float32 stays float32")
    ### BEGIN HIDDEN TESTS
    roller = np.random.default_rng()
    first, second = roller.uniform(0.5, 0.95, size=2).tolist()
    rate, little = roller.uniform(0.01, 0.5, size=2).tolist()
    here, gradients = roller.normal(size=(3, 2)), roller.normal(size=(6, 3, 2))
    tested, remembered = here.copy(), Memory().state
    mean, power = np.zeros((3, 2)), np.zeros((3, 2))
    for time, push in enumerate(gradients, start=1):
        adam_update(tested, push, remembered, rate, (first, second), little)
        mean, power = first * mean + (1 - first) * push, second * power + (1 - second) * push**2
        here = here - rate * mean / (1 - first**time) / (np.sqrt(power / (1 - second**time)) + little)
        close(tested, here, rtol=1e-10, atol=1e-12, what=f"step {time}")
    lone, note = np.array(1.0, np.float32), Memory().state
    for _ in range(3):
        adam_update(lone, np.array(5.0, np.float32), note, 0.25)
    close(lone, 0.25, dtype=np.float32, rtol=1e-4, why="a parameter of shape () is one, too")
    ### END HIDDEN TESTS


test_adam_update()

# %% [markdown]
# Predict the ratios: the paper's lines number by number in a Python loop, on whole arrays, and your version in place. A
# million numbers, as in a small network.

# %%
def adam_by_number(data, gradient, m, v, t):
    for place in range(len(data)):
        data[place], m[place], v[place] = adam_by_the_paper(data[place], gradient[place], m[place], v[place], t)


weights, gradient = np.random.default_rng(0).standard_normal((2, 1_000_000), np.float32)
m, v, memory = np.zeros_like(weights), np.zeros_like(weights), {}
few = [array[:2_000].copy() for array in (weights, gradient, m, v)]
costs = {
    "a loop over numbers": measure(adam_by_number, *few, 1, repeats=1),
    "by the paper": measure(adam_by_the_paper, weights, gradient, m, v, 1, repeats=20),
    "in place": measure(adam_update, weights, gradient, memory, repeats=20),
}
for label, cost in costs.items():
    milliseconds = cost.median_s * 1e3 * (500 if "loop" in label else 1)
    print(f"{label:20} {milliseconds:8.2f} ms a million numbers, {cost.peak_bytes / 1e6:.1f} MB of new memory")

# %% [markdown]
# Measured here, median of 60, interleaved on a busy machine: 3,200 ms, 55 ms and 10 ms for a million numbers, so 58
# times and then 5 times faster; and 4 MB of new memory, for the scratch array, in the place of 28 MB. In the loop
# each number is an object with a method call for every sign in the formula.
#
# ## 8. Adam, AdamW, and what decays
#
# Weight decay once more. Adding $\lambda w$ to the gradient, as SGD does, is easy, and for years everybody did it.
# But what does Adam do with whatever is added to a gradient? It divides it by the gradient's usual size. Predict: two
# weights, one with gradients of about 10, one of about 0.1. Which one decays faster, and by what factor?
#
# **AdamW** (Loshchilov & Hutter 2019, "Decoupled weight decay regularization") takes the decay out of the gradient: the
# weight is multiplied by $1 - \eta \lambda$, and then Adam steps as if there were no decay.
#
# ### Exercise: `Adam.update` and `AdamW.update`

# %% nbgrader={"grade": false, "grade_id": "optimizers-adam", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Adam(Optimizer):
    """Adam: each number's step is its average gradient in units of the gradient's usual size; see ``adam_update``.

    Parameters
    ----------
    params
        Parameters, or groups of them.
    lr
        The rate, about the length of a step where the gradients agree.
    betas
        How much of the averages of the gradient and of its square stays at each step.
    eps
        Added to the denominator.
    weight_decay
        This times the parameter is added to the gradient; Adam then divides it like any gradient. See ``AdamW``.

    Raises
    ------
    TypeError, ValueError
        See ``Optimizer``.

    TODO: Fill in `update` here and in AdamW below.

    APPROACH:
    1. Here: the gradient, with weight decay plus that times the data, goes to `adam_update` with the group's options.
    2. In AdamW: with weight decay, the data are multiplied by 1 - lr * weight_decay, in place; then `adam_update` gets
       the gradient as it came.

    EXAMPLE:
    >>> w = Parameter([10.0]); w.grad = Tensor([2.0])
    >>> AdamW([w], lr=0.1, weight_decay=0.5).step(); w.data  # 10 * 0.95 - 0.1
    array([9.4], dtype=float32)

    HINT: The decay of AdamW comes first, from the numbers before the step.
    """

    array_names = ("exp_avg", "exp_avg_sq")
    number_names = ("step",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, data: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step of a single parameter."""
        ### BEGIN SOLUTION
        slope = gradient
        if group["weight_decay"]:
            slope = gradient + group["weight_decay"] * data
        adam_update(data, slope, state, group["lr"], group["betas"], group["eps"])
        ### END SOLUTION


class AdamW(Adam):
    """Adam with decoupled weight decay: each step first multiplies the parameter by ``1 - lr * weight_decay``.

    Parameters and errors are those of ``Adam``.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization".
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, data: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step of a single parameter."""
        ### BEGIN SOLUTION
        if group["weight_decay"]:
            data *= 1 - group["lr"] * group["weight_decay"]
        adam_update(data, gradient, state, group["lr"], group["betas"], group["eps"])
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-adam", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_adam_classes():
    for kind, decay, want in [(Adam, 0.0, 9.9), (AdamW, 0.0, 9.9), (Adam, 0.5, 9.9), (AdamW, 0.5, 9.4)]:
        w = with_gradient([10.0], [2.0])
        array = w.data
        kind([w], lr=0.1, weight_decay=decay).step()
        why = "Adam decays through the gradient, and AdamW multiplies by 1 - lr * weight_decay"
        close(array, [want], dtype=np.float32, what=f"{kind.__name__} with decay {decay}", why=why)
        close(w.grad.data, [2], why="the parameter's own gradient stays as it was")
    w = with_gradient([10.0], [-4.0])
    Adam([w], lr=0.1, weight_decay=0.5).step()
    close(w.data, [9.9], why="the gradient is -4 + 0.5 * 10 = 1, so the step goes down")
    w = with_gradient([1.0], [0.0])
    AdamW([w], lr=0.1).step()
    close(w.data, [0.999], why="AdamW's weight decay is 0.01 by default")
    w = with_gradient([1.0], [2.0])
    Adam([w], lr=0.1, betas=(0.5, 0.75), eps=1.0).step()
    close(w.data, [1 - 0.1 * 2 / 3], why="hand betas and eps on to adam_update")
    w = with_gradient([1.0], [2.0])
    AdamW([w], lr=0.1, betas=(0.5, 0.75), eps=1.0, weight_decay=0.0).step()
    close(w.data, [1 - 0.1 * 2 / 3], why="hand betas and eps on to adam_update, in AdamW as well")
    for wrong in ({"betas": (1.0, 0.9)}, {"betas": 0.9}, {"lr": 0.0}, {"lr": float("nan")}, {"eps": -1e-8}):
        with raises(TypeError if wrong == {"betas": 0.9} else ValueError, "Adam", *wrong):
            Adam([w], **wrong)
    ### BEGIN HIDDEN TESTS
    dice = np.random.default_rng()
    rate, decay, early, late = dice.uniform(0.1, 0.9, size=4).tolist()
    values, pushes = dice.normal(size=4), dice.normal(size=(5, 4))
    for tested_class in (Adam, AdamW):
        tested = Parameter(values, np.float64)
        optimizer = tested_class([tested], rate, (early, late), 0.01, decay)
        spot, average, power = values.copy(), np.zeros(4), np.zeros(4)
        for time, push in enumerate(pushes, start=1):
            tested.grad = Tensor(push, np.float64)
            optimizer.step()
            if tested_class is Adam:
                push = push + decay * spot
            else:
                spot = spot * (1 - rate * decay)
            average, power = early * average + (1 - early) * push, late * power + (1 - late) * push * push
            spot = spot - rate * average / (1 - early**time) / (np.sqrt(power / (1 - late**time)) + 0.01)
            close(tested.data, spot, rtol=1e-9, dtype=np.float64, what=f"{tested_class.__name__}, step {time}")
    ### END HIDDEN TESTS


test_adam_classes()

# %%
rng = np.random.default_rng(0)
noise = rng.normal(size=(2000, 2)) * np.array([10.0, 0.1])  # what a batch says, at random, twice: loudly and softly
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
left = {}
for kind, style in ((Adam, "-"), (AdamW, "--")):
    pair = Parameter([1.0, 1.0], np.float64)
    optimizer = kind([pair], lr=1e-3, weight_decay=0.5)
    path = []
    for push in noise:
        pair.grad = Tensor(push, np.float64)
        optimizer.step()
        path.append(pair.data.copy())
    left[kind.__name__] = path[-1].round(3).tolist()
    for column, label in ((0, "loud"), (1, "soft")):
        axes.plot(np.array(path)[:, column], style, color=f"C{column}", label=f"{kind.__name__}, {label} gradients")
axes.plot((1 - 5e-4) ** np.arange(2000), ":", color="k", label="decay alone")
axes.set_xlabel("step")
axes.set_ylabel("weight")
axes.set_title("Weight decay 0.5, rate 0.001, gradients of noise")
axes.legend(fontsize="small")
plt.show()
print("after 2,000 steps, [loud, soft]:", left)

# %% [markdown]
# The decay is the same for all four, and AdamW takes nearly the same from both weights: 0.39 and 0.37 are left, where
# decay alone leaves 0.37. Adam leaves 0.95 of the loud one, and 0.02 of the soft one. It protects those weights from
# decay that have large gradients, which nobody wanted. This is why language models are trained with AdamW.
#
# ### The valley, and the valley turned
#
# A size for each number: so Adam should not care how steep the valley is across. The figure has steeper and steeper
# valleys, each walked with a rate that suits it: SGD with 1.9 over the steepness, momentum at its best, Adam always
# with 0.1. And once more for Adam, with the same valley turned by 45 degrees. Predict: who notices the turn, and how
# much?

# %%
angle = math.pi / 4
TURN = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
steepness = (10, 30, 100, 300, 1000)


def best_momentum(steep):
    root = math.sqrt(steep)
    return lambda p: SGD(p, (2 / (1 + root)) ** 2, momentum=((root - 1) / (root + 1)) ** 2)


walkers = {
    "SGD": (lambda steep: lambda p: SGD(p, 1.9 / steep), None),
    "momentum": (best_momentum, None),
    "Adam": (lambda steep: lambda p: Adam(p, 0.1), None),
    "Adam, valley turned": (lambda steep: lambda p: Adam(p, 0.1), TURN),
}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 2.9), layout="constrained")
draw_valley(left, walk_down(lambda p: Adam(p, 0.1), 250), "Adam", "C2")
draw_valley(middle, walk_down(lambda p: Adam(p, 0.1), 250, turn=TURN), "Adam, valley turned", "C3")
for label, (maker, turn) in walkers.items():
    rests = [steps_to_rest(walk_down(maker(k), 2500, (1.0, k), turn)) for k in steepness]
    right.loglog(steepness, rests, "o-", markersize=4, label=label)
    print(f"{label:20} steps to rest: {rests}")
right.set_xlabel("how much steeper across than along")
right.set_title("steps to rest")
right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# 213 steps for Adam, whatever the steepness: the promise holds, where SGD needs from 22 to 2,422. In the turned
# valley (drawn as if it was turned back) it is 155, 216, 433, 856 and 1,730: both numbers now share the steep
# direction, so neither has a size of its own. SGD and momentum do not notice a turn at all. Momentum at its best is
# ahead of all here, but who knows the best rate and momentum of a network?
#
# ## 9. One bad batch
#
# Now and then a batch has a gradient a thousand times as long as usual: a mislabelled example, a sequence of repeated
# words, an overflow. One step along it can undo a day of training. So the gradients of all parameters together, taken
# as one long vector, are made shorter if they are too long: same direction, length at most `max_norm`.
#
# The norm is worth a curve in every training, so the function returns it: as it was *before* clipping.
#
# What if a gradient is infinite, or NaN? Then there is no direction to save. As in PyTorch, an infinite norm makes the
# factor 0, so that finite gradients become 0 and infinite ones NaN; a norm of NaN makes all of them NaN. That is loud,
# which is good: the next loss is NaN, and whoever trains will see it. `error_if_nonfinite=True` stops before anything
# is changed.
#
# ### Exercise: `clip_grad_norm`

# %% nbgrader={"grade": false, "grade_id": "optimizers-clip", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def total_norm(arrays: Iterable[Array], norm_type: float = 2.0) -> float:
    """The norm of all numbers in ``arrays`` as of one vector; 0.0 if there are none."""
    with np.errstate(over="ignore"):
        norms = [float(np.linalg.norm(array.ravel(), norm_type)) for array in arrays]
        return float(np.linalg.norm(norms, norm_type)) if norms else 0.0


def clip_grad_norm(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by one factor, in place, so that together their norm is at most ``max_norm``.

    The factor is ``max_norm / (norm + 1e-6)``, as in PyTorch, and gradients that are short enough stay as they are. If
    the norm is infinite, then the factor is 0: infinite gradients become NaN, finite ones 0. If it is NaN, all become
    NaN.

    Parameters
    ----------
    parameters
        A Parameter, or an iterable of them; those without a gradient do not count.
    max_norm
        The greatest length allowed; ``math.inf`` only measures.
    norm_type
        2 for the length, ``math.inf`` for the largest absolute number, or another p.
    error_if_nonfinite
        Refuse a norm that is infinite or NaN.

    Returns
    -------
    float
        The norm before scaling.

    Raises
    ------
    ValueError
        If ``max_norm`` is negative or NaN.
    RuntimeError
        If ``error_if_nonfinite`` is set and the norm is not finite; nothing has been changed.

    TODO: Measure, refuse if told to, scale if too long, and return the norm.

    APPROACH:
    1. `gradients` holds the arrays; `total_norm` measures them.
    2. `math.isfinite` tells whether the norm is a finite number. If it is not and that is refused, raise
       `RuntimeError(f"clip_grad_norm: the norm of the gradients is {...}, nothing was clipped")`.
    3. The factor. Unless it is 1 or greater, multiply every gradient by it, in place.
    4. Return the norm.

    EXAMPLE:
    >>> w = Parameter([1.0, 1.0]); w.grad = Tensor([3.0, 4.0])
    >>> clip_grad_norm([w], max_norm=1.0), w.grad
    (5.0, Tensor([0.6, 0.8]))

    HINT: `min(1, nan)` is 1, and `nan < 1` is False: write `if not factor >= 1`, so that NaN gets through to the
    gradients.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm should be 0 or greater, got {max_norm}")
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [parameter.grad.data for parameter in listed if parameter.grad is not None]
    ### BEGIN SOLUTION
    norm = total_norm(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm: the norm of the gradients is {norm}, nothing was clipped")
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:
        with np.errstate(invalid="ignore"):
            for gradient in gradients:
                gradient *= factor
    return norm
    ### END SOLUTION


clip_grad_norm_ = clip_grad_norm

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-clip", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_clip_grad_norm():
    a, b, c = with_gradient([0.0, 0.0], [3.0, 0.0]), with_gradient([[0.0]], [[-4.0]]), Parameter([1.0])
    held = a.grad.data
    norm = clip_grad_norm([a, b, c], 0.5)
    assert type(norm) is float, f"expected a Python float, got {type(norm).__name__}"
    close(norm, 5.0, why="return the norm of all gradients together, from before clipping")
    close(held, [0.3, 0], dtype=np.float32, why="scale in place, all by the same factor 0.5 / 5")
    close(b.grad.data, [[-0.4]], dtype=np.float32)
    assert c.grad is None, "a parameter without a gradient does not count"
    close(clip_grad_norm(one_by_one(a, b), 0.5), 0.5)
    close(a.grad.data, [0.3, 0], why="short enough: nothing changes")
    close(clip_grad_norm([a, b], 0.75), 0.5)
    close(b.grad.data, [[-0.4]], why="short gradients are not made longer")
    close(clip_grad_norm(b, 0.1, math.inf), 0.4, why="hand norm_type on to total_norm")
    close(b.grad.data, [[-0.1]])
    close(clip_grad_norm([], 1.0), 0.0)
    close(clip_grad_norm([c], 1.0), 0.0, why="no gradients: the norm is 0")
    for wrong in (-1.0, float("nan")):
        with raises(ValueError, str(wrong)):
            clip_grad_norm([a], wrong)
    with np.errstate(all="raise", under="ignore"):
        for bad, want in ((np.inf, [np.nan, 0.0]), (np.nan, [np.nan, np.nan])):
            one, two = with_gradient([0.0], [bad]), with_gradient([0.0], [1.0])
            with raises(RuntimeError, str(bad), why="error_if_nonfinite refuses this norm"):
                clip_grad_norm([one, two], 1.0, error_if_nonfinite=True)
            close(two.grad.data, [1], why="what is refused is not changed")
            close(clip_grad_norm([one, two], 1.0), bad)
            close([float(one.grad.data[0]), float(two.grad.data[0])], want, what=f"gradients with {bad}")
    assert clip_grad_norm([a, b], 1.0, error_if_nonfinite=True) < 1, "a finite norm is not refused"
    ### BEGIN HIDDEN TESTS
    caster = np.random.default_rng()
    slopes = [caster.normal(size=(2, 3)), caster.normal(size=4), caster.normal(size=())]
    flat = np.concatenate([slope.ravel() for slope in slopes])
    limit = float(caster.uniform(0.1, 0.5))
    for kind, whole in ((2.0, np.sqrt((flat * flat).sum())), (1.0, np.abs(flat).sum()), (math.inf, np.abs(flat).max())):
        clipped = [with_gradient(np.zeros(slope.shape), slope, np.float64) for slope in slopes]
        close(clip_grad_norm(clipped, limit, kind), float(whole), what=f"the norm of type {kind}")
        for parameter, slope in zip(clipped, slopes, strict=True):
            close(parameter.grad.data, slope * (limit / (whole + 1e-6)), rtol=1e-9, atol=0, dtype=np.float64)
    ### END HIDDEN TESTS


test_clip_grad_norm()

# %% [markdown]
# A line is learned from batches of 8 examples, and in step 50 one target was typed in without its decimal point: it
# is 1,000 times too large. Predict: which of the three optimizers comes off worst?

# %%
def learn_a_line(make, max_norm=math.inf):
    """The error of the weights after each of 300 steps."""
    rng = np.random.default_rng(1)
    truth = np.array([[1.0], [-2.0]], np.float32)
    weight = Parameter(np.zeros((2, 1)))
    optimizer = make([weight])
    errors = []
    for step in range(300):
        x = rng.standard_normal((8, 2), np.float32)
        y = x @ truth + 0.1 * rng.standard_normal((8, 1), np.float32)
        if step == 50:
            y[0] *= 1000
        mse_loss(Tensor(x) @ weight, y).backward()
        clip_grad_norm([weight], max_norm)
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(np.abs(weight.data - truth).max()))
    return errors


learners = {
    "SGD": lambda p: SGD(p, 0.1),
    "momentum": lambda p: SGD(p, 0.02, momentum=0.9),
    "Adam": lambda p: Adam(p, 0.1),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for label, make in learners.items():
    free, clipped = learn_a_line(make), learn_a_line(make, 1.0)
    left.semilogy(free, label=label)
    right.semilogy(clipped, label=label)
    for how, errors in (("", free), ("clipped", clipped)):
        print(f"{label:9} {how:8} worst error afterwards {max(errors[50:]):5.2f}, at the end {errors[-1]:.3f}")
left.set_title("One mistyped target, in step 50")
right.set_title("The same, clipped at 1")
left.set_ylabel("error of the weights")
for axes in (left, right):
    axes.set_xlabel("step")
    axes.legend()
plt.show()

# %% [markdown]
# SGD is thrown 78 away and is back after 30 steps. Adam is off by less than 1, and that looks good: none of its steps
# is much longer than a rate. But it does not come back. 250 steps later its error is still 0.37, that of the others
# 0.02 and 0.03. The square of that one gradient stays in its second average for about 1,000 steps, and makes every
# step tiny. With clipping nobody is off by more than 0.11.
#
# ## 10. What an optimizer remembers
#
# Predict: a network takes 100 MB. How much do SGD, SGD with momentum, and Adam take beside it, once they have run?

# %%
def remembered_bytes(optimizer):
    return sum(np.asarray(value).nbytes for entry in optimizer.state.values() for value in entry.values())


kinds = {
    "SGD": lambda p: SGD(p, 0.1),
    "momentum": lambda p: SGD(p, 0.1, momentum=0.9),
    "Adam": lambda p: Adam(p),
    "AdamW": lambda p: AdamW(p),
}
shares = {}
for label, make in kinds.items():
    manual_seed(0)
    model = Sequential(Linear(512, 1024), Linear(1024, 512))
    optimizer = make(model.parameters())
    for parameter in model.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape))
    cost = measure(optimizer.step, repeats=3)
    size = sum(parameter.data.nbytes for parameter in model.parameters())
    shares[label] = remembered_bytes(optimizer) / size
    print(f"{label:9} remembers {shares[label]:.2f} of the parameters' {size / 1e6:.1f} MB; a step: {cost}")

figure, axes = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
gigabytes = np.array([[4.0, 4.0, 4.0 * share] for share in shares.values()])  # float32, 10**9 parameters
starts = np.cumsum(gigabytes, axis=1) - gigabytes
for column, label in enumerate(("parameters", "gradients", "optimizer")):
    bars = axes.barh(list(shares), gigabytes[:, column], left=starts[:, column], label=label, height=0.6)
    axes.bar_label(bars, [f"{value:.0f}" if value >= 1 else "" for value in gigabytes[:, column]], label_type="center")
axes.invert_yaxis()
axes.set_xlabel("GB for a billion parameters in float32")
axes.set_title("What must be in memory before the first activation")
axes.legend(loc="upper right", fontsize="small")
plt.show()

# %% [markdown]
# Nothing, as much again, and twice as much. A model of a billion parameters in float32 takes 4 GB to use and 16 GB to
# train with Adam, before the first activation. That is why a model that runs on a laptop cannot be trained on it, and
# why people store these averages in 8 bits, or spread them over many machines.
#
# ### Saving it
#
# Training is stopped, by you or by the power company, and shall go on tomorrow. Is it enough to save the weights?

# %%
grid = np.linspace(-3, 3, 64, dtype=np.float32)[:, None]


def new_model():
    manual_seed(0)
    return Sequential(Linear(1, 32), lambda x: x.tanh(), Linear(32, 1))


def train(model, optimizer, steps):
    curve = []
    for _ in range(steps):
        loss = mse_loss(model(Tensor(grid)), np.sin(2 * grid))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return curve


never_stopped = new_model()
losses = train(never_stopped, Adam(never_stopped.parameters(), 0.02), 800)

stopped = new_model()
train(stopped, Adam(stopped.parameters(), 0.02), 600)
forgetful = train(stopped, Adam(stopped.parameters(), 0.02), 200)
figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
axes.semilogy(losses, label="never stopped")
axes.semilogy(range(600, 800), forgetful, label="stopped at 600, weights saved")
axes.set_xlabel("step")
axes.set_ylabel("loss")
axes.legend()
plt.show()
for label, two in {"never stopped": losses[600:602], "weights saved": forgetful[:2]}.items():
    print(f"{label}: loss {two[0]:.4f}, and one step later {two[1]:.4f}")

# %% [markdown]
# The weights are the same, and so is the loss at the stop. One step later it is 34 times as large: 0.0857 in the
# place of 0.0025. Adam forgot how large the gradients usually are, and took a full step for every number again.
#
# So what it remembers is saved, too. In a file there are no objects, hence **positions**: the first parameter of the
# first group is 0, and so on. This is PyTorch's layout:
#
# ```
#   {"state": {0: {"step": 600, "exp_avg": array, "exp_avg_sq": array}, 1: ...},
#    "param_groups": [{"lr": 0.02, "betas": (0.9, 0.999), ..., "params": [0, 1, 2, 3]}]}
# ```
#
# Loading is strict, as in module 04: first everything is looked at, and what does not fit is named; only then is
# anything changed.
#
# ### Exercise: `optimizer_state` and `load_optimizer_state`

# %% nbgrader={"grade": false, "grade_id": "optimizers-state", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def parameters_in_order(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of all groups, in order; a position in a saved state is a place in this list."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def differences(what: str, mine: Iterable[str], given: Iterable[str]) -> Iterator[str]:
    """A line that names what only one side has; none if both have the same."""
    has, gets = set(mine), set(given)
    lists = {"missing": sorted(has - gets), "unexpected": sorted(gets - has)}
    told = "; ".join(f"{label}: {', '.join(names)}" for label, names in lists.items() if names)
    if told:
        yield f"{what}: {told}"


def misfits(optimizer: Optimizer, state: Mapping[str, Any]) -> Iterator[str]:
    """A line for everything in ``state`` that does not fit ``optimizer``."""
    mine, given = optimizer.param_groups, state["param_groups"]
    if [len(group["params"]) for group in mine] != [len(group["params"]) for group in given]:
        counts = [f"groups of {[len(group['params']) for group in side]} parameters" for side in (mine, given)]
        yield f"the optimizer has {counts[0]}, the state {counts[1]}"
        return
    for place, (ours, theirs) in enumerate(zip(mine, given, strict=True)):
        yield from differences(f"group {place}", {*ours} - {"initial_lr"}, {*theirs} - {"initial_lr"})
    parameters = parameters_in_order(optimizer)
    for position, entry in state["state"].items():
        if not str(position).isdigit() or int(position) >= len(parameters):
            yield f"state {position}: there are {len(parameters)} parameters"
            continue
        yield from differences(f"state {position}", optimizer.array_names + optimizer.number_names, entry)
        for name in optimizer.array_names:
            shape = parameters[int(position)].shape
            if name in entry and np.shape(entry[name]) != shape:
                yield f"state {position}: {name} has shape {np.shape(entry[name])}, the parameter {shape}"


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """What ``optimizer`` remembers, and its options, in PyTorch's layout: no objects, only numbers and copied arrays.

    Returns
    -------
    dict
        "state": for the position of each parameter that had a step, a dictionary of copies of what is remembered.
        "param_groups": a list with a dictionary of options for each group, in which "params" is a list of positions.

    TODO: Put positions in the place of parameters, and copies in the place of arrays.

    APPROACH:
    1. `enumerate(parameters_in_order(optimizer))` gives positions and parameters. Keep each position by the `id`.
    2. "state": for each parameter for which `optimizer.state.get(parameter)` is not empty, its dictionary, with arrays
       copied and numbers as they are.
    3. "param_groups": for each group a new dictionary with its options, and the list of positions under "params".

    EXAMPLE:
    >>> w = Parameter([1.0]); optimizer_state(SGD([w], lr=0.1, momentum=0.9))["param_groups"][0]["params"]
    [0]

    HINT: `copy.deepcopy` would copy the parameters as well. For a value, ask `isinstance(value, np.ndarray)`.
    """
    ### BEGIN SOLUTION
    places, remembered = {}, {}
    for place, parameter in enumerate(parameters_in_order(optimizer)):
        places[id(parameter)] = place
        entry = optimizer.state.get(parameter)
        if entry:
            remembered[place] = {
                name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in entry.items()
            }
    groups = [{**group, "params": [places[id(held)] for held in group["params"]]} for group in optimizer.param_groups]
    return {"state": remembered, "param_groups": groups}
    ### END SOLUTION


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Let ``optimizer`` go on where the one stood that ``state`` came from: what it remembered, and its options.

    Parameters
    ----------
    state
        What ``optimizer_state`` gave. It may have been through JSON: positions may be text, and pairs lists.

    Raises
    ------
    TypeError
        If ``state`` is no such dictionary.
    RuntimeError
        If anything does not fit; all of it is named, and nothing has been changed.

    TODO: Refuse what does not fit; then take over copies of what is remembered, and the options.

    APPROACH:
    1. `problems = list(misfits(optimizer, state))`. If there are any, raise one RuntimeError with a line for each.
    2. Make a new dictionary: for each position (`int(position)`), the parameter there, and a new dictionary with the
       arrays of `optimizer.array_names`, copied in the parameter's dtype, and the numbers of `number_names` as `int`.
    3. Only then change the optimizer: `optimizer.state` becomes this dictionary, and each group takes over the options
       of the saved one, all but "params". What is a tuple in the group stays one.

    EXAMPLE:
    >>> a, b = (SGD([Parameter([1.0])], lr=rate) for rate in (0.1, 0.2))
    >>> load_optimizer_state(a, optimizer_state(b)); a.param_groups[0]["lr"]
    0.2

    HINT: A copy on the way in as well. Two optimizers that share a buffer would both write into it.
    """
    is_state = isinstance(state, Mapping) and {"state", "param_groups"} <= set(state)
    if not is_state or not all("params" in group for group in state["param_groups"]):
        raise TypeError('load_state_dict: expected what state_dict gives, a dictionary with "state" and "param_groups"')
    ### BEGIN SOLUTION
    problems = list(misfits(optimizer, state))
    if problems:
        raise RuntimeError("\n  ".join([f"the state does not fit this {type(optimizer).__name__}:", *problems]))
    parameters = parameters_in_order(optimizer)
    loaded = {}
    for position, entry in state["state"].items():
        parameter = parameters[int(position)]
        arrays = {name: np.array(entry[name], parameter.dtype) for name in optimizer.array_names}
        loaded[parameter] = {**arrays, **{name: int(entry[name]) for name in optimizer.number_names}}
    optimizer.state = loaded
    for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for name, value in saved.items():
            if name != "params":
                group[name] = tuple(value) if isinstance(group.get(name), tuple) else value
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-state", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_optimizer_state():
    def build(kind, dtype=None, **options):
        a, b, c = Parameter([1.0, 2.0], dtype), Parameter([[3.0]], dtype), Parameter([4.0], dtype)
        a.grad, c.grad = Tensor([0.5, -1.0], a.dtype), Tensor([2.0], c.dtype)
        return kind([{"params": [b, a]}, {"params": [c], "lr": 0.01}], lr=0.1, **options), (a, b, c)

    one, (_, b, _) = build(Adam)
    one.step()
    one.step()
    state = optimizer_state(one)
    assert sorted(state) == ["param_groups", "state"], f"expected state and param_groups, got {sorted(state)}"
    positions = [list(group["params"]) for group in state["param_groups"]]
    assert positions == [[0, 1], [2]], f"b, a and c have the positions 0, 1 and 2, got {positions}"
    assert state["param_groups"][1]["lr"] == 0.01 and tuple(state["param_groups"][0]["betas"]) == (0.9, 0.999)
    assert one.param_groups[0]["params"][0] is b, "the optimizer's own groups stay as they are"
    assert sorted(state["state"]) == [1, 2], f"b had no gradient, so no state: expected 1 and 2, got {state['state']}"
    assert state["state"][1]["step"] == 2
    saved = np.array(state["state"][1]["exp_avg"])
    one.step()
    close(state["state"][1]["exp_avg"], saved, why="the state changed with the optimizer: copy the arrays")
    two, (d, e, f) = build(Adam)
    two.param_groups[1]["lr"] = 7.0
    d.data[...], f.data[...] = [0.9, 2.1], [3.99]
    two.load_state_dict(state)
    assert two.param_groups[1]["lr"] == 0.01 and two.param_groups[0]["params"][0] is e, "options, not parameters"
    assert type(two.param_groups[0]["betas"]) is tuple
    close(two.state[d]["exp_avg"], saved)
    assert len(two.state) == 2 and two.state[f]["step"] == 2, "e had no state, so it gets none"
    two.step()
    close(state["state"][1]["exp_avg"], saved, why="loading must copy as well")
    through_json = {"state": {"1": {"step": np.array(5), "exp_avg": [1, 2], "exp_avg_sq": [3, 4]}}}
    through_json["param_groups"] = [{**group, "betas": [0.5, 0.75]} for group in state["param_groups"]]
    two.load_state_dict(through_json)
    close(two.state[d]["exp_avg_sq"], [3, 4], dtype=np.float32, why="a position may be text, an array a list")
    assert type(two.state[d]["step"]) is int and two.param_groups[0]["betas"] == (0.5, 0.75)
    assert len(two.state) == 1, "what the loaded state does not have is forgotten"
    other, _ = build(SGD, momentum=0.9)
    with raises(RuntimeError, "Adam", "group 0", "missing", "betas", "unexpected", "momentum", "group 1"):
        two.load_state_dict(optimizer_state(other))
    wrong = {1: {"step": 1, "exp_avg": [1.0], "exp_avg_sq": [1.0, 1.0]}, 2: {"step": 1, "exp_avg": [1.0]}, 3: {}}
    with raises(RuntimeError, "(1,)", "(2,)", "state 2: missing: exp_avg_sq", "state 3", why="name all that is wrong"):
        two.load_state_dict({"state": wrong, "param_groups": state["param_groups"]})
    close(two.state[d]["exp_avg_sq"], [3, 4], why="if anything is wrong, nothing is loaded")
    with raises(TypeError, "state_dict"):
        two.load_state_dict({"state": {}})
    ### BEGIN HIDDEN TESTS
    tosser = np.random.default_rng()
    for kind, options in ((SGD, {"momentum": 0.9}), (SGD, {}), (Adam, {}), (AdamW, {"weight_decay": 0.1})):
        begin, pushes = tosser.normal(size=(2, 3)), tosser.normal(size=(6, 2, 3))
        always, before, after = (Parameter(begin, np.float64) for _ in range(3))
        steady, early, late = (kind([p], lr=0.05, **options) for p in (always, before, after))

        def push_all(pairs, slope):
            for parameter, optimizer in pairs:
                parameter.grad = Tensor(slope, np.float64)
                optimizer.step()

        for slope in pushes[:3]:
            push_all([(always, steady), (before, early)], slope)
        after.data[...] = before.data
        late.load_state_dict(early.state_dict())
        for slope in pushes[3:]:
            push_all([(always, steady), (after, late)], slope)
        close(after.data, always.data, rtol=0, atol=0, what=f"{kind.__name__}, stopped and resumed", dtype=np.float64)
    double, (g, _, _) = build(Adam, np.float64)
    third = {1: {"step": 1, "exp_avg": [1 / 3, 1], "exp_avg_sq": [1, 1]}}
    double.load_state_dict({"state": third, "param_groups": state["param_groups"]})
    close(double.state[g]["exp_avg"], [1 / 3, 1], rtol=1e-15, atol=0, dtype=np.float64)
    ### END HIDDEN TESTS


test_optimizer_state()

# %%
model = new_model()
optimizer = Adam(model.parameters(), 0.02)
train(model, optimizer, 600)
saved_weights, saved_optimizer = model.state_dict(), optimizer.state_dict()

tomorrow = new_model()
optimizer = Adam(tomorrow.parameters())
tomorrow.load_state_dict(saved_weights)
optimizer.load_state_dict(saved_optimizer)
print("the same losses to the last bit:", train(tomorrow, optimizer, 200) == losses[600:])
try:
    SGD(tomorrow.parameters(), 0.1).load_state_dict(saved_optimizer)
except RuntimeError as error:
    print(error)

# %% [markdown]
# ## 11. A plan for the rate
#
# A large rate gets near quickly, and then jumps around the goal, since each batch points elsewhere; a small one comes
# to rest, but takes for ever to get there. So begin large and end small. And the very first steps should be small as
# well: Adam's first step is one full rate for *every* number, whatever its gradient, on the word of a single batch.
#
# A **scheduler** sets "lr" in the groups of an optimizer. It does so when it is made, for the first step, and then
# whenever its `step()` is called, which belongs *after* `optimizer.step()`. `last_epoch` counts these calls; whether
# one stands for a batch or for an epoch is up to you. Every rate is computed from the first one, kept as "initial_lr"
# in the group, and from `last_epoch`, not from the rate before. So a run that is resumed gets the same rates, to the
# last bit.
#
# ### Exercise: `StepLR.get_lr`
#
# The oldest plan: divide by ten every 30 epochs.

# %% nbgrader={"grade": false, "grade_id": "optimizers-step-lr", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def groups_to_plan(owner: str, optimizer: Any) -> list[Group]:
    """The groups of ``optimizer``; TypeError in the name of ``owner`` if it is no Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{owner}: expected an Optimizer, got {type(optimizer).__name__}")
    return optimizer.param_groups


class LRScheduler:
    """Sets the rate of every group of an optimizer; a subclass says in ``get_lr`` to what.

    Parameters
    ----------
    optimizer
        Its rates are set at once, for the first step.
    last_epoch
        How many times ``step`` was called before, less one; -1 for a new training. Otherwise each group must have an
        "initial_lr", as one has that was loaded.

    Attributes
    ----------
    last_epoch
        The number of calls of ``step`` so far.
    base_lrs
        The rate of each group that the plan starts from: its "initial_lr", at first its "lr".

    Raises
    ------
    TypeError
        If ``optimizer`` is no Optimizer.
    KeyError
        If training is resumed, and a group has no "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        owner = type(self).__name__
        groups = groups_to_plan(owner, optimizer)
        for place, group in enumerate(groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"{owner}: group {place} has no initial_lr, which last_epoch={last_epoch} needs")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["initial_lr"] for group in groups]
        self.last_epoch = last_epoch
        self.step()

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``; every scheduler defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def step(self) -> None:
        """Go on by one, and set the rates."""
        self.last_epoch += 1
        self.set_rates()

    def set_rates(self) -> None:
        """Set the rate of each group to what it is at ``last_epoch``."""
        made_for, now = len(self.base_lrs), len(self.optimizer.param_groups)
        if made_for != now:
            raise RuntimeError(f"{type(self).__name__} was made for {made_for} groups, the optimizer has {now} now")
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as it is set now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, in plain numbers, lists and texts."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self).items()
            if name != "optimizer"
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the scheduler stood that gave this state, and set the rates.

        Raises
        ------
        RuntimeError
            If it has other names, or another number of groups; nothing has been changed.
        """
        problems = list(differences("names", self.state_dict(), state_dict))
        if not problems and len(state_dict["base_lrs"]) != len(self.base_lrs):
            problems = [f"the optimizer has {len(self.base_lrs)} groups, the state {len(state_dict['base_lrs'])}"]
        if problems:
            raise RuntimeError("\n  ".join([f"the state does not fit this {type(self).__name__}:", *problems]))
        vars(self).update({name: list(v) if isinstance(v, list) else v for name, v in state_dict.items()})
        self.set_rates()


class StepLR(LRScheduler):
    """The rate, times ``gamma`` after every ``step_size`` calls of ``step``.

    Parameters
    ----------
    optimizer, last_epoch
        See ``LRScheduler``.
    step_size
        How many steps a rate lasts, at least 1.
    gamma
        The factor from one rate to the next.

    Raises
    ------
    ValueError
        If ``step_size`` is less than 1.

    TODO: Return the rate of each group at `self.last_epoch`, as a list.

    APPROACH:
    1. How many times has `step_size` been completed?
    2. Each of `self.base_lrs` times gamma to that power.

    EXAMPLE:
    >>> StepLR(SGD([Parameter([1.0])], lr=0.8), step_size=2, gamma=0.5).get_lr()
    [0.8]

    HINT: `//` divides and forgets the rest.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size should be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``."""
        ### BEGIN SOLUTION
        decays = self.last_epoch // self.step_size
        return [base * self.gamma**decays for base in self.base_lrs]
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-step-lr", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def two_groups(*rates, kind=SGD, **options):
    return kind([{"params": [Parameter([1.0])], "lr": rate} for rate in rates], **options)


def rates_of(scheduler, steps):
    """The rates of each group at first and after each of `steps` steps: (steps + 1, groups)."""
    rates = [[group["lr"] for group in scheduler.optimizer.param_groups]]
    for _ in range(steps):
        scheduler.step()
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
    return np.array(rates)


def test_step_lr():
    plan = StepLR(two_groups(0.8, 0.1), step_size=2, gamma=0.5)
    rates = rates_of(plan, 5)
    close(rates[:, 0], [0.8, 0.8, 0.4, 0.4, 0.2, 0.2], why="after every step_size steps, times gamma")
    close(rates[:, 1], rates[:, 0] / 8, why="each group from its own rate in self.base_lrs")
    assert plan.last_epoch == 5 and list(plan.get_last_lr()) == [float(rates[5, 0]), float(rates[5, 1])]
    again = StepLR(two_groups(0.5, 0.5), step_size=9)
    again.load_state_dict(plan.state_dict())
    close(again.get_last_lr(), rates[5], rtol=0, atol=0, why="a plan that is loaded goes on where the other stood")
    close(rates_of(again, 1)[1], [0.1, 0.0125])
    with raises(RuntimeError, "StepLR", "unexpected: extra"):
        again.load_state_dict({**plan.state_dict(), "extra": 1})
    with raises(RuntimeError, "2 groups", "1"):
        again.load_state_dict({**plan.state_dict(), "base_lrs": [0.1]})
    with raises(KeyError, "group 0", "initial_lr"):
        StepLR(two_groups(0.1), 3, last_epoch=4)
    ### BEGIN HIDDEN TESTS
    length, rate = int(np.random.default_rng().integers(2, 6)), float(np.random.default_rng().uniform(0.1, 1))
    close(rates_of(StepLR(two_groups(rate), length), 17)[:, 0], rate / 10.0 ** (np.arange(18) // length))
    ### END HIDDEN TESTS


test_step_lr()

# %% [markdown]
# ### Smooth plans
#
# A cosine goes from one rate to another without corners: slowly at first, fast in the middle, slowly at the end. The
# plan of most language models is: a few steps of **warm-up**, evenly from nearly nothing to the full rate, and a cosine
# down to a small one.
#
# With W steps of warm-up, step t (from 0) has (t + 1)/(W + 1) of the rate: never zero, which would be a step for
# nothing, and the full rate for the first time at t = W. There the cosine begins; at `total_steps` it has come down,
# and stays.
#
# ### Exercise: `anneal` and `CosineWarmupLR.get_lr`

# %% nbgrader={"grade": false, "grade_id": "optimizers-cosine", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def anneal(start: float, end: float, fraction: float, strategy: str = "cos") -> float:
    """The value at ``fraction`` of the way from ``start`` to ``end``, along half a cosine or a line ("linear").

    TODO: Two formulas.

    APPROACH:
    1. "linear": start, plus that part of the difference.
    2. "cos": `(1 + cos(pi * fraction)) / 2` goes from 1 to 0; it is the share of start, and the rest is end's.

    EXAMPLE:
    >>> anneal(8.0, 0.0, 0.25, "linear"), round(anneal(8.0, 0.0, 0.25), 3)
    (6.0, 6.828)

    HINT: Both formulas hold for a fraction beyond 1, too; do not cut it off here.
    """
    ### BEGIN SOLUTION
    if strategy == "linear":
        return start + (end - start) * fraction
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
    ### END SOLUTION


class CosineWarmupLR(LRScheduler):
    """Evenly up to the group's rate during ``warmup_steps``, then along a cosine down to ``min_lr``, and stay there.

    At ``last_epoch`` t the rate is ``base * (t + 1) / (warmup_steps + 1)`` while t is less than ``warmup_steps``; then
    ``anneal(base, min_lr, (t - warmup_steps) / (total_steps - warmup_steps))``, up to t = ``total_steps``.

    Parameters
    ----------
    optimizer, last_epoch
        See ``LRScheduler``.
    warmup_steps
        How many steps have a smaller rate at first; 0 for none.
    total_steps
        The step at which ``min_lr`` is reached.
    min_lr
        The rate at the end, for all groups.

    Raises
    ------
    ValueError
        If not 0 <= warmup_steps < total_steps, or if ``min_lr`` is negative.

    Source: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", for the cosine; Goyal et
    al. 2017, "Accurate, large minibatch SGD", for the warm-up.

    TODO: Return the rate of each group at `self.last_epoch`.

    APPROACH:
    1. The two formulas above.
    2. From `total_steps` on the fraction is 1.

    EXAMPLE:
    >>> CosineWarmupLR(SGD([Parameter([1.0])], lr=0.8), warmup_steps=3, total_steps=10).get_lr()
    [0.2]

    HINT: With `warmup_steps=0` the first rate is the full one.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0, last_epoch: int = -1
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            both = f"warmup_steps={warmup_steps} and total_steps={total_steps}"
            raise ValueError(f"CosineWarmupLR: expected 0 <= warmup_steps < total_steps, got {both}")
        if not min_lr >= 0:
            raise ValueError(f"CosineWarmupLR: min_lr should be 0 or greater, got {min_lr}")
        self.warmup_steps, self.total_steps, self.min_lr = warmup_steps, total_steps, min_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``."""
        ### BEGIN SOLUTION
        if self.last_epoch < self.warmup_steps:
            return [base * (self.last_epoch + 1) / (self.warmup_steps + 1) for base in self.base_lrs]
        descended = (self.last_epoch - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return [anneal(base, self.min_lr, min(1.0, descended)) for base in self.base_lrs]
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-cosine", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_cosine_warmup():
    fractions = (0.0, 0.25, 0.5, 1.0, 1.5)
    close([anneal(8.0, 4.0, f, "linear") for f in fractions], [8, 7, 6, 4, 2], why="start + (end - start) * fraction")
    root = math.sqrt(0.5)
    close([anneal(8.0, 4.0, f) for f in fractions], [8, 6 + 2 * root, 6, 4, 6], why="half a cosine from start to end")
    rates = rates_of(CosineWarmupLR(two_groups(0.8, 0.4), 3, 7, min_lr=0.1), 9)
    falling = [0.45 + 0.35 * root, 0.45, 0.45 - 0.35 * root, 0.1, 0.1, 0.1]
    close(rates[:, 0], [0.2, 0.4, 0.6, 0.8, *falling], why="(t + 1)/(W + 1) of the rate, the cosine from t = W on")
    close(rates[[0, 3, 7, 9], 1], [0.1, 0.4, 0.1, 0.1], why="each group from its own rate, all down to min_lr")
    close(rates_of(CosineWarmupLR(two_groups(0.8), 0, 2), 3)[:, 0], [0.8, 0.4, 0, 0], why="no warm-up, down to 0")
    for wrong in ((5, 5), (-1, 5), (1, 5, -0.1)):
        with raises(ValueError, str(wrong[-1])):
            CosineWarmupLR(two_groups(0.8), *wrong)
    ### BEGIN HIDDEN TESTS
    planner = np.random.default_rng()
    warm, total = int(planner.integers(1, 6)), int(planner.integers(8, 20))
    top, low = float(planner.uniform(0.5, 1)), float(planner.uniform(0, 0.1))
    time = np.arange(25)
    bow = low + (top - low) * (0.5 + 0.5 * np.cos(np.pi * np.minimum(1, (time - warm) / (total - warm))))
    wanted = np.where(time < warm, top * (time + 1) / (warm + 1), bow)
    close(rates_of(CosineWarmupLR(two_groups(top), warm, total, low), 24)[:, 0], wanted, rtol=1e-9)
    ### END HIDDEN TESTS


test_cosine_warmup()

# %% [markdown]
# ### One cycle
#
# Smith & Topin 2018, "Super-convergence": up from a small rate to one that would be too large for the whole of the
# training, and down to nearly nothing, over one cycle. Momentum goes the other way: while steps are long, the ball
# shall forget sooner.
#
# ```
#   rate       /\                    momentum  \      ____
#             /  \____                          \    /
#            /        \____                      \  /
#           /              \___                   \/
#     corner 0   1           2                0   1         2
# ```
#
# Either curve is drawn through **corners**, pairs of (step, value). At step t we are between two corners, at a fraction
# of the way from one to the other.
#
# ### Exercise: `through_corners`

# %% nbgrader={"grade": false, "grade_id": "optimizers-one-cycle", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def through_corners(corners: Sequence[tuple[float, float]], t: float, strategy: str = "cos") -> float:
    """The value at ``t`` of a curve through ``corners``, pairs (step, value) in order, two or more.

    From each corner to the next it is ``anneal``. Beyond the last corner, the last piece simply goes on.

    TODO: Find the piece that t is in, then the fraction, then the value.

    APPROACH:
    1. `pairwise(corners)` gives the pieces: `((begin, first), (end, second))`. The one we want is the first whose end
       is not before t, or else the last.
    2. The fraction is how far t is from begin to end. A piece of no length is at its end: fraction 1.

    EXAMPLE:
    >>> through_corners([(0, 1.0), (4, 3.0), (8, 0.0)], 5, "linear")
    2.25

    HINT: At a corner both pieces have the same value, but with a piece of no length in front, only one can be computed.
    """
    ### BEGIN SOLUTION
    pieces = list(pairwise(corners))
    (begin, first), (end, second) = next((piece for piece in pieces if t <= piece[1][0]), pieces[-1])
    fraction = (t - begin) / (end - begin) if end != begin else 1.0
    return anneal(first, second, fraction, strategy)
    ### END SOLUTION


class OneCycleLR(LRScheduler):
    """One cycle: from ``max_lr / div_factor`` up to ``max_lr``, and down to the first rate over ``final_div_factor``.

    With ``cycle_momentum``, the momentum (for Adam, the first of ``betas``) goes from ``max_momentum`` down to
    ``base_momentum`` while the rate goes up, and back.

    Parameters
    ----------
    optimizer, last_epoch
        See ``LRScheduler``.
    max_lr, base_momentum, max_momentum
        One number for all groups, or a list with one for each.
    total_steps
        The length of the cycle; or else ``epochs`` times ``steps_per_epoch``. One step more goes on along the last
        curve, as in PyTorch, and two are refused.
    pct_start
        The fraction of the cycle in which the rate goes up.
    anneal_strategy
        "cos" or "linear".
    three_phase
        Come down to the first rate as fast as it went up, and only then to the last one.

    Raises
    ------
    ValueError
        If an argument is out of range, the momentum shall cycle and the optimizer has none, or the cycle is over.

    Source: Smith & Topin 2018, "Super-convergence: very fast training of neural networks using large learning rates".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        groups = groups_to_plan("OneCycleLR", optimizer)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start should be from 0 to 1, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy should be 'cos' or 'linear', got {anneal_strategy!r}")
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(f"OneCycleLR: {type(optimizer).__name__} has no momentum; set cycle_momentum=False")
        self.total_steps = cycle_length(total_steps, epochs, steps_per_epoch)
        self.pct_start, self.anneal_strategy = pct_start, anneal_strategy
        self.cycle_momentum, self.three_phase = cycle_momentum, three_phase
        self.max_lrs = one_for_each("max_lr", max_lr, len(groups))
        self.min_lrs = [highest / div_factor / final_div_factor for highest in self.max_lrs]
        self.base_momentums = one_for_each("base_momentum", base_momentum, len(groups))
        self.max_momentums = one_for_each("max_momentum", max_momentum, len(groups))
        for group, highest in zip(groups, self.max_lrs, strict=True):
            group["initial_lr"] = highest / div_factor
        super().__init__(optimizer, last_epoch)

    def at_corners(self, first: float, peak: float, last: float) -> float:
        """The value at ``last_epoch`` of what is ``first`` at the beginning, then ``peak``, and ``last`` at the end."""
        top = self.pct_start * self.total_steps - 1
        corners = [(0.0, first), (top, peak), (2 * top, first), (self.total_steps - 1, last)]
        if not self.three_phase:
            del corners[2]
        return through_corners(corners, self.last_epoch, self.anneal_strategy)

    def get_lr(self) -> list[float]:
        """The rate of each group at ``last_epoch``; ValueError if the cycle is over."""
        if self.last_epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_epoch} of a cycle of {self.total_steps} steps")
        levels = zip(self.base_lrs, self.max_lrs, self.min_lrs, strict=True)
        return [self.at_corners(*three) for three in levels]

    def set_rates(self) -> None:
        """Set the rate of each group, and its momentum."""
        super().set_rates()
        if self.cycle_momentum:
            levels = zip(self.max_momentums, self.base_momentums, strict=True)
            for group, (high, low) in zip(self.optimizer.param_groups, levels, strict=True):
                momentum = self.at_corners(high, low, high)
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


def cycle_length(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """How many steps a cycle has; ValueError if it is not said, or less than 1."""
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("OneCycleLR: give total_steps, or both epochs and steps_per_epoch")
        total_steps = epochs * steps_per_epoch
    if total_steps < 1:
        raise ValueError(f"OneCycleLR: the cycle should have at least 1 step, got {total_steps}")
    return total_steps


def one_for_each(name: str, value: float | Sequence[float], count: int) -> list[float]:
    """``value`` for each of ``count`` groups: the same for all, or a list with one for each."""
    values = list(value) if isinstance(value, Sequence) else [value] * count
    if len(values) != count:
        raise ValueError(f"OneCycleLR: {name} has {len(values)} values, the optimizer has {count} groups")
    return values

# %% nbgrader={"grade": true, "grade_id": "test-optimizers-one-cycle", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_one_cycle():
    corners = [(0, 1.0), (4, 3.0), (8, 0.0)]
    for t, want in [(0, 1), (1, 1.5), (4, 3), (5, 2.25), (8, 0), (9, -0.75)]:
        close(through_corners(corners, t, "linear"), want, what=f"t = {t}", why="between the two corners around t")
    close(through_corners(corners, 5), 1.5 + 1.5 * math.sqrt(0.5), why="hand the strategy on; a cosine by default")
    close(through_corners([(0, 1.0), (0, 5.0), (2, 3.0)], 0), 5.0, why="a piece of no length is at its end")
    close(through_corners([(0, 1.0), (0, 5.0), (2, 3.0)], 1), 4.0)
    jump = [(0, 1.0), (2, 3.0), (2, 5.0), (4, 0.0), (6, 1.0)]
    close(through_corners(jump, 2), 3.0, why="the first piece whose end is not before t")
    close(through_corners(jump, 7, "linear"), 1.5, why="beyond the last corner the last piece goes on")
    optimizer = two_groups(0.1, 0.1, momentum=0.5)
    cycle = OneCycleLR(optimizer, [1.0, 2.0], total_steps=11, pct_start=0.5, anneal_strategy="linear")
    momenta = [optimizer.param_groups[1]["momentum"]]
    rates = [cycle.get_last_lr()]
    for _ in range(10):
        cycle.step()
        rates.append(cycle.get_last_lr())
        momenta.append(optimizer.param_groups[1]["momentum"])
    rates = np.array(rates)
    close(rates[[0, 10], 0], [0.04, 4e-6], why="from max_lr / 25 to a 10,000th of it")
    close(rates[[4, 5], 0], [0.04 + 0.96 * 4 / 4.5, 1 - 0.5 / 5.5 * (1 - 4e-6)], why="the top is at step 4.5")
    close(rates[:, 1], 2 * rates[:, 0])
    close([momenta[k] for k in (0, 4, 10)], [0.95, 0.95 - 0.1 * 4 / 4.5, 0.95], why="momentum goes the other way")
    adam = OneCycleLR(two_groups(0.1, kind=Adam), 1.0, epochs=2, steps_per_epoch=5, three_phase=True)
    close(adam.optimizer.param_groups[0]["betas"], [0.95, 0.999], why="Adam's momentum is the first of its betas")
    cycle.step()
    with raises(ValueError, "12", "11"):
        cycle.step()
    ### BEGIN HIDDEN TESTS
    marker = np.random.default_rng()
    places, heights = np.cumsum(marker.uniform(0.5, 3, size=5)), marker.normal(size=5)
    bends = list(zip(places.tolist(), heights.tolist(), strict=True))
    for t in marker.uniform(places[0], places[-1], size=8).tolist():
        close(through_corners(bends, t, "linear"), float(np.interp(t, places, heights)))
        right = int(np.searchsorted(places, t))
        part = (t - places[right - 1]) / (places[right] - places[right - 1])
        share = 0.5 + 0.5 * math.cos(math.pi * part)
        close(through_corners(bends, t), float(share * heights[right - 1] + (1 - share) * heights[right]))
    ### END HIDDEN TESTS


test_one_cycle()

# %%
plans = {
    "StepLR(30, gamma=0.3)": lambda o: StepLR(o, 30, gamma=0.3),
    "CosineWarmupLR(10, 100)": lambda o: CosineWarmupLR(o, 10, 100),
    "OneCycleLR(max_lr=1)": lambda o: OneCycleLR(o, 1.0, total_steps=101),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for label, make in plans.items():
    optimizer = SGD([Parameter([1.0])], lr=1.0, momentum=0.9)
    plan, rates, momenta = make(optimizer), [], []
    for _ in range(100):
        rates.append(plan.get_last_lr()[0])
        momenta.append(optimizer.param_groups[0]["momentum"])
        plan.step()
    left.plot(rates, label=label)
    right.plot(momenta, label=label)
left.set_title("rate")
right.set_title("momentum")
for axes in (left, right):
    axes.set_xlabel("step")
left.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## 12. All of it together
#
# The network of module 06, and that curve again, now from noisy examples, 32 at a time. Three optimizers with one
# rate, then two of them with a plan; 1,000 steps each. Predict the order at the end.

# %%
def learn_the_curve(make, plan=None, steps=1000):
    """The loss on the true curve, every 10 steps."""
    model = new_model()
    optimizer = make(model.parameters())
    scheduler = plan(optimizer) if plan else None
    rng = np.random.default_rng(0)
    curve = []
    for step in range(steps):
        x = rng.uniform(-3, 3, (32, 1)).astype(np.float32)
        y = np.sin(2 * x) + rng.normal(0, 0.3, x.shape).astype(np.float32)
        mse_loss(model(Tensor(x)), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler:
            scheduler.step()
        if step % 10 == 9:
            curve.append(mse_loss(model(Tensor(grid)), np.sin(2 * grid)).item())
    return curve


one_rate = {
    "SGD, 0.05": (lambda p: SGD(p, 0.05), None),
    "momentum 0.9, 0.05": (lambda p: SGD(p, 0.05, momentum=0.9), None),
    "Adam, 0.03": (lambda p: Adam(p, 0.03), None),
}
a_plan = {
    "Adam, warm-up to 0.03 and cosine": (lambda p: Adam(p, 0.03), lambda o: CosineWarmupLR(o, 50, 1000)),
    "momentum, one cycle to 0.1": (lambda p: SGD(p, 0.1, momentum=0.9), lambda o: OneCycleLR(o, 0.1, 1000)),
}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, layout="constrained")
for axes, title, ways in ((panels[0], "one rate", one_rate), (panels[1], "a plan", a_plan)):
    for label, (make, plan) in ways.items():
        curve = learn_the_curve(make, plan)
        axes.semilogy(range(10, 1001, 10), curve, label=label)
        print(f"{label:34} the last 100 steps: mean {np.mean(curve[-10:]):.3f}, worst {np.max(curve[-10:]):.3f}")
    axes.set_xlabel("step")
    axes.set_title(title)
    axes.legend(fontsize="small")
panels[0].set_ylabel("loss on the true curve")
panels[0].set_ylim(0.01, 1)
plt.show()

# %% [markdown]
# With one rate Adam and momentum end near 0.03, and jump: momentum's worst among the last hundred steps is twice its
# mean. A plan ends lower (0.024 and 0.016), and at rest. The cycle looks hopeless for half of the time. This is one
# seed and a toy, so do not take the order home; take home that a curve must not be judged before its plan has ended.
#
# ## What you have built
#
# `Optimizer` with parameter groups, `SGD`, `Adam`, `AdamW`, `clip_grad_norm`, a `state_dict` for optimizers in
# PyTorch's layout, and the schedulers `StepLR`, `CosineWarmupLR` and `OneCycleLR`. All of them change the parameters'
# own arrays, in place, and nothing that they do is recorded.
#
# In the terminal: `tito module complete 07`. Then `from tinytorch.optim import AdamW` is your class, and module 08 puts
# it into a loop that saves, resumes, stops early and draws its curves.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "optimizers-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Seven billion.** A language model has 7 billion parameters in float32. What must be in memory to use it, to train it
# with SGD, and to train it with Adam, before any activation? Somebody trains only 1 % of the parameters and freezes the
# rest (`requires_grad = False`). What remains of the optimizer's memory and of the gradients', and what does not
# become smaller?
#
# === BEGIN MARK SCHEME ===
# 1 point: 28, 56 and 112 GB. 1 point: gradients 0.28 GB, Adam's averages 0.56 GB, parameters still 28 GB. 1 point: the
# activations needed to carry gradients back to trained layers remain (or: forward and part of backward still run).
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "optimizers-reflect-memory", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Use: 7e9 * 4 bytes = 28 GB. SGD: the gradients as well, 56 GB. Adam: two averages more, 112 GB. With 1 % trained,
# there are gradients for 70 million numbers, 0.28 GB, and 0.56 GB of averages, since a parameter without a gradient
# has no state. The 28 GB of parameters stay, and so do the activations through which gradients must flow back to
# whatever is trained: frozen layers behind a trained one still have to pass gradients on.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "optimizers-reflect-scale-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Times a thousand.** A colleague multiplies the loss by 1,000, because it "looks too small". What changes in the
# first 100 steps with (a) SGD, (b) SGD with momentum, (c) Adam, (d) Adam with `clip_grad_norm(parameters, 1.0)`, (e)
# Adam with `weight_decay`, (f) AdamW? Give the reason for each.
#
# === BEGIN MARK SCHEME ===
# 1 point: (a), (b) steps 1,000 times as long; (c) the same but for eps. 1 point: (d) nearly every gradient is clipped
# now to one length, so Adam sees equal norms. 1 point: (e) the decay becomes 1,000 times weaker against the gradient,
# (f) unchanged.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "optimizers-reflect-scale", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Every gradient is 1,000 times as large. (a), (b): so is every step, and training runs away unless the rate is
# divided by 1,000. (c): m and the root of v both grow by 1,000 and the ratio stays; only eps weighs less. (d):
# gradients that were short are now all cut to length 1, so large and small batches count alike: training changes
# although Adam alone would not. (e): the decay is added before the division and is now 1,000 times smaller beside the
# gradient. (f): the decay does not go through the division, so nothing changes.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "optimizers-reflect-resume-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Resumed, and different.** A training with AdamW and CosineWarmupLR was stopped at step 5,000 and resumed. The loss
# jumps, and the run is no longer equal to one that was never stopped. List what has to be saved for bit-equal
# weights, and say for each thing what the curve would look like if it alone was forgotten.
#
# === BEGIN MARK SCHEME ===
# 1 point: weights, the optimizer's averages and step counts, the scheduler's position, the generator or the order of
# the data. 1 point: plausible consequences for averages (full steps, a bump) and scheduler (warm-up again). 1 point:
# for the generator (no jump, but other batches, so not bit-equal), or buffers of layers.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "optimizers-reflect-resume", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Weights and buffers (forgotten: training begins anew); Adam's averages and step counts (a bump: the first steps are
# one full rate for every number on the word of one batch); the scheduler's last_epoch (the rate warms up again and
# later stays too high, so the loss rises, then falls late); the state of the random generator and the place in the
# data (no jump at all, but other batches and other dropout masks: as good, and not equal to the bit).
# ### END SOLUTION
