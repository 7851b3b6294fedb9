"""What becomes of a notebook's cells and of their metadata, by intent or by the programs it went through."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import nbformat

from tests.attacks.corpus import EVERY, HandIn, accident, attack, stopper
from tito.source import grade_info

GRADIENT = "embeddings-gradient"


def _marks(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell["metadata"]["nbgrader"] for cell in content["cells"] if "nbgrader" in cell["metadata"]]


# tests, edited


@attack(stock="untried")
def empties_every_test(student: HandIn) -> None:
    """The tests' cells hold `pass`."""
    for cell in student.tests():
        cell.source = "pass"


@attack(stock="untried")
def locks_nothing(student: HandIn) -> None:
    """The tests' cells hold `pass`, and the metadata says that they are not locked."""
    for cell in student.tests():
        cell.source = "pass"
        cell.metadata.nbgrader.locked = False


@attack(stock="untried")
def calls_the_tests_solutions(student: HandIn) -> None:
    """Cells that are solutions and tests at once keep the student's source, and earn points."""
    for cell in student.tests():
        cell.source = "pass"
        cell.metadata.nbgrader |= {"solution": True, "locked": False}


@attack(stock="untried")
def skips_the_tests_by_tags(student: HandIn) -> None:
    """`skip-execution` and `raises-exception` mean something to the programs that run notebooks."""
    for cell in student.tests():
        cell.metadata.tags = ["skip-execution", "raises-exception", "nbval-skip"]


@attack(stock="untried")
def turns_tests_into_prose(student: HandIn) -> None:
    """Markdown has no errors."""
    for cell in student.tests():
        cell.cell_type = "markdown"
        del cell["outputs"], cell["execution_count"]


@attack(stock="untried")
def removes_every_test(student: HandIn) -> None:
    """What is not there cannot fail."""
    student.notebook.cells = [
        c for c in student.notebook.cells if not grade_info(c).get("grade_id", "").startswith("test")
    ]


@attack(stock="untried")
def moves_the_tests_before_the_answers(student: HandIn) -> None:
    """A test at the top runs before anything could be wrong, and the names it misses come from a cell above it."""
    tests = list(student.tests())
    others = [cell for cell in student.notebook.cells if cell not in tests]
    student.notebook.cells = [*tests, *others]
    student.extra("def close(*_, **__): pass\nclass raises:\n    def __init__(*_, **__): pass")


@attack(stock="untried")
def says_more_points(student: HandIn) -> None:
    """A hundred points for each test, says the metadata; and one is passed."""
    for cell in student.tests():
        cell.metadata.nbgrader.points = 100


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def swaps_the_names_of_two_tests(student: HandIn) -> None:
    """The test of an exercise that was not done gets the name of one that was."""
    student.forget("embeddings-one-hot")
    one, other = student.cell("test-embeddings-one-hot"), student.cell("test-embeddings-check-ids")
    one.metadata.nbgrader, other.metadata.nbgrader = other.metadata.nbgrader, one.metadata.nbgrader
    one.source, other.source = "pass", "pass"


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def gives_a_test_twice(student: HandIn) -> None:
    """A copy of a test with its name, empty, before and after it."""
    student.forget("embeddings-one-hot")
    test = student.cell("test-embeddings-one-hot")
    place = student.notebook.cells.index(test)
    for at, number in ((place, 1), (place + 2, 2)):
        copy = deepcopy(test) | {"id": f"copy-{number}", "source": "pass"}
        student.notebook.cells.insert(at, nbformat.from_dict(copy))


