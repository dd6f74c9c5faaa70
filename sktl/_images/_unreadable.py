"""Search for unreadable images, and one error for all of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import xxhash

from sktl._images._image_table import Images
from sktl._messages import LIMIT
from sktl._warnings import worker_threads
from sktl.exceptions import ImageError

N_LISTED = 10  # maximum number of images in a message
_LOOKED_UP_TOGETHER = 512  # images per cache query
_LIST = LIMIT - 170  # maximum number of characters of the list
_ITEM = 72  # minimum number of characters of an image with its reason
_FIRST = 180  # characters of the first image if the others have no reason
FINDER = "sktl.datasets.find_unreadable_images(X)"


class UnreadableImage(NamedTuple):
    """Image that cannot be read.

    Attributes
    ----------
    position : int
        Row of the image in ``X``, counted from 0.
    path : str or None
        Path of the image as passed in ``X``, or None if it has no path.
    reason : str
        Reason for which the image cannot be read.
    """

    position: int
    path: "str | None"
    reason: str


def as_unreadable(images: Images, index: int, error: ImageError) -> UnreadableImage:
    """Convert the error of the image at ``index`` to an `UnreadableImage`."""
    position, path, name = images.describe(index)
    return UnreadableImage(position, path, str(error).removeprefix(f"{name}: "))


def find_unreadable(
    images: Images, n_threads: int, *, cache: Any = None, listeners: Sequence[Callable[[int, int], Any]] = ()
) -> list[UnreadableImage]:
    """Find the unreadable images of a table by decoding all images, one at a time.

    Parameters
    ----------
    images : Images
        The images.
    n_threads : int
        Number of threads that read and decode images.
    cache : Cache or None, default=None
        Cache of the images that are known to be readable, which are not decoded again.
    listeners : sequence of callable, default=()
        Functions that are called as ``listener(n_done, n_images)``.
    """
    found: list[UnreadableImage] = []

    def fault(index: int, only_digest: bool = False) -> "UnreadableImage | None":
        try:
            if only_digest:
                images.digest(index)
            else:
                images[index].decode()
        except ImageError as error:
            return as_unreadable(images, index, error)
        return None

    with worker_threads(n_threads) as pool:
        for start in range(0, len(images), _LOOKED_UP_TOGETHER):
            block: Sequence[int] = range(start, min(start + _LOOKED_UP_TOGETHER, len(images)))
            keys = {}
            if cache is not None:
                faults = list(pool.map(lambda index: fault(index, only_digest=True), block))
                found += [one for one in faults if one is not None]
                keys = {i: _key(images.digest(i)) for i, one in zip(block, faults, strict=True) if one is None}
                known = cache.get_many(list(keys.values()))
                block = [i for i, value in zip(keys, known, strict=True) if value is None]
            faults = []
            for one in pool.map(fault, block):
                faults.append(one)
                for listener in listeners:
                    listener(start + len(faults), len(images))
            found += [one for one in faults if one is not None]
            if cache is not None:
                read = [keys[i] for i, one in zip(block, faults, strict=True) if one is None]
                cache.put_many([(key, np.array(True)) for key in read])
    return sorted(found)


def _key(digest: bytes) -> bytes:
    return xxhash.xxh3_128_digest(digest + b"|can be read")


def digests(images: Images) -> list[bytes]:
    """Return the digests of all images, in order.

    Raises
    ------
    ImageError
        If images cannot be read. The error lists those in the first block of 512 images
        that contains any.
    """
    found: list[bytes] = []
    for start in range(0, len(images), _LOOKED_UP_TOGETHER):
        failures = {}
        for index in range(start, min(start + _LOOKED_UP_TOGETHER, len(images))):
            try:
                found.append(images.digest(index))
            except ImageError as error:
                failures[index] = error
        if failures:
            raise_unreadable(images, failures)
    return found


def raise_unreadable(images: Sequence[Any], failures: Mapping[int, ImageError]) -> NoReturn:
    """Raise one error for several unreadable images.

    Parameters
    ----------
    images : Images or other sequence of images
        The table, or a part of it.
    failures : mapping of int to ImageError
        Errors of the images, by index in ``images``.
    """
    first = failures[min(failures)]
    if not isinstance(images, Images) or images.n_in_table == 1:
        raise first
    if len(failures) == 1:
        raise ImageError(f"{first} {FINDER} lists all images that cannot be read.") from first
    found = sorted(as_unreadable(images, index, error) for index, error in failures.items())
    raise ImageError(_all_known(found, images)) from first


@contextlib.contextmanager
def naming_others(images: Images, n_threads: int) -> Iterator[None]:
    """Extend the error of one unreadable image to all unreadable images near it.

    Use it for code that reads part of a table or augmented images, and whose error
    names only the first unreadable image.

    Parameters
    ----------
    images : Images
        The original table. In case of an error, blocks of 512 images are read until one
        of them contains unreadable images.
    n_threads : int
        Number of threads that read and decode images.
    """
    try:
        yield
    except ImageError as error:
        for start in range(0, len(images), _LOOKED_UP_TOGETHER):
            if found := find_unreadable(images.take(slice(start, start + _LOOKED_UP_TOGETHER)), n_threads):
                raise ImageError(_all_known(found, images)) from error
        raise  # the error came from an augmented image


def _all_known(found: Sequence[UnreadableImage], images: Images) -> str:
    if len(found) == 1:
        return f"{listed(found)}. {FINDER} lists all images that cannot be read."
    at_least = "At least " if len(found) < images.n_in_table else ""
    count = f"{at_least}{len(found)} of {images.n_in_table} images cannot be read"
    return f"{listed(found)}. {count}; {FINDER} lists all of them."


def listed(found: Sequence[UnreadableImage]) -> str:
    """List the first ten images with positions, paths and reasons, shortened.

    If the reasons do not fit, only the first one is included.
    """
    shown = found[:N_LISTED]
    more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    room = _LIST // len(shown) - 2
    if room >= _ITEM:
        return "; ".join(_item(one, one.reason.rstrip("."), room, "Image ") for one in shown)
    first = _item(shown[0], shown[0].reason.rstrip("."), _FIRST, "Image ")
    room = (_LIST - len(first)) // (len(shown) - 1) - 2
    return f"{first}; also {', '.join(_item(one, '', room) for one in shown[1:])}{more}"


def _item(one: UnreadableImage, reason: str, room: int, noun: str = "") -> str:
    """Describe an image in ``room`` characters, shortening its path and reason."""
    reason = reason and f": {reason}"
    if one.path is None:
        return _cut(f"{noun}{one.position}{reason}", room)
    head, path = f"{noun}{one.position} (", repr(one.path)
    left = max(room - len(head) - min(len(reason), 3 * room // 5) - 1, 16)
    path = path if len(path) <= left else f"'...{path[4 - left :]}"
    return _cut(f"{head}{path}){reason}", room)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
