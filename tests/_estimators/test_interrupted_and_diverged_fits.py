"""Fits that end before their time: Ctrl-C and divergence, and what they leave."""

import signal

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback
from torch import nn

from sktl import FineTunedClassifier
from sktl._estimators import _network_estimator
from sktl.exceptions import DivergenceError


def tuner(**params):
    return FineTunedClassifier(**{"max_epochs": 2, "lr": 0.01, "random_state": 0, **params})


class Interrupted(nn.Linear):
    """A head at which the user presses Ctrl-C in the third batch."""

    n_batches = 0

    def forward(self, x):
        self.n_batches += self.training
        if self.n_batches == 3:
            self.n_batches += 1
            raise KeyboardInterrupt
        return super().forward(x)


def test_an_interruption_keeps_what_was_learnt(digits):
    """Ctrl-C in the third epoch is raised again, and leaves a fitted estimator with the two epochs before it."""
    X, y = digits
    model = tuner(max_epochs=9, head=Interrupted(512, 3), lr_schedule="constant")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == len(model.history_) == 2
    whole = tuner(max_epochs=2, head=nn.Linear(512, 3), lr_schedule="constant").fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))


class Press(Callback):
    """The user presses Ctrl-C after the first epoch of each training."""

    n_pressed = 0  # by all of them, for a search trains clones

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            Press.n_pressed += 1
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("around", ["search", "cross-validation", "bag", "partial_fit", "fit"])
def test_what_stands_around_a_fit_stops_too(digits, around, monkeypatch):
    """Ctrl-C ends the search, the cross-validation or the ensemble, not one fit of it."""
    monkeypatch.setattr(Press, "n_pressed", 0)
    model = tuner(callbacks=[Press()], freeze_depth="all", max_epochs=3, early_stopping=around == "fit")
    run = {
        "search": lambda: GridSearchCV(model, {"lr": [0.001, 0.01]}, cv=2).fit(*digits),
        "cross-validation": lambda: cross_val_score(model, *digits, cv=2),
        "bag": lambda: BaggingClassifier(model, n_estimators=3).fit(digits[0].reshape(30, -1), digits[1]),
        "partial_fit": lambda: model.partial_fit(*digits, classes=[0, 1, 2]),
        "fit": lambda: model.fit(*digits),
    }[around]
    with pytest.raises(KeyboardInterrupt):
        run()
    assert Press.n_pressed == 1
    if around in ("partial_fit", "fit"):
        assert model.n_iter_ == 1
        assert model.score(*digits) > 0.9


def test_an_interruption_before_anything_was_learnt(digits, monkeypatch):
    """Ctrl-C while the frozen stages run: the estimator is not fitted, and the fit after it is as any other."""
    X, y = digits
    model = tuner(max_epochs=1).fit(X, y)
    expected = model.predict_proba(X)
    with monkeypatch.context() as patch:
        patch.setattr(
            _network_estimator, "fetch_activations", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT)
        )
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), expected)


@pytest.mark.parametrize(
    "params",
    [
        {"lr": 1e300},
        {"lr": 1e300, "optimizer": "sgd"},
        {"lr_decay": 1e300},
        {"weight_decay": 1e300},
        {"lr": 100, "freeze_depth": 0, "freeze_bn": False, "lr_schedule": "constant"},
    ],
)
def test_a_diverged_fit_is_no_fitted_one(digits, params):
    """Also where every loss was a number, as with statistics of batches: the outputs for the rows are looked at."""
    X, y = digits
    model = tuner(max_epochs=1, **params)
    with pytest.raises(DivergenceError):
        model.fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X, y) > 0.9


def test_a_divergence_leaves_the_last_good_weights(digits):
    """The error says what to do; the estimator predicts as before the fatal step, and its history has whole epochs."""
    X, y = digits
    model = tuner(freeze_depth=-1, lr=1e30, max_epochs=5)
    with pytest.raises(DivergenceError, match=r"\(lr=1e\+30\) is too large.*smaller lr"):
        model.fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == len(model.history_)
    assert np.isfinite(model.history_[:, "train_loss"]).all()


def test_a_first_epoch_that_diverges_leaves_the_start(digits):
    """Also where only the outputs in the end tell it: the number of the best epoch and the error speak of the start."""
    X, y = digits
    settings = {"freeze_depth": 0, "freeze_bn": False, "lr": 1e6}
    model = tuner(max_epochs=1, **settings)
    with pytest.raises(DivergenceError, match="keeps its initial weights"):
        model.fit(X, y)
    assert (model.n_iter_, model.best_epoch_) == (len(model.history_), 0)
    np.testing.assert_array_equal(model.predict_proba(X), tuner(max_epochs=0, **settings).fit(X, y).predict_proba(X))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, DivergenceError])
def test_what_ends_a_training_is_what_is_raised(digits, error, monkeypatch):
    """What is noted of a whole training is not tried of another one, and cannot hide the error."""

    class Fail(Callback):
        def on_batch_end(self, net, **kwargs):
            raise error

    def finish(self, course):
        raise AssertionError("nothing has come to its end")

    monkeypatch.setattr(FineTunedClassifier, "_finish", finish)
    with pytest.raises(error):
        tuner(callbacks=[Fail()], freeze_depth="all").fit(*digits)
