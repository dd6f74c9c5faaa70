"""Maps over images: beside each image lies the same one under its map, in colors that let it be seen."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal

from sktl.inspection._overlays import draw_contours, draw_overlays, draw_scale, see_through


@pytest.fixture
def drawn():
    """Two oblong images with maps; the axes, the panels and the maps as they were drawn."""
    rng = np.random.default_rng(0)
    images, maps = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8), rng.uniform(size=(2, 8, 12))
    maps[1] = 0
    _, ax = plt.subplots(layout="constrained")
    return images, maps, ax, *draw_overlays(ax, ["one", "two"], images, maps, vmin=0, vmax=2, cmap="viridis")


def test_images_and_maps(drawn):
    """Left the image, right the image again and over it the map, all of one size, on one scale."""
    images, maps, _, panels, overlays = drawn
    for panel, overlay, image, values in zip(panels, overlays, images, maps, strict=True):
        alone, below, above = panel.images
        assert_array_equal(alone.get_array(), image)
        assert_array_equal(below.get_array(), image)
        assert above is overlay
        assert_array_equal(overlay.get_array(), values)
        assert overlay.get_clim() == (0, 2)
        assert below.get_extent() == overlay.get_extent()
        left, right = alone.get_extent(), below.get_extent()
        assert right[0] - left[1] == pytest.approx(0.04 * 12)
        assert right[1] - right[0] == left[1] - left[0]
        assert panel.get_xlim() == (0, right[1])
    assert [panel.get_title() for panel in panels] == ["one", "two"]


def test_contours(drawn):
    """A line runs between the pixels above the level and those below it; a map that has only one kind has no line."""
    _, maps, _, panels, overlays = drawn
    maps[0] = 0
    maps[0, 2:4, 5:9] = 1
    overlays[0].set_data(maps[0])
    draw_contours(panels, overlays, 0.5)
    (lines,) = panels[0].collections
    x, y = lines.get_paths()[0].vertices.T
    left = overlays[0].get_extent()[0]
    assert (x.min() - left, x.max() - left, y.min(), y.max()) == pytest.approx((5, 9, 2, 4))
    assert not panels[1].collections


def test_opacity():
    """The lowest value is transparent and the highest as opaque as wanted, in the colors of the map by its name."""
    cmap = see_through("viridis", 0.5)
    assert_allclose(cmap(np.array([0.0, 0.25, 1.0]))[:, 3], [0, 0.25, 0.5], atol=2e-3)
    assert_allclose(cmap(1.0)[:3], plt.get_cmap("viridis")(1.0)[:3])
    assert cmap.name == "viridis"


def test_scale(drawn):
    """The color bar has the limits of the maps, and follows the axes."""
    *_, ax, _, overlays = drawn
    bar = draw_scale(ax, overlays[0], "distance")
    assert (bar.vmin, bar.vmax, bar.ax.get_ylabel()) == (0, 2, "distance")
    assert bar.ax in ax.child_axes
