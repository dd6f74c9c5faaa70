"""What the trainable rest of a network learns from: the output of its frozen prefix, batch by batch.

Frozen stages give the same output for the same pixels, so it is computed once and kept where that can be (`stored`), or
again for every batch where the pixels change from epoch to epoch or there is no room (`live`).
"""

import contextlib
import errno
import math
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._progress import Progress
from sktl._images import Images, TableImage, naming_others
from sktl._locks import Lock
from sktl.exceptions import InputError

Positions = Sequence[int] | np.ndarray


def _default_memory() -> int:
    """One GiB, or an eighth of the machine's memory where that is less."""
    limit = 2**30
    try:
        return min(limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
    except (AttributeError, ValueError, OSError):  # Windows does not say
        return limit


MEMORY_BYTES = _default_memory()  # the largest table that lies in memory
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows knows no quota


class Augmentation(Protocol):
    """What makes a table of other images out of a table of images, other ones in each epoch."""

    def augmented(self, images: Images, epoch: int) -> Sequence[TableImage]:
        """The images as they look in one epoch, which each image's own content decides."""


class Activations(Protocol):
    """The output of a frozen prefix for a table of images."""

    def __len__(self) -> int:
        """The number of images."""

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """The rows of some images in one epoch (0, 1, ...); float32, or uint8 where no stage is frozen."""


def fetch_activations(
    prefix: FrozenPrefix,
    images: Images,
    *,
    stored: bool,
    augmentation: "Augmentation | None" = None,
    n_views: "int | None" = None,
    listeners: Sequence[Progress] = (),
) -> Activations:
    """The output of a frozen prefix for all images: computed now and kept, or computed for every batch.

    Parameters
    ----------
    prefix : FrozenPrefix
        With one layer, or with none, which gives the images themselves. For ``stored=False`` it should have
        ``cache=None``: nobody asks a second time for what an augmented image gave.
    images : Images
        The images.
    stored : bool
        Whether the output is computed now, once, and kept while this object lives.
    augmentation : Augmentation or None, default=None
        What changes the images.
    n_views : int or None, default=None
        How many augmented views of each image there are; epoch ``e`` uses view ``e % n_views``. More views than
        epochs are work for nothing. None is another view in each epoch, and only for what is not stored.
    listeners : sequence of callable, default=()
        Each is called as ``listener(n_done, n_rows)`` while rows are computed to be stored.

    Raises
    ------
    ImageError
        Where an image cannot be read.
    OSError
        Where the rows are too many for the memory and for the disk.
    """
    if not stored:
        return LiveActivations(prefix, images, augmentation, n_views)
    return StoredActivations(prefix, images, augmentation=augmentation, n_views=n_views, listeners=listeners)


class StoredActivations:
    """Rows that are computed once, when this is made.

    Parameters
    ----------
    prefix, images, augmentation, n_views, listeners
        As in `fetch_activations`.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        images: Images,
        *,
        augmentation: "Augmentation | None" = None,
        n_views: "int | None" = None,
        listeners: Sequence[Progress] = (),
    ):
        if (augmentation is None) != (n_views is None):
            raise InputError(f"Stored views need both: augmentation={augmentation!r} and n_views={n_views!r}.")
        self._n_images = len(images)
        self._n_views = n_views or 1
        rows: Any = images
        if augmentation is not None:
            rows = _Views([augmentation.augmented(images, view) for view in range(self._n_views)])
        (shape,) = prefix.shapes
        self._store = RowStore((len(rows), *shape), prefix.dtype)
        with naming_others(images, prefix.n_threads) if augmentation is not None else contextlib.nullcontext():
            prefix.run(rows, listeners, out=[self._store])

    def __len__(self) -> int:
        return self._n_images

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """The rows of some images in one epoch."""
        first = epoch % self._n_views * self._n_images
        return torch.from_numpy(self._store.take(first + np.asarray(positions)))


class LiveActivations:
    """Rows that are computed when they are asked for; nothing is kept.

    Parameters
    ----------
    prefix, images, augmentation, n_views
        As in `fetch_activations`.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        images: Images,
        augmentation: "Augmentation | None" = None,
        n_views: "int | None" = None,
    ):
        self._prefix = prefix
        self._images = images
        self._augmentation = augmentation
        self._n_views = n_views

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """The rows of some images in one epoch."""
        images: Any = self._images.take(np.asarray(positions))
        if self._augmentation is not None:
            view = epoch if self._n_views is None else epoch % self._n_views
            images = self._augmentation.augmented(images, view)
        with naming_others(self._images, self._prefix.n_threads):
            return torch.from_numpy(self._prefix.run(images)[0])


