"""Features and labels that scores are given, checked once and in one form from here on."""

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
    """Labels as numbers without gaps.

    Attributes
    ----------
    codes : ndarray of shape (n,)
        The class number of each row, in the order of the sorted labels.
    counts : ndarray of shape (n_classes,)
        Rows of each class, at least 1.
    """

    codes: np.ndarray
    counts: np.ndarray

    def one_hot(self) -> sparse.csr_array:
        """Table of shape (n, n_classes) with a 1 in each row, of which only the ones are stored."""
        n = len(self.codes)
        return sparse.csr_array((np.ones(n), self.codes, np.arange(n + 1)), shape=(n, len(self.counts)))


def check_features(features: Any, name: str = "features") -> np.ndarray:
    """Table of finite numbers in double precision, of at least two rows.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What was given.
    name : str, default="features"
        How the parameter is called in an error.

    Returns
    -------
    X : ndarray of shape (n, n_features), dtype float64
        The same array where it was one already: not to be written to.
    """
    shape = np.shape(features)
    if len(shape) > 2:
        raise InputError(
            f"{name} has shape {shape}, and a score wants one row of numbers per picture. Pool maps of shape "
            f"(n, channels, height, width) before, as in {name}.mean(axis=(2, 3)), or with the parameter `pooling` of "
            "PretrainedFeatureExtractor."
        )
    with shortened_errors():
        X = check_array(features, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2, input_name=name)
    wrong = ~np.isfinite(X).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{name} has NaN or infinity in {wrong.sum()} of {len(X)} rows, the first of them row {wrong.argmax()}. "
            "Leave these rows out, or impute them."
        )
    return X


def check_labels(features: Any, y: Any, name: str = "features") -> tuple[np.ndarray, Labels]:
    """Features and classes of the same rows, at least two classes.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What was given.
    y : array-like of shape (n,)
        Labels of any kind that can be sorted: numbers with gaps, strings, booleans.
    name : str, default="features"
        How the first parameter is called in an error.

    Returns
    -------
    X : ndarray of shape (n, n_features), dtype float64
        The features.
    labels : Labels
        The classes.
    """
    X, labels = check_features(features, name), _as_labels(present(y))
    _check_lengths(name, X, labels.codes)
    return X, labels


def check_targets(features: Any, y: Any, task: Task) -> tuple[np.ndarray, Labels | np.ndarray]:
    """Features and what is to be predicted from them: classes, or targets of a regression.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What was given.
    y : array-like of shape (n,) or (n, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}
        "auto" is a regression where y has several columns, or numbers that are not whole.

    Returns
    -------
    X : ndarray of shape (n, n_features), dtype float64
        The features.
    target : Labels or ndarray of shape (n, n_targets)
        Targets are float64, and none is constant.
    """
    X, target = check_features(features), as_target(y, task)
    _check_lengths("features", X, target.codes if isinstance(target, Labels) else target)
    return X, target


def as_target(y: Any, task: Task) -> Labels | np.ndarray:
    """What is to be predicted, as `check_targets` gives it, before there are any features."""
    y = present(y)
    if has_classes(y, task):
        return _as_labels(y)
    with shortened_errors():
        targets = check_array(y.reshape(-1, 1) if y.ndim == 1 else y, dtype=np.float64, input_name="y")
    constant = np.flatnonzero(targets.min(axis=0) == targets.max(axis=0))
    if len(constant):
        which = f"in column {constant[0]} " if targets.shape[1] > 1 else ""
        raise InputError(
            f"y has the same value {which}for all rows ({targets[0, constant[0]]:g}), so that there is nothing to "
            "predict. Leave it out."
        )
    return targets


def present(y: Any, name: str = "y") -> np.ndarray:
    """Labels or targets as an array, none of which is missing: neither NaN, nor None, nor pandas' NA.

    Objects that all are numbers, as in a column that had a missing value once, become an array of numbers.
    """
    y = np.asarray(y)
    n_missing = sum(map(is_missing, y.ravel())) if y.dtype == object else int(np.sum(y != y))
    if n_missing:
        raise InputError(f"{name} has {n_missing} missing values. Leave these rows out.")
    is_numbers = y.dtype == object and all(isinstance(label, Real) for label in y.ravel())
    return np.array(y.tolist()) if is_numbers else y


def has_classes(y: np.ndarray, task: Task) -> bool:
    """Whether these are labels of classes; if not, they are targets of a regression."""
    is_column = y.ndim == 1 or y.shape[1] == 1
    return task == "classification" or (task == "auto" and is_column and not is_continuous(y))


def draw_rows(y: Any, max_samples: "int | None", task: Task, random: np.random.RandomState) -> np.ndarray:
    """The rows that are looked at, in order; each class gives its share, and one at least where there is room."""
    n_rows = _num_samples(y)
    if max_samples is None or max_samples >= n_rows:
        return np.arange(n_rows)
    y, order = present(y), random.permutation(n_rows)
    if not has_classes(y, task):
        return np.sort(order[:max_samples])
    _, group = numbered(y.ravel()[order], "y")
    by_class, counts = np.argsort(group, kind="stable"), np.bincount(group)
    number = np.empty(n_rows)  # of each row in its class
    number[by_class] = np.concatenate([np.arange(n) for n in counts])
    place = np.where(number == 0, 0, (number + 0.5) / counts[group])
    return np.sort(order[np.argsort(place, kind="stable")[:max_samples]])


def numbered(y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in their order, and for each row the number of its own."""
    try:
        return np.unique(y, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in y})
        raise InputError(f"{name} mixes labels of types {kinds}, which have no order. Make them all strings.") from None


def encode(y: np.ndarray, name: str) -> Labels:
    """Numbers of at least two classes."""
    classes, codes = numbered(y, name)
    if len(classes) == 1:
        raise InputError(
            f"{name} has one class only, {str(classes[0])!r}, and a score says how well classes are told apart. Give "
            "rows of at least two classes."
        )
    return Labels(codes, np.bincount(codes))


def unit_scale(X: np.ndarray) -> tuple[np.ndarray, float]:
    """Divide by the largest magnitude, so that squares neither overflow nor vanish; also returns it, or 1 for zeros."""
    largest = float(np.abs(X).max())
    return (X / largest, largest) if largest > 0 else (X, 1.0)


def centred(X: np.ndarray) -> np.ndarray:
    """Less the mean of each column; a constant column gets exact zeros, where rounding would leave it a direction."""
    Z = X - X.mean(axis=0)
    Z[:, X.min(axis=0) == X.max(axis=0)] = 0.0
    return Z


def _as_labels(y: np.ndarray) -> Labels:
    """Classes, where y has any."""
    y = column_or_1d(y)
    if is_continuous(y):
        raise InputError(
            f"y has values that are no classes, such as {_first_fraction(y)}, and this score knows classes only. For a "
            "regression take logme_score or probe_score, or bin y before."
        )
    return encode(y, "y")


def _check_lengths(name: str, X: np.ndarray, y: np.ndarray) -> None:
    if len(X) != len(y):
        raise InputError(f"{name} has {len(X)} rows and y has {len(y)}. Give one entry of y for each row.")


def is_continuous(y: np.ndarray) -> bool:
    """Whether there are numbers that are not whole."""
    return y.dtype.kind == "f" and bool(np.any(y != np.round(y)))


def _first_fraction(y: np.ndarray) -> float:
    return float(y[y != np.round(y)][0])
