"""The search by hash finds exactly the pairs within the radius."""

from __future__ import annotations

import numpy as np
import pytest

from curator_image.dedup import search
from curator_image.dedup.search import Wanted, bits_of_words, near_pairs


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


def pairs_of(left: np.ndarray, right: np.ndarray | None, radius: int) -> set[tuple[int, int]]:
    return {pair for i, j in near_pairs(left, right, radius) for pair in zip(i.tolist(), j.tolist(), strict=True)}


def near(left: np.ndarray, right: np.ndarray, radius: int) -> set[tuple[int, int]]:
    both = np.nonzero(np.bitwise_count(left[:, None] ^ right[None]) <= radius)
    return set(zip(*(side.tolist() for side in both), strict=True))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("radius", [0, 6, 10, 11])
def test_all_pairs_within_the_radius_are_found(radius: int) -> None:
    made = hashes(radius, 300)
    assert pairs_of(made, None, radius) == {(i, j) for i, j in near(made, made, radius) if i < j}
    assert pairs_of(made[:100], made, radius) == near(made[:100], made, radius)


@pytest.mark.usefixtures("way")
def test_a_word_that_many_hashes_share_is_also_searched() -> None:
    """If there are more than fit into a row, hashes are looked up in their order."""
    made = np.unique(hashes(1, 900) & np.uint64(0xFFFF_FFFF_0000_F000) | np.uint64(0x1234))
    assert pairs_of(made, None, 10) == {(i, j) for i, j in near(made, made, 10) if i < j}
    assert pairs_of(made[::2], made, 10) == near(made[::2], made, 10)


@pytest.mark.parametrize("within", [True, False])
def test_each_of_many_near_hashes_gets_its_preferred_neighbours(within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All hashes differ and are near one another, so there are many pairs. The pairs found include, for each hash, its
    preferred neighbours.
    """
    monkeypatch.setattr(search, "_FEW_PAIRS", 0)
    rng = np.random.default_rng(5)
    made = np.full(400, np.uint64(0x0123_4567_89AB_CDEF))
    for _ in range(5):
        made ^= np.uint64(1) << rng.integers(0, 63, len(made)).astype(np.uint64)
    made = np.unique(made)
    ranks = rng.permutation(len(made))
    wanted = Wanted(ranks, None if within else ranks, most=8)
    found: set[tuple[int, int]] = set()
    for i, j in near_pairs(made, None if within else made, 10, wanted=wanted):
        found.update(zip(i.tolist(), j.tolist(), strict=True))
    assert found <= near(made, made, 10)
    beside: dict[int, set[int]] = {}
    for i, j in found:
        beside.setdefault(i, set()).add(j)
        if within:
            beside.setdefault(j, set()).add(i)
    for i, hash_ in enumerate(made):
        others = np.flatnonzero(np.bitwise_count(made ^ hash_) <= 10)
        first = [j for j in others[np.argsort(ranks[others])].tolist() if j != i or not within][:8]
        assert set(first) <= beside[i]


@pytest.mark.slow
def test_twice_as_many_near_hashes_do_not_have_four_times_as_many_pairs() -> None:
    """Without `Wanted`, the pairs of hashes that are all near one another grow with the square of their number."""
    rng = np.random.default_rng(3)
    found = []
    for count in (4_000, 8_000):
        made = np.full(count, np.uint64(0x0123_4567_89AB_CDEF))
        for _ in range(5):
            made ^= np.uint64(1) << rng.integers(0, 63, count).astype(np.uint64)
        made = np.unique(made)
        wanted = Wanted(np.arange(len(made)), most=8)
        found.append(sum(len(i) for i, _ in near_pairs(made, None, 10, wanted=wanted)))
    assert found[1] < 3 * found[0], found


@pytest.mark.parametrize("radius", range(12))
def test_in_every_pair_one_word_differs_in_few_enough_bits(radius: int) -> None:
    most = bits_of_words(radius)
    assert sum(bits + 1 for bits in most) == radius + 1
    assert max(most) <= 2


def test_a_radius_for_which_the_search_is_not_exact_is_refused() -> None:
    with pytest.raises(ValueError, match="12 is more than 11"):
        list(near_pairs(hashes(0, 10), None, 12))
