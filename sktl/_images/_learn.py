"""Format of images learned in fit: channel axis, value range and shape of flat rows."""

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np

from sktl._images._convert import UINT16, is_uint16, range_of_type
from sktl._images._format import ImageFormat, Range
from sktl._warnings import warn, was_told
from sktl.exceptions import ImageError, ImageWarning

# Tables with a maximum up to this are not 0-255 images (scikit-learn's digits: 0-16).
_FEW_LEVELS = 16
_NUMBER = re.compile(r"(\d{1,18})")
_LAST_NUMBER = re.compile(r"(.*?)(\d{1,18})(\D*)", re.DOTALL)


def allowed_channels(in_channels: int) -> tuple[int, ...]:
    """Return the numbers of channels that can be converted to ``in_channels``."""
    return (1, 3, 4) if in_channels in (1, 3) else (in_channels,)


def fitting_axes(shape: Sequence[int], in_channels: int) -> set[str]:
    """Return which axes of a 3-dimensional array can be the channels: "first", "last".

    Gray and RGB take precedence over RGBA: an array of shape (4, 4, 3) is an RGB image,
    and not an RGBA image of 4 x 3 pixels.
    """
    allowed = allowed_channels(in_channels)
    sizes = {"first": shape[0], "last": shape[-1]}
    fitting = {axis for axis, size in sizes.items() if size in allowed}
    likely = {axis for axis in fitting if sizes[axis] != 4}
    return likely or fitting


def learn_channels(shapes: Iterable[Sequence[int]], in_channels: int, *, prefer_last: bool) -> str | None:
    """Find the channel axis that all arrays share.

    Parameters
    ----------
    shapes : iterable of tuples of 3 int
        Shapes of the 3-dimensional arrays. Shapes without a possible channel axis are
        ignored; they raise an error when the image is read.
    in_channels : int
        Number of channels of the network's input.
    prefer_last : bool
        Whether to return ``"last"`` if both axes are possible, as documented for lists
        of NumPy arrays.

    Raises
    ------
    ImageError
        If both axes are possible, or if the arrays have different channel axes.
    """
    axes, example = {"first", "last"}, None
    for shape in shapes:
        fitting = fitting_axes(shape, in_channels)
        if fitting and fitting != axes:
            axes, example = axes & fitting, shape
        elif fitting and example is None:
            example = shape
        if not axes:
            raise ImageError(
                f"The arrays in X have different channel axes (one array has shape {tuple(shape)}). Transpose all of "
                "them to (H, W, C), or all of them to (C, H, W)."
            )
    if example is None:
        return None
    if len(axes) == 2 and not prefer_last:
        raise ImageError(
            f"The channel axis is ambiguous: both the first and the last axis of shape {tuple(example)} can be the "
            'channels. Set channels="first" or channels="last".'
        )
    return "last" if "last" in axes else "first"


class Ranges(NamedTuple):
    """Learned value ranges: of ``uint16``, and of all other values."""

    value_range: Range | None
    uint16_range: Range | None


def learn_ranges(arrays: Iterable[np.ndarray]) -> Ranges:
    """Find the value range: that of the dtype, 0-1, 0-255, or the range seen.

    ``uint16`` values in the upper half of the dtype imply its full range. Otherwise,
    for example with a 12-bit camera, the range is learned as for any other dtype.

    Parameters
    ----------
    arrays : iterable of ndarray
        Values of all images. NaN, infinity and other dtypes are ignored; they raise an
        error when the image is read.

    Returns
    -------
    value_range : (low, high) or None
        The range, or None without values. If all values are ``uint16``, their range.
    uint16_range : (low, high) or None
        The range of ``uint16`` values. None without such values, or for the full range.
    """
    seen, wide, by_type = _Extremes(), _Extremes(), None
    for array in arrays:
        if array.dtype.kind not in "buif" or not array.size:
            continue
        if (known := range_of_type(array.dtype)) is not None:
            by_type = max(by_type or known, known)
        else:
            (wide if is_uint16(array.dtype) else seen).add(array)
    uint16_range = None if wide.high > UINT16[1] // 2 else wide.value_range()
    if wide.high >= wide.low:
        by_type = max(by_type or (0, 0), uint16_range or UINT16)
    return Ranges(seen.value_range() or by_type, uint16_range)


