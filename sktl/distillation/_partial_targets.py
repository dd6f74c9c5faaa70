"""Targets of which some are unknown: rows without a label, and targets without a value."""

from typing import Any

import numpy as np

from sktl._estimators._target_coding import ClassCoding, NumberCoding
from sktl._images import is_missing
from sktl._training._data import LabeledImages
from sktl.distillation._teacher import classes_of, is_frozen
from sktl.exceptions import InputError

_NO_LABEL = object()  # stands for a label if no y was given


def find_unlabeled(y: Any, unlabeled: Any) -> np.ndarray:
    """Which of the labels as they were given are none, of the shape of ``y``.

    Parameters
    ----------
    y : array-like
        Labels or targets.
    unlabeled : object
        The label that says so; None if there is no such label.
    """
    labels = np.asarray(y)
    if labels.dtype == object and len(labels) and labels.flat[0] is _NO_LABEL:
        return np.ones(len(labels), bool)
    if unlabeled is None:
        return np.zeros(labels.shape, bool)
    if labels.dtype.kind == "U" and not isinstance(unlabeled, str) and str(unlabeled) in labels:
        raise InputError(
            f"y is an array of texts, in which NumPy has made unlabeled={unlabeled!r} the text "
            f"{str(unlabeled)!r}. Give y as a list or with dtype=object, or say unlabeled="
            f"{str(unlabeled)!r}."
        )
    if labels.dtype != object and not is_missing(unlabeled):
        return np.broadcast_to(labels == unlabeled, labels.shape)
    if is_missing(unlabeled):
        found = [is_missing(label) for label in labels.ravel()]
    else:  # what is missing equals nothing, and pandas.NA does not even say so
        found = [not is_missing(label) and bool(label == unlabeled) for label in labels.ravel()]
    return np.array(found, bool).reshape(labels.shape)


class PartialTargets:
    """What the two codings below share; a mixin.

    Parameters
    ----------
    owner : DistilledEstimator
        Its ``unlabeled``, ``alpha`` and ``teacher`` are read.
    *args : object
        For the coding.
    needs_none : bool
        Whether the teacher can do without labels.
    """

    def __init__(self, owner: Any, *args: Any, needs_none: bool):
        super().__init__(type(owner).__name__, *args)  # type: ignore[call-arg]  # a mixin, before a coding
        self.unlabeled = owner.unlabeled
        self.alpha = owner.alpha
        self.needs_none = needs_none

    def missing(self: Any, n_rows: int) -> np.ndarray:
        """No labels at all, with which a fitted teacher can do."""
        if not self.needs_none:
            raise InputError(
                f"This {self.owner} estimator requires y to be passed, but the target y is None. A teacher that is "
                "fitted already, inside a sklearn.frozen.FrozenEstimator, needs none."
            )
        return np.full(n_rows, _NO_LABEL)

    def check_needs_none(self) -> None:
        """Refuse a table without labels for a teacher that is to be fitted.

        Raises
        ------
        InputError
            If the teacher is not fitted.
        """
        if not self.needs_none:
            raise InputError(
                f"All of y is unlabeled={self.unlabeled!r}: there is nothing to fit the teacher on. Fit it first, and "
                "give it inside a sklearn.frozen.FrozenEstimator."
            )

    def weight_of_unlabeled(self, labeled: np.ndarray) -> float:
        """What a row without a label weighs: nothing, if nothing of the teacher is wanted."""
        if self.alpha == 0 and not labeled.any():
            raise InputError(
                "alpha=0 leaves nothing to learn from rows without labels. Use a greater alpha, or labels."
            )
        return float(self.alpha > 0)


