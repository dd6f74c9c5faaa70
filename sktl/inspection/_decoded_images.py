"""The pictures that a display keeps: read again, decoded where they can be, in colours that can be drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sktl._images import Images, check_images
from sktl.exceptions import ImageError
from sktl.feature_extraction import PretrainedFeatureExtractor


def read_images(X: Any, **settings: Any) -> Images:
    """Pictures of a table that no estimator knows; the settings are those of an extractor."""
    return check_images(PretrainedFeatureExtractor(**settings), X, reset=True)


class DecodedImages(Sequence[Any]):
    """The pictures of a table, uint8 of shape (height, width, channels) each, decoded when it is asked for.

    None stands for one that cannot be read.

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
        try:
            return self._images[position].decode()
        except ImageError:  # it was looked at all the same: by something else, or with on_error="nan"
            return None


def as_rgb(photo: np.ndarray) -> np.ndarray:
    """A picture to be drawn, (height, width, 3): grey as grey, of other sensors' channels the first three."""
    return np.repeat(photo[:, :, :1], 3, axis=2) if photo.shape[2] < 3 else photo[:, :, :3]
