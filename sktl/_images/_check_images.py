"""Any table of images checked: `check_images` understands ``X``, and `Images` hands out its images one by one."""

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

_WIDE_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # of PIL, whose values may mean anything


def check_images(estimator: Any, X: Any, *, reset: bool) -> "Images":
    """Understand ``X`` as images, for an estimator.

    Parameters
    ----------
    estimator : estimator
        Read: ``image_shape`` (default None), ``channels`` ("auto"), ``in_channels`` (3), ``order`` ("C").
        Set if ``reset``: ``image_format_``, and for tables ``n_features_in_`` and ``feature_names_in_``. If it is one
        that `TakesTables`, also ``image_column_`` for a table of which one column of several holds the images.
    X : see the package's docstring
        The images.
    reset : bool
        True in ``fit``: learn the format of ``X``. False afterwards: take it as learned.

    Returns
    -------
    images : Images of length n
        The images, none of them read or decoded yet. Arrays are not copied.

    Raises
    ------
    ImageError
        If ``X`` is not a table of images. What is wrong with a single image is said when it is read.
    ValueError, TypeError
        scikit-learn's own, for flat rows.
    """
    if isinstance(estimator, TakesTables):
        X = image_column(estimator, X, reset=reset)
    takes_rows = reset or estimator.image_format_.kind == "rows"
    kind, source = understand(X, strict=takes_rows)
    if kind == "rows" and not takes_rows and np.ndim(source) == 1:
        kind, source = "files", as_column(source)  # numbers are no images, each by itself
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
    """Validate flat rows as scikit-learn does, and learn (or keep) what unfolds them into images.

    Parameters
    ----------
    estimator, X, reset
        As in :func:`check_images`.
    in_channels : int or None, default=None
        Channels that the images must be able to become; None takes any number.

    Returns
    -------
    rows : ndarray of shape (n, n_pixels)
        The values as given, in the order of the numbers in the columns' names, if they have some; to be unfolded by
        :func:`rows_to_images` with ``estimator.image_format_``.
    """
    if not reset and estimator.image_format_.shape is None:
        raise ImageError(
            f"X is a table of numbers, but {type(estimator).__name__} was fitted on {estimator.image_format_.kind}: "
            "the shape and the value range of its rows are not known. Give images of the kind given to fit."
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
    """Flat rows of real numbers, their pixels in the order of the numbers in their columns' names."""
    try:
        with shortened_errors():
            rows = validate_data(estimator, X, reset=reset)
    except (TypeError, ValueError) as error:
        if (n_columns := _text_columns(X)) > 1:
            raise ImageError(
                f"X has {n_columns} columns, with text among them: choose the one that holds the paths, as in "
                "X[['image']]."
            ) from error
        raise
    if rows.dtype.kind not in "buif":
        raise ImageError(f"X is a table of {rows.dtype} values, but pixels must be real numbers.")
    order = pixel_order(getattr(estimator, "feature_names_in_", None))
    return rows if order is None else rows[:, order]


def check_names(estimator: Any, X: Any, *, reset: bool) -> None:
    """Keep scikit-learn's attributes about columns true: one column of images has a name, a list has none."""
    if hasattr(X, "columns"):
        with shortened_errors():
            validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset:
        vars(estimator).pop("n_features_in_", None)
        vars(estimator).pop("feature_names_in_", None)


def _check_batch(batch: np.ndarray, in_channels: int, learned: ImageFormat | None) -> None:
    if batch.ndim > 4 or batch.dtype.kind not in "buif":
        raise ImageError(
            f"X is an array of shape {batch.shape} and dtype {batch.dtype}, but must be (n, H, W), (n, H, W, C) or "
            "(n, C, H, W) real numbers, flat rows (n, n_pixels), or a list of images."
        )
    if not batch.size:
        raise ImageError(f"X is empty: an array of shape {batch.shape} holds no pixels.")
    if batch.ndim == 3:
        _check_it_is_no_image(batch.shape, in_channels, learned)
    if batch.ndim == 4 and not fitting_axes(batch.shape[1:], in_channels):
        raise ImageError(f"X of shape {batch.shape} {channels_fault(batch.shape[1:], in_channels)}")


def _check_it_is_no_image(shape: tuple[int, ...], in_channels: int, learned: ImageFormat | None) -> None:
    """Tell (n, H, W) gray images from one color image, (H, W, C) or (C, H, W)."""
    channels = (3, 4) if in_channels in (1, 3) else (in_channels,)
    if shape[2] in (*channels, 1) and shape[1] > 4:
        raise ImageError(
            f"X of shape {shape} looks like one single image: give X[np.newaxis]. "
            "If it is a batch of narrow gray images, give X[..., np.newaxis]."
        )
    # At fit three gray images are as good a guess as one color image, and so are they after a fit on gray images.
    if learned is not None and not learned.is_gray and shape[0] in channels and min(shape[1:]) > 4:
        raise ImageError(
            f"X of shape {shape} looks like one single image, the channels first: give X[np.newaxis]. "
            f"If it is {shape[0]} gray images, give X[..., np.newaxis]."
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
    """The items whose values mean what is learned from them; of a lazy sequence of PIL images none is looked at."""
    look = getattr(items, "peek", items.__getitem__)
    first = unwrapped(look(0)) if isinstance(items, Remembering) else None
    if isinstance(first, Image.Image) and first.mode not in _WIDE_MODES:
        return
    for item in map(look, range(len(items))):
        inner = unwrapped(item)
        if isinstance(inner, ARRAY) or (isinstance(inner, Image.Image) and inner.mode in _WIDE_MODES):
            yield item


def _values(item: Any) -> np.ndarray:
    """The values of an array, or of a PIL image: those of more than 8 bits are 16-bit ones, whatever Pillow holds."""
    item = unwrapped(item)
    is_wide = isinstance(item, Image.Image) and item.mode != "F"
    return wide_values(item) if is_wide else as_array(item)


def _warn_of_other_scale(kind: str, source: Any, learned: ImageFormat) -> None:
    if isinstance(source, Remembering):
        return
    first = source if kind == "batch" else unwrapped(source[0])
    if isinstance(first, ARRAY) and not has_value_range(source[0]):  # of a list of arrays the first speaks for all
        warn_if_other_scale(as_array(first), learned)
    elif (highest := highest_in_files(source, only_local=True)) is not None:
        warn_if_other_scale(np.array([highest], np.uint16), learned)


def _text_columns(X: Any) -> int:
    """Count the columns of a table whose first row holds text; 0 for everything else."""
    if issparse(X):
        return 0
    try:
        first = list(X.iloc[0] if hasattr(X, "iloc") else X.row(0) if hasattr(X, "row") else X[0])
    except (TypeError, LookupError, ValueError):
        return 0
    return len(first) if any(isinstance(value, PATH) for value in first) else 0
