"""Reproducible data augmentation.

An augmented image is a pure function of the content of the image, a seed and the epoch.
It does not depend on its position, on other images or on the thread that decodes it.
Two fits with the same ``random_state`` therefore see the same images, and the folds and
candidates of a grid search share stored views through the cache.

`Augmentation` calls a transform with one image after the other. `BatchedAugmentation`
draws the views of many images together.
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

from sktl._frozen._draw_views import CROP_AREA, CROP_ASPECT, VIEW_RECIPES, ViewRecipe, draw_views, random_draws
from sktl._images import Images, TableImage
from sktl._randomness import seeded_everywhere
from sktl.backbones import Backbone, Preprocessing
from sktl.exceptions import InputError

AUGMENT_CONSTRAINTS: dict = {
    "augment": [str, callable, None],
    "n_views": [Interval(Integral, 1, None, closed="left"), None],
}

Transform = Callable[[torch.Tensor], Any]


def make_augmentation(
    augment: "str | Transform | None", *, seed: int, backbone: Backbone
) -> "Augmentation | BatchedAugmentation | None":
    """Return the augmentation defined by the parameter ``augment``.

    Parameters
    ----------
    augment : str, callable or None
        Name of a recipe, or a function of an image: a `torchvision.tv_tensors.Image` of
        dtype ``uint8`` and shape (channels, height, width), before resizing. It returns
        a tensor, a PIL image or an array.
    seed : int
        Seed of the views.
    backbone : Backbone
        The network that takes the images.

    Returns
    -------
    augmentation : Augmentation, BatchedAugmentation or None
        The augmentation, if any.

    Raises
    ------
    InputError
        If the recipe does not exist or does not support the number of channels.
    """
    if augment is None:
        return None
    if not isinstance(augment, str):
        return Augmentation(augment, seed)
    if augment not in RECIPES:
        raise InputError(
            f"augment must be one of {sorted(RECIPES)}, None, or a callable such as a transform from "
            f"torchvision.transforms.v2. Got {augment!r} instead."
        )
    if augment in _TRANSFORMS and backbone.in_channels not in (1, 3):
        raise InputError(
            f"augment={augment!r} changes colors and needs images with 1 or 3 channels, but in_channels="
            f"{backbone.in_channels}. Use {', '.join(map(repr, VIEW_RECIPES))} or a callable."
        )
    import torchvision  # imported here because it takes seconds

    versions = f"{torch.__version__}|{torchvision.__version__}|{PIL.__version__}"
    # Increase the "2" when a recipe changes.
    key = f"{augment} 2|{backbone.preprocessing.pixels_key}|{versions}"
    if augment in VIEW_RECIPES:
        return BatchedAugmentation(VIEW_RECIPES[augment], seed, backbone.preprocessing, key=key)
    return Augmentation(_TRANSFORMS[augment](backbone.preprocessing), seed, key=key)


class Augmentation:
    """Transform of images with a seed.

    Parameters
    ----------
    transform : callable
        Function of a `torchvision.tv_tensors.Image` of dtype ``uint8`` and shape
        (channels, height, width), which it may change. It returns a tensor of that kind
        of shape, a PIL image, or an array of shape (height, width, channels), as
        ``uint8`` or as floats from 0 to 1. It may draw from the global generators of
        torch, NumPy and Python.
    seed : int
        Seed of the views.
    key : str or None, default=None
        Name that determines what the transform does. With a key, the digest of a view
        is known without decoding the image.
    """

    has_network_size = False  # the preprocessing resizes the views

    def __init__(self, transform: Transform, seed: int, *, key: "str | None" = None):
        self.transform = transform
        self.seed = seed
        self.key = key

    def augmented(self, images: Images, epoch: int) -> Sequence[TableImage]:
        """Return the images as augmented in an epoch, computed lazily and thread-safe.

        Parameters
        ----------
        images : Images
            The images.
        epoch : int
            The epoch, or the number of the view.

        Returns
        -------
        augmented : sequence of TableImage
        """
        return _AugmentedTable(self, images, epoch)

    def apply(self, image: TableImage, epoch: int) -> np.ndarray:
        """Transform one image.

        Parameters
        ----------
        image : TableImage
            The image; its pixels are not changed.
        epoch : int
            The epoch, or the number of the view.

        Returns
        -------
        ndarray of shape (new height, new width, channels) and dtype uint8

        Raises
        ------
        InputError
            If the transform does not return an image with these channels.
        """
        from torchvision import tv_tensors  # loads all of torchvision's transforms

        pixels = image.decode()
        # A permuted view, not a copy, as in torchvision's conversion of PIL images.
        tensor = tv_tensors.Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        try:
            with seeded_everywhere(xxhash.xxh3_64_intdigest(_state(image, self.seed, epoch))):
                result = self.transform(tensor)
        except Exception as error:
            error.add_note(f"Raised by augment={self.transform!r} for an image of shape {tuple(tensor.shape)}.")
            raise
        return _as_pixels(result, pixels.shape[2])


class BatchedAugmentation:
    """Recipe whose views are drawn for many images together.

    Parameters
    ----------
    recipe : ViewRecipe
        The random changes.
    seed : int
        Seed of the views.
    preprocessing : Preprocessing
        Preprocessing of the network, which defines the size of the views.
    key : str
        Name that determines what the recipe does.
    """

    has_network_size = True

    def __init__(self, recipe: ViewRecipe, seed: int, preprocessing: Preprocessing, *, key: str):
        self.recipe = recipe
        self.seed = seed
        self.key = key
        self.source = recipe.source(preprocessing)  # preprocessing of the images that `draw` takes
        self._shape = preprocessing.crop_shape

    def augmented(self, images: Images, epoch: int) -> Sequence[TableImage]:
        """Return the images as augmented in an epoch, see `Augmentation.augmented`."""
        return _AugmentedTable(self, images, epoch)

    def apply(self, image: TableImage, epoch: int) -> np.ndarray:
        """Return a view of one image, ``uint8`` pixels of the network's size."""
        pixels = torch.from_numpy(image.prepared(self.source.apply).copy())
        return self.draw(pixels[np.newaxis], [image.digest], epoch)[0].numpy()

    def draw(self, images: torch.Tensor, digests: Sequence[bytes], epoch: int) -> torch.Tensor:
        """Return a view of each image.

        Parameters
        ----------
        images : Tensor of shape (n, source height, source width, channels) and dtype uint8
            The images, prepared by `source`.
        digests : sequence of bytes
            Digest of each image.
        epoch : int
            The epoch, or the number of the view.

        Returns
        -------
        Tensor of shape (n, height, width, channels) and dtype uint8
            The views, on the device of the images.
        """
        return draw_views(images, random_draws(digests, self.seed, epoch), self.recipe, self._shape)


