"""Odd files decode rightly, bad ones are refused by name, and Pillow's settings stay as they were."""

import errno
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from sktl._images import ImageFormat, Images, check_images
from sktl._images._decode import MAX_PIXELS
from sktl.exceptions import ImageError


class Holder:
    """An estimator that leaves everything at the door's defaults."""

    in_channels = 3


class GreyHolder(Holder):
    in_channels = 1


def decode(item, holder=Holder):
    return check_images(holder(), [item], reset=True)[0].decode()


def encode(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def smooth(height=32, width=48):
    """An RGB picture that JPEG keeps within a few levels, without any symmetry."""
    row, column = np.mgrid[0:height, 0:width]
    pixels = np.stack([row * 255 // (height - 1), column * 255 // (width - 1), (row + column) * 2], axis=-1)
    return pixels.astype(np.uint8)


def as_pillow(data):
    """What everyone writes by hand for an ordinary picture."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}, {"subsampling": 0}])
def test_jpeg_is_what_pillow_decodes(options):
    """Ordinary and progressive JPEGs: bit for bit Pillow's pixels, which the weights were trained on."""
    data = encode(Image.fromarray(smooth()), "JPEG", **options)
    np.testing.assert_array_equal(decode(data), as_pillow(data))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_keep_every_pixel(file_format):
    """Other formats by their content, whatever the file is called."""
    np.testing.assert_array_equal(decode(encode(Image.fromarray(smooth()), file_format)), smooth())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("as_pil", [False, True])
def test_exif_orientation(orientation, file_format, as_pil):
    """All eight ways to hold a camera give the upright picture, from files and from PIL images."""
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p.transpose(1, 0, 2)[::-1],
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    }[orientation](smooth())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 98} if file_format == "JPEG" else {}
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options)
    item = Image.open(io.BytesIO(data)) if as_pil else data
    np.testing.assert_allclose(decode(item).astype(int), smooth(), atol=8 if file_format == "JPEG" else 0)
    if as_pil:
        assert item.getexif().get(0x0112, 1) == (1 if file_format == "TIFF" else orientation)  # Pillow turns TIFFs


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own word on it
def test_damaged_exif_is_ignored():
    """Metadata that cannot be read says nothing about the pixels."""
    data = encode(Image.fromarray(smooth()), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01")
    np.testing.assert_array_equal(decode(data), as_pillow(data))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_grey_in_every_mode(mode):
    """The same black and white steps in every mode that PNG has come out as the same grey RGB."""
    values = np.where(smooth()[..., 1] > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    for item in (encode(image), image):
        np.testing.assert_array_equal(decode(item), np.repeat(values[..., np.newaxis], 3, axis=2))
        np.testing.assert_array_equal(decode(item, GreyHolder), values[..., np.newaxis])


@pytest.mark.parametrize("kind", ["png", "tiff", "I", "I;16", "I;16B"])
def test_16_bit_is_scaled(kind):
    """All 65536 levels are divided by 257 and rounded; Pillow alone would clip at 255."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = Image.fromarray(values)
    if kind == "I":
        image = Image.fromarray(values.astype(np.int32))
    elif kind == "I;16B":
        image = Image.frombytes("I;16B", (256, 256), values.astype(">u2").tobytes())
    item = encode(image, kind) if kind in ("png", "tiff") else image
    np.testing.assert_array_equal(decode(item)[..., 0], np.rint(values / 257))


def test_floats_in_a_pil_image():
    """Mode F in memory is an array like any other; in a file nothing says its range, so it is refused."""
    image = Image.fromarray(smooth()[..., 0].astype(np.float32) / 255)
    np.testing.assert_array_equal(decode(image)[..., 0], smooth()[..., 0])
    with pytest.raises(ImageError, match=r"value range of float images \(PIL mode 'F'\) is unknown"):
        decode(encode(image, "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_alpha_is_composited_on_white(mode):
    """What is transparent shows white, what is opaque shows itself, half is half."""
    levels = np.zeros((1, 3, 4), np.uint8)
    levels[0, :, 3] = 0, 128, 255
    image = Image.fromarray(levels)
    image = image.convert("LA") if mode in ("LA", "PA", "La") else image
    if mode == "PA":
        image.putpalette(bytes(np.repeat(np.arange(256, dtype=np.uint8), 3)))  # turns LA into PA
    image = image.convert(mode)
    assert image.mode == mode
    np.testing.assert_allclose(decode(image)[0, :, 0].astype(int), [255, 127, 0], atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour(mode):
    """One colour declared transparent (GIF, palette PNG, tRNS chunk) shows white."""
    image = Image.new(mode, (2, 1), 0)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 0, 0])
    image.putpixel((1, 0), {"P": 1, "L": 90, "RGB": (9, 8, 7)}[mode])
    transparent = (0, 0, 0) if mode == "RGB" else 0
    shown = {"P": [200, 0, 0], "L": [90, 90, 90], "RGB": [9, 8, 7]}[mode]
    np.testing.assert_array_equal(decode(encode(image, transparency=transparent))[0], [[255, 255, 255], shown])
    if mode == "P":
        np.testing.assert_array_equal(decode(encode(image, "GIF", transparency=0))[0], [[255, 255, 255], shown])


def test_palette_with_alpha_values():
    """A palette PNG with an alpha value per colour, where Pillow warns when converting it to RGB directly."""
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0])
    image.putdata([0, 1, 2])
    data = encode(image, transparency=bytes([0, 128, 255]))
    np.testing.assert_allclose(decode(data)[0, :, 0].astype(int), [255, 127, 0], atol=1)


def test_cmyk_jpeg():
    """CMYK, which JPEG stores inverted, has the colours of the RGB picture and not its negative."""
    data = encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=98)
    np.testing.assert_allclose(decode(data).astype(int), smooth(), atol=12)
    np.testing.assert_array_equal(decode(data), as_pillow(data))


def test_ycck_jpeg():
    """A JPEG that Photoshop marks as YCCK decodes as libjpeg and Pillow do, without a word."""
    data = bytearray(encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG"))
    marker = data.find(b"\xff\xee\x00\x0eAdobe")
    assert marker > 0
    data[marker + 15] = 2  # the transform byte: 0 is CMYK, 2 is YCCK
    np.testing.assert_array_equal(decode(bytes(data)), as_pillow(bytes(data)))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(file_format):
    """Of several frames the first one counts."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist()[0] > 250
    assert decode(data)[0, 0].tolist()[2] < 5


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_odd_sizes(size):
    """One pixel and one line are pictures."""
    assert decode(encode(Image.new("L", size, 7))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("file_format", "tolerant"),
    [*((name, False) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")), ("JPEG", True), ("PNG", True)],
)
def test_cut_short(tmp_path, monkeypatch, file_format, tolerant):
    """Half a file is an error by name, also while another library has told Pillow to make up the rest."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    decode(data)
    for keep in (len(data) // 2, len(data) - 40):
        path = tmp_path / "cut.jpg"
        path.write_bytes(data[:keep])
        with pytest.raises(ImageError, match=r"^Image 0 \('.*cut\.jpg'\): .*(truncated|not an image)"):
            decode(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


def test_made_up_pixels_are_another_picture(monkeypatch):
    """What Pillow is told to make up for a cut file is never found under the same key by a strict process."""
    data = encode(Image.new("RGB", (64, 64), "red"), "BMP")[:6000]
    digests = set()
    for tolerant in (True, False):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
        digests.add(Images([data], ImageFormat(kind="files"), 3)[0].digest)
    assert len(digests) == 2


def test_text_called_jpg(tmp_path):
    """A text file is named, with how it begins."""
    (tmp_path / "notes.jpg").write_text("404: not found")
    with pytest.raises(ImageError, match=r"notes\.jpg.*not an image.*b'404: not fou'"):
        decode(tmp_path / "notes.jpg")


def test_empty_missing_and_directory(tmp_path):
    """No bytes, no file, no file but a folder: each says so."""
    (tmp_path / "empty.png").touch()
    folder = "is a folder.*load_image_folder"
    for path, message in (("empty.png", "0 bytes"), ("missing.png", "does not exist"), (".", folder)):
        with pytest.raises(ImageError, match=message):
            decode(tmp_path / path)
    with pytest.raises(ImageError, match=r"^Image 0: .*0 bytes"):
        decode(b"")


def test_unreadable(monkeypatch):
    """A file that may not be read says so."""

    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png.*Permission denied"):
        decode("secret.png")


def bomb(width, height):
    """A PNG of a few hundred bytes that claims any size."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [10_000, 40_000])
@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("limit", [MAX_PIXELS, None])
def test_decompression_bombs(monkeypatch, width, action, limit):
    """Never decoded: where Pillow warns, where it raises, and where another library has switched both off."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr("sktl._images._read_settings.memory", lambda: 0)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the bomb was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ImageError, match="decompression bomb"):
            decode(bomb(width, 10_000))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_lazy_pil_bomb(monkeypatch):
    """A PIL image that was only opened is not decoded either."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="decompression bomb"):
        decode(Image.open(io.BytesIO(bomb(40_000, 10_000))))


def test_damaged_pil_image():
    """A PIL image whose file is cut short is named when its pixels are needed."""
    data = encode(Image.fromarray(smooth()), "PNG")
    with pytest.raises(ImageError, match="Image 0: this PIL image cannot be read"):
        decode(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_pil_image_stays_as_it_was():
    """Nothing is changed in a user's image."""
    image = Image.fromarray(smooth()).convert("P")
    before = image.mode, image.tobytes(), dict(image.info)
    decode(image)
    assert (image.mode, image.tobytes(), dict(image.info)) == before


def test_digest_is_of_content(tmp_path):
    """Equal bytes under two names share a digest; another picture under the same name, or other channels, do not."""
    first, second = encode(Image.fromarray(smooth())), encode(Image.fromarray(smooth()[::-1]))
    (tmp_path / "a.png").write_bytes(first)
    (tmp_path / "b.png").write_bytes(first)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    a, b = (image.digest for image in check_images(Holder(), paths, reset=True))
    grey = check_images(GreyHolder(), paths, reset=True)[0].digest
    (tmp_path / "a.png").write_bytes(second)
    changed = check_images(Holder(), paths, reset=True)[0].digest
    assert a == b
    assert len({a, grey, changed}) == 3


def test_real_photos(shared_data):
    """Photos from the wild are bit for bit what everyone's two lines give."""
    paths = sorted(shared_data.glob("hymenoptera/val/ants/*"))[:5]
    for image, path in zip(check_images(Holder(), paths, reset=True), paths, strict=True):
        np.testing.assert_array_equal(image.decode(), as_pillow(path.read_bytes()))
