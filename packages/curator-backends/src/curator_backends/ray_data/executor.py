"""Runs the groups of a segment as the operators of one streaming Ray dataset."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_backends.cluster import Cluster
from curator_backends.coordinator import Standing
from curator_backends.executor import RayExecutor, RaySegment
from curator_backends.options import RayOptions
from curator_backends.ray_data.operators import add_group, split_blocks, splitting_tasks
from curator_backends.ray_data.placement import Placement, place, start_no_more
from curator_backends.sources import Feeder, SourceBlocks
from curator_backends.supervisor import Need
from curator_backends.transport import unpack
from curator_core.executors.base import SegmentRun
from curator_core.model.codec import decode_task
from curator_core.model.task import Task

logger = logging.getLogger(__name__)

# A block of results is passed on when it reaches this size, or earlier.
BLOCK_BYTES = 32 << 20
# Ray Data passes on listed sources once they fill a block. Names of sources are small, so a block of the usual size
# would hold all of them, and no work would start until the last source was listed.
LISTED_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True)
class RayDataOptions(RayOptions):
    """Options of `RayDataExecutor`, in addition to those of the cluster.

    ``tasks_per_block``: how many sources travel together; by default, enough that each worker gets about eight blocks.
    ``tasks_in_flight``: how many blocks may be at an actor or on their way to it; by default four if the actor uses a
    GPU, and otherwise Ray Data's own number. ``poll_interval_s``: how long Ray Data waits, at most, before it checks
    its running tasks and hands out more. Ray Data's default of 0.1 s is long for small tasks; a shorter wait costs the
    driver CPU time.
    """

    tasks_per_block: int | None = None
    tasks_in_flight: int | None = None
    poll_interval_s: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("tasks_per_block", least=1, optional=True)
        self.check_whole("tasks_in_flight", least=1, optional=True)
        self.check_positive("poll_interval_s")


class RayDataExecutor(RayExecutor[RayDataOptions]):
    """Runs pipelines on Ray Data; `RayDataOptions` describes the keys of ``config``."""

    options_type = RayDataOptions
    driver_modules = ("curator_backends.ray_data.guard", "curator_backends.ray_data.services")
    worker_modules = ("ray.data", "curator_backends.ray_data.workers")

    def segment(self, run: SegmentRun, cluster: Cluster) -> RayDataSegment | None:
        placements, notes = place(run.groups, cluster)
        for note in notes:
            logger.warning(note)
        blocks = SourceBlocks(run.tasks, _first_workers(placements[0], cluster), self.settings.tasks_per_block)
        if blocks.empty:
            return None
        if blocks.complete:
            placements = start_no_more(placements, run.groups, blocks.seen)
        return RayDataSegment(run, cluster, self.settings, placements, blocks)


class RayDataSegment(RaySegment[RayDataOptions]):
    """One dataset, from its sources to its last result."""

    engine = "Ray Data"

    def __init__(
        self,
        run: SegmentRun,
        cluster: Cluster,
        settings: RayDataOptions,
        placements: list[Placement],
        blocks: SourceBlocks,
    ) -> None:
        super().__init__(run, cluster, settings, lists_sources=not blocks.complete)
        self.placements = placements
        self.blocks = blocks
        self.feeder: Feeder | None = None
        self.starting: Any = None  # the `StartingActors` of the dataset, whose module imports Ray Data

    def stream(self) -> Iterator[Task[Any]]:
        # These modules import Ray Data.
        from curator_backends.ray_data.guard import StartingActors, guarded, polling_every
        from curator_backends.ray_data.services import no_services

        self.starting = StartingActors()
        with (
            _silence_logs(self.settings.verbose),
            no_services(self.cluster.minimal, all(placement.mode == "task" for placement in self.placements)),
            polling_every(self.settings.poll_interval_s),
            guarded(self.token, self.poll, self.starting) as callback,
        ):
            yield from self._stream(callback)

    def stop(self) -> None:
        if self.feeder is not None:
            self.feeder.stop()

    def release_workers(self, every: bool = False) -> None:
        if self.starting is not None:
            self.starting.release(every)

    def needs(self) -> list[Need]:
        return [
            Need(group.name, place.num_cpus, place.num_gpus)
            for group, place in zip(self.run.groups, self.placements, strict=True)
        ]

    def poll(self) -> None:
        if self.feeder is not None and self.feeder.failure is not None:
            raise self.feeder.failure
        super().poll()

    def _stream(self, callback: type) -> Iterator[Task[Any]]:
        from ray.data import DataContext

        with DataContext.current(self._context(callback)):
            dataset = self.dataset()
        for bundle in dataset.iter_internal_ref_bundles():
            self.supervisor.moved()
            for reference in bundle.block_refs:
                table = self.ray.get(reference)
                for buffer in unpack(table) if table.num_rows else ():
                    # Copy the results, because they outlive the object store.
                    yield decode_task(buffer.to_pybytes())
            self.supervisor.hand_over()
        if self.feeder is not None and self.feeder.failure is not None:
            raise self.feeder.failure

    def dataset(self) -> Any:
        """The dataset, not yet running."""
        dataset = self._sources()
        splitting = splitting_tasks(self.cluster.cpus)
        for job, placement in zip(self.jobs, self.placements, strict=True):
            dataset = add_group(dataset, job, placement, self.link, self.settings.tasks_in_flight, splitting)
        return dataset

    def _sources(self) -> Any:
        from ray import data

        if self.blocks.complete:
            return data.from_blocks(self.blocks.all_tables())
        from curator_backends.ray_data.source import source_dataset

        self.feeder = Feeder(self.blocks, self._offer, lambda: self.link.call("standing"))
        self.feeder.start()
        remote = {"label_selector": _elsewhere(self.cluster)} if self.cluster.avoid_node else {}
        return split_blocks(source_dataset(self.link, remote), self.blocks.per_block)

    def _offer(self, tables: list[pa.Table], last: bool) -> Standing:
        # Pass references inside a list: Ray does not resolve them there, so the object store may spill their content.
        references = [self.ray.put(table) for table in tables]
        standing: Standing = self.link.call("offer", references, last)
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
            # A task may take any amount of time: our supervisor knows whether a worker is busy, and Ray Data's check
            # does not.
            "execution_no_progress_timeout_s": -1,
            "enable_fallback_to_arrow_object_ext_type": False,
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


def _elsewhere(cluster: Cluster) -> dict[str, str]:
    return {"ray.io/node-id": f"!{cluster.avoid_node}"}


def _first_workers(placement: Placement, cluster: Cluster) -> int:
    """The largest number of workers that the first group may have at once."""
    by_cpu = cluster.cpus / placement.num_cpus if placement.num_cpus else cluster.cpus
    return max(1, int(min(by_cpu, placement.max_workers or by_cpu)))


@contextlib.contextmanager
def _silence_logs(verbose: bool) -> Iterator[None]:
    """Keep Ray Data from writing plans and progress to the terminal, unless ``verbose`` is set."""
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
        with contextlib.suppress(ValueError):  # something has reset the filters in the meantime
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
