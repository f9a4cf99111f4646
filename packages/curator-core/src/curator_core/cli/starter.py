"""A pipeline file for the user's data: format, columns and the column with the text are detected in the data.

Core has no modality, so what is written here are names: a reader for each ending, and filters that a package
registers. Where the package is not installed, the error names the command that installs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curator_core import formatting, storage
from curator_core.config.build import build_stage
from curator_core.config.dump import inline
from curator_core.errors import UsageError
from curator_core.pipeline import Pipeline
from curator_core.stages.files import is_data, is_pattern

if TYPE_CHECKING:
    from curator_core.running.preview import Preview

_COMPRESSED = (".gz", ".bgz", ".zst", ".bz2", ".xz")
_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
# By file ending, the reader and the template that suits its rows.
READERS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("jsonl", "ndjson", "json"), ("JsonlReader", "text")),
    **dict.fromkeys(("csv", "tsv"), ("CsvReader", "text")),
    **dict.fromkeys(("txt", "md", "text"), ("TextFilesReader", "text")),
    **dict.fromkeys(("warc", "wet"), ("WarcReader", "text")),
    "parquet": ("ParquetReader", "text"),
    "tar": ("ImageReader", "image"),
    "tgz": ("ImageReader", "image"),
    **dict.fromkeys(sorted(_IMAGES), ("ImageReader", "image")),
}
_PACKAGE = {"text": "curator-text", "image": "curator-image"}
# How many rows are read to learn the columns.
_ROWS = 200


@dataclass(frozen=True)
class Data:
    """Files of one format, as a reader names them."""

    paths: str
    ending: str
    files: int
    bytes: int
    others: Mapping[str, int]  # files of other formats that lie beside them, by ending


def look_at(data: str) -> Data:
    """What lies at ``data``: a file, a folder, or a pattern; of several formats the one with the most bytes."""
    if is_pattern(data):
        files = list(storage.match_files(data))
        pattern = True
    elif storage.is_folder(data):
        files = [file for file in storage.scan(data, recursive=True) if is_data(file.path, data)]
        pattern = False
    else:
        files, pattern = [storage.info(data)], True  # an error that names the path, if there is none
    if not files:
        raise UsageError(f"{data!r} holds no file to read")
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}
    spellings: dict[str, set[str]] = {}
    for file in files:
        ending, full = _ending(file.path)
        sizes[ending] = sizes.get(ending, 0) + file.size
        counts[ending] = counts.get(ending, 0) + 1
        spellings.setdefault(ending, set()).add(full)
    known = [ending for ending in sizes if ending in READERS]
    if not known:
        raise UsageError(
            f"{data!r} holds files of {', '.join(repr(ending) for ending in sorted(counts)[:5])}, which no reader of "
            f"Curator takes; it reads {', '.join(sorted(READERS))}"
        )
    # Image files beside their captions are one thing: a text file is one of several then.
    best = max(known, key=lambda ending: (sizes[ending], ending))
    images = [ending for ending in known if ending in _IMAGES]
    group = images if best in _IMAGES else [best]
    paths = data
    # A caption beside its picture has no reader of its own; other formats beside the chosen one are kept out by a pattern.
    beside = {e: n for e, n in counts.items() if e not in group and not (best in _IMAGES and e in ("txt", "json"))}
    if beside and not pattern and best not in _IMAGES:
        spelled = sorted(spellings[best])
        paths = storage.join(data, f"**/*{spelled[0] if len(spelled) == 1 else f'.{best}*'}")
    return Data(paths, best, sum(counts[e] for e in group), sum(sizes[e] for e in group), beside)


def _ending(path: str) -> tuple[str, str]:
    """``jsonl`` and ``.jsonl.gz`` of ``part-1.jsonl.gz``."""
    name = storage.file_name(path)
    base, compression = name, ""
    for suffix in _COMPRESSED:
        if name.lower().endswith(suffix):
            base, compression = name[: -len(suffix)], name[-len(suffix) :]
            break
    stem, dot, ending = base.rpartition(".")
    return (ending.lower(), f".{ending}{compression}") if dot and stem else ("", "")


def starter(data: str, template: str | None, folder: str) -> tuple[str, str]:
    """The text of a pipeline file that runs on ``data``, and what was found there in a few words.

    ``folder`` is where the file will lie: its paths are relative to it.
    """
    found = look_at(data)
    reader, kind = READERS[found.ending]
    if found.ending == "parquet" and _holds_images(found.paths):
        reader, kind = "ImageReader", "image"
    if template not in (None, kind):
        raise UsageError(
            f"{data!r} holds {_named(found)}: that is for `curate init {kind}`, not for {template!r}; leave the "
            "template out to have it chosen"
        )
    params: dict[str, Any] = {"paths": found.paths}
    if kind == "image":
        params["decode"] = False
    try:
        preview = Pipeline([build_stage(reader, params)]).preview(rows=_ROWS)
    except UsageError as error:
        if "there is no stage" in str(error):
            raise UsageError(f'reading {_named(found)} needs: pip install "{_PACKAGE[kind]}"') from error
        raise
    if preview.problem:
        raise UsageError(preview.problem)
    params["paths"] = _relative(found.paths, folder)
    name = _run_name(data)
    text = (
        _text_file(name, reader, params, found, preview)
        if kind == "text"
        else _image_file(name, params, found, preview)
    )
    return text, _found(found, preview, kind)


def _run_name(data: str) -> str:
    """What the run is called: the folder or file, without endings and without what a path or YAML would trip over."""
    base = storage.fixed_base(data) if storage.has_magic(data) else data
    stem = storage.file_name(base.rstrip("/")).partition(".")[0]
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")
    return name if name and not name.isdigit() and inline(name) == name else f"run-{name}".rstrip("-")


def _found(found: Data, preview: Preview, kind: str) -> str:
    lines = [f"{found.paths}: {_named(found)}, {formatting.size(found.bytes)}"]
    if found.others:
        others = ", ".join(f"{count} {ending or 'with no ending'}" for ending, count in sorted(found.others.items()))
        lines.append(f"left out, of other formats: {others}")
    if preview.columns:
        lines.append(f"columns: {', '.join(f'{name} ({type_})' for name, type_ in preview.columns.items())}")
    if kind == "text" and preview.text_column:
        lines.append(f"the text is in {preview.text_column!r}")
    return "\n".join(lines)


def _named(found: Data) -> str:
    return f"{formatting.count(found.files, 'file')} of {found.ending}"


def _holds_images(paths: str) -> bool:
    """Whether the first Parquet file has a column of encoded images: binary, or Hugging Face's struct with bytes."""
    first = paths
    if storage.is_folder(paths):
        first = next(path for path in storage.list_files(paths) if path.lower().endswith(".parquet"))
    elif storage.has_magic(paths):
        first = next(iter(storage.match_files(paths))).path
    with storage.open_input(first) as file:
        schema = pq.read_schema(file)
    for column in schema:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return True
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return True
    return False


