"""Scores of the separability of classes: H-score, TransRate and GBC."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._params import validate_params
from sktl.selection._principal_components import energies, principal_components, spectrum
from sktl.selection._validation import Labels, centered, check_labels, unit_scale

_LEAST_VARIANCE = 1e-4  # minimum variance of a class, relative to the mean variance of all rows


@validate_params(
    {"features": ["array-like"], "y": ["array-like"], "shrinkage": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def h_score(features, y, *, shrinkage: bool = True) -> float:
    """Compute the H-score of features for a classification task.

    The H-score is the share of the variance of the features that is between classes,
    summed over all directions.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    shrinkage : bool, default=True
        Whether to estimate the covariance with Ledoit-Wolf shrinkage, which is more
        reliable if there are few rows for the number of features. False computes the
        original score with a pseudo-inverse.

    Returns
    -------
    score : float
        Score from 0 to ``min(n_classes - 1, n_features)``. Greater is better.

    Raises
    ------
    InputError
        If ``features`` or ``y`` have missing values or different lengths, or ``y`` has
        only one class or numbers that are not integers.

    See Also
    --------
    logme_score : Score of the same speed that also supports regression.

    Notes
    -----
    The score is ``trace(cov(X)⁻¹ · cov(means))`` with the class mean of each row in
    ``means`` [1]_. With shrinkage, ``cov(X)`` is replaced with
    ``(1 - a)·cov(X) + a·trace(cov(X))/n_features·I``, and the second covariance is
    multiplied by ``1 - a``, with ``a`` from `sklearn.covariance.ledoit_wolf` [2]_ [3]_.
    Both covariances are divided by n. Implementations that divide one of them by n - 1
    return ``n / (n - 1)`` times this score. The score is invariant to scaling and
    rotation of the features and, without shrinkage, to any invertible linear map.

    Without shrinkage, the score is ``n_classes - 1`` if the rows of ``features`` are
    linearly independent, as is usual with fewer rows than features. The score is then
    uninformative. With slightly more rows than features, it is still much too high for
    features that are noise. Directions with singular values below about 1e-7 of the
    largest one are lost to rounding, which lowers the score of features with very
    different scales. Constant features score 0. A class with a single row contributes
    its distance from the other classes. Duplicate rows count separately.

    The score assumes that classes differ in their means and share a covariance. It is
    misleading for classes with several clusters and, with shrinkage, for features whose
    covariance is almost a multiple of the identity, since differences between classes
    are then attributed to noise.

    References
    ----------
    .. [1] Bao et al., "An Information-Theoretic Approach to Transferability in Task
           Transfer Learning", ICIP 2019.
    .. [2] Ibrahim, Ponomareva and Mazumder, "Newer is not always better: Rethinking
           transferability metrics, their peculiarities, stability and performance",
           ECML PKDD 2022.
    .. [3] Ledoit and Wolf, "A Well-Conditioned Estimator for Large-Dimensional
           Covariance Matrices", 2004.

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
    Z = centered(unit_scale(X)[0])
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
    """Return the Ledoit-Wolf shrinkage of a covariance from its eigenvalues.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Centered features.
    variances : ndarray of shape (rank,)
        Nonzero eigenvalues of their covariance.

    Returns
    -------
    amount : float
        As `sklearn.covariance.ledoit_wolf_shrinkage`, without computing the covariance.
    """
    n, n_features = Z.shape
    squares = np.square(variances).sum()
    distance = squares - variances.sum() ** 2 / n_features  # of the covariance from a multiple of the identity
    noise = (np.square(np.square(Z).sum(axis=1)).mean() - squares) / n  # variance of the estimated covariance
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
    """Compute the TransRate of features for a classification task.

    TransRate estimates how many nats of information the features contain about the
    class, from the length of a code for the features.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    epsilon : float, default=1e-4
        Distortion of the code, in squared units of the features. Greater values are
        more reliable if there are few rows per class.
    normalize : bool, default=False
        Whether to divide each row by its norm after centering, as in the authors'
        experiments. The score then does not depend on the scale of the features.

    Returns
    -------
    score : float
        Score of at least 0. Greater is better.

    Raises
    ------
    InputError
        If ``features`` or ``y`` have missing values or different lengths, or ``y`` has
        only one class or numbers that are not integers.

    See Also
    --------
    h_score : Scale-invariant score that is more reliable for few rows.

    Notes
    -----
    The score is ``R(Z) - sum over classes of n_c/n · R(Z_c)`` with the coding rate
    ``R(Z) = log det(I + ZᵀZ / (n·epsilon)) / 2`` of the centered features ``Z`` [1]_.
    The algorithm in the paper uses the mean over the classes instead of ``n_c/n``,
    which is equal for classes of equal size. The score is invariant to rotations of the
    features, but not to their scale: larger features score higher, and features much
    smaller than ``sqrt(epsilon)`` score 0. To compare different networks, use
    ``normalize=True``.

    Constant features score 0. A class with a single row is coded as one direction.
    Duplicating all rows does not change the score.

    The score assumes Gaussian classes. It is misleading if classes have fewer rows than
    features: each class then has its own directions by chance, and noise, which has the
    most directions, scores highest. A greater epsilon, such as 0.1 with
    ``normalize=True``, reduces this effect. The score also increases with the number of
    features.

    References
    ----------
    .. [1] Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.

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
    Z = centered(X)
    if normalize:
        lengths = np.linalg.norm(Z, axis=1, keepdims=True)
        # The direction of a row at the mean would be that of its rounding error.
        Z, scale = np.divide(Z, lengths, out=np.zeros_like(Z), where=lengths > 1e-12 * lengths.max()), 1.0
    unit = 2 * np.log(scale) - np.log(epsilon)
    within = sum(len(rows) / len(Z) * _coding_rate(rows, unit) for rows in _by_class(Z, labels))
    return max(0.0, _coding_rate(Z, unit) - within)


def _coding_rate(Z: np.ndarray, unit: float) -> float:
    """Return ``log det(I + exp(unit)/n · ZᵀZ) / 2`` without overflow."""
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
    """Compute the Gaussian Bhattacharyya coefficient (GBC) of features and classes.

    GBC is the negative overlap of the classes, each modeled as a Gaussian.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    covariance : {"spherical", "diagonal"}, default="spherical"
        Covariance of each class: a single variance, or one variance per direction.
    n_components : int or None, default=64
        Number of principal components that replace the features if there are more
        features. None uses all features.

    Returns
    -------
    score : float
        Score from ``-n_classes · (n_classes - 1)`` for identical classes to 0. Greater
        is better.

    Raises
    ------
    InputError
        If ``features`` or ``y`` have missing values or different lengths, or ``y`` has
        only one class or numbers that are not integers.

    See Also
    --------
    h_score : Score that does not saturate for well-separated classes.

    Notes
    -----
    The score is minus the sum of ``exp(-D)`` over all ordered pairs of classes, with
    the Bhattacharyya distance
    ``D = (m1 - m2)ᵀ S⁻¹ (m1 - m2) / 8 + log(det S / sqrt(det S1 · det S2)) / 2`` and
    ``S = (S1 + S2) / 2`` [1]_. The score is invariant to the scale of the features and,
    for spherical covariances, to rotations.

    Variances are at least 1e-4 of the mean variance of all rows. The authors'
    implementation uses an absolute minimum of 1e-4, which depends on the unit. For
    spherical covariances, it also counts the second term once instead of once per
    direction, as the determinants require. A class with a single row is assigned the
    mean variance within classes.

    Constant features have the lowest score. Features that separate all classes widely
    score 0, so the score cannot rank them. Duplicating all rows does not change the
    score. The score assumes that each class is a single cluster. It is misleading for
    classes of a few rows, whose variances are underestimated.

    References
    ----------
    .. [1] Pándy et al., "Transferability Estimation using Bhattacharyya Class
           Separability", CVPR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import gbc_score
    >>> X, y = load_iris(return_X_y=True)
    >>> round(gbc_score(X, y), 3)
    -0.33
    """
    X, labels = check_labels(features, y)
    Z = centered(unit_scale(X)[0])
    if n_components is not None and Z.shape[1] > n_components:
        Z = principal_components(Z, n_components)
    total = np.square(Z).mean() if Z.size else 0.0
    if total == 0:
        return float(-len(labels.counts) * (len(labels.counts) - 1))
    # In units of the mean variance. Dividing before squaring avoids underflow.
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
    """Return twice the Bhattacharyya coefficients of class i and all earlier classes.

    Twice, because the pairs are ordered.
    """
    both = (variances[:i] + variances[i]) / 2
    distance = (np.square(means[:i] - means[i]) / both).sum(axis=1) / 8
    distance += (np.log(both) - (np.log(variances[:i]) + np.log(variances[i])) / 2).sum(axis=1) / 2
    return 2 * np.exp(-distance)


def _by_class(Z: np.ndarray, labels: Labels) -> list[np.ndarray]:
    """Return the rows of each class."""
    return np.split(Z[np.argsort(labels.codes, kind="stable")], np.cumsum(labels.counts)[:-1])
