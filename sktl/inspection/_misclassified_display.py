"""Confusion matrix and misclassified images."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.utils.validation import column_or_1d

from sktl._moved import RenamedAttributes
from sktl._params import check_consistent_length, check_is_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib, two_axes
from sktl.inspection._decoded_images import DecodedImages, images_of, read_images
from sktl.inspection._image_grid import image_grid, image_title, show_image
from sktl.inspection._text_layout import short

_FEW = 12  # maximum number of classes with readable counts in the cells
_MANY = 30  # maximum number of classes with readable names


class MisclassifiedDisplay(RenamedAttributes):
    """Visualization of a confusion matrix and of the most confident errors.

    It is recommended to use `from_estimator` or `from_predictions` to create a display.
    All parameters are stored as attributes.

    Read more in the :doc:`user guide </displays>`.

    Parameters
    ----------
    confusion_matrix : ndarray of shape (n_classes, n_classes)
        Number of images by true label (rows) and predicted label (columns).
    display_labels : ndarray of shape (n_classes,)
        The class labels.
    positions : ndarray of shape (n_errors,)
        Positions of the misclassified images in ``X``. The most confident error comes
        first; without probabilities, they are in the order of ``X``.
    true_labels : ndarray of shape (n_errors,)
        True labels of the misclassified images.
    predicted_labels : ndarray of shape (n_errors,)
        Predicted labels of the misclassified images.
    probabilities : ndarray of shape (n_errors,), default=None
        Probabilities of the predicted labels.
    images : list of ndarray of shape (height, width, channels), dtype uint8, default=()
        Misclassified images to show: the first ones of ``positions``; None for an image
        that cannot be read.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the confusion matrix.
    images_ax_ : matplotlib Axes
        Hidden axes whose area contains the images.
    image_axes_ : list of matplotlib Axes
        Axes of each image.
    figure_ : matplotlib Figure
        Figure containing the axes.
    confusion_ : sklearn.metrics.ConfusionMatrixDisplay
        The confusion matrix.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : Plot the confusion matrix alone.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import MisclassifiedDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(
    ...     X / 16, y, train_size=200, random_state=0
    ... )
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0)
    >>> model = model.fit(X_train, y_train)
    >>> display = MisclassifiedDisplay.from_estimator(model, X_test, y_test, n_images=4)
    >>> display.confusion_matrix.shape, len(display.images)
    ((10, 10), 4)
    """

    _renamed = {"photos": "images", "photos_ax_": "images_ax_", "photo_axes_": "image_axes_"}

    def __init__(
        self,
        confusion_matrix,
        display_labels,
        positions,
        true_labels,
        predicted_labels,
        *,
        probabilities=None,
        images=(),
    ):
        self.confusion_matrix = confusion_matrix
        self.display_labels = display_labels
        self.positions = positions
        self.true_labels = true_labels
        self.predicted_labels = predicted_labels
        self.probabilities = probabilities
        self.images = images

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_images=9, ax=None, cmap="Blues"):
        """Plot the errors of a fitted classifier.

        Parameters
        ----------
        estimator : classifier
            Fitted classifier of images: an sktl estimator, or a pipeline or search that
            contains one.
        X : array-like of images
            Images of the same kind as in `fit`. For a pipeline with steps before the
            network, the output of these steps is shown.
        y : array-like of shape (n_samples,)
            Labels of the images.
        n_images : int, default=9
            Maximum number of images to show.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the confusion matrix and the images.
        cmap : str or matplotlib Colormap, default="Blues"
            Colormap of the confusion matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator is not a classifier, or ``X`` and ``y`` differ in length.
        ImageError
            If ``X`` does not contain images. If images are one of several columns, pass
            this column to `from_predictions`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        check_is_fitted(estimator)
        if not is_classifier(estimator):
            raise InputError(f"MisclassifiedDisplay needs a classifier. Got {type(estimator).__name__} instead.")
        y_pred = estimator.predict(X)
        y_proba = None
        if hasattr(estimator, "predict_proba"):
            y_proba = _of_predicted(estimator.predict_proba(X), y_pred, estimator.classes_)
        images = images_of(estimator, X)
        display = cls._from_images(images, y, y_pred, y_proba, estimator.classes_, n_images)
        return display.plot(ax, cmap=cmap)

    @classmethod
    def from_predictions(
        cls,
        X,
        y_true,
        y_pred,
        y_proba=None,
        *,
        labels=None,
        n_images=9,
        image_shape=None,
        channels="auto",
        in_channels=3,
        ax=None,
        cmap="Blues",
    ):
        """Plot the errors of given predictions.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y_true : array-like of shape (n_samples,)
            True labels.
        y_pred : array-like of shape (n_samples,)
            Predicted labels.
        y_proba : array-like of shape (n_samples, n_classes) or (n_samples,), default=None
            Probabilities of all labels, or only of the predicted ones.
        labels : array-like of shape (n_classes,), default=None
            All labels, in the order of the columns of ``y_proba``. None uses the sorted
            labels of ``y_true`` and ``y_pred``.
        n_images : int, default=9
            Maximum number of images to show.
        image_shape : tuple of (height, width) or (height, width, channels), default=None
            Shape of each image if the images are flat rows of pixels. If None, the
            images are assumed to be square, with one or three channels.
        channels : {"auto", "first", "last"}, default="auto"
            Position of the channel axis in arrays. ``"auto"`` infers it from the shape
            and raises an error if that is ambiguous.
        in_channels : int, default=3
            Number of channels of the images: 3 for color, 1 for grayscale, more for
            multispectral images.
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the confusion matrix and the images.
        cmap : str or matplotlib Colormap, default="Blues"
            Colormap of the confusion matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            Object that stores the computed values and the matplotlib artists.

        Raises
        ------
        ValueError
            If lengths differ, or the number of columns of ``y_proba`` is not the number
            of labels.
        ImageError
            If ``X`` does not contain images.
        MissingDependencyError
            If matplotlib is not installed.
        """
        check_matplotlib(cls)
        y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
        labels = np.unique(np.concatenate([y_true, y_pred])) if labels is None else np.asarray(labels)
        if y_proba is not None:
            check_consistent_length(y_pred, y_proba)
            y_proba = _of_predicted(np.asarray(y_proba), y_pred, labels)
        images = read_images(X, image_shape=image_shape, channels=channels, in_channels=in_channels)
        return cls._from_images(images, y_true, y_pred, y_proba, labels, n_images).plot(ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="Blues"):
        """Plot the confusion matrix and the misclassified images.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Axes to draw on. If None, a new figure is created. A single Axes is divided
            in two; two Axes show the confusion matrix and the images.
        cmap : str or matplotlib Colormap, default="Blues"
            Colormap of the confusion matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            Object that stores the computed values and the matplotlib artists.
        """
        grid = {"nrows": 1, "ncols": 2, "width_ratios": [1, 1.1]}
        size = (11, 5.2) if len(self.display_labels) <= _FEW else (13.5, 6.5)  # room for names along both axes
        self.figure_, (self.ax_, self.images_ax_) = two_axes(self, ax, size, **grid)
        self._draw_matrix(cmap)
        self._draw_images()
        return self

    @classmethod
    def _from_images(cls, images, y_true, y_pred, y_proba, labels, n_images):
        """Find the errors and decode the first misclassified images."""
        check_consistent_length(range(len(images)), y_true, y_pred)
        y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
        labels = np.concatenate([labels, np.setdiff1d(y_true, labels)])  # labels that the classifier has not seen
        positions = np.flatnonzero(y_true != y_pred)
        if y_proba is not None:
            positions = positions[np.argsort(-y_proba[positions], kind="stable")]
        return cls(
            confusion_matrix(y_true, y_pred, labels=labels),
            labels,
            positions,
            y_true[positions],
            y_pred[positions],
            probabilities=None if y_proba is None else y_proba[positions],
            images=list(DecodedImages(images.take(positions[:n_images]))),
        )

    def _draw_matrix(self, cmap):
        n_classes = len(self.display_labels)
        names = [short(label) for label in self.display_labels]
        is_readable = n_classes <= _FEW
        turn = "horizontal" if n_classes * max(map(len, names)) <= 36 else "vertical"
        self.confusion_ = ConfusionMatrixDisplay(self.confusion_matrix, display_labels=names).plot(
            ax=self.ax_, cmap=cmap, include_values=is_readable, colorbar=False, xticks_rotation=turn
        )
        if not is_readable:  # a child of the axes is as high as the matrix in every layout
            bar = self.figure_.colorbar(self.confusion_.im_, cax=self.ax_.inset_axes([1.03, 0, 0.035, 1]))
            bar.ax.yaxis.get_major_locator().set_params(integer=True)
            self.ax_.tick_params(labelsize=8)
        n, n_wrong = int(np.sum(self.confusion_matrix)), len(self.positions)
        self.ax_.set_title(f"{n_wrong} of {n} images misclassified ({n_wrong / n:.1%})", fontsize="medium")
        if n_classes > _MANY:
            self.ax_.set(xticks=[], yticks=[], xlabel=f"Predicted label ({n_classes} classes)")

    def _draw_images(self):
        self.images_ax_.set_title(self._heading(), fontsize="medium")
        p = [None] * len(self.images) if self.probabilities is None else self.probabilities
        named = zip(
            self.true_labels, self.predicted_labels, p, self.images, strict=False
        )  # there may be more errors than images
        self.image_axes_ = image_grid(self.images_ax_, [image_title(*names) for *names, _ in named])
        for panel, image in zip(self.image_axes_, self.images, strict=True):
            show_image(panel, image)

    def _heading(self):
        n_errors, n_shown = len(self.positions), len(self.images)
        if n_errors < 2:
            return "the only error" if n_errors else "no errors"
        if n_shown == n_errors:
            return f"all {n_errors} errors"
        return f"the {'first' if self.probabilities is None else 'most confident'} {n_shown} of {n_errors} errors"


def _of_predicted(y_proba, y_pred, labels):
    """Return the probability of the predicted label of each row."""
    if y_proba.ndim == 1:
        return y_proba
    if y_proba.shape[1:] != (len(labels),):
        raise InputError(
            f"y_proba has shape {y_proba.shape}, but there are {len(labels)} labels. Pass labels in the order of the "
            "columns of y_proba, or only the probabilities of the predicted labels."
        )
    columns = {label: column for column, label in enumerate(labels)}
    return y_proba[np.arange(len(y_pred)), [columns[label] for label in y_pred]]
