"""The base of both executors: the Ray they run on, its start and stop, and the end of a segment.

`RayDataExecutor` and `XennaExecutor` define how their engine runs the groups of a segment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, ClassVar

from curator_backends.cluster import Cluster, connect, import_ray
from curator_backends.environment import uninterrupted
from curator_backends.failures import clear_frames, translate
from curator_backends.links import ActorLink, DriverLink, Link
from curator_backends.metrics import RayMetrics
from curator_backends.options import RayOptions, parse_options
from curator_backends.preload import environment_for, importable
from curator_backends.supervisor import Need, Supervisor
from curator_backends.worker import Job, node_folder
from curator_core.accounts.metrics import MetricSample
from curator_core.errors import UsageError
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.model.machine import Machine, this_machine
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import Task
from curator_core.upkeep import without_collection


class RayExecutor[Options: RayOptions](BaseExecutor):
    """An executor on Ray: connects to a cluster or starts one, and hands each segment to its engine."""

    simultaneous: ClassVar[bool] = True
    # The options that ``config`` may hold.
    options_type: ClassVar[type[RayOptions]]

    # Modules that the driver imports while Ray starts, and every worker imports before its first task.
    driver_modules: ClassVar[tuple[str, ...]] = ()
    worker_modules: ClassVar[tuple[str, ...]] = ()

    settings: Options

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__({**(config or {}), **options})
        self.settings = parse_options(self.options_type, type(self).__name__, self.config)  # type: ignore[assignment]
        self._stack: ExitStack | None = None
        self._cluster: Cluster | None = None
        self._loading: threading.Thread | None = None
        self._modules: list[str] = []  # of the stages of the run
        self._metrics: RayMetrics | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.config.items())})"

    def set_verbose(self) -> None:
        """Let Ray and the engine write to the terminal, as the option ``verbose`` does."""
        self.settings = replace(self.settings, verbose=True)

    def expect(self, stages: Sequence[ProcessingStage[Any, Any]]) -> None:
        """Workers of a local Ray import the modules of the stages before their first task."""
        found = list(stages)
        for stage in found:
            if isinstance(stage, CompositeStage):
                with contextlib.suppress(Exception):  # the plan reports the error
                    found += stage.decompose()
        self._modules = importable(type(stage).__module__ for stage in found)

    def open(self) -> None:
        """Connect to Ray, or start it."""
        if self._stack is not None:
            raise UsageError(f"this {type(self).__name__} is running already: make another for another run")
        self.require_engine()
        with ExitStack() as stack:
            # Import while this process waits for Ray's processes. Importing earlier would delay their start.
            loading = threading.Thread(target=self._load_engine, name="curator-imports", daemon=True)
            started = threading.Event()

            def load() -> None:
                if not started.is_set():
                    started.set()
                    loading.start()
                    self._loading = loading

            stack.callback(lambda: loading.join() if started.is_set() else None)
            with without_collection():
                self._cluster = stack.enter_context(self.connect(load))
                load()
            self._stack = stack.pop_all()

    @property
    def opening(self) -> str:
        """What `open` waits for: Ray takes seconds to start, and a cluster may be far away."""
        address = self.settings.address or os.environ.get("RAY_ADDRESS")
        return f"connecting to Ray at {address}" if address else "Ray is starting"

    def publish(self, samples: Sequence[MetricSample]) -> None:
        """Publish the numbers as Ray metrics; Ray's dashboard and Prometheus endpoint show them as ``ray_curator_…``."""
        if self._cluster is None:
            return
        if self._metrics is None:
            self._metrics = RayMetrics()
        self._metrics.publish(samples)

    def close(self) -> None:
        """Disconnect from Ray, and stop it if `open` started it."""
        stack, self._stack, self._cluster, self._metrics = self._stack, None, None, None
        if stack is not None:
            stack.close()

    def machine(self) -> Machine:
        """The nodes that workers may use; before `open`, those that a local cluster would have."""
        if self._cluster is not None:
            return self._cluster.machine()
        here = this_machine()
        return Machine(
            cpus=self.settings.num_cpus or here.cpus,
            memory_gb=here.memory_gb,
            gpus=here.gpus if self.settings.num_gpus is None else self.settings.num_gpus,
            gpu_memory_gb=self.settings.gpu_memory_gb or min(here.gpu_memories, default=None),
            name="a local Ray",
            gpu_memories=here.gpu_memories,
        )

    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        """Stream the segment's sources through its groups."""
        if self._cluster is None:
            raise UsageError("the executor is not open: run it through a Pipeline, or with execute()")
        segment = self.segment(run, self._cluster)
        if segment is not None:
            if self._loading is not None:
                # Two threads that import modules which import one another may see one of them half made.
                self._loading.join()
            yield from segment.results()

    def require_engine(self) -> None:
        """Raise `MissingDependency` where a package is missing; called before Ray starts."""
        import_ray()

    def connect(self, meanwhile: Callable[[], None]) -> AbstractContextManager[Cluster]:
        """The cluster to run on. ``meanwhile`` is called when there is something to wait for."""
        preloaded = environment_for([*self.worker_modules, *self._modules])
        return connect(self.settings, extra_environment=preloaded, meanwhile=meanwhile)

    def _load_engine(self) -> None:
        with without_collection():
            for module in self.driver_modules:
                with contextlib.suppress(Exception):  # the error is raised again where the module is needed
                    importlib.import_module(module)

    @abstractmethod
    def segment(self, run: SegmentRun, cluster: Cluster) -> RaySegment[Options] | None:
        """The segment as the engine runs it, or None if there is nothing to run."""


