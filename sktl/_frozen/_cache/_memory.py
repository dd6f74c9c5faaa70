"""Cache in memory."""

import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from sktl._frozen._cache._base import ENTRY_BYTES, LOCK, Cache, unpack
from sktl._frozen._cache._claims import Claim, Keys, Owner, grant
from sktl._stores import register_store

GIB = 1024**3


class MemoryCache(Cache):
    """Cache in memory that drops the least recently used entries first.

    Unpickled in another process, it becomes the memory cache of that process.
    """

    name = "auto"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._entries: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._claims: dict[bytes, Claim] = {}

    def clear(self) -> None:
        with LOCK:
            self._entries.clear()
            self._bytes = 0

    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool]:
        with LOCK:
            keys = {key for keys in wanted for key in keys}
            answers = grant(wanted, keys & self._entries.keys(), self.claimed(list(keys)))
            claim = Claim(owner, time.time())
            for keys_of_one, is_granted in zip(wanted, answers, strict=True):
                if is_granted:
                    self._claims.update(dict.fromkeys(keys_of_one, claim))
            return answers

    def renew(self, owner: Owner) -> None:
        with LOCK:
            claim = Claim(owner, time.time())
            self._claims.update({key: claim for key, old in self._claims.items() if old.owner == owner})

    def release(self, owner: Owner) -> None:
        with LOCK:
            self._claims = {key: claim for key, claim in self._claims.items() if claim.owner != owner}

    def claimed(self, keys: Sequence[bytes]) -> Mapping[bytes, Claim]:
        # A forked child inherits the claims of its parent but no job that releases
        # them.
        here = os.getpid()
        with LOCK:
            return {key: claim for key in keys if (claim := self._claims.get(key)) and claim.owner.pid == here}

    def __reduce__(self) -> tuple:
        return shared_memory_cache, ()

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found = {}
        for key in keys:
            if (array := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
                # A view, to protect the shape of the cached array as well.
                found[key] = array.view()
        return found

    def _put(self, packed: dict[bytes, tuple[bytes, bytes]]) -> None:
        for key, entry in packed.items():
            self._forget(key)
            self._entries[key] = array = unpack(*entry)
            self._bytes += array.nbytes + ENTRY_BYTES
        while self._bytes > self.max_bytes:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: bytes) -> None:
        if (array := self._entries.pop(key, None)) is not None:
            self._bytes -= array.nbytes + ENTRY_BYTES

    def _size(self) -> tuple[int, int]:
        return len(self._entries), self._bytes


def shared_memory_cache() -> MemoryCache:
    """Return the memory cache that all estimators of the process share.

    The limit is 1 GiB, or an eighth of the memory of the machine if that is less.
    """
    return _SHARED


def _bound() -> int:
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not available on every system
        return GIB
    return min(GIB, physical // 8)


_SHARED = MemoryCache(_bound())
register_store("features of images and answers of teachers", _SHARED.clear)
