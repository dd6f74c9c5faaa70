"""Start of an autoencoder: the mean and scale of its input, and principal axes.

References
----------
Baldi and Hornik, "Neural networks and principal component analysis: Learning from
examples without local minima", Neural Networks 2, 1989: the best linear autoencoder
projects on the principal axes. Efron and Morris, "Stein's Paradox in Statistics",
Scientific American 236, 1977: damped means.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.utils.extmath import svd_flip

from sktl.exceptions import InputError

_SCALES = 1e-30, 1e30  # of data whose codes are float32


class Start(NamedTuple):
    """Statistics of rows that set the first weights of an autoencoder.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each feature over the rows in which it is observed.
    scale : float
        Common scale of all features: the root of their mean variance.
    low, high : ndarray of shape (n_features,)
        Smallest and largest value of each feature, centered and scaled.
    n_observed : float
        Mean number of observed features of a row.
    damping : float
        Number of entries that the mean of a column counts as, if a missing entry of it
        is filled with the mean of the entries of the row.
    axes : ndarray of shape (n_components, n_features)
        Principal axes of the rows, missing entries filled.
    spread : ndarray of shape (n_components,)
        Standard deviation of the scaled rows along each axis; 1 if it is zero.
    """

    mean: np.ndarray
    scale: float
    low: np.ndarray
    high: np.ndarray
    n_observed: float
    damping: float
    axes: np.ndarray
    spread: np.ndarray


def start_from(rows: np.ndarray, weight: np.ndarray, n_components: int) -> Start:
    """Compute the start for some rows, in float64.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)
        Rows, with NaN for entries that were not observed.
    weight : ndarray of shape (n,)
        Weights of the rows. A weight of 2 equals repeating the row.
    n_components : int
        Number of principal axes, at most ``min(n, n_features)``. 0 computes none.

    Raises
    ------
    InputError
        If the numbers are too large or too small for float32.
    """
    rows = rows.astype(np.float64)
    observed = ~np.isnan(rows)
    mass = weight @ observed
    total = weight @ np.where(observed, rows, 0.0)
    # A feature that only held-out rows have gets the mean of all.
    mean = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), total.sum() / mass.sum())
    centered = np.where(observed, rows - mean, 0.0)
    with np.errstate(over="ignore"):
        scale = float(np.sqrt(weight @ np.square(centered).sum(1) / mass.sum()))
    if centered.any() and not _SCALES[0] < scale < _SCALES[1]:
        raise InputError(
            f"The standard deviation of X must be between {_SCALES[0]:g} and {_SCALES[1]:g}, because the network "
            f"computes in float32. Got {scale:.3g} instead. Change the unit of X, or use a StandardScaler before it."
        )
    scale = scale or 1.0
    centered /= scale
    damping = _damping(centered, observed, weight)
    filled = np.where(observed, centered, (centered.sum(1) / (observed.sum(1) + damping))[:, np.newaxis])
    axes, spread = _principal_axes(filled, weight, n_components)
    n_observed = float(np.average(observed.sum(1), weights=weight))
    return Start(mean, scale, centered.min(0), centered.max(0), n_observed, damping, axes, spread)


def _damping(centered: np.ndarray, observed: np.ndarray, weight: np.ndarray) -> float:
    """Return the ratio of the variance in rows to the variance of the means of rows.

    The variance of the means is the covariance of two entries of a row, averaged over
    all pairs (method of moments). Infinity if it is not positive.
    """
    n = observed.sum(1)
    n_pairs = weight @ (n * (n - 1))
    pairs = weight @ (centered.sum(1) ** 2 - np.square(centered).sum(1))
    between = pairs / n_pairs if n_pairs else 0.0
    return float(max(1 - between, 1e-3) / between) if between > 0 else np.inf


def _principal_axes(centered: np.ndarray, weight: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the axes (n_components, n_features) and the deviations along them."""
    if not n_components:
        return np.empty((0, centered.shape[1])), np.empty(0)
    weighted = np.sqrt(weight / weight.sum())[:, np.newaxis] * centered
    # The smaller of the two products has the same nonzero eigenvalues.
    is_wide = weighted.shape[0] < weighted.shape[1]
    product = weighted @ weighted.T if is_wide else weighted.T @ weighted
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(size - n_components, size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    spread = np.sqrt(np.maximum(values, 0.0))
    has_length = spread > 1e-7 * spread[0]  # below it, an axis of a Gram matrix is rounding
    if is_wide:
        vectors = weighted.T @ vectors / np.where(has_length, spread, 1.0)
        vectors = np.where(has_length, vectors, 0.0)
    _, axes = svd_flip(None, vectors.T, u_based_decision=False)
    return axes, np.where(has_length, spread, 1.0)
