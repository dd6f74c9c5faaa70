"""Text that fits: in titles, in legends and next to points."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sktl._stores import register_store

Boxes = np.ndarray  # (n, 2, 2): [[x0, y0], [x1, y1]] of each, in pixels

_LONG = 16  # maximum characters of a name
_IN_LEGEND = 24  # maximum characters of a name in a legend

_GAP = 3.0  # between a marker and its label
_RINGS = (0.0, 10.0, 22.0, 36.0, 52.0, 70.0)  # additional distances of a label
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # the best readable positions
_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))
_BETWEEN = tuple((x, y) for one in (0.5, -0.5) for other in (1, -1) for x, y in ((one, other), (other, one)))
_ALIGNMENTS = {"ha": {0.0: "left", 0.5: "center", 1.0: "right"}, "va": {0.0: "bottom", 0.5: "center", 1.0: "top"}}


def short(label: Any, n_characters: int = _LONG) -> str:
    """Shorten a name, and escape dollar signs, which would start a formula."""
    name = " ".join(str(label).split())
    name = name if len(name) <= n_characters else f"{name[: n_characters - 1]}…"
    return name.replace("$", r"\$")


def in_legend(label: Any) -> str:
    """Shorten a name for a legend, and keep names that start with an underscore."""
    name = short(label, _IN_LEGEND)
    return f" {name}" if name.startswith("_") else name


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Return the width of a line of text, in points of 1/72 inch."""
    properties = importlib.import_module("matplotlib.font_manager").FontProperties(size=size)
    measure = importlib.import_module("matplotlib.textpath").text_to_path.get_text_width_height_descent
    return float(measure(text, properties, False)[0])


register_store("widths of text in figures", text_width.cache_clear)


def wrapped(text: Any, width: float, size: float, n_lines: int) -> str:
    """Break a text into at most ``n_lines`` lines, and escape dollar signs.

    Parameters
    ----------
    text : object
        Text to break at spaces.
    width : float
        Width of a line, in points of 1/72 inch.
    size : float
        Font size, in points.
    n_lines : int
        Maximum number of lines.
    """
    lines = [""]
    for word in str(text).split():
        for part in _that_fit(word, width, size):
            longer = f"{lines[-1]} {part}".strip()
            if text_width(longer, size) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(part)
    if len(lines) > n_lines:
        last = f"{lines[n_lines - 1]}…"
        while text_width(last, size) > width and len(last) > 2:
            last = f"{last[:-2]}…"
        lines = [*lines[: n_lines - 1], last]
    return "\n".join(lines).replace("$", r"\$")


def _that_fit(word: str, width: float, size: float) -> list[str]:
    """Split a word into parts that are not wider than a line."""
    if text_width(word, size) <= width:
        return [word]
    parts = [""]
    for letter in word:
        if parts[-1] and text_width(parts[-1] + letter, size) > width:
            parts.append("")
        parts[-1] += letter
    return parts


class Place(NamedTuple):
    """Position of a label relative to its point."""

    offset: np.ndarray  # in points of 1/72 inch
    anchor: np.ndarray  # point of the label at the offset: (0, 0) is its lower left corner
    is_far: bool  # if True, a line connects the label to its point


def label_points(
    ax: Any,
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    *,
    radius: float,
    colors: Sequence[Any],
    lines: Sequence[Any] = (),
) -> list[Any]:
    """Write a name next to each point, without overlaps as far as possible.

    A name that is far from its point is connected to it by a thin line.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes with its final limits. Its current size determines the positions.
    x, y : sequence of float
        Coordinates of the points.
    names : sequence of str
        Name of each point.
    radius : float
        Radius of the markers, in points of 1/72 inch, as all lengths here.
    colors : sequence of matplotlib colors
        Colors of the markers. Names get more contrast to the background.
    lines : sequence of ((x, y), (x, y)), default=()
        Existing lines, which names and their lines should not cross.

    Returns
    -------
    list of matplotlib Annotation
    """
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # the layout determines the size of the axes
    scale = figure.dpi / 72
    points = np.column_stack([x, y])
    centers = ax.transData.transform(points)
    frame = _grown(ax.bbox.get_points()[None], -scale)
    taken = _grown(np.stack([centers, centers], 1), (radius + 1) * scale)
    crossed = np.concatenate([np.empty((0, 2, 2)), *(_along(*ax.transData.transform(line)) for line in lines)])
    labels = []
    for point, center, name, color in zip(points, centers, names, colors, strict=True):
        size = _text_size(ax, name)
        least = None
        for candidate in _places(radius):
            boxes = _boxes(center, candidate, size, radius, scale)
            cost = _cost(*boxes, frame, taken, crossed)
            if least is None or cost < least:  # of equal costs, the nearest
                least, place, (text, line) = cost, candidate, boxes
            if least == (0, 0):
                break
        taken, crossed = np.concatenate([taken, text]), np.concatenate([crossed, line])
        labels.append(_write(ax, point, name, place, radius, _text_color(ax, color)))
    return labels


