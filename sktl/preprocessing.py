"""Transformers for image files and tables of pixels."""

import math
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from sktl._images import (
    LazyImage,
    LazyImages,
    ReadSettings,
    Remembering,
    as_column,
    check_names,
    check_rows,
    images_to_rows,
    in_range,
    pixel_order,
    rows_to_images,
    understand,
    validate_rows,
)
from sktl._optional import import_optional
from sktl._params import Estimator
from sktl.exceptions import ImageError, InputError

__all__ = ["ImageReader", "PixelRowsToImages"]


class ImageReader(TransformerMixin, Estimator):
    """Configure how image files are read.

    Every sktl estimator reads common image files directly. Put this transformer in
    front of the estimator if a path alone is not enough: to set the value range of
    12-bit or float images, to read files with your own function, or to select a page.
    The transformer does not read any file. It returns lazy images, which are read when
    the estimator needs their pixels.

    Parameters
    ----------
    reader : callable, "tifffile" or None, default=None
        Reader of the files. If None, files are read with Pillow, except for TIFF files
        that Pillow cannot read correctly, which are read with tifffile
        (``pip install 'sktl[tiff]'``). ``"tifffile"`` reads all TIFF files with
        tifffile. A callable receives a path, or a binary file object if the item is not
        a path, and returns an array of shape (H, W) or (H, W, C) with any number of
        channels. The callable must be thread-safe, and importable if the estimator is
        pickled or run with ``n_jobs``.
    value_range : (float, float) or None, default=None
        Values that become black and white, such as ``(0, 4095)`` for a 12-bit camera.
        Values outside this range are clipped. The range applies to all dtypes except
        ``uint8`` and ``bool``. If None, the bit depth stored in the file is used, and
        an error is raised for floats and for arrays returned by ``reader`` whose
        integer dtype is neither ``uint8`` nor ``uint16``.
    max_pixels : int or "auto", default="auto"
        Maximum number of pixels of an image. Larger images raise an error because they
        may be decompression bombs. ``"auto"`` allows images that fit into 1/16 of the
        memory at 4 bytes per pixel, and always allows 89 million pixels.
    page : int, default=0
        Index of the image to read from a file with several pages or frames (TIFF, GIF).
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. ``"raise"`` raises an error. ``"nan"``
        has the same effect as ``on_error="nan"`` of the estimator that follows: the
        image leads to a warning and to a row of NaN, or is left out of `fit`.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns seen during `fit`. Only defined if ``X`` is a table with
        columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    Raises
    ------
    ImageError
        If ``X`` is not a table of images.
    InputError
        If ``value_range`` is not a valid range, or if ``page`` is combined with a
        callable ``reader``.
    MissingDependencyError
        If ``reader="tifffile"`` and tifffile is not installed.

    See Also
    --------
    sktl.feature_extraction.PretrainedFeatureExtractor : Extract features from images.
    sktl.datasets.load_image_folder : Load the paths and labels of a folder of images.

    Notes
    -----
    The cache key of a feature consists of the bytes of the file and the parameters of
    the reader. A callable is identified by its code, its defaults, its closure, and the
    functions, classes and constants that it uses from modules that are not installed
    packages. Installed packages are identified by name: a new version of a package does
    not invalidate cached features. With a callable, each file is read twice: once for
    the cache key and once by the callable.

    Arrays and rows of numbers are returned as arrays. They are scaled to 0-255 if
    ``value_range`` is given.

    In a :class:`~sklearn.compose.ColumnTransformer`, put the reader into a pipeline
    together with the estimator that follows.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.preprocessing import ImageReader
    >>> twelve_bits = np.array([[[0, 1000], [2000, 4095]]], dtype=np.uint16)
    >>> ImageReader(value_range=(0, 4095)).fit_transform(twelve_bits)
    array([[[  0,  62],
            [125, 255]]], dtype=uint8)

    Files are not read by the transformer:

    >>> ImageReader(value_range=(0, 4095)).fit_transform(["scan.tif"])
    array([LazyImage(str ('scan.tif'))], dtype=object)
    """

    _parameter_constraints: ClassVar[dict] = {
        "reader": [callable, StrOptions({"tifffile"}), None],
        "value_range": [tuple, list, None],
        "max_pixels": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "page": [Interval(Integral, 0, None, closed="left")],
        "on_error": [StrOptions({"raise", "nan"})],
    }

    def __init__(self, *, reader=None, value_range=None, max_pixels="auto", page=0, on_error="raise"):
        self.reader = reader
        self.value_range = value_range
        self.max_pixels = max_pixels
        self.page = page
        self.on_error = on_error

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the parameters and the type of ``X``, without reading files.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.
        y : None
            Ignored.

        Returns
        -------
        self : ImageReader
            The fitted transformer.
        """
        self._read(X, reset=True)
        return self

    def transform(self, X):
        """Attach the reading options to each image.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels; see the user guide.

        Returns
        -------
        images : ndarray of shape (n_samples,), dtype object
            Lazy images. Arrays and rows of numbers are returned as arrays of the same
            shape. A sequence that decodes its items on access, such as a column of a
            Hugging Face dataset, is returned as a sequence of the same kind; with
            ``set_output``, its items are decoded and returned as a column.
        """
        return self._read(X, reset=False)

    def get_feature_names_out(self, input_features=None):
        """Get output feature names for transformation.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Input features. If None, the names seen during `fit` are used. If ``X`` had
            no columns in `fit`, the name is ``"image"``.

        Returns
        -------
        feature_names_out : ndarray of shape (n_columns,), dtype object
            Name of the column of images, or names of the columns of pixels.
        """
        if input_features is None and not hasattr(self, "n_features_in_"):
            return np.array(["image"], dtype=object)
        names = _check_feature_names_in(self, input_features)
        order = pixel_order(names)
        return names if order is None else names[order]

    def _read(self, X, *, reset):
        """Return ``X`` with the reading options attached to each image."""
        reading = self._reading()
        kind, source = understand(X, strict=False)
        if kind == "rows":
            return self._scaled(validate_rows(self, source, reset=reset), reading)
        check_names(self, X, reset=reset)
        is_plain = _get_output_config("transform", self)["dense"] == "default"  # otherwise a one-column table
        if kind == "batch" and is_plain:
            return self._scaled(source, reading)
        if isinstance(source, Remembering) and is_plain:
            return LazyImages(X, reading, self.on_error)
        return as_column([self._lazy(item, reading) for item in source])

    def _reading(self):
        """Validate the parameters and return them as a `ReadSettings`."""
        self._validate_params()
        value_range = None if self.value_range is None else tuple(self.value_range)
        if value_range is not None and not _is_range(value_range):
            raise InputError(
                "The 'value_range' parameter of ImageReader must be a tuple (low, high) of finite values with "
                f"low < high. Got {self.value_range!r} instead."
            )
        if callable(self.reader) and self.page:
            raise InputError(
                f"page={self.page} cannot be combined with a callable reader. Use page=0 and select the page in the "
                "reader."
            )
        if self.reader == "tifffile":
            import_optional("tifffile", extra="tiff", purpose="reader='tifffile'")
        return ReadSettings(None, value_range, self.max_pixels, self.page, self.reader)

    def _lazy(self, item, reading):
        """Wrap an item in a lazy image; the options of a previous reader are kept."""
        return item if isinstance(item, LazyImage) else LazyImage(item, reading, self.on_error)

    def _scaled(self, values, reading):
        """Scale an array to 0-255 if ``value_range`` is given.

        An array with NaN or infinite values becomes a column of lazy images, so that
        only the affected images raise an error.
        """
        if reading.value_range is None or values.dtype.kind not in "buif":
            return values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return as_column([self._lazy(item, reading) for item in values])
        return in_range(values, None, reading)

    def __sklearn_is_fitted__(self):
        return True  # stateless

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.requires_fit = False
        if self.value_range is not None:
            tags.transformer_tags.preserves_dtype = []  # scaled to uint8
        return tags


def _is_range(bounds):
    numbers = len(bounds) == 2 and all(isinstance(bound, int | float | np.number) for bound in bounds)
    return numbers and all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]


class PixelRowsToImages(TransformerMixin, Estimator):
    """Reshape flat rows of pixels into images.

    Every sktl estimator accepts flat rows of pixels directly. Use this transformer for
    rows in another pixel order, to look at the images, or to pass them to another
    library.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C), default=None
        Shape of each image, in pixels. If None, the images are assumed to be square,
        with one or three channels. Any other number of pixels is padded with black to
        the next square, with a warning.
    order : {"C", "F"}, default="C"
        Order of the pixels in a row. With ``"C"``, the pixels of a line of the image
        are adjacent. With ``"F"``, the pixels of a column of the image are adjacent, as
        in EMNIST and in data written by MATLAB. Change it if the images come out
        transposed.
    channels : {"last", "first"}, default="last"
        Order of the channels in a row. With ``"last"``, the red, green and blue values
        of a pixel are adjacent. With ``"first"``, all red values come first, then all
        green, then all blue, as in the files of CIFAR-10. Ignored for grayscale images.
    rgb : bool, default=False
        Whether to return grayscale images with three identical channels.

    Attributes
    ----------
    image_format_ : ImageFormat
        Format of the images seen during `fit`. ``shape`` is the image shape (H, W, C),
        and ``value_range`` the range that is scaled to 0-255: the range of the dtype
        for ``uint8``, ``bool``, and ``uint16`` if values in its upper half occur; for
        all other data 0-1, 0-255, or the range seen during `fit`.
    n_features_in_ : int
        Number of columns seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of columns seen during `fit`. Only defined if the column names of ``X``
        are all strings.

    See Also
    --------
    sktl.feature_extraction.PretrainedFeatureExtractor : Extract features from images or
        flat rows of pixels.

    Notes
    -----
    `transform` rounds values to 1/255 of the value range and clips them to that range,
    so `inverse_transform` restores them only up to this precision. Integers from 0 to
    255 are restored exactly.

    The output has no columns, so the transformer has neither ``get_feature_names_out``
    nor ``set_output``.

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
        """Learn the shape and the value range of the images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flat rows of pixels.
        y : None
            Ignored.

        Returns
        -------
        self : PixelRowsToImages
            The fitted transformer.

        Raises
        ------
        ImageError
            If ``image_shape`` does not match the number of pixels, or if ``rgb=True``
            and the images do not have 1 or 3 channels.
        """
        check_rows(self, X, reset=True)
        if self.rgb and (n_channels := self.image_format_.shape[2]) not in (1, 3):
            raise ImageError(
                f"rgb=True requires images with 1 or 3 channels, but image_shape={self.image_shape} has {n_channels}."
            )
        return self

    def transform(self, X):
        """Reshape flat rows into images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Flat rows of pixels.

        Returns
        -------
        images : ndarray of shape (n_samples, H, W) or (n_samples, H, W, C), dtype uint8
            The images. Grayscale images have no channel axis unless ``rgb=True``.
        """
        check_is_fitted(self)
        images = rows_to_images(check_rows(self, X, reset=False), self.image_format_)
        if images.shape[3] > 1:
            return images
        return np.repeat(images, 3, axis=3) if self.rgb else images[..., 0]

    def inverse_transform(self, X):
        """Reshape images back into flat rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, H, W) or (n_samples, H, W, C)
            Images as returned by `transform`, with values from 0 to 255. If
            ``rgb=True``, only the first channel of grayscale images is used.

        Returns
        -------
        rows : ndarray of shape (n_samples, n_features_in_)
            Rows with the value range and the pixel order seen during `fit`. The dtype
            is that of ``X`` if the value range is 0-255, and ``float64`` otherwise.

        Raises
        ------
        ImageError
            If the images do not have the shape learned in `fit`.
        """
        check_is_fitted(self)
        images, (height, width, n_channels) = np.asarray(X), self.image_format_.shape
        if images.ndim == 3 and n_channels == 1:
            images = images[..., np.newaxis]
        if images.ndim == 4 and n_channels == 1 and self.rgb:
            images = images[..., :1]
        if images.shape[1:] != (height, width, n_channels):
            raise ImageError(
                f"X has shape {np.shape(X)}, but the images seen in fit are {height} x {width} with {n_channels} "
                "channel(s). Pass images as returned by transform."
            )
        rows = images_to_rows(images, self.image_format_, self.n_features_in_)
        order = pixel_order(getattr(self, "feature_names_in_", None))
        return rows if order is None else rows[:, np.argsort(order)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # images are always uint8
        return tags
