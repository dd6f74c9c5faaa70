"""What the tests of the door share: two images without symmetry, and the way through the door."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator

from sktl._images import check_images

ROW, COLUMN = np.mgrid[:64, :64]


class Holder(BaseEstimator):
    """An estimator with the parameters that the door reads."""

    def __init__(self, image_shape=None, channels="auto", in_channels=3):
        self.image_shape = image_shape
        self.channels = channels
        self.in_channels = in_channels


@pytest.fixture(scope="session")
def gray():
    """A gray image of 64 x 64: values from 0 to 252, mean 126, 40 at [10, 10]."""
    return ((ROW * 3 + COLUMN) % 256).astype("u1")


@pytest.fixture(scope="session")
def rgb(gray):
    """A color image of 64 x 64."""
    return np.stack([gray, 255 - gray, gray // 2], -1)


@pytest.fixture
def holder():
    """An estimator that has been fitted on nothing yet."""
    return Holder


@pytest.fixture
def decode():
    """A function that decodes each image of a table, fitted on the table itself or on another."""

    def decode(X, *, fitted_on=None, **params):
        holder = Holder(**params)
        if fitted_on is not None:
            check_images(holder, fitted_on, reset=True)
        return [image.decode() for image in check_images(holder, X, reset=fitted_on is None)]

    return decode


@pytest.fixture
def encode():
    """A function that gives the bytes of an image as a file of some format."""

    def encode(pixels, file_format="PNG", **options):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, file_format, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def encode_tiff():
    """A function that gives the bytes of a TIFF of any depth, written by tifffile."""
    import tifffile

    def encode_tiff(values, **options):
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, **options)
        return stream.getvalue()

    return encode_tiff


@pytest.fixture
def make_png():
    """A function that writes a PNG by hand: of any depth and color type, with any chunks beside its pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make_png(values, depth, color=0, transparent=b"", **chunks):
        height, width = values.shape[:2]
        if depth >= 8:
            rows = np.ascontiguousarray(values.astype(f">u{depth // 8}")).view("u1").reshape(height, -1)
        else:
            bits = np.unpackbits(values.astype("u1").reshape(height, -1, 1), axis=2)[:, :, 8 - depth :]
            rows = np.packbits(bits.reshape(height, -1), axis=1)
        body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))]
        parts += [(b"tRNS", transparent)] if transparent else []
        parts += [(kind.encode(), content) for kind, content in chunks.items()]
        parts += [(b"IDAT", body), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    return make_png
