"""Locks that a forked child finds open, and what is built on them.

A child has only the thread that forked: a lock of Python's own that another thread held at that moment stays locked in
it for ever. So every lock of sktl is one of these, which a test sees to.
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
    """A lock that the thread which holds it may take again; a forked child finds it open, unless it holds it itself."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = self._depth = 0  # written by no thread but the one that holds it
        _ALL.add(self)

    def acquire(self) -> None:
        """Wait until no other thread holds it, and hold it."""
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def release(self) -> None:
        """Let others have it, once it has been released as often as it was taken."""
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
    """Lets threads run together that want the process in the same mode; those that want it in another one wait.

    What torch sets for the whole process (the precision of products, what an exporter replaces) is so set for nobody
    who runs beside and wants it otherwise.
    """

    _changed: threading.Condition
    _queue: dict[object, Hashable]  # who waits for what, in the order in which they came
    _current: "_Mode | None"
    _state: Any  # what its first thread has given for its last one
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
        """Be in a mode; a thread that is in another one leaves that meanwhile.

        Parameters
        ----------
        name : hashable
            What the process is to be in.
        alone : bool, default=False
            Whether other threads have to wait that want the same.
        begin, end : callable or None, default=None
            What the first thread in a mode does, and what the last one does with the result of that.
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
        """Whether nobody inside, and nobody who came before, wants another mode."""
        for earlier, wanted in self._queue.items():
            if earlier is ticket:
                break
            if wanted != name:
                return False
        return not self._n_inside or (self._current is not None and self._current.name == name)

    def _leave(self, mode: _Mode) -> None:
        if self._thread.mode is None:  # an error, as of Ctrl-C, came while it was waiting to be inside again
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
            before.end(state)  # the threads that would have done it are not there


class cached(cached_property[ValueT]):
    """An attribute that is computed when it is needed, by each thread that needs it at that moment.

    `functools.cached_property` of Python 3.11 has a lock: one for all instances, that would stay locked in a child.
    """

    def __get__(self, instance: Any, owner: "type | None" = None) -> Any:
        if instance is None:
            return self
        value = vars(instance)[self.attrname] = self.func(instance)
        return value


class cached_once(cached[ValueT]):
    """An attribute that one thread computes, for all others to have the very same object."""

    def __get__(self, instance: Any, owner: "type | None" = None) -> Any:
        if instance is None:
            return self
        with _computing(instance):
            if self.attrname in vars(instance):  # another thread was faster
                return vars(instance)[self.attrname]
            return super().__get__(instance, owner)


class _Computing:
    """One lock for each object whose attributes are computed at this moment, and for how many threads."""

    lock = Lock()
    locks: "dict[int, tuple[Lock, int]]" = {}


@contextlib.contextmanager
def _computing(instance: Any) -> Iterator[None]:
    key = id(instance)  # which nobody else has while this thread refers to it
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
