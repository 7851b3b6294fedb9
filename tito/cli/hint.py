"""``tito module hint``."""

from __future__ import annotations

from dataclasses import replace

import click

from tito.atomic import write_atomically
from tito.cli.chosen import judged, unlocked
from tito.cli.show import new_console, print_indented
from tito.course import Course, Module
from tito.errors import TitoError
from tito.progress import dump_progress, only_one, progress_file, read_progress


@click.command()
@click.argument("nn", metavar="NN")
def hint(nn: str) -> None:
    """Give a hint for the first exercise whose test fails, and one more at each call.

    \b
    Example: tito module hint 02
    """
    from tito.hints import rungs
    from tito.repair import read_pristine
    from tito.source import read_notebook

    course, item = unlocked(nn)
    verdict = judged(course, item, stop_at_first_failure=True)
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
    console = new_console()
    console.print(failure.exercise, style="bold")
    print_indented(console, 0, f"{failure.problem}\n", "red")
    print_indented(console, 0, "\n\n".join(hints[:given]))
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
