"""Target codings for unlabeled rows and missing targets."""

from typing import Any

import numpy as np

from sktl._estimators._target_coding import ClassCoding, NumberCoding
from sktl._images import is_missing
from sktl._training._data import LabeledImages
from sktl.distillation._teacher import classes_of, is_frozen
from sktl.exceptions import InputError

_NO_LABEL = object()  # placeholder for each label without y


def find_unlabeled(y: Any, unlabeled: Any) -> np.ndarray:
    """Return a boolean mask of the missing labels, of the shape of ``y``.

    Parameters
    ----------
    y : array-like
        Labels or targets.
    unlabeled : object
        Label that marks missing labels; None if all labels are known.
    """
    labels = np.asarray(y)
    if labels.dtype == object and len(labels) and labels.flat[0] is _NO_LABEL:
        return np.ones(len(labels), bool)
    if unlabeled is None:
        return np.zeros(labels.shape, bool)
    if labels.dtype.kind == "U" and not isinstance(unlabeled, str) and str(unlabeled) in labels:
        raise InputError(
            f"y is an array of strings, in which NumPy has converted unlabeled={unlabeled!r} to "
            f"{str(unlabeled)!r}. Pass y as a list or with dtype=object, or set unlabeled={str(unlabeled)!r}."
        )
    if labels.dtype != object and not is_missing(unlabeled):
        return np.broadcast_to(labels == unlabeled, labels.shape)
    if is_missing(unlabeled):
        found = [is_missing(label) for label in labels.ravel()]
    else:  # pandas.NA == label is neither True nor False
        found = [not is_missing(label) and bool(label == unlabeled) for label in labels.ravel()]
    return np.array(found, bool).reshape(labels.shape)


class PartialTargets:
    """Mixin of the target codings with missing values.

    Parameters
    ----------
    owner : DistilledEstimator
        Estimator whose ``unlabeled``, ``alpha`` and ``teacher`` are read.
    *args : object
        Parameters of the coding.
    needs_none : bool
        Whether the teacher does not require labels.
    """

    def __init__(self, owner: Any, *args: Any, needs_none: bool):
        super().__init__(type(owner).__name__, *args)  # type: ignore[call-arg]  # a mixin, before a coding
        self.unlabeled = owner.unlabeled
        self.alpha = owner.alpha
        self.needs_none = needs_none

    def missing(self: Any, n_rows: int) -> np.ndarray:
        """Return placeholders for ``y``, if the teacher does not require labels."""
        if not self.needs_none:
            raise InputError(
                f"This {self.owner} estimator requires y to be passed, but the target y is None. To distill "
                "without y, pass a fitted teacher inside a sklearn.frozen.FrozenEstimator."
            )
        return np.full(n_rows, _NO_LABEL)

    def check_needs_none(self) -> None:
        """Raise an error if the teacher requires labels.

        Raises
        ------
        InputError
            If the teacher is to be fitted on a table without labels.
        """
        if not self.needs_none:
            raise InputError(
                f"All rows of y are unlabeled (unlabeled={self.unlabeled!r}), so the teacher cannot be fitted. Fit the "
                "teacher first, and pass it inside a sklearn.frozen.FrozenEstimator."
            )

    def weight_of_unlabeled(self, labeled: np.ndarray) -> float:
        """Return the weight of an unlabeled row: 0 if alpha is 0, and 1 otherwise."""
        if self.alpha == 0 and not labeled.any():
            raise InputError(
                "alpha=0 ignores the teacher, but all rows of y are unlabeled. Use a larger alpha, or pass labels."
            )
        return float(self.alpha > 0)


