"""Runs the groups of a segment as the stages of a Xenna pipeline."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from curator_backends.cluster import Cluster, connect, import_ray
from curator_backends.environment import same_environment
from curator_backends.executor import RayExecutor, RaySegment
from curator_backends.failures import EngineError
from curator_backends.options import RayOptions, parse_spec
from curator_backends.preload import environment_for
from curator_backends.sources import SourceBlocks
from curator_backends.supervisor import Need, Stalled
from curator_backends.transport import unpack
from curator_core.errors import MissingDependency, PlanError, UsageError, WorkerDied
from curator_core.executors.base import SegmentRun
from curator_core.model.codec import decode_task
from curator_core.model.engine_facts import XennaStageSpecKeys
from curator_core.model.machine import Machine, visible_gpus
from curator_core.model.task import Task
from curator_core.planning.plan import Group

Mode = Literal["streaming", "batch"]

# Without these variables, every run fails as soon as Xenna requests the state of its actors. The cluster's own
# processes read them when they start, so the owner of an existing cluster has to set them.
CLUSTER_ENVIRONMENT = {
    "RAY_MAX_LIMIT_FROM_API_SERVER": "40000",
    "RAY_MAX_LIMIT_FROM_DATA_SOURCE": "40000",
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
}
LEAST_VERSION = (0, 5, 12)
# The largest number of sources that are listed and have not left the first group, in blocks for each of its workers.
BLOCKS_AHEAD = 8


@dataclass(frozen=True, kw_only=True)
class XennaOptions(RayOptions):
    """Options of `XennaExecutor`, in addition to those of the cluster. Xenna's own option names are in parentheses.

    ``mode``: ``streaming`` runs all groups at once and balances their workers; ``batch`` runs one group after the
    other. ``cpu_allocation``: the fraction of each node's CPUs that workers get (cpu_allocation_percentage, by default
    0.95 in Xenna). ``autoscale_interval_s``: how often workers are rebalanced (same name). ``slots_per_worker``: tasks
    that wait in a worker while it works (slots_per_actor). ``setup_attempts``, ``run_attempts``: how often a failing
    set-up or call is tried (num_setup_attempts_python, num_run_attempts_python). ``max_setup_failure_percentage``: how
    many workers may fail to set up (same name). ``worker_lifetime_m``: minutes after which a worker is replaced, or 0
    for never (worker_max_lifetime_m). ``worker_restart_interval_m``: minutes between two such replacements (same name).
    ``work_stealing``: idle workers take waiting tasks from busy ones (enable_work_stealing). ``queue_factor``,
    ``queue_least``: how many tasks wait between groups (max_queued_multiplier, max_queued_lower_bound).
    ``logging_interval_s``: seconds between Xenna's status reports, which ``verbose`` shows (same name).
    ``tasks_per_block``: how many sources travel together; by default, this depends on the number of sources.
    """

    mode: Mode = "streaming"
    cpu_allocation: float = 1.0
    autoscale_interval_s: float = 180.0
    slots_per_worker: int = 2
    setup_attempts: int = 1
    run_attempts: int = 1
    max_setup_failure_percentage: float | None = None
    worker_lifetime_m: int = 0
    worker_restart_interval_m: int = 1
    work_stealing: bool = False
    queue_factor: float = 1.0
    queue_least: int = 8
    logging_interval_s: float = 60.0
    tasks_per_block: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("streaming", "batch"):
            raise UsageError(f"mode must be 'streaming' or 'batch', not {self.mode!r}")
        self.check_positive("cpu_allocation")
        if self.cpu_allocation > 1:
            raise UsageError(f"cpu_allocation is a part of each node's CPUs, at most 1.0, not {self.cpu_allocation!r}")
        for name in ("autoscale_interval_s", "queue_factor", "logging_interval_s"):
            self.check_positive(name)
        for name in ("slots_per_worker", "setup_attempts", "run_attempts", "queue_least", "worker_restart_interval_m"):
            self.check_whole(name, least=1)
        self.check_whole("worker_lifetime_m", least=0)
        self.check_positive("max_setup_failure_percentage", optional=True)
        self.check_flag("work_stealing")
        self.check_whole("tasks_per_block", least=1, optional=True)
        if self.ignore_head_node:
            raise UsageError(
                "Xenna places workers on every node, so it cannot ignore the head node: start the head node with "
                "`ray start --head --num-cpus=1` and give cpu_allocation=0.99, which Xenna rounds down node by node, or use "
                "the ray_data executor"
            )


class XennaExecutor(RayExecutor[XennaOptions]):
    """Runs pipelines on Cosmos-Xenna; `XennaOptions` describes the keys of ``config``."""

    options_type = XennaOptions
    driver_modules = ("curator_backends.xenna.stage", "curator_backends.xenna.services")
    worker_modules = ("cosmos_xenna.pipelines.v1", "curator_backends.xenna.stage")

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        if self.settings.mode == "batch":
            # Groups run one after the other, so each may use the whole machine.
            self.__dict__["simultaneous"] = False

    def require_engine(self) -> None:
        import_ray("xenna")
        import_xenna()
        _require_real_gpus(self.settings.num_gpus, len(visible_gpus()))

    def connect(self, meanwhile: Callable[[], None]) -> AbstractContextManager[Cluster]:
        """A local Ray starts with the settings that Xenna needs: higher limits, and a dashboard if Xenna requires one."""
        return connect(
            self.settings,
            extra_environment=self._environment(),
            dashboard=needs_dashboard,
            meanwhile=meanwhile,
        )

    def _environment(self) -> Mapping[str, str]:
        return {**CLUSTER_ENVIRONMENT, **environment_for([*self.worker_modules, *self._modules])}

    def machine(self) -> Machine:
        """The part of the cluster that Xenna may use; before `open`, the part of a local cluster that it would get."""
        machine = super().machine()
        if self._cluster is not None:
            return replace(machine, cpus=_allocated(self._cluster, self.settings))
        return replace(machine, cpus=max(1.0, machine.cpus * self.settings.cpu_allocation))

    def segment(self, run: SegmentRun, cluster: Cluster) -> XennaSegment | None:
        _require_cpus(cluster)
        blocks = SourceBlocks(run.tasks, max(1, int(_allocated(cluster, self.settings))), self.settings.tasks_per_block)
        return None if blocks.empty else XennaSegment(run, cluster, self.settings, blocks)


class XennaSegment(RaySegment[XennaOptions]):
    """One Xenna pipeline, from its sources to its last result."""

    engine = "Xenna"

    def __init__(self, run: SegmentRun, cluster: Cluster, settings: XennaOptions, blocks: SourceBlocks) -> None:
        self.shapes = [_shape(group, cluster) for group in run.groups]
        _check_gpus(run.groups, self.shapes, cluster, settings.mode)
        super().__init__(run, cluster, settings)
        self.blocks = blocks
        self.found: list[Task[Any]] = []

    def stream(self) -> Iterator[Task[Any]]:
        """Run the pipeline and yield its results at the end: Xenna returns to the driver only when the pipeline is
        done.
        """
        from curator_backends.xenna.services import balanced_when_there_is_news, no_services

        with (
            _silence_logs(self.settings.verbose),
            same_environment(),
            no_services(self.cluster.minimal, self.cluster.dashboard),
            balanced_when_there_is_news(lambda: self.supervisor.emptied + self.supervisor.rated),
        ):
            # By default, Xenna requests the state of its workers from the last cluster that was started on this
            # machine, which may not be ours.
            os.environ["RAY_ADDRESS"] = self.ray.get_runtime_context().gcs_address
            self._run()
        yield from self.found

    def explain(self, error: BaseException) -> BaseException:
        return _explained(error, self._lost_nodes())

    def needs(self) -> list[Need]:
        return [Need(group.name, cpus, gpus) for group, (cpus, gpus) in zip(self.run.groups, self.shapes, strict=True)]

    def poll(self) -> None:
        super().poll()
        self.supervisor.hand_over()

    def _run(self) -> None:
        from cosmos_xenna.pipelines import v1 as xenna

        config = self._config()
        stages = self._stages()
        if self.settings.mode == "batch":
            config.return_last_stage_outputs = True
            tables = self.blocks.all_tables() if self.blocks.complete else list(self.blocks.tables())
            for table in xenna.run_pipeline(xenna.PipelineSpec(tables, stages, config)) or ():
                self.take(table)
            return
        queues = xenna.ServingQueues(_Source(self), _Sink(self))
        xenna.run_pipeline(xenna.PipelineSpec([], stages, config, serving_queues=queues))

    def take(self, table: pa.Table) -> None:
        self.supervisor.moved()
        for buffer in unpack(table):
            # Copy the results, because they outlive the object store.
            self.found.append(decode_task(buffer.to_pybytes()))

    def _stages(self) -> list[Any]:
        from cosmos_xenna.pipelines import v1 as xenna

        from curator_backends.xenna.stage import named_stage

        specs = []
        workers = _workers(self.run.groups, single=self.blocks.complete and self.blocks.seen == 1)
        for job, (cpus, gpus), number in zip(self.jobs, self.shapes, workers, strict=True):
            stage = named_stage(
                job.label,
                job=job,
                link=self.link,
                cpus=cpus,
                gpus=gpus,
                environment=job.group.runtime_env,
                poll=self.poll if self.settings.mode == "streaming" else None,
            )
            specs.append(xenna.StageSpec(stage, num_workers=number, **_stage_options(job.group)))
        return specs

    def _config(self) -> Any:
        from cosmos_xenna.pipelines import v1 as xenna

        settings = self.settings
        level = xenna.VerbosityLevel.INFO if settings.verbose else xenna.VerbosityLevel.NONE
        # The mode SERVING streams from a queue to a queue: sources are listed as they are needed, and results arrive as
        # they are made. The mode STREAMING takes a list and returns a list.
        streaming = settings.mode == "streaming"
        return xenna.PipelineConfig(
            execution_mode=xenna.ExecutionMode.SERVING if streaming else xenna.ExecutionMode.BATCH,
            serving_drain_on_close=streaming,
            num_setup_attempts_python=settings.setup_attempts,
            num_run_attempts_python=settings.run_attempts,
            max_setup_failure_percentage=settings.max_setup_failure_percentage,
            slots_per_actor=settings.slots_per_worker,
            enable_work_stealing=settings.work_stealing,
            worker_max_lifetime_m=settings.worker_lifetime_m,
            worker_restart_interval_m=settings.worker_restart_interval_m,
            logging_interval_s=settings.logging_interval_s,
            cpu_allocation_percentage=settings.cpu_allocation,
            # Hiding GPUs needs a separate environment, for which Ray starts new workers, so it is skipped if there are
            # no GPUs.
            clear_cuda_visible_devices_on_cpu_actors=bool(self.cluster.gpus),
            actor_pool_verbosity_level=level,
            monitoring_verbosity_level=level,
            mode_specific=xenna.StreamingSpecificSpec(
                autoscale_interval_s=settings.autoscale_interval_s,
                max_queued_multiplier=settings.queue_factor,
                max_queued_lower_bound=settings.queue_least,
                autoscaler_verbosity_level=level,
                executor_verbosity_level=level,
            )
            if streaming
            else None,
        )

    def _lost_nodes(self) -> list[str]:
        """Nodes that were there when the run started and are gone now."""
        with contextlib.suppress(Exception):  # the cluster itself may be gone, and then the original error is reported
            alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
            return [node.node_id for node in self.cluster.nodes if node.node_id not in alive]
        return []


class _Source:
    """Stands in for Xenna's input queue and supplies items as sources are listed."""

    def __init__(self, segment: XennaSegment) -> None:
        self._segment = segment
        self._tables = iter(segment.blocks.all_tables() if segment.blocks.complete else segment.blocks.tables())
        self._given = 0
        self._ended = False
        self._ahead = BLOCKS_AHEAD * max(1, int(segment.cluster.cpus)) * segment.blocks.per_block

    def get(self, block: bool = False) -> pa.Table | None:
        """The next table of sources; after the last table, None once."""
        self._segment.poll()
        if not self._segment.blocks.complete and self._given - self._segment.supervisor.sources >= self._ahead:
            raise queue.Empty
        table = next(self._tables, None)
        if table is None:
            self._ended = True
            return None
        self._given += table.num_rows
        return table

    def empty(self) -> bool:
        return True


