"""Layers of a feature extractor: their names and their output."""

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
    """Return the names of the layers of a ``layers`` parameter.

    Raises
    ------
    BackboneError
        If a layer does not exist or does not support the pooling.
    """
    given = [layers] if isinstance(layers, str | Integral) else list(layers)
    stages = [stage.name for stage in backbone.stages]
    numbers = [layer for layer in given if isinstance(layer, Integral)]
    is_stage = [-len(stages) <= int(x) < len(stages) and not isinstance(x, bool) for x in numbers]
    if not given or not all(is_stage):
        raise BackboneError(
            f"layers={layers!r} does not name layers of {backbone.name!r}. Use its stages {stages}, their numbers from "
            f"{-len(stages)} to {len(stages) - 1}, or names in Backbone.layers."
        )
    names = [stages[int(layer)] if isinstance(layer, Integral) else layer for layer in given]
    names = list(dict.fromkeys(names))  # ["layer4", -1] may name one layer twice
    for name in names:
        backbone.output_shape(name)  # raises an error for an unknown layer in fit instead of transform
        check_pooling(backbone, name, pooling)
    return names


def extractor_prefix(extractor: Any, on_error: str = "raise") -> FrozenPrefix:
    """Return the prefix of an extractor; ``on_error`` is that of an `ImageReader`."""
    on_error = "nan" if on_error == "nan" else extractor.on_error
    return FrozenPrefix(
        PrefixSpec(extractor.backbone_, extractor.layers_, extractor.pooling),
        Runtime.of(extractor, batch_size=extractor.batch_size, on_error=on_error),
    )


def layer_features(
    extractor: Any, images: Images, *listeners: Callable, failures: "dict[int, ImageError] | None" = None
) -> list[np.ndarray]:
    """Return the output of each layer of a fitted extractor.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        The fitted extractor.
    images : Images
        Checked images.
    *listeners : callable
        Callbacks for the progress.
    failures : dict, default=None
        See `FrozenPrefix.run`.
    """
    printed = [PrintedProgress(extractor)] if extractor.verbose else []
    return extractor_prefix(extractor, images.on_error).run(images, [*listeners, *printed], failures=failures)


def joined_features(extractor: Any, images: Images, *listeners: Callable) -> np.ndarray:
    """Return the features of images: the concatenated output of the layers."""
    tables = layer_features(extractor, images, *listeners)
    return tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)


def feature_names(spec: PrefixSpec) -> np.ndarray:
    """Return the names of pooled features: backbone, layer and position."""
    prefix = spec.backbone.name.replace(":", "_")
    widths = zip(spec.layers, spec.shapes, strict=True)
    return np.array([f"{prefix}_{layer}_{n}" for layer, (width,) in widths for n in range(width)], dtype=object)
