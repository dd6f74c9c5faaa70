"""Groups: rows that stay on one side wherever some of them are set aside, as near-copies of an image have to."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils.validation import has_fit_parameter

from sktl._images import is_missing
from sktl._training._head_probe import in_order
from sktl.exceptions import InputError

_STEPS = 20_000  # groups that are looked at in all tries together
_MOST_TRIES = 50


def check_groups(groups: Any, n_rows: int) -> "np.ndarray | None":
    """The number of each row's group.

    Parameters
    ----------
    groups : array-like of shape (n_rows,) or None
        Labels of any kind: numbers, strings, dates.
    n_rows : int
        How many there have to be.

    Returns
    -------
    numbers : ndarray of shape (n_rows,), dtype int, or None
        From 0 on, in the order in which the groups appear; None if there are none.

    Raises
    ------
    InputError
        If there are more or fewer than rows, or one is missing.
    """
    if groups is None:
        return None
    values = np.asarray(groups, dtype=object if isinstance(groups, list | tuple) else None)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != n_rows:
        came = f"{len(values)} entries" if values.ndim == 1 else f"an array of shape {values.shape}"
        raise InputError(
            f"The 'groups' parameter must have one entry for each of the {n_rows} images. Got {came} instead."
        )
    labels = values.tolist()
    missing = [row for row, label in enumerate(labels) if is_missing(label)]
    if missing:
        raise InputError(
            f"The 'groups' parameter must have a group for each image. Got {labels[missing[0]]!r} at position "
            f"{missing[0]} instead, and {len(missing)} missing groups in all. Give an image that belongs to no group "
            "one of its own."
        )
    numbers: dict[Any, int] = {}
    try:
        return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)
    except TypeError:
        raise InputError(
            "The 'groups' parameter must have numbers or strings as entries. Got an entry of type "
            f"{type(labels[0]).__name__} instead."
        ) from None


def joined(groups: np.ndarray, images: Sequence[bytes]) -> np.ndarray:
    """The number of what each row stays with: its group, the groups that share an image with it, and so on.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), dtype int
        The number of each row's group.
    images : sequence of bytes, n_rows of them
        What is equal for two rows of one image.
    """
    _, image = np.unique(images, return_inverse=True)
    n_groups = int(groups.max(initial=-1)) + 1
    size = n_groups + int(image.max(initial=-1)) + 1
    links = sparse.coo_array((np.ones(len(groups)), (groups, n_groups + image)), shape=(size, size))
    return connected_components(links, directed=False)[1][groups]


class _Contents(NamedTuple):
    """How many rows of each class are in each group."""

    classes: Sequence[np.ndarray]  # of each group, the classes in it
    counts: Sequence[np.ndarray]  # and how many rows of each
    wanted: np.ndarray  # how many rows of each class to set aside
    n_groups: np.ndarray  # how many groups each class is in


def choose_groups(groups: np.ndarray, strata: "np.ndarray | None", fraction: float, seed: int) -> "np.ndarray | None":
    """Which rows to set aside: whole groups, near the fraction of each class.

    Of several random orders of the groups each is gone through greedily, and the choice that is nearest is taken. Each
    class in two groups or more is on both sides if there is such a choice among them, and none is missing where there
    is learned. Neither the names of the groups nor their numbers make a difference, only the order of their first rows.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), dtype int
        The number of each row's group.
    strata : ndarray of shape (n_rows,) or None
        The class of each row.
    fraction : float
        The share of the rows that is wanted, between 0 and 1.
    seed : int
        Of the orders.

    Returns
    -------
    is_chosen : ndarray of shape (n_rows,), dtype bool, or None
        None if each group has a class that no other group has.
    """
    group = in_order(groups)
    stratum = np.zeros(len(group), int) if strata is None else np.unique(strata, return_inverse=True)[1]
    contents = _contents(group, stratum, fraction)
    free = [number for number, classes in enumerate(contents.classes) if (contents.n_groups[classes] > 1).all()]
    if not free:
        return None
    random = np.random.default_rng(seed)
    n_tries = min(_MOST_TRIES, max(1, _STEPS // len(free)))
    tries = [_go_through(contents, random.permutation(free).tolist()) for _ in range(n_tries)]
    best = min(range(n_tries), key=lambda number: tries[number][0])
    return np.isin(group, tries[best][1])


def _contents(group: np.ndarray, stratum: np.ndarray, fraction: float) -> _Contents:
    """What is in each group, and what is wanted of it: a fraction, and no less than a class's smallest part."""
    cells, counts = np.unique(np.column_stack([group, stratum]), axis=0, return_counts=True)
    ends = np.flatnonzero(np.diff(cells[:, 0])) + 1
    smallest = np.full(stratum.max() + 1, np.inf)
    np.minimum.at(smallest, cells[:, 1], counts)
    wanted = np.maximum(fraction * np.bincount(stratum), smallest)
    return _Contents(np.split(cells[:, 1], ends), np.split(counts, ends), wanted, np.bincount(cells[:, 1]))


