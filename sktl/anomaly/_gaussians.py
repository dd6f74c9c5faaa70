"""Gaussian models of normal rows: Mahalanobis distances, with and without a row.

Each model is a mean and a whitening matrix, one for each of several groups of rows: one
group for pooled features, one for each position of a map.
"""

import numpy as np


def whitening(covariances: np.ndarray) -> np.ndarray:
    """Return the inverse Cholesky factors of covariance matrices.

    Parameters
    ----------
    covariances : ndarray of shape (..., d, d), float64
        Positive definite matrices.

    Returns
    -------
    ndarray of shape (..., d, d), float32
        Lower triangular matrices ``W`` with ``W.T @ W`` equal to the inverse.
    """
    return np.linalg.inv(np.linalg.cholesky(covariances)).astype(np.float32)


def squared_distances(rows: np.ndarray, means: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return squared Mahalanobis distances.

    The sums are float64, so that they do not depend on the other rows.

    Parameters
    ----------
    rows : ndarray of shape (..., n, d)
        Rows, in groups.
    means : ndarray of shape (..., d)
        Mean of each group.
    factors : ndarray of shape (..., d, d)
        Whitening matrix of each group.

    Returns
    -------
    ndarray of shape (..., n), float64
    """
    centered = rows.astype(np.float64) - means[..., np.newaxis, :]
    return np.square(centered @ np.swapaxes(factors, -1, -2).astype(np.float64)).sum(axis=-1)


def left_out(squared: np.ndarray, n_rows: int, weight: float) -> np.ndarray:
    r"""Return squared distances of training rows to the models without these rows.

    A model of n rows with the scatter matrix :math:`S` around their mean has the
    covariance :math:`w S / n + R`, in which :math:`R` is a regularization. Without a
    row, the mean moves, :math:`S` loses :math:`n / (n - 1)` times the outer product of
    the centered row, and n becomes n - 1. The inverse follows from the formula of
    Sherman and Morrison, so that no model has to be fitted again. :math:`w` is kept,
    and :math:`R` is multiplied by n / (n - 1).

    Parameters
    ----------
    squared : ndarray
        Squared distances of training rows to the model that includes them.
    n_rows : int
        Number of training rows, n.
    weight : float
        Weight of the empirical covariance, w.

    Returns
    -------
    ndarray
        Squared distances, of the same shape.
    """
    remaining = 1 - weight / (n_rows - 1) * squared
    return n_rows / (n_rows - 1) * squared / np.maximum(remaining, np.finfo(np.float32).eps)
