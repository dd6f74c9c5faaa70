"""Listeners that are told how far a pass over the images is: ``listener(n_done, n_images)``; and tasks with names."""

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]


def start_task(estimator, **settings):
    """The task that a fit is for scikit-learn's callbacks, with a name that leaves room for a progress bar.

    Inside a meta-estimator, scikit-learn's `ProgressBar` writes that one's name and task in front of the estimator's
    own: 74 letters in a `GridSearchCV`, beside which no bar fits into the 80 columns of a terminal. The line above says
    whose part it is.

    Parameters
    ----------
    estimator : estimator instance
        That is being fitted.
    **settings : object
        For `_init_callback_context`.

    Returns
    -------
    CallbackContext
        The root of the estimator's tasks.
    """
    context = estimator._init_callback_context(**settings)
    context.source_estimator_name = context.source_task_name = None
    return context


class PrintedProgress:
    """Print lines now and then, and one at the end.

    The first ones are a second apart; in a long run the next one comes after a tenth of the time that has passed, so
    that an hour takes some eighty lines.

    Parameters
    ----------
    estimator : estimator instance or str
        Whose name stands before the line, or what stands there.
    is_brief : bool, default=False
        Whether a pass of less than a second prints nothing at all.
    """

    def __init__(self, estimator, *, is_brief=False):
        self._name = estimator if isinstance(estimator, str) else type(estimator).__name__
        self._is_brief = is_brief
        self._start = self._last = time.monotonic()

    def __call__(self, n_done: int, n_images: int) -> None:
        """Say how many images are done, how fast, and how long the others will take."""
        now = time.monotonic()
        is_due = now - self._last >= max(1, (now - self._start) / 10)
        is_end = n_done == n_images and not (self._is_brief and self._last == self._start)
        if not (is_due or is_end):
            return
        self._last = now
        rate = n_done / max(now - self._start, 1e-9)
        left = f", {in_words((n_images - n_done) / rate)} left" if 0 < n_done < n_images else ""
        print(f"[{self._name}] {n_done:,} of {n_images:,} images, {rate:,.3g} images/s{left}", flush=True)


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

    def __call__(self, n_done: int, n_images: int) -> None:
        """Begin and end as many steps as the share of the images that is done."""
        while self._n_steps < self.N_STEPS * n_done // n_images:
            step = self._context.subcontext(task_name="images")
            step.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            step.call_on_fit_task_end(estimator=self._estimator, **self._data)
            self._n_steps += 1


def in_words(seconds: float) -> str:
    """A time to wait, in the two units that matter: ``"8 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
