"""How do the findings of partitions get back to the batches that they are about?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.roll import ROW_BITS, first_number
from curator_core.across.shuffle import MANIFEST, partition_tables, read_manifest
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import FileGroupTask

_END = 1 << 64


def batch_places(numbers: NDArray[np.uint64], batches: int) -> NDArray[np.uint64]:
    """Places of documents for which each partition is a range of batches in the order of the roll."""
    return (numbers >> np.uint64(ROW_BITS)) * np.uint64(_END // max(batches, 1) - 1)


class BatchRows:
    """The rows, batch by batch, of a shuffle that is sorted by the `batch_places` of its column ``number``.

    The last partition read is kept in memory, since the batches of a source come one after the other.
    """

    def __init__(self, folder: str, batches: int) -> None:
        self._place = storage.join(folder, MANIFEST)
        self._batches = batches
        self._held: tuple[int, pa.Table, NDArray[np.uint64]] | None = None

    def of(self, batch: int) -> pa.Table:
        """The rows about a batch, in order of number."""
        manifest = read_manifest(self._place)
        place = int(batch_places(np.array([first_number(batch)]), self._batches)[0])
        partition = place * manifest.partitions // _END
        if self._held is None or self._held[0] != partition:
            task = FileGroupTask(data=[self._place], _metadata={"partition": partition})
            table = pa.Table.from_batches([], manifest.schema_with_places)  # `empty_table` imports pandas
            tables = [piece for _, piece in partition_tables(task)] if manifest.rows[partition] else []
            if tables:
                table = pa.concat_tables(tables).unify_dictionaries()
            if "number" not in table.column_names:  # the manifest of a shuffle without files names no columns
                table = table.append_column("number", array([], pa.uint64()))
            order = np.argsort(to_numpy(table["number"]), kind="stable")
            table = table.take(array(order))
            self._held = (partition, table, to_numpy(table["number"]))
        _, table, numbers = self._held
        low, high = np.searchsorted(numbers, [first_number(batch), first_number(batch + 1)])
        return table.slice(low, high - low)
