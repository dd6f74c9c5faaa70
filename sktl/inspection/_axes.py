"""Where displays draw: matplotlib, imported when it is needed, and its axes."""

import importlib
from typing import Any

import numpy as np

from sktl._optional import import_optional
from sktl.exceptions import InputError

MUTED = "0.45"  # of what stands beside the data: guide lines, notes


def check_matplotlib(display: Any) -> None:
    """Say that matplotlib is missing before anything is computed for a picture.

    Parameters
    ----------
    display : display or class of one
        Who needs it.
    """
    name = display.__name__ if isinstance(display, type) else type(display).__name__
    import_optional("matplotlib", extra="plot", purpose=name)


def one_axes(display: Any, ax: Any, figsize: tuple[float, float]) -> tuple[Any, Any]:
    """The axes given, or those of a new figure, and their figure."""
    check_matplotlib(display)
    if ax is None:
        ax = _new_figure(figsize).subplots()
    return ax.figure, ax


def two_axes(display: Any, ax: Any, figsize: tuple[float, float], **grid: Any) -> tuple[Any, tuple[Any, Any]]:
    """Two axes for a display of two panels, and their figure.

    Parameters
    ----------
    display : display
        Who draws.
    ax : Axes, array-like of two Axes, or None
        One is divided, and hidden itself; two are taken as they are; None makes a new figure.
    figsize : tuple of float
        Of a new figure, in inches.
    **grid : object
        How panels lie, for a grid of matplotlib: ``nrows``, ``ncols``, ``height_ratios``, ``width_ratios``. Panels
        above each other share their x axis.
    """
    check_matplotlib(display)
    if ax is not None and np.ndim(ax) > 0:
        first, second = np.ravel(ax)
        return first.figure, (first, second)
    if ax is None:
        figure = _new_figure(figsize)
        spec = figure.add_gridspec(**grid)
    else:
        figure, spec = ax.figure, _divide(ax, grid)
    first = figure.add_subplot(spec[0])
    second = figure.add_subplot(spec[1], sharex=first if grid.get("nrows") == 2 else None)
    return figure, (first, second)


def finish(ax: Any, title: str) -> None:
    """What all panels with axes have: a title that says what is shown, and a grid that does not push itself forward."""
    ax.set_title(title, fontsize="medium")
    ax.set_axisbelow(True)
    ax.grid(alpha=0.3)


def _divide(ax: Any, grid: dict[str, Any]) -> Any:
    place = ax.get_subplotspec()
    if place is None:
        raise InputError(
            "ax= was put at a place of its own and cannot be divided. Give two axes, or one of subplots()."
        )
    ax.set_axis_off()
    return place.subgridspec(**grid)


def _new_figure(figsize: tuple[float, float]) -> Any:
    pyplot = importlib.import_module("matplotlib.pyplot")
    return pyplot.figure(figsize=figsize, layout="constrained")
