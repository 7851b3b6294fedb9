"""``python benchmarks/grading.py``: how long it takes to grade a class of 40, here and by nbgrader as it comes.

The class hands in module 12. A third has solved it all, half has left out some exercises (which ones is drawn with a
fixed seed), and the rest are one of the module's wrong students, notebooks that cannot be read or were mangled, and
hostile ones, which end their process, print 30 MB, import the answer or forge a result. None of them loops forever or
fills the memory: that costs every grader the same, its time limit, and would hide what the others cost.

Measured are `tito nbgrader autograde`; nbgrader's own API, with as many processes and its own way of running notebooks;
and a loop of `nbgrader autograde` calls, on a sample. nbgrader runs every cell of a notebook, tito those that make up
the module, the tests, and what they need.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import nbformat
import psutil
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

from tito.course import Course, Module
from tito.grading.directory import Directory
from tito.grading.grade import generate
from tito.grading.journal import quietly
from tito.grading.students import blank, solved, wrong
from tito.source import grade_info

STOCK = """\
c = get_config()  # noqa: F821: nbgrader defines it for this file
c.CourseDirectory.course_id = "stock"
c.CourseDirectory.root = {root!r}
"""


@click.command()
@click.option("--jobs", default=2, show_default=True, help="Processes side by side.")
@click.option("--sample", default=5, show_default=True, help="Submissions for the loop of nbgrader calls.")
@click.option("--most", default=40, show_default=True, help="Submissions for nbgrader's API.")
def main(jobs: int, sample: int, most: int) -> None:
    """Grade a class of 40 in three ways, and print what each costs."""
    course = Course.locate(Path(__file__).parent)
    module = course.module("12")
    root = course.root / "build" / "grading"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    students = _hand_in(course, module, root / "class")
    table = Table("", "graded", "s", "s each", "tito is faster by", "peak MB", title=f"40 submissions of {module.slug}")
    ours = 0.0
    for what, chosen, work in (
        ("tito nbgrader autograde", students, _by_tito),
        (f"nbgrader's API, {jobs} processes", students[:most], _by_api),
        ("a loop of nbgrader autograde", random.Random(1).sample(students, sample), _by_calls),
    ):
        here = root / work.__name__.strip("_")
        shutil.copytree(root / "class", here)
        seconds, peak = _measured(partial(work, here, module.slug, chosen, jobs))
        each = seconds / len(chosen)
        ours = ours or each
        table.add_row(what, str(len(chosen)), f"{seconds:.1f}", f"{each:.3f}", f"{each / ours:.1f}", f"{peak:.0f}")
    Console().print(table)


def _hand_in(course: Course, module: Module, root: Path) -> list[str]:
    """Make a course directory in which the class has handed in its notebooks; the students, in random order."""
    directory = Directory.create(course, root)
    with quietly(root):
        generate(directory, [module])
    texts = _class(module)
    for student, text in texts.items():
        folder = directory.submission(module, student)
        folder.mkdir(parents=True)
        (folder / module.notebook.name).write_text(text, encoding="utf-8")
    students = list(texts)
    random.Random(0).shuffle(students)
    return students


def _class(module: Module) -> dict[str, str]:
    draw = random.Random(12)
    right, empty = solved(module), blank(module)
    notebooks = {f"solved-{n:02}": _noted(right, f"my notes, {n}") for n in range(13)}
    notebooks |= {f"partial-{n:02}": _partial(right, empty, draw) for n in range(18)}
    notebooks |= {f"wrong-{n}": _noted(wrong(module, "naive_gradient"), str(n)) for n in range(2)}
    notebooks |= {
        "deleted-a-test": _without_a_test(right),
        "broken-code": _with_line(right, "return (\n"),
        "exits": _with_line(right, "import os; os._exit(0)"),
        "floods": _with_line(right, "print('x' * 30_000_000)"),
        "imports": _answered(empty, "#| export\nfrom tinytorch.core.embeddings import *"),
        "forges": _with_line(right, "import sys; sys.displayhook(100.0); raise SystemExit"),
    }
    return {name: nbformat.writes(notebook) for name, notebook in notebooks.items()} | {
        "no-json": "<html>Sign in</html>"
    }


def _noted(notebook: NotebookNode, note: str) -> NotebookNode:
    copy = nbformat.from_dict(notebook)
    copy.cells.append(nbformat.v4.new_markdown_cell(note, id="note"))
    return copy


def _partial(right: NotebookNode, empty: NotebookNode, draw: random.Random) -> NotebookNode:
    copy = nbformat.from_dict(right)
    for cell, released in zip(copy.cells, empty.cells, strict=True):
        if grade_info(cell).get("solution") and draw.random() < 0.25:
            cell.source = released.source
    return copy


def _without_a_test(right: NotebookNode) -> NotebookNode:
    copy = nbformat.from_dict(right)
    copy.cells = [cell for cell in copy.cells if cell.id != "test-embeddings-layer"]
    return copy


def _answered(notebook: NotebookNode, answer: str) -> NotebookNode:
    copy = nbformat.from_dict(notebook)
    exercise = next(cell for cell in copy.cells if cell.cell_type == "code" and grade_info(cell).get("solution"))
    exercise.source = answer
    return copy


def _with_line(right: NotebookNode, line: str) -> NotebookNode:
    """The first function of the module's longest exercise begins with ``line``."""
    copy = nbformat.from_dict(right)
    code = [cell for cell in copy.cells if cell.cell_type == "code" and grade_info(cell).get("solution")]
    cell = max(code, key=lambda cell: len(cell.source))
    head, _, body = cell.source.partition('"""\n')
    doc, _, rest = body.partition('"""\n')
    indent = rest[: len(rest) - len(rest.lstrip())].rsplit("\n", 1)[-1]
    cell.source = f'{head}"""\n{doc}"""\n{indent}{line}\n{rest}'
    return copy


