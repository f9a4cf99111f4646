"""How fast is it, how much memory does it take, and are the counts still right?

Runs the entries of ``benchmarks/nightly.yaml``, each several times in fresh processes, and holds them to their gates.
A measured command prints its metrics as lines ``BENCH {"rows_out": 12345, "rows_per_s": 6100.5}``; the runner adds
``seconds``, ``peak_memory_gb`` (of all processes together) and ``processes_left`` (those that outlived the command).
What an entry may say is documented at the top of ``benchmarks/nightly.yaml``.

Exit codes: 0 all gates hold, 1 a gate is missed or a command failed, 2 the file or an option is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import select
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
# Every process that a command starts inherits this variable, however it detaches itself.
TAG = "CURATOR_BENCH_RUN"
MARK = "BENCH "
OWN_METRICS = ("seconds", "peak_memory_gb", "processes_left")

Number = int | float
Value = bool | int | float | str


class BenchError(Exception):
    """The file or an option is wrong, or a command failed; the text says which and what to do."""


# --- what the file says ----------------------------------------------------------------------------------------------


class Strict(BaseModel):
    """A part of the file, in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ratio(Strict):
    """A speed gate that moves with the machine: ``metric`` divided by ``to``, which is ``entry.metric``."""

    metric: str
    to: str
    min: float | None = None
    max: float | None = None


class Resources(Strict):
    """What the command gets, and what the machine must have, or the entry is skipped."""

    cpus: int | None = Field(default=None, ge=1)
    memory_gb: float = 0.0
    gpus: int = 0


class Entry(Strict):
    """One benchmark."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    about: str = ""
    tags: tuple[str, ...] = ()
    data: str | None = None
    command: str
    peer: str | None = None
    env: dict[str, str] = {}
    resources: Resources = Resources()
    timeout_s: float = 600.0
    repeats: int = Field(default=3, ge=1)
    exact: dict[str, Value] = {}
    min: dict[str, float] = {}
    max: dict[str, float] = {}
    ratio: tuple[Ratio, ...] = ()

    @property
    def compared_with(self) -> set[str]:
        """The entries that this one's ratios need."""
        return {ratio.to.partition(".")[0] for ratio in self.ratio}


class Suite(Strict):
    """The whole file."""

    entries: tuple[Entry, ...] = ()


def load(path: Path) -> list[Entry]:
    """The entries of a file; raises ``BenchError`` with the place of what is wrong in it."""
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise BenchError(f"{path}: {error}") from error
    names = [entry.name for entry in suite.entries]
    for entry in suite.entries:
        if names.count(entry.name) > 1:
            raise BenchError(f"{path}: two entries are named {entry.name!r}; rename one")
        for ratio in entry.ratio:
            if (other := ratio.to.partition(".")[0]) not in names or "." not in ratio.to:
                raise BenchError(
                    f"{path}: {entry.name}: ratio.to is {ratio.to!r}; it must be ENTRY.METRIC, and there is "
                    f"{'such an entry but no metric' if other in names else f'no entry {other!r}'}"
                )
            if ratio.min is None and ratio.max is None:
                raise BenchError(f"{path}: {entry.name}: the ratio of {ratio.metric!r} has neither min nor max")
    return list(suite.entries)


def choose(entries: list[Entry], tags: Iterable[str], only: Iterable[str]) -> list[Entry]:
    """The entries with one of the tags or names (all, if none is given), and those they are compared with."""
    tags, only = set(tags), set(only)
    known_tags, names = {tag for entry in entries for tag in entry.tags}, {entry.name for entry in entries}
    for what, wanted, known in (("tag", tags, known_tags), ("entry", only, names)):
        if unknown := sorted(wanted - known):
            raise BenchError(f"no {what} {unknown[0]!r}; there are: {', '.join(sorted(known)) or 'none'}")
    chosen = {e.name for e in entries if (not tags and not only) or e.name in only or tags & set(e.tags)}
    while more := {name for e in entries if e.name in chosen for name in e.compared_with} - chosen:
        chosen |= more
    return [entry for entry in entries if entry.name in chosen]


def groups(entries: list[Entry]) -> list[list[Entry]]:
    """Entries that are compared with one another, together; in the order of the file."""
    found: list[list[Entry]] = []
    for entry in entries:
        tied = [g for g in found if any(entry.name in o.compared_with or o.name in entry.compared_with for o in g)]
        merged = [*(one for group in tied for one in group), entry]
        found = [group for group in found if group not in tied] + [merged]
    return found


