"""Reading of TIFF files with tifffile if Pillow cannot read them correctly.

A TIFF may contain integers or floats of any depth, signed or unsigned, in any number of
bands. Pillow silently misreads some of these variants. Therefore the tags are read
first, to select the files that Pillow reads correctly.
"""

import importlib
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from sktl._images._convert import scale, upright
from sktl._images._format import Range
from sktl._images._read_settings import OWN_READER, SAY_RANGE, ReadSettings, check_pixel_count
from sktl._optional import is_installed
from sktl._warnings import warn
from sktl.exceptions import ImageError, ImageWarning

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Tags, with their names in the TIFF 6.0 specification.
_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR = 254, 258, 259, 262, 274, 277, 284
_SUB_IFDS, _EXTRA, _FORMAT, _DNG = 330, 338, 339, 50706
_DEFLATE, _JPEG = (8, 32946), 7
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets and lengths

_KNOWN: tuple[int, ...] = (_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR, _SUB_IFDS)
_KNOWN += (_EXTRA, _FORMAT, _DNG, *_STRIPS, *_TILES)

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLORS = {
    _MINISWHITE: "inverted gray",
    _MINISBLACK: "gray",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "mask",
    _CMYK: "CMYK",
}
_COLORS |= {_YCBCR: "YCbCr", 8: "CIELab", 9: "ICCLab", 32803: "color filter array", 32844: "LogL", 32845: "LogLuv"}

Tags = dict[int, Any]


class Colors(NamedTuple):
    """Photometric interpretation of a TIFF, and the colors of its palette."""

    kind: int
    palette: "np.ndarray | None"


def is_tiff(data: bytes) -> bool:
    """Check whether a file begins like a TIFF."""
    return data.startswith(_MAGIC)


def read_tags(data: bytes, page: int) -> Tags:
    """Return the tags of a page of a TIFF.

    Raises
    ------
    ImageError
        If the page does not exist. Errors of Pillow about damaged tags are not caught.
    """
    stream = BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" or data[3:4] == b"+" else 8])
    for number in range(page + 1):
        if not directory.next:
            raise ImageError(f"page={page} must be less than the number of pages in the TIFF ({number}).")
        stream.seek(directory.next)
        directory.load(stream)
    tags = {tag: directory[tag] for tag in _KNOWN if tag in directory}
    for tag, default in ((_BITS, 1), (_FORMAT, _UNSIGNED)):
        value = tags.get(tag, default)
        tags[tag] = value if isinstance(value, tuple) else (value,)
    tags.setdefault(_SAMPLES, 1)
    return tags


def pillow_reads(tags: Tags, in_channels: int, reading: ReadSettings) -> bool:
    """Check whether Pillow reads the pixels correctly."""
    bits, color, samples = set(tags[_BITS]), tags.get(_PHOTOMETRIC), tags[_SAMPLES]
    if reading.reader == "tifffile" or is_raw(tags):
        return False
    if samples == 1 and set(tags[_FORMAT]) == {_FLOAT}:
        return bits == {32} and color == _MINISBLACK
    if set(tags[_FORMAT]) != {_UNSIGNED} or (in_channels not in (1, 3) and samples > 1):
        return False
    if tags.get(_COMPRESSION, 1) not in TiffImagePlugin.COMPRESSION_INFO:
        return False
    if bits == {8}:
        is_gray = color in (_MINISWHITE, _MINISBLACK)
        has_alpha = samples == 2 and _alpha(tags) > 0 and color == _MINISBLACK
        return samples == 1 or has_alpha or (samples > 2 and not is_gray)
    if bits == {16} and samples == 1:
        return color == _MINISBLACK
    if bits == {16}:  # correct only if all 16 bits are used, as Pillow keeps the high byte
        return color == _RGB and samples in (3, 4) and tags.get(_PLANAR, 1) == 1 and reading.wide_range is None
    return samples == 1 and bits < {1, 2, 4, 8} and color in (_MINISWHITE, _MINISBLACK, _PALETTE)


def depth(tags: Tags) -> int:
    """Return the number of bits per value."""
    return max(tags[_BITS])


def is_raw(tags: Tags) -> bool:
    """Check for a raw file of a camera, whose first image is a small preview."""
    return _DNG in tags or (_SUB_IFDS in tags and bool(tags.get(_SUBFILE, 0) & 1)) or tags.get(_PHOTOMETRIC) == 32803


def describe(tags: Tags) -> str:
    """Return a description such as "a TIFF of float32 RGB values"."""
    if is_raw(tags):
        return "a camera raw file"
    bits, kind = depth(tags), tags[_FORMAT][0]
    number = {_SIGNED: f"signed {bits}-bit", _FLOAT: f"float{bits}"}.get(kind, f"{bits}-bit")
    number = f"complex{bits}" if kind in (5, 6) else number
    color, samples = _COLORS.get(tags.get(_PHOTOMETRIC, _MINISBLACK), "unknown"), tags[_SAMPLES]
    bands = f" in {samples} bands" if samples > (3 if color == "RGB" else 1) else ""
    planar = ", in planar configuration" if samples > 1 and tags.get(_PLANAR) == 2 else ""
    return f"a TIFF of {number} {color} values{bands}{planar}"


def check_deflate(data: bytes, tags: Tags) -> None:
    """Raise `zlib.error` if a checksum of a deflate-compressed TIFF does not match.

    libtiff does not check the checksums.
    """
    if tags.get(_COMPRESSION) not in _DEFLATE:
        return
    offsets, lengths = next(((tags[a], tags[b]) for a, b in (_STRIPS, _TILES) if a in tags and b in tags), ((), ()))
    view = memoryview(data)
    for offset, length in zip(offsets, lengths, strict=False):
        unpacker = zlib.decompressobj()
        unpacker.decompress(view[offset : offset + length])  # raises if the checksum does not match


