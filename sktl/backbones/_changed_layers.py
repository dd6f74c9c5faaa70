"""Networks derived from another one: with other layers, or cut off after a stage."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import fx, nn

from sktl.backbones import _graph
from sktl.exceptions import BackboneError

BackboneT = TypeVar("BackboneT", bound=Any)  # a Backbone; importing it would be circular


def rebuilt(backbone: BackboneT, parts: Mapping[str, Any], stage_ends: Mapping[str, fx.Node]) -> BackboneT:
    """Return the network with other modules and tensors at some paths.

    The graph is traced again when needed. ``stage_ends`` keeps the stages as they are:
    if a layer was split in two, both still belong to its stage.

    Parameters
    ----------
    backbone : Backbone
        The network whose other layers are shared.
    parts : mapping of str to Module or Tensor
        The new modules and tensors by path.
    stage_ends : mapping of str to Node
        The last node of each stage.
    """
    module = _graph.shadow(backbone.module, torch.Tensor.detach)
    for path, part in parts.items():
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, part)
    return type(backbone)(
        module,
        name=backbone.name,
        preprocessing=backbone.preprocessing,
        in_channels=backbone.in_channels,
        stage_ends={name: end.meta["layer"] for name, end in stage_ends.items()},
    )


def ending(backbone: BackboneT, graph: fx.Graph, stage_ends: Mapping[str, fx.Node]) -> BackboneT:
    """Return the network that ends with the last of ``stage_ends``.

    Later modules are replaced with ``nn.Identity`` to free their memory.

    Parameters
    ----------
    backbone : Backbone
        The network whose layers are shared.
    graph : Graph
        Graph of the whole network.
    stage_ends : mapping of str to Node
        The last node of each remaining stage, at least one.
    """
    inside = _graph.ancestors([list(stage_ends.values())[-1]])
    used = {str(node.target) for node in inside}
    behind = {str(node.target) for node in graph.nodes if node.op == "call_module"} - used
    return rebuilt(backbone, {path: nn.Identity() for path in behind}, stage_ends)


def new_value(backbone: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``value`` with the dtype and layout of the tensor it replaces.

    Raises
    ------
    BackboneError
        If the network has no tensor of this name, or the shape differs.
    """
    try:
        owner, leaf = _graph.slot(backbone.module, name)
    except KeyError:
        raise BackboneError(
            f"{name!r} is not a tensor of {backbone.name!r}. Use names of backbone.module.state_dict()."
        ) from None
    old = getattr(owner, leaf)
    if old.shape != value.shape:
        raise BackboneError(
            f"The new value of {name!r} must have the shape of the tensor in {backbone.name!r}, {tuple(old.shape)}. "
            f"Got shape {tuple(value.shape)} instead."
        )
    return torch.empty_like(old, requires_grad=False).copy_(value.detach())
