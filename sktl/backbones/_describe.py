"""A backbone's stages as a table."""

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
    """Show where a network can be cut, and what each stage costs.

    Parameters
    ----------
    backbone : str, nn.Module, Backbone or fitted estimator
        As for `load_backbone`.
    weights : str, path or None, default=None
        As for `load_backbone`. None downloads nothing, and the table is that of the default weights, except where
        weights come with a picture size of their own (``"IMAGENET1K_SWAG_E2E_V1"``): name these.
    in_channels : int, default=3
        As for `load_backbone`.
    preprocessing : Preprocessing, dict or None, default=None
        As for `load_backbone`; the size of the pictures decides the shapes and the multiply-accumulates.
    random_state : int, RandomState or None, default=0
        As for `load_backbone`.

    Returns
    -------
    BackboneTable
        Prints as a table; ``to_dict()`` and ``to_frame()`` give its columns.

    Raises
    ------
    BackboneError
        Where the network is unknown or cannot be read.

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
    """The stages of a backbone, one per row; made by `describe_backbone`.

    The columns are ``number`` (what ``layers=`` of an estimator takes for this stage, as it takes its name), ``stage``,
    ``n_layers`` (how many it consists of), ``output_shape``, ``parameters`` (how many) and ``share_of_macs`` (0 to 1).

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
            f"{macs / 1e6:,.1f} million multiply-accumulates (MACs) per {height} x {width} picture",
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
