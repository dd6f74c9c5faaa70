"""Threshold of the scores, and the share of rows below it."""

from typing import Any

import numpy as np
from sklearn.utils.stats import _weighted_percentile

FALSE_ALARMS = 0.05  # share of new rows that contamination="auto" flags


def choose_offset(scores: np.ndarray, weight: np.ndarray, contamination: Any) -> float:
    """Return the score below which a row counts as an outlier.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores: with ``"auto"`` of rows that were not learned from, with a float of the
        training rows.
    weight : ndarray of shape (n,)
        Weights of the rows. A weight of 2 equals repeating the row.
    contamination : float or "auto"
        Share of the training rows below the offset. ``"auto"`` is 5 % of new rows from
        the same distribution.

    Notes
    -----
    The k-th smallest of n scores is undercut by a share of k / (n + 1) of new rows, on
    average. ``"auto"`` interpolates between these shares; with fewer than 19 scores, it
    returns the lowest one.
    """
    if contamination != "auto":
        return float(_weighted_percentile(scores, weight, 100 * contamination, average=True))
    order = np.argsort(scores)
    below = np.cumsum(weight[order])
    return float(np.interp(FALSE_ALARMS * below[-1] * (1 + 1 / len(scores)), below, scores[order]))
