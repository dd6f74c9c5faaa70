"""Scores of source classes (LEEP, NCE) and of clusters of the features (N-LEEP)."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._params import validate_params
from sktl.exceptions import InputError
from sktl.selection._principal_components import principal_components
from sktl.selection._validation import Labels, centered, check_labels, numbered, present, unit_scale

_ENERGY = 0.8  # share of the variance in the principal components of N-LEEP
_PER_CLASS = 5  # clusters per class
_ROWS = 10  # minimum number of rows per cluster on average


@validate_params(
    {"source_probabilities": ["array-like"], "y": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def leep_score(source_probabilities, y) -> float:
    """Compute the LEEP score of source class probabilities for a classification task.

    LEEP measures how well the classes that a network was pretrained on predict the new
    classes.

    Parameters
    ----------
    source_probabilities : array-like of shape (n_samples, n_source_classes)
        Class probabilities that the pretrained head of the network predicts for each
        image. Each row sums to 1.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.

    Returns
    -------
    score : float
        Score of at most 0. Greater is better. If the probabilities are the same for all
        images, the score is minus the entropy of ``y``.

    Raises
    ------
    InputError
        If rows are not probabilities, the lengths differ, or ``y`` has only one class
        or numbers that are not integers.

    See Also
    --------
    nce_score : Score of the most probable source classes alone.
    nleep_score : Score of clusters of the features, which needs no pretrained head.

    Notes
    -----
    The score is the mean over the rows of ``log(sum over z of P(y|z) · p(z))``, with
    the predicted probabilities ``p`` and the empirical ``P(y|z) = P(y, z) / P(z)`` of
    the same rows [1]_. Source classes with a probability of zero in all rows are
    ignored, because the formula would divide by zero. Duplicate rows count separately.

    The score assumes that new classes are unions of source classes. It is misleading if
    there are about as many source classes as rows, because each class can then identify
    a row, and for comparing networks with different source classes, because the score
    increases with their number.

    References
    ----------
    .. [1] Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
           Representations", ICML 2020.

    Examples
    --------
    >>> from sktl.selection import leep_score
    >>> probabilities = [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]]
    >>> probabilities += [[0.1, 0.2, 0.7], [0.1, 0.8, 0.1]]
    >>> round(leep_score(probabilities, ["cat", "cat", "dog", "dog"]), 3)
    -0.246
    """
    P, labels = check_labels(source_probabilities, y, "source_probabilities")
    sums = P.sum(axis=1)
    off = (P < 0).any(axis=1) | (np.abs(sums - 1) > 1e-2)  # tolerance for half precision
    if off.any():
        raise InputError(
            "The rows of source_probabilities must be nonnegative and sum to 1. Got "
            f"{off.sum()} of {len(P)} rows that do not, such as row {off.argmax()} with a minimum of "
            f"{P[off.argmax()].min():g} and a sum of {sums[off.argmax()]:g}. Apply the softmax to logits first."
        )
    return _leep(P / sums[:, None], labels)


def _leep(P: np.ndarray, labels: Labels) -> float:
    """Return the LEEP score of rows that sum to 1."""
    P = P[:, P.any(axis=0)]
    P_joint = labels.one_hot().T @ P  # joint probabilities times n
    conditional = P_joint / P.sum(axis=0)
    return min(0.0, float(np.log((P * conditional[labels.codes]).sum(axis=1)).mean()))


@validate_params({"source_labels": ["array-like"], "y": ["array-like"]}, prefer_skip_nested_validation=True)
def nce_score(source_labels, y) -> float:
    """Compute the negative conditional entropy (NCE) of classes given source classes.

    NCE measures how well the classes of a pretraining task determine the new classes.

    Parameters
    ----------
    source_labels : array-like of shape (n_samples,)
        Class of each image in the pretraining task: the true one, or the most probable
        one according to the pretrained head. Numbers with gaps, strings and a single
        class are valid.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.

    Returns
    -------
    score : float
        Score from minus the entropy of ``y``, if the source classes are independent of
        it, to 0, if they determine it. Greater is better.

    Raises
    ------
    InputError
        If labels are missing, the lengths differ, or ``y`` has only one class or
        numbers that are not integers.

    See Also
    --------
    leep_score : Score of class probabilities.

    Notes
    -----
    The score is minus the conditional entropy ``H(y | source_labels)`` of the empirical
    distribution in nats [1]_. It equals `leep_score` for a head that predicts these
    classes with certainty. The score is misleading if many source classes have a few
    rows each, because they determine ``y`` by chance.

    References
    ----------
    .. [1] Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised
           Classification Tasks", ICCV 2019.

    Examples
    --------
    >>> from sktl.selection import nce_score
    >>> source_labels = ["tabby", "tabby", "poodle", "poodle"]
    >>> round(nce_score(source_labels, ["cat", "dog", "dog", "dog"]), 3)
    -0.347
    """
    source = column_or_1d(present(source_labels, "source_labels"))
    _, source = numbered(source, "source_labels")
    _, labels = check_labels(source.reshape(-1, 1), y, "source_labels")  # class codes as features
    pairs = np.bincount(source * len(labels.counts) + labels.codes)
    pairs, totals = pairs[pairs > 0], np.bincount(source)
    n = len(source)
    return min(0.0, float((pairs * np.log(pairs / n)).sum() - (totals * np.log(totals / n)).sum()) / n)


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "covariance_type": [StrOptions({"full", "tied", "diag", "spherical"})],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def nleep_score(
    features, y, *, n_components: int | None = None, covariance_type: str = "full", random_state=0
) -> float:
    """Compute the N-LEEP score of features for a classification task.

    N-LEEP measures how well clusters of the features predict the classes.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    n_components : int or None, default=None
        Number of clusters, at most the number of distinct rows. None uses five per
        class, as in the paper, but no more than a tenth of the number of rows, and at
        least one per class.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Type of the covariances of the clusters, as in
        `sklearn.mixture.GaussianMixture`. ``"diag"`` is much faster.
    random_state : int, RandomState instance or None, default=0
        Seed of the initial clusters. Pass an int for reproducible results.

    Returns
    -------
    score : float
        Score of at most 0. Greater is better. Constant features score minus the entropy
        of ``y``.

    Raises
    ------
    InputError
        If ``features`` or ``y`` have missing values or different lengths, or ``y`` has
        only one class or numbers that are not integers.

    See Also
    --------
    leep_score : Score of the predictions of the pretrained head.

    Notes
    -----
    The score is the `leep_score` of the posteriors of a Gaussian mixture, which is
    fitted without labels to the principal components with 80 % of the variance [1]_. It
    is invariant to the scale of the features.

    The score is misleading for few rows: clusters of a few rows determine the classes
    by chance, so that noise scores well. Only scores for the same rows and the same
    number of clusters can be compared. Since the mixture is a local optimum, try other
    seeds before relying on a small difference. This score is slower than the others.

    References
    ----------
    .. [1] Li et al., "Ranking Neural Checkpoints", CVPR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import nleep_score
    >>> X, y = load_iris(return_X_y=True)
    >>> nleep_score(X, y) > nleep_score(X[:, :2], y)
    True
    """
    X, labels = check_labels(features, y)
    n, n_classes = len(X), len(labels.counts)
    if n_components is None:
        n_components = min(_PER_CLASS * n_classes, max(n_classes, n // _ROWS))
    Z = principal_components(centered(unit_scale(X)[0]), _ENERGY)
    n_clusters = min(n_components, len(np.unique(X, axis=0)))
    if n_clusters == 1 or not Z.size:
        return _leep(np.ones((n, 1)), labels)
    Z = Z / np.sqrt(np.square(Z).mean())  # reg_covar is then relative to the mean variance
    mixture = GaussianMixture(n_clusters, covariance_type=covariance_type, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # approximate clusters suffice
        posteriors = mixture.fit(Z).predict_proba(Z)
    return _leep(posteriors, labels)
