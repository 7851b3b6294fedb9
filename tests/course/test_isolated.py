"""What a test cell may do with student code that runs in another process, and what a hostile worker may say to it."""

from __future__ import annotations

import builtins
import json
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat.v4 as nbv4
import numpy as np
import pytest
from nbformat import NotebookNode

from tito.course import Course
from tito.grading.isolated.inside.wire import MOST_NUMBERS, Channel
from tito.grading.isolated.plan import needed
from tito.grading.isolated.run import Isolated
from tito.grading.isolated.session import Session, Trace, WorkerLostError
from tito.outcome import CellResult
from tito.source import read_notebook

COURSE = Course(Path(__file__).parents[2])

IDIOMS = Path(__file__).parent / "idioms"
STUDENT = (IDIOMS / "student.py").read_text()
TESTS = (IDIOMS / "idioms.py").read_text()
LIAR = """
class Equal:
    __class__ = property(lambda self: np.ndarray)
    shape = (1,)

    def __eq__(self, other):
        return True

    def __bool__(self):
        return True

    def __len__(self):
        return 10**30

    def __array__(self, *_, **__):
        return np.array(5)

    def __getattr__(self, name):
        return self

    def __call__(self, *_, **__):
        return True
"""

# what a test may not believe, and the error that says so
REFUSED = {
    "assert Layer()": "DistrustError",
    "assert Equal() == 5": "DistrustError",
    "close(Equal(), 5)": "AssertionError",
    "assert np.allclose(Equal(), 5)": "",
    "len(Equal())": "",
    "class Mine(Layer):\n    pass": "TypeError",
    "apply(len, object())": "UnsendableError",
}


def idioms() -> list[str]:
    return re.findall(r"^def (\w+)", TESTS, re.MULTILINE)


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    with Isolated(COURSE, COURSE.module("2"), read_notebook(COURSE.module("2"))) as opened:
        opened.trace = Trace(learning=False)
        yield opened


def notebook(*cells: tuple[str, str, bool]) -> NotebookNode:
    """A notebook of cells: an id, a source, and whether it is a test."""
    made = nbv4.new_notebook()
    for name, source, is_test in cells:
        info = {"grade_id": name, "grade": is_test, "solution": not is_test, "locked": is_test, "points": 1}
        made.cells.append(nbv4.new_code_cell(source, id=name, metadata={"nbgrader": info}))
    return made


def graded(isolated: Isolated, student: str, tests: list[str]) -> list[CellResult]:
    """What becomes of tests, each in a cell of its own, of the code of a student."""
    cells = [("student", student, False), *((f"test-{place}", test, True) for place, test in enumerate(tests))]
    return [cell for cell in isolated.run(notebook(*cells)).cells if cell.is_test]


def test_everything_that_a_test_may_do(isolated: Isolated) -> None:
    names = idioms()
    results = graded(isolated, STUDENT, [TESTS, *(f"{name}()" for name in names)])
    assert {name: one.evalue for name, one in zip(names, results[1:], strict=True) if not one.ok} == {}


@pytest.mark.parametrize("name", idioms())
def test_the_same_in_one_process(name: str) -> None:
    names: dict[str, Any] = {}
    exec(STUDENT + TESTS, names)
    names[name]()


def test_each_notebook_draws_random_numbers_of_its_own(isolated: Isolated) -> None:
    """With each of the generators that were there when the process began that workers are copies of."""
    source = "import random\nimport numpy as np\nprint(np.random.random(), np.random.rand(), random.random())"
    printed = [isolated.run(notebook(("student", source, False))).cells[0].outputs[0].text.split() for _ in range(2)]
    assert len({*printed[0], *printed[1]}) == 6


def test_what_no_test_may_believe(isolated: Isolated) -> None:
    results = graded(isolated, STUDENT + LIAR, [f"from tito.testing import close\n\n{source}" for source in REFUSED])
    for (source, error), result in zip(REFUSED.items(), results, strict=True):
        assert not result.ok and error in ("", result.ename), f"{source}: {result.ename}: {result.evalue}"


