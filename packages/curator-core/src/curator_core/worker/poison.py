"""Which rows of a task does a stage fail on? They are found by halving."""

from __future__ import annotations

from collections.abc import Callable

Try = Callable[[int, int], Exception | None]


def find_poison(attempt: Try, rows: int, error: Exception) -> dict[int, Exception]:
    """Find the rows that a stage fails on alone, each with its error, given that it fails on all ``rows`` with
    ``error``.

    ``attempt(start, stop)`` runs the stage on some of the rows and returns the error that it raised. A few bad rows
    among many take about two attempts for each halving. The result is empty if the stage fails on rows together but on
    none alone.
    """
    poison: dict[int, Exception] = {}
    waiting = [(0, rows, error)]
    while waiting:
        start, stop, failure = waiting.pop()
        if stop - start == 1:
            poison[start] = failure
            continue
        middle = (start + stop) // 2
        for low, high in ((start, middle), (middle, stop)):
            raised = attempt(low, high)
            if raised is not None:
                waiting.append((low, high, raised))
    return dict(sorted(poison.items()))
