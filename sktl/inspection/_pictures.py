"""Pictures that are given to a display: read again, and decoded where they can be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sktl._images import Images, check_images
from sktl.exceptions import ImageError
from sktl.feature_extraction import PretrainedFeatureExtractor


def read_anew(X: Any, **settings: Any) -> Images:
    """Pictures of a table that no estimator knows; the settings are those of an extractor."""
    return check_images(PretrainedFeatureExtractor(**settings), X, reset=True)


def decode(images: Images, position: int) -> "np.ndarray | None":
    """One picture, uint8 of shape (height, width, channels); None where it cannot be read."""
    try:
        return images[position].decode()
    except ImageError:  # it was looked at all the same: by something else, or with on_error="nan"
        return None


class Photos(Sequence[Any]):
    """The same for all pictures of a table, each decoded when it is asked for.

    Parameters
    ----------
    images : Images
        The pictures.
    """

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> "np.ndarray | None":  # type: ignore[override]  # no slices
        return decode(self._images, position)
