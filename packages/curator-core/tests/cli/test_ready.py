"""Workers import what they need while the command reads what to run."""

from __future__ import annotations

from typing import ClassVar

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
    """Takes time to open, so it is not opened before what it runs is read."""

    opens_at_once: ClassVar[bool] = False


def wrong() -> PipelineFile:
    HAPPENED.append("read")
    raise UsageError("there is no such folder")


@pytest.mark.parametrize(
    ("executor", "expected"),
    [("Watched", ["open", "get ready", "read", "close"]), ("Slow", ["read"]), (None, ["read"])],
)
def test_workers_start_before_what_to_run_is_read_and_end_if_it_is_wrong(
    executor: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.HAPPENED", [])
    name = executor and f"{__name__}.{executor}"
    code = run_and_report(wrong, ["dedup"], {}, as_json=False, quiet=True, flags={"workers": 1}, executor=name)
    assert (code, HAPPENED) == (BAD_USAGE, expected)
