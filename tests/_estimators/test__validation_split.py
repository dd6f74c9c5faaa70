"""Rows to learn from and to judge on: equal ones are one, and a picture is on one side."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator

from sktl._estimators._checked_table import distinct
from sktl._estimators._validation_split import _stratified_split, hold_out
from sktl._images import check_images
from sktl._training._data import LabeledImages


class Door(BaseEstimator):
    """The parameters that tables of pictures are checked with."""

    image_shape, channels, in_channels = None, "auto", 3


def table_of(X, y, weight=None, sample_weight=None):
    ones = np.ones(len(y))
    columns = (ones if column is None else np.asarray(column, float) for column in (weight, sample_weight))
    return LabeledImages(check_images(Door(), X, reset=True), np.asarray(y), *columns, (X, y))


@pytest.fixture
def table():
    """Eight rows: pictures 0, 1, 2, 0, 1, 0, 3, 3 with labels 0, 1, 0, 0, 1, 2, 1, 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    return table_of(pixels[[0, 1, 2, 0, 1, 0, 3, 3]], [0, 1, 0, 0, 1, 2, 1, 1], np.arange(1.0, 9), np.arange(11.0, 19))


def test_take_keeps_rows_together(table):
    """Pictures, targets and both weights of the positions asked for, in that order; of the same table as given."""
    taken = table.take(np.array([5, 2])).take(np.array([1, 0]))
    assert taken.images.positions.tolist() == [2, 5]
    assert (taken.y.tolist(), taken.weight.tolist(), taken.sample_weight.tolist()) == ([0, 2], [3, 6], [13, 16])
    assert taken.given is table.given


@pytest.mark.parametrize(
    "kind",
    [
        lambda X: X,
        list,
        lambda X: torch.tensor(X),
        lambda X: pd.DataFrame(X.reshape(len(X), -1)),
        lambda X: pd.Series(list(X), index=[f"row {i}" for i in range(len(X))]),
    ],
    ids=["array", "list", "tensor", "frame", "series"],
)
def test_rows_as_they_were_given(kind):
    """A view gives back what the user gave, of the same type and with what belongs to it, not what was decoded."""
    pixels = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
    X = kind(pixels)
    taken = table_of(X, [0, 1, 0, 1]).take(np.array([3, 1, 2]))
    given = taken.as_given()
    assert type(given) is type(X)
    for got, row in zip(list(given) if not hasattr(given, "iloc") else given.to_numpy(), [3, 1, 2], strict=True):
        np.testing.assert_array_equal(np.asarray(got).ravel(), pixels[row].ravel())
    assert len(taken.as_given(2)) == 2
    if hasattr(X, "iloc"):
        assert given.index.tolist() == X.index[[3, 1, 2]].tolist()


def test_equal_rows_are_one(table):
    """Equal pictures with equal targets become one row that weighs what they weighed; other targets stay apart."""
    merged = distinct(table)
    rows = {(row, label): weights for row, label, *weights in zip(merged.images.positions, *merged[1:4], strict=True)}
    assert rows == {
        (0, 0): [1 + 4, 11 + 14],
        (1, 1): [2 + 5, 12 + 15],
        (2, 0): [3, 13],
        (5, 2): [6, 16],
        (6, 1): [7 + 8, 17 + 18],
    }


def test_their_order_is_that_of_their_content(table):
    """However a table is shuffled, the same rows come in the same order; several targets are compared whole."""
    order = np.random.default_rng(1).permutation(8)
    several = table._replace(y=np.stack([table.y, table.y + 0.5], axis=1))
    for one in (table, several):
        first, second = distinct(one), distinct(one.take(order))
        np.testing.assert_array_equal(first.y, second.y)
        np.testing.assert_array_equal(first.weight, second.weight)
        assert [first.images.digest(i) for i in range(5)] == [second.images.digest(i) for i in range(5)]


@pytest.mark.parametrize("is_stratified", [True, False])
@pytest.mark.parametrize("fraction", [0.2, 0.34, 0.6])
def test_a_picture_is_held_out_with_all_its_targets(table, fraction, is_stratified):
    """Every row is on one side, a picture's rows on the same, and one seed is one choice."""
    merged = distinct(table)
    sides = hold_out(merged, np.zeros(5) if is_stratified else None, fraction, seed=3)
    learnt, judged = (set(side.images.positions.tolist()) for side in sides)
    assert learnt | judged == set(merged.images.positions.tolist())
    assert not learnt & judged
    assert ({0, 5} <= learnt) or ({0, 5} <= judged)  # one picture, two labels
    n_judged = len({side.images.digest(i) for side in sides[1:] for i in range(len(side.y))})
    assert n_judged == np.ceil(fraction * 4)
    again = hold_out(merged, np.zeros(5) if is_stratified else None, fraction, seed=3)
    assert again[1].images.positions.tolist() == sides[1].images.positions.tolist()
    weights = dict(zip(merged.images.positions, merged.weight, strict=True))
    assert all(weights[row] == weight for row, weight in zip(sides[1].images.positions, sides[1].weight, strict=True))


def test_nothing_left_to_learn_from(table):
    """The error says the fraction, how many different pictures there are, and what to do."""
    with pytest.raises(
        ValueError, match=r"validation_fraction=0\.9 of 4 pictures leaves nothing.*early_stopping=False"
    ):
        hold_out(distinct(table), None, 0.9, seed=0)
    with pytest.raises(ValueError, match=r"early_stopping=True needs a class with at least two.*early_stopping=False"):
        hold_out(distinct(table), np.arange(5), 0.3, seed=0)
    with pytest.raises(
        ValueError, match=r"^Lottery needs a class with at least two rows.* 4 images of 4 classes"
    ) as caught:
        hold_out(distinct(table), np.arange(5), 0.3, seed=0, by="Lottery")
    assert "early_stopping" not in str(caught.value)


@pytest.mark.parametrize("n_valid", [1, 3, 5, 12, 15])
def test_a_split_learns_lone_rows(n_valid):
    """A class with one row is learnt and not judged; all rows are on one side, and as many as possible are judged."""
    strata = np.array([0] * 10 + [1] * 3 + [2] + [3] * 2)
    judging = _stratified_split(strata, n_valid, 0)
    learning = np.setdiff1d(np.arange(16), judging)
    assert len(learning) + len(judging) == 16
    assert 2 in strata[learning]
    assert len(judging) == min(max(n_valid, 3), 12)
    if n_valid <= 5:
        assert set(strata[learning]) == {0, 1, 2, 3}
