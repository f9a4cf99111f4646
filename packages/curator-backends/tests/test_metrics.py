"""Ray accepts every metric of a run: its name, its labels, and labels without a value."""

from __future__ import annotations

import pytest

from curator_core.accounts.metrics import COMMON, METRICS, MetricSample

pytest.importorskip("ray")


def test_ray_accepts_every_metric_with_all_its_labels() -> None:
    from curator_backends.metrics import RayMetrics

    samples = [
        MetricSample(name, dict.fromkeys((*COMMON, *metric.labels), ""), 1.0) for name, metric in METRICS.items()
    ]
    metrics = RayMetrics()
    metrics.publish(samples)
    metrics.publish(samples)
    assert metrics._gauges.keys() == METRICS.keys()
    with pytest.raises(ValueError, match="step"):
        metrics.publish([MetricSample("curator_run_seconds", {"run": "a"}, 1.0)])
