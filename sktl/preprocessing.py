"""Transformers for image files and for tables of pixels."""

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
    """Transformer that sets how image files are read.

    Every estimator of sktl reads ordinary files by itself. Put this transformer before it if the files need more than a
    path: the values that are black and white, a reader function, or a page. It does not read the files. It returns lazy
    images, which the estimator reads when it needs their pixels.

    Parameters
    ----------
    reader : callable, "tifffile" or None, default=None
        Function that reads a file. If None, Pillow is used, and tifffile for the TIFF files that Pillow refuses or
        misreads (extra ``tiff``). "tifffile" uses tifffile for all TIFF files. A callable receives the path, or a
        binary file if the item is not a path, and returns an array of shape (H, W) or (H, W, C) with any number of
        channels. It is called from several threads. Use an importable function if the estimator will be pickled or run
        with ``n_jobs``.
    value_range : (float, float) or None, default=None
        The values that are black and white, such as ``(0, 4095)`` for a 12-bit camera. Values outside are clipped. It
        applies to every type except ``uint8`` and ``bool``. If None, the bit depth stated in the file is used; floats,
        and integers other than ``uint8`` and ``uint16`` from a ``reader``, then raise an error.
    max_pixels : int or "auto", default="auto"
        The largest image to decode, in pixels. Larger images raise an error, as they may be decompression bombs. "auto"
        allows images that fit in a sixteenth of the machine's memory at 4 bytes per pixel, and at least 89 million
        pixels.
    page : int, default=0
        Which image to read from a file that holds several (TIFF, GIF), counted from 0.
    on_error : {"raise", "nan"}, default="raise"
        What to do if an image cannot be read. "nan" has the same effect as ``on_error="nan"`` of the estimator that
        follows: a row of NaN and a warning, or a row that is left out of `fit`.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns seen in ``fit``; only if ``X`` is a table with columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``; only if all are strings.

    Raises
    ------
    ImageError
        If ``X`` is not a table of images.
    InputError
        If ``value_range`` is not a range, or if a callable is combined with ``page``.
    MissingDependencyError
        If ``reader="tifffile"`` and tifffile is not installed.

    See Also
    --------
    sktl.feature_extraction.PretrainedFeatureExtractor : Takes the images.
    sktl.datasets.load_image_folder : Lists the files of a folder.

    Notes
    -----
    Features are cached under the bytes of the file and these parameters. A callable is identified by its code, its
    defaults and closure, and the functions, classes and constants of your own modules that it uses. Installed packages
    are identified by name: a new version of one does not invalidate cached features. The file is read once for its
    bytes and once by the callable.

    Arrays and rows of numbers are returned as arrays, scaled to 0-255 if ``value_range`` is given.

    In a :class:`~sklearn.compose.ColumnTransformer`, use it in a pipeline with the estimator that follows.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.preprocessing import ImageReader
    >>> twelve_bits = np.array([[[0, 1000], [2000, 4095]]], dtype=np.uint16)
    >>> ImageReader(value_range=(0, 4095)).fit_transform(twelve_bits)
    array([[[  0,  62],
            [125, 255]]], dtype=uint8)

    Files are not read yet:

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
        """Check the parameters and that ``X`` is a table of images; no file is read.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide.
        y : None
            Ignored.

        Returns
        -------
        self : ImageReader
            The reader.
        """
        self._read(X, reset=True)
        return self

    def transform(self, X):
        """Attach the reading options to each image.

        Parameters
        ----------
        X : array-like of images
            Paths, images, a batch array or rows of pixels, see the user guide.

        Returns
        -------
        images : ndarray of shape (n_images,), dtype object
            Lazy images. Arrays and rows of numbers are returned as arrays of the same shape. A sequence that decodes
            its items each time, such as a column of a Hugging Face dataset, is returned as such a sequence (with
            ``set_output``, as a column that holds the decoded items).
        """
        return self._read(X, reset=False)

    def get_feature_names_out(self, input_features=None):
        """Name of the column of images, or names of the columns of rows of pixels.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns; None takes those seen in ``fit``, and "image" if there were none.

        Returns
        -------
        names : ndarray of shape (n_columns,), dtype object
            The names.
        """
        if input_features is None and not hasattr(self, "n_features_in_"):
            return np.array(["image"], dtype=object)
        names = _check_feature_names_in(self, input_features)
        order = pixel_order(names)
        return names if order is None else names[order]

    def _read(self, X, *, reset):
        """``X``, each image of it with how it is read."""
        reading = self._reading()
        kind, source = understand(X, strict=False)
        if kind == "rows":
            return self._scaled(validate_rows(self, source, reset=reset), reading)
        check_names(self, X, reset=reset)
        is_plain = _get_output_config("transform", self)["dense"] == "default"  # else a table with one column
        if kind == "batch" and is_plain:
            return self._scaled(source, reading)
        if isinstance(source, Remembering) and is_plain:
            return LazyImages(X, reading, self.on_error)
        return as_column([self._lazy(item, reading) for item in source])

    def _reading(self):
        """The parameters as one value."""
        self._validate_params()
        value_range = None if self.value_range is None else tuple(self.value_range)
        if value_range is not None and not _is_range(value_range):
            raise InputError(
                f"value_range={self.value_range!r} must be (low, high), two finite numbers of which the first is lower."
            )
        if callable(self.reader) and self.page:
            raise InputError(
                f"page={self.page} cannot be combined with a callable reader. Use page=0, and select the page in the "
                "reader."
            )
        if self.reader == "tifffile":
            import_optional("tifffile", extra="tiff", purpose="reader='tifffile'")
        return ReadSettings(None, value_range, self.max_pixels, self.page, self.reader)

    def _lazy(self, item, reading):
        """One image, unless it comes from another reader, whose options stay."""
        return item if isinstance(item, LazyImage) else LazyImage(item, reading, self.on_error)

    def _scaled(self, values, reading):
        """Arrays on the scale 0-255, if the value range is given; one by one, if some are not to be scaled."""
        if reading.value_range is None or values.dtype.kind not in "buif":
            return values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return as_column([self._lazy(item, reading) for item in values])
        return in_range(values, None, reading)

    def __sklearn_is_fitted__(self):
        return True  # nothing is learned

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.requires_fit = False
        if self.value_range is not None:
            tags.transformer_tags.preserves_dtype = []  # on the scale 0-255
        return tags


def _is_range(bounds):
    numbers = len(bounds) == 2 and all(isinstance(bound, int | float | np.number) for bound in bounds)
    return numbers and all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]


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
        What was learned: the images' ``shape`` (H, W, C) and the ``value_range`` that becomes 0-255. ``uint8`` and
        ``bool`` have the range of their type, and so has ``uint16`` if its upper half is used; other types are 0-1,
        0-255 or what was seen in ``fit``.
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
        rows = images_to_rows(images, self.image_format_, self.n_features_in_)
        order = pixel_order(getattr(self, "feature_names_in_", None))
        return rows if order is None else rows[:, np.argsort(order)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # pictures are uint8 whatever the rows are
        return tags
