"""Networks emptied to be pickled beside what was in them, and filled again."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch

from sktl.backbones import _graph

BackboneT = TypeVar("BackboneT", bound=Any)  # a Backbone


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
