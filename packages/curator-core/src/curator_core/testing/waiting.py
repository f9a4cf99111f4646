"""How do tests wait for a condition without sleeping for too long or too short a time?"""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0, pause_s: float = 0.01) -> None:
    """Return as soon as ``condition()`` is true. After ``seconds``, raise an `AssertionError` that says ``what`` was
    awaited.

    It raises, because a check that continued after a failed wait would fail much later, by its own time limit, or not
    at all. The condition may raise to end the wait early.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause_s)
