"""``tito export`` and ``tito release``: what authors and instructors make from the sources."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tito.course import Course, Module
from tito.errors import TitoError

if TYPE_CHECKING:
    from tito.export import Difference


def _shown(path: Path) -> str:
    """``path`` as it is shortest to type from the current folder."""
    return min(str(path), os.path.relpath(path), key=len)


@click.command()
@click.argument("modules", metavar="[NN]...", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; status 1 if a file is stale or a source not right.")
def export(modules: tuple[str, ...], check: bool) -> None:
    """Generate tinytorch/core from the modules' sources (all modules, if none is named).

    \b
    Example: tito export 12
             tito export --check
    """
    from tito.export import differences
    from tito.export import export as write

    course = Course.locate()
    chosen = [course.module(query) for query in modules] or list(course.modules)
    if check:
        found = differences(course, chosen)
        if found:
            names = [f"  {difference.kind}: {_shown(difference.path)}" for difference in found]
            raise TitoError("\n".join(["the package is not what the sources make", *names]), next_step=_remedy(found))
        wrong = _wrong_in(course, chosen)
        if wrong:
            lines = ["the package is up to date, but its sources are not right", *(f"  {line}" for line in wrong)]
            raise TitoError("\n".join(lines), next_step="mend the sources; see CONTRIBUTING.md, 'The cells'")
        click.echo(f"Up to date: {', '.join(module.slug for module in chosen)}")
        return
    written = write(course, chosen)
    for path in written:
        click.echo(f"Wrote {_shown(path)}")
    if not written:
        click.echo("Nothing to write: the package is up to date.")
    for line in _wrong_in(course, chosen):
        click.secho(f"note: {line}", fg="yellow", err=True)


def _wrong_in(course: Course, modules: list[Module]) -> list[str]:
    """What is wrong in the sources, though they can be exported."""
    from tito.rules import broken_rules
    from tito.source import read_notebook

    return [
        f"{module.slug}: {problem}"
        for module in modules
        for problem in broken_rules(course, module, read_notebook(module))
    ]


def _remedy(found: list[Difference]) -> str:
    orphans = " ".join(_shown(difference.path) for difference in found if difference.kind == "orphaned")
    steps = ["run: tito export"] if any(difference.kind != "orphaned" for difference in found) else []
    return " and ".join([*steps, *([f"delete {orphans}, which no module makes"] if orphans else [])])


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--self-study", is_flag=True, help="Pack the solutions into it: for one who learns alone, not for a class."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def release(folder: Path, self_study: bool, as_json: bool) -> None:
    """Write a workspace for students to DIR: notebooks without solutions, an empty package, this tool.

    With --self-study, `tito module solution NN` shows the solutions of a module that is complete.

    \b
    Example: tito release ~/class
             tito release ~/tinytorch --self-study
    """
    from tito.release import write_release

    course = Course.locate()
    root = write_release(course, folder, self_study=self_study)
    slugs = [module.slug for module in course.modules]
    if as_json:
        click.echo(json.dumps({"workspace": str(root), "modules": slugs}))
        return
    click.echo(f"Wrote a workspace with {len(slugs)} modules to {root}")
    click.echo(f"  {', '.join(slugs)}")
    if self_study:
        click.echo("The solutions are packed into .tito/solutions.zip, so it is not for a class that is graded.")
        click.echo("Besides, it holds no solution, hidden test or mark scheme: every line was checked.")
        click.echo("Next: its README.md tells how to begin.")
        return
    click.echo("It holds no solution, hidden test or mark scheme: every line was checked.")
    click.echo("Next: give students a copy of the folder; its README.md tells them how to begin.")
