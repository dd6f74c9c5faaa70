"""The linear probe against scikit-learn's own cross-validation, and where that one fails."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl.exceptions import InputError
from sktl.selection import probe_score
from sktl.selection._linear_probe import _folds


def test_classes_equal_scikit_learns_cross_validation():
    """With the same folds, of equal size: the mean accuracy."""
    X, y = load_iris(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    expected = cross_val_score(model, X, y, cv=folds).mean()
    assert probe_score(X, y, cv=folds, C=0.1) == pytest.approx(expected, rel=1e-12)
    assert probe_score(X, y, cv=list(folds.split(X, y)), C=0.1) == pytest.approx(expected, rel=1e-12)
    assert probe_score(X, y) == pytest.approx(expected, abs=0.05)


def test_targets_equal_scikit_learns_cross_validation():
    """R² of all held-out rows together, the mean over several targets."""
    X, y = load_diabetes(return_X_y=True)
    folds = KFold(4, shuffle=True, random_state=1)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 5, 17)))
    Y = np.column_stack([y, y**2])
    for target in (y, Y):
        scaled = target / np.abs(target).max(axis=0)
        expected = r2_score(scaled, cross_val_predict(model, X, scaled, cv=folds))
        assert probe_score(X, target, task="regression", cv=folds) == pytest.approx(expected, rel=1e-6)
    assert probe_score(X, Y + 0.5) == pytest.approx(expected, abs=0.05)
    assert (
        probe_score(X, y) < 0.1 < probe_score(X, y, task="regression")
    )  # whole numbers are classes, if nothing is said


@pytest.mark.parametrize(("counts", "n_folds"), [([10, 10, 10], 5), ([23, 7, 1], 5), ([1, 1, 2], 3), ([4, 3], 2)])
def test_folds(counts, n_folds):
    """Each row is held out once; folds, and a class's rows in them, differ by one row at most."""
    codes = np.random.RandomState(0).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = list(_folds(codes, n_folds, np.random.RandomState(0)))
    assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(codes)))
    for train, test in folds:
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(codes)))
    for which in [np.ones(len(codes), dtype=bool), *(codes == k for k in range(len(counts)))]:
        held = [which[test].sum() for _, test in folds]
        assert max(held) - min(held) <= 1


def test_folds_are_shuffled_by_the_seed():
    """Rows in order are dealt out at random, the same way each time."""
    codes = np.zeros(40, dtype=int)
    first, again, other = ([test.tolist() for _, test in _folds(codes, 4, np.random.RandomState(s))] for s in (0, 0, 1))
    assert first == again != other
    assert sorted(first[0]) != list(range(0, 40, 4))


def test_classes_with_fewer_rows_than_folds():
    """A class's only row cannot be known when it is held out; the others are. scikit-learn's folds warn or fail."""
    X = np.vstack([np.zeros((10, 2)), np.ones((10, 2)), [[5.0, -5.0]]]) + 0.01 * np.random.RandomState(0).rand(21, 2)
    y = np.array(["a"] * 10 + ["b"] * 10 + ["c"])
    assert probe_score(X, y) == pytest.approx(20 / 21)
    # Where one class is left to learn from, it is what is predicted: three of four are right.
    assert probe_score(X[:4], ["a", "a", "a", "b"]) == 0.75
    assert probe_score(X[:2], ["a", "b"]) == 0
    assert probe_score(X[:3], ["a", "b", "c"]) == 0


def test_a_regression_that_does_not_converge_is_no_news(monkeypatch):
    """It is stopped, and its score is given without a warning."""
    monkeypatch.setattr("sktl.selection._linear_probe._MAX_ITER", 3)
    X, y = load_iris(return_X_y=True)
    assert 0.7 < probe_score(X, y) < 1


def test_few_rows_of_a_regression():
    """Two rows in two folds have an R² all the same."""
    assert np.isfinite(probe_score([[0.0], [1.0]], [0.5, 1.0]))
    assert np.isfinite(probe_score(np.eye(3), [0.5, 1.0, 2.0]))


def test_it_is_repeatable():
    """The same folds each time, others with another seed; with a seed the global generator is not asked."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 10)), random.integers(0, 3, 60)
    before = repr(np.random.get_state())  # noqa: NPY002, the global one is what is watched
    scores = [probe_score(X, y, random_state=seed) for seed in (0, 0, 1, 2, 3)]
    assert scores[0] == scores[1] == probe_score(X, y)
    assert len(set(scores)) > 1
    target = X[:, 0] + random.normal(size=60)
    assert probe_score(X, target) == probe_score(X, target, random_state=0) != probe_score(X, target, random_state=1)
    assert repr(np.random.get_state()) == before  # noqa: NPY002
    assert len({probe_score(X, y, random_state=None) for _ in range(5)}) > 1


@pytest.mark.parametrize("parameters", [{"cv": 1}, {"C": 0}, {"task": "ranking"}, {"random_state": -1}])
def test_parameters_are_checked(parameters):
    """An error names the parameter."""
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of probe_score must be"):
        probe_score(np.eye(4), [0, 0, 1, 1], **parameters)


@pytest.mark.parametrize("cv", [4, GroupKFold(4)])
def test_near_copies_are_held_out_together(cv):
    """Labels of chance are known from near-copies; with groups they are not. A splitter is given the groups too."""
    random = np.random.default_rng(0)
    originals = np.repeat(np.arange(40), 4)
    X = random.normal(size=(40, 100))[originals] + 0.01 * random.normal(size=(160, 100))
    y = (np.arange(40) % 2)[originals]
    assert probe_score(X, y) > 0.95
    assert probe_score(X, y, cv=cv, groups=[f"original {number}" for number in originals]) < 0.75
    target = random.normal(size=40)[originals]
    assert probe_score(X, target) > 0.5
    assert probe_score(X, target, cv=cv, groups=originals) < 0.25


def test_groups_that_cannot_be_folds():
    """One group has no other to learn from; a table has a group for each row."""
    with pytest.raises(InputError, match="must have at least two groups"):
        probe_score(np.eye(4), [0, 0, 1, 1], groups=["a"] * 4)
    with pytest.raises(InputError, match="one entry for each of the 4 images"):
        probe_score(np.eye(4), [0, 0, 1, 1], groups=["a", "a", "b"])
