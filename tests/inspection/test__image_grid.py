"""Pictures in the place of one axes: how many, where, with which titles."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sktl.inspection._image_grid import arrange, check_n_images, height_of, image_grid, image_title, show_image


def boxes_of(panels):
    panels[0].figure.canvas.draw()
    return [panel.get_window_extent() for panel in panels]


@pytest.mark.parametrize(("n_images", "n_columns"), [(0, 0), (1, 1), (2, 2), (5, 3), (9, 3), (10, 4)])
def test_panels_lie_side_by_side(n_images, n_columns):
    """There is a panel for each image, in the columns with which they are largest, and none covers another."""
    figure, ax = plt.subplots()
    panels = image_grid(ax, ["name"] * n_images)
    figure.draw_without_rendering()
    boxes = [panel.get_position() for panel in panels]
    assert len({round(box.x0, 6) for box in boxes}) == n_columns
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert not ax.axison


LONG = "American Staffordshire terrier, Staffordshire terrier, American pit bull terrier, pit bull terrier (0.52)"


@pytest.mark.parametrize("size", [(9, 6), (4, 8), (8, 3)])
def test_long_names_are_whole_and_cover_nothing(size):
    """A name in several lines lies above its own image, inside the place, and is not cut where there is room."""
    _, ax = plt.subplots(figsize=size)
    panels = image_grid(ax, [LONG, "ant (0.90)", f"bee (0.80)\ntrue: {LONG}", "wasp (1.00)"])
    for panel in panels:
        panel.imshow(np.zeros((4, 4, 3), np.uint8))
    boxes, place = boxes_of(panels), ax.get_window_extent().padded(1)
    texts = [panel.title.get_window_extent() for panel in panels]
    for text in texts:
        assert place.x0 <= text.x0 <= text.x1 <= place.x1
        assert text.y1 <= place.y1
        assert not any(text.overlaps(box) for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(texts) for other in texts[:i])
    if size == (9, 6):
        assert " ".join(panels[0].get_title().split()) == LONG


@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_a_new_figure_has_room_for_its_images(aspect):
    """The height that is asked for is the one with which images have the side that was meant."""
    titles = [LONG, "ant", "bee", "wasp"]
    height = height_of(titles, 2 * 150 * aspect, 100, 2)
    found = arrange(titles, 2 * 150 * aspect, height, aspect)
    assert found.side >= 99


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_picture_that_is_shown(n_channels):
    """It has its own colours; grey is shown as grey."""
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, n_channels), dtype=np.uint8)
    _, ax = plt.subplots()
    show_image(ax, photo)
    np.testing.assert_array_equal(ax.images[0].get_array(), np.broadcast_to(photo, (4, 6, 3)))


def test_no_picture():
    """What cannot be read is a line that says so."""
    _, ax = plt.subplots()
    show_image(ax, None)
    assert [text.get_text() for text in ax.texts] == ["cannot be read"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("bee", "ant", 0.5), "ant (0.50)\ntrue: bee"),
        (("bee", "ant", None), "ant\ntrue: bee"),
        (("ant", "ant", 0.5), "ant (0.50)"),
        ((None, "ant", 0.5), "ant (0.50)"),
        (("ant", "ant", -0.01234, ".3g"), "ant (-0.0123)"),
    ],
)
def test_titles(names, expected):
    """What it was taken for comes first; what it is stands below, where that is something else and known."""
    assert image_title(*names) == expected


@pytest.mark.parametrize("n_images", [0, -1, 1.5, True, None])
def test_no_number_of_images(n_images):
    """At least one image is drawn."""
    with pytest.raises(ValueError, match=f"'n_images' parameter must be an int of at least 1. Got {n_images}"):
        check_n_images(n_images)
    check_n_images(np.int64(1))
