"""Activations of random views: new views of each image in each epoch.

Each image is decoded once and kept as bytes; the views of a batch are then drawn
together, on the device. Callables and recipes without a batched version transform one
image after the other. With frozen stages, the views go through these next, by the same
pass over a table as all other images. `fetch_views` and `fetch_rotations` choose.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from sktl._frozen._activations import Activations, Augmentation, LiveActivations, Positions, fetch_activations
from sktl._frozen._augmentation import BatchedAugmentation
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._progress import Progress
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images, TableImage, digests
from sktl.exceptions import InputError


def fetch_views(
    prefix: FrozenPrefix,
    images: Images,
    augmentation: Augmentation,
    views_per_image: int = 1,
    *,
    listeners: Sequence[Progress] = (),
) -> Activations:
    """Return the output of a frozen prefix for random views, new in each epoch.

    Parameters
    ----------
    prefix : FrozenPrefix
        A prefix with one layer, or without layers, which returns the views as images.
        Its cache is used for the decoded images; with ``cache=None``, they are decoded
        for each batch.
    images : Images
        Images of the table.
    augmentation : Augmentation or BatchedAugmentation
        Augmentation of the images.
    views_per_image : int, default=1
        Number of views of each image in an epoch. A batch has the rows of the first
        views of all its images, then those of the second views, and so on.
    listeners : sequence of callable, default=()
        Functions called as ``listener(n_done, n_rows)`` while images are decoded.

    Raises
    ------
    ImageError
        If an image cannot be read.
    OSError
        If the decoded images fit neither into memory nor on the disk.
    """
    if isinstance(augmentation, BatchedAugmentation):
        views = ViewActivations(prefix, images, augmentation, views_per_image, listeners=listeners)
        return _through_stages(prefix, views)
    # Views of one image after the other are decoded while the network runs.
    live = LiveActivations(_uncached(prefix), images, augmentation)
    return live if views_per_image == 1 else RepeatedActivations(live, views_per_image)


def fetch_rotations(
    prefix: FrozenPrefix,
    images: Images,
    augmentation: "Augmentation | None" = None,
    *,
    listeners: Sequence[Progress] = (),
) -> Activations:
    """Return the output of a frozen prefix for images turned by 0, 90, 180 and 270°.

    Parameters
    ----------
    prefix, images, listeners
        See `fetch_views`.
    augmentation : Augmentation, BatchedAugmentation or None, default=None
        Augmentation of the images before they are turned.

    Raises
    ------
    InputError
        If the network takes images that are not square.
    """
    height, width, _ = prefix.spec.image_shape
    if height != width:
        raise InputError(
            f"Rotated images must be square, but this network takes images of {height} x {width} pixels. Set a square "
            "size with preprocessing={'crop_size': ...}."
        )
    pixels = replace(prefix, spec=replace(prefix.spec, layers=()))
    if augmentation is not None:
        upright = fetch_views(pixels, images, augmentation, listeners=listeners)
    else:
        stored = prefix.runtime.cache is not None
        upright = fetch_activations(pixels, images, stored=stored, listeners=listeners)
    return _through_stages(prefix, RotatedActivations(upright))


class ViewActivations:
    """Views of the size that the network takes, as uint8, drawn batch by batch.

    Parameters
    ----------
    prefix : FrozenPrefix
        Defines the network, and how images are decoded and kept; its layers do not
        matter.
    images, augmentation, views_per_image, listeners
        See `fetch_views`.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        images: Images,
        augmentation: BatchedAugmentation,
        views_per_image: int = 1,
        *,
        listeners: Sequence[Progress] = (),
    ):
        self._images = images
        self._augmentation = augmentation
        self._n_views = views_per_image
        self._device = prefix.runtime.device
        backbone = copy.copy(prefix.spec.backbone)
        backbone.preprocessing = augmentation.source
        source = replace(prefix, spec=PrefixSpec(backbone, ()))
        stored = prefix.runtime.cache is not None
        self._sources = fetch_activations(source, images, stored=stored, listeners=listeners)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """Draw the views of some images in an epoch, on the device."""
        sources = self._sources.batch(positions, epoch).to(self._drawing_device())
        seen = digests(self._images.take(np.asarray(positions)))
        numbers = range(epoch * self._n_views, (epoch + 1) * self._n_views)
        return torch.cat([self._augmentation.draw(sources, seen, number) for number in numbers])

    def _drawing_device(self) -> torch.device:
        """Return the GPU, or the CPU in a worker of a DataLoader, which has no GPU."""
        is_gpu = self._device.type == "cuda" and get_worker_info() is None
        return self._device if is_gpu else torch.device("cpu")


class RepeatedActivations:
    """Several epochs of activations as the views of one epoch.

    Parameters
    ----------
    activations : Activations
        Activations that are different in each epoch.
    views_per_image : int
        Number of their epochs in an epoch.
    """

    def __init__(self, activations: Activations, views_per_image: int):
        self._activations = activations
        self._n_views = views_per_image

    def __len__(self) -> int:
        return len(self._activations)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """Return the first views of some images, then the second ones, and so on."""
        numbers = range(epoch * self._n_views, (epoch + 1) * self._n_views)
        return torch.cat([self._activations.batch(positions, number) for number in numbers])


class RotatedActivations:
    """Images in four orientations.

    Parameters
    ----------
    images : Activations
        Square images as uint8.
    """

    def __init__(self, images: Activations):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """Return some images, then all of them turned by 90°, by 180° and by 270°."""
        images = self._images.batch(positions, epoch)
        return torch.cat([torch.rot90(images, quarters, (1, 2)) for quarters in range(4)])


class StageActivations:
    """Output of frozen stages for images that other activations return.

    Parameters
    ----------
    images : Activations
        Images as uint8, of the size that the network takes.
    prefix : FrozenPrefix
        The stages, which should have ``cache=None`` if the images do not recur.
    """

    def __init__(self, images: Activations, prefix: FrozenPrefix):
        self._images = images
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, positions: Positions, epoch: int) -> torch.Tensor:
        """Compute the rows of some images in an epoch."""
        pixels = self._images.batch(positions, epoch).cpu().numpy()
        table: Any = _PreparedTable(pixels, len(self))
        return torch.from_numpy(self._prefix.run(table)[0])


class _PreparedTable(Sequence[TableImage]):
    """Table of images that need no preprocessing."""

    def __init__(self, pixels: np.ndarray, n_in_table: int):
        self._pixels = pixels
        self.n_in_table = n_in_table  # all batches together, for the choice of the engine

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> TableImage:  # type: ignore[override]  # no slices
        return _PreparedImage(self._pixels[index])


class _PreparedImage(TableImage):
    """Image that needs no preprocessing."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def decode(self) -> np.ndarray:
        return self._pixels

    def prepared(self, prepare: object) -> np.ndarray:
        return self._pixels


def _through_stages(prefix: FrozenPrefix, images: Activations) -> Activations:
    """Run the frozen stages on images, if there are any."""
    return StageActivations(images, _uncached(prefix)) if prefix.spec.layers else images


def _uncached(prefix: FrozenPrefix) -> FrozenPrefix:
    """Return the same prefix without a cache, since views do not recur."""
    return replace(prefix, runtime=replace(prefix.runtime, cache=None))
