"""Where the output of a frozen prefix is kept, one array per image.

A cache maps a key, the digest of everything that determines an array, to that array. It keeps three promises: it may
forget but it never lies (what comes back is what was put, bit for bit), it never raises (whatever happens to the disk
is a `CacheWarning` and an entry that is not there), and it is bounded (the oldest entries make room). Beside the arrays
it keeps `Claims`: who is computing which array at this moment, so that nobody else does.

====================  =====================================  ==========================  ==========================
``cache=``            kept in                                shared by                   the first to go
====================  =====================================  ==========================  ==========================
``"auto"``            memory, a process-wide `MemoryCache`   estimators, threads         the least recently used
a directory           an SQLite file, `DirectoryCache`       processes, runs             the first put
``None``              nowhere
====================  =====================================  ==========================  ==========================
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
    """The cache that the parameter ``cache`` of an estimator means.

    Parameters
    ----------
    cache : "auto", str, path-like or None
        ``"auto"`` is the memory of this process, bounded by 1 GiB or an eighth of the machine's, whichever is less,
        and shared by all estimators. A path is a directory of at most 10 GiB, made where it is not there. None keeps
        nothing.

    Returns
    -------
    cache : Cache or None
        Opening touches no disk: a directory is made with the first entry that is asked for. None inside
        `bypassed_caches`, and, with a warning, for a path that leads nowhere (``"~"`` of a user without a home).

    Raises
    ------
    TypeError
        Where ``cache`` is none of these.
    InputError
        Where it is an empty path. Any other path is accepted: a cache never stops the work, so a file, say, is a
        warning when it is used.
    """
    if cache is None or _IS_BYPASSED.get():
        return None
    if isinstance(cache, str) and cache == "auto":
        return shared_memory_cache()
    if not isinstance(cache, str | os.PathLike) or not isinstance(os.fspath(cache), str):
        raise TypeError(
            shortened(f"cache={cache!r} is no cache. Use 'auto' (memory), the path of a directory, or None (off).")
        )
    if not os.fspath(cache):
        raise InputError(f"cache={cache!r} is an empty path. Use 'auto' (memory), a directory, or None (off).")
    try:
        path = Path(cache).expanduser().absolute()
    except (RuntimeError, OSError) as error:  # a "~" of nobody, or a working directory that was removed
        warn_once(os.fspath(cache), unusable(error))
        return None
    return DirectoryCache(path)


@contextlib.contextmanager
def bypassed_caches() -> Iterator[None]:
    """Open no cache inside, whatever the estimators say: what is timed there is really computed.

    Nothing is forgotten: afterwards the caches hold what they held. It is of this thread alone; others go on using
    theirs, and so do processes that an estimator starts.
    """
    token = _IS_BYPASSED.set(True)
    try:
        yield
    finally:
        _IS_BYPASSED.reset(token)
