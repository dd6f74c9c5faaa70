"""What a display is given to look at: a network, the pictures, and the settings to run the one on the other."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from sktl._estimators._backbone_parameter import resolve_backbone
from sktl._estimators._checked_table import as_targets
from sktl._estimators._find_fitted import find_fitted
from sktl._estimators._layer_features import name_layers
from sktl._estimators._network_estimator import fitted_pooling
from sktl._frozen._prefix import FrozenPrefix
from sktl._frozen._runtime import Runtime
from sktl._frozen._spec import PrefixSpec
from sktl._images import Images, check_images, is_missing
from sktl.backbones import Backbone
from sktl.exceptions import InputError
from sktl.feature_extraction import PretrainedFeatureExtractor


class NetworkAndImages(NamedTuple):
    """An estimator, its network, and pictures.

    Attributes
    ----------
    learner : estimator
        Which learns labels or numbers from the pictures, if it learns anything.
    owner : estimator
        With the settings: how pictures are read, what runs the network, what is kept. It may be a part of the learner.
    backbone : Backbone
        The network.
    images : Images
        The pictures.
    """

    learner: Any
    owner: Any
    backbone: Backbone
    images: Images

    def is_regression(self, y: Any) -> bool:
        """Whether targets are numbers: the estimator says what it learns; an extractor learns nothing, so they do."""
        if is_classifier(self.learner) or is_regressor(self.learner):
            return is_regressor(self.learner)
        return type_of_target(y).startswith("continuous")

    def features(self, layers: list[str], pooling: str, *, on_error: str = "raise") -> list[np.ndarray]:
        """A table of shape (n_images, n_features) for each layer, from one pass over the pictures."""
        spec = PrefixSpec(self.backbone, layers, pooling)
        return FrozenPrefix(spec, Runtime.of(self.owner, on_error=on_error)).run(self.images)


def network_and_images(estimator: Any, X: Any) -> NetworkAndImages:
    """The network and the pictures that a user means.

    Parameters
    ----------
    estimator : str, Module, Backbone or sktl estimator
        A fitted one, or a pipeline or search with one in it, gives the network with what it learnt, and reads pictures
        as it learnt to. One that is not fitted gives the network that it would start from, and the name of a network
        its best published weights.
    X : array-like of images
        Paths, images, a batch array or rows of pixels; of a fitted pipeline what its first step is given.

    Raises
    ------
    InputError
        Where the network of a fitted estimator was quantized to integers.
    BackboneError
        Where there is no such network.
    ImageError
        Where ``X`` is no table of pictures.
    """
    found = find_fitted(estimator, "backbone_")
    if found is not None:
        found.refuse_integers(type(estimator).__name__, "has no layers to be looked at")
        owner = found.estimator
        return NetworkAndImages(
            estimator, owner, owner.backbone_, check_images(owner, found.reached_by(X), reset=False)
        )
    if hasattr(estimator, "get_params") and "backbone" in estimator.get_params(deep=False):
        owner = clone(estimator).set_params(backbone=estimator.backbone)  # which a clone would have made unfitted
    else:
        in_channels = estimator.in_channels if isinstance(estimator, Backbone) else 3
        owner = PretrainedFeatureExtractor(estimator, in_channels=in_channels)
    images = check_images(owner, X, reset=True)
    return NetworkAndImages(owner, owner, resolve_backbone(owner), images)


def as_labels(y: Any) -> np.ndarray:
    """Labels or targets as an array (n,), of its own kind; what is missing among texts stays missing."""
    y = column_or_1d(np.asarray(as_targets(y)))
    if y.dtype == object and len({isinstance(label, str) for label in y.tolist() if not is_missing(label)}) == 2:
        raise InputError("y has both texts and numbers for labels, which have no order. Use one kind of them.")
    return y


def read_layers(found: NetworkAndImages, layer: Any = None) -> tuple[list[str], str]:
    """The layers that are read, by their names, and how they are pooled.

    Parameters
    ----------
    found : NetworkAndImages
        Whose they are.
    layer : int, str, list of these, or None
        As ``layers`` of `PretrainedFeatureExtractor`. None takes those that the estimator itself reads: an extractor's
        own, and of all others the last stage.

    Raises
    ------
    BackboneError
        Where there is no such layer.
    """
    owner = found.owner
    pooling = fitted_pooling(owner)
    pooling = "flatten" if pooling == "none" else pooling
    own = owner.layers if isinstance(owner, PretrainedFeatureExtractor) else -1
    return name_layers(found.backbone, own if layer is None else layer, pooling), pooling
