"""The decomposition by the smaller Gram matrix against NumPy's singular value decomposition."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.decomposition import PCA

from sktl.selection._principal_components import energies, principal_components, spectrum


def drawn(n, d, rank=None, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) if rank is None else random.normal(size=(n, rank)) @ random.normal(size=(rank, d))


@pytest.mark.parametrize(
    ("n", "d", "rank"), [(30, 5, None), (5, 30, None), (8, 8, None), (30, 12, 4), (12, 30, 4), (9, 1, None)]
)
def test_it_is_the_singular_value_decomposition(n, d, rank):
    """Energies, and lengths of what is projected, for more rows, more features, and missing directions."""
    X, Y = drawn(n, d, rank), drawn(n, 3, seed=1)
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    kept = rank or min(n, d)
    found = spectrum(X, Y)
    assert_allclose(found.energies, s[:kept] ** 2, rtol=1e-9)
    assert_allclose(found.projections**2, (U.T @ Y)[:kept] ** 2, atol=1e-9)
    assert_allclose(energies(X), s[:kept] ** 2, rtol=1e-9)
    assert_allclose(spectrum(X, sparse.csr_array(Y)).projections ** 2, found.projections**2, atol=1e-12)


def test_directions_that_are_lost_in_rounding_are_left_out():
    """A direction of 1e-9 is none, one of 1e-5 is one; without any variance there are none."""
    U, _ = np.linalg.qr(drawn(40, 3))
    for least, n_kept in ((1e-5, 3), (1e-9, 2)):
        assert len(energies(U * [1, 0.1, least])) == n_kept
    assert spectrum(np.zeros((4, 3)), np.ones((4, 2))).projections.shape == (0, 2)
    assert principal_components(np.zeros((4, 3)), 0.8).shape == (4, 0)
    assert principal_components(np.zeros((4, 3)), 2).shape == (4, 0)


@pytest.mark.parametrize(("n", "d"), [(30, 6), (6, 30)])
@pytest.mark.parametrize("n_components", [2, 0.8, 0.999])
def test_principal_components(n, d, n_components):
    """They are scikit-learn's, but for signs, by number and by share."""
    Z = drawn(n, d)
    Z -= Z.mean(axis=0)
    expected = PCA(n_components, svd_solver="full").fit_transform(Z)
    found = principal_components(Z, n_components)
    assert found.shape == expected.shape
    assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
