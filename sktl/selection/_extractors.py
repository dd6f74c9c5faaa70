"""Extractors for the networks and estimators that are passed to selection functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from sktl._estimators._backbone_parameter import TakesNetwork, network_parameter, resolve_backbone
from sktl._estimators._find_fitted import find_fitted
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import RUNTIME_CONSTRAINTS, Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images, check_images
from sktl.backbones import Backbone
from sktl.exceptions import InputError
from sktl.feature_extraction import PretrainedFeatureExtractor

# Parameters that functions share with `PretrainedFeatureExtractor`.
SETTINGS = (
    *("weights", "in_channels", "image_shape", "channels", "preprocessing"),
    *(name for name in RUNTIME_CONSTRAINTS if name != "on_error"),
)
_CONSTRAINTS = PretrainedFeatureExtractor._parameter_constraints
SETTINGS_CONSTRAINTS: dict = {name: _CONSTRAINTS[name] for name in SETTINGS}


def read_images(
    X: Any, backbone: Any, settings: "Mapping[str, Any] | None" = None
) -> tuple[PretrainedFeatureExtractor, Images]:
    """Return an extractor for ``backbone``, and the images as it reads them.

    A fitted estimator reads the images as in its ``fit``.

    Parameters
    ----------
    X : array-like of images
        The images, or the input of the first step if ``backbone`` is a fitted pipeline.
    backbone : str, Module, Backbone or estimator
        The network, or an estimator that contains it: an extractor or another sktl
        estimator, fitted or not, or a fitted pipeline or search.
    settings : mapping, default=None
        Parameters of the calling function. Those in `SETTINGS` apply to a network that
        is not an estimator.

    Raises
    ------
    InputError
        If settings are passed with an estimator.
    """
    settings = {name: value for name, value in (settings or {}).items() if name in SETTINGS}
    if not hasattr(backbone, "get_params") or isinstance(backbone, Backbone | type):
        extractor = PretrainedFeatureExtractor(backbone, **settings).fit(X)
        return extractor, check_images(extractor, X, reset=False)
    default = PretrainedFeatureExtractor().get_params()
    given = [name for name, value in settings.items() if value is not default[name] and value != default[name]]
    if given:
        raise InputError(
            f"{given[0]}={settings[given[0]]!r} cannot be passed with a {type(backbone).__name__}, which has its own "
            f"settings. {_where_to_set(backbone, given[0])}, or pass the network instead of the estimator."
        )
    found = find_fitted(backbone, "backbone_")
    if found is not None:
        images = check_images(found.estimator, found.reached_by(X), reset=False)
        return _as_extractor(found.estimator), images
    if isinstance(backbone, FrozenEstimator):
        check_is_fitted(backbone.estimator)
    extractor = _unfitted_extractor(backbone).fit(X)
    return extractor, check_images(extractor, X, reset=False)


def _as_extractor(owner: Any) -> PretrainedFeatureExtractor:
    """Return an extractor with the network, settings and format of an estimator."""
    if isinstance(owner, PretrainedFeatureExtractor):
        return owner
    resolve_backbone(PretrainedFeatureExtractor(owner))  # raises an error for int8 networks
    extractor = _unfitted_extractor(owner).set_params(
        backbone=owner.backbone_, weights="default", preprocessing=None, in_channels=owner.backbone_.in_channels
    )
    extractor.image_format_ = owner.image_format_
    extractor.backbone_ = owner.backbone_
    extractor.layers_ = [owner.backbone_.stages[-1].name]
    return extractor


def _unfitted_extractor(estimator: Any) -> PretrainedFeatureExtractor:
    """Return an unfitted extractor with the network and settings of an estimator."""
    params = estimator.get_params(deep=False)
    network = network_parameter(estimator) if isinstance(estimator, TakesNetwork) else "backbone"
    # The batch_size of a learner is for training.
    shared = {name: params[name] for name in SETTINGS if name in params and name != "batch_size"}
    if isinstance(estimator, PretrainedFeatureExtractor):
        return clone(estimator).set_params(backbone=estimator.backbone)
    return PretrainedFeatureExtractor(params.get(network, estimator), **shared)


def fitted_extractor(
    backbone: Any, X: Any, common: "PretrainedFeatureExtractor | None" = None
) -> PretrainedFeatureExtractor:
    """Return an extractor with this network, fitted to ``X``.

    Parameters
    ----------
    backbone : str, Module, Backbone or estimator
        The network, or an extractor, which is cloned. A frozen extractor is returned as
        it is.
    X : array-like of images
        The images.
    common : PretrainedFeatureExtractor, default=None
        Settings for a network that is not an extractor.
    """
    frozen = backbone.estimator if isinstance(backbone, FrozenEstimator) else None
    if isinstance(frozen, PretrainedFeatureExtractor):
        check_is_fitted(frozen, "layers_")
        return frozen
    if isinstance(backbone, PretrainedFeatureExtractor):
        return clone(backbone).fit(X)
    common = PretrainedFeatureExtractor() if common is None else common
    return clone(common).set_params(backbone=backbone).fit(X)


def _where_to_set(backbone: Any, name: str) -> str:
    if name in backbone.get_params(deep=False):
        return f"Use backbone.set_params({name}=...)"
    return f"Set {name} of the sktl estimator in it"


def class_layer(extractor: PretrainedFeatureExtractor) -> "str | None":
    """Return the layer with the logits of a published classifier, or None.

    None for the user's own networks, random weights and weights files without a head.
    The head of ``sktl_mini`` predicts principal components and does not count.
    """
    backbone = extractor.backbone_
    return backbone.layers[-1] if backbone.has_classifier else None


def run_layers(extractor: PretrainedFeatureExtractor, layers: Sequence[str], images: Images) -> list[np.ndarray]:
    """Return the output of each layer, or the preprocessed images without layers.

    Unreadable images raise an error, whatever ``on_error`` the extractor has.
    """
    # Images are large and used once. They would evict features from the cache.
    cache = extractor.cache if layers else None
    runtime = Runtime.of(extractor, batch_size=extractor.batch_size, cache=cache)
    return FrozenPrefix(PrefixSpec(extractor.backbone_, layers), runtime).run(images)
