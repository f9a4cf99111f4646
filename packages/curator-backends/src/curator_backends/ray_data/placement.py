"""Decides, before anything starts, how each group runs on Ray Data: as tasks or actors, how many, with which CPUs and
GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from curator_backends.cluster import Cluster
from curator_backends.options import parse_spec
from curator_core.errors import PlanError
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.planning.plan import Group

Mode = Literal["actor", "task"]

# How many workers of a pool start at once if there is room for them. Ray Data requests a second worker only when the
# first is ready and overloaded, and its start (importing torch takes 15 s) then takes CPU time from the work. The
# number is limited because each worker may hold a model, and a small run should not fill a large machine.
FIRST_WORKERS = 8

# Keys that `ray_remote_args` must not contain: each has a key or attribute of its own, and the two could disagree.
MANAGED = ("compute", "concurrency", "max_calls", "num_cpus", "num_gpus", "runtime_env")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The settings that Ray Data gets for one group."""

    mode: Mode
    num_cpus: float
    num_gpus: float = 0.0
    min_workers: int | None = None
    max_workers: int | None = None
    initial_workers: int | None = None
    max_calls: int | None = None
    batch_size: int | None = None
    remote_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        return self.min_workers is not None and self.min_workers == self.max_workers


def describe_group(group: Group, gpu_memory_gb: float | None, card: str = "a GPU") -> tuple[Placement, list[str]]:
    """The group's requests, checked but not yet fitted to a cluster, and warnings about them."""
    warnings: list[str] = []
    spec = _spec(group)
    mode = _mode(group, spec)
    keys = RayStageSpecKeys
    sizes = {key: spec.get(key) for key in (keys.MIN_WORKERS, keys.MAX_WORKERS, keys.INITIAL_WORKERS)}
    given = [str(key) for key, value in sizes.items() if value is not None]
    for key in (*sizes, keys.MAX_CALLS_PER_WORKER):
        value = spec.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise PlanError(f"stage {group.name!r}: {key} must be a whole number of 1 or more, not {value!r}")
    if given and mode == "task":
        raise PlanError(
            f"stage {group.name!r} gives {', '.join(given)}, which size a pool of actors, but it runs as Ray tasks: "
            "add is_actor_stage=True, or leave them out"
        )
    if given and group.num_workers is not None:
        raise PlanError(
            f"stage {group.name!r} asks for num_workers={group.num_workers} and gives {', '.join(given)}: "
            "keep one of them"
        )
    low, high, first = sizes[keys.MIN_WORKERS], sizes[keys.MAX_WORKERS], sizes[keys.INITIAL_WORKERS]
    if (low or 1) > (high or float("inf")) or not (low or 1) <= (first or low or 1) <= (high or float("inf")):
        raise PlanError(
            f"stage {group.name!r}: min_workers={low}, initial_workers={first}, max_workers={high} must rise in this order"
        )
    calls = spec.get(keys.MAX_CALLS_PER_WORKER)
    if calls is not None and mode == "actor":
        raise PlanError(
            f"stage {group.name!r} gives max_calls_per_worker, which Ray honours for tasks only, but it runs as an actor "
            "(it has a setup, a teardown, a GPU or is_actor_stage): leave it out, or make the stage stateless"
        )
    batch = max((planned.stage.batch_size or 0) for planned in group.stages)
    if group.resources.requires_gpu and not any(_names_batch_size(planned.stage) for planned in group.stages):
        warnings.append(f"{group.name}: uses a GPU and names no batch_size; it gets 1 task at a time")
    cpus = spec.get(keys.RAY_NUM_CPUS, group.resources.cpus)
    if isinstance(cpus, bool) or not isinstance(cpus, (int, float)) or cpus < 0:
        raise PlanError(f"stage {group.name!r}: ray_num_cpus must be a number of zero or more, not {cpus!r}")
    workers = group.num_workers
    placement = Placement(
        mode=mode,
        num_cpus=float(cpus),
        num_gpus=_gpus(group, gpu_memory_gb, card),
        min_workers=workers if workers is not None else low,
        max_workers=workers if workers is not None else high,
        initial_workers=first,
        max_calls=calls,
        # None keeps a block whole. Ray Data requires a number if the group uses a GPU; and where calls are counted,
        # each call is a block.
        batch_size=batch if batch > 1 else 1 if calls is not None or group.resources.requires_gpu else None,
        remote_args=_remote_args(group, spec),
    )
    return placement, warnings


def _names_batch_size(stage: ProcessingStage[Any, Any]) -> bool:
    """Whether the stage, its class, or `with_` sets how many tasks the stage takes at a time."""
    named = next(kind for kind in type(stage).__mro__ if "batch_size" in vars(kind))
    return bool(stage.batch_size) and ("batch_size" in vars(stage) or named is not ProcessingStage)


