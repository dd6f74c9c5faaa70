"""The cache forgets but never lies and never raises, whatever happens to the disk or to other processes."""

import contextlib
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from sktl._engine import _cache
from sktl._engine._cache import DirectoryCache, MemoryCache, open_cache
from sktl.exceptions import CacheWarning

KIB = 1024
MIB = 1024**2


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def array_of(number: int, size: int = 1280) -> np.ndarray:
    """The one right array for a key: whoever reads another was lied to."""
    return np.random.default_rng(number).standard_normal(size, dtype=np.float32)


def items_of(numbers, size: int = 1280) -> list[tuple[bytes, np.ndarray]]:
    return [(key_of(number), array_of(number, size)) for number in numbers]


def read(cache, numbers, size: int = 1280) -> list[bool]:
    """Which of the entries are there; fails where one is there and wrong."""
    values = cache.get_many([key_of(number) for number in numbers])
    for number, value in zip(numbers, values, strict=True):
        if value is not None:
            np.testing.assert_array_equal(value, array_of(number, size))
    return [value is not None for value in values]


# What a second process runs: the same two functions, and a line on standard output for each step done.
CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from sktl._engine import _cache
from sktl._engine._cache import DirectoryCache

def items_of(numbers, size=1280):
    return [(n.to_bytes(16, "big"), np.random.default_rng(n).standard_normal(size, dtype=np.float32)) for n in numbers]

cache = DirectoryCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


