"""How does a group of stages run in one worker? Each task goes through all stages, depth first."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from curator_core.accounts.events import DONE, MERGED, Event
from curator_core.accounts.ledger import LedgerWriter, Sink
from curator_core.errors import CuratorError, MissingDependency, UsageError
from curator_core.model.codec import encode_task
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.machine_use import MachineUse
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, Task
from curator_core.planning.plan import Group, PlannedStage
from curator_core.worker.adapter import BaseStageAdapter
from curator_core.worker.begun import Begun
from curator_core.worker.calls import NO_CARE, CallObserver, Care
from curator_core.worker.context import Ending, RunContext
from curator_core.worker.merge import store_task
from curator_core.worker.overlap import Overlap, overlaps
from curator_core.worker.stage_log import StageLog


class GroupRunner:
    """One worker's copy of a group: set up once, given tasks, torn down once."""

    def __init__(
        self,
        stages: Group | Sequence[PlannedStage],
        context: RunContext,
        *,
        ending: Ending = "pass",
        folder: str = "",
        sink: Sink | None = None,
        adapter: type[BaseStageAdapter] = BaseStageAdapter,
        calls: CallObserver | None = None,
    ) -> None:
        """``calls`` is called around every call of a stage. ``ending`` is ``done`` if tasks that leave have reached the
        end of the pipeline, ``merged`` if they wait for a merge (stored in ``folder`` if there is one), and ``pass`` if
        another group continues.
        """
        self.context = context
        self.sink: Sink = sink if sink is not None else context.open_sink()
        members = stages.stages if isinstance(stages, Group) else stages
        self.adapters = [adapter(planned, context, self.sink, calls) for planned in members]
        begun = Begun(allowed=all(planned.stage.task_timeout_s is None for planned in members))
        for one in self.adapters:
            one.begun = begun
        if context.seen is not None and context.seen.overlap and isinstance(self.sink, LedgerWriter):
            for place, filters in overlaps(members):
                self.adapters[place].overlap = Overlap(filters, context.attempt, self.sink.seen)
        self.ending = ending
        self.folder = folder
        self._ready: list[BaseStageAdapter] = []
        self._log: StageLog | None = None

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Call the hook of every stage, even after one has failed, so that all missing packages and models are reported
        together.
        """
        _all_or_raise(
            (adapter.name, functools.partial(adapter.setup_on_node, node, worker)) for adapter in self.adapters
        )

    def setup(self, worker: WorkerMetadata) -> None:
        """Set the stages up in order. If some fail, their errors are reported together, and all are torn down."""
        if self.context.run_dir and self._log is None:
            self._log = StageLog(self.context.run_dir, worker.worker_id, self.context.log_level)
            self._log.open()
        if isinstance(self.sink, LedgerWriter):
            self.sink.times.worker = worker.worker_id
            if worker.gpu_ids:
                use = MachineUse()
                self.sink.times.watch_gpus(lambda: use.now().gpus)

        def set_up(adapter: BaseStageAdapter) -> None:
            self._ready.append(adapter)
            adapter.setup(worker)

        try:
            _all_or_raise((adapter.name, functools.partial(set_up, adapter)) for adapter in self.adapters)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to show
                self.teardown()
            raise

    def run(self, tasks: Iterable[Task[Any]], care: Care = NO_CARE) -> Iterator[Task[Any]]:
        """Yield the group's results for ``tasks``. They are durable only after `flush`."""
        stream: Iterator[Task[Any]] = iter(tasks)
        for adapter in self.adapters:
            stream = adapter.stream(stream, care)
        if self.ending == "pass":
            return stream
        return self._finish(stream)

    def _finish(self, stream: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        last = self.adapters[-1] if self.adapters else None
        for left in stream:
            task = left.landed() if isinstance(left, DocumentBatch) else left
            del left
            if last is not None and self.ending == "done":
                last.see_end(task)
            counts, outputs, result = task._pending, task._outputs, ""
            task._pending, task._outputs = [], []
            if self.ending == "merged":
                if self.folder:
                    store_task(self.folder, task)
            elif self.context.run_dir:
                result = self._keep_result(task, outputs)
            self.sink.event(
                Event.of(
                    task,
                    MERGED if self.ending == "merged" else DONE,
                    attempt=self.context.attempt,
                    stage=last.name if last else "",
                    counts=counts,
                    outputs=outputs,
                    result=result,
                )
            )
            if self.ending == "merged" and self.folder:
                # The task waits in the folder; only its name is passed on.
                yield EmptyTask(task_id=task.task_id, _source=task._source)
            else:
                yield task
            del task

    def _keep_result(self, task: Task[Any], outputs: list[Any]) -> str:
        """Store the result that a resumed run returns for this task: a list of files in the event itself, a table in a
        file.
        """
        if type(task) is FileGroupTask:
            records = [record for _, record in outputs]
            if records == task.records and task.data == [record.path for record in records]:
                return "outputs"  # the usual case with a writer, whose files are in the event already
            return json.dumps([task.data, [[r.path, r.rows, r.bytes, r.sha256] for r in task.records]])
        if isinstance(task, DocumentBatch) and isinstance(self.sink, LedgerWriter):
            self.sink.keep(task.task_id, encode_task(task, pickled=False))
            return "stored"
        return ""

    def set_aside(self, task: Task[Any], error: CuratorError) -> None:
        """Pass a task that cannot be run (it kills its worker) to the error policy, without running it."""
        if not self.adapters:
            raise error
        self.adapters[0].set_aside(task, error)

    def flush(self) -> None:
        """Make all events so far durable."""
        self.sink.flush()
        if self._log is not None:
            self._log.flush()

    def teardown(self) -> None:
        """Tear all stages down, and then raise the errors, if there are any."""
        failure: BaseException | None = None
        if isinstance(self.sink, LedgerWriter):
            self.sink.times.ending = True
        while self._ready:
            adapter = self._ready.pop()
            try:
                adapter.teardown()
            except BaseException as error:
                failure = failure or error
        if self._log is not None:
            self._log.close()
            self._log = None
        if failure is not None:
            raise failure


def _all_or_raise(calls: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Make a call for each stage, and then raise one error for all that failed, which names the stages if there are
    several.
    """
    failed: dict[str, list[str]] = {}
    errors: list[CuratorError] = []
    for name, call in calls:
        try:
            call()
        except CuratorError as error:
            errors.append(error)
            failed.setdefault(str(error), []).append(name)
    if len(failed) <= 1:
        if errors:
            raise errors[0]
        return
    text = f"{sum(map(len, failed.values()))} stages cannot be set up"
    for message, names in failed.items():
        text += f"\n{', '.join(names)}: {message}"
    missing = all(isinstance(error, MissingDependency) for error in errors)
    usage = all(isinstance(error, MissingDependency | UsageError) for error in errors)
    raise (MissingDependency if missing else UsageError if usage else CuratorError)(text) from errors[0]
