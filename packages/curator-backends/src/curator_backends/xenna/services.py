"""What Xenna does without on a local Ray of ours: the monitor on each node, and the list of actors that it takes from Ray's dashboard.

Both end in status reports and metrics that are shown with ``verbose`` alone, and cost the dashboard, which is ten processes, and
an actor. What is replaced goes by Xenna's own names; a version that has others gets the dashboard, as `needs_dashboard` says. This
module imports Xenna, so it is imported when a run starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from cosmos_xenna.pipelines.private import monitoring

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
    with replaced((monitoring, _NAMES[0], _NoMonitor), (monitoring, _NAMES[1], lambda *_: [])):
        yield


class _NoMonitor:
    """Has measured nothing."""

    def update(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        pass
