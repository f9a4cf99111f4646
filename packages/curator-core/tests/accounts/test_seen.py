"""Samples, counts and histograms of a run: the same for any workers, over all rows, each counted once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_core.accounts import ledger, seen_rows, table_files
from curator_core.accounts import seen as seen_module
from curator_core.accounts.seen import Seen, read_seen
from curator_core.errors import CuratorError, RunRefused, UsageError
from curator_core.model.scores import Limit, bin_at
from curator_core.model.seen_options import SeenOptions
from curator_core.running.report import write_report
from curator_core.worker import seeing
from curator_core.worker.seeing import Best

# Limits up to which things are held or merged.
SMALL = [
    (ledger, "HELD_BYTES", 0),
    (seen_module, "_HELD_BYTES", 0),
    (seen_module, "_ROWS_AT_ONCE", 1),
    (seen_module, "_SAMPLES_WAITING", 1),
]


@dataclass
class MinWords(ColumnFilter):
    min_words: int = 4
    max_words: int = 9

    score_type = pa.int64()

    def score_one(self, text: str | None) -> int:
        return len((text or "").split())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.and_(pc.greater_equal(scores, self.min_words), pc.less_equal(scores, self.max_words))


def batches(count: int = 6, rows: int = 50) -> list[DocumentBatch]:
    draw = np.random.default_rng(7)
    return [
        DocumentBatch(
            data=pa.table(
                {
                    "id": [f"{number}-{row}" for row in range(rows)],
                    "language": draw.choice(["en", "de"], rows).tolist(),
                    "text": [" ".join(["word"] * int(size)) for size in draw.integers(0, 13, rows)],
                }
            )
        )
        for number in range(count)
    ]


def run(folder: Path, workers: int = 0, **options: object) -> Seen:
    tasks = batches()
    Pipeline([MinWords()]).run(LocalExecutor(workers=workers), initial_tasks=tasks, run_dir=str(folder), **options)  # type: ignore[arg-type]
    return read_seen(str(folder))


def test_every_row_is_in_the_histogram_and_the_counts_of_kept_rows_equal_the_filters(tmp_path: Path) -> None:
    seen = run(tmp_path / "run")
    (score,) = seen.stages["MinWords"].scores
    sizes = [len(text.split()) for batch in batches() for text in batch.to_pyarrow()["text"].to_pylist()]
    bins = np.searchsorted(score.edges, sizes, side="right") - 1
    assert score.counts == np.bincount(bins, minlength=len(score.edges) - 1).tolist()
    kept = [bin_ for bin_, size in zip(bins, sizes, strict=True) if 4 <= size <= 9]
    assert score.kept == np.bincount(kept, minlength=len(score.edges) - 1).tolist()
    assert (score.rows, score.min, score.max) == (300, 0.0, 12.0)
    assert [(limit.parameter, limit.value, limit.keeps) for limit in score.limits] == [
        ("min_words", 4.0, "at least"),
        ("max_words", 9.0, "at most"),
    ]


@pytest.mark.slow
def test_a_limit_moved_to_an_edge_leaves_as_many_rows_as_a_run_with_it(tmp_path: Path) -> None:
    (score,) = run(tmp_path / "run").stages["MinWords"].scores
    low, high = score.limits
    for value in (2, 3, 5, 6):
        first, last = bin_at(score.edges, low.edge(value)), bin_at(score.edges, high.edge())
        again = Pipeline([MinWords(min_words=value)]).run(LocalExecutor(workers=0), initial_tasks=batches())
        assert sum(score.free[first:last]) == again.summary.stages[0].rows_out


@pytest.mark.slow
def test_samples_and_counts_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    alone = run(tmp_path / "0").to_json()
    assert json.dumps(run(tmp_path / "2", 2).to_json(), default=str) == json.dumps(alone, default=str)


class Watched(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Counts which of the batches that came before are still in memory."""

    seen: ClassVar[list[weakref.ref[DocumentBatch]]] = []
    alive: ClassVar[list[int]] = []

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self.alive.append(sum(ref() is not None for ref in self.seen))
        made = task.with_data(task.data)
        self.seen.append(weakref.ref(made))
        return made


