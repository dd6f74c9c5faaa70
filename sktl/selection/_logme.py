"""LogME score: the evidence of a Bayesian linear model of the labels."""

from collections.abc import Callable
from numbers import Integral

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._params import validate_params
from sktl.selection._principal_components import Spectrum, spectrum
from sktl.selection._validation import Labels, Task, check_targets, unit_scale

# Minimum variance of the noise, relative to the mean square of the target.
_LEAST_NOISE = 1e-8
_GRID = 0.5  # step of log(alpha / beta), small enough not to miss a maximum
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
    """Compute the LogME score of features for classification or regression.

    LogME is the logarithm of the maximum evidence of a Bayesian linear model of the
    labels.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}, default="auto"
        Type of ``y``. ``"auto"`` means regression if ``y`` has several columns or
        numbers that are not integers. Use ``"regression"`` if the targets are integers.
    max_iter : int or None, default=None
        Maximum number of iterations of the authors' algorithm. None finds the maximum
        of the evidence instead. Use 11 to reproduce published values.

    Returns
    -------
    score : float
        Logarithm of a density per row, of any sign. Greater is better. Only scores for
        the same ``y`` can be compared. With ``m`` as the mean square of a target (for
        classes, the share of the rows of the class), the score lies between
        ``-log(2π·m)/2 - 1/2``, for features without information, and
        ``-log(2π·m·1e-8)/2``. It is averaged over the targets.

    Raises
    ------
    InputError
        If ``features`` or ``y`` have missing values or different lengths, or ``y`` has
        only one class or value.

    Warnings
    --------
    The score is not an accuracy and cannot be compared between different labels. It
    ranks features for the same labels.

    See Also
    --------
    h_score : Score of the same speed for classification only.
    probe_score : Accuracy of a linear model, which is slower.

    Notes
    -----
    Each target (for classification, one indicator per class) is modeled as
    ``y = X·w + noise`` with ``w ~ N(0, 1/alpha)`` and noise of variance ``1/beta``. The
    evidence is the probability of the target after integrating out ``w``, maximized
    over alpha and beta [1]_ [2]_. It needs no held-out rows, because a model that could
    fit anything has low evidence. The score is invariant to the scale and rotations of
    the features. As in the paper, the model has no intercept, so that centered features
    score lower than uncentered ones: only compare features that are preprocessed in the
    same way.

    For a given ``alpha/beta``, the best beta is known in closed form. The ratio is
    found by a grid search over all magnitudes, followed by a golden-section search. The
    authors' iterations approach the same maximum, but their implementation stops after
    11. With fewer rows than features, or labels that do not depend on the features, it
    is up to 0.1 below the maximum. Its iterations depend on the scale of the features.

    If features fit a target exactly, its density would be infinite. The variance of the
    noise is therefore at least 1e-8 of the mean square of the target. Of two exact
    fits, the one with fewer or larger directions still scores higher. Constant features
    act as an intercept, and zeros have the lowest score. A class with a single row is a
    target like any other, and duplicate rows count separately.

    The score assumes that labels are linear in the features, so it does not account for
    the changes of a deeper fine-tuning. It is misleading for few rows, which many
    features fit.

    References
    ----------
    .. [1] You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models
           for Transfer Learning", ICML 2021, algorithm 1.
    .. [2] You et al., "Ranking and Tuning Pre-trained Models: A New Paradigm for
           Exploiting Model Hubs", JMLR 2022, arXiv 2110.10545.

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
        scale, units = np.clip(scale, 1e-30, 1e30), np.clip(units, 1e-30, 1e30)  # avoids overflow
        found = Spectrum(found.energies * scale**2, found.projections * units)
        return float(_published(found, squares * units**2, len(X), max_iter).mean())
    # Rescaling a target divides its density by the unit.
    return float(np.mean(_evidence(found, squares, len(X)) - np.log(units)))


def _evidence(found: Spectrum, squares: np.ndarray, n: int) -> np.ndarray:
    """Return the log evidence per row, maximized over alpha and beta.

    Parameters
    ----------
    found : Spectrum
        Spectrum of the features and the targets.
    squares : ndarray of shape (n_targets,)
        Sum of squares of each target.
    n : int
        Number of rows.

    Returns
    -------
    evidence : ndarray of shape (n_targets,)
        Log evidence of each target.
    """
    energies, parts, outside = found.energies, np.square(found.projections), _outside(found, squares)
    least = _LEAST_NOISE * squares / n
    nothing = -0.5 * np.log(2 * np.pi * squares / n) - 0.5  # infinite alpha: the features are not used
    if not len(energies):
        return nothing

    def judged(residual: np.ndarray, log_kept: np.ndarray) -> np.ndarray:
        """Return the evidence for the best beta; ``exp(log_kept)`` is unexplained."""
        noise = np.maximum((residual + outside) / n, least)
        return -0.5 * np.log(2 * np.pi * noise) - (residual + outside) / (2 * n * noise) + log_kept / (2 * n)

    def evidence(log_ratio: np.ndarray) -> np.ndarray:
        """Return the evidence for log(alpha / beta) of shape (n_targets,)."""
        kept = 1 / (1 + energies[:, None] / np.exp(log_ratio))
        return judged((kept * parts).sum(axis=0), np.log(kept).sum(axis=0))

    low, high = np.log(_LEAST_NOISE * energies[-1]), np.log(1e6 * energies.sum())
    grid = np.arange(low, high + _GRID, _GRID)
    kept = 1 / (1 + energies / np.exp(grid)[:, None])
    best = grid[judged(kept @ parts, np.log(kept).sum(axis=1, keepdims=True)).argmax(axis=0)]
    return np.maximum(_golden(evidence, best - _GRID, best + _GRID), nothing)


def _outside(found: Spectrum, squares: np.ndarray) -> np.ndarray:
    """Return the part of the sum of squares that features cannot explain."""
    return np.clip(squares - np.square(found.projections).sum(axis=0), 0, None)


def _published(found: Spectrum, squares: np.ndarray, n: int, max_iter: int) -> np.ndarray:
    """Return the evidence of the authors' implementation.

    It stops early or at a fixed point, and adds 1e-5 to two denominators.

    Parameters
    ----------
    found : Spectrum
        Spectrum of the features and the targets, in their original units.
    squares : ndarray of shape (n_targets,)
        Sum of squares of each target.
    n : int
        Number of rows.
    max_iter : int
        Maximum number of iterations.

    Returns
    -------
    evidence : ndarray of shape (n_targets,)
        Log evidence of each target.
    """
    energies, evidence = found.energies, []
    for parts, outside in zip(np.square(found.projections).T, _outside(found, squares), strict=True):
        ratio, moved, n_iter = 1.0, np.inf, 0
        while n_iter < max_iter and moved > 1e-3:
            used = (energies / (energies + ratio)).sum()  # effective number of directions
            length = (energies * parts / (energies + ratio) ** 2).sum()  # squared norm of the weights
            residual = (parts / (1 + energies / ratio) ** 2).sum() + outside
            alpha, beta = max(used, 1e-99) / (length + 1e-5), max(n - used, 1e-16) / (residual + 1e-5)
            new = float(np.clip(alpha / beta, 1e-60, 1e60))
            moved, ratio, n_iter = abs(new - ratio) / ratio, new, n_iter + 1
        logs = n * np.log(beta / (2 * np.pi)) - np.log1p(energies * (beta / alpha)).sum()
        evidence.append((logs - beta * residual - alpha * length) / (2 * n))
    return np.array(evidence)


def _golden(function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the maxima of functions by golden-section search, vectorized.

    Parameters
    ----------
    function : callable
        Function from points to values, both of shape (n,), with one maximum each.
    low, high : ndarray of shape (n,)
        Bounds of the search.

    Returns
    -------
    greatest : ndarray of shape (n,)
        Maximum values.
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(30):  # the value converges faster than the point: 1e-12 for an error of 1e-6
        rises = at_left < at_right
        low, high = np.where(rises, left, low), np.where(rises, high, right)
        point = np.where(rises, low + _GOLDEN * (high - low), high - _GOLDEN * (high - low))
        value = function(point)
        left, right = np.where(rises, right, point), np.where(rises, point, left)
        at_left, at_right = np.where(rises, at_right, value), np.where(rises, value, at_left)
    return np.maximum(at_left, at_right)
