"""Whatever happens to the disk or in other processes, the directory cache is right, and raises nothing."""

import contextlib
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from sktl._frozen._cache import Claims, DirectoryCache, _directory
from sktl.exceptions import CacheWarning

KIB = 1024
MIB = 1024**2

# What a second process runs: the same two functions, and a line on standard output for each step done.
CHILD = """
import os, signal, sys, warnings
from pathlib import Path
import numpy as np
from sktl._frozen._cache import DirectoryCache, _directory

def items_of(numbers, size=1280):
    return [(n.to_bytes(16, "big"), np.random.default_rng(n).standard_normal(size, dtype=np.float32)) for n in numbers]

warnings.simplefilter("error")  # a CacheWarning here is a failure
cache = DirectoryCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


def start_child(code: str, *args: object) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.fixture
def store(tmp_path):
    return DirectoryCache(tmp_path / "store", timeout=0.05)


class TestDirectory:
    def test_it_outlives_the_object(self, tmp_path, entries):
        """A second object, as in the next run of a program, finds what the first one put."""
        DirectoryCache(tmp_path).put_many(entries.items(range(50)))
        assert all(entries.read(DirectoryCache(tmp_path), range(50)))

    def test_pickled_it_finds_its_directory(self, store, entries):
        """What travels is the path, with an open connection too."""
        store.put_many(entries.items([1]))
        copy = pickle.loads(pickle.dumps(store))
        assert (copy.path, copy.max_bytes, copy.timeout) == (store.path, store.max_bytes, store.timeout)
        assert entries.read(copy, [1]) == [True]

    def test_two_processes_write_at_once(self, tmp_path, entries):
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
        assert all(entries.read(cache, range(1500)))
        assert cache.stats().entries == 1500

    def test_a_writer_killed_in_a_transaction_leaves_nothing_of_it(self, tmp_path, entries):
        """SIGKILL after 1,000 uncommitted rows: what was committed is there, the rest is not, and writing goes on."""
        code = """
