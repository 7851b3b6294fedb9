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
# # Layers
#
# > Layers: objects that own their weights, find them by name, save them, and switch between training and use.
#
# At the end of module 02 you ran a network by hand: `(x @ w1 + b1).maximum(0) @ w2 + b2`. Four loose tensors, and
# every program that uses the network must carry them in the right order. GPT-2 has 148 of them. Three questions then
# have no good answer:
#
# 1. **Training:** which tensors shall be changed? All of them, but not the inputs, and none twice.
# 2. **Saving:** which number in the file is which weight?
# 3. **Using:** some layers must behave differently in training. Who tells them?
#
# This module answers all three with one idea: a layer is an *object* that owns its weights as attributes, and
# attributes have names.
#
# ```
#   model                        Module
#   ├── body                     Module            names are paths:
#   │   ├── 0                    Linear
#   │   │   ├── weight (8, 4)    Parameter         body.0.weight
#   │   │   └── bias   (8,)      Parameter         body.0.bias
#   │   └── 1                    Dropout
#   └── head                     Linear
#       ├── weight (3, 8)        Parameter         head.weight
#       └── bias   (3,)          Parameter         head.bias
# ```
#
# Plan for about four hours. Gradients come in module 06; here everything runs forward.

# %%
#| default_exp core.layers
#| export
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import index
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.core.tensor import Array, Op, Tensor, apply, as_array, default_generator

_Kind = TypeVar("_Kind")

# %%
from itertools import pairwise

import matplotlib.pyplot as plt

from tinytorch.core.setup import measure
from tinytorch.core.tensor import manual_seed, randn, set_recorder

# %% [markdown]
# ## 1. From a function to an object
#
# A linear layer, as a function. `weight` has shape (out_features, in_features), as in PyTorch: row i holds what
# output i listens to.

# %%
def linear(x, weight, bias):
    return x @ weight.T + bias  # (batch, in) @ (in, out) -> (batch, out)


linear(Tensor([[1.0, 2.0]]), weight=Tensor([[3.0, 4.0], [5.0, 6.0], [0.0, 1.0]]), bias=Tensor([0.0, 0.0, 10.0]))

# %% [markdown]
# Before you run on: a network for pictures of 28 x 28 has the layers 784 → 128 → 10. Count its weights and biases on
# paper. How many of them stand in the first layer? How many bytes are they all together, in float32?
#
# ### Exercise: `mlp_size`

# %% nbgrader={"grade": false, "grade_id": "layers-mlp-size", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mlp_size(sizes):
    """How many numbers a chain of linear layers holds: weights and biases.

    TODO: Add up what each layer from one size to the next holds.

    APPROACH:
    1. Walk over the pairs of neighbours: `pairwise(sizes)`.
    2. A layer from `m` to `n` features has n rows of m weights, and one bias for each output.

    EXAMPLE:
    >>> mlp_size([2, 3])
    9

    HINT: Biases go with the outputs of a layer, not with its inputs.
    """
    ### BEGIN SOLUTION
    return sum(n * m + n for m, n in pairwise(sizes))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-mlp-size", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
from tito.testing import close, raises


def test_mlp_size():
    for sizes, want in [([2, 3], 9), ([3, 2], 8), ([1, 1, 1], 4), ([5], 0), ([784, 128, 10], 101_770)]:
        got = mlp_size(sizes)
        assert type(got) is int and got == want, f"mlp_size({sizes}): expected {want}, got {got}; m -> n takes n * m weights and n biases"
    ### BEGIN HIDDEN TESTS
    widths = np.random.default_rng().integers(2, 50, size=5).tolist()
    by_hand = 0
    for place in range(len(widths) - 1):
        by_hand += (widths[place] + 1) * widths[place + 1]
    assert mlp_size(widths) == by_hand, f"mlp_size({widths}): expected {by_hand}, got {mlp_size(widths)}"
    ### END HIDDEN TESTS


test_mlp_size()

# %%
print(f"784 -> 128 -> 10: {mlp_size([784, 128, 10]):,} numbers, {mlp_size([784, 128, 10]) * 4 / 1e3:,.0f} kB")
print(f"of these in the first layer: {mlp_size([784, 128]) / mlp_size([784, 128, 10]):.1%}")

# %% [markdown]
# 101,770 numbers, 407 kB, and 98.7 % of them in the first layer. You will count with code soon; a count by hand is how
# you find out that the code forgot a layer.
#
# ## 2. Parameter: a tensor that says "train me"
#
# How is a program to tell weights from other tensors? By their class. A `Parameter` is a Tensor whose gradient is
# wanted, and nothing more.
#
# Weights start at random. If all weights began equal, all outputs of a layer would be equal, would get equal gradients,
# and would stay equal for ever. PyTorch draws them evenly from $[-k, k)$ with $k = 1/\sqrt{\text{in\_features}}$;
# section 6 measures what that does.
#
# ### Exercise: `Parameter` and `uniform_parameter`