class _Extremes:
    """Running minimum and maximum."""

    def __init__(self) -> None:
        self.low, self.high, self.integers = math.inf, -math.inf, True

    def add(self, array: np.ndarray) -> None:
        least, most = _extremes(array)
        self.low, self.high = min(self.low, least), max(self.high, most)
        self.integers = self.integers and array.dtype.kind in "ui"

    def value_range(self) -> Range | None:
        """Return the range that the values suggest, or None without values."""
        low, high = self.low, self.high
        if low > high:
            return None
        if low >= 0 and (high <= 1 and not (self.integers and high == 0)):
            return (0, 1)
        if low >= 0 and (high > _FEW_LEVELS or high == 0) and high <= 255:
            return (0, 255)
        return _seen(low, high)


def learn_depth(highest: "int | None") -> Range | None:
    """Find the value range of 16-bit files from the highest value in a sample of them.

    Not all files are read in fit, so the number of bits is learned: a highest value of
    4000 means 12 bits, with 4095 as white.
    """
    if not highest or highest > UINT16[1] // 4:  # 15-bit files do not occur
        return None
    n_bits = max(highest.bit_length(), 8)
    _warn_once(
        f"The highest value in a sample of the 16-bit files of X is {highest}. The files are read as {n_bits}-bit "
        f"images, with {2**n_bits - 1} as white. To change this, use "
        "sktl.preprocessing.ImageReader(value_range=(low, high))."
    )
    return (0, 2**n_bits - 1)


def warn_if_other_scale(values: np.ndarray, learned: ImageFormat) -> None:
    """Warn if values after fit seem to have another scale than in fit.

    Parameters
    ----------
    values : ndarray of any shape
        Values passed after fit.
    learned : ImageFormat
        Format learned in fit.
    """
    if values.dtype.kind not in "uif" or range_of_type(values.dtype) is not None or not values.size:
        return
    value_range, highest = learned.value_range, values.max()
    if is_uint16(values.dtype):
        value_range = learned.uint16_range or UINT16
        suspicious = 0 < highest < value_range[1] / 16
    elif value_range == (0, 255) and values.dtype.kind == "f":
        suspicious = 0 < highest <= 1
    else:
        suspicious = value_range == (0, 1) and highest >= 2
    if suspicious and value_range is not None:
        warn(
            f"The highest value of X is {highest:g}, but fit learned {value_range[1]:g} as white, so the images will "
            f"be nearly {'black' if value_range[1] > 1 else 'white'}. Pass X on the same scale as in fit.",
            ImageWarning,
        )


