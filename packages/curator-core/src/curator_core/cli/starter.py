"""A pipeline file for the user's data: the format, the columns and the column with the text are detected.

Core has no modality, so this module contains only names: a reader for each file ending, and filters that packages
register. If the package is not installed, the error names the command that installs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curator_core import formatting, storage
from curator_core.config.build import build_stage
from curator_core.config.dump import inline
from curator_core.data.files import PACKAGE, Data, look_at, reader_of
from curator_core.errors import UsageError
from curator_core.pipeline import Pipeline

if TYPE_CHECKING:
    from curator_core.running.preview import Preview

# The number of rows that are read to learn the columns.
_ROWS = 200


def starter(data: str, template: str | None, folder: str) -> tuple[str, str]:
    """The text of a pipeline file that runs on ``data``, and a short description of the data.

    ``folder`` is where the file will be; its paths are relative to it.
    """
    found = look_at(data)
    reader, kind = reader_of(found)
    if template not in (None, kind):
        raise UsageError(
            f"{data!r} holds {_named(found)}: that is for `curate init {kind}`, not for {template!r}; leave the "
            "template out to let Curator choose"
        )
    params: dict[str, Any] = {"paths": found.paths}
    if kind == "image":
        params["decode"] = False
    try:
        preview = Pipeline([build_stage(reader, params)]).preview(rows=_ROWS)
    except UsageError as error:
        if "there is no stage" in str(error):
            raise UsageError(f'reading {_named(found)} needs: pip install "{PACKAGE[kind]}"') from error
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
    """The name of the run: the name of the folder or file, without endings and without characters that break a path or
    YAML.
    """
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
        "  # `mode: annotate` keeps all documents and adds the score as a column, so you can look before you drop.",
        f"  - WordCountFilter: {inline({'min_words': 50, 'max_words': 100000, **own})}",
        f"  - SymbolsToWordsFilter: {inline(own)}",
        f"  - GopherRepetitionFilter: {inline(own)}",
        f"  - GopherQualityFilter: {inline(own)}",
        "",
    ]
    if "id" in columns:
        lines += ["  # The data have ids in `id`, which stay as they are.", ""]
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
        "  # These need only the header of an image, so they come first: images that they drop are not decoded.",
        "  # `mode: annotate` keeps all rows and adds the score as a column, so you can look before you drop.",
        "  - ResolutionFilter: {min_width: 256, min_height: 256}",
        "  - AspectRatioFilter: {min_ratio: 0.4, max_ratio: 2.5}",
    ]
    if preview.captions:
        lines.append("  - CaptionLengthFilter: {}")
    lines += [
        "",
        "  # The following stages look at the picture. It is decoded once, at the sizes that they need.",
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
        f"run_dir: runs/{name} # ledger, rejects and report; --resume continues from there",
        "on_error: fail # if a stage raises an error; quarantine sets the rows at fault aside and continues (exit code 3)",
        "",
    ]


def _parameters(params: Mapping[str, Any]) -> list[str]:
    return [f"      {key}: {inline(value)}" for key, value in params.items()]
