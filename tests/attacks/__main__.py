"""``python -m tests.attacks [NAME ...]``: try the corpus, or some of it, on a class, and tell what came of it."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.attacks import grading

_AT_ONCE = 12  # entries in one run of nbgrader


@click.command()
@click.argument("names", nargs=-1)
@click.option("--stock", is_flag=True, help="Grade by nbgrader as it comes, and compare with what is noted.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Work in this folder, which must not exist, and leave it."
)
@click.option("--jobs", default=2)
def main(names: tuple[str, ...], stock: bool, keep: Path | None, jobs: int) -> None:
    """Grade a class of the attacks and accidents NAME (an entry or a family; by default all)."""
    chosen = grading.select(names)
    with tempfile.TemporaryDirectory() as folder:
        root = keep or Path(folder) / "attacks"
        course = grading.make_tree(root / "author")
        directory = grading.make_class(course, root / "grading", chosen)
        if stock:
            _stock(directory, chosen, root / "stock", jobs)
        else:
            run = grading.grade_class(directory)
            grading.give_time(run, chosen)
            _report(course, run, chosen)


def _report(course: grading.Course, run: grading.ClassRun, chosen: list[grading.Entry]) -> None:
    honest = grading.honest_entries(course, run)
    tried = [*chosen, *honest]
    verdicts = [
        grading.judge(entry, course, run.earned.get((course.module(entry.nn).slug, entry.name))) for entry in tried
    ]
    for entry, verdict in zip(tried, verdicts, strict=True):
        if verdict.complaints:
            click.echo(f"{entry.family}.{entry.name} ({entry.kind}): {'; '.join(verdict.complaints)}")
    click.echo(grading.figures(verdicts, run))


def _stock(directory: grading.Directory, chosen: list[grading.Entry], work: Path, jobs: int) -> None:
    def measure(batch: list[grading.Entry]) -> None:
        folder = work / f"{batch[0].name} and {len(batch) - 1} more"
        outcomes = grading.stock_outcomes(batch, directory, folder, seconds=60 + 20 * len(batch))
        if len(batch) > 1 and outcomes[batch[0].name][0] == "stops":  # one of them: which?
            for entry in batch:
                measure([entry])
            return
        for entry in batch:
            found, words = outcomes[entry.name]
            mark = "" if found == entry.stock else f"  (noted: {entry.stock})"
            click.echo(f"{entry.family}.{entry.name}: {found}{mark}: {words[:150]}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(measure, _batches([entry for entry in chosen if entry.stock != "untried"])))


def _batches(chosen: list[grading.Entry]) -> list[list[grading.Entry]]:
    """Entries to be graded by one program: of one module, some at a time, and those that may stop it alone."""
    alone = [[entry] for entry in chosen if entry.stock == "stops"]
    for nn in sorted({entry.nn for entry in chosen}):
        others = [entry for entry in chosen if entry.nn == nn and entry.stock != "stops"]
        alone += [others[start : start + _AT_ONCE] for start in range(0, len(others), _AT_ONCE)]
    return alone


if __name__ == "__main__":
    main()
