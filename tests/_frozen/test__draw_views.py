"""Views drawn together: the numbers are random, the geometry and the colors are those of one image at a time."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from sktl._frozen._draw_views import _STEP, VIEW_RECIPES, ViewRecipe, _mixed, draw_views, random_draws
from sktl.backbones import Preprocessing

DIGESTS = [bytes([number]) * 16 for number in range(4)]
N_DRAWS = random_draws(DIGESTS, 0, 0).shape[1]


def noise(n=4, shape=(20, 20), n_channels=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *shape, n_channels), np.uint8))


def draws_of(n, **columns):
    """Neutral numbers (no crop at the full area, no flip, no change of colors) with some columns replaced."""
    names = ["area", "aspect", "top", "left", "flip", "brightness", "contrast", "saturation", "gray", "red"]
    neutral = dict.fromkeys(names, 0.5) | {"area": 1.0, "gray": 0.99}
    draws = np.full((n, N_DRAWS), 0.5)
    for column, name in enumerate(names):
        draws[:, column] = columns.get(name, neutral[name])
    return draws


def test_numbers_are_uniform_and_independent():
    """Their moments and correlations, over images, views and columns, are those of uniform numbers."""
    rng = np.random.default_rng(0)
    digests = [rng.bytes(16) for _ in range(20_000)]
    draws = np.hstack([random_draws(digests, 0, view) for view in range(2)])
    np.testing.assert_allclose(draws.mean(0), 1 / 2, atol=0.01)
    np.testing.assert_allclose(draws.var(0), 1 / 12, atol=0.003)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(2 * N_DRAWS), atol=0.03)
    assert draws.min() >= 0
    assert draws.max() < 1
    # Digests that differ in one bit, as a counter would.
    near = random_draws([number.to_bytes(16, "little") for number in range(20_000)], 0, 0)
    np.testing.assert_allclose(np.corrcoef(near.T), np.eye(N_DRAWS), atol=0.03)
    assert abs(np.corrcoef(near[:-1, 0], near[1:, 0])[0, 1]) < 0.03


def test_numbers_are_those_of_splitmix64():
    """The mixing function gives the published sequence of a generator with state 1234567."""
    state = np.full(1, 1234567, np.uint64) + np.arange(1, 4, dtype=np.uint64) * _STEP
    assert _mixed(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_depend_on_digest_seed_and_view_alone():
    """Each of the three changes all numbers; the other images change none."""
    expected = random_draws(DIGESTS, 3, 5)
    np.testing.assert_array_equal(random_draws(DIGESTS[::-1], 3, 5)[::-1], expected)
    np.testing.assert_array_equal(random_draws(DIGESTS[2:3], 3, 5), expected[2:3])
    others = [random_draws(DIGESTS, seed, view) for seed, view in ((4, 5), (3, 6), (5, 3), (2, 4), (0, 6))]
    for other in (*others, expected[::-1]):
        assert (other != expected).all()
    assert random_draws(DIGESTS, 2**31 - 1, 10**6).shape == (4, N_DRAWS)
    assert random_draws([], 0, 0).shape == (0, N_DRAWS)


@pytest.mark.parametrize("name", VIEW_RECIPES)
@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_a_view_does_not_depend_on_the_batch(name, n_channels):
    """Alone, in another order or with several threads, a view has the same bits."""
    images, draws = noise(33, n_channels=n_channels), np.random.default_rng(1).random((33, N_DRAWS))
    expected = draw_views(images, draws, VIEW_RECIPES[name], (16, 16) if name != "flip" else (20, 20))
    n_threads = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for some in ([5], [32, 0, 7], range(20)):
                shape = expected.shape[1:3]
                view = draw_views(images[list(some)], draws[list(some)], VIEW_RECIPES[name], shape)
                assert torch.equal(view, expected[list(some)])
    finally:
        torch.set_num_threads(n_threads)
    assert expected.dtype == torch.uint8
    assert expected.is_contiguous()


def test_the_full_area_is_the_image_and_a_flip_its_mirror_image():
    """Without a margin, a crop of the whole area has the very pixels of the image."""
    images = noise(1)
    for flip, expected in ((0.5, images), (0.499, images.flip(2))):
        assert torch.equal(draw_views(images, draws_of(1, flip=flip), VIEW_RECIPES["crop_flip"], (20, 20)), expected)
        assert torch.equal(draw_views(images, draws_of(1, flip=flip), ViewRecipe(), (20, 20)), expected)


def test_crops_without_resizing_are_boxes_of_the_source():
    """A view of the size of its box has the pixels of the box, at the place that the numbers say."""
    images = noise(1, (20, 30))
    for top, left in ((0, 0), (1, 1), (0.5, 0.25)):
        view = draw_views(images, draws_of(1, top=top, left=left), VIEW_RECIPES["crop_flip"], (12, 10))
        y, x = int(top * 8), int(left * 20)
        assert torch.equal(view, images[:, y : y + 12, x : x + 10])


def test_crops_are_enlarged_as_by_torchvision():
    """A box of a quarter of the area equals torchvision's crop and bilinear resizing, up to the border of the box."""
    images = noise(1, (16, 16))
    recipe = ViewRecipe(crop_area=(0.25, 1.0))
    view = draw_views(images, draws_of(1, area=0.0), recipe, (16, 16))[0].permute(2, 0, 1)
    whole = functional.resize(images[0].permute(2, 0, 1).float(), [32, 32], antialias=False).round()
    difference = (view - whole[:, 8:24, 8:24]).abs()
    assert difference.max() <= 1


