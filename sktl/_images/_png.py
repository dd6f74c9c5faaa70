"""What Pillow leaves out when it reads a PNG: the checksums of its chunks, and transparency of other depths than 8."""

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

# The chunks that decide the pixels of the first image.
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_HOLDERS = (b"\0\0\x01\0", b"\0\0\x02\0", b"icns")  # icons and cursors, which may hold PNG images


def damaged_chunk(data: bytes, page: int = 0) -> "str | None":
    """Name the first chunk that decides pixels and is not as it was written.

    Pillow reads the checksum (CRC-32) of the compressed pixels and does not compare it. Comparing costs about a
    hundredth of the time that decoding takes.

    Parameters
    ----------
    data : bytes
        A PNG file, or a file that holds PNG files (ICO, ICNS).
    page : int, default=0
        Which frame of an animation is wanted.
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
    """Whether a file is a PNG of 16 bits."""
    return data.startswith(SIGNATURE) and data[24:25] == b"\x10"


def is_gray(data: bytes) -> bool:
    """Whether a PNG is gray without transparency of its own, which Pillow reads with all its bits."""
    return data[25:26] == b"\0"


def read_wide_colors(data: bytes) -> np.ndarray:
    """Read a PNG of 16-bit colors with all its bits, of which Pillow keeps the high byte.

    Raises
    ------
    ImageError
        If imagecodecs is not installed.
    """
    if not is_installed("imagecodecs"):
        raise ImageError(
            "a PNG of 16-bit colors, of which fewer bits are used, and Pillow keeps the high byte only: "
            f"pip install 'sktl[tiff]', or {OWN_READER}."
        )
    return importlib.import_module("imagecodecs").png_decode(data)


def without_ancillary(data: bytes) -> bytes:
    """The same image without texts, color profile and the like, on which no pixel depends.

    What may be left out begins with a small letter. Transparency, the frames of an animation and an orientation whose
    checksum matches are kept.
    """
    kept = []
    for kind, begin, end in _chunks(data, 0):
        is_whole = zlib.crc32(memoryview(data)[begin + 4 : end]) == _checksum(data, end)
        if kind[:1].isupper() or kind in (b"tRNS", b"acTL", b"fcTL", b"fdAT") or (kind == b"eXIf" and is_whole):
            kept.append(data[begin : end + 4])
    return SIGNATURE + b"".join(kept)


def scale_transparency(image: Image.Image, rawmode: str) -> Image.Image:
    """Bring the level that stands for transparent to the scale of the pixels, in a copy; Pillow keeps the file's own.

    Parameters
    ----------
    image : PIL image
        A loaded one.
    rawmode : str
        The layout of its pixels in the file, such as "L;4" or "RGB;16B".
    """
    level, factor = image.info.get("transparency"), {"L;2": 85, "L;4": 17}.get(rawmode)
    if isinstance(level, int) and factor is not None:
        level *= factor
    elif isinstance(level, tuple) and rawmode.startswith("RGB;16"):
        level = tuple(value >> 8 for value in level)  # of 16-bit colors Pillow keeps the high byte
    else:
        return image
    image = image.copy()
    image.info["transparency"] = level
    return image


def _starts(data: bytes) -> "list[int]":
    """Where PNG images begin in a file."""
    if data.startswith(SIGNATURE):
        return [0]
    return [found.start() for found in re.finditer(SIGNATURE, data)] if data.startswith(_HOLDERS) else []


def _chunks(data: bytes, start: int) -> "list[tuple[bytes, int, int]]":
    """(kind, where it begins, where its checksum is) of each chunk of the PNG that begins at ``start``."""
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
