"""Output tables of a pass, and its progress reports."""

from collections.abc import Iterable, Sequence

import numpy as np

from sktl._frozen._progress import Progress
from sktl._frozen._spec import PrefixSpec
from sktl.exceptions import InputError


class OutputTables:
    """Tables of a prefix, one for each output, with a row for each image.

    Parameters
    ----------
    spec : PrefixSpec
        The prefix.
    n_images : int
        Number of rows.
    out : list of array-like or None, default=None
        Existing tables to fill instead of new arrays.
    listeners : sequence of callable, default=()
        Functions called as ``listener(n_done, n_images)``.

    Raises
    ------
    InputError
        If the shapes of ``out`` do not match.
    """

    def __init__(self, spec: PrefixSpec, n_images: int, out: "list | None" = None, listeners: Sequence[Progress] = ()):
        self._spec = spec
        self._listeners = listeners
        self._is_done = np.zeros(n_images, bool)
        self._n_told = 0
        wanted = [(n_images, *shape) for shape in spec.shapes]
        if out is None:
            out = [np.empty(shape, spec.dtype) for shape in wanted]
        elif [tuple(table.shape) for table in out] != wanted:
            raise InputError(f"out must have the shapes {wanted}. Got {[tuple(table.shape) for table in out]} instead.")
        self.tables = out

    def fill(self, positions: Iterable[int], rows: Sequence[np.ndarray]) -> None:
        """Write the rows of an image to its positions, several if it has copies."""
        for position in positions:
            # Not strict, because a search computes extra layers.
            for table, row in zip(self.tables, rows, strict=False):
                table[position] = row
            self._is_done[position] = True

    def fill_with(self, value: float, positions: Iterable[int]) -> None:
        """Fill the rows of unreadable images; they do not count as done."""
        for table, shape in zip(self.tables, self._spec.shapes, strict=True):
            for position in positions:
                table[position] = np.full(shape, value, self._spec.dtype)

    def is_done(self, position: int) -> bool:
        """Check whether the rows of an image are filled."""
        return bool(self._is_done[position])

    def tell(self, n_done: "int | None" = None) -> None:
        """Report progress to the listeners, each number once.

        Parameters
        ----------
        n_done : int or None, default=None
            Number of images that are finished. None counts the filled rows.
        """
        n_done = int(self._is_done.sum()) if n_done is None else n_done
        if n_done > self._n_told:
            self._n_told = n_done
            for listener in self._listeners:
                listener(n_done, len(self._is_done))
