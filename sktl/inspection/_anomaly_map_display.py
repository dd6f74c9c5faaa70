"""Anomalous images, and which parts of them are anomalous."""

import numpy as np
from sklearn.utils import _safe_indexing

from sktl._estimators._find_fitted import require_fitted
from sktl._images import check_images
from sktl._params import check_consistent_length
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, finish, two_axes
from sktl.inspection._decoded_images import DecodedImages, images_of
from sktl.inspection._image_grid import check_n_images, image_grid, image_title, show_image
from sktl.inspection._network_and_images import network_inputs
from sktl.inspection._overlays import draw_contours, draw_overlays, draw_scale, see_through

_NAMES = {1: "normal", -1: "anomaly"}


class AnomalyMapDisplay:
    """Visualization of the most anomalous images, their maps and all scores.

    The maps show which parts of an image are anomalous. The histogram shows the scores
    of all images and the threshold of the detector.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    images : sequence of ndarray of shape (height, width, channels), dtype uint8
        Images to show, the most anomalous one first; None for one that cannot be read.
    maps : ndarray of shape (n_images, height, width) or None
        How anomalous each pixel of these images is. None shows the images alone.
    positions : ndarray of shape (n_images,)
        Positions of these images in ``X``.
    scores : ndarray of shape (n_samples,)
        Scores of all images, low if an image is anomalous. NaN for images that cannot
        be read.
    offset : float
        The threshold: images with a lower score are anomalies.
    y : array-like of shape (n_samples,), default=None
        True labels of all images: 1 for normal ones and -1 for anomalies.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the histogram of the scores.
    images_ax_ : matplotlib Axes
        Hidden axes whose area contains the images.
    image_axes_ : list of matplotlib Axes
        Axes of each image, shown without and with its map.
    overlays_ : list of matplotlib AxesImage
        Maps drawn over the images. Empty if ``maps`` is None.
    colorbar_ : matplotlib Colorbar or None
        Color bar of the maps.
    figure_ : matplotlib Figure
        Figure containing the axes.
    threshold_ : matplotlib Line2D
        Line at the threshold in the histogram.

    See Also
    --------
    sktl.anomaly.AnomalyDetector : Detect anomalous images.
    ReconstructionDisplay : Plot images and their reconstructions.

    Notes
    -----
    All maps have the same color scale. It starts at the median of the shown maps, below
    which pixels are transparent, so that colors stand for the upper half of all pixels.
    Contours enclose the pixels that are above the threshold.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl.anomaly import AnomalyDetector
    >>> from sktl.inspection import AnomalyMapDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> zeros = X[y == 0] / 16
    >>> detector = AnomalyDetector(method="padim", random_state=0).fit(zeros[:100])
    >>> display = AnomalyMapDisplay.from_estimator(detector, X[:100] / 16, n_images=4)
    >>> display.maps.shape, display.scores.shape
    ((4, 64, 64), (100,))
    """

    def __init__(self, images, maps, positions, scores, offset, *, y=None):
        self.images = images
        self.maps = maps
        self.positions = positions
        self.scores = scores
        self.offset = offset
        self.y = y

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, n_images=9, ax=None, cmap="turbo", alpha=0.75, hist_kw=None):
        """Plot the most anomalous images for a fitted detector.

        Parameters
        ----------
        estimator : outlier detector
            Fitted detector with ``score_samples`` and ``offset_``: a
            `sktl.anomaly.AnomalyDetector`, a `sktl.autoencoders.Autoencoder`, a
            detector of scikit-learn, or a pipeline or search that contains one. Maps
            are drawn if it has the method ``anomaly_map``.
        X : array-like of images
            Images of the same kind as in `fit`.
        y : array-like of shape (n_samples,), default=None
            True labels: 1 for normal images and -1 for anomalies. The histogram shows
            both separately.
        n_images : int, default=9
            Maximum number of images to show.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the histogram and the images.
        cmap : str or matplotlib Colormap, default="turbo"
            Colormap of the maps.
        alpha : float, default=0.75
            Opacity of the most anomalous pixels, from 0 to 1. Pixels that are not
            anomalous are transparent.
        hist_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``hist`` to draw the histogram.

        Returns
        -------
        display : AnomalyMapDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator is not an outlier detector, ``y`` contains other labels
            than 1 and -1, or ``X`` and ``y`` differ in length.
        ImageError
            If ``X`` does not contain images, or an image cannot be read.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        check_n_images(n_images)
        part = require_fitted(estimator, "offset_", "it is not an outlier detector")
        detector, reached = part.estimator, part.reached_by(X)
        scores = np.asarray(detector.score_samples(reached))
        if y is not None:
            check_consistent_length(scores, y)
            y = _checked(y)
        order = np.argsort(scores, kind="stable")  # NaN comes last
        positions = order[: min(n_images, np.sum(~np.isnan(scores)))]
        if len(positions) and hasattr(detector, "anomaly_map"):
            shown = _safe_indexing(reached, positions)
            maps = detector.anomaly_map(shown)
            images = list(network_inputs(detector, check_images(detector, shown, reset=False)))
        else:
            maps, images = None, list(DecodedImages(images_of(estimator, X).take(positions)))
        display = cls(images, maps, positions, scores, float(detector.offset_), y=y)
        return display.plot(ax, cmap=cmap, alpha=alpha, hist_kw=hist_kw)

    def plot(self, ax=None, *, cmap="turbo", alpha=0.75, hist_kw=None):
        """Plot the histogram of the scores and the most anomalous images.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the histogram and the images.
        cmap : str or matplotlib Colormap, default="turbo"
            Colormap of the maps.
        alpha : float, default=0.75
            Opacity of the most anomalous pixels, from 0 to 1. Pixels that are not
            anomalous are transparent.
        hist_kw : dict, default=None
            Keyword arguments passed to matplotlib's ``hist`` to draw the histogram.

        Returns
        -------
        display : AnomalyMapDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        grid = {"nrows": 1, "ncols": 2, "width_ratios": [1, 1.8]}
        self.figure_, (self.ax_, self.images_ax_) = two_axes(self, ax, (12, 5), **grid)
        self._draw_scores(hist_kw)
        self._draw_images(cmap, alpha)
        return self

    def _draw_scores(self, hist_kw):
        """Draw the histogram, with the normal images and the anomalies if known."""
        readable = ~np.isnan(self.scores)
        if self.y is None:
            groups = {"_nolegend_": readable}
        else:
            groups = {name: readable & (np.asarray(self.y) == label) for label, name in _NAMES.items()}
        n_bins = int(np.clip(2 * np.sqrt(readable.sum()), 10, 30))
        style = {"bins": n_bins, "stacked": True, "color": ["C0", "C1"][: len(groups)], "label": list(groups)}
        self.ax_.hist([self.scores[rows] for rows in groups.values()], **{**style, **(hist_kw or {})})
        label = f"threshold ({self.offset:.3g})"
        self.threshold_ = self.ax_.axvline(self.offset, color=MUTED, linestyle="--", linewidth=1.5, label=label)
        self.ax_.set(xlabel="score (low: anomalous)", ylabel="number of images")
        self.ax_.xaxis.get_major_locator().set_params(nbins=6)
        self.ax_.yaxis.get_major_locator().set_params(integer=True)
        self.ax_.legend(fontsize="small")
        finish(self.ax_, self._summary(groups))

    def _summary(self, groups):
        """Return the number of images that are flagged as anomalies."""
        flagged = self.scores < self.offset
        n, n_flagged = sum(int(rows.sum()) for rows in groups.values()), int(flagged.sum())
        summary = f"{n_flagged} of {n} images flagged ({n_flagged / max(n, 1):.1%})"
        if self.y is not None:
            counts = {name: (int((rows & flagged).sum()), int(rows.sum())) for name, rows in groups.items()}
            summary += "\n{} of {} anomalies, {} of {} normal images".format(*counts["anomaly"], *counts["normal"])
        return summary

    def _draw_images(self, cmap, alpha):
        self.images_ax_.set_title(self._heading(), fontsize="medium")
        titles = [self._title(int(position)) for position in self.positions]
        self.overlays_: list = []
        self.colorbar_ = None
        if self.maps is None or not len(self.positions):
            self.image_axes_ = image_grid(self.images_ax_, titles)
            for panel, image in zip(self.image_axes_, self.images, strict=True):
                show_image(panel, image)
        else:
            look = {"cmap": see_through(cmap, alpha), "vmin": np.median(self.maps), "vmax": np.max(self.maps)}
            self.image_axes_, self.overlays_ = draw_overlays(self.images_ax_, titles, self.images, self.maps, **look)
            draw_contours(self.image_axes_, self.overlays_, -self.offset)
            self.colorbar_ = draw_scale(self.images_ax_, self.overlays_[0], "distance from normal images")
            self.colorbar_.ax.axhline(-self.offset, color="black", linewidth=1.5)

    def _heading(self):
        n_shown, n = len(self.positions), len(self.scores)
        which = f"the most anomalous {n_shown} of {n} images" if n_shown < n else f"all {n} images"
        return which if self.maps is None else f"{which}\ncontours: pixels above the threshold"

    def _title(self, position):
        """Return the verdict, the score and, if different, the true label."""
        score = self.scores[position]
        true = None if self.y is None else _NAMES[int(np.asarray(self.y)[position])]
        return image_title(true, _NAMES[-1 if score < self.offset else 1], score, ".3g")


def _checked(y):
    """Return labels as an array, or raise an error if they are not 1 and -1."""
    y = np.asarray(y)
    other = [label for label in np.unique(y).tolist() if label not in _NAMES]
    if other:
        raise InputError(
            f"y must contain 1 for normal images and -1 for anomalies. Got the label {other[0]!r} instead. "
            "Convert the labels to 1 and -1."
        )
    return y