def _text_color(ax: Any, color: Any) -> tuple[float, ...]:
    """Return a color with more contrast to the background than the marker."""
    colors = importlib.import_module("matplotlib.colors")
    background = np.ones(3)
    for patch in (ax.figure.canvas.figure, ax):  # blend transparent backgrounds, the last one with white
        *rgb, alpha = colors.to_rgba(patch.get_facecolor())
        background = alpha * np.array(rgb) + (1 - alpha) * background
    return tuple(0.7 * np.array(colors.to_rgb(color)) + 0.3 * float(background.mean() < 0.5))


def _places(radius: float) -> Iterator[Place]:
    """Yield all positions around a marker, from near to far."""
    for further in _RINGS:
        for direction in np.array([*_SIDES, *_CORNERS, *(_BETWEEN if further else ())]):
            yield Place(direction * (radius + _GAP + further), 0.5 - 0.5 * np.sign(direction), further > 0)


def _text_size(ax: Any, text: str) -> np.ndarray:
    """Return the width and height of a text in pixels."""
    probe = ax.annotate(text, (0.5, 0.5), xycoords="axes fraction", fontsize="small")
    extent = probe.get_window_extent()
    probe.remove()
    return np.array([extent.width, extent.height])


def _boxes(center: np.ndarray, place: Place, size: np.ndarray, radius: float, scale: float) -> tuple[Boxes, Boxes]:
    """Return the box of a label's text, and pixel boxes along the line to its point."""
    low = center + place.offset * scale - place.anchor * size
    reach = np.abs(place.offset).max()
    shares = np.arange(radius + 2, reach if place.is_far else 0, 2) / reach  # the line starts outside the marker
    pixels = center + shares[:, None] * place.offset * scale
    return _grown(np.stack([low, low + size])[None], scale), _grown(np.stack([pixels, pixels], 1), 0.5)


def _along(start: np.ndarray, end: np.ndarray) -> Boxes:
    """Return pixel boxes along a line."""
    shares = np.linspace(0, 1, 2 + int(np.abs(end - start).max() / 2))[:, None]
    pixels = start + shares * (end - start)
    return _grown(np.stack([pixels, pixels], 1), 0.5)


def _cost(text: Boxes, line: Boxes, frame: Boxes, taken: Boxes, lines: Boxes) -> tuple[int, int]:
    """Return the pixels of a text that are not free, and those of crossed lines."""
    covered = _common(text, text) - _common(text, frame) + _common(text, taken)
    return covered, _common(text, lines) + _common(line, np.concatenate([taken, lines]))


def _common(ones: Boxes, others: Boxes) -> int:
    """Return the area that boxes share with others, in whole pixels."""
    low = np.maximum(ones[:, None, 0], others[:, 0])
    high = np.minimum(ones[:, None, 1], others[:, 1])
    return round(np.maximum(high - low, 0).prod(2).sum())


def _grown(boxes: Boxes, by: float) -> Boxes:
    return boxes + np.array([[-by], [by]])


def _write(ax: Any, point: np.ndarray, name: str, place: Place, radius: float, color: Any) -> Any:
    line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": radius}
    line["relpos"] = tuple(place.anchor)  # the line ends at the nearest corner or side of the text
    return ax.annotate(
        name,
        point,
        place.offset,
        textcoords="offset points",
        fontsize="small",
        color=color,
        ha=_ALIGNMENTS["ha"][float(place.anchor[0])],
        va=_ALIGNMENTS["va"][float(place.anchor[1])],
        arrowprops=line if place.is_far else None,
    )
