"""Which OpenTelemetry spans does a run have? The run, its steps, and their stages with their counts.

They go to the tracer provider of the program if it has one, or else to the OTLP endpoint that the environment names.
Otherwise, or if the collector at the endpoint does not take them, they are written to ``spans.jsonl`` in the run
directory.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from curator_core import formatting, storage
from curator_core.errors import MissingDependency, UsageError
from curator_core.running.progress import RunProgress

SPANS = "spans.jsonl"
_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.25
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Spans:
    """The spans of one run. Stages work at the same time, so the span of a stage is from its first count to its last."""

    def __init__(self, name: str, run_dir: str | None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingDependency("metrics.spans needs OpenTelemetry: pip install 'curator-core[otel]'") from error
        self._trace = trace
        self._own: Any = None  # the provider, if it ends with the run
        self._kept: Any = None  # finished spans, if they are written to a file
        self._refused: list[Any] = []  # spans that the collector did not take
        self._run_dir = run_dir
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            provider = self._own = self._provider()
        self._tracer = provider.get_tracer("curator")
        self._run = self._tracer.start_span(f"run {name}", attributes={"curator.run": name})
        self._steps: dict[str, Any] = {}
        self._seen: dict[
            tuple[str, str], list[int]
        ] = {}  # the first time, the last time and the calls, by step and stage
        self._looked = float("-inf")

    def _provider(self) -> Any:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        except ImportError as error:
            raise MissingDependency("metrics.spans needs OpenTelemetry: pip install 'curator-core[otel]'") from error
        provider = TracerProvider(resource=Resource.create({"service.name": "curator"}), shutdown_on_exit=False)
        exporter = _otlp()
        if exporter is not None:
            self._refused = _keeping_refused(exporter)
            provider.add_span_processor(BatchSpanProcessor(exporter))
            return provider
        if self._run_dir is None:
            raise UsageError(
                "metrics.spans have nowhere to go: give the run a run_dir, where they are written to spans.jsonl, or set up "
                "an OpenTelemetry SDK"
            )
        self._kept = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        return provider

    def look(self, progress: RunProgress) -> None:
        """Process the state of a run; the work of stages is checked now and then, and at the end of a step."""
        if progress.step and progress.step_name not in self._steps:
            self._steps[progress.step_name] = self._tracer.start_span(
                f"step {progress.step_name}",
                context=self._trace.set_span_in_context(self._run),
                attributes={"curator.step": progress.step_name},
            )
        now = time.monotonic()
        if progress.going and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        at = time.time_ns()
        states = progress.stage_states()
        for state in states:
            calls = state.totals.calls
            seen = self._seen.get((progress.step_name, state.totals.name))
            if calls and seen is None:
                # The stage was working before its first count arrived.
                begun = max(0, at - int(state.totals.seconds / max(1, progress.workers or 1) * 1e9))
                self._seen[progress.step_name, state.totals.name] = [begun, at, calls]
            elif seen is not None and seen[2] != calls:
                seen[1:] = [at, calls]
        if not progress.going:
            self._end_step(progress, states, at)

    def _end_step(self, progress: RunProgress, states: Any, at: int) -> None:
        around = self._steps.get(progress.step_name, self._run)
        context = self._trace.set_span_in_context(around)
        earliest = around.start_time if hasattr(around, "start_time") else 0
        for state in states:
            totals = state.totals
            begun, ended, _ = self._seen.pop((progress.step_name, totals.name), [at, at, 0])
            span = self._tracer.start_span(
                f"stage {totals.name}",
                context=context,
                start_time=max(begun, earliest),
                attributes={
                    "curator.stage": totals.name,
                    "curator.rows_in": totals.rows_in,
                    "curator.rows_out": totals.rows_out,
                    "curator.rows_dropped": totals.rows_dropped,
                    "curator.rows_rejected": totals.rows_rejected,
                    "curator.rows_quarantined": totals.quarantined,
                    "curator.calls": totals.calls,
                    "curator.worker_seconds": totals.seconds,
                },
            )
            span.end(max(ended, earliest))
        if progress.step:
            self._finish(around, progress.state, None)

    def _finish(self, span: Any, state: str, error: BaseException | None) -> None:
        span.set_attribute("curator.state", state)
        if state == "failed":
            said = "" if error is None else f"{type(error).__name__}: {error}"[:1000]
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, said))
        span.end()

    def end(self, state: str, error: BaseException | None) -> None:
        """End all open spans after the run, and deliver them."""
        for span in self._steps.values():
            if span.is_recording():
                self._finish(span, state, None)
        self._finish(self._run, state, error)
        if self._own is not None:
            self._own.shutdown()
        finished = self._refused if self._kept is None else self._kept.get_finished_spans()
        place = None
        if finished and self._run_dir is not None and storage.is_folder(self._run_dir):
            place = storage.join(self._run_dir, SPANS)
            text = "".join(json.dumps(json.loads(span.to_json()), ensure_ascii=False) + "\n" for span in finished)
            storage.write_bytes_atomic(place, text.encode("utf-8", "backslashreplace"))
        if self._refused:
            where = f"they are in {place}" if place is not None else "they are lost, since the run has no run_dir"
            _LOG.warning(
                "the collector did not take %s of the run: %s", formatting.count(len(self._refused), "span"), where
            )


def _keeping_refused(exporter: Any) -> list[Any]:
    """The spans that an exporter fails to deliver, as it runs."""
    from opentelemetry.sdk.trace.export import SpanExportResult

    refused: list[Any] = []
    export = exporter.export

    def keeping(spans: Any) -> Any:
        result = export(spans)
        if result is not SpanExportResult.SUCCESS:
            refused.extend(spans)
        return result

    exporter.export = keeping
    return refused


def _otlp() -> Any:
    """The exporter to the endpoint that the environment names, or None."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingDependency(
            "the environment names an OTLP endpoint for spans: pip install 'curator-core[otel]'"
        ) from error
    return OTLPSpanExporter()
