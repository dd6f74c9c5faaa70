"""PNG features that Pillow does not support: checksums, and non-8-bit transparency."""

import importlib
import re
import struct
import zlib

import numpy as np
from PIL import Image

from sktl._images._read_settings import OWN_READER
from sktl._optional import is_installed
from sktl.exceptions import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Chunks that determine the pixels of the first image.
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_HOLDERS = (b"\0\0\x01\0", b"\0\0\x02\0", b"icns")  # icons and cursors, which may hold PNG images


def damaged_chunk(data: bytes, page: int = 0) -> "str | None":
    """Return the name of the first pixel chunk whose checksum does not match, or None.

    Pillow does not check the checksum (CRC-32) of the compressed pixels. The check
    takes about 1% of the decoding time.

    Parameters
    ----------
    data : bytes
        A PNG file, or a file that contains PNG files (ICO, ICNS).
    page : int, default=0
        Index of the frame of an animation.
    """
    deciding = (*_PIXELS, b"fcTL", b"fdAT") if page else _PIXELS
    for start in _starts(data):
        for kind, begin, end in _chunks(data, start):
            if not kind.isalpha():
                return "header"
            if kind in deciding and zlib.crc32(memoryview(data)[begin + 4 : end]) != _checksum(data, end):
                return kind.decode()
    return None


def has_16_bits(data: bytes) -> bool:
    """Check whether a file is a 16-bit PNG."""
    return data.startswith(SIGNATURE) and data[24:25] == b"\x10"


def is_gray(data: bytes) -> bool:
    """Check whether a PNG is gray without alpha; Pillow keeps all bits of these."""
    return data[25:26] == b"\0"


def read_wide_colors(data: bytes) -> np.ndarray:
    """Read all bits of 16-bit colors, of which Pillow keeps the high byte.

    Raises
    ------
    ImageError
        If imagecodecs is not installed.
    """
    if not is_installed("imagecodecs"):
        raise ImageError(
            "a value range cannot be applied to a PNG with 16-bit colors, of which Pillow reads only the high byte: "
            f"pip install 'sktl[tiff]', or {OWN_READER}."
        )
    return importlib.import_module("imagecodecs").png_decode(data)


def without_ancillary(data: bytes) -> bytes:
    """Return the PNG without chunks that do not affect pixels, such as texts.

    The names of ancillary chunks begin with a lowercase letter. Transparency, animation
    frames, and an orientation with a matching checksum are kept.
    """
    kept = []
    for kind, begin, end in _chunks(data, 0):
        is_whole = zlib.crc32(memoryview(data)[begin + 4 : end]) == _checksum(data, end)
        if kind[:1].isupper() or kind in (b"tRNS", b"acTL", b"fcTL", b"fdAT") or (kind == b"eXIf" and is_whole):
            kept.append(data[begin : end + 4])
    return SIGNATURE + b"".join(kept)


def scale_transparency(image: Image.Image, rawmode: str) -> Image.Image:
    """Scale the transparent color like the pixels, which Pillow does not, in a copy.

    Parameters
    ----------
    image : PIL image
        The loaded image.
    rawmode : str
        Layout of the pixels in the file, such as "L;4" or "RGB;16B".
    """
    level, factor = image.info.get("transparency"), {"L;2": 85, "L;4": 17}.get(rawmode)
    if isinstance(level, int) and factor is not None:
        level *= factor
    elif isinstance(level, tuple) and rawmode.startswith("RGB;16"):
        level = tuple(value >> 8 for value in level)  # Pillow keeps the high byte
    else:
        return image
    image = image.copy()
    image.info["transparency"] = level
    return image


def _starts(data: bytes) -> "list[int]":
    """Return the offsets of PNG images in a file."""
    if data.startswith(SIGNATURE):
        return [0]
    return [found.start() for found in re.finditer(SIGNATURE, data)] if data.startswith(_HOLDERS) else []


def _chunks(data: bytes, start: int) -> "list[tuple[bytes, int, int]]":
    """Return name, offset and checksum offset of each chunk of the PNG at ``start``."""
    found, position = [], start + len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, position, position + 8 + length))
        position += 12 + length
        if kind == b"IEND":
            break
    return found


def _checksum(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")
