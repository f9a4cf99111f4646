"""Which documents may be near copies of one another? Those that share a key.

A sketch holds `bands` times `rows` numbers of a document's shingles, and two documents have the same number in a place with
the probability of their Jaccard similarity. The rows of a band are hashed to one 64-bit key, so that documents whose
similarity is J share at least one key with the probability ``1 - (1 - J**rows)**bands``.

The sketch is one-permutation hashing with optimal densification (Shrivastava, 2017): each shingle falls into one of the
places, which keeps the smallest; an empty place takes that of the first full one in an order of its own. Every shingle is
hashed once, whatever the number of places, and the probability is exact for short documents too.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.errors import check_whole
from curator_text.dedup.words import (
    CHARACTERS_IN_SHINGLE,
    WORDS_IN_SHINGLE,
    Hashes,
    Ints,
    Kind,
    Shingles,
    blocks_of,
    shingles_of,
    spans_of,
    word_numbers,
)

# Keys of different algorithms are never compared.
ALGORITHM = "oph-1"
BANDS = 26
ROWS = 5

_MIX, _FINISH, _SEED = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), 0x9E3779B97F4A7C15
_EMPTY = np.uint64(2**64 - 1)
_29, _32 = np.uint64(29), np.uint64(32)


def band_keys(shingles: Shingles, *, bands: int = BANDS, rows: int = ROWS, seed: int = 0) -> Hashes:
    """One key a band for every document; a document without shingles has zeros, which say nothing."""
    check_whole("bands", bands, least=1)
    check_whole("rows", rows, least=1)
    places = sketch(shingles, bands * rows, seed=seed).reshape(-1, bands, rows)
    keys = np.broadcast_to(_numbers(bands, seed + 1), (len(shingles), bands)).copy()
    for row in range(rows):
        keys ^= places[:, :, row]
        keys *= _FINISH
        keys ^= keys >> _29
    keys *= _MIX
    keys ^= keys >> _32
    keys[shingles.counts == 0] = 0
    return keys


def near_keys(
    texts: pa.Array | pa.ChunkedArray,
    *,
    bands: int = BANDS,
    rows: int = ROWS,
    seed: int = 0,
    kind: Kind = "words",
    size: int = WORDS_IN_SHINGLE,
    characters: int = CHARACTERS_IN_SHINGLE,
) -> tuple[Hashes, Ints]:
    """The keys of every text, and how many words it has; without words there are no keys, and zeros stand for them."""
    keys, counts = [np.zeros((0, bands), np.uint64)], [np.zeros(0, np.int64)]
    for documents in blocks_of(texts):
        words = word_numbers(spans_of(documents, kind=kind))
        shingles = shingles_of(words, size=size, characters=characters)
        keys.append(band_keys(shingles, bands=bands, rows=rows, seed=seed))
        counts.append(words.counts)
    return np.concatenate(keys), np.concatenate(counts)


def sketch(shingles: Shingles, places: int = BANDS * ROWS, *, seed: int = 0) -> Hashes:
    """The sketch of every document: one number a place, all ones where a document has no shingle."""
    check_whole("places", places, least=1)
    documents = len(shingles)
    numbers = shingles.hashes ^ _numbers(1, seed)[0]
    numbers *= _MIX
    numbers ^= numbers >> _29
    numbers *= _FINISH
    numbers ^= numbers >> _32
    where = numbers >> _32
    where *= np.uint64(places)
    where >>= _32
    at = np.repeat(np.arange(0, documents * places, places), shingles.counts)
    at += where.view(np.int64)
    # The place is made of the highest bits; what is compared begins with the others.
    numbers = numbers << _32 | numbers >> _32
    made = np.full(documents * places, _EMPTY, np.uint64)
    np.minimum.at(made, at, numbers)
    table = made.reshape(documents, places)
    _fill(table, shingles.counts > 0)
    return table


def probability(
    jaccard: float | npt.NDArray[np.float64], bands: int = BANDS, rows: int = ROWS
) -> npt.NDArray[np.float64]:
    """How probably two documents of this similarity share a key."""
    found: npt.NDArray[np.float64] = 1 - (1 - np.asarray(jaccard, np.float64) ** rows) ** bands
    return found


def curve(bands: int = BANDS, rows: int = ROWS) -> str:
    """The probabilities as a table to print."""
    lines = [f"similarity  shares a key ({bands} bands of {rows} rows)"]
    lines += [
        f"{percent / 100:10.2f}  {float(probability(percent / 100, bands, rows)):.4f}" for percent in range(30, 101, 5)
    ]
    return "\n".join(lines)


def _fill(made: Hashes, some: npt.NDArray[np.bool_]) -> None:
    places = made.shape[1]
    order = _orders(places)
    full = made != _EMPTY
    row, place = np.nonzero(~full & some[:, None])
    for step in range(places):
        if not len(row):
            return
        source = order[place, step]
        hit = full[row, source]
        made[row[hit], place[hit]] = made[row[hit], source[hit]]
        row, place = row[~hit], place[~hit]


@functools.cache
def _orders(places: int) -> npt.NDArray[np.int64]:
    # For every place the order in which it looks at all: the sorted order of numbers.
    return np.argsort(_numbers(places * places, places).reshape(places, places), axis=1, kind="stable")


@functools.cache
def _numbers(count: int, seed: int) -> Hashes:
    # SplitMix64.
    made = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed % 2**32 * 2**32 % 2**64)) * np.uint64(_SEED)
    made ^= made >> np.uint64(30)
    made *= _MIX
    made ^= made >> np.uint64(27)
    made *= _FINISH
    made ^= made >> np.uint64(31)
    made.flags.writeable = False
    return made
