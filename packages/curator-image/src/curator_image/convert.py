"""Small stages between images and documents: drop listed duplicates, let pixels go, call the caption text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError, check_free
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_image.batch import BYTES, CAPTION, KEY, PICTURES, ImageBatch


@dataclass(kw_only=True)
class ImageDuplicateRemoval(ProcessingStage[ImageBatch, ImageBatch]):
    """Drops the images whose ids a deduplication workflow listed as duplicates.

    ``ids_path`` is a Parquet file, a folder of them, or a text file with one id a line; ``ids_column`` is the column there,
    ``id_column`` the one here. Ids are compared as text. With ``keep=True`` the listed images stay and all others go.
    """

    ids_path: str
    id_column: str = KEY
    ids_column: str = "id"
    keep: bool = False

    _known: frozenset[str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("ids_path", "id_column", "ids_column"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"ImageDuplicateRemoval.{name} must be some text, not {getattr(self, name)!r}")

    def inputs(self) -> list[str]:
        return [self.id_column]

    def setup(self, worker: WorkerMetadata) -> None:
        self._known = frozenset(read_ids(self.ids_path, self.ids_column))

    def teardown(self) -> None:
        self._known = None

    def process(self, task: ImageBatch) -> ImageBatch:
        if self._known is None:
            self.setup(WorkerMetadata())
        assert self._known is not None
        values = task.to_pyarrow().column(self.id_column).cast(pa.string()).to_pylist()
        listed = np.fromiter((value in self._known for value in values), bool, len(values))
        keep = listed if self.keep else ~listed
        if keep.all():
            return task
        self.record_dropped("not listed" if self.keep else "duplicate", int((~keep).sum()))
        return task.filter(array(keep))


@dataclass(kw_only=True)
class ImagesToDocuments(ProcessingStage[ImageBatch, DocumentBatch]):
    """Lets the image bytes and pixels go and keeps every other column: what text writers and workflows take."""

    drop: Sequence[str] = (BYTES, *PICTURES)

    def __post_init__(self) -> None:
        if isinstance(self.drop, str):
            raise UsageError(f"ImagesToDocuments.drop must be a list such as [{self.drop!r}]")

    def removes(self) -> list[str]:
        return list(self.drop)

    def process(self, task: ImageBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        table = table.drop_columns([name for name in self.drop if name in table.column_names])
        return DocumentBatch(data=table, dataset_name=task.dataset_name, _metadata=dict(task._metadata))


@dataclass(kw_only=True)
class CaptionToText(ProcessingStage[ImageBatch, ImageBatch]):
    """Copies the caption into a column that text stages read by default; a missing caption is an empty text."""

    column: str = CAPTION
    text_column: str = "text"

    def __post_init__(self) -> None:
        for name in ("column", "text_column"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"CaptionToText.{name} must be the name of a column, not {getattr(self, name)!r}")

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.text_column]

    def process(self, task: ImageBatch) -> ImageBatch:
        import pyarrow.compute as pc

        check_free("CaptionToText", task.column_names, [self.text_column])
        values = task.to_pyarrow().column(self.column)
        return task.append_column(self.text_column, pc.fill_null(values.cast(pa.string()), scalar("")))


def read_ids(path: str, column: str) -> list[str]:
    """The ids in a Parquet file, a folder of Parquet files, or a text file with one a line."""
    import pyarrow.parquet as pq

    if not path.endswith(".parquet") and not storage.is_folder(path):
        lines = storage.read_bytes(path).decode("utf-8").split("\n")
        return [line.rstrip("\r") for line in lines if line.rstrip("\r")]
    files = [path] if path.endswith(".parquet") and not storage.is_folder(path) else storage.list_files(path)
    found: list[str] = []
    for file in files:
        if not file.endswith(".parquet"):
            continue
        with storage.open_input(file) as stream:
            table = pq.ParquetFile(stream)
            if column not in table.schema_arrow.names:
                raise UsageError(f"{file!r} has no column {column!r}; it has {', '.join(table.schema_arrow.names)}")
            found += table.read([column]).column(0).cast(pa.string()).drop_null().to_pylist()
    return found
