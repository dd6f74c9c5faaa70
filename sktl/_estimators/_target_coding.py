"""Target codings: from what a user calls targets to the numbers that a network learns, and back."""

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_y

from sktl._images import is_missing
from sktl._messages import shortened_errors
from sktl.exceptions import InputError


class TargetCoding:
    """What becomes of targets; the first ones that it encodes say how.

    Parameters
    ----------
    owner : str
        Whose it is, for messages.
    """

    n_outputs: int  # how many outputs the head has; 0 before anything is learned

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def attributes(self) -> dict[str, Any]:
        """What an estimator keeps of it, by the attributes' names."""
        return {}

    def missing(self, n_rows: int) -> Any:
        """What stands for the targets of a table that has none; here they are needed."""
        raise InputError(f"This {self.owner} estimator requires y to be passed, but the target y is None.")

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """The encoded targets, and what each row's weight is multiplied by.

        Parameters
        ----------
        y : array-like
            Targets as they were given.
        weight : ndarray of shape (n_rows,)
            Weights of the rows, above zero.
        learns : bool
            Whether these are the targets that say how all are encoded.
        """
        raise NotImplementedError

    def strata(self, y: np.ndarray) -> "np.ndarray | None":
        """What encoded targets are stratified by when rows are held out; None for nothing."""
        return None


