"""Table of images, which are read and decoded one at a time."""

import copy
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image, ImageFile

from sktl._images._convert import as_array, is_uint16, range_of_type, rows_to_images
from sktl._images._decode import DECODER, convert_channels, decode, decode_array, decode_pil, in_range
from sktl._images._format import ImageFormat
from sktl._images._lazy import Broken, LazyImage, unwrapped
from sktl._images._learn import allowed_channels, learn_channels
from sktl._images._named_warnings import named_warnings
from sktl._images._read_settings import ReadSettings
from sktl._images._signatures import is_allowed, not_allowed
from sktl._images._sources import is_missing, is_read_once, is_source, local_path, name_of, path_of, read, reason
from sktl._locks import cached
from sktl.exceptions import ImageError

ARRAY = (np.ndarray, torch.Tensor)
ITEM = "a path, bytes, an open file, a PIL image, or an array or tensor of shape (H, W) or (H, W, C)"


class TableImage:
    """Image of a table, with a digest of its content and its pixels on demand."""

    @property
    def digest(self) -> bytes:
        """Digest (16 bytes) of the content and the settings that determine pixels."""
        raise NotImplementedError

    def decode(self) -> np.ndarray:
        """Return ``uint8`` pixels (H, W, C), C-contiguous and possibly read-only."""
        raise NotImplementedError

    def prepared(self, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the pixels as a network takes them, which `prepare` resizes."""
        return prepare(self.decode())


class _File(TableImage):
    """Encoded file, identified by its bytes and decoded on demand."""

    def __init__(self, data: bytes, in_channels: int, name: str, reading: ReadSettings):
        self._data, self._in_channels, self._name, self._reading = data, in_channels, name, reading

    @cached
    def digest(self) -> bytes:
        # With this setting, Pillow fills in the missing pixels of some formats.
        settings = f"{DECODER}, {self._in_channels} channels, {bool(ImageFile.LOAD_TRUNCATED_IMAGES)}"
        state = xxhash.xxh3_128(f"{settings}, {self._reading.key}".encode())
        state.update(self._data)
        return state.digest()

    def decode(self) -> np.ndarray:
        return decode(self._data, self._in_channels, self._name, self._reading)


class _ReadByUser(_File):
    """File with a custom reader, identified by its bytes and the code of the reader."""

    def __init__(self, source: Any, *args: Any):
        super().__init__(*args)
        self._source = source

    def decode(self) -> np.ndarray:
        reader: Any = self._reading.reader
        try:
            with named_warnings(self._name):
                values = reader(local_path(self._source) or BytesIO(self._data))
        except (MemoryError, Warning):
            raise
        except Exception as error:  # custom readers may raise anything
            raise ImageError(f"{self._name}: the reader raised {type(error).__name__} ({error}).") from error
        return decode_array(values, self._in_channels, self._name, self._reading)


class _Pixels(TableImage):
    """Pixels in memory, identified by their values after conversion."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    @cached
    def digest(self) -> bytes:
        state = xxhash.xxh3_128(f"pixels {self._pixels.shape}".encode())
        state.update(self._pixels.data)
        return state.digest()

    def decode(self) -> np.ndarray:
        return self._pixels


class Images(Sequence[TableImage]):
    """Images of a table ``X``, read on access; safe to use from several threads.

    Parameters
    ----------
    source : sequence of items, ndarray of flat rows (n, n_pixels) or of images (n, ...)
        The images, which are not copied.
    image_format : ImageFormat
        Format learned in fit.
    in_channels : int
        Number of channels of the decoded images.
    """

    def __init__(self, source: Sequence[Any] | np.ndarray, image_format: ImageFormat, in_channels: int):
        self._source = source
        self._rows = source if isinstance(source, np.ndarray) and source.ndim == 2 else None
        self._format = image_format
        self._in_channels = in_channels
        self._positions: Sequence[int] | np.ndarray = range(len(source))  # rows of the source in this view
        self._digests: dict[int, bytes] = {}  # by row of the source, shared by all views
        self._streams: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        """Read the bytes of a file, or convert pixels in memory.

        Raises
        ------
        ImageError
            If the image cannot be read.
        """
        index = int(self._positions[index])
        if self._rows is not None:
            pixels = rows_to_images(self._rows[index : index + 1], self._format)[0]
            return _Pixels(convert_channels(pixels, self._in_channels, f"Image {index}"))
        return self._table_image(self._source[index], index)

    @property
    def n_in_table(self) -> int:
        """Number of images in the whole table, of which this may be a view."""
        return len(self._source)

    @property
    def positions(self) -> np.ndarray:
        """Positions of the images of this view in the whole table."""
        return np.asarray(self._positions, np.intp)

    def take(self, positions: Sequence[int] | np.ndarray | slice) -> "Images":
        """Return a view of some images; errors name positions in the whole table.

        Parameters
        ----------
        positions : sequence of int, ndarray of int, or slice
            Positions of the images. Negative positions count from the end.

        Raises
        ------
        IndexError
            If a position is out of range.
        """
        taken = copy.copy(self)
        if isinstance(positions, slice):
            taken._positions = self._positions[positions]
        else:
            taken._positions = np.array([self._positions[position] for position in positions], np.intp)
        return taken

    def digest(self, index: int) -> bytes:
        """Return the digest of an image (16 bytes), and remember it.

        Raises
        ------
        ImageError
            If the image cannot be read.
        """
        position = int(self._positions[index])
        if position not in self._digests:
            self._digests[position] = self[index].digest
        return self._digests[position]

    def item(self, index: int) -> Any:
        """Return the item of ``X`` at ``index``."""
        look = getattr(self._source, "peek", self._source.__getitem__)
        return look(int(self._positions[index]))

    def describe(self, index: int) -> "tuple[int, str | None, str]":
        """Return position, path (or None) and name of an image for errors."""
        position = int(self._positions[index])
        item = None if self._rows is not None else unwrapped(self.item(index))
        return position, path_of(item), f"Image {position}{name_of(item)}"

    @property
    def on_error(self) -> str:
        """Value of ``on_error`` of a preceding `ImageReader`, else ``"raise"``."""
        first = None if self._rows is not None or not len(self) else self.item(0)
        return first.on_error if isinstance(first, LazyImage) else "raise"

    def _table_image(self, item: Any, index: int) -> TableImage:
        reading, name = ReadSettings(self._format.uint16_range), f"Image {index}"
        if isinstance(item, LazyImage):
            item, reading = item.source, item.reading.with_uint16_range(self._format.uint16_range)
        if reading.page and isinstance(item, (*ARRAY, Image.Image)):
            raise ImageError(f"{name}: page={reading.page} requires a file. Pass its path instead of the image.")
        if isinstance(item, Broken):
            raise ImageError(
                f"{name}: X raised an error when this item was accessed ({reason(item.error)})."
            ) from item.error
        if is_source(item):
            name += name_of(item)
            data = self._read(item, index, name)
            if not data and not callable(reading.reader):
                raise ImageError(f"{name}: the file is empty (0 bytes).")
            content = data, self._in_channels, name, reading
            return _ReadByUser(item, *content) if callable(reading.reader) else _File(*content)
        is_unread = isinstance(item, ImageFile.ImageFile) and item.tile  # only the header was read
        if is_unread and not is_allowed(item.format):
            raise ImageError(f"{name}: {not_allowed(str(item.format))}, or call load() on the PIL image.")
        if isinstance(item, Image.Image) and (item.mode != "F" or reading.value_range is not None):
            return _Pixels(decode_pil(item, self._in_channels, name, reading))
        if isinstance(item, (*ARRAY, Image.Image)):
            return _Pixels(self._from_array(as_array(item), name, reading))
        if is_missing(item):
            raise ImageError(f"{name}: the value is missing ({item!r}). Drop the row, or pass {ITEM}.")
        raise ImageError(f"{name}: the item must be {ITEM}. Got an object of type {type(item).__name__!r} instead.")

    def _read(self, item: Any, index: int, name: str) -> bytes:
        """Return the bytes of an item; keep those of streams that are not seekable."""
        if not is_read_once(item):
            return read(item, name)
        if index not in self._streams:
            self._streams[index] = read(item, name)
        return self._streams[index]

    def _from_array(self, values: np.ndarray, name: str, reading: ReadSettings) -> np.ndarray:
        if values.dtype.kind not in "buif":
            raise ImageError(f"{name}: pixels must be real numbers. Got an array of dtype {values.dtype} instead.")
        if not values.size:
            raise ImageError(f"{name}: the image has no pixels (its shape is {values.shape}).")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ImageError(f"{name}: the pixels contain NaN or infinity.")
        is_known = range_of_type(values.dtype) is not None or is_uint16(values.dtype) or reading.value_range is not None
        if not is_known and self._format.value_range is None:
            raise ImageError(
                f"{name}: the value range of {values.dtype} pixels is unknown, because fit got only images of known "
                f"range (kind={self._format.kind!r}). Pass uint8 pixels."
            )
        values = _channels_last(values, self._format.channels, self._in_channels, name)
        return convert_channels(in_range(values, self._format.value_range, reading), self._in_channels, name)


def _channels_last(values: np.ndarray, learned: str | None, in_channels: int, name: str) -> np.ndarray:
    """Move the channel axis, learned or inferred from the shape, to the end."""
    if values.ndim == 2:
        values, learned = values[:, :, np.newaxis], "last"
    if values.ndim != 3:
        raise ImageError(f"{name}: the array must have shape (H, W) or (H, W, C). Got {values.shape} instead.")
    if learned is None:
        try:
            learned = learn_channels([values.shape], in_channels, prefer_last=False)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
    n_channels = values.shape[0] if learned == "first" else values.shape[2]
    if learned is None or n_channels not in allowed_channels(in_channels):
        raise ImageError(
            f"{name}: the array of shape {values.shape} {channels_fault(values.shape, in_channels, learned)}"
        )
    return np.moveaxis(values, 0, -1) if learned == "first" else values


def channels_fault(shape: Sequence[int], in_channels: int, learned: str | None = None) -> str:
    """Return the end of an error about an array with a wrong number of channels."""
    counts = {"first": f"{shape[0]} channels", "last": f"{shape[-1]} channels"}
    got = (
        f"{counts[learned]} (axis {learned!r})"
        if learned
        else f"{counts['last']} if they are last, {counts['first']} if they are first"
    )
    allowed = " or ".join(map(str, allowed_channels(in_channels)))
    return f"has {got}, but in_channels={in_channels} requires {allowed}. Change in_channels or channels."