class _Sink:
    """Stands in for Xenna's output queue and passes its results to the segment."""

    def __init__(self, segment: XennaSegment) -> None:
        self._segment = segment

    def put(self, item: pa.Table, block: bool = True, timeout: float | None = None) -> None:
        self._segment.take(item)


def needs_dashboard() -> bool:
    """Whether Xenna requires Ray's dashboard. This function imports Xenna, so it is called only if a Ray is to be
    started.
    """
    from curator_backends.xenna.services import needs_dashboard

    return needs_dashboard()


def import_xenna() -> None:
    """Check that Xenna is installed and new enough."""
    from importlib import metadata

    try:
        version = metadata.version("cosmos-xenna")
    except metadata.PackageNotFoundError as error:
        raise MissingDependency(
            'the xenna executor runs on Cosmos-Xenna, which is not installed: pip install "curator-backends[xenna]"'
        ) from error
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if numbers < LEAST_VERSION:
        raise MissingDependency(
            f"cosmos-xenna {version} stalls and leaves processes behind with current versions of Ray; 0.5.12 or newer "
            "is "
            'needed: pip install -U "curator-backends[xenna]"'
        )


def _require_real_gpus(asked: float | None, here: int) -> None:
    if asked and (asked > here or asked != int(asked)):
        raise UsageError(
            f"num_gpus={asked:g}, but this machine has {here}: Xenna detects GPUs itself, and cannot be given "
            "simulated or partial ones. Leave num_gpus out, or use the ray_data executor, which uses the number as "
            "given"
        )


