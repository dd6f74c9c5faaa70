"""Pictures one by one: when they are read and decoded, their keys, and which item is to blame."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator

from sktl._images import check_images
from sktl.exceptions import ImageError


class Holder(BaseEstimator):
    """An estimator with the parameters that the door reads."""

    def __init__(self, image_shape=None, channels="auto", in_channels=3):
        self.image_shape = image_shape
        self.channels = channels
        self.in_channels = in_channels


def decoded(X, *, fitted_on=None, **params):
    holder = Holder(**params)
    if fitted_on is not None:
        check_images(holder, fitted_on, reset=True)
    return [image.decode() for image in check_images(holder, X, reset=fitted_on is None)]


def picture(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels.flat[:2] = 0, 255
    return pixels


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_part_of_the_pictures_gives_their_pixels(image_source):
    """After fit, a picture's pixels and digest do not depend on which others come with it."""
    holder = Holder()
    everything = check_images(holder, image_source.X, reset=True)
    part = check_images(holder, image_source.take([4, 1]), reset=False)
    for here, there in ((0, 4), (1, 1)):
        assert part[here].digest == everything[there].digest
        np.testing.assert_array_equal(part[here].decode(), everything[there].decode())


def test_digests_tell_pictures_apart(image_source):
    """Six different pictures have six different digests of 16 bytes, the same when asked again."""
    images = check_images(Holder(), image_source.X, reset=True)
    digests = [image.digest for image in images]
    assert len(set(digests)) == 6
    assert {len(digest) for digest in digests} == {16}
    assert digests == [image.digest for image in images]


def test_a_table_gives_the_digests_of_its_pictures(image_source):
    """They are the pictures' own, the same in another table and in a view."""
    holder = Holder()
    images = check_images(holder, image_source.X, reset=True)
    digests = [images.digest(i) for i in range(6)]
    assert digests == [picture.digest for picture in images]
    part = check_images(holder, image_source.take([4, 1, 4]), reset=False)
    assert [part.digest(i) for i in range(3)] == [digests[4], digests[1], digests[4]]
    assert images.take([3, 5]).digest(1) == digests[5]


def test_a_file_is_read_once_for_its_digest(tmp_path):
    """The table and its views remember it; what lies elsewhere under another name is the same picture."""
    Image.fromarray(picture(6, 6, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    images = check_images(Holder(), [str(tmp_path / "a.png"), tmp_path / "b.png"], reset=True)
    first = images.digest(0)
    (tmp_path / "a.png").unlink()
    assert images.digest(0) == images.take([1, 0]).digest(1) == images.digest(1) == first


def test_nothing_is_read_or_decoded_early(tmp_path, monkeypatch):
    """The door only looks at paths; one picture reads its file once, and decodes when asked."""
    paths = [str(tmp_path / f"missing {i}.jpg") for i in range(1000)]
    images = check_images(Holder(), paths, reset=True)
    assert images._source is paths
    (tmp_path / "missing 7.jpg").write_bytes(b"no picture")
    image = images[7]
    assert len(image.digest) == 16
    (tmp_path / "missing 7.jpg").unlink()
    with pytest.raises(ImageError, match=r"Image 7 .*missing 7\.jpg.*not an image"):
        image.decode()


def test_arrays_are_not_copied():
    """A batch and flat rows stay where they are; read-only and strided ones too."""
    for X in (picture(5, 6, 7, 3), picture(5, 48)):
        X.flags.writeable = False
        assert np.shares_memory(check_images(Holder(), X, reset=True)._source, X)
    strided = picture(8, 6, 14, 3)[::2, :, ::2]
    for got, expected in zip(decoded(strided), strided, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.flags.c_contiguous


def test_asked_from_many_threads(image_source):
    """Pictures asked for at the same time are the ones asked for one after the other."""
    images = check_images(Holder(), image_source.X, reset=True)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: images[i % 6].decode(), range(60)))
    for i, pixels in enumerate(got):
        np.testing.assert_array_equal(pixels, image_source.pixels[i % 6])


def test_one_lazy_pil_image_in_many_threads(tmp_path):
    """A PIL image that was opened but not loaded may stand in the list many times."""
    pixels = picture(64, 64, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    with Image.open(tmp_path / "a.png") as lazy, ThreadPoolExecutor(4) as pool:
        images = check_images(Holder(), [lazy] * 16, reset=True)
        for got in pool.map(lambda i: images[i].decode(), range(16)):
            np.testing.assert_array_equal(got, pixels)


def test_index():
    """Negative positions count from the end, those outside raise IndexError, and iteration ends."""
    pixels = picture(3, 4, 4, 3)
    images = check_images(Holder(), pixels, reset=True)
    np.testing.assert_array_equal(images[-1].decode(), pixels[2])
    np.testing.assert_array_equal(images[np.int64(1)].decode(), pixels[1])
    assert len(list(images)) == 3
    with pytest.raises(IndexError):
        images[3]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([4, 1, 1, -1], [4, 1, 1, 5]),
        (np.array([3, 0]), [3, 0]),
        (slice(1, None, 2), [1, 3, 5]),
        (slice(None, None, -1), [5, 4, 3, 2, 1, 0]),
        ([], []),
    ],
    ids=str,
)
def test_take_is_a_view_of_some_rows(image_source, positions, expected):
    """Pictures come in the order asked for, from the same source, and a view of a view is one of the table."""
    images = check_images(Holder(), image_source.X, reset=True)
    taken = images.take(positions)
    assert taken._source is images._source
    assert len(images) == 6
    assert [picture.digest for picture in taken] == [images[position].digest for position in expected]
    again = taken.take([-1] if expected else slice(None)).take(slice(0, 3))
    assert [picture.digest for picture in again] == [images[position].digest for position in expected[-1:]]


