"""Checks that damaged input does not crash, hang, lose a row, or write outside its folders, using numbered inputs.

    tools/fuzz.py --count 1000                       # as `make test-engines` does
    nice tools/fuzz.py --count 100000 --state FOLDER # by hand; the same command continues after an interruption
    tools/fuzz.py --first 4711 --count 1             # one input again, with its traceback

Separate processes handle a thousand inputs each, so a crash affects only one input and memory stays bounded. An input
that takes longer than ``--limit-s`` counts as a hang. Findings go to ``findings.jsonl`` in the state folder, and the
inputs themselves to ``inputs/NUMBER``. The checks of each area are in ``fuzz_areas.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHUNK = 1000
MEMORY = 6 << 30  # limit for the address space of a process; a good input needs a thirtieth of it
GROWTH = 1 << 30  # limit for the peak memory that one input adds to the process


@dataclass
class Report:
    """The results of the inputs so far."""

    next: int
    inputs: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def text(self) -> str:
        """A summary for people: inputs by area, and findings, with similar ones grouped."""
        lines = [f"{sum(self.inputs.values()):,} inputs in {self.seconds:,.0f} s"]
        lines += [f"  {count:>8,} {area}" for area, count in sorted(self.inputs.items())]
        lines += [f"  {count:>8,} {what}" for what, count in sorted(self.noted.items())]
        alike = Counter(one["what"] for one in self.findings)
        for what, count in alike.most_common():
            numbers = [one["number"] for one in self.findings if one["what"] == what][:5]
            lines.append(f"FOUND {count:,} times: {what}\n      inputs {', '.join(map(str, numbers))}")
        return "\n".join([*lines, f"{len(self.findings):,} findings of {len(alike):,} kinds"])


def main() -> int:
    """Try the inputs; returns the exit code, which says whether there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="number of inputs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first input (default: 0)")
    parser.add_argument(
        "--areas", nargs="+", metavar="AREA", help="only these areas: jsonl, csv, parquet, warc, html, …"
    )
    parser.add_argument("--limit-s", type=float, default=20.0, help="time limit for one input (default: %(default)s)")
    parser.add_argument("--state", type=Path, help="a folder for findings and progress, from which the run continues")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count)
    if options.child:
        _child(numbers, options.areas, options.state, options.limit_s)
        return 0
    with contextlib.ExitStack() as stack:
        state = options.state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="curator-fuzz-")))
        report = fuzz(numbers, state, options.areas, options.limit_s)
    print(report.text())
    return 1 if report.findings else 0


def fuzz(numbers: range, state: Path, areas: list[str] | None = None, limit_s: float = 20.0) -> Report:
    """Try the inputs with these numbers, except those that ``state`` records as done."""
    state.mkdir(parents=True, exist_ok=True)
    report = _loaded(state, numbers.start)
    while report.next < numbers.stop:
        chunk = range(report.next, min(report.next + CHUNK, numbers.stop))
        started = time.monotonic()
        report.next = _run_chunk(chunk, state, areas, limit_s, report)
        report.seconds += time.monotonic() - started
        _save(report, state)
    return report


def _run_chunk(chunk: range, state: Path, areas: list[str] | None, limit_s: float, report: Report) -> int:
    """Run a chunk in a separate process. Returns the number with which to continue if an input ended the process."""
    command = [sys.executable, __file__, "--child", f"--first={chunk.start}", f"--count={len(chunk)}"]
    command += [f"--state={state}", f"--limit-s={limit_s}", *(["--areas", *areas] if areas else [])]
    # A separate session, so that all of its processes can be ended together.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    assert child.stderr is not None
    current: dict[str, Any] = {}
    stderr = bytearray()
    hung = False
    for line in _lines(child, stderr, limit_s * 2 + 30):
        if line is None:
            hung = True
            break
        said = json.loads(line)
        if said["event"] == "begin":
            current = said
            report.inputs[said["area"]] += 1
        elif said["event"] == "found":
            report.findings.append({key: said[key] for key in ("number", "area", "what", "detail")})
        else:
            report.noted.update(said["noted"])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL if hung else signal.SIGTERM)
    code = child.wait()
    if not hung and code == 0:
        return chunk.stop
    if not current:
        sys.exit(f"error: the fuzzer itself does not work:\n{stderr.decode(errors='replace')}")
    what = f"{current['area']}: " + ("hangs, even when it is interrupted" if hung else f"the process ends with {code}")
    detail = stderr[-4000:].decode(errors="replace")
    report.findings.append({"number": current["number"], "area": current["area"], "what": what, "detail": detail})
    return int(current["number"]) + 1


