"""Core set: rows that represent many rows, chosen by the greedy k-center method."""

import numpy as np

_SHORTLIST = 512  # rows among which several centers are found per pass over all rows


def random_projection(n_features: int, n_dims: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random matrix that approximately preserves distances.

    Parameters
    ----------
    n_features, n_dims : int
        Number of features and of dimensions after the projection.
    generator : numpy.random.Generator
        Source of random numbers.

    Returns
    -------
    ndarray of shape (n_features, n_dims), float32
    """
    return (generator.standard_normal((n_features, n_dims)) / np.sqrt(n_dims)).astype(np.float32)


def greedy_core_set(points: np.ndarray, n_centers: int, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose centers, each one the point that is farthest from those before it.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_dims), float32
        The points. The first one is the first center.
    n_centers : int
        Number of centers.
    groups : ndarray of shape (n_points,), dtype int
        Group of each point, such as the image of a patch, in ascending order.

    Returns
    -------
    centers : ndarray of shape (n_centers,), dtype int
        The chosen points, in the order of the choice.
    substitutes : ndarray of shape (n_centers,), dtype int
        For each center, the nearest point of another group, which would represent the
        neighborhood of the center if its group did not exist.

    Notes
    -----
    The choice is that of the greedy method, with fewer passes over all points. As long
    as the farthest of the points on a shortlist is at least as far as every other point
    was at the last pass, it is the next center.
    """
    points = points - points.mean(axis=0)
    squares = np.square(points).sum(axis=1)
    bounds = np.searchsorted(groups, [groups, groups + 1], side="left")  # of the group of each point
    distances = np.full(len(points), np.inf, np.float32)
    centers: list[int] = []
    substitutes: list[int] = []
    picks = np.zeros(1, np.intp)
    while True:
        to_picks = squares[picks][:, np.newaxis] - 2 * points[picks] @ points.T + squares
        np.minimum(distances, to_picks.min(axis=0), out=distances)
        for pick, row in zip(picks, to_picks, strict=True):
            row[slice(*bounds[:, pick])] = np.inf
            substitutes.append(int(row.argmin()))
        centers.extend(picks.tolist())
        distances[centers] = -np.inf
        if len(centers) == n_centers:
            return np.array(centers), np.array(substitutes)
        picks = _next_centers(points, squares, distances, n_centers - len(centers))


def _next_centers(points: np.ndarray, squares: np.ndarray, distances: np.ndarray, n_most: int) -> np.ndarray:
    """Return as many of the next centers as are certain without another pass."""
    size = min(_SHORTLIST, len(points))
    order = np.argpartition(-distances, size - 1)
    shortlist, others = order[:size], order[size:]
    bound = distances[others].max(initial=-np.inf)
    left, inner = distances[shortlist], points[shortlist]
    between = squares[shortlist][:, np.newaxis] - 2 * inner @ inner.T + squares[shortlist]
    picks: list[int] = []
    while len(picks) < n_most:
        nearest = int(left.argmax())
        if picks and left[nearest] < bound:
            break
        picks.append(nearest)
        np.minimum(left, between[nearest], out=left)
        left[picks] = -np.inf
    return shortlist[picks]
