"""``curate completion``: a script that completes commands, options, stages and files in a shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from curator_core.errors import UsageError

_SHELLS = ("bash", "zsh", "fish")
_HOW = """Save the output where your shell reads it:

\b
bash  curate completion bash >> ~/.bashrc
zsh   curate completion zsh >> ~/.zshrc
fish  curate completion fish > ~/.config/fish/completions/curate.fish
"""


@click.command("completion", short_help="Print a completion script for a shell.", epilog=_HOW)
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def completion_command(shell: str | None) -> None:
    """Print a script that completes commands, options, stages and files in a shell. By default, it is for the shell in
    use.
    """
    from curator_core.cli import curate  # it names this module

    name = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(name)
    if found is None:
        raise UsageError(f"which shell is this? Name one of {', '.join(_SHELLS)}")
    click.echo(found(curate, {}, "curate", "_CURATE_COMPLETE").source())
