"""What all scores have in common: finite on degenerate data, in a sensible order, and blind to what does not matter."""

from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_digits

import sktl.selection
from sktl.selection import gbc_score, leep_score, nce_score, nleep_score, probe_score
from sktl.selection._scores_by_name import HEAD_SCORES, SCORES, has_parameter, score_name

# Without those whose folds or clusters start elsewhere when rows move.
STEADY = ["logme", "h_score", "transrate", "gbc"]


def problem(n=120, d=6, n_classes=3, noise=1.0, seed=0):
    """Classes around centres, in noise of different sizes, far from zero as features after a ReLU are."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    sizes = noise * np.linspace(0.5, 2, d)
    return 5 + 3 * random.normal(size=(n_classes, d))[y] + sizes * random.normal(size=(n, d)), y


X, Y = problem()
ROWS = np.arange(len(X))

DEGENERATE = {
    "separable": (np.eye(3)[Y], Y),
    "one row in a class": (X, np.where(ROWS == 7, 9, Y % 2)),
    "one row in each class": (X[:8], ROWS[:8]),
    "two rows": (X[:2], [0, 1]),
    "gaps in labels": (X, Y * 100 - 50),
    "constant features": (np.full((120, 4), 0.1), Y),
    "zeros": (np.zeros((120, 4)), Y),
    "one constant feature": (np.hstack([X, np.full((120, 1), 0.1)]), Y),
    "a feature but for one row constant": ((ROWS == 5)[:, None] * 1.0, Y),
    "duplicate rows": (np.repeat(X[:6], 20, axis=0), np.repeat(Y[:6], 20)),
    "duplicate rows of different classes": (np.tile(X[:1], (120, 1)), Y),
    "duplicate features": (np.tile(X, (1, 5)), Y),
    "fewer rows than features": (np.tile(X[:12], (1, 1)) @ np.random.default_rng(0).normal(size=(6, 300)), Y[:12]),
    "fewer rows than features, full rank": (np.random.default_rng(0).normal(size=(12, 300)), Y[:12]),
    "as many rows as features": (X[:6], Y[:6]),
    "one feature": (X[:, :1], Y),
    "a feature whose square vanishes": (np.column_stack([np.ones(120), 1e-200 * Y]), Y),
    "tiny": (1e-20 * X, Y),
    "huge": (1e20 * X, Y),
    "hardly representable": (1e-300 * X, Y),
    "nearly infinite": (1e300 * X, Y),
    "features of different scales": (X * 10.0 ** np.arange(-18, 18, 6), Y),
    "far from zero": (X + 1e9, Y),
    "half precision": (X.astype(np.float16), Y),
    "whole numbers": (np.round(X).astype(int), Y),
    "booleans": (X > 0, Y),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("data", DEGENERATE)
def test_degenerate_data(name, data):
    """Each score is a finite number, without a warning, and no greater than its bound."""
    score = SCORES[name](*DEGENERATE[data])
    assert type(score) is float
    assert np.isfinite(score)
    bounds = {"h_score": (0, len(np.unique(DEGENERATE[data][1])) - 1), "probe": (0, 1), "transrate": (0, np.inf)}
    low, high = bounds.get(name, (-np.inf, np.inf if name == "logme" else 0))
    assert low - 1e-9 <= score <= high + 1e-9


@pytest.mark.parametrize("name", SCORES)
def test_one_class_is_an_error(name):
    """It says so, rather than to give a number."""
    with pytest.raises(ValueError, match="y has only one class"):
        SCORES[name](X, np.ones(120))


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_features(name):
    """Noise on the features lowers each score, noise alone is worse, and features that say nothing are the worst."""
    scores = [SCORES[name](*problem(300, 6, 3, noise)) for noise in (0.5, 1.5, 3.0, 6.0, 12.0)]
    scores.append(SCORES[name](problem(300, 6, 3, 12.0)[0], np.random.default_rng(1).integers(0, 3, 300)))
    scores.append(SCORES[name](np.zeros((300, 6)), np.arange(300) % 3))
    assert scores == sorted(scores, reverse=True)
    assert min(-np.diff(scores)) > 1e-3


def test_constant_features_are_an_intercept_to_logme():
    """They say how large the classes are, and that is more than zeros say, or noise without a mean."""
    logme, y = SCORES["logme"], np.arange(120) % 3
    noise = np.random.default_rng(0).normal(size=(120, 4))
    assert logme(np.full((120, 4), 7.0), y) > logme(np.ones((120, 1)), y) - 1e-9 > logme(noise, y)
    assert logme(noise, y) >= logme(np.zeros((120, 4)), y)


@pytest.mark.parametrize("name", SCORES)
def test_real_pictures(name):
    """Pixels of digits are better than half of them covered with noise, and those better than noise."""
    pixels, y = load_digits(n_class=4, return_X_y=True)
    pixels, noise = pixels / 16, 0.3 * np.random.default_rng(0).normal(size=pixels.shape)
    half = np.where(np.arange(64) % 2, pixels, noise)
    assert SCORES[name](pixels + 0.1 * noise, y) > SCORES[name](half, y) > SCORES[name](noise, y)


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize("shape", [(60, 5), (20, 50)])
def test_what_does_not_matter(name, shape):
    """The order of rows, the names of the classes, and rotations of the features change nothing."""
    features, y = problem(*shape)
    score, expected = SCORES[name], pytest.approx(SCORES[name](features, y), rel=1e-6, abs=1e-9)
    order = np.random.default_rng(1).permutation(len(y))
    assert score(features[order], y[order]) == expected
    assert score(features, np.array(["zebra", "ant", "bee"])[y]) == expected
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(shape[1], shape[1])))
    assert score(features @ rotation, y) == expected
    assert score(features.tolist(), y.tolist()) == expected
    assert score(features.astype(np.float32), y) == pytest.approx(SCORES[name](features, y), rel=1e-3)


@pytest.mark.parametrize("name", ["logme", "h_score", "gbc", "nleep", "probe"])
@pytest.mark.parametrize("scale", [2.0**-60, 1e-20, 3.0, 1e20])
def test_the_scale_does_not_matter(name, scale):
    """Features in another unit have the same score; TransRate alone has a unit."""
    assert SCORES[name](scale * X, Y) == pytest.approx(SCORES[name](X, Y), rel=1e-6)


def test_transrate_misleads_with_few_rows():
    """The warning in its docstring is true: with about as many rows as features in a class, noise is the best."""
    pixels, y = load_digits(n_class=4, return_X_y=True)
    noise = 0.3 * np.random.default_rng(0).normal(size=pixels.shape)
    assert SCORES["transrate"](noise[:240], y[:240]) > SCORES["transrate"](pixels[:240] / 16, y[:240])


@pytest.mark.parametrize("name", ["logme", "h_score", "gbc", "transrate", "nleep", "probe"])
def test_labels_in_order_may_have_any_names(name):
    """Gaps and strings are exactly the same to all scores."""
    expected = SCORES[name](X, Y)
    assert SCORES[name](X, np.array([-7, 0, 1000])[Y]) == expected
    assert SCORES[name](X, np.array(["a", "bb", "c"], dtype=object)[Y]) == expected


def test_copies_of_all_rows():
    """They change nothing where shares of rows are all that counts."""
    twice, labels = np.vstack([X, X]), np.append(Y, Y)
    P = np.random.default_rng(0).dirichlet(np.ones(4), size=120)
    for score, one, two in (
        (SCORES["transrate"], X, twice),
        (SCORES["gbc"], X, twice),
        (leep_score, P, np.vstack([P, P])),
        (nce_score, Y % 2, np.append(Y, Y) % 2),
    ):
        assert score(two, labels) == pytest.approx(score(one, Y), rel=1e-9)
    unshrunk = SCORES["h_score"]
    assert unshrunk(twice, labels, shrinkage=False) == pytest.approx(unshrunk(X, Y, shrinkage=False), rel=1e-9)
    assert gbc_score(twice, labels, covariance="diagonal") == pytest.approx(gbc_score(X, Y, covariance="diagonal"))


@pytest.mark.parametrize("name", SCORES)
def test_what_is_given_is_not_written_to(name):
    """Arrays that cannot be written to are fine."""
    features, y = X.copy(), Y.copy()
    features.flags.writeable = y.flags.writeable = False
    assert SCORES[name](features, y) == SCORES[name](X, Y)


def test_regression():
    """Two scores know numbers, and find the features that tell them; the others say who does."""
    target = X @ np.arange(6.0) + np.random.default_rng(0).normal(size=120)
    for name in SCORES:
        if name in ("logme", "probe"):
            assert SCORES[name](X, target) > SCORES[name](X[:, :3], target) > SCORES[name](np.ones((120, 1)), target)
        else:
            with pytest.raises(ValueError, match=r"must have class labels for this score.*logme_score or probe_score"):
                SCORES[name](X, target)


def test_all_are_public():
    """Each score of the table is in the package, under its own name."""
    assert {getattr(score, "func", score).__name__ for score in SCORES.values()} < set(sktl.selection.__all__)


def test_answers_of_a_head():
    """Logits of any size become probabilities, or the most probable class."""
    logits = np.array([[800.0, 0, 0], [2, 1, 0], [0, -1, 3], [0, 900, 0]])
    y = [0, 0, 1, 1]
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = leep_score(weights / weights.sum(axis=1, keepdims=True), y)
    assert HEAD_SCORES["leep"](logits, y) == pytest.approx(expected, rel=1e-12)
    assert HEAD_SCORES["nce"](logits, y) == nce_score([0, 0, 2, 1], y)
    assert not set(HEAD_SCORES) & set(SCORES)


def test_what_a_score_takes():
    """What it has and what nobody has bound, whatever kind of callable it is."""
    assert has_parameter(probe_score, "task")
    assert has_parameter(partial(probe_score, cv=3), "task")
    assert not has_parameter(partial(probe_score, task="regression"), "task")
    assert has_parameter(nleep_score, "random_state")
    assert not has_parameter(nleep_score, "task")
    assert not has_parameter(dict.fromkeys, "task")  # written in C: it may have no signature
    assert not has_parameter(type, "task")


def test_the_name_of_a_score():
    """A name as it was given, and that of a function, of the one in a partial, and of an object's class."""

    class Judge:
        def __call__(self, features, y):
            return 1.0

    assert score_name("logme") == "logme"
    assert score_name(gbc_score) == "gbc_score"
    assert score_name(partial(partial(gbc_score, n_components=3), covariance="diagonal")) == "gbc_score"
    assert score_name(Judge()) == score_name(partial(Judge())) == "Judge"
