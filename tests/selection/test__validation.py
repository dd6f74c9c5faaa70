"""The door of the scores: what is given in any sensible form comes out in one, and what is not is said clearly."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from sktl.selection._validation import Labels, centered, check_features, check_labels, check_targets, unit_scale

X = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.tolist(),
        X.astype(np.float32),
        X.astype(int),
        pd.DataFrame(X),
        torch.from_numpy(X).float(),
        X[:, ::-1][:, ::-1],
    ],
    ids=["array", "list", "float32", "int", "frame", "tensor", "strides"],
)
def test_features_of_any_kind(given):
    """Any table of numbers comes out in double precision."""
    found = check_features(given)
    assert found.dtype == np.float64
    assert_array_equal(found, X)


@pytest.mark.parametrize(
    ("y", "codes", "counts"),
    [
        ([7, 3, 7, 100], [1, 0, 1, 2], [1, 2, 1]),
        (["b", "a", "b", "c"], [1, 0, 1, 2], [1, 2, 1]),
        (pd.Series(["b", "a", "b", "c"], index=[3, 2, 1, 0]), [1, 0, 1, 2], [1, 2, 1]),
        (np.array(["b", "a", "b", "c"], dtype=object), [1, 0, 1, 2], [1, 2, 1]),
        ([True, False, True, True], [1, 0, 1, 1], [1, 3]),
        ([1.0, -2.0, 1.0, 5.0], [1, 0, 1, 2], [1, 2, 1]),
        (np.array([1.0, -2, 1.0, 5], dtype=object), [1, 0, 1, 2], [1, 2, 1]),
        (np.array([True, False, True, True], dtype=object), [1, 0, 1, 1], [1, 3]),
        (torch.tensor([7, 3, 7, 100]), [1, 0, 1, 2], [1, 2, 1]),
    ],
    ids=["gaps", "strings", "series", "objects", "booleans", "whole floats", "numbers", "truths", "tensor"],
)
def test_labels_of_any_kind(y, codes, counts):
    """Labels become numbers without gaps, in their order, each with rows."""
    _, labels = check_labels(X, y)
    assert_array_equal(labels.codes, codes)
    assert_array_equal(labels.counts, counts)
    assert_array_equal(labels.one_hot().toarray(), np.eye(len(counts))[codes])


def test_what_is_to_be_predicted():
    """Whole numbers are classes and others targets, unless the task is said; several columns are targets."""
    whole, parts = [1, 2, 2, 4], [0.5, 1, 2, 3]
    assert isinstance(check_targets(X, whole, "auto")[1], Labels)
    assert isinstance(check_targets(X, np.array(whole, dtype=float), "auto")[1], Labels)
    assert_array_equal(check_targets(X, whole, "regression")[1], np.reshape(whole, (4, 1)))
    assert_array_equal(check_targets(X, parts, "auto")[1], np.reshape(parts, (4, 1)))
    assert_array_equal(check_targets(X, np.array(parts, dtype=object), "auto")[1], np.reshape(parts, (4, 1)))
    columns = np.column_stack([whole, parts[::-1]])
    assert_array_equal(check_targets(X, columns, "auto")[1], columns)
    assert_array_equal(check_targets(X, columns.astype(int), "auto")[1], columns.astype(int))


NAN = np.where(np.eye(4, 2), np.nan, X)


@pytest.mark.parametrize(
    ("features", "y", "message"),
    [
        (
            np.zeros((4, 3, 2, 2)),
            [0, 1, 0, 1],
            r"features must be a table .* Got an array of shape \(4, 3, 2, 2\).*Pool.*mean\(axis=\(2, 3\)\)",
        ),
        (X[:, 0], [0, 1, 0, 1], "Expected 2D array, got 1D array"),
        (X[:1], [0], "minimum of 2 is required"),
        (X[:, :0], [0, 1, 0, 1], r"0 feature\(s\)"),
        (NAN, [0, 1, 0, 1], "features has NaN or infinite values in 2 of 4 rows, starting with row 0.*impute"),
        (np.where(X == 5, np.inf, X), [0, 1, 0, 1], "infinite values in 1 of 4 rows, starting with row 2"),
        (X, [0, 1, 0], "features and y must have the same length. Got 4 rows and 3 labels"),
        (X, [3, 3, 3, 3], "y has only one class, '3'.*at least two classes"),
        (X, ["a"] * 4, "y has only one class, 'a'"),
        (X, [0, 1, np.nan, 1], r"y has missing values \(1 of 4\)"),
        (X, np.array(["a", "b", np.nan, "a"], dtype=object), r"y has missing values \(1 of 4\)"),
        (X, ["a", "b", None, None], r"y has missing values \(2 of 4\)\. Remove these rows"),
        (X, pd.Series(["a", "b", pd.NA, "a"], dtype="string"), r"y has missing values \(1 of 4\)"),
        (
            X,
            np.array(["a", 1, 2, "a"], dtype=object),
            r"y has labels of types \['int', 'str'\], which cannot be sorted",
        ),
        (X, [0.5, 1, 2, 3], "Got numbers that are not integers, such as 0.5.*logme_score or probe_score"),
        (X, np.eye(4), "1d array"),
    ],
)
def test_errors_of_classes(features, y, message):
    """Each says what came, and the way out."""
    with pytest.raises(ValueError, match=message):
        check_labels(features, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([2.5] * 4, r"the same value for all rows \(2.5\)"),
        (np.column_stack([[0.5, 1, 2, 3], [7.0] * 4]), r"the same value in column 1 for all rows \(7\)"),
        ([0.5, 1, 2], "features and y must have the same length. Got 4 rows and 3 labels"),
        ([0.5, 1, 2, np.nan], r"y has missing values \(1 of 4\)"),
        ([0.5, 1, 2, np.inf], "infinity"),
    ],
)
def test_errors_of_targets(y, message):
    """Each says what came, and the way out."""
    with pytest.raises(ValueError, match=message):
        check_targets(X, y, "auto")


def test_scale_and_centre():
    """The largest magnitude becomes 1, zeros stay; constant columns become exact zeros."""
    scaled, scale = unit_scale(-3e200 * np.eye(2))
    assert_array_equal(scaled, -np.eye(2))
    assert scale == 3e200
    assert_array_equal(unit_scale(np.zeros((2, 2)))[0], np.zeros((2, 2)))
    table = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    assert (table[:, 0] - table[:, 0].mean()).any()  # what rounding would leave
    assert_array_equal(centered(table), np.column_stack([np.zeros(7), np.arange(7) - 3.0]))
