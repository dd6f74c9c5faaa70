"""Reduction of features to two dimensions."""

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktl._threads import bounded_threads
from sktl.exceptions import InputError

METHODS = ("pca", "tsne")


def embed(features: Any, method: Any, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Return an embedding of shape (n_samples, 2), and the labels of its axes."""
    features = np.asarray(features, np.float64)
    if len(features) < 3 or features.shape[1] < 2:
        raise InputError(
            "An embedding needs at least 3 images and 2 features. Got "
            f"{len(features)} images and {features.shape[1]} features instead."
        )
    if (features == features[0]).all():
        raise InputError(f"The features of all {len(features)} images are identical. Pass images that differ.")
    with bounded_threads():
        if not isinstance(method, str):
            method = clone(method)
            called = type(getattr(method, "steps", [(None, method)])[-1][1]).__name__
            embedding = np.asarray(method.fit_transform(features))
            if embedding.ndim != 2 or embedding.shape[1] < 2:
                raise InputError(
                    f"method={method!r} must return an array with at least 2 columns. Got an array of shape "
                    f"{embedding.shape} instead."
                )
            return embedding[:, :2], (f"{called} dimension 1", f"{called} dimension 2")
        # t-SNE starts from at most 50 components, as in the paper.
        n_components = 2 if method == "pca" else min(50, *features.shape)
        pca = PCA(n_components, random_state=seed)
        reduced = make_pipeline(StandardScaler(), pca).fit_transform(features)
        if method == "pca":
            first, second = (f"{share:.0%} of the variance" for share in pca.explained_variance_ratio_)
            return reduced, (f"principal component 1\n{first}", f"principal component 2\n{second}")
        tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), random_state=seed)
        return tsne.fit_transform(reduced), ("t-SNE dimension 1", "t-SNE dimension 2")