# --- running ---------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What was measured of one entry: each metric's value in each repeat, or why there is none."""

    entry: Entry
    values: dict[str, list[Value]] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""

    def median(self, metric: str) -> float | None:
        """The median of a metric, or None where it was not measured or is not a number."""
        numbers = self.numbers(metric)
        return statistics.median(numbers) if numbers else None

    def numbers(self, metric: str) -> list[Number]:
        """The values of a metric if they are numbers."""
        values = self.values.get(metric, [])
        return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]

    def spread(self, metric: str) -> float | None:
        """(largest - smallest) / median: how far to trust the median."""
        numbers, middle = self.numbers(metric), self.median(metric)
        return (max(numbers) - min(numbers)) / abs(middle) if middle and len(numbers) > 1 else None


def measure(group: list[Entry], repeats: int | None, data_root: Path) -> list[Measured]:
    """Run the entries of a group in turns, so that what disturbs the machine disturbs all of them alike."""
    results = [Measured(entry, skipped=_why_not(entry)) for entry in group]
    data = {one.entry.name: _make_data(one.entry, data_root) for one in results if not one.skipped}
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
    """Why this machine cannot run the entry, or nothing."""
    wants, cpus, memory_gb = entry.resources, len(_cpus()), _memory_gb()
    if wants.cpus is not None and wants.cpus > cpus:
        return f"needs {wants.cpus} CPUs, this machine has {cpus}"
    if wants.memory_gb > memory_gb:
        return f"needs {wants.memory_gb:g} GB of memory, this machine has {memory_gb:.0f} GB"
    if wants.gpus > (gpus := len(list(Path("/dev").glob("nvidia[0-9]*")))):
        return f"needs {wants.gpus} GPUs, this machine has {gpus}"
    if entry.peer and not _peer(entry.peer).is_dir():
        return f"peer not installed: run  bash benchmarks/peers/{entry.peer}.sh"
    return ""


def _make_data(entry: Entry, data_root: Path) -> Path:
    """The folder with the entry's data, made if it is not there yet. One maker command makes one folder."""
    if entry.data is None:
        return data_root
    words = shlex.split(entry.data)
    key = hashlib.sha256(entry.data.encode())
    for word in words:
        if (ROOT / word).is_file():  # a maker that has changed makes new data
            key.update((ROOT / word).read_bytes())
    folder = data_root / key.hexdigest()[:16]
    if not folder.is_dir():
        print(f"  {entry.name}: making its data", flush=True)
        data_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_root, prefix="making-") as scratch:
            target = Path(scratch) / "data"
            target.mkdir()
            _spawn(entry, [word.replace("{data}", str(target)) for word in words], pinned=False)
            target.rename(folder)
    return folder


def _run_once(entry: Entry, data: Path) -> dict[str, Value]:
    with tempfile.TemporaryDirectory(prefix="curator-bench-") as scratch:
        places = {"{data}": str(data), "{scratch}": scratch, "{peer}": str(_peer(entry.peer or ""))}
        words = [_fill(word, places) for word in shlex.split(entry.command)]
        output, metrics = _spawn(entry, words, pinned=True)
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


def _spawn(entry: Entry, words: list[str], pinned: bool) -> tuple[str, dict[str, Value]]:
    """Run a command to its end, watching the memory of everything that it starts; its output and our metrics."""
    tag = uuid.uuid4().hex
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path} | entry.env | {TAG: tag}
    cpus = sorted(_cpus())[: entry.resources.cpus] if pinned and entry.resources.cpus else None
    # Files, not pipes: a process that outlives the command would hold a pipe open.
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
                # Safe here: this program starts no threads.
                preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,  # noqa: PLW1509
            )
        except OSError as error:
            raise BenchError(f"cannot start {words[0]!r}: {error.strerror}") from error
        tree = Tree(process.pid, tag)
        try:
            in_time = _wait(process, tree, started + entry.timeout_s)
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
        why = f"exit code {process.returncode}" if in_time else f"stopped after timeout_s: {entry.timeout_s:g}"
        tail = "\n".join(f"    {line}" for line in (output + errors).splitlines()[-30:])
        raise BenchError(f"{shlex.join(words)}: {why}\n{tail}")
    metrics: dict[str, Value] = {"seconds": seconds, "processes_left": left}
    if tree.peak_bytes:
        metrics["peak_memory_gb"] = tree.peak_bytes / 1e9
    return output, metrics


