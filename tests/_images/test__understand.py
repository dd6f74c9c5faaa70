"""What a table is: missing values, nested numbers, data sets of other libraries, single images, empty tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from sktl import PretrainedFeatureExtractor
from sktl._images import check_images, pixel_order
from sktl.exceptions import ImageError, ImageWarning


@pytest.fixture
def path(tmp_path, rgb, encode):
    file = tmp_path / "a.png"
    file.write_bytes(encode(rgb))
    return str(file)


MISSING = {
    "None": [None],
    "two": [None, float("nan")],
    "array": np.array([None, None]),
    "column": np.array([[None], [None]], dtype=object),
    "float array": np.array([np.nan]),
    "frame": pd.DataFrame({"photo": [None]}),
    "frame of NaN": pd.DataFrame({"photo": [np.nan, np.nan]}),
    "series of NA": pd.Series([pd.NA], dtype="string"),
    "series of NaN": pd.Series([np.nan]),
    "series of NaT": pd.Series([pd.NaT]),
    "category": pd.Series([None], dtype="category"),
    "integers": pd.Series([None], dtype="Int64"),
    "dict": [{"bytes": None, "path": None}],
}


@pytest.mark.parametrize("kind", MISSING)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_missing_values_are_rows_of_nan(path, kind):
    """A table of missing values alone is treated as one that has them beside images: rows of NaN and one warning."""
    extractor = PretrainedFeatureExtractor(on_error="nan").fit([path])
    X = MISSING[kind]
    for call in (extractor.transform, extractor.fit_transform):
        with pytest.warns(ImageWarning, match=f"{len(X)} of {len(X)} .*missing") as record:
            features = call(X)
        assert [warning.category for warning in record].count(ImageWarning) == 1
        assert features.shape == (len(X), 512)
        assert np.isnan(features).all()


@pytest.mark.parametrize("kind", MISSING)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_missing_values_are_named(path, kind):
    """on_error="raise" names the first of them, as it does beside images."""
    extractor = PretrainedFeatureExtractor().fit([path])
    with pytest.raises(ImageError, match=r"^Image 0: the value is missing"):
        extractor.transform(MISSING[kind])


@pytest.mark.parametrize("item", [7, 7.5, object(), {}, {"file": "a.jpg"}, b"", "", np.str_("x"), True])
def test_what_becomes_of_an_item_does_not_depend_on_its_neighbors(path, item):
    """Nonsense alone, twice, or beside an image: the same row of NaN."""
    extractor = PretrainedFeatureExtractor(on_error="nan").fit([path])
    for X in ([item], [item, item], [item, path], [path, item]):
        with pytest.warns(ImageWarning, match="Image [01]"):
            features = extractor.transform(X)
        assert np.isnan(features).all(axis=1).tolist() == [x is not path for x in X]


@pytest.mark.parametrize("make", [list, pd.Series, lambda items: pd.DataFrame({"image": items})])
def test_columns_of_rows(gray, decode, make):
    """A column whose items are rows of as many numbers is a table of rows."""
    rows = [gray.ravel(), gray.ravel()[::-1]]
    for got, row in zip(decode(make(rows)), rows, strict=True):
        np.testing.assert_array_equal(got[..., 0], row.reshape(64, 64))


@pytest.mark.parametrize("make", [list, pd.Series, lambda items: pd.DataFrame({"image": items})])
@pytest.mark.parametrize("nested", [False, True])
def test_columns_of_images(gray, rgb, decode, make, nested):
    """Arrays or nested lists of different sizes: each is an image, gray or color."""
    images = [gray, gray[:40], rgb, rgb[:, :30]]
    for got, image in zip(decode(make([x.tolist() if nested else x for x in images])), images, strict=True):
        np.testing.assert_array_equal(got, image if image.ndim == 3 else np.repeat(image[..., None], 3, 2))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1, 2, 3], [1, 2]], "rows of X must have the same length. Got lengths from 2 to 3"),
        (pd.Series([[1, 2, 3], None]), "rows of X must have the same length. Got lengths from 0 to 3"),
        ([[[1, 2], [3]], [[1, 2], [3, 4]]], "nested lists of different lengths"),
        (pd.Series([["a.jpg"], ["b.jpg", "c.jpg"]]), "lists of objects that are not numbers"),
    ],
)
def test_nested_nonsense(X, message, holder):
    """What is neither rows nor images is an error that says how."""
    with pytest.raises(ImageError, match=message):
        check_images(holder(), X, reset=True)


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(
    "X",
    [
        *([], (), np.array([]), np.array([], dtype=str), pd.Series([], dtype=object), np.zeros((0, 4, 4, 3))),
        *(pd.DataFrame({"photo": []}), pd.DataFrame({"photo": np.array([], dtype=object)}), pd.Series([], dtype=float)),
        *(pd.DataFrame({"a": [], "b": []}), pd.DataFrame()),
        *(pd.DataFrame({"photo": pd.Series([], dtype="string")}), torch.zeros(0, 3, 8, 8), np.zeros((0, 3, 0, 0))),
    ],
)
def test_empty(path, X, is_fitted):
    """No images at all: said as such, before and after a fit."""
    extractor = PretrainedFeatureExtractor()
    with pytest.raises(ImageError, match="X is empty"):
        extractor.fit([path]).transform(X) if is_fitted else extractor.fit(X)


@pytest.mark.parametrize("fitted_on", ["paths", "colors first", "colors last", "list"])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("n_channels", [3, 4])
def test_one_image_with_its_channels_first(path, rgb, decode, fitted_on, as_tensor, n_channels):
    """(3, H, W) after a fit on color images is one image, not three gray ones; and so is (4, H, W)."""
    planes = np.moveaxis(np.concatenate([rgb, rgb], -1)[..., :n_channels], -1, 0)
    learned = {
        "paths": [path],
        "colors first": np.stack([np.moveaxis(rgb, -1, 0)] * 4),
        "colors last": np.stack([rgb] * 4),
        "list": [rgb, rgb[:20]],
    }[fitted_on]
    X = torch.tensor(planes) if as_tensor else planes
    with pytest.raises(ImageError, match=r"a single image.*X\[np.newaxis\].*grayscale images, pass X\[\.\.\., np"):
        decode(X, fitted_on=learned)


def test_one_gray_image_with_its_channel(path, gray, decode):
    """(H, W, 1) is one image."""
    for learned in ([path], None):
        with pytest.raises(ImageError, match="looks like a single image"):
            decode(gray[..., np.newaxis], fitted_on=learned)


def test_three_gray_images_stay_three(gray, decode):
    """After a fit on gray images, or at fit, three of them are three."""
    three = np.stack([gray, 255 - gray, gray // 2])
    for learned in (None, three, np.stack([gray] * 5), [gray, gray[:20]], gray.reshape(1, -1)):
        assert len(decode(three, fitted_on=learned)) == 3


def test_five_channels_first(gray, decode):
    """The same for a network of five channels."""
    bands = np.stack([gray] * 5)
    with pytest.raises(ImageError, match="looks like a single image"):
        decode(bands, fitted_on=bands[np.newaxis], in_channels=5)


def image_folder(folder):
    from torchvision.datasets import ImageFolder

    return ImageFolder(folder)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (image_folder, r"X = \[path for path, _ in dataset\.samples\], y = dataset\.targets"),
        (
            lambda folder: Subset(image_folder(folder), [0]),
            r"X = \[subset\.dataset\.samples\[i\]\[0\] for i in subset\.indices",
        ),
        (lambda folder: DataLoader(image_folder(folder)), r"X = \[image for image, _ in loader\.dataset\]"),
        (lambda folder: TensorDataset(torch.zeros(2, 3, 8, 8)), r"X = \[image for image, _ in dataset\]"),
    ],
)
def test_data_sets_of_torch_are_refused(tmp_path, rgb, encode, holder, make, line):
    """A whole data set is refused with the line that takes its images."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(encode(rgb))
    with pytest.raises(ImageError, match=rf"whole dataset.*Use {line}"):
        check_images(holder(), make(tmp_path), reset=True)


