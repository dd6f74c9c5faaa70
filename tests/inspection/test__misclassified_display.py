"""The confusion view: which mistakes, in which order, with which pictures."""

import operator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl.exceptions import ImageError, ImageWarning
from sktl.inspection import MisclassifiedDisplay


def titles(display):
    return [panel.get_title() for panel in display.image_axes_]


def pixels(n, n_channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, 10, 14, n_channels), dtype=np.uint8)


def test_from_estimator(model, digits):
    """The matrix is scikit-learn's, and the mistakes are all there are, the most confident one first."""
    X, y = digits[0][150:], digits[1][150:]
    display = MisclassifiedDisplay.from_estimator(model, X, y, n_images=2)
    predicted, probabilities = model.predict(X), model.predict_proba(X)
    np.testing.assert_array_equal(display.confusion_matrix, confusion_matrix(y, predicted))
    assert set(display.positions) == set(np.flatnonzero(predicted != y))
    np.testing.assert_array_equal(display.true_labels, y[display.positions])
    np.testing.assert_array_equal(display.predicted_labels, predicted[display.positions])
    np.testing.assert_array_equal(display.probabilities, probabilities.max(1)[display.positions])
    assert (np.diff(display.probabilities) <= 0).all()
    assert len(display.images) == len(display.image_axes_) == 2
    first = display.positions[0]
    assert titles(display)[0] == f"{predicted[first]} ({probabilities[first].max():.2f})\ntrue: {y[first]}"
    shown = np.asarray(display.image_axes_[0].images[0].get_array())
    np.testing.assert_array_equal(shown[..., 0], np.rint(X[first].reshape(8, 8) * 255))


def test_the_pictures_are_read_as_at_fit(digits):
    """The value range learnt at `fit` holds, also behind a pipeline: dim pictures are shown dim."""
    X, y = digits[0] * 16, digits[1]  # a range of its own: neither 0-1 nor 0-255
    with pytest.warns(ImageWarning, match="from 0 to 16"):
        pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=2000)).fit(X, y)
    dim = X[:10] / 4
    display = MisclassifiedDisplay.from_estimator(pipe, dim, (y[:10] + 1) % 10)
    assert max(photo.max() for photo in display.images) == 64


def test_the_pictures_that_reach_the_network(digits):
    """Where a pipeline has a step before it, those are shown that the step gives: a column of a table, for one."""
    pictures = [np.rint(row.reshape(8, 8) * 255).astype(np.uint8) for row in digits[0][:20]]
    table, y = pd.DataFrame({"photo": pictures, "price": range(20)}), digits[1][:20] % 2
    choose = FunctionTransformer(operator.itemgetter("photo"))
    pipe = make_pipeline(choose, FineTunedClassifier(max_epochs=0)).fit(table, y)
    display = MisclassifiedDisplay.from_estimator(pipe, table, 1 - pipe.predict(table), n_images=3)
    for position, photo in zip(display.positions, display.images, strict=False):
        np.testing.assert_array_equal(photo[..., 0], pictures[position])


def test_every_kind_of_pictures(image_source):
    """Each kind that ``X`` may have is decoded to the pixels that were put in."""
    display = MisclassifiedDisplay.from_predictions(
        image_source.X,
        ["a", "b"] * 3,
        ["a"] * 6,
        image_shape=(12, 12, 3) if image_source.kind.startswith("rows") else None,
    )
    np.testing.assert_array_equal(display.positions, [1, 3, 5])
    np.testing.assert_array_equal(display.images, image_source.pixels[1::2])
    assert titles(display) == ["a\ntrue: b"] * 3


@pytest.mark.parametrize("form", ["all labels", "predicted label"])
def test_order_by_probability(form):
    """Probabilities of all labels, in the order of ``labels``, or of the predicted ones alone, give the same order."""
    y_true, y_pred = np.array(["b", "b", "c", "a"]), np.array(["a", "c", "a", "a"])
    table = np.array([[0.2, 0.1, 0.7], [0.6, 0.0, 0.4], [0.1, 0.0, 0.9], [0.0, 0.0, 1.0]])
    proba = table if form == "all labels" else [0.7, 0.6, 0.9, 1.0]
    display = MisclassifiedDisplay.from_predictions(pixels(4), y_true, y_pred, proba, labels=["c", "b", "a"])
    np.testing.assert_array_equal(display.positions, [2, 0, 1])
    np.testing.assert_array_equal(display.probabilities, [0.9, 0.7, 0.6])
    assert titles(display) == ["a (0.90)\ntrue: c", "a (0.70)\ntrue: b", "c (0.60)\ntrue: b"]
    np.testing.assert_array_equal(display.display_labels, ["c", "b", "a"])


def test_without_mistakes():
    """Where all is right there is a matrix, a line that says so, and no picture."""
    display = MisclassifiedDisplay.from_predictions(pixels(3), [0, 1, 1], [0, 1, 1])
    assert display.image_axes_ == display.images == []
    assert display.images_ax_.get_title() == "no errors"
    assert display.ax_.get_title().startswith("0 of 3 images misclassified")


