"""What the tests of autoencoders share: small tables, with and without entries that nobody observed."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sktl.autoencoders import Autoencoder


@pytest.fixture(scope="session")
def shuffled():
    """Digits as rows of 64 numbers from 0 to 16, not ordered by who wrote them."""
    return np.random.default_rng(0).permutation(load_digits().data)


@pytest.fixture(scope="session")
def rows(shuffled):
    """120 of the digits."""
    return shuffled[:120]


@pytest.fixture(scope="session")
def new_rows(shuffled):
    """200 other digits."""
    return shuffled[1000:1200]


@pytest.fixture(scope="session")
def ratings(rows):
    """The rows with a third of their entries missing."""
    X = rows.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
    return X


@pytest.fixture
def make():
    """Makes an autoencoder that fits in no time."""
    return lambda n_components=5, **params: Autoencoder(
        n_components, **{"max_epochs": 3, "hidden_layer_sizes": (16,), "random_state": 0, **params}
    )
