"""Channel axis, value range and row shape: learnt at fit, kept afterwards."""

import io
import warnings

import numpy as np
import pytest
import torch
from joblib import parallel_backend
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktl import PretrainedFeatureExtractor
from sktl._images import ImageFormat, check_images
from sktl.exceptions import ImageError, ImageWarning


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


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, ">f4", ">i4"])
@pytest.mark.parametrize("form", ["batch", "rows", "list"])
def test_encodings_of_one_picture_are_one_picture(dtype, form):
    """uint8, 0-255 and 0-1 of any width give identical pixels and one digest."""
    pixels = picture(3, 8, 8, 3)
    given = pixels.astype(dtype)
    encodings = [given] if np.dtype(dtype).kind != "f" else [given, (pixels / 255).astype(dtype)]
    reference = check_images(Holder(), pixels, reset=True)
    for encoding in encodings:
        X = {"batch": encoding, "rows": encoding.reshape(3, -1), "list": list(encoding)}[form]
        for image, expected in zip(check_images(Holder(), X, reset=True), reference, strict=True):
            np.testing.assert_array_equal(image.decode(), expected.decode())
            assert image.digest == expected.digest


def test_types_that_say_their_range():
    """bool is black and white and uint16 is 0-65535, at fit and afterwards, whatever fit saw."""
    pixels = picture(2, 8, 8, 3)
    wide = pixels.astype(np.uint16) * 257
    np.testing.assert_array_equal(decoded(wide), pixels)
    np.testing.assert_array_equal(decoded(wide, fitted_on=pixels / 255), pixels)
    np.testing.assert_array_equal(decoded(pixels > 127), (pixels > 127) * np.uint8(255))
    np.testing.assert_array_equal(decoded(pixels, fitted_on=pixels / 255), pixels)


def test_value_range_is_never_guessed_again():
    """A dark picture of 0-255 after fit stays dark, though alone it would look like 0-1."""
    bright, dark = picture(2, 8, 8, 3).astype(float), np.zeros((1, 8, 8, 3))
    dark[0, 0, 0] = 1.0
    with pytest.warns(ImageWarning, match="highest value of X is 1, but fit learned 255 as white"):
        assert decoded(dark, fitted_on=bright)[0].max() == 1
    with pytest.warns(ImageWarning, match="nearly white"):
        assert decoded(bright, fitted_on=bright / 255)[0].max() == 255


def test_standardised_table_is_scaled_by_what_fit_saw():
    """Values that are neither 0-1 nor 0-255 are scaled by their range at fit, with a warning, and clipped later."""
    rows = np.random.default_rng(0).normal(size=(20, 64))
    with pytest.warns(ImageWarning, match="neither 0-1 nor 0-255"):
        pixels = np.stack(decoded(rows))
    assert (pixels.min(), pixels.max()) == (0, 255)
    with pytest.warns(ImageWarning, match="neither"):
        np.testing.assert_array_equal(decoded(rows * 3, fitted_on=rows)[0][rows[0].reshape(8, 8) > 2], 255)


def test_small_counts_are_scaled():
    """scikit-learn's digits, 0 to 16, become pictures from black to white, not nearly black ones."""
    with pytest.warns(ImageWarning, match="0 to 16"):
        assert np.max(decoded(np.arange(64.0).reshape(1, 64) % 17)) == 255


@pytest.mark.parametrize(("n_columns", "shape"), [(1, (1, 1)), (784, (28, 28)), (3072, (32, 32)), (3, (1, 1))])
def test_square_rows_need_no_shape(n_columns, shape):
    """A square is grey, 3 x a square is colour."""
    assert decoded(picture(2, n_columns))[0].shape == (*shape, 3)


def test_rows_of_a_given_shape():
    """image_shape= unfolds grey and colour, and channels="first" says that colours come plane by plane."""
    pixels = picture(2, 4, 6, 3)
    np.testing.assert_array_equal(decoded(pixels.reshape(2, -1), image_shape=(4, 6, 3)), pixels)
    planes = pixels.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(decoded(planes, image_shape=[4, 6, 3], channels="first"), pixels)
    grey = decoded(pixels[..., 0].reshape(2, -1), image_shape=(4, 6))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=3))


def test_other_widths_are_padded():
    """785 columns are named, with a hint that the label was left in, and padded to 29 x 29 with black."""
    rows = picture(2, 785)
    with pytest.warns(ImageWarning, match=r"785 values.*29 x 29.*label") as record:
        pixels = np.stack(decoded(rows))
    assert len(record) == 1
    assert pixels.shape == (2, 29, 29, 3)
    np.testing.assert_array_equal(pixels[..., 0].reshape(2, -1)[:, :785], rows)
    assert not pixels.reshape(2, -1, 3)[:, 785:].any()
    with pytest.warns(ImageWarning, match="1000 values") as record:
        decoded(picture(2, 1000))
    assert "label" not in str(record[0].message)


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        ((4, 5), r"image_shape=\(4, 5\) has 20 values, but the rows of X have 24"),
        ((24,), r"The 'image_shape' parameter must be .* Got \(24,\) instead"),
        ((4.0, 6.0), "with positive integers"),
        ((6, 2, 2), "2 channels, but in_channels=3 requires 1 or 3 or 4"),
    ],
)
def test_shapes_that_do_not_fit(image_shape, message):
    """The error restates image_shape and says what the rows have."""
    with pytest.raises(ImageError, match=message):
        decoded(picture(2, 24), image_shape=image_shape)


def test_channel_axis_is_learnt_and_kept():
    """First or last is learnt at fit; the other one afterwards is an error, not a guess."""
    pixels = picture(2, 8, 9, 3)
    first = pixels.transpose(0, 3, 1, 2)
    holder = Holder()
    check_images(holder, first, reset=True)
    assert holder.image_format_ == ImageFormat("batch", channels="first", value_range=(0, 255))
    with pytest.raises(ImageError, match=r"Image 0: .*8 channels \(axis 'first'\)"):
        check_images(holder, pixels, reset=False)[0]


def test_ambiguous_channel_axis_names_the_parameter():
    """Where both axes can hold channels the user decides."""
    pixels = picture(2, 3, 8, 3)
    for X in (pixels, torch.tensor(pixels), list(torch.tensor(pixels))):
        with pytest.raises(ImageError, match=r"ambiguous.*\(3, 8, 3\).*channels=\"first\""):
            decoded(X)
        np.testing.assert_array_equal(decoded(X, channels="last"), pixels)
        np.testing.assert_array_equal(decoded(X, channels="first"), pixels.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(decoded(list(pixels)), pixels)  # lists of arrays are documented as (H, W, C)


def test_lists_that_disagree_on_the_axis():
    """A list of both layouts is refused as a whole."""
    with pytest.raises(ImageError, match="different channel axes"):
        decoded([picture(8, 9, 3), picture(3, 8, 9)])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_one_warning_for_a_search(n_jobs):
    """Of five fits the first one speaks, whatever Python's filters say; the next search speaks again."""
    X, y = load_digits(n_class=2, return_X_y=True)
    pipe = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression())
    for _ in range(2):
        search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=2)
        with warnings.catch_warnings(record=True) as found, parallel_backend("threading", n_jobs=n_jobs):
            warnings.simplefilter("always")
            search.fit(X[:12], y[:12])
        said = [str(one.message) for one in found if "range from 0 to 16" in str(one.message)]
        assert len(said) == 1
    for _ in range(2):  # outside a search, each fit is the user's own
        with pytest.warns(ImageWarning, match="range from 0 to 16"):
            PretrainedFeatureExtractor().fit(X[:12])
