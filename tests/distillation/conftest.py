"""Quick students, and teachers that can be watched."""

from collections import defaultdict

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from sktl import DistilledClassifier, DistilledRegressor, FineTunedClassifier
from sktl._frozen._cache import open_cache
from sktl.distillation import _teacher

_CALLS: dict[str, list] = defaultdict(list)


class Watched(ClassifierMixin, BaseEstimator):
    """Notes what it is asked, outside of itself, so that asking it does not change it.

    It knows the labels and their share among the rows that are as bright as the one asked about, more or less.
    """

    def __init__(self, sharpness=3.0, random_state=0):
        self.sharpness = sharpness
        self.random_state = random_state

    def fit(self, X, y):
        """Keep the mean of each class."""
        X = np.asarray(X, float).reshape(len(X), -1)
        _CALLS["fit"].append(X)
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[np.asarray(y) == label].mean(0) for label in self.classes_])
        return self

    def predict_proba(self, X):
        """The nearer the mean, the more probable."""
        check_is_fitted(self)
        _CALLS["ask"].append(X)
        X = np.asarray(X, float).reshape(len(X), -1)
        scores = np.exp(-self.sharpness * np.square(X[:, None] - self.means_).sum(2) / 10)
        return scores / scores.sum(1, keepdims=True)

    def predict(self, X):
        """The most probable label."""
        return self.classes_[self.predict_proba(X).argmax(1)]


class WatchedRegressor(RegressorMixin, BaseEstimator):
    """The mean of a picture's pixels, times what `fit` learnt, in as many columns as the targets had."""

    def fit(self, X, y):
        """Keep the targets' mean."""
        _CALLS["fit"].append(np.asarray(X))
        self.mean_ = np.mean(y, axis=0)
        return self

    def predict(self, X):
        """One number for each target."""
        check_is_fitted(self)
        _CALLS["ask"].append(X)
        brightness = np.asarray(X, float).reshape(len(X), -1).mean(1)
        return np.multiply.outer(brightness, self.mean_)


class Calls:
    """What watched teachers were asked since the test began."""

    @property
    def n_fits(self) -> int:
        """How often one was fitted."""
        return len(_CALLS["fit"])

    @property
    def asked(self) -> list:
        """The tables they were asked about, without the first few rows that say what their answers are."""
        return _CALLS["ask"]

    @property
    def n_asked(self) -> int:
        """How many pictures they were asked about."""
        return sum(map(len, _CALLS["ask"]))

    def fail_at(self, sum_of_tens: int) -> None:
        """Fail when so many tables of ten rows have been asked about, and leave the teachers as they are."""

        class Full(list):
            def append(self, table):
                super().append(table)
                if sum(len(asked) == 10 for asked in self) == sum_of_tens:
                    raise RuntimeError("out of memory")

        _CALLS["ask"] = Full()

    def forget(self) -> None:
        """Begin to count anew."""
        _CALLS.clear()


@pytest.fixture
def calls() -> Calls:
    """Counts what watched teachers are asked, from nothing known: the caches of the process are emptied."""
    open_cache("auto").clear()
    _teacher._FITTED.clear()
    _CALLS.clear()
    return Calls()


@pytest.fixture
def watched():
    """A classifier that notes what it is asked."""
    return Watched()


@pytest.fixture
def watched_regressor():
    """A regressor that notes what it is asked."""
    return WatchedRegressor()


@pytest.fixture
def rows(digits):
    """Thirty digits as flat rows (30, 64) from 0 to 1, and their labels, 0 to 2."""
    X, y = digits
    return X.reshape(30, -1), y


@pytest.fixture
def make(quick):
    """Makes a student of a classifier that fits in no time."""

    def make_student(teacher=None, student="sktl_mini", **params):
        teacher = LogisticRegression(C=0.1) if teacher is None else teacher
        return DistilledClassifier(teacher, student, **{**quick, **params})

    return make_student


@pytest.fixture
def make_regressor(quick):
    """Makes a student of a regressor that fits in no time."""
    return lambda teacher, student="sktl_mini", **params: DistilledRegressor(teacher, student, **{**quick, **params})


@pytest.fixture(scope="session")
def network():
    """A fitted classifier with a network, for knowledge of layers."""
    X, y = load_digits(n_class=3, return_X_y=True)
    settings = {"freeze_depth": "all", "max_epochs": 1, "lr": 0.001, "random_state": 0}
    return FrozenEstimator(FineTunedClassifier(**settings).fit(X[:60] / 16, y[:60]))


@pytest.fixture(scope="session")
def stranger():
    """A fitted classifier with a network that no student begins with."""
    X, y = load_digits(n_class=3, return_X_y=True)
    settings = {"weights": None, "freeze_depth": "all", "max_epochs": 1, "lr": 0.001, "random_state": 0}
    return FrozenEstimator(FineTunedClassifier(**settings).fit(X[:60] / 16, y[:60]))
