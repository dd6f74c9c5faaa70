"""Thumbnails: where there is room, the farthest first, none on another one or beyond the frame."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from sktl.inspection._thumbnails import place_thumbnails


def pictures(n, height=12, width=20):
    return list(np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def place(points, photos=None, *, size=30, most=100, layout="constrained"):
    """A picture with limits from 0 to 1 of 360 x 288 points, and its thumbnails."""
    figure, ax = plt.subplots(figsize=(5, 4), layout=layout)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="y\nin two lines")
    points = np.asarray(points, float)
    photos = pictures(len(points)) if photos is None else photos
    positions, boxes = place_thumbnails(
        ax, points, photos, size=size, most=most, colors=[f"C{n % 10}" for n in range(len(points))]
    )
    figure.canvas.draw()
    return ax, positions, boxes


def extents(boxes):
    return [box.get_window_extent() for box in boxes]


def gap(one, other):
    """How far two boxes are apart, in pixels; less than zero where they overlap."""
    return max(one.x0 - other.x1, other.x0 - one.x1, one.y0 - other.y1, other.y0 - one.y1)


@pytest.mark.parametrize("layout", ["constrained", "tight", None])
def test_nothing_is_covered(layout):
    """Of many pictures in a heap those are shown that lie apart and inside, and then there is no room for another."""
    points = np.random.default_rng(1).uniform(-0.1, 1.1, (300, 2))
    ax, positions, boxes = place(points, layout=layout)
    assert 20 < len(boxes) < 80
    found = extents(boxes)
    assert min(gap(a, b) for i, a in enumerate(found) for b in found[:i]) >= 1
    for box in found:
        assert min(box.x0 - ax.bbox.x0, box.y0 - ax.bbox.y0, ax.bbox.x1 - box.x1, ax.bbox.y1 - box.y1) >= 0
    side = 37 * ax.figure.dpi / 72  # the picture, its border on both sides, and the gap
    pixels = ax.transData.transform(points)
    left = [p for p in pixels if (np.abs(p - ax.bbox.get_points().mean(0)) < ax.bbox.size / 2 - side / 2).all()]
    assert all(np.abs(p - pixels[positions]).max(1).min() < side + 1 for p in left)


def test_each_lies_where_it_belongs_in_its_size_and_colour():
    """The middle is the point, the longer side is as asked for, the pixels are the picture's, the border is its own."""
    points = [(0.2, 0.3), (0.7, 0.8)]
    photos = pictures(2)
    ax, positions, boxes = place(points, photos, size=40)
    assert sorted(positions) == [0, 1]
    scale = ax.figure.dpi / 72
    for position, box in zip(positions, boxes, strict=True):
        extent = box.get_window_extent()
        middle = [(extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2]
        np.testing.assert_allclose(middle, ax.transData.transform(points[position]), atol=1)
        assert (extent.width, extent.height) == pytest.approx((44 * scale, 28 * scale), abs=1.5)
        np.testing.assert_array_equal(box.offsetbox.get_data(), photos[position])
        assert box.patch.get_facecolor() == to_rgba(f"C{position}")


def test_the_farthest_first():
    """The first is nearest to the middle, the next ones lie farthest from those before; equal points are shown once."""
    points = [(0.5, 0.5), (0.52, 0.5), (0.92, 0.5), (0.5, 0.5), (0.1, 0.45), (0.6, 0.9)]
    assert place(points)[1] == [0, 2, 4, 5]
    assert place(points, most=2)[1] == [0, 2]


def test_one_that_cannot_be_read_leaves_its_place_to_others():
    """Its neighbour is shown; and pictures for which there is no room are never decoded."""
    asked = []

    class Photos(list):
        def __getitem__(self, position):
            asked.append(position)
            return super().__getitem__(position)

    photos = Photos([None, *pictures(4)])
    _, positions, _ = place([(0.5, 0.5), (0.51, 0.5), (0.49, 0.5), (0.2, 0.4), (0.9, 0.9)], photos)
    assert positions[0] in (1, 2)
    assert sorted(positions[1:]) == [3, 4]
    assert asked == [0, *positions]


def test_large_photos_are_made_small():
    """The figure keeps no more pixels than it can show; the sides keep their ratio."""
    _, _, (box,) = place([(0.5, 0.5)], pictures(1, 300, 900))
    assert box.offsetbox.get_data().shape == (40, 120, 3)


def test_no_room_at_all():
    """Pictures larger than the frame are not shown."""
    assert place([(0.5, 0.5)], size=500)[1:] == ([], [])


def test_grey_is_grey():
    """A picture of one channel is no colour map's business."""
    photo = np.random.default_rng(0).integers(0, 256, (4, 5, 1), dtype=np.uint8)
    _, _, (box,) = place([(0.5, 0.5)], [photo])
    np.testing.assert_array_equal(box.offsetbox.get_data(), photo.repeat(3, axis=2))
