"""Where displays draw."""

import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sktl.exceptions import MissingDependencyError
from sktl.inspection import (
    DistillationDisplay,
    FreezeDepthDisplay,
    LayerProbeDisplay,
    LRRangeDisplay,
    MisclassifiedDisplay,
    TrainingCurveDisplay,
)
from sktl.inspection._axes import one_axes, two_axes

ROW = {"nrows": 1, "ncols": 2}


def test_one_axes_new_and_given():
    """Without axes there is a new figure; given ones are taken."""
    figure, ax = one_axes(object(), None, (4, 3))
    assert tuple(figure.get_size_inches()) == (4, 3)
    assert one_axes(object(), ax, (9, 9)) == (figure, ax)


def test_two_axes_new():
    """A new figure has two panels; above each other they share their x axis, beside each other they do not."""
    _, (first, second) = two_axes(object(), None, (4, 3), nrows=2, ncols=1)
    assert first.get_shared_x_axes().joined(first, second)
    _, (first, second) = two_axes(object(), None, (4, 3), **ROW)
    assert not first.get_shared_x_axes().joined(first, second)


def test_two_axes_given():
    """Two axes are taken as they are, whatever holds them."""
    figure, axes = plt.subplots(1, 2)
    for given in (axes, list(axes), axes.reshape(2, 1)):
        assert two_axes(object(), given, (4, 3), **ROW) == (figure, tuple(axes))


def test_one_axes_is_divided():
    """Both panels lie in the place of the axes given, which are hidden, in the same figure."""
    figure, axes = plt.subplots(2, 1)
    found, panels = two_axes(object(), axes[1], (4, 3), **ROW)
    assert found is figure
    assert not axes[1].axison
    place = axes[1].get_position()
    for panel in panels:
        inner = panel.get_position()
        assert np.all([inner.x0, inner.y0] >= place.min - 1e-9)
        assert np.all([inner.x1, inner.y1] <= place.max + 1e-9)


def test_axes_without_a_place_cannot_be_divided():
    """Axes that were put somewhere by hand are an error that says what to give."""
    with pytest.raises(
        ValueError, match=r"^ax cannot be divided because it does not belong to a grid of subplots\. Pass two Axes"
    ):
        two_axes(object(), plt.figure().add_axes((0, 0, 1, 1)), (4, 3), **ROW)


@pytest.mark.parametrize(
    ("Display", "make"),
    [
        (DistillationDisplay, lambda d: d.from_estimator(None, None, None)),
        (DistillationDisplay, lambda d: d.from_estimators(None, None, None)),
        (FreezeDepthDisplay, lambda d: d.from_search(None)),
        (LayerProbeDisplay, lambda d: d.from_estimator("no such network", None, None)),
        (LRRangeDisplay, lambda d: d.from_estimator(None, None, None)),
        (LRRangeDisplay, lambda d: d([1e-3], [1.0], [1.0]).plot()),
        (MisclassifiedDisplay, lambda d: d.from_estimator(None, None, None)),
        (MisclassifiedDisplay, lambda d: d.from_predictions(None, None, None)),
        (TrainingCurveDisplay, lambda d: d.from_estimator(None)),
        (TrainingCurveDisplay, lambda d: d.from_history(None)),
    ],
)
def test_without_matplotlib(monkeypatch, Display, make):
    """The error comes before any work, names the display and says how to install what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=rf"^{Display.__name__} needs.*sktl\[plot\]"):
        make(Display)
