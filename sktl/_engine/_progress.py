"""Listeners that are told how far a pass over the pictures is: ``listener(n_done, n_pictures)``."""

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]


class PrintedProgress:
    """Print a line at most once a second, and one at the end.

    Parameters
    ----------
    estimator : estimator instance or str
        Whose name stands before the line, or what stands there.
    """

    def __init__(self, estimator):
        self._name = estimator if isinstance(estimator, str) else type(estimator).__name__
        self._start = self._last = time.monotonic()

    def __call__(self, n_done: int, n_pictures: int) -> None:
        """Say how many pictures are done, how fast, and how long the others will take."""
        now = time.monotonic()
        if n_done < n_pictures and now - self._last < 1:
            return
        self._last = now
        rate = n_done / max(now - self._start, 1e-9)
        left = f", {(n_pictures - n_done) / rate:.0f} s left" if 0 < n_done < n_pictures else ""
        print(f"[{self._name}] {n_done} of {n_pictures} pictures, {rate:.0f} per second{left}", flush=True)


class CallbackProgress:
    """Tell scikit-learn's callbacks (a progress bar, say), in a fixed number of steps.

    Parameters
    ----------
    estimator : estimator instance
        The estimator that is being fitted.
    context : CallbackContext
        Its root context, made with ``max_subtasks=CallbackProgress.N_STEPS``.
    X, y : object
        What is being fitted, for the callbacks that want it.
    """

    N_STEPS = 20

    def __init__(self, estimator, context, X, y=None):
        self._estimator = estimator
        self._context = context
        self._data = {"X": X, "y": y}
        self._n_steps = 0

    def __call__(self, n_done: int, n_pictures: int) -> None:
        """Begin and end as many steps as the share of the pictures that is done."""
        while self._n_steps < self.N_STEPS * n_done // n_pictures:
            step = self._context.subcontext(task_name="pictures")
            step.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            step.call_on_fit_task_end(estimator=self._estimator, **self._data)
            self._n_steps += 1
