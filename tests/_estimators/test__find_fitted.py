"""Fitted attributes in pipelines and searches."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktl import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktl._estimators._find_fitted import FittedPart, find_fitted, require_fitted
from sktl.selection import BackboneSelector


def test_it_is_found_wherever_it_is(digits):
    """In the estimator itself, around it, in a pipeline, and in the pipeline that a search found best."""
    X, y = digits
    extractor = PretrainedFeatureExtractor().fit(X)
    assert find_fitted(extractor, "layers_").estimator is extractor
    assert find_fitted(FrozenEstimator(extractor), "layers_").estimator.layers_ == extractor.layers_
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=1000))
    assert find_fitted(pipe, "layers_") is None
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1]}, cv=2).fit(X, y)
    assert find_fitted(search, "layers_").estimator is search.best_estimator_[0]


def test_it_is_found_in_what_wraps_one_estimator(digits):
    """A regressor of transformed targets, a threshold of a search's best; the template of an ensemble is not fitted."""
    X, y = digits[0].reshape(30, -1), digits[1]
    settings = {"freeze_depth": "all", "max_epochs": 1}
    wrapped = TransformedTargetRegressor(FineTunedRegressor(**settings)).fit(X, y)
    assert find_fitted(wrapped, "history_").estimator is wrapped.regressor_
    search = GridSearchCV(FineTunedClassifier(**settings), {"lr": [0.001]}, cv=2)
    threshold = FixedThresholdClassifier(search).fit(X, y % 2)
    assert find_fitted(threshold, "history_").estimator is threshold.estimator_.best_estimator_
    calibrated = CalibratedClassifierCV(FrozenEstimator(threshold.estimator_.best_estimator_)).fit(X, y % 2)
    assert find_fitted(calibrated, "history_").estimator.history_ is threshold.estimator_.best_estimator_.history_
    bag = BaggingClassifier(FineTunedClassifier(**settings), n_estimators=1).fit(X, y)
    assert find_fitted(bag, "history_") is None
    votes = VotingClassifier([("a", FineTunedClassifier(**settings)), ("b", LogisticRegression())]).fit(X, y)
    assert find_fitted(votes, "history_").estimator is votes.estimators_[0]
    assert find_fitted(votes, "history_").reached_by(X) is X


def test_what_is_not_there():
    """Without a fit that is said; an estimator that never has it is told from one that is not fitted."""
    with pytest.raises(NotFittedError):
        require_fitted(FineTunedClassifier(), "history_", "it was not trained")
    with pytest.raises(ValueError, match="LogisticRegression has no history_: it was not trained"):
        require_fitted(LogisticRegression().fit([[0], [1]], [0, 1]), "history_", "it was not trained")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda pipe, X, y: pipe.fit(X, y),
        lambda pipe, X, y: FrozenEstimator(pipe.fit(X, y)),
        lambda pipe, X, y: GridSearchCV(pipe, {"finetunedclassifier__lr": [0.1]}, cv=2).fit(X, y),
        lambda pipe, X, y: CalibratedClassifierCV(FrozenEstimator(pipe.fit(X, y)), cv=2).fit(X, y),
        lambda pipe, X, y: make_pipeline(*[FunctionTransformer(np.fliplr) for _ in range(2)], pipe).fit(X, y),
    ],
    ids=["pipeline", "frozen", "search", "calibrated", "pipeline in a pipeline"],
)
def test_pictures_go_through_the_steps_before_the_network(digits, wrap):
    """Wherever the pipeline is, the network gets what the step before it gives."""
    X, y = digits[0][:20], digits[1][:20] % 2
    pipe = make_pipeline("passthrough", FunctionTransformer(np.fliplr), FineTunedClassifier(max_epochs=0))
    part = find_fitted(wrap(pipe, X, y), "net_")
    assert isinstance(part.estimator, FineTunedClassifier)
    assert part.net is part.estimator.net_
    np.testing.assert_array_equal(part.reached_by(X), X[:, ::-1])


