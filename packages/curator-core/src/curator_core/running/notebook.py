"""How does a notebook show the progress of a run in its cell?

This module does not import IPython: it uses it if a notebook has loaded it.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from curator_core import formatting
from curator_core.running.progress import STARTING, line, rows_text, sources_text, time_left

if TYPE_CHECKING:
    from curator_core.running.progress import RunProgress

# A cell is redrawn at most this often, since each time sends a message to the browser.
REDRAW_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, which can show HTML; a terminal's IPython cannot."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and hasattr(shell, "kernel")


class CellProgress:
    """The progress of a run in the cell that runs it: a bar and a row for each stage, redrawn in place."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drawn = float("-inf")
        self._shown: tuple[str, str] | None = None
        self._handle: Any = None

    def __call__(self, progress: RunProgress) -> None:
        now = self._clock()
        # A change in what the run waits for is shown at once, and so are the first and the last state of a step.
        shown = (progress.state, progress.title)
        if shown == self._shown and now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn, self._shown = now, shown
        ipython = sys.modules["IPython"].display  # a kernel always has it
        page = ipython.HTML(progress_html(progress))
        if self._handle is None:
            self._handle = ipython.display(page, display_id=True)
        else:
            self._handle.update(page)


def progress_html(progress: RunProgress) -> str:
    """The name of the run, a bar, and a row for each stage."""
    title = f"<b>{html.escape(progress.title)}</b>"
    if progress.state == STARTING:
        text = line(progress).removeprefix(f"{progress.title}: ").rpartition(", ")[0]
        # The browser animates the bar, since there is no news until the executor has started.
        return f'<div>{title} {html.escape(text)} …<progress style="width:100%"></progress></div>'
    parts = [sources_text(progress), rows_text(progress), formatting.duration(progress.elapsed)]
    if progress.workers:
        parts.append(formatting.count(progress.workers, "worker"))
    total, done = progress.total_sources, progress.done
    bar = f'<progress value="{done}" max="{total}" style="width:100%"></progress>' if total else ""
    state = "" if progress.going else f" {html.escape(progress.state)}:"
    left = time_left(progress)
    more = f"<div>{html.escape(left)}</div>" if left else ""
    return f"<div>{title}{state} {html.escape(', '.join(parts))}{bar}{_stages_html(progress)}{more}</div>"


def _stages_html(progress: RunProgress) -> str:
    states = progress.stage_states()
    if not states or not progress.going:  # the result has its own table of the outcome
        return ""
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(state.totals.name)}</td>"
        + "".join(
            f"<td>{value:,}</td>"
            for value in (
                state.totals.rows_in,
                state.totals.rows_out,
                state.totals.rows_dropped,
                state.failed,
                state.waiting,
            )
        )
        + "</tr>"
        for state in states
    )
    head = "".join(f"<th>{name}</th>" for name in ("stage", "in", "kept", "dropped", "failed", "waiting"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
