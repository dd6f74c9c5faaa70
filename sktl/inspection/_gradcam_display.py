"""Where in a picture a fitted classifier looks for its decision."""

import importlib
import math
from numbers import Integral

import numpy as np

from sktl._images import is_missing
from sktl._params import check_consistent_length
from sktl.exceptions import InputError
from sktl.inspection._axes import MUTED, check_matplotlib, one_axes
from sktl.inspection._image_grid import height_of, image_grid, image_title, show_image
from sktl.inspection._network_and_images import as_labels
from sktl.inspection._saliency_maps import (
    class_probabilities,
    find_network,
    gradient_maps,
    occlusion_maps,
    read_pictures,
)
from sktl.inspection._text_layout import short

_METHODS = ("gradcam", "occlusion")
_SIDE = 115.0  # of an image in a new figure, in points of 1/72 inch
_N_COLORS = 256


class GradCAMDisplay:
    """Pictures with the places from which a classifier takes its evidence for a class.

    It is recommended to use `from_estimator` to create one. All parameters are stored as attributes.

    Parameters
    ----------
    photos : ndarray of shape (n_photos, height, width, channels), dtype uint8
        The pictures as the network sees them: resized and cropped.
    maps : ndarray of shape (n_photos, height, width)
        How much evidence each pixel has.
    predicted_labels : ndarray of shape (n_photos,)
        The most probable label of each picture.
    probabilities : ndarray of shape (n_photos,)
        Its probability.
    targets : ndarray of shape (n_photos,)
        The label that the evidence is for.
    target_probabilities : ndarray of shape (n_photos,)
        Its probability.
    true_labels : ndarray of shape (n_photos,), default=None
        What the pictures are.
    method : {"gradcam", "occlusion"}, default="gradcam"
        Where the maps are from.
    layer : str, default=None
        The layer whose places they are of, where they are from gradients.

    Attributes
    ----------
    ax_ : matplotlib Axes
        In whose place the pictures are.
    photo_axes_ : list of matplotlib Axes
        With one picture each, twice: as it is, and beside that under its map.
    overlays_ : list of matplotlib AxesImage
        The maps.
    colorbar_ : matplotlib Colorbar
        What their colours mean.
    figure_ : matplotlib Figure
        With all of them.

    See Also
    --------
    grad_cam : The map of one layer, from its output and gradients.
    MisclassifiedDisplay : Which pictures are worth a look.

    Notes
    -----
    ``"gradcam"`` takes one pass forward and one backward [1]_. Its maps are as coarse as the layer (7 × 7 places for
    most networks and pictures of 224 × 224 pixels) and have no unit: those of two pictures cannot be compared. Each
    place is drawn where it lies in the layer; behind convolutions that skip pixels it looks up to half a place further
    up and to the left (15 of 224 pixels for MobileNetV3-small, none for VGG).
    ``"occlusion"`` covers one square after the other with the mean colour of the pictures that the network learnt from,
    and asks what that does to the probability [2]_: some hundred passes for each picture, for every network, in a unit
    that says how much a place matters. The most that is lost stands above each picture. Where a picture shows the same
    evidence twice, covering one of them takes nothing away.

    Each map is drawn as a share of its own largest value. Both methods say where the evidence is, not what it is, and
    not that it is right.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
       ICCV 2017.
    .. [2] Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import GradCAMDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0).fit(X[:200] / 16, y[:200])
    >>> display = GradCAMDisplay.from_estimator(model, X[200:] / 16, y=y[200:], n_photos=4)
    >>> display.maps.shape, display.layer
    ((4, 64, 64), 'layer4')
    """

    def __init__(
        self,
        photos,
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
        self.photos = photos
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
        n_photos=9,
        patch_size=None,
        stride=None,
        ax=None,
        cmap="turbo",
        alpha=0.75,
    ):
        """Find where a fitted classifier looks, and draw it.

        Parameters
        ----------
        estimator : classifier
            Fitted, with a network that ends in classes: a `sktl.FineTunedClassifier`, a `sktl.DistilledClassifier`, a
            compressor, or a pipeline or search with one in it. It stays as it is.
        X : array-like of images
            Images of the kind that `fit` has seen.
        y : array-like of shape (n_images,), default=None
            Their labels; None, NaN and ``pandas.NA`` mean that one has none.
        method : {"gradcam", "occlusion"}, default="gradcam"
            ``"gradcam"``: from the gradients of the class's logit. ``"occlusion"``: by covering places up, which works
            for networks of integers too.
        layer : int or str, default=None
            Of ``method="gradcam"``: whose places are shown: a stage by its number or name, or any layer by its
            name. None takes the last stage that has more than one place and whose places the logits depend on.
        target : {"predicted", "true"} or label, default="predicted"
            The class that evidence is looked for: the most probable one of each picture, its own, or one and the same
            for all. A label that is one of these two words means the word.
        n_photos : int, default=9
            How many pictures to show at most: the first ones.
        patch_size : int, default=None
            Of ``method="occlusion"``: side of the square, in pixels of what the network sees. None takes a seventh of
            the picture's shorter side.
        stride : int, default=None
            Of ``method="occlusion"``: pixels from one square to the next. None takes half of a square's side.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str or matplotlib Colormap, default="turbo"
            Colours of the maps.
        alpha : float, default=0.75
            How opaque they are where evidence is the strongest, from 0 to 1; where there is none they are not seen.

        Returns
        -------
        display : GradCAMDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        ValueError
            Where the estimator has no network that ends in classes, the method cannot be used with it, the target is no
            class of it, or ``y`` does not match ``X`` in length.
        BackboneError
            Where there is no such layer.
        ImageError
            Where ``X`` is no table of pictures, or one cannot be read.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        if method not in _METHODS:
            raise InputError(f"method={method!r} is unknown. Use one of {_METHODS}.")
        if isinstance(n_photos, bool) or not isinstance(n_photos, Integral) or n_photos < 1:
            raise InputError(f"n_photos={n_photos!r} has to be a number of pictures, 1 or more.")
        fitted, X = find_network(estimator, X, cls.__name__)
        photos, n_pictures = read_pictures(fitted, X, int(n_photos))
        if y is not None:
            check_consistent_length(range(n_pictures), y)
            y = as_labels(y)[: len(photos)]
        probabilities = class_probabilities(fitted, photos)
        predicted = probabilities.argmax(1)
        classes = _find_targets(target, fitted.classes_, predicted, y)
        if method == "gradcam":
            maps, layer = gradient_maps(fitted, photos, classes, layer)
        else:
            maps, layer = occlusion_maps(fitted, photos, classes, patch_size, stride), None
        display = cls(
            photos,
            maps,
            fitted.classes_[predicted],
            probabilities.max(1),
            fitted.classes_[classes],
            probabilities[np.arange(len(photos)), classes],
            true_labels=y,
            method=method,
            layer=layer,
        )
        return display.plot(ax, cmap=cmap, alpha=alpha)

    def plot(self, ax=None, *, cmap="turbo", alpha=0.75):
        """Draw the pictures with their maps.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str or matplotlib Colormap, default="turbo"
            Colours of the maps.
        alpha : float, default=0.75
            How opaque they are where evidence is the strongest, from 0 to 1; where there is none they are not seen.

        Returns
        -------
        display : GradCAMDisplay
            This object.
        """
        titles = [self._title(index) for index in range(len(self.photos))]
        self.figure_, self.ax_ = one_axes(self, ax, _figure_size(titles))
        self.ax_.set_title(self._heading(), fontsize="medium")
        height, width = self.maps.shape[1:]
        gap = 0.04 * width
        extent = (width + gap, 2 * width + gap, height, 0)  # of the second one, in pixels of the first
        self.photo_axes_ = image_grid(self.ax_, titles, aspect=(2 * width + gap) / height)
        colors = _see_through(cmap, alpha)
        self.overlays_ = []
        for panel, photo, values in zip(self.photo_axes_, self.photos, self.maps, strict=True):
            shares = np.clip(values, 0, None) / (values.max() if values.max() > 0 else 1)  # there may be no evidence
            show_image(panel, photo, extent=(0, width, height, 0))
            show_image(panel, photo, extent=extent)
            self.overlays_.append(panel.imshow(shares, cmap=colors, vmin=0, vmax=1, extent=extent))
            panel.set(xlim=(0, extent[1]), ylim=(height, 0))
        self._draw_scale()
        return self

    def _heading(self):
        name = "occlusion" if self.method == "occlusion" else "Grad-CAM" + (f", {self.layer}" if self.layer else "")
        labels = np.unique(self.targets)
        if np.array_equal(self.targets, self.predicted_labels):
            what = "the predicted label"
        elif self.true_labels is not None and np.array_equal(self.targets, self.true_labels):
            what = "the true label"
        else:
            what = short(labels[0]) if len(labels) == 1 else "a label of each"
        return f"evidence for {what}\n{name}"

    def _title(self, index):
        """What it was taken for and what it is; below, what the map is for and how much can be lost, if need be."""
        predicted, target = self.predicted_labels[index], self.targets[index]
        true = None if self.true_labels is None or is_missing(self.true_labels[index]) else self.true_labels[index]
        lines = [image_title(true, predicted, self.probabilities[index])]
        if target != predicted and target == true:
            lines[-1] += f" ({self.target_probabilities[index]:.2f})"
        elif target != predicted:
            lines.append(f"map: {target} ({self.target_probabilities[index]:.2f})")
        if self.method == "occlusion":
            lines.append(f"covering it costs {max(0.0, self.maps[index].max()):.2f} at most")
        return "\n".join(lines)

    def _draw_scale(self):
        """Beside the images, as high as they are together."""
        self.colorbar_ = self.figure_.colorbar(self.overlays_[0], cax=self.ax_.inset_axes([1.02, 0.02, 0.015, 0.9]))
        self.colorbar_.set_ticks([0, 1], labels=["none", "most"], fontsize="small")
        self.colorbar_.set_label("evidence (per image)", fontsize="small", color=MUTED, labelpad=-12)


def _figure_size(titles):
    """Width and height in inches, for up to three images and their maps side by side."""
    n_columns = min(3, math.ceil(math.sqrt(len(titles))))
    width = (2 * _SIDE + 14) * n_columns
    return (width + 60) / 72, (height_of(titles, width, _SIDE, n_columns) + 50) / 72


def _see_through(cmap, alpha):
    """Colors that leave an image as it is where there is no evidence, and are opaque as said where it is strongest."""
    matplotlib = importlib.import_module("matplotlib")
    cmap = matplotlib.colormaps.get_cmap(cmap)
    shares = np.linspace(0, 1, _N_COLORS)
    colors = cmap(shares)
    colors[:, 3] = alpha * np.sqrt(shares)
    return importlib.import_module("matplotlib.colors").ListedColormap(colors, name=cmap.name)


def _find_targets(target, classes, predicted, y):
    """The number of the class that evidence is looked for, of each picture."""
    if isinstance(target, str) and target == "predicted":
        return predicted
    known = classes.tolist()
    if isinstance(target, str) and target == "true":
        if y is None:
            raise InputError("target='true' needs the labels of the pictures. Give y=, or use target='predicted'.")
        wanted = y.tolist()
    else:
        wanted = [target] * len(predicted)
    missing = [label for label in wanted if np.ndim(label) > 0 or label not in known]
    if missing:
        raise InputError(
            f"target={target!r} asks for the label {missing[0]!r}, which is none of the classes {known}. Use one of "
            "them, 'predicted', or 'true' with labels that were learnt."
        )
    return np.array([known.index(label) for label in wanted])
