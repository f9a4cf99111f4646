"""How to run: the options of a run, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curator_core.errors import UsageError


@dataclass(frozen=True)
class RunOptions:
    """How to run; see `Pipeline.run` for what each means."""

    run_dir: str | None = None
    resume: bool = False
    fresh: bool = False
    allow_changed: bool = False
    retry: bool = False
    on_error: Literal["fail", "quarantine"] = "fail"
    retries: int = 0
    max_error_fraction: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "quarantine"):
            raise UsageError(f"on_error must be 'fail' or 'quarantine', not {self.on_error!r}")
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise UsageError(f"retries must be a whole number of 0 or more, not {self.retries!r}")
        fraction = self.max_error_fraction
        if fraction is not None and not 0 <= fraction <= 1:
            raise UsageError(f"max_error_fraction must be between 0 and 1, not {fraction!r}")
        if self.limit is not None and (isinstance(self.limit, bool) or self.limit < 1):
            raise UsageError(f"limit must be a number of sources of 1 or more, not {self.limit!r}")
        if (self.resume or self.retry) and self.run_dir is None:
            raise UsageError("resume needs the run_dir of the run to go on with")
        if self.fresh and (self.resume or self.retry):
            raise UsageError("fresh starts over and resume goes on: choose one")
