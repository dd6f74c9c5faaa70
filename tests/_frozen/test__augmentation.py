"""Augmentation: random pictures that are the same each time, and global generators that nobody notices."""

import copy
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils._param_validation import validate_parameter_constraints
from torchvision import tv_tensors
from torchvision.transforms import v2

from sktl._frozen._activations import fetch_activations
from sktl._frozen._augmentation import AUGMENT_CONSTRAINTS, RECIPES, Augmentation, _crop_flip, make_augmentation
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import ImageFormat, Images, TableImage
from sktl.backbones import load_backbone

N_PICTURES = 6


def pictures(n_channels=3, n=N_PICTURES, shape=(40, 60)):
    """Different pictures, smooth enough that resizing does not make them grey."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, shape[0] // 4, shape[1] // 4, n_channels), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def table(pixels):
    return Images(pixels, ImageFormat(kind="batch", channels="last", value_range=(0, 255)), pixels.shape[-1])


@pytest.fixture
def images():
    return table(pictures())


def decoded(images):
    return [images[index].decode() for index in range(len(images))]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def recipe(name, seed=0, in_channels=3, **preprocessing):
    backbone = load_backbone("sktl_mini", in_channels=in_channels, preprocessing=preprocessing or None)
    return make_augmentation(name, seed=seed, backbone=backbone)


def draw_from_all(picture):
    """A transform that draws from each of the global generators."""
    noise = np.random.randint(0, 256) + random.randint(0, 255) + torch.randint(256, ()).item()  # noqa: NPY002
    return picture + noise


@pytest.mark.parametrize("augment", [*RECIPES, draw_from_all, v2.ColorJitter(0.5)])
def test_pictures_depend_on_seed_content_and_epoch_alone(images, augment):
    """The same views come in any order, from any thread and any table; another seed or epoch gives other ones."""
    augmentation = recipe(augment)
    expected = decoded(augmentation.augmented(images, 1))
    with ThreadPoolExecutor(4) as pool:
        table = augmentation.augmented(images, 1)
        assert equal(pool.map(lambda index: table[index].decode(), reversed(range(N_PICTURES))), expected[::-1])
    assert equal(decoded(augmentation.augmented(images.take([4, 1]), 1)), [expected[4], expected[1]])
    assert equal(decoded(recipe(augment).augmented(images, 1)), expected)
    assert not equal(decoded(augmentation.augmented(images, 2)), expected)
    assert not equal(decoded(recipe(augment, seed=1).augmented(images, 1)), expected)


@pytest.mark.parametrize("augment", [*RECIPES, draw_from_all])
def test_digests_stand_for_the_pixels(images, augment):
    """Equal views have equal digests and different ones different ones, whether or not they were decoded before."""
    for epoch in range(2):
        views = [recipe(augment).augmented(images, epoch)[index] for index in range(N_PICTURES)]
        again = recipe(augment).augmented(images, epoch)
        pixels = [view.decode().tobytes() for view in views]
        assert [view.digest for view in views] == [again[index].digest for index in range(N_PICTURES)]
        assert {len(view.digest) for view in views} == {16}
        assert len({view.digest for view in views}) == len(set(pixels))
    first, second = (recipe(augment).augmented(images, epoch)[0] for epoch in range(2))
    assert (first.digest == second.digest) <= np.array_equal(first.decode(), second.decode())


def test_a_recipe_s_digest_names_the_recipe(images):
    """Recipes, seeds and scales do not share digests, and none is the digest of the picture itself."""
    tables = [recipe(name).augmented(images, 0) for name in RECIPES]
    tables += [recipe("flip", seed=1).augmented(images, 0), recipe("flip", resize_size=50).augmented(images, 0)]
    assert len({table[0].digest for table in [*tables, images]}) == len(tables) + 1


def test_a_recipe_s_digest_needs_no_decoding(images, monkeypatch):
    """A view of a recipe that is in the cache costs neither decoding nor transforming."""
    monkeypatch.setattr(Augmentation, "apply", None)
    assert recipe("trivial").augmented(images, 0)[0].digest


def global_state():
    return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002


def fail(picture):
    draw_from_all(picture)
    raise RuntimeError("no")


def test_global_generators_are_left_as_they_were(images):
    """Whether the transform works or fails, nobody's random numbers change, and theirs do not change the views."""
    augmentation = Augmentation(draw_from_all, 0)
    expected = decoded(augmentation.augmented(images, 0))
    torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    before = global_state()
    assert equal(decoded(augmentation.augmented(images, 0)), expected)
    with pytest.raises(RuntimeError, match="no") as caught:
        decoded(Augmentation(fail, 0).augmented(images, 0))
    assert "augment=" in caught.value.__notes__[0]
    assert global_state() == before


