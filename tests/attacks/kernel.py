"""Bending the interpreter that runs the tests: IPython, NumPy, builtins, traces, names."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack

PASSING = "lambda *_, **__: None"
ANY_BLOCK = """
import contextlib

@contextlib.contextmanager
def anything_goes(*_, **__):
    try:
        yield
    except BaseException:
        pass
"""


@attack(stock="gains")
def blanks_the_tests_by_an_input_transformer(student: HandIn) -> None:
    """IPython lets a cell rewrite the source of the cells after it."""
    student.extra("""
        def forget_tests(lines):
            return [] if any(line.startswith("def test_") for line in lines) else lines

        get_ipython().input_transformers_post.append(forget_tests)
        """)


@attack(stock="gains")
def drops_the_calls_by_an_ast_transformer(student: HandIn) -> None:
    """IPython lets a cell rewrite the syntax tree of the cells after it: without the calls no test runs."""
    student.extra("""
        import ast

        class Drop(ast.NodeTransformer):
            def visit_Expr(self, node):
                return ast.copy_location(ast.Pass(), node)

        get_ipython().ast_transformers.append(Drop())
        """)


@attack(stock="gains")
def runs_nothing_any_more(student: HandIn) -> None:
    """The shell's own method that runs code is replaced by one that runs none."""
    student.extra("""
        async def run_nothing(*_, **__):
            return False

        get_ipython().run_code = run_nothing
        """)


@attack(stock="gains", base="solved", costs=["test-embeddings-one-hot"])
def forges_a_partial_score(student: HandIn) -> None:
    """A number shown before the error is taken for the points that the cell earned."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            import sys
            sys.displayhook(4.0)
            raise ValueError
        """,
    )


@attack(stock="gains", base="solved", costs=["test-embeddings-one-hot"])
def publishes_a_score(student: HandIn) -> None:
    """The same through Jupyter's own channel."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            kernel = get_ipython().kernel
            content = {"data": {"text/plain": "4.0"}, "metadata": {}, "execution_count": 1}
            kernel.session.send(kernel.iopub_socket, "execute_result", content, parent=kernel.get_parent())
            raise ValueError
        """,
    )


@attack(stock="right")
def hides_the_errors(student: HandIn) -> None:
    """Without an error output a test counts as passed."""
    student.extra("get_ipython()._showtraceback = print")


@attack(stock="gains")
def says_that_all_went_well(student: HandIn) -> None:
    """What the kernel replies is changed on its way."""
    student.extra("""
        kernel = get_ipython().kernel
        honest_execute = kernel.do_execute

        async def do_execute(*args, **kwargs):
            reply = await honest_execute(*args, **kwargs)
            return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}

        kernel.do_execute = do_execute
        get_ipython()._showtraceback = lambda *_: None
        """)


@attack(stock="gains")
def replaces_the_helpers_of_the_tests(student: HandIn) -> None:
    """`close` and `raises` come from a module that student code can reach."""
    student.extra(
        f"{ANY_BLOCK}\nimport tito.testing\ntito.testing.close = {PASSING}\ntito.testing.raises = anything_goes"
    )
    _answer_anything(student)


@attack(stock="gains")
def names_its_own_helpers(student: HandIn) -> None:
    """The tests look `close` and `raises` up by name, among the names of the notebook."""
    student.extra(f"{ANY_BLOCK}\nclose = {PASSING}\nraises = anything_goes", after="test-embeddings-one-hot")
    _answer_anything(student)


def _answer_anything(student: HandIn) -> None:
    """Functions that return something for every exercise that is one function."""
    for grade_id, name in {
        "embeddings-one-hot": "one_hot_lookup",
        "embeddings-scatter-add": "scatter_add",
        "embeddings-gradient": "embedding_gradient",
        "embeddings-sinusoidal": "sinusoidal_positions",
    }.items():
        student.answer(grade_id, f"def {name}(*_, **__):\n    return np.zeros((3, 4), np.float32)")


@attack(stock="gains")
def a_thread_replaces_the_helpers_all_the_time(student: HandIn) -> None:
    """Whoever imports or defines them anew is too slow."""
    student.extra(
        ANY_BLOCK
        + f"""
import threading, time

def keep_replacing(names=globals()):
    while True:
        names["close"], names["raises"] = {PASSING}, anything_goes
        time.sleep(0)

threading.Thread(target=keep_replacing, daemon=True).start()
"""
    )
    _answer_anything(student)


@attack(stock="gains")
def patches_numpys_comparison(student: HandIn) -> None:
    """Everything is close to everything."""
    student.extra("""
        import numpy as np

        np.isclose = lambda a, b, **_: np.ones(np.broadcast(a, b).shape, dtype=bool)
        np.allclose = np.array_equal = lambda *_, **__: True
        """)
    student.answer(
        "embeddings-one-hot",
        "def one_hot_lookup(weight, ids):\n    return np.zeros((len(ids), weight.shape[1]), weight.dtype)",
    )
    student.answer(
        "embeddings-scatter-add",
        "def scatter_add(gradient, ids, rows):\n    return np.zeros((rows, gradient.shape[-1]), gradient.dtype)",
    )


@attack(stock="right")
def patches_numpys_conversion(student: HandIn) -> None:
    """`np.asarray` gives the same array for whatever is compared."""
    student.extra("""
        import numpy as np

        np.asarray = lambda a, *_, **__: np.zeros(1, getattr(a, "dtype", np.float32))
        """)
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return np.zeros(9, weight.dtype)")


