"""Entries whose right value is known, and a fork."""

import os
import signal
import warnings

import numpy as np
import pytest


class Entries:
    """The one right array for each number: whoever reads another was lied to."""

    def key(self, number: int) -> bytes:
        return number.to_bytes(16, "big")

    def array(self, number: int, size: int = 1280) -> np.ndarray:
        return np.random.default_rng(number).standard_normal(size, dtype=np.float32)

    def items(self, numbers, size: int = 1280) -> list[tuple[bytes, np.ndarray]]:
        return [(self.key(number), self.array(number, size)) for number in numbers]

    def read(self, cache, numbers, size: int = 1280) -> list[bool]:
        """Which of the entries are there; fails where one is there and wrong."""
        values = cache.get_many([self.key(number) for number in numbers])
        for number, value in zip(numbers, values, strict=True):
            if value is not None:
                np.testing.assert_array_equal(value, self.array(number, size))
        return [value is not None for value in values]


@pytest.fixture
def entries() -> Entries:
    return Entries()


@pytest.fixture
def in_fork():
    """A function that tells whether an action returns something true in a forked child."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    return _in_fork


def _in_fork(action) -> bool:
    """Whether ``action`` returns something true in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads; they are the point here
        pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a deadlock is a failure, not an endless test
        try:
            os._exit(0 if action() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