def _allocated(cluster: Cluster, settings: XennaOptions) -> float:
    """The CPUs that Xenna uses; it rounds down for each node."""
    return max(1.0, sum(float(int(node.cpus * settings.cpu_allocation)) for node in cluster.nodes))


def _require_cpus(cluster: Cluster) -> None:
    without = [node.node_id for node in cluster.nodes if node.cpus < 1]
    if without:
        raise PlanError(
            f"Xenna measures every node with a task that needs one CPU, and node {without[0][:12]} has none: start it "
            "with `ray start --num-cpus=1`, and give cpu_allocation=0.99 to keep workers off it (Xenna rounds down node by "
            "node), or use the ray_data executor"
        )


def _shape(group: Group, cluster: Cluster) -> tuple[float, float]:
    need = group.resources
    if need.gpu_memory_gb and cluster.gpu_memory_gb is None:
        raise PlanError(
            f"stage {group.name!r} asks for gpu_memory_gb={need.gpu_memory_gb:g}, but the memory of the cluster's GPUs is "
            "not known: ask with gpus=…, or give the executor gpu_memory_gb"
        )
    gpus = need.gpu_share(cluster.gpu_memory_gb or 0.0, cluster.machine().gpu_card) if need.requires_gpu else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise PlanError(f"stage {group.name!r} asks for gpus={gpus:g}: above one, GPUs come in whole numbers only")
    # Xenna rejects a worker that needs no resources.
    return max(need.cpus, 0.001 if not gpus else 0.0), gpus


