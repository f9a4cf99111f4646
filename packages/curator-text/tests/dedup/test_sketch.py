"""Sketches agree as often as their texts are similar, even for short texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curator_text.dedup.fuzzy import FuzzyDedup
from curator_text.dedup.sketch import band_keys, near_keys, probability, sketch
from curator_text.dedup.words import Shingles


def sets(parts: list[np.ndarray]) -> Shingles:
    counts = [len(part) for part in parts]
    total = np.arange(sum(counts))
    return Shingles(np.concatenate(parts), np.append(0, np.cumsum(counts)), total, total + 1)


def pairs(chance: np.random.Generator, count: int, union: int, shared: int) -> tuple[Shingles, float]:
    """Pairs of sets: ``shared`` of ``union`` elements are in both, and the others are in one of the two, in turns."""
    parts = []
    for _ in range(count):
        all_of = chance.integers(0, 2**64, union, np.uint64)
        one = np.append(all_of[:shared], all_of[shared::2])
        other = np.append(all_of[:shared], all_of[shared + 1 :: 2])
        parts += [one, other]
    return sets(parts), shared / union


@pytest.mark.slow
@pytest.mark.parametrize(
    ("union", "shared"), [(6, 4), (10, 7), (12, 6), (30, 27), (30, 12), (100, 70), (400, 280), (1500, 1200)]
)
def test_places_agree_with_the_probability_of_the_similarity(union: int, shared: int) -> None:
    count, places = 3000, 130
    texts, jaccard = pairs(np.random.default_rng(union), count, union, shared)
    made = sketch(texts, places)
    agree = (made[0::2] == made[1::2]).mean(axis=1)
    error = agree.std() / np.sqrt(count)
    assert abs(agree.mean() - jaccard) < 4 * error
    # All places agree with the same probability.
    by_place = (made[0::2] == made[1::2]).mean(axis=0)
    assert np.abs(by_place - jaccard).max() < 5 * np.sqrt(jaccard * (1 - jaccard) / count)


@pytest.mark.slow
@pytest.mark.parametrize("union", [10, 20, 40, 100, 600])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_keys_are_shared_with_the_probability_of_the_curve(union: int, share: float) -> None:
    count = 3000
    texts, jaccard = pairs(np.random.default_rng(union), count, union, round(union * share))
    keys = band_keys(texts)
    found = (keys[0::2] == keys[1::2]).any(axis=1).mean()
    expected = float(probability(jaccard))
    error = 4 * np.sqrt(max(expected * (1 - expected), 1e-3) / count)
    # If there are few shingles, two places of a band often hold the same one, so less similar texts share a key more
    # often.
    assert expected - error - 0.02 < found < expected + error + (0.09 if union < 100 else 0.02)


def test_the_curve_equals_the_documented_one() -> None:
    assert probability(0.7) > 0.99
    assert FuzzyDedup(paths="in/").chances()["0.7"] == 0.9916
    assert float(probability(0.7, 14, 8)) == pytest.approx(0.565, abs=0.001)


def test_only_the_seed_changes_a_sketch_and_not_the_order_or_repetition_of_shingles() -> None:
    chance = np.random.default_rng(5)
    shingles = chance.integers(0, 2**64, 40, np.uint64)
    again = chance.permutation(np.append(shingles, shingles[:9]))
    keys = band_keys(sets([shingles, again]))
    assert np.array_equal(keys[0], keys[1])
    assert not np.array_equal(band_keys(sets([shingles]), seed=1)[0], keys[0])
    assert len(np.unique(keys[0])) == 26


def test_other_documents_change_nothing_and_one_without_shingles_has_zeros() -> None:
    chance = np.random.default_rng(6)
    parts = [chance.integers(0, 2**64, size, np.uint64) for size in (0, 1, 5, 300, 0, 2000, 0)]
    together = band_keys(sets(parts))
    for part, keys in zip(parts, together, strict=True):
        assert np.array_equal(band_keys(sets([part]))[0], keys)
        assert (keys != 0).all() == bool(len(part))
    assert band_keys(sets([np.zeros(0, np.uint64)])).tolist() == [[0] * 26]


def test_no_documents_have_no_keys() -> None:
    keys, counts = near_keys(pa.array([], pa.string()))
    assert keys.shape == (0, 26)
    assert counts.shape == (0,)


def test_keys_never_change() -> None:
    assert [hex(key) for key in band_keys(sets([np.arange(7, dtype=np.uint64)]), bands=3)[0].tolist()] == [
        "0x5d0de098544363e6",
        "0x88ef43d582067250",
        "0x65a0f11cc43e406e",
    ]
