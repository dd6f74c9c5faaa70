"""Network and images that a display inspects."""

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
    """A network, images, and the estimator with their parameters.

    Attributes
    ----------
    learner : estimator
        Estimator whose type tells whether targets are labels or numbers.
    owner : estimator
        The learner or a part of it, with the parameters that read the images and run
        the network.
    backbone : Backbone
        The network.
    images : Images
        The images.
    """

    learner: Any
    owner: Any
    backbone: Backbone
    images: Images

    def is_regression(self, y: Any) -> bool:
        """Return whether targets are numbers, by the type of the estimator or ``y``."""
        if is_classifier(self.learner) or is_regressor(self.learner):
            return is_regressor(self.learner)
        return type_of_target(y).startswith("continuous")

    def features(self, layers: list[str], pooling: str, *, on_error: str = "raise") -> list[np.ndarray]:
        """Return a table (n_samples, n_features) for each layer, in one pass."""
        spec = PrefixSpec(self.backbone, layers, pooling)
        return FrozenPrefix(spec, Runtime.of(self.owner, on_error=on_error)).run(self.images)


def network_and_images(estimator: Any, X: Any) -> NetworkAndImages:
    """Return the network of an estimator, and the images of ``X``.

    Parameters
    ----------
    estimator : str, Module, Backbone or sktl estimator
        A fitted estimator, or a pipeline or search that contains one, provides its
        trained network and reads images as in `fit`. An unfitted estimator provides its
        initial network, and a name the default weights.
    X : array-like of images
        Paths, images, a batch array or rows of pixels. For a fitted pipeline, the input
        of its first step.

    Raises
    ------
    InputError
        If the network of a fitted estimator was quantized to integers.
    BackboneError
        If the network does not exist.
    ImageError
        If ``X`` does not contain images.
    """
    found = find_fitted(estimator, "backbone_")
    if found is not None:
        found.refuse_integers(type(estimator).__name__, "has no layers to inspect")
        owner = found.estimator
        return NetworkAndImages(
            estimator, owner, owner.backbone_, check_images(owner, found.reached_by(X), reset=False)
        )
    if hasattr(estimator, "get_params") and "backbone" in estimator.get_params(deep=False):
        owner = clone(estimator).set_params(backbone=estimator.backbone)  # a clone would be unfitted
    else:
        in_channels = estimator.in_channels if isinstance(estimator, Backbone) else 3
        owner = PretrainedFeatureExtractor(estimator, in_channels=in_channels)
    images = check_images(owner, X, reset=True)
    return NetworkAndImages(owner, owner, resolve_backbone(owner), images)


def network_inputs(owner: Any, images: Images) -> np.ndarray:
    """Return images as the network of a fitted estimator sees them.

    The images are uint8 of shape (n, height, width, channels).

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    return FrozenPrefix(PrefixSpec(owner.backbone_, ()), Runtime.of(owner, cache=None)).run(images)[0]


def as_labels(y: Any) -> np.ndarray:
    """Convert labels or targets to a one-dimensional array and keep missing values."""
    y = column_or_1d(np.asarray(as_targets(y)))
    if y.dtype == object and len({isinstance(label, str) for label in y.tolist() if not is_missing(label)}) == 2:
        raise InputError("y has both strings and numbers as labels. Use only strings or only numbers.")
    return y


def read_layers(found: NetworkAndImages, layer: Any = None) -> tuple[list[str], str]:
    """Return the names of the layers to read, and their pooling.

    Parameters
    ----------
    found : NetworkAndImages
        Network and its estimator.
    layer : int, str, list of these, or None
        As ``layers`` of `PretrainedFeatureExtractor`. None uses the layers of a feature
        extractor, and the last stage of other estimators.

    Raises
    ------
    BackboneError
        If a layer does not exist.
    """
    owner = found.owner
    pooling = fitted_pooling(owner)
    pooling = "flatten" if pooling == "none" else pooling
    own = owner.layers if isinstance(owner, PretrainedFeatureExtractor) else -1
    return name_layers(found.backbone, own if layer is None else layer, pooling), pooling
