"""Pictures handed out one by one: what is read, converted and decoded, and when."""

import copy
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image, ImageFile

from sktl._images._convert import range_of_type, rows_to_images, to_uint8
from sktl._images._decode import DECODER, convert_channels, decode, decode_pil
from sktl._images._format import ImageFormat
from sktl._images._learn import allowed_channels, learn_channels
from sktl.exceptions import ImageError

ENCODED = (bytes, bytearray, memoryview)
PATH = (str, os.PathLike)
ARRAY = (np.ndarray, torch.Tensor)
ITEM = "a path, bytes, a PIL image, or an array or tensor of shape (H, W) or (H, W, C)"


class Picture:
    """One picture, its content at hand: a key of it, and its pixels when asked for."""

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for the pixels: of the content and of all that decides how it decodes."""
        raise NotImplementedError

    def decode(self) -> np.ndarray:
        """Give the pixels, ``uint8`` of shape (H, W, C), C-contiguous; they may be read-only."""
        raise NotImplementedError


class _File(Picture):
    """An encoded file: told apart by its bytes, decoded only when asked."""

    def __init__(self, data: bytes, in_channels: int, name: str):
        self._data, self._in_channels, self._name = data, in_channels, name

    @cached_property
    def digest(self) -> bytes:
        # Of some formats Pillow makes up what is missing while that switch is set; those pixels are no one else's.
        settings = f"{DECODER}, {self._in_channels} channels, {bool(ImageFile.LOAD_TRUNCATED_IMAGES)}"
        state = xxhash.xxh3_128(settings.encode())
        state.update(self._data)
        return state.digest()

    def decode(self) -> np.ndarray:
        return decode(self._data, self._in_channels, self._name)


class _Pixels(Picture):
    """Pixels in memory: told apart by what they are after conversion, so that equal pictures share one digest."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    @cached_property
    def digest(self) -> bytes:
        state = xxhash.xxh3_128(f"pixels {self._pixels.shape}".encode())
        state.update(self._pixels.data)
        return state.digest()

    def decode(self) -> np.ndarray:
        return self._pixels


class Images(Sequence[Picture]):
    """The pictures of one ``X``, made one by one when asked for; safe to ask from several threads.

    Parameters
    ----------
    source : sequence of items, ndarray of flat rows (n, n_pixels), or ndarray of pictures (n, ...)
        What ``X`` was found to be; kept as it is.
    image_format : ImageFormat
        What was learnt at fit.
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

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]  # no slices
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
        return self._picture(self._source[index], index)

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
            16 of them, as `Picture.digest`.

        Raises
        ------
        ImageError
            If this picture cannot be read or understood.
        """
        position = int(self._positions[index])
        if position not in self._digests:
            self._digests[position] = self[index].digest
        return self._digests[position]

    def _picture(self, item: Any, index: int) -> Picture:
        name = f"Image {index}"
        if isinstance(item, PATH):
            name = f"{name} ({os.fspath(item)!r})"
            return _File(_read(item, name), self._in_channels, name)
        if isinstance(item, ENCODED):
            return _File(bytes(item), self._in_channels, name)
        if isinstance(item, Image.Image) and item.mode != "F":
            return _Pixels(decode_pil(item, self._in_channels, name))
        if isinstance(item, (*ARRAY, Image.Image)):
            return _Pixels(self._from_array(as_array(item), name))
        if item is None or (isinstance(item, float) and item != item) or type(item).__name__ == "NAType":
            raise ImageError(f"{name}: the value is missing ({item!r}); drop the row or give {ITEM}.")
        raise ImageError(f"{name}: is of type {type(item).__name__!r}, but must be {ITEM}.")

    def _from_array(self, values: np.ndarray, name: str) -> np.ndarray:
        if values.dtype.kind not in "buif":
            raise ImageError(f"{name}: pixels must be real numbers, got an array of dtype {values.dtype}.")
        if not values.size:
            raise ImageError(f"{name}: the picture has no pixels (its shape is {values.shape}).")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ImageError(f"{name}: the pixels hold NaN or infinity.")
        if range_of_type(values.dtype) is None and self._format.value_range is None:
            raise ImageError(
                f"{name}: the value range of {values.dtype} pixels is learnt at fit, but fit was given "
                f"{self._format.kind}; give uint8 pixels."
            )
        pixels = to_uint8(
            _channels_last(values, self._format.channels, self._in_channels, name), self._format.value_range
        )
        return convert_channels(pixels, self._in_channels, name)


def as_array(item: Any) -> np.ndarray:
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        return (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    return np.asarray(item)


def _channels_last(values: np.ndarray, learnt: str | None, in_channels: int, name: str) -> np.ndarray:
    """View a picture as (H, W, C), by the axis learnt or, where none was, by the only one possible."""
    if values.ndim == 2:
        values, learnt = values[:, :, np.newaxis], "last"
    if values.ndim != 3:
        raise ImageError(f"{name}: an array of shape {values.shape}, but must be (H, W) or (H, W, C).")
    if learnt is None:
        try:
            learnt = learn_channels([values.shape], in_channels, prefer_last=False)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
    n_channels = values.shape[0] if learnt == "first" else values.shape[2]
    if learnt is None or n_channels not in allowed_channels(in_channels):
        raise ImageError(
            f"{name}: an array of shape {values.shape} {channels_fault(values.shape, in_channels, learnt)}"
        )
    return np.moveaxis(values, 0, -1) if learnt == "first" else values


def channels_fault(shape: Sequence[int], in_channels: int, learnt: str | None = None) -> str:
    counts = {"first": f"{shape[0]} channels", "last": f"{shape[-1]} channels"}
    got = f"{counts[learnt]} (axis {learnt!r})" if learnt else f"{counts['last']} if last, {counts['first']} if first"
    allowed = " or ".join(map(str, allowed_channels(in_channels)))
    return (
        f"has {got}; with in_channels={in_channels} it must have {allowed}. in_channels= and channels= say otherwise."
    )


def _read(path: Any, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        remote = " Addresses are not fetched: download the file first." if "://" in str(path) else ""
        raise ImageError(f"{name}: there is no such file.{remote}") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a directory; list its files instead.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: the file cannot be read ({getattr(error, 'strerror', None) or error}).") from error
