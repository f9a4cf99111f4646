"""The benchmark runner, on toy entries in real processes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import bench as runner
import pytest

ROOT = Path(__file__).parent.parent


def arguments(folder: Path, entries: str, *options: str) -> list[str]:
    """The arguments of the runner for these entries."""
    file = folder / "bench.yaml"
    file.write_text("entries:\n" + textwrap.indent(textwrap.dedent(entries), "  "))
    return ["--file", str(file), "--results", str(folder / "results"), "--data", str(folder / "data"), *options]


def recorded(folder: Path) -> dict[str, Any]:
    """The entries of the JSON by name."""
    record = folder / "results" / "latest.json"
    return {e["name"]: e for e in json.loads(record.read_text())["entries"]} if record.exists() else {}


def bench(folder: Path, entries: str, *options: str) -> tuple[int, str, dict[str, Any]]:
    """The exit code, the whole output, and the entries of the JSON by name; the runner is called in this process."""
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        patch.setattr(sys, "argv", ["bench.py", *arguments(folder, entries, *options)])
        code = runner.main()
    return code, output.getvalue(), recorded(folder)


def bench_as_a_process(folder: Path, entries: str, *options: str) -> tuple[int, str, dict[str, Any]]:
    """The same from a process, as `make bench` starts it."""
    command = [sys.executable, str(ROOT / "tools" / "bench.py"), *arguments(folder, entries, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, recorded(folder)


def script(folder: Path, name: str, code: str) -> Path:
    path = folder / name
    path.write_text("import json, os, subprocess, sys, time\n" + textwrap.dedent(code))
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return script(
        tmp_path,
        "toy.py",
        """
        rows, speed = int(sys.argv[1]), float(sys.argv[2])
        print("BENCH", json.dumps({"rows_out": rows}))
        print("not a metric")
        print("BENCH", json.dumps({"rows_per_s": speed}))
        """,
    )


@pytest.mark.slow
def test_if_gates_hold_the_exit_code_is_zero_and_the_record_complete(tmp_path: Path, toy: Path) -> None:
    code, printed, entries = bench_as_a_process(
        tmp_path,
        f"""
        - name: toy
          command: python {toy} 12 100
          repeats: 2
          exact: {{rows_out: 12, processes_left: 0}}
          min: {{rows_per_s: 50}}
          max: {{rows_per_s: 150, seconds: 30}}
        """,
    )
    assert code == 0, printed
    assert "5 of 5 gates hold" in printed
    metrics = entries["toy"]["metrics"]
    assert metrics["rows_per_s"] == {"median": 100.0, "spread": 0.0, "values": [100.0, 100.0]}
    assert len(metrics["seconds"]["values"]) == 2
    record = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert record["versions"]["pytest"] == pytest.__version__
    assert {"commit", "started", "machine", "python"} <= record.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "gate", ["exact: {rows_out: 11}", "min: {rows_per_s: 101}", "max: {rows_per_s: 99}", "exact: {never_printed: 1}"]
)
def test_a_missed_gate_is_named_and_the_exit_code_is_one(tmp_path: Path, toy: Path, gate: str) -> None:
    code, printed, _ = bench(
        tmp_path,
        f"""
        - name: toy
          command: python {toy} 12 100
          repeats: 1
          {gate}
        """,
    )
    assert code == 1
    assert "MISSED" in printed


@pytest.mark.slow
def test_a_count_that_is_wrong_in_a_single_repeat_misses_its_gate(tmp_path: Path) -> None:
    counter = script(
        tmp_path,
        "counter.py",
        f"""
        seen = {str(tmp_path / "seen")!r}
        first = not os.path.exists(seen)
        open(seen, "w").close()
        print("BENCH", json.dumps({{"rows_out": 11 if first else 12}}))
        """,
    )
    code, printed, _ = bench(
        tmp_path,
        f"""
        - name: flaky
          command: python {counter}
          exact: {{rows_out: 12}}
        """,
    )
    assert code == 1
    assert "11, 12" in printed


@pytest.mark.slow
def test_a_ratio_compares_two_entries_and_also_runs_the_other_one(tmp_path: Path, toy: Path) -> None:
    entries = f"""
        - name: theirs
          command: python {toy} 12 100
          repeats: 1
        - name: ours
          command: python {toy} 12 250
          repeats: 1
          tags: [quick]
          ratio: [{{metric: rows_per_s, to: theirs.rows_per_s, min: LIMIT}}]
        """
    code, printed, _ = bench(tmp_path, entries.replace("LIMIT", "2"), "--tag", "quick")
    assert code == 0, printed
    assert "2.5" in printed
    code, printed, _ = bench(tmp_path, entries.replace("LIMIT", "3"), "--tag", "quick")
    assert code == 1


@pytest.mark.slow
def test_a_ratio_to_a_skipped_entry_is_not_checked(tmp_path: Path, toy: Path) -> None:
    code, printed, entries = bench(
        tmp_path,
        f"""
        - name: peer
          command: "{{peer}}/bin/python x.py"
          peer: nobody
        - name: ours
          command: python {toy} 12 250
          repeats: 1
          ratio: [{{metric: rows_per_s, to: peer.rows_per_s, min: 2}}]
        """,
    )
    assert code == 0
    assert "benchmarks/peers/nobody.sh" in entries["peer"]["skipped"]
    assert "not judged" in printed


@pytest.mark.slow
def test_a_command_that_fails_shows_the_end_of_its_output(tmp_path: Path) -> None:
    broken = script(tmp_path, "broken.py", "sys.exit('no such shard')")
    code, printed, _ = bench(
        tmp_path,
        f"""
        - name: broken
          command: python {broken}
        """,
    )
    assert code == 1
    assert "exit code 1" in printed
    assert "no such shard" in printed


@pytest.mark.slow
def test_data_is_made_once_and_again_if_its_script_changes(tmp_path: Path) -> None:
    maker = script(tmp_path, "maker.py", "open(sys.argv[1] + '/rows', 'w').write('x' * 7)")
    reader = script(
        tmp_path,
        "reader.py",
        "print('BENCH', json.dumps({'rows': len(open(sys.argv[1] + '/rows').read()), 'empty': os.listdir(sys.argv[2]) == []}))",
    )
    entry = f"""
        - name: reads
          data: python {maker} {{data}}
          command: python {reader} {{data}} {{scratch}}
          repeats: 2
          exact: {{rows: 7, empty: true}}
        """
    code, printed, _ = bench(tmp_path, entry)
    assert code == 0, printed
    assert "making its data" in printed
    _, printed, _ = bench(tmp_path, entry)
    assert "making its data" not in printed
    maker.write_text(maker.read_text().replace("7", "8"))
    code, printed, entries = bench(tmp_path, entry)
    assert "making its data" in printed
    assert entries["reads"]["metrics"]["rows"]["values"] == [8, 8]


def running(pid: int) -> bool:
    """Whether a process is running and is not a zombie, which its parent (here pid 1) may keep for a long time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")


