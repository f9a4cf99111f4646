"""What a worker needs to know about the run that it works for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.model.seen_options import SeenOptions
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.planning.plan import PlannedStage


def format_of_dropped(stages: Sequence[PlannedStage]) -> ProcessingStage[Any, Any] | None:
    """The writer in whose format the rows that stages drop are written: the last one that can, or None for Parquet."""
    writers = [planned.stage for planned in stages if planned.stage.output_folder()]
    return next((writer for writer in reversed(writers) if overrides(writer, "write_rows")), None)


Ending = Literal["pass", "done", "merged"]

# How much of a row or message the rejects keep.
MAX_RAW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every worker of a run must know; small, and sent once."""

    run_dir: str | None = None
    attempt: int = 1
    on_error: Literal["fail", "quarantine"] = "fail"
    retries: int = 0
    max_raw_bytes: int = MAX_RAW_BYTES
    log_level: str = "warning"
    # A folder for the rows that stages drop; None where they are not written down.
    dropped: str | None = None
    # The writer in whose format they are written; None for Parquet.
    dropped_as: ProcessingStage[Any, Any] | None = None
    # False where stages are tried and nothing may be written, not even for a stage with a folder of its own.
    writes: bool = True
    # What is kept of the rows to be seen; None for nothing.
    seen: SeenOptions | None = None
    # Options of the executor's own, for its workers.
    options: tuple[tuple[str, Any], ...] = ()

    def open_sink(self) -> LedgerWriter | MemorySink:
        """Open a worker's own way into the ledger."""
        return LedgerWriter(self.run_dir, self.attempt) if self.run_dir else MemorySink()
