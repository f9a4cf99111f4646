"""The output folders of a run and the file that says that one is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curator_core.arrow.arrays import to_numpy
from curator_core.model.task import FileRecord

SUCCESS = "_SUCCESS"


def _mark(stage: str, rows: int, size: int, names: Sequence[str], records: Sequence[FileRecord]) -> Iterator[str]:
    """The content of a mark: JSON with a line for each file, because there may be a million of them."""
    yield f'{{"stage": {json.dumps(stage)}, "rows": {rows}, "bytes": {size}, "files": ['
    end = "\n"
    for name, record in zip(names, records, strict=True):
        entry = {"path": name, "rows": record.rows, "bytes": record.bytes, "sha256": record.sha256}
        yield end + json.dumps(entry)
        end = ",\n"
    yield "\n]}\n"


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ending(name: str) -> str:
    """What follows the lineage in the name of a file: ``.jsonl.gz`` of ``page-3f2a.00002.jsonl.gz``."""
    _, _, rest = name.partition(".")
    parts = rest.split(".")
    while parts and parts[0].isdigit():
        parts.pop(0)
    return ".".join(parts)


def _once(records: Sequence[FileRecord]) -> list[FileRecord]:
    """Each path once, the last record winning, in the order of first mention."""
    by_path: dict[str, FileRecord] = {}
    for record in records:
        by_path[record.path] = record
    return list(by_path.values())


def _add_outputs(found: dict[str, list[tuple[int, int, FileRecord]]], places: Any, outputs: pa.ListArray) -> None:
    """Add the outputs of events to those of each stage, with the place of the event and their number there."""
    if isinstance(outputs, pa.ChunkedArray):
        outputs = pa.concat_arrays(outputs.chunks)
    values = outputs.flatten()
    lengths = to_numpy(outputs.value_lengths())
    owners = [place for place, length in zip(places.tolist(), lengths.tolist(), strict=True) for _ in range(length)]
    columns = [values.field(name).to_pylist() for name in ("stage", "path", "rows", "bytes", "sha256")]
    for number, (place, stage, *record) in enumerate(zip(owners, *columns, strict=True)):
        found.setdefault(stage, []).append((place, number, FileRecord(*record)))
