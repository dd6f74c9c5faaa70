"""What is watched: numbers whose values are known, and labels in all their forms."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from sktl.exceptions import TrainingWarning
from sktl.self_supervised import _monitor
from sktl.self_supervised._monitor import (
    class_numbers,
    effective_rank,
    feature_std,
    knn_accuracy,
    warn_of_collapse,
    watched_rows,
)


@pytest.fixture
def gaussian():
    """Features of 2,000 images that point into all of 16 directions."""
    return np.random.RandomState(0).randn(2000, 16)


def test_std(gaussian):
    """It is 1 for all directions, 0 for one, whatever the lengths, and zeros are no division by zero."""
    assert feature_std(gaussian) == pytest.approx(1, abs=0.02)
    assert feature_std(gaussian * np.arange(1, 2001)[:, np.newaxis]) == pytest.approx(feature_std(gaussian))
    assert feature_std(np.outer(np.arange(1, 9), np.ones(4))) == pytest.approx(0, abs=1e-7)
    assert feature_std(np.zeros((3, 4))) == 0


def test_effective_rank(gaussian):
    """It is the number of equal singular values, and 1 for a single direction or none."""
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(gaussian) == pytest.approx(16, abs=0.1)
    assert effective_rank(gaussian @ np.diag([1] * 4 + [0] * 12)) == pytest.approx(4, abs=0.05)
    assert effective_rank(np.outer(np.arange(1, 9), np.ones(4))) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 4))) == 1


def test_effective_rank_is_the_entropy_of_the_paper(gaussian):
    """RankMe: the exponential of the entropy of the normalized singular values."""
    values = np.sqrt(np.linalg.eigvalsh(gaussian.T @ gaussian))
    share = values / values.sum()
    assert effective_rank(gaussian) == pytest.approx(np.prod(share**-share))


def test_knn_accuracy():
    """It is scikit-learn's, of five neighbors by cosine, with each row left out in turn."""
    X, y = load_iris(return_X_y=True)
    X = X - X.mean(0) + 0.01 * np.random.RandomState(0).randn(*X.shape)  # no two rows are alike
    model = KNeighborsClassifier(5, metric="cosine")
    assert knn_accuracy(X, y) == pytest.approx(cross_val_score(model, X, y, cv=LeaveOneOut()).mean())
    assert knn_accuracy(np.eye(2), np.array([0, 1])) == 0  # the only other row has the other label


@pytest.mark.parametrize(
    ("y", "unlabeled", "expected"),
    [
        (["b", None, "a", "b"], None, [0, -1, 1, 0]),
        (np.array([2.0, np.nan, 5.0]), None, [0, -1, 1]),
        (pd.Series([1, None, 2], dtype="Int64"), None, [0, -1, 1]),
        (pd.Series(["x", pd.NA, "y"]), "y", [0, -1, -1]),
        ([-1, 0, 1, -1], -1, [-1, 0, 1, -1]),
        ([-1, 0, 1, -1], None, [0, 1, 2, 0]),
        (np.array([[1], [0]]), None, [0, 1]),
        (np.array([[1, 0], [0, 1]]), None, [-1, -1]),
        ([0.5, 1.0, 2.0], None, [-1, -1, -1]),
        ([True, False], None, [0, 1]),
    ],
    ids=["None", "NaN", "NA", "NA and a label", "marked", "not marked", "column", "columns", "numbers", "bool"],
)
def test_labels(y, unlabeled, expected):
    """Labels of any kind get numbers; what is missing, marked or not a label gets -1."""
    assert class_numbers(y, unlabeled).tolist() == expected


def test_which_rows_are_watched(make_table, monkeypatch):
    """A sample of all that labels do not change, and as many labeled ones, each once."""
    monkeypatch.setattr(_monitor, "N_WATCHED", 5)
    labels = np.array([None] * 17 + [1, 2, 1], dtype=object)
    table = make_table(np.random.RandomState(0).rand(20, 4, 4), np.zeros(20))
    rows, n_sample, numbers = watched_rows(table._replace(given=(None, labels)), None, seed=0)
    without = watched_rows(table._replace(given=(None, np.zeros(20))), None, seed=0)[0]
    assert n_sample == 5
    assert rows[:5].tolist() == without[:5].tolist()
    assert len(set(rows)) == len(rows) <= 8
    assert {row: number for row, number in zip(rows, numbers, strict=True) if number >= 0} == {17: 0, 18: 1, 19: 0}


@pytest.mark.parametrize(
    ("std", "rank", "collapsed"), [(0.05, 100, True), (0.5, 9, True), (0.5, 11, False)], ids=["std", "rank", "fine"]
)
def test_collapse(std, rank, collapsed, recwarn):
    """A small std or a rank below 2 % of the features is reported with what to change."""
    warn_of_collapse({"std": std, "effective_rank": rank}, 512, 10_000)
    assert [warning.category for warning in recwarn] == [TrainingWarning] * collapsed
    assert all("Use a smaller lr, a larger batch_size" in str(warning.message) for warning in recwarn)


def test_few_images_have_a_low_rank(recwarn):
    """Ten images span at most ten directions, which is no collapse."""
    warn_of_collapse({"std": 0.3, "effective_rank": 8.0}, 512, 10)
    assert not recwarn
