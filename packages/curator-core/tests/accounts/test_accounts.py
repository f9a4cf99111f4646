"""Shares and rows of random pipelines under repeated, shuffled and crashed execution, compared with a plain
simulation."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core import DocumentBatch, FanOut, Merge, Pipeline, ProcessingStage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import DONE, DROPPED, FAILED, FORK, MERGE, MERGED, Event
from curator_core.errors import StageError
from curator_core.model.lineage import child_id
from curator_core.testing.faults import ChaoticExecutor, Crash

# Random pipelines -------------------------------------------------------------------------------------------------

# The rows that Poison and similar stages refuse; a test clears it to mend its pipeline.
BROKEN = [True]


def ids(task: DocumentBatch) -> list[int]:
    found: list[int] = task.to_pyarrow()["id"].to_pylist()
    return found


def refuse(values: list[int], mod: int) -> None:
    if BROKEN[0] and any(value % mod == 0 for value in values):
        raise ValueError("a row that cannot be")


def parts_of(task: DocumentBatch, count: int) -> Iterator[DocumentBatch]:
    table = task.to_pyarrow()
    for index in range(count):
        rows = [row for row in range(table.num_rows) if row % count == index]
        yield task.with_data(table.take(pa.array(rows, pa.int64())))


@dataclass
class Same(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@dataclass
class DropRows(ProcessingStage[DocumentBatch, DocumentBatch]):
    mod: int = 2

    def process(self, task: DocumentBatch) -> DocumentBatch:
        keep = [value % self.mod != 0 for value in ids(task)]
        self.record_dropped("mod", keep.count(False))
        return task.filter(pa.array(keep, pa.bool_()))


@dataclass
class DropTasks(ProcessingStage[DocumentBatch, DocumentBatch]):
    mod: int = 2

    def process(self, task: DocumentBatch) -> DocumentBatch | None:
        values = ids(task)
        return None if values and values[0] % self.mod == 0 else task.with_data(task.data)


@dataclass
class Stream(FanOut[DocumentBatch, DocumentBatch]):
    count: int = 2

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        yield from parts_of(task, self.count)


@dataclass
class Several(FanOut[DocumentBatch, DocumentBatch]):
    count: int = 2

    def process(self, task: DocumentBatch) -> list[DocumentBatch]:
        return list(parts_of(task, self.count))


@dataclass
class AsList(ProcessingStage[DocumentBatch, DocumentBatch]):
    count: int = 2

    def process(self, task: DocumentBatch) -> list[DocumentBatch]:
        return list(parts_of(task, self.count))


@dataclass
class Poison(ProcessingStage[DocumentBatch, DocumentBatch]):
    mod: int = 3

    def process(self, task: DocumentBatch) -> DocumentBatch:
        refuse(ids(task), self.mod)
        return task.with_data(task.data)


@dataclass
class PoisonStream(FanOut[DocumentBatch, DocumentBatch]):
    """Gives some children before it fails."""

    count: int = 2
    mod: int = 3

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for part in parts_of(task, self.count):
            refuse(ids(part), self.mod)
            yield part


@dataclass
class Join(Merge[DocumentBatch, DocumentBatch]):
    def process(self, tasks: Any) -> DocumentBatch:
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


@dataclass
class PoisonJoin(Merge[DocumentBatch, DocumentBatch]):
    mod: int = 3

    def process(self, tasks: Any) -> DocumentBatch:
        table = pa.concat_tables([task.to_pyarrow() for task in tasks])
        refuse(table["id"].to_pylist(), self.mod)
        return DocumentBatch(data=table)


# The truth --------------------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """The expected results of a pipeline: the rows of the final tasks, and the rest by stage."""

    tasks: list[list[int]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    failed: bool = False
    shares: dict[str, Fraction] = field(default_factory=dict)


def simulate(stages: list[ProcessingStage[Any, Any]], sources: list[list[int]], broken: bool) -> Truth:
    truth = Truth(shares={"done": Fraction(0), "dropped": Fraction(0), "failed": Fraction(0)})
    tasks = [(rows, Fraction(1)) for rows in sources]
    for stage in stages:
        tasks = _after(stage, tasks, truth, broken)
    truth.tasks = [rows for rows, _ in tasks]
    truth.shares["done"] += sum(share for _, share in tasks)
    return truth


def _after(
    stage: Any, tasks: list[tuple[list[int], Fraction]], truth: Truth, broken: bool
) -> list[tuple[list[int], Fraction]]:
    name = stage.name
    made: list[tuple[list[int], Fraction]] = []
    if isinstance(stage, (Join, PoisonJoin)):
        size = stage.batch_size or max(1, len(tasks))
        for start in range(0, len(tasks), size):
            group = tasks[start : start + size]
            rows = [row for part, _ in group for row in part]
            share = sum((share for _, share in group), Fraction(0))
            if isinstance(stage, PoisonJoin) and broken and any(row % stage.mod == 0 for row in rows):
                truth.quarantined[name] += len(rows)
                truth.shares["failed"] += share
                truth.failed = True
            else:
                made.append((rows, share))
        return made
    for rows, share in tasks:
        match stage:
            case DropRows():
                kept = [row for row in rows if row % stage.mod != 0]
                truth.dropped[name] += len(rows) - len(kept)
                made.append((kept, share))
            case DropTasks() if rows and rows[0] % stage.mod == 0:
                truth.dropped[name] += len(rows)
                truth.shares["dropped"] += share
            case Poison() if broken and (bad := [row for row in rows if row % stage.mod == 0]):
                truth.failed = True
                truth.quarantined[name] += len(bad)
                if len(bad) == len(rows):
                    truth.shares["failed"] += share
                else:
                    made.append(([row for row in rows if row % stage.mod != 0], share))
            case Stream() | Several() | AsList() | PoisonStream() if not stage.count:
                truth.dropped[name] += len(rows)
                truth.shares["dropped"] += share
            case Stream() | Several() | AsList() | PoisonStream():
                parts = [rows[index :: stage.count] for index in range(stage.count)]
                bad_at = None
                if isinstance(stage, PoisonStream) and broken:
                    bad_at = next((i for i, p in enumerate(parts) if any(row % stage.mod == 0 for row in p)), None)
                if bad_at is None:
                    made += [(part, share / len(parts)) for part in parts]
                else:
                    truth.failed = True
                    made += [(part, share / (bad_at + 1)) for part in parts[:bad_at]]
                    truth.quarantined[name] += sum(map(len, parts[bad_at:]))
                    truth.shares["failed"] += share / (bad_at + 1)
            case _:
                made.append((rows, share))
    return made


# Strategies -------------------------------------------------------------------------------------------------------

mods = st.integers(2, 5)
counts = st.integers(0, 3)
stage_kinds = st.one_of(
    st.builds(Same),
    st.builds(DropRows, mod=mods),
    st.builds(DropTasks, mod=mods),
    st.builds(Stream, count=counts),
    st.builds(Several, count=counts),
    st.builds(AsList, count=counts),
    st.builds(Poison, mod=mods),
    st.builds(PoisonStream, count=counts, mod=mods),
    st.builds(lambda size: Join().with_(batch_size=size) if size else Join(), st.integers(0, 3)),
    st.builds(lambda size, mod: PoisonJoin(mod=mod).with_(batch_size=size), st.integers(1, 3), mods),
)


@st.composite
def pipelines(draw: Any) -> list[ProcessingStage[Any, Any]]:
    stages = []
    for number, stage in enumerate(draw(st.lists(stage_kinds, min_size=1, max_size=5))):
        batch = stage.batch_size if isinstance(stage, Merge) else draw(st.integers(1, 3))
        named = stage.with_(name=f"{type(stage).__name__}-{number}")
        stages.append(named if isinstance(stage, Merge) else named.with_(batch_size=batch))
    return stages


@st.composite
def inputs(draw: Any) -> list[list[int]]:
    """Sources with rows whose ids are all different."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    numbers = iter(draw(st.permutations(range(1, sum(sizes) + 1))))
    return [[next(numbers) for _ in range(size)] for size in sizes]


