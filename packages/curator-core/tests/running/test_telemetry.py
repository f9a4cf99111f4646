"""Telemetry of a run: a file, an endpoint, spans; the numbers are those of its summary."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curator_core import DocumentBatch, EmptyTask, LocalExecutor, Pipeline, ProcessingStage, Steps, UsageError
from curator_core.accounts.metrics import METRICS, MetricSample, text_format
from curator_core.accounts.tally import StageTotals
from curator_core.config.pipeline_file import load_pipeline
from curator_core.running import telemetry as module
from curator_core.running.progress import RunProgress
from curator_core.running.telemetry import MetricsOptions, Telemetry, metrics_options
from curator_core.stages.column_filter import ColumnFilter

HERE = LocalExecutor(workers=0)
_SAMPLE = re.compile(r'(\w+)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\} (\S+)')


class Above(ColumnFilter):
    """Keeps numbers above a limit."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.column = "x"

    def score(self, values: pa.Array) -> pa.Array:
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values

    def keep(self, scores: pa.Array) -> pa.Array:
        return pc.greater(scores, self.limit)


class Add(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds a column, and fails on chosen rows."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.fails:
            raise ValueError("odd")
        return task.append_column("y", [1] * task.num_rows)


class Make(ProcessingStage[EmptyTask, DocumentBatch]):
    """Makes one batch."""

    def outputs(self) -> list[str]:
        return ["x"]

    def process(self, task: EmptyTask) -> DocumentBatch:
        return DocumentBatch(data=pa.table({"x": [1, 2, 3, 4]}))


def batches(count: int = 2) -> list[DocumentBatch]:
    return [DocumentBatch(task_id=f"t{number}", data=pa.table({"x": [1, 2, 3, 4]})) for number in range(count)]


def parsed(text: str) -> dict[str, float]:
    """Every sample by its name and labels; any other line fails the test."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ (gauge|counter))", line)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        found[f"{match[1]}{{{match[2]}}}"] = float(match[3])
    return found


def test_a_file_has_the_numbers_of_the_summary_and_appears_as_a_whole(tmp_path: Path) -> None:
    place = tmp_path / "run.prom"
    result = Pipeline([Add(), Above()], name='a "run"\\').run(
        HERE, initial_tasks=batches(), metrics={"file": str(place)}
    )
    found = parsed(place.read_text())
    run = 'run="a \\"run\\"\\\\",step=""'
    add, above = result.summary.stages
    assert found[f'curator_stage_rows_in_total{{{run},stage="{add.name}"}}'] == add.rows_in == 8
    assert found[f'curator_stage_rows_out_total{{{run},stage="{above.name}"}}'] == above.rows_out == 6
    (reason,) = above.dropped
    assert found[f'curator_stage_rows_dropped_total{{{run},stage="{above.name}",reason="{reason}"}}'] == 2
    assert found[f"curator_sources_done{{{run}}}"] == 2
    assert found[f"curator_sources_in_flight{{{run}}}"] == 0
    assert found[f'curator_run_state{{{run},state="done"}}'] == 1
    assert found[f'curator_run_state{{{run},state="running"}}'] == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.prom"], "no half file is left"


def test_a_failed_run_says_so_in_its_last_numbers(tmp_path: Path) -> None:
    place = tmp_path / "run.prom"
    with pytest.raises(Exception, match="odd"):
        Pipeline([Add(fails=True)], name="p").run(HERE, initial_tasks=batches(), metrics={"file": str(place)})
    assert parsed(place.read_text())['curator_run_state{run="p",step="",state="failed"}'] == 1


def test_an_endpoint_is_only_on_this_machine_and_ends_with_the_run() -> None:
    seen: list[str] = []
    options = MetricsOptions(port=0)
    with Telemetry(options, "p", HERE, None) as telemetry:
        assert telemetry.address is not None
        host, port = telemetry.address
        assert host == "127.0.0.1"
        progress = RunProgress("p", total_sources=10, finished_sources=4, stages=("Read",))
        progress.tally.stages["Read"] = StageTotals("Read", 1, 12, 11)
        telemetry(progress)
        with urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            seen.append(answer.read().decode())
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://{host}:{port}/", timeout=10)
        with (
            pytest.raises(UsageError, match=f"port {port} on '127.0.0.1' cannot be used"),
            Telemetry(MetricsOptions(port=port), "other", HERE, None),
        ):
            pass
    assert parsed(seen[0])['curator_stage_rows_in_total{run="p",step="",stage="Read"}'] == 12
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://{host}:{port}/metrics", timeout=10)


def test_the_numbers_of_each_step_of_a_workflow_stay_until_its_end(tmp_path: Path) -> None:
    place = tmp_path / "run.prom"
    steps = Steps([Pipeline([Make(), Add()], name="first"), Pipeline([Make(), Above()], name="second")])
    steps.run(HERE, run_dir=str(tmp_path / "run"), metrics={"file": str(place)})
    found = parsed(place.read_text())
    counted = {key for key in found if key.startswith("curator_stage_calls_total")}
    assert {key for key in counted if "Make" not in key} == {
        f'curator_stage_calls_total{{run="{steps.name}",step="first",stage="Add"}}',
        f'curator_stage_calls_total{{run="{steps.name}",step="second",stage="Above"}}',
    }


def test_every_metric_of_a_run_is_documented_and_has_its_labels() -> None:
    telemetry = Telemetry(MetricsOptions(), "p", HERE, None)
    progress = RunProgress("p", total_sources=1, workers=2, stages=("Read",))
    progress.tally.stages["Read"] = StageTotals("Read", 1, 3, 1, dropped={"a": 1}, rejected={"b": 1})
    telemetry(progress)
    samples = telemetry.samples()
    for sample in samples:
        assert tuple(sample.labels) == ("run", "step", *METRICS[sample.name].labels)
    assert METRICS.keys() - {sample.name for sample in samples} <= {"curator_machine_gpu_busy_ratio"}


def test_many_reasons_are_counted_together_so_that_there_are_few_series() -> None:
    progress = RunProgress("p", stages=("Read",))
    progress.tally.stages["Read"] = StageTotals("Read", rejected={f"reason {number}": 1 for number in range(150)})
    telemetry = Telemetry(MetricsOptions(), "p", HERE, None)
    telemetry(progress)
    rejected = [item for item in telemetry.samples() if item.name == "curator_stage_rows_rejected_total"]
    assert len(rejected) == module.REASONS + 1
    assert rejected[-1].labels["reason"] == module.OTHERS
    assert sum(item.value for item in rejected) == 150


def test_any_text_can_be_a_label() -> None:
    odd = '\ud800 a\nb"c\\'
    text = text_format([MetricSample("curator_run_seconds", {"run": odd, "step": ""}, 0.5)])
    assert text.splitlines()[-1] == 'curator_run_seconds{run="\\\\ud800 a\\nb\\"c\\\\",step=""} 0.5'


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fil": "a.prom"}, "metrics has no option 'fil'; did you mean 'file'"),
        ({"file": "a.txt"}, r"metrics.file must end in .prom, not 'a.txt'"),
        ({"port": 70000}, "at most 65535, not 70000"),
        ({"port": True}, "metrics.port"),
        ({"every_seconds": 0}, "metrics.every_seconds must be a number above 0, not 0"),
        ({"spans": "yes"}, "metrics.spans must be true or false, not 'yes'"),
        ("run.prom", "metrics takes options such as"),
    ],
)
def test_a_wrong_option_is_named(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        metrics_options(given)


def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(Exception, match="taken"):
        Pipeline([Add()]).run(HERE, initial_tasks=batches(), metrics={"file": str(tmp_path / "taken" / "a.prom")})


def test_a_pipeline_file_can_set_metrics(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("stages:\n  - Limit: {rows: 1}\nmetrics: {file: run.prom}\n")
    assert load_pipeline(path).options["metrics"] == {"file": str(tmp_path / "run.prom")}
    path.write_text("stages:\n  - Limit: {rows: 1}\nmetrics: {file: run.txt}\n")
    with pytest.raises(UsageError, match=r"metrics.file must end in .prom"):
        load_pipeline(path)


# Spans ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The spans that reach an SDK set up by a program."""
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    provider, exporter = sdk.TracerProvider(), memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def test_a_run_is_a_span_with_its_steps_and_their_stages(exported: Any, tmp_path: Path) -> None:
    steps = Steps([Pipeline([Make(), Add()], name="first"), Pipeline([Make(), Above()], name="second")])
    steps.run(HERE, run_dir=str(tmp_path / "run"), metrics={"spans": True})
    spans = {span.name: span for span in exported.get_finished_spans()}
    run = spans[f"run {steps.name}"]
    assert run.parent is None
    for step, stage in (("first", "Add"), ("second", "Above")):
        outer, inner = spans[f"step {step}"], spans[f"stage {stage}"]
        assert outer.parent.span_id == run.context.span_id
        assert inner.parent.span_id == outer.context.span_id
        assert run.start_time <= outer.start_time <= inner.start_time <= inner.end_time <= run.end_time
    assert run.attributes["curator.state"] == "done"


def test_the_span_of_a_stage_has_its_numbers(exported: Any) -> None:
    Pipeline([Above()], name="p").run(HERE, initial_tasks=batches(), metrics={"spans": True})
    stage, run = exported.get_finished_spans()
    assert (stage.name, run.name) == ("stage Above", "run p")
    assert stage.parent.span_id == run.context.span_id
    counted = ("rows_in", "rows_out", "rows_dropped", "rows_rejected", "calls")
    assert [stage.attributes[f"curator.{name}"] for name in counted] == [8, 6, 2, 0, 2]


def test_the_span_of_a_failed_run_says_why(exported: Any) -> None:
    with pytest.raises(Exception, match="odd"):
        Pipeline([Add(fails=True)], name="p").run(HERE, initial_tasks=batches(), metrics={"spans": True})
    run = exported.get_finished_spans()[-1]
    assert run.status.status_code.name == "ERROR"
    assert "odd" in run.status.description


def test_without_a_collector_spans_are_written_to_the_run_directory(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    place = tmp_path / "run"
    Pipeline([Above()], name="p").run(HERE, initial_tasks=batches(), run_dir=str(place), metrics={"spans": True})
    spans = [json.loads(line) for line in (place / "spans.jsonl").read_text().splitlines()]
    assert [span["name"] for span in spans] == ["stage Above", "run p"]
    with pytest.raises(UsageError, match="nowhere to go: give the run a run_dir"):
        Pipeline([Above()]).run(HERE, initial_tasks=batches(), metrics={"spans": True})


class Collector:
    """An OTLP collector on this machine that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        kept, request_type = (
            self.received,
            pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest,
        )

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in request_type.FromString(body).resource_spans:
                    kept.extend((resource.resource, span) for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.slow
def test_spans_reach_a_collector_and_are_kept_if_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    pipeline = Pipeline([Above()], name="p")
    try:
        pipeline.run(HERE, initial_tasks=batches(), run_dir=str(tmp_path / "there"), metrics={"spans": True})
        (resource, stage), (_, run) = collector.received
    finally:
        collector.close()
    assert "curator" in {entry.value.string_value for entry in resource.attributes if entry.key == "service.name"}
    assert (stage.name, run.name, stage.parent_span_id) == ("stage Above", "run p", run.span_id)
    assert {entry.key: entry.value.int_value for entry in stage.attributes}["curator.rows_dropped"] == 2
    assert not (tmp_path / "there/spans.jsonl").exists()
    pipeline.run(HERE, initial_tasks=batches(), run_dir=str(tmp_path / "gone"), metrics={"spans": True})
    spans = [json.loads(line) for line in (tmp_path / "gone/spans.jsonl").read_text().splitlines()]
    assert [span["name"] for span in spans] == ["stage Above", "run p"]