def read_pixels(data: bytes, tags: Tags, in_channels: int, reading: ReadSettings) -> np.ndarray:
    """Read a TIFF with tifffile.

    Returns
    -------
    pixels : ndarray of shape (H, W, C), dtype uint8
        The pixels, composited on white. C is 1, 3 or ``in_channels``.

    Raises
    ------
    ImageError
        If the value range is unknown, or if tifffile is not installed.
    """
    return upright(_read_as_stored(data, tags, in_channels, reading), tags.get(_ORIENTATION, 1))


def _read_as_stored(data: bytes, tags: Tags, in_channels: int, reading: ReadSettings) -> np.ndarray:
    values, (color, palette) = read_values(data, tags, reading)
    is_jpeg = color == _YCBCR and tags.get(_COMPRESSION) == _JPEG  # tifffile converts it to RGB
    if color not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK) and not is_jpeg:
        raise ImageError(f"the file is {describe(tags)}, which is not supported: {OWN_READER}.")
    if color == _PALETTE and palette is not None:
        return scale(np.moveaxis(palette[:, values[:, :, 0]], 0, -1), (0, 65535))
    bounds = _range(values, tags, reading)
    pixels = scale(values, bounds)
    if color == _MINISWHITE:
        pixels[:, :, :1] = 255 - pixels[:, :, :1]
    if pixels.shape[2] == in_channels and (in_channels not in (1, 3) or not _alpha(tags)):
        return pixels
    if _alpha(tags):  # transparency uses the full range of the dtype
        pixels[:, :, -1:] = scale(values[:, :, -1:], _range(values, tags, ReadSettings()))
    if color == _CMYK and pixels.shape[2] == 4:
        return np.asarray(Image.fromarray(pixels, "CMYK").convert("RGB"))
    return _without_alpha(pixels, tags, _RGB if is_jpeg else color, in_channels)


def read_values(data: bytes, tags: Tags, reading: ReadSettings) -> tuple[np.ndarray, Colors]:
    """Read the unscaled values of a TIFF, of shape (H, W, C), and their colors."""
    if is_raw(tags):
        raise ImageError(f"the file is {describe(tags)}, which is not supported: {OWN_READER} that calls rawpy.")
    if not is_installed("tifffile"):
        raise ImageError(
            f"the file is {describe(tags)}, which Pillow cannot read correctly: pip install 'sktl[tiff]', or "
            f"{OWN_READER}."
        )
    tifffile = importlib.import_module("tifffile")
    with tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages[reading.page]
        check_pixel_count(page.imagewidth, page.imagelength, reading.max_pixels)
        values = page.asarray()
        colors = Colors(_MINISBLACK if page.photometric is None else int(page.photometric), page.colormap)
    if values.ndim == 3 and page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if values.ndim != 3 or not values.size:
        raise ImageError(f"the file is {describe(tags)} of shape {values.shape}, which is not an image: {OWN_READER}.")
    return values, colors


def _range(values: np.ndarray, tags: Tags, reading: ReadSettings) -> Range:
    """Return the value range: that of the dtype, of the user, or of the bit depth."""
    bits, kind = depth(tags), values.dtype.kind
    if kind == "b":
        return (0, 1)
    if kind == "u" and bits <= 8:
        return (0, 2**bits - 1)
    if kind == "c":
        raise ImageError(f"the file is {describe(tags)}, which is not an image: {OWN_READER}.")
    if kind == "f" and not np.isfinite(values).all():
        raise ImageError("the pixels contain NaN or infinity.")
    if reading.value_range is not None:
        return reading.value_range
    if kind == "f":
        raise ImageError(f"the file is {describe(tags)}, and its value range is unknown. {SAY_RANGE}")
    if bits == 16 and kind == "u":
        return reading.uint16_range or (0, 2**bits - 1)
    bounds = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == "i" else (0, 2**bits - 1)
    if (kind == "i" or bits > 16) and (seen := int(values.max()) - int(values.min())) < (bounds[1] - bounds[0]) // 16:
        warn(
            f"the file is {describe(tags)} that use {seen + 1} of {2**bits} levels, so the image is nearly uniform. "
            f"{SAY_RANGE}",
            ImageWarning,
        )
    return bounds


def _alpha(tags: Tags) -> int:
    """Return 1 if the last band is premultiplied alpha, 2 if straight alpha, else 0."""
    extra = tags.get(_EXTRA, ())
    last = (extra if isinstance(extra, tuple) else (extra,))[-1:]
    return last[0] if last in ((1,), (2,)) else 0


def _without_alpha(pixels: np.ndarray, tags: Tags, color: int, in_channels: int) -> np.ndarray:
    """Composite transparent pixels on white, and drop bands that are not colors."""
    n_colors = 3 if color == _RGB else 1
    if alpha := _alpha(tags) if pixels.shape[2] > n_colors else 0:
        share = pixels[:, :, -1:] / 255
        colors = pixels[:, :, :n_colors] * (share if alpha == 2 else 1)
        return np.rint(np.minimum(colors + 255 * (1 - share), 255)).astype(np.uint8)
    if pixels.shape[2] < n_colors or (color != _RGB and pixels.shape[2] != 1):
        raise ImageError(
            f"the file is {describe(tags)}, but in_channels={in_channels} requires 1 or 3. Set "
            f"in_channels={pixels.shape[2]} to use all bands, or {OWN_READER} that selects some."
        )
    return pixels[:, :, :n_colors]
