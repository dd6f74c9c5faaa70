"""Sequences that decode an image each time it is taken: no image is decoded more often than once more than needed."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from sktl import FineTunedClassifier, PretrainedFeatureExtractor
from sktl._images import LazyImage, ReadSettings, Remembering, check_images
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader


class Counting(Sequence):
    """As a column of Hugging Face's datasets: each look at an item decodes it."""

    def __init__(self, pixels, as_pil=True):
        self.pixels, self.as_pil = pixels, as_pil
        self.counts = np.zeros(len(pixels), int)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        self.counts[index] += 1
        return Image.fromarray(self.pixels[index]) if self.as_pil else self.pixels[index]


@pytest.fixture
def column(rgb):
    return Counting([np.roll(rgb, shift, 0) for shift in range(12)])


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.parametrize("as_pil", [True, False])
def test_extractor(column, cache, as_pil):
    """fit looks at one image, or once at each array; transform decodes each once, with a cache and without."""
    column.as_pil = as_pil
    extractor = PretrainedFeatureExtractor(cache=cache).fit(column)
    assert column.counts.max() <= 1
    if as_pil:
        assert column.counts.sum() == 1
    features = extractor.transform(column)
    assert column.counts.max() <= 2
    np.testing.assert_array_equal(features, extractor.transform(column.pixels))


def test_fine_tuning(column):
    """A fit decodes each image at most twice, and a prediction once."""
    model = FineTunedClassifier(max_epochs=1, freeze_depth=-1, random_state=0).fit(column, [0, 1] * 6)
    assert column.counts.max() <= 2
    before = column.counts.copy()
    model.predict(column)
    assert (column.counts - before).tolist() == [1] * 12


def test_behind_a_reader(column):
    """ImageReader looks at nothing but the first item, and what is kept behind it is bounded as well."""
    lazy = ImageReader().fit(column).transform(column)
    assert column.counts.sum() <= 2
    PretrainedFeatureExtractor(cache=None).fit(lazy).transform(lazy)
    assert column.counts[1:].max() == 1
    image = Image.new("RGB", (30, 30))
    kept = Remembering([LazyImage(image, ReadSettings())] * 5, max_bytes=2 * 2700)
    for index in range(5):
        kept.peek(index)
    assert len(kept._kept) == 2


def test_columns_that_decode_nothing(column, encode):
    """Of dicts of bytes a few are looked at when fitting, and none is kept for longer than its turn."""
    files = Counting([{"bytes": encode(pixels), "path": None} for pixels in column.pixels], as_pil=False)
    extractor = PretrainedFeatureExtractor().fit(files)
    features = extractor.transform(files)
    assert files.counts.max() <= 2
    np.testing.assert_array_equal(features, extractor.transform([item["bytes"] for item in files.pixels]))


def test_remembering_is_bounded(column):
    """Items are kept until they are taken again, while there is room; without room they are made again."""
    size = column.pixels[0].nbytes
    lazy = Remembering(column, max_bytes=3 * size)
    for _ in range(2):
        assert [np.asarray(lazy[i]).tolist() for i in range(12)] == [p.tolist() for p in column.pixels]
    assert column.counts.tolist() == [1] * 3 + [2] * 9
    lazy = Remembering(column)
    first = lazy.peek(5)
    assert first is lazy.peek(5) is lazy[5] is lazy[5]
    assert lazy[5] is not first


def test_order_of_a_view(column, holder):
    """A view of some images of such a sequence gives those, in its order."""
    images = check_images(holder(), column, reset=True).take([7, 2, 7])
    for image, index in zip(images, [7, 2, 7], strict=True):
        np.testing.assert_array_equal(image.decode(), column.pixels[index])


def test_text_of_a_lazy_image():
    """It shows where the image comes from, shortly."""
    assert repr(LazyImage("a.tif", ReadSettings())) == "LazyImage(str ('a.tif'))"
    assert repr(LazyImage(b"\0" * 10**6, ReadSettings())) == "LazyImage(bytes)"
    assert len(repr(LazyImage("x" * 10**6, ReadSettings()))) < 400


@pytest.mark.parametrize("position", [0, 3])
def test_an_item_that_cannot_be_made(column, position):
    """What a sequence raises when it decodes an item spoils that item only, as a bad file does."""

    class Faulty(Counting):
        def __getitem__(self, index):
            if index == position:
                raise OSError("image file is truncated")
            return super().__getitem__(index)

    faulty = Faulty(column.pixels)
    extractor = PretrainedFeatureExtractor(on_error="nan").fit(column)
    with pytest.warns(
        ImageWarning, match=f"Image {position}: X raised an error when this item was accessed .image file is truncated"
    ):
        features = extractor.transform(faulty)
    assert np.isnan(features).all(axis=1).tolist() == [i == position for i in range(12)]
    with pytest.raises(ImageError, match=f"^Image {position}: "):
        PretrainedFeatureExtractor().fit_transform(faulty)
