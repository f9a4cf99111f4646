"""The Ray cluster of a run: an existing one is used and left running; one that we start is stopped at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_backends.environment import driver_path, environment, own_sigterm, silence_logs, uninterrupted
from curator_backends.failures import first_line
from curator_backends.minimal import ends_at_once, minimal_ray
from curator_backends.options import RayOptions
from curator_backends.processes import kill, kill_leftovers, ray_processes
from curator_core.errors import CuratorError, MissingDependency, PlanError, UsageError
from curator_core.model.machine import Machine

# Read by Ray when it is imported. The raylet prints the death of every worker on the driver's terminal, whatever the
# log settings. The run counts deaths itself and reports their outcome.
_IMPORT = {"RAY_DEDUP_LOGS_SKIP_REGEX": r"A worker died or was killed|retries remaining, so the task will be retried"}
_PORT_SECONDS = 10.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, reduced to what planning needs."""

    node_id: str
    is_head: bool
    cpus: float
    gpus: float
    memory_gb: float


@dataclass(frozen=True)
class Cluster:
    """The nodes that workers may use. A ``minimal`` one was started by this executor, without a dashboard; another
    cluster may also lack a ``dashboard``.
    """

    nodes: tuple[Node, ...]
    ours: bool
    name: str
    avoid_node: str | None = None
    gpu_memory_gb: float | None = None
    minimal: bool = False
    gpu_memories: tuple[float, ...] = ()
    dashboard: bool = True

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    def machine(self) -> Machine:
        """The cluster as the plan sees it: the total resources of its nodes."""
        return Machine(
            cpus=self.cpus,
            memory_gb=sum(node.memory_gb for node in self.nodes),
            gpus=self.gpus,
            gpu_memory_gb=self.gpu_memory_gb,
            name=self.name,
            gpu_memories=self.gpu_memories,
        )


def import_ray(extra: str = "ray") -> Any:
    """Import Ray, or say which command installs it."""
    try:
        with environment(_IMPORT):
            import ray
    except ImportError as error:
        raise MissingDependency(
            f'this executor runs on Ray, which is not installed: pip install "curator-backends[{extra}]"'
        ) from error
    return ray


@contextlib.contextmanager
def connect(
    options: RayOptions,
    *,
    extra_environment: Mapping[str, str] | None = None,
    dashboard: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Cluster]:
    """A cluster for the length of a ``with`` block. ``dashboard`` says whether a cluster that is started here needs a
    dashboard.

    ``meanwhile`` is called while a minimal local cluster starts, once its first process is running.

    An existing connection is used as it is. With an address, we connect to that cluster and disconnect at the end.
    Otherwise we start a local cluster, with ``extra_environment`` set while it starts, and always stop it at the end.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield describe_cluster(options, ours=False)
        return
    address = options.address or os.environ.get("RAY_ADDRESS")
    ours = address is None or address == "local"
    minimal = ours and not (options.dashboard or options.verbose or dashboard())
    with own_sigterm(), _stopped_at_the_end(ray, ours):
        with (
            silence_logs(ours and not options.verbose, options.verbose),
            environment(extra_environment if ours else None),
            driver_path(ours),
            minimal_ray(minimal, meanwhile),
        ):
            if ours or address is None:
                _start(ray, options, not minimal and (options.dashboard or dashboard()))
            else:
                _join(ray, options, address)
        yield describe_cluster(options, ours=ours, minimal=minimal)


@contextlib.contextmanager
def _stopped_at_the_end(ray: Any, ours: bool) -> Iterator[None]:
    folder = str(Path(ray.__file__).parent)
    before = ray_processes(folder)
    try:
        yield
    finally:
        if not sys.is_finalizing():  # at interpreter exit, Ray's own hooks do it
            with uninterrupted():
                started = ray_processes(folder) - before
                with ends_at_once(lambda: kill(started)) if ours else contextlib.nullcontext():
                    ray.shutdown()
                kill_leftovers(started)


def _join(ray: Any, options: RayOptions, address: str) -> None:
    try:
        _check_port(address)
        ray.init(address=address, **_talking(options))
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"there is no Ray cluster to reach at {address!r} ({first_line(error)}): start one with `ray start --head`, "
            "or leave the address (and RAY_ADDRESS) out to have a local one started. If the cluster requires a token "
            "(one from `ray start` does if the user has a token), set RAY_AUTH_MODE=token in the environment"
        ) from error


def _start(ray: Any, options: RayOptions, dashboard: bool) -> None:
    memory = options.object_store_memory_gb
    folder = str(Path(ray.__file__).parent)
    before = ray_processes(folder)
    began = time.monotonic()
    while True:
        try:
            ray.init(
                address="local",
                num_cpus=options.num_cpus,
                num_gpus=options.num_gpus,
                object_store_memory=None if memory is None else int(memory * 2**30),
                include_dashboard=dashboard,
                **_talking(options),
            )
            return
        except Exception as error:  # Ray has no error class for a failed start; each step times out after half a minute
            ray.shutdown()
            started = ray_processes(folder) - before
            kill(started)  # they have no work, and would not end by themselves
            kill_leftovers(started)
            waited = time.monotonic() - began
            slow = "timed out during startup" in str(error)
            if not slow or waited >= options.start_timeout_s:
                raise _start_error(error, slow, waited) from error


def _start_error(error: Exception, slow: bool, waited: float) -> CuratorError:
    reason = f"a local Ray did not start: {first_line(error)}"
    if isinstance(error, ValueError):  # Ray rejects an option
        return UsageError(
            f"{reason}. Change the option of the executor, or take the local executor, which needs no Ray"
        )
    if slow:
        reason += f" It was given {waited:.0f} s: on such a busy machine give the executor a larger start_timeout_s"
    return CuratorError(
        f"{reason.rstrip('.')}. The logs of its processes are in the newest folder of "
        f"{os.environ.get('RAY_TMPDIR') or '/tmp/ray'}; the local executor needs no Ray"  # noqa: S108
    )


def _talking(options: RayOptions) -> dict[str, Any]:
    return {
        "log_to_driver": options.verbose,
        "logging_level": logging.INFO if options.verbose else logging.ERROR,
        "configure_logging": options.verbose,
    }


def _check_port(address: str) -> None:
    """Check that something listens at ``host:port``: Ray takes a minute and a half to notice that nothing does."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return  # ``auto`` or the address of a Ray client: Ray checks it
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PORT_SECONDS):
        pass


