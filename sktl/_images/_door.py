"""The door: ``check_images`` understands ``X``; ``Images`` hands out its pictures one by one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from sktl._images._format import ImageFormat
from sktl._images._learn import fitting_axes, learn_channels, learn_row_shape, learn_value_range, warn_if_other_scale
from sktl._images._pictures import ARRAY, ENCODED, ITEM, PATH, Images, as_array, channels_fault
from sktl.exceptions import ImageError


def check_images(estimator: Any, X: Any, *, reset: bool) -> "Images":
    """Understand ``X`` as pictures, for an estimator.

    Parameters
    ----------
    estimator : estimator
        Read: ``image_shape`` (default None), ``channels`` ("auto"), ``in_channels`` (3), ``order`` ("C").
        Set where ``reset``: ``image_format_``, and for tables ``n_features_in_`` and ``feature_names_in_``.
    X : see the package's docstring
        The pictures.
    reset : bool
        True in ``fit``: learn the format of ``X``. False afterwards: take it as learnt.

    Returns
    -------
    images : Images of length n
        The pictures, none of them read or decoded yet. Arrays are not copied.

    Raises
    ------
    ImageError
        If ``X`` is not a table of pictures. What is wrong with a single picture is said when it is asked for.
    ValueError, TypeError
        scikit-learn's own, for flat rows.
    """
    kind, source = _understand(X)
    in_channels = getattr(estimator, "in_channels", 3)
    if kind == "rows":
        rows = check_rows(estimator, source, reset=reset, in_channels=in_channels)
        return Images(rows, estimator.image_format_, in_channels)
    _check_names(estimator, X, reset=reset)
    if kind == "batch":
        _check_batch(source, in_channels)
    if reset:
        estimator.image_format_ = _learn(kind, source, getattr(estimator, "channels", "auto"), in_channels)
    elif isinstance(source[0], ARRAY):  # a batch, or a list of arrays, whose first speaks for all
        sample = source if kind == "batch" else as_array(source[0])
        warn_if_other_scale(sample, estimator.image_format_.value_range)
    return Images(source, estimator.image_format_, in_channels)


def check_rows(estimator: Any, X: Any, *, reset: bool, in_channels: int | None = None) -> np.ndarray:
    """Validate flat rows as scikit-learn does, and learn (or keep) what unfolds them into pictures.

    Parameters
    ----------
    estimator, X, reset
        As in :func:`check_images`.
    in_channels : int or None, default=None
        Channels that the pictures must be able to become; None takes any number.

    Returns
    -------
    rows : ndarray of shape (n, n_pixels)
        The values as given, to be unfolded by :func:`rows_to_images` with ``estimator.image_format_``.
    """
    if not reset and estimator.image_format_.shape is None:
        raise ImageError(
            f"X is a table of numbers, but {type(estimator).__name__} was fitted on {estimator.image_format_.kind}: "
            "the shape and the value range of its rows are not known. Give pictures of the kind given to fit."
        )
    try:
        rows = validate_data(estimator, X, reset=reset)
    except (TypeError, ValueError) as error:
        if (n_columns := _text_columns(X)) > 1:
            raise ImageError(
                f"X has {n_columns} columns, with text among them: choose the one that holds the paths."
            ) from error
        raise
    if rows.dtype.kind not in "buif":
        raise ImageError(f"X is a table of {rows.dtype} values, but pixels must be real numbers.")
    if reset:
        channels = getattr(estimator, "channels", "auto")
        estimator.image_format_ = ImageFormat(
            kind="rows",
            shape=learn_row_shape(rows.shape[1], getattr(estimator, "image_shape", None), in_channels),
            channels="last" if channels == "auto" else channels,
            value_range=learn_value_range([rows]),
            order=getattr(estimator, "order", "C"),
        )
    else:
        warn_if_other_scale(rows, estimator.image_format_.value_range)
    return rows


def _understand(X: Any) -> tuple[str, Any]:
    """Say what ``X`` is: ("rows", X for scikit-learn), ("batch", ndarray), or ("files" | "pictures", sequence)."""
    if isinstance(X, (*PATH, *ENCODED, Image.Image)):
        raise ImageError(f"X is one single picture ({type(X).__name__}): pass a list of pictures, such as [X].")
    if isinstance(X, torch.Tensor):
        X = as_array(X)
    if issparse(X) or (isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "buifc"):
        return "rows", X
    if isinstance(X, Mapping) or not (isinstance(X, Sequence) or hasattr(X, "__array__")):
        raise ImageError(
            f"X is of type {type(X).__name__!r}, but must be a list, array, tensor, Series or DataFrame of pictures."
        )
    if isinstance(X, Sequence) and any(map(_is_item, X)):
        return _items_kind(X), X
    if hasattr(X, "columns") and len(X.columns) != 1:
        return "rows", X
    try:
        array = np.asarray(X)
    except ValueError:  # a ragged list: scikit-learn has the words for it
        return "rows", X
    if not array.size and (array.ndim <= 1 or array.dtype.kind in "OUST"):
        raise ImageError("X is empty: at least one picture is needed.")
    if array.dtype.kind in "OUST" and (array.ndim == 1 or array.shape[1:] == (1,)):
        return _understand_objects(array.ravel(), X)
    return ("batch", array) if array.ndim > 2 else ("rows", X)


def _understand_objects(items: np.ndarray, X: Any) -> tuple[str, Any]:
    if items.dtype.kind == "S":
        raise ImageError("X is an array of fixed-width bytes, which loses zeros at their end: pass a list of bytes.")
    if any(map(_is_item, items)):
        return _items_kind(items), items
    if isinstance(items[0], (int, float, complex, np.number, list, tuple, np.ndarray)):
        return "rows", X
    raise ImageError(f"X holds objects of type {type(items[0]).__name__!r}; each item must be {ITEM}.")


def _is_item(item: Any) -> bool:
    return isinstance(item, (*PATH, *ENCODED, Image.Image)) or (isinstance(item, ARRAY) and item.ndim >= 2)


def _items_kind(items: Iterable[Any]) -> str:
    return "pictures" if any(isinstance(item, (*ARRAY, Image.Image)) for item in items) else "files"


def _check_names(estimator: Any, X: Any, *, reset: bool) -> None:
    """Keep scikit-learn's attributes about columns true: one column of pictures has a name, a list has none."""
    if hasattr(X, "columns"):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset:
        vars(estimator).pop("n_features_in_", None)
        vars(estimator).pop("feature_names_in_", None)


