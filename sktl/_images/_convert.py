"""Conversion of arrays and flat rows to ``uint8`` images, and back to rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sktl._images._format import ImageFormat, Range
from sktl.exceptions import InputError

UINT16: Range = (0, 65535)
_TURNED = range(2, 9)
# Keys without byte order.
_RANGE_OF_TYPE: dict[str, Range] = {"u1": (0, 255), "b1": (0, 1)}


def as_array(item: Any) -> np.ndarray:
    """Convert an array, or a tensor of any device and dtype, to an ndarray."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        return (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    return np.asarray(item)


def range_of_type(dtype: np.dtype) -> Range | None:
    """Return the value range of ``uint8`` and ``bool``, or None for other dtypes."""
    return _RANGE_OF_TYPE.get(dtype.str[1:])


def is_uint16(dtype: np.dtype) -> bool:
    """Check whether a dtype is ``uint16`` in any byte order."""
    return dtype.str[1:] == "u2"


def to_uint8(values: np.ndarray, value_range: Range | None, uint16_range: Range | None = None) -> np.ndarray:
    """Scale values so that their range becomes 0-255.

    Parameters
    ----------
    values : ndarray of any shape
        Real numbers without NaN.
    value_range : (low, high) or None
        Values that are scaled to 0 and 255. Ignored for ``uint8``, ``bool`` and
        ``uint16``.
    uint16_range : (low, high) or None, default=None
        The same for ``uint16``. None scales the full range of the dtype.

    Returns
    -------
    pixels : ndarray of the same shape, dtype uint8
        The pixels. ``values`` is returned unchanged if its dtype is ``uint8``.
    """
    if values.dtype == np.uint8:
        return values
    if is_uint16(values.dtype):
        return scale(values, uint16_range or UINT16)
    bounds = range_of_type(values.dtype) or value_range
    if bounds is None:
        raise InputError(f"The value range of {values.dtype} values is unknown because fit saw no such values.")
    return scale(values, bounds)


def scale(values: np.ndarray, bounds: Range) -> np.ndarray:
    """Clip values to the bounds, scale the bounds to 0 and 255, and round."""
    low, high = bounds
    scaled = values.astype(np.result_type(values.dtype, np.float32), order="K")
    np.clip(scaled, low, high, out=scaled)  # clip first to avoid overflow
    scaled -= low
    scaled *= 255 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and flip an image (H, W, C) according to its EXIF orientation (1 to 8)."""
    if orientation not in _TURNED:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = (step if orientation in group else 1 for group, step in (((3, 4, 7, 8), -1), ((2, 3, 6, 7), -1)))
    return pixels[::rows, ::columns]


def rows_to_images(rows: np.ndarray, image_format: ImageFormat) -> np.ndarray:
    """Reshape flat rows to ``uint8`` images (n, H, W, C), padded with black."""
    shape = _stored_shape(image_format)
    pixels = to_uint8(rows, image_format.value_range, image_format.uint16_range)
    missing = int(np.prod(shape)) - pixels.shape[1]
    if missing:
        pixels = np.pad(pixels, ((0, 0), (0, missing)))
    if image_format.order == "F":
        pixels = pixels.reshape(-1, *shape[::-1]).transpose(0, 3, 2, 1)
    else:
        pixels = pixels.reshape(-1, *shape)
    return np.moveaxis(pixels, 1, -1) if image_format.channels == "first" else pixels


def images_to_rows(images: np.ndarray, image_format: ImageFormat, width: int) -> np.ndarray:
    """Reshape images (n, H, W, C) back to rows (n, width): inverse of `rows_to_images`.

    Returns
    -------
    rows : ndarray of shape (n, width)
        The rows in the learned value range. The dtype is that of ``images`` if this
        range is 0-255, and ``float64`` otherwise.
    """
    if image_format.channels == "first":
        images = np.moveaxis(images, -1, 1)
    if image_format.order == "F":
        images = images.transpose(0, 3, 2, 1)
    rows = images.reshape(len(images), -1)[:, :width]
    assert image_format.value_range is not None  # always learned from rows
    low, high = image_format.value_range
    if (low, high) == (0, 255):
        return rows
    return rows * ((high - low) / 255) + low


def _stored_shape(image_format: ImageFormat) -> Sequence[int]:
    assert image_format.shape is not None  # always learned from rows
    height, width, n_channels = image_format.shape
    return (n_channels, height, width) if image_format.channels == "first" else (height, width, n_channels)
