"""The Ray cluster of a run: one that is there is used and left alone, one that we start is stopped again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_backends.lean import few_processes
from curator_backends.options import RayOptions
from curator_core.errors import MissingDependency, PlanError, UsageError
from curator_core.model.machine import Machine

# Read by Ray when its processes start. Set for a cluster that we start, while it starts, and never otherwise.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Read by Ray when it is imported. The raylet prints the death of every worker on the driver's terminal, whatever the log
# settings; the run counts them and says what came of it.
_IMPORT = {"RAY_DEDUP_LOGS_SKIP_REGEX": r"A worker died or was killed|retries remaining, so the task will be retried"}
# Ray gives a node half a minute to start, which is little on a machine that has other things to do.
_START_ATTEMPTS = 3
# How long processes of a Ray that was stopped may take to end by themselves.
_GONE_SECONDS = 5.0
_KNOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as far as planning goes."""

    node_id: str
    is_head: bool
    cpus: float
    gpus: float
    memory_gb: float


@dataclass(frozen=True)
class Cluster:
    """The nodes that workers may use. A ``lean`` one was started here, with nobody to look at its dashboard."""

    nodes: tuple[Node, ...]
    ours: bool
    name: str
    avoid_node: str | None = None
    gpu_memory_gb: float | None = None
    lean: bool = False

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    def machine(self) -> Machine:
        """The cluster as the plan sees it: what all nodes have together."""
        return Machine(
            cpus=self.cpus,
            memory_gb=sum(node.memory_gb for node in self.nodes),
            gpus=self.gpus,
            gpu_memory_gb=self.gpu_memory_gb,
            name=self.name,
        )


def import_ray(extra: str = "ray") -> Any:
    """Ray, or the command that installs it."""
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
    options: RayOptions, *, extra_environment: Mapping[str, str] | None = None, dashboard: bool = False
) -> Iterator[Cluster]:
    """A cluster for the length of a ``with`` block.

    An existing connection is used as it is. An address is connected to and disconnected from. Otherwise a local cluster
    is started, with ``extra_environment`` set while it starts, and stopped at the end, whatever happens in between.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield look(options, ours=False)
        return
    address = options.address or os.environ.get("RAY_ADDRESS")
    ours = address is None or address == "local"
    lean = ours and not (dashboard or options.dashboard or options.verbose)
    handler = _sigterm_handler()
    try:
        with (
            _quiet(ours and not options.verbose, options.verbose),
            environment(extra_environment if ours else None),
            _own_path(ours),
            few_processes(lean),
        ):
            _start(ray, options, None if ours else address, dashboard or options.dashboard)
        yield look(options, ours=ours, lean=lean)
    finally:
        if not sys.is_finalizing():  # Ray has hooks of its own for that
            with uninterrupted():
                started = _processes_of_session(ray) if ours else set()
                ray.shutdown()
                _see_off(started)
            _restore_sigterm(handler)


def _start(ray: Any, options: RayOptions, address: str | None, dashboard: bool) -> None:
    common: dict[str, Any] = {
        "log_to_driver": options.verbose,
        "logging_level": logging.INFO if options.verbose else logging.ERROR,
        "configure_logging": options.verbose,
    }
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **common)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"there is no Ray cluster to reach at {address!r} ({error}): start one with `ray start --head`, or "
                "leave the address (and RAY_ADDRESS) out to have a local one started. A cluster that asks for a token "
                "(`ray start` does where the user has one) is reached with RAY_AUTH_MODE=token in the environment"
            ) from error
        return
    memory = options.object_store_memory_gb
    for attempt in range(_START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=options.num_cpus,
                num_gpus=options.num_gpus,
                object_store_memory=None if memory is None else int(memory * 2**30),
                include_dashboard=dashboard,
                **common,
            )
        except Exception as error:  # Ray has no type for this one
            if "timed out during startup" not in str(error) or attempt == _START_ATTEMPTS - 1:
                raise
            ray.shutdown()
        else:
            return


def _knock(address: str) -> None:
    """See that somebody listens at ``host:port``: Ray takes a minute and a half to find that nobody does."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return  # auto, or a Ray client's: Ray knows what to do
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
        pass


def look(options: RayOptions, *, ours: bool, lean: bool = False) -> Cluster:
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
    memory = None
    if gpus:
        memory = options.gpu_memory_gb or _gpu_memory(ray, avoid)
    return Cluster(tuple(nodes), ours, name, avoid, memory, lean)


def _gpu_memory(ray: Any, avoid: str | None) -> float | None:
    """GB of the smallest GPU of the cluster, asked where the GPUs are; None where they are not real."""

    @ray.remote(num_cpus=0, max_retries=1)
    def smallest() -> float | None:
        from curator_core.model.machine import this_machine

        return this_machine().gpu_memory_gb

    found = []
    for entry in ray.nodes():
        if entry["Alive"] and entry["Resources"].get("GPU") and entry["NodeID"] != avoid:
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
            found.append(smallest.options(scheduling_strategy=strategy).remote())
    ready, _ = ray.wait(found, num_returns=len(found), timeout=60.0)
    sizes = [size for size in ray.get(ready) if size]
    return min(sizes) if sizes else None


def _processes_of_session(ray: Any) -> set[tuple[int, str]]:
    """The processes below this one that belong to the Ray that we started, each with its time of birth."""
    with contextlib.suppress(Exception):  # a Ray that is half there is stopped all the same
        session = ray.get_runtime_context().get_session_name().encode()
        parents, births = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended since
                fields = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                parents[pid], births[pid] = int(fields[1]), fields[19]
        ours = {pid for pid, parent in parents.items() if parent == os.getpid() and session in _command(pid)}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return {(pid, births[pid]) for pid in ours}
    return set()


def _see_off(processes: set[tuple[int, str]]) -> None:
    """Wait until processes are gone: workers outlive their raylet by the moment that it takes them to notice."""
    left = _outlive(processes)
    for pid, _ in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _outlive(left)


def _outlive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those that are still there after a while; returns at once when none is."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (processes := {process for process in processes if _lives(*process)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended since
        return b""


def _lives(pid: int, birth: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and fields[19] == birth


@contextlib.contextmanager
def environment(values: Mapping[str, str] | None) -> Iterator[None]:
    """Environment variables for the length of a ``with`` block; a value that the user has set wins."""
    before = {name: os.environ.get(name) for name in values or {}}
    for name, value in (values or {}).items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = earlier


@contextlib.contextmanager
def _own_path(start: bool) -> Iterator[None]:
    """Workers of a cluster that we start import from where the driver does; Ray tells them of its script's folder only."""
    if not start:
        yield
        return
    own = [
        str(Path(entry or ".").resolve()) for entry in sys.path if not entry.startswith((sys.prefix, sys.base_prefix))
    ]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*own, *(before or "").split(os.pathsep)])).strip(
        os.pathsep
    )
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _quiet(start: bool, verbose: bool) -> Iterator[None]:
    if verbose:
        yield
        return
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with environment({**(_QUIET if start else {}), "RAY_BACKEND_LOG_LEVEL": "fatal"}), _no_stderr():
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Cleaning up is not cut short by a second Ctrl-C; it is heard afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None or sys.is_finalizing():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's native code announces on stderr that its log level was set. What fails is raised, and still heard."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr to be quiet on
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _sigterm_handler() -> Any:
    # ray.init puts its own handler in place of the program's.
    return signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None


def _restore_sigterm(handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
