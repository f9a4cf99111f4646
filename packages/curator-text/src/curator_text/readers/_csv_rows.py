"""Splits CSV into rows and cells, even if quotes are wrong.

A quote opens a quoted cell if it is the first byte of the cell, two quotes in a quoted cell mean one quote, and any
other quote is an ordinary character. If a quoted cell contains a line end and does not end at a delimiter or line end,
its quote was never closed. For such a quote, only its own line is rejected, not all lines down to the next quote of the
file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from curator_text.readers._bytes import Truncated

_QUOTE, _LF, _CR = 34, 10, 13
_KEPT = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """Complete rows that can be parsed directly; ``ends`` are their ends, including the line end."""

    data: bytes
    ends: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row that was split cell by cell."""

    cells: list[bytes]
    raw: bytes


@dataclass(frozen=True, slots=True)
class BadRow:
    """A part of a file that is not a row: the reason, and the beginning of the part."""

    reason: str
    message: str
    raw: bytes


class RowCutter:
    """Splits a CSV file into rows, with at most ``max_row_bytes`` in memory besides ``block_bytes``."""

    def __init__(self, file: BinaryIO, delimiter: str, *, block_bytes: int, max_row_bytes: int) -> None:
        self._file = file
        self._delimiter = ord(delimiter)
        self._bare = re.compile(rb"[^\r\n" + re.escape(delimiter.encode()) + rb"]*")
        self._block_bytes = block_bytes
        self._max_row_bytes = max(max_row_bytes, block_bytes)
        self._data = b""
        self._ended = False
        self._damage: BadRow | None = None

    def first(self) -> Row | BadRow | None:
        """The first row that is not blank, such as the row of names; None if there is none."""
        self._more(self._block_bytes)
        if self._data.startswith(b"\xef\xbb\xbf"):
            self._data = self._data[3:]
        return next(iter(list(self._one_by_one(1))), None)

    def each(self) -> Iterator[Row | BadRow]:
        """All rows, one by one."""
        self._more(self._block_bytes)
        yield from self._one_by_one(None)

    def rest(self) -> Iterator[Rows | Row | BadRow]:
        """All remaining rows: in blocks where quotes are correct, and one by one elsewhere."""
        while self._data or not self._ended:
            self._more(self._block_bytes)
            ends, wrong = self._row_ends()
            if len(ends):
                stop = int(ends[-1])
                block, self._data = self._data[:stop], self._data[stop:]
                yield Rows(block, ends)
            if wrong or (not len(ends) and self._data):
                yield from self._one_by_one(None if wrong else 1)
        if self._damage is not None:
            yield self._damage

    def _more(self, size: int) -> None:
        """Buffer at least ``size`` bytes, or all that are left."""
        pieces = [self._data]
        held = len(self._data)
        while held < size and not self._ended:
            try:
                piece = self._file.read(size - held)
            except Truncated as error:
                self._end_in(b"".join(pieces), str(error.args[0]))
                return
            self._ended = not piece
            pieces.append(piece)
            held += len(piece)
        self._data = b"".join(pieces)

    def _end_in(self, data: bytes, message: str) -> None:
        """End before the damage, without the row that is truncated by it."""
        whole = data.rfind(b"\n") + 1
        self._data, self._ended = data[:whole], True
        self._damage = BadRow("truncated file", message, data[whole : whole + _KEPT])

    def _row_ends(self) -> tuple[np.ndarray[Any, Any], bool]:
        """The ends of rows in the buffer, up to the first misplaced quote, and whether there is such a quote."""
        bytes_ = np.frombuffer(self._data, np.uint8)
        ends = np.flatnonzero(bytes_ == _LF)
        if self._data.find(b"\r") >= 0:
            returns = np.flatnonzero(bytes_ == _CR)
            after = bytes_[np.minimum(returns + 1, len(bytes_) - 1)]
            alone = returns[(after != _LF) & ((returns + 1 < len(bytes_)) | self._ended)]
            if len(alone):  # in Windows files, every return is part of a line end
                ends = np.sort(np.concatenate([ends, alone]))
        quotes = np.flatnonzero(bytes_ == _QUOTE) if self._data.find(b'"') >= 0 else np.empty(0, np.int64)
        wrong = False
        if len(quotes):
            bad = self._misplaced(bytes_, quotes)
            if bad is not None:
                wrong = True
                ends = ends[ends < quotes[bad]]
                quotes = quotes[: bad + 1]
            elif len(quotes) % 2 and self._ended:  # the last quote is never closed
                wrong = True
            ends = ends[np.searchsorted(quotes, ends) & 1 == 0]
            if (
                wrong and bad is not None and bad % 2
            ):  # the cell that the misplaced quote closes began in an earlier row
                ends = ends[ends < quotes[bad - 1]]
        ends = ends + 1
        if not wrong and self._ended and len(self._data) and (not len(ends) or ends[-1] < len(self._data)):
            ends = np.append(ends, len(self._data))
        return ends, wrong

    def _misplaced(self, bytes_: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any]) -> int | None:
        """The index of the first quote that neither opens nor closes a cell, nor belongs to a pair."""
        before = bytes_[np.maximum(quotes - 1, 0)]
        after = bytes_[np.minimum(quotes + 1, len(bytes_) - 1)]
        edges = np.zeros(256, np.bool_)
        edges[[self._delimiter, _LF, _CR, _QUOTE]] = True
        opens = edges[before] | (quotes == 0)
        closes = edges[after] | (quotes == len(bytes_) - 1)
        fine = np.where(np.arange(len(quotes)) % 2 == 0, opens, closes)
        # The quotes of a pair in a quoted cell are adjacent: a quote that opens right after another must follow a
        # closing one.
        bad = np.flatnonzero(~fine)
        return int(bad[0]) if len(bad) else None

    def _one_by_one(self, count: int | None) -> Iterator[Row | BadRow]:
        """Yield at most ``count`` rows from the buffer."""
        at = 0
        left = count
        while at < len(self._data) and left != 0:
            found = self._row(at)
            if found is None:
                if count is None and at:
                    break
                if len(self._data) - at < self._max_row_bytes:
                    self._data, at = self._data[at:], 0
                    self._more(min(self._max_row_bytes, 2 * max(len(self._data), self._block_bytes)))
                    continue
                found = self._given_up(at)
            row, at = found
            if isinstance(row, BadRow) or row.cells != [b""] or row.raw.startswith(b'"'):
                left = None if left is None else left - 1
                yield row
        self._data = self._data[at:]

    def _row(self, at: int) -> tuple[Row | BadRow, int] | None:
        """The row that begins at ``at``, and the start of the next row; None if the row continues beyond the buffer."""
        data, begin = self._data, at
        cells: list[bytes] = []
        while True:
            if data[at : at + 1] == b'"':
                close = data.find(b'"', at + 1)
                while close >= 0 and data[close + 1 : close + 2] == b'"':
                    close = data.find(b'"', close + 2)
                if close < 0 or (close + 1 == len(data) and not self._ended):
                    return self._line(begin) if self._ended else None
                cell = data[at + 1 : close].replace(b'""', b'"')
                bare = self._bare.match(data, close + 1)
                tail = bare[0] if bare else b""
                if tail and (b"\n" in cell or b"\r" in cell):
                    return self._line(begin)
                cells.append(cell + tail)
                at = close + 1 + len(tail)
            else:
                bare = self._bare.match(data, at)
                cells.append(bare[0] if bare else b"")
                at += len(cells[-1])
            if data[at : at + 1] == bytes([self._delimiter]):
                at += 1
                continue
            if at == len(data):
                return (Row(cells, data[begin:at]), at) if self._ended else None
            if data[at] == _CR and at + 1 == len(data) and not self._ended:
                return None
            after = at + (2 if data[at : at + 2] == b"\r\n" else 1)
            return Row(cells, data[begin:at]), after

    def _line(self, begin: int) -> tuple[BadRow, int]:
        """The line with a quote that is never closed."""
        close = self._data.find(b"\n", begin)
        stop = len(self._data) if close < 0 else close + 1
        raw = self._data[begin : min(stop, begin + _KEPT)]
        return BadRow(
            "unclosed quote", "a quoted cell does not end at the end of a cell: only this line is lost", raw
        ), stop

    def _given_up(self, begin: int) -> tuple[BadRow, int]:
        """A row that is too long: its first line, or all of it if it has no line end."""
        raw = self._data[begin : begin + _KEPT]
        length = 0
        self._data = self._data[begin:]
        while (close := self._data.find(b"\n")) < 0 and self._data:
            length += len(self._data)
            self._data = b""
            self._more(self._block_bytes)
        length += close + 1
        message = f"more than max_row_bytes={self._max_row_bytes}; its first line of {length} bytes is lost"
        return BadRow("row too long", message, raw), close + 1
