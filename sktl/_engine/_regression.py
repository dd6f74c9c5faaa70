"""What all estimators that train a network to predict numbers share: targets in their own units, and predictions."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import _check_y

from sktl._engine._losses import RegressionLoss
from sktl._engine._probe import regression_probe
from sktl._engine._transfer import TransferEstimator


class TransferRegressor(RegressorMixin, TransferEstimator):
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
            The predicted targets, in the shape that ``y`` had in `fit`.
        """
        outputs = self._outputs(X)
        targets = outputs * self._target_scale + self._target_mean
        return targets[:, 0] if self._has_flat_targets else targets

    @property
    def _n_outputs(self):
        return len(self._target_mean)

    def _check_targets(self, y, weight, *, reset, classes):
        """Standardised targets, (n, n_targets), and a weight of one for each row."""
        y = _check_y(y, multi_output=True, y_numeric=True, estimator=self).astype(np.float64)
        is_flat, y = y.ndim == 1, y.reshape(len(y), -1)
        if reset:
            self._has_flat_targets = is_flat
            self._target_mean = np.average(y, axis=0, weights=weight)
            scale = np.sqrt(np.average(np.square(y - self._target_mean), axis=0, weights=weight))
            self._target_scale = np.where(scale > 0, scale, 1.0)
        elif y.shape[1] != self._n_outputs:
            raise ValueError(f"y has {y.shape[1]} targets, but the first call had {self._n_outputs}.")
        return ((y - self._target_mean) / self._target_scale).astype(np.float32), np.ones(len(y))

    def _make_criterion(self):
        return RegressionLoss()

    def _probe(self, features, y, weight):
        return regression_probe(features, y, weight)

    def _stratification(self, y):
        return None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
