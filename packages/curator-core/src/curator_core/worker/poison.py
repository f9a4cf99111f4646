"""Which rows of a task does a stage fail on? A search by halves."""

from __future__ import annotations

from collections.abc import Callable

Try = Callable[[int, int], Exception | None]


def find_poison(attempt: Try, rows: int, error: Exception) -> dict[int, Exception]:
    """The rows that a stage fails on by themselves, each with its error, given that it fails on all ``rows`` with ``error``.

    ``attempt(start, stop)`` runs the stage on some of the rows and returns what it raised. A few bad rows among many
    take about two attempts for each halving. The result is empty where the stage fails on rows together and on none
    alone.
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
