"""Runs the groups of a segment as the operators of one streaming Ray dataset."""

from __future__ import annotations

import contextlib
import gc
import logging
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from curator_backends.cluster import Cluster, connect, import_ray, uninterrupted
from curator_backends.coordinator import Standing, start_coordinator
from curator_backends.failures import let_go, translate
from curator_backends.options import RayOptions, parse_options
from curator_backends.ray_data.adapter import RayDataStageAdapter, split_blocks
from curator_backends.ray_data.placement import Placement, place, start_no_more
from curator_backends.sources import Feeder, SourceBlocks
from curator_backends.supervisor import Supervisor
from curator_backends.transport import unpack
from curator_backends.worker import Job
from curator_core.errors import UsageError
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.model.codec import decode_task
from curator_core.model.machine import Machine, this_machine
from curator_core.model.task import Task

logger = logging.getLogger(__name__)

# A block of results is handed on at this size at the latest.
BLOCK_BYTES = 32 << 20
# Ray Data hands on what a reader lists when it has gathered a block. Names of sources are small, so a block of the usual
# size would be all of them, and nothing would start before the last is listed.
LISTED_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True)
class RayDataOptions(RayOptions):
    """Options of `RayDataExecutor`, beside those that say which cluster.

    ``tasks_per_block``: how many sources travel together; by default as many as leaves each worker some eight blocks.
    ``tasks_in_flight``: how many blocks wait at an actor; Ray Data's own number by default.
    ``poll_interval_s``: how long Ray Data waits at most before it looks at its running tasks and hands out more; its
    own 0.1 s is a long time for small tasks, less costs the driver CPU.
    """

    tasks_per_block: int | None = None
    tasks_in_flight: int | None = None
    poll_interval_s: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("tasks_per_block", least=1, optional=True)
        self.check_whole("tasks_in_flight", least=1, optional=True)
        self.check_positive("poll_interval_s")


class RayDataExecutor(BaseExecutor):
    """Runs pipelines on Ray Data; see `RayDataOptions` for what ``config`` takes."""

    simultaneous: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__({**(config or {}), **options})
        self.settings = parse_options(RayDataOptions, type(self).__name__, self.config)
        self._stack: ExitStack | None = None
        self._cluster: Cluster | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.config.items())})"

    def talk(self) -> None:
        """Let Ray and Ray Data talk, as ``verbose`` does."""
        self.settings = replace(self.settings, verbose=True)

    def open(self) -> None:
        """Connect to Ray, or start it."""
        if self._stack is not None:
            raise UsageError(f"this {type(self).__name__} is running already: make another for another run")
        with ExitStack() as stack:
            self._cluster = stack.enter_context(connect(self.settings))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Leave Ray, and stop it if `open` started it."""
        stack, self._stack, self._cluster = self._stack, None, None
        if stack is not None:
            stack.close()

    def machine(self) -> Machine:
        """The nodes that workers may use; before `open`, what a local cluster would have."""
        if self._cluster is not None:
            return self._cluster.machine()
        here = this_machine()
        return Machine(
            cpus=self.settings.num_cpus or here.cpus,
            memory_gb=here.memory_gb,
            gpus=here.gpus if self.settings.num_gpus is None else self.settings.num_gpus,
            gpu_memory_gb=self.settings.gpu_memory_gb or here.gpu_memory_gb,
            name="a local Ray",
        )

    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        """Stream the segment's sources through its groups."""
        if self._cluster is None:
            raise UsageError("the executor is not open: run it through a Pipeline, or with execute()")
        placements, notes = place(run.groups, self._cluster)
        for note in notes:
            logger.warning(note)
        blocks = SourceBlocks(run.tasks, _first_workers(placements[0], self._cluster), self.settings.tasks_per_block)
        if blocks.empty:
            return
        if blocks.complete:
            placements = start_no_more(placements, run.groups, blocks.seen)
        yield from _Segment(run, self._cluster, self.settings, placements, blocks).results()


