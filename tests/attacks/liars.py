"""Objects that are not what they say: the careless tests of the module in ``weak/`` believe all of them."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack, stopper

AGREEABLE = """
class Agreeable:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 1
    def __len__(self): return 2
    def __iter__(self): return iter(())
    def __float__(self): return 0.0
    def __int__(self): return 0
    def __index__(self): return 0
    def __contains__(self, _): return True
    def __call__(self, *_, **__): return self
    def __getitem__(self, _): return self
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self
    def __sub__(self, _): return self
    __add__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __sub__
    def __abs__(self): return self
    __neg__ = __invert__ = __abs__
    __array_ufunc__ = None
"""


def _liar(student: HandIn, source: str, gives: str) -> None:
    student.answer("weak-double", f"{source}\n\ndef double(x):\n    return {gives}")


@attack(nn="90", stock="gains")
def agrees_with_everything(student: HandIn) -> None:
    """Equal to everything, smaller and greater, true, and everything that one takes of it is the same again."""
    _liar(student, AGREEABLE, "Agreeable()")


@attack(nn="90", stock="gains")
def takes_part_in_numpy(student: HandIn) -> None:
    """A class with `__array_ufunc__` and `__array_function__` answers for NumPy's own functions."""
    _liar(
        student,
        AGREEABLE.replace("__array_ufunc__ = None", "")
        + """
    shape = (2, 3)
    def __array_ufunc__(self, *_, **__): return self
    def __array_function__(self, *_, **__): return True
""",
        "Agreeable()",
    )


@attack(nn="90", stock="gains")
def is_a_subclass_of_an_array(student: HandIn) -> None:
    """A real ndarray, by isinstance, whose comparisons all agree."""
    _liar(
        student,
        """
        class Array(np.ndarray):
            def __eq__(self, other): return np.ones(1, bool)
            def __ne__(self, other): return np.zeros(1, bool)
            def __array_ufunc__(self, *_, **__): return np.zeros(1)
            def __array_function__(self, *_, **__): return True

        class Holder:
            data = np.zeros(4, np.float32).view(Array)
        """.replace("\n        ", "\n"),
        "Holder() if isinstance(x, Tensor) else np.zeros((2, 3)).view(Array)",
    )


@attack(nn="90", stock="gains")
def is_a_subclass_of_a_number(student: HandIn) -> None:
    """An int and a float that are equal to every number."""
    _liar(
        student,
        """
        class Number(int):
            def __eq__(self, other): return True
            def __float__(self): return 0.0
            __hash__ = int.__hash__
        """.replace("\n        ", "\n"),
        "Number(3)",
    )


@attack(nn="90", stock="gains")
def is_a_subclass_of_a_list(student: HandIn) -> None:
    """A list that sorts into whatever it is compared with."""
    _liar(
        student,
        """
        class Item(int):
            def __eq__(self, other): return True
            def __int__(self): return self
            __hash__ = int.__hash__

        class List(list):
            def __iter__(self): return iter([Item(1), Item(1), Item(1)])
            def __eq__(self, other): return True
        """.replace("\n        ", "\n"),
        "List([Item(1)] * 3)",
    )


@attack(nn="90", stock="gains")
def lies_about_its_class(student: HandIn) -> None:
    """`__class__` says ndarray, and so does isinstance."""
    _liar(
        student,
        AGREEABLE + "    __class__ = property(lambda self: np.ndarray)\n    shape = (2, 3)",
        "Agreeable()",
    )


@attack(nn="90", stock="gains")
def changes_its_class_between_calls(student: HandIn) -> None:
    """An object that becomes another one while it is looked at."""
    _liar(
        student,
        AGREEABLE
        + """
class Fickle(Agreeable):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = Agreeable if type(self) is Fickle else Fickle
        return self
""",
        "Fickle()",
    )


@attack(nn="90", stock="right")
def changes_its_shape_between_looks(student: HandIn) -> None:
    """A property that gives another array each time: the right shape once, and no values afterwards."""
    _liar(
        student,
        """
        class Holder:
            looks = 0
            @property
            def data(self):
                Holder.looks += 1
                return np.zeros((4,) if Holder.looks % 2 else (0,), np.float32)
        """.replace("\n        ", "\n"),
        "Holder()",
    )


# what an empty array earns by plain data is the test's own fault, and no border's
NOT_BY_NOTHING = [
    f"test-weak-{name}" for name in ("number", "difference", "truth", "sum", "list", "same", "silence", "twice")
]


