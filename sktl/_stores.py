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
    """Clear everything that sktl keeps in memory for the lifetime of the process.

    This includes the output of networks for images (``cache="auto"``), the output and
    fitted copies of teachers, loaded networks and their engines. They are computed or
    loaded again when needed, with the same results. Files, such as those of
    ``cache="features/"``, downloaded weights and exported graphs, and fitted estimators
    are not affected.

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
