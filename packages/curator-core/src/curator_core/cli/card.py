"""``curate card``: a description to publish with the data that a run has written."""

from __future__ import annotations

import json

import click


@click.command("card", short_help="Make a dataset card for the output of a run.")
@click.argument("run_dir", type=click.Path())
@click.option("--output", metavar="STAGE", help="The writer, if the run has several.")
@click.option("--license", "license_", metavar="NAME", help="The licence, which you have to choose: cc-by-4.0, …")
@click.option("--creator", metavar="NAME", help="Who made the data.")
@click.option("--url", help="Where the data are published.")
@click.option("--write", "write", is_flag=True, help="Write README.md and croissant.jsonld beside the data.")
@click.option("--replace", is_flag=True, help="With --write: replace files that exist.")
@click.option("--croissant", is_flag=True, help="Print croissant.jsonld instead of the card.")
@click.option("--json", "as_json", is_flag=True, help="Print both as JSON, with the facts that you have to add.")
def card_command(
    run_dir: str,
    output: str | None,
    license_: str | None,
    creator: str | None,
    url: str | None,
    write: bool,
    replace: bool,
    croissant: bool,
    as_json: bool,
) -> None:
    """Print a dataset card (README.md with YAML for Hugging Face) for the output of the run in RUN_DIR.

    Counts, stages and versions are those of the run; columns are those of the data. You must state the licence.
    """
    from curator_core.data.card import make_card  # imports pyarrow

    card = make_card(run_dir, output, license=license_, creator=creator, url=url)
    written = card.write(replace=replace) if write else []
    if as_json:
        values = {
            "folder": card.folder,
            "readme": card.readme,
            "croissant": card.croissant,
            "left": card.left,
            "notes": card.notes,
            "written": written,
        }
        click.echo(json.dumps(values, ensure_ascii=False, indent=1))
        return
    for path in written:
        click.echo(f"written: {path}")
    if not write:
        click.echo(card.croissant_text if croissant else card.readme, nl=False)
    for note in card.notes:
        click.echo(note, err=True)
    if card.left:
        options = " ".join(f"--{name}" for name in card.left)
        click.echo(f"left to you: {', '.join(card.left)} ({options}, or in the files)", err=True)
