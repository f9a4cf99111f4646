"""How are the lines that stages print and log collected? With time, worker and stage, for the ``log.txt`` of the run.

Each worker publishes its lines as whole files in the run directory's ``log`` folder; `curator_core.running.log` joins
them. Printed text still goes to the original stream as well. If a worker is killed, its lines since its last file are
lost. A worker keeps a limited number of lines and records how many more there were.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
import traceback
import uuid
from typing import Any, TextIO

from curator_core import storage

FOLDER = "log"
# A worker publishes this many lines at a time, and keeps this many in a run.
LINES_A_FILE = 1_000
MOST_LINES = 20_000
MOST_CHARACTERS = 2_000

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _AtWork:
    """The stage whose code is running in this process; everything printed and logged meanwhile belongs to it."""

    stage = ""  # nothing is kept while no stage is running


# It is set around every call of a stage. It is an attribute, because anything else would take as long as a small stage.
AT_WORK = _AtWork()


class StageLog:
    """One worker's lines, captured from `open` to `close`."""

    def __init__(self, run_dir: str, worker: str, level: str) -> None:
        self._folder = storage.join(run_dir, FOLDER)
        # Spaces are replaced for the log and the file name, since the ids of engines may have spaces.
        self._worker = re.sub(r"[^\w.+#-]+", "_", worker)
        self._name = f"{self._worker}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._level = LEVELS[level]
        self._lines: list[dict[str, Any]] = []
        self._kept = 0
        self._more = 0
        self._number = 0
        self._handler = _Handler(self, self._level)
        self._streams: tuple[TextIO, TextIO] | None = None
        self._root_level = logging.NOTSET

    def open(self) -> None:
        """Begin to capture `print`, and the root logger at the run's level."""
        root = logging.getLogger()
        self._root_level = root.level
        if root.level > self._level:
            root.setLevel(self._level)
        root.addHandler(self._handler)
        self._streams = sys.stdout, sys.stderr
        # None if the caller has closed it.
        if sys.stdout is not None:
            sys.stdout = _Tee(sys.stdout, self, "print")
        if sys.stderr is not None:
            sys.stderr = _Tee(sys.stderr, self, "stderr")

    def close(self) -> None:
        """Stop capturing, and publish the lines so far."""
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._root_level)
        if self._streams is not None:
            for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
                current = getattr(sys, name)
                if isinstance(current, _Tee):
                    current.end()
                    setattr(sys, name, stream)
            self._streams = None
        if self._more:
            self._lines.append(self._line("", "info", f"{self._more:,} more lines were not kept"))
            self._more = 0
        self.flush()

    def add(self, level: str, text: str) -> None:
        """Add a line of the running stage."""
        if not AT_WORK.stage or not text.strip():
            return
        if self._kept >= MOST_LINES:
            self._more += 1
            return
        self._kept += 1
        self._lines.append(self._line(AT_WORK.stage, level, text[:MOST_CHARACTERS]))
        if len(self._lines) >= LINES_A_FILE:
            self.flush()

    def flush(self) -> None:
        """Publish the lines so far."""
        if not self._lines:
            return
        text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in self._lines)
        self._lines = []
        path = storage.join(self._folder, f"{self._name}-{self._number:04d}.jsonl")
        self._number += 1
        # A log must not fail the run; if the disk is full, the run itself reports it.
        with contextlib.suppress(Exception):
            storage.write_bytes_atomic(path, text.encode(), durable=False)

    def _line(self, stage: str, level: str, text: str) -> dict[str, Any]:
        return {"time": time.time(), "worker": self._worker, "stage": stage, "level": level, "text": text}


class _Handler(logging.Handler):
    def __init__(self, log: StageLog, level: int) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{record.name}: {record.getMessage()}"
            if record.exc_info and record.exc_info[1] is not None:
                text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        except Exception as error:  # a wrong format string in the stage must not fail its task
            text = f"{record.name}: {record.msg!r} ({error})"
        for line in text.splitlines():
            self._log.add(record.levelname.lower(), line)


class _Tee:
    """A stream that passes on what is written, and adds the stage's lines to the log."""

    def __init__(self, stream: TextIO, log: StageLog, level: str) -> None:
        self._stream = stream
        self._log = log
        self._level = level
        self._part = ""

    def write(self, text: str) -> int:
        # If the reader of the run's output is gone (``| head``), the rows being processed are not to blame.
        with contextlib.suppress(BrokenPipeError) if AT_WORK.stage else contextlib.nullcontext():
            self._stream.write(text)
        if AT_WORK.stage:
            *lines, self._part = (self._part + text).split("\n")
            for line in lines:
                self._log.add(self._level, line)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError) if AT_WORK.stage else contextlib.nullcontext():
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        if self._part:
            self._log.add(self._level, self._part)
            self._part = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
