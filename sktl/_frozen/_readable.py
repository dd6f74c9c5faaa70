"""Unreadable images with ``on_error="nan"``: left out of `fit`, NaN in predictions.

``on_error`` is a parameter of an estimator or of the `ImageReader` before it. A single
warning lists the images.
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
    """Check whether unreadable images are tolerated by the estimator or its table."""
    return "nan" in (getattr(estimator, "on_error", "raise"), on_error)


def readable_rows(estimator: Any, images: Images, rows: np.ndarray, *, is_told: bool = True) -> np.ndarray:
    """Return the rows whose images can be read, with one warning about the others.

    Parameters
    ----------
    estimator : estimator
        Estimator with the parameters ``on_error``, ``cache`` and ``n_jobs``. If neither
        ``on_error`` nor that of the reader is "nan", all rows are returned and no image
        is read.
    images : Images
        The whole table.
    rows : ndarray of shape (n_rows,), dtype int
        Positions of the training rows.
    is_told : bool, default=True
        Whether to warn. False avoids a second warning about the same table.

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
    """Warn once that some images were left out of training."""
    if failures:
        _warn(unreadable(images, failures), len(images), _LEFT_OUT)


def warn_of_nan(images: Sequence[Any], failures: Mapping[int, ImageError]) -> None:
    """Warn once that the rows of some images are NaN."""
    _warn(unreadable(images, failures), len(images), "and have rows of NaN")


def unreadable(images: Any, failures: Mapping[int, ImageError]) -> list[UnreadableImage]:
    """Return the errors of some images as `UnreadableImage`, in order."""
    return sorted(as_unreadable(images, index, error) for index, error in failures.items())


def check_all_read(
    images: Images, failures: "Mapping[int, ImageError] | None", *, instead: str = "predict_proba"
) -> None:
    """Check that all images were read, because labels cannot be NaN.

    Parameters
    ----------
    images : Images
        The images.
    failures : mapping of int to ImageError, or None
        Error of each image that cannot be read, by position.
    instead : str, default="predict_proba"
        Method that returns NaN for these images.

    Raises
    ------
    ImageError
        If some images could not be read. The first ten are listed.
    """
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(images)} images cannot be read, so predict has no label for them: "
            f"{listed(unreadable(images, failures))}. {FINDER} lists all. {instead} returns rows of NaN for them."
        )


def read_rows(images: Images, failures: "Mapping[int, ImageError] | None", *columns: Any) -> list[Any]:
    """Return the readable rows of each column for a score, with one warning.

    ``None`` columns are returned as they are.

    Raises
    ------
    InputError
        If none of the images could be read.
    ValueError
        From scikit-learn, if a column and the table differ in length.
    """
    # Checked first, because selecting rows would hide a wrong length.
    check_consistent_length(range(len(images)), *columns)
    if not failures:
        return list(columns)
    if len(failures) == len(images):
        raise InputError(f"The score is undefined, because none of the {len(images)} images can be read.")
    _warn(unreadable(images, failures), len(images), _LEFT_OUT, " of the score")
    kept = np.setdiff1d(np.arange(len(images)), list(failures))
    return [None if column is None else _safe_indexing(column, kept) for column in columns]


def _warn(found: Sequence[UnreadableImage], n_images: int, outcome: str, where: str = "") -> None:
    """Warn about some images, unless a surrounding search has listed them all.

    Each fold of a search holds a part of these images.
    """
    # By path or reason, because positions differ between folds.
    if not was_told(f"{one.path or one.reason} {outcome}" for one in found):
        warn(
            f"{len(found)} of {n_images} images cannot be read {outcome}{where}, because on_error='nan': "
            f"{listed(found)}. {FINDER} lists all.",
            ImageWarning,
        )
