"""Returns the words of texts by their place in an order, from memory or, if they do not fit, from a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from curator_core.arrow.arrays import distinct
from curator_core.errors import OutputError
from curator_text.dedup.words import Hashes, Ints, Kind, Words, joined, taken

# How many words are sorted into their order at once, and up to how many unneeded words are read instead of skipped.
LOT_WORDS = 1 << 21
_GAP = 1 << 9


class TextsInOrder(Protocol):
    """Texts in an order. It has the number of words of each text, and returns the words of requested texts."""

    counts: Ints

    def taken(self, rows: Ints) -> Words:
        """The words of the texts at these places, which must be in rising order."""


class HeldTexts:
    """Texts in memory."""

    def __init__(self, words: Words) -> None:
        self.words, self.counts = words, words.counts

    def taken(self, rows: Ints) -> Words:
        return taken(self.words, rows)


class StoredTexts:
    """Texts in an unnamed temporary file, in order.

    The numbers of words are known first, so each lot of the order has its place in the file. `write` takes texts in any
    order and appends them to their lots, and `settle` sorts each lot. So all words are written twice and read once,
    whatever the number of texts, and at most one lot is in memory. The file is in ``folder``; it disappears when it is
    closed or the process ends.
    """

    def __init__(self, counts: Ints, folder: str | None, lot_words: int = LOT_WORDS, *, kind: Kind = "words") -> None:
        self.counts, self._kind = counts, kind
        self._folder = folder
        self._offsets = np.append(0, np.cumsum(counts))
        ends = np.searchsorted(self._offsets, np.arange(lot_words, self._offsets[-1], lot_words))
        # The first text of each lot, and the number of texts.
        self._lots = np.unique(np.concatenate([[0], ends, [len(counts)]]))
        self._filled = self._offsets[self._lots[:-1]].copy()
        self._arrived: list[list[Ints]] = [[] for _ in self._filled]
        self._hashes = self._file()
        self._marks: BinaryIO | None = None

    def write(self, places: Ints, words: Words) -> None:
        """Store texts at their places in the order."""
        order = np.argsort(places)
        places, words = places[order], taken(words, order)
        cuts = np.searchsorted(places, self._lots)
        for lot in np.flatnonzero(np.diff(cuts)).tolist():
            first, last = cuts[lot : lot + 2].tolist()
            part = taken(words, np.arange(first, last))
            self._put(int(self._filled[lot]), part)
            self._filled[lot] += len(part.hashes)
            self._arrived[lot].append(places[first:last])

    def settle(self) -> None:
        """Sort each lot, after the last text was written."""
        for lot, (first, last) in enumerate(zip(self._lots[:-1].tolist(), self._lots[1:].tolist(), strict=True)):
            places = np.concatenate([np.zeros(0, np.int64), *self._arrived[lot]])
            self._arrived[lot] = []
            found = self._got(int(self._offsets[first]), np.append(0, np.cumsum(self.counts[places])))
            order = np.argsort(places)
            assert np.array_equal(places[order], np.arange(first, last))
            self._put(int(self._offsets[first]), taken(found, order))

    def taken(self, rows: Ints) -> Words:
        return joined(list(self._runs(rows)))

    def close(self) -> None:
        self._hashes.close()
        if self._marks is not None:
            self._marks.close()

    def __enter__(self) -> StoredTexts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _runs(self, rows: Ints) -> Iterator[Words]:
        starts, stops = self._offsets[rows], self._offsets[rows + 1]
        cut = (starts[1:] - stops[:-1] > _GAP) | (starts[1:] // LOT_WORDS != starts[:-1] // LOT_WORDS)
        heads = np.flatnonzero(np.append(True, cut)) if len(rows) else np.zeros(0, np.int64)
        for first, last in zip(heads.tolist(), [*heads[1:].tolist(), len(rows)], strict=False):
            low, high = int(rows[first]), int(rows[last - 1]) + 1
            offsets = self._offsets[low : high + 1] - self._offsets[low]
            yield taken(self._got(int(self._offsets[low]), offsets), rows[first:last] - low)

    def _got(self, at: int, offsets: Ints) -> Words:
        count = int(offsets[-1])
        self._hashes.seek(8 * at)
        hashes: Hashes = np.fromfile(self._hashes, np.uint64, count)
        marks = None
        if self._marks is not None:
            self._marks.seek(at)
            marks = np.fromfile(self._marks, np.bool_, count)
            marks = marks if marks.any() else None
        return Words(hashes, offsets, marks, self._kind)

    def _put(self, at: int, words: Words) -> None:
        if words.marks is not None and self._marks is None:
            self._marks = self._file()
            os.truncate(self._marks.fileno(), int(self._offsets[-1]))  # all others are unmarked
        try:
            self._hashes.seek(8 * at)
            self._hashes.write(_bytes(words.hashes))
            self._hashes.flush()
            if self._marks is not None:
                self._marks.seek(at)
                marks = np.zeros(len(words.hashes), np.bool_) if words.marks is None else words.marks
                self._marks.write(_bytes(marks))
                self._marks.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _file(self) -> BinaryIO:
        try:
            return _temporary(self._folder)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return _not_stored(f"{8 * int(self._offsets[-1])} bytes", self._folder, error)


class HashSets:
    """Sets of hashes, sorted: the last one is in memory, and earlier ones are in an unnamed temporary file."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._last: Hashes | None = None
        self._stops = [0]
        self._file: BinaryIO | None = None

    def add(self, hashes: Hashes, *, to_last: bool) -> None:
        """Begin a set, or add to the last one."""
        if to_last and self._last is not None:
            hashes = np.concatenate([self._last, hashes])
        elif self._last is not None:
            try:
                if self._file is None:
                    self._file = _temporary(self._folder)
                self._file.seek(8 * self._stops[-1])
                self._file.write(_bytes(self._last))
                self._file.flush()
            except OSError as error:
                raise _not_stored(f"{self._last.nbytes} bytes of shingles", self._folder, error) from error
            self._stops.append(self._stops[-1] + len(self._last))
        self._last = distinct(hashes)

    def __getitem__(self, number: int) -> Hashes:
        if number == len(self._stops) - 1:
            assert self._last is not None
            return self._last
        assert self._file is not None
        self._file.seek(8 * self._stops[number])
        found: Hashes = np.fromfile(self._file, np.uint64, self._stops[number + 1] - self._stops[number])
        return found

    def __enter__(self) -> HashSets:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _temporary(folder: str | None) -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _not_stored(what: str, folder: str | None, error: OSError) -> OutputError:
    return OutputError(
        f"a large group of documents, {what}, cannot be stored in a temporary file in "
        f"{folder or tempfile.gettempdir()!r}: {error.strerror or error}; free some space there"
    )


def _bytes(values: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(values)).cast("B")
