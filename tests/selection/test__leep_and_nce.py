"""LEEP, NCE and N-LEEP against loops over rows and classes, and worked values."""

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score
from sklearn.mixture import GaussianMixture

from sktl.selection import leep_score, nce_score, nleep_score


def slow_leep(P, y):
    """The definition as it is written, with source classes of no probability left out."""
    n = len(y)
    total = 0.0
    for i in range(n):
        likelihood = 0.0
        for z in range(len(P[0])):
            marginal = sum(P[j][z] for j in range(n)) / n
            joint = sum(P[j][z] for j in range(n) if y[j] == y[i]) / n
            if marginal > 0:
                likelihood += P[i][z] * joint / marginal
        total += math.log(likelihood)
    return total / n


def slow_nce(source, y):
    """Minus the conditional entropy, pair by pair."""
    n, pairs, totals = len(y), Counter(zip(source, y, strict=True)), Counter(source)
    return sum(count / n * math.log(count / totals[z]) for (z, _), count in pairs.items())


def entropy(y):
    shares = np.unique(y, return_counts=True)[1] / len(y)
    return float(-(shares * np.log(shares)).sum())


def probabilities(n, n_source, seed=0):
    """Rows that sum to 1; the last source class has no probability."""
    P = np.random.default_rng(seed).dirichlet(np.full(n_source, 0.5), size=n)
    P[:, -1] = 0
    return P / P.sum(axis=1, keepdims=True)


def test_leep_equals_a_slow_loop():
    """With gaps in the labels, and a source class without probability, where the authors' program gives NaN."""
    P, y = probabilities(20, 6), [5, 5, 9, 2] * 5
    assert leep_score(P, y) == pytest.approx(slow_leep(P.tolist(), y), rel=1e-12)
    assert leep_score(P, y) == pytest.approx(leep_score(P[:, :-1], [str(label) for label in y]), rel=1e-12)


def test_leep_of_heads_that_say_all_or_nothing():
    """A head that knows the classes gives 0, one that says the same of all rows minus their entropy."""
    y = np.repeat([0, 1, 2], [10, 20, 30])
    assert leep_score(np.eye(5)[y], y) == 0
    assert leep_score(np.full((60, 5), 0.2), y) == pytest.approx(-entropy(y), rel=1e-12)
    balanced = np.arange(60) % 3
    assert leep_score(np.full((60, 5), 0.2), balanced) == pytest.approx(-math.log(3), rel=1e-12)


def test_leep_takes_probabilities_in_half_precision():
    """Their sums are off by some thousandths, and they are divided by them."""
    P, y = probabilities(50, 20), np.arange(50) % 3
    half = P.astype(np.float16)
    assert np.abs(half.astype(float).sum(axis=1) - 1).max() > 1e-5
    assert leep_score(half, y) == pytest.approx(leep_score(P, y), abs=1e-3)
    assert leep_score(np.eye(3)[y] * 0.999, y) == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            [2.0, -1.0, 0.0],
            r"Got 1 of 4 rows that do not, such as row 1 with a minimum of -1 and a sum of 1\..*softmax",
        ),
        ([1.5, 0.5, 0.5], "row 1 with a minimum of 0.5 and a sum of 2.5"),
        ([0.0, 0.0, 0.0], "a minimum of 0 and a sum of 0"),
        ([np.nan, 0.5, 0.5], "source_probabilities has NaN"),
    ],
)
def test_leep_refuses_what_is_no_probability(row, message):
    """Logits are the likeliest mistake: an error says so."""
    P = np.full((4, 3), 1 / 3)
    P[1] = row
    with pytest.raises(ValueError, match=message):
        leep_score(P, [0, 0, 1, 1])


def test_nce_equals_a_slow_loop():
    """Also with gaps and strings in both; and what information theory says of it."""
    random = np.random.default_rng(0)
    source, y = random.integers(0, 4, 60), random.integers(0, 3, 60)
    expected = slow_nce(source.tolist(), y.tolist())
    assert nce_score(source, y) == pytest.approx(expected, rel=1e-12)
    assert nce_score([f"s{3 * z}" for z in source], [f"y{7 * c}" for c in y]) == pytest.approx(expected, rel=1e-12)
    assert nce_score(source, y) == pytest.approx(mutual_info_score(source, y) - entropy(y), rel=1e-9)


