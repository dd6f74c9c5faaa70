"""What all estimators that train a network to predict numbers share: targets in their own units, and predictions."""

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

_VISIBLE = 0.01  # a difference that can be seen in three digits, of numbers up to 1, or a share of larger ones


class NetworkRegressor(RegressorMixin, NetworkEstimator):
    """Trains a network whose head has an output for each target; inside, targets are standardised."""

    def predict(self, X):
        """Targets.

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen.

        Returns
        -------
        y : ndarray of shape (n_pictures,) or (n_pictures, n_targets), float64
            The predicted targets, in the shape that ``y`` had in `fit`. With ``on_error="nan"``, NaN for pictures that
            cannot be read.
        """
        outputs = self._outputs(X)  # which says so if there is no network yet
        return self._coding.decode(outputs)

    def score(self, X, y, sample_weight=None):
        """Coefficient of determination, R².

        Parameters
        ----------
        X : array-like of pictures
            Pictures of the kind that `fit` has seen. With ``on_error="nan"`` those that cannot be read are left out.
        y : array-like of shape (n_pictures,) or (n_pictures, n_targets)
            Their true targets.
        sample_weight : array-like of shape (n_pictures,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Of several targets the mean.
        """
        images, outputs, failures = self._try_outputs(X)
        predicted = self._coding.decode(outputs)
        predicted, y, sample_weight = read_rows(images, failures, predicted, y, sample_weight)
        if np.asarray(y).dtype.kind in "iuf":  # in other units, the square of a large number is a number too
            unit = power_of_two(self._coding.scale)
            y, predicted = np.asarray(y) / unit, predicted / unit
        with shortened_errors():
            return r2_score(y, predicted, sample_weight=sample_weight)

    def _make_coding(self, is_new, classes):
        """Standardized targets; a network that has learned keeps its units."""
        return NumberCoding(type(self).__name__, None if is_new else self._coding)

    def _make_objective(self, coding, table, depth, seed):
        """An output for each target."""
        return RegressionObjective(coding.n_outputs)

    def _finish(self, trainer, data):
        """Warn where the mean of the targets would have predicted the validation rows better."""
        if data.valid is None:
            return
        y, learnt = data.valid.y.numpy(), data.table.y
        weight = np.where(np.isnan(learnt), 0, data.table.sample_weight[:, np.newaxis])
        mean = (np.nan_to_num(learnt) * weight).sum(0) / weight.sum(0).clip(1e-300)
        of_mean = self.net_.criterion_.score(
            np.broadcast_to(mean, y.shape), y, data.valid.columns["sample_weight"].numpy()
        )
        own = self.net_.score(data.valid)
        # A probe may find that nothing beats the mean, and be that but for rounding.
        if own < of_mean - _VISIBLE * max(1.0, abs(of_mean)):
            stop = "" if self.early_stopping else "early_stopping=True, "
            warn(
                f"On its {len(y)} validation rows {type(self).__name__} predicts worse than the mean of the targets it "
                f"has learnt from: R² is {own:.3g}, and {of_mean:.3g} with the mean. Use more images, "
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