def test_data_sets_of_huggingface_are_refused(rgb, encode, holder):
    """A Dataset, a DatasetDict, a stream: each with its own line, and with the name of the column."""
    import datasets

    data = datasets.Dataset.from_dict({"photo": [{"bytes": encode(rgb), "path": None}], "label": [0]})
    data = data.cast_column("photo", datasets.Image())
    for X, line in (
        (data, r"X = dataset\['photo'\]\."),
        (datasets.DatasetDict({"train": data}), r"X = dataset\['train'\]\['photo'\]"),
        (data.to_iterable_dataset(), r"X = \[row\['photo'\] for row in dataset\]"),
    ):
        with pytest.raises(ImageError, match=f"whole dataset.*Use {line}"):
            check_images(holder(), X, reset=True)


def test_a_pattern(tmp_path):
    """A pattern of file names is no folder, and says how to make a list of files."""
    with pytest.raises(ImageError, match=r"pattern.*glob\.glob"):
        PretrainedFeatureExtractor().fit(f"{tmp_path}/*.png")


@pytest.mark.parametrize(
    "names",
    [
        [f"pixel{i}" for i in range(784)],
        [f"pixel_{i}" for i in range(1, 785)],
        [str(i) for i in range(784)],
        [f"{i}x{j}" for i in range(1, 29) for j in range(1, 29)],  # as in Kaggle's tables of MNIST
    ],
)
def test_columns_in_the_order_of_the_alphabet(names):
    """pixel1, pixel10, pixel100, pixel2: put in the order of the numbers, at fit and afterwards."""
    rows = np.random.default_rng(0).integers(0, 256, (3, 784), dtype=np.uint8)
    table = pd.DataFrame(rows, columns=names)
    shuffled = table[sorted(names)]
    assert list(shuffled) != names
    extractor = PretrainedFeatureExtractor().fit(shuffled)
    expected = PretrainedFeatureExtractor().fit_transform(table)
    np.testing.assert_array_equal(extractor.transform(shuffled), expected)


