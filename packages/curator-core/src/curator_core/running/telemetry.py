"""What does a run export to monitoring systems? Metrics in a file, at an endpoint, or through its engine; and spans.

All of it is off by default; if it is on, the counters are read every few seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from curator_core import storage
from curator_core.accounts.metrics import MetricSample, text_format
from curator_core.errors import UsageError, check_whole, nearest
from curator_core.executors.base import BaseExecutor
from curator_core.model.machine_use import MachineUse, Use
from curator_core.running.progress import RUNNING, STARTING, Progress, RunProgress

if TYPE_CHECKING:
    from curator_core.running.spans import Spans

logger = logging.getLogger(__name__)

STATES = (STARTING, RUNNING, "done", "quarantined", "failed")
# A stage's reasons beyond this many are counted together, because each is a series that a server stores.
REASONS = 100
OTHERS = "(others)"


@dataclass(frozen=True)
class MetricsOptions:
    """The destinations of a run's metrics; see docs/metrics.md.

    ``file``: a ``.prom`` file for node exporter's textfile collector, rewritten every ``every_seconds``. ``port``: an
    endpoint ``/metrics`` on ``host``, which is this machine alone by default. ``engine``: also export as metrics of the
    engine (Ray's, which its dashboard shows). ``spans``: OpenTelemetry spans of the run, its steps and stages.
    """

    file: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"
    every_seconds: float = 5.0
    engine: bool = True
    spans: bool = False

    def __post_init__(self) -> None:
        if self.file is not None:
            if not isinstance(self.file, str) or not self.file:
                raise UsageError(f"metrics.file must be a path, not {self.file!r}")
            if not self.file.endswith(".prom"):
                raise UsageError(
                    f"metrics.file must end in .prom, not {self.file!r}: node exporter's textfile collector reads no others"
                )
        check_whole("metrics.port", self.port, least=0, optional=True)
        if self.port is not None and self.port > 65535:
            raise UsageError(f"metrics.port must be at most 65535, not {self.port!r}")
        if not isinstance(self.host, str) or not self.host:
            raise UsageError(f"metrics.host must be a name or an address, not {self.host!r}")
        every = self.every_seconds
        if isinstance(every, bool) or not isinstance(every, int | float) or not 0 < every < float("inf"):
            raise UsageError(f"metrics.every_seconds must be a number above 0, not {every!r}")
        for name in ("engine", "spans"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"metrics.{name} must be true or false, not {getattr(self, name)!r}")


def metrics_options(given: MetricsOptions | Mapping[str, Any] | bool | None) -> MetricsOptions | None:
    """The checked options; None if there are no metrics. ``True`` stands for the engine's metrics alone."""
    if given is None or given is False:
        return None
    if given is True:
        return MetricsOptions()
    if isinstance(given, MetricsOptions):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"metrics takes options such as {{'file': 'run.prom'}}, not {given!r}")
    known = [field.name for field in fields(MetricsOptions)]
    for name in given:
        if name not in known:
            raise UsageError(
                f"metrics has no option {name!r}{nearest(str(name), known) or '.'} It takes: {', '.join(known)}"
            )
    return MetricsOptions(**given)


@contextlib.contextmanager
def observed(
    options: MetricsOptions | None, progress: Progress | None, name: str, executor: BaseExecutor, run_dir: str | None
) -> Iterator[Progress | None]:
    """A function that passes the progress of a run to the display and to the destinations in the options."""
    if options is None:
        yield progress
        return
    with Telemetry(options, name, executor, run_dir) as telemetry:

        def both(state: RunProgress) -> None:
            telemetry(state)
            if progress is not None:
                progress(state)

        yield both


