"""The search by hash finds exactly the pairs within the radius, each once."""

from __future__ import annotations

import numpy as np
import pytest

from curator_image.dedup import search
from curator_image.dedup.search import bits_of_words, near_pairs


@pytest.fixture(params=["buckets", "each with each"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to search."""
    monkeypatch.setattr(search, "_FEW_PAIRS", 0 if request.param == "buckets" else 1 << 40)


def hashes(seed: int, count: int) -> np.ndarray:
    """Random hashes, many of them near others, some equal."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 1 << 63, count, dtype=np.uint64)
    for _ in range(count // 2):
        value = made[rng.integers(0, count)]
        for bit in rng.choice(63, rng.integers(0, 15), replace=False):
            value ^= np.uint64(1) << np.uint64(bit)
        made[rng.integers(0, count)] = value
    return made


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("radius", [0, 6, 10, 11])
def test_all_pairs_within_the_radius_are_found_once(radius: int) -> None:
    made = hashes(radius, 300)
    near = np.bitwise_count(made[:, None] ^ made[None]) <= radius
    found = [pair for i, j in near_pairs(made, None, radius) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert sorted(found) == [(i, j) for i, j in zip(*np.nonzero(near), strict=True) if i < j]
    left = made[:100]
    found = [pair for i, j in near_pairs(left, made, radius) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert sorted(found) == list(zip(*np.nonzero(near[:100]), strict=True))


@pytest.mark.usefixtures("way")
def test_a_word_that_many_hashes_share_is_also_searched() -> None:
    """If there are more than fit into a row, hashes are looked up one by one."""
    made = np.unique(hashes(1, 900) & np.uint64(0xFFFF_FFFF_0000_F000) | np.uint64(0x1234))
    found = [pair for i, j in near_pairs(made, None, 10) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    near = np.bitwise_count(made[:, None] ^ made[None]) <= 10
    assert sorted(found) == [(i, j) for i, j in zip(*np.nonzero(near), strict=True) if i < j]


@pytest.mark.parametrize("radius", range(12))
def test_in_every_pair_one_word_differs_in_few_enough_bits(radius: int) -> None:
    most = bits_of_words(radius)
    assert sum(bits + 1 for bits in most) == radius + 1
    assert max(most) <= 2


def test_a_radius_for_which_the_search_is_not_exact_is_refused() -> None:
    with pytest.raises(ValueError, match="12 is more than 11"):
        list(near_pairs(hashes(0, 10), None, 12))
