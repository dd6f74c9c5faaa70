"""Compressors are for classifiers, and say so to regressors."""

import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktl import DistilledRegressor, FineTunedRegressor
from sktl.compression import LotteryTicketClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier
from sktl.preprocessing import ImageReader

COMPRESSORS = [LotteryTicketClassifier, LowRankClassifier, PrunedClassifier, QuantizedClassifier]


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_regressors_are_refused_by_name(compressor, table):
    """Alone and wrapped; the error has the parameter, what came, the sibling that does not exist yet, and a way out."""
    regressor = FineTunedRegressor()
    given = [
        regressor,
        DistilledRegressor(regressor),
        FrozenEstimator(regressor),
        GridSearchCV(regressor, {"lr": [1e-3]}),
        make_pipeline(ImageReader(), regressor),
    ]
    for estimator in given:
        with pytest.raises(TypeError) as caught:
            compressor(estimator).fit(*table)
        message = str(caught.value)
        assert message.startswith(f"The 'estimator' parameter of {compressor.__name__} must be a classifier. Got ")
        assert type(estimator).__name__ in message
        sibling = compressor.__name__.replace("Classifier", "Regressor")
        assert f"{sibling} does not exist yet; use DistilledRegressor with a smaller student instead." in message


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_other_classifiers_are_not_taken_for_regressors(compressor, table):
    """One without a network of sktl hears that."""
    with pytest.raises(TypeError, match="FineTunedClassifier"):
        compressor(LogisticRegression()).fit(*table)
