"""Training curves: what is drawn is the history."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from sktl import FineTunedClassifier, FineTunedRegressor
from sktl.exceptions import InputError
from sktl.inspection import TrainingCurveDisplay


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_curves_are_the_history(model):
    """Losses and score stand against the epochs, in two panels, with the epoch that is kept; the start is epoch 0."""
    display = TrainingCurveDisplay.from_estimator(model)
    for line, name in zip(display.lines_, ("train_loss", "valid_loss", "valid_score"), strict=True):
        start = [model.history_.start[name]] if name != "train_loss" else []
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3] if start else [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), [*start, *model.history_[:, name]])
        np.testing.assert_array_equal(model.history_[:, name], getattr(display, name))
    assert display.ax_ is not display.score_ax_
    assert display.best_epoch == model.best_epoch_
    assert legend(display.ax_) == ["training", "validation", f"kept: epoch {model.best_epoch_}"]
    assert display.score_ax_.get_ylabel() == "validation accuracy"


def test_the_untouched_start_is_what_was_kept(digits):
    """Where training only harms, the curve has the start, marked as kept, with the score that the estimator has."""
    X, y = digits[0][:60], digits[1][:60]
    settings = {"lr": 30.0, "lr_schedule": "constant", "max_epochs": 2, "early_stopping": True, "random_state": 0}
    model = FineTunedClassifier(**settings).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    display = TrainingCurveDisplay.from_estimator(model)
    assert display.best_epoch == 0
    assert legend(display.ax_)[-1] == "kept: initial weights"
    loss, score = (line.get_ydata() for line in display.lines_[1:])
    assert loss[0] == min(loss)
    assert score[0] == pytest.approx(model.score(X[40:], y[40:]))


def test_without_validation_there_is_one_panel(digits):
    """Losses alone need no second panel, and where nothing was judged, no epoch is called the one kept."""
    model = FineTunedRegressor(max_epochs=2, random_state=0).fit(digits[0][:40], digits[1][:40].astype(float))
    display = TrainingCurveDisplay.from_estimator(make_pipeline(model))
    assert display.score_ax_ is None
    assert display.valid_loss is None
    assert display.figure_.axes == [display.ax_]
    assert legend(display.ax_) == ["training"]


def test_the_score_of_a_regressor_is_named(digits):
    """What `score` of a regressor gives is the coefficient of determination."""
    X, y = digits[0][:40], digits[1][:40].astype(float)
    model = FineTunedRegressor(max_epochs=1, early_stopping=True, random_state=0).fit(X, y)
    assert TrainingCurveDisplay.from_estimator(model).score_ax_.get_ylabel() == "validation R²"


def test_a_history_with_gaps():
    """Plain rows do, epochs without validation leave a gap, and the start can be what is kept."""
    history = [{"train_loss": 2.0}, {"train_loss": 1.0, "valid_loss": 3.0}]
    _, ax = plt.subplots()
    display = TrainingCurveDisplay.from_history(history, best_epoch=0, ax=ax, line_kw={"marker": "x"})
    assert display.ax_ is ax
    np.testing.assert_array_equal(display.valid_loss, [np.nan, 3.0])
    assert legend(ax) == ["training", "validation", "kept: initial weights"]
    assert ax.lines[-1].get_xdata() == [0, 0]
    assert display.lines_[0].get_marker() == "x"


def test_one_epoch_is_seen():
    """A single point has a marker, and the axis counts whole epochs."""
    display = TrainingCurveDisplay.from_history([{"train_loss": 2.0}])
    assert display.lines_[0].get_marker() == "o"
    display.figure_.canvas.draw()
    assert all(tick == round(tick) for tick in display.ax_.get_xticks())


def test_nothing_to_draw(digits):
    """An estimator that was not fitted, or not trained at all, is an error that says so."""
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(FineTunedClassifier())
    with pytest.raises(
        ValueError, match=r"^The history must have at least one epoch with a .* Got an empty history instead\. Fit "
    ):
        TrainingCurveDisplay.from_estimator(FineTunedClassifier(max_epochs=0).fit(*digits))


def test_features_without_labels_have_panels():
    """What is watched in training without labels stands beside the loss, each in a panel that begins at zero."""
    history = [
        {"train_loss": 3.0, "std": 0.2, "effective_rank": 9.0},
        {"train_loss": 2.0, "std": 0.5, "effective_rank": 30.0},
    ]
    display = TrainingCurveDisplay.from_history(history)
    assert [ax.get_ylabel() for ax in display.feature_axes_] == ["std of the features", "effective rank"]
    assert display.figure_.axes == [display.ax_, *display.feature_axes_]
    assert [line.get_ydata().tolist() for line in display.lines_] == [[3, 2], [0.2, 0.5], [9, 30]]
    assert display.knn_accuracy is None
    history[1]["knn_accuracy"] = 0.7
    _, axes = plt.subplots(2, 2)
    display = TrainingCurveDisplay.from_history(history, ax=axes)
    assert display.feature_axes_ == axes.ravel().tolist()[1:]
    assert display.feature_axes_[2].get_ylabel() == "k-NN accuracy"
    assert display.feature_axes_[0].get_ylim()[0] == 0
    with pytest.raises(InputError, match=r"TrainingCurveDisplay has 4 panels\. Got 2 Axes instead"):
        TrainingCurveDisplay.from_history(history, ax=axes[0])


def test_losses_alone_may_come_in_an_array():
    """A single panel takes an array of one Axes as well."""
    _, axes = plt.subplots(1, 1, squeeze=False)
    assert TrainingCurveDisplay.from_history([{"train_loss": 2.0}], ax=axes).ax_ is axes[0, 0]