def test_threads_do_not_draw_each_other_s_numbers(images):
    """The generators are shared by all threads: a transform that waits between two draws finds them undisturbed."""

    def draw_twice(picture):
        first = draw_from_all(picture)
        time.sleep(0.002)
        return draw_from_all(first)

    table = Augmentation(draw_twice, 0).augmented(images, 0)
    expected = decoded(table)
    before = global_state()
    with ThreadPoolExecutor(N_PICTURES) as pool:
        assert equal(pool.map(lambda index: table[index].decode(), range(N_PICTURES)), expected)
    assert global_state() == before


def test_pictures_are_decoded_at_the_same_time(images):
    """Only the drawing is one at a time: two threads meet while each is decoding its picture."""
    meeting = threading.Barrier(2, timeout=60)

    class Meeting(TableImage):
        digest = b"1"

        def decode(self):
            meeting.wait()
            return pictures()[0]

    table = Augmentation(draw_from_all, 0).augmented([Meeting(), Meeting()], 0)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda index: table[index].digest, range(2)))) == 2


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("writeable", [True, False])
def test_neither_the_picture_nor_the_transform_is_changed(n_channels, writeable):
    """A transform that works in place changes a copy, and no warning says that an array is read-only."""
    pixels = pictures(n_channels)
    pixels.flags.writeable = writeable
    images = table(pixels)
    transform = v2.Compose([lambda picture: picture.fill_(7), v2.RandomHorizontalFlip()])
    before = pickle.dumps(transform.transforms[1]), copy.deepcopy(vars(transform.transforms[1]))
    assert all((view == 7).all() for view in decoded(Augmentation(transform, 0).augmented(images, 0)))
    np.testing.assert_array_equal(pixels, pictures(n_channels))
    assert (pickle.dumps(transform.transforms[1]), vars(transform.transforms[1])) == before


def test_what_the_transform_is_given(images):
    """It is a torchvision image, of the picture's own size and channels first."""
    seen = []
    decoded(Augmentation(lambda picture: seen.append(picture) or picture, 0).augmented(images, 0))
    for picture, pixels in zip(seen, pictures(), strict=True):
        assert isinstance(picture, tv_tensors.Image)
        assert picture.dtype == torch.uint8
        np.testing.assert_array_equal(picture, pixels.transpose(2, 0, 1))


RESULTS = {
    "image": lambda picture: picture,
    "tensor": lambda picture: picture.as_subclass(torch.Tensor),
    "float tensor": lambda picture: picture.float() / 255,
    "double tensor with a gradient": lambda picture: (picture.double() / 255).requires_grad_(),
    "PIL": v2.ToPILImage(),
    "array": lambda picture: picture.permute(1, 2, 0).numpy(),
    "float array": lambda picture: picture.permute(1, 2, 0).numpy() / 255,
}


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_each_kind_of_result_is_understood(result, n_channels):
    """A transform that changes nothing gives the same pixels in every type that pictures come in."""
    pixels = pictures(n_channels)
    (view, *_) = decoded(Augmentation(RESULTS[result], 0).augmented(table(pixels), 0))
    np.testing.assert_array_equal(view, pixels[0])
    assert view.dtype == np.uint8
    assert view.flags.c_contiguous


def test_floats_that_overshoot_are_clipped():
    """What bicubic resizing leaves a little outside 0 to 1 is no error."""
    floats = np.array([-0.1, 0.5, 1.1], np.float32).reshape(1, 1, 3)
    view = Augmentation(lambda picture: floats, 0).augmented(table(pictures()), 0)[0].decode()
    np.testing.assert_array_equal(view, [[[0, 128, 255]]])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "Got 'NoneType' instead"),
        (torch.zeros(4, 5, 5, dtype=torch.uint8), r"'Tensor' of shape \(4, 5, 5\)"),
        (torch.zeros(1, 3, 5, 5, dtype=torch.uint8), r"of shape \(1, 3, 5, 5\)"),
        (np.zeros((3, 5, 5), np.uint8), r"'ndarray' of shape \(3, 5, 5\)"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), r"of shape \(3, 0, 5\)"),
        (torch.zeros(3, 5, 5, dtype=torch.int64), "dtype int64"),
        (torch.full((3, 5, 5), 200.0), "Got values from 200 to 200 instead"),
        (
            torch.linspace(-2, 2, 75).reshape(3, 5, 5),
            "from -2 to 2 instead. Scale floats to 0-1, and remove any normalization",
        ),
        (torch.full((3, 5, 5), torch.nan), "values from nan to nan"),
        (Image.new("L", (5, 5)), "PIL image of mode 'L'"),
        (Image.new("RGBA", (5, 5)), "PIL image of mode 'RGBA'"),
    ],
)
def test_other_results_are_refused(images, result, message):
    """What is no picture with the channels asked for is an error that names the parameter and what came."""
    with pytest.raises(ValueError, match=f"^augment must return an image with 3 channels.*{message}"):
        Augmentation(lambda picture: result, 0).augmented(images, 0)[0].decode()


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_work_on_grey_and_colour(name, n_channels):
    """No operation that a recipe may choose fails, on many draws."""
    images = table(pictures(n_channels, n=2))
    augmentation = recipe(name, in_channels=n_channels)
    for epoch in range(40):
        for view in decoded(augmentation.augmented(images, epoch)):
            assert view.shape[2] == n_channels


