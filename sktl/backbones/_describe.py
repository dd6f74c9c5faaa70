"""Tables of the stages of a backbone."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from sktl._table import ReadableTable
from sktl.backbones._backbone import Backbone
from sktl.backbones._load import load_backbone
from sktl.backbones._preprocessing import Preprocessing


def describe_backbone(
    backbone: Any,
    *,
    weights: "str | PathLike[str] | None" = None,
    in_channels: int = 3,
    preprocessing: "Preprocessing | Mapping[str, Any] | None" = None,
    random_state: "int | np.random.RandomState | None" = 0,
) -> "BackboneTable":
    """Describe the stages of a network: shapes, parameters and computational cost.

    Parameters
    ----------
    backbone : str, nn.Module, Backbone or fitted estimator
        The network, as in `sktl.backbones.load_backbone`.
    weights : str, path or None, default=None
        Weights of a backbone given by name, as in `sktl.backbones.load_backbone`. None
        downloads nothing and describes the network for the images of its default
        weights. Pass the name of weights that use another image size, such as
        ``"IMAGENET1K_SWAG_E2E_V1"``.
    in_channels : int, default=3
        Number of channels of the network's input.
    preprocessing : Preprocessing, dict or None, default=None
        Preprocessing of the images, as in `sktl.backbones.load_backbone`. The output
        shapes and the multiply-accumulates depend on the size of the images.
    random_state : int, RandomState or None, default=0
        Seed of the random weights. Only used if ``weights=None``.

    Returns
    -------
    BackboneTable
        Table of the stages. ``to_dict()`` and ``to_frame()`` return its columns.

    Raises
    ------
    BackboneError
        If the network does not exist or cannot be traced.

    Examples
    --------
    >>> from sktl.backbones import describe_backbone
    >>> describe_backbone("sktl_mini").to_dict()["stage"]
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    return BackboneTable(
        load_backbone(
            backbone,
            weights=weights,
            in_channels=in_channels,
            preprocessing=preprocessing,
            random_state=random_state,
        )
    )


class BackboneTable(ReadableTable):
    """Table of the stages of a backbone, one per row.

    Created by `sktl.backbones.describe_backbone`. The columns are ``number`` (number of
    the stage, which the ``layers`` parameter of an estimator accepts instead of the
    name), ``stage`` (its name), ``n_layers`` (number of layers), ``output_shape``,
    ``parameters`` (number of parameters) and ``share_of_macs`` (from 0 to 1).

    Parameters
    ----------
    backbone : Backbone
        The network.
    """

    def __init__(self, backbone: Backbone) -> None:
        stages = backbone.stages
        height, width = backbone.preprocessing.crop_shape
        macs = sum(stage.macs for stage in stages)
        super().__init__(
            f"{backbone.name}: {len(stages)} stages, {sum(stage.n_parameters for stage in stages):,} parameters, "
            f"{macs / 1e6:,.1f} million multiply-accumulates (MACs) per {height} x {width} image",
            {
                "number": range(len(stages)),
                "stage": [stage.name for stage in stages],
                "n_layers": [len(stage.layers) for stage in stages],
                "output_shape": [stage.output_shape for stage in stages],
                "parameters": [stage.n_parameters for stage in stages],
                "share_of_macs": [stage.macs / (macs or 1) for stage in stages],
            },
            ["layers=", "stage", "n_layers", "output shape", "parameters", "share of MACs"],
            [str, str, str, lambda shape: " x ".join(map(str, shape)), "{:,}".format, "{:.1%}".format],
            names=["stage"],
        )
