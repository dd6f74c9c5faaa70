"""How a picture becomes what a network was trained on: resized, cropped, normalised."""

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

# From here on the resized picture is not built as a whole: a 1 x 5000 picture would become 256 x 1,280,000.
_EXTREME_ASPECT = 16
_WIDEST_FILTER = 3  # pixels that Lanczos looks at to each side, where nothing shrinks


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture before the network sees it.

    The shorter side is resized to ``resize_size``, the centre of ``crop_size`` is cut out (with a black border where
    the picture is smaller), the values are scaled to 0-1, and ``mean`` is taken off before dividing by ``std``.

    Parameters
    ----------
    resize_size : int, default=256
        Length of the shorter side after resizing, in pixels.
    crop_size : int or (int, int), default=224
        Side or (height, width) of the centre that the network sees, in pixels.
    interpolation : str, default="bilinear"
        ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"box"``, ``"hamming"`` or ``"lanczos"``.
    mean : tuple of float, default=(0.485, 0.456, 0.406)
        Mean per channel of values in 0-1; ImageNet's.
    std : tuple of float, default=(0.229, 0.224, 0.225)
        Standard deviation per channel of values in 0-1; ImageNet's.
    antialias : bool, default=True
        Whether shrinking averages over all pixels. Only True is offered: it is what the weights were trained on.

    Raises
    ------
    BackboneError
        Where a value makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from sktl.backbones import Preprocessing
    >>> Preprocessing(resize_size=32, crop_size=28).apply(np.zeros((40, 60, 3), np.uint8)).shape
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
            raise BackboneError(f"preprocessing: {problem} (in {self!r}).")

        # Lists come from dicts and JSON, integers from NumPy; a frozen dataclass has to be hashable.
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
                "resize_size is an integer (the shorter side), crop_size one or (height, width), "
                "mean and std are tuples with one number per channel"
            )
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)
        if self.resize_size < 1 or min(self.crop_shape, default=0) < 1 or len(self.crop_shape) != 2:
            fail("resize_size and crop_size have to be at least 1 pixel; crop_size is one side or (height, width)")
        if self.interpolation not in list(_RESAMPLING):
            fail(f"interpolation={self.interpolation!r} is unknown; use one of {sorted(_RESAMPLING)}")
        if len(self.mean) != len(self.std) or not all(0 < value < math.inf for value in self.std):
            fail("mean and std need one value per channel each, and std positive ones")
        if not self.antialias:
            fail("antialias=False is not offered; pretrained weights expect antialiased pictures")

    @property
    def crop_shape(self) -> tuple[int, int]:
        """(height, width) of what the network sees."""
        return (self.crop_size, self.crop_size) if isinstance(self.crop_size, int) else self.crop_size

    @property
    def key(self) -> str:
        """A string that names everything that decides what the network sees."""
        return "|".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))

    @property
    def pixels_key(self) -> str:
        """A string that names everything that decides what `apply` gives: all but ``mean`` and ``std``."""
        return replace(self, mean=(), std=()).key

    def for_channels(self, n_channels: int) -> "Preprocessing":
        """The same for pictures of another number of channels.

        Parameters
        ----------
        n_channels : int
            One channel takes the averages of ``mean`` and of ``std``; any other number repeats their values in turn.

        Returns
        -------
        Preprocessing
        """
        if n_channels == len(self.mean):
            return self
        if n_channels == 1:
            return replace(self, mean=(float(np.mean(self.mean)),), std=(float(np.mean(self.std)),))

        def repeated(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(values[channel % len(values)] for channel in range(n_channels))

        return replace(self, mean=repeated(self.mean), std=repeated(self.std))

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop one picture, bit for bit as torchvision's presets do with a PIL image.

        (Beyond an aspect ratio of 16, up to rounding, because there only the crop is computed.)

        Parameters
        ----------
        picture : ndarray of shape (height, width, channels) and dtype uint8
            The picture, of any number of channels.

        Returns
        -------
        ndarray of shape (crop height, crop width, channels) and dtype uint8
        """
        n_channels = picture.shape[2]
        if n_channels == 3:
            return np.asarray(self._resize_and_crop(Image.fromarray(picture)))
        # PIL knows 1 and 3 channels; any other number is a stack of grey pictures.
        planes = [Image.fromarray(np.ascontiguousarray(picture[:, :, channel])) for channel in range(n_channels)]
        return np.stack([np.asarray(self._resize_and_crop(plane)) for plane in planes], axis=2)

    def _resize_and_crop(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        # torchvision truncates the longer side; a rounded one would shift every pixel.
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
        """What would be cut out of ``image`` resized to ``size`` at ``offset``, equal to that up to rounding.

        PIL's filter looks at the pixels around the box too. Columns go before rows, as PIL does it in one call; rows
        that no pixel of the crop comes from are cut off before, or each of two million would get all columns.
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
    """Where a centre crop starts, negative where it starts in the padding; rounded as torchvision rounds."""
    return round((size - crop) / 2.0) if size >= crop else -((crop - size) // 2)


def check_preprocessing(
    preprocessing: "Preprocessing | Mapping[str, Any] | None", default: Preprocessing
) -> Preprocessing:
    """The preprocessing a user means: theirs, theirs laid over the ``default``, or the default.

    Raises
    ------
    BackboneError
        Where it is something else, or a dict with unknown keys.
    """
    if preprocessing is None:
        return default
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    names = [field.name for field in fields(Preprocessing)]
    if not isinstance(preprocessing, Mapping) or not set(preprocessing) <= set(names):
        raise BackboneError(
            f"preprocessing={preprocessing!r} is not understood. Use None (what belongs to the weights), a "
            f"sktl.backbones.Preprocessing, or a dict with some of the keys {names}."
        )
    return replace(default, **preprocessing)
