"""A network, and the pictures as it reads them."""

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

# What a function that takes a network takes with it, as `PretrainedFeatureExtractor` does.
SETTINGS = (
    *("weights", "in_channels", "image_shape", "channels", "preprocessing"),
    *(name for name in RUNTIME_CONSTRAINTS if name != "on_error"),
)
_CONSTRAINTS = PretrainedFeatureExtractor._parameter_constraints
SETTINGS_CONSTRAINTS: dict = {name: _CONSTRAINTS[name] for name in SETTINGS}


def read_pictures(
    X: Any, backbone: Any, settings: "Mapping[str, Any] | None" = None
) -> tuple[PretrainedFeatureExtractor, Images]:
    """The network, and the pictures as it reads them; a fitted estimator reads them as it has learnt to.

    Parameters
    ----------
    X : array-like of pictures
        As they were given; of a fitted pipeline what its first step is given.
    backbone : str, Module, Backbone or estimator
        The network, or an estimator that has it: an extractor or another one of sktl, fitted or not, or a fitted
        pipeline or search with one in it.
    settings : mapping, default=None
        The parameters of the function that was called; of these, the ones in `SETTINGS` are those of a network that
        is no estimator.

    Raises
    ------
    InputError
        Where settings are given beside an estimator, which has its own.
    """
    settings = {name: value for name, value in (settings or {}).items() if name in SETTINGS}
    if not hasattr(backbone, "get_params") or isinstance(backbone, Backbone | type):
        extractor = PretrainedFeatureExtractor(backbone, **settings).fit(X)
        return extractor, check_images(extractor, X, reset=False)
    default = PretrainedFeatureExtractor().get_params()
    given = [name for name, value in settings.items() if value is not default[name] and value != default[name]]
    if given:
        raise InputError(
            f"{given[0]}={settings[given[0]]!r} is given beside a {type(backbone).__name__}, which has settings of its "
            f"own. {_where_to_set(backbone, given[0])}, or give the network alone."
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
    """A fitted estimator's network with its settings, and with what it has learnt of pictures."""
    if isinstance(owner, PretrainedFeatureExtractor):
        return owner
    resolve_backbone(PretrainedFeatureExtractor(owner))  # refuses a network of integers
    extractor = _unfitted_extractor(owner).set_params(
        backbone=owner.backbone_, weights="default", preprocessing=None, in_channels=owner.backbone_.in_channels
    )
    extractor.image_format_ = owner.image_format_
    extractor.backbone_ = owner.backbone_
    extractor.layers_ = [owner.backbone_.stages[-1].name]
    return extractor


def _unfitted_extractor(estimator: Any) -> PretrainedFeatureExtractor:
    """An extractor with the network and the settings that an estimator's parameters name."""
    params = estimator.get_params(deep=False)
    network = network_parameter(estimator) if isinstance(estimator, TakesNetwork) else "backbone"
    # A learner's batch_size is that of its training.
    shared = {name: params[name] for name in SETTINGS if name in params and name != "batch_size"}
    if isinstance(estimator, PretrainedFeatureExtractor):
        return clone(estimator).set_params(backbone=estimator.backbone)
    return PretrainedFeatureExtractor(params.get(network, estimator), **shared)


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


def _where_to_set(backbone: Any, name: str) -> str:
    if name in backbone.get_params(deep=False):
        return f"Use backbone.set_params({name}=...)"
    return f"Set {name} of the estimator of sktl in it"


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
    # Images are large, are looked at once, and would push features out of the cache.
    cache = extractor.cache if layers else None
    runtime = Runtime.of(extractor, batch_size=extractor.batch_size, cache=cache)
    return FrozenPrefix(PrefixSpec(extractor.backbone_, layers), runtime).run(images)
