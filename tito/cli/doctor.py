"""``tito doctor``: is this machine fit for the course, and if not, what to do."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from tito.course import Course


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(as_json: bool) -> int:
    """Check Python, packages, the Jupyter kernel, write access and the sandbox, and say how to mend each.

    The exit status is 1 if something is missing that everyone needs.

    \b
    Example: tito doctor
    """
    from tito.doctor import Check, examine

    def show(check: Check) -> None:
        word, colour = ("ok", "green") if check.ok else ("missing" if check.needed else "absent", "red")
        click.echo(f"{click.style(f'{word:8}', fg=colour)}{check.name:22}{check.found}")
        if not check.ok:
            click.echo(f"{'':8}{'':22}mend: {check.mend}")

    checks = []
    for check in examine(Course.locate()):
        checks.append(check)
        if not as_json:
            show(check)
    missing = [check.name for check in checks if not check.ok and check.needed]
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    elif missing:
        click.echo(f"\nMissing: {', '.join(missing)}. Mend the first one, then run: tito doctor")
    else:
        click.echo("\nEverything that the course needs is here.")
    return 1 if missing else 0
