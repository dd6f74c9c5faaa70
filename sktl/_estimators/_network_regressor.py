"""What all estimators that train a network to predict numbers share: targets in their own units, and predictions."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import _check_y

from sktl._estimators._network_estimator import NetworkEstimator
from sktl._frozen._readable import read_rows
from sktl._messages import shortened_errors
from sktl._training._head_probe import regression_probe
from sktl._training._losses import RegressionLoss
from sktl._warnings import warn
from sktl.exceptions import InputError, TrainingWarning

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
        return self._targets(self._outputs(X))

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
        predicted = self._targets(outputs)
        predicted, y, sample_weight = read_rows(images, failures, predicted, y, sample_weight)
        if np.asarray(y).dtype.kind in "iuf":  # in other units, the square of a large number is a number too
            unit = _power_of_two(self._target_scale)
            y, predicted = np.asarray(y) / unit, predicted / unit
        with shortened_errors():
            return r2_score(y, predicted, sample_weight=sample_weight)

    def _targets(self, outputs):
        """What the head's outputs are in the targets' own units, in the shape that ``y`` had."""
        targets = outputs * self._target_scale + self._target_mean
        return targets[:, 0] if self._has_flat_targets else targets

    @property
    def _n_outputs(self):
        return len(self._target_mean)

    def _check_targets(self, y, weight, *, reset, classes):
        """Standardised targets, (n, n_targets), and a weight of one for each row."""
        targets = self._check_numbers(y)
        return self._standardised(targets, weight, reset), np.ones(len(targets))

    def _check_numbers(self, y):
        """Targets as they were given, as a table (n, n_targets)."""
        with shortened_errors():
            y = _check_y(y, multi_output=True, y_numeric=True, estimator=self).astype(np.float64)
        self._is_flat = y.ndim == 1
        return y.reshape(len(y), -1)

    def _standardised(self, y, weight, reset):
        """Targets in units of what the first call had; a target that is NaN stays one."""
        if reset:
            self._has_flat_targets = self._is_flat
            self._learn_units(y, weight)
        elif y.shape[1] != self._n_outputs:
            raise InputError(f"y has {y.shape[1]} targets, but the first call had {self._n_outputs}.")
        return ((y - self._target_mean) / self._target_scale).astype(np.float32)

    def _learn_units(self, y, weight):
        """Weighted mean and standard deviation of each target, of the rows in which it is known."""
        known = [(column[~np.isnan(column)], weight[~np.isnan(column)]) for column in y.T]
        empty = [number for number, (column, _) in enumerate(known) if not len(column)]
        if empty:
            raise InputError(f"Target {empty[0]} of y is missing in every row. Leave it out.")
        units = [_moments(column, own) for column, own in known]
        self._target_mean, self._target_scale = (np.array(numbers) for numbers in zip(*units, strict=True))

    def _make_criterion(self):
        return RegressionLoss()

    def _probe(self, features, y, weight, groups):
        return regression_probe(features, y, weight, groups)

    def _stratification(self, y):
        return None

    def _assess(self, course):
        """Warn where the mean of the targets would have predicted the validation rows better."""
        if course.valid is None:
            return
        y, learnt = course.valid.y.numpy(), course.table.y
        weight = np.where(np.isnan(learnt), 0, course.table.sample_weight[:, np.newaxis])
        mean = (np.nan_to_num(learnt) * weight).sum(0) / weight.sum(0).clip(1e-300)
        of_mean = self.net_.criterion_.score(
            np.broadcast_to(mean, y.shape), y, course.valid.columns["sample_weight"].numpy()
        )
        own = self.net_.score(course.valid)
        # A probe may find that nothing beats the mean, and be that but for rounding.
        if own < of_mean - _VISIBLE * max(1.0, abs(of_mean)):
            stop = "" if self.early_stopping else "early_stopping=True, "
            warn(
                f"On its {len(y)} validation rows {type(self).__name__} predicts worse than the mean of the targets it "
                f"has learnt from: R² is {own:.3g}, and {of_mean:.3g} with the mean. Use more images, "
                f"{stop}a smaller lr, or another backbone.",
                TrainingWarning,
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted mean and standard deviation, 1 where that is zero, of numbers of any size."""
    unit = float(_power_of_two(np.abs(values).max()))  # division by it is exact; large numbers have no squares
    values = values / unit
    mean = float(np.average(values, weights=weight))
    scale = float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
    return mean * unit, scale * unit or 1.0


def _power_of_two(size: "float | np.ndarray") -> "float | np.ndarray":
    """The largest power of two that is no larger; 1 for zero."""
    return np.where(size == 0, 1.0, np.ldexp(1.0, np.frexp(size)[1] - 1))