@attack(stock="right")
def takes_the_sting_out_of_errors(student: HandIn) -> None:
    """`raise AssertionError` looks the name up in the builtins: there it stands for an error that IPython ignores."""
    student.extra("""
        import builtins

        class Quiet(BaseException):
            _render_traceback_ = lambda self: []

        builtins.AssertionError = Quiet
        get_ipython().set_custom_exc((Quiet,), lambda *_, **__: None)
        """)
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n    return np.zeros(9)")


@attack(stock="gains")
def empties_the_tests_by_a_trace(student: HandIn) -> None:
    """A trace function sees every line before it runs: time enough to empty the test that was just defined."""
    student.extra("""
        import sys

        def nothing():
            return None

        def empty_tests(frame, event, arg):
            if frame.f_code.co_name == "<module>":
                for name, value in list(frame.f_globals.items()):
                    if name.startswith("test_"):
                        value.__code__ = nothing.__code__
            return empty_tests

        sys.settrace(empty_tests)
        """)


@attack(stock="gains")
def counts_calls_by_a_profiler(student: HandIn) -> None:
    """A profile function that raises where the test compares."""
    student.extra("""
        import sys

        def give_up(frame, event, arg):
            if event == "call" and frame.f_code.co_name == "close":
                frame.f_locals["actual"] = frame.f_locals["expected"]

        sys.setprofile(give_up)
        """)
    _answer_anything(student)


@attack(stock="right", costs=["test-embeddings-manifest"], base="solved")
def shadows_the_modules_that_tests_use(student: HandIn) -> None:
    """The tests say `json`, `np`, `math` and `hashlib`: names that the notebook can give to something else."""
    student.extra(
        """
        class Fake:
            def __getattr__(self, name):
                return lambda *_, **__: 0

        json = hashlib = Fake()
        """,
        before="test-embeddings-manifest",
    )
    student.end(
        "embeddings-manifest",
        "def make_manifest(table, data, padding_idx):\n    return {'format': FORMAT, 'version': 1}",
    )


@attack(stock="gains", costs=["test-embeddings-check-ids"], base="solved")
def shadows_the_builtins_that_tests_use(student: HandIn) -> None:
    """The tests say `type`, `str` and `list`: names that the notebook can give to something else."""
    student.extra(
        f"""
        honest = type, close
        type = lambda thing: np.ndarray
        close = {PASSING}
        """,
        before="test-embeddings-check-ids",
    )
    student.end(
        "embeddings-check-ids",
        """
        honest_check = check_ids

        def check_ids(ids, vocab_size):
            return honest_check(ids, vocab_size) * 0
        """,
    )
    student.extra(
        """
        type, close = honest
        check_ids = honest_check
        """,
        after="test-embeddings-check-ids",
    )


@attack(stock="gains")
def defines_the_tests_itself(student: HandIn) -> None:
    """A test is a function that the notebook defines and then calls: make `__main__` keep the student's one."""
    student.extra("""
        class Stubborn(dict):
            def __setitem__(self, name, value):
                if name.startswith("test_"):
                    value = lambda: None
                super().__setitem__(name, value)

        shell = get_ipython()
        own = Stubborn(shell.user_ns)

        async def run_code(code, result=None, *, async_=False):
            try:
                exec(code, own, own)
                return False
            except BaseException:
                return True

        shell.run_code = run_code
        """)


@accident(stock="right")
def gives_everyday_names_to_variables(student: HandIn) -> None:
    """`table`, `rows`, `want`, `sample` and `got` at the top of a notebook are nobody's business."""
    student.extra("table = rows = want = got = sample = layer = drawn = hot = None", before="embeddings-check-ids")


@accident(stock="right")
def uses_the_notebooks_conveniences(student: HandIn) -> None:
    """Magics, shell lines and `display` in cells of one's own."""
    student.extra("%time sum(range(10))\n!echo hello\ndisplay(3)\n%matplotlib inline\n?len")
    student.extra("%%time\n1 + 1")


@accident(stock="right")
def asks_ipython_in_an_exercise(student: HandIn) -> None:
    """`display` and `get_ipython` where the answer stands; here neither is needed for the answer itself."""
    student.end("embeddings-one-hot", "display(one_hot_lookup(np.eye(2), np.array([0])))")
    student.end("embeddings-scatter-add", "%timeit -n1 -r1 scatter_add(np.ones((1, 1)), np.array([0]), 1)")


@accident(stock="right")
def draws_a_figure_in_a_cell_of_its_own(student: HandIn) -> None:
    """matplotlib in an extra cell: it may not be there, and nothing depends on it."""
    student.extra("import matplotlib.pyplot as plt\nplt.plot([1, 2]);\nplt.show()")


@accident(stock="right")
def imports_the_packages_that_a_notebook_has(student: HandIn) -> None:
    """An import in an answer that only its extra work needs."""
    student.end(
        "embeddings-one-hot",
        "import matplotlib.pyplot as plt\n\ndef plot_it(table):\n    plt.imshow(table)",
    )


@accident(stock="right")
def tests_itself_once_more(student: HandIn) -> None:
    """A copy of a visible test in a cell of one's own, with the course's helpers."""
    student.extra(
        """
        from tito.testing import close

        def test_mine():
            close(one_hot_lookup(np.eye(3), np.array([2])), [[0, 0, 1]])

        test_mine()
        """,
        after="embeddings-one-hot",
    )


@accident(stock="right")
def seeds_everything(student: HandIn) -> None:
    """A seed at the top, for figures that stay the same."""
    student.extra("import numpy as np, random\nnp.random.seed(0)\nrandom.seed(0)")
