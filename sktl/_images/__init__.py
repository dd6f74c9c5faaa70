"""Validation of image inputs and decoding to ``uint8`` pixels.

``check_images(estimator, X, reset=...)`` does for tables of images what scikit-learn's
``validate_data`` does for tables of numbers. Supported inputs:

==========================================  ==========================================
``X``                                       each image
==========================================  ==========================================
list, array, Series or one-column           a file, or a ``file:`` URL, ``data:`` URL
DataFrame of ``str`` or path objects        or base64-encoded image
the same of ``bytes``, open files or        an encoded file
``{"bytes", "path"}`` dicts
list of PIL images                          the current frame
list of arrays or tensors of shape          the array; sizes may differ
``(H, W)`` or ``(H, W, C)``
array of shape ``(n, H, W)``,               an image of the batch; an ambiguous channel
``(n, H, W, C)`` or ``(n, C, H, W)``        axis is an error
array or DataFrame ``(n, n_pixels)``        a flat row, reshaped to ``image_shape`` or
                                            to a square
output of `ImageReader`                     any of these, with the reader's options
==========================================  ==========================================

Four rules apply to all of them:

* The shape of flat rows, the channel axis and the value range are learned in ``fit``
  and stored in ``estimator.image_format_``. Afterwards, the pixels of an image depend
  on that image alone.
* ``uint8`` and ``bool`` arrays use the range of their dtype, and integers in files the
  bit depth and sign stored in the file. All other dtypes, and 16-bit data that uses
  fewer bits, use the learned range or the ``value_range`` of an `ImageReader`.
* A table that is not supported raises an error immediately. A single unreadable image
  raises an ``ImageError`` when that image is read, so that callers can skip it.
* Files are read when their pixels are needed, and are closed afterwards.

Modules, in the order of processing: ``_understand`` finds the kind of ``X``, ``_learn``
and ``_bit_depth`` learn the format, ``_sources`` reads bytes, ``_read_settings`` holds
the reading options, ``_decode`` (with ``_png`` and ``_tiff``) decodes pixels, and
``_unreadable`` reports images that cannot be read.
"""

from sktl._images._check_images import check_images, check_names, check_rows, validate_rows
from sktl._images._columns import TakesTables
from sktl._images._convert import images_to_rows, rows_to_images
from sktl._images._decode import in_range
from sktl._images._format import ImageFormat
from sktl._images._image_table import Images, TableImage
from sktl._images._lazy import LazyImage, LazyImages, Remembering, unwrapped
from sktl._images._learn import learn_row_shape, pixel_order
from sktl._images._read_settings import ReadSettings
from sktl._images._refusals import refuse_single
from sktl._images._sources import is_missing
from sktl._images._understand import as_column, understand
from sktl._images._unreadable import (
    FINDER,
    UnreadableImage,
    as_unreadable,
    digests,
    find_unreadable,
    listed,
    naming_others,
    raise_unreadable,
)

__all__ = [
    "FINDER",
    "ImageFormat",
    "Images",
    "LazyImage",
    "LazyImages",
    "ReadSettings",
    "Remembering",
    "TableImage",
    "TakesTables",
    "UnreadableImage",
    "as_column",
    "as_unreadable",
    "check_images",
    "check_names",
    "check_rows",
    "digests",
    "find_unreadable",
    "images_to_rows",
    "in_range",
    "is_missing",
    "learn_row_shape",
    "listed",
    "naming_others",
    "pixel_order",
    "raise_unreadable",
    "refuse_single",
    "rows_to_images",
    "understand",
    "unwrapped",
    "validate_rows",
]
