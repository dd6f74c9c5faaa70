"""Thresholds of the scores: the share of new rows, or of training rows, that lies below."""

import numpy as np
import pytest

from sktl.autoencoders._threshold import choose_offset


def test_auto_is_the_share_of_new_rows():
    """Averaged over many draws, 5 % of new scores lie below the threshold from 40 scores."""
    generator = np.random.default_rng(0)
    shares = [
        (generator.normal(size=200) < choose_offset(generator.normal(size=40), np.ones(40), "auto")).mean()
        for _ in range(2000)
    ]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.003)


def test_auto_is_the_weibull_quantile():
    """It is NumPy's unbiased quantile, the lowest score where there are few."""
    scores = np.random.default_rng(0).normal(size=87)
    expected = np.quantile(scores, 0.05, method="weibull")
    assert choose_offset(scores, np.ones(87), "auto") == pytest.approx(expected)
    assert choose_offset(scores, np.full(87, 0.3), "auto") == pytest.approx(expected)
    assert choose_offset(scores[:10], np.ones(10), "auto") == scores[:10].min()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_float_is_the_share_of_training_rows(share):
    """As many rows as asked for lie below, and weights count as copies."""
    scores = np.random.default_rng(0).normal(size=40)
    assert (scores < choose_offset(scores, np.ones(40), share)).sum() == 40 * share
    weight = np.where(np.arange(40) < 20, 2.0, 1.0)
    repeated = np.repeat(scores, weight.astype(int))
    assert choose_offset(scores, weight, share) == choose_offset(repeated, np.ones(60), share)