@pytest.mark.slow
def test_a_worker_keeps_copies_of_samples_and_not_their_batches(tmp_path: Path) -> None:
    Watched.seen.clear()
    Watched.alive.clear()
    stages = [Watched(), MinWords()]
    Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), initial_tasks=batches(6))
    assert len(Watched.alive) == 6
    assert max(Watched.alive) <= 2, Watched.alive


@pytest.mark.slow
def test_samples_are_near_and_far_on_both_sides_and_have_their_places(tmp_path: Path) -> None:
    stage = run(tmp_path / "run", seen={"samples": 5}).stages["MinWords"]
    groups: dict[tuple[str, str, bool], list[float]] = {}
    for sample in stage.samples:
        groups.setdefault((sample.side, sample.limit, sample.near), []).append(sample.score or 0.0)
    assert groups["dropped", "min_words", True] == [3.0] * 5
    assert groups["dropped", "max_words", True] == [10.0] * 5
    # Half as many kept ones, and a quarter whether near a limit or not, rounded up.
    assert groups["kept", "max_words", True] == [9.0] * 3
    assert len(groups["kept", "", False]) == len(groups["dropped", "", False]) == 2
    dropped = next(sample for sample in stage.samples if sample.side == "dropped")
    assert dropped.id
    assert dropped.text
    assert dropped.columns["language"] in ("en", "de")
    assert len(dropped.text.split()) == dropped.score
    rows = stage.of
    assert rows["kept"] + sum(rows["dropped"].values()) == 300


def test_nothing_is_kept_if_switched_off_and_a_wrong_option_is_named(tmp_path: Path) -> None:
    assert run(tmp_path / "run", seen=False).stages == {}
    assert not list(tmp_path.glob("run/seen/*")) + list(tmp_path.glob("run/samples/*"))
    with pytest.raises(UsageError, match="seen has no option 'sample'; did you mean 'samples'"):
        run(tmp_path / "other", seen={"sample": 3})


@pytest.mark.parametrize(
    ("keeps", "inclusive"), [("at least", True), ("at least", False), ("at most", True), ("at most", False)]
)
def test_the_edge_of_a_limit_separates_kept_scores_from_dropped_ones(keeps: str, inclusive: bool) -> None:
    limit = Limit("limit", 0.3, keeps, inclusive)  # type: ignore[arg-type]
    for value in (0.3, np.nextafter(0.3, 0), np.nextafter(0.3, 1)):
        beyond = value > 0.3 if keeps == "at least" else value < 0.3
        kept = beyond or (inclusive and value == 0.3)
        assert (value >= limit.edge()) == (kept if keeps == "at least" else not kept)
    assert limit.value_at(limit.edge(0.25)) == 0.25


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_a_row_that_a_worker_discards_is_not_among_the_first_of_all(
    tasks: list[list[int]], most: int, workers: int, draw: Random
) -> None:
    unlike = draw.sample(range(1000), sum(map(len, tasks)))
    numbers = [np.array([unlike.pop() for _ in task], np.uint64) for task in tasks]
    rows = [np.ones(len(task), bool) for task in tasks]
    far = [np.array(task, np.float64) for task in tasks]
    every = sorted((float(d), int(n)) for d_, n_ in zip(far, numbers, strict=True) for d, n in zip(d_, n_, strict=True))
    handed_over = []
    order = list(range(len(tasks)))
    draw.shuffle(order)
    for worker in range(workers):  # each meets some of the tasks, one of them perhaps twice, in any order
        best = Best(most)
        mine = [task for place, task in enumerate(order) if place % workers == worker]
        chosen = [row for task in [*mine, *mine[:1]] for row in best.choose(rows[task], far[task], numbers[task])]
        handed_over += [(distance, number) for _, distance, number in chosen if best.rank(distance, number) is not None]
    assert sorted(set(handed_over))[:most] == sorted(set(every))[:most]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf]), *[st.booleans()] * 3),
            min_size=1,
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_bins_are_the_same_for_small_and_for_large_tasks(
    tasks: list[list[tuple[float, bool, bool, bool]]], nullable: bool
) -> None:
    tasks = [[(value, null and nullable, kept, free) for value, null, kept, free in task] for task in tasks]
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for large in (0, 1_000_000):
            patch.setattr(seen_rows, "_LARGE", large)
            rows = seen_rows.SeenRows()
            for number, task in enumerate(tasks):
                values, nulls, kept, free = (np.array(column) for column in zip(*task, strict=True))
                key = seen_rows.TaskKey("source", "", 1, f"/{number}")
                given = nulls if nulls.any() else None, kept, None if free.all() else free
                rows.score(key, "Stage", "score", "scale", np.array([0.0, 1.0]), values, *given)
            made.append(rows.counts())
    assert made[0].equals(made[1])
    bins = [np.digitize([row[0] for row in task], [0.0, 1.0]) for task in tasks]
    for row, task, places in zip(made[0].to_pylist(), tasks, bins, strict=True):
        codes = [3 if null else 4 if np.isnan(v) else int(b) for (v, null, _, _), b in zip(task, places, strict=True)]
        assert row["keys"] == sorted(set(codes))
        for name, place in (("rows", None), ("kept", 2), ("free", 3)):
            counted = [sum(c == code and (place is None or row_[place]) for c, row_ in zip(codes, task, strict=True))
                       for code in row["keys"]]  # fmt: skip
            assert row[name] == counted


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))  # fmt: skip
def test_words_and_numbers_are_the_same_json_either_way(values: dict[str, str | float | None]) -> None:
    assert seen_rows.words_as_json(values) == seen_rows.as_json(values)


