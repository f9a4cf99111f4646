"""The executor that needs only this machine: it runs in this process, or on a pool of worker processes.

Each source goes through the whole segment in one worker, depth first. Workers are not forks of the driver: they are
fresh interpreters, or forks of one (see `curator_core.executors.local_template`). They do not import the caller's
script, so a script needs no ``if __name__ == "__main__"``, and notebooks work. If a worker dies, its source is retried;
a source that kills three workers is handled by the error policy. If stages use a GPU, one process owns it and runs them
for all workers, which use the CPU only (see `curator_core.executors.local_gpu`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import check_whole
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.executors.gpu_slots import gpu_slots
from curator_core.executors.local_pool import Pool, Spares
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.machine import available_cpus, gpu_numbers, visible_gpus
from curator_core.model.task import StagePerfStats, Task
from curator_core.worker.calls import TimeLimits
from curator_core.worker.group import GroupRunner

# The number of workers that start before the plan is made. Whether there are sources for more is not yet known.
FIRST_WORKERS = 4


class LocalExecutor(BaseExecutor):
    """``workers=0`` runs in this process, so that breakpoints work; the default is one worker per core."""

    options: ClassVar[tuple[str, ...]] = ("workers",)
    environments: ClassVar[bool] = False
    opens_at_once: ClassVar[bool] = True

    def __init__(self, workers: int | None = None, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        if workers is None:
            workers = self.config.get("workers")
        check_whole("LocalExecutor.workers", workers, least=0, optional=True)
        self.workers = workers
        self._spares: Spares | None = None
        self._opened = 0

    def open(self) -> None:
        """From now until `close`, workers outlive their segment: the next segment, or the next step of a workflow, uses
        them.
        """
        self._opened += 1
        self._spares = self._spares or Spares()

    def get_ready(self) -> None:
        workers = int(available_cpus()) if self.workers is None else self.workers
        if self._spares is not None:
            self._spares.start(min(workers, FIRST_WORKERS))

    def close(self) -> None:
        self._opened -= 1
        if self._opened <= 0 and self._spares is not None:
            spares, self._spares = self._spares, None
            spares.close()

    def __repr__(self) -> str:
        return f"LocalExecutor(workers={self.workers!r})"

    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        owned = self._owned_groups(run)
        # If a process owns a GPU, there is one worker more than cores, since each waits for the owner at times.
        workers = int(available_cpus()) + bool(owned) if self.workers is None else self.workers
        wanted = [
            group.num_workers for index, group in enumerate(run.groups) if group.num_workers and index not in owned
        ]
        if wanted and self.workers is None:
            workers = min(workers, max(wanted))
        cards = self._gpu_slots(run) if workers else None
        if cards is not None and self._spares is not None:
            self._spares.close()  # a worker gets its GPUs when it starts, and those that were started ahead have none
        if workers:
            if cards is not None and not owned:
                workers = max(1, min(workers, len(cards)))
            # Read ahead to start no more workers than there are sources.
            ahead: list[Task[Any]] = []
            for task in run.tasks:
                ahead.append(task)
                if len(ahead) > workers:
                    break
            rest = run.tasks
            workers = min(workers, len(ahead))
            run.tasks = _chain(ahead, rest)
            if not workers:
                return
        if workers == 0:
            yield from _run_here(run)
        else:
            if cards is not None and owned:
                most = max((run.groups[index].num_workers or workers for index in owned), default=workers)
                cards = _one_each(cards)[: min(workers, most)]
            memory_gb = self.machine().memory_gb if owned else 0.0
            with Pool(run, workers, cards, self._spares, owned, memory_gb) as pool:
                run.staffed(workers)
                yield from pool.results()

    def _owned_groups(self, run: SegmentRun) -> list[int]:
        """The numbers of the groups that the owner of a GPU runs for all workers; none if a merge uses a GPU, since it
        waits for all of its tasks.
        """
        first = 1 if run.segment.merge is not None else 0
        found = [index for index, group in enumerate(run.groups) if group.resources.requires_gpu]
        return found if all(index >= first for index in found) else []

    def _gpu_slots(self, run: SegmentRun) -> list[str] | None:
        """The GPUs of each process that they have room for; None if no stage requires a GPU.

        All groups that use a GPU are in the same process, so their needs add up.
        """
        memory = sum(group.resources.gpu_memory_gb for group in run.groups)
        gpus = max((group.resources.gpus for group in run.groups), default=0.0)
        if not memory and not gpus:
            return None
        machine = self.machine()
        names = visible_gpus() or [str(index) for index in range(int(machine.gpus))]
        return gpu_slots(names, machine.gpu_memories, memory_gb=memory, gpus=gpus)


def _one_each(cards: list[str]) -> list[str]:
    """One process for each GPU or set of GPUs, even if it has room for more."""
    return list(dict.fromkeys(cards))


def _chain(first: list[Task[Any]], rest: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
    yield from first
    yield from rest


def _run_here(run: SegmentRun) -> Iterator[Task[Any]]:
    limits = TimeLimits() if any(planned.stage.task_timeout_s for planned in run.stages) else None
    runner = GroupRunner(run.stages, run.context, ending=run.ending, folder=run.folder, calls=limits)
    sink = runner.sink
    needs_gpu = any(group.resources.requires_gpu for group in run.groups)
    worker = WorkerMetadata("local-0", gpu_numbers(visible_gpus()) if needs_gpu else ())

    def hand_over() -> list[StagePerfStats]:
        if isinstance(sink, LedgerWriter):
            return sink.take_counts()
        assert isinstance(sink, MemorySink)
        events = sink.take()
        run.collect(events)
        return [count for event in events for count in event.counts]

    try:
        runner.setup_on_node(NodeInfo(), worker)
        runner.setup(worker)
        for task in run.tasks:
            source, generation = task._source, task._generation
            yield from runner.run([task])
            if isinstance(sink, LedgerWriter):
                sink.through(source, generation)
            if isinstance(sink, LedgerWriter) and sink.due():
                sink.flush()
            run.progress(1, hand_over())
            del task
    except BaseException:
        with contextlib.suppress(Exception):  # show the first error
            runner.teardown()
        raise
    else:
        runner.teardown()
    finally:
        runner.flush()
        hand_over()
