"""The column of images among those of a table."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sktl._images._columns import image_column
from sktl.exceptions import ImageError


class Reader:
    """An estimator that may learn a column."""


def encoded():
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "png")
    return buffer.getvalue()


KINDS = {
    "path": "folder/a.JPG",
    "bytes": encoded(),
    "image": Image.new("L", (2, 2)),
    "array": np.zeros((2, 2, 3)),
    "dict": {"bytes": encoded(), "path": None},
    "data url": "data:image/png;base64," + base64.b64encode(encoded()).decode(),
    "base64": base64.b64encode(encoded()).decode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_known_by_its_first_value(kind):
    """A column of any kind of image is told from numbers, texts and dates; missing values are passed over."""
    n = 3
    columns = {
        "number": np.arange(n),
        "text": ["see a.jpg and b", "x", "y"],
        "day": pd.date_range("2024-01-01", periods=n),
        "group": pd.Categorical(["u", "v", "u"]),
        "image": pd.Series([None, KINDS[kind], None], dtype=object),
    }
    X, reader = pd.DataFrame(columns), Reader()
    found = image_column(reader, X, reset=True)
    assert reader.image_column_ == "image"
    assert list(found.columns) == ["image"]
    assert image_column(reader, X[["image", "day"]], reset=False).equals(found)
    values = X[["text", "image"]].to_numpy(object)
    assert image_column(reader, values, reset=True)[1, 0] is values[1, 1]
    assert reader.image_column_ == 1


def test_tables_of_polars():
    """They are taken apart in their own way."""
    polars = pytest.importorskip("polars")
    X, reader = polars.DataFrame({"price": [1.0, 2.0], "photo": ["a.png", "b.png"]}), Reader()
    assert image_column(reader, X, reset=True).columns == ["photo"]
    assert reader.image_column_ == "photo"


@pytest.mark.parametrize(
    "X",
    [
        ["a.png"],
        np.zeros((3, 4)),
        pd.DataFrame({"a": [1.0], "b": [2]}),
        pd.DataFrame({"photo": ["a.png"]}),
        pd.DataFrame({"a": ["x"], "b": [None]}),
    ],
    ids=["list", "numbers", "numbers in a table", "one column", "texts"],
)
def test_anything_else_stays_as_it_is(X):
    """What has no column of images among several is returned, and nothing is learned."""
    reader = Reader()
    assert image_column(reader, X, reset=True) is X
    assert image_column(reader, X, reset=False) is X
    assert not hasattr(reader, "image_column_")


def test_tables_of_pyarrow():
    """They are left to the door, which refuses them in the same words for every estimator."""
    pyarrow = pytest.importorskip("pyarrow")
    X = pyarrow.table({"photo": ["a.png", "b.png"], "price": [1.0, 2.0]})
    assert image_column(Reader(), X, reset=True) is X


def test_the_column_has_to_be_the_same():
    """Of two there is no choice, and the one of fit has to be there; without it, images alone are fine."""
    reader = Reader()
    X = pd.DataFrame({"front": ["a.png"], "back": ["b.png"], "n": [1]})
    with pytest.raises(ImageError, match=r"2 columns with images, \['front', 'back'\], but Reader accepts only one"):
        image_column(reader, X, reset=True)
    image_column(reader, X[["front", "n"]], reset=True)
    with pytest.raises(ImageError, match=r"columns \['back', 'n'\], but not 'front'"):
        image_column(reader, X[["back", "n"]], reset=False)
    assert image_column(reader, ["a.png"], reset=False) == ["a.png"]
