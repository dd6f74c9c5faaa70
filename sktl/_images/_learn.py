"""Learning the format of pictures at fit: channel axis, value range, shape of flat rows."""

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

# A highest value that no set of 0-255 pictures stops at, but small tables of counts do (scikit-learn's digits: 0-16).
_FEW_LEVELS = 16
_NUMBER = re.compile(r"(\d{1,18})")
_LAST_NUMBER = re.compile(r"(.*?)(\d{1,18})(\D*)", re.DOTALL)


def allowed_channels(in_channels: int) -> tuple[int, ...]:
    """Give the channel counts that can become ``in_channels``: grey, RGB and RGBA turn into each other."""
    return (1, 3, 4) if in_channels in (1, 3) else (in_channels,)


def fitting_axes(shape: Sequence[int], in_channels: int) -> set[str]:
    """Say which axis, ``"first"`` or ``"last"``, of a three-dimensional picture can hold its channels.

    Grey and RGB come before RGBA: (4, 4, 3) is an RGB picture, not an RGBA one of 4 x 3 pixels.
    """
    allowed = allowed_channels(in_channels)
    sizes = {"first": shape[0], "last": shape[-1]}
    fitting = {axis for axis, size in sizes.items() if size in allowed}
    likely = {axis for axis in fitting if sizes[axis] != 4}
    return likely or fitting


def learn_channels(shapes: Iterable[Sequence[int]], in_channels: int, *, prefer_last: bool) -> str | None:
    """Find the channel axis that all pictures share.

    Parameters
    ----------
    shapes : iterable of tuples of 3 int
        The shape of each three-dimensional picture. A shape that fits no axis is left for its own error.
    in_channels : int
        Channels wanted.
    prefer_last : bool
        Take ``"last"`` where both axes fit (a list of NumPy arrays is documented to hold it last).

    Raises
    ------
    ImageError
        If both axes fit, or if the pictures disagree.
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
                f"The pictures of X disagree on their channel axis (one has the shape {tuple(shape)}): "
                "bring them all to (H, W, C) or all to (C, H, W)."
            )
    if example is None:
        return None
    if len(axes) == 2 and not prefer_last:
        raise ImageError(
            f"The channel axis is ambiguous: in pictures of shape {tuple(example)} both the first and the last axis "
            'can hold channels. Say which with channels="first" or channels="last".'
        )
    return "last" if "last" in axes else "first"


class Ranges(NamedTuple):
    """Which values stand for black and white: of types that do not say it themselves, and of ``uint16``."""

    value_range: Range | None
    uint16_range: Range | None


def learn_ranges(arrays: Iterable[np.ndarray]) -> Ranges:
    """Find which values stand for black and white: by type, 0-1, 0-255, or what is seen (with a warning).

    ``uint16`` values that reach the upper half of their type use all of its range. If they do not, as those of a
    camera, a microscope or a CT scanner of 12 bits, they are learned as those of any other type are.

    Parameters
    ----------
    arrays : iterable of ndarray
        Values of all images; NaN, infinities and types that are no real numbers are left for their own error.

    Returns
    -------
    value_range : (low, high) or None
        None if there is no value to learn from. If all values are ``uint16``, their range.
    uint16_range : (low, high) or None
        None if there are none, or if they use all of their type.
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
    """The lowest and the highest value seen."""

    def __init__(self) -> None:
        self.low, self.high, self.integers = math.inf, -math.inf, True

    def add(self, array: np.ndarray) -> None:
        least, most = _extremes(array)
        self.low, self.high = min(self.low, least), max(self.high, most)
        self.integers = self.integers and array.dtype.kind in "ui"

    def value_range(self) -> Range | None:
        """The range that these values suggest; None if there were none."""
        low, high = self.low, self.high
        if low > high:
            return None
        if low >= 0 and (high <= 1 and not (self.integers and high == 0)):
            return (0, 1)
        if low >= 0 and (high > _FEW_LEVELS or high == 0) and high <= 255:
            return (0, 255)
        return _seen(low, high)


def learn_depth(highest: "int | None") -> Range | None:
    """Find which values are black and white in 16-bit files, from the highest one in some of them.

    Files are not all read at `fit`, so that it is a number of bits that is learned: with 4,000 as the highest value it
    is 12 of them, and 4,095 is white.
    """
    if not highest or highest > UINT16[1] // 4:  # nobody's files have 15 bits
        return None
    n_bits = max(highest.bit_length(), 8)
    _warn_once(
        f"The highest value in the 16-bit files of X is {highest}: they are read as images of {n_bits} bits, of which "
        f"{2**n_bits - 1} is white. To set the range, use sktl.preprocessing.ImageReader(value_range=(low, high))."
    )
    return (0, 2**n_bits - 1)


