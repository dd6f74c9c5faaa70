"""Networks without the values of their weights, for pickling these separately."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch

from sktl.backbones import _graph

BackboneT = TypeVar("BackboneT", bound=Any)  # a Backbone


def hollow(backbone: BackboneT, names: Iterable[str]) -> BackboneT:
    """Return the network with some tensors replaced by placeholders without memory.

    It is pickled separately from the values. It cannot run until `fill` has restored
    them, and keeps the fingerprints of the full network.
    """
    own = backbone.module.state_dict()
    return _with(backbone, {name: hollow_tensor(own[name]) for name in names if name in own})


def fill(backbone: BackboneT, state: Mapping[str, torch.Tensor]) -> BackboneT:
    """Return the network with the values that `hollow` removed."""
    own = backbone.module.state_dict()
    return _with(backbone, {name: value.detach().cpu().clone() for name, value in state.items() if name in own})


def hollow_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return zeros of the same shape and dtype that share a single number in memory."""
    return tensor.new_zeros(()).expand(tensor.shape)


def is_hollow(tensor: torch.Tensor) -> bool:
    """Check whether a tensor was made by `hollow_tensor`.

    For tensors with a single element, the result is always False.
    """
    return tensor.numel() != 1 and not any(tensor.stride())


def _with(backbone: BackboneT, tensors: Mapping[str, torch.Tensor]) -> BackboneT:
    """Return a network with other tensors, without its cached graph."""
    other = object.__new__(type(backbone))
    vars(other).update(backbone.__getstate__())
    other.module = _graph.with_tensors(backbone.module, tensors)
    return other
