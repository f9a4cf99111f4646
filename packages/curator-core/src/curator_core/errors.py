"""What can go wrong? Every error that a user sees says what happened, to which thing, and what to do."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# The number of lines of an error's text that a notebook shows.
_NOTEBOOK_LINES = 12
_FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)')


class CuratorError(Exception):
    """Base of every error that Curator raises on purpose; its text is written for the user."""

    def _render_traceback_(self) -> list[str]:
        """IPython and notebooks show this message instead of forty frames of Curator; ``%tb`` shows the frames."""
        first, *rest = str(self).splitlines() or [""]
        if len(rest) > _NOTEBOOK_LINES:
            rest = [f"  … {len(rest) - _NOTEBOOK_LINES} lines are in str(error) …", *rest[-_NOTEBOOK_LINES:]]
        return [f"{type(self).__name__}: {first}", *rest]


class UsageError(CuratorError):
    """A parameter, option or file is wrong: nothing has run, and nothing will until it is fixed."""


class PlanError(CuratorError):
    """The pipeline cannot run as described; raised before anything starts."""


class MissingDependency(CuratorError):
    """A package of an extra is not installed; the text is the command that installs it."""


class AccountingError(CuratorError):
    """Rows or shares do not add up: some were lost or counted twice."""


class StageError(CuratorError):
    """A stage raised an error: in the hook ``hook`` (``setup``, ``teardown``), or on the task ``task_id`` under the
    policy ``fail``.

    ``details`` is the traceback of the user's code as text, without the engine's frames; ``source`` is the file that
    the task was made from, with its range of bytes if it is not the whole file.
    """

    def __init__(
        self,
        stage: str,
        reason: str,
        task_id: str | None = None,
        hook: str | None = None,
        details: str = "",
        source: str = "",
    ) -> None:
        super().__init__(stage, reason, task_id, hook, details, source)
        self.stage = stage
        self.reason = reason
        self.task_id = task_id
        self.hook = hook
        self.details = with_source_lines(details)
        self.source = source

    def __reduce__(self) -> tuple[type[StageError], tuple[Any, ...]]:
        # The receiving process calls the constructor instead of copying attributes, since it may know the source lines.
        return type(self), self.args

    def __str__(self) -> str:
        where = f" in {self.hook}()" if self.hook else "" if self.task_id is None else f" on task {self.task_id!r}"
        where += f", made of {self.source}" if self.source else ""
        text = f"stage {self.stage!r} failed{where}: {self.reason}"
        return f"{text}\n{self.details.rstrip()}" if self.details else text


class TaskTimeout(CuratorError):
    """A stage worked on a task for longer than its ``task_timeout_s``; its worker was ended."""

    def __init__(self, stage: str, task_id: str, limit_s: float) -> None:
        super().__init__(stage, task_id, limit_s)
        self.stage = stage
        self.task_id = task_id
        self.limit_s = limit_s

    def __str__(self) -> str:
        return (
            f"stage {self.stage!r} worked on task {self.task_id!r} for longer than task_timeout_s={self.limit_s:g}: "
            "raise the limit if the task is valid"
        )


class WorkerDied(CuratorError):
    """A worker process ended without an answer: it crashed in native code, was killed, or ran out of memory."""

    @classmethod
    def of_task(cls, task_id: str, deaths: int, stage: str = "", how: str = "") -> WorkerDied:
        """A task that has killed so many workers that it goes to the error policy; ``how`` says how the last worker
        ended.
        """
        where = f"stage {stage!r} worked on task {task_id!r}" if stage else f"they worked on task {task_id!r}"
        last = f" (the last by {how})" if how else ""
        return cls(f"{deaths} workers died while {where}: a crash in native code, a kill, or no memory left{last}")


class RunRefused(CuratorError):
    """The run directory belongs to another run, or to a pipeline that has since changed."""


class OutputError(CuratorError):
    """The output of a run cannot be written: no space, no permission. This is not the fault of a row, so the run stops."""


class TooManyErrors(CuratorError):
    """More rows were set aside than ``max_error_fraction`` or the later steps of a workflow allow."""


# These errors end a run under every policy: setting rows aside would not help.
FATAL = (AccountingError, MissingDependency, OutputError, PlanError, RunRefused, StageError, TooManyErrors, WorkerDied)


def remember_code(kind: type) -> None:
    """Remember the files of the functions of a class: functions that are sent to a worker by value lose the name of
    their file.
    """
    for value in vars(kind).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        code = getattr(function, "__code__", None)
        if code is not None:
            lines = [line for *_, line in code.co_lines() if line]
            _sent_code.setdefault(code.co_name, {})[code.co_filename, min(lines)] = max(lines)


# For each function name: the files and first lines of such functions, with the last line of each.
_sent_code: dict[str, dict[tuple[str, int], int]] = {}
# The file name that cloudpickle gives to code sent by value.
_SENT = "<dynamic-code>"


def with_source_lines(details: str) -> str:
    """Add the source lines to a traceback that this process has and the process that wrote it did not have.

    A worker cannot read the code of a notebook's cell or of a script from a file.
    """
    lines = details.split("\n")
    filled = []
    for place, line in enumerate(lines):
        frame = _FRAME.match(line)
        following = lines[place + 1] if place + 1 < len(lines) else ""
        if not frame or following.startswith("    "):
            filled.append(line)
            continue
        file, number = _file_of_code(frame["file"], int(frame["line"]), frame["function"]), int(frame["line"])
        filled.append(line.replace(f'"{frame["file"]}"', f'"{file}"', 1))
        if source := linecache.getline(file, number).strip():
            filled.append(f"    {source}")
    return "\n".join(filled)


def _file_of_code(file: str, line: int, function: str) -> str:
    if file != _SENT:
        return file
    places = _sent_code.get(function, {})
    found = {name for (name, first), last in places.items() if first <= line <= last}
    return found.pop() if len(found) == 1 else file


def check_whole(what: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Raise `UsageError` unless ``value`` is a whole number of ``least`` or more; ``optional`` also allows None.

    ``what`` names the value as the user wrote it: ``Limit.rows``. ``True`` does not count as a number, although it is
    an int.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{what} must be a whole number of {least} or more, not {value!r}")


def check_free(what: str, there: Iterable[str], added: Iterable[str | None]) -> None:
    """Raise `UsageError` if a column that a stage adds exists already: its values would be lost silently.

    ``what`` names the stage; None among ``added`` stands for a column that is not added.
    """
    names = set(there)
    taken = next((name for name in added if name is not None and name in names), None)
    if taken is not None:
        raise UsageError(
            f"{what} adds a column {taken!r}, and there is one already: give the new one another name, or put "
            "DropColumns or RenameColumns before it"
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'min_words'?`` or an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
