"""Values to pixels and rows to pictures, against a slow loop and against NumPy's own ravel."""

import numpy as np
import pytest

from sktl._images import ImageFormat, images_to_rows, rows_to_images
from sktl._images._convert import to_uint8


@pytest.mark.parametrize("value_range", [(0, 1), (0, 255), (0, 65535), (-2.5, 3.25)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_scaling_is_the_formula(value_range, dtype):
    """round(255 (x - low) / (high - low)), clipped to 0-255, value by value in Python's own numbers."""
    low, high = value_range
    values = np.linspace(low - 1, high + 1, 301).astype(dtype)
    exact = [min(max(255 * (float(value) - low) / (high - low), 0), 255) for value in values]
    pixels = to_uint8(values, value_range)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, exact, atol=0.501)


def test_extreme_values_do_not_overflow():
    """The largest floats are clipped without a warning."""
    for dtype in (np.float16, np.float32, np.float64):
        largest = np.finfo(dtype).max
        np.testing.assert_array_equal(to_uint8(np.array([-largest, largest]), (0, 1)), [0, 255])


def test_input_is_left_alone():
    """Scaling works on a copy; uint8 is handed back as it is."""
    values = np.array([0.25, 0.5])
    to_uint8(values, (0, 1))
    np.testing.assert_array_equal(values, [0.25, 0.5])
    pixels = np.array([1, 2], dtype=np.uint8)
    assert to_uint8(pixels, None) is pixels


def test_unknown_range():
    """Floats without a range are refused instead of guessed."""
    with pytest.raises(ValueError, match="float64 values is unknown because fit saw no such values"):
        to_uint8(np.zeros(2), None)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", ["last", "first"])
def test_rows_there_and_back(order, channels):
    """Each row is its picture's ravel, and one row alone unfolds like many."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 2), dtype=np.uint8)
    stored = np.moveaxis(images, -1, 1) if channels == "first" else images
    rows = np.stack([picture.ravel(order=order) for picture in stored])
    learnt = ImageFormat("rows", shape=(3, 5, 2), channels=channels, value_range=(0, 255), order=order)
    np.testing.assert_array_equal(rows_to_images(rows, learnt), images)
    np.testing.assert_array_equal(rows_to_images(rows[2:3], learnt)[0], images[2])
    np.testing.assert_array_equal(images_to_rows(images, learnt, 30), rows)
    np.testing.assert_array_equal(images_to_rows(images[..., :], learnt, 27), rows[:, :27])
