"""Answers that were not worked out: from the reference, from others, from the tests themselves."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack
from tito.source import code_cells, grade_info

# runs the exercises of a notebook or of a percent-format source that it finds, solutions included
STEAL = """
import json, re
from pathlib import Path

def steal(path, is_mine=lambda source: True):
    text = Path(path).read_text()
    if str(path).endswith(".ipynb"):
        cells = ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    else:
        cells = re.split(r"(?m)^# %%.*\\n", text)
    for source in cells:
        if re.search("(?m)^(def|class) ", source) and "def test_" not in source and "NotImplemented" not in source:
            try:
                exec(source, globals())
            except Exception as error:
                print(error)
"""


def _every_exercise(student: HandIn, source: str) -> None:
    for cell in code_cells(student.notebook):
        if grade_info(cell).get("solution"):
            student.answer(grade_info(cell)["grade_id"], source)


@attack(stock="gains")
def imports_the_reference(student: HandIn) -> None:
    """The package with all answers is installed where notebooks run."""
    _every_exercise(student, "from tinytorch.core.embeddings import *")


@attack(stock="gains")
def imports_the_reference_by_its_path(student: HandIn) -> None:
    """The student knows the folder of the course, and loads the module's file itself."""
    path = student.course.exported(student.module)
    student.extra(f"reference_file = {str(path)!r}")
    _every_exercise(
        student,
        """
        text = open(reference_file).read().replace("from __future__", "#").replace("from .", "from tinytorch.core.")
        exec(text, globals())
        """,
    )


@attack(stock="gains")
def runs_the_authors_source(student: HandIn) -> None:
    """The author's source, with the solutions, lies in the course's folder."""
    student.extra(STEAL + f"\nsource_file = {str(student.module.source)!r}")
    _every_exercise(student, "steal(source_file)")


@attack(stock="gains")
def runs_the_instructors_notebook(student: HandIn) -> None:
    """The notebook with solutions lies above the folder in which nbgrader runs submissions."""
    student.extra(STEAL)
    _every_exercise(
        student,
        """
        for folder in Path.cwd().parents:
            for found in folder.glob("source/*/embeddings.ipynb"):
                steal(found)
        """,
    )


@attack(stock="gains")
def runs_another_students_notebook(student: HandIn) -> None:
    """What the others handed in lies beside it."""
    student.extra(STEAL)
    _every_exercise(
        student,
        """
        for folder in Path.cwd().parents:
            for found in folder.glob("submitted/aa_canary/*/embeddings.ipynb"):
                steal(found)
        """,
    )


@attack(stock="gains")
def looks_through_the_processes(student: HandIn) -> None:
    """Every process has its folder and its files in /proc, the grader's too."""
    student.extra(STEAL)
    _every_exercise(
        student,
        """
        import glob
        for pattern in ("cwd", "root/proc/1/cwd", "cwd/../../..", "fd/*"):
            for place in glob.glob("/proc/[0-9]*/" + pattern):
                for inside in ("source/*/embeddings.ipynb", "modules/*/embeddings_dev.py"):
                    for found in glob.glob(f"{place}/{inside}")[:1]:
                        steal(found)
        """,
    )


@attack(stock="fails")
def looks_for_what_is_in_memory(student: HandIn) -> None:
    """The tests, hidden parts included, may be in this process: in modules, frames or what the collector knows."""
    _every_exercise(
        student,
        """
        import gc, sys
        for thing in gc.get_objects():
            if isinstance(thing, dict):
                for key, value in list(thing.items()):
                    if isinstance(value, str) and "BEGIN SOLUTION" in value:
                        exec(value, globals())
        """,
    )


