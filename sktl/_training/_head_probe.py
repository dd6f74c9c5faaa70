"""Linear probes: the head's start, fitted in closed form or nearly so on frozen features.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022: training
from a head that already fits the features (LP-FT) does not tear them apart in its first steps, as a random head does.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_MOST_ROWS = 10_000  # a start needs no more
_MOST_GROUPS = 500  # of more, several are left out together
_MOST_NUMBERS = 20_000_000  # 160 MB in float64; features that are not pooled are many

# Of standardised features. Strong, for there are usually more features than pictures, and training goes on from here.
PROBE_PENALTY = 30.0

# Those a regression chooses from, the strongest first: it leaves the mean alone.
PENALTIES = np.append(np.inf, PROBE_PENALTY * np.geomspace(1e5, 1, 11))


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


def regression_probe(
    features: np.ndarray, y: np.ndarray, weight: np.ndarray, groups: "np.ndarray | None" = None
) -> Probe:
    """Targets by ridge regression, with a penalty for each target that predicts left-out rows well.

    It is the strongest one whose error is within one standard error of the smallest. One of them leaves nothing but the
    mean: so features that say nothing of a target do no harm.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Frozen features.
    y : ndarray of shape (n, n_targets)
        Standardised targets.
    weight : ndarray of shape (n,)
        Weights of the rows; a weight of 2 is a row that is there twice, and both are left out together.
    groups : ndarray of shape (n,) or None, default=None
        Number of each row's group, all rows of which are left out together; with one group only, rows are.

    References
    ----------
    Golub, Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
    Technometrics 21, 1979: the error of each left-out row from one fit, as in scikit-learn's `RidgeCV`. Breiman et al.,
    "Classification and Regression Trees", 1984, section 3.4.3: the rule of one standard error.
    """
    mean, scale = _moments(features, weight)
    weight = _at_least_one(weight)
    intercepts = np.average(y, axis=0, weights=weight)
    root = np.sqrt(weight)[:, np.newaxis]
    left, singular, right = _thin_svd(root * (features - mean) / scale)
    targets = root * (y - intercepts)
    seen = left.T @ targets  # (n_directions, n_targets)
    shrunk = singular**2 / (singular**2 + PENALTIES[:, np.newaxis])  # (n_penalties, n_directions)
    group = np.arange(len(y)) if groups is None else in_order(groups) % _MOST_GROUPS
    if group.max() == 0:  # without it nothing would be left
        group = np.arange(len(y))
    directions = np.column_stack([left, root / np.sqrt(weight.sum())])  # the last one is the mean's
    errors = np.empty((2, len(PENALTIES), targets.shape[1]))  # of the left-out rows the mean, and its standard error
    for number, factor in enumerate(shrunk):
        residuals = targets - left @ (factor[:, np.newaxis] * seen)
        squared = np.square(_left_out(residuals, directions * np.sqrt(np.append(factor, 1)), group))
        errors[0, number] = squared.sum(0) / weight.sum()
        excess = squared - weight[:, np.newaxis] * errors[0, number]
        excess = np.stack([np.bincount(group, weights=column) for column in excess.T], axis=1)  # chance draws groups
        errors[1, number] = np.linalg.norm(excess, axis=0) / weight.sum()
    best = errors[:, errors[0].argmin(0), np.arange(targets.shape[1])]
    chosen = np.argmax(errors[0] <= best.sum(0), axis=0)  # the first one of each target
    coefficients = (shrunk[chosen] / singular * seen.T) @ right
    return _unstandardised(coefficients, intercepts, mean, scale)


def in_order(groups: np.ndarray) -> np.ndarray:
    """Numbers of the same groups from 0 on, in the order of their first rows, whatever they were before."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _left_out(residuals: np.ndarray, parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """What the residuals would be, (n, n_targets), had the rows of their own group not been fitted.

    Parameters
    ----------
    residuals : ndarray of shape (n, n_targets)
        Of a linear smoother, whose predictions are ``parts @ parts.T @ targets``.
    parts : ndarray of shape (n, n_parts)
        What the smoother is made of.
    group : ndarray of shape (n,), dtype int
        From 0 on. Groups of one row are computed together.
    """
    leverage = np.square(parts).sum(1)
    out = residuals / np.maximum(1 - leverage, 1e-9)[:, np.newaxis]
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(rows) == 1:
            continue
        # The eigenvalues are those of parts.T @ parts too, so the smaller of the two is decomposed.
        left, singular, _ = _thin_svd(parts[rows])
        grown = 1 / np.maximum(1 - singular**2, 1e-9) - 1
        out[rows] = residuals[rows] + left @ (grown[:, np.newaxis] * (left.T @ residuals[rows]))
    return out


def _thin_svd(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors and values of (n, n_features), by way of its smaller Gram matrix, without those of rounding."""
    is_wide = x.shape[0] < x.shape[1]
    squares, vectors = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    is_kept = squares > squares.max(initial=0) * max(x.shape) * np.finfo(float).eps
    singular, vectors = np.sqrt(squares[is_kept]), vectors[:, is_kept]
    if is_wide:
        return vectors, singular, vectors.T @ x / singular[:, np.newaxis]
    return x @ vectors / singular, singular, vectors.T


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
