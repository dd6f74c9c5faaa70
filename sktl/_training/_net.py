"""What estimators ask of a fitted network, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import fx, nn

from sktl.backbones import Backbone

Counts = tuple[int, int, int]  # parameters, those that are not zero, multiply-accumulates for one image


class Net(ABC):
    """The part of a fitted network behind its frozen stages.

    Attributes
    ----------
    device : str
        Where it runs.
    is_trainable : bool
        Whether others may go on with it: train it, look into its layers, ask for gradients.
    """

    device: str
    is_trainable: bool

    @property
    def note(self) -> str:
        """What is to be known of its time, if anything."""
        return ""

    @abstractmethod
    def outputs(self, activations: np.ndarray) -> np.ndarray:
        """Outputs (n, n_outputs), float32, for rows of activations of the frozen stages; each row's are its own."""

    @abstractmethod
    def run_fused(self, batch_size: int) -> None:
        """Predict from now on as fast as it can, with this many rows together."""

    @abstractmethod
    def count(self, backbone: Backbone) -> Counts:
        """What it has and computes together with the frozen stages of its estimator's backbone."""

    @abstractmethod
    def content(self) -> Any:
        """What it predicts with: equal for nets that predict the same, in any process."""

    @abstractmethod
    def hollow_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone of its estimator, to be pickled beside the net, without what the net holds itself."""

    @abstractmethod
    def fill_backbone(self, backbone: Backbone) -> Backbone:
        """The backbone again that `hollow_backbone` has emptied."""

    @abstractmethod
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What is worth being packed: all that the net holds in tensors, shared ones once."""

    @abstractmethod
    def hollow(self) -> Self:
        """The net without its `tensors`, to be pickled beside them."""

    @abstractmethod
    def fill(self, state: Mapping[str, torch.Tensor]) -> None:
        """Give a hollow net its tensors again."""


def count_parts(stages: fx.GraphModule, head: nn.Module) -> Counts:
    """What all stages of a network and its head have and compute."""
    parameters = {*stages.parameters(), *head.parameters()}
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        # Counted node by node: layers of several branches share what lies in front of them.
        sum(node.meta.get("macs", 0) for node in stages.graph.nodes)
        + sum(layer.in_features * layer.out_features for layer in linear),
    )