def test_other_orders_stay(decode):
    """Names that are in no order of the alphabet, or without numbers, are left as they are."""
    rows = np.arange(4, dtype=np.uint8).reshape(1, 4)
    for names in (["d", "b", "a", "c"], ["x0y0", "x1y0", "x0y1", "x1y1"], ["r", "g1", "b1", "a1"]):
        assert decode(pd.DataFrame(rows, columns=names))[0][..., 0].ravel().tolist() == [0, 1, 2, 3]
    hexadecimal = [f"px{i:02x}" for i in range(64)]
    many = np.arange(64, dtype=np.uint8).reshape(1, 64)
    assert decode(pd.DataFrame(many, columns=hexadecimal))[0][..., 0].ravel().tolist() == list(range(64))
    for names in (["p3", "p1", "p2", "p4"], ["v2_p3", "v2_p1", "v2_p2", "v2_p4"], ["p30_x", "p1_x", "p2_x", "p40_x"]):
        in_order = decode(pd.DataFrame(rows, columns=names))[0][..., 0]
        assert in_order.ravel().tolist() == [1, 2, 0, 3]


def test_a_label_stays_in_its_place():
    """A column without a number is left where it is, at either end."""
    for names, expected in ((["label", "p1", "p10", "p2"], [0, 1, 3, 2]), (["p1", "p10", "p2", "label"], [0, 2, 1, 3])):
        order = pixel_order(names)
        assert order.tolist() == expected
