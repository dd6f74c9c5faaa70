"""What is learnt of images at fit: a value, which says whether gray arrays were seen."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from sktl import PretrainedFeatureExtractor
from sktl._images import ImageFormat, check_images


@pytest.mark.parametrize(
    ("learnt", "is_gray"),
    [
        (ImageFormat("rows", shape=(8, 8, 1), value_range=(0, 16)), True),
        (ImageFormat("rows", shape=(8, 8, 3), value_range=(0, 16)), False),
        (ImageFormat("batch", value_range=(0, 255)), True),
        (ImageFormat("batch", channels="last", value_range=(0, 255)), False),
        (ImageFormat("images", value_range=(0, 1)), True),
        (ImageFormat("images"), False),
        (ImageFormat("files"), False),
        (ImageFormat("files", value_range=(0, 255)), False),
    ],
)
def test_gray_arrays_are_known(learnt, is_gray):
    """Rows by their shape, arrays by the axis that they do not have; files say nothing of arrays."""
    assert learnt.is_gray is is_gray


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 64), ImageFormat("rows", shape=(8, 8, 1), channels="last", value_range=(0, 255))),
        ((4, 192), ImageFormat("rows", shape=(8, 8, 3), channels="last", value_range=(0, 255))),
        ((4, 8, 8), ImageFormat("batch", value_range=(0, 255))),
        ((4, 8, 8, 3), ImageFormat("batch", channels="last", value_range=(0, 255))),
        ((4, 3, 8, 8), ImageFormat("batch", channels="first", value_range=(0, 255))),
    ],
)
def test_what_is_learnt_of_arrays(shape, expected):
    """Kind, shape, channels and range of a table of ``uint8``; a gray one is known to be gray."""
    extractor = PretrainedFeatureExtractor()
    check_images(extractor, np.arange(np.prod(shape)).reshape(shape).astype(np.uint8), reset=True)
    assert extractor.image_format_ == expected
    assert extractor.image_format_.is_gray == (3 not in shape and 192 not in shape)


def test_it_is_a_value():
    """It cannot be changed after fit, is equal to another one of the same fields, and stays so in a pickle."""
    learnt = ImageFormat("rows", shape=(8, 4, 1), value_range=(0, 16), order="F")
    with pytest.raises(FrozenInstanceError):
        learnt.order = "C"
    assert pickle.loads(pickle.dumps(learnt)) == learnt
    assert len({learnt, ImageFormat("rows", (8, 4, 1), None, (0, 16), "F"), ImageFormat("rows")}) == 2
