"""How large an image may be, and when a JPEG is decoded reduced."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from sktl._images import _decode, _read_settings
from sktl._images._read_settings import MAX_PIXELS, ReadSettings, pixel_limit
from sktl.exceptions import ImageError
from sktl.preprocessing import ImageReader


def test_limit(monkeypatch):
    """A sixteenth of the memory at four bytes a pixel, at least Pillow's own limit, or what the user says."""
    monkeypatch.setattr(_read_settings, "memory", lambda: 64 * 1024**3)
    assert pixel_limit("auto") == 1024**3
    monkeypatch.setattr(_read_settings, "memory", lambda: 0)
    assert pixel_limit("auto") == MAX_PIXELS
    assert pixel_limit(7) == 7


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    """The smaller of the machine's memory and the container's limit counts."""
    _read_settings.memory.cache_clear()
    monkeypatch.setattr(_read_settings.Path, "read_text", lambda self: "123456789\n")
    assert _read_settings.memory() == 123456789
    _read_settings.memory.cache_clear()
    monkeypatch.setattr(_read_settings.Path, "read_text", lambda self: "max\n")
    assert _read_settings.memory() > 123456789
    _read_settings.memory.cache_clear()


@pytest.mark.parametrize("action", ["error", "always"])
@pytest.mark.parametrize("as_pil", [False, True])
def test_large_photos_are_read(monkeypatch, encode, decode, rgb, action, as_pil):
    """Between Pillow's limit and ours no error and no warning comes, whatever the filters say; beyond ours an error."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encode(rgb)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter(action)
        np.testing.assert_array_equal(decode([data])[0], rgb)
        np.testing.assert_array_equal(decode(ImageReader(max_pixels=4096).fit_transform([data]))[0], rgb)
        with pytest.raises(ImageError, match=r"64 x 64 pixels; the limit is 4095.*max_pixels"):
            decode(ImageReader(max_pixels=4095).fit_transform([data]))
    assert record == []


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_format_beyond_pillows_error(monkeypatch, encode, decode, rgb, file_format):
    """Twice Pillow's limit is an error of Pillow's, which does not count here."""
    data = encode(rgb, file_format)
    expected = decode([data])[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    if file_format == "WEBP":  # the one plugin that has the limit in itself
        with pytest.raises(ImageError, match=r"Pillow does not open.*4096 pixels.*reader="):
            decode([data])
    else:
        np.testing.assert_array_equal(decode([data])[0], expected)


def smooth(height, width):
    row, column = np.mgrid[:height, :width]
    return np.stack([row * 255 // height, column * 255 // width, (row + column) % 256], -1).astype("u1")


@pytest.mark.parametrize(("factor", "side"), [(1, 1024), (2, 512), (4, 256), (8, 128)])
def test_very_large_jpegs_are_reduced(monkeypatch, encode, decode, factor, side):
    """As far as the shorter side keeps what it must; and never one that is not very large."""
    monkeypatch.setattr(_decode, "_REDUCED_SIDE", side)
    data = encode(smooth(1024, 1200), "JPEG", quality=95)
    assert decode([data])[0].shape == (1024, 1200, 3)
    monkeypatch.setattr(_decode, "MAX_PIXELS", 10**6)
    reduced = decode([data])[0]
    assert reduced.shape == (1024 // factor, 1200 // factor, 3)
    small, expected = (
        np.asarray(Image.fromarray(pixels).resize((48, 40), Image.Resampling.BILINEAR)).astype(int)
        for pixels in (reduced, smooth(1024, 1200))
    )
    assert np.abs(small - expected)[..., :2].max() <= 3


def test_progressive_jpegs_are_not_reduced(monkeypatch, encode, decode):
    """libjpeg holds all of a progressive one, so that its own size counts."""
    monkeypatch.setattr(_decode, "_REDUCED_SIDE", 128)
    monkeypatch.setattr(_decode, "MAX_PIXELS", 10**6)
    data = encode(smooth(1024, 1200), "JPEG", progressive=True)
    assert decode([data])[0].shape == (1024, 1200, 3)
    with pytest.raises(ImageError, match="1200 x 1024 pixels"):
        decode(ImageReader(max_pixels=10**6).fit_transform([data]))


def test_orientation_of_a_reduced_jpeg(monkeypatch, decode):
    """A photo that was taken upright is turned, whatever its size."""
    monkeypatch.setattr(_decode, "_REDUCED_SIDE", 128)
    monkeypatch.setattr(_decode, "MAX_PIXELS", 10**6)
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(smooth(1024, 1200)).save(stream, "JPEG", exif=exif)
    assert decode([stream.getvalue()])[0].shape == (150, 128, 3)


def read_a(path):
    return 1


def test_key_of_a_reading():
    """What decides pixels is in the key, and also what decides whether there are any: how large an image may be."""
    keys = [ReadSettings(), ReadSettings((0, 4095)), ReadSettings(None, (0, 4095)), ReadSettings(page=1)]
    keys += [ReadSettings(reader="tifffile"), ReadSettings(max_pixels=7)]
    keys += [ReadSettings(reader=read_a), ReadSettings(reader=lambda path: 2)]
    assert len({reading.key for reading in keys}) == len(keys)