def _check_gpus(groups: list[Group], shapes: list[tuple[float, float]], cluster: Cluster, mode: Mode) -> None:
    held = sum(gpus * (group.num_workers or 1) for group, (_, gpus) in zip(groups, shapes, strict=True))
    if mode == "streaming" and held > cluster.gpus + 1e-9:
        names = " and ".join(repr(g.name) for g, (_, gpus) in zip(groups, shapes, strict=True) if gpus)
        raise PlanError(
            f"stages {names} hold {held:g} GPUs at once, but {cluster.name} has {cluster.gpus:g}: ask for a share with "
            "gpu_memory_gb=…, or run with mode='batch'"
        )


def _workers(groups: Sequence[Group], *, single: bool) -> list[int | None]:
    """The number of workers of each group, or None if Xenna decides. A ``single`` task needs one worker of each group up
    to the first fan-out, and another one would only take time to start.
    """
    numbers: list[int | None] = []
    for group in groups:
        specs = [planned.stage.xenna_stage_spec() for planned in group.stages]
        asked = group.num_workers is not None or any(XennaStageSpecKeys.NUM_WORKERS_PER_NODE in spec for spec in specs)
        numbers.append(1 if single and not asked else group.num_workers)
        single = single and not group.is_fanout
    return numbers


def _stage_options(group: Group) -> dict[str, Any]:
    """A stage's own settings for Xenna, under Xenna's names."""
    keys = XennaStageSpecKeys
    names = {
        keys.NUM_WORKERS_PER_NODE: "num_workers_per_node",
        keys.NUM_SETUP_ATTEMPTS: "num_setup_attempts_python",
        keys.NUM_RUN_ATTEMPTS: "num_run_attempts_python",
        keys.SLOTS_PER_ACTOR: "slots_per_actor",
        keys.WORKER_MAX_LIFETIME_M: "worker_max_lifetime_m",
        keys.WORKER_RESTART_INTERVAL_M: "worker_restart_interval_m",
        keys.MAX_SETUP_FAILURE_PERCENTAGE: "max_setup_failure_percentage",
    }
    merged: dict[str, Any] = {}
    for planned in group.stages:
        merged.update(parse_spec(planned.name, "Xenna", planned.stage.xenna_stage_spec(), keys))
    for key, value in merged.items():
        whole = key not in (keys.NUM_WORKERS_PER_NODE, keys.MAX_SETUP_FAILURE_PERCENTAGE)
        good = isinstance(value, int) if whole else isinstance(value, (int, float))
        if isinstance(value, bool) or not good or value < 0 or (value == 0 and key != keys.WORKER_MAX_LIFETIME_M):
            raise PlanError(f"stage {group.name!r}: {key} must be a number above zero, not {value!r}")
    if group.num_workers is not None and keys.NUM_WORKERS_PER_NODE in merged:
        raise PlanError(f"stage {group.name!r} gives num_workers and num_workers_per_node: keep one of them")
    return {names[XennaStageSpecKeys(key)]: value for key, value in merged.items()}