# %% nbgrader={"grade": false, "grade_id": "layers-parameter", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Parameter(Tensor):
    """A tensor that is trained: it wants a gradient, and a ``Module`` that has it as an attribute finds it.

    Parameters
    ----------
    data
        A number, a (nested) list, an array or a Tensor of floating-point numbers. It is copied.
    dtype
        By default float64 becomes float32, as in every Tensor.

    Raises
    ------
    TypeError
        If the numbers are not floating-point.

    TODO: Let Tensor's own `__init__` do the work, with a gradient wanted.

    APPROACH:
    1. `super().__init__(...)` takes data, dtype and requires_grad.

    EXAMPLE:
    >>> Parameter([1.0, 2.0]).requires_grad
    True

    HINT: Pass the dtype on: a float64 parameter is what gradient checks need.
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: DTypeLike | None = None) -> None:
        ### BEGIN SOLUTION
        super().__init__(data, dtype, requires_grad=True)
        ### END SOLUTION

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def uniform_parameter(shape: tuple[int, ...], bound: float) -> Parameter:
    """A float32 parameter of numbers drawn evenly from [-bound, bound) by the default generator.

    TODO: Draw the numbers and make them a Parameter.

    APPROACH:
    1. `default_generator()` is the generator that `manual_seed` sets; its `uniform(low, high, shape)` draws.

    EXAMPLE:
    >>> uniform_parameter((2, 3), 0.5).shape
    (2, 3)

    HINT: Ask for the default generator inside the function, each time it is called.
    """
    ### BEGIN SOLUTION
    return Parameter(default_generator().uniform(-bound, bound, shape))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-parameter", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_parameter():
    p = Parameter([[1.0, 2.0]])
    close(p.data, [[1, 2]], dtype=np.float32, why="Tensor's own __init__ converts: hand it the data")
    assert isinstance(p, Tensor) and p.requires_grad is True, "a Parameter is a Tensor that wants a gradient"
    assert p.grad is None, "a fresh parameter has no gradient yet"
    close(Parameter([1.0], dtype=np.float64).data, [1], dtype=np.float64, why="pass the dtype on")
    with raises(TypeError, "floating-point"):
        Parameter([1, 2])
    manual_seed(3)
    drawn = uniform_parameter((40, 50), 0.25)
    assert isinstance(drawn, Parameter), f"expected a Parameter, got {type(drawn).__name__}"
    told = f"expected float32 of shape (40, 50), got {drawn.dtype} of shape {drawn.shape}"
    assert drawn.shape == (40, 50) and drawn.dtype == np.float32, told
    assert -0.25 <= float(drawn.data.min()) < -0.24, f"the smallest of 2,000 should be near -0.25: {drawn.data.min()}"
    assert 0.24 < float(drawn.data.max()) <= 0.25, f"the largest of 2,000 should be near 0.25: {drawn.data.max()}"
    manual_seed(3)
    close(uniform_parameter((40, 50), 0.25).data, drawn.data, why="draw from default_generator(): a seed repeats it")
    ### BEGIN HIDDEN TESTS
    fresh_seed = int(np.random.default_rng().integers(1 << 30))
    manual_seed(fresh_seed)
    spread_out = uniform_parameter((300, 300), 2.0).data
    assert abs(float(spread_out.mean())) < 0.05, "drawn evenly around zero"
    assert abs(float(spread_out.std()) - 2 / math.sqrt(3)) < 0.02, "an even draw from [-2, 2) has deviation 2/sqrt(3)"
    assert np.any(uniform_parameter((300, 300), 2.0).data != spread_out), "without a new seed the numbers go on"
    outside_array = np.zeros(2, np.float32)
    held_parameter = Parameter(outside_array)
    outside_array += 1
    close(held_parameter.data, [0, 0], why="a parameter keeps a copy of its own")
    ### END HIDDEN TESTS


test_parameter()

# %% [markdown]
# ## 3. Module: what an object owns
#
# Python already keeps the attributes of an object, by name and in the order in which they were assigned:

# %%
class Anything:
    def __init__(self):
        self.first = Parameter([1.0])
        self.colour = "red"
        self.second = Parameter([2.0, 3.0])


[name for name, value in vars(Anything()).items() if isinstance(value, Parameter)]

# %% [markdown]
# That line is the heart of `Module`. Here is the class; read it as a table of contents, as you read `Tensor`. Nearly
# every method is one line that names a function, and the functions are the next exercises.
#
# Three things to notice:
#
# - You write `forward`, and call the object: `layer(x)`. Between the two is `__call__`, one place to add something to
#   every call.
# - A **buffer** is an array that belongs to the layer and is saved with it, but is not trained: the running mean of a
#   normalisation, a table of positions. Only `register_buffer` makes one, and from then on assigning to it keeps it an
#   array.
# - `__setattr__` runs at every `self.name = value`. It stops two mistakes that otherwise show up hours later:
#   `super().__init__()` forgotten, and `layer.weight = layer.weight - step`, which would put a plain Tensor where a
#   Parameter was: still there, still used, never trained again.
#
# ### Exercise: `__call__` and `register_buffer`

# %% nbgrader={"grade": false, "grade_id": "layers-module", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Module:
    """A layer, or a whole network: it owns parameters, buffers and other modules as attributes.

    A subclass calls ``super().__init__()``, assigns its parameters and modules to attributes, and defines
    ``forward``. Attributes are found by their class, in order of assignment; the name of a parameter is the path of
    attributes that leads to it: ``body.0.weight``.

    Raises
    ------
    AttributeError
        If a parameter or module is assigned before ``super().__init__()``.
    TypeError
        If something that is neither a Parameter nor None is assigned in the place of a Parameter.

    TODO: Fill in the two blanks, `__call__` and `register_buffer`.

    APPROACH:
    1. `__call__` hands everything it got to `forward`, and its answer back.
    2. `register_buffer`: a name that is no identifier (`name.isidentifier()`), or that is an attribute already
       (`hasattr`), is a KeyError that names it.
    3. Then set the attribute to `as_array(array)`, and put the name into `self._buffers`, a tuple of names: make a new,
       longer tuple.

    EXAMPLE:
    >>> layer = Module(); layer.register_buffer("mean", [0.0, 0.0]); layer.mean
    array([0., 0.], dtype=float32)

    HINT: `setattr(self, name, value)` sets an attribute whose name is in a variable. `_buffers` begins as an empty
    tuple that all modules share, so each module needs a new one of its own.
    """

    training: bool = True
    _buffers: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.training = True

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        ### BEGIN SOLUTION
        return self.forward(*inputs, **options)
        ### END SOLUTION

    def register_buffer(self, name: str, array: Any) -> None:
        """Keep a copy of ``array`` as the attribute ``name``: saved in ``state_dict``, not trained.

        Float64 becomes float32, as in a Tensor. A later assignment to the attribute keeps it an array.

        Raises
        ------
        KeyError
            If ``name`` cannot be the name of an attribute, or is one already.
        """
        ### BEGIN SOLUTION
        if not name.isidentifier() or hasattr(self, name):
            raise KeyError(f"register_buffer: {name!r} is no name for a new attribute of {type(self).__name__}")
        setattr(self, name, as_array(array))
        self._buffers = (*self._buffers, name)
        ### END SOLUTION

    def __setattr__(self, name: str, value: Any) -> None:
        owner = f"{type(self).__name__}.{name}"
        if isinstance(value, Parameter | Module) and "training" not in vars(self):
            raise AttributeError(f"{owner}: call super().__init__() before the first parameter or layer is assigned")
        if isinstance(vars(self).get(name), Parameter) and not (value is None or isinstance(value, Parameter)):
            raise TypeError(f"{owner} is a Parameter, no {type(value).__name__} can replace it; assign to its .data")
        super().__setattr__(name, as_array(value) if name in self._buffers else value)

    # what it owns

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes of this one, with their names."""
        return owned(self, Module)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module under the name "", and every module below it; one that is shared comes once."""
        return without_repeats(walk(self))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter of this module and of those below it; one that is shared comes once."""
        return without_repeats(parameters_of(self))

    def parameters(self) -> Iterator[Parameter]:
        """The parameters without their names, for an optimizer."""
        return (parameter for _, parameter in self.named_parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # in training, and in use

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it into training mode; returns the module."""
        set_mode(self, mode)
        return self

    def eval(self) -> Self:
        """Put this module and all below it into evaluation mode; returns the module."""
        return self.train(False)

    # to a file and back

    def state_dict(self) -> dict[str, Array]:
        """A copy of every parameter and buffer, by name; see the function ``state_of``."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Take over the numbers in ``state``; see the function ``load_state``."""
        return load_state(self, state, strict)

    # on the screen

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's ``repr``; subclasses say what they were made with."""
        return ""

    def __repr__(self) -> str:
        name, extra = type(self).__name__, self.extra_repr()
        children = [f"({key}): {child!r}" for key, child in self.named_children()]
        if not children:
            return f"{name}({extra})"
        inside = "\n".join([extra, *children] if extra else children)
        return f"{name}(\n  " + inside.replace("\n", "\n  ") + "\n)"


def owned(module: Module, kind: type[_Kind]) -> Iterator[tuple[str, _Kind]]:
    """The attributes of ``module`` that are of class ``kind``, with their names, in order of assignment."""
    return ((name, value) for name, value in vars(module).items() if isinstance(value, kind))

# %% [markdown]
# The tests of this notebook use three small modules.

# %% nbgrader={"grade": false, "grade_id": "layers-examples", "locked": true, "schema_version": 3, "solution": false, "task": false}
class Affine(Module):
    def forward(self, x, factor, shift=0.0):
        return x * factor + shift


class Times(Module):
    def __init__(self, factor):
        super().__init__()
        self.weight = Parameter([factor])

    def forward(self, x):
        return x * self.weight


class Plus(Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x):
        return x + self.shift

# %% nbgrader={"grade": true, "grade_id": "test-layers-module", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_module():
    close(Affine()(Tensor([1.0, 2.0]), 3.0).data, [3, 6], why="__call__ passes what it got on to forward")
    close(Affine()(Tensor([1.0, 2.0]), factor=3.0, shift=1.0).data, [4, 7], why="**options go on as well")
    layer = Module()
    layer.register_buffer("mean", [0.5, 1.5])
    layer.register_buffer("count", 3)
    close(layer.mean, [0.5, 1.5], dtype=np.float32, why="use as_array, which knows the dtype rule")
    close(layer.count, 3, dtype=np.int64)
    layer.mean = Tensor([2.0, 3.0])
    assert type(layer.mean) is np.ndarray, "a name in self._buffers stays an array: does it hold every name?"
    close(layer.mean, [2, 3], why="a buffer takes the numbers that are assigned to it")
    layer.count = Tensor(4)
    close(layer.count, 4, why="the second buffer's name joins the first in self._buffers")
    other = Module()
    other.mean = "a word"
    assert other.mean == "a word", "a buffer belongs to one module: do not change the tuple that all modules share"
    for name in ("forward", "mean", "two words", "a.b", ""):
        with raises(KeyError, name, why=f"the name {name!r} is taken or no identifier, so refuse it and name it"):
            layer.register_buffer(name, [0.0])
    close(layer.mean, [2, 3], why="a refused name changes nothing")
    ### BEGIN HIDDEN TESTS
    table_values = np.random.default_rng().normal(size=(3, 2))
    layer.register_buffer("table", table_values)
    close(layer.table, table_values, dtype=np.float32)
    close(Affine()(Tensor(table_values), 2.0).data, 2 * table_values, dtype=np.float32)
    ### END HIDDEN TESTS


test_module()

# %% [markdown]
# The two mistakes that `__setattr__` stops, as you would meet them:

# %%
class Forgetful(Module):
    def __init__(self):
        self.weight = Parameter([1.0])


class Scale(Module):
    def __init__(self, factor):
        super().__init__()
        self.weight = Parameter([factor])

    def forward(self, x):
        return x * self.weight


scale = Scale(2.0)
for attempt in (Forgetful, lambda: setattr(scale, "weight", scale.weight - 0.1)):
    try:
        attempt()
    except (AttributeError, TypeError) as error:
        print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## 4. How names arise
#
# Modules own modules, so a network is a tree, and the name of a thing is the path from the root to it, joined by dots.
# Predict the names of the parameters of `Twice` below, in order. `left` and `right` are one and the same object: how
# many parameters will an optimizer want to see? The next two exercises answer.

# %%
class Twice(Module):
    def __init__(self):
        super().__init__()
        self.left = Scale(2.0)
        self.right = self.left
        self.offset = Parameter([0.5])

    def forward(self, x):
        return self.right(self.left(x)) + self.offset


Twice()

# %% [markdown]
# ### Exercise: `walk`
#
# Visit the whole tree, each module with its path. The root's path is empty.

# %% nbgrader={"grade": false, "grade_id": "layers-walk", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def joined(path: str, name: str) -> str:
    """``name`` below ``path``: "body" and "0" give "body.0"; below the root, whose path is "", it is the name alone."""
    return f"{path}.{name}" if path else name


def walk(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """``module`` itself, then every module below it, each with its path; a shared one under each of its paths.

    TODO: Yield this module, then all that its children yield.

    APPROACH:
    1. `yield path, module`.
    2. For each of `module.named_children()`, walk the child with the path `joined(path, name)`; `yield from` passes on
       everything that another generator yields.

    EXAMPLE:
    >>> [path for path, _ in walk(Twice())]
    ['', 'left', 'right']

    HINT: The call for a child is the same function: it does not matter how deep the tree is.
    """
    ### BEGIN SOLUTION
    yield path, module
    for name, child in module.named_children():
        yield from walk(child, joined(path, name))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-walk", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def test_walk():
    def tree(**children):
        root = Module()
        for name, child in children.items():
            setattr(root, name, child)
        return root

    leaf = tree()
    root = tree(stem=tree(inner=leaf), head=tree())
    paths = [path for path, _ in walk(root)]
    told = f"expected '', stem, stem.inner, head: itself, then a walk of each child; got {paths}"
    assert paths == ["", "stem", "stem.inner", "head"], told
    found = dict(walk(root))
    assert found[""] is root and found["stem.inner"] is leaf, "each path comes with the module that it leads to"
    shared = [path for path, _ in walk(tree(a=leaf, b=leaf))]
    assert shared == ["", "a", "b"], f"a shared module comes under each of its paths: expected '', a, b; got {shared}"
    started = [path for path, _ in walk(root, "net")]
    assert started == ["net", "net.stem", "net.stem.inner", "net.head"], f"paths begin with the one given: {started}"
    ### BEGIN HIDDEN TESTS
    levels = int(np.random.default_rng().integers(4, 9))
    chain = leaf
    for _ in range(levels):
        chain = tree(down=chain)
    deepest = [path for path, _ in walk(chain)][-1]
    assert deepest == ".".join(["down"] * levels), f"{levels} levels below the root: {deepest}"
    ### END HIDDEN TESTS


test_walk()

# %% [markdown]
# ### Exercise: `without_repeats` and `parameters_of`
#
# A parameter that is reached by two paths is *tied*. GPT-2 ties its first layer to its last and saves 38.6 million
# numbers. The optimizer must see it once: seeing it twice would take every step twice.
#
# Whether two names lead to the same object is asked with `is` or `id(...)`, never with `==`: a comparison of tensors
# compares their numbers and gives a tensor.

# %% nbgrader={"grade": false, "grade_id": "layers-parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def without_repeats(pairs: Iterable[tuple[str, _Kind]]) -> Iterator[tuple[str, _Kind]]:
    """The (name, object) pairs whose object has not come before, in order.

    TODO: Pass on a pair only if its object is new.

    APPROACH:
    1. Keep a set of the `id(...)` of every object seen so far.
    2. If the id of this pair's object is not in it, add it and `yield` the pair.

    EXAMPLE:
    >>> a, b = [1], [1]
    >>> [name for name, _ in without_repeats([("x", a), ("y", b), ("z", a)])]
    ['x', 'y']

    HINT: a and b are equal, and yet two objects: both stay.
    """
    ### BEGIN SOLUTION
    seen_ids: set[int] = set()
    for name, thing in pairs:
        if id(thing) not in seen_ids:
            seen_ids.add(id(thing))
            yield name, thing
    ### END SOLUTION


def parameters_of(module: Module) -> Iterator[tuple[str, Parameter]]:
    """Every parameter of ``module`` and of the modules below it, under each of its names.

    TODO: For each module of the tree, yield its own parameters with their full names.

    APPROACH:
    1. `walk(module)` gives each path and module; `owned(part, Parameter)` the parameters that are attributes of it.
    2. The full name is `joined(path, name)`.

    EXAMPLE:
    >>> [name for name, _ in parameters_of(Twice())]
    ['offset', 'left.weight', 'right.weight']

    HINT: A module's own parameters come before those of its children, because that is the order of `walk`.
    """
    ### BEGIN SOLUTION
    for path, part in walk(module):
        for name, parameter in owned(part, Parameter):
            yield joined(path, name), parameter
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-parameters", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_parameters():
    one, two = Parameter([1.0]), Parameter([1.0])
    kept = [name for name, _ in without_repeats([("x", one), ("y", two), ("z", one), ("u", two), ("v", None)])]
    assert kept == ["x", "y", "v"], f"expected x, y, v: the first pair of each object, by its id; got {kept}"
    assert next(iter(without_repeats([("x", one)])))[1] is one, "the pair is passed on as it is"
    net = Module()
    net.left = net.right = Times(2.0)
    net.offset = Parameter([0.5])
    every = [name for name, _ in parameters_of(net)]
    assert every == ["offset", "left.weight", "right.weight"], f"expected offset and the weight twice; got {every}"
    once = [name for name, _ in net.named_parameters()]
    assert once == ["offset", "left.weight"], f"a shared parameter is named once, by its first name; got {once}"
    assert [p is q for p, q in zip(net.parameters(), [net.offset, net.left.weight], strict=True)] == [True, True]
    modules = [name for name, _ in net.named_modules()]
    assert modules == ["", "left"], f"named_modules: expected '' and left, got {modules}"
    net.left.weight.grad = net.offset.grad = Tensor([1.0])
    net.zero_grad()
    assert net.left.weight.grad is None and net.offset.grad is None
    ### BEGIN HIDDEN TESTS
    twig_count = int(np.random.default_rng().integers(3, 8))
    tied = Parameter([0.0])
    trunk = Module()
    for place in range(twig_count):
        twig = Module()
        twig.tied, twig.own, twig.note = tied, Parameter([float(place)]), Tensor([1.0])
        setattr(trunk, f"twig{place}", twig)
    names = [name for name, _ in trunk.named_parameters()]
    twigs = ["twig0.tied", *[f"twig{place}.own" for place in range(twig_count)]]
    assert names == twigs, f"only Parameters, a tied one once: {names}"
    close([float(p) for p in trunk.parameters()], [0.0, *range(twig_count)])
    ### END HIDDEN TESTS


test_parameters()

# %% [markdown]
# Predict: how many parameters does this one find?

# %%
class Pile(Module):
    def __init__(self):
        super().__init__()
        self.layers = [Scale(1.0), Scale(2.0), Scale(3.0)]


len(list(Pile().parameters()))

# %% [markdown]
# None. `layers` is a plain list, neither a Parameter nor a Module, so what is in it belongs to nobody: it computes,
# and it is never trained nor saved. No error is shown. Section 7 brings `ModuleList`, a list that is a Module.
#
# ## 5. Linear
#
# Now the first real layer. It checks the width of what comes in, and names itself if it is wrong: a network has many
# layers, and `inner dimensions 28 and 784 differ` does not say which of them it was.
#
# Inputs may have any number of axes before the last, (batch, time, features) in a language model. Before you decide how
# to multiply those, predict which is faster: a stack of 128 short sequences, (128, 8, 256) @ (256, 256), or the same
# numbers as one table, (1024, 256) @ (256, 256)?

# %%
rng = np.random.default_rng(0)
sequences, table = rng.random((128, 8, 256), dtype=np.float32), rng.random((256, 256), dtype=np.float32)
stacked = measure(lambda: sequences @ table.T)
flat = measure(lambda: (sequences.reshape(-1, 256) @ table.T).reshape(128, 8, 256))
print(f"as 128 products: {stacked.median_s * 1e3:6.1f} ms")
print(f"as one product:  {flat.median_s * 1e3:6.1f} ms   {stacked.median_s / flat.median_s:.1f}x")

# %% [markdown]
# The numbers are the same, in the same memory, and a reshape costs nothing. Measured here, with NumPy 2.4 and OpenBLAS:
# 7 ms against 1.5 ms on one thread, 11 ms against 0.9 ms on two. A stack is multiplied matrix by matrix, and each
# product arranges the weights anew for only 8 rows of work. So we make one table of the input, multiply once, and put
# the axes back.
#
# And the bias? `product + bias` makes a second array as large as the product, which is dropped at once: twice the
# memory, and more time for the system to find it than for the sums. The product is ours alone, so add to it in place.
#
# ### Exercise: `linear_forward`
#
# The function of section 1, on arrays, for any number of axes and without waste. It becomes an operation of its own,
# in the place of four: reshape, permute, matmul and add.

# %% nbgrader={"grade": false, "grade_id": "layers-linear-forward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``x @ weight.T + bias``, as one product of two matrices.

    Parameters
    ----------
    x
        Of shape (..., in_features); it is not changed.
    weight, bias
        Of shape (out_features, in_features) and (out_features,); None adds nothing.

    Returns
    -------
    Array
        Of shape (..., out_features).

    TODO: One table of rows, one product, the bias in place, the axes back.

    APPROACH:
    1. `x.reshape(-1, ...)`: a table with in_features columns, whatever the axes before were.
    2. Its product with `weight.T` is a new array; if there is a bias, `+=` it.
    3. Give back the leading axes: `(*x.shape[:-1], ...)`.

    EXAMPLE:
    >>> linear_forward(np.array([1.0, 2.0]), np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([0.0, 10.0]))
    array([11., 12.])

    HINT: Ask `bias is None`: an array of several numbers is neither true nor false.
    """
    ### BEGIN SOLUTION
    table_rows = x.reshape(-1, weight.shape[1])  # (N, in_features)
    mapped = table_rows @ weight.T  # (N, out_features)
    if bias is not None:
        mapped += bias
    return mapped.reshape(*x.shape[:-1], weight.shape[0])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-linear-forward", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_linear_forward():
    weight, bias = np.array([[3.0, 4.0], [5.0, 6.0], [0.0, 1.0]]), np.array([0.0, 0.0, 10.0])
    x = np.array([[1.0, 2.0]])
    close(linear_forward(x, weight, bias), [[11, 17, 12]], why="x @ weight.T + bias")
    close(linear_forward(x, weight), [[11, 17, 2]], why="without a bias nothing is added")
    close(x, [[1, 2]], why="x belongs to the caller: add to the product, not to x")
    close(bias, [0, 0, 10], why="the bias belongs to the caller")
    close(linear_forward(x[0], weight, bias), [11, 17, 12], why="an input of shape (in,) gives one of shape (out,)")
    close(linear_forward(np.ones((2, 1, 2)), weight, bias), np.tile([7.0, 11.0, 11.0], (2, 1, 1)), why="keep the axes")
    close(linear_forward(np.ones((0, 2)), weight, bias), np.zeros((0, 3)), why="an empty batch is a batch")
    ### BEGIN HIDDEN TESTS
    picker = np.random.default_rng()
    for lead in [(), (1,), (4,), (3, 2), (2, 1, 3), (0, 2)]:
        k, n = (int(size) for size in picker.integers(1, 6, size=2))
        drawn, kernel, shift = picker.normal(size=(*lead, k)), picker.normal(size=(n, k)), picker.normal(size=n)
        close(linear_forward(drawn, kernel, shift), np.einsum("...k,nk->...n", drawn, kernel) + shift)
    ### END HIDDEN TESTS


test_linear_forward()

# %% [markdown]
# ### The order of the weights in memory
#
# The product reads `weight.T`. A table (out, in) lies in memory row after row, so its transpose is read in jumps, unless
# the same table is stored column after column: neither its shape nor any number is another, only the strides
# (module 02). Predict for how many rows of x that matters most.

# %%
print("rows of x   weight by rows   by columns")
by_rows = rng.random((512, 128), dtype=np.float32)
by_column = np.asfortranarray(by_rows)
for count in (1, 20, 100, 1000):
    x = rng.random((count, 128), dtype=np.float32)
    jumping, straight = (measure(linear_forward, x, weight, repeats=50) for weight in (by_rows, by_column))
    print(f"{count:9} {jumping.median_s * 1e6:13.0f} µs {straight.median_s * 1e6:9.0f} µs   "
          f"{jumping.median_s / straight.median_s:.1f}x")

# %% [markdown]
# Measured here, on one thread, medians of 150 by turns: 1.6 times as fast for 20 rows, 1.2 for 100, 1.0 for 1,000. A large
# product arranges the weights anew in any case; smaller ones, as in a text that is being written, gain. A layer's weight
# is therefore stored by columns.

# %%
#| export
LINEAR = Op("linear", linear_forward)


def by_columns(parameter: Parameter) -> Parameter:
    """``parameter`` itself, its numbers stored column after column: the order in which ``linear`` reads a weight.

    EXAMPLE:
    >>> by_columns(Parameter(np.ones((2, 3)))).data.strides
    (4, 8)
    """
    parameter.data = np.asfortranarray(parameter.data)
    return parameter


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for x (..., in_features), weight (out_features, in_features) and bias (out_features,).

    Raises
    ------
    ValueError
        If the last axis of ``x`` is not as long as that of the weight; it names both shapes.
    """
    if x.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"linear: expected {weight.shape[1]} features on the last axis, got shape {x.shape}")
    return apply(LINEAR, x, weight) if bias is None else apply(LINEAR, x, weight, bias)

# %% [markdown]
# ### Exercise: `Linear`

# %% nbgrader={"grade": false, "grade_id": "layers-linear", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def whole_size(owner: str, name: str, size: Any) -> int:
    """``size`` as an int; TypeError if it is no whole number, ValueError if it is less than 1, naming ``owner``."""
    try:
        whole = index(size)
    except TypeError:
        raise TypeError(f"{owner}: {name} should be a whole number, got {size!r}") from None
    if whole < 1:
        raise ValueError(f"{owner}: {name} should be at least 1, got {size}")
    return whole


class Linear(Module):
    """The affine map ``y = x @ weight.T + bias`` on the last axis of its input.

    Parameters
    ----------
    in_features, out_features
        The length of the last axis of the input and of the output.
    bias
        Whether something is added; without, ``bias`` is None.

    Attributes
    ----------
    weight
        Parameter of shape (out_features, in_features).
    bias
        Parameter of shape (out_features,), or None. Both begin evenly distributed over ±1/sqrt(in_features), as
        PyTorch's do, drawn by the default generator.

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number, or is less than 1.
    ValueError
        When called on an input whose last axis has another length than ``in_features``.

    TODO: Fill in the two blanks: draw the parameters, and compute.

    APPROACH:
    1. `__init__`: `self.weight` and `self.bias` by `uniform_parameter`; without a bias, `self.bias` is None.
    2. `forward`: if `x.shape[-1:]` is not `(self.in_features,)`, raise
       `ValueError(f"{self!r}: expected {self.in_features} features on the last axis, got shape {x.shape}")`.
    3. Then `linear`, the operation of the cell above, with the parameters.

    EXAMPLE:
    >>> Linear(4, 8)(randn(2, 5, 4)).shape
    (2, 5, 8)

    HINT: Use tensors all the way. A `.data` inside `forward` would give the right numbers, and no gradients later.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = whole_size("Linear", "in_features", in_features)
        self.out_features = whole_size("Linear", "out_features", out_features)
        self.weight: Parameter
        self.bias: Parameter | None
        ### BEGIN SOLUTION
        bound = 1 / math.sqrt(self.in_features)
        self.weight = uniform_parameter((self.out_features, self.in_features), bound)
        self.bias = uniform_parameter((self.out_features,), bound) if bias else None
        ### END SOLUTION
        by_columns(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape (..., in_features) as (..., out_features)."""
        ### BEGIN SOLUTION
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"{self!r}: expected {self.in_features} features on the last axis, got shape {x.shape}")
        return linear(x, self.weight, self.bias)
        ### END SOLUTION

    def extra_repr(self) -> str:
        """``in_features=4, out_features=8, bias=True``"""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