class ClassCoding(TargetCoding):
    """Numbers of classes for labels.

    Parameters
    ----------
    owner : str
        As in `TargetCoding`.
    class_weight : dict, "balanced" or None
        Weights of the classes, by label.
    classes : array-like or None, default=None
        All labels that there will ever be; None takes those that are encoded first.
    learned : ndarray of shape (n_classes,) or None, default=None
        The classes that a network has learned already.
    """

    missing_labels_advice = "Drop those rows."

    def __init__(self, owner: str, class_weight: Any, classes: Any = None, learned: "np.ndarray | None" = None):
        super().__init__(owner)
        self.class_weight = class_weight
        self.given = classes
        self.classes = np.empty(0) if learned is None else learned

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return len(self.classes)

    @property
    def attributes(self) -> dict[str, Any]:
        """The labels."""
        return {"classes_": self.classes}

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Number of each row's class, and what it weighs."""
        # Before scikit-learn's check, which stumbles over pandas.NA.
        labels = np.asarray(y).ravel() if np.asarray(y).dtype.kind in "Of" else np.empty(0)
        missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
        if missing:
            raise InputError(f"y has missing labels, at position {missing[0]} first. {self.missing_labels_advice}")
        if len({isinstance(label, str) for label in labels}) == 2:
            raise InputError("y has both texts and numbers for labels, which have no order. Use one kind of them.")
        with shortened_errors():
            y = _check_y(y, multi_output=False, estimator=self.owner)
            check_classification_targets(y)
        if learns:
            self.learn(y if self.given is None else self.given)
        unknown = np.setdiff1d(y, self.classes)
        if len(unknown):
            raise InputError(
                f"y has labels {unknown[:5].tolist()} that are not among the classes {self.classes.tolist()}. Name "
                "all classes in the first call (classes=), or fit anew."
            )
        index = np.searchsorted(self.classes, y)
        return index, self.weights(index, weight)[index]

    def learn(self, labels: Any) -> None:
        """The classes, of which two are needed."""
        self.classes = np.unique(labels)
        if len(self.classes) < 2:
            raise InputError(
                f"{self.owner} needs two classes to tell apart, but y has one class: {self.classes.tolist()[0]!r}."
            )

    def weights(self, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The weight of each class: how much it counts beside the others, with the rows' total left as it is."""
        if isinstance(self.class_weight, dict):
            bad = [f"{label!r}: {value!r}" for label, value in self.class_weight.items() if not _is_weight(value)]
            if bad:
                raise InputError(
                    "The 'class_weight' parameter must give each class a finite number of zero or more. Got "
                    f"{bad[0]} instead."
                )
        mass = np.bincount(index, weights=weight, minlength=self.n_outputs)
        if self.class_weight == "balanced":  # of what the rows weigh: two of weight one are one of weight two
            class_weight = 1 / np.where(mass > 0, mass, mass[mass > 0].mean())
        else:
            with shortened_errors():
                class_weight = compute_class_weight(self.class_weight, classes=self.classes, y=self.classes[index])
        class_weight = class_weight / (class_weight.max() or 1)  # numbers near the largest there is have no sum
        if (class_weight < 0).any() or not (class_weight * mass).any():
            raise InputError(
                f"class_weight={self.class_weight!r} has to be zero or more for each class, and more than zero for a "
                "class that there are rows of."
            )
        return class_weight * mass.sum() / (class_weight * mass).sum()

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Each class is on both sides."""
        return y


class NumberCoding(TargetCoding):
    """Standardized numbers for targets, (n, n_targets).

    Parameters
    ----------
    owner : str
        As in `TargetCoding`.
    learned : NumberCoding or None, default=None
        Of a network that has learned already, which keeps its units.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_targets,)
        Of each target, weighted.
    is_flat : bool
        Whether targets were a vector, as predictions are to be then.
    """

    def __init__(self, owner: str, learned: "NumberCoding | None" = None):
        super().__init__(owner)
        self.mean: np.ndarray = np.empty(0) if learned is None else learned.mean
        self.scale: np.ndarray = np.empty(0) if learned is None else learned.scale
        self.is_flat: bool = learned is None or learned.is_flat

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Number of targets."""
        return len(self.mean)

    @property
    def attributes(self) -> dict[str, Any]:
        """Itself, which predictions need."""
        return {"_coding": self}

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Standardized targets, and a weight of one for each row."""
        numbers, is_flat = self.numbers(y)
        return self.standardized(numbers, weight, is_flat if learns else None), np.ones(len(numbers))

    def numbers(self, y: Any) -> tuple[np.ndarray, bool]:
        """Targets as they were given, as a table (n, n_targets), and whether they were a vector."""
        with shortened_errors():
            y = _check_y(y, multi_output=True, y_numeric=True, estimator=self.owner).astype(np.float64)
        return y.reshape(len(y), -1), y.ndim == 1

    def standardized(self, y: np.ndarray, weight: np.ndarray, is_flat: "bool | None") -> np.ndarray:
        """Targets in units of the first ones, for which ``is_flat`` is given; a target that is NaN stays one."""
        if is_flat is not None:
            self.is_flat = is_flat
            self.learn(y, weight)
        elif y.shape[1] != self.n_outputs:
            raise InputError(f"y has {y.shape[1]} targets, but the first call had {self.n_outputs}.")
        return ((y - self.mean) / self.scale).astype(np.float32)

    def learn(self, y: np.ndarray, weight: np.ndarray) -> None:
        """Weighted mean and standard deviation of each target, of the rows in which it is known."""
        known = [(column[~np.isnan(column)], weight[~np.isnan(column)]) for column in y.T]
        empty = [number for number, (column, _) in enumerate(known) if not len(column)]
        if empty:
            raise InputError(f"Target {empty[0]} of y is missing in every row. Leave it out.")
        units = [_moments(column, own) for column, own in known]
        self.mean, self.scale = (np.array(numbers) for numbers in zip(*units, strict=True))

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """What outputs (n, n_targets) are in the targets' own units, in the shape that targets had."""
        targets = outputs * self.scale + self.mean
        return targets[:, 0] if self.is_flat else targets


def power_of_two(size: "float | np.ndarray") -> "float | np.ndarray":
    """The largest power of two that is no larger; 1 for zero."""
    return np.where(size == 0, 1.0, np.ldexp(1.0, np.frexp(size)[1] - 1))


def _is_weight(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted mean and standard deviation, 1 where that is zero, of numbers of any size."""
    unit = float(power_of_two(np.abs(values).max()))  # division by it is exact; large numbers have no squares
    values = values / unit
    mean = float(np.average(values, weights=weight))
    scale = float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
    return mean * unit, scale * unit or 1.0
