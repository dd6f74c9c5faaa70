"""Rows to learn from and to judge on: an image is on one side."""

import numpy as np
import pytest

from sktl._estimators._checked_table import distinct
from sktl._estimators._validation_split import _stratified_split, hold_out


@pytest.fixture
def table(make_table):
    """Eight rows: pictures 0, 1, 2, 0, 1, 0, 3, 3 with labels 0, 1, 0, 0, 1, 2, 1, 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    return make_table(
        pixels[[0, 1, 2, 0, 1, 0, 3, 3]], [0, 1, 0, 0, 1, 2, 1, 1], np.arange(1.0, 9), np.arange(11.0, 19)
    )


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
        ValueError, match=r"fraction=0\.9 of 4 different rows leaves no rows for training.*early_stopping=False"
    ):
        hold_out(distinct(table), None, 0.9, seed=0)
    with pytest.raises(
        ValueError, match=r"early_stopping=True holds out validation rows and needs a class.*early_stopping=False"
    ):
        hold_out(distinct(table), np.arange(5), 0.3, seed=0)
    with pytest.raises(
        ValueError,
        match=r"^Lottery holds out validation rows and needs a class with at least two rows.* 4 images of 4 classes",
    ) as caught:
        hold_out(distinct(table), np.arange(5), 0.3, seed=0, by="Lottery", instead="or X_val and y_val")
    assert "early_stopping" not in str(caught.value)


@pytest.mark.parametrize("n_valid", [1, 3, 5, 12, 15])
def test_a_split_learns_lone_rows(n_valid):
    """A class with one row is learnt and not judged; all rows are on one side, and as many as possible are judged."""
    strata = np.array([0] * 10 + [1] * 3 + [2] + [3] * 2)
    judging = _stratified_split(strata, n_valid, 0, "early_stopping=True", "")
    learning = np.setdiff1d(np.arange(16), judging)
    assert len(learning) + len(judging) == 16
    assert 2 in strata[learning]
    assert len(judging) == min(max(n_valid, 3), 12)
    if n_valid <= 5:
        assert set(strata[learning]) == {0, 1, 2, 3}
