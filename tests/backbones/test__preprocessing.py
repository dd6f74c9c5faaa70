"""Pictures are resized and cropped as torchvision's presets do it, to the bit."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from sktl.backbones import Preprocessing
from sktl.backbones._preprocessing import check_preprocessing
from sktl.exceptions import BackboneError


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng([height, width])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def preset(picture: np.ndarray, resize_size: int, crop_size: int, interpolation: str) -> np.ndarray:
    """What torchvision's preset gives, as uint8."""
    transform = ImageClassification(
        crop_size=crop_size,
        resize_size=resize_size,
        interpolation=InterpolationMode(interpolation),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return (transform(Image.fromarray(picture)).numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize_size", "crop_size"), [(32, 28), (31, 24), (33, 20), (20, 25), (20, 41), (16, 16)])
@pytest.mark.parametrize(("height", "width"), [(60, 40), (41, 61), (16, 16), (7, 5), (32, 33), (100, 10)])
def test_equal_to_torchvision(height, width, resize_size, crop_size, interpolation):
    """Odd and even sizes, shrinking and growing, cropping and padding: every pixel is the same."""
    source = picture(height, width)
    found = Preprocessing(resize_size=resize_size, crop_size=crop_size, interpolation=interpolation).apply(source)
    np.testing.assert_array_equal(found, preset(source, resize_size, crop_size, interpolation))


def preset_of_pil(source, resize_size, crop_size, interpolation):
    """The same by Pillow alone, whose filters are more: the whole image resized, and its center cut out."""
    image = Image.fromarray(source)
    long = int(resize_size * max(image.size) / min(image.size))
    size = (long, resize_size) if image.width > image.height else (resize_size, long)
    left, top = (round((length - crop_size) / 2) for length in size)
    resized = image.resize(size, getattr(Image.Resampling, interpolation.upper()))
    return np.asarray(resized.crop((left, top, left + crop_size, top + crop_size)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(200, 11), (9, 250), (170, 3), (2, 90)])
def test_extreme_aspect_ratios(height, width, interpolation):
    """Where only the crop is computed, hardly a pixel differs, and by the last bits."""
    source = picture(height, width)
    found = Preprocessing(resize_size=40, crop_size=32, interpolation=interpolation).apply(source).astype(int)
    difference = np.abs(found - preset(source, 40, 32, interpolation))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
@pytest.mark.parametrize(("height", "width"), [(5001, 5), (5, 5001), (320, 7)])
def test_rows_that_are_cut_off_do_not_matter(height, width, interpolation):
    """A slope keeps its values, whatever the filter: those around the crop are looked at where they lie."""
    slope = np.linspace(0, 255, max(height, width)).reshape((-1, 1) if height > width else (1, -1))
    source = np.repeat(np.broadcast_to(slope, (height, width))[:, :, np.newaxis], 3, 2).astype(np.uint8)
    found = Preprocessing(resize_size=40, crop_size=(32, 32), interpolation=interpolation).apply(source).astype(int)
    expected = preset_of_pil(source, 40, 32, interpolation)
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize(
    "shape", [(5000, 1, 3), (1, 5000, 3), (1, 60_000, 1), (2_000_000, 1, 3), (1, 2_000_000, 3), (20_000_000, 2, 1)]
)
def test_extreme_pictures_stay_small(shape, monkeypatch):
    """A line of pixels is not blown up to an image of a million columns, nor each of its rows to all columns."""
    sizes = []
    resize = Image.Image.resize

    def watched(self, size, *args, **kwargs):
        sizes.append(size)
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert Preprocessing().apply(np.full(shape, 7, np.uint8)).max() == 7
    assert sizes
    assert all(width * height <= 224 * 256 for width, height in sizes)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_any_number_of_channels(channels):
    """Each channel is treated as it would be in a colour picture."""
    source = picture(30, 20, channels)
    preprocessing = Preprocessing(resize_size=16, crop_size=12)
    found = preprocessing.apply(source)
    assert found.shape == (12, 12, channels)
    for channel in range(channels):
        as_colour = preprocessing.apply(np.repeat(source[:, :, [channel]], 3, axis=2))
        np.testing.assert_array_equal(found[:, :, channel], as_colour[:, :, 0])


def test_a_crop_that_is_no_square():
    """crop_size may be (height, width)."""
    assert Preprocessing(resize_size=32, crop_size=(20, 30)).apply(picture(40, 40)).shape == (20, 30, 3)


def test_views_are_fine():
    """A picture that is a strided view of something larger gives what its copy gives."""
    view = picture(60, 80)[::2, ::-1]
    preprocessing = Preprocessing(resize_size=24, crop_size=20)
    np.testing.assert_array_equal(preprocessing.apply(view), preprocessing.apply(view.copy()))


def test_key_names_every_setting():
    """Two preprocessings have the same key where all settings are the same, and only there."""
    changes = [
        {}, {"resize_size": 255}, {"crop_size": 223}, {"crop_size": (224, 223)}, {"interpolation": "bicubic"},
        {"mean": (0.5, 0.456, 0.406)}, {"std": (0.5, 0.224, 0.225)},
    ]  # fmt: skip
    assert len({Preprocessing(**change).key for change in changes}) == len(changes)
    assert Preprocessing(mean=[0.485, 0.456, 0.406]).key == Preprocessing().key


def test_for_channels():
    """One channel takes the average; more take the values in turn."""
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert preprocessing.for_channels(3) is preprocessing
    assert preprocessing.for_channels(1).mean == pytest.approx((0.2,))
    assert preprocessing.for_channels(5).std == (1.0, 2.0, 3.0, 1.0, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize_size": 0}, {"crop_size": 0}, {"crop_size": (1, 2, 3)}, {"interpolation": "best"},
        {"mean": (0.5,)}, {"std": (0.2, 0.2, 0.0)}, {"antialias": False},
        {"resize_size": (64, 64)}, {"resize_size": 64.0}, {"resize_size": "64"}, {"crop_size": 64.5},
        {"crop_size": (64, 64.0)}, {"crop_size": ()}, {"crop_size": None}, {"mean": 0.5}, {"mean": ("a", "b", "c")},
        {"std": None}, {"interpolation": ["bilinear"]},
    ],
)  # fmt: skip
def test_values_that_make_no_sense(wrong):
    """Each is refused with the whole preprocessing shown."""
    with pytest.raises(BackboneError, match=r"^Invalid preprocessing: .*Got Preprocessing\(resize_size=.* instead\.$"):
        Preprocessing(**wrong)


def test_integers_of_numpy():
    """NumPy's integers are integers, and what is kept are Python's own."""
    found = Preprocessing(resize_size=np.int64(256), crop_size=np.int64(224))
    assert found.key == Preprocessing().key
    assert Preprocessing(crop_size=[np.int32(224), 192]).key == Preprocessing(crop_size=(224, 192)).key


def test_check_preprocessing():
    """None takes the default, a dict changes some of it, anything else is refused."""
    default = Preprocessing(resize_size=232)
    assert check_preprocessing(None, default) is default
    assert check_preprocessing({"crop_size": 96}, default) == Preprocessing(resize_size=232, crop_size=96)
    assert check_preprocessing(Preprocessing(), default) == Preprocessing()
    for wrong in ({"resize": 96}, "imagenet", 224):
        with pytest.raises(BackboneError, match=r"preprocessing=.*'crop_size'"):
            check_preprocessing(wrong, default)
