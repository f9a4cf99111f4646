"""When are two values the same? Each value of a column gets a 128-bit hash and a length; text is hashed in its composed
form (NFC).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import JSON, texts_in
from curator_core.arrow.row_hash import row_digests

# Letters, marks and numbers stay; everything between them becomes one space.
_BETWEEN = r"[^\pL\pM\pN]+"
# A text without any of these characters is in NFC: all others are unchanged by NFC and do not combine with their
# neighbours. The others include symbols, ideographs and the letters of European languages.
_MAY_CHANGE = (
    r"[^\x00-\x{2FF}\x{2002}-\x{20CF}\x{2100}-\x{2125}\x{2127}-\x{2129}\x{212C}-\x{2328}\x{232B}-\x{2ADB}"
    r"\x{2ADD}-\x{2BFF}\x{3001}-\x{3029}\x{3041}-\x{3096}\x{30A1}-\x{30FF}\x{4E00}-\x{9FFF}\x{AC00}-\x{D7A3}"
    r"\x{FF01}-\x{FF9D}\x{1F300}-\x{1F6FF}]"
)


class Digests(NamedTuple):
    """For each value both halves of the hash, the length, and whether it can be compared."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    present: NDArray[np.bool_]


def digests(values: pa.ChunkedArray, *, normalize: bool = False) -> Digests:
    """The digests of a column.

    Text is hashed in NFC, so that both ways to write an accent are equal; with ``normalize``, case, white space and
    punctuation do not count either. Null and the empty text are not ``present``: they have no copies. The length is the
    number of characters of a text or of bytes of a binary value, and 0 for other types. A value in a column of JSON
    equals the same value in a column of its own type.
    """
    kind = values.type
    if kind == JSON:
        texts, others = texts_in(values)
        found, rows = digests(texts, normalize=normalize), array(others, pa.int64())
        for part, more in zip(found, _hashed(values.take(rows)), strict=True):
            part[others] = more
        return found
    if pa.types.is_dictionary(kind):
        return digests(values.cast(kind.value_type), normalize=normalize)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = composed(values.cast(pa.large_string()))
        if normalize:
            texts = folded(texts)
        lengths = to_numpy(pc.fill_null(pc.utf8_length(texts), array([0], pa.int64())[0])).astype(np.uint64)
        return Digests(*hashes_of(_views(texts)), lengths, lengths > 0)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        whole = values.cast(pa.large_binary())
        lengths = to_numpy(pc.fill_null(pc.binary_length(whole), array([0], pa.int64())[0])).astype(np.uint64)
        return Digests(*hashes_of(_views(whole)), lengths, lengths > 0)
    return _hashed(values)


def _hashed(values: pa.ChunkedArray) -> Digests:
    found = b"".join(row_digests(pa.table({"value": values}), ["value"]))
    halves = np.frombuffer(found, np.dtype("<u8")).reshape(-1, 2).astype(np.uint64)
    return Digests(halves[:, 0], halves[:, 1], np.zeros(len(values), np.uint64), to_numpy(values.is_valid()))


def hashes_of(values: Iterable[bytes | memoryview]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Both halves of the 128-bit hash of each byte string."""
    found = b"".join([hashlib.blake2b(value, digest_size=16).digest() for value in values])
    halves = np.frombuffer(found, np.dtype("<u8")).astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def composed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in NFC. Most texts, such as all ASCII, are in NFC already and are only checked."""
    chunks = []
    for part in texts.chunks:
        chunk = part
        others = to_numpy(pc.indices_nonzero(pc.invert(pc.string_is_ascii(chunk))))
        some = to_numpy(pc.match_substring_regex(chunk.take(array(others)), _MAY_CHANGE))
        if some.any():
            mask = np.zeros(len(chunk), np.bool_)
            mask[others[some]] = True
            changed = pc.utf8_normalize(chunk.filter(array(mask)), form="NFC")
            chunk = pc.replace_with_mask(chunk, array(mask), changed)
        chunks.append(chunk)
    return pa.chunked_array(chunks, texts.type)


def folded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts with case folded, and white space and punctuation reduced to single spaces."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), _BETWEEN, " "))


def _views(values: pa.ChunkedArray) -> Iterable[memoryview]:
    """The bytes of each value, as views of the column's memory; a null gives no bytes."""
    for chunk in values.chunks:
        _, offsets, data = chunk.buffers()
        edges = (
            np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist() if offsets else []
        )
        view = memoryview(data if data is not None else b"")
        for start, stop in itertools.pairwise(edges):
            yield view[start:stop]
