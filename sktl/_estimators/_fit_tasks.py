"""Tasks of a fit for scikit-learn's callbacks, and fitted attributes."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sktl._estimators._checked_table import FitInput
from sktl._frozen._progress import start_task
from sktl._threads import bounded_threads
from sktl._training._callbacks import EpochTasks


@contextlib.contextmanager
def fit_task(estimator: Any, given: FitInput, n_epochs: int) -> Iterator[tuple[str, EpochTasks]]:
    """Report a fit to scikit-learn's callbacks, and bound its threads.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted. Its ``fit`` is decorated with scikit-learn's
        `with_callbacks`.
    given : FitInput
        The arguments of ``fit``.
    n_epochs : int
        Maximum number of epochs.

    Yields
    ------
    tuple of (str, skorch callback)
        Callback that reports each epoch.
    """
    X, y, sample_weight = given[:3]
    context = start_task(estimator, max_subtasks=n_epochs)
    data = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight} if sample_weight is not None else {}}
    context.call_on_fit_task_begin(estimator=estimator, **data)
    with bounded_threads():
        yield "epoch_tasks", EpochTasks(estimator, context, data, lambda: fitted_attributes(estimator))
    context.call_on_fit_task_end(estimator=estimator, **data)


def forget_fit(estimator: Any) -> None:
    """Delete the fitted attributes, in case the next fit fails."""
    for name in fitted_attributes(estimator):
        delattr(estimator, name)


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """Return the fitted attributes of an estimator."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}