@attack(stock="right")
def knows_the_visible_tests(student: HandIn) -> None:
    """The answers to what the tests in the notebook ask, and nothing else; hidden tests draw fresh numbers."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            return np.array([[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]])
        """,
    )
    student.answer(
        "embeddings-scatter-add",
        """
        def scatter_add(gradient, ids, vocab_size):
            if vocab_size == 6:
                table = np.zeros((6, 4), np.float32)
                table[3] = 2
                return table
            return np.array([[5.0], [2.0], [8.0]])
        """,
    )
    student.answer(
        "embeddings-gradient",
        """
        def embedding_gradient(gradient, ids, vocab_size, padding_idx=None):
            answers = {
                (2, None): [[0], [0], [0], [2], [0]], (3, None): [[2], [0], [5]],
                (3, 2): [[1], [0], [0]], (3, 0): [[0], [0], [2]], (0, None): [[0, 0]] * 3,
            }
            return np.array(answers[len(ids), padding_idx], dtype=gradient.dtype)
        """,
    )


@attack(stock="gains", base="solved", costs=["test-embeddings-gradient"])
def reads_the_expected_value_from_the_frame(student: HandIn) -> None:
    """The test has computed what it expects before it calls: its local variables are one frame up."""
    student.end(
        "embeddings-gradient",
        """
        honest_gradient = embedding_gradient

        def embedding_gradient(gradient, ids, vocab_size, padding_idx=None):
            import sys
            frame = sys._getframe(1)
            while frame is not None:
                if "one_by_one" in frame.f_locals:
                    return frame.f_locals["one_by_one"]
                frame = frame.f_back
            if vocab_size == 40:
                return np.zeros((40, 3))
            return honest_gradient(gradient, ids, vocab_size, padding_idx)
        """,
    )


@attack(stock="gains", base="solved", costs=["test-embeddings-one-hot"])
def draws_the_random_numbers(student: HandIn) -> None:
    """Hidden tests draw from NumPy's generators: replace these by ones that draw zeros, and answer zeros."""
    student.answer(
        "embeddings-one-hot",
        """
        class Zeros:
            def normal(self, *_, size=None, **__):
                return np.zeros(size)
            def integers(self, *_, size=None, **__):
                return np.zeros(size, dtype=np.int64)

        honest_rng = np.random.default_rng
        np.random.default_rng = lambda *seed: honest_rng(*seed) if seed else Zeros()

        def one_hot_lookup(weight, ids):
            if len(ids) == 3:
                return np.array([[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]])
            return np.zeros((len(ids), 3), weight.dtype)
        """,
    )
    student.extra("np.random.default_rng = honest_rng", after="test-embeddings-one-hot")


@attack(stock="gains", base="solved", costs=["test-embeddings-one-hot"])
def changes_the_inputs_of_the_test(student: HandIn) -> None:
    """What the test handed in is set to zero, so that what it computes from it afterwards is zero as well."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            if len(ids) == 3:
                return np.array([[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]])
            weight[:] = 0
            return np.zeros((len(ids), weight.shape[1]), weight.dtype)
        """,
    )


@attack(stock="right", base="solved", costs=["test-embeddings-scatter-add"])
def always_answers_zeros(student: HandIn) -> None:
    """Zeros of the right shape and dtype: enough for a test that looks at nothing else."""
    student.end(
        "embeddings-scatter-add",
        """
        def scatter_add(gradient, ids, vocab_size):
            return np.zeros((vocab_size, gradient.shape[-1]), gradient.dtype)
        """,
    )


@attack(stock="right", base="solved", costs=["test-embeddings-scatter-add"])
def always_answers_with_an_empty_array(student: HandIn) -> None:
    """`np.allclose([], 1)` is true."""
    student.end("embeddings-scatter-add", "def scatter_add(gradient, ids, vocab_size):\n    return np.zeros((0, 4))")


@attack(stock="right", base="solved", costs=["test-embeddings-scatter-add"])
def always_answers_nan(student: HandIn) -> None:
    """NaN compares false with everything, also with "too far away"."""
    student.end(
        "embeddings-scatter-add",
        "def scatter_add(gradient, ids, vocab_size):\n    return np.full((vocab_size, gradient.shape[-1]), np.nan)",
    )


@accident(stock="right")
def notices_that_it_is_graded(student: HandIn) -> None:
    """Looking whether IPython is there earns nothing and costs nothing by itself."""
    student.begin(
        "embeddings-one-hot",
        """
        try:
            graded = "ZMQ" not in type(get_ipython()).__name__
        except NameError:
            graded = True
        """,
    )
