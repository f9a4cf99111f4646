"""The progress of a run on standard error: a table on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TextIO

from curator_core import formatting

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from curator_core.running.progress import RunProgress

# The first line is printed early, to show that something is happening; a quick run needs none.
FIRST_LINE_SECONDS = 3.0
LINE_SECONDS = 30.0
# The interval at which the clock is checked while there is no news.
TICK_SECONDS = 1.0
REDRAWS_A_SECOND = 2
# Columns from the left, each with the width of the terminal below which it is left out.
_COLUMNS = {"in": 0, "kept": 0, "dropped": 0, "failed": 64, "waiting": 74, "rows/s": 54}
_NARROW = 40


class ProgressDisplay:
    """Displays each `RunProgress` that it is called with. It is a context manager, so that it can restore the terminal."""

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        first_seconds: float = FIRST_LINE_SECONDS,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._line_seconds = line_seconds
        self._clock = clock
        self._due = clock() + first_seconds
        self._progress: RunProgress | None = None
        self._live: Any = None
        self._ticking: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._waited_for = ""

    def __enter__(self) -> Self:
        if self._quiet:
            return self
        if self._stream.isatty():
            self._live = _live(self._stream, lambda: self._progress)
            self._live.start()
        else:
            self._ticking = threading.Thread(target=self._tick, name="curator-progress", daemon=True)
            self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        if self._ticking is not None:
            self._ticking.join()

    def __call__(self, progress: RunProgress) -> None:
        if self._quiet:
            return
        self._progress = progress
        if self._live is None:
            self.look()

    def look(self) -> None:
        """Print a line if one is due: by the clock, or because the run waits for something other than work."""
        from curator_core.running.progress import line  # imports pyarrow, which the run has loaded

        with self._lock:
            progress, now = self._progress, self._clock()
            if progress is None or not progress.going:
                return
            waits = progress.waiting_for
            if now < self._due and (not waits or waits == self._waited_for):
                return
            self._due = now + self._line_seconds
            self._waited_for = waits
            print(line(progress), file=self._stream, flush=True)

    def _tick(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            with contextlib.suppress(OSError, ValueError):  # the stream may have been closed by its reader
                self.look()


def _live(stream: TextIO, progress: Callable[[], RunProgress | None]) -> Any:
    from rich.console import Console  # the import takes 0.1 s, and only a terminal needs it
    from rich.live import Live

    console = Console(file=stream)
    return Live(
        _Screen(progress),
        console=console,
        refresh_per_second=REDRAWS_A_SECOND,
        transient=True,
        # Output that is redirected to a file must not be drawn on the terminal.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        vertical_overflow="crop",
    )


class _Screen:
    """The display on a terminal: the name of the run, a bar, a row for each stage, and the load of the machine."""

    def __init__(self, progress: Callable[[], RunProgress | None]) -> None:
        from curator_core.model.machine_use import MachineUse

        self._progress = progress
        self._use = MachineUse()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.text import Text

        from curator_core.running.progress import STARTING, line, machine_text, rows_text, sources_text, time_left

        progress = self._progress()
        if progress is None:
            return
        width = options.max_width
        if progress.state == STARTING:
            yield Text(formatting.cut(line(progress), width))
            return
        head = f"{progress.title}: {sources_text(progress)}, {rows_text(progress)}, {formatting.duration(progress.elapsed)}"
        yield Text(formatting.cut(head, width), style="bold")
        if progress.total_sources:
            yield _bar(progress, width)
            yield Segment.line()
        room = max(1, console.size.height - 7)
        if width >= _NARROW:
            yield from _stages(progress, width, room)
        workers = formatting.count(progress.workers, "worker") if progress.workers else ""
        for below in ("; ".join(filter(None, (time_left(progress), workers))), machine_text(self._use.now())):
            if below:
                yield Text(formatting.cut(below, width), style="dim")


def _bar(progress: RunProgress, width: int) -> Any:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=progress.total_sources, completed=progress.done, width=min(width, 60))


def _stages(progress: RunProgress, width: int, room: int) -> Any:
    """A row for each stage, as many as there is room for."""
    from rich.text import Text

    states = progress.stage_states()
    columns = [name for name, least in _COLUMNS.items() if width >= least]
    seconds = progress.busy_seconds
    cells = []
    for state in states:
        totals = state.totals
        rate = totals.rows_in / seconds if seconds > 0 else 0.0
        numbers = {
            "in": totals.rows_in,
            "kept": totals.rows_out,
            "dropped": totals.rows_dropped,
            "failed": state.failed,
            "waiting": state.waiting,
            "rows/s": round(rate),
        }
        cells.append([totals.name, *(f"{numbers[name]:,}" if numbers[name] else "·" for name in columns)])
    # Columns are wide enough for a large number from the start, so that they stay in place while numbers grow.
    wide = [
        max(9 if width >= 80 else 7, *(len(row[place]) for row in [[""] * 9, *cells]))
        for place in range(1, len(columns) + 1)
    ]
    first = max(8, min(max((len(row[0]) for row in cells), default=8), width - sum(wide) - 2 * len(wide)))
    yield Text(_row("stage", columns, first, wide, width), style="dim")
    for row in cells[:room]:
        yield Text(_row(row[0], row[1:], first, wide, width))
    if len(cells) > room:
        yield Text(f"… and {formatting.count(len(cells) - room, 'more stage')}", style="dim")


def _row(name: str, values: list[str], first: int, wide: list[int], width: int) -> str:
    shown = formatting.cut(name, first).ljust(first)
    return formatting.cut(
        shown + "".join(f"  {value:>{size}}" for value, size in zip(values, wide, strict=True)), width
    )
