"""``curate init``."""

from __future__ import annotations

from importlib.resources import files

import click

from curator_core.errors import UsageError, nearest


@click.command("init", short_help="Print or write a commented pipeline file to start from.")
@click.argument("template", default="text")
@click.option("-o", "--output", metavar="FILE", help="Write it there; an existing file is left alone.")
@click.option("--list", "listing", is_flag=True, help="List the templates.")
def init_command(template: str, output: str | None, listing: bool) -> None:
    """Print a commented starter file, for example `curate init text > clean.yaml`.

    TEMPLATE is one of those that --list shows; text if it is left out.
    """
    if listing:
        for name in template_names():
            click.echo(f"{name:<8} {template_text(name).splitlines()[0].removeprefix('# ')}")
        return
    text = template_text(template)
    if output is None:
        click.echo(text, nl=False)
        return
    from curator_core import storage  # imports pyarrow

    if storage.exists(output):
        raise UsageError(f"{output!r} exists and is left as it is: choose another name, or remove it first")
    storage.write_bytes_atomic(output, text.encode())
    click.echo(f"{output}: change the paths in it, look at `curate plan {output}`, then `curate run {output}`")


def template_names() -> list[str]:
    """The templates, in order."""
    folder = files("curator_core.cli") / "templates"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def template_text(name: str) -> str:
    """A template's content."""
    if name not in template_names():
        raise UsageError(
            f"there is no template {name!r}{nearest(name, template_names()) or '.'} "
            f"The templates are: {', '.join(template_names())}"
        )
    return (files("curator_core.cli") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