Dense = Linear

# %% nbgrader={"grade": true, "grade_id": "test-layers-linear", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
def tensors_behind(layer, x):
    """All that the output of layer(x) was computed from, as far as the door saw it."""
    notes = []
    before = set_recorder(lambda op, inputs, arrays, attrs, out: notes.append((inputs, out)))
    try:
        found = [layer(x)]
    finally:
        set_recorder(before)
    for inputs, out in reversed(notes):
        if any(out is one for one in found):
            found.extend(inputs)
    return found


def test_linear():
    layer = Linear(2, 3)
    shapes = layer.weight.shape, layer.bias.shape
    assert shapes == ((3, 2), (3,)), f"Linear(2, 3): expected a weight (3, 2) and a bias (3,), got {shapes}"
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"], "both are Parameters, the weight first"
    layer.weight.data = np.array([[3, 4], [5, 6], [0, 1]], np.float32)
    layer.bias.data = np.array([0, 0, 10], np.float32)
    close(layer(Tensor([[1.0, 2.0]])).data, [[11, 17, 12]], dtype=np.float32, why="x @ weight.T + bias")
    close(layer(Tensor([1.0, 2.0])).data, [11, 17, 12], why="an input of shape (in,) gives one of shape (out,)")
    close(layer(Tensor(np.ones((2, 1, 2)))).data, np.tile([7.0, 11.0, 11.0], (2, 1, 1)), why="keep the leading axes")
    close(layer(Tensor(np.ones((0, 2)))).data, np.zeros((0, 3)), why="an empty batch is a batch")
    shown = "Linear(in_features=2, out_features=3, bias=True)"
    for x in (np.ones((2, 3)), np.ones(3), np.array(1.0)):
        with raises(ValueError, shown, "expected 2", str(x.shape), why=f"the input has shape {x.shape}"):
            layer(Tensor(x))
    bare = Linear(2, 3, bias=False)
    assert bare.bias is None and len(list(bare.parameters())) == 1, "bias=False leaves the bias away"
    close(bare(Tensor([[1.0, 1.0]])).data, bare.weight.data.sum(axis=1)[None], why="without a bias nothing is added")
    manual_seed(5)
    wide = Linear(100, 300)
    for name, p in wide.named_parameters():
        largest = float(np.abs(p.data).max())
        assert 0.08 < largest <= 0.1, f"{name}: drawn from ±1/sqrt(100) = ±0.1, but the largest is {largest:.3f}"
    manual_seed(5)
    close(Linear(100, 300).weight.data, wide.weight.data, why="the same seed gives the same layer")
    for x in (Tensor([[1.0, 2.0]]), Tensor(np.ones((2, 2, 2)))):
        came_from = tensors_behind(layer, x)
        for told, name in ((x, "x"), (layer.weight, "weight"), (layer.bias, "bias")):
            assert any(one is told for one in came_from), f"the output does not come from {name}: no .data in forward"
    ### BEGIN HIDDEN TESTS
    sampler = np.random.default_rng()
    for lead in [(), (1,), (5,), (2, 3), (2, 1, 4), (3, 0)]:
        m, n = (int(size) for size in sampler.integers(1, 7, size=2))
        tested = Linear(m, n)
        kernel, shift, given = sampler.normal(size=(n, m)), sampler.normal(size=n), sampler.normal(size=(*lead, m))
        tested.weight.data, tested.bias.data = kernel.astype(np.float32), shift.astype(np.float32)
        close(tested(Tensor(given)).data, given @ kernel.T + shift, dtype=np.float32, rtol=1e-4, atol=1e-5)
    doubled = Linear(3, 2)(Tensor(sampler.normal(size=(2, 3)), dtype=np.float64))
    assert doubled.dtype == np.float64, "a float64 input gives a float64 output"
    narrow = Linear(4, 5000)
    for name, p in narrow.named_parameters():
        assert abs(float(p.data.std()) - 0.5 / math.sqrt(3)) < 0.02, f"{name}: evenly over ±1/sqrt(in_features)"
    again = narrow.bias.data
    assert np.any(again[:4] != narrow.weight.data[0]) and np.any(again != Linear(4, 5000).bias.data), "drawn anew"
    ### END HIDDEN TESTS


