"""What sktl keeps for the life of a process, and how to let go of all of it at once."""

import contextlib
from collections.abc import Callable
from typing import Any

from sktl._locks import Lock

_STORES: dict[str, tuple[Callable[[], object], Any]] = {}


def register_store(name: str, clear: Callable[[], object], lock: Lock | None = None) -> None:
    """Say of something that is kept for the life of the process how it is emptied.

    Parameters
    ----------
    name : str
        What it is, as the table in the documentation names it.
    clear : callable
        Empties it; whoever uses it at that moment goes on with what it has.
    lock : Lock or None, default=None
        Held by whoever looks into it and then takes what was seen, so that it is still there; None where that is one
        step, or where ``clear`` takes a lock itself.
    """
    _STORES[name] = clear, lock if lock is not None else contextlib.nullcontext()


def clear_caches() -> None:
    """Forget everything that sktl keeps in memory for the life of the process.

    Features of images (``cache="auto"``), answers and fitted copies of teachers, loaded networks, and engines that were
    built for them are computed or read again when they are needed. Results stay the same. What lies in a directory
    (``cache="features/"``, downloaded weights, exported graphs) stays, and so does what an estimator of yours holds.
    The user guide of the cache lists all stores with their bounds.

    Examples
    --------
    >>> import sktl
    >>> sktl.clear_caches()
    """
    for clear, lock in list(_STORES.values()):
        with lock:
            clear()
