"""What a score is called in a picture."""

from typing import Any

from sklearn.base import is_classifier, is_regressor


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
