"""The ``curate`` command."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from curator_core.errors import CuratorError, MissingDependency, PlanError, RunRefused, UsageError
from curator_core.leave import leave
from curator_core.upkeep import without_collection

DONE, FAILED, BAD_USAGE, QUARANTINED, INTERRUPTED = 0, 1, 2, 3, 130
# The commands by topic, each with its module.
_SECTIONS = {
    "Pipelines": {
        "init": "init",
        "plan": "plan",
        "run": "run",
        "stages": "stages",
        "dedup": "dedup",
        "doctor": "doctor",
    },
    "Runs": {
        "runs": "listing",
        "report": "runs",
        "rejects": "runs",
        "drops": "drops",
        "retry": "run",
        "verify": "runs",
        "diff": "diff",
        "whatif": "whatif",
        "card": "card",
    },
    "Data": {"head": "data", "show": "data", "inspect": "data"},
    "Shell": {"completion": "completion"},
}
_COMMANDS = {name: module for section in _SECTIONS.values() for name, module in section.items()}


class _Commands(click.Group):
    """Commands that are imported when they are needed; none of them imports pyarrow at module level."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        with without_collection():
            command = getattr(importlib.import_module(f"curator_core.cli.{module}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, names in _SECTIONS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            shown = [(name.ljust(width), command.get_short_help_str()) for name, command in commands.items() if command]
            with formatter.section(title):
                formatter.write_dl(shown)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in _COMMANDS:
            from curator_core.errors import nearest  # only after an error

            ctx.fail(f"there is no command {name!r}{nearest(name, _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or a wrong file, nothing has run; 3 finished, but with work "
    "set aside (see `curate rejects`); 130 interrupted.",
)
@click.version_option(package_name="curator-core", prog_name="curate", message="%(prog)s %(version)s")
def curate() -> None:
    """Turn raw text and images into training data.

    Start with `curate init text > clean.yaml`, see what would happen with `curate plan clean.yaml`, and run it with
    `curate run clean.yaml`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    code = run_command(sys.argv[1:] if arguments is None else list(arguments))
    try:
        if sys.stdout is not None:  # None if the caller has closed it: `curate run FILE >&-`
            sys.stdout.flush()
    except BrokenPipeError:
        # In `curate stages | head`, head ends first. The interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if arguments is None:  # only the command itself; a caller in Python continues
        leave(code)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command in this process and return its exit code. Errors for users are shown without a traceback."""
    try:
        result: Any = curate.main(args=list(arguments), prog_name="curate", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CuratorError as error:
        show_error(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return DONE
    return result if isinstance(result, int) else DONE


def exit_code_of(error: CuratorError) -> int:
    """2 if nothing has run because something must be fixed first, 1 if a run has failed."""
    return BAD_USAGE if isinstance(error, UsageError | PlanError | RunRefused | MissingDependency) else FAILED


def show_error(error: CuratorError) -> None:
    """Print the error for a person to standard error."""
    click.echo(f"{click.style('error', fg='red', bold=True)}: {as_options(str(error))}", err=True)


# A remedy that a message names for Python and for the command line: ``resume=True (--resume)``, ``(fresh=True,
# --fresh)``, and
# ``--resume (resume=True)``.
_TWO_WAYS = re.compile(r"\w+=(?:True|False)(?: \((--[\w-]+)\)|, (--[\w-]+))|(--[\w-]+) \(\w+=(?:True|False)\)")


def as_options(text: str) -> str:
    """A message for the command line: a remedy that has an option is named by the option alone."""
    return _TWO_WAYS.sub(lambda found: next(filter(None, found.groups())), text)