def pixel_order(names: "Sequence[str] | None") -> np.ndarray | None:
    """Return the order of columns by the numbers in their names.

    A table that was sorted by column name has its pixels in the order pixel1, pixel10,
    pixel100, pixel2.

    Parameters
    ----------
    names : sequence of str or None
        Names of the columns. If the names with a number differ only in their last
        number (pixel1, pixel2), they are sorted by this number, and other columns, such
        as a label, keep their positions. All other names (1x1, 1x2, or R1, G1) are
        sorted by their numbers only if they are in alphabetical order and differ in
        length.

    Returns
    -------
    ndarray of int or None
        Positions of the columns in their order. None if the columns are in order.
    """
    if names is None:
        return None
    found = {position: match for position, name in enumerate(names) if (match := _LAST_NUMBER.fullmatch(name))}
    places, order = list(found), list(range(len(names)))
    if len({(match[1], match[3]) for match in found.values()}) == 1:
        for place, position in zip(places, sorted(places, key=lambda position: int(found[position][2])), strict=True):
            order[place] = position
    elif list(names) == sorted(names) and len(set(map(len, names))) > 1:
        order.sort(key=lambda position: _natural_key(names[position]))
    return None if order == sorted(order) else np.array(order)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders strings by the numbers in them."""
    return [(int(part), "") if odd % 2 else (0, part) for odd, part in enumerate(_NUMBER.split(name))]


def learn_row_shape(n_pixels: int, image_shape: Sequence[int] | None, in_channels: int | None) -> tuple[int, int, int]:
    """Find the shape (H, W, C) of flat rows of ``n_pixels`` values.

    Without ``image_shape``, the images are assumed to be square, with one or three
    channels. Any other number of pixels is padded with black to the next square, with a
    warning. ``in_channels=None`` allows any number of channels in ``image_shape``.

    Raises
    ------
    ImageError
        If ``image_shape`` is invalid, does not match ``n_pixels``, or cannot be
        converted to ``in_channels``.
    """
    if image_shape is not None:
        return _given_row_shape(n_pixels, image_shape, in_channels)
    counts = (1, 3) if in_channels in (1, 3, None) else (in_channels,)
    for n_channels in counts:
        if (side := _side(n_pixels, n_channels)) is not None:
            return side, side, n_channels
    side = math.isqrt((n_pixels - 1) // counts[0]) + 1
    label = " Does X contain the label? One column less would be" if _is_image_size(n_pixels - 1, counts) else ""
    label += " a square image." if label else ""
    _warn_once(
        f"The rows of X have {n_pixels} values, which is neither a square nor 3 times a square. They are padded "
        f"with zeros to {side} x {side}{f' x {counts[0]}' if counts[0] > 1 else ''}.{label} "
        "Set image_shape if the images have another shape."
    )
    return side, side, counts[0]


def _given_row_shape(n_pixels: int, image_shape: Sequence[int], in_channels: int | None) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ImageError(
            f"The 'image_shape' parameter must be (H, W) or (H, W, C) with positive integers. Got {shape} instead."
        )
    height, width, n_channels = (int(size) for size in (*shape, 1)[:3])
    if height * width * n_channels != n_pixels:
        raise ImageError(
            f"image_shape={shape} has {height * width * n_channels} values, but the rows of X have {n_pixels}. "
            "Use (H, W) for grayscale or (H, W, C) for color images."
        )
    if in_channels is not None and n_channels not in allowed_channels(in_channels):
        allowed = " or ".join(map(str, allowed_channels(in_channels)))
        raise ImageError(
            f"image_shape={shape} has {n_channels} channels, but in_channels={in_channels} requires {allowed}."
        )
    return height, width, n_channels


def _side(n_pixels: int, n_channels: int) -> int | None:
    side = math.isqrt(n_pixels // n_channels)
    return side if side * side * n_channels == n_pixels else None


def _is_image_size(n_pixels: int, counts: Iterable[int]) -> bool:
    # Smaller numbers are close to a square too often.
    return n_pixels >= 64 and any(_side(n_pixels, n_channels) is not None for n_channels in counts)


def _extremes(array: np.ndarray) -> Range:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = array[np.isfinite(array)]
        return (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)
    return low, high


def _seen(low: float, high: float) -> Range:
    if not math.isfinite(high - low):
        raise ImageError(f"The values of X range from {low:g} to {high:g}, which is too wide for pixels.")
    _warn_once(
        f"The values of X range from {low:g} to {high:g}, which is neither 0-1 nor 0-255. X is scaled by this range, "
        "and later values are clipped to it. Pass uint8 pixels, or values from 0 to 1 or 0 to 255, to avoid this, or "
        "set the range with sktl.preprocessing.ImageReader(value_range=(low, high))."
    )
    return low, (high if high > low else low + 1)


def _warn_once(message: str) -> None:
    """Warn, unless the search that contains this fit has issued the same warning."""
    if not was_told([message]):
        warn(message, ImageWarning)
