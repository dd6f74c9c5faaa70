"""Pictures that a display keeps: decoded or not, when, and in which colours."""

import numpy as np
import pytest

from sktl.inspection._decoded_images import DecodedImages, as_rgb, read_images


def pixels(n_channels=3):
    return np.random.default_rng(0).integers(0, 256, (3, 4, 5, n_channels), dtype=np.uint8)


def test_decoded_where_it_can_be(tmp_path):
    """A picture has its pixels, one that is not there is None, and the settings say how many channels there are."""
    photos = DecodedImages(read_images([str(tmp_path / "not there.png"), pixels(1)[0]], in_channels=1))
    assert photos[0] is None
    np.testing.assert_array_equal(photos[1], pixels(1)[0])


def test_photos_are_decoded_when_asked_for(tmp_path):
    """There are as many as pictures, and each is read only then."""
    path = tmp_path / "later.png"
    photos = DecodedImages(read_images([str(path), pixels()[1]]))
    assert len(photos) == 2
    assert photos[0] is None
    np.testing.assert_array_equal(photos[1], pixels()[1])


@pytest.mark.parametrize(("n_channels", "expected"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_any_number_of_channels(n_channels, expected):
    """Grey is grey, whatever the colour map; of more channels than three the first ones are shown."""
    photo = pixels(n_channels)[0]
    np.testing.assert_array_equal(as_rgb(photo), photo[:, :, expected])
