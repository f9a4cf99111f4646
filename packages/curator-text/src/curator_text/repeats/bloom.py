"""A Bloom filter, which tests whether a key may be in a set; its size follows from the number of keys and the false
positive rate.

It contains every key from which it was made, and appears to contain a share of ``rate`` of all other keys. It depends
only on the set of keys and the rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.shuffle import first_place
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import FileRecord
from curator_text.dedup.words import Bools, Hashes

_FILTERS = "_filters.json"
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BloomFilter:
    """A filter of ``size`` bits; each key sets ``each`` of them in ``data``. A filter without keys has no bits."""

    data: NDArray[np.uint8]
    size: int
    each: int

    @classmethod
    def of(cls, keys: Hashes, rate: float) -> BloomFilter:
        """The filter for a set of distinct 64-bit hashes."""
        if not len(keys):
            return cls(np.zeros(0, np.uint8), 0, 1)
        size = max(64, math.ceil(-len(keys) * math.log(rate) / math.log(2) ** 2))
        each = max(1, round(-math.log2(rate)))
        bits = np.zeros(size, np.bool_)
        for place in _places(keys, size, each):
            bits[place] = True
        return cls(np.packbits(bits, bitorder="little"), size, each)

    def may_hold(self, keys: Hashes) -> Bools:
        """Which keys may be in the filter; the other keys certainly are not."""
        if not self.size:
            return np.zeros(len(keys), np.bool_)
        found = np.arange(len(keys))
        for turn in range(self.each):  # the first turns exclude most keys that are not in the filter
            (place,) = _places(keys[found], self.size, 1, turn)
            found = found[(self.data[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1]
        held = np.zeros(len(keys), np.bool_)
        held[found] = True
        return held

    def write(self, path: str, partition: int) -> FileRecord:
        """Write the filter of a partition of keys."""
        facts = json.dumps({"size": self.size, "each": self.each, "partition": partition}).encode()
        table = pa.table({"data": array(self.data)}).replace_schema_metadata({b"filter": facts})
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        return out.record(rows=0)  # its rows are not documents


def _places(keys: Hashes, size: int, each: int, first: int = 0) -> list[NDArray[np.int64]]:
    """The positions of the bits of each key, one array for each turn from ``first`` on."""
    found = []
    for turn in range(first, first + each):
        # SplitMix64 with a different start for each turn, since the hashes of one partition share their highest bits.
        mixed = keys + np.uint64(_STEP * (turn + 1) % (1 << 64))
        mixed = (mixed ^ (mixed >> _30)) * _MIX[0]
        mixed = (mixed ^ (mixed >> _27)) * _MIX[1]
        found.append(((mixed ^ (mixed >> _31)) % np.uint64(size)).astype(np.int64))
    return found


def finish_filters(folder: str, outputs: Sequence[FileRecord], partitions: int) -> None:
    """Write one file that lists the filters of all partitions with keys."""
    files = [storage.file_name(record.path) for record in outputs]
    content = {"partitions": partitions, "files": sorted(files)}
    storage.write_bytes_atomic(storage.join(folder, _FILTERS), json.dumps(content).encode())


class Filters:
    """The filters of all partitions of a shuffle, read from ``folder`` once."""

    def __init__(self, folder: str) -> None:
        content = json.loads(storage.read_bytes(storage.join(folder, _FILTERS)))
        count = int(content["partitions"])
        self._starts = np.array([first_place(number, count) for number in range(count)], np.uint64)
        self._filters: dict[int, BloomFilter] = {}
        for name in content["files"]:
            with storage.open_input(storage.join(folder, name)) as stream, pa.ipc.open_file(stream) as file:
                table = file.read_all()
            facts = json.loads((table.schema.metadata or {})[b"filter"])
            data = np.concatenate([np.zeros(0, np.uint8), *(to_numpy(chunk) for chunk in table["data"].chunks)])
            self._filters[facts["partition"]] = BloomFilter(data, facts["size"], facts["each"])

    def may_hold(self, keys: Hashes) -> Bools:
        """Which keys may be among those from which the filters were made."""
        held = np.zeros(len(keys), np.bool_)
        partition = np.searchsorted(self._starts, keys, "right") - 1
        order = np.argsort(partition, kind="stable")
        ordered = partition[order]
        for number, found in self._filters.items():
            low, high = np.searchsorted(ordered, [number, number + 1])
            mine = order[low:high]
            held[mine] = found.may_hold(keys[mine])
        return held
