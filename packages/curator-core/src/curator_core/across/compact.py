"""How is a shuffle of very many files merged into one of few files, so that its partitions can be read?

Each partition has a piece in each file: 10,000 files and 4,000 partitions make 40 million pieces, and a file must be
opened for each. A pipeline of `FileLots` and `CompactFiles` merges files into larger ones of up to ``size`` bytes,
partition by partition. Rows keep their order and their numbers, so the reader finds the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curator_core import storage
from curator_core.across.shuffle import (
    MANIFEST,
    ShuffleFile,
    finish_together,
    read_manifest,
    require_complete,
    write_together,
)
from curator_core.arrow.widening import fitted
from curator_core.errors import UsageError
from curator_core.model.lineage import source_id
from curator_core.model.stage import FanOut, SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord
from curator_core.pipeline import Pipeline
from curator_core.stages.files import parse_bytes

SIZE = "128MiB"
# With more pieces than this, opening the files takes longer than rewriting them.
MANY_PIECES = 100_000


def compact(path: str, into: str, *, size: int | str = SIZE, name: str = "compact") -> Pipeline:
    """The step that rewrites the shuffle in ``path`` with fewer files in the folder ``into``."""
    return Pipeline([FileLots(path=path, size=size), CompactFiles(path=path, into=into)], name=name)


@dataclass(kw_only=True)
class FileLots(SourceStage[FileGroupTask]):
    """Lists the files of a shuffle in lots of ``size`` bytes; each lot is a source."""

    path: str
    size: int | str = SIZE

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"FileLots.path must be the folder of a shuffle, not {self.path!r}")
        parse_bytes(self.size, "FileLots.size")

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        require_complete(self.path)
        manifest = read_manifest(self.path)
        for number, lot in enumerate(_lots(manifest.files, parse_bytes(self.size))):
            yield FileGroupTask(
                data=[file.path for file in lot],
                task_id=source_id(f"lot-{number:05d}", [storage.file_name(file.path) for file in lot]),
                dataset_name=task.dataset_name,
                _generation=source_id("", [file.sha256 for file in lot]),
                _metadata={"files": [lot[0].first, lot[-1].first]},
            )


def _lots(files: Sequence[ShuffleFile], size: int) -> list[list[ShuffleFile]]:
    lots: list[list[ShuffleFile]] = []
    room = 0
    for file in files:
        if not lots or file.bytes > room:
            lots.append([])
            room = size
        lots[-1].append(file)
        room -= file.bytes
    return lots


@dataclass(kw_only=True)
class CompactFiles(FanOut[FileGroupTask, FileGroupTask]):
    """Merges the files of a lot into one file in the folder ``into``."""

    path: str
    into: str

    def __post_init__(self) -> None:
        for name in ("path", "into"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"CompactFiles.{name} must be a folder or URL, not {getattr(self, name)!r}")

    def output_folder(self) -> str:
        return self.into

    def repacks(self) -> bool:
        return False

    def fit(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """A table of one file with the columns and types of all files."""
        return fitted(table, schema)

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        manifest = read_manifest(storage.join(self.path, MANIFEST))
        low, high = task._metadata["files"]
        lot = [file for file in manifest.files if low <= file.first <= high]
        path = storage.join(self.into, f"{task.task_id}.arrow")
        record = write_together(path, manifest, lot, fit=self.fit)
        self.record_output(record)
        yield FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_together(self.into, read_manifest(self.path), outputs)
