"""``curate head``, ``curate show`` and ``curate inspect``: show data, before or after a run."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from curator_core import formatting
from curator_core.cli import DONE, FAILED
from curator_core.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from curator_core.data.rows import Rows
    from curator_core.model.recorder import Reject

_COLUMN_WIDTH = 24
_THUMBNAIL_SIDE = 160
_SAMPLES, _PAGE_SAMPLES = 3, 24
# `inspect` examines every row of up to this many bytes of files, and this many rows of larger data.
_ALL_BYTES = 64_000_000
_SOME_ROWS = 10_000


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads data."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print it as JSON."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="READER.PARAM=VALUE",
            help="A parameter of the reader, such as CsvReader.delimiter=';'.",
        ),
        click.option("--reader", metavar="NAME", help="The reader to use, whatever the names of the files."),
    ):
        command = option(command)
    return command


@click.command("head", short_help="Show the first rows of data.")
@click.argument("data", type=click.Path())
@click.option("-n", "--rows", "wanted", type=click.IntRange(min=1), default=5, show_default=True, help="How many rows.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--html", metavar="FILE", type=click.Path(), help="Also write them as a page, with images as thumbnails.")
@_reading
def head_command(
    data: str,
    wanted: int,
    columns: str | None,
    html: str | None,
    reader: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the first rows of DATA: a file, a folder, a pattern in quotes, or a URL, in any format that a reader
    supports.

    Only the beginning is read. Each row is shown with its place, which `curate show` accepts.
    """
    from curator_core.data.rows import open_rows, place_text, with_thumbnails  # these import pyarrow
    from curator_core.data.values import json_value, kind_of, rows_of

    rows = open_rows(data, reader=reader, settings=settings, few=True)
    if html is not None:
        with_thumbnails(rows, _THUMBNAIL_SIDE)
    names = [name.strip() for name in columns.split(",")] if columns else None
    schema: dict[str, str] = {}
    shown: list[dict[str, Any]] = []
    for batch in _batches(rows):
        table = batch.to_pyarrow().slice(0, wanted - len(shown))
        if names is not None:
            table = table.select([*_checked(names, table.column_names), *_pictures(html, table.column_names)])
        schema |= {column.name: kind_of(column) for column in table.schema}
        for number, values in enumerate(rows_of(table)):
            source, position = place_text(batch, number)
            shown.append({"source": source, "position": position, "columns": values})
        if len(shown) >= wanted:
            break
    if html is not None:
        _write_page(
            html,
            f"The first {formatting.count(len(shown), 'row')} of {data}",
            shown,
            [],
            "\n".join(_reject_lines(rows, "among them")),
        )
        for row in shown:
            row["columns"].pop("thumbnail", None)
        schema.pop("thumbnail", None)
    if as_json:
        click.echo(
            _json(
                {
                    **_facts(data, rows),
                    "schema": schema,
                    "rows": [{**row, "columns": json_value(row["columns"])} for row in shown],
                }
            )
        )
        return
    click.echo(_heading(data, rows))
    for row in shown:
        click.echo("")
        _echo_row(row)
    for line in _reject_lines(rows, "among them"):
        click.echo(line)
    if not shown:
        click.echo("there are no rows")
    if html is not None:
        click.echo(f"\npage: {formatting.printable(html)}")


