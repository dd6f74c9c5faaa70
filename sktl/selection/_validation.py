"""Validation of the features and labels of scores."""

from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _num_samples

from sktl._images import is_missing
from sktl._messages import shortened_errors
from sktl.exceptions import InputError

Task = Literal["auto", "classification", "regression"]


class Labels(NamedTuple):
    """Labels as integers without gaps.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,)
        Index of the class of each row in the sorted labels.
    counts : ndarray of shape (n_classes,)
        Number of rows of each class, at least 1.
    """

    codes: np.ndarray
    counts: np.ndarray

    def one_hot(self) -> sparse.csr_array:
        """Return the sparse one-hot encoding of shape (n_samples, n_classes)."""
        n = len(self.codes)
        return sparse.csr_array((np.ones(n), self.codes, np.arange(n + 1)), shape=(n, len(self.counts)))


def check_features(features: Any, name: str = "features") -> np.ndarray:
    """Return features as a table of finite values in double precision.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        The features, at least two rows.
    name : str, default="features"
        Name of the parameter for the error message.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype float64
        May be the input array and must not be modified.
    """
    shape = np.shape(features)
    if len(shape) > 2:
        raise InputError(
            f"{name} must be a table with one row per image. Got an array of shape {shape} instead. Pool feature maps "
            f"of shape (n, channels, height, width) first, such as with {name}.mean(axis=(2, 3)) or the 'pooling' "
            "parameter of PretrainedFeatureExtractor."
        )
    with shortened_errors():
        X = check_array(features, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2, input_name=name)
    wrong = ~np.isfinite(X).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{name} has NaN or infinite values in {wrong.sum()} of {len(X)} rows, starting with row {wrong.argmax()}. "
            "Remove or impute these rows."
        )
    return X


def check_labels(features: Any, y: Any, name: str = "features") -> tuple[np.ndarray, Labels]:
    """Return the features and classes of the same rows, with at least two classes.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        The features.
    y : array-like of shape (n_samples,)
        Labels of any sortable kind: numbers with gaps, strings, booleans.
    name : str, default="features"
        Name of the first parameter for the error message.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype float64
        The features.
    labels : Labels
        The classes.
    """
    X, labels = check_features(features, name), _as_labels(present(y))
    _check_lengths(name, X, labels.codes)
    return X, labels


def check_targets(features: Any, y: Any, task: Task) -> tuple[np.ndarray, Labels | np.ndarray]:
    """Return the features with the classes or regression targets of the same rows.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        The features.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}
        ``"auto"`` means regression if ``y`` has several columns, or numbers that are
        not integers.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), dtype float64
        The features.
    target : Labels or ndarray of shape (n_samples, n_targets)
        The classes, or non-constant float64 targets.
    """
    X, target = check_features(features), as_target(y, task)
    _check_lengths("features", X, target.codes if isinstance(target, Labels) else target)
    return X, target


def as_target(y: Any, task: Task) -> Labels | np.ndarray:
    """Return the classes or targets in ``y``, as `check_targets` does."""
    y = present(y)
    if has_classes(y, task):
        return _as_labels(y)
    with shortened_errors():
        targets = check_array(y.reshape(-1, 1) if y.ndim == 1 else y, dtype=np.float64, input_name="y")
    constant = np.flatnonzero(targets.min(axis=0) == targets.max(axis=0))
    if len(constant):
        which = f"in column {constant[0]} " if targets.shape[1] > 1 else ""
        raise InputError(
            f"y has the same value {which}for all rows ({targets[0, constant[0]]:g}), so there is nothing to predict. "
            "Remove this target."
        )
    return targets


def present(y: Any, name: str = "y") -> np.ndarray:
    """Return labels or targets as an array without missing values (NaN, None, NA).

    An object array of numbers, as in a column that used to have missing values, is
    converted to an array of numbers.
    """
    y = np.asarray(y)
    n_missing = sum(map(is_missing, y.ravel())) if y.dtype == object else int(np.sum(y != y))
    if n_missing:
        raise InputError(f"{name} has missing values ({n_missing} of {y.size}). Remove these rows.")
    is_numbers = y.dtype == object and all(isinstance(label, Real) for label in y.ravel())
    return np.array(y.tolist()) if is_numbers else y


def has_classes(y: np.ndarray, task: Task) -> bool:
    """Check whether ``y`` has class labels instead of regression targets."""
    is_column = y.ndim == 1 or y.shape[1] == 1
    return task == "classification" or (task == "auto" and is_column and not is_continuous(y))


def draw_rows(y: Any, max_samples: "int | None", task: Task, random: np.random.RandomState) -> np.ndarray:
    """Return a random subset of rows in ascending order, stratified by class.

    If possible, each class has at least one row.
    """
    n_rows = _num_samples(y)
    if max_samples is None or max_samples >= n_rows:
        return np.arange(n_rows)
    y, order = present(y), random.permutation(n_rows)
    if not has_classes(y, task):
        return np.sort(order[:max_samples])
    _, group = numbered(y.ravel()[order], "y")
    by_class, counts = np.argsort(group, kind="stable"), np.bincount(group)
    number = np.empty(n_rows)  # index of each row in its class
    number[by_class] = np.concatenate([np.arange(n) for n in counts])
    place = np.where(number == 0, 0, (number + 0.5) / counts[group])
    return np.sort(order[np.argsort(place, kind="stable")[:max_samples]])


def numbered(y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted unique labels and the index of each row's label."""
    try:
        return np.unique(y, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in y})
        raise InputError(
            f"{name} has labels of types {kinds}, which cannot be sorted. Convert all labels to strings."
        ) from None


def encode(y: np.ndarray, name: str) -> Labels:
    """Return the labels as integers, for at least two classes."""
    classes, codes = numbered(y, name)
    if len(classes) == 1:
        raise InputError(
            f"{name} has only one class, {str(classes[0])!r}. Scores of how well features separate classes need at "
            "least two classes."
        )
    return Labels(codes, np.bincount(codes))


def unit_scale(X: np.ndarray) -> tuple[np.ndarray, float]:
    """Divide by the largest magnitude to avoid overflow, and return both.

    The magnitude is 1 if all values are zero.
    """
    largest = float(np.abs(X).max())
    return (X / largest, largest) if largest > 0 else (X, 1.0)


def centered(X: np.ndarray) -> np.ndarray:
    """Subtract the mean of each column. Constant columns become exactly zero."""
    Z = X - X.mean(axis=0)
    Z[:, X.min(axis=0) == X.max(axis=0)] = 0.0
    return Z


def _as_labels(y: np.ndarray) -> Labels:
    """Return the classes in ``y``."""
    y = column_or_1d(y)
    if is_continuous(y):
        raise InputError(
            f"y must have class labels for this score. Got numbers that are not integers, such as "
            f"{_first_fraction(y)}. Use logme_score or probe_score for regression, or bin y first."
        )
    return encode(y, "y")


def _check_lengths(name: str, X: np.ndarray, y: np.ndarray) -> None:
    if len(X) != len(y):
        raise InputError(f"{name} and y must have the same length. Got {len(X)} rows and {len(y)} labels or targets.")


def is_continuous(y: np.ndarray) -> bool:
    """Check whether ``y`` has numbers that are not integers."""
    return y.dtype.kind == "f" and bool(np.any(y != np.round(y)))


def _first_fraction(y: np.ndarray) -> float:
    return float(y[y != np.round(y)][0])
