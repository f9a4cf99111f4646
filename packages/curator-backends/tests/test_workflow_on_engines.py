"""A workflow on Ray Data and on Xenna: the engine starts once for all steps, and what comes out is what comes out locally."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curator_backends import RayDataExecutor, XennaExecutor
from curator_core import FilePartitioning, LocalExecutor, Pipeline, Workflow
from curator_core.testing.faults import NoMultiples, ReadLines, WriteLines, assert_same, snapshot, write_inputs
from curator_core.workflow import Step

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


@dataclass
class Twice(Workflow):
    """Two steps that hand files over."""

    paths: str
    out: str

    def steps(self, work_dir: str) -> Iterator[Pipeline | Step]:
        between = f"{work_dir}/between"
        yield Pipeline([FilePartitioning(paths=self.paths), ReadLines(), WriteLines(path=between)], name="read")
        last = Pipeline(
            [FilePartitioning(paths=between), ReadLines(), NoMultiples(), WriteLines(path=self.out)], name="write"
        )
        yield Step(last, frees=[between])


@pytest.mark.parametrize("engine", [RayDataExecutor, pytest.param(XennaExecutor, marks=pytest.mark.xenna)])
def test_the_engine_is_opened_once_for_all_steps(
    engine: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("open", "close", "connect"):
        real = getattr(engine, name)

        def counted(self: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(self)

        monkeypatch.setattr(engine, name, counted)
    write_inputs(tmp_path / "in", range(4))
    Twice(str(tmp_path / "in"), str(tmp_path / "expected")).run(LocalExecutor(workers=0))
    flow = Twice(str(tmp_path / "in"), str(tmp_path / "out"))
    result = flow.run(engine(), run_dir=str(tmp_path / "run"))
    assert calls == ["open", "connect", "close"]
    assert [step.state for step in result.summary.steps] == ["done", "done"]
    assert_same(snapshot(tmp_path / "out"), snapshot(tmp_path / "expected"))
    flow.run(engine(), run_dir=str(tmp_path / "run"), resume=True)
    assert calls == ["open", "connect", "close"], "there was nothing to do"
