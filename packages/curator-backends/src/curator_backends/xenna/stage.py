"""A group as a Xenna stage. This module imports Xenna, so it is imported when a run starts."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

import attrs
import pyarrow as pa
from cosmos_xenna.pipelines import v1 as xenna
from ray import runtime_env as ray_runtime_env

from curator_backends.links import Link
from curator_backends.transport import decode, encode_stream, pack
from curator_backends.worker import GroupWorker, Job
from curator_core.model.codec import encode_task
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata

# In each stage, an item costs Xenna tens of milliseconds of waiting, whatever its size, so tasks that arrive together
# stay together.
ITEM_BYTES = 16 << 20


class GroupStage(xenna.Stage):
    """The stage that Xenna sends to its workers. Items are tables of encoded tasks; a fan-out makes one table for each
    child.
    """

    def __init__(
        self,
        job: Job,
        link: Link,
        cpus: float,
        gpus: float,
        *,
        environment: dict[str, Any] | None = None,
        poll: Callable[[], None] | None = None,
    ) -> None:
        self._job = job
        self._link = link
        self._cpus = cpus
        self._gpus = gpus
        self._environment = environment
        self._poll = poll
        self._batch_size = max((planned.stage.batch_size or 1) for planned in job.group.stages)
        self._worker: GroupWorker | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_poll": None, "_worker": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupStage:
        # Xenna copies the stages that it gets. Nothing in this object changes in the driver, and its link must not be
        # copied.
        return self

    @property
    def stage_batch_size(self) -> int:
        """How many items a call takes. Xenna's loop reads this property at every step, so the driver polls its workers
        here.
        """
        if self._poll is not None:
            self._poll()
        return self._batch_size

    @property
    def required_resources(self) -> xenna.Resources:
        whole = self._gpus >= 1
        return xenna.Resources(cpus=self._cpus, gpus=int(self._gpus) if whole else self._gpus)

    @property
    def env_info(self) -> xenna.RuntimeEnv | None:
        return None if self._environment is None else StageEnvironment.of(self._environment)

    def setup(self, worker_metadata: xenna.WorkerMetadata) -> None:
        """Set the stages up; the first worker on a machine also calls `setup_on_node`."""
        import ray

        context = ray.get_runtime_context()
        allocation = worker_metadata.allocation
        self._worker = GroupWorker(
            self._job,
            self._link,
            NodeInfo(context.get_node_id()),
            WorkerMetadata(worker_metadata.worker_id, tuple(sorted({gpu.index for gpu in allocation.gpus}))),
        )
        # After an error in batch mode, Xenna does not call destroy(): its workers are released and end on their own.
        atexit.register(self.destroy)

    def process_data(self, in_data: list[pa.Table]) -> list[pa.Table]:
        """Apply the group to some items."""
        assert self._worker is not None, "Xenna calls setup() first"
        results = self._worker.run([task for table in in_data for task in decode(table)])
        if self._job.group.is_fanout:
            return [pack([encode_task(task)]) for task in results]
        return list(encode_stream(results, ITEM_BYTES))

    def destroy(self) -> None:
        """Tear the stages down."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


@attrs.define  # an attrs class like its base: Xenna copies environments, and attrs copies only declared fields
class StageEnvironment(xenna.RuntimeEnv):
    """A Ray runtime environment in the form that Xenna takes."""

    fields: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, environment: dict[str, Any]) -> StageEnvironment:
        """``env_vars`` are merged with those of Xenna; the rest goes to Ray unchanged."""
        rest = {key: value for key, value in environment.items() if key != "env_vars"}
        variables = dict(environment.get("env_vars", {}))
        return cls(extra_env_vars=variables, fields=rest)  # type: ignore[call-arg]  # of the untyped base

    def to_ray_runtime_env(self) -> Any:
        return ray_runtime_env.RuntimeEnv(**self.fields, env_vars=dict(self.extra_env_vars))


def named_stage(label: str, **arguments: Any) -> GroupStage:
    """A stage whose class has the group's name, since Xenna's logs and dashboard show the name of the class."""
    kind = type(label, (GroupStage,), {"__module__": __name__})
    stage = kind(**arguments)
    assert isinstance(stage, GroupStage)
    return stage
