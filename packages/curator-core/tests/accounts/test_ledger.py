"""The ledger as files: its writers, its readers of any kind, and a run on an object store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core import LocalExecutor, Pipeline, storage
from curator_core.accounts import ledger as ledger_module
from curator_core.accounts.events import DONE, FORK, Event, events_from, events_table
from curator_core.accounts.ledger import LedgerWriter, open_accounts, read_events, read_results
from curator_core.accounts.reject_rows import RejectRow
from curator_core.accounts.source_list import GONE, Listed, SourceList
from curator_core.accounts.tally import SUM_UP, StageTotals, Tally
from curator_core.errors import OutputError, RunRefused
from curator_core.model.recorder import Reject
from curator_core.model.task import FileRecord, StagePerfStats
from curator_core.running.verify import verify
from curator_core.stages.files import FilePartitioning
from curator_core.testing.faults import Halves, Join, NoMultiples, ReadLines, Trial, WriteLines

words = st.text(max_size=8)
numbers = st.integers(0, 2**40)
perfs = st.builds(
    StagePerfStats,
    words,
    st.floats(0, 1e6, width=32),
    st.integers(0, 2**31 - 1),
    numbers,
    numbers,
    st.dictionaries(words, numbers, max_size=2),
    st.dictionaries(words, numbers, max_size=2),
    numbers,
    st.dictionaries(words, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)
records = st.builds(FileRecord, words, numbers, numbers, words)


@st.composite
def events(draw: Any) -> Event:
    source = draw(st.sampled_from(["a", "b-1", "ü"]))
    return Event(
        draw(st.sampled_from(["fork", "done", "dropped", "failed", "merged"])),
        source,
        source + draw(st.sampled_from(["", ".00000", ".00001.00002", ".123456"])),
        draw(words),
        draw(st.integers(1, 9)),
        draw(st.integers(0, 10**6)),
        draw(words),
        draw(words),
        draw(st.lists(perfs, max_size=3)),
        draw(st.lists(st.tuples(words, records), max_size=3)),
        draw(st.lists(words, max_size=3)),
        draw(words),
    )


patient = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


MORE = settings(patient, max_examples=100)


@pytest.mark.slow
@patient
@given(st.lists(events(), max_size=5))
def test_events_are_read_as_they_were_written(given_events: list[Event]) -> None:
    table = events_table(given_events)
    assert list(events_from(table)) == given_events
    # A slice, such as a reader of a part of a file gets.
    assert list(events_from(table.slice(1, 2))) == given_events[1:3]


test_events_are_read_as_written_in_more_examples = with_more_examples(
    test_events_are_read_as_they_were_written, MORE, st.lists(events(), max_size=5)
)


def counted(totals: StageTotals) -> tuple[object, ...]:
    """All of a stage's counts except its seconds and metrics, whose sums differ slightly in another order."""
    return (
        totals.calls,
        totals.rows_in,
        totals.rows_out,
        totals.dropped,
        totals.rejected,
        totals.quarantined,
    )


@pytest.mark.slow
@patient
@given(st.lists(events(), max_size=6))
def test_totals_of_a_table_equal_those_of_its_events(given_events: list[Event]) -> None:
    by_table, by_event = Tally(), Tally()
    by_table.add_table(events_table(given_events)["counts"])
    for event in given_events:
        by_event.add(event.counts)
    assert by_table.stages.keys() == by_event.stages.keys()
    for name, totals in by_event.stages.items():
        found = by_table.stages[name]
        assert counted(found) == counted(totals)
        assert found.seconds == pytest.approx(totals.seconds, rel=1e-6)
        assert found.metrics == pytest.approx(totals.metrics)


test_totals_of_a_table_in_more_examples = with_more_examples(
    test_totals_of_a_table_equal_those_of_its_events, MORE, st.lists(events(), max_size=6)
)
PIECES = (st.lists(events(), max_size=12), st.integers(0, 20), st.integers(1, 4))


