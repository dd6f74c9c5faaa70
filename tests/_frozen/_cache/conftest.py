"""Entries whose right value is known, and a fork."""

import os
import signal
import warnings

import numpy as np
import pytest

from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import ImageFormat, Images
from sktl.backbones import load_backbone


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


@pytest.fixture(scope="session")
def features():
    """A function that computes six images with what the parameter ``cache`` says; without a cache it is the truth."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    images = Images(pixels, ImageFormat("batch", channels="last"), 3)
    spec = PrefixSpec(load_backbone("sktl_mini"), ["layer2"])
    settings = {"engine": "torch", "batch_size": 6, "n_jobs": 1}
    return lambda cache: FrozenPrefix(spec, Runtime(cache=cache, **settings)).run(images)[0]


@pytest.fixture
def in_fork():
    """A function that tells whether an action returns something true in a forked child."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    return _in_fork


@pytest.fixture
def as_nobody(in_fork):
    """`in_fork` as a user whom the modes of files hold back; root is nobody there."""

    def run(action) -> bool:
        def in_child():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            return action()

        return in_fork(in_child)

    return run


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