def _wait(process: subprocess.Popen[bytes], tree: Tree, deadline: float) -> bool:
    """Wait for the end, sampling memory meanwhile; False if the deadline came first."""
    while (now := time.perf_counter()) < deadline:
        before = time.thread_time()
        tree.sample()
        # At most a twentieth of one core: the watch must not slow what it watches. Counted in CPU time, since on a
        # busy machine the clock also counts the waiting, and the pauses would grow until peaks are missed.
        pause = min(max(0.05, 20 * (time.thread_time() - before)), deadline - now)
        if _ended_within(process, pause):
            tree.sample()  # what was left running
            return True
    return False


def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    if hasattr(os, "pidfd_open"):  # wakes at once; Popen.wait polls in steps of up to 50 ms
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


class Tree:
    """All processes that a command started, also those that have left it for another parent.

    Found by the variable in their environment, or by a parent that belongs. Linux only; elsewhere it sees nothing.
    """

    def __init__(self, pid: int, tag: str) -> None:
        self.peak_bytes = 0
        self._root = pid
        self._needle = f"{TAG}={tag}".encode()
        # By pid and start time, since pids are used again. What once belonged still does after an exec.
        self._known: dict[tuple[int, int], bool] = {}

    def sample(self) -> None:
        """Add up the memory now; shared pages count once, split among those who share them (PSS)."""
        total = sum(_pss_bytes(pid) for pid in self.members())
        self.peak_bytes = max(self.peak_bytes, total)

    def members(self) -> list[int]:
        """The pids that belong now."""
        alive = dict(_processes())
        belongs: dict[int, bool] = {}
        for pid, (parent, started) in sorted(alive.items(), key=lambda item: item[1][1]):
            key = (pid, started)
            if pid == self._root or belongs.get(parent):
                self._known[key] = True
            elif key not in self._known:
                self._known[key] = self._needle in _environment(pid).split(b"\0")
            belongs[pid] = self._known[key]
        return [pid for pid, ours in belongs.items() if ours]

    def kill(self, except_pid: int | None) -> int:
        """Kill what is still running; how many there were (two looks: the first may see one about to end)."""
        found = [pid for pid in self.members() if pid != except_pid]
        if found and except_pid is None:
            time.sleep(0.2)
            found = self.members()
        count = len(found)
        for _ in range(20):
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            found = [pid for pid in self.members() if pid != except_pid]
            if not found:
                break
            time.sleep(0.05)
        return count


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Pid, parent and start time of each process that is not a zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; the numbers come after the last one.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields and fields[0] != "Z":
            yield int(path.parent.name), (int(fields[1]), int(fields[19]))


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's, or gone
        return b""


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended between the listing and here
    return 0


def _peer(name: str) -> Path:
    return BENCHMARKS / "peers" / "envs" / name


def _cpus() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


# --- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """One gate and its verdict; ``held`` is None where it could not be judged on this machine."""

    entry: str
    metric: str
    rule: str
    found: str
    held: bool | None


def judge(results: list[Measured]) -> list[Gate]:
    """All gates of all entries. A metric that the command never printed misses its gate."""
    by_name = {one.entry.name: one for one in results}
    return [gate for one in results for gate in _gates_of(one, by_name)]


def _gates_of(one: Measured, by_name: dict[str, Measured]) -> Iterator[Gate]:
    entry = one.entry
    if one.skipped:
        return
    if one.failed:
        yield Gate(entry.name, "command", "runs", "failed", False)
        return
    for metric, wanted in entry.exact.items():
        values = one.values.get(metric, [])
        # Every repeat, not the median: a count that is right most of the time is wrong.
        held = bool(values) and all(isinstance(v, bool) is isinstance(wanted, bool) and v == wanted for v in values)
        found = ", ".join(sorted({_show(v) for v in values})) or "not printed"
        yield Gate(entry.name, metric, f"= {_show(wanted)}", found, held)
    for metric, least in entry.min.items():
        yield _compare(entry.name, metric, one.median(metric), ">=", least)
    for metric, most in entry.max.items():
        yield _compare(entry.name, metric, one.median(metric), "<=", most)
    for ratio in entry.ratio:
        name, _, metric = ratio.to.partition(".")
        other = by_name[name]
        label = f"{ratio.metric} / {ratio.to}"
        above, below = one.median(ratio.metric), other.median(metric)
        for limit, sign in ((ratio.min, ">="), (ratio.max, "<=")):
            if limit is None:
                continue
            if other.skipped:
                yield Gate(entry.name, label, f"{sign} {limit:g}", f"{name} was skipped", None)
            else:
                yield _compare(entry.name, label, above / below if above is not None and below else None, sign, limit)


