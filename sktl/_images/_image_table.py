"""Pictures handed out one by one: what is read, converted and decoded, and when."""

import copy
from collections.abc import Sequence
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
    """One picture, its content at hand: a key of it, and its pixels when asked for."""

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for the pixels: of the content and of all that decides how it decodes."""
        raise NotImplementedError

    def decode(self) -> np.ndarray:
        """Give the pixels, ``uint8`` of shape (H, W, C), C-contiguous; they may be read-only."""
        raise NotImplementedError


class _File(TableImage):
    """An encoded file: told apart by its bytes, decoded only when needed."""

    def __init__(self, data: bytes, in_channels: int, name: str, reading: ReadSettings):
        self._data, self._in_channels, self._name, self._reading = data, in_channels, name, reading

    @cached
    def digest(self) -> bytes:
        # Of some formats Pillow makes up what is missing while that switch is set; those pixels are no one else's.
        settings = f"{DECODER}, {self._in_channels} channels, {bool(ImageFile.LOAD_TRUNCATED_IMAGES)}"
        state = xxhash.xxh3_128(f"{settings}, {self._reading.key}".encode())
        state.update(self._data)
        return state.digest()

    def decode(self) -> np.ndarray:
        return decode(self._data, self._in_channels, self._name, self._reading)


class _ReadByUser(_File):
    """A file that a function of the user's reads; the file's bytes and the function stand for the pixels."""

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
        except Exception as error:  # whatever the user's function raises
            raise ImageError(f"{self._name}: the reader raised {type(error).__name__} ({error}).") from error
        return decode_array(values, self._in_channels, self._name, self._reading)


class _Pixels(TableImage):
    """Pixels in memory: told apart by what they are after conversion, so that equal pictures share one digest."""

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
    """The pictures of one ``X``, made one by one when asked for; safe to ask from several threads.

    Parameters
    ----------
    source : sequence of items, ndarray of flat rows (n, n_pixels), or ndarray of pictures (n, ...)
        What ``X`` was found to be; kept as it is.
    image_format : ImageFormat
        What was learned at fit.
    in_channels : int
        Channels of every decoded picture.
    """

    def __init__(self, source: Sequence[Any] | np.ndarray, image_format: ImageFormat, in_channels: int):
        self._source = source
        self._rows = source if isinstance(source, np.ndarray) and source.ndim == 2 else None
        self._format = image_format
        self._in_channels = in_channels
        self._positions: Sequence[int] | np.ndarray = range(len(source))  # in the source, of the pictures handed out
        self._digests: dict[int, bytes] = {}  # by that position, for all views
        self._streams: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        """Read picture ``index``: a file's bytes are read here, once; pixels in memory are converted here.

        Raises
        ------
        ImageError
            If this picture cannot be read or understood.
        """
        index = int(self._positions[index])
        if self._rows is not None:
            pixels = rows_to_images(self._rows[index : index + 1], self._format)[0]
            return _Pixels(convert_channels(pixels, self._in_channels, f"Image {index}"))
        return self._table_image(self._source[index], index)

    @property
    def n_in_table(self) -> int:
        """How many pictures the whole table has that this is a view of."""
        return len(self._source)

    @property
    def positions(self) -> np.ndarray:
        """Where in the whole table the pictures of this view lie."""
        return np.asarray(self._positions, np.intp)

    def take(self, positions: Sequence[int] | np.ndarray | slice) -> "Images":
        """Some of the pictures, in the order given; nothing is copied, and errors name a picture as the table does.

        Parameters
        ----------
        positions : sequence of int, ndarray of int, or slice
            Which pictures; negative positions count from the end.

        Returns
        -------
        Images
            A view of the same source.

        Raises
        ------
        IndexError
            If there is no such picture.
        """
        taken = copy.copy(self)
        if isinstance(positions, slice):
            taken._positions = self._positions[positions]
        else:
            taken._positions = np.array([self._positions[position] for position in positions], np.intp)
        return taken

    def digest(self, index: int) -> bytes:
        """Give the digest of picture ``index``; its file is read for it once.

        Parameters
        ----------
        index : int
            Which picture.

        Returns
        -------
        bytes
            16 of them, as `TableImage.digest`.

        Raises
        ------
        ImageError
            If this picture cannot be read or understood.
        """
        position = int(self._positions[index])
        if position not in self._digests:
            self._digests[position] = self[index].digest
        return self._digests[position]

    def item(self, index: int) -> Any:
        """What the table holds at ``index``, as it was given; it stays there for the next one who takes it."""
        look = getattr(self._source, "peek", self._source.__getitem__)
        return look(int(self._positions[index]))

    def describe(self, index: int) -> "tuple[int, str | None, str]":
        """Where in the table an image lies, its path if it has one, and what errors call it."""
        position = int(self._positions[index])
        item = None if self._rows is not None else unwrapped(self.item(index))
        return position, path_of(item), f"Image {position}{name_of(item)}"

    @property
    def on_error(self) -> str:
        """What becomes of an image that cannot be read, as an `ImageReader` in front says: "raise" or "nan"."""
        first = None if self._rows is not None or not len(self) else self.item(0)
        return first.on_error if isinstance(first, LazyImage) else "raise"

    def _table_image(self, item: Any, index: int) -> TableImage:
        reading, name = ReadSettings(self._format.uint16_range), f"Image {index}"
        if isinstance(item, LazyImage):
            item, reading = item.source, item.reading.with_uint16_range(self._format.uint16_range)
        if reading.page and isinstance(item, (*ARRAY, Image.Image)):
            raise ImageError(f"{name}: page={reading.page} needs a file. Give its path in place of the image.")
        if isinstance(item, Broken):
            raise ImageError(f"{name}: the item cannot be made ({reason(item.error)}).") from item.error
        if is_source(item):
            name += name_of(item)
            data = self._read(item, index, name)
            if not data and not callable(reading.reader):
                raise ImageError(f"{name}: the file is empty (0 bytes).")
            content = data, self._in_channels, name, reading
            return _ReadByUser(item, *content) if callable(reading.reader) else _File(*content)
        is_unread = isinstance(item, ImageFile.ImageFile) and item.tile  # nothing but its header was read
        if is_unread and not is_allowed(item.format):
            raise ImageError(f"{name}: it is {not_allowed(str(item.format))}, or call load() on the PIL image.")
        if isinstance(item, Image.Image) and (item.mode != "F" or reading.value_range is not None):
            return _Pixels(decode_pil(item, self._in_channels, name, reading))
        if isinstance(item, (*ARRAY, Image.Image)):
            return _Pixels(self._from_array(as_array(item), name, reading))
        if is_missing(item):
            raise ImageError(f"{name}: the value is missing ({item!r}). Drop the row, or give {ITEM}.")
        raise ImageError(f"{name}: is of type {type(item).__name__!r}, but must be {ITEM}.")

    def _read(self, item: Any, index: int, name: str) -> bytes:
        """The bytes of an item; those of a stream that can be read only once are kept as long as this table."""
        if not is_read_once(item):
            return read(item, name)
        if index not in self._streams:
            self._streams[index] = read(item, name)
        return self._streams[index]

    def _from_array(self, values: np.ndarray, name: str, reading: ReadSettings) -> np.ndarray:
        if values.dtype.kind not in "buif":
            raise ImageError(f"{name}: pixels must be real numbers, got an array of dtype {values.dtype}.")
        if not values.size:
            raise ImageError(f"{name}: the image has no pixels (its shape is {values.shape}).")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ImageError(f"{name}: the pixels hold NaN or infinity.")
        is_known = range_of_type(values.dtype) is not None or is_uint16(values.dtype) or reading.value_range is not None
        if not is_known and self._format.value_range is None:
            raise ImageError(
                f"{name}: the value range of {values.dtype} pixels is learned at fit, but fit was given "
                f"{self._format.kind}; give uint8 pixels."
            )
        values = _channels_last(values, self._format.channels, self._in_channels, name)
        return convert_channels(in_range(values, self._format.value_range, reading), self._in_channels, name)


def _channels_last(values: np.ndarray, learned: str | None, in_channels: int, name: str) -> np.ndarray:
    """View a picture as (H, W, C), by the axis learned or, where none was, by the only one possible."""
    if values.ndim == 2:
        values, learned = values[:, :, np.newaxis], "last"
    if values.ndim != 3:
        raise ImageError(f"{name}: an array of shape {values.shape}, but must be (H, W) or (H, W, C).")
    if learned is None:
        try:
            learned = learn_channels([values.shape], in_channels, prefer_last=False)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
    n_channels = values.shape[0] if learned == "first" else values.shape[2]
    if learned is None or n_channels not in allowed_channels(in_channels):
        raise ImageError(
            f"{name}: an array of shape {values.shape} {channels_fault(values.shape, in_channels, learned)}"
        )
    return np.moveaxis(values, 0, -1) if learned == "first" else values


def channels_fault(shape: Sequence[int], in_channels: int, learned: str | None = None) -> str:
    counts = {"first": f"{shape[0]} channels", "last": f"{shape[-1]} channels"}
    got = (
        f"{counts[learned]} (axis {learned!r})" if learned else f"{counts['last']} if last, {counts['first']} if first"
    )
    allowed = " or ".join(map(str, allowed_channels(in_channels)))
    return (
        f"has {got}; with in_channels={in_channels} it must have {allowed}. in_channels= and channels= say otherwise."
    )
