"""Decoding of encoded files, PIL images and arrays of a reader to ``uint8`` pixels.

Rules of the conversion:

* transparency is composited on **white**, as in a browser;
* CMYK is converted to RGB by Pillow, without the color profile of the file;
* 16-bit gray is scaled by the range learned in fit, or divided by 257 (of 16-bit color,
  Pillow keeps the high byte);
* integers of other depths are scaled by the depth and sign stored in the file; floats
  need a value range;
* the EXIF orientation is applied, and the first frame of an animation is used;
* a JPEG of more than 89 million pixels is decoded at 1/2, 1/4 or 1/8 of its size, as
  long as its shorter side keeps 4096 pixels.
"""

import contextlib
import re
import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageFile

from sktl._images import _png, _tiff
from sktl._images._convert import UINT16, as_array, is_uint16, range_of_type, scale, to_uint8, upright
from sktl._images._format import Range
from sktl._images._named_warnings import named_warnings
from sktl._images._read_settings import MAX_PIXELS, OWN_READER, SAY_RANGE, ReadSettings, check_pixel_count
from sktl._images._signatures import allowed_formats, describe, unsupported
from sktl._images._sources import reason
from sktl._locks import Lock
from sktl._optional import is_installed
from sktl.exceptions import ImageError

# Part of the cache key. Increase the number if the rules of this module change.
DECODER = f"sktl 2, pillow {PIL.__version__}"

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112
_LOAD = Lock()
_PGM = re.compile(rb"P[25]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)\s")
# Errors of Pillow's plugins for files of other formats. The WebP plugin checks the size
# itself.
_NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error, Image.DecompressionBombError)
# Minimum shorter side of a JPEG that is decoded at reduced size. After resizing to the
# input of a network, pixels differ by at most one level (benchmarks/image_files.py).
_REDUCED_SIDE = 4096
# Parts of the messages with which Pillow reports unsupported variants of a format.
_UNSUPPORTED = ("not supported", "unsupported", "cannot find loader", "not available", "ghostscript")


def decode(data: bytes, in_channels: int, name: str, reading: ReadSettings) -> np.ndarray:
    """Decode an encoded file.

    Parameters
    ----------
    data : bytes
        The whole file.
    in_channels : int
        Number of output channels: 1, 3, or the number of bands of a TIFF.
    name : str
        Name of the image in errors.
    reading : ReadSettings
        The value range, the page, the maximum size and the reader.

    Returns
    -------
    pixels : ndarray of shape (H, W, in_channels), dtype uint8
        The pixels, C-contiguous and possibly read-only.

    Raises
    ------
    ImageError
        If the bytes are not an image, are damaged or truncated, or contain too many
        pixels.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes).")
    try:
        with named_warnings(name):
            return _decode(data, in_channels, reading)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except (MemoryError, Warning):  # warnings are raised only by the user's filters
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: Pillow does not open files of this format and size ({error}): {OWN_READER}."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{name}: {describe(data)}") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{name}: {_fault(data, error)}") from error


def decode_pil(image: Image.Image, in_channels: int, name: str, reading: ReadSettings) -> np.ndarray:
    """Convert a PIL image to ``uint8`` pixels of shape (H, W, in_channels).

    Raises
    ------
    ImageError
        If the image was closed, if its file cannot be read, or if the value range of
        its mode is unknown.
    """
    if is_closed(image):
        raise ImageError(
            f"{name}: this PIL image was closed before its pixels were read, by close() or at the end of a `with` "
            "block. Pass its path, or call load() on the image first."
        )
    try:
        with named_warnings(name):
            # An image may be in a list twice, but Pillow cannot load it in two threads.
            with _LOAD:
                rawmode = _load(image, reading.max_pixels)
            return _to_pixels(_png.scale_transparency(image, rawmode), in_channels, reading)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except (MemoryError, Warning):
        raise
    except Exception as error:
        raise ImageError(f"{name}: this PIL image cannot be read ({reason(error)}).") from error


def decode_array(values: Any, in_channels: int, name: str, reading: ReadSettings) -> np.ndarray:
    """Convert the output of a reader to ``uint8`` pixels (H, W, in_channels)."""
    if isinstance(values, Image.Image):
        return decode_pil(values, in_channels, name, reading)
    try:
        values = as_array(values)
    except Exception as error:  # for example, a ragged list
        raise ImageError(f"{name}: the reader did not return an array ({reason(error)}).") from error
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if values.ndim != 3 or not values.size or values.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: the reader must return an array of real numbers of shape (H, W) or (H, W, C). Got an array of "
            f"shape {values.shape} and dtype {values.dtype} instead."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name}: the pixels contain NaN or infinity.")
    if reading.value_range is None and range_of_type(values.dtype) is None and not is_uint16(values.dtype):
        raise ImageError(f"{name}: the value range of {values.dtype} pixels is unknown. {SAY_RANGE}")
    return convert_channels(in_range(values, None, reading), in_channels, name)


def in_range(values: np.ndarray, value_range: Range | None, reading: ReadSettings) -> np.ndarray:
    """Scale an array to 0-255 by the user's range or the range learned in fit."""
    if reading.value_range is not None and range_of_type(values.dtype) is None:
        return scale(values, reading.value_range)
    return to_uint8(values, value_range, reading.uint16_range)


