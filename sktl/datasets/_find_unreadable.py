"""Finding the images of a table that cannot be read."""

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
    """The images of a table that cannot be read; made by `find_unreadable_images`.

    It is a sequence of named tuples ``(position, path, reason)``, empty if all images can be read, and prints as a
    table.

    Parameters
    ----------
    images : sequence of UnreadableImage
        The images, in the order of their positions.
    n_images : int
        Number of images in the table.
    """

    def __init__(self, images: Sequence[UnreadableImage], n_images: int) -> None:
        self._images = list(images)
        width = max(map(len, ["reason", *self.reasons]))  # texts begin at the left
        super().__init__(
            f"{len(self._images)} of {n_images} images cannot be read",
            {"position": self.positions.tolist(), "path": self.paths, "reason": self.reasons},
            ["position", "path", "reason".ljust(width)],
            [str, lambda path: "" if path is None else str(path), lambda reason: reason.ljust(width)],
            names=["path"],
        )

    @property
    def positions(self) -> np.ndarray:
        """Rows of ``X``, counted from 0, as an ndarray of int: ``numpy.delete(X, bad.positions, axis=0)``."""
        return np.array([image.position for image in self._images], np.intp)

    @property
    def paths(self) -> list[str | None]:
        """Paths as they were given; None for an image that has none."""
        return [image.path for image in self._images]

    @property
    def reasons(self) -> list[str]:
        """What is wrong with each image."""
        return [image.reason for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index]


class _ImageTableChecker(Estimator):
    """What `check_images` reads from an estimator."""

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
    """Find the images that cannot be read, with their positions, paths and reasons.

    Each image is read and decoded as an estimator would do it, and none is kept in memory.

    Read more in the :doc:`user guide </images>`.

    Parameters
    ----------
    X : array-like of images
        Anything that the estimators take: paths, images, a batch array, rows of pixels, or what an
        :class:`~sktl.preprocessing.ImageReader` returns.
    in_channels : int, default=3
        Number of channels of the images, as in the estimator that they are for.
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        Shape of an image in pixels, if ``X`` holds flat rows, as in the estimator.
    channels : {"auto", "first", "last"}, default="auto"
        Where the channel axis of arrays is, as in the estimator.
    n_jobs : int or None, default=None
        Number of threads. With None, as many as torch uses.
    verbose : int, default=0
        With 1, print how many images are done, at most once a second.

    Returns
    -------
    unreadable : UnreadableImages
        A sequence of ``(position, path, reason)``, sorted by position, and empty if all images can be read. It prints
        as a table, and has the attributes ``positions`` (ndarray of int), ``paths`` and ``reasons``.

    Raises
    ------
    ImageError
        If ``X`` is not a table of images.

    See Also
    --------
    sktl.preprocessing.ImageReader : Reads what is not read by default.

    Notes
    -----
    Estimators with ``on_error="nan"`` leave such images out when they are fitted. Use this function to look at the
    images first, or to repair them.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.datasets import find_unreadable_images
    >>> X = [np.zeros((8, 8, 3), np.uint8), "no such file.png", b""]
    >>> bad = find_unreadable_images(X)
    >>> bad.positions
    array([1, 2])
    >>> bad[0]
    UnreadableImage(position=1, path='no such file.png', reason='there is no such file.')
    >>> X = [image for position, image in enumerate(X) if position not in bad.positions]
    >>> len(find_unreadable_images(X))
    0
    """
    checker = _ImageTableChecker(in_channels, image_shape, channels)
    images = check_images(checker, X, reset=True)
    listeners = [PrintedProgress("find_unreadable_images")] if verbose else []
    return UnreadableImages(find_unreadable(images, count_threads(n_jobs), listeners=listeners), len(images))