def tasks_of(sources: list[list[int]]) -> list[DocumentBatch]:
    return [
        DocumentBatch(data=pa.table({"id": pa.array(rows, pa.int64())}), task_id=f"source-{number}")
        for number, rows in enumerate(sources)
    ]


def assert_true(result: Any, truth: Truth, sources: list[list[int]]) -> None:
    assert [ids(task) for task in result.tasks] == truth.tasks
    summary = result.summary
    assert {name: Fraction(text) for name, text in summary.shares.items()} == truth.shares
    assert sum(truth.shares.values()) == len(sources)
    assert {s.name: s.rows_dropped for s in summary.stages if s.rows_dropped} == {
        name: rows for name, rows in truth.dropped.items() if rows
    }
    assert {s.name: s.quarantined for s in summary.stages if s.quarantined} == {
        name: rows for name, rows in truth.quarantined.items() if rows
    }
    everything = sum(map(len, truth.tasks)) + truth.dropped.total() + truth.quarantined.total()
    assert everything == sum(map(len, sources))
    assert summary.state == ("quarantined" if truth.failed else "done")


# Shrinking a failing pipeline takes minutes; the original example says enough, and its seed repeats it.
quick = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


MORE = settings(quick, max_examples=30)
VERDICTS = (pipelines(), inputs(), st.integers(0, 10**6), st.integers(1, 3))


