"""Linear probes, which initialize the head from frozen features.

References
----------
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution", ICLR 2022: training from a head that already fits the features
(LP-FT) does not distort them in the first steps, as a random head does.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_MOST_ROWS = 10_000  # enough for an initialization
_MOST_GROUPS = 500  # if there are more, several are held out together
_MOST_NUMBERS = 20_000_000  # 160 MB in float64; features without pooling are large

# L2 penalty on standardized features. It is strong, because there are usually more
# features than images and training continues from here.
PROBE_PENALTY = 30.0

# Candidate penalties of a regression, strongest first: infinity predicts the mean.
PENALTIES = np.append(np.inf, PROBE_PENALTY * np.geomspace(1e5, 1, 11))


def probe_rows(n_rows: int, n_features: int, seed: int) -> np.ndarray:
    """Return the positions of all rows, or of a random sample, to fit a probe to."""
    n_chosen = min(n_rows, _MOST_ROWS, max(_MOST_NUMBERS // n_features, 100))
    if n_chosen == n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_chosen, replace=False))


class Probe(NamedTuple):
    """Linear map of features: ``features @ weight.T + bias``."""

    weight: np.ndarray  # (n_outputs, n_features)
    bias: np.ndarray  # (n_outputs,)


def classification_probe(features: np.ndarray, y: np.ndarray, weight: np.ndarray, n_classes: int) -> Probe:
    """Fit logits by penalized logistic regression.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Frozen features.
    y : ndarray of shape (n,)
        Class indices, from 0 to ``n_classes - 1``. A class without rows gets logits of
        zero.
    weight : ndarray of shape (n,)
        Weights of the rows. A weight of 2 equals repeating the row.
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
            # Convergence does not matter for an initialization.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((features - mean) / scale, y, sample_weight=_at_least_one(weight))
        # One row of coefficients for both classes: split it evenly.
        if len(present) == 2:
            coefficients[present] = np.vstack([-model.coef_, model.coef_]) / 2
            intercepts[present] = np.hstack([-model.intercept_, model.intercept_]) / 2
        else:
            coefficients[present], intercepts[present] = model.coef_, model.intercept_
    return _unstandardised(coefficients, intercepts, mean, scale)


def regression_probe(
    features: np.ndarray, y: np.ndarray, weight: np.ndarray, groups: "np.ndarray | None" = None
) -> Probe:
    """Fit targets by ridge regression, with a cross-validated penalty for each target.

    The penalty is the strongest one whose error on held-out rows is within one standard
    error of the smallest. The strongest candidate predicts the mean, so uninformative
    features do no harm.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Frozen features.
    y : ndarray of shape (n, n_targets)
        Standardized targets.
    weight : ndarray of shape (n,)
        Weights of the rows. A weight of 2 equals repeating the row, with both copies
        held out together.
    groups : ndarray of shape (n,) or None, default=None
        Group number of each row. The rows of a group are held out together. A single
        group is ignored.

    References
    ----------
    Golub, Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a
    Good Ridge Parameter", Technometrics 21, 1979: the error of each held-out row from
    one fit, as in scikit-learn's `RidgeCV`. Breiman et al., "Classification and
    Regression Trees", 1984, section 3.4.3: the one-standard-error rule.
    """
    mean, scale = _moments(features, weight)
    weight = _at_least_one(weight)
    intercepts = np.average(y, axis=0, weights=weight)
    root = np.sqrt(weight)[:, np.newaxis]
    left, singular, right = _thin_svd(root * (features - mean) / scale)
    targets = root * (y - intercepts)
    seen = left.T @ targets  # (n_directions, n_targets)
    # Shape (n_penalties, n_directions).
    shrunk = singular**2 / (singular**2 + PENALTIES[:, np.newaxis])
    group = np.arange(len(y)) if groups is None else in_order(groups) % _MOST_GROUPS
    if group.max() == 0:  # holding out the only group would leave no rows
        group = np.arange(len(y))
    # The last direction is the mean.
    directions = np.column_stack([left, root / np.sqrt(weight.sum())])
    # Held-out error and its standard error.
    errors = np.empty((2, len(PENALTIES), targets.shape[1]))
    for number, factor in enumerate(shrunk):
        residuals = targets - left @ (factor[:, np.newaxis] * seen)
        squared = np.square(_left_out(residuals, directions * np.sqrt(np.append(factor, 1)), group))
        errors[0, number] = squared.sum(0) / weight.sum()
        excess = squared - weight[:, np.newaxis] * errors[0, number]
        # Groups, not rows, are the independent observations.
        excess = np.stack([np.bincount(group, weights=column) for column in excess.T], axis=1)
        errors[1, number] = np.linalg.norm(excess, axis=0) / weight.sum()
    best = errors[:, errors[0].argmin(0), np.arange(targets.shape[1])]
    chosen = np.argmax(errors[0] <= best.sum(0), axis=0)  # the first one of each target
    coefficients = (shrunk[chosen] / singular * seen.T) @ right
    return _unstandardised(coefficients, intercepts, mean, scale)


def in_order(groups: np.ndarray) -> np.ndarray:
    """Renumber the groups from 0, in the order of their first rows."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def _left_out(residuals: np.ndarray, parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the residuals (n, n_targets) if each row's group had been held out.

    Parameters
    ----------
    residuals : ndarray of shape (n, n_targets)
        Residuals of a linear smoother with predictions ``parts @ parts.T @ targets``.
    parts : ndarray of shape (n, n_parts)
        Factor of the smoother matrix.
    group : ndarray of shape (n,), dtype int
        Group numbers from 0. Groups of one row are computed together.
    """
    leverage = np.square(parts).sum(1)
    out = residuals / np.maximum(1 - leverage, 1e-9)[:, np.newaxis]
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(rows) == 1:
            continue
        # parts.T @ parts has the same eigenvalues: decompose the smaller of the two.
        left, singular, _ = _thin_svd(parts[rows])
        grown = 1 / np.maximum(1 - singular**2, 1e-9) - 1
        out[rows] = residuals[rows] + left @ (grown[:, np.newaxis] * (left.T @ residuals[rows]))
    return out


def _thin_svd(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the thin SVD of (n, n_features), without numerically zero singular values.

    It is computed from the smaller Gram matrix.
    """
    is_wide = x.shape[0] < x.shape[1]
    squares, vectors = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    is_kept = squares > squares.max(initial=0) * max(x.shape) * np.finfo(float).eps
    singular, vectors = np.sqrt(squares[is_kept]), vectors[:, is_kept]
    if is_wide:
        return vectors, singular, vectors.T @ x / singular[:, np.newaxis]
    return x @ vectors / singular, singular, vectors.T


def _moments(features: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean and standard deviation of each feature.

    The standard deviation of a constant feature is set to 1.
    """
    mean = np.average(features, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(features - mean), axis=0, weights=weight))
    # A feature that varies only by rounding counts as constant: scaled to unit
    # variance, it would be pure noise.
    return mean, np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, 1.0)


def _at_least_one(weight: np.ndarray) -> np.ndarray:
    """Scale weights so that the largest is at least one.

    As in all of scikit-learn, the sum of the weights counts against the penalty.
    Weights that are shares of one (such as AdaBoost's) would leave only the penalty.
    """
    return weight / min(1.0, weight.max())


def _unstandardised(coefficients: np.ndarray, intercepts: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Probe:
    weight = coefficients / scale
    return Probe(weight, intercepts - weight @ mean)
