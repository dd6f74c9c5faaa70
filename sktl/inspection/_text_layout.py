"""Names that fit: in a title or a legend, and beside points where there is room for them."""

import functools
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sktl._stores import register_store

Boxes = np.ndarray  # (n, 2, 2): [[x0, y0], [x1, y1]] of each, in pixels

_LONG = 16  # characters of a name
_IN_LEGEND = 24  # of one in a legend

_GAP = 3.0  # between a marker and its label
_RINGS = (0.0, 10.0, 22.0, 36.0, 52.0, 70.0)  # how much further out a label may have to go
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # beside a point a name is read best
_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))
_BETWEEN = tuple((x, y) for one in (0.5, -0.5) for other in (1, -1) for x, y in ((one, other), (other, one)))
_ALIGNMENTS = {"ha": {0.0: "left", 0.5: "center", 1.0: "right"}, "va": {0.0: "bottom", 0.5: "center", 1.0: "top"}}


def short(label: Any, n_characters: int = _LONG) -> str:
    """A name that fits; a dollar sign would begin a formula."""
    name = " ".join(str(label).split())
    name = name if len(name) <= n_characters else f"{name[: n_characters - 1]}…"
    return name.replace("$", r"\$")


def in_legend(label: Any) -> str:
    """A name for a legend, out of which matplotlib would keep one that begins with an underscore."""
    name = short(label, _IN_LEGEND)
    return f" {name}" if name.startswith("_") else name


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """How wide a line is in the figures' font, in points of 1/72 inch."""
    properties = importlib.import_module("matplotlib.font_manager").FontProperties(size=size)
    measure = importlib.import_module("matplotlib.textpath").text_to_path.get_text_width_height_descent
    return float(measure(text, properties, False)[0])


register_store("widths of text in figures", text_width.cache_clear)


