"""Anything that holds pictures, through one door, to ``uint8`` pixels.

``check_images(estimator, X, reset=...)`` is to image tables what scikit-learn's ``validate_data`` is to
numbers. What ``X`` may be, and what becomes of it:

============================================================  =====================================================
``X``                                                         each picture
============================================================  =====================================================
list, array, Series, one-column DataFrame of ``str`` / path   a file, read when asked for, decoded when asked for
list (or object array) of ``bytes``                           an encoded file
list of PIL images                                            its current frame
list of ``(H, W)`` / ``(H, W, C)`` arrays or tensors          as it is; sizes may differ
``(n, H, W)``, ``(n, H, W, C)``, ``(n, C, H, W)``             one of the batch; an ambiguous axis is an error
``(n, n_pixels)`` array or DataFrame                          a flat row, unfolded to ``image_shape`` or to a square
============================================================  =====================================================

Three rules hold for all of them:

* What has to be learnt (shape of flat rows, channel axis, value range) is learnt at ``fit`` and kept in
  ``estimator.image_format_``. Afterwards a picture's pixels depend on that picture alone.
* ``uint8``, ``uint16`` and ``bool`` values mean what their type says; every other type means the range learnt.
* A table that cannot be understood is an error at once. A single bad picture is an ``ImageError`` when *it* is asked
  for, so that a caller may skip it.
"""

from sktl._images._convert import images_to_rows, rows_to_images
from sktl._images._door import check_images, check_rows
from sktl._images._format import ImageFormat
from sktl._images._pictures import Images, Picture

__all__ = ["ImageFormat", "Images", "Picture", "check_images", "check_rows", "images_to_rows", "rows_to_images"]
