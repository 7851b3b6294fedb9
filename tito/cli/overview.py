"""Plain ``tito`` and ``tito module list``: how far the student is, and the next step."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tito.cli.milestone import tell_milestone
from tito.cli.show import new_console
from tito.course import Course, Module
from tito.progress import Progress, State, missing_prerequisite, read_progress, state

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: dict[State, str] = {
    "complete": "green",
    "changed": "yellow",
    "started": "cyan",
    "ready": "default",
    "locked": "dim",
}

# what to do next with a module, by its state; the most urgent first
_NEXT: dict[State, str] = {"changed": "complete", "started": "test", "ready": "start"}


def overview() -> None:
    """Show the progress and the next step."""
    course = Course.locate()
    progress = read_progress(course)
    states = {item: state(course, item, progress) for item in course.modules}
    done = sum(value == "complete" for value in states.values())
    console = new_console()
    _print_bar(console, done, len(states), "complete" if course.is_workspace else "exported")
    _print_table(console, course, states, progress)
    console.print(f"\nNext: {next_step(course, states)}")
    tell_milestone(course, progress)


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


def next_step(course: Course, states: dict[Module, State]) -> str:
    if not course.is_workspace:
        return "tito export --check tells whether the package is what the sources make"
    item = next_module(states)
    return f"tito module {_NEXT[states[item]]} {item.nn}" if item else "every module is complete"


def next_module(states: dict[Module, State]) -> Module | None:
    """The module to work at now; None if every one is complete."""
    return next((item for wanted in _NEXT for item, value in states.items() if value == wanted), None)


@click.command("list")
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
        _print_table(new_console(), course, states, progress)


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