@attack(stock="untried")
def invents_graded_cells(student: HandIn) -> None:
    """New cells with points of their own."""
    for number in range(3):
        cell = student.extra("pass")
        cell.metadata.nbgrader = {
            "grade": True, "grade_id": f"test-bonus-{number}", "locked": False, "points": 100,
            "schema_version": 3, "solution": False, "task": False,
        }  # fmt: skip


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def names_a_test_by_a_homoglyph(student: HandIn) -> None:
    """A Cyrillic е, a zero-width joiner and a letter in two parts: names that look the same, and are not."""
    student.forget("embeddings-one-hot")
    test = student.cell("test-embeddings-one-hot")
    for number, name in enumerate(["t\u0435st-embeddings-one-hot", "test-embeddings-one\u200d-hot", "te\u0301st"]):
        copy = deepcopy(test) | {"id": f"copy-{number}", "source": "pass"}
        copy["metadata"]["nbgrader"]["grade_id"] = name
        student.notebook.cells.append(nbformat.from_dict(copy))
    test.metadata.nbgrader.grade_id = "test-embeddings-one-hot\u200b"
    test.source = "pass"


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def grades_itself_by_hand(student: HandIn) -> None:
    """Scores, comments and outputs of an earlier grading, made up."""
    student.forget("embeddings-one-hot")
    test = student.cell("test-embeddings-one-hot")
    test.metadata.nbgrader |= {"score": 4, "manual_score": 4, "auto_score": 4, "extra_credit": 50, "comment": "great"}
    test.outputs = [nbformat.v4.new_output("execute_result", data={"text/plain": "4"}, execution_count=1)]
    student.notebook.metadata.nbgrader = {"score": 100, "extra_credit": 50}


@attack(stock="untried")
def claims_another_kernel(student: HandIn) -> None:
    """A kernel that runs no Python, or none that exists, gives no errors."""
    student.notebook.metadata.kernelspec = {"display_name": "Bash", "language": "bash", "name": "bash"}
    student.notebook.metadata.language_info = {"name": "bash", "file_extension": ".sh"}


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def ends_the_hidden_tests_early(student: HandIn) -> None:
    """nbgrader's own markers in an answer, around nothing and around the wrong thing."""
    student.answer(
        "embeddings-one-hot",
        "### END HIDDEN TESTS\n### BEGIN SOLUTION\ndef one_hot_lookup(*_):\n    return 0\n### BEGIN HIDDEN TESTS",
    )


@attack(stock="untried", base="solved", costs=["test-embeddings-one-hot"])
def exports_tests_of_its_own(student: HandIn) -> None:
    """Directives of the exporter where they do not belong."""
    student.answer(
        "embeddings-one-hot",
        "#| default_exp core.tensor\n#| export\n#| eval: false\ndef one_hot_lookup(w, i): return 0",
    )


# accidents


@accident(stock="loses")
def deletes_a_test(student: HandIn) -> None:
    """One key too many in Jupyter."""
    student.notebook.cells.remove(student.cell("test-embeddings-gradient"))


@accident(stock="untried")
def edits_a_test(student: HandIn) -> None:
    """A print to see more, and a syntax error left behind."""
    student.cell("test-embeddings-gradient").source += "\nprint('so far"


@accident(stock="stops")
def copies_a_test(student: HandIn) -> None:
    """Copy and paste, metadata and all."""
    copy = deepcopy(student.cell("test-embeddings-gradient")) | {"id": "copied"}
    student.notebook.cells.append(nbformat.from_dict(copy))


@accident(stock="untried")
def copies_an_answer(student: HandIn) -> None:
    """An answer stands twice, the second is the right one."""
    answer = student.cell(GRADIENT)
    first = deepcopy(answer) | {"id": "first-try", "source": "#| export\ndef embedding_gradient(*_): return None"}
    student.notebook.cells.insert(student.notebook.cells.index(answer), nbformat.from_dict(first))


@accident(stock="untried")
def turns_a_test_into_prose(student: HandIn) -> None:
    """The key M in Jupyter."""
    cell = student.cell("test-embeddings-gradient")
    cell.cell_type = "markdown"
    del cell["outputs"], cell["execution_count"]


@accident(stock="untried", costs=["test-embeddings-one-hot"])
def turns_an_answer_into_prose(student: HandIn) -> None:
    """The key M on an exercise: its answer is no code any more. What else was earned stays."""
    cell = student.cell("embeddings-one-hot")
    cell.cell_type = "markdown"
    del cell["outputs"], cell["execution_count"]


