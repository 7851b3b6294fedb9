"""``tito module``: a student's way through the course; and what plain ``tito`` shows."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tito.atomic import write_atomically
from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import (
    Progress,
    State,
    dump_progress,
    missing_prerequisite,
    only_one,
    progress_file,
    read_progress,
    require_prerequisites,
    state,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tito.judge import Failure, Verdict

_STYLES: dict[State, str] = {
    "complete": "green",
    "changed": "yellow",
    "started": "cyan",
    "ready": "default",
    "locked": "dim",
}


@click.group()
def module() -> None:
    """Work through the modules: list, start, test, hint, complete, reset.

    NN is a module's number, its name or both.

    \b
    Example: tito module test 02
    """


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)


def overview() -> None:
    """Show the progress and the next step."""
    course = Course.locate()
    progress = read_progress(course)
    states = {item: state(course, item, progress) for item in course.modules}
    done = sum(value == "complete" for value in states.values())
    console = _console()
    _print_bar(console, done, len(states), "complete" if course.is_workspace else "exported")
    _print_table(console, course, states, progress)
    console.print(f"\nNext: {_next_step(course, states)}")


def _print_bar(console: Console, done: int, total: int, word: str) -> None:
    from rich.progress_bar import ProgressBar

    console.print(f"TinyTorch: {done} of {total} modules {word}")
    console.print(ProgressBar(total=total, completed=done, width=min(60, console.width)))
    console.print()


def _print_table(console: Console, course: Course, states: dict[Module, State], progress: Progress) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("module", no_wrap=True)
    table.add_column("hours", justify="right")
    table.add_column("state")
    part = ""
    for item, value in states.items():
        if item.part != part:
            part = item.part
            table.add_row("", Text(part, style="bold"))
        table.add_row(
            item.nn, item.title, f"{item.hours:g}", Text(_described(course, item, value, progress), _STYLES[value])
        )
    console.print(table, soft_wrap=False)


def _described(course: Course, item: Module, value: State, progress: Progress) -> str:
    """The state in a few words."""
    record = progress.completed.get(item.slug)
    if value == "complete" and record:
        return f"complete, {datetime.fromisoformat(record.at):%d %B %Y}"
    if value == "changed":
        return f"{item.name}.py is not what was exported: complete it again"
    if value == "locked":
        missing = missing_prerequisite(course, item, progress)
        return f"locked: complete {missing.nn} first" if missing else value
    return value


def _next_step(course: Course, states: dict[Module, State]) -> str:
    if not course.is_workspace:
        return "tito export --check tells whether the package is what the sources make"
    for wanted, command in (("changed", "complete"), ("started", "test"), ("ready", "start")):
        for item, value in states.items():
            if value == wanted:
                return f"tito module {command} {item.nn}"
    return "every module is complete"


@module.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the modules as JSON.")
def list_modules(as_json: bool) -> None:
    """List the modules and how far you are.

    \b
    Example: tito module list
             tito module list --json
    """
    course = Course.locate()
    progress = read_progress(course)
    states = {item: state(course, item, progress) for item in course.modules}
    if as_json:
        click.echo(json.dumps([_as_json(course, item, value, progress) for item, value in states.items()], indent=2))
    else:
        _print_table(_console(), course, states, progress)


def _as_json(course: Course, item: Module, value: State, progress: Progress) -> dict[str, Any]:
    record = progress.completed.get(item.slug)
    missing = missing_prerequisite(course, item, progress)
    return {
        "number": item.number,
        "name": item.name,
        "title": item.title,
        "part": item.part,
        "hours": item.hours,
        "prerequisites": list(item.prerequisites),
        "exports": list(item.exports),
        "state": value,
        "completed_at": record.at if record else None,
        "waits_for": missing.slug if missing else None,
        "notebook": str(item.notebook if course.is_workspace else item.source),
        "package_file": str(course.exported(item)),
    }


def _named(query: str) -> tuple[Course, Module]:
    course = Course.locate()
    return course, course.module(query)


def _unlocked(query: str) -> tuple[Course, Module]:
    """The module, if everything that it needs is complete."""
    course, item = _named(query)
    require_prerequisites(course, item, read_progress(course))
    return course, item


@module.command()
@click.argument("nn", metavar="NN")
@click.option("--no-browser", is_flag=True, help="Say what to type instead of opening JupyterLab.")
def start(nn: str, no_browser: bool) -> None:
    """Open a module's notebook in JupyterLab.

    \b
    Example: tito module start 02
    """
    course, item = _unlocked(nn)
    if not course.is_workspace:
        click.echo(f"Edit {item.source}\nthen run: tito module test {item.nn}")
        return
    if not item.notebook.exists():
        with only_one(course, f"tito module start {item.nn}"):
            write_atomically(item.notebook, _fresh(item))
        click.echo(f"Put a fresh notebook at {item.notebook.relative_to(course.root)}")
    path = item.notebook.relative_to(course.root)
    command = [sys.executable, "-m", "jupyterlab"]
    if no_browser or not _has_display():
        shown = shlex.join([*command, "--no-browser", f"--LabApp.default_url=/lab/tree/{path}"])
        folder = shlex.quote(str(course.root))
        click.echo(f"To open {item.slug} in JupyterLab, type:\n\n  cd {folder} && {shown}\n")
        click.echo(f"and open the address that it prints. When you have saved your work: tito module test {item.nn}")
        return
    _open_jupyterlab(course, [*command, str(path)])


def _fresh(item: Module) -> bytes:
    """The released notebook's bytes, read as a notebook first so that nothing broken is handed out."""
    from tito.repair import read_pristine

    read_pristine(item)
    return item.pristine.read_bytes()


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_jupyterlab(course: Course, command: list[str]) -> None:
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise TitoError("JupyterLab is not installed here", place=sys.executable, next_step="tito doctor")
    click.echo("Opening JupyterLab; Ctrl-C here ends it.")
    os.chdir(course.root)
    os.execv(command[0], command)