def _explained(error: BaseException, lost_nodes: Sequence[str] = ()) -> BaseException:
    text = str(error)
    if lost_nodes and _of_the_engine(error):
        # Xenna starts the replacement of a lost worker only on the same node.
        return WorkerDied(
            f"{', '.join(node[:12] for node in lost_nodes)} left the cluster, and Xenna does not move its work to another "
            "node. Complete work is kept: continue with --resume (resume=True) and the same run_dir, or "
            f"use the ray_data executor, which continues automatically ({text.partition(chr(10))[0]})"
        )
    if "ServerUnavailable" in text or "RayStateApiException" in text:
        return UsageError(
            "Xenna requests the state of its workers from Ray's dashboard, and this cluster does not answer: start "
            f"it with its dashboard (ray[default]), and with "
            f"{', '.join(f'{k}={v}' for k, v in CLUSTER_ENVIRONMENT.items())} in "
            f"the environment of `ray start` on every node ({text.splitlines()[0]})"
        )
    return error


def _of_the_engine(error: BaseException) -> bool:
    """Whether the error concerns workers rather than a stage's data."""
    return isinstance(error, (EngineError, Stalled, WorkerDied))


@contextlib.contextmanager
def _silence_logs(verbose: bool) -> Iterator[None]:
    from loguru import logger  # Xenna depends on it

    if not verbose:
        logger.disable("cosmos_xenna")
    try:
        yield
    finally:
        if not verbose:
            logger.enable("cosmos_xenna")
