"""A file that is whole and of another kind is called what it is, with the package that reads it."""

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from sktl._images._signatures import FORMATS, allowed_formats, describe
from sktl.exceptions import ImageError
from sktl.preprocessing import ImageReader

# Headers of drawings of 8 x 8 inches.
WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 800, 800, 100) + bytes(6) + b"\x01\0\t\0\0\x03" + bytes(40)
EMF = struct.pack("<II8i", 1, 108, 0, 0, 799, 799, 0, 0, 20000, 20000) + b" EMF" + bytes(60)


@pytest.mark.parametrize(
    ("data", "kind", "way_out"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC", "register_heif_opener"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "pillow_jxl"),
        (b"II\xbc\x01 \0\0\0", "JPEG XR", "imagecodecs"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="', "SVG", "cairosvg"),
        (b"<svg xmlns=", "SVG", "cairosvg"),
        (b"%PDF-1.7", "PDF", "pymupdf"),
        (bytes(128) + b"DICM", "DICOM", "pydicom"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5", "h5py"),
        (b"\x93NUMPY\x01\0", "NumPy", r"numpy\.load"),
        (b"\x76\x2f\x31\x01" + bytes(20), "OpenEXR", "value_range"),
        (b"#?RADIANCE\n", "Radiance", "value_range"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", "NIfTI", "nibabel"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw file", "rawpy"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "camera raw file", "rawpy"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "video", "frames"),
        (b"PK\x03\x04\x14", "zip archive", r"zipfile\.Path"),
        (b"\x1f\x8b\x08", "compressed", "unpack"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML page", "download"),
        (WMF, "WMF or EMF", "LibreOffice"),
        (EMF, "WMF or EMF", "LibreOffice"),
    ],
)
def test_other_kinds(decode, data, kind, way_out):
    """The error names the kind and the way out, and never says that the file is damaged."""
    with pytest.raises(ImageError, match=rf"^Image 0: .*{kind}.*{way_out}") as caught:
        decode([data])
    assert "damaged" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program of that name in PATH; the file that it would leave if somebody started it."""
    program, trace = tmp_path / "gs", tmp_path / "was_started"
    program.write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what Pillow has found before
    return trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves some files open
def test_no_program_is_started(encode, decode, rgb, tmp_path, ghostscript):
    """An EPS is named and refused, whatever it is called and however it comes; Pillow would start Ghostscript."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(rgb, "EPS"))
    for item in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(ImageError, match=r"an EPS drawing, .*ImageReader\(reader=PIL\.Image\.open\)"):
            decode([item])
    with Image.open(path) as image, pytest.raises(ImageError, match=r"the format EPS.*or call load"):
        decode([image])
    assert not ghostscript.exists()
    with pytest.raises(ImageError):  # that is what the fixture is for
        decode(ImageReader(reader=Image.open).fit_transform([path]))
    assert ghostscript.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Pillow leaves some files open
def test_formats_that_are_not_opened(encode, decode, rgb, tmp_path):
    """Every other format of Pillow's is named, with a way out that works; what has been read already is an image."""
    path = tmp_path / "a.icns"
    path.write_bytes(encode(rgb, "ICNS"))
    with pytest.raises(ImageError, match=r"the format ICNS, which sktl does not open.*reader=PIL\.Image\.open"):
        decode([path])
    size = decode(ImageReader(reader=Image.open).fit_transform([path]))[0].shape
    with Image.open(path) as image:
        image.load()
        assert decode([image])[0].shape == size


def test_the_list_of_formats_is_documented():
    """The guide names each of them, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "images.rst").read_text(encoding="utf-8")
    listed = re.search(r"Pillow reads (.*?) files\.\s", page, re.DOTALL)[1]
    assert tuple(re.findall(r"[A-Z0-9]+", listed)) == FORMATS
    assert set(FORMATS) <= set(allowed_formats()) | {"AVIF", "MPO"}
    assert "EPS" not in allowed_formats()


@pytest.mark.parametrize(
    "error", [NotImplementedError("Unimplemented pixel format"), OSError("decoder jpeg2k not available")]
)
def test_variants_that_pillow_does_not_know(encode, decode, rgb, monkeypatch, error):
    """A plugin that says that it does not know a variant speaks of no damage."""

    def refuse(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    with pytest.raises(ImageError, match="not supported by Pillow") as caught:
        decode([encode(rgb, "BMP")])
    assert "damaged" not in str(caught.value)


def test_a_registered_opener_is_enough(decode):
    """A package that registers an opener with Pillow, as pillow-heif does, is all that its format needs."""
    data = b"\0\0\0\x18ftypheic" + bytes(range(12))

    class Opened(ImageFile.ImageFile):
        format = "SKTL_TEST"

        def _open(self):
            self._size, self._mode, self.tile = (2, 2), "RGB", []
            self.im = Image.frombytes("RGB", (2, 2), data[12:]).im

        def load(self):
            return self.im.pixel_access(0)

    Image.register_open(Opened.format, Opened, lambda prefix: prefix[4:12] == b"ftypheic")
    try:
        np.testing.assert_array_equal(decode([data])[0].ravel(), np.arange(12))
        np.testing.assert_array_equal(decode([io.BytesIO(data)])[0].ravel(), np.arange(12))
    finally:
        Image.OPEN.pop(Opened.format)
        Image.ID.remove(Opened.format)


def test_nothing_known():
    """What nobody knows is quoted by its first bytes."""
    assert describe(b"hello world, this is text") == (
        "the file is not an image in a supported format (it begins with b'hello world,')."
    )


@pytest.mark.parametrize("lazy", [False, True])
def test_a_pil_image_that_was_closed(tmp_path, decode, encode, rgb, lazy):
    """By the end of a `with` block or by close(): the error says so, and what to do."""
    (tmp_path / "a.png").write_bytes(encode(rgb))
    image = Image.open(tmp_path / "a.png") if lazy else Image.fromarray(rgb)
    image.close()
    with pytest.raises(ImageError, match=r"Image 0: this PIL image was closed.*path.*load\(\)"):
        decode([image])
    with Image.open(tmp_path / "a.png") as loaded:
        loaded.load()
    np.testing.assert_array_equal(decode([loaded])[0], rgb)  # it was read before
