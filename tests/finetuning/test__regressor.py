"""Fine-tuning a regressor: targets of any scale and number, weights, errors; all of scikit-learn's checks."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl import FineTunedRegressor
from sktl.exceptions import DivergenceError, TrainingWarning


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


def test_it_says_where_the_mean_would_be_better(ink, make):
    """Worse than the mean of what it has learnt from on its validation rows, a regressor warns, with both figures."""
    X, y = ink[0], ink[1][:, 0]
    said = {"X_val": X[20:], "y_val": y[20:][::-1]}
    with pytest.warns(TrainingWarning, match="10 validation rows FineTunedRegressor predicts worse") as caught:
        model = make(head_init="random", lr=0.3, max_epochs=1).fit(X[:20], y[:20], **said)
    own = r2_score(said["y_val"], model.predict(X[20:]))
    of_mean = r2_score(said["y_val"], np.full(10, y[:20].mean()))
    assert f"R² is {own:.3g}, and {of_mean:.3g} with the mean" in str(caught[0].message)
    assert own < of_mean
    make(max_epochs=0).fit(X[:20], y[:20], X_val=X[20:], y_val=y[20:])  # a good one says nothing


def test_who_is_the_mean_is_not_told_that_the_mean_is_better(make):
    """Noise is best predicted by its mean, from which the figures differ by rounding alone, if at all."""
    random = np.random.RandomState(0)
    X, y = random.randint(0, 256, (40, 16, 16, 3)).astype(np.uint8), random.normal(size=40)
    make(early_stopping=True, max_epochs=1, lr=0.01, random_state=2).fit(X, y)


def test_early_stopping_is_no_advice_to_who_has_it(ink, make):
    """The warning names what is left to try."""
    X, y = ink[0], ink[1][:, 0]
    for early_stopping in (True, False):
        model = make(lr=1e-9, max_epochs=1, early_stopping=early_stopping)
        with pytest.warns(TrainingWarning, match="with the mean") as caught:
            model.fit(X[:20], y[:20], X_val=X[20:], y_val=2 * y.mean() - y[20:])
        assert ("early_stopping=True" in str(caught[0].message)) != early_stopping


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_targets_of_any_size(ink, make, size):
    """Targets whose squares are no numbers of float64 are learnt, predicted and scored as others are."""
    X, y = ink
    plain, sized = make().fit(X, y[:, 0]), make().fit(X, y[:, 0] * size)
    np.testing.assert_allclose(sized.predict(X), plain.predict(X) * size, rtol=1e-4)
    assert sized.score(X, y[:, 0] * size) == pytest.approx(plain.score(X, y[:, 0]), rel=1e-4)


@pytest.mark.parametrize("freeze_depth", ["all", -1])
def test_targets_of_any_scale(ink, make, freeze_depth):
    """Targets in other units give the same predictions in those units, also around a large mean."""
    X, y = ink
    expected = make(freeze_depth=freeze_depth).fit(X, y[:, 0]).predict(X)
    assert r2_score(y[:, 0], expected) > 0.8
    got = make(freeze_depth=freeze_depth).fit(X, 1e4 * y[:, 0] - 1e5).predict(X)
    np.testing.assert_allclose((got + 1e5) / 1e4, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, lambda y: y.tolist(), torch.tensor])
def test_several_targets_at_once(ink, make, kind):
    """A table of targets is predicted as a table; each of them is learnt."""
    X, y = ink
    model = make(freeze_depth=-1).fit(X, kind(y * [1, -1000]))
    predicted = model.predict(X)
    assert predicted.shape == (30, 2)
    assert predicted.dtype == np.float64
    assert (r2_score(y * [1, -1000], predicted, multioutput="raw_values") > 0.8).all()
    assert model.score(X, y * [1, -1000]) == pytest.approx(r2_score(y * [1, -1000], predicted))


def test_targets_keep_their_shape(ink, make):
    """A flat y is predicted flat, a column as a column; one target by MultiOutputRegressor is the one by itself."""
    X, y = ink
    flat, column = make().fit(X, y[:, 0]).predict(X), make().fit(X, y[:, :1]).predict(X)
    assert (flat.shape, column.shape) == ((30,), (30, 1))
    np.testing.assert_array_equal(flat, column[:, 0])
    np.testing.assert_array_equal(MultiOutputRegressor(make()).fit(X, y).predict(X)[:, 0], flat)


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
    with pytest.raises(ValueError, match="y has 2 targets, but the first call had 1"):
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
