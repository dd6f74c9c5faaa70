"""What is learned from files at fit: how many bits 16-bit images use. A few files are looked at, and none is kept."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from sktl._images._decode import highest_uint16
from sktl._images._lazy import LazyImage
from sktl._images._png import has_16_bits
from sktl._images._reading import Reading
from sktl._images._sources import ENCODED, PATH, is_file, read
from sktl._images._tiff import is_tiff
from sktl._images._warnings import named_warnings

_LOOKED_AT = 16  # files, evenly spread over the table
_HEAD = 26  # bytes up to the depth of a PNG


def highest_in_files(items: Sequence[Any]) -> "int | None":
    """The highest value in some of the files of 16 bits; None if none of those looked at is one."""
    positions = np.unique(np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int))
    return max(_highest(items[position] for position in positions.tolist()), default=None)


def _highest(items: Iterable[Any]) -> Iterable[int]:
    """The highest value of each item that is a file of 16 bits and does not say yet what they mean."""
    for item in items:
        reading = item.reading if isinstance(item, LazyImage) else Reading()
        source = item.source if isinstance(item, LazyImage) else item
        if reading.value_range is not None or not _may_have_16_bits(source):
            continue
        try:
            with named_warnings(""):
                values = _values(source, reading)
        except Exception:  # it has its own error when it is its turn
            continue
        if values is not None:
            yield values


def _values(source: Any, reading: Reading) -> "int | None":
    if not callable(reading.reader):
        return highest_uint16(read(source, ""), reading)
    values = np.asarray(reading.reader(source if isinstance(source, PATH) else BytesIO(source)))
    return int(values.max()) if values.dtype == np.uint16 and values.size else None


def _may_have_16_bits(source: Any) -> bool:
    """Whether the first bytes of a file or of bytes are those of a format that can; what is farther is not fetched."""
    if isinstance(source, ENCODED):
        head = bytes(source[:_HEAD])
    elif isinstance(source, PATH) and not is_file(source):
        try:
            with open(source, "rb") as file:
                head = file.read(_HEAD)
        except (OSError, ValueError):
            return False
    else:
        return False
    return has_16_bits(head) or is_tiff(head)
