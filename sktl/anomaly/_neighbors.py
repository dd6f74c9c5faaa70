"""Distances to the nearest rows of a memory, independent of the batch.

The sums of a matrix product depend on its shape, by about 1e-7 of their size. Products
therefore only find the neighbors; their distances are computed from differences, which
also makes the distance of equal rows exactly 0.
"""

import numpy as np

_QUERIES = 256  # rows per matrix product, to bound memory
_DIFFERENCES = 2**23  # numbers per block of differences, as well
_SPARE = 8  # further candidates, among which rounding may have hidden a neighbor


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows to unit length; rows of zeros remain zeros."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def cosine_distances(queries: np.ndarray, memory: np.ndarray, n_neighbors: int, own: np.ndarray) -> np.ndarray:
    """Return the mean cosine distance of each query to its nearest neighbors.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, n_features), float32
        Rows of unit length.
    memory : ndarray of shape (n_rows, n_features), float32
        Rows of unit length, more than ``n_neighbors``.
    n_neighbors : int
        Number of neighbors.
    own : ndarray of shape (n_queries,), dtype int
        Row of the memory that is not a neighbor of a query, -1 if all may be.

    Returns
    -------
    ndarray of shape (n_queries,), float64
    """
    n_candidates = min(n_neighbors + _SPARE, len(memory))
    means = np.empty(len(queries))
    together = int(np.clip(_DIFFERENCES // (n_candidates * memory.shape[1]), 1, _QUERIES))
    for start in range(0, len(queries), together):
        block = slice(start, start + together)
        rows, kept_out = queries[block], own[block]
        products = rows @ memory.T
        known = np.flatnonzero(kept_out >= 0)
        products[known, kept_out[known]] = -np.inf
        found = np.argpartition(-products, n_candidates - 1, axis=1)[:, :n_candidates]
        # Half of the squared distance of unit vectors is their cosine distance.
        distances = 0.5 * np.square(rows[:, np.newaxis].astype(np.float64) - memory[found]).sum(axis=2)
        distances[found == kept_out[:, np.newaxis]] = np.inf
        distances.sort(axis=1)
        means[block] = distances[:, :n_neighbors].mean(axis=1)
    return means
