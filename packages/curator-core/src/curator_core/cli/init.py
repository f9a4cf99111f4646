"""``curate init``."""

from __future__ import annotations

from importlib.resources import files

import click

from curator_core.errors import UsageError, nearest


@click.command("init", short_help="Print or write a pipeline file to start from.")
@click.argument("template", required=False)
@click.option(
    "--data", metavar="PATH", help="Look at this file, folder or pattern, and write a pipeline that reads it."
)
@click.option("-o", "--output", metavar="FILE", help="Write it to this file; an existing file is not changed.")
@click.option("--list", "listing", is_flag=True, help="List the templates.")
def init_command(template: str | None, data: str | None, output: str | None, listing: bool) -> None:
    """Print a commented starter file, for example `curate init text > clean.yaml`.

    With --data, the file is made for these data, as in `curate init --data crawl/ -o clean.yaml`: the format, the
    columns and the column with the text are detected. TEMPLATE is one of those that --list shows; without it, the
    template is chosen by the data, or is text.
    """
    if listing:
        for name in template_names():
            click.echo(f"{name:<8} {template_text(name).splitlines()[0].removeprefix('# ')}")
        return
    found = ""
    if data is None:
        text = template_text(template or "text")
    else:
        from curator_core import storage  # imports pyarrow
        from curator_core.cli.starter import starter

        if template is not None:
            template_text(template)  # the name exists
        text, found = starter(data, template, storage.absolute(storage.parent(output) if output else "."))
    if output is None:
        click.echo(text, nl=False)
        if found:
            click.echo(found, err=True)
        return
    from curator_core import storage  # imports pyarrow

    if storage.exists(output):
        raise UsageError(f"{output!r} exists and was not changed: choose another name, or remove it first")
    storage.write_bytes_atomic(output, text.encode())
    if found:
        click.echo(found)
        click.echo(f"{output}: see what would happen with `curate plan {output}`, then `curate run {output}`")
    else:
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
