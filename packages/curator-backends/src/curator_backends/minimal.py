"""Starts a local Ray without the processes that a run does not need, which would take CPU time while the run starts.

On two CPUs, Ray and its workers start as fast as Python processes import modules, so each process left out saves time.
The ones left out here serve the dashboard, the node autoscaler, usage statistics, the copying of logs to the driver's
terminal, and environments that no stage has requested yet. Attributes of Ray are replaced by name, in this process and
while Ray starts; a Ray version with other names starts more processes, and still works.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Ray's names for the two agents of a node.
_AGENTS = ("dashboard_agent", "runtime_env_agent")


@contextlib.contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes, given as (owner, name, value), for the length of a ``with`` block; those that do not exist are
    skipped.
    """
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in changes if name in vars(owner)]
    existing = {(id(owner), name) for owner, name, _ in before}
    for owner, name, value in changes:
        if (id(owner), name) in existing:
            setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def minimal_ray(minimal: bool, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside the ``with`` block, Ray starts with only a control store, a raylet and stand-ins for its two agents.
    ``meanwhile`` is called when the first process has been launched, while it starts up.
    """
    if not minimal:
        yield
        return
    from ray._private import node, services, utils

    with replaced(
        (services, "_build_python_executable_command_memory_profileable", _agent_command),
        (services, "start_gcs_server", _followed_by(getattr(services, "start_gcs_server", None), meanwhile)),
        (node.Node, "start_monitor", _nothing),  # the node autoscaler
        (node.Node, "start_log_monitor", _nothing),  # copies the logs of workers to the driver
        (node.Node, "start_api_server", _nothing),  # without a dashboard, it only sends usage statistics
        (
            utils,
            "get_dashboard_dependency_error",
            _not_wanted,
        ),  # the node's agent is part of the dashboard: this keeps it small
    ):
        yield


@contextlib.contextmanager
def ends_at_once(kill: Callable[[], None]) -> Iterator[None]:
    """Inside the ``with`` block, `ray.shutdown` calls ``kill`` as soon as the driver has disconnected, and does not
    wait for processes to end.

    Ray asks its node to end, the node asks its workers, and Ray polls them: this takes half a second in which no
    process has work left. Stages are torn down before that.
    """
    from ray._private import node

    original = getattr(node.Node, "kill_all_processes", None)

    def kill_all(self: Any, *_: Any, wait: bool = False, **__: Any) -> None:
        kill()
        assert original is not None  # this Ray version has no such attribute, so nothing was replaced
        original(self, check_alive=False, allow_graceful=False, wait=wait)

    with replaced((node.Node, "kill_all_processes", kill_all)):
        yield


class NullActor:
    """Stands in for an actor that is not started: it accepts calls and ignores them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pickle looks up special methods
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> None:
        return None


NULL_ACTOR = NullActor()


def _agent_command(component: str, *_: Any, **__: Any) -> list[str]:
    """The start of the command that runs one of Ray's Python processes; a node's two agents get a stand-in."""
    if component in _AGENTS:
        return [sys.executable, "-I", "-S", str(Path(__file__).with_name("node_agent.py"))]
    return [sys.executable, "-u"]


def _followed_by(call: Any, meanwhile: Callable[[], None]) -> Any:
    def both(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        meanwhile()
        return result

    return both


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _not_wanted() -> ImportError:
    return ImportError("not asked for")
