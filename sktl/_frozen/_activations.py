"""Activations: the output of a frozen prefix, batch by batch, as input of the rest.

Frozen stages return the same output for the same pixels, so it is computed once and
stored if possible (`stored`). If the pixels change in each epoch or nothing may be
stored, it is computed again for every batch (`live`).
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
    """Return one GiB, or an eighth of the memory of the machine if that is less."""
    limit = 2**30
    try:
        return min(limit, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
    except (AttributeError, ValueError, OSError):  # not available on Windows
        return limit


MEMORY_BYTES = _default_memory()  # size of the largest table kept in memory
# EDQUOT does not exist on Windows.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Augmentation(Protocol):
    """Random transformation of a table of images, different in each epoch."""

    def augmented(self, images: Images, epoch: int) -> Sequence[TableImage]:
        """Return the images as augmented in an epoch.

        An augmented image depends on the content of that image, not on the others.
        """


class Activations(Protocol):
    """Output of a frozen prefix for a table of images."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """Return the rows of some images in an epoch (0, 1, ...).

        The dtype is float32, or uint8 if no stage is frozen.
        """


def fetch_activations(
    prefix: FrozenPrefix,
    images: Images,
    *,
    stored: bool,
    augmentation: "Augmentation | None" = None,
    n_views: "int | None" = None,
    listeners: Sequence[Progress] = (),
) -> Activations:
    """Compute the output of a frozen prefix for all images, now or for every batch.

    Parameters
    ----------
    prefix : FrozenPrefix
        A prefix with one layer, or without layers, which returns the images. With
        ``stored=False`` it should have ``cache=None``, because augmented images do not
        recur.
    images : Images
        The images.
    stored : bool
        Whether to compute the output once, now, and keep it as long as the returned
        object.
    augmentation : Augmentation or None, default=None
        Augmentation of the images.
    n_views : int or None, default=None
        Number of augmented views of each image; epoch ``e`` uses view ``e % n_views``.
        It should not exceed the number of epochs. None uses a new view in each epoch
        and requires ``stored=False``.
    listeners : sequence of callable, default=()
        Functions called as ``listener(n_done, n_rows)`` while rows are stored.

    Raises
    ------
    ImageError
        If an image cannot be read.
    OSError
        If the rows fit neither into memory nor on the disk.
    """
    if not stored:
        return LiveActivations(prefix, images, augmentation, n_views)
    return StoredActivations(prefix, images, augmentation=augmentation, n_views=n_views, listeners=listeners)


class StoredActivations:
    """Activations computed once, on construction.

    Parameters
    ----------
    prefix, images, augmentation, n_views, listeners
        See `fetch_activations`.
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
            raise InputError(
                "augmentation and n_views must be set together. "
                f"Got augmentation={augmentation!r} and n_views={n_views!r} instead."
            )
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
        """Return the rows of some images in an epoch."""
        first = epoch % self._n_views * self._n_images
        return torch.from_numpy(self._store.take(first + np.asarray(positions)))


class LiveActivations:
    """Activations computed for each batch and not stored.

    Parameters
    ----------
    prefix, images, augmentation, n_views
        See `fetch_activations`.
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
        """Compute the rows of some images in an epoch."""
        images: Any = self._images.take(np.asarray(positions))
        if self._augmentation is not None:
            view = epoch if self._n_views is None else epoch % self._n_views
            images = self._augmentation.augmented(images, view)
        with naming_others(self._images, self._prefix.n_threads):
            return torch.from_numpy(self._prefix.run(images)[0])


class GivenActivations:
    """Activations that exist already.

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
        """Return the rows of some images, the same in each epoch."""
        return self._rows[torch.as_tensor(positions)]


class _Views(Sequence[TableImage]):
    """Concatenation of tables of equal length."""

    def __init__(self, tables: Sequence[Sequence[TableImage]]):
        self._tables = tables

    def __len__(self) -> int:
        return len(self._tables) * len(self._tables[0])

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        table, position = divmod(range(len(self))[index], len(self._tables[0]))
        return self._tables[table][position]

    def digest(self, index: int) -> bytes:
        """Return the digest of a view of an image."""
        return self[index].digest


class RowStore:
    """Table that is filled row by row, in memory if it is small and on disk otherwise.

    The file is temporary and has no name, so nothing remains after a crash. Rows are
    read, not memory-mapped: mapped pages count as memory of the process, and a
    container would kill it.

    Parameters
    ----------
    shape : tuple of int
        Shape of the table. The first axis is the rows.
    dtype : dtype-like
        Type of the values.
    max_memory : int or None, default=None
        Size in bytes of the largest table to keep in memory. None uses
        ``MEMORY_BYTES``.

    Raises
    ------
    OSError
        If the disk is too small for the table: at once if the system can reserve space,
        otherwise when a row is written.
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
            "A RowStore cannot be pickled, because its temporary file cannot be opened by other processes. Exclude it "
            "from objects that are pickled or sent to workers."
        )

    def __setitem__(self, position: int, row: Any) -> None:
        position = range(len(self))[position]
        if self.in_memory:
            self._array[position] = row
            return
        values = np.ascontiguousarray(np.broadcast_to(row, self.shape[1:]), self.dtype)
        self._write(values.reshape(-1).view(np.uint8).data, position * self._row_bytes)

    def take(self, positions: Positions) -> np.ndarray:
        """Return a copy of the rows at ``positions``.

        Parameters
        ----------
        positions : array-like of int
            Nonnegative positions, in any order and possibly repeated.

        Returns
        -------
        ndarray of shape (len(positions), *shape[1:])

        Raises
        ------
        IndexError
            If a position is out of range.
        """
        indices = np.asarray(positions, np.intp)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"Positions {indices.min()} to {indices.max()} are out of bounds for a table of {len(self)} rows."
            )
        if self.in_memory:
            return self._array[indices]
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for row, index in zip(rows, indices.tolist(), strict=True):
            row[...] = np.frombuffer(self._read(index * self._row_bytes), self.dtype).reshape(self.shape[1:])
        return rows

    def _open(self) -> None:
        """Create the file in its final size and reserve its space if possible."""
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
                # Else the file system cannot reserve space: `_write` reports a
                # full disk.

    def _read(self, offset: int) -> bytes:
        if hasattr(os, "pread"):  # ignores the file offset, which forked workers share
            return os.pread(self._file.fileno(), self._row_bytes, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(self._row_bytes)

    def _write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``; a nearly full disk may accept only a part at first."""
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
            "enough free space, pass cache=None to store nothing, or freeze more stages: a larger freeze_depth usually "
            "gives smaller outputs",
        ) from error
