"""Threads inside workers: not more of them than the machine has cores, and one where more would hang.

===================  ==================  ==================================================
backend              torch's threads     what is done
===================  ==================  ==================================================
none (n_jobs=1)      all cores           nothing
``loky``             cores // n_jobs     nothing: joblib said so, or the user said otherwise
``threading``        all cores, in each  one thread for each worker
``multiprocessing``  all cores, in each  one thread for each worker
any forked process   all cores           one thread
===================  ==================  ==================================================

In a forked process that is more than a matter of speed: GNU's OpenMP hangs in the child of a process that has used it,
unless it has one thread. So where sktl has used it, torch has one thread in a child from the start.

A worker does not learn how many there are, so the only number that is right for all of them is one.
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
    """The workers of this process that are bounded at this moment."""

    lock = Lock()
    n_workers = 0
    n_threads = 1  # what torch had when the first of them came


class _Process:
    """What matters of this process."""

    has_run = False  # whether sktl has computed anything in it, or in the one that it was forked from
    is_forked = False


_THIS_THREAD = threading.local()


def _forget_after_fork() -> None:
    """A child has only the thread that forked: no other workers, none of the threads that torch shares work with."""
    _Bounded.n_workers = 0
    _THIS_THREAD.is_bounded = False
    _Process.is_forked = True
    if _Process.has_run:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def in_worker() -> bool:
    """Whether this code runs for joblib or in a pool of processes, so that others do the same work beside it."""
    return get_active_backend()[0].nesting_level > 0 or multiprocessing.current_process().daemon


def loader_workers(requested: int) -> int:
    """How many worker processes a `torch.utils.data.DataLoader` may have here.

    Parameters
    ----------
    requested : int
        What the user wants.

    Returns
    -------
    int
        0 inside a worker: a daemon may not have children, and the cores are taken. 0 too where processes are not
        forked: what a fit has stored cannot be sent to others.
    """
    is_fork = multiprocessing.get_context().get_start_method() == "fork"  # else rows would have to be pickled
    return requested if is_fork and not in_worker() else 0


@contextlib.contextmanager
def bounded_threads() -> Iterator[None]:
    """Give torch one thread, in workers that would take all cores each or hang; put back what was there afterwards.

    Everywhere else, nothing is changed.

    Notes
    -----
    With OpenMP a number of threads belongs to the thread that sets it: the main thread and the other workers keep
    theirs. But a thread that uses torch for the first time takes the number that was set last, by whomever. A worker
    that begins while another one is bounded therefore finds 1, and would leave that 1 behind as what it had found. So
    all workers leave what the first of them found.
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
        if os.getpid() == process:  # a child has forgotten it, and has one thread
            _THIS_THREAD.is_bounded = False
            with _Bounded.lock:
                _Bounded.n_workers -= 1
                torch.set_num_threads(_Bounded.n_threads)


def _takes_all_cores() -> bool:
    """Whether this is a worker whose number of threads nobody has thought of.

    The tasks of a loky process run in its main thread, and it is no daemon.
    """
    if get_active_backend()[0].nesting_level == 0:
        return False
    return threading.current_thread() is not threading.main_thread() or multiprocessing.current_process().daemon
