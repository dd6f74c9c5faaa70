"""LogME: how probable the labels are, given the features, under the best of all Bayesian linear models."""

from collections.abc import Callable
from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._params import validate_params
from sktl.selection._principal_components import Spectrum, spectrum
from sktl.selection._validation import Labels, Task, check_targets, unit_scale

# The least variance of the noise, as a share of the target's mean square: no fit is taken to be better than that.
_LEAST_NOISE = 1e-8
_GRID = 0.5  # step of log(alpha / beta): the evidence bends over a few units of it, so that no maximum is between
_GOLDEN = (5**0.5 - 1) / 2


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def logme_score(features, y, *, task: Task = "auto", max_iter: int | None = None) -> float:
    """LogME: the logarithm of the maximum evidence of a linear model of the labels.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,) or (n, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is. "auto" is a regression where y has several columns or numbers that are not whole; say "regression"
        where the targets are whole numbers.
    max_iter : int or None, default=None
        None finds the maximum. A number takes at most so many of the authors' iterations: 11 gives the values of their
        program, to compare with published ones.

    Returns
    -------
    score : float
        Greater is better. The logarithm of a density, per row, and so of any sign: it can only be compared for the
        same y. With m the mean square of a target (for classes, the share of its rows) it lies between ``-log(2π·m)/2
        - 1/2``, what features that say nothing give, and ``-log(2π·m·1e-8)/2``; the score is the mean over targets.

    Raises
    ------
    InputError
        Where features or y have missing values or do not fit together, or y has one class or value only.

    Warnings
    --------
    It is not an accuracy, and says nothing across sets of labels: it ranks features for one of them.

    See Also
    --------
    h_score : As fast, for classes only.
    probe_score : The accuracy of a linear model, which takes longer.

    Notes
    -----
    Each target (for classes, one for each class: 1 for its rows, 0 for all others) is modelled as ``y = X·w + noise``
    with ``w ~ N(0, 1/alpha)`` and noise of variance ``1/beta``; the evidence is what remains when w is integrated out,
    at its maximum over alpha and beta. It needs no held-out rows: a model that could fit anything is improbable.
    Neither scale nor rotations of the features matter. As in the paper there is no intercept, so that features that are
    centred score lower than the same ones before: compare features that are treated alike.

    For given ``alpha/beta`` the best beta is known in closed form, so that one number is left to be found: by a grid
    over all magnitudes, and golden sections around its best point. The authors' iterations approach the same maximum,
    but their program ends them after 11: where there are fewer rows than features, or labels that have nothing to do
    with them, it stays up to 0.1 below. Its iterations depend on the scale of the features.

    Where features fit a target exactly, its density would be infinite. The variance of the noise is therefore at least
    1e-8 of the target's mean square; of two features that fit exactly, the one that needs fewer or larger directions
    is the better one still. Constant features serve as an intercept, zeros give the least score. A class with a single
    row is a target as any other, and each of several equal rows is evidence.

    It assumes that labels are linear in the features: what a deeper fine-tuning would change is not seen. It misleads
    with few rows, where many features fit them all.

    References
    ----------
    You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
    algorithm 1; You et al., "Ranking and Tuning Pre-trained Models: A New Paradigm for Exploiting
    Model Hubs", JMLR 2022, arXiv 2110.10545.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import logme_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(logme_score(X, y), 3)
    -0.16
    >>> round(logme_score(X[:, :2], y), 3)
    -0.395
    """
    X, target = check_targets(features, y, task)
    X, scale = unit_scale(X)
    if isinstance(target, Labels):
        found, squares = spectrum(X, target.one_hot()), target.counts.astype(float)
        units = np.ones(len(squares))
    else:
        units = np.abs(target).max(axis=0)
        found, squares = spectrum(X, target / units), np.square(target / units).sum(axis=0)
    if max_iter is not None:
        scale, units = np.clip(scale, 1e-30, 1e30), np.clip(units, 1e-30, 1e30)  # no square is to overflow on the way
        found = Spectrum(found.energies * scale**2, found.projections * units)
        return float(_published(found, squares * units**2, len(X), max_iter).mean())
    # The density of a target in another unit is divided by that unit.
    return float(np.mean(_evidence(found, squares, len(X)) - np.log(units)))


