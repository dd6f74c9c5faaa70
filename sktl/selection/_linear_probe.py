"""Cross-validated score of a linear model, the reference for all other scores."""

import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._estimators._groups import check_groups, group_folds
from sktl._params import validate_params
from sktl.selection._validation import Labels, Task, check_targets, unit_scale

_MAX_ITER = 1000


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "cv": ["cv_object", Interval(Integral, 2, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
        "groups": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def probe_score(
    features, y, *, task: Task = "auto", cv: Any = 5, C: float = 1.0, random_state=0, groups: Any = None
) -> float:
    """Compute the cross-validated accuracy or R² of a linear model of the features.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features of the images from a pretrained network.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}, default="auto"
        Type of ``y``. ``"auto"`` means regression if ``y`` has several columns or
        numbers that are not integers. Use ``"regression"`` if the targets are integers.
    cv : int, cross-validation generator or iterable, default=5
        Cross-validation splitting strategy. An integer is the number of shuffled,
        stratified folds, at most the number of rows.
    C : float, default=1.0
        Inverse regularization strength of the logistic regression. The regularization
        of regression models is selected automatically.
    random_state : int, RandomState instance or None, default=0
        Seed of the shuffled folds. Only used if ``cv`` is an integer. Pass an int for
        reproducible results.
    groups : array-like of shape (n_samples,), default=None
        Group label of each row of ``features``, such as the subject or the original of
        near-copies. If ``cv`` is an integer, the rows of one group stay in the same
        fold and there are at most as many folds as groups. Otherwise, the groups are
        passed to the cross-validation generator.

    Returns
    -------
    score : float
        Accuracy over all held-out rows, from 0 to 1, or mean R² of the targets over all
        held-out rows, at most 1. Greater is better.

    Raises
    ------
    InputError
        If ``features``, ``y`` or ``groups`` have missing values or different lengths,
        or there is only one class, value or group.

    See Also
    --------
    logme_score : Score without training.

    Notes
    -----
    Features are standardized with the training rows of each fold. The models are
    `sklearn.linear_model.LogisticRegression` and `sklearn.linear_model.RidgeCV` [1]_. A
    class with fewer rows than folds is in fewer folds, and a class with a single row is
    never predicted correctly. If the training rows have only one class, it is
    predicted. The score is invariant to the scale of each feature.

    All other scores estimate this one, so it is the most reliable and the slowest.
    Fine-tuning may still change the ranking. Duplicate rows can be in different folds,
    which makes the score too high, unless they belong to one group.

    Constant features score about the share of the largest class, or an R² of about 0.

    References
    ----------
    .. [1] Alain and Bengio, "Understanding intermediate layers using linear classifier
           probes", ICLR workshop 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktl.selection import probe_score
    >>> X, y = load_iris(return_X_y=True)
    >>> probe_score(X, y) > probe_score(X[:, :2], y)
    True
    """
    known: dict = {"task": task, "cv": cv, "C": C, "random_state": random_state, "groups": groups}
    return float(held_out_scores(features, y, **known).mean())


def held_out_scores(
    features: Any, y: Any, *, task: Task, C: float, random_state: Any, cv: Any = 5, groups: Any = None
) -> np.ndarray:
    """Return the contribution of each held-out row to `probe_score`, their mean.

    For classes, it is 1 if the prediction is correct and 0 otherwise. For targets, it
    is 1 minus the squared error relative to the variance, whose mean is R².
    """
    X, target = check_targets(features, y, task)
    X, _ = unit_scale(X)
    is_classes = isinstance(target, Labels)
    truth = target.codes if isinstance(target, Labels) else target / np.abs(target).max(axis=0)
    groups = check_groups(groups, len(X))
    random = check_random_state(random_state)
    if not isinstance(cv, Integral):
        folds = check_cv(cv, truth, classifier=is_classes).split(X, truth, groups)
    elif groups is not None:
        folds = group_folds(groups, truth if is_classes else None, int(cv), int(random.randint(2**31 - 1)))
    else:
        folds = _folds(truth if is_classes else np.zeros(len(X)), int(cv), random)
    rows, held, predicted = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy converges earlier
        warnings.filterwarnings(
            "ignore", "The number of unique classes", UserWarning
        )  # few rows per class are expected
        for train, test in folds:
            rows.append(test)
            held.append(truth[test])
            guess = _model(truth[train], is_classes, C).fit(X[train], truth[train]).predict(X[test])
            predicted.append(guess.reshape(held[-1].shape))
    order = np.argsort(np.concatenate(rows), kind="stable")
    answers, guesses = np.concatenate(held)[order], np.concatenate(predicted)[order]
    if is_classes:
        return (answers == guesses).astype(np.float64)
    return (1 - np.square(answers - guesses) / np.square(answers - answers.mean(axis=0)).mean(axis=0)).mean(axis=1)


def _folds(codes: np.ndarray, n_folds: int, random: np.random.RandomState) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield training and held-out rows; each class is dealt out to folds in turn."""
    n = len(codes)
    shuffled = random.permutation(n)
    fold = np.empty(n, dtype=int)
    fold[shuffled[np.argsort(codes[shuffled], kind="stable")]] = np.arange(n) % n_folds
    for k in range(min(n_folds, n)):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def _model(truth: np.ndarray, is_classes: bool, C: float) -> BaseEstimator:
    """Return an unfitted model for these targets."""
    if not is_classes:
        if len(truth) < 3:  # too few to select the penalty
            return DummyRegressor()
        return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 5, 17)))
    if len(np.unique(truth)) == 1:
        return DummyClassifier()
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=_MAX_ITER))
