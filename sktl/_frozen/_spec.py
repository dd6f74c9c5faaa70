"""Which function of an image a frozen prefix is: a network up to named layers, and what is kept of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sktl._frozen._prefix_network import pooled_shape
from sktl.backbones import Backbone


@dataclass(frozen=True)
class PrefixSpec:
    """A network up to named layers, each of them pooled; without layers the images themselves.

    Two specs with one key are one function, whatever objects they are made of.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : sequence of str
        Layers to read, in this order; nothing behind the deepest one is computed. Without any, the output is the
        images as the network sees them: decoded, resized and cropped, by no network and whatever ``pooling`` says.
    pooling : {"avg", "max", "gem", "flatten", "cls", "none"}, default="avg"
        What is kept of each layer.
    """

    backbone: Backbone
    layers: Sequence[str]
    pooling: str = "avg"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def key(self) -> str:
        """Names all that determines the function, up to an engine's rounding."""
        preprocessing = self.backbone.preprocessing
        if not self.layers:
            return f"pictures|{preprocessing.pixels_key}"
        fingerprints = ",".join(self.backbone.fingerprint(layer) for layer in self.layers)
        return f"{fingerprints}|{preprocessing.key}|{self.pooling}"

    @property
    def outputs(self) -> "list[PrefixSpec]":
        """What it gives, one by one: each layer is a function of its own, and so are the images."""
        return [PrefixSpec(self.backbone, (layer,), self.pooling) for layer in self.layers] or [self]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image as the network sees it."""
        return (*self.backbone.preprocessing.crop_shape, self.backbone.in_channels)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one image's row in each output."""
        backbone = self.backbone
        return [
            pooled_shape(backbone.output_shape(layer), self.pooling, backbone.channel_axis(layer))
            for layer in self.layers
        ] or [self.image_shape]

    @property
    def dtype(self) -> np.dtype:
        """The type of all outputs."""
        return np.dtype(np.float32 if self.layers else np.uint8)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that one image takes."""
        return max(map(self.backbone.macs, self.layers), default=0)