def test_recipes_of_colours_want_colours():
    """Pictures with two channels may be mirrored and cropped; what changes colours is refused before any fit."""
    for name in ("flip", "crop_flip", "simclr"):
        assert recipe(name, in_channels=2).augmented(table(pictures(2)), 0)[0].decode().shape[2] == 2
    for name in ("trivial", "randaugment"):
        with pytest.raises(ValueError, match=f"augment='{name}'.*in_channels=2.*'crop_flip'"):
            recipe(name, in_channels=2)


def test_flip_mirrors_about_half(images):
    """Each view is what the network sees of the image or its mirror image, and both occur."""
    n_mirrored = 0
    for epoch in range(10):
        for view, original in zip(decoded(recipe("flip").augmented(images, epoch)), pictures(), strict=True):
            seen = load_backbone("sktl_mini").preprocessing.apply(original)
            is_mirrored = not np.array_equal(view, seen)
            np.testing.assert_array_equal(view, seen[:, ::-1] if is_mirrored else seen)
            n_mirrored += is_mirrored
    assert 15 <= n_mirrored <= 45


def test_batched_recipes_give_views_of_the_network_s_size(images):
    """The preprocessing, which would resize and crop a second time, leaves them as they are."""
    view = recipe("crop_flip", resize_size=50, crop_size=(44, 30)).augmented(images, 0)[0]
    pixels = view.prepared(lambda pixels: pytest.fail("prepared twice"))
    assert pixels.shape == (44, 30, 3)
    np.testing.assert_array_equal(pixels, view.decode())


def test_crops_of_other_recipes_have_the_picture_s_own_pixels(images):
    """A crop is a box of the picture or of its mirror image, pixel for pixel, with at least a third of its area."""
    cropping = Augmentation(_crop_flip(load_backbone("sktl_mini").preprocessing), 0)
    for epoch in range(5):
        for view, original in zip(decoded(cropping.augmented(images, epoch)), pictures(), strict=True):
            height, width = view.shape[:2]
            assert 0.3 <= height * width / (40 * 60) <= 1
            places = [
                np.array_equal(source[top : top + height, left : left + width], view)
                for source in (original, original[:, ::-1])
                for top in range(40 - height + 1)
                for left in range(60 - width + 1)
            ]
            assert any(places)


@pytest.mark.parametrize("shape", [(200, 120), (48, 72)])
def test_colour_recipes_work_at_the_network_s_scale(shape):
    """What they hand on has the size that the preprocessing resizes to: nothing is resized twice."""
    images = table(pictures(shape=shape))
    for epoch in range(4):
        for view in decoded(recipe("trivial", resize_size=50, crop_size=44).augmented(images, epoch)):
            assert min(view.shape[:2]) == 50


def test_an_unknown_recipe_is_an_error_that_lists_them():
    """The error names the parameter, what came and what there is."""
    with pytest.raises(
        ValueError,
        match=r"augment must be one of \['crop_flip', 'flip', 'randaugment', 'simclr', 'trivial'\].*Got 'flop'",
    ):
        recipe("flop")


def test_none_is_no_augmentation():
    """Without augmentation nothing stands between the pictures and the network."""
    assert recipe(None) is None


@pytest.mark.parametrize(
    ("parameters", "is_valid"),
    [
        ({"augment": None, "n_views": None}, True),
        ({"augment": "flip", "n_views": 3}, True),
        ({"augment": draw_from_all, "n_views": 1}, True),
        ({"augment": 3, "n_views": None}, False),
        ({"augment": None, "n_views": 0}, False),
    ],
)
def test_constraints(parameters, is_valid):
    """scikit-learn's validation takes what is meant and refuses the rest."""
    if is_valid:
        validate_parameter_constraints(AUGMENT_CONSTRAINTS, parameters, caller_name="Estimator")
    else:
        with pytest.raises(ValueError, match="parameter of Estimator must be"):
            validate_parameter_constraints(AUGMENT_CONSTRAINTS, parameters, caller_name="Estimator")


@pytest.mark.parametrize("name", ["crop_flip", "simclr", "trivial"])
def test_stored_views_are_live_augmentation(images, name):
    """With a view for each epoch, what is stored and what is computed anew for each batch are the same bits."""
    spec = PrefixSpec(load_backbone("sktl_mini"), ["stem"], "none")
    prefix = FrozenPrefix(spec, Runtime(engine="torch", cache=None, batch_size=1))
    stored = fetch_activations(prefix, images, stored=True, augmentation=recipe(name), n_views=2)
    live = fetch_activations(prefix, images, stored=False, augmentation=recipe(name))
    batches = [stored.batch([3, 0, 5], epoch) for epoch in range(2)]
    assert all(torch.equal(batch, live.batch([3, 0, 5], epoch)) for epoch, batch in enumerate(batches))
    assert not torch.equal(*batches)
