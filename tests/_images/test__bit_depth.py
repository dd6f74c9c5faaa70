"""How many bits 16-bit images use is learned at fit, from arrays and from files, and kept."""

import builtins
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sktl import PretrainedFeatureExtractor
from sktl._images import check_images
from sktl.exceptions import ImageWarning
from sktl.preprocessing import ImageReader


class Column(Sequence):
    """One item that is made each time, as of Hugging Face's datasets that decode nothing."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return {"bytes": None, "path": [self.path][index]}


def save(values, path):
    Image.fromarray(values).save(path)
    return str(path)


@pytest.mark.parametrize("shift", [2, 4, 6, 7])
@pytest.mark.parametrize("form", ["batch", "rows", "list", "pil", "big-endian"])
def test_arrays(gray, decode, shift, form):
    """uint16 of 10 to 15 bits: scaled by what fit saw, with a warning, as the same numbers of another type are."""
    values = (gray.astype("u2") << shift)[np.newaxis]
    X = {
        "batch": values,
        "rows": values.reshape(1, -1),
        "list": list(values),
        "pil": [Image.fromarray(values[0])],
        "big-endian": values.astype(">u2"),
    }[form]
    with pytest.warns(ImageWarning, match=f"range from 0 to {252 << shift}.*value_range"):
        pixels = decode(X)[0]
    with pytest.warns(ImageWarning):
        same = decode(values.astype("i4"))[0]
    np.testing.assert_allclose(pixels.astype(int), same, atol=1)  # a half rounds up or down with the precision
    assert len(np.unique(pixels)) == 253


def test_all_of_16_bits_are_silent(gray, decode):
    """A value in the upper half: the type's own range, at fit and afterwards."""
    values = (gray.astype("u2") * 257)[np.newaxis]
    np.testing.assert_array_equal(decode(values)[0][..., 0], gray)
    np.testing.assert_array_equal(decode(values // 2, fitted_on=values)[0][..., 0], np.rint(values[0] // 2 / 257))


def test_the_range_is_kept(gray, holder, decode):
    """After a fit on 12 bits a darker image stays darker, and brighter values are clipped."""
    values = (gray.astype("u2") * 16)[np.newaxis]
    with pytest.warns(ImageWarning, match="4032"):
        dark, bright = (decode(values * factor // 2, fitted_on=values)[0] for factor in (1, 4))
    np.testing.assert_allclose(dark[..., 0], gray * (255 / 252) / 2, atol=1)
    assert bright.max() == 255
    estimator = holder()
    with pytest.warns(ImageWarning):
        check_images(estimator, values, reset=True)
    assert estimator.image_format_.uint16_range == estimator.image_format_.value_range == (0, 4032)


@pytest.mark.parametrize(("shift", "bits"), [(1, 9), (2, 10), (4, 12), (6, 14)])
@pytest.mark.parametrize("kind", ["png", "tif", "bytes", "dict", "file", "lazy"])
def test_files(gray, decode, tmp_path, shift, bits, kind):
    """Files of 16 bits of which fewer are used: fit learns how many, with a warning."""
    path = save(gray.astype("u2") << shift, tmp_path / ("a.tif" if kind == "tif" else "a.png"))
    data = Path(path).read_bytes()
    X = {"bytes": [data], "dict": [{"bytes": data}], "file": [io.BytesIO(data)], "lazy": Column(path)}.get(kind, [path])
    with pytest.warns(ImageWarning, match=f"{bits}-bit images, with {2**bits - 1} as white"):
        pixels = decode(X)[0]
    np.testing.assert_array_equal(pixels[..., 0], np.rint((gray.astype(int) << shift) * (255 / (2**bits - 1))))


def test_other_formats_of_16_bits(gray, decode, encode):
    """PGM files of 12 bits in 16, and colors beside full transparency, are learned as well."""
    values = gray.astype("u2") * 16
    pgm = b"P5 64 64 65535\n" + values.astype(">u2").tobytes()
    with pytest.warns(ImageWarning, match="12-bit images"):
        np.testing.assert_array_equal(decode([pgm])[0][..., 0], np.rint(values * (255 / 4095)))
    whole = b"P5 64 64 4095\n" + values.astype(">u2").tobytes()  # which states its depth
    np.testing.assert_allclose(decode([whole])[0][..., 0], values * (255 / 4095), atol=1)


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
@pytest.mark.parametrize("kind", ["pgm", "jp2"])
def test_value_range_of_a_format_that_pillow_stretches(gray, decode, bits, kind):
    """The range is that of the file's own numbers, whatever Pillow makes of them (Sentinel-2: 15 bits, JPEG 2000)."""
    values = gray.astype("u2") << (bits - 8)
    if kind == "pgm":
        data = b"P5\n# by a scanner\n64 64\n%d\n" % (2**bits - 1) + values.astype(">u2").tobytes()
    else:
        data = imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits, reversible=True, codecformat="jp2")
    top = 252 << (bits - 8)
    pixels = decode(ImageReader(value_range=(0, top // 2)).fit_transform([data]))[0][..., 0]
    np.testing.assert_allclose(pixels, np.minimum(gray * (255 / 126), 255), atol=1)
    np.testing.assert_allclose(decode([data])[0][..., 0], gray, atol=1)


def test_transparency_does_not_count(rgb, decode, make_png):
    """The highest value is that of the colors."""
    values = np.concatenate([rgb.astype(int) * 16, np.full((64, 64, 1), 65535)], -1)
    with pytest.warns(ImageWarning, match="12-bit images"):
        pixels = decode([make_png(values, 16, 6)])[0]
    np.testing.assert_allclose(pixels, rgb * (16 * 255 / 4095), atol=1)


def test_a_few_files_speak_for_all(gray, decode, tmp_path, monkeypatch):
    """At most sixteen of a long table are opened, over its whole length; broken ones are passed over."""
    path = save(gray.astype("u2") * 16, tmp_path / "a.png")
    X = [str(tmp_path / "missing.png")] * 500 + [path] * 500
    opened = []
    true_open = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *args: opened.append(file) or true_open(file, *args))
    with pytest.warns(ImageWarning, match="12-bit images"):
        check_images(PretrainedFeatureExtractor(), X, reset=True)
    assert len([file for file in opened if str(file).startswith(str(tmp_path))]) <= 32  # its head, then all of it


def test_the_reader_says_it(gray, decode, tmp_path):
    """ImageReader(value_range=) is silent and sure, for arrays, for files, and for what a function reads."""
    values = gray.astype("u2") * 16
    path = save(values, tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values)
    expected = np.rint(values * (255 / 4095))
    for X, reader in (
        (values[np.newaxis], ImageReader(value_range=(0, 4095))),
        ([values], ImageReader(value_range=(0, 4095))),
        (values.reshape(1, -1), ImageReader(value_range=[0, 4095])),
        ([path], ImageReader(value_range=(0, 4095))),
        ([Image.open(path)], ImageReader(value_range=(0, 4095))),
        ([str(tmp_path / "a.npy")], ImageReader(value_range=(0, 4095), reader=np.load)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(decode(reader.fit_transform(X))[0][..., 0], expected)


def test_a_dark_file_after_a_fit_on_others(gray, tmp_path, rgb, decode, encode):
    """After a fit on 8-bit files, one of 12 bits in 16 is nearly black: said, and not scaled by itself."""
    path = save(gray.astype("u2") * 16, tmp_path / "a.png")
    with pytest.warns(ImageWarning, match="nearly black"):
        assert decode([path], fitted_on=[encode(rgb)])[0].max() == 16


def test_another_range_has_another_digest(gray, tmp_path, holder):
    """The cache does not take an image that was read by one range for one that was read by another."""
    path = save(gray.astype("u2") * 16, tmp_path / "a.png")
    with pytest.warns(ImageWarning):
        learned = check_images(holder(), [path], reset=True)[0].digest
    tables = [ImageReader(value_range=(0, high)).fit_transform([path]) for high in (4095, 5000)]
    assert len({learned, *(check_images(holder(), X, reset=True)[0].digest for X in tables)}) == 3
