"""Classification by a model of each class: with any estimator that has scores, and with a label for outliers."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl.anomaly import AnomalyDetector
from sktl.autoencoders import Autoencoder, ReconstructionClassifier
from sktl.exceptions import InputError


@parametrize_with_checks([ReconstructionClassifier()])
def test_all_of_check_estimator(estimator, check):
    """Built with its defaults, it passes every common check of scikit-learn; none is excluded."""
    check(estimator)


@pytest.fixture(scope="module")
def table():
    """Digits of three kinds and their labels as strings: 300 to learn from and 200 others."""
    X, y = load_digits(n_class=3, return_X_y=True)
    y = np.array(["zero", "one", "two"])[y]
    return X[:300], y[:300], X[300:500], y[300:500]


QUICK = {"n_components": 5, "hidden_layer_sizes": (16,), "max_epochs": 3, "random_state": 0}
ESTIMATORS = {
    "autoencoder": Autoencoder(**QUICK),
    "PCA": PCA(5),
    "mixture": GaussianMixture(reg_covar=0.1, random_state=0),
    "density": KernelDensity(bandwidth=5),
    "forest": IsolationForest(random_state=0),
    "detector": AnomalyDetector(contamination=0.1, preprocessing={"resize_size": 16, "crop_size": 16}),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_estimator_with_scores(table, name):
    """The label is that of the highest score, whoever gives it."""
    X, y, new, labels = table
    scale = 16 if name == "detector" else 1
    model = ReconstructionClassifier(ESTIMATORS[name]).fit(X / scale, y)
    assert model.classes_.tolist() == ["one", "two", "zero"]
    assert model.score(new / scale, labels) > 0.8
    scores = model.decision_function(new / scale)
    expected = [estimator.score_samples(new / scale) for estimator in model.estimators_]
    np.testing.assert_allclose(scores, np.transpose(expected))
    np.testing.assert_array_equal(model.predict(new / scale), model.classes_[scores.argmax(1)])
    assert not hasattr(model, "predict_proba")


def test_each_class_has_an_estimator_of_its_rows(table):
    """What is fitted to a class is what a clone fitted to its rows alone is."""
    X, y, new, _ = table
    model = ReconstructionClassifier(PCA(3)).fit(X, y)
    for label, estimator in zip(model.classes_, model.estimators_, strict=True):
        np.testing.assert_array_equal(estimator.score_samples(new), PCA(3).fit(X[y == label]).score_samples(new))


def test_two_classes(table):
    """The decision is the difference of the two scores."""
    X, y, _, _ = table
    kept = y != "two"
    model = ReconstructionClassifier(PCA(3)).fit(X[kept], y[kept])
    scores = [estimator.score_samples(X) for estimator in model.estimators_]
    np.testing.assert_allclose(model.decision_function(X), scores[1] - scores[0])


def test_outliers(table):
    """Rows that no class takes for its own get the label, which may be longer than the others; the rest stay."""
    X, y, new, _ = table
    given = np.vstack([new[:50], 16 - new[:50]])
    plain = ReconstructionClassifier(Autoencoder(**QUICK)).fit(X, y).predict(given)
    labels = ReconstructionClassifier(Autoencoder(**QUICK), outlier_label="something else").fit(X, y).predict(given)
    is_outlier = labels == "something else"
    assert is_outlier[50:].all()
    assert is_outlier[:50].mean() < 0.3
    np.testing.assert_array_equal(labels[~is_outlier], plain[~is_outlier])
    numbers = np.unique(y, return_inverse=True)[1]
    predicted = ReconstructionClassifier(Autoencoder(**QUICK), outlier_label=-1).fit(X, numbers).predict(given)
    assert (predicted == -1).tolist() == is_outlier.tolist()
    assert predicted.dtype.kind == "i"


def test_bad_outlier_labels(table):
    """An estimator without a threshold has no outliers, and the label is of the type of the others."""
    X, y, _, _ = table
    with pytest.raises(InputError, match="outlier_label needs an estimator with decision_function"):
        ReconstructionClassifier(PCA(3), outlier_label="other").fit(X, y)
    with pytest.raises(InputError, match="'outlier_label' parameter must be of the type of the labels, such as 'one'"):
        ReconstructionClassifier(Autoencoder(**QUICK), outlier_label=-1).fit(X, y)


def test_a_class_with_one_row(table):
    """It is named."""
    X, y, _, _ = table
    y = np.where(np.arange(300) == 7, "seven", y)
    with pytest.raises(InputError, match=r"a single row of classes \['seven'\] instead"):
        ReconstructionClassifier(PCA(3)).fit(X, y)


def test_an_error_names_the_class(table):
    """Positions in the message of an estimator are those in the rows of this class."""
    X, y, _, _ = table
    X = np.where((y == "one")[:, np.newaxis], X[:1], X)
    with pytest.raises(InputError, match="at least two different rows") as caught:
        ReconstructionClassifier(Autoencoder(**QUICK)).fit(X, y)
    assert f"{(y == 'one').sum()} rows of class 'one'" in caught.value.__notes__[0]


def test_no_scores(digits):
    """A model that gives NaN cannot be classified by."""

    class Broken(PCA):
        def score_samples(self, X):
            return np.full(len(X), np.nan)

    X, y = digits[0].reshape(30, -1), digits[1]
    model = ReconstructionClassifier(Broken(2)).fit(X, y)
    with pytest.raises(InputError, match=r"30 of 30 rows have a score of NaN.*position 0"):
        model.predict(X)


def test_it_is_searched(table):
    """Parameters of the estimator are searched by their nested names."""
    X, y, _, _ = table
    search = GridSearchCV(ReconstructionClassifier(PCA()), {"estimator__n_components": [1, 10]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
