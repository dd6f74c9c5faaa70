"""A network, and the pictures as it reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from sktl._engine._prefix import PREFIX_CONSTRAINTS, FrozenPrefix
from sktl._engine._threads import bounded_threads
from sktl._images import Images, check_images
from sktl.feature_extraction import PretrainedFeatureExtractor


def read_pictures(X: Any, backbone: Any) -> tuple[PretrainedFeatureExtractor, Images]:
    """The network, and the pictures as it reads them; a fitted extractor reads them as it has learnt to."""
    is_fitted = isinstance(backbone, PretrainedFeatureExtractor) and hasattr(backbone, "layers_")
    extractor = backbone if is_fitted else fitted_extractor(backbone, X)
    return extractor, check_images(extractor, X, reset=False)


def fitted_extractor(
    backbone: Any, X: Any, common: "PretrainedFeatureExtractor | None" = None
) -> PretrainedFeatureExtractor:
    """An extractor with this network, fitted to ``X``; a frozen one as it is.

    Parameters
    ----------
    backbone : str, Module, Backbone or estimator
        The network, or an extractor, which is cloned.
    X : array-like of pictures
        As they were given.
    common : PretrainedFeatureExtractor, default=None
        With the settings for a network that is no extractor.
    """
    frozen = backbone.estimator if isinstance(backbone, FrozenEstimator) else None
    if isinstance(frozen, PretrainedFeatureExtractor):
        check_is_fitted(frozen, "layers_")
        return frozen
    if isinstance(backbone, PretrainedFeatureExtractor):
        return clone(backbone).fit(X)
    common = PretrainedFeatureExtractor() if common is None else common
    return clone(common).set_params(backbone=backbone).fit(X)


def class_layer(extractor: PretrainedFeatureExtractor) -> "str | None":
    """The layer of a fitted extractor's network that gives the logits of the classes that it learnt, if there is one.

    None for a network of the user's own, whose head may be no classifier, for random weights, and for a file of weights
    without a head. That of ``sktl_mini`` gives principal components.
    """
    backbone = extractor.backbone_
    return backbone.layers[-1] if backbone.has_classifier else None


def run_layers(extractor: PretrainedFeatureExtractor, layers: Sequence[str], images: Images) -> list[np.ndarray]:
    """What each layer gives for the pictures; without layers the pictures as the network sees them.

    A picture that cannot be read is an error, whatever the extractor makes of it.
    """
    settings = {name: getattr(extractor, name) for name in PREFIX_CONSTRAINTS}
    if not layers:
        settings["cache"] = None  # pictures are large, are looked at once, and would push features out
    with bounded_threads():
        return FrozenPrefix(extractor.backbone_, layers, **{**settings, "on_error": "raise"}).run(images)
