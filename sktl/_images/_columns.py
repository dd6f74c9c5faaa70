"""The column of images in a table of several columns, for an estimator whose own part of the table it is."""

import mimetypes
from typing import Any

import numpy as np

from sktl._images._lazy import unwrapped
from sktl._images._sources import is_missing, is_packed_image, local_path
from sktl._images._understand import is_item
from sktl.exceptions import ImageError

_LOOKED_AT = 100  # values of a column: the first ones that are missing may be many


class TakesTables:
    """An estimator that takes a table of which one column of several holds the images, and sees all of them."""


def image_column(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Take the images out of a table of several columns; anything else is returned as it is.

    Parameters
    ----------
    estimator : estimator
        Set if ``reset`` and the table has several columns, one of them of images: ``image_column_``, its name (its
        number in an array).
    X : DataFrame or 2-dimensional array of objects
        A table with images in one of its columns, or anything else.
    reset : bool
        True in ``fit``: find the column. False afterwards: take the same one. Images without the rest of the table are
        fine too.

    Raises
    ------
    ImageError
        If several columns hold images, or the column of ``fit`` is not there.
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
                f"X has the columns {names}, but not {column!r}, which held the images in fit. Give a table with this "
                "column, or the images alone."
            )
        return X if column is None else _take(X, column)
    found = [name for name in names if _holds_images(_take(X, name))]
    if len(found) > 1:
        raise ImageError(
            f"X has {len(found)} columns of images, {found}, and {type(estimator).__name__} reads one. Give a table "
            "with one of them."
        )
    if not found:
        return X
    estimator.image_column_ = found[0]
    return _take(X, found[0])


def _names(X: Any) -> list[Any]:
    """The names of the columns that hold more than numbers can; empty if ``X`` is no such table."""
    if hasattr(X, "columns"):  # in a pyarrow table these are the values, not their names
        return list(X.columns) if hasattr(X, "to_numpy") else []
    is_table = isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "OU"
    return list(range(X.shape[1])) if is_table else []


def _take(X: Any, name: Any) -> Any:
    return X[[name]] if hasattr(X, "columns") else X[:, [name]]


def _holds_images(column: Any) -> bool:
    """Whether the first value that is not missing is an image."""
    first = next((value for value in _first_values(column) if not is_missing(value)), None)
    if not isinstance(first, str):
        return first is not None and is_item(unwrapped(first))
    guess = mimetypes.guess_type(first)[0] or ""
    return guess.startswith("image/") or local_path(first) is not None or is_packed_image(first)


def _first_values(column: Any) -> list[Any]:
    """Some values of a column that may hold anything but numbers; none of another one."""
    if not hasattr(column, "columns"):
        return column[:_LOOKED_AT, 0].tolist()
    values = column.iloc[:, 0] if hasattr(column, "iloc") else column[:, 0]
    return [] if getattr(values.dtype, "kind", "O") in "biufcmM" else values.head(_LOOKED_AT).to_list()