test_linear()

# %%
layer = Linear(784, 128)
print(layer)
try:
    layer(randn(32, 28, 28))
except ValueError as error:
    print(error)

# %% [markdown]
# ### What a layer weighs
#
# Weights are kept once. The output is kept once *for every row of the batch*, and in training it stays until its
# gradient is computed. Predict: at how many rows does the output of `Linear(512, 2048)` take as much memory as its
# weights and biases?

# %%
layer = Linear(512, 2048)
weights_mb = sum(p.data.nbytes for p in layer.parameters()) / 1e6
print(f"weights and biases: {weights_mb:.2f} MB")
for rows in (1, 64, 512, 4096):
    cost = measure(layer, randn(rows, 512), repeats=3)
    output_mb = cost.result.data.nbytes / 1e6
    print(f"{rows:5} rows: output {output_mb:6.2f} MB, at most {cost.peak_bytes / 1e6:6.2f} MB at once")

# %% [markdown]
# At 513 rows, one more than `in_features`: the output has rows · 2048 numbers, the layer (512 + 1) · 2048. Serving one
# request is about weights; training on large batches is about activations. A sequence of 1,024 tokens is 1,024 rows.
#
# The peak is the output alone, since the bias is added in place. With `x @ weight.T + bias` it would be twice as much.
#
# ## 6. Why the first numbers matter
#
# A network can be ruined before it has seen any data. Each output of a layer is a sum of n products; if the weights
# have deviation σ, then n independent terms of variance σ² make the outputs √n·σ times as widely spread as the
# inputs. Ten layers make that (√n·σ)¹⁰.
#
# For n = 256, so √n = 16, predict the spread after ten layers for σ = 1, for σ = 0.01, and for PyTorch's even draw from
# ±1/√n, whose deviation is 1/√(3n).
#
# ### Exercise: `spread_through`