@pytest.mark.slow
def test_a_table_that_no_stage_changes_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    size = seeing._column_bytes
    monkeypatch.setattr(seeing, "_column_bytes", lambda column: measured.append(column) or size(column))
    task = DocumentBatch(data=pa.table({"text": ["a b c d e f", "a b c d e"], "n": pa.nulls(2)}), task_id="s")
    Pipeline([MinWords(), MinWords()]).run(
        LocalExecutor(workers=0), initial_tasks=[task], run_dir=str(tmp_path), seen=True
    )
    seen = read_seen(str(tmp_path))
    # The second look finds that the column of texts is not empty.
    assert (seen.bytes_in, seen.bytes_out, len(measured)) == (20, 20, 2)
    assert seen.stages["MinWords#2"].empty == ["n"]


def test_columns_tokens_and_overlap_are_counted_if_requested(tmp_path: Path) -> None:
    tasks = batches(2)
    Pipeline([MinWords(), MinWords(min_words=6)]).run(
        LocalExecutor(workers=0),
        initial_tasks=tasks,
        run_dir=str(tmp_path / "run"),
        seen={"by": ["language"], "tokens": "words", "overlap": True},
    )
    seen = read_seen(str(tmp_path / "run"))
    rows = [row for batch in tasks for row in batch.to_pyarrow().to_pylist()]
    sizes = [(row["language"], len(row["text"].split())) for row in rows]
    for found in seen.by["language"]:
        mine = [size for language, size in sizes if language == found.value]
        kept = [size for size in mine if 6 <= size <= 9]
        assert (found.rows_in, found.rows_out) == (len(mine), len(kept))
        assert (found.tokens_in, found.tokens_out) == (sum(mine), sum(kept))
        assert found.dropped["MinWords"] == sum(not 4 <= size <= 9 for size in mine)
        assert found.bytes_in == sum(max(0, 5 * size - 1) for size in mine)
    assert seen.tokens == "words"
    first, second = seen.stages["MinWords"], seen.stages["MinWords#2"]
    outside = sum(not 4 <= size <= 9 for _, size in sizes)
    assert (first.alone, first.first, first.anyway) == (outside, outside, outside)
    between = sum(4 <= size < 6 for _, size in sizes)
    assert (second.alone, second.first, second.anyway) == (outside + between, between, 0)
    assert seen.overlap == {"MinWords": {"MinWords#2": outside}, "MinWords#2": {"MinWords": outside}}


