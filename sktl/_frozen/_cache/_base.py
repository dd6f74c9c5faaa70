"""What all caches share: the calls, the lock, and how an array becomes bytes."""

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

ENTRY_BYTES = 200  # what an entry costs beside its numbers, about

# One lock for all caches of the process. It is held for milliseconds, and it makes a fork safe: see _before_fork.
LOCK = Lock()

_WARNED: set[tuple[str, str]] = set()  # what was said of which cache


class CacheStats(NamedTuple):
    """What a cache holds, and how often it had what was asked for since it was opened.

    The bytes include what manages the entries.
    """

    hits: int
    misses: int
    entries: int
    nbytes: int


class Cache(ABC):
    """A bounded, forgetful mapping from digests to arrays."""

    name: str  # what the user gave as ``cache``

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._hits = self._misses = 0
        with LOCK:
            _CACHES.add(self)

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The array of each key, read-only, or None where there is none."""
        with LOCK:
            found = self._get(keys) if keys else {}
            values = [found.get(key) for key in keys]
            misses = sum(value is None for value in values)
            self._hits += len(values) - misses
            self._misses += misses
        return values

    def put_many(self, items: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Keep a copy of each array; where the cache is full, the oldest entries go."""
        packed = {key: pack(array) for key, array in items}
        # An entry that would push out all others is not worth keeping.
        packed = {key: entry for key, entry in packed.items() if len(entry[1]) + ENTRY_BYTES <= self.max_bytes}
        if packed:
            with LOCK:
                self._put(packed)

    @abstractmethod
    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool] | None:
        """Claim what is free for a job, see `Claims.ask`; None where claims cannot be kept."""

    @abstractmethod
    def renew(self, owner: Owner) -> None:
        """Keep a job's claims from growing too old."""

    @abstractmethod
    def release(self, owner: Owner) -> None:
        """Give up a job's claims."""

    @abstractmethod
    def claimed(self, keys: Sequence[bytes]) -> Mapping[bytes, Claim]:
        """The claims of these keys, those of jobs that are gone included."""

    def stats(self) -> CacheStats:
        """Hits and misses since the cache was opened, and what it holds."""
        with LOCK:
            return CacheStats(self._hits, self._misses, *self._size())

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    def warn(self, trouble: str, kind: "str | None" = None) -> None:
        """Say what is wrong with this cache, each kind of trouble once in a process."""
        warn_once(self.name, trouble, kind)

    @abstractmethod
    def _get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]: ...

    @abstractmethod
    def _put(self, packed: dict[bytes, tuple[bytes, bytes]]) -> None: ...

    @abstractmethod
    def _size(self) -> tuple[int, int]: ...

    def _disconnect(self) -> None:  # noqa: B027, a cache in memory has nothing to close
        """Close what a forked child must not inherit; the next call opens it again."""


def warn_once(name: str, trouble: str, kind: "str | None" = None) -> None:
    """Warn of a cache, by what the user gave for it, unless that was done in this process.

    Many estimators, folds and calls use one cache: each would repeat it.

    Parameters
    ----------
    name : str
        What the user gave as ``cache``.
    trouble : str
        What is wrong, what it means, what to do.
    kind : str or None, default=None
        What tells one trouble from another, where that is not the whole text.
    """
    told = (name, kind or trouble)
    if told not in _WARNED:
        quoted = shortened(repr(name), 200)  # the reason stands behind it, and is not to be cut
        warn(f"cache={quoted}: {trouble}", CacheWarning)
        _WARNED.add(told)  # unless the user's filters made it an error, which a second call should be as well


def pack(array: np.ndarray) -> tuple[bytes, bytes]:
    """``array`` as a header, "<f4 3,5" for (3, 5) float32, and its numbers in C order."""
    array = np.asarray(array)
    if array.dtype.hasobject or np.dtype(array.dtype.str) != array.dtype:
        raise TypeError(f"An array of dtype {array.dtype} cannot be cached: its bytes do not say what it is.")
    return f"{array.dtype.str} {','.join(map(str, array.shape))}".encode(), array.tobytes()


def unpack(header: bytes, data: bytes) -> np.ndarray:
    """The array of a packed entry: a view of ``data``, so that nobody can make it writable."""
    dtype, shape = header.decode().split(" ")
    return np.ndarray([int(size) for size in shape.split(",") if size], dtype, data)


def _before_fork() -> None:
    """No other thread is inside a cache while the process forks, and no connection is handed to the child."""
    LOCK.acquire()
    for cache in list(_CACHES):
        cache._disconnect()


_CACHES: weakref.WeakSet[Cache] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=LOCK.release, after_in_child=LOCK.release)