def _evidence(found: Spectrum, squares: np.ndarray, n: int) -> np.ndarray:
    """Maximum over alpha and beta of the log evidence per row.

    Parameters
    ----------
    found : Spectrum
        Of the features and the targets.
    squares : ndarray of shape (n_targets,)
        Sum of the squares of each target.
    n : int
        Number of rows.

    Returns
    -------
    evidence : ndarray of shape (n_targets,)
        That of each target.
    """
    energies, parts, outside = found.energies, np.square(found.projections), _outside(found, squares)
    least = _LEAST_NOISE * squares / n
    nothing = -0.5 * np.log(2 * np.pi * squares / n) - 0.5  # alpha is infinite: the features are left alone
    if not len(energies):
        return nothing

    def judged(residual: np.ndarray, log_kept: np.ndarray) -> np.ndarray:
        """With the best beta; of each direction the share ``kept`` stays unexplained."""
        noise = np.maximum((residual + outside) / n, least)
        return -0.5 * np.log(2 * np.pi * noise) - (residual + outside) / (2 * n * noise) + log_kept / (2 * n)

    def evidence(log_ratio: np.ndarray) -> np.ndarray:
        """For log(alpha / beta) of shape (n_targets,)."""
        kept = 1 / (1 + energies[:, None] / np.exp(log_ratio))
        return judged((kept * parts).sum(axis=0), np.log(kept).sum(axis=0))

    low, high = np.log(_LEAST_NOISE * energies[-1]), np.log(1e6 * energies.sum())
    grid = np.arange(low, high + _GRID, _GRID)
    kept = 1 / (1 + energies / np.exp(grid)[:, None])
    best = grid[judged(kept @ parts, np.log(kept).sum(axis=1, keepdims=True)).argmax(axis=0)]
    return np.maximum(_golden(evidence, best - _GRID, best + _GRID), nothing)


def _outside(found: Spectrum, squares: np.ndarray) -> np.ndarray:
    """Of the square of each target what no direction of the features can say."""
    return np.clip(squares - np.square(found.projections).sum(axis=0), 0, None)


def _published(found: Spectrum, squares: np.ndarray, n: int, max_iter: int) -> np.ndarray:
    """Evidence where the authors' program ends: at a fixed point or before, with 1e-5 added to two denominators.

    Parameters
    ----------
    found : Spectrum
        Of the features and the targets, in their own units.
    squares : ndarray of shape (n_targets,)
        Sum of the squares of each target.
    n : int
        Number of rows.
    max_iter : int
        Steps at most.

    Returns
    -------
    evidence : ndarray of shape (n_targets,)
        That of each target.
    """
    energies, evidence = found.energies, []
    for parts, outside in zip(np.square(found.projections).T, _outside(found, squares), strict=True):
        ratio, moved, n_iter = 1.0, np.inf, 0
        while n_iter < max_iter and moved > 1e-3:
            used = (energies / (energies + ratio)).sum()  # directions, in effect
            length = (energies * parts / (energies + ratio) ** 2).sum()  # square of the weights
            residual = (parts / (1 + energies / ratio) ** 2).sum() + outside
            alpha, beta = max(used, 1e-99) / (length + 1e-5), max(n - used, 1e-16) / (residual + 1e-5)
            new = float(np.clip(alpha / beta, 1e-60, 1e60))
            moved, ratio, n_iter = abs(new - ratio) / ratio, new, n_iter + 1
        logs = n * np.log(beta / (2 * np.pi)) - np.log1p(energies * (beta / alpha)).sum()
        evidence.append((logs - beta * residual - alpha * length) / (2 * n))
    return np.array(evidence)


def _golden(function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Greatest value of functions between two points each, where they have one maximum; all in step.

    Parameters
    ----------
    function : callable
        From points to values, both of shape (n,).
    low, high : ndarray of shape (n,)
        Between which points to search.

    Returns
    -------
    greatest : ndarray of shape (n,)
        The values.
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(30):  # the maximum is flat: a millionth of the way off in the point is 1e-12 in the value
        rises = at_left < at_right
        low, high = np.where(rises, left, low), np.where(rises, high, right)
        point = np.where(rises, low + _GOLDEN * (high - low), high - _GOLDEN * (high - low))
        value = function(point)
        left, right = np.where(rises, right, point), np.where(rises, point, left)
        at_left, at_right = np.where(rises, at_right, value), np.where(rises, value, at_left)
    return np.maximum(at_left, at_right)