def test_a_missing_tokenizer_is_refused_before_anything_runs(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")  # without it, the library is what is missing
    with pytest.raises(CuratorError, match="no-such-tokenizer"):
        run(tmp_path / "run", seen={"tokens": str(tmp_path / "no-such-tokenizer.model")})
    assert not (tmp_path / "run" / "ledger").exists()


@dataclass
class BothSides(ColumnFilter):
    """Two scores, each compared with a limit by the same test."""

    min_length: int = 3
    min_words: int = 2

    score_type = pa.struct([("length", pa.int64()), ("words", pa.int64())])

    def score_array(self, values: pa.Array) -> pa.Array:
        texts = values.to_pylist()
        return pa.array([{"length": len(text), "words": len(text.split())} for text in texts], self.score_type)

    def scores_with(self, part: str, values: Sequence[float]) -> pa.Array:
        rows = [{"length": 9, "words": 9, **({part: int(value)} if part else {})} for value in values]
        return pa.array(rows, self.score_type)

    def keep_array(self, scores: pa.Array) -> pa.Array:
        long = pc.greater_equal(pc.struct_field(scores, "length"), pa.scalar(self.min_length))
        return pc.and_(long, pc.greater_equal(pc.struct_field(scores, "words"), pa.scalar(self.min_words)))


def test_moving_a_limit_is_exact_if_one_test_compares_several_scores(tmp_path: Path) -> None:
    texts = ["a", "a b", "abcdef", "abc def", "a b c d", "ab", "abcd e"]
    batch = DocumentBatch(data=pa.table({"text": texts}))
    place = str(tmp_path / "run")
    Pipeline([BothSides()]).run(LocalExecutor(workers=0), initial_tasks=[batch], run_dir=place)
    for score in read_seen(place).stages["BothSides"].scores:
        (limit,) = score.limits
        for value in (1, 2, 3, 5):
            first = bin_at(score.edges, limit.edge(value))
            moved = BothSides(**{limit.parameter: value})
            again = Pipeline([moved]).run(LocalExecutor(workers=0), initial_tasks=[batch])
            assert sum(score.free[first:]) + score.free_above == again.summary.stages[0].rows_out


@dataclass
class Endless(MinWords):
    """Names passages without end, and counts them."""

    named: ClassVar[list[int]] = []

    def at_fault(self, text: str, reason: str) -> Iterator[tuple[int, int]]:
        for start in range(0, len(text), 40):
            self.named.append(start)
            yield start, start + 4


@pytest.mark.slow
def test_passages_are_searched_only_in_the_text_that_is_shown(tmp_path: Path) -> None:
    Endless.named.clear()
    texts = pa.table({"text": ["word " * 2_000]})
    Pipeline([Endless()]).run(
        LocalExecutor(workers=0), initial_tasks=[DocumentBatch(data=texts)], run_dir=str(tmp_path)
    )
    (sample, _) = read_seen(str(tmp_path)).stages["Endless"].samples
    assert sample.spans[:2] == [[0, 4], [40, 44]]
    assert max(Endless.named) <= 2_040


@pytest.mark.parametrize(("module", "name", "value"), SMALL)
def test_reading_piece_by_piece_gives_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: int
) -> None:
    """Small folders are read whole, large ones in pieces; here pieces are merged after every row."""
    whole = run(tmp_path / "run", seen={"samples": 5}).to_json()
    monkeypatch.setattr(module, name, value)
    assert read_seen(str(tmp_path / "run")).to_json() == whole


def test_a_row_kept_by_two_workers_is_one_sample(tmp_path: Path) -> None:
    once = run(tmp_path / "run", seen={"samples": 5}).to_json()
    for name in ("samples", "seen"):
        for file in list((tmp_path / "run" / name).iterdir()):
            shutil.copy(file, file.with_name(f"copy-{file.name}"))
    assert read_seen(str(tmp_path / "run")).to_json() == once


