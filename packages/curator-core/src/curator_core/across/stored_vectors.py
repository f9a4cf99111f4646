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

# The number of files that stay mapped from one call to the next.
_MOST_OPEN = 256


class StoredVectors:
    """The vectors in ``column`` of the shuffle in ``folder``, which is opened at the first use."""

    def __init__(self, folder: str, column: str) -> None:
        self._folder, self._column = folder, column
        self._open: dict[int, tuple[NDArray[np.int64], list[Vectors]]] = {}
        self._memory, self._found = Memory(), Memory()

    @property
    def bytes_each(self) -> int:
        """About the size of a vector."""
        manifest = read_manifest(self._folder)
        return max(1, int(manifest.bytes.sum()) // max(1, int(manifest.rows.sum())))

    def close(self) -> None:
        """Close the files."""
        self._open.clear()
        self._memory, self._found = Memory(), Memory()

    def take(self, files: NDArray[np.int64], rows: NDArray[np.int64]) -> Vectors:
        """The vectors at these rows of these files, in this order. The next call overwrites them."""
        if not len(files):
            return np.zeros((0, 1), np.float32)
        order = np.lexsort((rows, files))  # each batch is accessed once
        files, rows = files[order], rows[order]
        edges = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(files)]
        made: Vectors | None = None
        for first, stop in itertools.pairwise(edges):
            starts, batches = self._batches(int(files[first]))
            if made is None:
                made = self._memory.matrix(len(files), batches[0].shape[1])
            at = np.searchsorted(starts, rows[first:stop], "right") - 1
            inner = [0, *(np.flatnonzero(np.diff(at)) + 1).tolist(), stop - first]
            for low, high in itertools.pairwise(inner):
                batch, some = int(at[low]), slice(first + low, first + high)
                found = self._found.matrix(high - low, made.shape[1])
                # Other modes than "clip" write to a buffer first.
                np.take(batches[batch], rows[some] - starts[batch], axis=0, out=found, mode="clip")
                made[order[some]] = found
        assert made is not None  # there is at least one row, so there is a file
        return made

    def _batches(self, number: int) -> tuple[NDArray[np.int64], list[Vectors]]:
        if number not in self._open:
            if len(self._open) >= _MOST_OPEN:
                self._open.clear()
            starts, batches = batches_in_file(read_manifest(self._folder), number)
            self._open[number] = starts, [unpacked(pa.chunked_array([batch[self._column]])) for batch in batches]
        return self._open[number]
