"""The parameters that say which network to use, understood in one place for every estimator."""

import os
from numbers import Integral

from sklearn.utils._param_validation import Interval, StrOptions

from sktl.backbones import Backbone, Preprocessing, load_backbone

BACKBONE_CONSTRAINTS: dict = {
    "backbone": "no_validation",  # load_backbone says what it may be
    "weights": [str, os.PathLike, None],
    "in_channels": [Interval(Integral, 1, None, closed="left")],
    "image_shape": [tuple, list, None],
    "channels": [StrOptions({"auto", "first", "last"})],
    "preprocessing": [Preprocessing, dict, None],
    "random_state": ["random_state"],
}


def resolve_backbone(estimator, parameter: str = "backbone") -> Backbone:
    """The network that a parameter of an estimator means.

    A fitted estimator lends its trained network. `sklearn.base.clone`, and with it every grid search, makes an
    estimator that is a parameter unfitted again; `sklearn.frozen.FrozenEstimator` around it prevents that.

    Raises
    ------
    ValueError
        Where the backbone is an estimator that is not fitted, or where ``weights``, ``in_channels`` or
        ``preprocessing`` contradict a network that has its own already.
    """
    backbone = getattr(estimator, parameter)
    if hasattr(backbone, "get_params") and not isinstance(backbone, Backbone):
        if not hasattr(backbone, "backbone_"):
            raise ValueError(
                f"{parameter}={backbone!r} is an estimator without a fitted network. Fit it first, and wrap it in "
                "sklearn.frozen.FrozenEstimator where it is cloned (pipelines, grid searches)."
            )
        backbone = backbone.backbone_
    return load_backbone(
        backbone,
        weights=estimator.weights,
        in_channels=estimator.in_channels,
        preprocessing=estimator.preprocessing,
        random_state=estimator.random_state,
    )
