"""Which classes are taken for which, and the pictures of the most confident mistakes."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.utils.validation import column_or_1d

from sktl._estimators._find_fitted import find_fitted
from sktl._images import check_images
from sktl._params import check_consistent_length, check_is_fitted
from sktl.exceptions import InputError
from sktl.inspection._axes import check_matplotlib, two_axes
from sktl.inspection._decoded_images import DecodedImages, read_images
from sktl.inspection._image_grid import image_grid, image_title, show_image
from sktl.inspection._text_layout import short

_FEW = 12  # classes of which the counts can be read in their cells
_MANY = 30  # classes of which the names cannot be read any more


class MisclassifiedDisplay:
    """A confusion matrix, and beside it the pictures that were classified most confidently wrong.

    It is recommended to use `from_estimator` or `from_predictions` to create one. All parameters are stored as
    attributes.

    Parameters
    ----------
    confusion_matrix : ndarray of shape (n_classes, n_classes)
        How many pictures of each class (rows) were given each label (columns).
    display_labels : ndarray of shape (n_classes,)
        The labels.
    positions : ndarray of shape (n_errors,)
        Where in ``X`` the wrongly classified pictures are: the most confident mistake first, or without probabilities
        in the order of ``X``.
    true_labels : ndarray of shape (n_errors,)
        What they are.
    predicted_labels : ndarray of shape (n_errors,)
        What they were taken for.
    probabilities : ndarray of shape (n_errors,), default=None
        The probability of the predicted label.
    photos : list of ndarray of shape (height, width, channels), dtype uint8, default=()
        The first few of them, to be shown; None for one that cannot be read.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the confusion matrix.
    photos_ax_ : matplotlib Axes
        In whose place the pictures are.
    photo_axes_ : list of matplotlib Axes
        With one picture each.
    figure_ : matplotlib Figure
        With all of them.
    confusion_ : sklearn.metrics.ConfusionMatrixDisplay
        The confusion matrix.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : The matrix alone, with shares instead of counts if wanted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktl import FineTunedClassifier
    >>> from sktl.inspection import MisclassifiedDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = FineTunedClassifier(max_epochs=1, random_state=0).fit(X[:200] / 16, y[:200])
    >>> display = MisclassifiedDisplay.from_estimator(model, X[200:400] / 16, y[200:400], n_photos=4)
    >>> display.confusion_matrix.shape, len(display.photos)
    ((10, 10), 4)
    """

    def __init__(
        self,
        confusion_matrix,
        display_labels,
        positions,
        true_labels,
        predicted_labels,
        *,
        probabilities=None,
        photos=(),
    ):
        self.confusion_matrix = confusion_matrix
        self.display_labels = display_labels
        self.positions = positions
        self.true_labels = true_labels
        self.predicted_labels = predicted_labels
        self.probabilities = probabilities
        self.photos = photos

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_photos=9, ax=None, cmap="Blues"):
        """Draw what a fitted classifier gets wrong.

        Parameters
        ----------
        estimator : classifier
            Fitted on pictures: an estimator of sktl, or a pipeline or search with one in it.
        X : array-like of images
            Images of the kind that `fit` has seen. Of a pipeline with steps before the network, those are shown that
            reach it.
        y : array-like of shape (n_images,)
            Their labels.
        n_photos : int, default=9
            How many pictures to show at most.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        cmap : str or matplotlib Colormap, default="Blues"
            Colours of the matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            With the data, and with what was drawn.

        Raises
        ------
        NotFittedError
            Where the estimator is not fitted.
        ValueError
            Where it is no classifier, or ``y`` does not match ``X`` in length.
        ImageError
            Where ``X`` is no table of pictures. Where a picture is one column of several, use `from_predictions` with
            that column.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        check_is_fitted(estimator)
        if not is_classifier(estimator):
            raise InputError(f"MisclassifiedDisplay needs a classifier, got {type(estimator).__name__}.")
        y_pred = estimator.predict(X)
        y_proba = None
        if hasattr(estimator, "predict_proba"):
            y_proba = _of_predicted(estimator.predict_proba(X), y_pred, estimator.classes_)
        reader = find_fitted(estimator, "image_format_")
        images = read_images(X) if reader is None else check_images(reader.estimator, reader.reached_by(X), reset=False)
        display = cls._from_images(images, y, y_pred, y_proba, estimator.classes_, n_photos)
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
        n_photos=9,
        image_shape=None,
        channels="auto",
        in_channels=3,
        ax=None,
        cmap="Blues",
    ):
        """Draw what was predicted wrongly, by whatever.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide.
        y_true : array-like of shape (n_images,)
            Their labels.
        y_pred : array-like of shape (n_images,)
            The labels that were predicted.
        y_proba : array-like of shape (n_images, n_classes) or (n_images,), default=None
            Probabilities of all labels, or of the predicted ones alone.
        labels : array-like of shape (n_classes,), default=None
            All labels, in the order of the columns of ``y_proba``. None takes those that occur, sorted.
        n_photos : int, default=9
            How many pictures to show at most.
        image_shape : tuple of (height, width) or (height, width, channels), default=None
            Shape of the pictures where ``X`` holds flat rows of pixels; None understands a square and 3 times a square.
        channels : {"auto", "first", "last"}, default="auto"
            Where the channel axis of arrays is, if it cannot be seen.
        in_channels : int, default=3
            Channels of the pictures: 3 for colour, 1 for grey, more for other sensors.
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw, see `plot`.
        cmap : str or matplotlib Colormap, default="Blues"
            Colours of the matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            With the data, and with what was drawn.

        Raises
        ------
        ValueError
            Where the lengths do not match, or ``y_proba`` has another number of columns than there are labels.
        ImageError
            Where ``X`` is no table of pictures.
        MissingDependencyError
            Where matplotlib is not installed.
        """
        check_matplotlib(cls)
        y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
        labels = np.unique(np.concatenate([y_true, y_pred])) if labels is None else np.asarray(labels)
        if y_proba is not None:
            check_consistent_length(y_pred, y_proba)
            y_proba = _of_predicted(np.asarray(y_proba), y_pred, labels)
        images = read_images(X, image_shape=image_shape, channels=channels, in_channels=in_channels)
        return cls._from_images(images, y_true, y_pred, y_proba, labels, n_photos).plot(ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="Blues"):
        """Draw the matrix and the pictures.

        Parameters
        ----------
        ax : matplotlib Axes, or array-like of two, default=None
            Where to draw. One is divided; two get the matrix and the pictures; None makes a new figure.
        cmap : str or matplotlib Colormap, default="Blues"
            Colours of the matrix.

        Returns
        -------
        display : MisclassifiedDisplay
            This object.
        """
        grid = {"nrows": 1, "ncols": 2, "width_ratios": [1, 1.1]}
        size = (11, 5.2) if len(self.display_labels) <= _FEW else (13.5, 6.5)  # for names along both axes
        self.figure_, (self.ax_, self.photos_ax_) = two_axes(self, ax, size, **grid)
        self._draw_matrix(cmap)
        self._draw_photos()
        return self

    @classmethod
    def _from_images(cls, images, y_true, y_pred, y_proba, labels, n_photos):
        """Find the mistakes, and decode the pictures of the first few."""
        check_consistent_length(range(len(images)), y_true, y_pred)
        y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
        labels = np.concatenate([labels, np.setdiff1d(y_true, labels)])  # a label that the classifier never saw
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
            photos=list(DecodedImages(images.take(positions[:n_photos]))),
        )

    def _draw_matrix(self, cmap):
        n_classes = len(self.display_labels)
        names = [short(label) for label in self.display_labels]
        is_readable = n_classes <= _FEW
        turn = "horizontal" if n_classes * max(map(len, names)) <= 36 else "vertical"
        self.confusion_ = ConfusionMatrixDisplay(self.confusion_matrix, display_labels=names).plot(
            ax=self.ax_, cmap=cmap, include_values=is_readable, colorbar=False, xticks_rotation=turn
        )
        if not is_readable:  # a child of the axes is as high as the matrix, whatever the layout
            bar = self.figure_.colorbar(self.confusion_.im_, cax=self.ax_.inset_axes([1.03, 0, 0.035, 1]))
            bar.ax.yaxis.get_major_locator().set_params(integer=True)
            self.ax_.tick_params(labelsize=8)
        n, n_wrong = int(np.sum(self.confusion_matrix)), len(self.positions)
        self.ax_.set_title(f"{n_wrong} of {n} images wrong ({n_wrong / n:.1%})", fontsize="medium")
        if n_classes > _MANY:
            self.ax_.set(xticks=[], yticks=[], xlabel=f"Predicted label ({n_classes} classes)")

    def _draw_photos(self):
        self.photos_ax_.set_title(self._heading(), fontsize="medium")
        p = [None] * len(self.photos) if self.probabilities is None else self.probabilities
        named = zip(self.true_labels, self.predicted_labels, p, self.photos, strict=False)  # there may be more mistakes
        self.photo_axes_ = image_grid(self.photos_ax_, [image_title(*names) for *names, _ in named])
        for panel, photo in zip(self.photo_axes_, self.photos, strict=True):
            show_image(panel, photo)

    def _heading(self):
        n_errors, n_shown = len(self.positions), len(self.photos)
        if n_errors < 2:
            return "the only mistake" if n_errors else "no mistakes"
        if n_shown == n_errors:
            return f"all {n_errors} mistakes"
        return f"the {'first' if self.probabilities is None else 'most confident'} {n_shown} of {n_errors} mistakes"


def _of_predicted(y_proba, y_pred, labels):
    """The probability of each picture's predicted label, (n_pictures,)."""
    if y_proba.ndim == 1:
        return y_proba
    if y_proba.shape[1:] != (len(labels),):
        raise InputError(
            f"y_proba has the shape {y_proba.shape}, but there are {len(labels)} labels. Give labels= in the order of "
            "its columns, or the probability of the predicted label alone."
        )
    columns = {label: column for column, label in enumerate(labels)}
    return y_proba[np.arange(len(y_pred)), [columns[label] for label in y_pred]]
