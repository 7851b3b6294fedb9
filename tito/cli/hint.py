"""``tito module hint``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tito.cli.chosen import judged, unlocked
from tito.cli.show import new_console, print_failure, print_indented
from tito.hints import RUNGS, Hint, next_hint

if TYPE_CHECKING:
    from rich.console import Console

    from tito.judge import Failure


@click.command()
@click.argument("nn", metavar="NN")
def hint(nn: str) -> int:
    """Give a hint for the first exercise whose test fails, and one more at each call.

    There are three for each: a question, the method, and near-code with blanks.

    \b
    Example: tito module hint 02
    """
    course, item = unlocked(nn)
    verdict = judged(course, item, stop_at_first_failure=True)
    if verdict.passed:
        click.echo(
            f"Every test of {item.slug} passes; there is nothing to hint at.\nNext: tito module complete {item.nn}"
        )
        return 0
    console = new_console()
    failure = verdict.failures[0]
    climbed = next_hint(course, item, failure)
    if climbed is None:
        print_failure(console, item, failure)
        return 1
    print_hint(console, failure, climbed)
    print_indented(console, 0, f"\nNext: {_next_step(item.nn, climbed)}")
    return 0


def print_hint(console: Console, failure: Failure, climbed: Hint) -> None:
    """What is wrong, and the rungs so far."""
    console.print(" in the cell ".join(filter(None, [climbed.function, climbed.exercise])), style="bold")
    print_indented(console, 0, failure.problem, "red")
    print_rungs(console, climbed)


def print_rungs(console: Console, climbed: Hint) -> None:
    """The rungs so far, each with its name."""
    for number, rung in enumerate(climbed.rungs, start=1):
        console.print(f"\n{number} of {len(RUNGS)}: {RUNGS[rung.name]}", style="bold")
        if rung.name == "code":
            console.print("\n".join(f"  {line}".rstrip() for line in rung.text.split("\n")), style="cyan")
        else:
            print_indented(console, 2, rung.text)


def _next_step(nn: str, climbed: Hint) -> str:
    if climbed.is_all and not climbed.is_new:
        return (
            "that is every hint there is. Run the EXAMPLE of the docstring in a cell of your own, line by line, and "
            f"print what each gives.\n      Then: tito module test {nn}"
        )
    more = "this was the last hint" if climbed.is_all else f"for more: tito module hint {nn}"
    return f"try it, save, then: tito module test {nn}\n      {more}"
