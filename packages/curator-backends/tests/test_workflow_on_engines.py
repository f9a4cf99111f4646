"""A workflow on Ray Data and on Xenna: the engine starts once for all steps, and the results equal the local ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stages_for_tests as s

from curator_backends import RayDataExecutor, XennaExecutor
from curator_core import FilePartitioning, LocalExecutor, Pipeline, Workflow
from curator_core.accounts.seen import read_seen
from curator_core.running.steps import pipelines_in
from curator_core.testing.faults import NoMultiples, ReadLines, WriteLines, assert_same, snapshot, write_inputs
from curator_core.workflow import Step

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


@dataclass
class Twice(Workflow):
    """Two steps; the first leaves files for the second."""

    paths: str
    out: str

    def steps(self, work_dir: str) -> Iterator[Pipeline | Step]:
        between = f"{work_dir}/between"
        yield Pipeline([FilePartitioning(paths=self.paths), ReadLines(), WriteLines(path=between)], name="read")
        read = [FilePartitioning(paths=between), ReadLines()]
        last = Pipeline(
            [*read, s.Draw(), NoMultiples(), NoMultiples(of=3), s.WithoutRaw(), WriteLines(path=self.out)], name="write"
        )
        yield Step(last, frees=[between])


def seen_of(folder: Path) -> dict[str, str]:
    """The samples, counts and histograms of each step, as text."""
    steps = {name: json.dumps(read_seen(place).to_json()) for name, place in pipelines_in(str(folder / "run")).items()}
    assert '"alone": 8' in steps["write"]
    assert '"counts"' in steps["write"]
    assert '"picture": "data:image' in steps["write"]
    assert '"vector"' in steps["write"]
    return steps


@pytest.mark.parametrize("engine", [RayDataExecutor, pytest.param(XennaExecutor, marks=pytest.mark.xenna)])
def test_the_engine_is_opened_once_for_all_steps(
    engine: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("open", "close", "connect"):
        real = getattr(engine, name)

        def counted(self: Any, *given: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(self, *given)

        monkeypatch.setattr(engine, name, counted)
    write_inputs(tmp_path / "in", range(4))
    flow = Twice(str(tmp_path / "in"), str(tmp_path / "out"))
    options = {
        "run_dir": str(tmp_path / "run"),
        "dropped": str(tmp_path / "gone"),
        "seen": {"samples": 3, "overlap": True},
    }
    flow.run(LocalExecutor(workers=0), **options)
    expected = seen_of(tmp_path)
    for name in ("out", "gone", "run"):
        (tmp_path / name).rename(tmp_path / f"expected-{name}")
    result = flow.run(engine(), **options)
    assert calls == ["open", "connect", "close"]
    assert [step.state for step in result.summary.steps] == ["done", "done"]
    for name in ("out", "gone"):
        assert_same(snapshot(tmp_path / name), snapshot(tmp_path / f"expected-{name}"))
    assert seen_of(tmp_path) == expected, "samples, histograms, and counts by source are those of LocalExecutor"
    flow.run(engine(), resume=True, **options)
    assert calls == ["open", "connect", "close"], "there was nothing to do"
