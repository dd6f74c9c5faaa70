"""The layers that a feature extractor reads: their names, and what they give."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._prefix_network import check_pooling
from sktl._frozen._progress import PrintedProgress
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images
from sktl.backbones import Backbone
from sktl.exceptions import BackboneError, ImageError


def name_layers(backbone: Backbone, layers: Any, pooling: str = "avg") -> list[str]:
    """The names of layers that are given as ``layers`` of `PretrainedFeatureExtractor`, and can be pooled like this.

    Raises
    ------
    BackboneError
        Where there is no such layer, or it has no such pooling.
    """
    given = [layers] if isinstance(layers, str | Integral) else list(layers)
    stages = [stage.name for stage in backbone.stages]
    numbers = [layer for layer in given if isinstance(layer, Integral)]
    is_stage = [-len(stages) <= int(x) < len(stages) and not isinstance(x, bool) for x in numbers]
    if not given or not all(is_stage):
        raise BackboneError(
            f"layers={layers!r} does not name layers of {backbone.name!r}. Use its stages {stages}, their numbers from "
            f"{-len(stages)} to {len(stages) - 1}, or names from its Backbone.layers."
        )
    names = [stages[int(layer)] if isinstance(layer, Integral) else layer for layer in given]
    names = list(dict.fromkeys(names))  # ["layer4", -1] may name one layer twice
    for name in names:
        backbone.output_shape(name)  # an unknown layer is an error now, not at the first transform
        check_pooling(backbone, name, pooling)
    return names


def extractor_prefix(extractor: Any, on_error: str = "raise") -> FrozenPrefix:
    """The frozen prefix of a fitted extractor; ``on_error`` is what an `ImageReader` in front says."""
    on_error = "nan" if on_error == "nan" else extractor.on_error
    return FrozenPrefix(
        PrefixSpec(extractor.backbone_, extractor.layers_, extractor.pooling),
        Runtime.of(extractor, batch_size=extractor.batch_size, on_error=on_error),
    )


def layer_features(
    extractor: Any, images: Images, *listeners: Callable, failures: "dict[int, ImageError] | None" = None
) -> list[np.ndarray]:
    """What each layer of a fitted extractor gives for images.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        How its prefix is run, and whether that prints its progress.
    images : Images
        As the extractor reads them.
    *listeners : callable
        Told of the progress.
    failures : dict, default=None
        See `FrozenPrefix.run`.
    """
    printed = [PrintedProgress(extractor)] if extractor.verbose else []
    return extractor_prefix(extractor, images.on_error).run(images, [*listeners, *printed], failures=failures)


def joined_features(extractor: Any, images: Images, *listeners: Callable) -> np.ndarray:
    """The features of images: what `layer_features` gives, in one table."""
    tables = layer_features(extractor, images, *listeners)
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)
