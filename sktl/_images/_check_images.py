"""Validation of image inputs: `check_images` checks ``X`` and returns `Images`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from sktl._images._bit_depth import highest_in_files
from sktl._images._columns import TakesTables, image_column
from sktl._images._convert import as_array
from sktl._images._decode import wide_values
from sktl._images._format import ImageFormat
from sktl._images._image_table import ARRAY, Images, channels_fault
from sktl._images._lazy import Remembering, has_value_range, unwrapped
from sktl._images._learn import (
    fitting_axes,
    learn_channels,
    learn_depth,
    learn_ranges,
    learn_row_shape,
    pixel_order,
    warn_if_other_scale,
)
from sktl._images._refusals import folders_fault
from sktl._images._sources import PATH
from sktl._images._understand import as_column, understand
from sktl._messages import shortened_errors
from sktl.exceptions import ImageError

_WIDE_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # PIL modes without a fixed value range


def check_images(estimator: Any, X: Any, *, reset: bool) -> "Images":
    """Validate ``X`` as images.

    Parameters
    ----------
    estimator : estimator
        The estimator. Its parameters ``image_shape``, ``channels``, ``in_channels`` and
        ``order`` are used if it has them. If ``reset``, ``image_format_`` is set, and
        for tables ``n_features_in_`` and ``feature_names_in_``. An estimator that
        inherits from `TakesTables` also gets ``image_column_`` if one of several
        columns holds the images.
    X : array-like of images
        The images, as described in the docstring of the package.
    reset : bool
        Whether to learn the format of ``X``, as in ``fit``, or to use the learned
        format.

    Returns
    -------
    images : Images of length n
        The images, which are not read or decoded yet. Arrays are not copied.

    Raises
    ------
    ImageError
        If ``X`` is not a table of images. Errors of single images are raised when the
        image is read.
    ValueError, TypeError
        From scikit-learn's validation of flat rows.
    """
    if isinstance(estimator, TakesTables):
        X = image_column(estimator, X, reset=reset)
    takes_rows = reset or estimator.image_format_.kind == "rows"
    kind, source = understand(X, strict=takes_rows)
    if kind == "rows" and not takes_rows and np.ndim(source) == 1:
        kind, source = "files", as_column(source)  # a number is not an image
    in_channels = getattr(estimator, "in_channels", 3)
    if kind == "files" and (fault := folders_fault(source)) is not None:
        raise ImageError(fault)
    if kind == "rows":
        rows = check_rows(estimator, source, reset=reset, in_channels=in_channels)
        return Images(rows, estimator.image_format_, in_channels)
    check_names(estimator, X, reset=reset)
    if kind == "batch":
        _check_batch(source, in_channels, None if reset else estimator.image_format_)
    if reset:
        estimator.image_format_ = _learn(kind, source, getattr(estimator, "channels", "auto"), in_channels)
    else:
        _warn_of_other_scale(kind, source, estimator.image_format_)
    return Images(source, estimator.image_format_, in_channels)


def check_rows(estimator: Any, X: Any, *, reset: bool, in_channels: int | None = None) -> np.ndarray:
    """Validate flat rows with scikit-learn, and learn their image format if ``reset``.

    Parameters
    ----------
    estimator, X, reset
        As in :func:`check_images`.
    in_channels : int or None, default=None
        Number of channels to which the images must be convertible. None allows any
        number.

    Returns
    -------
    rows : ndarray of shape (n, n_pixels)
        The values, unchanged, with columns in the order of the numbers in their names.
        :func:`rows_to_images` reshapes them with ``estimator.image_format_``.
    """
    if not reset and estimator.image_format_.shape is None:
        raise ImageError(
            f"X is a table of numbers, but {type(estimator).__name__} was fitted on images "
            f"(kind={estimator.image_format_.kind!r}), so the image shape and the value range of its rows are unknown. "
            "Pass images of the same kind as in fit."
        )
    rows = validate_rows(estimator, X, reset=reset)
    if reset:
        channels = getattr(estimator, "channels", "auto")
        value_range, uint16_range = learn_ranges([rows])
        estimator.image_format_ = ImageFormat(
            kind="rows",
            shape=learn_row_shape(rows.shape[1], getattr(estimator, "image_shape", None), in_channels),
            channels="last" if channels == "auto" else channels,
            value_range=value_range,
            order=getattr(estimator, "order", "C"),
            uint16_range=uint16_range,
        )
    else:
        warn_if_other_scale(rows, estimator.image_format_)
    return rows


def validate_rows(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Validate flat rows and sort their columns by the numbers in the column names."""
    try:
        with shortened_errors():
            rows = validate_data(estimator, X, reset=reset)
    except (TypeError, ValueError) as error:
        if (n_columns := _text_columns(X)) > 1:
            raise ImageError(
                f"X has {n_columns} columns, some of which contain strings. Select the column with the paths, for "
                "example X[['image']]."
            ) from error
        raise
    if rows.dtype.kind not in "buif":
        raise ImageError(f"Pixels must be real numbers. Got X of dtype {rows.dtype} instead.")
    order = pixel_order(getattr(estimator, "feature_names_in_", None))
    return rows if order is None else rows[:, order]


