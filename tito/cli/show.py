"""What the student's commands print: a notebook's verdict, the first thing to mend, a bar while cells run."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tito.course import Module
from tito.hints import helps
from tito.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console

    from tito.judge import Failure, Verdict


def new_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def cell_counter(item: Module, cells: int, quiet: bool) -> Iterator[Callable[[], None]]:
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


def print_verdict(verdict: Verdict) -> None:
    console = new_console()
    console.print(summary(verdict), style="bold")
    print_tests(console, verdict)
    print_repairs(console, verdict)
    if verdict.failures:
        print_failure(console, verdict.module, verdict.failures[0])


def summary(verdict: Verdict) -> str:
    """How many tests pass, and their points, in a line."""
    passed = sum(cell.ok for cell in verdict.tests)
    return (
        f"{verdict.module.slug}: {passed} of {len(verdict.tests)} tests pass, "
        f"{verdict.points:g} of {verdict.max_points:g} points"
    )


def print_tests(console: Console, verdict: Verdict) -> None:
    """Each test with its points, and the first line of what is wrong with it."""
    problems = {failure.failed: visible(failure.problem.split("\n")[0]) for failure in verdict.failures}
    width = max((len(cell.grade_id) for cell in verdict.tests), default=0)
    for cell in verdict.tests:
        problem = problems.get(cell.grade_id)
        outcome, style = (problem, "red") if problem else ("pass", "green") if cell.ok else ("not run yet", "dim")
        console.print(f"  {cell.grade_id:{width}} {cell.points:4g}  {outcome}"[: console.width], style=style)


def print_repairs(console: Console, verdict: Verdict) -> None:
    """What was put right in the notebook before it ran."""
    for repair in verdict.repairs:
        print_indented(console, 0, f"note: {repair}", "yellow", hang=6)


def print_failure(console: Console, item: Module, failure: Failure) -> None:
    """The first thing to mend: what is wrong, the line, the likely cause, the next step."""
    print_problem(console, failure)
    console.print(f"  next:  {to_do(failure)}, save, then: tito module test {item.nn}")
    if helps(failure):
        console.print(f"         for a hint: tito module hint {item.nn}")


def print_problem(console: Console, failure: Failure) -> None:
    """What is wrong, the line, the likely cause."""
    console.print(f"\nFirst to mend: {failure.failed}", style="bold")
    print_indented(console, 2, failure.problem, "red")
    where = f", line {failure.line_number}" if failure.line_number else ""
    print_indented(console, 2, f"where: the cell {failure.cell}{where}", hang=7)
    if failure.line:
        console.print(" " * 11 + visible(failure.line.strip())[: console.width - 11], style="cyan")
    if failure.cause:
        print_indented(console, 2, f"cause: likely {failure.cause}", hang=7)


def to_do(failure: Failure) -> str:
    """What to do about it, in a few words."""
    doing = "write" if failure.unwritten else "mend"
    what = f"the cell {failure.exercise or failure.cell}"
    what = f"{failure.function} in {what}" if failure.function else what
    return f"{doing} {what}"


def print_indented(console: Console, columns: int, text: str, style: str = "", *, hang: int = 0) -> None:
    """Print ``text`` indented, its long lines wrapped at words; what is wrapped stands ``hang`` columns further in."""
    for line in visible(text.expandtabs()).split("\n"):
        first = " " * columns
        rest = first + " " * (len(line) - len(line.lstrip()) + hang)
        wrapped = textwrap.wrap(
            line,
            console.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print("\n".join(wrapped), style=style)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
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
