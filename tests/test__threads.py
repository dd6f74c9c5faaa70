"""Threads inside workers: bounded where nobody else does it, and afterwards as they were found."""

import multiprocessing
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone

from sktl import FineTunedClassifier, PretrainedFeatureExtractor, _threads
from sktl._frozen import _runners
from sktl._threads import bounded_threads, in_worker, loader_workers
from sktl.selection import BackboneSelector

N_THREADS = 3


@pytest.fixture(autouse=True)
def three_threads():
    """A number of threads that no machine takes by itself; each test leaves it to all threads, old and new."""
    before = torch.get_num_threads()
    torch.set_num_threads(N_THREADS)
    try:
        yield
        assert torch.get_num_threads() == N_THREADS
        assert in_new_thread(torch.get_num_threads) == N_THREADS
    finally:
        torch.set_num_threads(before)


def in_new_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def counts():
    """The threads that torch has before, inside and after, and in a thread that is new inside."""
    before = torch.get_num_threads()
    with bounded_threads():
        inside = torch.get_num_threads()
        new = in_new_thread(torch.get_num_threads)
    return before, inside, new, torch.get_num_threads()


def test_nothing_changes_outside_of_workers():
    """In the main thread, in a thread of one's own and with n_jobs=1 all threads are there."""
    unchanged = (N_THREADS,) * 4
    assert counts() == unchanged
    assert in_new_thread(counts) == unchanged
    for backend in ("threading", "loky", "multiprocessing"):
        assert Parallel(n_jobs=1, backend=backend)([delayed(counts)()]) == [unchanged]
        with parallel_config(backend=backend, n_jobs=2):  # announced, but nothing runs in it yet
            assert counts() == unchanged


def test_a_worker_thread_has_one_thread():
    """Each worker of the threading backend, and what it starts, has one thread inside and all of them afterwards."""
    for before, inside, new, after in Parallel(n_jobs=2, backend="threading")(delayed(counts)() for _ in range(20)):
        assert before in (1, N_THREADS)  # a new thread takes what another worker has set just then
        assert inside == 1
        assert new in (1, N_THREADS)
        assert after == N_THREADS


