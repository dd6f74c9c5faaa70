"""Images side by side in the place of one axes, each with some lines above it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sktl.inspection._axes import MUTED
from sktl.inspection._decoded_images import as_rgb
from sktl.inspection._text_layout import wrapped

_SIZES = (9.0, 8.0, 7.0)  # of the titles' font in points, the larger the better
_LINE = 1.35  # height of a line, in sizes of its font
_MOST_LINES = 5  # of a title: class names of ImageNet have up to 130 letters
_GAP = 8.0  # between two images, in points of 1/72 inch, as all lengths here


class Arrangement(NamedTuple):
    """Where images go that have titles above them.

    Parameters
    ----------
    n_columns : int
        Images in a row.
    side : float
        Height of the images, in points.
    titles : list of str
        In lines that fit.
    size : float
        Of their font.
    heights : list of float
        How much room the titles of each row take.
    """

    n_columns: int
    side: float
    titles: list[str]
    size: float
    heights: list[float]


def arrange(titles: Sequence[str], width: float, height: float, aspect: float = 1.0) -> Arrangement:
    """The number of columns, and the size of the titles, with which images are the largest.

    Parameters
    ----------
    titles : sequence of str
        One for each image, of one paragraph or several.
    width, height : float
        The room for all of them, in points.
    aspect : float, default=1.0
        Width of a place by its height.

    Returns
    -------
    Arrangement
    """
    n = max(1, len(titles))
    arrangements = (
        _arrangement(titles, width, height, aspect, n_columns, size) for n_columns in range(1, n + 1) for size in _SIZES
    )
    # A smaller font, or a name that is cut, has to make the images much larger to be worth it.
    return max(
        arrangements, key=lambda found: (found.side * found.size * (0.7 if _is_cut(found) else 1), -found.n_columns)
    )


def height_of(titles: Sequence[str], width: float, side: float, n_columns: int) -> float:
    """How high a place has to be for images of a side, in rows of so many, with their titles in the largest font."""
    heights = _title_heights(
        [_in_lines(title, width / n_columns - _GAP, _SIZES[0]) for title in titles], n_columns, _SIZES[0]
    )
    return sum(heights) + len(heights) * (side + _GAP)


def image_grid(ax: Any, titles: Sequence[str], aspect: float = 1.0) -> list[Any]:
    """Panels in rows and columns in the place of ``ax``, whose frame vanishes, with a title above each.

    Parameters
    ----------
    ax : matplotlib Axes
        Its size as it is now decides how the panels are arranged.
    titles : sequence of str
        One for each panel; they are broken into lines that fit, and their font is smaller where there is little room.
    aspect : float, default=1.0
        Width of a panel by its height.

    Returns
    -------
    list of matplotlib Axes
    """
    ax.set_axis_off()
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # a layout knows the size of its axes only then
    extent = ax.get_window_extent()
    width, height = 72 * extent.width / figure.dpi, 72 * extent.height / figure.dpi
    found = arrange(titles, width, height, aspect)
    side = max(found.side, 1.0)
    # Children of their axes: so they keep to its place in every layout of the figure.
    panels, top = [], height
    for row, title_height in enumerate(found.heights):
        top -= title_height + side
        for column in range(min(found.n_columns, len(titles) - row * found.n_columns)):
            left = (column + 0.5) * width / found.n_columns - aspect * side / 2
            panel = ax.inset_axes([left / width, top / height, aspect * side / width, side / height], anchor="N")
            panel.set_axis_off()
            title = found.titles[row * found.n_columns + column]
            panel.set_title(title, fontsize=found.size, pad=3, linespacing=1.1)
            panels.append(panel)
        top -= _GAP
    return panels


def show_image(panel: Any, photo: "np.ndarray | None", extent: "tuple[float, ...] | None" = None) -> None:
    """Draw an image of any number of channels, (height, width, channels), uint8; None says that there is none."""
    if photo is None:
        panel.text(0.5, 0.5, "cannot be read", ha="center", va="center", color=MUTED, transform=panel.transAxes)
    else:
        panel.imshow(as_rgb(photo), extent=extent)


def image_title(true: Any, predicted: Any, probability: "float | None") -> str:
    """What it was taken for, how surely, and below what it is, where that is something else; None is not known."""
    p = "" if probability is None else f" ({probability:.2f})"
    return f"{predicted}{p}" if true is None or true == predicted else f"{predicted}{p}\ntrue: {true}"


def _arrangement(
    titles: Sequence[str], width: float, height: float, aspect: float, n_columns: int, size: float
) -> Arrangement:
    """The largest images in so many columns."""
    broken = [_in_lines(title, width / n_columns - _GAP, size) for title in titles]
    heights = _title_heights(broken, n_columns, size)
    side = min((height - sum(heights)) / max(1, len(heights)) - _GAP, (width / n_columns - _GAP) / aspect)
    return Arrangement(n_columns, side, broken, size, heights)


def _is_cut(arrangement: Arrangement) -> bool:
    return any(title.endswith("…") or "…\n" in title for title in arrangement.titles)


def _in_lines(title: str, width: float, size: float) -> str:
    """Each paragraph of a title in lines that fit."""
    paragraphs = title.split("\n")
    return "\n".join(wrapped(part, width, size, max(1, _MOST_LINES // len(paragraphs))) for part in paragraphs)


def _title_heights(titles: Sequence[str], n_columns: int, size: float) -> list[float]:
    """What the titles of each row need above their images."""
    n_lines = [title.count("\n") + 1 for title in titles]
    n_rows = math.ceil(len(titles) / n_columns)
    return [_LINE * size * max(n_lines[row * n_columns : (row + 1) * n_columns]) + 3 for row in range(n_rows)]