# %% nbgrader={"grade": false, "grade_id": "layers-spread", "locked": false, "schema_version": 3, "solution": true, "task": false}
def spread_through(x, layers):
    """The standard deviation of the numbers after each of ``layers``, as a list of Python floats.

    TODO: Send x through the layers one after the other, and note the deviation after each.

    APPROACH:
    1. The output of one layer is the input of the next.
    2. `np.std` of the output's `.data`, over all its numbers, as a `float`.

    EXAMPLE:
    >>> spread_through(Tensor([[-1.0, 1.0]]), [Scale(2.0), Scale(2.0)])
    [2.0, 4.0]

    HINT: The spread of x itself is not in the list: one number for each layer.
    """
    ### BEGIN SOLUTION
    spreads = []
    for one_layer in layers:
        x = one_layer(x)
        spreads.append(float(np.std(x.data)))
    return spreads
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-spread", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_spread_through():
    start = Tensor([[-1.0, 1.0], [1.0, -1.0]])
    why = "np.std of each output; each layer gets what the one before gave"
    close(spread_through(start, [Times(2.0), Times(3.0)]), [2, 6], why=why)
    close(spread_through(start, []), np.zeros(0))
    ### BEGIN HIDDEN TESTS
    factors = np.random.default_rng().uniform(0.5, 2, size=5)
    noise = np.random.default_rng().normal(2, 3, size=(6, 4))
    want = noise.std() * np.cumprod(factors)
    close(spread_through(Tensor(noise), [Times(float(f)) for f in factors]), want, rtol=1e-4)
    ### END HIDDEN TESTS


test_spread_through()

# %%
width, depth = 256, 10


def layers_with(draw):
    made = [Linear(width, width, bias=False) for _ in range(depth)]
    for one in made:
        one.weight.data = draw(one.weight.data).astype(np.float32)
    return made


manual_seed(0)
rng = np.random.default_rng(0)
starts = {
    "σ = 1": lambda w: rng.normal(0, 1, w.shape),
    "±√(3/n)": lambda w: w * math.sqrt(3),
    "±1/√n, PyTorch": lambda w: w,
    "σ = 0.01": lambda w: rng.normal(0, 0.01, w.shape),
}
x = randn(512, width)
spreads = {label: spread_through(x, layers_with(draw)) for label, draw in starts.items()}

figure, axes = plt.subplots(figsize=(6.5, 3.5))
for label, values in spreads.items():
    axes.plot(range(1, depth + 1), values, "o-", markersize=4)
    axes.annotate(label, (depth, values[-1]), xytext=(8, -3), textcoords="offset points")
axes.set_yscale("log")
axes.set_xlim(0.5, 13.5)
axes.set_xticks(range(1, depth + 1))
axes.set_xlabel("layer")
axes.set_ylabel("deviation of the activations")
axes.set_title("Ten linear layers of width 256: how the start decides")
plt.show()
print({label: f"{values[-1]:.3g}" for label, values in spreads.items()})

# %% [markdown]
# Measured for one seed: after ten layers 1.3·10¹² for σ = 1, and 1.1·10⁻⁸ for σ = 0.01, as (16)¹⁰ = 1.1·10¹² and
# (0.16)¹⁰ = 1.1·10⁻⁸ said. PyTorch's draw loses a factor √3 in each layer, which makes 0.0042 of the signal; with two
# or three layers nobody notices, and a library cannot change its start without changing everybody's results. Drawing
# from ±√(3/n) gives σ = 1/√n and keeps the spread: 0.98 after ten layers. Deep networks use such a bound, with a
# factor for their activation, or normalise between the layers (module 14).
#
# ## 7. Layers in a row
#
# `ModuleList` is a list that is a Module: what it holds is found, under the names "0", "1", "2". `Sequential` is a
# ModuleList that can be called: each module gets what the one before gave.
#
# An activation has no weights. It can be a module all the same; a plain function will do, too (Sequential wraps it):

# %%
class Tanh(Module):
    def forward(self, x):
        return x.tanh()


print(Tanh(), "has", len(list(Tanh().parameters())), "parameters")

# %% [markdown]
# ### Exercise: `ModuleList.append` and `Sequential.forward`

