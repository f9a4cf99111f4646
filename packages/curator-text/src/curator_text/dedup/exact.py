"""Which texts are equal?

Those whose 128-bit hash and length are: BLAKE2b, which nobody has ways to make collide, of the text in NFC.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from curator_text.dedup import characters
from curator_text.dedup.words import Hashes, Ints, blocks_of, spans_of
from curator_text.features.block import Block

# Characters of one and two bytes of lower first bytes are the same in every form: up to U+02FF.
_LOWEST_MARK = 0xCC


def exact_hash(texts: pa.Array | pa.ChunkedArray, *, normalize: bool = False) -> tuple[Hashes, Ints]:
    """For every text its hash as two numbers, and the length in bytes of what was hashed: 0 for null and empty texts.

    With ``normalize`` a text is folded (`characters.fold`), and what stands between words becomes one space. Where
    nothing is left, the text is hashed as it is: "…" equals "…" and no other.
    """
    digests: list[bytes] = []
    lengths: list[int] = []
    for documents in blocks_of(texts):
        pieces = _normalized(documents) if normalize else _composed(documents)
        lengths += map(len, pieces)
        digests += [hashlib.blake2b(piece, digest_size=16).digest() for piece in pieces]
    hashes = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)
    return hashes, np.array(lengths, np.int64)


def _composed(documents: list[memoryview]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = list(documents)
    block = Block(documents)
    if block.is_ascii or block.data.max() < _LOWEST_MARK:
        return pieces
    at, points = block.wide_points
    at = at[characters.unsettled()[points]]
    for row in np.unique(block.rows_of(at)).tolist():
        pieces[row] = characters.nfc(str(pieces[row], "utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return pieces


def _normalized(documents: list[memoryview]) -> list[bytes | memoryview]:
    spans = spans_of(documents)
    data = spans.data.copy()
    behind = spans.ends[data[spans.ends] == 0]
    data[behind] = ord(" ")
    kept = data != 0
    packed = data[kept].tobytes()
    before = np.append(0, np.cumsum(kept))
    pieces: list[bytes | memoryview] = []
    composed: list[bytes | memoryview] | None = None
    for row, (first, last) in enumerate(zip(spans.first.tolist(), spans.last.tolist(), strict=True)):
        if first < last:
            pieces.append(packed[before[spans.starts[first]] : before[spans.ends[last - 1]]])
        else:
            composed = composed or _composed(documents)
            pieces.append(composed[row])
    return pieces
