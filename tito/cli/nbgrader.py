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
from tito.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from tito.grading.classroom import Graded
    from tito.grading.directory import Directory
    from tito.grading.records import Record

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


_no_isolation = click.option(
    "--no-isolation", is_flag=True, help="Run student code without a sandbox, if this machine has none."
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
    with _opened(root) as directory, directory.alone():
        from tito.grading.grade import generate as write

        chosen = _modules(directory, modules) or list(directory.course.modules)
        write(directory, chosen)
    for module in chosen:
        click.echo(f"release/{module.slug}/{module.notebook.name}")


@nbgrader.command()
@_which
@_student
@_course
@_no_isolation
def validate(modules: tuple[str, ...], student: str | None, root: Path, no_isolation: bool) -> None:
    """Run every test on the author's solution, or on what a student handed in; nothing is recorded.

    \b
    Example: tito nbgrader validate 12
             tito nbgrader validate 12 --student ada
    """
    failed = False
    with _opened(root) as directory:
        from tito.grading.grade import validate as run

        for module in _modules(directory, modules) or _generated(directory):
            result = run(directory, module, student, isolation=not no_isolation)
            tests = [cell for cell in result.cells if cell.is_test]
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
@click.option("--force", is_flag=True, help="Grade also what is graded already and has not changed.")
@_no_isolation
@click.option("--jobs", metavar="N", type=click.IntRange(1), help="Processes side by side; by default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def autograde(
    modules: tuple[str, ...],
    student: str | None,
    root: Path,
    force: bool,
    no_isolation: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Run and score what students handed in; by default everything in submitted/.

    What was graded already is not graded again, unless it, the assignment, the course or the limits have changed. The
    command can be stopped at any moment: started again, it does the rest. The exit status is 1 if a submission could
    not be graded.

    \b
    Example: tito nbgrader autograde 12
             tito nbgrader autograde 12 --student ada --force
    """
    from tito.grading.graders import cores, warm_up

    warm_up()
    with _opened(root) as directory, directory.alone():
        from tito.grading.classroom import grade_class, read_graded, submissions

        work = _submissions(directory, modules, student)
        stale, fresh = submissions(directory, work, isolation=not no_isolation)
        if force:
            stale, fresh = stale + fresh, []
        if fresh:
            click.echo(f"{len(fresh)} of {len(work)} are graded already; --force grades them again", err=True)
        with _class_progress(len(stale)) as tell:
            for one, record in grade_class(directory, stale, jobs=jobs or cores(), isolation=not no_isolation):
                tell(visible(f"{one.module.slug}, {one.student}"), "not graded" if record.problem else "graded")
        graded = read_graded(directory, stale + fresh)
    if as_json:
        click.echo(json.dumps({"isolated": not no_isolation, "submissions": [asdict(one) for one in graded]}, indent=1))
    else:
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
        click.echo(visible(f"  {place}: {problem}"))
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
    """Show the scores in the gradebook cell by cell, and what befell the submissions; by default of every assignment.

    \b
    Example: tito nbgrader report 12
             tito nbgrader report --csv grades.csv
    """
    with _opened(root) as directory:
        from tito.grading import records
        from tito.grading.scores import export_csv, read_scores, score_tables

        chosen = _modules(directory, modules) or _generated(directory)
        scores = {module: found for module in chosen if (found := read_scores(directory, module, student))}
        kept = {one: records.read(directory, module, one.student) for module, found in scores.items() for one in found}
        if csv:
            export_csv(directory, csv, [module.slug for module in chosen], student)
    if as_json:
        click.echo(json.dumps([asdict(one) | _about(record) for one, record in kept.items()], indent=1))
        return
    if not scores:
        click.echo("No scores yet.\n  next:  tito nbgrader autograde")
    for module, found in scores.items():
        for table in score_tables(module.slug, found):
            _console().print(table)
        for one in found:
            record = kept[one]
            for line in _lines(record) if record else ():
                click.echo(visible(f"{one.student}: {line}"))
    if csv:
        click.echo(f"Totals: {csv}")


def _about(record: Record | None) -> dict[str, Any]:
    """What a script is told of how a submission was graded; of one that nbgrader itself graded nothing is known."""
    if record is None:
        return {}
    return {"problem": record.problem, "isolated": record.isolated, "findings": asdict(record.findings)}


def _lines(record: Record) -> Iterator[str]:
    if record.problem:
        yield f"not graded: {record.problem}"
    if not record.isolated:
        yield "not isolated"
    yield from record.findings.lines


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
            "stopped; what was done so far is kept", next_step="run the command again: it does the rest", status=130
        ) from None


def _modules(directory: Directory, names: Sequence[str]) -> list[Module]:
    return list(dict.fromkeys(directory.course.module(name) for name in names))


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
    with _bar(_console(stderr=True)) as bar:
        task = bar.add_task(what, total=len(work))
        for module, student in work:
            bar.update(task, description=visible(f"{what} {module.slug}, {student}"))
            yield module, student
            bar.advance(task)


@contextmanager
def _class_progress(total: int) -> Iterator[Callable[[str, str], None]]:
    """Call with a submission and what became of it: a bar and the time left on a terminal, a line each elsewhere."""
    console = _console(stderr=True)
    with _bar(console, disable=not console.is_terminal) as bar:
        task = bar.add_task("grading", total=total)

        def tell(who: str, what: str) -> None:
            bar.update(task, advance=1, description=who)
            if not console.is_terminal:
                click.echo(f"{bar.tasks[0].completed:.0f} of {total}: {who}: {what}", err=True)

        yield tell


def _bar(console: Console, *, disable: bool = False) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=disable)


def _show_graded(graded: Sequence[Graded], directory: Directory) -> None:
    for module in dict.fromkeys(one.module for one in graded):
        _console().print(_graded_table(module, [one for one in graded if one.module == module]))
    done = sum(not one.problem for one in graded)
    click.echo(f"{done} of {len(graded)} graded. Log: {directory.root / 'nbgrader.log'}")
    if any(one.fault for one in graded):
        click.echo("  next:  run the command again: it tries those again that failed by no fault of theirs")
    elif done:
        click.echo(f"  next:  tito nbgrader feedback {' '.join(dict.fromkeys(one.module[:2] for one in graded))}")


def _graded_table(module: str, graded: Sequence[Graded]) -> Table:
    from rich.table import Table

    table = Table(title=module, title_justify="left", caption=_isolation_note(graded), caption_justify="left")
    table.add_column("student", overflow="fold")
    for name in ("score", "repairs", "timeouts", "crashes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what happened", overflow="fold")
    for one in graded:
        found = one.findings
        score = "-" if one.problem else f"{one.score:g} of {one.max_score:g}"
        counts = [str(len(lines) or "") for lines in (found.repairs, found.timeouts, found.crashes)]
        notes = [f"not graded: {one.problem}"] if one.problem else []
        table.add_row(visible(one.student), score, *counts, visible("\n".join([*notes, *found.lines])))
    return table


def _isolation_note(graded: Sequence[Graded]) -> str:
    open_to = [one for one in graded if not one.isolated]
    if not open_to:
        return ""
    who = "all of them" if len(open_to) == len(graded) else visible(", ".join(one.student for one in open_to))
    return f"not isolated: {who}; their code ran without a sandbox, and could reach all that you can"


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
