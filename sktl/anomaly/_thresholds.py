"""Threshold of a detector, chosen from scores of rows that a model has not learned."""

from typing import Any

import numpy as np

#: Share of new normal images that ``contamination="auto"`` flags.
FALSE_ALARMS = 0.05


def choose_offset(scores: np.ndarray, contamination: Any) -> float:
    """Return the score below which an image counts as an anomaly.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Score of each training row, high if it is normal, by a model that has not
        learned from this row.
    contamination : float or "auto"
        Share of the training rows below the offset. ``"auto"`` is 5 % of new rows from
        the same distribution.

    Returns
    -------
    float
        The offset.

    Notes
    -----
    The k-th smallest of n scores is undercut by a share of k / (n + 1) of new rows, on
    average. ``"auto"`` interpolates between these shares; with fewer than 19 scores, it
    returns the lowest one. A share of the training rows is a share of n instead, for
    which scikit-learn's detectors interpolate linearly.
    """
    if contamination == "auto":
        return float(np.quantile(scores, FALSE_ALARMS, method="weibull"))
    return float(np.percentile(scores, 100.0 * contamination))
