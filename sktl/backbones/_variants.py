"""Networks made from another one: with other layers, or emptied to be pickled beside what was in them."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import fx, nn

from sktl.backbones import _graph

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


def up_to(backbone: BackboneT, n_stages: int) -> BackboneT:
    """The network that ends with one of its stages; of the modules behind it nothing is left that takes room.

    Parameters
    ----------
    backbone : Backbone
        Whose layers it shares.
    n_stages : int
        How many of its stages are left, one at least.
    """
    ends = dict(list(backbone._stage_ends.items())[:n_stages])
    inside = _graph.ancestors([list(ends.values())[-1]])
    used = {str(node.target) for node in inside}
    behind = {str(node.target) for node in backbone._full_graph.nodes if node.op == "call_module"} - used
    return rebuilt(backbone, {path: nn.Identity() for path in behind}, ends)


def hollow(backbone: BackboneT, names: Iterable[str]) -> BackboneT:
    """The same network with some tensors that take no room and hold nothing, to be pickled beside their values.

    It is not to be run before `fill` has given it its values again, and keeps the fingerprints of the whole one.
    """
    own = backbone.module.state_dict()
    return _with(backbone, {name: hollow_tensor(own[name]) for name in names if name in own})


def fill(backbone: BackboneT, state: Mapping[str, torch.Tensor]) -> BackboneT:
    """What `hollow` emptied, with the values again that it had."""
    own = backbone.module.state_dict()
    return _with(backbone, {name: value.detach().cpu().clone() for name, value in state.items() if name in own})


def hollow_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros of the same shape and type that are one number in memory."""
    return tensor.new_zeros(()).expand(tensor.shape)


def is_hollow(tensor: torch.Tensor) -> bool:
    """Whether it is what `hollow_tensor` made of several numbers, or of one: then it makes no difference."""
    return tensor.numel() != 1 and not any(tensor.stride())


def _with(backbone: BackboneT, tensors: Mapping[str, torch.Tensor]) -> BackboneT:
    """Another network of the same graph and name, which is still to be read."""
    other = object.__new__(type(backbone))
    vars(other).update(backbone.__getstate__())
    other.module = _graph.with_tensors(backbone.module, tensors)
    return other
