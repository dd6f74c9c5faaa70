"""How an image is read, as one value: what its numbers mean, which frame, how large it may be, and by whom."""

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

# Pillow's own default limit: a quarter of a gigabyte of RGB.
MAX_PIXELS = 1024**3 // 4 // 3
MEMORY_SHARE = 16  # one image may take this part of the machine's memory
_BYTES_PER_PIXEL = 4
_LEAST_BYTES = 1024**3

# The ways out that several messages name.
OWN_READER = "read it with sktl.preprocessing.ImageReader(reader=...) and a function"
SAY_RANGE = "Set it with sktl.preprocessing.ImageReader(value_range=(low, high))."


@dataclass(frozen=True)
class ReadSettings:
    """How an image is read.

    Parameters
    ----------
    uint16_range : (low, high) or None, default=None
        The 16-bit values that become 0 and 255; None takes all of them, 0-65535.
    value_range : (low, high) or None, default=None
        The values of any type but ``uint8`` and ``bool`` that become 0 and 255. It comes before ``uint16_range``; None
        takes what the type or the file says, and refuses floats, of which none does.
    max_pixels : int or "auto", default="auto"
        The largest image that is decoded; see `pixel_limit`.
    page : int, default=0
        Which image of a file that holds several.
    reader : callable, "tifffile" or None, default=None
        What reads the file; None is Pillow, and tifffile for TIFFs that Pillow does not read right.
    """

    uint16_range: Range | None = None
    value_range: Range | None = None
    max_pixels: "int | str" = "auto"
    page: int = 0
    reader: "Callable[[Any], Any] | str | None" = None

    @cached
    def key(self) -> str:
        """Everything here that decides pixels, or whether there are any; the same in every process."""
        reader = self.reader if self.reader is None or isinstance(self.reader, str) else code_key(self.reader)
        return f"{self.uint16_range}|{self.value_range}|{self.max_pixels}|{self.page}|{reader}"

    @property
    def wide_range(self) -> Range | None:
        """What 16-bit values mean, if they do not mean what their type says."""
        return self.value_range or self.uint16_range

    def with_uint16_range(self, uint16_range: Range | None) -> "ReadSettings":
        """The same for images among which 16-bit values have this range."""
        return self if uint16_range == self.uint16_range else replace(self, uint16_range=uint16_range)


def pixel_limit(max_pixels: "int | str") -> int:
    """How many pixels an image may have: those given, or "auto" for a share of the machine's memory.

    With "auto" an image may take a sixteenth of the memory, four bytes a pixel; 89 million pixels (Pillow's own limit)
    are always allowed.
    """
    if not isinstance(max_pixels, str):
        return int(max_pixels)
    return max(MAX_PIXELS, memory() // MEMORY_SHARE // _BYTES_PER_PIXEL)


def byte_limit() -> int:
    """How many bytes of a file are read: a quarter of the machine's memory, and at least a gibibyte."""
    return max(_LEAST_BYTES, memory() // 4)


def check_pixel_count(width: int, height: int, max_pixels: "int | str") -> None:
    """Refuse an image that is larger than it may be.

    Raises
    ------
    ImageError
        That names the limit.
    """
    if width * height > (limit := pixel_limit(max_pixels)):
        raise ImageError(
            f"not decoded, as it may be a decompression bomb ({width} x {height} pixels; the limit is {limit}). If the "
            "file can be trusted, raise the limit with sktl.preprocessing.ImageReader(max_pixels=...)."
        )


@functools.cache
def memory() -> int:
    """Bytes of memory that this process may use, as far as the system says it: of the machine, or of its container."""
    limits = []
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            continue
    return min(limits, default=0)
