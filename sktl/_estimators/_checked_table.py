"""What a fit is given, as a checked table: the rows to learn from, and those to evaluate on."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import indexable
from sklearn.utils.validation import _check_sample_weight

from sktl._estimators._content_digests import beside_digests
from sktl._estimators._groups import check_groups, joined
from sktl._estimators._target_coding import TargetCoding
from sktl._frozen._readable import readable_rows
from sktl._images import TakesTables, check_images, digests
from sktl._messages import shortened_errors
from sktl._params import check_consistent_length
from sktl._training._data import LabeledImages
from sktl.exceptions import InputError


class FitInput(NamedTuple):
    """What ``fit`` is called with."""

    X: Any
    y: Any
    sample_weight: Any = None
    X_val: Any = None
    y_val: Any = None
    sample_weight_val: Any = None
    groups: Any = None

    @property
    def has_validation(self) -> bool:
        """Whether there are rows of their own to evaluate on.

        Raises
        ------
        InputError
            If there are only half of them.
        """
        if (self.X_val is None) != (self.y_val is None):
            raise InputError("X_val and y_val come together: give both or neither.")
        return self.X_val is not None

    @property
    def validation(self) -> "FitInput":
        """The rows to evaluate on."""
        return FitInput(self.X_val, self.y_val, self.sample_weight_val)


def checked_table(
    estimator: Any,
    given: FitInput,
    coding: TargetCoding,
    *,
    learns: bool,
    warns: bool = True,
) -> LabeledImages:
    """The table that ``X``, ``y`` and the weights are, without rows of weight zero or that cannot be read.

    Parameters
    ----------
    estimator : estimator
        Whose ``fit`` was called: it says how images are read, and gets the attributes that tell what they are like.
    given : FitInput
        What it was given.
    coding : TargetCoding
        What becomes of the targets.
    learns : bool
        Whether it is from this table that the estimator and the coding learn what images and targets are like.
    warns : bool, default=True
        Whether a warning names the images that cannot be read.
    """
    images = check_images(estimator, given.X, reset=learns)
    y = coding.missing(len(images)) if given.y is None else given.y
    check_consistent_length(range(len(images)), y)
    with shortened_errors():
        rows = np.empty(len(images))
        weight = _check_sample_weight(given.sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
    groups = check_groups(given.groups, len(images))
    kept = readable_rows(estimator, images, np.flatnonzero(weight), is_told=warns)
    y = as_targets(y)
    targets = y.iloc[kept] if hasattr(y, "iloc") else y[kept]
    targets, factor = coding.encode(targets, weight[kept], learns=learns)
    if learns:
        vars(estimator).update(coding.attributes)
    heavy = factor > 0  # a class may weigh nothing too
    kept = kept[heavy]
    table = LabeledImages(
        images.take(kept),
        targets[heavy],
        weight[kept] * factor[heavy],
        weight[kept],
        given=indexable(given.X, y),
        beside=_beside(estimator, given.X, kept) if isinstance(estimator, TakesTables) else None,
        groups=None if groups is None else groups[kept],
        is_weighted=given.sample_weight is not None,
    )
    return distinct(table)


def _beside(estimator: Any, X: Any, rows: np.ndarray) -> "np.ndarray | None":
    """What stands for what some rows hold beside their image, of a table that holds more than images."""
    column = getattr(estimator, "image_column_", None)
    if column is None or np.ndim(X) < 2 or X.shape[1] < 2:
        return None
    return np.array(beside_digests(X, column), dtype=object)[rows]


def as_targets(y: Any) -> Any:
    """Targets that can be indexed; a list of texts and other things is not made a list of texts, as NumPy does."""
    if isinstance(y, list | tuple) and len({isinstance(label, str) for label in y}) == 2:
        return np.array(y, dtype=object)
    return y if hasattr(y, "iloc") else np.asarray(y)


def distinct(table: LabeledImages) -> LabeledImages:
    """Equal images with equal targets as one row, with their weights added, in an order that their content gives.

    So what a fit learns depends on neither the order of the rows nor on whether a row is repeated or weighted, a copy
    is never learned from and evaluated on at once, and an oversampled table costs what the images in it cost. Groups
    that share an image are one.
    """
    first: dict[bytes, int] = {}
    contents = digests(table.images)
    if table.groups is not None:
        table = table._replace(groups=joined(table.groups, contents))
    beside = [b""] * len(table.y) if table.beside is None else table.beside
    keys = [contents[row] + b"|" + table.y[row].tobytes() + beside[row] for row in range(len(table.y))]
    group = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    rows = np.array(sorted(first.values(), key=keys.__getitem__))
    weight, sample_weight = (np.bincount(group, weights=column, minlength=len(keys))[rows] for column in table[2:4])
    return table.take(rows)._replace(weight=weight, sample_weight=sample_weight)