@pytest.mark.parametrize("edges", ["no!", "AAAA", 7, None])
def test_edges_that_cannot_be_read_are_named(tmp_path: Path, edges: Any) -> None:
    run(tmp_path / "run", seen={"samples": 5})
    (path,) = (tmp_path / "run" / "declared").iterdir()
    content = json.loads(path.read_text())
    next(stage for stage in content["stages"] if stage.get("scores"))["scores"][0]["edges"] = edges
    path.write_text(json.dumps(content))
    with pytest.raises(RunRefused, match=f"{re.escape(str(path))}' is damaged .* remove it"):
        read_seen(str(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["seen", "samples"])
def test_a_change_anywhere_in_a_file_of_counts_or_samples_is_found(tmp_path: Path, folder: str) -> None:
    run(tmp_path / "run", seen={"samples": 5})
    (path,) = (tmp_path / "run" / folder).iterdir()
    data = path.read_bytes()
    flipped = (data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] for at in range(0, len(data), len(data) // 100))
    (other,) = (tmp_path / "run" / ("seen" if folder == "samples" else "samples")).iterdir()
    for damaged in (*flipped, data[: len(data) // 2], data + b"0", b"", b"{}", other.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(RunRefused, match=f"{re.escape(str(path))}' is damaged .* remove it"):
            read_seen(str(tmp_path / "run"))
    write_report(str(tmp_path / "run"))
    (problem,) = json.loads((tmp_path / "run" / "report.json").read_text())["problems"]
    assert str(path) in problem, "the page says why it has no samples"


def test_a_report_reads_each_small_file_of_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file takes a millisecond or two, so a report that read each of them four times took half a second."""
    run(tmp_path / "run")
    opened: list[str] = []
    real = table_files._opened_file

    def counted(path: str) -> AbstractContextManager[Any]:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(table_files, "_opened_file", counted)
    write_report(str(tmp_path / "run"))
    assert {Path(path).parent.name for path in opened} == {"ledger", "samples", "seen", "sources"}
    assert len(opened) == len(set(opened))


def test_only_small_tables_are_streams_which_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(tmp_path / "small", seen={"samples": 5}).to_json()
    monkeypatch.setattr(table_files, "_SMALL_BYTES", 1)
    assert run(tmp_path / "large", seen={"samples": 5}).to_json() == expected
    for size, ending in (("small", ".arrow"), ("large", ".parquet")):
        for folder in ("seen", "samples"):
            assert {path.suffix for path in (tmp_path / size / folder).iterdir()} == {ending}


def test_files_of_earlier_versions_which_are_parquet_are_read(tmp_path: Path) -> None:
    expected = run(tmp_path / "run", seen={"samples": 5}).to_json()
    for folder, schema in (("seen", seen_rows.SEEN_SCHEMA), ("samples", seen_rows.SAMPLE_SCHEMA)):
        (path,) = (tmp_path / "run" / folder).iterdir()
        table_files.write_parquet(str(path.with_suffix(".parquet")), table_files.read_file(str(path), schema))
        path.unlink()
    assert read_seen(str(tmp_path / "run")).to_json() == expected


@dataclass
class Halve(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops every batch's texts of fewer than ``least`` words, and adds columns of which some have no value."""

    least: int = 6

    shows_kept = True

    def outputs(self) -> list[str]:
        return ["nothing", "blank", "note", "part"]

    def may_be_empty(self) -> list[str]:
        return ["note"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        words = np.array([len(text.split()) for text in table["text"].to_pylist()], float)
        stay = words >= self.least
        self.record_dropped("short", int((~stay).sum()), which=np.flatnonzero(~stay))
        self.record_scored("words", "least", words, np.abs(words - self.least))
        first = table["id"][0].as_py().startswith("3-")
        for name, values in {
            "nothing": pa.nulls(len(table), pa.int64()),
            "blank": pa.array([None if row % 2 else "" for row in range(len(table))], pa.string()),
            "note": pa.nulls(len(table), pa.string()),
            "part": pa.array(["x" if first else None] * len(table), pa.string()),
        }.items():
            task = task.append_column(name, values)
        return task.filter(pa.array(stay))


def halved(folder: Path, workers: int = 0) -> Seen:
    tasks = batches()
    whole = [f"{' '.join(['word'] * (6 + row % 3))}" for row in range(50)]  # a batch that loses no row
    tasks[1] = tasks[1].with_data(tasks[1].to_pyarrow().set_column(2, "text", pa.array(whole)))
    run_dir = str(folder / str(workers))
    Pipeline([Halve()]).run(LocalExecutor(workers=workers), initial_tasks=tasks, run_dir=run_dir)
    return read_seen(run_dir)


def test_a_stage_that_chooses_rows_shows_both_sides_of_its_limit(tmp_path: Path) -> None:
    stage = halved(tmp_path).stages["Halve"]
    sides = {(sample.side, sample.near) for sample in stage.samples}
    assert sides == {("dropped", True), ("dropped", False), ("kept", True), ("kept", False)}
    near = [sample for sample in stage.samples if sample.near]
    assert {sample.score for sample in near if sample.side == "kept"} == {6.0}
    sizes = [
        len(text.split()) for batch in (0, 2, 3, 4, 5) for text in batches()[batch].to_pyarrow()["text"].to_pylist()
    ]
    far = sorted(6.0 - size for size in sizes if size < 6)
    assert sorted(sample.distance or 0.0 for sample in near if sample.side == "dropped") == far[: SeenOptions().samples]
    # The stage declares no limits before it runs, so as many rows are kept from anywhere.
    assert sum(not sample.near for sample in stage.samples if sample.side == "dropped") == SeenOptions().samples
    assert stage.of["kept"] + stage.of["dropped"]["short"] == 300  # with the batch of which all rows stay
    assert any((sample.id or "").startswith("1-") for sample in stage.samples if sample.side == "kept")


def test_columns_of_the_output_without_a_value_cause_an_alarm(tmp_path: Path) -> None:
    assert halved(tmp_path).stages["Halve"].empty == ["blank", "nothing"]
    write_report(str(tmp_path / "0"))
    alarms = json.loads((tmp_path / "0/report.json").read_text())["alarms"]
    assert [(alarm["kind"], alarm["column"]) for alarm in alarms] == [
        ("empty column", "blank"),
        ("empty column", "nothing"),
    ]
    assert "'blank' of the output of Halve has no value" in alarms[0]["sentence"]


@pytest.mark.slow
def test_both_sides_and_empty_columns_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    alone, several = halved(tmp_path).to_json(), halved(tmp_path, 2).to_json()
    assert json.dumps(several, default=str) == json.dumps(alone, default=str)


SHORT = """
import sys
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline
from curator_core.arrow.arrays import array, scalar


@dataclass
class Short(ColumnFilter):
    most: float = 2.5

    def score_array(self, values):
        return array([float(len(text)) for text in values.to_pylist()], self.score_type)

    def keep_array(self, scores):
        return pc.less_equal(scores, scalar(self.most))


texts = array(["x" * size for size in range(1, 6)], pa.string())
tasks = [DocumentBatch(data=pa.Table.from_arrays([texts], names=["text"]))]
result = Pipeline([Short()]).run(LocalExecutor(workers=0), initial_tasks=tasks, run_dir=sys.argv[1])
assert result.summary.stages[-1].rows_out == 2
assert "pandas" not in sys.modules
"""


@pytest.mark.slow
def test_neither_the_counts_of_a_run_nor_its_report_load_pandas(tmp_path: Path) -> None:
    """It takes 0.2 s, as long as everything that a run keeps to be seen; some calls of pyarrow load it on their own."""
    pytest.importorskip("pandas")
    command = [sys.executable, "-c", SHORT, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert len(report["stages"][-1]["samples"]) > 2
