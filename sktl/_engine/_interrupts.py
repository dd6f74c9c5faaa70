"""Ctrl-C while code runs that may keep it to itself, as scikit-learn's `MLPClassifier` and skorch's nets do."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the end, where Ctrl-C came meanwhile and what ran inside kept it to itself.

    So what an interrupted fit has made is taken for nothing else. A handler of the user's is left alone.
    """
    is_main = threading.current_thread() is threading.main_thread()  # signals reach no other thread
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    n_interrupts = 0

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal n_interrupts
        n_interrupts += 1
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, count)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is count:  # else what ran inside has set another one
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if n_interrupts:
        raise KeyboardInterrupt
