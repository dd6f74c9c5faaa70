"""An image that is not read yet, and how to read it; and a sequence that makes its items each time they are taken."""

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
    """An image that is read when its pixels are needed, and not kept.

    Parameters
    ----------
    source : object
        Anything that a table of images may hold.
    reading : ReadSettings
        How it is read.
    on_error : {"raise", "nan"}, default="raise"
        What to do if it cannot be read.
    """

    # No dataclass: pandas would make columns of its fields.
    __slots__ = ("on_error", "reading", "source")

    def __init__(self, source: Any, reading: ReadSettings, on_error: str = "raise"):
        self.source, self.reading, self.on_error = source, reading, on_error

    def __repr__(self) -> str:
        return f"LazyImage({type(self.source).__name__}{name_of(self.source)})"


class Broken:
    """What stands for an item that a sequence could not make; its error is raised when it is its turn."""

    def __init__(self, error: Exception):
        self.error = error


def unwrapped(item: Any) -> Any:
    """The source of a lazy image, or the item itself."""
    return item.source if isinstance(item, LazyImage) else item


def has_value_range(item: Any) -> bool:
    """Whether it was said of an item which of its values are black and white."""
    return isinstance(item, LazyImage) and item.reading.value_range is not None


class LazyImages(Sequence[LazyImage]):
    """The items of a sequence that makes them each time, each with how it is read."""

    def __init__(self, items: Sequence[Any], reading: ReadSettings, on_error: str):
        self._items, self._reading, self._on_error = items, reading, on_error

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return LazyImage(self._items[index], self._reading, self._on_error)


class Remembering(Sequence[Any]):
    """A sequence that decodes an image each time that it is taken, such as a column of Hugging Face's `datasets`.

    An item that was looked at is kept until it has been taken twice, while there is room: the first time for its
    digest, the second for its pixels. So it is decoded once for both.

    Parameters
    ----------
    items : sequence
        The sequence.
    max_bytes : int, default=268435456
        How much is kept, in bytes of pixels.
    """

    def __init__(self, items: Sequence[Any], max_bytes: int = _REMEMBERED_BYTES):
        self._items = items
        self._kept: dict[int, Any] = {}
        self._taken: set[int] = set()  # those of the kept that have been taken once
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
        """Look at an item without taking it."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index} among {len(self)}.")
        with self._lock:
            if index in self._kept:
                return self._kept[index]
        try:
            with named_warnings(f"Image {index}"):
                item = self._items[index]
        except Warning:  # which the user's filters have made an error
            raise
        except Exception as error:  # whatever the one who decodes it raises
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
