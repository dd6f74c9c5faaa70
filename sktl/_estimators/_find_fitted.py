"""Search for fitted attributes in estimators, pipelines, searches and ensembles."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from sklearn.ensemble._base import _BaseHeterogeneousEnsemble
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from sktl._params import check_is_fitted
from sktl._training._net import Net
from sktl.exceptions import InputError


class FittedPart(NamedTuple):
    """Part of an estimator, and the steps before it.

    Attributes
    ----------
    estimator : estimator
        The part itself.
    before : tuple of callable
        Functions to apply to ``X`` one after the other.
    """

    estimator: Any
    before: tuple[Callable[[Any], Any], ...] = ()

    @property
    def net(self) -> "Net | None":
        """The trained net of the part, or None."""
        return getattr(self.estimator, "net_", None)

    def reached_by(self, X: Any) -> Any:
        """Transform the input of the whole estimator to the input of this part."""
        for step in self.before:
            X = step(X)
        return X

    def refuse_integers(self, name: str, why: str) -> None:
        """Raise an error if the network is quantized to integers.

        Parameters
        ----------
        name : str
            Name of the estimator, for the message.
        why : str
            Why an int8 network does not work here: completes "is int8-quantized and
            ...".

        Raises
        ------
        InputError
            If the network of the part was quantized to integers.
        """
        if self.net is not None and not self.net.is_trainable:
            raise InputError(f"{name} is int8-quantized and {why}; pass the estimator it was quantized from.")


def find_fitted(estimator: Any, wanted: str | type) -> FittedPart | None:
    """Find the part of an estimator with a fitted attribute or of a class.

    The search enters the best estimator of searches, the steps of pipelines from last
    to first, the estimator inside a wrapper (`FrozenEstimator`,
    `TransformedTargetRegressor`, `TunedThresholdClassifierCV`, a calibrated
    `FrozenEstimator`), and the parts of a `ColumnTransformer`, `FeatureUnion`,
    `VotingClassifier` or `StackingClassifier`, if exactly one of them matches. It
    returns None if nothing matches.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    wanted : str or type
        An attribute, such as ``"history_"``, or a class. Estimators with a network have
        ``"backbone_"``; those with a trained head have ``"net_"``.
    """
    if isinstance(estimator, FrozenEstimator):  # it exposes the attributes of its estimator
        return find_fitted(estimator.estimator, wanted)
    if _has(estimator, wanted):
        # The network and settings of a selector are in the extractor that it chose.
        extractor = getattr(estimator, "extractor_", estimator) if wanted == "backbone_" else estimator
        return FittedPart(extractor if _has(extractor, wanted) else estimator)
    first = next(_find_each(_in_turn(estimator), wanted), None)
    if first is not None:
        return first
    beside = list(_find_each(_side_by_side(estimator), wanted))
    return beside[0] if len(beside) == 1 else None  # several matches are ambiguous


def require_fitted(estimator: Any, attribute: str, what: str) -> FittedPart:
    """Find the part of an estimator that has a fitted attribute, as `find_fitted` does.

    Parameters
    ----------
    estimator : estimator
        The estimator to search.
    attribute : str
        The attribute, such as ``"history_"``.
    what : str
        What its absence means, for the message.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    InputError
        If no part of it has the attribute.
    """
    part = find_fitted(estimator, attribute)
    if part is None:
        check_is_fitted(estimator)
        raise InputError(
            f"{type(estimator).__name__} has no {attribute}: {what}. Pass a fitted sktl estimator, or a pipeline or "
            "search that contains one."
        )
    return part


def _has(estimator: Any, wanted: str | type) -> bool:
    return hasattr(estimator, wanted) if isinstance(wanted, str) else isinstance(estimator, wanted)


def _find_each(parts: Iterable[FittedPart], wanted: str | type) -> Iterator[FittedPart]:
    """Yield the match in each of the parts that has one."""
    for part in parts:
        found = find_fitted(part.estimator, wanted)
        if found is not None:
            yield FittedPart(found.estimator, part.before + found.before)


def _in_turn(estimator: Any) -> Iterator[FittedPart]:
    """Yield the parts of which the first match counts."""
    # The "estimator_" of an ensemble is unfitted, so that nothing is found in it.
    for name in ("best_estimator_", "regressor_", "estimator_"):
        if hasattr(estimator, name):
            yield FittedPart(getattr(estimator, name))
    if isinstance(estimator, Pipeline):
        for index, (_, step) in reversed(list(enumerate(estimator.steps))):
            yield FittedPart(step, (partial(_through_steps, estimator, index),))


def _through_steps(pipeline: Pipeline, n_steps: int, X: Any) -> Any:
    """Transform ``X`` with the first steps of a pipeline."""
    return pipeline[:n_steps].transform(X) if n_steps else X


def _side_by_side(estimator: Any) -> Iterator[FittedPart]:
    """Yield the parts of which exactly one must match."""
    for calibrated in getattr(estimator, "calibrated_classifiers_", ()):
        yield FittedPart(calibrated.estimator)
    if isinstance(estimator, _BaseHeterogeneousEnsemble):
        for part in getattr(estimator, "estimators_", ()):
            yield FittedPart(part)
    for _, transformer in getattr(estimator, "transformer_list", ()):
        yield FittedPart(transformer)
    for _, transformer, columns in getattr(estimator, "transformers_", ()):
        yield FittedPart(transformer, (partial(_safe_indexing, indices=columns, axis=1),))
