"""Pictures are drawn into memory, and closed after each test."""

import matplotlib
import pytest
from sklearn.datasets import load_digits

from sktl import FineTunedClassifier
from sktl.inspection import _cost_display

matplotlib.use("Agg")

from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def closed_figures():
    """Every figure is drawn once, which is where a bad layout or label would be an error or a warning."""
    plt.close("all")  # those of other tests
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.fixture(scope="session")
def digits():
    """300 small pictures, as rows of pixels, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


@pytest.fixture(scope="session")
def model(digits):
    """A classifier that has learnt a little, judged on some of the rows."""
    X, y = digits
    return FineTunedClassifier(max_epochs=3, early_stopping=True, random_state=0).fit(X[:150], y[:150])


@pytest.fixture
def measured(monkeypatch):
    """Each footprint is measured as it is; what it was measured with is noted."""
    calls = []
    measure = _cost_display.footprints

    def noted(models, X, n_repeats):
        calls.extend((model, X, n_repeats) for model in models.values())
        return measure(models, X, n_repeats)

    monkeypatch.setattr(_cost_display, "footprints", noted)
    return calls
