"""Images that cannot be read: all of them found, and said in one message."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import xxhash

from sktl._images._image_table import Images
from sktl._messages import LIMIT
from sktl._warnings import worker_threads
from sktl.exceptions import ImageError

N_LISTED = 10  # images that a message names
_LOOKED_UP_TOGETHER = 512  # images that are looked up in a cache together
_LIST = LIMIT - 170  # characters of them; the rest is for the message around the list
_ITEM = 72  # characters of an image with its reason, at least
_FIRST = 180  # those of the first one, if the others are without a reason
FINDER = "sktl.datasets.find_unreadable_images(X)"


class UnreadableImage(NamedTuple):
    """An image that cannot be read.

    Attributes
    ----------
    position : int
        Its row in ``X``, counted from 0.
    path : str or None
        Its path, as it was given; None if there is none.
    reason : str
        What is wrong with it.
    """

    position: int
    path: "str | None"
    reason: str


def as_unreadable(images: Images, index: int, error: ImageError) -> UnreadableImage:
    """What the error of one image says of it.

    Parameters
    ----------
    images : Images
        The table.
    index : int
        Which of its images.
    error : ImageError
        What was raised when it was read.
    """
    position, path, name = images.describe(index)
    return UnreadableImage(position, path, str(error).removeprefix(f"{name}: "))


def find_unreadable(
    images: Images, n_threads: int, *, cache: Any = None, listeners: Sequence[Callable[[int, int], Any]] = ()
) -> list[UnreadableImage]:
    """Read and decode all images of a table, none of which is kept.

    Parameters
    ----------
    images : Images
        The table.
    n_threads : int
        Threads that read and decode.
    cache : Cache or None, default=None
        Where it is kept of which images it is known that they can be read: their content is not decoded again.
    listeners : sequence of callable, default=()
        Each is called as ``listener(n_done, n_images)``.
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
    """Give the digest of every image, in order.

    Raises
    ------
    ImageError
        If images cannot be read: one error for those among the 512 that are read after one another.
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
    """Raise one error for all images that are known by now to be unreadable.

    Parameters
    ----------
    images : Images or other sequence of pictures
        The table, or a part of it.
    failures : mapping of int to ImageError
        The error of each such image, by its index in ``images``.
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
    """If an image cannot be read inside, raise one error for it and its neighbors, which are looked at for that.

    For a part of a table, or images that are changed, whose own error is about the first one only.

    Parameters
    ----------
    images : Images
        The table, before anything is changed. Its images are read, 512 at a time, until some are found.
    n_threads : int
        Threads that read and decode.
    """
    try:
        yield
    except ImageError as error:
        for start in range(0, len(images), _LOOKED_UP_TOGETHER):
            if found := find_unreadable(images.take(slice(start, start + _LOOKED_UP_TOGETHER)), n_threads):
                raise ImageError(_all_known(found, images)) from error
        raise  # it was another image: one that an augmentation made


def _all_known(found: Sequence[UnreadableImage], images: Images) -> str:
    if len(found) == 1:
        return f"{listed(found)}. {FINDER} lists all images that cannot be read."
    at_least = "At least " if len(found) < images.n_in_table else ""
    return f"{listed(found)}. {at_least}{len(found)} of {images.n_in_table} images cannot be read; {FINDER} lists all."


def listed(found: Sequence[UnreadableImage]) -> str:
    """The first ten images with positions, paths and reasons, in a length that fits into a message.

    If there is no room for all reasons, it is that of the first one.
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
    """One image in at most so many characters: the end of its path, and the beginning of the reason."""
    reason = reason and f": {reason}"
    if one.path is None:
        return _cut(f"{noun}{one.position}{reason}", room)
    head, path = f"{noun}{one.position} (", repr(one.path)
    left = max(room - len(head) - min(len(reason), 3 * room // 5) - 1, 16)
    path = path if len(path) <= left else f"'...{path[4 - left :]}"
    return _cut(f"{head}{path}){reason}", room)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
