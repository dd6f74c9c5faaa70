"""Pictures that are given to a display: decoded or not, and when."""

import numpy as np

from sktl.inspection._pictures import Photos, decode, read_anew


def pixels(n_channels=3):
    return np.random.default_rng(0).integers(0, 256, (3, 4, 5, n_channels), dtype=np.uint8)


def test_decoded_where_it_can_be(tmp_path):
    """A picture has its pixels, one that is not there is None, and the settings say how many channels there are."""
    images = read_anew([str(tmp_path / "not there.png"), pixels(1)[0]], in_channels=1)
    assert decode(images, 0) is None
    np.testing.assert_array_equal(decode(images, 1), pixels(1)[0])


def test_photos_are_decoded_when_asked_for(tmp_path):
    """There are as many as pictures, and each is read only then."""
    path = tmp_path / "later.png"
    photos = Photos(read_anew([str(path), pixels()[1]]))
    assert len(photos) == 2
    assert photos[0] is None
    np.testing.assert_array_equal(photos[1], pixels()[1])
