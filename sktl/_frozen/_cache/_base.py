"""Base class of caches: interface, lock and serialization of arrays."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sktl._frozen._cache._claims import Claim, Keys, Owner
from sktl._locks import Lock
from sktl._messages import shortened
from sktl._warnings import warn
from sktl.exceptions import CacheWarning

ENTRY_BYTES = 200  # approximate overhead of an entry

# One lock for all caches of the process. It is held for milliseconds and makes forks
# safe, see `_before_fork`.
LOCK = Lock()

_WARNED: set[tuple[str, str]] = set()  # (name of the cache, kind of trouble)


class CacheStats(NamedTuple):
    """Size of a cache, and its hits and misses since it was opened.

    The bytes include the overhead of the entries.
    """

    hits: int
    misses: int
    entries: int
    nbytes: int


class Cache(ABC):
    """Bounded mapping from digests to arrays that may drop entries."""

    name: str  # the value of the parameter ``cache``

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._hits = self._misses = 0
        with LOCK:
            _CACHES.add(self)

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return the array of each key, read-only, or None if it is missing."""
        with LOCK:
            found = self._get(keys) if keys else {}
            values = [found.get(key) for key in keys]
            misses = sum(value is None for value in values)
            self._hits += len(values) - misses
            self._misses += misses
        return values

    def put_many(self, items: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Store a copy of each array; if the cache is full, drop the oldest entries."""
        packed = {key: pack(array) for key, array in items}
        # An entry larger than the cache would displace all others.
        packed = {key: entry for key, entry in packed.items() if len(entry[1]) + ENTRY_BYTES <= self.max_bytes}
        if packed:
            with LOCK:
                self._put(packed)

    @abstractmethod
    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool] | None:
        """Claim free images for a job, see `grant`; None if claims cannot be kept."""

    @abstractmethod
    def renew(self, owner: Owner) -> None:
        """Renew the claims of a job before they expire."""

    @abstractmethod
    def release(self, owner: Owner) -> None:
        """Release the claims of a job."""

    @abstractmethod
    def claimed(self, keys: Sequence[bytes]) -> Mapping[bytes, Claim]:
        """Return the claims of these keys, including those of dead jobs."""

    def stats(self) -> CacheStats:
        """Return hits and misses since the cache was opened, and its size."""
        with LOCK:
            return CacheStats(self._hits, self._misses, *self._size())

    @abstractmethod
    def clear(self) -> None:
        """Drop all entries."""

    def warn(self, trouble: str, kind: "str | None" = None) -> None:
        """Warn about this cache, once per process for each kind of trouble."""
        warn_once(self.name, trouble, kind)

    @abstractmethod
    def _get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]: ...

    @abstractmethod
    def _put(self, packed: dict[bytes, tuple[bytes, bytes]]) -> None: ...

    @abstractmethod
    def _size(self) -> tuple[int, int]: ...

    def _disconnect(self) -> None:  # noqa: B027, a cache in memory has nothing to close
        """Close what a forked child must not inherit; the next call reopens it."""


def warn_once(name: str, trouble: str, kind: "str | None" = None) -> None:
    """Warn about a cache, once per process for each kind of trouble.

    Many estimators, folds and calls share a cache, and each would repeat the warning.

    Parameters
    ----------
    name : str
        The value of the parameter ``cache``.
    trouble : str
        What is wrong, what it means and what to do.
    kind : str or None, default=None
        Identifier of the trouble. None uses the text.
    """
    told = (name, kind or trouble)
    if told not in _WARNED:
        quoted = shortened(repr(name), 200)  # so that the reason is not cut
        warn(f"cache={quoted}: {trouble}", CacheWarning)
        # After the warning: if filters make it an error, it is raised each time.
        _WARNED.add(told)


def pack(array: np.ndarray) -> tuple[bytes, bytes]:
    """Serialize an array to a header (``"<f4 3,5"``) and its values in C order."""
    array = np.asarray(array)
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(f"Arrays of dtype {array.dtype} cannot be cached, because their bytes do not determine it.")
    return f"{array.dtype.str} {','.join(map(str, array.shape))}".encode(), array.tobytes()


def unpack(header: bytes, data: bytes) -> np.ndarray:
    """Return the array of a packed entry, a read-only view of ``data``."""
    dtype, shape = header.decode().split(" ")
    return np.ndarray([int(size) for size in shape.split(",") if size], dtype, data)


def _before_fork() -> None:
    """Take the lock and close connections, so that a child inherits neither."""
    LOCK.acquire()
    for cache in list(_CACHES):
        cache._disconnect()


_CACHES: weakref.WeakSet[Cache] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=LOCK.release, after_in_child=LOCK.release)
