"""Fine-tuning a regressor: targets of any scale and number, weights, errors; all of scikit-learn's checks."""

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedRegressor
from sktl.exceptions import DivergenceError


@parametrize_with_checks([FineTunedRegressor()])
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, the regressor passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture
def make(quick):
    """Makes a regressor that fits in no time."""
    return lambda **params: FineTunedRegressor(**{**quick, **params})


@pytest.fixture
def ink(digits):
    """Digits, and how much ink each of their halves has."""
    X, _ = digits
    return X, np.c_[X[:, :4].mean((1, 2)), X[:, 4:].mean((1, 2))]


@pytest.mark.parametrize("freeze_depth", ["all", -1])
def test_targets_of_any_scale(ink, make, freeze_depth):
    """Targets in other units give the same predictions in those units, also around a large mean."""
    X, y = ink
    expected = make(freeze_depth=freeze_depth).fit(X, y[:, 0]).predict(X)
    assert r2_score(y[:, 0], expected) > 0.8
    got = make(freeze_depth=freeze_depth).fit(X, 1e4 * y[:, 0] - 1e5).predict(X)
    np.testing.assert_allclose((got + 1e5) / 1e4, expected, rtol=1e-3, atol=1e-4)


def test_a_constant_target(ink, make):
    """It is predicted as it is."""
    X, _ = ink
    np.testing.assert_allclose(make().fit(X, np.full(30, 7.0)).predict(X), 7, atol=1e-2)


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("freeze_depth", [0, "all"])
def test_one_picture_is_its_row_of_the_table(ink, make, freeze_depth, n_targets):
    """A prediction does not depend on what else is predicted, to the bit."""
    X, y = ink
    model = make(freeze_depth=freeze_depth, batch_size=29, max_epochs=1).fit(X, y[:, :n_targets])
    alone = np.concatenate([model.predict(X[i : i + 1]) for i in range(30)])
    np.testing.assert_array_equal(model.predict(X), alone)


def test_weights_are_copies_and_zero_is_none(ink, make):
    """Repeated and dropped rows give what weights give, to the bit; so does another order."""
    X, y = ink
    n_copies = np.random.default_rng(0).integers(0, 3, 30)
    settings = {"freeze_depth": -1, "batch_size": 8}
    expected = make(**settings).fit(X, y, sample_weight=n_copies).predict(X)
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(30), n_copies))
    np.testing.assert_array_equal(make(**settings).fit(X[rows], y[rows]).predict(X), expected)


def test_partial_fit_keeps_the_first_calls_scale(ink, make):
    """Later parts are learnt in the units that the first one gave, and must have as many targets."""
    X, y = ink
    model = make().partial_fit(X[:20], y[:20, 0] * 100)
    for _ in range(3):
        model.partial_fit(X, y[:, 0] * 100)
    assert r2_score(y[:, 0] * 100, model.predict(X)) > 0.5
    assert model.n_iter_ == 4
    with pytest.raises(ValueError, match="y has 2 targets, but FineTunedRegressor was fitted with 1"):
        model.partial_fit(X, y)


def test_cached_and_live_training_are_the_same(ink, make):
    """For a regressor too; in one engine, since others round otherwise."""
    X, y = ink
    cached, live = (make(freeze_depth=-1, cache=cache, engine="torch").fit(X, y) for cache in ("auto", None))
    np.testing.assert_allclose(live.history_[:, "train_loss"], cached.history_[:, "train_loss"], rtol=1e-4)
    np.testing.assert_allclose(live.predict(X), cached.predict(X), rtol=1e-3)


def test_early_stopping_of_a_regressor(ink, make):
    """Without classes the split is a plain one; the loss judged by is that of standardised targets."""
    X, y = ink
    model = make(early_stopping=True, validation_fraction=0.3, max_epochs=30, lr=1.0, n_iter_no_change=2).fit(X, y)
    assert model.n_iter_ < 30
    losses = model.history_[:, "valid_loss"]
    assert model.best_epoch_ in (0, np.argmin(losses) + 1)
    assert np.isfinite(model.history_[:, "valid_score"]).all()


def test_scikit_learn_around_it(ink, make):
    """A search over depths, cross-validated predictions and a transformed target."""
    X, y = ink
    search = GridSearchCV(make(), {"freeze_depth": ["all", -1]}, cv=2, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(X, y) > 0.8
    assert cross_val_predict(make(), X, y, cv=2).shape == (30, 2)
    scaled = TransformedTargetRegressor(make(), func=np.log1p, inverse_func=np.expm1).fit(X, y[:, 0])
    assert scaled.score(X, y[:, 0]) > 0.8


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (np.full(30, np.nan), "y contains NaN"),
        (np.full(30, np.inf), "y contains infinity"),
        (np.ones(20), r"inconsistent numbers of samples: \[30, 20\]"),
        (["a"] * 30, "could not convert string"),
        (None, "target y is None"),
    ],
    ids=["nan", "inf", "short", "text", "none"],
)
def test_bad_targets_are_named(ink, make, targets, says):
    """What is wrong with the targets is said."""
    with pytest.raises(ValueError, match=says):
        make().fit(ink[0], targets)


def test_a_divergence_leaves_finite_predictions(ink, make):
    """The error names the rate; the network is the last good one."""
    X, y = ink
    model = make(freeze_depth=-1, lr=1e30, max_epochs=4)
    with pytest.raises(DivergenceError, match=r"lr=1e\+30"):
        model.fit(X, y)
    assert np.isfinite(model.predict(X)).all()
