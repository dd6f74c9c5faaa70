"""Limits for the number of threads in parallel workers.

===================  ==================  =============================================
backend              torch's threads     what sktl does
===================  ==================  =============================================
none (n_jobs=1)      all cores           nothing
``loky``             cores // n_jobs     nothing: the number is that of joblib or user
``threading``        all cores, in each  one thread for each worker
``multiprocessing``  all cores, in each  one thread for each worker
any forked process   all cores           one thread
===================  ==================  =============================================

In a forked process, this is not only a matter of speed: GNU's OpenMP hangs in the child
of a process that has used it, unless the child uses one thread. Therefore torch has one
thread in children of a process in which sktl has run.

A worker does not know how many workers there are, so one thread is the only number that
is right for all of them.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator

import torch
from joblib.parallel import get_active_backend

from sktl._locks import Lock


class _Bounded:
    """State of the workers whose threads are currently limited."""

    lock = Lock()
    n_workers = 0
    n_threads = 1  # torch's number when the first worker started


class _Process:
    """State of this process."""

    has_run = False  # whether sktl has computed anything in it or its parent
    is_forked = False


_THIS_THREAD = threading.local()


def _forget_after_fork() -> None:
    """Reset the state in a child process, which has no other threads."""
    _Bounded.n_workers = 0
    _THIS_THREAD.is_bounded = False
    _Process.is_forked = True
    if _Process.has_run:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def in_worker() -> bool:
    """Check whether this code runs in a worker of joblib or of a process pool."""
    return get_active_backend()[0].nesting_level > 0 or multiprocessing.current_process().daemon


def loader_workers(requested: int) -> int:
    """Return the number of worker processes that a `DataLoader` may use.

    Parameters
    ----------
    requested : int
        Number that the user requested.

    Returns
    -------
    int
        0 inside a worker, because a daemon may not have children and the cores are in
        use. Also 0 if processes are not forked, because the stored rows of a fit cannot
        be pickled.
    """
    is_fork = multiprocessing.get_context().get_start_method() == "fork"  # otherwise, rows would be pickled
    return requested if is_fork and not in_worker() else 0


@contextlib.contextmanager
def bounded_threads() -> Iterator[None]:
    """Limit torch to one thread in workers that would each use all cores, or hang.

    The number of threads is restored afterwards. In other code, nothing changes.

    Notes
    -----
    With OpenMP, the number of threads belongs to the thread that sets it, so the main
    thread and other workers are not affected. However, a thread that uses torch for the
    first time takes the number that was set last by any thread. A worker that starts
    while another one is limited would find 1 and restore 1. Therefore all workers
    restore the number that the first of them found.
    """
    _Process.has_run = True
    if getattr(_THIS_THREAD, "is_bounded", False) or not (_takes_all_cores() or _Process.is_forked):
        yield
        return
    with _Bounded.lock:
        if _Bounded.n_workers == 0:
            _Bounded.n_threads = torch.get_num_threads()
        _Bounded.n_workers += 1
        torch.set_num_threads(1)
    _THIS_THREAD.is_bounded, process = True, os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:  # a child process has reset the state and has one thread
            _THIS_THREAD.is_bounded = False
            with _Bounded.lock:
                _Bounded.n_workers -= 1
                torch.set_num_threads(_Bounded.n_threads)


def _takes_all_cores() -> bool:
    """Check whether this is a worker whose number of threads was not limited.

    The tasks of a loky process run in its main thread, and the process is not a daemon.
    """
    if get_active_backend()[0].nesting_level == 0:
        return False
    return threading.current_thread() is not threading.main_thread() or multiprocessing.current_process().daemon
