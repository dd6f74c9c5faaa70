"""The parameters of all estimators that name a network, and how they are resolved."""

import os
from numbers import Integral
from typing import Any

from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sktl._estimators._find_fitted import find_fitted
from sktl.backbones import Backbone, Preprocessing, load_backbone
from sktl.exceptions import InputError

BACKBONE_CONSTRAINTS: dict = {
    "backbone": "no_validation",  # load_backbone checks it
    "weights": [str, os.PathLike, None],
    "in_channels": [Interval(Integral, 1, None, closed="left")],
    "image_shape": [tuple, list, None],
    "channels": [StrOptions({"auto", "first", "last"})],
    "preprocessing": [Preprocessing, dict, None],
    "random_state": ["random_state"],
}


class TakesNetwork:
    """Base class of estimators with a parameter for the network that they train."""

    _network_parameter = "backbone"


def network_parameter(estimator: TakesNetwork) -> str:
    """Return the name of the parameter for the network that an estimator trains."""
    return estimator._network_parameter


def resolve_backbone(estimator, parameter: str = "backbone") -> Backbone:
    """Return the network that a parameter of an estimator names.

    If the parameter is a fitted estimator, its trained network is reused.
    `sklearn.base.clone`, and so every grid search, resets estimators that are
    parameters, unless they are inside a `sklearn.frozen.FrozenEstimator`.

    Raises
    ------
    InputError
        If the parameter is an estimator that is not fitted, or if ``weights``,
        ``in_channels`` or ``preprocessing`` contradict those of a network that is
        already loaded.
    """
    backbone = getattr(estimator, parameter)
    if isinstance(backbone, MissingNetwork):
        raise InputError(
            f"{parameter}={backbone!r} cannot be fitted, because a compressed classifier is pickled without its "
            f"original network. Set {parameter} to a network first."
        )
    if hasattr(backbone, "get_params") and not isinstance(backbone, Backbone):
        found = find_fitted(backbone, "backbone_")
        if found is None:
            raise InputError(
                f"{parameter}={backbone!r} is an estimator that has no fitted network. Fit it first, and wrap it in "
                "sklearn.frozen.FrozenEstimator if it is cloned, as in pipelines and grid searches."
            )
        found.refuse_integers(f"{parameter}={backbone!r}", "can only predict")
        backbone = found.estimator.backbone_
    return load_backbone(
        backbone,
        weights=estimator.weights,
        in_channels=estimator.in_channels,
        preprocessing=estimator.preprocessing,
        random_state=estimator.random_state,
    )


def has_random_weights(estimator: Any, parameter: str = "backbone") -> bool:
    """Check whether the network that a parameter names has random weights."""
    return estimator.weights is None and isinstance(getattr(estimator, parameter), str)


class MissingNetwork:
    """Placeholder for a network that is not in the pickle of a fitted estimator.

    Parameters
    ----------
    name : str
        Name of the class of the network.
    """

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, not included in the pickle of the fitted estimator>"


def without_networks(estimator: Any) -> Any:
    """Return a clone whose network parameters, nested ones too, are placeholders."""
    if isinstance(estimator, FrozenEstimator):
        return FrozenEstimator(without_networks(estimator.estimator))
    copied = clone(estimator, safe=False)
    for name, value in copied.get_params(deep=False).items():
        is_network = isinstance(copied, TakesNetwork) and name == copied._network_parameter
        if (is_network and not isinstance(value, str)) or isinstance(value, nn.Module | MissingNetwork):
            copied.set_params(
                **{name: value if isinstance(value, MissingNetwork) else MissingNetwork(type(value).__name__)}
            )
        elif hasattr(value, "get_params") and not isinstance(value, type):
            copied.set_params(**{name: without_networks(value)})
    return copied
