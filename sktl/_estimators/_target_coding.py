"""Encoding of labels and targets for training, and decoding of predictions."""

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
    """Base class of encodings of targets, which are learned from the first targets.

    Parameters
    ----------
    owner : str
        Class name of the estimator, for messages.
    """

    n_outputs: int  # number of outputs of the head; 0 before the encoding is learned

    def __init__(self, owner: str):
        self.owner = owner

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes to set on the estimator, by name."""
        return {}

    def missing(self, n_rows: int) -> Any:
        """Return placeholders for missing targets. Raises an error here."""
        raise InputError(f"This {self.owner} estimator requires y to be passed, but the target y is None.")

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the encoded targets and a factor for the weight of each row.

        Parameters
        ----------
        y : array-like
            Labels or targets.
        weight : ndarray of shape (n_samples,)
            Positive weights of the rows.
        learns : bool
            Whether to learn the encoding from these targets.
        """
        raise NotImplementedError

    def strata(self, y: np.ndarray) -> "np.ndarray | None":
        """Return the strata of encoded targets for the validation split, or None."""
        return None


class NoTargets(TargetCoding):
    """Coding of learners without targets, which ignore ``y``."""

    n_outputs = 0

    def missing(self, n_rows: int) -> np.ndarray:
        """Return zeros."""
        return np.zeros(n_rows, np.float32)

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return zeros and a factor of one for each row."""
        return self.missing(len(y)), np.ones(len(y))


class ClassCoding(TargetCoding):
    """Encoding of labels as class numbers.

    Parameters
    ----------
    owner : str
        As in `TargetCoding`.
    class_weight : dict, "balanced" or None
        Weights of the classes, by label.
    classes : array-like or None, default=None
        All labels. None takes those that are encoded first.
    learned : ndarray of shape (n_classes,) or None, default=None
        Classes of a network that is already trained.
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
        """Attributes to set on the estimator: the class labels."""
        return {"classes_": self.classes}

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the class number and the class weight of each row."""
        # Before scikit-learn's check, which does not support pandas.NA.
        labels = np.asarray(y).ravel() if np.asarray(y).dtype.kind in "Of" else np.empty(0)
        missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
        if missing:
            raise InputError(
                f"y has missing labels, the first one at position {missing[0]}. {self.missing_labels_advice}"
            )
        if len({isinstance(label, str) for label in labels}) == 2:
            raise InputError("y has both strings and numbers as labels. Use only strings or only numbers.")
        with shortened_errors():
            y = _check_y(y, multi_output=False, estimator=self.owner)
            check_classification_targets(y)
        if learns:
            self.learn(y if self.given is None else self.given)
        unknown = np.setdiff1d(y, self.classes)
        if len(unknown):
            raise InputError(
                f"y has labels {unknown[:5].tolist()} that are not among the classes {self.classes.tolist()}. Pass "
                "all classes in the first call (classes=...), or fit from scratch."
            )
        index = np.searchsorted(self.classes, y)
        return index, self.weights(index, weight)[index]

    def learn(self, labels: Any) -> None:
        """Learn the classes; at least two are required."""
        self.classes = np.unique(labels)
        if len(self.classes) < 2:
            raise InputError(
                f"{self.owner} needs at least two classes. Got y with one class: {self.classes.tolist()[0]!r}."
            )

    def weights(self, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the weight of each class; the total weight of rows is unchanged."""
        if isinstance(self.class_weight, dict):
            bad = [f"{label!r}: {value!r}" for label, value in self.class_weight.items() if not _is_weight(value)]
            if bad:
                raise InputError(
                    "The 'class_weight' parameter must map labels to finite weights of at least 0. Got "
                    f"{{{bad[0]}}} instead."
                )
        mass = np.bincount(index, weights=weight, minlength=self.n_outputs)
        if self.class_weight == "balanced":  # two rows of weight 1 count as one of weight 2
            class_weight = 1 / np.where(mass > 0, mass, mass[mass > 0].mean())
        else:
            with shortened_errors():
                class_weight = compute_class_weight(self.class_weight, classes=self.classes, y=self.classes[index])
        class_weight = class_weight / (class_weight.max() or 1)  # the sum of very large weights would overflow
        if (class_weight < 0).any() or not (class_weight * mass).any():
            raise InputError(
                "The 'class_weight' parameter must be at least 0 for each class, and positive for at least one class "
                f"in y. Got {self.class_weight!r} instead."
            )
        return class_weight * mass.sum() / (class_weight * mass).sum()

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Stratify by class."""
        return y


class NumberCoding(TargetCoding):
    """Standardization of targets to arrays of shape (n_samples, n_targets).

    Parameters
    ----------
    owner : str
        As in `TargetCoding`.
    learned : NumberCoding or None, default=None
        Encoding of a network that is already trained.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_targets,)
        Weighted mean and standard deviation of each target.
    is_flat : bool
        Whether ``y`` had one dimension, so that predictions have one as well.
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
        """Attributes to set on the estimator: this encoding."""
        return {"_coding": self}

    def encode(self, y: Any, weight: np.ndarray, *, learns: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the standardized targets and a factor of one for each row."""
        numbers, is_flat = self.numbers(y)
        return self.standardized(numbers, weight, is_flat if learns else None), np.ones(len(numbers))

    def numbers(self, y: Any) -> tuple[np.ndarray, bool]:
        """Return targets with two dimensions, and whether ``y`` had one dimension."""
        with shortened_errors():
            y = _check_y(y, multi_output=True, y_numeric=True, estimator=self.owner).astype(np.float64)
        return y.reshape(len(y), -1), y.ndim == 1

    def standardized(self, y: np.ndarray, weight: np.ndarray, is_flat: "bool | None") -> np.ndarray:
        """Standardize targets, and learn the scale if ``is_flat`` is given."""
        if is_flat is not None:
            self.is_flat = is_flat
            self.learn(y, weight)
        elif y.shape[1] != self.n_outputs:
            raise InputError(f"y has {y.shape[1]} targets, but {self.owner} was fitted with {self.n_outputs}.")
        return ((y - self.mean) / self.scale).astype(np.float32)

    def learn(self, y: np.ndarray, weight: np.ndarray) -> None:
        """Learn the weighted mean and scale of each target, ignoring NaN."""
        known = [(column[~np.isnan(column)], weight[~np.isnan(column)]) for column in y.T]
        empty = [number for number, (column, _) in enumerate(known) if not len(column)]
        if empty:
            raise InputError(f"Target {empty[0]} of y is missing in all rows. Drop this target.")
        units = [_moments(column, own) for column, own in known]
        self.mean, self.scale = (np.array(numbers) for numbers in zip(*units, strict=True))

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Undo the standardization of outputs, and restore the shape of ``y``."""
        targets = outputs * self.scale + self.mean
        return targets[:, 0] if self.is_flat else targets


def power_of_two(size: "float | np.ndarray") -> "float | np.ndarray":
    """Return the largest power of two that is not greater than ``size``; 1 for zero."""
    return np.where(size == 0, 1.0, np.ldexp(1.0, np.frexp(size)[1] - 1))


def _is_weight(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return weighted mean and standard deviation (1 if zero), without overflow."""
    unit = float(power_of_two(np.abs(values).max()))  # division by it is exact; squares of large values would overflow
    values = values / unit
    mean = float(np.average(values, weights=weight))
    scale = float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
    return mean * unit, scale * unit or 1.0
