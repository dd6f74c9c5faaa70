"""Locks that are released in forked processes, and tools built on them.

A child process has only the thread that forked. One of Python's own locks, if another
thread held it at that moment, would stay locked in the child forever. Therefore all
locks of sktl are of this kind, which is tested.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

ValueT = TypeVar("ValueT")

_ALL: "weakref.WeakSet[Any]" = weakref.WeakSet()


class Lock:
    """Reentrant lock that is released on fork, unless the forking thread holds it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = self._depth = 0  # only written by the thread that holds the lock
        _ALL.add(self)

    def acquire(self) -> None:
        """Acquire the lock, waiting for other threads."""
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def release(self) -> None:
        """Release the lock; it is free after as many releases as acquisitions."""
        self._depth -= 1
        self._lock.release()

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _after_fork(self) -> None:
        depth = self._depth if self._owner == threading.get_ident() else 0
        self._lock, self._depth = threading.RLock(), 0
        for _ in range(depth):
            self.acquire()


class _Mode(NamedTuple):
    name: Hashable
    begin: "Callable[[], Any] | None"
    end: "Callable[[Any], object] | None"


class Modes:
    """Modes of the whole process that threads share or wait for.

    Threads that need the same mode, such as a setting of torch, run concurrently.
    Threads that need another mode wait, so that they do not run with settings of other
    threads, such as the precision of products or the patches of an exporter.
    """

    _changed: threading.Condition
    _queue: dict[object, Hashable]  # waiting threads and their modes, in order of arrival
    _current: "_Mode | None"
    _state: Any  # result of ``begin`` in the first thread, for ``end`` in the last one
    _n_inside: int

    def __init__(self) -> None:
        self._thread: Any = threading.local()
        self._renew()
        _ALL.add(self)

    @contextlib.contextmanager
    def __call__(
        self,
        name: Hashable,
        *,
        alone: bool = False,
        begin: "Callable[[], Any] | None" = None,
        end: "Callable[[Any], object] | None" = None,
    ) -> Iterator[None]:
        """Enter a mode; a thread in another mode leaves that one in the meantime.

        Parameters
        ----------
        name : hashable
            Name of the mode.
        alone : bool, default=False
            Whether other threads must wait even if they need the same mode.
        begin, end : callable or None, default=None
            Called by the first thread that enters the mode and by the last one that
            leaves it. ``end`` gets the result of ``begin``.
        """
        mode = _Mode((name, threading.get_ident()) if alone else name, begin, end)
        outer: _Mode | None = getattr(self._thread, "mode", None)
        if outer is not None and outer.name == mode.name:
            yield
            return
        if outer is not None:
            self._leave(outer)
        try:
            self._enter(mode)
            try:
                yield
            finally:
                self._leave(mode)
        finally:
            if outer is not None:
                self._enter(outer)

    def _enter(self, mode: _Mode) -> None:
        with self._changed:
            ticket = object()
            self._queue[ticket] = mode.name
            try:
                self._changed.wait_for(lambda: self._is_next(ticket, mode.name))
                if not self._n_inside:
                    self._state = mode.begin() if mode.begin is not None else None
                    self._current = mode
                self._n_inside += 1
            finally:
                del self._queue[ticket]
                self._changed.notify_all()
        self._thread.mode = mode

    def _is_next(self, ticket: object, name: Hashable) -> bool:
        """Check that no thread inside or ahead in the queue needs another mode."""
        for earlier, wanted in self._queue.items():
            if earlier is ticket:
                break
            if wanted != name:
                return False
        return not self._n_inside or (self._current is not None and self._current.name == name)

    def _leave(self, mode: _Mode) -> None:
        if self._thread.mode is None:  # an exception, such as KeyboardInterrupt, came while waiting to enter again
            return
        self._thread.mode = None
        with self._changed:
            self._n_inside -= 1
            try:
                if not self._n_inside and mode.end is not None:
                    mode.end(self._state)
            finally:
                self._changed.notify_all()

    def _renew(self) -> None:
        self._changed, self._queue = threading.Condition(), {}
        self._current, self._state, self._n_inside = None, None, 0

    def _after_fork(self) -> None:
        before, state, is_set = self._current, self._state, self._n_inside > 0
        mine: _Mode | None = getattr(self._thread, "mode", None)
        self._renew()
        if mine is not None:
            self._current, self._state, self._n_inside = mine, state, 1
        elif is_set and before is not None and before.end is not None:
            before.end(state)  # the threads that would have called it do not exist in the child


class cached(cached_property[ValueT]):
    """Cached property without a lock; concurrent threads may compute it several times.

    `functools.cached_property` of Python 3.11 has one lock for all instances, which
    could stay locked in a child.
    """

    def __get__(self, instance: Any, owner: "type | None" = None) -> Any:
        if instance is None:
            return self
        value = vars(instance)[self.attrname] = self.func(instance)
        return value


class cached_once(cached[ValueT]):
    """Cached property that is computed once, so that threads share the object."""

    def __get__(self, instance: Any, owner: "type | None" = None) -> Any:
        if instance is None:
            return self
        with _computing(instance):
            if self.attrname in vars(instance):  # computed by another thread in the meantime
                return vars(instance)[self.attrname]
            return super().__get__(instance, owner)


class _Computing:
    """Locks of objects whose attributes are being computed, with numbers of threads."""

    lock = Lock()
    locks: "dict[int, tuple[Lock, int]]" = {}


@contextlib.contextmanager
def _computing(instance: Any) -> Iterator[None]:
    key = id(instance)  # unique while this thread refers to the object
    with _Computing.lock:
        lock, n_threads = _Computing.locks.get(key) or (Lock(), 0)
        _Computing.locks[key] = lock, n_threads + 1
    try:
        with lock:
            yield
    finally:
        with _Computing.lock:
            lock, n_threads = _Computing.locks.pop(key)
            if n_threads > 1:
                _Computing.locks[key] = lock, n_threads - 1


def _renew_all() -> None:
    for each in list(_ALL):
        each._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