@pytest.mark.slow
@quick
@given(*VERDICTS)
@example([Several(count=0), Join()], [[1], []], 0, 1)
@example([Stream(count=3), Join().with_(batch_size=2), Stream(count=2), PoisonJoin(mod=2)], [[1, 2, 3], [4]], 1, 2)
def test_the_verdict_is_correct_however_often_and_in_which_order_tasks_run(
    stages: list[Any], sources: list[list[int]], seed: int, workers: int
) -> None:
    truth = simulate(stages, sources, broken=True)
    executor = ChaoticExecutor({"seed": seed, "workers": workers})
    result = Pipeline(stages).run(executor, initial_tasks=tasks_of(sources), on_error="quarantine")
    assert_true(result, truth, sources)


test_the_verdict_is_correct_in_more_examples = with_more_examples(
    test_the_verdict_is_correct_however_often_and_in_which_order_tasks_run, MORE, *VERDICTS
)
ATTEMPTS = (pipelines(), inputs(), st.integers(0, 10**6), st.lists(st.integers(0, 12), max_size=3))


@pytest.mark.slow
@quick
@given(*ATTEMPTS)
def test_a_ledger_of_several_crashed_attempts_gives_the_same_verdict(
    stages: list[Any], sources: list[list[int]], seed: int, crashes: list[int]
) -> None:
    truth = simulate(stages, sources, broken=True)
    with tempfile.TemporaryDirectory() as folder:
        run: dict[str, Any] = {"run_dir": folder, "on_error": "quarantine"}
        for number, after in enumerate(crashes):
            executor = ChaoticExecutor({"seed": seed + number, "crash_after": after})
            try:
                Pipeline(stages).run(executor, initial_tasks=tasks_of(sources), resume=True, **run)
            except Crash:
                continue
        result = Pipeline(stages).run(
            ChaoticExecutor({"seed": seed}), initial_tasks=tasks_of(sources), resume=True, **run
        )
        assert_true(result, truth, sources)
        again = Pipeline(stages).run(
            ChaoticExecutor({"seed": seed}), initial_tasks=tasks_of(sources), resume=True, **run
        )
        assert_true(again, truth, sources)
        assert again.summary.sources_skipped == len(sources)


test_a_ledger_of_several_attempts_in_more_examples = with_more_examples(
    test_a_ledger_of_several_crashed_attempts_gives_the_same_verdict, MORE, *ATTEMPTS
)
FIXES = (pipelines(), inputs(), st.integers(0, 10**6), st.booleans())


@pytest.mark.slow
@quick
@given(*FIXES)
def test_a_failed_run_continues_after_the_fix(
    stages: list[Any], sources: list[list[int]], seed: int, in_directory: bool
) -> None:
    poisoned = simulate(stages, sources, broken=True).failed
    whole = simulate(stages, sources, broken=False)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"run_dir": folder, "resume": True} if in_directory else {}
        executor = ChaoticExecutor({"seed": seed})
        if poisoned:
            with pytest.raises(StageError):
                Pipeline(stages).run(executor, initial_tasks=tasks_of(sources), **options)
        BROKEN[0] = False
        try:
            result = Pipeline(stages).run(executor, initial_tasks=tasks_of(sources), **options)
        finally:
            BROKEN[0] = True
        assert_true(result, whole, sources)


test_a_failed_run_continues_in_more_examples = with_more_examples(
    test_a_failed_run_continues_after_the_fix, MORE, *FIXES
)
RETRIES = (pipelines(), inputs(), st.integers(0, 10**6))


@pytest.mark.slow
@quick
@given(*RETRIES)
def test_a_retry_after_the_fix_completes_the_quarantined_work(
    stages: list[Any], sources: list[list[int]], seed: int
) -> None:
    truth, whole = simulate(stages, sources, broken=True), simulate(stages, sources, broken=False)
    with tempfile.TemporaryDirectory() as folder:
        run: dict[str, Any] = {"run_dir": folder, "on_error": "quarantine", "initial_tasks": tasks_of(sources)}
        assert_true(Pipeline(stages).run(ChaoticExecutor({"seed": seed}), **run), truth, sources)
        BROKEN[0] = False
        try:
            mended = Pipeline(stages).run(ChaoticExecutor({"seed": seed}), **run, retry=True)
        finally:
            BROKEN[0] = True
        assert_true(mended, whole, sources)


test_a_retry_completes_the_work_in_more_examples = with_more_examples(
    test_a_retry_after_the_fix_completes_the_quarantined_work, MORE, *RETRIES
)


# Accounts by themselves -------------------------------------------------------------------------------------------


