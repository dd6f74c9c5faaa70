"""Distances of patches: those of slow loops, with and without the image that the patches come from."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sktl.anomaly._patch_scorers import PaDiM, PatchCore

SCORERS = {
    "all patches": lambda: PatchCore(10_000, seed=0),
    "core set": lambda: PatchCore(50, seed=0),
    "padim": lambda: PaDiM(5, seed=0),
}
NEW = np.full(4, -1)


@pytest.fixture
def patches():
    """Patches (20, 16, 8) of normal images, and those of four new ones."""
    patches = np.random.default_rng(0).gamma(2, size=(24, 16, 8)).astype(np.float32)
    return patches[:20], patches[20:]


@pytest.fixture(params=SCORERS)
def fitted(request, patches):
    """A scorer that has learned the normal images from blocks of unequal size."""
    scorer = SCORERS[request.param]()
    scorer.fit(iter(np.split(patches[0], [3, 10])), 20)
    return scorer


def test_all_patches_of_other_images_are_neighbors(patches):
    """If none has to be left out, PatchCore is a loop over images: the nearest patch of all, or of all other images."""
    normal, new = patches
    scorer = PatchCore(320, seed=0)
    scorer.fit([normal], 20)
    expected = [cdist(image, normal.reshape(-1, 8)).min(axis=1) for image in new]
    np.testing.assert_allclose(scorer.distances(new, NEW), expected, rtol=1e-5)
    without = [cdist(normal[i], np.delete(normal, i, axis=0).reshape(-1, 8)).min(axis=1) for i in range(20)]
    np.testing.assert_allclose(scorer.distances(normal, np.arange(20)), without, rtol=1e-5)


def test_plain_background_of_other_images_counts(patches):
    """A core set has one patch of a background; without its image, that of another image is as near: at distance 0."""
    normal = patches[0].copy()
    normal[:, :8] = 1
    for max_patches in (60, 10_000):
        scorer = PatchCore(max_patches, seed=0)
        scorer.fit([normal], 20)
        assert (scorer.distances(normal, np.arange(20))[:, :8] == 0).all()


def test_padim_is_a_gaussian_at_each_position(patches):
    """Mean and covariance of each position by a loop, with 0.01 on the diagonal, of the channels that were drawn."""
    normal, new = patches
    scorer = PaDiM(100, seed=0)
    scorer.fit([normal], 20)
    distances = scorer.distances(new, NEW)
    for position in range(16):
        mean, covariance = normal[:, position].mean(axis=0), np.cov(normal[:, position].T) + 0.01 * np.eye(8)
        expected = cdist(new[:, position], mean[np.newaxis], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0]
        np.testing.assert_allclose(distances[:, position], expected, rtol=1e-4)


def test_padim_does_not_lose_digits_far_from_zero(patches):
    """Neither far from zero nor in other blocks the distances change."""
    normal, new = (part + 1000 for part in patches)
    near, far = PaDiM(5, seed=0), PaDiM(5, seed=0)
    near.fit([normal - 1000], 20)
    far.fit(np.split(normal, 5), 20)
    np.testing.assert_allclose(far.distances(new, NEW), near.distances(new - 1000, NEW), rtol=1e-2)


def test_a_training_image_is_scored_without_itself(fitted, patches):
    """On average, its patches are as far as those of new images; as a new image it would be nearer."""
    normal, _ = patches
    new = np.random.default_rng(1).gamma(2, size=(200, 16, 8)).astype(np.float32)
    own = np.median(fitted.distances(normal, np.arange(20)))
    assert own == pytest.approx(np.median(fitted.distances(new, np.full(200, -1))), rel=0.1)
    assert np.median(fitted.distances(normal, np.full(20, -1))) < own


def test_an_image_alone_has_its_distances_in_the_table(fitted, patches):
    """New and known images are mixed, and each one has the distances that it has alone."""
    table, own = np.concatenate(patches), np.r_[:20, NEW]
    together = fitted.distances(table, own)
    alone = np.concatenate([fitted.distances(table[i : i + 1], own[i : i + 1]) for i in range(24)])
    np.testing.assert_allclose(together, alone, rtol=1e-7)


def test_the_memory_is_bounded(patches):
    """No more patches than allowed are kept, of which the first is one of the first image."""
    scorer = PatchCore(50, seed=0)
    scorer.fit([patches[0]], 20)
    assert scorer.n_patches == 50
    assert scorer.distances(patches[0], np.full(20, -1)).min(axis=1)[0] == 0


def test_the_seed_decides(patches):
    """Equal seeds give equal distances, others give other ones."""

    def distances(make):
        scorer = make()
        scorer.fit([patches[0]], 20)
        return scorer.distances(patches[1], NEW)

    for make in (lambda seed: PatchCore(10, seed), lambda seed: PaDiM(5, seed)):
        np.testing.assert_array_equal(distances(lambda: make(1)), distances(lambda: make(1)))
        assert (distances(lambda: make(1)) != distances(lambda: make(2))).any()
