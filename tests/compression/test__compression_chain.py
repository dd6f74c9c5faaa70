"""What a compressed classifier was made of: the original and every model after it, each by a name of its own."""

import pickle

import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sktl.compression._compression_chain import MadeOfAnother, compression_chain, original_of


class Original(ClassifierMixin, BaseEstimator):
    """What is compressed: here, nothing that could be smaller."""

    def fit(self, X, y):
        self.classes_ = [0, 1]
        return self

    def predict(self, X):
        return [0] * len(X)


class Compressor(MadeOfAnother, ClassifierMixin, BaseEstimator):
    """What a compressor leaves behind."""

    def __init__(self, estimator=None, amount=0.5):
        self.estimator = estimator
        self.amount = amount

    def fit(self, X, y):
        self._original = self.estimator.fit(X, y)
        self.classes_ = [0, 1]
        return self

    def predict(self, X):
        return [0] * len(X)

    def __getstate__(self):
        return {**super().__getstate__(), "_original": None}


class PrunedClassifier(Compressor):
    pass


class LowRankClassifier(Compressor):
    pass


class QuantizedClassifier(Compressor):
    scheme = "float16"


X, Y = [[0.0]] * 6, [0, 1] * 3


def test_one_step():
    """The one that was fitted and what came of it, the original first."""
    model = PrunedClassifier(Original()).fit(X, Y)
    assert compression_chain(model) == {"original": model._original, "pruned": model}


def test_steps_have_names_of_their_own():
    """What was done, in words; a scheme where there is one; a number where it was done before."""
    model = Original()
    models = [model]
    for kind in (PrunedClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier, PrunedClassifier):
        model = kind(FrozenEstimator(model.fit(X, Y))).fit(X, Y)
        models.append(model)
    chain = compression_chain(model)
    assert list(chain) == ["original", "pruned", "low rank", "pruned (2)", "float16", "pruned (3)"]
    assert all(found is expected for found, expected in zip(chain.values(), models, strict=True))


@pytest.mark.parametrize("is_frozen", [False, True])
def test_searches_are_looked_through(is_frozen):
    """The best candidate's original is meant; the search itself is the model."""
    search = GridSearchCV(PrunedClassifier(Original()), {"amount": [0.1, 0.2]}, cv=2).fit(X, Y)
    model = QuantizedClassifier(FrozenEstimator(search) if is_frozen else search).fit(X, Y)
    chain = compression_chain(model)
    assert list(chain) == ["original", "pruned", "float16"]
    assert chain["pruned"] is search
    assert chain["original"] is search.best_estimator_._original
    assert compression_chain(search) == {"original": chain["original"], "pruned": search}


def test_of_a_pickle_only_itself_is_left():
    """The original is not in it, and so what is there is where a chain begins."""
    model = pickle.loads(pickle.dumps(PrunedClassifier(Original()).fit(X, Y)))
    assert compression_chain(model) == {"original": model}
    further = LowRankClassifier(FrozenEstimator(model)).fit(X, Y)
    assert compression_chain(further) == {"original": model, "low rank": further}


def test_what_it_was_made_of():
    """The original of a compressor, also of one that a search has found; what was not compressed has none."""
    search = GridSearchCV(PrunedClassifier(Original()), {"amount": [0.5]}, cv=2).fit(X, Y)
    assert original_of(search) is search.best_estimator_._original
    assert original_of(PrunedClassifier(Original())) is None
    assert original_of(Original().fit(X, Y)) is None
