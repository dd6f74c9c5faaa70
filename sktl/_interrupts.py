"""Detection of Ctrl-C in code that may catch it, as `MLPClassifier` and skorch do."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Number of times that Ctrl-C raised KeyboardInterrupt."""

    count = 0


@contextlib.contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count each Ctrl-C for which the installed handler raises KeyboardInterrupt.

    A Ctrl-C that is handled otherwise does not count (asyncio cancels a task first).
    Nothing is counted if the handler is not a Python function, or in threads other than
    the main thread, which receive no signals.
    """
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def counting(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except KeyboardInterrupt:
            interrupts.count += 1
            raise

    signal.signal(signal.SIGINT, counting)
    try:
        yield interrupts
    finally:
        if signal.getsignal(signal.SIGINT) is counting:  # otherwise, code inside installed another handler
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if code inside caught one.

    The result of an interrupted fit is then not mistaken for a complete one, however
    deeply the fit is nested.
    """
    with counted_interrupts() as interrupts:
        yield
    if interrupts.count:
        raise KeyboardInterrupt
