"""Reduction of features to two dimensions."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from sktl.inspection._two_dimensions import embed


def test_pca_of_standardized_features():
    """The embedding and the labels of its axes are those of scikit-learn's PCA."""
    features = np.random.default_rng(0).normal(size=(20, 5)) * [1, 10, 100, 1, 1]
    pca = PCA(2, random_state=0)
    expected = pca.fit_transform(StandardScaler().fit_transform(features))
    embedding, names = embed(features, "pca", 0)
    np.testing.assert_allclose(embedding, expected)
    shares = pca.explained_variance_ratio_
    assert names == tuple(f"principal component {i + 1}\n{shares[i]:.0%} of the variance" for i in range(2))


def test_an_estimator_with_a_single_column():
    """An estimator must return two dimensions at least."""
    with pytest.raises(
        ValueError, match=r"must return an array with at least 2 columns\. Got an array of shape \(4, 1\)"
    ):
        embed(np.eye(4), PCA(1), 0)
