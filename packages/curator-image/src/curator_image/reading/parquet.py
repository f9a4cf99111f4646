"""Turns Parquet with a column of encoded images into tables of images; all other columns are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array
from curator_core.errors import UsageError
from curator_image.batch import CAPTION, KEY, ODD, PICTURES
from curator_image.decode.probe import BadImage, probe
from curator_image.reading.options import ReadOptions, named_fields
from curator_image.reading.rows import FIXED, JSON_TYPES, NOT_UTF8, Odd, Rows, decoded, lift, parsed
from curator_image.reading.samples import Bad, extension_of
from curator_image.tar.read import MEMBER_TOO_LARGE

BROKEN_PARQUET = "broken parquet"
_IMAGE_COLUMNS = ("bytes", "image", "img", "jpg", "image_bytes", "content")
_OURS = frozenset({*FIXED, ODD, *PICTURES})


def parquet_tables(path: str, options: ReadOptions) -> Iterator[pa.Table | Bad]:
    """The images of a file as tables, and the problems of rows that cannot be read. The options limit the memory."""
    import pyarrow.parquet as pq

    with storage.open_input(path) as stream:
        try:
            file = pq.ParquetFile(stream)
            part = _Part(path, options, file.schema_arrow)
            groups = [
                _rows_and_rows_at_once(file.metadata, group, part.column, options)
                for group in range(file.num_row_groups)
            ]
        except _DAMAGE as error:
            yield Bad(BROKEN_PARQUET, "footer", _text_of(error))
            return
        first = 0
        for group, (rows, at_once) in enumerate(groups):
            # Read row groups one by one: an image column may be large, and a broken group must not hide the others.
            row = first
            first += rows
            batches = file.iter_batches(at_once, [group])
            while row < first:
                try:
                    table = pa.Table.from_batches([next(batches)])
                except (*_DAMAGE, StopIteration) as error:
                    yield Bad(BROKEN_PARQUET, f"rows {row} to {first - 1}", _text_of(error), rows=first - row)
                    break
                yield from part.tables(table, row)
                row += table.num_rows


# Errors that pyarrow raises for bytes that are not Parquet.
_DAMAGE = (pa.ArrowException, ValueError, OSError)


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        raise error  # the disk or the network failed; the file is not damaged
    return str(error).strip() or "it is truncated"


def _rows_and_rows_at_once(metadata: Any, group: int, column: str, options: ReadOptions) -> tuple[int, int]:
    """How many rows a row group has, and how many to read at once: a batch, or fewer if images are large."""
    found = metadata.row_group(group)
    rows: int = found.num_rows
    size: int = sum(
        chunk.total_uncompressed_size
        for chunk in map(found.column, range(found.num_columns))
        if chunk.path_in_schema.split(".")[0] == column
    )
    return rows, max(1, min(options.images_per_batch, options.bytes_per_batch * rows // max(1, size)))


class _Part:
    """One Parquet file: the roles of its columns, and its rows as images."""

    def __init__(self, path: str, options: ReadOptions, schema: pa.Schema) -> None:
        self._path = path
        self._options = options
        self._fields = named_fields(options.json_fields)
        self.column = _bytes_column(path, schema, options.bytes_column)
        self._key = options.key_column or (KEY if KEY in schema.names else None)
        if self._key is not None and self._key not in schema.names:
            raise UsageError(f"{path!r} has no column {self._key!r} (key_column); it has {', '.join(schema.names)}")

    def tables(self, table: pa.Table, first: int) -> Iterator[pa.Table | Bad]:
        """The images among the rows, which begin with row ``first`` of the file."""
        table, mended = _with_texts(table)
        keys = self._keys(table)
        beside = {ext: _are_there(table, name) for ext, name in (("txt", CAPTION), ("json", "json"))}
        # The text of the other columns is kept as it is, so only JSON, which is checked, is looked at.
        json_texts = table.column("json").to_pylist() if "json" in table.column_names else []
        rows = Rows({}, (), self._options.reject_odd)
        good: list[int] = []
        for row, data in enumerate(_encoded(table.column(self.column))):
            key = keys[row] or f"{first + row:09d}"
            if len(data) > self._options.max_member_bytes:
                text = f"{len(data):,} bytes, more than {self._options.max_member_bytes:,}"
                yield Bad(MEMBER_TOO_LARGE, key, text, data[:1024])
                continue
            try:
                header = probe(data, max_pixels=self._options.max_pixels, max_side=self._options.max_side)
            except BadImage as error:
                yield Bad(error.reason, key, error.message, data)
                continue
            ext = extension_of(header.format)
            members = {ext: data} | {other: b"" for other, there in beside.items() if there[row]}
            if "json" in members:
                text = json_texts[row]
                members["json"] = text.encode() if isinstance(text, str) else b"null"
            try:
                rows.add(key, self._path, ext, header, members, odd=[NOT_UTF8] if row in mended else [])
            except Odd as error:
                yield Bad(error.reason, key, error.message, data)
                continue
            good.append(row)
            if rows.bytes >= self._options.bytes_per_batch:
                yield self._made(rows, table.take(array(good, pa.int64())))
                rows.clear()
                good = []
        if good:
            yield self._made(rows, table.take(array(good, pa.int64())) if len(good) < table.num_rows else table)

    def _made(self, rows: Rows, given: pa.Table) -> pa.Table:
        made = rows.table()
        # These columns were only needed for `members`.
        made = made.drop_columns([name for name in (CAPTION, "json") if name in made.column_names])
        for name in given.column_names:
            if name not in (self.column, self._key):
                made = made.append_column(_free_name(name, given), given.column(name))
        for name in (CAPTION, "json"):
            if name not in made.column_names:
                made = made.append_column(name, pa.nulls(made.num_rows, pa.string()))
        return self._with_fields(made)

    def _with_fields(self, made: pa.Table) -> pa.Table:
        """The requested JSON fields, each from a column of that name or from the ``json`` column."""
        wanted = {name: kind for name, kind in self._fields.items() if not _is_there(made, name, JSON_TYPES[kind])}
        if not wanted:
            return made
        facts = [parsed(value)[0] if isinstance(value, str) else value for value in made.column("json").to_pylist()]
        for name, kind in wanted.items():
            if name in made.column_names:
                values = made.column(name).to_pylist()
                made = made.drop_columns([name])
            else:
                values = [fact.get(name) if isinstance(fact, dict) else None for fact in facts]
            made = made.append_column(name, array([lift(value, kind) for value in values], JSON_TYPES[kind]))
        return made

    def _keys(self, table: pa.Table) -> list[str | None]:
        if self._key is None:
            return [None] * table.num_rows
        try:
            keys: list[str | None] = table.column(self._key).cast(pa.string()).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            kind = table.schema.field(self._key).type
            raise UsageError(f"{self._path!r}: column {self._key!r} of {kind} cannot be the key of an image") from error
        return keys


def _bytes_column(path: str, schema: pa.Schema, wanted: str | None) -> str:
    has = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{path!r} has no column {wanted!r} (bytes_column); it has {has}")
        if not _holds_bytes(schema.field(wanted).type):
            raise UsageError(
                f"{path!r}: column {wanted!r} holds {schema.field(wanted).type}, but bytes_column must hold encoded images "
                f"(binary, or a struct with bytes in it); it has {has}"
            )
        return wanted
    for name in _IMAGE_COLUMNS:
        if name in schema.names and _holds_bytes(schema.field(name).type):
            return name
    raise UsageError(
        f"{path!r} has no column {' or '.join(map(repr, _IMAGE_COLUMNS))} of bytes: name the one that holds the encoded "
        f"images with bytes_column. It has {has}"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # as Hugging Face datasets store images
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_null(kind)
    )


def _encoded(images: pa.ChunkedArray) -> Iterator[bytes]:
    nested = pa.types.is_struct(images.type)
    for chunk in images.chunks:
        for value in chunk:
            found = value["bytes"] if nested and value.is_valid else value
            yield found.as_py() or b"" if value.is_valid else b""


def _with_texts(table: pa.Table) -> tuple[pa.Table, set[int]]:
    """The table with valid UTF-8 texts, and the rows where they were not valid: Parquet does not check them."""
    mended: set[int] = set()
    for place, column in enumerate(table.schema):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        try:
            table.column(place).validate(full=True)
        except pa.ArrowInvalid:
            found = [None if raw is None else decoded(raw) for raw in table.column(place).cast(pa.binary()).to_pylist()]
            mended |= {row for row, value in enumerate(found) if value is not None and value[1] == NOT_UTF8}
            texts = array([None if value is None else value[0] for value in found], pa.string())
            table = table.set_column(place, column.name, texts.cast(column.type))
    return table, mended


def _are_there(table: pa.Table, name: str) -> list[bool]:
    if name not in table.column_names:
        return [False] * table.num_rows
    there: list[bool] = table.column(name).is_valid().to_pylist()
    return there


def _free_name(name: str, table: pa.Table) -> str:
    """The name for a column of the file; it gets the prefix ``parquet_`` if a column about the picture has its name."""
    if name not in _OURS:
        return name
    free = f"parquet_{name}"
    while free in table.column_names:
        free = f"parquet_{free}"
    return free


def _is_there(table: pa.Table, name: str, kind: pa.DataType) -> bool:
    return name in table.column_names and table.schema.field(name).type == kind
