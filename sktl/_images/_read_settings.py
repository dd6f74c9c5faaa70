"""Reading options of images, and limits of their size."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sktl._code import code_key
from sktl._images._format import Range
from sktl._locks import cached
from sktl.exceptions import ImageError

# Default limit of Pillow: a quarter of a gigabyte of RGB.
MAX_PIXELS = 1024**3 // 4 // 3
MEMORY_SHARE = 16  # one image may use 1/16 of the memory
_BYTES_PER_PIXEL = 4
_LEAST_BYTES = 1024**3

# Advice that several messages share.
OWN_READER = "use sktl.preprocessing.ImageReader(reader=...) with your own function"
SAY_RANGE = "Set the value range with sktl.preprocessing.ImageReader(value_range=(low, high))."


@dataclass(frozen=True)
class ReadSettings:
    """Options for reading an image.

    Parameters
    ----------
    uint16_range : (low, high) or None, default=None
        16-bit values that are scaled to 0 and 255. None scales the full range 0-65535.
    value_range : (low, high) or None, default=None
        Values that are scaled to 0 and 255, for all dtypes except ``uint8`` and
        ``bool``. Takes precedence over ``uint16_range``. None uses the range of the
        dtype or the bit depth stored in the file, and refuses floats.
    max_pixels : int or "auto", default="auto"
        Maximum number of pixels of an image; see `pixel_limit`.
    page : int, default=0
        Index of the image in a file with several pages or frames.
    reader : callable, "tifffile" or None, default=None
        Reader of the file. None uses Pillow, and tifffile for TIFF files that Pillow
        cannot read correctly.
    """

    uint16_range: Range | None = None
    value_range: Range | None = None
    max_pixels: "int | str" = "auto"
    page: int = 0
    reader: "Callable[[Any], Any] | str | None" = None

    @cached
    def key(self) -> str:
        """Part of the cache key that covers all options, the same in every process."""
        reader = self.reader if self.reader is None or isinstance(self.reader, str) else code_key(self.reader)
        return f"{self.uint16_range}|{self.value_range}|{self.max_pixels}|{self.page}|{reader}"

    @property
    def wide_range(self) -> Range | None:
        """Range of 16-bit values, or None for the full range of the dtype."""
        return self.value_range or self.uint16_range

    def with_uint16_range(self, uint16_range: Range | None) -> "ReadSettings":
        """Return the same options with another range of 16-bit values."""
        return self if uint16_range == self.uint16_range else replace(self, uint16_range=uint16_range)


def pixel_limit(max_pixels: "int | str") -> int:
    """Return the maximum number of pixels of an image.

    ``"auto"`` allows images that fit into 1/16 of the memory at 4 bytes per pixel, and
    always allows 89 million pixels, the limit of Pillow.
    """
    if not isinstance(max_pixels, str):
        return int(max_pixels)
    return max(MAX_PIXELS, memory() // MEMORY_SHARE // _BYTES_PER_PIXEL)


def byte_limit() -> int:
    """Return the maximum size of a file: 1/4 of the memory, and at least 1 GiB."""
    return max(_LEAST_BYTES, memory() // 4)


def check_pixel_count(width: int, height: int, max_pixels: "int | str") -> None:
    """Raise an `ImageError` if an image has more pixels than allowed."""
    if width * height > (limit := pixel_limit(max_pixels)):
        raise ImageError(
            f"the image may be a decompression bomb ({width} x {height} pixels; the limit is {limit}). If you trust "
            "the file, increase the limit with sktl.preprocessing.ImageReader(max_pixels=...)."
        )


@functools.cache
def memory() -> int:
    """Return the memory of the machine or container in bytes, or 0 if unknown."""
    limits = []
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no container, or no limit ("max")
            continue
    return min(limits, default=0)
