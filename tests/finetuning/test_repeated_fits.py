"""Fit after fit: warm starts, steps, refits and failures, and what each leaves to the next."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.exceptions import BackboneError, DivergenceError, TrainingWarning


@pytest.fixture
def make(quick):
    """Makes a classifier that fits in no time."""
    return lambda **params: FineTunedClassifier(**{**quick, **params})


def test_fewer_views_than_epochs_are_the_same_live(digits, make):
    """With two views for four epochs, nothing stored learns what the stored views learn: each view comes twice."""
    settings = {"augment": "crop_flip", "n_views": 2, "freeze_depth": -1, "max_epochs": 4}
    stored = make(**settings).fit(*digits).history_[:, "train_loss"]
    live = make(cache=None, **settings).fit(*digits).history_[:, "train_loss"]
    np.testing.assert_allclose(live, stored, rtol=1e-4)
    endless = make(cache=None, **{**settings, "n_views": None}).fit(*digits).history_[:, "train_loss"]
    np.testing.assert_allclose(endless[:2], stored[:2], rtol=1e-4)
    assert abs(endless[2] - stored[2]) > 1e-3 * stored[2]


@pytest.mark.parametrize("augment", ["crop_flip", "simclr"])
@pytest.mark.parametrize("freeze_depth", [0, -1])
def test_batched_views_are_the_same_however_they_are_drawn(digits, make, augment, freeze_depth):
    """Decoded once, decoded for each batch, or drawn in worker processes: training sees the same views."""
    settings = {"augment": augment, "freeze_depth": freeze_depth, "max_epochs": 2, "head_init": "random"}
    expected = make(**settings).fit(*digits).history_[:, "train_loss"]
    for how in ({"cache": None}, {"net_params": {"iterator_train__num_workers": 2}}):
        got = make(**settings, **how).fit(*digits).history_[:, "train_loss"]
        np.testing.assert_allclose(got, expected, rtol=1e-4)


# --- gradual unfreezing -----------------------------------------------------------------------------------------------


def test_a_warm_start_unfreezes_from_the_head_on(digits, make):
    """The epochs of the fit before do not count: the head is alone once more."""
    model = make(freeze_depth=-2, unfreeze_every=1, max_epochs=3, warm_start=True).fit(*digits).fit(*digits)
    assert model.history_[:, "n_frozen_stages"] == [5, 4, 3, 5, 4, 3]


@pytest.mark.parametrize(("every", "n_epochs"), [(1, 2), (1, 1), (2, 4)])
def test_stages_whose_turn_never_comes(digits, make, every, n_epochs):
    """A fit that ends before freeze_depth is reached says so; one more epoch, none at all or a step say nothing."""
    model = make(freeze_depth=-2, unfreeze_every=every, max_epochs=n_epochs)
    message = (
        rf"^With unfreeze_every={every}, it takes {2 * every} epochs to unfreeze all 2 stages .*, but training ends "
    )
    with pytest.warns(TrainingWarning, match=rf"{message}after max_epochs={n_epochs}\."):
        model.fit(*digits)
    model.partial_fit(*digits)
    model.set_params(max_epochs=0).fit(*digits)
    assert model.set_params(max_epochs=2 * every + 1).fit(*digits).history_[-1, "n_frozen_stages"] == 3


# --- divergences ------------------------------------------------------------------------------------------------------


def diverge(model, X, y):
    """Fit with steps that are far too large; what is judged on is wrong, so that no sure guess is the best one."""
    with pytest.raises(DivergenceError):
        model.set_params(lr=1e30, max_epochs=5).fit(X, y, X_val=X[:6], y_val=(y[:6] + 1) % 3)
    return model


@pytest.mark.parametrize("before", ["nothing", "fit"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_the_best_epoch_of_a_fit_that_diverged(digits, make, before, early_stopping):
    """It is of this fit, not of the one before, and its weights are those that predict."""
    X, y = digits
    model = make(early_stopping=early_stopping, max_epochs=3)
    if before == "fit":
        assert model.fit(X, y).best_epoch_ > 1
    diverge(model, X, y)
    assert model.best_epoch_ == (0 if early_stopping else len(model.history_))
    assert model.n_iter_ == len(model.history_) <= 2
    assert np.isfinite(model.predict_proba(X)).all()


def test_a_warm_start_that_diverges_goes_back_to_the_best(digits, make):
    """With early stopping the start is judged, and the number of its epoch is kept with its weights."""
    X, y = digits
    model = make(early_stopping=True, warm_start=True).fit(X, y)
    expected = model.predict_proba(X)
    n_before = model.n_iter_
    diverge(model, X, y)
    assert model.best_epoch_ == n_before < model.n_iter_
    np.testing.assert_array_equal(model.predict_proba(X), expected)


class Broken(nn.Linear):
    """A head with huge gradients in its second training batch, and no numbers in its third one."""

    n_batches = 0

    def forward(self, x):
        self.n_batches += self.training
        factors = {2: -1e25, 3: float("nan")}
        return super().forward(x) * (factors.get(self.n_batches, 1.0) if self.training else 1.0)


def test_partial_fit_goes_on_after_a_divergence(digits, make):
    """The weights are those from before the step that failed, and what led away from them does not hold up the next."""
    X, y = digits
    model = make(head=Broken(512, 3), batch_size=15, weight_decay=0.0).partial_fit(X, y, classes=[0, 1, 2])
    expected = model.predict_proba(X)
    with pytest.raises(DivergenceError):
        model.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert model.n_iter_ == model.best_epoch_ == 1
    before = model.net_.module_.head.weight.detach().clone()
    assert model.partial_fit(X, y).n_iter_ == 2
    assert (model.net_.module_.head.weight != before).float().mean() > 0.9  # endless moments would let few of them move
    assert model.score(X, y) > 0.9


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"freeze_depth": "layer9"}, BackboneError),
        ({"freeze_depth": 0, "net_params": {"max_epochs": 3}}, ValueError),
        ({"freeze_depth": -2, "freeze_bn": False, "batch_size": 1}, ValueError),
    ],
    ids=["depth", "net", "batch"],
)
def test_a_warm_start_that_fails_changes_nothing(digits, make, params, error):
    """The estimator of the fit before predicts as before, from the depth that it was trained at, and goes on."""
    X, y = digits
    model = make(freeze_depth=-1, warm_start=True).fit(X, y)
    expected = model.predict_proba(X)
    with pytest.raises(error):
        model.set_params(**params).fit(X, y)
    assert model.freeze_depth_ == 4
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert model.partial_fit(X, y).n_iter_ == 3


def test_a_refit_that_fails_leaves_no_network(digits, make):
    """Nothing can take the network of a failed fit for a trained one."""
    X, y = digits
    model = make(freeze_depth=-1).fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        model.fit(X, np.zeros(30))
    assert not {"net_", "backbone_", "history_", "best_epoch_", "freeze_depth_"} & vars(model).keys()
    with pytest.raises(NotFittedError):
        model.predict(X)
    for other in (PretrainedFeatureExtractor(model), FineTunedRegressor(model)):
        with pytest.raises(ValueError, match="fitted"):
            other.fit(X, y)


# --- parameters that come too late ------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze_depth", ["all", -1])
def test_another_pooling_is_the_next_fits(digits, make, freeze_depth):
    """Predictions, steps and warm starts have the pooling that the head has learnt with; a new fit has the new one."""
    X, y = digits
    model = make(freeze_depth=freeze_depth).fit(X, y)
    expected = model.predict_proba(X)
    model.set_params(pooling="max")
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    unchanged = make(freeze_depth=freeze_depth).fit(X, y).partial_fit(X, y)
    np.testing.assert_array_equal(model.partial_fit(X, y).predict_proba(X), unchanged.predict_proba(X))
    anew = make(freeze_depth=freeze_depth, pooling="max").fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), anew)
    assert not torch.equal(torch.from_numpy(anew), torch.from_numpy(expected))