def _go_through(contents: _Contents, order: list[int]) -> tuple[tuple[int, float], list[int]]:
    """How bad a choice is (classes without a row, distance from what is wanted), and its groups."""
    held, left, chosen = np.zeros(len(contents.wanted)), contents.n_groups.copy(), []
    for is_late in (False, True):  # at first what comes nearer to what is wanted; then what no class would miss
        for number in order:
            classes, counts = contents.classes[number], contents.counts[number]
            now, wanted = held[classes], contents.wanted[classes]
            if (left[classes] < 2).any() or (is_late and now.all()):
                continue
            if is_late or np.square((now + counts) / wanted - 1).sum() <= np.square(now / wanted - 1).sum():
                held[classes] += counts
                left[classes] -= 1
                chosen.append(number)
    shared = contents.n_groups > 1
    distance = np.square(held[shared] / contents.wanted[shared] - 1).sum()
    return (int((held[shared] == 0).sum()), float(distance)), chosen


def group_folds(
    groups: np.ndarray, strata: "np.ndarray | None", n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and to hold out in each fold, each group whole, each class in its share as far as may be.

    Parameters
    ----------
    groups : ndarray of shape (n_rows,), dtype int
        The number of each row's group.
    strata : ndarray of shape (n_rows,) or None
        The class of each row.
    n_folds : int
        How many folds, at most: no more than groups.
    seed : int
        How groups are shuffled into folds.

    Raises
    ------
    InputError
        If there is one group only.
    """
    n_folds = min(n_folds, check_several(groups))
    codes = np.zeros(len(groups), int) if strata is None else np.unique(strata, return_inverse=True)[1]
    codes = codes if np.bincount(codes).max() >= n_folds else np.zeros(len(groups), int)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # it has no share of each fold
        folds = list(splitter.split(codes, codes, groups))
    return [(learning, held) for learning, held in folds if len(held)]


def folds_of(cv: Any, y: Any, is_classes: bool, groups: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds that scikit-learn would make; with groups, those of a number of folds are of whole groups.

    Parameters
    ----------
    cv : int, cross-validation generator, iterable or None
        None makes 5.
    y : array-like of shape (n_rows,) or (n_rows, n_targets)
        Labels or targets.
    is_classes : bool
        Whether they are labels.
    groups : array-like of shape (n_rows,) or None
        As a user gives them.
    """
    numbers = check_groups(groups, len(y))
    if numbers is not None and (cv is None or isinstance(cv, Integral)):
        return group_folds(numbers, np.asarray(y) if is_classes else None, int(cv or 5), seed=0)
    return list(check_cv(cv, y, classifier=is_classes).split(np.zeros(len(y)), y, numbers))


def check_several(groups: np.ndarray) -> int:
    """How many groups there are.

    Raises
    ------
    InputError
        If there is one only.
    """
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise InputError(
            "The 'groups' parameter must have at least two groups, of which one is set aside. Got one instead (groups "
            "that share an image are one)."
        )
    return n_groups


def accepts_groups(estimator: Any) -> bool:
    """Whether ``fit`` knows what to do with groups, without routing: its own parameter, or folds of a search."""
    folds = getattr(estimator, "cv", None) if isinstance(estimator, BaseSearchCV) else None
    return has_fit_parameter(estimator, "groups") or isinstance(folds, GroupsConsumerMixin)
