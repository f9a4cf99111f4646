"""What a worker needs to know about the run that it works for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.model.seen_options import SeenOptions

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
    # False where stages are tried and nothing may be written, not even for a stage with a folder of its own.
    writes: bool = True
    # What is kept of the rows to be seen; None for nothing.
    seen: SeenOptions | None = None
    # Options of the executor's own, for its workers.
    options: tuple[tuple[str, Any], ...] = ()

    def open_sink(self) -> LedgerWriter | MemorySink:
        """Open a worker's own way into the ledger."""
        return LedgerWriter(self.run_dir, self.attempt) if self.run_dir else MemorySink()
