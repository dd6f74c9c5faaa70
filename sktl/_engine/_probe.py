"""Linear probes: the head's start, fitted in closed form or nearly so on frozen features.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022: training
from a head that already fits the features (LP-FT) does not tear them apart in its first steps, as a random head does.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

_MOST_ROWS = 10_000  # a start needs no more
_MOST_NUMBERS = 20_000_000  # 160 MB in float64; features that are not pooled are many

# Of standardised features. Strong, for there are usually more features than pictures, and training goes on from here.
PROBE_PENALTY = 30.0


def probe_rows(n_rows: int, n_features: int, seed: int) -> np.ndarray:
    """Positions of the rows that a probe looks at: all, or a random choice of so many as a start needs."""
    n_chosen = min(n_rows, _MOST_ROWS, max(_MOST_NUMBERS // n_features, 100))
    if n_chosen == n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_chosen, replace=False))


class Probe(NamedTuple):
    """A linear map of features: ``features @ weight.T + bias``."""

    weight: np.ndarray  # (n_outputs, n_features)
    bias: np.ndarray  # (n_outputs,)


def classification_probe(features: np.ndarray, y: np.ndarray, weight: np.ndarray, n_classes: int) -> Probe:
    """Logits by penalised logistic regression.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Frozen features.
    y : ndarray of shape (n,)
        Class numbers, from 0 to ``n_classes - 1``; a class without rows gets logits of zero.
    weight : ndarray of shape (n,)
        Weights of the rows; a weight of 2 is a row that is there twice.
    n_classes : int
        Number of logits.
    """
    mean, scale = _moments(features, weight)
    present = np.unique(y)
    coefficients = np.zeros((n_classes, features.shape[1]))
    intercepts = np.zeros(n_classes)
    if len(present) > 1:
        model = LogisticRegression(C=1 / PROBE_PENALTY, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start, not a result
            model.fit((features - mean) / scale, y, sample_weight=_at_least_one(weight))
        if len(present) == 2:  # one row for both: half of it up, half of it down
            coefficients[present] = np.vstack([-model.coef_, model.coef_]) / 2
            intercepts[present] = np.hstack([-model.intercept_, model.intercept_]) / 2
        else:
            coefficients[present], intercepts[present] = model.coef_, model.intercept_
    return _unstandardised(coefficients, intercepts, mean, scale)


def regression_probe(features: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Probe:
    """Targets by ridge regression.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Frozen features.
    y : ndarray of shape (n, n_targets)
        Standardised targets.
    weight : ndarray of shape (n,)
        Weights of the rows; a weight of 2 is a row that is there twice.
    """
    mean, scale = _moments(features, weight)
    model = Ridge(alpha=PROBE_PENALTY).fit((features - mean) / scale, y, sample_weight=_at_least_one(weight))
    return _unstandardised(model.coef_.reshape(y.shape[1], -1), model.intercept_, mean, scale)


def _moments(features: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each feature; a constant one is left in its scale."""
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(features - mean), axis=0, weights=weight))
    # What varies by rounding alone is constant: blown up to unit scale it would be noise as large as a feature.
    return mean, np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, 1.0)


def _at_least_one(weight: np.ndarray) -> np.ndarray:
    """Weights of which the largest is one or more.

    As in all of scikit-learn, weights weigh against the penalty too; but weights that are meant as shares of one
    (AdaBoost's) would leave nothing but the penalty.
    """
    return weight / min(1.0, weight.max())


def _unstandardised(coefficients: np.ndarray, intercepts: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Probe:
    weight = coefficients / scale
    return Probe(weight, intercepts - weight @ mean)
