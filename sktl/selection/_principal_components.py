"""Principal components of features, by the smaller of the two Gram matrices."""

from typing import NamedTuple

import numpy as np
from scipy import sparse


class Spectrum(NamedTuple):
    """The parts of a thin singular value decomposition ``X = U · diag(s) · Vᵀ``.

    Attributes
    ----------
    energies : ndarray of shape (rank,)
        Squared singular values in descending order.
    projections : ndarray of shape (rank, n_columns)
        ``Uᵀ · Y`` for the columns of ``Y``.
    """

    energies: np.ndarray
    projections: np.ndarray


def spectrum(X: np.ndarray, Y: np.ndarray | sparse.csr_array) -> Spectrum:
    """Decompose features once for all columns of a table.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features with magnitudes near 1.
    Y : ndarray or sparse array of shape (n_samples, n_columns)
        Columns to project on the left singular vectors.

    Returns
    -------
    spectrum : Spectrum
        Energies and projections.

    Notes
    -----
    The eigenvectors of the smaller Gram matrix cost ``min(n, n_features)³`` and the
    matrix ``n · n_features · min(n, n_features)``, while a full decomposition costs up
    to ``max(n, n_features)³``. However, directions with singular values below about
    1e-7 of the largest one are lost to rounding and omitted.
    """
    energies, vectors = _eigen(X)
    if X.shape[0] < X.shape[1]:  # the vectors are U
        return Spectrum(energies, (Y.T @ vectors).T)
    return Spectrum(energies, vectors.T @ (Y.T @ X).T / np.sqrt(energies)[:, None])  # they are V


def principal_components(Z: np.ndarray, n_components: int | float) -> np.ndarray:
    """Return the coordinates of rows along their principal directions.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Centered features with magnitudes near 1.
    n_components : int or float
        Maximum number of directions, or the share of the variance to keep, as in `PCA`.

    Returns
    -------
    coordinates : ndarray of shape (n_samples, n_kept)
        Coordinates in descending order of variance; no columns without any variance.
    """
    energies, vectors = _eigen(Z)
    if isinstance(n_components, float):
        # The last direction is the first one that reaches the share, up to rounding.
        share = np.cumsum(energies) / energies.sum() if len(energies) else energies
        n_components = int(np.searchsorted(share, n_components - 1e-12)) + 1
    vectors = vectors[:, :n_components]
    return vectors * np.sqrt(energies[:n_components]) if Z.shape[0] < Z.shape[1] else Z @ vectors


def energies(Z: np.ndarray) -> np.ndarray:
    """Return the squared singular values above rounding errors, in descending order."""
    return _kept(np.linalg.eigvalsh(_gram(Z)), max(Z.shape))[::-1]


def _eigen(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(_gram(X))
    kept = _kept(values, max(X.shape))
    return kept[::-1], vectors[:, len(values) - len(kept) :][:, ::-1]


def _gram(X: np.ndarray) -> np.ndarray:
    return X @ X.T if X.shape[0] < X.shape[1] else X.T @ X


def _kept(values: np.ndarray, size: int) -> np.ndarray:
    """Return the ascending eigenvalues that are above their rounding errors."""
    return values[values > values[-1] * size * np.finfo(float).eps] if values[-1] > 0 else values[:0]