@accident(stock="untried", costs=["test-embeddings-one-hot"])
def turns_an_answer_raw(student: HandIn) -> None:
    """The key R."""
    cell = student.cell("embeddings-one-hot")
    cell.cell_type = "raw"
    del cell["outputs"], cell["execution_count"]


@accident(stock="untried")
def turns_an_essay_into_code(student: HandIn) -> None:
    """The key Y on an answer in prose: a person grades it; the tests are not touched."""
    cell = student.cell("embeddings-reflect-memory")
    cell |= {"cell_type": "code", "outputs": [], "execution_count": None}


@accident(stock="untried")
def loses_the_first_line_of_an_answer(student: HandIn) -> None:
    """Without its directive the exporter leaves it out; grading needs no directive."""
    cell = student.cell(GRADIENT)
    cell.source = cell.source.partition("\n")[2]


@accident(stock="untried")
def puts_imports_first(student: HandIn) -> None:
    """Lines above the directive."""
    cell = student.cell(GRADIENT)
    cell.source = "import numpy as np\n" + cell.source


@accident(stock="untried")
def splits_an_answer(student: HandIn) -> None:
    """Jupyter's "split cell" leaves the mark on both halves: a helper above, the function below."""
    answer = student.cell(GRADIENT)
    first = deepcopy(answer) | {"id": "upper-half", "source": "def helper(x):\n    return x"}
    answer.source = answer.source.replace("return summed", "return helper(summed)")
    student.notebook.cells.insert(student.notebook.cells.index(answer), nbformat.from_dict(first))


@accident(stock="untried")
def has_metadata_of_2016(student: HandIn) -> None:
    """Schema 1, as nbgrader wrote it before 2018."""
    student.raw(lambda content: [mark.update(schema_version=1) or mark.pop("task", None) for mark in _marks(content)])


@accident(stock="untried")
def has_metadata_of_2018(student: HandIn) -> None:
    """Schema 2, before tasks."""
    student.raw(lambda content: [mark.update(schema_version=2) or mark.pop("task", None) for mark in _marks(content)])


@accident(stock="untried")
def has_metadata_of_the_future(student: HandIn) -> None:
    """Schema 9."""
    student.raw(lambda content: [mark.update(schema_version=9) for mark in _marks(content)])


@accident(stock="untried")
def has_partial_metadata(student: HandIn) -> None:
    """Nothing but the names is left of it."""

    def edit(content: dict[str, Any]) -> None:
        for mark in _marks(content):
            name = mark["grade_id"]
            mark.clear()
            mark["grade_id"] = name

    student.raw(edit)


@accident(stock="untried")
def has_lost_all_metadata(student: HandIn) -> None:
    """A program that knows nothing of nbgrader dropped it: nothing tells the answers' cells but their ids."""
    student.raw(lambda content: [cell.update(metadata={}) for cell in content["cells"]])


