"""What holds for every cache: it forgets but never lies, is bounded, and may be shared by threads and forks."""

import os
import threading

import numpy as np
import pytest

from sktl._frozen._cache import DirectoryCache, MemoryCache, _base

MIB = 1024**2


@pytest.fixture(params=["memory", "directory"])
def cache(request, tmp_path):
    """One of each kind, with room for some 1,000 vectors of 1,280 numbers."""
    return MemoryCache(8 * MIB) if request.param == "memory" else DirectoryCache(tmp_path / "store", 8 * MIB)


class TestBothKinds:
    @pytest.mark.parametrize(
        "array",
        [
            np.float32(3.5),
            np.zeros((0, 7), np.float64),
            np.arange(24, dtype=np.float16).reshape(2, 3, 4),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(20)[::3],
            np.array([True, False]),
            np.array([1 + 2j], np.complex64),
            np.array([1, 2], ">i4"),
            np.array(["2020-01-01"], "datetime64[D]"),
            np.array([np.nan, -0.0, np.inf], np.float32),
        ],
        ids=lambda array: f"{array.dtype.str}{array.shape}",
    )
    def test_what_comes_back_is_what_was_put(self, cache, array):
        """Any shape and dtype comes back bit for bit."""
        cache.put_many([(b"key", array)])
        (back,) = cache.get_many([b"key"])
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()

    @pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, [("a", "i4"), ("b", "f4")])])
    def test_an_array_that_its_bytes_do_not_tell_is_refused(self, cache, array):
        """Objects and records are a mistake of the caller's, and said to be one."""
        with pytest.raises(TypeError, match="cannot be cached"):
            cache.put_many([(b"key", array)])

    def test_values_come_in_the_order_of_the_keys(self, cache, entries):
        """Repeated and absent keys are answered each in its place, over several queries' worth of keys."""
        cache.put_many(entries.items(range(0, 700, 2), 8))
        numbers = [*range(699, -1, -1), 4, 4, 5]
        assert entries.read(cache, numbers, 8) == [number % 2 == 0 for number in numbers]
        assert cache.get_many([]) == []

    def test_the_caller_cannot_damage_it(self, cache, entries):
        """Neither the array that was put nor the one that came back leads to the cache's own memory."""
        array = entries.array(1)
        cache.put_many([(entries.key(1), array)])
        array[:] = 0
        (back,) = cache.get_many([entries.key(1)])
        with pytest.raises(ValueError, match="read-only"):
            back[:] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            back.setflags(write=True)
        assert entries.read(cache, [1]) == [True]

    def test_put_replaces(self, cache):
        """The last array put under a key is the one that comes back, and there is one entry of it."""
        cache.put_many([(b"key", np.zeros(3)), (b"key", np.ones(3))])
        cache.put_many([(b"key", np.full(3, 2.0))])
        np.testing.assert_array_equal(cache.get_many([b"key"])[0], 2)
        assert cache.stats().entries == 1

    def test_it_is_bounded_and_the_newest_stay(self, cache, entries):
        """Three times what fits in is put: the bound holds after each call, and the last calls' entries are there."""
        for start in range(0, 4500, 100):
            cache.put_many(entries.items(range(start, start + 100)))
            assert cache.stats().nbytes <= cache.max_bytes
        there = entries.read(cache, range(4500))
        assert all(there[-1000:])
        assert not any(there[:2500])
        assert sum(there) == cache.stats().entries

    def test_what_cannot_fit_is_not_kept(self, cache, entries):
        """One entry larger than the whole cache does not push out all the others."""
        cache.put_many(entries.items([1]))
        cache.put_many([(b"large", np.zeros(8 * MIB, np.uint8))])
        assert cache.get_many([b"large"]) == [None]
        assert entries.read(cache, [1]) == [True]

    def test_clear_forgets(self, cache, entries):
        """Nothing is left after clear, and the cache works on."""
        cache.put_many(entries.items(range(500)))
        full = cache.stats().nbytes
        cache.clear()
        assert entries.read(cache, range(500)) == [False] * 500
        assert cache.stats().entries == 0
        assert cache.stats().nbytes < full / 20
        cache.put_many(entries.items([1]))
        assert entries.read(cache, [1]) == [True]

    def test_stats_count(self, cache, entries):
        """Hits, misses and entries are counted one by one."""
        cache.put_many(entries.items([1, 2]))
        entries.read(cache, [1, 2, 3])
        hits, misses, entries, nbytes = cache.stats()
        assert (hits, misses, entries) == (2, 1, 2)
        assert nbytes == cache.stats().nbytes > 2 * 1280 * 4

    def test_threads_may_share_it(self, cache, entries):
        """Four threads put, get and clear at once: no error, no wrong array."""
        errors = []

        def work(seed):
            random = np.random.default_rng(seed)
            try:
                for _ in range(30):
                    numbers = random.integers(0, 300, 20).tolist()
                    cache.put_many(entries.items(numbers, 16))
                    entries.read(cache, numbers, 16)
                cache.clear()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_it_survives_a_fork(self, cache, entries, in_fork):
        """While a thread works in the cache, forked children read what the parent put and put what they like."""
        cache.put_many(entries.items([1]))
        stop = threading.Event()

        def work():
            while not stop.is_set():
                cache.put_many(entries.items([2], 16))
                cache.get_many([entries.key(2)])

        def in_child():
            cache.put_many(entries.items([os.getpid()]))
            return entries.read(cache, [1, os.getpid()]) == [True, True]

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert all(in_fork(in_child) for _ in range(5))
        finally:
            stop.set()
            thread.join()
        assert entries.read(cache, [1]) == [True]


def test_one_lock_is_free_after_all():
    """Nothing above has left the caches of this process locked."""
    other = threading.Thread(target=lambda: _base.LOCK.acquire() or _base.LOCK.release(), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive()
