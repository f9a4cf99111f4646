"""What must a worker know about its run?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from curator_core.accounts import ledger
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.model.scores import Score
from curator_core.model.seen_options import SeenOptions
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.planning.plan import PlannedStage


def format_of_dropped(stages: Sequence[PlannedStage]) -> ProcessingStage[Any, Any] | None:
    """The writer that writes the rows that stages drop: the last one that can, or None for Parquet."""
    writers = [planned.stage for planned in stages if planned.stage.output_folder()]
    return next((writer for writer in reversed(writers) if overrides(writer, "write_rows")), None)


Ending = Literal["pass", "done", "merged"]

# The number of bytes of a row or message that rejects keep.
MAX_RAW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunContext:
    """The facts that every worker of a run needs; they are small and sent once."""

    run_dir: str | None = None
    attempt: int = 1
    on_error: Literal["fail", "quarantine"] = "fail"
    retries: int = 0
    max_raw_bytes: int = MAX_RAW_BYTES
    log_level: str = "warning"
    # A folder for the rows that stages drop; None if they are not written.
    dropped: str | None = None
    # The writer for dropped rows; None for Parquet.
    dropped_as: ProcessingStage[Any, Any] | None = None
    # False if stages are only tried and nothing may be written, not even by a stage with its own folder for dropped
    # rows.
    writes: bool = True
    # Which samples and counts are kept; None for none.
    seen: SeenOptions | None = None
    # The scores that each filter declares, by the name of the stage; they are found once and not in every worker.
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    # The longest time for which a worker keeps its records to itself.
    flush_seconds: float = field(default_factory=lambda: ledger.FLUSH_SECONDS)
    # The executor's options for its workers.
    options: tuple[tuple[str, Any], ...] = ()

    def open_sink(self) -> LedgerWriter | MemorySink:
        """Open a sink for this worker's events."""
        return LedgerWriter(self.run_dir, self.attempt, self.flush_seconds) if self.run_dir else MemorySink()