class RaySegment[Options: RayOptions](ABC):
    """One segment on its engine, from its sources to its last result. It cleans up however the segment ends."""

    engine: ClassVar[str]  # the engine's public name

    def __init__(self, run: SegmentRun, cluster: Cluster, settings: Options, *, lists_sources: bool = False) -> None:
        """``lists_sources``: the coordinator hands out sources, as references into the object store."""
        self.run = run
        self.cluster = cluster
        self.settings = settings
        self.token = uuid.uuid4().hex[:16]
        self.jobs = [self._job(index) for index in range(len(run.groups))]
        for job in self.jobs:
            _ = job.packed  # this detects a stage that cannot be pickled before anything starts
        self.ray = import_ray()
        self.link = self._link(lists_sources)
        self.supervisor = Supervisor(self.ray, self.link, run, settings, self.token)

    def _link(self, lists_sources: bool) -> Link:
        folder = node_folder(self.token)
        if self.cluster.ours and not lists_sources and DriverLink.fits(folder):
            return DriverLink(folder)
        return ActorLink.start(self.ray, self.token)

    def _job(self, index: int) -> Job:
        return Job(
            self.token,
            index,
            self.run.groups[index],
            self.run.context,
            self.run.ending_of(index),
            self.run.folder if index == len(self.run.groups) - 1 else "",
            self.settings.max_worker_deaths,
        )

    def results(self) -> Iterator[Task[Any]]:
        """The results of the segment. When the iterator ends, even with an error, all workers are torn down and their
        facts have arrived.
        """
        failed = True
        try:
            yield from self.stream()
            failed = False
        except BaseException as error:
            explained = self._explained(error)
            clear_frames(error)
            if explained is error:
                raise
            raise explained from None
        finally:
            with uninterrupted():
                self.stop()
                gc.collect()  # workers end when the last reference to them goes, and engines have many reference cycles
                try:
                    self.supervisor.conclude(failed, self.release_workers)
                finally:
                    self.release_workers(every=True)
                    self.link.close()

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            return error
        return self.supervisor.reported_failure() or self.explain(translate(error, self.engine))

    @abstractmethod
    def stream(self) -> Iterator[Task[Any]]:
        """Run the groups; yield the results of the last one."""

    @abstractmethod
    def needs(self) -> list[Need]:
        """The resources that one worker of each group requests."""

    def explain(self, error: BaseException) -> BaseException:
        """A clearer error instead of ``error``, where the engine raises its own for something that users can change."""
        return error

    def stop(self) -> None:  # noqa: B027 - optional
        """Stop what the segment started in the driver."""

    def release_workers(self, every: bool = False) -> None:  # noqa: B027 - optional
        """Let go of workers that may end by now, or of ``every`` worker; this is called again and again while the run waits
        for their teardown.
        """

    def poll(self) -> None:
        """Process the workers' reports without waiting; raise `Stalled` when no progress is possible."""
        self.supervisor.poll(self.needs(), self.cluster)
