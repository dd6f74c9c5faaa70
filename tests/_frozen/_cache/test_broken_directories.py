"""A directory that is locked, broken, removed or somebody else's: one warning, right results, a cache again later."""

import errno
import os
import pickle
import shutil
import sqlite3
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from sktl._frozen._cache import Claims, DirectoryCache, _directory
from sktl.exceptions import CacheWarning


@pytest.fixture
def store(tmp_path):
    return DirectoryCache(tmp_path / "store", timeout=0.05)


class TestDirectory:
    def test_a_lock_that_is_not_given_up(self, store, entries):
        """Another process holds the write lock: reading works, one warning, no second wait; a free lock is noticed.

        All this is of the directory, not of the object: each call of an estimator opens it by an object of its own.
        """
        opened = [
            store,
            *(DirectoryCache(store.path, timeout=0.05) for _ in range(3)),
            pickle.loads(pickle.dumps(store)),
        ]
        store.put_many(entries.items([1]))
        blocker = sqlite3.connect(next(store.path.glob("*.sqlite")), isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        entries.read(opened[1], [1])  # it is connected, and with all its patience
        with pytest.warns(CacheWarning, match=r"locked by other processes for 0.05 s"):
            store.put_many(entries.items([2]))
        for one in opened:
            one.put_many(entries.items([2]))
            Claims(one).ask([[entries.key(3)]])
            assert entries.read(one, [1, 2]) == [True, False]
            assert waits_for(one) == 0
        blocker.execute("ROLLBACK")
        blocker.close()
        opened[-1].put_many(entries.items([2]))
        for one in opened:
            assert entries.read(one, [1, 2]) == [True, True]
            assert waits_for(one) == 50

    @pytest.mark.parametrize("code", [sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN])
    def test_trouble_that_takes_its_time_is_not_repeated_at_every_call(self, store, entries, monkeypatch, code):
        """A file system without locks, where SQLite tries for seconds: it rests, and is tried again later."""
        store.put_many(entries.items([1]))
        now, tried = [1000.0], []

        def fail(connection):
            tried.append(now[0])
            now[0] += 9
            error = sqlite3.OperationalError("locking protocol")
            error.sqlite_errorcode = code
            raise error

        monkeypatch.setattr(_directory.time, "monotonic", lambda: now[0])
        with pytest.warns(CacheWarning, match=r"locking protocol.*Results are correct but not cached"):
            store._attempt(fail, None)
        other = DirectoryCache(store.path)
        for one in (store, other):
            one._attempt(fail, None)
            assert entries.read(one, [1]) == [False]
        assert tried == [1000.0]
        now[0] += 91
        assert entries.read(store, [1]) == entries.read(other, [1]) == [True]

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EACCES, errno.EROFS])
    def test_errors_of_the_system(self, tmp_path, features, number, monkeypatch):
        """Whichever call meets them: results are right, the warning names the directory, and later all is well."""

        def fail(*args, **settings):
            raise OSError(number, os.strerror(number))

        expected = features(None)
        for owner, name in ((Path, "mkdir"), (Path, "glob"), (Path, "exists"), (sqlite3, "connect")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.warns(
                    CacheWarning, match=rf"^cache='{tmp_path}/{name}'.*Results are correct but not cached"
                ):
                    np.testing.assert_array_equal(features(tmp_path / name), expected)
                np.testing.assert_array_equal(features(tmp_path / name), expected)
            features(tmp_path / name)
            assert DirectoryCache(tmp_path / name).stats().entries == 6

    @pytest.mark.parametrize("statement", ["PRAGMA journal", "CREATE", "SELECT", "BEGIN", "INSERT", "COMMIT", "DELETE"])
    def test_errors_of_sqlite(self, tmp_path, features, statement, monkeypatch):
        """A statement that fails, by a full disk or a broken one, costs what was to be kept and nothing else."""
        code = 0

        class Failing(sqlite3.Connection):
            def execute(self, query, *args):
                return fail(query) or super().execute(query, *args)

            def executemany(self, query, *args):
                return fail(query) or super().executemany(query, *args)

        def fail(query):
            if code and query.startswith(statement):
                error = sqlite3.OperationalError("made up")
                error.sqlite_errorcode = code
                raise error

        connect, expected = sqlite3.connect, features(None)
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **settings: connect(*args, factory=Failing, **settings))
        for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            with pytest.warns(CacheWarning, match=rf"^cache='{tmp_path}/{code}'.*Results are correct but not cached"):
                np.testing.assert_array_equal(features(tmp_path / str(code)), expected)
            np.testing.assert_array_equal(features(tmp_path / str(code)), expected)
            directory, code = tmp_path / str(code), 0
            np.testing.assert_array_equal(features(directory), expected)
            assert DirectoryCache(directory).stats().entries == 6

    def test_a_directory_that_cannot_be_made(self, tmp_path, entries):
        """Where a parent is a file, both calls go on without the cache, and say so."""
        (tmp_path / "file").touch()
        store = DirectoryCache(tmp_path / "file" / "store")
        with pytest.warns(CacheWarning, match="Results are correct but not cached"):
            assert entries.read(store, [1]) == [False]
        store.put_many(entries.items([1]))
        assert store.stats() == (0, 1, 0, 0)

    def test_a_directory_that_is_deleted_meanwhile(self, store, entries):
        """Somebody clears the directory by hand: it is said, and what is put next is found by others."""
        store.put_many(entries.items([1]))
        shutil.rmtree(store.path)
        with pytest.warns(CacheWarning, match="was deleted and is now empty"):
            store.put_many(entries.items([2]))
        assert entries.read(store, [1, 2]) == entries.read(DirectoryCache(store.path), [1, 2]) == [False, True]
        shutil.rmtree(store.path)
        store.put_many(entries.items([3]))
        assert entries.read(DirectoryCache(store.path), [1, 2, 3]) == [False, False, True]

    def test_a_copy_that_somebody_made_is_no_successor(self, store, entries):
        """A file of nearly the right name is neither used nor a reason to remove the right one."""
        store.put_many(entries.items([1]))
        store._disconnect()
        (file,) = store.path.glob("*.sqlite")
        shutil.copy(file, file.with_name("features-v1-copy.sqlite"))
        assert entries.read(store, [1]) == [True]
        assert len(list(store.path.glob("*.sqlite"))) == 2

    @pytest.mark.parametrize("is_damaged", [False, True])
    def test_a_file_of_somebody_else(self, is_damaged, entries, as_nobody):
        """In a directory of all users a file of the first one is read by the others, and never replaced by them."""
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o777)
            store = DirectoryCache(Path(parent))
            store.put_many(entries.items([1]))
            store._disconnect()
            file = Path(parent) / "features-v1-0001.sqlite"
            if is_damaged:
                file.write_text("no database" * 1000)
            before = file.read_bytes()
            os.chmod(file, 0o444)

            def work():
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    there = entries.read(store, [1])
                    store.put_many(entries.items([2]))
                assert {warning.category for warning in caught} == {CacheWarning}
                return there == [not is_damaged]

            assert as_nobody(work)
            assert file.read_bytes() == before

    @pytest.mark.parametrize("filled", [True, False])
    def test_a_directory_that_can_only_be_read(self, filled, entries, as_nobody):
        """It is read as it stands and never written; with nothing in it, all is computed. One warning at most."""
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o755)
            store = DirectoryCache(Path(parent) / "store")
            store.path.mkdir()
            if filled:
                store.put_many(entries.items([1]))
                store._disconnect()
            os.chmod(store.path, 0o555)

            def work():
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    there = entries.read(store, [1]) == [filled]
                    store.put_many(entries.items([2]))
                    there &= entries.read(store, [1, 2]) == [filled, False]
                return there and {warning.category for warning in caught} == {CacheWarning}

            try:
                assert as_nobody(work)
            finally:
                os.chmod(store.path, 0o755)


def waits_for(store: DirectoryCache) -> int:
    """How long the next call would wait for a lock, in milliseconds."""
    return store._attempt(lambda connection: connection.execute("PRAGMA busy_timeout").fetchone()[0], None)
