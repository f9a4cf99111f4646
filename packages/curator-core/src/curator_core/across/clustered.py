"""Which cluster is each document in, how far is it from the centre, and what is its rank? Adds the answers to the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curator_core import storage
from curator_core.across.alike import ORDER_COLUMN, sort_by_preference
from curator_core.across.centres import VECTOR, read_centres
from curator_core.across.copies import PartitionStage
from curator_core.across.decided import ROLL
from curator_core.across.gather import BatchRows
from curator_core.across.inputs import Inputs
from curator_core.across.roll import Roll, batches_of, rows_of
from curator_core.across.shuffle import finish_partitioned, partition_pieces
from curator_core.across.vectors import as_lists
from curator_core.arrow.arrays import array, null, to_numpy
from curator_core.errors import check_free, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord

CLUSTERS = "clusters.parquet"
RANKED, SUMS = "ranked", "sums"
# Distances are summed as whole multiples of this, so the sum is the same in any order.
_UNIT = 2.0**-40


@dataclass(kw_only=True)
class RankClusters(PartitionStage):
    """Ranks the documents of each cluster of a partition, writes them by batch, and summarizes each cluster.

    At the end a file with the size, mean distance and centre of every cluster is written to the folder ``summary``.
    """

    centres: str
    summary: str

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries().combine_chunks()
        preference = self.preference()
        names = ("number", "hash_high", "hash_low", ORDER_COLUMN, *preference.names)
        order = sort_by_preference(preference, {name: to_numpy(table[name]) for name in names})
        order = order[np.argsort(to_numpy(table["cluster"])[order], kind="stable")]
        ranked = table.take(array(order)).combine_chunks()
        clusters = to_numpy(ranked["cluster"])
        begins = np.flatnonzero(np.append(True, clusters[1:] != clusters[:-1]))
        sizes = np.diff(np.append(begins, len(clusters)))
        distances = 1 - to_numpy(ranked["towards"])
        columns = {
            "number": ranked["number"],
            "cluster": ranked["cluster"],
            "distance": array(distances),
            "rank": array(np.arange(len(clusters)) - np.repeat(begins, sizes)),
        }
        record = self.write_by_batch(storage.join(self.path, RANKED, f"{task.task_id}.arrow"), pa.table(columns))
        self.record_output(record)
        far = np.add.reduceat(np.rint(distances / _UNIT).astype(np.int64), begins)
        sums = pa.table({"cluster": array(clusters[begins]), "size": array(sizes), "distances": array(far)})
        with (
            storage.write_atomic(storage.join(self.path, SUMS, f"{task.task_id}.arrow")) as out,
            pa.ipc.new_file(out, sums.schema) as writer,
        ):
            writer.write_table(sums)
        self.record_output(out.record(rows=len(begins)))
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        by_kind: dict[str, list[FileRecord]] = {RANKED: [], SUMS: []}
        for record in outputs:
            by_kind[storage.file_name(storage.parent(record.path))].append(record)
        finish_partitioned(storage.join(self.path, RANKED), by_kind[RANKED])
        centres = read_centres(self.centres)
        sizes = np.zeros(len(centres), np.int64)
        distances = np.zeros(len(centres), np.int64)
        for record in by_kind[SUMS]:
            with storage.open_input(record.path) as stream, pa.ipc.open_file(stream) as file:
                sums = file.read_all()
            clusters = to_numpy(sums["cluster"])
            sizes[clusters] += to_numpy(sums["size"])
            distances[clusters] += to_numpy(sums["distances"])
        means = array(distances * _UNIT / np.maximum(sizes, 1))
        table = pa.table(
            {
                "cluster": array(np.arange(len(centres))),
                "size": array(sizes),
                "mean_distance": pc.if_else(array(sizes > 0), means, null(pa.float64())),
                VECTOR: as_lists(centres),
            }
        )
        with storage.write_atomic(storage.join(self.summary, CLUSTERS)) as out:
            pq.write_table(table, out)


@dataclass(kw_only=True)
class AddClusters(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds to each row its cluster and its distance from the centre, or null if it has no vector. It must follow the
    reader.

    With ``most`` only that many rows of each cluster stay, the first in rank; rows without a vector all stay.
    """

    path: str
    keys: str
    cluster_column: str = "cluster"
    distance_column: str = "distance"
    most: int | None = None

    tried_by_plan = False  # the batches of a preview differ from those of a run

    def __post_init__(self) -> None:
        check_whole("AddClusters.most", self.most, optional=True)
        self.shows_kept = self.most is not None

    def outputs(self) -> list[str]:
        return [self.cluster_column, self.distance_column]

    def setup(self, worker: Any) -> None:
        self._roll = Roll.read(storage.join(self.keys, ROLL))
        self._inputs = Inputs.read(self.keys)
        self._ranks = BatchRows(storage.join(self.path, RANKED), len(self._roll))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        check_free(type(self).__name__, task.column_names, (self.cluster_column, self.distance_column))
        if self._inputs is not None:
            self._inputs.require_same(task)
        numbers = self._roll.numbers_of(task)
        rows = task.num_rows
        about = self._ranks.of(int(batches_of(numbers[:1])[0])) if rows else None
        at = np.full(rows, -1, np.int64)
        if about is not None and about.num_rows:
            at[rows_of(to_numpy(about["number"]))] = np.arange(about.num_rows)
        there = pc.if_else(array(at >= 0), array(at), null(pa.int64()))
        for name, column, kind in (
            (self.cluster_column, "cluster", pa.int64()),
            (self.distance_column, "distance", pa.float64()),
        ):
            values = about[column].take(there) if about is not None and about.num_rows else pa.nulls(rows, kind)
            task = task.append_column(name, values)
        if self.most is None or about is None or not about.num_rows:
            return task
        beyond = (at >= 0) & (to_numpy(about["rank"])[np.maximum(at, 0)] >= self.most)
        if not beyond.any():
            return task
        which = np.flatnonzero(beyond)
        self.record_dropped(f"beyond {self.most} of its cluster", len(which), which=which)
        return task.filter(array(~beyond))
