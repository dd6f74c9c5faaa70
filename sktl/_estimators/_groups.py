"""Groups of rows, such as near-copies, that stay on the same side of each split."""

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

_STEPS = 20_000  # limit of the number of groups times the number of tries
_MOST_TRIES = 50


def check_groups(groups: Any, n_rows: int) -> "np.ndarray | None":
    """Check groups and number them from 0 on, in order of appearance.

    Parameters
    ----------
    groups : array-like of shape (n_samples,) or None
        Group labels of any kind: numbers, strings, dates.
    n_rows : int
        Expected number of entries.

    Returns
    -------
    numbers : ndarray of shape (n_samples,), dtype int, or None
        Number of the group of each row. None without groups.

    Raises
    ------
    InputError
        If the number of entries is wrong, or entries are missing.
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
            f"The 'groups' parameter must not contain missing values. Got {labels[missing[0]]!r} at position "
            f"{missing[0]}, and {len(missing)} missing values in total. Give each image that belongs to no group a "
            "unique label."
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
    """Merge groups that share an image, and number the merged groups.

    Parameters
    ----------
    groups : ndarray of shape (n_samples,), dtype int
        Number of the group of each row.
    images : sequence of bytes, of length n_samples
        Digest of the image of each row.
    """
    _, image = np.unique(images, return_inverse=True)
    n_groups = int(groups.max(initial=-1)) + 1
    size = n_groups + int(image.max(initial=-1)) + 1
    links = sparse.coo_array((np.ones(len(groups)), (groups, n_groups + image)), shape=(size, size))
    return connected_components(links, directed=False)[1][groups]


class _Contents(NamedTuple):
    """Number of rows of each class in each group."""

    classes: Sequence[np.ndarray]  # the classes in each group
    counts: Sequence[np.ndarray]  # the number of rows of each of them
    wanted: np.ndarray  # number of rows of each class to hold out
    n_groups: np.ndarray  # number of groups that contain each class


def choose_groups(groups: np.ndarray, strata: "np.ndarray | None", fraction: float, seed: int) -> "np.ndarray | None":
    """Choose whole groups to hold out, close to a given fraction of each class.

    Groups are chosen greedily in several random orders, and the choice closest to the
    fraction is returned. No class is missing from the training rows, and each class in
    two or more groups is on both sides if one of the choices allows it. The result
    depends on the order of the first rows of the groups, not on the labels or numbers
    of the groups.

    Parameters
    ----------
    groups : ndarray of shape (n_samples,), dtype int
        Number of the group of each row.
    strata : ndarray of shape (n_samples,) or None
        Class of each row.
    fraction : float
        Fraction of the rows to hold out, between 0 and 1.
    seed : int
        Seed of the random orders.

    Returns
    -------
    is_chosen : ndarray of shape (n_samples,), dtype bool, or None
        Mask of the chosen rows. None if each group has a class that no other group has.
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
    """Count the rows of each class in each group, and those to hold out."""
    cells, counts = np.unique(np.column_stack([group, stratum]), axis=0, return_counts=True)
    ends = np.flatnonzero(np.diff(cells[:, 0])) + 1
    smallest = np.full(stratum.max() + 1, np.inf)
    np.minimum.at(smallest, cells[:, 1], counts)
    wanted = np.maximum(fraction * np.bincount(stratum), smallest)
    return _Contents(np.split(cells[:, 1], ends), np.split(counts, ends), wanted, np.bincount(cells[:, 1]))


def _go_through(contents: _Contents, order: list[int]) -> tuple[tuple[int, float], list[int]]:
    """Choose groups in a given order; return a score, better if lower, and groups."""
    held, left, chosen = np.zeros(len(contents.wanted)), contents.n_groups.copy(), []
    for is_late in (False, True):  # first groups that bring the choice closer; then groups for classes without rows
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
    """Return the training and held-out rows of stratified folds of whole groups.

    Parameters
    ----------
    groups : ndarray of shape (n_samples,), dtype int
        Number of the group of each row.
    strata : ndarray of shape (n_samples,) or None
        Class of each row.
    n_folds : int
        Number of folds. There are fewer if there are fewer groups.
    seed : int
        Seed of the assignment of groups to folds.

    Raises
    ------
    InputError
        If there is only one group.
    """
    n_folds = min(n_folds, check_several(groups))
    codes = np.zeros(len(groups), int) if strata is None else np.unique(strata, return_inverse=True)[1]
    codes = codes if np.bincount(codes).max() >= n_folds else np.zeros(len(groups), int)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # it cannot be in each fold
        folds = list(splitter.split(codes, codes, groups))
    return [(learning, held) for learning, held in folds if len(held)]


def folds_of(cv: Any, y: Any, is_classes: bool, groups: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of ``cv``; folds of whole groups if ``cv`` is a number.

    Parameters
    ----------
    cv : int, cross-validation generator, iterable or None
        None means 5 folds.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or targets of the images.
    is_classes : bool
        Whether ``y`` contains labels.
    groups : array-like of shape (n_samples,) or None
        Group label of each row.
    """
    numbers = check_groups(groups, len(y))
    if numbers is not None and (cv is None or isinstance(cv, Integral)):
        return group_folds(numbers, np.asarray(y) if is_classes else None, int(cv or 5), seed=0)
    return list(check_cv(cv, y, classifier=is_classes).split(np.zeros(len(y)), y, numbers))


def check_several(groups: np.ndarray) -> int:
    """Return the number of groups.

    Raises
    ------
    InputError
        If there is only one.
    """
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise InputError(
            "The 'groups' parameter must have at least two groups, so that one can be held out. Got one instead "
            "(groups that share an image are merged)."
        )
    return n_groups


def accepts_groups(estimator: Any) -> bool:
    """Check whether ``fit`` uses groups without metadata routing."""
    folds = getattr(estimator, "cv", None) if isinstance(estimator, BaseSearchCV) else None
    return has_fit_parameter(estimator, "groups") or isinstance(folds, GroupsConsumerMixin)
