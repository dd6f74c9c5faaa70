"""What a table of features looks like along its principal directions, by the smaller of its two Gram matrices."""

from typing import NamedTuple

import numpy as np
from scipy import sparse


class Spectrum(NamedTuple):
    """The thin singular value decomposition ``X = U · diag(s) · Vᵀ``, as far as the scores need it.

    Attributes
    ----------
    energies : ndarray of shape (rank,)
        Squares of the singular values, the largest first.
    projections : ndarray of shape (rank, n_columns)
        ``Uᵀ · Y`` of the columns that were asked for.
    """

    energies: np.ndarray
    projections: np.ndarray


def spectrum(X: np.ndarray, Y: np.ndarray | sparse.csr_array) -> Spectrum:
    """Decompose features once for all columns of a table.

    Parameters
    ----------
    X : ndarray of shape (n, n_features)
        Features, of magnitudes near 1.
    Y : ndarray or sparse array of shape (n, n_columns)
        What is projected on the left singular vectors.

    Returns
    -------
    spectrum : Spectrum
        Energies and projections.

    Notes
    -----
    The eigenvectors of the smaller Gram matrix cost ``min(n, n_features)³``, the matrix itself ``n · n_features ·
    min(n, n_features)``; a full decomposition costs up to ``max(n, n_features)³``. The price is that directions whose
    singular value is below about 1e-7 of the largest are lost in rounding, and are left out.
    """
    energies, vectors = _eigen(X)
    if X.shape[0] < X.shape[1]:  # the vectors are U
        return Spectrum(energies, (Y.T @ vectors).T)
    return Spectrum(energies, vectors.T @ (Y.T @ X).T / np.sqrt(energies)[:, None])  # they are V


def principal_components(Z: np.ndarray, n_components: int | float) -> np.ndarray:
    """Coordinates of rows along their principal directions.

    Parameters
    ----------
    Z : ndarray of shape (n, n_features)
        Centred features, of magnitudes near 1.
    n_components : int or float
        How many directions at most, or the share of the variance that those kept must have, as in `PCA`.

    Returns
    -------
    coordinates : ndarray of shape (n, n_kept)
        The first one varies most. Without any variance there are no columns.
    """
    energies, vectors = _eigen(Z)
    if isinstance(n_components, float):
        # The last direction that is needed is the first at which the share is reached, rounding apart.
        share = np.cumsum(energies) / energies.sum() if len(energies) else energies
        n_components = int(np.searchsorted(share, n_components - 1e-12)) + 1
    vectors = vectors[:, :n_components]
    return vectors * np.sqrt(energies[:n_components]) if Z.shape[0] < Z.shape[1] else Z @ vectors


def energies(Z: np.ndarray) -> np.ndarray:
    """Squares of the singular values that are not lost in rounding, the largest first."""
    return _kept(np.linalg.eigvalsh(_gram(Z)), max(Z.shape))[::-1]


def _eigen(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(_gram(X))
    kept = _kept(values, max(X.shape))
    return kept[::-1], vectors[:, len(values) - len(kept) :][:, ::-1]


def _gram(X: np.ndarray) -> np.ndarray:
    return X @ X.T if X.shape[0] < X.shape[1] else X.T @ X


def _kept(values: np.ndarray, size: int) -> np.ndarray:
    """Of ascending eigenvalues those above their rounding errors."""
    return values[values > values[-1] * size * np.finfo(float).eps] if values[-1] > 0 else values[:0]
