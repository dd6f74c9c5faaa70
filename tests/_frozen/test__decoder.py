"""Images as the network sees them, and the failures that are noted on the way."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sktl._frozen._decoder import Decoder
from sktl._frozen._spec import PrefixSpec
from sktl.backbones import load_backbone
from sktl.exceptions import ImageError


@pytest.fixture(scope="module")
def spec():
    return PrefixSpec(load_backbone("sktl_mini"), ["stem"])


@pytest.fixture
def damaged(paths):
    """Twelve files, of which the third is no image."""
    with open(paths[2], "wb") as file:
        file.write(b"no image")
    return paths


def test_pixels_and_digests_are_those_of_the_images(spec, paths, open_images):
    """In the order that is asked for, as the preprocessing makes them."""
    images = open_images(paths)
    positions, digests, pixels = Decoder(images, spec, has_digests=True, failures={}).decode([4, 0])
    assert positions == [4, 0]
    assert digests == [images.digest(4), images.digest(0)]
    for row, position in enumerate(positions):
        expected = spec.backbone.preprocessing.apply(np.asarray(Image.open(paths[position])))
        np.testing.assert_array_equal(pixels[row], expected)


def test_what_cannot_be_read_is_noted_and_left_out(spec, damaged, open_images):
    """The others are read, whichever way is asked for first."""
    failures: dict = {}
    decoder = Decoder(open_images(damaged), spec, has_digests=False, failures=failures)
    positions, digests, pixels = decoder.decode([1, 2, 3])
    assert positions == [1, 3]
    assert digests == [b"", b""]
    assert len(pixels) == 2
    assert list(failures) == [2]
    assert isinstance(failures[2], ImageError)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_digests_come_by_position(spec, paths, open_images, n_threads):
    """However many threads share them; of a file that is not there the error is noted."""
    images = open_images([*paths, "missing.jpg"])
    failures: dict = {}
    decoder = Decoder(images, spec, has_digests=True, failures=failures)
    with ThreadPoolExecutor(n_threads) as pool:
        got = decoder.digests(range(3, 13), pool, n_threads)
    assert got == {position: images.digest(position) for position in range(3, 12)}
    assert list(failures) == [12]
