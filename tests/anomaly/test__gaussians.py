"""Mahalanobis distances, and what they would be without a row."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance, LedoitWolf

from sktl.anomaly._gaussians import left_out, squared_distances, whitening


@pytest.fixture
def rows():
    """Correlated rows (40, 6)."""
    rng = np.random.default_rng(0)
    return 5 + rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6))


def model(rows, weight, ridge):
    """Mean and covariance, in the plainest way."""
    centered = rows - rows.mean(axis=0)
    return rows.mean(axis=0), weight * centered.T @ centered / len(rows) + ridge


def test_distances_are_those_of_scikit_learn(rows):
    """One group of rows, and several at once."""
    estimator = EmpiricalCovariance().fit(rows)
    factor = whitening(estimator.covariance_)
    expected = estimator.mahalanobis(rows)
    np.testing.assert_allclose(squared_distances(rows, estimator.location_, factor), expected, rtol=1e-4)
    means, factors = np.stack([estimator.location_] * 2), np.stack([factor] * 2)
    groups = squared_distances(np.stack([rows, rows[::-1]]), means, factors)
    np.testing.assert_allclose(groups, [expected, expected[::-1]], rtol=1e-4)


@pytest.mark.parametrize("weight", [1.0, 0.7, 40 / 39])
@pytest.mark.parametrize("ridge", [0.1, 3.0])
def test_without_a_row_is_a_fit_without_it(rows, weight, ridge):
    """The formula is that of models which are fitted again, each without one row, by a slow loop."""
    n, ridge = len(rows), ridge * np.diag(np.arange(1, 7))
    mean, covariance = model(rows, weight, ridge)
    found = left_out(np.einsum("ni,ij,nj->n", rows - mean, np.linalg.inv(covariance), rows - mean), n, weight)
    for i in range(n):
        mean, covariance = model(np.delete(rows, i, axis=0), weight, ridge * n / (n - 1))
        centered = rows[i] - mean
        assert found[i] == pytest.approx(centered @ np.linalg.inv(covariance) @ centered, rel=1e-9)


def test_it_is_close_to_ledoit_and_wolf_without_a_row():
    """Their shrinkage, which is kept, moves little; the distances of a model that knows the rows are far off."""
    rows = np.random.default_rng(1).standard_normal((40, 60)) * np.linspace(0.1, 2, 60)
    estimator = LedoitWolf().fit(rows)
    known = estimator.mahalanobis(rows)
    expected = [LedoitWolf().fit(np.delete(rows, i, axis=0)).mahalanobis(rows[i : i + 1])[0] for i in range(40)]
    found = left_out(known, 40, 1 - estimator.shrinkage_)
    assert np.abs(found / expected - 1).max() < 0.1
    assert np.median(known / expected) < 0.7


def test_a_row_that_spans_a_direction_alone_is_far(rows):
    """The distance cannot become negative or infinite by rounding."""
    assert np.isfinite(left_out(np.array([39.0, 39.1]), 40, 1.0)).all()
    assert (left_out(np.array([39.0, 39.1]), 40, 1.0) > 1e6).all()
