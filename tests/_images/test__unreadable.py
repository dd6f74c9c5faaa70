"""Images that cannot be read: found in every kind of table, and said in a message that can be read itself."""

import io

import numpy as np
import pytest
from PIL import Image

from sktl._frozen._cache import MemoryCache
from sktl._images import UnreadableImage, check_images, digests, find_unreadable, listed
from sktl._messages import LIMIT
from sktl.exceptions import ImageError
from sktl.preprocessing import ImageReader

from .conftest import Holder


def open_table(X):
    return check_images(Holder(), X, reset=True)


def png(size=8):
    stream = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(stream, "PNG")
    return stream.getvalue()


def test_positions_paths_and_reasons(tmp_path):
    """Each by its place in the whole table, also of a view; what can be read is not there."""
    (tmp_path / "a.png").write_bytes(png())
    X = [str(tmp_path / "a.png"), tmp_path / "b.png", png()[:-30], None, {"bytes": None, "path": "c.png"}, png()]
    images = open_table(X)
    found = find_unreadable(images, 2)
    assert [(one.position, one.path) for one in found] == [
        (1, str(tmp_path / "b.png")),
        (2, None),
        (3, None),
        (4, "c.png"),
    ]
    assert [one.reason.split(" (")[0] for one in found] == [
        "the file does not exist.",
        "the file is damaged or truncated",
        "the value is missing",
        "the file does not exist.",
    ]
    assert find_unreadable(images.take([5, 4, 0]), 1) == [found[-1]]


def test_every_kind_of_table(image_source):
    """Of good images none is found, whatever holds them."""
    assert find_unreadable(open_table(image_source.X), 2) == []


def test_numbers_that_are_no_pixels():
    """Of arrays in memory too."""
    X = np.random.default_rng(0).random((4, 6, 6, 3))
    X[2, 1, 1] = np.nan
    assert find_unreadable(open_table(X), 1) == [UnreadableImage(2, None, "the pixels contain NaN or infinity.")]


def test_what_a_reader_raises():
    """Of a user's function as well."""

    def fail(file):
        raise RuntimeError("unknown scanner")

    (one,) = find_unreadable(open_table(ImageReader(reader=fail).fit_transform([b"x"])), 1)
    assert one == UnreadableImage(0, None, "the reader raised RuntimeError (unknown scanner).")


def test_a_cache_knows_what_can_be_read(monkeypatch):
    """Good content is decoded once; bad content is bad again."""
    cache, images = MemoryCache(10**6), [png(4), png(5), b"no image"]
    first = find_unreadable(open_table(images), 1, cache=cache)
    told = []
    assert find_unreadable(open_table(images), 1, cache=cache, listeners=[lambda *n: told.append(n)]) == first
    assert len(first) == 1
    assert len(told) == 1  # the bad one


@pytest.mark.parametrize("n", [1, 2, 3, 6, 10, 11, 10_000])
@pytest.mark.parametrize("length", [8, 90, 3000])
def test_a_list_fits_into_a_message(n, length):
    """Up to ten, each by its position and the end of its path, and how many more; the first with its reason."""
    reason = "the file is damaged or truncated (the checksum of its IDAT chunk does not match)."
    found = [UnreadableImage(7 * i, f"{'x' * length}/img_{i:03}.png", reason) for i in range(n)]
    text = listed(found)
    assert len(text) < LIMIT - 150
    assert all(f"{one.position} (" in text and f"img_{i:03}.png'" in text for i, one in enumerate(found[:10]))
    assert (" more" in text) == (n > 10)
    assert f"and {n - 10} more" in text or n <= 10
    assert "the file is damaged" in text


def test_digests_of_a_table(tmp_path):
    """All that cannot be read are named by one error."""
    X = [png(), str(tmp_path / "b.png"), png(), b""]
    with pytest.raises(
        ImageError,
        match=r"^Image 1 \(.*b\.png.*does not exist; Image 3: .*\. At least 2 of 4 images cannot be read; .* all of",
    ):
        digests(open_table(X))
    assert len(digests(open_table(X).take([0, 2]))) == 2


def test_an_image_by_itself():
    """The error of a table of one image is that of the image."""
    with pytest.raises(ImageError, match=r"^Image 0: the file is empty \(0 bytes\)\.$"):
        digests(open_table([b""]))
