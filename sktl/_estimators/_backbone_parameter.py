"""The parameters that say which network to use, understood in one place for every estimator."""

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
    "backbone": "no_validation",  # load_backbone says what it may be
    "weights": [str, os.PathLike, None],
    "in_channels": [Interval(Integral, 1, None, closed="left")],
    "image_shape": [tuple, list, None],
    "channels": [StrOptions({"auto", "first", "last"})],
    "preprocessing": [Preprocessing, dict, None],
    "random_state": ["random_state"],
}


class TakesNetwork:
    """An estimator that trains the network which one of its parameters means."""

    _network_parameter = "backbone"


def network_parameter(estimator: TakesNetwork) -> str:
    """The parameter that says which network an estimator trains."""
    return estimator._network_parameter


def resolve_backbone(estimator, parameter: str = "backbone") -> Backbone:
    """The network that a parameter of an estimator means.

    A fitted estimator lends its trained network. `sklearn.base.clone`, and with it every grid search, makes an
    estimator that is a parameter unfitted again; `sklearn.frozen.FrozenEstimator` around it prevents that.

    Raises
    ------
    InputError
        Where the backbone is an estimator that is not fitted, or where ``weights``, ``in_channels`` or
        ``preprocessing`` contradict a network that has its own already.
    """
    backbone = getattr(estimator, parameter)
    if isinstance(backbone, MissingNetwork):
        raise InputError(
            f"{parameter}={backbone!r}: a compressed classifier is pickled without the network that it was made of. "
            f"Set {parameter} again to fit anew."
        )
    if hasattr(backbone, "get_params") and not isinstance(backbone, Backbone):
        found = find_fitted(backbone, "backbone_")
        if found is None:
            raise InputError(
                f"{parameter}={backbone!r} is an estimator without a fitted network. Fit it first, and wrap it in "
                "sklearn.frozen.FrozenEstimator where it is cloned (pipelines, grid searches)."
            )
        found.refuse_integers(f"{parameter}={backbone!r}", "no other estimator can go on with")
        backbone = found.estimator.backbone_
    return load_backbone(
        backbone,
        weights=estimator.weights,
        in_channels=estimator.in_channels,
        preprocessing=estimator.preprocessing,
        random_state=estimator.random_state,
    )


def has_random_weights(estimator: Any, parameter: str = "backbone") -> bool:
    """Whether nobody has trained the network that a parameter of an estimator means."""
    return estimator.weights is None and isinstance(getattr(estimator, parameter), str)


class MissingNetwork:
    """Stands for a network that was a parameter of a fitted estimator, and is not in its pickle.

    Parameters
    ----------
    name : str
        What it was.
    """

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, left behind when the fitted estimator was pickled>"


def without_networks(estimator: Any) -> Any:
    """An unfitted copy of an estimator, without the networks among its parameters and those of what it is made of."""
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
