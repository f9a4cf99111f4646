"""The fuzzer finds no fault in hundreds of damaged inputs, and reports a faulty area. To run more: ``tools/fuzz.py``."""

from __future__ import annotations

import textwrap
from pathlib import Path

import fuzz
import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.thorough)])
def test_damaged_input_causes_no_crash_no_hang_and_no_lost_row(tmp_path: Path, count: int) -> None:
    report = fuzz.fuzz(range(count), tmp_path)
    assert sum(report.inputs.values()) == count
    assert min(report.inputs.values()) > count // 50, "an area was hardly tried"
    assert [(one["number"], one["what"]) for one in report.findings] == []


AREAS = """
    import ctypes, time
    from collections import Counter
    from pathlib import Path

    class Finding(Exception): ...

    class Area:
        share = 1
        noted = Counter()
        def close(self): ...

    class Good(Area):
        def check(self, rng, cage): (cage / "out").mkdir()

    class Wrong(Area):
        def check(self, rng, cage): raise Finding("rows do not add up")

    class Raises(Area):
        def check(self, rng, cage): [][1]

    class Crashes(Area):
        def check(self, rng, cage): ctypes.string_at(0)

    class Hangs(Area):
        def check(self, rng, cage):
            while True: time.sleep(0.01)

    class Escapes(Area):
        def check(self, rng, cage): (cage / ".." / "evil").write_text("x")

    class Absolute(Area):
        def check(self, rng, cage): Path(OUTSIDE).write_text("x")

    AREAS = {cls.__name__: cls for cls in (Good, Wrong, Raises, Crashes, Hangs, Escapes, Absolute)}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("area", "what"),
    [
        ("Good", None),
        ("Wrong", "rows do not add up"),
        ("Raises", "Raises: IndexError in fuzz_areas.py"),
        ("Crashes", "Crashes: the process ends with -11"),
        ("Hangs", "Hangs: takes more than 0.3 s"),
        ("Escapes", "Escapes: writes outside of its folders"),
        ("Absolute", "Absolute: writes outside of its folders"),
    ],
)
def test_each_kind_of_fault_is_found_and_the_next_input_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, area: str, what: str | None
) -> None:
    (tmp_path / "fuzz.py").write_text(Path(fuzz.__file__).read_text())
    outside = f"OUTSIDE = {str(tmp_path / 'outside')!r}\n"
    (tmp_path / "fuzz_areas.py").write_text(outside + textwrap.dedent(AREAS))
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "fuzz.py"))
    report = fuzz.fuzz(range(2), tmp_path / "state", [area], limit_s=0.3)
    assert report.inputs == {area: 2}
    found = [one["what"] for one in report.findings]
    assert len(found) == (0 if what is None else 2)
    assert all(what is not None and one.startswith(what) for one in found)


@pytest.mark.slow
def test_an_interrupted_run_continues_where_it_stopped(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = fuzz.fuzz(range(3), state, ["yaml"])
    again = fuzz.fuzz(range(5), state, ["yaml"])
    assert (first.next, again.next) == (3, 5)
    assert again.inputs == {"yaml": 5}