def convert_channels(pixels: np.ndarray, in_channels: int, name: str) -> np.ndarray:
    """Convert ``uint8`` pixels with 1 to 4 channels to 1 or 3 channels."""
    if pixels.shape[2] == in_channels:
        return np.ascontiguousarray(pixels)
    if pixels.shape[2] == 1 and in_channels in _MODES:
        return np.repeat(pixels, in_channels, axis=2)
    if pixels.shape[2] > 4 or in_channels not in _MODES:
        raise ImageError(
            f"{name}: the image has {pixels.shape[2]} channel(s), but in_channels={in_channels}. Set "
            f"in_channels={pixels.shape[2]} to use all channels, or select channels in a custom reader."
        )
    return _to_pixels(Image.fromarray(np.ascontiguousarray(pixels)), in_channels, ReadSettings())


def highest_uint16(data: bytes, reading: ReadSettings) -> "int | None":
    """Return the highest value of a 16-bit image, or None for other bit depths."""
    if _tiff.is_tiff(data):
        tags = _tiff.read_tags(data, reading.page)
        if not _tiff.pillow_reads(tags, 3, reading):
            values, _ = _tiff.read_values(data, tags, reading)
            return int(values.max()) if is_uint16(values.dtype) and _tiff.depth(tags) == 16 else None
        if _tiff.depth(tags) != 16:
            return None
    with _open(BytesIO(data)) as image:
        n_colors = {"RGBA": 3, "LA": 1}.get(image.mode)
        highest = int(np.asarray(image)[..., :n_colors].max())
        # Pillow keeps the high byte of colors.
        return highest if image.mode == "I" or image.mode.startswith("I;16") else highest << 8 | 255


def wide_values(image: Image.Image) -> np.ndarray:
    """Return the 16-bit values of a PIL image; Pillow's conversion clips at 255."""
    return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)


def is_closed(image: Image.Image) -> bool:
    """Check whether a PIL image was closed and its pixels can no longer be read."""
    im = getattr(image, "_im", image)
    if isinstance(im, Image.DeferredError):
        return True
    return im is None and (not isinstance(image, ImageFile.ImageFile) or image.fp is None or image.fp.closed)


class _Watched(BytesIO):
    """Stream that records whether it was read past its end.

    If ``ImageFile.LOAD_TRUNCATED_IMAGES`` is set, Pillow silently fills missing pixels
    with gray. Truncated files are detected here, without changing this global setting.
    """

    ran_dry = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.ran_dry = self.ran_dry or not data
        return data


def _decode(data: bytes, in_channels: int, reading: ReadSettings) -> np.ndarray:
    if _tiff.is_tiff(data):
        return _decode_tiff(data, in_channels, reading)
    if (damaged := _png.damaged_chunk(data, reading.page)) is not None:
        raise ImageError(f"the file is damaged or truncated (the checksum of its {damaged} chunk does not match).")
    is_wide = _png.has_16_bits(data) and not _png.is_gray(data) and reading.wide_range is not None
    # Without imagecodecs, a learned range is applied to the high bytes only.
    if is_wide and (reading.value_range is not None or is_installed("imagecodecs")):
        return _decode_wide_png(data, in_channels, reading)
    try:
        return _decode_by_pillow(data, in_channels, reading)
    except ImageError:
        raise
    except (ValueError, SyntaxError, OSError):
        if not data.startswith(_png.SIGNATURE):
            raise
        return _decode_by_pillow(_png.without_ancillary(data), in_channels, reading)


def _decode_wide_png(data: bytes, in_channels: int, reading: ReadSettings) -> np.ndarray:
    with _open(BytesIO(data)) as image:
        check_pixel_count(*image.size, reading.max_pixels)
        orientation = _orientation(image)
    values = _png.read_wide_colors(data)
    pixels = scale(values, reading.wide_range or UINT16)
    if values.shape[2] in (2, 4):  # transparency uses all bits
        pixels[:, :, -1:] = scale(values[:, :, -1:], UINT16)
    return convert_channels(upright(pixels, orientation), in_channels, "this PNG")


def _decode_tiff(data: bytes, in_channels: int, reading: ReadSettings) -> np.ndarray:
    tags = _tiff.read_tags(data, reading.page)
    if _tiff.pillow_reads(tags, in_channels, reading):
        _tiff.check_deflate(data, tags)
        # Pillow also limits the size of tiles, and tifffile may support more variants.
        with contextlib.suppress(Image.DecompressionBombError, Image.UnidentifiedImageError):
            return _decode_by_pillow(data, in_channels, reading)
    return convert_channels(_tiff.read_pixels(data, tags, in_channels, reading), in_channels, "this TIFF")


