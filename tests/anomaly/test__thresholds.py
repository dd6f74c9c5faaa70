"""Thresholds flag the share that they promise, of new rows or of training rows."""

import numpy as np
import pytest

from sktl.anomaly._thresholds import choose_offset


@pytest.mark.parametrize("n", [19, 50, 100, 1000])
def test_auto_flags_five_percent_of_new_rows(n):
    """Of uniform scores, a share equal to the offset is new and below it: its mean is 5 %, for any number of rows."""
    rng = np.random.default_rng(0)
    offsets = [choose_offset(rng.random(n), "auto") for _ in range(2000)]
    assert np.mean(offsets) == pytest.approx(0.05, abs=0.003)


def test_auto_with_few_rows_is_the_lowest_score():
    """A threshold beyond all scores is a guess: with fewer than 19 rows, the lowest score is the best one."""
    assert choose_offset(np.array([3.0, -1.0, 2.0]), "auto") == -1


@pytest.mark.parametrize("n", [10, 37, 300])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_a_share_is_one_of_the_training_rows(n, share):
    """As in scikit-learn, the number of rows below the offset is the share of the rows, rounded up."""
    scores = np.random.default_rng(n).random(n)
    assert (scores < choose_offset(scores, share)).sum() == np.ceil(share * (n - 1))
    assert choose_offset(scores, share) == np.percentile(scores, 100 * share)
