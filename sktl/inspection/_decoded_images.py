"""Images of a display: read, decoded on access, and converted to RGB."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sktl._estimators._find_fitted import find_fitted
from sktl._images import Images, check_images
from sktl.exceptions import ImageError
from sktl.feature_extraction import PretrainedFeatureExtractor


def read_images(X: Any, **settings: Any) -> Images:
    """Read images with the parameters of an unfitted feature extractor."""
    return check_images(PretrainedFeatureExtractor(**settings), X, reset=True)


def images_of(estimator: Any, X: Any) -> Images:
    """Read images as a fitted estimator does, or as a new one if it reads no images.

    Parameters
    ----------
    estimator : estimator
        Fitted estimator, pipeline or search.
    X : array-like of images
        The input of the whole estimator.
    """
    reader = find_fitted(estimator, "image_format_")
    return read_images(X) if reader is None else check_images(reader.estimator, reader.reached_by(X), reset=False)


class DecodedImages(Sequence[Any]):
    """Sequence of images, decoded on access to uint8 (height, width, channels).

    The item of an image that cannot be read equals None.
    """

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> "np.ndarray | None":  # type: ignore[override]  # no slices
        try:
            return self._images[position].decode()
        except ImageError:  # it was handled before, such as by on_error="nan"
            return None


def as_rgb(photo: np.ndarray) -> np.ndarray:
    """Convert an image to (height, width, 3) by repeating or dropping channels."""
    return np.repeat(photo[:, :, :1], 3, axis=2) if photo.shape[2] < 3 else photo[:, :, :3]
