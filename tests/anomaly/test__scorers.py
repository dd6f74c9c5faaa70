"""Scores of pooled features: those of a slow loop, and of models that have not learned from the row."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from sktl.anomaly._scorers import EstimatorScorer, GaussianScorer, NeighborScorer

SCORERS = {
    "knn": lambda: NeighborScorer(2),
    "mahalanobis": GaussianScorer,
    "estimator": lambda: EstimatorScorer(GaussianMixture(reg_covar=0.1, random_state=0)),
}
NEW = np.full(10, -1)


@pytest.fixture
def rows():
    """Features (50, 12) of normal images, and those of ten new ones."""
    rows = np.random.default_rng(0).gamma(2, size=(60, 12)).astype(np.float32)
    return rows[:50], rows[50:]


@pytest.fixture(params=SCORERS)
def fitted(request, rows):
    """A scorer that has learned the normal images from two blocks."""
    scorer = SCORERS[request.param]()
    scorer.fit(iter(np.split(rows[0], 2)), 50)
    return scorer


def test_distances_of_new_rows(rows):
    """Mean distance to two neighbors, Mahalanobis distance, and the negative score of the estimator."""
    normal, new = rows
    expected = {
        "knn": NearestNeighbors(n_neighbors=2, metric="cosine").fit(normal).kneighbors(new)[0].mean(axis=1),
        "mahalanobis": np.sqrt(LedoitWolf().fit(normal).mahalanobis(new)),
        "estimator": -GaussianMixture(reg_covar=0.1, random_state=0).fit(normal).score_samples(new),
    }
    for name, make in SCORERS.items():
        scorer = make()
        scorer.fit([normal], 50)
        np.testing.assert_allclose(scorer.distances(new, NEW), expected[name], rtol=1e-4)


def test_a_training_row_is_scored_without_itself(fitted, rows):
    """On average, training rows are as far as new rows of their kind; as new rows they would be nearer."""
    normal, _ = rows
    new = np.random.default_rng(1).gamma(2, size=(2000, 12)).astype(np.float32)
    own = np.median(fitted.distances(normal, np.arange(50)))
    assert own == pytest.approx(np.median(fitted.distances(new, np.full(2000, -1))), rel=0.15)
    assert np.median(fitted.distances(normal, np.full(50, -1))) < own


def test_a_row_alone_has_its_distance_in_the_table(fitted, rows):
    """New and known rows are mixed, and each one has the distance that it has alone, to 1e-7."""
    table, own = np.concatenate(rows), np.concatenate([np.arange(50), NEW])
    together = fitted.distances(table, own)
    alone = [fitted.distances(table[i : i + 1], own[i : i + 1])[0] for i in range(60)]
    np.testing.assert_allclose(together, alone, rtol=1e-7)


def test_rows_that_are_all_equal_have_distance_zero():
    """A network that sees no differences gives no error."""
    rows = np.ones((10, 4), np.float32)
    for scorer in (NeighborScorer(2), GaussianScorer()):
        scorer.fit([rows], 10)
        assert (scorer.distances(rows, np.arange(10)) == 0).all()
        assert (scorer.distances(rows + np.float32([0, 1, 0, 0]), NEW) > 0).all()


def test_an_estimator_is_cloned(rows):
    """The one that was passed stays unfitted, and the fitted one has learned from all rows."""
    scorer = EstimatorScorer(given := GaussianMixture(random_state=0))
    scorer.fit([rows[0]], 50)
    assert not hasattr(given, "means_")
    np.testing.assert_allclose(scorer.fitted.means_[0], rows[0].mean(axis=0), rtol=1e-5)