def place(groups: Sequence[Group], cluster: Cluster) -> tuple[list[Placement], list[str]]:
    """Fit the groups of a segment to a cluster, so that none can keep another from ever starting.

    All groups have workers at the same time. Actors keep their CPUs to the end, so their number is limited to leave
    room for at least one task of the groups that run as tasks.
    """
    decisions: list[str] = []
    places = []
    for group in groups:
        placement, warnings = describe_group(group, cluster.gpu_memory_gb, cluster.machine().gpu_card)
        decisions += warnings
        places.append(placement)
    places = _fit_cpus(groups, places, cluster, decisions)
    places = _fit_gpus(groups, places, cluster)
    places = _limit_growth(places, cluster)
    if cluster.avoid_node is not None:
        places = [_away_from(placement, cluster.avoid_node) for placement in places]
    return places, decisions


def start_no_more(places: Sequence[Placement], groups: Sequence[Group], sources: int) -> list[Placement]:
    """The same placements, with no more workers at the start than there are sources.

    A pool after a fan-out is not changed, because the number of its tasks is unknown; nor is a number that the stage
    requests.
    """
    fewer = []
    countable = True
    for group, placement in zip(groups, places, strict=True):
        first = placement.initial_workers
        asked = RayStageSpecKeys.INITIAL_WORKERS in _spec(group)
        if countable and first is not None and not placement.num_gpus and not asked:
            first = max(_least(placement), min(first, sources))
        fewer.append(replace(placement, initial_workers=first))
        countable = countable and not group.is_fanout
    return fewer


def _spec(group: Group) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for planned in group.stages:
        merged.update(parse_spec(planned.name, "Ray Data", planned.stage.ray_stage_spec(), RayStageSpecKeys))
    return merged


def _mode(group: Group, spec: Mapping[str, Any]) -> Mode:
    facts = [planned.stage.ray_stage_spec().get(RayStageSpecKeys.IS_ACTOR_STAGE) for planned in group.stages]
    for fact in facts:
        if fact is not None and not isinstance(fact, bool):
            raise PlanError(f"stage {group.name!r}: is_actor_stage must be true or false, not {fact!r}")
    fanout = spec.get(RayStageSpecKeys.IS_FANOUT_STAGE)
    if fanout is not None and not isinstance(fanout, bool):
        raise PlanError(f"stage {group.name!r}: is_fanout_stage must be true or false, not {fanout!r}")
    # A stage that was set up must be torn down, and a Ray task gives no notice of its end.
    torn_down = any(
        fact is None and overrides(planned.stage, "teardown") for planned, fact in zip(group.stages, facts, strict=True)
    )
    return "actor" if group.keeps_state or torn_down else "task"


def _remote_args(group: Group, spec: Mapping[str, Any]) -> dict[str, Any]:
    arguments = spec.get(RayStageSpecKeys.RAY_REMOTE_ARGS) or {}
    if not isinstance(arguments, Mapping):
        raise PlanError(f"stage {group.name!r}: ray_remote_args must be a mapping, not {arguments!r}")
    taken = [key for key in arguments if key in MANAGED]
    if taken:
        raise PlanError(
            f"stage {group.name!r}: ray_remote_args must not name {', '.join(taken)}: set resources, num_workers, "
            "max_calls_per_worker and runtime_env on the stage instead"
        )
    arguments = dict(arguments)
    environment = spec.get(RayStageSpecKeys.RUNTIME_ENV)
    if environment and group.runtime_env and dict(environment) != group.runtime_env:
        raise PlanError(
            f"stage {group.name!r} has one runtime_env as an attribute and another in its ray_stage_spec(): keep one"
        )
    if environment or group.runtime_env:
        arguments["runtime_env"] = dict(environment or group.runtime_env or {})
    return arguments


def _gpus(group: Group, gpu_memory_gb: float | None, card: str) -> float:
    need = group.resources
    if not need.requires_gpu:
        return 0.0
    if need.gpus > 1 and need.gpus != int(need.gpus):
        raise PlanError(f"stage {group.name!r} asks for gpus={need.gpus:g}: above one, GPUs come in whole numbers only")
    if need.gpu_memory_gb and gpu_memory_gb is None:
        raise PlanError(
            f"stage {group.name!r} asks for gpu_memory_gb={need.gpu_memory_gb:g}, but the memory of the cluster's GPUs is "
            "not known: ask with gpus=… for a share of a GPU, or for whole ones"
        )
    try:
        return need.gpu_share(gpu_memory_gb or 0.0, card)
    except PlanError as error:
        raise PlanError(f"stage {group.name!r}: {error}") from None


def _least(placement: Placement) -> int:
    """The number of workers that run from start to end."""
    return (placement.min_workers or 1) if placement.mode == "actor" else 0


def _fit_cpus(
    groups: Sequence[Group], places: list[Placement], cluster: Cluster, decisions: list[str]
) -> list[Placement]:
    largest = max((node.cpus for node in cluster.nodes), default=0.0)
    for index, (group, placement) in enumerate(zip(groups, places, strict=True)):
        if placement.num_cpus > largest:
            decisions.append(
                f"{group.name}: asks for {placement.num_cpus:g} CPUs a worker, the largest node has {largest:g}; "
                f"it gets {largest:g}"
            )
            places[index] = replace(placement, num_cpus=largest)
    held = sum(placement.num_cpus * _least(placement) for placement in places)
    task = _room_for_a_task(places, cluster)
    if held + task > cluster.cpus + 1e-9:
        factor = cluster.cpus / (held + task)
        decisions.append(
            f"{len(groups)} groups ask for {held + task:g} CPUs at once, {cluster.name} has {cluster.cpus:g}: "
            f"CPU requests scaled by {factor:.3g}"
        )
        places = [replace(p, num_cpus=int(p.num_cpus * factor * 1000) / 1000) for p in places]
    return places


