"""What becomes of images that cannot be read: left out of what is learned, NaN in what is predicted.

One parameter says so, ``on_error`` of an estimator or of the `ImageReader` in front of it; one warning names them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sktl._frozen._cache import open_cache
from sktl._frozen._runtime import count_threads
from sktl._images import FINDER, Images, UnreadableImage, as_unreadable, find_unreadable, listed
from sktl._params import check_consistent_length
from sktl._warnings import warn, was_told
from sktl.exceptions import ImageError, ImageWarning, InputError

_LEFT_OUT = "and were left out"


def is_tolerant(estimator: Any, on_error: str) -> bool:
    """Whether images that cannot be read are no error; ``on_error`` is what their table says."""
    return "nan" in (getattr(estimator, "on_error", "raise"), on_error)


def readable_rows(estimator: Any, images: Images, rows: np.ndarray, *, is_told: bool = True) -> np.ndarray:
    """Those of the rows whose images can be read, with one warning about the others.

    Parameters
    ----------
    estimator : estimator
        Read: ``on_error``, ``cache``, ``n_jobs``. If neither it nor the reader in front says "nan", all rows are
        returned, and no image is read.
    images : Images
        The whole table.
    rows : ndarray of shape (n_rows,), dtype int
        Those that are to be learned from.
    is_told : bool, default=True
        Whether there is a warning; not if there was one for the same table.

    Raises
    ------
    ImageError
        If none of the images can be read.
    """
    if not is_tolerant(estimator, images.on_error):
        return rows
    found = find_unreadable(images.take(rows), count_threads(estimator.n_jobs), cache=open_cache(estimator.cache))
    if not found:
        return rows
    if len(found) == len(rows):
        raise ImageError(f"None of the {len(rows)} images can be read: {listed(found)}. {FINDER} lists all of them.")
    if is_told:
        _warn(found, len(rows), _LEFT_OUT)
    return np.setdiff1d(rows, [one.position for one in found])


def warn_left_out(images: Images, failures: Mapping[int, ImageError]) -> None:
    """Warn once that some images are no part of what was learned."""
    if failures:
        _warn(unreadable(images, failures), len(images), _LEFT_OUT)


def warn_of_nan(images: Sequence[Any], failures: Mapping[int, ImageError]) -> None:
    """Warn once that the rows of some images are NaN."""
    _warn(unreadable(images, failures), len(images), "and became rows of NaN")


def unreadable(images: Any, failures: Mapping[int, ImageError]) -> list[UnreadableImage]:
    """What the errors of some images say of them, in order."""
    return sorted(as_unreadable(images, index, error) for index, error in failures.items())


def check_all_read(images: Images, failures: "Mapping[int, ImageError] | None") -> None:
    """Refuse to give labels, which cannot be NaN, if some of the images could not be read.

    Raises
    ------
    ImageError
        With all of these images, the first ten by name.
    """
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(images)} images cannot be read, and have no label: "
            f"{listed(unreadable(images, failures))}. {FINDER} lists all. predict_proba gives rows of NaN for them."
        )


def read_rows(images: Images, failures: "Mapping[int, ImageError] | None", *columns: Any) -> list[Any]:
    """The rows of each column (None stays None) whose images could be read, for a score; with one warning.

    Raises
    ------
    InputError
        If none could be read.
    ValueError
        scikit-learn's own, if a column is not as long as the table.
    """
    check_consistent_length(range(len(images)), *columns)  # before rows are taken, which hides a wrong length
    if not failures:
        return list(columns)
    if len(failures) == len(images):
        raise InputError(f"There is nothing to score: none of the {len(images)} images can be read.")
    _warn(unreadable(images, failures), len(images), _LEFT_OUT, " of the score")
    kept = np.setdiff1d(np.arange(len(images)), list(failures))
    return [None if column is None else _safe_indexing(column, kept) for column in columns]


def _warn(found: Sequence[UnreadableImage], n_images: int, outcome: str, where: str = "") -> None:
    """Warn, unless the search that this is a part of has named all of these images: each fold holds others of them."""
    # Their positions differ from fold to fold.
    if not was_told(f"{one.path or one.reason} {outcome}" for one in found):
        warn(
            f"{len(found)} of {n_images} images cannot be read {outcome}{where}, because of on_error='nan': "
            f"{listed(found)}. {FINDER} lists all.",
            ImageWarning,
        )
