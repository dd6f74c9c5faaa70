"""Names of scores."""

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl.inspection._score import score_name


def by_chance(estimator, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("estimator", "scoring", "name"),
    [
        (LogisticRegression(), None, "accuracy"),
        (make_pipeline(StandardScaler(), Ridge()), None, "R²"),
        (StandardScaler(), None, "score"),
        (LogisticRegression(), "roc_auc", "roc_auc"),
        (LogisticRegression(), by_chance, "by_chance"),
        (LogisticRegression(), make_scorer(accuracy_score), "score"),
    ],
)
def test_names(estimator, scoring, name):
    """What the user said, a function by its name, and without either what scikit-learn scores by."""
    assert score_name(estimator, scoring) == name
