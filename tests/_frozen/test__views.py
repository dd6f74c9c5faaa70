"""Activations of views: the same views batched and one by one, view after view, with and without frozen stages."""

import numpy as np
import pytest
import torch

from sktl._frozen import _activations, _views
from sktl._frozen._activations import GivenActivations, fetch_activations
from sktl._frozen._augmentation import make_augmentation
from sktl._frozen._decoder import Decoder
from sktl._frozen._draw_views import VIEW_RECIPES
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import PrefixNetwork
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._frozen._views import RotatedActivations, fetch_rotations, fetch_views
from sktl.backbones import load_backbone
from sktl.exceptions import ImageError, InputError

N = 7


def invert(image):
    return 255 - image


@pytest.fixture
def images(open_images):
    """Seven different small images."""
    coarse = np.random.default_rng(0).integers(0, 256, (N, 10, 15, 3), np.uint8)
    return open_images(coarse.repeat(4, axis=1).repeat(4, axis=2))


def prefix_for(layers=(), *, cache="auto", **preprocessing):
    """A prefix of the small network, for images of 32 pixels with a margin unless something else is said."""
    preprocessing = preprocessing or {"resize_size": 36, "crop_size": 32}
    backbone = load_backbone("sktl_mini", preprocessing=preprocessing)
    return FrozenPrefix(PrefixSpec(backbone, layers, "none"), Runtime(engine="torch", cache=cache, batch_size=1))


def augmentation_of(name, prefix, seed=0):
    return make_augmentation(name, seed=seed, backbone=prefix.spec.backbone)


@pytest.mark.parametrize("name", [*VIEW_RECIPES, "trivial", invert])
@pytest.mark.parametrize("cache", ["auto", None])
def test_views_are_those_of_the_images_one_by_one(images, name, cache):
    """Stored or decoded for each batch, the views of a batch have the bits of `LiveActivations`, view after view."""
    prefix = prefix_for(cache=cache)
    augmentation = augmentation_of(name, prefix)
    views = fetch_views(prefix, images, augmentation, 2)
    alone = fetch_activations(prefix_for(cache=None), images, stored=False, augmentation=augmentation)
    assert len(views) == N
    for epoch, positions in enumerate([[0, 1, 2, 3, 4, 5, 6], np.array([5, 0]), [2]]):
        batch = views.batch(positions, epoch)
        expected = [alone.batch(positions, number) for number in (2 * epoch, 2 * epoch + 1)]
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, torch.cat(expected))
        one = fetch_views(prefix, images, augmentation).batch(positions, epoch)
        assert torch.equal(one, alone.batch(positions, epoch))


@pytest.mark.parametrize("name", VIEW_RECIPES)
def test_the_views_of_a_row_differ_and_a_seed_repeats_them(images, name):
    """The two views, two epochs and two seeds are different images; the same seed gives the same ones."""

    def views(seed=0, epoch=0):
        prefix = prefix_for()
        return fetch_views(prefix, images, augmentation_of(name, prefix, seed), 2).batch(range(N), epoch)

    batch = views()
    assert torch.equal(views(), batch)
    assert not torch.equal(batch[:N], batch[N:])
    if name != "flip":  # has two views in all
        assert all((batch[row] != batch[N + row]).any() for row in range(N))
    for other in (views(seed=1), views(epoch=1), views(epoch=1)[torch.arange(2 * N).roll(N)]):
        assert not torch.equal(other, batch)