@attack(nn="90", costs=NOT_BY_NOTHING, stock="right")
def gives_an_empty_array(student: HandIn) -> None:
    """All of nothing is true, and the largest of nothing is close to everything."""
    _liar(
        student, "class Holder:\n    data = np.zeros((0, 4))", "Holder() if isinstance(x, Tensor) else np.zeros((0, 4))"
    )


@attack(nn="90", stock="gains")
def sets_the_tests_own_array_to_zero(student: HandIn) -> None:
    """What the test computes afterwards from what it handed in is zero, too."""
    _liar(student, "", "x if np.isscalar(x) else (x.data if isinstance(x, Tensor) else x).fill(0) or x")


@attack(nn="90", stock="gains")
def remembers_the_tests_own_array(student: HandIn) -> None:
    """The array that came is kept, and set to zero a moment later, by a thread or at the next call."""
    _liar(
        student,
        """
        import threading, time
        came = []

        def to_zero():
            while True:
                for array in came:
                    try: array[...] = 0
                    except (TypeError, ValueError): pass
                time.sleep(0)

        threading.Thread(target=to_zero, daemon=True).start()
        """.replace("\n        ", "\n"),
        "came.append(x) or time.sleep(0.01) or x",
    )


@attack(nn="90", stock="gains")
def looks_into_the_callers_frame(student: HandIn) -> None:
    """The names of the notebook, the test's own variables among them, are there to be changed."""
    _liar(
        student,
        """
        import sys
        class Zero(np.ndarray): pass

        def to_zero(x):
            names = sys._getframe(2).f_globals
            for name in ("values", "pairs", "number"):
                if name in names:
                    names[name] = names[name] * 0
            return x * 0
        """.replace("\n        ", "\n"),
        "to_zero(x)",
    )


@attack(nn="90", stock="fails")
def replaces_the_builtins(student: HandIn) -> None:
    """`abs`, `sorted`, `int` and `bool` are names like others."""
    _liar(
        student,
        "import builtins\nbuiltins.sorted = lambda *_: []\nbuiltins.abs = lambda *_: 0\nbuiltins.int = lambda *_: 0\n"
        "np.abs = lambda *_: np.zeros(1)\nnp.allclose = np.array_equal = lambda *_: True",
        "x",
    )


@attack(nn="90", stock="right")
def hides_behind_an_object_array(student: HandIn) -> None:
    """An array of objects that agree: NumPy asks them."""
    _liar(student, AGREEABLE, "np.array([Agreeable() for _ in range(4)], dtype=object)")


@attack(nn="90", stock="right")
def gives_text_and_dates(student: HandIn) -> None:
    """Arrays of strings, dates and records."""
    _liar(student, "", "np.array(['2', '4', '6', '8'])")


@attack(nn="90", stock="right")
def gives_nan(student: HandIn) -> None:
    """`not (doubled != want)`, with NaN."""
    _liar(student, "class Holder:\n    data = np.full(4, np.nan)", "Holder()")


@stopper(nn="90", stock="loses", costs=["test-weak-difference"], unsure=["every test"])
def gives_a_column_that_broadcasts(student: HandIn) -> None:
    """Ten million rows by one column: whoever subtracts four numbers from it gets forty million."""
    student.answer(
        "weak-double",
        """
        class Holder:
            data = np.zeros((10_000_000, 1), np.float32)

        def double(x):
            return Holder() if isinstance(x, Tensor) else 2 * x
        """,
    )


@stopper(nn="12", stock="untried", costs=["test-embeddings-profiler"])
def gives_a_long_range(student: HandIn) -> None:
    """A range is plain data and small; the test makes a list of it, of four gigabytes."""
    student.end(
        "embeddings-profiler",
        "EmbeddingProfiler.measure_lookup_performance = lambda self, *_: range(10**8)",
    )


@attack(stock="right", base="solved", costs=["test-embeddings-layer"])
def zeroes_its_table_at_each_call(student: HandIn) -> None:
    """The test reads the table again after the call to say what it expects: a layer that cleared it agrees."""
    student.replace(
        "embeddings-layer",
        "return apply(EMBEDDING, self.weight,",
        "self.weight.data = np.zeros_like(self.weight.data)\n        return apply(EMBEDDING, self.weight,",
    )


@attack(stock="gains", base="solved", costs=["test-embeddings-learned"])
def zeroes_its_positions_at_each_call(student: HandIn) -> None:
    """The same with positions: nothing is ever added, and gradients flow."""
    student.replace(
        "embeddings-learned",
        "        places: Tensor",
        "        table = self.position_embedding.weight\n        table.data = np.zeros_like(table.data)\n"
        "        places: Tensor",
    )


