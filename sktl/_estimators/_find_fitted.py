"""Find the fitted network, or what else was learnt, in an estimator, a pipeline around it, a search around that."""

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
    """A part of an estimator, and what a table goes through until it reaches the part.

    Attributes
    ----------
    estimator : estimator
        The part itself.
    before : tuple of callable
        Each makes of a table what the next one is given.
    """

    estimator: Any
    before: tuple[Callable[[Any], Any], ...] = ()

    @property
    def net(self) -> "Net | None":
        """The net that the part was trained with; None where it trains none."""
        return getattr(self.estimator, "net_", None)

    def reached_by(self, X: Any) -> Any:
        """What the part is given where the whole estimator is given ``X``.

        Of the pipelines around the part the steps before it are run, and of the columns of a table it gets its own.
        """
        for step in self.before:
            X = step(X)
        return X

    def refuse_integers(self, name: str, why: str) -> None:
        """Refuse a network of integers, which torch does not know.

        Parameters
        ----------
        name : str
            Of the estimator, for the error's message.
        why : str
            What a network of integers has not, or cannot do.

        Raises
        ------
        InputError
            Where the network of the part was quantized to integers.
        """
        if self.net is not None and not self.net.is_trainable:
            raise InputError(f"{name} has a network of integers, which {why}. Give the estimator that was quantized.")


def find_fitted(estimator: Any, wanted: str | type) -> FittedPart | None:
    """The part of an estimator that has a fitted attribute, or is of a class; None where there is none.

    Searches are followed to their best estimator, pipelines from their last step to the first, what wraps one estimator
    (`FrozenEstimator`, `TransformedTargetRegressor`, `TunedThresholdClassifierCV`, a calibrated `FrozenEstimator`) to
    that, and a `ColumnTransformer`, `FeatureUnion`, or ensemble of several kinds of estimators (`VotingClassifier`,
    `StackingClassifier`) to the one of its parts that has it.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    wanted : str or type
        An attribute, such as ``"history_"``, or a class. A network is where ``"backbone_"`` is, and one that ends in
        outputs of its own where ``"net_"`` is.
    """
    if isinstance(estimator, FrozenEstimator):  # it passes off its estimator's attributes as its own
        return find_fitted(estimator.estimator, wanted)
    if _has(estimator, wanted):
        # A selector has its network, what it learned of images, and its settings in the extractor that it chose.
        extractor = getattr(estimator, "extractor_", estimator) if wanted == "backbone_" else estimator
        return FittedPart(extractor if _has(extractor, wanted) else estimator)
    first = next(_find_each(_in_turn(estimator), wanted), None)
    if first is not None:
        return first
    beside = list(_find_each(_side_by_side(estimator), wanted))
    return beside[0] if len(beside) == 1 else None  # of several there is no saying which


def require_fitted(estimator: Any, attribute: str, what: str) -> FittedPart:
    """The part of an estimator that has a fitted attribute, as `find_fitted` finds it.

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


def _has(estimator: Any, wanted: str | type) -> bool:
    return hasattr(estimator, wanted) if isinstance(wanted, str) else isinstance(estimator, wanted)


def _find_each(parts: Iterable[FittedPart], wanted: str | type) -> Iterator[FittedPart]:
    """What is found in each of the parts, if anything."""
    for part in parts:
        found = find_fitted(part.estimator, wanted)
        if found is not None:
            yield FittedPart(found.estimator, part.before + found.before)


def _in_turn(estimator: Any) -> Iterator[FittedPart]:
    """The parts of which the first one that has something counts."""
    # Ensembles call the unfitted estimator that they copy "estimator_": it has no fitted attribute to be found.
    for name in ("best_estimator_", "regressor_", "estimator_"):
        if hasattr(estimator, name):
            yield FittedPart(getattr(estimator, name))
    if isinstance(estimator, Pipeline):
        for index, (_, step) in reversed(list(enumerate(estimator.steps))):
            yield FittedPart(step, (partial(_through_steps, estimator, index),))


def _through_steps(pipeline: Pipeline, n_steps: int, X: Any) -> Any:
    """What the first steps make of a table."""
    return pipeline[:n_steps].transform(X) if n_steps else X


def _side_by_side(estimator: Any) -> Iterator[FittedPart]:
    """The parts that all count."""
    for calibrated in getattr(estimator, "calibrated_classifiers_", ()):
        yield FittedPart(calibrated.estimator)
    if isinstance(estimator, _BaseHeterogeneousEnsemble):
        for part in getattr(estimator, "estimators_", ()):
            yield FittedPart(part)
    for _, transformer in getattr(estimator, "transformer_list", ()):
        yield FittedPart(transformer)
    for _, transformer, columns in getattr(estimator, "transformers_", ()):
        yield FittedPart(transformer, (partial(_safe_indexing, indices=columns, axis=1),))
