"""Lazy images, and sequences that decode their items on access."""

import sys
from collections.abc import Sequence
from typing import Any

from PIL import Image

from sktl._images._named_warnings import named_warnings
from sktl._images._read_settings import ReadSettings
from sktl._images._sources import name_of
from sktl._locks import Lock

_REMEMBERED_BYTES = 256 * 1024**2


class LazyImage:
    """Image that is read when its pixels are needed, and is not kept in memory.

    Parameters
    ----------
    source : object
        The image: any item that a table of images may contain.
    reading : ReadSettings
        Options for reading the image.
    on_error : {"raise", "nan"}, default="raise"
        What to do if the image cannot be read.
    """

    # Not a dataclass, because pandas would turn its fields into columns.
    __slots__ = ("on_error", "reading", "source")

    def __init__(self, source: Any, reading: ReadSettings, on_error: str = "raise"):
        self.source, self.reading, self.on_error = source, reading, on_error

    def __repr__(self) -> str:
        return f"LazyImage({type(self.source).__name__}{name_of(self.source)})"


class Broken:
    """Placeholder for an item that a sequence could not return, with its error."""

    def __init__(self, error: Exception):
        self.error = error


def unwrapped(item: Any) -> Any:
    """Return the source of a lazy image, or the item itself."""
    return item.source if isinstance(item, LazyImage) else item


def has_value_range(item: Any) -> bool:
    """Check whether an item has an explicit value range."""
    return isinstance(item, LazyImage) and item.reading.value_range is not None


class LazyImages(Sequence[LazyImage]):
    """Items of a lazy sequence, each with its reading options."""

    def __init__(self, items: Sequence[Any], reading: ReadSettings, on_error: str):
        self._items, self._reading, self._on_error = items, reading, on_error

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return LazyImage(self._items[index], self._reading, self._on_error)


class Remembering(Sequence[Any]):
    """Wrapper of a sequence that decodes on access, such as a Hugging Face column.

    An item is accessed twice, for its digest and for its pixels. It is decoded once and
    kept until the second access, up to a limit of memory.

    Parameters
    ----------
    items : sequence
        The sequence.
    max_bytes : int, default=268435456
        Maximum size of the items that are kept, in bytes of pixels.
    """

    def __init__(self, items: Sequence[Any], max_bytes: int = _REMEMBERED_BYTES):
        self._items = items
        self._kept: dict[int, Any] = {}
        self._taken: set[int] = set()  # kept items that were accessed once
        self._room = max_bytes
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]  # no slices
        item = self.peek(index)
        with self._lock:
            if index in self._taken:
                self._taken.discard(index)
                self._room += _size(self._kept.pop(index))
            elif index in self._kept:
                self._taken.add(index)
        return item

    def peek(self, index: int) -> Any:
        """Return an item without counting it as an access."""
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is out of range for a sequence of {len(self)} items.")
        with self._lock:
            if index in self._kept:
                return self._kept[index]
        try:
            with named_warnings(f"Image {index}"):
                item = self._items[index]
        except Warning:  # turned into an error by the user's filters
            raise
        except Exception as error:  # the decoder of another library may raise anything
            item = Broken(error)
        with self._lock:
            if index not in self._kept and _size(item) <= self._room:
                self._kept[index] = item
                self._room -= _size(item)
        return item


def _size(item: Any) -> int:
    item = unwrapped(item)
    if isinstance(item, Image.Image):
        return item.width * item.height * max(len(item.getbands()), 1)
    return int(getattr(item, "nbytes", 0)) or sys.getsizeof(item)
