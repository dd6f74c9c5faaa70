"""Patch features: the outputs of layers at each position of a map."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

from sktl.backbones import Backbone
from sktl.exceptions import BackboneError

# Shares of the side of the image, and at least this many positions: stages between edges
# and objects. Small images would otherwise have maps of 8 x 8 and 4 x 4 positions.
_WANTED = ((1 / 8, 16), (1 / 16, 8))

_WITHOUT_MAPS = "Use method='knn' or 'mahalanobis', or a convolutional network."


class MapShape(NamedTuple):
    """Shape of the output of a layer, seen as a map."""

    channels: int
    height: int
    width: int


def map_shape(backbone: Backbone, layer: str) -> "MapShape | None":
    """Return the shape of the map that a layer outputs, or None if it has no map.

    The tokens of a vision transformer are a map if they form a grid of the shape of the
    image, in addition to the class token.
    """
    shape = backbone.output_shape(layer)
    is_last = backbone.channel_axis(layer) < 0
    if len(shape) == 3:
        found = MapShape(shape[2], *shape[:2]) if is_last else MapShape(*shape)
    elif len(shape) == 2 and is_last:
        n_tokens = shape[0] - backbone.has_cls_token(layer)
        height, width = backbone.preprocessing.crop_shape
        rows = max(round(math.sqrt(n_tokens * height / width)), 1)
        found = MapShape(shape[1], rows, n_tokens // rows)
        if rows * found.width != n_tokens or rows * width != found.width * height:
            return None
    else:
        return None
    return found if found.height * found.width > 1 else None


def choose_patch_layers(backbone: Backbone) -> list[str]:
    """Return the two stages whose maps are nearest to 1/8 and 1/16 of the image.

    If several stages have maps of equal size, the last one of the larger size and the
    first one of the smaller size are taken: on synthetic defects, they find more than
    other pairs. Maps of small images should have at least 16 and 8 positions along a
    side. If all maps have one size, as those of a vision transformer, the last stage is
    taken alone.

    Raises
    ------
    BackboneError
        If no stage has a map.
    """
    side = min(backbone.preprocessing.crop_shape)
    maps = {stage.name: map_shape(backbone, stage.name) for stage in backbone.stages}
    sizes = {name: min(shape.height, shape.width) for name, shape in maps.items() if shape is not None}
    if not sizes:
        raise BackboneError(f"{backbone.name!r} has no stage with a map, which patches require. {_WITHOUT_MAPS}")
    fine, coarse = (
        min(sizes.values(), key=lambda size: abs(math.log(size / max(share * side, least)))) for share, least in _WANTED
    )
    last = [name for name, size in sizes.items() if size == fine][-1]
    return [last] if fine == coarse else [last, next(name for name, size in sizes.items() if size == coarse)]


def check_patch_layers(backbone: Backbone, layers: Sequence[str], method: str) -> None:
    """Check that layers have maps.

    Raises
    ------
    BackboneError
        If one of them has no map. The message names the stages that have one.
    """
    for layer in layers:
        if map_shape(backbone, layer) is None:
            shape = backbone.output_shape(layer)
            with_maps = [stage.name for stage in backbone.stages if map_shape(backbone, stage.name) is not None]
            raise BackboneError(
                f"method={method!r} needs layers with maps, but the output of layer {layer!r} of {backbone.name!r} has "
                f"the shape {shape}. {f'Stages with maps are {with_maps}.' if with_maps else _WITHOUT_MAPS}"
            )


class PatchGrid:
    """Conversion of the outputs of layers to patches, and of scores to maps.

    The output of each layer is averaged over 3 x 3 positions, interpolated to the size
    of the largest map, and concatenated with the others.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : sequence of str
        Layers with maps.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str]):
        shapes = [map_shape(backbone, layer) for layer in layers]
        self._shapes = [shape for shape in shapes if shape is not None]
        self._is_last = [backbone.channel_axis(layer) < 0 for layer in layers]
        self._size = max((shape[1:] for shape in self._shapes), key=math.prod)
        self._image_size = backbone.preprocessing.crop_shape

    def patches(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return the patches of images.

        Parameters
        ----------
        outputs : sequence of ndarray of shape (n, ...), float32
            Output of each layer.

        Returns
        -------
        ndarray of shape (n, n_patches, n_channels), float32
        """
        maps = []
        for output, shape, is_last in zip(outputs, self._shapes, self._is_last, strict=True):
            values = torch.from_numpy(output)
            if is_last:
                if values.ndim == 3:  # the class token is the first one
                    values = values[:, values.shape[1] - shape.height * shape.width :]
                values = values.reshape(len(output), *shape[1:], shape.channels).permute(0, 3, 1, 2)
            values = avg_pool2d(values, 3, stride=1, padding=1)
            if tuple(shape[1:]) != self._size:
                values = interpolate(values, size=self._size, mode="bilinear", align_corners=False)
            maps.append(values)
        return torch.cat(maps, dim=1).flatten(2).transpose(1, 2).contiguous().numpy()

    def maps(self, distances: np.ndarray) -> np.ndarray:
        """Interpolate the distances of patches to maps of the size of the images.

        Parameters
        ----------
        distances : ndarray of shape (n, n_patches)
            Distance of each patch.

        Returns
        -------
        ndarray of shape (n, height, width), float32
        """
        grid = torch.from_numpy(distances.astype(np.float32)).reshape(len(distances), 1, *self._size)
        return interpolate(grid, size=self._image_size, mode="bilinear", align_corners=False)[:, 0].numpy()