def test_crops_have_the_areas_and_aspects_of_the_recipe():
    """Read from a ramp of coordinates: sizes, aspects and places have the range of the recipe and stay inside."""
    size = 200
    ramp = torch.arange(size, dtype=torch.uint8)
    images = torch.stack([ramp[:, None].expand(size, size), ramp[None].expand(size, size)], 2).expand(500, -1, -1, -1)
    draws = np.random.default_rng(0).random((500, N_DRAWS))
    views = draw_views(images, draws, VIEW_RECIPES["crop_flip"], (150, 150)).int()
    height = (views[:, -1, 0, 0] - views[:, 0, 0, 0]).numpy() / 149 * 150
    width = (views[:, 0, -1, 1] - views[:, 0, 0, 1]).abs().numpy() / 149 * 150
    areas, aspects = height * width / 150**2, width / height
    assert areas.min() == pytest.approx(0.35, abs=0.03)
    assert areas.max() == pytest.approx(1, abs=0.03)
    assert np.median(areas) == pytest.approx(0.675, abs=0.05)
    assert aspects.min() == pytest.approx(3 / 4, abs=0.03)
    assert aspects.max() == pytest.approx(4 / 3, abs=0.03)
    assert views.min() < 5
    assert views.max() > 194


def test_each_change_of_colors_works_alone():
    """A recipe with a single change of colors draws it."""
    images = noise(8, (6, 6))
    draws = random_draws([bytes([number] * 16) for number in range(8)], 0, 0)
    for name in ("brightness", "contrast", "saturation", "channels", "gray"):
        view = draw_views(images, draws, ViewRecipe(**{name: 1.0}), (6, 6))
        assert not torch.equal(view, images), name
        if name == "gray":
            assert torch.equal(view, view[..., :1].expand_as(view))


def recolored(images, recipe=VIEW_RECIPES["simclr"], **columns):
    images = images.expand(1, -1, -1, -1)
    return draw_views(images, draws_of(1, **columns), recipe, tuple(images.shape[1:3]))[0].float()


def test_colors_change_as_the_recipe_says():
    """Brightness scales the mean, contrast the deviations from it, and saturation those from gray."""
    image = noise(1)[0] // 4 + 90
    plain = image.float()
    assert torch.equal(recolored(image), plain)
    luma = torch.tensor([0.299, 0.587, 0.114])
    mean = (plain @ luma).mean()
    np.testing.assert_allclose(recolored(image, brightness=1.0), plain + 0.4 * mean, atol=0.51)
    np.testing.assert_allclose(recolored(image, contrast=0.0), mean + 0.6 * (plain - mean), atol=0.51)
    gray = (plain @ luma)[..., None]
    np.testing.assert_allclose(recolored(image, saturation=1.0), gray + 1.4 * (plain - gray), atol=0.51)
    np.testing.assert_allclose(recolored(image, gray=0.0), gray.expand(-1, -1, 3), atol=0.51)
    np.testing.assert_allclose(recolored(image, red=1.0), plain * torch.tensor([1.2, 1, 1]), atol=0.51)


def test_one_channel_has_no_colors():
    """Only the brightness and the contrast of a gray image change, and values stay from 0 to 255."""
    image = noise(1, n_channels=1)[0]
    assert torch.equal(recolored(image, saturation=0.0, gray=0.0, red=1.0), image.float())
    bright = recolored(image, brightness=1.0, contrast=1.0)
    assert bright.min() == 0
    assert bright.max() == 255


def test_sources_keep_the_margin_that_the_network_crops_off():
    """Crops are drawn from the whole short side; a flip needs only what the network sees."""
    preprocessing = Preprocessing(resize_size=256, crop_size=(224, 300))
    assert VIEW_RECIPES["crop_flip"].source(preprocessing).crop_shape == (256, 300)
    assert VIEW_RECIPES["flip"].source(preprocessing) == preprocessing
