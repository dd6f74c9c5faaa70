"""Base class of regressors that train a network."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from sktl._estimators._network_estimator import NetworkEstimator
from sktl._estimators._target_coding import NumberCoding, power_of_two
from sktl._frozen._readable import read_rows
from sktl._messages import shortened_errors
from sktl._training._objective import RegressionObjective
from sktl._warnings import warn
from sktl.exceptions import TrainingWarning

_VISIBLE = 0.01  # smallest difference of R² that a message with three digits shows; relative if R² is above 1


class NetworkRegressor(RegressorMixin, NetworkEstimator):
    """Base class of regressors that train a network on standardized targets."""

    def predict(self, X):
        """Predict the targets of images.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets), float64
            The predicted targets, in the shape of ``y`` in `fit`. With
            ``on_error="nan"``, NaN for images that cannot be read.
        """
        outputs = self._outputs(X)  # raises NotFittedError before fit
        return self._coding.decode(outputs)

    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination (R²) of the predicted targets.

        Parameters
        ----------
        X : array-like of images
            Images of the same kind as in `fit`. With ``on_error="nan"``, images that
            cannot be read are left out.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets of the images.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            R² of ``self.predict(X)`` with respect to ``y``, averaged over the targets.
        """
        images, outputs, failures = self._try_outputs(X)
        predicted = self._coding.decode(outputs)
        predicted, y, sample_weight = read_rows(images, failures, predicted, y, sample_weight)
        if np.asarray(y).dtype.kind in "iuf":  # rescaled so that squares of very large targets are finite
            unit = power_of_two(self._coding.scale)
            y, predicted = np.asarray(y) / unit, predicted / unit
        with shortened_errors():
            return r2_score(y, predicted, sample_weight=sample_weight)

    def _make_coding(self, is_new, classes):
        """Standardize targets; a trained network keeps its mean and scale."""
        return NumberCoding(type(self).__name__, None if is_new else self._coding)

    def _make_objective(self, coding, table, depth, seed):
        """Return the objective for one output per target."""
        return RegressionObjective(coding.n_outputs)

    def _finish(self, trainer, data):
        """Warn if the mean of the targets predicts the validation rows better."""
        if data.valid is None:
            return
        y, learned = data.valid.y.numpy(), data.table.y
        weight = np.where(np.isnan(learned), 0, data.table.sample_weight[:, np.newaxis])
        mean = (np.nan_to_num(learned) * weight).sum(0) / weight.sum(0).clip(1e-300)
        of_mean = self.net_.criterion_.score(
            np.broadcast_to(mean, y.shape), y, data.valid.columns["sample_weight"].numpy()
        )
        own = self.net_.score(data.valid)
        # A probe may predict the mean itself, up to rounding.
        if own < of_mean - _VISIBLE * max(1.0, abs(of_mean)):
            stop = "" if self.early_stopping else "early_stopping=True, "
            warn(
                f"{type(self).__name__} predicts its {len(y)} validation rows worse than the mean of the training "
                f"targets does: R² is {own:.3g} for the network and {of_mean:.3g} for the mean. Use more images, "
                f"{stop}a smaller lr, or another backbone.",
                TrainingWarning,
            )

    def _restore(self, state):
        super()._restore(state)
        if hasattr(self, "_target_mean"):  # of a version before 0.1.0
            self._coding = NumberCoding(type(self).__name__)
            names = {"mean": "_target_mean", "scale": "_target_scale", "is_flat": "_has_flat_targets"}
            vars(self._coding).update({name: self.__dict__.pop(old_name) for name, old_name in names.items()})

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
