"""Cache in a directory."""

import contextlib
import errno
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from sktl._frozen._cache._base import LOCK, Cache, unpack
from sktl._frozen._cache._claims import LEASE_SECONDS, Claim, Keys, Owner, grant

T = TypeVar("T")

GIB = 1024**3
DIRECTORY_BYTES = 10 * GIB

# Increase it when the tables change. Each version has its own file.
SCHEMA_VERSION = 1

# 16 KiB pages read a vector of 1,280 float32 in 4 µs and one of 10,000 in 9 µs;
# SQLite's default of 4 KiB takes 6 and 29 µs.
_PAGE_BYTES = 16 * 1024
_KEYS_PER_QUERY = 500
_BUSY_SECONDS = 10.0
# A failure that took longer is not repeated in each call, see `_Known`.
_VAIN_SECONDS = 1.0
# Errors observed with failing disks and damaged files. Python decodes SQLite's
# messages, which may quote a damaged table name, and allocates the memory that a
# damaged length requires.
_TROUBLE = (sqlite3.Error, OSError, UnicodeDecodeError, OverflowError, MemoryError)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA}


@dataclass
class _Known:
    """State of a directory, shared by all caches of this process that use it.

    After a lock timeout, no cache waits for the lock until it was free again. After
    other slow failures (SQLite retries for seconds on file systems without locks), the
    directory is left alone for ten times their duration.
    """

    is_locked: bool = False
    rests_until: float = 0.0


_KNOWN: defaultdict[Path, _Known] = defaultdict(_Known)