class _AugmentedTable(Sequence[TableImage]):
    """Table of images as augmented in an epoch."""

    def __init__(self, augmentation: "Augmentation | BatchedAugmentation", images: Images, epoch: int):
        self._augmentation, self._images, self._epoch = augmentation, images, epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        return _AugmentedImage(self._augmentation, self._images[index], self._epoch)

    def digest(self, index: int) -> bytes:
        """Return the digest of an image as augmented in this epoch."""
        return self[index].digest


class _AugmentedImage(TableImage):
    """Image as augmented in an epoch. It is decoded and transformed once."""

    def __init__(self, augmentation: "Augmentation | BatchedAugmentation", image: TableImage, epoch: int):
        self._augmentation, self._image, self._epoch = augmentation, image, epoch
        # Not a cached_property, whose single lock in Python 3.11 would serialize
        # decoding.
        self._pixels: np.ndarray | None = None

    @property
    def digest(self) -> bytes:
        key = self._augmentation.key
        if key is not None:
            state = _state(self._image, self._augmentation.seed, self._epoch)
            return xxhash.xxh3_128_digest(b"%s|%s" % (state, key.encode()))
        pixels = self.decode()
        digest = xxhash.xxh3_128(f"augmented pixels {pixels.shape}".encode())
        digest.update(pixels.data)
        return digest.digest()

    def decode(self) -> np.ndarray:
        if self._pixels is None:
            self._pixels = self._augmentation.apply(self._image, self._epoch)
        return self._pixels

    def prepared(self, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return self.decode() if self._augmentation.has_network_size else super().prepared(prepare)


def _state(image: TableImage, seed: int, epoch: int) -> bytes:
    """Return what determines the randomness of a view."""
    return b"%s|%d|%d" % (image.digest, seed, epoch)


def _as_pixels(result: Any, n_channels: int) -> np.ndarray:
    """Convert the output of a transform to ``uint8`` (height, width, channels)."""

    def refuse(what: str) -> NoReturn:
        raise InputError(
            f"augment must return an image with {n_channels} channels, as uint8 or as floats from 0 to 1: a tensor of "
            f"shape (channels, height, width), an array of shape (height, width, channels), or a PIL image. Got {what}."
        )

    if isinstance(result, Image.Image):
        if result.mode != {1: "L", 3: "RGB"}.get(n_channels):
            refuse(f"a PIL image of mode {result.mode!r} instead")
        values = np.asarray(result).reshape(result.height, result.width, n_channels)
    elif isinstance(result, torch.Tensor):
        tensor = result.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    elif isinstance(result, np.ndarray):
        values = result
    else:
        refuse(f"{type(result).__name__!r} instead")
    if values.ndim != 3 or values.shape[2] != n_channels or not values.size:
        refuse(f"{type(result).__name__!r} of shape {tuple(result.shape)} instead")
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # Bicubic resizing overshoots a little; larger values have another scale or are
        # normalized.
        if not -0.25 <= low <= high <= 1.25:
            refuse(
                f"values from {low:.3g} to {high:.3g} instead. Scale floats to 0-1, and remove any normalization from "
                "augment, because images are normalized afterwards"
            )
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        refuse(f"values of dtype {values.dtype} instead")
    return np.ascontiguousarray(values)


def _crop_flip(preprocessing: Preprocessing) -> Transform:
    """Return a transform that crops a random box and mirrors with probability 0.5.

    The box is not resized here, because the preprocessing resizes it afterwards and
    resizing twice blurs twice.
    """
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    def crop(image: torch.Tensor) -> torch.Tensor:
        top, left, height, width = v2.RandomResizedCrop.get_params(image, list(CROP_AREA), list(CROP_ASPECT))
        return functional.crop(image, top, left, height, width)

    return v2.Compose([crop, v2.RandomHorizontalFlip()])


def _trivial(preprocessing: Preprocessing) -> Transform:
    """Return ``crop_flip`` followed by one random operation of random strength [1]_.

    References
    ----------
    .. [1] Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
           Augmentation", ICCV 2021.
    """
    from torchvision.transforms import v2

    return v2.Compose([_crop_flip(preprocessing), _to_scale(preprocessing), v2.TrivialAugmentWide()])


def _randaugment(preprocessing: Preprocessing) -> Transform:
    """Return ``crop_flip`` followed by two random operations of medium strength [1]_.

    References
    ----------
    .. [1] Cubuk et al., "RandAugment: Practical automated data augmentation with a
           reduced search space", 2020.
    """
    from torchvision.transforms import v2

    return v2.Compose([_crop_flip(preprocessing), _to_scale(preprocessing), v2.RandAugment()])


def _to_scale(preprocessing: Preprocessing) -> Transform:
    """Return a transform that resizes to a PIL image of the preprocessing's size.

    The preprocessing then has nothing left to resize. Shifts in pixels refer to the
    pixels that the network sees, large images do not slow down the operations, and
    Pillow runs them some twenty times as fast as tensor code.
    """

    def resize(image: torch.Tensor) -> Image.Image:
        height, width = image.shape[-2:]
        short, long = sorted((height, width))
        # Rounded as in the preprocessing.
        long = int(preprocessing.resize_size * long / short)
        size = (long, preprocessing.resize_size) if height > width else (preprocessing.resize_size, long)
        # A crop as large as the resized image cuts nothing off.
        resized = replace(preprocessing, crop_size=size).apply(image.permute(1, 2, 0).contiguous().numpy())
        return Image.fromarray(resized.squeeze(2) if resized.shape[2] == 1 else resized)

    return resize


_TRANSFORMS: "dict[str, Callable[[Preprocessing], Transform]]" = {"trivial": _trivial, "randaugment": _randaugment}
RECIPES = (*VIEW_RECIPES, *_TRANSFORMS)