def _lines(child: subprocess.Popen[bytes], stderr: bytearray, patience_s: float) -> Iterator[bytes | None]:
    """Yield the child's output line by line; yield None once if there is no output for too long."""
    assert child.stdout is not None
    assert child.stderr is not None
    left, streams = b"", [child.stdout, child.stderr]
    while streams:
        ready, _, _ = select.select(streams, [], [], patience_s)
        if not ready:
            yield None
            return
        for stream in ready:
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                streams.remove(stream)
            elif stream is child.stderr:
                stderr += data
                del stderr[:-20_000]
            else:
                *lines, left = (left + data).split(b"\n")
                yield from lines


def _child(numbers: range, areas: list[str] | None, state: Path | None, limit_s: float) -> None:
    """Try inputs one after the other, and report each result on standard output."""
    from fuzz_areas import AREAS, Area, Finding  # imported only in the child, since it takes half a second

    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep the output of libraries off standard output
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGALRM, _alarm)
    made: dict[str, Area] = {}
    chosen = [name for name, area in AREAS.items() if not areas or name in areas for _ in range(area.share)]
    top = Path(tempfile.mkdtemp(prefix="curator-fuzz-cage-"))
    written: list[str] = []
    _watch_writes(written)
    try:
        for number in numbers:
            rng = random.Random(number)
            name = rng.choice(chosen)
            say.write(json.dumps({"event": "begin", "number": number, "area": name}) + "\n")
            cage = _cage(top)
            written.clear()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found = detail = ""
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            try:
                made[name] = made.get(name) or AREAS[name]()
                made[name].check(rng, cage)
            except Finding as error:
                found, detail = str(error), traceback.format_exc()
            except _TakesTooLongError:
                found, detail = f"{name}: takes more than {limit_s:g} s", traceback.format_exc()
            except BaseException as error:
                found, detail = f"{name}: {_place(error)}", traceback.format_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) << 10 > GROWTH:
                found = found or f"{name}: takes more than a gigabyte of memory"
            if strays := _strays(top, written):
                found, detail = found or f"{name}: writes outside of its folders", "\n".join([detail, *strays])
            if found:
                if state is not None and (cage / "in").exists():
                    shutil.copytree(cage / "in", state / "inputs" / str(number), dirs_exist_ok=True)
                one = {"event": "found", "number": number, "area": name, "what": found, "detail": detail[-6000:]}
                say.write(json.dumps(one) + "\n")
        say.write(json.dumps({"event": "end", "noted": sum((area.noted for area in made.values()), Counter())}) + "\n")
    finally:
        for area in made.values():
            area.close()
        shutil.rmtree(top, ignore_errors=True)


def _cage(top: Path) -> Path:
    """An empty folder for one input, with nothing next to it, so anything that appears next to it was written outside."""
    for path in top.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    cage = top / "level" / "cage"
    (cage / "in").mkdir(parents=True)
    (cage / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(cage / "tmp")
    os.chdir(cage)
    return cage


def _strays(top: Path, written: list[str]) -> list[str]:
    """Files that were written outside the cage."""
    cage = top / "level" / "cage"
    beside = [str(path) for path in (*top.iterdir(), *(top / "level").iterdir()) if path not in (top / "level", cage)]
    own = {"in", "out", "run", "tmp"}
    beside += [str(path) for path in cage.iterdir() if path.name not in own]
    allowed = (str(top), f"{top.parent}/curator-fuzz-run-", "/dev/null", "/proc/self")
    return beside + [path for path in written if not path.startswith(allowed)]


def _watch_writes(written: list[str]) -> None:
    """Record every file that Python opens for writing, makes, moves or removes."""
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & flags:
            noted = arguments[0]
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate"):
            noted = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
        else:
            return
        # Python's own caches of modules do not count.
        if isinstance(noted, str | bytes) and "__pycache__" not in (text := os.fsdecode(noted)):
            written.append(os.path.abspath(text))  # noqa: PTH100 - resolving links would hide the path that was used

    sys.addaudithook(watch)


class _TakesTooLongError(BaseException):
    """Not an `Exception`, so that no handler treats it as a fault of the input."""


def _alarm(*_: object) -> None:
    raise _TakesTooLongError


def _place(error: BaseException) -> str:
    """The class of an error and the last line of our code in its traceback, to distinguish faults."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/curator_" in frame.filename] or frames
    last = ours[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno} {last.name}()"


def _loaded(state: Path, first: int) -> Report:
    path = state / "state.json"
    if not path.exists():
        return Report(first)
    kept = json.loads(path.read_text())
    lines = (state / "findings.jsonl").read_text().splitlines()
    return Report(
        kept["next"], Counter(kept["inputs"]), Counter(kept["noted"]), list(map(json.loads, lines)), kept["seconds"]
    )


def _save(report: Report, state: Path) -> None:
    (state / "findings.jsonl").write_text("".join(json.dumps(one) + "\n" for one in report.findings))
    kept = {"next": report.next, "inputs": report.inputs, "noted": report.noted, "seconds": report.seconds}
    partial = state / "state.json.partial"
    partial.write_text(json.dumps(kept))
    partial.replace(state / "state.json")


if __name__ == "__main__":
    sys.exit(main())