@st.composite
def lineages(draw: Any) -> tuple[list[Event], dict[str, Fraction]]:
    """The events of one source, and the share of each end."""
    ends: dict[str, Fraction] = {}
    events: list[Event] = []

    def grow(task: str, share: Fraction, depth: int) -> None:
        kind = draw(st.sampled_from([FORK, FORK, DONE, DROPPED, FAILED, MERGED] if depth < 3 else [DONE, FAILED]))
        children = draw(st.integers(1, 4)) if kind == FORK else 0
        events.append(Event(kind, "s", task, "g", children=children, stage=f"stage-{depth}"))
        if kind != FORK:
            ends[kind] = ends.get(kind, Fraction(0)) + share
        for index in range(children):
            grow(child_id(task, index), share / children, depth + 1)

    grow("s", Fraction(1), 0)
    return events, ends


@pytest.mark.slow
@given(lineages(), st.randoms(use_true_random=False))
def test_shares_add_up_to_one_in_any_order_and_however_often_recorded(
    lineage: tuple[list[Event], dict[str, Fraction]], rng: Any
) -> None:
    events, ends = lineage
    recorded = [*events, *rng.choices(events, k=len(events))]
    rng.shuffle(recorded)
    accounts = Accounts(recorded)
    settled = accounts.settle("s")
    assert accounts.is_complete("s")
    assert accounts.incomplete(["s", "t"]) == ["t"]
    assert settled.total == 1
    assert {kind: getattr(settled, kind) for kind in ends} == ends


@pytest.mark.slow
@given(lineages(), st.data())
def test_a_single_missing_event_is_detected(lineage: tuple[list[Event], dict[str, Fraction]], data: Any) -> None:
    events, _ = lineage
    lost = data.draw(st.sampled_from(events))
    accounts = Accounts([event for event in events if event is not lost])
    settled = accounts.settle("s")
    assert not accounts.is_complete("s")
    assert settled.missing > 0
    assert settled.total == 1
    assert settled.missing_task == lost.task


@pytest.mark.slow
@given(lineages(), lineages(), st.randoms(use_true_random=False))
def test_events_of_an_earlier_generation_do_not_count(
    old: tuple[list[Event], dict[str, Fraction]], new: tuple[list[Event], dict[str, Fraction]], rng: Any
) -> None:
    for event in old[0]:
        event.generation, event.attempt = "old", rng.choice((1, 2))
    for event in new[0]:
        event.attempt = 2
    recorded = [*old[0], *new[0]]
    rng.shuffle(recorded)
    accounts = Accounts()
    accounts.expect("s", "g")
    for event in recorded:
        accounts.add(event)
    assert accounts.is_complete("s")
    settled = accounts.settle("s")
    assert {kind: getattr(settled, kind) for kind in new[1]} == new[1]


@pytest.mark.slow
@given(lineages(), st.randoms(use_true_random=False))
def test_a_task_that_was_given_up_ends_there_whatever_its_dead_worker_recorded(
    lineage: tuple[list[Event], dict[str, Fraction]], rng: Any
) -> None:
    events, _ = lineage
    recorded = [
        *rng.sample(events, rng.randint(0, len(events))),
        Event(FAILED, "s", "s", "g", reason="its workers died"),
    ]
    rng.shuffle(recorded)
    accounts = Accounts(recorded)
    assert accounts.is_complete("s")
    assert accounts.settle("s").failed == 1
    assert [event.kind for event in accounts.reachable("s")] == [FAILED]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_law_3_only_the_newer_of_two_attempts_at_a_task_counts(order: tuple[int, ...]) -> None:
    """The first attempt made three children, the second two (it found less, or was cut short). The third child belongs
    to no attempt that counts, and the verdict is the same whichever is read first.
    """

    def attempt(number: int, children: int, kind: str) -> list[Event]:
        recorded = [Event(FORK, "s", "s", "g", number, children)]
        recorded += [Event(kind, "s", child_id("s", index), "g", number) for index in range(children)]
        return recorded

    first, second = attempt(1, 3, DROPPED), attempt(2, 2, DONE)
    pieces = [second, first[:2], first[2:]]
    accounts = Accounts([event for place in order for event in pieces[place]])
    assert accounts.is_complete("s")
    assert [(event.task, event.attempt) for event in accounts.reachable("s")] == [
        ("s", 2),
        ("s.00000", 2),
        ("s.00001", 2),
    ]
    settled = accounts.settle("s")
    assert (settled.done, settled.dropped, settled.missing) == (1, 0, 0)
    assert accounts.shares(["s"])[DONE] == 1


@pytest.mark.parametrize("newer_first", [False, True])
def test_law_3_only_the_newer_of_two_attempts_at_a_merge_counts(newer_first: bool) -> None:
    recorded = [Event(MERGE, "m", "m", "g", number, members=[f"s{number}"]) for number in (1, 2)]
    assert Accounts(recorded[::-1] if newer_first else recorded).merges["m"].members == ["s2"]
