"""``tito milestone``: the programs that retell the field's history on the student's own package."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import Any

import click

from tito.cli.show import new_console
from tito.course import Course
from tito.errors import TitoError
from tito.milestones.catalogue import Milestone, State, find, milestones, missing_data, ready_to_run, state
from tito.milestones.results import Result, read_result
from tito.progress import Progress, missing_prerequisite, read_progress

_STYLES: dict[State, str] = {
    "reached": "green",
    "missed": "yellow",
    "ready": "default",
    "no data": "cyan",
    "locked": "dim",
}


@click.group()
def milestone() -> None:
    """List and run the milestones: programs that retell the field's history on what you have built.

    NN is a milestone's number, its name or both.

    \b
    Example: tito milestone run 01
    """


@milestone.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the milestones as JSON.")
def list_milestones(as_json: bool) -> None:
    """List the milestones: which can be run, what the others wait for, and which goals were reached.

    \b
    Example: tito milestone list
             tito milestone list --json
    """
    course = Course.locate()
    progress = read_progress(course)
    results = {item: read_result(item.results) for item in milestones(course)}
    if as_json:
        found = [_as_json(course, item, progress, result) for item, result in results.items()]
        click.echo(json.dumps(found, indent=2))
    else:
        _print_table(course, progress, results)


def _print_table(course: Course, progress: Progress, results: dict[Milestone, Result | None]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "year", "milestone", "state"):
        table.add_column(name)
    for item, result in results.items():
        value = state(course, item, progress, result)
        told = Text(_described(course, item, progress, result), _STYLES[value])
        table.add_row(item.nn, str(item.year), Text(item.title, style="bold"), told)
        needs = f"needs {', '.join(f'{n:02d}' for n in item.prerequisites)}" if value == "locked" else ""
        table.add_row("", "", Text(item.about, style="dim"), Text(needs, style="dim"))
    console = new_console()
    console.print(table, soft_wrap=False)


def _described(course: Course, item: Milestone, progress: Progress, result: Result | None) -> str:
    """The state in a few words."""
    value = state(course, item, progress, result)
    if value == "reached" and result and result.reached_at:
        return f"reached, {datetime.fromisoformat(result.reached_at):%d %B %Y}"
    if value == "missed" and result:
        return f"goal missed, {datetime.fromisoformat(result.fields['at']):%d %B %Y}"
    if value == "no data":
        return f"needs data: tito data get {missing_data(item)}"
    if value == "locked":
        missing = missing_prerequisite(course, item, progress)
        return f"locked: complete {missing.nn} first" if missing else value
    return f"ready: tito milestone run {item.nn}"


def _as_json(course: Course, item: Milestone, progress: Progress, result: Result | None) -> dict[str, Any]:
    missing = missing_prerequisite(course, item, progress)
    return {
        "number": item.number,
        "year": item.year,
        "name": item.name,
        "title": item.title,
        "about": item.about,
        "prerequisites": list(item.prerequisites),
        "data": list(item.data),
        "state": state(course, item, progress, result),
        "waits_for": missing.slug if missing else None,
        "missing_data": missing_data(item) or None,
        "reached_at": result.reached_at if result else None,
        "program": str(item.program),
        "results": str(item.results),
        "result": result.fields if result else None,
    }


@milestone.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("nn", metavar="NN")
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def run(nn: str, arguments: tuple[str, ...]) -> None:
    """Run a milestone on your tinytorch; what stands after NN goes to its program.

    It is what `python` does with the program, which says what is missing, and whose exit status is 0 if its goals are
    met. `tito milestone run NN --help` shows the program's own options.

    \b
    Example: tito milestone run 02
             tito milestone run 03 --data mnist
    """
    course = Course.locate()
    item = find(course, nn)
    if not item.program.is_file():
        raise TitoError(
            f"the program of {item.slug} is missing",
            place=str(item.program),
            next_step="copy the folder milestones from the workspace you were given",
        )
    path = os.pathsep.join(filter(None, [str(course.root), os.environ.get("PYTHONPATH", "")]))
    os.execve(sys.executable, [sys.executable, str(item.program), *arguments], os.environ | {"PYTHONPATH": path})


def tell_milestone(course: Course, progress: Progress) -> None:
    """Name, in one line, a milestone that a student can run now and never has, if there is one."""
    item = ready_to_run(course, progress) if course.is_workspace else None
    if item:
        click.echo(f"Milestone: {item.title} ({item.year}) runs on what you have built: tito milestone run {item.nn}")
