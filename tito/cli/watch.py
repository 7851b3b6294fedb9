"""``tito watch``: a module tested at every save of its notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tito.cli.chosen import unlocked
from tito.cli.fullscreen import FullScreen
from tito.cli.hint import print_rungs
from tito.cli.overview import next_module
from tito.cli.show import new_console, print_indented, print_problem, print_repairs, print_tests, summary, to_do
from tito.course import Course, Module
from tito.errors import TitoError
from tito.hints import Hint, helps, next_hint
from tito.progress import read_progress, state

if TYPE_CHECKING:
    from rich.console import Console

    from tito.judge import Failure
    from tito.watch import Run, View

    Print = Callable[[Console], object]

_BAR = 60  # columns, if there are as many


@click.command()
@click.argument("nn", metavar="[NN]", required=False)
def watch(nn: str | None) -> None:
    """Test a module at every save of its notebook, and show what to mend first.

    Without NN it is the module that plain `tito` names as the next step. The notebook is run in a fresh kernel each
    time, as by `tito module test`. Keys: h gives a hint, and a bigger one each time; l lists the tests; q quits.

    \b
    Example: tito watch 02
             tito watch
    """
    course, item = unlocked(nn or _next(Course.locate()))
    if not FullScreen.is_possible():
        _follow(course, item, _Lines(item))
        return
    with FullScreen() as terminal:
        screen = _Screen(course, item, terminal)
        with suppress(EOFError):
            screen.tick()
            _follow(course, item, screen)
    if screen.run:
        click.echo(summary(screen.run.verdict))


def _next(course: Course) -> str:
    """What to type for the module that comes next."""
    if not course.is_workspace:
        raise TitoError("here no module is the next one", next_step="name the one to watch: tito watch NN", status=2)
    progress = read_progress(course)
    item = next_module({item: state(course, item, progress) for item in course.modules})
    if item is None:
        raise TitoError("every module is complete", next_step="name the one to watch: tito watch NN")
    return item.nn


def _follow(course: Course, item: Module, view: View) -> None:
    from tito.watch import Watch

    asyncio.run(Watch(course, item, view).follow())


class _Screen:
    """The whole terminal: what is tested, the first failing cell, hints or the list of tests, and the keys."""

    def __init__(self, course: Course, item: Module, terminal: FullScreen) -> None:
        self.course = course
        self.item = item
        self.terminal = terminal
        self.run: Run | None = None
        self.problem: TitoError | None = None
        self.hint: Hint | None = None
        self.lists = False
        self.note = f"reading the notebook of {item.slug}"
        self.drawn: tuple[int, int] | None = None  # the size that was drawn; None if it is out of date

    def begins(self, run: Run) -> None:
        self.run, self.problem, self.hint = run, None, None
        self._draw()

    def goes_on(self, run: Run) -> None:
        if run.verdict.failures:
            self.drawn = None

    def ends(self, run: Run) -> None:
        self.note = f"{_clock()}  the run took {run.seconds:.1f} s"
        self._draw()

    def nothing_new(self) -> None:
        self.note = f"{_clock()}  saved, nothing new"
        self._draw()

    def trouble(self, problem: TitoError) -> None:
        self.run, self.problem, self.hint = None, problem, None
        self.note = f"{_clock()}  waiting for the next save"
        self._draw()

    def tick(self) -> None:
        """Do what the keys say, and draw what has changed.

        Raises
        ------
        EOFError
            If q was pressed or the terminal is gone.
        """
        for key in self.terminal.keys().lower():
            self._press(key)
        if self.drawn != self.terminal.size() or self.terminal.is_blank or self._is_running():
            self._draw()

    def _press(self, key: str) -> None:
        match key:
            case "q":
                raise EOFError
            case "l":
                self.lists = not self.lists
            case "h":
                self._give_hint()
                self.lists = False
            case _:
                return
        self.drawn = None

    def _give_hint(self) -> None:
        failure = self._failure()
        if failure is None:
            self.note = "there is nothing to hint at"
        elif not helps(failure):
            self.note = "no hint: the message above says what there is to know"
        else:
            try:
                self.hint = next_hint(self.course, self.item, failure)
            except TitoError as problem:
                self.note = str(problem)
            else:
                self.note = self.note if self.hint and self.hint.is_new else "that is every hint there is"

    def _failure(self) -> Failure | None:
        return self.run.verdict.failures[0] if self.run and self.run.verdict.failures else None

    def _is_running(self) -> bool:
        return self.run is not None and self.run.end is None

    def _draw(self) -> None:
        self.drawn = columns, rows = self.terminal.size()
        head = _rendered(columns, self._print_head)
        foot = _rendered(columns, self._print_foot)
        body = self._body(columns, rows - len(head) - len(foot))
        gap = [""] * (rows - len(head) - len(body) - len(foot))
        self.terminal.draw([*head, *body, *gap, *foot][-rows:])

    def _body(self, columns: int, room: int) -> list[str]:
        """At most ``room`` lines; where that is too few, the end of the hints is worth more than their beginning."""
        if self.lists:
            return _cut(_rendered(columns, self._print_tests), room)
        first = _rendered(columns, self._print_first)
        hint = _rendered(columns, self._print_hint) if self.hint else []
        hint = _cut(hint[::-1], max(room - len(first), room // 2))[::-1]
        return _cut(first, room - len(hint)) + hint

    def _print_head(self, console: Console) -> None:
        from rich.progress_bar import ProgressBar

        if self.run is None:
            console.print(self.item.slug, style="bold")
            return
        tests = self.run.verdict.tests
        console.print(summary(self.run.verdict), style="bold")
        passed = sum(test.ok for test in tests)
        console.print(
            ProgressBar(total=len(tests), completed=passed, width=min(_BAR, console.width), complete_style="green")
        )

    def _print_first(self, console: Console) -> None:
        if self.problem:
            console.print()
            print_indented(console, 0, str(self.problem), "red")
        if self.run:
            _print_first(console, self.run)

    def _print_hint(self, console: Console) -> None:
        if self.hint:
            print_rungs(console, self.hint)

    def _print_tests(self, console: Console) -> None:
        if self.run:
            console.print()
            print_tests(console, self.run.verdict)
            print_repairs(console, self.run.verdict)

    def _print_foot(self, console: Console) -> None:
        from rich.text import Text

        note = self.note
        if self.run and self._is_running():
            note = f"running cell {len(self.run.cells) + 1} of {self.run.total}, {self.run.seconds:.1f} s"
        console.print()
        console.print(note, style="dim")
        keys = {"h": "hint", "l": "back" if self.lists else "list", "q": "quit"}
        console.print(Text("   ").join(Text.assemble((key, "bold"), f" {does}") for key, does in keys.items()))


class _Lines:
    """Plain lines, for a pipe or a file: a block for each run."""

    def __init__(self, item: Module) -> None:
        self.item = item
        self.console = new_console()

    def begins(self, run: Run) -> None:
        self._say(f"testing {self.item.slug}")

    def goes_on(self, run: Run) -> None:
        pass

    def ends(self, run: Run) -> None:
        self.console.print(summary(run.verdict), style="bold")
        print_tests(self.console, run.verdict)
        _print_first(self.console, run)
        click.echo()

    def nothing_new(self) -> None:
        self._say("saved, nothing new")

    def trouble(self, problem: TitoError) -> None:
        self._say(f"{problem}\n")

    def tick(self) -> None:
        pass

    def _say(self, text: str) -> None:
        click.echo(f"{_clock()}  {text}")


def _print_first(console: Console, run: Run) -> None:
    """What to do now: mend the first failing cell, as soon as it is known, or complete the module."""
    if run.verdict.failures:
        failure = run.verdict.failures[0]
        print_problem(console, failure)
        print_indented(console, 2, f"next:  {to_do(failure)}, and save", hang=7)
    elif run.end:
        console.print("\nEvery test passes.", style="green")
        console.print(f"  next:  tito module complete {run.module.nn}")
    print_repairs(console, run.verdict)


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"


def _rendered(columns: int, prints: Print) -> list[str]:
    """The lines that ``prints`` prints on a terminal of that width."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=columns, highlight=False, markup=False)
    with console.capture() as printed:
        prints(console)
    with console.capture() as captured:
        for line in Text.from_ansi(printed.get()).split():
            console.print(line, soft_wrap=True)  # so that no colour goes on from one line into the next
    return captured.get().removesuffix("\n").split("\n")


def _cut(lines: list[str], room: int) -> list[str]:
    """As many of ``lines`` as there is room for, and in place of the others one that says so."""
    if len(lines) <= room:
        return lines
    kept = max(room - 1, 0)
    return [*lines[:kept], f"... {len(lines) - kept} more lines"]