def _fit_gpus(groups: Sequence[Group], places: list[Placement], cluster: Cluster) -> list[Placement]:
    users = [index for index, placement in enumerate(places) if placement.num_gpus]
    if not users:
        return places
    largest = max(node.gpus for node in cluster.nodes)
    for index in users:
        if places[index].num_gpus > largest:
            raise PlanError(
                f"stage {groups[index].name!r} asks for {places[index].num_gpus:g} GPUs a worker, but the node of "
                f"{cluster.name} with the most has {largest:g}"
            )
    held = sum(places[index].num_gpus * _least(places[index]) for index in users)
    if held > cluster.gpus + 1e-9:
        names = " and ".join(repr(groups[index].name) for index in users)
        raise PlanError(
            f"stages {names} hold {held:g} GPUs at once, but {cluster.name} has {cluster.gpus:g}: ask for a share with "
            "gpu_memory_gb=…, or put the stages next to one another so that they share a worker"
        )
    spare = (cluster.gpus - held) / len(users)
    for index in users:
        placement = places[index]
        if placement.mode == "actor" and placement.max_workers is None:
            most = _least(placement) + int((spare + 1e-9) / placement.num_gpus)
            # GPU workers are slow to start, and idle GPUs cost money, so all of them start at once unless the stage
            # says otherwise.
            first = placement.initial_workers or most
            places[index] = replace(placement, max_workers=most, initial_workers=first)
    return places


def _limit_growth(places: list[Placement], cluster: Cluster) -> list[Placement]:
    places = _room_for_two(places, cluster)
    held = sum(placement.num_cpus * _least(placement) for placement in places)
    growing = [index for index, placement in enumerate(places) if _grows(placement)]
    if not growing:
        return places
    task = _room_for_a_task(places, cluster)
    spare = max(0.0, cluster.cpus - held - task)
    # If some groups run as tasks, all pools together must leave room for one task. Otherwise, each pool keeps at least
    # its first workers, and a pool may use CPUs that another leaves free.
    share = spare / len(growing)
    each = share if task else spare
    # On several nodes, free CPUs may be scattered, and other jobs may hold some. If pools started at full size, nothing
    # might be left for another pool's first worker, or for a task.
    at_once = cluster.ours and len(cluster.nodes) == 1
    for index in growing:
        placement = places[index]
        most = _least(placement) + int((each + 1e-9) / placement.num_cpus)
        if placement.max_workers is not None:
            most = max(_least(placement), min(most, placement.max_workers))
        first = placement.initial_workers
        if first is None and at_once:
            # Start no more than the pool's share: a pool that waits for its first worker holds up all groups before it.
            room = _least(placement) + int((share + 1e-9) / placement.num_cpus)
            first = max(_least(placement), min(FIRST_WORKERS, room))
        places[index] = replace(placement, max_workers=most, initial_workers=first and min(first, most))
    return places


def _room_for_two(places: list[Placement], cluster: Cluster) -> list[Placement]:
    """On a small machine, request less CPU for each worker, so that a pool can have a second worker while another pool
    is idle.
    """
    if len(places) > cluster.cpus:
        return places  # there are already more groups than CPUs
    wanted = _room_for_a_task(places, cluster)
    for placement in places:
        workers = _least(placement)
        if _grows(placement) and placement.max_workers != workers:
            workers = max(workers, min(2, int(cluster.cpus // placement.num_cpus)))
        wanted += placement.num_cpus * workers
    factor = cluster.cpus / wanted if wanted else 1.0
    if not 0.5 <= factor < 1.0:
        return places
    return [replace(placement, num_cpus=int(placement.num_cpus * factor * 1000) / 1000) for placement in places]


def _grows(placement: Placement) -> bool:
    return placement.mode == "actor" and not placement.fixed and placement.num_cpus > 0


def _room_for_a_task(places: Sequence[Placement], cluster: Cluster) -> float:
    """The number of CPUs that actors must leave free so that a task fits on some node, wherever Ray places the actors.

    Free CPUs may be scattered: some node certainly has enough only if their sum is at least a task's CPUs times the
    number of nodes.
    """
    largest = max((placement.num_cpus for placement in places if placement.mode == "task"), default=0.0)
    return largest * max(1, sum(node.cpus > 0 for node in cluster.nodes))


def _away_from(placement: Placement, node_id: str) -> Placement:
    arguments = dict(placement.remote_args)
    selector = dict(arguments.get("label_selector") or {})
    selector.setdefault("ray.io/node-id", f"!{node_id}")
    return replace(placement, remote_args={**arguments, "label_selector": selector})