def _relative(paths: str, folder: str) -> str:
    if not storage.is_local(paths):
        return paths
    there = storage.absolute(paths)
    try:
        relative = os.path.relpath(there, folder)
    except ValueError:  # another drive
        return there
    return there if relative.startswith(f"..{os.sep}..") else relative


def _text_file(name: str, reader: str, params: Mapping[str, Any], found: Data, preview: Preview) -> str:
    columns = dict(preview.columns)
    column = preview.text_column
    lines = _head(name, found, preview)
    lines += [f"  - {reader}:", *_parameters(params)]
    if reader == "WarcReader":
        if found.ending == "wet":
            lines.append("      record_types: [conversion]")
        lines += ["", "  # The text of each page; menus and footers are left out.", "  - HtmlExtractor: {}"]
        columns, column = {"id": "string", "url": "string"}, "text"
    if column is None:
        raise UsageError(
            f"{found.paths!r} has no column that looks like text: its columns are "
            f"{', '.join(f'{name} ({kind})' for name, kind in columns.items()) or 'none'}; begin with `curate init text` "
            "and name the column in the filters: column: NAME"
        )
    own = {} if column == "text" else {"column": column}
    lines += [
        "",
        "  # A filter scores each document and keeps those whose score is in range; the report says what it dropped.",
        "  # `mode: annotate` keeps all documents and adds the score as a column, to look before you cut.",
        f"  - WordCountFilter: {inline({'min_words': 50, 'max_words': 100000, **own})}",
        f"  - SymbolsToWordsFilter: {inline(own)}",
        f"  - GopherRepetitionFilter: {inline(own)}",
        f"  - GopherQualityFilter: {inline(own)}",
        "",
    ]
    if "id" in columns:
        lines += ["  # The data has ids in `id`, which stay as they are.", ""]
    else:
        wanted = {"columns": [column], "prefix": "doc-"}
        lines += [
            "  # An id made of the text: the same text has the same id everywhere.",
            f"  - AddId: {inline(wanted)}",
            "",
        ]
    return "\n".join([*lines, "  - JsonlWriter:", "      path: out/", *_tail(name)])


def _image_file(name: str, params: Mapping[str, Any], found: Data, preview: Preview) -> str:
    lines = _head(name, found, preview)
    lines += [
        "  - ImageReader:",
        *_parameters(params),
        "",
        "  # These need only the header of an image, so they come first: nothing is decoded for what they drop.",
        "  # `mode: annotate` keeps all rows and adds the score as a column, to look before you cut.",
        "  - ResolutionFilter: {min_width: 256, min_height: 256}",
        "  - AspectRatioFilter: {min_ratio: 0.4, max_ratio: 2.5}",
    ]
    if preview.captions:
        lines.append("  - CaptionLengthFilter: {}")
    lines += [
        "",
        "  # From here on stages look at the picture. It is decoded once, at the sizes that they need.",
        "  - ImageDecode",
        "  - UniformFilter: {}",
        "  - BlurFilter: {}",
        "",
    ]
    if "id" not in preview.columns:
        wanted = {"columns": ["bytes"], "prefix": "img-"}
        lines += [
            "  # An id made of the image's bytes: the same file has the same id everywhere.",
            f"  - AddId: {inline(wanted)}",
            "",
        ]
    return "\n".join([*lines, "  - ImageWriter:", "      path: out/", *_tail(name)])


def _head(name: str, found: Data, preview: Preview) -> list[str]:
    shown = ", ".join(preview.columns) or "none"
    return [
        f"# Made for {_named(found)} ({formatting.size(found.bytes)}). Their columns: {shown}",
        "# See what would happen: curate plan FILE       Do it: curate run FILE",
        "# All stages: curate stages                     One of them: curate stages WordCountFilter",
        "",
        f"name: {name}",
        "",
        "stages:",
    ]


def _tail(name: str) -> list[str]:
    return [
        "",
        "executor: local # every core of this machine; or {local: {workers: 2}}, ray_data, xenna",
        f"run_dir: runs/{name} # ledger, rejects and report; --resume continues with what is there",
        "on_error: fail # when a stage raises; quarantine sets the offending rows aside and continues (exit code 3)",
        "",
    ]


def _parameters(params: Mapping[str, Any]) -> list[str]:
    return [f"      {key}: {inline(value)}" for key, value in params.items()]
