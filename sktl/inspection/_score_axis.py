"""Scores in figures: what they are called, how sure they are, and on which axis they are drawn."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor

from sktl._estimators._checked_table import as_targets

_LEAST_SPAN = 0.2  # of an axis of scores, as a share of their range
_MARGIN = 0.58  # from the middle to either end, by the span
_N_SAMPLES = 100


def score_name(estimator: Any, scoring: Any = None) -> str:
    """What a score is, in words.

    Parameters
    ----------
    estimator : estimator
        Whose own score it is, where ``scoring`` is None.
    scoring : str, callable or None, default=None
        As in scikit-learn; a callable without a name is a "score".
    """
    if isinstance(scoring, str):
        return scoring
    if scoring is not None:
        return getattr(scoring, "__name__", "score")
    return "accuracy" if is_classifier(estimator) else "R²" if is_regressor(estimator) else "score"


def score_limits(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis of scores, with room at both ends, that do not make much of little.

    An axis that ends where the scores do makes a trend of any noise. Scores between 0 and 1 get a fifth of that range
    at least; others a fifth of the largest of them.

    Parameters
    ----------
    low, high : float
        What has to lie inside, error bars included.
    """
    is_share = low >= 0 and high <= 1
    span = max(high - low, _LEAST_SPAN * (1.0 if is_share else max(abs(low), abs(high), 1e-9)))
    middle = (low + high) / 2
    if is_share:  # there is nothing to be seen below 0 and above 1
        middle = min(max(middle, span / 2), 1 - span / 2)
    return middle - _MARGIN * span, middle + _MARGIN * span


def score_with_error(scorer: Any, model: Any, X: Any, y: Any, sample_weight: Any = None) -> tuple[float, float]:
    """A score, and its standard error: how much it would differ for other images of the same kind.

    The model predicts once; the score is taken of 100 bootstrap samples of what it predicted.

    Parameters
    ----------
    scorer : callable
        Of scikit-learn, or a function of the user's, which is called with the model and the images, once: what it does
        with them is not known, and its error is NaN.
    model : estimator
        Fitted.
    X : array-like of images
        The images.
    y : array-like of shape (n_images,) or (n_images, n_targets)
        Their labels or targets.
    sample_weight : array-like of shape (n_images,), default=None
        Their weights.
    """
    weight = None if sample_weight is None else np.asarray(sample_weight)
    if not hasattr(scorer, "_score_func"):
        return scorer(model, X, y, **({} if weight is None else {"sample_weight": weight})), np.nan
    answers, y = _Answers(model, X), np.asarray(as_targets(y))

    def score(rows: np.ndarray) -> float:
        weights = {} if weight is None else {"sample_weight": weight[rows]}
        return float(scorer(answers, rows, y[rows], **weights))

    whole = score(np.arange(len(y)))
    rng = np.random.RandomState(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample may lack a class
        drawn = [score(rng.randint(len(y), size=len(y))) for _ in range(_N_SAMPLES)]
    return whole, float(np.nanstd(drawn)) if np.isfinite(drawn).any() else np.nan


class _Answers:
    """A fitted model that has been given its images: what is asked of it are rows."""

    def __init__(self, model: Any, X: Any) -> None:
        self._model, self._X = model, X
        self._known: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            return found

        def answer(rows: np.ndarray) -> np.ndarray:
            if name not in self._known:  # scikit-learn looks for methods that it does not call
                self._known[name] = np.asarray(found(self._X))
            return self._known[name][rows]

        answer.__name__ = name  # which scikit-learn goes by
        return answer

    def __sklearn_tags__(self) -> Any:
        return self._model.__sklearn_tags__()
