"""How are the data that a run has written described for others? By a dataset card for Hugging Face, and in Croissant.

Counts, stages and versions come from the run, columns from the data. Facts that only the user knows (licence, creator,
address) are left open unless given, and are listed in ``left``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from curator_core import formatting, storage
from curator_core.arrow.json_column import JSON
from curator_core.data.files import READERS
from curator_core.data.rows import open_rows
from curator_core.errors import UsageError, nearest
from curator_core.running.directory import RunDirectory
from curator_core.running.result import RunSummary
from curator_core.running.steps import counting_folder

CARD, CROISSANT = "README.md", "croissant.jsonld"
_SIZES = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12)
# Croissant's names for file types, by ending.
_ENCODINGS = {
    "jsonl": "application/jsonlines",
    "ndjson": "application/jsonlines",
    "json": "application/jsonlines",
    "parquet": "application/x-parquet",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "tar": "application/x-tar",
}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass
class Card:
    """The two files, and the facts that are left to the user. ``folder`` contains the data."""

    folder: str
    readme: str
    croissant: dict[str, Any]
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def croissant_text(self) -> str:
        return json.dumps(self.croissant, ensure_ascii=False, indent=1) + "\n"

    def write(self, *, replace: bool = False) -> list[str]:
        """Write both files beside the data. Existing files raise an error unless ``replace`` is set."""
        files = {CARD: self.readme, CROISSANT: self.croissant_text}
        paths = {storage.join(self.folder, name): text for name, text in files.items()}
        there = [path for path in paths if storage.exists(path)]
        if there and not replace:
            raise UsageError(
                f"{', '.join(map(repr, there))} exists already, perhaps with your additions: overwrite with --replace"
            )
        for path, text in paths.items():
            storage.write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))
        return list(paths)


def make_card(run_dir: str, output: str | None = None, **given: str | None) -> Card:
    """Make the card for the output of a run; ``output`` is the writer if there are several.

    ``given`` may contain ``license``, ``creator`` and ``url``.
    """
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json")
    if record is None:
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    if record.get("state") not in ("done", "quarantined"):
        raise UsageError(
            f"the run in {run_dir!r} is {record.get('state')}: a card can only be made for a run that has ended"
        )
    counted = RunDirectory(counting_folder(run_dir) or run_dir)
    summary = RunSummary.from_dict(record["summary"])
    folder = _output_folder(run_dir, (counted.read_json("run.json") or {}).get("outputs") or {}, output)
    rows = open_rows(_data_in(folder), few=True)
    schema = _schema(rows)
    steps = (counted.read_json("plan.json") or {}).get("steps") or []
    facts = _Facts(
        summary, record, steps, rows.found.ending, schema, {key: value for key, value in given.items() if value}
    )
    left = [name for name in ("license", "creator", "url") if name not in facts.given]
    croissant, notes = _croissant(facts)
    return Card(folder, _readme(facts), croissant, left, notes)


@dataclass
class _Facts:
    summary: RunSummary
    record: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    ending: str
    schema: pa.Schema
    given: Mapping[str, str]

    @property
    def rows(self) -> int:
        return self.summary.rows_written or self.summary.rows_out

    @property
    def pattern(self) -> str:
        return f"**/*.{self.ending}*" if self.ending not in ("parquet", "tar") else f"**/*.{self.ending}"

    @property
    def says(self) -> str:
        summary = self.summary
        text = f"{formatting.count(self.rows, 'row')} that the run {summary.name!r} has kept out of {summary.rows_in:,}"
        versions = self.record.get("versions") or {}
        made = f" with curator-core {versions['curator-core']}" if "curator-core" in versions else ""
        return f"{text}{made}."


def _output_folder(run_dir: str, outputs: Mapping[str, Any], output: str | None) -> str:
    folders = {name: found["folder"] for name, found in outputs.items() if not name.endswith(": dropped rows")}
    if output is not None:
        if output not in folders:
            raise UsageError(
                f"the run in {run_dir!r} has no output {output!r}{nearest(output, folders)}; it has: "
                f"{', '.join(folders) or 'none'}"
            )
        return str(folders[output])
    if not folders:
        raise UsageError(f"the run in {run_dir!r} has written no data for a card: it has no writer")
    if len(folders) > 1:
        raise UsageError(f"the run in {run_dir!r} has several outputs, choose one with --output: {', '.join(folders)}")
    return str(next(iter(folders.values())))


def _data_in(folder: str) -> str:
    """The files of the format with the most bytes, without an existing card."""
    sizes: dict[str, int] = {}
    for file in storage.scan(folder, recursive=True):
        name = storage.file_name(file.path)
        ending = next((part for part in reversed(name.lower().split(".")[1:]) if part in READERS), None)
        if ending is not None and name not in (CARD, CROISSANT):
            sizes[ending] = sizes.get(ending, 0) + file.size
    return storage.join(folder, f"**/*.{max(sizes, key=lambda each: (sizes[each], each))}*") if sizes else folder


def _schema(rows: Any) -> pa.Schema:
    """The columns of the first rows."""
    for source in rows.sources():
        for batch in rows.batches(source):
            if batch.num_rows:
                return batch.to_pyarrow().schema
    return pa.schema([])


def _size_category(rows: int) -> str:
    def short(value: int) -> str:
        for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
            if value >= size:
                return f"{value // size}{unit}"
        return str(value)

    below = next((size for size in _SIZES if rows < size), None)
    if below is None:
        return "n>1T"
    return "n<1K" if below == 1000 else f"{short(below // 10)}<n<{short(below)}"


def _readme(facts: _Facts) -> str:
    summary = facts.summary
    head: dict[str, Any] = {
        "pretty_name": summary.name,
        "size_categories": [_size_category(facts.rows)],
        "tags": ["curator", "croissant"],
        "configs": [{"config_name": "default", "data_files": facts.pattern}],
    }
    if "license" in facts.given:
        head = {"license": facts.given["license"], **head}
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    if "license" not in facts.given:
        front = "# license: you must state it: the run cannot know it, and filtering data does not change it\n" + front
    parts = [f"---\n{front}---", f"# {_md(summary.name)}", _md(facts.says)]
    if "license" in facts.given:
        parts.append(f"## License\n\n{_md(facts.given['license'])}")
    else:
        parts.append("## License\n\nNot stated yet.")
    parts.append(
        "## Counts\n\n"
        + _table(
            ("", "rows"),
            [
                ("read", summary.rows_in),
                ("kept", facts.rows),
                ("dropped", summary.rows_dropped),
                ("rejected (could not be read or used)", summary.rows_rejected),
                ("quarantined (a stage raised an error)", summary.rows_quarantined),
            ],
        )
        + f"\n\n{formatting.count(summary.sources, 'source')}, {formatting.count(summary.files, 'file')} of "
        f"{formatting.size(summary.bytes)}."
    )
    parts.append("## How it was made\n\n" + _stage_table(summary))
    reasons = [
        (stage.name, reason, rows)
        for stage in summary.stages
        for reason, rows in {**stage.dropped, **stage.rejected}.items()
    ]
    if reasons:
        parts.append("### Why rows left the pipeline\n\n" + _table(("stage", "reason", "rows"), reasons))
    counted = {stage.name for stage in summary.stages}  # a stage that only lists the files has no counts
    settings = [
        (step["name"], _parameters(step.get("params") or {})) for step in facts.steps if step["name"] in counted
    ]
    if settings:
        parts.append("### Settings\n\n" + _table(("stage", "parameters"), settings))
    if len(facts.schema):
        columns = [(each.name, _type_name(each.type)) for each in facts.schema]
        parts.append("## Columns\n\n" + _table(("column", "type"), columns))
    versions = ", ".join(f"{name} {version}" for name, version in (facts.record.get("versions") or {}).items())
    if versions:
        parts.append(f"Made with {_md(versions)}, on {_md(str(facts.record.get('ended', ''))[:10])}.")
    return "\n\n".join(parts) + "\n"


def _stage_table(summary: RunSummary) -> str:
    rows = [
        (stage.name, stage.rows_in, stage.rows_out, stage.rows_dropped, stage.rows_rejected + stage.quarantined)
        for stage in summary.stages
    ]
    return _table(("stage", "rows in", "kept", "dropped", "set aside"), rows)


def _parameters(params: Mapping[str, Any]) -> str:
    """The parameters except paths, which describe a machine rather than the data."""
    shown = {
        key: value
        for key, value in params.items()
        if value is not None and key.rpartition("_")[2] not in ("path", "paths", "folder", "dir", "file")
    }
    text = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in shown.items())
    return text if len(text) <= 500 else text[:499] + "…"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---:" if rows and isinstance(rows[0][at], int) else "---" for at in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value) if set(str(value)) <= set("-:") else _md(str(value))


def _md(text: str) -> str:
    """Escape text for Markdown and for the HTML that is made from it."""
    clean = formatting.printable(text)
    for sign in "\\`*_[]|":
        clean = clean.replace(sign, "\\" + sign)
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _croissant(facts: _Facts) -> tuple[dict[str, Any], list[str]]:
    summary, given = facts.summary, facts.given
    notes: list[str] = []
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": summary.name,
        "description": facts.says,
    }
    if "license" in given:
        found["license"] = given["license"]
    if "url" in given:
        found["url"] = given["url"]
    if "creator" in given:
        found["creator"] = {"@type": "sc:Person", "name": given["creator"]}
    if facts.record.get("ended"):
        found["datePublished"] = str(facts.record["ended"])[:10]
    found["distribution"] = [
        {
            "@type": "cr:FileSet",
            "@id": "data-files",
            "name": "data-files",
            "description": f"{formatting.count(summary.files, 'file')} with {formatting.count(facts.rows, 'row')}",
            "encodingFormat": _ENCODINGS.get(facts.ending, "application/octet-stream"),
            "includes": facts.pattern.removeprefix("**/"),  # in Croissant, a star also matches folders
        }
    ]
    fields = []
    for each in facts.schema:
        kind, repeated = _data_type(each.type)
        if kind is None:
            notes.append(
                f"column {each.name!r} ({_type_name(each.type)}) is not in {CROISSANT}, which has no type for it"
            )
            continue
        fields.append(
            {
                "@type": "cr:Field",
                "@id": f"rows/{each.name}",
                "name": each.name,
                "dataType": kind,
                **({"repeated": True} if repeated else {}),
                "source": {"fileSet": {"@id": "data-files"}, "extract": {"column": each.name}},
            }
        )
    if fields and facts.ending != "tar":
        found["recordSet"] = [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}]
    return found, notes


def _type_name(kind: pa.DataType) -> str:
    return "JSON" if kind == JSON else str(kind)


def _data_type(kind: pa.DataType) -> tuple[str | None, bool]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _data_type(kind.value_type)[0], True
    tests = (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_string, "sc:Text"),
        (pa.types.is_large_string, "sc:Text"),
        (pa.types.is_timestamp, "sc:Date"),
        (pa.types.is_date, "sc:Date"),
    )
    return next((name for test, name in tests if test(kind)), None), False
