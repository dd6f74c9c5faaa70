"""What ``X`` is: flat rows, a batch, images of any kind, or files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse

from sktl._images._convert import as_array
from sktl._images._image_table import ARRAY, ITEM
from sktl._images._lazy import Broken, LazyImage, Remembering, unwrapped
from sktl._images._refusals import dataset_fault, out_of_scalar, single_fault
from sktl._images._sources import is_missing, is_source
from sktl.exceptions import ImageError

_EMPTY = "X is empty: at least one image is needed."
_NUMBER = (int, float, complex, np.number)


def understand(X: Any, *, strict: bool = True) -> tuple[str, Any]:
    """Say what ``X`` is: ("rows", X for scikit-learn), ("batch", ndarray), or ("files" | "images", sequence).

    With ``strict=False``, items none of which is an image are not refused as a whole: each has its own error when it is
    read, so that what becomes of it does not depend on its neighbors. Values that are missing are never refused here.
    """
    if issparse(X):
        return "rows", X
    if (fault := single_fault(X) or dataset_fault(X)) is not None:
        raise ImageError(fault)
    X = out_of_scalar(X)
    if isinstance(X, torch.Tensor):
        X = as_array(X)
    if isinstance(X, Mapping) or not (isinstance(X, Sequence) or hasattr(X, "__array__")):
        raise ImageError(
            f"X is of type {type(X).__name__!r}, but must be a list, array, tensor, Series or DataFrame of images."
        )
    if hasattr(X, "columns") and not len(X):
        raise ImageError(_EMPTY)
    if hasattr(X, "columns") and len(X.columns) != 1:
        return "rows", X
    if isinstance(X, Sequence) and (items := _items_of_sequence(X)) is not None:
        return _items_kind(items), items
    return _understand_values(X, _as_array_or_items(X), strict)


def _items_of_sequence(X: Sequence[Any]) -> "Sequence[Any] | None":
    """The sequence, if there is an image in it; one that makes its items each time is looked at once."""
    if isinstance(X, list | tuple):
        return X if any(map(is_item, X)) else None
    lazy = Remembering(X)
    first = _first(lazy)
    return lazy if is_item(first) or (first is None and len(X) and isinstance(lazy.peek(0), Broken)) else None


def _first(items: Sequence[Any]) -> Any:
    """The first item that is not missing; None if there is none."""
    look = items.peek if isinstance(items, Remembering) else items.__getitem__
    return next((item for item in map(look, range(len(items))) if not _is_hole(unwrapped(item))), None)


def _is_hole(item: Any) -> bool:
    return is_missing(item) or isinstance(item, Broken)


def _as_array_or_items(X: Any) -> "np.ndarray | list":
    """``X`` as one array; as a list of its items if these are of different shapes."""
    if type(X).__module__.partition(".")[0] == "polars":
        column = X[:, 0] if hasattr(X, "columns") else X
        if column.dtype.is_nested():  # NumPy would take structs apart
            return column.to_list()
    try:
        return np.asarray(X)
    except ValueError:
        return list(X)


def _understand_values(X: Any, values: "np.ndarray | list", strict: bool) -> tuple[str, Any]:
    if len(values) == 0 if isinstance(values, list) else not values.shape or values.shape[0] == 0:
        raise ImageError(_EMPTY)
    if isinstance(values, list):
        values = as_column(values)
    is_column = values.ndim == 1 or values.shape[1:] == (1,)
    if is_column and values.dtype.kind in "fmM" and bool(np.all(values != values)):
        return "files", np.full(len(values), None, object)  # a column of which all values are missing
    if is_column and values.dtype.kind in "OUST":
        return _understand_objects(values.ravel(), X, strict)
    return ("batch", values) if values.ndim > 2 else ("rows", X)


def _understand_objects(items: Any, X: Any, strict: bool) -> tuple[str, Any]:
    if items.dtype.kind == "S":
        raise ImageError("X is an array of fixed-width bytes, which loses zeros at their end: give a list of bytes.")
    first = _first(items)
    if first is None or any(map(is_item, items)):
        return _items_kind(items), items
    if isinstance(first, list | tuple | np.ndarray):
        return _understand_nested(items)
    if not strict:
        return "files", items
    if isinstance(first, _NUMBER):
        return "rows", X
    raise ImageError(f"X holds objects of type {type(first).__name__!r}; each item must be {ITEM}.")


def _understand_nested(items: np.ndarray) -> tuple[str, Any]:
    """A column of lists or of arrays: rows if each is a row of as many numbers, images if each is one."""
    try:
        arrays = [None if is_missing(item) else np.asarray(item) for item in items]
    except ValueError:
        raise ImageError("X holds lists of lists of different lengths: each image must be a full table.") from None
    known = [array for array in arrays if array is not None]
    shapes = {array.shape for array in known}
    if any(array.dtype.kind not in "buif" for array in known):
        raise ImageError("X holds lists with other things than numbers; each item must be " + ITEM + ".")
    if all(len(shape) == 1 for shape in shapes):
        if len(shapes) > 1 or len(known) < len(arrays):
            lengths = sorted({len(array) if array is not None else 0 for array in arrays})
            raise ImageError(f"The rows of X have different lengths, from {lengths[0]} to {lengths[-1]} values.")
        return "rows", np.stack(known)
    return "images", as_column(arrays)


def as_column(items: Sequence[Any]) -> np.ndarray:
    """A column of objects, whatever they are: NumPy would look into lists and arrays."""
    column = np.empty(len(items), object)
    for position, item in enumerate(items):
        column[position] = item
    return column


def is_item(item: Any) -> bool:
    """Whether this can be an image of a table; a text may be a path."""
    is_array = isinstance(item, ARRAY) and item.ndim >= 2
    return is_array or isinstance(item, (Image.Image, LazyImage)) or is_source(item)


def _items_kind(items: Sequence[Any]) -> str:
    looked_at = [_first(items)] if isinstance(items, Remembering) else items
    return "images" if any(isinstance(unwrapped(item), (*ARRAY, Image.Image)) for item in looked_at) else "files"