def describe_cluster(options: RayOptions, *, ours: bool, minimal: bool = False) -> Cluster:
    """The cluster that this process is connected to."""
    ray = import_ray()
    nodes = []
    for entry in ray.nodes():
        if not entry["Alive"]:
            continue
        resources = entry["Resources"]
        nodes.append(
            Node(
                node_id=entry["NodeID"],
                is_head="node:__internal_head__" in resources,
                cpus=float(resources.get("CPU", 0.0)),
                gpus=float(resources.get("GPU", 0.0)),
                memory_gb=resources.get("memory", 0.0) / 2**30,
            )
        )
    avoid = None
    if options.ignore_head_node:
        head = [node for node in nodes if node.is_head]
        nodes = [node for node in nodes if not node.is_head]
        if not nodes:
            raise PlanError(
                "ignore_head_node keeps workers off the head node, but the cluster has no other node: add worker nodes, "
                "or leave the option out"
            )
        avoid = head[0].node_id if head else None
    name = "a local Ray" if ours else "the Ray cluster"
    if len(nodes) > 1:
        name = f"{name} of {len(nodes)} nodes"
    gpus = sum(node.gpus for node in nodes)
    memories: tuple[float, ...] = ()
    if gpus and options.gpu_memory_gb is None:
        memories = _gpu_memories(ray, avoid)
    # Ray may place a worker on any GPU with room, so a worker can count only on the memory of the smallest GPU.
    memory = options.gpu_memory_gb if gpus and options.gpu_memory_gb else min(memories, default=None)
    dashboard = not minimal and _has_dashboard()
    return Cluster(tuple(nodes), ours, name, avoid, memory, minimal, memories, dashboard)


def _has_dashboard() -> bool:
    """Whether the connected cluster has a dashboard; Ray's own calls wait 40 seconds for one."""
    try:
        from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
        from ray.experimental.internal_kv import _internal_kv_get
    except ImportError:  # another Ray version stores the address elsewhere
        return True
    return _internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD) is not None


def _gpu_memories(ray: Any, avoid: str | None) -> tuple[float, ...]:
    """The memory of each GPU of the cluster in GB, measured on its node; empty where GPUs are simulated."""

    @ray.remote(num_cpus=0, max_retries=1)
    def memories() -> tuple[float, ...]:
        from curator_core.model.machine import this_machine

        return this_machine().gpu_memories

    found = []
    for entry in ray.nodes():
        if entry["Alive"] and entry["Resources"].get("GPU") and entry["NodeID"] != avoid:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
            found.append(memories.options(scheduling_strategy=strategy).remote())
    ready, _ = ray.wait(found, num_returns=len(found), timeout=60.0)
    return tuple(sorted(size for sizes in ray.get(ready) for size in sizes))