def test_what_cannot_be_reached(digits):
    """Without such a part there is none; nor where there is one for each fold."""
    X, y = digits[0][:20].reshape(20, -1), digits[1][:20] % 2
    pipe = make_pipeline(FunctionTransformer(np.fliplr), LogisticRegression()).fit(X, y)
    assert find_fitted(pipe, "net_") is None
    folds = CalibratedClassifierCV(FineTunedClassifier(max_epochs=0), cv=2).fit(X, y)
    assert find_fitted(folds, "net_") is None
    target = TransformedTargetRegressor(FineTunedRegressor(max_epochs=0)).fit(X, y.astype(float))
    assert find_fitted(target, "net_").estimator is target.regressor_


@pytest.mark.parametrize("kind", ["frame", "array"])
def test_the_one_network_of_a_table(digits, kind):
    """It gets its own columns, of whatever came before the table; and all of them in a union."""
    rows, y = digits[0].reshape(30, -1), digits[1]
    X, first, others = np.hstack([np.full((30, 1), 7.0), rows]), [0], slice(1, 65)
    if kind == "frame":
        X, first, others = pd.DataFrame(X).rename(columns=str), ["0"], make_column_selector("[^0]|..")
    network = make_pipeline(FunctionTransformer(np.sqrt), PretrainedFeatureExtractor())
    mixed = make_column_transformer((StandardScaler(), first), ("drop", first), (network, others))
    pipe = make_pipeline(FunctionTransformer(np.log1p), mixed, LogisticRegression(max_iter=1000)).fit(X, y)
    part = find_fitted(pipe, "backbone_")
    assert part.estimator is pipe[1].transformers_[2][1][-1]
    assert part.net is None
    np.testing.assert_array_equal(part.reached_by(X), np.sqrt(np.log1p(rows)))
    union = make_union(FunctionTransformer(), PretrainedFeatureExtractor()).fit(rows)
    part = find_fitted(union, "backbone_")
    assert part.estimator is union.transformer_list[1][1]
    assert part.reached_by(rows) is rows


def test_of_two_networks_side_by_side_none_is_meant(digits):
    """Though of two one after the other it is the last."""
    rows = digits[0].reshape(30, -1)
    pipe = make_pipeline(StandardScaler(), FunctionTransformer(), StandardScaler()).fit(rows)
    assert find_fitted(pipe, "scale_").estimator is pipe[-1]
    pipe.steps[1] = ("sampler", object())  # of another library, whose pipelines have steps that transform nothing
    assert find_fitted(pipe, "scale_").estimator is pipe[-1]
    two = make_union(PretrainedFeatureExtractor(layers=0), PretrainedFeatureExtractor(layers=1)).fit(rows)
    assert find_fitted(two, "backbone_") is None


def test_a_selector_is_found_in_its_extractor(digits):
    """Its network is in the extractor that it chose; what it learned itself is its own."""
    selector = BackboneSelector("sktl_mini", layers=[-1]).fit(*digits)
    pipe = make_pipeline(selector, StandardScaler())
    assert find_fitted(pipe, "backbone_").estimator is selector.extractor_
    assert find_fitted(pipe, "image_format_").estimator is selector
    assert find_fitted(pipe, "ranking_").estimator is selector


def test_a_part_is_found_by_its_class(digits):
    """Wherever it is, fitted or not."""
    pipe = make_pipeline(FunctionTransformer(), PretrainedFeatureExtractor(), LogisticRegression())
    assert find_fitted(pipe, PretrainedFeatureExtractor).estimator is pipe[1]
    assert find_fitted(FrozenEstimator(pipe), LogisticRegression | FineTunedClassifier).estimator is pipe[2]
    assert find_fitted(pipe, FineTunedClassifier) is None


def test_a_network_of_integers_is_refused():
    """Only that one: others may go on with a net of torch, and an extractor has none."""
    integers = SimpleNamespace(is_trainable=False)
    for net in (SimpleNamespace(is_trainable=True), None):
        FittedPart(SimpleNamespace(net_=net)).refuse_integers("It", "cannot")
    FittedPart(PretrainedFeatureExtractor()).refuse_integers("It", "cannot")
    with pytest.raises(
        ValueError, match=r"^It is int8-quantized and cannot; pass the estimator it was quantized from\.$"
    ):
        FittedPart(SimpleNamespace(net_=integers)).refuse_integers("It", "cannot")
