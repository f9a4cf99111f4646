"""The times of a worker: slots lose no second, however long it works, and their file stays small."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.accounts.work_times import SLOTS, WorkTimes, read_times
from curator_core.running.page.timeline import timeline
from curator_core.running.work import MOST_WORKERS, work_of


def content(times: WorkTimes, folder: Path, name: str = "0001-x") -> dict:
    times.ending = True
    times.write(str(folder), name)
    return json.loads((folder / "times" / f"{name}.json").read_text())


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 50), st.floats(0, 400)), min_size=1, max_size=30))
def test_every_second_of_work_is_in_a_slot_and_there_are_few_slots(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, float, float]]
) -> None:
    times = WorkTimes()
    at, wanted = times._zero, dict.fromkeys("ab", 0.0)
    for stage, pause, seconds in calls:
        times.add(stage, at + pause, at + pause + seconds)
        at += pause + seconds
        wanted[stage] += seconds
    found = content(times, tmp_path_factory.mktemp("run"))
    for stage, slots in found["busy"].items():
        assert len(slots) <= SLOTS
        assert sum(slots) == pytest.approx(wanted[stage], abs=0.02)
        assert max(slots) <= found["width"] * (1 + 1e-6) + 1e-4
    assert found["seconds"] == pytest.approx(at - times._zero)


@pytest.mark.slow
def test_the_workers_of_one_attempt_share_an_axis_and_others_are_counted(tmp_path: Path) -> None:
    for number in range(MOST_WORKERS + 3):
        times = WorkTimes()
        times.worker = f"w{number}<b>"
        times.add("Read", times._zero, times._zero + 1 + number / 10)
        times.add("Write", times._zero + 4, times._zero + 5)
        for _ in range(100):
            times.measure("Read", pa.table({"a": pa.array([1] * 10, pa.int64())}))
        content(times, tmp_path, f"0002-{number:02d}")
    (tmp_path / "times" / "0001-of-an-earlier-attempt.json").write_text('{"busy": {"Read": [1]}}')
    (tmp_path / "times" / "0002-damaged.json").write_text('{"busy"')
    found = work_of(read_times(str(tmp_path), 2), ["Read", "Write"], None)
    assert (len(found["workers"]), found["of"]) == (MOST_WORKERS, MOST_WORKERS + 3)
    # Those that worked longest are shown.
    assert min(worker["busy"]["Read"] for worker in found["workers"]) == pytest.approx(1.3)
    first = found["workers"][0]
    assert first["waited"] == pytest.approx(5 - sum(first["busy"].values()), abs=1e-3)
    assert sum(first["slots"]["Write"]) * (found["ends"] - found["begins"]) / len(
        first["slots"]["Write"]
    ) == pytest.approx(1, abs=0.1)
    # Some tables are measured, so that the size of a row is known.
    measured = found["by_stage"]["Read"]
    assert 0 < measured["rows"] < 50 * (MOST_WORKERS + 3)
    assert measured["bytes"] == 8 * measured["rows"]
    assert found["by_stage"]["Write"]["waited"] == 0
    page = timeline(found)
    assert f"{MOST_WORKERS} of {MOST_WORKERS + 3} workers" in page
    assert "<b>:" not in page
    assert work_of([], ["Read"], None)["workers"] == []


@pytest.mark.parametrize("stages", [1, 5, 6, 17, 30, 31])
def test_every_stage_has_its_own_marks_in_the_timeline(stages: int) -> None:
    """Five shades, and beyond them the same with stripes; those that take the most time are plain."""
    busy = {f"Stage{number:02d}": float(1 + number) for number in range(stages)} | {"Idle": 0.0}
    slots = {name: [min(1.0, seconds)] for name, seconds in busy.items()}
    worker = {"id": "w", "begun": 0.0, "seconds": 9.0, "busy": busy, "waited": 0.0, "memory": None, "slots": slots}
    page = timeline({"workers": [worker], "of": 1, "begins": 0.0, "ends": 9.0})
    fills = re.findall(r'<path (\S+="[^"]+") d=', page)
    assert len(fills) == stages
    assert len(set(fills)) == stages
    key = dict(re.findall(r"<rect width=\"14\" height=\"14\" (\S+=\"[^\"]+\")/></svg>([^<]+)</em>", page))
    named = [name for name in busy if name != "Idle"][-30:]
    assert [key[fill] for fill in fills[-30:]] == named
    assert (key.get('class="shade-none"') == "other stages") == (stages > 30)
    assert {fill for fill in fills[-5:] if "stripes" in fill} == set()
    used = {fill.split("#")[1][:-2] for fill in fills if "stripes" in fill}
    assert used == set(re.findall(r'<pattern id="([^"]+)"', page))