@accident(stock="untried", unsure=["test-embeddings-one-hot"])
def has_metadata_of_a_strange_kind(student: HandIn) -> None:
    """In one cell a list, in one a number, in one null."""
    strange: dict[str, Any] = {
        "embeddings-one-hot": [1],
        "test-embeddings-gradient": 7,
        "test-embeddings-manifest": None,
    }

    def edit(content: dict[str, Any]) -> None:
        for cell in content["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if name in strange:
                cell["metadata"]["nbgrader"] = strange[name]

    student.raw(edit)


@accident(stock="untried")
def has_points_of_a_strange_kind(student: HandIn) -> None:
    """Points that are text, NaN, huge or below zero."""
    strange = iter(["8", float("nan"), 10**400, -5, None, [], True, 1e308])

    def edit(content: dict[str, Any]) -> None:
        for mark in _marks(content):
            if mark.get("points"):
                mark["points"] = next(strange, 8)

    student.raw(edit)


@accident(stock="untried")
def comes_without_cell_ids(student: HandIn) -> None:
    """nbformat 4.2, as Jupyter wrote it before 2021."""

    def edit(content: dict[str, Any]) -> None:
        content["nbformat_minor"] = 2
        for cell in content["cells"]:
            del cell["id"]

    student.raw(edit)


@accident(stock="untried")
def comes_as_4_0(student: HandIn) -> None:
    """The first of version 4."""

    def edit(content: dict[str, Any]) -> None:
        content["nbformat_minor"] = 0
        for cell in content["cells"]:
            del cell["id"]

    student.raw(edit)


@accident(stock="untried")
def comes_as_version_3(student: HandIn) -> None:
    """Saved by a program of 2014."""
    old = nbformat.convert(deepcopy(student.notebook), 3)
    student.text = nbformat.v3.writes_json(old).encode()


@accident(stock="untried")
def comes_from_a_later_version(student: HandIn) -> None:
    """nbformat 4.99 with keys that nobody knows yet."""

    def edit(content: dict[str, Any]) -> None:
        content["nbformat_minor"] = 99
        content["cells"][0]["from_the_future"] = True

    student.raw(edit)


@accident(stock="untried")
def has_ids_twice(student: HandIn) -> None:
    """Every cell has the same id."""
    student.raw(lambda content: [cell.update(id="same") for cell in content["cells"]])


@accident(stock="untried")
def has_ids_that_are_none(student: HandIn) -> None:
    """Empty, too long, with spaces, a number."""
    odd = iter(["", "x" * 65, "a b", "ä", 7, None])
    student.raw(
        lambda content: [cell.update(id=next(odd, f"fine-{place}")) for place, cell in enumerate(content["cells"])]
    )


@accident(stock="untried")
def begins_with_a_byte_order_mark(student: HandIn) -> None:
    """Saved by an editor on Windows."""
    student.text = b"\xef\xbb\xbf" + nbformat.writes(student.notebook).encode()


@accident(stock="untried")
def has_windows_line_ends(student: HandIn) -> None:
    """CR LF everywhere, in the file and in the cells."""
    for cell in student.notebook.cells:
        cell.source = cell.source.replace("\n", "\r\n")
    student.text = nbformat.writes(student.notebook).replace("\n", "\r\n").encode()


@accident(stock="untried")
def comes_on_one_line(student: HandIn) -> None:
    """JSON without line ends, sources as one string each, keys sorted."""
    student.text = json.dumps(json.loads(nbformat.writes(student.notebook, split_lines=False)), sort_keys=True).encode()


@accident(stock="untried")
def holds_outputs_of_every_kind(student: HandIn) -> None:
    """Figures, HTML with a script, errors, widgets, and an output type that does not exist yet."""
    output = nbformat.v4.new_output
    script = "<script>document.title = 'owned-by-output'</script>"
    for cell in student.notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output("display_data", data={"text/html": script, "image/svg+xml": f"<svg>{script}</svg>"}),
                output("display_data", data={"application/javascript": "document.title = 'owned-by-output'"}),
                output("error", ename="E", evalue=script, traceback=["\x1b[2J", script]),
                output("stream", name="stderr", text="careful"),
            ]
            cell.execution_count = 3


@accident(stock="untried")
def writes_html_into_an_essay(student: HandIn) -> None:
    """A script, a frame and an image that reports back, in an answer that the instructor reads in the browser."""
    student.cell("embeddings-reflect-memory").source += (
        "\n\n<script>document.title = 'owned-by-essay'</script>\n"
        "<img src=x onerror=\"document.title='owned-by-essay'\">\n"
        "<iframe srcdoc=\"<script>parent.document.title='owned-by-essay'</script>\"></iframe>\n"
        "[here](javascript:document.title='owned-by-essay')"
    )


@accident(stock="untried")
def attaches_an_image(student: HandIn) -> None:
    """A megabyte of picture, dropped into an essay."""
    student.cell("embeddings-reflect-memory")["attachments"] = {"image.png": {"image/png": "iVBORw0K" * 150_000}}


@accident(stock="untried")
def moves_a_cell(student: HandIn) -> None:
    """The arrow key moved a test to the end; it needs what comes before it, and that is still there."""
    cell = student.cell("test-embeddings-gradient")
    student.notebook.cells.remove(cell)
    student.notebook.cells.append(cell)