# %% nbgrader={"grade": false, "grade_id": "layers-sequential", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class ModuleList(Module):
    """A list of modules that is a module itself, so that what it holds is trained and saved.

    Parameters
    ----------
    modules
        What the list holds at first; their names are their positions, "0", "1", "2".

    Raises
    ------
    TypeError
        If something that is no Module is put in; it names the position.
    IndexError
        If an index is out of range.

    TODO: Fill in `append` here, and `forward` in Sequential below.

    APPROACH:
    1. `append`: the position of the new module is `len(self)`. If it is no Module, raise
       `TypeError(f"{type(self).__name__}: position {len(self)} should be a Module, got {type(module).__name__}")`.
    2. Otherwise `setattr(self, ...)` under the position as a string; return self.
    3. `Sequential.forward`: loop over `self`.

    EXAMPLE:
    >>> blocks = ModuleList([Linear(2, 2), Linear(2, 2)]); [name for name, _ in blocks.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']

    HINT: An empty Sequential gives back what it gets.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Put a module at the end; returns the list."""
        ### BEGIN SOLUTION
        position = len(self)
        if not isinstance(module, Module):
            intruder = type(module).__name__
            raise TypeError(f"{type(self).__name__}: position {position} should be a Module, got {intruder}")
        setattr(self, str(position), module)
        return self
        ### END SOLUTION

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return ModuleList(list(self)[key])
        try:
            return list(self)[key]
        except IndexError:
            raise IndexError(f"{type(self).__name__}: index {key} is out of range for {len(self)} modules") from None


class Lambda(Module):
    """A plain function as a module: no parameters, nothing to save. It shows itself as the function does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the function gives."""
        return self.function(*inputs, **options)

    def __repr__(self) -> str:
        return repr(self.function)


class Sequential(ModuleList):
    """Modules that are called one after the other, each on what the one before gave; none at all is the identity.

    A function, or an activation of module 03, may stand among them; it is held as a ``Lambda``. Indexing gives a
    module, slicing a Sequential of the same modules.

    Raises
    ------
    TypeError
        If an argument cannot be called, or is a class; it names the position.
    """

    def __init__(self, *modules: Module | Callable[..., Any]) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module | Callable[..., Any]) -> Self:
        """Put a module or a function at the end; returns the Sequential."""
        is_function = callable(module) and not isinstance(module, Module | type)  # a class lacks its parentheses
        held: Any = Lambda(module) if is_function else module
        return super().append(held)

    def forward(self, x: Any) -> Any:
        """``x`` through all modules, in order."""
        ### BEGIN SOLUTION
        carried = x
        for stage in self:
            carried = stage(carried)
        return carried
        ### END SOLUTION

    def __getitem__(self, key: int | slice) -> Any:
        return Sequential(*list(self)[key]) if isinstance(key, slice) else super().__getitem__(key)

# %% nbgrader={"grade": true, "grade_id": "test-layers-sequential", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
def test_sequential():
    double, triple = Times(2.0), Times(3.0)
    net = Sequential(double, Plus(1.0), triple)
    close(net(Tensor([1.0, 2.0])).data, [9, 15], why="first times 2, then plus 1, then times 3: in order")
    close(Sequential()(Tensor([1.0, 2.0])).data, [1, 2], why="no modules: what comes in goes out")
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "2.weight"], "modules are named by position"
    assert len(net) == 3 and net[0] is double and net[-1] is triple and list(net)[2] is triple
    close(net[:2](Tensor([1.0])).data, [3], why="a slice of a Sequential is a Sequential")
    blocks = ModuleList([double])
    assert blocks.append(triple) is blocks, "append returns the list, so that calls can be chained"
    assert [name for name, _ in blocks.named_parameters()] == ["0.weight", "1.weight"]
    close(Sequential(double, lambda x: x + 1)(Tensor([1.0])).data, [3], why="a function may stand among the modules")
    with raises(TypeError, "Sequential", "position 1", "str", why="'relu' is no Module"):
        Sequential(double, "relu")
    with raises(TypeError, "ModuleList", "position 2", "float", why="1.0 is no Module"):
        blocks.append(1.0)
    assert len(blocks) == 2, "what is refused is not kept"
    with raises(IndexError, "3"):
        net[3]
    ### BEGIN HIDDEN TESTS
    steps = np.random.default_rng().uniform(0.5, 1.5, size=(12, 2))
    built, number = Sequential(), 1.0
    for factor, shift in steps.tolist():
        built.append(Times(factor)).append(Plus(shift))
        number = number * factor + shift
    close(built(Tensor([1.0])).data, [number], rtol=1e-4, why="twelve pairs in the order in which they were appended")
    assert [name for name, _ in built.named_children()] == [str(place) for place in range(24)]
    close(Sequential(double, double)(Tensor([1.0])).data, [4], why="the same module twice is called twice")
    ### END HIDDEN TESTS


test_sequential()

# %%
manual_seed(0)
model = Sequential(Linear(784, 128), Tanh(), Linear(128, 10))
print(model)
print({name: p.shape for name, p in model.named_parameters()})
print(sum(p.size for p in model.parameters()), "numbers; by hand:", mlp_size([784, 128, 10]))

# %% [markdown]
# ## 8. The state: a contract between programs
#
# One program trains, another serves, a third goes on training next week. What they share is neither code nor objects,
# but a table: **name → array**. Names and shapes are the contract. A model is free to change its code, as long as
# these stay.
#
# So loading must be strict. Half a load is the worst outcome: it runs, and is wrong. Before the first number is
# written, *everything* is checked, and one error names all that does not fit.
#
# ### Exercise: `state_of` and `load_state`

# %% nbgrader={"grade": false, "grade_id": "layers-state", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class IncompatibleKeys(NamedTuple):
    """What ``load_state`` passed over."""

    missing_keys: list[str]
    """Names that the module has and the state does not."""
    unexpected_keys: list[str]
    """Names that the state has and the module does not."""


def arrays_of(module: Module) -> Iterator[tuple[str, Array]]:
    """The array itself of every parameter and buffer, under each of its names."""
    for path, part in walk(module):
        for name, value in vars(part).items():
            if isinstance(value, Parameter):
                yield joined(path, name), value.data
            elif name in part._buffers:
                yield joined(path, name), value


def state_of(module: Module) -> dict[str, Array]:
    """A copy of every parameter and buffer of ``module``, under each of its names.

    TODO: A dictionary of copies.

    APPROACH:
    1. `arrays_of(module)` gives names and arrays; `.copy()` each.

    EXAMPLE:
    >>> state_of(Scale(2.0))
    {'weight': array([2.], dtype=float32)}

    HINT: Without the copy, training goes on inside the state that you saved.
    """
    ### BEGIN SOLUTION
    return {name: array.copy() for name, array in arrays_of(module)}
    ### END SOLUTION


