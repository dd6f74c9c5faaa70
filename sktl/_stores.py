"""Registry of everything that sktl keeps in memory for the lifetime of the process."""

import contextlib
from collections.abc import Callable
from typing import Any

from sktl._locks import Lock

_STORES: dict[str, tuple[Callable[[], object], Any]] = {}


def register_store(name: str, clear: Callable[[], object], lock: Lock | None = None) -> None:
    """Register a store that `clear_caches` empties.

    Parameters
    ----------
    name : str
        Name of the store in the table of the documentation.
    clear : callable
        Empties the store. Objects that are in use at that moment stay valid.
    lock : Lock or None, default=None
        Lock that protects a lookup in the store. None if lookups are atomic or
        ``clear`` takes a lock itself.
    """
    _STORES[name] = clear, lock if lock is not None else contextlib.nullcontext()


def clear_caches() -> None:
    """Clear all caches that sktl keeps in the memory of this process.

    These are the cached outputs of networks (``cache="auto"``), the outputs and fitted
    copies of teachers, and loaded networks with their engines. All of them are computed
    or loaded again when needed, with the same results. Fitted estimators and files on
    disk (``cache="features/"``, downloaded weights, exported graphs) are not affected.

    Read more in the :doc:`user guide </cache>`, which lists all stores with their
    limits.

    Examples
    --------
    >>> import sktl
    >>> sktl.clear_caches()
    """
    for clear, lock in list(_STORES.values()):
        with lock:
            clear()
