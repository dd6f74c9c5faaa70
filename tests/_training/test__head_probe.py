"""Linear probes, against scikit-learn's own pipeline."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from sktl._training import _head_probe as _probe
from sktl._training._head_probe import PENALTIES, PROBE_PENALTY, classification_probe, probe_rows, regression_probe

N_FEATURES = 6


def features(n=40, seed=0):
    """Features of very different scales and means."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, N_FEATURES)) * [1, 10, 0.01, 3, 1, 100] + [0, 5, 1, -30, 0, 1000]


def weights(n=40):
    return np.random.default_rng(1).uniform(1, 4, n)


def labels(n, n_classes):
    return np.random.default_rng(2).permutation(np.arange(n) % n_classes)


def logits(probe, x):
    return x @ probe.weight.T + probe.bias


def expected_classifier(x, y, weight):
    scaler = StandardScaler().fit(x, sample_weight=weight)
    model = LogisticRegression(C=1 / PROBE_PENALTY, max_iter=10_000, tol=1e-8)
    model.fit(scaler.transform(x), y, sample_weight=weight)
    return lambda rows: model.predict_proba(scaler.transform(rows))


def softmax(values):
    values = np.exp(values - values.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_classification_is_scikit_learns(n_classes, weighted):
    """Probabilities are those of StandardScaler and LogisticRegression, on rows that were not fitted as well."""
    x, y = features(), labels(40, n_classes)
    weight = weights() if weighted else np.ones(40)
    probe = classification_probe(x, y, weight, n_classes)
    assert probe.weight.shape == (n_classes, N_FEATURES)
    assert probe.bias.shape == (n_classes,)
    new = features(20, seed=3)
    np.testing.assert_allclose(softmax(logits(probe, new)), expected_classifier(x, y, weight)(new), atol=1e-3)


def test_two_classes_are_symmetrical():
    """What speaks for one class speaks as much against the other."""
    probe = classification_probe(features(), labels(40, 2), weights(), 2)
    np.testing.assert_allclose(probe.weight[0], -probe.weight[1], rtol=1e-12)
    np.testing.assert_allclose(probe.bias[0], -probe.bias[1], rtol=1e-9)
    assert np.abs(probe.weight).max() > 0


@pytest.mark.parametrize("present", [(1, 4), (0, 2, 4)])
def test_absent_classes_get_zero(present):
    """Classes without rows have logits of zero, and the others those of a probe of their own."""
    x, y = features(), labels(40, len(present))
    probe = classification_probe(x, np.array(present)[y], np.ones(40), 5)
    alone = classification_probe(x, y, np.ones(40), len(present))
    absent = sorted({0, 1, 2, 3, 4} - set(present))
    np.testing.assert_allclose(logits(probe, x)[:, list(present)], logits(alone, x))
    np.testing.assert_array_equal(logits(probe, x)[:, absent], 0)


def test_one_class_alone():
    """A table of one class says nothing: all logits are zero."""
    probe = classification_probe(features(), np.full(40, 2), np.ones(40), 3)
    assert not probe.weight.any()
    assert not probe.bias.any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_regression_is_scikit_learns(n_targets, weighted):
    """Predictions are those of StandardScaler and Ridge, with the penalty that left-out rows choose for each target."""
    x, weight = features(), weights() if weighted else np.ones(40)
    y = np.random.default_rng(4).normal(size=(40, n_targets)) + x[:, :1] - 0.1 * x[:, 1:2]
    probe = regression_probe(x, y, weight)
    assert probe.weight.shape == (n_targets, N_FEATURES)
    assert probe.bias.shape == (n_targets,)
    scaler = StandardScaler().fit(x, sample_weight=weight)
    x, new = scaler.transform(x), scaler.transform(features(20, seed=3))
    expected = np.column_stack([best_ridge(x, column, weight, np.arange(40)).predict(new) for column in y.T])
    np.testing.assert_allclose(logits(probe, features(20, seed=3)), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("group", [np.arange(40) // 4, np.arange(40) % 2, np.minimum(np.arange(40), 9)])
def test_groups_are_left_out_whole(group):
    """With groups of any size the penalty is the one that refits without each group choose, and errors are theirs."""
    x, weight = features(), weights()
    y = np.random.default_rng(4).normal(size=(40, 2)) + x[:, :1] - 0.1 * x[:, 1:2]
    probe = regression_probe(x, y, weight, group)
    scaler = StandardScaler().fit(x, sample_weight=weight)
    x, new = scaler.transform(x), scaler.transform(features(20, seed=3))
    expected = np.column_stack([best_ridge(x, column, weight, group).predict(new) for column in y.T])
    np.testing.assert_allclose(logits(probe, features(20, seed=3)), expected, rtol=1e-7, atol=1e-9)


def test_near_copies_do_not_choose_the_penalty():
    """Features that say nothing know a copy by another one; with groups nothing but the mean is left."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 5)
    x = rng.normal(size=(20, 60))[group] + 0.01 * rng.normal(size=(100, 60))
    y = rng.normal(size=(20, 1))[group]
    assert np.abs(regression_probe(x, y, np.ones(100)).weight).max() > 0.01
    assert np.abs(regression_probe(x, y, np.ones(100), group).weight).max() < 1e-3
    one = regression_probe(x, y, np.ones(100), np.zeros(100))  # one group: nothing would be left to fit
    np.testing.assert_array_equal(one.weight, regression_probe(x, y, np.ones(100)).weight)


def test_many_groups_are_left_out_together(monkeypatch):
    """Of more groups than that several are one, and none is in two."""
    monkeypatch.setattr(_probe, "_MOST_GROUPS", 5)
    x, y = features(), np.random.default_rng(4).normal(size=(40, 1))
    group = np.arange(40) // 4
    probes = [regression_probe(x, y, np.ones(40), group), regression_probe(x, y, np.ones(40), group % 5)]
    np.testing.assert_array_equal(probes[0].weight, probes[1].weight)


def best_ridge(x, y, weight, group):
    """The strongest ridge whose error on groups that were not fitted is within a standard error of the smallest."""
    error, spread = {}, {}
    for penalty in PENALTIES:
        model, squared = Ridge(alpha=min(penalty, 1e100)), np.empty(len(y))
        for rows in (group == number for number in np.unique(group)):
            fit = model.fit(x[~rows], y[~rows], sample_weight=weight[~rows])
            squared[rows] = (y[rows] - fit.predict(x[rows])) ** 2
        error[penalty] = np.average(squared, weights=weight)
        excess = np.bincount(group, weights=weight * (squared - error[penalty]))
        spread[penalty] = np.sqrt(np.sum(excess**2)) / weight.sum()
    smallest = min(error, key=error.get)
    chosen = next(penalty for penalty in PENALTIES if error[penalty] <= error[smallest] + spread[smallest])
    return Ridge(alpha=min(chosen, 1e100)).fit(x, y, sample_weight=weight)


@pytest.mark.parametrize("n", [12, 60])
def test_a_regression_does_not_lose_to_the_mean(n):
    """Features that say nothing of a target leave its mean; the target beside it has its own penalty."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, 40))
    y = np.c_[rng.normal(size=n) + 5, x[:, 0] * 3]
    probe = regression_probe(x, y, np.ones(n))
    new = rng.normal(size=(200, 40))
    assert np.square(logits(probe, new)[:, 0] - 5).mean() < 0.3
    assert np.abs(probe.weight[1]).max() > 0.1


def fitted(kind, x, y, weight):
    if kind == "classification":
        return classification_probe(x, y, weight, 3)
    return regression_probe(x, y[:, None].astype(float), weight)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_weight_of_two_is_a_row_twice(kind, monkeypatch):
    """Whole weights and repeated rows give the same probe, its penalty and its scaling included.

    But for the choice among penalties: of rows that are repeated, one alone would be left out.
    """
    monkeypatch.setattr(_probe, "PENALTIES", np.array([PROBE_PENALTY]))
    x, y = features(), labels(40, 3)
    repeats = np.arange(40) % 3 + 1
    weighted = fitted(kind, x, y, repeats.astype(float))
    repeated = fitted(kind, x.repeat(repeats, 0), y.repeat(repeats), np.ones(repeats.sum()))
    np.testing.assert_allclose(logits(weighted, x), logits(repeated, x), atol=1e-3)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_weights_that_are_shares(kind):
    """Weights that sum to one do not drown in the penalty: their largest counts as one."""
    x, y, weight = features(), labels(40, 3), weights()
    shares = fitted(kind, x, y, weight / weight.sum())
    np.testing.assert_allclose(logits(shares, x), logits(fitted(kind, x, y, weight / weight.max()), x), atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 7.0, 1e6])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_constant_features(kind, constant):
    """A feature that varies by rounding alone changes nothing, and nothing warns of a division by zero."""
    x, y = features(), labels(40, 3)
    noise = constant * np.float64(1e-9) * np.random.default_rng(5).choice([-1, 0, 1], 40)
    wider = np.column_stack([x, constant + noise])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = fitted(kind, wider, y, weights())
    assert np.isfinite(probe.weight).all()
    np.testing.assert_allclose(logits(probe, wider), logits(fitted(kind, x, y, weights()), x), atol=1e-3)


def test_no_convergence_no_warning(monkeypatch):
    """A probe that has not converged is still a start: nobody is warned."""
    monkeypatch.setattr(_probe, "LogisticRegression", lambda **kw: LogisticRegression(**{**kw, "max_iter": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classification_probe(features(), labels(40, 3), np.ones(40), 3).weight.any()


@pytest.mark.parametrize(
    ("n_rows", "n_features", "n_chosen"),
    [
        (50, 10, 50),
        (10_000, 10, 10_000),
        (30_000, 10, 10_000),
        (30_000, 20_000, 1000),
        (30_000, 50_000_000, 100),
        (70, 50_000_000, 70),
    ],
)
def test_a_probe_looks_at_so_many_rows(n_rows, n_features, n_chosen):
    """At most ten thousand, fewer where features are many, never fewer than a hundred where there are as many."""
    rows = probe_rows(n_rows, n_features, 0)
    assert len(rows) == len(np.unique(rows)) == n_chosen
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0] <= rows[-1] < n_rows
    np.testing.assert_array_equal(rows, probe_rows(n_rows, n_features, 0))
    assert (n_chosen < n_rows) == (not np.array_equal(rows, probe_rows(n_rows, n_features, 1)))
