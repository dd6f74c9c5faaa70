"""Images and their reconstructions by an autoencoder."""

import math

import numpy as np
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import _num_samples

from sktl._estimators._find_fitted import FittedPart, find_fitted
from sktl._images import check_images, learn_row_shape
from sktl._params import check_is_fitted
from sktl.autoencoders._denoising import denoised
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes
from sktl.inspection._image_grid import check_n_images, height_of, image_grid, show_image
from sktl.inspection._network_and_images import network_inputs
from sktl.inspection._overlays import draw_scale

_ORDERS = ("given", "worst")
_SIDE = 72.0  # width of an image in a new figure, in points of 1/72 inch
_MISSING = 0.5  # gray of entries that were not observed


class ReconstructionDisplay:
    """Visualization of images, their reconstructions and the squared errors.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    images : ndarray of shape (n_images, height, width, channels)
        The images, as numbers of any range. NaN marks pixels that were not observed,
        which are shown in gray.
    reconstructions : ndarray of shape (n_images, height, width, channels)
        Reconstructions of the images.
    noisy : ndarray of shape (n_images, height, width, channels), default=None
        The images with noise, if these were reconstructed.
    positions : ndarray of shape (n_images,), default=None
        Positions of the images in ``X``.
    value_range : tuple of (float, float), default=None
        Values that are shown in black and in white. None uses the smallest and the
        largest value of the images.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Hidden axes whose area contains the images.
    image_axes_ : list of matplotlib Axes
        Axes of each image. It contains, from top to bottom, the image, the image with
        noise if there is any, the reconstruction and the squared error.
    errors_ : ndarray of shape (n_images, height, width)
        Squared error of each pixel, averaged over the channels.
    error_images_ : list of matplotlib AxesImage
        The drawn squared errors, all with the same color scale.
    colorbar_ : matplotlib Colorbar
        Color bar of the squared errors.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    sktl.autoencoders.Autoencoder : Learn codes from which images can be reconstructed.
    AnomalyMapDisplay : Plot the most anomalous images and all scores.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.autoencoders import Autoencoder
    >>> from sktl.inspection import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = Autoencoder(8, max_epochs=3, random_state=0).fit(X[:500])
    >>> display = ReconstructionDisplay.from_estimator(model, X[500:], n_images=5)
    >>> display.reconstructions.shape, display.errors_.shape
    ((5, 8, 8, 1), (5, 8, 8))
    """

    def __init__(self, images, reconstructions, *, noisy=None, positions=None, value_range=None):
        self.images = images
        self.reconstructions = reconstructions
        self.noisy = noisy
        self.positions = positions
        self.value_range = value_range

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_images=8, order="given", image_shape=None, random_state=0, ax=None, cmap="magma"
    ):
        """Reconstruct images with a fitted autoencoder and plot them.

        Parameters
        ----------
        estimator : transformer
            Fitted `sktl.autoencoders.Autoencoder`, or a pipeline or search that
            contains one. If it was trained with noise, it reconstructs images with such
            noise. Any other transformer with ``inverse_transform``, such as
            `sklearn.decomposition.PCA`, can be shown for comparison.
        X : array-like of images
            Images of the same kind as in `fit`, or flat rows of pixels. For a pipeline
            with steps before the autoencoder, the output of these steps is shown.
        n_images : int, default=8
            Maximum number of images to show.
        order : {"given", "worst"}, default="given"
            Order of the images: the first ones of ``X``, or those with the largest
            errors without noise, the worst one first.
        image_shape : tuple of (height, width) or (height, width, channels), default=None
            Shape of each image if the images are flat rows of pixels. If None, the
            images are assumed to be square, with one or three channels.
        random_state : int, RandomState instance or None, default=0
            Seed of the noise. Pass an int for reproducible results.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default="magma"
            Colormap of the squared errors.

        Returns
        -------
        display : ReconstructionDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator does not reconstruct images, or a parameter is invalid.
        ImageError
            If ``X`` does not contain images, or an image cannot be read.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        check_n_images(n_images)
        if order not in _ORDERS:
            raise InputError(f"The 'order' parameter must be one of {_ORDERS}. Got {order!r} instead.")
        part = _find_autoencoder(estimator)
        reached = part.reached_by(X)
        positions = _positions(part.estimator, reached, n_images, order)
        shown = _safe_indexing(reached, positions)
        has_pixels = getattr(part.estimator, "backbone", None) is not None
        if has_pixels:
            rows = network_inputs(part.estimator, check_images(part.estimator, shown, reset=False))
        else:
            rows = np.asarray(shown, dtype=float)
        if getattr(part.estimator, "noise", None) is None:
            noisy, reconstructions = None, _reconstructed(part.estimator, shown)
        else:
            noisy, reconstructions = _denoised(part.estimator, rows, random_state)
        rows = rows / 255 if has_pixels else rows
        values = [_as_images(each, image_shape) for each in (rows, reconstructions, noisy)]
        display = cls(*values[:2], noisy=values[2], positions=positions, value_range=(0, 1) if has_pixels else None)
        return display.plot(ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="magma"):
        """Plot the images, their reconstructions and the squared errors.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default="magma"
            Colormap of the squared errors.

        Returns
        -------
        display : ReconstructionDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        squares = np.square(np.asarray(self.reconstructions, float) - self.images)
        self.errors_ = np.ma.masked_invalid(squares).mean(axis=3).filled(np.nan)
        rows = self._rows()
        titles = [f"MSE {np.nanmean(error):.2g}" for error in self.errors_]
        height, width = self.errors_.shape[1:]
        step = 1.04 * height
        aspect = width / (step * len(rows) + height)
        self.figure_, self.ax_ = one_axes(self, ax, _figure_size(titles, aspect))
        what = "images" if self.noisy is None else "images with noise"
        self.ax_.set_title(f"{what} and their reconstructions", fontsize="medium")
        self.image_axes_ = image_grid(self.ax_, titles, aspect=aspect)
        self.error_images_ = []
        highest = float(np.nanmax(self.errors_))
        for index, panel in enumerate(self.image_axes_):
            extents = [(0, width, row * step + height, row * step) for row in range(len(rows) + 1)]
            for images, extent in zip(rows.values(), extents, strict=False):
                show_image(panel, images[index], extent=extent)
            look = {"cmap": cmap, "vmin": 0, "vmax": highest, "extent": extents[-1]}
            self.error_images_.append(panel.imshow(self.errors_[index], **look))
            panel.set(xlim=(0, width), ylim=(extents[-1][2], 0))
        self._name_rows([*rows, "error"], step, height)
        self.colorbar_ = draw_scale(self.ax_, self.error_images_[0], "squared error")
        return self

    def _rows(self):
        """Return the images to show, uint8, by the name of their row."""
        low, high = self.value_range or (np.nanmin(self.images), np.nanmax(self.images))
        rows = {"image": self.images, "noisy": self.noisy, "reconstructed": self.reconstructions}
        return {name: _as_bytes(values, low, high) for name, values in rows.items() if values is not None}

    def _name_rows(self, names, step, height):
        """Write the names of the rows next to the first image of each line."""
        lefts = [panel.get_axes_locator()(panel, None).x0 for panel in self.image_axes_]
        for panel, left in zip(self.image_axes_, lefts, strict=True):
            for row, name in enumerate(names if left == min(lefts) else ()):
                place = {"xytext": (-3, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
                middle = (0, row * step + height / 2)
                panel.annotate(name, middle, rotation=90, fontsize="x-small", color=MUTED, **place)


def _find_autoencoder(estimator):
    """Return the autoencoder in an estimator, or a transformer that can be inverted."""
    part = find_fitted(estimator, "reconstruct")
    part = FittedPart(estimator) if part is None and hasattr(estimator, "inverse_transform") else part
    if part is None:
        raise InputError(
            f"{type(estimator).__name__} does not reconstruct images. Pass an Autoencoder, or a transformer with "
            "inverse_transform."
        )
    check_is_fitted(part.estimator)
    if getattr(part.estimator, "backbone", None) is not None and part.estimator.freeze_depth_ > 0:
        raise InputError(
            f"{type(part.estimator).__name__} with freeze_depth={part.estimator.freeze_depth!r} reconstructs the "
            "output of the frozen stages, which is not an image. Use freeze_depth=0."
        )
    return part


def _positions(estimator, X, n_images, order):
    """Return the positions of the images to show."""
    n_samples = _num_samples(X)
    if order == "given":
        return np.arange(min(n_images, n_samples))
    if hasattr(estimator, "reconstruct"):
        errors = -estimator.score_samples(X)
    else:
        errors = np.nanmean(np.square(_reconstructed(estimator, X) - np.asarray(X, dtype=float)), axis=1)
    order = np.argsort(-errors, kind="stable")  # NaN, of images that cannot be read, comes last
    return order[: min(n_images, np.sum(~np.isnan(errors)))]


def _reconstructed(estimator, X):
    if hasattr(estimator, "reconstruct"):
        return estimator.reconstruct(X)
    return np.asarray(estimator.inverse_transform(estimator.transform(X)))


def _denoised(estimator, rows, random_state):
    """Return rows with noise as in training, and their reconstructions."""
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    return denoised(estimator.net_, rows, estimator.noise, estimator.noise_level, seed)


def _as_images(values, image_shape):
    """Return values as an array of shape (n, height, width, channels), or None."""
    if values is None or values.ndim == 4:
        return values
    height, width, n_channels = learn_row_shape(values.shape[1], image_shape, None)
    padding = height * width * n_channels - values.shape[1]
    return np.pad(values, ((0, 0), (0, padding))).reshape(-1, height, width, n_channels)


def _as_bytes(values, low, high):
    """Return values as uint8, with 0 for ``low`` and 255 for ``high``."""
    shares = (np.asarray(values, float) - low) / ((high - low) or 1)
    return np.rint(255 * np.nan_to_num(np.clip(shares, 0, 1), nan=_MISSING)).astype(np.uint8)


def _figure_size(titles, aspect):
    """Return width and height in inches, for one line of images if they are few."""
    n_columns = min(10, len(titles))
    n_lines = math.ceil(len(titles) / n_columns)
    n_columns = math.ceil(len(titles) / n_lines)
    width = (_SIDE + 10) * n_columns
    return (width + 105) / 72, (height_of(titles, width, _SIDE / aspect, n_columns) + 40) / 72
