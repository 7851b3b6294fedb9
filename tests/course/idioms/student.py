"""What a student might have written; the tests in `idioms.py` use it."""

from collections import Counter, namedtuple

import numpy as np

Pair = namedtuple("Pair", "left right")


class ShapeError(ValueError):
    pass


class Layer:
    count = 0

    def __init__(self, rows=2):
        self.weight = np.zeros((rows, 3))
        self.names = ["a", "b"]
        self.options = {"rate": 0.5, "nested": {"deep": [1]}}
        self.children = {}
        self.training = True

    def __call__(self, x, scale=1.0, state=None):
        if np.ndim(x) == 0:
            raise ShapeError(f"no axis in {x}")
        return np.asarray(x) * scale

    def __getitem__(self, i):
        return self.children[i]

    def __setitem__(self, i, child):
        self.children[i] = child

    def __delitem__(self, i):
        del self.children[i]

    def __contains__(self, i):
        return i in self.children

    def __len__(self):
        return len(self.children)

    def __iter__(self):
        return iter(self.children.values())

    def __add__(self, other):
        return Layer(self.weight.shape[0] + (other.weight.shape[0] if isinstance(other, Layer) else other))

    __radd__ = __add__

    def __enter__(self):
        self.training = False
        return self

    def __exit__(self, kind, error, trace):
        self.training = True
        self.left_by = None if kind is None else kind.__name__
        return kind is LookupError

    def __repr__(self):
        return f"Layer({len(self)})"

    @property
    def size(self):
        return self.weight.size

    def grow(self, array):
        array += 1
        return array

    def keep(self, array):
        self.kept = array

    def walk(self):
        yield from self.names

    def boom(self):
        return 1 / 0


hooks = []


def apply(function, *values, **options):
    return function(*values, **options)


def sorts(values):
    values.sort()
    return values[0]


def counts(word):
    return Counter(word)


def overflow():
    return np.float32(1e38) * np.float32(1e38)


limit = 3
