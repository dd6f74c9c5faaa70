"""What scikit-learn sees of a fit that goes by epochs: its tasks, and the attributes that it leaves behind."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sktl._estimators._checked_table import FitInput
from sktl._frozen._progress import start_task
from sktl._threads import bounded_threads
from sktl._training._callbacks import EpochTasks


@contextlib.contextmanager
def fit_task(estimator: Any, given: FitInput, n_epochs: int) -> Iterator[tuple[str, EpochTasks]]:
    """What scikit-learn's callbacks hear of a fit, with the threads that a fit may have.

    Parameters
    ----------
    estimator : estimator
        That is being fitted; its ``fit`` has scikit-learn's `with_callbacks`.
    given : FitInput
        What it is fitted to.
    n_epochs : int
        How many epochs there will be.

    Yields
    ------
    tuple of (str, skorch callback)
        Tells them of each epoch.
    """
    X, y, sample_weight = given[:3]
    context = start_task(estimator, max_subtasks=n_epochs)
    data = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight} if sample_weight is not None else {}}
    context.call_on_fit_task_begin(estimator=estimator, **data)
    with bounded_threads():
        yield "epoch_tasks", EpochTasks(estimator, context, data, lambda: fitted_attributes(estimator))
    context.call_on_fit_task_end(estimator=estimator, **data)


def forget_fit(estimator: Any) -> None:
    """Forget the last fit: should this one fail, what is left of both is no fitted estimator."""
    for name in fitted_attributes(estimator):
        delattr(estimator, name)


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """The attributes that make an estimator a fitted one."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}
