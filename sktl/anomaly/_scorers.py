"""Models of normal images on pooled features, one row per image.

All models, those of patches as well, have the two methods of `Scorer`. A training row
is scored as if the model had not learned from it, so that its score is comparable to
the scores of new rows.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf

from sktl.anomaly._gaussians import left_out, squared_distances, whitening
from sktl.anomaly._neighbors import cosine_distances, unit_rows

#: Features of the training images, in blocks.
Blocks = Iterable[np.ndarray]

N_FOLDS = 5


class Scorer(Protocol):
    """Model of normal images."""

    @property
    def n_required(self) -> int:
        """Number of different images that are required."""

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Learn from the features of ``n_images`` different normal images."""

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return how far images are from normal ones, high if they are anomalous.

        Parameters
        ----------
        features : ndarray of shape (n_images, ...)
            Features of images.
        own : ndarray of shape (n_images,), dtype int
            Position of each image among the training images, -1 if it is new.

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_patches)
        """


class NeighborScorer:
    """Mean cosine distance to the nearest training rows.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbors.
    """

    def __init__(self, n_neighbors: int):
        self._n_neighbors = n_neighbors
        self.n_required = n_neighbors + 1

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Keep the rows, scaled to unit length."""
        self._memory = unit_rows(np.concatenate(list(blocks)))

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return mean distances, see `Scorer.distances`."""
        return cosine_distances(unit_rows(features), self._memory, self._n_neighbors, own)


class GaussianScorer:
    """Mahalanobis distance to the mean, with the covariance of Ledoit and Wolf."""

    n_required = 3

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Estimate mean and covariance."""
        rows = np.concatenate(list(blocks)).astype(np.float64)
        self._mean = rows.mean(axis=0)
        covariance, shrinkage = ledoit_wolf(rows)
        # Rows that are all equal have no variance.
        covariance.flat[:: len(covariance) + 1] += 1e-9 * np.trace(covariance) / len(covariance) + 1e-12
        self._factor = whitening(covariance)
        self._n_rows, self._weight = n_images, 1 - shrinkage

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return distances, see `Scorer.distances`."""
        squared = squared_distances(features, self._mean, self._factor)
        return np.sqrt(np.where(own < 0, squared, left_out(squared, self._n_rows, self._weight)))


class EstimatorScorer:
    """Negative scores of an estimator on the features.

    Training rows get the scores of five estimators, each fitted on four fifths of the
    rows.

    Parameters
    ----------
    estimator : estimator
        Estimator with ``fit`` and ``score_samples``. It is cloned.
    """

    n_required = N_FOLDS

    def __init__(self, estimator: Any):
        self._estimator = estimator

    def fit(self, blocks: Blocks, n_images: int) -> None:
        """Fit the estimator on all rows, and five of them on parts of the rows."""
        rows = np.concatenate(list(blocks)).astype(np.float64)  # float32 sums depend on the batch
        fold = np.arange(n_images) % N_FOLDS
        self._own_distances = np.empty(n_images)
        for number in range(N_FOLDS):
            fitted = clone(self._estimator).fit(rows[fold != number])
            self._own_distances[fold == number] = -fitted.score_samples(rows[fold == number])
        self.fitted = clone(self._estimator).fit(rows)

    def distances(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return negative scores, see `Scorer.distances`."""
        distances = self._own_distances[own]
        new = own < 0
        if new.any():
            distances[new] = -self.fitted.score_samples(features[new].astype(np.float64))
        return distances
