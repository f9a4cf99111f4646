"""Sketches documents, so that near copies are likely to share a key.

A sketch holds `bands` times `rows` numbers of a document's shingles, and the probability that two documents have the
same number in a place is their Jaccard similarity. The rows of a band are hashed to one 64-bit key, so documents with a
similarity of J share at least one key with the probability ``1 - (1 - J**rows)**bands``.

The sketch is one-permutation hashing with densification: each shingle is assigned to one of the places, which keeps the
smallest number; an empty place copies the first full place at a sequence of distances that is the same for all places.
Every shingle is hashed once, whatever the number of places, and the probability that two documents agree in a place is
exactly their similarity, even for texts of a few shingles: see ``docs/decisions/0064-sketch.md``.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.errors import check_whole
from curator_text.dedup.words import (
    CHARACTERS_IN_SHINGLE,
    WORDS_IN_SHINGLE,
    Bools,
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
# How many sketches are completed at once; enough that the cost of a call is negligible.
_TOGETHER = 500

_MIX, _FINISH, _SEED = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), 0x9E3779B97F4A7C15
_EMPTY = np.uint64(2**64 - 1)
_29, _32 = np.uint64(29), np.uint64(32)


def band_keys(shingles: Shingles, *, bands: int = BANDS, rows: int = ROWS, seed: int = 0) -> Hashes:
    """One key for each band of every document; a document without shingles has meaningless zeros."""
    check_whole("bands", bands, least=1)
    check_whole("rows", rows, least=1)
    keys = _keys(sketch(shingles, bands * rows, seed=seed), bands, seed)
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
    """The keys of every text, and its number of words; a text without words has zeros instead of keys."""
    check_whole("bands", bands, least=1)
    check_whole("rows", rows, least=1)
    keys, counts, waiting = (
        [np.zeros((0, bands), np.uint64)],
        [np.zeros(0, np.int64)],
        [np.zeros((0, bands * rows), np.uint64)],
    )
    for documents in blocks_of(texts):
        words = word_numbers(spans_of(documents, kind=kind))
        counts.append(words.counts)
        waiting.append(_smallest(shingles_of(words, size=size, characters=characters), bands * rows, seed))
        if sum(map(len, waiting)) >= _TOGETHER:
            keys.append(_keys(_filled(np.concatenate(waiting)), bands, seed))
            waiting = []
    if waiting:
        keys.append(_keys(_filled(np.concatenate(waiting)), bands, seed))
    made, sizes = np.concatenate(keys), np.concatenate(counts)
    made[sizes == 0] = 0
    return made, sizes


def sketch(shingles: Shingles, places: int = BANDS * ROWS, *, seed: int = 0) -> Hashes:
    """The sketch of every document: one number for each place; all bits are set if a document has no shingles."""
    check_whole("places", places, least=1)
    return _filled(_smallest(shingles, places, seed))


def _smallest(shingles: Shingles, places: int, seed: int) -> Hashes:
    """The smallest number in each place of every document; all bits are set if the place is empty."""
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
    # The highest bits select the place, so they are moved to the end for the comparison.
    numbers = numbers << _32 | numbers >> _32
    made = np.full(documents * places, _EMPTY, np.uint64)
    np.minimum.at(made, at, numbers)
    return made.reshape(documents, places)


def _keys(sketches: Hashes, bands: int, seed: int) -> Hashes:
    places = sketches.reshape(len(sketches), bands, sketches.shape[1] // bands)
    keys = np.broadcast_to(_numbers(bands, seed + 1), places.shape[:2]).copy()
    for row in range(places.shape[2]):
        keys ^= places[:, :, row]
        keys *= _FINISH
        keys ^= keys >> _29
    keys *= _MIX
    keys ^= keys >> _32
    return keys


def probability(
    jaccard: float | npt.NDArray[np.float64], bands: int = BANDS, rows: int = ROWS
) -> npt.NDArray[np.float64]:
    """The probability that two documents of this similarity share a key."""
    found: npt.NDArray[np.float64] = 1 - (1 - np.asarray(jaccard, np.float64) ** rows) ** bands
    return found


def _filled(made: Hashes) -> Hashes:
    """In every document that has a full place, each place takes the number of the first full place in its order."""
    places = made.shape[1]
    full = made != _EMPTY
    filled = np.count_nonzero(full, axis=1)
    result = made.copy()
    # If few places are full, a table of ranks fills all places at once; if few are empty, each is filled by a search in
    # steps.
    few = np.flatnonzero((filled < places // 2) & (filled > 0))
    if len(few):
        result[few] = _few_full(made[few], full[few], filled[few])
    row, place = np.nonzero(~full & (filled >= places // 2)[:, None])
    order, values, target = _orders(places).ravel(), made.ravel(), result.ravel()
    base, look, at = row * places, place * places, row * places + place
    for step in range(1, places):
        if not len(at):
            break
        found = values[base + order[look + step]]
        hit = found != _EMPTY
        target[at[hit]] = found[hit]
        rest = np.flatnonzero(~hit)
        base, look, at = base[rest], look[rest], at[rest]
    return result


def _few_full(made: Hashes, full: Bools, filled: Ints) -> Hashes:
    places = made.shape[1]
    line = np.argsort(-filled, kind="stable")
    counts = filled[line]
    place = np.nonzero(full[line])[1]
    starts = np.append(0, np.cumsum(counts)[:-1])
    ranks = _ranks(places)
    best = ranks[place[starts]]
    # Documents are sorted by their number of full places, so those with another full place come first.
    more = np.searchsorted(-counts, -np.arange(1, counts[0]))
    for step, some in enumerate(more.tolist(), start=1):
        np.minimum(best[:some], ranks[place[starts[:some] + step]], out=best[:some])
    source = _orders(places)[np.arange(places), best]
    result = np.empty_like(made)
    result[line] = np.take_along_axis(made[line], source, axis=1)
    return result


@functools.cache
def _orders(places: int) -> Ints:
    """For every place, the order in which it examines all places: first itself, then the places at the same distances
    as for all others.

    So at every step, each place is examined by exactly one other, and full places are copied nearly equally often. A
    separate order for each place, as in the paper, would be like drawing places with replacement.
    """
    distances = np.argsort(_numbers(places, places)) + 1
    distances = np.append(0, distances[distances < places])
    made: Ints = (np.arange(places)[:, None] + distances) % places
    return made


@functools.cache
def _ranks(places: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """For each place, a row with the step at which every other place examines it."""
    return np.argsort(_orders(places), axis=1).T.astype(np.min_scalar_type(places), order="C")


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
