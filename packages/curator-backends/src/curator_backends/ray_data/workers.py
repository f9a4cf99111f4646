"""The actors and tasks that Ray Data calls in its worker processes, around a `GroupWorker`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from curator_backends.links import Link
from curator_backends.transport import decode, encode_stream
from curator_backends.worker import GroupWorker, Job
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import overrides

_kept: dict[tuple[str, int], GroupWorker] = {}


def group_actor(job: Job, link: Link) -> type:
    """A class for `map_batches` that keeps the group set up."""

    def __init__(self: Any) -> None:  # noqa: N807
        self._worker = _start_worker(job, link)

    def __call__(self: Any, batch: pa.Table) -> Iterator[pa.Table]:  # noqa: N807
        return _results(self._worker, batch)

    def __del__(self: Any) -> None:  # noqa: N807
        # Ray Data releases the object when the pool releases the actor: an actor gets no other notice of its end.
        worker = self.__dict__.pop("_worker", None)
        if worker is not None:
            worker.close()

    name = f"{job.label}Actor"
    return type(name, (), {"__init__": __init__, "__call__": __call__, "__del__": __del__, "__module__": __name__})


def _results(worker: GroupWorker, batch: pa.Table) -> Iterator[pa.Table]:
    """The results of a batch. This is no method of the actor: a stage may keep an exception, its traceback keeps the frames
    of all callers, and a frame with the actor's object would keep it beyond the end of the actor.
    """
    try:
        yield from encode_stream(worker.run(decode(batch)))
    except Exception:
        worker.close()  # the run is over
        raise


def group_task(job: Job, link: Link) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """A function for `map_batches`."""
    # If a stage with a setup must run as tasks, every call sets it up and tears it down.
    stateful = any(overrides(planned.stage, hook) for planned in job.group.stages for hook in ("setup", "teardown"))

    def work(batch: pa.Table) -> Iterator[pa.Table]:
        worker = _start_worker(job, link) if stateful else _kept_worker(job, link)
        try:
            yield from encode_stream(worker.run(decode(batch)))
        finally:
            if stateful:
                worker.close()

    work.__name__ = work.__qualname__ = f"{job.label}Task"
    return work


def this_worker() -> tuple[NodeInfo, WorkerMetadata]:
    """The node and the worker of this process. From here on, the process sees only its own GPUs."""
    import ray

    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    if gpus and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        # A cluster that was started for Xenna does not set the visible GPUs itself.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    worker_id = context.get_actor_id() or context.get_worker_id()
    numbers = tuple(int(gpu) for gpu in gpus if str(gpu).isdigit())
    return NodeInfo(context.get_node_id()), WorkerMetadata(worker_id=worker_id, gpu_ids=numbers)


def _kept_worker(job: Job, link: Link) -> GroupWorker:
    """The worker of a stateless group in this process; it is made once, since a process serves many calls."""
    worker = _kept.get((job.token, job.index))
    if worker is None:
        for key in [key for key in _kept if key[0] != job.token]:
            _kept.pop(key).close()
        worker = _kept[job.token, job.index] = _start_worker(job, link, closes=False)
    return worker


def _start_worker(job: Job, link: Link, closes: bool = True) -> GroupWorker:
    node, worker = this_worker()
    return GroupWorker(job, link, node, worker, closes=closes)
