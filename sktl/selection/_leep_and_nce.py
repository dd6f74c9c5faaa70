"""Scores by a code for the pictures that the network has already: the source head's classes, or clusters."""

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
from sktl.selection._validation import Labels, centred, check_labels, numbered, present, unit_scale

_ENERGY = 0.8  # share of the variance that the principal components of N-LEEP have
_PER_CLASS = 5  # clusters for each class
_ROWS = 10  # that a cluster has on the mean, at least


@validate_params(
    {"source_probabilities": ["array-like"], "y": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def leep_score(source_probabilities, y) -> float:
    """LEEP: how well the classes that a network was trained for predict the new ones.

    Parameters
    ----------
    source_probabilities : array-like of shape (n, n_source_classes)
        What the network's own head says of each picture: probabilities, whose rows sum to 1.
    y : array-like of shape (n,)
        Labels of at least two classes.

    Returns
    -------
    score : float
        Greater is better, at most 0. A head that says the same of all pictures gives minus the entropy of y.

    Raises
    ------
    InputError
        Where rows are no probabilities, do not fit to y, or y has one class only or values that are no classes.

    See Also
    --------
    nce_score : The same from the most probable classes alone.
    nleep_score : The same without a head.

    Notes
    -----
    The mean over the rows of ``log(sum over z of P(y|z) · p(z))``, with the head's probabilities p and the empirical
    ``P(y|z) = P(y, z) / P(z)`` of the same rows. Source classes that no row has a probability for are left out, where
    the formula divides by zero. Rows that are there twice count twice.

    It assumes that new classes are unions of old ones. It misleads where there are about as many source classes as
    rows, each of which then stands for a row, and between networks with different source classes: more of them score
    higher.

    References
    ----------
    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020.

    Examples
    --------
    >>> from sktl.selection import leep_score
    >>> probabilities = [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]]
    >>> round(leep_score(probabilities, ["cat", "cat", "dog", "dog"]), 3)
    -0.246
    """
    P, labels = check_labels(source_probabilities, y, "source_probabilities")
    sums = P.sum(axis=1)
    off = (P < 0).any(axis=1) | (np.abs(sums - 1) > 1e-2)  # probabilities in half precision are off by some thousandths
    if off.any():
        raise InputError(
            f"source_probabilities is no probability in {off.sum()} of {len(P)} rows: row {off.argmax()} has the least "
            f"entry {P[off.argmax()].min():g} and the sum {sums[off.argmax()]:g}. Of logits take the softmax before."
        )
    return _leep(P / sums[:, None], labels)


def _leep(P: np.ndarray, labels: Labels) -> float:
    """Of rows that sum to 1."""
    P = P[:, P.any(axis=0)]
    P_joint = labels.one_hot().T @ P  # times n
    conditional = P_joint / P.sum(axis=0)
    return min(0.0, float(np.log((P * conditional[labels.codes]).sum(axis=1)).mean()))


@validate_params({"source_labels": ["array-like"], "y": ["array-like"]}, prefer_skip_nested_validation=True)
def nce_score(source_labels, y) -> float:
    """NCE: how much of the new classes is known when the old ones are.

    Parameters
    ----------
    source_labels : array-like of shape (n,)
        The class of each picture in the task that the network was trained for: true, or its head's most probable one.
        Numbers with gaps, strings, and a single class are all fine.
    y : array-like of shape (n,)
        Labels of at least two classes.

    Returns
    -------
    score : float
        Greater is better: from minus the entropy of y, where the source classes say nothing about it, to 0, where they
        determine it.

    Raises
    ------
    InputError
        Where labels are missing, do not fit together, or y has one class only or values that are no classes.

    See Also
    --------
    leep_score : The same from probabilities.

    Notes
    -----
    Minus the conditional entropy ``H(y | source_labels)`` in nats, of the empirical distribution. It is what
    `leep_score` gives for a head that is certain of these classes. It misleads where many source classes have a few
    rows each: they determine y by chance.

    References
    ----------
    Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019.

    Examples
    --------
    >>> from sktl.selection import nce_score
    >>> round(nce_score(["tabby", "tabby", "poodle", "poodle"], ["cat", "dog", "dog", "dog"]), 3)
    -0.347
    """
    source = column_or_1d(present(source_labels, "source_labels"))
    _, source = numbered(source, "source_labels")
    _, labels = check_labels(source.reshape(-1, 1), y, "source_labels")  # the numbers of the classes are their table
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
    """N-LEEP: how well clusters of the features predict the classes.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,)
        Labels of at least two classes.
    n_components : int or None, default=None
        Clusters. None is the paper's five per class, but no more than a tenth of the rows or one per class, whichever
        is more. There are at most as many as different rows.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        The clusters' covariances, as in `GaussianMixture`. "diag" takes a small part of the time.
    random_state : int, RandomState instance or None, default=0
        Where the clusters start. None starts anew in each call.

    Returns
    -------
    score : float
        Greater is better, at most 0. Constant features give minus the entropy of y.

    Raises
    ------
    InputError
        Where features or y have missing values or do not fit together, or y has one class only or values that are no
        classes.

    See Also
    --------
    leep_score : The same with the network's own head.

    Notes
    -----
    `leep_score` of the posteriors of a Gaussian mixture, fitted without labels to the principal components that have
    80 % of the variance. The scale of the features does not matter.

    It misleads with few rows: clusters of a few rows each determine the classes by chance, so that noise scores well,
    and only scores of the same rows and the same number of clusters can be compared. The mixture is a local optimum:
    try other seeds before a small difference is believed. It takes longer than the others.

    References
    ----------
    Li et al., "Ranking Neural Checkpoints", CVPR 2021, the definition of N-LEEP.

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
    Z = principal_components(centred(unit_scale(X)[0]), _ENERGY)
    n_clusters = min(n_components, len(np.unique(X, axis=0)))
    if n_clusters == 1 or not Z.size:
        return _leep(np.ones((n, 1)), labels)
    Z = Z / np.sqrt(np.square(Z).mean())  # so that the mixture's least variance is a millionth of the mean one
    mixture = GaussianMixture(n_clusters, covariance_type=covariance_type, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # clusters that are nearly right will do
        posteriors = mixture.fit(Z).predict_proba(Z)
    return _leep(posteriors, labels)