def wrapped(text: Any, width: float, size: float, n_lines: int) -> str:
    """A text in lines that fit; what is beyond the last one is cut.

    Parameters
    ----------
    text : object
        Words; a dollar sign would begin a formula and is escaped.
    width : float
        Of a line, in points of 1/72 inch.
    size : float
        Of the font, in points.
    n_lines : int
        How many lines there may be.

    Returns
    -------
    str
        With line breaks.
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
    """A word in parts, none of which is wider than a line."""
    if text_width(word, size) <= width:
        return [word]
    parts = [""]
    for letter in word:
        if parts[-1] and text_width(parts[-1] + letter, size) > width:
            parts.append("")
        parts[-1] += letter
    return parts


class Place(NamedTuple):
    """Where a label may lie, as seen from its point."""

    offset: np.ndarray  # in points of 1/72 inch
    anchor: np.ndarray  # what of the label lies there: (0, 0) is its lower left corner, (0.5, 0.5) its middle
    is_far: bool  # so that a line has to say whose it is


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
    """Write a name beside each point, clear of all points, of other names and of the frame, as far as there is room.

    A name that has to go some way off is tied to its point by a thin line.

    Parameters
    ----------
    ax : matplotlib Axes
        With its final limits. Places are found for the size that it has now.
    x, y : sequence of float
        The points.
    names : sequence of str
        One for each point.
    radius : float
        Of the markers, in points of 1/72 inch, as all lengths here.
    colors : sequence of matplotlib colours
        Of the markers: names have the same, only further from the background, since thin strokes look pale.
    lines : sequence of ((x, y), (x, y)), default=()
        Lines that are drawn already, which names and their own lines had better not cross.

    Returns
    -------
    list of matplotlib Annotation
    """
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # the layout decides how large the axes are
    scale = figure.dpi / 72
    points = np.column_stack([x, y])
    centres = ax.transData.transform(points)
    frame = _grown(ax.bbox.get_points()[None], -scale)
    taken = _grown(np.stack([centres, centres], 1), (radius + 1) * scale)
    crossed = np.concatenate([np.empty((0, 2, 2)), *(_along(*ax.transData.transform(line)) for line in lines)])
    labels = []
    for point, centre, name, color in zip(points, centres, names, colors, strict=True):
        size = _text_size(ax, name)
        least = None
        for candidate in _places(radius):
            boxes = _boxes(centre, candidate, size, radius, scale)
            cost = _cost(*boxes, frame, taken, crossed)
            if least is None or cost < least:  # of equals the nearest
                least, place, (text, line) = cost, candidate, boxes
            if least == (0, 0):
                break
        taken, crossed = np.concatenate([taken, text]), np.concatenate([crossed, line])
        labels.append(_write(ax, point, name, place, radius, _text_color(ax, color)))
    return labels


def _text_color(ax: Any, color: Any) -> tuple[float, ...]:
    """A colour for a name: darker than that of its marker where the background is light, and else lighter."""
    colors = importlib.import_module("matplotlib.colors")
    background = np.ones(3)
    for patch in (ax.figure.canvas.figure, ax):  # what is transparent shows what is behind it, at last the paper
        *rgb, alpha = colors.to_rgba(patch.get_facecolor())
        background = alpha * np.array(rgb) + (1 - alpha) * background
    return tuple(0.7 * np.array(colors.to_rgb(color)) + 0.3 * float(background.mean() < 0.5))


def _places(radius: float) -> Iterator[Place]:
    """All places around a marker, the nearest first."""
    for further in _RINGS:
        for direction in np.array([*_SIDES, *_CORNERS, *(_BETWEEN if further else ())]):
            yield Place(direction * (radius + _GAP + further), 0.5 - 0.5 * np.sign(direction), further > 0)


def _text_size(ax: Any, text: str) -> np.ndarray:
    """Width and height in pixels."""
    probe = ax.annotate(text, (0.5, 0.5), xycoords="axes fraction", fontsize="small")
    extent = probe.get_window_extent()
    probe.remove()
    return np.array([extent.width, extent.height])


def _boxes(centre: np.ndarray, place: Place, size: np.ndarray, radius: float, scale: float) -> tuple[Boxes, Boxes]:
    """The box of a label's text, and boxes of a pixel along the line to its point."""
    low = centre + place.offset * scale - place.anchor * size
    reach = np.abs(place.offset).max()
    shares = np.arange(radius + 2, reach if place.is_far else 0, 2) / reach  # the line begins clear of its own marker
    pixels = centre + shares[:, None] * place.offset * scale
    return _grown(np.stack([low, low + size])[None], scale), _grown(np.stack([pixels, pixels], 1), 0.5)


def _along(start: np.ndarray, end: np.ndarray) -> Boxes:
    """Boxes of a pixel along a line that is there, in pixels."""
    shares = np.linspace(0, 1, 2 + int(np.abs(end - start).max() / 2))[:, None]
    pixels = start + shares * (end - start)
    return _grown(np.stack([pixels, pixels], 1), 0.5)


def _cost(text: Boxes, line: Boxes, frame: Boxes, taken: Boxes, lines: Boxes) -> tuple[int, int]:
    """How many pixels of a text lie outside or on what is there; then, how many of lines cross something."""
    covered = _common(text, text) - _common(text, frame) + _common(text, taken)
    return covered, _common(text, lines) + _common(line, np.concatenate([taken, lines]))


def _common(ones: Boxes, others: Boxes) -> int:
    """The area that boxes have in common with others, in whole pixels: less is not seen."""
    low = np.maximum(ones[:, None, 0], others[:, 0])
    high = np.minimum(ones[:, None, 1], others[:, 1])
    return round(np.maximum(high - low, 0).prod(2).sum())


def _grown(boxes: Boxes, by: float) -> Boxes:
    return boxes + np.array([[-by], [by]])


def _write(ax: Any, point: np.ndarray, name: str, place: Place, radius: float, color: Any) -> Any:
    line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": radius}
    line["relpos"] = tuple(place.anchor)  # to the nearest corner or side of the text
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
