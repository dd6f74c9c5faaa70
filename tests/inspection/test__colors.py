"""As many colors as classes: no two the same, none of them gray or white."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from sktl.inspection._axes import MUTED
from sktl.inspection._colors import _oklab, distinct_colors


def least_distance(colors):
    places = _oklab(np.array(colors))
    return min(np.linalg.norm(one - other) for one, other in itertools.combinations(places, 2))


@pytest.mark.parametrize(("n_colors", "at_least"), [(2, 0.14), (10, 0.14), (20, 0.14), (30, 0.12), (100, 0.05)])
def test_no_two_are_alike(n_colors, at_least):
    """Nor is one of them white, or the gray of what has no label; twenty of matplotlib's tab20 are 0.054 apart."""
    colors = distinct_colors(n_colors)
    assert len(set(colors)) == n_colors
    assert least_distance(colors) > at_least
    assert least_distance([*colors, (1.0, 1.0, 1.0), to_rgb(MUTED)]) > 0.05


def test_a_thousand_differ():
    """However many there are, each has a color of its own."""
    assert len(set(distinct_colors(1000))) == 1000
    assert distinct_colors(0) == []


def test_the_first_ones_stay():
    """A class more does not change the colors of the others, and the first ones are those that people know."""
    assert distinct_colors(12) == distinct_colors(40)[:12]
    assert distinct_colors(3) == [to_rgb(f"C{number}") for number in range(3)]


def test_the_users_style():
    """The colors of a style come first, but for those that cannot be told apart."""
    cycle = plt.cycler(color=["#112233", "#112234", "gold", "0.45"])
    with plt.rc_context({"axes.prop_cycle": cycle}):
        assert distinct_colors(2) == [to_rgb("#112233"), to_rgb("gold")]
        assert len(set(distinct_colors(20))) == 20


def test_oklab():
    """White, black and red lie where the space's author says."""
    places = _oklab(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(places, [[1, 0, 0], [0, 0, 0], [0.628, 0.225, 0.126]], atol=2e-3)
