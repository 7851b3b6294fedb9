"""``tito module``: a student's way through the course."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tito.atomic import write_atomically
from tito.cli.chosen import judged, named, unlocked
from tito.cli.hint import hint
from tito.cli.milestone import tell_milestone
from tito.cli.overview import list_modules, next_step
from tito.cli.show import print_verdict, verdict_as_json
from tito.cli.solution import solution
from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import Progress, only_one, read_progress, state
from tito.solutions import pack_of

if TYPE_CHECKING:
    from tito.judge import Verdict


@click.group()
def module() -> None:
    """Work through the modules: list, start, test, hint, complete, solution, reset.

    NN is a module's number, its name or both.

    \b
    Example: tito module test 02
    """


module.add_command(list_modules)
module.add_command(hint)
module.add_command(solution)


@module.command()
@click.argument("nn", metavar="NN")
@click.option("--no-browser", is_flag=True, help="Say what to type instead of opening JupyterLab.")
def start(nn: str, no_browser: bool) -> None:
    """Open a module's notebook in JupyterLab.

    \b
    Example: tito module start 02
    """
    course, item = unlocked(nn)
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
    course, item = unlocked(nn)
    verdict = judged(course, item, quiet=as_json)
    if as_json:
        click.echo(json.dumps(verdict_as_json(verdict), indent=2))
    else:
        print_verdict(verdict)
        if verdict.passed:
            click.echo(f"\nNext: tito module complete {item.nn}")
    return 0 if verdict.passed else 1


@module.command()
@click.argument("nn", metavar="NN")
def complete(nn: str) -> int:
    """Judge a module, and if everything passes put it into your tinytorch package.

    All or nothing: the notebook's tests, then the module's tests in tests/modules, then the export. If anything fails
    or is stopped, package, notebook and progress stay as they were.

    \b
    Example: tito module complete 02
    """
    course, item = unlocked(nn)
    with only_one(course, f"tito module complete {item.nn}"):
        before = read_progress(course)
        verdict = judged(course, item)
        if not verdict.passed:
            print_verdict(verdict)
            click.echo("\nNothing was exported.")
            return 1
        changed = _accepted(course, verdict)
    print_verdict(verdict)
    path = course.exported(item).relative_to(course.root)
    click.echo(f"\n{item.slug} is complete. " + (f"Exported to {path}:" if changed else f"{path} is as it was:"))
    click.echo(f"  from {item.import_name} import {', '.join(item.exports)}")
    if pack_of(course).is_file():
        click.echo(f"To compare it with ours: tito module solution {item.nn}")
    _tell_what_unlocked(course, before)
    return 0


def _accepted(course: Course, verdict: Verdict) -> bool:
    from tito.complete import accept, candidate, check_candidate

    text = candidate(course, verdict)
    check_candidate(course, verdict.module, text)
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # from here on there is only writing, and it should not be halved
    return accept(course, verdict.module, text)


def _tell_what_unlocked(course: Course, before: Progress) -> None:
    after = read_progress(course)
    states = {item: state(course, item, after) for item in course.modules}
    unlocked = [
        item.slug for item, value in states.items() if value != "locked" and state(course, item, before) == "locked"
    ]
    if unlocked:
        click.echo(f"Unlocked: {', '.join(unlocked)}")
    click.echo(f"\nNext: {next_step(course, states)}")
    tell_milestone(course, after)


@module.command()
@click.argument("nn", metavar="NN")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(nn: str, yes: bool) -> None:
    """Put a fresh notebook there; the old one is kept beside it as a dated backup.

    \b
    Example: tito module reset 02
    """
    course, item = named(nn)
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