class DirectoryCache(Cache):
    """Cache in one SQLite file, written by any number of processes on one machine.

    With SQLite's write-ahead log, a killed process leaves complete entries or none,
    readers never wait for a writer, and one transaction per call hides the latency of
    the disk. Each entry has a checksum of its key, header and values, so a damaged
    entry is missing, never wrong.

    A file too damaged to be read is replaced by its successor
    (``features-v1-0002.sqlite`` after ``-0001``). It is never renamed or rewritten
    under its old name, because another process may have it open.

    The directory should be on a local disk. A read-only directory is read without
    changes.
    """

    def __init__(self, path: Path, max_bytes: int = DIRECTORY_BYTES, timeout: float = _BUSY_SECONDS) -> None:
        super().__init__(max_bytes)
        self.path = path
        self.name = str(path)
        self.timeout = timeout
        self._connection: sqlite3.Connection | None = None
        self._file = path
        self._read_only = False

    def clear(self) -> None:
        def delete_all(connection: sqlite3.Connection) -> None:
            with self._writing(connection):
                connection.execute("DELETE FROM features")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._attempt(delete_all, None)

    def claim(self, wanted: Sequence[Keys], owner: Owner) -> list[bool] | None:
        def ask(connection: sqlite3.Connection) -> list[bool] | None:
            if self._read_only:
                return None
            # Check first without a write lock, which would block others.
            answers = _ask(connection, wanted)
            if any(answers):
                with self._writing(connection):
                    answers = _ask(connection, wanted)
                    granted = {key for keys, ours in zip(wanted, answers, strict=True) if ours for key in keys}
                    rows = [(key, *owner, time.time()) for key in granted]
                    connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)", rows)
            return answers

        return self._attempt(ask, None)

    def renew(self, owner: Owner) -> None:
        self._write("UPDATE claims SET renewed = ? WHERE token = ?", [(time.time(), owner.token)])

    def release(self, owner: Owner) -> None:
        # Expired claims of dead processes are deleted as well.
        since = time.time() - LEASE_SECONDS
        self._write("DELETE FROM claims WHERE token = ? OR renewed < ?", [(owner.token, since)])

    def claimed(self, keys: Sequence[bytes]) -> Mapping[bytes, Claim]:
        return self._attempt(lambda connection: _claims_of(connection, keys), {})

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.max_bytes, self.timeout)

    def __del__(self) -> None:
        self._disconnect()

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        rows: list[tuple] = self._attempt(lambda connection: _select(connection, keys), [])
        found, damaged = {}, []
        for row_id, key, header, checksum, data in rows:
            if _is_whole(key, header, checksum, data):
                found[key] = unpack(header, data)
            else:
                damaged.append((row_id,))
        if damaged:
            self._write("DELETE FROM features WHERE id = ?", damaged)
            self.warn("damaged entries were found and deleted. Results are correct; the entries are computed again.")
        return found

    def _put(self, packed: dict[bytes, tuple[bytes, bytes]]) -> None:
        rows = [(key, header, _checksum(key, header, data), data) for key, (header, data) in packed.items()]

        def insert(connection: sqlite3.Connection) -> None:
            with self._writing(connection):
                connection.executemany(
                    "INSERT OR REPLACE INTO features (key, header, checksum, data) VALUES (?, ?, ?, ?)", rows
                )
                _make_room(connection, self.max_bytes)

        if self._connection is not None and not os.path.lexists(self._file):
            # The open file was unlinked, so its entries would be lost.
            self._disconnect()
            self.warn("the cache was deleted and is now empty. Results are correct; the entries are computed again.")
        self._attempt(insert, None)

    def _size(self) -> tuple[int, int]:
        def measure(connection: sqlite3.Connection) -> tuple[int, int]:
            return connection.execute("SELECT count(*) FROM features").fetchone()[0], _used_bytes(connection)

        return self._attempt(measure, (0, 0))

    def _attempt(self, action: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Return the result of ``action``, or warn and return ``otherwise``.

        All disk errors of the cache are handled here.
        """
        with LOCK:
            began = time.monotonic()
            if began < self._known.rests_until:
                return otherwise
            try:
                if self._connection is None:
                    self._connection = self._connect()
                # Another cache may have learned since then that the directory is locked
                # or free.
                self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * self._patience)}")
                return action(self._connection)
            except _TROUBLE as error:
                trouble = self._recover(error, time.monotonic() - began)
            except BaseException:
                # Ctrl-C must not leave a transaction open, which locks the file.
                self._disconnect()
                raise
        self.warn(trouble)
        return otherwise

    @property
    def _known(self) -> _Known:
        return _KNOWN[self.path]

    @property
    def _patience(self) -> float:
        return 0.0 if self._known.is_locked else self.timeout

    @contextlib.contextmanager
    def _writing(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Run one transaction; `_recover` ends it if it fails."""
        connection.execute("BEGIN IMMEDIATE")
        self._known.is_locked = False
        yield
        connection.execute("COMMIT")

    def _write(self, query: str, rows: Sequence[tuple]) -> None:
        def execute(connection: sqlite3.Connection) -> None:
            with self._writing(connection):
                connection.executemany(query, rows)

        self._attempt(execute, None)

    def _connect(self) -> sqlite3.Connection:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._file = self._newest()
        except (ValueError, RecursionError) as error:
            # An invalid path, such as one with a NUL or a thousand folders.
            raise OSError(errno.EINVAL, str(error)) from error
        # If several users share a directory, only the first may have permission to
        # write.
        may_write = [os.access(path, os.W_OK) for path in (self.path, self._file) if path.exists()]
        self._read_only = not all(may_write)
        if self._read_only:
            return _connect_read_only(self._file)
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return _connect(self._file, self._patience)
            except sqlite3.OperationalError as error:
                # SQLite does not wait if two processes enable the log of a new file at
                # once.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _newest(self) -> Path:
        """Return the file in use, and delete its damaged predecessors.

        A process with an open predecessor only loses what it stores there.
        """
        files = sorted(self.path.glob(f"features-v{SCHEMA_VERSION}-{4 * '[0-9]'}.sqlite"))
        for file in files[:-1]:
            _remove(file)
        return files[-1] if files else self.path / f"features-v{SCHEMA_VERSION}-0001.sqlite"

    def _recover(self, error: Exception, took: float) -> str:
        """Restore a state in which the next call can start; return the warning."""
        code = _code(error)
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in _FULL:
            return "the disk is full. Results are correct but not cached. Free some space or use another directory."
        # On a full disk a new connection could not even read, so the old one is kept.
        # After any other error it is closed.
        self._disconnect()
        if code in _DAMAGE or isinstance(error, UnicodeDecodeError):
            return self._replace_file(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._known.is_locked = True
            return (
                f"the cache was locked by other processes for {self.timeout:g} s. Results are correct but not cached "
                "in the meantime."
            )
        if took > _VAIN_SECONDS:
            self._known.rests_until = time.monotonic() + 10 * took
        return unusable(error)

    def _replace_file(self, error: Exception) -> str:
        if self._read_only:
            return f"the cache file is damaged ({error}) and read-only. Results are correct but not cached."
        damaged, newest = self._file, self._newest()
        if newest != damaged:  # another process was quicker
            return f"the cache file was damaged ({error}) and another process replaced it. Results are correct."
        successor = damaged.with_name(f"features-v{SCHEMA_VERSION}-{int(damaged.stem[-4:]) + 1:04}.sqlite")
        try:
            successor.touch(exist_ok=False)
            _remove(damaged)
        except OSError:
            return f"the cache file is damaged ({error}) and cannot be replaced. Results are correct but not cached."
        return (
            f"the cache file was damaged ({error}) and was replaced by an empty one. Results are correct; the entries "
            "are computed again."
        )


def unusable(error: Exception) -> str:
    """Return the warning about a path that is not a directory or a disk that fails."""
    reason = getattr(error, "strerror", None) or str(error).rstrip(".")
    if isinstance(error, FileExistsError):
        reason = "it is a file or a broken link"
    return f"the directory cannot be used ({reason}). Results are correct but not cached. Use a writable directory."


def _checksum(key: bytes, header: bytes, data: bytes) -> bytes:
    digest = xxhash.xxh3_64(key)
    digest.update(header)
    digest.update(data)
    return digest.digest()


def _is_whole(key: bytes, header: bytes, checksum: bytes, data: bytes) -> bool:
    try:
        return _checksum(key, header, data) == checksum
    except TypeError:  # in a damaged file, a blob may have become a number or NULL
        return False


def _connect(file: Path, timeout: float) -> sqlite3.Connection:
    # Any thread may use the connection; LOCK allows one at a time.
    connection = sqlite3.connect(file, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # a damaged entry may hold text that is not UTF-8
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={GIB // 16}")
        # Not WITHOUT ROWID: blobs of this size in the index make reading three times
        # slower.
        connection.execute(
            "CREATE TABLE IF NOT EXISTS features "
            "(id INTEGER PRIMARY KEY, key BLOB UNIQUE, header BLOB, checksum BLOB, data BLOB)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS claims "
            "(key BLOB PRIMARY KEY, token BLOB, pid INTEGER, started INTEGER, renewed REAL) WITHOUT ROWID"
        )
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_read_only(file: Path) -> sqlite3.Connection:
    # "immutable" keeps SQLite from looking for lock files that it cannot create.
    uri = f"{file.as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes
    return connection


def _select(
    connection: sqlite3.Connection, keys: Sequence[bytes], what: str = "id, key, header, checksum, data FROM features"
) -> list[tuple]:
    rows: list[tuple] = []
    for chunk in _chunks(keys):
        marks = ",".join("?" * len(chunk))
        rows += connection.execute(f"SELECT {what} WHERE key IN ({marks})", chunk).fetchall()
    return rows


def _ask(connection: sqlite3.Connection, wanted: Sequence[Keys]) -> list[bool]:
    """Return which images are free at this moment."""
    keys = [key for keys in wanted for key in keys]
    # As in a look-up, damaged entries do not count.
    stored = {key for _, key, *rest in _select(connection, keys) if _is_whole(key, *rest)}
    return grant(wanted, stored, _claims_of(connection, keys))


def _claims_of(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Claim]:
    """Return the claims of these keys, without damaged ones."""
    claims = {}
    for key, token, pid, started, renewed in _select(connection, keys, "key, token, pid, started, renewed FROM claims"):
        # Skip damaged rows.
        if isinstance(pid, int) and isinstance(started, int) and isinstance(renewed, float):
            claims[key] = Claim(Owner(token if isinstance(token, bytes) else b"", pid, started), renewed)
    return claims


def _chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]


def _make_room(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Delete the oldest entries, and a few more, so that not every call deletes."""
    while (used := _used_bytes(connection)) > max_bytes:
        first, last = connection.execute("SELECT min(id), max(id) FROM features").fetchone()
        if first is None:
            return
        # Row ids are dense and in order of time. Adding up sizes would read the whole
        # file.
        share = 1 - 0.98 * max_bytes / used
        connection.execute("DELETE FROM features WHERE id <= ?", (first + int(share * (last - first)),))


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _remove(file: Path) -> None:
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        with contextlib.suppress(OSError):
            file.with_name(name).unlink(missing_ok=True)


def _code(error: Exception) -> int:
    """Return SQLite's primary error code, or 0 for other errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
