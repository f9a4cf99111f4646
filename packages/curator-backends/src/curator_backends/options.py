"""The typed, documented options of the executors; an unknown option is an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curator_core.errors import UsageError, check_whole, nearest


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Options of both executors.

    ``address``: the cluster to use (``auto`` for the one on this machine); without it, and without ``RAY_ADDRESS`` in
    the environment, a local cluster is started, and stopped at the end. ``num_cpus``, ``num_gpus``,
    ``object_store_memory_gb`` and ``dashboard`` are for a cluster that we start; ``start_timeout_s`` limits the time
    for attempts to start it. ``ignore_head_node`` keeps workers off the head node. ``gpu_memory_gb`` is the memory of a
    GPU where it cannot be measured. ``verbose`` lets the engines write to the terminal. ``max_worker_deaths``: how many
    workers a task may kill before the error policy decides about it. ``stall_timeout_s``: how long a run may make no
    progress, with no worker busy, before it ends with an error. Time in which other jobs hold the resources that a
    worker needs does not count; a run waits ``wait_for_resources_s`` for these, by default without limit.
    """

    address: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    object_store_memory_gb: float | None = None
    dashboard: bool = False
    ignore_head_node: bool = False
    gpu_memory_gb: float | None = None
    verbose: bool = False
    max_worker_deaths: int = 3
    stall_timeout_s: float = 300.0
    start_timeout_s: float = 90.0
    wait_for_resources_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus", "object_store_memory_gb"):
            value = getattr(self, name)
            if value is not None and (not _is_number(value) or value < 0 or (name != "num_gpus" and value == 0)):
                raise UsageError(f"{name} must be a number above zero, not {value!r}")
        for name in ("dashboard", "ignore_head_node", "verbose"):
            self.check_flag(name)
        self.check_whole("max_worker_deaths", least=1)
        self.check_positive("stall_timeout_s")
        self.check_positive("start_timeout_s")
        self.check_positive("wait_for_resources_s", optional=True)
        self.check_positive("gpu_memory_gb", optional=True)
        if self.address is not None and not isinstance(self.address, str):
            raise UsageError(f"address must be text such as 'auto' or 'host:6379', not {self.address!r}")
        if self.address is not None:
            for name in ("num_cpus", "num_gpus", "object_store_memory_gb"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{name}={getattr(self, name)!r} is for a local cluster, but address={self.address!r} names "
                        "an existing one: leave one of them out"
                    )

    def check_flag(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            raise UsageError(f"{name} must be true or false, not {getattr(self, name)!r}")

    def check_whole(self, name: str, *, least: int, optional: bool = False) -> None:
        check_whole(name, getattr(self, name), least=least, optional=optional)

    def check_positive(self, name: str, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if not _is_number(value) or not 0 < value < float("inf"):
            raise UsageError(f"{name} must be a number above zero, not {value!r}")


def parse_options[Options: RayOptions](kind: type[Options], executor: str, config: Mapping[str, Any] | None) -> Options:
    """Make options from a mapping, such as one from a pipeline file."""
    given = dict(config or {})
    known = [field.name for field in dataclasses.fields(kind)]
    for key in given:
        if key not in known:
            raise UsageError(
                f"{executor} has no option {key!r}{nearest(str(key), known) or '.'} It takes: {', '.join(known)}"
            )
    return kind(**given)


def parse_spec(stage: str, executor: str, spec: Mapping[str, Any], known: type[Any]) -> dict[str, Any]:
    """A stage's settings for an engine, with their keys checked against the enum ``known``."""
    names = [str(key) for key in known]
    for key in spec:
        if str(key) not in names:
            raise UsageError(
                f"stage {stage!r} names {str(key)!r} for {executor}, which it does not know"
                f"{nearest(str(key), names) or '.'} It knows: {', '.join(names)}"
            )
    return {str(key): value for key, value in spec.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
