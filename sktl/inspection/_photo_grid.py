"""Pictures side by side in the place of one axes, each with a line or two above it."""

import math
from typing import Any, NamedTuple

import numpy as np

from sktl.inspection._axes import MUTED
from sktl.inspection._labels import short
from sktl.inspection._photos import in_colour


class PhotoGrid(NamedTuple):
    """Where pictures are drawn.

    Parameters
    ----------
    panels : list of matplotlib Axes
        One for each picture.
    n_characters : int
        How many characters fit above a picture.
    size : int
        Of their font.
    """

    panels: list[Any]
    n_characters: int
    size: int


def photo_grid(ax: Any, n_photos: int) -> PhotoGrid:
    """Panels in rows and columns in the place of ``ax``, whose frame vanishes, with room for two lines above each."""
    ax.set_axis_off()
    figure = ax.figure.canvas.figure
    n_columns = math.ceil(math.sqrt(n_photos)) or 1
    n_rows = math.ceil(n_photos / n_columns)
    figure.draw_without_rendering()  # a layout knows the size of its axes only then
    extent = ax.get_window_extent()
    width, height = (72 * extent.width / figure.dpi / n_columns, 72 * extent.height / figure.dpi / max(1, n_rows))
    size = 9 if width > 100 else 7
    share = max(0.5, 1 - (2.4 * size + 7) / height)  # of a row's height: the rest is for two lines
    # Children of their axes: so they keep to its place in every layout of the figure.
    panels = []
    for index in range(n_photos):
        row, column = divmod(index, n_columns)
        box = [(column + 0.04) / n_columns, 1 - (row + 0.99) / n_rows, 0.92 / n_columns, (share - 0.02) / n_rows]
        panel = ax.inset_axes(box, anchor="N")  # titles of a row on one line
        panel.set_axis_off()
        panels.append(panel)
    return PhotoGrid(panels, int(width / (0.6 * size)), size)


def show_photo(panel: Any, photo: "np.ndarray | None") -> None:
    """Draw a picture of any number of channels, (height, width, channels), uint8; None says that there is none."""
    if photo is None:
        panel.text(0.5, 0.5, "cannot be read", ha="center", va="center", color=MUTED, transform=panel.transAxes)
    else:
        panel.imshow(in_colour(photo))


def photo_title(true: Any, predicted: Any, probability: "float | None", n_characters: int) -> str:
    """What it is and what it was taken for, in one line of so many characters or in two."""
    p = "" if probability is None else f" ({probability:.2f})"
    n_name = max(6, n_characters - len(p) - 2)
    line = f"{short(true, n_name)} → {short(predicted, n_name)}{p}"
    return line if len(line) <= n_characters else f"{short(true, n_name)}\n→ {short(predicted, n_name)}{p}"
