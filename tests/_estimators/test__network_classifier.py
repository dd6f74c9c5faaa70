"""What all classifiers with a network predict: labels, probabilities, and scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from sktl import FineTunedClassifier
from sktl.exceptions import ImageError, ImageWarning


@pytest.fixture
def make(quick):
    """Makes a classifier that fits in no time."""
    return lambda **params: FineTunedClassifier(**{**quick, **params})


@pytest.mark.parametrize(
    "names",
    [
        ["zebra", "ant", "mouse"],
        np.array(["zebra", "ant", "mouse"], dtype=object),
        [100, -7, 3],
        [2.0, 10.0, -1.0],
        np.array([3, 200, 100], dtype=np.uint8),
        [True, False, True],
    ],
    ids=lambda names: type(names[0]).__name__ + str(getattr(names, "dtype", "")),
)
@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Categorical])
def test_labels_of_any_kind(digits, make, names, kind):
    """Sorted labels are the classes and the columns; predictions are labels as they were given."""
    X, y = digits
    labels = [names[label] for label in y]
    model = make().fit(X, kind(labels))
    expected = np.unique(labels)
    np.testing.assert_array_equal(model.classes_, expected)
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    assert accuracy_score(np.asarray(labels), predicted) > 0.9
    assert model.score(X, labels) == accuracy_score(np.asarray(labels), predicted)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (30, len(expected))
    np.testing.assert_array_equal(expected[probabilities.argmax(1)], predicted)
    assert (probabilities[np.arange(30), np.searchsorted(expected, labels)] > 0.5).mean() > 0.9


def test_outputs_go_together(digits, make):
    """Logits, probabilities and their logarithms say the same; two classes have one column of logits."""
    X, y = digits
    model = make().fit(X, y)
    logits, probabilities = model.decision_function(X), model.predict_proba(X)
    assert logits.shape == probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), probabilities, rtol=1e-4)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probabilities, rtol=1e-5)
    binary = make().fit(X, y == 1)
    margin = binary.decision_function(X)
    assert margin.shape == (30,)
    np.testing.assert_array_equal(margin > 0, binary.predict(X))
    np.testing.assert_allclose(1 / (1 + np.exp(-margin)), binary.predict_proba(X)[:, 1], rtol=1e-4)


def test_the_validation_score_is_that_of_the_estimator(digits, make):
    """The history has what score() says of X_val, with its weights and without those of the classes."""
    X, y = digits
    y_val = np.where(np.arange(12) < 3, 2, y[:12])  # two are wrong
    weight = np.arange(1.0, 13)
    model = make(class_weight={0: 9, 1: 1, 2: 0.1}).fit(X, y, X_val=X[:12], y_val=y_val)
    assert model.history_[-1, "valid_score"] == pytest.approx(model.score(X[:12], y_val))
    model.fit(X, y, X_val=X[:12], y_val=y_val, sample_weight_val=weight)
    assert model.history_[-1, "valid_score"] == pytest.approx(model.score(X[:12], y_val, weight))
    assert model.score(X[:12], y_val, weight) != pytest.approx(model.score(X[:12], y_val))


def test_images_that_cannot_be_read_have_no_label(digits, make):
    """With on_error="nan" they have probabilities of NaN and a warning, are left out of the score, and no label."""
    X, y = [*np.rint(255 * digits[0]).astype(np.uint8)], digits[1]
    model = make(on_error="nan").fit(X, y)
    broken = [*X[:4], "missing.png"]
    with pytest.warns(ImageWarning, match="Image 4"):
        probabilities = model.predict_proba(broken)
    np.testing.assert_array_equal(np.isnan(probabilities).any(1), [False] * 4 + [True])
    with pytest.raises(ImageError, match=r"Image 4 .*missing\.png"):
        model.predict(broken)
    with pytest.warns(ImageWarning, match="Image 4"):
        assert model.score(broken, [*y[:4], 0]) == model.score(X[:4], y[:4])
