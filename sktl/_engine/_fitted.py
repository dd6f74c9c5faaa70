"""Fitted attributes of whatever a user has at hand: an estimator, a pipeline around it, a search around that."""

from collections.abc import Iterator
from typing import Any

from sklearn.utils.validation import check_is_fitted


def find_fitted(estimator: Any, attribute: str) -> Any:
    """The part of an estimator that has a fitted attribute; None where none has it.

    Searches are followed to their best estimator, pipelines from their last step to the first, and what wraps one
    estimator (`TransformedTargetRegressor`, `TunedThresholdClassifierCV`, a calibrated `FrozenEstimator`) to that.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    attribute : str
        Such as ``"history_"``.
    """
    return next((part for part in _parts(estimator) if hasattr(part, attribute)), None)


def require_fitted(estimator: Any, attribute: str, what: str) -> Any:
    """The part of an estimator that has a fitted attribute.

    Parameters
    ----------
    estimator : estimator
        Which shall be fitted.
    attribute : str
        Such as ``"history_"``.
    what : str
        What it stands for, for the error's message.

    Raises
    ------
    NotFittedError
        Where the estimator is not fitted.
    ValueError
        Where no part of it has the attribute.
    """
    part = find_fitted(estimator, attribute)
    if part is None:
        check_is_fitted(estimator)
        raise ValueError(
            f"{type(estimator).__name__} has no {attribute}: {what}. Give a fitted estimator of sktl, or a pipeline or "
            "search that has one in it."
        )
    return part


def _parts(estimator: Any) -> Iterator[Any]:
    yield estimator
    # Ensembles call the unfitted estimator that they copy "estimator_": it has no fitted attribute to be found.
    for name in ("best_estimator_", "regressor_", "estimator_"):
        if hasattr(estimator, name):
            yield from _parts(getattr(estimator, name))
    calibrated: Any = getattr(estimator, "calibrated_classifiers_", ())
    if len(calibrated) == 1:  # with one for each fold there is no saying which
        yield from _parts(calibrated[0].estimator)
    for _, step in reversed(getattr(estimator, "steps", ())):
        yield from _parts(step)
