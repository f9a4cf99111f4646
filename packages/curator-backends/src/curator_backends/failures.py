"""Turns an engine's errors into the run's errors, without the engine's frames; a worker's own error comes first.

A worker reports its error to the coordinator before it raises it (see `curator_backends.worker`), so a run ends with
that error, with its original class and text. The engine's own error is used only if no worker has reported one.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import Any

from curator_core.errors import CuratorError, WorkerDied

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class EngineError(CuratorError):
    """The engine failed, and no stage is to blame."""


def translate(error: BaseException, engine: str) -> BaseException:
    """The error to raise instead of ``error``: the first Curator error in its chain, or a new one with the engine's
    message.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return error
    for found in _chain(error):
        if isinstance(found, CuratorError):
            return _plain(found)
    # Ray Data puts these markers on the errors that matter.
    last = next((e for e in _chain(error) if type(e).__name__ not in ("SystemException", "UserCodeException")), error)
    name = type(error).__name__
    if "OutOfMemory" in name or "ActorDied" in name or "WorkerCrashed" in name or "NodeDied" in name:
        return WorkerDied(f"{engine} lost a worker and could not continue: {first_line(error)}")
    details = "".join(traceback.format_exception(last))
    return EngineError(f"{engine} failed: {first_line(last)}\n{_COLOURS.sub('', details).rstrip()}")


def clear_frames(error: BaseException) -> None:
    """Clear the frames that an error holds: they would keep the engine's workers alive, and these would never be torn
    down.
    """
    for found in _chain(error):
        if found.__traceback__ is not None:
            traceback.clear_frames(found.__traceback__)


def first_line(error: BaseException) -> str:
    """The class of an error and the first line of its text, without the engine's colours."""
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _plain(error: CuratorError) -> CuratorError:
    """The error as the worker raised it; Ray wraps it in a class that mixes Ray's frames into the text."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CuratorError):
        return _plain(cause)
    kind = next(base for base in type(error).__mro__ if base.__module__.startswith("curator_"))
    if type(error) is kind:
        return error
    plain: CuratorError = kind(*error.args)
    return plain


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [getattr(current, "cause", None), current.__cause__]
        if not current.__suppress_context__:
            waiting.append(current.__context__)
