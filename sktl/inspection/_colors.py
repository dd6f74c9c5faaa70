"""Distinct colors for any number of classes, models or networks."""

import functools
import importlib
import itertools
from typing import Any

import numpy as np

from sktl._stores import register_store
from sktl.inspection._axes import MUTED

_APART = 0.06  # minimum distance in OKLab between two colors that count as different
_LEVELS = 24  # steps of each of red, green and blue in the grid of further colors
_LIGHTNESS = (0.3, 0.85)  # limits of further colors: visible on white, and not black
# Matrices of OKLab: from linear RGB to cone responses, and from their cube roots to
# lightness, a and b.
_EYE = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
_LAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def distinct_colors(n_colors: int) -> list[tuple[float, float, float]]:
    """Return colors that differ from each other and from the gray of unlabeled data.

    The first ones are matplotlib's color cycle. Each further color is as far as
    possible from all previous ones in OKLab [1]_, so that the first colors do not
    depend on ``n_colors``.

    Returns
    -------
    list of tuple of float
        Red, green and blue, from 0 to 1.

    References
    ----------
    .. [1] Ottosson, "A perceptual color space for image processing" (OKLab), 2020.
    """
    cycle = importlib.import_module("matplotlib").rcParams["axes.prop_cycle"].by_key().get("color", [])
    to_rgb = importlib.import_module("matplotlib.colors").to_rgb
    style = _distinct(tuple(to_rgb(color) for color in cycle), to_rgb(MUTED))
    # Rounded up, so that a display with one more class does not search again.
    return list(_continued(style, to_rgb(MUTED), -(-max(n_colors - len(style), 0) // 16) * 16)[:n_colors])


def _distinct(colors: Any, gray: Any) -> tuple[tuple[float, float, float], ...]:
    """Return the colors of a style that differ from each other and from gray."""
    kept: list[Any] = []
    for color in colors:
        others = _oklab(np.array([*kept, gray]))
        if np.linalg.norm(others - _oklab(np.array([color])), axis=1).min() > _APART:
            kept.append(color)
    return tuple(kept)


@functools.lru_cache(maxsize=8)
def _continued(style: Any, gray: Any, n_further: int) -> tuple[tuple[float, float, float], ...]:
    """Return the style's colors and further ones, each the farthest from all others."""
    candidates = np.array(list(itertools.product(np.linspace(0, 1, _LEVELS), repeat=3)))
    places = _oklab(candidates)
    is_seen = (places[:, 0] > _LIGHTNESS[0]) & (places[:, 0] < _LIGHTNESS[1])
    candidates, places = candidates[is_seen], places[is_seen]
    colors = list(style)
    distances = np.full(len(places), np.inf)
    for color in (gray, (1.0, 1.0, 1.0), *colors):
        distances = np.minimum(distances, _from(places, color))
    for _ in range(n_further):
        colors.append(tuple(float(part) for part in candidates[distances.argmax()]))
        distances = np.minimum(distances, _from(places, colors[-1]))
    return tuple(colors)


register_store("colors of further classes", _continued.cache_clear)


def _from(places: np.ndarray, color: Any) -> np.ndarray:
    return np.linalg.norm(places - _oklab(np.array([color])), axis=1)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert RGB colors of shape (n, 3) to OKLab, which has perceptual distances."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.array(_EYE).T) @ np.array(_LAB).T
