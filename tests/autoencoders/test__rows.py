"""Rows of numbers through their own door: what is a table, what is not, and digests of rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sktl.autoencoders import Autoencoder
from sktl.autoencoders._rows import NumberRows, check_numbers
from sktl.exceptions import InputError


def test_views_and_digests():
    """Equal rows have equal digests, -0.0 is 0.0, NaN is NaN, and a view knows the positions of its rows."""
    rows = NumberRows(np.array([[0.0, np.nan], [1, 2], [-0.0, np.nan], [1, 3]]))
    digests = [rows.digest(index) for index in range(4)]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3
    taken = rows.take([3, 0]).take([1, 0])
    assert taken.positions.tolist() == [0, 3]
    assert (len(taken), taken.digest(1)) == (2, digests[3])
    np.testing.assert_array_equal(taken.numbers, [[0, np.nan], [1, 3]])


def test_digests_do_not_depend_on_the_dtype(make, rows):
    """The same numbers in float32 are held out and start as in float64."""
    singles = rows.astype(np.float32)
    assert NumberRows(singles).digest(7) == NumberRows(rows).digest(7)
    np.testing.assert_allclose(make().fit(singles).transform(rows), make().fit(rows).transform(rows), atol=1e-4)


IMAGES = {
    "batch": np.zeros((3, 8, 8)),
    "tensor": torch.zeros(3, 3, 8, 8),
    "arrays": [np.zeros((8, 8))] * 3,
    "paths": ["a.png", "b.png"],
    "path objects": [Path("a.png"), Path("b.png")],
    "array of paths": np.array(["a.png", "b.png"]),
    "column of paths": np.array([["a.png"], ["b.png"]], dtype=object),
    "frame of paths": pd.DataFrame({"image": ["a.png", "b.png"]}),
    "series of paths": pd.Series(["a.png", "b.png"]),
    "PIL": [Image.new("L", (8, 8))] * 3,
    "bytes": [b"PNG", b"PNG"],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_need_a_backbone(kind):
    """However images are given, the error says so and names the parameter."""
    with pytest.raises(InputError, match=r"backbone=None takes a table of numbers.*set a backbone"):
        Autoencoder().fit(IMAGES[kind])


def test_columns_and_rows_without_entries():
    """The error names the column or the position of the row; at prediction, a column may be missing."""
    X = np.arange(12.0).reshape(4, 3)
    X[:, 1] = np.nan
    with pytest.raises(InputError, match=r"columns without any observed entry: \[1\]"):
        Autoencoder().fit(X)
    with pytest.raises(InputError, match=r"columns without any observed entry: \['b'\]"):
        Autoencoder().fit(pd.DataFrame(X, columns=["a", "b", "c"]))
    X[2] = np.nan
    with pytest.raises(InputError, match="the first one at position 2"):
        Autoencoder().fit(X)


def test_other_bad_tables():
    """Infinity, one row and equal rows are refused."""
    for X, message in (
        ([[1.0, np.inf], [2, 3]], "infinity"),
        ([[1.0, 2.0]], "1 sample"),
        (np.ones((5, 3)), "5 equal rows"),
        ([[1.0, np.nan]] * 2, "observed entry|equal rows"),
    ):
        with pytest.raises(ValueError, match=message):
            Autoencoder().fit(X)


def test_the_dtype_is_kept():
    """float32 stays, integers become float64."""
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (int, np.float64)):
        rows = check_numbers(Autoencoder(), np.arange(6).reshape(3, 2).astype(dtype), reset=True)
        assert rows.numbers.dtype == expected
