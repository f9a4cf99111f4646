"""The one place where a stage is run: validation, timing, accounting, the error policy.

An executor moves tasks between workers and places the workers; inside a worker a `GroupRunner` does everything else,
so a stage behaves the same everywhere. Tasks flow through generators, depth first: memory holds one chain of tasks.
"""

from __future__ import annotations

import copy
import inspect
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import pyarrow as pa

from curator_core.accounts.events import DROPPED, FAILED, FORK, Event
from curator_core.accounts.ledger import Sink
from curator_core.accounts.reject_rows import RejectRow
from curator_core.arrow.arrays import array
from curator_core.errors import FATAL, AccountingError, CuratorError, StageError, UsageError
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.lineage import child_id
from curator_core.model.recorder import Recorder, Reject
from curator_core.model.stage import ANY_COLUMNS, FanOut, Merge, accepted_tasks, needed_columns, overrides
from curator_core.model.task import DocumentBatch, FileGroupTask, StagePerfStats, Task
from curator_core.planning.plan import PlannedStage
from curator_core.worker.context import RunContext
from curator_core.worker.merge import MergeMembers, MergeTask, _CountingMembers
from curator_core.worker.messages import _brief, _file_of, _kind, _message, _reason, _user_traceback


class BaseStageAdapter:
    """Runs one stage. Executors extend it to translate; what a stage may rely on is all here."""

    def __init__(self, planned: PlannedStage, context: RunContext, sink: Sink) -> None:
        self.planned = planned
        self.stage = planned.stage
        self.name = planned.name
        self.context = context
        self.sink = sink
        self._accepts = accepted_tasks(self.stage)
        self._needs: dict[type[Task[Any]], tuple[str, ...]] = {}
        self._batch_size = self.stage.batch_size
        # process_batch of the base class only loops: calling process directly saves a list per task.
        # One task a call also keeps apart, by task, what the stage records.
        self._batched = overrides(self.stage, "process_batch")
        self._fans_out = isinstance(self.stage, FanOut)
        self._merges = isinstance(self.stage, Merge)
        self._may_create = self.stage.creates_rows or self._fans_out
        self._inspected = False

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        self._hook("setup_on_node", lambda: self.stage.setup_on_node(node, worker))

    def setup(self, worker: WorkerMetadata) -> None:
        self._hook("setup", lambda: self.stage.setup(worker))

    def teardown(self) -> None:
        self._hook("teardown", self.stage.teardown)

    def _hook(self, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except CuratorError:
            raise
        except Exception as error:
            raise StageError(self.name, _reason(error), hook=what, details=_user_traceback(error)) from error

    def stream(self, tasks: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        """What the stage makes of ``tasks``, as it is asked for."""
        # Each `del` lets go of a task before the next is made: they may be large.
        if self._merges:
            for task in tasks:
                yield from self._merge(cast(MergeTask, task))
        elif self._fans_out:
            for task in tasks:
                yield from self._fan_out(task)
                del task
        elif self._batch_size == 1 or not self._batched:
            for task in tasks:
                yield from self._run([task])
                del task
        else:
            while batch := list(islice(tasks, self._batch_size)):
                yield from self._run(batch)
                del batch

    # One call of a map -------------------------------------------------------------------------------------------

    def _run(self, batch: list[Task[Any]]) -> Iterator[Task[Any]]:
        for task in batch:
            if self._missing(task):
                batch = [task for task in batch if self._admits(task)]
                if not batch:
                    return
                break
        # Counted before the call: a stage that cuts its input short must not pass for one that was given less.
        rows = [task.num_items for task in batch]
        self._fresh()
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            results = self._call(batch)
        except Exception as error:
            failure = error
        if failure is not None:  # outside the handler: what fails from here on has not happened because of it
            yield from self._recover(batch, rows, failure)
            return
        seconds = time.perf_counter() - started
        task, result = batch[0], results[0]
        if (
            len(batch) == 1
            and isinstance(result, Task)
            and result.unit == task.unit
            and result.num_items == rows[0]
            and self.stage.__dict__.get("_recorder") is None
        ):
            # The usual case has nothing to balance: as much came out as went in, and nothing was told.
            yield self._adopt(task, result, StagePerfStats(self.name, seconds, 1, rows[0], rows[0]), [])
        else:
            yield from self._account(batch, rows, results, seconds)

    def _call(self, batch: list[Task[Any]]) -> Sequence[Any]:
        if not self._batched:
            return [self.stage.process(batch[0])]
        results = self.stage.process_batch(batch)
        if not isinstance(results, (list, tuple)) or len(results) != len(batch):
            length = len(results) if isinstance(results, (list, tuple)) else f"no list but {type(results).__name__}"
            raise AccountingError(
                f"stage {self.name!r}: process_batch() was given {len(batch)} tasks and returned {length}: element i "
                "of its answer must be the result for task i, None for one that is dropped"
            )
        return results

    def _account(
        self, batch: list[Task[Any]], rows: list[int], results: Sequence[Any], seconds: float, quarantined: int = 0
    ) -> list[Task[Any]]:
        recorded = self._recorded()
        recorders = [recorded] if len(batch) == 1 else self._apart(batch, results, recorded)
        survivors: list[Task[Any]] = []
        perfs: list[StagePerfStats] = []
        share = seconds / len(batch)
        for index, (task, result) in enumerate(zip(batch, results, strict=True)):
            recorder = recorders[index]
            outputs = [(self.name, record) for record in recorder.outputs]
            perf = StagePerfStats(self.name, share, 1)
            perfs.append(perf)
            perf.rows_in = rows[index]
            if recorder.dropped:
                perf.dropped = recorder.dropped
            if recorder.rejects:
                perf.rejected = self._reject(task, recorder.rejects)
            if recorder.metrics:
                perf.custom_metrics = recorder.metrics
            perf.quarantined = quarantined
            if quarantined:
                perf.rows_in += quarantined
            if isinstance(result, Task):
                perf.rows_out = self._rows_out(task, result, perf, recorder)
                survivors.append(self._adopt(task, result, perf, outputs))
            elif result is None:
                self._end(task, perf, outputs, recorder)
            elif isinstance(result, (list, tuple)):
                survivors.extend(self._children(task, list(result), perf, outputs, recorder))
            else:
                hint = "; a stage that yields derives from FanOut" if inspect.isgenerator(result) else ""
                raise AccountingError(
                    f"stage {self.name!r} returned {type(result).__name__} for task {task.task_id!r}: it must return "
                    f"a task, a list of tasks, or None{hint}"
                )
            if len(batch) == 1:
                self._balance(task, perf, single=True)
        if len(batch) > 1:
            self._balance_batch(batch, perfs, recorded)
        return survivors

    def _apart(self, batch: list[Task[Any]], results: Sequence[Any], recorder: Recorder) -> list[Recorder]:
        """What a call with several tasks recorded, by task: a task may be run again, and then in other company.

        Each task is given as many rows as it has lost; which reason falls to which task is a guess, the sums are not.
        """
        apart = [Recorder() for _ in batch]
        lost = [0] * len(batch)
        for index, (task, result) in enumerate(zip(batch, results, strict=True)):
            parts = list(result) if isinstance(result, (list, tuple)) else [result] if result is not None else []
            if all(isinstance(part, Task) and part.unit == task.unit for part in parts):
                lost[index] = task.num_items - sum(part.num_items for part in parts)
            names = {record for part in parts if isinstance(part, FileGroupTask) for record in part.records}
            for record in recorder.outputs:
                if record in names:
                    apart[index].outputs.append(record)
        told = {record for part in apart for record in part.outputs}
        for record in recorder.outputs:
            if record not in told:
                owners = (i for i, task in enumerate(batch) if task.task_id and task.task_id in record.path)
                apart[next(owners, 0)].outputs.append(record)
        # Tasks that were dropped whole come last: their rows need not have been recorded.
        order = sorted(range(len(batch)), key=lambda index: results[index] is None)
        for reason, count in recorder.dropped.items():
            rows = count
            while rows > 0:
                index = next((i for i in order if lost[i] > 0), 0)
                part = min(rows, lost[index]) if lost[index] > 0 else rows
                apart[index].dropped[reason] = apart[index].dropped.get(reason, 0) + part
                lost[index] -= part
                rows -= part
        for reject in recorder.rejects:
            index = next((i for i in order if lost[i] > 0), 0)
            apart[index].rejects.append(reject)
            lost[index] -= reject.rows
        apart[0].metrics = recorder.metrics
        return apart

    def _rows_out(self, task: Task[Any], result: Task[Any], perf: StagePerfStats, recorder: Recorder) -> int:
        if task.unit == result.unit:
            return result.num_items
        left = perf.rows_dropped + perf.rows_rejected
        if isinstance(result, DocumentBatch):  # a reader: rows come into being here
            perf.rows_in = recorder.read if recorder.read is not None else result.num_items + left
            return result.num_items
        if isinstance(task, DocumentBatch):  # a writer: rows go into files
            if isinstance(result, FileGroupTask) and result.records:
                return sum(record.rows for record in result.records)
            return perf.rows_in - left - perf.quarantined
        perf.rows_in = result.num_items + left
        return result.num_items

    def _balance(self, task: Task[Any], perf: StagePerfStats, single: bool) -> None:
        gone = perf.rows_dropped + perf.rows_rejected + perf.quarantined
        created = perf.rows_out + gone - perf.rows_in
        if created and (created < 0 or not self._may_create):
            raise AccountingError(self._imbalance(task.task_id, perf.rows_in, perf.rows_out, gone, created))

    def _balance_batch(self, batch: list[Task[Any]], perfs: list[StagePerfStats], recorder: Recorder) -> None:
        """The same over a call with several tasks."""
        rows_in, rows_out = sum(perf.rows_in for perf in perfs), sum(perf.rows_out for perf in perfs)
        gone = sum(perf.rows_dropped + perf.rows_rejected + perf.quarantined for perf in perfs)
        if recorder.read is not None:
            rows_in = recorder.read
        created = rows_out + gone - rows_in
        if created and (created < 0 or not self._may_create):
            raise AccountingError(self._imbalance(batch[0].task_id, rows_in, rows_out, gone, created))

    def _imbalance(self, task_id: str, rows_in: int, rows_out: int, gone: int, created: int) -> str:
        what = f"lost {-created} rows" if created < 0 else f"made {created} rows out of nothing"
        remedy = (
            "tell record_dropped(reason, rows) or record_rejected(reason, …) of every row that leaves"
            if created < 0
            else "set creates_rows = True if that is its purpose"
        )
        return (
            f"stage {self.name!r} {what} on task {task_id!r}: {rows_in} in, {rows_out} out, {gone} dropped or "
            f"rejected with a reason; {remedy}"
        )

    def _adopt(self, parent: Task[Any], result: Task[Any], perf: StagePerfStats, outputs: list[Any]) -> Task[Any]:
        """One for one: the result goes on under the id of its parent."""
        if result is not parent:
            if result.task_id != parent.task_id:
                # Not made with with_data(): it may be an object of the stage's own, which may hand it out again.
                result = copy.copy(result)
            result.task_id = parent.task_id
            result._source = parent._source
            result._generation = parent._generation
            result.dataset_name = result.dataset_name or parent.dataset_name
            if parent._metadata and not result._metadata:
                result._metadata = dict(parent._metadata)
        if not self._inspected or result.data is not parent.data:
            self._inspect(parent, result)
        result._stage_perf = [*parent._stage_perf, perf]
        result._pending = [*parent._pending, perf]
        result._outputs = [*parent._outputs, *outputs] if outputs or parent._outputs else []
        return result

    def _end(self, task: Task[Any], perf: StagePerfStats, outputs: list[Any], recorder: Recorder) -> None:
        reason = next(iter(recorder.dropped), "dropped by the stage")
        if task.unit == "rows":
            left = perf.rows_in - (perf.rows_dropped + perf.rows_rejected + perf.quarantined)
            if left > 0:
                perf.dropped = {**perf.dropped, reason: perf.dropped.get(reason, 0) + left}
        elif recorder.read is not None:
            perf.rows_in = recorder.read
        else:
            perf.rows_in = perf.rows_dropped + perf.rows_rejected
        self.emit(DROPPED, task, reason=reason, counts=[*task._pending, perf], outputs=[*task._outputs, *outputs])

    def _children(
        self,
        task: Task[Any],
        children: list[Task[Any]],
        perf: StagePerfStats,
        outputs: list[Any],
        recorder: Recorder,
    ) -> list[Task[Any]]:
        """A list from a map: the children are numbered, and what came before them is handed in with the fork."""
        for child in children:
            if not isinstance(child, Task):
                raise AccountingError(
                    f"stage {self.name!r} returned a list with {type(child).__name__} in it for task "
                    f"{task.task_id!r}: it must return a task, a list of tasks, or None"
                )
        perf.rows_out = sum(child.num_items for child in children)
        if not all(child.unit == task.unit for child in children) or not children:
            read = recorder.read
            same = not children and task.unit == "rows"
            if not same:
                perf.rows_in = read if read is not None else perf.rows_out + perf.rows_dropped + perf.rows_rejected
            elif not perf.dropped and not perf.rejected:
                perf.dropped = {"nothing came out": perf.rows_in}
        # A stage may hand back its input, or the same task twice: each child needs a body of its own.
        children = [replace(child, _pending=[], _outputs=[]) for child in children]
        for index, child in enumerate(children):
            self._name_child(task, child, index, perf)
        self.emit(
            FORK,
            task,
            children=len(children),
            counts=[*task._pending, perf],
            outputs=[*task._outputs, *outputs],
        )
        return children

    def _name_child(self, parent: Task[Any], child: Task[Any], index: int, perf: StagePerfStats) -> None:
        self._inspect(parent, child)
        child.task_id = child_id(parent.task_id, index)
        child._source = parent._source
        child._generation = parent._generation
        child.dataset_name = child.dataset_name or parent.dataset_name
        if parent._metadata and not child._metadata:
            child._metadata = dict(parent._metadata)
        child._stage_perf = [*parent._stage_perf, perf]
        child._pending = []
        child._outputs = []

    # Fan-out and merge -------------------------------------------------------------------------------------------

    def _fan_out(self, task: Task[Any]) -> Iterator[Task[Any]]:
        """Children as the stage makes them; how many there are is recorded when the last one is out."""
        if not self._admits(task):
            return
        perf = StagePerfStats(self.name)
        rows_in = task.num_items
        given = 0
        attempts = 0
        rows_out = 0
        quarantined = 0
        same_unit = True
        failure: Exception | None = None
        while True:
            self._fresh()
            try:
                made = self.stage.process(task)
                if isinstance(made, Task):
                    raise AccountingError(
                        f"stage {self.name!r} returned one {type(made).__name__} for task {task.task_id!r}: a fan-out "
                        "yields tasks or returns a list of them"
                    )
                iterator = iter(made if made is not None else ())
                # A repeated attempt makes the same children again: those that are on their way already are skipped.
                for _ in islice(iterator, given):
                    pass
                while True:
                    started = time.perf_counter()
                    child = next(iterator, None)
                    perf.process_time += time.perf_counter() - started
                    if child is None:
                        break
                    if not isinstance(child, Task):
                        raise AccountingError(
                            f"stage {self.name!r} yielded {type(child).__name__} for task {task.task_id!r}: "
                            "a fan-out yields tasks"
                        )
                    # A stage may hand back its input, or one object again and again: each child gets a body of its own.
                    child = copy.copy(child)
                    same_unit = same_unit and child.unit == task.unit
                    rows_out += child.num_items
                    self._name_child(task, child, given, perf)
                    given += 1
                    yield child
                    del child
                break
            except FATAL:
                raise
            except Exception as error:
                attempts += 1
                if attempts <= self.context.retries:
                    continue
                if self.context.on_error == "fail":
                    raise self._stage_error(task, error) from error
                failure = error
                break
        recorder = self._recorded()
        perf.dropped = recorder.dropped
        perf.custom_metrics = recorder.metrics
        if recorder.rejects:
            perf.rejected = self._reject(task, recorder.rejects)
        perf.rows_out = rows_out
        gone = perf.rows_dropped + perf.rows_rejected
        if failure is not None:
            quarantined = max(0, rows_in - rows_out - gone) if same_unit and task.unit == "rows" else 0
            perf.quarantined = quarantined
        if same_unit and given and task.unit == "rows":
            perf.rows_in = rows_in
        elif recorder.read is not None and failure is None:
            perf.rows_in = recorder.read
        elif not given and task.unit == "rows":
            perf.rows_in = rows_in
            if failure is None and not gone:
                perf.dropped = {"nothing came out": perf.rows_in}
        else:
            perf.rows_in = rows_out + gone
        if failure is None:
            self._balance(task, perf, single=True)
        outputs = [*task._outputs, *((self.name, record) for record in recorder.outputs)]
        self.emit(FORK, task, children=given + (failure is not None), counts=[*task._pending, perf], outputs=outputs)
        if failure is not None:
            # What the stage could not make is one more child, which ends here.
            rest = task.with_data(task.data)
            self._name_child(task, rest, given, perf)
            self._quarantine_task(rest, failure, quarantined, counted=True)

    def _merge(self, task: MergeTask) -> Iterator[Task[Any]]:
        members = MergeMembers(task)
        counted = _CountingMembers(members)
        for attempt in range(self.context.retries + 1):
            self._fresh()
            started = time.perf_counter()
            try:
                result = self.stage.process(cast(Any, counted))
            except FATAL:
                raise
            except Exception as error:
                if attempt < self.context.retries:
                    continue
                if self.context.on_error == "fail":
                    raise self._stage_error(task, error) from error
                rows, unit = counted.total()
                self._quarantine_task(task, error, rows if unit == "rows" else 0)
                return
            break
        recorder = self._recorded()
        perf = StagePerfStats(self.name, time.perf_counter() - started)
        perf.dropped, perf.custom_metrics = recorder.dropped, recorder.metrics
        if recorder.rejects:
            perf.rejected = self._reject(task, recorder.rejects)
        outputs = [(self.name, record) for record in recorder.outputs]
        rows, unit = counted.total()
        if result is None:
            perf.rows_in = rows
            left = rows - perf.rows_dropped - perf.rows_rejected
            if left > 0:
                perf.dropped = {**perf.dropped, "dropped by the stage": left}
            self.emit(DROPPED, task, reason="dropped by the stage", counts=[perf], outputs=outputs)
            return
        if not isinstance(result, Task):
            raise AccountingError(f"stage {self.name!r} returned {type(result).__name__}: a merge returns one task")
        perf.rows_out = result.num_items
        perf.rows_in = rows if unit == result.unit else perf.rows_out + perf.rows_dropped + perf.rows_rejected
        self._balance(task, perf, single=True)
        if any(result is member for member in task.tasks or ()):
            result = result.with_data(result.data)
        result._metadata = {**task._metadata, **result._metadata}
        task._stage_perf, task._pending, task._outputs = [], [], []
        result._stage_perf, result._pending, result._outputs = [], [], []
        yield self._adopt(task, result, perf, outputs)

    # The error policy --------------------------------------------------------------------------------------------

    def _recover(self, batch: list[Task[Any]], rows: list[int], error: Exception) -> Iterator[Task[Any]]:
        if isinstance(error, FATAL):
            raise error
        for _ in range(self.context.retries):
            self._fresh()
            started = time.perf_counter()
            try:
                results = self._call(batch)
            except FATAL:
                raise
            except Exception as again:
                error = again
            else:
                yield from self._account(batch, rows, results, time.perf_counter() - started)
                return
        if self.context.on_error == "fail":
            raise self._stage_error(batch[0], error, len(batch)) from error
        if len(batch) > 1:
            middle = len(batch) // 2
            yield from self._run(batch[:middle])
            yield from self._run(batch[middle:])
            return
        yield from self._set_aside(batch[0], error)

    def _set_aside(self, task: Task[Any], error: Exception) -> Iterator[Task[Any]]:
        """Find the rows that the stage fails on, set them aside, and go on with the others."""
        poison: dict[int, Exception] = {}
        if isinstance(task, DocumentBatch) and task.num_rows > 1:
            self._search(task, 0, task.num_rows, error, poison)
        if not poison or len(poison) == task.num_items:
            self._quarantine_task(task, error, task.num_items if task.unit == "rows" else 0)
            return
        assert isinstance(task, DocumentBatch)
        clean = task.filter(array([row not in poison for row in range(task.num_rows)], pa.bool_()))
        rows = [clean.num_rows]
        self._fresh()
        started = time.perf_counter()
        try:
            results = self._call([clean])
        except FATAL:
            raise
        except Exception as again:
            self._quarantine_task(task, again, task.num_items)
            return
        seconds = time.perf_counter() - started
        table = task.to_pyarrow()
        poisonous = (
            Reject(_kind(cause), _file_of(task), f"row {row}", _message(cause), self._raw_row(table, row))
            for row, cause in poison.items()
        )
        self._reject(task, poisonous, "quarantine")
        yield from self._account([clean], rows, results, seconds, quarantined=len(poison))

    def _search(
        self, task: DocumentBatch, start: int, stop: int, error: Exception, poison: dict[int, Exception]
    ) -> None:
        """Halve a failing range until the rows that fail by themselves are known."""
        if stop - start == 1:
            poison[start] = error
            return
        middle = (start + stop) // 2
        for low, high in ((start, middle), (middle, stop)):
            self._fresh()
            failure: Exception | None = None
            try:
                self._call([task.with_data(task.to_pyarrow().slice(low, high - low))])
            except FATAL:
                raise
            except Exception as inner:
                failure = inner
            if failure is not None:
                self._search(task, low, high, failure, poison)

    def quarantine(self, task: Task[Any], error: BaseException) -> None:
        """Set a whole task aside, with its rows where rows are what it holds."""
        self._quarantine_task(task, error, task.num_items if task.unit == "rows" else 0)

    def _quarantine_task(self, task: Task[Any], error: BaseException, rows: int, counted: bool = False) -> None:
        raw: bytes | None = None
        if isinstance(task, DocumentBatch) and task.num_rows:
            raw = self._raw_row(task.to_pyarrow(), 0)
        whole = Reject(_kind(error), _file_of(task), f"task {task.task_id}", _message(error), raw, rows)
        self._reject(task, [whole], "quarantine")
        counts = list(task._pending)
        if not counted:
            counts.append(StagePerfStats(self.name, rows_in=rows, quarantined=rows))
        self.emit(FAILED, task, reason=_reason(error), counts=counts, outputs=task._outputs)

    def _stage_error(self, task: Task[Any], error: Exception, tasks: int = 1) -> StageError:
        where = task.task_id if tasks == 1 else f"{task.task_id} and {tasks - 1} more"
        return StageError(self.name, _reason(error), where, details=_user_traceback(error))

    def _raw_row(self, table: pa.Table, row: int) -> bytes:
        try:
            values = table.slice(row, 1).to_pylist()[0]
            text = json.dumps(values, ensure_ascii=False, default=_brief)
        except Exception:  # a value that cannot be shown must not hide the error that brought us here
            text = repr(table.schema)
        return text.encode("utf-8", "replace")[: self.context.max_raw_bytes]

    # Facts for the ledger ----------------------------------------------------------------------------------------

    def emit(
        self,
        kind: str,
        task: Task[Any],
        *,
        children: int = 0,
        reason: str = "",
        counts: list[StagePerfStats] | None = None,
        outputs: list[Any] | None = None,
        result: str = "",
    ) -> None:
        """Hand a fact about ``task`` to the ledger."""
        self.sink.event(
            Event(
                kind,
                task._source,
                task.task_id,
                task._generation,
                self.context.attempt,
                children,
                self.name,
                reason,
                counts or [],
                outputs or [],
                [],
                result,
            )
        )

    def _reject(self, task: Task[Any], rejects: Iterable[Reject], kind: str = "reject") -> dict[str, int]:
        limit = self.context.max_raw_bytes
        counts: dict[str, int] = {}
        for given in rejects:
            counts[given.reason] = counts.get(given.reason, 0) + given.rows
            raw = None if given.raw is None else given.raw[:limit]
            reject = replace(given, raw=raw, source=given.source or _file_of(task))
            self.sink.reject(
                RejectRow(kind, task._source, task._generation, self.context.attempt, task.task_id, self.name, reject)
            )
        return counts

    def _fresh(self) -> None:
        object.__setattr__(self.stage, "_recorder", None)

    def _recorded(self) -> Recorder:
        recorder = self.stage.__dict__.get("_recorder") or _NOTHING
        object.__setattr__(self.stage, "_recorder", None)
        return cast(Recorder, recorder)

    def _admits(self, task: Task[Any]) -> bool:
        """Whether the task has what the stage reads; if not it goes to the error policy, for it is the data's doing."""
        missing = self._missing(task)
        if not missing:
            return True
        assert isinstance(task, DocumentBatch)
        has = ", ".join(task.column_names) or "no columns"
        reason = f"column {', '.join(map(repr, missing))} is missing; the task has {has}"
        if self.context.on_error == "fail":
            raise StageError(self.name, reason, task.task_id)
        self._quarantine_task(task, UsageError(reason), task.num_rows)
        return False

    def _inspect(self, parent: Task[Any], result: Task[Any]) -> None:
        """What a stage made is well formed, and the first of it has the columns that the stage declares."""
        if not result.validate():
            what = type(result).__name__
            if isinstance(result, DocumentBatch):
                names = result.column_names
                twice = sorted({name for name in names if names.count(name) > 1})
                what += f": column {', '.join(map(repr, twice))} is there twice" if twice else ""
            raise StageError(self.name, f"the stage made an invalid {what}", parent.task_id)
        if self._inspected:
            return
        self._inspected = True
        if not isinstance(result, DocumentBatch):
            return
        names = result.column_names
        missing = [name for name in self.stage.outputs() if name != ANY_COLUMNS and name not in names]
        if missing:
            raise StageError(
                self.name,
                f"the stage declares column {', '.join(map(repr, missing))} in outputs(), but what it made has "
                f"{', '.join(names) or 'no columns'}",
                parent.task_id,
            )

    def _missing(self, task: Task[Any]) -> list[str] | None:
        """The columns that the stage declared and the task lacks; a task of another type is an error."""
        kind = type(task)
        needs = self._needs.get(kind)
        if needs is None:
            if not any(issubclass(kind, accepted) for accepted in self._accepts):
                wanted = " or ".join(accepted.__name__ for accepted in self._accepts)
                raise AccountingError(f"stage {self.name!r} takes {wanted}, but was given {kind.__name__}")
            needs = self._needs[kind] = tuple(needed_columns(self.stage, kind))
        if needs and isinstance(task, DocumentBatch):
            names = task.column_names
            return [column for column in needs if column not in names]
        return None


_NOTHING = Recorder()
