"""Which options does a run have? They are checked when they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curator_core.errors import UsageError, check_whole
from curator_core.model.parameters import checked_folder
from curator_core.model.seen_options import SeenOptions, seen_options
from curator_core.worker.stage_log import LEVELS


@dataclass(frozen=True)
class RunOptions:
    """The options of a run; `Pipeline.run` explains each."""

    run_dir: str | None = None
    resume: bool = False
    fresh: bool = False
    allow_changed: bool = False
    retry: bool = False
    on_error: Literal["fail", "quarantine"] = "fail"
    retries: int = 0
    max_error_fraction: float | None = None
    max_reject_fraction: float = 0.05
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    limit: int | None = None
    dropped: str | None = None
    seen: SeenOptions | Mapping[str, Any] | bool = True

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "quarantine"):
            raise UsageError(f"on_error must be 'fail' or 'quarantine', not {self.on_error!r}")
        if self.log_level not in LEVELS:
            raise UsageError(f"log_level must be one of {', '.join(LEVELS)}, not {self.log_level!r}")
        check_whole("retries", self.retries, least=0)
        check_whole("limit", self.limit, optional=True)
        checked_folder("dropped", self.dropped)
        object.__setattr__(self, "seen", seen_options(self.seen) or False)
        for name in ("max_error_fraction", "max_reject_fraction"):
            fraction = getattr(self, name)
            if name == "max_error_fraction" and fraction is None:
                continue
            if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
                raise UsageError(f"{name} must be a number between 0 and 1, not {fraction!r}")
        if (self.resume or self.retry) and self.run_dir is None:
            raise UsageError("resume needs the run_dir of the run to continue")
        if self.fresh and (self.resume or self.retry):
            raise UsageError("fresh starts over and resume continues: choose one")
