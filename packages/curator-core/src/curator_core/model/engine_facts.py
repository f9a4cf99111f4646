"""What do stages and engines say about themselves to each other? Plain names and values, which need no engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RayStageSpecKeys(StrEnum):
    """The facts about a stage that the Ray Data executor understands; it rejects any other key."""

    IS_FANOUT_STAGE = "is_fanout_stage"
    IS_ACTOR_STAGE = "is_actor_stage"
    MIN_WORKERS = "min_workers"
    MAX_WORKERS = "max_workers"
    INITIAL_WORKERS = "initial_workers"
    MAX_CALLS_PER_WORKER = "max_calls_per_worker"
    RAY_NUM_CPUS = "ray_num_cpus"
    RAY_REMOTE_ARGS = "ray_remote_args"
    RUNTIME_ENV = "runtime_env"


class XennaStageSpecKeys(StrEnum):
    """The facts about a stage that the Xenna executor understands; it rejects any other key."""

    NUM_WORKERS_PER_NODE = "num_workers_per_node"
    NUM_SETUP_ATTEMPTS = "num_setup_attempts"
    NUM_RUN_ATTEMPTS = "num_run_attempts"
    SLOTS_PER_ACTOR = "slots_per_actor"
    WORKER_MAX_LIFETIME_M = "worker_max_lifetime_m"
    WORKER_RESTART_INTERVAL_M = "worker_restart_interval_m"
    MAX_SETUP_FAILURE_PERCENTAGE = "max_setup_failure_percentage"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The machine that a worker is on."""

    node_id: str = "local"


@dataclass(frozen=True, slots=True)
class WorkerMetadata:
    """The worker that a stage is set up in."""

    worker_id: str = "local-0"
    gpu_ids: tuple[int, ...] = ()
