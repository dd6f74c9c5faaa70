"""A compressed model beside its original: which models are compared, what they are called, what came of what."""

import pickle

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktl.compression._compression_chain import MadeOfAnother
from sktl.inspection import CompressionDisplay


class Compressed(MadeOfAnother, LogisticRegression):
    """What a compressor looks like from outside: it has an original, which a pickle of it has not."""

    def __init__(self, estimator=None, C=1.0):
        super().__init__(C=C)
        self.estimator = estimator

    def fit(self, X, y):
        self._original = self.estimator.fit(X, y)
        return super().fit(X, y)

    def __getstate__(self):
        return {**super().__getstate__(), "_original": None}


class PrunedClassifier(Compressed):
    pass


class LowRankClassifier(Compressed):
    pass


class QuantizedClassifier(Compressed):
    scheme = "int8"


def test_original_and_compressed(digits, measured):
    """The original is the one that was compressed; an arrow leads from it."""
    X, y = digits[0][:100], digits[1][:100]
    model = PrunedClassifier(LogisticRegression(), C=0.01).fit(X, y)
    display = CompressionDisplay.from_estimator(model, X, y, n_timed=10, n_repeats=2)
    assert display.names == ["original", "pruned"]
    assert display.origins == {"pruned": "original"}
    assert [(model, len(some), n) for model, some, n in measured] == [(model._original, 10, 2), (model, 10, 2)]
    np.testing.assert_array_equal(display.scores, [model._original.score(X, y), model.score(X, y)])


def test_each_step_of_a_stack(digits, measured):
    """What was compressed several times is drawn step by step, a frozen one as well, and no name stands twice."""
    X, y = digits[0][:60], digits[1][:60]
    first = PrunedClassifier(LogisticRegression(), C=0.5).fit(X, y)
    second = LowRankClassifier(FrozenEstimator(first), C=0.1).fit(X, y)
    model = PrunedClassifier(FrozenEstimator(second), C=0.01).fit(X, y)
    display = CompressionDisplay.from_estimator(model, X, y, n_repeats=1)
    assert display.names == ["original", "pruned", "low rank", "pruned (2)"]
    assert display.origins == {"pruned": "original", "low rank": "pruned", "pruned (2)": "low rank"}
    assert [model for model, _, _ in measured] == [first._original, first, second, model]


def test_a_search_over_compressors(digits, measured):
    """The original is that of the best candidate."""
    X, y = digits[0][:60], digits[1][:60]
    search = GridSearchCV(PrunedClassifier(LogisticRegression()), {"C": [0.1, 0.01]}, cv=2).fit(X, y)
    display = CompressionDisplay.from_estimator(search, X, y, n_repeats=1, scoring="f1_macro")
    assert [model for model, _, _ in measured] == [search.best_estimator_._original, search]
    assert (display.names, display.score_name) == (["original", "pruned"], "f1_macro")


def test_what_a_search_found_is_compressed(digits, measured):
    """A step that a search chose is one of the chain; a scheme says more than the name of a class."""
    X, y = digits[0][:60], digits[1][:60]
    search = GridSearchCV(PrunedClassifier(LogisticRegression()), {"C": [0.1, 0.01]}, cv=2)
    model = QuantizedClassifier(search).fit(X, y)
    assert CompressionDisplay.from_estimator(model, X, y, n_repeats=1).names == ["original", "pruned", "int8"]
    assert [model for model, _, _ in measured] == [search.best_estimator_._original, search, model]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (PrunedClassifier(), NotFittedError, "not fitted"),
        (
            LogisticRegression().fit([[0], [1]], [0, 1]),
            ValueError,
            "LogisticRegression does not hold the original model: it is not a compressor.*from_estimators",
        ),
        (
            pickle.loads(pickle.dumps(PrunedClassifier(LogisticRegression()).fit([[0], [1]], [0, 1]))),
            ValueError,
            "PrunedClassifier does not hold the original model.*it was pickled, which drops the original",
        ),
    ],
)
def test_bad_input(digits, model, error, message):
    """Each is an error that says what is wrong and what to give."""
    with pytest.raises(error, match=message):
        CompressionDisplay.from_estimator(model, digits[0][:50], digits[1][:50])