def frame(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!II", len(text), len(body)) + text + body


def reply(value: object, body: bytes = b"", **more: object) -> bytes:
    return frame({"id": 1, "value": value, **more}, body)


NO_ARGUMENTS = {"turn": 1, "args": ["l", []], "kwargs": ["d", []]}
LIES = {
    "no JSON": frame(b"{"),
    "not even text": frame(b"\xff\xfe\x00"),
    "no message": frame([1, 2]),
    "a header of 4 GB": struct.pack("!II", 2**32 - 1, 0),
    "a body of 4 GB": struct.pack("!II", 2, 2**32 - 1) + b"{}",
    "brackets without end": frame(b"[" * 100_000 + b"]" * 100_000),
    "values nested without end": reply(json.loads('["l",[' * 200 + "]]" * 200)),
    "an answer to another question": frame({"id": 2, "value": 1}),
    "an answer without a value": frame({"id": 1}),
    "an object where a value should be": reply({"a": 1}),
    "a kind that does not exist": reply(["?", 1]),
    "a kind that is a list": reply([["t"], 1]),
    "no kind": reply([]),
    "a function of the grader's": reply(["g", "builtins", "eval"]),
    "a type that is none": reply(["T", "Popen"]),
    "an array without bytes": reply(["a", 1, "<f8", [1000]]),
    "an array of negative length": reply(["a", 1, "<f8", [-1]], b"12345678"),
    "an array whose lengths overflow": reply(["a", 1, "<f8", [2**62, 4]]),
    "an array of many axes": reply(["a", 1, "<f8", [1] * 65], b"12345678"),
    "an array of objects": reply(["a", 1, "|O", [1]], b"12345678"),
    "an array of records": reply(["a", 1, "i4,i4", [1]], b"12345678"),
    "an array of bytes without end": reply(["a", 1, "|S999999999", [1]]),
    "a length that is no number": reply(["a", 1, "<f8", ["1"]], b"12345678"),
    "an object with a negative number": reply(["o", -1, "x", "", []]),
    "an object with a number that is none": reply(["o", "1", "x", "", []]),
    "an array that the test never made": reply(["h", -7]),
    "a function that the test never gave": reply(["k", 12345]),
    "a call of a function that the test never gave": frame({"calls": 12345, **NO_ARGUMENTS}),
    "a call of a list": frame({"calls": [], **NO_ARGUMENTS}),
    "a key that cannot be one": reply(["d", [[["l", []], 1]]]),
    "a set of lists": reply(["s", [["l", []]]]),
    "an argument that was not there": reply(1, touched=[[5, 1]]),
    "changes that are none": reply(1, changed=5),
    "an error that is none": frame({"id": 1, "error": 5}),
    "an error without a class": frame({"id": 1, "error": ["x", [], None, "", None, []]}),
    "an error from odd places": frame({"id": 1, "error": ["x", ["ValueError"], None, "", None, [["a", "b"]]]}),
    "a range with a step of zero": reply(["R", 0, 1, 0]),
    "bytes that are not there": reply(["b", 10**9]),
}  # fmt: skip


@pytest.fixture
def pair() -> Iterator[tuple[Session, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        session = Session(Channel(here), Trace(learning=False))
        session.deadline = time.monotonic() + 20
        yield session, there


@pytest.mark.parametrize("name", LIES)
def test_a_lie_ends_the_conversation(pair: tuple[Session, socket.socket], name: str) -> None:
    session, worker = pair
    worker.sendall(LIES[name])
    with pytest.raises(WorkerLostError) as lost:
        session.call("global", "x")
    assert lost.value.kind == "malformed"
    with pytest.raises(WorkerLostError):
        session.call("global", "x")


def test_a_partial_answer_is_waited_for_no_longer_than_allowed(pair: tuple[Session, socket.socket]) -> None:
    session, worker = pair
    session.deadline = time.monotonic() + 0.3
    worker.sendall(struct.pack("!II", 100, 0) + b'{"id"')
    with pytest.raises(WorkerLostError) as lost:
        session.call("global", "x")
    assert lost.value.kind == "timeout"


def test_an_answer_in_drops_is_no_way_to_gain_time(pair: tuple[Session, socket.socket]) -> None:
    session, worker = pair
    begin = time.monotonic()
    session.deadline = begin + 0.5
    threading.Thread(target=drip, args=(worker,), daemon=True).start()
    with pytest.raises(WorkerLostError) as lost:
        session.call("global", "x")
    assert lost.value.kind == "timeout" and time.monotonic() - begin < 4


def drip(worker: socket.socket) -> None:
    worker.sendall(struct.pack("!II", 10_000, 0))
    for _ in range(100):
        time.sleep(0.05)
        try:
            worker.sendall(b" ")
        except OSError:
            return


def test_a_worker_that_does_not_listen_is_left(pair: tuple[Session, socket.socket]) -> None:
    session, _ = pair
    session.deadline = time.monotonic() + 0.3
    with pytest.raises(WorkerLostError) as lost:
        session.call("global", np.zeros(5_000_000))
    assert lost.value.kind == "timeout"


def test_calls_back_and_forth_without_end_are_stopped(pair: tuple[Session, socket.socket]) -> None:
    session, worker = pair

    def function() -> Any:
        return session.call("global", "x")

    worker.sendall(frame({"calls": id(function), **NO_ARGUMENTS}) * 100)
    with pytest.raises(WorkerLostError) as lost:
        session.call(function)
    assert lost.value.kind == "malformed"


def test_a_promised_body_costs_no_memory_before_it_comes() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(struct.pack("!II", 2, 60 << 20) + b"{}")
        tracemalloc.start()
        with pytest.raises(TimeoutError):
            Channel(here).receive(time.monotonic() + 0.2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize(
    ("cells", "runs"),
    [
        (["def f(): return x", "x = 1", "f()"], [True, True, True]),
        (["x = 1", "y = 2", "print(y)"], [False, True, True]),
        (["x = 1", "x += 1", "print(x)"], [True, True, True]),
        (["x = 1", "x = 2", "print(x)"], [False, True, True]),
        (["class A: pass", "A.colour = 1", "A()"], [True, True, True]),
        (["import numpy as np", "np.ones(1)", "def f(): return np.zeros(1)"], [True, False, True]),
        (["x = 1", "def g():\n    x = 2\n    return x", "def f(x): return x"], [False, False, True]),
        (["max = 1", "print(max)", "print(min)"], [False, False, True]),
        (["h = 1", "y = 1", "y h"], [False, False, True]),
    ],
)
def test_demonstrations_run_only_if_something_needs_them(cells: list[str], runs: list[bool]) -> None:
    optional = [True] * (len(cells) - 1) + [False]
    assert needed(cells, optional) == runs


def test_a_student_cannot_bring_helpers_of_their_own(isolated: Isolated) -> None:
    student = "from operator import truth as close\nfrom math import sqrt as raises\nlen = int\ndef check(x): pass"
    tests = [
        "from tito.testing import close\n\n\ndef check(x):\n    assert x == 2\n\n\nclose(3, 4)",
        "check(3)",
        "close(3, 4)",
        "assert len([1]) == 0",
    ]
    assert [one.ok for one in graded(isolated, student, tests)] == [False] * 4


def test_helpers_of_a_test_that_did_not_run_are_not_the_students(isolated: Isolated) -> None:
    student = "def close(*_): pass\ndef check(*_): pass\ndef end(): import os; os._exit(0)"
    tests = [
        "end()\nfrom tito.testing import close\ndef check(x):\n    assert x == 2",
        "close(3, 4)",
        "check(3)",
    ]
    assert [one.ename for one in graded(isolated, student, tests)] == ["ProcessEnded", "AssertionError", "NameError"]


def test_what_ends_the_process_costs_the_cell_that_does_it(isolated: Isolated) -> None:
    student = "import os\ndef end(): os._exit(3)\ndef abort(): os.abort()\ndef two(): return 2"
    tests = ["assert two() == 2", "end()", "assert two() == 2", "abort()", "assert two() == 2"]
    assert [one.status for one in graded(isolated, student, tests)] == ["ok", "died", "ok", "died", "ok"]


def test_random_numbers_are_the_same_for_the_same_seed(isolated: Isolated) -> None:
    test = "import numpy as np\nshow(*np.random.default_rng().integers(10**9, size=3).tolist())"
    made = notebook(("student", "def show(*values): print(*values)", False), ("test", test, True))
    texts = [isolated.run(made, seed).cells[-1].outputs[0].text for seed in (b"a", b"a", b"b")]
    assert texts[0] == texts[1] != texts[2]


def test_an_object_is_not_taken_where_the_solution_gives_an_array() -> None:
    solution = "import numpy as np\ndef ones(n): return np.ones(n)"
    liar = """import numpy as np
class Fake:
    def __sub__(self, other): return self
    def __abs__(self): return self
    def max(self): return 0.0
def ones(n): return Fake()"""
    believing = "got = ones(3)\nassert abs(got - 1).max() < 1e-6"
    with Isolated(COURSE, COURSE.module("2"), with_test(solution, believing)) as isolated:
        assert verdict(isolated, with_test(solution, believing)) == ""
        assert verdict(isolated, with_test(liar, believing)) == "DistrustError"
        assert verdict(isolated, with_test("def ones(n): return (1.0 for _ in range(n))", "list(ones(3))")) == ""
        changed = "got = ones(3)\nassert True and abs(got - 1).max() < 1e-6"
        assert verdict(isolated, with_test(liar, changed)) == "", "nothing is known of a text that was not learned"


def with_test(student: str, test: str) -> NotebookNode:
    return notebook(("student", student, False), ("test", test, True))


def verdict(isolated: Isolated, made: NotebookNode) -> str:
    return isolated.run(made).cells[-1].ename


def test_every_error_of_python_comes_over(isolated: Isolated) -> None:
    kinds = sorted(
        {kind.__name__ for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    )
    student = """import builtins
def fail(name):
    error = getattr(builtins, name)
    raise error.__new__(error, "x", [ValueError()])"""
    tests = [
        f"try:\n    fail({name!r})\nexcept Exception as error:\n    assert type(error).__name__ == {name!r}"
        for name in kinds
    ]
    results = graded(isolated, student, tests)
    assert {name: one.evalue for name, one in zip(kinds, results, strict=True) if not one.ok} == {}


def test_a_students_with_block_does_not_stop_the_tests_own_verdict(isolated: Isolated) -> None:
    student = "class Quiet:\n    def __enter__(self): pass\n    def __exit__(self, *_): return True"
    tests = ["with Quiet():\n    assert 1 == 2", "with Quiet():\n    raise KeyError"]
    assert [one.ok for one in graded(isolated, student, tests)] == [False, True]


def test_half_a_character_in_an_error_can_be_written(isolated: Isolated) -> None:
    (result,) = graded(isolated, "def fail():\n    raise ValueError('\\ud800')", ["fail()"])
    assert result.evalue == "?"
    result.evalue.encode()


@pytest.mark.parametrize("value", ["{n * (2**61 - 1): 0 for n in many}", "set(many)"])
def test_numbers_that_could_collide_are_not_taken(isolated: Isolated, value: str) -> None:
    student = f"many = range({MOST_NUMBERS + 1})\n\ndef give():\n    return {value}"
    (result,) = graded(isolated, student, ["give()"])
    assert "more than 20,000 numbers" in result.evalue