@accident(stock="untried", unsure=["test-embeddings-check-ids"])
def moves_an_answer_below_its_test(student: HandIn) -> None:
    """Run in another order it worked."""
    cell = student.cell("embeddings-check-ids")
    student.notebook.cells.remove(cell)
    student.notebook.cells.insert(student.notebook.cells.index(student.cell("test-embeddings-check-ids")) + 1, cell)


@accident(stock="untried")
def has_errors_in_cells_of_its_own(student: HandIn) -> None:
    """Experiments that fail, between the exercises."""
    student.extra("1 / 0", after="embeddings-one-hot")
    student.extra("def (", after="test-embeddings-gradient")
    student.extra("undefined_name", after="test-embeddings-manifest")


@accident(stock="untried")
def deletes_the_imports(student: HandIn) -> None:
    """The first code cell, which everything needs, is gone."""
    first = next(cell for cell in student.notebook.cells if cell.cell_type == "code")
    student.notebook.cells.remove(first)


@accident(stock="untried")
def deletes_code_that_was_given(student: HandIn) -> None:
    """The cell with `npy_bytes` and `saved_paths`, which belongs to the package."""
    given = next(cell for cell in student.notebook.cells if "def npy_bytes" in cell.source)
    student.notebook.cells.remove(given)


@accident(stock="untried")
def names_cells_in_two_forms_of_unicode(student: HandIn) -> None:
    """Extra metadata and ids with accents, composed and not, right-to-left marks and emoji."""
    for place, cell in enumerate(student.notebook.cells):
        cell.metadata["note\u202e"] = "e\u0301 é \U0001f600 \u0000" * (place % 3)
    student.notebook.metadata["авторы"] = ["Ада"]


# files that may stop the class


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_empty(student: HandIn) -> None:
    """A file of no bytes."""
    student.text = b""


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_a_web_page(student: HandIn) -> None:
    """The login page that was downloaded in its place."""
    student.text = b"<html><body>Sign in</body></html>"


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_cut_off(student: HandIn) -> None:
    """The disk was full."""
    student.text = nbformat.writes(student.notebook).encode()[:20_000]


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_in_another_encoding(student: HandIn) -> None:
    """UTF-16."""
    student.text = nbformat.writes(student.notebook).encode("utf-16")


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_deep_json(student: HandIn) -> None:
    """A hundred thousand brackets."""
    student.text = b"[" * 100_000 + b"]" * 100_000


@stopper(stock="untried", costs=[EVERY], graded=False)
def has_deep_metadata(student: HandIn) -> None:
    """A notebook with metadata nine hundred levels deep."""
    text = nbformat.writes(student.notebook)
    deep = '{"a":' * 900 + "1" + "}" * 900
    student.text = text.replace('"metadata": {', f'"metadata": {{"deep": {deep},', 1).encode()


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_another_kind_of_json(student: HandIn) -> None:
    """A number with many digits in a list."""
    student.text = b"[" + b"9" * 10_000 + b"]"


@stopper(stock="untried", costs=[EVERY], graded=False)
def has_no_cells(student: HandIn) -> None:
    """A valid notebook of nothing."""
    student.notebook.cells = []


@stopper(stock="untried", costs=[EVERY], graded=False)
def is_another_modules(student: HandIn) -> None:
    """The notebook of module 11, under this one's name."""
    from tito.grading.students import solved

    student.notebook = solved(student.course.module("11"))


@stopper(stock="untried", costs=[EVERY], graded=False)
def has_cells_that_are_none(student: HandIn) -> None:
    """Numbers and strings where cells belong."""
    student.raw(lambda content: content.update(cells=[1, "two", None, {}]))


def _with_outputs(student: HandIn, size: int) -> None:
    cell = next(cell for cell in student.notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="x" * size)]


@accident(stock="untried")
def weighs_30_mb(student: HandIn) -> None:
    """A flood of output that was saved with the notebook, on one line."""
    _with_outputs(student, 30_000_000)


@stopper(stock="untried", costs=[EVERY], graded=False)
def weighs_100_mb(student: HandIn) -> None:
    """So large that it is refused before it is read."""
    _with_outputs(student, 101_000_000)
