"""Ordered, bounded prefetching with threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future

from sktl._randomness import helping


def chunks(items: Sequence[int], size: int) -> list[Sequence[int]]:
    """Split ``items`` into runs of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), max(size, 1))]


def map_ahead(pool: Executor, function: Callable, items: Iterable, n_ahead: int) -> Iterator:
    """Map in order like ``pool.map``, with at most ``n_ahead`` pending results."""
    waiting: deque[Future] = deque()
    function = helping(function)
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