@click.command("show", short_help="Show one whole row of data.")
@click.argument("data", type=click.Path())
@click.argument("row_id", metavar="[ID]", required=False)
@click.option("--id-column", metavar="NAME", help="The column with the ids. [default: id, key, url or similar]")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--mark", metavar="REGEX", help="Mark matches in the text.")
@click.option(
    "--by",
    "filters",
    multiple=True,
    metavar="FILTER",
    help="Show the decision of this filter about the row; --set sets its parameters.",
)
@click.option("--every", is_flag=True, help="Show every row with the id, not only the first.")
@click.option(
    "--bytes", "raw", metavar="COLUMN", help="Write the bytes of a column to standard output, and nothing else."
)
@_reading
def show_command(
    data: str,
    row_id: str | None,
    id_column: str | None,
    columns: str | None,
    mark: str | None,
    filters: tuple[str, ...],
    every: bool,
    raw: str | None,
    reader: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show the row of DATA with an ID, or the one at a place, as in `curate show a.jsonl:12`.

    A place is the line of a file of JSON lines, the number of a row of CSV or Parquet (the first is 1), `byte 4711` of a
    WARC file, or the key or a member of an image in a tar: `curate show a.tar:cat.jpg`.

    \b
    curate show crawl/ doc-17
    curate show crawl/part-0.jsonl:12
    curate show crawl/ doc-17 --by WordCountFilter --set WordCountFilter.min_words=80
    curate show photos.tar:cat.jpg --bytes bytes > cat.jpg
    """  # noqa: D301 - click takes this character to leave lines as they are
    from itertools import islice

    from curator_core.data.find import FoundReject, row_at, rows_with_id, split_address
    from curator_core.data.judge import judge
    from curator_core.data.rows import open_rows, settings_for  # these import pyarrow

    path, place = (data, None) if row_id is not None else split_address(data)
    if row_id is None and place is None:
        _refuse_missing(data)
        raise UsageError(
            f"which row of {data!r}? Name its id, as in `curate show {data} ID`, or its place, as in `curate show FILE:12`; "
            f"`curate head {data}` shows the first rows with their places"
        )
    names_of_filters = tuple(dict.fromkeys(filters))
    own = [setting for setting in settings if setting.partition("=")[0].rpartition(".")[0] not in names_of_filters]
    # In a file that is read from its start, the line of every row is known.
    rows = open_rows(path, reader=reader, settings=own, few=place is not None, split_bytes=None)
    if place is not None:
        found = row_at(rows, path, place)
        if isinstance(found, FoundReject):
            _echo_reject(found.reject, as_json)
            return FAILED
        all_found = [found]
    else:
        assert row_id is not None
        all_found = list(islice(rows_with_id(rows, row_id, id_column), None if every else 1))
    shown: list[dict[str, Any]] = [
        {"source": row.source, "position": row.position, "columns": row.columns} for row in all_found
    ]
    if raw is not None:
        return _write_bytes(shown[0], raw)
    for row, found_row in zip(shown, all_found, strict=True):
        row["judged"] = [
            judge(
                name,
                settings_for(name, [s for s in settings if s not in own], "a filter", names_of_filters),
                found_row.batch,
            )
            for name in names_of_filters
        ]
    names = [name.strip() for name in columns.split(",")] if columns else None
    for row in shown:
        if names is not None:
            values = row["columns"]
            row["columns"] = {name: values[name] for name in _checked(names, list(values))}
    if as_json:
        from curator_core.data.values import json_value, kind_of

        schema = {column.name: kind_of(column) for found in all_found for column in found.batch.to_pyarrow().schema}
        listed = [{**row, "columns": json_value(row["columns"])} for row in shown]
        for row in listed:
            judged = [verdict.as_dict() for verdict in row.pop("judged")]
            row.update({"judged": judged} if filters else {})
        click.echo(_json({**_facts(path, rows), "schema": schema, "rows": listed}))
        return DONE
    for number, row in enumerate(shown):
        if number:
            click.echo("")
        _echo_whole(row, mark)
    return DONE


def _refuse_missing(data: str) -> None:
    """Raise if the data do not exist, with the path that may have been meant."""
    from curator_core import storage

    if storage.has_magic(data) or storage.exists(data):
        return
    path = data.rpartition(":")[0] if data.rpartition(":")[2].isdigit() else data
    folder = storage.parent(path)
    beside = (
        [storage.relative(name, folder) for name in storage.list_files(folder, recursive=False)][:1000]
        if storage.is_folder(folder)
        else []
    )
    raise UsageError(f"there is no {path!r}{nearest(storage.file_name(path), beside)}")


@click.command("inspect", short_help="Show the contents of the columns of data.")
@click.argument("data", type=click.Path())
@click.option("-n", "--rows", "wanted", type=click.IntRange(min=1), help="Read about this many rows.")
@click.option("--all", "everything", is_flag=True, help="Read every row.")
@click.option("--text", "text_column", metavar="NAME", help="The column with the text. [default: the likely one]")
@click.option(
    "--tokenizer", metavar="NAME", help="Count tokens with a tokenizer: a tokenizer.json, or a name on the hub."
)
@click.option("--samples", type=click.IntRange(min=0), help="How many rows to show. [default: 3, or 24 on a page]")
@click.option("--html", metavar="FILE", type=click.Path(), help="Also write it as a page, with images as thumbnails.")
@_reading
def inspect_command(
    data: str,
    wanted: int | None,
    everything: bool,
    text_column: str | None,
    tokenizer: str | None,
    samples: int | None,
    html: str | None,
    reader: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the schema of DATA, counts, shares of nulls, values, lengths and tokens of the text, languages, and samples.

    Up to 64 MB of files are read completely; of larger data, 10,000 rows are read from files spread evenly over them,
    and the output says so. Tokens are estimated from bytes unless --tokenizer is given. Languages are guessed if
    curator-text and its model are installed.
    """
    from curator_core.data.profile import make_profile, profile_lines
    from curator_core.data.rows import open_rows, with_thumbnails  # these import pyarrow

    if everything and wanted is not None:
        raise UsageError("--all reads every row, and --rows only some: give one of the two")
    rows = open_rows(data, reader=reader, settings=settings)
    if html is not None:
        with_thumbnails(rows, _THUMBNAIL_SIDE)
    if wanted is None and not everything and rows.found.bytes > _ALL_BYTES:
        wanted = _SOME_ROWS
    asked = samples
    if samples is None:
        samples = _SAMPLES if html is None else _PAGE_SAMPLES
    found = make_profile(rows, wanted, samples=samples, text_column=text_column, tokenizer=tokenizer)
    found.columns.pop("thumbnail" if html is not None else "", None)
    lines = profile_lines(found, _width())
    if html is not None:
        _write_page(
            html,
            f"What {data} holds",
            found.samples,
            [_heading(data, rows)],
            "\n".join([*lines, *_reject_lines(rows, "among them")]),
        )
        for row in found.samples:
            row["columns"].pop("thumbnail", None)
    if as_json:
        text = found.columns.get(found.text_column or "")
        content = {
            **_facts(data, rows),
            "read": {
                "rows": found.rows,
                "sources": found.sources,
                "of_sources": found.all_sources,
                "all": found.complete,
            },
            "columns": [column.as_dict() for column in found.columns.values()],
            "text": None
            if text is None
            else {"column": text.name, "tokens": {"counted_by": found.counted_by, **found.tokens.as_dict()}},
            "languages": found.languages or None,
            "no_language": found.no_language,
            "rows": found.samples,
        }
        click.echo(_json(content))
        return
    click.echo(_heading(data, rows))
    for line in lines:
        click.echo(line)
    for line in _reject_lines(rows, "among them"):
        click.echo(line)
    # The page has more rows than the terminal shows.
    shown = found.samples if asked is not None else found.samples[:_SAMPLES]
    if shown:
        click.echo(f"\n{formatting.count(len(shown), 'row')} of them:")
    for row in shown:
        click.echo("")
        _echo_row(row)
    if html is not None:
        click.echo(f"\npage: {formatting.printable(html)}")


# What they print ------------------------------------------------------------------------------------------------------


def _batches(rows: Rows) -> Iterator[Any]:
    for source in rows.sources():
        yield from rows.batches(source)


def _facts(data: str, rows: Rows) -> dict[str, Any]:
    found = rows.found
    files = {"files": found.files, "bytes": found.bytes} if found.ending else {}
    return {"data": data, "reader": rows.reader, **files, "others": dict(found.others), "rejected": rows.rejected}


def _heading(data: str, rows: Rows) -> str:
    found = rows.found
    text = f"{formatting.printable(data)}: read by {rows.reader}"
    if found.ending:
        text += f", {formatting.count(found.files, 'file')}, {formatting.size(found.bytes)}"
    if found.others:
        others = ", ".join(f"{n:,} {ending or 'with no ending'}" for ending, n in sorted(found.others.items()))
        text += f"; files of other formats are left out: {formatting.printable(others)}"
    return text


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160


def _place(row: dict[str, Any]) -> str:
    source, position = row["source"], row["position"]
    short = position.removeprefix("line ").removeprefix("row ")
    return formatting.printable(f"{source}:{short}" if short else source)


def _echo_row(row: dict[str, Any]) -> None:
    from curator_core.data.values import text_of

    if row["source"]:
        click.secho(_place(row), bold=True)
    names = {name: formatting.cut(formatting.printable(name), _COLUMN_WIDTH) for name in row["columns"]}
    width = max(map(len, names.values()), default=0)
    for name, value in row["columns"].items():
        text = text_of(value)
        room = max(20, _width() - width - 4)
        line = formatting.cut(formatting.printable(text[: room * 2]), room)
        if isinstance(value, str) and len(line) < len(text):
            ending = f"  ({formatting.count(len(text), 'character')})"
            line = formatting.cut(line, room - len(ending)) + ending
        label = click.style(f"{names[name]:<{width}}", fg="cyan")
        click.echo(f"  {label}  {line if value is not None else click.style('null', dim=True)}")


def _echo_whole(row: dict[str, Any], mark: str | None) -> None:
    """Every column of a row: short values first, one per line, then long texts. Marked parts are between ⟦ and ⟧."""
    from curator_core.data.values import text_of

    if row["source"]:
        click.secho(_place(row), bold=True)
    texts = {name: text_of(value) for name, value in row["columns"].items()}
    spans = {name: _matches(text, mark) for name, text in texts.items()}
    for verdict in row["judged"]:
        if verdict.column in spans:
            spans[verdict.column] += verdict.spans
    long = [name for name, text in texts.items() if len(text) > 100 or "\n" in text]
    width = max((len(formatting.printable(name)) for name in texts if name not in long), default=0)
    for name, text in texts.items():
        if name not in long:
            label = click.style(f"{formatting.printable(name):<{width}}", fg="cyan")
            click.echo(f"{label}  {_marked(text, spans[name])}")
    for name in long:
        said = formatting.count(len(texts[name]), "character")
        label = click.style(formatting.printable(name), fg="cyan")
        click.echo(f"\n{label}  ({said})\n{_marked(texts[name], spans[name])}")
    for verdict in row["judged"]:
        end = "would keep it" if verdict.keeps else f"would drop it: {formatting.printable(verdict.reason)}"
        marked = ", the part at fault is marked" if verdict.spans else ""
        click.echo(f"\n{click.style(verdict.stage, bold=True)} {formatting.printable(verdict.says)}; it {end}{marked}")
        for name, value in verdict.scores.items():
            click.echo(f"  {formatting.printable(name)}  {'null' if value is None else formatting.number(value)}")


def _matches(text: str, mark: str | None) -> list[tuple[int, int]]:
    if mark is None:
        return []
    import re

    try:
        return [found.span() for found in re.finditer(mark, text) if found[0]]
    except re.error as error:
        raise UsageError(f"--mark takes a regular expression, and {mark!r} is not one: {error}") from error


def _marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text made safe for a terminal. The given parts are between marks, ⟦like this⟧, and coloured if the terminal
    shows colours.
    """
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        start = max(start, end)  # noqa: PLW2901 - text that is marked already is not marked again
        if start < stop:
            parts.append(formatting.printable(text[end:start], one_line=False))
            parts.append(
                click.style(f"⟦{formatting.printable(text[start:stop], one_line=False)}⟧", fg="black", bg="yellow")
            )
            end = stop
    return "".join([*parts, formatting.printable(text[end:], one_line=False)])


def _reject_lines(rows: Rows, where: str) -> list[str]:
    if not rows.rejected:
        return []
    from curator_core.cli.runs import example_line

    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(rows.rejected.items()))
    examples = (f"    {example_line(_as_example(reject))}" for reject in rows.examples)
    return ["", f"not read {where}: {formatting.printable(reasons)}", *examples]


def _echo_reject(reject: Reject, as_json: bool) -> None:
    if as_json:
        example = {**_as_example(reject), "raw": (reject.raw or b"").decode("utf-8", "backslashreplace")}
        click.echo(_json({"rows": [], "rejects": [example]}))
        return
    where = f"{reject.source}:{reject.position}".removesuffix(":")
    click.echo(
        f"{formatting.printable(where)} is not a row: {formatting.printable(reject.reason)}"
        + (f" ({formatting.printable(reject.message)})" if reject.message else "")
    )
    if reject.raw:
        click.echo(formatting.printable(formatting.beginning(reject.raw, 10_000), one_line=False))


def _as_example(reject: Reject) -> dict[str, Any]:
    return {
        "reason": reject.reason,
        "source": reject.source,
        "task": "",
        "position": reject.position,
        "message": reject.message,
        "raw": reject.raw,
    }


def _checked(names: list[str], there: list[str]) -> list[str]:
    for name in names:
        if name not in there:
            raise UsageError(
                f"there is no column {name!r}{nearest(name, there) or ';'} the columns are {', '.join(there)}"
            )
    return names


def _pictures(html: str | None, there: list[str]) -> list[str]:
    return ["thumbnail"] if html is not None and "thumbnail" in there else []


def _write_bytes(row: dict[str, Any], column: str) -> int:
    values = row["columns"]
    _checked([column], list(values))
    value = values[column]
    if not isinstance(value, bytes | str):
        raise UsageError(f"the column {column!r} holds {type(value).__name__} here, and neither bytes nor text")
    if sys.stdout.isatty() and isinstance(value, bytes):
        raise UsageError(f"bytes are not written to a terminal: send them to a file, as in `--bytes {column} > FILE`")
    sys.stdout.buffer.write(value if isinstance(value, bytes) else value.encode())
    return DONE


def _json(content: dict[str, Any]) -> str:
    from curator_core.data.values import json_value

    return json.dumps(json_value(content), indent=1, ensure_ascii=False)


def _write_page(path: str, title: str, rows: list[dict[str, Any]], facts: Sequence[str] = (), text: str = "") -> None:
    from curator_core import storage
    from curator_core.data.page import rows_page

    storage.write_bytes_atomic(path, rows_page(title, rows, facts, text).encode("utf-8", "surrogatepass"))
