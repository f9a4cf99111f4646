"""Where Xenna's own ways cost a run time: what it does without on a local Ray of ours, and when it balances its workers.

It does without the monitor on each node and the list of actors that it takes from Ray's dashboard. Both end in status reports and
metrics that are shown with ``verbose`` alone, and cost the dashboard, which is ten processes, and an actor. What is replaced goes by
Xenna's own names; a version that has others gets the dashboard, as `needs_dashboard` says. This module imports Xenna, so it is
imported when a run starts.
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
    """Whether this Xenna asks for what cannot be taken from it."""
    return not all(name in vars(monitoring) for name in _NAMES)


@contextlib.contextmanager
def no_services(minimal: bool) -> Iterator[None]:
    """Pipelines run inside measure no node and ask for no list of actors, for the length of a ``with`` block."""
    if not minimal:
        yield
        return
    with replaced(
        (monitoring, _NAMES[0], _NoMonitor),
        (monitoring, _NAMES[1], lambda *_: []),
        (resources, "_get_node_info_from_current_node", _AskedHere(resources)),
    ):
        yield


@contextlib.contextmanager
def balanced_when_there_is_news(news: Callable[[], int]) -> Iterator[None]:
    """Xenna also balances its workers when ``news`` is more than it was, and not only when its interval is over.

    Otherwise a slow stage keeps the workers that it began with for three minutes although its rate is measured, and the CPUs
    of a reader that is through stay idle: in a short run, to its end.
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


class _AskedHere:
    """Stands in for the Ray task that asks a node what it has, where that node is this machine.

    The task would hold one of the workers that Ray has started, so that a further one, with all its imports, is started for a stage.
    """

    def __init__(self, module: Any) -> None:
        self._ask = getattr(vars(module).get("_get_node_info_from_current_node"), "_function", None)

    def options(self, **_: Any) -> _AskedHere:
        return self

    def remote(self) -> Any:
        assert self._ask is not None, "Xenna asks with a Ray task"
        return ray.put(self._ask())


class _NoMonitor:
    """Has measured nothing."""

    def update(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        pass
