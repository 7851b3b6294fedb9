"""``tito module solution``."""

from __future__ import annotations

from difflib import get_close_matches, unified_diff
from typing import TYPE_CHECKING

import click

from tito.cli.chosen import named
from tito.cli.show import new_console, print_indented
from tito.errors import TitoError
from tito.terminal import visible

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from rich.console import Console

    from tito.solutions import Answer, Solutions

_STYLES = {"-": "red", "+": "green", "@": "cyan"}


@click.command()
@click.argument("nn", metavar="NN")
@click.option("--exercise", metavar="ID", help="Show this exercise, or the answer to this question, alone.")
def solution(nn: str, exercise: str | None) -> None:
    """Show how our solutions of a module that you completed differ from yours.

    There are solutions in a workspace that was made by `tito release DIR --self-study`.

    \b
    Example: tito module solution 02
             tito module solution 02 --exercise tensor-reshape
    """
    from tito.repair import read_own_notebook
    from tito.solutions import read_solutions, require_solutions

    course, item = named(nn)
    require_solutions(course, item)
    own, repairs = read_own_notebook(course, item)
    solutions = read_solutions(course, item)
    chosen = _chosen(solutions, exercise, item.slug)
    console = new_console()
    with console.capture() as page:
        for repair in repairs:
            console.print(f"note: {visible(repair)}", style="yellow")
        _print_entries(console, chosen, own, solutions)
    click.echo_via_pager(page.get().rstrip())


def _chosen(solutions: Solutions, exercise: str | None, slug: str) -> list[str]:
    """The exercises, then the questions, or the one that is asked for."""
    known = [*solutions.exercises, *solutions.answers]
    if exercise is None:
        return known
    if exercise in known:
        return [exercise]
    near = get_close_matches(exercise, known, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise TitoError(f"{slug} has no exercise {exercise!r}", next_step=f"{meant}it has: {', '.join(known)}")


def _print_entries(console: Console, names: list[str], own: NotebookNode, solutions: Solutions) -> None:
    written = {cell.id: cell.source for cell in own.cells}
    for place, name in enumerate(names):
        if place:
            console.print()
        if name in solutions.exercises:
            _print_diff(console, name, written[name], solutions.exercises[name])
        else:
            _print_answer(console, name, written.get(f"{name}-question", ""), written[name], solutions.answers[name])


def _print_diff(console: Console, name: str, own: str, ours: str) -> None:
    before, after = _lines(own), _lines(ours)
    if before == after:
        console.print(f"{name}: yours is the same as ours", style="bold")
    for line in unified_diff(before, after, f"{name}, yours", f"{name}, ours", lineterm=""):
        console.print(line, style=_STYLES.get(line[0], ""))


def _lines(source: str) -> list[str]:
    """The lines as they can be shown, without spaces and empty lines that nobody sees."""
    return [visible(line.expandtabs(4).rstrip()) for line in source.strip("\n").split("\n")]


def _print_answer(console: Console, name: str, question: str, own: str, answer: Answer) -> None:
    console.print(name, style="bold")
    _print_markdown(console, question)
    console.print("\n  yours:", style="red")
    print_indented(console, 4, "\n".join(_lines(own)))
    console.print("\n  ours:", style="green")
    _print_markdown(console, answer.text)
    if answer.scheme:
        console.print("\n  earns points by:", style="cyan")
        _print_markdown(console, answer.scheme)


def _print_markdown(console: Console, text: str) -> None:
    """Print our own text, set as a page; a student's could bring signs that a terminal obeys, as ``&#27;``."""
    from rich.markdown import Markdown
    from rich.padding import Padding

    console.print(Padding(Markdown(text, hyperlinks=False), (0, 0, 0, 4)), soft_wrap=False)
