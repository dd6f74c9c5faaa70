"""Checked rows of numbers, with the interface of a table of images."""

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from PIL import Image
from sklearn.utils.validation import validate_data

from sktl._messages import shortened_errors
from sktl.exceptions import InputError


class NumberRows:
    """Rows of a table of numbers, with the interface of `Images` that training uses.

    Parameters
    ----------
    numbers : ndarray of shape (n, n_features)
        The table.
    """

    on_error = "raise"

    def __init__(self, numbers: np.ndarray):
        self._numbers = numbers
        self._positions = np.arange(len(numbers))

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def positions(self) -> np.ndarray:
        """Positions of the rows of this view in the whole table."""
        return self._positions

    @property
    def numbers(self) -> np.ndarray:
        """The rows of this view, (n, n_features)."""
        return self._numbers[self._positions]

    def take(self, positions: "Sequence[int] | np.ndarray") -> "NumberRows":
        """Return a view of some rows."""
        taken = copy.copy(self)
        taken._positions = self._positions[positions]
        return taken

    def digest(self, index: int) -> bytes:
        """Return the digest of a row: equal rows have equal digests in any dtype."""
        row = self._numbers[self._positions[index]].astype(np.float64)
        return xxhash.xxh3_128((row + 0.0).tobytes()).digest()  # -0.0 becomes 0.0


def check_numbers(estimator: Any, X: Any, *, reset: bool, n_least: int = 1) -> NumberRows:
    """Check a table of numbers, in which NaN stands for entries that were not observed.

    Parameters
    ----------
    estimator : estimator
        Estimator on which ``n_features_in_`` is set, or with which it is compared.
    X : array-like of shape (n_samples, n_features)
        The table.
    reset : bool
        Whether to set the attributes of the estimator.
    n_least : int, default=1
        Smallest number of rows.

    Raises
    ------
    InputError
        If ``X`` holds images, or a row or a column has no numbers.
    ValueError
        From scikit-learn, if ``X`` is not a table of numbers, or has infinite ones.
    """
    refuse_images(estimator, X)
    with shortened_errors():
        numbers = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
            ensure_min_samples=n_least,
        )
    missing = np.isnan(numbers)
    name = type(estimator).__name__
    rows = np.flatnonzero(missing.all(1))
    if len(rows):
        raise InputError(
            f"X has rows without any observed entry, the first one at position {rows[0]}. {name} needs at least one "
            "entry in each row that is not NaN. Drop these rows."
        )
    columns = np.flatnonzero(missing.all(0)) if reset else ()
    if len(columns):
        names = getattr(estimator, "feature_names_in_", range(numbers.shape[1]))
        raise InputError(
            f"X has columns without any observed entry: {[names[column] for column in columns[:5]]}. {name} cannot "
            "learn a column that is NaN in all rows. Drop these columns."
        )
    if reset and np.array_equal(numbers, np.broadcast_to(numbers[:1], numbers.shape), equal_nan=True):
        raise InputError(f"{name} needs at least two different rows. Got X with {len(numbers)} equal rows instead.")
    return NumberRows(numbers)


def refuse_images(estimator: Any, X: Any) -> None:
    """Check that ``X`` does not hold images, for which a backbone is needed.

    Raises
    ------
    InputError
        If it does.
    """
    n_axes = getattr(X, "ndim", 0)
    if n_axes > 2:
        what = f"an array of shape {tuple(X.shape)}"
    else:
        item = _first(X)
        is_image = isinstance(item, str | bytes | os.PathLike | Image.Image) or getattr(item, "ndim", 0) > 1
        what = f"items of type {type(item).__name__!r}" if is_image else ""
    if what:
        raise InputError(
            f"{type(estimator).__name__} with backbone=None takes a table of numbers of shape (n_samples, n_features). "
            f"Got {what} instead. For images, set a backbone, such as backbone='sktl_mini'."
        )


def _first(X: Any) -> Any:
    """Return the first item of a table with one column, or None."""
    if hasattr(X, "iloc"):
        return X.iloc[(0,) * X.ndim] if X.size else None
    is_list = isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype.kind in "OUS")
    item = X[0] if is_list and len(X) else None
    return item[0] if isinstance(item, np.ndarray) and item.dtype.kind in "OUS" and len(item) == 1 else item
