"""Scores of how classes lie in the space of the features: H-score, TransRate and GBC."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._params import validate_params
from sktl.selection._principal_components import energies, principal_components, spectrum
from sktl.selection._validation import Labels, centred, check_labels, unit_scale

_LEAST_VARIANCE = 1e-4  # of a class along a direction, as a share of the mean variance of all rows


@validate_params(
    {"features": ["array-like"], "y": ["array-like"], "shrinkage": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def h_score(features, y, *, shrinkage: bool = True) -> float:
    """H-score: how much of the features' variance is between the classes, all directions counting alike.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,)
        Labels of at least two classes.
    shrinkage : bool, default=True
        Whether the covariance is estimated with the shrinkage of Ledoit and Wolf, as there are usually few rows for so
        many features. False is the original with a pseudo-inverse.

    Returns
    -------
    score : float
        Greater is better, from 0 to ``min(n_classes - 1, n_features)``.

    Raises
    ------
    InputError
        Where features or y have missing values or do not fit together, or y has one class only or values that are no
        classes.

    See Also
    --------
    logme_score : As fast, and for regression too.

    Notes
    -----
    ``trace(cov(X)⁻¹ · cov(means))`` where ``means`` has in each row the mean of its class. With shrinkage
    ``cov(X)`` becomes ``(1 - a)·cov(X) + a·trace(cov(X))/n_features·I`` and the second covariance is multiplied by
    ``1 - a``; a is that of `sklearn.covariance.ledoit_wolf`. Both covariances are divided by n (programs that divide
    one of them by n - 1 give ``n / (n - 1)`` times this). Neither the scale nor, without shrinkage, any invertible
    linear map of the features matters; with it, rotations do not.

    Without shrinkage the score is ``n_classes - 1`` for any features that are linearly independent, as they are where
    there are fewer rows than features: it says nothing then. Near that it is still much too high for features that are
    noise. Directions whose singular value is below about 1e-7 of the largest are lost in rounding, so that features of
    very different scales get less than that. Constant features give 0. A class with a single row counts by its distance
    from the others, and each of several equal rows is one more row.

    It assumes that classes differ in their means and have one covariance. It misleads for classes that consist of
    several clusters, and with shrinkage for features whose covariance is nearly a multiple of the identity: the
    estimate takes it for one, and what is between the classes for noise.

    References
    ----------
    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019, the
    definition of the H-score; Ibrahim, Ponomareva and Mazumder, "Newer is not always better: Rethinking transferability
    metrics, their peculiarities, stability and performance", ECML PKDD 2022, the shrinkage-based one; Ledoit and Wolf,
    "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import h_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(h_score(X, y), 3)
    1.17
    >>> round(h_score(X, y, shrinkage=False), 3)
    1.192
    """
    X, labels = check_labels(features, y)
    Z = centred(unit_scale(X)[0])
    n, n_features = Z.shape
    found = spectrum(Z, labels.one_hot())
    between = (np.square(found.projections) / labels.counts).sum(axis=1)  # share of each direction, from 0 to 1
    if not shrinkage or not len(between):
        return float(between.sum())
    variances = found.energies / n
    amount = _ledoit_wolf(Z, variances)
    shrunk = (1 - amount) * variances
    return float((between * shrunk / (shrunk + amount * variances.sum() / n_features)).sum())


def _ledoit_wolf(Z: np.ndarray, variances: np.ndarray) -> float:
    """How much to shrink a covariance, 0 to 1: Ledoit and Wolf's estimate, from its eigenvalues.

    Parameters
    ----------
    Z : ndarray of shape (n, n_features)
        Centred features.
    variances : ndarray of shape (rank,)
        Eigenvalues of their covariance that are not 0.

    Returns
    -------
    amount : float
        That of `sklearn.covariance.ledoit_wolf_shrinkage`, without the covariance itself.
    """
    n, n_features = Z.shape
    squares = np.square(variances).sum()
    distance = squares - variances.sum() ** 2 / n_features  # from the covariance to the multiple of the identity
    noise = (np.square(np.square(Z).sum(axis=1)).mean() - squares) / n  # of the estimate of the covariance
    return float(min(noise, distance) / distance) if distance > 1e-15 * squares else 0.0


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "normalize": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def transrate_score(features, y, *, epsilon: float = 1e-4, normalize: bool = False) -> float:
    """TransRate: how many nats a row's features say about its class, by the length of a code for them.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,)
        Labels of at least two classes.
    epsilon : float, default=1e-4
        The distortion that the code allows, in the square of the features' unit.
    normalize : bool, default=False
        Whether each row is divided by its length, once all are centred, as the authors' experiments have it. Then the
        scale of the features does not matter.

    Returns
    -------
    score : float
        Greater is better, at least 0.

    Raises
    ------
    InputError
        Where features or y have missing values or do not fit together, or y has one class only or values that are no
        classes.

    See Also
    --------
    h_score : Without a unit, and the better choice for few rows.

    Notes
    -----
    ``R(Z) - sum over classes of n_c/n · R(Z_c)`` with the coding rate ``R(Z) = log det(I + ZᵀZ / (n·epsilon)) / 2`` of
    the centred features Z. The program in the paper takes the mean over the classes instead of ``n_c/n``, which is the
    same for classes of equal size. Rotations of the features do not matter. Their scale does: larger ones get higher
    scores, those much below ``sqrt(epsilon)`` get 0, so that features of different networks are compared with
    ``normalize=True`` only.

    Constant features give 0. A class with a single row is one direction to code. Copies of all rows change nothing.

    It assumes that a class is a Gaussian. It misleads where classes have fewer rows than there are features: each then
    has directions of its own by chance, and features that are noise, which have the most directions, score highest. A
    greater epsilon, such as 0.1 with ``normalize=True``, mends a part of that. More features score higher, too.

    References
    ----------
    Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, the definition of TransRate.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import transrate_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(transrate_score(X, y), 3)
    0.589
    """
    X, labels = check_labels(features, y)
    X, scale = unit_scale(X)
    Z = centred(X)
    if normalize:
        lengths = np.linalg.norm(Z, axis=1, keepdims=True)
        # A row at the mean has no direction but that of its rounding error.
        Z, scale = np.divide(Z, lengths, out=np.zeros_like(Z), where=lengths > 1e-12 * lengths.max()), 1.0
    unit = 2 * np.log(scale) - np.log(epsilon)
    within = sum(len(rows) / len(Z) * _coding_rate(rows, unit) for rows in _by_class(Z, labels))
    return max(0.0, _coding_rate(Z, unit) - within)


def _coding_rate(Z: np.ndarray, unit: float) -> float:
    """``log det(I + exp(unit)/n · ZᵀZ) / 2``, also where the exponential would overflow or vanish."""
    found = energies(Z)
    return 0.5 * float(np.logaddexp(0.0, np.log(found / len(Z)) + unit).sum())


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "covariance": [StrOptions({"spherical", "diagonal"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def gbc_score(features, y, *, covariance: str = "spherical", n_components: int | None = 64) -> float:
    """GBC: how little the classes overlap, each taken as a Gaussian.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,)
        Labels of at least two classes.
    covariance : {"spherical", "diagonal"}, default="spherical"
        Whether a class has one variance, or one along each direction.
    n_components : int or None, default=64
        Features that are more are replaced by so many principal components. None takes all features.

    Returns
    -------
    score : float
        Greater is better, from ``-n_classes · (n_classes - 1)``, where all classes are the same, to 0.

    Raises
    ------
    InputError
        Where features or y have missing values or do not fit together, or y has one class only or values that are no
        classes.

    See Also
    --------
    h_score : Does not come to an end at 0 for classes that are far from each other.

    Notes
    -----
    Minus the sum over all ordered pairs of classes of ``exp(-D)``, with Bhattacharyya's distance
    ``D = (m1 - m2)ᵀ S⁻¹ (m1 - m2) / 8 + log(det S / sqrt(det S1 · det S2)) / 2`` and ``S = (S1 + S2) / 2``. The scale
    of the features does not matter; with one variance, neither do rotations.

    No variance is less than 1e-4 of the mean variance of all rows; the authors' program has 1e-4 itself, which depends
    on the unit. With one variance for each class it counts the second term once, not once for each direction as the
    determinants have it. A class with a single row, which has no variance, is given the mean one within classes.

    Constant features give the least score; features that separate all classes widely give 0, whichever they are.
    Copies of all rows change nothing. It assumes that a class is one cluster, and it misleads for classes of a few rows
    each, whose variances are too small by chance.

    References
    ----------
    Pándy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022, the definition of GBC.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import gbc_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(gbc_score(X, y), 3)
    -0.33
    """
    X, labels = check_labels(features, y)
    Z = centred(unit_scale(X)[0])
    if n_components is not None and Z.shape[1] > n_components:
        Z = principal_components(Z, n_components)
    total = np.square(Z).mean() if Z.size else 0.0
    if total == 0:
        return float(-len(labels.counts) * (len(labels.counts) - 1))
    # In units of the mean variance; the square root first, as the variance of tiny components would vanish.
    rows = _by_class(Z / np.sqrt(total), labels)
    means = np.stack([group.mean(axis=0) for group in rows])
    variances = np.stack([group.var(axis=0) for group in rows])
    several = labels.counts > 1
    if several.any():
        variances[~several] = np.average(variances[several], axis=0, weights=labels.counts[several])
    variances = np.maximum(variances, _LEAST_VARIANCE)
    if covariance == "spherical":
        variances = np.broadcast_to(variances.mean(axis=1, keepdims=True), variances.shape)
    overlap = sum(_coefficients(i, means, variances).sum() for i in range(len(means)))
    return 0.0 - float(overlap)


def _coefficients(i: int, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Bhattacharyya's coefficients of class i and all classes before it, twice: once in each order."""
    both = (variances[:i] + variances[i]) / 2
    distance = (np.square(means[:i] - means[i]) / both).sum(axis=1) / 8
    distance += (np.log(both) - (np.log(variances[:i]) + np.log(variances[i])) / 2).sum(axis=1) / 2
    return 2 * np.exp(-distance)


def _by_class(Z: np.ndarray, labels: Labels) -> list[np.ndarray]:
    """The rows of each class."""
    return np.split(Z[np.argsort(labels.codes, kind="stable")], np.cumsum(labels.counts)[:-1])
