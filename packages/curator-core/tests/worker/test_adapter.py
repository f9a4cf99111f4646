"""The adapter: results of a stage are checked, counted and recorded, and no row is lost without a record."""

from __future__ import annotations

import gc
import signal
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import (
    AccountingError,
    CuratorError,
    DocumentBatch,
    FanOut,
    FileGroupTask,
    FileRecord,
    LocalExecutor,
    Merge,
    MissingDependency,
    NodeInfo,
    Pipeline,
    ProcessingStage,
    RunResult,
    StageError,
    Task,
    TaskTimeout,
    UsageError,
    WorkerMetadata,
)
from curator_core.accounts.rejects import rejects_of


def batch(*values: int, **columns: Any) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"x": pa.array(values, pa.int64()), **columns}))


def run(*stages: ProcessingStage[Any, Any], tasks: Sequence[Task[Any]] | None = None, **how: Any) -> RunResult:
    return Pipeline(stages).run(LocalExecutor(workers=0), initial_tasks=tasks or [batch(1, 2, 3)], **how)


def rows(result: RunResult) -> list[list[int]]:
    return [task.to_pyarrow()["x"].to_pylist() for task in result]


class Map(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Calls a function."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def process(self, task: DocumentBatch) -> Any:
        return self.function(self, task)


class Batched(Map):
    batch_size = 2

    def process_batch(self, tasks: list[DocumentBatch]) -> Any:
        return self.function(self, tasks)


class Many(FanOut[DocumentBatch, DocumentBatch]):
    def __init__(self, function: Any) -> None:
        self.function = function

    def process(self, task: DocumentBatch) -> Any:
        return self.function(self, task)


class EachRow(FanOut[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for number in range(task.num_rows):
            yield task.with_data(task.data.slice(number, 1))


# Answers


def test_law_3_a_stage_that_loses_rows_silently_is_caught() -> None:
    with pytest.raises(AccountingError, match=r"'Map' lost 2 rows on task 'task-00000': 3 in, 1 out.*record_dropped"):
        run(Map(lambda _, task: task.with_data(task.data.slice(0, 1))))


def test_law_3_shortening_the_input_in_place_is_also_caught() -> None:
    def cut(_: Any, task: DocumentBatch) -> DocumentBatch:
        task.data = task.data.slice(0, 1)
        return task

    with pytest.raises(AccountingError, match="lost 2 rows"):
        run(Map(cut))


def test_law_3_one_row_recorded_and_two_gone_is_caught() -> None:
    def half_told(stage: Map, task: DocumentBatch) -> DocumentBatch:
        stage.record_dropped("short", 1)
        return task.with_data(task.data.slice(0, 1))

    with pytest.raises(AccountingError, match=r"lost 1 row on.*3 in, 1 out, 1 dropped"):
        run(Map(half_told))


def test_rows_cannot_appear_unless_the_stage_declares_creates_rows() -> None:
    def double(_: Any, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(pa.concat_tables([task.data, task.data]))

    with pytest.raises(AccountingError, match=r"made 3 rows out of nothing.*creates_rows = True"):
        run(Map(double))
    with pytest.raises(AccountingError, match="made 3 rows out of nothing"):
        run(Map(lambda _, task: [task, task]))

    class Doubler(Map):
        creates_rows = True

    assert rows(run(Doubler(double))) == [[1, 2, 3, 1, 2, 3]]


def test_none_drops_the_task_with_its_rows_and_a_reason() -> None:
    result = run(Map(lambda _, task: None))
    assert rows(result) == []
    assert result.summary.stages[0].dropped == {"dropped by the stage": 3}
    assert result.summary.shares == {"done": "0", "dropped": "1", "failed": "0"}


def test_a_result_of_another_kind_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(AccountingError, match="returned Table for task 'task-00000': it must return a task, a list"):
        run(Map(lambda _, task: task.data))
    with pytest.raises(AccountingError, match="a stage that yields must derive from FanOut"):
        run(Map(lambda _, task: (part for part in [task])))
    with pytest.raises(AccountingError, match=r"returned a list that holds int for task.*it must return a task"):
        run(Map(lambda _, task: [task, 1]))


def test_an_object_that_is_returned_twice_has_a_copy_for_each_task() -> None:
    answer = batch(7)
    seen = run(Map(lambda *_: answer), tasks=[batch(n) for n in range(3)])
    assert [task.task_id for task in seen] == ["task-00000", "task-00001", "task-00002"]
    assert answer.task_id == ""
    twice = run(Batched(lambda _, tasks: [answer] * len(tasks)), tasks=[batch(n) for n in range(3)])
    assert [task.task_id for task in twice] == ["task-00000", "task-00001", "task-00002"]


def test_a_declared_column_that_is_missing_is_reported_with_its_stage() -> None:
    class Lies(Map):
        def outputs(self) -> list[str]:
            return ["score"]

    with pytest.raises(StageError, match=r"'Lies'.*declares column 'score' in outputs\(\), but its result has x"):
        run(Lies(lambda _, task: task))


def test_a_table_with_a_column_twice_is_refused_where_it_was_made() -> None:
    twice = pa.Table.from_arrays([pa.array([1, 2, 3])] * 2, names=["x", "x"])
    with pytest.raises(StageError, match=r"'Map'.*invalid DocumentBatch: column 'x' occurs twice"):
        run(Map(lambda _, task: task.with_data(twice)))


# Several at once


@pytest.mark.parametrize(
    ("answer", "said"), [([], "2 tasks and returned 0"), (None, "returned not a list but NoneType")]
)
def test_process_batch_of_a_wrong_length_names_both_lengths_and_the_stage(answer: Any, said: str) -> None:
    with pytest.raises(AccountingError, match="stage 'Batched': process_batch.. got .*" + said):
        run(EachRow(), Batched(lambda _, tasks: answer), tasks=[batch(1, 2)])


def test_the_results_of_process_batch_belong_to_their_tasks() -> None:
    def answers(_: Any, tasks: list[DocumentBatch]) -> list[Any]:
        kinds: dict[int, Any] = {0: lambda t: None, 1: lambda t: [], 2: lambda t: [t, t.with_data(t.data.slice(0, 0))]}
        return [kinds.get(task.data["x"][0].as_py(), lambda t: t)(task) for task in tasks]

    result = run(EachRow(), Batched(answers), tasks=[batch(*range(5))])
    assert [task.task_id.removeprefix("task-00000.") for task in result] == [
        "00002.00000",
        "00002.00001",
        "00003",
        "00004",
    ]
    assert result.summary.rows_dropped == 2
    assert result.summary.shares == {"done": "3/5", "dropped": "2/5", "failed": "0"}


def test_a_batch_that_loses_rows_is_caught() -> None:
    with pytest.raises(AccountingError, match="lost 1 row on"):
        run(EachRow(), Batched(lambda _, tasks: [tasks[0].with_data(tasks[0].data.slice(1)), *tasks[1:]]))


def test_law_3_two_tasks_of_one_call_are_balanced_like_single_ones() -> None:
    """Two tasks and no third: a call of one task is balanced elsewhere, and would hide the point of this test."""

    def cuts(_: Any, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        return [tasks[0].with_data(tasks[0].data.slice(1)), *tasks[1:]]

    def doubles(_: Any, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        return [*tasks[:1], *(task.with_data(pa.concat_tables([task.data] * 2)) for task in tasks[1:])]

    with pytest.raises(AccountingError, match=r"'Batched' lost 1 row on"):
        run(EachRow(), Batched(cuts), tasks=[batch(1, 2)])
    with pytest.raises(AccountingError, match=r"'Batched' made 1 row out of nothing"):
        run(EachRow(), Batched(doubles), tasks=[batch(1, 2)])


def test_law_3_a_row_lost_on_one_task_is_not_offset_by_another() -> None:
    def moves_a_row(_: Any, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        lost, doubled = tasks
        return [lost.with_data(lost.data.slice(1)), doubled.with_data(pa.concat_tables([doubled.data] * 2))]

    with pytest.raises(AccountingError, match=r"'Batched' lost 1 row on task 'task-00000.00000': 1 in, 0 out"):
        run(EachRow(), Batched(moves_a_row), tasks=[batch(1, 2)])


def drops_and_rejects(stage: Batched, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
    """Rows 1, 2, 3 … are kept, dropped, rejected, and so on in turn, from the last task to the first."""
    results = []
    for task in reversed(tasks):
        value = task.data["x"][0].as_py()
        if value % 3 == 2:
            stage.record_dropped("two", task=task)
        with stage.about(task):
            if value % 3 == 0:
                stage.record_rejected("three", position=value)
        results.append(task.with_data(task.data.slice(0, 1 if value % 3 == 1 else 0)))
    return results[::-1]


def test_records_of_a_call_belong_to_the_task_that_they_name(tmp_path: Path) -> None:
    stage = Batched(drops_and_rejects).with_(batch_size=4)
    result = run(EachRow(), stage, tasks=[batch(1, 2, 3, 4, 5, 6, 7)], run_dir=str(tmp_path))
    assert rows(result) == [[1], [], [], [4], [], [], [7]]
    assert [task._stage_perf[-1].dropped for task in result] == [{}, {"two": 1}, {}, {}, {"two": 1}, {}, {}]
    assert [task._stage_perf[-1].rejected for task in result] == [{}, {}, {"three": 1}, {}, {}, {"three": 1}, {}]
    assert {row["task"]: row["position"] for row in rejects_of(str(tmp_path))} == {
        "task-00000.00002": "3",
        "task-00000.00005": "6",
    }


@pytest.mark.parametrize("method", ["record_dropped", "record_rejected", "record_read", "record_output"])
def test_a_record_that_could_be_about_any_of_several_tasks_is_refused(method: str) -> None:
    arguments = {"record_read": 1, "record_output": FileRecord("a", 1)}

    def guesses(stage: Batched, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        getattr(stage, method)(arguments.get(method, "why"))
        return tasks

    with pytest.raises(
        AccountingError, match=rf"'Batched' was given 2 tasks, and {method}\(\) does not name its task.*about\(task\)"
    ):
        run(EachRow(), Batched(guesses), tasks=[batch(1, 2)])


def test_a_record_about_a_task_of_another_call_is_refused() -> None:
    def errs(stage: Batched, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        with stage.about(batch(9)):
            return tasks

    with pytest.raises(AccountingError, match="which is not one of the 2 that it was given"):
        run(EachRow(), Batched(errs), tasks=[batch(1, 2)])


def test_the_process_batch_of_the_base_class_says_which_task_it_is_about() -> None:
    class Calls(Map):
        batch_size = 3

        def process_batch(self, tasks: list[DocumentBatch]) -> Any:
            return super().process_batch(tasks)

    def drops_even(stage: Map, task: DocumentBatch) -> DocumentBatch:
        even = task.data["x"][0].as_py() % 2 == 0
        stage.record_dropped("even", int(even))
        stage.record_metric("seen", 1)
        return task.with_data(task.data.slice(int(even)))

    result = run(EachRow(), Calls(drops_even), tasks=[batch(1, 2, 3, 4)])
    assert rows(result) == [[1], [], [3], []]
    assert result.summary.stages[1].metrics == {"seen": 4}


def test_a_batch_is_filled_from_one_source() -> None:
    sizes: list[int] = []

    def note(_: Any, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        sizes.append(len(tasks))
        return tasks

    run(EachRow(), Batched(note), tasks=[batch(1, 2, 3), batch(4)])
    assert sizes == [2, 1, 1]


# Readers and writers


class Reads(ProcessingStage[FileGroupTask, DocumentBatch]):
    def __init__(self, held: int = 5, bad: int = 0) -> None:
        self.held, self.bad = held, bad

    def process(self, task: FileGroupTask) -> DocumentBatch:
        self.record_read(self.held)
        for number in range(self.bad):
            self.record_rejected("no JSON", source=task.data[0], position=number, message="line ends early", raw=b"{")
        return batch(1, 2, 3)


def test_a_reader_accounts_for_every_row_that_it_read() -> None:
    files = [FileGroupTask(data=["a.jsonl"])]
    result = run(Reads(5, bad=2), tasks=files)
    stats = result.summary.stages[0]
    assert (stats.rows_in, stats.rows_out, stats.rejected) == (5, 3, {"no JSON": 2})
    with pytest.raises(AccountingError, match=r"lost 1 row on.*5 in, 3 out, 1 dropped or rejected"):
        run(Reads(5, bad=1), tasks=files)


# Fan-outs


def test_law_6_children_stream_and_only_one_is_in_memory_at_a_time() -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def children(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
        nonlocal most
        for number in range(50):
            gc.collect(0)
            most = max(most, sum(ref() is not None for ref in alive))
            yield made(task, number)

    def made(task: DocumentBatch, number: int) -> DocumentBatch:
        table = pa.table({"x": pa.array([number] * 1000)})
        alive.append(weakref.ref(table))
        return task.with_data(table)

    class Splits(Many):
        creates_rows = True

    result = run(Splits(children), Map(lambda _, task: task.with_data(task.data)), Map(lambda _, task: None))
    assert len(alive) == 50
    assert most <= 1
    assert result.summary.stages[0].rows_out == 50_000


@pytest.mark.slow
def test_law_6_memory_stays_bounded_however_many_rows_pass() -> None:
    before = pa.total_allocated_bytes()
    most = 0

    def children(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for number in range(100):
            yield task.with_data(pa.table({"x": pa.array([number] * 200_000, pa.int64())}))

    def measure(_: Any, task: DocumentBatch) -> None:
        nonlocal most
        most = max(most, pa.total_allocated_bytes() - before)

    run(Many(children), Map(measure))
    assert most < 3 * 200_000 * 8  # of a hundred such tables


def test_the_first_child_leaves_the_pipeline_before_the_rest_is_made() -> None:
    order: list[str] = []

    def children(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for number in range(2):
            order.append(f"made {number}")
            yield task.with_data(pa.table({"x": [number]}))

    def note(_: Any, task: DocumentBatch) -> DocumentBatch:
        order.append(f"seen {task.data['x'][0].as_py()}")
        return task

    class Splits(Many):
        creates_rows = True

    run(Splits(children), Map(note), tasks=[batch(5, 6)])
    assert order == ["made 0", "seen 0", "made 1", "seen 1"]


def test_a_fan_out_of_one_object_gives_each_child_a_copy() -> None:
    def children(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
        out = task.with_data(task.data)
        for number in range(3):
            out.data = task.data.slice(number, 1)
            yield out

    result = run(Many(children))
    assert rows(result) == [[1], [2], [3]]
    assert [task.task_id for task in result] == [f"task-00000.0000{n}" for n in range(3)]


def test_a_fan_out_that_returns_one_task_or_something_else_is_reported() -> None:
    with pytest.raises(AccountingError, match=r"returned one DocumentBatch.*yields tasks or returns a list"):
        run(Many(lambda _, task: task))
    with pytest.raises(AccountingError, match=r"yielded int.*a fan-out yields tasks"):
        run(Many(lambda _, task: [1]))


def test_a_fan_out_that_loses_rows_is_caught() -> None:
    with pytest.raises(AccountingError, match="lost 1 row on"):
        run(Many(lambda _, task: [task.with_data(task.data.slice(1))]))


def failing_once(after: int) -> Any:
    """A fan-out of each row, as a generator that fails before row ``after``, the first time it gets there."""
    failed: list[int] = []

    def function(stage: Many, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for number in range(task.num_rows):
            if number == after and not failed:
                failed.append(number)
                raise OSError("the network is away")
            yield task.with_data(task.data.slice(number, 1))

    return function


@pytest.mark.parametrize("after", range(3))
def test_law_3_a_fan_out_that_is_called_again_returns_no_child_twice(after: int) -> None:
    result = run(Many(failing_once(after)), retries=1)
    assert rows(result) == [[1], [2], [3]]
    assert [task.task_id for task in result] == [f"task-00000.0000{n}" for n in range(3)]
    assert (result.summary.stages[0].rows_in, result.summary.stages[0].rows_out) == (3, 3)
    assert result.summary.shares == {"done": "1", "dropped": "0", "failed": "0"}


def test_law_3_a_reader_that_is_called_again_counts_its_rows_and_rejects_once() -> None:
    failed: list[int] = []

    class ReadsParts(FanOut[FileGroupTask, DocumentBatch]):
        def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
            for number in range(3):
                self.record_read(2)
                self.record_rejected("no JSON", source=task.data[0], position=number)
                yield batch(number)
                if number == 1 and not failed:
                    failed.append(number)
                    raise OSError("the network is away")

    result = run(ReadsParts(), tasks=[FileGroupTask(data=["a.jsonl"])], retries=1)
    assert rows(result) == [[0], [1], [2]]
    stats = result.summary.stages[0]
    assert (stats.rows_in, stats.rows_out, stats.rejected) == (6, 3, {"no JSON": 3})


def test_a_fan_out_without_children_is_reported() -> None:
    result = run(Many(lambda _, task: []))
    assert result.summary.stages[0].dropped == {"nothing came out": 3}
    assert result.summary.shares["dropped"] == "1"


# Merges


class Concat(Merge[DocumentBatch, DocumentBatch]):
    def process(self, tasks: Sequence[DocumentBatch]) -> Any:  # type: ignore[override]
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


class KeepsFirst(Concat):
    def process(self, tasks: Sequence[DocumentBatch]) -> Any:  # type: ignore[override]
        return tasks[0]


def test_a_merge_adds_up_rows_and_shares() -> None:
    result = run(Concat(), tasks=[batch(1), batch(2, 3), batch(4)])
    assert rows(result) == [[1, 2, 3, 4]]
    assert result.summary.shares == {"done": "3", "dropped": "0", "failed": "0"}


def test_a_merge_of_several_tasks_gets_them_in_lineage_order() -> None:
    assert rows(run(Concat().with_(batch_size=2), tasks=[batch(n) for n in range(5)])) == [[0, 1], [2, 3], [4]]


def test_a_merge_that_reads_only_some_tasks_loses_the_others() -> None:
    with pytest.raises(AccountingError, match="lost 2 rows"):
        run(KeepsFirst(), tasks=[batch(1), batch(2), batch(3)])


# Errors


def fails_on(value: int) -> Any:
    def function(_: Any, task: DocumentBatch) -> DocumentBatch:
        if value in task.data["x"].to_pylist():
            raise ValueError(f"cannot do {value}\nat all")
        return task

    return function


def test_law_5_a_failure_names_stage_task_and_the_line_of_the_user() -> None:
    with pytest.raises(StageError) as caught:
        run(Map(fails_on(2)))
    text = str(caught.value)
    assert text.startswith("stage 'Map' failed on task 'task-00000': ValueError: cannot do 2\n")
    assert 'raise ValueError(f"cannot do {value}\\nat all")' in text
    assert "curator_core/worker/adapter.py" not in text
    assert isinstance(caught.value.__cause__, ValueError)


def test_law_5_failing_rows_are_set_aside_and_the_others_continue() -> None:
    result = run(Map(fails_on(2)), tasks=[batch(1, 2, 3), batch(4)], on_error="quarantine")
    assert rows(result) == [[1, 3], [4]]
    assert (result.exit_code, result.summary.rows_quarantined) == (3, 1)


@dataclass
class Needs(ProcessingStage[DocumentBatch, DocumentBatch]):
    column: str = "text"

    def inputs(self) -> list[str]:
        return [self.column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


def test_law_5_a_batch_that_lacks_a_column_follows_the_policy() -> None:
    tasks = [batch(1, text=["a"]), batch(2), batch(3, text=["c"])]
    with pytest.raises(StageError, match="'task-00001': column 'text' is missing; the task has x"):
        run(Needs(), tasks=tasks)
    for stage in (Needs(), Needs().with_(batch_size=3)):
        result = run(stage, tasks=tasks, on_error="quarantine")
        assert rows(result) == [[1], [3]]
        assert (result.summary.rows_quarantined, result.summary.shares["failed"]) == (1, "1")


def test_a_stage_is_called_again_as_often_as_retries_says() -> None:
    calls: list[int] = []

    def flaky(_: Any, task: DocumentBatch) -> DocumentBatch:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the network is away")
        return task

    assert rows(run(Map(flaky), retries=2)) == [[1, 2, 3]]
    assert len(calls) == 3


def test_the_records_of_a_failed_attempt_are_discarded() -> None:
    def flaky(stage: Map, task: DocumentBatch) -> DocumentBatch:
        stage.record_dropped("first row", 1)
        if not hasattr(stage, "again"):
            stage.again = True  # type: ignore[attr-defined]
            raise OSError("once")
        return task.with_data(task.data.slice(1))

    assert run(Map(flaky), retries=1).summary.stages[0].dropped == {"first row": 1}


def leaves(_: Any, task: DocumentBatch) -> DocumentBatch:
    if 2 in task.data["x"].to_pylist():
        sys.exit(7)
    return task


def leaves_later(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
    yield task.with_data(task.data.slice(0, 1))
    sys.exit(7)


class LeavesInMerge(Concat):
    def process(self, tasks: Sequence[DocumentBatch]) -> Any:  # type: ignore[override]
        sys.exit(7)


class LeavesInSetup(Map):
    def setup(self, worker: WorkerMetadata) -> None:
        sys.exit(7)


@pytest.mark.parametrize(
    "stage",
    [Map(leaves), Many(leaves_later), LeavesInMerge(), LeavesInSetup(leaves)],
    ids=lambda stage: type(stage).__name__,
)
def test_sys_exit_in_a_stage_is_an_error_of_that_stage(stage: ProcessingStage[Any, Any]) -> None:
    where = r"in setup\(\)" if isinstance(stage, LeavesInSetup) else "on task"
    with pytest.raises(StageError, match=rf"'{stage.name}' failed {where}.*the stage called sys.exit\(7\)") as caught:
        run(stage)
    assert "sys.exit(7)\n" in caught.value.details
    assert "curator_core/worker/" not in caught.value.details


def test_sys_exit_in_a_stage_follows_the_policy_like_any_error() -> None:
    result = run(Map(leaves), tasks=[batch(1, 2, 3), batch(4)], on_error="quarantine")
    assert rows(result) == [[1, 3], [4]]
    assert result.summary.rows_quarantined == 1
    result = run(Many(leaves_later), on_error="quarantine")
    assert rows(result) == [[1]]
    assert result.summary.rows_quarantined == 2


@pytest.mark.slow
@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "other thread"])
def test_a_task_over_its_time_limit_is_set_aside_as_a_whole_and_named(thread: bool) -> None:
    """Interrupted in the main thread; judged on its return in another thread, which nothing can interrupt."""
    calls: list[int] = []

    def dawdles(_: Any, task: DocumentBatch) -> DocumentBatch:
        calls.append(task.num_rows)
        until = time.monotonic() + (1.3 if thread else 60)
        while 2 in task.data["x"].to_pylist() and time.monotonic() < until:
            time.sleep(0.005)
        return task

    stage = Map(dawdles).with_(task_timeout_s=1)
    tasks = [batch(1, 2, 3), batch(4)]
    handler = signal.getsignal(signal.SIGALRM)

    def work() -> RunResult:
        with pytest.raises(TaskTimeout, match=r"'Map' worked on task 'task-00000' for longer than task_timeout_s=1"):
            run(stage, tasks=tasks)
        calls.clear()
        return run(stage, tasks=tasks, on_error="quarantine", retries=2)

    if thread:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(work).result()
    else:
        result = work()
    assert calls == [3, 1], "it is not asked again, and its rows are not searched: each try would take as long"
    assert rows(result) == [[4]]
    assert (result.summary.rows_quarantined, result.summary.shares["failed"]) == (3, "1")
    assert signal.getsignal(signal.SIGALRM) == handler, "what the caller had there is put back"


@pytest.mark.slow
def test_a_time_limit_counts_the_work_of_a_fan_out_and_not_of_later_stages() -> None:
    def rows_one_by_one(_: Any, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for number in range(task.num_rows):
            yield task.with_data(task.data.slice(number, 1))

    def dawdles(_: Any, task: DocumentBatch) -> DocumentBatch:
        time.sleep(0.5)
        return task

    assert len(run(Many(rows_one_by_one).with_(task_timeout_s=1), Map(dawdles))) == 3
    slow = Many(lambda _, task: (dawdles(_, task.with_data(task.data.slice(n, 1))) for n in range(3)))
    with pytest.raises(TaskTimeout, match="'Many' worked on task"):
        run(slow.with_(task_timeout_s=1))


# Statistics


def test_metrics_and_times_are_reported_by_stage_and_by_task() -> None:
    def measured(stage: Map, task: DocumentBatch) -> DocumentBatch:
        stage.record_metric("letters", 10)
        return task

    result = run(Map(measured), Map(measured), tasks=[batch(1), batch(2)])
    assert [(t.name, t.calls, t.metrics) for t in result.summary.stages] == [
        ("Map", 2, {"letters": 20}),
        ("Map#2", 2, {"letters": 20}),
    ]
    assert [perf.stage_name for perf in result[0]._stage_perf] == ["Map", "Map#2"]
    assert all(perf.process_time > 0 for perf in result[0]._stage_perf)


def test_metadata_and_the_name_of_the_data_set_follow_the_task() -> None:
    task = DocumentBatch(data=pa.table({"x": [1]}), dataset_name="web")
    task._metadata["source_files"] = ["a.jsonl"]
    (made,) = run(Map(lambda *_: batch(1)), tasks=[task])
    assert (made.dataset_name, made._metadata) == ("web", {"source_files": ["a.jsonl"]})


class Unready(Map):
    """Cannot be set up, where `lacks` says why."""

    def __init__(self, lacks: CuratorError | None = None, on_node: CuratorError | None = None) -> None:
        self.lacks = lacks
        self.on_node = on_node

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        if self.on_node is not None:
            raise self.on_node

    def setup(self, worker: WorkerMetadata) -> None:
        if self.lacks is not None:
            raise self.lacks

    def teardown(self) -> None:
        TORN_DOWN.append(self.name)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        raise AssertionError("work has begun")


TORN_DOWN: list[str] = []


def test_everything_that_stages_lack_is_reported_together_before_work_begins() -> None:
    TORN_DOWN.clear()
    torch = 'model stages need torch: pip install "curator-text[models]"'
    with pytest.raises(MissingDependency) as caught:
        run(
            Unready(MissingDependency(torch)).with_(name="Embed"),
            Unready().with_(name="Fine"),
            Unready(MissingDependency("pip install kenlm")).with_(name="Perplexity"),
            Unready(MissingDependency(torch)).with_(name="Classify"),
        )
    assert str(caught.value).splitlines() == [
        "3 stages cannot be set up",
        f"Embed, Classify: {torch}",
        "Perplexity: pip install kenlm",
    ]
    assert TORN_DOWN == ["Classify", "Perplexity", "Fine", "Embed"]


def test_missing_models_are_reported_together() -> None:
    first, second = CuratorError("the model a/b is not here: hf download a/b"), UsageError("there is no folder 'c'")
    with pytest.raises(
        CuratorError, match=r"(?s)2 stages cannot .*Clip: the model a/b .*\nHead: there is no folder 'c'"
    ):
        run(Unready(on_node=first).with_(name="Clip"), Unready(on_node=second).with_(name="Head"))
    with pytest.raises(UsageError, match=r"^there is no folder 'c'$"):
        run(Unready().with_(name="Clip"), Unready(on_node=second).with_(name="Head"))