def test_nce_is_leep_of_a_certain_head():
    """Two functions that have nothing in common agree."""
    random = np.random.default_rng(1)
    source, y = random.integers(0, 6, 80), random.integers(0, 3, 80)
    assert nce_score(source, y) == pytest.approx(leep_score(np.eye(6)[source], y), rel=1e-12)


def test_nce_by_hand():
    """One source class is pure; of the other, with half of the rows, y is even: half of log 2 is left."""
    assert nce_score([1, 1, 8, 8], ["a", "b", "a", "a"]) == pytest.approx(-0.5 * math.log(2), rel=1e-12)
    assert nce_score([1, 1, 8, 8], ["b", "b", "a", "a"]) == 0
    assert nce_score([4, 4, 4, 4], ["b", "b", "a", "a"]) == pytest.approx(-math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    ("source", "y", "message"),
    [
        ([1, 2, 3], [0, 0, 1, 1], r"source_labels and y must have the same length\. Got 3 rows and 4 labels"),
        ([1.0, 2.0, np.nan, 1.0], [0, 0, 1, 1], r"source_labels has missing values \(1 of 4\)"),
        ([1, 2, 3, 3], [4, 4, 4, 4], "y has only one class"),
        (np.eye(4), [0, 0, 1, 1], "1d array"),
        (np.array(["a", 1, 2, "a"], object), [0, 0, 1, 1], r"source_labels has labels of types .*int.*str.* strings"),
    ],
)
def test_nce_refuses(source, y, message):
    """An error says what came."""
    with pytest.raises(ValueError, match=message):
        nce_score(source, y)


def test_nleep_is_leep_of_a_mixture():
    """scikit-learn's own components and mixture, and the loop; the least variance apart, which is relative here."""
    X, y = load_iris(return_X_y=True)
    Z = PCA(n_components=0.8, svd_solver="full").fit_transform(X)
    posteriors = GaussianMixture(15, random_state=3).fit(Z / Z.std()).predict_proba(Z / Z.std())
    expected = slow_leep(posteriors.tolist(), y.tolist())
    # One component is kept, whose sign is arbitrary: the clusters start at the same rows.
    assert nleep_score(X, y, random_state=3) == pytest.approx(expected, abs=1e-6)
    assert nleep_score(X, y, n_components=15, random_state=3) == pytest.approx(expected, abs=1e-6)
    assert nleep_score(X, y, n_components=14, random_state=3) != pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("n", "n_classes", "n_clusters"), [(150, 3, 15), (100, 3, 10), (30, 5, 5), (20, 2, 2)])
def test_nleep_takes_fewer_clusters_for_few_rows(n, n_classes, n_clusters):
    """Five per class, but a tenth of the rows or one per class where that is less."""
    X, y = np.random.default_rng(0).normal(size=(n, 4)), np.arange(n) % n_classes
    assert nleep_score(X, y) == nleep_score(X, y, n_components=n_clusters)
    assert nleep_score(X, y) != nleep_score(X, y, n_components=n_clusters + 1)


def test_nleep_has_no_more_clusters_than_different_rows():
    """Three different rows give three clusters, and no warning."""
    X, y = np.repeat([[0.0, 1.0], [5.0, 5.0], [9.0, 0.0]], 10, axis=0), np.repeat([0, 1, 1], 10)
    assert nleep_score(X, y, n_components=12) == 0
    assert nleep_score(X, np.arange(30) % 2, n_components=12) == pytest.approx(-math.log(2), rel=1e-6)
    assert nleep_score(X[::10], [0, 1, 1], n_components=12) == 0


def test_nleep_of_clusters_that_fall_together_has_no_warning():
    """The principal components that are kept have two different rows only, and clusters are asked for ten."""
    y = np.arange(100) % 2
    X = np.column_stack([100.0 * y, np.random.default_rng(0).normal(size=100)])
    assert nleep_score(X, y) == pytest.approx(0, abs=1e-12)


def test_nleep_is_repeatable():
    """The same number each time, another with another seed; with a seed the global generator is not asked."""
    X, y = np.random.default_rng(0).normal(size=(100, 5)), np.arange(100) % 2
    before = repr(np.random.get_state())  # noqa: NPY002, the global one is what is watched
    assert nleep_score(X, y) == nleep_score(X, y)
    assert nleep_score(X, y) != nleep_score(X, y, random_state=1)
    assert repr(np.random.get_state()) == before  # noqa: NPY002
    assert len({nleep_score(X, y, random_state=None) for _ in range(3)}) > 1
    assert nleep_score(X, y, covariance_type="diag") != nleep_score(X, y)