class PartlyLabeledClasses(PartialTargets, ClassCoding):
    """Coding of labels as class indices. -1 marks an unlabeled row.

    Parameters
    ----------
    owner : DistilledClassifier
        The estimator.
    classes, learned
        As in `ClassCoding`.
    """

    missing_labels_advice = "Drop those rows, or set unlabeled=numpy.nan to learn them from the teacher."

    def __init__(self, owner: Any, classes: Any, learned: "np.ndarray | None"):
        super().__init__(owner, owner.class_weight, classes, learned, needs_none=is_frozen(owner.teacher))
        self.teacher = owner.teacher

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return class indices, -1 for unlabeled rows, and factors of the weights."""
        # A column vector is raveled, with a warning.
        labeled = ~find_unlabeled(y, self.unlabeled).reshape(len(y), -1)[:, 0]
        if learns and self.given is None and not labeled.any():
            self.check_needs_none()
            self.given = classes_of(self.teacher)
        if not learns and self.given is not None and not np.array_equal(self.classes, np.unique(self.given)):
            raise InputError(
                f"The 'classes' parameter must be the same as in the first call, {self.classes!r}, or None. Got "
                f"{self.given!r} instead."
            )
        index, factor = np.full(len(labeled), -1), np.full(len(labeled), self.weight_of_unlabeled(labeled))
        if labeled.any():
            known = y[labeled] if not hasattr(y, "iloc") else y.iloc[np.flatnonzero(labeled)]
            if not labeled.all() and np.asarray(known).dtype == object:
                numbers = np.array(np.asarray(known).tolist())
                known = (
                    numbers if numbers.dtype.kind in "buif" else known
                )  # numbers next to missing values have dtype object
            index[labeled], factor[labeled] = super().encode(known, weight[labeled], learns=learns)
        elif learns:
            self.learn(self.given)
        return index, factor

    def teacher_data(self, table: LabeledImages) -> tuple[LabeledImages, np.ndarray]:
        """Return the labeled rows and their labels, to which the teacher is fitted."""
        table = table.take(np.flatnonzero(table.y >= 0))
        return table, self.classes[table.y]

    def known(self, y: np.ndarray) -> np.ndarray:
        """Return 1 for each labeled row, and 0 for the others."""
        return (y >= 0).astype(np.float64)


class PartlyKnownNumbers(PartialTargets, NumberCoding):
    """Coding of targets as standardized values. NaN marks a missing target.

    Parameters
    ----------
    owner : DistilledRegressor
        The estimator.
    learned : NumberCoding or None
        As in `NumberCoding`.
    """

    def __init__(self, owner: Any, learned: "NumberCoding | None"):
        # A transformer can also be fitted without targets.
        needs_none = is_frozen(owner.teacher) or not hasattr(owner.teacher, "predict")
        super().__init__(owner, learned, needs_none=needs_none)

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return standardized targets and factors of the weights."""
        missing = find_unlabeled(y, self.unlabeled)
        if missing.all():
            if learns:
                self.check_needs_none()
            factor = self.weight_of_unlabeled(~missing)
            return np.full((len(missing), 1), np.nan, np.float32), np.full(len(missing), factor)
        if missing.any():
            y = np.where(missing, 0, np.asarray(y))  # set to NaN below
        numbers, is_flat = self.numbers(y)
        missing = missing.reshape(numbers.shape)
        numbers[missing] = np.nan
        factors = np.where(missing.all(axis=1), self.weight_of_unlabeled(~missing), 1.0)
        return self.standardized(numbers, weight, is_flat if learns else None), factors

    def teacher_data(self, table: LabeledImages) -> tuple[LabeledImages, "np.ndarray | None"]:
        """Return the rows that have all targets, and these targets, to fit the teacher.

        Without targets, return all rows and None.
        """
        if not self.n_outputs:
            return table, None
        table = table.take(np.flatnonzero(self.known(table.y) == 1))
        y = np.asarray(table.given[1])[table.images.positions]  # exactly as they were given
        return table, y.ravel() if self.is_flat else y

    def known(self, y: np.ndarray) -> np.ndarray:
        """Return the share of known targets of each row."""
        return (~np.isnan(y)).mean(axis=1)