@pytest.mark.slow
@patient
@given(*PIECES)
def test_counts_passed_on_in_pieces_add_up_to_the_total(given_events: list[Event], few: int, every: int) -> None:
    at_once, worker, driver = Tally(), Tally(), Tally()
    for number, event in enumerate(given_events, start=1):
        at_once.add(event.counts)
        worker.add(event.counts)
        if number % every == 0:
            driver.add(worker.take(few))
    driver.add(worker.take(few))
    assert worker.take(few) == []
    assert driver.stages.keys() == at_once.stages.keys()
    for name, totals in at_once.stages.items():
        found = driver.stages[name]
        assert counted(found) == counted(totals)


test_counts_passed_on_in_pieces_in_more_examples = with_more_examples(
    test_counts_passed_on_in_pieces_add_up_to_the_total, MORE, *PIECES
)


def test_counts_of_many_calls_are_summed_when_passed_on_and_while_waiting() -> None:
    tally = Tally()
    for _ in range(10_000):
        tally.add([StagePerfStats("Read", rows_in=1, rows_out=1)])
        assert len(tally._new) < SUM_UP
    (count,) = tally.take(32)
    assert (count.stage_name, count.calls, count.rows_in) == ("Read", 10_000, 10_000)


def test_records_can_be_read_only_after_they_are_flushed(tmp_path: Path) -> None:
    writer = LedgerWriter(str(tmp_path))
    writer.event(Event(DONE, "s", "s", "g"))
    assert list(read_events(str(tmp_path))) == []
    writer.flush()
    assert [event.task for event in read_events(str(tmp_path))] == ["s"]


@pytest.mark.parametrize("folder", ["rejects", "results"])
def test_laws_3_and_4_no_event_is_on_disk_before_the_records_it_promises(tmp_path: Path, folder: str) -> None:
    """A resumed run takes an event as proof that the rejects and results of its task are there too."""
    obstacle = tmp_path / folder
    obstacle.write_text("a file where the folder is to be: nothing can be written into it")
    writer = LedgerWriter(str(tmp_path))
    writer.event(Event(DONE, "s", "s", "g", result="stored"))
    if folder == "rejects":
        writer.reject(RejectRow("reject", "s", "g", 1, "s", "Read", Reject("no JSON", raw=b"{")))
    else:
        writer.keep("s", pa.py_buffer(b"result"))
    with pytest.raises(OutputError):
        writer.flush()
    assert list(read_events(str(tmp_path))) == []
    obstacle.unlink()
    writer.flush()
    assert [event.task for event in read_events(str(tmp_path))] == ["s"]
    assert [path.is_file() for path in obstacle.iterdir()] == [True]


def test_if_two_attempts_stored_a_result_the_newer_is_read(tmp_path: Path) -> None:
    for attempt in (1, 2):
        writer = LedgerWriter(str(tmp_path), attempt)
        writer.keep("s", pa.py_buffer(b"of attempt %d" % attempt))
        writer.flush()
    assert {task: data.to_pybytes() for task, data in read_results(str(tmp_path), {"s"}).items()} == {
        "s": b"of attempt 2"
    }


@pytest.mark.slow
def test_many_flushes_leave_few_files_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PACK_FILES", 4)
    writers = [LedgerWriter(str(tmp_path)) for _ in range(2)]
    for number in range(100):
        writers[number % 2].event(Event(DONE, f"s{number}", f"s{number}", "g"))
        writers[number % 2].flush()
    assert sorted(event.source for event in read_events(str(tmp_path))) == sorted(f"s{n}" for n in range(100))
    assert len(list((tmp_path / "ledger").iterdir())) <= 2 * 4 * 4


def test_records_are_found_even_if_they_are_packed_during_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PACK_FILES", 4)
    writer = LedgerWriter(str(tmp_path))

    def write(numbers: range) -> None:
        for number in numbers:
            writer.event(Event(DONE, f"s{number}", f"s{number}", "g"))
            writer.flush()

    write(range(3))
    reading = read_events(str(tmp_path))
    found = {next(reading).source}
    write(range(3, 4))  # the fourth file has all four packed
    found |= {event.source for event in reading}
    assert found == {"s0", "s1", "s2", "s3"}


