"""Publishes the numbers of a run as Ray metrics. The driver sets them, and each node's agent serves them to scrapers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from curator_core.accounts.metrics import COMMON, METRICS, MetricSample


class RayMetrics:
    """All metrics are gauges, even those that only grow: the numbers are totals, and a Ray counter takes differences."""

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}
        self._lock = threading.Lock()  # the timer thread and the run's thread may call at the same time

    def publish(self, samples: Sequence[MetricSample]) -> None:
        """Set each gauge to its value."""
        with self._lock:
            for sample in samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = self._gauges[sample.name] = _gauge(sample.name)
                # Ray rejects a tag without a value.
                gauge.set(sample.value, tags={name: value or "-" for name, value in sample.labels.items()})


def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge  # Ray is already loaded: the executor is connected to it

    metric = METRICS[name]
    return Gauge(name, description=metric.says, tag_keys=(*COMMON, *metric.labels))
