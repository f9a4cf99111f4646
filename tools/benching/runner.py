"""Runs the commands of entries in fresh processes, and records their metrics, time and memory."""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benching.data import Folders
from benching.gates import Measured
from benching.processes import TAG, Tree
from benching.suite import BenchError, Entry, Value

ROOT = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
MARK = "BENCH "
# The time limit for making data, which is not measured and may take long on a busy machine or a slow network.
DATA_TIMEOUT_S = 3600.0


def measure(group: list[Entry], repeats: int | None, data_root: Path) -> list[Measured]:
    """Run the entries of a group in turns, so that other load affects all of them equally."""
    results = [Measured(entry, skipped=_why_not(entry)) for entry in group]
    folders = Folders(data_root, ROOT, lambda entry, words: _spawn(entry, words, DATA_TIMEOUT_S, pinned=False))
    data = {}
    for one in results:
        if not one.skipped:
            try:
                data[one.entry.name] = folders.of(one.entry)
            except BenchError as error:
                one.failed = str(error)
    for turn in range(max(repeats or entry.repeats for entry in group)):
        for one in results:
            if one.skipped or one.failed or turn >= (repeats or one.entry.repeats):
                continue
            try:
                metrics = _run_once(one.entry, data[one.entry.name])
            except BenchError as error:
                one.failed = str(error)
                print(f"  {one.entry.name}: failed", flush=True)
                continue
            for name, value in metrics.items():
                one.values.setdefault(name, []).append(value)
            print(f"  {one.entry.name} #{turn + 1}: {metrics['seconds']:.2f} s", flush=True)
    return results


def _why_not(entry: Entry) -> str:
    """The reason why this machine cannot run the entry, or an empty text."""
    wants, there, memory = entry.resources, len(cpus()), memory_gb()
    if wants.cpus is not None and wants.cpus > there:
        return f"needs {wants.cpus} CPUs, this machine has {there}"
    if wants.memory_gb > memory:
        return f"needs {wants.memory_gb:g} GB of memory, this machine has {memory:.0f} GB"
    if wants.gpus > (gpus := len(list(Path("/dev").glob("nvidia[0-9]*")))):
        return f"needs {wants.gpus} GPUs, this machine has {gpus}"
    if entry.peer and not _peer(entry.peer).is_dir():
        return f"peer not installed: run  bash benchmarks/peers/{entry.peer}.sh"
    return ""


def _run_once(entry: Entry, data: Path) -> dict[str, Value]:
    with tempfile.TemporaryDirectory(prefix="curator-bench-") as scratch:
        places = {"{data}": str(data), "{scratch}": scratch, "{peer}": str(_peer(entry.peer or ""))}
        words = [_fill(word, places) for word in shlex.split(entry.command)]
        output, metrics = _spawn(entry, words, entry.timeout_s, pinned=True)
    for line in output.splitlines():
        if line.startswith(MARK):
            try:
                metrics |= json.loads(line.removeprefix(MARK))
            except (ValueError, TypeError) as error:
                raise BenchError(f"not a JSON object after {MARK.strip()}: {line!r}") from error
    return metrics


def _fill(word: str, places: dict[str, str]) -> str:
    for place, text in places.items():
        word = word.replace(place, text)
    return word


def _spawn(entry: Entry, words: list[str], timeout_s: float, *, pinned: bool) -> tuple[str, dict[str, Value]]:
    """Run a command to its end and watch the memory of all processes that it starts; returns its output and our
    metrics.
    """
    tag = uuid.uuid4().hex
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path} | entry.env | {TAG: tag}
    own_cpus = sorted(cpus())[: entry.resources.cpus] if pinned and entry.resources.cpus else None
    # Use files, not pipes: a process that outlives the command would keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # This is safe here, since this program starts no threads.
                preexec_fn=(lambda: os.sched_setaffinity(0, own_cpus)) if own_cpus else None,  # noqa: PLW1509
            )
        except OSError as error:
            raise BenchError(f"cannot start {words[0]!r}: {error.strerror}") from error
        tree = Tree(process.pid, tag)
        try:
            in_time = _wait(process, tree, started + timeout_s)
            seconds = time.perf_counter() - started
        finally:
            left = tree.kill(except_pid=process.pid if process.poll() is None else None)
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        err.seek(0)
        output, errors = (stream.read().decode(errors="replace") for stream in (out, err))
    if not in_time or process.returncode:
        why = f"exit code {process.returncode}" if in_time else f"stopped after {timeout_s:g} s"
        tail = "\n".join(f"    {line}" for line in (output + errors).splitlines()[-30:])
        raise BenchError(f"{shlex.join(words)}: {why}\n{tail}")
    metrics: dict[str, Value] = {"seconds": seconds, "processes_left": left}
    if tree.peak_bytes:
        metrics["peak_memory_gb"] = tree.peak_bytes / 1e9
    return output, metrics


def _wait(process: subprocess.Popen[bytes], tree: Tree, deadline: float) -> bool:
    """Wait for the end and sample memory meanwhile; returns False if the deadline came first."""
    while (now := time.perf_counter()) < deadline:
        before = time.thread_time()
        tree.sample()
        # Use at most a twentieth of one core, because watching must not slow down the command. The cost is measured in
        # CPU time: on a busy machine, wall time includes waiting, and pauses would become so long that peaks are
        # missed.
        pause = min(max(0.05, 20 * (time.thread_time() - before)), deadline - now)
        if _ended_within(process, pause):
            tree.sample()  # the processes that were left running
            return True
    return False


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    if hasattr(os, "pidfd_open"):  # this returns at once; Popen.wait polls in steps of up to 50 ms
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return process.poll() is not None
        try:
            select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)
        return process.poll() is not None
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _peer(name: str) -> Path:
    return BENCHMARKS / "peers" / "envs" / name


def cpus() -> set[int]:
    """The processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def memory_gb() -> float:
    """The memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