def test_equal_images_have_equal_views_wherever_they_are(open_images):
    """A view depends on the content, not on the position: folds and copies share it."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    prefix = prefix_for()
    augmentation = augmentation_of("simclr", prefix)
    batch = fetch_views(prefix, open_images(pixels), augmentation).batch(range(4), 3)
    other = fetch_views(prefix, open_images(pixels[[3, 3, 1]]), augmentation).batch(range(3), 3)
    assert torch.equal(other, batch[[3, 3, 1]])


@pytest.mark.parametrize("name", ["crop_flip", "trivial"])
@pytest.mark.parametrize("cache", ["auto", None])
def test_frozen_stages_take_the_views(images, name, cache):
    """With frozen stages, the rows are what a prefix computes for the same views."""
    prefix = prefix_for(["layer1"], cache=cache)
    augmentation = augmentation_of(name, prefix)
    rows = fetch_views(prefix, images, augmentation, 2).batch([4, 1], 1)
    alone = fetch_activations(prefix_for(["layer1"], cache=None), images, stored=False, augmentation=augmentation)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, torch.cat([alone.batch([4, 1], 2), alone.batch([4, 1], 3)]))


def test_stored_views_are_the_same_views(images):
    """A number of views computed once and cached equals drawing them for each batch."""
    prefix = prefix_for(["layer1"])
    augmentation = augmentation_of("crop_flip", prefix)
    stored = fetch_activations(prefix, images, stored=True, augmentation=augmentation, n_views=2)
    live = fetch_views(prefix, images, augmentation)
    for epoch in range(2):
        assert torch.equal(stored.batch(range(N), epoch), live.batch(range(N), epoch))


@pytest.mark.parametrize(("cache", "n_per_epoch"), [("auto", 0), (None, 2 * N)])
def test_images_are_decoded_once_unless_nothing_may_be_stored(images, monkeypatch, cache, n_per_epoch):
    """With a cache, no epoch decodes an image; with cache=None, each batch does and no table is made."""
    decode, make_table, decoded, tables = Decoder.decode, _activations.RowStore, [], []
    monkeypatch.setattr(Decoder, "decode", lambda self, some: decoded.extend(some) or decode(self, some))
    monkeypatch.setattr(_activations, "RowStore", lambda *args: tables.append(args) or make_table(*args))
    prefix = prefix_for(cache=cache)
    views = fetch_views(prefix, images, augmentation_of("crop_flip", prefix), 2)
    assert len(tables) == (cache is not None)
    decoded.clear()
    for epoch in range(2):
        views.batch(range(N), epoch)
    assert len(decoded) == n_per_epoch


@pytest.mark.parametrize("max_memory", [2**30, 0])
def test_decoded_images_may_lie_in_a_file(images, monkeypatch, max_memory):
    """A table that is too large for memory gives the same views."""
    prefix = prefix_for()
    augmentation = augmentation_of("crop_flip", prefix)
    expected = fetch_views(prefix, images, augmentation).batch(range(N), 0)
    monkeypatch.setattr(_activations, "MEMORY_BYTES", max_memory)
    assert torch.equal(fetch_views(prefix, images, augmentation).batch(range(N), 0), expected)


def test_progress_is_told_while_images_are_decoded(images):
    """Listeners hear of each image once, before the first batch."""
    told, prefix = [], prefix_for()
    fetch_views(prefix, images, augmentation_of("flip", prefix), 2, listeners=[lambda *done: told.append(done)])
    assert told[-1] == (N, N)


def test_workers_draw_on_the_cpu(images, monkeypatch):
    """A worker of a DataLoader cannot use the GPU of its parent."""
    prefix = prefix_for()
    views = fetch_views(prefix, images, augmentation_of("flip", prefix))
    views._device = torch.device("cuda")
    assert views._drawing_device().type == "cuda"
    monkeypatch.setattr(_views, "get_worker_info", object)
    assert views._drawing_device().type == "cpu"
    assert views.batch([0], 0).device.type == "cpu"


@pytest.mark.parametrize("layers", [(), ("layer1",)], ids=["images", "a stage"])
@pytest.mark.parametrize("cache", ["auto", None])
def test_rotations_are_those_of_numpy(images, layers, cache):
    """A batch has the images upright, then all of them turned by 90, by 180 and by 270 degrees."""
    prefix = prefix_for(layers, cache=cache)
    pixels = prefix_for(cache=None).run(images)[0]
    batch = fetch_rotations(prefix, images).batch([6, 2], 0)
    turned = np.concatenate([np.rot90(pixels[[6, 2]], quarters, (1, 2)) for quarters in range(4)])
    if not layers:
        np.testing.assert_array_equal(batch, turned)
    else:
        network = PrefixNetwork(prefix.spec.backbone, layers, "none")
        np.testing.assert_allclose(batch, network(torch.from_numpy(turned))[0], rtol=1e-3, atol=1e-4)


def test_views_may_be_turned(images):
    """With augmentation, the four orientations of a row are those of one view, another one in each epoch."""
    prefix = prefix_for()
    augmentation = augmentation_of("simclr", prefix)
    turned = fetch_rotations(prefix, images, augmentation)
    upright = fetch_views(prefix, images, augmentation)
    for epoch in range(2):
        batch = turned.batch(range(N), epoch)
        assert torch.equal(batch[:N], upright.batch(range(N), epoch))
        assert torch.equal(batch[N : 2 * N], torch.rot90(batch[:N], 1, (1, 2)))


def test_rotations_want_square_images(images):
    """A network that takes other images is refused before anything is decoded."""
    with pytest.raises(InputError, match=r"must be square, but .* 24 x 32 pixels.*crop_size"):
        fetch_rotations(prefix_for(resize_size=32, crop_size=(24, 32)), images)


def test_rotated_activations_turn_what_they_are_given():
    """Any activations of images may be turned."""
    rows = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3)
    turned = RotatedActivations(GivenActivations(rows))
    assert len(turned) == 1
    assert torch.equal(turned.batch([0], 0)[2:3], rows.flip(1, 2))


def test_an_unreadable_image_is_named(tmp_path, paths, open_images):
    """An image that became unreadable after it was checked is an error that names the file."""
    prefix = prefix_for(cache=None)
    views = fetch_views(prefix, open_images(paths), augmentation_of("crop_flip", prefix), 2)
    open(paths[3], "wb").close()
    with pytest.raises(ImageError, match=r"03\.jpg"):
        views.batch([1, 3], 0)
