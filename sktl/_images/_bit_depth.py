"""Estimation of the bits that 16-bit image files use, from a sample of the files."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from sktl._images._convert import is_uint16
from sktl._images._decode import highest_uint16
from sktl._images._lazy import LazyImage, has_value_range, unwrapped
from sktl._images._named_warnings import named_warnings
from sktl._images._png import has_16_bits
from sktl._images._read_settings import ReadSettings
from sktl._images._sources import is_file, is_read_once, is_source, local_path, read
from sktl._images._tiff import is_tiff

_LOOKED_AT = 16  # number of sampled files, evenly spaced over the table
_OTHERS = (b"P2", b"P5", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # PGM and JPEG 2000 may have 16 bits
_HEAD = 26  # bytes of a PNG header up to the bit depth


def highest_in_files(items: Sequence[Any], *, only_local: bool = False) -> "int | None":
    """Return the highest value in a sample of the 16-bit files, or None.

    Parameters
    ----------
    items : sequence
        The files.
    only_local : bool, default=False
        Whether to skip open files, which may be remote, and files with a custom reader.
    """
    look = getattr(items, "peek", items.__getitem__)
    positions = np.unique(np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int)).tolist()
    return max(_highest(map(look, positions), only_local), default=None)


def _highest(items: Iterable[Any], only_local: bool) -> Iterable[int]:
    """Yield the highest value of each 16-bit file that has no explicit value range."""
    for item in items:
        reading, source = item.reading if isinstance(item, LazyImage) else ReadSettings(), unwrapped(item)
        is_costly = callable(reading.reader) or is_file(source)
        is_looked_at = is_source(source) and not is_read_once(source) and not has_value_range(item)
        if not is_looked_at or (only_local and is_costly):
            continue
        try:
            if (values := _values(source, reading)) is not None:
                yield values
        except Exception:  # the error is raised when the image is decoded
            continue


def _values(source: Any, reading: ReadSettings) -> "int | None":
    with named_warnings(""):
        if callable(reading.reader):
            data = None if (path := local_path(source)) else BytesIO(read(source, ""))
            values = np.asarray(reading.reader(path or data))
            return int(values.max()) if is_uint16(values.dtype) and values.size else None
        head = _head(source)
        is_wide = has_16_bits(head) or is_tiff(head) or head.startswith(_OTHERS)
        return highest_uint16(read(source, ""), reading) if is_wide else None


def _head(source: Any) -> bytes:
    """Return the first bytes of an encoded image; local files are not read further."""
    if (path := local_path(source)) is None:
        return read(source, "")[:_HEAD]
    with open(path, "rb") as file:
        return file.read(_HEAD)
