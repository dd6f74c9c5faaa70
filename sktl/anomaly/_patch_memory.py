"""Memory of the patches of normal images, searched for the nearest one."""

import numpy as np

_LEAST_AXES = 32
_CHANNELS_PER_AXIS = 6


class PatchMemory:
    """Patches of normal images.

    The nearest patch is found along the principal axes of the memory, a sixth of the
    number of channels but at least 32, which saves most of the time, and its distance
    is computed from all channels. If another patch is nearer, the distance is larger
    than that of the nearest patch, but never smaller.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_channels), float32
        The patches, in the order of their images.
    bounds : ndarray of shape (n_images + 1,), dtype int
        The first row of each image, and the number of rows.
    substitutes : ndarray of shape (n_rows, n_channels) or None, default=None
        Patches of other images that take the position of the patches of an image that
        is left out. None if other images have kept all of their patches.
    """

    def __init__(self, rows: np.ndarray, bounds: np.ndarray, substitutes: "np.ndarray | None" = None):
        self._rows, self._bounds, self._substitutes = rows, bounds, substitutes
        self._center = rows.mean(axis=0)
        centered = rows - self._center
        n_axes = max(_LEAST_AXES, rows.shape[1] // _CHANNELS_PER_AXIS)
        self._axes = np.linalg.eigh(centered.T.astype(np.float64) @ centered)[1][:, -n_axes:].astype(np.float32)
        self._keys = self._as_keys(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def distances(self, patches: np.ndarray, image: int = -1) -> np.ndarray:
        """Return the Euclidean distance of each patch to the nearest one of the memory.

        Parameters
        ----------
        patches : ndarray of shape (n_patches, n_channels), float32
            The patches of one image. Equal numbers of patches are summed in the same
            order, so that the result does not depend on other images.
        image : int, default=-1
            Number of the image if it is one of the memory, whose patches are left out.

        Returns
        -------
        ndarray of shape (n_patches,), float32
        """
        own = np.arange(self._bounds[image], self._bounds[image + 1]) if image >= 0 else np.arange(0)
        queries = self._along_axes(patches)
        queries = np.column_stack([-2 * queries, np.ones_like(queries[:, 0])])
        order = queries @ self._keys.T  # squared distances, less the square of the query
        order[:, own] = np.inf if self._substitutes is None else queries @ self._as_keys(self._substitutes[own]).T
        nearest = order.argmin(axis=1)
        found = self._rows[nearest]
        if self._substitutes is not None:
            is_own = np.isin(nearest, own)
            found[is_own] = self._substitutes[nearest[is_own]]
        return np.sqrt(np.square(patches - found).sum(axis=1))

    def _along_axes(self, rows: np.ndarray) -> np.ndarray:
        """Return the coordinates of rows along the principal axes."""
        return (rows - self._center) @ self._axes

    def _as_keys(self, rows: np.ndarray) -> np.ndarray:
        """Return the coordinates of rows and the sums of their squares."""
        coordinates = self._along_axes(rows)
        return np.column_stack([coordinates, np.square(coordinates).sum(axis=1)])
