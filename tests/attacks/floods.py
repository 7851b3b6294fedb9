"""Too much of something: output, values, names, errors."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, stopper

ONE_HOT = ["test-embeddings-one-hot"]
RIGHT = """
def one_hot_lookup(weight, ids):
    {line}
    hot = np.zeros((len(ids), weight.shape[0]), dtype=weight.dtype)
    hot[np.arange(len(ids)), ids] = 1
    return hot @ weight
"""


@stopper(stock="untried", unsure=ONE_HOT)
def prints_30_mb_on_one_line(student: HandIn) -> None:
    """A line that no viewer can open, and that takes some programs minutes."""
    student.end("embeddings-one-hot", "print('x' * 30_000_000)")


@stopper(stock="right", unsure=ONE_HOT)
def prints_for_ever(student: HandIn) -> None:
    """A loop that prints."""
    student.end(
        "embeddings-one-hot", "import itertools\nfor number in itertools.count():\n    print(number, 'x' * 1000)"
    )


@stopper(stock="untried", unsure=ONE_HOT)
def writes_30_mb_to_stderr_when_called(student: HandIn) -> None:
    """The same on stderr, from the answer."""
    student.answer("embeddings-one-hot", RIGHT.format(line="import sys; sys.stderr.write('x' * 30_000_000)"))


@stopper(stock="untried", unsure=ONE_HOT)
def writes_to_the_descriptors(student: HandIn) -> None:
    """Past Python's files, straight to the descriptors 1 and 2."""
    student.end(
        "embeddings-one-hot",
        "import os\nfor _ in range(300):\n    os.write(1, b'x' * 65536)\n    os.write(2, b'y' * 65536)",
    )


@accident(stock="untried")
def shows_carriage_returns(student: HandIn) -> None:
    """A progress bar of 20,000 steps on one line."""
    student.extra("for step in range(20_000):\n    print(f'\\r{step} of 20000', end='')")


@accident(stock="loses")
def warns(student: HandIn) -> None:
    """A warning on stderr, from within an answer."""
    student.answer("embeddings-one-hot", RIGHT.format(line="import warnings; warnings.warn('careful')"))


@accident(stock="untried")
def writes_to_stderr(student: HandIn) -> None:
    """Debugging output on stderr."""
    student.answer("embeddings-one-hot", RIGHT.format(line="import sys; print('here', ids, file=sys.stderr)"))


@accident(stock="untried")
def logs(student: HandIn) -> None:
    """The logging module writes to stderr, too."""
    student.answer("embeddings-one-hot", RIGHT.format(line="import logging; logging.warning('ids %s', ids)"))


@accident(stock="untried")
def shows_a_number(student: HandIn) -> None:
    """The last line of an answer's cell is a number: no partial score."""
    student.end("embeddings-one-hot", "2")


@accident(stock="untried")
def prints_odd_characters(student: HandIn) -> None:
    """Half a surrogate pair, a null, an escape, bytes that are no text."""
    student.answer(
        "embeddings-one-hot",
        RIGHT.format(line=r"import sys; print('\ud800\x00\x1b[31m\uffff é' + chr(0x10ffff), file=sys.stdout)")
        .replace("print(", "print(*[")
        .replace(", file", "][:0], file"),
    )
    student.extra("import sys\nsys.stdout.write('\\x1b[2J\\x00\\x07 \\u202e \\ufeff')")


@stopper(stock="untried", costs=ONE_HOT)
def returns_a_gigabyte(student: HandIn) -> None:
    """An array that is far larger than what was asked for."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return np.zeros(2**27)")


@stopper(stock="untried", costs=ONE_HOT)
def returns_an_array_of_no_memory(student: HandIn) -> None:
    """A view that promises exabytes and takes eight bytes."""
    student.answer(
        "embeddings-one-hot",
        "def one_hot_lookup(weight, ids):\n    return np.broadcast_to(np.zeros(1), (2**30, 2**30))",
    )


@stopper(stock="untried", costs=ONE_HOT)
def returns_a_huge_list(student: HandIn) -> None:
    """A million empty lists take a byte each on the way, and sixty-four where they arrive."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return [[] for _ in range(1_000_000)]")


@stopper(stock="untried", costs=ONE_HOT)
def returns_deep_lists(student: HandIn) -> None:
    """A list in a list, a hundred thousand times."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            deep = []
            for _ in range(100_000):
                deep = [deep]
            return deep
        """,
    )


@stopper(stock="untried", costs=ONE_HOT)
def returns_a_list_that_holds_itself(student: HandIn) -> None:
    """It has no end."""
    student.answer(
        "embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    own = []\n    own.append(own)\n    return own"
    )


@stopper(stock="untried", costs=ONE_HOT)
def returns_a_huge_integer(student: HandIn) -> None:
    """Three hundred thousand digits; writing them out takes long, and Python refuses it."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return 1 << 1_000_000")


@stopper(stock="untried", costs=ONE_HOT)
def returns_a_huge_string(student: HandIn) -> None:
    """A hundred million characters."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return 'x' * 100_000_000")


@stopper(stock="untried", costs=ONE_HOT)
def returns_an_endless_iterator(student: HandIn) -> None:
    """Whoever takes it all never ends."""
    student.answer(
        "embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    import itertools\n    return itertools.count()"
    )


@stopper(stock="right", costs=["test-embeddings-profiler"])
def returns_a_dict_without_end(student: HandIn) -> None:
    """A dictionary whose keys never end, where the test says `list(report)`."""
    student.end(
        "embeddings-profiler",
        """
        class Endless(dict):
            def __iter__(self):
                number = 0
                while True:
                    yield f"batch_{number}"
                    number += 1
            def keys(self): return iter(self)
            def items(self): return ((key, 0) for key in self)
            def __len__(self): return 2**62

        EmbeddingProfiler.measure_lookup_performance = lambda self, *_: Endless()
        """,
    )


@stopper(stock="right", costs=["test-embeddings-profiler"])
def returns_an_object_without_end(student: HandIn) -> None:
    """An object of one's own, by handle, that yields for ever."""
    student.end(
        "embeddings-profiler",
        """
        class Endless:
            def __iter__(self): return self
            def __next__(self): return "batch"
            def __len__(self): return 10**9

        EmbeddingProfiler.measure_lookup_performance = lambda self, *_: Endless()
        """,
    )


@accident(stock="untried")
def defines_a_lot_of_names(student: HandIn) -> None:
    """A hundred thousand global variables."""
    student.extra("globals().update({f'name_{number}': number for number in range(100_000)})")


@accident(stock="untried")
def has_a_thousand_cells(student: HandIn) -> None:
    """A notebook with very many small cells of one's own."""
    for number in range(1000):
        student.extra(f"x_{number} = {number}")
