"""What a notebook shows of a run while it runs: its progress, in the cell.

Nothing here imports IPython: what a notebook brings is used where it is there already.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from curator_core import formatting

if TYPE_CHECKING:
    from curator_core.running.result import RunProgress

# A cell is redrawn this often at most: each time costs a message to the browser.
REDRAW_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, which can show HTML; a terminal's IPython cannot."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and hasattr(shell, "kernel")


class CellProgress:
    """The progress of a run in the cell that runs it: one line and a bar, redrawn in place."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drawn = float("-inf")
        self._handle: Any = None

    def __call__(self, progress: RunProgress) -> None:
        now = self._clock()
        if progress.state == "running" and now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        ipython = sys.modules["IPython"].display  # in a kernel it is there
        page = ipython.HTML(progress_html(progress))
        if self._handle is None:
            self._handle = ipython.display(page, display_id=True)
        else:
            self._handle.update(page)


def progress_html(progress: RunProgress) -> str:
    """One line and a bar."""
    done = progress.finished_sources + progress.skipped_sources
    total = progress.total_sources
    of = f" of {total:,}" if total else ""
    rows = progress.tally.rows_read
    parts = [f"{done:,}{of} sources", formatting.count(rows, "row")]
    if progress.tally.rows_bad:
        parts.append(f"{progress.tally.rows_bad:,} set aside")
    parts.append(formatting.duration(progress.seconds))
    bar = f'<progress value="{done}" max="{total}" style="width:100%"></progress>' if total else ""
    state = "" if progress.state == "running" else f" {html.escape(progress.state)}:"
    return f"<div><b>{html.escape(progress.title)}</b>{state} {html.escape(', '.join(parts))}{bar}</div>"