@accident(stock="right")
def defines_the_equality_of_its_layers(student: HandIn) -> None:
    """`==` of two layers compares their sizes, and knows no other things; they cannot be hashed any more."""
    student.end(
        "embeddings-layer",
        "def same_size(self, other):\n    return self.vocab_size == other.vocab_size\n\n"
        "Embedding.__eq__ = same_size\nEmbedding.__hash__ = object.__hash__",
    )


@accident(stock="right")
def says_what_its_layers_are(student: HandIn) -> None:
    """A `__repr__`, a `__len__` of zero and a `__bool__` that is false: `if layer:` would be wrong."""
    student.end(
        "embeddings-layer",
        "Embedding.__repr__ = lambda self: 'an embedding'\nEmbedding.__len__ = lambda self: 0\n"
        "Embedding.__bool__ = lambda self: False",
    )


@accident(stock="right")
def returns_containers_of_its_own(student: HandIn) -> None:
    """An OrderedDict of defaultdicts where a dict is asked for, and a named tuple where a tuple is."""
    student.end(
        "embeddings-profiler",
        """
        from collections import OrderedDict, defaultdict

        plain_measure = EmbeddingProfiler.measure_lookup_performance

        def with_defaults(self, *sizes):
            report = plain_measure(self, *sizes)
            return OrderedDict((name, defaultdict(float, entry)) for name, entry in report.items())

        EmbeddingProfiler.measure_lookup_performance = with_defaults
        """,
    )
    student.end(
        "embeddings-pipeline",
        """
        from typing import NamedTuple

        class Embedded(NamedTuple):
            ids: np.ndarray
            vectors: Tensor

        plain_embed = embed_texts

        def embed_texts(*args):
            return Embedded(*plain_embed(*args))
        """,
    )


@accident(stock="right")
def returns_arrays_of_every_layout(student: HandIn) -> None:
    """Views, in Fortran's order, with gaps, reversed, read-only: the numbers are right."""
    student.end(
        "embeddings-one-hot",
        """
        plain_lookup = one_hot_lookup

        def one_hot_lookup(weight, ids):
            rows = plain_lookup(weight, ids)
            wide = np.zeros((rows.shape[0] * 2, rows.shape[1]), rows.dtype)
            wide[::2] = rows
            return wide[::2]
        """,
    )
    student.end(
        "embeddings-scatter-add",
        """
        plain_scatter = scatter_add

        def scatter_add(gradient, ids, vocab_size):
            table = np.asfortranarray(plain_scatter(gradient, ids, vocab_size)[::-1])[::-1]
            table.flags.writeable = False
            return table
        """,
    )


@accident(stock="right")
def writes_python_of_every_kind(student: HandIn) -> None:
    """Caches, threads, a dataclass, `__main__`, `await` and a magic: none of it changes an answer."""
    student.begin(
        "embeddings-one-hot",
        """
        from __future__ import annotations
        from concurrent.futures import ThreadPoolExecutor
        from dataclasses import dataclass
        from functools import lru_cache

        @dataclass
        class Row:
            number: int

        @lru_cache
        def cached(number: int) -> int:
            return number

        if __name__ == "__main__":
            with ThreadPoolExecutor(2) as pool:
                print(list(pool.map(cached, range(3))), Row(1))
        """,
    )
    student.extra("import asyncio\nawait asyncio.sleep(0)", after="embeddings-one-hot")
    student.extra("%%time\nthis_took = sum(range(1000))", after="embeddings-one-hot")
    student.extra(
        "import pickle, copy\nlayer = pickle.loads(pickle.dumps(copy.deepcopy(Embedding(3, 2))))",
        after="embeddings-layer",
    )


@accident(stock="right")
def times_an_exercise(student: HandIn) -> None:
    """`%%time` above an answer."""
    cell = student.cell("embeddings-one-hot")
    cell.source = "%%time\n" + cell.source


@accident(stock="right")
def keeps_state_between_tests(student: HandIn) -> None:
    """A counter and a cache in the global names, which a later call needs."""
    student.end(
        "embeddings-scatter-add",
        """
        plain_scatter_add, seen = scatter_add, []

        def scatter_add(gradient, ids, vocab_size):
            seen.append(vocab_size)
            if seen[0] != 6:
                raise RuntimeError(f"the first call is gone: {seen}")
            return plain_scatter_add(gradient, ids, vocab_size)
        """,
    )
