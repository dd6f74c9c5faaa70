"""Kind of ``X``: flat rows, a batch array, images or files."""

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

_EMPTY = "X is empty. At least one image is required."
_NUMBER = (int, float, complex, np.number)


def understand(X: Any, *, strict: bool = True) -> tuple[str, Any]:
    """Return the kind of ``X`` and its items.

    Parameters
    ----------
    X : object
        The input of an estimator.
    strict : bool, default=True
        Whether to refuse ``X`` if none of its items is an image. If False, each item
        raises an error when it is read, independently of the other items. Missing
        values are always accepted here.

    Returns
    -------
    kind : {"rows", "batch", "files", "images"}
        The kind of ``X``, as in `ImageFormat`.
    items : X, ndarray or sequence
        ``X`` for rows, an array for a batch, and a sequence of items otherwise.
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
            "X must be a list, array, tensor, Series or DataFrame of images. Got an object of type "
            f"{type(X).__name__!r} instead."
        )
    if hasattr(X, "columns") and not len(X):
        raise ImageError(_EMPTY)
    if hasattr(X, "columns") and len(X.columns) != 1:
        return "rows", X
    if isinstance(X, Sequence) and (items := _items_of_sequence(X)) is not None:
        return _items_kind(items), items
    return _understand_values(X, _as_array_or_items(X), strict)


def _items_of_sequence(X: Sequence[Any]) -> "Sequence[Any] | None":
    """Return the sequence if it contains an image; lazy sequences are wrapped."""
    if isinstance(X, list | tuple):
        return X if any(map(is_item, X)) else None
    lazy = Remembering(X)
    first = _first(lazy)
    return lazy if is_item(first) or (first is None and len(X) and isinstance(lazy.peek(0), Broken)) else None


def _first(items: Sequence[Any]) -> Any:
    """Return the first item that is not missing, or None."""
    look = items.peek if isinstance(items, Remembering) else items.__getitem__
    return next((item for item in map(look, range(len(items))) if not _is_hole(unwrapped(item))), None)


def _is_hole(item: Any) -> bool:
    return is_missing(item) or isinstance(item, Broken)


def _as_array_or_items(X: Any) -> "np.ndarray | list":
    """Convert ``X`` to an array, or to a list if its items differ in shape."""
    if type(X).__module__.partition(".")[0] == "polars":
        column = X[:, 0] if hasattr(X, "columns") else X
        if column.dtype.is_nested():  # NumPy would split structs
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
        return "files", np.full(len(values), None, object)  # all values are missing
    if is_column and values.dtype.kind in "OUST":
        return _understand_objects(values.ravel(), X, strict)
    return ("batch", values) if values.ndim > 2 else ("rows", X)


def _understand_objects(items: Any, X: Any, strict: bool) -> tuple[str, Any]:
    if items.dtype.kind == "S":
        raise ImageError(
            "X is an array of fixed-width bytes, which loses trailing zeros. Pass a list of bytes instead."
        )
    first = _first(items)
    if first is None or any(map(is_item, items)):
        return _items_kind(items), items
    if isinstance(first, list | tuple | np.ndarray):
        return _understand_nested(items)
    if not strict:
        return "files", items
    if isinstance(first, _NUMBER):
        return "rows", X
    raise ImageError(f"Each item of X must be {ITEM}. Got objects of type {type(first).__name__!r} instead.")


def _understand_nested(items: np.ndarray) -> tuple[str, Any]:
    """Return the kind and the items of a column of lists or arrays."""
    try:
        arrays = [None if is_missing(item) else np.asarray(item) for item in items]
    except ValueError:
        raise ImageError("X contains nested lists of different lengths, but each image must be rectangular.") from None
    known = [array for array in arrays if array is not None]
    shapes = {array.shape for array in known}
    if any(array.dtype.kind not in "buif" for array in known):
        raise ImageError("X contains lists of objects that are not numbers. Each item must be " + ITEM + ".")
    if all(len(shape) == 1 for shape in shapes):
        if len(shapes) > 1 or len(known) < len(arrays):
            lengths = sorted({len(array) if array is not None else 0 for array in arrays})
            raise ImageError(
                f"The rows of X must have the same length. Got lengths from {lengths[0]} to {lengths[-1]}."
            )
        return "rows", np.stack(known)
    return "images", as_column(arrays)


def as_column(items: Sequence[Any]) -> np.ndarray:
    """Return a 1-dimensional array of objects, without converting nested lists."""
    column = np.empty(len(items), object)
    for position, item in enumerate(items):
        column[position] = item
    return column


def is_item(item: Any) -> bool:
    """Check whether an item may be an image; any string may be a path."""
    is_array = isinstance(item, ARRAY) and item.ndim >= 2
    return is_array or isinstance(item, (Image.Image, LazyImage)) or is_source(item)


def _items_kind(items: Sequence[Any]) -> str:
    looked_at = [_first(items)] if isinstance(items, Remembering) else items
    return "images" if any(isinstance(unwrapped(item), (*ARRAY, Image.Image)) for item in looked_at) else "files"
