"""Maps of the evidence for a class in images."""

import math

import numpy as np

from sktl._images import check_images, is_missing
from sktl._moved import RenamedAttributes
from sktl._params import check_consistent_length
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib, one_axes
from sktl.inspection._image_grid import check_n_images, height_of, image_title
from sktl.inspection._network_and_images import as_labels, network_inputs
from sktl.inspection._overlays import draw_overlays, draw_scale, see_through
from sktl.inspection._saliency_maps import (
    class_probabilities,
    find_network,
    gradient_maps,
    occlusion_maps,
)
from sktl.inspection._text_layout import short

_METHODS = ("gradcam", "occlusion")
_SIDE = 115.0  # side of an image in a new figure, in points of 1/72 inch


class GradCAMDisplay(RenamedAttributes):
    """Visualization of Grad-CAM and occlusion maps of a classifier.

    The maps show which pixels of an image are evidence for a class.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Read more in the :doc:`user guide </gradcam>`.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, channels), dtype uint8
        Images as the network sees them, resized and cropped.
    maps : ndarray of shape (n_samples, height, width)
        Evidence of each pixel.
    predicted_labels : ndarray of shape (n_samples,)
        Most probable label of each image.
    probabilities : ndarray of shape (n_samples,)
        Probability of the predicted label.
    targets : ndarray of shape (n_samples,)
        Label whose evidence is shown.
    target_probabilities : ndarray of shape (n_samples,)
        Probability of the label in ``targets``.
    true_labels : ndarray of shape (n_samples,), default=None
        True labels of the images.
    method : {"gradcam", "occlusion"}, default="gradcam"
        Method that computed the maps.
    layer : str, default=None
        Layer that the Grad-CAM maps were computed from.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Hidden axes whose area contains the images.
    image_axes_ : list of matplotlib Axes
        Axes of each image, shown without and with its map.
    overlays_ : list of matplotlib AxesImage
        Maps drawn over the images.
    colorbar_ : matplotlib Colorbar
        Color bar of the maps.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    grad_cam : Compute the maps from the output and the gradients of a layer.
    MisclassifiedDisplay : Plot the confusion matrix and misclassified images.

    Notes
    -----
    ``"gradcam"`` needs one forward and one backward pass [1]_. Its maps have the
    resolution of the layer (7 × 7 for most networks and images of 224 × 224 pixels) and
    no unit: maps of two images cannot be compared. The positions of the layer are
    spread evenly over the image. Behind strided convolutions, the centers of their
    receptive fields are up to half a position further up and to the left (15 of 224
    pixels for MobileNetV3-small, none for VGG).

    ``"occlusion"`` covers the image with one square after the other, in the mean color
    of the pretraining images, and measures the drop in probability [2]_. It needs a few
    hundred passes per image and supports all networks. Its maps are in units of
    probability, and the largest drop is shown above each image. If an image contains
    the same evidence twice, covering one of them has no effect.

    Each map is scaled by its own maximum. The maps show which pixels support a class,
    but not what the network sees there, and not whether it is right.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
           Gradient-based Localization", ICCV 2017.
    .. [2] Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
           ECCV 2014, section 4.2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import GradCAMDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(
    ...     X / 16, y, train_size=200, random_state=0
    ... )
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0)
    >>> model = model.fit(X_train, y_train)
    >>> display = GradCAMDisplay.from_estimator(model, X_test, y_test, n_images=4)
    >>> display.maps.shape, display.layer
    ((4, 64, 64), 'layer4')
    """

    _renamed = {"photos": "images", "photo_axes_": "image_axes_"}

    def __init__(
        self,
        images,
        maps,
        predicted_labels,
        probabilities,
        targets,
        target_probabilities,
        *,
        true_labels=None,
        method="gradcam",
        layer=None,
    ):
        self.images = images
        self.maps = maps
        self.predicted_labels = predicted_labels
        self.probabilities = probabilities
        self.targets = targets
        self.target_probabilities = target_probabilities
        self.true_labels = true_labels
        self.method = method
        self.layer = layer

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        method="gradcam",
        layer=None,
        target="predicted",
        n_images=9,
        patch_size=None,
        stride=None,
        ax=None,
        cmap="turbo",
        alpha=0.75,
    ):
        """Compute the evidence maps of a fitted classifier and plot them.

        Parameters
        ----------
        estimator : classifier
            Fitted classifier with a network: a `sktl.FineTunedClassifier`, a
            `sktl.DistilledClassifier`, a compressor, or a pipeline or search that
            contains one. It is not changed.
        X : array-like of images
            Images of the same kind as in `fit`.
        y : array-like of shape (n_samples,), default=None
            Labels of the images. None, NaN and ``pandas.NA`` mark unlabeled images.
        method : {"gradcam", "occlusion"}, default="gradcam"
            ``"gradcam"`` uses the gradients of the logit of the class. ``"occlusion"``
            covers parts of the image, which also works for quantized networks.
        layer : int or str, default=None
            Stage, by its index or name, or any layer, by its name, to compute the maps
            from. None uses the last stage with more than one position that affects the
            logits. Only used if ``method="gradcam"``.
        target : {"predicted", "true"} or label, default="predicted"
            Class whose evidence is shown: the most probable class of each image, the
            true class of each image, or one class for all images. ``"predicted"`` and
            ``"true"`` always have these meanings, even if a class has this name.
        n_images : int, default=9
            Maximum number of images to show: the first ones of ``X``.
        patch_size : int, default=None
            Side length of the square in pixels of the network's input. None uses a
            seventh of the shorter side of the image. Only used if
            ``method="occlusion"``.
        stride : int, default=None
            Distance between adjacent squares in pixels. None uses half of
            ``patch_size``. Only used if ``method="occlusion"``.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default="turbo"
            Colormap of the maps.
        alpha : float, default=0.75
            Opacity of the strongest evidence, from 0 to 1. Pixels without evidence are
            transparent.

        Returns
        -------
        display : GradCAMDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator has no network that predicts classes, the network does not
            support ``method``, ``target`` is not a class, or ``X`` and ``y`` differ in
            length.
        BackboneError
            If the layer does not exist.
        ImageError
            If ``X`` does not contain images, or an image cannot be read.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        if method not in _METHODS:
            raise InputError(f"The 'method' parameter must be one of {_METHODS}. Got {method!r} instead.")
        check_n_images(n_images)
        fitted, X = find_network(estimator, X, cls.__name__)
        table = check_images(fitted, X, reset=False)
        images = network_inputs(fitted, table.take(slice(n_images)))
        if y is not None:
            check_consistent_length(range(len(table)), y)
            y = as_labels(y)[: len(images)]
        probabilities = class_probabilities(fitted, images)
        predicted = probabilities.argmax(1)
        classes = _find_targets(target, fitted.classes_, predicted, y)
        if method == "gradcam":
            maps, layer = gradient_maps(fitted, images, classes, layer)
        else:
            maps, layer = occlusion_maps(fitted, images, classes, patch_size, stride), None
        display = cls(
            images,
            maps,
            fitted.classes_[predicted],
            probabilities.max(1),
            fitted.classes_[classes],
            probabilities[np.arange(len(images)), classes],
            true_labels=y,
            method=method,
            layer=layer,
        )
        return display.plot(ax, cmap=cmap, alpha=alpha)

    def plot(self, ax=None, *, cmap="turbo", alpha=0.75):
        """Plot the images and their maps.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.
        cmap : str or matplotlib Colormap, default="turbo"
            Colormap of the maps.
        alpha : float, default=0.75
            Opacity of the strongest evidence, from 0 to 1. Pixels without evidence are
            transparent.

        Returns
        -------
        display : GradCAMDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        titles = [self._title(index) for index in range(len(self.images))]
        self.figure_, self.ax_ = one_axes(self, ax, _figure_size(titles))
        self.ax_.set_title(self._heading(), fontsize="medium")
        highest = self.maps.max((1, 2), keepdims=True)
        shares = np.clip(self.maps, 0, None) / np.where(highest > 0, highest, 1)  # a map may be 0 everywhere
        look = {"cmap": see_through(cmap, alpha), "vmin": 0, "vmax": 1}
        self.image_axes_, self.overlays_ = draw_overlays(self.ax_, titles, self.images, shares, **look)
        self.colorbar_ = draw_scale(self.ax_, self.overlays_[0], "evidence (per image)")
        self.colorbar_.set_ticks([0, 1], labels=["none", "most"])
        self.colorbar_.ax.yaxis.labelpad = -12
        return self

    def _heading(self):
        name = "occlusion" if self.method == "occlusion" else "Grad-CAM" + (f", {self.layer}" if self.layer else "")
        labels = np.unique(self.targets)
        if np.array_equal(self.targets, self.predicted_labels):
            what = "the predicted label"
        elif self.true_labels is not None and np.array_equal(self.targets, self.true_labels):
            what = "the true label"
        else:
            what = short(labels[0]) if len(labels) == 1 else "one label per image"
        return f"evidence for {what}\n{name}"

    def _title(self, index):
        """Return the labels of an image and of its map, and the largest drop."""
        predicted, target = self.predicted_labels[index], self.targets[index]
        true = None if self.true_labels is None or is_missing(self.true_labels[index]) else self.true_labels[index]
        lines = [image_title(true, predicted, self.probabilities[index])]
        if target != predicted and target == true:
            lines[-1] += f" ({self.target_probabilities[index]:.2f})"
        elif target != predicted:
            lines.append(f"map: {target} ({self.target_probabilities[index]:.2f})")
        if self.method == "occlusion":
            lines.append(f"largest drop: {max(0.0, self.maps[index].max()):.2f}")
        return "\n".join(lines)


def _figure_size(titles):
    """Return width and height in inches, for up to three images and maps per row."""
    n_columns = min(3, math.ceil(math.sqrt(len(titles))))
    width = (2 * _SIDE + 14) * n_columns
    return (width + 60) / 72, (height_of(titles, width, _SIDE, n_columns) + 50) / 72


def _find_targets(target, classes, predicted, y):
    """Return the index of the class whose evidence is shown, for each image."""
    if isinstance(target, str) and target == "predicted":
        return predicted
    known = classes.tolist()
    if isinstance(target, str) and target == "true":
        if y is None:
            raise InputError("target='true' needs the labels of the images. Pass y, or use target='predicted'.")
        wanted = y.tolist()
    else:
        wanted = [target] * len(predicted)
    missing = [label for label in wanted if np.ndim(label) > 0 or label not in known]
    if missing:
        raise InputError(
            f"target={target!r} selects the label {missing[0]!r}, which is not one of the classes {known}. Use one of "
            "these classes, 'predicted', or 'true' with labels that were seen during fit."
        )
    return np.array([known.index(label) for label in wanted])