def load_state(module: Module, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
    """Write the numbers of ``state`` into the parameters and buffers of ``module``, which keep identity and dtype.

    Parameters
    ----------
    state
        Arrays (or Tensors) by name, such as ``state_dict()`` gives and ``numpy.load`` reads from an ``.npz`` file.
    strict
        If false, names that only one side has are passed over. Shapes must agree all the same.

    Returns
    -------
    IncompatibleKeys
        The names that were passed over; both lists are empty if strict.

    Raises
    ------
    RuntimeError
        If anything does not fit; it names every missing and unexpected name and every shape that differs, and
        nothing has been changed.
    TypeError
        If ``state`` is no mapping, or holds something other than numbers.

    TODO: Collect all problems; if there are any, raise; only then write.

    APPROACH:
    1. `missing`: the names in `targets` that are not in `given`, in order. `unexpected`: the other way round.
    2. `misfits`, a list of lines: if strict, one line for each list of names that is not empty
       (`f"missing: {', '.join(missing)}"`, and the same for unexpected). Always one line for each name that both have
       with different shapes: `f"{name}: the module has shape {...}, the state {...}"`.
    3. If there are any, raise one RuntimeError with all of them.
    4. Write into each array that has a value (`array[...] = value` keeps array and dtype), and return
       `IncompatibleKeys(missing, unexpected)`.

    EXAMPLE:
    >>> load_state(Scale(2.0), {"weight": [1.0, 2.0], "b": 0.0})
    RuntimeError: the state does not fit Scale:
      unexpected: b
      weight: the module has shape (1,), the state (2,)

    HINT: `array = value` would only give the value another name. And compare shapes before anything is written: NumPy
    would broadcast (1,) into (10,) without a word.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict: expected a dictionary of arrays by name, got {type(state).__name__}")
    targets = dict(arrays_of(module))
    given = {name: np.asarray(value) for name, value in state.items()}
    for name, value in given.items():
        if value.dtype.kind not in "biuf":
            raise TypeError(f"load_state_dict: {name} should hold numbers, it holds dtype {value.dtype}")
    ### BEGIN SOLUTION
    missing = [name for name in targets if name not in given]
    unexpected = [name for name in given if name not in targets]
    misfits = []
    if strict and missing:
        misfits.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        misfits.append(f"unexpected: {', '.join(unexpected)}")
    for name, array in targets.items():
        if name in given and given[name].shape != array.shape:
            misfits.append(f"{name}: the module has shape {array.shape}, the state {given[name].shape}")
    if misfits:
        raise RuntimeError("\n  ".join([f"the state does not fit {type(module).__name__}:", *misfits]))
    for name, array in targets.items():
        if name in given:
            array[...] = given[name]
    return IncompatibleKeys(missing, unexpected)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-layers-state", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false}
def test_state():
    def build(seed):
        manual_seed(seed)
        net = Sequential(Linear(3, 2), Sequential(), Linear(2, 1))
        net.register_buffer("steps", seed)
        return net

    one, two = build(1), build(2)
    state = one.state_dict()
    keys = ["steps", "0.weight", "0.bias", "2.weight", "2.bias"]
    assert sorted(state) == sorted(keys), f"expected {sorted(keys)}, got {sorted(state)}"
    close(state["2.weight"], one[2].weight.data)
    close(state["steps"], 1, why="buffers are in the state too")
    saved = float(state["0.bias"][0])
    one[0].bias.data[0] = 7.0
    close(float(state["0.bias"][0]), saved, why="the state changed with the model: copy the arrays")
    bias = two[0].bias
    two.load_state_dict(state)
    assert two[0].bias is bias, "loading writes into the parameters that are there"
    for name in keys:
        close(two.state_dict()[name], state[name], what=name, why="write into every array: array[...] = value")
    with raises(RuntimeError, "Times", "missing: weight", "unexpected: a, b", why="one error names all"):
        load_state(Times(1.0), {"a": [1.0], "b": [2.0]})
    with raises(RuntimeError, "missing: 0.bias, 2.bias"):
        two.load_state_dict({name: state[name] for name in keys if "bias" not in name})
    wrong = {**state, "0.weight": np.zeros((3, 2)), "2.bias": np.zeros(()), "steps": 5}
    for strict in (True, False):
        with raises(RuntimeError, "0.weight", "(2, 3)", "(3, 2)", "2.bias", "(1,)", "()", why="name each that differs"):
            two.load_state_dict(wrong, strict=strict)
    close(two.state_dict()["steps"], 1, why="if anything is wrong, nothing is written")
    skipped = two.load_state_dict({"0.bias": [5.0, 6.0], "extra": [1.0]}, strict=False)
    close(two[0].bias.data, [5, 6], dtype=np.float32, why="strict=False loads the names that both have")
    absent = [key for key in state if key != "0.bias"]
    told = f"expected {absent} missing and ['extra'] unexpected, got {skipped}"
    assert list(skipped.missing_keys) == absent and list(skipped.unexpected_keys) == ["extra"], told
    exact = Module()
    exact.weight = Parameter([1.0], dtype=np.float64)
    exact.load_state_dict({"weight": np.array([2.0], np.float32)})
    close(exact.weight.data, [2], dtype=np.float64, why="a parameter keeps its dtype")
    exact.load_state_dict({"weight": [1 / 3]})
    close(exact.weight.data, [1 / 3], rtol=1e-15, atol=0, why="float64 numbers stay exact in a float64 parameter")
    ### BEGIN HIDDEN TESTS
    fourth = np.random.default_rng()
    m, n = (int(size) for size in fourth.integers(2, 6, size=2))
    source, target = Linear(m, n), Linear(m, n)
    inputs = Tensor(fourth.normal(size=(4, m)))
    wanted = source(inputs).data
    outcome = load_state(target, {name: Tensor(array) for name, array in state_of(source).items()})
    assert list(outcome.missing_keys) == [] and list(outcome.unexpected_keys) == []
    close(target(inputs).data, wanted)
    source.weight.data[...] = 0
    close(target(inputs).data, wanted, why="the two models share no memory")
    with raises(RuntimeError, "unexpected: c"):
        load_state(Times(3.0), {"weight": [1.0], "c": [2.0]})
    unharmed = Times(3.0)
    with raises(RuntimeError, "missing: weight"):
        load_state(unharmed, {})
    with raises(RuntimeError, "(1,)", "(2,)"):
        load_state(unharmed, {"weight": [1.0, 2.0]})
    close(unharmed.weight.data, [3])
    ### END HIDDEN TESTS


test_state()

# %% [markdown]
# A training program writes a file, and a serving program, which shares nothing but the file, reads it. A third one has
# meanwhile been changed.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.npz"
    np.savez(path, **model.state_dict())
    print(f"{path.name}: {path.stat().st_size:,} bytes")

    manual_seed(99)
    served = Sequential(Linear(784, 128), Tanh(), Linear(128, 10))
    with np.load(path) as saved:
        served.load_state_dict(saved)
        pictures = randn(5, 784)
        print("largest difference of the outputs:", float(np.abs(served(pictures).data - model(pictures).data).max()))
        try:
            Sequential(Linear(784, 64), Tanh(), Tanh(), Linear(64, 10)).load_state_dict(saved)
        except RuntimeError as error:
            print(error)

# %% [markdown]
# The file holds 407,080 bytes of numbers and about 1 kB of names and shapes. The outputs are equal to the last bit.
#
# ## 9. Two modes, and Dropout
#
# Dropout fights memorising. In training it sets each number to zero with probability p, drawn anew each time, so that
# no unit can rely on one other unit. In use nothing is dropped: the same input must give the same answer. Hence two
# modes, and `train()` and `eval()`, which tell every module of the tree. A module asks its own `self.training`:

# %%
class Announce(Module):
    def forward(self, x):
        print("in training" if self.training else "in use")
        return x


Announce()(Tensor([1.0]))

# %% [markdown]
# One thing more: a unit that gets the sum of 100 inputs in use got only about 100·(1 − p) of them in training. The two
# must agree on average. The *inverted* dropout, which everybody uses, pays in training: what is kept is multiplied by
# 1/(1 − p), and in use there is nothing left to do.
#
# Predict: with p = 0.5, what is the mean of 100,000 ones after dropout, with and without the factor?
#
# ### Exercise: `set_mode` and `Dropout`
#
# Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

# %% nbgrader={"grade": false, "grade_id": "layers-dropout", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def set_mode(module: Module, training: bool) -> None:
    """Set ``training`` on ``module`` and on every module below it.

    TODO: Tell every module of the tree.

    APPROACH:
    1. `walk(module)` visits them all.

    EXAMPLE:
    >>> net = Sequential(Dropout()); set_mode(net, False); net[0].training
    False

    HINT: The module itself is the first that `walk` gives.
    """
    ### BEGIN SOLUTION
    for _, visited in walk(module):
        visited.training = training
    ### END SOLUTION


class Dropout(Module):
    """In training, each number becomes zero with probability ``p``, and the others are multiplied by 1/(1 - p).

    In evaluation mode, and for ``p=0``, the input goes out as it came. The mask is drawn by the default generator and
    has the input's dtype.

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

    Parameters
    ----------
    p
        The probability of dropping, from 0 to 1; 1 drops everything.

    Raises
    ------
    ValueError
        If ``p`` is not between 0 and 1.
    TypeError
        When called in training on numbers that are not floating-point.

    TODO: Fill in the blank of `forward`: the mask, and the product with it.

    APPROACH:
    1. In evaluation mode or with p = 0, return x.
    2. `keep = 1 - self.p`; a number is kept where a draw from `default_generator().random(...)`, evenly from [0, 1), is
       smaller than keep.
    3. The mask holds 1/keep where a number is kept, and 0 elsewhere, in the dtype of x. With p = 1 nothing is kept: see
       that 1/0 is never computed.
    4. Return x times the mask.

    EXAMPLE:
    >>> _ = manual_seed(11); Dropout(0.5)(Tensor([1.0, 1.0, 1.0, 1.0]))
    Tensor([2., 2., 0., 2.])

    HINT: `array_of_booleans.astype(x.dtype)` turns False and True into 0 and 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is the probability of dropping and lies between 0 and 1, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with some of its numbers dropped, of the same shape and dtype."""
        if x.dtype.kind != "f":
            raise TypeError(f"Dropout: expected floating-point numbers, got {x.dtype}")
        ### BEGIN SOLUTION
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        mask = (default_generator().random(x.shape, np.float32) < keep).astype(x.dtype)
        return x * (mask / keep if keep > 0 else mask)
        ### END SOLUTION

    def extra_repr(self) -> str:
        """``p=0.5``"""
        return f"p={self.p}"

# %% nbgrader={"grade": true, "grade_id": "test-layers-dropout", "locked": true, "points": 11, "schema_version": 3, "solution": false, "task": false}
def test_dropout():
    net = Sequential(Sequential(Dropout(0.5)), Module())
    for mode in (False, True):
        net.train(mode)
        told = [module.training for _, module in net.named_modules()]
        assert told == [mode] * 4, f"train({mode}) should reach all four modules of the tree, got {told}"
    assert net.eval() is net and net[0][0].training is False, "eval() is train(False), and returns the module"
    ones = Tensor(np.ones((200, 500)))
    manual_seed(4)
    layer = Dropout(0.2)
    dropped = layer(ones).data
    values = sorted(set(dropped.ravel().tolist()))
    close(values, [0, 1.25], why="a number is either 0, or multiplied by 1/(1 - p) = 1.25")
    why = "p is the probability of dropping, not of keeping, with a draw for each number"
    close(float((dropped == 0).mean()), 0.2, atol=0.01, rtol=0, why=why)
    assert dropped.dtype == np.float32, f"expected float32, got {dropped.dtype}"
    assert np.any(layer(ones).data != dropped), "the mask is drawn anew for each call"
    manual_seed(4)
    close(Dropout(0.2)(ones).data, dropped, why="draw from default_generator(), so that a seed repeats it")
    close(layer.eval()(ones).data, ones.data, why="in evaluation mode nothing is dropped")
    close(Dropout(0.0)(ones).data, ones.data)
    with np.errstate(all="raise"):
        close(Dropout(1.0)(Tensor([1.0, -2.0])).data, [0, 0], dtype=np.float32, why="p = 1 gives zeros, not NaN")
    close(Dropout(1.0).eval()(Tensor([1.0, -2.0])).data, [1, -2])
    for p in (-0.1, 1.1, float("nan")):
        with raises(ValueError, str(p)):
            Dropout(p)
    assert any(one is ones for one in tensors_behind(Dropout(0.5), ones)), "x times the mask: no .data on the way"
    ### BEGIN HIDDEN TESTS
    chance = float(np.random.default_rng().uniform(0.3, 0.7))
    signal = np.random.default_rng().normal(3, 1, size=(100, 300))
    noisy = Dropout(chance)(Tensor(signal)).data
    survived = noisy != 0
    close(noisy[survived], signal[survived] / (1 - chance), rtol=1e-4, dtype=np.float32)
    close(float(survived.mean()), 1 - chance, atol=0.02, rtol=0)
    for line in (survived[:, 0], survived[0]):
        assert 0 < float(line.mean()) < 1, "each number has a draw of its own"
    for kind in (np.float16, np.float64):
        assert Dropout(0.5)(Tensor(signal, dtype=kind)).dtype == kind, "the mask has the input's dtype"
    ### END HIDDEN TESTS


test_dropout()

# %%
ones = np.ones(100_000, np.float32)
ps = np.linspace(0, 0.9, 10)
manual_seed(0)
inverted = [float(Dropout(p)(Tensor(ones)).data.mean()) for p in ps]
plain = [float((default_generator().random(ones.shape) < 1 - p).mean()) for p in ps]

figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(ps, inverted, "o-", markersize=4)
axes.plot(ps, plain, "o-", markersize=4)
axes.annotate("multiplied by 1/(1 - p)", (ps[5], 1.04))
axes.annotate("dropped only", (ps[5] + 0.02, 0.52))
axes.set_ylim(0, 1.2)
axes.set_xlabel("p, the probability of dropping")
axes.set_ylabel("mean of 100,000 ones")
axes.set_title("The factor keeps the average where it was")
plt.show()
print(f"p = 0.5: {inverted[5]:.4f} with the factor, {plain[5]:.4f} without")

# %% [markdown]
# Measured: 0.996 with the factor, 0.497 without, at p = 0.5. Without it, the next layer would be trained on signals
# half as strong as those it meets in use.
#
# ### The forgotten `eval()`
#
# The most common bug of this whole module runs without an error. Here is a classifier, asked for the classes of 1,000
# inputs. Predict: if someone forgets `eval()`, what share of its answers changes? And how many answers differ between
# two identical calls?

# %%
manual_seed(0)
classifier = Sequential(Linear(20, 64), Tanh(), Dropout(0.5), Linear(64, 5))
inputs = randn(1000, 20)
answers = classifier.eval()(inputs).argmax(axis=1).data
classifier.train()
forgotten = [classifier(inputs).argmax(axis=1).data for _ in range(20)]
changed = [float((again != answers).mean()) for again in forgotten]
between = [float((one != two).mean()) for one, two in pairwise(forgotten)]
print(f"answers that change without eval(): {np.mean(changed):.1%}")
print(f"answers that differ between two identical calls: {np.mean(between):.1%}")

# %% [markdown]
# With these random weights, 48 % of the answers change, and 61 % differ between two calls on the same inputs. A
# trained network has larger margins and changes fewer answers, which is worse: the accuracy drops by a little, no
# error is shown, and everybody suspects the data. `model.eval()` belongs before every use, `model.train()` before
# every round of training.
#
# ## What you have built
#
# `Parameter`, `Module` (with `named_parameters`, `parameters`, `named_modules`, `register_buffer`, `state_dict`,
# `load_state_dict`, `train`, `eval`, `zero_grad` and a readable `repr`), `Linear` (also called `Dense`),
# `ModuleList`, `Sequential` and `Dropout`. Every number goes through tensor operations, so when module 06 takes
# notes, these layers are trained without a change.
#
# In the terminal: `tito module complete 04`. Then `from tinytorch.core.layers import Linear, Sequential` are your
# classes.

# %% [markdown]
# ## Reflection

# %% [markdown] nbgrader={"grade": false, "grade_id": "layers-reflect-memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Weights and activations.** A server holds a chain of linear layers 4096 → 16384 → 4096 in float32. Give the memory
# of its weights and biases, and of the activations (both outputs) for a batch of 8 rows and of 8,192 rows. Which of
# the two would you make smaller first when the server only answers single requests, and which when it trains?
#
# === BEGIN MARK SCHEME ===
# 1 point: weights about 537 MB, biases negligible. 1 point: activations grow with the rows, about 0.66 and 671 MB.
# 1 point: weights first for single requests, activations first for training, with a reason for each.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "layers-reflect-memory", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Weights: 2 * 4096 * 16384 + 16384 + 4096 = 134,238,208 numbers, 537 MB. Outputs: 20,480 numbers a row, 82 kB; 0.66
# MB for 8 rows, 671 MB for 8,192. Single requests: weights are nearly everything, so store them in fewer bytes. Large
# batches in training: activations are kept for the gradient and exceed the weights, so they come first.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "layers-reflect-state-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **The contract.** Last month's model was saved by its `state_dict`. Since then a colleague has renamed `self.head` to
# `self.output` and put a Dropout in front of the last layer of a Sequential. Which names change, what does
# `load_state_dict` say, and how do you load the old file all the same? Why is `strict=False` alone no answer?
#
# === BEGIN MARK SCHEME ===
# 1 point: names are paths; both the rename and the shifted position change them. 1 point: old names unexpected, new
# names missing, nothing loaded; rename the keys. 1 point: strict=False silently leaves those layers at random numbers.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "layers-reflect-state", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# The attribute's name is part of the path, so head.weight becomes output.weight, and the layer behind the new Dropout
# moves up by one position, say from 2.weight to 3.weight; Dropout itself has nothing to save. Strict loading names
# both sets, old names as unexpected and new ones as missing, and changes nothing. Rename the keys of the loaded
# dictionary to the new paths and load that strictly. With strict=False the renamed layers would keep their random
# start, without any error.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "layers-reflect-start-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **A start for a hundred layers.** You stack 100 layers of width 1,024 without normalisation. With PyTorch's default
# start, what is the spread at the end, about, and what happens to it in float32? Which bound keeps the spread, and
# why does even that not save you when an activation such as tanh or ReLU follows every layer?
#
# === BEGIN MARK SCHEME ===
# 1 point: 0.577 a layer, about 1e-24 in the end, independent of the width. 1 point: bound sqrt(3/n), deviation
# 1/sqrt(n). 1 point: the activation changes the variance too (ReLU halves it), so a gain or normalisation is needed.
# === END MARK SCHEME ===

# %% [markdown] nbgrader={"grade": true, "grade_id": "layers-reflect-start", "locked": false, "points": 3, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# An even draw over ±1/sqrt(n) has deviation 1/sqrt(3n), so each layer shrinks the spread by 1/sqrt(3) = 0.577,
# whatever the width; after 100 layers 0.577**100 = 1e-24. float32 can still hold that (down to 1e-38), but nothing of
# the input is left beside biases or any other term. A bound of sqrt(3/n) keeps the variance of a linear layer. An
# activation changes it again: ReLU throws away half of the signal's power, so it needs a factor sqrt(2) more; tanh
# shrinks large values. Each activation needs its own factor, or a normalisation.
# ### END SOLUTION
