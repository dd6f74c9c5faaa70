"""TIFFs of every depth mean what they say, and those that say nothing of it are named with the way out."""

import io

import numpy as np
import pytest
import tifffile

from sktl._images import _tiff
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import ImageReader


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_integers_of_few_bits(gray, encode_tiff, decode, bits):
    """10, 12 or 14 bits: black is 0 and white is all of them, whatever the image holds."""
    values = (gray.astype("u2") << (bits - 8)) + (gray >> (16 - bits))
    pixels = decode([encode_tiff(values, bitspersample=bits)])[0]
    assert (pixels.min(), pixels.max(), round(pixels.mean())) == (0, 252, 126)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: (g.astype(int) - 128).astype("i1"),
        lambda g: (g.astype(int) * 257 - 32768).astype("i2"),
        lambda g: (g.astype("i8") * 16843009 - 2**31).astype("i4"),
        lambda g: g.astype("u2") * 257,
        lambda g: g.astype("u4") * 16843009,
    ],
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("color", ["minisblack", "miniswhite", "rgb", "planes"])
def test_signed_and_wide_integers(gray, rgb, encode_tiff, decode, make, byteorder, color):
    """Signed or not, of 8 to 32 bits, inverted, in color, plane after plane: always the same pixels."""
    if color == "minisblack":
        data = encode_tiff(make(gray), photometric="minisblack", byteorder=byteorder)
    elif color == "miniswhite":
        data = encode_tiff(make(255 - gray), photometric="miniswhite", byteorder=byteorder)
    elif color == "rgb":
        data = encode_tiff(make(rgb), photometric="rgb", byteorder=byteorder)
    else:
        planes = np.ascontiguousarray(np.moveaxis(make(rgb), -1, 0))
        data = encode_tiff(planes, photometric="rgb", planarconfig="separate", byteorder=byteorder)
    expected = rgb if color in ("rgb", "planes") else np.repeat(gray[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(decode([data])[0], expected)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("predictor", [False, True])
def test_packed(gray, encode_tiff, decode, compression, predictor):
    """Packing and predictors change nothing, in Pillow's way or in tifffile's."""
    for values, options in ((gray.astype("u2") * 257, {}), (255 - gray, {"photometric": "miniswhite"})):
        is_predicted = predictor and compression not in (None, "packbits")
        data = encode_tiff(values, compression=compression, predictor=is_predicted, **options)
        np.testing.assert_array_equal(decode([data])[0][..., 0], gray)


def test_palette_cmyk_and_alpha(gray, rgb, encode_tiff, decode):
    """Other colors than gray and RGB, of 16 bits too: as their 8-bit siblings, transparency on white."""
    colors = np.stack([np.arange(256)[::-1] * 257, np.arange(256) * 257, np.zeros(256)]).astype("u2")
    pixels = decode([encode_tiff(gray, photometric="palette", colormap=colors)])[0]
    np.testing.assert_array_equal(pixels, np.stack([255 - gray, gray, np.zeros_like(gray)], -1))
    alpha = np.full_like(gray, 51)
    for name, color, extra in (("rgb", rgb, "unassalpha"), ("minisblack", gray[..., np.newaxis], "unassalpha")):
        small = np.concatenate([color, alpha[..., np.newaxis]], -1)
        options = {"photometric": name, "extrasamples": [extra], "planarconfig": "contig"}
        pairs = decode([encode_tiff(small, **options), encode_tiff(small.astype("u2") * 257, **options)])
        np.testing.assert_allclose(pairs[1].astype(int), pairs[0].astype(int), atol=1)
        np.testing.assert_allclose(pairs[1], color * 0.2 + 255 * 0.8 + np.zeros(3), atol=1)
    cmyk = np.concatenate([rgb, gray[..., np.newaxis]], -1)
    options = {"photometric": "separated"}
    pairs = decode([encode_tiff(cmyk, **options), encode_tiff((cmyk.astype(int) - 128).astype("i1"), **options)])
    np.testing.assert_array_equal(*pairs)


def test_premultiplied_alpha(gray, encode_tiff, decode):
    """Colors that were multiplied by the transparency already are not multiplied again."""
    alpha = np.full((64, 64), 128, "u2") * 257
    values = np.stack([gray.astype("u2") * 128, alpha], -1)  # about gray times alpha, of 16 bits
    pixels = decode([encode_tiff(values, photometric="minisblack", extrasamples=["assocalpha"])])[0]
    np.testing.assert_allclose(pixels[..., 0], gray.astype(int) * 128 / 257 + 127, atol=1)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda g, rgb: (rgb / 255).astype("f4"), "float32 RGB"),
        (lambda g, rgb: (g / 255).astype("f8"), "float64 gray"),
        (lambda g, rgb: (g / 255).astype("f2"), "float16 gray"),
    ],
)
def test_floats_are_named_with_the_way_out(gray, rgb, encode_tiff, decode, make, kind):
    """Nothing in the file says black and white: the error says what kind of TIFF it is, and who can say it."""
    values = make(gray, rgb)
    color = "rgb" if values.ndim == 3 else "minisblack"
    with pytest.raises(ImageError, match=rf"a TIFF of {kind}.*ImageReader\(value_range"):
        decode([encode_tiff(values, photometric=color)])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_with_a_value_range(gray, rgb, encode_tiff, decode, dtype):
    """ImageReader says what the numbers mean, of gray and of color."""
    reader = ImageReader(value_range=(0, 1))
    for values, color in ((gray, "minisblack"), (rgb, "rgb")):
        data = encode_tiff((values / 255).astype(dtype), photometric=color)
        pixels = decode(reader.fit_transform([data]))[0]
        np.testing.assert_array_equal(pixels, values if color == "rgb" else np.repeat(values[..., None], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(gray, encode_tiff, decode, orientation):
    """tifffile leaves the orientation to others: it is applied as Pillow applies it."""
    options = {"extratags": [(274, 3, 1, orientation, True)]}
    image = gray[:40, :30]
    signed = (image.astype(int) - 128).astype("i1")
    by_pillow, by_tifffile = decode([encode_tiff(image, **options), encode_tiff(signed, **options)])
    if orientation > 1:
        assert not np.array_equal(by_pillow[..., 0], image)
    np.testing.assert_array_equal(by_tifffile, by_pillow)


def test_many_bands(gray, encode_tiff, decode):
    """Bands are taken all, or by a reader; they are never dropped silently."""
    bands = np.stack([gray, 255 - gray, gray // 2, gray // 3, gray // 4], -1)
    data = encode_tiff(bands, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(decode([data], in_channels=5)[0], bands)
    with pytest.raises(ImageError, match=r"8-bit gray values in 5 bands.*Set in_channels=5 to use all bands"):
        decode([data])
    two = encode_tiff(bands[..., :2], photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="in 2 bands"):  # Pillow takes the first and says nothing
        decode([two])


def test_floats_that_are_no_numbers(rgb, encode_tiff, decode):
    """NaN and infinity are errors whoever reads them, and complex numbers are no image."""
    reader = ImageReader(value_range=(0, 1))
    for dtype, bad in (("f4", np.nan), ("f8", np.inf)):
        values = (rgb / 255).astype(dtype)
        values[3, 4, 1] = bad
        with pytest.raises(ImageError, match="NaN or infinity"):
            decode(reader.fit_transform([encode_tiff(values, photometric="rgb")]))
    with pytest.raises(ImageError, match=r"complex64.*not an image"):
        decode(reader.fit_transform([encode_tiff(rgb[..., 0].astype("c8"))]))


def test_transparency_has_its_own_range(rgb, encode_tiff, make_png, decode):
    """A value range is that of the colors: 12 bits of these beside 16 of transparency."""
    values = np.concatenate([rgb.astype("u2") * 16, np.full((64, 64, 1), 32768, "u2")], -1)
    tiff = encode_tiff(values, photometric="rgb", extrasamples=["unassalpha"])
    for data in (tiff, make_png(values, 16, 6)):
        pixels = decode(ImageReader(value_range=(0, 4095)).fit_transform([data]))[0]
        np.testing.assert_allclose(pixels, rgb * (16 * 255 / 4095) / 2 + 127.5, atol=1.5)


@pytest.mark.parametrize("compression", ["lerc", "jpegxl", "jpeg2000", "png", "jpegxr"])
def test_packings_that_pillow_does_not_know(gray, encode_tiff, decode, compression):
    """What Pillow refuses goes through tifffile by itself."""
    np.testing.assert_array_equal(decode([encode_tiff(gray, compression=compression)])[0][..., 0], gray)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_three_bands_that_nobody_calls_colors(rgb, encode_tiff, decode, planar):
    """Three bands without transparency are red, green and blue."""
    values = rgb if planar == "contig" else np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    data = encode_tiff(values, photometric="minisblack", planarconfig=planar)
    np.testing.assert_array_equal(decode([data])[0], rgb)


def test_jpeg_in_a_tiff(rgb, encode_tiff, decode):
    """A TIFF of JPEG tiles is read by either."""
    data = encode_tiff(rgb, photometric="rgb", compression="jpeg")
    one, other = decode([data])[0], decode(ImageReader(reader="tifffile").fit_transform([data]))[0]
    np.testing.assert_allclose(one.astype(int), other, atol=8)


@pytest.mark.parametrize("dtype", ["u4", "i4", "i2"])
def test_few_levels_of_many_are_said(gray, encode_tiff, decode, dtype):
    """12 bits in a signed or 32-bit file: it is read as the file says, with a warning that names the way out."""
    data = encode_tiff(gray.astype(dtype) * 16)
    with pytest.warns(ImageWarning, match=r"^Image 0: the file is a TIFF.*use 4033 of \d+ levels.*value_range"):
        decode([data])
    pixels = decode(ImageReader(value_range=(0, 4095)).fit_transform([data]))[0]
    np.testing.assert_array_equal(pixels[..., 0], np.rint(gray * (16 * 255 / 4095)))


def test_pages(gray, encode_tiff, decode, tmp_path):
    """page= chooses an image of the file, for Pillow and for tifffile; one that is not there is an error."""
    stack = np.stack([gray, 255 - gray])
    for values in (stack, (stack.astype(int) - 128).astype("i1")):
        data = encode_tiff(values, photometric="minisblack")
        for page in (0, 1):
            pixels = decode(ImageReader(page=page).fit_transform([data]))[0]
            np.testing.assert_array_equal(pixels[..., 0], stack[page])
        with pytest.raises(ImageError, match=r"page=2 must be less than the number of pages in the TIFF \(2\)"):
            decode(ImageReader(page=2).fit_transform([data]))


def test_without_tifffile(gray, rgb, encode_tiff, decode, monkeypatch):
    """What Pillow reads right needs nothing else; of the rest the error names the extra, and nothing is guessed."""
    monkeypatch.setattr(_tiff, "is_installed", lambda package: False)
    np.testing.assert_array_equal(decode([encode_tiff(gray.astype("u2") * 257)])[0][..., 0], gray)
    np.testing.assert_array_equal(decode([encode_tiff(rgb, photometric="rgb")])[0], rgb)
    for values, options in (
        ((gray.astype(int) - 128).astype("i1"), {}),
        (gray.astype("u2") * 16, {"bitspersample": 12}),
        (65535 - gray.astype("u2") * 257, {"photometric": "miniswhite"}),
    ):
        with pytest.raises(ImageError, match=r"a TIFF of .* values, which Pillow cannot read correctly.*sktl\[tiff\]"):
            decode([encode_tiff(values, **options)])


def test_tifffile_reads_what_pillow_reads(gray, rgb, encode_tiff, decode):
    """reader="tifffile" gives the same pixels for ordinary files."""
    files = [encode_tiff(gray), encode_tiff(rgb, photometric="rgb"), encode_tiff(gray.astype("u2") * 257)]
    files += [encode_tiff(gray > 127), encode_tiff(gray >> 4, bitspersample=4)]
    for one, other in zip(decode(files), decode(ImageReader(reader="tifffile").fit_transform(files)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_raw_files_of_cameras(gray, encode_tiff, decode):
    """The first image in a raw file is a small preview: it is not taken for the photo."""
    dng = encode_tiff(gray, extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(gray[::4, ::4], subfiletype=1, subifds=1)
        file.write(gray)
    for data in (dng, stream.getvalue(), encode_tiff(gray, photometric="cfa")):
        with pytest.raises(ImageError, match=r"a camera raw file.*rawpy"):
            decode([data])


def test_damage_in_a_deflated_tiff(rgb, encode_tiff, decode):
    """The checksum of packed strips is compared, in Pillow's way too, where libtiff leaves it out."""
    data = bytearray(encode_tiff(rgb, photometric="rgb", compression="zlib"))
    decode([bytes(data)])
    middle = len(data) // 2
    data[middle - 50 : middle + 50] = bytes(100)
    with pytest.raises(ImageError, match="damaged"):
        decode([bytes(data)])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own words on it
def test_damaged_tags(encode_tiff, gray, decode):
    """A TIFF that is cut short, or whose tags are noise, is an error by name, whatever breaks inside."""
    data = encode_tiff(gray)
    for damaged in (data[:8], data[:100], data[: len(data) // 2], data[:4] + b"\xff" * 40, b"II*\0" + data[50:]):
        with pytest.raises(ImageError, match=r"^Image 0: "):
            decode([damaged])