cache.put_many(items_of(range(100)))
_directory._make_room = lambda connection, max_bytes: os.kill(os.getpid(), signal.SIGKILL)
cache.put_many(items_of(range(100, 1100)))
"""
        child = start_child(code, tmp_path)
        child.communicate("go\n", timeout=120)
        assert child.returncode == -signal.SIGKILL
        cache = DirectoryCache(tmp_path)
        assert entries.read(cache, range(1100)) == [True] * 100 + [False] * 1000
        cache.put_many(entries.items(range(100, 200)))
        assert all(entries.read(cache, range(200)))

    def test_a_writer_killed_at_any_moment_leaves_no_wrong_entry(self, tmp_path, entries):
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
            cache.put_many(entries.items(range(10**7, 10**7 + 20)))
            entries.read(cache, range(done + 100))
        child.kill()
        done = [done, *map(int, child.communicate()[0].split())][-1]
        assert all(entries.read(DirectoryCache(tmp_path), range(done)))

    def test_an_interrupted_call_leaves_nothing_of_it(self, store, entries, monkeypatch):
        """Ctrl-C in the middle of a transaction: neither this object nor another process is locked out by it."""

        def interrupt(connection, max_bytes):
            raise KeyboardInterrupt

        store.put_many(entries.items([1]))
        with monkeypatch.context() as patch:
            patch.setattr(_directory, "_make_room", interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.put_many(entries.items([2]))
        other = DirectoryCache(store.path, timeout=0.05)
        other.put_many(entries.items([3]))
        store.put_many(entries.items([4]))
        assert entries.read(store, [1, 2, 3, 4]) == [True, False, True, True]

    def test_a_full_disk(self, store, entries):
        """SQLite's own limit, which fails as a full disk does: one warning, old entries stay, new ones are absent."""
        store.put_many(entries.items(range(100)))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.warns(CacheWarning, match=r"disk is full.*Results are correct but not cached"):
            store.put_many(entries.items(range(100, 200)))
        store.put_many(entries.items(range(100, 200)))  # and no second warning, which would be an error here
        assert entries.read(store, range(200)) == [True] * 100 + [False] * 100
        store._connection.execute(f"PRAGMA max_page_count={10 * pages}")
        store.put_many(entries.items(range(100, 200)))
        assert all(entries.read(store, range(200)))

    def test_a_really_full_disk(self, tmp_path, entries):
        """The same on a file system of 4 MiB, with other files that leave no room for anything."""
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "sktl", tmp_path]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("only root may mount a small file system, and not everywhere")
        store = DirectoryCache(tmp_path / "store")
        try:
            store.put_many(entries.items(range(100)))
            with pytest.warns(CacheWarning, match="Results are correct but not cached"):
                store.put_many(entries.items(range(100, 1000)))
            assert entries.read(store, range(1000)) == [True] * 100 + [False] * 900
            store._disconnect()
            fill_up(tmp_path / "other")
            store = DirectoryCache(tmp_path / "store")
            store.put_many(entries.items(range(100, 1000)))  # of which this process knows: a second warning is an error
            with warnings.catch_warnings():  # reading may need a little room for SQLite's lock file, and finds none
                warnings.simplefilter("ignore", CacheWarning)
                assert not any(entries.read(store, range(1000))[100:])
            (tmp_path / "other").unlink()
            store.put_many(entries.items(range(100, 200)))
            assert all(entries.read(store, range(200)))
        finally:
            store._disconnect()
            subprocess.run(["umount", tmp_path], check=True)

    def test_a_damaged_entry_is_absent(self, store, entries):
        """One flipped bit in the numbers of one entry: it is absent, said once, and can be put again."""
        store.put_many(entries.items(range(20)))
        flip(store, entries.array(7).tobytes()[:100])
        with pytest.warns(CacheWarning, match="damaged entries were found and deleted"):
            assert entries.read(store, range(20)) == [number != 7 for number in range(20)]
        assert store.stats().entries == 19
        store.put_many(entries.items([7]))
        assert all(entries.read(store, range(20)))

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
    def test_a_changed_row_is_absent(self, store, change, entries):
        """Header, numbers, checksum and key vouch for each other: whichever is changed, no wrong array comes back."""
        store.put_many(entries.items([1, 2]))
        store._connection.execute(f"UPDATE features SET {change} WHERE id = 1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert entries.read(store, [1, 2]) == [False, True]
            assert store.get_many([b"\1"]) == [None]

    @pytest.mark.parametrize("damage", ["header", "schema", "middle", "truncated", "text"])
    def test_a_damaged_file_is_started_anew(self, store, damage, entries):
        """Whatever is in the file, the cache says it once, begins an empty one, and works on."""
        store.put_many(entries.items(range(500)))
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
            store.put_many(
                entries.items(range(500))
            )  # which a truncated file may take, and a read then finds the damage
            entries.read(store, range(500))
        (warning,) = caught
        assert re.search(r"damaged .* replaced by an empty one", str(warning.message))
        store.put_many(entries.items(range(500)))
        assert all(entries.read(store, range(500)))
        assert [path.name for path in store.path.glob("*.sqlite")] == ["features-v1-0002.sqlite"]

    def test_random_damage_never_lies_and_never_raises(self, tmp_path, entries):
        """Sixty files, each with some bytes changed at random: every entry is right or absent."""
        source = DirectoryCache(tmp_path / "source")
        source.put_many(entries.items(range(60), 640))
        numbers = [[entries.key(number)] for number in range(60, 80)]
        Claims(source).ask(numbers)
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
                entries.read(store, range(60), 640)
                claims = Claims(store)
                assert len(claims.ask(numbers)) == 20
                store.put_many(entries.items(range(60), 640))
                entries.read(store, range(60), 640)
                claims.release()

    def test_the_successor_of_a_damaged_file_is_shared(self, tmp_path, entries):
        """A process that meets the damage second takes the first one's new file and throws nothing away."""
        first, second = DirectoryCache(tmp_path), DirectoryCache(tmp_path)
        for store in (first, second):
            store.put_many(entries.items([1]))
        for store in (first, second):
            with pytest.warns(CacheWarning, match="damaged"):
                store._attempt(corrupt, None)
            store.put_many(entries.items([2 if store is first else 3]))
        assert entries.read(second, [1, 2, 3]) == [False, True, True]
        assert entries.read(first, [1, 2, 3]) == [False, True, True]

    def test_another_version_is_left_alone(self, store, entries):
        """The file of a newer or older sktl is neither read nor changed nor removed."""
        store.path.mkdir()
        others = [store.path / f"features-v{version}-0001.sqlite" for version in (0, 2)]
        for other in others:
            other.write_bytes(b"another table")
        store.put_many(entries.items([1]))
        assert entries.read(store, [1]) == [True]
        assert [other.read_bytes() for other in others] == [b"another table"] * 2

    def test_a_table_of_another_shape_is_started_anew(self, store, entries):
        """A file of this version's name that holds something else is damage like any other."""
        store.path.mkdir()
        with sqlite3.connect(store.path / "features-v1-0001.sqlite") as connection:
            connection.execute("CREATE TABLE features (id INTEGER PRIMARY KEY, something TEXT)")
        connection.close()
        with pytest.warns(CacheWarning, match="replaced by an empty one"):
            assert entries.read(store, [1]) == [False]
        store.put_many(entries.items([1]))
        assert entries.read(store, [1]) == [True]

    def test_warnings_as_errors_leave_it_whole(self, store, entries):
        """Who turns warnings into errors gets one, and the cache works on after it."""
        store.put_many(entries.items([1]))
        with pytest.raises(CacheWarning):  # the tests themselves run with warnings as errors
            store._attempt(corrupt, None)
        store.put_many(entries.items([1]))
        assert entries.read(store, [1]) == [True]


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