class PartlyLabeledClasses(PartialTargets, ClassCoding):
    """Numbers of classes; -1 for a row without a label.

    Parameters
    ----------
    owner : DistilledClassifier
        Whose it is.
    classes, learned
        As in `ClassCoding`.
    """

    missing_labels_advice = "Drop those rows, or let the teacher speak for them: unlabeled=numpy.nan."

    def __init__(self, owner: Any, classes: Any, learned: "np.ndarray | None"):
        super().__init__(owner, owner.class_weight, classes, learned, needs_none=is_frozen(owner.teacher))
        self.teacher = owner.teacher

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Number of each row's class, -1 for a row without a label, and what it weighs."""
        # A column is taken for a vector, with a warning.
        labeled = ~find_unlabeled(y, self.unlabeled).reshape(len(y), -1)[:, 0]
        if learns and self.given is None and not labeled.any():
            self.check_needs_none()
            self.given = classes_of(self.teacher)
        if not learns and self.given is not None and not np.array_equal(self.classes, np.unique(self.given)):
            raise InputError(
                f"classes={self.given!r} is not what it was in the first call: {self.classes!r}. Give the same "
                "classes, or none."
            )
        index, factor = np.full(len(labeled), -1), np.full(len(labeled), self.weight_of_unlabeled(labeled))
        if labeled.any():
            known = y[labeled] if not hasattr(y, "iloc") else y.iloc[np.flatnonzero(labeled)]
            if not labeled.all() and np.asarray(known).dtype == object:
                numbers = np.array(np.asarray(known).tolist())
                known = numbers if numbers.dtype.kind in "buif" else known  # numbers, beside a gap, were objects
            index[labeled], factor[labeled] = super().encode(known, weight[labeled], learns=learns)
        elif learns:
            self.learn(self.given)
        return index, factor

    def teacher_data(self, table: LabeledImages) -> tuple[LabeledImages, np.ndarray]:
        """The rows that a teacher is fitted to, those with a label, and their labels."""
        table = table.take(np.flatnonzero(table.y >= 0))
        return table, self.classes[table.y]

    def known(self, y: np.ndarray) -> np.ndarray:
        """1 for each row with a label, 0 for the others."""
        return (y >= 0).astype(np.float64)


class PartlyKnownNumbers(PartialTargets, NumberCoding):
    """Standardized targets; NaN for one that is not known.

    Parameters
    ----------
    owner : DistilledRegressor
        Whose it is.
    learned : NumberCoding or None
        As in `NumberCoding`.
    """

    def __init__(self, owner: Any, learned: "NumberCoding | None"):
        # A transformer learns without targets too.
        needs_none = is_frozen(owner.teacher) or not hasattr(owner.teacher, "predict")
        super().__init__(owner, learned, needs_none=needs_none)

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Standardized targets, and a weight of one for each row."""
        missing = find_unlabeled(y, self.unlabeled)
        if missing.all():
            if learns:
                self.check_needs_none()
            factor = self.weight_of_unlabeled(~missing)
            return np.full((len(missing), 1), np.nan, np.float32), np.full(len(missing), factor)
        if missing.any():
            y = np.where(missing, 0, np.asarray(y))  # what is missing is no number, and is put back below
        numbers, is_flat = self.numbers(y)
        missing = missing.reshape(numbers.shape)
        numbers[missing] = np.nan
        factors = np.where(missing.all(axis=1), self.weight_of_unlabeled(~missing), 1.0)
        return self.standardized(numbers, weight, is_flat if learns else None), factors

    def teacher_data(self, table: LabeledImages) -> tuple[LabeledImages, "np.ndarray | None"]:
        """The rows that a teacher is fitted to, those with all targets, and these; without any, all rows."""
        if not self.n_outputs:
            return table, None
        table = table.take(np.flatnonzero(self.known(table.y) == 1))
        y = np.asarray(table.given[1])[table.images.positions]  # in their own units, to the last bit
        return table, y.ravel() if self.is_flat else y

    def known(self, y: np.ndarray) -> np.ndarray:
        """The share of each row's targets that is known."""
        return (~np.isnan(y)).mean(axis=1)
