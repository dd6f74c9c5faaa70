"""The input of ``fit`` as checked tables of training and validation rows."""

from collections.abc import Callable
from functools import partial
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
    """Arguments of ``fit``."""

    X: Any
    y: Any
    sample_weight: Any = None
    X_val: Any = None
    y_val: Any = None
    sample_weight_val: Any = None
    groups: Any = None

    @property
    def has_validation(self) -> bool:
        """True if validation rows were passed.

        Raises
        ------
        InputError
            If only one of ``X_val`` and ``y_val`` was passed.
        """
        if (self.X_val is None) != (self.y_val is None):
            came = "y_val" if self.X_val is None else "X_val"
            raise InputError(f"X_val and y_val must be passed together. Got only {came}.")
        return self.X_val is not None

    @property
    def validation(self) -> "FitInput":
        """The validation rows."""
        return FitInput(self.X_val, self.y_val, self.sample_weight_val)


def checked_table(
    estimator: Any,
    given: FitInput,
    coding: TargetCoding,
    *,
    learns: bool,
    warns: bool = True,
    door: "Callable | None" = None,
) -> LabeledImages:
    """Check ``X``, ``y`` and the weights, and return the usable rows.

    Rows that have weight zero or cannot be read are dropped, and equal rows are merged.

    Parameters
    ----------
    estimator : estimator
        The estimator whose ``fit`` was called. Attributes such as ``image_format_`` are
        set on it.
    given : FitInput
        The arguments of ``fit``.
    coding : TargetCoding
        Encoding of the targets.
    learns : bool
        Whether to infer the image format and the target encoding from this table.
    warns : bool, default=True
        Whether to warn about images that cannot be read.
    door : callable or None, default=None
        Function ``door(X, reset=...)`` that checks ``X``. None checks that it holds
        images.
    """
    images = (door or partial(check_images, estimator))(given.X, reset=learns)
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
    heavy = factor > 0  # a class may have weight zero
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
    """Digest the columns other than the image column, if there are any."""
    column = getattr(estimator, "image_column_", None)
    if column is None or np.ndim(X) < 2 or X.shape[1] < 2:
        return None
    return np.array(beside_digests(X, column), dtype=object)[rows]


def as_targets(y: Any) -> Any:
    """Return targets as an array; the items of mixed lists keep their types."""
    if isinstance(y, list | tuple) and len({isinstance(label, str) for label in y}) == 2:
        return np.array(y, dtype=object)
    return y if hasattr(y, "iloc") else np.asarray(y)


def distinct(table: LabeledImages) -> LabeledImages:
    """Merge rows with equal images and targets, and sort the rows by content.

    The weights of merged rows are added. The result of a fit then depends neither on
    the order of the rows nor on whether a row is repeated or weighted, no copy of a
    training image is in the validation rows, and oversampling costs no time. Groups
    that share an image are merged.
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
