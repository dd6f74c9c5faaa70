"""Pictures in the place of one axes: how many, where, with which titles."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sktl.inspection._photo_grid import photo_grid, photo_title, show_photo


@pytest.mark.parametrize(("n_photos", "n_columns"), [(0, 0), (1, 1), (2, 2), (5, 3), (9, 3), (10, 4)])
def test_panels_lie_side_by_side(n_photos, n_columns):
    """There is a panel for each picture, in nearly as many columns as rows, and none covers another."""
    figure, ax = plt.subplots()
    panels = photo_grid(ax, n_photos).panels
    figure.draw_without_rendering()
    boxes = [panel.get_position() for panel in panels]
    assert len({round(box.x0, 6) for box in boxes}) == n_columns
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert not ax.axison


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_picture_that_is_shown(n_channels):
    """It has its own colours; grey is shown as grey."""
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, n_channels), dtype=np.uint8)
    _, ax = plt.subplots()
    show_photo(ax, photo)
    np.testing.assert_array_equal(ax.images[0].get_array(), np.broadcast_to(photo, (4, 6, 3)))


def test_no_picture():
    """What cannot be read is a line that says so."""
    _, ax = plt.subplots()
    show_photo(ax, None)
    assert [text.get_text() for text in ax.texts] == ["cannot be read"]


def test_titles_fit():
    """A title takes one line where it fits, else two."""
    assert photo_title("ant", "bee", 0.5, 20) == "ant → bee (0.50)"
    assert photo_title("ant", "bee", None, 20) == "ant → bee"
    assert photo_title("wood ant", "honey bee", 0.5, 20) == "wood ant\n→ honey bee (0.50)"
