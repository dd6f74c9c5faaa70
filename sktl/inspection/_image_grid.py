"""Grids of images with titles inside one axes."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED
from sktl.inspection._decoded_images import as_rgb
from sktl.inspection._text_layout import wrapped

_SIZES = (9.0, 8.0, 7.0)  # font sizes of titles in points, the preferred first
_LINE = 1.35  # line height relative to the font size
_MOST_LINES = 5  # maximum lines of a title: ImageNet class names have up to 130 letters
_GAP = 8.0  # between two images, in points of 1/72 inch, as all lengths here


class Arrangement(NamedTuple):
    """Layout of images with titles above them.

    Attributes
    ----------
    n_columns : int
        Number of images per row.
    side : float
        Height of the images, in points.
    titles : list of str
        Titles, broken into lines that fit.
    size : float
        Font size of the titles.
    heights : list of float
        Height of the titles of each row.
    """

    n_columns: int
    side: float
    titles: list[str]
    size: float
    heights: list[float]


def arrange(titles: Sequence[str], width: float, height: float, aspect: float = 1.0) -> Arrangement:
    """Find the number of columns and the font size that make the images largest.

    Parameters
    ----------
    titles : sequence of str
        Title of each image, with one or more paragraphs.
    width, height : float
        Available size in points.
    aspect : float, default=1.0
        Ratio of width to height of a panel.
    """
    n = max(1, len(titles))
    arrangements = (
        _arrangement(titles, width, height, aspect, n_columns, size) for n_columns in range(1, n + 1) for size in _SIZES
    )
    # A smaller font or a cut name must make the images much larger.
    return max(
        arrangements, key=lambda found: (found.side * found.size * (0.7 if _is_cut(found) else 1), -found.n_columns)
    )


def height_of(titles: Sequence[str], width: float, side: float, n_columns: int) -> float:
    """Return the height of images of a given side with their titles, in points."""
    heights = _title_heights(
        [_in_lines(title, width / n_columns - _GAP, _SIZES[0]) for title in titles], n_columns, _SIZES[0]
    )
    return sum(heights) + len(heights) * (side + _GAP)


def image_grid(ax: Any, titles: Sequence[str], aspect: float = 1.0) -> list[Any]:
    """Divide ``ax`` into a grid of panels with titles, and return their axes.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes to divide. Its current size determines the layout; its frame is hidden.
    titles : sequence of str
        Title of each panel. Long titles are broken into lines, in a smaller font if
        necessary.
    aspect : float, default=1.0
        Ratio of width to height of a panel.
    """
    ax.set_axis_off()
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # computes the size of the axes
    extent = ax.get_window_extent()
    width, height = 72 * extent.width / figure.dpi, 72 * extent.height / figure.dpi
    found = arrange(titles, width, height, aspect)
    side = max(found.side, 1.0)
    # As children of their axes, the panels follow it in every layout of the figure.
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
    """Draw a uint8 image (height, width, channels), or a note instead of None."""
    if photo is None:
        panel.text(0.5, 0.5, "cannot be read", ha="center", va="center", color=MUTED, transform=panel.transAxes)
    else:
        panel.imshow(as_rgb(photo), extent=extent)


def image_title(true: Any, predicted: Any, probability: "float | None", form: str = ".2f") -> str:
    """Return the predicted label, its probability, and the true label if different."""
    p = "" if probability is None else f" ({probability:{form}})"
    return f"{predicted}{p}" if true is None or true == predicted else f"{predicted}{p}\ntrue: {true}"


def check_n_images(n_images: Any) -> None:
    """Check the number of images to show.

    Raises
    ------
    InputError
        If it is not an int of at least 1.
    """
    if isinstance(n_images, bool) or not isinstance(n_images, Integral) or n_images < 1:
        raise InputError(f"The 'n_images' parameter must be an int of at least 1. Got {n_images!r} instead.")


def _arrangement(
    titles: Sequence[str], width: float, height: float, aspect: float, n_columns: int, size: float
) -> Arrangement:
    """Return the layout with the largest images for a number of columns."""
    broken = [_in_lines(title, width / n_columns - _GAP, size) for title in titles]
    heights = _title_heights(broken, n_columns, size)
    side = min((height - sum(heights)) / max(1, len(heights)) - _GAP, (width / n_columns - _GAP) / aspect)
    return Arrangement(n_columns, side, broken, size, heights)


def _is_cut(arrangement: Arrangement) -> bool:
    return any(title.endswith("…") or "…\n" in title for title in arrangement.titles)


def _in_lines(title: str, width: float, size: float) -> str:
    """Break each paragraph of a title into lines that fit."""
    paragraphs = title.split("\n")
    return "\n".join(wrapped(part, width, size, max(1, _MOST_LINES // len(paragraphs))) for part in paragraphs)


def _title_heights(titles: Sequence[str], n_columns: int, size: float) -> list[float]:
    """Return the height of the titles of each row."""
    n_lines = [title.count("\n") + 1 for title in titles]
    n_rows = math.ceil(len(titles) / n_columns)
    return [_LINE * size * max(n_lines[row * n_columns : (row + 1) * n_columns]) + 3 for row in range(n_rows)]
