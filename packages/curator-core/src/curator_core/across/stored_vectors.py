"""Where is the vector of a row stored? Vectors are looked up in a shuffle by file and row instead of being written once
more.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.across.shuffle import batches_in_file, read_manifest
from curator_core.across.vectors import Memory, Vectors, unpacked

_ROW_BITS = 32
# The number of files that stay mapped from one call to the next.
_MOST_OPEN = 256


class StoredVectors:
    """The vectors in ``column`` of the shuffle in ``folder``, which is opened at the first use."""

    def __init__(self, folder: str, column: str) -> None:
        self._folder, self._column = folder, column
        self._open: dict[int, tuple[NDArray[np.int64], list[Vectors]]] = {}
        self._memory = Memory()

    @property
    def bytes_each(self) -> int:
        """About the size of a vector."""
        manifest = read_manifest(self._folder)
        return max(1, int(manifest.bytes.sum()) // max(1, int(manifest.rows.sum())))

    def close(self) -> None:
        """Close the files."""
        self._open.clear()
        self._memory = Memory()

    def take(self, files: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """The vectors at these rows of these files, in the order in which they are stored, and the place of each among
        them. The next call overwrites the vectors.
        """
        if not len(files):
            return np.zeros((0, 1), np.float32), np.zeros(0, np.int64)
        order = np.argsort((files << _ROW_BITS) + rows)  # each batch is accessed once
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        files, rows = files[order], rows[order]
        edges = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(files)]
        made: Vectors | None = None
        for first, stop in itertools.pairwise(edges):
            starts, batches = self._batches(int(files[first]))
            if made is None:
                made = self._memory.matrix(len(files), batches[0].shape[1])
            cuts = [*(first + np.searchsorted(rows[first:stop], starts)).tolist(), stop]
            for (low, high), start, batch in zip(itertools.pairwise(cuts), starts.tolist(), batches, strict=True):
                if low < high:
                    # Other modes than "clip" write to a buffer first.
                    np.take(batch, rows[low:high] - start, axis=0, out=made[low:high], mode="clip")
        assert made is not None  # there is at least one row, so there is a file
        return made, places

    def _batches(self, number: int) -> tuple[NDArray[np.int64], list[Vectors]]:
        if number not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.clear()
            starts, batches = batches_in_file(read_manifest(self._folder), number)
            self._open[number] = starts, [unpacked(pa.chunked_array([batch[self._column]])) for batch in batches]
        return self._open[number]
