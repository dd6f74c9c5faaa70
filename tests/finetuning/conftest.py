"""A small table of digits, and the settings with which tests fit it quickly."""

import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """Thirty digits of three kinds, (30, 8, 8) from 0 to 1, and their labels, 0 to 2."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:30].reshape(-1, 8, 8) / 16, y[:30]


@pytest.fixture(scope="session")
def quick():
    """Parameters of a fit of a fraction of a second: two epochs of the head alone."""
    return {"freeze_depth": "all", "max_epochs": 2, "lr": 0.001, "random_state": 0}
