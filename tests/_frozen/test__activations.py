"""What a network's rest learns from: the prefix's rows, stored or live, in memory or in a file."""

import errno
import gc
import os
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sktl._frozen import _activations
from sktl._frozen._activations import GivenActivations, RowStore, fetch_activations
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import ImageFormat, Images, TableImage
from sktl.backbones import load_backbone

SHAPE = (6, 2, 5)


@pytest.fixture(params=["memory", "file", "file without pread"])
def store(request, monkeypatch):
    """An empty table, wherever it may lie."""
    if request.param == "file without pread":
        for name in ("pread", "pwrite", "posix_fallocate"):
            monkeypatch.delattr(os, name, raising=False)
    store = RowStore(SHAPE, np.float32, max_memory=None if request.param == "memory" else 0)
    assert store.in_memory == (request.param == "memory")
    return store


def test_rows_come_back_in_any_order_and_number(store):
    """What is written at a position is read at that position, whichever positions are asked for together."""
    table = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for position in (3, 1, 0, 5, 2, 4):
        store[position] = table[position]
    wanted = np.array([4, 4, 0, 5])
    taken = store.take(wanted)
    np.testing.assert_array_equal(taken, table[wanted])
    assert taken.dtype == store.dtype == np.float32
    assert (store.shape, len(store), store.nbytes) == (SHAPE, 6, table.nbytes)
    assert store.take([]).shape == (0, 2, 5)
    taken[:] = 0  # a copy, which the caller may change
    np.testing.assert_array_equal(store.take(torch.arange(6)), table)


def test_rows_are_converted_and_broadcast_as_an_array_does(store):
    """A row of another dtype, a view that is not contiguous and a single NaN are stored as NumPy would store them."""
    expected = np.zeros(SHAPE, np.float32)
    rows = [np.arange(10).reshape(2, 5), np.arange(10.0).reshape(5, 2).T, np.nan]
    for position, row in enumerate(rows):
        store[position] = row
        expected[position] = row
    np.testing.assert_array_equal(store.take(range(6)), expected)


def test_positions_and_shapes_that_do_not_fit_are_refused(store):
    """Nothing is written or read outside the table."""
    with pytest.raises(IndexError):
        store[6] = 0
    with pytest.raises(IndexError, match="table of 6 rows"):
        store.take([0, 6])
    with pytest.raises(IndexError, match="table of 6 rows"):
        store.take([-1])
    with pytest.raises(ValueError, match="broadcast"):
        store[0] = np.zeros((3, 5))


def test_threads_may_fill_and_read_at_once(store):
    """Rows that many threads write and read at the same time do not get mixed up."""

    def work(position):
        for value in range(50):
            store[position] = 100 * position + value
            assert (store.take([position]) == 100 * position + value).all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_the_file_has_no_name_and_goes_with_the_table(tmp_path, monkeypatch):
    """Neither a living nor a collected table leaves anything in the temporary directory, nor a warning."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = RowStore(SHAPE, np.uint8, max_memory=0)
    file = store._file
    assert list(tmp_path.iterdir()) == []
    del store
    gc.collect()
    assert file.closed


def test_the_limit_is_a_constant_of_the_module(monkeypatch):
    """A table as large as the limit lies in memory, one byte more sends it to the disk."""
    monkeypatch.setattr(_activations, "MEMORY_BYTES", 100)
    assert RowStore((10, 10), np.uint8).in_memory
    assert not RowStore((101,), np.uint8).in_memory


def test_a_table_is_not_pickled(store):
    """A table sent to another process is refused in words, not with a missing file."""
    with pytest.raises(TypeError, match="RowStore cannot be pickled"):
        pickle.dumps(store)


@pytest.mark.parametrize("name", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_said_with_the_way_out(name, monkeypatch):
    """Whether the system notices at once or at a row, the error says how much is needed, where, and what else to do."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full, raising=False)
    with pytest.raises(OSError, match=r"needs 1,000 bytes") as caught:
        RowStore((10, 100), np.uint8, max_memory=0)[0] = 0
    assert caught.value.errno == errno.ENOSPC
    for word in (tempfile.gettempdir(), "TMPDIR", "cache=None", "freeze_depth"):
        assert word in str(caught.value)


def test_a_file_system_that_reserves_nothing_is_no_fault(monkeypatch):
    """Where room cannot be reserved, the table is filled all the same."""

    def unsupported(*args):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    store = RowStore(SHAPE, np.uint8, max_memory=0)
    store[5] = 7
    assert (store.take([5]) == 7).all()


def test_a_row_written_in_parts_is_whole(monkeypatch):
    """A system that takes a row in several pieces loses nothing."""
    if not hasattr(os, "pwrite"):
        pytest.skip("this system has no pwrite")
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:3], offset))
    store = RowStore((2, 10), np.uint8, max_memory=0)
    store[1] = np.arange(10)
    np.testing.assert_array_equal(store.take([1])[0], np.arange(10))