def test_positions_lead_back_to_the_table(image_source):
    """The whole, a view and a view of a view say which rows of the table they are; indices that NumPy can use."""
    images = check_images(Holder(), image_source.X, reset=True)
    assert images.positions.tolist() == list(range(6))
    taken = images.take([4, 1, 1, -1])
    for view, expected in ((taken, [4, 1, 1, 5]), (taken.take(slice(None, None, -2)), [5, 1]), (taken.take([]), [])):
        assert view.positions.tolist() == expected
        assert view.positions.dtype == np.intp


def test_take_refuses_and_names_as_the_table_does():
    """A position outside is an IndexError at once; a bad picture of a view is named by its place in the table."""
    good = picture(8, 9, 3)
    images = check_images(Holder(), [good, good, None], reset=True)
    for positions in ([3], [-4], np.array([0, 9])):
        with pytest.raises(IndexError):
            images.take(positions)
    with pytest.raises(ImageError, match=r"^Image 2\b"):
        images.take([0, 2])[1].decode()


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 5000), (1, 5000, 3), (5000, 1, 1), (2, 2, 4)])
def test_odd_sizes(shape):
    """One pixel, one line, one column: a picture is a picture."""
    assert decoded([picture(*shape)])[0].shape == (*shape[:2], 3)


def test_channels_turn_into_each_other():
    """Grey is repeated, RGBA is put on white, colour becomes grey by Pillow's formula."""
    rgba = picture(5, 6, 4)
    rgba[..., 3] = 0
    assert (decoded([rgba])[0] == 255).all()
    rgba[..., 3] = 255
    np.testing.assert_array_equal(decoded([rgba])[0], rgba[..., :3])
    grey = decoded([rgba[..., :3]], in_channels=1)[0]
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(rgba[..., :3]).convert("L")))
    np.testing.assert_array_equal(decoded(grey[np.newaxis])[0], np.repeat(grey, 3, axis=2))


def test_more_channels_where_asked_for():
    """in_channels=5 takes arrays of 5 channels as they are, and nothing else."""
    pixels = picture(2, 8, 9, 5)
    for X in (pixels, pixels.transpose(0, 3, 1, 2), list(pixels)):
        np.testing.assert_array_equal(decoded(X, in_channels=5), pixels)
    np.testing.assert_array_equal(decoded(pixels.reshape(2, -1), in_channels=5, image_shape=(8, 9, 5)), pixels)
    with pytest.raises(ImageError, match="in_channels=5, but a decoded image has 1 or 3"):
        decoded([png(picture(3, 3, 3))], in_channels=5)
    with pytest.raises(ImageError, match="but in_channels=5 requires 5"):
        decoded([picture(8, 9, 3)], in_channels=5)


def test_floats_after_files():
    """Fit on files teaches no value range: uint8 arrays are fine afterwards, floats are an error that says why."""
    file, pixels = [png(picture(4, 4, 3))], picture(1, 8, 8, 3)
    np.testing.assert_array_equal(decoded(pixels, fitted_on=file), pixels)
    with pytest.raises(
        ImageError, match=r"value range of float64 pixels is unknown, because fit got only .*kind='files'"
    ):
        decoded(pixels / 255, fitted_on=file)
    with pytest.raises(ImageError, match=r"table of numbers, but Holder was fitted on images \(kind='files'\)"):
        decoded(pixels.reshape(1, -1), fitted_on=file)


def test_tensors():
    """Tensors that need gradients, of half precision or bfloat16, are read without touching them."""
    pixels = torch.tensor(picture(1, 3, 8, 8))
    expected = pixels.permute(0, 2, 3, 1).numpy()
    for X in (pixels.float().requires_grad_(), pixels.half(), pixels.bfloat16().div(1), pixels.to(torch.int32)):
        np.testing.assert_array_equal(decoded(X), expected)
    assert decoded(pixels.flatten(1).float().requires_grad_(), channels="first")[0].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "missing"),
        (np.nan, "missing"),
        (pd.NA, "missing"),
        (7, "type 'int'"),
        (np.zeros(784), r"must have shape \(H, W\) or \(H, W, C\)\. Got \(784,\) instead"),
        (np.zeros((0, 5, 3)), "no pixels"),
        (np.zeros((9, 8, 2)), "2 channels"),
        (np.zeros((9, 8, 5)), "5 channels"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf), "infinity"),
        (np.zeros((4, 4), dtype=complex), "complex128"),
        (np.full((4, 4), "x"), "dtype <U1"),
        (torch.zeros(2, 2, 2, 2), r"must have shape .* Got \(2, 2, 2, 2\) instead"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        ("", "does not exist"),
        ("https://example.org/a.jpg", "does not exist. URLs are not downloaded"),
        ("nul\0byte.jpg", "cannot be read"),
    ],
)
def test_a_bad_item_spoils_only_itself(bad, message):
    """A bad item is named by its position when it is asked for; its neighbours are fine."""
    good = picture(8, 9, 3) / 255
    images = check_images(Holder(), [good, good, bad, good], reset=True)
    with pytest.raises(ImageError, match=rf"^Image 2\b.*{message}"):
        images[2].decode()
    np.testing.assert_array_equal(images[3].decode(), np.rint(good * 255))
