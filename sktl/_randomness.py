"""Control of the global random generators of torch, NumPy and Python.

Dropout, weight initialization and most image transforms can only draw from these
generators. Code that needs reproducible numbers replaces their state while it draws (a
training, for one step), one thread at a time, and restores the state afterwards. The
numbers then depend only on a seed, and the user's random numbers are not affected.
"""

import contextlib
import contextvars
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from sktl._locks import Lock

_GENERATORS = Lock()
_HELPERS = Lock()  # helper threads of the thread that has the generators draw one at a time


class _Turn:
    """The current turn; helper threads recognize it by their context."""

    now: object = None
    thread: int = 0  # the thread whose turn it is
    mine: contextvars.ContextVar[object] = contextvars.ContextVar("sktl_turn", default=None)


class Randomness:
    """Sequence of random numbers that is drawn from the global generators.

    Parameters
    ----------
    seed : int
        Seed of the sequence.
    device : str or torch.device, default="cpu"
        Device. For a GPU, its generator is seeded and restored in addition to that of
        the CPU.
    """

    def __init__(self, seed: int, device: "str | torch.device" = "cpu"):
        device = torch.device(device)
        self._states = [torch.Generator().manual_seed(seed).get_state()]
        self._gpu = None
        if device.type == "cuda":
            self._gpu = torch.cuda.current_device() if device.index is None else device.index
            self._states.append(torch.Generator(device).manual_seed(seed).get_state())

    def generators(self) -> list[torch.Generator]:
        """Return the global generators that are used."""
        gpu = [] if self._gpu is None else [torch.cuda.default_generators[self._gpu]]
        return [torch.default_generator, *gpu]

    @contextlib.contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Continue the sequence inside, and restore the generators afterwards."""
        with _turn():
            generators = self.generators()
            before = [generator.get_state() for generator in generators]
            _set(generators, self._states)
            try:
                yield
            finally:
                self._states = [generator.get_state() for generator in generators]
                _set(generators, before)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    if _Turn.now is not None and _Turn.mine.get() is _Turn.now:
        # This thread must not wait for its helpers, whose results it may need.
        with contextlib.nullcontext() if _Turn.thread == threading.get_ident() else _HELPERS:
            yield
        return
    with _GENERATORS:
        _Turn.now, _Turn.thread = object(), threading.get_ident()
        token = _Turn.mine.set(_Turn.now)
        try:
            yield
        finally:
            _Turn.mine.reset(token)
            _Turn.now = None


def helping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function for a helper thread that draws during the turn of this thread."""

    def call(*args: Any) -> Any:
        return contextvars.Context.run(context.copy(), function, *args)  # a context can be used by one thread at a time

    context = contextvars.copy_context()
    return call


@contextlib.contextmanager
def seeded_everywhere(seed: int) -> Iterator[None]:
    """Seed the generators of torch (on the CPU), NumPy and Python, and restore them."""
    with Randomness(seed).drawn_from():
        before_numpy, before_python = np.random.get_state(), random.getstate()  # noqa: NPY002, used by transforms
        try:
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
        finally:
            np.random.set_state(before_numpy)  # noqa: NPY002
            random.setstate(before_python)


def _set(generators: list[torch.Generator], states: list[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
