"""Extracts the data that deduplication needs from images: hashes of bytes, small grey pictures, their hashes,
preference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.across.alike import COPIES, mixed, ties_of, write_by_witness
from curator_core.across.apply import ApplyDecisions
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
from curator_core.across.shuffle import finish_partitioned, write_partitioned
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_image.batch import BYTES, KEY, SHARD
from curator_image.decode.picture import Picture
from curator_image.decode.pictures import CpuDecoder, DecoderName, cpu_decoder, encoded
from curator_image.decode.probe import BadImage
from curator_image.dedup.hashes import SIDE, WINDOWS, boxes_of, hashes_of, is_plain

GREY, BOX, HASHES = "grey", "box", "hashes"
PICTURES, BAD = "pictures", "bad"
HASH = "hash"
# Hashes are partitioned by kind (of the whole, of each window, of the mirror image) and then by value, in the same way
# for every input.
KIND_BITS = 3
PARTS_OF_KIND = 32
_DECODES = "image decodes"
_SMALL = Picture(SIDE, SIDE, "squash", "bilinear")


@dataclass(kw_only=True)
class PictureKeys(DocumentStage):
    """Writes the hash of the bytes of each image, its small grey picture and the picture's hashes, partitioned by the
    hash of the bytes.

    An image that cannot be decoded, or has hardly any contrast, can only be removed as an exact copy.
    """

    crops: bool = True
    mirror: bool = False
    decoder: DecoderName = "auto"

    _decode: CpuDecoder | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self, worker: Any) -> None:
        self._decode = cpu_decoder(self.decoder)

    def process(self, task: DocumentBatch) -> FileGroupTask:
        assert self._decode is not None
        images = encoded(task.to_pyarrow().column(self.column))
        greys, errors = self._decode.greys(images, _SMALL)
        if errors:
            self._write_bad(task, images, errors)
        good = np.ones(len(images), np.bool_)
        good[list(errors)] = False
        table, places = exact_keys(self, task, with_names=True)
        stay = good[to_numpy(table["row"])]
        table, places = table.filter(array(stay)), places[stay]
        pictures = greys[to_numpy(table["row"])]
        boxes = boxes_of(pictures)
        hashes = np.zeros((len(pictures), 2 + len(WINDOWS)), np.uint64)
        at = np.flatnonzero(~is_plain(pictures))
        hashes[at] = hashes_of(pictures[at], boxes[at], crops=self.crops, mirror=self.mirror)
        self.record_metric("plain", len(pictures) - len(at))
        for name, values in ((GREY, pictures.reshape(len(pictures), SIDE * SIDE)), (BOX, boxes), (HASHES, hashes)):
            flat = array(np.ascontiguousarray(values).ravel())
            table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        record = write_keys(self, self.path, task, EXACT, table, places)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def _write_bad(self, task: DocumentBatch, images: Sequence[bytes], errors: Mapping[int, BadImage]) -> None:
        """Reject the images that cannot be decoded, and record their rows."""
        record_bad(self, task, images, {row: (error.reason, error.message) for row, error in errors.items()})
        table = pa.table(
            {
                "row": array(np.array(list(errors), np.uint32)),
                "reason": array([error.reason for error in errors.values()], pa.string()),
                "message": array([error.message for error in errors.values()], pa.string()),
            }
        )
        path = storage.join(self.path, BAD, f"{task.task_id or 'batch'}.arrow")
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        self.record_output(out.record(rows=table.num_rows))

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_keys(self.path, outputs, [EXACT], None, type(self).__name__)


def record_bad(
    stage: Any,
    task: DocumentBatch,
    images: Sequence[bytes] | Mapping[int, bytes],
    errors: Mapping[int, tuple[str, str]],
) -> None:
    """Reject images of a batch that cannot be decoded; ``errors`` gives the reason and message by row."""
    table = task.to_pyarrow()
    for row, (reason, message) in errors.items():
        shard, key = (table[name][row].as_py() if name in table.column_names else None for name in (SHARD, KEY))
        stage.record_rejected(
            reason, source=shard or "", position=key or f"row {row}", message=message, raw=images[row]
        )


@dataclass(kw_only=True)
class ApplyToPictures(ApplyDecisions):
    """Applies decisions about images, and rejects those that could not be decoded for the comparison."""

    keys: str
    column: str = BYTES

    def setup(self, worker: Any) -> None:
        super().setup(worker)
        folder = storage.join(self.keys, BAD)
        files = storage.list_files(folder) if storage.is_folder(folder) else []
        self._bad = {storage.file_name(path).removesuffix(".arrow"): path for path in files}

    def process(self, task: DocumentBatch) -> DocumentBatch:
        path = self._bad.get(task.task_id)
        if path is None:
            return super().process(task)
        with storage.open_arrow(path) as source, pa.ipc.open_file(source) as file:
            errors = {row["row"]: (row["reason"], row["message"]) for row in file.read_all().to_pylist()}
        decodes = np.array([row not in errors for row in range(task.num_rows)], np.bool_)
        made = super().process(task.append_column(_DECODES, array(decodes)))
        column = task.to_pyarrow().column(self.column)
        record_bad(self, task, {row: column[row].as_py() or b"" for row in errors}, errors)
        return made.filter(made.to_pyarrow()[_DECODES]).drop_columns([_DECODES])


@dataclass(kw_only=True)
class SetCopiesAside(PartitionStage):
    """Writes the preferred image of each group of equal images, by batch, and the copies of it."""

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = partition_table(task)
        assert table is not None  # only partitions with rows are tasks
        copies = Copies(table, self.preference())
        lost, best = copies.order[copies.removed], copies.order[copies.best[copies.removed]]
        ties = ties_of(table, lost, table, best, np.ones(len(lost)), copy=True)
        self.record_output(write_by_witness(self, storage.join(self.path, COPIES, f"{task.task_id}.arrow"), ties))
        stay = table.take(array(np.sort(copies.order[~copies.removed])))
        stay = stay.rename_columns(["hash_high" if name == "place" else name for name in stay.column_names])
        stay = stay.combine_chunks()
        self.record_output(self.write_hashes(stay, storage.join(self.path, HASHES, f"{task.task_id}.arrow")))
        stay = stay.drop_columns([HASHES])
        record = self.write_by_batch(storage.join(self.path, PICTURES, f"{task.task_id}.arrow"), stay)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def write_hashes(self, pictures: pa.Table, path: str) -> FileRecord:
        """Write a row for each hash, so that hashes of one kind are together, and equal hashes among these."""
        count = 2 + len(WINDOWS)
        hashes = to_numpy(pictures[HASHES].combine_chunks().flatten()).reshape(pictures.num_rows, count)
        rows, kinds = np.nonzero(hashes)
        values = hashes[rows, kinds]
        names = ["number", "hash_high", "hash_low", *self.preference().names]
        table = pictures.select(names).take(array(rows)).append_column(HASH, array(values))
        places = (kinds.astype(np.uint64) << np.uint64(64 - KIND_BITS)) | (mixed(values) >> np.uint64(KIND_BITS))
        return write_partitioned(path, table, places, PARTS_OF_KIND << KIND_BITS)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        for kind in (COPIES, PICTURES, HASHES):
            folder = storage.join(self.path, kind)
            mine = [record for record in outputs if storage.parent(record.path) == folder]
            finish_partitioned(folder, mine, partitions=PARTS_OF_KIND << KIND_BITS if kind == HASHES else None)
