"""The core set is that of the plain greedy loop, with fewer passes over the points."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from sktl.anomaly import _core_set
from sktl.anomaly._core_set import greedy_core_set, random_projection


def slow_core_set(points, n):
    """One center at a time: the point that is farthest from the centers before it."""
    centers = [0]
    while len(centers) < n:
        centers.append(int(cdist(points, points[centers]).min(axis=1).argmax()))
    return centers


@pytest.mark.parametrize("shortlist", [1, 3, 40, 512])
@pytest.mark.parametrize("n", [1, 2, 30, 299])
def test_it_is_the_greedy_choice(monkeypatch, shortlist, n):
    """Center for center, however many of them are found in one pass."""
    monkeypatch.setattr(_core_set, "_SHORTLIST", shortlist)
    points = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    centers, _ = greedy_core_set(points, n, np.arange(300))
    np.testing.assert_array_equal(centers, slow_core_set(points, n))


def test_substitutes_are_the_nearest_points_of_other_groups():
    """As a loop over the centers finds them."""
    points = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    groups = np.sort(np.random.default_rng(1).integers(0, 7, 60))
    centers, substitutes = greedy_core_set(points, 25, groups)
    for center, substitute in zip(centers, substitutes, strict=True):
        others = np.flatnonzero(groups != groups[center])
        assert substitute == others[cdist(points[[center]], points[others])[0].argmin()]


def test_equal_points_have_one_center():
    """Repeated points are chosen last: before them, all different ones are."""
    different = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    points = np.repeat(different, 10, axis=0)
    centers, _ = greedy_core_set(points, 20, np.repeat(np.arange(20), 10))
    assert len(np.unique(points[centers], axis=0)) == 20


def test_a_random_projection_keeps_distances():
    """To about a tenth, in 64 dimensions."""
    points = np.random.default_rng(0).standard_normal((50, 500)).astype(np.float32)
    projected = points @ random_projection(500, 64, np.random.default_rng(1))
    assert projected.dtype == np.float32
    ratio = pdist(projected) / pdist(points)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.12
