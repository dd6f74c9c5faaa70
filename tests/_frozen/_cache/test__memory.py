"""What is particular to the cache in memory."""

import pickle

import numpy as np

from sktl._frozen._cache import MemoryCache, open_cache


class TestMemory:
    def test_the_least_recently_used_goes_first(self, entries):
        """An entry that is read stays while an unread one of the same age goes."""
        cache = MemoryCache(3 * (1280 * 4 + 200))
        cache.put_many(entries.items([1, 2, 3]))
        entries.read(cache, [1])
        cache.put_many(entries.items([4]))
        assert entries.read(cache, [1, 2, 3, 4]) == [True, False, True, True]

    def test_pickled_it_is_the_other_process_own(self):
        """An estimator that carries it does not carry a gigabyte: it arrives as the process-wide cache."""
        open_cache("auto").put_many([(b"test_pickled", np.zeros(100_000))])
        sent = pickle.dumps(open_cache("auto"))
        assert len(sent) < 200
        assert pickle.loads(sent) is open_cache("auto")
