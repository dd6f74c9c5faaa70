"""Small pictures at the points that they belong to, where there is room for them."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sktl.inspection._decoded_images import as_rgb

_BORDER = 2.0  # in points of 1/72 inch, as all lengths here
_GAP = 3.0  # between two of them
_SHARPNESS = 4  # pixels that are kept for each point: enough for 288 per inch


def place_thumbnails(
    ax: Any, points: np.ndarray, photos: Sequence["np.ndarray | None"], *, size: float, most: int, colors: Sequence[Any]
) -> tuple[list[int], list[Any]]:
    """Show pictures where they lie, none of which covers another one or leaves the frame.

    Each is the one that lies farthest from those that are shown already, so that a few show all of a map, what lies
    alone as well as what lies in a crowd; this ends where there is no room for another one.

    Parameters
    ----------
    ax : matplotlib Axes
        With its final limits. There is room, or not, for the size that it has now.
    points : ndarray of shape (n, 2)
        Where the pictures lie.
    photos : sequence of ndarray of shape (height, width, channels), dtype uint8
        One for each point, asked for only where there is room; None for one that cannot be read.
    size : float
        Of their longer sides.
    most : int
        How many to show at most.
    colors : sequence of matplotlib colours
        Of their borders.

    Returns
    -------
    positions : list of int
        Which ones are shown.
    boxes : list of matplotlib AnnotationBbox
        What shows them.
    """
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # the layout decides how large the axes are
    scale = figure.dpi / 72
    side = (size + 2 * _BORDER) * scale
    pixels = ax.transData.transform(points)
    inside = (np.abs(pixels - ax.bbox.get_points().mean(0)) <= ax.bbox.size / 2 - side / 2).all(1)
    # Squares do not overlap where their middles are so far apart along one of the axes.
    gap = side + _GAP * scale
    distances = np.where(inside, np.inf, -np.inf)  # from the nearest that is shown
    from_middle = np.abs(pixels - np.median(pixels, axis=0)).max(1)
    positions: list[int] = []
    boxes: list[Any] = []
    while len(positions) < most and (distances >= gap).any():
        farthest = np.flatnonzero(distances == distances.max())
        position = int(farthest[from_middle[farthest].argmin()])
        photo = photos[position]
        if photo is not None:
            positions.append(position)
            boxes.append(_add(ax, points[position], photo, size, colors[position]))
            distances = np.minimum(distances, np.abs(pixels - pixels[position]).max(1))
        distances[position] = -np.inf
    return positions, boxes


def _add(ax: Any, point: np.ndarray, photo: np.ndarray, size: float, color: Any) -> Any:
    """One picture, its longer side of this size, with a border."""
    offsetbox = importlib.import_module("matplotlib.offsetbox")
    picture = Image.fromarray(as_rgb(photo))
    picture.thumbnail((int(_SHARPNESS * size), int(_SHARPNESS * size)))  # the figure need not keep the whole one
    image = offsetbox.OffsetImage(np.asarray(picture), zoom=size / max(picture.size))
    # A plate behind the picture: a line around it would lie half below it.
    plate = {"facecolor": color, "linewidth": 0}
    box = offsetbox.AnnotationBbox(image, tuple(point), pad=_BORDER, fontsize=1, bboxprops=plate, zorder=4)
    box.set_in_layout(False)  # it lies inside the frame
    return ax.add_artist(box)
