"""How far a run has come: a bar on a terminal, a line now and then elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TextIO

from curator_core import formatting

if TYPE_CHECKING:
    from curator_core.running.result import RunProgress

LINE_SECONDS = 10.0


class ProgressDisplay:
    """Called with each `RunProgress`; a context manager, so that the terminal is left as it was."""

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._line_seconds = line_seconds
        self._clock = clock
        self._last = clock()
        self._bar: Any = None
        self._task: Any = None
        self._title = ""

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            self._bar = _bar(self._stream)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            done, total = _done(progress)
            if self._task is None or self._title != progress.title:  # each step of a workflow has a bar of its own
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._title = progress.title
                self._task = self._bar.add_task(progress.title, total=total, detail="")
            self._bar.update(self._task, completed=done, total=total, detail=_detail(progress))
            return
        now = self._clock()
        if now - self._last >= self._line_seconds:
            self._last = now
            print(line(progress), file=self._stream, flush=True)


def line(progress: RunProgress) -> str:
    """The state of a run as one line."""
    done, total = _done(progress)
    of = f" of {total:,}" if total else ""
    left = ""
    if total and progress.finished_sources and done < total:
        left = f", about {formatting.duration(progress.seconds / progress.finished_sources * (total - done))} left"
    return f"{progress.title}: {done:,}{of} sources, {_detail(progress)}, {formatting.duration(progress.seconds)}{left}"


def _done(progress: RunProgress) -> tuple[int, int | None]:
    return progress.finished_sources + progress.skipped_sources, progress.total_sources


def _detail(progress: RunProgress) -> str:
    rows, bad = progress.tally.rows_read, progress.tally.rows_bad
    text = f"{formatting.count(rows, 'row')}"
    if progress.seconds > 0 and rows:
        text += f" ({rows / progress.seconds:,.0f}/s)"
    if bad:
        text += f", {bad:,} set aside"
    if progress.segments > 1:
        text += f", part {progress.segment + 1} of {progress.segments}"
    return text


def _bar(stream: TextIO) -> Any:
    from rich.console import Console  # 0.1 s, and only a terminal wants it
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
        expand=False,
    )
