"""Preprocessing of images: resizing, cropping and normalization."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sktl.exceptions import BackboneError

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}

# Aspect ratio above which only the crop is resized: resized as a whole, a 1 x 5000
# image would become 256 x 1,280,000.
_EXTREME_ASPECT = 16
_WIDEST_FILTER = 3  # radius of the Lanczos filter in pixels, without shrinking


@dataclass(frozen=True)
class Preprocessing:
    """Size, crop, interpolation, mean and standard deviation used to prepare images.

    An image is resized so that its shorter side has length ``resize_size``. Then its
    center is cropped to ``crop_size``, with a black border if the image is smaller.
    Finally, the values are scaled to the range from 0 to 1, ``mean`` is subtracted, and
    the result is divided by ``std``.

    Parameters
    ----------
    resize_size : int, default=256
        Length of the shorter side after resizing, in pixels.
    crop_size : int or (int, int), default=224
        Side length or (height, width) of the center crop, in pixels.
    interpolation : str, default="bilinear"
        Interpolation method: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"box"``,
        ``"hamming"`` or ``"lanczos"``.
    mean : tuple of float, default=(0.485, 0.456, 0.406)
        Mean of each channel, for values between 0 and 1. The default is the mean of
        ImageNet.
    std : tuple of float, default=(0.229, 0.224, 0.225)
        Standard deviation of each channel, for values between 0 and 1. The default is
        the standard deviation of ImageNet.
    antialias : bool, default=True
        Whether to apply antialiasing when shrinking. Only True is supported, because
        pretrained weights expect antialiased images.

    Raises
    ------
    BackboneError
        If a value is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.backbones import Preprocessing
    >>> preprocessing = Preprocessing(resize_size=32, crop_size=28)
    >>> preprocessing.apply(np.zeros((40, 60, 3), np.uint8)).shape
    (28, 28, 3)
    """

    resize_size: int = 256
    crop_size: "int | tuple[int, int]" = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    antialias: bool = True

    def __post_init__(self) -> None:
        def fail(problem: str) -> NoReturn:
            raise BackboneError(f"Invalid preprocessing: {problem}. Got {self!r} instead.")

        # Lists come from dicts and JSON, integers from NumPy. The dataclass is hashable.
        try:
            crop = self.crop_size
            cleaned = {
                "resize_size": operator.index(self.resize_size),
                "crop_size": tuple(map(operator.index, crop)) if isinstance(crop, Sequence) else operator.index(crop),
                "mean": tuple(map(float, self.mean)),
                "std": tuple(map(float, self.std)),
            }
        except (TypeError, ValueError):
            fail(
                "resize_size must be an integer (the shorter side), crop_size an integer or (height, width), and mean "
                "and std tuples with one number per channel"
            )
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)
        if self.resize_size < 1 or min(self.crop_shape, default=0) < 1 or len(self.crop_shape) != 2:
            fail("resize_size and crop_size must be at least 1 pixel, and crop_size one side length or (height, width)")
        if self.interpolation not in list(_RESAMPLING):
            fail(f"interpolation must be one of {sorted(_RESAMPLING)}")
        if len(self.mean) != len(self.std) or not all(0 < value < math.inf for value in self.std):
            fail("mean and std must have one value per channel, and std must be positive and finite")
        if not self.antialias:
            fail("antialias=False is not supported, because pretrained weights expect antialiased images")

    @property
    def crop_shape(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return (self.crop_size, self.crop_size) if isinstance(self.crop_size, int) else self.crop_size

    @property
    def key(self) -> str:
        """String that identifies all settings."""
        return "|".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))

    @property
    def pixels_key(self) -> str:
        """String that identifies all settings except ``mean`` and ``std``."""
        return replace(self, mean=(), std=()).key

    def for_channels(self, n_channels: int) -> "Preprocessing":
        """Return the preprocessing of images with another number of channels.

        Parameters
        ----------
        n_channels : int
            Number of channels. For one channel, ``mean`` and ``std`` are averaged over
            the channels. For any other number, their values are repeated in order.

        Returns
        -------
        Preprocessing
            The adapted preprocessing.
        """
        if n_channels == len(self.mean):
            return self
        if n_channels == 1:
            return replace(self, mean=(float(np.mean(self.mean)),), std=(float(np.mean(self.std)),))

        def repeated(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(values[channel % len(values)] for channel in range(n_channels))

        return replace(self, mean=repeated(self.mean), std=repeated(self.std))

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop an image.

        The result is bit-identical to that of torchvision's presets on a PIL image. For
        aspect ratios above 16, the two results are equal up to rounding.

        Parameters
        ----------
        image : ndarray of shape (height, width, channels) and dtype uint8
            The image, with any number of channels.

        Returns
        -------
        ndarray of shape (crop height, crop width, channels) and dtype uint8
            The resized and cropped image.
        """
        n_channels = image.shape[2]
        if n_channels == 3:
            return np.asarray(self._resize_and_crop(Image.fromarray(image)))
        # PIL supports 1 and 3 channels. Other images are resized channel by channel.
        planes = [Image.fromarray(np.ascontiguousarray(image[:, :, channel])) for channel in range(n_channels)]
        return np.stack([np.asarray(self._resize_and_crop(plane)) for plane in planes], axis=2)

    def _resize_and_crop(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        # torchvision truncates the longer side. Rounding it would shift every pixel.
        new_long = int(self.resize_size * long / short)
        width, height = (self.resize_size, new_long) if image.width <= image.height else (new_long, self.resize_size)
        crop_height, crop_width = self.crop_shape
        left, top = _crop_offset(width, crop_width), _crop_offset(height, crop_height)
        if long > _EXTREME_ASPECT * short:
            return self._resize_only_the_crop(image, (width, height), (left, top))
        if (width, height) != image.size:
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        return image.crop((left, top, left + crop_width, top + crop_height))

    def _resize_only_the_crop(self, image: Image.Image, size: tuple[int, int], offset: tuple[int, int]) -> Image.Image:
        """Return the crop of ``image`` resized to ``size``, without resizing all of it.

        PIL's filter also reads the pixels around the box. Columns are resized before
        rows, as PIL does in one call. Rows that do not contribute to the crop are cut
        off first, since there may be millions of them.
        """
        (width, height), (left, top), (crop_height, crop_width) = size, offset, self.crop_shape
        x_min, x_max = max(left, 0), min(left + crop_width, width)
        y_min, y_max = max(top, 0), min(top + crop_height, height)
        x_scale, y_scale = image.width / width, image.height / height
        y_first, y_last = y_min * y_scale, min(y_max * y_scale, image.height)
        margin = _WIDEST_FILTER * max(y_scale, 1) + 1
        first, last = max(math.floor(y_first - margin), 0), min(math.ceil(y_last + margin), image.height)
        rows = image.crop((0, first, image.width, last))
        x_box = (x_min * x_scale, 0, min(x_max * x_scale, image.width), rows.height)
        part = rows.resize((x_max - x_min, rows.height), _RESAMPLING[self.interpolation], box=x_box)
        y_box = (0, y_first - first, part.width, y_last - first)
        part = part.resize((part.width, y_max - y_min), _RESAMPLING[self.interpolation], box=y_box)
        canvas = Image.new(image.mode, (crop_width, crop_height))
        canvas.paste(part, (x_min - left, y_min - top))
        return canvas


def _crop_offset(size: int, crop: int) -> int:
    """Return the start of a center crop, rounded as in torchvision.

    The start is negative if the crop starts in the padding.
    """
    return round((size - crop) / 2.0) if size >= crop else -((crop - size) // 2)


def check_preprocessing(
    preprocessing: "Preprocessing | Mapping[str, Any] | None", default: Preprocessing
) -> Preprocessing:
    """Return the given preprocessing, with missing settings taken from ``default``.

    Raises
    ------
    BackboneError
        If ``preprocessing`` has another type, or is a dict with unknown keys.
    """
    if preprocessing is None:
        return default
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    names = [field.name for field in fields(Preprocessing)]
    if not isinstance(preprocessing, Mapping) or not set(preprocessing) <= set(names):
        raise BackboneError(
            f"preprocessing={preprocessing!r} is invalid. Use None for the preprocessing of the weights, a "
            f"sktl.backbones.Preprocessing, or a dict with some of the keys {names}."
        )
    return replace(default, **preprocessing)
