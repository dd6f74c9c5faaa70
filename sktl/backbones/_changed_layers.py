"""Networks made from another one: with other layers at some paths, or up to one of its stages."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import fx, nn

from sktl.backbones import _graph
from sktl.exceptions import BackboneError

BackboneT = TypeVar("BackboneT", bound=Any)  # a Backbone, whose module imports this one


def rebuilt(backbone: BackboneT, parts: Mapping[str, Any], stage_ends: Mapping[str, fx.Node]) -> BackboneT:
    """The network with other modules and tensors at some paths; its graph is read anew where it is needed.

    Parameters
    ----------
    backbone : Backbone
        Whose other layers it shares.
    parts : mapping of str to Module or Tensor
        What is new, by its path.
    stage_ends : mapping of str to Node
        The stages, which stay what they are: a layer that has become two is still one of its block.
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
    """The network that ends with one of its stages; of the modules behind it nothing is left that takes room.

    Parameters
    ----------
    backbone : Backbone
        Whose layers it shares.
    graph : Graph
        Of the whole network.
    stage_ends : mapping of str to Node
        Its stages that are left, one at least.
    """
    inside = _graph.ancestors([list(stage_ends.values())[-1]])
    used = {str(node.target) for node in inside}
    behind = {str(node.target) for node in graph.nodes if node.op == "call_module"} - used
    return rebuilt(backbone, {path: nn.Identity() for path in behind}, stage_ends)


def new_value(backbone: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """A copy of ``value`` in the form of the tensor that it replaces in a network.

    Raises
    ------
    BackboneError
        Where there is no tensor of this name, or it has another shape.
    """
    try:
        owner, leaf = _graph.slot(backbone.module, name)
    except KeyError:
        raise BackboneError(
            f"{name!r} is no tensor of {backbone.name!r}. Use names of backbone.module.state_dict()."
        ) from None
    old = getattr(owner, leaf)
    if old.shape != value.shape:
        raise BackboneError(
            f"{name!r} of {backbone.name!r} has the shape {tuple(old.shape)}, but the new value {tuple(value.shape)}. "
            "Give a tensor of the same shape."
        )
    return torch.empty_like(old, requires_grad=False).copy_(value.detach())
