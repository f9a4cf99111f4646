"""Is the output the same after faults? Workers and drivers are killed, and tasks run twice.

It works for any executor, by name::

    trial = Trial(folder, "local", {"workers": 2})
    trial.kill_workers(seed=1, kills=20)   # one run, whose workers die
    trial.kill_driver(seed=1, kills=20)    # a run that is killed and resumed until it is done

Both raise `AssertionError` unless the output is, byte for byte, that of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.accounts import ledger
from curator_core.accounts.ledger import LedgerWriter, MemorySink, open_accounts
from curator_core.accounts.seen import read_seen
from curator_core.arrow.arrays import array, scalar
from curator_core.config.build import load_executor
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.executors.local import LocalExecutor
from curator_core.executors.local_pool import MAX_DEATHS
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.lineage import source_of
from curator_core.model.stage import FanOut, Merge, ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, Task
from curator_core.pipeline import Pipeline
from curator_core.running.result import RunResult
from curator_core.running.verify import verify
from curator_core.stages.column_filter import ColumnFilter
from curator_core.stages.files import FilePartitioning
from curator_core.testing.processes import is_running
from curator_core.testing.waiting import wait_for
from curator_core.worker.group import GroupRunner

Stages = list[ProcessingStage[Any, Any]]
# The workers of drivers that are killed write their records this often, so that a short run leaves some of them.
_FLUSH_SECONDS = 0.5

# Stages -----------------------------------------------------------------------------------------------------------


@dataclass
class ReadLines(ProcessingStage[FileGroupTask, DocumentBatch]):
    """Reads lines of JSON with ``id`` and ``text``; a line that is not JSON is rejected."""

    def outputs(self) -> list[str]:
        return ["id", "text"]

    def process(self, task: FileGroupTask) -> DocumentBatch:
        rows: list[dict[str, Any]] = []
        read = 0
        for path in task.data:
            for number, line in enumerate(storage.read_bytes(path).splitlines(), 1):
                read += 1
                try:
                    value = json.loads(line)
                    rows.append({"id": int(value["id"]), "text": str(value["text"])})
                except (ValueError, KeyError, TypeError) as error:
                    self.record_rejected("bad line", source=path, position=number, message=str(error), raw=line)
        self.record_read(read)
        return DocumentBatch(data=pa.Table.from_pylist(rows, pa.schema([("id", pa.int64()), ("text", pa.string())])))


@dataclass
class Work(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Writes to ``traces`` that it has begun a task, works for about ``seconds``, and adds a digest to each row."""

    traces: str = ""
    seconds: float = 0.01

    def outputs(self) -> list[str]:
        return ["digest"]

    def setup(self, worker: WorkerMetadata) -> None:
        self._file = -1
        if self.traces:
            Path(self.traces).mkdir(parents=True, exist_ok=True)
            name = f"{os.getpid()}-{time.time_ns()}"
            self._file = os.open(Path(self.traces, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def teardown(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self._file >= 0:
            os.write(self._file, f"{time.time():.4f} {task.task_id}\n".encode())
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            hashlib.sha256(bytes(10_000)).digest()
        texts = task.to_pyarrow()["text"].to_pylist()
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        return task.append_column("digest", array(digests, pa.string()))


@dataclass
class Halves(FanOut[DocumentBatch, DocumentBatch]):
    """Makes two tasks of each task."""

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        table = task.to_pyarrow()
        middle = table.num_rows // 2
        yield task.with_data(table.slice(0, middle))
        yield task.with_data(table.slice(middle))


@dataclass
class NoMultiples(ColumnFilter):
    """Drops rows whose id is a multiple of ``of``."""

    of: int = 7
    column: str = field(default="id", kw_only=True)

    score_type = pa.int64()

    def score_array(self, values: pa.Array) -> pa.Array:
        return array([value % self.of for value in values.to_pylist()], pa.int64())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.greater_equal(scores, scalar(1))

    def reasons(self, scores: pa.Array) -> str:
        return "multiple"


@dataclass
class Join(Merge[DocumentBatch, DocumentBatch]):
    """Merges several tasks into one, with rows in order."""

    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch:  # type: ignore[override]
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


@dataclass
class WriteLines(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes a file of JSON lines for each task, to a folder that the run owns."""

    path: str = ""

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        rows = task.to_pyarrow().to_pylist()
        with storage.write_atomic(storage.join(self.path, f"{task.task_id}.jsonl")) as out:
            for row in rows:
                out.write(f"{json.dumps(row, sort_keys=True)}\n".encode())
        record = out.record(rows=len(rows))
        self.record_output(record)
        return FileGroupTask(data=[record.path], records=[record])


# A run that is disturbed -------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A pipeline over its own files in an empty ``folder``, run by one executor."""

    folder: Path
    executor: str = "local"
    config: Mapping[str, Any] = field(default_factory=dict)
    files: int = 60
    rows: int = 6
    seconds: float = 0.01
    merge: bool = False
    files_per_partition: int = 1
    # The size and the number of lines of each file of traces, when it was read last.
    _begun: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        write_inputs(self.folder / "in", range(self.files), self.rows)

    def stages(self, out: str = "out", traces: str = "traces") -> Stages:
        """The pipeline, with a stage of each kind."""
        found: Stages = [
            FilePartitioning(paths=str(self.folder / "in"), files_per_partition=self.files_per_partition),
            ReadLines(),
            Work(traces=str(self.folder / traces) if traces else "", seconds=self.seconds),
            Halves(),
            NoMultiples(),
        ]
        if self.merge:
            found.append(Join().with_(batch_size=4))
        return [*found, WriteLines(path=str(self.folder / out))]

    def run(self, **options: Any) -> RunResult:
        """Run the pipeline in this process, in the trial's run directory."""
        executor = load_executor(self.executor)(config=dict(self.config))
        return Pipeline(self.stages()).run(executor, run_dir=str(self.folder / "run"), **options)

    def expected(self) -> dict[str, bytes]:
        """The output of an undisturbed run over the present input."""
        place, run = self.folder / "expected", self.folder / "expected-run"
        for folder in (place, run):
            shutil.rmtree(folder, ignore_errors=True)
        Pipeline(self.stages("expected", traces="")).run(LocalExecutor(workers=0), run_dir=str(run))
        return snapshot(place)

    def seen(self, run: str = "run", *, samples: bool = True) -> str:
        """What a run shows of its data, without the names of folders."""
        found = read_seen(str(self.folder / run)).to_json()
        for stage in found["stages"].values():
            del stage["settings"]
            if not samples:
                del stage["samples"]
        return json.dumps(found, sort_keys=True)

    def traced(self) -> list[tuple[float, int, str]]:
        """The traces of the work: time, process and task."""
        found = []
        for path in (self.folder / "traces").glob("*"):
            pid = int(path.name.partition("-")[0])
            for line in path.read_text().splitlines():
                when, _, task = line.partition(" ")
                found.append((float(when), pid, task))
        return sorted(found)

    def begun(self) -> int:
        """How many tasks have been begun: the number of traces.

        This is asked every few milliseconds while the run works, so a file is only read again when it has grown.
        """
        for path in (self.folder / "traces").glob("*"):
            size = path.stat().st_size
            if self._begun.get(path.name, (0, 0))[0] != size:
                content = path.read_bytes()
                self._begun[path.name] = len(content), content.count(b"\n")
        return sum(lines for _, lines in self._begun.values())

    def clear(self) -> None:
        """Remove all runs; the input stays."""
        for name in ("run", "out", "traces", "expected", "expected-run"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._begun.clear()

    def check(self, result: RunResult | None = None, *, samples: bool = True) -> None:
        """Check that the output is that of an undisturbed run, including `_SUCCESS`, and that no other files are left.

        ``samples`` also compares the rows that are kept as samples. If the input has changed since, there may be fewer
        of them.
        """
        assert_same(snapshot(self.folder / "out"), self.expected())
        seen, expected = (self.seen(run, samples=samples) for run in ("run", "expected-run"))
        assert seen == expected, "scores and samples are not those of an undisturbed run"
        problems = verify(str(self.folder / "run"))
        assert not problems, problems
        left = [path for path in (self.folder / "run").rglob("*") if storage.is_temporary(str(path))]
        assert not left, f"unfinished files in the run directory: {left}"
        if result is not None:
            shares = result.summary.shares
            sources = -(-len(list((self.folder / "in").iterdir())) // self.files_per_partition)
            assert shares == {"done": str(sources), "dropped": "0", "failed": "0"}, shares

    # Workers ------------------------------------------------------------------------------------------------------

    def kill_workers(self, seed: int = 0, kills: int = 20, **options: Any) -> int:
        """Run once, and kill the process that works on a task at ``kills`` random instants. Return how many died."""
        rng = random.Random(seed)
        # No worker is killed near the end: a task on which two workers have died waits until the others are done, and a
        # third death is final.
        sources = self.files // self.files_per_partition
        instants = sorted(rng.sample(range(1, max(kills + 1, int(sources * 0.8))), kills))
        done = threading.Event()
        killed: list[int] = []

        def kill() -> None:
            waiting, tried = list(instants), {os.getpid()}
            while waiting and not done.is_set():
                if self.begun() < waiting[0]:
                    done.wait(0.002)
                    continue
                done.wait(rng.random() * self.seconds * 1.5)
                traced = self.traced()
                begun = Counter(task for _, _, task in traced)
                current = {pid: task for _, pid, task in traced}
                # A third death on a task is final, so only two are allowed, however late this is checked.
                spare = tried | {pid for pid, task in current.items() if begun[task] >= MAX_DEATHS}
                victim = next((pid for _, pid, _ in reversed(traced) if pid not in spare), None)
                if victim is None:  # its replacement has not begun yet
                    done.wait(0.002)
                    continue
                tried.add(victim)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)
                    waiting.pop(0)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        try:
            result = self.run(**options)
        finally:
            done.set()
            thread.join()
        assert len(killed) >= kills * 3 // 4, f"only {len(killed)} workers could be killed"
        self.check(result)
        return len(killed)

    # The driver ---------------------------------------------------------------------------------------------------

    def kill_driver(self, seed: int = 0, kills: int = 20, timeout_s: float = 300) -> Kills:
        """Run, kill the driver at random instants and resume ``kills`` times, and then let the run finish undisturbed."""
        rng = random.Random(seed)
        report = Kills()
        deadline = time.monotonic() + timeout_s
        complete: set[str] = set()
        while True:
            before = self.begun()
            process = self.start_driver()
            last = report.kills == kills
            if not last:
                # The driver is sometimes killed before any work is done, and otherwise after a few tasks.
                wanted = before + (rng.randrange(0, max(2, self.files // 10)) if rng.random() < 0.8 else 0)
                wait_for(
                    lambda: process.poll() is not None or self.begun() >= wanted,  # noqa: B023 - called here
                    "the driver makes no progress",
                    deadline - time.monotonic(),
                    pause_s=0.004,
                )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.random() * (0.05 if wanted > before else 0.5))
                if process.poll() is None:
                    process.kill()
                    report.kills += 1
            killed_at = time.time()
            _, errors = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            report.attempts += 1
            report.orphans += self._wait_for_workers({pid for _, pid, _ in self.traced()[before:]})
            now = self.traced()[before:]
            again = {source_of(task) for _, _, task in now} & complete
            assert not again, f"work was repeated although it was complete: {sorted(again)}"
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, f"the driver failed:\n{errors[-4000:]}"
            begun = {source_of(task): when for when, _, task in self.traced()}
            complete = self._complete()
            flight = {source: when for source, when in begun.items() if source not in complete}
            report.in_flight.append(len(flight))
            # The longest time that a task took, even if the machine was busy.
            slowest = max([self.seconds, *_gaps(now)])
            stale = [s for s, when in flight.items() if killed_at - when > _FLUSH_SECONDS + 10 * slowest + 1]
            known = report.left_over & set(stale)
            assert set(stale) <= known, f"finished long before the kill, but not yet durable: {stale}"
            report.left_over |= flight.keys()
        tasks = [task for _, _, task in self.traced()]
        report.repeated = len(tasks) - len(set(tasks))
        assert report.repeated <= sum(report.in_flight), "more work was repeated than was in flight"
        self.check()
        return report

    def start_driver(self, **options: Any) -> subprocess.Popen[str]:
        """Start a driver in its own process; it resumes if there is a run to resume."""
        order = {
            "executor": self.executor,
            "config": dict(self.config),
            "folder": str(self.folder),
            "files": self.files,
            "rows": self.rows,
            "seconds": self.seconds,
            "merge": self.merge,
            "files_per_partition": self.files_per_partition,
            "options": options,
        }
        return subprocess.Popen(
            [sys.executable, "-c", "from curator_core.testing.faults import main; main()", json.dumps(order)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _complete(self) -> set[str]:
        if not (self.folder / "run" / "sources").is_dir():
            return set()
        accounts = open_accounts(str(self.folder / "run"))
        return {source for source in accounts.sources() if accounts.is_complete(source)}

    def _wait_for_workers(self, pids: set[int], patience_s: float = 30.0) -> int:
        """Check that no worker outlives its driver for long; return how many were still running at first."""
        there = {pid for pid in pids if is_running(pid)}
        wait_for(lambda: not any(map(is_running, there)), f"workers outlive their driver: {sorted(there)}", patience_s)
        return len(there)


def _gaps(traced: Sequence[tuple[float, int, str]]) -> Iterator[float]:
    """The time from one task of a process to its next task."""
    last: dict[int, float] = {}
    for when, pid, _ in traced:
        if pid in last:
            yield when - last[pid]
        last[pid] = when


@dataclass
class Kills:
    """The outcome of killing a driver again and again."""

    kills: int = 0
    attempts: int = 0
    repeated: int = 0  # tasks that ran more than once
    in_flight: list[int] = field(default_factory=list)  # sources that were begun but not complete, at each kill
    orphans: int = 0  # workers that were still running after the driver had been killed
    left_over: set[str] = field(default_factory=set)


def write_inputs(folder: Path, numbers: Sequence[int] | range, rows: int = 6) -> None:
    """Write a file of JSON lines for each number, from which its ids follow."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        lines = [json.dumps({"id": row, "text": f"text {row}"}) for row in range(number * rows, (number + 1) * rows)]
        (folder / f"part-{number:04d}.jsonl").write_text("\n".join(lines) + "\n")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, including hidden ones, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Check that both have the same files with the same bytes; the error says which differ."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
    differences = [*missing, *extra, *other]
    assert not differences, f"missing: {missing[:5]}, extra: {extra[:5]}, different: {other[:5]}"


# An executor that does everything twice ---------------------------------------------------------------------------------


class Crash(RuntimeError):
    """The error that ends a `ChaoticExecutor`."""


class ChaoticExecutor(BaseExecutor):
    """Runs tasks in random order, many of them more than once, on several workers, each of which writes to the ledger.

    ``seed`` determines the order. With ``crash_after`` it dies after that many task runs and loses everything that is
    not durable.
    """

    options: ClassVar[tuple[str, ...]] = ("seed", "workers", "repeat", "crash_after")

    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        rng = random.Random(self.config.get("seed", 0))
        workers = int(self.config.get("workers", 3))
        left = self.config.get("crash_after")
        waiting = list(run.tasks)
        sinks: list[LedgerWriter | MemorySink] = []
        finished: list[Task[Any]] = []
        for index, group in enumerate(run.groups):
            runners = []
            for number in range(workers):
                runner = GroupRunner(group, run.context, ending=run.ending_of(index), folder=run.folder)
                runner.setup_on_node(NodeInfo(), WorkerMetadata(f"chaos-{number}"))
                runner.setup(WorkerMetadata(f"chaos-{number}"))
                runners.append(runner)
                assert isinstance(runner.sink, (LedgerWriter, MemorySink))
                sinks.append(runner.sink)
            todo = [task for task in waiting for _ in range(rng.choice(self.config.get("repeat", (1, 1, 2, 3))))]
            rng.shuffle(todo)
            finished = []
            while todo:
                chunk = [todo.pop() for _ in range(min(len(todo), rng.choice((1, 1, 2, 3))))]
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise Crash("as ordered")
                runner = rng.choice(runners)
                # Each task arrives as a copy, as from another process.
                finished += list(runner.run(_copies(chunk)))
                if rng.random() < 0.3:
                    runner.flush()
            for runner in runners:
                runner.teardown()
            waiting = finished
        rng.shuffle(sinks)
        for sink in sinks:
            sink.flush()
            if isinstance(sink, MemorySink):
                events = sink.take()
                rng.shuffle(events)
                run.collect(events)
        yield from finished


def _copies(tasks: list[Task[Any]]) -> Iterator[Task[Any]]:
    import copy

    for task in tasks:
        twin = copy.copy(task)
        twin._pending, twin._outputs, twin._stage_perf = (
            list(task._pending),
            list(task._outputs),
            list(task._stage_perf),
        )
        twin._metadata = dict(task._metadata)
        yield twin


def once(condition: Callable[[int], bool], action: Callable[[], None]) -> Callable[[Any], None]:
    """A progress callback that calls a function once, when this many sources are finished."""
    done = False

    def progress(state: Any) -> None:
        nonlocal done
        if not done and condition(state.finished_sources):
            done = True
            action()

    return progress


def main() -> None:
    """The driver of `Trial.kill_driver`."""
    ledger.FLUSH_SECONDS = _FLUSH_SECONDS
    order = json.loads(sys.argv[1])
    options = order.pop("options")
    order["folder"] = Path(order["folder"])
    trial = Trial.__new__(Trial)
    for key, value in order.items():
        setattr(trial, key, value)
    options.setdefault("resume", True)
    trial.run(**options)
