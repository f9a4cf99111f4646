"""The state of this process while Ray starts, runs and stops: environment variables, terminal, Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Ray reads these when its processes start. They are set only while a cluster of ours starts.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def environment(values: Mapping[str, str] | None) -> Iterator[None]:
    """Set environment variables for the length of a ``with`` block; values that the user has set take precedence."""
    before = {name: os.environ.get(name) for name in values or {}}
    for name, value in (values or {}).items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = earlier


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """At the end of the ``with`` block, restore the environment variables as they were before it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def driver_path(start: bool) -> Iterator[None]:
    """Let workers of a cluster that we start import from the driver's paths; Ray itself passes on only the script's
    folder.
    """
    if not start:
        yield
        return
    own = [
        str(Path(entry or ".").resolve()) for entry in sys.path if not entry.startswith((sys.prefix, sys.base_prefix))
    ]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*own, *(before or "").split(os.pathsep)])).strip(
        os.pathsep
    )
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def silence_logs(start: bool, verbose: bool) -> Iterator[None]:
    """Keep Ray from writing to the terminal for the length of a ``with`` block, unless ``verbose`` is set."""
    if verbose:
        yield
        return
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with environment({**(_QUIET if start else {}), "RAY_BACKEND_LOG_LEVEL": "fatal"}), _no_stderr():
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the block ends, so that a second Ctrl-C does not interrupt the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None or sys.is_finalizing():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """At the end, restore the program's SIGTERM handler, which `ray.init` replaces."""
    main = threading.current_thread() is threading.main_thread()
    handler: Any = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's native code announces on stderr that its log level was set. Failures are raised, so hiding stderr hides
    none of them.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr to silence
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
