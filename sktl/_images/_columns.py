"""Selection of the image column from a table with several columns."""

import mimetypes
from typing import Any

import numpy as np

from sktl._images._lazy import unwrapped
from sktl._images._sources import is_missing, is_packed_image, local_path
from sktl._images._understand import is_item
from sktl.exceptions import ImageError

_LOOKED_AT = 100  # number of values searched for one that is not missing


class TakesTables:
    """Mixin for estimators that accept tables with an image column among others."""


def image_column(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Select the image column of a table; return any other ``X`` unchanged.

    Parameters
    ----------
    estimator : estimator
        The estimator. If ``reset`` and the table has an image column,
        ``estimator.image_column_`` is set to its name, or to its index in an array.
    X : DataFrame, 2-dimensional array of objects, or other
        Table with images in one of its columns, or images alone.
    reset : bool
        Whether to find the column, as in ``fit``, or to use the one found in ``fit``.

    Raises
    ------
    ImageError
        If several columns contain images, or if the column found in ``fit`` is missing.
    """
    if reset:
        vars(estimator).pop("image_column_", None)
    names = _names(X)
    if len(names) < 2:
        return X
    if not reset:
        column = getattr(estimator, "image_column_", None)
        if column is not None and column not in names:
            raise ImageError(
                f"X has the columns {names}, but not {column!r}, which contained the images in fit. Pass a table with "
                "this column, or only the images."
            )
        return X if column is None else _take(X, column)
    found = [name for name in names if _holds_images(_take(X, name))]
    if len(found) > 1:
        raise ImageError(
            f"X has {len(found)} columns with images, {found}, but {type(estimator).__name__} accepts only one. Drop "
            "the others."
        )
    if not found:
        return X
    estimator.image_column_ = found[0]
    return _take(X, found[0])


def _names(X: Any) -> list[Any]:
    """Return the column names of a table of objects, else an empty list."""
    if hasattr(X, "columns"):  # in a pyarrow table, the values and not the names
        return list(X.columns) if hasattr(X, "to_numpy") else []
    is_table = isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "OU"
    return list(range(X.shape[1])) if is_table else []


def _take(X: Any, name: Any) -> Any:
    return X[[name]] if hasattr(X, "columns") else X[:, [name]]


def _holds_images(column: Any) -> bool:
    """Check whether the first value that is not missing is an image."""
    first = next((value for value in _first_values(column) if not is_missing(value)), None)
    if not isinstance(first, str):
        return first is not None and is_item(unwrapped(first))
    guess = mimetypes.guess_type(first)[0] or ""
    return guess.startswith("image/") or local_path(first) is not None or is_packed_image(first)


def _first_values(column: Any) -> list[Any]:
    """Return the first values of a column of objects, and none of a numeric column."""
    if not hasattr(column, "columns"):
        return column[:_LOOKED_AT, 0].tolist()
    values = column.iloc[:, 0] if hasattr(column, "iloc") else column[:, 0]
    return [] if getattr(values.dtype, "kind", "O") in "biufcmM" else values.head(_LOOKED_AT).to_list()
