"""Makes items ahead on a separate thread while earlier ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_END: Any = object()


def ahead[T](items: Iterable[T], most: int = 2) -> Iterator[T]:
    """Yield the items in order; up to ``most`` of them are made before they are requested.

    If making an item fails, the error is raised when the item is requested. If the generator is closed early, no more
    items are made.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming: deque[Future[Any]] = deque(pool.submit(next, source, _END) for _ in range(most))
        try:
            while (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(next, source, _END))
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
