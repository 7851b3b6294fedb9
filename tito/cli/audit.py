"""``tito audit``: do the graded cells of a module earn their points?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tito.course import Course, Module

if TYPE_CHECKING:
    from tito.audit.course import Progress, Report


@click.command()
@click.argument("modules", metavar="[NN]...", nargs=-1)
@click.option(
    "--lint",
    "lint_only",
    is_flag=True,
    help="Only look for graded cells that trust student code, and for wrong points and imports.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def audit(modules: tuple[str, ...], lint_only: bool, as_json: bool) -> int:
    """Try the graded cells of the modules (all, if none is named) on wrong solutions.

    Every graded cell must pass with the solution, and fail without it and for students who always give the same answer.
    Of the mutants of the solutions (copies with one small mistake each) a module's graded cells must notice 95 %; those
    that change nothing are listed in tests/equivalent_mutants.yaml. What was audited once is not tried again until the
    module, one before it or this tool changes.

    Graded cells are also watched with the solution: none may send an expected value into student code, or believe an
    object. What this lint misjudges is listed in tests/accepted_lint.yaml.

    \b
    Example: tito audit 12
    """
    from tito.audit.course import audit as examine

    course = Course.locate()
    chosen = [course.module(query) for query in modules] or list(course.modules)
    if lint_only:
        return _lint(course, chosen, as_json)
    reports = []
    for module in chosen:
        with _progress(module.slug, quiet=as_json) as progress:
            reports.append(examine(course, module, progress))
        if not as_json:
            _show(reports[-1])
    if as_json:
        click.echo(json.dumps([asdict(r) | {"score": r.score, "ok": r.ok} for r in reports], indent=2))
    return 0 if all(report.ok for report in reports) else 1


def _lint(course: Course, modules: list[Module], as_json: bool) -> int:
    from tito.audit.course import lint

    problems = {}
    for module in modules:
        problems[module.slug] = lint(course, module)
        if not as_json:
            for problem in problems[module.slug]:
                click.echo(f"{module.slug}: {problem}")
            count = len(problems[module.slug])
            click.echo(f"{module.slug}: {click.style(f'{count} problems', fg='red') if count else 'nothing found'}")
    if as_json:
        click.echo(json.dumps(problems, indent=2))
    return 1 if any(problems.values()) else 0


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(f"Auditing {what}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(report: Report) -> None:
    for survivor in report.survivors:
        click.echo(f"{report.module}: {survivor.exercise}, line {survivor.line} of the cell, {survivor.operator}:")
        click.echo(survivor.diff + "\n")
    for problem in report.problems:
        click.echo(f"{report.module}: {problem}")
    verdict = click.style("ok", fg="green") if report.ok else click.style("weak", fg="red")
    counts = f"{report.killed} mutants killed, {len(report.survivors)} survived, {report.equivalent} equivalent"
    problems = f", {len(report.problems)} problems" if report.problems else ""
    known = " (unchanged since the last audit)" if report.cached else ""
    click.echo(f"{report.module}: {verdict}, score {report.score:.1%}: {counts}{problems}{known}")