def warn_if_other_scale(values: np.ndarray, learned: ImageFormat) -> None:
    """Warn if later values look as if they were on another scale than at fit; they are taken as learned anyway.

    Parameters
    ----------
    values : ndarray of any shape
        Values given after fit.
    learned : ImageFormat
        What was learned at fit.
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
            f"The highest value of X is {highest:g}, but white is {value_range[1]:g} since fit: the images will be "
            f"nearly {'black' if value_range[1] > 1 else 'white'}. Give X on the scale that fit was given.",
            ImageWarning,
        )


def pixel_order(names: "Sequence[str] | None") -> np.ndarray | None:
    """The order of columns by the numbers in their names, if it is another one than theirs.

    A table that some program has sorted by name has its pixels in the order pixel1, pixel10, pixel100, pixel2.

    Parameters
    ----------
    names : sequence of str or None
        Names of the columns. If those with a number differ in their last number only (pixel1, pixel2), they are put in
        its order; others, such as a label, stay in their places. Other names (1x1, 1x2, or R1, G1) are put in the order
        of their numbers only if they are in that of the alphabet, and are not filled up with zeros to one length.

    Returns
    -------
    ndarray of int or None
        Positions of the columns in their order; None if they are in it.
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
    """A key by which texts are in the order of the numbers in them."""
    return [(int(part), "") if odd % 2 else (0, part) for odd, part in enumerate(_NUMBER.split(name))]


def learn_row_shape(n_pixels: int, image_shape: Sequence[int] | None, in_channels: int | None) -> tuple[int, int, int]:
    """Find the shape (H, W, C) of flat rows of ``n_pixels`` values.

    Without ``image_shape`` a square or 3 x square is understood; any other width is taken as the next square, the
    missing pixels black, with a warning. ``in_channels=None`` allows any number of channels in ``image_shape``.

    Raises
    ------
    ImageError
        If ``image_shape`` is no shape, does not have ``n_pixels`` values, or cannot become ``in_channels``.
    """
    if image_shape is not None:
        return _given_row_shape(n_pixels, image_shape, in_channels)
    counts = (1, 3) if in_channels in (1, 3, None) else (in_channels,)
    for n_channels in counts:
        if (side := _side(n_pixels, n_channels)) is not None:
            return side, side, n_channels
    side = math.isqrt((n_pixels - 1) // counts[0]) + 1
    label = " Was the label left in? One column less would be" if _is_image_size(n_pixels - 1, counts) else ""
    label += " a picture." if label else ""
    _warn_once(
        f"The rows of X have {n_pixels} values, which is no square and not 3 x a square: they are padded with zeros "
        f"to {side} x {side}{f' x {counts[0]}' if counts[0] > 1 else ''}.{label} image_shape= says another shape."
    )
    return side, side, counts[0]


def _given_row_shape(n_pixels: int, image_shape: Sequence[int], in_channels: int | None) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ImageError(f"image_shape={shape} must be (H, W) or (H, W, C), all positive integers.")
    height, width, n_channels = (int(size) for size in (*shape, 1)[:3])
    if height * width * n_channels != n_pixels:
        raise ImageError(
            f"image_shape={shape} has {height * width * n_channels} values, but the rows of X have {n_pixels}. "
            "Give the shape as (H, W) for grey or (H, W, C) for colour."
        )
    if in_channels is not None and n_channels not in allowed_channels(in_channels):
        allowed = " or ".join(map(str, allowed_channels(in_channels)))
        raise ImageError(f"image_shape={shape} has {n_channels} channels; in_channels={in_channels} needs {allowed}.")
    return height, width, n_channels


def _side(n_pixels: int, n_channels: int) -> int | None:
    side = math.isqrt(n_pixels // n_channels)
    return side if side * side * n_channels == n_pixels else None


def _is_image_size(n_pixels: int, counts: Iterable[int]) -> bool:
    # From 8 x 8 on: among very small numbers nearly every second one is next to a square.
    return n_pixels >= 64 and any(_side(n_pixels, n_channels) is not None for n_channels in counts)


def _extremes(array: np.ndarray) -> Range:
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = array[np.isfinite(array)]
        return (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)
    return low, high


def _seen(low: float, high: float) -> Range:
    if not math.isfinite(high - low):
        raise ImageError(f"The values of X run from {low:g} to {high:g}, too far apart to be pixels.")
    _warn_once(
        f"The values of X run from {low:g} to {high:g}, which is neither 0-1 nor 0-255: they are scaled by this "
        "range, and later values are clipped to it. Give pixels as uint8, as 0-255 or as 0-1 to have them as they are, "
        "or set the range with sktl.preprocessing.ImageReader(value_range=(low, high))."
    )
    return low, (high if high > low else low + 1)


def _warn_once(message: str) -> None:
    """Warn, unless the search that this fit is a part of was warned of the same."""
    if not was_told([message]):
        warn(message, ImageWarning)
