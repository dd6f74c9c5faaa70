"""Anything that holds images, through one door, to ``uint8`` pixels.

``check_images(estimator, X, reset=...)`` is to image tables what scikit-learn's ``validate_data`` is to
numbers. What ``X`` may be, and what becomes of it:

============================================================  =====================================================
``X``                                                         each image
============================================================  =====================================================
list, array, Series, one-column DataFrame of ``str`` / path   a file (or a ``file:``, ``data:`` or base64 text)
the same of ``bytes``, open files, ``{"bytes", "path"}``      an encoded file
list of PIL images                                            its current frame
list of ``(H, W)`` / ``(H, W, C)`` arrays or tensors          as it is; sizes may differ
``(n, H, W)``, ``(n, H, W, C)``, ``(n, C, H, W)``             one of the batch; an ambiguous axis is an error
``(n, n_pixels)`` array or DataFrame                          a flat row, unfolded to ``image_shape`` or to a square
the same of what `ImageReader` gives                          any of these, read as the reader says
============================================================  =====================================================

Four rules hold for all of them:

* What has to be learned (shape of flat rows, channel axis, value range) is learned at ``fit`` and kept in
  ``estimator.image_format_``. Afterwards an image's pixels depend on that image alone.
* ``uint8`` and ``bool`` values mean what their type says, and integers in files what the file says of their depth and
  sign; every other type, and 16 bits of which fewer are used, mean the range learned, or the one that `ImageReader`
  gives.
* A table that cannot be understood is an error at once. A single bad image is an ``ImageError`` when *it* is read, so
  that a caller may skip it.
* Files are read when it is their turn, and are not kept open.

The way of an image: ``_understand`` says what ``X`` is, ``_learn`` and ``_bit_depth`` what is learned from it,
``_sources`` where bytes come from, ``_read_settings`` how they are read, ``_decode`` (with ``_png`` and ``_tiff``) what
pixels they are, ``_unreadable`` which have none.
"""

from sktl._images._check_images import check_images, check_names, check_rows, validate_rows
from sktl._images._columns import TakesTables
from sktl._images._convert import images_to_rows, rows_to_images
from sktl._images._decode import in_range
from sktl._images._format import ImageFormat
from sktl._images._image_table import Images, TableImage
from sktl._images._lazy import LazyImage, LazyImages, Remembering, unwrapped
from sktl._images._learn import pixel_order
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
