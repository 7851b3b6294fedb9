"""``tito audit --lint``: graded cells that trust student code are refused, honest ones are not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunTito = Callable[..., "subprocess.CompletedProcess[str]"]

PROVIDED = """
# %%
#| export
class Vector(Tensor):
    def __add__(self, other):
        return Vector(self.data + np.asarray(getattr(other, "data", other)))

    def __sub__(self, other):
        return Vector(self.data - np.asarray(getattr(other, "data", other)))

    def __eq__(self, other):
        return Vector(self.data == np.asarray(getattr(other, "data", other)))

    def __gt__(self, other):
        return Vector(self.data > np.asarray(getattr(other, "data", other)))

    def __array__(self, dtype=None, copy=None):
        return self.data

    def sum(self, **options):
        return Vector(self.data.sum())

    def all(self):
        return Vector(self.data.all())

    def item(self):
        return self.data.item()

    def allclose(self, other):
        return np.allclose(self.data, other)


class Model:
    def __init__(self, size=3):
        self.size = size
        self.table = {}

    def __eq__(self, other):
        return True

    def check(self, *others):
        return True


def double(x):
    return Vector(x.data * 2)


def keep(x):
    return Vector(x)


def plain(x):
    return np.array(x)


def values(x):
    return (x.data * 2).tolist()


def same(one, other):
    return bool(np.all(np.asarray(getattr(one, "data", one)) == np.asarray(getattr(other, "data", other))))


def give(function, x):
    return function(double(x))
"""

MADE = """
    x, right = Vector([1.5, -2.0, 4.0]), np.array([3.0, -4.0, 8.0])
    want = right.copy()
    out, model, other = double(x), Model(), Model()
    def compare(got, expected):
        close(got, expected)
