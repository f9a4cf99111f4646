"""Makes Xenna faster: leaves out services that a local Ray does not need, and balances workers sooner.

It leaves out the monitor on each node and the list of actors from Ray's dashboard. Both serve status reports and
metrics that only ``verbose`` shows; they cost an actor and the ten processes of the dashboard. Attributes of Xenna are
replaced by name; a version with other names gets the dashboard (see `needs_dashboard`). This module imports Xenna, so
it is imported when a run starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ray
from cosmos_xenna.pipelines.private import monitoring, resources, streaming
from cosmos_xenna.utils import timing

from curator_backends.minimal import replaced

_NAMES = ("RayResourceMonitor", "get_ray_actors")


def needs_dashboard() -> bool:
    """Whether this Xenna lacks one of the attributes that are replaced here."""
    return not all(name in vars(monitoring) for name in _NAMES)


@contextlib.contextmanager
def no_services(minimal: bool, dashboard: bool) -> Iterator[None]:
    """For the length of a ``with`` block, pipelines work without a ``dashboard``, and on a ``minimal`` Ray they measure
    no node.
    """
    changes: list[tuple[Any, str, Any]] = [(monitoring, _NAMES[1], _ActorsIfListed(minimal or not dashboard))]
    if minimal:
        changes.append((monitoring, _NAMES[0], _NoMonitor))
        changes.append((resources, "_get_node_info_from_current_node", _AskedHere(resources)))
    with replaced(*changes):
        yield


@contextlib.contextmanager
def balanced_when_there_is_news(news: Callable[[], int]) -> Iterator[None]:
    """Let Xenna balance its workers whenever the number from ``news`` has increased, and not only at its interval.

    Otherwise a slow stage keeps its initial number of workers for three minutes, although its rate is known, and the
    CPUs of a finished reader stay idle, in a short run until its end.
    """

    class OrAtNews(timing.RateLimitChecker):
        seen = 0

        def can_call(self, check_only: bool = False) -> bool:
            count = news()
            due = bool(super().can_call(check_only))
            more = count > self.seen
            if not check_only:
                self.seen = count
            return due or more

    with replaced((streaming, "timing", SimpleNamespace(**{**vars(timing), "RateLimitChecker": OrAtNews}))):
        yield


class _ActorsIfListed:
    """Lists the actors of a cluster as Xenna does, or none if listing fails.

    Xenna shows the list only in its status reports, but a dashboard that is missing, or that cannot list actors, would
    end the run. Ray waits 40 seconds for a missing dashboard.
    """

    def __init__(self, missing: bool) -> None:
        self._list: Callable[..., list[Any]] | None = None if missing else vars(monitoring).get(_NAMES[1])

    def __call__(self, *arguments: Any) -> list[Any]:
        if self._list is not None:
            try:
                return self._list(*arguments)
            except Exception:  # any error; none of them concerns the run
                self._list = None
        return []


class _AskedHere:
    """Stands in for the Ray task that measures a node's resources, if that node is this machine.

    The task would occupy one of the workers that Ray has started, so Ray would start another one for a stage, with all
    its imports.
    """

    def __init__(self, module: Any) -> None:
        self._ask = getattr(vars(module).get("_get_node_info_from_current_node"), "_function", None)

    def options(self, **_: Any) -> _AskedHere:
        return self

    def remote(self) -> Any:
        assert self._ask is not None, "Xenna asks with a Ray task"
        return ray.put(self._ask())


class _NoMonitor:
    """An empty measurement."""

    def update(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        pass
