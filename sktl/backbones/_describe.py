"""A backbone's stages as a table."""

from collections.abc import Mapping
from html import escape
from os import PathLike
from typing import Any

import numpy as np
from torch import nn

from sktl._optional import import_optional
from sktl.backbones._backbone import Backbone
from sktl.backbones._load import load_backbone
from sktl.backbones._preprocessing import Preprocessing


def describe_backbone(
    backbone: "str | nn.Module | Backbone",
    *,
    weights: "str | PathLike[str] | None" = None,
    in_channels: int = 3,
    preprocessing: "Preprocessing | Mapping[str, Any] | None" = None,
    random_state: "int | np.random.RandomState | None" = 0,
) -> "BackboneTable":
    """Show where a network can be cut, and what each stage costs.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
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


class BackboneTable:
    """The stages of a backbone, one per row; made by `describe_backbone`.

    Parameters
    ----------
    backbone : Backbone
        The network.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._stages = backbone.stages
        height, width = backbone.preprocessing.crop_shape
        n_parameters = sum(stage.n_parameters for stage in self._stages)
        macs = sum(stage.macs for stage in self._stages)
        self._title = (
            f"{backbone.name}: {len(self._stages)} stages, {n_parameters:,} parameters, "
            f"{macs / 1e6:,.1f} million multiply-accumulates (MACs) per {height} x {width} picture"
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """The columns.

        Returns
        -------
        dict of str to list
            ``number`` (what ``layers=`` of an estimator takes for this stage, as it takes its name), ``stage``,
            ``n_layers`` (how many it consists of), ``output_shape``, ``parameters`` (how many) and ``share_of_macs``
            (0 to 1).
        """
        total = sum(stage.macs for stage in self._stages) or 1
        return {
            "number": list(range(len(self._stages))),
            "stage": [stage.name for stage in self._stages],
            "n_layers": [len(stage.layers) for stage in self._stages],
            "output_shape": [stage.output_shape for stage in self._stages],
            "parameters": [stage.n_parameters for stage in self._stages],
            "share_of_macs": [stage.macs / total for stage in self._stages],
        }

    def to_frame(self) -> Any:
        """The columns as a DataFrame.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        pandas = import_optional("pandas", extra="pandas", purpose="BackboneTable.to_frame()")
        return pandas.DataFrame(self.to_dict())

    def _cells(self) -> list[list[str]]:
        """The table as text, headings first."""
        columns = self.to_dict()
        rows = zip(*columns.values(), strict=True)
        return [
            ["layers=", "stage", "n_layers", "output shape", "parameters", "share of MACs"],
            *(
                [f"{number}", stage, f"{n_layers}", " x ".join(map(str, shape)), f"{parameters:,}", f"{share:.1%}"]
                for number, stage, n_layers, shape, parameters, share in rows
            ),
        ]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        names = cells[0].index("stage")  # names read from the left, numbers from the right
        lines = [
            "  ".join(
                cell.ljust(width) if column == names else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return "\n".join([self._title, "", *lines])

    def _repr_html_(self) -> str:
        heading, *rows = self._cells()
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return (
            f"<table><caption>{escape(self._title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
