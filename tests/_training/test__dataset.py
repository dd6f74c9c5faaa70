"""Rows and batches: every row once per epoch, in an order that one generator decides."""

import pickle

import numpy as np
import pytest
import torch

from sktl._training._dataset import RowDataset, ShuffledBatches, ordered_loader, shuffled_loader


class Table:
    """Row i is i + 100 * epoch."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def batch(self, positions, epoch):
        return torch.as_tensor(positions)[:, None].float() + 100 * epoch


def rows(n):
    return RowDataset(
        Table(n), torch.arange(n) + 1000, weight=torch.arange(n) / 2, other=torch.arange(2 * n).reshape(n, 2)
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


SIZES = [(n, size) for n in (1, 2, 3, 4, 5, 7, 8, 9, 33) for size in (1, 2, 4, 8, 50)]


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_each_row_once_and_no_batch_of_one(n, size):
    """An epoch has every row once, in batches of that size; only the last differs, and never has one row of many."""
    batches = ShuffledBatches(n, size, generator())
    for _ in range(2):
        epoch = list(batches)
        lengths = [len(batch) for batch in epoch]
        assert sorted(position for batch in epoch for position in batch) == list(range(n))
        assert len(batches) == len(lengths)
        assert all(length == size for length in lengths[:-1])
        assert lengths[-1] <= size + 1
        if size > 1 and n > 1:
            assert lengths[-1] > 1


def test_orders_differ_and_are_reproducible():
    """Each epoch has an order of its own, the same for the same seed."""
    first, again, other = (ShuffledBatches(50, 8, generator(seed)) for seed in (1, 1, 2))
    epochs = [list(first), list(first)]
    assert epochs[0] != epochs[1]
    assert epochs == [list(again), list(again)]
    assert epochs[0] != list(other)


def test_batches_hold_what_is_known_of_their_rows():
    """Activations of the present epoch, targets and all columns belong to the same rows, one by one as well."""
    table = rows(9)
    table.epoch = 3
    x, y = table.__getitems__([4, 1])
    assert x.keys() == {"x", "weight", "other"}
    assert x["x"].tolist() == [[304.0], [301.0]]
    assert x["weight"].tolist() == [2.0, 0.5]
    assert x["other"].tolist() == [[8, 9], [2, 3]]
    assert y.tolist() == [1004, 1001]
    one, target = table[4]
    assert {name: column.tolist() for name, column in one.items()} == {"x": [304.0], "weight": 2.0, "other": [8, 9]}
    assert target == 1004


@pytest.mark.parametrize("n_workers", [0, 1])
def test_loaders(n_workers):
    """One loader shuffles as its generator says, the other keeps the order; neither draws from a global generator."""
    kwargs = {"num_workers": n_workers, "multiprocessing_context": "fork"} if n_workers else {}
    torch_state, numpy_state = torch.get_rng_state(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    shuffled = [shuffled_loader(rows(9), 4, generator(), **kwargs) for _ in range(2)]
    orders = [[[y.tolist() for _, y in loader] for _ in range(2)] for loader in shuffled]
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert [len(batch) for batch in orders[0][0]] == [4, 5]
    ordered = ordered_loader(rows(9), 4, **kwargs)
    assert len(ordered) == 3
    assert [(x["x"].flatten().tolist(), y.tolist()) for x, y in ordered] == [
        ([float(i) for i in part], [1000 + i for i in part]) for part in (range(4), range(4, 8), range(8, 9))
    ]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert pickle.dumps(np.random.get_state()) == numpy_state  # noqa: NPY002
