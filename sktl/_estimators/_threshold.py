"""Threshold of the scores, and the share of rows below it."""

from typing import Any

import numpy as np

FALSE_ALARMS = 0.05  # share of new rows that contamination="auto" flags


def choose_offset(scores: np.ndarray, contamination: Any, weight: "np.ndarray | None" = None) -> float:
    """Return the score below which a row counts as an outlier.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores, high for usual rows: with ``"auto"`` by a model that has not learned
        from these rows, with a float of the training rows.
    contamination : float or "auto"
        Share of the training rows below the offset. ``"auto"`` is 5 % of new rows from
        the same distribution.
    weight : ndarray of shape (n,) or None, default=None
        Weights of the rows. None gives all rows the same weight.

    Returns
    -------
    float
        The offset.

    Notes
    -----
    The k-th smallest of n scores is undercut by a share of k / (n + 1) of new rows, on
    average. ``"auto"`` interpolates between these shares; with fewer than 19 scores, it
    returns the lowest one. A float interpolates between the shares (k - 1) / (n - 1),
    as scikit-learn's detectors do.
    """
    weight, n = np.ones(len(scores)) if weight is None else weight, len(scores)
    order = np.argsort(scores)
    scores, weight = scores[order], weight[order]
    until = np.cumsum(weight)
    if contamination == "auto":
        return float(np.interp(FALSE_ALARMS * (n + 1) * (until[-1] / n), until, scores))
    return float(np.interp(contamination * (n - 1) * (until[-1] / n), until - weight, scores))