@module.command()
@click.argument("nn", metavar="NN")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def test(nn: str, as_json: bool) -> int:
    """Run a module's notebook and tell which tests pass, and what to mend first.

    The notebook is run in a fresh kernel against your own earlier modules, as it was last saved; the file itself stays
    as it is. The exit status is 0 if every test passes.

    \b
    Example: tito module test 02
    """
    course, item = _unlocked(nn)
    verdict = _judged(course, item, quiet=as_json)
    if as_json:
        click.echo(json.dumps(_verdict_as_json(verdict), indent=2))
    else:
        _print_verdict(verdict)
        if verdict.passed:
            click.echo(f"\nNext: tito module complete {item.nn}")
    return 0 if verdict.passed else 1


def _judged(course: Course, item: Module, *, quiet: bool = False, stop_at_first_failure: bool = False) -> Verdict:
    from tito.judge import judge, notebook_to_judge

    notebook, repairs = notebook_to_judge(course, item)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with _cell_counter(item, cells, quiet) as count:
        return judge(
            course, item, notebook, repairs, stop_at_first_failure=stop_at_first_failure, on_cell=lambda _: count()
        )


@contextmanager
def _cell_counter(item: Module, cells: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar while a notebook runs, on a terminal only, gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("cells"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task(f"Running {item.slug}", total=cells)
        yield lambda: bar.advance(task)


def _verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    problems = {failure.failed: failure for failure in verdict.failures}
    return {
        "module": verdict.module.slug,
        "passed": verdict.passed,
        "points": verdict.points,
        "max_points": verdict.max_points,
        "seconds": round(verdict.seconds, 2),
        "tests": [
            {
                "test": cell.grade_id,
                "points": cell.points,
                "status": cell.status,
                "failure": asdict(problems[cell.grade_id]) if cell.grade_id in problems else None,
            }
            for cell in verdict.tests
        ],
        "repairs": list(verdict.repairs),
    }


def _print_verdict(verdict: Verdict) -> None:
    console = _console()
    passed = sum(cell.ok for cell in verdict.tests)
    console.print(
        f"{verdict.module.slug}: {passed} of {len(verdict.tests)} tests pass, "
        f"{verdict.points:g} of {verdict.max_points:g} points",
        style="bold",
    )
    problems = {failure.failed: failure.problem.split("\n")[0] for failure in verdict.failures}
    width = max((len(cell.grade_id) for cell in verdict.tests), default=0)
    for cell in verdict.tests:
        problem = problems.get(cell.grade_id)
        line = f"  {cell.grade_id:{width}} {cell.points:4g}  {problem or 'pass'}"
        console.print(line[: console.width], style="red" if problem else "green")
    for repair in verdict.repairs:
        console.print(f"note: {repair}", style="yellow")
    if verdict.failures:
        _print_failure(console, verdict.module, verdict.failures[0])


def _print_failure(console: Console, item: Module, failure: Failure) -> None:
    """The first thing to mend: what is wrong, the line, the likely cause, the next step."""
    console.print(f"\nFirst to mend: {failure.failed}", style="bold")
    _print_indented(console, 2, failure.problem, "red")
    where = f", line {failure.line_number}" if failure.line_number else ""
    console.print(f"  where: the cell {failure.cell}{where}")
    if failure.line:
        console.print(" " * 11 + failure.line.strip()[: console.width - 11], style="cyan")
    if failure.cause:
        _print_indented(console, 2, f"cause: likely {failure.cause}")
    doing = "write" if failure.unwritten else "mend"
    what = f"the cell {failure.exercise or failure.cell}"
    what = f"{failure.function} in {what}" if failure.function else what
    console.print(f"  next:  {doing} {what}, save, then: tito module test {item.nn}")
    console.print(f"         for a hint: tito module hint {item.nn}")


def _print_indented(console: Console, columns: int, text: str, style: str = "") -> None:
    """Print ``text`` indented, its long lines wrapped at words."""
    for line in text.split("\n"):
        first = " " * columns
        rest = first + " " * (len(line) - len(line.lstrip()))
        wrapped = textwrap.wrap(
            line,
            console.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print("\n".join(wrapped), style=style)


@module.command()
@click.argument("nn", metavar="NN")
def hint(nn: str) -> None:
    """Give a hint for the first exercise whose test fails, and one more at each call.

    \b
    Example: tito module hint 02
    """
    from tito.hints import rungs
    from tito.repair import read_pristine
    from tito.source import read_notebook

    course, item = _unlocked(nn)
    verdict = _judged(course, item, stop_at_first_failure=True)
    if verdict.passed:
        click.echo(
            f"Every test of {item.slug} passes; there is nothing to hint at.\nNext: tito module complete {item.nn}"
        )
        return
    failure = verdict.failures[0]
    original = read_pristine(item) if course.is_workspace else read_notebook(item)
    hints = rungs(original, failure.exercise, failure.function)
    if not hints:
        raise TitoError(
            f"there is no hint for {failure.exercise or failure.failed}", next_step=f"tito module test {item.nn}"
        )
    given = _count_hint(course, item, failure.exercise, len(hints)) if course.is_workspace else len(hints)
    console = _console()
    console.print(failure.exercise, style="bold")
    _print_indented(console, 0, f"{failure.problem}\n", "red")
    _print_indented(console, 0, "\n\n".join(hints[:given]))
    more = f"for more: tito module hint {item.nn}" if given < len(hints) else "that is every hint there is"
    console.print(f"\nNext: try it, save, then: tito module test {item.nn}   ({more})")


def _count_hint(course: Course, item: Module, exercise: str, most: int) -> int:
    """How many hints to show now: one more than last time."""
    with only_one(course, f"tito module hint {item.nn}"):
        progress = read_progress(course)
        given = min(progress.hints.get(exercise, 0) + 1, most)
        if progress.hints.get(exercise) != given:
            hints = {**progress.hints, exercise: given}
            write_atomically(progress_file(course), dump_progress(course, replace(progress, hints=hints)))
    return given


@module.command()
@click.argument("nn", metavar="NN")
def complete(nn: str) -> int:
    """Judge a module, and if everything passes put it into your tinytorch package.

    All or nothing: the notebook's tests, then the module's tests in tests/modules, then the export. If anything fails
    or is stopped, package, notebook and progress stay as they were.

    \b
    Example: tito module complete 02
    """
    course, item = _unlocked(nn)
    with only_one(course, f"tito module complete {item.nn}"):
        before = read_progress(course)
        verdict = _judged(course, item)
        if not verdict.passed:
            _print_verdict(verdict)
            click.echo("\nNothing was exported.")
            return 1
        changed = _accepted(course, verdict)
    _print_verdict(verdict)
    path = course.exported(item).relative_to(course.root)
    click.echo(f"\n{item.slug} is complete. " + (f"Exported to {path}:" if changed else f"{path} is as it was:"))
    click.echo(f"  from {item.import_name} import {', '.join(item.exports)}")
    _tell_what_unlocked(course, before)
    return 0


def _accepted(course: Course, verdict: Verdict) -> bool:
    from tito.complete import accept, candidate, check_candidate

    text = candidate(course, verdict)
    check_candidate(course, verdict.module, text)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on there is only writing, and it should not be halved
    return accept(course, verdict.module, text)


def _tell_what_unlocked(course: Course, before: Progress) -> None:
    after = read_progress(course)
    states = {item: state(course, item, after) for item in course.modules}
    unlocked = [
        item.slug for item, value in states.items() if value != "locked" and state(course, item, before) == "locked"
    ]
    if unlocked:
        click.echo(f"Unlocked: {', '.join(unlocked)}")
    click.echo(f"\nNext: {_next_step(course, states)}")


@module.command()
@click.argument("nn", metavar="NN")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(nn: str, yes: bool) -> None:
    """Put a fresh notebook there; the old one is kept beside it as a dated backup.

    \b
    Example: tito module reset 02
    """
    course, item = _named(nn)
    if not course.is_workspace:
        raise TitoError(
            "only a student's workspace has notebooks to reset; here the source is the only copy",
            place=str(item.source),
            next_step=f"to undo your edits, use git: git checkout -p {item.source.relative_to(course.root)}",
        )
    fresh = _fresh(item)
    if item.notebook.is_file() and item.notebook.read_bytes() == fresh:
        click.echo(f"{item.notebook.relative_to(course.root)} is as it was released; there is nothing to reset.")
        return
    if not yes:
        click.confirm(f"Replace {item.notebook.name} by a fresh one? Yours is kept as a backup.", abort=True)
    with only_one(course, f"tito module reset {item.nn}"):
        backup = _back_up(item)
        write_atomically(item.notebook, fresh)
    click.echo(f"Fresh notebook: {item.notebook.relative_to(course.root)}")
    if backup:
        click.echo(f"Yours is kept:  {backup.relative_to(course.root)}")
    click.echo("If it is open in JupyterLab: File > Reload Notebook from Disk.")
    if course.exported(item).is_file():
        click.echo(
            f"What you exported, {course.exported(item).relative_to(course.root)}, stays until you complete it again."
        )
    click.echo(f"\nNext: tito module start {item.nn}")


def _back_up(item: Module) -> Path | None:
    """Copy the notebook to a dated file that was not there, and return its path; None if there is no notebook."""
    if not item.notebook.is_file():
        return None
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    names = (f"{item.name}.backup-{stamp}{suffix}.ipynb" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    backup = next(path for path in map(item.folder.joinpath, names) if not path.exists())
    write_atomically(backup, item.notebook.read_bytes())
    return backup
