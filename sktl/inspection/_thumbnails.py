"""Thumbnails at the points of a scatter plot, as far as there is room."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sktl.inspection._decoded_images import as_rgb

_BORDER = 2.0  # in points of 1/72 inch, as all lengths here
_GAP = 3.0  # between two thumbnails
_SHARPNESS = 4  # pixels per point: enough for 288 dpi


def place_thumbnails(
    ax: Any, points: np.ndarray, photos: Sequence["np.ndarray | None"], *, size: float, most: int, colors: Sequence[Any]
) -> tuple[list[int], list[Any]]:
    """Draw thumbnails that neither overlap nor leave the frame.

    Each thumbnail is the one farthest from those already drawn, so that a few represent
    crowded and sparse regions alike.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes with its final limits. Its current size determines the available room.
    points : ndarray of shape (n, 2)
        Coordinates of the images.
    photos : sequence of ndarray of shape (height, width, channels), dtype uint8
        Images, accessed only if they are drawn; None for one that cannot be read.
    size : float
        Length of the longer side.
    most : int
        Maximum number of thumbnails.
    colors : sequence of matplotlib colors
        Colors of the borders.

    Returns
    -------
    positions : list of int
        Indices of the drawn images.
    boxes : list of matplotlib AnnotationBbox
        The thumbnails.
    """
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # the layout determines the size of the axes
    scale = figure.dpi / 72
    side = (size + 2 * _BORDER) * scale
    pixels = ax.transData.transform(points)
    inside = (np.abs(pixels - ax.bbox.get_points().mean(0)) <= ax.bbox.size / 2 - side / 2).all(1)
    # Squares do not overlap if their centers are this far apart along one axis.
    gap = side + _GAP * scale
    distances = np.where(inside, np.inf, -np.inf)  # distance to the nearest thumbnail
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
    """Draw one image with a border at a point."""
    offsetbox = importlib.import_module("matplotlib.offsetbox")
    thumbnail = Image.fromarray(as_rgb(photo))
    thumbnail.thumbnail((int(_SHARPNESS * size), int(_SHARPNESS * size)))  # saves memory of the figure
    image = offsetbox.OffsetImage(np.asarray(thumbnail), zoom=size / max(thumbnail.size))
    # A filled box behind the image: half of an outline would be hidden.
    plate = {"facecolor": color, "linewidth": 0}
    box = offsetbox.AnnotationBbox(image, tuple(point), pad=_BORDER, fontsize=1, bboxprops=plate, zorder=4)
    box.set_in_layout(False)  # the layout can ignore it, since it is inside the frame
    return ax.add_artist(box)