class Telemetry:
    """Exports each `RunProgress` that it is called with; a context manager for the duration of the run."""

    def __init__(self, options: MetricsOptions, name: str, executor: BaseExecutor, run_dir: str | None) -> None:
        self.options = options
        self.name = name
        self.executor = executor
        self.begun = time.monotonic()
        self.progress: RunProgress | None = None
        self._state = STARTING
        self._aside = False  # whether a step has set rows aside
        self._ended: dict[str, list[MetricSample]] = {}  # the totals of steps that have ended, by name
        self._use = MachineUse()
        self._stack = contextlib.ExitStack()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._failed: set[str] = set()
        self._spans = _spans(options, name, run_dir)
        self.address: tuple[str, int] | None = None

    def __enter__(self) -> Telemetry:
        with contextlib.ExitStack() as stack:
            stack.callback(self._use.close)
            if self.options.port is not None:
                stack.enter_context(self._served(self.options.host, self.options.port))
            if self.options.file is not None:
                self._write_file()  # a failure to write is an error now, and a warning later
            ticking = threading.Thread(target=self._tick, name="curator-metrics", daemon=True)
            ticking.start()
            stack.callback(ticking.join)
            stack.callback(self._stop.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._state = "failed" if kind is not None else "quarantined" if self._aside else "done"
        self._stack.close()
        self.renew(engine=False)  # the file's folder is closed by now
        if self._spans is not None:
            with self._only_warned("spans"):
                self._spans.end(self._state, error)

    def __call__(self, progress: RunProgress) -> None:
        self.progress = progress
        if self._spans is not None:
            self._spans.look(progress)
        if progress.going:
            self._state = progress.state
            return
        self._aside = self._aside or progress.state == "quarantined"
        if progress.step:
            self._ended[progress.step_name] = _stage_samples(self._labels(progress), progress)
        self.renew()

    def _labels(self, progress: RunProgress) -> dict[str, str]:
        return {"run": self.name, "step": progress.step_name}

    def samples(self) -> list[MetricSample]:
        """The present values of all metrics."""
        progress = self.progress
        run = {"run": self.name, "step": ""}
        found = [MetricSample("curator_run_state", {**run, "state": state}, state == self._state) for state in STATES]
        found.append(MetricSample("curator_run_seconds", run, round(time.monotonic() - self.begun, 3)))
        found.append(MetricSample("curator_run_updated_timestamp_seconds", run, round(time.time(), 3)))
        found += _machine_samples(run, self._use.now())
        for step, samples in list(self._ended.items()):
            if progress is None or step != progress.step_name:
                found += samples
        if progress is not None:
            labels = self._labels(progress)
            found += _source_samples(labels, progress)
            found += _stage_samples(labels, progress)
        return found

    def renew(self, *, engine: bool = True) -> None:
        """Rewrite the file, and pass the numbers to the engine."""
        if self.options.file is not None:
            with self._only_warned("file"):
                self._write_file()
        if engine and self.options.engine:
            with self._only_warned("engine"):
                self.executor.publish(self.samples())

    def _write_file(self) -> None:
        assert self.options.file is not None
        with self._writing:
            data = text_format(self.samples()).encode()
            storage.write_bytes_atomic(self.options.file, data, durable=False)

    def _tick(self) -> None:
        while not self._stop.wait(self.options.every_seconds):
            self.renew()

    @contextlib.contextmanager
    def _only_warned(self, what: str) -> Iterator[None]:
        """If metrics cannot be written, warn once; the run does not fail."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                logger.warning(f"metrics of {self.name!r}: {what}: {error}")

    @contextlib.contextmanager
    def _served(self, host: str, port: int) -> Iterator[None]:
        import http.server  # this loads all of email, and few runs serve their metrics

        telemetry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "the numbers are at /metrics")
                    return
                data = text_format(telemetry.samples()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Log nothing: there is a request every few seconds."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Ignore errors: a client may disconnect at any time."""

        try:
            server = Server((host, port), Handler)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise UsageError(
                f"metrics: port {port} on {host!r} cannot be used: {reason}; choose another port"
            ) from error
        with server:
            self.address = (str(server.server_address[0]), int(server.server_address[1]))
            serving = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="curator-endpoint", daemon=True
            )
            serving.start()
            try:
                yield
            finally:
                server.shutdown()
                serving.join()


def _source_samples(labels: Mapping[str, str], progress: RunProgress) -> list[MetricSample]:
    values = {
        "curator_sources_expected": progress.total_sources,
        "curator_sources_done": progress.done,
        "curator_sources_skipped": progress.skipped_sources,
        "curator_sources_in_flight": progress.in_flight,
        "curator_workers": progress.workers,
    }
    return [MetricSample(name, labels, value) for name, value in values.items() if value is not None]


def _stage_samples(labels: Mapping[str, str], progress: RunProgress) -> list[MetricSample]:
    found = []
    for state in progress.stage_states():
        totals, mine = state.totals, {**labels, "stage": state.totals.name}
        values = {
            "rows_in_total": totals.rows_in,
            "rows_out_total": totals.rows_out,
            "rows_quarantined_total": totals.quarantined,
            "rows_waiting": state.waiting,
            "calls_total": totals.calls,
            "worker_seconds_total": round(totals.seconds, 6),
        }
        found += [MetricSample(f"curator_stage_{name}", mine, value) for name, value in values.items()]
        for name, reasons in (("dropped", totals.dropped), ("rejected", totals.rejected)):
            for reason, rows in _few(dict(reasons)).items():
                found.append(MetricSample(f"curator_stage_rows_{name}_total", {**mine, "reason": reason}, rows))
    return found


def _few(reasons: Mapping[str, int]) -> dict[str, int]:
    # The first reasons keep their own series, so that no series ever decreases.
    names = list(reasons)
    found = {name: reasons[name] for name in names[:REASONS]}
    rest = sum(reasons[name] for name in names[REASONS:])
    return {**found, OTHERS: rest} if rest else found


def _machine_samples(labels: Mapping[str, str], use: Use) -> Sequence[MetricSample]:
    found = []
    if use.memory_gb:
        found = [
            MetricSample("curator_machine_memory_used_bytes", labels, round(use.memory_used_gb * 2**30)),
            MetricSample("curator_machine_memory_bytes", labels, round(use.memory_gb * 2**30)),
        ]
    busy = [
        MetricSample("curator_machine_gpu_busy_ratio", {**labels, "gpu": str(number)}, share)
        for number, share in enumerate(use.gpus)
    ]
    return [*found, *busy]


def _spans(options: MetricsOptions, name: str, run_dir: str | None) -> Spans | None:
    if not options.spans:
        return None
    from curator_core.running.spans import Spans  # this imports OpenTelemetry, which is an extra

    return Spans(name, run_dir)