class Darkened(TableImage):
    def __init__(self, picture, epoch):
        self._picture, self._epoch = picture, epoch

    @property
    def digest(self):
        return self._picture.digest[1:] + bytes([self._epoch])

    def decode(self):
        return self._picture.decode() // (self._epoch + 1)


class Darken:
    """A stand-in for augmentation: epoch ``e`` divides all values by ``e + 1``."""

    def augmented(self, images, epoch):
        return [Darkened(images[index], epoch) for index in range(len(images))]


N_PICTURES = 5


@pytest.fixture
def images():
    """Five different small pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (N_PICTURES, 40, 40, 3), np.uint8)
    return Images(pixels, ImageFormat(kind="batch", channels="last", value_range=(0, 255)), 3)


def frozen(layers=("layer1",), **settings):
    spec = PrefixSpec(load_backbone("sktl_mini"), layers, "none")
    return FrozenPrefix(spec, Runtime(**{"engine": "torch", "cache": None, **settings}))


@pytest.fixture(params=["memory", "file"])
def place(request, monkeypatch):
    """Where stored rows lie."""
    if request.param == "file":
        monkeypatch.setattr(_activations, "MEMORY_BYTES", 0)


@pytest.mark.parametrize("layers", [("layer1",), ()], ids=["a stage", "pictures"])
def test_stored_and_live_rows_are_the_prefix_s_own(images, layers, place):
    """In any order and epoch, both give what the prefix gives; with nothing frozen that is the pixels, as bytes."""
    prefix = frozen(layers)
    expected = prefix.run(images)[0]
    for stored in (True, False):
        activations = fetch_activations(prefix, images, stored=stored)
        assert len(activations) == N_PICTURES
        for epoch, positions in enumerate([[0, 1, 2, 3, 4], np.array([3, 0]), [2]]):
            batch = activations.batch(positions, epoch)
            assert isinstance(batch, torch.Tensor)
            assert batch.dtype == (torch.float32 if layers else torch.uint8)
            np.testing.assert_allclose(batch, expected[positions], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [("layer1",), ()], ids=["a stage", "pictures"])
def test_a_view_for_each_epoch_is_live_augmentation(images, layers, place):
    """With as many stored views as epochs, both ways give the same batches; with fewer, the views come round again."""
    prefix = frozen(layers, batch_size=1)  # the size of a batch moves the last bit
    live = fetch_activations(prefix, images, stored=False, augmentation=Darken())
    stored = fetch_activations(prefix, images, stored=True, augmentation=Darken(), n_views=3)
    assert len(stored) == len(live) == N_PICTURES
    for epoch in range(3):
        positions = np.random.default_rng(epoch).permutation(N_PICTURES)
        batch = stored.batch(positions, epoch)
        assert torch.equal(batch, live.batch(positions, epoch))
        assert torch.equal(batch, stored.batch(positions, epoch + 3))
        assert not torch.equal(batch, stored.batch(positions, epoch + 1))


def test_stored_rows_are_computed_once_and_told_of(images):
    """Listeners hear of every row of every view while rows are stored, and of nothing afterwards."""
    told = []
    stored = fetch_activations(
        frozen(), images, stored=True, augmentation=Darken(), n_views=2, listeners=[lambda *done: told.append(done)]
    )
    assert told[-1] == (2 * N_PICTURES, 2 * N_PICTURES)
    n_told = len(told)
    stored.batch([0, 1], 0)
    assert len(told) == n_told


def test_views_that_are_half_described_are_refused(images):
    """Augmentation without a number of views would store the same view for all epochs: it has to be asked for."""
    with pytest.raises(ValueError, match="n_views"):
        fetch_activations(frozen(), images, stored=True, augmentation=Darken())


@pytest.mark.parametrize("layers", [("layer1",), ()], ids=["a stage", "pictures"])
def test_live_views_come_round_as_stored_ones_do(images, layers):
    """Two views over four epochs are the same batches, whether they are stored or computed each time."""
    prefix = frozen(layers, batch_size=1)  # the size of a batch moves the last bit
    live, stored = (
        fetch_activations(prefix, images, stored=stored, augmentation=Darken(), n_views=2) for stored in (False, True)
    )
    batches = [live.batch([4, 0, 2], epoch) for epoch in range(4)]
    for epoch, batch in enumerate(batches):
        assert torch.equal(batch, stored.batch([4, 0, 2], epoch))
    assert torch.equal(batches[0], batches[2])
    assert not torch.equal(batches[0], batches[1])


def test_given_rows_are_the_same_in_each_epoch():
    """What somebody has already comes back by position, in any order, repeats too."""
    rows = torch.arange(12.0).reshape(4, 3)
    given = GivenActivations(rows)
    assert len(given) == 4
    for epoch in range(2):
        for positions in ([3, 0, 0], np.array([3, 0, 0])):
            assert torch.equal(given.batch(positions, epoch), rows[[3, 0, 0]])
