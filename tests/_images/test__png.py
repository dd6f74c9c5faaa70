"""PNG: damage that its checksums show, text that no pixel needs, transparency of every depth."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from sktl._images import _decode, _png
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader


def picture(n=256):
    x, y = np.mgrid[:n, :n]
    return np.stack([(x + y) // 2 % 256, x % 256, 255 - y % 256], -1).astype("u1")


@pytest.mark.parametrize("as_gray", [False, True])
@pytest.mark.parametrize("n_bytes", [1, 200])
@pytest.mark.parametrize("tolerant", [False, True])
def test_damaged_pixels(encode, decode, monkeypatch, as_gray, n_bytes, tolerant):
    """Changed bytes in the middle give wrong pixels in Pillow, and an error here."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = bytearray(encode(picture()[..., 0] if as_gray else picture()))
    decode([bytes(data)])
    middle = len(data) // 2
    data[middle : middle + n_bytes] = bytes(value ^ 255 for value in data[middle : middle + n_bytes])
    with pytest.raises(ImageError, match=r"damaged or truncated \(the checksum of its IDAT chunk"):
        decode([bytes(data)])


def test_damaged_palette_and_header(make_png, decode):
    """A palette, transparency or header whose checksum does not match decides the pixels too."""
    indices = np.arange(4).reshape(2, 2)
    good = make_png(indices, 8, 3, PLTE=bytes(range(12)))
    assert decode([good])[0][0, 1].tolist() == [3, 4, 5]
    for kind in (b"PLTE", b"IHDR"):
        data = bytearray(good)
        data[data.find(kind) + 5] ^= 1
        with pytest.raises(ImageError, match=f"checksum of its {kind.decode()} chunk"):
            decode([bytes(data)])
    data = bytearray(good)
    data[data.find(b"IDAT") - 4 : data.find(b"IDAT") + 4] = bytes(8)
    with pytest.raises(ImageError, match="checksum of its header"):
        decode([bytes(data)])


def test_damaged_png_in_an_icon(encode, decode):
    """An icon holds PNG files, which are looked at as well."""
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "ICO", sizes=[(256, 256)])
    data = bytearray(stream.getvalue())
    decode([bytes(data)])
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    with pytest.raises(ImageError, match="IDAT"):
        decode([bytes(data)])


@pytest.mark.parametrize("kind", ["pHYs", "gAMA", "cHRM", "sRGB", "tIME", "sBIT"])
def test_other_chunks_do_not_matter(make_png, decode, kind):
    """A damaged resolution or date: no pixel depends on it."""
    values = np.arange(16).reshape(4, 4)
    data = bytearray(make_png(values, 8, **{kind: bytes(range(9))}))
    data[data.find(kind.encode()) + 6] ^= 255
    np.testing.assert_array_equal(decode([bytes(data)])[0][..., 0], values)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
def test_text_does_not_matter(make_png, decode, kind):
    """Text of three megabytes, or damaged: the pixels do not need it."""
    packed = zlib.compress(b"x" * 3_000_000)
    body = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0", "tEXt": b"a\0"}[kind] + packed
    values = np.arange(16).reshape(4, 4)
    data = bytearray(make_png(values, 8, **{kind: body}))
    np.testing.assert_array_equal(decode([bytes(data)])[0][..., 0], values)
    data[data.find(kind.encode()) + 20] ^= 255
    np.testing.assert_array_equal(decode([bytes(data)])[0][..., 0], values)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("as_pil", [False, True])
def test_transparent_level_of_every_depth(make_png, decode, depth, as_pil):
    """A gray level that is declared transparent becomes white, and no other level does."""
    top = 2**depth - 1
    levels = np.array([[0, top // 3, top // 2, top]] * 2)
    for level in sorted({0, top // 3, top}):
        data = make_png(levels, depth, 0, struct.pack(">H", level))
        item = Image.open(io.BytesIO(data)) if as_pil else data
        expected = np.where(levels == level, 255, np.rint(levels * 255 / top))
        np.testing.assert_array_equal(decode([item])[0][..., 0], expected)
        if as_pil:
            assert item.info["transparency"] == (255 if depth == 1 and level else level)  # as Pillow left it


def test_upper_half_transparent(make_png, decode, gray):
    """16-bit gray, 0 transparent: the upper half, all 0, is white."""
    values = gray.astype("u2") * 257
    values[:32] = 0
    pixels = decode([make_png(values, 16, 0, b"\0\0")])[0]
    assert (pixels[:32] == 255).all()
    np.testing.assert_array_equal(pixels[32:, :, 0], np.where(values[32:] == 0, 255, gray[32:]))


@pytest.mark.parametrize("transparent", [(0x0912, 0x0834, 0x0756), (0, 0, 0), (0xFFFF, 0xFFFF, 0xFFFF)])
def test_transparent_color_of_16_bits(make_png, decode, transparent):
    """The same for a color: Pillow compares its low bytes with the high bytes of the pixels."""
    values = np.array([[transparent, (0xF012, 0x0100, 0x2000), (0x1234, 0x5678, 0x9ABC)]])
    pixels = decode([make_png(values, 16, 2, struct.pack(">HHH", *transparent))])[0]
    assert pixels[0].tolist() == [[255, 255, 255], [0xF0, 1, 0x20], [0x12, 0x56, 0x9A]]


def test_color_of_which_few_bits_are_used(make_png, decode):
    """12 bits in a PNG of 16-bit colors: with a value range all of them count, and not Pillow's high byte alone."""
    values = np.arange(4096)[:: 4096 // 64][:64].reshape(8, 8, 1) + np.zeros(3, int)
    data = make_png(values, 16, 2)
    pixels = decode(ImageReader(value_range=(0, 4095)).fit_transform([data]))[0]
    np.testing.assert_array_equal(pixels, np.rint(values * (255 / 4095)))


def test_color_without_imagecodecs(make_png, decode, monkeypatch):
    """With a value range of the user's the error names the extra; without one Pillow's high byte is what there is."""
    monkeypatch.setattr(_png, "is_installed", lambda package: False)
    monkeypatch.setattr(_decode, "is_installed", lambda package: False)
    data = make_png(np.full((4, 4, 3), 0x1234), 16, 2)
    with pytest.raises(ImageError, match=r"PNG with 16-bit colors.*sktl\[tiff\]"):
        decode(ImageReader(value_range=(0, 8191)).fit_transform([data]))
    with pytest.warns(ImageWarning, match="13-bit images"):
        assert decode([data])[0].max() == 0x12


@pytest.mark.parametrize("page", [0, 1])
def test_damaged_frames_of_an_animation(encode, decode, page):
    """A frame that is not wanted may be damaged."""
    frames = [Image.fromarray(np.roll(picture(64), shift, 0)) for shift in (0, 20)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    data = bytearray(stream.getvalue())
    data[data.find(b"fdAT") + 30] ^= 255
    X = ImageReader(page=page).fit_transform([bytes(data)])
    if page:
        with pytest.raises(ImageError, match="checksum of its fdAT"):
            decode(X)
    else:
        np.testing.assert_array_equal(decode(X)[0], picture(64))