@pytest.mark.parametrize("first_out", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_workers_come_and_go_in_any_order(first_out, fails):
    """Whoever comes while another one is bounded, and leaves before or after it, leaves what was there at first."""
    came = [threading.Event() for _ in range(2)]
    left = [threading.Event() for _ in range(2)]

    def work(worker):
        if worker == 1:
            assert came[0].wait(60)
        try:
            with bounded_threads():
                assert torch.get_num_threads() == 1
                came[worker].set()
                assert came[1].wait(60)
                if worker != first_out:
                    assert left[first_out].wait(60)
                    assert torch.get_num_threads() == 1  # the other one's leaving changes nothing here
                if fails:
                    raise KeyError
        except KeyError:
            pass
        left[worker].set()
        return torch.get_num_threads()

    assert Parallel(n_jobs=2, backend="threading")(delayed(work)(worker) for worker in range(2)) == [N_THREADS] * 2


def test_the_bound_holds_to_the_end_of_the_outermost():
    """An estimator inside an estimator does not lift the bound of the outer one when it is done."""

    def nested():
        with bounded_threads():
            with bounded_threads():
                inner = torch.get_num_threads()
            return inner, torch.get_num_threads()

    assert Parallel(n_jobs=2, backend="threading")(delayed(nested)() for _ in range(2)) == [(1, 1)] * 2


def test_a_loky_process_keeps_what_it_was_given():
    """What joblib or the user gave to each process is neither more nor less inside."""

    def work():
        import torch

        from sktl._threads import bounded_threads, in_worker, loader_workers

        with bounded_threads():
            return torch.get_num_threads(), in_worker(), loader_workers(4)

    with parallel_config(backend="loky", inner_max_num_threads=2):
        assert Parallel(n_jobs=2)(delayed(work)() for _ in range(2)) == [(2, True, 0)] * 2


def in_daemon():
    return (*counts(), in_worker(), loader_workers(4))


def work_in_a_fork():
    with bounded_threads():
        return float(torch.ones(1000, 1000).relu().sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_of_a_parent_that_has_used_its_threads_can_work():
    """GNU's OpenMP would hang in such a worker with more than one thread."""
    work_in_a_fork()
    assert Parallel(n_jobs=2, backend="multiprocessing", timeout=60)(delayed(work_in_a_fork)() for _ in range(2)) == [
        1e6,
        1e6,
    ]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_has_one_thread():
    """A worker of the multiprocessing backend of a parent that has computed has one thread from the start."""
    work_in_a_fork()
    results = Parallel(n_jobs=2, backend="multiprocessing")(delayed(in_daemon)() for _ in range(2))
    assert results == [(1, 1, 1, 1, True, 0)] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_parent_that_has_computed_nothing(monkeypatch):
    """It has the threads that it was given, but inside of sktl one: others may have used them in the parent."""
    monkeypatch.setattr(_threads._Process, "has_run", False)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(counts) == (N_THREADS, 1, 1, N_THREADS)


def test_a_worker_starts_no_processes():
    """A loader's processes are granted outside of workers and refused inside."""
    assert not in_worker()
    assert loader_workers(4) == 4
    assert Parallel(n_jobs=2, backend="threading")(delayed(loader_workers)(4) for _ in range(2)) == [0, 0]


def test_a_daemon_starts_no_processes(monkeypatch):
    """Nor are they granted in a pool of processes that joblib knows nothing of."""
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert in_worker()
    assert loader_workers(4) == 0


@pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info(), reason="torch was built without OpenMP")
def test_a_number_of_threads_belongs_to_a_thread():
    """What the bound rests on: a thread's number is its own, but new threads take the number that was set last."""
    assert in_new_thread(lambda: torch.set_num_threads(1) or torch.get_num_threads()) == 1
    assert torch.get_num_threads() == N_THREADS
    assert in_new_thread(torch.get_num_threads) == 1
    torch.set_num_threads(N_THREADS)


@pytest.mark.parametrize(("method", "n_granted"), [("fork", 4), ("spawn", 0), ("forkserver", 0)])
def test_a_loader_has_processes_only_where_they_are_forked(monkeypatch, method, n_granted):
    """Rows that a fit has stored cannot be sent to a process that is started anew."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda: SimpleNamespace(get_start_method=lambda: method))
    assert loader_workers(4) == n_granted
    assert loader_workers(0) == 0


def small_table():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8), np.arange(8) % 2


def fit_and_predict(model):
    X, y = small_table()
    fitted = FineTunedClassifier(max_epochs=1, freeze_depth=-1, cache=None, random_state=0).fit(X, y)
    return model.predict_proba(X), fitted.predict_proba(X)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_plain_pool_of_forked_processes_fits_and_predicts():
    """A pool that joblib knows nothing of, of a parent that has run on several threads: it does not hang."""
    X, y = small_table()
    model = FineTunedClassifier(max_epochs=1, freeze_depth=-1, cache=None, random_state=0).fit(X, y)
    expected = model.predict_proba(X)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for predicted, fitted in pool.map_async(fit_and_predict, [model] * 2).get(timeout=120):
            np.testing.assert_allclose(predicted, expected, atol=1e-6)
            np.testing.assert_allclose(fitted, expected, atol=1e-4)


@pytest.mark.parametrize(
    "estimator",
    [PretrainedFeatureExtractor(cache=None), BackboneSelector(extractor=PretrainedFeatureExtractor(cache=None))],
)
def test_a_prefix_in_a_worker_thread_has_one_thread(estimator, monkeypatch):
    """Transformers and selectors in the threading backend run their networks as classifiers do."""
    seen = []
    run = _runners.TorchRunner.__call__

    def noting(runner, pictures):
        seen.append(torch.get_num_threads())
        return run(runner, pictures)

    monkeypatch.setattr(_runners.TorchRunner, "__call__", noting)
    X, y = small_table()
    Parallel(n_jobs=2, backend="threading")(delayed(clone(estimator).fit_transform)(X, y) for _ in range(2))
    assert seen
    assert set(seen) == {1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_who_forks_while_it_is_bounded_is_not_counted_in_the_child():
    """Where it leaves what the parent had entered, it counts nobody out; what comes later is bounded again."""

    def work():
        with bounded_threads():
            pid = os.fork()
        if pid == 0:
            with bounded_threads():
                inside = _threads._Bounded.n_workers
            os._exit(0 if (inside, _threads._Bounded.n_workers) == (1, 0) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert Parallel(n_jobs=2, backend="threading")(delayed(work)() for _ in range(2)) == [0, 0]
