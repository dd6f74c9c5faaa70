"""Maps drawn over images."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sktl.inspection._axes import MUTED
from sktl.inspection._image_grid import image_grid, show_image

_N_COLORS = 256


def draw_overlays(
    ax: Any, titles: Sequence[str], images: np.ndarray, maps: np.ndarray, **look: Any
) -> tuple[list[Any], list[Any]]:
    """Draw each image twice, side by side, and its map over the second one.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes to divide. Its current size determines the layout; its frame is hidden.
    titles : sequence of str
        Title of each image.
    images : ndarray of shape (n, height, width, channels), dtype uint8
        The images.
    maps : ndarray of shape (n, height, width)
        Values of the pixels.
    **look : object
        Colormap and limits, passed to matplotlib's ``imshow``.

    Returns
    -------
    panels : list of matplotlib Axes
        Axes of each image.
    overlays : list of matplotlib AxesImage
        The maps.
    """
    height, width = maps.shape[1:]
    gap = 0.04 * width
    extent = (width + gap, 2 * width + gap, height, 0)  # of the second image, in pixels of the first
    panels = image_grid(ax, titles, aspect=(2 * width + gap) / height)
    overlays = []
    for panel, image, values in zip(panels, images, maps, strict=True):
        show_image(panel, image, extent=(0, width, height, 0))
        show_image(panel, image, extent=extent)
        overlays.append(panel.imshow(values, **look, extent=extent))
        panel.set(xlim=(0, extent[1]), ylim=(height, 0))
    return panels, overlays


def draw_contours(panels: Sequence[Any], overlays: Sequence[Any], level: float) -> None:
    """Draw a line around the pixels of each map that are above a level."""
    for panel, overlay in zip(panels, overlays, strict=True):
        values = np.asarray(overlay.get_array())
        left, right, bottom, top = overlay.get_extent()
        if values.min() < level < values.max():
            x = np.linspace(left, right, 2 * values.shape[1] + 1)[1::2]  # centers of the pixels
            y = np.linspace(top, bottom, 2 * values.shape[0] + 1)[1::2]
            panel.contour(x, y, values, [level], colors="white", linewidths=0.8)


def see_through(cmap: Any, alpha: float) -> Any:
    """Return a colormap whose opacity increases from 0 to ``alpha``."""
    matplotlib = importlib.import_module("matplotlib")
    cmap = matplotlib.colormaps.get_cmap(cmap)
    shares = np.linspace(0, 1, _N_COLORS)
    colors = cmap(shares)
    colors[:, 3] = alpha * np.sqrt(shares)
    return importlib.import_module("matplotlib.colors").ListedColormap(colors, name=cmap.name)


def draw_scale(ax: Any, mappable: Any, label: str) -> Any:
    """Draw a color bar to the right of ``ax``, as high as all images together."""
    bar = ax.figure.colorbar(mappable, cax=ax.inset_axes([1.02, 0.02, 0.015, 0.9]))
    bar.ax.tick_params(labelsize="small")
    bar.set_label(label, fontsize="small", color=MUTED)
    return bar