def test_an_interrupted_packing_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PACK_FILES", 4)
    monkeypatch.setattr(storage, "remove", lambda path: None)  # the writer dies between writing and removing
    writer = LedgerWriter(str(tmp_path))
    for number in range(4):
        counts = [StagePerfStats("Stage", 0.5, 1, 10, 10)]
        writer.event(Event(DONE, f"s{number}", f"s{number}", "g", counts=counts))
        writer.flush()
    assert len(list(read_events(str(tmp_path)))) == 8
    accounts = open_accounts(str(tmp_path))
    sources = [f"s{number}" for number in range(4)]
    assert accounts.shares(sources)["done"] == Fraction(4)
    tally = Tally()
    for _, table in accounts.tables(accounts.event_numbers(sources), ["counts"]):
        tally.add_table(table["counts"])
    assert tally.stages["Stage"].rows_in == 40


def test_the_list_of_sources_keeps_the_last_entry_for_each(tmp_path: Path) -> None:
    listing = SourceList(str(tmp_path))
    listing.note([Listed("a", "1"), Listed("b", "1", '[["x", null], ["y", null]]')])
    listing.note([Listed("a", "2")])
    listing.note([])
    again = SourceList(str(tmp_path))
    assert again.rows == {"a": Listed("a", "2"), "b": Listed("b", "1", '[["x", null], ["y", null]]')}
    assert again.members() == {"b": [["x", None], ["y", None]]}
    again.note([Listed("b")])
    assert SourceList(str(tmp_path)).rows["b"].generation == GONE
    assert SourceList(str(tmp_path)).members() == {}


@pytest.mark.slow
def test_leaves_beyond_a_hundred_thousand_stay_in_order(tmp_path: Path) -> None:
    writer = LedgerWriter(str(tmp_path))
    for index in (100_001, 2, 99_999, 100_000):
        writer.event(Event(DONE, "s", f"s.{index:05d}", "g"))
    writer.event(Event(FORK, "s", "s", "g", children=100_002))
    writer.flush()
    accounts = open_accounts(str(tmp_path))
    order = [task for task, _ in accounts.tasks(accounts.event_numbers(["s"], DONE))]
    assert order == ["s.00002", "s.99999", "s.100000", "s.100001"]
    assert not accounts.is_complete("s")
    assert accounts.settle("s").done == Fraction(4, 100_002)


def test_any_reader_of_parquet_can_query_what_became_of_rows(tmp_path: Path) -> None:
    """The queries in docs/ledger.md use only the files, and no code of ours."""
    trial = Trial(tmp_path, config={"workers": 0}, files=5, seconds=0.0)
    trial.run()
    rows = pq.read_table(tmp_path / "run" / "ledger").to_pylist()
    by_stage: dict[str, list[int]] = {}
    for row in rows:
        for count in row["counts"]:
            totals = by_stage.setdefault(count["stage"], [0, 0])
            totals[0] += count["rows_in"]
            totals[1] += sum(json.loads(count["dropped"] or "{}").values())
    assert by_stage["NoMultiples"] == [30, 5]
    done = [row["source"] + row["path"] for row in rows if row["kind"] == "done"]
    files = {path.stem for path in (tmp_path / "out").glob("*.jsonl")}
    assert set(done) == files
    assert sum(out["rows"] for row in rows for out in row["outputs"]) == 25


# On an object store -----------------------------------------------------------------------------------------------


def put_inputs(place: str, count: int) -> None:
    for number in range(count):
        lines = [json.dumps({"id": row, "text": f"text {row}"}) for row in range(number * 4, number * 4 + 4)]
        storage.write_bytes_atomic(f"{place}/in/part-{number:02d}.jsonl", "\n".join(lines).encode())


