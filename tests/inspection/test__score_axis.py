"""Scores in figures: names, axes, errors."""

from functools import wraps

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl.inspection._score_axis import score_limits, score_name, score_with_error


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


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [(0.95, 0.96, 0.2), (0.99, 1.0, 0.2), (0.0, 0.01, 0.2), (0.2, 0.9, 0.7), (-1.0, -0.98, 0.2), (50.0, 51.0, 10.2)],
)
def test_limits(low, high, span):
    """They hold the scores, span a fifth of what there could be at least, and of shares nothing that cannot be."""
    bottom, top = score_limits(low, high)
    assert bottom < low <= high < top
    assert top - bottom == pytest.approx(1.16 * span)
    if low >= 0 and high <= 1:
        assert bottom >= -0.1 * span
        assert top <= 1 + 0.1 * span


def test_the_error_of_an_accuracy():
    """It is that of a share, by the textbook; weights count; and the score is the model's own."""
    X, y = make_classification(400, flip_y=0.3, random_state=0)
    model = LogisticRegression().fit(X, y)
    score, error = score_with_error(check_scoring(model, "accuracy"), model, X, y)
    assert score == model.score(X, y)
    assert error == pytest.approx((score * (1 - score) / 400) ** 0.5, rel=0.25)
    weight = np.where(np.arange(400) < 100, 1.0, 0.0)  # as a quarter of the rows
    _, wider = score_with_error(check_scoring(model, "accuracy"), model, X, y, weight)
    assert wider == pytest.approx(2 * error, rel=0.35)


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_absolute_error"])
def test_the_error_of_a_regression(scoring):
    """It is what the score differs by from one set of new rows to another."""
    X, y = make_regression(4400, 3, noise=60, random_state=0)
    model = Ridge().fit(X[:400], y[:400])
    scorer = check_scoring(model, scoring)
    several = [scorer(model, X[start : start + 200], y[start : start + 200]) for start in range(400, 4400, 200)]
    _, error = score_with_error(scorer, model, X[400:600], y[400:600])
    assert error == pytest.approx(np.std(several), rel=0.6)


@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss"])
def test_scores_of_probabilities(scoring):
    """The model answers for all rows once, and not for each sample of them."""
    X, y = make_classification(100, flip_y=0.3, random_state=0)
    model, asked = LogisticRegression().fit(X, y), []
    for name in ("predict_proba", "decision_function"):
        answer = getattr(model, name)
        counted = wraps(answer)(lambda X, answer=answer: asked.append(len(X)) or answer(X))
        setattr(model, name, counted)  # with its name, which scikit-learn goes by
    score, error = score_with_error(check_scoring(model, scoring), model, X, y)
    once = asked.copy()
    assert score == check_scoring(model, scoring)(model, X, y)
    assert asked == once * 2  # as often as for the score alone
    assert 0 < error < 0.1


def test_a_function_of_the_users_is_called_once():
    """With the model and the rows themselves; nothing is known of its error."""
    calls = []
    model = LogisticRegression()
    score, error = score_with_error(lambda *args: calls.append(args) or 0.5, model, [[1]], [2])
    assert (score, calls) == (0.5, [(model, [[1]], [2])])
    assert np.isnan(error)
