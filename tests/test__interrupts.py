"""Ctrl-C that other code keeps to itself is noticed, and handlers stay as they were."""

import signal
import threading

import pytest

from sktl._interrupts import noticed_interrupts


def keep_to_itself():
    """Be interrupted as scikit-learn's `MLPClassifier` is."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return
    raise AssertionError("no interrupt came")


def test_an_interrupt_that_was_kept_comes_in_the_end():
    """What ran inside goes on to its end, then the interrupt is raised; the handler is Python's again."""
    with pytest.raises(KeyboardInterrupt), noticed_interrupts():
        keep_to_itself()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_errors_pass(error):
    """What is raised inside is raised as it is, and the handler is Python's again."""
    with pytest.raises(error), noticed_interrupts():
        raise error
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_an_interrupt_nothing_is_raised():
    """Also where it is nested, and in a thread, which no signal reaches."""
    with noticed_interrupts(), noticed_interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    errors = []

    def enter():
        try:
            with noticed_interrupts():
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors == []


@pytest.mark.parametrize("of_the_user", [False, True])
def test_an_interrupt_is_noticed_inside_another_handler(of_the_user):
    """The inner one and the outer one notice the same Ctrl-C, whoever else handles it; all handlers are put back."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler) if of_the_user else signal.getsignal(signal.SIGINT)
    outside, noticed = signal.getsignal(signal.SIGINT), []

    def inner():
        try:
            with noticed_interrupts():
                keep_to_itself()
        except KeyboardInterrupt:
            noticed.append("inside")

    try:
        with pytest.raises(KeyboardInterrupt), noticed_interrupts():
            inner()
        assert noticed == ["inside"]
        assert signal.getsignal(signal.SIGINT) is outside
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_is_ignored_is_not_noticed():
    """Where the system ignores it, as behind nohup, there is no handler to ask."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticed_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_the_users_is_left_alone():
    """Whoever handles Ctrl-C himself, without an error, decides what it means."""
    calls = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with noticed_interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [signal.SIGINT]
