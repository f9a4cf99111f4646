"""Which metrics does a run export to a monitoring system, and how are they written in Prometheus's text format?

The names are documented in docs/metrics.md; the dashboard uses no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric and its meaning. All metrics have the labels ``run`` and ``step``; ``labels`` are the others."""

    kind: Literal["gauge", "counter"]
    says: str
    labels: tuple[str, ...] = ()


COMMON = ("run", "step")
METRICS: Mapping[str, Metric] = {
    "curator_run_state": Metric(
        "gauge", "1 for the state that the run is in: starting, running, done, quarantined or failed.", ("state",)
    ),
    "curator_run_seconds": Metric("gauge", "Seconds since the run began."),
    "curator_run_updated_timestamp_seconds": Metric("gauge", "When these numbers were read, in Unix time."),
    "curator_sources_expected": Metric("gauge", "Number of sources; absent while it is unknown."),
    "curator_sources_done": Metric("gauge", "Sources that need no more work, those of earlier attempts included."),
    "curator_sources_skipped": Metric("gauge", "Sources that an earlier attempt has finished."),
    "curator_sources_in_flight": Metric("gauge", "Sources that workers have started but not finished."),
    "curator_workers": Metric("gauge", "Workers that are set up."),
    "curator_stage_rows_in_total": Metric("counter", "Rows in the input of a stage.", ("stage",)),
    "curator_stage_rows_out_total": Metric("counter", "Rows in the output of a stage.", ("stage",)),
    "curator_stage_rows_dropped_total": Metric("counter", "Rows that a stage dropped.", ("stage", "reason")),
    "curator_stage_rows_rejected_total": Metric(
        "counter", "Rows that a stage set aside because they could not be read or used.", ("stage", "reason")
    ),
    "curator_stage_rows_quarantined_total": Metric(
        "counter", "Rows that were set aside because a stage raised an error.", ("stage",)
    ),
    "curator_stage_rows_waiting": Metric(
        "gauge", "Rows that the previous stage has passed on and this one has not reported.", ("stage",)
    ),
    "curator_stage_calls_total": Metric("counter", "Number of calls of a stage.", ("stage",)),
    "curator_stage_worker_seconds_total": Metric("counter", "Seconds that workers spent in a stage.", ("stage",)),
    "curator_machine_memory_used_bytes": Metric("gauge", "Memory in use on the driver's machine."),
    "curator_machine_memory_bytes": Metric("gauge", "Memory of the driver's machine, or of its container."),
    "curator_machine_gpu_busy_ratio": Metric("gauge", "Load of a GPU of the driver's machine, from 0 to 1.", ("gpu",)),
}


@dataclass(frozen=True)
class MetricSample:
    """The value of one metric with these labels."""

    name: str
    labels: Mapping[str, str]
    value: float


def text_format(samples: Iterable[MetricSample]) -> str:
    """The samples in Prometheus's text format, version 0.0.4; the samples of a metric are adjacent, in the order of
    `METRICS`.
    """
    by_name: dict[str, list[MetricSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines = []
    for name, metric in METRICS.items():
        found = by_name.get(name)
        if not found:
            continue
        lines += [f"# HELP {name} {metric.says}", f"# TYPE {name} {metric.kind}"]
        for sample in found:
            labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels.items())
            lines.append(f"{name}{{{labels}}} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    # A file name that is not UTF-8 arrives as lone surrogates, which the format cannot hold.
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
