"""Distances to neighbors are those of scikit-learn, exact at 0, and do not depend on the other queries."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from sktl.anomaly import _neighbors
from sktl.anomaly._neighbors import cosine_distances, unit_rows


@pytest.fixture
def rows():
    """Rows (60, 33) with a few that occur twice."""
    rows = np.random.default_rng(0).gamma(1, size=(60, 33)).astype(np.float32)
    rows[50:55] = rows[:5]
    return rows


NEW = np.full(60, -1)


@pytest.mark.parametrize("k", [1, 2, 20, 59])
def test_cosine_distances_are_those_of_scikit_learn(rows, k):
    """The mean over the k nearest rows, with and without the row itself."""
    memory, queries = unit_rows(rows), unit_rows(rows[::-1] + np.float32(0.1))
    search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(rows.astype(np.float64))
    expected = search.kneighbors(queries.astype(np.float64))[0].mean(axis=1)
    np.testing.assert_allclose(cosine_distances(queries, memory, k, NEW), expected, rtol=1e-5, atol=1e-7)
    without = search.kneighbors()[0].mean(axis=1)  # scikit-learn leaves the rows themselves out
    np.testing.assert_allclose(cosine_distances(memory, memory, k, np.arange(60)), without, rtol=1e-5, atol=1e-7)


def test_many_neighbors_of_many_columns_are_searched_for_in_small_blocks(rows, monkeypatch):
    """The size of a block does not change a distance."""
    memory = unit_rows(rows)
    expected = cosine_distances(memory, memory, 20, np.arange(60))
    monkeypatch.setattr(_neighbors, "_DIFFERENCES", 7 * 28 * 33)
    np.testing.assert_array_equal(cosine_distances(memory, memory, 20, np.arange(60)), expected)
    monkeypatch.setattr(_neighbors, "_DIFFERENCES", 1)
    np.testing.assert_array_equal(cosine_distances(memory, memory, 20, np.arange(60)), expected)


def test_equal_rows_are_neighbors_at_distance_zero(rows):
    """A row is kept out by its number: another one that is equal to it still counts, with a distance of exactly 0."""
    memory = unit_rows(rows)
    distances = cosine_distances(memory, memory, 1, np.arange(60))
    twice = np.r_[:5, 50:55]
    assert (distances[twice] == 0).all()
    assert (np.delete(distances, twice) > 0).all()


def test_a_query_alone_has_its_distance_in_the_table(rows):
    """Bit for bit, since the sums that depend on the batch only find the neighbors."""
    memory, queries = unit_rows(rows), unit_rows(np.random.default_rng(1).gamma(1, size=(300, 33)))
    together = cosine_distances(queries, memory, 2, np.full(300, -1))
    alone = [cosine_distances(queries[i : i + 1], memory, 2, NEW[:1])[0] for i in range(300)]
    np.testing.assert_array_equal(together, alone)


def test_rows_of_zeros_stay_zeros():
    """A row without a direction does not become NaN."""
    np.testing.assert_array_equal(unit_rows(np.array([[0, 0], [3, 4]], np.float32)), np.float32([[0, 0], [0.6, 0.8]]))
