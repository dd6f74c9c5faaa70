"""The start of an autoencoder against scikit-learn's PCA, with weights and without all entries."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sktl.autoencoders._start import start_from
from sktl.exceptions import InputError


@pytest.fixture
def table():
    """Forty rows of nine columns whose directions have very different sizes."""
    generator = np.random.default_rng(0)
    return 5 + generator.normal(size=(40, 9)) @ np.diag(np.arange(1, 10)) @ generator.normal(size=(9, 9))


@pytest.mark.parametrize("n_rows", [40, 6])
def test_the_axes_are_those_of_pca(table, n_rows):
    """Signs included, if there are more rows than columns and if there are fewer; so are the deviations along them."""
    rows = table[:n_rows]
    start, pca = start_from(rows, np.ones(n_rows), 4), PCA(4).fit(rows)
    np.testing.assert_allclose(start.axes, pca.components_, atol=1e-9)
    np.testing.assert_allclose(start.mean, pca.mean_)
    assert start.scale == pytest.approx(np.sqrt(rows.var(0).mean()))
    spread = np.sqrt(pca.explained_variance_ * (n_rows - 1) / n_rows) / start.scale
    np.testing.assert_allclose(start.spread, spread)


def test_a_weight_is_a_number_of_copies(table):
    """Rows of weight 3 and rows that are there three times give the same start."""
    weight = np.where(np.arange(40) % 2, 3.0, 1.0)
    repeated = np.repeat(table, weight.astype(int), axis=0)
    for own, other in zip(start_from(table, weight, 5), start_from(repeated, np.ones(len(repeated)), 5), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-9)


def test_missing_entries_are_left_out(table):
    """Mean and scale are those of the observed entries; the axes are those of the table filled with damped means."""
    table[np.random.default_rng(1).random(table.shape) < 0.3] = np.nan
    start = start_from(table, np.ones(40), 3)
    np.testing.assert_allclose(start.mean, np.nanmean(table, axis=0))
    assert start.scale == pytest.approx(np.sqrt(np.nanmean(np.square(table - start.mean))))
    assert start.n_observed == pytest.approx((~np.isnan(table)).sum(1).mean())
    deviation = np.nansum(table - start.mean, axis=1) / ((~np.isnan(table)).sum(1) + start.damping)
    filled = np.where(np.isnan(table), start.mean + deviation[:, np.newaxis], table)
    np.testing.assert_allclose(start.axes, PCA(3).fit(filled).components_, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_the_damping_is_that_of_variance_components(share):
    """It is the ratio of the variances that the table was made with; with nothing in common, it is large."""
    generator = np.random.default_rng(0)
    own = generator.normal(size=(3000, 1))
    X = np.sqrt(share) * own + np.sqrt(1 - share) * generator.normal(size=(3000, 12))
    X[generator.random(X.shape) < 0.4] = np.nan
    damping = start_from(X, np.ones(3000), 0).damping
    if share:
        assert damping == pytest.approx((1 - share) / share, rel=0.1)
    else:
        assert damping > 100


def test_a_column_without_entries_has_the_mean_of_all(table):
    """Only held-out rows may have entries in it: nothing is divided by zero."""
    table[:, 2] = np.nan
    start = start_from(table, np.ones(40), 3)
    assert start.mean[2] == pytest.approx(np.nanmean(table))
    np.testing.assert_allclose(start.axes[:, 2], 0, atol=1e-12)


def test_axes_without_variance_are_zero():
    """Three different rows have two directions: the third axis is zero and its deviation one, so nothing overflows."""
    rows = np.array([[0.0, 0, 0, 0], [1, 1, 0, 0], [0, 2, 1, 0]])
    start = start_from(rows, np.ones(3), 3)
    np.testing.assert_allclose(start.axes[2], 0, atol=1e-6)
    assert start.spread[2] == 1
    equal = start_from(np.ones((3, 4)), np.ones(3), 2)
    assert equal.scale == 1
    assert np.isfinite(equal.axes).all()


def test_a_large_mean_costs_no_precision(table):
    """A column of a billion plus small differences has the axes that the differences have."""
    moved = start_from(table + 1e9, np.ones(40), 3)
    np.testing.assert_allclose(moved.axes, start_from(table, np.ones(40), 3).axes, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-200, 1e-40, 1e40, 1e200])
def test_units_outside_of_float32(table, scale):
    """The error says what to do; units within the range are only a factor."""
    with pytest.raises(InputError, match=r"standard deviation of X must be between 1e-30 and 1e\+30.*StandardScaler"):
        start_from(table * scale, np.ones(40), 3)
    near = scale ** (25 / abs(np.log10(scale)))
    np.testing.assert_allclose(start_from(table * near, np.ones(40), 3).axes, start_from(table, np.ones(40), 3).axes)
