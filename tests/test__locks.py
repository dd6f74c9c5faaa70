"""Locks: open in a forked child, and modes of the process that threads share or wait for."""

import os
import threading

import pytest

from sktl._locks import Lock, Modes, _Computing, cached, cached_once

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
ignores_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(check) -> bool:
    """Whether a check is true in a forked child, where nothing of this process goes on."""
    pid = os.fork()
    if pid == 0:
        result = 1
        try:
            result = 0 if check() else 1
        finally:
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def in_thread(function, timeout: float = 60) -> bool:
    """Whether a function comes to its end in another thread."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()


@pytest.fixture
def holding():
    """Hold something in another thread until the test is over."""
    leave, threads = threading.Event(), []

    def hold(context):
        held = threading.Event()

        def work():
            with context:
                held.set()
                leave.wait(60)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        assert held.wait(60)

    yield hold
    leave.set()
    for thread in threads:
        thread.join(60)


def take(lock) -> bool:
    with lock:
        return True


@needs_fork
@ignores_fork
def test_a_forked_child_does_not_wait_for_the_parents_thread(holding):
    """A lock that another thread held when the process forked is free in the child, and still held in the parent."""
    lock = Lock()
    holding(lock)
    assert in_child(lambda: in_thread(lambda: take(lock), 30))
    assert not in_thread(lambda: take(lock), 0.05)


@needs_fork
@ignores_fork
def test_who_forks_inside_goes_on_inside():
    """The thread that held the lock when it forked holds it in the child, as often, and can release it there."""
    lock = Lock()

    def check():
        held = not in_thread(lambda: take(lock), 0.05)
        lock.release()
        still = not in_thread(lambda: take(lock), 0.05)
        lock.release()
        return held and still and in_thread(lambda: take(lock), 30)

    with lock, lock:
        assert in_child(check)


def test_a_lock_may_be_taken_again_by_who_has_it():
    """And others get it when it has been released as often."""
    lock = Lock()
    with lock:
        assert take(lock)
        assert not in_thread(lambda: take(lock), 0.05)
    assert in_thread(lambda: take(lock))


def test_threads_of_one_mode_share_it_and_others_wait(holding):
    """What a mode sets is set by the first and put back by the last of its threads, and seen by no other mode."""
    modes, said = Modes(), []

    def strict():
        return modes("strict", begin=lambda: said.append("set") or 7, end=lambda state: said.append(("back", state)))

    holding(strict())
    with strict():
        assert said == ["set"]
    waiting = threading.Thread(target=lambda: take_mode(modes("loose"), said), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert said == ["set"]  # the thread that holds the mode has not left, and so nothing was put back


def take_mode(context, said):
    with context:
        said.append("loose")


def test_a_mode_alone_waits_for_its_like(holding):
    """Two exporters are not in the process at once, though each may begin another one inside."""
    modes = Modes()
    holding(modes("export", alone=True))
    assert not in_thread(lambda: take(modes("export", alone=True)), 0.05)
    other = Modes()
    with other("export", alone=True), other("export", alone=True):
        assert not in_thread(lambda: take(other("run")), 0.05)
    assert in_thread(lambda: take(other("run")))


def test_a_thread_leaves_its_mode_for_another_one_inside():
    """So that nobody waits for itself; afterwards it is in the outer mode again, also after an error."""
    modes, said = Modes(), []
    with modes("run", begin=lambda: said.append("run"), end=lambda state: said.append("ran")):
        with pytest.raises(KeyError), modes("export", alone=True, begin=lambda: said.append("export")):
            raise KeyError
        assert said == ["run", "ran", "export", "run"]
        assert not in_thread(lambda: take(modes("export", alone=True)), 0.05)
    assert in_thread(lambda: take(modes("export", alone=True)))


@needs_fork
@ignores_fork
def test_a_child_puts_back_what_the_parents_thread_had_set(holding):
    """The thread that would have done it is not there; whoever forks inside a mode stays in it."""
    modes, flags = Modes(), {"precision": "high"}

    def strict():
        return modes(
            "strict",
            begin=lambda: flags.update(precision="highest") or "high",
            end=lambda state: flags.update(precision=state),
        )

    holding(strict())
    assert in_child(lambda: flags["precision"] == "high" and in_thread(lambda: take(modes("loose")), 30))
    assert flags["precision"] == "highest"
    with strict():
        assert in_child(lambda: flags["precision"] == "highest" and not in_thread(lambda: take(modes("loose")), 0.05))


def test_an_attribute_is_computed_once_for_all_threads():
    """What is told apart by identity, such as the nodes of a graph, is the same object for all of them."""

    class Thing:
        n_computed = 0

        @cached_once
        def value(self):
            self.n_computed += 1
            begun.set()
            leave.wait(60)
            return object()

        @cached
        def plain(self):
            return object()

    begun, leave, thing, found = threading.Event(), threading.Event(), Thing(), []
    threads = [threading.Thread(target=lambda: found.append(thing.value), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    leave.set()
    for thread in threads:
        thread.join(60)
    assert thing.n_computed == 1
    assert len(set(map(id, found))) == 1
    assert thing.plain is thing.plain


def test_who_is_interrupted_while_it_waits_for_its_outer_mode_is_in_none(holding, monkeypatch):
    """Ctrl-C comes where it may: nobody is counted who is not inside, and others get what they want afterwards."""
    modes = Modes()
    enter = Modes._enter

    def interrupted(self, mode):
        if mode.name == "outer" and inside:
            raise KeyboardInterrupt
        enter(self, mode)

    monkeypatch.setattr(Modes, "_enter", interrupted)
    inside = []
    with pytest.raises(KeyboardInterrupt), modes("outer"), modes("inner"):
        inside.append(True)
    monkeypatch.undo()
    assert modes._n_inside == 0
    for name in ("inner", "outer"):
        assert in_thread(lambda name=name: take(modes(name)), 30)


def test_what_is_slow_for_one_object_holds_up_no_other():
    """Each object has a lock of its own while its attributes are computed, and none afterwards."""

    class Thing:
        @cached_once
        def value(self):
            if self is slow:
                begun.set()
                leave.wait(60)
            return self.inner

        @cached_once
        def inner(self):
            return object()

    begun, leave, slow = threading.Event(), threading.Event(), Thing()
    thread = threading.Thread(target=lambda: slow.value, daemon=True)
    thread.start()
    assert begun.wait(60)
    assert in_thread(lambda: Thing().value, 30)
    leave.set()
    thread.join(60)
    assert slow.value is slow.inner
    assert not _Computing.locks
