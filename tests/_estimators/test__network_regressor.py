"""What all regressors with a network predict: targets in their own units and shape; and what they warn of."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score
from sklearn.multioutput import MultiOutputRegressor

from sktl import FineTunedRegressor
from sktl.exceptions import ImageWarning, TrainingWarning


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
    with pytest.warns(
        TrainingWarning, match="^FineTunedRegressor predicts its 10 validation rows worse than the mean"
    ) as caught:
        model = make(head_init="random", lr=0.3, max_epochs=1).fit(X[:20], y[:20], **said)
    own = r2_score(said["y_val"], model.predict(X[20:]))
    of_mean = r2_score(said["y_val"], np.full(10, y[:20].mean()))
    assert f"R² is {own:.3g} for the network and {of_mean:.3g} for the mean" in str(caught[0].message)
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
        with pytest.warns(TrainingWarning, match="for the mean") as caught:
            model.fit(X[:20], y[:20], X_val=X[20:], y_val=2 * y.mean() - y[20:])
        assert ("early_stopping=True" in str(caught[0].message)) != early_stopping


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_targets_of_any_size(ink, make, size):
    """Targets whose squares are no numbers of float64 are learnt, predicted and scored as others are."""
    X, y = ink
    plain, sized = make().fit(X, y[:, 0]), make().fit(X, y[:, 0] * size)
    np.testing.assert_allclose(sized.predict(X), plain.predict(X) * size, rtol=1e-4)
    assert sized.score(X, y[:, 0] * size) == pytest.approx(plain.score(X, y[:, 0]), rel=1e-4)


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


def test_images_that_cannot_be_read_have_no_target(ink, make):
    """With on_error="nan" they are predicted as NaN, with a warning, and left out of the score."""
    X, y = [*np.rint(255 * ink[0]).astype(np.uint8)], ink[1]
    model = make(on_error="nan").fit(X, y)
    broken = [*X[:4], "missing.png"]
    with pytest.warns(ImageWarning, match="Image 4"):
        np.testing.assert_array_equal(np.isnan(model.predict(broken)).all(1), [False] * 4 + [True])
    with pytest.warns(ImageWarning, match="Image 4"):
        assert model.score(broken, np.r_[y[:4], [[9, 9]]]) == pytest.approx(model.score(X[:4], y[:4]))


@pytest.mark.parametrize("columns", [0, [0, 1]])
def test_a_state_of_before(ink, make, columns):
    """A regressor as versions before 0.1.0 pickled it, predicts and learns on as one of today."""
    X, y = ink[0], ink[1][:, columns]
    model = make(early_stopping=True, validation_fraction=0.3).fit(X, y)
    state = model.__getstate__()
    coding, seeds = state.pop("_coding"), copy.deepcopy(state.pop("_seeds"))
    state |= {"_target_mean": coding.mean, "_target_scale": coding.scale, "_has_flat_targets": coding.is_flat}
    state |= {"_random_state": seeds._random_state, "_split_seed": seeds.split}
    del state["_sktl_version"]
    old = FineTunedRegressor.__new__(FineTunedRegressor)
    old.__setstate__(copy.deepcopy(state))
    assert set(vars(old)) == set(vars(model))
    np.testing.assert_array_equal(old.predict(X), model.predict(X))
    for regressor in (model, old):  # the same rows are held out, in the same units
        regressor.set_params(warm_start=True, max_epochs=1).fit(X, y)
    np.testing.assert_array_equal(old.predict(X), model.predict(X))