def test_without_photos():
    """Mistakes can be counted without being shown."""
    display = MisclassifiedDisplay.from_predictions(pixels(3), [0, 1, 1], [1, 1, 1], n_images=0)
    assert (len(display.positions), display.image_axes_) == (1, [])


@pytest.mark.parametrize("n_classes", [2, 12, 20, 100])
def test_few_and_many_classes(n_classes):
    """Counts are written where they can be read, names where they fit; else a scale of colours says what is what."""
    y_true = np.arange(200) % n_classes
    y_pred = np.roll(y_true, 1)
    display = MisclassifiedDisplay.from_predictions(pixels(200), y_true, y_pred)
    assert display.confusion_matrix.shape == (n_classes, n_classes)
    assert (display.confusion_.text_ is not None) == (n_classes <= 12)
    assert len(display.ax_.get_xticks()) == (n_classes if n_classes <= 30 else 0)
    assert len(display.ax_.child_axes) == (n_classes > 12)


def test_a_label_that_the_classifier_never_saw(model, digits):
    """It has a row of its own in the matrix, and nothing is ever taken for it."""
    y = digits[1][:20].copy()
    y[:5] = 77
    display = MisclassifiedDisplay.from_estimator(model, digits[0][:20], y)
    assert display.display_labels[-1] == 77
    assert display.confusion_matrix[-1].sum() == 5
    assert display.confusion_matrix[:, -1].sum() == 0


def test_without_probabilities(digits):
    """A classifier that gives none has its mistakes shown in the order of the table."""
    X, y = digits
    pipe = make_pipeline(PretrainedFeatureExtractor(), LinearSVC(C=1e-4)).fit(X, y)
    display = MisclassifiedDisplay.from_estimator(pipe, X, y)
    assert display.probabilities is None
    assert (np.diff(display.positions) > 0).all()
    assert "(" not in titles(display)[0]


def test_a_picture_that_cannot_be_read(tmp_path):
    """Its place says so, and the others are shown."""
    X = pd.Series([str(tmp_path / "not there.png"), pixels(1)[0]])
    display = MisclassifiedDisplay.from_predictions(X, [0, 1], [1, 0])
    assert display.images[0] is None
    assert display.image_axes_[0].texts[0].get_text() == "cannot be read"
    assert len(display.image_axes_[1].images) == 1


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
def test_any_number_of_channels(n_channels):
    """Grey is shown as grey, and of more channels than three the first ones in colour."""
    X = pixels(1, n_channels)
    display = MisclassifiedDisplay.from_predictions(X, [0], [1], in_channels=n_channels, channels="last")
    shown = np.asarray(display.image_axes_[0].images[0].get_array())
    expected = X[0, :, :, :1] if n_channels < 3 else X[0, :, :, :3]
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, (10, 14, 3)))


def test_long_and_odd_names_fit():
    """Long names are whole, on several lines if need be; a dollar sign begins no formula; a tab is no box."""
    y_true, y_pred = ["a very long name of a class indeed", "$x_$"], ["the other\tname that is as long as that", "b"]
    display = MisclassifiedDisplay.from_predictions(pixels(2), y_true, y_pred)
    whole = "the other name that is as long as that true: a very long name of a class indeed"
    assert titles(display)[0].replace("\n", " ") == whole
    assert titles(display)[1] == "b\ntrue: \\$x_\\$"


def test_where_it_is_drawn():
    """Two axes are taken; one is divided."""
    figure, axes = plt.subplots(1, 2)
    display = MisclassifiedDisplay.from_predictions(pixels(2), [0, 1], [1, 1], ax=axes, cmap="Greens")
    assert (display.ax_, display.images_ax_) == tuple(axes)
    assert display.confusion_.im_.get_cmap().name == "Greens"
    figure, axes = plt.subplots(1, 2)
    assert MisclassifiedDisplay.from_predictions(pixels(2), [0, 1], [1, 1], ax=axes[0]).figure_ is figure


def test_bad_input(model, digits):
    """Lengths that differ, probabilities of other labels, regressors, and tables of several columns are errors."""
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MisclassifiedDisplay.from_predictions(pixels(3), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MisclassifiedDisplay.from_predictions(pixels(2), [0, 1], [0, 1], [0.5])
    with pytest.raises(ValueError, match=r"y_proba has shape \(2, 3\), but there are 2 labels\. Pass labels"):
        MisclassifiedDisplay.from_predictions(pixels(2), [0, 1], [0, 1], np.ones((2, 3)) / 3)
    with pytest.raises(ValueError, match=r"^MisclassifiedDisplay needs a classifier\. Got "):
        MisclassifiedDisplay.from_estimator(FineTunedRegressor(max_epochs=0).fit(*digits), *digits)
    with pytest.raises(NotFittedError):
        MisclassifiedDisplay.from_estimator(FineTunedClassifier(), *digits)
    with pytest.raises(ImageError, match="Select the column with the paths"):
        MisclassifiedDisplay.from_predictions(pd.DataFrame({"a": ["x"], "b": ["y"]}), [0], [1])
