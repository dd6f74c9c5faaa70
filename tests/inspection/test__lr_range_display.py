"""The picture of a range test."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sktl import FineTunedClassifier
from sktl.finetuning import LRRangeTest, lr_range_test
from sktl.inspection import LRRangeDisplay


@pytest.fixture
def result():
    lr = np.geomspace(1e-6, 1, 50)
    loss = np.where(lr < 1e-3, 1.0, 0.2)
    loss[-3:] = 1e6
    return LRRangeTest(lr, loss, loss, float(lr[25]))


def test_the_curve_is_the_result(result):
    """Loss and smoothed loss stand against the rate on a logarithmic axis, with the suggestion marked."""
    _, ax = plt.subplots()
    display = LRRangeDisplay.from_result(result, ax=ax, line_kw={"color": "black"})
    assert display.ax_ is ax
    assert ax.get_xscale() == "log"
    for line, values in zip(display.lines_, (result.loss, result.smoothed_loss), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), result.lr)
        np.testing.assert_array_equal(line.get_ydata(), values)
    assert display.lines_[1].get_color() == "black"
    assert ax.get_legend().get_texts()[-1].get_text() == f"steepest: lr={result.suggestion:.2g}"


def test_an_explosion_does_not_press_the_curve_flat(result):
    """The axis has room for what comes before the smallest loss, and not for a million."""
    low, high = LRRangeDisplay.from_result(result).ax_.get_ylim()
    assert low < 0.2 < 1.0 < high < 2.0


def test_no_suggestion_no_mark(result):
    """Where there is none, only the curves are drawn."""
    display = LRRangeDisplay(result.lr, result.loss, result.smoothed_loss).plot()
    assert len(display.ax_.lines) == 2


def test_a_constant_loss_can_be_drawn(result):
    """Even a loss that never changes has an axis of some height."""
    flat = np.ones(50)
    low, high = LRRangeDisplay(result.lr, flat, flat).plot().ax_.get_ylim()
    assert low < 1 < high


def test_from_estimator_does_the_test(digits):
    """It draws what `lr_range_test` with the same parameters gives."""
    model = FineTunedClassifier(freeze_depth="all", head_init="random", random_state=0)
    settings = {"lr_min": 1e-5, "lr_max": 0.5, "n_steps": 50, "sample_weight": np.arange(300) % 3}
    display = LRRangeDisplay.from_estimator(model, *digits, **settings)
    expected = lr_range_test(model, *digits, **settings)
    np.testing.assert_array_equal(display.loss, expected.loss)
    assert display.suggestion == expected.suggestion
