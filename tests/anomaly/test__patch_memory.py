"""Distances to the nearest patch: those of scikit-learn, exact at 0, with and without an image of the memory."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from sktl.anomaly._patch_memory import PatchMemory

BOUNDS = np.arange(0, 121, 10)  # twelve images of ten patches


def table(n, n_channels, seed):
    """Rows of which the channels are correlated, as those of a network are."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(9).standard_normal((20, n_channels))
    return (rng.gamma(1, size=(n, 20)) @ mixed + 0.01 * rng.standard_normal((n, n_channels))).astype(np.float32)


@pytest.mark.parametrize("n_channels", [4, 32, 100, 300])
def test_distances_are_those_of_scikit_learn(n_channels):
    """Along fewer axes than there are channels, the nearest patch is found all the same."""
    rows, queries = table(120, n_channels, 0), table(40, n_channels, 1)
    memory = PatchMemory(rows, BOUNDS)
    assert len(memory) == 120
    expected = NearestNeighbors(n_neighbors=1).fit(rows).kneighbors(queries)[0][:, 0]
    np.testing.assert_allclose(memory.distances(queries), expected, rtol=1e-3)
    assert (memory.distances(rows) == 0).all()


def test_an_image_is_left_out():
    """Its own patches are not neighbors, and equal ones of other images are, at a distance of exactly 0."""
    rows = table(120, 50, 0)
    rows[100] = rows[0]
    distances = PatchMemory(rows, BOUNDS).distances(rows[:10], image=0)
    np.testing.assert_allclose(distances, cdist(rows[:10], rows[10:]).min(axis=1), rtol=1e-3, atol=1e-6)
    assert distances[0] == 0
    assert (distances[1:] > 0).all()


def test_substitutes_replace_the_patches_of_an_image_that_is_left_out():
    """For this image alone: others have the patches that were kept."""
    rows, substitutes = table(120, 50, 0), table(120, 50, 1)
    memory = PatchMemory(rows, BOUNDS, substitutes)
    seen = rows.copy()
    seen[20:30] = substitutes[20:30]
    queries = np.concatenate([rows[20:25], substitutes[20:25]])
    np.testing.assert_allclose(
        memory.distances(queries, image=2), cdist(queries, seen).min(axis=1), rtol=1e-3, atol=1e-5
    )
    assert (memory.distances(queries, image=2)[5:] == 0).all()
    np.testing.assert_allclose(memory.distances(queries), cdist(queries, rows).min(axis=1), rtol=1e-3, atol=1e-5)


def test_equal_patches_have_no_axes():
    """Plain images give distances, and no error."""
    memory = PatchMemory(np.ones((20, 40), np.float32), np.arange(0, 21, 10))
    np.testing.assert_allclose(memory.distances(np.float32([[1.0] * 40, [2.0] * 40])), [0, 40**0.5], rtol=1e-6)
