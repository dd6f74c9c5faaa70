"""Thresholds flag the share that they promise, of new rows or of training rows."""

import numpy as np
import pytest

from sktl._estimators._threshold import choose_offset


@pytest.mark.parametrize("n", [19, 50, 100, 1000])
def test_auto_flags_five_percent_of_new_rows(n):
    """Of uniform scores, a share equal to the offset is new and below it: its mean is 5 %, for any number of rows."""
    rng = np.random.default_rng(0)
    offsets = [choose_offset(rng.random(n), "auto") for _ in range(2000)]
    assert np.mean(offsets) == pytest.approx(0.05, abs=0.003)


def test_auto_is_the_weibull_quantile():
    """It is NumPy's unbiased quantile, for equal weights of any size."""
    scores = np.random.default_rng(0).normal(size=87)
    expected = np.quantile(scores, 0.05, method="weibull")
    assert choose_offset(scores, "auto") == pytest.approx(expected)
    assert choose_offset(scores, "auto", np.full(87, 0.3)) == pytest.approx(expected)


def test_auto_with_few_rows_is_the_lowest_score():
    """A threshold beyond all scores is a guess: with fewer than 19 rows, the lowest score is the best one."""
    assert choose_offset(np.array([3.0, -1.0, 2.0]), "auto") == -1


@pytest.mark.parametrize("n", [10, 11, 37, 40, 300])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_a_share_is_one_of_the_training_rows(n, share):
    """As in scikit-learn, the number of rows below the offset is the share of the rows, rounded up."""
    scores = np.random.default_rng(n).random(n)
    assert (scores < choose_offset(scores, share)).sum() == np.ceil(share * (n - 1))
    expected = np.percentile(scores, 100 * share)
    assert choose_offset(scores, share) == pytest.approx(expected)
    assert choose_offset(scores, share, np.full(n, 0.3)) == pytest.approx(expected)


@pytest.mark.parametrize("contamination", ["auto", 0.05, 0.2])
def test_a_weight_is_a_number_of_copies(contamination):
    """The threshold flags the same share of the weight as of the repeated rows."""
    scores = np.random.default_rng(0).normal(size=400)
    weight = np.where(np.arange(400) < 200, 3.0, 1.0)
    repeated = np.repeat(scores, weight.astype(int))
    offset, expected = choose_offset(scores, contamination, weight), choose_offset(repeated, contamination)
    assert (repeated < offset).mean() == pytest.approx((repeated < expected).mean(), abs=0.005)


def test_one_row():
    """Its score is the threshold."""
    assert choose_offset(np.array([2.0]), "auto") == choose_offset(np.array([2.0]), 0.1) == 2
