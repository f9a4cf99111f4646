"""The nightly image benchmarks compare executors on equal terms."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

NIGHTLY = Path(__file__).parent.parent / "benchmarks" / "nightly.yaml"
EXECUTORS = {"local": "local", "raydata": "ray_data", "xenna": "xenna"}


@pytest.fixture(scope="module")
def entries() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in yaml.safe_load(NIGHTLY.read_text())["entries"]}


def without_executor(command: str) -> list[str]:
    words = shlex.split(command)
    at = words.index("--executor")
    return words[:at] + words[at + 2 :]


def test_the_full_chain_has_the_same_settings_on_every_executor(entries: dict[str, dict[str, Any]]) -> None:
    local = entries["image_curation_local"]
    for name, executor in EXECUTORS.items():
        entry = entries[f"image_curation_{name}"]
        assert f"--executor {executor}" in entry["command"]
        for key in ("data", "resources", "exact", "min"):
            assert entry[key] == local[key], (name, key)
        assert without_executor(entry["command"]) == without_executor(local["command"])


def test_the_entry_without_the_fanout_key_differs_only_in_it(entries: dict[str, dict[str, Any]]) -> None:
    with_fact, without = entries["image_curation_raydata"], entries["image_curation_raydata_nofanout"]
    assert without["command"] == f"{with_fact['command']} --no-fanout"
    for key in ("data", "resources", "exact"):
        assert without[key] == with_fact[key]


@pytest.mark.parametrize("chain", ["image_chain_local", "image_curation_local"])
def test_the_counts_of_an_entry_add_up(entries: dict[str, dict[str, Any]], chain: str) -> None:
    exact = entries[chain]["exact"]
    rejected = sum(number for name, number in exact.items() if name.startswith("rejected_"))
    assert rejected == 0.01 * exact["rows_in"]
    assert exact["rejects_listed"] == 1
    if "rows_out" in exact:
        dropped = sum(number for name, number in exact.items() if name.startswith("dropped_"))
        assert exact["rows_in"] == exact["rows_out"] + dropped + rejected


@pytest.mark.slow
@pytest.mark.models
def test_the_parts_of_the_gpu_benchmark_run_on_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(NIGHTLY.parent))
    import image_gpu

    words = [str(tmp_path), "--cpu", "--size", "tiny", "--side", "96", "--seconds", "0.1", "--rows", "8"]
    options = image_gpu.arguments().parse_args(words)
    bare, memory = image_gpu.measure_bare(options), image_gpu.measure_memory(options)
    assert bare["bare_images_s"] > 0
    assert memory["memory_images_s"] > 0
    assert image_gpu.measure_agree(options)["agree_precision_cosine"] > 0.9999
    assert image_gpu.measure_decode(options)["decode_cpu_images_s"] > 0


@pytest.mark.slow
def test_a_part_that_does_not_end_is_stopped_and_affects_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(NIGHTLY.parent))
    import gpu_parts

    script = tmp_path / "parts.py"
    script.write_text(
        "import sys, threading\n"
        "part = sys.argv[-1]\n"
        "if part == 'hangs': threading.Event().wait()\n"
        "if part == 'fails': sys.exit(4)\n"
        "print('PART', '{\"' + part + '_rate\": 8}', flush=True)\n"
        "if part == 'late': threading.Event().wait()\n"
    )
    monkeypatch.setattr("sys.argv", ["parts.py"])
    options = SimpleNamespace(cpu=False, part_seconds=2.0)
    ratios = {"ratio": ("one_rate", "late_rate"), "none": ("one_rate", "hangs_rate")}
    assert gpu_parts.run_parts(str(script), ["hangs", "one", "late", "fails"], options, ratios) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    expected = {"gpu": 1, "hangs_stopped_after_s": 2.0, "one_rate": 8, "late_rate": 8, "late_stopped_after_s": 2.0}
    assert json.loads(last.removeprefix("BENCH ")) == {**expected, "fails_failed": 4, "ratio": 1.0}
