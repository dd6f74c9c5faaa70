"""Progress of a pass: listeners ``listener(n_done, n_images)`` and callback tasks."""

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]


def start_task(estimator, **settings):
    """Start the callback task of a fit, with a name short enough for a progress bar.

    Inside a meta-estimator, scikit-learn's `ProgressBar` prepends the name and task of
    the meta-estimator to those of the estimator. In a `GridSearchCV` this takes 74
    columns, and the bar does not fit into a terminal of 80 columns. The line above it
    shows the same names, so they are left out.

    Parameters
    ----------
    estimator : estimator instance
        The estimator being fitted.
    **settings : object
        Arguments of `_init_callback_context`.

    Returns
    -------
    CallbackContext
        The root of the estimator's tasks.
    """
    context = estimator._init_callback_context(**settings)
    context.source_estimator_name = context.source_task_name = None
    return context


class PrintedProgress:
    """Print progress lines from time to time, and one at the end.

    The first lines are a second apart. Later, the next line follows after a tenth of
    the elapsed time, so that an hour takes about eighty lines.

    Parameters
    ----------
    estimator : estimator instance or str
        The estimator whose name begins each line, or the beginning itself.
    is_brief : bool, default=False
        Whether a pass of less than a second prints nothing.
    """

    def __init__(self, estimator, *, is_brief=False):
        self._name = estimator if isinstance(estimator, str) else type(estimator).__name__
        self._is_brief = is_brief
        self._start = self._last = time.monotonic()

    def __call__(self, n_done: int, n_images: int) -> None:
        """Print the number of images done, the rate and the remaining time."""
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
    """Report progress to scikit-learn's callbacks, in a fixed number of steps.

    Parameters
    ----------
    estimator : estimator instance
        The estimator being fitted.
    context : CallbackContext
        The root callback context, made with ``max_subtasks=CallbackProgress.N_STEPS``.
    X, y : object
        Data of the fit, passed to the callbacks.
    """

    N_STEPS = 20

    def __init__(self, estimator, context, X, y=None):
        self._estimator = estimator
        self._context = context
        self._data = {"X": X, "y": y}
        self._n_steps = 0

    def __call__(self, n_done: int, n_images: int) -> None:
        """Begin and end steps until their share matches that of the images done."""
        while self._n_steps < self.N_STEPS * n_done // n_images:
            step = self._context.subcontext(task_name="images")
            step.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            step.call_on_fit_task_end(estimator=self._estimator, **self._data)
            self._n_steps += 1


def in_words(seconds: float) -> str:
    """Format a duration in two units: ``"8 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
