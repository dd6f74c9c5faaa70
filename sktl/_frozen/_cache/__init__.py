"""Caches of the output of a frozen prefix, one array per image.

A cache maps keys, the digests of everything that determines an array, to arrays. It
makes three promises. It is exact: what it returns was stored, bit for bit, although
entries may disappear. It never raises: trouble with the disk leads to a `CacheWarning`
and a missing entry. It is bounded: the oldest entries are dropped. It also keeps
`Claims`: which job is computing which array, so that no other one does the same work.

===========  ==============================  ===================  ===================
``cache=``   kept in                         shared by            dropped first
===========  ==============================  ===================  ===================
``"auto"``   memory (`MemoryCache`)          estimators, threads  least recently used
a directory  SQLite file (`DirectoryCache`)  processes, runs      first stored
``None``     nowhere
===========  ==============================  ===================  ===================
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from sktl._frozen._cache._base import ENTRY_BYTES, Cache, CacheStats, warn_once
from sktl._frozen._cache._claims import Claims
from sktl._frozen._cache._directory import DirectoryCache, unusable
from sktl._frozen._cache._memory import MemoryCache, shared_memory_cache
from sktl._messages import shortened
from sktl.exceptions import InputError

__all__ = [
    "ENTRY_BYTES",
    "Cache",
    "CacheStats",
    "Claims",
    "DirectoryCache",
    "MemoryCache",
    "bypassed_caches",
    "open_cache",
    "shared_memory_cache",
]

_IS_BYPASSED: ContextVar[bool] = ContextVar("sktl_caches_are_bypassed", default=False)


def open_cache(cache: "str | os.PathLike[str] | None") -> Cache | None:
    """Open the cache defined by the parameter ``cache`` of an estimator.

    Parameters
    ----------
    cache : "auto", str, path-like or None
        ``"auto"`` is the memory of this process, limited to 1 GiB or an eighth of the
        memory of the machine, whichever is less, and shared by all estimators. A path
        is a directory of at most 10 GiB, created if needed. None keeps nothing.

    Returns
    -------
    cache : Cache or None
        The cache. A directory is created on first use, not here. None inside
        `bypassed_caches` and, with a warning, for a path that cannot be resolved
        (``"~"`` of a user without a home).

    Raises
    ------
    TypeError
        If ``cache`` is of another type.
    InputError
        If ``cache`` is an empty path. Any other path is accepted, because a cache never
        stops the work: an unusable one is reported as a warning when it is used.
    """
    if cache is None or _IS_BYPASSED.get():
        return None
    if isinstance(cache, str) and cache == "auto":
        return shared_memory_cache()
    if not isinstance(cache, str | os.PathLike) or not isinstance(os.fspath(cache), str):
        raise TypeError(
            shortened(
                f"cache must be 'auto' (memory), the path of a directory, or None (no cache). Got {cache!r} instead."
            )
        )
    if not os.fspath(cache):
        raise InputError(f"cache={cache!r} is an empty path. Use 'auto' (memory), a directory, or None (no cache).")
    try:
        path = Path(cache).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        # The user has no home folder, or the working directory was deleted.
        warn_once(os.fspath(cache), unusable(error))
        return None
    return DirectoryCache(path)


@contextlib.contextmanager
def bypassed_caches() -> Iterator[None]:
    """Disable all caches in this thread, so that timed work is really computed.

    Nothing is dropped: afterwards the caches hold what they held. Other threads, and
    processes that an estimator starts, keep using theirs.
    """
    token = _IS_BYPASSED.set(True)
    try:
        yield
    finally:
        _IS_BYPASSED.reset(token)
