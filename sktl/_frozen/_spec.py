"""Definition of a frozen prefix: a network up to named layers, and their pooling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sktl._frozen._prefix_network import pooled_shape
from sktl.backbones import Backbone


@dataclass(frozen=True)
class PrefixSpec:
    """Network up to named layers, each of them pooled.

    Two specs with equal keys are the same function.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : sequence of str
        Layers to return, in this order. Nothing after the deepest one is computed. If
        empty, the output is the images as the network takes them (decoded, resized and
        cropped), and ``pooling`` is ignored.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}, default="avg"
        Pooling of each layer.
    """

    backbone: Backbone
    layers: Sequence[str]
    pooling: str = "avg"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def key(self) -> str:
        """Key of everything that determines the function, up to rounding."""
        preprocessing = self.backbone.preprocessing
        if not self.layers:
            # Part of stored keys: do not change.
            return "pictures|" + preprocessing.pixels_key
        fingerprints = ",".join(self.backbone.fingerprint(layer) for layer in self.layers)
        return f"{fingerprints}|{preprocessing.key}|{self.pooling}"

    @property
    def outputs(self) -> "list[PrefixSpec]":
        """The outputs as separate specs, one per layer, or the images."""
        return [PrefixSpec(self.backbone, (layer,), self.pooling) for layer in self.layers] or [self]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image as the network takes it."""
        return (*self.backbone.preprocessing.crop_shape, self.backbone.in_channels)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one image's row in each output."""
        backbone = self.backbone
        return [
            pooled_shape(backbone.output_shape(layer), self.pooling, backbone.channel_axis(layer))
            for layer in self.layers
        ] or [self.image_shape]

    @property
    def dtype(self) -> np.dtype:
        """Data type of all outputs."""
        return np.dtype(np.float32 if self.layers else np.uint8)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return max(map(self.backbone.macs, self.layers), default=0)
