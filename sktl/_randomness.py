"""The one owner of the generators that a whole process draws from: torch's, NumPy's and Python's.

Dropout, a network's first weights and most transforms of pictures draw from them and from nothing else. Whoever needs
numbers of its own puts its state in their place while it draws, a training for one step, and takes them turn by turn
with the other threads. So numbers depend on a seed alone, and what the user draws goes on as if nobody had been there.
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
_HELPERS = Lock()  # threads that work for the one that has the generators draw one at a time


class _Turn:
    """Whose turn it is; a thread that works for that one knows it from the context that it was given."""

    now: object = None
    thread: int = 0  # which one took it
    mine: contextvars.ContextVar[object] = contextvars.ContextVar("sktl_turn", default=None)


class Randomness:
    """A sequence of random numbers that is drawn from the global generators, and by nobody else meanwhile.

    Parameters
    ----------
    seed : int
        Where it begins.
    device : str or torch.device, default="cpu"
        A GPU has a generator of its own, which is seeded and put back beside that of the CPU.
    """

    def __init__(self, seed: int, device: "str | torch.device" = "cpu"):
        device = torch.device(device)
        self._states = [torch.Generator().manual_seed(seed).get_state()]
        self._gpu = None
        if device.type == "cuda":
            self._gpu = torch.cuda.current_device() if device.index is None else device.index
            self._states.append(torch.Generator(device).manual_seed(seed).get_state())

    def generators(self) -> list[torch.Generator]:
        """The global generators that it is drawn from."""
        gpu = [] if self._gpu is None else [torch.cuda.default_generators[self._gpu]]
        return [torch.default_generator, *gpu]

    @contextlib.contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Draw from it inside, from where it was left the last time; the global generators are as before afterwards."""
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
        # Within its own turn the thread waits for nobody: its helpers may be what it is waiting for.
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
    """The function for a thread that works for this one, and may draw while this one has the generators and waits."""

    def call(*args: Any) -> Any:
        return contextvars.Context.run(context.copy(), function, *args)  # one context is one thread's at a time

    context = contextvars.copy_context()
    return call


@contextlib.contextmanager
def seeded_everywhere(seed: int) -> Iterator[None]:
    """Seed the generators of torch (on the CPU), NumPy and Python, and put them back as they were."""
    with Randomness(seed).drawn_from():
        before_numpy, before_python = np.random.get_state(), random.getstate()  # noqa: NPY002, transforms draw from it
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
