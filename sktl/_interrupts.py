"""Ctrl-C while code runs that may keep it to itself, as scikit-learn's `MLPClassifier` and skorch's nets do."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """How often Ctrl-C has raised KeyboardInterrupt."""

    count = 0


@contextlib.contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count each Ctrl-C that the handler of it, Python's or anybody else's, answers by a KeyboardInterrupt.

    One that does something else instead (asyncio's cancels a task first) has its reasons. Where Ctrl-C has no handler
    in Python, and in other threads, which no signal reaches, none is counted.
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
        if signal.getsignal(signal.SIGINT) is counting:  # else what ran inside has set another one
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the end, where Ctrl-C came meanwhile and what ran inside kept it to itself.

    So what an interrupted fit has made is taken for nothing else, however deep inside others it was.
    """
    with counted_interrupts() as interrupts:
        yield
    if interrupts.count:
        raise KeyboardInterrupt
