"""``tito``: the one executable. Commands are loaded when they are called, so that ``tito --help`` is instant."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from types import FrameType

try:
    import click
except ModuleNotFoundError:
    from tito.doctor import INSTALL

    sys.exit(f"Error: tito's own packages are not installed in this environment\n  next:  {INSTALL}")

from tito.errors import TitoError, told
from tito.terminal import visible

# command -> (where it is defined, one line for `tito --help`)
COMMANDS = {
    "module": ("tito.cli.module:module", "List, start, test, hint, complete and reset modules."),
    "watch": ("tito.cli.watch:watch", "Test a module at every save of its notebook."),
    "milestone": ("tito.cli.milestone:milestone", "List and run the programs that retell the field's history."),
    "data": ("tito.cli.data:data", "List and fetch the data sets that the milestones learn from."),
    "doctor": ("tito.cli.doctor:doctor", "Check this machine and say how to mend what is missing."),
    "release": ("tito.cli.author:release", "Write a workspace for students: notebooks without solutions."),
    "nbgrader": ("tito.cli.nbgrader:nbgrader", "Set up a course directory, grade it, return feedback."),
    "export": ("tito.cli.author:export", "Generate the package from the modules' sources."),
    "audit": ("tito.cli.audit:audit", "Try the graded cells on wrong solutions."),
}


class LazyGroup(click.Group):
    """A click group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        where, _ = COMMANDS[cmd_name]
        path, _, attribute = where.partition(":")
        command = getattr(import_module(path), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tinytorch", prog_name="tito")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """The course tool of TinyTorch.

    Without a command it shows your progress and the next step.

    \b
    Example: tito module start 02
    """
    if ctx.invoked_subcommand is None:
        from tito.cli.overview import overview

        overview()


def _told(error: OSError | ModuleNotFoundError) -> TitoError:
    """Trouble with files or with the environment, told as every other refusal is."""
    if isinstance(error, OSError):
        return told(error)
    from tito.doctor import INSTALL

    return TitoError(f"{error.name} is not installed in this environment", place=sys.prefix, next_step=INSTALL)


def _end(*_: int | FrameType | None) -> None:
    """Tidy up as after Ctrl-C; also where Ctrl-C itself is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Run the command line; every error that a person can mend is shown without a traceback."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # which it is under nohup
            signal.signal(ending, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a student's text may hold what the terminal has no letters for
    try:
        status = cli(standalone_mode=False)
    except (TitoError, OSError, ModuleNotFoundError) as error:
        problem = error if isinstance(error, TitoError) else _told(error)
        click.echo(click.style("Error: ", fg="red", bold=True) + visible(str(problem)), err=True)
        sys.exit(problem.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nStopped. Nothing was changed.", err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
