"""PixelRowsToImages: shape, order, value range, the way back, and scikit-learn's contract."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktl._images import check_images
from sktl.exceptions import ImageError, ImageWarning
from sktl.preprocessing import PixelRowsToImages


def pictures(*shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels.flat[:2] = 0, 255
    return pixels


# The checks' tables are padded and scaled, which is said each time.
@pytest.mark.filterwarnings("ignore::sktl.exceptions.ImageWarning")
@parametrize_with_checks([PixelRowsToImages()])
def test_common_checks(estimator, check):
    """With its defaults it is a scikit-learn transformer, no check excused."""
    check(estimator)


def test_square_grey_and_colour():
    """784 columns are 28 x 28 grey, 3072 are 32 x 32 colour, as uint8."""
    grey, colour = pictures(4, 28, 28), pictures(4, 32, 32, 3)
    for expected in (grey, colour):
        images = PixelRowsToImages().fit_transform(expected.reshape(4, -1))
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", ["last", "first"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (4, 4, 5)])
def test_orders_there_and_back(order, channels, shape):
    """Every pixel order is NumPy's own ravel of the stored picture, and inverse_transform undoes it exactly."""
    images = pictures(6, *shape)
    stored = np.moveaxis(images, -1, 1) if channels == "first" and len(shape) == 3 else images
    rows = np.stack([picture.ravel(order=order) for picture in stored])
    to_images = PixelRowsToImages(shape, order=order, channels=channels).fit(rows)
    np.testing.assert_array_equal(to_images.transform(rows), images)
    np.testing.assert_array_equal(to_images.inverse_transform(images), rows)


def test_transposed_sets():
    """order="F" turns the pictures of EMNIST, stored column by column, upright."""
    upright = pictures(3, 28, 28)
    rows = upright.transpose(0, 2, 1).reshape(3, -1)
    np.testing.assert_array_equal(PixelRowsToImages(order="F").fit_transform(rows), upright)


def test_rgb():
    """rgb=True repeats grey, leaves colour, and folds back to the same rows."""
    rows = pictures(3, 64)
    to_images = PixelRowsToImages(rgb=True).fit(rows)
    images = to_images.transform(rows)
    np.testing.assert_array_equal(images, np.repeat(rows.reshape(3, 8, 8, 1), 3, axis=3))
    np.testing.assert_array_equal(to_images.inverse_transform(images), rows)
    assert PixelRowsToImages(rgb=True).fit_transform(pictures(3, 48)).shape == (3, 4, 4, 3)
    with pytest.raises(
        ImageError, match=r"rgb=True requires images with 1 or 3 channels, but image_shape=\(2, 2, 5\) has 5"
    ):
        PixelRowsToImages((2, 2, 5), rgb=True).fit(pictures(3, 20))


def test_whole_numbers_come_back_exactly():
    """Integers from 0 to 255 survive the way there and back, whatever type holds them."""
    rows = pictures(5, 49)
    for dtype in (np.uint8, np.int64, np.float32):
        to_images = PixelRowsToImages().fit(rows.astype(dtype))
        np.testing.assert_array_equal(to_images.inverse_transform(to_images.transform(rows.astype(dtype))), rows)


def test_other_ranges_come_back_rounded():
    """0-1 comes back within half a level, a standardised table within half of 1/255 of its range, padding gone."""
    rng = np.random.default_rng(0)
    unit, standardised = rng.random((5, 49)), rng.normal(size=(5, 45))
    to_images = PixelRowsToImages().fit(unit)
    np.testing.assert_allclose(to_images.inverse_transform(to_images.transform(unit)), unit, atol=0.501 / 255)
    with pytest.warns(ImageWarning):
        to_images.fit(standardised)
    back = to_images.inverse_transform(to_images.transform(standardised))
    np.testing.assert_allclose(back, standardised, atol=0.501 / 255 * np.ptp(standardised))


def test_inverse_refuses_other_pictures():
    """Pictures of another size are named with what fit learnt."""
    to_images = PixelRowsToImages().fit(pictures(3, 64))
    for wrong in (pictures(3, 8, 9), pictures(3, 8, 8, 3), pictures(3, 64)):
        with pytest.raises(ImageError, match="8 x 8 with 1 channel"):
            to_images.inverse_transform(wrong)


def test_its_pictures_go_through_the_door():
    """What comes out is understood by every estimator of sktl as the batch that it is."""
    for rows in (pictures(3, 784), pictures(3, 27), pictures(3, 9)):
        images = PixelRowsToImages().fit_transform(rows)
        through = check_images(PixelRowsToImages(), images, reset=True)
        np.testing.assert_array_equal(through[1].decode()[..., 0], images[1] if images.ndim == 3 else images[1, ..., 0])


def test_frames_pipelines_and_pandas_output():
    """Column names are kept, and a wish for DataFrames does not break what cannot be one."""
    frame = pd.DataFrame(pictures(3, 64), columns=[f"pixel{i}" for i in range(64)])
    pipeline = make_pipeline(PixelRowsToImages(), FunctionTransformer(lambda images: images.reshape(len(images), -1)))
    with sklearn.config_context(transform_output="pandas"):
        images = PixelRowsToImages().fit_transform(frame)
    assert isinstance(images, np.ndarray)
    assert images.shape == (3, 8, 8)
    np.testing.assert_array_equal(pipeline.fit_transform(frame), frame)
    assert list(pipeline[0].feature_names_in_) == list(frame.columns)


def test_clone_starts_afresh():
    """A clone has the same parameters and nothing learnt."""
    to_images = PixelRowsToImages((8, 8), order="F", channels="first", rgb=True).fit(pictures(3, 64))
    copy = clone(to_images)
    assert copy.get_params() == to_images.get_params()
    assert not hasattr(copy, "image_format_")