class _Segment:
    """One dataset, from its sources to its last result."""

    def __init__(
        self,
        run: SegmentRun,
        cluster: Cluster,
        settings: RayDataOptions,
        placements: list[Placement],
        blocks: SourceBlocks,
    ) -> None:
        self.run = run
        self.cluster = cluster
        self.settings = settings
        self.placements = placements
        self.blocks = blocks
        self.token = uuid.uuid4().hex[:16]
        self.ray = import_ray()
        self.coordinator = start_coordinator(self.ray)
        self.supervisor = Supervisor(self.ray, self.coordinator, run, settings.stall_timeout_s, self.token)
        self.feeder: Feeder | None = None

    def results(self) -> Iterator[Task[Any]]:
        failed = True
        try:
            # These import Ray Data.
            from curator_backends.ray_data.guard import guarded, polling_every
            from curator_backends.ray_data.services import no_services

            with (
                _quiet(self.settings.verbose),
                no_services(self.cluster.lean),
                polling_every(self.settings.poll_interval_s),
                guarded(self.token, self._look) as callback,
            ):
                yield from self._stream(callback)
            failed = False
        except BaseException as error:
            translated = translate(error, "Ray Data")
            let_go(error)
            if translated is error:
                raise
            raise translated from None
        finally:
            with uninterrupted():
                if self.feeder is not None:
                    self.feeder.stop()
                gc.collect()  # actors end when the last reference to them goes, and the dataset is full of cycles
                try:
                    self.supervisor.conclude(failed)
                finally:
                    self.ray.kill(self.coordinator)

    def _stream(self, callback: type) -> Iterator[Task[Any]]:
        from ray.data import DataContext

        with DataContext.current(self._context(callback)):
            dataset = self.dataset()
        for bundle in dataset.iter_internal_ref_bundles():
            self.supervisor.moved()
            for reference in bundle.block_refs:
                table = self.ray.get(reference)
                for buffer in unpack(table) if table.num_rows else ():
                    # A copy: results outlive the object store.
                    yield decode_task(buffer.to_pybytes())
            self.supervisor.hand_over()
        if self.feeder is not None and self.feeder.failure is not None:
            raise self.feeder.failure

    def dataset(self) -> Any:
        """The dataset, not yet running."""
        dataset = self._sources()
        for index, (group, placement) in enumerate(zip(self.run.groups, self.placements, strict=True)):
            job = Job(
                self.token,
                index,
                group,
                self.run.context,
                self.run.ending_of(index),
                self.run.folder if index == len(self.placements) - 1 else "",
                self.settings.max_worker_deaths,
            )
            adapter = RayDataStageAdapter(group, job=job, placement=placement, coordinator=self.coordinator)
            dataset = adapter.process_dataset(dataset)
        return dataset

    def _sources(self) -> Any:
        from ray import data

        if self.blocks.complete:
            return data.from_blocks(self.blocks.all_tables())
        from curator_backends.ray_data.source import source_dataset

        self.feeder = Feeder(self.blocks, self._offer, lambda: self.ray.get(self.coordinator.standing.remote()))
        self.feeder.start()
        remote = {"label_selector": _elsewhere(self.cluster)} if self.cluster.avoid_node else {}
        return split_blocks(source_dataset(self.coordinator, remote), self.blocks.per_block)

    def _offer(self, tables: list[pa.Table], last: bool) -> Standing:
        # As references: a list is not looked into, so they stay references, and the object store may spill them.
        references = [self.ray.put(table) for table in tables]
        standing: Standing = self.ray.get(self.coordinator.offer.remote(references, last))
        return standing

    def _context(self, callback: type) -> Any:
        from ray.data import DataContext, ExecutionResources

        context = DataContext.get_current().copy()
        wanted = {
            "enable_progress_bars": self.settings.verbose,
            "print_on_execution_start": self.settings.verbose,
            "raise_original_map_exception": True,
            "log_internal_stack_trace": False,
            "enable_auto_log_stats": False,
            "target_max_block_size": BLOCK_BYTES if self.blocks.complete else LISTED_BLOCK_BYTES,
            # A task may take as long as it takes: ours knows whether anybody is at work, Ray Data's does not.
            "execution_no_progress_timeout_s": -1,
            "enable_fallback_to_arrow_object_ext_type": False,
            "max_tasks_in_flight_per_actor": self.settings.tasks_in_flight,
        }
        for name, value in wanted.items():
            if hasattr(context, name):
                setattr(context, name, value)
        context.custom_execution_callback_classes = [
            *context.custom_execution_callback_classes,
            callback,
        ]
        if self.cluster.avoid_node is not None:
            head = next(node for node in self.ray.nodes() if node["NodeID"] == self.cluster.avoid_node)["Resources"]
            context.execution_options.exclude_resources = ExecutionResources(
                cpu=head.get("CPU", 0.0),
                gpu=head.get("GPU", 0.0),
                object_store_memory=head.get("object_store_memory", 0.0),
            )
            context.execution_options.label_selector = _elsewhere(self.cluster)
        return context

    def _look(self) -> None:
        if self.feeder is not None and self.feeder.failure is not None:
            raise self.feeder.failure
        self.supervisor.look(self._waiting_for)

    def _waiting_for(self) -> str:
        asked = ", ".join(
            f"{group.name} {place.num_cpus:g} CPU" + (f" {place.num_gpus:g} GPU" if place.num_gpus else "")
            for group, place in zip(self.run.groups, self.placements, strict=True)
        )
        free = self.ray.available_resources()
        return (
            f"a worker needs: {asked}; {self.cluster.name} has {free.get('CPU', 0.0):g} CPUs and "
            f"{free.get('GPU', 0.0):g} GPUs free. Something else may hold the rest, or a node is gone"
        )


def _elsewhere(cluster: Cluster) -> dict[str, str]:
    return {"ray.io/node-id": f"!{cluster.avoid_node}"}


def _first_workers(placement: Placement, cluster: Cluster) -> int:
    """How many workers the first group may have at once."""
    by_cpu = cluster.cpus / placement.num_cpus if placement.num_cpus else cluster.cpus
    return max(1, int(min(by_cpu, placement.max_workers or by_cpu)))


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Ray Data speaks of plans and progress on the terminal: not unless it was asked to."""
    if verbose:
        yield
        return
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\.data|curator_backends\.ray_data")
    entry = warnings.filters[0]
    try:
        yield
    finally:
        log.setLevel(level)
        with contextlib.suppress(ValueError):  # somebody has reset the filters meanwhile
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
