"""Reads lists of addresses: Parquet, CSV, JSONL, or text with one address a line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from curator_core import storage
from curator_core.errors import CuratorError, UsageError, check_whole
from curator_core.model.stage import ANY_COLUMNS, FanOut
from curator_core.model.task import DocumentBatch, FileGroupTask

PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson", ".json", ".txt")
EXTENSIONS = (*PARQUET, *(f"{end}{pack}" for end in (*TABLES, *LINES) for pack in ("", ".gz")))


@dataclass(kw_only=True)
class UrlListRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads lists of addresses, ``urls_per_shard`` rows a batch; see `ImageDownload`."""

    url_column: str = "url"
    caption_column: str | None = None
    columns: Sequence[str] | None = None
    urls_per_shard: int = 1000

    def __post_init__(self) -> None:
        check_whole(f"{type(self).__name__}.urls_per_shard", self.urls_per_shard)
        if not isinstance(self.url_column, str) or not self.url_column:
            raise UsageError(f"{type(self).__name__}.url_column must be the name of a column, not {self.url_column!r}")
        if isinstance(self.columns, str):
            raise UsageError(f"{type(self).__name__}.columns must be a list such as [{self.columns!r}]")

    def outputs(self) -> list[str]:
        return [*self._wanted(), ANY_COLUMNS]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            waiting: list[pa.Table] = []
            rows = 0
            for table in self._tables(path):
                waiting.append(table)
                rows += table.num_rows
                while rows >= self.urls_per_shard:
                    joined = pa.concat_tables(waiting, promote_options="permissive")
                    yield self._batch(joined.slice(0, self.urls_per_shard), task)
                    waiting = [joined.slice(self.urls_per_shard)]
                    rows -= self.urls_per_shard
            if rows:
                yield self._batch(pa.concat_tables(waiting, promote_options="permissive"), task)

    def _batch(self, table: pa.Table, task: FileGroupTask) -> DocumentBatch:
        self.record_read(table.num_rows)
        return DocumentBatch(data=table.combine_chunks(), dataset_name=task.dataset_name)

    def _wanted(self) -> list[str]:
        names = [self.url_column, self.caption_column, *(self.columns or ())]
        return list(dict.fromkeys(name for name in names if name))

    def _tables(self, path: str) -> Iterator[pa.Table]:
        plain = path.lower().removesuffix(".gz")
        if plain.endswith(PARQUET):
            tables = self._parquet(path)
        elif plain.endswith(TABLES):
            tables = self._csv(path, "\t" if plain.endswith(".tsv") else ",")
        else:
            tables = self._lines(path, plain.endswith(".txt"))
        for table in tables:
            missing = [name for name in self._wanted() if name not in table.column_names]
            if missing:
                raise UsageError(
                    f"{path!r} has no column {missing[0]!r}: it has {', '.join(table.column_names)}. "
                    "Set url_column, caption_column and columns to the names in your lists"
                )
            yield table.select(self._wanted()) if self.columns is not None else table

    def _parquet(self, path: str) -> Iterator[pa.Table]:
        with storage.open_input(path) as file:
            reader = pyarrow.parquet.ParquetFile(file)
            names = self._wanted() if self.columns is not None else None
            known = [name for name in names if name in reader.schema_arrow.names] if names else None
            for batch in reader.iter_batches(batch_size=self.urls_per_shard, columns=known):
                yield pa.Table.from_batches([batch])

    def _csv(self, path: str, delimiter: str) -> Iterator[pa.Table]:
        broken: list[tuple[int, str]] = []

        def set_aside(row: Any) -> str:
            # Arrow does not report the number of a row when it reads in parallel; the text is enough to find the row.
            broken.append((row.number or 0, row.text))
            return "skip"

        packed = "gzip" if path.lower().endswith(".gz") else None
        form = {"delimiter": delimiter, "newlines_in_values": True}
        with storage.open_input(path) as file:
            head = pyarrow.csv.open_csv(
                pa.input_stream(file, compression=packed),
                read_options=pyarrow.csv.ReadOptions(use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(**form, invalid_row_handler=_skip),
            )
            names = head.schema.names
        with storage.open_input(path) as file:
            reader = pyarrow.csv.open_csv(
                pa.input_stream(file, compression=packed),
                read_options=pyarrow.csv.ReadOptions(use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(**form, invalid_row_handler=set_aside),
                # Read all columns as text: a column of numbers may contain other values a million rows later.
                convert_options=pyarrow.csv.ConvertOptions(
                    strings_can_be_null=True, column_types=dict.fromkeys(names, pa.string())
                ),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch])
        for number, text in broken:
            self._bad("broken row", path, f"row {number}" if number else "", text.encode())

    def _lines(self, path: str, plain: bool) -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        with storage.open_input(path) as file:
            stream = gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz") else file
            for number, raw in enumerate(stream, start=1):
                line = raw.strip()
                if not line:
                    continue
                row = _parse(line, self.url_column, plain)
                if row is None:
                    self._bad("broken json" if not plain else "undecodable text", path, f"line {number}", line)
                    continue
                rows.append(row)
                if len(rows) >= self.urls_per_shard:
                    yield self._table(rows, path)
                    rows = []
        if rows:
            yield self._table(rows, path)

    def _table(self, rows: list[dict[str, Any]], path: str) -> pa.Table:
        names = dict.fromkeys([self.url_column, *(name for row in rows for name in row)])
        columns = {}
        for name in names:
            values = [row.get(name) for row in rows]
            try:
                columns[name] = pa.array(values)
            except (pa.ArrowInvalid, pa.ArrowTypeError):  # a field is a number in one row and text in another
                columns[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
        try:
            return pa.table(columns)
        except pa.ArrowInvalid as error:
            raise CuratorError(f"{path!r}: {error}") from error

    def _bad(self, reason: str, path: str, position: str, raw: bytes) -> None:
        self.record_read(1)
        self.record_rejected(reason, source=path, position=position, raw=raw[:10_000])


def _parse(line: bytes, url_column: str, plain: bool) -> dict[str, Any] | None:
    try:
        text = line.decode("utf-8")
        if plain:
            return {url_column: text}
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _skip(row: Any) -> str:  # noqa: ARG001 - Arrow's interface
    return "skip"
