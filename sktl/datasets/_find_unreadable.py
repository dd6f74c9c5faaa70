"""Search for unreadable images."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktl._frozen._progress import PrintedProgress
from sktl._frozen._runtime import count_threads
from sktl._images import UnreadableImage, check_images, find_unreadable
from sktl._params import Estimator, validate_params
from sktl._table import ReadableTable


class UnreadableImages(ReadableTable, Sequence[UnreadableImage]):
    """Unreadable images of a table, as returned by `find_unreadable_images`.

    A sequence of named tuples ``(position, path, reason)``. It is empty if all images
    can be read, and prints as a table.

    Parameters
    ----------
    images : sequence of UnreadableImage
        The images, in the order of their positions.
    n_images : int
        Number of images in the table.
    """

    def __init__(self, images: Sequence[UnreadableImage], n_images: int) -> None:
        self._images = list(images)
        width = max(map(len, ["reason", *self.reasons]))  # left-aligned
        super().__init__(
            f"{len(self._images)} of {n_images} images cannot be read",
            {"position": self.positions.tolist(), "path": self.paths, "reason": self.reasons},
            ["position", "path", "reason".ljust(width)],
            [str, lambda path: "" if path is None else str(path), lambda reason: reason.ljust(width)],
            names=["path"],
        )

    @property
    def positions(self) -> np.ndarray:
        """Positions of the images in ``X``, counted from 0, as an ndarray of int.

        Use ``numpy.delete(X, bad.positions, axis=0)`` to drop these images.
        """
        return np.array([image.position for image in self._images], np.intp)

    @property
    def paths(self) -> list[str | None]:
        """Paths as passed; None for an image without a path."""
        return [image.path for image in self._images]

    @property
    def reasons(self) -> list[str]:
        """Reasons why the images cannot be read."""
        return [image.reason for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index]


class _ImageTableChecker(Estimator):
    """Estimator with the parameters that `check_images` reads."""

    def __init__(self, in_channels=3, image_shape=None, channels="auto"):
        self.in_channels = in_channels
        self.image_shape = image_shape
        self.channels = channels


@validate_params(
    {
        "X": "no_validation",
        "in_channels": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "channels": [StrOptions({"auto", "first", "last"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def find_unreadable_images(X, *, in_channels=3, image_shape=None, channels="auto", n_jobs=None, verbose=0):
    """Find images that cannot be read, with their positions, paths and reasons.

    Each image is read and decoded as an estimator would do it, and is not kept in
    memory.

    Read more in the :doc:`user guide </images>`.

    Parameters
    ----------
    X : array-like of images
        Paths, images, a batch array or rows of pixels, or the output of an
        `sktl.preprocessing.ImageReader`; see the user guide.
    in_channels : int, default=3
        Number of channels of the images, as in the estimator that will use them.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of each image if ``X`` holds flat rows of pixels.
    channels : {"auto", "first", "last"}, default="auto"
        Position of the channel axis in arrays. ``"auto"`` infers it from the shape and
        raises an error if that is ambiguous.
    n_jobs : int or None, default=None
        Number of threads that read and decode images. None uses as many as torch does.
    verbose : int, default=0
        Verbosity level: 1 prints the progress, at most once per second.

    Returns
    -------
    unreadable : UnreadableImages
        Sequence of ``(position, path, reason)``, sorted by position and empty if all
        images can be read. It prints as a table and has the attributes ``positions``
        (ndarray of int), ``paths`` and ``reasons``.

    Raises
    ------
    ImageError
        If ``X`` does not contain images.

    See Also
    --------
    sktl.preprocessing.ImageReader : Configure how image files are read.

    Notes
    -----
    Estimators with ``on_error="nan"`` leave unreadable images out of `fit`. Use this
    function to find them in advance, or to repair them.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.datasets import find_unreadable_images
    >>> X = [np.zeros((8, 8, 3), np.uint8), "no such file.png", b""]
    >>> bad = find_unreadable_images(X)
    >>> bad.positions
    array([1, 2])
    >>> bad[0].path, bad[0].reason
    ('no such file.png', 'the file does not exist.')
    >>> X = [image for position, image in enumerate(X) if position not in bad.positions]
    >>> len(find_unreadable_images(X))
    0
    """
    checker = _ImageTableChecker(in_channels, image_shape, channels)
    images = check_images(checker, X, reset=True)
    listeners = [PrintedProgress("find_unreadable_images")] if verbose else []
    return UnreadableImages(find_unreadable(images, count_threads(n_jobs), listeners=listeners), len(images))
