"""Fitted attributes in pipelines and searches."""

import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._engine._fitted import find_fitted, require_fitted


def test_it_is_found_wherever_it_is(digits):
    """In the estimator itself, around it, in a pipeline, and in the pipeline that a search found best."""
    X, y = digits
    extractor = PretrainedFeatureExtractor().fit(X)
    assert find_fitted(extractor, "layers_") is extractor
    assert find_fitted(FrozenEstimator(extractor), "layers_").layers_ == extractor.layers_
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    assert find_fitted(pipe, "layers_") is None
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1]}, cv=2).fit(X, y)
    assert find_fitted(search, "layers_") is search.best_estimator_[0]


def test_it_is_found_in_what_wraps_one_estimator(digits):
    """A regressor of transformed targets, a threshold of a search's best; the template of an ensemble is not fitted."""
    X, y = digits[0].reshape(30, -1), digits[1]
    settings = {"freeze_depth": "all", "max_epochs": 1}
    wrapped = TransformedTargetRegressor(FineTunedRegressor(**settings)).fit(X, y)
    assert find_fitted(wrapped, "history_") is wrapped.regressor_
    search = GridSearchCV(FineTunedClassifier(**settings), {"lr": [0.001]}, cv=2)
    threshold = FixedThresholdClassifier(search).fit(X, y % 2)
    assert find_fitted(threshold, "history_") is threshold.estimator_.best_estimator_
    calibrated = CalibratedClassifierCV(FrozenEstimator(threshold.estimator_.best_estimator_)).fit(X, y % 2)
    assert find_fitted(calibrated, "history_").history_ is threshold.estimator_.best_estimator_.history_
    bag = BaggingClassifier(FineTunedClassifier(**settings), n_estimators=1).fit(X, y)
    assert find_fitted(bag, "history_") is None


def test_what_is_not_there():
    """Without a fit that is said; an estimator that never has it is told from one that is not fitted."""
    with pytest.raises(NotFittedError):
        require_fitted(FineTunedClassifier(), "history_", "it was not trained")
    with pytest.raises(ValueError, match="LogisticRegression has no history_: it was not trained"):
        require_fitted(LogisticRegression().fit([[0], [1]], [0, 1]), "history_", "it was not trained")
