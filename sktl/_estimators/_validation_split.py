"""Rows that are held out of those to learn from, to evaluate on."""

import numpy as np
from sklearn.model_selection import train_test_split

from sktl._estimators._groups import check_several, choose_groups
from sktl._images import digests
from sktl._training._data import LabeledImages
from sktl.exceptions import InputError


def hold_out(
    table: LabeledImages, strata: "np.ndarray | None", fraction: float, seed: int, *, by: str = "early_stopping=True"
) -> tuple[LabeledImages, LabeledImages]:
    """Rows to learn from, and rows to judge on; all rows of a picture, which may have several targets, on one side.

    All rows of a group are on one side too.

    Parameters
    ----------
    table : LabeledImages
        All rows, as `distinct` leaves them.
    strata : ndarray of shape (n_rows,) or None
        What shall be on both sides in the same shares.
    fraction : float
        Share of the pictures to judge on.
    seed : int
        Of the choice.
    by : str, default="early_stopping=True"
        Who wants it, for errors: that parameter, or a class that sets rows aside whatever the parameters say.

    Raises
    ------
    InputError
        Where nothing would be left to learn from, or nothing can be judged.
    """
    if table.groups is not None:
        is_judged = _split_groups(table.groups, strata, fraction, seed, by)
        return table.take(np.flatnonzero(~is_judged)), table.take(np.flatnonzero(is_judged))
    pictures = digests(table.images)
    _, first, group = np.unique(pictures, return_index=True, return_inverse=True)
    n_valid = int(np.ceil(fraction * len(first)))
    if n_valid >= len(first):
        raise InputError(
            f"validation_fraction={fraction} of {len(first)} pictures leaves nothing to learn from. Give more "
            f"pictures, a smaller validation_fraction, {_way_out(by)}."
        )
    if strata is None:
        _, judging = train_test_split(np.arange(len(first)), test_size=n_valid, random_state=seed)
    else:
        judging = _stratified_split(strata[first], n_valid, seed, by)
    is_judged = np.isin(group, judging)
    return table.take(np.flatnonzero(~is_judged)), table.take(np.flatnonzero(is_judged))


def _way_out(by: str) -> str:
    """What to give where no rows can be set aside; without early stopping somebody else wants them."""
    return "X_val and y_val, or early_stopping=False" if by.startswith("early_stopping") else "or X_val and y_val"


def _split_groups(groups: np.ndarray, strata: "np.ndarray | None", fraction: float, seed: int, by: str) -> np.ndarray:
    """Which rows to judge on; a group with a class that no other group has is learned."""
    n_groups = check_several(groups)
    is_judged = choose_groups(groups, strata, fraction, seed)
    if is_judged is None:
        raise InputError(
            f"{by} sets groups aside whose classes others have too, and each of the {n_groups} groups has a class that "
            f"no other group has. Give a class's images in several groups, {_way_out(by)}."
        )
    return is_judged


def _stratified_split(strata: np.ndarray, n_valid: int, seed: int, by: str = "early_stopping=True") -> np.ndarray:
    """Positions to judge on; a class with one row is learnt, not judged."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    others = np.flatnonzero(counts[index] > 1)
    n_classes = int((counts > 1).sum())
    if not n_classes:
        raise InputError(
            f"{by} needs a class with at least two rows to judge on, one of which is set aside. Got {len(strata)} "
            f"images of {len(strata)} classes. Give more rows, {_way_out(by)}."
        )
    # scikit-learn wants a row of each class on either side.
    n_valid = min(max(n_valid, n_classes), len(others) - n_classes)
    return train_test_split(others, test_size=n_valid, random_state=seed, stratify=strata[others])[1]