class GivenActivations:
    """Rows that somebody has already.

    Parameters
    ----------
    rows : Tensor of shape (n_images, ...)
        The rows.
    """

    def __init__(self, rows: torch.Tensor):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """The rows of some images, the same in each epoch."""
        return self._rows[torch.as_tensor(positions)]


class _Views(Sequence[TableImage]):
    """Several tables of equal length, one after the other."""

    def __init__(self, tables: Sequence[Sequence[TableImage]]):
        self._tables = tables

    def __len__(self) -> int:
        return len(self._tables) * len(self._tables[0])

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        table, position = divmod(range(len(self))[index], len(self._tables[0]))
        return self._tables[table][position]

    def digest(self, index: int) -> bytes:
        """Of one view of an image."""
        return self[index].digest


class RowStore:
    """A table that is filled row by row: an array while it is small, a temporary file where it is large.

    The file has no name, so that nothing is left behind however the process ends. Rows are read by position and not
    mapped into memory: mapped pages would count as memory of the process, and a job in a container would be killed.

    Parameters
    ----------
    shape : tuple of int
        Shape of the table, the first axis the rows.
    dtype : dtype-like
        Type of its values.
    max_memory : int or None, default=None
        The largest table that lies in memory, in bytes; None takes ``MEMORY_BYTES``.

    Raises
    ------
    OSError
        Where the disk has no room for the table: at once where the system can tell, else when a row is written.
    """

    def __init__(self, shape: Sequence[int], dtype: Any, *, max_memory: "int | None" = None):
        self.shape = tuple(int(length) for length in shape)
        self.dtype = np.dtype(dtype)
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.nbytes = self.shape[0] * self._row_bytes
        self.in_memory = self.nbytes <= (MEMORY_BYTES if max_memory is None else max_memory)
        if self.in_memory:
            self._array = np.zeros(self.shape, self.dtype)
        else:
            self._lock = Lock()
            self._open()

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A RowStore cannot be pickled: it may lie in a file that no other process can open, and it lives during "
            "one fit. Keep it out of what is pickled or sent to a worker."
        )

    def __setitem__(self, position: int, row: Any) -> None:
        position = range(len(self))[position]
        if self.in_memory:
            self._array[position] = row
            return
        values = np.ascontiguousarray(np.broadcast_to(row, self.shape[1:]), self.dtype)
        self._write(values.reshape(-1).view(np.uint8).data, position * self._row_bytes)

    def take(self, positions: Positions) -> np.ndarray:
        """A copy of the rows at ``positions``, which count from the start.

        Parameters
        ----------
        positions : array-like of int
            Any order, repeats allowed.

        Returns
        -------
        ndarray of shape (len(positions), *shape[1:])

        Raises
        ------
        IndexError
            Where a position is not in the table.
        """
        indices = np.asarray(positions, np.intp)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"Positions {indices.min()} to {indices.max()} are not all in a table of {len(self)} rows."
            )
        if self.in_memory:
            return self._array[indices]
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for row, index in zip(rows, indices.tolist(), strict=True):
            row[...] = np.frombuffer(self._read(index * self._row_bytes), self.dtype).reshape(self.shape[1:])
        return rows

    def _open(self) -> None:
        """Make the file, as long as it is going to be and with its room on the disk, where the system reserves it."""
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, it lives as long as this object
            weakref.finalize(self, self._file.close)
            self._file.truncate(self.nbytes)
        except OSError as error:
            self._say_full(error)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file.fileno(), 0, self.nbytes)
            except OSError as error:
                if error.errno in _FULL:
                    self._say_full(error)
                # else this file system reserves nothing, and a row that finds no room says so

    def _read(self, offset: int) -> bytes:
        if hasattr(os, "pread"):  # a forked worker shares the file's place, which pread does not use
            return os.pread(self._file.fileno(), self._row_bytes, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(self._row_bytes)

    def _write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``; a disk that gets full takes a part first and refuses the next one."""
        try:
            while data:
                n_written = self._write_some(data, offset)
                data, offset = data[n_written:], offset + n_written
        except OSError as error:
            self._say_full(error)

    def _write_some(self, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), data, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.write(data)

    def _say_full(self, error: OSError) -> NoReturn:
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno or 0)}: the output of the frozen stages needs {self.nbytes:,} bytes in the "
            f"temporary directory {tempfile.gettempdir()!r}. Set the environment variable TMPDIR to a directory with "
            "that much room, pass cache=None, with which nothing is stored, or freeze more: a deeper freeze_depth "
            "mostly gives smaller rows",
        ) from error