def _by_tito(root: Path, _: str, students: Sequence[str], jobs: int) -> None:
    command = [sys.executable, "-m", "tito", "nbgrader", "autograde", "12", "--json", "--jobs", str(jobs)]
    done = subprocess.run(
        [*command, "--course", str(root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    graded = json.loads(done.stdout)["submissions"]
    assert {one["student"] for one in graded} == set(students)


def _by_api(root: Path, assignment: str, students: Sequence[str], jobs: int) -> None:
    _make_stock(root)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _hush) as pool:
        list(pool.map(_call_api, [(root, assignment, student) for student in students]))


def _hush() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _call_api(work: tuple[Path, str, str]) -> bool:
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    root, assignment, student = work
    config = Config(CourseDirectory={"root": str(root), "course_id": "stock"})
    return bool(NbGraderAPI(config=config).autograde(assignment, student)["success"])


def _by_calls(root: Path, assignment: str, students: Sequence[str], _: int) -> None:
    _make_stock(root)
    for student in students:
        command = [sys.executable, "-m", "nbgrader", "autograde", assignment, "--student", student]
        subprocess.run(command, cwd=root, capture_output=True, check=False)


def _make_stock(root: Path) -> None:
    """Let nbgrader grade as it does where it was just installed."""
    (root / "nbgrader_config.py").write_text(STOCK.format(root=str(root)), encoding="utf-8")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def _measured(work: Callable[[], None]) -> tuple[float, float]:
    """The seconds that ``work`` takes, and the most memory (MB, proportional) that its processes held together."""
    ended = threading.Event()
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(peak, ended))
    watch.start()
    begin = time.monotonic()
    try:
        work()
    finally:
        seconds = time.monotonic() - begin
        ended.set()
        watch.join()
    return seconds, peak[0]


def _watch(peak: list[float], ended: threading.Event) -> None:
    """Note the most memory that our processes had at any time, what they share counted once."""
    while not ended.wait(1):
        parts = [_shared_out(process.pid) for process in psutil.Process().children(recursive=True)]
        peak[0] = max(peak[0], sum(parts) / 1e6)


def _shared_out(pid: int) -> int:
    """The bytes of a process, of those that it shares its part (PSS); 0 if it has gone."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return 0


if __name__ == "__main__":
    main()
