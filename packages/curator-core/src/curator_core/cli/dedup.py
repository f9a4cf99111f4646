"""``curate dedup``: remove duplicates from a folder of files, and see which document was removed for which."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from curator_core.cli import DONE
from curator_core.cli.summary import aligned
from curator_core.errors import CuratorError, UsageError
from curator_core.formatting import count, percent, size

if TYPE_CHECKING:
    from curator_core.config.pipeline_file import PipelineFile

# A collection is reported if it loses more than this share, or this many times as much as the others.
_MOST_LOST = 0.95
_TIMES_PEERS = 3
# From this many folders on, compacting an index is recommended.
_MANY_FOLDERS = 16


@click.group("dedup", short_help="Remove duplicates, and show which document stays in place of each.")
def dedup_command() -> None:
    """Remove duplicates from a folder of files, and see what was removed, and for which document.

    Each document that is removed was compared with one that stays; RUN/decisions says which one, and how similar they
    are.
    """


def _with(options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """A decorator that gives a command these options, in this order."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def _ends(column: str, id_column: str, keep: str) -> list[Callable[..., Any]]:
    """The options for input and output, and for which document stays."""
    return [
        click.argument("input", nargs=-1, required=True),
        click.argument("output"),
        click.option("--format", "kind", help="Format of the files: jsonl, parquet, csv, … [default: by file names]"),
        click.option("--column", help=column),
        click.option("--id-column", help=id_column),
        click.option("--keep", metavar="ORDER", help=keep),
    ]


