"""``tito nbgrader``: the instructor's commands, thin over nbgrader's own converters and gradebook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from tito.course import Course, Module
from tito.errors import TitoError

if TYPE_CHECKING:
    from rich.console import Console

    from tito.grading.directory import Directory
    from tito.grading.grade import Graded

Command = Callable[..., Any]

_which = click.argument("modules", nargs=-1, metavar="[NN ...]")
_student = click.option("--student", metavar="S", help="Only this student.")
_course = click.option(
    "--course",
    "root",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="The course directory; by default the current folder.",
)


@click.group()
def nbgrader() -> None:
    """Set up a course directory, make assignments, grade them, return feedback.

    \b
    Example: tito nbgrader init ~/grading
             cd ~/grading
             tito nbgrader generate 12
    """


@nbgrader.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a course directory in DIR, in which nbgrader's own commands work too.

    \b
    Example: tito nbgrader init ~/grading
    """
    from tito.grading.directory import Directory
    from tito.newfolder import full_path

    directory = Directory.create(Course.locate(), full_path(folder))
    click.echo(f"Made a course directory for {directory.course.course_id} in {directory.root}")
    click.echo(f"  next:  cd {quote(str(directory.root))} && tito nbgrader generate")


@nbgrader.command()
@_which
@_course
def generate(modules: tuple[str, ...], root: Path) -> None:
    """Write assignments for students to release/ from the modules as they are now; by default all of them.

    \b
    Example: tito nbgrader generate 12
    """
    with _opened(root) as directory:
        from tito.grading.grade import generate as write

        chosen = _modules(directory, modules) or list(directory.course.modules)
        write(directory, chosen)
    for module in chosen:
        click.echo(f"release/{module.slug}/{module.notebook.name}")


@nbgrader.command()
@_which
@_student
@_course
def validate(modules: tuple[str, ...], student: str | None, root: Path) -> None:
    """Run every test on the author's solution, or on what a student handed in; nothing is recorded.

    \b
    Example: tito nbgrader validate 12
             tito nbgrader validate 12 --student ada
    """
    failed = False
    with _opened(root) as directory:
        from tito.grading.grade import validate as run

        for module in _modules(directory, modules) or _generated(directory):
            tests = [cell for cell in run(directory, module, student).cells if cell.is_test]
            passed = sum(cell.ok for cell in tests)
            failed = failed or passed < len(tests)
            click.echo(f"{module.slug}: {passed} of {len(tests)} tests pass")
            for cell in tests:
                if not cell.ok:
                    click.echo(f"  {cell.grade_id}: {cell.ename}: {cell.evalue}")
    if failed:
        raise SystemExit(1)


@nbgrader.command()
@_which
@_student
@_course
def autograde(modules: tuple[str, ...], student: str | None, root: Path) -> None:
    """Run and score what students handed in; by default everything in submitted/. A second time gives the same.

    \b
    Example: tito nbgrader autograde 12
             tito nbgrader autograde 12 --student ada
    """
    with _opened(root) as directory:
        from tito.grading.grade import autograde as grade

        work = _submissions(directory, modules, student)
        graded = [grade(directory, *one) for one in _progress(work, "grading")]
    _show_graded(graded, directory)
    if any(one.problem for one in graded):
        raise SystemExit(1)


@nbgrader.command()
@_which
@_student
@_course
def feedback(modules: tuple[str, ...], student: str | None, root: Path) -> None:
    """Write feedback/STUDENT/MODULE/NAME.html for what has been graded; hidden tests are not in it.

    \b
    Example: tito nbgrader feedback 12
    """
    with _opened(root) as directory:
        from tito.grading.grade import feedback as write

        work = _submissions(directory, modules, student)
        problems = {
            f"{one.slug}, {who}": problem
            for one, who in _progress(work, "feedback")
            if (problem := write(directory, one, who))
        }
    click.echo(f"{len(work) - len(problems)} of {len(work)} written to {directory.root / 'feedback'}")
    for place, problem in problems.items():
        click.echo(f"  {place}: {problem}")
    if problems:
        raise SystemExit(1)


@nbgrader.command()
@_which
@_student
@_course
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.option(
    "--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write nbgrader's table of totals to a file."
)
def report(modules: tuple[str, ...], student: str | None, root: Path, as_json: bool, csv: Path | None) -> None:
    """Show the scores in the gradebook cell by cell; by default of every assignment.

    \b
    Example: tito nbgrader report 12
             tito nbgrader report --csv grades.csv
    """
    with _opened(root) as directory:
        from tito.grading.scores import export_csv, read_scores, score_tables

        chosen = _modules(directory, modules) or _generated(directory)
        scores = {module: found for module in chosen if (found := read_scores(directory, module, student))}
        if csv:
            export_csv(directory, csv, [module.slug for module in chosen], student)
    if as_json:
        click.echo(json.dumps([asdict(one) for found in scores.values() for one in found], indent=1))
        return
    if not scores:
        click.echo("No scores yet.\n  next:  tito nbgrader autograde")
    for module, found in scores.items():
        for table in score_tables(module.slug, found):
            _console().print(table)
    if csv:
        click.echo(f"Totals: {csv}")


@contextmanager
def _opened(root: Path) -> Iterator[Directory]:
    """The course directory ``root``, while what nbgrader logs goes to its file."""
    from tito.grading.directory import Directory
    from tito.grading.journal import quietly

    try:
        with quietly(root):
            yield Directory.open(root)
    except KeyboardInterrupt:
        raise TitoError(
            "stopped; what was done so far is kept", next_step="run the command again: it begins anew", status=130
        ) from None


def _modules(directory: Directory, names: Sequence[str]) -> list[Module]:
    return [directory.course.module(name) for name in names]


def _generated(directory: Directory) -> list[Module]:
    """The modules that have an assignment in this course directory."""
    return [module for module in directory.course.modules if (directory.root / "release" / module.slug).is_dir()]


def _submissions(directory: Directory, names: Sequence[str], student: str | None) -> list[tuple[Module, str]]:
    chosen = _modules(directory, names) or list(directory.course.modules)
    work = [(module, who) for module in chosen for who in directory.submitted(module) if student in (None, who)]
    if not work:
        what = " ".join(module.slug for module in chosen) if names else "any module"
        raise TitoError(
            f"there is no submission of {student or 'any student'} for {what}",
            place=str(directory.root / "submitted"),
            next_step="put each notebook at submitted/STUDENT/NN_name/name.ipynb",
        )
    return work


def _progress(work: list[tuple[Module, str]], what: str) -> Iterator[tuple[Module, str]]:
    """The items of ``work``, with a bar and the time left on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=len(work))
        for module, student in work:
            bar.update(task, description=f"{what} {module.slug}, {student}")
            yield module, student
            bar.advance(task)


def _show_graded(graded: Sequence[Graded], directory: Directory) -> None:
    from rich.table import Table

    table = Table()
    for name, side in (("module", "left"), ("student", "left"), ("score", "right"), ("of", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("what went wrong", overflow="fold")
    for one in graded:
        score = "-" if one.problem else f"{one.score:g}"
        notes = [f"not graded: {one.problem}"] if one.problem else []
        table.add_row(one.module.slug, one.student, score, f"{one.max_score:g}", "\n".join([*notes, *one.findings]))
    _console().print(table)
    done = sum(not one.problem for one in graded)
    click.echo(f"{done} of {len(graded)} graded. Log: {directory.root / 'nbgrader.log'}")


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)
