"""How do stages get to a worker process, and errors back from it?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle

from curator_core.errors import CuratorError, UsageError
from curator_core.model.codec import by_value
from curator_core.model.stage import ProcessingStage, accepted_tasks
from curator_core.planning.plan import PlannedStage

_DEPTH = 4  # the depth of the search for the part of an attribute that cannot be pickled


def packed_stages(stages: Sequence[PlannedStage], value: Any) -> bytes:
    """``value``, which contains ``stages``, as bytes for a worker; a `UsageError` names a stage that cannot be sent,
    and the reason.
    """
    kinds = {kind for planned in stages for kind in _classes(planned.stage)}
    try:
        with by_value(*kinds):
            return bytes(cloudpickle.dumps(value))
    except Exception as error:
        for planned in stages:
            cause = _failure(planned.stage)
            if cause is not None:
                raise UsageError(
                    f"stage {planned.name!r} cannot be sent to a worker process: {_culprit(planned.stage)}cannot be "
                    f"pickled ({cause}). Open or load such things (a file, a lock, a connection, a model) in the "
                    "stage's setup(). LocalExecutor(workers=0) sends nothing"
                ) from error
        raise


def packed_error(error: BaseException) -> bytes:
    """An error with its causes, as bytes for another process; an error that cannot be pickled is sent as text."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    return bytes(cloudpickle.dumps([_packed_alone(one) for one in chain]))


def unpacked_error(data: bytes) -> BaseException:
    """The error from the bytes of `packed_error`, with its causes."""
    chain = [cloudpickle.loads(link) for link in cloudpickle.loads(data)]
    for link, cause in itertools.pairwise(chain):
        link.__cause__ = cause
    error: BaseException = chain[0]
    return error


def _packed_alone(error: BaseException) -> bytes:
    try:
        with by_value(*type(error).__mro__):
            data = bytes(cloudpickle.dumps(error))
        cloudpickle.loads(data)  # a constructor with other parameters fails only here
    except Exception:
        data = bytes(cloudpickle.dumps(CuratorError(f"{type(error).__name__}: {error}")))
    return data


def _classes(stage: ProcessingStage[Any, Any]) -> Iterator[type]:
    """The classes that a worker needs: those of the stage and of its input and output tasks."""
    for kind in (type(stage), *accepted_tasks(stage), type(stage).task_in, type(stage).task_out):
        yield from kind.__mro__


def _failure(value: Any) -> Exception | None:
    try:
        with by_value(*(_classes(value) if isinstance(value, ProcessingStage) else ())):
            cloudpickle.dumps(value)
    except Exception as error:
        return error
    return None


def _culprit(stage: ProcessingStage[Any, Any]) -> str:
    """The part of a stage that cannot be pickled: ``its attribute 'options['lock']', a lock, ``; empty if it is its
    code.
    """
    attributes = {name: value for name, value in vars(stage).items() if name not in ("_given", "_recorder", "_call")}
    for name, value in (attributes or {}).items():
        if _failure(value) is not None:
            path, found = _inside(name, value, _DEPTH)
            return f"its attribute {path!r}, of type {type(found).__name__}, "
    for name, value in vars(stage).get("_given", {}).items():
        if _failure(value) is not None:
            return f"its parameter {name!r}, of type {type(value).__name__}, "
    return "it "


def _inside(path: str, value: Any, depth: int) -> tuple[str, Any]:
    """The innermost part of a value that cannot be pickled, and its path."""
    parts: Iterator[tuple[str, Any]]
    if isinstance(value, dict):
        parts = ((f"{path}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        parts = ((f"{path}[{index}]", part) for index, part in enumerate(value))
    else:
        parts = ((f"{path}.{name}", part) for name, part in getattr(value, "__dict__", {}).items())
    for name, part in parts if depth else ():
        if _failure(part) is not None:
            return _inside(name, part, depth - 1)
    return path, value
