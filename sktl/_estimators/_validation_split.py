"""Split of rows into training and validation rows."""

import numpy as np
from sklearn.model_selection import train_test_split

from sktl._estimators._groups import check_several, choose_groups
from sktl._images import digests
from sktl._training._data import LabeledImages
from sktl.exceptions import InputError


def hold_out(
    table: LabeledImages,
    strata: "np.ndarray | None",
    fraction: float,
    seed: int,
    *,
    by: str = "early_stopping=True",
    instead: str = "X_val and y_val, or early_stopping=False",
) -> tuple[LabeledImages, LabeledImages]:
    """Split rows into training and validation rows.

    All rows of an image, which may have several targets, and all rows of a group stay
    on the same side.

    Parameters
    ----------
    table : LabeledImages
        All rows, as returned by `distinct`.
    strata : ndarray of shape (n_samples,) or None
        Classes for a stratified split.
    fraction : float
        Share of the images to hold out.
    seed : int
        Seed of the split.
    by : str, default="early_stopping=True"
        What requires the split, for messages: this parameter, or the name of a class
        that always holds out rows.
    instead : str, default="X_val and y_val, or early_stopping=False"
        What to use instead of the split: completes "Use more rows, ...".

    Raises
    ------
    InputError
        If no training rows or no validation rows would remain.
    """
    if table.groups is not None:
        is_held = _split_groups(table.groups, strata, fraction, seed, by, instead)
        return table.take(np.flatnonzero(~is_held)), table.take(np.flatnonzero(is_held))
    contents = digests(table.images)
    _, first, group = np.unique(contents, return_index=True, return_inverse=True)
    n_valid = int(np.ceil(fraction * len(first)))
    if n_valid >= len(first):
        raise InputError(
            f"validation_fraction={fraction} of {len(first)} different rows leaves no rows for training. Use more "
            f"rows, a smaller validation_fraction, {instead}."
        )
    if strata is None:
        _, held = train_test_split(np.arange(len(first)), test_size=n_valid, random_state=seed)
    else:
        held = _stratified_split(strata[first], n_valid, seed, by, instead)
    is_held = np.isin(group, held)
    return table.take(np.flatnonzero(~is_held)), table.take(np.flatnonzero(is_held))


def _split_groups(
    groups: np.ndarray, strata: "np.ndarray | None", fraction: float, seed: int, by: str, instead: str
) -> np.ndarray:
    """Return the mask of the validation rows, which are whole groups."""
    n_groups = check_several(groups)
    is_held = choose_groups(groups, strata, fraction, seed)
    if is_held is None:
        raise InputError(
            f"{by} holds out whole groups, but each of the {n_groups} groups has a class that no other group has. Use "
            f"several groups per class, {instead}."
        )
    return is_held


def _stratified_split(strata: np.ndarray, n_valid: int, seed: int, by: str, instead: str) -> np.ndarray:
    """Return positions of validation rows; classes with one row stay in training."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    others = np.flatnonzero(counts[index] > 1)
    n_classes = int((counts > 1).sum())
    if not n_classes:
        raise InputError(
            f"{by} holds out validation rows and needs a class with at least two rows. Got {len(strata)} images of "
            f"{len(strata)} classes instead. Use more images, {instead}."
        )
    # train_test_split requires a row of each class on both sides.
    n_valid = min(max(n_valid, n_classes), len(others) - n_classes)
    return train_test_split(others, test_size=n_valid, random_state=seed, stratify=strata[others])[1]
