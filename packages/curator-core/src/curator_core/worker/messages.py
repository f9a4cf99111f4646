"""How is an error described? By its kind, its reason, and the part of the traceback in the user's code."""

from __future__ import annotations

import os.path
import traceback
from typing import Any

from curator_core.errors import CuratorError
from curator_core.model.task import FileGroupTask, Task

MAX_MESSAGE = 4_000
_HERE = os.path.dirname(__file__)  # noqa: PTH120 - a text, to compare with those in frames


def kind_of(error: BaseException) -> str:
    return type(error).__name__


def reason_of(error: BaseException) -> str:
    if isinstance(error, CuratorError):
        return str(error)
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def message_of(error: BaseException) -> str:
    return (user_traceback(error) or str(error))[-MAX_MESSAGE:]


def user_traceback(error: BaseException) -> str:
    """The traceback from the stage's own code on: Curator's frames, and tracebacks of its own errors, do not help the
    user.
    """
    if isinstance(error, CuratorError):
        return ""
    frame = error.__traceback__
    while frame is not None and os.path.dirname(frame.tb_frame.f_code.co_filename) == _HERE:  # noqa: PTH120
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame or error.__traceback__))


def file_of(task: Task[Any]) -> str:
    if isinstance(task, FileGroupTask) and task.data:
        return task.data[0]
    files = task._metadata.get("source_files")
    if isinstance(files, list) and files:
        first = files[0]
        return str(first[0] if isinstance(first, (list, tuple)) else first)
    return ""


def place_of(task: Task[Any]) -> str:
    """The file that a task was made from, for people, with its byte range if it is not the whole file."""
    file = file_of(task)
    if not file:
        return ""
    ranges = task._metadata.get("source_ranges") or [None]
    span = f", bytes {ranges[0][0]:,} to {ranges[0][1]:,}" if ranges[0] else ""
    more = len(task._metadata.get("source_files", ())) - 1
    return f"{file!r}{span}{f' and {more} more files' if more > 0 else ''}"


def brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
