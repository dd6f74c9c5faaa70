"""Training rows in batches, for torch's DataLoader."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sktl._frozen._activations import Activations
from sktl.exceptions import ImageError

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


class RowDataset(Dataset):
    """Dataset of activations, targets and further columns.

    Parameters
    ----------
    activations : Activations
        Input of the trainable rest.
    y : Tensor of shape (n,) or (n, n_targets)
        Targets.
    **columns : Tensor of shape (n, ...)
        Further columns for the loss, such as ``weight``.
    """

    def __init__(self, activations: Activations, y: torch.Tensor, **columns: torch.Tensor):
        self.activations = activations
        self.y = y
        self.columns = columns
        self.epoch = 0  # selects the augmented views

    def __len__(self) -> int:
        return len(self.activations)

    def __getitems__(self, positions: list[int]) -> Any:
        try:
            return self._batch(positions)
        except ImageError as error:
            if get_worker_info() is None:
                raise
            return error  # raised here, torch would prepend the traceback of the worker

    def _batch(self, positions: list[int]) -> Batch:
        index = torch.as_tensor(positions)
        columns = {name: column[index] for name, column in self.columns.items()}
        return {"x": self.activations.batch(positions, self.epoch), **columns}, self.y[index]

    def __getitem__(self, position: int) -> Any:
        x, y = self._batch([position])
        return {name: column[0] for name, column in x.items()}, y[0]


class _Loader(DataLoader):
    """DataLoader that raises the error of an image that a worker could not read."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, ImageError):
                raise batch
            yield batch


class ShuffledBatches:
    """Batch sampler with a new order in each iteration.

    A last batch of one row is merged with the batch before it. Batch normalization
    cannot train on a single row, and in a small table the row is too valuable to drop.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    batch_size : int
        Number of rows per batch.
    generator : torch.Generator
        Generator of the order.
    """

    def __init__(self, n_rows: int, batch_size: int, generator: torch.Generator):
        self._n_rows = n_rows
        self._batch_size = batch_size
        self._generator = generator

    def __len__(self) -> int:
        n_full, left = divmod(self._n_rows, self._batch_size)
        return max(1, n_full + (left > 1 or (left == 1 and self._batch_size == 1)))

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self._n_rows, generator=self._generator).tolist()
        starts = [self._batch_size * number for number in range(len(self))]
        for start, end in zip(starts, [*starts[1:], self._n_rows], strict=True):
            yield order[start:end]


def shuffled_loader(rows: RowDataset, batch_size: int, generator: torch.Generator, **kwargs: Any) -> DataLoader:
    """Return a loader of training batches in random order."""
    batches: Any = ShuffledBatches(len(rows), batch_size, generator)
    # The loader seeds its workers from this generator, not from torch's global one.
    return _Loader(rows, batch_sampler=batches, collate_fn=_as_it_is, generator=generator, **kwargs)


def ordered_loader(rows: RowDataset, batch_size: int, **kwargs: Any) -> DataLoader:
    """Return a loader of batches for evaluation, in the order of the table."""
    batches: Any = [
        np.arange(start, min(start + batch_size, len(rows))).tolist() for start in range(0, len(rows), batch_size)
    ]
    generator = torch.Generator().manual_seed(0)
    return _Loader(rows, batch_sampler=batches, collate_fn=_as_it_is, generator=generator, **kwargs)


def _as_it_is(batch: Any) -> Any:
    return batch