def start_child(code: str, *args: object) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def in_fork(action) -> bool:
    """Whether ``action`` returns something true in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads; they are the point here
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a deadlock is a failure, not an endless test
        try:
            os._exit(0 if action() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(params=["memory", "directory"])
def cache(request, tmp_path):
    """One of each kind, with room for some 1,000 vectors of 1,280 numbers."""
    return MemoryCache(8 * MIB) if request.param == "memory" else DirectoryCache(tmp_path / "store", 8 * MIB)


@pytest.fixture
def store(tmp_path):
    return DirectoryCache(tmp_path / "store", timeout=0.05)


class TestOpenCache:
    def test_auto_is_one_per_process(self):
        """All estimators share the memory cache, and its bound is the documented one."""
        assert open_cache("auto") is open_cache("auto")
        assert 0 < open_cache("auto").max_bytes <= 1024**3

    def test_none_is_off(self):
        """None means no cache."""
        assert open_cache(None) is None

    @pytest.mark.parametrize("kind", [str, Path])
    def test_path_is_a_directory_made_on_first_use(self, tmp_path, kind):
        """Opening touches no disk; the first use makes the directory, parents included."""
        path = tmp_path / "a" / "b"
        cache = open_cache(kind(path))
        assert not (tmp_path / "a").exists()
        cache.put_many(items_of([1]))
        assert read(open_cache(kind(path)), [1]) == [True]

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        """A leading tilde is the user's home, not a directory of that name."""
        monkeypatch.setenv("HOME", str(tmp_path))
        assert open_cache("~/features").path == tmp_path / "features"

    @pytest.mark.parametrize("wrong", [True, 3, b"store", ["store"]])
    def test_other_types_are_refused(self, wrong):
        """The error restates what came and names the three ways out."""
        with pytest.raises(TypeError, match=r"cache=.*'auto'.*directory.*None"):
            open_cache(wrong)

    def test_a_file_is_refused(self, tmp_path):
        """A path to a file is named in the error, and the file is left alone."""
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ValueError, match=r"file.*is a file"):
            open_cache(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_empty_path_is_refused(self):
        """An empty string does not become the working directory."""
        with pytest.raises(ValueError, match="empty path"):
            open_cache("")


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

    def test_values_come_in_the_order_of_the_keys(self, cache):
        """Repeated and absent keys are answered each in its place, over several queries' worth of keys."""
        cache.put_many(items_of(range(0, 700, 2), 8))
        numbers = [*range(699, -1, -1), 4, 4, 5]
        assert read(cache, numbers, 8) == [number % 2 == 0 for number in numbers]
        assert cache.get_many([]) == []

    def test_the_caller_cannot_damage_it(self, cache):
        """Neither the array that was put nor the one that came back leads to the cache's own memory."""
        array = array_of(1)
        cache.put_many([(key_of(1), array)])
        array[:] = 0
        (back,) = cache.get_many([key_of(1)])
        with pytest.raises(ValueError, match="read-only"):
            back[:] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            back.setflags(write=True)
        assert read(cache, [1]) == [True]

    def test_put_replaces(self, cache):
        """The last array put under a key is the one that comes back, and there is one entry of it."""
        cache.put_many([(b"key", np.zeros(3)), (b"key", np.ones(3))])
        cache.put_many([(b"key", np.full(3, 2.0))])
        np.testing.assert_array_equal(cache.get_many([b"key"])[0], 2)
        assert len(cache) == 1

    def test_it_is_bounded_and_the_newest_stay(self, cache):
        """Three times what fits in is put: the bound holds after each call, and the last calls' entries are there."""
        for start in range(0, 4500, 100):
            cache.put_many(items_of(range(start, start + 100)))
            assert cache.nbytes <= cache.max_bytes
        there = read(cache, range(4500))
        assert all(there[-1000:])
        assert not any(there[:2500])
        assert sum(there) == len(cache)

    def test_what_cannot_fit_is_not_kept(self, cache):
        """One entry larger than the whole cache does not push out all the others."""
        cache.put_many(items_of([1]))
        cache.put_many([(b"large", np.zeros(8 * MIB, np.uint8))])
        assert cache.get_many([b"large"]) == [None]
        assert read(cache, [1]) == [True]

    def test_clear_forgets(self, cache):
        """Nothing is left after clear, and the cache works on."""
        cache.put_many(items_of(range(500)))
        full = cache.nbytes
        cache.clear()
        assert read(cache, range(500)) == [False] * 500
        assert len(cache) == 0
        assert cache.nbytes < full / 20
        cache.put_many(items_of([1]))
        assert read(cache, [1]) == [True]

    def test_stats_count(self, cache):
        """Hits, misses and entries are counted one by one."""
        cache.put_many(items_of([1, 2]))
        read(cache, [1, 2, 3])
        hits, misses, entries, nbytes = cache.stats()
        assert (hits, misses, entries) == (2, 1, 2)
        assert nbytes == cache.nbytes > 2 * 1280 * 4

    def test_threads_may_share_it(self, cache):
        """Four threads put, get and clear at once: no error, no wrong array."""
        errors = []

        def work(seed):
            random = np.random.default_rng(seed)
            try:
                for _ in range(30):
                    numbers = random.integers(0, 300, 20).tolist()
                    cache.put_many(items_of(numbers, 16))
                    read(cache, numbers, 16)
                cache.clear()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    @needs_fork
    def test_it_survives_a_fork(self, cache):
        """While a thread works in the cache, forked children read what the parent put and put what they like."""
        cache.put_many(items_of([1]))
        stop = threading.Event()

        def work():
            while not stop.is_set():
                cache.put_many(items_of([2], 16))
                cache.get_many([key_of(2)])

        def in_child():
            cache.put_many(items_of([os.getpid()]))
            return read(cache, [1, os.getpid()]) == [True, True]

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert all(in_fork(in_child) for _ in range(5))
        finally:
            stop.set()
            thread.join()
        assert read(cache, [1]) == [True]


class TestMemory:
    def test_the_least_recently_used_goes_first(self):
        """An entry that is read stays while an unread one of the same age goes."""
        cache = MemoryCache(3 * (1280 * 4 + 200))
        cache.put_many(items_of([1, 2, 3]))
        read(cache, [1])
        cache.put_many(items_of([4]))
        assert read(cache, [1, 2, 3, 4]) == [True, False, True, True]

    def test_pickled_it_is_the_other_process_own(self):
        """An estimator that carries it does not carry a gigabyte: it arrives as the process-wide cache."""
        open_cache("auto").put_many([(b"test_pickled", np.zeros(100_000))])
        sent = pickle.dumps(open_cache("auto"))
        assert len(sent) < 200
        assert pickle.loads(sent) is open_cache("auto")


class TestDirectory:
    def test_it_outlives_the_object(self, tmp_path):
        """A second object, as in the next run of a program, finds what the first one put."""
        DirectoryCache(tmp_path).put_many(items_of(range(50)))
        assert all(read(DirectoryCache(tmp_path), range(50)))

    def test_pickled_it_finds_its_directory(self, store):
        """What travels is the path, with an open connection too."""
        store.put_many(items_of([1]))
        copy = pickle.loads(pickle.dumps(store))
        assert (copy.path, copy.max_bytes, copy.timeout) == (store.path, store.max_bytes, store.timeout)
        assert read(copy, [1]) == [True]

    def test_two_processes_write_at_once(self, tmp_path):
        """Two processes open a new directory at the same moment and put 1,000 entries each, 500 of them the same."""
        code = """
for start in range(int(sys.argv[2]), int(sys.argv[2]) + 1000, 50):
    cache.put_many(items_of(range(start, start + 50)))
    assert all(value is not None for value in cache.get_many([n.to_bytes(16, "big") for n in range(start, start + 50)]))
"""
        children = [start_child(code, tmp_path, start) for start in (0, 500)]
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            child.communicate(timeout=120)
        assert [child.returncode for child in children] == [0, 0]
        cache = DirectoryCache(tmp_path)
        assert all(read(cache, range(1500)))
        assert len(cache) == 1500

    def test_a_writer_killed_in_a_transaction_leaves_nothing_of_it(self, tmp_path):
        """SIGKILL after 1,000 uncommitted rows: what was committed is there, the rest is not, and writing goes on."""
        code = """
cache.put_many(items_of(range(100)))
_cache._make_room = lambda connection, max_bytes: os.kill(os.getpid(), signal.SIGKILL)
cache.put_many(items_of(range(100, 1100)))
"""
        child = start_child(code, tmp_path)
        child.communicate("go\n", timeout=120)
        assert child.returncode == -signal.SIGKILL
        cache = DirectoryCache(tmp_path)
        assert read(cache, range(1100)) == [True] * 100 + [False] * 1000
        cache.put_many(items_of(range(100, 200)))
        assert all(read(cache, range(200)))

    def test_a_writer_killed_at_any_moment_leaves_no_wrong_entry(self, tmp_path):
        """SIGKILL in a busy loop, while this process reads and writes too: every call that ended has its entries."""
        code = """
for start in range(0, 10**6, 20):
    cache.put_many(items_of(range(start, start + 20)))
    print(start + 20, flush=True)
"""
        cache = DirectoryCache(tmp_path)
        child = start_child(code, tmp_path)
        child.stdin.write("go\n")
        child.stdin.flush()
        for _ in range(15):
            done = int(child.stdout.readline())
            cache.put_many(items_of(range(10**7, 10**7 + 20)))
            read(cache, range(done + 100))
        child.kill()
        done = [done, *map(int, child.communicate()[0].split())][-1]
        assert all(read(DirectoryCache(tmp_path), range(done)))

    def test_a_full_disk(self, store):
        """SQLite's own limit, which fails as a full disk does: one warning, old entries stay, new ones are absent."""
        store.put_many(items_of(range(100)))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.warns(CacheWarning, match=r"disk is full.*right but not kept"):
            store.put_many(items_of(range(100, 200)))
        store.put_many(items_of(range(100, 200)))  # and no second warning, which would be an error here
        assert read(store, range(200)) == [True] * 100 + [False] * 100
        store._connection.execute(f"PRAGMA max_page_count={10 * pages}")
        store.put_many(items_of(range(100, 200)))
        assert all(read(store, range(200)))

    def test_a_really_full_disk(self, tmp_path):
        """The same on a file system of 4 MiB, with other files that leave no room for anything."""
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "sktl", tmp_path], capture_output=True).returncode:
            pytest.skip("only root may mount a small file system, and not everywhere")
        store = DirectoryCache(tmp_path / "store")
        try:
            store.put_many(items_of(range(100)))
            with pytest.warns(CacheWarning, match="right but not kept"):
                store.put_many(items_of(range(100, 1000)))
            assert read(store, range(1000)) == [True] * 100 + [False] * 900
            store._disconnect()
            fill_up(tmp_path / "other")
            store = DirectoryCache(tmp_path / "store")
            with pytest.warns(CacheWarning, match="right but not kept"):
                store.put_many(items_of(range(100, 1000)))
            with warnings.catch_warnings():  # reading may need a little room for SQLite's lock file, and finds none
                warnings.simplefilter("ignore", CacheWarning)
                assert not any(read(store, range(1000))[100:])
            (tmp_path / "other").unlink()
            store.put_many(items_of(range(100, 200)))
            assert all(read(store, range(200)))
        finally:
            store._disconnect()
            subprocess.run(["umount", tmp_path], check=True)

    def test_a_damaged_entry_is_absent(self, store):
        """One flipped bit in the numbers of one entry: it is absent, said once, and can be put again."""
        store.put_many(items_of(range(20)))
        flip(store, array_of(7).tobytes()[:100])
        with pytest.warns(CacheWarning, match="damaged entries were found and dropped"):
            assert read(store, range(20)) == [number != 7 for number in range(20)]
        assert len(store) == 19
        store.put_many(items_of([7]))
        assert all(read(store, range(20)))

    @pytest.mark.parametrize(
        "change",
        [
            "header = CAST('<f8 640' AS BLOB)",
            "header = CAST('<f4 640,2' AS BLOB)",
            "header = NULL",
            "data = 5",
            "checksum = x'00'",
            "key = x'01'",
        ],
    )
    def test_a_changed_row_is_absent(self, store, change):
        """Header, numbers, checksum and key vouch for each other: whichever is changed, no wrong array comes back."""
        store.put_many(items_of([1, 2]))
        store._connection.execute(f"UPDATE features SET {change} WHERE id = 1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert read(store, [1, 2]) == [False, True]
            assert store.get_many([b"\1"]) == [None]

    @pytest.mark.parametrize("damage", ["header", "schema", "middle", "truncated", "text"])
    def test_a_damaged_file_is_started_anew(self, store, damage):
        """Whatever is in the file, the cache says it once, begins an empty one, and works on."""
        store.put_many(items_of(range(500)))
        store._disconnect()
        (file,) = store.path.glob("*.sqlite")
        content = file.read_bytes()
        garbage = np.random.default_rng(0).bytes(len(content))
        file.write_bytes(
            {
                "header": garbage[:4096] + content[4096:],
                "schema": content.replace(b"CREATE TABLE", b"CREATE \xff\xfeBLE"),
                "middle": content[:100] + garbage[100:],
                "truncated": content[: len(content) // 3],
                "text": b"not a database\n" * 100,
            }[damage]
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store.put_many(items_of(range(500)))  # which a truncated file may take, and a read then finds the damage
            read(store, range(500))
        (warning,) = caught
        assert re.search(r"damaged .* started anew", str(warning.message))
        store.put_many(items_of(range(500)))
        assert all(read(store, range(500)))
        assert [path.name for path in store.path.glob("*.sqlite")] == ["features-v1-0002.sqlite"]

    def test_random_damage_never_lies_and_never_raises(self, tmp_path):
        """Sixty files, each with some bytes changed at random: every entry is right or absent."""
        source = DirectoryCache(tmp_path / "source")
        source.put_many(items_of(range(60), 640))
        source._disconnect()
        content = np.frombuffer(next(source.path.glob("*.sqlite")).read_bytes(), np.uint8)
        random = np.random.default_rng(0)
        for trial in range(60):
            damaged = content.copy()
            where = random.integers(0, len(content) if trial % 2 else 16 * KIB, 1 + trial // 4)
            damaged[where] = random.integers(0, 256, len(where))
            store = DirectoryCache(tmp_path / str(trial), timeout=0.05)
            store.path.mkdir()
            (store.path / "features-v1-0001.sqlite").write_bytes(damaged.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheWarning)
                read(store, range(60), 640)
                store.put_many(items_of(range(60), 640))
                read(store, range(60), 640)

    def test_the_successor_of_a_damaged_file_is_shared(self, tmp_path):
        """A process that meets the damage second takes the first one's new file and throws nothing away."""
        first, second = DirectoryCache(tmp_path), DirectoryCache(tmp_path)
        for store in (first, second):
            store.put_many(items_of([1]))
        for store in (first, second):
            with pytest.warns(CacheWarning, match="damaged"):
                store._attempt(corrupt, None)
            store.put_many(items_of([2 if store is first else 3]))
        assert read(second, [1, 2, 3]) == [False, True, True]
        assert read(first, [1, 2, 3]) == [False, True, True]

    def test_another_version_is_left_alone(self, store):
        """The file of a newer or older sktl is neither read nor changed nor removed."""
        store.path.mkdir()
        others = [store.path / f"features-v{version}-0001.sqlite" for version in (0, 2)]
        for other in others:
            other.write_bytes(b"another table")
        store.put_many(items_of([1]))
        assert read(store, [1]) == [True]
        assert [other.read_bytes() for other in others] == [b"another table"] * 2

    def test_a_table_of_another_shape_is_started_anew(self, store):
        """A file of this version's name that holds something else is damage like any other."""
        store.path.mkdir()
        with sqlite3.connect(store.path / "features-v1-0001.sqlite") as connection:
            connection.execute("CREATE TABLE features (id INTEGER PRIMARY KEY, something TEXT)")
        connection.close()
        with pytest.warns(CacheWarning, match="started anew"):
            assert read(store, [1]) == [False]
        store.put_many(items_of([1]))
        assert read(store, [1]) == [True]

    def test_a_lock_that_is_not_given_up(self, store):
        """Another process holds the write lock: reading works, one warning, and no second wait."""
        store.put_many(items_of([1]))
        blocker = sqlite3.connect(next(store.path.glob("*.sqlite")), isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.warns(CacheWarning, match=r"locked for 0.05 s"):
            store.put_many(items_of([2]))
        store.put_many(items_of([2]))
        assert store._connection is None or store._connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        assert read(store, [1, 2]) == [True, False]
        blocker.execute("ROLLBACK")
        blocker.close()
        store.put_many(items_of([2]))
        assert read(store, [1, 2]) == [True, True]

    def test_a_directory_that_cannot_be_made(self, tmp_path):
        """Where a parent is a file, both calls go on without the cache, and say so."""
        (tmp_path / "file").touch()
        store = DirectoryCache(tmp_path / "file" / "store")
        with pytest.warns(CacheWarning, match="right but not kept"):
            assert read(store, [1]) == [False]
        store.put_many(items_of([1]))
        assert store.stats() == (0, 1, 0, 0)

    def test_a_directory_that_is_deleted_meanwhile(self, store):
        """Somebody clears the directory by hand: no error now, and a new start afterwards."""
        store.put_many(items_of([1]))
        for file in store.path.iterdir():
            file.unlink()
        store.path.rmdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            read(store, [1])
            store.put_many(items_of([1]))
        store._disconnect()
        store.put_many(items_of([1]))
        assert read(store, [1]) == [True]

    @needs_fork
    @pytest.mark.parametrize("filled", [True, False])
    def test_a_directory_that_can_only_be_read(self, filled):
        """It is read as it stands and never written; with nothing in it, all is computed. One warning at most."""
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o755)
            store = DirectoryCache(Path(parent) / "store")
            store.path.mkdir()
            if filled:
                store.put_many(items_of([1]))
                store._disconnect()
            os.chmod(store.path, 0o555)

            def in_child():
                if os.geteuid() == 0:  # whom no mode of a directory holds back
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    there = read(store, [1]) == [filled]
                    store.put_many(items_of([2]))
                    there &= read(store, [1, 2]) == [filled, False]
                return there and {warning.category for warning in caught} == {CacheWarning}

            try:
                assert in_fork(in_child)
            finally:
                os.chmod(store.path, 0o755)

    def test_warnings_as_errors_leave_it_whole(self, store):
        """Who turns warnings into errors gets one, and the cache works on after it."""
        store.put_many(items_of([1]))
        with pytest.raises(CacheWarning):  # the tests themselves run with warnings as errors
            store._attempt(corrupt, None)
        store.put_many(items_of([1]))
        assert read(store, [1]) == [True]


def corrupt(connection: sqlite3.Connection) -> None:
    """Fail as SQLite does on a file that makes no sense."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def fill_up(file: Path) -> None:
    """Take all that is left of the disk."""
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as stream:
        while stream.write(bytes(KIB)):
            pass


def flip(store: DirectoryCache, content: bytes) -> None:
    """Flip one bit of the file where it holds ``content``."""
    store._disconnect()
    (file,) = store.path.glob("*.sqlite")
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(content) + 10] ^= 1
    file.write_bytes(damaged)


def test_one_lock_is_free_after_all():
    """Nothing above has left the caches of this process locked."""
    assert _cache._LOCK.acquire(blocking=False)
    _cache._LOCK.release()
