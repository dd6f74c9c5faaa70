"""Tables of pixels to pictures: for data sets that come as CSV files, ``.npz`` files or from OpenML."""

from typing import ClassVar

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sktl._images import check_rows, images_to_rows, rows_to_images
from sktl._params import Estimator
from sktl.exceptions import ImageError

__all__ = ["PixelRowsToImages"]


class PixelRowsToImages(TransformerMixin, Estimator):
    """Unfold flat rows of pixels into pictures.

    Every estimator of sktl understands flat rows by itself. This transformer is for when the rows need more words
    than ``image_shape=`` (another pixel order), when they shall be looked at, or when another library takes over.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C), default=None
        Shape of one picture, in pixels. With None, a square or 3 x a square is understood, and any other width
        is padded with black to the next square, with a warning.
    order : {"C", "F"}, default="C"
        "C": the pixels of one line of the picture are next to each other. "F": those of one column are, as in
        EMNIST and in data written by MATLAB; pictures that come out transposed need this.
    channels : {"last", "first"}, default="last"
        "last": the red, green and blue of one pixel are next to each other. "first": all red comes first, then all
        green, then all blue, as in CIFAR-10's own files. Of no consequence for grey pictures.
    rgb : bool, default=False
        Whether grey pictures come out with three equal channels.

    Attributes
    ----------
    image_format_ : ImageFormat
        What was learnt: the pictures' ``shape`` (H, W, C) and the ``value_range`` that becomes 0-255. ``uint8``,
        ``uint16`` and ``bool`` have the range of their type; other types are 0-1, 0-255 or what was seen in ``fit``.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``; only where all are strings.

    See Also
    --------
    sktl.feature_extraction.PretrainedFeatureExtractor : Takes the pictures, and flat rows as well.

    Notes
    -----
    What a row loses on its way to pictures and back (:meth:`inverse_transform`): values are rounded to 1/255 of the
    value range and clipped to it. Whole numbers from 0 to 255 lose nothing.

    A table has names for its columns, pictures have none: there is no ``get_feature_names_out``, and ``set_output``
    does not apply.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.preprocessing import PixelRowsToImages
    >>> rows = np.array([[0, 50, 100, 150, 200, 250]])
    >>> to_images = PixelRowsToImages(image_shape=(2, 3))
    >>> to_images.fit_transform(rows)
    array([[[  0,  50, 100],
            [150, 200, 250]]], dtype=uint8)
    >>> to_images.inverse_transform(to_images.transform(rows))
    array([[  0,  50, 100, 150, 200, 250]], dtype=uint8)
    """

    _parameter_constraints: ClassVar[dict] = {
        "image_shape": [tuple, list, None],
        "order": [StrOptions({"C", "F"})],
        "channels": [StrOptions({"last", "first"})],
        "rgb": ["boolean"],
    }

    def __init__(self, image_shape=None, *, order="C", channels="last", rgb=False):
        self.image_shape = image_shape
        self.order = order
        self.channels = channels
        self.rgb = rgb

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the pictures' shape and value range.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flat rows.
        y : None
            Ignored.

        Returns
        -------
        self : PixelRowsToImages
            The fitted transformer.

        Raises
        ------
        ImageError
            If ``image_shape`` does not fit the rows, or ``rgb=True`` is asked of pictures with 2 channels, 4 or more.
        """
        check_rows(self, X, reset=True)
        if self.rgb and (n_channels := self.image_format_.shape[2]) not in (1, 3):
            raise ImageError(f"rgb=True needs pictures of 1 or 3 channels, but image_shape says {n_channels}.")
        return self

    def transform(self, X):
        """Unfold rows into pictures.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flat rows.

        Returns
        -------
        images : ndarray of shape (n_samples, H, W) or (n_samples, H, W, C), dtype uint8
            Without the last axis where the pictures are grey and ``rgb=False``.
        """
        check_is_fitted(self)
        images = rows_to_images(check_rows(self, X, reset=False), self.image_format_)
        if images.shape[3] > 1:
            return images
        return np.repeat(images, 3, axis=3) if self.rgb else images[..., 0]

    def inverse_transform(self, X):
        """Fold pictures back into rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, H, W) or (n_samples, H, W, C)
            Pictures as :meth:`transform` gives them, on the scale 0-255. Of grey pictures with three channels the
            first counts.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features_in_)
            Rows in the value range and pixel order given to ``fit``: of the dtype of ``X`` where that range is 0-255,
            else ``float64``.

        Raises
        ------
        ImageError
            If the pictures do not have the shape learnt in ``fit``.
        """
        check_is_fitted(self)
        images, (height, width, n_channels) = np.asarray(X), self.image_format_.shape
        if images.ndim == 3 and n_channels == 1:
            images = images[..., np.newaxis]
        if images.ndim == 4 and n_channels == 1 and self.rgb:
            images = images[..., :1]
        if images.shape[1:] != (height, width, n_channels):
            raise ImageError(
                f"X has the shape {np.shape(X)}, but the pictures learnt in fit are {height} x {width} with "
                f"{n_channels} channel(s): give what transform gives."
            )
        return images_to_rows(images, self.image_format_, self.n_features_in_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # pictures are uint8 whatever the rows are
        return tags
