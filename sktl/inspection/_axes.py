"""Matplotlib figures and axes for displays. Matplotlib is imported on first use."""

import importlib
from typing import Any

import numpy as np

from sktl._optional import import_optional
from sktl.exceptions import InputError

MUTED = "0.45"  # gray of guide lines, notes and unlabeled data


def check_matplotlib(display: Any) -> None:
    """Raise an error that names the display if matplotlib is not installed."""
    name = display.__name__ if isinstance(display, type) else type(display).__name__
    import_optional("matplotlib", extra="plot", purpose=name)


def one_axes(display: Any, ax: Any, figsize: tuple[float, float]) -> tuple[Any, Any]:
    """Return the figure and the axes to draw on, and create them if needed."""
    check_matplotlib(display)
    if ax is None:
        ax = _new_figure(figsize).subplots()
    return ax.figure, ax


def two_axes(display: Any, ax: Any, figsize: tuple[float, float], **grid: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return a figure and two axes to draw on.

    Parameters
    ----------
    display : display
        Display that draws, for the error if matplotlib is not installed.
    ax : Axes, array-like of two Axes, or None
        A single Axes is hidden and divided. None creates a new figure.
    figsize : tuple of float
        Size of a new figure in inches.
    **grid : object
        Layout of the panels, as for matplotlib's ``add_gridspec``. Two rows share the x
        axis.
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
    """Set the title, and draw a grid behind the data."""
    ax.set_title(title, fontsize="medium")
    ax.set_axisbelow(True)
    ax.grid(alpha=0.3)


def _divide(ax: Any, grid: dict[str, Any]) -> Any:
    place = ax.get_subplotspec()
    if place is None:
        raise InputError(
            "ax cannot be divided because it does not belong to a grid of subplots. Pass two Axes, or an Axes created "
            "by plt.subplots()."
        )
    ax.set_axis_off()
    return place.subgridspec(**grid)


def _new_figure(figsize: tuple[float, float]) -> Any:
    pyplot = importlib.import_module("matplotlib.pyplot")
    return pyplot.figure(figsize=figsize, layout="constrained")
