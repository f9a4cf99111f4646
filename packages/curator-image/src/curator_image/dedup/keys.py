"""Extracts what deduplication needs of images: hashes of bytes, small grey pictures, their hashes, preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.across.alike import COPIES, ties_of, write_by_witness
from curator_core.across.copies import (
    EXACT,
    Copies,
    DocumentStage,
    PartitionStage,
    exact_keys,
    finish_keys,
    partition_table,
    write_keys,
)
from curator_core.across.shuffle import finish_partitioned
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_image.decode.picture import Picture
from curator_image.decode.pictures import CpuDecoder, DecoderName, cpu_decoder, encoded
from curator_image.dedup.hashes import SIDE, WINDOWS, boxes_of, grey, hashes_of, is_plain

GREY, BOX, HASHES, SEEN = "grey", "box", "hashes", "seen"
PICTURES = "pictures"
_SMALL = Picture(SIDE, SIDE, "squash", "bilinear")


@dataclass(kw_only=True)
class PictureKeys(DocumentStage):
    """Writes for each image the hash of its bytes, its small grey picture and that picture's hashes, laid out by the
    first.

    An image that does not decode, or has hardly any contrast, can only be an exact copy.
    """

    crops: bool = True
    mirror: bool = False
    decoder: DecoderName = "auto"

    _decode: CpuDecoder | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self, worker: Any) -> None:
        self._decode = cpu_decoder(self.decoder)

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table, places = exact_keys(self, task, with_names=True)
        assert self._decode is not None
        images = encoded(task.to_pyarrow().column(self.column))
        rows = to_numpy(table["row"]).tolist()
        made = self._decode([images[row] for row in rows], [_SMALL])
        pictures = grey(made.pictures[0])
        seen = ~is_plain(pictures)
        seen[list(made.errors)] = False
        boxes = boxes_of(pictures)
        hashes = np.zeros((len(rows), 2 + len(WINDOWS)), np.uint64)
        at = np.flatnonzero(seen)
        hashes[at] = hashes_of(pictures[at], boxes[at], crops=self.crops, mirror=self.mirror)
        self.record_metric("not decoded", len(made.errors))
        self.record_metric("plain", int((~seen).sum()) - len(made.errors))
        for name, values in ((GREY, pictures.reshape(len(rows), SIDE * SIDE)), (BOX, boxes), (HASHES, hashes)):
            flat = array(np.ascontiguousarray(values).ravel())
            table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        table = table.append_column(SEEN, array(seen))
        record = write_keys(self, self.path, task, EXACT, table, places)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_keys(self.path, outputs, [EXACT], None, type(self).__name__)


@dataclass(kw_only=True)
class SetCopiesAside(PartitionStage):
    """Writes the preferred one of equal images, by batch, and which others are copies of it."""

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = partition_table(task)
        assert table is not None  # only partitions with rows are tasks
        copies = Copies(table, self.preference())
        lost, best = copies.order[copies.removed], copies.order[copies.best[copies.removed]]
        ties = ties_of(table, lost, table, best, np.ones(len(lost)), copy=True)
        self.record_output(write_by_witness(self, storage.join(self.path, COPIES, f"{task.task_id}.arrow"), ties))
        stay = table.take(array(np.sort(copies.order[~copies.removed])))
        stay = stay.rename_columns(["hash_high" if name == "place" else name for name in stay.column_names])
        record = self.write_by_batch(storage.join(self.path, PICTURES, f"{task.task_id}.arrow"), stay.combine_chunks())
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        for kind in (COPIES, PICTURES):
            folder = storage.join(self.path, kind)
            finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])
