"""Runs the benchmarks, which measure speed and memory and check counts.

It runs the entries of ``benchmarks/nightly.yaml``, each several times in fresh processes, and checks their gates. A
measured command prints its metrics as lines ``BENCH {"rows_out": 12345, "rows_per_s": 6100.5}``; the runner adds
``seconds``, ``peak_memory_gb`` (of all processes together) and ``processes_left`` (processes that outlived the
command). The keys of an entry are documented at the top of ``benchmarks/nightly.yaml``.

Exit codes: 0 all gates hold, 1 a gate is missed or a command failed, 2 the file or an option is wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from benching.gates import judge
from benching.report import as_record, as_table
from benching.runner import BENCHMARKS, measure
from benching.suite import BenchError, choose, groups, load


def main() -> int:
    """Run the requested entries; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="ENTRY", help="run these entries (default: all)")
    parser.add_argument("--tag", action="append", default=[], help="run the entries with this tag; may be repeated")
    parser.add_argument("--repeats", type=int, help="use this number instead of the one in each entry")
    parser.add_argument("--file", type=Path, default=BENCHMARKS / "nightly.yaml")
    parser.add_argument("--results", type=Path, default=BENCHMARKS / "results", help="folder for the JSON")
    parser.add_argument("--data", type=Path, default=BENCHMARKS / ".data", help="folder for generated data")
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