def stages(place: str) -> list[Any]:
    return [
        FilePartitioning(paths=f"{place}/in"),
        ReadLines(),
        Halves(),
        NoMultiples(of=3),
        Join().with_(batch_size=4),
        WriteLines(path=f"{place}/out"),
    ]


def outputs(place: str) -> dict[str, bytes]:
    return {storage.relative(path, place): storage.read_bytes(path) for path in storage.list_files(place, hidden=True)}


class Stop(Exception):
    pass


def stop(state: Any) -> None:
    if state.finished_sources >= 3:
        raise Stop


@pytest.mark.slow
def test_a_run_in_an_object_store_is_resumed(s3_bucket: str, tmp_path: Path) -> None:
    place = f"{s3_bucket}/{uuid.uuid4().hex}"
    put_inputs(place, 6)
    here = LocalExecutor(workers=0)
    with pytest.raises(Stop):
        Pipeline(stages(place)).run(here, run_dir=f"{place}/run", progress=stop)
    result = Pipeline(stages(place)).run(here, run_dir=f"{place}/run", resume=True)
    assert 0 < result.summary.sources_skipped < 6
    assert result.summary.shares == {"done": "6", "dropped": "0", "failed": "0"}
    put_inputs(str(tmp_path), 6)
    Pipeline(stages(str(tmp_path))).run(here)
    assert outputs(f"{place}/out") == outputs(f"{tmp_path}/out")
    assert verify(f"{place}/run") == []
    again = Pipeline(stages(place)).run(here, run_dir=f"{place}/run", resume=True)
    assert again.summary.sources_skipped == 6
    # An object that has been replaced is detected by its etag.
    storage.write_bytes_atomic(f"{place}/in/part-02.jsonl", b'{"id": 1, "text": "other"}\n')
    storage.remove(f"{place}/in/part-04.jsonl")
    changed = Pipeline(stages(place)).run(here, run_dir=f"{place}/run", resume=True)
    assert changed.summary.inputs == {"unchanged": 4, "changed": 1, "removed": 1}
    # Files are named after their merge, so their order says nothing.
    assert sorted(row["id"] for row in rows(f"{place}/out")) == [1, 1, 2, 4, 5, 7, 13, 14, 20, 22, 23]


def rows(folder: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in storage.list_files(folder)
        if path.endswith(".jsonl")
        for line in storage.read_bytes(path).splitlines()
    ]


@pytest.mark.slow
def test_a_run_in_an_object_store_is_not_run_twice_at_once_and_survives_its_driver(
    s3_bucket: str, tmp_path: Path
) -> None:
    place = f"{s3_bucket}/{uuid.uuid4().hex}"
    put_inputs(place, 4)
    script = f"""
import os, signal
from curator_core import LocalExecutor, Pipeline
from curator_core.testing.faults import Halves, ReadLines, WriteLines
from curator_core.stages.files import FilePartitioning
def die(state):
    if state.finished_sources == 2:
        print("two", flush=True)
        input()
        os.kill(os.getpid(), signal.SIGKILL)
stages = [FilePartitioning(paths="{place}/in"), ReadLines(), Halves(), WriteLines(path="{place}/out")]
Pipeline(stages).run(LocalExecutor(workers=0), run_dir="{place}/run", progress=die)
"""
    pipeline = Pipeline([FilePartitioning(paths=f"{place}/in"), ReadLines(), Halves(), WriteLines(path=f"{place}/out")])
    here = LocalExecutor(workers=0)
    driver = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "two\n"
    with pytest.raises(RunRefused, match=f"another run is at work.*process {driver.pid}"):
        pipeline.run(here, run_dir=f"{place}/run", resume=True)
    driver.communicate("\n")
    assert driver.returncode == -signal.SIGKILL
    result = pipeline.run(here, run_dir=f"{place}/run", resume=True)
    assert result.summary.shares["done"] == "4"
    assert sorted(row["id"] for row in rows(f"{place}/out")) == list(range(16))
    assert verify(f"{place}/run") == []
