"""The yardstick of the scores: the accuracy of a linear model, cross-validated."""

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
    """Accuracy, or R², of a linear model on held-out rows.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What a pretrained network makes of each picture.
    y : array-like of shape (n,) or (n, n_targets)
        Labels or targets.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is. "auto" is a regression where y has several columns or numbers that are not whole; say "regression"
        where the targets are whole numbers.
    cv : int, cross-validation generator or iterable, default=5
        Folds. A number gives shuffled ones with as many rows of each class as can be, and at most as many as rows.
    C : float, default=1.0
        Inverse strength of the penalty of the logistic regression. A regression chooses its own.
    random_state : int, RandomState instance or None, default=0
        How rows are shuffled into folds, where cv is a number. None shuffles anew in each call.
    groups : array-like of shape (n,), default=None
        What each row belongs to, such as the subject or the original of near-copies: numbers or strings. A number for
        cv gives folds with whole groups, at most as many as groups; a cross-validation generator is given them.

    Returns
    -------
    score : float
        Greater is better: the share of all held-out rows whose class is predicted, from 0 to 1, or the mean R² of the
        targets over all held-out rows, at most 1.

    Raises
    ------
    InputError
        Where features, y or groups have missing values or do not fit together, or y has one class or value only, or
        there is one group only.

    See Also
    --------
    logme_score : Without training.

    Notes
    -----
    Features are standardised by the rows that a model learns from; the models are `LogisticRegression` and `RidgeCV`.
    A class with fewer rows than folds is in fewer folds, and one with a single row is never predicted when it is held
    out; where one class is left to learn from, it is predicted. The scale of each feature does not matter.

    This is what the other scores try to foretell, so it is the surest of them and the slowest, and it is no more than
    that: fine-tuning may change the order. Duplicate rows may be in two folds, and are known then, but for those of one
    group.

    Constant features give about the share of the largest class, or an R² of about 0.

    References
    ----------
    Alain and Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshop 2017.

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
    """What each held-out row adds to `probe_score`, which is their mean; (n,), in the order of the rows.

    A class that is predicted is 1 and another one 0; of numbers it is 1 less the squared error in units of the
    variance, the mean of which is R².
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has settled long before
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # so it is: few rows per class
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
    """Rows to learn from and to hold out: each class is dealt out like cards, going on where the last one ended."""
    n = len(codes)
    shuffled = random.permutation(n)
    fold = np.empty(n, dtype=int)
    fold[shuffled[np.argsort(codes[shuffled], kind="stable")]] = np.arange(n) % n_folds
    for k in range(min(n_folds, n)):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def _model(truth: np.ndarray, is_classes: bool, C: float) -> BaseEstimator:
    """What is fitted to these rows."""
    if not is_classes:
        if len(truth) < 3:  # too few for the penalty to be chosen
            return DummyRegressor()
        return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 5, 17)))
    if len(np.unique(truth)) == 1:
        return DummyClassifier()
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=_MAX_ITER))