def _compare(entry: str, metric: str, value: float | None, sign: str, limit: float) -> Gate:
    rule = f"{sign} {_show(limit)}"
    if value is None:
        return Gate(entry, metric, rule, "not measured" if metric in OWN_METRICS else "not printed", False)
    return Gate(entry, metric, rule, _show(value), value >= limit if sign == ">=" else value <= limit)


# --- telling ---------------------------------------------------------------------------------------------------------


def as_record(results: list[Measured], gates: list[Gate], started: datetime) -> dict[str, object]:
    """Everything that is needed to compare this run with another one."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "started": started.isoformat(timespec="seconds"),
        "commit": commit or None,
        "changed_files": len(changed.splitlines()),
        "machine": {
            "system": platform.platform(),
            "cpus": len(_cpus()),
            "cpu": _cpu_model(),
            "memory_gb": round(_memory_gb(), 1),
            "load_before": _load_before,
        },
        "python": platform.python_version(),
        "versions": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=lambda d: d.metadata["Name"])},
        "entries": [
            {
                "name": one.entry.name,
                "command": one.entry.command,
                "data": one.entry.data,
                "skipped": one.skipped or None,
                "failed": one.failed or None,
                "metrics": {
                    metric: {"median": one.median(metric), "spread": one.spread(metric), "values": values}
                    for metric, values in one.values.items()
                },
                "gates": [
                    {"metric": g.metric, "rule": g.rule, "found": g.found, "held": g.held}
                    for g in gates
                    if g.entry == one.entry.name
                ],
            }
            for one in results
        ],
    }


_load_before = [round(load, 2) for load in os.getloadavg()]


def as_table(results: list[Measured], gates: list[Gate]) -> str:
    """One line per metric, with its gate where it has one."""
    rows = [("entry", "metric", "median", "spread", "gate", "")]
    for one in results:
        name = one.entry.name
        if one.skipped:
            rows.append((name, "skipped", one.skipped, "", "", ""))
            continue
        own = [gate for gate in gates if gate.entry == name]
        plain = sorted(one.values.keys() - {gate.metric for gate in own})
        for metric in plain:
            rows.append((name, metric, _middle(one, metric), _percent(one.spread(metric)), "", ""))
        for gate in own:
            verdict = {True: "ok", False: "MISSED", None: "not judged"}[gate.held]
            rows.append((name, gate.metric, gate.found, _percent(one.spread(gate.metric)), gate.rule, verdict))
    # A long reason need not widen every row.
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * min(120, sum(widths) + 10), *lines[1:]])


def _middle(one: Measured, metric: str) -> str:
    median = one.median(metric)
    return _show(median) if median is not None else ", ".join(sorted({_show(v) for v in one.values[metric]}))


def _show(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> int:
    """Run what was asked for; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="ENTRY", help="run these entries (default: all)")
    parser.add_argument("--tag", action="append", default=[], help="run the entries with this tag; may be repeated")
    parser.add_argument("--repeats", type=int, help="instead of each entry's own number")
    parser.add_argument("--file", type=Path, default=BENCHMARKS / "nightly.yaml")
    parser.add_argument("--results", type=Path, default=BENCHMARKS / "results", help="where the JSON goes")
    parser.add_argument("--data", type=Path, default=BENCHMARKS / ".data", help="where made data is kept")
    parser.add_argument("--list", action="store_true", help="list the entries and stop")
    options = parser.parse_args()
    try:
        return _main(options)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _main(options: argparse.Namespace) -> int:
    chosen = choose(load(options.file), options.tag, options.only)
    if options.list:
        for entry in chosen:
            print(f"{entry.name:<32} [{', '.join(entry.tags)}] {entry.about}")
        return 0
    if not chosen:
        print(f"{options.file} has no entries")
        return 0
    started = datetime.now(UTC)
    results = [one for group in groups(chosen) for one in measure(group, options.repeats, options.data)]
    gates = judge(results)
    target = _write(as_record(results, gates, started), options.results, started)
    print(f"\n{as_table(results, gates)}\n")
    for one in results:
        if one.failed:
            print(f"{one.entry.name} failed: {one.failed}", file=sys.stderr)
    missed = [gate for gate in gates if gate.held is False]
    print(f"{len(gates) - len(missed)} of {len(gates)} gates hold; {target}")
    return 1 if missed else 0


def _write(record: dict[str, object], folder: Path, started: datetime) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{started:%Y%m%dT%H%M%SZ}-{str(record['commit'] or 'none')[:10]}.json"
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.rename(target)
    shutil.copyfile(target, folder / "latest.json")
    return target


if __name__ == "__main__":
    sys.exit(main())
