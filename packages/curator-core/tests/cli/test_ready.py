"""Workers import what they need while the command reads the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from curator_core import LocalExecutor
from curator_core.cli import BAD_USAGE
from curator_core.cli.run import run_and_report
from curator_core.config.pipeline_file import PipelineFile
from curator_core.errors import UsageError

HAPPENED: list[str] = []


class Watched(LocalExecutor):
    """Notes when it is opened, made ready and closed."""

    def open(self) -> None:
        HAPPENED.append("open")

    def get_ready(self) -> None:
        HAPPENED.append("get ready")

    def close(self) -> None:
        HAPPENED.append("close")


class Slow(Watched):
    """Takes time to open, so it is not opened before the pipeline is read."""

    opens_at_once: ClassVar[bool] = False


def wrong() -> PipelineFile:
    HAPPENED.append("read")
    raise UsageError("there is no such folder")


@pytest.mark.parametrize(
    ("executor", "expected"),
    [("Watched", ["open", "get ready", "read", "close"]), ("Slow", ["read"]), (None, ["read"])],
)
def test_workers_start_before_the_pipeline_is_read_and_end_if_it_is_wrong(
    executor: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.HAPPENED", [])
    name = executor and f"{__name__}.{executor}"
    code = run_and_report(wrong, ["dedup"], {}, as_json=False, quiet=True, flags={"workers": 1}, executor=name)
    assert (code, HAPPENED) == (BAD_USAGE, expected)


@pytest.mark.parametrize(
    ("flags", "inputs", "starts"),
    [
        ({}, ["."], True),
        ({}, ["*.jsonl", "s3://bucket/crawl/*.jsonl"], True),
        ({}, ["nowhere"], False),
        ({"run_dir": "used"}, ["."], False),
        ({"run_dir": "used", "resume": True}, ["."], True),
        ({"run_dir": "used", "fresh": True}, ["."], True),
        ({"run_dir": "new"}, ["."], True),
    ],
)
def test_no_worker_starts_for_a_run_that_its_files_show_to_be_refused(
    flags: dict[str, Any], inputs: list[str], starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.HAPPENED", [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "run.json").write_text("{}")
    given = {"workers": 1, **flags}
    name = f"{__name__}.Watched"
    code = run_and_report(wrong, ["dedup"], {}, as_json=False, quiet=True, flags=given, executor=name, inputs=inputs)
    assert code == BAD_USAGE
    assert ("get ready" in HAPPENED) == starts
    assert "read" in HAPPENED