_RUN = [
    click.option(
        "--partitions",
        type=click.IntRange(min=1),
        help="Number of pieces into which the work is divided. [default: by the size of INPUT]",
    ),
    click.option("--run-dir", metavar="DIR", help="Where the run keeps its table. [default: runs/dedup-NAME]"),
    click.option("--executor", metavar="NAME", help="local, ray_data, xenna, or another one that is installed."),
    click.option("--workers", type=click.IntRange(min=0), help="Worker processes; 0 runs in this process."),
    click.option("--resume", is_flag=True, help="Continue the run in the run directory."),
    click.option("--retry", is_flag=True, help="Run the sources with quarantined work again."),
    click.option("--fresh", is_flag=True, help="Discard the run in the run directory and start over."),
    click.option("--on-error", type=click.Choice(["fail", "quarantine"]), help="What to do when a stage raises."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
]


def _of_documents(*, column: str, id_column: str, keep: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator with the options of a command that removes documents; the parameters are its defaults."""
    return _with(
        [
            *_ends(
                f"The column to compare. [default: {column}]",
                f"Column that names documents in the table. [default: {id_column}]",
                "Which document stays, by rules separated by commas: longest, shortest, first, highest:COLUMN, "
                f"lowest:COLUMN, rank:A>B>C (of collections). [default: {keep}]",
            ),
            click.option(
                "--collection-column", help="Column that names the collection. [default: the first folder below INPUT]"
            ),
            click.option("--per-collection", is_flag=True, help="Compare only documents of the same collection."),
            click.option(
                "--removed", metavar="DIR", help="Write the removed documents and the reasons to this folder."
            ),
            click.option("--annotate", is_flag=True, help="Keep all documents and add columns with the decisions."),
            click.option("--dry-run", is_flag=True, help="Estimate time and disk space, and stop."),
            *_RUN,
        ]
    )


_of_parts = _with(
    [
        *_ends(
            "The text. [default: text]",
            "Column that names documents in the table. [default: id]",
            "Which document keeps a repeated part, as in `curate dedup exact`.",
        ),
        click.option("--mode", type=click.Choice(["cut", "annotate", "drop"]), help="[default: cut]"),
        click.option(
            "--max-share",
            type=click.FloatRange(0, 1),
            help="Drop a document if more than this share of it is repeated.",
        ),
        *_RUN,
    ]
)
_indexed = _with(
    [
        click.option("--index", metavar="DIR", help="Compare with the documents of earlier runs, in the index DIR."),
        click.option(
            "--against",
            type=click.Choice(["self", "index", "both"]),
            help="Compare INPUT with itself, the index, or both. [default: both]",
        ),
        click.option(
            "--index-add/--no-index-add",
            "index_add",
            default=None,
            help="Add the documents that stay to the index. [default: add]",
        ),
    ]
)


@dedup_command.command("exact", short_help="Remove documents that are equal to another.")
@_of_documents(column="text", id_column="id", keep="longest,first")
@_indexed
@click.option("--normalize", is_flag=True, help="Case, white space and punctuation do not count.")
def exact_command(normalize: bool, **given: Any) -> int:
    """Remove documents of INPUT that are the same as one that stays; write the others to OUTPUT.

    INPUT is one or more files, folders or patterns of any format that an installed reader knows.
    """
    return _run("exact", "ExactDedup", given, {"normalize": normalize})


@dedup_command.command("fuzzy", short_help="Remove documents whose content is almost completely in another.")
@_of_documents(column="text", id_column="id", keep="longest,first")
@_indexed
@click.option(
    "--rule",
    type=click.Choice(["nothing_new", "containment", "jaccard"]),
    help="When a document is removed. [default: nothing_new]",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True), help="The share of shingles in common. [default: 0.8]"
)
@click.option(
    "--max-new-words",
    type=click.IntRange(min=0),
    help="The highest number of new words among 25 in a row, for the rule nothing_new. [default: 12]",
)
@click.option("--unit", type=click.Choice(["words", "characters"]), help="What shingles are made of. [default: words]")
@click.option(
    "--ngram", type=click.IntRange(min=1), help="Words or characters per shingle. [default: 3 words, 13 characters]"
)
@click.option("--bands", type=click.IntRange(min=1), help="Keys per document. [default: 26]")
@click.option("--rows", type=click.IntRange(min=1), help="Hashes per key. [default: 5]")
def fuzzy_command(**given: Any) -> int:
    """Remove documents of INPUT whose content is almost completely in one that stays; write the others to OUTPUT.

    INPUT is one or more files, folders or patterns of any format that an installed reader knows.
    """
    names = ("rule", "threshold", "max_new_words", "unit", "ngram", "bands", "rows")
    return _run("fuzzy", "FuzzyDedup", given, {name: given.pop(name) for name in names})


@dedup_command.command("semantic", short_help="Remove documents whose vectors have nearly the same direction.")
@_of_documents(column="embedding", id_column="id", keep="first")
@click.option("--eps", type=click.FloatRange(0, 1, max_open=True), help="The lowest cosine is 1 - eps. [default: 0.05]")
@click.option("--clusters", type=click.IntRange(min=1), help="[default: the square root of the number of documents]")
@click.option("--visits", type=click.IntRange(min=0), help="Neighbouring clusters to compare with. [default: 2]")
@click.option(
    "--order",
    type=click.Choice(["keep", "hard", "easy", "random"]),
    help="Which document stays: the one farther from the centre of its cluster (hard), the nearer one (easy), or a "
    "random one. Takes precedence over --keep.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of --order random. [default: 0]")
def semantic_command(**given: Any) -> int:
    """Remove documents of INPUT whose vector is close to that of one that stays; write the others to OUTPUT.

    INPUT has a column of vectors, which a stage such as TextEmbedding or ImageEmbedding adds.
    """
    names = ("eps", "clusters", "visits", "order", "seed")
    return _run("semantic", "SemanticDedup", given, {name: given.pop(name) for name in names})


@dedup_command.command("image", short_help="Remove images that show the same picture.")
@_of_documents(column="bytes", id_column="key", keep="longest,first")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True), help="The lowest correlation. [default: 0.9]")
@click.option(
    "--radius", type=click.IntRange(0, 11), help="The highest number of bits in which hashes may differ. [default: 10]"
)
@click.option("--crops/--no-crops", default=None, help="Look for crops of 5 to 15 %. [default: crops]")
@click.option("--mirror", is_flag=True, help="Also look for mirrored copies.")
def image_command(crops: bool | None, mirror: bool, **given: Any) -> int:
    """Remove images of INPUT that show the same picture as one that stays; write the others to OUTPUT.

    INPUT is one or more tars, folders of images, or Parquet files with encoded images.
    """
    more = {**{name: given.pop(name) for name in ("threshold", "radius")}, "mirror": mirror}
    return _run("image", "ImageDedup", given, more, crops=crops)


@dedup_command.command("substring", short_help="Cut runs of words that occur more than once.")
@_of_parts
@click.option("--words", type=click.IntRange(min=1), help="The lowest number of words in a run. [default: 50]")
@click.option(
    "--characters", type=click.IntRange(min=1), help="The lowest number of characters in a run, instead of --words."
)
def substring_command(**given: Any) -> int:
    """Cut runs of words that are repeated in INPUT; write the rest to OUTPUT. One occurrence of each run stays."""
    return _run("substring", "SubstringDedup", given, {name: given.pop(name) for name in ("words", "characters")})


@dedup_command.command("lines", short_help="Cut lines or paragraphs that occur more than once.")
@_of_parts
@click.option("--unit", type=click.Choice(["line", "paragraph", "three_sentences"]), help="[default: line]")
@click.option("--least", type=click.IntRange(min=1), help="The lowest number of characters in a unit. [default: 20]")
@click.option("--normalize", is_flag=True, help="Case, white space and punctuation do not count.")
@click.option(
    "--false-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Make a Bloom filter first. This is the share of the units that occur once but are still compared. "
    "[default: no filter]",
)
def lines_command(**given: Any) -> int:
    """Cut lines that are repeated in INPUT; write the rest to OUTPUT. One occurrence of each line stays."""
    names = ("unit", "least", "normalize", "false_rate")
    return _run("lines", "LineDedup", given, {name: given.pop(name) for name in names})


@dedup_command.command("show", short_help="Show a removed document beside the one that stays in its place.")
@click.argument("run_dir")
@click.argument("id")
@click.option("--html", metavar="FILE", help="Write a page with both side by side, images included.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision and both documents as JSON.")
def show_command(run_dir: str, id: str, html: str | None, as_json: bool) -> int:  # noqa: A002 - the name in the usage line
    """Show the removed document ID of RUN_DIR beside its witness, with the differences between them.

    Words that only one of them has are in [brackets]. For a run of `substring` or `lines` the repeated parts of
    document ID are shown, each with the document whose text it repeats. A document without an id is named SOURCE:ROW,
    as in the table.
    """
    from curator_core import storage  # these import pyarrow
    from curator_core.registry import WORKFLOWS, load
    from curator_core.running.repeats import repeats_in
    from curator_core.workflows.pair_page import marked_text, pair_page
    from curator_core.workflows.pairs import removed_pair, text_of

    parts = repeats_in(run_dir, id)
    if parts is not None:
        return _show_parts(run_dir, id, parts, html, as_json)
    folder = _table_of(run_dir)
    pair = removed_pair(folder, id)
    if as_json:
        content = {"decision": pair.decision, "document": pair.document, "witness": pair.witness}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str))
        return DONE
    settings = _settings_of(folder)
    column = settings.get("column", "text")
    figures = _figures(pair.decision)
    texts = pieces = None
    if pair.witness is not None and isinstance(pair.document.get(column), str):
        texts = [text_of(document, column) for document in (pair.document, pair.witness)]
        pieces = load(WORKFLOWS, settings["workflow"]).spans(*texts, settings)
    if html is not None:
        marked = texts and pieces and [marked_text(*both) for both in zip(texts, pieces, strict=True)]
        storage.write_bytes_atomic(html, pair_page(pair, figures, marked or None).encode("utf-8", "surrogatepass"))
        click.echo(html)
        return DONE
    click.echo(f"removed: {pair.place}")
    click.echo(f"stays:   {pair.witness_place}")
    if pair.decision["copy_of"] is not None:
        copy_of = pair.decision["copy_of_id"]
        click.echo(f"the removed one is an exact copy of {copy_of!r}, which was removed for the same document")
    click.echo(f"rule:    {figures}")
    if pair.witness is None:
        click.echo(
            f"\n--- removed (the other is in an index, which holds no text) ---\n{text_of(pair.document, column)}"
        )
    elif texts is not None and pieces is not None:
        for title, text, spans in zip(("removed", "stays"), texts, pieces, strict=True):
            click.echo(f"\n--- {title} ---")
            click.echo("".join(_piece(text[start:end], shared) for start, end, shared in spans))
    else:
        for title, document in (("removed", pair.document), ("stays", pair.witness)):
            click.echo(f"\n--- {title} ---")
            for name, value in document.items():
                if name != column and value is not None and not isinstance(value, bytes):
                    click.echo(f"{name}: {value if isinstance(value, str) else repr(value)[:200]}")
        click.echo("\n--html FILE shows both side by side")
    return DONE


def _show_parts(run_dir: str, name: str, parts: list[dict[str, Any]], html: str | None, as_json: bool) -> int:
    if not parts:
        raise UsageError(
            f"the table of spans in {run_dir!r} has none of {name!r}: nothing in it is repeated, or there is no document of this id. "
            "A document without an id is named SOURCE:ROW, as in the table"
        )
    heading = f"{name}: {count(len(parts), 'repeated part')}"
    if html is not None:
        from curator_core import storage  # these import pyarrow
        from curator_core.running.repeats import settings_of
        from curator_core.workflows.pair_page import parts_page
        from curator_core.workflows.pairs import repeated_parts

        page = parts_page(repeated_parts(parts, settings_of(run_dir)), heading)
        storage.write_bytes_atomic(html, page.encode("utf-8", "surrogatepass"))
        click.echo(html)
        return DONE
    if as_json:
        click.echo(json.dumps(parts, indent=1, ensure_ascii=False))
        return DONE
    click.echo(heading)
    for part in sorted(parts, key=lambda part: (part["start"], part["end"])):
        witness = part["witness_id"] or f"{part['witness_source']}:{part['witness_row']}"
        click.echo(f"\n--- characters {part['start']:,} to {part['end']:,}, begins as a part of {witness!r} ---")
        rest = part["end"] - part["start"] - len(part["text"])
        click.echo(part["text"] + (f" … and {rest:,} more" if rest > 0 else ""))
    click.echo("\n--html FILE shows them marked in both documents")
    return DONE


def _figures(decision: dict[str, Any]) -> str:
    """The rule by which a document was removed, with the figures for it and its witness."""
    figures = []
    if decision["containment"] is not None:
        figures.append(f"{decision['containment']:.1%} of its shingles are in the other")
        figures.append(f"{decision['jaccard']:.1%} of all shingles are in both")
    if decision["similarity"] is not None:
        figures.append(f"a similarity of {decision['similarity']:.4f}")
    if decision["new_words"] is not None:
        figures.append(f"at most {decision['new_words']} new words in 25")
    return f"{decision['rule']}: {', '.join(figures)}"


@dedup_command.command("index", short_help="Show what an index contains.")
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def index_command(folder: str, as_json: bool) -> int:
    """Show the runs of the index in DIR, the number of documents that it stores of each, and the parameters of its
    keys.
    """
    from curator_core.across.index import Index  # imports pyarrow

    index = Index.read(folder)
    if as_json:
        click.echo(index.content().decode())
        return DONE
    settings = ", ".join(f"{name} {value}" for name, value in sorted(index.parameters.items()) if value is not None)
    click.echo(f"{folder}: an index of {index.kind} deduplication")
    click.echo(f"made with {settings}\n")
    rows = [(run.name, f"{run.documents:,}", size(run.bytes)) for run in index.runs]
    total = (count(len(index.runs), "run"), f"{index.documents:,}", size(index.size))
    for line in aligned([("run", "documents", "size"), *rows, total]):
        click.echo(line)
    if len(index.folders) > _MANY_FOLDERS:
        click.echo(
            f"\nThey are in {count(len(index.folders), 'folder')}, and a run opens the files of all: "
            f"`curate dedup compact {folder}` compacts them."
        )
    return DONE


@dedup_command.command("compact", short_help="Join the runs of an index into a few folders.")
@click.argument("folder", metavar="DIR")
@click.option(
    "--folders",
    type=click.IntRange(min=1),
    default=1,
    help="The number of folders that may remain; the smallest ones are merged.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def compact_command(folder: str, folders: int, as_json: bool) -> int:
    """Merge the runs of the index in DIR, each of which has a folder of its own, into a few large files.

    Decisions that use the index do not change. Other runs may use it meanwhile. An interrupted command can be repeated.
    """
    from curator_core.across.compact_index import compact_index  # imports pyarrow

    done = compact_index(folder, folders=folders)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=1))
        return DONE
    if done.folders[0] == done.folders[1]:
        click.echo(f"{folder}: nothing to do, {count(done.folders[0], 'folder')} already")
        return DONE
    rows = [(name, *(f"{number:,}" for number in getattr(done, name))) for name in ("folders", "files")]
    for line in aligned([("", "before", "now"), *rows, ("size", *(size(number) for number in done.bytes))]):
        click.echo(line)
    return DONE


@dedup_command.command("rethreshold", short_help="Apply stricter limits without comparing again.")
@click.argument("run_dir")
@click.argument("out")
@click.option("--threshold", type=click.FloatRange(0, 1), help="The share of shingles in common.")
@click.option("--max-new-words", type=click.IntRange(min=0), help="The highest number of new words among 25 in a row.")
def rethreshold_command(run_dir: str, out: str, threshold: float | None, max_new_words: int | None) -> int:
    """Write a table of decisions to OUT in which the removals of RUN_DIR that do not meet stricter limits are undone.

    Each removal that remains keeps its witness. Apply the table with the stage ApplyDecisions.
    """
    from curator_core.across.rethreshold import rethreshold  # imports pyarrow

    made = rethreshold(_table_of(run_dir), out, threshold=threshold, max_new_words=max_new_words)
    go, stay = ("goes" if made.removed == 1 else "go"), ("stays" if made.kept == 1 else "stay")
    click.echo(f"{out}: {count(made.removed, 'document')} {go}, for {made.kept:,} that {stay}")
    return DONE


def _run(name: str, workflow: str, given: dict[str, Any], more: dict[str, Any], **switches: bool | None) -> int:
    from curator_core.cli.run import run_and_report  # these import pyarrow
    from curator_core.config.build import build
    from curator_core.config.pipeline_file import PipelineFile
    from curator_core.registry import WORKFLOWS, load

    inputs, output = list(given["input"]), given["output"]
    parameters: dict[str, Any] = {
        "paths": inputs if len(inputs) > 1 else inputs[0],
        "path": output,
        "format": given["kind"],
        "keep": _order(given["keep"]),
        "scope": "per_collection" if given.get("per_collection") else None,
        "mode": "annotate" if given.get("annotate") else given.get("mode"),
        **{key: given.get(key) for key in ("column", "id_column", "collection_column", "removed", "partitions")},
        "max_share": given.get("max_share"),
        **{key: given.get(key) for key in ("index", "against")},
        **more,
    }
    parameters = {key: value for key, value in parameters.items() if value is not None and value is not False}
    switches["index_add"] = given.get("index_add")
    parameters |= {name: value for name, value in switches.items() if value is not None}

    def load_it() -> PipelineFile:
        return PipelineFile(
            path="", name=f"dedup-{name}", workflow=build(load(WORKFLOWS, workflow), workflow, parameters)
        )

    if given.get("dry_run"):
        found = load_it().workflow.estimate(given["run_dir"] or f"runs/dedup-{name}")  # type: ignore[union-attr]
        click.echo(json.dumps(asdict(found), indent=1) if given["as_json"] else found.describe())
        return DONE
    words = ["dedup", name, *inputs, output, *_flags()]
    keys = ("run_dir", "executor", "workers", "resume", "retry", "fresh", "on_error")
    flags = {key: given[key] for key in keys}
    flags["run_dir"] = flags["run_dir"] or f"runs/dedup-{name}"
    return run_and_report(
        load_it,
        words,
        {"file": "", "settings": [], "folder": "", "arguments": words},
        as_json=given["as_json"],
        quiet=given["quiet"],
        flags=flags,
        after=_show_collections,
        executor=given["executor"] or "local",
        inputs=inputs,
    )


# Options that the command for resuming always contains, or must not contain.
_NOT_AGAIN = ("run_dir", "executor", "resume", "retry", "fresh", "as_json", "quiet", "dry_run")


def _flags() -> list[str]:
    """The options of the command as the user gave them."""
    context = click.get_current_context()
    found: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if not isinstance(option, click.Option) or option.name in _NOT_AGAIN or value in (None, option.default):
            continue
        if not option.is_flag:
            found += [option.opts[0], str(value)]
        elif value or option.secondary_opts:
            found.append(option.opts[0] if value else option.secondary_opts[0])
    return found


def _order(text: str | None) -> list[Any] | None:
    """An order of preference as it is written in an option."""
    if text is None:
        return None
    found: list[Any] = []
    for part in text.split(","):
        kind, colon, value = part.strip().partition(":")
        if not colon:
            found.append(kind)
        else:
            found.append({kind: value.split(">") if kind == "rank" else value})
    return found


def _table_of(run_dir: str) -> str:
    from curator_core import storage  # imports pyarrow
    from curator_core.across.decisions import MANIFEST

    for folder in (run_dir, storage.join(run_dir, "decisions")):
        if storage.exists(storage.join(folder, MANIFEST)):
            return folder
    raise UsageError(
        f"{run_dir!r} holds no table of decisions: give the run directory of a deduplication, or its folder decisions"
    )


def _has_ids(folder: str) -> bool:
    from curator_core.across.decisions import Decisions  # imports pyarrow

    return any(table["id"].null_count < table.num_rows for table in Decisions.open(folder).tables(["id"]))


def _settings_of(folder: str) -> dict[str, Any]:
    from curator_core.across.decisions import Decisions  # imports pyarrow

    return Decisions.open(folder).settings


def _piece(text: str, shared: bool) -> str:
    """A piece of a text. Words that the other text lacks are in brackets, and coloured if the terminal shows colours."""
    if shared or not text.strip():
        return text
    inner = text.rstrip()
    return click.style(f"[{inner}]", fg="yellow") + text[len(inner) :]


def _show_repeats(run_dir: str) -> None:
    from curator_core.running.repeats import repeats_of  # imports pyarrow

    found = repeats_of(run_dir)
    if not found:
        return
    parts, documents = count(found["spans"], "repeated part"), count(found["documents"], "document")
    click.echo(f"\n{parts}, {found['characters']:,} characters, in {documents}")
    if found["spans"]:
        click.echo(f"`curate dedup show {run_dir} ID` shows those of a document")


def _show_collections(run_dir: str) -> None:
    from curator_core.across.losses import losses  # imports pyarrow

    try:
        found = losses(_table_of(run_dir))
    except CuratorError:  # the user gave another folder for the table, or there are parts of documents
        _show_repeats(run_dir)
        return
    rows = [
        (loss.collection or ".", f"{loss.documents:,}", f"{loss.removed:,}", percent(loss.removed, loss.documents))
        for loss in found
    ]
    if not rows:
        return
    click.echo("")
    for line in aligned([("collection", "documents", "removed", "share"), *rows]):
        click.echo(line)
    column = click.get_current_context().params.get("id_column")
    if column and any(loss.removed for loss in found) and not _has_ids(_table_of(run_dir)):
        click.echo(
            f"warning: no document in the table has a value in the column {column!r} (--id-column): they are named SOURCE:ROW"
        )
    for loss in found:
        others_removed = sum(other.removed for other in found) - loss.removed
        others = sum(other.documents for other in found) - loss.documents
        share = loss.removed / max(1, loss.documents)
        peers = others_removed / max(1, others)
        name = repr(loss.collection or ".")
        look = f"look at some pairs with `curate dedup show {run_dir} ID` before you use the result"
        loses = f"warning: collection {name} loses {percent(loss.removed, loss.documents)} of its documents"
        if share > _MOST_LOST:
            click.echo(f"{loses}: {look}")
        elif others and share > _TIMES_PEERS * peers and loss.removed >= 100:
            click.echo(f"{loses}, the others together {percent(others_removed, others)}: {look}")