def _check_batch(batch: np.ndarray, in_channels: int) -> None:
    if batch.ndim > 4 or batch.dtype.kind not in "buif":
        raise ImageError(
            f"X is an array of shape {batch.shape} and dtype {batch.dtype}, but must be (n, H, W), (n, H, W, C) or "
            "(n, C, H, W) real numbers, flat rows (n, n_pixels), or a list of pictures."
        )
    if not batch.size:
        raise ImageError(f"X is empty: an array of shape {batch.shape} holds no pixels.")
    if batch.ndim == 3 and batch.shape[2] in (3, 4) and batch.shape[1] > 4 and in_channels in (1, 3):
        raise ImageError(
            f"X of shape {batch.shape} looks like one single picture: pass X[np.newaxis]. "
            "If it is a batch of narrow grey pictures, pass X[..., np.newaxis]."
        )
    if batch.ndim == 4 and not fitting_axes(batch.shape[1:], in_channels):
        raise ImageError(f"X of shape {batch.shape} {channels_fault(batch.shape[1:], in_channels)}")


def _learn(kind: str, source: Any, channels: str, in_channels: int) -> ImageFormat:
    if kind == "batch":
        shapes, arrays, prefer_last = [source.shape[1:]] if source.ndim == 4 else [], [source], False
    else:
        arrays = list(_arrays(source))
        shapes = [array.shape for array in arrays if array.ndim == 3]
        prefer_last = not any(isinstance(item, torch.Tensor) for item in source)
    learnt = learn_channels(shapes, in_channels, prefer_last=prefer_last) if channels == "auto" else channels
    return ImageFormat(kind=kind, channels=learnt, value_range=learn_value_range(arrays))


def _arrays(items: Iterable[Any]) -> Iterator[np.ndarray]:
    for item in items:
        if isinstance(item, ARRAY) or (isinstance(item, Image.Image) and item.mode == "F"):
            yield as_array(item)


def _text_columns(X: Any) -> int:
    """Count the columns of a table whose first row holds text; 0 for everything else."""
    if issparse(X):
        return 0
    try:
        first = list(X.iloc[0] if hasattr(X, "iloc") else X[0])
    except (TypeError, LookupError):
        return 0
    return len(first) if any(isinstance(value, PATH) for value in first) else 0