def check_names(estimator: Any, X: Any, *, reset: bool) -> None:
    """Set or check ``n_features_in_`` and ``feature_names_in_``."""
    if hasattr(X, "columns"):
        with shortened_errors():
            validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset:
        vars(estimator).pop("n_features_in_", None)
        vars(estimator).pop("feature_names_in_", None)


def _check_batch(batch: np.ndarray, in_channels: int, learned: ImageFormat | None) -> None:
    if batch.ndim > 4 or batch.dtype.kind not in "buif":
        raise ImageError(
            "X must be an array of real numbers of shape (n, H, W), (n, H, W, C), (n, C, H, W) or (n, n_pixels), or a "
            f"list of images. Got an array of shape {batch.shape} and dtype {batch.dtype} instead."
        )
    if not batch.size:
        raise ImageError(f"X is empty: an array of shape {batch.shape} contains no pixels.")
    if batch.ndim == 3:
        _check_not_single_image(batch.shape, in_channels, learned)
    if batch.ndim == 4 and not fitting_axes(batch.shape[1:], in_channels):
        raise ImageError(f"X of shape {batch.shape} {channels_fault(batch.shape[1:], in_channels)}")


def _check_not_single_image(shape: tuple[int, ...], in_channels: int, learned: ImageFormat | None) -> None:
    """Refuse a color image (H, W, C) or (C, H, W) in place of gray images (n, H, W)."""
    channels = (3, 4) if in_channels in (1, 3) else (in_channels,)
    if shape[2] in (*channels, 1) and shape[1] > 4:
        raise ImageError(
            f"X of shape {shape} looks like a single image. Pass X[np.newaxis] to make it a batch of one image. "
            "If X is a batch of narrow grayscale images, pass X[..., np.newaxis]."
        )
    # In fit, and after a fit on gray images, X may as well be several gray images.
    if learned is not None and not learned.is_gray and shape[0] in channels and min(shape[1:]) > 4:
        raise ImageError(
            f"X of shape {shape} looks like a single image with channels first. Pass X[np.newaxis] to make it a batch "
            f"of one image. If X is a batch of {shape[0]} grayscale images, pass X[..., np.newaxis]."
        )


def _learn(kind: str, source: Any, channels: str, in_channels: int) -> ImageFormat:
    shapes, are_tensors = [source.shape[1:]] if kind == "batch" and source.ndim == 4 else [], kind == "batch"

    def arrays() -> Iterator[np.ndarray]:
        nonlocal are_tensors
        for item in _arrays(source):
            array = unwrapped(item)
            if isinstance(array, ARRAY) and array.ndim == 3:
                shapes.append(tuple(array.shape))
            are_tensors = are_tensors or isinstance(array, torch.Tensor)
            if not has_value_range(item):
                yield _values(item)

    values = {"batch": [source], "files": []}.get(kind)
    value_range, uint16_range = learn_ranges(arrays() if values is None else values)
    learned = learn_channels(shapes, in_channels, prefer_last=not are_tensors) if channels == "auto" else channels
    if uint16_range is None and (kind == "files" or (kind == "images" and not isinstance(source, Remembering))):
        uint16_range = learn_depth(highest_in_files(source))
    return ImageFormat(kind=kind, channels=learned, value_range=value_range, uint16_range=uint16_range)


def _arrays(items: Sequence[Any]) -> Iterator[Any]:
    """Yield the items from which a value range is learned: arrays and wide PIL images.

    A lazy sequence of 8-bit PIL images is not decoded: only its first item is.
    """
    look = getattr(items, "peek", items.__getitem__)
    first = unwrapped(look(0)) if isinstance(items, Remembering) else None
    if isinstance(first, Image.Image) and first.mode not in _WIDE_MODES:
        return
    for item in map(look, range(len(items))):
        inner = unwrapped(item)
        if isinstance(inner, ARRAY) or (isinstance(inner, Image.Image) and inner.mode in _WIDE_MODES):
            yield item


def _values(item: Any) -> np.ndarray:
    """Return the values of an array or a PIL image, as ``uint16`` for integer modes."""
    item = unwrapped(item)
    is_wide = isinstance(item, Image.Image) and item.mode != "F"
    return wide_values(item) if is_wide else as_array(item)


def _warn_of_other_scale(kind: str, source: Any, learned: ImageFormat) -> None:
    if isinstance(source, Remembering):
        return
    first = source if kind == "batch" else unwrapped(source[0])
    if isinstance(first, ARRAY) and not has_value_range(source[0]):  # the first array stands for all
        warn_if_other_scale(as_array(first), learned)
    elif (highest := highest_in_files(source, only_local=True)) is not None:
        warn_if_other_scale(np.array([highest], np.uint16), learned)


def _text_columns(X: Any) -> int:
    """Return the number of columns if the first row contains a string, else 0."""
    if issparse(X):
        return 0
    try:
        first = list(X.iloc[0] if hasattr(X, "iloc") else X.row(0) if hasattr(X, "row") else X[0])
    except (TypeError, LookupError, ValueError):
        return 0
    return len(first) if any(isinstance(value, PATH) for value in first) else 0
