"""What X may be, and what is said where it cannot be understood."""

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import BaseEstimator

from sktl._images import check_images
from sktl.exceptions import ImageError


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


def test_every_kind_gives_the_same_pixels(image_source):
    """The same six pictures come out the same, whatever they were given as, and are C-contiguous uint8."""
    images = check_images(Holder(), image_source.X, reset=True)
    assert len(images) == 6
    for image, expected in zip(images, image_source.pixels, strict=True):
        pixels = image.decode()
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, expected)


def test_format_is_small_picklable_and_readable(image_source):
    """What was learnt survives pickling and says itself what it is."""
    holder = Holder()
    check_images(holder, image_source.X, reset=True)
    learnt = holder.image_format_
    assert pickle.loads(pickle.dumps(learnt)) == learnt
    assert len(pickle.dumps(learnt)) < 500
    assert repr(learnt).startswith("ImageFormat(kind=")


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda paths: np.array(paths)[:, np.newaxis],
        lambda paths: np.array(paths, dtype=object),
        lambda paths: np.array(paths, dtype=np.dtypes.StringDType()),
        lambda paths: list(map(Path, paths)),
        lambda paths: np.array(list(map(Path, paths)), dtype=object),
        lambda paths: pd.Series(paths, dtype="string"),
        lambda paths: pd.Series(paths, dtype=object),
        lambda paths: pd.DataFrame({"photo": paths}),
        lambda paths: pd.DataFrame({"photo": paths}, index=[9, 9]),
        lambda paths: pd.Series(paths).astype("category"),
    ],
)
def test_containers_of_paths(tmp_path, make):
    """Every container of paths is understood, spaces and other alphabets in the names included."""
    paths = [str(tmp_path / "zwei Wörter.png"), str(tmp_path / "写真.png")]
    pixels = [picture(4, 5, 3), picture(6, 3, 3)]
    for path, each in zip(paths, pixels, strict=True):
        Path(path).write_bytes(png(each))
    for got, expected in zip(decoded(make(paths)), pixels, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("container", [list, lambda items: pd.Series(items), lambda items: pd.DataFrame({"x": items})])
def test_items_of_several_kinds_may_meet(tmp_path, container):
    """Each item is understood by itself: a path, bytes, a PIL image, an array, a tensor."""
    pixels = picture(4, 5, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    X = [tmp_path / "a.png", png(pixels), bytearray(png(pixels)), Image.fromarray(pixels), pixels]
    for got in decoded(container(X)):
        np.testing.assert_array_equal(got, pixels)
    for got in decoded([*X, torch.tensor(pixels)]):
        np.testing.assert_array_equal(got, pixels)


def test_column_name_is_kept_and_compared(tmp_path):
    """One column of paths has a name, as scikit-learn wants it; a list afterwards has none."""
    (tmp_path / "a.png").write_bytes(png(picture(4, 4, 3)))
    holder, table = Holder(), pd.DataFrame({"photo": [str(tmp_path / "a.png")]})
    check_images(holder, table, reset=True)
    assert holder.n_features_in_ == 1
    assert list(holder.feature_names_in_) == ["photo"]
    with pytest.raises(ValueError, match="feature names"):
        check_images(holder, table.rename(columns={"photo": "picture"}), reset=False)
    check_images(holder, list(table["photo"]), reset=False)
    check_images(holder, list(table["photo"]), reset=True)
    assert not hasattr(holder, "n_features_in_")
    assert not hasattr(holder, "feature_names_in_")


@pytest.mark.parametrize("X", [b"\xff\xd8", Image.new("RGB", (2, 2))])
def test_a_single_picture_is_no_table(X):
    """One picture alone: the error says to pass a list."""
    with pytest.raises(ImageError, match=r"a single image.*list"):
        check_images(Holder(), X, reset=True)


def test_a_single_array_is_no_batch():
    """One colour picture as an array would be read as many grey strips: refused, with the way out."""
    with pytest.raises(ImageError, match=r"a single image.*np\.newaxis"):
        decoded(picture(24, 32, 3))


@pytest.mark.parametrize(
    "X",
    [
        *([], (), np.array([]), np.array([], dtype=str), pd.Series([], dtype=object), np.zeros((0, 4, 4, 3))),
        pd.DataFrame({"photo": np.array([], dtype=object)}),
    ],
)
def test_empty(X):
    """No pictures at all: said as such."""
    with pytest.raises(ImageError, match="X is empty"):
        check_images(Holder(), X, reset=True)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([object(), object()], "objects of type 'object'"),
        ([{"file": "a.jpg"}], "objects of type 'dict'"),
        (np.array([b"\xff\xd8", b"\xff"]), "fixed-width bytes"),
        ((path for path in ["a.jpg"]), "X must be a list, .*type 'generator' instead"),
        ({"a.jpg": 1}, "X must be a list, .*type 'dict' instead"),
        (None, "type 'NoneType'"),
        (np.zeros((3, 4), dtype="datetime64[s]"), "real numbers"),
        (np.zeros((2, 3, 4, 5, 6)), "must be"),
        (np.zeros((2, 4, 4, 3), dtype=complex), "complex128"),
        (np.zeros((2, 8, 9, 5)), "has 5 channels if they are last, 8 channels if they are first, but"),
        (pd.DataFrame({"a": ["x.jpg"], "b": ["y.jpg"], "c": [1]}), "3 columns, some of which contain strings"),
        (np.array([["x.jpg", "y.jpg"]]), "2 columns, some of which contain strings"),
    ],
)
def test_nonsense_is_refused_at_once(X, message):
    """A table that holds no pictures is refused as a whole, by what is in it."""
    with pytest.raises(ImageError, match=message):
        check_images(Holder(), X, reset=True)


@pytest.mark.parametrize("X", [[1, 2, 3], np.arange(4.0)])
def test_one_row_is_refused_in_scikit_learns_words(X):
    """A flat list of numbers: the same ValueError as everywhere in scikit-learn."""
    with pytest.raises(ValueError, match="Reshape your data"):
        check_images(Holder(), X, reset=True)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_is_refused_in_scikit_learns_words(container):
    """Sparse pixels: the same TypeError as everywhere in scikit-learn."""
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        check_images(Holder(), container(np.eye(4)), reset=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_rows_is_refused_in_scikit_learns_words(bad):
    """NaN in flat rows: the same ValueError as everywhere in scikit-learn."""
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        check_images(Holder(), np.array([[0.0, 1.0, bad, 0.5]]), reset=True)


def test_no_warning_on_ordinary_input(image_source):
    """Good pictures are understood silently, at fit and afterwards."""
    holder = Holder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_images(holder, image_source.X, reset=True)
        for image in check_images(holder, image_source.X, reset=False):
            image.decode()
