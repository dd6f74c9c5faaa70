"""The tables that a pass fills in, and whoever is told of it."""

from collections.abc import Iterable, Sequence

import numpy as np

from sktl._frozen._progress import Progress
from sktl._frozen._spec import PrefixSpec
from sktl.exceptions import InputError


class OutputTables:
    """One table for each output of a prefix, with a row for each image.

    Parameters
    ----------
    spec : PrefixSpec
        Whose outputs they are.
    n_images : int
        How many rows they have.
    out : list of array-like or None, default=None
        Tables that somebody has already, instead of new arrays.
    listeners : sequence of callable, default=()
        Each is called as ``listener(n_done, n_images)``.

    Raises
    ------
    InputError
        If ``out`` is of other shapes.
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
            raise InputError(f"out has the shapes {[tuple(table.shape) for table in out]}, but needs {wanted}.")
        self.tables = out

    def fill(self, positions: Iterable[int], rows: Sequence[np.ndarray]) -> None:
        """Write the rows of one image, which stands at several positions if there are copies of it."""
        for position in positions:
            for table, row in zip(self.tables, rows, strict=False):  # a search computes more than is asked for
                table[position] = row
            self._is_done[position] = True

    def fill_with(self, value: float, positions: Iterable[int]) -> None:
        """Write one number into the rows of images that there is nothing of; they do not count as done."""
        for table, shape in zip(self.tables, self._spec.shapes, strict=True):
            for position in positions:
                table[position] = np.full(shape, value, self._spec.dtype)

    def is_done(self, position: int) -> bool:
        """Whether an image's rows are filled in."""
        return bool(self._is_done[position])

    def tell(self, n_done: "int | None" = None) -> None:
        """Tell the listeners how far the pass is, each number once.

        Parameters
        ----------
        n_done : int or None, default=None
            How many images nothing more is done for; None counts those whose rows are filled in.
        """
        n_done = int(self._is_done.sum()) if n_done is None else n_done
        if n_done > self._n_told:
            self._n_told = n_done
            for listener in self._listeners:
                listener(n_done, len(self._is_done))
