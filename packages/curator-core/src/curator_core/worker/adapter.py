"""How is a stage run? This is the one place for validation, timing, accounting and the error policy.

An executor places workers and moves tasks between them; inside a worker a `GroupRunner` does everything else, so a
stage behaves the same everywhere. Tasks flow through generators, depth first, so only one chain of tasks is in memory.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar, cast

import pyarrow as pa

from curator_core.accounts.events import DROPPED, FAILED, FORK, Event
from curator_core.accounts.ledger import LedgerWriter, Sink
from curator_core.accounts.reject_rows import RejectRow
from curator_core.arrow.arrays import array
from curator_core.errors import FATAL, AccountingError, CuratorError, StageError, TaskTimeout, UsageError
from curator_core.formatting import count
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.lineage import child_id
from curator_core.model.recorder import CallRecorder, Recorder, Reject
from curator_core.model.stage import FanOut, Merge, may_stay_beside, overrides
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord, StagePerfStats, Task
from curator_core.planning.plan import PlannedStage
from curator_core.worker.balance import ROWS, Amount, Balance, balance
from curator_core.worker.begun import Begun
from curator_core.worker.calls import NO_CARE, CallObserver, Care
from curator_core.worker.context import RunContext
from curator_core.worker.declared import Declared
from curator_core.worker.dropped_rows import dropped_folder, output_name, write_dropped
from curator_core.worker.merge import CountingMembers, MergeMembers, MergeTask
from curator_core.worker.messages import brief, file_of, kind_of, message_of, place_of, reason_of, user_traceback
from curator_core.worker.overlap import Overlap
from curator_core.worker.poison import find_poison
from curator_core.worker.seeing import StageSeer
from curator_core.worker.stage_log import AT_WORK

R = TypeVar("R")


class BaseStageAdapter:
    """Runs one stage and guarantees everything that a stage may rely on. Executors extend it only to translate."""

    def __init__(
        self, planned: PlannedStage, context: RunContext, sink: Sink, calls: CallObserver | None = None
    ) -> None:
        """``calls`` is called around every call of the stage."""
        self.calls = calls
        self.planned = planned
        self.stage = planned.stage
        self.name = planned.name
        self.context = context
        self.sink = sink
        self._declared = Declared(self.stage, self.name)
        self._batch_size = self.stage.batch_size
        # process_batch of the base class only loops, and calling process directly saves a list per task.
        self._batched = overrides(self.stage, "process_batch")
        self._fans_out = isinstance(self.stage, FanOut)
        self._merges = isinstance(self.stage, Merge)
        self._may_create = self.stage.creates_rows or self._fans_out
        self._times = sink.times if isinstance(sink, LedgerWriter) else None
        self._dropped = dropped_folder(planned, context.dropped) if context.writes else None
        self.overlap: Overlap | None = None  # the overlap of this filter and those after it; set by the group
        self.begun = Begun()  # that of the group, if the stage is in one
        # Without a run directory there is no place for samples and counts.
        seen = context.seen if isinstance(sink, LedgerWriter) else None
        self._seer = (
            StageSeer(planned, seen, context.attempt, sink.seen, context.scores.get(planned.name))
            if seen and isinstance(sink, LedgerWriter)
            else None
        )
        self._shows_kept = self._seer is not None and self.stage.shows_kept

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        self._hook("setup_on_node", lambda: self.stage.setup_on_node(node, worker))

    def setup(self, worker: WorkerMetadata) -> None:
        self._hook("setup", lambda: self.stage.setup(worker))

    def teardown(self) -> None:
        self._hook("teardown", self.stage.teardown)

    def _hook(self, what: str, call: Callable[[], None]) -> None:
        try:
            self._work(call)
        except CuratorError:
            raise
        except Exception as error:
            raise StageError(self.name, reason_of(error), hook=what, details=user_traceback(error)) from error

    def _work(self, call: Callable[..., R], *arguments: Any, tasks: Sequence[Task[Any]] = (), spent: float = 0.0) -> R:
        """Run code of the stage. `sys.exit()` counts as an ordinary error: a stage cannot end the run.

        ``spent`` is the number of seconds of its limit that the stage has used for these tasks.
        """
        if tasks and self.calls is not None:
            limit = self.stage.task_timeout_s
            name, suspects = self.begun.suspects(self.name, tasks)
            self.calls.begin(name, suspects, None if limit is None else max(0.001, limit * len(tasks) - spent))
        before, AT_WORK.stage = AT_WORK.stage, self.name
        started = time.perf_counter()
        try:
            return call(*arguments)
        except SystemExit as stop:
            # Exceptions by which an engine or a signal handler ends the process have other classes or attributes.
            if type(stop) is not SystemExit or vars(stop):
                raise
            code = "" if stop.code is None else repr(stop.code)
            raise RuntimeError(f"the stage called sys.exit({code})").with_traceback(stop.__traceback__) from None
        finally:
            AT_WORK.stage = before
            if self._times is not None and tasks:
                self._times.add(self.name, started, time.perf_counter())
            if tasks and self.calls is not None:
                self._no_call()

    def stream(self, tasks: Iterator[Task[Any]], care: Care = NO_CARE) -> Iterator[Task[Any]]:
        """Yield the stage's results for ``tasks``, on demand."""
        tasks = map(self._landed, tasks)
        # Each `del` releases a task before the next one is made, since tasks may be large.
        if self._merges or self._fans_out:
            several = self._merge if self._merges else self._fan_out
            for task in tasks:
                if self._may_have(task, care):
                    yield from several(task)
                del task
        elif self.stage.begins_ahead and self.begun.allowed and not self._batched and not care:
            yield from self._begin_ahead(tasks, care)
        elif self._batch_size == 1 or not self._batched or self.name in care.alone:
            for task in tasks:
                if self._may_have(task, care):
                    yield from self._run([task])
                del task
        else:
            while batch := list(islice(tasks, self._batch_size)):
                batch = [task for task in batch if self._may_have(task, care)]
                if batch:
                    yield from self._run(batch)
                del batch

    def _begin_ahead(self, tasks: Iterator[Task[Any]], care: Care) -> Iterator[Task[Any]]:
        """Like `stream`, for a stage that begins tasks before their results are requested."""
        waiting: deque[tuple[Task[Any], Callable[[], Any] | None, float]] = deque()
        more = True
        try:
            while more or waiting:
                while more and len(waiting) <= self.stage.begins_ahead:
                    task = next(tasks, None)
                    if task is None:
                        more = False
                    elif self._may_have(task, care):
                        started = time.perf_counter()
                        waiting.append((task, self._begin(task), time.perf_counter() - started))
                    del task
                if waiting:
                    first, finish, seconds = waiting.popleft()
                    yield from self._run([first], finish, seconds)
                    del first, finish
        finally:
            for unused, _, _ in waiting:
                self.begun.end(self.name, unused)
            if self.calls is not None:
                self._no_call()

    def _no_call(self) -> None:
        """Announce that no stage is called now, although begun tasks may still be in progress."""
        assert self.calls is not None
        if self.begun:
            self.calls.begin(*self.begun.suspects("", []), None)
        else:
            self.calls.end()

    def _begin(self, task: Task[Any]) -> Callable[[], Any] | None:
        try:
            finish = self._work(self.stage.begin, task, tasks=[task])
        except FATAL:
            raise
        except Exception:  # `process` will raise the same error for the task, and the policy decides
            return None
        if finish is None:
            return None
        self.begun.add(self.name, task)
        if self.calls is not None:
            self._no_call()

        def finished() -> Any:
            try:
                return finish()
            finally:
                self.begun.end(self.name, task)

        return finished

    def _landed(self, task: Task[Any]) -> Task[Any]:
        """The task in a form that the stage accepts: columns that it does not accept beside the table are put into the
        table.
        """
        if not isinstance(task, DocumentBatch) or not task._beside:
            return task
        return task.landed([name for name in task._beside if may_stay_beside(self.stage, name)])

    def _may_have(self, task: Task[Any], care: Care) -> bool:
        """Whether the stage may get the task; if not, the task goes to the error policy."""
        reason = care.aside.get((self.name, task.task_id)) if care.aside else None
        if reason is not None:
            self.set_aside(task, reason)
            return False
        wrong = None if self._merges else self._declared.unmet_by(task)
        if wrong is None:
            if self._seer is not None and not task._stage_perf and task.unit == ROWS:
                self._seer.entered(task)  # no stage has read these rows: they are the input of the run
            return True
        if self.context.on_error == "fail":
            raise StageError(self.name, wrong, task.task_id, source=place_of(task))
        self.set_aside(task, UsageError(wrong))
        return False

    # One call of a map -------------------------------------------------------------------------------------------

    def _run(
        self, batch: list[Task[Any]], finish: Callable[[], Any] | None = None, spent: float = 0.0
    ) -> Iterator[Task[Any]]:
        """``finish`` is the function from the stage's `begin`, and ``spent`` the seconds that `begin` took."""
        # Items are counted before the call, in case a stage shortens its input. In the usual case of one batch of rows
        # a number is enough.
        rows = batch[0].num_items if len(batch) == 1 and batch[0].unit == ROWS else None
        given = [amount_of(task) for task in batch] if rows is None else []
        if self._times is not None:
            for task in batch:
                self._measure(task)
        started = time.perf_counter() - spent
        failure: Exception | None = None
        try:
            results = self._call(batch, finish)
        except Exception as error:
            failure = error
        if failure is not None:  # outside the handler, so that later errors do not have this one as their context
            yield from self._recover(batch, [Amount(rows)] if rows is not None else given, failure)
            return
        seconds = time.perf_counter() - started
        task, result = batch[0], results[0]
        if (
            rows is not None
            and isinstance(result, Task)
            and result.unit == ROWS
            and result.num_items == rows
            and self.stage.__dict__.get("_recorder") is None
            and not self._shows_kept
        ):
            # In the usual case there is nothing to balance: as many rows came out as went in, and nothing was recorded.
            # The empty dictionaries are shared, as those of `_NOTHING` are: nothing ever adds to them.
            perf = StagePerfStats(self.name, seconds, 1, rows, rows, _NO_ROWS, _NO_ROWS, 0, _NO_METRICS)
            yield self._continue_as(task, result, perf, [])
        else:
            yield from self._account(batch, [Amount(rows)] if rows is not None else given, results, seconds)

    def _measure(self, task: Task[Any]) -> None:
        """Measure an input table of the stage, or a table that it has read."""
        if self._times is not None and isinstance(task.data, pa.Table):
            self._times.measure(self.name, task.data)

    def _call(self, batch: list[Task[Any]], finish: Callable[[], Any] | None = None) -> Sequence[Any]:
        self._reset_recorder()
        if finish is not None:
            return [self._work(finish, tasks=batch)]
        if not self._batched:
            return [self._work(self.stage.process, batch[0], tasks=batch)]
        if len(batch) > 1:
            object.__setattr__(self.stage, "_call", CallRecorder(self.name, batch))
        results = self._work(self.stage.process_batch, batch, tasks=batch)
        if not isinstance(results, (list, tuple)) or len(results) != len(batch):
            length = len(results) if isinstance(results, (list, tuple)) else f"not a list but {type(results).__name__}"
            raise AccountingError(
                f"stage {self.name!r}: process_batch() got {count(len(batch), 'task')} and returned {length}: "
                "element i of its result must be the result for task i, or None if it is dropped"
            )
        return results

    def _account(
        self, batch: list[Task[Any]], given: list[Amount], results: Sequence[Any], seconds: float, quarantined: int = 0
    ) -> list[Task[Any]]:
        """Balance the results of a call, task by task; return the tasks that continue."""
        survivors: list[Task[Any]] = []
        recorders = self._take_recorders(len(batch))
        for task, amount, result, recorder in zip(batch, given, results, recorders, strict=True):
            several = isinstance(result, (list, tuple))
            if not (several or result is None or isinstance(result, Task)):
                hint = "; a stage that yields must derive from FanOut" if inspect.isgenerator(result) else ""
                raise AccountingError(
                    f"stage {self.name!r} returned {type(result).__name__} for task {task.task_id!r}: it must return "
                    f"a task, a list of tasks, or None{hint}"
                )
            made = list(result) if several else [] if result is None else [result]
            for child in made:
                self._require_task(
                    child, task, "returned a list that holds", "it must return a task, a list of tasks, or None"
                )
            perf = self._perf(task, recorder, seconds / len(batch))
            reason = "nothing came out" if several else next(iter(recorder.dropped), "dropped by the stage")
            amounts = None if result is None else [amount_of(child) for child in made]
            self._balance(task, perf, amount, amounts, recorder.read, quarantined, reason)
            outputs = self._outputs_of(task, recorder, whole=reason if result is None else "")
            if self._shows_kept and result is not None and not recorder.which:
                assert self._seer is not None
                self._seer.saw(task, recorder)  # all rows stay
            if isinstance(result, Task):
                survivors.append(self._continue_as(task, result, perf, outputs))
            elif several:
                survivors.extend(self._fork(task, made, perf, outputs))
            else:
                self._drop(task, perf, outputs, reason)
        return survivors

    def _perf(self, task: Task[Any], recorder: Recorder, seconds: float) -> StagePerfStats:
        """The statistics of one call on one task from the stage's records; its rejects go to the sink."""
        perf = StagePerfStats(self.name, seconds, 1, 0, 0, recorder.dropped, _NO_ROWS, 0, recorder.metrics)
        if recorder.rejects:
            perf.rejected = self._reject(task, recorder.rejects)
        if self._seer is not None and (recorder.judged is not None or recorder.which):
            self._seer.saw(task, recorder)
        if self.overlap is not None:
            self.overlap.measure(task)
        return perf

    def _outputs_of(self, task: Task[Any], recorder: Recorder, *, whole: str = "") -> list[tuple[str, FileRecord]]:
        """The files that the stage has written for a task, and the file of its dropped rows.

        ``whole`` is the reason if the whole task was dropped. All of its rows are then dropped, unless the stage has
        recorded otherwise.
        """
        outputs = [(self.name, record) for record in recorder.outputs]
        recorded = recorder.which or recorder.dropped or recorder.rejects or recorder.judged is not None
        whole = "" if recorded else whole
        if self._seer is not None and whole:
            self._seer.dropped_whole(task, whole)
        if self._dropped is not None and (recorder.judged is not None or recorder.which or whole):
            record = write_dropped(self.planned, self._dropped, task, recorder, self.context.dropped_as, whole=whole)
            if record is not None:
                outputs.append((output_name(self.name), record))
        return outputs

    def _balance(
        self,
        task: Task[Any],
        perf: StagePerfStats,
        given: Amount,
        made: Sequence[Amount] | None,
        read: int | None,
        quarantined: int,
        reason: str,
    ) -> None:
        """Set the rows in and out of ``perf``; raise if they do not add up."""
        if quarantined:  # the call got the other rows
            given = given._replace(items=given.items + quarantined)
        gone = perf.rows_dropped + perf.rows_rejected
        sums = balance(given, made, gone=gone, read=read, quarantined=quarantined, fans_out=self._fans_out)
        perf.rows_in, perf.rows_out, perf.quarantined = sums.rows_in, sums.rows_out, quarantined
        if sums.dropped:
            perf.dropped = {**perf.dropped, reason: perf.dropped.get(reason, 0) + sums.dropped}
        if sums.created and (sums.created < 0 or not self._may_create):
            raise AccountingError(self._imbalance(task.task_id, sums, gone + sums.dropped + quarantined))

    def _imbalance(self, task_id: str, sums: Balance, gone: int) -> str:
        created = sums.created
        what = f"lost {count(-created, 'row')}" if created < 0 else f"made {count(created, 'row')} out of nothing"
        remedy = (
            "call record_dropped(reason, rows) or record_rejected(reason, …) for every row that leaves"
            if created < 0
            else "set creates_rows = True if that is its purpose"
        )
        return (
            f"stage {self.name!r} {what} on task {task_id!r}: {sums.rows_in} in, {sums.rows_out} out, {gone} dropped or "
            f"rejected with a reason; {remedy}"
        )

    def _require_task(self, made: object, task: Task[Any], verb: str, rule: str) -> None:
        if not isinstance(made, Task):
            raise AccountingError(f"stage {self.name!r} {verb} {type(made).__name__} for task {task.task_id!r}: {rule}")

    def _continue_as(self, parent: Task[Any], result: Task[Any], perf: StagePerfStats, outputs: list[Any]) -> Task[Any]:
        """Continue with one result for one task, which keeps the id of its parent."""
        if result is not parent:
            if result.task_id != parent.task_id:
                # The result is copied, because the stage may keep the object and return it again.
                result = copy.copy(result)
            result.task_id = parent.task_id
            result._source = parent._source
            result._generation = parent._generation
            result.dataset_name = result.dataset_name or parent.dataset_name
            if parent._metadata and not result._metadata:
                result._metadata = dict(parent._metadata)
        if result.data is not parent.data or not self._declared.has_seen_outputs:
            self._declared.check_made(result, parent)
        if parent.unit != result.unit:
            self._measure(result)
        if self._seer is not None:
            if parent.unit != result.unit:
                self._see_change(parent, result)
            elif self._seer.options.by and result is not parent:
                self._seer.changed(parent, result)
        result._stage_perf = [*parent._stage_perf, perf]
        result._pending = [*parent._pending, perf]
        result._outputs = [*parent._outputs, *outputs] if outputs or parent._outputs else []
        return result

    def _drop(self, task: Task[Any], perf: StagePerfStats, outputs: list[Any], reason: str) -> None:
        self.emit(DROPPED, task, reason=reason, counts=[*task._pending, perf], outputs=[*task._outputs, *outputs])

    def _fork(
        self, task: Task[Any], children: list[Task[Any]], perf: StagePerfStats, outputs: list[Any]
    ) -> list[Task[Any]]:
        """Continue with a list from a map: the children are numbered, and the counts of the stages so far are recorded
        with the fork.
        """
        # A stage may return its input, or the same task twice, so each child becomes an object of its own.
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
        self._declared.check_made(child, parent)
        if parent.unit != child.unit:
            self._measure(child)
        child.task_id = child_id(parent.task_id, index)
        child._source = parent._source
        child._generation = parent._generation
        child.dataset_name = child.dataset_name or parent.dataset_name
        if parent._metadata and not child._metadata:
            child._metadata = dict(parent._metadata)
        if self._seer is not None and parent.unit != child.unit:
            self._see_change(parent, child)
        child._stage_perf = [*parent._stage_perf, perf]
        child._pending = []
        child._outputs = []

    def _see_change(self, parent: Task[Any], made: Task[Any]) -> None:
        """Note that a reader has made rows, or that a writer has written rows to a file."""
        assert self._seer is not None
        if made.unit == ROWS:
            self._seer.entered(made)
        elif parent.unit == ROWS:
            self._seer.left(parent)

    # Fan-out and merge -------------------------------------------------------------------------------------------

    def _fan_out(self, task: Task[Any]) -> Iterator[Task[Any]]:
        """Yield children as the stage makes them; their number is recorded after the last one."""
        given, made = amount_of(task), _Made()
        # The children carry this object, which is filled in when all are out.
        perf = StagePerfStats(self.name)
        failure = yield from self._children_of(task, perf, made)
        (recorder,) = self._take_recorders(1)
        recorded = self._perf(task, recorder, perf.process_time)
        perf.dropped, perf.rejected, perf.custom_metrics = recorded.dropped, recorded.rejected, recorded.custom_metrics
        lost = 0
        if failure is not None and given.unit == ROWS and not made.amounts.keys() - {ROWS}:
            gone = perf.rows_dropped + perf.rows_rejected
            lost = max(0, given.items - sum(amount.items for amount in made.amounts.values()) - gone)
        # The rows that a stage read before it failed are not all rows of its input.
        read = recorder.read if failure is None else None
        rest = given._replace(items=given.items - lost)
        self._balance(task, perf, rest, list(made.amounts.values()), read, lost, "nothing came out")
        outputs = [*task._outputs, *self._outputs_of(task, recorder)]
        children = made.count + (failure is not None)
        self.emit(FORK, task, children=children, counts=[*task._pending, perf], outputs=outputs)
        if failure is not None:
            # The part that the stage could not make counts as another child, which ends here.
            unmade = task.with_data(task.data)
            self._name_child(task, unmade, made.count, perf)
            self._quarantine(unmade, failure, lost, counted=True)

    def _children_of(
        self, task: Task[Any], perf: StagePerfStats, made: _Made
    ) -> Generator[Task[Any], None, Exception | None]:
        """Yield the children of a task, each once, however often the stage has to be called again; return its last
        error.
        """
        for attempt in itertools.count(1):
            self._reset_recorder()
            try:
                children = self._timed(perf, task, lambda: self._begin_children(task))
                # A retry makes the same children again, so those that have been passed on are skipped.
                for number in itertools.count():
                    child = self._timed(perf, task, lambda: next(children, _END))  # noqa: B023 - called here
                    if child is _END:
                        return None
                    if number < made.count:
                        continue
                    self._require_task(child, task, "yielded", "a fan-out yields tasks")
                    # A stage may yield its input, or the same object again and again, so each child becomes an object
                    # of its own.
                    child = copy.copy(child)
                    self._name_child(task, child, made.count, perf)
                    made.add(child)
                    yield child
                    del child
            except FATAL:
                raise
            except Exception as error:
                if attempt <= self.context.retries and not isinstance(error, TaskTimeout):
                    continue
                if self.context.on_error == "fail":
                    raise self._stage_error(task, error) from error
                return error
        raise AssertionError("unreachable")

    def _begin_children(self, task: Task[Any]) -> Iterator[Any]:
        made = self.stage.process(task)
        if isinstance(made, Task):
            raise AccountingError(
                f"stage {self.name!r} returned one {type(made).__name__} for task {task.task_id!r}: a fan-out "
                "yields tasks or returns a list of them"
            )
        return iter(made if made is not None else ())

    def _timed(self, perf: StagePerfStats, task: Task[Any], call: Callable[[], R]) -> R:
        """Do a part of the work on one task. Its time is added to that of the earlier parts, since one limit applies to
        all.
        """
        started = time.perf_counter()
        try:
            return self._work(call, tasks=[task], spent=perf.process_time)
        finally:
            perf.process_time += time.perf_counter() - started

    def _merge(self, given: Task[Any]) -> Iterator[Task[Any]]:
        task = cast(MergeTask, given)
        members = CountingMembers(MergeMembers(task))
        for attempt in range(self.context.retries + 1):
            self._reset_recorder()
            started = time.perf_counter()
            try:
                result = self._work(self.stage.process, members, tasks=[task])
            except FATAL:
                raise
            except Exception as error:
                if attempt < self.context.retries and not isinstance(error, TaskTimeout):
                    continue
                if self.context.on_error == "fail":
                    raise self._stage_error(task, error) from error
                self.set_aside(task, error)
                return
            break
        seconds = time.perf_counter() - started
        if result is not None and not isinstance(result, Task):
            raise AccountingError(f"stage {self.name!r} returned {type(result).__name__}: a merge returns one task")
        (recorder,) = self._take_recorders(1)
        perf = self._perf(task, recorder, seconds)
        reason = "dropped by the stage"
        made = None if result is None else [amount_of(result)]
        self._balance(task, perf, members.total(), made, recorder.read, 0, reason)
        outputs = [(self.name, record) for record in recorder.outputs]
        if result is None:
            self._drop(task, perf, outputs, reason)
            return
        if any(result is member for member in task.tasks or ()):
            result = result.with_data(result.data)
        result._metadata = {**task._metadata, **result._metadata}
        task._stage_perf, task._pending, task._outputs = [], [], []
        result._stage_perf, result._pending, result._outputs = [], [], []
        yield self._continue_as(task, result, perf, outputs)

    # The error policy --------------------------------------------------------------------------------------------

    def _recover(self, batch: list[Task[Any]], given: list[Amount], error: Exception) -> Iterator[Task[Any]]:
        """Yield the results of a call that failed: it is retried, and then halved until the failing rows are found."""
        if isinstance(error, FATAL):
            raise error
        for _ in range(0 if isinstance(error, TaskTimeout) else self.context.retries):
            started = time.perf_counter()
            try:
                results = self._call(batch)
            except FATAL:
                raise
            except Exception as again:
                error = again
            else:
                yield from self._account(batch, given, results, time.perf_counter() - started)
                return
        if self.context.on_error == "fail":
            raise self._stage_error(batch[0], error, len(batch)) from error
        if len(batch) > 1:
            middle = len(batch) // 2
            yield from self._run(batch[:middle])
            yield from self._run(batch[middle:])
        else:
            yield from self._without_poison(batch[0], error)

    def _without_poison(self, task: Task[Any], error: Exception) -> Iterator[Task[Any]]:
        """Find the rows that the stage fails on, set them aside, and continue with the others."""
        poison: dict[int, Exception] = {}
        if isinstance(task, DocumentBatch):
            task = task.landed()  # single rows are tried
        if isinstance(task, DocumentBatch) and task.num_rows > 1 and not isinstance(error, TaskTimeout):
            poison = find_poison(functools.partial(self._try_rows, task), task.num_rows, error)
        if not poison or len(poison) == task.num_items:
            self.set_aside(task, error)
            return
        assert isinstance(task, DocumentBatch)
        clean = task.filter(array([row not in poison for row in range(task.num_rows)], pa.bool_()))
        given = amount_of(clean)
        started = time.perf_counter()
        try:
            results = self._call([clean])
        except FATAL:
            raise
        except Exception as again:
            self.set_aside(task, again)
            return
        seconds = time.perf_counter() - started
        table = task.to_pyarrow()
        poisonous = (
            Reject(kind_of(cause), file_of(task), f"row {row}", message_of(cause), self._raw_row(table, row))
            for row, cause in poison.items()
        )
        self._reject(task, poisonous, "quarantine")
        yield from self._account([clean], [given], results, seconds, quarantined=len(poison))

    def _try_rows(self, task: DocumentBatch, start: int, stop: int) -> Exception | None:
        try:
            self._call([task.with_data(task.to_pyarrow().slice(start, stop - start))])
        except FATAL:
            raise
        except Exception as error:
            return error
        return None

    def set_aside(self, task: Task[Any], error: Exception) -> None:
        """Pass a task that the stage must not get (again) to the error policy: the whole task with all of its rows.

        Every task that fails as a whole is handled here, including one that has killed its workers or took too long, so
        that it leaves the same record on every executor.
        """
        if self.context.on_error == "fail":
            raise error
        amount = CountingMembers(MergeMembers(task)).total() if isinstance(task, MergeTask) else amount_of(task)
        self._quarantine(task, error, amount.items if amount.unit == ROWS else 0)

    def _quarantine(self, task: Task[Any], error: BaseException, rows: int, counted: bool = False) -> None:
        raw: bytes | None = None
        if isinstance(task, DocumentBatch) and task.num_rows:
            raw = self._raw_row(task.to_pyarrow(), 0)
        whole = Reject(kind_of(error), file_of(task), f"task {task.task_id}", message_of(error), raw, rows)
        self._reject(task, [whole], "quarantine")
        counts = list(task._pending)
        if not counted:
            counts.append(StagePerfStats(self.name, rows_in=rows, quarantined=rows))
        self.emit(FAILED, task, reason=reason_of(error), counts=counts, outputs=task._outputs)

    def _stage_error(self, task: Task[Any], error: Exception, tasks: int = 1) -> CuratorError:
        if isinstance(error, TaskTimeout):
            return error
        where = task.task_id if tasks == 1 else f"{task.task_id} and {tasks - 1} more"
        return StageError(self.name, reason_of(error), where, details=user_traceback(error), source=place_of(task))

    def _raw_row(self, table: pa.Table, row: int) -> bytes:
        try:
            values = table.slice(row, 1).to_pylist()[0]
            text = json.dumps(values, ensure_ascii=False, default=brief)
        except Exception:  # a value that cannot be shown must not hide the original error
            text = repr(table.schema)
        return text.encode("utf-8", "replace")[: self.context.max_raw_bytes]

    def see_end(self, task: Task[Any]) -> None:
        """Note that a task has reached the end of the pipeline; if it holds rows, there was no writer."""
        if self._seer is not None and task.unit == ROWS:
            self._seer.left(task)

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
        """Pass an event of ``task`` to the ledger."""
        self.sink.event(
            Event.of(
                task,
                kind,
                attempt=self.context.attempt,
                children=children,
                stage=self.name,
                reason=reason,
                counts=counts or [],
                outputs=outputs or [],
                result=result,
            )
        )

    def _reject(self, task: Task[Any], rejects: Iterable[Reject], kind: str = "reject") -> dict[str, int]:
        limit = self.context.max_raw_bytes
        counts: dict[str, int] = {}
        for given in rejects:
            counts[given.reason] = counts.get(given.reason, 0) + given.rows
            raw = None if given.raw is None else given.raw[:limit]
            reject = replace(given, raw=raw, source=given.source or file_of(task))
            self.sink.reject(RejectRow.of(task, kind, attempt=self.context.attempt, stage=self.name, reject=reject))
        return counts

    def _reset_recorder(self) -> None:
        """Discard the records, because those of a failed attempt would be counted twice."""
        self.stage.__dict__.update(_NOTHING_RECORDED)

    def _take_recorders(self, tasks: int) -> Sequence[Recorder]:
        """Take the stage's records about each task of its last call."""
        call: CallRecorder | None = self.stage.__dict__.get("_call")
        if call is not None:
            recorders = call.recorders
        else:
            assert tasks == 1
            recorders = [self.stage.__dict__.get("_recorder") or _NOTHING]
        self._reset_recorder()
        return recorders


@dataclass(slots=True)
class _Made:
    """The number of children that have been passed on, and their amounts by unit."""

    count: int = 0
    amounts: dict[str, Amount] = field(default_factory=dict)

    def add(self, child: Task[Any]) -> None:
        self.count += 1
        amount = amount_of(child)
        before = self.amounts.get(amount.unit)
        self.amounts[amount.unit] = amount if before is None else before.plus(amount)


def amount_of(task: Task[Any]) -> Amount:
    """The amount of items in a task."""
    if task.unit == ROWS:  # checked first: it is the usual case, and `isinstance` with an abstract class is slow
        return Amount(task.num_items)
    files = task.records if isinstance(task, FileGroupTask) else ()
    return Amount(task.num_items, task.unit, sum(record.rows for record in files) if files else None)


_NOTHING = Recorder()
_NO_ROWS, _NO_METRICS = _NOTHING.dropped, _NOTHING.metrics
_NOTHING_RECORDED = {"_recorder": None, "_call": None}
_END: Any = object()