def _stretch(data: bytes) -> float:
    """Return the factor by which Pillow scales PGM and JPEG 2000 to 16 bits."""
    if (header := _PGM.match(data)) is not None and int(header[1]) > 255:
        return 65535 / int(header[1])
    if data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")) and (start := data.find(b"\xff\x4f\xff\x51")) >= 0:
        n_bits = (data[start + 42] & 127) + 1  # of the first component, in the marker segment SIZ
        return 2 ** (16 - n_bits) if 8 < n_bits < 16 else 1
    return 1


def _decode_by_pillow(data: bytes, in_channels: int, reading: ReadSettings) -> np.ndarray:
    if reading.value_range is not None and (factor := _stretch(data)) != 1:
        low, high = reading.value_range
        reading = replace(reading, value_range=(low * factor, high * factor))
    stream = _Watched(data) if ImageFile.LOAD_TRUNCATED_IMAGES else BytesIO(data)
    with _open(stream) as image:
        _go_to_page(image, reading.page)
        _reduce(image)
        rawmode = _load(image, reading.max_pixels)
        if isinstance(stream, _Watched) and stream.ran_dry and image.format in ("JPEG", "MPO", "PNG"):
            raise ImageError("the file is truncated.")
        return _to_pixels(_png.scale_transparency(image, rawmode), in_channels, reading)


def _open(stream: BytesIO) -> Image.Image:
    """Open an image of an allowed format, whatever the size limit of Pillow."""
    formats = allowed_formats()
    try:
        return Image.open(stream, formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        prefix = stream.getvalue()[:16]
        for factory, accept in map(Image.OPEN.__getitem__, formats):
            is_accepted = True if accept is None else accept(prefix)
            if is_accepted and not isinstance(is_accepted, str):  # a string is a reason for refusal
                stream.seek(0)
                with contextlib.suppress(*_NOT_THIS_FORMAT):
                    return factory(stream, "")
        raise


def _go_to_page(image: Image.Image, page: int) -> None:
    if not page:
        return
    try:
        image.seek(page)
    except EOFError:
        n_frames = getattr(image, "n_frames", 1)
        raise ImageError(f"page={page} must be less than the number of images in the file ({n_frames}).") from None


def _load(image: Image.Image, max_pixels: "int | str") -> str:
    """Load the pixels of an image and return Pillow's raw mode of the file."""
    check_pixel_count(*image.size, max_pixels)
    tile = getattr(image, "tile", None)
    rawmode = tile[0].args if tile else ""
    image.load()
    if not image.width * image.height:
        raise ImageError(f"the image has no pixels (its size is {image.width} x {image.height}).")
    return rawmode if isinstance(rawmode, str) else ""


def _reduce(image: Image.Image) -> None:
    """Make libjpeg decode a very large JPEG at a fraction of its size.

    Progressive JPEGs are skipped because libjpeg keeps them in memory at full size
    anyway.
    """
    if image.width * image.height <= MAX_PIXELS or image.format not in ("JPEG", "MPO") or "progressive" in image.info:
        return
    for factor in (8, 4, 2):
        if min(image.size) // factor >= _REDUCED_SIDE:
            image.draft(None, (image.width // factor, image.height // factor))
            return


def _to_pixels(image: Image.Image, in_channels: int, reading: ReadSettings) -> np.ndarray:
    """Convert a loaded PIL image to pixels."""
    if in_channels not in _MODES:
        raise ImageError(
            f"in_channels={in_channels}, but a decoded image has 1 or 3 channels: {OWN_READER}, or pass arrays."
        )
    mode = _MODES[in_channels]
    orientation = _orientation(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image, reading)
    elif image.mode == "F":
        image = _from_floats(image, reading)
    elif image.has_transparency_data:
        image = _on_white(image)
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return np.ascontiguousarray(upright(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis], orientation))


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the metadata is damaged
        return 1


def _from_16_bit(image: Image.Image, reading: ReadSettings) -> Image.Image:
    values = np.asarray(image) if reading.value_range is not None else wide_values(image)
    pixels = in_range(values, None, reading)
    if isinstance(level := image.info.get("transparency"), int):
        pixels[values == level] = 255
    return Image.fromarray(pixels)


def _from_floats(image: Image.Image, reading: ReadSettings) -> Image.Image:
    if reading.value_range is None:
        raise ImageError(f"the value range of float images (PIL mode 'F') is unknown. {SAY_RANGE}")
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ImageError("the pixels contain NaN or infinity.")
    return Image.fromarray(scale(values, reading.value_range))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow cannot convert premultiplied gray to RGBA
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _fault(data: bytes, error: Exception) -> str:
    """Return a message that a file is unsupported, or damaged."""
    text = reason(error)
    if isinstance(error, NotImplementedError) or any(word in text.lower() for word in _UNSUPPORTED):
        return f"{unsupported(data) or 'this variant of the image format is not supported by Pillow'} ({text})."
    return f"the file cannot be decoded because it is damaged or truncated ({text})."
