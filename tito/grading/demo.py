"""``python -m tito.grading.demo``: a whole course played once, from the sources to the scores and the feedback.

Everything is made in ``build/course``: a release for students, a course directory, and in it a class that hands in
its notebooks of one module and is graded by nbgrader.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tito.course import Course, Module
from tito.errors import TitoError
from tito.grading.directory import Directory
from tito.grading.journal import quietly

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from tito.grading.scores import Scores

_OURS = ".made-by-tito"


@click.command()
@click.argument("number", metavar="NN", default="12")
def main(number: str) -> None:
    """Play the course through module NN (12 by default) with a small class, and show what everyone earned."""
    try:
        course = Course.locate()
        play(course, course.module(number))
    except TitoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.status)


def play(course: Course, module: Module) -> None:
    """Export, release, hand in ``module``, grade it and return feedback, telling what happens."""
    from tito.export import export
    from tito.release import write_release

    root = _fresh(course.root / "build" / "course")
    with _step("export the modules to tinytorch/"):
        export(course, course.modules)
    with _step("make a release for students"):
        release = write_release(course, root / "release")
    with _step("make a course directory for nbgrader"):
        directory = Directory.create(course, root / "grading")
    with quietly(directory.root):
        scores = _play_class(directory, module)
    _show(directory, module, scores, release)


def _play_class(directory: Directory, module: Module) -> list[Scores]:
    from tito.grading import grade
    from tito.grading.classroom import grade_class, submissions
    from tito.grading.graders import cores
    from tito.grading.isolated.sandbox import why_not
    from tito.grading.scores import read_scores

    students = _students(module)
    with _step("generate the assignment"):
        grade.generate(directory, [module])
    with _step(f"work through {module.slug} in Jupyter, as {', '.join(students)}"):
        _hand_in(directory, module, students)
    with _step("grade the notebooks"), directory.alone():
        isolation = not why_not()
        work, _ = submissions(directory, [(module, student) for student in students], isolation=isolation)
        graded = grade_class(directory, work, jobs=cores(), isolation=isolation)
        problems = [record.problem for _, record in graded]
    if not isolation:
        click.echo(f"not isolated: {why_not()}")
    with _step("write the feedback"):
        problems += [grade.feedback(directory, module, student) for student in students]
    for problem in filter(None, problems):
        raise TitoError(f"the class was not graded: {problem}", place=str(directory.root))
    return read_scores(directory, module)


def _students(module: Module) -> dict[str, NotebookNode]:
    """The notebook of each student: one solved, one blank, and the module's wrong students."""
    from tito.grading.students import blank, solved, students_folder, wrong

    names = sorted(path.stem for path in students_folder(module).glob("*.py"))
    return {"ada": solved(module), "blank": blank(module), **{name: wrong(module, name) for name in names}}


def _hand_in(directory: Directory, module: Module, students: dict[str, NotebookNode]) -> None:
    """Run every student's notebook as the student would, and put it, outputs included, into ``submitted/``."""
    import nbformat

    from tito.runner import run_notebook

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(lambda notebook: run_notebook(directory.course, module, notebook), students.values())
        for student, run in zip(students, runs, strict=True):
            folder = directory.submission(module, student)
            folder.mkdir(parents=True)
            nbformat.write(run.notebook, folder / module.notebook.name)


def _fresh(root: Path) -> Path:
    """An empty folder ``root``; what an earlier play left there is deleted.

    Raises
    ------
    TitoError
        If the folder holds what this program did not make.
    """
    if root.exists() and not (root / _OURS).is_file():
        raise TitoError(
            "this folder was not made by this program, so it is not replaced",
            place=str(root),
            next_step="move it away, and try again",
        )
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / _OURS).touch()
    return root


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Show ``what`` while it is done, and afterwards how long it took."""
    from rich.console import Console

    begin = time.monotonic()
    with Console(stderr=True).status(what):
        yield
    click.echo(f"{time.monotonic() - begin:5.1f} s  {what}")


def _show(directory: Directory, module: Module, scores: list[Scores], release: Path) -> None:
    from rich.console import Console

    from tito.grading.scores import score_tables

    for table in score_tables(f"{module.slug}: the scores, cell by cell", scores):
        Console(highlight=False).print(table)
    made = [("release", release), ("gradebook", directory.root / "gradebook.db")]
    made += [("feedback", directory.feedback(module, one.student)) for one in scores]
    for what, path in made:
        click.echo(f"{what:10} {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
