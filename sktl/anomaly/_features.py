"""Features of a table of images, block by block."""

from collections.abc import Iterator, Sequence

import numpy as np

from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._progress import Progress
from sktl._images import Images
from sktl.anomaly._patches import PatchGrid
from sktl.exceptions import ImageError

# Images per block, to bound memory.
_ROWS_TOGETHER = 512
_MAPS_TOGETHER = 32


def feature_blocks(
    prefix: FrozenPrefix,
    grid: "PatchGrid | None",
    images: Images,
    listeners: Sequence[Progress] = (),
    failures: "dict[int, ImageError] | None" = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of rows and their features.

    Parameters
    ----------
    prefix : FrozenPrefix
        The network up to the layers, pooled if ``grid`` is None.
    grid : PatchGrid or None
        Conversion of the outputs of the layers to patches. None joins them to one row
        per image.
    images : Images
        Checked images.
    listeners : sequence of callable, default=()
        Functions called as ``listener(n_done, n_images)``.
    failures : dict or None, default=None
        Filled with the error of each image that cannot be read, by position, whose
        features are arbitrary.

    Yields
    ------
    rows : slice
        Rows of the block.
    features : ndarray of shape (n_rows, n_features) or (n_rows, n_patches, n_channels), float32
    """
    together = _ROWS_TOGETHER if grid is None else _MAPS_TOGETHER
    for start in range(0, len(images), together):
        rows = slice(start, min(start + together, len(images)))
        told = [_Continued(listener, start, len(images)) for listener in listeners]
        failed: dict[int, ImageError] | None = None if failures is None else {}
        outputs = prefix.run(images.take(rows), told, failures=failed)
        if failures is not None and failed:
            failures.update({start + row: error for row, error in failed.items()})
        yield rows, np.concatenate(outputs, axis=1) if grid is None else grid.patches(outputs)


class _Continued:
    """Listener of a block, which reports the progress in the whole table."""

    def __init__(self, listener: Progress, start: int, n_images: int):
        self._listener, self._start, self._n_images = listener, start, n_images

    def __call__(self, n_done: int, n_images: int) -> None:
        self._listener(self._start + n_done, self._n_images)
