"""Names, standard errors and axis limits of scores."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor

from sktl._estimators._checked_table import as_targets

_LEAST_SPAN = 0.2  # minimum span of the axis, relative to the range of scores
_MARGIN = 0.58  # distance from the middle to each end, relative to the span
_N_SAMPLES = 100


def score_name(estimator: Any, scoring: Any = None) -> str:
    """Return the name of a score.

    Parameters
    ----------
    estimator : estimator
        Estimator whose default score is named by default.
    scoring : str, callable or None, default=None
        As in scikit-learn. A callable without a name is called "score".
    """
    if isinstance(scoring, str):
        return scoring
    if scoring is not None:
        return getattr(scoring, "__name__", "score")
    return "accuracy" if is_classifier(estimator) else "R²" if is_regressor(estimator) else "score"


def score_limits(low: float, high: float) -> tuple[float, float]:
    """Return axis limits with margins that do not exaggerate small differences.

    The limits span at least a fifth of the range from 0 to 1 for scores in this range,
    and a fifth of the largest score otherwise. Tight limits would turn noise into a
    trend.

    Parameters
    ----------
    low, high : float
        Range of the scores, including error bars.
    """
    is_share = low >= 0 and high <= 1
    span = max(high - low, _LEAST_SPAN * (1.0 if is_share else max(abs(low), abs(high), 1e-9)))
    middle = (low + high) / 2
    if is_share:  # no score is below 0 or above 1
        middle = min(max(middle, span / 2), 1 - span / 2)
    return middle - _MARGIN * span, middle + _MARGIN * span


def score_with_error(scorer: Any, model: Any, X: Any, y: Any, sample_weight: Any = None) -> tuple[float, float]:
    """Return a score and its standard error over 100 bootstrap samples of the rows.

    The model predicts only once.

    Parameters
    ----------
    scorer : callable
        Scorer of scikit-learn, or a function of the user. The function is called once
        with the model and the images; its error is NaN.
    model : estimator
        Fitted estimator.
    X : array-like of images
        The images.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets of the images.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
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
        warnings.simplefilter("ignore")  # a bootstrap sample may lack a class
        drawn = [score(rng.randint(len(y), size=len(y))) for _ in range(_N_SAMPLES)]
    return whole, float(np.nanstd(drawn)) if np.isfinite(drawn).any() else np.nan


class _Answers:
    """Fitted model with cached predictions, which predicts for positions of rows."""

    def __init__(self, model: Any, X: Any) -> None:
        self._model, self._X = model, X
        self._known: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            return found

        def answer(rows: np.ndarray) -> np.ndarray:
            if name not in self._known:  # lazily: scikit-learn looks up methods that it does not call
                self._known[name] = np.asarray(found(self._X))
            return self._known[name][rows]

        answer.__name__ = name  # scikit-learn reads the name
        return answer

    def __sklearn_tags__(self) -> Any:
        return self._model.__sklearn_tags__()
