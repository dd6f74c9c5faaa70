"""The range test: rates, losses, the stop, the suggestion, and an estimator that stays as it was."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EarlyStopping

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.exceptions import DivergenceError, TrainingWarning
from sktl.finetuning import LRRangeTest, lr_range_test
from sktl.finetuning._lr_range import _steepest_fall

SMALL_IMAGES = {"resize_size": 16, "crop_size": 16}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:160] / 16, y[:160]


def classifier(**params):
    return FineTunedClassifier(**{"freeze_depth": "all", "head_init": "random", "random_state": 0, **params})


def test_rates_rise_by_a_constant_factor_and_each_has_its_loss(digits):
    """The rates are evenly spaced in their logarithm from ``lr_min`` on, and there is one finite loss for each."""
    result = lr_range_test(classifier(), *digits, lr_min=1e-5, lr_max=1e-1, n_steps=50)
    assert isinstance(result, LRRangeTest)
    assert len(result.lr) == len(result.loss) == len(result.smoothed_loss) == 50
    np.testing.assert_allclose(result.lr, np.logspace(-5, -1, 50))
    assert np.isfinite(result.loss).all()


def test_the_suggestion_is_where_the_loss_falls(digits):
    """A random head learns nothing at the smallest rates; the suggestion lies where it does, before the minimum."""
    result = lr_range_test(classifier(batch_size=32), *digits)
    assert 1e-4 < result.suggestion < 1e-1
    assert result.suggestion in result.lr
    assert result.suggestion < result.lr[result.smoothed_loss.argmin()]
    at = int(np.flatnonzero(result.lr == result.suggestion)[0])
    assert result.smoothed_loss[at] < result.smoothed_loss[0] * 0.95
    assert repr(result).startswith("LRRangeTest(")


def test_the_rates_are_really_used(digits):
    """Twice the rates in the first step move the loss of the second one twice as far (plain gradient descent)."""
    import torch

    one_batch = {"batch_size": 1000, "optimizer": torch.optim.SGD, "weight_decay": 0.0}
    moves = []
    for lr_min in (1e-4, 2e-4):
        loss = lr_range_test(classifier(**one_batch), *digits, lr_min=lr_min, lr_max=1e-2, n_steps=20).loss
        moves.append(loss[0] - loss[1])
    assert moves[1] == pytest.approx(2 * moves[0], rel=0.05)


def test_it_is_the_training_of_the_estimator(digits):
    """With next to one and the same rate, the losses are those that a fit of that constant rate has."""
    model = classifier(batch_size=1000, lr=1e-3, lr_schedule="constant", max_epochs=20).fit(*digits)
    loss = lr_range_test(model, *digits, lr_min=1e-3, lr_max=1e-3 * (1 + 1e-12), n_steps=20).loss
    np.testing.assert_allclose(loss, model.history_[:, "train_loss"], rtol=1e-5)


def test_it_stops_when_the_loss_explodes(digits):
    """Far too large rates end the test before its last step, and the explosion is not taken for a fall."""
    result = lr_range_test(classifier(batch_size=16, optimizer="sgd"), *digits, lr_max=100.0)
    assert len(result.lr) < 100
    assert np.isfinite(result.loss).all()  # a linear head's loss is still a number
    assert result.loss[-1] > 4 * result.smoothed_loss.min()
    assert result.suggestion < 1


def test_a_loss_that_is_no_number_ends_the_test(digits):
    """Where a rate makes the loss NaN, what was seen before is the result."""
    model = classifier(batch_size=1000, optimizer="sgd", freeze_depth=0, preprocessing=SMALL_IMAGES)
    result = lr_range_test(model, *digits, lr_min=1e-100, lr_max=1e100, n_steps=20)
    assert len(result.lr) == 11  # the twelfth would be the first one after a step of 1e5
    assert np.isfinite(result.loss).all()


def test_a_loss_that_is_no_number_at_once_is_an_error(digits):
    """Nothing can be learnt from a test whose first rates are far too large already."""
    model = classifier(batch_size=1000, optimizer="sgd", freeze_depth=0, preprocessing=SMALL_IMAGES)
    with pytest.raises(DivergenceError, match="became NaN or infinite after 1 of 100 steps"):
        lr_range_test(model, *digits, lr_min=1e20, lr_max=1e30)


def test_the_estimator_is_not_changed(digits):
    """Neither parameters nor fitted attributes nor predictions are others afterwards; unfitted stays unfitted."""
    model = classifier(max_epochs=2, callbacks=[], net_params={"lr": 0.01}).fit(*digits)
    before, params, attributes = model.predict_proba(digits[0]), model.get_params(), set(vars(model))
    lr_range_test(model, *digits, n_steps=20)
    np.testing.assert_array_equal(model.predict_proba(digits[0]), before)
    assert model.get_params() == params
    assert set(vars(model)) == attributes
    unfitted = classifier()
    lr_range_test(unfitted, *digits, n_steps=20)
    assert not hasattr(unfitted, "net_")


def test_the_estimators_own_training_plays_no_part(digits):
    """Its rate, schedule, epochs, early stopping, callbacks and unfreezing leave the losses as they are."""
    plain = lr_range_test(classifier(freeze_depth=-1), *digits, n_steps=20)
    loaded = classifier(
        freeze_depth=-1,
        lr=5.0,
        lr_schedule="linear",
        max_epochs=1,
        early_stopping=True,
        unfreeze_every=1,
        warm_start=True,
        callbacks=[EarlyStopping(patience=1)],
        net_params={"lr": 7.0, "callbacks": [EarlyStopping(patience=1)]},
        verbose=1,
    )
    np.testing.assert_array_equal(lr_range_test(loaded, *digits, n_steps=20).loss, plain.loss)


def test_same_seed_same_losses(digits):
    """The random state of the estimator is all that the test depends on."""
    first, second = (lr_range_test(classifier(batch_size=16), *digits, n_steps=20) for _ in range(2))
    np.testing.assert_array_equal(first.loss, second.loss)


def test_weights_weigh(digits):
    """Rows of weight zero are not there."""
    weight = np.arange(160) < 80
    X, y = digits
    half = lr_range_test(classifier(), X[:80], y[:80], n_steps=20)
    np.testing.assert_allclose(lr_range_test(classifier(), X, y, sample_weight=weight, n_steps=20).loss, half.loss)


def test_regression(digits):
    """Numbers as targets have a range of rates too."""
    model = FineTunedRegressor(freeze_depth="all", head_init="random", random_state=0)
    assert 1e-5 < lr_range_test(model, digits[0], digits[1].astype(float)).suggestion < 1


def test_a_start_that_cannot_get_better_has_no_suggestion(digits):
    """Labels that have nothing to do with the pictures, learnt from in small batches: NaN, and a warning says why."""
    X, _ = digits
    y = np.random.default_rng(0).integers(0, 2, 160)
    with pytest.warns(TrainingWarning, match="does not fall clearly"):
        result = lr_range_test(classifier(batch_size=4, random_state=1), X, y, lr_min=1e-9, lr_max=1e-7)
    assert np.isnan(result.suggestion)


def test_noise_alone_is_seldom_a_fall():
    """Losses that are noise around a constant, skewed as losses are, have a steepest fall in few of 200 cases."""
    lr = np.geomspace(1e-6, 1, 100)
    losses = np.exp(0.5 * np.random.default_rng(0).standard_normal((200, 100)))
    found = [_steepest_fall(lr, loss, gaussian_filter1d(loss, 3.0), 3.0) for loss in losses]
    assert np.isfinite(found).mean() < 0.05


def test_the_steepest_fall_of_a_known_curve():
    """Of a logistic curve it is the middle, however noisy; and where the loss only rises there is none."""
    lr = np.geomspace(1e-6, 1, 100)
    curve = 1 / (1 + np.exp((np.arange(100) - 50) / 5)) + 10.0 * (np.arange(100) > 90)
    assert np.log10(_steepest_fall(lr, curve, curve, 3.0)) == pytest.approx(np.log10(lr[50]), abs=0.1)
    assert np.isnan(_steepest_fall(lr, lr, lr, 3.0))


def test_a_steep_wiggle_before_the_fall_is_passed_over():
    """The loss of the first batches may fall more steeply by chance, but it comes back; the last way down counts."""
    lr = np.geomspace(1e-6, 1, 100)
    curve = 1 / (1 + np.exp((np.arange(100) - 50) / 5))
    curve[5:10] -= 0.3
    assert np.gradient(curve)[:30].min() < np.gradient(curve)[30:].min()
    assert np.log10(_steepest_fall(lr, curve, curve, 3.0)) == pytest.approx(np.log10(lr[50]), abs=0.1)


def test_a_fitted_estimator_as_backbone(digits):
    """A backbone that is a fitted estimator stays fitted, though the test works on a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = PretrainedFeatureExtractor().fit(digits[0])
        for backbone in (extractor, FrozenEstimator(extractor)):
            assert len(lr_range_test(classifier(backbone=backbone), *digits, n_steps=20).lr) == 20


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"lr_min": 0.1, "lr_max": 0.01},
            r"'lr_min' parameter of lr_range_test must be smaller than 'lr_max'\. Got lr_min=0\.1",
        ),
        ({"lr_min": 0.0}, "'lr_min' parameter"),
        ({"n_steps": 5}, "'n_steps' parameter"),
    ],
)
def test_parameters_out_of_range(digits, params, message):
    """Each is an error that names the parameter."""
    with pytest.raises(ValueError, match=message):
        lr_range_test(classifier(), *digits, **params)


def test_another_estimator_is_an_error(digits):
    """What has no rates of sktl's training is refused by an error that names what has, and no private class."""
    for estimator in (LogisticRegression(), make_pipeline(classifier()), FineTunedClassifier):
        with pytest.raises(ValueError, match=r"must be a FineTunedClassifier or FineTunedRegressor\. Got") as caught:
            lr_range_test(estimator, *digits)
        assert "_" not in str(caught.value)


def test_real_photos(shared_data):
    """On ants and bees with a new head on MobileNetV2, rates around a thousandth are found, as practice has it."""
    paths = [str(path) for path in sorted((shared_data / "hymenoptera" / "train").glob("*/*.jpg"))][::4]
    model = FineTunedClassifier(
        "mobilenet_v2",
        weights=shared_data / "mobilenet_v2_imagenet" / "model.safetensors",
        preprocessing={"resize_size": 256},
        freeze_depth="all",
        head_init="random",
        batch_size=16,
        random_state=0,
    )
    assert 1e-4 < lr_range_test(model, paths, ["ants" in path for path in paths]).suggestion < 1e-2
