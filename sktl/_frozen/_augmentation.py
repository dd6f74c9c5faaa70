"""Augmentation: images that look a little different in each epoch, and the same each time that epoch is asked for.

What an image becomes is a pure function of its own content, of a seed and of the epoch: not of its position, of the
other images, or of the thread that decodes it. So two fits with one ``random_state`` see the same images, and the
folds and candidates of a grid search share, through the cache, what they store.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, NoReturn

import numpy as np
import PIL
import torch
import xxhash
from PIL import Image
from sklearn.utils._param_validation import Interval

from sktl._images import Images, TableImage
from sktl._randomness import seeded_everywhere
from sktl.backbones import Backbone, Preprocessing
from sktl.exceptions import InputError

AUGMENT_CONSTRAINTS: dict = {
    "augment": [str, callable, None],
    "n_views": [Interval(Integral, 1, None, closed="left"), None],
}

Transform = Callable[[torch.Tensor], Any]

_CROP_AREA = (0.35, 1.0)  # the tutorials' (0.08, 1.0) is for a million images; of a few thousand it cuts off too much
_CROP_ASPECT = (3 / 4, 4 / 3)


def make_augmentation(augment: "str | Transform | None", *, seed: int, backbone: Backbone) -> "Augmentation | None":
    """What the parameter ``augment=`` means.

    Parameters
    ----------
    augment : str, callable or None
        A recipe's name, or what is called with one image: a `torchvision.tv_tensors.Image`, ``uint8`` of shape
        (channels, height, width), of the image's own size. It gives a tensor, a PIL image or an array.
    seed : int
        What the views depend on beside the images.
    backbone : Backbone
        The network that the images are for.

    Returns
    -------
    Augmentation or None
        None for None.

    Raises
    ------
    InputError
        Where there is no such recipe, or where it knows no images with that many channels.
    """
    if augment is None:
        return None
    if not isinstance(augment, str):
        return Augmentation(augment, seed)
    if augment not in RECIPES:
        raise InputError(
            f"augment={augment!r} is no recipe. Use one of {sorted(RECIPES)}, None, or a callable such as a "
            "transform of torchvision.transforms.v2."
        )
    if augment in _OF_COLOURS and backbone.in_channels not in (1, 3):
        raise InputError(
            f"augment={augment!r} changes colours, of pictures with 1 or 3 channels, but in_channels="
            f"{backbone.in_channels}. Use 'flip', 'crop_flip' or a callable."
        )
    import torchvision  # not before it is needed: it takes seconds to load

    versions = f"{torch.__version__}|{torchvision.__version__}|{PIL.__version__}"
    key = f"{augment} 1|{backbone.preprocessing.pixels_key}|{versions}"  # raise the number when a recipe changes
    return Augmentation(RECIPES[augment](backbone.preprocessing), seed, key=key)


class Augmentation:
    """One transform of images, with its seed.

    Parameters
    ----------
    transform : callable
        Called with a `torchvision.tv_tensors.Image`, ``uint8`` of shape (channels, height, width), which it may
        change. It gives a tensor of such a shape, a PIL image, or an array of shape (height, width, channels), as
        ``uint8`` or as floats from 0 to 1. It may draw from the global generators of torch, NumPy and Python.
    seed : int
        What the views depend on beside the images.
    key : str or None, default=None
        Names all that determines what the transform does. With it, a view's digest is known before the image is
        decoded; without, the pixels have to be looked at.
    """

    def __init__(self, transform: Transform, seed: int, *, key: "str | None" = None):
        self.transform = transform
        self.seed = seed
        self.key = key

    def augmented(self, images: Images, epoch: int) -> Sequence[TableImage]:
        """The images as they look in one epoch, made one by one when asked for; safe to ask from several threads.

        Parameters
        ----------
        images : Images
            The images.
        epoch : int
            Which epoch, or which view.

        Returns
        -------
        sequence of TableImage
        """
        return _AugmentedTable(self, images, epoch)

    def apply(self, pixels: np.ndarray, state: bytes) -> np.ndarray:
        """Transform one image, with the randomness that ``state`` stands for.

        Parameters
        ----------
        pixels : ndarray of shape (height, width, channels) and dtype uint8
            The image; it is not changed.
        state : bytes
            What the generators are seeded with.

        Returns
        -------
        ndarray of shape (new height, new width, channels) and dtype uint8

        Raises
        ------
        InputError
            Where the transform gives no such image.
        """
        from torchvision import tv_tensors  # loads all of torchvision's transforms

        # Channels come first by the strides alone, as in what torchvision makes of a PIL image: nothing is rearranged.
        image = tv_tensors.Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        try:
            with seeded_everywhere(xxhash.xxh3_64_intdigest(state)):
                result = self.transform(image)
        except Exception as error:
            error.add_note(f"It was raised by augment={self.transform!r}, for a picture of shape {tuple(image.shape)}.")
            raise
        return _as_pixels(result, pixels.shape[2])


class _AugmentedTable(Sequence[TableImage]):
    """A table of images as they look in one epoch."""

    def __init__(self, augmentation: Augmentation, images: Images, epoch: int):
        self._augmentation, self._images, self._epoch = augmentation, images, epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        return _AugmentedImage(self._augmentation, self._images[index], self._epoch)

    def digest(self, index: int) -> bytes:
        """Of the image as it looks in this epoch."""
        return self[index].digest


class _AugmentedImage(TableImage):
    """An image as it looks in one epoch; it is decoded and changed once."""

    def __init__(self, augmentation: Augmentation, image: TableImage, epoch: int):
        self._augmentation, self._image, self._epoch = augmentation, image, epoch
        # Not a cached_property: in Python 3.11 that has one lock for all images, which decodes them one by one.
        self._pixels: np.ndarray | None = None

    @property
    def digest(self) -> bytes:
        key = self._augmentation.key
        if key is not None:
            return xxhash.xxh3_128_digest(b"%s|%s" % (self._state(), key.encode()))
        pixels = self.decode()
        digest = xxhash.xxh3_128(f"augmented pixels {pixels.shape}".encode())
        digest.update(pixels.data)
        return digest.digest()

    def decode(self) -> np.ndarray:
        if self._pixels is None:
            self._pixels = self._augmentation.apply(self._image.decode(), self._state())
        return self._pixels

    def _state(self) -> bytes:
        """What the randomness depends on."""
        return b"%s|%d|%d" % (self._image.digest, self._augmentation.seed, self._epoch)


def _as_pixels(result: Any, n_channels: int) -> np.ndarray:
    """What a transform gave, as ``uint8`` of shape (height, width, channels)."""

    def refuse(what: str) -> NoReturn:
        raise InputError(
            f"augment has to give a picture with {n_channels} channels, as uint8 or as floats from 0 to 1: a tensor of "
            f"shape (channels, height, width), an array of shape (height, width, channels), or a PIL image; {what}."
        )

    if isinstance(result, Image.Image):
        if result.mode != {1: "L", 3: "RGB"}.get(n_channels):
            refuse(f"it gave a PIL image of mode {result.mode!r}")
        values = np.asarray(result).reshape(result.height, result.width, n_channels)
    elif isinstance(result, torch.Tensor):
        tensor = result.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    elif isinstance(result, np.ndarray):
        values = result
    else:
        refuse(f"it gave {type(result).__name__!r}")
    if values.ndim != 3 or values.shape[2] != n_channels or not values.size:
        refuse(f"it gave {type(result).__name__!r} of shape {tuple(result.shape)}")
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # Bicubic resizing overshoots a little; more than that are values on another scale, or normalised ones.
        if not -0.25 <= low <= high <= 1.25:
            refuse(
                f"it gave values from {low:.3g} to {high:.3g}. Leave out what normalises: that is done afterwards, as "
                "the weights want it"
            )
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        refuse(f"it gave values of dtype {values.dtype}")
    return np.ascontiguousarray(values)


def _flip(preprocessing: Preprocessing) -> Transform:
    """Mirror every other image."""
    from torchvision.transforms import v2

    return v2.RandomHorizontalFlip()


def _crop_flip(preprocessing: Preprocessing) -> Transform:
    """Cut out a box of random size, shape and place, and mirror every other image.

    The box is handed on at the image's own scale, for the preprocessing that follows resizes: pixels that are
    resized twice are blurred twice.
    """
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    def crop(image: torch.Tensor) -> torch.Tensor:
        top, left, height, width = v2.RandomResizedCrop.get_params(image, list(_CROP_AREA), list(_CROP_ASPECT))
        return functional.crop(image, top, left, height, width)

    return v2.Compose([crop, v2.RandomHorizontalFlip()])


def _trivial(preprocessing: Preprocessing) -> Transform:
    """``crop_flip``, then one random operation of random strength [1]_.

    References
    ----------
    .. [1] Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021.
    """
    from torchvision.transforms import v2

    return v2.Compose([_crop_flip(preprocessing), _to_scale(preprocessing), v2.TrivialAugmentWide()])


def _randaugment(preprocessing: Preprocessing) -> Transform:
    """``crop_flip``, then two random operations of medium strength [1]_.

    References
    ----------
    .. [1] Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020.
    """
    from torchvision.transforms import v2

    return v2.Compose([_crop_flip(preprocessing), _to_scale(preprocessing), v2.RandAugment()])


def _to_scale(preprocessing: Preprocessing) -> Transform:
    """Resize as the preprocessing will, which then finds nothing left to resize, to a PIL image.

    Operations that shift by some pixels mean the pixels that the network sees, a photo of many megapixels would cost a
    hundred times as much, and Pillow is some twenty times as fast in them as tensors are.
    """

    def resize(image: torch.Tensor) -> Image.Image:
        height, width = image.shape[-2:]
        short, long = sorted((height, width))
        long = int(preprocessing.resize_size * long / short)  # rounded as there
        size = (long, preprocessing.resize_size) if height > width else (preprocessing.resize_size, long)
        # A crop as large as the resized image cuts nothing off.
        resized = replace(preprocessing, crop_size=size).apply(image.permute(1, 2, 0).contiguous().numpy())
        return Image.fromarray(resized.squeeze(2) if resized.shape[2] == 1 else resized)

    return resize


RECIPES: "dict[str, Callable[[Preprocessing], Transform]]" = {
    "flip": _flip,
    "crop_flip": _crop_flip,
    "trivial": _trivial,
    "randaugment": _randaugment,
}
_OF_COLOURS = ("trivial", "randaugment")
