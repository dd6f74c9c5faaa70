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
    figure, spec = _grid(ax, figsize, grid)
    first = figure.add_subplot(spec[0])
    second = figure.add_subplot(spec[1], sharex=first if grid.get("nrows") == 2 else None)
    return figure, (first, second)


def row_of_axes(display: Any, ax: Any, figsize: tuple[float, float], n_axes: int) -> tuple[Any, list[Any]]:
    """Return a figure and a row of axes to draw on.

    Parameters
    ----------
    display : display
        Display that draws, for messages.
    ax : Axes, array-like of Axes, or None
        A single Axes is hidden and divided, unless one is needed. None creates a new
        figure.
    figsize : tuple of float
        Size of a new figure in inches.
    n_axes : int
        Number of axes.

    Raises
    ------
    InputError
        If ``ax`` is an array of another number of axes.
    """
    if n_axes == 1 and np.ndim(ax) == 0:
        figure, only = one_axes(display, ax, figsize)
        return figure, [only]
    check_matplotlib(display)
    if np.ndim(ax) > 0:
        given = list(np.ravel(ax))
        if len(given) != n_axes:
            raise InputError(f"{type(display).__name__} has {n_axes} panels. Got {len(given)} Axes instead.")
        return given[0].figure, given
    figure, spec = _grid(ax, figsize, {"nrows": 1, "ncols": n_axes})
    return figure, [figure.add_subplot(spec[number]) for number in range(n_axes)]


def finish(ax: Any, title: str) -> None:
    """Set the title, and draw a grid behind the data."""
    ax.set_title(title, fontsize="medium")
    ax.set_axisbelow(True)
    ax.grid(alpha=0.3)


def _grid(ax: Any, figsize: tuple[float, float], grid: dict[str, Any]) -> tuple[Any, Any]:
    """Return a figure and a grid in it, which replaces ``ax`` if it is given."""
    if ax is None:
        figure = _new_figure(figsize)
        return figure, figure.add_gridspec(**grid)
    return ax.figure, _divide(ax, grid)


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
