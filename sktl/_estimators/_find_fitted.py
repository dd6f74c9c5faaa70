"""Fitted attributes of whatever a user has at hand: an estimator, a pipeline around it, a search around that."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from sklearn.ensemble._base import _BaseHeterogeneousEnsemble
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from sktl._params import check_is_fitted
from sktl.exceptions import InputError


def find_fitted(estimator: Any, attribute: str) -> Any:
    """The part of an estimator that has a fitted attribute; None where none has it.

    Searches are followed to their best estimator, pipelines from their last step to the first, what wraps one estimator
    (`FrozenEstimator`, `TransformedTargetRegressor`, `TunedThresholdClassifierCV`, a calibrated `FrozenEstimator`) to
    that, and a `ColumnTransformer`, `FeatureUnion`, or ensemble of several kinds of estimators (`VotingClassifier`,
    `StackingClassifier`) to the one of its parts that has it.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    attribute : str
        Such as ``"history_"``.
    """
    found = _find(estimator, attribute)
    return None if found is None else found.estimator


def reach(estimator: Any, X: Any, attribute: str) -> tuple[Any, Any]:
    """The part of an estimator that has a fitted attribute, and what reaches it of ``X``.

    It is the part that `find_fitted` finds. Of the pipelines around it the steps before it are run, and of the columns
    of a table it gets its own.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    X : array-like
        What the estimator is given.
    attribute : str
        Such as ``"net_"``.

    Returns
    -------
    part : estimator or None
        None where no part has the attribute.
    X : array-like
        What the part is given; as it came where there is none.
    """
    found = _find(estimator, attribute)
    if found is None:
        return None, X
    for step in found.before:
        X = step(X)
    return found.estimator, X


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
    InputError
        Where no part of it has the attribute.
    """
    part = find_fitted(estimator, attribute)
    if part is None:
        check_is_fitted(estimator)
        raise InputError(
            f"{type(estimator).__name__} has no {attribute}: {what}. Give a fitted estimator of sktl, or a pipeline or "
            "search that has one in it."
        )
    return part


class _Part(NamedTuple):
    """A part of an estimator, and what a table goes through until it reaches the part."""

    estimator: Any
    before: tuple[Callable[[Any], Any], ...] = ()


def _find(estimator: Any, attribute: str) -> _Part | None:
    if isinstance(estimator, FrozenEstimator):  # it passes off its estimator's attributes as its own
        return _find(estimator.estimator, attribute)
    if hasattr(estimator, attribute):
        return _Part(estimator)
    first = next(_find_each(_in_turn(estimator), attribute), None)
    if first is not None:
        return first
    beside = list(_find_each(_side_by_side(estimator), attribute))
    return beside[0] if len(beside) == 1 else None  # of several there is no saying which


def _find_each(parts: Iterable[_Part], attribute: str) -> Iterator[_Part]:
    """What is found in each of the parts, if anything."""
    for part in parts:
        found = _find(part.estimator, attribute)
        if found is not None:
            yield _Part(found.estimator, part.before + found.before)


def _in_turn(estimator: Any) -> Iterator[_Part]:
    """The parts of which the first one that has something counts."""
    # Ensembles call the unfitted estimator that they copy "estimator_": it has no fitted attribute to be found.
    for name in ("best_estimator_", "regressor_", "estimator_"):
        if hasattr(estimator, name):
            yield _Part(getattr(estimator, name))
    if isinstance(estimator, Pipeline):
        for index, (_, step) in reversed(list(enumerate(estimator.steps))):
            yield _Part(step, (partial(_through_steps, estimator, index),))


def _through_steps(pipeline: Pipeline, n_steps: int, X: Any) -> Any:
    """What the first steps make of a table."""
    return pipeline[:n_steps].transform(X) if n_steps else X


def _side_by_side(estimator: Any) -> Iterator[_Part]:
    """The parts that all count."""
    for calibrated in getattr(estimator, "calibrated_classifiers_", ()):
        yield _Part(calibrated.estimator)
    if isinstance(estimator, _BaseHeterogeneousEnsemble):
        for part in getattr(estimator, "estimators_", ()):
            yield _Part(part)
    for _, transformer in getattr(estimator, "transformer_list", ()):
        yield _Part(transformer)
    for _, transformer, columns in getattr(estimator, "transformers_", ()):
        yield _Part(transformer, (partial(_safe_indexing, indices=columns, axis=1),))
