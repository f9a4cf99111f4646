"""Runs one stage on a Ray dataset of your own, whose column ``item`` holds tasks.

    adapter = RayDataStageAdapter(stage)
    dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    rows = adapter.process_dataset(dataset).take_all()

`RayDataExecutor` does not use this adapter: it moves encoded tasks and keeps accounts of them.
"""

from __future__ import annotations

import atexit
import contextlib
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from curator_backends.cluster import describe_cluster
from curator_backends.options import RayOptions
from curator_backends.ray_data.operators import operator_options, split_blocks
from curator_backends.ray_data.placement import describe_group, place
from curator_backends.ray_data.workers import this_worker
from curator_backends.transport import ITEM
from curator_backends.worker import clean_node, once_per_node
from curator_core.accounts.ledger import MemorySink, Sink
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.model.task import Task
from curator_core.planning.plan import Group, PlannedStage
from curator_core.worker.adapter import BaseStageAdapter
from curator_core.worker.context import RunContext

Stage = ProcessingStage[Any, Any]
Batch = Mapping[str, Any]


class RayDataStageAdapter(BaseStageAdapter):
    """A stage on Ray Data. In the driver, it adds the stage to a dataset; in a worker, it runs the stage, as its base
    class does.
    """

    def __init__(
        self, stage: Stage | PlannedStage, context: RunContext | None = None, sink: Sink | None = None
    ) -> None:
        """Unknown keys of ``ray_stage_spec()`` are refused here, and a GPU stage without a ``batch_size`` gets a
        warning. ``context`` holds the error policy; by default the first error is raised.
        """
        planned = stage if isinstance(stage, PlannedStage) else PlannedStage(stage, stage.name)
        # process_dataset() looks up the memory of a GPU, because only it needs the number.
        _, notes = describe_group(_alone(planned), gpu_memory_gb=float("inf"))
        for note in notes:
            warnings.warn(note, stacklevel=2)
        if not planned.stage.batch_size:
            planned = PlannedStage(planned.stage.with_(batch_size=1), planned.name)
        super().__init__(planned, context or RunContext(), sink if sink is not None else MemorySink())
        self.group = _alone(planned)

    @property
    def batch_size(self) -> int:
        """The largest number of tasks that the stage gets in one call."""
        return self.stage.batch_size

    def process_dataset(self, dataset: Any, ignore_head_node: bool = False) -> Any:
        """The dataset with the stage applied; after a fan-out each task is a block, so that workers share them."""
        cluster = describe_cluster(RayOptions(ignore_head_node=ignore_head_node), ours=False)
        (placement,), notes = place([self.group], cluster)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        make = create_actor_from_stage if placement.mode == "actor" else create_task_from_stage
        dataset = dataset.map_batches(make(self.planned), batch_size=self.batch_size, **operator_options(placement))
        return split_blocks(dataset, 1) if self.group.is_fanout else dataset

    def work(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Run the stage on a batch of rows with one task each; yield its results in the same form."""
        for task in self.stream(iter(batch[ITEM])):
            yield {ITEM: _column([task])}
        if isinstance(self.sink, MemorySink):
            self.sink.take()  # nothing collects the accounts here, so they must not pile up

    @contextlib.contextmanager
    def set_up(self, token: str) -> Iterator[None]:
        """The stage is set up for the length of the ``with`` block, and torn down at its end."""
        self.start(token)
        try:
            yield
        finally:
            self.teardown()

    def start(self, token: str) -> None:
        """Set the stage up; the first worker with this ``token`` on a machine also runs `setup_on_node`."""
        node, worker = this_worker()
        if overrides(self.stage, "setup_on_node"):
            once_per_node(token, node.node_id, lambda: self.setup_on_node(node, worker))
        self.setup(worker)


def create_actor_from_stage(stage: Stage | PlannedStage) -> type:
    """A class for `map_batches` that keeps the stage set up. It is named after the stage: ``MyStage`` makes
    ``MyStageActor``.
    """
    token = _token()

    def __init__(self: Any) -> None:  # noqa: N807
        self._adapter = None
        adapter = _adapter(stage)
        adapter.start(token)
        self._adapter = adapter

    def __call__(self: Any, batch: Batch) -> Iterator[dict[str, Any]]:  # noqa: N807
        yield from self._adapter.work(batch)

    def __del__(self: Any) -> None:  # noqa: N807
        adapter = self.__dict__.pop("_adapter", None)
        if adapter is not None:
            adapter.teardown()

    name = f"{_kind(stage)}Actor"
    return type(name, (), {"__init__": __init__, "__call__": __call__, "__del__": __del__, "__module__": __name__})


def create_task_from_stage(stage: Stage | PlannedStage) -> Callable[[Batch], Iterator[dict[str, Any]]]:
    """A function for `map_batches`, named after the stage: ``MyStage`` makes ``MyStageTask``.

    Each call sets the stage up and tears it down: a stage for which that is expensive belongs in an actor.
    """
    token = _token()

    def work(batch: Batch) -> Iterator[dict[str, Any]]:
        adapter = _adapter(stage)
        with adapter.set_up(token):
            yield from adapter.work(batch)

    work.__name__ = work.__qualname__ = f"{_kind(stage)}Task"
    return work


def _token() -> str:
    """Make a token for the marker files of `setup_on_node`. Those on this machine are removed when the driver ends,
    since no run removes them.
    """
    token = uuid.uuid4().hex[:16]
    atexit.register(clean_node, token)
    return token


def _alone(planned: PlannedStage) -> Group:
    return Group((planned,), planned.stage.resources, planned.stage.num_workers())


def _adapter(stage: Stage | PlannedStage) -> RayDataStageAdapter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the driver has already reported them
        return RayDataStageAdapter(stage)


def _kind(stage: Stage | PlannedStage) -> str:
    return type(stage.stage if isinstance(stage, PlannedStage) else stage).__name__


def _column(tasks: Iterable[Task[Any]]) -> Any:
    """Tasks as a column of objects; left to itself, numpy would unpack those that are sequences."""
    values = list(tasks)
    column = np.empty(len(values), dtype=object)
    for index, task in enumerate(values):
        column[index] = task
    return column