@pytest.mark.slow
@linux
def test_memory_of_a_process_that_left_the_tree_is_counted_and_the_process_is_ended(tmp_path: Path) -> None:
    # The middle process ends at once, so that init adopts the process that uses the memory.
    holder = "import os, time; held = bytearray(os.urandom(1) * 120_000_000); open({!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    pid_file = tmp_path / "pid"
    detaching = script(
        tmp_path,
        "detaching.py",
        f"""
        holder = {holder.format(str(pid_file))!r}
        middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {{holder!r}}], start_new_session=True)"
        subprocess.run([sys.executable, "-c", middle], check=True)
        while not (os.path.exists({str(pid_file)!r}) and os.path.getsize({str(pid_file)!r})):
            time.sleep(0.01)
        """,
    )
    code, printed, _ = bench(
        tmp_path,
        f"""
        - name: detaching
          command: python {detaching}
          repeats: 1
          min: {{peak_memory_gb: 0.12}}
          exact: {{processes_left: 1}}
        """,
    )
    assert code == 0, printed
    assert not running(int(pid_file.read_text()))


@pytest.mark.slow
@linux
def test_a_command_that_runs_too_long_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    endless = tmp_path / "endless.sh"  # on a busy machine too, the shell has started its child before the time is up
    endless.write_text(f"setsid sleep 600 & echo $! > '{pid_file}'; sleep 600")
    code, printed, _ = bench(
        tmp_path,
        f"""
        - name: endless
          command: sh {endless}
          timeout_s: 2
          repeats: 1
        """,
    )
    assert code == 1
    assert "stopped after 2 s" in printed
    assert not running(int(pid_file.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("- {name: a, command: x, repeat: 3}", "repeat"),
        ("- {name: a, command: x}\n- {name: a, command: y}", "two entries"),
        ("- {name: a, command: x, ratio: [{metric: m, to: b.m, min: 1}]}", "no entry 'b'"),
        ("- {name: a, command: x, ratio: [{metric: m, to: a.m}]}", "neither min nor max"),
    ],
)
def test_a_mistake_in_the_file_is_named_and_the_exit_code_is_two(tmp_path: Path, entry: str, word: str) -> None:
    code, printed, _ = bench(tmp_path, entry)
    assert code == 2
    assert word in printed


@pytest.mark.slow
def test_an_unknown_tag_or_entry_is_an_error(tmp_path: Path, toy: Path) -> None:
    entry = f"- {{name: a, command: python {toy} 1 1, tags: [quick]}}"
    assert bench(tmp_path, entry, "--tag", "quik")[0] == 2
    assert bench(tmp_path, entry, "b")[0] == 2


@pytest.mark.slow
def test_the_entries_of_this_repository_are_valid() -> None:
    command = [sys.executable, str(ROOT / "tools" / "bench.py"), "--list"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_data_is_verified_before_an_entry_uses_it(tmp_path: Path, toy: Path) -> None:
    maker = script(
        tmp_path,
        "make.py",
        """
        import pathlib
        import pyarrow as pa, pyarrow.parquet as pq
        folder = pathlib.Path(sys.argv[1])
        (folder / "b.jsonl").write_text('{"n":2}\\n')
        (folder / "a.jsonl").write_text('{"n":1}\\n')
        pq.write_table(pa.table({"n": [1, 2]}), folder / "all.parquet")
        """,
    )
    rows = hashlib.sha256(b'{"n":1}\n{"n":2}\n').hexdigest()
    entries = f"""
        - name: toy
          data:
            make: "python {maker} {{data}}"
            sha256: {{"*.jsonl": {rows}, "*.parquet": {rows}}}
          command: python {toy} 12 100
          repeats: 1
          exact: {{rows_out: 12}}
        - name: other
          command: python {toy} 5 100
          repeats: 1
          exact: {{rows_out: 5}}
        """
    code, printed, found = bench(tmp_path, entries)
    assert code == 0, printed
    assert found["toy"]["data"] == f"python {maker} {{data}}"
    (made,) = (tmp_path / "data").iterdir()
    (made / "b.jsonl").write_text('{"n":3}\n')
    code, printed, found = bench(tmp_path, entries)
    assert code == 1
    assert f"the data in {made} is wrong: the rows of *.jsonl" in printed
    assert "update the checksum" in printed
    assert not found["toy"]["metrics"], "nothing was measured on other data"
    assert found["other"]["metrics"]["rows_out"]["values"] == [5]