"""

SENT, BELIEVED, TRUTH, COMPARED, SHAPE = (
    "student code gets",
    "NumPy would believe a student's object",
    "says by itself whether it is true",
    "says by itself how it compares",
    "use close",
)
REFUSED = [
    ("assert (double(x) - right).sum().item() == 0", SENT),
    ("assert (right == double(x)).all().item()", SENT),
    ("assert double(x).allclose(right)", SENT),
    ("assert same(double(x), right)", SENT),
    ("assert same(double(x), Vector(right))", SENT),
    ("assert same(double(x).data, right)", SENT),
    ("assert same(values(x), right.tolist())", SENT),
    ("assert same(other=right, one=double(x))", SENT),
    ("assert model.check([double(x), {'numbers': right}])", SENT),
    ("assert give(lambda got: (got - right).sum().item(), x) == 0", SENT),
    ("out.answer = right", SENT),
    ("out.answer, out.note = 1, right", SENT),
    ("out -= right", SENT),
    ("assert (double(Vector([1.0])) - 2.0).item() == 0", SENT),
    ("assert same(double(x).data[1:], right[1:])", SENT),
    ("setattr(double(x), 'answer', right)", SENT),
    ("model.table['numbers'] = want", f"{SENT} the expected value want"),
    ("model.answer = want", f"{SENT} the expected value want"),
    ("assert model.check(x, [want])", f"{SENT} the expected value want"),
    ("assert model.check(lambda: want)", f"{SENT} the expected value want"),
    ("assert model.check(np.asarray(want) + 1)", f"{SENT} the expected value want"),
    ("assert double(x)", TRUTH),
    ("assert [1 for _ in [0] if double(x)]", TRUTH),
    ("assert not (not double(x))", TRUTH),
    ("assert double(x) and True", TRUTH),
    ("assert bool(double(x))", TRUTH),
    ("assert 1 if double(x) else 0", TRUTH),
    ("assert model == other", COMPARED),
    ("assert other in [model]", COMPARED),
    ("assert [model] == [other]", COMPARED),
    ("assert (double(x) == double(x)).all().item()", COMPARED),
    ("assert (double(x) > double(Vector([0.0, -9.0, 0.5]))).data.all()", COMPARED),
    ("assert np.sum(double(x)) == 7", BELIEVED),
    ("assert np.array([double(x)]).sum() == 7", BELIEVED),
    ("assert np.allclose(double(x).data, right)", SHAPE),
    ("assert np.array_equal(double(x).data, right)", SHAPE),
    ("np.testing.assert_allclose(double(x).data, right)", SHAPE),
    ("assert np.all(double(x).data == right)", SHAPE),
    ("assert (double(x).data == right).all()", SHAPE),
    ("class Derived(Model): pass", "a class derived from the course's must stand in a cell above"),
]
HONEST = [
    "close(double(x).data, right)",
    "compare(double(x).data, want)",
    "close(keep(right).data, right)",
    "close((keep(right) + right).data, 2 * right)",
    "close((double(x) - np.ones(3)).data, right - 1)",
    "close((double(Vector([1.0])) + 2.0).data, [4])",
    "close((double(x) == np.array([3.0, 0.0, 8.0])).data, [1, 0, 1])",
    "assert same(double(x), double(x))",
    "assert (double(x) > 1).data.shape == (3,)",
    "assert same(double(x), double(x).data) and same(out, out.data)",
    "assert other is model or [other is model] == [False]",
    "made = iter([Model(), Model(), 3]); next(made).size = 2; close(len(list(made)), 2)",
    "assert out is not model and isinstance(out, Vector)",
    "close(give(lambda got: got.data + right, x), 2 * right)",
    "assert Model(len(want)).size == 3",
    "model.weight = np.zeros(want.shape)",
    "assert np.any(double(x).data != 0) and np.all(np.abs(double(x).data) < 9)",
    "class Own: pass",
    "assert Own() and [Own()] != [3]",
    "assert same(plain(right), right) and same(keep(right) + np.zeros(3), right)",
    "close((double(Vector([1.0, 1.0])) - 2.0).data, [0, 0])",
    "assert values(x) == right.tolist()",
]


def edit(root: Path, old: str, new: str) -> None:
    path = root / "modules" / "02_tensor" / "tensor_dev.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def put_into_the_test(root: Path, lines: list[str]) -> None:
    """Write ``lines`` below each other into the test of ``add``; the first becomes line 7 of the cell."""
    edit(root, "# %% [markdown]\n# Tensors add up", f"{PROVIDED.lstrip()}\n# %% [markdown]\n# Tensors add up")
    first = "def test_add():\n"
    edit(root, first, first + MADE.lstrip("\n") + "".join(f"    {line}\n" for line in lines))


@pytest.fixture(scope="module")
def problems(_exported: Path, tmp_path_factory: pytest.TempPathFactory, run_tito: RunTito) -> dict[int, list[str]]:
    """What the lint says about REFUSED and then HONEST, by their numbers."""
    root = tmp_path_factory.mktemp("lint") / "author"
    shutil.copytree(_exported, root)
    put_into_the_test(root, [line for line, _ in REFUSED] + HONEST)
    done = run_tito(root, "audit", "--lint", "--json", "02")
    assert done.returncode == 1, done.stderr
    found: dict[int, list[str]] = {}
    for problem in json.loads(done.stdout)["02_tensor"]:
        place = re.match(r"test-tensor-add, line (\d+) of the cell: ", problem)
        assert place, problem
        found.setdefault(int(place[1]) - 7, []).append(problem[place.end() :])
    return found


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[line for line, _ in REFUSED])
def test_a_cell_that_trusts_student_code_is_refused(problems: dict[int, list[str]], number: int) -> None:
    assert any(REFUSED[number][1] in problem for problem in problems.get(number, []))


@pytest.mark.parametrize("number", range(len(HONEST)), ids=HONEST)
def test_an_honest_cell_is_not_refused(problems: dict[int, list[str]], number: int) -> None:
    assert problems.get(len(REFUSED) + number, []) == []
