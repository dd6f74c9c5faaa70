"""What scikit-learn sees of a fit that goes by epochs: its tasks, and the attributes that it leaves behind."""

import contextlib

from sklearn.callback import CallbackSupportMixin

from sktl._frozen._progress import start_task
from sktl._threads import bounded_threads
from sktl._training._callbacks import EpochTasks


class FitInEpochs(CallbackSupportMixin):
    """Tells scikit-learn's callbacks of each epoch of a fit; for estimators whose ``fit`` has `with_callbacks`."""

    @contextlib.contextmanager
    def _fit_task(self, X, y, sample_weight, n_epochs):
        """What scikit-learn's callbacks hear of a fit, with the threads that a fit may have."""
        context = start_task(self, max_subtasks=n_epochs)
        data = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight} if sample_weight is not None else {}}
        context.call_on_fit_task_begin(estimator=self, **data)
        with bounded_threads():
            yield EpochTasks(self, context, data, self._fitted_attributes)
        context.call_on_fit_task_end(estimator=self, **data)

    def _forget(self):
        """Forget the last fit: should this one fail, what is left of both is no fitted estimator."""
        for name in self._fitted_attributes():
            delattr(self, name)

    def _fitted_attributes(self):
        """The attributes that make this estimator a fitted one."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}
